//! A client of an exec server that does nothing by itself: what a case says goes out as it is, what comes is looked at
//! in the order in which it came.
//!
//! The websocket below it is not ours, so that a mistake of ours on both sides does not cancel itself.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbar_proto::exec::OutputFrame;
use sandbar_testkit::{Certificate, patience};
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error, Message, WebSocket};

/// Anything a websocket is spoken over.
pub(crate) trait Stream: Read + Write + Send {
    /// Cuts it, as a network does.
    fn cut(&self);
}

impl Stream for TcpStream {
    fn cut(&self) {
        // One that is cut already stays so.
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

impl Stream for UnixStream {
    fn cut(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

/// TLS over TCP, by rustls' own hand and with no other authority than this certificate.
pub(crate) fn tls(stream: TcpStream, certificate: &Certificate) -> Box<dyn Stream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificate.cert).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(TLS_NAME).unwrap();
    Box::new(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream))
}

/// Whom the certificate of a server with TLS is for.
pub(crate) const TLS_NAME: &str = "localhost";

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn cut(&self) {
        self.get_ref().cut();
    }
}

/// What carries the messages.
enum Wire {
    Lines { server: Box<Child>, input: Option<ChildStdin>, output: Receiver<String> },
    Websocket(Box<WebSocket<Box<dyn Stream>>>),
}

/// One connection to a server.
pub(crate) struct Client {
    wire: Wire,
    next_id: u64,
    /// Binary frames that came, and their bytes.
    pub(crate) frames: usize,
    pub(crate) frame_bytes: usize,
    /// What came while something else was waited for.
    heard: Vec<Value>,
}

/// An error's answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    /// Ours; empty where the server gives none.
    pub(crate) kind: String,
    pub(crate) message: String,
}

/// What a binary frame stands for, as the text it would have been.
fn unframed(frame: &[u8]) -> String {
    if frame.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let message = zstd::stream::decode_all(frame).unwrap();
        return if message.starts_with(b"{") {
            String::from_utf8(message).unwrap()
        } else {
            unframed(&message)
        };
    }
    let output = OutputFrame::decode(frame).unwrap();
    let params = json!({"processId": output.process_id, "seq": output.seq, "stream": output.stream,
                        "chunk": base64(output.bytes), "offset": output.offset_bytes, "time": output.time});
    json!({"method": "process/output", "params": params}).to_string()
}

/// What a process did, by its notifications in the order of their numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Story {
    pub(crate) seqs: Vec<u64>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) pty: String,
    pub(crate) code: i64,
}

impl Client {
    /// Starts a server that speaks lines, whose only client this is.
    pub(crate) fn of_program(command: &mut std::process::Command) -> Self {
        let mut server =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let input = server.stdin.take();
        let mut lines = BufReader::new(server.stdout.take().unwrap());
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0)
                && sender.send(std::mem::take(&mut line)).is_ok()
            {}
        });
        Self::over(Wire::Lines { server: Box::new(server), input, output })
    }

    /// Speaks WebSocket over `stream`, as whoever has `token`.
    ///
    /// # Errors
    /// The server did not agree.
    pub(crate) fn upgrade(stream: Box<dyn Stream>, token: Option<&str>) -> Result<Self, Box<Error>> {
        let mut request = "ws://127.0.0.1/".into_client_request().map_err(Box::new)?;
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("Authorization", value);
        }
        let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        match tungstenite::client::client_with_config(request, stream, Some(config)) {
            Ok((websocket, _)) => Ok(Self::over(Wire::Websocket(Box::new(websocket)))),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(Box::new(error)),
            Err(tungstenite::HandshakeError::Interrupted(_)) => panic!("the handshake stood still"),
        }
    }

    fn over(wire: Wire) -> Self {
        Self { wire, next_id: 1, frames: 0, frame_bytes: 0, heard: Vec::new() }
    }

    /// `initialize`, its answer, `initialized`. Returns the session.
    pub(crate) fn greet(&mut self, params: &Value) -> String {
        let result = self.ask("initialize", params);
        self.tell("initialized", &json!({}));
        result["sessionId"].as_str().unwrap().to_owned()
    }

    /// Says what may be no message at all.
    pub(crate) fn say(&mut self, text: &str) {
        self.try_say(text).unwrap();
    }

    /// The same to a server that may have hung up.
    pub(crate) fn try_say(&mut self, text: &str) -> Result<(), String> {
        match &mut self.wire {
            Wire::Lines { input, .. } => {
                writeln!(input.as_mut().unwrap(), "{text}").map_err(|error| error.to_string())
            }
            Wire::Websocket(websocket) => {
                websocket.send(Message::text(text)).map_err(|error| error.to_string())
            }
        }
    }

    /// Says it in a binary frame, where there are frames.
    pub(crate) fn say_in_binary(&mut self, text: &str) {
        match &mut self.wire {
            Wire::Lines { .. } => self.say(text),
            Wire::Websocket(websocket) => {
                websocket.send(Message::binary(text.as_bytes().to_vec())).unwrap();
            }
        }
    }

    /// The next message as it was written; `None` when the server has hung up.
    pub(crate) fn hear_text(&mut self) -> Option<String> {
        let end = Instant::now() + patience();
        match &mut self.wire {
            Wire::Lines { output, .. } => match output.recv_timeout(patience()) {
                Ok(line) => Some(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("the server says nothing"),
            },
            Wire::Websocket(websocket) => loop {
                match websocket.read() {
                    Ok(Message::Text(text)) => return Some(text.as_str().to_owned()),
                    Ok(Message::Binary(frame)) => {
                        self.frames += 1;
                        self.frame_bytes += frame.len();
                        return Some(unframed(&frame));
                    }
                    Ok(Message::Ping(_) | Message::Pong(_)) => {
                        assert!(Instant::now() < end, "the server says nothing");
                    }
                    Ok(Message::Close(_)) => return None,
                    Ok(other) => panic!("{other:?}"),
                    Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        panic!("the server says nothing")
                    }
                    Err(_) => return None,
                }
            },
        }
    }

    /// The next message.
    pub(crate) fn hear(&mut self) -> Value {
        let text = self.hear_text().expect("the server hung up");
        serde_json::from_str(&text).unwrap()
    }

    /// Whether the server hangs up, saying nothing more than news.
    pub(crate) fn is_dropped(&mut self) -> bool {
        while let Some(text) = self.hear_text() {
            let message: Value = serde_json::from_str(&text).unwrap();
            if message.get("method").is_none() {
                return false;
            }
        }
        true
    }

    pub(crate) fn tell(&mut self, method: &str, params: &Value) {
        self.say(&json!({"method": method, "params": params}).to_string());
    }

    /// Asks, and does not wait for the answer.
    pub(crate) fn send(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.say(&json!({"id": id, "method": method, "params": params}).to_string());
        id
    }

    /// The whole answer to a request.
    pub(crate) fn answer(&mut self, id: u64) -> Value {
        self.wait_for(|message| message["id"] == json!(id))
    }

    /// The first message of a kind, those that were heard before included; others wait.
    pub(crate) fn wait_for(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.heard.iter().position(&is_it) {
            return self.heard.remove(at);
        }
        loop {
            let message = self.hear();
            if is_it(&message) {
                return message;
            }
            self.heard.push(message);
        }
    }

    /// The result of a request that had to succeed.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Value {
        let id = self.send(method, params);
        let answer = self.answer(id);
        assert!(answer.get("error").is_none(), "{method} {params}: {answer}");
        answer["result"].clone()
    }

    /// The refusal of a request that had to be refused.
    #[track_caller]
    pub(crate) fn refused(&mut self, method: &str, params: &Value) -> Refusal {
        let id = self.send(method, params);
        let answer = self.answer(id);
        assert!(answer.get("error").is_some(), "{method} {params}: {answer}");
        refusal(&answer)
    }

    /// Its code alone.
    #[track_caller]
    pub(crate) fn refused_with(&mut self, method: &str, params: &Value) -> i64 {
        self.refused(method, params).code
    }

    /// Waits for a notification about a process, and takes its parameters.
    pub(crate) fn news(&mut self, method: &str, process: &str) -> Value {
        self.wait_for(|message| {
            message["method"] == json!(method) && message["params"]["processId"] == json!(process)
        })["params"]
            .take()
    }

    /// Waits for text in the output of a process, and returns what came before and with it.
    pub(crate) fn output_with(&mut self, process: &str, wanted: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(wanted) {
            seen.push_str(&decoded(&self.news("process/output", process)["chunk"]));
        }
        seen
    }

    /// Waits for the close of a process and tells its story, without what was taken before.
    pub(crate) fn story(&mut self, process: &str) -> Story {
        let exited = self.news("process/exited", process);
        self.story_after(process, &exited)
    }

    /// The same, when its exit has been taken.
    pub(crate) fn story_after(&mut self, process: &str, exited: &Value) -> Story {
        let mut story = Story::default();
        let closed = self.news("process/closed", process);
        story.code = exited["exitCode"].as_i64().unwrap();
        story.seqs = vec![closed["seq"].as_u64().unwrap(), exited["seq"].as_u64().unwrap()];
        let is_output = |message: &Value| {
            message["method"] == json!("process/output") && message["params"]["processId"] == json!(process)
        };
        let mut output: Vec<Value> = self.heard.extract_if(.., |message| is_output(message)).collect();
        output.sort_by_key(|message| message["params"]["seq"].as_u64());
        for message in &output {
            story.seqs.push(message["params"]["seq"].as_u64().unwrap());
            let text = decoded(&message["params"]["chunk"]);
            match message["params"]["stream"].as_str().unwrap() {
                "stdout" => story.stdout.push_str(&text),
                "stderr" => story.stderr.push_str(&text),
                "pty" => story.pty.push_str(&text),
                other => panic!("{other}"),
            }
        }
        story.seqs.sort_unstable();
        story
    }

    /// Whether this has been heard already, of what was heard while something else was waited for.
    pub(crate) fn has_heard(&self, is_it: impl Fn(&Value) -> bool) -> bool {
        self.heard.iter().any(is_it)
    }

    /// Reads a process from `after` to its close: every byte of standard output, and the exit code.
    pub(crate) fn read_to_end(&mut self, process: &str, mut after: u64) -> (Vec<u8>, i64) {
        let mut output = Vec::new();
        let end = Instant::now() + patience();
        loop {
            let read = json!({"processId": process, "afterSeq": after, "waitMs": 10_000});
            let read = self.ask("process/read", &read);
            for chunk in read["chunks"].as_array().unwrap() {
                let seq = chunk["seq"].as_u64().unwrap();
                assert!(seq > after, "{seq} came after {after}");
                after = seq;
                output.extend(bytes(&chunk["chunk"]));
            }
            after = after.max(read["nextSeq"].as_u64().unwrap() - 1);
            if read["closed"] == json!(true) {
                return (output, read["exitCode"].as_i64().unwrap());
            }
            assert!(Instant::now() < end, "{process} does not close");
        }
    }

    /// Takes everything that was heard and everything that still comes, until the server is gone.
    pub(crate) fn each_left(mut self, mut take: impl FnMut(&Value)) {
        self.heard.iter().for_each(&mut take);
        while let Some(text) = self.hear_text() {
            take(&serde_json::from_str(&text).unwrap());
        }
    }

    /// Ends a server over lines as SIGKILL does.
    pub(crate) fn kill(mut self) {
        let Wire::Lines { server, .. } = &mut self.wire else { panic!("it is not this client's server") };
        server.kill().unwrap();
    }

    /// Breaks the connection, without a word.
    pub(crate) fn cut(self) {
        if let Wire::Websocket(websocket) = &self.wire {
            websocket.get_ref().cut();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Wire::Lines { server, input, .. } = &mut self.wire {
            // The end of its input is the end of a server over standard streams.
            drop(input.take());
            let _ = server.wait();
        }
    }
}

pub(crate) fn refusal(answer: &Value) -> Refusal {
    let error = &answer["error"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Refusal {
        code: error["code"].as_i64().unwrap(),
        kind: text(&error["data"]["kind"]),
        message: text(&error["message"]),
    }
}

/// Bytes as the wire has them.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// Bytes of the wire.
pub(crate) fn bytes(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.as_str().unwrap()).unwrap()
}

/// The same as text.
pub(crate) fn decoded(text: &Value) -> String {
    String::from_utf8(bytes(text)).unwrap()
}
