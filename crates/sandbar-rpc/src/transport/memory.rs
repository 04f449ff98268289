//! A link in memory, for tests: frames in a bounded queue each way, and a hand on the link to cut or to silence it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{About, Activity, FRONT, Inbound, Side, Transport, Wire};
use crate::close::CloseReason;

/// What fits into one direction until it is read, in bytes: about what a socket's buffers hold.
const CAPACITY: usize = 256 * 1024;

/// Two ends of a link, the client's and the server's, and a hand on it.
#[must_use]
pub fn memory() -> (Transport, Transport, Link) {
    let up = Arc::new(Pipe::default());
    let down = Arc::new(Pipe::default());
    let client = end(Side::Client, Arc::clone(&down), Arc::clone(&up));
    let server = end(Side::Server, Arc::clone(&up), Arc::clone(&down));
    (client, server, Link { up, down })
}

fn end(side: Side, input: Arc<Pipe>, output: Arc<Pipe>) -> Transport {
    Transport {
        reader: super::Reader::Memory(Reader { pipe: input }),
        writer: super::Writer::Memory(Writer { pipe: output }),
        about: About {
            side,
            kind: "memory",
            peer: "memory peer".to_owned(),
            has_binary: true,
            has_pings: true,
            lingers: false,
        },
    }
}

/// A hand on a link in memory.
#[derive(Debug, Clone)]
pub struct Link {
    /// From the client to the server.
    up: Arc<Pipe>,
    down: Arc<Pipe>,
}

impl Link {
    /// Breaks it: both ends see an error, what was on its way is gone.
    pub fn cut(&self) {
        self.up.end(Fate::Cut { drains: false });
        self.down.end(Fate::Cut { drains: false });
    }

    /// Breaks it behind the next `frames` that `from` sends: these arrive, what comes the other way is gone.
    pub fn cut_after(&self, from: Side, frames: usize) {
        let (this, other) = match from {
            Side::Client => (&self.up, &self.down),
            Side::Server => (&self.down, &self.up),
        };
        if frames == 0 {
            return self.cut();
        }
        this.state().cut_after = Some((frames, Arc::clone(other)));
    }

    /// Lets it swallow everything without an error, as a link does whose other end lost its power.
    pub fn fall_silent(&self) {
        self.up.end(Fate::Silent);
        self.down.end(Fate::Silent);
    }
}

/// What becomes of what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Fate {
    #[default]
    Open,
    /// The writer has ended in order.
    Finished,
    Cut {
        /// Whether what was written before still arrives.
        drains: bool,
    },
    Silent,
}

#[derive(Debug, Default)]
struct Pipe {
    state: Mutex<State>,
    readable: Notify,
    writable: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Wire>,
    bytes: usize,
    fate: Fate,
    cut_after: Option<(usize, Arc<Pipe>)>,
}

impl Pipe {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held: whatever is in it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, fate: Fate) {
        self.state().fate = fate;
        self.readable.notify_one();
        self.writable.notify_one();
    }

    /// Takes a frame if there is room; gives it back if there is none.
    fn push(&self, frame: Wire) -> io::Result<Option<Wire>> {
        let mut state = self.state();
        match state.fate {
            Fate::Open => {}
            // What a silent link swallows is bounded too: then it has no room.
            Fate::Silent => {}
            Fate::Finished | Fate::Cut { .. } => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        let size = size(&frame);
        if state.bytes > 0 && state.bytes + size > CAPACITY {
            return Ok(Some(frame));
        }
        state.bytes += size;
        state.frames.push_back(frame);
        let cut = match &mut state.cut_after {
            Some((left, _)) if *left > 1 => {
                *left -= 1;
                None
            }
            Some(_) => state.cut_after.take(),
            None => None,
        };
        if let Some((_, other)) = cut {
            state.fate = Fate::Cut { drains: true };
            drop(state);
            other.end(Fate::Cut { drains: false });
        }
        self.readable.notify_one();
        Ok(None)
    }

    /// The next frame, or `None` when there is none yet.
    fn pop(&self) -> Result<Option<Wire>, CloseReason> {
        let cut = || CloseReason::Lost { why: "the link was cut".to_owned() };
        let mut state = self.state();
        match state.fate {
            Fate::Silent => return Ok(None),
            Fate::Cut { drains: false } => return Err(cut()),
            Fate::Open | Fate::Finished | Fate::Cut { drains: true } => {}
        }
        if let Some(frame) = state.frames.pop_front() {
            state.bytes -= size(&frame);
            self.writable.notify_one();
            return Ok(Some(frame));
        }
        match state.fate {
            Fate::Open | Fate::Silent => Ok(None),
            Fate::Finished => Err(CloseReason::Peer),
            Fate::Cut { .. } => Err(cut()),
        }
    }
}

fn size(frame: &Wire) -> usize {
    match frame {
        Wire::Text(text) => text.len(),
        Wire::Pieces(pieces) => pieces.iter().map(String::len).sum(),
        Wire::Binary(bytes) | Wire::Ping(bytes) | Wire::Pong(bytes) => bytes.len(),
    }
}

#[derive(Debug)]
pub(crate) struct Reader {
    pipe: Arc<Pipe>,
}

impl Reader {
    /// Waits for as long as the peer lives and says nothing.
    pub(crate) async fn next(&mut self, limit: usize, activity: &Activity) -> Result<Inbound, CloseReason> {
        loop {
            let Some(frame) = self.pipe.pop()? else {
                self.pipe.readable.notified().await;
                continue;
            };
            activity.note();
            return Ok(match frame {
                Wire::Ping(payload) => Inbound::Ping(payload),
                Wire::Pong(_) => Inbound::Pong,
                Wire::Text(text) => {
                    within(text.into_bytes(), limit).map_or_else(|large| large, Inbound::Text)
                }
                Wire::Pieces(pieces) => {
                    within(pieces.concat().into_bytes(), limit).map_or_else(|large| large, Inbound::Text)
                }
                Wire::Binary(bytes) => within(bytes, limit).map_or_else(|large| large, Inbound::Binary),
            });
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // A writer whose reader has gone learns it, as on a socket.
        if self.pipe.state().fate == Fate::Open {
            self.pipe.end(Fate::Cut { drains: false });
        }
    }
}

fn within(mut bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, Inbound> {
    if bytes.len() <= limit {
        return Ok(bytes);
    }
    bytes.truncate(FRONT);
    Err(Inbound::TooLarge { front: bytes })
}

#[derive(Debug)]
pub(crate) struct Writer {
    pipe: Arc<Pipe>,
}

impl Writer {
    /// Waits for as long as the peer lives and doesn't read.
    pub(crate) async fn write(&mut self, frames: Vec<Wire>, activity: &Activity) -> io::Result<()> {
        for mut frame in frames {
            while let Some(again) = self.pipe.push(frame)? {
                frame = again;
                self.pipe.writable.notified().await;
                activity.note();
            }
        }
        Ok(())
    }

    pub(crate) fn finish(&self) {
        if self.pipe.state().fate == Fate::Open {
            self.pipe.end(Fate::Finished);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.pipe.state().fate == Fate::Open {
            self.pipe.end(Fate::Cut { drains: true });
        }
    }
}
