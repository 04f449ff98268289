//! Sessions: what a server leaves with the keeper, so that its processes are found again after its own end.
//!
//! A session is a lease. Whoever holds it renews it; nobody else does, and the end of a connection ends none. Its
//! expiry is decided here and nowhere else, and it wins: every request looks at the clock before anything else, so one
//! that comes too late finds a session that has ended. The name of an ended session is remembered, so that it is never
//! half revived.
//!
//! What a blob says is not looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use sandbar_proto::{Blob, Lifetime, Owner, RunId, SessionId};
use serde::{Deserialize, Serialize};

use super::Keeper;
use crate::handover::Moments;
use crate::protocol::{
    LIST_PAGE, MAX_PACKET_BYTES, MAX_SESSION_IDS, MAX_SESSIONS, Refusal, Reply, SessionState,
};

/// How long the processes of a session that has ended may take to end by themselves: as long as `sandbar kill` gives.
const GRACE: Duration = Duration::from_secs(2);

/// Names of ended sessions that are remembered: all of the last hour, and the last thousand, like records.
const REMEMBERED: usize = 1000;
const REMEMBERED_FOR: Duration = Duration::from_secs(60 * 60);

/// Names that are remembered at most: 128 KiB an hour, more than any server ends.
const MOST_REMEMBERED: usize = 64 * 1024;

/// Room that a page leaves in its packet for the message around it.
const ENVELOPE_BYTES: usize = 1024;

/// A session that lives.
#[derive(Debug)]
struct Lease {
    blob: Blob,
    expires: Instant,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    live: BTreeMap<SessionId, Lease>,
    /// When each of them ends, soonest first.
    expiries: BTreeSet<(Instant, SessionId)>,
    ended: HashSet<SessionId>,
    /// The same, oldest end first.
    ended_order: VecDeque<(Instant, SessionId)>,
}

impl Sessions {
    /// When the next one ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// How many live.
    pub(super) fn count(&self) -> usize {
        self.live.len()
    }

    /// Makes a session, or renews it.
    fn renew(&mut self, session: SessionId, blob: Blob, expires: Instant) -> Result<(), Refusal> {
        if self.ended.contains(&session) {
            return Err(Refusal::SessionExpired { session });
        }
        match self.live.get(&session) {
            Some(lease) => {
                self.expiries.remove(&(lease.expires, session.clone()));
            }
            None if self.live.len() >= MAX_SESSIONS => {
                return Err(Refusal::TooManySessions { limit: MAX_SESSIONS });
            }
            None => {}
        }
        self.expiries.insert((expires, session.clone()));
        self.live.insert(session, Lease { blob, expires });
        Ok(())
    }

    /// Ends a session that lives.
    fn end(&mut self, session: &SessionId, now: Instant) -> Result<(), Refusal> {
        let lease = self.live.remove(session).ok_or_else(|| self.not_living(session))?;
        self.expiries.remove(&(lease.expires, session.clone()));
        self.ended.insert(session.clone());
        self.ended_order.push_back((now, session.clone()));
        self.forget_old(now);
        Ok(())
    }

    /// Ends every session whose time has come, and returns them.
    fn expire(&mut self, now: Instant) -> Vec<SessionId> {
        let mut expired = Vec::new();
        while let Some((at, session)) = self.expiries.first().cloned()
            && at <= now
        {
            // It lives: its expiry is there.
            let _ = self.end(&session, now);
            expired.push(session);
        }
        expired
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((at, session)) = self.ended_order.front() {
            let old = now.saturating_duration_since(*at) > REMEMBERED_FOR;
            let beyond = self.ended_order.len() > MOST_REMEMBERED;
            if !(beyond || old && self.ended_order.len() > REMEMBERED) {
                return;
            }
            self.ended.remove(session);
            self.ended_order.pop_front();
        }
    }

    fn not_living(&self, session: &SessionId) -> Refusal {
        let session = session.clone();
        if self.ended.contains(&session) {
            Refusal::SessionExpired { session }
        } else {
            Refusal::UnknownSession { session }
        }
    }

    fn check(&self, session: &SessionId) -> Result<(), Refusal> {
        if self.live.contains_key(session) { Ok(()) } else { Err(self.not_living(session)) }
    }
}

/// [`Sessions`] on their way to the next program.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SavedSessions {
    live: Vec<SavedLease>,
    /// Names, and when each ended, oldest first.
    ended: Vec<(u64, SessionId)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedLease {
    session: SessionId,
    blob: Blob,
    expires: u64,
}

impl Sessions {
    /// Hands all sessions over. The change of program gives no lease a longer time.
    pub(super) fn save(&self, moments: Moments) -> SavedSessions {
        // The other two say the same in another order.
        let Self { live, expiries: _, ended: _, ended_order } = self;
        let live = live.iter().map(|(session, Lease { blob, expires })| SavedLease {
            session: session.clone(),
            blob: blob.clone(),
            expires: moments.save(*expires),
        });
        let ended = ended_order.iter().map(|(at, session)| (moments.save(*at), session.clone()));
        SavedSessions { live: live.collect(), ended: ended.collect() }
    }

    /// Takes sessions over.
    pub(super) fn restore(saved: SavedSessions, moments: Moments) -> Self {
        let SavedSessions { live, ended } = saved;
        let mut sessions = Self::default();
        for SavedLease { session, blob, expires } in live {
            let expires = moments.restore(expires);
            sessions.expiries.insert((expires, session.clone()));
            sessions.live.insert(session, Lease { blob, expires });
        }
        for (at, session) in ended {
            sessions.ended.insert(session.clone());
            sessions.ended_order.push_back((moments.restore(at), session));
        }
        sessions
    }
}

fn check_blob(blob: &Blob) -> Result<(), Refusal> {
    let (bytes, limit_bytes) = (blob.as_bytes().len(), Blob::MAX_BYTES);
    if bytes <= limit_bytes { Ok(()) } else { Err(Refusal::BlobTooLarge { bytes, limit_bytes }) }
}

impl Keeper {
    /// Whether a start may have this owner now.
    pub(super) fn check_owner(&mut self, owner: &Owner) -> Result<(), Refusal> {
        check_blob(&owner.blob)?;
        self.expire_sessions();
        owner.session.as_ref().map_or(Ok(()), |session| self.sessions.check(session))
    }

    /// Makes a session, or renews it.
    pub(super) fn renew_session(
        &mut self,
        session: SessionId,
        blob: Blob,
        ttl_ms: u64,
    ) -> Result<Reply, Refusal> {
        check_blob(&blob)?;
        self.expire_sessions();
        let expires = Instant::now().checked_add(Duration::from_millis(ttl_ms));
        let beyond = || Refusal::Malformed { message: format!("a lease of {ttl_ms} ms") };
        self.sessions.renew(session, blob, expires.ok_or_else(beyond)?)?;
        Ok(Reply::Done)
    }

    /// Ends a session and what lives as long as it.
    pub(super) fn end_session(&mut self, session: &SessionId) -> Result<Reply, Refusal> {
        self.expire_sessions();
        self.sessions.end(session, Instant::now())?;
        self.terminate_session(session);
        Ok(Reply::Done)
    }

    /// Ends the sessions whose time has come, and what lives as long as they.
    pub(super) fn expire_sessions(&mut self) {
        for session in self.sessions.expire(Instant::now()) {
            self.terminate_session(&session);
        }
    }

    fn terminate_session(&mut self, session: &SessionId) {
        let of_session = self.processes.iter().filter(|(_, process)| {
            let owner = process.start.owner.as_ref();
            process.start.lifetime == Lifetime::Session
                && owner.and_then(|owner| owner.session.as_ref()) == Some(session)
        });
        let ids: Vec<RunId> = of_session.map(|(id, _)| *id).collect();
        for id in ids {
            self.terminate(id, libc::SIGTERM, GRACE);
        }
    }

    /// A page of the sessions behind `after`.
    pub(super) fn list_sessions(&mut self, after: Option<SessionId>) -> Reply {
        self.expire_sessions();
        let now = Instant::now();
        let mut runs = self.runs_by_session();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let states = self.sessions.live.range((from, Bound::Unbounded)).map(|(session, lease)| {
            let mut processes = runs.remove(session).unwrap_or_default();
            processes.sort_unstable();
            let more_processes = processes.len() > MAX_SESSION_IDS;
            processes.truncate(MAX_SESSION_IDS);
            let remaining = lease.expires.saturating_duration_since(now);
            SessionState {
                session: session.clone(),
                blob: lease.blob.clone(),
                remaining_ms: u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX),
                processes,
                more_processes,
            }
        });
        let (sessions, more) = page(states);
        Reply::Sessions { sessions, more }
    }

    fn runs_by_session(&self) -> HashMap<SessionId, Vec<RunId>> {
        let mut runs: HashMap<SessionId, Vec<RunId>> = HashMap::new();
        let live = self
            .processes
            .iter()
            .filter_map(|(id, process)| Some((process.start.owner.as_ref()?.session.as_ref()?, *id)));
        for (session, id) in live.chain(self.archive.owned()) {
            runs.entry(session.clone()).or_default().push(id);
        }
        runs
    }

    /// A page of a session's processes behind `after`.
    pub(super) fn list_session(&self, session: &SessionId, after: Option<RunId>) -> Reply {
        let is_after = |id: &RunId| after.is_none_or(|after| *id > after);
        let mut ids = self.runs_by_session().remove(session).unwrap_or_default();
        ids.retain(is_after);
        ids.sort_unstable();
        // A record that is trimmed in this moment is none.
        let states = ids.into_iter().filter_map(|id| self.state(id).or_else(|| self.ended_state(id)));
        let (processes, more) = page(states);
        Reply::Listed { processes, more }
    }
}

/// As many of `items` as a page and a packet hold, and whether more follow. One item fits into a packet: what is
/// unbounded in a state is cut for clients.
pub(super) fn page<T: Serialize>(items: impl Iterator<Item = T>) -> (Vec<T>, bool) {
    let mut room = MAX_PACKET_BYTES - ENVELOPE_BYTES;
    let mut taken = Vec::new();
    for item in items {
        let length = serde_json::to_vec(&item).map_or(0, |text| text.len() + 1);
        if taken.len() == LIST_PAGE || length > room && !taken.is_empty() {
            return (taken, true);
        }
        room = room.saturating_sub(length);
        taken.push(item);
    }
    (taken, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(text: &str) -> SessionId {
        SessionId::new(text).unwrap()
    }

    fn one(expires: Instant) -> Sessions {
        let mut sessions = Sessions::default();
        sessions.renew(id("a"), Blob::default(), expires).unwrap();
        sessions
    }

    #[test]
    fn a_lease_ends_at_its_time_and_not_before() {
        let now = Instant::now();
        let mut sessions = one(now + SECOND);
        assert_eq!(sessions.deadline(), Some(now + SECOND));
        assert_eq!(sessions.expire(now + SECOND - Duration::from_nanos(1)), []);
        assert_eq!(sessions.expire(now + SECOND), [id("a")]);
        assert_eq!((sessions.deadline(), sessions.count()), (None, 0));
    }

    #[test]
    fn a_renewal_moves_the_end() {
        let now = Instant::now();
        let mut sessions = one(now + SECOND);
        sessions.renew(id("a"), Blob::default(), now + 3 * SECOND).unwrap();
        assert_eq!(sessions.expire(now + 2 * SECOND), []);
        assert_eq!(sessions.expire(now + 3 * SECOND), [id("a")]);
    }

    #[test]
    fn an_ended_session_is_never_revived() {
        let now = Instant::now();
        let expired = || Refusal::SessionExpired { session: id("a") };
        let mut sessions = one(now);
        sessions.expire(now);
        assert_eq!(sessions.renew(id("a"), Blob::default(), now + SECOND), Err(expired()));
        assert_eq!(sessions.end(&id("a"), now), Err(expired()));
        assert_eq!(sessions.check(&id("a")), Err(expired()));
        let unknown = Refusal::UnknownSession { session: id("b") };
        assert_eq!(sessions.end(&id("b"), now), Err(unknown));
    }

    #[test]
    fn names_of_ended_sessions_are_forgotten_when_they_are_old_and_many() {
        let now = Instant::now();
        let mut sessions = Sessions::default();
        let mut end = |name: String, at| {
            sessions.renew(id(&name), Blob::default(), at).unwrap();
            sessions.end(&id(&name), at).unwrap();
            sessions.ended.len()
        };
        for turn in 0..REMEMBERED + 5 {
            assert_eq!(end(format!("old {turn}"), now), turn + 1);
        }
        let later = now + REMEMBERED_FOR + SECOND;
        assert_eq!(end("new".to_owned(), later), REMEMBERED);
    }

    #[test]
    fn there_are_no_more_sessions_than_the_bound() {
        let now = Instant::now();
        let mut sessions = Sessions::default();
        for turn in 0..MAX_SESSIONS {
            sessions.renew(id(&turn.to_string()), Blob::default(), now + SECOND).unwrap();
        }
        let refused = sessions.renew(id("one more"), Blob::default(), now + SECOND);
        assert_eq!(refused, Err(Refusal::TooManySessions { limit: MAX_SESSIONS }));
        assert_eq!(
            sessions.renew(id("0"), Blob::default(), now + 2 * SECOND),
            Ok(()),
            "a renewal needs no room"
        );
    }

    #[test]
    fn a_page_holds_what_a_packet_holds() {
        let blob = "x".repeat(20 * 1024);
        let (taken, more) = page((0..10).map(|_| blob.clone()));
        assert_eq!((taken.len(), more), (6, true));
        assert!(!page((0..3).map(|_| blob.clone())).1);
        assert_eq!(page((0..LIST_PAGE + 1).map(|_| 0)), (vec![0; LIST_PAGE], true));
    }
}
