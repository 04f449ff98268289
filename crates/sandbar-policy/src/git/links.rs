//! Submodules: what a `git status` on the host enters by itself.
//!
//! For each submodule that the index lists, git looks for `.git` in its directory, and runs a git in it that obeys
//! the configuration which that names. So an existing `.git` is read-only, and so is the configuration it leads
//! to; where there is none the directory is read-only, and where there is no directory the name is reserved: a
//! submodule can't be checked out inside, which could not work anyway, since that writes the configuration.
//!
//! What stays open: with an index that may be written a command adds a submodule of its own. That cannot be
//! prevented without preventing commits; [`WatchedIndex`] lets the caller see it afterwards, and say it.

use sandbar_proto::{AbsPath, ByteString, FactAnswer, FactQuery, FileKind, PinnedPath, PlaceholderKind};

use super::route::{self, Route};
use super::{
    Layout, MODULE_LEVELS, close_linked, common_directory, configured, guard, guard_common, guard_modules,
    pointed,
};
use crate::grants::Draft;
use crate::paths::below;
use crate::reader::{Answer, Found, Links};
use crate::workspace::reserve;
use crate::{GitMode, Note};

const LINK: &str = ".git of a submodule";

/// An index that a run may write, and the submodules it had when the run was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedIndex {
    index: AbsPath,
    worktree: AbsPath,
    before: FactAnswer,
}

impl WatchedIndex {
    /// What to ask the host after the run.
    #[must_use]
    pub fn query(&self) -> FactQuery {
        FactQuery::GitLinks(self.index.clone())
    }

    /// The worktree of the index.
    #[must_use]
    pub fn worktree(&self) -> &AbsPath {
        &self.worktree
    }

    /// The directories that the index has as submodules now and had not before; `None` when the index is not
    /// readable any more.
    #[must_use]
    pub fn added(&self, now: &FactAnswer) -> Option<Vec<AbsPath>> {
        let paths = |answer: &FactAnswer| match answer {
            FactAnswer::GitLinks(links) => Some(links.paths.clone()),
            FactAnswer::Missing => Some(Vec::new()),
            FactAnswer::File(_)
            | FactAnswer::Names(_)
            | FactAnswer::Content(_)
            | FactAnswer::Matches(_)
            | FactAnswer::User { .. }
            | FactAnswer::TooLong
            | FactAnswer::Failed { .. } => None,
        };
        let before = paths(&self.before).unwrap_or_default();
        let added = paths(now)?.into_iter().filter(|path| !before.contains(path));
        Some(added.filter_map(|path| directory(&self.worktree, &path)).collect())
    }
}

/// The directory of a submodule. Git keeps no index with `..` or an absolute path, so one that has them is forged.
fn directory(worktree: &AbsPath, path: &ByteString) -> Option<AbsPath> {
    worktree.join(path.as_bytes()).ok().filter(|directory| directory != worktree)
}

/// Protects the submodules in the index of the git directory `git`, whose worktree is `worktree`, and watches that
/// index.
pub(super) fn protect(draft: &mut Draft<'_>, git: &AbsPath, worktree: &AbsPath) {
    protect_level(draft, git, worktree, 1);
    if draft.request.git == GitMode::Commit {
        watch(draft, git, worktree);
    }
}

/// Looks at the index of `git` again after the run, which may write it.
fn watch(draft: &mut Draft<'_>, git: &AbsPath, worktree: &AbsPath) {
    let index = below(git, "index");
    let before = draft.reader.answer_of_git_links(&index);
    draft.watched.push(WatchedIndex { index, worktree: worktree.clone(), before });
}

fn protect_level(draft: &mut Draft<'_>, git: &AbsPath, worktree: &AbsPath, level: usize) {
    let index = below(git, "index");
    let links = match draft.reader.git_links(&index) {
        Links::Unknown | Links::Missing => return,
        Links::TooLong | Links::Unreadable(_) => {
            draft.notes.push(Note::SubmodulesUnknown { index });
            return;
        }
        Links::Known(links) => links,
    };
    for path in links.paths.iter().filter_map(|path| directory(worktree, path)) {
        protect_one(draft, &path, level);
    }
}

fn protect_one(draft: &mut Draft<'_>, path: &AbsPath, level: usize) {
    let dot = below(path, ".git");
    // A directory that is reached through a link is none for git, but the link could be replaced by one.
    match draft.reader.resolve(path) {
        Found::File(fact) if fact.pinned.path != *path => {
            return note_open(draft, path);
        }
        Found::File(_) | Found::Unknown => {}
        Found::Missing | Found::Failed(_) => return reserve_missing(draft, path),
    }
    match draft.reader.lookup(&dot) {
        Found::Unknown => {}
        Found::File(fact) => match fact.pinned.identity.kind {
            FileKind::File => {
                draft.protect(&fact.pinned, LINK);
                follow_file(draft, &dot, path, level);
            }
            FileKind::Directory => protect_repository(draft, &fact.pinned, path, level),
            FileKind::Symlink | FileKind::Other => close(draft, path),
        },
        Found::Missing | Found::Failed(_) => close(draft, path),
    }
}

/// Makes the whole directory of a submodule read-only.
fn close(draft: &mut Draft<'_>, path: &AbsPath) {
    if let Found::File(fact) = draft.reader.lookup(path) {
        draft.protect(&fact.pinned, LINK);
    }
}

/// Reserves `path`, or what is missing above it.
pub(super) fn reserve_missing(draft: &mut Draft<'_>, path: &AbsPath) {
    let mut missing = path.clone();
    while let Some(parent) = missing.parent() {
        match draft.reader.resolve(&parent) {
            Found::Unknown => return,
            Found::File(fact) if fact.pinned.path == parent => {
                return reserve(draft, &fact.pinned, LINK, missing, PlaceholderKind::Directory);
            }
            Found::File(_) => return note_open(draft, path),
            Found::Missing | Found::Failed(_) => missing = parent,
        }
    }
}

fn note_open(draft: &mut Draft<'_>, path: &AbsPath) {
    if draft.is_in_writable_root(path) {
        draft.notes.push(Note::SubmoduleOpen { path: path.clone() });
    }
}

/// Protects the repository that the `.git` file `dot` of the directory `path` names.
fn follow_file(draft: &mut Draft<'_>, dot: &AbsPath, path: &AbsPath, level: usize) {
    let named = match draft.reader.content(dot) {
        Answer::Unknown => return,
        Answer::Known(content) => pointed(content, path),
        // Read-only by now, so git will not understand it either.
        Answer::Missing | Answer::TooLong | Answer::Unreadable(_) => None,
    };
    let Some(target) = named else { return };
    let Some(route) = Route::of(draft, &target) else { return };
    route::tell_links(draft, &route, &target, LINK);
    match route.found() {
        Some(git) if git.identity.kind == FileKind::Directory => protect_repository(draft, git, path, level),
        Some(_) | None => route::protect(draft, &target, LINK, PlaceholderKind::Directory),
    }
}

fn protect_repository(draft: &mut Draft<'_>, git: &PinnedPath, worktree: &AbsPath, level: usize) {
    let is_closed = draft.request.git == GitMode::Protect || level > MODULE_LEVELS;
    if is_closed {
        draft.protect(git, LINK);
    } else if !close_linked(draft, git, LINK) {
        guard(draft, git, Layout::Submodule);
        guard_modules(draft, git, level);
        watch(draft, &git.path, worktree);
    }
    if let Some(common) = common_directory(draft, git) {
        guard_common(draft, &common, worktree);
    }
    configured::protect(draft, &below(&git.path, "config"), worktree);
    configured::protect(draft, &below(&git.path, "config.worktree"), worktree);
    if level <= MODULE_LEVELS {
        protect_level(draft, &git.path, worktree, level + 1);
    }
}
