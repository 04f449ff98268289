//! Processes that a test starts, watches and never leaves behind.

use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{eventually, patience};

/// How a process ended and what it wrote.
#[derive(Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// What a process is that ended with `code` after writing this.
    #[must_use]
    pub fn with(code: i32, stdout: impl AsRef<[u8]>, stderr: impl AsRef<[u8]>) -> Self {
        let (stdout, stderr) = (stdout.as_ref().to_vec(), stderr.as_ref().to_vec());
        Self { code: Some(code), signal: None, stdout, stderr }
    }

    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output of a process that had to succeed.
    ///
    /// # Panics
    /// It did not.
    #[must_use]
    #[track_caller]
    pub fn ok(&self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out()
    }
}

impl std::fmt::Debug for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => writeln!(f, "exited with {code}")?,
            (None, signal) => writeln!(f, "ended by signal {signal:?}")?,
        }
        writeln!(f, "--- stdout\n{}\n--- stderr\n{}", shown(&self.stdout), shown(&self.stderr))
    }
}

/// A flood of output says nothing in a report.
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 8 * 1024;
    let cut = &bytes[..bytes.len().min(MOST)];
    let rest = bytes.len() - cut.len();
    let more = if rest > 0 { format!("… and {rest} bytes") } else { String::new() };
    String::from_utf8_lossy(cut).into_owned() + &more
}

/// A process with its output on the way to the test; killed when dropped.
pub struct Running {
    child: Child,
    stdout: Stream,
    stderr: Stream,
}

struct Stream {
    chunks: Receiver<Vec<u8>>,
    unread: Vec<u8>,
    is_open: bool,
}

impl Stream {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let (sender, chunks) = channel();
        if let Some(mut pipe) = pipe {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count) = pipe.read(&mut buffer)
                    && count > 0
                    && sender.send(buffer[..count].to_vec()).is_ok()
                {}
            });
        }
        Self { chunks, unread: Vec::new(), is_open: true }
    }

    /// Waits for more; `false` at the end of the stream.
    fn wait(&mut self, end: Instant) -> bool {
        match self.chunks.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(chunk) => self.unread.extend(chunk),
            Err(RecvTimeoutError::Disconnected) => self.is_open = false,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no output within {} s, after {:?}", patience().as_secs(), shown(&self.unread));
            }
        }
        self.is_open
    }

    /// The next line without its end; `None` when the stream ended before it did.
    fn line(&mut self) -> Option<String> {
        let end = Instant::now() + patience();
        loop {
            if let Some(at) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=at).take(at).collect();
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            if !self.wait(end) {
                return None;
            }
        }
    }

    fn rest(&mut self) -> Vec<u8> {
        let end = Instant::now() + patience();
        while self.wait(end) {}
        std::mem::take(&mut self.unread)
    }
}

impl Running {
    /// Starts `command` with its output piped to the test.
    ///
    /// # Panics
    /// It can't be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut child = match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => panic!("could not start {command:?}: {error}"),
        };
        let (stdout, stderr) = (Stream::of(child.stdout.take()), Stream::of(child.stderr.take()));
        Self { child, stdout, stderr }
    }

    /// The process itself, for its standard input.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// The next line on standard output, without its end.
    ///
    /// # Panics
    /// None came in time.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.stdout.line().unwrap_or_else(|| {
            let stderr = self.stderr.rest();
            panic!("output ended before a line did; standard error says {:?}", shown(&stderr))
        })
    }

    /// The next line on standard error, without its end.
    ///
    /// # Panics
    /// None came in time.
    #[track_caller]
    pub fn error_line(&mut self) -> String {
        self.stderr.line().unwrap_or_else(|| {
            let stdout = self.stdout.rest();
            panic!("standard error ended before a line did; standard output says {:?}", shown(&stdout))
        })
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// The process was waited for already.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a process id is not zero");
        kill_process(pid, signal).expect("a child that was not waited for takes signals");
    }

    /// Waits for its end and takes what is left of its output.
    ///
    /// # Panics
    /// It does not end in time.
    #[must_use]
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        drop(self.child.stdin.take());
        let status: ExitStatus =
            eventually(patience(), "the end of the process", || self.child.try_wait().ok().flatten());
        let (stdout, stderr) = (self.stdout.rest(), self.stderr.rest());
        Finished { code: status.code(), signal: status.signal(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Waited for already when it finished; then both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end.
///
/// # Panics
/// It can't be started, or does not end in time.
#[must_use]
#[track_caller]
pub fn finish(command: &mut Command) -> Finished {
    Running::start(command).finish()
}
