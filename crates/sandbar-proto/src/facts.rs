//! Questions that a policy has about a host, and their answers.
//!
//! Policy never touches a file system: it states which facts it needs, `sandbar-sandbox` looks them up, and the
//! round repeats until a plan comes out. A path that cannot be looked up is an answer too, never an absence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{AbsPath, ByteString, FileKind, IdRange, LimitFacts, PathGlob, PinnedPath};

/// One question about a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactQuery {
    /// What the path itself is, without following a final symlink; symlinks above it are followed.
    Lookup(AbsPath),
    /// Which file it leads to after every symlink, and that file's real path.
    Resolve(AbsPath),
    /// The names in a directory, at most [`FactQuery::MAX_NAMES`], sorted.
    List(AbsPath),
    /// The content of a small regular file, at most [`FactQuery::MAX_BYTES`].
    Read(AbsPath),
    /// What the symbolic link at the path says, readlink(2).
    Link(AbsPath),
    /// The submodules that a git index lists (gitlinks, gitformat-index(5)), at most
    /// [`FactQuery::MAX_INDEX_BYTES`] of it.
    GitLinks(AbsPath),
    /// What a pattern covers, sorted, and nothing of what lies below that: at most [`FactQuery::MAX_MATCHES`] in at most
    /// [`FactQuery::MAX_DIRECTORIES`]. Symbolic links are covered and not followed.
    Glob(PathGlob),
    /// The passwd(5) entry of a user id.
    User(u32),
    /// The passwd(5) entry of a login name.
    UserNamed(ByteString),
}

impl FactQuery {
    /// Most names that [`FactQuery::List`] returns; a longer directory is an error.
    pub const MAX_NAMES: usize = 4096;
    /// Most bytes that [`FactQuery::Read`] returns; a longer file is an error. A git configuration with
    /// some 15,000 branches.
    pub const MAX_BYTES: usize = 1024 * 1024;
    /// Longest git index that is read: some million files.
    pub const MAX_INDEX_BYTES: usize = 128 * 1024 * 1024;
    /// Most files that [`FactQuery::Glob`] returns: each is a mount.
    pub const MAX_MATCHES: usize = 4096;
    /// Most directories that [`FactQuery::Glob`] looks into. Each is watched while a run lives, and of watches a user has
    /// 8192 on small machines (inotify(7)), else some hundred thousand.
    pub const MAX_DIRECTORIES: usize = 20_000;
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFact {
    /// Its path (real, for [`FactQuery::Resolve`]), device, inode and type.
    pub pinned: PinnedPath,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// The submodules of a git index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitLinks {
    /// Their paths from the top of the worktree, in the index' order.
    pub paths: Vec<ByteString>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactAnswer {
    /// It is there.
    File(FileFact),
    /// Nothing has that name (ENOENT or ENOTDIR), or the user does not exist.
    Missing,
    /// A directory's names and what each is.
    Names(Vec<(ByteString, FileKind)>),
    /// A file's content, or what a symbolic link says.
    Content(ByteString),
    /// What a git index lists.
    GitLinks(GitLinks),
    /// What a pattern covers.
    Matches(Vec<PinnedPath>),
    /// A user.
    User {
        /// Login name.
        name: ByteString,
        /// Home directory as written.
        home: ByteString,
        /// Primary group.
        gid: u32,
    },
    /// It is there, and more than the bound of the query.
    TooLong,
    /// It could not be looked up.
    Failed {
        /// errno(3).
        errno: i32,
    },
}

/// Facts of the host that hold for every plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Effective user id of the caller.
    pub uid: u32,
    /// Effective group id of the caller.
    pub gid: u32,
    /// Whether the caller may map ids other than its own (CAP_SETUID and CAP_SETGID in its user namespace).
    pub may_map_ids: bool,
    /// User ids that exist in the caller's user namespace.
    pub users: Vec<IdRange>,
    /// Group ids that exist in the caller's user namespace.
    pub groups: Vec<IdRange>,
    /// Landlock ABI version of the kernel, 0 without Landlock.
    pub landlock_abi: u32,
    /// Kernel release, major and minor.
    pub kernel: (u32, u32),
    /// The user id here that is 0 in the parent user namespace, where that is known: the kernel's own root, or one whom
    /// the parent takes for it.
    #[serde(default)]
    pub outer_root: Option<u32>,
}

/// Everything that is known so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// About the host.
    pub host: HostFacts,
    /// About paths and users.
    pub answers: BTreeMap<FactQuery, FactAnswer>,
    /// About what enforces limits. Asked of who carries the plan out, and only where something is limited.
    #[serde(default)]
    pub limits: LimitFacts,
}
