//! A session: who owns which processes, and which connection speaks for the owner now.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sandbar_proto::exec::{Extensions, Page, ProcessSummary, SessionEvicted, method};
use sandbar_proto::rpc::{RpcError, code};
use sandbar_proto::{RunId, SessionId};
use sandbar_rpc::auth::Principal;
use sandbar_rpc::{CloseReason, Sender};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::process::Live;
use super::{Settings, refusal};

/// How long a connection that was evicted may take to answer what it was asked before; then it is closed all the same.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Processes of one page of a list.
const PAGE: usize = 64;

/// What a server leaves with the keeper about a session, for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionMemo {
    /// The server that serves it, by the name of its mark of life.
    pub(super) server: String,
    /// Whose it is.
    pub(super) principal: String,
}

/// A connection that speaks for a session.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    /// Unique among the connections of this server.
    pub(super) connection: u64,
    pub(super) sender: Sender,
    pub(super) extensions: Extensions,
    /// Whoever has a request of it in hand holds a receiver until that is answered.
    pub(super) answering: Arc<watch::Sender<()>>,
    /// When it resumed the session, whose processes went on meanwhile. `None` for the one that began it.
    pub(super) resumed: Option<Instant>,
}

impl Attachment {
    /// Tells a connection that it speaks for the session no more, as the last that it hears: what it asked before is
    /// answered first. Nobody waits for that, least of all the new owner.
    async fn evict(self, session: SessionId) {
        // One that does not read its answers is closed without the rest of them.
        let _ = tokio::time::timeout(LAST_ANSWERS, self.answering.closed()).await;
        let told = SessionEvicted { session_id: session.as_str().to_owned() };
        // One that has ended needs no word.
        let _ = self.sender.notify(method::SESSION_EVICTED, &told);
        self.sender.close(CloseReason::local("the session was taken over by another connection"));
    }
}

/// A process of a session.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// The start of that run is under way.
    Starting(RunId),
    /// It was started.
    Live(Arc<Live>),
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) principal: Principal,
    settings: Settings,
    state: Mutex<State>,
    /// The connection that is attached, by its number; long polls of another one have no claim any more.
    attached: watch::Sender<Option<u64>>,
    /// Tells when a start is no longer under way.
    settled: watch::Sender<()>,
    /// Which keeper has heard of it.
    pub(super) leased: tokio::sync::Mutex<Option<u64>>,
}

#[derive(Debug)]
struct State {
    attachment: Option<Attachment>,
    /// When it ends unless somebody comes back. `None` while somebody is there.
    expires: Option<Instant>,
    has_ended: bool,
    processes: BTreeMap<String, Entry>,
    /// Ended processes, the first to end first.
    ended: VecDeque<String>,
}

/// Why a connection can't speak for a session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another one does.
    Attached,
    /// It has ended.
    Ended,
}

impl Refused {
    pub(super) fn error(&self, id: &str) -> RpcError {
        match self {
            Self::Attached => RpcError::with_kind(
                code::SESSION_ATTACHED,
                "session_attached",
                format!("session {id} is already attached to another connection"),
            ),
            Self::Ended => unknown(id),
        }
    }
}

/// Also the answer to somebody who is not the owner: that a session exists is not for others to know.
pub(super) fn unknown(id: &str) -> RpcError {
    refusal::invalid("unknown_session", format!("unknown session id {id}"))
}

impl Session {
    /// A session that nobody speaks for yet.
    pub(super) fn new(id: SessionId, principal: Principal, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            id,
            principal,
            settings,
            state: Mutex::new(State {
                attachment: None,
                expires: Some(Instant::now() + settings.session_ttl),
                has_ended: false,
                processes: BTreeMap::new(),
                ended: VecDeque::new(),
            }),
            attached: watch::channel(None).0,
            settled: watch::channel(()).0,
            leased: tokio::sync::Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below can panic while it holds the lock, and a state that is half changed does not exist.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection speak for it. At the moment of its expiry the end wins.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn attach(&self, attachment: Attachment, takeover: bool) -> Result<(), Refused> {
        let connection = attachment.connection;
        let evicted = {
            let mut state = self.state();
            if state.has_ended || state.expires.is_some_and(|at| Instant::now() >= at) {
                return Err(Refused::Ended);
            }
            if state.attachment.is_some() && !takeover {
                return Err(Refused::Attached);
            }
            state.expires = None;
            // Under the lock, so that of two takeovers the same one is the last everywhere.
            self.attached.send_replace(Some(connection));
            state.attachment.replace(attachment)
        };
        if let Some(old) = evicted {
            tokio::spawn(old.evict(self.id.clone()));
        }
        Ok(())
    }

    /// Notes that a connection has ended. Returns when the session ends, if it was this one that spoke for it.
    pub(super) fn detach(&self, connection: u64) -> Option<Instant> {
        let mut state = self.state();
        if state.attachment.as_ref().is_none_or(|attachment| attachment.connection != connection) {
            return None;
        }
        state.attachment = None;
        let expires = Instant::now() + self.settings.session_ttl;
        state.expires = Some(expires);
        self.attached.send_replace(None);
        Some(expires)
    }

    /// Ends it if its time is over; once.
    pub(super) fn expire(&self, now: Instant) -> bool {
        let mut state = self.state();
        let is_over = !state.has_ended && state.expires.is_some_and(|at| now >= at);
        state.has_ended |= is_over;
        is_over
    }

    /// Ends it whatever its time; once.
    pub(super) fn end(&self) -> bool {
        let mut state = self.state();
        !std::mem::replace(&mut state.has_ended, true)
    }

    /// When it is to be looked at again: its expiry, or at the earliest a detach that might come at once.
    pub(super) fn expires(&self) -> Option<Instant> {
        self.state().expires
    }

    /// The connection that speaks for it.
    pub(super) fn attachment(&self) -> Option<Attachment> {
        self.state().attachment.clone()
    }

    /// Whether `connection` speaks for it.
    pub(super) fn is_attached_to(&self, connection: u64) -> bool {
        *self.attached.borrow() == Some(connection)
    }

    /// Waits until `connection` no longer speaks for it: as long as it does.
    pub(super) async fn lost(&self, connection: u64) {
        let mut attached = self.attached.subscribe();
        // The sender lives as long as the session, and with it this wait.
        let _ = attached.wait_for(|now| *now != Some(connection)).await;
    }

    /// Takes the place of a process that is about to start.
    ///
    /// # Errors
    /// The name is taken, or there are too many.
    pub(super) fn reserve(&self, id: &str, run: RunId) -> Result<(), RpcError> {
        let mut state = self.state();
        if state.has_ended {
            return Err(unknown(self.id.as_str()));
        }
        if state.processes.contains_key(id) {
            return Err(refusal::invalid("duplicate_process", format!("process {id} already exists")));
        }
        if state.processes.len() - state.ended.len() >= self.settings.max_processes {
            let most = self.settings.max_processes;
            return Err(refusal::invalid(
                "too_many_processes",
                format!("{most} processes of this session live already"),
            ));
        }
        state.processes.insert(id.to_owned(), Entry::Starting(run));
        Ok(())
    }

    /// The process of that name, if it is that run: its start was asked for before, and its answer got lost. Waits for a
    /// start that is under way.
    pub(super) async fn started_before(&self, id: &str, run: RunId) -> Option<Arc<Live>> {
        let mut settled = self.settled.subscribe();
        loop {
            match self.entry(id) {
                Some(Entry::Live(live)) if live.run == run => return Some(live),
                Some(Entry::Starting(other)) if other == run => {}
                Some(Entry::Live(_) | Entry::Starting(_)) | None => return None,
            }
            // The sender lives as long as the session.
            settled.changed().await.ok()?;
        }
    }

    /// The process of that name, once a start of it that is under way has come to something.
    pub(super) async fn settled(&self, id: &str) -> Option<Arc<Live>> {
        let mut settled = self.settled.subscribe();
        loop {
            match self.entry(id)? {
                Entry::Live(live) => return Some(live),
                Entry::Starting(_) => {}
            }
            // The sender lives as long as the session.
            settled.changed().await.ok()?;
        }
    }

    /// Gives a place up: the start failed, and the name is free.
    pub(super) fn release(&self, id: &str) {
        self.state().processes.remove(id);
        self.settled.send_replace(());
    }

    /// Puts a process into its place. Whether the session still lives; if not, the process is to be ended.
    pub(super) fn settle(&self, live: &Arc<Live>) -> bool {
        let mut state = self.state();
        state.processes.insert(live.id().to_owned(), Entry::Live(Arc::clone(live)));
        let lives = !state.has_ended;
        drop(state);
        self.settled.send_replace(());
        lives
    }

    /// A process by its name.
    pub(super) fn entry(&self, id: &str) -> Option<Entry> {
        self.state().processes.get(id).cloned()
    }

    /// A process that was started.
    ///
    /// # Errors
    /// There is none of that name, or its start is under way.
    pub(super) fn live(&self, id: &str) -> Result<Arc<Live>, RpcError> {
        match self.entry(id) {
            Some(Entry::Live(live)) => Ok(live),
            Some(Entry::Starting(_)) => Err(refusal::starting(id)),
            None => Err(refusal::unknown_process(id)),
        }
    }

    /// Every process that was started.
    pub(super) fn all(&self) -> Vec<Arc<Live>> {
        let state = self.state();
        let live = state.processes.values().filter_map(|entry| match entry {
            Entry::Live(live) => Some(Arc::clone(live)),
            Entry::Starting(_) => None,
        });
        live.collect()
    }

    /// A page of its processes, by name.
    pub(super) fn page(&self, after: Option<&str>) -> Page {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = self.state();
        let from = after.map_or(Unbounded, Excluded);
        let mut rest =
            state.processes.range::<str, _>((from, Unbounded)).filter_map(|(_, entry)| match entry {
                Entry::Live(live) => Some(live.summary()),
                Entry::Starting(_) => None,
            });
        let processes: Vec<ProcessSummary> = rest.by_ref().take(PAGE).collect();
        Page { more: rest.next().is_some(), processes }
    }

    /// Notes that a process is over, and forgets the oldest of those if there are more than are remembered.
    pub(super) fn note_end(&self, id: &str) {
        let mut state = self.state();
        state.ended.push_back(id.to_owned());
        while state.ended.len() > self.settings.max_ended {
            if let Some(oldest) = state.ended.pop_front() {
                state.processes.remove(&oldest);
            }
        }
    }

    /// How long it waits for its client.
    pub(super) fn ttl(&self) -> Duration {
        self.settings.session_ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_rpc::{Connection, Limits, memory};

    fn session() -> Arc<Session> {
        let settings = Settings { max_processes: 2, max_ended: 1, ..Settings::default() };
        Session::new(SessionId::new("s").unwrap(), Principal::new("p"), settings)
    }

    fn attachment(connection: u64) -> (Attachment, Connection) {
        let (_client, server, _link) = memory();
        let (sender, running) = Connection::new(server, Limits::default());
        let (extensions, answering) = (Extensions::default(), Arc::default());
        (Attachment { connection, sender, extensions, answering, resumed: None }, running)
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_speaks_for_a_session_until_it_ends_or_another_takes_over() {
        let session = session();
        let (first, _running) = attachment(1);
        session.attach(first.clone(), false).unwrap();
        assert_eq!(session.attach(attachment(2).0, false), Err(Refused::Attached));
        let in_hand = first.answering.subscribe();
        session.attach(attachment(3).0, true).unwrap();
        assert!(session.is_attached_to(3) && !session.is_attached_to(1));
        tokio::task::yield_now().await;
        assert!(first.sender.close_reason().is_none(), "the old connection may still answer");
        drop(in_hand);
        first.sender.closed().await;
        assert_eq!(session.detach(1), None, "and says nothing more");
        assert!(session.detach(3).is_some());
        session.attach(attachment(4).0, false).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_moment_of_expiry_the_end_wins() {
        let session = session();
        session.attach(attachment(1).0, false).unwrap();
        let expires = session.detach(1).unwrap();
        tokio::time::advance(session.ttl() - Duration::from_millis(1)).await;
        assert!(!session.expire(Instant::now()));
        session.attach(attachment(2).0, false).unwrap();
        assert!(!session.expire(expires), "somebody came back");
        let expires = session.detach(2).unwrap();
        tokio::time::advance(session.ttl()).await;
        assert_eq!(session.attach(attachment(3).0, true), Err(Refused::Ended), "before anybody expired it");
        assert!(session.expire(expires) && !session.expire(expires), "once");
    }

    #[tokio::test]
    async fn a_name_is_taken_from_the_start_on_and_free_after_a_failure() {
        let session = session();
        session.reserve("a", RunId::generate()).unwrap();
        let taken = session.reserve("a", RunId::generate()).unwrap_err();
        assert_eq!(taken.message, "process a already exists");
        assert_eq!(session.live("a").unwrap_err().message, "process id a is starting");
        session.release("a");
        session.reserve("a", RunId::generate()).unwrap();
        session.reserve("b", RunId::generate()).unwrap();
        assert_eq!(session.reserve("c", RunId::generate()).unwrap_err().kind(), Some("too_many_processes"));
        assert_eq!(session.live("c").unwrap_err().message, "unknown process id c");
    }
}
