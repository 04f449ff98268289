//! The terminal of a command: opened by the holder inside the walls, so that it is one of the sandbox's own devpts,
//! and passed out to the keeper.
//!
//! The holder leads the session and keeps an end of the terminal open until its tree is gone: so the keeper sees the
//! end of the terminal when nothing can write to it any more, and not when everybody happens to have closed it.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use sandbar_proto::{LaunchSpec, OutputMode, StdinMode, Terminal};

use super::holder::{self, fail};
use super::spare::send_packet;
use crate::report::{Report, SetupFailure, Step};
use crate::terminal::{set_modes, set_size};

/// A terminal to be opened.
pub(super) struct Wanted {
    terminal: Terminal,
    /// Which of the standard streams it is.
    streams: [bool; 3],
}

impl Wanted {
    /// What `spec` asks for.
    pub(super) fn of(spec: &LaunchSpec) -> Option<Self> {
        let output = |mode| mode == OutputMode::Terminal;
        let streams =
            [spec.stdio.stdin == StdinMode::Terminal, output(spec.stdio.stdout), output(spec.stdio.stderr)];
        let terminal = spec.terminal.clone()?;
        Some(Self { terminal, streams })
    }

    /// Opens the terminal, makes it this session's, puts it on the standard streams and passes its other end to the
    /// keeper. Returns the end that keeps it open.
    ///
    /// # Errors
    /// [`Step::Terminal`].
    pub(super) fn open(&self) -> Result<OwnedFd, SetupFailure> {
        self.try_open().map_err(fail(Step::Terminal))
    }

    fn try_open(&self) -> Result<OwnedFd, Errno> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        unlockpt(&master)?;
        // By the master and not by a path: nobody can put another terminal in between.
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        set_size(&slave, self.terminal.size)?;
        if let Some(modes) = &self.terminal.modes {
            set_modes(&slave, modes)?;
        }
        ioctl_tiocsctty(&slave)?;
        for (stream, number) in self.streams.iter().zip(0..) {
            if *stream {
                holder::duplicate(slave.as_raw_fd(), number, 0)?;
            }
        }
        send_packet(holder::control(), &Report::Terminal.encode(), &[master.as_fd()])?;
        Ok(slave)
    }
}
