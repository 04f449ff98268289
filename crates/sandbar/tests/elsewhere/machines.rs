//! Two machines: one that runs commands elsewhere, and the one where they run.

use std::fs;
use std::process::{Child, Command, Stdio};

use sandbar_testkit::need::{self, Need};
use sandbar_testkit::{Finished, Home, Link, finish};

pub(crate) fn home() -> Home {
    Home::new(env!("CARGO_BIN_EXE_sandbar"))
}

/// A machine with an exec server, and one that uses it.
pub(crate) struct Machines {
    pub(crate) here: Home,
    pub(crate) there: Home,
    pub(crate) server: Child,
    pub(crate) url: String,
}

impl Machines {
    /// With a server over a unix socket.
    pub(crate) fn new() -> Need<Self> {
        Self::with(&["serve"])
    }

    pub(crate) fn with(arguments: &[&str]) -> Need<Self> {
        need::user_namespaces()?;
        let (here, there) = (home(), home());
        let (server, url) = serve(&there, arguments);
        Ok(Self { here, there, server, url })
    }

    /// Over TCP, through a link that can be cut.
    pub(crate) fn linked() -> Need<(Self, Link)> {
        let mut machines = Self::with(&["serve", "--listen", "ws://127.0.0.1:0", "--auth", "none"])?;
        let link = Link::to(machines.url.strip_prefix("ws://").unwrap().parse().unwrap());
        machines.url = format!("ws://{}", link.address());
        Ok((machines, link))
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = self.here.sandbar(&words[..1]);
        command.args(["--on", &self.url]).args(&words[1..]);
        command
    }

    pub(crate) fn sandbar(&self, words: &[&str]) -> Finished {
        finish(&mut self.command(words))
    }

    pub(crate) fn shell(&self, script: &str) -> Finished {
        self.sandbar(&["run", "-q", "--", "sh", "-c", script])
    }

    /// The only run that is on record here.
    pub(crate) fn record(&self) -> String {
        let files = files_below(&self.here.sandbar_home().join("state/sessions"));
        assert_eq!(files.len(), 1, "{files:?}");
        fs::read_to_string(&files[0]).unwrap()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        // Ended by the test itself, or here.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A server, and its address.
pub(crate) fn serve(there: &Home, arguments: &[&str]) -> (Child, String) {
    use std::io::{BufRead as _, BufReader};
    let mut command = there.sandbar(arguments);
    let mut server =
        command.env("THEIRS", "yes").env("MY_TOKEN", "secret").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "the server does not listen");
    (server, line.trim().to_owned())
}

pub(crate) fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
