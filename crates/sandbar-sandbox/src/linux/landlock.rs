//! The Landlock layer: a second, independent wall behind the mounts.
//!
//! Handles every file-system right that the running kernel knows, so that what no rule grants is denied, and
//! scopes abstract sockets and signals where the kernel can (landlock(7)). The ruleset is made after the last
//! mount, from paths as the command will see them.

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sandbar_proto::{FileIdentity, LandlockAccess};

use super::ask::Granted;
use super::mounts::is_same_file;
use super::sys::landlock::{RulesetAttr, allow, create, restrict_self};
use crate::report::{SetupFailure, Step};

// Bits of LANDLOCK_ACCESS_FS_*, include/uapi/linux/landlock.h.
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;
const ABI_1: u64 = (1 << 13) - 1;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Rights that a rule on something other than a directory may carry.
const FILE_RIGHTS: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
const SCOPE_SIGNAL: u64 = 1 << 1;

/// Rights that a kernel with this ABI version can deny.
fn handled(abi: u32) -> u64 {
    let mut rights = ABI_1;
    if abi >= 2 {
        rights |= REFER;
    }
    if abi >= 3 {
        rights |= TRUNCATE;
    }
    if abi >= 5 {
        rights |= IOCTL_DEV;
    }
    rights
}

fn scopes(abi: u32) -> u64 {
    if abi >= 6 { SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL } else { 0 }
}

fn granted(access: LandlockAccess) -> u64 {
    match access {
        LandlockAccess::Read => EXECUTE | READ_FILE | READ_DIR,
        LandlockAccess::Write => !(MAKE_CHAR | MAKE_BLOCK),
        LandlockAccess::Device => READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | IOCTL_DEV,
    }
}

/// Rights on TCP since ABI 4; no rule grants any.
const TCP: u64 = 1 << 0 | 1 << 1;

/// A rule to be made.
pub(super) struct Rule {
    pub(super) path: CString,
    /// The file that it is for, if it is for no other.
    pub(super) identity: Option<FileIdentity>,
    pub(super) access: LandlockAccess,
}

/// A ruleset ready to be built without allocating.
pub(super) struct Prepared {
    pub(super) abi: u32,
    pub(super) rules: Vec<Rule>,
    /// Whether files are left alone.
    pub(super) scopes_only: bool,
    /// Whether TCP is denied here.
    pub(super) denies_tcp: bool,
}

impl Prepared {
    /// Builds the ruleset from what the paths lead to now.
    ///
    /// # Errors
    /// [`Step::Landlock`] with the index of the rule whose path could not be opened.
    pub(super) fn build(&self) -> Result<OwnedFd, SetupFailure> {
        let fail = |index| move |errno: Errno| failure(index, errno);
        let handled = if self.scopes_only { 0 } else { handled(self.abi) };
        let handled_access_net = if self.denies_tcp { TCP } else { 0 };
        let attr = RulesetAttr { handled_access_fs: handled, handled_access_net, scoped: scopes(self.abi) };
        let ruleset = create(&attr).map_err(fail(Step::NO_INDEX))?;
        for (Rule { path, identity, access }, index) in self.rules.iter().zip(0..) {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let beneath = rustix::fs::openat2(
                rustix::fs::CWD,
                path.as_c_str(),
                flags,
                Mode::empty(),
                ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
            );
            let beneath = match (beneath, identity) {
                (Ok(beneath), None) => beneath,
                (Ok(beneath), Some(identity))
                    if is_same_file(beneath.as_fd(), *identity).map_err(fail(index))? =>
                {
                    beneath
                }
                // What has the name now was not looked at. To read less is safe; not to write is another plan.
                (Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::ACCESS), Some(_)) => {
                    if *access == LandlockAccess::Write {
                        return Err(SetupFailure { step: Step::Changed, index, errno: 0 });
                    }
                    continue;
                }
                (Err(errno), _) => return Err(fail(index)(errno)),
            };
            let stat = rustix::fs::fstat(&beneath).map_err(fail(index))?;
            let directory =
                rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
            let possible = if directory { handled } else { handled & FILE_RIGHTS };
            allow(ruleset.as_fd(), beneath.as_fd(), granted(*access) & possible).map_err(fail(index))?;
        }
        Ok(ruleset)
    }
}

impl Prepared {
    /// The places below which everything may be read, or written as well.
    pub(super) fn granted(&self) -> Granted {
        let paths = |wanted: fn(LandlockAccess) -> bool| {
            let rules = self.rules.iter().filter(|rule| wanted(rule.access));
            rules.map(|rule| rule.path.clone()).collect()
        };
        Granted {
            readable: paths(|access| access != LandlockAccess::Device),
            writable: paths(|access| access == LandlockAccess::Write),
        }
    }
}

/// Adds the run's own terminal to `ruleset`, which no path of the plan names.
///
/// # Errors
/// [`Step::Landlock`].
pub(super) fn allow_terminal(
    ruleset: &OwnedFd,
    terminal: BorrowedFd<'_>,
    abi: u32,
) -> Result<(), SetupFailure> {
    let rights = granted(LandlockAccess::Device) & handled(abi) & FILE_RIGHTS;
    allow(ruleset.as_fd(), terminal, rights).map_err(|errno| failure(Step::NO_INDEX, errno))
}

/// Puts this process under `ruleset` for good. Needs no_new_privs.
///
/// # Errors
/// [`Step::Landlock`].
pub(super) fn enter(ruleset: &OwnedFd) -> Result<(), SetupFailure> {
    restrict_self(ruleset.as_fd()).map_err(|errno| failure(Step::NO_INDEX, errno))
}

fn failure(index: u32, errno: Errno) -> SetupFailure {
    SetupFailure { step: Step::Landlock, index, errno: errno.raw_os_error() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_abi_adds_its_right_and_takes_none_away() {
        let table = [(1, ABI_1), (2, ABI_1 | REFER), (3, ABI_1 | REFER | TRUNCATE)];
        for (abi, rights) in table {
            assert_eq!(handled(abi), rights);
        }
        assert_eq!(handled(4), handled(3), "ABI 4 adds network rights only");
        assert_eq!(handled(7), handled(3) | IOCTL_DEV);
        assert_eq!((scopes(5), scopes(6)), (0, 3));
    }

    #[test]
    fn nobody_may_make_device_nodes() {
        for access in [LandlockAccess::Read, LandlockAccess::Write, LandlockAccess::Device] {
            assert_eq!(granted(access) & (MAKE_CHAR | MAKE_BLOCK), 0);
        }
    }
}
