//! The lines of a profile that somebody wrote: places that are writable, readable or hidden, and patterns that are hidden.
//!
//! A line of a person counts more than what is meant by default about exactly the same path, and less than a flag; between
//! lines for one path none beats write beats read. A place that is missing grants nothing, which is said; one that is to be
//! hidden is watched for instead, and one that is to be read-only in a writable directory is reserved. A pattern can only
//! hide: what it covers now is hidden by name, what comes to be later by the keeper.

use sandbar_proto::{AbsPath, FileFact, FileKind, PathGlob, PinnedPath, PlaceholderKind};

use crate::grants::{Draft, Grant, GrantKind, Nearest, Root};
use crate::paths::below;
use crate::reader::{Answer, Found};
use crate::{
    Access, CompileError, Entry, EntryPath, Note, Origin, PatternProblem, Reads, compile, workspace,
};

/// One line for a path, with what is there.
struct Line<'a> {
    path: &'a AbsPath,
    found: Found<'a>,
    access: Access,
    origin: &'a Origin,
}

impl Line<'_> {
    /// The real path of what is there, or the path that nothing has.
    fn real(&self) -> &AbsPath {
        match &self.found {
            Found::File(fact) => &fact.pinned.path,
            Found::Unknown | Found::Missing | Found::Failed(_) => self.path,
        }
    }
}

/// The lines for paths; of those that lead to one place only the one that decides.
fn of_paths<'a>(draft: &Draft<'a>) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    for Entry { pattern, access, origin } in &draft.request.entries {
        let EntryPath::Path(path) = pattern else { continue };
        let line = Line { path, found: draft.reader.resolve(path), access: *access, origin };
        match lines.iter_mut().find(|known| known.real() == line.real()) {
            Some(known) if known.access < line.access => *known = line,
            Some(_) => {}
            None => lines.push(line),
        }
    }
    lines
}

/// Refuses a place that is reached through a link which a command could have made, in this run or an earlier one: in the working
/// directory, or in a root. What a line grants or hides would be for the command to choose.
fn refuse_planted(draft: &Draft<'_>, named: &AbsPath, origin: &Origin) -> Result<(), CompileError> {
    let is_straight = |path: &AbsPath| match draft.reader.resolve(path) {
        Found::File(fact) => fact.pinned.path == *path,
        Found::Unknown | Found::Missing | Found::Failed(_) => true,
    };
    if is_straight(named) && named.parent().is_none_or(|parent| is_straight(&parent)) {
        return Ok(());
    }
    let reader = draft.reader;
    let mut open: Vec<AbsPath> = vec![reader.real(&draft.request.cwd)];
    open.extend(
        draft.request.allow_write.iter().chain(&draft.request.may_write).map(|path| reader.real(path)),
    );
    open.extend(
        draft.grants.iter().filter(|grant| grant.kind == GrantKind::Write).map(|grant| grant.path.clone()),
    );
    // The working directory may be a link itself: where the person stands is theirs to say.
    let (mut here, rest) = match named.starts_with(&draft.request.cwd) {
        true => (reader.real(&draft.request.cwd), draft.request.cwd.depth()),
        false => (AbsPath::root(), 0),
    };
    for name in named.components().skip(rest) {
        let Ok(next) = here.join(name) else { return Ok(()) };
        match reader.lookup(&next) {
            Found::File(fact) if fact.pinned.identity.kind == FileKind::Symlink => {
                if open.iter().any(|root| next.starts_with(root)) {
                    let (path, link, by) = (named.clone(), next, origin.clone());
                    return Err(CompileError::PlantedLink { path, link, by });
                }
                here = reader.real(&next);
            }
            Found::Unknown | Found::File(_) | Found::Missing | Found::Failed(_) => here = next,
        }
    }
    Ok(())
}

/// The writable roots among the lines.
///
/// # Errors
/// [`CompileError`] when one opens what is never opened.
pub(crate) fn roots(draft: &mut Draft<'_>) -> Result<Vec<Root>, CompileError> {
    let mut roots = Vec::new();
    for line in of_paths(draft).into_iter().filter(|line| line.access == Access::Write) {
        refuse_planted(draft, line.path, line.origin)?;
        match line.found {
            // A file that is used on several machines names places that not all of them have.
            Found::Missing => draft.notes.push(Note::LeftOut { path: line.path.clone() }),
            Found::Unknown => {}
            Found::Failed(errno) => return Err(CompileError::Fact { path: line.path.clone(), errno }),
            Found::File(fact) => {
                compile::refuse_root(draft, line.origin, &fact.pinned.path)?;
                roots.push(Root { fact: fact.clone(), origin: line.origin.clone() });
            }
        }
    }
    Ok(roots)
}

/// Everything that is no writable root: what is read-only among what may be written, what is readable among what may not, and
/// what is hidden.
///
/// # Errors
/// [`CompileError`].
pub(crate) fn restrict(draft: &mut Draft<'_>) -> Result<(), CompileError> {
    let lines = of_paths(draft);
    let mut nearest = Nearest::default();
    for line in lines {
        nearest.catch_up(&draft.grants);
        refuse_planted(draft, line.path, line.origin)?;
        match line.access {
            Access::Write => {}
            Access::Read => readable(draft, &nearest, &line)?,
            Access::None => hidden(draft, &line)?,
        }
    }
    let globs = draft.request.entries.iter().filter_map(|entry| match &entry.pattern {
        EntryPath::Glob(glob) => Some((glob, &entry.origin)),
        EntryPath::Path(_) => None,
    });
    for (glob, origin) in globs {
        pattern(draft, glob, origin)?;
    }
    Ok(())
}

fn readable(draft: &mut Draft<'_>, nearest: &Nearest, line: &Line<'_>) -> Result<(), CompileError> {
    // Every place is readable then, but for what is hidden deeper down; those that are named are reopened.
    if *line.path == AbsPath::root() {
        return Ok(());
    }
    match &line.found {
        Found::Unknown => Ok(()),
        Found::Failed(errno) => Err(CompileError::Fact { path: line.path.clone(), errno: *errno }),
        Found::File(fact) => {
            compile::refuse_reading(draft, &fact.pinned.path)?;
            if nearest.is_writable(&fact.pinned.path) {
                let is_link = fact.pinned.path != *line.path;
                if is_link && nearest.is_writable(line.path) {
                    workspace::refuse_link(draft, line.path.clone())?;
                }
                draft.grant(&fact.pinned, GrantKind::Read, line.origin.clone());
            } else if line.origin.is_of_person() || !nearest.is_hidden(&fact.pinned.path) {
                draft.grant(&fact.pinned, GrantKind::Read, line.origin.clone());
                link(draft, line.path, fact, line.origin);
            }
            Ok(())
        }
        Found::Missing => {
            reserve(draft, nearest, line);
            Ok(())
        }
    }
}

/// Where nothing is readable by itself, a link is not there either: what was named by one is found by it again.
pub(crate) fn link(draft: &mut Draft<'_>, named: &AbsPath, fact: &FileFact, origin: &Origin) {
    if draft.request.reads == Reads::Everything || fact.pinned.path == *named {
        return;
    }
    let Some((parent, name)) = named.parent().zip(named.file_name()) else { return };
    let Ok(place) = draft.reader.real(&parent).join(name) else { return };
    if place != fact.pinned.path {
        let kind = GrantKind::Link { to: fact.pinned.path.clone() };
        draft.grants.push(Grant { path: place, identity: None, kind, origin: origin.clone() });
    }
}

/// Links of the root by which every program is named: without them nothing that is seen is found.
const SYSTEM_LINKS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Makes the links of the root again where nothing is seen that is not named. They lead nowhere as long as nothing else is said.
pub(crate) fn system_links(draft: &mut Draft<'_>) {
    if draft.request.reads == Reads::Everything {
        return;
    }
    for name in SYSTEM_LINKS {
        let path = below(&AbsPath::root(), name);
        if let Found::File(fact) = draft.reader.resolve(&path)
            && fact.pinned.path != path
        {
            let kind = GrantKind::Link { to: fact.pinned.path.clone() };
            let origin = Origin::Default("system");
            draft.grants.push(Grant { path, identity: None, kind, origin });
        }
    }
}

/// Keeps a name missing that would be read-only: where its directory is writable somebody would make it otherwise.
fn reserve(draft: &mut Draft<'_>, nearest: &Nearest, line: &Line<'_>) {
    let Some((above, name)) = line.path.parent().zip(line.path.file_name()) else { return };
    let Found::File(parent) = draft.reader.resolve(&above) else { return };
    if !nearest.is_writable(&parent.pinned.path) {
        return;
    }
    let Ok(real) = parent.pinned.path.join(name) else { return };
    let kind = GrantKind::Reserve { parent: parent.pinned.clone(), what: PlaceholderKind::Directory };
    draft.grants.push(Grant { path: real, identity: None, kind, origin: line.origin.clone() });
}

fn hidden(draft: &mut Draft<'_>, line: &Line<'_>) -> Result<(), CompileError> {
    match &line.found {
        Found::Unknown => Ok(()),
        Found::Failed(errno) => Err(CompileError::Fact { path: line.path.clone(), errno: *errno }),
        // Said of everything it means that nothing is granted without a word, and that is what `reads` says.
        Found::File(_) if *line.path == AbsPath::root() => Ok(()),
        Found::File(fact) => hide(draft, &fact.pinned, line.path, line.origin),
        Found::Missing => {
            let Some((above, name)) = line.path.parent().zip(line.path.file_name()) else { return Ok(()) };
            // A directory that is missing as well could be made with the name in it; nothing watches for that.
            let Found::File(parent) = draft.reader.resolve(&above) else { return Ok(()) };
            if let Some(glob) = parent.pinned.path.join(name).ok().and_then(|path| PathGlob::literal(&path)) {
                draft.globs.push((glob, line.origin.clone()));
            }
            Ok(())
        }
    }
}

fn hide(
    draft: &mut Draft<'_>,
    target: &PinnedPath,
    asked: &AbsPath,
    origin: &Origin,
) -> Result<(), CompileError> {
    if draft.is_too_broad_to_hide(&target.path) {
        return Err(CompileError::HiddenTooBroad { path: asked.clone() });
    }
    draft.grant(target, GrantKind::Hide { readable_empty: false }, origin.clone());
    Ok(())
}

fn pattern(draft: &mut Draft<'_>, glob: &PathGlob, origin: &Origin) -> Result<(), CompileError> {
    let refused = |because| CompileError::Pattern { pattern: glob.to_display(), because };
    if *glob.base() == AbsPath::root() {
        return Err(refused(PatternProblem::TooBroad));
    }
    if draft.request.within.nesting {
        return Err(refused(PatternProblem::Nesting));
    }
    refuse_planted(draft, glob.base(), origin)?;
    let base = match draft.reader.resolve(glob.base()) {
        Found::Unknown => return Ok(()),
        Found::File(fact) => &fact.pinned,
        Found::Missing => return Err(refused(PatternProblem::NoBase)),
        Found::Failed(errno) => return Err(CompileError::Fact { path: glob.base().clone(), errno }),
    };
    let glob = if base.path == *glob.base() { glob.clone() } else { glob.rebased(base.path.clone()) };
    let matches = match draft.reader.matches(&glob) {
        Answer::Unknown => return Ok(()),
        Answer::Known(matches) => matches,
        Answer::Missing => return Err(refused(PatternProblem::NoBase)),
        Answer::TooLong => return Err(refused(PatternProblem::TooMany)),
        Answer::Unreadable(errno) => return Err(CompileError::Fact { path: glob.base().clone(), errno }),
    };
    for found in matches {
        match draft.reader.resolve(&found.path) {
            // What a link leads to has a name of its own, which is covered or not; a mount can't stand on a link.
            Found::File(fact) if fact.pinned.path != found.path => {}
            Found::File(_) => hide(draft, found, &found.path, origin)?,
            // Gone since it was found.
            Found::Unknown | Found::Missing => {}
            Found::Failed(errno) => return Err(CompileError::Fact { path: found.path.clone(), errno }),
        }
    }
    draft.globs.push((glob, origin.clone()));
    Ok(())
}

#[cfg(test)]
mod tests;
