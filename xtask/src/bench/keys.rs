//! How long a key takes: from a byte typed into a terminal until its echo is read from there.
//!
//! `cat` is echoed by the kernel's terminal, `bash` echoes by itself; each with `sandbar run` between and without. The
//! difference is what a person feels, or does not: keys come 50 ms apart from a fast typist.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::contender::Line;
use super::race::{Contender, Pace, race};
use super::row::{Role, Row};
use super::world::World;

const ID: &str = "K1";

/// How long an echo, or the readiness of a command, may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Keys until a new session: what is typed stays on one line of the terminal.
const KEYS: usize = 1000;

const KEY: u8 = b'x';

/// What is typed to, and what it says when it is ready.
const PROGRAMS: [(&str, &[&str], &str); 2] = [
    ("cat", &["sh", "-c", "echo ready; exec cat"], "ready"),
    ("bash", &["bash", "--norc", "--noprofile", "-i"], "bash-"),
];

/// Measures the rows.
///
/// # Errors
/// When a session can't be started, or an echo does not come.
pub(super) fn rows(world: &World, runs: u32) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, program, ready) in PROGRAMS {
        eprintln!("measuring {ID}: a key to {name}, {runs} rounds");
        let inside = world.run(world.runtime.path()).args(["-q", "--"]).args(program);
        let outside = Line::new(program[0], &world.workspace).args(&program[1..]);
        let ours = Typist { line: inside, ready, relays: true, session: None };
        let floor = Typist { line: outside, ready, relays: false, session: None };
        let contenders = vec![ours.contender("sandbar run"), floor.contender(name)];
        let mut times = race(contenders, runs, Pace::EveryRound)?.into_iter();
        let (ours, floor) = (times.next().context("no time")?, times.next().context("no time")?);
        let name = if name == "cat" { "a key and its echo: cat" } else { "a key and its echo: bash" };
        let others = vec![(Role::Floor, floor)];
        rows.push(Row { id: ID, name, ours, others, targets: Vec::new(), bytes: None });
    }
    Ok(rows)
}

/// Types one key at a time to a command.
struct Typist {
    line: Line,
    ready: &'static str,
    /// Whether it makes our terminal raw because it has another one inside.
    relays: bool,
    session: Option<Session>,
}

impl Typist {
    fn contender(mut self, name: &str) -> Contender<'static> {
        Contender { name: name.to_owned(), work: Box::new(move || self.type_key()) }
    }

    fn type_key(&mut self) -> Result<Duration> {
        if self.session.as_ref().is_none_or(|session| session.typed >= KEYS) {
            // The old one ends first: two of them would share the processors.
            self.session = None;
            let mut session = Session::start(self.line.clone())?;
            session.wait_for(self.ready.as_bytes())?;
            session.wait_until_quiet(self.relays)?;
            self.session = Some(session);
        }
        let session = self.session.as_mut().context("no session")?;
        session.typed += 1;
        let started = Instant::now();
        session.master.write_all(&[KEY])?;
        session.wait_for(&[KEY])?;
        Ok(started.elapsed())
    }
}

/// A command on a terminal whose other end is ours.
struct Session {
    master: File,
    child: Child,
    typed: usize,
}

impl Session {
    fn start(line: Line) -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        let columns = u16::try_from(2 * KEYS).unwrap_or(u16::MAX);
        tcsetwinsize(&master, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
        let mut command: Command = line.behind("setsid", &["--ctty", "--wait"]).command();
        let end = || slave.try_clone().map(Stdio::from);
        command.env("TERM", "dumb").stdin(end()?).stdout(end()?).stderr(end()?);
        let child = command.spawn().context("could not start setsid")?;
        Ok(Self { master: File::from(master), child, typed: 0 })
    }

    /// Reads until `text` came.
    fn wait_for(&mut self, text: &[u8]) -> Result<()> {
        let end = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        while !seen.windows(text.len()).any(|part| part == text) {
            if !self.is_readable(end.saturating_duration_since(Instant::now()))? {
                bail!("{} did not come, after {}", text.escape_ascii(), seen.escape_ascii());
            }
            let mut chunk = [0; 4096];
            let count = self.master.read(&mut chunk)?;
            seen.extend_from_slice(&chunk[..count]);
        }
        Ok(())
    }

    /// Reads what is left of a greeting; where the command relays, until it has the terminal.
    fn wait_until_quiet(&mut self, relays: bool) -> Result<()> {
        const QUIET: Duration = Duration::from_millis(200);
        let end = Instant::now() + DEADLINE;
        let is_raw = |master: &File| {
            tcgetattr(master).map(|settings| !settings.local_modes.contains(LocalModes::ICANON))
        };
        while self.is_readable(QUIET)? || (relays && !is_raw(&self.master)?) {
            if Instant::now() > end {
                bail!("it does not come to rest");
            }
            let mut chunk = [0; 4096];
            if self.is_readable(Duration::ZERO)? {
                let _ = self.master.read(&mut chunk)?;
            }
        }
        Ok(())
    }

    fn is_readable(&self, within: Duration) -> Result<bool> {
        let timeout = Timespec::try_from(within)?;
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&timeout))? > 0)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail only where it has ended already. Its terminal hangs up with us.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_a_terminal() {
        let line = Line::new("sh", std::path::Path::new("/")).args(["-c", "echo ready; exec cat"]);
        let mut typist = Typist { line, ready: "ready", relays: false, session: None };
        for _ in 0..3 {
            assert!(typist.type_key().unwrap() < DEADLINE);
        }
    }
}
