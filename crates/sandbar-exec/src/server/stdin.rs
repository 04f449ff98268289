//! Writes to a process's standard input, each carried out once however often it is asked for.
//!
//! What this server carried out it remembers; what a server before it did, the keeper remembers.

use std::collections::{HashSet, VecDeque};

use sandbar_keeper::protocol::Refusal;
use sandbar_proto::exec::WriteStatus;
use sandbar_proto::{InputId, SessionId};

use crate::{ProcessControl, ProcessError};

/// Names of writes that are remembered: more than a client can have under way.
const REMEMBERED: usize = 8192;

/// The input of one process.
#[derive(Debug, Default)]
pub(super) struct Stdin {
    is_closed: bool,
    done: HashSet<String>,
    order: VecDeque<String>,
}

impl Stdin {
    /// An input that takes nothing.
    pub(super) fn closed() -> Self {
        Self { is_closed: true, ..Self::default() }
    }

    /// Writes, unless that was done before: `id` is what the client calls it, among what it calls the process by the name
    /// `process` in the session `session`. Waits while the process does not read and the queue before it is full.
    ///
    /// # Errors
    /// The process can't be reached.
    pub(super) async fn write(
        &mut self,
        control: &dyn ProcessControl,
        (session, process, id): (&SessionId, &str, Option<&str>),
        bytes: &[u8],
    ) -> Result<WriteStatus, ProcessError> {
        if id.is_some_and(|id| self.done.contains(id)) {
            return Ok(WriteStatus::Accepted);
        }
        let written = match id {
            // One that was carried out before the close was, whoever carried it out: the keeper is asked.
            Some(id) => control.type_input_once(InputId::of(&[session.as_str(), process, id]), bytes).await,
            None if self.is_closed => return Ok(WriteStatus::StdinClosed),
            None => control.type_input(bytes).await,
        };
        match written {
            Ok(()) => {
                self.remember(id);
                Ok(WriteStatus::Accepted)
            }
            Err(ProcessError::StdinClosed | ProcessError::Refused(Refusal::Unknown { .. })) => {
                self.is_closed = true;
                Ok(WriteStatus::StdinClosed)
            }
            Err(_) if self.is_closed => Ok(WriteStatus::StdinClosed),
            Err(error) => Err(error),
        }
    }

    /// Closes it behind everything that was written.
    ///
    /// # Errors
    /// The process can't be reached.
    pub(super) async fn close(&mut self, control: &dyn ProcessControl) -> Result<(), ProcessError> {
        match control.close_stdin().await {
            Ok(()) | Err(ProcessError::StdinClosed) => {
                self.is_closed = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn remember(&mut self, id: Option<&str>) {
        let Some(id) = id else { return };
        self.done.insert(id.to_owned());
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.done.remove(&oldest);
        }
    }
}
