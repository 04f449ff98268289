//! Where a path leads, link by link, and how what is at its end is kept as it is.
//!
//! Git follows symbolic links in whatever names a file for it. What such a path leads to can be protected by a mount;
//! the links on the way can't, so one that lies where a command may replace it is told to the person.

use sandbar_proto::{AbsPath, FileKind, PinnedPath, PlaceholderKind};

use crate::Note;
use crate::compile::is_writable;
use crate::grants::{Draft, Grant, GrantKind};
use crate::paths::entry;
use crate::reader::{Answer, Content, Found};
use crate::workspace::reserve;

/// More links than the kernel follows, path_resolution(7).
const MAX_LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// The symbolic links on the way, by their real paths.
    links: Vec<AbsPath>,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Found(PinnedPath),
    /// Nothing has the name `path` in `parent`; `is_last` if nothing would have to be made below it.
    Missing {
        parent: PinnedPath,
        path: AbsPath,
        is_last: bool,
    },
    /// It leads in circles, or can't be looked up.
    Nowhere,
}

impl Route {
    /// Follows `path`; `None` while something on the way is unknown.
    pub(super) fn of(draft: &Draft<'_>, path: &AbsPath) -> Option<Self> {
        let start = start(draft, path)?;
        let rest = path.components().skip(start.path.depth()).map(<[u8]>::to_vec).collect();
        walk(draft, start, rest)
    }

    /// What is at the end.
    pub(super) fn found(&self) -> Option<&PinnedPath> {
        match &self.end {
            End::Found(pinned) => Some(pinned),
            End::Missing { .. } | End::Nowhere => None,
        }
    }
}

/// The nearest directory above `path` that is known to be real: saves the questions about what lies above it.
fn start(draft: &Draft<'_>, path: &AbsPath) -> Option<PinnedPath> {
    let roots = draft.grants.iter().filter(|grant| grant.kind == GrantKind::Write);
    let roots = roots.filter(|grant| grant.path != *path && path.starts_with(&grant.path));
    let root = roots.max_by_key(|grant| grant.path.depth()).and_then(Grant::pinned);
    if root.is_some() {
        return root;
    }
    let home = draft.git_homes.iter().find(|home| *home != path && path.starts_with(home));
    match home.map(|home| draft.reader.resolve(home)) {
        Some(Found::Unknown) => None,
        Some(Found::File(fact)) => Some(fact.pinned.clone()),
        Some(Found::Missing | Found::Failed(_)) | None => file_system_root(draft),
    }
}

fn file_system_root(draft: &Draft<'_>) -> Option<PinnedPath> {
    match draft.reader.lookup(&AbsPath::root()) {
        Found::File(fact) => Some(fact.pinned.clone()),
        Found::Unknown | Found::Missing | Found::Failed(_) => None,
    }
}

/// Goes on from `here`, a real directory, by the components `rest`.
fn walk(draft: &Draft<'_>, mut here: PinnedPath, mut rest: Vec<Vec<u8>>) -> Option<Route> {
    rest.reverse();
    let mut links = Vec::new();
    foresee(draft, &here.path, &rest);
    while let Some(name) = rest.pop() {
        if name == b".." {
            let parent = here.path.parent().unwrap_or_else(AbsPath::root);
            match draft.reader.lookup(&parent) {
                Found::Unknown => return None,
                Found::File(fact) => here = fact.pinned.clone(),
                Found::Missing | Found::Failed(_) => return Some(Route { links, end: End::Nowhere }),
            }
            continue;
        }
        // Empty ones and `.` lead nowhere else.
        let Some(next) = entry(&here.path, &name) else { continue };
        match draft.reader.lookup(&next) {
            Found::Unknown => return None,
            Found::Failed(_) => return Some(Route { links, end: End::Nowhere }),
            Found::Missing => {
                let is_last = rest.iter().all(|name| name.is_empty() || name == b".");
                return Some(Route { links, end: End::Missing { parent: here, path: next, is_last } });
            }
            Found::File(fact) if fact.pinned.identity.kind == FileKind::Symlink => {
                links.push(next.clone());
                let target = match draft.reader.link(&next) {
                    Answer::Unknown => return None,
                    Answer::Known(target) if links.len() <= MAX_LINKS => target,
                    Answer::Known(_) | Answer::Missing | Answer::TooLong | Answer::Unreadable(_) => {
                        return Some(Route { links, end: End::Nowhere });
                    }
                };
                if target.first() == Some(&b'/') {
                    here = file_system_root(draft)?;
                }
                rest.extend(target.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
                foresee(draft, &here.path, &rest);
            }
            Found::File(fact) => here = fact.pinned.clone(),
        }
    }
    Some(Route { links, end: End::Found(here) })
}

/// Asks for everything that lies on the way if no further link does: one round for each link instead of one for each
/// component.
fn foresee(draft: &Draft<'_>, from: &AbsPath, rest: &[Vec<u8>]) {
    let mut here = from.clone();
    for name in rest.iter().rev() {
        if name == b".." {
            here = here.parent().unwrap_or_else(AbsPath::root);
        } else if let Some(next) = entry(&here, name) {
            here = next;
        }
        draft.reader.lookup(&here);
    }
}

/// Keeps what `path` leads to as it is, and reserves it while it is missing. `key` says what names it.
pub(super) fn protect(draft: &mut Draft<'_>, path: &AbsPath, key: &'static str, what: PlaceholderKind) {
    let Some(route) = Route::of(draft, path) else { return };
    tell_links(draft, &route, path, key);
    match route.end {
        End::Found(pinned) => {
            // A mount can't keep as it is what has to be writable itself.
            if draft.grants.iter().any(|grant| grant.kind == GrantKind::Write && grant.path == pinned.path) {
                note_open(draft, path, key);
            }
            draft.protect(&pinned, key);
        }
        End::Missing { parent, path, is_last } => {
            let what = if is_last { what } else { PlaceholderKind::Directory };
            reserve(draft, &parent, key, path, what);
        }
        End::Nowhere => {}
    }
}

/// Says that a link on the way could be replaced.
pub(super) fn tell_links(draft: &mut Draft<'_>, route: &Route, path: &AbsPath, key: &'static str) {
    if route.links.iter().any(|link| is_writable(&draft.grants, link)) {
        note_open(draft, path, key);
    }
}

fn note_open(draft: &mut Draft<'_>, path: &AbsPath, key: &'static str) {
    draft.notes.push(Note::ConfiguredOpen { key, path: path.clone() });
}

/// The content of the file that `path` leads to.
pub(super) fn read<'a>(draft: &Draft<'a>, path: &AbsPath) -> Content<'a> {
    // Most are no links, and then nothing else is asked.
    let content = draft.reader.content(path);
    let Answer::Unreadable(errno) = content else { return content };
    match draft.reader.resolve(path) {
        Found::Unknown => Answer::Unknown,
        Found::File(fact) if fact.pinned.path != *path => draft.reader.content(&fact.pinned.path),
        Found::Missing => Answer::Missing,
        Found::File(_) => Answer::Unreadable(errno),
        Found::Failed(errno) => Answer::Unreadable(errno),
    }
}
