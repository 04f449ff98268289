//! Names that must not come into being while a run lives.
//!
//! A mount can protect only what exists, so a protected name that is missing is made for as long as a run needs
//! it, mounted read-only, and removed behind the last one. What is ours is known by device and inode, and after
//! a crash, from the run's journal, by its marks: an odd mode that nobody chooses, no content but ours, no older
//! than the run.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sandbar_proto::{
    AbsPath, ByteString, FileIdentity, FileKind, PinnedPath, Placeholder, PlaceholderKind, Timestamp,
};
use serde::{Deserialize, Serialize};

/// Sticky, readable, not writable: on a directory or file that nobody uses it does nothing, and nobody sets it.
const DIRECTORY_MARK: u32 = 0o1555;
const FILE_MARK: u32 = 0o1444;

/// Name of the journal in a process's directory.
const JOURNAL: &str = "placeholders.json";

/// What a journal remembers of one placeholder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    path: AbsPath,
    what: PlaceholderKind,
}

/// Everything that was made, and how many runs rely on each.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    made: HashMap<AbsPath, Made>,
}

#[derive(Debug)]
struct Made {
    identity: FileIdentity,
    what: PlaceholderKind,
    parent: OwnedFd,
    name: ByteString,
    runs: usize,
}

/// Why a name could not be reserved.
#[derive(Debug)]
pub(super) struct ReserveError {
    pub(super) path: AbsPath,
    pub(super) errno: Errno,
}

impl Placeholders {
    /// Makes what is missing of `wanted` and returns what must be mounted read-only. Names that the caller could
    /// not make either are left out: the command has no more rights than the keeper.
    ///
    /// # Errors
    /// [`ReserveError`]; what was made for this run is removed again.
    pub(super) fn reserve(
        &mut self,
        journal: BorrowedFd<'_>,
        wanted: &[Placeholder],
    ) -> Result<Vec<PinnedPath>, ReserveError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        write_journal(journal, wanted)?;
        let mut reserved = Vec::with_capacity(wanted.len());
        for placeholder in wanted {
            match self.reserve_one(placeholder) {
                Ok(Some(pinned)) => reserved.push(pinned),
                Ok(None) => {}
                Err(error) => {
                    self.release(&reserved);
                    return Err(error);
                }
            }
        }
        Ok(reserved)
    }

    fn reserve_one(&mut self, wanted: &Placeholder) -> Result<Option<PinnedPath>, ReserveError> {
        let path = path_of(wanted)?;
        let fail = |errno| ReserveError { path: path.clone(), errno };
        if let Some(made) = self.made.get_mut(&path)
            && identity_at(&made.parent, &made.name).ok().flatten() == Some(made.identity)
        {
            made.runs += 1;
            return Ok(Some(PinnedPath { path, identity: made.identity }));
        }
        let parent = open_parent(&wanted.parent).map_err(fail)?;
        match make(&parent, wanted) {
            Ok(()) => {}
            // Somebody made it since the plan; it is protected as it is.
            Err(Errno::EXIST) => {
                let identity = identity_at(&parent, &wanted.name).map_err(fail)?;
                return match identity {
                    Some(identity) if identity.kind != FileKind::Symlink => {
                        Ok(Some(PinnedPath { path, identity }))
                    }
                    Some(_) | None => Err(fail(Errno::LOOP)),
                };
            }
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        }
        let Some(identity) = identity_at(&parent, &wanted.name).map_err(fail)? else {
            return Err(fail(Errno::NOENT));
        };
        let made = Made { identity, what: wanted.what.clone(), parent, name: wanted.name.clone(), runs: 1 };
        self.made.insert(path.clone(), made);
        Ok(Some(PinnedPath { path, identity }))
    }

    /// Gives up what [`Placeholders::reserve`] returned; the last run removes what was made.
    pub(super) fn release(&mut self, reserved: &[PinnedPath]) {
        for pinned in reserved {
            let Some(made) = self.made.get_mut(&pinned.path) else { continue };
            if made.identity != pinned.identity {
                continue;
            }
            made.runs -= 1;
            if made.runs == 0
                && let Some(made) = self.made.remove(&pinned.path)
            {
                made.remove();
            }
        }
    }
}

impl Made {
    /// Removes the name if it is still what was made, unchanged.
    fn remove(&self) {
        if identity_at(&self.parent, &self.name).ok().flatten() == Some(self.identity) {
            remove_unchanged(&self.parent, self.name.as_bytes(), &self.what);
        }
    }
}

fn remove_unchanged(parent: &OwnedFd, name: &[u8], what: &PlaceholderKind) {
    // An error means that somebody uses it: a directory with something in it, a file that grew. It is theirs now.
    match what {
        PlaceholderKind::Directory => {
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
        PlaceholderKind::File { content } => {
            if has_content(parent, name, content).unwrap_or(false) {
                let _ = rustix::fs::unlinkat(parent, name, AtFlags::empty());
            }
        }
    }
}

fn has_content(parent: &OwnedFd, name: &[u8], content: &ByteString) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let mut found = vec![0; content.as_bytes().len() + 1];
    let count = rustix::io::read(&file, &mut found)?;
    Ok(&found[..count] == content.as_bytes())
}

fn path_of(placeholder: &Placeholder) -> Result<AbsPath, ReserveError> {
    let fail = |_| ReserveError { path: placeholder.parent.path.clone(), errno: Errno::INVAL };
    placeholder.parent.path.join(placeholder.name.as_bytes()).map_err(fail)
}

fn open_parent(parent: &PinnedPath) -> Result<OwnedFd, Errno> {
    let fd = rustix::fs::openat2(
        rustix::fs::CWD,
        parent.path.as_bytes(),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    let stat = rustix::fs::fstat(&fd)?;
    // ESTALE: the path leads somewhere else than when the plan was made.
    if (stat.st_dev, stat.st_ino) == (parent.identity.dev, parent.identity.ino) {
        Ok(fd)
    } else {
        Err(Errno::STALE)
    }
}

fn make(parent: &OwnedFd, wanted: &Placeholder) -> Result<(), Errno> {
    let name = wanted.name.as_bytes();
    match &wanted.what {
        PlaceholderKind::Directory => {
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(DIRECTORY_MARK))?;
            // The umask of the keeper may have taken bits of the mark away.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(DIRECTORY_MARK), AtFlags::empty())
        }
        PlaceholderKind::File { content } => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(parent, name, flags, Mode::RUSR)?;
            if !content.as_bytes().is_empty() {
                rustix::io::write(&file, content.as_bytes())?;
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(FILE_MARK))
        }
    }
}

fn identity_at(parent: &OwnedFd, name: &ByteString) -> Result<Option<FileIdentity>, Errno> {
    match rustix::fs::statat(parent, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => FileKind::Directory,
                FileType::RegularFile => FileKind::File,
                FileType::Symlink => FileKind::Symlink,
                FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => FileKind::Other,
            };
            Ok(Some(FileIdentity { dev: stat.st_dev, ino: stat.st_ino, kind }))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn write_journal(directory: BorrowedFd<'_>, wanted: &[Placeholder]) -> Result<(), ReserveError> {
    let entries: Result<Vec<Entry>, _> = wanted
        .iter()
        .map(|placeholder| Ok(Entry { path: path_of(placeholder)?, what: placeholder.what.clone() }))
        .collect();
    let fail = |errno| ReserveError { path: AbsPath::root(), errno };
    let text = serde_json::to_vec(&entries?).map_err(|_| fail(Errno::INVAL))?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, JOURNAL, flags, Mode::RUSR | Mode::WUSR).map_err(fail)?;
    let written = rustix::io::write(&file, &text).map_err(fail)?;
    if written == text.len() { Ok(()) } else { Err(fail(Errno::NOSPC)) }
}

/// Removes what a lost run left behind, as far as it carries our marks and is not older than the run.
pub(super) fn reclaim(process_directory: &Path, started: Timestamp) {
    let Ok(text) = std::fs::read(process_directory.join(JOURNAL)) else { return };
    let Ok(entries) = serde_json::from_slice::<Vec<Entry>>(&text) else { return };
    for entry in entries {
        // Whatever can't be told to be ours stays.
        let _ = reclaim_one(&entry, started);
    }
}

fn reclaim_one(entry: &Entry, started: Timestamp) -> Result<(), Errno> {
    let (Some(parent), Some(name)) = (entry.path.parent(), entry.path.file_name()) else { return Ok(()) };
    let parent = rustix::fs::openat2(
        rustix::fs::CWD,
        parent.as_bytes(),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    let stat = rustix::fs::statat(parent.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
    let (kind, mark) = match entry.what {
        PlaceholderKind::Directory => (FileType::Directory, DIRECTORY_MARK),
        PlaceholderKind::File { .. } => (FileType::RegularFile, FILE_MARK),
    };
    let changed = u64::try_from(stat.st_ctime).unwrap_or_default();
    let ours = FileType::from_raw_mode(stat.st_mode) == kind
        && stat.st_mode & 0o7777 == mark
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && changed >= started.0 / 1_000_000_000;
    if ours {
        remove_unchanged(&parent, name, &entry.what);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    struct Scene {
        root: tempfile::TempDir,
        journals: Vec<tempfile::TempDir>,
        registry: Placeholders,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                root: tempfile::tempdir().unwrap(),
                journals: Vec::new(),
                registry: Placeholders::default(),
            }
        }

        fn wanted(&self, name: &str, what: PlaceholderKind) -> Placeholder {
            let stat = std::fs::metadata(self.root.path()).unwrap();
            let identity = FileIdentity { dev: stat.dev(), ino: stat.ino(), kind: FileKind::Directory };
            let real = std::fs::canonicalize(self.root.path()).unwrap();
            let path = AbsPath::new(real.into_os_string()).unwrap();
            Placeholder { parent: PinnedPath { path, identity }, name: name.into(), what }
        }

        fn reserve(&mut self, wanted: &[Placeholder]) -> Vec<PinnedPath> {
            self.journals.push(tempfile::tempdir().unwrap());
            let journal = self.journals.last().unwrap().path();
            let fd = rustix::fs::open(journal, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
            self.registry.reserve(fd.as_fd(), wanted).unwrap()
        }

        fn exists(&self, name: &str) -> bool {
            self.root.path().join(name).symlink_metadata().is_ok()
        }
    }

    #[test]
    fn a_missing_name_exists_as_long_as_any_run_needs_it() {
        let mut scene = Scene::new();
        let wanted = [scene.wanted(".codex", PlaceholderKind::Directory)];
        let first = scene.reserve(&wanted);
        let second = scene.reserve(&wanted);
        assert_eq!(first, second);
        scene.registry.release(&first);
        assert!(scene.exists(".codex"), "the second run still needs it");
        scene.registry.release(&second);
        assert!(!scene.exists(".codex"));
    }

    #[test]
    fn what_was_there_before_is_protected_but_never_removed() {
        let mut scene = Scene::new();
        std::fs::create_dir(scene.root.path().join(".claude")).unwrap();
        let reserved = scene.reserve(&[scene.wanted(".claude", PlaceholderKind::Directory)]);
        assert_eq!(reserved.len(), 1);
        scene.registry.release(&reserved);
        assert!(scene.exists(".claude"));
    }

    #[test]
    fn a_placeholder_that_somebody_uses_by_now_stays() {
        let mut scene = Scene::new();
        let reserved = scene.reserve(&[scene.wanted(".agents", PlaceholderKind::Directory)]);
        let path = scene.root.path().join(".agents");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(path.join("mine"), "x").unwrap();
        scene.registry.release(&reserved);
        assert!(scene.exists(".agents/mine"));
    }

    #[test]
    fn a_file_placeholder_with_other_content_stays() {
        let mut scene = Scene::new();
        let what = PlaceholderKind::File { content: "".into() };
        let reserved = scene.reserve(&[scene.wanted("kept", what.clone()), scene.wanted("gone", what)]);
        let kept = scene.root.path().join("kept");
        std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&kept, "mine").unwrap();
        scene.registry.release(&reserved);
        assert!(scene.exists("kept") && !scene.exists("gone"));
    }

    #[test]
    fn a_symlink_in_place_of_a_protected_name_is_an_error() {
        let mut scene = Scene::new();
        std::os::unix::fs::symlink("/", scene.root.path().join(".codex")).unwrap();
        let wanted = [
            scene.wanted("other", PlaceholderKind::Directory),
            scene.wanted(".codex", PlaceholderKind::Directory),
        ];
        let journal = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(journal.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let error = scene.registry.reserve(fd.as_fd(), &wanted).unwrap_err();
        assert_eq!(error.errno, Errno::LOOP);
        assert!(!scene.exists("other"), "what was made for the failed run is gone");
    }

    #[test]
    fn a_crash_leaves_nothing_that_the_next_keeper_does_not_reclaim() {
        let mut scene = Scene::new();
        std::fs::create_dir(scene.root.path().join("real")).unwrap();
        let wanted = [
            scene.wanted(".codex", PlaceholderKind::Directory),
            scene.wanted("real", PlaceholderKind::Directory),
            scene.wanted("file", PlaceholderKind::File { content: "".into() }),
        ];
        scene.reserve(&wanted);
        // The registry is lost with its keeper; the journal is not.
        reclaim(scene.journals[0].path(), Timestamp(1));
        assert!(!scene.exists(".codex") && !scene.exists("file") && scene.exists("real"));
    }

    #[test]
    fn something_older_than_the_run_is_not_ours() {
        let mut scene = Scene::new();
        scene.reserve(&[scene.wanted(".codex", PlaceholderKind::Directory)]);
        reclaim(scene.journals[0].path(), Timestamp(u64::MAX));
        assert!(scene.exists(".codex"));
    }
}
