//! Ways to a server: an address, or a program whose standard streams lead there.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sandbar_rpc::connect::{self, ConnectError, ConnectUrl, Program};
use tokio::time::Instant;

use super::{Dial, DialError, Dialed};
use crate::BoxFuture;

/// Where a token comes from: read for each connection, so that a new one needs no restart.
#[derive(Debug, Clone)]
pub enum Token {
    /// Its file; white space around it is none of it.
    File(PathBuf),
    /// Itself.
    Value(String),
}

/// How long a server may take to greet over a connection that stands.
const GREETING: Duration = Duration::from_secs(10);

/// How long a program may take until its server greets: a person may have to type a password.
const TYPING: Duration = Duration::from_secs(120);

/// A server at an address.
pub struct AtUrl {
    /// The address.
    pub url: ConnectUrl,
    /// How to connect; its bearer is replaced by `token`.
    pub settings: connect::Settings,
    /// What it wants to see.
    pub token: Option<Token>,
    /// By when it must have greeted, from the first packet on. Without one the greeting has a time of its own.
    pub deadline: Option<Duration>,
}

impl Dial for AtUrl {
    fn dial(&self) -> BoxFuture<'_, Result<Dialed, DialError>> {
        Box::pin(async move {
            let begun = Instant::now();
            let mut settings = self.settings.clone();
            match &self.token {
                Some(Token::Value(token)) => settings.bearer = Some(token.clone()),
                Some(Token::File(path)) => {
                    let read = std::fs::read_to_string(path).map_err(|error| DialError {
                        message: format!("could not read the token in {}: {error}", path.display()),
                        is_final: true,
                    })?;
                    settings.bearer = Some(read.trim().to_owned());
                }
                None => {}
            }
            let connecting = connect::connect(&self.url, &settings);
            let connected = match self.deadline {
                Some(limit) => tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| {
                    Err(ConnectError::TimedOut { url: self.url.clone(), step: "before it greeted", limit })
                }),
                None => connecting.await,
            };
            let is_far = self.url.leaves_this_machine();
            let patience =
                self.deadline.map_or(GREETING, |deadline| deadline.saturating_sub(begun.elapsed()));
            connected
                .map(|transport| Dialed { transport, patience, is_far, guard: None })
                .map_err(|error| refused(&error))
        })
    }
}

fn refused(error: &ConnectError) -> DialError {
    let is_final = match error {
        // A name may be known again in a moment, a server started again, a proxy have a bad one.
        ConnectError::Unresolved { .. }
        | ConnectError::Io { .. }
        | ConnectError::TimedOut { .. }
        // A link that breaks in the middle of an answer shows as one that makes no sense.
        | ConnectError::NotWebsocket { .. } => false,
        ConnectError::Refused { status, .. } => *status < 500,
        ConnectError::Tls(_) | ConnectError::Bearer => true,
    };
    DialError { message: error.to_string(), is_final }
}

/// A program, such as `ssh HOST sandbar serve --listen stdio`.
pub struct ByProgram {
    /// Its name or path.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// By when the server must have greeted. Without one there is time to type a password.
    pub deadline: Option<Duration>,
}

/// Whether a program can be found, by its path or on `PATH`.
fn is_there(program: &OsStr, env: &[(OsString, OsString)]) -> bool {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return path.is_file();
    }
    let folders = env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value);
    folders.is_some_and(|folders| std::env::split_paths(folders).any(|folder| folder.join(path).is_file()))
}

impl Dial for ByProgram {
    fn dial(&self) -> BoxFuture<'_, Result<Dialed, DialError>> {
        Box::pin(async move {
            if !is_there(&self.program, &self.env) {
                let message = format!("no program is named {}", self.program.display());
                return Err(DialError { message, is_final: true });
            }
            // A key that interrupts is meant for the command elsewhere, and must not take the way to it away.
            let deaf = ["-c", "trap '' INT QUIT; exec \"$@\"", "sh"].map(OsString::from);
            let program = Program {
                program: "/bin/sh".into(),
                args: deaf.into_iter().chain([self.program.clone()]).chain(self.args.clone()).collect(),
                env: self.env.clone(),
                cwd: None,
                // What it has to say is for the person: a password that is asked for, a host that is not known.
                stderr: Stdio::inherit(),
                may_ask: true,
            };
            let spawned = connect::spawn(program);
            let (transport, running) =
                spawned.map_err(|error| DialError { message: error.to_string(), is_final: true })?;
            // Its streams carry no binary frames.
            let patience = self.deadline.unwrap_or(TYPING);
            Ok(Dialed { transport, patience, is_far: false, guard: Some(Box::new(running)) })
        })
    }
}
