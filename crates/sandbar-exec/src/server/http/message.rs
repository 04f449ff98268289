//! What a request says, as far as it can be decided without a network. Pure.

use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, StatusCode, Uri};
use sandbar_proto::EnvVar;
use sandbar_proto::exec::{HttpHeader, HttpRequestParams};
use sandbar_proto::rpc::RpcError;

use super::allow::Destination;
use crate::server::refusal;

/// Most headers of a request.
const MAX_HEADERS: usize = 100;

/// Variables that no request gets, besides those that begin with one of [`OWN_PREFIXES`]: the peer's list.
const WITHHELD: [&str; 3] = ["OPENAI_API_KEY", "CODEX_API_KEY", "CODEX_ACCESS_TOKEN"];

/// Beginnings of the names of variables that no request gets: a cloud's credentials, and our own.
const OWN_PREFIXES: [&str; 2] = ["AWS_", "SANDBAR_"];

/// Headers that belong to a connection. Another host's name in one would lead past the list.
const CONNECTIONS_OWN: [HeaderName; 8] =
    [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE, TE, TRAILER, PROXY_AUTHORIZATION];

/// A request on its way, from one redirect to the next.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Headers whose values come from this machine.
    secret: Vec<HeaderName>,
}

impl Message {
    /// Reads a request; `env` is this machine's environment.
    ///
    /// # Errors
    /// A part of it means nothing, or a variable can't be had.
    pub(super) fn read(params: &HttpRequestParams, env: &[EnvVar]) -> Result<Self, RpcError> {
        let wrong = |what: &str| refusal::params(format!("http/request {what}"));
        let method = Method::from_bytes(params.method.as_bytes());
        let method = method.map_err(|error| wrong(&format!("method is invalid: {error}")))?;
        if method == Method::CONNECT {
            return Err(wrong("method is invalid: CONNECT makes a tunnel"));
        }
        let url: Uri = params.url.parse().map_err(|error| wrong(&format!("url is invalid: {error}")))?;
        let mut message = Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: params.body_base64.clone().unwrap_or_default().0,
            secret: Vec::new(),
        };
        message.destination()?;
        if params.headers.len() > MAX_HEADERS {
            return Err(wrong(&format!("has more than {MAX_HEADERS} headers")));
        }
        for header in &params.headers {
            message.add(header, env)?;
        }
        Ok(message)
    }

    fn add(&mut self, header: &HttpHeader, env: &[EnvVar]) -> Result<(), RpcError> {
        let wrong = |what: String| refusal::params(format!("http/request header {what}"));
        let name = HeaderName::try_from(header.name.as_str());
        let name = name.map_err(|error| wrong(format!("name is invalid: {error}")))?;
        if CONNECTIONS_OWN.contains(&name) {
            return Err(wrong(format!("{} belongs to the connection and can't be set", header.name)));
        }
        let mut value = header.value.clone().into_bytes();
        if let Some(variable) = &header.value_env_var {
            value.extend(variable_of(&header.name, variable, env)?);
            self.secret.push(name.clone());
        }
        let mut value = HeaderValue::try_from(value)
            .map_err(|error| wrong(format!("value is invalid for {}: {error}", header.name)))?;
        value.set_sensitive(header.value_env_var.is_some());
        self.headers.append(name, value);
        Ok(())
    }

    /// Where it goes.
    ///
    /// # Errors
    /// Nowhere that is reached by HTTP.
    pub(super) fn destination(&self) -> Result<Destination, RpcError> {
        let wrong = |what: &str| refusal::params(format!("http/request {what}"));
        let is_tls = match self.url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(other) => return Err(wrong(&format!("only supports http and https URLs, got {other}"))),
            None => return Err(wrong("url is invalid: relative URL without a base")),
        };
        let authority = self.url.authority().ok_or_else(|| wrong("url is invalid: it has no host"))?;
        // They would be in logs; a header says the same.
        if authority.as_str().contains('@') {
            return Err(wrong("url has credentials, which belong into a header"));
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if host.is_empty() {
            return Err(wrong("url is invalid: it has no host"));
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // What stands there and is no number is no port.
            None if authority.as_str().ends_with(authority.host()) => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            None => return Err(wrong("url is invalid: invalid port number")),
        };
        Ok(Destination { is_tls, host, port })
    }

    /// The request that a redirect leads to; nothing if the answer is none.
    ///
    /// # Errors
    /// It leads nowhere that is reached by HTTP.
    pub(super) fn redirected(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<Option<Self>, RpcError> {
        let location = headers.get(hyper::header::LOCATION);
        let (true, Some(location)) = (matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308), location)
        else {
            return Ok(None);
        };
        let wrong = || refusal::invalid("http", "http/request failed: the redirect leads nowhere");
        let location = location.to_str().map_err(|_| wrong())?;
        let mut next = Self { url: joined(&self.url, location).ok_or_else(wrong)?, ..self.clone() };
        let becomes_get = match status.as_u16() {
            301 | 302 => self.method == Method::POST,
            303 => self.method != Method::HEAD,
            _ => false,
        };
        if becomes_get {
            next.method = Method::GET;
            next.body.clear();
            for name in ["content-type", "content-encoding", "content-language", "content-location"] {
                next.headers.remove(name);
            }
        }
        if next.destination()? != self.destination()? {
            for name in [AUTHORIZATION, COOKIE].iter().chain(&self.secret) {
                next.headers.remove(name);
            }
        }
        Ok(Some(next))
    }
}

/// The value of a variable of this machine.
fn variable_of(header: &str, variable: &str, env: &[EnvVar]) -> Result<Vec<u8>, RpcError> {
    let wrong = |what: &str| {
        let text = format!("http/request header {header} {what} executor environment variable {variable}");
        refusal::params(text)
    };
    let upper = variable.to_ascii_uppercase();
    if WITHHELD.contains(&upper.as_str()) || OWN_PREFIXES.iter().any(|prefix| upper.starts_with(prefix)) {
        return Err(wrong("cannot use"));
    }
    let found = env.iter().find(|var| var.name.as_bytes() == variable.as_bytes());
    let value = found.ok_or_else(|| wrong("requires"))?.value.as_bytes();
    if value.is_empty() { Err(wrong("requires a non-empty")) } else { Ok(value.to_vec()) }
}

/// Where a `Location` leads from `base` (RFC 3986, 5.2, without the dots, which servers resolve).
fn joined(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let path = base.path();
    let is_absolute = location.split_once("://").is_some_and(|(scheme, _)| {
        scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    });
    let text = if is_absolute {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') || location.is_empty() {
        format!("{scheme}://{authority}{path}{location}")
    } else {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_proto::exec::{Base64, RedirectPolicy};

    fn params(method: &str, url: &str) -> HttpRequestParams {
        HttpRequestParams {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body_base64: None,
            timeout_ms: None,
            redirect_policy: RedirectPolicy::Follow,
            request_id: "1".to_owned(),
            stream_response: false,
        }
    }

    fn header(name: &str, value: &str, variable: Option<&str>) -> HttpHeader {
        let value_env_var = variable.map(str::to_owned);
        HttpHeader { name: name.to_owned(), value: value.to_owned(), value_env_var }
    }

    fn env() -> Vec<EnvVar> {
        let var = |name: &str, value: &str| EnvVar { name: name.into(), value: value.into() };
        vec![
            var("TOKEN", "secret"),
            var("EMPTY", ""),
            var("AWS_SECRET_ACCESS_KEY", "k"),
            var("BROKEN", "a\nb"),
        ]
    }

    fn destination(url: &str) -> Result<String, String> {
        let read = Message::read(&params("GET", url), &[]).map_err(|error| error.message)?;
        read.destination().map(|to| to.to_string()).map_err(|error| error.message)
    }

    #[test]
    fn only_urls_that_lead_to_a_host_are_taken() {
        assert_eq!(destination("http://A.example./x?y#z").as_deref(), Ok("a.example:80"));
        assert_eq!(destination("https://a.example").as_deref(), Ok("a.example:443"));
        assert_eq!(destination("http://[::1]:8080/").as_deref(), Ok("::1:8080"));
        for url in [
            "ftp://a/",
            "/x",
            "a",
            "http://",
            "http://u:p@a/",
            "http://a:99999/",
            "http://a b/",
            "http://a:x/",
        ] {
            assert!(destination(url).is_err(), "{url}");
        }
        assert!(Message::read(&params("CONNECT", "http://a/"), &[]).is_err());
        assert!(Message::read(&params("G T", "http://a/"), &[]).is_err());
    }

    #[test]
    fn a_header_may_end_with_a_variable_but_with_no_credential_of_this_machine() {
        let with = |header: HttpHeader| {
            let params = HttpRequestParams { headers: vec![header], ..params("GET", "http://a/") };
            Message::read(&params, &env()).map(|message| message.headers).map_err(|error| error.message)
        };
        let headers = with(header("Authorization", "Bearer ", Some("TOKEN"))).unwrap();
        assert_eq!(headers["authorization"], "Bearer secret");
        assert!(headers["authorization"].is_sensitive());
        for variable in
            ["EMPTY", "NOPE", "", "AWS_SECRET_ACCESS_KEY", "aws_session_token", "OPENAI_API_KEY", "BROKEN"]
        {
            assert!(with(header("A", "", Some(variable))).is_err(), "{variable}");
        }
        for (name, value) in
            [("Host", "b"), ("content-length", "3"), ("A B", ""), ("A", "b\nc"), ("Upgrade", "h2c")]
        {
            assert!(with(header(name, value, None)).is_err(), "{name}: {value}");
        }
    }

    fn redirected(from: &str, method: &str, status: u16, location: &str) -> Option<Message> {
        let params = HttpRequestParams {
            headers: vec![
                header("Authorization", "b", None),
                header("X-Key", "", Some("TOKEN")),
                header("Accept", "*/*", None),
                header("Content-Type", "text/plain", None),
            ],
            body_base64: Some(Base64(b"body".to_vec())),
            ..params(method, from)
        };
        let message = Message::read(&params, &env()).unwrap();
        let headers = HeaderMap::from_iter([(hyper::header::LOCATION, location.parse().unwrap())]);
        message.redirected(StatusCode::from_u16(status).unwrap(), &headers).unwrap()
    }

    #[test]
    fn a_redirect_leads_where_its_location_says() {
        let to = |location: &str| redirected("http://a/b/c?d", "GET", 302, location).unwrap().url.to_string();
        assert_eq!(to("/x"), "http://a/x");
        assert_eq!(to("x?y#z"), "http://a/b/x?y");
        assert_eq!(to("?y"), "http://a/b/c?y");
        assert_eq!(to("//e/x"), "http://e/x");
        assert_eq!(to("https://e/x"), "https://e/x");
        assert_eq!(to("x?back=http://e/x"), "http://a/b/x?back=http://e/x");
        assert!(redirected("http://a/", "GET", 200, "/x").is_none());
    }

    #[test]
    fn what_a_redirect_keeps_depends_on_its_status_and_its_host() {
        let same = redirected("http://a/", "POST", 307, "/x").unwrap();
        assert_eq!(
            (same.method, same.body.as_slice(), same.headers.len()),
            (Method::POST, b"body".as_slice(), 4)
        );
        let get = redirected("http://a/", "POST", 302, "/x").unwrap();
        assert_eq!((get.method, get.body.len(), get.headers.len()), (Method::GET, 0, 3));
        for other in ["http://b/x", "https://a/x", "http://a:81/x"] {
            let away = redirected("http://a/", "PUT", 308, other).unwrap();
            let mut names: Vec<&str> = away.headers.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!((away.method, names), (Method::PUT, vec!["accept", "content-type"]), "{other}");
        }
    }
}
