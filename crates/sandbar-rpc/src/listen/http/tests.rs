use super::*;
use crate::auth::{Auth, TokenSource};

const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn door(auth: &Auth) -> Door {
    Door {
        verifier: Verifier::new(auth).unwrap(),
        origins: vec!["https://allowed.example".to_owned()],
        metrics: Some(Arc::new(|| "connections 1\n".to_owned())),
        checks_host: matches!(auth, Auth::None),
    }
}

fn guarded() -> Door {
    door(&Auth::CapabilityToken(TokenSource::from_sha256_hex(HASH).unwrap()))
}

type Headers<'a> = &'a [(&'a str, &'a str)];

/// What a handshake has, and headers on top; an empty value takes one away.
fn request(method: &str, path: &str, headers: Headers<'_>) -> Request<()> {
    let mut request = Request::builder().method(method).uri(path).body(()).unwrap();
    let handshake = [
        ("host", "127.0.0.1:1"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (name, value) in handshake.iter().chain(headers) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        match *value {
            "" => drop(request.headers_mut().remove(name)),
            value => drop(request.headers_mut().insert(name, value.parse().unwrap())),
        }
    }
    request
}

/// The status and the words of the answer.
fn judged(door: &Door, request: &Request<()>) -> (u16, String) {
    match door.judge(request, None, SystemTime::now()) {
        Ok((key, _)) => (101, key.to_str().unwrap().to_owned()),
        Err(response) => (response.status().as_u16(), response.into_body()),
    }
}

const TOKEN: (&str, &str) = ("authorization", "Bearer test");

#[test]
fn each_request_gets_its_answer() {
    let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    let web = "requests of web pages are refused";
    let table: &[(&str, &str, Headers<'_>, u16, &str)] = &[
        ("GET", "/", &[TOKEN], 101, accept),
        ("GET", "/?token=test", &[], 401, "missing websocket bearer token"),
        ("GET", "/?a=b", &[TOKEN], 101, accept),
        ("GET", "/", &[], 401, "missing websocket bearer token"),
        ("GET", "/", &[("authorization", "Bearer wrong")], 401, "invalid websocket bearer token"),
        ("GET", "/", &[("authorization", "Basic dGVzdA==")], 401, "invalid authorization header"),
        ("GET", "/", &[TOKEN, ("origin", "https://evil.example")], 403, web),
        ("GET", "/", &[TOKEN, ("origin", "null")], 403, web),
        ("GET", "/readyz", &[("origin", "http://127.0.0.1:1")], 403, web),
        ("GET", "/", &[TOKEN, ("origin", "https://allowed.example")], 101, accept),
        ("GET", "/", &[TOKEN, ("origin", "https://allowed.example.evil.example")], 403, web),
        ("GET", "/", &[("origin", "https://allowed.example")], 401, "missing websocket bearer token"),
        ("GET", "/readyz", &[], 200, ""),
        ("POST", "/readyz", &[], 405, ""),
        ("GET", "/metrics", &[], 401, "missing websocket bearer token"),
        ("GET", "/metrics", &[TOKEN], 200, "connections 1\n"),
        ("GET", "/other", &[TOKEN], 404, ""),
        ("GET", "/healthz", &[], 404, ""),
        ("GET", "/readyz/", &[], 404, ""),
        ("POST", "/", &[TOKEN], 405, ""),
        ("GET", "/", &[TOKEN, ("upgrade", "")], 426, "only websockets"),
        ("GET", "/", &[TOKEN, ("connection", "keep-alive")], 426, "only websockets"),
        ("GET", "/", &[TOKEN, ("sec-websocket-version", "8")], 426, "only version 13 of websockets"),
        ("GET", "/", &[TOKEN, ("sec-websocket-version", "")], 426, "only version 13 of websockets"),
        ("GET", "/", &[TOKEN, ("sec-websocket-key", "")], 400, "invalid websocket key"),
        ("GET", "/", &[TOKEN, ("sec-websocket-key", "short")], 400, "invalid websocket key"),
    ];
    let door = guarded();
    for (method, path, headers, status, words) in table {
        let found = judged(&door, &request(method, path, headers));
        assert_eq!(found, (*status, (*words).to_owned()), "{method} {path} {headers:?}");
    }
}

#[test]
fn without_a_token_the_host_must_be_this_one() {
    let door = door(&Auth::None);
    let table = [
        ("127.0.0.1:4000", 101),
        ("127.0.0.1", 101),
        ("localhost:4000", 101),
        ("LOCALHOST", 101),
        ("[::1]:4000", 101),
        ("[::1]", 101),
        ("evil.example", 403),
        ("evil.example:4000", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:80", 403),
        ("[evil]:1", 403),
    ];
    for (host, status) in table {
        assert_eq!(judged(&door, &request("GET", "/", &[("host", host)])).0, status, "{host}");
        assert_eq!(
            judged(&door, &request("GET", "/metrics", &[("host", host)])).0 == 403,
            status == 403,
            "{host}"
        );
    }
}

#[test]
fn whom_the_kernel_named_needs_no_token() {
    let door = guarded();
    let named = Principal::new("uid:1");
    let judged = door.judge(&request("GET", "/", &[]), Some(&named), SystemTime::now());
    assert_eq!(judged.ok().map(|(_, principal)| principal), Some(named));
}

#[test]
fn refusals_say_how_to_ask() {
    let door = guarded();
    let header = |request: &Request<()>, name: HeaderName| {
        let response = door.judge(request, None, SystemTime::now()).err().unwrap();
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    let missing = request("GET", "/", &[]);
    assert_eq!(header(&missing, WWW_AUTHENTICATE).as_deref(), Some("Bearer"));
    assert_eq!(header(&missing, CONTENT_TYPE).as_deref(), Some("text/plain; charset=utf-8"));
    let old = request("GET", "/", &[TOKEN, ("sec-websocket-version", "8")]);
    assert_eq!(header(&old, SEC_WEBSOCKET_VERSION).as_deref(), Some("13"));
    let metrics = request("GET", "/metrics", &[TOKEN]);
    assert_eq!(header(&metrics, CONTENT_TYPE).as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
}

fn guest() -> Guest {
    Guest { principal: None, peer: "a test".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_become_a_websocket_in_time_is_given_up() {
    for said in ["", "GET / HTTP/1.1\r\nhost: 127", "GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"] {
        let (near, mut far) = tokio::io::duplex(4096);
        tokio::io::AsyncWriteExt::write_all(&mut far, said.as_bytes()).await.unwrap();
        let begin = tokio::time::Instant::now();
        assert!(greet(near, Arc::new(guarded()), guest()).await.is_none());
        assert_eq!(begin.elapsed(), HANDSHAKE, "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_without_end_is_given_up_at_once() {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let head = format!("GET / HTTP/1.1\r\nhost: {}", "x".repeat(HEAD));
    tokio::io::AsyncWriteExt::write_all(&mut far, head.as_bytes()).await.unwrap();
    let begin = tokio::time::Instant::now();
    assert!(greet(near, Arc::new(guarded()), guest()).await.is_none());
    assert_eq!(begin.elapsed(), Duration::ZERO);
}
