//! What the keeper does not do, and why: facts for programs, whose words for people are the binary's.

use std::fmt;

use sandbar_proto::{AbsPath, RunId, SessionId};
use sandbar_sandbox::report::Step;
use serde::{Deserialize, Serialize};

/// Why the keeper refused a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "refused")]
pub enum Refusal {
    /// The caller is not somebody whom the keeper serves.
    Peer {
        /// Which condition it does not meet.
        reason: PeerRefusal,
    },
    /// The connection did not begin with [`Request::Hello`](super::Request::Hello).
    NoHello,
    /// The message could not be understood.
    Malformed {
        /// What the decoder said.
        message: String,
    },
    /// No live process has that id.
    Unknown {
        /// The id.
        id: RunId,
    },
    /// The process could not be started.
    Start {
        /// What failed.
        failure: StartFailure,
    },
    /// Stdin is not a pipe, or is closed.
    StdinClosed,
    /// An offset beyond what was accepted: bytes in between would be missing.
    StdinGap {
        /// Accepted so far.
        accepted_bytes: u64,
    },
    /// The keeper still holds processes.
    Busy {
        /// How many.
        processes: usize,
    },
    /// The process has no terminal.
    NoTerminal,
    /// The number is no signal.
    BadSignal {
        /// The number.
        signal: i32,
    },
    /// The session has ended: nobody renewed it in time, or somebody ended it. It does not come back.
    SessionExpired {
        /// The session.
        session: SessionId,
    },
    /// No session has that name.
    UnknownSession {
        /// The name.
        session: SessionId,
    },
    /// The process is to live as long as a session, and its owner names none.
    NoSession,
    /// The blob of an owner or of a session is too large.
    BlobTooLarge {
        /// Its bytes.
        bytes: usize,
        /// Most bytes.
        limit_bytes: usize,
    },
    /// There are as many sessions as a keeper holds.
    TooManySessions {
        /// How many.
        limit: usize,
    },
    /// The keeper still has sessions.
    SessionsHeld {
        /// How many.
        sessions: usize,
    },
    /// The keeper did not replace itself.
    Upgrade {
        /// Why not.
        reason: UpgradeRefusal,
    },
}

/// Why a keeper goes on as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "because")]
pub enum UpgradeRefusal {
    /// What came along is not the descriptor of one regular file.
    NoProgram,
    /// The program belongs to somebody who could put anything into it.
    Owner {
        /// The user.
        uid: u32,
    },
    /// Others may write the program.
    Writable {
        /// Its mode.
        mode: u32,
    },
    /// The program would run with rights of its own, and would not end with the keeper then.
    Privileged,
    /// Another upgrade is under way.
    UnderWay,
    /// Starts were under way for too long.
    Starting {
        /// How many.
        starts: usize,
    },
    /// The program did not say in time whether it can go on.
    Silent {
        /// How long it was waited for, in seconds.
        seconds: u64,
    },
    /// The program is no keeper.
    NotAKeeper,
    /// The program is older than the keeper, or of another protocol.
    Older {
        /// Its [`MINOR`](super::MINOR).
        minor: u32,
        /// Its release.
        version: String,
    },
    /// A step failed, in the keeper or in the program that rehearsed.
    Failed {
        /// Which, and why.
        message: String,
    },
}

impl fmt::Display for UpgradeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram => f.write_str("it was given no program"),
            Self::Owner { uid } => write!(f, "the program belongs to user {uid}"),
            Self::Writable { mode } => write!(f, "others may write the program (mode {mode:04o})"),
            Self::Privileged => f.write_str(
                "the program takes on rights of its own (set-user-ID, set-group-ID or file capabilities)",
            ),
            Self::UnderWay => f.write_str("another upgrade is under way"),
            Self::Starting { starts } => write!(f, "{starts} runs are still being started"),
            Self::Silent { seconds } => write!(f, "the program did not rehearse within {seconds} s"),
            Self::NotAKeeper => f.write_str("the program is no keeper"),
            Self::Older { minor, version } => {
                write!(f, "the program is sandbar {version} (protocol minor {minor}), which is older")
            }
            Self::Failed { message } => f.write_str(message),
        }
    }
}

/// Which condition a caller does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerRefusal {
    /// Another user.
    User,
    /// Its state in /proc could not be read, or it is gone.
    Unreadable,
    /// It lives in another pid namespace: it is inside some sandbox or container.
    PidNamespace,
    /// Its no_new_privs or seccomp state differs from the keeper's: it is confined.
    Confined,
    /// It was started by something that this keeper holds.
    Descendant,
}

impl fmt::Display for PeerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "the caller is another user",
            Self::Unreadable => "the caller's state could not be read",
            Self::PidNamespace => "the caller is inside a sandbox or container",
            Self::Confined => "the caller is confined by seccomp or no_new_privs",
            Self::Descendant => "the caller was started by a run of this keeper",
        })
    }
}

/// Why a process could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// What was being done: a step of the sandbox by its name, or one of the keeper's own.
    pub step: StartStep,
    /// errno(3), 0 where no system call failed.
    pub errno: i32,
    /// The path it was about, where there is one.
    pub path: Option<AbsPath>,
    /// What else is to be said, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// A step of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartStep {
    /// The plan could not be read from its memfd.
    Plan,
    /// A direct stream is of a kind that no command gets.
    Stream,
    /// The process's directory and records could not be made.
    Record,
    /// The output log could not be made.
    Log,
    /// A placeholder for a protected name could not be made.
    Placeholder,
    /// A cache's store could not be made.
    CacheStore,
    /// The run's cgroup could not be made.
    Cgroup,
    /// An argument, a variable or a path has a NUL byte.
    NulByte,
    /// The kernel's Landlock is too old.
    LandlockAbi,
    /// A step inside the sandbox, by `sandbar_sandbox::report::Step::name`.
    Sandbox(String),
}

impl StartStep {
    /// Its name, for records and for programs.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Sandbox(name) => name,
            Self::Plan => "plan",
            Self::Stream => "stream",
            Self::Record => "record",
            Self::Log => "log",
            Self::Placeholder => "placeholder",
            Self::CacheStore => "cache_store",
            Self::Cgroup => "cgroup",
            Self::NulByte => "nul_byte",
            Self::LandlockAbi => "landlock_abi",
        }
    }

    /// The step inside the sandbox, if it is one that this release knows.
    #[must_use]
    pub fn in_sandbox(&self) -> Option<Step> {
        match self {
            Self::Sandbox(name) => Step::from_name(name),
            Self::Plan
            | Self::Stream
            | Self::Record
            | Self::Log
            | Self::Placeholder
            | Self::CacheStore
            | Self::Cgroup
            | Self::NulByte
            | Self::LandlockAbi => None,
        }
    }
}
