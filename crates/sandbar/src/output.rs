//! What commands write on standard output and standard error.
//!
//! A reader that closed its end has seen enough: nothing more is written to it, and nobody is told. Any other
//! failure is a problem, so that a full disk never makes an answer shorter in silence.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use sandbar_proto::Stream;
use serde::Serialize;

use crate::exit;
use crate::render::Problem;

/// Whether somebody still reads a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Reader {
    /// The bytes were taken.
    Listens,
    /// The other end is closed.
    Left,
}

/// Prints a whole answer, and returns the status to exit with.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<u8, Problem> {
    match write(Stream::Stdout, text.as_ref())? {
        Reader::Listens | Reader::Left => Ok(exit::OK),
    }
}

/// Prints a whole answer as one line of JSON, and returns the status to exit with.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn print_json(value: &impl Serialize) -> Result<u8, Problem> {
    let mut line = serde_json::to_vec(value)
        .map_err(|error| Problem::new(format!("could not write the answer as JSON: {error}")))?;
    line.push(b'\n');
    print(line)
}

/// Writes to one of our streams.
///
/// # Errors
/// It can't be written, for another reason than that nobody reads it.
pub(crate) fn write(stream: Stream, bytes: &[u8]) -> Result<Reader, Problem> {
    let result = match stream {
        Stream::Stdout | Stream::Pty => write_all(std::io::stdout().as_fd(), bytes),
        Stream::Stderr => write_all(std::io::stderr().as_fd(), bytes),
    };
    match result {
        Ok(()) => Ok(Reader::Listens),
        Err(Errno::PIPE | Errno::CONNRESET) => Ok(Reader::Left),
        Err(errno) => {
            let name = match stream {
                Stream::Stdout | Stream::Pty => "standard output",
                Stream::Stderr => "standard error",
            };
            Err(Problem::new(format!("could not write to {name}: {errno}")))
        }
    }
}

/// Writes everything, also to a descriptor that somebody else made non-blocking.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // Waits as long as the reader takes, like a blocking write.
                poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Columns of the terminal on standard output, if it is one.
pub(crate) fn terminal_width() -> Option<usize> {
    let stdout = std::io::stdout();
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_without_reader_is_told_from_a_failure() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        drop(read);
        assert_eq!(write_all(write.as_fd(), b"x"), Err(Errno::PIPE));
    }

    #[test]
    fn a_non_blocking_pipe_gets_everything() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::empty()).unwrap();
        let sent = vec![7; 300_000];
        let expected = sent.clone();
        let writer = std::thread::spawn(move || write_all(write.as_fd(), &sent));
        let mut received = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(read), &mut received).unwrap();
        assert_eq!(writer.join().unwrap(), Ok(()));
        assert_eq!(received, expected);
    }
}
