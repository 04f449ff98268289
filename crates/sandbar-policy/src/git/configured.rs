//! Files that a configuration names: those are read or run by git on the host, wherever they lie.
//!
//! `core.hooksPath` is a directory of hooks, `include.path` and `includeIf.*.path` are more configuration. What
//! they name in a writable root is read-only like `.git/hooks` and `.git/config`, and reserved while it is missing.
//! Conditions of `includeIf` are taken to hold. Programs that a configuration names (`core.editor`, filters,
//! aliases) are not looked at: they are scripts of the workspace like a Makefile, which a person chose to run.

use sandbar_proto::{AbsPath, PlaceholderKind};

use super::config::settings;
use crate::Note;
use crate::grants::Draft;
use crate::paths::{below, lexical};
use crate::reader::Found;
use crate::workspace::reserve;

/// How deep includes of includes are followed; git stops at ten.
const INCLUDE_LEVELS: usize = 10;

/// Protects what the user's and the machine's configuration name in `worktree`.
pub(super) fn protect_for_user(draft: &mut Draft<'_>, worktree: &AbsPath) {
    if let Some(home) = draft.home.clone() {
        protect(draft, &below(&home, ".gitconfig"), worktree);
        protect(draft, &below(&home, ".config/git/config"), worktree);
    }
    protect(draft, &below(&AbsPath::root(), "etc/gitconfig"), worktree);
}

/// Protects what the configuration in `file` names, for a repository whose hooks run in `worktree`.
pub(super) fn protect(draft: &mut Draft<'_>, file: &AbsPath, worktree: &AbsPath) {
    protect_level(draft, file, worktree, &mut vec![file.clone()]);
}

fn protect_level(draft: &mut Draft<'_>, file: &AbsPath, worktree: &AbsPath, above: &mut Vec<AbsPath>) {
    let Some(text) = draft.reader.read(file) else { return };
    for setting in settings(text) {
        let Some(value) = setting.value.as_deref() else { continue };
        if setting.is("core", "hookspath") {
            if let Some(hooks) = named(draft, worktree, value) {
                protect_target(draft, &hooks, "core.hooksPath", PlaceholderKind::Directory);
            }
        } else if setting.is("include", "path") || setting.is("includeif", "path") {
            let directory = file.parent().unwrap_or_else(AbsPath::root);
            let Some(included) = named(draft, &directory, value) else { continue };
            let empty = PlaceholderKind::File { content: "".into() };
            protect_target(draft, &included, "include.path", empty);
            if above.len() < INCLUDE_LEVELS && !above.contains(&included) {
                above.push(included.clone());
                protect_level(draft, &included, worktree, above);
                above.pop();
            }
        }
    }
}

/// The path that a value names; `~/` is the caller's home, anything else is relative to `base`.
fn named(draft: &Draft<'_>, base: &AbsPath, value: &[u8]) -> Option<AbsPath> {
    if value.is_empty() {
        return None;
    }
    match value.strip_prefix(b"~/") {
        Some(rest) => lexical(draft.home.as_ref()?, rest).ok(),
        None => lexical(base, value).ok(),
    }
}

fn protect_target(draft: &mut Draft<'_>, path: &AbsPath, key: &'static str, what: PlaceholderKind) {
    match draft.reader.resolve(path) {
        Found::Unknown => {}
        Found::File(fact) if fact.pinned.path == *path => {
            draft.protect(&fact.pinned, key);
        }
        // The link that leads there may lie where it can be replaced.
        Found::File(fact) => {
            draft.protect(&fact.pinned, key);
            note_open(draft, key, path);
        }
        Found::Missing | Found::Failed(_) => {
            let Some(parent) = path.parent() else { return };
            match draft.reader.resolve(&parent) {
                Found::File(fact) if fact.pinned.path == parent => {
                    reserve(draft, &fact.pinned, key, path.clone(), what);
                }
                Found::Missing | Found::Failed(_) => super::links::reserve_missing(draft, &parent),
                Found::File(_) => note_open(draft, key, path),
                Found::Unknown => {}
            }
        }
    }
}

fn note_open(draft: &mut Draft<'_>, key: &'static str, path: &AbsPath) {
    if draft.is_in_writable_root(path) {
        draft.notes.push(Note::ConfiguredOpen { key, path: path.clone() });
    }
}
