//! Connecting to peers: websockets over TCP, TLS and unix sockets, and programs whose standard streams speak lines.
//!
//! Every step has a deadline. Names of hosts are resolved by whoever is given for it: this room asks no name server.

mod http;
mod program;
mod url;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::listen::connect_to;
use crate::tcp;
use crate::tls::{self, TlsError};
use crate::transport::Transport;

pub use program::{Program, Running, SpawnError, spawn};
use url::Target;
pub use url::{ConnectUrl, ConnectUrlError};

/// How long a connection may take to stand, TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a server may take to agree to a websocket.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Finds the addresses of a host by its name.
pub type Resolver = Arc<
    dyn Fn(String, u16) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> + Send + Sync,
>;

/// How to connect.
#[derive(Clone)]
pub struct Settings {
    /// What is sent as `Authorization: Bearer …`.
    pub bearer: Option<String>,
    /// For the connection, TLS included.
    pub connect_timeout: Duration,
    /// For the websocket's handshake.
    pub handshake_timeout: Duration,
    /// Certificate authorities to trust instead of the system's, in PEM.
    pub authorities: Option<PathBuf>,
    /// Finds addresses; without it, only literal addresses and `localhost` lead anywhere.
    pub resolver: Option<Resolver>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bearer: None,
            connect_timeout: CONNECT,
            handshake_timeout: HANDSHAKE,
            authorities: None,
            resolver: None,
        }
    }
}

impl fmt::Debug for Settings {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bearer, connect_timeout, handshake_timeout, authorities, .. } = self;
        f.debug_struct("Settings")
            .field("has_bearer", &bearer.is_some())
            .field("connect_timeout", connect_timeout)
            .field("handshake_timeout", handshake_timeout)
            .field("authorities", authorities)
            .finish_non_exhaustive()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address that we know of.
    #[error("the host `{host}` has no known address: {why}")]
    Unresolved {
        /// The name.
        host: String,
        /// What the resolver says.
        why: String,
    },
    /// No address let us connect.
    #[error("could not connect to {url}: {source}")]
    Io {
        /// Where to.
        url: ConnectUrl,
        /// What the system says of the last address.
        source: io::Error,
    },
    /// It took too long.
    #[error("{url} did not answer within {limit:?}, {step}")]
    TimedOut {
        /// Where to.
        url: ConnectUrl,
        /// What took too long.
        step: &'static str,
        /// How long it may take.
        limit: Duration,
    },
    /// TLS can't be set up here.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server answered, but didn't agree.
    #[error("{url} refuses: {status} {message}")]
    Refused {
        /// Where to.
        url: ConnectUrl,
        /// HTTP status code.
        status: u16,
        /// The server's words, the first of them.
        message: String,
    },
    /// What answered is no websocket server.
    #[error("{url} does not speak WebSocket: {why}")]
    NotWebsocket {
        /// Where to.
        url: ConnectUrl,
        /// What it did.
        why: String,
    },
    /// The token can't stand in a header.
    #[error("the bearer token has characters that no header can have")]
    Bearer,
}

/// Connects, and does the websocket's handshake.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(url: &ConnectUrl, settings: &Settings) -> Result<Transport, ConnectError> {
    let limit = settings.connect_timeout;
    let late = |step, limit| move |_| ConnectError::TimedOut { url: url.clone(), step, limit };
    let io = |source| ConnectError::Io { url: url.clone(), source };
    match url.target() {
        Target::Unix(path) => {
            let connected = async { UnixStream::from_std(connect_to(path)?.into()) };
            http::upgrade(connected.await.map_err(io)?, url, settings).await
        }
        Target::Host { host, port, is_tls } => {
            let connected = timeout(limit, async {
                let stream = open(url, &addresses(host, *port, settings).await?).await?;
                // A peer that is gone already shows it soon enough.
                let _ = tcp::tune(&stream);
                if !is_tls {
                    return Ok::<_, ConnectError>((stream, None));
                }
                let name = ServerName::try_from(host.clone()).map_err(|error| ConnectError::Unresolved {
                    host: host.clone(),
                    why: error.to_string(),
                })?;
                Ok((stream, Some((tls_connector(settings).await?, name))))
            });
            let (stream, tls) = connected.await.map_err(late("to be connected", limit))??;
            let Some((connector, name)) = tls else { return http::upgrade(stream, url, settings).await };
            let secured = timeout(limit, connector.connect(name, stream)).await;
            let stream = secured.map_err(late("to agree on TLS", limit))?.map_err(io)?;
            http::upgrade(stream, url, settings).await
        }
    }
}

/// Tries the addresses in their order.
async fn open(url: &ConnectUrl, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(ConnectError::Io { url: url.clone(), source: last })
}

async fn addresses(host: &str, port: u16, settings: &Settings) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    // RFC 6761, 6.3: loopback, whatever a name server says.
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![([127, 0, 0, 1], port).into(), (std::net::Ipv6Addr::LOCALHOST, port).into()]);
    }
    let unresolved = |why: String| ConnectError::Unresolved { host: host.to_owned(), why };
    let Some(resolver) = &settings.resolver else {
        return Err(unresolved("nothing resolves names here".to_owned()));
    };
    let found = resolver(host.to_owned(), port).await.map_err(|error| unresolved(error.to_string()))?;
    if found.is_empty() { Err(unresolved("there is none".to_owned())) } else { Ok(found) }
}

async fn tls_connector(settings: &Settings) -> Result<TlsConnector, ConnectError> {
    let authorities = settings.authorities.clone();
    // Reads hundreds of certificates from files.
    let read = tokio::task::spawn_blocking(move || tls::client(authorities.as_deref())).await;
    let config = read.map_err(|error| TlsError::Unusable(error.to_string()))??;
    Ok(TlsConnector::from(config))
}
