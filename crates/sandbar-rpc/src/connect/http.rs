//! The client's side of the websocket's handshake (RFC 6455, 4.1).

use std::future::poll_fn;
use std::pin::Pin;

use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ConnectError, ConnectUrl, Settings};
use crate::transport::websocket::{self, handshake};
use crate::transport::{Side, Transport};

/// Bytes of a refusal that are kept for the person who reads it.
const WORDS: usize = 512;

/// Makes a websocket of a stream.
pub(super) async fn upgrade<S>(
    stream: S,
    url: &ConnectUrl,
    settings: &Settings,
) -> Result<Transport, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let limit = settings.handshake_timeout;
    let agreed = timeout(limit, agree(stream, url, settings)).await;
    agreed.map_err(|_| ConnectError::TimedOut { url: url.clone(), step: "to agree to a websocket", limit })?
}

async fn agree<S>(stream: S, url: &ConnectUrl, settings: &Settings) -> Result<Transport, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let not_websocket = |why: String| ConnectError::NotWebsocket { url: url.clone(), why };
    let broken = |error: hyper::Error| not_websocket(error.to_string());
    let key = handshake::key().map_err(|source| ConnectError::Io { url: url.clone(), source })?;
    let request = request(url, settings, &key)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Drives the connection until it is a websocket, and no longer than this function runs.
    let mut driver = JoinSet::new();
    driver.spawn(connection.with_upgrades());
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status().as_u16();
        return Err(ConnectError::Refused { url: url.clone(), status, message: words(response).await });
    }
    let headers = response.headers();
    let accept = headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    if !handshake::upgrades(headers)
        || accept != handshake::accept(key.as_bytes()).as_deref().map(str::as_bytes)
    {
        return Err(not_websocket("its answer doesn't fit the handshake".to_owned()));
    }
    let parts = hyper::upgrade::on(response).await.map_err(broken)?.downcast::<TokioIo<S>>();
    let parts = parts.map_err(|_| not_websocket("its stream got lost".to_owned()))?;
    let stream = parts.io.into_inner();
    Ok(websocket::transport(stream, &parts.read_buf, Side::Client, url.to_string()))
}

fn request(url: &ConnectUrl, settings: &Settings, key: &str) -> Result<Request<String>, ConnectError> {
    let mut request = Request::get(url.path())
        .header(HOST, url.authority())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, handshake::VERSION)
        .header(SEC_WEBSOCKET_KEY, key)
        .body(String::new())
        .map_err(|error| ConnectError::NotWebsocket { url: url.clone(), why: error.to_string() })?;
    if let Some(bearer) = &settings.bearer {
        let mut value =
            HeaderValue::try_from(format!("Bearer {bearer}")).map_err(|_| ConnectError::Bearer)?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

/// The first words of an answer's body.
async fn words(response: Response<Incoming>) -> String {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while bytes.len() < WORDS
        && let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        bytes.extend(frame.into_data().unwrap_or_default());
    }
    bytes.truncate(WORDS);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
