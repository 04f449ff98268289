//! Who gets in, and what is told to whom does not: the HTTP side of a server.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use sandbar_testkit::{Finished, need};
use serde_json::{Value, json};

use super::client::Client;
use super::server::{Over, Server};

/// Longer than the shortest secret that is taken.
const SECRET: &str = "a secret of at least thirty-two bytes";

fn server(over: Over) -> Server {
    Server::start(over).unwrap()
}

/// The status, the headers and the body of `GET`.
fn get(server: &Server, path: &str, headers: &[&str]) -> (u16, String, String) {
    let mut stream = server.stream();
    let host =
        if headers.iter().any(|header| header.starts_with("Host:")) { "" } else { "Host: 127.0.0.1\r\n" };
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    write!(stream, "GET {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn status(server: &Server, path: &str, headers: &[&str]) -> u16 {
    get(server, path, headers).0
}

#[test]
fn anybody_may_ask_whether_a_server_is_ready_and_there_is_no_other_page() {
    for over in [Over::Unix, Over::Token, Over::Open] {
        let server = server(over);
        assert_eq!(get(&server, "/readyz", &[]).0, 200, "{over:?}");
        assert_eq!(get(&server, "/readyz", &[]).2, "", "{over:?}");
        for path in ["/healthz", "/index.html", "/readyz/"] {
            assert_eq!(status(&server, path, &[]), 404, "{over:?} {path}");
        }
    }
}

#[test]
fn the_peer_is_ready_in_the_same_words() {
    let server = need!(Server::start(Over::Codex));
    assert_eq!((get(&server, "/readyz", &[]).0, status(&server, "/healthz", &[])), (200, 404));
    assert_eq!(status(&server, "/", &["Origin: http://page.example"]), 403);
}

#[test]
fn web_pages_are_refused_whatever_they_know() {
    for over in [Over::Unix, Over::Token, Over::Open] {
        let server = server(over);
        for path in ["/", "/readyz", "/metrics"] {
            assert_eq!(status(&server, path, &["Origin: http://127.0.0.1"]), 403, "{over:?} {path}");
        }
    }
    // A name that leads here is a web page's way around that.
    let open = server(Over::Open);
    assert_eq!(status(&open, "/readyz", &["Host: page.example"]), 403);
    let named = Server::start_with(Over::Open, &["--allow-origin", "http://page.example"]).unwrap();
    assert_eq!(status(&named, "/readyz", &["Origin: http://page.example"]), 200);
    assert_eq!(status(&named, "/readyz", &["Origin: http://page.example.org"]), 403);
}

#[test]
fn without_the_token_there_is_a_word_and_nothing_else() {
    let server = server(Over::Token);
    let token = std::fs::read_to_string(server.home.sandbar_home().join("own.token")).unwrap();
    let token = token.trim();
    let twice = format!("Authorization: Bearer {token}");
    let cases: [(&[&str], &str); 6] = [
        (&[], "missing websocket bearer token"),
        (&["Authorization: Bearer x"], "invalid websocket bearer token"),
        (&["Authorization: Basic x"], "invalid authorization header"),
        (&["Authorization: Bearer"], "invalid authorization header"),
        (&["Authorization: Bearer "], "invalid authorization header"),
        (&[&twice, &twice], "invalid authorization header"),
    ];
    for path in ["/", "/metrics"] {
        for (headers, words) in cases {
            let (status, _, body) = get(&server, path, headers);
            assert_eq!((status, body.as_str()), (401, words), "{path} {headers:?}");
        }
        // Not from the URL.
        assert_eq!(status(&server, &format!("{path}?token={token}"), &[]), 401);
    }
    let mode = std::fs::metadata(server.home.sandbar_home().join("own.token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(status(&server, "/metrics", &[&twice]), 200);
    assert_eq!(status(&server, "/", &[&twice]), 426, "who may come in and speaks no websocket");
}

#[test]
fn a_token_may_be_known_by_its_hash() {
    // sha256sum of "token".
    let hash = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";
    let home = sandbar_testkit::Home::new(env!("CARGO_BIN_EXE_sandbar"));
    let listen = ["serve", "--listen", "ws://127.0.0.1:0", "--ws-token-sha256", hash];
    let mut running = sandbar_testkit::Running::start(&mut home.sandbar(&listen));
    let url = running.line();
    let connect = |token: &str| {
        let stream = std::net::TcpStream::connect(url.strip_prefix("ws://").unwrap()).unwrap();
        Client::upgrade(Box::new(stream), Some(token)).map(|_| ()).is_ok()
    };
    assert_eq!((connect("token"), connect("tokem")), (true, false));
}

#[test]
fn metrics_count_what_there_is() {
    let server = server(Over::Open);
    let mut client = server.ready();
    client.ask("process/start", &server.shell_with("p", "cat", &json!({"pipeStdin": true})));
    let (status, head, body) = get(&server, "/metrics", &[]);
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let values: Vec<&str> = body.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = [
        "sandbar_sessions 1",
        "sandbar_sessions_attached 1",
        "sandbar_processes_running 1",
        "sandbar_processes_remembered 1",
    ];
    assert_eq!(values, expected);
}

#[test]
fn nothing_listens_beyond_this_machine_without_a_token() {
    let home = sandbar_testkit::Home::new(env!("CARGO_BIN_EXE_sandbar"));
    for address in ["0.0.0.0:0", "[::]:0"] {
        let refused = home.finish(&["serve", "--listen", &format!("ws://{address}"), "--ws-auth", "none"]);
        assert_eq!((refused.code, refused.out().as_str()), (Some(1), ""), "{refused:?}");
        assert!(refused.err().contains("leave --ws-auth none out, or listen on 127.0.0.1"), "{refused:?}");
    }
    let refused = home.finish(&["serve", "--listen", "ws://localhost:1"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let Finished { code, .. } = home.finish(&["serve", "--listen", "tcp://127.0.0.1:1"]);
    assert_eq!(code, Some(2));
}

/// A JSON Web Token as RFC 7519 writes it.
fn signed(header: &Value, claims: &Value, secret: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes())))
}

#[test]
fn signed_tokens_are_believed_by_their_signature_time_issuer_and_audience() {
    let home = sandbar_testkit::Home::new(env!("CARGO_BIN_EXE_sandbar"));
    let file = home.write("secret", SECRET);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut command =
        home.sandbar(&["serve", "--listen", "ws://127.0.0.1:0", "--ws-auth", "signed-bearer-token"]);
    command.args(["--ws-issuer", "us", "--ws-audience", "exec", "--ws-max-clock-skew", "5s"]);
    let mut running = sandbar_testkit::Running::start(command.arg("--ws-shared-secret-file").arg(&file));
    let url = running.line();
    let connect = |token: &str| {
        let stream = std::net::TcpStream::connect(url.strip_prefix("ws://").unwrap()).unwrap();
        Client::upgrade(Box::new(stream), Some(token)).ok()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = |changes: Value| {
        let mut claims = json!({"iss": "us", "aud": "exec", "sub": "somebody", "exp": now + 3600});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let good = signed(&header, &claims(json!({})), SECRET);
    let (head, _) = good.rsplit_once('.').unwrap();
    let refused = [
        signed(&header, &claims(json!({})), "another secret of thirty-two bytes or more"),
        signed(&header, &claims(json!({"exp": now - 60})), SECRET),
        signed(&header, &claims(json!({"nbf": now + 600})), SECRET),
        signed(&header, &claims(json!({"iss": "them"})), SECRET),
        signed(&header, &claims(json!({"aud": ["other"]})), SECRET),
        signed(&header, &json!({"iss": "us", "aud": "exec"}), SECRET),
        signed(&json!({"alg": "HS512"}), &claims(json!({})), SECRET),
        signed(&json!({"alg": "none"}), &claims(json!({})), SECRET),
        format!("{head}."),
        head.to_owned(),
        SECRET.to_owned(),
    ];
    for token in refused {
        assert!(connect(&token).is_none(), "{token}");
    }
    let mut client = connect(&good).unwrap();
    let session = client.greet(&json!({"clientName": "test"}));
    client.cut();
    // A later token of the same person goes on with what an earlier one began; somebody else's finds nothing there.
    let takeover = json!({"clientName": "test", "resumeSessionId": session, "takeover": true});
    let other = signed(&header, &claims(json!({"sub": "somebody else"})), SECRET);
    let refused = connect(&other).unwrap().refused("initialize", &takeover);
    assert_eq!((refused.code, refused.kind.as_str()), (-32600, "unknown_session"));
    let later = signed(&header, &claims(json!({"aud": ["other", "exec"], "exp": now + 7200})), SECRET);
    assert_eq!(connect(&later).unwrap().greet(&takeover), session);
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    let home = sandbar_testkit::Home::new(env!("CARGO_BIN_EXE_sandbar"));
    let file = home.write("secret", SECRET);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let path = file.display().to_string();
    let jwt = [
        "serve",
        "--listen",
        "ws://127.0.0.1:0",
        "--ws-auth",
        "signed-bearer-token",
        "--ws-shared-secret-file",
    ];
    let token = ["serve", "--listen", "ws://127.0.0.1:0", "--ws-token-file"];
    for options in [&jwt[..], &token[..]] {
        let refused = home.finish(&[options, &[path.as_str()]].concat());
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err().contains("can be read by others: its mode is 644"), "{refused:?}");
    }
}
