//! The methods against a real file system.

mod copy;
mod directory;
mod handles;
mod races;
mod read;
mod remove;
mod walk;
mod watch;
mod write;

use std::path::{Path, PathBuf};

use sandbar_proto::AbsPath;
use tempfile::TempDir;

use crate::{ErrorKind, FileError, Files};

/// A folder of a test's own.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A path in it; the folder itself for the empty name.
    fn path(&self, name: &str) -> AbsPath {
        abs(&self.os(name))
    }

    fn os(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a file and the folders above it.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> AbsPath {
        let path = self.os(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        abs(&path)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.os(name)).unwrap()
    }

    fn link(&self, name: &str, target: impl AsRef<Path>) -> AbsPath {
        std::os::unix::fs::symlink(target, self.os(name)).unwrap();
        self.path(name)
    }

    fn fifo(&self, name: &str) -> AbsPath {
        rustix::fs::mkfifoat(rustix::fs::CWD, self.os(name), rustix::fs::Mode::RWXU).unwrap();
        self.path(name)
    }

    /// The names in it, sorted.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn abs(path: &Path) -> AbsPath {
    AbsPath::new(path.as_os_str()).unwrap()
}

fn files() -> Files {
    Files::default()
}

/// What a program sees of an error: its word and its code.
fn seen<T: std::fmt::Debug>(answer: Result<T, FileError>) -> (ErrorKind, i64) {
    let error = answer.unwrap_err();
    (error.kind, error.code())
}

/// A chain of `depth` directories of ten bytes each, with a file at its end. Its path is longer than any system call
/// takes.
fn deep_tree(folder: &Folder, name: &str, depth: usize) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let open = |dir: &dyn rustix::fd::AsFd, name: &Path| {
        openat(dir.as_fd(), name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    };
    std::fs::create_dir(folder.os(name)).unwrap();
    let mut dir = open(&CWD, &folder.os(name));
    for _ in 0..depth {
        mkdirat(&dir, "0123456789", Mode::RWXU).unwrap();
        dir = open(&dir, "0123456789".as_ref());
    }
    openat(&dir, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
}
