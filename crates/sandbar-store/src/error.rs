//! What can go wrong with a store, sorted by what a person can do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// mkdir(2) of a directory of the store.
    CreateDirectory,
    /// Creating a rollout.
    Create,
    /// Opening a rollout that exists.
    Open,
    /// Locking a rollout.
    Lock,
    /// Reading a rollout.
    Read,
    /// Appending a line.
    Append,
    /// Writing a directory's entries to the disk.
    SyncDirectory,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateDirectory => "create directory",
            Self::Create => "create",
            Self::Open => "open",
            Self::Lock => "lock",
            Self::Read => "read",
            Self::Append => "append to",
            Self::SyncDirectory => "sync directory",
        })
    }
}

/// Why a rollout could not be written. Lines acknowledged before stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk or the user's quota is full (ENOSPC, EDQUOT).
    #[error("no space left to {step} {}", path.display())]
    NoSpace {
        /// What was tried.
        step: Step,
        /// On which file.
        path: PathBuf,
        /// errno(3).
        errno: i32,
    },
    /// The file system is mounted read-only (EROFS).
    #[error("the file system is read-only: cannot {step} {}", path.display())]
    ReadOnly {
        /// What was tried.
        step: Step,
        /// On which file.
        path: PathBuf,
        /// errno(3).
        errno: i32,
    },
    /// The user may not do it (EACCES, EPERM).
    #[error("permission denied to {step} {}", path.display())]
    Denied {
        /// What was tried.
        step: Step,
        /// On which file.
        path: PathBuf,
        /// errno(3).
        errno: i32,
    },
    /// Any other answer of the operating system.
    #[error("cannot {step} {}: {}", path.display(), Errno::from_raw_os_error(*errno))]
    Failed {
        /// What was tried.
        step: Step,
        /// On which file.
        path: PathBuf,
        /// errno(3).
        errno: i32,
    },
    /// Everything is written, but a crash of the machine may lose it: fdatasync(2) or the fsync(2) of the
    /// directory failed. It stays so: after a failed sync the kernel may call lost pages clean.
    #[error("{} is written but not known to be on the disk: {}", path.display(), Errno::from_raw_os_error(*errno))]
    NotDurable {
        /// The rollout.
        path: PathBuf,
        /// errno(3) of the first failure.
        errno: i32,
    },
    /// Somebody holds the rollout exclusively, as the compressor does while it swaps a file.
    #[error("{} is locked by another program", path.display())]
    Locked {
        /// The rollout.
        path: PathBuf,
    },
    /// The path led to another file every time it was opened.
    #[error("{} is being replaced over and over", path.display())]
    Replaced {
        /// The rollout.
        path: PathBuf,
    },
    /// It is a directory, a device, a pipe.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// What was opened.
        path: PathBuf,
    },
    /// No line of it says which run it records.
    #[error("{} does not record a run", path.display())]
    NotARun {
        /// The rollout.
        path: PathBuf,
    },
    /// The run that it records has ended and is recorded completely.
    #[error("{} is complete", path.display())]
    Complete {
        /// The rollout.
        path: PathBuf,
    },
}

impl StoreError {
    pub(crate) fn new(step: Step, path: &Path, error: Errno) -> Self {
        let (path, errno) = (path.to_owned(), error.raw_os_error());
        match error {
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace { step, path, errno },
            Errno::ROFS => Self::ReadOnly { step, path, errno },
            Errno::ACCESS | Errno::PERM => Self::Denied { step, path, errno },
            _ => Self::Failed { step, path, errno },
        }
    }

    /// errno(3), where the operating system gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::NoSpace { errno, .. }
            | Self::ReadOnly { errno, .. }
            | Self::Denied { errno, .. }
            | Self::Failed { errno, .. }
            | Self::NotDurable { errno, .. } => Some(*errno),
            Self::Locked { .. }
            | Self::Replaced { .. }
            | Self::NotAFile { .. }
            | Self::NotARun { .. }
            | Self::Complete { .. } => None,
        }
    }

    /// Whether the line that was meant is in the file all the same.
    pub(crate) fn is_written(&self) -> bool {
        matches!(self, Self::NotDurable { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(errno: Errno) -> String {
        StoreError::new(Step::Append, Path::new("/s/r.jsonl"), errno).to_string()
    }

    #[test]
    fn messages_say_what_was_tried_on_which_file() {
        assert_eq!(message(Errno::NOSPC), "no space left to append to /s/r.jsonl");
        assert_eq!(message(Errno::ROFS), "the file system is read-only: cannot append to /s/r.jsonl");
        assert_eq!(message(Errno::ACCESS), "permission denied to append to /s/r.jsonl");
        assert_eq!(message(Errno::IO), "cannot append to /s/r.jsonl: Input/output error (os error 5)");
    }

    #[test]
    fn a_full_disk_and_a_full_quota_are_the_same_trouble_with_their_own_errno() {
        let error = StoreError::new(Step::Append, Path::new("/s/r.jsonl"), Errno::DQUOT);
        assert!(matches!(error, StoreError::NoSpace { .. }));
        assert_eq!(error.errno(), Some(Errno::DQUOT.raw_os_error()));
    }
}
