//! The right to answer one request, once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sandbar_proto::rpc::{RequestId, RpcError, code};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::close::Closed;
use crate::envelope;
use crate::sender::Shared;
use crate::transport::Frame;

/// A place among the requests in flight; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place, unless `most` are taken.
    pub(crate) fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        // Only the reader takes places, so nobody comes between the look and the addition.
        if taken.load(Ordering::Relaxed) >= most {
            return None;
        }
        taken.fetch_add(1, Ordering::Relaxed);
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers one request exactly once. Dropped without an answer, it answers with an internal error.
///
/// An answer to a connection that has ended goes nowhere, which is no error: the peer is not there to hear it.
pub struct Responder {
    shared: Arc<Shared>,
    id: RequestId,
    method: Box<str>,
    is_answered: bool,
    when_answered: Option<WhenAnswered>,
    _place: Place,
}

/// Hears what an answer was: the error, if it was one.
type WhenAnswered = Box<dyn FnOnce(Option<&RpcError>) + Send + Sync>;

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("id", &self.id)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl Responder {
    pub(crate) fn new(shared: Arc<Shared>, id: RequestId, method: &str, place: Place) -> Self {
        Self { shared, id, method: method.into(), is_answered: false, when_answered: None, _place: place }
    }

    /// Calls `hear` once it is answered, with the error if that is the answer. A later one takes the place of an earlier.
    pub fn when_answered(&mut self, hear: impl FnOnce(Option<&RpcError>) + Send + Sync + 'static) {
        self.when_answered = Some(Box::new(hear));
    }

    fn tell(&mut self, error: Option<&RpcError>) {
        if let Some(hear) = self.when_answered.take() {
            hear(error);
        }
    }

    /// The id that the peer chose; not unique, for peers may use one twice.
    #[must_use]
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Answers with a result, on the control lane: for results of up to some KiB.
    pub fn ok(mut self, result: &(impl Serialize + ?Sized)) {
        match envelope::response(&self.id, result) {
            Ok(text) => {
                self.tell(None);
                self.control(text);
            }
            Err(error) => self.err(no_json(&error)),
        }
    }

    /// Refuses, on the control lane.
    pub fn err(mut self, error: RpcError) {
        self.tell(Some(&error));
        let text = envelope::refusal(&self.id, &error);
        self.control(text);
    }

    /// Answers with a result or refuses, on the control lane.
    pub fn answer(self, result: Result<impl Serialize, RpcError>) {
        match result {
            Ok(result) => self.ok(&result),
            Err(error) => self.err(error),
        }
    }

    /// Answers with a large result, on the data lane, where it waits for room. Dropping the future while it waits
    /// answers with an internal error.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn data_ok(self, result: &(impl Serialize + ?Sized)) -> Result<(), Closed> {
        let frame = envelope::response(&self.id, result).map(Frame::Text);
        self.data_frame(frame).await
    }

    /// As [`Self::data_ok`], for a result that is JSON already: it is written from where it lies.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn data_json(self, result: Box<RawValue>) -> Result<(), Closed> {
        let frame = envelope::response_around(&self.id, result).map(Frame::Pieces);
        self.data_frame(frame).await
    }

    async fn data_frame(mut self, frame: serde_json::Result<Frame>) -> Result<(), Closed> {
        match frame {
            Ok(frame) => {
                self.shared.data(frame).await?;
                self.is_answered = true;
                self.tell(None);
            }
            Err(error) => self.err(no_json(&error)),
        }
        Ok(())
    }

    /// Waits until the connection ends, when no answer is of use any more: as long as it lives.
    pub async fn closed(&self) {
        self.shared.outbox.wait_closed().await;
    }

    fn control(mut self, text: String) {
        self.is_answered = true;
        // Nobody is there to hear it; see the type.
        let _ = self.shared.outbox.control(Frame::Text(text));
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let message = format!("`{}` ended without an answer", self.method);
        let error = RpcError::with_kind(code::INTERNAL, "unanswered", message);
        self.tell(Some(&error));
        // Nobody is there to hear it; see the type.
        let _ = self.shared.outbox.control(Frame::Text(envelope::refusal(&self.id, &error)));
    }
}

fn no_json(error: &serde_json::Error) -> RpcError {
    RpcError::with_kind(code::INTERNAL, "no_json", format!("the result has no JSON form: {error}"))
}
