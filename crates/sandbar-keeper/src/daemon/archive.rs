//! What is kept of processes that ended, and what all logs together may take.
//!
//! Records are kept for an hour, or the last thousand of them, whichever keeps more. Logs have a quota over all
//! processes: those that ended longest ago give theirs up first, then those that run and have no reader that
//! must see every byte. A log that was given up is a gap to its readers, its record stays.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use sandbar_proto::{EndRecord, ExitStatus, ResourceUse, RunId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use super::cgroups::Cgroups;
use super::placeholders;
use super::process::Process;
use crate::log::LogWriter;
use crate::records::{self, Record};
use crate::runtime_dir::KeeperDir;

const KEPT_RECORDS: usize = 1000;
const KEPT_FOR: Duration = Duration::from_secs(60 * 60);

/// Records that are removed at most for one that is added: more than one, so that a pile shrinks.
const TRIMMED_PER_END: usize = 2;

/// Most bytes of all logs, on any machine.
const QUOTA_BYTES: u64 = 256 * 1024 * 1024;

/// New output after which the quota is looked at again: finer would cost a walk over all processes per chunk.
const CHECK_EVERY_BYTES: u64 = 8 * 1024 * 1024;

/// A process that ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ended {
    id: RunId,
    at: Timestamp,
    log_bytes: u64,
    /// Whether its record is not complete: then its log is kept.
    held: bool,
    /// The session of its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
}

/// Everything that ended and is still on record, oldest end first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Archive {
    ended: VecDeque<Ended>,
    written_bytes: u64,
    /// Whether runs were lost with the keeper before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    has_lost: bool,
    /// What ended since the last trimming.
    added: usize,
}

impl Archive {
    /// Reads what earlier keepers left, removes what is nobody's any more, `cgroups` included, and writes down what was lost
    /// with them. Also returns the runs whose records are not complete.
    pub(super) fn open(home: &KeeperDir, cgroups: &mut Cgroups, now: Timestamp) -> (Self, Vec<RunId>) {
        // A directory that can't be read has no history; starting a process in it says why.
        records::remove_unfinished(home);
        let found = records::read_all(home).unwrap_or_default();
        let has_lost = found.iter().any(|record| record.end.is_none());
        if has_lost {
            sandbar_sandbox::end_bwrap_orphans();
        }
        let mut ended: Vec<Ended> = found
            .into_iter()
            .map(|record| {
                let at = record.end.as_ref().map_or(now, |end| end.ended);
                // Also of a run that ended: its keeper may have died before it let go of them.
                placeholders::reclaim(&record.path, record.start.started);
                if let Some(cgroup) = record.start.cgroup.clone() {
                    cgroups.reclaim(cgroup);
                }
                if record.end.is_none() {
                    bury(&record, now);
                }
                let held = record.is_unrecorded();
                Ended {
                    id: record.start.id,
                    at,
                    log_bytes: log_bytes(&record.path),
                    held,
                    session: record.start.owner.and_then(|owner| owner.session),
                }
            })
            .collect();
        ended.sort_by_key(|entry| entry.at);
        let held = ended.iter().filter(|entry| entry.held).map(|entry| entry.id).collect();
        (Self { ended: ended.into(), written_bytes: 0, has_lost, added: 0 }, held)
    }

    /// Notes a process that ended. The log of one that is `held` is kept until [`Archive::let_go`].
    pub(super) fn add(&mut self, id: RunId, process: &Process, held: bool) {
        let at = process.end.as_ref().map(|end| end.ended).unwrap_or_default();
        let log_bytes = process.log.as_ref().map_or(0, LogWriter::file_bytes);
        let session = process.start.owner.as_ref().and_then(|owner| owner.session.clone());
        self.ended.push_back(Ended { id, at, log_bytes, held, session });
        self.added += 1;
    }

    /// Whether runs were lost with the keeper before this one.
    pub(super) fn has_lost(&self) -> bool {
        self.has_lost
    }

    /// Everything on record that was started in a session.
    pub(super) fn owned(&self) -> impl Iterator<Item = (&SessionId, RunId)> {
        self.ended.iter().filter_map(|entry| Some((entry.session.as_ref()?, entry.id)))
    }

    /// Notes that nobody needs the log of a process any more.
    pub(super) fn let_go(&mut self, id: RunId) {
        // Nearly always the last one.
        if let Some(entry) = self.ended.iter_mut().rev().find(|entry| entry.id == id) {
            entry.held = false;
        }
    }

    /// Counts new output.
    pub(super) fn count(&mut self, bytes: u64) {
        self.written_bytes += bytes;
    }

    /// Brings the logs within the quota when enough was written since the last look.
    pub(super) fn check_quota(&mut self, home: &KeeperDir, live: &mut BTreeMap<RunId, Process>) {
        if self.written_bytes >= CHECK_EVERY_BYTES {
            self.enforce_quota(home, live);
        }
    }

    /// Removes a few of the records that are kept no longer. For the time behind an end, once for each: a removal
    /// takes as long as a third of a start where the runtime directory is on a disk.
    pub(super) fn trim(&mut self, home: &KeeperDir) {
        for _ in 0..std::mem::take(&mut self.added) * TRIMMED_PER_END {
            if !self.is_to_trim() {
                return;
            }
            if let Some(oldest) = self.ended.pop_front() {
                records::remove(&directory(home, oldest.id));
            }
        }
    }

    fn is_to_trim(&self) -> bool {
        let is_old = |oldest: &Ended| !oldest.held && Timestamp::now().since(oldest.at) > KEPT_FOR;
        self.ended.len() > KEPT_RECORDS && self.ended.front().is_some_and(is_old)
    }

    /// Brings the logs within the quota.
    pub(super) fn enforce_quota(&mut self, home: &KeeperDir, live: &mut BTreeMap<RunId, Process>) {
        self.written_bytes = 0;
        let running: u64 = live.values().filter_map(|p| p.log.as_ref()).map(LogWriter::file_bytes).sum();
        let past: u64 = self.ended.iter().map(|entry| entry.log_bytes).sum();
        let mut excess = (running + past).saturating_sub(quota(home, running + past));
        for entry in &mut self.ended {
            if excess == 0 {
                return;
            }
            if entry.log_bytes > 0 && !entry.held {
                remove_log(&directory(home, entry.id));
                excess = excess.saturating_sub(entry.log_bytes);
                entry.log_bytes = 0;
            }
        }
        for process in live.values_mut() {
            if excess == 0 {
                return;
            }
            let keep_from = process.keep().needed_from;
            if let Some(log) = &mut process.log {
                excess = excess.saturating_sub(log.shrink(keep_from));
            }
        }
    }
}

/// A quarter of what would be free without any log, and never more than [`QUOTA_BYTES`].
fn quota(home: &KeeperDir, used: u64) -> u64 {
    let free = rustix::fs::statvfs(home.path()).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    QUOTA_BYTES.min(free.saturating_add(used) / 4)
}

fn directory(home: &KeeperDir, id: RunId) -> std::path::PathBuf {
    home.processes().join(id.to_string())
}

/// Writes down that a run was lost.
fn bury(record: &Record, now: Timestamp) {
    let end = EndRecord {
        id: record.start.id,
        status: ExitStatus::Lost,
        ended: now,
        usage: ResourceUse::default(),
        output: records::lost_output(&record.path),
        timed_out: false,
        limits: Vec::new(),
        out_of_memory: None,
        unprotected: None,
    };
    // A full directory keeps the run without an end, and the next keeper tries again.
    let _ = records::write_lost(record, &end);
}

fn is_log(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"log.")
}

fn log_bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let logs = entries.flatten().filter(|entry| is_log(&entry.file_name()));
    logs.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn remove_log(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| is_log(&entry.file_name())) {
        let _ = std::fs::remove_file(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_proto::{AbsPath, Lifetime, OutputTotals, StartRecord};

    fn keeper() -> (tempfile::TempDir, KeeperDir) {
        let parent = tempfile::tempdir().unwrap();
        let keeper = KeeperDir::at(parent.path().join("k1-0"));
        keeper.ensure().unwrap();
        (parent, keeper)
    }

    fn leave_behind(home: &KeeperDir, ended: Option<Timestamp>) -> RunId {
        let id = RunId::generate();
        let start = StartRecord {
            id,
            argv: vec!["sleep".into()],
            cwd: AbsPath::root(),
            started: Timestamp(1),
            profile: "workspace".to_owned(),
            lifetime: Lifetime::Detached,
            holder_pid: None,
            terminal: false,
            rollout: None,
            owner: None,
            limits: Vec::new(),
            cgroup: None,
        };
        let mut process = records::ProcessDir::create(home, &start).unwrap();
        if let Some(ended) = ended {
            let end = EndRecord {
                id,
                status: ExitStatus::Exited { code: 0 },
                ended,
                usage: ResourceUse::default(),
                output: OutputTotals::default(),
                timed_out: false,
                limits: Vec::new(),
                out_of_memory: None,
                unprotected: None,
            };
            process.finish(&end).unwrap();
        }
        id
    }

    #[test]
    fn what_an_earlier_keeper_lost_is_written_down() {
        let (_parent, home) = keeper();
        leave_behind(&home, None);
        Archive::open(&home, &mut Cgroups::default(), Timestamp(7));
        let end = records::read_all(&home).unwrap()[0].end.clone().unwrap();
        assert_eq!((end.status, end.ended), (ExitStatus::Lost, Timestamp(7)));
    }

    #[test]
    fn names_of_runs_whose_keeper_died_are_free_again_also_of_those_that_had_ended() {
        for ended in [None, Some(Timestamp(2))] {
            let (parent, home) = keeper();
            let name = parent.path().canonicalize().unwrap().join(".codex");
            std::fs::create_dir(&name).unwrap();
            std::fs::set_permissions(&name, std::os::unix::fs::PermissionsExt::from_mode(0o1755)).unwrap();
            let id = leave_behind(&home, ended);
            let journal = directory(&home, id).join("placeholders.json");
            std::fs::write(&journal, format!(r#"[{{"path":"{}","what":"directory"}}]"#, name.display()))
                .unwrap();
            Archive::open(&home, &mut Cgroups::default(), Timestamp(7));
            assert!(!name.exists() && !journal.exists(), "{ended:?}");
        }
    }

    #[test]
    fn a_thousand_records_stay_however_old_they_are() {
        let (_parent, home) = keeper();
        for _ in 0..KEPT_RECORDS + 5 {
            leave_behind(&home, Some(Timestamp(1)));
        }
        let recent = leave_behind(&home, Some(Timestamp::now()));
        let (mut archive, _) = Archive::open(&home, &mut Cgroups::default(), Timestamp(7));
        let count = || records::read_all(&home).unwrap().len();
        archive.trim(&home);
        assert_eq!(count(), KEPT_RECORDS + 6, "nothing ended since");
        for left in [KEPT_RECORDS + 4, KEPT_RECORDS + 2, KEPT_RECORDS, KEPT_RECORDS] {
            archive.added = 1;
            archive.trim(&home);
            assert_eq!(count(), left);
        }
        let left = records::read_all(&home).unwrap();
        assert!(left.iter().any(|record| record.start.id == recent));
    }
}
