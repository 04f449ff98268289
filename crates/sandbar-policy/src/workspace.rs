//! What lies under a writable root and must not be written: the directories that tell agents what to do.
//!
//! `.sandbar`, `.codex`, `.agents` and `.claude` configure programs that run outside the sandbox, so writing
//! there is leaving it. An existing one becomes read-only, a missing one is reserved while the run lives. A
//! symbolic link of such a name in a writable directory could be replaced, and no mount can stand on it: the
//! plan is refused, unless a person names exactly that link with `--allow-write`. The same flag with the real
//! path of a protected directory opens it. `.git` has a module of its own.
//!
//! And which working directories are no workspace at all, although they may be one's own: the system's (hier(7)).

use sandbar_proto::{AbsPath, FileKind, PinnedPath, PlaceholderKind};

use crate::grants::{Draft, Grant, GrantKind};
use crate::paths::below;
use crate::reader::Found;
use crate::{CompileError, Origin};

/// Protected under every writable root, besides `.git`.
pub(crate) const PROTECTED: [&str; 4] = [".sandbar", ".codex", ".agents", ".claude"];

/// Protects the names under the writable directory `root`.
///
/// # Errors
/// [`CompileError::ProtectedSymlink`] and [`CompileError::Fact`].
pub(crate) fn protect(draft: &mut Draft<'_>, root: &PinnedPath) -> Result<(), CompileError> {
    if root.identity.kind != FileKind::Directory || is_protected(&root.path) {
        return Ok(());
    }
    for name in PROTECTED {
        protect_name(draft, root, name)?;
    }
    Ok(())
}

/// Whether `path` itself is a protected directory, or lies in a git directory.
pub(crate) fn is_protected(path: &AbsPath) -> bool {
    let is_named = PROTECTED.iter().any(|name| path.file_name() == Some(name.as_bytes()));
    is_named || path.components().any(|part| part == b".git")
}

/// Whether a name is protected under every writable root.
pub(crate) fn is_protected_name(name: &[u8]) -> bool {
    PROTECTED.iter().any(|protected| protected.as_bytes() == name)
}

/// Trees of the system, as hier(7) has them: what runs, and what it is told.
const SYSTEM_TREES: [&str; 10] =
    ["etc", "usr", "bin", "sbin", "boot", "sys", "lib", "lib32", "lib64", "libx32"];

/// Where people build inside them; below, not the directory itself.
const SOURCES: [&str; 2] = ["usr/src", "usr/local/src"];

/// Directories of the system that hold what may be anybody's: they themselves, and not what lies below.
const SYSTEM_DIRECTORIES: [&str; 8] =
    ["home", "opt", "var", "var/cache", "var/lib", "var/log", "var/mail", "var/spool"];

/// Whether `path`, a real one, belongs to the system: no work of a person is there, and everything else relies on it.
pub(crate) fn is_of_system(path: &AbsPath) -> bool {
    let root = AbsPath::root();
    let is_source =
        SOURCES.iter().map(|name| below(&root, name)).any(|at| path.starts_with(&at) && *path != at);
    let in_tree = SYSTEM_TREES.iter().any(|name| path.starts_with(&below(&root, name)));
    let is_directory = SYSTEM_DIRECTORIES.iter().any(|name| *path == below(&root, name));
    is_directory || in_tree && !is_source
}

fn protect_name(draft: &mut Draft<'_>, root: &PinnedPath, name: &'static str) -> Result<(), CompileError> {
    let path = below(&root.path, name);
    match draft.reader.lookup(&path) {
        Found::Unknown => Ok(()),
        Found::File(fact) if fact.pinned.identity.kind == FileKind::Symlink => refuse_link(draft, path),
        Found::File(fact) => {
            draft.protect(&fact.pinned, name);
            Ok(())
        }
        Found::Missing => {
            reserve(draft, root, name, path, PlaceholderKind::Directory);
            Ok(())
        }
        Found::Failed(errno) => Err(CompileError::Fact { path, errno }),
    }
}

/// Refuses a symbolic link of a protected name, unless a person gave it up.
///
/// # Errors
/// [`CompileError::ProtectedSymlink`].
pub(crate) fn refuse_link(draft: &Draft<'_>, path: AbsPath) -> Result<(), CompileError> {
    if draft.is_waived(&path) { Ok(()) } else { Err(CompileError::ProtectedSymlink { path }) }
}

/// Reserves the missing `path` in `parent`.
pub(crate) fn reserve(
    draft: &mut Draft<'_>,
    parent: &PinnedPath,
    origin: &'static str,
    path: AbsPath,
    what: PlaceholderKind,
) {
    let kind = GrantKind::Reserve { parent: parent.clone(), what };
    draft.grants.push(Grant { path, identity: None, kind, origin: Origin::Protected(origin) });
}

#[cfg(test)]
mod tests {
    use super::is_of_system;
    use crate::fake_host::{FakeHost, path, request};
    use crate::{Access, CompileError, Profile};

    #[test]
    fn directories_of_the_system_are_told_from_those_where_people_work() {
        let system = [
            "/etc",
            "/etc/nginx/sites",
            "/usr",
            "/usr/lib/python3",
            "/usr/local/bin",
            "/usr/src",
            "/bin",
            "/lib64",
            "/boot/grub",
            "/sys/kernel",
            "/var",
            "/var/lib",
            "/opt",
            "/home",
        ];
        let work = [
            "/usr/src/linux",
            "/usr/local/src/x/y",
            "/var/lib/jenkins/job",
            "/var/www",
            "/opt/app",
            "/home/other/x",
            "/srv",
            "/work",
            "/etcetera",
            "/mnt",
            "/root/x",
            "/tmp",
            "/run/user/1000/x",
        ];
        for at in system {
            assert!(is_of_system(&path(at)), "{at}");
        }
        for at in work {
            assert!(!is_of_system(&path(at)), "{at}");
        }
    }

    #[test]
    fn existing_names_are_read_only_and_missing_ones_are_reserved() {
        let host = FakeHost::with_home().dir("/home/u/proj/.claude");
        let compiled = host.compile(&request("/home/u/proj"));
        assert_eq!(host.access(&compiled, "/home/u/proj/.claude/settings.json"), Access::Read);
        assert_eq!(host.access(&compiled, "/home/u/proj/.codex"), Access::Read);
        assert_eq!(host.access(&compiled, "/home/u/proj/src"), Access::Write);
        assert_eq!(
            host.placeholders(&compiled),
            ["/home/u/proj/.agents", "/home/u/proj/.codex", "/home/u/proj/.sandbar"]
        );
    }

    #[test]
    fn a_link_of_a_protected_name_is_refused_until_a_person_gives_it_up() {
        let host =
            FakeHost::with_home().dir("/home/u/proj").dir("/etc/c").link("/home/u/proj/.claude", "/etc/c");
        let mut asked = request("/home/u/proj");
        let link = path("/home/u/proj/.claude");
        assert_eq!(
            host.try_compile(&asked).unwrap_err(),
            CompileError::ProtectedSymlink { path: link.clone() }
        );
        asked.allow_write = vec![link];
        assert!(host.try_compile(&asked).is_ok());
    }

    #[test]
    fn a_link_does_not_matter_where_nothing_is_writable() {
        let host = FakeHost::with_home().dir("/home/u/proj").link("/home/u/proj/.claude", "/etc");
        let mut asked = request("/home/u/proj");
        asked.profile = Profile::ReadOnly;
        assert!(host.try_compile(&asked).is_ok());
    }

    #[test]
    fn a_worktree_below_a_protected_name_is_writable_when_it_is_the_working_directory() {
        let host = FakeHost::with_home().dir("/home/u/proj/.claude/worktrees/w");
        let compiled = host.compile(&request("/home/u/proj/.claude/worktrees/w"));
        assert_eq!(host.access(&compiled, "/home/u/proj/.claude/worktrees/w/src"), Access::Write);
    }

    #[test]
    fn a_protected_directory_opens_by_its_exact_name() {
        let host = FakeHost::with_home().dir("/home/u/proj/.claude");
        let mut asked = request("/home/u/proj");
        asked.allow_write = vec![path("/home/u/proj/.claude")];
        let compiled = host.compile(&asked);
        assert_eq!(host.access(&compiled, "/home/u/proj/.claude/x"), Access::Write);
    }
}
