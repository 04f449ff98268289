//! Grants: what one part of the policy wants to become of one path, and the draft that collects them.
//!
//! Every module of this crate adds grants and none looks at another's; [`settle`] leaves one per path.

use std::cmp::Ordering;
use std::collections::HashMap;

use sandbar_proto::{
    AbsPath, CacheWrites, EnvVar, FileFact, FileIdentity, PathGlob, PinnedPath, PlaceholderKind,
};

use crate::git::WatchedIndex;
use crate::reader::Reader;
use crate::{Access, CompileError, Entry, EntryPath, Nature, Note, Origin, RunRequest};

pub(crate) const ALLOW_WRITE: &str = "--allow-write";
pub(crate) const ALLOW_READ: &str = "--allow-read";

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GrantKind {
    /// The host's, writable.
    Write,
    /// The host's, read-only.
    Read,
    /// The host's, read-only where it would be writable. Shows nothing that is not shown anyway: what names it may
    /// have been written by a command.
    Protect,
    /// Invisible.
    Hide {
        /// A file's cover may be read, as empty.
        readable_empty: bool,
    },
    /// An own writable tmpfs.
    Private,
    /// An own empty tmpfs that stays read-only.
    Sealed,
    /// The host's below a copy-on-write layer.
    Cache {
        /// Name within the trust domain.
        name: &'static str,
        /// What becomes of what is written.
        writes: CacheWrites,
    },
    /// Missing on the host, and must stay so for everybody else.
    Reserve {
        /// The directory that would get the name.
        parent: PinnedPath,
        /// What reserves it.
        what: PlaceholderKind,
    },
    /// A symbolic link to recreate in a sealed tmpfs.
    Link {
        /// What it says.
        to: AbsPath,
    },
}

/// One wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// For what; a real path.
    pub(crate) path: AbsPath,
    /// Which file that was; `None` for what does not come from the host.
    pub(crate) identity: Option<FileIdentity>,
    /// What becomes of it.
    pub(crate) kind: GrantKind,
    /// Who wants it.
    pub(crate) origin: Origin,
}

impl Grant {
    pub(crate) fn of(target: &PinnedPath, kind: GrantKind, origin: Origin) -> Self {
        Self { path: target.path.clone(), identity: Some(target.identity), kind, origin }
    }

    pub(crate) fn pinned(&self) -> Option<PinnedPath> {
        self.identity.map(|identity| PinnedPath { path: self.path.clone(), identity })
    }

    /// Whether it takes the host's file out of sight.
    pub(crate) fn hides(&self) -> bool {
        Nature::of(&self.kind) == Nature::Hidden
    }

    /// What the grant means to somebody who asks about the host's file.
    pub(crate) fn access(&self) -> Access {
        Nature::of(&self.kind).access()
    }

    // Between grants for one path: our own files first, then what a person named, then the model's
    // none > write > read; what only remakes a directory gives way to what grants the host's.
    fn rank(&self) -> u8 {
        match (&self.origin, &self.kind) {
            (Origin::OwnFiles, _) => 13,
            (Origin::Flag(_), GrantKind::Write) => 12,
            (Origin::Flag(_), _) => 11,
            // Between lines the one that decides was chosen before.
            (Origin::Line { .. }, _) => 8,
            (_, GrantKind::Hide { .. }) => 7,
            (_, GrantKind::Sealed) => 6,
            (_, GrantKind::Reserve { .. }) => 5,
            (_, GrantKind::Write) => 4,
            (_, GrantKind::Read | GrantKind::Link { .. }) => 3,
            (_, GrantKind::Private) => 2,
            (_, GrantKind::Cache { .. }) => 1,
            (_, GrantKind::Protect) => 0,
        }
    }
}

/// A directory or file that a run may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) fact: FileFact,
    pub(crate) origin: Origin,
}

/// A plan in the making.
pub(crate) struct Draft<'a> {
    pub(crate) request: &'a RunRequest,
    pub(crate) reader: &'a Reader<'a>,
    /// Real path of the caller's home.
    pub(crate) home: Option<AbsPath>,
    /// Real paths of the homes whose users' git may look at the roots later.
    pub(crate) git_homes: Vec<AbsPath>,
    /// Why there can be no plan, found where nothing else hinges on it.
    pub(crate) problem: Option<CompileError>,
    /// Real paths of our own directories.
    pub(crate) own: Vec<AbsPath>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) notes: Vec<Note>,
    /// Variables to add because a cache is missing.
    pub(crate) redirects: Vec<EnvVar>,
    /// Directories to make in private tmpfs mounts.
    pub(crate) made: Vec<AbsPath>,
    /// Indexes to look at again after the run.
    pub(crate) watched: Vec<WatchedIndex>,
    /// Patterns whose matches are hidden as soon as there are any; real bases.
    pub(crate) globs: Vec<(PathGlob, Origin)>,
}

impl Draft<'_> {
    pub(crate) fn grant(&mut self, target: &PinnedPath, kind: GrantKind, origin: Origin) {
        self.grants.push(Grant::of(target, kind, origin));
    }

    /// Makes the plan fail, once everything is known that is needed to tell why.
    pub(crate) fn refuse(&mut self, problem: CompileError) {
        self.problem.get_or_insert(problem);
    }

    /// Keeps `target` as it is, because of what `name` says.
    pub(crate) fn protect(&mut self, target: &PinnedPath, name: &'static str) {
        self.grant(target, GrantKind::Protect, Origin::Protected(name));
    }

    /// Whether `path` lies in a root that was granted for writing so far.
    pub(crate) fn is_in_writable_root(&self, path: &AbsPath) -> bool {
        self.grants.iter().any(|grant| grant.kind == GrantKind::Write && path.starts_with(&grant.path))
    }

    /// Whether hiding `path` would hide everything, or the home with all that is in it.
    pub(crate) fn is_too_broad_to_hide(&self, path: &AbsPath) -> bool {
        *path == AbsPath::root() || self.home.as_ref().is_some_and(|home| home.starts_with(path))
    }

    /// Whether a person gave up the protection of exactly this name, as written.
    pub(crate) fn is_waived(&self, path: &AbsPath) -> bool {
        let by_line = |entry: &Entry| {
            entry.access == Access::Write
                && entry.origin.is_of_person()
                && matches!(&entry.pattern, EntryPath::Path(named) if named == path)
        };
        self.request.allow_write.contains(path) || self.request.entries.iter().any(by_line)
    }
}

/// Depth-first order of paths: what lies below a path follows it without a gap.
///
/// The order of bytes does not do that, since `-` and `.` sort before `/`.
pub(crate) fn depth_first(a: &AbsPath, b: &AbsPath) -> Ordering {
    a.components().cmp(b.components())
}

/// What the nearest grant leaves of the host's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ground {
    Writable,
    Hidden,
    Other,
}

/// Which grant is the nearest above a path, for whoever asks about many: [`crate::compile::is_writable`] looks at every grant
/// each time.
#[derive(Debug, Default)]
pub(crate) struct Nearest {
    /// Of those for one path, what the strongest allows, and what it leaves.
    by_path: HashMap<AbsPath, (Access, Ground)>,
    seen: usize,
}

impl Nearest {
    /// Takes in what was added to `grants` since.
    pub(crate) fn catch_up(&mut self, grants: &[Grant]) {
        for grant in grants.get(self.seen..).unwrap_or_default() {
            let ground = match grant.kind {
                GrantKind::Write => Ground::Writable,
                GrantKind::Hide { .. } | GrantKind::Sealed => Ground::Hidden,
                GrantKind::Read
                | GrantKind::Protect
                | GrantKind::Private
                | GrantKind::Cache { .. }
                | GrantKind::Reserve { .. }
                | GrantKind::Link { .. } => Ground::Other,
            };
            let allows = (grant.access(), ground);
            let known = self.by_path.entry(grant.path.clone()).or_insert(allows);
            // Of equal ones the last counts, as everywhere.
            if allows.0 >= known.0 {
                *known = allows;
            }
        }
        self.seen = grants.len();
    }

    /// Whether the host's file at `path` may be written.
    pub(crate) fn is_writable(&self, path: &AbsPath) -> bool {
        self.ground(path) == Some(Ground::Writable)
    }

    /// Whether the host's file at `path` is out of sight.
    pub(crate) fn is_hidden(&self, path: &AbsPath) -> bool {
        self.ground(path) == Some(Ground::Hidden)
    }

    fn ground(&self, path: &AbsPath) -> Option<Ground> {
        let mut above = std::iter::successors(Some(path.clone()), AbsPath::parent);
        above.find_map(|path| self.by_path.get(&path)).map(|(_, ground)| *ground)
    }
}

/// Leaves the strongest grant for each path, in depth-first order.
pub(crate) fn settle(mut grants: Vec<Grant>) -> Vec<Grant> {
    grants.sort_by(|a, b| depth_first(&a.path, &b.path).then(b.rank().cmp(&a.rank())));
    grants.dedup_by(|later, first| later.path == first.path);
    grants
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> AbsPath {
        AbsPath::new(text).unwrap()
    }

    fn grant(at: &str, kind: GrantKind, origin: Origin) -> Grant {
        Grant { path: path(at), identity: None, kind, origin }
    }

    #[test]
    fn the_nearest_grant_is_the_same_whoever_looks_for_it() {
        let hide = GrantKind::Hide { readable_empty: false };
        let kinds = [GrantKind::Write, GrantKind::Read, hide, GrantKind::Private];
        let paths = ["/", "/a", "/a/b", "/a/b/c", "/d"];
        // Every pair of grants, in both orders, asked about every path.
        let all: Vec<Grant> = paths
            .iter()
            .flat_map(|at| kinds.iter().map(|kind| grant(at, kind.clone(), Origin::profile("p"))))
            .collect();
        for first in &all {
            for second in &all {
                let grants = [first.clone(), second.clone()];
                let mut nearest = Nearest::default();
                nearest.catch_up(&grants[..1]);
                nearest.catch_up(&grants);
                for asked in ["/", "/a", "/a/b", "/a/b/c/d", "/d/e", "/x"].map(path) {
                    let expected = crate::compile::is_writable(&grants, &asked);
                    assert_eq!(nearest.is_writable(&asked), expected, "{grants:?} {asked:?}");
                }
            }
        }
    }

    #[test]
    fn depth_first_keeps_a_subtree_together() {
        let mut paths = ["/a", "/a-b", "/a/c", "/a.d/e", "/"].map(path);
        paths.sort_by(depth_first);
        assert_eq!(paths, ["/", "/a", "/a/c", "/a-b", "/a.d/e"].map(path));
    }

    #[test]
    fn a_person_reopens_a_secret_by_its_exact_path_but_never_our_own_files() {
        let hide = GrantKind::Hide { readable_empty: false };
        let settled = settle(vec![
            grant("/s", hide.clone(), Origin::Default("secrets")),
            grant("/s", GrantKind::Read, Origin::Flag(ALLOW_READ)),
            grant("/o", GrantKind::Write, Origin::Flag(ALLOW_WRITE)),
            grant("/o", hide.clone(), Origin::OwnFiles),
            grant("/w", GrantKind::Write, Origin::profile("workspace")),
            grant("/w", hide.clone(), Origin::Default("secrets")),
        ]);
        let kinds: Vec<GrantKind> = settled.into_iter().map(|grant| grant.kind).collect();
        assert_eq!(kinds, [hide.clone(), GrantKind::Read, hide]);
    }
}
