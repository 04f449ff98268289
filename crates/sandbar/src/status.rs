//! How a run stands, in words and as JSON.

use sandbar_keeper::Record;
use sandbar_proto::{ExitStatus, Timestamp};
use serde::Serialize;

use crate::{limits, signal, time};

/// Where a run is: the end that is on record, or that there is none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub(crate) enum Status {
    /// It runs.
    Running,
    /// It ended by itself.
    Exited { code: u8 },
    /// A signal ended it.
    Signaled { signal: i32 },
    /// Its keeper died, and it with it.
    Lost,
}

impl From<ExitStatus> for Status {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Exited { code } => Self::Exited { code },
            ExitStatus::Signaled { signal } => Self::Signaled { signal },
            ExitStatus::Lost => Self::Lost,
        }
    }
}

impl Status {
    /// The status of what is on record. A run without end and without keeper was lost, whether or not the next
    /// keeper has written that down yet.
    pub(crate) fn of(record: &Record, keeper_alive: bool) -> Self {
        match (&record.end, keeper_alive) {
            (Some(end), _) => end.status.into(),
            (None, true) => Self::Running,
            (None, false) => Self::Lost,
        }
    }
}

/// The status of a run in a few words.
pub(crate) fn words(record: &Record, keeper_alive: bool, now: Timestamp) -> String {
    if record.end.as_ref().is_some_and(|end| end.timed_out) {
        return "timed out".to_owned();
    }
    if let Some(cause) = record.end.as_ref().and_then(limits::cause) {
        return cause.to_owned();
    }
    match Status::of(record, keeper_alive) {
        Status::Running => format!("running {}", time::short(now.since(record.start.started))),
        Status::Exited { code } => format!("exited {code}"),
        Status::Signaled { signal } => format!("signal {}", signal::name(signal)),
        Status::Lost => "lost".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use sandbar_proto::{AbsPath, EndRecord, Lifetime, OutputTotals, ResourceUse, RunId, StartRecord};

    /// A run that was started a second after the epoch.
    pub(crate) fn record(end: Option<ExitStatus>) -> Record {
        let id = RunId::from_uuid_bytes([7; 16]);
        let start = StartRecord {
            id,
            argv: vec!["make".into(), "a\nb".into()],
            cwd: AbsPath::root(),
            started: Timestamp(1_000_000_000),
            profile: "workspace".to_owned(),
            lifetime: Lifetime::Detached,
            holder_pid: None,
            terminal: false,
            rollout: None,
            owner: None,
            limits: Vec::new(),
            cgroup: None,
        };
        let end = end.map(|status| EndRecord {
            id,
            status,
            ended: Timestamp(2_000_000_000),
            usage: ResourceUse::default(),
            output: OutputTotals::default(),
            timed_out: false,
            limits: Vec::new(),
            out_of_memory: None,
            unprotected: None,
        });
        Record { start, end, path: "/nowhere".into() }
    }

    #[test]
    fn every_status_has_its_words() {
        let now = Timestamp(181_000_000_000);
        let words_of = |end, keeper_alive| words(&record(end), keeper_alive, now);
        assert_eq!(words_of(None, true), "running 3m");
        assert_eq!(words_of(None, false), "lost");
        assert_eq!(words_of(Some(ExitStatus::Lost), true), "lost");
        assert_eq!(words_of(Some(ExitStatus::Exited { code: 0 }), true), "exited 0");
        assert_eq!(words_of(Some(ExitStatus::Signaled { signal: 15 }), false), "signal TERM");
    }

    #[test]
    fn a_time_limit_is_named_instead_of_the_signal_that_enforced_it() {
        let mut record = record(Some(ExitStatus::Signaled { signal: 15 }));
        if let Some(end) = &mut record.end {
            end.timed_out = true;
        }
        assert_eq!(words(&record, true, Timestamp(0)), "timed out");
    }

    #[test]
    fn a_status_is_json_like_the_end_of_a_run() {
        let json = |status| serde_json::to_string(&status).unwrap();
        assert_eq!(json(Status::Running), r#"{"how":"running"}"#);
        for status in [ExitStatus::Exited { code: 3 }, ExitStatus::Signaled { signal: 9 }, ExitStatus::Lost] {
            assert_eq!(json(Status::from(status)), serde_json::to_string(&status).unwrap());
        }
    }
}
