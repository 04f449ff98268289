//! `http/request`, from both servers where the peer has the same, and what ours does not reach.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use sandbar_testkit::need::Need;
use sandbar_testkit::{DEADLINE, need};
use serde_json::{Value, json};

use crate::client::{Client, base64, decoded};
use crate::server::{Over, Server};

const INVALID_PARAMS: i64 = -32602;
const INTERNAL: i64 = -32603;

/// A web server on loopback, as long as the test runs.
struct Web {
    port: u16,
    /// Paths whose connections ended.
    ended: Receiver<String>,
}

impl Web {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, ended) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tell = tell.clone();
                std::thread::spawn(move || serve(&stream, &tell));
            }
        });
        Self { port, ended }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn request(&self, method: &str, path: &str) -> Value {
        json!({"method": method, "url": self.url(path), "requestId": "r"})
    }
}

/// Answers one request by its path.
fn serve(mut stream: &TcpStream, tell: &Sender<String>) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let answer = |status: &str, headers: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let answer = match path.split_once('?').map_or(path.as_str(), |(path, _)| path) {
        "/echo" => answer("201 Made", "X-A: 1\r\nX-A: 2\r\n", &(head + &String::from_utf8(body).unwrap())),
        "/pieces" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
            .to_owned(),
        "/half" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_owned(),
        "/moved" => answer("302 Found", "Location: /echo\r\n", "moved"),
        "/round" => answer("302 Found", "Location: /round\r\n", ""),
        "/away" => {
            let to = path.split_once('?').unwrap().1;
            answer("307 Away", &format!("Location: {to}\r\n"), "")
        }
        "/large" => answer("200 OK", "", &"x".repeat(10 * 1024 * 1024 + 1)),
        // Begins, and goes on for ever.
        "/endless" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst".to_owned(),
        // Says nothing until the other side hangs up.
        _ => String::new(),
    };
    let _ = stream.write_all(answer.as_bytes());
    if answer.is_empty() || path == "/endless" {
        let _ = stream.read(&mut [0]);
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let _ = tell.send(path);
}

/// A server that may reach `web` and nothing else.
fn server(over: Over, web: &Web) -> Need<Server> {
    let allowed = format!("127.0.0.1:{}", web.port);
    // The peer reaches whatever it is asked for.
    let options: &[&str] = if over == Over::Codex { &[] } else { &["--http-allow", &allowed] };
    Server::start_with(over, options)
}

/// Cases for our server and for the peer's.
macro_rules! both {
    ($($case:ident),* $(,)?) => {
        mod ours {
            $(
                #[test]
                fn $case() {
                    let web = super::Web::start();
                    let server = super::need!(super::server(super::Over::Unix, &web));
                    super::$case(&mut server.ready(), &web);
                }
            )*
        }

        mod codex {
            $(
                #[test]
                fn $case() {
                    let web = super::Web::start();
                    let server = super::need!(super::server(super::Over::Codex, &web));
                    super::$case(&mut server.ready(), &web);
                }
            )*
        }
    };
}

both! {
    an_answer_comes_with_its_headers_and_its_body,
    a_streamed_body_comes_in_pieces,
    a_body_that_breaks_off_is_an_error,
    redirects_are_followed_unless_they_are_to_be_told,
    a_header_may_end_with_a_variable_of_the_executor,
    what_is_no_request_is_refused,
    what_does_not_answer_is_an_error,
}

fn with(mut request: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

fn an_answer_comes_with_its_headers_and_its_body(client: &mut Client, web: &Web) {
    let headers = json!([{"name": "X-One", "value": "1"}, {"name": "x-one", "value": "2"}]);
    let request =
        with(web.request("POST", "/echo?a=b"), &json!({"headers": headers, "bodyBase64": base64("body")}));
    let answer = client.ask("http/request", &request);
    assert_eq!(answer["status"], json!(201));
    let twice = [json!({"name": "x-a", "value": "1"}), json!({"name": "x-a", "value": "2"})];
    assert_eq!(answer["headers"].as_array().unwrap()[1..3], twice);
    let heard = decoded(&answer["bodyBase64"]).to_ascii_lowercase();
    assert!(heard.starts_with("post /echo?a=b http/1.1\r\n") && heard.ends_with("body"), "{heard}");
    for line in ["x-one: 1", "x-one: 2", "accept: */*", &format!("host: 127.0.0.1:{}", web.port)] {
        assert!(heard.lines().any(|heard| heard == line), "{line}: {heard}");
    }
    let head = client.ask("http/request", &web.request("HEAD", "/echo"));
    assert_eq!((&head["status"], &head["bodyBase64"]), (&json!(201), &json!("")));
}

/// The pieces of a body, to the last one.
fn pieces(client: &mut Client, id: &str) -> (String, Value) {
    let mut text = String::new();
    for seq in 1.. {
        let piece =
            client.wait_for(|message| message["method"] == json!("http/request/bodyDelta"))["params"].clone();
        assert_eq!((&piece["requestId"], &piece["seq"]), (&json!(id), &json!(seq)));
        text.push_str(&decoded(&piece["deltaBase64"]));
        if piece["done"] == json!(true) {
            assert_eq!(piece["deltaBase64"], json!(""));
            return (text, piece["error"].clone());
        }
        assert_eq!(piece["error"], Value::Null);
    }
    unreachable!()
}

fn a_streamed_body_comes_in_pieces(client: &mut Client, web: &Web) {
    let request = with(web.request("GET", "/pieces"), &json!({"streamResponse": true}));
    for _ in 0..2 {
        let answer = client.ask("http/request", &request);
        assert_eq!((&answer["status"], &answer["bodyBase64"]), (&json!(200), &json!("")));
        assert_eq!(pieces(client, "r"), ("onetwo".to_owned(), Value::Null));
    }
}

fn a_body_that_breaks_off_is_an_error(client: &mut Client, web: &Web) {
    let request = web.request("GET", "/half");
    let refused = client.refused("http/request", &request);
    assert_eq!(refused.code, INTERNAL);
    assert!(
        refused.message.starts_with("failed to read http/request response body: "),
        "{}",
        refused.message
    );
    client.ask("http/request", &with(request, &json!({"streamResponse": true})));
    let (text, error) = pieces(client, "r");
    assert_eq!((text.as_str(), error.is_string()), ("half", true));
}

fn redirects_are_followed_unless_they_are_to_be_told(client: &mut Client, web: &Web) {
    let request = with(web.request("POST", "/moved"), &json!({"bodyBase64": base64("body")}));
    let answer = client.ask("http/request", &request);
    let heard = decoded(&answer["bodyBase64"]);
    assert!(heard.starts_with("GET /echo ") && heard.ends_with("\r\n"), "{heard}");
    let told = client.ask("http/request", &with(request, &json!({"redirectPolicy": "stop"})));
    assert_eq!((&told["status"], decoded(&told["bodyBase64"]).as_str()), (&json!(302), "moved"));
    let refused = client.refused("http/request", &web.request("GET", "/round"));
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (INTERNAL, "http/request failed: too many redirects")
    );
}

fn a_header_may_end_with_a_variable_of_the_executor(client: &mut Client, web: &Web) {
    let with = |variable: &str| {
        let header = json!({"name": "Authorization", "value": "Bearer ", "valueEnvVar": variable});
        with(web.request("GET", "/echo"), &json!({"headers": [header]}))
    };
    let heard = decoded(&client.ask("http/request", &with("HOME"))["bodyBase64"]);
    assert!(heard.to_ascii_lowercase().contains("authorization: bearer /"), "{heard}");
    for variable in ["NO_SUCH_VARIABLE", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", ""] {
        assert_eq!(client.refused_with("http/request", &with(variable)), INVALID_PARAMS, "{variable}");
    }
}

fn what_is_no_request_is_refused(client: &mut Client, web: &Web) {
    let request = web.request("GET", "/echo");
    for wrong in [
        json!({"url": "ftp://127.0.0.1/"}),
        json!({"url": "nowhere"}),
        json!({"method": "G T"}),
        json!({"bodyBase64": "*"}),
        json!({"redirectPolicy": "sometimes"}),
        json!({"headers": [{"name": "a b", "value": ""}]}),
        json!({"headers": [{"name": "a", "value": "b\nc"}]}),
        json!({"requestId": null}),
    ] {
        assert_eq!(
            client.refused_with("http/request", &with(request.clone(), &wrong)),
            INVALID_PARAMS,
            "{wrong}"
        );
    }
}

fn what_does_not_answer_is_an_error(client: &mut Client, web: &Web) {
    let silent = with(web.request("GET", "/silent"), &json!({"timeoutMs": 50}));
    let refused = client.refused("http/request", &silent);
    assert!(
        refused.code == INTERNAL && refused.message.starts_with("http/request failed: "),
        "{}",
        refused.message
    );
}

#[test]
fn only_what_is_on_the_list_is_reached() {
    let (web, other) = (Web::start(), Web::start());
    let server = need!(server(Over::Unix, &web));
    let mut client = server.ready();
    let port = web.port;
    for url in [
        other.url("/echo"),
        format!("http://localhost:{port}/echo"),
        format!("http://127.0.0.2:{port}/echo"),
        format!("http://[::1]:{port}/echo"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        // A redirect is looked at like any other URL.
        web.url(&format!("/away?{}", other.url("/echo"))),
        web.url("/away?http://169.254.169.254/"),
    ] {
        let refused = client.refused("http/request", &json!({"method": "GET", "url": url, "requestId": "r"}));
        assert_eq!(
            (refused.code, refused.kind.as_str()),
            (-32600, "not_allowed"),
            "{url}: {}",
            refused.message
        );
    }
    assert!(other.ended.try_recv().is_err(), "it was reached");
    let host = with(web.request("GET", "/echo"), &json!({"headers": [{"name": "Host", "value": "other"}]}));
    assert_eq!(client.refused_with("http/request", &host), INVALID_PARAMS);
}

#[test]
fn a_name_on_the_list_does_not_lead_into_this_machine() {
    let web = Web::start();
    // Resolved like a name, to 127.0.0.1, by every resolver (inet_aton(3)).
    let allowed = format!("127.1:{}", web.port);
    let server = need!(Server::start_with(Over::Unix, &["--http-allow", &allowed]));
    let url = format!("http://127.1:{}/echo", web.port);
    let refused =
        server.ready().refused("http/request", &json!({"method": "GET", "url": url, "requestId": "r"}));
    assert_eq!(refused.kind, "not_allowed", "{}", refused.message);
    assert!(web.ended.try_recv().is_err(), "it was reached");
}

#[test]
fn localhost_on_the_list_is_this_machine() {
    let web = Web::start();
    let allowed = format!("localhost:{}", web.port);
    let server = need!(Server::start_with(Over::Unix, &["--http-allow", &allowed]));
    let mut client = server.ready();
    let url = format!("http://LOCALHOST:{}/echo", web.port);
    assert_eq!(
        client.ask("http/request", &json!({"method": "GET", "url": url, "requestId": "r"}))["status"],
        json!(201)
    );
    assert_eq!(client.refused("http/request", &web.request("GET", "/echo")).kind, "not_allowed");
}

#[test]
fn a_body_that_comes_whole_has_a_bound() {
    let web = Web::start();
    let server = need!(server(Over::Unix, &web));
    let mut client = server.ready();
    let refused = client.refused("http/request", &web.request("GET", "/large"));
    assert!(refused.message.contains("more than 10485760 bytes"), "{}", refused.message);
    client.ask("http/request", &with(web.request("GET", "/large"), &json!({"streamResponse": true})));
    assert_eq!(pieces(&mut client, "r").0.len(), 10 * 1024 * 1024 + 1);
}

#[test]
fn a_stream_ends_with_the_connection_that_asked_for_it() {
    let web = Web::start();
    let server = need!(server(Over::Unix, &web));
    let mut client = server.ready();
    let stream = with(web.request("GET", "/endless"), &json!({"streamResponse": true}));
    client.ask("http/request", &stream);
    assert_eq!(client.refused("http/request", &stream).kind, "name_in_use");
    client.cut();
    assert_eq!(web.ended.recv_timeout(DEADLINE).as_deref(), Ok("/endless"));
}

#[test]
fn requests_at_a_time_have_a_bound() {
    let web = Web::start();
    let server = need!(server(Over::Unix, &web));
    let mut client = server.ready();
    for number in 0..32 {
        let name = json!({"streamResponse": true, "requestId": format!("r{number}")});
        client.ask("http/request", &with(web.request("GET", "/endless"), &name));
    }
    assert_eq!(client.refused("http/request", &web.request("GET", "/echo")).kind, "too_many");
}

#[test]
fn headers_with_variables_are_announced_where_there_is_a_list() {
    let web = Web::start();
    let server = need!(server(Over::Unix, &web));
    let described = server.ready().ask("environment/info", &json!({}));
    assert_eq!(described["capabilities"]["httpHeaderEnvVars"], json!(true));
}
