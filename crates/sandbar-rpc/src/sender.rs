//! The writing side of a connection, for whoever has something to say.

use std::sync::Arc;

use sandbar_proto::rpc::{RpcError, Trace};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::close::{CloseReason, Closed};
use crate::envelope;
use crate::outbox::{Outbox, Refused};
use crate::packing::Packing;
use crate::pending::{Full, Pending, Ticket};
use crate::transport::Frame;

/// What every part of one connection shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) outbox: Outbox,
    pub(crate) pending: Pending,
    pub(crate) max_request_frame: usize,
    pub(crate) has_binary: bool,
    pub(crate) packing: Packing,
}

impl Shared {
    /// Puts a frame on the data lane, packed where that was agreed on.
    pub(crate) async fn data(&self, frame: Frame) -> Result<(), Closed> {
        let frame = if self.has_binary { self.packing.pack(frame) } else { frame };
        self.outbox.data(frame).await
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        self.outbox.close(reason);
        self.pending.close();
    }
}

/// The writing side of a connection. Clones share it; dropping one changes nothing.
#[derive(Debug, Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

/// Why a request got no result.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The connection ended before the answer came. What was asked for may have been done.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The peer refused it.
    #[error("{0}")]
    Refused(RpcError),
    /// It is larger than a peer would read, and was not sent.
    #[error("the request has {size} bytes, at most {limit} are sent")]
    TooLarge {
        /// Bytes of the message.
        size: usize,
        /// Bytes that may be sent.
        limit: usize,
    },
    /// Too many requests wait for an answer or for being written; this one was not sent.
    #[error("too many requests wait on this connection")]
    TooMany,
    /// The parameters have no JSON form; it was not sent.
    #[error("the parameters of `{method}` have no JSON form: {why}")]
    Params {
        /// What was asked for.
        method: String,
        /// What has none.
        why: String,
    },
}

/// Where a request waits to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Control,
    Data,
}

impl Sender {
    /// How many of our requests have had a result on this connection so far. A refusal is none. It counts when it comes,
    /// not when whoever asked gets to it.
    #[must_use]
    pub fn results(&self) -> u64 {
        self.shared.pending.results()
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Says something on the control lane: never waits, and passes data that is queued.
    ///
    /// # Errors
    /// The connection has ended; also when the lane is full, which ends it, and when the parameters have no JSON form.
    pub fn notify(&self, method: &str, params: &(impl Serialize + ?Sized)) -> Result<(), Closed> {
        let text = self.notification(method, params)?;
        self.shared.outbox.control(Frame::Text(text))
    }

    /// Sends a frame on the data lane. Waits for room, behind those who came earlier; a peer that lives and doesn't
    /// read makes it wait for as long as that lasts. Dropping the future takes the frame back, unless it is
    /// queued already.
    ///
    /// # Errors
    /// The connection has ended; also when the frame is binary and the transport carries none, which ends it.
    pub async fn data(&self, frame: Frame) -> Result<(), Closed> {
        if matches!(frame, Frame::Binary(_)) && !self.shared.has_binary {
            return Err(self.fail("a binary frame was sent on a transport that has none".into()));
        }
        self.shared.data(frame).await
    }

    /// Says something on the data lane, where it keeps its place behind the data sent before it.
    ///
    /// # Errors
    /// As [`Self::data`]; also when the parameters have no JSON form.
    pub async fn data_notification(
        &self,
        method: &str,
        params: &(impl Serialize + ?Sized),
    ) -> Result<(), Closed> {
        let text = self.notification(method, params)?;
        self.shared.data(Frame::Text(text)).await
    }

    /// Asks the peer, on the control lane, and waits for its answer for as long as the connection lives. Several may be
    /// in flight. Dropping the future cancels: its answer is thrown away when it comes, the peer is not told.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(
        &self,
        method: &str,
        params: &(impl Serialize + ?Sized),
    ) -> Result<Box<RawValue>, RequestError> {
        self.ask(Lane::Control, method, params, None).await
    }

    /// As [`Self::request`], as part of a trace.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request_in_trace(
        &self,
        method: &str,
        params: &(impl Serialize + ?Sized),
        trace: &Trace,
    ) -> Result<Box<RawValue>, RequestError> {
        self.ask(Lane::Control, method, params, Some(trace)).await
    }

    /// As [`Self::request`], on the data lane: for what is large (contents of files, standard input). Waits for room;
    /// keeps its place among data, while requests of the control lane pass it.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn data_request(
        &self,
        method: &str,
        params: &(impl Serialize + ?Sized),
    ) -> Result<Box<RawValue>, RequestError> {
        self.ask(Lane::Data, method, params, None).await
    }

    /// From now on messages that the peer packs with Zstandard are understood. To be said before the peer may pack any.
    pub fn take_packed(&self) {
        self.shared.packing.take();
    }

    /// From now on large messages of the data lane are packed with Zstandard, on transports that carry binary frames. To be
    /// said when the peer understands it.
    pub fn send_packed(&self) {
        self.shared.packing.send();
    }

    /// Whether the transport carries binary frames.
    #[must_use]
    pub fn has_binary(&self) -> bool {
        self.shared.has_binary
    }

    /// Ends the connection. What is queued is still written when the reason leaves the peer able to read it; the first
    /// reason stands.
    pub fn close(&self, why: CloseReason) {
        self.shared.close(why);
    }

    /// Waits until the connection ends: as long as it lives.
    pub async fn closed(&self) -> CloseReason {
        self.shared.outbox.wait_closed().await
    }

    /// Why the connection ended, if it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared.outbox.closed()
    }

    async fn ask(
        &self,
        lane: Lane,
        method: &str,
        params: &(impl Serialize + ?Sized),
        trace: Option<&Trace>,
    ) -> Result<Box<RawValue>, RequestError> {
        let mut ticket = self.shared.pending.open().map_err(|full| match full {
            Full::Closed => RequestError::Closed(self.ended()),
            Full::TooMany => RequestError::TooMany,
        })?;
        let text = envelope::request(ticket.id, method, params, trace)
            .map_err(|error| RequestError::Params { method: method.to_owned(), why: error.to_string() })?;
        let (size, limit) = (text.len(), self.shared.max_request_frame);
        if size > limit {
            return Err(RequestError::TooLarge { size, limit });
        }
        match lane {
            Lane::Control => {
                self.shared.outbox.try_control(Frame::Text(text)).map_err(|refused| match refused {
                    Refused::Closed(reason) => RequestError::Closed(Closed(reason)),
                    Refused::Full { .. } => RequestError::TooMany,
                })?
            }
            Lane::Data => self.shared.data(Frame::Text(text)).await?,
        }
        ticket.sent();
        self.answer(ticket).await
    }

    async fn answer(&self, ticket: Ticket<'_>) -> Result<Box<RawValue>, RequestError> {
        match ticket.answer().await {
            Some(Ok(result)) => Ok(result),
            Some(Err(error)) => Err(RequestError::Refused(error)),
            None => Err(RequestError::Closed(self.ended())),
        }
    }

    fn ended(&self) -> Closed {
        Closed(self.close_reason().unwrap_or(CloseReason::Abandoned))
    }

    fn notification(&self, method: &str, params: &(impl Serialize + ?Sized)) -> Result<String, Closed> {
        envelope::notification(method, params)
            .map_err(|error| self.fail(format!("the parameters of `{method}` have no JSON form: {error}")))
    }

    /// A fault of this side: going on would lose a message in silence.
    fn fail(&self, why: String) -> Closed {
        self.close(CloseReason::local(why));
        self.ended()
    }
}
