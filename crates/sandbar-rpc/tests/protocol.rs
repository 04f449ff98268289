//! What goes over the wire, seen by a client that knows nothing of ours: raw text, and the websocket library that Codex
//! uses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;

use sandbar_rpc::auth::Auth;
use sandbar_rpc::listen::{Listener, Settings};
use sandbar_rpc::{CloseReason, Limits, Side, Violation, lines};
use serde_json::{Value, json};
use support::{Peer, run};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message as Wire};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A server and a raw client that speaks lines with it.
struct Lines {
    server: Peer,
    input: BufReader<ReadHalf<DuplexStream>>,
    output: WriteHalf<DuplexStream>,
}

impl Lines {
    fn new(limits: Limits, capacity: usize) -> Self {
        let (near, far) = tokio::io::duplex(capacity);
        let (far_in, far_out) = tokio::io::split(far);
        let (input, output) = tokio::io::split(near);
        let transport = lines(far_in, far_out, Side::Server).with_peer("a test");
        Self { server: run(transport, limits), input: BufReader::new(input), output }
    }

    async fn send(&mut self, line: &str) {
        self.output.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn receive(&mut self) -> String {
        let mut line = String::new();
        self.input.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    async fn ask(&mut self, line: &str) -> String {
        self.send(line).await;
        self.receive().await
    }
}

type Websocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A server, and the websocket library that Codex uses.
async fn websocket(limits: Limits) -> (Peer, Websocket, String) {
    let settings = Settings::new("exec-server", Auth::None);
    let mut listener = Listener::bind(&"ws://127.0.0.1:0".parse().unwrap(), settings).await.unwrap();
    let url = listener.url().to_string();
    let (incoming, client) = tokio::join!(listener.accept(), tokio_tungstenite::connect_async(url));
    let client = client.unwrap().0;
    let MaybeTlsStream::Plain(stream) = client.get_ref() else { panic!("there is no TLS here") };
    let peer = format!("exec-server websocket {}", stream.local_addr().unwrap());
    (run(incoming.transport, limits), client, peer)
}

/// What `futures` would give: the next message, the next free moment to send.
async fn receive(socket: &mut Websocket) -> Option<tungstenite::Result<Wire>> {
    use futures_core::Stream;
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *socket).poll_next(context)).await
}

async fn send(socket: &mut Websocket, message: Wire) {
    use futures_sink::Sink;
    let mut socket = std::pin::Pin::new(socket);
    std::future::poll_fn(|context| socket.as_mut().poll_ready(context)).await.unwrap();
    socket.as_mut().start_send(message).unwrap();
    std::future::poll_fn(|context| socket.as_mut().poll_flush(context)).await.unwrap();
}

async fn receive_text(socket: &mut Websocket) -> String {
    loop {
        match receive(socket).await.unwrap().unwrap() {
            Wire::Text(text) => return text.as_str().to_owned(),
            Wire::Ping(_) | Wire::Pong(_) => {}
            other @ (Wire::Binary(_) | Wire::Close(_) | Wire::Frame(_)) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn answers_have_the_members_and_the_order_of_the_dialect() {
    let mut peer = Lines::new(Limits::default(), 1 << 20);
    let table = [
        (r#"{"id":7,"method":"echo","params":{"b":1,"a":2}}"#, r#"{"id":7,"result":{"b":1,"a":2}}"#),
        (r#"{"jsonrpc":"2.0","id":"x","method":"echo"}"#, r#"{"id":"x","result":null}"#),
        (r#"{"params":[1],"id":-3,"method":"echo"}"#, r#"{"id":-3,"result":[1]}"#),
        (r#"{"id":1,"method":"echo","params":null,"more":{}}"#, r#"{"id":1,"result":null}"#),
        (
            r#"{"id":1,"method":"echo","trace":{"traceparent":"00-ab-cd-01"},"params":1}"#,
            r#"{"id":1,"result":1}"#,
        ),
        (r#"{"id":9,"method":"nothing"}"#, r#"{"error":{"code":-32601,"message":"no `nothing`"},"id":9}"#),
        (
            r#"{"id":9,"method":"forget"}"#,
            r#"{"error":{"code":-32603,"message":"`forget` ended without an answer","data":{"kind":"unanswered"}},"id":9}"#,
        ),
    ];
    for (request, answer) in table {
        assert_eq!(peer.ask(request).await, answer, "{request}");
    }
}

/// What Codex 0.169 answers with id -1, and goes on.
const UNREADABLE: &[&str] = &[
    "nonsense",
    "{",
    "{}",
    "[]",
    r#"[{"id":1,"method":"echo"}]"#,
    r#""echo""#,
    r#"{"id":null,"method":"echo"}"#,
    r#"{"id":1.5,"method":"echo"}"#,
    r#"{"id":true,"method":"echo"}"#,
    r#"{"id":[1],"method":"echo"}"#,
    r#"{"id":9223372036854775808,"method":"echo"}"#,
    r#"{"id":1,"method":7}"#,
    r#"{"id":1,"method":"echo","method":"echo"}"#,
    r#"{"id":1}"#,
    r#"{"result":1}"#,
    r#"{"id":1,"result":1,"error":{"code":1,"message":""}}"#,
    r#"{"id":1,"method":"echo","result":1}"#,
    r#"{"id":1,"error":[1,"x"]}"#,
    r#"{"id":1,"error":{"message":"x"}}"#,
    "{\"id\":1,\"method\":\"echo\"} x",
    "{\"id\":1,\"method\":\"\u{1}\"}",
];

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_the_connection_stays() {
    let mut peer = Lines::new(Limits::default(), 1 << 20);
    let (_server, mut socket, name) = websocket(Limits::default()).await;
    for text in UNREADABLE {
        let answer = peer.ask(text).await;
        let expected =
            r#"{"error":{"code":-32600,"message":"failed to parse stdio JSON-RPC message from a test: "#;
        assert!(answer.starts_with(expected) && answer.ends_with(r#""id":-1}"#), "{text}: {answer}");

        send(&mut socket, Wire::text(*text)).await;
        let answer: Value = serde_json::from_str(&receive_text(&mut socket).await).unwrap();
        let message = answer["error"]["message"].as_str().unwrap();
        let expected = format!("failed to parse websocket JSON-RPC message from {name}: ");
        assert!(message.starts_with(&expected), "{text}: {message}");
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32600), &json!(-1)), "{text}");
    }
    assert_eq!(peer.ask(r#"{"id":1,"method":"echo"}"#).await, r#"{"id":1,"result":null}"#);
    send(&mut socket, Wire::text(r#"{"id":1,"method":"echo"}"#)).await;
    assert_eq!(receive_text(&mut socket).await, r#"{"id":1,"result":null}"#);
}

#[tokio::test]
async fn json_in_a_binary_frame_is_taken_as_text() {
    let (server, mut socket, _) = websocket(Limits::default()).await;
    for text in [r#"{"id":1,"method":"echo"}"#, " \t\r\n{\"id\":1,\"method\":\"echo\"}"] {
        send(&mut socket, Wire::binary(text)).await;
        assert_eq!(receive_text(&mut socket).await, r#"{"id":1,"result":null}"#);
    }
    for text in ["", "nonsense", "[]"] {
        send(&mut socket, Wire::binary(text)).await;
        assert!(receive_text(&mut socket).await.ends_with(r#""id":-1}"#), "{text:?}");
    }
    send(&mut socket, Wire::binary(vec![1, b'{'])).await;
    send(&mut socket, Wire::text(r#"{"id":1,"method":"echo"}"#)).await;
    receive_text(&mut socket).await;
    assert_eq!(*server.service.binary.lock().unwrap(), [vec![1, b'{']]);
}

#[tokio::test]
async fn a_violation_drops_the_connection_without_a_word() {
    let unsolicited =
        |id: i64| Violation::UnsolicitedAnswer { id: sandbar_proto::rpc::RequestId::Number(id) };
    let table = [
        (
            r#"{"method":"unknown/notification"}"#,
            Violation::UnknownNotification { method: "unknown/notification".into() },
        ),
        (r#"{"id":1,"result":{}}"#, unsolicited(1)),
        (r#"{"id":1,"error":{"code":-32600,"message":"m"}}"#, unsolicited(1)),
        (r#"{"id":-1,"error":{"code":-32600,"message":"m"}}"#, unsolicited(-1)),
        (
            r#"{"id":"1","result":null}"#,
            Violation::UnsolicitedAnswer { id: sandbar_proto::rpc::RequestId::String("1".into()) },
        ),
    ];
    for (text, violation) in table {
        let mut peer = Lines::new(Limits::default(), 1 << 20);
        peer.send(text).await;
        let mut rest = Vec::new();
        peer.input.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"", "{text}");
        assert_eq!(peer.server.end.await.unwrap(), CloseReason::Violation(violation.clone()), "{text}");

        let (server, mut socket, _) = websocket(Limits::default()).await;
        send(&mut socket, Wire::text(text)).await;
        let end = receive(&mut socket).await;
        assert!(matches!(end, None | Some(Err(_))), "{text}: {end:?}");
        let reason = CloseReason::Violation(violation);
        assert_eq!(server.end.await.unwrap(), reason, "{text}");
        assert_eq!(*server.service.closed.lock().unwrap(), [reason], "{text}");
    }
}

#[tokio::test]
async fn ten_thousand_requests_sent_before_one_answer_is_read_are_all_answered() {
    // The peer under test would be wedged for ever by some 700.
    const COUNT: usize = 10_000;
    let (_server, socket, _) = websocket(Limits::default()).await;
    let MaybeTlsStream::Plain(mut stream) = socket.into_inner() else { panic!("there is no TLS here") };
    let mut frames = Vec::new();
    for id in 0..COUNT {
        let text = format!(r#"{{"id":{id},"method":"echo","params":{id}}}"#);
        // Masked with zeros, as a client of few words may.
        frames.extend([0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0]);
        frames.extend(text.as_bytes());
    }
    stream.write_all(&frames).await.unwrap();
    let mut answered = BTreeSet::new();
    for _ in 0..COUNT {
        let mut header = [0; 2];
        stream.read_exact(&mut header).await.unwrap();
        let mut text = vec![0; usize::from(header[1])];
        stream.read_exact(&mut text).await.unwrap();
        let answer: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(answer["id"], answer["result"]);
        answered.insert(answer["id"].as_u64().unwrap());
    }
    assert_eq!(answered, (0..COUNT as u64).collect());
}

#[tokio::test]
async fn a_request_beyond_those_in_flight_is_answered_with_an_error_and_long_polls_do_not_count() {
    let limits = Limits { max_in_flight: 3, max_long_polls: 2, ..Limits::default() };
    let mut peer = Lines::new(limits, 1 << 20);
    for id in 1..=3 {
        peer.send(&format!(r#"{{"id":{id},"method":"hold"}}"#)).await;
    }
    let too_many = |id: i64, limit: i64| {
        format!(
            r#"{{"error":{{"code":-32020,"message":"{limit} requests are in flight on this connection, which is all it allows","data":{{"kind":"too_many_requests","limit":{limit}}}}},"id":{id}}}"#
        )
    };
    assert_eq!(peer.ask(r#"{"id":4,"method":"echo"}"#).await, too_many(4, 3));
    for id in 5..=6 {
        peer.send(&format!(r#"{{"id":{id},"method":"poll"}}"#)).await;
    }
    assert_eq!(peer.ask(r#"{"id":7,"method":"poll"}"#).await, too_many(7, 2));
    // Answering one makes room for one.
    let held = peer.server.service.held.lock().unwrap().remove(0);
    held.ok("done");
    assert_eq!(peer.receive().await, r#"{"id":1,"result":"done"}"#);
    assert_eq!(peer.ask(r#"{"id":8,"method":"release"}"#).await, r#"{"id":2,"result":"released"}"#);
    for answer in [
        r#"{"id":3,"result":"released"}"#,
        r#"{"id":5,"result":"released"}"#,
        r#"{"id":6,"result":"released"}"#,
        r#"{"id":8,"result":4}"#,
    ] {
        assert_eq!(peer.receive().await, answer);
    }
}

#[tokio::test]
async fn a_line_that_is_too_large_is_answered_under_its_id_and_skipped() {
    let limits = Limits { max_inbound_frame: 1000, ..Limits::default() };
    let mut peer = Lines::new(limits, 1 << 20);
    let large = "x".repeat(1_000_000);
    let refusal = |id: &str| {
        format!(
            r#"{{"error":{{"code":-32021,"message":"the message is larger than 1000 bytes, which is all that is read","data":{{"kind":"frame_too_large","limit":1000}}}},"id":{id}}}"#
        )
    };
    let request = format!(r#"{{"id":"a","method":"echo","params":"{large}"}}"#);
    assert_eq!(peer.ask(&request).await, refusal(r#""a""#));
    let request = format!(r#"{{"method":"echo","params":"{large}","id":"a"}}"#);
    assert_eq!(peer.ask(&request).await, refusal("-1"), "its id stands behind what is kept");
    assert_eq!(peer.ask(r#"{"id":1,"method":"echo"}"#).await, r#"{"id":1,"result":null}"#);
}

#[tokio::test]
async fn a_control_call_passes_data_that_a_slow_reader_leaves_lying() {
    // Small buffers: what stands in them can't be passed.
    const BUFFERS: usize = 4096;
    const CHUNK: usize = 10_000;
    let mut peer = Lines::new(Limits::default(), BUFFERS);
    let sender = peer.server.sender.clone();
    let flood = tokio::spawn(async move {
        let mut sent = 0;
        while sender.data_notification("output", &"x".repeat(CHUNK)).await.is_ok() {
            sent += 1;
        }
        sent
    });
    // Reads nothing, and asks all the same: the server hears it while its own writing is stuck.
    for id in 0..20 {
        peer.send(&format!(r#"{{"id":{id},"method":"hold"}}"#)).await;
    }
    peer.send(r#"{"method":"note","params":"heard"}"#).await;
    peer.server.service.noted(1).await;
    assert_eq!(peer.server.service.held.lock().unwrap().len(), 20);
    assert!(!flood.is_finished(), "whoever sends data waits");
    // Once it reads, the answer comes before the data that was queued earlier.
    peer.send(r#"{"id":100,"method":"release"}"#).await;
    peer.send(r#"{"method":"note","params":"heard"}"#).await;
    peer.server.service.noted(2).await;
    let mut passed = 0;
    while !peer.receive().await.contains("released") {
        passed += CHUNK;
    }
    let batch = 64 * 1024;
    assert!(passed <= BUFFERS + batch + 2 * CHUNK, "{passed} bytes were written before the answer");
    peer.server.sender.close(CloseReason::local("done"));
    assert!(flood.await.unwrap() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_its_answers_is_dropped_with_a_reason() {
    let limits = Limits { control_frames: 100, ..Limits::default() };
    let mut peer = Lines::new(limits, 256);
    let request = format!("{}\n", r#"{"id":1,"method":"echo","params":"some text to fill what there is"}"#);
    // Stops when the server hangs up.
    while peer.output.write_all(request.as_bytes()).await.is_ok() {}
    let reason = peer.server.end.await.unwrap();
    let CloseReason::ControlOverflow { frames, .. } = reason else { panic!("{reason}") };
    assert_eq!(frames, 101);
}
