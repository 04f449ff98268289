//! What carries frames: the reading and the writing half of one link.
//!
//! | transport | frames | binary | pings | a frame that is too large |
//! |---|---|---|---|---|
//! | memory | in a queue | yes | yes | skipped |
//! | lines | one object a line | no | no: the end of the input says that the peer is gone | skipped |
//! | websocket | RFC 6455, over TCP, TLS or a unix socket | yes | yes | skipped |

mod blocking;
mod lines;
mod memory;
mod stream;
pub(crate) mod websocket;

use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, io};

pub use blocking::blocking_lines;
pub use lines::lines;
pub use memory::{Link, memory};

use crate::close::CloseReason;

/// A message as a transport carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// JSON.
    Text(String),
    /// JSON in pieces, one message all the same: what is large in it is never copied into its envelope.
    Pieces(Vec<String>),
    /// Anything. The first byte is a kind below 0x20 that is no tab or line break, so that it can't be mistaken for JSON,
    /// which some peers send in binary frames.
    Binary(Vec<u8>),
}

impl Frame {
    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Pieces(pieces) => pieces.iter().map(String::len).sum(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which end of a link this is. Differs in one thing: a server answers what it can't read, a client hangs up on it,
/// lest two peers tell each other for ever that they don't understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It made the connection.
    Client,
    /// It took the connection.
    Server,
}

/// One link to a peer, ready to be run by a [`Connection`](crate::Connection).
pub struct Transport {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) about: About,
}

/// What a connection has to know of its transport.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) side: Side,
    /// What it is: `websocket`, `stdio`.
    pub(crate) kind: &'static str,
    /// Who is at the other end, for messages.
    pub(crate) peer: String,
    pub(crate) has_binary: bool,
    pub(crate) has_pings: bool,
    /// Whether bytes that nobody read make the end of the link destroy bytes on their way to the peer, as in TCP.
    pub(crate) lingers: bool,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Transport {
    /// Says who is at the other end, in answers to what can't be read: `exec-server websocket 127.0.0.1:4000`.
    #[must_use]
    pub fn with_peer(mut self, peer: impl Into<String>) -> Self {
        self.about.peer = peer.into();
        self
    }

    /// Whether it carries binary frames.
    #[must_use]
    pub fn has_binary(&self) -> bool {
        self.about.has_binary
    }
}

/// What a writer writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wire {
    Text(String),
    Pieces(Vec<String>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

impl From<Frame> for Wire {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Text(text) => Self::Text(text),
            Frame::Pieces(pieces) => Self::Pieces(pieces),
            Frame::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

/// What a reader read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inbound {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    /// A message larger than the limit, which was skipped: its first bytes.
    TooLarge {
        front: Vec<u8>,
    },
}

/// How much of a message that is too large is kept, to find its id.
pub(crate) const FRONT: usize = 1024;

/// Signs of life.
#[derive(Debug, Default)]
pub(crate) struct Activity(AtomicU64);

impl Activity {
    /// Bytes came, or a link that had no room took some.
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Differs from an earlier one if there was a sign of life in between.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) enum Reader {
    Memory(memory::Reader),
    Lines(lines::Reader),
    Websocket(websocket::Reader),
}

impl Reader {
    /// The next message, or why there is none.
    pub(crate) async fn next(&mut self, limit: usize, activity: &Activity) -> Result<Inbound, CloseReason> {
        match self {
            Self::Memory(reader) => reader.next(limit, activity).await,
            Self::Lines(reader) => reader.next(limit, activity).await,
            Self::Websocket(reader) => reader.next(limit, activity).await,
        }
    }

    /// Takes back a message that was heard, whose memory may serve the next one.
    pub(crate) fn recycle(&mut self, inbound: Inbound) {
        if let (Self::Websocket(reader), Inbound::Text(payload) | Inbound::Binary(payload)) = (self, inbound)
        {
            reader.recycle(payload);
        }
    }
}

pub(crate) enum Writer {
    Memory(memory::Writer),
    Lines(lines::Writer),
    Websocket(websocket::Writer),
}

impl Writer {
    /// Writes frames; how long that takes is the peer's affair.
    pub(crate) async fn write(&mut self, frames: Vec<Wire>, activity: &Activity) -> io::Result<()> {
        match self {
            Self::Memory(writer) => writer.write(frames, activity).await,
            Self::Lines(writer) => writer.write(frames, activity).await,
            Self::Websocket(writer) => writer.write(frames, activity).await,
        }
    }

    /// Says that no more will come, and why where the transport has words for it.
    pub(crate) async fn finish(&mut self, reason: &CloseReason) -> io::Result<()> {
        match self {
            Self::Memory(writer) => {
                writer.finish();
                Ok(())
            }
            Self::Lines(writer) => writer.finish().await,
            Self::Websocket(writer) => writer.finish(reason).await,
        }
    }
}

pub(crate) fn lost(error: &io::Error) -> CloseReason {
    CloseReason::Lost { why: error.to_string() }
}
