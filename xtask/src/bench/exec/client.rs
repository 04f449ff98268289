//! A client of exec servers, ours and the peer's alike: the dialect of Codex 0.169.
//!
//! Reads as little as it can of what is large: output and files are found in their messages by name and decoded in
//! place, so that the server is measured and not the client. Everything small is parsed.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::socket::{Acks, Message, Socket, Writer};

/// Where a message's kind has to stand.
const FRONT: usize = 64;

/// Header of a binary frame of output (docs/protocol.md).
const FRAME_HEADER: usize = 28;

/// What a message is.
#[derive(Debug)]
pub(super) enum Received<'a> {
    Output(Output<'a>),
    /// A result, unparsed.
    Answer(u64, &'a [u8]),
    /// An error, in place of a result.
    Refusal(u64, Value),
    /// Any other notification.
    Event(Value),
}

/// A portion of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Output<'a> {
    pub(super) process: &'a str,
    pub(super) seq: u64,
    data: Data<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data<'a> {
    Base64(&'a [u8]),
    Raw(&'a [u8]),
}

/// What of our extensions is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// None: what every client gets.
    Plain,
    /// Output in binary frames, within credit.
    Binary,
}

/// One connection with its session.
#[derive(Debug)]
pub(in crate::bench) struct Client {
    socket: Socket,
    writer: Writer,
    /// Names the session, for whoever resumes it.
    pub(super) session: String,
    requests: u64,
    processes: u64,
    exit_codes: HashMap<String, i64>,
    closed: HashSet<String>,
}

impl Client {
    /// Connects and begins a session.
    ///
    /// # Errors
    /// The server does not answer as the dialect says.
    pub(super) fn connect(url: &str, acks: Acks, dialect: Dialect) -> Result<Self> {
        Self::greet(url, acks, dialect, None)
    }

    /// Connects and goes on with a session.
    ///
    /// # Errors
    /// The server does not know it.
    pub(super) fn resume(url: &str, session: &str) -> Result<Self> {
        Self::greet(url, Acks::Ordinary, Dialect::Plain, Some(session))
    }

    fn greet(url: &str, acks: Acks, dialect: Dialect, session: Option<&str>) -> Result<Self> {
        let socket = Socket::connect(url, acks)?;
        let mut client = Self {
            writer: socket.writer(),
            socket,
            session: String::new(),
            requests: 0,
            processes: 0,
            exit_codes: HashMap::new(),
            closed: HashSet::new(),
        };
        let mut params = json!({"clientName": "sandbar-bench", "resumeSessionId": session});
        if dialect == Dialect::Binary {
            params["extensions"] = json!({"binaryOutput": true, "credit": true});
        }
        let greeted = client.call("initialize", &params)?;
        client.session = greeted["sessionId"].as_str().context("a session without an id")?.to_owned();
        client.notify("initialized", &json!({}))?;
        Ok(client)
    }

    /// Sends a notification.
    pub(super) fn notify(&self, method: &str, params: &Value) -> Result<()> {
        self.writer.send(&json!({"method": method, "params": params}).to_string())
    }

    /// Sends a request and returns its number.
    pub(super) fn send(&mut self, method: &str, params: &Value) -> Result<u64> {
        self.requests += 1;
        let id = self.requests;
        self.writer.send(&request(id, method, params))?;
        Ok(id)
    }

    /// Sends a request of ready JSON, for parameters that are large.
    pub(super) fn send_raw(&mut self, method: &str, params: &str) -> Result<u64> {
        self.requests += 1;
        let id = self.requests;
        self.writer.send(&format!(r#"{{"id":{id},"method":"{method}","params":{params}}}"#))?;
        Ok(id)
    }

    /// A request and its result.
    pub(super) fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        let id = self.send(method, params)?;
        self.answer(id, |result| Ok(serde_json::from_slice::<Value>(result)?["result"].take()))
    }

    /// Waits for the answer to a request; what comes in between is only noted.
    ///
    /// # Errors
    /// It is an error, or does not come.
    pub(super) fn answer<T>(&mut self, to: u64, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + super::ANSWER;
        loop {
            match self.receive(deadline)?.context("an answer did not come")? {
                Received::Answer(id, result) if id == to => return read(result),
                Received::Refusal(id, error) if id == to => bail!("a request was refused: {error}"),
                Received::Answer(..) | Received::Refusal(..) | Received::Output(_) | Received::Event(_) => {}
            }
        }
    }

    /// Waits for a message; `None` once the deadline is over. Ends of processes are noted.
    ///
    /// # Errors
    /// The connection ended, or a message is none of the dialect.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<Option<Received<'_>>> {
        let Some(message) = self.socket.receive(deadline)? else { return Ok(None) };
        let received = read(message)?;
        if let Received::Event(event) = &received {
            let process = event["params"]["processId"].as_str().unwrap_or_default().to_owned();
            match event["method"].as_str() {
                Some("process/exited") => {
                    let code = event["params"]["exitCode"].as_i64().context("an end without an exit code")?;
                    self.exit_codes.insert(process, code);
                }
                Some("process/closed") => {
                    self.closed.insert(process);
                }
                _ => {}
            }
        }
        Ok(Some(received))
    }

    /// Sends the start of a command and returns the number of the request and the process' name.
    pub(super) fn send_start(&mut self, start: &Value) -> Result<(u64, String)> {
        self.processes += 1;
        let process = format!("p{}", self.processes);
        let mut start = start.clone();
        start["processId"] = json!(process);
        Ok((self.send("process/start", &start)?, process))
    }

    /// Starts a command and returns the process' name.
    pub(in crate::bench) fn start(&mut self, start: &Value) -> Result<String> {
        let (id, process) = self.send_start(start)?;
        self.answer(id, |_| Ok(()))?;
        Ok(process)
    }

    /// Whether a process has ended and all its output came, and its exit code if so.
    pub(super) fn ended(&mut self, process: &str) -> Option<i64> {
        self.closed.remove(process).then(|| self.exit_codes.remove(process)).flatten()
    }

    /// Starts a command and waits until it is closed; the time that took.
    ///
    /// # Errors
    /// It ends with another exit code than 0.
    pub(in crate::bench) fn run(&mut self, start: &Value) -> Result<Duration> {
        let started = Instant::now();
        let process = self.start(start)?;
        let deadline = started + super::ANSWER;
        loop {
            if let Some(code) = self.ended(&process) {
                let took = started.elapsed();
                ensure!(code == 0, "it ended with exit code {code}");
                return Ok(took);
            }
            self.receive(deadline)?.context("a process did not end")?;
        }
    }

    /// Ends processes, one after another, and waits until each is closed: the peer wedges when it is asked for many ends
    /// at once, or for many starts while it has ends to tell.
    pub(super) fn terminate(&mut self, processes: &[String]) -> Result<()> {
        for process in processes {
            self.call("process/terminate", &json!({"processId": process}))?;
            let deadline = Instant::now() + super::ANSWER;
            while self.ended(process).is_none() {
                self.receive(deadline)?.context("a process that was terminated did not close")?;
            }
        }
        Ok(())
    }

    /// The writing end, for another thread.
    pub(super) fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Ends the connection, and with it whoever waits for room in it.
    pub(super) fn hang_up(&self) {
        self.writer.hang_up(&self.socket);
    }
}

impl Output<'_> {
    /// Puts the bytes in place of what is in `into`.
    pub(super) fn bytes<'a>(&'a self, into: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        match self.data {
            Data::Raw(bytes) => Ok(bytes),
            Data::Base64(text) => decode(text, into),
        }
    }
}

/// Decodes base64 in place of what is in `into`.
pub(super) fn decode<'a>(text: &[u8], into: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    let most = text.len() / 4 * 3 + 3;
    if into.len() < most {
        into.resize(most, 0);
    }
    let length = STANDARD.decode_slice(text, into).map_err(anyhow::Error::msg).context("no base64")?;
    Ok(&into[..length])
}

/// Bytes of base64.
pub(super) fn decode_text(text: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).map_err(anyhow::Error::msg).context("no base64")
}

/// Base64 of bytes.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The text of a request.
pub(super) fn request(id: u64, method: &str, params: &Value) -> String {
    json!({"id": id, "method": method, "params": params}).to_string()
}

/// Parameters of a start without a sandbox, with nothing but a `PATH`.
pub(in crate::bench) fn command(argv: &[&str], folder: &std::path::Path) -> Value {
    json!({
        "argv": argv,
        "cwd": url(folder),
        "env": {"PATH": crate::command::SYSTEM_PATH},
        "tty": false,
        "arg0": null,
        "sandbox": null,
    })
}

/// A path as the dialect writes it; benches work in folders whose names need no escapes.
pub(super) fn url(path: &std::path::Path) -> String {
    format!("file://{}", path.display())
}

/// The text that a member has, by its name, unescaped only where there is nothing to escape.
pub(super) fn text_of<'a>(message: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let name = format!("\"{name}\":\"");
    let at = find(message, name.as_bytes())? + name.len();
    let rest = &message[at..];
    // Large text ends right before the end of its message, so it is looked for from behind.
    let large = rest.len() > 1024;
    let end = if large {
        rest.iter().rposition(|&byte| byte == b'"')
    } else {
        rest.iter().position(|&b| b == b'"')
    };
    let text = &rest[..end?];
    // Other members stand behind it: the end is the first quote after all.
    match large && text.contains(&b'"') {
        true => text.split(|&byte| byte == b'"').next(),
        false => Some(text),
    }
}

fn number_of(message: &[u8], name: &str) -> Option<u64> {
    let name = format!("\"{name}\":");
    let at = find(message, name.as_bytes())? + name.len();
    digits(&message[at..])
}

fn digits(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

fn find(message: &[u8], what: &[u8]) -> Option<usize> {
    message.windows(what.len()).position(|part| part == what)
}

fn read(message: Message<'_>) -> Result<Received<'_>> {
    match message {
        Message::Binary(frame) => read_frame(frame).context("a binary frame that is none of output"),
        Message::Text(text) => {
            let front = &text[..text.len().min(FRONT)];
            if find(front, b"\"process/output\"").is_some() {
                return read_output(text).context("output without what it needs");
            }
            let result = front.strip_prefix(b"{\"id\":").filter(|_| find(front, b",\"result\":").is_some());
            if let Some(id) = result.and_then(digits) {
                return Ok(Received::Answer(id, text));
            }
            let value: Value = serde_json::from_slice(text).context("a message that is not JSON")?;
            Ok(match (value["id"].as_u64(), value.get("error")) {
                (Some(id), Some(error)) => Received::Refusal(id, error.clone()),
                (Some(id), None) => Received::Answer(id, text),
                (None, Some(error)) => bail!("an error that answers nothing: {error}"),
                (None, None) => Received::Event(value),
            })
        }
    }
}

fn read_output(text: &[u8]) -> Option<Received<'_>> {
    let process = std::str::from_utf8(text_of(text, "processId")?).ok()?;
    let seq = number_of(text, "seq")?;
    Some(Received::Output(Output { process, seq, data: Data::Base64(text_of(text, "chunk")?) }))
}

fn read_frame(frame: &[u8]) -> Option<Received<'_>> {
    let (head, rest) = frame.split_first_chunk::<FRAME_HEADER>()?;
    let (process, bytes) = rest.split_at_checked(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
    let seq = head[4..12].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    let process = std::str::from_utf8(process).ok()?;
    (head[0] == 1).then_some(Received::Output(Output { process, seq, data: Data::Raw(bytes) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &[u8]) -> (String, u64, Vec<u8>) {
        let Received::Output(output) = read(Message::Text(text)).unwrap() else { panic!("no output") };
        (output.process.to_owned(), output.seq, output.bytes(&mut Vec::new()).unwrap().to_owned())
    }

    #[test]
    fn output_is_read_in_any_order_of_its_members() {
        let first = br#"{"method":"process/output","params":{"processId":"p1","seq":7,"stream":"stdout","chunk":"aGk="}}"#;
        let last = br#"{"method":"process/output","params":{"chunk":"aGk=","seq":7,"stream":"stdout","processId":"p1"}}"#;
        assert_eq!(output(first), ("p1".into(), 7, b"hi".into()));
        assert_eq!(output(last), ("p1".into(), 7, b"hi".into()));
        let long = encode(&[9; 5000]);
        for rest in ["", r#","offset":1,"name":"x""#] {
            let text = format!(
                r#"{{"method":"process/output","params":{{"processId":"p1","seq":8,"chunk":"{long}"{rest}}}}}"#
            );
            assert_eq!(output(text.as_bytes()), ("p1".into(), 8, vec![9; 5000]));
        }
    }

    #[test]
    fn a_binary_frame_is_its_header_its_process_and_its_bytes() {
        let mut frame = vec![1, 1, 0, 2];
        frame.extend([0, 0, 0, 0, 0, 0, 1, 2]);
        frame.extend([0; 16]);
        frame.extend(b"p1raw");
        let Received::Output(output) = read(Message::Binary(&frame)).unwrap() else { panic!("no output") };
        assert_eq!((output.process, output.seq, output.data), ("p1", 258, Data::Raw(b"raw")));
        assert!(read(Message::Binary(&frame[..29])).is_err());
    }

    #[test]
    fn results_errors_and_events_are_told_apart() {
        let result = br#"{"id":12,"result":{}}"#;
        assert!(matches!(read(Message::Text(result)).unwrap(), Received::Answer(12, text) if text == result));
        let error = br#"{"error":{"code":-32600},"id":3}"#;
        assert!(
            matches!(read(Message::Text(error)).unwrap(), Received::Refusal(3, error) if error["code"] == -32600)
        );
        let event = br#"{"method":"process/closed","params":{"processId":"p1","seq":3}}"#;
        assert!(
            matches!(read(Message::Text(event)).unwrap(), Received::Event(event) if event["params"]["seq"] == 3)
        );
        assert!(read(Message::Text(br#"{"error":{"code":-32600},"id":-1}"#)).is_err());
    }
}
