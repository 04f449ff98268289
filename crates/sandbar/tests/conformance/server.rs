//! The servers that the suite is run on.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use sandbar_testkit::need::{self, Need};
use sandbar_testkit::{Certificate, DEADLINE, Finished, Home, Running, certificate};
use serde_json::{Value, json};

use super::client::{Client, Stream, TLS_NAME, tls};

/// What is between a client and its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Lines over standard streams: each connection is a server of its own.
    Stdio,
    /// The socket in the runtime directory.
    Unix,
    /// TCP on loopback, with the token of a file that the server made.
    Token,
    /// TCP on loopback without a token.
    Open,
    /// The same with TLS, by a certificate of its own.
    Tls,
    /// As [`Over::Unix`], on the second server: the first one was killed.
    Restarted,
    /// Codex's own server, over TCP.
    Codex,
    /// Codex's own server, over standard streams.
    CodexStdio,
}

/// A server, and what to know for connecting to it.
pub(crate) struct Server {
    running: Option<Running>,
    pub(crate) url: String,
    token: Option<String>,
    codex: Option<PathBuf>,
    certificate: Option<Certificate>,
    pub(crate) over: Over,
    pub(crate) home: Home,
}

impl Server {
    /// # Errors
    /// It is not installed.
    pub(crate) fn start(over: Over) -> Need<Self> {
        Self::start_with(over, &[])
    }

    /// # Errors
    /// It is not installed.
    pub(crate) fn start_with(over: Over, options: &[&str]) -> Need<Self> {
        let codex = match over {
            Over::Codex | Over::CodexStdio => Some(need::codex(Path::new(env!("CARGO_TARGET_TMPDIR")))?),
            Over::Stdio | Over::Unix | Over::Token | Over::Open | Over::Tls | Over::Restarted => None,
        };
        let home = Home::new(env!("CARGO_BIN_EXE_sandbar"));
        let certificate = (over == Over::Tls).then(|| certificate(&home.outside().join("tls"), TLS_NAME));
        let mut server =
            Self { running: None, url: String::new(), token: None, codex, certificate, over, home };
        server.begin(options);
        if over == Over::Restarted {
            // So that there is something to take over.
            server.ready().cut();
            server.kill();
            server.begin(options);
        }
        Ok(server)
    }

    /// Starts the program, and reads where it listens.
    pub(crate) fn begin(&mut self, options: &[&str]) {
        let token = self.home.sandbar_home().join("own.token");
        let mut command = self.command();
        command.args(options);
        match self.over {
            Over::Stdio | Over::CodexStdio => return,
            Over::Unix | Over::Restarted => {}
            Over::Token => {
                command.args(["--listen", "ws://127.0.0.1:0", "--ws-token-file"]).arg(&token);
            }
            Over::Open => {
                command.args(["--listen", "ws://127.0.0.1:0", "--ws-auth", "none"]);
            }
            Over::Tls => {
                let Certificate { cert, key } = self.certificate.as_ref().unwrap();
                command.args(["--listen", "wss://127.0.0.1:0", "--ws-auth", "none"]);
                command.arg("--tls-cert").arg(cert).arg("--tls-key").arg(key);
            }
            Over::Codex => {
                command.args(["--listen", "ws://127.0.0.1:0"]);
            }
        }
        let mut running = Running::start(&mut command);
        self.url = running.line();
        self.running = Some(running);
        if self.over == Over::Token {
            self.token = Some(std::fs::read_to_string(&token).unwrap().trim().to_owned());
        }
    }

    fn command(&self) -> Command {
        let Some(codex) = &self.codex else { return self.home.sandbar(&["serve"]) };
        let codex_home = self.home.user_home().join(".codex");
        std::fs::create_dir_all(&codex_home).unwrap();
        let mut command = self.home.command(codex);
        command.arg("exec-server").env("CODEX_HOME", codex_home);
        command
    }

    /// SIGKILL, and its end.
    pub(crate) fn kill(&mut self) {
        let running = self.running.take().unwrap();
        running.signal(Signal::KILL);
        let _ = running.finish();
    }

    /// SIGTERM, and how it ends.
    pub(crate) fn end(&mut self) -> Finished {
        let running = self.running.take().unwrap();
        running.signal(Signal::TERM);
        running.finish()
    }

    /// Whether several connections reach the same server.
    pub(crate) fn has_connections(&self) -> bool {
        !matches!(self.over, Over::Stdio | Over::CodexStdio)
    }

    /// A connection on which nothing was said.
    pub(crate) fn connect(&self) -> Client {
        match self.over {
            Over::Stdio | Over::CodexStdio => Client::of_program(self.command().args(["--listen", "stdio"])),
            Over::Unix | Over::Token | Over::Open | Over::Tls | Over::Restarted | Over::Codex => {
                Client::upgrade(self.stream(), self.token.as_deref()).unwrap()
            }
        }
    }

    /// Connects, and no more than that.
    pub(crate) fn stream(&self) -> Box<dyn Stream> {
        let address = self.url.strip_prefix("ws://").or_else(|| self.url.strip_prefix("wss://"));
        match address {
            Some(address) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                stream.set_nodelay(true).unwrap();
                match &self.certificate {
                    Some(certificate) => tls(stream, certificate),
                    None => Box::new(stream),
                }
            }
            None => {
                let path = self.url.strip_prefix("unix://").unwrap();
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                Box::new(stream)
            }
        }
    }

    /// A connection with a session of its own.
    pub(crate) fn ready(&self) -> Client {
        self.ready_with_session().0
    }

    /// The same, and the session.
    pub(crate) fn ready_with_session(&self) -> (Client, String) {
        let mut client = self.connect();
        let session = client.greet(&json!({"clientName": "test", "resumeSessionId": null}));
        (client, session)
    }

    /// A connection that goes on with `session`, once the server has seen that the last one is gone.
    pub(crate) fn resume(&self, session: &str) -> Client {
        let params = json!({"clientName": "test", "resumeSessionId": session});
        sandbar_testkit::eventually(DEADLINE, "the end of the connection before", || {
            let mut client = self.connect();
            let id = client.send("initialize", &params);
            let answer = client.answer(id);
            if answer["error"]["code"] == json!(-32010) {
                return None;
            }
            assert_eq!(answer["result"]["sessionId"], json!(session), "{answer}");
            client.tell("initialized", &json!({}));
            Some(client)
        })
    }

    /// `process/start` of a script, as Codex's client sends it.
    pub(crate) fn shell(&self, process: &str, script: &str) -> Value {
        json!({"processId": process, "argv": ["/bin/sh", "-c", script], "cwd": self.cwd(),
               "env": {"PATH": "/usr/bin:/bin"}, "tty": false, "arg0": null})
    }

    /// The same with some of it changed.
    pub(crate) fn shell_with(&self, process: &str, script: &str, changes: &Value) -> Value {
        let mut params = self.shell(process, script);
        for (name, value) in changes.as_object().unwrap() {
            params[name] = value.clone();
        }
        params
    }

    /// The workspace, as a URI.
    pub(crate) fn cwd(&self) -> String {
        uri(&self.home.workspace())
    }

    /// A file of the workspace, as a URI.
    pub(crate) fn file(&self, name: &str) -> String {
        uri(&self.home.workspace().join(name))
    }
}

/// A path without characters that would need an escape.
pub(crate) fn uri(path: &Path) -> String {
    format!("file://{}", path.display())
}
