//! Git directories under and around a writable root: commits work, running programs of the host does not.
//!
//! Git runs what `hooks`, `config`, `config.worktree`, `remotes`, `branches` and `info/attributes` say, and
//! `commondir` decides where it looks for them; so these are read-only in every git directory that is opened, those
//! of submodules below `modules` included, and reserved where they are missing. `modules` takes nothing new, since the next `git
//! submodule update` would obey it. Directories of other linked worktrees are read-only as a whole. Objects, refs,
//! index and logs stay writable. The price, tried with git 2.47 and real binds: `git config`, `git remote add`, `git
//! submodule add` and `update`, and `git worktree remove` of an older worktree fail inside; `git push -u`, `checkout
//! -b NAME REMOTE/NAME` and `branch -D` do their work but complain that they cannot write the configuration.
//!
//! A missing `commondir` is reserved by a file that says `.`, which names the git directory itself. Tried with
//! git 2.47: status, commit, branch, log, stash, gc, fsck, bisect, submodule and linked worktrees go on as
//! before. Not harmless, and therefore left open with a note, where git then reads the configuration as that of
//! a linked worktree: `core.bare`, `core.worktree`, and the reftable format.
//!
//! A `.git` file opens a directory outside the workspace only if that points back. What it names inside is guarded in
//! any case, and so is what the caller's environment names (`GIT_DIR`). A `.git` directory in an ancestor of the
//! working directory is opened as well, but nothing else of that ancestor. A missing `.git` is not reserved, so that
//! `git init` works.
//!
//! Two more ways lead git to a configuration: submodules (`links`), since a `git status` of the superproject runs
//! git in each, and settings that name files (`configured`), which `environment` may hold as well. Each may be a chain
//! of symbolic links (`route`). Repositories in the directories of a root are guarded like its own; deeper ones are not looked for.

use sandbar_proto::{AbsPath, FileKind, PinnedPath, PlaceholderKind};

mod config;
mod configured;
mod environment;
mod links;
mod route;

pub use links::WatchedIndex;

use crate::compile::is_writable;
use crate::grants::{Draft, GrantKind};
use crate::paths::{below, entry, lexical};
use crate::reader::{Answer, Found, Names};
use crate::workspace::{refuse_link, reserve};
use crate::{CompileError, GitDoubt, GitMode, Note, Origin, workspace};

/// The git directory itself, where it is opened.
const OPENED: Origin = Origin::Default("git directory of the workspace");

/// How deep submodules of submodules are told apart; below, everything is read-only.
const MODULE_LEVELS: usize = 3;

/// What a git directory is, as far as the reserved `commondir` goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// It has a worktree beside it, or serves linked ones.
    Main,
    /// A submodule's, whose `core.worktree` repeats what its `.git` file says.
    Submodule,
}

/// Whether to look for the repository above the root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Only in the root.
    Root,
    /// In the root, else in the nearest ancestor that has one, below home and `/`.
    Ancestors,
}

/// Opens or protects the repository of the writable directory `root`.
///
/// # Errors
/// [`CompileError::ProtectedSymlink`] when `.git` in the root is a symbolic link, and [`CompileError::Fact`].
pub(crate) fn open(draft: &mut Draft<'_>, root: &PinnedPath, scope: Scope) -> Result<(), CompileError> {
    let dot = below(&root.path, ".git");
    match draft.reader.lookup(&dot) {
        // The commonest answer; asking on saves a round.
        Found::Unknown => {
            open_or_protect(draft, &PinnedPath { path: dot, identity: root.identity }, &root.path);
            Ok(())
        }
        Found::File(fact) => match fact.pinned.identity.kind {
            FileKind::Directory => {
                open_or_protect(draft, &fact.pinned, &root.path);
                Ok(())
            }
            FileKind::File => {
                draft.protect(&fact.pinned, ".git");
                follow_pointer(draft, &dot, &root.path);
                Ok(())
            }
            FileKind::Symlink => refuse_link(draft, dot),
            FileKind::Other => Err(CompileError::Fact { path: dot, errno: 0 }),
        },
        Found::Missing => {
            let is_bare = open_bare(draft, root);
            if scope == Scope::Ancestors && !is_bare {
                open_ancestor(draft, &root.path);
            }
            Ok(())
        }
        Found::Failed(errno) => Err(CompileError::Fact { path: dot, errno }),
    }
}

/// Most directories of a root that are asked for a repository.
const MOST_NESTED: usize = 512;

/// Opens or protects the repositories that lie directly in the directories of the writable directory `root`: people keep
/// several in one, and enter them. Deeper ones are not looked for, since that would look through everything at each start.
pub(crate) fn open_nested(draft: &mut Draft<'_>, root: &PinnedPath) {
    // One that can't be listed, or has more names than that, holds no handful of repositories.
    let Answer::Known(names) = draft.reader.list(&root.path) else { return };
    let directories = names.iter().filter(|(name, kind)| {
        *kind == FileKind::Directory
            && name.as_bytes() != b".git"
            && !workspace::is_protected_name(name.as_bytes())
    });
    for (name, _) in directories.take(MOST_NESTED) {
        let Some(worktree) = entry(&root.path, name.as_bytes()) else { continue };
        let dot = below(&worktree, ".git");
        let Found::File(fact) = draft.reader.lookup(&dot) else { continue };
        match fact.pinned.identity.kind {
            FileKind::Directory => guard_nested(draft, &fact.pinned, &worktree),
            // What it names is a repository that is guarded where it lies, or lies outside and is not writable.
            FileKind::File => draft.protect(&fact.pinned, ".git"),
            FileKind::Symlink => draft.notes.push(Note::SubmoduleOpen { path: worktree }),
            FileKind::Other => {}
        }
    }
}

/// Guards the git directory of a repository within a root. All its worktrees may lie in the root, so commits work in each.
fn guard_nested(draft: &mut Draft<'_>, git: &PinnedPath, worktree: &AbsPath) {
    if draft.request.git == GitMode::Protect || !links_in(draft, git).is_empty() {
        return open_or_protect(draft, git, worktree);
    }
    guard(draft, git, Layout::Main);
    guard_modules(draft, git, 1);
    let worktrees = below(&git.path, "worktrees");
    if let Names::Known(names) = draft.reader.list(&worktrees) {
        for path in names.iter().filter_map(|(name, _)| entry(&worktrees, name.as_bytes())) {
            if let Found::File(fact) = draft.reader.lookup(&path) {
                guard_worktree_files(draft, &fact.pinned);
                guard_one(
                    draft,
                    &fact.pinned,
                    Guard { name: "commondir", origin: ".git/commondir", when_missing: None },
                );
            }
        }
    }
    follow(draft, &git.path, &git.path, worktree);
}

/// Opens or protects the git directory `git` of the worktree `worktree`.
fn open_or_protect(draft: &mut Draft<'_>, git: &PinnedPath, worktree: &AbsPath) {
    match draft.request.git {
        GitMode::Commit => open_directory(draft, git, Layout::Main, None),
        GitMode::Protect => draft.grant(git, GrantKind::Read, Origin::Protected(".git")),
    }
    follow(draft, &git.path, &git.path, worktree);
}

/// Protects what the git directory leads git to beyond itself: `private` is the directory with index and HEAD of
/// the worktree, `common` the one with its configuration.
fn follow(draft: &mut Draft<'_>, private: &AbsPath, common: &AbsPath, worktree: &AbsPath) {
    configured::protect_for_user(draft, worktree);
    configured::protect(draft, &below(common, "config"), worktree);
    configured::protect(draft, &below(private, "config.worktree"), worktree);
    links::protect(draft, private, worktree);
}

/// Guards a root that is a bare repository itself. Returns whether it is one.
fn open_bare(draft: &mut Draft<'_>, root: &PinnedPath) -> bool {
    let has =
        |draft: &Draft<'_>, name| matches!(draft.reader.lookup(&below(&root.path, name)), Found::File(_));
    let (head, objects) = (has(draft, "HEAD"), has(draft, "objects"));
    if head && objects {
        guard(draft, root, Layout::Main);
        guard_modules(draft, root, 1);
        guard_worktrees(draft, root, None);
        configured::protect(draft, &below(&root.path, "config"), &root.path);
    }
    head && objects
}

fn open_ancestor(draft: &mut Draft<'_>, root: &AbsPath) {
    let mut at = root.parent();
    while let Some(here) = at {
        if here == AbsPath::root() || draft.home.as_ref().is_some_and(|home| home.starts_with(&here)) {
            return;
        }
        let dot = below(&here, ".git");
        if let Found::File(fact) = draft.reader.lookup(&dot) {
            match fact.pinned.identity.kind {
                FileKind::Directory => open_or_protect(draft, &fact.pinned, &here),
                FileKind::File => follow_pointer(draft, &dot, &here),
                // Nothing is opened, so nothing needs protection: the ancestor is not writable.
                FileKind::Symlink | FileKind::Other => {}
            }
            return;
        }
        at = here.parent();
    }
}

/// Makes a git directory writable except for what makes git run programs.
fn open_directory(draft: &mut Draft<'_>, git: &PinnedPath, layout: Layout, worktree: Option<&AbsPath>) {
    // A link that has to stay could be replaced, and no mount can stand on it.
    let links = links_in(draft, git);
    if let Some(link) = links.first() {
        draft.grant(git, GrantKind::Read, Origin::Protected(".git"));
        draft
            .notes
            .push(Note::GitReadOnly { git: git.path.clone(), because: GitDoubt::Symlink(link.clone()) });
        return protect_links(draft, &links);
    }
    draft.grant(git, GrantKind::Write, OPENED);
    guard(draft, git, layout);
    guard_modules(draft, git, 1);
    guard_worktrees(draft, git, worktree);
}

/// The links where none must be.
fn links_in(draft: &Draft<'_>, git: &PinnedPath) -> Vec<AbsPath> {
    const MUST_NOT_BE_LINKS: [&str; 11] = [
        "hooks",
        "config",
        "config.worktree",
        "commondir",
        "gitdir",
        "info",
        "info/attributes",
        "modules",
        "worktrees",
        "remotes",
        "branches",
    ];
    // Asks for all of them, although one is enough for the answer.
    let paths = MUST_NOT_BE_LINKS.iter().map(|name| below(&git.path, name));
    paths.filter(|path| is_link(draft, path)).collect()
}

/// Protects what the links of a git directory lead to, which is read-only itself by now: git follows them.
fn protect_links(draft: &mut Draft<'_>, links: &[AbsPath]) {
    for link in links {
        route::protect(draft, link, "link in .git", empty_file_or(link));
        if link.file_name() == Some(b"hooks") {
            configured::protect_links(draft, link);
        }
    }
}

/// Closes a git directory that has links where none must be. Returns whether it has.
fn close_linked(draft: &mut Draft<'_>, git: &PinnedPath, origin: &'static str) -> bool {
    let links = links_in(draft, git);
    if !links.is_empty() {
        draft.protect(git, origin);
        protect_links(draft, &links);
    }
    !links.is_empty()
}

fn empty_file_or(link: &AbsPath) -> PlaceholderKind {
    match link.file_name() {
        Some(b"hooks" | b"info" | b"modules" | b"worktrees" | b"remotes" | b"branches") => {
            PlaceholderKind::Directory
        }
        _ => PlaceholderKind::File { content: "".into() },
    }
}

fn is_link(draft: &Draft<'_>, path: &AbsPath) -> bool {
    match draft.reader.lookup(path) {
        Found::File(fact) => fact.pinned.identity.kind == FileKind::Symlink,
        Found::Unknown | Found::Missing | Found::Failed(_) => false,
    }
}

/// What guards one name in a git directory.
struct Guard {
    name: &'static str,
    origin: &'static str,
    when_missing: Option<PlaceholderKind>,
}

fn empty_file() -> Option<PlaceholderKind> {
    Some(PlaceholderKind::File { content: "".into() })
}

fn guard(draft: &mut Draft<'_>, git: &PinnedPath, layout: Layout) {
    let directory = || Some(PlaceholderKind::Directory);
    guard_one(draft, git, Guard { name: "hooks", origin: ".git/hooks", when_missing: directory() });
    configured::protect_links(draft, &below(&git.path, "hooks"));
    // Repositories to push to and fetch from, as git wrote them down before it had sections for that.
    guard_one(draft, git, Guard { name: "remotes", origin: ".git/remotes", when_missing: directory() });
    guard_one(draft, git, Guard { name: "branches", origin: ".git/branches", when_missing: directory() });
    guard_one(draft, git, Guard { name: "config", origin: ".git/config", when_missing: empty_file() });
    guard_worktree_files(draft, git);
    let commondir = guard_commondir(draft, git, layout);
    guard_one(draft, git, Guard { name: "commondir", origin: ".git/commondir", when_missing: commondir });
    match draft.reader.lookup(&below(&git.path, "info")) {
        Found::File(fact) => {
            let attributes =
                Guard { name: "attributes", origin: ".git/info/attributes", when_missing: empty_file() };
            guard_one(draft, &fact.pinned, attributes);
        }
        Found::Unknown => {
            draft.reader.lookup(&below(&git.path, "info/attributes"));
        }
        Found::Missing | Found::Failed(_) => {
            guard_one(draft, git, Guard { name: "info", origin: ".git/info", when_missing: directory() });
        }
    }
}

/// Guards what the directory of a linked worktree has too.
fn guard_worktree_files(draft: &mut Draft<'_>, git: &PinnedPath) {
    let config =
        Guard { name: "config.worktree", origin: ".git/config.worktree", when_missing: empty_file() };
    guard_one(draft, git, config);
    guard_one(draft, git, Guard { name: "gitdir", origin: ".git/gitdir", when_missing: None });
}

fn guard_one(draft: &mut Draft<'_>, parent: &PinnedPath, guard: Guard) {
    let path = below(&parent.path, guard.name);
    match draft.reader.lookup(&path) {
        Found::Unknown => {}
        Found::File(fact) => draft.protect(&fact.pinned, guard.origin),
        Found::Missing | Found::Failed(_) => {
            if let Some(what) = guard.when_missing {
                reserve(draft, parent, guard.origin, path, what);
            }
        }
    }
}

/// What reserves `commondir`, or nothing where git would take it amiss.
fn guard_commondir(draft: &mut Draft<'_>, git: &PinnedPath, layout: Layout) -> Option<PlaceholderKind> {
    let bears = match draft.reader.content(&below(&git.path, "config")) {
        Answer::Known(config) => bears_commondir(config, layout),
        Answer::Missing | Answer::Unknown => true,
        // Nobody knows what git would take amiss.
        Answer::TooLong | Answer::Unreadable(_) => false,
    };
    if bears {
        return Some(PlaceholderKind::File { content: ".\n".into() });
    }
    draft.notes.push(Note::CommondirOpen { git: git.path.clone() });
    None
}

fn bears_commondir(config: &[u8], layout: Layout) -> bool {
    !config::settings(config).iter().any(|setting| {
        setting.is("extensions", "refstorage")
            || (setting.is("core", "bare") && setting.is_true())
            || (setting.is("core", "worktree") && layout == Layout::Main)
    })
}

/// What says why something below `modules` is read-only.
const MODULES: &str = ".git/modules";

/// Guards `modules` of the git directory `git`. Whatever stands there under a submodule's name is what `git submodule
/// update` takes for its repository, so nothing may be added: the directory itself is read-only, reserved where it is
/// missing, and only the repositories in it are opened, each guarded like any other.
fn guard_modules(draft: &mut Draft<'_>, git: &PinnedPath, level: usize) {
    // What is not writable is not opened: a `.git` file may name any directory.
    if !is_writable(&draft.grants, &git.path) {
        return;
    }
    let path = below(&git.path, "modules");
    match draft.reader.lookup(&path) {
        Found::Unknown => {
            // Needed next; asking now saves a round.
            draft.reader.list(&path);
        }
        Found::File(fact) if fact.pinned.identity.kind == FileKind::Directory => {
            guard_folder(draft, &fact.pinned, level);
        }
        Found::File(fact) => draft.protect(&fact.pinned, MODULES),
        Found::Missing | Found::Failed(_) => reserve(draft, git, MODULES, path, PlaceholderKind::Directory),
    }
}

/// Guards `modules` itself, or a folder in it of submodules whose names have slashes.
fn guard_folder(draft: &mut Draft<'_>, folder: &PinnedPath, level: usize) {
    draft.protect(folder, MODULES);
    if level > MODULE_LEVELS {
        return;
    }
    // What cannot be listed stays read-only as a whole.
    let Names::Known(names) = draft.reader.list(&folder.path) else { return };
    for (name, kind) in names {
        let Some(path) = entry(&folder.path, name.as_bytes()) else { continue };
        match kind {
            FileKind::Directory => guard_module(draft, &path, level),
            FileKind::Symlink => route::protect(draft, &path, MODULES, PlaceholderKind::Directory),
            FileKind::File | FileKind::Other => {}
        }
    }
}

/// Guards one entry of `modules`: a submodule's git directory, which is opened, or a folder of such.
fn guard_module(draft: &mut Draft<'_>, path: &AbsPath, level: usize) {
    let (found, names) = (draft.reader.lookup(path), draft.reader.list(path));
    if names == Names::Unknown {
        // Needed next; asking now saves a round for each level.
        draft.reader.lookup(&below(path, "modules"));
        draft.reader.list(&below(path, "modules"));
    }
    let (Found::File(fact), Names::Known(names)) = (found, names) else { return };
    if !names.iter().any(|(name, _)| name.as_bytes() == b"HEAD") {
        return guard_folder(draft, &fact.pinned, level + 1);
    }
    if close_linked(draft, &fact.pinned, MODULES) {
        return;
    }
    draft.grant(&fact.pinned, GrantKind::Write, OPENED);
    guard(draft, &fact.pinned, Layout::Submodule);
    guard_modules(draft, &fact.pinned, level + 1);
}

/// Makes a whole directory read-only, or what a link leads to.
fn seal(draft: &mut Draft<'_>, path: &AbsPath, origin: &'static str) {
    let Found::File(fact) = draft.reader.lookup(path) else { return };
    if fact.pinned.identity.kind == FileKind::Symlink {
        route::protect(draft, path, origin, PlaceholderKind::Directory);
    } else {
        draft.protect(&fact.pinned, origin);
    }
}

/// Makes the directories of linked worktrees read-only, except for `own`.
fn guard_worktrees(draft: &mut Draft<'_>, git: &PinnedPath, own: Option<&AbsPath>) {
    let worktrees = below(&git.path, "worktrees");
    match draft.reader.list(&worktrees) {
        Names::Unknown | Names::Missing => {}
        Names::TooLong | Names::Unreadable(_) => seal(draft, &worktrees, ".git/worktrees"),
        Names::Known(names) => {
            for path in names.iter().filter_map(|(name, _)| entry(&worktrees, name.as_bytes())) {
                if own != Some(&path) {
                    seal(draft, &path, ".git/worktrees");
                }
            }
        }
    }
}

/// What belongs to the main worktree alone, in a git directory that serves linked ones: its head and index, and
/// what an interrupted rebase, cherry-pick or merge goes on with, which may be commands to run.
const OF_MAIN_WORKTREE: [&str; 11] = [
    "HEAD",
    "index",
    "rebase-merge",
    "rebase-apply",
    "sequencer",
    "MERGE_HEAD",
    "MERGE_MSG",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "BISECT_START",
    "BISECT_RUN",
];

/// Makes what belongs to the main worktree read-only for a linked one. What is missing stays open: an empty
/// placeholder would be an operation in progress to git.
fn seal_main_worktree(draft: &mut Draft<'_>, common: &PinnedPath) {
    for name in OF_MAIN_WORKTREE {
        seal(draft, &below(&common.path, name), ".git of the main worktree");
    }
}

/// Follows the `.git` file `dot` of the directory `worktree`.
fn follow_pointer(draft: &mut Draft<'_>, dot: &AbsPath, worktree: &AbsPath) {
    let doubt = Note::GitReadOnly { git: dot.clone(), because: GitDoubt::Dangling };
    let named = match draft.reader.content(dot) {
        Answer::Unknown => return,
        Answer::Known(content) => pointed(content, worktree),
        Answer::Missing | Answer::TooLong | Answer::Unreadable(_) => None,
    };
    let Some(target) = named else { return draft.notes.push(doubt) };
    let Some(route) = route::Route::of(draft, &target) else { return };
    route::tell_links(draft, &route, &target, "gitdir");
    let Some(git) = route.found().filter(|git| git.identity.kind == FileKind::Directory) else {
        route::protect(draft, &target, "gitdir", PlaceholderKind::Directory);
        return draft.notes.push(doubt);
    };
    if let Err(because) = open_pointed(draft, dot, worktree, git) {
        // What is writable anyway needs no proof to be guarded.
        if is_writable(&draft.grants, &git.path) {
            guard_unbelieved(draft, git, worktree);
        } else {
            draft.notes.push(Note::GitReadOnly { git: dot.clone(), because });
        }
    }
}

/// The directory that the content of a `.git` file in `worktree` names.
fn pointed(content: &[u8], worktree: &AbsPath) -> Option<AbsPath> {
    let written = content.strip_prefix(b"gitdir:").map(<[u8]>::trim_ascii)?;
    lexical(worktree, written).ok()
}

/// Guards the directory `git`, which is writable as a part of the workspace, and which git takes for the git
/// directory of `worktree`.
fn guard_unbelieved(draft: &mut Draft<'_>, git: &PinnedPath, worktree: &AbsPath) {
    if draft.request.git == GitMode::Protect {
        draft.protect(git, ".git");
    } else if !close_linked(draft, git, ".git") {
        guard(draft, git, Layout::Submodule);
        guard_modules(draft, git, 1);
        guard_worktrees(draft, git, None);
    }
    let common = common_directory(draft, git);
    if let Some(common) = &common {
        guard_common(draft, common, worktree);
    }
    follow(draft, &git.path, common.as_ref().map_or(&git.path, |common| &common.path), worktree);
}

/// The directory that `commondir` of the git directory `git` names, where that is another one.
fn common_directory(draft: &Draft<'_>, git: &PinnedPath) -> Option<PinnedPath> {
    let Answer::Known(written) = draft.reader.content(&below(&git.path, "commondir")) else { return None };
    let path = lexical(&git.path, written.trim_ascii()).ok()?;
    match draft.reader.resolve(&path) {
        Found::File(fact) if fact.pinned.path != git.path => Some(fact.pinned.clone()),
        Found::Unknown | Found::File(_) | Found::Missing | Found::Failed(_) => None,
    }
}

/// Guards what another git directory has its configuration and hooks from, if it is writable.
fn guard_common(draft: &mut Draft<'_>, common: &PinnedPath, worktree: &AbsPath) {
    if !is_writable(&draft.grants, &common.path) {
        return;
    }
    if draft.request.git == GitMode::Protect {
        draft.protect(common, ".git");
    } else if !close_linked(draft, common, ".git") {
        guard(draft, common, Layout::Submodule);
    }
    configured::protect(draft, &below(&common.path, "config"), worktree);
}

/// Guards what the caller's environment makes git take for its directory, wherever the working directory is.
pub(crate) fn open_named(draft: &mut Draft<'_>, cwd: &AbsPath) {
    let worktree = environment::path(draft, "GIT_WORK_TREE").unwrap_or_else(|| cwd.clone());
    if let Some(path) = environment::path(draft, "GIT_DIR") {
        match draft.reader.resolve(&path) {
            Found::File(fact) => match fact.pinned.identity.kind {
                FileKind::Directory => guard_named(draft, &fact.pinned, &worktree),
                FileKind::File => {
                    draft.protect(&fact.pinned, "GIT_DIR");
                    follow_pointer(draft, &fact.pinned.path, &worktree);
                }
                FileKind::Symlink | FileKind::Other => {}
            },
            // May be made, like a missing `.git`.
            Found::Unknown | Found::Missing | Found::Failed(_) => {}
        }
    }
    if let Some(path) = environment::path(draft, "GIT_COMMON_DIR")
        && let Found::File(fact) = draft.reader.resolve(&path)
    {
        guard_common(draft, &fact.pinned, &worktree);
    }
}

fn guard_named(draft: &mut Draft<'_>, git: &PinnedPath, worktree: &AbsPath) {
    if is_writable(&draft.grants, &git.path) {
        guard_unbelieved(draft, git, worktree);
    } else {
        follow(draft, &git.path, &git.path, worktree);
    }
}

fn open_pointed(
    draft: &mut Draft<'_>,
    dot: &AbsPath,
    worktree: &AbsPath,
    git: &PinnedPath,
) -> Result<(), GitDoubt> {
    if matches!(draft.reader.lookup(&below(&git.path, "HEAD")), Found::Missing) {
        return Err(GitDoubt::Dangling);
    }
    match draft.reader.lookup(&below(&git.path, "commondir")) {
        Found::Unknown => {
            // Either kind of pointer needs some of these; asking for all of them saves a round.
            draft.reader.content(&below(&git.path, "commondir"));
            draft.reader.content(&below(&git.path, "gitdir"));
            Ok(())
        }
        Found::File(_) => open_linked_worktree(draft, dot, worktree, git),
        Found::Missing | Found::Failed(_) => open_submodule(draft, worktree, git),
    }
}

fn open_linked_worktree(
    draft: &mut Draft<'_>,
    dot: &AbsPath,
    worktree: &AbsPath,
    git: &PinnedPath,
) -> Result<(), GitDoubt> {
    let [back, common] = ["gitdir", "commondir"].map(|name| draft.reader.content(&below(&git.path, name)));
    if back == Answer::Unknown || common == Answer::Unknown {
        return Ok(());
    }
    let pointer = |content| match content {
        Answer::Known(written) => lexical(&git.path, <[u8]>::trim_ascii(written)).ok(),
        Answer::Unknown | Answer::Missing | Answer::TooLong | Answer::Unreadable(_) => None,
    };
    let (Some(back), Some(common)) = (pointer(back), pointer(common)) else {
        return Err(GitDoubt::NotMutual);
    };
    let (back, common) = (draft.reader.resolve(&back), draft.reader.resolve(&common));
    let (Found::File(back), Found::File(common)) = (&back, &common) else {
        let unknown = [back, common].contains(&Found::Unknown);
        return if unknown { Ok(()) } else { Err(GitDoubt::NotMutual) };
    };
    let is_listed = git.path.parent() == Some(below(&common.pinned.path, "worktrees"));
    let points_back = back.pinned.path == *dot && is_listed;
    if !points_back || common.pinned.identity.kind != FileKind::Directory {
        return Err(GitDoubt::NotMutual);
    }
    match draft.request.git {
        GitMode::Commit => open_worktree_directory(draft, git, &common.pinned),
        GitMode::Protect => draft.grant(&common.pinned, GrantKind::Read, Origin::Protected(".git")),
    }
    follow(draft, &git.path, &common.pinned.path, worktree);
    Ok(())
}

fn open_worktree_directory(draft: &mut Draft<'_>, git: &PinnedPath, common: &PinnedPath) {
    let links = links_in(draft, git);
    if let Some(link) = links.first() {
        let because = GitDoubt::Symlink(link.clone());
        draft.notes.push(Note::GitReadOnly { git: git.path.clone(), because });
        open_directory(draft, common, Layout::Main, None);
        return protect_links(draft, &links);
    }
    open_directory(draft, common, Layout::Main, Some(&git.path));
    seal_main_worktree(draft, common);
    guard_worktree_files(draft, git);
    guard_one(draft, git, Guard { name: "commondir", origin: ".git/commondir", when_missing: None });
    guard_modules(draft, git, 1);
}

/// Opens a submodule's git directory, if its own configuration names this very worktree.
fn open_submodule(draft: &mut Draft<'_>, worktree: &AbsPath, git: &PinnedPath) -> Result<(), GitDoubt> {
    if !git.path.components().any(|part| part == b"modules") {
        return Err(GitDoubt::NotMutual);
    }
    let config_path = below(&git.path, "config");
    if matches!(draft.reader.lookup(&config_path), Found::Unknown) {
        draft.reader.content(&config_path);
        return Ok(());
    }
    let config = match draft.reader.content(&config_path) {
        Answer::Unknown => return Ok(()),
        Answer::Known(config) => config,
        Answer::Missing | Answer::TooLong | Answer::Unreadable(_) => return Err(GitDoubt::NotMutual),
    };
    let named = core_worktree(config).and_then(|written| lexical(&git.path, &written).ok());
    match named.map(|path| draft.reader.resolve(&path)) {
        Some(Found::Unknown) => return Ok(()),
        Some(Found::File(fact)) if fact.pinned.path == *worktree => {}
        Some(Found::File(_) | Found::Missing | Found::Failed(_)) | None => return Err(GitDoubt::NotMutual),
    }
    match draft.request.git {
        GitMode::Commit => open_directory(draft, git, Layout::Submodule, None),
        GitMode::Protect => draft.grant(git, GrantKind::Read, Origin::Protected(".git")),
    }
    follow(draft, &git.path, &git.path, worktree);
    Ok(())
}

/// The value of `core.worktree`.
fn core_worktree(config: &[u8]) -> Option<Vec<u8>> {
    let settings = config::settings(config).into_iter().rev();
    settings.filter(|setting| setting.is("core", "worktree")).find_map(|setting| setting.value)
}

#[cfg(test)]
mod tests;
