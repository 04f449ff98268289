//! Whether there is a place for sockets, logs and records.

use std::path::Path;

use rustix::fs::Access;

use super::{Check, Verdict};
use crate::dirs::Directories;
use crate::keepers;

/// File system type of tmpfs, statfs(2).
const TMPFS: u64 = 0x0102_1994;

/// Less free space than this lets no run keep all of its log: logs take a quarter of it, a run up to 16 MiB.
const LITTLE_BYTES: u64 = 64 * 1024 * 1024;

/// The runtime directory, made if it is missing.
pub(super) fn runtime(directories: &Directories) -> Check {
    const NAME: &str = "runtime-directory";
    match keepers::runtime(directories) {
        Ok(runtime) => space(NAME, runtime.path(), runtime.path()),
        Err(problem) => Check::failed(NAME, &problem),
    }
}

/// The state directory, which the first run makes.
pub(super) fn state(directories: &Directories) -> Check {
    const NAME: &str = "state-directory";
    let sessions = directories.sessions();
    let existing = sessions.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => space(NAME, &sessions, existing),
        Err(errno) => {
            let detail = format!("{}: {} can't be written: {errno}", sessions.display(), existing.display());
            Check::new(NAME, Verdict::Fail, detail).advise(
                "make it writable for you, set XDG_STATE_HOME or SANDBAR_HOME, or run with --no-record",
            )
        }
    }
}

/// What the file system of `existing` has to offer to `path`, which is or will be in it.
fn space(name: &'static str, path: &Path, existing: &Path) -> Check {
    let path = path.display();
    let (free, kind) = match (rustix::fs::statvfs(existing), rustix::fs::statfs(existing)) {
        (Ok(space), Ok(kind)) => (space.f_bavail.saturating_mul(space.f_frsize), kind.f_type.cast_unsigned()),
        (Err(errno), _) | (_, Err(errno)) => {
            return Check::new(name, Verdict::Warn, format!("{path}: its space is unknown: {errno}"));
        }
    };
    let kind = if kind == TMPFS { "tmpfs" } else { "not tmpfs" };
    let detail = format!("{path}, {kind}, {} free", size(free));
    if free < LITTLE_BYTES {
        return Check::new(name, Verdict::Warn, detail).advise("free some space there, or set SANDBAR_HOME");
    }
    Check::new(name, Verdict::Ok, detail)
}

/// Bytes for people, cut off: `64 MiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut left = bytes / 1024;
    let mut unit = 0;
    while left >= 1024 && unit + 1 < UNITS.len() {
        left /= 1024;
        unit += 1;
    }
    format!("{left} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_their_largest_unit() {
        let table = [(0, "0 KiB"), (1 << 20, "1 MiB"), (1_500_000_000, "1 GiB"), (1 << 52, "4096 TiB")];
        for (bytes, expected) in table {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn a_place_says_where_it_is_and_what_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let check = space("x", directory.path(), directory.path());
        let begins = format!("{}, ", directory.path().display());
        assert!(check.detail.starts_with(&begins) && check.detail.ends_with(" free"), "{check:?}");
    }
}
