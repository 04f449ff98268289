//! The HTTP side of a listener: who may pass, what may be asked for, and the upgrade to a websocket.
//!
//! In this order: an `Origin` means a web page, and none has business here; then the path; then authentication; then
//! the upgrade. A connection is given up when it has not become a websocket in time.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hyper::body::Incoming as Body;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::{Incoming, Metrics};
use crate::auth::{Denied, Principal, Verifier};
use crate::transport::Side;
use crate::transport::websocket::{self, handshake};

/// How long a connection may take to become a websocket, TLS included; whoever scrapes metrics connects again.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Largest head of a request: a header of 8 KiB is as large as common servers take.
const HEAD: usize = 16 * 1024;

/// What a listener's HTTP side decides by.
pub(super) struct Door {
    pub(super) verifier: Verifier,
    pub(super) origins: Vec<String>,
    pub(super) metrics: Option<Metrics>,
    /// Whether a web page could get here under a name of its own, because nothing but the address guards us.
    pub(super) checks_host: bool,
}

/// A connection that was accepted.
pub(super) struct Guest {
    /// Whom the kernel named.
    pub(super) principal: Option<Principal>,
    /// Who it is, for messages.
    pub(super) peer: String,
}

/// Boxed because it is large and most often the other way out.
type Answer = Box<Response<String>>;

/// What a request turned into: the websocket to be, and whose it is.
type Passed = Arc<Mutex<Option<(OnUpgrade, Principal)>>>;

/// Speaks HTTP until the connection is a websocket or is over.
pub(super) async fn greet<S>(stream: S, door: Arc<Door>, guest: Guest) -> Option<Incoming>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let passed = Passed::default();
    let service = service_fn(|request| {
        let response = door.answer(request, guest.principal.as_ref(), &passed);
        async move { Ok::<_, Infallible>(*response) }
    });
    let connection = http1::Builder::new()
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // How a connection that became nothing went wrong is its peer's affair.
    timeout(HANDSHAKE, connection).await.ok()?.ok()?;
    let (upgrade, principal) = passed.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let parts = upgrade.await.ok()?.downcast::<TokioIo<S>>().ok()?;
    let peer = guest.peer;
    let transport = websocket::transport(parts.io.into_inner(), &parts.read_buf, Side::Server, peer.clone());
    Some(Incoming { transport, principal, peer })
}

impl Door {
    fn answer(&self, mut request: Request<Body>, known: Option<&Principal>, passed: &Passed) -> Answer {
        let (key, principal) = match self.judge(&request, known, SystemTime::now()) {
            Ok(found) => found,
            Err(response) => return response,
        };
        let upgrade = hyper::upgrade::on(&mut request);
        *passed.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, principal));
        let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, key);
        response
    }

    /// Decides what becomes of a request: the key's answer and whose the websocket will be, or what is answered instead.
    fn judge<B>(
        &self,
        request: &Request<B>,
        known: Option<&Principal>,
        now: SystemTime,
    ) -> Result<(HeaderValue, Principal), Answer> {
        let headers = request.headers();
        for origin in headers.get_all(ORIGIN) {
            let is_allowed = self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
            if !is_allowed {
                return Err(text(StatusCode::FORBIDDEN, "requests of web pages are refused"));
            }
        }
        if self.checks_host && !headers.get_all(HOST).iter().all(names_this_host) {
            return Err(text(StatusCode::FORBIDDEN, "the host is neither an address nor localhost"));
        }
        let path = request.uri().path();
        if !matches!(path, "/" | "/readyz" | "/metrics") {
            return Err(empty(StatusCode::NOT_FOUND));
        }
        if request.method() != Method::GET {
            return Err(empty(StatusCode::METHOD_NOT_ALLOWED));
        }
        if path == "/readyz" {
            return Err(empty(StatusCode::OK));
        }
        let principal = match known {
            Some(principal) => principal.clone(),
            None => self.verifier.verify(headers, now).map_err(unauthorized)?,
        };
        if path == "/metrics" {
            return Err(self.metrics());
        }
        if !handshake::upgrades(headers) {
            return Err(with(text(StatusCode::UPGRADE_REQUIRED, "only websockets"), UPGRADE, "websocket"));
        }
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != handshake::VERSION) {
            let response = text(StatusCode::UPGRADE_REQUIRED, "only version 13 of websockets");
            return Err(with(response, SEC_WEBSOCKET_VERSION, handshake::VERSION));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| handshake::accept(key.as_bytes()));
        let key = key.and_then(|key| HeaderValue::try_from(key).ok());
        key.map(|key| (key, principal)).ok_or_else(|| text(StatusCode::BAD_REQUEST, "invalid websocket key"))
    }

    fn metrics(&self) -> Answer {
        let Some(metrics) = &self.metrics else { return empty(StatusCode::NOT_FOUND) };
        let mut response = Box::new(Response::new(metrics()));
        // Prometheus' text format.
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

/// A name of another host that leads here is a web page's way around the check of its origin.
fn names_this_host(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn unauthorized(denied: Denied) -> Answer {
    with(text(StatusCode::UNAUTHORIZED, &denied.to_string()), WWW_AUTHENTICATE, "Bearer")
}

fn empty(status: StatusCode) -> Answer {
    let mut response = Box::new(Response::new(String::new()));
    *response.status_mut() = status;
    response
}

fn text(status: StatusCode, words: &str) -> Answer {
    let mut response = Box::new(Response::new(words.to_owned()));
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with(mut response: Answer, name: HeaderName, value: &'static str) -> Answer {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests;
