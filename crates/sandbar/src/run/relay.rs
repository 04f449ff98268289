//! Bytes between our own standard streams and the command, where they can't be handed over.
//!
//! Each direction has a thread, because a terminal or a slow reader can block for ever and the loop that passes
//! signals on must not. Between thread and loop lies a short queue: a reader that stalls fills it, the loop stops
//! reading the log, and the keeper makes the command wait.

use std::io::{ErrorKind, Write};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use sandbar_proto::Stream;
use tokio::sync::{mpsc, oneshot};

use crate::stdio::Kind;

/// Chunks between the loop and a thread: enough to keep both busy, at most a megabyte of memory.
const QUEUE: usize = 16;

/// Bytes of one read from standard input.
const INPUT_BYTES: usize = 64 * 1024;

/// How often a background process looks whether its terminal is its own again. Nothing announces that.
const FOREGROUND_INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);

/// Something to write.
pub(super) enum Written {
    /// Output of the command.
    Chunk(Stream, Vec<u8>),
    /// A line of ours on standard output, for `--json`.
    Line(Vec<u8>),
    /// Nothing: the other end is told when everything before it is written.
    Mark(oneshot::Sender<()>),
}

/// What the writing thread reports.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// Nobody reads this stream any more.
    Closed(Stream),
    /// This stream can't be written.
    Failed(Stream, String),
    /// Everything is written.
    Finished,
}

/// The writing side: our standard output and standard error. Its thread starts with the first byte; a run that
/// handed its streams over never needs it.
#[derive(Default)]
pub(super) struct Output {
    thread: Option<Writer>,
}

struct Writer {
    chunks: Option<mpsc::Sender<Written>>,
    reports: mpsc::Receiver<Report>,
}

impl Output {
    /// Where to put what is to be written; `None` after [`Output::close`].
    pub(super) fn chunks(&mut self) -> Option<mpsc::Sender<Written>> {
        self.thread.get_or_insert_with(start_writer).chunks.clone()
    }

    /// The next report. Waits for ever when nothing is written or everything was reported.
    pub(super) async fn report(&mut self) -> Report {
        let report = match &mut self.thread {
            Some(writer) => writer.reports.recv().await,
            None => None,
        };
        match report {
            Some(report) => report,
            None => std::future::pending().await,
        }
    }

    /// Ends the writing behind what was handed over; [`Report::Finished`] follows if anything ever was. Returns
    /// whether it does.
    pub(super) fn close(&mut self) -> bool {
        self.thread.as_mut().is_some_and(|writer| writer.chunks.take().is_some())
    }
}

fn start_writer() -> Writer {
    let (chunks, mut inbox) = mpsc::channel::<Written>(QUEUE);
    // Three is the most that can ever be reported.
    let (reports, outbox) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut ends = Ends { stdout: true, stderr: true };
        while let Some(written) = inbox.blocking_recv() {
            let (stream, bytes) = match written {
                Written::Chunk(stream, bytes) => (stream, bytes),
                Written::Line(bytes) => (Stream::Stdout, bytes),
                Written::Mark(reached) => {
                    // Who asked may have given up.
                    let _ = reached.send(());
                    continue;
                }
            };
            if let Some(report) = ends.write(stream, &bytes)
                && reports.blocking_send(report).is_err()
            {
                // The loop that listens has ended: so does this.
                return;
            }
        }
        let _ = reports.blocking_send(Report::Finished);
    });
    Writer { chunks: Some(chunks), reports: outbox }
}

/// Which of our streams are still written.
struct Ends {
    stdout: bool,
    stderr: bool,
}

impl Ends {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> Option<Report> {
        let open = match stream {
            Stream::Stdout | Stream::Pty => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if !*open {
            return None;
        }
        let result = match stream {
            // Unbuffered: what a command wrote is seen when it wrote it.
            Stream::Stdout | Stream::Pty => {
                write_all(&mut std::fs::File::from(duplicate(std::io::stdout())?), bytes)
            }
            Stream::Stderr => write_all(&mut std::fs::File::from(duplicate(std::io::stderr())?), bytes),
        };
        match result {
            Ok(()) => None,
            Err(error) => {
                *open = false;
                Some(if error.kind() == ErrorKind::BrokenPipe {
                    Report::Closed(stream)
                } else {
                    Report::Failed(stream, error.to_string())
                })
            }
        }
    }
}

fn duplicate(stream: impl std::os::fd::AsFd) -> Option<std::os::fd::OwnedFd> {
    stream.as_fd().try_clone_to_owned().ok()
}

/// Writes everything, also to a descriptor that somebody else made non-blocking.
fn write_all(file: &mut std::fs::File, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Waits as long as the reader takes, like a blocking write.
                poll(&mut [PollFd::new(&*file, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Starts to read standard input; the channel closes at its end. An error is the last thing in it.
pub(super) fn read_input(kind: Kind) -> mpsc::Receiver<Result<Vec<u8>, Errno>> {
    let (chunks, inbox) = mpsc::channel(4);
    std::thread::spawn(move || {
        // Not through std, which takes a descriptor that can't be read for an empty one.
        let input = std::io::stdin();
        let mut buffer = vec![0; INPUT_BYTES];
        loop {
            if kind == Kind::Terminal {
                wait_for_foreground();
            }
            let read = match rustix::io::read(&input, &mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(buffer[..count].to_vec()),
                Err(Errno::INTR) => continue,
                // Somebody else made it non-blocking; waits as long as a blocking read.
                Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&input, PollFlags::IN)], None) {
                    Ok(_) | Err(Errno::INTR) => continue,
                    Err(errno) => Err(errno),
                },
                Err(errno) => Err(errno),
            };
            let is_last = read.is_err();
            if chunks.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    inbox
}

/// Waits until there is something to read and the terminal is ours. A process in the background that read from
/// its terminal would be stopped (SIGTTIN), also when its command never asks for input.
fn wait_for_foreground() {
    loop {
        let stdin = std::io::stdin();
        let readable = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None);
        let own = rustix::process::getpgrp();
        match (readable, rustix::termios::tcgetpgrp(&stdin)) {
            (Ok(_), Ok(foreground)) if foreground != own => std::thread::sleep(FOREGROUND_INTERVAL),
            (Err(Errno::INTR), _) => {}
            _ => return,
        }
    }
}
