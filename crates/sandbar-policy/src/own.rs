//! Sandbar's own files: records, sockets, configuration, caches. No run sees them and no flag reopens them.
//!
//! Those of this run are hidden, and so are those that the same user's other runs have: what a session recorded
//! without `SANDBAR_HOME` or with another `HOME` is no less confidential. Where yet another `SANDBAR_HOME` lies
//! nobody can know.

use sandbar_proto::{AbsPath, PinnedPath};

use crate::grants::{Draft, GrantKind};
use crate::paths::below;
use crate::reader::Found;
use crate::{CompileError, Note, Origin};

/// Where state, configuration and cache lie below a home, as the XDG base directory specification has it.
const DEFAULTS: [&str; 3] = [".local/state/sandbar", ".config/sandbar", ".cache/sandbar"];

/// Hides this run's files, and whatever exists of those that the user's other runs have below `homes`.
pub(crate) fn hide(draft: &mut Draft<'_>, homes: &[AbsPath]) {
    for path in draft.request.own.all() {
        match draft.reader.resolve(path) {
            Found::File(fact) => cover(draft, &fact.pinned),
            // It may come into being while the run lives, so nothing above it becomes writable either.
            Found::Unknown | Found::Missing | Found::Failed(_) => {
                let rest = draft.request.home.as_ref().and_then(|home| remainder(path, home));
                let moved = draft.home.as_ref().zip(rest).and_then(|(home, rest)| home.join(rest).ok());
                draft.own.push(moved.unwrap_or_else(|| path.clone()));
            }
        }
    }
    for path in &draft.request.own.elsewhere {
        hide_existing(draft, path);
    }
    hide_below(draft, homes);
}

/// Hides what exists in the default places below each of `homes`.
pub(crate) fn hide_below(draft: &mut Draft<'_>, homes: &[AbsPath]) {
    for home in homes {
        for place in DEFAULTS {
            hide_existing(draft, &below(home, place));
        }
    }
}

fn hide_existing(draft: &mut Draft<'_>, path: &AbsPath) {
    let Found::File(fact) = draft.reader.resolve(path) else { return };
    let target = &fact.pinned;
    if draft.is_too_broad_to_hide(&target.path) {
        draft.notes.push(Note::SecretNotHidden { secret: path.clone(), target: target.path.clone() });
    } else {
        cover(draft, target);
    }
}

fn cover(draft: &mut Draft<'_>, target: &PinnedPath) {
    if !draft.own.contains(&target.path) {
        draft.own.push(target.path.clone());
        draft.grant(target, GrantKind::Hide { readable_empty: false }, Origin::OwnFiles);
    }
}

/// What follows `above` in `path`.
fn remainder<'p>(path: &'p AbsPath, above: &AbsPath) -> Option<&'p [u8]> {
    path.starts_with(above).then(|| &path.as_bytes()[above.as_bytes().len()..])
}

/// Refuses to open anything in them.
///
/// # Errors
/// [`CompileError::OwnFiles`].
pub(crate) fn refuse(draft: &Draft<'_>, path: &AbsPath) -> Result<(), CompileError> {
    match draft.own.iter().find(|own| path.starts_with(own)) {
        Some(own) => Err(CompileError::OwnFiles { path: path.clone(), own: own.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::fake_host::{FakeHost, path, request};
    use crate::{Access, CompileError, Note, Profile};

    const PROJECT: &str = "/home/u/proj";

    /// A host on which this run's own files are not in the default places.
    fn moved() -> (FakeHost, crate::RunRequest) {
        let host = FakeHost::with_home()
            .dir(PROJECT)
            .file("/home/u/.local/state/sandbar/sessions/old.jsonl")
            .dir("/srv/s/state");
        let mut asked = request(PROJECT);
        for (own, name) in [
            (&mut asked.own.runtime, "run"),
            (&mut asked.own.state, "state"),
            (&mut asked.own.config, "config"),
            (&mut asked.own.cache, "cache"),
        ] {
            *own = path("/srv/s").join(name).unwrap();
        }
        asked.own.home = Some(path("/srv/s"));
        (host, asked)
    }

    #[test]
    fn the_default_places_are_hidden_while_this_run_has_others() {
        let (host, mut asked) = moved();
        for profile in [Profile::Workspace, Profile::ReadOnly] {
            asked.profile = profile;
            let compiled = host.compile(&asked);
            for own in [
                "/srv/s/state",
                "/home/u/.local/state/sandbar/sessions/old.jsonl",
                "/home/u/.config/sandbar",
                "/home/u/.cache/sandbar",
            ] {
                assert_eq!(host.access(&compiled, own), Access::None, "{own}");
            }
            host.assert_agreement(&compiled);
        }
    }

    #[test]
    fn the_default_places_of_passwd_are_hidden_while_home_is_another() {
        let (host, mut asked) = moved();
        let host = host.dir("/other/home/.config/sandbar");
        asked.home = Some(path("/other/home"));
        let compiled = host.compile(&asked);
        for own in ["/home/u/.local/state/sandbar", "/home/u/.config/sandbar", "/other/home/.config/sandbar"]
        {
            assert_eq!(host.access(&compiled, own), Access::None, "{own}");
        }
    }

    #[test]
    fn places_elsewhere_are_hidden_when_they_exist_and_never_reopened() {
        let (host, mut asked) = moved();
        let host = host.dir("/data/state/sandbar/sessions");
        asked.own.elsewhere = vec![path("/data/state/sandbar"), path("/data/config/sandbar")];
        let compiled = host.compile(&asked);
        assert_eq!(host.access(&compiled, "/data/state/sandbar/sessions"), Access::None);
        // What does not exist forbids nothing: it is not this run's.
        assert_eq!(host.access(&compiled, "/data/config"), Access::Read);
        let (inside, own) = (path("/data/state/sandbar/sessions"), path("/data/state/sandbar"));
        asked.allow_read = vec![inside.clone()];
        assert_eq!(host.try_compile(&asked), Err(CompileError::OwnFiles { path: inside, own }));
    }

    #[test]
    fn the_files_of_the_user_whom_root_runs_as_are_hidden_and_never_reopened() {
        let (host, mut asked) = moved();
        let host = host.called_by_root().owned_by("/home/u", 1000).dir("/root");
        asked.home = Some(path("/root"));
        let sessions = "/home/u/.local/state/sandbar/sessions";
        assert_eq!(host.access(&host.compile(&asked), sessions), Access::None);
        let own = path("/home/u/.local/state/sandbar");
        let refused = Err(CompileError::OwnFiles { path: path(sessions), own });
        asked.allow_read = vec![path(sessions)];
        assert_eq!(host.try_compile(&asked), refused);
        asked.allow_read = vec![];
        asked.allow_write = vec![path(sessions)];
        assert_eq!(host.try_compile(&asked), refused);
    }

    #[test]
    fn a_default_place_that_leads_to_the_home_is_told_instead_of_hiding_it() {
        let (_, mut asked) = moved();
        asked.cwd = path("/home/v/proj");
        asked.home = Some(path("/home/v"));
        let host = FakeHost::with_home().dir("/home/v/proj").link("/home/v/.config/sandbar", "/home/v");
        let compiled = host.compile(&asked);
        let told = Note::SecretNotHidden { secret: path("/home/v/.config/sandbar"), target: path("/home/v") };
        assert_eq!(compiled.notes, [told]);
        assert_eq!(host.access(&compiled, "/home/v/proj"), Access::Write);
    }
}
