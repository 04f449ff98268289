//! The exec server: this machine's processes and files for whoever may connect, in the dialect of Codex 0.169.
//!
//! A [`Server`] holds sessions; a [`Connection`] is what a transport's reader calls, and is attached to at most one
//! session. What runs belongs to the keeper and its sessions, so a connection that breaks, and a server that is killed,
//! end nothing: the next one finds the processes where they are. Output is read from the keeper's log at the pace of
//! the connection that takes it; a connection that does not read holds only its own processes.
//!
//! Decides nothing about what may run: `sandbar-policy` reads the sandbox that a client asks for. Listens nowhere and
//! authenticates nobody: that is the caller's part, who hands over connections with the name of their owner.

mod attach;
mod config;
mod connection;
mod discovery;
mod environment;
mod files;
mod follower;
mod helper;
mod host;
mod http;
mod keeper;
mod launch;
mod log;
mod output;
mod process;
mod reading;
mod refusal;
mod session;
mod sessions;
mod stdin;

use std::sync::Arc;
use std::time::Duration;

use sandbar_rpc::Sender;
use sandbar_rpc::auth::Principal;

use crate::ProcessError;
pub use connection::Connection;
pub use host::Host;
use http::Http;
pub use http::allow::{AllowedHost, AllowedHostError};
use keeper::Keeper;
pub use keeper::{Connect, Connections};
pub use log::{Entry, Log};
use sessions::Sessions;

/// Bounds of a server.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long a session waits for its client to come back.
    pub session_ttl: Duration,
    /// Sessions at once; further ones are refused.
    pub max_sessions: usize,
    /// Processes of one session that live at once; further ones are refused.
    pub max_processes: usize,
    /// Ended processes that a session remembers; the oldest are forgotten first.
    pub max_ended: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // The peer's: long enough for a laptop that changes networks.
            session_ttl: Duration::from_secs(80),
            max_sessions: 256,
            max_processes: 4096,
            max_ended: 1000,
        }
    }
}

/// A server, shared by its connections.
#[derive(Debug, Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    host: Host,
    http: Http,
    keeper: Arc<Keeper>,
    sessions: Arc<Sessions>,
    log: Option<Log>,
}

impl Server {
    /// A server of what a keeper holds: `connections` lead to it, and `connect` makes new ones when it is gone. Must be called
    /// within a runtime. `log` hears of every request.
    ///
    /// # Errors
    /// Its mark of life can't be made in [`Host::servers`].
    pub fn new(
        host: Host,
        connections: Connections,
        connect: Connect,
        settings: Settings,
        log: Option<Log>,
    ) -> std::io::Result<Self> {
        let keeper = Arc::new(Keeper::new(connections, connect));
        let sessions = Sessions::new(Arc::clone(&keeper), &host.servers, settings)?;
        let http = Http::new(host.http_allow.clone());
        Ok(Self { shared: Arc::new(Shared { host, http, keeper, sessions, log }) })
    }

    /// Takes over the sessions of servers that were killed; a resume does so as well.
    ///
    /// # Errors
    /// The keeper can't be asked.
    pub async fn adopt(&self) -> Result<(), ProcessError> {
        self.shared.sessions.adopt(None).await
    }

    /// The service of a new connection of `owner`, who is written to through `sender`.
    #[must_use]
    pub fn connection(&self, owner: Principal, sender: Sender) -> Arc<Connection> {
        Connection::new(Arc::clone(&self.shared), owner, sender)
    }

    /// What there is now, for people and for monitoring.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.shared.sessions.figures()
    }

    /// Ends every session and what runs in them, detached processes left alone.
    pub async fn shut_down(&self) {
        self.shared.sessions.end_all().await;
    }
}

/// Counts of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Sessions, attached or not.
    pub sessions: usize,
    /// Those with a connection.
    pub attached: usize,
    /// Processes whose leaders run.
    pub running: usize,
    /// Processes that are remembered.
    pub remembered: usize,
}
