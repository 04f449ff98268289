//! A plan in the words of Landlock alone, for hosts where nobody may make a namespace.
//!
//! Landlock only grants, and a grant holds for everything below it. So what is hidden below something readable is
//! expressed by granting the neighbours instead, at every level on the way: those directories can be passed through,
//! but not listed, and what appears in them later can't be read. What is less than the writable place around it can't be
//! expressed at all; then there is no plan, unless that protection was given up by its name.
//!
//! What is granted is never more than the [`Place`]s say (tests compare every path). Deliberately not here: the
//! system-call filter that holds what Landlock knows nothing about (`syscalls::landlock`).

use sandbar_proto::{
    AbsPath, FileFact, FileKind, LandlockAccess, LandlockRule, LandlockSpec, NetworkMode, PathGlob,
    PinnedPath,
};

use crate::grants::{Draft, GrantKind};
use crate::paths::{below, entry};
use crate::reader::{Answer, Found, Reader};
use crate::{CompileError, GiveUp, Nature, Note, Origin, PatternProblem, Place, RunRequest};

/// Since this version a domain's signals and abstract sockets stay within it; without, a command could end every
/// process of its user.
pub(crate) const MIN_ABI: u32 = 6;

/// Devices that every program expects. Terminals are not among them: `/dev/pts` holds those of the whole user, and the
/// run's own is granted where it is opened.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const SHARED_MEMORY: Origin = Origin::Default("shared memory of the host");

/// Gives up what the request says may be given up and only mounts can hold, and says so.
pub(crate) fn give_up(draft: &mut Draft<'_>) {
    let request = draft.request;
    if !request.executor.is_landlock() || !request.give_up.contains(&GiveUp::ProtectedNames) {
        return;
    }
    let grants = std::mem::take(&mut draft.grants);
    let roots: Vec<AbsPath> = grants
        .iter()
        .filter(|grant| grant.kind == GrantKind::Write)
        .map(|grant| grant.path.clone())
        .collect();
    let is_lost = |path: &AbsPath| roots.iter().any(|root| path.starts_with(root));
    let (mut lost, kept): (Vec<_>, Vec<_>) = grants
        .into_iter()
        .partition(|grant| matches!(grant.origin, Origin::Protected(_)) && is_lost(&grant.path));
    draft.grants = kept;
    lost.sort_by(|a, b| a.path.cmp(&b.path));
    lost.dedup_by(|a, b| a.path == b.path);
    if !lost.is_empty() {
        let paths = lost.into_iter().map(|grant| grant.path).collect();
        draft.notes.push(Note::GivenUp { what: GiveUp::ProtectedNames, paths });
    }
}

/// Refuses what Landlock can't do at all.
///
/// # Errors
/// [`CompileError::Pattern`], [`CompileError::NestingByLandlock`].
pub(crate) fn refuse(request: &RunRequest, globs: &[(PathGlob, Origin)]) -> Result<(), CompileError> {
    if request.within.nesting {
        return Err(CompileError::NestingByLandlock);
    }
    match globs.first() {
        Some((glob, _)) => {
            Err(CompileError::Pattern { pattern: glob.to_display(), because: PatternProblem::Landlock })
        }
        None => Ok(()),
    }
}

/// Places that are other than under mounts: shared memory is the host's, and so it is nobody's.
pub(crate) fn add_places(places: &mut Vec<Place>) {
    let shm = below(&AbsPath::root(), "dev/shm");
    if !places.iter().any(|place| place.path == shm) {
        places.push(Place { path: shm, nature: Nature::Sealed, origin: SHARED_MEMORY });
    }
}

/// The rules that grant what `places` say, which are in depth-first order.
///
/// # Errors
/// [`CompileError::LandlockAbi`], [`CompileError::LandlockCannot`], [`CompileError::LandlockTooMany`].
pub(crate) fn spec(places: &[Place], reader: &Reader<'_>) -> Result<LandlockSpec, CompileError> {
    let found = reader.host().landlock_abi;
    if found < MIN_ABI {
        return Err(CompileError::LandlockAbi { found, needed: MIN_ABI });
    }
    let mut builder = Builder { places: deciding(places), reader, rules: Vec::new() };
    builder.refuse_narrowed()?;
    builder.foresee();
    for index in 0..builder.places.len() {
        builder.place(index)?;
    }
    Ok(LandlockSpec { min_abi: MIN_ABI, rules: builder.rules, scopes_only: false })
}

/// Of the places with equal paths the one that decides.
fn deciding(places: &[Place]) -> Vec<&Place> {
    let is_last = |index: usize| places.get(index + 1).is_none_or(|next| next.path != places[index].path);
    (0..places.len()).filter(|index| is_last(*index)).map(|index| &places[index]).collect()
}

/// Whether the host's files are readable there, by a rule on a place or on one above it.
fn is_readable(nature: Nature) -> bool {
    match nature {
        Nature::Read | Nature::Cache | Nature::Reserved | Nature::Processes => true,
        Nature::Write | Nature::Hidden | Nature::Private | Nature::Sealed | Nature::Devices => false,
    }
}

/// Whether a rule for what is around would grant more than there is to be.
fn is_narrower(nature: Nature) -> bool {
    match nature {
        Nature::Hidden | Nature::Private | Nature::Sealed | Nature::Devices => true,
        Nature::Read | Nature::Cache | Nature::Reserved | Nature::Processes | Nature::Write => false,
    }
}

struct Builder<'a> {
    places: Vec<&'a Place>,
    reader: &'a Reader<'a>,
    rules: Vec<LandlockRule>,
}

impl<'a> Builder<'a> {
    /// The place around the one at `index`.
    fn around(&self, index: usize) -> Option<&'a Place> {
        let path = &self.places[index].path;
        self.places[..index].iter().rfind(|place| path.starts_with(&place.path)).copied()
    }

    /// A grant can't be taken back below itself.
    fn refuse_narrowed(&self) -> Result<(), CompileError> {
        for (index, place) in self.places.iter().enumerate() {
            if let Some(around) = self.around(index)
                && around.nature == Nature::Write
                && place.nature != Nature::Write
            {
                return Err(CompileError::LandlockCannot {
                    path: place.path.clone(),
                    wanted: place.nature,
                    writable: around.path.clone(),
                    by: place.origin.clone(),
                });
            }
        }
        Ok(())
    }

    /// Asks at once for what the walk will come to, which goes a level at a time.
    fn foresee(&self) {
        for place in self.places.iter().filter(|place| is_narrower(place.nature)) {
            std::iter::successors(place.path.parent(), AbsPath::parent).for_each(|above| {
                let _ = self.reader.list(&above);
            });
        }
    }

    fn place(&mut self, index: usize) -> Result<(), CompileError> {
        let place = self.places[index];
        match place.nature {
            Nature::Write => {
                if self.around(index).is_none_or(|around| around.nature != Nature::Write) {
                    self.rule(&place.path, LandlockAccess::Write);
                }
            }
            Nature::Devices => {
                for name in DEVICES {
                    self.rule(&below(&place.path, name), LandlockAccess::Device);
                }
            }
            // What is readable around it has been walked through with that.
            Nature::Read | Nature::Cache | Nature::Reserved | Nature::Processes => {
                if !self.around(index).is_some_and(|around| is_readable(around.nature)) {
                    self.show(&place.path)?;
                }
            }
            Nature::Hidden | Nature::Private | Nature::Sealed => {}
        }
        Ok(())
    }

    /// Whether there is less than reading somewhere below `path`.
    fn is_narrowed_below(&self, path: &AbsPath) -> bool {
        let strictly_below = |place: &Place| place.path != *path && place.path.starts_with(path);
        self.places.iter().any(|place| is_narrower(place.nature) && strictly_below(place))
    }

    /// Grants reading at `path`, around what is hidden below.
    fn show(&mut self, path: &AbsPath) -> Result<(), CompileError> {
        if !self.is_narrowed_below(path) {
            self.rule(path, LandlockAccess::Read);
            return Ok(());
        }
        let names = match self.reader.list(path) {
            Answer::Known(names) => names,
            Answer::TooLong => return Err(CompileError::LandlockTooMany { path: path.clone() }),
            // Whoever can't list it names nothing in it: that is less, and the caller has no more.
            Answer::Unknown | Answer::Missing | Answer::Unreadable(_) => return Ok(()),
        };
        for child in
            names.iter().filter_map(|(name, kind)| is_shown(*kind).then(|| entry(path, name.as_bytes()))?)
        {
            let decided = self.places.iter().find(|place| place.path == child).map(|place| place.nature);
            match decided {
                None => self.show(&child)?,
                Some(nature) if is_readable(nature) => self.show(&child)?,
                // They have rules of their own, or none.
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Grants `access` at `path`, if there is something to grant it for.
    fn rule(&mut self, path: &AbsPath, access: LandlockAccess) {
        let Found::File(FileFact { pinned: PinnedPath { identity, .. }, .. }) = self.reader.lookup(path)
        else {
            return;
        };
        let is_right = match access {
            LandlockAccess::Device => identity.kind == FileKind::Other,
            LandlockAccess::Read | LandlockAccess::Write => is_shown(identity.kind),
        };
        if is_right {
            self.rules.push(LandlockRule { path: path.clone(), identity: Some(*identity), access });
        }
    }
}

/// Whether a rule stands on files of this kind: a link's target has its own place, and what is neither a file nor a
/// directory is somebody's on the host.
fn is_shown(kind: FileKind) -> bool {
    matches!(kind, FileKind::Directory | FileKind::File)
}

/// Whether TCP is among what has to be denied.
pub(crate) fn note(network: NetworkMode) -> Note {
    Note::ByLandlockAlone { network: network == NetworkMode::On }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod view;
