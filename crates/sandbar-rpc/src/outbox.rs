//! What waits to be written, on two lanes, and why nothing more is taken.
//!
//! Keeps the order within a lane. The control lane never makes anybody wait and closes the connection when it is full;
//! the data lane lets senders wait for room, in the order in which they came. Knows no socket: the writer takes batches.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, watch};

use crate::Limits;
use crate::close::{CloseReason, Closed};
use crate::transport::{Frame, Wire};

/// What one write carries at most, unless a single frame is larger: a control message waits for one batch at worst.
const BATCH: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Wakes the writer.
    work: Notify,
    /// Bytes of the data lane that are free.
    room: Semaphore,
    reason: watch::Sender<Option<CloseReason>>,
    control_frames: usize,
    control_bytes: usize,
    data_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    control: VecDeque<Frame>,
    control_bytes: usize,
    data: VecDeque<Frame>,
    /// A ping is due; two that wait are one.
    ping: bool,
    /// The newest ping of the peer that was not answered yet (RFC 6455, 5.5.3 allows to answer only that one).
    pong: Option<Vec<u8>>,
    is_closed: bool,
}

/// What the writer takes at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) frames: Vec<Wire>,
    /// Room of the data lane that is free again once the frames are written.
    pub(crate) data: usize,
}

/// Why a message was not taken by the control lane.
#[derive(Debug)]
pub(crate) enum Refused {
    Closed(CloseReason),
    Full { frames: usize, bytes: usize },
}

impl Outbox {
    pub(crate) fn new(limits: &Limits) -> Self {
        // Tokio counts permits in less than a usize; nobody needs more room than this.
        let data_bytes = limits.data_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self {
            state: Mutex::default(),
            work: Notify::new(),
            room: Semaphore::new(data_bytes),
            reason: watch::channel(None).0,
            control_frames: limits.control_frames,
            control_bytes: limits.control_bytes,
            data_bytes,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held: whatever is in it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues on the control lane, if there is room.
    pub(crate) fn try_control(&self, frame: Frame) -> Result<(), Refused> {
        let mut state = self.state();
        if state.is_closed {
            return Err(Refused::Closed(self.reason()));
        }
        let (frames, bytes) = (state.control.len() + 1, state.control_bytes + frame.len());
        if frames > self.control_frames || (bytes > self.control_bytes && frames > 1) {
            return Err(Refused::Full { frames, bytes });
        }
        state.control_bytes = bytes;
        state.control.push_back(frame);
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Queues on the control lane; a full one ends the connection.
    pub(crate) fn control(&self, frame: Frame) -> Result<(), Closed> {
        self.try_control(frame).map_err(|refused| match refused {
            Refused::Closed(reason) => Closed(reason),
            Refused::Full { frames, bytes } => {
                self.close(CloseReason::ControlOverflow { frames, bytes });
                Closed(self.reason())
            }
        })
    }

    /// Queues on the data lane, once there is room and all who came earlier had their turn.
    pub(crate) async fn data(&self, frame: Frame) -> Result<(), Closed> {
        let size = self.charge(&frame);
        // At most `data_bytes`, which fits.
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        // Waits as long as the peer lives and doesn't read; its death closes the semaphore.
        let Ok(permit) = self.room.acquire_many(permits).await else { return Err(Closed(self.reason())) };
        let mut state = self.state();
        if state.is_closed {
            return Err(Closed(self.reason()));
        }
        permit.forget();
        state.data.push_back(frame);
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Room that a frame takes: at least some, so that empty ones are bounded too.
    fn charge(&self, frame: &Frame) -> usize {
        frame.len().clamp(1, self.data_bytes)
    }

    pub(crate) fn ping(&self) {
        self.state().ping = true;
        self.work.notify_one();
    }

    pub(crate) fn pong(&self, payload: Vec<u8>) {
        self.state().pong = Some(payload);
        self.work.notify_one();
    }

    /// Takes no more. The first reason stands; what is queued stays for the writer.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.reason.send_if_modified(|current| {
            let is_first = current.is_none();
            current.get_or_insert(reason);
            is_first
        });
        let mut state = self.state();
        state.is_closed = true;
        if !self.reason().flushes() {
            state.control.clear();
            state.data.clear();
        }
        drop(state);
        self.room.close();
        self.work.notify_one();
    }

    pub(crate) fn closed(&self) -> Option<CloseReason> {
        self.reason.borrow().clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// The reason, of a connection that is closed.
    pub(crate) fn reason(&self) -> CloseReason {
        self.closed().unwrap_or(CloseReason::Abandoned)
    }

    /// Waits until the connection ends: as long as it lives.
    pub(crate) async fn wait_closed(&self) -> CloseReason {
        let mut reason = self.reason.subscribe();
        // The sender lives in self, so waiting can't fail.
        let found = reason.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        found.unwrap_or(CloseReason::Abandoned)
    }

    /// Waits for work: as long as the connection lives. `None` when it is closed and nothing is queued.
    pub(crate) async fn next_batch(&self) -> Option<Batch> {
        loop {
            let batch = self.take();
            if !batch.frames.is_empty() {
                return Some(batch);
            }
            if self.state().is_closed {
                return None;
            }
            self.work.notified().await;
            // Who runs in the same turn may have more to say, and one write is cheaper than two.
            tokio::task::yield_now().await;
        }
    }

    /// Takes what fits into one write: pings, then control, then data.
    fn take(&self) -> Batch {
        let mut state = self.state();
        let mut batch = Batch::default();
        let mut bytes = 0;
        batch.frames.extend(state.pong.take().map(Wire::Pong));
        if std::mem::take(&mut state.ping) {
            batch.frames.push(Wire::Ping(Vec::new()));
        }
        while bytes < BATCH
            && let Some(frame) = state.control.pop_front()
        {
            state.control_bytes -= frame.len();
            bytes += frame.len();
            batch.frames.push(frame.into());
        }
        while bytes < BATCH
            && let Some(frame) = state.data.pop_front()
        {
            batch.data += self.charge(&frame);
            bytes += frame.len();
            batch.frames.push(frame.into());
        }
        batch
    }

    /// Notes that data of this size was written, so that there is room again.
    pub(crate) fn written(&self, data: usize) {
        self.room.add_permits(data);
    }
}
