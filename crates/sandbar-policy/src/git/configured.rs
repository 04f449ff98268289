//! Files that a configuration names: those are read or run by git on the host, wherever they lie.
//!
//! `core.hooksPath` is a directory of hooks, `init.templateDir` one of hooks for the next repository, `include.path`
//! and `includeIf.*.path` are more configuration. What they name in a writable root is read-only like `.git/hooks`
//! and `.git/config`, and reserved while it is missing; so is the person's own configuration. Conditions of
//! `includeIf` are taken to hold. Programs that a configuration names (`core.editor`, filters, aliases) are not
//! looked at: they are scripts of the workspace like a Makefile, which a person chose to run.
//!
//! A configuration that is too long to be read stops the plan. One that cannot be read is told: the git of whoever
//! is not allowed to read it stops there, or goes on without it.

use std::collections::{BTreeSet, VecDeque};

use sandbar_proto::{AbsPath, FileKind, PlaceholderKind};

use super::config::{Setting, settings};
use super::{environment, route};
use crate::grants::Draft;
use crate::paths::{entry, lexical};
use crate::reader::{Answer, Names};
use crate::{CompileError, Note};

/// How deep includes of includes are followed; git stops at ten.
const INCLUDE_LEVELS: usize = 10;

/// Protects the configuration of the users and of the machine, and what that and the environment name in `worktree`.
pub(super) fn protect_for_user(draft: &mut Draft<'_>, worktree: &AbsPath) {
    for file in environment::configuration_files(draft) {
        route::protect(draft, &file, "own configuration", empty_file());
        protect(draft, &file, worktree);
    }
    // The system's own directories are no workspace, so these files need no protection themselves.
    follow(draft, environment::configuration_of_machine().to_vec(), worktree);
    let mut included = Vec::new();
    for setting in environment::settings(draft) {
        // Git takes no relative include from the environment.
        protect_setting(draft, &setting, &AbsPath::root(), worktree, &mut included);
    }
    follow(draft, included, worktree);
    if let Some(template) = environment::path(draft, "GIT_TEMPLATE_DIR") {
        route::protect(draft, &template, "GIT_TEMPLATE_DIR", PlaceholderKind::Directory);
    }
}

/// Protects what the configuration in `file` names, for a repository whose hooks run in `worktree`.
pub(super) fn protect(draft: &mut Draft<'_>, file: &AbsPath, worktree: &AbsPath) {
    follow(draft, vec![file.clone()], worktree);
}

/// Protects what `files` and their includes name. Each is read once, however often it is included.
fn follow(draft: &mut Draft<'_>, files: Vec<AbsPath>, worktree: &AbsPath) {
    let mut seen: BTreeSet<AbsPath> = files.iter().cloned().collect();
    let mut waiting: VecDeque<(AbsPath, usize)> = files.into_iter().map(|file| (file, 0)).collect();
    while let Some((file, level)) = waiting.pop_front() {
        let mut included = Vec::new();
        match route::read(draft, &file) {
            Answer::Unknown | Answer::Missing => {}
            Answer::Known(text) => {
                let directory = file.parent().unwrap_or_else(AbsPath::root);
                for setting in settings(text) {
                    protect_setting(draft, &setting, &directory, worktree, &mut included);
                }
            }
            Answer::TooLong => draft.refuse(CompileError::ConfigurationTooLong { path: file }),
            Answer::Unreadable(errno) => {
                draft.notes.push(Note::ConfigurationUnreadable { path: file, errno });
            }
        }
        for file in included {
            if level < INCLUDE_LEVELS && seen.insert(file.clone()) {
                waiting.push_back((file, level + 1));
            }
        }
    }
}

/// Protects what one setting names. Includes are added to `included`; relative ones start at `directory`, that of the
/// file as it is named, not of what it leads to (tried with git 2.47).
fn protect_setting(
    draft: &mut Draft<'_>,
    setting: &Setting,
    directory: &AbsPath,
    worktree: &AbsPath,
    included: &mut Vec<AbsPath>,
) {
    if setting.is("core", "hookspath") {
        if let Some(hooks) = named(draft, worktree, setting, "core.hooksPath") {
            route::protect(draft, &hooks, "core.hooksPath", PlaceholderKind::Directory);
            protect_links(draft, &hooks);
        }
    } else if setting.is("init", "templatedir") {
        if let Some(template) = named(draft, worktree, setting, "init.templateDir") {
            route::protect(draft, &template, "init.templateDir", PlaceholderKind::Directory);
        }
    } else if (setting.is("include", "path") || setting.is("includeif", "path"))
        && let Some(file) = named(draft, directory, setting, "include.path")
    {
        route::protect(draft, &file, "include.path", empty_file());
        included.push(file);
    }
}

/// Protects what hooks in the directory `hooks` lead to that are symbolic links.
pub(super) fn protect_links(draft: &mut Draft<'_>, hooks: &AbsPath) {
    let names = match draft.reader.list(hooks) {
        Names::Unknown | Names::Missing => return,
        Names::Known(names) => names,
        Names::TooLong => return draft.refuse(CompileError::ConfigurationTooLong { path: hooks.clone() }),
        Names::Unreadable(errno) => {
            draft.notes.push(Note::ConfigurationUnreadable { path: hooks.clone(), errno });
            return;
        }
    };
    let links = names.iter().filter(|(_, kind)| *kind == FileKind::Symlink);
    for link in links.filter_map(|(name, _)| entry(hooks, name.as_bytes())) {
        let Some(route) = route::Route::of(draft, &link) else { continue };
        // A directory is no hook, and may be all that a build works in.
        if route.found().is_none_or(|target| target.identity.kind != FileKind::Directory) {
            route::protect(draft, &link, "hook", empty_file());
        }
    }
}

fn empty_file() -> PlaceholderKind {
    PlaceholderKind::File { content: "".into() }
}

/// The path that a setting names; `~/` is the caller's home, `~NAME/` another's, and anything else is relative to
/// `base`. What cannot be told is said.
fn named(draft: &mut Draft<'_>, base: &AbsPath, setting: &Setting, key: &'static str) -> Option<AbsPath> {
    let value = setting.value.as_deref().filter(|value| !value.is_empty())?;
    // Since git 2.50: a file that need not be there.
    let value = value.strip_prefix(b":(optional)").unwrap_or(value);
    let path = if let Some(rest) = value.strip_prefix(b"~") {
        let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let (name, rest) = rest.split_at(slash);
        let home = if name.is_empty() {
            draft.home.clone()
        } else {
            let user = draft.reader.user_named(name)?;
            user.and_then(|user| AbsPath::new(user.home.clone()).ok())
        };
        home.and_then(|home| lexical(&home, rest.strip_prefix(b"/").unwrap_or(rest)).ok())
    } else if value.starts_with(b"%(prefix)/") {
        // Wherever git is installed.
        None
    } else {
        lexical(base, value).ok()
    };
    if path.is_none() {
        draft.notes.push(Note::ConfiguredUnknown { key, value: value.into() });
    }
    path
}
