//! What a client hears without having asked: news of its processes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use sandbar_proto::exec::{
    OutputFrame, OutputGap, ProcessClosed, ProcessExited, ProcessOutput, ProcessStopped, method,
};
use sandbar_proto::rpc::{RpcError, code};
use sandbar_rpc::{Call, CloseReason, Responder, Service, Violation};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Shared;
use super::inbox::{Ended, News};

/// The reader's side of one connection.
pub(super) struct Notices {
    client: Weak<Shared>,
    has_told: Arc<AtomicBool>,
}

impl Notices {
    /// `has_told` is set once something is told of a process that is known.
    pub(super) fn new(client: Weak<Shared>, has_told: Arc<AtomicBool>) -> Arc<Self> {
        Arc::new(Self { client, has_told })
    }

    fn tell(&self, process: &str, seq: u64, news: News) {
        // What nobody waits for is over, or was never ours.
        if let Some(inbox) = self.client.upgrade().and_then(|client| client.inbox(process)) {
            self.has_told.store(true, Ordering::Relaxed);
            inbox.push(seq, news);
        }
    }
}

fn read<T: DeserializeOwned>(method: &str, params: Option<&RawValue>) -> Result<T, Violation> {
    let text = params.map_or("null", RawValue::get);
    serde_json::from_str(text)
        .map_err(|error| Violation::NotificationParams { method: method.to_owned(), why: error.to_string() })
}

impl Service for Notices {
    fn request(self: &Arc<Self>, call: Call, responder: Responder) {
        let message = format!("a client of exec servers does not implement `{}`", call.method);
        responder.err(RpcError::with_kind(code::METHOD_NOT_FOUND, "unknown_method", message));
    }

    fn notification(self: &Arc<Self>, name: &str, params: Option<&RawValue>) -> Result<(), Violation> {
        match name {
            method::PROCESS_OUTPUT => {
                let ProcessOutput { process_id, seq, stream, chunk, offset, time } = read(name, params)?;
                self.tell(&process_id, seq, News::Output { stream, offset, time, bytes: chunk.0 });
            }
            method::PROCESS_EXITED => {
                let ProcessExited { process_id, seq, exit_code, signal, end, .. } = read(name, params)?;
                self.tell(&process_id, seq, News::Exited(Ended { code: exit_code, signal, end }));
            }
            method::PROCESS_CLOSED => {
                let ProcessClosed { process_id, seq } = read(name, params)?;
                self.tell(&process_id, seq, News::Closed);
            }
            method::PROCESS_GAP => {
                let OutputGap { process_id, from_seq, to_seq, bytes } = read(name, params)?;
                self.tell(&process_id.unwrap_or_default(), from_seq, News::Gap { to_seq, bytes });
            }
            method::PROCESS_STOPPED => {
                let ProcessStopped { process_id, signal } = read(name, params)?;
                if let Some(inbox) = self.client.upgrade().and_then(|client| client.inbox(&process_id)) {
                    inbox.stopped(signal);
                }
            }
            // What a newer server tells besides is not for us.
            _ => {}
        }
        Ok(())
    }

    fn binary(self: &Arc<Self>, frame: &[u8]) -> Result<(), Violation> {
        let output =
            OutputFrame::decode(frame).map_err(|error| Violation::Binary { why: error.to_string() })?;
        let news = News::Output {
            stream: output.stream,
            offset: Some(output.offset_bytes),
            time: Some(output.time),
            bytes: output.bytes.to_vec(),
        };
        self.tell(output.process_id, output.seq, news);
        Ok(())
    }

    fn closed(self: &Arc<Self>, _reason: &CloseReason) {}
}
