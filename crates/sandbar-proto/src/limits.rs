//! Limits of a run as plain data: what was asked for, what enforces it, and whether it held the run back.
//!
//! Decides nothing: which mechanism is used is `sandbar-policy`'s concern, which ones there are `sandbar-sandbox`'s.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::AbsPath;

/// Bounds on a run. Absent ones are those of the caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Limits {
    /// Wall-clock time after which the tree is terminated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<Duration>,
    /// CPU time of everything in the tree together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Duration>,
    /// Processes and threads of the tree at one time, as the kernel counts both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procs: Option<u32>,
    /// Memory of the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Files that each process may have open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u32>,
    /// Size of each file that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_size_bytes: Option<u64>,
}

impl Limits {
    /// The value of one of them, in the unit of [`EnforcedLimit::value`].
    #[must_use]
    pub fn get(&self, limit: Limit) -> Option<u64> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        match limit {
            Limit::Wall => self.wall.map(micros),
            Limit::Cpu => self.cpu.map(micros),
            Limit::Procs => self.procs.map(u64::from),
            Limit::Memory => self.memory_bytes,
            Limit::Files => self.files.map(u64::from),
            Limit::FileSize => self.file_size_bytes,
        }
    }

    /// Whether any but the wall-clock time is limited, for which a clock is enough.
    #[must_use]
    pub fn bound_resources(&self) -> bool {
        Limit::ALL.into_iter().any(|limit| limit != Limit::Wall && self.get(limit).is_some())
    }
}

/// One of [`Limits`], by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Limit {
    /// [`Limits::wall`].
    Wall = 1,
    /// [`Limits::cpu`].
    Cpu = 2,
    /// [`Limits::procs`].
    Procs = 3,
    /// [`Limits::memory_bytes`].
    Memory = 4,
    /// [`Limits::files`].
    Files = 5,
    /// [`Limits::file_size_bytes`].
    FileSize = 6,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Wall, Self::Cpu, Self::Procs, Self::Memory, Self::Files, Self::FileSize];
}

impl fmt::Display for Limit {
    /// What is limited, so that it fits behind "the limit on".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wall => "time",
            Self::Cpu => "CPU time",
            Self::Procs => "processes",
            Self::Memory => "memory",
            Self::Files => "open files",
            Self::FileSize => "file size",
        })
    }
}

/// What enforces a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LimitMechanism {
    /// A cgroup of the run's own (cgroups(7), version 2).
    Cgroup,
    /// A resource limit of the kernel (setrlimit(2)).
    Rlimit,
    /// The process that holds the tree looks at it again and again.
    Watchdog,
    /// A clock of the keeper.
    Timer,
}

impl fmt::Display for LimitMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cgroup => "cgroup",
            Self::Rlimit => "rlimit",
            Self::Watchdog => "watchdog",
            Self::Timer => "timer",
        })
    }
}

/// What a mechanism counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// The whole tree.
    Run,
    /// Each process by itself.
    Process,
}

/// How one mechanism enforces one limit. A limit that two mechanisms enforce has two of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EnforcedLimit {
    /// Which limit.
    pub limit: Limit,
    /// Bytes, microseconds, or a number of processes or files.
    pub value: u64,
    /// What enforces it.
    pub by: LimitMechanism,
    /// What that counts together.
    pub per: LimitScope,
}

/// What became of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LimitReport {
    /// The limit.
    #[serde(flatten)]
    pub enforced: EnforcedLimit,
    /// Whether it held the run back. `None` where nobody saw that and nobody would have: the kernel tells only the
    /// process whose call it refused.
    pub held: Option<bool>,
}

/// What ran out of memory when the kernel or Sandbar ended a run for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OutOfMemory {
    /// The run reached its own limit.
    Run,
    /// The machine, or a cgroup around the keeper: the kernel ended processes for lack of memory while this run went
    /// on, and its command was ended by a SIGKILL that nobody here sent.
    Host,
}

/// Why there is no cgroup for runs, or one with fewer controllers than there could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "because")]
pub enum CgroupObstacle {
    /// Nobody looked.
    Unknown,
    /// No cgroup file system of version 2 is mounted, or none that shows the keeper's own cgroup.
    NotMounted,
    /// The keeper may not make cgroups below its own: nobody delegated it.
    NotDelegated,
    /// The controllers for processes and memory are not there: used by version 1, or not passed down from above.
    NoControllers,
    /// Processes that are not Sandbar's are in the keeper's cgroup. A cgroup with processes in it passes no controllers
    /// down (cgroups(7), "no internal processes").
    Shared {
        /// How many.
        processes: u32,
    },
    /// A call failed that should not.
    Failed {
        /// errno(3).
        errno: i32,
    },
}

impl fmt::Display for CgroupObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("nobody looked for a cgroup"),
            Self::NotMounted => f.write_str("no cgroup file system of version 2 shows the keeper's cgroup"),
            Self::NotDelegated => f.write_str("the keeper's cgroup is not delegated to this user"),
            Self::NoControllers => {
                f.write_str("the keeper's cgroup has no controllers for processes and memory")
            }
            Self::Shared { processes: 1 } => {
                f.write_str("another process is in the keeper's cgroup, which can pass no controllers down")
            }
            Self::Shared { processes } => write!(
                f,
                "{processes} other processes are in the keeper's cgroup, which can pass no controllers down"
            ),
            Self::Failed { errno } => write!(f, "the keeper's cgroup can't be used (errno {errno})"),
        }
    }
}

/// What the keeper can do with cgroups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LimitFacts {
    /// Below which cgroup directory those of runs are made. Such a cgroup counts CPU time and can be killed, whatever
    /// its controllers.
    pub cgroup: Option<AbsPath>,
    /// Whether it limits processes.
    pub pids: bool,
    /// Whether it limits memory.
    pub memory: bool,
    /// Why not everything.
    pub obstacle: Option<CgroupObstacle>,
}

impl Default for LimitFacts {
    /// Nothing is known, so nothing is relied on.
    fn default() -> Self {
        Self { cgroup: None, pids: false, memory: false, obstacle: Some(CgroupObstacle::Unknown) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_without_limits_says_nothing_about_them() {
        assert_eq!(serde_json::to_string(&Limits::default()).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<Limits>("{}").unwrap(), Limits::default());
    }

    #[test]
    fn each_limit_has_a_value_in_its_unit() {
        let limits = Limits {
            wall: Some(Duration::from_millis(1)),
            cpu: Some(Duration::from_secs(2)),
            procs: Some(3),
            memory_bytes: Some(4),
            files: Some(5),
            file_size_bytes: Some(6),
        };
        let values = Limit::ALL.map(|limit| limits.get(limit));
        assert_eq!(values, [1000, 2_000_000, 3, 4, 5, 6].map(Some));
        let wall = Limits { wall: limits.wall, ..Limits::default() };
        assert!(limits.bound_resources() && !wall.bound_resources());
    }

    #[test]
    fn a_report_names_limit_mechanism_and_scope() {
        let enforced = EnforcedLimit {
            limit: Limit::FileSize,
            value: 4096,
            by: LimitMechanism::Rlimit,
            per: LimitScope::Process,
        };
        let report = LimitReport { enforced, held: None };
        let text = r#"{"limit":"file_size","value":4096,"by":"rlimit","per":"process","held":null}"#;
        assert_eq!(serde_json::to_string(&report).unwrap(), text);
        assert_eq!(serde_json::from_str::<LimitReport>(text).unwrap(), report);
    }
}
