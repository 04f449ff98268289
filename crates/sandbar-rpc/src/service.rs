//! What a connection calls for each message of its peer.

use std::sync::Arc;

use sandbar_proto::rpc::{RpcError, Trace, code};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::Responder;
use crate::close::{CloseReason, Violation};

/// One request of the peer.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is asked for.
    pub method: String,
    /// Absent and `null` are the same.
    pub params: Option<Box<RawValue>>,
    /// Which trace it belongs to.
    pub trace: Option<Trace>,
    /// Whether it is counted as a long poll, because [`Service::is_long_poll`] said so.
    pub is_long_poll: bool,
}

impl Call {
    /// Reads the parameters. Absent ones are read as `null`, and where that doesn't fit as an object without members.
    ///
    /// # Errors
    /// `INVALID_PARAMS` with what doesn't fit.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, RpcError> {
        read_params(self.params.as_deref())
    }
}

pub(crate) fn read_params<T: DeserializeOwned>(params: Option<&RawValue>) -> Result<T, RpcError> {
    let read = match params {
        Some(params) => serde_json::from_str(params.get()),
        None => serde_json::from_str("null").or_else(|_| serde_json::from_str("{}")),
    };
    read.map_err(|error| RpcError::with_kind(code::INVALID_PARAMS, "invalid_params", error.to_string()))
}

/// What a connection calls for each message of its peer, in the order in which they came.
///
/// Every function is called by the reader and must not block: while one runs, nothing is read or written on this
/// connection. Spawn what takes time.
pub trait Service: Send + Sync + 'static {
    /// A request. It is answered through `responder`, now or later, from any task.
    fn request(self: &Arc<Self>, call: Call, responder: Responder);

    /// A notification.
    ///
    /// # Errors
    /// What the peer did wrong; the connection is dropped.
    fn notification(self: &Arc<Self>, method: &str, params: Option<&RawValue>) -> Result<(), Violation>;

    /// A binary frame that doesn't begin like a JSON object. One that does is read as if it were text.
    ///
    /// # Errors
    /// What the peer did wrong; the connection is dropped.
    fn binary(self: &Arc<Self>, frame: &[u8]) -> Result<(), Violation> {
        Err(Violation::Binary { why: format!("{} bytes, none were agreed on", frame.len()) })
    }

    /// Whether a request waits for something to happen, and so doesn't count among those in flight.
    fn is_long_poll(&self, method: &str, params: Option<&RawValue>) -> bool {
        let _ = (method, params);
        false
    }

    /// The connection has ended. Called once, last.
    fn closed(self: &Arc<Self>, reason: &CloseReason);
}
