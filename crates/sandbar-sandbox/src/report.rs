//! What the holder of a tree tells its keeper, and what the keeper asks of it.
//!
//! The holder is pid 1 of a sandbox, or the reaper of a tree without one. Both sides speak packets of one fixed
//! size over a private SOCK_SEQPACKET pair, so a packet is whole or absent. Nothing in here comes from the
//! command: the holder closes its end towards the command before it starts it.

use std::fmt;

use sandbar_proto::{ExitStatus, Limit, ResourceUse, Timestamp};

/// Bytes of every packet.
pub const PACKET_BYTES: usize = 48;

/// A step of setting up a process; what failed when a start fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Step {
    /// Making namespaces and the process in them, clone(2).
    Namespaces = 1,
    /// Mapping users and groups into the user namespace.
    IdMap = 2,
    /// Opening the host's file behind a mount; the index is that of the mount operation.
    Source = 3,
    /// The file behind a mount is not the one that the plan was made for.
    Changed = 4,
    /// Mounting a cache copy-on-write; the index is that of the cache.
    Cache = 5,
    /// Making the whole tree read-only.
    ReadOnlyRoot = 6,
    /// A mount operation; the index says which.
    Mount = 7,
    /// Mounting the fresh /proc.
    Proc = 8,
    /// Building the minimal /dev.
    Dev = 9,
    /// Bringing the loopback interface up.
    Loopback = 10,
    /// Entering the working directory.
    Cwd = 11,
    /// The working directory is not the one that the plan was made for.
    CwdChanged = 12,
    /// Making or entering the Landlock domain; the index is that of the rule, or [`Step::NO_INDEX`].
    Landlock = 13,
    /// A new session keyring.
    Keyring = 14,
    /// Dropping capabilities and setting no_new_privs.
    Privileges = 15,
    /// Becoming another user.
    RunAs = 16,
    /// Installing the system-call filter.
    Seccomp = 17,
    /// Standard streams and other descriptors.
    Descriptors = 18,
    /// umask, priority or resource limits.
    Attributes = 19,
    /// Looking the program up: nothing of that name.
    ProgramNotFound = 20,
    /// Executing the program: it is there, but cannot be executed.
    Exec = 21,
    /// Executing the program: the interpreter that it names is missing.
    Interpreter = 22,
    /// The holder's own loop.
    Holder = 23,
    /// Laying the plan out: it can't be read, or a path, argument or variable has a NUL byte.
    Plan = 24,
    /// Opening the command's terminal.
    Terminal = 25,
    /// Entering the run's cgroup.
    Cgroup = 26,
    /// Bubblewrap made no sandbox.
    Bwrap = 27,
    /// Making the run's own temporary directory, where no mount can stand for one.
    Temporary = 28,
}

impl Step {
    /// The index of a step that has none.
    pub const NO_INDEX: u32 = u32::MAX;

    const ALL: [Self; 28] = [
        Self::Namespaces,
        Self::IdMap,
        Self::Source,
        Self::Changed,
        Self::Cache,
        Self::ReadOnlyRoot,
        Self::Mount,
        Self::Proc,
        Self::Dev,
        Self::Loopback,
        Self::Cwd,
        Self::CwdChanged,
        Self::Landlock,
        Self::Keyring,
        Self::Privileges,
        Self::RunAs,
        Self::Seccomp,
        Self::Descriptors,
        Self::Attributes,
        Self::ProgramNotFound,
        Self::Exec,
        Self::Interpreter,
        Self::Holder,
        Self::Plan,
        Self::Terminal,
        Self::Cgroup,
        Self::Bwrap,
        Self::Temporary,
    ];

    fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == value)
    }

    /// Stable name for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::IdMap => "id_map",
            Self::Source => "source",
            Self::Changed => "changed",
            Self::Cache => "cache",
            Self::ReadOnlyRoot => "read_only_root",
            Self::Mount => "mount",
            Self::Proc => "proc",
            Self::Dev => "dev",
            Self::Loopback => "loopback",
            Self::Cwd => "cwd",
            Self::CwdChanged => "cwd_changed",
            Self::Landlock => "landlock",
            Self::Keyring => "keyring",
            Self::Privileges => "privileges",
            Self::RunAs => "run_as",
            Self::Seccomp => "seccomp",
            Self::Descriptors => "descriptors",
            Self::Attributes => "attributes",
            Self::ProgramNotFound => "program_not_found",
            Self::Exec => "exec",
            Self::Interpreter => "interpreter",
            Self::Holder => "holder",
            Self::Plan => "plan",
            Self::Terminal => "terminal",
            Self::Cgroup => "cgroup",
            Self::Bwrap => "bwrap",
            Self::Temporary => "temporary",
        }
    }

    /// The step with this [`Step::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a process could not be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetupFailure {
    /// What was being done.
    pub step: Step,
    /// Which operation, rule or cache of the plan; [`Step::NO_INDEX`] where there is only one.
    pub index: u32,
    /// errno(3); 0 where no system call failed.
    pub errno: i32,
}

impl fmt::Display for SetupFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.step, std::io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for SetupFailure {}

/// From the holder to the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Nothing runs and nothing is left behind; the holder is gone after this.
    Failed(SetupFailure),
    /// The command's terminal is open; its other end comes with this packet, before [`Report::Running`].
    Terminal,
    /// The answer to [`Order::Walls`]: with it comes the mount namespace, unless it could not be had.
    Walls,
    /// The command was executed.
    Running,
    /// The leader was stopped by this signal.
    LeaderStopped(i32),
    /// The tree reached a limit that the holder watches.
    LimitHeld(Limit),
    /// The leader ended.
    LeaderExited {
        /// How.
        status: ExitStatus,
        /// What it used.
        usage: ResourceUse,
        /// When.
        ended: Timestamp,
    },
    /// Every process of the tree is gone; the holder leaves now and takes the namespaces with it.
    TreeEnded,
}

/// From the keeper to the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The id maps are written; go on.
    Go,
    /// To a spare holder: this is the plan, in a memfd.
    Plan,
    /// To a spare holder: launch the plan; with it come a memfd of what the keeper adds, and the streams.
    Launch,
    /// Hand the sandbox's mount namespace over.
    Walls,
    /// Send a signal to the leader's process group, while the leader has not been waited for.
    SignalLeader(i32),
    /// Send a signal to every process of the tree.
    SignalTree(i32),
    /// Kill every process of the tree, wait until none is left, and exit.
    KillTree,
}

const FAILED: u8 = 1;
const RUNNING: u8 = 2;
const LEADER_EXITED: u8 = 3;
const TREE_ENDED: u8 = 4;
const TERMINAL: u8 = 5;
const LEADER_STOPPED: u8 = 6;
const LIMIT_HELD: u8 = 7;
const WALLS: u8 = 8;
const GO: u8 = 16;
const SIGNAL_LEADER: u8 = 17;
const SIGNAL_TREE: u8 = 18;
const KILL_TREE: u8 = 19;
const PLAN: u8 = 20;
const LAUNCH: u8 = 21;
const HAND_OVER: u8 = 22;

const EXITED: u8 = 1;
const SIGNALED: u8 = 2;

// Layout: 0 kind, 1 step or how, 2..4 unused, 4..8 errno, status or signal, 8..12 index, 12..16 unused, then four
// numbers of 8 bytes. Little-endian by choice, although both ends are always the same machine.
fn packet(kind: u8, detail: u8, number: i32, index: u32, values: [u64; 4]) -> [u8; PACKET_BYTES] {
    let mut bytes = [0; PACKET_BYTES];
    bytes[0] = kind;
    bytes[1] = detail;
    bytes[4..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..12].copy_from_slice(&index.to_le_bytes());
    for (slot, value) in bytes[16..].chunks_exact_mut(8).zip(values) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn number(bytes: &[u8; PACKET_BYTES]) -> i32 {
    i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]])
}

fn value(bytes: &[u8; PACKET_BYTES], slot: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[16 + 8 * slot..24 + 8 * slot]);
    u64::from_le_bytes(raw)
}

impl Report {
    /// The packet that says this.
    #[must_use]
    pub fn encode(self) -> [u8; PACKET_BYTES] {
        match self {
            Self::Failed(SetupFailure { step, index, errno }) => {
                packet(FAILED, step as u8, errno, index, [0; 4])
            }
            Self::TreeEnded => packet(TREE_ENDED, 0, 0, 0, [0; 4]),
            Self::Terminal => packet(TERMINAL, 0, 0, 0, [0; 4]),
            Self::Walls => packet(WALLS, 0, 0, 0, [0; 4]),
            Self::LimitHeld(limit) => packet(LIMIT_HELD, limit as u8, 0, 0, [0; 4]),
            Self::Running => packet(RUNNING, 0, 0, 0, [0; 4]),
            Self::LeaderStopped(signal) => packet(LEADER_STOPPED, 0, signal, 0, [0; 4]),
            Self::LeaderExited { status, usage, ended } => {
                let (how, number) = match status {
                    ExitStatus::Exited { code } => (EXITED, i32::from(code)),
                    ExitStatus::Signaled { signal } => (SIGNALED, signal),
                    ExitStatus::Lost => (0, 0),
                };
                packet(
                    LEADER_EXITED,
                    how,
                    number,
                    0,
                    [usage.user_us, usage.system_us, usage.max_rss_kib, ended.0],
                )
            }
        }
    }

    /// What a packet says, or `None` if it is not one of a holder.
    #[must_use]
    pub fn decode(bytes: &[u8; PACKET_BYTES]) -> Option<Self> {
        match bytes[0] {
            FAILED => {
                let index = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
                let step = Step::from_u8(bytes[1])?;
                Some(Self::Failed(SetupFailure { step, index, errno: number(bytes) }))
            }
            TERMINAL => Some(Self::Terminal),
            WALLS => Some(Self::Walls),
            RUNNING => Some(Self::Running),
            LEADER_STOPPED => Some(Self::LeaderStopped(number(bytes))),
            TREE_ENDED => Some(Self::TreeEnded),
            LIMIT_HELD => {
                let limit = Limit::ALL.into_iter().find(|limit| *limit as u8 == bytes[1])?;
                Some(Self::LimitHeld(limit))
            }
            LEADER_EXITED => {
                let status = match bytes[1] {
                    EXITED => ExitStatus::Exited { code: u8::try_from(number(bytes)).ok()? },
                    SIGNALED => ExitStatus::Signaled { signal: number(bytes) },
                    0 => ExitStatus::Lost,
                    _ => return None,
                };
                let usage = ResourceUse {
                    user_us: value(bytes, 0),
                    system_us: value(bytes, 1),
                    max_rss_kib: value(bytes, 2),
                };
                Some(Self::LeaderExited { status, usage, ended: Timestamp(value(bytes, 3)) })
            }
            _ => None,
        }
    }
}

impl Order {
    /// The packet that says this.
    #[must_use]
    pub fn encode(self) -> [u8; PACKET_BYTES] {
        match self {
            Self::Go => packet(GO, 0, 0, 0, [0; 4]),
            Self::Plan => packet(PLAN, 0, 0, 0, [0; 4]),
            Self::Launch => packet(LAUNCH, 0, 0, 0, [0; 4]),
            Self::Walls => packet(HAND_OVER, 0, 0, 0, [0; 4]),
            Self::SignalLeader(signal) => packet(SIGNAL_LEADER, 0, signal, 0, [0; 4]),
            Self::SignalTree(signal) => packet(SIGNAL_TREE, 0, signal, 0, [0; 4]),
            Self::KillTree => packet(KILL_TREE, 0, 0, 0, [0; 4]),
        }
    }

    /// What a packet says, or `None` if it is not one of a keeper.
    #[must_use]
    pub fn decode(bytes: &[u8; PACKET_BYTES]) -> Option<Self> {
        match bytes[0] {
            GO => Some(Self::Go),
            PLAN => Some(Self::Plan),
            LAUNCH => Some(Self::Launch),
            HAND_OVER => Some(Self::Walls),
            SIGNAL_LEADER => Some(Self::SignalLeader(number(bytes))),
            SIGNAL_TREE => Some(Self::SignalTree(number(bytes))),
            KILL_TREE => Some(Self::KillTree),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    #[test]
    fn every_step_survives_its_number_and_its_name() {
        for step in Step::ALL {
            assert_eq!(Step::from_u8(step as u8), Some(step));
            assert_eq!(Step::from_name(step.name()), Some(step));
        }
    }

    #[test]
    fn reports_and_orders_survive_their_packets() {
        let usage = ResourceUse { user_us: 1, system_us: 2, max_rss_kib: 3 };
        let reports = [
            Report::Failed(SetupFailure { step: Step::Mount, index: 7, errno: 13 }),
            Report::Terminal,
            Report::Running,
            Report::LeaderStopped(20),
            Report::TreeEnded,
            Report::LimitHeld(Limit::Memory),
            Report::LeaderExited { status: ExitStatus::Exited { code: 255 }, usage, ended: Timestamp(9) },
            Report::LeaderExited { status: ExitStatus::Signaled { signal: 9 }, usage, ended: Timestamp(9) },
        ];
        for report in reports {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        for order in [
            Order::Go,
            Order::Plan,
            Order::Launch,
            Order::SignalLeader(2),
            Order::SignalTree(15),
            Order::KillTree,
        ] {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
    }

    #[test]
    fn fuzz_a_packet_that_is_understood_survives_being_sent() {
        let usage = ResourceUse { user_us: 1, system_us: 2, max_rss_kib: 3 };
        let failed = Report::Failed(SetupFailure { step: Step::Mount, index: 7, errno: 13 }).encode();
        let exited =
            Report::LeaderExited { status: ExitStatus::Exited { code: 255 }, usage, ended: Timestamp(9) };
        let killed =
            Report::LeaderExited { status: ExitStatus::Signaled { signal: 9 }, usage, ended: Timestamp(9) };
        let (exited, killed) = (exited.encode(), killed.encode());
        let order = Order::SignalTree(15).encode();
        let samples = Samples {
            whole: &[&failed, &exited, &killed, &order],
            words: &[b"\0", b"\x01", b"\xff\xff\xff\xff"],
        };
        fuzz("packets of a holder", samples, |input| {
            let mut packet = [0; PACKET_BYTES];
            for (slot, byte) in packet.iter_mut().zip(input) {
                *slot = *byte;
            }
            let (report, order) = (Report::decode(&packet), Order::decode(&packet));
            assert!(report.is_none_or(|report| Report::decode(&report.encode()) == Some(report)));
            assert!(order.is_none_or(|order| Order::decode(&order.encode()) == Some(order)));
            assert!(report.is_none() || order.is_none(), "a packet has one direction");
            if let Some(Report::LeaderExited { status, .. }) = report {
                let _ = (status.shell_code(), status.to_string());
            }
            Took::if_understood(report.is_some() || order.is_some())
        });
    }
}
