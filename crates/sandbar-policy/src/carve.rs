//! Restrictions that a request puts on places which would otherwise have more.
//!
//! They only take away: a restriction ranks below whatever anybody else decided about the same path, so it reopens
//! nothing. What can't be restricted as asked is an error.

use sandbar_proto::{AbsPath, FileKind, PlaceholderKind};

use crate::grants::{Draft, Grant, GrantKind, Nearest};
use crate::reader::Found;
use crate::request::{CarveOut, Left};
use crate::{CompileError, Origin, Reads, lines, managed};

const ORIGIN: Origin = Origin::profile(managed::NAME);

/// Takes away what the request wants less of.
///
/// # Errors
/// [`CompileError::Fact`], [`CompileError::ProtectedSymlink`], [`CompileError::HiddenTooBroad`],
/// [`CompileError::CannotReserve`].
pub(crate) fn out(draft: &mut Draft<'_>) -> Result<(), CompileError> {
    let request = draft.request;
    let mut nearest = Nearest::default();
    for carve_out in &request.carve_outs {
        nearest.catch_up(&draft.grants);
        one(draft, &nearest, carve_out)?;
    }
    Ok(())
}

fn one(
    draft: &mut Draft<'_>,
    nearest: &Nearest,
    CarveOut { path, left, reserve }: &CarveOut,
) -> Result<(), CompileError> {
    refuse_link(draft, nearest, path)?;
    match draft.reader.resolve(path) {
        Found::Unknown => Ok(()),
        Found::File(fact) => {
            let target = &fact.pinned;
            match left {
                Left::Nothing if draft.is_too_broad_to_hide(&target.path) => {
                    return Err(CompileError::HiddenTooBroad { path: path.clone() });
                }
                Left::Nothing => draft.grant(target, GrantKind::Hide { readable_empty: false }, ORIGIN),
                Left::Read if nearest.is_writable(&target.path) => {
                    draft.grant(target, GrantKind::Read, ORIGIN);
                }
                Left::Read
                    if draft.request.reads != Reads::Everything && !nearest.is_hidden(&target.path) =>
                {
                    draft.grant(target, GrantKind::Read, ORIGIN);
                    lines::link(draft, path, fact, &ORIGIN);
                }
                Left::Read => {}
            }
            Ok(())
        }
        Found::Missing if *reserve => reserve_missing(draft, nearest, path),
        Found::Missing => Ok(()),
        Found::Failed(errno) => Err(CompileError::Fact { path: path.clone(), errno }),
    }
}

/// Refuses a symbolic link that could be replaced: what is restricted then is no longer what the path leads to.
fn refuse_link(draft: &Draft<'_>, nearest: &Nearest, path: &AbsPath) -> Result<(), CompileError> {
    let Some((parent, name)) = path.parent().zip(path.file_name()) else { return Ok(()) };
    let Found::File(parent) = draft.reader.resolve(&parent) else { return Ok(()) };
    let Ok(real) = parent.pinned.path.join(name) else { return Ok(()) };
    match draft.reader.lookup(&real) {
        Found::File(fact) if fact.pinned.identity.kind == FileKind::Symlink && nearest.is_writable(&real) => {
            Err(CompileError::ProtectedSymlink { path: path.clone() })
        }
        Found::Unknown | Found::File(_) | Found::Missing | Found::Failed(_) => Ok(()),
    }
}

fn reserve_missing(draft: &mut Draft<'_>, nearest: &Nearest, path: &AbsPath) -> Result<(), CompileError> {
    let Some((above, name)) = path.parent().zip(path.file_name()) else { return Ok(()) };
    match draft.reader.resolve(&above) {
        Found::File(parent) if nearest.is_writable(&parent.pinned.path) => {
            let Ok(real) = parent.pinned.path.join(name) else { return Ok(()) };
            let kind = GrantKind::Reserve { parent: parent.pinned.clone(), what: PlaceholderKind::Directory };
            draft.grants.push(Grant { path: real, identity: None, kind, origin: ORIGIN });
            Ok(())
        }
        // A directory above it would have to be made first, and that one is not reserved.
        Found::Missing if draft.is_in_writable_root(path) => {
            Err(CompileError::CannotReserve { path: path.clone() })
        }
        Found::Unknown | Found::File(_) | Found::Missing => Ok(()),
        Found::Failed(errno) => Err(CompileError::Fact { path: path.clone(), errno }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::{FakeHost, path, request};
    use crate::{Access, RunRequest};

    fn carved(at: &str, left: Left, reserve: bool) -> RunRequest {
        let mut asked = request("/home/u/proj");
        asked.carve_outs = vec![CarveOut { path: path(at), left, reserve }];
        asked
    }

    #[test]
    fn a_place_in_a_writable_root_can_be_left_readable_or_hidden() {
        let host = FakeHost::with_home().dir("/home/u/proj/.aws").dir("/home/u/proj/keys");
        let compiled = host.compile(&carved("/home/u/proj/.aws", Left::Read, false));
        assert_eq!(host.access(&compiled, "/home/u/proj/.aws/x"), Access::Read);
        assert_eq!(host.access(&compiled, "/home/u/proj/src"), Access::Write);
        let compiled = host.compile(&carved("/home/u/proj/keys", Left::Nothing, false));
        assert_eq!(host.access(&compiled, "/home/u/proj/keys/x"), Access::None);
    }

    #[test]
    fn nothing_is_reopened() {
        let host = FakeHost::with_home().dir("/home/u/proj").dir("/home/u/.ssh");
        let compiled = host.compile(&carved("/home/u/.ssh", Left::Read, false));
        assert_eq!(host.access(&compiled, "/home/u/.ssh/id"), Access::None);
    }

    #[test]
    fn a_missing_place_counts_only_where_it_is_to_stay_missing() {
        let host = FakeHost::with_home().dir("/home/u/proj");
        let names =
            |reserve| host.placeholders(&host.compile(&carved("/home/u/proj/.aws", Left::Read, reserve)));
        assert!(!names(false).contains(&"/home/u/proj/.aws".to_owned()));
        assert!(names(true).contains(&"/home/u/proj/.aws".to_owned()));
        let deep = carved("/home/u/proj/a/b", Left::Nothing, true);
        assert_eq!(
            host.try_compile(&deep).unwrap_err(),
            CompileError::CannotReserve { path: path("/home/u/proj/a/b") }
        );
    }

    #[test]
    fn a_link_that_could_be_replaced_is_refused() {
        let host = FakeHost::with_home().dir("/home/u/proj").dir("/etc/c").link("/home/u/proj/c", "/etc/c");
        assert_eq!(
            host.try_compile(&carved("/home/u/proj/c", Left::Nothing, false)).unwrap_err(),
            CompileError::ProtectedSymlink { path: path("/home/u/proj/c") }
        );
    }

    #[test]
    fn hiding_everything_is_refused() {
        let host = FakeHost::with_home().dir("/home/u/proj");
        for at in ["/", "/home"] {
            let refused = host.try_compile(&carved(at, Left::Nothing, false)).unwrap_err();
            assert_eq!(refused, CompileError::HiddenTooBroad { path: path(at) });
        }
    }
}
