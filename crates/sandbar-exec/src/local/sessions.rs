//! Sessions of this machine's keeper.

use std::time::Duration;

use sandbar_keeper::protocol::{ProcessState, Refusal, Reply, Request, SESSIONS_MINOR, SessionState};
use sandbar_proto::{Blob, SessionId};

use super::actor::Outgoing;
use super::{LocalProcesses, done, refused};
use crate::processes::{BoxFuture, ProcessError, Sessions};

/// Refuses here what the keeper would refuse: a packet of ours that is too large for it is the end of the connection.
pub(super) fn check_blob(blob: &Blob) -> Result<(), Refusal> {
    let (bytes, limit_bytes) = (blob.as_bytes().len(), Blob::MAX_BYTES);
    if bytes <= limit_bytes { Ok(()) } else { Err(Refusal::BlobTooLarge { bytes, limit_bytes }) }
}

impl LocalProcesses {
    async fn ask(&self, request: Request) -> Result<Reply, ProcessError> {
        self.needs(SESSIONS_MINOR)?;
        self.keeper.request(Outgoing::plain(request)).await
    }

    async fn renew(&self, session: SessionId, blob: Blob, ttl: Duration) -> Result<(), ProcessError> {
        check_blob(&blob).map_err(ProcessError::Refused)?;
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        done(self.ask(Request::Session { session, blob, ttl_ms }).await?)
    }

    async fn all_sessions(&self) -> Result<Vec<SessionState>, ProcessError> {
        let mut all: Vec<SessionState> = Vec::new();
        loop {
            let after = all.last().map(|state| state.session.clone());
            match self.ask(Request::Sessions { after }).await? {
                Reply::Sessions { sessions, more } => {
                    let done = !more || sessions.is_empty();
                    all.extend(sessions);
                    if done {
                        return Ok(all);
                    }
                }
                other => return Err(refused(other)),
            }
        }
    }

    async fn processes_of(&self, session: SessionId) -> Result<Vec<ProcessState>, ProcessError> {
        let mut all: Vec<ProcessState> = Vec::new();
        loop {
            let after = all.last().map(|state| state.start.id);
            match self.ask(Request::SessionProcesses { session: session.clone(), after }).await? {
                Reply::Listed { processes, more } => {
                    let done = !more || processes.is_empty();
                    all.extend(processes);
                    if done {
                        return Ok(all);
                    }
                }
                other => return Err(refused(other)),
            }
        }
    }
}

impl Sessions for LocalProcesses {
    fn session(
        &self,
        session: SessionId,
        blob: Blob,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(self.renew(session, blob, ttl))
    }

    fn end_session(&self, session: SessionId) -> BoxFuture<'_, Result<(), ProcessError>> {
        Box::pin(async move { done(self.ask(Request::EndSession { session }).await?) })
    }

    fn sessions(&self) -> BoxFuture<'_, Result<Vec<SessionState>, ProcessError>> {
        Box::pin(self.all_sessions())
    }

    fn session_processes(
        &self,
        session: SessionId,
    ) -> BoxFuture<'_, Result<Vec<ProcessState>, ProcessError>> {
        Box::pin(self.processes_of(session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_beyond_the_limit_is_refused_before_it_is_sent() {
        let blob = |bytes| Blob::from(vec![7; bytes]);
        assert_eq!(check_blob(&blob(Blob::MAX_BYTES)), Ok(()));
        let limit_bytes = Blob::MAX_BYTES;
        let expected = Refusal::BlobTooLarge { bytes: limit_bytes + 1, limit_bytes };
        assert_eq!(check_blob(&blob(limit_bytes + 1)), Err(expected));
    }
}
