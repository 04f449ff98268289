//! The sessions of a server: made, resumed, taken over, expired in one place, and found again after a server died.
//!
//! The keeper holds a lease for each session, which this server renews as long as it lives and knows the session. While
//! it lives it alone decides when a session is over; when it was killed the lease runs out, and the keeper does. The next
//! server adopts what it finds: processes with their numbers, logs and ends.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sandbar_keeper::protocol::ProcessState;
use sandbar_proto::exec::ProcessPhase;
use sandbar_proto::rpc::RpcError;
use sandbar_proto::{Blob, Seq, SessionId};
use sandbar_rpc::auth::Principal;
use tokio::time::Instant;
use uuid::Uuid;

use super::keeper::Keeper;
use super::process::{Live, Memo};
use super::session::{Attachment, Session, SessionMemo, unknown};
use super::{Figures, Settings, attach, follower, refusal};
use crate::local::LocalProcesses;
use crate::{ProcessError, Processes as _, Sessions as _, Watching};

/// How often a lease is renewed within its time.
const RENEWALS: u32 = 4;

const SIGKILL: i32 = 9;

/// The sessions of this server.
#[derive(Debug)]
pub(super) struct Sessions {
    keeper: Arc<Keeper>,
    settings: Settings,
    mark: Mark,
    open: Mutex<HashMap<SessionId, Arc<Session>>>,
    adopting: tokio::sync::Mutex<()>,
    connections: AtomicU64,
}

/// The sign that this server lives: a file that it holds locked. Whoever gets the lock knows that it is gone.
#[derive(Debug)]
struct Mark {
    directory: PathBuf,
    name: String,
    _locked: File,
}

impl Mark {
    fn make(directory: &Path) -> std::io::Result<Self> {
        let name = Uuid::new_v4().to_string();
        let file = File::create_new(directory.join(&name))?;
        file.try_lock()?;
        Ok(Self { directory: directory.to_owned(), name, _locked: file })
    }

    /// Whether the server of that name is gone. One whose mark is not there never lived on this machine, or was
    /// tidied away.
    fn is_gone(&self, name: &str) -> bool {
        if name == self.name || Uuid::parse_str(name).is_err() {
            return false;
        }
        match File::open(self.directory.join(name)) {
            Ok(file) => file.try_lock().is_ok(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// Removes the mark of a server that is gone.
    fn forget(&self, name: &str) {
        if Uuid::parse_str(name).is_ok() {
            // Another server may have done so.
            let _ = std::fs::remove_file(self.directory.join(name));
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.directory.join(&self.name));
    }
}

impl Sessions {
    /// None yet. `marks` is where servers of this user tell each other that they live.
    ///
    /// # Errors
    /// The mark can't be made.
    pub(super) fn new(keeper: Arc<Keeper>, marks: &Path, settings: Settings) -> std::io::Result<Arc<Self>> {
        let sessions = Arc::new(Self {
            keeper,
            settings,
            mark: Mark::make(marks)?,
            open: Mutex::default(),
            adopting: tokio::sync::Mutex::default(),
            connections: AtomicU64::new(1),
        });
        Ok(sessions)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        // As with the state of a session: nothing below panics while it holds the lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn processes(&self) -> LocalProcesses {
        self.keeper.held().to.processes
    }

    /// A number for a new connection.
    pub(super) fn number(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a session for `attachment`.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn begin(
        self: &Arc<Self>,
        principal: Principal,
        attachment: Attachment,
    ) -> Result<Arc<Session>, RpcError> {
        let id = SessionId::new(Uuid::new_v4().to_string())
            .map_err(|error| refusal::invalid("session_id", error.to_string()))?;
        let session = Session::new(id.clone(), principal, self.settings);
        session.attach(attachment, false).map_err(|refused| refused.error(id.as_str()))?;
        let mut open = self.open();
        if open.len() >= self.settings.max_sessions {
            let most = self.settings.max_sessions;
            return Err(refusal::invalid("too_many_sessions", format!("{most} sessions are open already")));
        }
        open.insert(id, Arc::clone(&session));
        drop(open);
        tokio::spawn(Arc::clone(self).keep(Arc::clone(&session)));
        Ok(session)
    }

    /// Goes on with a session, one of a server that is gone included.
    ///
    /// # Errors
    /// There is none, it belongs to somebody else, or another connection has it.
    pub(super) async fn resume(
        self: &Arc<Self>,
        id: &str,
        principal: &Principal,
        mut attachment: Attachment,
        takeover: bool,
    ) -> Result<Arc<Session>, RpcError> {
        let name = SessionId::new(id).map_err(|_| unknown(id))?;
        let known = self.open().get(&name).cloned();
        let session = match known {
            Some(session) => session,
            None => {
                let asked = Some((&name, principal));
                self.adopt(asked).await.map_err(|error| refusal::process(&error))?;
                self.open().get(&name).cloned().ok_or_else(|| unknown(id))?
            }
        };
        if session.principal != *principal {
            return Err(unknown(id));
        }
        attachment.resumed = Some(Instant::now());
        session.attach(attachment, takeover).map_err(|refused| refused.error(id))?;
        Ok(session)
    }

    /// Keeps a session's lease until the session is over, and ends it then. The one place where a session expires.
    async fn keep(self: Arc<Self>, session: Arc<Session>) {
        let ttl = session.ttl();
        loop {
            let expires = session.expires();
            let look = Instant::now() + ttl / RENEWALS;
            tokio::time::sleep_until(expires.map_or(look, |at| at.min(look))).await;
            if session.expire(Instant::now()) {
                self.close(&session).await;
                return;
            }
            if !self.open().contains_key(&session.id) {
                return;
            }
            // A keeper that is gone took the processes with it, which their followers say.
            if matches!(self.lease(&session).await, Err(ProcessError::Refused(_))) {
                session.end();
                self.close(&session).await;
                return;
            }
        }
    }

    /// Makes the lease of a session, before its first process.
    ///
    /// # Errors
    /// As [`Self::lease`].
    pub(super) async fn ensure_lease(&self, session: &Session) -> Result<(), ProcessError> {
        let generation = self.keeper.alive().await?.generation;
        let mut leased = session.leased.lock().await;
        if *leased != Some(generation) {
            self.lease(session).await?;
            *leased = Some(generation);
        }
        Ok(())
    }

    /// Makes or renews the lease of a session.
    ///
    /// # Errors
    /// The keeper refuses it, or is gone.
    pub(super) async fn lease(&self, session: &Session) -> Result<(), ProcessError> {
        let memo =
            SessionMemo { server: self.mark.name.clone(), principal: session.principal.as_str().to_owned() };
        let blob = serde_json::to_vec(&memo).map_err(|error| ProcessError::Lost(error.to_string()))?;
        self.processes().session(session.id.clone(), Blob::from(blob), session.ttl()).await
    }

    /// Ends what runs in a session, and forgets it.
    async fn close(&self, session: &Session) {
        self.open().remove(&session.id);
        for live in session.all() {
            let is_over = live.progress.borrow().is_over();
            if !live.is_detached && !is_over {
                // One that is gone needs no end.
                let _ = live.control.terminate(SIGKILL, Duration::ZERO).await;
            }
        }
        // A session without a lease never started anything.
        let _ = self.processes().end_session(session.id.clone()).await;
    }

    /// Ends every session.
    pub(super) async fn end_all(&self) {
        let all: Vec<Arc<Session>> = self.open().values().cloned().collect();
        for session in all {
            session.end();
            self.close(&session).await;
        }
    }

    /// Takes over sessions of servers that are gone: all of them, or the one that its owner asks for.
    ///
    /// # Errors
    /// The keeper can't be asked.
    pub(super) async fn adopt(
        self: &Arc<Self>,
        only: Option<(&SessionId, &Principal)>,
    ) -> Result<(), ProcessError> {
        for found in self.keeper.alive().await?.to.processes.sessions().await? {
            if only.is_some_and(|(session, _)| *session != found.session) {
                continue;
            }
            // One at a time, so that whoever asks for one does not wait for all.
            let _adopting = self.adopting.lock().await;
            let Ok(memo) = serde_json::from_slice::<SessionMemo>(found.blob.as_bytes()) else {
                // Somebody else's.
                continue;
            };
            if only.is_some_and(|(_, principal)| principal.as_str() != memo.principal) {
                continue;
            }
            if self.open().contains_key(&found.session) || !self.mark.is_gone(&memo.server) {
                continue;
            }
            let session = Session::new(found.session.clone(), Principal::new(memo.principal), self.settings);
            // From here on it is ours, in the eyes of every other server.
            if self.lease(&session).await.is_err() {
                continue;
            }
            self.mark.forget(&memo.server);
            for state in self.processes().session_processes(found.session.clone()).await? {
                self.adopt_process(&session, state).await;
            }
            self.open().insert(found.session, Arc::clone(&session));
            tokio::spawn(Arc::clone(self).keep(session));
        }
        Ok(())
    }

    async fn adopt_process(&self, session: &Arc<Session>, state: ProcessState) {
        let owner = state.start.owner.as_ref();
        let Some(memo) = owner.and_then(|owner| serde_json::from_slice::<Memo>(owner.blob.as_bytes()).ok())
        else {
            return;
        };
        // What has ended is followed as well: its end and its output are still there to be read.
        let held = self.keeper.held().to;
        let Ok(process) = held.processes.follow_from(state.start.id, Watching::Lossless, Seq(0)).await else {
            return;
        };
        let live = Live::new(memo, attach::started(&*process), process.control(), held.readers);
        session.settle(&live);
        tokio::spawn(follower::follow(Arc::downgrade(session), live, process));
    }

    /// Counts.
    pub(super) fn figures(&self) -> Figures {
        let open = self.open();
        let mut figures = Figures { sessions: open.len(), ..Figures::default() };
        for session in open.values() {
            figures.attached += usize::from(session.attachment().is_some());
            for live in session.all() {
                figures.remembered += 1;
                let phase = live.progress.borrow().phase();
                figures.running += usize::from(phase == ProcessPhase::Running);
            }
        }
        figures
    }
}
