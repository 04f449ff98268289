//! A server of one tool: MCP over streamable HTTP, as far as Codex asks.

use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::model::receive;

/// The server. Serves as long as the test runs.
pub(crate) struct Mcp {
    pub(crate) port: u16,
    heard: Arc<Mutex<Vec<(String, String)>>>,
}

impl Mcp {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::default());
        let notes = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let notes = Arc::clone(&notes);
                std::thread::spawn(move || serve(&stream, &notes));
            }
        });
        Self { port, heard }
    }

    /// Each message's method and what authorized it, in order.
    pub(crate) fn heard(&self) -> Vec<(String, String)> {
        self.heard.lock().unwrap().clone()
    }
}

/// Answers the requests of one connection until it ends.
fn serve(mut stream: &TcpStream, heard: &Mutex<Vec<(String, String)>>) {
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = receive(&mut reader) {
        let answer = if head.starts_with("POST ") { post(&head, &body, heard) } else { None };
        let answer = match answer {
            Some(result) => {
                let text = result.to_string();
                let length = text.len();
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{text}"
                )
            }
            // It streams nothing by itself, and takes notifications.
            None if head.starts_with("POST ") => {
                "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_owned()
            }
            None => "HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The answer to a message; nothing to a notification.
fn post(head: &str, body: &[u8], heard: &Mutex<Vec<(String, String)>>) -> Option<Value> {
    let message: Value = serde_json::from_slice(body).unwrap();
    let method = message["method"].as_str().unwrap_or_default().to_owned();
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
    });
    heard.lock().unwrap().push((method.clone(), authorization.unwrap_or_default()));
    let result = match method.as_str() {
        "initialize" => {
            json!({"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
                               "serverInfo": {"name": "executors", "version": "1"}})
        }
        "tools/list" => {
            json!({"tools": [{"name": "hi", "description": "Says hi", "annotations": {"readOnlyHint": true},
                                          "inputSchema": {"type": "object", "properties": {}}}]})
        }
        "tools/call" => json!({"content": [{"type": "text", "text": "hi from the executor"}]}),
        _ => return None,
    };
    Some(json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
}
