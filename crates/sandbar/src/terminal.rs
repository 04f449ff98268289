//! The terminal that we were started on, while a command on a terminal of its own uses it through us.
//!
//! What a person types goes to the command byte for byte, what the command writes comes out as it is; the size
//! follows, and a stop of the command is one of ours. Whoever takes the terminal from us for a while (a shell after
//! Ctrl-Z) finds it as it was before, and so does whoever comes after us.

mod keys;
mod modes;
mod raw;
mod screen;

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal as SignalNumber, kill_current_process_group};
use sandbar_proto::{Terminal, TerminalSize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::signal::SIGCONT;

pub(crate) use keys::DetachKeys;
use keys::{Recogniser, Typed};
use modes::Modes;
use raw::RawMode;
pub(crate) use raw::is_foreground;
pub(crate) use screen::TAIL_BYTES;

/// Bytes of one read from the terminal: what its line discipline holds at most (n_tty's buffer).
const INPUT_BYTES: usize = 4096;

/// How often a process in the background looks whether its terminal is its own again. A shell's `fg` tells only a
/// stopped job.
const FOREGROUND_INTERVAL: Duration = Duration::from_millis(200);

/// Something that happened on our side of the terminal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Occurrence {
    /// A person typed.
    Typed(Vec<u8>),
    /// The terminal has another size.
    Resized(TerminalSize),
    /// The detach keys were typed, behind this.
    Detach(Vec<u8>),
    /// Nothing more is typed: the terminal is gone.
    Ended,
}

/// The terminal that a command started from here would have: that of standard input, with its size and settings.
pub(crate) fn describe() -> Terminal {
    let stdin = std::io::stdin();
    Terminal { size: size(), modes: sandbar_sandbox::terminal::modes(&stdin).ok() }
}

fn size() -> TerminalSize {
    let known = sandbar_sandbox::terminal::size(std::io::stdout()).ok().flatten();
    known
        .or_else(|| sandbar_sandbox::terminal::size(std::io::stdin()).ok().flatten())
        .unwrap_or(TerminalSize::USUAL)
}

/// Our terminal in use by a command.
pub(crate) struct Session {
    raw: RawMode,
    input: AsyncFd<OwnedFd>,
    recogniser: Recogniser,
    modes: Modes,
    size: TerminalSize,
    window_changes: Signal,
    continuations: Signal,
    /// Whether we know that the terminal is somebody else's.
    in_background: bool,
    ended: bool,
}

impl Session {
    /// Takes the terminal; must be called within a runtime.
    ///
    /// # Errors
    /// There is none, or it can't be watched.
    pub(crate) fn begin(keys: &DetachKeys) -> std::io::Result<Self> {
        let input = std::io::stdin().as_fd().try_clone_to_owned()?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe for owners that could exchange their descriptor; OwnedFd never does"
        )]
        let input = AsyncFd::with_interest(input, Interest::READABLE)?;
        let window_changes = signal(SignalKind::window_change())?;
        let continuations = signal(SignalKind::from_raw(SIGCONT))?;
        Ok(Self {
            raw: RawMode::enter()?,
            input,
            recogniser: Recogniser::new(keys),
            modes: Modes::default(),
            size: size(),
            window_changes,
            continuations,
            in_background: !is_foreground(),
            ended: false,
        })
    }

    /// Notes what the command writes to the terminal.
    pub(crate) fn note_output(&mut self, bytes: &[u8]) {
        self.modes.take(bytes);
    }

    /// What to write first to show the screen of a command that runs already, from the end of its output.
    pub(crate) fn redraw(&mut self, tail: &[u8], made_for: TerminalSize) -> Vec<u8> {
        self.modes.take(tail);
        screen::redraw(tail, &self.modes, made_for, self.size).into_bytes()
    }

    /// Our size now.
    pub(crate) fn size(&self) -> TerminalSize {
        self.size
    }

    /// Waits for the next occurrence. Nothing is lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> Occurrence {
        loop {
            let woken = tokio::select! {
                _ = self.window_changes.recv() => Woken::Changed,
                _ = self.continuations.recv() => Woken::Changed,
                () = tokio::time::sleep(FOREGROUND_INTERVAL), if self.in_background => Woken::Changed,
                bytes = read(&self.input), if !self.ended && !self.in_background => Woken::Read(bytes),
            };
            match woken {
                Woken::Changed => {
                    if let Some(size) = self.come_back() {
                        return Occurrence::Resized(size);
                    }
                }
                Woken::Read(Read::Background) => self.in_background = true,
                Woken::Read(Read::End) => {
                    self.ended = true;
                    return Occurrence::Ended;
                }
                Woken::Read(Read::Bytes(bytes)) => match self.recogniser.take(&bytes) {
                    Typed::Pass(bytes) if bytes.is_empty() => {}
                    Typed::Pass(bytes) => return Occurrence::Typed(bytes),
                    Typed::Detach(bytes) => return Occurrence::Detach(bytes),
                },
            }
        }
    }

    /// Takes the terminal again after it may have been somebody else's. Returns its size if that is another one.
    fn come_back(&mut self) -> Option<TerminalSize> {
        self.in_background = !is_foreground();
        // A terminal that is gone is met when it is read.
        let _ = self.raw.again();
        let size = size();
        (size != std::mem::replace(&mut self.size, size)).then_some(size)
    }

    /// Gives the terminal back and stops our process group, as the terminal would have on Ctrl-Z. Returns when
    /// somebody continues it, or at once where nobody could (orphaned groups can't be stopped this way, setpgid(2)).
    pub(crate) fn suspend(&mut self) -> Option<TerminalSize> {
        self.raw.pause();
        // Nobody to be stopped is nobody to wait for.
        let _ = kill_current_process_group(SignalNumber::TSTP);
        self.come_back()
    }

    /// Gives the terminal back for good. [`Left::Behind`] also switches off what the command had switched on and
    /// nobody will switch off any more.
    pub(crate) fn end(self, left: Left) {
        if left == Left::Behind && is_foreground() && takes_output() {
            let reset = self.modes.reset();
            // A terminal that is gone needs no reset.
            let _ = crate::output::write(sandbar_proto::Stream::Stdout, reset.as_bytes());
        }
    }
}

/// Whether our terminal takes something right now. One that is held by Ctrl-S would hold us, too.
fn takes_output() -> bool {
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::OUT)];
    poll(&mut fds, Some(&now)) == Ok(1) && fds[0].revents().contains(PollFlags::OUT)
}

/// How a command left the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// As it wanted to: it ended by itself.
    Willingly,
    /// In the middle of something: it was killed, or it goes on elsewhere.
    Behind,
}

enum Woken {
    Changed,
    Read(Read),
}

/// What reading from the terminal came to.
enum Read {
    Bytes(Vec<u8>),
    /// Something was typed that is not for us.
    Background,
    End,
}

/// Reads what was typed. The descriptor blocks, since it is shared with others who expect that; it is read only when
/// something is there and ours: a read from the background would stop us (SIGTTIN).
async fn read(input: &AsyncFd<OwnedFd>) -> Read {
    loop {
        let Ok(mut guard) = input.readable().await else { return Read::End };
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(input.get_ref(), PollFlags::IN)];
        if poll(&mut fds, Some(&now)) == Ok(0) {
            guard.clear_ready();
            continue;
        }
        if fds[0].revents().contains(PollFlags::HUP) {
            return Read::End;
        }
        if !is_foreground() {
            return Read::Background;
        }
        let mut buffer = vec![0; INPUT_BYTES];
        match rustix::io::read(input.get_ref(), &mut buffer) {
            Ok(0) => return Read::End,
            Ok(count) => {
                buffer.truncate(count);
                return Read::Bytes(buffer);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => guard.clear_ready(),
            Err(_) => return Read::End,
        }
    }
}
