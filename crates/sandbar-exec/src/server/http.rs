//! `http/request`: this machine's network for a client, as far as whoever runs the server allows.
//!
//! Off without a list of hosts. With one, each request and each redirect is checked against it; a name is resolved once, and
//! what is dialled is an address that was checked ([`allow`]). No proxy is used and no cookie kept. Everything has a
//! bound: requests at a time, bytes of a body, redirects, and time until an answer begins. The pieces of a streamed body
//! wait for the client, and end with its connection.

pub(super) mod allow;
mod message;

use std::collections::HashSet;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use sandbar_proto::EnvVar;
use sandbar_proto::exec::{
    Base64, HttpBodyDelta, HttpHeader, HttpRequestParams, HttpResponse, RedirectPolicy, method,
};
use sandbar_proto::rpc::{RpcError, code};
use sandbar_rpc::{Responder, Sender, tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::refusal;
use allow::{AllowedHost, Destination, Reach};
use message::Message;

/// Requests of one connection at a time, streams included; one more is refused.
const MAX_REQUESTS: usize = 32;

/// Redirects of one request, as browsers and the peer have it.
const MAX_REDIRECTS: usize = 10;

/// Most bytes of a body that comes with the answer, which in base64 has to fit into a message.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

/// Most bytes of a body that comes in pieces.
const MAX_STREAM_BYTES: usize = 1024 * 1024 * 1024;

/// Most bytes of one piece.
const PIECE_BYTES: usize = 64 * 1024;

/// How long a request may take that says nothing about it: more than a person waits.
const USUAL_TIMEOUT: Duration = Duration::from_secs(300);

/// Longest time that a request may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// The network of this machine, as far as it is lent. One for the server.
#[derive(Debug)]
pub(super) struct Http {
    allowed: Vec<AllowedHost>,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Http {
    pub(super) fn new(allowed: Vec<AllowedHost>) -> Self {
        Self { allowed, tls: OnceCell::new() }
    }

    /// Whether anything is allowed.
    pub(super) fn is_on(&self) -> bool {
        !self.allowed.is_empty()
    }

    /// Asks, along redirects, until an answer begins.
    async fn ask(&self, mut message: Message, redirects: RedirectPolicy) -> Result<Answer, RpcError> {
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.ask_once(&message).await?;
            let head = &answer.response;
            let next = match redirects {
                RedirectPolicy::Stop => None,
                RedirectPolicy::Follow => message.redirected(head.status(), head.headers())?,
            };
            match next {
                Some(next) => message = next,
                None => return Ok(answer),
            }
        }
        Err(failed("too many redirects"))
    }

    async fn ask_once(&self, message: &Message) -> Result<Answer, RpcError> {
        let to = message.destination()?;
        let Some(reach) = allow::reach(&self.allowed, &to) else {
            return Err(refusal::invalid(
                "not_allowed",
                format!("http/request may not reach {to}: it is not on the list of this exec server"),
            ));
        };
        let stream = dial(&to, reach).await?;
        if !to.is_tls {
            return exchange(stream, message).await;
        }
        let name = ServerName::try_from(to.host.clone()).map_err(failed)?;
        let connector = TlsConnector::from(Arc::clone(self.tls.get_or_try_init(trust).await?));
        exchange(connector.connect(name, stream).await.map_err(failed)?, message).await
    }
}

/// What one connection asks for.
#[derive(Debug)]
pub(super) struct ConnectionHttp {
    sender: Sender,
    places: Arc<Semaphore>,
    /// Names of streams whose pieces are on their way.
    streams: Arc<Mutex<HashSet<String>>>,
}

impl ConnectionHttp {
    pub(super) fn new(sender: Sender) -> Self {
        Self { sender, places: Arc::new(Semaphore::new(MAX_REQUESTS)), streams: Arc::default() }
    }

    /// Carries a request out and answers it.
    pub(super) async fn request(
        &self,
        http: &Http,
        env: &[EnvVar],
        params: Result<HttpRequestParams, RpcError>,
        responder: Responder,
    ) {
        let begun = match params {
            Ok(params) => self.begin(http, env, params).await,
            Err(error) => Err(error),
        };
        match begun {
            // A connection that ended needs no answer, and no pieces.
            Ok((response, stream)) => {
                if responder.data_ok(&response).await.is_ok()
                    && let Some(stream) = stream
                {
                    stream.run().await;
                }
            }
            Err(error) => responder.err(error),
        }
    }

    async fn begin(
        &self,
        http: &Http,
        env: &[EnvVar],
        params: HttpRequestParams,
    ) -> Result<(HttpResponse, Option<Stream>), RpcError> {
        let message = Message::read(&params, env)?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            refusal::invalid("too_many", format!("at most {MAX_REQUESTS} http/requests run at a time"))
        })?;
        let limit = params.timeout_ms.map_or(USUAL_TIMEOUT, Duration::from_millis).min(MAX_TIMEOUT);
        let end = Instant::now() + limit;
        let late = |_| failed(format!("it took longer than {limit:?}"));
        let name = params.stream_response.then(|| self.name(params.request_id)).transpose()?;
        let asked = async {
            tokio::select! {
                answer = timeout_at(end, http.ask(message, params.redirect_policy)) => answer.map_err(late)?,
                _ = self.sender.closed() => Err(failed("the client is gone")),
            }
        };
        let mut answer = asked.await?;
        let mut response = head(&answer.response);
        let Some(name) = name else {
            response.body_base64 = Base64(timeout_at(end, answer.body()).await.map_err(late)??);
            return Ok((response, None));
        };
        let stream = Stream { answer, name, sender: self.sender.clone(), _place: place };
        Ok((response, Some(stream)))
    }

    /// Takes a name for a stream.
    fn name(&self, name: String) -> Result<StreamName, RpcError> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if !streams.insert(name.clone()) {
            let message = format!("http/request {name:?} is on its way already");
            return Err(refusal::invalid("name_in_use", message));
        }
        Ok(StreamName { name, streams: Arc::clone(&self.streams) })
    }
}

/// The name of a stream, taken until this is dropped.
struct StreamName {
    name: String,
    streams: Arc<Mutex<HashSet<String>>>,
}

impl Drop for StreamName {
    fn drop(&mut self) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// A body that comes in pieces.
struct Stream {
    answer: Answer,
    name: StreamName,
    sender: Sender,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    /// Sends the pieces, at the pace of the client and for as long as it is connected.
    async fn run(mut self) {
        let mut seq = 0;
        let mut left = MAX_STREAM_BYTES;
        loop {
            let next = tokio::select! {
                next = self.answer.next() => next,
                _ = self.sender.closed() => return,
            };
            let (data, end) = match next {
                Ok(Some(data)) if data.len() > left => {
                    (Bytes::new(), Some(Some(format!("the body has more than {MAX_STREAM_BYTES} bytes"))))
                }
                Ok(Some(data)) => (data, None),
                Ok(None) => (Bytes::new(), Some(None)),
                Err(error) => (Bytes::new(), Some(Some(error.to_string()))),
            };
            left -= data.len();
            let is_over = end.is_some();
            let error = end.flatten();
            let pieces = if is_over { vec![data.as_ref()] } else { data.chunks(PIECE_BYTES).collect() };
            for piece in pieces {
                seq += 1;
                let delta = HttpBodyDelta {
                    request_id: self.name.name.clone(),
                    seq,
                    delta_base64: Base64(piece.to_vec()),
                    done: is_over,
                    error: error.clone(),
                };
                if self.sender.data_notification(method::HTTP_BODY_DELTA, &delta).await.is_err() {
                    return;
                }
            }
            if is_over {
                return;
            }
        }
    }
}

/// An answer whose body is still to come.
struct Answer {
    response: Response<Incoming>,
    /// Drives the connection, and ends with this.
    _driver: JoinSet<()>,
}

impl Answer {
    /// What comes next of the body.
    async fn next(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        loop {
            let body = self.response.body_mut();
            match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
                None => return Ok(None),
                Some(frame) => {
                    // Trailers have no place in the dialect.
                    if let Ok(data) = frame?.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// All of the body.
    async fn body(&mut self) -> Result<Vec<u8>, RpcError> {
        let broken = |why: &dyn std::fmt::Display| {
            let text = format!("failed to read http/request response body: {why}");
            RpcError::with_kind(code::INTERNAL, "http", text)
        };
        let mut all = Vec::new();
        while let Some(data) = self.next().await.map_err(|error| broken(&error))? {
            if all.len() + data.len() > MAX_BODY_BYTES {
                return Err(broken(&format!(
                    "it has more than {MAX_BODY_BYTES} bytes; ask for it in pieces"
                )));
            }
            all.extend_from_slice(&data);
        }
        Ok(all)
    }
}

fn failed(why: impl std::fmt::Display) -> RpcError {
    RpcError::with_kind(code::INTERNAL, "http", format!("http/request failed: {why}"))
}

fn head(response: &Response<Incoming>) -> HttpResponse {
    let header = |(name, value): (&hyper::header::HeaderName, &HeaderValue)| HttpHeader {
        name: name.as_str().to_owned(),
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
        value_env_var: None,
    };
    HttpResponse {
        status: response.status().as_u16(),
        headers: response.headers().iter().map(header).collect(),
        body_base64: Base64::default(),
    }
}

/// Connects to an address that `reach` contains, and to no other.
async fn dial(to: &Destination, reach: Reach) -> Result<TcpStream, RpcError> {
    let addresses: Vec<IpAddr> = match reach {
        Reach::Only(address) => vec![address],
        // RFC 6761, 6.3: loopback, whatever a name server says.
        Reach::Loopback => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        Reach::Public => {
            let found = tokio::net::lookup_host((to.host.as_str(), to.port)).await.map_err(failed)?;
            found.map(|address| address.ip()).collect()
        }
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut is_any_allowed = false;
    for address in addresses.into_iter().filter(|address| reach.contains(*address)) {
        is_any_allowed = true;
        match TcpStream::connect(SocketAddr::new(address, to.port)).await {
            Ok(stream) => {
                // One that is gone already shows it soon enough.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    if is_any_allowed {
        return Err(failed(last));
    }
    let message = format!("http/request may not reach {to}: its name leads to no public address");
    Err(refusal::invalid("not_allowed", message))
}

/// Trusts those that the system trusts, whose certificates are read from files.
async fn trust() -> Result<Arc<ClientConfig>, RpcError> {
    let config = tokio::task::spawn_blocking(|| tls::client(None)).await.map_err(failed)?;
    config.map_err(failed)
}

/// Asks over a stream of its own.
async fn exchange<S>(stream: S, message: &Message) -> Result<Answer, RpcError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let path = message.url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(message.method.clone()).uri(path);
    if let Some(headers) = request.headers_mut() {
        headers.clone_from(&message.headers);
        let authority = message.url.authority().map_or("", |authority| authority.as_str());
        headers.insert(HOST, HeaderValue::try_from(authority).map_err(failed)?);
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    }
    let body = Whole(Some(Bytes::from(message.body.clone())).filter(|body| !body.is_empty()));
    let request = request.body(body).map_err(failed)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // What breaks shows in the answer.
        let _ = connection.await;
    });
    let response = sender.send_request(request).await.map_err(failed)?;
    Ok(Answer { response, _driver: driver })
}

/// A body that is there already.
struct Whole(Option<Bytes>);

impl hyper::body::Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(|data| Ok(hyper::body::Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.0.as_ref().map_or(0, |data| data.len() as u64))
    }
}
