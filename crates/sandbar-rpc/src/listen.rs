//! Listening for peers: unix sockets and TCP, plain or with TLS, all of which speak WebSocket.
//!
//! A [`Listener`] does the handshakes and hands out connections that passed them. Whoever could not be named is never
//! handed out. Dropping it stops: handshakes under way are given up, connections that were handed out live on.

mod http;
mod unix;
mod url;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::auth::{Auth, AuthError, PeerCheck, Principal, Verifier};
use crate::tcp;
use crate::tls::{self, TlsError, TlsFiles};
use crate::transport::Transport;
use http::{Door, Guest, HANDSHAKE, greet};
use unix::{Failure, SocketFile};

pub(crate) use unix::connect_to;
pub(crate) use url::unix_path;
pub use url::{ListenUrl, ListenUrlError};

/// Handshakes under way at once; beyond it connections wait in the kernel's queue. Each ends within ten seconds.
const HANDSHAKES: usize = 256;

/// How long a listener waits that could not accept because the system is short of something, such as descriptors.
const SHORTAGE: Duration = Duration::from_millis(100);

/// Makes the text of `/metrics`, in Prometheus' format.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Hears of connections that came to nothing: who it was, and why.
pub type Refusals = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// How a listener treats who comes.
pub struct Settings {
    /// What this program is called in messages to peers: `exec-server`.
    pub name: String,
    /// Who may connect.
    pub auth: Auth,
    /// Web pages that may connect, as their `Origin` names them; all others are refused.
    pub origins: Vec<String>,
    /// Certificate and key; for `wss` and only there.
    pub tls: Option<TlsFiles>,
    /// What `/metrics` says; without it, that page is not found.
    pub metrics: Option<Metrics>,
    /// Hears of refusals.
    pub refusals: Option<Refusals>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, auth, origins, tls, .. } = self;
        let mut settings = f.debug_struct("Settings");
        settings.field("name", name).field("auth", auth).field("origins", origins).field("tls", tls);
        settings.finish_non_exhaustive()
    }
}

impl Settings {
    /// Settings with no web page, no TLS, no metrics.
    #[must_use]
    pub fn new(name: impl Into<String>, auth: Auth) -> Self {
        Self { name: name.into(), auth, origins: Vec::new(), tls: None, metrics: None, refusals: None }
    }
}

/// A peer that passed the handshake.
#[derive(Debug)]
pub struct Incoming {
    /// The link to it.
    pub transport: Transport,
    /// Who it is.
    pub principal: Principal,
    /// Who it is, for messages and logs: `exec-server websocket 127.0.0.1:4000`.
    pub peer: String,
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Standard input and output are spoken over at once.
    #[error("stdio is not listened on")]
    Stdio,
    /// Everybody on the network could connect.
    #[error("{address} can be reached from other hosts: listening there needs a token")]
    NeedsToken {
        /// The address.
        address: SocketAddr,
    },
    /// The kernel names peers of unix sockets only.
    #[error("{address} is no unix socket, so its peers have no credentials")]
    NoCredentials {
        /// The address.
        address: SocketAddr,
    },
    /// `wss` without a certificate, or a certificate without `wss`.
    #[error("{url}: `wss` takes a certificate and a key, others take none")]
    Tls {
        /// The URL.
        url: ListenUrl,
    },
    /// The certificate can't be used.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// Authentication can't be set up.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Another process listens there.
    #[error("another process listens on {url}")]
    InUse {
        /// The URL.
        url: ListenUrl,
    },
    /// Something else than a socket is there, and stays.
    #[error("{} is there and is no socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("could not listen on {url}: {source}")]
    Io {
        /// The URL.
        url: ListenUrl,
        /// What it says.
        source: io::Error,
    },
}

/// Accepts peers.
pub struct Listener {
    socket: Socket,
    /// Only unix sockets have one.
    check: Option<PeerCheck>,
    door: Arc<Door>,
    name: String,
    refusals: Option<Refusals>,
    handshakes: JoinSet<Option<Incoming>>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("url", &self.url().to_string()).finish_non_exhaustive()
    }
}

enum Socket {
    Tcp { listener: TcpListener, address: SocketAddr, tls: Option<TlsAcceptor> },
    Unix { listener: UnixListener, file: SocketFile },
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    /// Listens, as soon as everything that could be wrong was looked at.
    ///
    /// # Errors
    /// See [`ListenError`]. In particular an address that other hosts can reach without a token is refused.
    pub async fn bind(url: &ListenUrl, settings: Settings) -> Result<Self, ListenError> {
        let Settings { name, auth, origins, tls, metrics, refusals } = settings;
        if tls.is_some() != matches!(url, ListenUrl::Wss(_)) {
            return Err(ListenError::Tls { url: url.clone() });
        }
        if let ListenUrl::Ws(address) | ListenUrl::Wss(address) = url {
            may_listen(*address, &auth)?;
        }
        let verifier = Verifier::new(&auth)?;
        let checks_host = matches!((url, &auth), (ListenUrl::Ws(_) | ListenUrl::Wss(_), Auth::None));
        let io = |source| ListenError::Io { url: url.clone(), source };
        let socket = match url {
            ListenUrl::Stdio => return Err(ListenError::Stdio),
            ListenUrl::Unix(path) => {
                let (socket, file) = SocketFile::bind(path).map_err(|failure| match failure {
                    Failure::InUse => ListenError::InUse { url: url.clone() },
                    Failure::NotASocket => ListenError::NotASocket { path: path.clone() },
                    Failure::Io(source) => io(source),
                })?;
                let listener = UnixListener::from_std(StdUnixListener::from(socket)).map_err(io)?;
                Socket::Unix { listener, file }
            }
            ListenUrl::Ws(address) | ListenUrl::Wss(address) => {
                let tls = tls.as_ref().map(tls::server).transpose()?.map(TlsAcceptor::from);
                let listener = TcpListener::bind(address).await.map_err(|source| {
                    let is_taken = source.kind() == io::ErrorKind::AddrInUse;
                    if is_taken { ListenError::InUse { url: url.clone() } } else { io(source) }
                })?;
                let address = listener.local_addr().map_err(io)?;
                Socket::Tcp { listener, address, tls }
            }
        };
        let check = if let Auth::PeerCredentials(check) = auth { Some(check) } else { None };
        let door = Arc::new(Door { verifier, origins, metrics, checks_host });
        Ok(Self { socket, check, door, name, refusals, handshakes: JoinSet::new() })
    }

    /// The address as it can be connected to: with the port that the system chose.
    #[must_use]
    pub fn url(&self) -> ListenUrl {
        match &self.socket {
            Socket::Tcp { address, tls: None, .. } => ListenUrl::Ws(*address),
            Socket::Tcp { address, tls: Some(_), .. } => ListenUrl::Wss(*address),
            Socket::Unix { file, .. } => ListenUrl::Unix(file.path().to_owned()),
        }
    }

    /// Waits for the next peer that passes the handshake: as long as there is none. Handshakes go on in the background, new
    /// ones begin only while this is waited for. Dropping the future loses nothing.
    pub async fn accept(&mut self) -> Incoming {
        loop {
            let has_room = self.handshakes.len() < HANDSHAKES;
            tokio::select! {
                biased;
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Some(incoming)) => return incoming,
                    Ok(None) => {}
                    Err(error) => self.refused("a handshake", &error.to_string()),
                },
                accepted = self.socket.accept(), if has_room => match accepted {
                    Ok(accepted) => self.begin(accepted),
                    Err(error) => {
                        self.refused("a connection", &error.to_string());
                        tokio::time::sleep(SHORTAGE).await;
                    }
                },
            }
        }
    }

    fn begin(&mut self, accepted: Accepted) {
        let Self { socket, check, door, name, .. } = self;
        let door = Arc::clone(door);
        match (accepted, socket) {
            (Accepted::Tcp(stream, address), Socket::Tcp { tls, .. }) => {
                // A peer that is gone already shows it soon enough.
                let _ = tcp::tune(&stream);
                let guest = Guest { principal: None, peer: format!("{name} websocket {address}") };
                match tls.clone() {
                    None => self.handshakes.spawn(greet(stream, door, guest)),
                    Some(tls) => self.handshakes.spawn(async move {
                        let stream = timeout(HANDSHAKE, tls.accept(stream)).await.ok()?.ok()?;
                        greet(stream, door, guest).await
                    }),
                };
            }
            (Accepted::Unix(stream), Socket::Unix { .. }) => {
                let principal = match check.as_mut().map(|check| check(stream.as_fd())).transpose() {
                    Ok(principal) => principal,
                    // Not a word to whom the kernel names as somebody else.
                    Err(why) => return self.refused("a peer of the unix socket", &why),
                };
                let guest = Guest { principal, peer: format!("{name} websocket on its unix socket") };
                self.handshakes.spawn(greet(stream, door, guest));
            }
            // A socket accepts its own kind.
            (Accepted::Tcp(..), Socket::Unix { .. }) | (Accepted::Unix(_), Socket::Tcp { .. }) => {}
        }
    }

    fn refused(&self, who: &str, why: &str) {
        if let Some(refusals) = &self.refusals {
            refusals(who, why);
        }
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp { listener, .. } => {
                listener.accept().await.map(|(stream, peer)| Accepted::Tcp(stream, peer))
            }
            Self::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

/// Whether peers of a TCP address can be told apart from everybody else.
fn may_listen(address: SocketAddr, auth: &Auth) -> Result<(), ListenError> {
    match auth {
        Auth::CapabilityToken(_) | Auth::SignedBearer(_) => Ok(()),
        Auth::PeerCredentials(_) => Err(ListenError::NoCredentials { address }),
        Auth::None if address.ip().to_canonical().is_loopback() => Ok(()),
        Auth::None => Err(ListenError::NeedsToken { address }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::TokenSource;

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        let listens = |address: &str, auth| may_listen(address.parse().unwrap(), &auth).is_ok();
        let token = || Auth::CapabilityToken(TokenSource::Sha256([0; 32]));
        let table = [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
            ("[fe80::1]:1", false),
        ];
        for (address, without_token) in table {
            assert_eq!(listens(address, Auth::None), without_token, "{address}");
            assert!(listens(address, token()), "{address}");
            assert!(!listens(address, Auth::PeerCredentials(Box::new(|_| Err(String::new())))), "{address}");
        }
    }
}
