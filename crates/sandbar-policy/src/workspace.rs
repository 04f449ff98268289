//! What lies under a writable root and must not be written: the directories that tell agents what to do.
//!
//! `.sandbar`, `.codex`, `.agents` and `.claude` configure programs that run outside the sandbox, so writing
//! there is leaving it. An existing one becomes read-only, a missing one is reserved while the run lives. A
//! symbolic link of such a name in a writable directory could be replaced, and no mount can stand on it: the
//! plan is refused, unless a person names exactly that link with `--allow-write`. The same flag with the real
//! path of a protected directory opens it. `.git` has a module of its own.

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

fn protect_name(draft: &mut Draft<'_>, root: &PinnedPath, name: &'static str) -> Result<(), CompileError> {
    let path = below(&root.path, name);
    match draft.reader.lookup(&path) {
        Found::Unknown => Ok(()),
        Found::File(fact) if fact.pinned.identity.kind == FileKind::Symlink => refuse_link(draft, path),
        Found::File(fact) => {
            draft.grant(&fact.pinned, GrantKind::Read, Origin::Protected(name));
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
    use crate::fake_host::{FakeHost, path, request};
    use crate::{Access, CompileError, Profile};

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
