//! What is known of a process: how it was started, how it ended, what it used.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{AbsPath, ByteString, EnforcedLimit, Lifetime, LimitReport, OutOfMemory, Owner, RunId, Seq};

/// Wall-clock time in nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time now. A clock before 1970 is taken for 1970.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The time from `earlier` to `self`, zero when the clock was set back in between.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Which output stream of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
    /// The screen of a terminal: what its command wrote, and the echo of what was typed.
    Pty,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Pty];
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum ExitStatus {
    /// It called `_exit(code)`.
    Exited {
        /// 0 to 255.
        code: u8,
    },
    /// A signal ended it.
    Signaled {
        /// Number of the signal on this platform.
        signal: i32,
    },
    /// The keeper died, and with it everything it held; nobody saw how this process ended.
    Lost,
}

impl ExitStatus {
    /// The status a shell reports: the code, or 128 plus the signal's number.
    #[must_use]
    pub fn shell_code(self) -> Option<u8> {
        match self {
            Self::Exited { code } => Some(code),
            Self::Signaled { signal } => signal.checked_add(128).and_then(|code| u8::try_from(code).ok()),
            Self::Lost => None,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited with {code}"),
            Self::Signaled { signal } => write!(f, "ended by signal {signal}"),
            Self::Lost => f.write_str("lost with its keeper"),
        }
    }
}

/// What a process and its waited-for children used, as getrusage(2) counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResourceUse {
    /// CPU time in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// Largest resident set of one process, in KiB.
    pub max_rss_kib: u64,
}

/// How much a process wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutputTotals {
    /// Bytes on both streams together; direct streams are not counted, nobody saw them.
    pub bytes: u64,
    /// Bytes of these that were dropped from the log, stated as gaps to its readers.
    pub dropped_bytes: u64,
    /// The last sequence number that was given out.
    pub last_seq: Seq,
}

/// Written before a process runs; what `ps` shows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StartRecord {
    /// The run.
    pub id: RunId,
    /// The command.
    pub argv: Vec<ByteString>,
    /// Where it runs.
    pub cwd: AbsPath,
    /// When it was started.
    pub started: Timestamp,
    /// Name of the profile that the plan was made from, for people.
    pub profile: String,
    /// What happens when its client goes.
    pub lifetime: Lifetime,
    /// Process id, in the keeper's own pid namespace, of the process that holds the tree: the sandbox's pid 1,
    /// or the reaper of a tree without a sandbox. Absent until it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder_pid: Option<u32>,
    /// Whether it has a terminal of its own.
    #[serde(default, skip_serializing_if = "crate::sandbox::is_false")]
    pub terminal: bool,
    /// The rollout that it is recorded in, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<AbsPath>,
    /// Who it belongs to, if its starter said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The limits that it runs under.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<EnforcedLimit>,
    /// Directory of its own cgroup, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<AbsPath>,
}

/// Written before anybody is told that a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EndRecord {
    /// The run.
    pub id: RunId,
    /// How the leader ended.
    pub status: ExitStatus,
    /// When the leader ended.
    pub ended: Timestamp,
    /// What the leader and its waited-for children used.
    pub usage: ResourceUse,
    /// What was written until the record was made. Its last sequence number is that of the end itself, [`EndRecord::seq`].
    pub output: OutputTotals,
    /// Whether the plan's wall-clock limit ended it.
    #[serde(default)]
    pub timed_out: bool,
    /// The limits that it ran under, and which of them held it back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitReport>,
    /// What ran out of memory, if it was ended for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<OutOfMemory>,
    /// The name that could not be protected any more, if it was ended for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unprotected: Option<AbsPath>,
}

impl EndRecord {
    /// The place of the end among the events of the process. Output behind it has higher numbers: of what the leader left
    /// behind, or of what was still in a pipe. `None` in records of keepers that did not number the end of every
    /// process.
    #[must_use]
    pub fn seq(&self) -> Option<Seq> {
        (self.output.last_seq > Seq(0)).then_some(self.output.last_seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_see_the_code_or_128_plus_the_signal() {
        assert_eq!(ExitStatus::Exited { code: 7 }.shell_code(), Some(7));
        assert_eq!(ExitStatus::Signaled { signal: 9 }.shell_code(), Some(137));
        assert_eq!(ExitStatus::Lost.shell_code(), None);
        for signal in [i32::MIN, -129, 128, i32::MAX] {
            assert_eq!(ExitStatus::Signaled { signal }.shell_code(), None, "no platform has it");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_gives_no_negative_duration() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
    }
}
