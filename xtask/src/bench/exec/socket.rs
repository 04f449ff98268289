//! The client's end of a WebSocket (RFC 6455), as plain as a bench needs it: blocking, unfragmented, over TCP.
//!
//! One thread reads; any number write, each message in one piece. Both servers are spoken to by the same code, which
//! costs little beside them: messages are handed out where they were read, and the mask is zero, so that nothing is
//! masked.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt::set_tcp_quickack;

/// How often a read looks at its deadline.
const TICK: Duration = Duration::from_millis(100);

/// What is read at once, at most, until a message needs more.
const BUFFER_BYTES: usize = 1 << 20;

/// Larger than any answer that is measured.
const LARGEST_MESSAGE: usize = 256 << 20;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Whether the client answers every segment at once, which no ordinary client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acks {
    /// As the kernel does it.
    Ordinary,
    /// Without any delay (tcp(7), `TCP_QUICKACK`): hides from a server that it waits for them.
    Quick,
}

/// One whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message<'a> {
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    writer: Writer,
    acks: Acks,
    buffer: Vec<u8>,
    /// What of the buffer was read and not handed out yet.
    start: usize,
    end: usize,
}

/// The writing end.
#[derive(Debug, Clone)]
pub(super) struct Writer(Arc<Mutex<TcpStream>>);

impl Socket {
    /// Connects to `ws://IP:PORT`.
    ///
    /// # Errors
    /// There is nobody, or it does not speak WebSocket.
    pub(super) fn connect(url: &str, acks: Acks) -> Result<Self> {
        let address = url.strip_prefix("ws://").with_context(|| format!("{url} is not ws://IP:PORT"))?;
        let address = address.trim_end_matches('/');
        let mut stream =
            TcpStream::connect(address).with_context(|| format!("could not connect to {url}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        // The key is any 16 bytes; nobody is told apart by it.
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: c2FuZGJhci1iZW5jaC0wMA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let writer = Writer(Arc::new(Mutex::new(stream.try_clone()?)));
        let mut socket = Self { stream, writer, acks, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0 };
        socket.upgrade()?;
        Ok(socket)
    }

    pub(super) fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Reads the answer to the upgrade.
    fn upgrade(&mut self) -> Result<()> {
        let deadline = Instant::now() + super::ANSWER;
        loop {
            let answer = &self.buffer[self.start..self.end];
            if let Some(length) = answer.windows(4).position(|part| part == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&answer[..length]).into_owned();
                ensure!(head.starts_with("HTTP/1.1 101"), "it refused to speak WebSocket: {head}");
                self.start += length + 4;
                return Ok(());
            }
            ensure!(self.fill(deadline)?, "it did not answer the upgrade to WebSocket");
        }
    }

    /// Waits for a message; `None` once the deadline is over.
    ///
    /// # Errors
    /// The connection ended, or what came is no frame of a server.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<Option<Message<'_>>> {
        let (opcode, payload) = loop {
            let frame = frame(&self.buffer[self.start..self.end])?;
            let Some((opcode, from, to)) = frame.filter(|&(_, _, to)| to <= self.end - self.start) else {
                let needed = frame.map_or(0, |(_, _, to)| to);
                self.make_room(needed);
                if !self.fill(deadline)? {
                    return Ok(None);
                }
                continue;
            };
            let payload = self.start + from..self.start + to;
            self.start += to;
            match opcode {
                TEXT | BINARY => break (opcode, payload),
                PING => self.writer.frame(PONG, &self.buffer[payload])?,
                PONG => {}
                CLOSE => bail!("it closed the connection"),
                other => bail!("a frame with opcode {other}, which a bench does not expect"),
            }
        };
        let payload = &self.buffer[payload];
        Ok(Some(if opcode == TEXT { Message::Text(payload) } else { Message::Binary(payload) }))
    }

    /// Moves what is left to the front where the buffer is full, and makes it as large as a frame.
    fn make_room(&mut self, frame: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.buffer.len() || self.start + frame > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if frame > self.buffer.len() {
            self.buffer.resize(frame, 0);
        }
    }

    /// Reads once; false if the deadline is over.
    fn fill(&mut self, deadline: Instant) -> Result<bool> {
        loop {
            if self.acks == Acks::Quick {
                // The kernel goes back to delays by itself (tcp(7)).
                set_tcp_quickack(&self.stream, true)?;
            }
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => bail!("it ended the connection"),
                Ok(count) => {
                    self.end += count;
                    return Ok(true);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("could not read from the connection"),
            }
        }
    }
}

impl Writer {
    /// Sends a text message.
    ///
    /// # Errors
    /// The connection ended.
    pub(super) fn send(&self, text: &str) -> Result<()> {
        self.frame(TEXT, text.as_bytes())
    }

    /// Ends the connection, and with it whoever waits for room in it.
    pub(super) fn hang_up(&self, stream: &Socket) {
        // It fails where the connection has ended already.
        let _ = stream.stream.shutdown(Shutdown::Both);
    }

    fn frame(&self, opcode: u8, payload: &[u8]) -> Result<()> {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        frame.push(0x80 | opcode);
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(length @ ..126), _) => frame.push(0x80 | length),
            (_, Ok(length)) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            (_, Err(_)) => {
                frame.push(0x80 | 127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame)?;
        Ok(())
    }
}

/// Opcode, and where the payload begins and ends, of the frame at the front; `None` while its header is cut short.
fn frame(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    ensure!(first & 0xf0 == 0x80, "a frame in pieces, or of an extension that nobody asked for");
    ensure!(second & 0x80 == 0, "a masked frame from a server");
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    let (from, length) = match (second, rest.first_chunk::<2>(), rest.first_chunk::<8>()) {
        (126, Some(length), _) => (4, number(length)),
        (127, _, Some(length)) => (10, number(length)),
        (126 | 127, _, _) => return Ok(None),
        (length, _, _) => (2, u64::from(length)),
    };
    let length = usize::try_from(length)?;
    ensure!(length <= LARGEST_MESSAGE, "a message of {length} bytes");
    Ok(Some((first & 0x0f, from, from + length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that accepts one client and then writes these bytes in portions.
    fn server(bytes: Vec<u8>, portion: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1000];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
            for portion in bytes.chunks(portion) {
                stream.write_all(portion).unwrap();
            }
            // Hears the pong, and stays until the client leaves.
            while stream.read(&mut request).is_ok_and(|count| count > 0) {}
        });
        url
    }

    #[test]
    fn messages_of_every_length_come_whole_in_whatever_portions() {
        let long = vec![b'l'; 70_000];
        let huge = vec![b'h'; 3 << 20];
        let mut bytes = vec![0x81, 2, b'h', b'i', 0x89, 1, b'p', 0x82, 126];
        bytes.extend(u16::try_from(300).unwrap().to_be_bytes());
        bytes.extend([7; 300]);
        for text in [&long, &huge] {
            bytes.extend([0x81, 127]);
            bytes.extend((text.len() as u64).to_be_bytes());
            bytes.extend(text);
        }
        for portion in [1111, 4096, usize::MAX] {
            let mut socket = Socket::connect(&server(bytes.clone(), portion), Acks::Quick).unwrap();
            let end = Instant::now() + super::super::ANSWER;
            assert_eq!(socket.receive(end).unwrap(), Some(Message::Text(b"hi")));
            assert_eq!(socket.receive(end).unwrap(), Some(Message::Binary(&[7; 300])));
            assert_eq!(socket.receive(end).unwrap(), Some(Message::Text(&long)));
            assert!(socket.receive(end).unwrap() == Some(Message::Text(&huge)));
            assert_eq!(socket.receive(Instant::now()).unwrap(), None, "a deadline ends it");
        }
    }

    #[test]
    fn what_no_server_may_send_is_an_error() {
        assert!(frame(&[0x01, 0]).is_err(), "a fragment");
        assert!(frame(&[0x81, 0x80]).is_err(), "a mask");
        assert!(frame(&[0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0]).is_err(), "too large");
        assert_eq!(frame(&[0x81, 126, 0]).unwrap(), None);
        assert_eq!(frame(&[0x82, 126, 1, 0]).unwrap(), Some((2, 4, 260)));
    }
}
