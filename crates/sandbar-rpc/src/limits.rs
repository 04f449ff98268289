//! Bounds of one connection.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Bounds of one connection. What happens at each is said beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest message that is read, in bytes; 16 MiB, as Codex 0.169. A larger one is skipped and answered with
    /// `FRAME_TOO_LARGE`, under the id of the request where it stood near the front.
    pub max_inbound_frame: usize,
    /// Largest request that is sent, in bytes; 16 MiB, because a server like Codex 0.169 hangs up on a larger one.
    /// Beyond it [`RequestError::TooLarge`](crate::RequestError::TooLarge).
    pub max_request_frame: usize,
    /// Requests of the peer that are not answered yet; beyond it `TOO_MANY_REQUESTS`.
    pub max_in_flight: usize,
    /// Long polls of the peer that are not answered yet, which don't count as in flight; beyond it `TOO_MANY_REQUESTS`.
    pub max_long_polls: usize,
    /// Requests of ours that are not answered yet, cancelled ones included; beyond it
    /// [`RequestError::TooMany`](crate::RequestError::TooMany).
    pub max_outstanding: usize,
    /// Messages that wait on the control lane; one more closes the connection. A peer that pipelines is answered on it,
    /// so it holds many times `max_in_flight`.
    pub control_frames: usize,
    /// Bytes that wait on the control lane; beyond it the connection is closed. A single message may be larger.
    pub control_bytes: usize,
    /// Bytes that wait on the data lane; beyond it senders wait. A larger frame waits until the lane is empty.
    pub data_bytes: usize,
    /// Time between pings, on transports that have them.
    pub ping_interval: Duration,
    /// Intervals without any sign of life after which the peer is gone.
    pub missed_pings: u32,
    /// How long a connection that ends in order may take to write what is queued.
    pub flush: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_inbound_frame: 16 * MIB,
            max_request_frame: 16 * MIB,
            max_in_flight: 4096,
            max_long_polls: 4096,
            max_outstanding: 65_536,
            control_frames: 65_536,
            control_bytes: 16 * MIB,
            // A quarter of a second on a link of 4 MB/s: enough to keep it busy, little enough to pass.
            data_bytes: MIB,
            ping_interval: Duration::from_secs(10),
            missed_pings: 2,
            flush: Duration::from_secs(2),
        }
    }
}
