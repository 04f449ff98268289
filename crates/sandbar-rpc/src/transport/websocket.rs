//! Messages in the frames of RFC 6455, over any stream of bytes that a handshake has prepared.

pub(crate) mod frame;
pub(crate) mod handshake;

use std::io;

use frame::{Decoder, Event, FrameError, From, Opcode, apply_mask, put_header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::stream::{Chunks, Input, Output};
use super::{About, Activity, Inbound, Side, Transport, Wire, lost};
use crate::close::{CloseReason, Violation};

/// What one read takes: enough that a burst costs few system calls.
const BUFFER: usize = 64 * 1024;

/// Longest reason of a close frame (RFC 6455, 5.5): 125 bytes less the code.
const CLOSE_REASON: usize = 123;

/// Makes a transport of a stream whose handshake is done. `early` is what was read behind the handshake.
pub(crate) fn transport<S>(stream: S, early: &[u8], side: Side, peer: String) -> Transport
where
    S: AsyncRead + tokio::io::AsyncWrite + Send + 'static,
{
    let (input, output) = tokio::io::split(stream);
    let (from, masks) = match side {
        Side::Client => (From::Server, Some(Masks::default())),
        Side::Server => (From::Client, None),
    };
    let mut buffer = early.to_vec();
    let end = buffer.len();
    buffer.resize(BUFFER.max(end), 0);
    Transport {
        reader: super::Reader::Websocket(Reader {
            input: Box::pin(input),
            decoder: Decoder::new(from),
            buffer,
            start: 0,
            end,
        }),
        writer: super::Writer::Websocket(Writer { output: Box::pin(output), masks }),
        about: About { side, kind: "websocket", peer, has_binary: true, has_pings: true, lingers: true },
    }
}

pub(crate) struct Reader {
    input: Input,
    decoder: Decoder,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Reader {
    /// Waits for as long as the peer lives and says nothing.
    pub(crate) async fn next(&mut self, limit: usize, activity: &Activity) -> Result<Inbound, CloseReason> {
        loop {
            let mut input = &self.buffer[self.start..self.end];
            let found = self.decoder.decode(&mut input, limit);
            self.start = self.end - input.len();
            if let Some(inbound) = found.map_err(broken)?.map(inbound).transpose()? {
                return Ok(inbound);
            }
            if let Some((payload, left)) = self.decoder.rest().filter(|(_, left)| *left >= BUFFER as u64) {
                // The kernel writes it where it is to be.
                let read = (&mut self.input).take(left).read_buf(payload).await;
                let count = ended(read.map_err(|error| lost(&error))?)?;
                activity.note();
                if let Some(inbound) = self.decoder.filled(count).map(inbound).transpose()? {
                    return Ok(inbound);
                }
                continue;
            }
            let read = self.input.read(&mut self.buffer).await;
            (self.start, self.end) = (0, ended(read.map_err(|error| lost(&error))?)?);
            activity.note();
        }
    }
}

impl Reader {
    /// Takes back the memory of a message that was read.
    pub(crate) fn recycle(&mut self, payload: Vec<u8>) {
        self.decoder.recycle(payload);
    }
}

/// What a message of the link is; its end is a reason.
fn inbound(event: Event) -> Result<Inbound, CloseReason> {
    Ok(match event {
        Event::Text(text) => Inbound::Text(text),
        Event::Binary(bytes) => Inbound::Binary(bytes),
        Event::TooLarge(front) => Inbound::TooLarge { front },
        Event::Ping(payload) => Inbound::Ping(payload),
        Event::Pong => Inbound::Pong,
        Event::Close => return Err(CloseReason::Peer),
    })
}

/// How many bytes a read gave. None: Codex's peers drop the connection without a close frame; that is an end in order.
fn ended(count: usize) -> Result<usize, CloseReason> {
    if count == 0 { Err(CloseReason::Peer) } else { Ok(count) }
}

fn broken(error: FrameError) -> CloseReason {
    Violation::Framing { why: error.to_string() }.into()
}

/// Masks for what a client writes (RFC 6455, 5.3), taken from the system in batches.
#[derive(Default)]
struct Masks {
    pool: Vec<[u8; 4]>,
}

impl Masks {
    fn next(&mut self) -> io::Result<[u8; 4]> {
        if let Some(mask) = self.pool.pop() {
            return Ok(mask);
        }
        let mut bytes = [0; 256];
        crate::random::fill(&mut bytes)?;
        self.pool.extend(bytes.as_chunks().0);
        self.pool.pop().ok_or_else(|| io::ErrorKind::Other.into())
    }
}

pub(crate) struct Writer {
    output: Output,
    /// A client's.
    masks: Option<Masks>,
}

impl Writer {
    pub(crate) async fn write(&mut self, frames: Vec<Wire>, activity: &Activity) -> io::Result<()> {
        let mut chunks = Chunks::default();
        for frame in frames {
            let (opcode, payload) = match frame {
                Wire::Text(text) => (Opcode::Text, vec![text.into_bytes()]),
                Wire::Pieces(pieces) => (Opcode::Text, pieces.into_iter().map(String::into_bytes).collect()),
                Wire::Binary(bytes) => (Opcode::Binary, vec![bytes]),
                Wire::Ping(payload) => (Opcode::Ping, vec![payload]),
                Wire::Pong(payload) => (Opcode::Pong, vec![payload]),
            };
            self.put(&mut chunks, opcode, payload)?;
        }
        chunks.write(&mut self.output, activity).await
    }

    /// Puts one frame, whose payload comes in pieces.
    fn put(&mut self, chunks: &mut Chunks, opcode: Opcode, payload: Vec<Vec<u8>>) -> io::Result<()> {
        let mask = self.masks.as_mut().map(Masks::next).transpose()?;
        put_header(chunks.last(), opcode, payload.iter().map(Vec::len).sum(), mask);
        let mut offset = 0;
        for mut piece in payload {
            if let Some(mask) = mask {
                apply_mask(&mut piece, mask, offset);
            }
            offset += piece.len();
            chunks.put(piece);
        }
        Ok(())
    }

    /// Sends a close frame that says why, and the end of the stream.
    pub(crate) async fn finish(&mut self, reason: &CloseReason) -> io::Result<()> {
        let mut chunks = Chunks::default();
        let mut payload = close_code(reason).to_be_bytes().to_vec();
        let words = reason.to_string();
        let end = words.floor_char_boundary(CLOSE_REASON);
        payload.extend_from_slice(&words.as_bytes()[..end]);
        self.put(&mut chunks, Opcode::Close, vec![payload])?;
        chunks.write(&mut self.output, &Activity::default()).await?;
        self.output.shutdown().await
    }
}

/// Status code of a close frame (RFC 6455, 7.4.1).
fn close_code(reason: &CloseReason) -> u16 {
    const NORMAL: u16 = 1000;
    const GOING_AWAY: u16 = 1001;
    const PROTOCOL_ERROR: u16 = 1002;
    const POLICY: u16 = 1008;
    match reason {
        CloseReason::Peer => NORMAL,
        CloseReason::Local(_) | CloseReason::Abandoned | CloseReason::Lost { .. } => GOING_AWAY,
        CloseReason::Violation(_) | CloseReason::NotUnderstood { .. } => PROTOCOL_ERROR,
        CloseReason::ControlOverflow { .. } | CloseReason::Silent { .. } => POLICY,
    }
}
