//! An exec server as a process of its own: ours, or the peer's. It listens on loopback TCP, as the peer can do nothing
//! else, and its first line on standard output says where.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::client::{Client, Dialect};
use super::socket::Acks;
use crate::bench::contender::Line;
use crate::bench::world::World;

/// The peer's name in results.
pub(in crate::bench) const PEER: &str = "codex exec-server";

/// Our name in results.
pub(in crate::bench) const OURS: &str = "sandbar serve";

/// How long a server may take to end what runs in its sessions, and itself. The peer that wedged takes all of it.
const ENDS: Duration = Duration::from_secs(5);

/// A server that runs. It ends when this is dropped, with its sessions and what runs in them.
#[derive(Debug)]
pub(in crate::bench) struct Server {
    child: Child,
    pub(super) url: String,
}

impl Server {
    /// Starts ours, with the keeper of this world.
    ///
    /// # Errors
    /// It does not say where it listens.
    pub(in crate::bench) fn ours(world: &World) -> Result<Self> {
        let line = world.sandbar(world.runtime.path());
        Self::start(&line.args(["serve", "--listen", "ws://127.0.0.1:0", "--ws-auth", "none"])).context(OURS)
    }

    /// Starts the peer's, as it is without any options.
    ///
    /// # Errors
    /// It does not say where it listens.
    pub(in crate::bench) fn peer(world: &World, codex: &Path) -> Result<Self> {
        let home = world.folder.path().join("codex");
        let line = Line::new(codex, &world.workspace).env("CODEX_HOME", Some(home.into()));
        Self::start(&line.args(["exec-server", "--listen", "ws://127.0.0.1:0"])).context(PEER)
    }

    fn start(line: &Line) -> Result<Self> {
        let mut child = line.command().stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut server = Self { child, url: String::new() };
        // A server that says nothing and goes on would be waited for: it never was seen, and a person is there.
        BufReader::new(stdout).read_line(&mut server.url)?;
        server.url.truncate(server.url.trim_end().len());
        ensure!(server.url.starts_with("ws://"), "it does not say where it listens but {:?}", server.url);
        Ok(server)
    }

    /// A client with a session, as any client is.
    pub(in crate::bench) fn client(&self) -> Result<Client> {
        Client::connect(&self.url, Acks::Ordinary, Dialect::Plain)
    }

    pub(super) fn client_with(&self, acks: Acks, dialect: Dialect) -> Result<Client> {
        Client::connect(&self.url, acks, dialect)
    }

    pub(in crate::bench) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Kills it and returns when that was.
    ///
    /// # Errors
    /// It had ended already.
    pub(super) fn kill(&mut self) -> Result<Instant> {
        let killed = Instant::now();
        kill_process(self.pid(), Signal::KILL)?;
        self.child.wait()?;
        Ok(killed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first: one that is killed leaves its sessions to the next, which would be measured with them.
        let _ = kill_process(self.pid(), Signal::TERM);
        let end = Instant::now() + ENDS;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
