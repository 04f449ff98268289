//! The views of one run, which have to agree: what the permissions say, what the mounts of Linux do, and what the
//! profile for macOS does. The sandbox that really runs is compared in the tests of the binary.
//!
//! Where macOS is different the difference is data ([`on_macos`]), and what it comes to is worked out here by walking
//! up from the path, not by the code that makes the profile.

use sandbar_proto::AbsPath;

use crate::fake_host::{linux, path};
use crate::seatbelt::evaluator::Evaluator;
use crate::seatbelt::{Left, OnMacos, on_macos, profile};
use crate::simulator::Simulator;
use crate::{Access, Compiled, Confinement};

/// A run's own temporary directory on macOS, where no test has anything.
const TEMPORARY: &str = "/private/var/sandbar/1";

/// The profile for macOS, evaluated.
pub(crate) struct Macos(Evaluator);

impl Macos {
    pub(crate) fn new(confinement: &Confinement) -> Self {
        let made = profile(confinement, &path(TEMPORARY)).unwrap();
        Self(Evaluator::new(made.text(), made.parameters()).unwrap())
    }

    /// What may be done with `at`.
    fn access(&self, at: &AbsPath) -> Access {
        let all = |operations: &[&str]| {
            let said: Vec<bool> =
                operations.iter().map(|operation| self.0.allows_at(operation, at)).collect();
            assert!(said.iter().all(|one| *one == said[0]), "{at:?}: {operations:?} are {said:?}");
            said[0]
        };
        let reads = all(&["file-read-data", "file-read-xattr", "file-map-executable", "process-exec"]);
        let writes = all(&[
            "file-write-data",
            "file-write-flags",
            "file-write-mode",
            "file-write-owner",
            "file-write-times",
            "file-write-xattr",
        ]);
        assert!(!reads || self.0.allows_at("file-read-metadata", at), "{at:?} is read, but not its metadata");
        let moves = all(&["file-write-create", "file-write-unlink"]);
        assert!(!moves || writes, "{at:?} is moved, but not written");
        match (reads, writes) {
            (true, true) => Access::Write,
            (true, false) => Access::Read,
            (false, false) => Access::None,
            (false, true) => panic!("{at:?} is written blindly"),
        }
    }

    /// Asserts that the profile says of `at` what the places say, but for the known differences.
    pub(crate) fn assert_agreement(&self, confinement: &Confinement, at: &AbsPath) {
        let expected = expected(confinement, at);
        assert_eq!(self.access(at), expected, "{at:?}: macOS, {:?}", confinement.place_of(at));
        let stated = confinement.place_of(at).map_or(Access::None, |place| place.nature.access());
        assert!(strictness(expected) <= strictness(stated), "{at:?} is more on macOS: {expected}");
    }

    /// Asserts that exactly what may be moved away can be, and so no carve-out with it.
    pub(crate) fn assert_nothing_can_be_moved_away(&self, confinement: &Confinement) {
        let decided = confinement.places().iter().map(|place| place.path.clone());
        let above = decided.flat_map(|at| std::iter::successors(Some(at), AbsPath::parent));
        for at in above {
            let below = confinement.places().iter().filter(|place| place.path.starts_with(&at));
            let holds_less =
                below.into_iter().any(|place| expected(confinement, &place.path) != Access::Write);
            let is_root = at.parent().is_none_or(|parent| expected(confinement, &parent) != Access::Write);
            let is_free = expected(confinement, &at) == Access::Write && !holds_less && !is_root;
            assert_eq!(self.0.allows_at("file-write-unlink", &at), is_free, "{at:?} is moved");
        }
    }
}

fn strictness(access: Access) -> u8 {
    match access {
        Access::None => 0,
        Access::Read => 1,
        Access::Write => 2,
    }
}

/// What `at` is on macOS.
fn expected(confinement: &Confinement, at: &AbsPath) -> Access {
    if confinement.is_hidden_by_glob(at) {
        return Access::None;
    }
    let Some(place) = confinement.place_of(at) else { return Access::None };
    match on_macos(place.nature) {
        OnMacos::Same => place.nature.access(),
        OnMacos::Stricter { left: Left::Nothing | Left::NamedDevices, .. } => Access::None,
        OnMacos::Stricter { left: Left::AsAround, .. } => {
            place.path.parent().map_or(Access::None, |around| expected(confinement, &around))
        }
    }
}

/// All views of a compiled run.
pub(crate) struct Views<'a> {
    compiled: &'a Compiled,
    mounts: Simulator,
    macos: Macos,
}

impl<'a> Views<'a> {
    pub(crate) fn new(compiled: &'a Compiled) -> Self {
        let macos = Macos::new(confinement(compiled));
        Self { compiled, mounts: Simulator::new(linux(compiled)), macos }
    }

    /// What the permissions say of `at`, after checking that the others do the same.
    pub(crate) fn access(&self, at: &AbsPath) -> Access {
        let (stated, entry) = self.compiled.permissions.access(at);
        let mounted = self.mounts.access(at);
        assert_eq!(stated, mounted, "{at:?}: by {entry:?}, mounts: {:#?}", linux(self.compiled).mounts);
        self.macos.assert_agreement(confinement(self.compiled), at);
        stated
    }

    /// Asserts that no carve-out can be got out of the way by moving what holds it.
    pub(crate) fn assert_nothing_can_be_moved_away(&self) {
        assert_eq!(self.mounts.renamable_above_mounts(), [], "not pinned");
        self.macos.assert_nothing_can_be_moved_away(confinement(self.compiled));
    }
}

fn confinement(compiled: &Compiled) -> &Confinement {
    compiled.confinement.as_ref().expect("a sandboxed run")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nature;
    use crate::fake_host::{FakeHost, request};

    /// A workspace with everything that a place can be, and what each view says of these paths.
    #[test]
    fn the_truth_table_of_all_views() {
        let host = FakeHost::with_home()
            .repository("/home/u/proj/.git")
            .dir("/home/u/proj/.claude")
            .dir("/home/u/.ssh")
            .file("/home/u/.ssh/id")
            .file("/home/u/.ssh/known_hosts")
            .dir("/home/u/.cargo/registry")
            .dir("/srv/data");
        let mut asked = request("/home/u/proj");
        asked.allow_read = vec![path("/home/u/.ssh/known_hosts")];
        let compiled = host.compile(&asked);
        let views = Views::new(&compiled);
        let (none, read, write) = (Access::None, Access::Read, Access::Write);
        let table = [
            ("/", read, read),
            ("/srv/data/x", read, read),
            ("/home/u", read, read),
            ("/home/u/proj", write, write),
            ("/home/u/proj/src/main.rs", write, write),
            ("/home/u/proj/.git/objects", write, write),
            ("/home/u/proj/.git/hooks/pre-commit", read, read),
            ("/home/u/proj/.git/config", read, read),
            ("/home/u/proj/.claude/settings.json", read, read),
            ("/home/u/proj/.codex", read, read),
            ("/home/u/proj/.codex/x", read, read),
            ("/home/u/.ssh", none, none),
            ("/home/u/.ssh/id", none, none),
            ("/home/u/.ssh/known_hosts", read, read),
            ("/home/u/.config/sandbar", none, none),
            ("/run/user/1000/bus", none, none),
            ("/proc/self/status", read, read),
            // From here on the platforms differ, and macOS is stricter (`on_macos`).
            ("/home/u/.cargo/registry/x", write, read),
            ("/tmp/x", write, none),
            ("/var/tmp/x", write, none),
            ("/dev/shm/x", write, none),
            ("/dev/disk0", write, none),
        ];
        for (at, linux, macos) in table {
            assert_eq!((views.access(&path(at)), views.macos.access(&path(at))), (linux, macos), "{at}");
        }
        host.assert_agreement(&compiled);
    }

    #[test]
    fn every_difference_has_a_reason_and_these_are_all() {
        let differ = Nature::ALL.into_iter().filter(|nature| match on_macos(*nature) {
            OnMacos::Same => false,
            OnMacos::Stricter { because, .. } => {
                assert!(because.len() > 20, "{nature:?}: {because}");
                true
            }
        });
        assert_eq!(differ.collect::<Vec<_>>(), [Nature::Private, Nature::Cache, Nature::Devices]);
    }
}
