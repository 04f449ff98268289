//! Our own requests that are not answered yet.
//!
//! Keeps cancelled ones until their answer comes, so that a late answer is not mistaken for one that nobody asked for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sandbar_proto::rpc::{RequestId, RpcError};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

pub(crate) type Answer = Result<Box<RawValue>, RpcError>;

#[derive(Debug)]
pub(crate) struct Pending {
    state: Mutex<State>,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    last: i64,
    /// `None` when whoever asked has gone.
    waiting: HashMap<i64, Option<oneshot::Sender<Answer>>>,
    results: u64,
    is_closed: bool,
}

/// Why a request can't be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Closed,
    TooMany,
}

impl Pending {
    pub(crate) fn new(most: usize) -> Self {
        Self { state: Mutex::default(), most }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held: whatever is in it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new id, and where its answer will come. Dropping the ticket cancels.
    pub(crate) fn open(&self) -> Result<Ticket<'_>, Full> {
        let mut state = self.state();
        if state.is_closed {
            return Err(Full::Closed);
        }
        if state.waiting.len() >= self.most {
            return Err(Full::TooMany);
        }
        let (sender, answer) = oneshot::channel();
        state.last += 1;
        let id = state.last;
        state.waiting.insert(id, Some(sender));
        Ok(Ticket { pending: self, id, answer, is_sent: false, is_done: false })
    }

    /// Hands an answer to whoever asked; false when nobody ever did.
    pub(crate) fn answer(&self, id: &RequestId, answer: Answer) -> bool {
        let RequestId::Number(id) = id else { return false };
        let mut state = self.state();
        let Some(waiting) = state.waiting.remove(id) else { return false };
        state.results += u64::from(answer.is_ok());
        drop(state);
        if let Some(waiting) = waiting {
            // Whoever asked may have gone just now.
            let _ = waiting.send(answer);
        }
        true
    }

    /// Requests that had a result.
    pub(crate) fn results(&self) -> u64 {
        self.state().results
    }

    /// Lets everybody know, by dropping what they wait for, that no answer will come.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }
}

/// One request of ours.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    pending: &'a Pending,
    pub(crate) id: i64,
    answer: oneshot::Receiver<Answer>,
    is_sent: bool,
    is_done: bool,
}

impl Ticket<'_> {
    /// Notes that the request may reach the peer, so that it may answer.
    pub(crate) fn sent(&mut self) {
        self.is_sent = true;
    }

    /// Waits for the answer, as long as the connection lives; `None` when it ended.
    pub(crate) async fn answer(mut self) -> Option<Answer> {
        let answer = (&mut self.answer).await.ok();
        self.is_done = true;
        answer
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut state = self.pending.state();
        if !self.is_sent {
            state.waiting.remove(&self.id);
        } else if let Some(waiting) = state.waiting.get_mut(&self.id) {
            *waiting = None;
        }
    }
}
