//! The Landlock executor: no namespace, no mount; rules, a filter and the holder's eyes.
//!
//! The holder stays outside of what it confines: a command that could signal it would outlive its run, so the leader
//! alone enters the domain, in the moment before it executes. What the holder keeps of the caller's rights it gives up
//! first (capabilities), because it changes modes and times for the command ([`super::ask`]). As without a sandbox it
//! is a subreaper: whatever the tree forks comes back to it and ends with it.
//!
//! Each run has a temporary directory of its own, which the holder makes, locks as long as it lives, and removes.

mod temporary;

use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;

use super::holder::fail;
use super::prepare::Walls;
use super::sys::{self, Dumpable};
use super::terminal::Wanted;
use super::{landlock, mounts};
use crate::report::{SetupFailure, Step};
use crate::seccomp::Program;
pub(super) use temporary::Temporary;

/// What the leader enters.
pub(super) struct Domain {
    ruleset: OwnedFd,
    filter: Program,
    /// Where the filter asks, once it is installed. The leader shares the table of descriptors, so the number is ours.
    listener: Option<RawFd>,
}

impl Domain {
    /// Puts the calling process, the leader, under the rules and the filter. Allocates nothing.
    ///
    /// # Errors
    /// [`Step::Landlock`], [`Step::Seccomp`].
    pub(super) fn enter(&mut self) -> Result<(), SetupFailure> {
        // If the holder is killed nobody ends the tree; this at least takes the leader along.
        sys::set_parent_death_signal(libc::SIGKILL).map_err(fail(Step::Privileges))?;
        landlock::enter(&self.ruleset)?;
        let (filter, length) = self.filter.as_sock_fprog_parts();
        // SAFETY: the compiled program is live and laid out as the kernel's instructions.
        let listener = unsafe { sys::install_asking_filter(filter.cast(), length) };
        self.listener = Some(listener.map_err(fail(Step::Seccomp))?);
        Ok(())
    }

    /// The end where the filter asks.
    ///
    /// # Errors
    /// [`Step::Seccomp`]: the leader did not install it.
    pub(super) fn into_listener(self) -> Result<OwnedFd, SetupFailure> {
        let raw = self.listener.ok_or_else(|| fail(Step::Seccomp)(Errno::BADF))?;
        // SAFETY: the kernel made it in the table that the leader shared with us, and its copy went with its exec.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    }
}

/// Everything before the leader starts: what it will enter, and its terminal.
pub(super) struct Prepared {
    pub(super) domain: Domain,
    pub(super) terminal: Option<OwnedFd>,
    pub(super) temporary: Temporary,
}

/// Prepares the holder and what its leader enters.
///
/// # Errors
/// The step that failed.
pub(super) fn prepare(
    walls: &Walls,
    cwd: &super::Place,
    terminal: Option<&Wanted>,
) -> Result<Prepared, SetupFailure> {
    sys::join_new_session_keyring().map_err(fail(Step::Keyring))?;
    sys::set_child_subreaper().map_err(fail(Step::Holder))?;
    sys::set_dumpable(Dumpable::No).map_err(fail(Step::Holder))?;
    let (Some(landlock), Some(place)) = (&walls.landlock, &walls.temporary) else {
        return Err(fail(Step::Plan)(Errno::INVAL));
    };
    let temporary = Temporary::make(place).map_err(fail(Step::Temporary))?;
    match prepare_domain(landlock, walls.filter.clone(), cwd, terminal) {
        Ok((domain, terminal)) => Ok(Prepared { domain, terminal, temporary }),
        Err(failure) => {
            temporary.remove();
            Err(failure)
        }
    }
}

fn prepare_domain(
    landlock: &landlock::Prepared,
    filter: Program,
    cwd: &super::Place,
    terminal: Option<&Wanted>,
) -> Result<(Domain, Option<OwnedFd>), SetupFailure> {
    // Opened with the caller's rights: there may be directories on the way that only those lead through.
    let ruleset = landlock.build()?;
    match sys::forbid_capabilities() {
        // Whoever may not do this has none; no_new_privs keeps programs from bringing any.
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(fail(Step::Privileges)(errno)),
    }
    sys::clear_capabilities().map_err(fail(Step::Privileges))?;
    sys::set_no_new_privs().map_err(fail(Step::Privileges))?;
    mounts::enter_directory(&cwd.0, cwd.1)?;
    let terminal = terminal.map(Wanted::open).transpose()?;
    if let Some(terminal) = &terminal {
        landlock::allow_terminal(&ruleset, terminal.as_fd(), landlock.abi)?;
    }
    Ok((Domain { ruleset, filter, listener: None }, terminal))
}
