//! Who records which run, and who goes on when nobody does.
//!
//! A recorded run has one recorder: the client that started it, or the attendant, a process of ours that the keeper
//! starts when a recorder goes before it is done. Until the attendant has come, nothing is dropped that the recorder
//! before it may not have written down, and the run waits once it is far ahead. The keeper itself writes no record
//! and knows of one only its path.
//!
//! One attendant serves all runs. If it can't be started, or ends again and again, its runs are given up: they go on
//! without a record, and the next keeper tries once more.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sandbar_proto::{RunId, TakeoverReason};
use serde::{Deserialize, Serialize};

use super::process::Phase;
use super::{Keeper, Target, Timer};
use crate::handover::{Adopted, Fd, HandoverError, Kept};
use crate::launcher::ATTENDANT_ARGUMENT;
use crate::protocol::{Event, Watch};

/// How often a run may lose its attendant before it is given up.
const MOST_LOSSES: u32 = 3;

/// How long after an attendant ended the next one is started. One that dies at once must not be started in a loop.
const RESTART: Duration = Duration::from_millis(500);

/// A recording that is not complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Recording {
    /// The connection of who records it; `None` while nobody does.
    recorder: Option<u64>,
    /// Why nobody does.
    reason: TakeoverReason,
    /// Whether the attendant knows of it.
    told: bool,
    /// Attendants that it has lost.
    losses: u32,
}

/// The attendant.
#[derive(Debug, Default)]
enum Attendant {
    /// None runs.
    #[default]
    None,
    /// None runs, and the next one is started later.
    Waiting,
    /// It was started, and may have connected.
    Running {
        pid: i32,
        /// To see its end.
        pidfd: OwnedFd,
        client: Option<u64>,
    },
}

/// All recordings that are not complete.
#[derive(Debug, Default)]
pub(super) struct Recordings {
    open: BTreeMap<RunId, Recording>,
    attendant: Attendant,
}

impl Recordings {
    /// Notes that `client` records a run from now on.
    pub(super) fn begin(&mut self, id: RunId, client: u64) {
        let losses = self.open.get(&id).map_or(0, |recording| recording.losses);
        let reason = TakeoverReason::RecorderDied;
        self.open.insert(id, Recording { recorder: Some(client), reason, told: false, losses });
    }

    /// Notes a run whose keeper died before its record was complete.
    pub(super) fn inherit(&mut self, id: RunId) {
        let reason = TakeoverReason::KeeperDied;
        self.open.insert(id, Recording { recorder: None, reason, told: false, losses: 0 });
    }

    /// Whether a run's record is not complete.
    pub(super) fn is_open(&self, id: RunId) -> bool {
        self.open.contains_key(&id)
    }

    /// Forgets a run that was never started.
    pub(super) fn forget(&mut self, id: RunId) {
        self.open.remove(&id);
    }

    /// Whether anything waits for an attendant.
    fn has_unattended(&self) -> bool {
        self.open.values().any(|recording| recording.recorder.is_none())
    }

    /// Runs that `client` records.
    fn of(&self, client: u64) -> Vec<RunId> {
        let of = |recording: &Recording| recording.recorder == Some(client);
        self.open.iter().filter(|(_, recording)| of(recording)).map(|(id, _)| *id).collect()
    }

    /// Counts a loss of everything that nobody records; returns what is given up.
    fn count_losses(&mut self) -> Vec<RunId> {
        for recording in self.open.values_mut().filter(|recording| recording.recorder.is_none()) {
            recording.told = false;
            recording.losses += 1;
        }
        let hopeless = self.open.iter().filter(|(_, recording)| recording.losses >= MOST_LOSSES);
        let hopeless: Vec<RunId> = hopeless.map(|(id, _)| *id).collect();
        self.open.retain(|id, _| !hopeless.contains(id));
        hopeless
    }
}

impl Keeper {
    /// Takes that a client records a run.
    pub(super) fn record(&mut self, client: u64, id: RunId) {
        self.recordings.begin(id, client);
        if let Some(process) = self.processes.get_mut(&id) {
            process.unrecorded_from = None;
        }
    }

    /// Takes that a record is complete, or that it can't be completed.
    pub(super) fn recorded(&mut self, id: RunId, complete: bool) {
        self.recordings.open.remove(&id);
        self.archive.let_go(id);
        if let Some(process) = self.processes.get_mut(&id) {
            process.unrecorded_from = None;
        }
        if complete {
            // Without the mark the next keeper has an attendant look, which finds the record complete.
            let _ = crate::records::mark_recorded(&self.home.processes().join(id.to_string()));
        }
        self.resume_streams(id);
    }

    /// Takes that a recorder stops: it detaches its run.
    pub(super) fn release(&mut self, client: u64, id: RunId) {
        let is_recorder = |recording: &&mut Recording| recording.recorder == Some(client);
        if let Some(recording) = self.recordings.open.get_mut(&id).filter(is_recorder) {
            recording.reason = TakeoverReason::Detached;
            self.orphan(client, id);
        }
    }

    /// Takes that a client is gone: what it recorded needs somebody else.
    pub(super) fn orphan_all(&mut self, client: u64) {
        for id in self.recordings.of(client) {
            self.orphan(client, id);
        }
        if let Attendant::Running { client: serving, .. } = &mut self.recordings.attendant
            && *serving == Some(client)
        {
            // Its end is told by its pidfd.
            *serving = None;
        }
    }

    fn orphan(&mut self, client: u64, id: RunId) {
        if let Some(process) = self.processes.get_mut(&id) {
            // A recorder that never acknowledged anything has nothing written down.
            let acked = process.watchers.get(&client).filter(|watcher| watcher.watch == Watch::Lossless);
            process.unrecorded_from = Some(acked.map_or(0, |watcher| watcher.needed_from));
        }
        if let Some(recording) = self.recordings.open.get_mut(&id) {
            recording.recorder = None;
        }
    }

    /// Takes that a client is the attendant.
    pub(super) fn attend(&mut self, client: u64) {
        if let Attendant::Running { client: serving, .. } = &mut self.recordings.attendant {
            *serving = Some(client);
        }
    }

    /// Sees to it that everything unattended comes to an attendant.
    pub(super) fn see_to_recordings(&mut self) {
        if !self.recordings.has_unattended() {
            return;
        }
        match self.recordings.attendant {
            Attendant::None => self.start_attendant(),
            Attendant::Running { client: Some(client), .. } => self.tell_attendant(client),
            Attendant::Waiting | Attendant::Running { client: None, .. } => {}
        }
    }

    fn tell_attendant(&mut self, client: u64) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        let starting = |id: &RunId| {
            self.processes.get(id).is_some_and(|process| matches!(process.phase, Phase::Starting { .. }))
        };
        for (id, recording) in &mut self.recordings.open {
            if recording.recorder.is_none() && !recording.told && !starting(id) {
                recording.told = true;
                connection.tell(Event::Unattended { id: *id, reason: recording.reason });
            }
        }
    }

    fn start_attendant(&mut self) {
        let started = spawn(self.home.path()).and_then(|child| {
            let pid = Pid::from_child(&child);
            Ok((pid.as_raw_pid(), pidfd_open(pid, PidfdFlags::empty())?))
        });
        let Ok((pid, pidfd)) = started else { return self.attendant_lost() };
        let token = self.token(Target::Attendant);
        if epoll::add(&self.epoll, pidfd.as_fd(), EventData::new_u64(token), EventFlags::IN).is_err() {
            self.targets.remove(&token);
            return self.attendant_lost();
        }
        self.recordings.attendant = Attendant::Running { pid, pidfd, client: None };
    }

    /// The attendant has ended: because nothing was left to do, or because something ended it.
    pub(super) fn attendant_ended(&mut self) {
        if let Attendant::Running { pid, .. } = std::mem::take(&mut self.recordings.attendant) {
            // It is over; this only takes it off the kernel's list.
            super::reap(pid);
        }
        if self.recordings.has_unattended() {
            self.attendant_lost();
        }
    }

    fn attendant_lost(&mut self) {
        for id in self.recordings.count_losses() {
            self.recorded(id, false);
        }
        self.recordings.attendant = Attendant::Waiting;
        self.timers.push(std::cmp::Reverse((Instant::now() + RESTART, Timer::Attendant)));
    }

    /// The time has come for another attendant.
    pub(super) fn attendant_may_start(&mut self) {
        if matches!(self.recordings.attendant, Attendant::Waiting) {
            self.recordings.attendant = Attendant::None;
        }
    }
}

/// [`Recordings`] on their way to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedRecordings {
    open: BTreeMap<RunId, Recording>,
    attendant: SavedAttendant,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedAttendant {
    None,
    Waiting,
    Running { pid: i32, pidfd: Fd, client: Option<u64> },
}

impl Recordings {
    /// Hands all recordings and the attendant over.
    pub(super) fn save(&self, kept: &mut Kept) -> SavedRecordings {
        let Self { open, attendant } = self;
        let attendant = match attendant {
            Attendant::None => SavedAttendant::None,
            Attendant::Waiting => SavedAttendant::Waiting,
            Attendant::Running { pid, pidfd, client } => {
                SavedAttendant::Running { pid: *pid, pidfd: kept.keep(pidfd), client: *client }
            }
        };
        SavedRecordings { open: open.clone(), attendant }
    }

    /// Takes recordings and the attendant over.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub(super) fn restore(saved: SavedRecordings, adopted: &mut Adopted) -> Result<Self, HandoverError> {
        let SavedRecordings { open, attendant } = saved;
        let attendant = match attendant {
            SavedAttendant::None => Attendant::None,
            SavedAttendant::Waiting => Attendant::Waiting,
            SavedAttendant::Running { pid, pidfd, client } => {
                Attendant::Running { pid, pidfd: adopted.give(pidfd)?, client }
            }
        };
        Ok(Self { open, attendant })
    }

    /// Where the end of the attendant shows, if one runs.
    pub(super) fn attendant(&self) -> Option<BorrowedFd<'_>> {
        match &self.attendant {
            Attendant::Running { pidfd, .. } => Some(pidfd.as_fd()),
            Attendant::None | Attendant::Waiting => None,
        }
    }
}

/// Starts this very program as the attendant of the keeper in `home`.
fn spawn(home: &std::path::Path) -> std::io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg0("sandbar-attendant")
        .arg(ATTENDANT_ARGUMENT)
        .env_clear()
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> RunId {
        RunId::from_uuid_bytes([byte; 16])
    }

    #[test]
    fn what_a_client_recorded_is_unattended_when_it_goes_and_what_others_record_is_not() {
        let mut recordings = Recordings::default();
        recordings.begin(id(1), 7);
        recordings.begin(id(2), 8);
        assert_eq!((recordings.of(7), recordings.has_unattended()), (vec![id(1)], false));
    }

    #[test]
    fn a_run_that_loses_its_attendants_again_and_again_is_given_up() {
        let mut recordings = Recordings::default();
        recordings.inherit(id(1));
        recordings.begin(id(2), 8);
        assert!(recordings.has_unattended());
        for _ in 1..MOST_LOSSES {
            assert_eq!(recordings.count_losses(), []);
        }
        assert_eq!(recordings.count_losses(), [id(1)]);
        assert!(!recordings.is_open(id(1)) && recordings.is_open(id(2)));
    }

    #[test]
    fn losses_are_counted_over_the_attendants_that_took_a_run_over() {
        let mut recordings = Recordings::default();
        recordings.inherit(id(1));
        for client in 1..u64::from(MOST_LOSSES) {
            assert_eq!(recordings.count_losses(), []);
            recordings.begin(id(1), client);
            for run in recordings.of(client) {
                recordings.open.get_mut(&run).unwrap().recorder = None;
            }
        }
        assert_eq!(recordings.count_losses(), [id(1)]);
    }
}
