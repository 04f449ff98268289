//! What a keeper hands over to the program that replaces it: its state as text, its descriptors as they are.
//!
//! A descriptor keeps its number across execve(2); the state names it by that. Whoever takes a state over takes each of
//! its descriptors once, and closes every other one, so that nothing leaks from one program to the next.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{Errno, FdFlags};
use rustix::time::ClockId;
use serde::{Deserialize, Serialize};

/// Largest state: a full stdin queue and a stalled chunk for each of a hundred processes are below it.
const MAX_STATE_BYTES: u64 = 256 * 1024 * 1024;

const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// Why a state could not be handed over or taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoverError {
    /// A step failed.
    #[error("{step}: {errno}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The kernel's error.
        errno: Errno,
    },
    /// The text is no state that this program understands.
    #[error("read the state: {0}")]
    State(#[from] serde_json::Error),
    /// The state is of a format that this program does not know.
    #[error("the state has format {found}, this program reads up to {known}")]
    Format {
        /// Its format.
        found: u32,
        /// The newest known one.
        known: u32,
    },
    /// The state comes from a newer program.
    #[error("the state is of protocol minor {minor}, release {version}, which is newer than this program")]
    Newer {
        /// Its minor.
        minor: u32,
        /// Its release.
        version: String,
    },
    /// A descriptor that the state names is not there, or named twice.
    #[error("descriptor {0} of the state is not there")]
    Descriptor(RawFd),
}

/// A step that failed with an error of the kernel.
pub(crate) fn failed(step: &'static str) -> impl Fn(Errno) -> HandoverError {
    move |errno| HandoverError::Io { step, errno }
}

/// A descriptor in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Fd(RawFd);

/// The descriptors that a state names while it is written.
#[derive(Debug, Default)]
pub(crate) struct Kept(Vec<RawFd>);

impl Kept {
    /// Notes that `fd` is handed over.
    pub(crate) fn keep(&mut self, fd: impl AsFd) -> Fd {
        let raw = fd.as_fd().as_raw_fd();
        self.0.push(raw);
        Fd(raw)
    }

    /// The numbers.
    pub(crate) fn numbers(&self) -> &[RawFd] {
        &self.0
    }

    /// Makes the descriptors stay open across execve(2), or close again.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn across_exec(&self, across: AcrossExec) -> Result<(), Errno> {
        for raw in &self.0 {
            set_across_exec(*raw, across)?;
        }
        Ok(())
    }
}

/// What becomes of a descriptor at execve(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcrossExec {
    Stays,
    Closes,
}

fn set_across_exec(raw: RawFd, across: AcrossExec) -> Result<(), Errno> {
    let flags = match across {
        AcrossExec::Stays => FdFlags::empty(),
        AcrossExec::Closes => FdFlags::CLOEXEC,
    };
    // SAFETY: the number is that of a descriptor which its owner holds; it is borrowed for this call only.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(raw) };
    rustix::io::fcntl_setfd(fd, flags)
}

/// The descriptors of a state that is taken over.
#[derive(Debug)]
pub(crate) struct Adopted(HashMap<RawFd, OwnedFd>);

impl Adopted {
    /// Takes the descriptors `numbers` of this process, and closes all others but the standard streams.
    ///
    /// # Errors
    /// [`HandoverError::Descriptor`] if one is not open or named twice.
    ///
    /// # Safety
    /// Nothing else in this process may own a descriptor above the standard streams.
    pub(crate) unsafe fn take(numbers: &[RawFd]) -> Result<Self, HandoverError> {
        let mut sorted = numbers.to_vec();
        sorted.sort_unstable();
        let mut next = 3;
        for &raw in &sorted {
            if raw < next {
                return Err(HandoverError::Descriptor(raw));
            }
            close_range(next, raw - 1)?;
            set_across_exec(raw, AcrossExec::Closes).map_err(|_| HandoverError::Descriptor(raw))?;
            next = raw + 1;
        }
        close_range(next, i32::MAX)?;
        // SAFETY: each number is an open descriptor, as fcntl just said, comes once, and by the caller's promise has no
        // other owner.
        let own = |&raw: &RawFd| (raw, unsafe { OwnedFd::from_raw_fd(raw) });
        Ok(Self(sorted.iter().map(own).collect()))
    }

    /// These, under the numbers that a state has for them.
    #[cfg(test)]
    pub(crate) fn of(descriptors: impl IntoIterator<Item = (RawFd, OwnedFd)>) -> Self {
        Self(descriptors.into_iter().collect())
    }

    /// Gives a descriptor to the part of the state that names it.
    ///
    /// # Errors
    /// [`HandoverError::Descriptor`] if it is not there any more.
    pub(crate) fn give(&mut self, Fd(raw): Fd) -> Result<OwnedFd, HandoverError> {
        self.0.remove(&raw).ok_or(HandoverError::Descriptor(raw))
    }
}

fn close_range(first: RawFd, last: RawFd) -> Result<(), HandoverError> {
    if first > last {
        return Ok(());
    }
    // SAFETY: by the promise of `Adopted::take` nothing in this process owns one of them.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(failed("close other descriptors")(Errno::NOSYS)),
    }
}

/// Nanoseconds of the clock that [`Instant`] shows: its origin is the same for every program.
pub(crate) fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// Moments of this program and of the next one: each counts from an origin of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    instant: Instant,
    nanoseconds: u64,
}

impl Moments {
    /// Both clocks now.
    pub(crate) fn now() -> Self {
        Self { instant: Instant::now(), nanoseconds: monotonic_ns() }
    }

    /// A moment as the nanoseconds of the kernel's clock.
    pub(crate) fn save(self, at: Instant) -> u64 {
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        match at.checked_duration_since(self.instant) {
            Some(later) => self.nanoseconds.saturating_add(nanoseconds(later)),
            None => self.nanoseconds.saturating_sub(nanoseconds(self.instant.duration_since(at))),
        }
    }

    /// The moment that was saved as these nanoseconds. One that this clock can't show is now, or never comes.
    pub(crate) fn restore(self, saved: u64) -> Instant {
        /// Longer than any machine runs.
        const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);
        if saved >= self.nanoseconds {
            let later = Duration::from_nanos(saved - self.nanoseconds);
            self.instant
                .checked_add(later)
                .or_else(|| self.instant.checked_add(NEVER))
                .unwrap_or(self.instant)
        } else {
            let earlier = Duration::from_nanos(self.nanoseconds - saved);
            self.instant.checked_sub(earlier).unwrap_or(self.instant)
        }
    }
}

/// A sealed memfd that holds `text`.
///
/// # Errors
/// The kernel's.
pub(crate) fn sealed(text: &[u8]) -> Result<OwnedFd, Errno> {
    let fd = rustix::fs::memfd_create("sandbar-keeper", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = text;
    while !rest.is_empty() {
        let count = rustix::io::write(&fd, rest)?;
        rest = &rest[count..];
    }
    rustix::fs::fcntl_add_seals(&fd, SEALS)?;
    Ok(fd)
}

/// Reads a sealed memfd to its end.
///
/// # Errors
/// EPERM if it could still change, EFBIG if it is too large, and the kernel's.
pub(crate) fn read_sealed(memfd: impl AsFd) -> Result<Vec<u8>, Errno> {
    if !rustix::fs::fcntl_get_seals(&memfd)?.contains(SEALS) {
        return Err(Errno::PERM);
    }
    let size = u64::try_from(rustix::fs::fstat(&memfd)?.st_size).unwrap_or(u64::MAX);
    if size > MAX_STATE_BYTES {
        return Err(Errno::FBIG);
    }
    let mut text = vec![0; usize::try_from(size).unwrap_or_default()];
    let mut done = 0;
    while done < text.len() {
        match rustix::io::pread(&memfd, &mut text[done..], done as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_state_that_could_still_change_is_not_read() {
        let memfd = sealed(b"state").unwrap();
        assert_eq!(read_sealed(&memfd), Ok(b"state".to_vec()));
        let open = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        assert_eq!(read_sealed(&open), Err(Errno::PERM));
    }

    #[test]
    fn a_descriptor_is_given_once() {
        let fd = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        let raw = fd.as_raw_fd();
        let mut adopted = Adopted(HashMap::from([(raw, fd)]));
        assert!(adopted.give(Fd(raw)).is_ok());
        assert!(matches!(adopted.give(Fd(raw)), Err(HandoverError::Descriptor(of)) if of == raw));
    }

    #[test]
    fn what_is_handed_over_stays_open_and_closes_again() {
        let fd = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        let mut kept = Kept::default();
        kept.keep(&fd);
        for (across, flags) in [(AcrossExec::Stays, FdFlags::empty()), (AcrossExec::Closes, FdFlags::CLOEXEC)]
        {
            kept.across_exec(across).unwrap();
            assert_eq!(rustix::io::fcntl_getfd(&fd), Ok(flags));
        }
    }

    proptest! {
        #[test]
        fn a_moment_survives_the_change_of_program(offset_ms in -100_000_i64..100_000) {
            let before = Moments::now();
            let distance = Duration::from_millis(offset_ms.unsigned_abs());
            let at = if offset_ms < 0 { before.instant.checked_sub(distance) } else { before.instant.checked_add(distance) };
            let at = at.unwrap_or(before.instant);
            let restored = Moments::now().restore(before.save(at));
            let difference = restored.max(at).duration_since(restored.min(at));
            // The two clocks are read one after the other.
            prop_assert!(difference < Duration::from_millis(50), "{difference:?}");
        }
    }

    #[test]
    fn a_time_that_never_comes_is_restored_as_one() {
        assert!(Moments::now().restore(u64::MAX) > Instant::now() + Duration::from_secs(86_400));
    }
}
