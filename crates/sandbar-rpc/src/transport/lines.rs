//! One JSON object a line, over any stream of bytes: what standard input and output carry.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::stream::{Chunks, Input, Output};
use super::{About, Activity, FRONT, Inbound, Side, Transport, Wire, lost};
use crate::close::CloseReason;

/// What one read takes: the default size of a Linux pipe (pipe(7)).
const BUFFER: usize = 64 * 1024;

/// Makes a transport of two streams. It has no binary frames and no pings; the end of the input is the end of the peer.
/// A last line without a line break counts; empty lines don't.
pub fn lines<R, W>(input: R, output: W, side: Side) -> Transport
where
    R: AsyncRead + Send + 'static,
    W: AsyncWrite + Send + 'static,
{
    Transport {
        reader: super::Reader::Lines(Reader {
            input: Box::pin(input),
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            line: Line::default(),
            is_ended: false,
        }),
        writer: super::Writer::Lines(Writer { output: Box::pin(output) }),
        about: About {
            side,
            kind: "stdio",
            peer: "stdio peer".to_owned(),
            has_binary: false,
            has_pings: false,
            lingers: false,
        },
    }
}

/// A line as far as it was read.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    is_too_large: bool,
}

impl Line {
    fn push(&mut self, bytes: &[u8], limit: usize) {
        if !self.is_too_large && self.bytes.len() + bytes.len() > limit {
            self.is_too_large = true;
            self.bytes.truncate(FRONT);
            self.bytes.shrink_to_fit();
        }
        let room = if self.is_too_large { FRONT - self.bytes.len() } else { bytes.len() };
        self.bytes.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    /// Takes the line; `None` when there is nothing in it.
    fn take(&mut self) -> Option<Inbound> {
        let Self { bytes, is_too_large } = std::mem::take(self);
        if is_too_large {
            return Some(Inbound::TooLarge { front: bytes });
        }
        (!bytes.trim_ascii().is_empty()).then_some(Inbound::Text(bytes))
    }
}

pub(crate) struct Reader {
    input: Input,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    line: Line,
    is_ended: bool,
}

impl Reader {
    /// Waits for as long as the peer lives and says nothing.
    pub(crate) async fn next(&mut self, limit: usize, activity: &Activity) -> Result<Inbound, CloseReason> {
        loop {
            let rest = &self.buffer[self.start..self.end];
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                self.line.push(&rest[..length], limit);
                self.start += length + 1;
                if let Some(inbound) = self.line.take() {
                    return Ok(inbound);
                }
                continue;
            }
            self.line.push(rest, limit);
            if self.is_ended {
                return Err(CloseReason::Peer);
            }
            (self.start, self.end) =
                (0, self.input.read(&mut self.buffer).await.map_err(|error| lost(&error))?);
            activity.note();
            if self.end == 0 {
                self.is_ended = true;
                if let Some(inbound) = self.line.take() {
                    return Ok(inbound);
                }
            }
        }
    }
}

pub(crate) struct Writer {
    output: Output,
}

impl Writer {
    pub(crate) async fn write(&mut self, frames: Vec<Wire>, activity: &Activity) -> io::Result<()> {
        let mut chunks = Chunks::default();
        for frame in frames {
            let pieces = match frame {
                Wire::Text(text) => vec![text],
                Wire::Pieces(pieces) => pieces,
                // A sender refuses binary frames here, and nobody pings.
                Wire::Binary(_) | Wire::Ping(_) | Wire::Pong(_) => {
                    return Err(io::ErrorKind::Unsupported.into());
                }
            };
            for piece in pieces {
                let mut piece = piece.into_bytes();
                one_line(&mut piece);
                chunks.put(piece);
            }
            chunks.last().push(b'\n');
        }
        chunks.write(&mut self.output, activity).await
    }

    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.output.shutdown().await
    }
}

/// JSON that is passed on unread may have line breaks between its tokens, never inside a string: there a space is as good.
fn one_line(text: &mut [u8]) {
    for byte in text {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    /// Everything that a reader reads of an input.
    fn read(input: &[u8], limit: usize) -> Vec<Inbound> {
        let transport = lines(io::Cursor::new(input.to_vec()), tokio::io::sink(), Side::Server);
        let crate::transport::Reader::Lines(mut reader) = transport.reader else { panic!("no lines") };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut found = Vec::new();
            while let Ok(inbound) = reader.next(limit, &Activity::default()).await {
                found.push(inbound);
            }
            found
        })
    }

    /// What a line of an input is to be read as.
    fn expected(line: &[u8], limit: usize) -> Option<Inbound> {
        if line.len() > limit {
            return Some(Inbound::TooLarge { front: line[..line.len().min(FRONT)].to_vec() });
        }
        (!line.trim_ascii().is_empty()).then(|| Inbound::Text(line.to_vec()))
    }

    #[test]
    fn fuzz_each_line_that_is_not_blank_is_a_message() {
        const LIMIT: usize = 40;
        let whole: &[&[u8]] = &[
            b"{\"id\":1,\"method\":\"initialize\"}\n\n  \r\n{\"method\":\"initialized\"}",
            b"a line that is longer than forty bytes, and so\nanother one\n",
        ];
        let words: &[&[u8]] = &[b"\n", b"\r\n", b"\n\n", b" ", b"\0", &[b'x'; 41], &[b'y'; 1100]];
        fuzz("lines", Samples { whole, words }, |input| {
            let found = read(input, LIMIT);
            let lines = input.split(|&byte| byte == b'\n').filter_map(|line| expected(line, LIMIT));
            assert_eq!(found, lines.collect::<Vec<_>>());
            Took::if_understood(!found.is_empty())
        });
    }
}
