//! Events of a process, in the order of their sequence numbers; what a recorder consumes.

use serde::{Deserialize, Serialize};

use crate::{EndRecord, Seq, Stream, Timestamp};

/// Output that a reader can no longer have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First missing sequence number.
    pub from_seq: Seq,
    /// Last missing sequence number.
    pub to_seq: Seq,
    /// Missing bytes of both streams.
    pub bytes: u64,
}

/// One thing that happened to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    /// The process wrote.
    Output {
        /// Its place among the process's events.
        seq: Seq,
        /// Where it wrote.
        stream: Stream,
        /// Bytes that both streams carried before this chunk.
        offset_bytes: u64,
        /// When the keeper read it.
        time: Timestamp,
        /// What it wrote, uninterpreted.
        bytes: Vec<u8>,
    },
    /// Output is missing here.
    Gap(Gap),
    /// The leader was stopped, by job control or by a signal, and goes on when somebody continues it. Has no
    /// sequence number and no place in the log: it is told to who watches when it happens.
    Stopped {
        /// Number of the signal.
        signal: i32,
    },
    /// The leader ended; streams may still carry what its children write.
    Exited(EndRecord),
    /// Every stream is at its end. Always the last event.
    Closed {
        /// The highest sequence number of the process.
        seq: Seq,
    },
}
