//! Absolute paths and the identity of the file they were resolved to.
//!
//! An [`AbsPath`] is lexically clean: absolute, no `.` or `..`, no empty component, no NUL. That says nothing
//! about symlinks; only [`PinnedPath`], which carries device and inode, says which file was meant.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ByteString;

/// An absolute, lexically normal path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "ByteString", into = "ByteString")]
pub struct AbsPath(ByteString);

/// Why bytes are no [`AbsPath`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AbsPathError {
    /// It does not start with `/`.
    Relative(ByteString),
    /// It has a `..` component, whose meaning depends on symlinks.
    Parent(ByteString),
    /// It has a NUL byte, which no system call can pass.
    Nul(ByteString),
}

impl fmt::Display for AbsPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative(path) => write!(f, "{} is not absolute", path.to_display()),
            Self::Parent(path) => write!(f, "{} contains `..`", path.to_display()),
            Self::Nul(path) => write!(f, "{} contains a NUL byte", path.to_display().escape_debug()),
        }
    }
}

impl std::error::Error for AbsPathError {}

impl AbsPath {
    /// Parses `bytes`, dropping `.` and empty components.
    ///
    /// # Errors
    /// See [`AbsPathError`].
    pub fn new(bytes: impl Into<ByteString>) -> Result<Self, AbsPathError> {
        let bytes: ByteString = bytes.into();
        let raw = bytes.as_bytes();
        if raw.first() != Some(&b'/') {
            return Err(AbsPathError::Relative(bytes));
        }
        if raw.contains(&0) {
            return Err(AbsPathError::Nul(bytes));
        }
        if is_clean(&raw[1..]) {
            return Ok(Self(bytes));
        }
        let mut clean = Vec::with_capacity(raw.len());
        for part in raw.split(|&b| b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(AbsPathError::Parent(bytes)),
                name => {
                    clean.push(b'/');
                    clean.extend_from_slice(name);
                }
            }
        }
        if clean.is_empty() {
            clean.push(b'/');
        }
        Ok(Self(ByteString::from(clean)))
    }

    /// `/`.
    #[must_use]
    pub fn root() -> Self {
        Self(ByteString::from("/"))
    }

    /// The bytes of the path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The path as the standard library's type.
    #[cfg(unix)]
    #[must_use]
    pub fn as_path(&self) -> &std::path::Path {
        use std::os::unix::ffi::OsStrExt as _;
        std::path::Path::new(std::ffi::OsStr::from_bytes(self.as_bytes()))
    }

    /// The path for a person.
    #[must_use]
    pub fn to_display(&self) -> String {
        self.0.to_display()
    }

    /// The components, none for `/`.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.as_bytes().split(|&b| b == b'/').filter(|part| !part.is_empty())
    }

    /// How many components the path has; 0 for `/`.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// Whether `self` is `ancestor` or lies below it, by components.
    #[must_use]
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        let (path, prefix) = (self.as_bytes(), ancestor.as_bytes());
        prefix == b"/" || (path.starts_with(prefix) && matches!(path.get(prefix.len()), None | Some(b'/')))
    }

    /// The directory that holds this path, or `None` for `/`.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let raw = self.as_bytes();
        if raw == b"/" {
            return None;
        }
        let cut = raw.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(ByteString::from(if cut == 0 { &b"/"[..] } else { &raw[..cut] })))
    }

    /// The last component, or `None` for `/`.
    #[must_use]
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// This path with `relative` appended.
    ///
    /// # Errors
    /// See [`AbsPathError`]; an absolute `relative` is taken as relative to `self`.
    pub fn join(&self, relative: impl AsRef<[u8]>) -> Result<Self, AbsPathError> {
        let (base, relative) = (self.as_bytes(), relative.as_ref());
        let mut bytes = Vec::with_capacity(base.len() + 1 + relative.len());
        bytes.extend_from_slice(base);
        if base != b"/" {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(relative);
        Self::new(bytes)
    }
}

/// Whether what follows the first slash needs no change: no empty, `.` or `..` component. Planning a run joins
/// hundreds of paths, nearly all of which are clean already.
fn is_clean(rest: &[u8]) -> bool {
    let mut component_bytes = 0_usize;
    let mut only_dots = true;
    for &byte in rest {
        if byte == b'/' {
            if component_bytes == 0 || (only_dots && component_bytes <= 2) {
                return false;
            }
            (component_bytes, only_dots) = (0, true);
        } else {
            component_bytes += 1;
            only_dots &= byte == b'.';
        }
    }
    rest.is_empty() || (component_bytes > 0 && !(only_dots && component_bytes <= 2))
}

impl fmt::Debug for AbsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<ByteString> for AbsPath {
    type Error = AbsPathError;

    fn try_from(bytes: ByteString) -> Result<Self, Self::Error> {
        Self::new(bytes)
    }
}

impl From<AbsPath> for ByteString {
    fn from(path: AbsPath) -> Self {
        path.0
    }
}

/// What a path leads to, as far as a sandbox plan cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link that was not followed.
    Symlink,
    /// A device, FIFO, socket or anything else.
    Other,
}

/// Which file a path led to when facts were gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Device, as `st_dev` of stat(2).
    pub dev: u64,
    /// Inode, as `st_ino` of stat(2).
    pub ino: u64,
    /// Type of the file.
    pub kind: FileKind,
}

/// A path without symlinks and the file it named; an executor refuses to act when they no longer agree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PinnedPath {
    /// Where.
    pub path: AbsPath,
    /// Which file.
    pub identity: FileIdentity,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> AbsPath {
        AbsPath::new(text).unwrap()
    }

    #[test]
    fn paths_are_normalised_without_touching_the_file_system() {
        let cases = [
            ("/", "/"),
            ("//", "/"),
            ("//a//b/", "/a/b"),
            ("/./a/.", "/a"),
            ("/a", "/a"),
            ("/.../.a/a.", "/.../.a/a."),
        ];
        for (input, expected) in cases {
            assert_eq!(path(input).to_display(), expected);
        }
    }

    #[test]
    fn paths_that_need_a_file_system_to_be_understood_are_refused() {
        assert!(matches!(AbsPath::new("a"), Err(AbsPathError::Relative(_))));
        assert!(matches!(AbsPath::new("/a/../b"), Err(AbsPathError::Parent(_))));
        assert!(matches!(AbsPath::new("/a\0b"), Err(AbsPathError::Nul(_))));
    }

    proptest! {
        #[test]
        fn the_short_way_and_the_long_way_agree(text in "/[a./]{0,12}") {
            let rest = text.as_bytes()[1..].to_vec();
            if is_clean(&rest) {
                let parts: Vec<&str> = text.split('/').skip(1).collect();
                prop_assert!(text == "/" || parts.iter().all(|part| !["", ".", ".."].contains(part)));
            } else {
                prop_assert_ne!(AbsPath::new(text.as_str()).map(|path| path.to_display()), Ok(text));
            }
        }
    }

    #[test]
    fn starts_with_compares_components_not_bytes() {
        assert!(path("/a/b").starts_with(&path("/a")));
        assert!(path("/a").starts_with(&path("/a")));
        assert!(path("/a").starts_with(&path("/")));
        assert!(!path("/ab").starts_with(&path("/a")));
        assert!(!path("/a").starts_with(&path("/a/b")));
    }

    #[test]
    fn parent_and_name_take_a_path_apart() {
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(path("/")));
        assert_eq!(path("/").parent(), None);
        assert_eq!(path("/a/b").file_name(), Some(&b"b"[..]));
        assert_eq!(path("/a").join("b/c").unwrap(), path("/a/b/c"));
    }
}
