//! A service that the tests talk to, and a client that only talks.

#![allow(dead_code, reason = "each test program uses what it needs")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::{Arc, Mutex};

use sandbar_proto::rpc::{RpcError, code};
use sandbar_rpc::{Call, CloseReason, Connection, Limits, Responder, Sender, Service, Transport, Violation};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Answers `echo` with its parameters; keeps `hold` for ever, unless told `release`; drops `forget`; notes `note`.
#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) held: Mutex<Vec<Responder>>,
    pub(crate) notes: Mutex<Vec<String>>,
    pub(crate) binary: Mutex<Vec<Vec<u8>>>,
    pub(crate) news: Notify,
    pub(crate) closed: Mutex<Vec<CloseReason>>,
}

impl Service for Echo {
    fn request(self: &Arc<Self>, call: Call, responder: Responder) {
        match call.method.as_str() {
            "echo" => responder.ok(&call.params),
            "hold" | "poll" => self.held.lock().unwrap().push(responder),
            "release" => {
                let held = std::mem::take(&mut *self.held.lock().unwrap());
                let count = held.len();
                held.into_iter().for_each(|held| held.ok("released"));
                responder.ok(&count);
            }
            "forget" => drop(responder),
            "large" => {
                tokio::spawn(async move {
                    let bytes: usize = call.params().unwrap();
                    responder.data_ok(&"x".repeat(bytes)).await
                });
            }
            method => responder.err(RpcError::new(code::METHOD_NOT_FOUND, format!("no `{method}`"))),
        }
    }

    fn notification(self: &Arc<Self>, method: &str, params: Option<&RawValue>) -> Result<(), Violation> {
        if method != "note" {
            return Err(Violation::UnknownNotification { method: method.to_owned() });
        }
        let note = params.map_or("", RawValue::get).to_owned();
        self.notes.lock().unwrap().push(note);
        self.news.notify_waiters();
        Ok(())
    }

    fn binary(self: &Arc<Self>, frame: &[u8]) -> Result<(), Violation> {
        self.binary.lock().unwrap().push(frame.to_vec());
        Ok(())
    }

    fn is_long_poll(&self, method: &str, _: Option<&RawValue>) -> bool {
        method == "poll"
    }

    fn closed(self: &Arc<Self>, reason: &CloseReason) {
        self.closed.lock().unwrap().push(reason.clone());
    }
}

impl Echo {
    /// Waits until there are so many notes.
    pub(crate) async fn noted(&self, count: usize) {
        loop {
            let news = self.news.notified();
            if self.notes.lock().unwrap().len() >= count {
                return;
            }
            news.await;
        }
    }
}

/// One running end of a connection.
pub(crate) struct Peer {
    pub(crate) sender: Sender,
    pub(crate) service: Arc<Echo>,
    pub(crate) end: JoinHandle<CloseReason>,
}

pub(crate) fn run(transport: Transport, limits: Limits) -> Peer {
    let (sender, connection) = Connection::new(transport, limits);
    let service = Arc::new(Echo::default());
    let end = tokio::spawn(connection.run(Arc::clone(&service)));
    Peer { sender, service, end }
}

/// A service with nothing but what it must have.
pub(crate) struct Plain;

impl Service for Plain {
    fn request(self: &Arc<Self>, _: Call, responder: Responder) {
        responder.ok(&());
    }

    fn notification(self: &Arc<Self>, _: &str, _: Option<&RawValue>) -> Result<(), Violation> {
        Ok(())
    }

    fn closed(self: &Arc<Self>, _: &CloseReason) {}
}
