//! A terminal of a test's own, and what runs on it.
//!
//! A program is started in a session whose controlling terminal is a fresh pseudoterminal, the test holds the other
//! end. What a session leader leaves behind can't be looked at (the kernel resets the terminal when it ends), so a
//! test lets a shell lead and runs what it is about below it.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::wait::{DEADLINE, eventually};

/// A terminal with a session on it, which ends when this is dropped.
pub struct Terminal {
    master: Option<File>,
    /// Closed to end the reading thread.
    reading: Option<PipeWriter>,
    child: Child,
    chunks: Receiver<Vec<u8>>,
    unread: Vec<u8>,
}

impl Terminal {
    /// Starts what `command` says as a session leader on a new terminal of 24 rows and 80 columns.
    ///
    /// # Panics
    /// It can't be started.
    #[must_use]
    #[track_caller]
    pub fn start(command: &Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        unlockpt(&master).expect("a fresh terminal is locked");
        let slave = ioctl_tiocgptpeer(&master, flags).expect("the other end of a terminal");
        resize(&master, 24, 80);
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let mut leader = Command::new("setsid");
        leader.args(["--ctty".as_ref(), command.get_program()]).args(command.get_args()).env_clear();
        leader.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        leader.env("TERM", "xterm");
        leader.current_dir(command.get_current_dir().unwrap_or("/".as_ref()));
        let child = leader.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid of util-linux");
        drop((slave, leader));
        let master = File::from(master);
        let (until, reading) = std::io::pipe().expect("a pipe");
        let chunks = read_in_background(master.try_clone().expect("a descriptor"), until);
        let (master, reading) = (Some(master), Some(reading));
        Self { master, reading, child, chunks, unread: Vec::new() }
    }

    fn master(&self) -> &File {
        self.master.as_ref().expect("a terminal that was not hung up")
    }

    /// Closes our end: the terminal is gone for whoever is on it.
    pub fn hang_up(&mut self) {
        self.reading = None;
        // The thread has closed its descriptor when its channel is.
        while self.chunks.recv().is_ok() {}
        self.master = None;
    }

    /// Types.
    ///
    /// # Panics
    /// Nobody reads.
    pub fn type_keys(&self, keys: impl AsRef<[u8]>) {
        self.master().write_all(keys.as_ref()).expect("a terminal takes keys");
    }

    /// Gives the terminal another size.
    ///
    /// # Panics
    /// Never on a terminal.
    pub fn resize(&self, rows: u16, columns: u16) {
        resize(self.master(), rows, columns);
    }

    /// Waits until `text` came out, and returns what came before it since the last time.
    ///
    /// # Panics
    /// It did not come.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let found = self.unread.windows(text.len()).position(|part| part == text.as_bytes());
            if let Some(at) = found {
                let before: Vec<u8> = self.unread.drain(..at + text.len()).take(at).collect();
                return String::from_utf8_lossy(&before).into_owned();
            }
            match self.chunks.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.unread.extend(chunk),
                Err(error) => {
                    let why = match error {
                        RecvTimeoutError::Timeout => "not in time",
                        RecvTimeoutError::Disconnected => "not before the end",
                    };
                    panic!("{text:?} came {why}, after {:?}", String::from_utf8_lossy(&self.unread));
                }
            }
        }
    }

    /// Settings of the terminal now.
    ///
    /// # Panics
    /// Never on a terminal.
    #[must_use]
    pub fn settings(&self) -> Termios {
        tcgetattr(self.master()).expect("a terminal has settings")
    }

    /// Waits until whoever has the terminal has made it raw.
    ///
    /// # Panics
    /// Nobody did.
    #[track_caller]
    pub fn wait_until_raw(&self) {
        eventually(DEADLINE, "a raw terminal", || {
            (!self.settings().local_modes.contains(LocalModes::ICANON)).then_some(())
        });
    }

    /// Waits for the end of the session leader and returns its exit code.
    ///
    /// # Panics
    /// It does not end.
    #[track_caller]
    pub fn finish(mut self) -> Option<i32> {
        eventually(DEADLINE, "the end of a session leader", || self.child.try_wait().ok().flatten()).code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Waited for already when it finished; then both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(master: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("a terminal has a size");
}

fn read_in_background(mut master: File, until: PipeReader) -> Receiver<Vec<u8>> {
    let (sender, chunks) = channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        let wait = |master: &File| {
            let mut fds = [PollFd::new(master, PollFlags::IN), PollFd::new(&until, PollFlags::IN)];
            poll(&mut fds, None).is_ok() && fds[1].revents().is_empty()
        };
        // EIO is the end of a terminal.
        while wait(&master)
            && let Ok(count) = master.read(&mut buffer)
            && count > 0
            && sender.send(buffer[..count].to_vec()).is_ok()
        {}
        // Closed before the channel, whose end says so.
        drop(master);
        drop(sender);
    });
    chunks
}
