//! The spare holder of a keeper: one at most, after a start, for a short while.
//!
//! Commands come in bursts. Behind each sandboxed start a spare is made for the next one, and thrown away when none
//! comes, when the next one needs other namespaces, or when the host's mount table changes, of which a spare holds a
//! copy.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sandbar_proto::NetworkMode;
use sandbar_sandbox::Spare;

/// How long a spare waits: longer than an agent or a script takes between two commands, too short to be noticed as a
/// process that stays.
const LIFETIME: Duration = Duration::from_secs(10);

/// The spare, or what the next one is to be.
#[derive(Debug)]
pub(super) struct Spares {
    /// Changes of the host's mounts are seen here.
    mounts: OwnedFd,
    spare: Option<(Spare, Instant)>,
    /// What the last start needed; a spare is made for that once.
    pub(super) wanted: Option<NetworkMode>,
}

impl Spares {
    /// None yet.
    ///
    /// # Errors
    /// /proc/self/mountinfo can't be opened.
    pub(super) fn new() -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mounts = rustix::fs::open("/proc/self/mountinfo", flags, Mode::empty())?;
        Ok(Self { mounts, spare: None, wanted: None })
    }

    /// Where a change of the host's mounts shows as an exceptional condition.
    pub(super) fn mounts(&self) -> BorrowedFd<'_> {
        self.mounts.as_fd()
    }

    /// When the spare is to be thrown away.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.spare.as_ref().map(|(_, made)| *made + LIFETIME)
    }

    /// Whether a spare is wanted and there is none.
    pub(super) fn may_make(&self) -> bool {
        self.spare.is_none() && self.wanted.is_some()
    }

    /// Keeps a new spare.
    pub(super) fn put(&mut self, spare: Spare, now: Instant) {
        self.spare = Some((spare, now));
    }

    /// Gives the spare up.
    pub(super) fn take(&mut self) -> Option<Spare> {
        self.spare.take().map(|(spare, _)| spare)
    }

    /// Gives the spare up if it has waited long enough.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<Spare> {
        if self.deadline().is_some_and(|deadline| now >= deadline) { self.take() } else { None }
    }

    /// Gives the spare up to a start, and a plan to the spare.
    pub(super) fn feed(&mut self, plan: &OwnedFd) -> Option<Spare> {
        let spare = self.take()?;
        // One that is gone can't be launched either, and is thrown away then.
        let _ = spare.feed(plan.as_fd());
        Some(spare)
    }
}
