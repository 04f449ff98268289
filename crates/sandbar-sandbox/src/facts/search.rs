//! What a pattern covers, found by looking through directories.
//!
//! Every directory is opened without following a symbolic link, so what is found lies where its path says. Something that is
//! covered is not looked into: it is covered whole. Bounded by [`FactQuery::MAX_MATCHES`] and [`FactQuery::MAX_DIRECTORIES`];
//! what exceeds them is told, never left out.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, FactQuery, FileKind, GlobProgress, PathGlob, PinnedPath};

use super::{Failure, path};

/// What looking through a directory found.
#[derive(Debug, Default)]
pub struct Found {
    /// The directories that were looked into, with how far each came along the pattern: where something covered may come to be.
    pub directories: Vec<(AbsPath, GlobProgress)>,
    /// What is covered.
    pub matches: Vec<PinnedPath>,
}

/// Why a search has no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSearched {
    /// The directory to begin at is not there.
    Missing,
    /// There is more than can be looked through.
    TooMany,
    /// Something could not be looked up.
    Errno(Errno),
}

/// Returns what `glob` covers, sorted.
pub(super) fn search(glob: &PathGlob) -> Result<Vec<PinnedPath>, Failure> {
    let found = below(glob, glob.base(), glob.start()).map_err(|error| match error {
        NotSearched::Missing => Failure::Missing,
        NotSearched::TooMany => Failure::TooLong,
        NotSearched::Errno(errno) => Failure::Errno(errno),
    })?;
    Ok(found.matches)
}

/// Looks through `directory`, a real path that came as far as `progress` along `glob`, and what lies below.
///
/// # Errors
/// [`NotSearched`]. A directory below that vanishes meanwhile is none; somebody else's that this user can neither list nor
/// enter is none either: nothing in it can be reached. One that can be entered, or opened by its owner, is covered whole.
pub fn below(glob: &PathGlob, directory: &AbsPath, progress: GlobProgress) -> Result<Found, NotSearched> {
    let mut found = Found::default();
    if glob.is_match(progress) {
        let place = lookup(directory)?.ok_or(NotSearched::Missing)?;
        found.matches.push(place);
        return Ok(found);
    }
    let mut waiting = vec![(directory.clone(), progress)];
    let mut is_first = true;
    while let Some((directory, progress)) = waiting.pop() {
        let listed = match open(&directory)? {
            Opened::Directory(listed) => listed,
            Opened::Gone if is_first => return Err(NotSearched::Missing),
            Opened::Gone => continue,
            // Nobody can tell what is in it, and its owner can enter it any time: all of it is covered.
            Opened::Closed => {
                found.matches.extend(lookup(&directory)?);
                continue;
            }
        };
        is_first = false;
        if found.directories.len() == FactQuery::MAX_DIRECTORIES {
            return Err(NotSearched::TooMany);
        }
        look_into(glob, (&directory, progress), &listed, &mut found, &mut waiting)?;
        found.directories.push((directory, progress));
    }
    found.matches.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn look_into(
    glob: &PathGlob,
    (directory, progress): (&AbsPath, GlobProgress),
    listed: &OwnedFd,
    found: &mut Found,
    waiting: &mut Vec<(AbsPath, GlobProgress)>,
) -> Result<(), NotSearched> {
    let depth = directory.depth() + 1;
    if !glob.reaches(depth) {
        return Ok(());
    }
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut entries = RawDir::new(listed, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // It was removed while it was open.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(NotSearched::Errno(errno)),
        };
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let next = glob.step(progress, name);
        if next.is_over() {
            continue;
        }
        let Ok(path) = directory.join(name) else { continue };
        if glob.is_match(next) {
            if found.matches.len() == FactQuery::MAX_MATCHES {
                return Err(NotSearched::TooMany);
            }
            found.matches.extend(lookup(&path)?);
            continue;
        }
        let kind = path::entry_type(listed, &entry).map_err(of_failure)?.map(path::kind);
        if kind == Some(FileKind::Directory) {
            waiting.push((path, next));
        }
    }
    Ok(())
}

/// What is at `path` itself; `None` if it is gone.
fn lookup(path: &AbsPath) -> Result<Option<PinnedPath>, NotSearched> {
    match rustix::fs::statat(CWD, path.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(PinnedPath { path: path.clone(), identity: path::identity(&stat) })),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(NotSearched::Errno(errno)),
    }
}

/// A directory to be listed.
enum Opened {
    Directory(OwnedFd),
    /// It is gone, or somebody else's, and this user can't get into it.
    Gone,
    /// It can't be listed, but its names may be known, or it is this user's to open.
    Closed,
}

fn open(path: &AbsPath) -> Result<Opened, NotSearched> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(CWD, path.as_bytes(), flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Opened::Directory(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Opened::Gone),
        Err(Errno::ACCESS) => {
            let is_own = is_own(path);
            let is_entered = rustix::fs::access(path.as_bytes(), Access::EXEC_OK).is_ok();
            Ok(if is_own || is_entered { Opened::Closed } else { Opened::Gone })
        }
        Err(errno) => Err(NotSearched::Errno(errno)),
    }
}

/// Whether a file belongs to this user, who may change its permissions then.
#[must_use]
pub fn is_own(path: &AbsPath) -> bool {
    let stat = rustix::fs::statat(CWD, path.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw())
}

fn of_failure(failure: Failure) -> NotSearched {
    match failure {
        Failure::Missing => NotSearched::Missing,
        Failure::TooLong => NotSearched::TooMany,
        Failure::Errno(errno) => NotSearched::Errno(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_proto::{FactAnswer, Facts};
    use std::os::unix::fs::symlink;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for file in files {
                let at = folder.path().join(file);
                std::fs::create_dir_all(at.parent().unwrap()).unwrap();
                std::fs::write(at, "").unwrap();
            }
            Self(folder)
        }

        fn base(&self) -> AbsPath {
            AbsPath::new(self.0.path().canonicalize().unwrap().into_os_string()).unwrap()
        }

        fn glob(&self, relative: &str) -> PathGlob {
            PathGlob::below(&self.base(), relative).unwrap()
        }

        fn found(&self, relative: &str) -> Vec<String> {
            let base = self.base().to_display();
            let matches = search(&self.glob(relative)).unwrap();
            matches.iter().map(|found| found.path.to_display()[base.len() + 1..].to_owned()).collect()
        }
    }

    #[test]
    fn what_is_covered_is_found_wherever_it_lies_and_not_looked_into() {
        let tree = Tree::new(&[".env", "a/.env", "a/b/prod.env", "a/b/x", "keys/id", "c/keys/keys/id"]);
        assert_eq!(tree.found("**/*.env"), [".env", "a/.env", "a/b/prod.env"]);
        assert_eq!(tree.found("*.env"), [".env"]);
        assert_eq!(tree.found("**/keys"), ["c/keys", "keys"]);
        assert_eq!(tree.found("a/b/x"), ["a/b/x"]);
        assert_eq!(tree.found("a/**/none*").len(), 0);
    }

    #[test]
    fn links_are_covered_and_not_followed() {
        let tree = Tree::new(&["a/x.env"]);
        symlink(tree.0.path().join("a"), tree.0.path().join("l")).unwrap();
        symlink("/nowhere", tree.0.path().join("y.env")).unwrap();
        assert_eq!(tree.found("**/*.env"), ["a/x.env", "y.env"]);
    }

    #[test]
    fn only_directories_that_may_hold_something_covered_are_looked_into() {
        let tree = Tree::new(&["a/x/k", "b/x/k", "a/y/z"]);
        let glob = tree.glob("a/*/k");
        let found = below(&glob, glob.base(), glob.start()).unwrap();
        let base = tree.base().to_display();
        let mut names: Vec<String> =
            found.directories.iter().map(|(at, _)| at.to_display()[base.len()..].to_owned()).collect();
        names.sort();
        assert_eq!(names, ["/a", "/a/x", "/a/y"]);
        let shallow = tree.glob("**/k").within_depth(Some(2));
        assert_eq!(search(&shallow).unwrap().len(), 0);
    }

    #[test]
    fn a_directory_that_its_owner_closed_is_covered_whole() {
        use std::os::unix::fs::PermissionsExt as _;
        if rustix::process::geteuid().is_root() {
            println!("SKIP: a_directory_that_its_owner_closed_is_covered_whole: root lists every directory");
            return;
        }
        let tree = Tree::new(&["d/x.env", "p/x.env"]);
        for (name, mode) in [("d", 0o000), ("p", 0o311)] {
            std::fs::set_permissions(tree.0.path().join(name), std::fs::Permissions::from_mode(mode))
                .unwrap();
        }
        assert_eq!(tree.found("**/*.env"), ["d", "p"]);
        for name in ["d", "p"] {
            std::fs::set_permissions(tree.0.path().join(name), std::fs::Permissions::from_mode(0o700))
                .unwrap();
        }
    }

    #[test]
    fn too_much_is_told() {
        let names: Vec<String> = (0..=FactQuery::MAX_MATCHES).map(|number| format!("{number}.env")).collect();
        let tree = Tree::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(search(&tree.glob("*.env")), Err(Failure::TooLong));
        assert_eq!(search(&tree.glob("missing/*.env")), Err(Failure::Missing));
    }

    #[test]
    fn the_question_is_answered_with_identities() {
        let tree = Tree::new(&["x.env"]);
        let mut facts = Facts {
            host: crate::facts::host_facts().unwrap(),
            answers: std::collections::BTreeMap::new(),
            limits: sandbar_proto::LimitFacts::default(),
        };
        let query = FactQuery::Glob(tree.glob("*.env"));
        crate::facts::gather(&mut facts, vec![query.clone()]);
        let FactAnswer::Matches(matches) = &facts.answers[&query] else { panic!("no matches") };
        assert!(
            matches.len() == 1 && matches[0].identity.kind == FileKind::File && matches[0].identity.ino > 0
        );
    }
}
