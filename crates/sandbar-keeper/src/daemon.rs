//! The keeper: one thread, one epoll loop, everything it holds in one struct.
//!
//! It forks, reads pipes into logs, writes records, passes signals on, and tells those who watch. It parses
//! nothing that a command, a model or the network wrote: plans and requests come from this user's own programs,
//! output is bytes. Clients come and go, crash and are upgraded; what runs goes on running. When the keeper
//! itself dies, its holders see their channels close and take their trees with them, and the next keeper writes
//! down what was lost.

mod archive;
mod caches;
mod cgroups;
mod connection;
mod guards;
mod limits;
mod peer;
mod placeholders;
mod process;
mod recordings;
mod sessions;
mod spares;
mod start;
mod stdin;
mod temporary;
mod terminal;
mod upgrade;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{WaitId, WaitIdOptions};
use sandbar_proto::{ExitStatus, Lifetime, OutputTotals, ResourceUse, RunId, Stream, Timestamp};
use sandbar_sandbox::report::{Order, PACKET_BYTES, Report, SetupFailure, Step};
use sandbar_sandbox::{Holder, Spare, Spawner};
use serde::{Deserialize, Serialize};

use crate::handover::{Adopted, Fd, HandoverError, Kept};
use crate::protocol::{
    self, Event, MAX_PACKET_BYTES, MINOR, ProcessState, Refusal, Reply, Request, RequestHeader, StartFailure,
    Watch,
};
use crate::runtime_dir::{KeeperDir, RuntimeDirError};
use crate::transport::{self, Received};
use archive::Archive;
use cgroups::Cgroups;
use connection::Connection;
use guards::{GUARDED_AFTER, Guard, Guards};
use peer::Confinement;
pub use peer::Gate;
use placeholders::Placeholders;
use process::{Phase, Process, Pumped, READ_BYTES, Watcher};
use recordings::Recordings;
use sessions::Sessions;
use spares::Spares;
use start::{Origin, Starter, Wanted};
pub(crate) use upgrade::{rehearsal, take_over};

/// How long a keeper that holds nothing and serves nobody stays: long enough for a person's next command.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// How long the kill of a tree after a wall-clock limit gives it to end by itself.
const LIMIT_GRACE: Duration = Duration::from_secs(2);

/// How often a process whose output found no room is tried again. Space comes back without any event to wait
/// for: somebody else's files are removed.
const RETRY: Duration = Duration::from_millis(100);

/// How long a new keeper waits for the lock: for one that is just leaving, and for somebody who only looks whether a
/// keeper lives (`records::keeper_is_alive`). flock(2) has no deadline of its own.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_INTERVAL: Duration = Duration::from_millis(2);

/// Why a keeper could not serve.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Its directory can't be used.
    #[error(transparent)]
    Directory(#[from] RuntimeDirError),
    /// Another keeper serves this directory.
    #[error("another keeper serves {}", path.display())]
    AlreadyServed {
        /// The directory.
        path: PathBuf,
    },
    /// The state of the keeper before it could not be taken over.
    #[error("take over from the keeper before: {0}")]
    State(String),
    /// A step of starting to serve failed.
    #[error("{step}: {errno}")]
    SetUp {
        /// What was being done.
        step: &'static str,
        /// The kernel's error.
        errno: Errno,
    },
}

/// What an event of epoll is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Listener,
    Connection(u64),
    Control(RunId),
    Holder(RunId),
    Stream(RunId, Stream),
    Stdin(RunId),
    /// A holder that is not counted on any more.
    Leaving,
    /// The host's mount table.
    Mounts,
    /// Directories with names that runs protect.
    Guards,
    /// The attendant's end.
    Attendant,
}

/// What happens at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Timer {
    /// The wall-clock limit of a run.
    WallLimit(RunId),
    /// Another look at the CPU time of a run.
    CpuLimit(RunId),
    /// The end of the grace after a terminate.
    Kill(RunId),
    /// Output that found no room.
    Retry(RunId),
    /// A run is to be guarded from now on.
    Guard(RunId),
    /// Another attendant may be started.
    Attendant,
}

struct Keeper {
    home: KeeperDir,
    lock: OwnedFd,
    listener: OwnedFd,
    epoll: OwnedFd,
    null: OwnedFd,
    own: Confinement,
    targets: HashMap<u64, Target>,
    next_token: u64,
    connections: BTreeMap<u64, Connection>,
    processes: BTreeMap<RunId, Process>,
    /// Holders on their way out, by the token that tells their end. Not by their run: one that is started again has
    /// another holder.
    leaving: HashMap<u64, Leaving>,
    spares: Spares,
    timers: BinaryHeap<Reverse<(Instant, Timer)>>,
    placeholders: Placeholders,
    cgroups: Cgroups,
    guards: Guards,
    /// The most that a plan can give its command.
    hard_limits: Vec<(u32, Option<u64>)>,
    spawner: Spawner,
    archive: Archive,
    recordings: Recordings,
    sessions: Sessions,
    /// An upgrade that was asked for.
    upgrade: Option<upgrade::Pending>,
    /// The program that could not take over last.
    refused_program: Option<upgrade::Refused>,
    /// Who waits to hear that the upgrade is done: connection and request number.
    asker: Option<(u64, u64)>,
    packet: Box<[u8]>,
    chunk: Box<[u8]>,
    idle_since: Option<Instant>,
    stopping: bool,
}

/// Serves `home` until it is idle for long, or asked to stop. `ready` is called once, when clients can connect.
///
/// # Errors
/// [`KeeperError`], before `ready`.
pub fn serve(home: KeeperDir, ready: impl FnOnce()) -> Result<(), KeeperError> {
    let mut keeper = Keeper::new(home)?;
    ready();
    keeper.run()
}

fn set_up(step: &'static str) -> impl Fn(Errno) -> KeeperError {
    move |errno| KeeperError::SetUp { step, errno }
}

impl Keeper {
    fn new(home: KeeperDir) -> Result<Self, KeeperError> {
        home.ensure()?;
        let lock = lock(&home)?;
        let mut cgroups = Cgroups::default();
        let (archive, unrecorded) = Archive::open(&home, &mut cgroups, Timestamp::now());
        let mut recordings = Recordings::default();
        unrecorded.into_iter().for_each(|id| recordings.inherit(id));
        let listener = listen(&home)?;
        let keeper = Self::empty(home, lock, listener, archive, recordings, 0)?;
        Ok(Self { cgroups, ..keeper })
    }

    /// A keeper that holds nothing. Tokens up to `next_token` are given out already.
    fn empty(
        home: KeeperDir,
        lock: OwnedFd,
        listener: OwnedFd,
        archive: Archive,
        recordings: Recordings,
        next_token: u64,
    ) -> Result<Self, KeeperError> {
        let own = Confinement::own()
            .ok_or(KeeperError::SetUp { step: "read /proc/self/status", errno: Errno::IO })?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(set_up("make an epoll instance"))?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(set_up("open /dev/null"))?;
        let mut keeper = Self {
            home,
            lock,
            listener,
            epoll,
            null,
            own,
            targets: HashMap::new(),
            next_token,
            connections: BTreeMap::new(),
            processes: BTreeMap::new(),
            leaving: HashMap::new(),
            spares: Spares::new().map_err(set_up("open /proc/self/mountinfo"))?,
            timers: BinaryHeap::new(),
            placeholders: Placeholders::default(),
            cgroups: Cgroups::default(),
            guards: Guards::default(),
            hard_limits: sandbar_sandbox::caller::hard_limits(),
            spawner: Spawner::default(),
            archive,
            recordings,
            sessions: Sessions::default(),
            upgrade: None,
            refused_program: None,
            asker: None,
            packet: vec![0; MAX_PACKET_BYTES].into_boxed_slice(),
            chunk: vec![0; READ_BYTES].into_boxed_slice(),
            idle_since: Some(Instant::now()),
            stopping: false,
        };
        let token = keeper.token(Target::Listener);
        epoll::add(&keeper.epoll, &keeper.listener, EventData::new_u64(token), EventFlags::IN)
            .map_err(set_up("watch the socket"))?;
        let token = keeper.token(Target::Mounts);
        // A change of the mount table is an exceptional condition of the file (proc(5)).
        epoll::add(&keeper.epoll, keeper.spares.mounts(), EventData::new_u64(token), EventFlags::PRI)
            .map_err(set_up("watch the mount table"))?;
        // Before any command of ours runs, for a command can use up what its user may have (`fs.inotify.max_user_instances`).
        // Where there is none to be had now it is tried again when one is needed.
        let _ = keeper.watch_guards();
        Ok(keeper)
    }

    /// Watches what another program has watched before.
    fn watch_adopted(&mut self, leaving: Vec<Leaving>) -> Result<(), Errno> {
        leaving.into_iter().for_each(|leaving| self.wait_for(leaving));
        for (id, connection) in &self.connections {
            self.targets.insert(*id, Target::Connection(*id));
            epoll::add(&self.epoll, &connection.socket, EventData::new_u64(*id), connection.interest)?;
        }
        let running = self.processes.iter().filter(|(_, process)| !process.holder_ended);
        let mut watched: Vec<(Target, BorrowedFd<'_>)> = Vec::new();
        for (id, process) in running {
            watched.push((Target::Control(*id), process.holder.control.as_fd()));
            watched.push((Target::Holder(*id), process.holder.pidfd.as_fd()));
        }
        watched.extend(self.recordings.attendant().map(|pidfd| (Target::Attendant, pidfd)));
        for (target, fd) in watched {
            self.next_token += 1;
            self.targets.insert(self.next_token, target);
            epoll::add(&self.epoll, fd, EventData::new_u64(self.next_token), EventFlags::IN)?;
        }
        self.guarded().into_iter().for_each(|id| self.ask_for_walls(id));
        Ok(())
    }

    fn run(&mut self) -> Result<(), KeeperError> {
        let mut events = Vec::with_capacity(64);
        while !self.stopping {
            let timeout =
                self.next_deadline().map(|at| timespec(at.saturating_duration_since(Instant::now())));
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(set_up("wait for events")(errno)),
            }
            for event in events.drain(..) {
                if let Some(&target) = self.targets.get(&event.data.u64()) {
                    self.handle(target, event.data.u64(), event.flags);
                }
            }
            self.fire_timers();
            self.expire_sessions();
            self.see_to_recordings();
            self.flush_all();
            self.upgrade_when_drained();
            self.keep_spare();
            self.archive.trim(&self.home);
            self.note_idleness();
        }
        self.cgroups.leave();
        if self.archive.has_lost() {
            // Bubblewraps of the keeper before may not have been quite gone when this one began.
            sandbar_sandbox::end_bwrap_orphans();
        }
        Ok(())
    }

    fn token(&mut self, target: Target) -> u64 {
        self.next_token += 1;
        self.targets.insert(self.next_token, target);
        self.next_token
    }

    fn forget_targets(&mut self, unwanted: impl Fn(&Target) -> bool) {
        self.targets.retain(|_, target| !unwanted(target));
    }

    fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let idle = self.idle_since.map(|since| since + IDLE);
        timer
            .into_iter()
            .chain(idle)
            .chain(self.spares.deadline())
            .chain(self.sessions.deadline())
            .chain(self.upgrade.as_ref().map(upgrade::Pending::deadline))
            .min()
    }

    /// Has a spare ready behind a start, and none for long.
    fn keep_spare(&mut self) {
        let now = Instant::now();
        if let Some(expired) = self.spares.take_expired(now) {
            self.discard(Some(expired));
            self.spawner.rest();
        }
        let starting = self.processes.values().any(|process| matches!(process.phase, Phase::Starting { .. }));
        if !starting && self.upgrade.is_none() && self.spares.may_make() {
            // SAFETY: the keeper has one thread.
            let made = self.spares.wanted.take().map(|network| unsafe { self.spawner.spare(network) });
            // A host that makes no namespaces says so when something is started.
            if let Some(Ok(spare)) = made {
                self.spares.put(spare, now);
            }
        }
    }

    /// Throws a spare away: it ends when its channel closes.
    fn discard(&mut self, spare: Option<Spare>) {
        if let Some(spare) = spare {
            let Holder { pidfd, control, .. } = spare.into_holder();
            drop(control);
            self.wait_for(Leaving { pidfd, control: None });
        }
    }

    fn note_idleness(&mut self) {
        let serves = !self.connections.is_empty() || self.sessions.count() > 0;
        if !self.processes.is_empty() || serves {
            self.idle_since = None;
            return;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= IDLE {
            self.stop();
        }
    }

    /// Stops accepting. A client that connected at the last moment sees its connection close before it was
    /// answered, and starts a new keeper.
    fn stop(&mut self) {
        let _ = rustix::fs::unlink(self.home.path().join(KeeperDir::SOCKET));
        self.stopping = true;
    }

    fn handle(&mut self, target: Target, token: u64, flags: EventFlags) {
        match target {
            Target::Listener => self.accept(),
            Target::Connection(id) => self.serve_connection(id, flags),
            Target::Control(id) => self.hear_holder(id),
            Target::Holder(id) => self.holder_ended(id),
            Target::Stream(id, stream) => self.pump_stream(id, stream),
            Target::Stdin(id) => {
                self.targets.remove(&token);
                self.pump_stdin(id);
            }
            Target::Leaving => {
                self.targets.remove(&token);
                if let Some(leaving) = self.leaving.remove(&token) {
                    leaving.reap();
                }
            }
            Target::Attendant => {
                self.targets.remove(&token);
                self.attendant_ended();
            }
            Target::Guards => self.guards_changed(),
            Target::Mounts => {
                let outdated = self.spares.take();
                self.discard(outdated);
            }
        }
    }

    // --- clients ---

    fn accept(&mut self) {
        while let Ok(socket) =
            rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            let holders: HashSet<i32> = self
                .processes
                .values()
                .filter(|process| process.network.is_none())
                .map(|p| p.holder.pid)
                .collect();
            let verdict = peer::check(socket.as_fd(), &self.own, &holders);
            let refused = verdict.err();
            let mut connection = Connection::new(socket, refused);
            if let Some(reason) = refused {
                // Told without waiting for a question. The connection stays until the first message was read: closing
                // a socket with something unread in it would take our word from it as well (unix(7), ECONNRESET).
                connection.reply(u64::MAX, Reply::Refused { error: Refusal::Peer { reason } });
            }
            // A client is known by its token.
            let id = self.next_token + 1;
            self.token(Target::Connection(id));
            let data = EventData::new_u64(id);
            if epoll::add(&self.epoll, &connection.socket, data, connection.interest).is_ok() {
                self.connections.insert(id, connection);
            } else {
                self.targets.remove(&id);
            }
        }
    }

    fn serve_connection(&mut self, id: u64, flags: EventFlags) {
        if flags.intersects(EventFlags::OUT) {
            self.flush(id);
        }
        loop {
            let Some(connection) = self.connections.get(&id) else { return };
            // What comes after a request for an upgrade is the next program's to answer.
            if !connection.takes_requests() || self.upgrade.is_some() {
                return;
            }
            match transport::receive(&connection.socket, &mut self.packet) {
                Ok(Received::Packet(length, fds)) => self.request(id, length, fds),
                Ok(Received::Nothing) => return,
                Ok(Received::End) | Err(_) => return self.disconnect(id),
            }
        }
    }

    fn disconnect(&mut self, id: u64) {
        self.orphan_all(id);
        let Some(connection) = self.connections.remove(&id) else { return };
        self.targets.remove(&id);
        for run in connection.watched {
            if let Some(process) = self.processes.get_mut(&run) {
                process.watchers.remove(&id);
            }
            self.resume_streams(run);
        }
        for run in connection.bound {
            self.kill_tree(run);
        }
    }

    fn request(&mut self, id: u64, length: usize, fds: Vec<OwnedFd>) {
        let packet = &self.packet[..length];
        let (header, body) = match protocol::decode::<RequestHeader>(packet) {
            Ok((header, body)) => (header, body.to_vec()),
            Err(error) => {
                let refusal = Refusal::Malformed { message: error.to_string() };
                // A newer client's request, more often than nonsense: who asked is to hear of it.
                let req = protocol::decode::<Numbered>(packet).map_or(u64::MAX, |(numbered, _)| numbered.req);
                return self.reply(id, req, Reply::Refused { error: refusal });
            }
        };
        if self.connections.get(&id).is_some_and(|connection| connection.refused.is_some()) {
            self.flush(id);
            return self.disconnect(id);
        }
        let greeted = self.connections.get(&id).is_some_and(|connection| connection.greeted);
        if !greeted && !matches!(header.request, Request::Hello { .. }) {
            return self.reply(id, header.req, Reply::Refused { error: Refusal::NoHello });
        }
        match self.answer(id, header.req, header.request, &body, fds) {
            Ok(Some(reply)) => self.reply(id, header.req, reply),
            Ok(None) => {}
            Err(error) => self.reply(id, header.req, Reply::Refused { error }),
        }
    }

    fn reply(&mut self, id: u64, req: u64, reply: Reply) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.reply(req, reply);
        }
    }

    /// Carries a request out. `None` means that the answer comes later, or never.
    fn answer(
        &mut self,
        client: u64,
        req: u64,
        request: Request,
        body: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Result<Option<Reply>, Refusal> {
        match request {
            Request::Hello { .. } => {
                if let Some(connection) = self.connections.get_mut(&client) {
                    connection.greeted = true;
                }
                let version = env!("CARGO_PKG_VERSION").to_owned();
                Ok(Some(Reply::Hello { minor: MINOR, version, pid: std::process::id() }))
            }
            Request::Start { id, watch, rollout, owner } => {
                self.start((client, req), id, watch, Origin { rollout, owner }, fds)
            }
            Request::Watch { id, ended: true, .. } if !self.processes.contains_key(&id) => {
                let state = self.ended_state(id).ok_or(Refusal::Unknown { id })?;
                Ok(Some(Reply::Process { state: state.into() }))
            }
            Request::Watch { id, watch, record, .. } => {
                if !self.processes.contains_key(&id) {
                    return Err(Refusal::Unknown { id });
                }
                self.watch(client, id, watch);
                if record {
                    self.record(client, id);
                    if let Some(watcher) = self.process(id)?.watchers.get_mut(&client) {
                        watcher.attends = true;
                    }
                }
                Ok(self.state(id).map(|state| Reply::Process { state: state.into() }))
            }
            Request::Release { id } => {
                self.release(client, id);
                Ok(Some(Reply::Done))
            }
            Request::Recorded { id, complete } => {
                self.recorded(id, complete);
                Ok(Some(Reply::Done))
            }
            Request::Attend => {
                self.attend(client);
                Ok(Some(Reply::Done))
            }
            Request::Ack { id, offset_bytes, needed_from } => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.acknowledge(client, offset_bytes, needed_from);
                }
                self.resume_streams(id);
                Ok(None)
            }
            Request::Write { id, offset_bytes } => self.write(id, offset_bytes, body).map(Some),
            Request::Input { id, once } => self.input(client, id, once, body).map(Some),
            Request::Resize { id, size } => self.resize(id, size).map(|()| Some(Reply::Done)),
            Request::CloseStdin { id } => {
                self.process(id)?.stdin.close();
                self.pump_stdin(id);
                Ok(Some(Reply::Done))
            }
            Request::CloseOutput { id, stream } => {
                let process = self.process(id)?;
                *process.outputs.get(stream) = None;
                if stream == Stream::Pty {
                    // The kernel hangs a terminal up when its other end is closed everywhere.
                    process.stdin.abandon();
                }
                self.forget_targets(|target| *target == Target::Stream(id, stream));
                self.announce_close(id);
                Ok(Some(Reply::Done))
            }
            Request::Signal { id, signal } => {
                check_signal(signal)?;
                let process = self.process(id)?;
                process.stopped &= signal != libc::SIGCONT;
                process.killed |= signal == libc::SIGKILL;
                self.order(id, Order::SignalLeader(signal));
                Ok(Some(Reply::Done))
            }
            Request::Terminate { id, signal, grace_ms } => {
                check_signal(signal)?;
                self.process(id)?.killed |= signal == libc::SIGKILL;
                self.terminate(id, signal, Duration::from_millis(grace_ms));
                Ok(Some(Reply::Done))
            }
            Request::Limits => Ok(Some(Reply::Limits { facts: self.cgroups.facts() })),
            Request::List { after } => Ok(Some(self.list(after))),
            Request::Session { session, blob, ttl_ms } => self.renew_session(session, blob, ttl_ms).map(Some),
            Request::Upgrade => self.upgrade((client, req), fds).map(|()| None),
            Request::EndSession { session } => self.end_session(&session).map(Some),
            Request::Sessions { after } => Ok(Some(self.list_sessions(after))),
            Request::SessionProcesses { session, after } => Ok(Some(self.list_session(&session, after))),
            Request::Stop => {
                if !self.processes.is_empty() {
                    return Err(Refusal::Busy { processes: self.processes.len() });
                }
                self.expire_sessions();
                if self.sessions.count() > 0 {
                    return Err(Refusal::SessionsHeld { sessions: self.sessions.count() });
                }
                self.stop();
                Ok(Some(Reply::Done))
            }
        }
    }

    fn process(&mut self, id: RunId) -> Result<&mut Process, Refusal> {
        self.processes.get_mut(&id).ok_or(Refusal::Unknown { id })
    }

    /// The state that clients are told: its command is cut, so that it fits into a packet.
    fn state(&self, id: RunId) -> Option<ProcessState> {
        self.processes.get(&id).map(|process| told(process.state()))
    }

    fn list(&self, after: Option<RunId>) -> Reply {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.processes.range((from, Bound::Unbounded)).map(|(_, process)| told(process.state()));
        let (processes, more) = sessions::page(rest);
        Reply::Listed { processes, more }
    }

    fn watch(&mut self, client: u64, id: RunId, watch: Watch) {
        let (Some(process), Some(connection)) =
            (self.processes.get_mut(&id), self.connections.get_mut(&client))
        else {
            return;
        };
        // A reader that comes later reads what is still there; what is not, it can't hold up either.
        let acked_bytes =
            if matches!(process.phase, Phase::Starting { .. }) { 0 } else { process.totals().dropped_bytes };
        process
            .watchers
            .insert(client, Watcher { watch, acked_bytes, needed_from: acked_bytes, attends: false });
        connection.watched.insert(id);
    }

    // --- starting ---

    /// The state of a process that ended, as far as it is on record.
    fn ended_state(&self, id: RunId) -> Option<ProcessState> {
        let record = crate::records::read(&self.home.processes().join(id.to_string()))?;
        let output = record.output();
        Some(told(ProcessState {
            start: record.start,
            output,
            end: record.end,
            closed: true,
            terminal: None,
            viewers: 0,
            lowered: Vec::new(),
            stopped: false,
        }))
    }

    fn start(
        &mut self,
        (client, req): (u64, u64),
        id: RunId,
        watch: Watch,
        origin: Origin,
        mut fds: Vec<OwnedFd>,
    ) -> Result<Option<Reply>, Refusal> {
        if self.processes.contains_key(&id) {
            self.watch(client, id, watch);
            let Some(process) = self.processes.get_mut(&id) else { return Ok(None) };
            if let Phase::Starting { waiting, .. } = &mut process.phase {
                waiting.push((client, req));
                return Ok(None);
            }
            return Ok(Some(Reply::Process { state: told(process.state()).into() }));
        }
        if let Some(state) = self.ended_state(id) {
            return Ok(Some(Reply::Process { state: state.into() }));
        }
        if let Some(owner) = &origin.owner {
            self.check_owner(owner)?;
        }
        if fds.is_empty() {
            return Err(Refusal::Malformed { message: "a start without a plan".to_owned() });
        }
        let plan = fds.remove(0);
        let recorded = origin.rollout.is_some();
        self.begin((client, req), id, watch, origin, &plan, fds)?;
        if recorded {
            self.recordings.begin(id, client);
        }
        Ok(None)
    }

    fn begin(
        &mut self,
        (client, req): (u64, u64),
        id: RunId,
        watch: Watch,
        origin: Origin,
        plan: &OwnedFd,
        direct: Vec<OwnedFd>,
    ) -> Result<(), Refusal> {
        // A spare reads its plan while we read ours.
        let spare = self.spares.feed(plan);
        let spec = match start::read_plan(plan) {
            Ok(spec) => spec,
            Err(failure) => {
                self.discard(spare);
                return Err(Refusal::Start { failure });
            }
        };
        let session = origin.owner.as_ref().and_then(|owner| owner.session.as_ref());
        if spec.lifetime == Lifetime::Session && session.is_none() {
            self.discard(spare);
            return Err(Refusal::NoSession);
        }
        let mut spare = match spare {
            Some(spare) if spare.fits(&spec) => Some(spare),
            unfit => {
                self.discard(unfit);
                None
            }
        };
        let (lifetime, wall) = (spec.lifetime, spec.limits.wall);
        self.archive.enforce_quota(&self.home, &mut self.processes);
        let mut starter = Starter {
            home: &self.home,
            placeholders: &mut self.placeholders,
            spawner: &mut self.spawner,
            null: &self.null,
            cgroups: &mut self.cgroups,
            hard_limits: &self.hard_limits,
        };
        let wanted = Wanted { id, direct, origin };
        let started = starter.start(wanted, spec, &mut spare, Timestamp::now());
        self.discard(spare);
        let mut process = started.map_err(|failure| Refusal::Start { failure })?;
        if let Phase::Starting { waiting, .. } = &mut process.phase {
            waiting.push((client, req));
        }
        self.processes.insert(id, process);
        self.watch(client, id, watch);
        self.watch_process(id);
        if let (Lifetime::Connection, Some(connection)) = (lifetime, self.connections.get_mut(&client)) {
            connection.bound.insert(id);
        }
        self.watch_limits(id);
        // A limit that no clock reaches is none.
        if let Some(end) = wall.and_then(|wall| Instant::now().checked_add(wall)) {
            self.timers.push(Reverse((end, Timer::WallLimit(id))));
        }
        Ok(())
    }

    /// Registers what a new process has to say with epoll.
    fn watch_process(&mut self, id: RunId) {
        let control = self.token(Target::Control(id));
        let holder = self.token(Target::Holder(id));
        if let Some(process) = self.processes.get(&id) {
            for (fd, token) in [(&process.holder.control, control), (&process.holder.pidfd, holder)] {
                // Out of memory in the kernel is the only reason left; the process is then ended as lost control.
                if epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN).is_err() {
                    let _ = send_order(process, Order::KillTree);
                }
            }
        }
        self.watch_streams(id);
    }

    fn watch_streams(&mut self, id: RunId) {
        for stream in Stream::ALL {
            self.watch_stream(id, stream);
        }
    }

    fn watch_stream(&mut self, id: RunId, stream: Stream) {
        let open = self.processes.get_mut(&id).and_then(|process| process.outputs.get(stream).as_mut());
        if open.is_none_or(|output| output.watched) {
            return;
        }
        let token = self.token(Target::Stream(id, stream));
        let output = self.processes.get_mut(&id).and_then(|process| process.outputs.get(stream).as_mut());
        if let Some(output) = output {
            output.watched =
                epoll::add(&self.epoll, &output.fd, EventData::new_u64(token), EventFlags::IN).is_ok();
        }
    }

    fn pause_stream(&mut self, id: RunId, stream: Stream) {
        let output = self.processes.get_mut(&id).and_then(|process| process.outputs.get(stream).as_mut());
        if let Some(output) = output
            && output.watched
        {
            let _ = epoll::delete(&self.epoll, &output.fd);
            output.watched = false;
        }
        self.forget_targets(|target| *target == Target::Stream(id, stream));
    }

    /// Reads on, if nothing makes the process wait any more.
    fn resume_streams(&mut self, id: RunId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.outputs.stalled.is_some() {
            if !process.retry_stalled(Timestamp::now()) {
                return;
            }
            self.grown(id);
        }
        let waits = self.processes.get(&id).is_some_and(Process::must_wait);
        if !waits {
            self.watch_streams(id);
        }
        self.announce_close(id);
    }

    // --- a running process ---

    fn hear_holder(&mut self, id: RunId) {
        loop {
            let Some(process) = self.processes.get(&id) else { return };
            let mut packet = [0; PACKET_BYTES];
            match transport::receive(&process.holder.control, &mut packet) {
                Ok(Received::Packet(PACKET_BYTES, fds)) => match Report::decode(&packet) {
                    Some(Report::Terminal) => self.take_terminal(id, fds),
                    Some(Report::Walls) => self.take_walls(id, fds),
                    Some(Report::Running) => self.started(id),
                    Some(Report::LimitHeld(limit)) => self.limit_held(id, limit),
                    Some(Report::LeaderStopped(signal)) => self.leader_stopped(id, signal),
                    Some(Report::Failed(failed)) => return self.failed_to_start(id, failed),
                    Some(Report::TreeEnded) => return self.tree_ended(id, ResourceUse::default()),
                    Some(Report::LeaderExited { status, usage, ended }) => {
                        self.leader_exited(id, status, usage, ended)
                    }
                    None => {}
                },
                Ok(Received::Packet(..)) => {}
                Ok(Received::Nothing) => return,
                Ok(Received::End) | Err(_) => {
                    // The rest is told by the pidfd.
                    let _ = epoll::delete(&self.epoll, &process.holder.control);
                    return self.forget_targets(|target| *target == Target::Control(id));
                }
            }
        }
    }

    fn started(&mut self, id: RunId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let phase = std::mem::replace(&mut process.phase, Phase::Running);
        let state = Box::new(told(process.state()));
        let Phase::Starting { waiting, spec } = phase else { return };
        for (client, req) in waiting {
            self.reply(client, req, Reply::Process { state: state.clone() });
        }
        // Behind the answer: nobody waits for this.
        if let (Some(guard), Some(process)) = (Guard::of(&spec), self.processes.get_mut(&id)) {
            process.guard = Some(guard);
            self.timers.push(Reverse((Instant::now() + GUARDED_AFTER, Timer::Guard(id))));
        }
    }

    fn failed_to_start(&mut self, id: RunId, failed: SetupFailure) {
        let Some(mut process) = self.remove(id) else { return };
        self.recordings.forget(id);
        let phase = std::mem::replace(&mut process.phase, Phase::Running);
        process.directory.discard();
        let detail = process.holder.complaint.as_ref().map(start::complaint).unwrap_or_default();
        self.wait_for_holder(process.holder);
        if let Phase::Starting { spec, waiting } = phase {
            let failure = StartFailure { detail, ..start::setup_failure(&spec, failed) };
            for (client, req) in waiting {
                let error = Refusal::Start { failure: failure.clone() };
                self.reply(client, req, Reply::Refused { error });
            }
        }
    }

    /// Takes a process out of everything that knows it.
    fn remove(&mut self, id: RunId) -> Option<Process> {
        let mut process = self.processes.remove(&id)?;
        self.placeholders.release(&process.placeholders);
        self.guards.forget(id);
        if let Some(cgroup) = process.cgroup.take() {
            self.cgroups.remove(cgroup);
        }
        self.forget_targets(|target| match target {
            Target::Control(run) | Target::Holder(run) | Target::Stream(run, _) | Target::Stdin(run) => {
                *run == id
            }
            Target::Listener
            | Target::Connection(_)
            | Target::Leaving
            | Target::Mounts
            | Target::Guards
            | Target::Attendant => false,
        });
        for client in process.watchers.keys() {
            if let Some(connection) = self.connections.get_mut(client) {
                connection.watched.remove(&id);
                connection.grown.remove(&id);
                connection.bound.remove(&id);
            }
        }
        Some(process)
    }

    fn leader_exited(&mut self, id: RunId, status: ExitStatus, usage: ResourceUse, ended: Timestamp) {
        // What the leader wrote before it ended is in the pipes by now, and belongs before its end.
        for stream in Stream::ALL {
            self.pump_stream(id, stream);
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.end.is_some() {
            return;
        }
        process.record_end(id, status, usage, ended);
        let is_ending = process.is_ending;
        let Some(end) = process.end.clone() else { return };
        if is_ending {
            // What it forked since then has not heard of it, and nobody is left to end it.
            self.kill_tree(id);
        }
        self.tell(id, &Event::Exited { id, end });
        self.announce_close(id);
    }

    fn holder_ended(&mut self, id: RunId) {
        // Its last words may still be in the channel.
        self.hear_holder(id);
        // If they were that nothing runs, it is waited for as one that leaves.
        let Some(process) = self.processes.get_mut(&id) else { return };
        let _ = epoll::delete(&self.epoll, &process.holder.pidfd);
        let usage = reap(process.holder.pid);
        process.holder_ended = true;
        if matches!(process.phase, Phase::Starting { .. }) {
            let step = if process.holder.complaint.is_some() { Step::Bwrap } else { Step::Holder };
            if step == Step::Bwrap {
                // If it was killed, somebody may wait for its word.
                sandbar_sandbox::end_bwrap_orphans();
            }
            return self.failed_to_start(id, SetupFailure { step, index: Step::NO_INDEX, errno: 0 });
        }
        self.tree_ended(id, usage);
    }

    /// No process of the tree is left. `usage` counts when nobody saw the leader end, because its pid 1 was killed,
    /// and with it everything.
    fn tree_ended(&mut self, id: RunId, usage: ResourceUse) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.tree_ended = true;
        if process.end.is_none() {
            self.leader_exited(id, ExitStatus::Signaled { signal: libc::SIGKILL }, usage, Timestamp::now());
        }
        for stream in Stream::ALL {
            self.pump_stream(id, stream);
        }
        self.announce_close(id);
    }

    fn pump_stream(&mut self, id: RunId, stream: Stream) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.outputs.stalled.is_some() || process.must_wait() {
            return self.pause_stream(id, stream);
        }
        let before = process.totals().bytes;
        let pumped = process.pump(stream, Timestamp::now(), &mut self.chunk);
        let after = process.totals().bytes;
        let waits = process.must_wait();
        if after != before {
            self.grown(id);
            self.archive.count(after - before);
            self.archive.check_quota(&self.home, &mut self.processes);
        }
        match pumped {
            Pumped::Drained | Pumped::More if waits => self.pause_stream(id, stream),
            Pumped::Drained | Pumped::More => {}
            Pumped::Ended => {
                self.forget_targets(|target| *target == Target::Stream(id, stream));
                self.announce_close(id);
            }
            Pumped::Full => {
                for stream in Stream::ALL {
                    self.pause_stream(id, stream);
                }
                self.tell(id, &Event::Stalled { id });
                self.timers.push(Reverse((Instant::now() + RETRY, Timer::Retry(id))));
            }
        }
    }

    fn grown(&mut self, id: RunId) {
        let Some(process) = self.processes.get(&id) else { return };
        for (client, watcher) in &process.watchers {
            if watcher.watch != Watch::End
                && let Some(connection) = self.connections.get_mut(client)
            {
                connection.grown.insert(id);
            }
        }
    }

    /// Tells everybody who watches, growth first, so that an end never overtakes what came before it.
    fn tell(&mut self, id: RunId, event: &Event) {
        let Some(process) = self.processes.get(&id) else { return };
        let output = process.totals();
        for client in process.watchers.keys() {
            tell_growth_and(&mut self.connections, *client, id, output, event.clone());
        }
    }

    /// Tells one of those who watch.
    fn tell_one(&mut self, client: u64, id: RunId, event: Event) {
        if let Some(process) = self.processes.get(&id) {
            tell_growth_and(&mut self.connections, client, id, process.totals(), event);
        }
    }

    /// Announces the end of everything, if this is it, and lets go of the process.
    fn announce_close(&mut self, id: RunId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.is_closed() {
            return;
        }
        if !process.tree_ended {
            // A tree without streams may go on behind its leader; nothing more is announced of it, but it is held.
            return;
        }
        // Names that were reserved are gone before anybody hears of the end.
        let reserved = std::mem::take(&mut process.placeholders);
        self.placeholders.release(&reserved);
        let Some(process) = self.processes.get_mut(&id) else { return };
        let seq = match &mut process.log {
            Some(log) => log.next_seq(),
            None => sandbar_proto::Seq(2),
        };
        let output = process.totals();
        process.record_close(seq);
        self.tell(id, &Event::Closed { id, seq, output });
        if let Some(process) = self.remove(id) {
            // Not before: making a spare takes the processor that the run needs.
            self.spares.wanted = process.network;
            self.archive.add(id, &process, self.recordings.is_open(id));
            if !reserved.is_empty() {
                placeholders::forget(process.directory.fd());
            }
            self.wait_for_holder(process.holder);
            self.cgroups.sweep();
        }
    }

    /// Waits for a holder whose tree has ended, without making anybody else wait for it.
    fn wait_for_holder(&mut self, Holder { pidfd, control, .. }: Holder) {
        let _ = epoll::delete(&self.epoll, &pidfd);
        self.wait_for(Leaving { pidfd, control: Some(control) });
    }

    fn wait_for(&mut self, leaving: Leaving) {
        let token = self.token(Target::Leaving);
        if epoll::add(&self.epoll, &leaving.pidfd, EventData::new_u64(token), EventFlags::IN).is_ok() {
            self.leaving.insert(token, leaving);
        } else {
            self.targets.remove(&token);
            leaving.reap();
        }
    }

    // --- signals, ends ---

    fn order(&mut self, id: RunId, order: Order) {
        if let Some(process) = self.processes.get(&id) {
            // A holder that is gone needs no order.
            let _ = send_order(process, order);
        }
    }

    /// Asks a tree to end. What is left of it is killed as soon as its leader has ended, or after the grace; where the
    /// leader had ended before, that is what the grace is for.
    fn terminate(&mut self, id: RunId, signal: i32, grace: Duration) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.is_ending = true;
        }
        self.order(id, Order::SignalTree(signal));
        self.timers.push(Reverse((Instant::now() + grace, Timer::Kill(id))));
    }

    /// Kills everything a process started. In a sandbox the end of pid 1 is the end of all
    /// (pid_namespaces(7)); elsewhere the reaper walks.
    fn kill_tree(&mut self, id: RunId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.killed = true;
        if let Some(run) = &process.cgroup {
            // At once, however fast it forks; the holder ends what is not in it.
            let _ = run.cgroup.kill();
        }
        if process.network.is_some() {
            let _ = rustix::process::pidfd_send_signal(&process.holder.pidfd, rustix::process::Signal::KILL);
        } else {
            let _ = send_order(process, Order::KillTree);
        }
    }

    fn fire_timers(&mut self) {
        let now_instant = Instant::now();
        while let Some(Reverse((at, timer))) = self.timers.peek().copied() {
            if at > now_instant {
                return;
            }
            self.timers.pop();
            match timer {
                Timer::WallLimit(id) => {
                    if let Some(process) = self.processes.get_mut(&id)
                        && process.end.is_none()
                    {
                        process.timed_out = true;
                        self.terminate(id, libc::SIGTERM, LIMIT_GRACE);
                    }
                }
                Timer::Kill(id) => self.kill_tree(id),
                Timer::CpuLimit(id) => self.look_at_cpu(id),
                Timer::Guard(id) => self.ask_for_walls(id),
                Timer::Attendant => self.attendant_may_start(),
                Timer::Retry(id) => {
                    self.resume_streams(id);
                    let stalled =
                        self.processes.get(&id).is_some_and(|process| process.outputs.stalled.is_some());
                    if stalled {
                        self.timers.push(Reverse((now_instant + RETRY, Timer::Retry(id))));
                    }
                }
            }
        }
    }

    // --- sending ---

    fn flush_all(&mut self) {
        let clients: Vec<u64> = self.connections.keys().copied().collect();
        for client in clients {
            self.flush(client);
        }
    }

    fn flush(&mut self, client: u64) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        let result = connection.flush().and_then(|done| {
            if !done {
                return Ok(false);
            }
            for id in std::mem::take(&mut connection.grown) {
                if let Some(process) = self.processes.get(&id) {
                    connection.tell(Event::Output { id, output: process.totals() });
                }
            }
            connection.flush()
        });
        let Ok(done) = result else { return self.disconnect(client) };
        let listens = if self.upgrade.is_some() {
            EventFlags::empty()
        } else if connection.takes_requests() {
            EventFlags::RDHUP | EventFlags::IN
        } else {
            EventFlags::RDHUP
        };
        let wanted = listens | if done { EventFlags::empty() } else { EventFlags::OUT };
        // Every loop comes by here; the kernel is told only what it does not know.
        if wanted != connection.interest {
            let told = epoll::modify(&self.epoll, &connection.socket, EventData::new_u64(client), wanted);
            if told.is_ok() {
                connection.interest = wanted;
            }
        }
    }
}

/// What every request has.
#[derive(serde::Deserialize)]
struct Numbered {
    req: u64,
}

fn tell_growth_and(
    connections: &mut BTreeMap<u64, Connection>,
    client: u64,
    id: RunId,
    output: OutputTotals,
    event: Event,
) {
    if let Some(connection) = connections.get_mut(&client) {
        if connection.grown.remove(&id) {
            connection.tell(Event::Output { id, output });
        }
        connection.tell(event);
    }
}

fn send_order(process: &Process, order: Order) -> Result<bool, Errno> {
    transport::send(&process.holder.control, &order.encode(), &[])
}

fn check_signal(signal: i32) -> Result<(), Refusal> {
    if (1..=64).contains(&signal) { Ok(()) } else { Err(Refusal::BadSignal { signal }) }
}

/// Bytes of a command that clients are told; a page of a listing must fit into one packet.
const TOLD_COMMAND_BYTES: usize = 4096;

/// A state with its command cut to what fits into a packet. The record on disk has it whole.
fn told(mut state: ProcessState) -> ProcessState {
    let mut left = TOLD_COMMAND_BYTES;
    state.start.argv.truncate(TOLD_COMMAND_BYTES / 16);
    for argument in &mut state.start.argv {
        let length = argument.as_bytes().len();
        if length > left {
            *argument = argument.as_bytes()[..left].into();
        }
        left -= length.min(left);
    }
    state
}

/// A holder that ends, or has ended, by itself.
#[derive(Debug)]
struct Leaving {
    pidfd: OwnedFd,
    /// Our end of its channel, until nothing can come out of it any more.
    control: Option<OwnedFd>,
}

impl Leaving {
    /// Hands it over.
    fn save(&self, kept: &mut Kept) -> (Fd, Option<Fd>) {
        let Self { pidfd, control } = self;
        (kept.keep(pidfd), control.as_ref().map(|control| kept.keep(control)))
    }

    /// Takes one over.
    fn restore((pidfd, control): (Fd, Option<Fd>), adopted: &mut Adopted) -> Result<Self, HandoverError> {
        let control = control.map(|control| adopted.give(control)).transpose()?;
        Ok(Self { pidfd: adopted.give(pidfd)?, control })
    }

    /// Waits for its end. By its descriptor: one that was waited for already may have given its id to another.
    fn reap(self) {
        // ECHILD where it was waited for already.
        let _ = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// Waits for an ended holder, and returns what its tree used as far as it was waited for.
fn reap(pid: i32) -> ResourceUse {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the status is not asked for, the usage is a live out-pointer.
    let reaped = unsafe { libc::wait4(pid, std::ptr::null_mut(), 0, usage.as_mut_ptr()) };
    if reaped != pid {
        return ResourceUse::default();
    }
    // SAFETY: zeroed is a valid rusage, and the kernel filled it in.
    let usage = unsafe { usage.assume_init() };
    let micros = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000
            + u64::try_from(time.tv_usec).unwrap_or_default()
    };
    ResourceUse {
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or_default(),
    }
}

fn timespec(duration: Duration) -> rustix::time::Timespec {
    rustix::time::Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Takes the directory for this keeper.
fn lock(home: &KeeperDir) -> Result<OwnedFd, KeeperError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock =
        rustix::fs::open(home.lock(), flags, Mode::RUSR | Mode::WUSR).map_err(set_up("open the lock"))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                write_pid(&lock).map_err(set_up("write the lock"))?;
                return Ok(lock);
            }
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(LOCK_INTERVAL),
            Err(Errno::AGAIN) => return Err(KeeperError::AlreadyServed { path: home.path().to_owned() }),
            Err(errno) => return Err(set_up("take the lock")(errno)),
        }
    }
}

/// Says in the lock file who holds it, for people who look.
fn write_pid(lock: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::ftruncate(lock, 0)?;
    rustix::io::pwrite(lock, format!("{}\n", std::process::id()).as_bytes(), 0).map(drop)
}

/// Listens on the directory's socket. It appears under its name only when it listens, so a client never finds a
/// socket that refuses it.
fn listen(home: &KeeperDir) -> Result<OwnedFd, KeeperError> {
    const NEW: &str = "sock.new";
    let fail = set_up("listen on the socket");
    let new = home.path().join(NEW);
    match rustix::fs::unlink(&new) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(fail(errno)),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(&fail)?;
    let (_directory, address) = home.socket_address(NEW).map_err(&fail)?;
    let address = SocketAddrUnix::new(&address).map_err(&fail)?;
    rustix::net::bind(&socket, &address).map_err(&fail)?;
    rustix::fs::chmod(&new, Mode::RUSR | Mode::WUSR).map_err(&fail)?;
    rustix::net::listen(&socket, 1024).map_err(&fail)?;
    rustix::fs::rename(&new, home.path().join(KeeperDir::SOCKET)).map_err(&fail)?;
    Ok(socket)
}
