//! A model that says what it was told to: OpenAI's Responses API over server-sent events, as far as Codex asks.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What the model answers, when it hears what its last call came to.
pub(crate) struct Step(Box<dyn FnOnce(&str) -> Value + Send>);

impl Step {
    pub(crate) fn after(answer: impl FnOnce(&str) -> Value + Send + 'static) -> Self {
        Self(Box::new(answer))
    }

    pub(crate) fn always(item: Value) -> Self {
        Self::after(move |_| item)
    }
}

/// A call of a function.
pub(crate) fn call(name: &str, arguments: &Value) -> Value {
    json!({"type": "function_call", "name": name, "arguments": arguments.to_string(), "call_id": next_id()})
}

/// A call of a tool of an MCP server.
pub(crate) fn call_of(server: &str, name: &str) -> Value {
    let mut call = call(name, &json!({}));
    call["namespace"] = json!(format!("mcp__{server}"));
    call
}

/// A call of `apply_patch`.
pub(crate) fn patch(text: &str) -> Value {
    json!({"type": "custom_tool_call", "name": "apply_patch", "input": text, "call_id": next_id()})
}

/// The end of a turn.
pub(crate) fn message(text: &str) -> Value {
    json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
}

fn next_id() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    format!("call_{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

/// The number by which Codex calls a command that still runs.
pub(crate) fn session(output: &str) -> u64 {
    let number = output.split_once("session ID ").map(|(_, rest)| rest);
    let digits: String = number.unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("nothing runs: {output}"))
}

/// The endpoint. Serves as long as the test runs.
pub(crate) struct Model {
    pub(crate) url: String,
    script: Arc<Mutex<Script>>,
}

struct Script {
    steps: VecDeque<Step>,
    heard: Vec<String>,
    answered: u32,
}

impl Model {
    pub(crate) fn start(steps: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let script = Script { steps: steps.into(), heard: Vec::new(), answered: 0 };
        let script = Arc::new(Mutex::new(script));
        let told = Arc::clone(&script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&told);
                std::thread::spawn(move || serve(&stream, &script));
            }
        });
        Self { url, script }
    }

    /// What each call came to, in order.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.script.lock().unwrap().heard.clone()
    }
}

/// Answers the requests of one connection until it ends.
fn serve(stream: &TcpStream, script: &Mutex<Script>) {
    let mut reader = BufReader::new(stream);
    while let Some((request, body)) = receive(&mut reader) {
        let (kind, text) = if request.starts_with("POST ") {
            ("text/event-stream", script.lock().unwrap().answer(&body))
        } else {
            let models = json!({"object": "list", "data": [], "models": []});
            ("application/json", models.to_string())
        };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", text.len());
        let mut writer = stream;
        if writer.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

/// The head of a request, and its body.
pub(crate) fn receive(reader: &mut BufReader<&TcpStream>) -> Option<(String, Vec<u8>)> {
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok()?;
            }
            _ => {}
        }
        request.push_str(line);
        request.push('\n');
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((request, body))
}

/// What a call came to: a text, or parts of which each has one.
fn output(output: &Value) -> String {
    let parts =
        output.as_array().map(|parts| parts.iter().filter_map(|part| part["text"].as_str()).collect());
    parts.unwrap_or_else(|| output.as_str().unwrap().to_owned())
}

impl Script {
    /// Notes what the last call came to, and answers with the next one.
    fn answer(&mut self, body: &[u8]) -> String {
        let request: Value = serde_json::from_slice(body).unwrap();
        let outputs = request["input"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|item| item["type"].as_str().is_some_and(|kind| kind.ends_with("_output")));
        let outputs: Vec<String> = outputs.map(|item| output(&item["output"])).collect();
        let last = outputs.last().cloned().unwrap_or_default();
        self.heard = outputs;
        self.answered += 1;
        let item = self.steps.pop_front().map_or_else(|| message("nothing more"), |step| step.0(&last));
        let id = format!("resp_{}", self.answered);
        let usage = json!({"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
                           "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2});
        let events = [
            json!({"type": "response.created", "response": {"id": id}}),
            json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
            json!({"type": "response.completed", "response": {"id": id, "usage": usage}}),
        ];
        let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
        events.iter().map(event).collect()
    }
}
