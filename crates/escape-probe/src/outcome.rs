//! What came of an attempt, read from what the kernel answered.

use std::io;

use serde::{Deserialize, Serialize};

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Something said no.
    Denied,
    /// It succeeded.
    Allowed,
    /// What it was aimed at is not there.
    Absent,
    /// It could not be made, so nothing is known.
    Error,
}

impl Verdict {
    /// Whether the attempt was of no avail.
    #[must_use]
    pub fn is_stopped(self) -> bool {
        matches!(self, Self::Denied | Self::Absent)
    }
}

/// A verdict and what it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The kernel's answer, or what was seen.
    pub detail: String,
}

/// Answers of something that says no. `ENOSYS` and the three about sockets are what filters say; `EXDEV` and `EBUSY`
/// are what mounts say to links and renames.
const DENIED: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM"),
    (libc::EACCES, "EACCES"),
    (libc::EROFS, "EROFS"),
    (libc::EXDEV, "EXDEV"),
    (libc::EBUSY, "EBUSY"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
    (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
    (libc::ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
];

/// Answers about something that is not there.
const ABSENT: &[(i32, &str)] = &[
    (libc::ENOENT, "ENOENT"),
    (libc::ESRCH, "ESRCH"),
    (libc::ENXIO, "ENXIO"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::EBADF, "EBADF"),
    (libc::ENOKEY, "ENOKEY"),
    (libc::ECONNREFUSED, "ECONNREFUSED"),
    (libc::ENETUNREACH, "ENETUNREACH"),
    (libc::EHOSTUNREACH, "EHOSTUNREACH"),
    (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
];

impl Outcome {
    pub(crate) fn new(verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { verdict, detail: detail.into() }
    }

    pub(crate) fn allowed(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Allowed, detail)
    }

    pub(crate) fn denied(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Denied, detail)
    }

    pub(crate) fn absent(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Absent, detail)
    }

    pub(crate) fn error(detail: impl Into<String>) -> Self {
        Self::new(Verdict::Error, detail)
    }

    fn of_errno(error: &io::Error) -> Self {
        let Some(errno) = error.raw_os_error() else { return Self::error(error.to_string()) };
        let named = |table: &[(i32, &'static str)]| {
            table.iter().find(|(known, _)| *known == errno).map(|(_, name)| *name)
        };
        match (named(DENIED), named(ABSENT)) {
            (Some(name), _) => Self::denied(name),
            (None, Some(name)) => Self::absent(name),
            (None, None) => Self::error(error.to_string()),
        }
    }
}

/// The outcome of something that succeeds or is refused.
pub(crate) fn reach<T>(result: io::Result<T>) -> Outcome {
    match result {
        Ok(_) => Outcome::allowed("done"),
        Err(error) => Outcome::of_errno(&error),
    }
}

/// The outcome of a call with arguments that nothing can come of, which makes it harmless: these errors say that the
/// kernel got as far as looking at them, behind every check of rights.
pub(crate) fn door<T>(result: io::Result<T>, looked_at: &[i32]) -> Outcome {
    match result {
        Err(error) if error.raw_os_error().is_some_and(|errno| looked_at.contains(&errno)) => {
            Outcome::allowed(format!("the call is carried out: {error}"))
        }
        other => reach(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(errno: i32) -> Verdict {
        reach::<()>(Err(io::Error::from_raw_os_error(errno))).verdict
    }

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(reach(Ok(())).verdict, Verdict::Allowed);
        assert_eq!(of(libc::EROFS), Verdict::Denied);
        assert_eq!(of(libc::ESRCH), Verdict::Absent);
        assert_eq!(of(libc::EINVAL), Verdict::Error);
    }

    #[test]
    fn a_call_that_was_looked_at_was_let_through() {
        let answered = |errno| door::<()>(Err(io::Error::from_raw_os_error(errno)), &[libc::EINVAL]).verdict;
        assert_eq!(answered(libc::EINVAL), Verdict::Allowed);
        assert_eq!(answered(libc::EPERM), Verdict::Denied);
        assert_eq!(answered(libc::EFAULT), Verdict::Error);
    }
}
