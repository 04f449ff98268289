//! Terminals of processes: the end that the holder passes out, its size, and stops.
//!
//! What comes out of a terminal is output like any other (`pump_stream`), and nobody here looks at it.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;
use sandbar_proto::{RunId, Stream, TerminalSize};
use sandbar_sandbox::report::Order;

use super::Keeper;
use super::process::Output;
use super::stdin::Stdin;
use crate::protocol::{Event, Refusal};

impl Keeper {
    /// Takes the other end of a command's terminal, which its holder has just opened.
    pub(super) fn take_terminal(&mut self, id: RunId, fds: Vec<OwnedFd>) {
        match ends(fds) {
            Ok((output, input)) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.stdin = Stdin::terminal(input);
                    *process.outputs.get(Stream::Pty) = Some(Output { fd: output, watched: false });
                }
                self.watch_stream(id, Stream::Pty);
            }
            // Out of descriptors: a command whose terminal nobody holds would only be hung up.
            Err(_) => self.order(id, Order::KillTree),
        }
    }

    /// Gives a terminal a size.
    pub(super) fn resize(&mut self, id: RunId, size: TerminalSize) -> Result<(), Refusal> {
        let process = self.process(id)?;
        let current = process.terminal.as_mut().ok_or(Refusal::NoTerminal)?;
        *current = size;
        if let Some(output) = process.outputs.get(Stream::Pty) {
            // A terminal that is at its end shows nothing any more.
            let _ = sandbar_sandbox::terminal::set_size(&output.fd, size);
        }
        Ok(())
    }

    /// Tells that a leader was stopped: whoever typed last did that, and is to have the terminal back. The others see
    /// a command that is silent.
    pub(super) fn leader_stopped(&mut self, id: RunId, signal: i32) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.stopped = true;
        // What it wrote before is there by now, and belongs before its stop.
        self.pump_stream(id, Stream::Pty);
        let Some(process) = self.processes.get(&id) else { return };
        match process.typist.filter(|client| process.watchers.contains_key(client)) {
            Some(client) => self.tell_one(client, id, Event::Stopped { id, signal }),
            None => self.tell(id, &Event::Stopped { id, signal }),
        }
    }
}

/// Two descriptors of one end: epoll watches each for one direction. Neither blocks.
fn ends(fds: Vec<OwnedFd>) -> Result<(OwnedFd, OwnedFd), Errno> {
    let [output] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| Errno::PROTO)?;
    let flags = rustix::fs::fcntl_getfl(&output)?;
    rustix::fs::fcntl_setfl(&output, flags | OFlags::NONBLOCK)?;
    let input = rustix::io::fcntl_dupfd_cloexec(&output, 3)?;
    Ok((output, input))
}
