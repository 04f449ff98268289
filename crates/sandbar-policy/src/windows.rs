//! What Windows can enforce of a confinement, at which level, and the plan for that.
//!
//! A pure planner for the two levels of facts/sandbox.md §3.2: a restricted token of the person's own account, and an
//! account apart that an administrator set up once. [`decide`] answers for each feature and level; a confinement that needs
//! anything which its level can't enforce has no plan at all, and no level stands in for another. Where something is
//! enforced with an exception the plan carries it, for whoever is to be told.
//!
//! Access control lists are what a path is protected by, so the plan never grants a right that reaches around an entry
//! below: no deleting of children through their directory, no changing of lists or owners. Deliberately not here:
//! making tokens, entries and rules. Nothing does yet, so these plans have met no Windows.

mod path;
mod plan;

use std::collections::BTreeSet;
use std::fmt;

use sandbar_proto::{AbsPath, Limit};

use crate::{Access, Confinement, Nature, Place, Reach};

pub use path::{BadPath, WindowsPath};
pub use plan::{
    Account, AclEntry, Action, Direction, Effect, FirewallRule, Flag, Integrity, Job, Label, Protocol,
    Remote, Rights, Scope, Sid, Token, UiLimit, WindowsPlan, rights,
};

/// How a sandbox is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Not at all.
    Disabled,
    /// A token of the person's own account that may write less. Needs no administrator.
    RestrictedToken,
    /// An account of its own, with rules of the firewall.
    Elevated,
}

impl Level {
    /// Every level.
    pub const ALL: [Self; 3] = [Self::Disabled, Self::RestrictedToken, Self::Elevated];
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "disabled",
            Self::RestrictedToken => "restricted token",
            Self::Elevated => "elevated",
        })
    }
}

/// Something that a confinement may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Reading whatever the person may.
    ReadEverywhere,
    /// Reading named places and nothing else.
    ExactReads,
    /// Writing below named places.
    WritableRoots,
    /// Writing below named places, of which none holds the working directory.
    RootsWithoutCwd,
    /// Something read-only in a writable place.
    ReadOnlyCarveOut,
    /// A missing name in a writable place that stays missing.
    Reserved,
    /// Something that can't be seen.
    Hidden,
    /// Whatever a pattern covers, also when it comes to be while the run lives.
    Pattern,
    /// Something writable in what was made read-only.
    ReopenedWrite,
    /// An own directory in the place of the host's.
    RemadeDirectory,
    /// A cache that is not changed by what is written to it.
    Cache,
    /// Not reading or changing other processes.
    OtherProcesses,
    /// No devices but those that everybody may use.
    Devices,
    /// No network.
    NetworkOff,
    /// Ports of a proxy on the loopback, and nothing else.
    LoopbackPorts,
    /// The whole loopback, and nothing else.
    LocalBinding,
    /// Unix sockets by their paths.
    UnixSockets,
    /// The person's network.
    NetworkAll,
    /// A bound.
    Limit(Limit),
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 24] = [
        Self::ReadEverywhere,
        Self::ExactReads,
        Self::WritableRoots,
        Self::RootsWithoutCwd,
        Self::ReadOnlyCarveOut,
        Self::Reserved,
        Self::Hidden,
        Self::Pattern,
        Self::ReopenedWrite,
        Self::RemadeDirectory,
        Self::Cache,
        Self::OtherProcesses,
        Self::Devices,
        Self::NetworkOff,
        Self::LoopbackPorts,
        Self::LocalBinding,
        Self::UnixSockets,
        Self::NetworkAll,
        Self::Limit(Limit::Wall),
        Self::Limit(Limit::Cpu),
        Self::Limit(Limit::Procs),
        Self::Limit(Limit::Memory),
        Self::Limit(Limit::Files),
        Self::Limit(Limit::FileSize),
    ];
}

/// Whether a level enforces a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It does.
    Enforce {
        /// By what.
        by: &'static str,
        /// What is not as on Linux all the same; to be told.
        except: Option<&'static str>,
    },
    /// It can't, so nothing that needs it runs.
    Refuse {
        /// Why not.
        because: &'static str,
    },
}

/// Whether `level` enforces `feature` (facts/sandbox.md §1.4 and §3.2 for paths; the rest follows from what job objects,
/// tokens and filters count and cover).
#[must_use]
pub fn decide(feature: Feature, level: Level) -> Decision {
    match level {
        Level::Disabled => refuse("nothing is enforced without a sandbox"),
        Level::RestrictedToken => by_token(feature),
        Level::Elevated => by_account(feature),
    }
}

fn enforce(by: &'static str) -> Decision {
    Decision::Enforce { by, except: None }
}

fn refuse(because: &'static str) -> Decision {
    Decision::Refuse { because }
}

const READS_AS_THE_PERSON: &str = "a write-restricted token reads whatever the person may";
const KEEPS_THE_NETWORK: &str = "rules of the firewall tell accounts apart, and the account is the person's";
const REPLACED_WITHOUT: &str =
    "a denial stands on the file, and a program of the person that replaces it leaves that out";
const NO_VIEW_OF_ITS_OWN: &str = "there are no mounts of one's own: the host's directory stays where it is";
const ORDER_OF_INHERITANCE: &str =
    "it would hang on the order in which the entries of two directories are inherited";
const CARVED_OUT: Decision = Decision::Enforce {
    by: "entries that deny the SIDs of the run every change",
    except: Some(
        "a file that a program of the person replaces while the run lives is like its directory from then on",
    ),
};

fn by_token(feature: Feature) -> Decision {
    match feature {
        Feature::ReadEverywhere => enforce("the account is the person's"),
        Feature::ExactReads | Feature::Hidden | Feature::Pattern => refuse(READS_AS_THE_PERSON),
        Feature::WritableRoots => {
            enforce("entries for a restricting SID, without which a write-restricted token writes nothing")
        }
        Feature::RootsWithoutCwd => refuse(
            "at this level the writable roots are those of a legacy policy, and the working directory is always one",
        ),
        Feature::ReadOnlyCarveOut => CARVED_OUT,
        Feature::OtherProcesses => enforce("low integrity, from which no process of a higher one is opened"),
        Feature::NetworkOff | Feature::LoopbackPorts | Feature::LocalBinding => refuse(KEEPS_THE_NETWORK),
        Feature::NetworkAll => enforce("the account is the person's"),
        Feature::Reserved
        | Feature::ReopenedWrite
        | Feature::RemadeDirectory
        | Feature::Cache
        | Feature::Devices
        | Feature::UnixSockets
        | Feature::Limit(_) => at_both(feature),
    }
}

fn by_account(feature: Feature) -> Decision {
    match feature {
        Feature::ReadEverywhere => {
            enforce("an entry on the person's profile; the rest is readable for every account")
        }
        Feature::ExactReads => Decision::Enforce {
            by: "entries for the account, which is in no group that reads more",
            except: Some("what another run of this account may read at the same time is readable, too"),
        },
        Feature::WritableRoots | Feature::RootsWithoutCwd => {
            enforce("entries for the account and for a restricting SID of the run")
        }
        Feature::ReadOnlyCarveOut => CARVED_OUT,
        Feature::Hidden | Feature::Pattern => refuse(REPLACED_WITHOUT),
        Feature::OtherProcesses => enforce("the processes of another account are not opened"),
        Feature::NetworkOff => Decision::Enforce {
            by: "filters for the account that goes offline, on the loopback, too",
            except: Some("the system's resolver asks for names on behalf of every account"),
        },
        Feature::LoopbackPorts => enforce("filters for the account that let these ports through"),
        Feature::LocalBinding => Decision::Enforce {
            by: "filters for the account that let the loopback through",
            except: Some("the loopback is the person's, with whatever listens there"),
        },
        Feature::NetworkAll => enforce("the account that goes online"),
        Feature::Reserved
        | Feature::ReopenedWrite
        | Feature::RemadeDirectory
        | Feature::Cache
        | Feature::Devices
        | Feature::UnixSockets
        | Feature::Limit(_) => at_both(feature),
    }
}

/// What does not depend on whose token it is.
fn at_both(feature: Feature) -> Decision {
    match feature {
        Feature::Reserved => enforce("the keeper makes it, and denies writing there"),
        Feature::ReopenedWrite => refuse(ORDER_OF_INHERITANCE),
        Feature::RemadeDirectory => refuse(NO_VIEW_OF_ITS_OWN),
        Feature::Cache => Decision::Enforce {
            by: "it is readable like what lies around it",
            except: Some("what is written to a cache is refused instead of kept apart"),
        },
        Feature::Devices => {
            enforce("devices of disks and the like are the administrators', and the token has no such group")
        }
        Feature::UnixSockets => refuse("filters know addresses and ports, and no paths of sockets"),
        Feature::Limit(Limit::Wall) => enforce("a clock of the keeper"),
        Feature::Limit(Limit::Cpu) => enforce("the keeper, which reads the accounts of the job object"),
        Feature::Limit(Limit::Memory) => enforce("the job object, for what the whole tree has committed"),
        Feature::Limit(Limit::Procs) => refuse("a job object counts processes and no threads"),
        Feature::Limit(Limit::Files) => refuse("nothing counts the handles of a process"),
        Feature::Limit(Limit::FileSize) => refuse("nothing bounds the size of a file"),
        Feature::ReadEverywhere
        | Feature::ExactReads
        | Feature::WritableRoots
        | Feature::RootsWithoutCwd
        | Feature::ReadOnlyCarveOut
        | Feature::Hidden
        | Feature::Pattern
        | Feature::OtherProcesses
        | Feature::NetworkOff
        | Feature::LoopbackPorts
        | Feature::LocalBinding
        | Feature::NetworkAll => refuse("nobody has said how"),
    }
}

/// A feature that a confinement needs, and a place that needs it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// What.
    pub feature: Feature,
    /// Where; the working directory for what is no matter of paths.
    pub path: AbsPath,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The level can't enforce something.
    #[error("{:?} at {} can't be enforced at level `{level}`: {because}", need.feature, need.path.to_display())]
    Feature {
        /// What, and where.
        need: Need,
        /// The level.
        level: Level,
        /// Why not.
        because: &'static str,
    },
    /// The run's own temporary directory would open something that was decided otherwise.
    #[error("{} can't be the run's temporary directory: {} lies in it", path.to_display(), holds.to_display())]
    TemporaryTooBroad {
        /// The directory.
        path: AbsPath,
        /// What lies in it.
        holds: AbsPath,
    },
    /// A path that Windows would read as something else.
    #[error("{} is no path of Windows: {because}", path.to_display())]
    Path {
        /// It.
        path: AbsPath,
        /// Why not.
        because: BadPath,
    },
}

/// Where what every run needs lies on this Windows; real paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowsHost {
    /// The person's profile (`%USERPROFILE%`).
    pub profile: AbsPath,
    /// A temporary directory of the run's own, made by the keeper.
    pub temporary: AbsPath,
}

/// Plans `confinement` at `level`.
///
/// # Errors
/// Every [`Refusal`]; there is no plan that leaves something out.
pub fn plan(
    confinement: &Confinement,
    level: Level,
    host: &WindowsHost,
) -> Result<WindowsPlan, Vec<Refusal>> {
    let changes = changes(confinement);
    let needs = needs(confinement, &changes);
    let mut refusals: Vec<Refusal> = Vec::new();
    let mut exceptions = BTreeSet::new();
    for need in needs {
        match decide(need.feature, level) {
            Decision::Enforce { except, .. } => exceptions.extend(except),
            Decision::Refuse { because } => refusals.push(Refusal::Feature { need, level, because }),
        }
    }
    if let Some(place) = confinement.places().iter().find(|place| place.path.starts_with(&host.temporary)) {
        let (path, holds) = (host.temporary.clone(), place.path.clone());
        refusals.push(Refusal::TemporaryTooBroad { path, holds });
    }
    let (paths, bad) = paths(&changes, host);
    refusals.extend(bad);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    Ok(plan::assemble(confinement, level, &paths, exceptions.into_iter().collect()))
}

/// A place, and what surrounds it.
struct Change<'a> {
    place: &'a Place,
    /// What is left of it: a cache is like what surrounds it.
    access: Access,
    /// What is left of the place around it.
    around: Access,
    /// Whether anything above it is writable.
    in_writable: bool,
}

/// The places with what surrounds each; of equal paths the last one.
fn changes(confinement: &Confinement) -> Vec<Change<'_>> {
    let mut found = Vec::new();
    let mut stack: Vec<(&AbsPath, Access)> = Vec::new();
    for (index, place) in confinement.places().iter().enumerate() {
        if confinement.places().get(index + 1).is_some_and(|next| next.path == place.path) {
            continue;
        }
        while stack.last().is_some_and(|(above, _)| !place.path.starts_with(above)) {
            stack.pop();
        }
        let around = stack.last().map_or(Access::None, |(_, access)| *access);
        let in_writable = stack.iter().any(|(_, access)| *access == Access::Write);
        let access = if place.nature == Nature::Cache { around } else { place.nature.access() };
        stack.push((&place.path, access));
        found.push(Change { place, access, around, in_writable });
    }
    found
}

fn needs(confinement: &Confinement, changes: &[Change<'_>]) -> BTreeSet<Need> {
    let cwd = confinement.cwd();
    let mut needs: BTreeSet<Need> = changes
        .iter()
        .filter_map(|change| {
            let feature = feature_of(change)?;
            Some(Need { feature, path: change.place.path.clone() })
        })
        .collect();
    let here = |feature| Need { feature, path: cwd.clone() };
    if needs.iter().all(|need| need.feature != Feature::ReadEverywhere) {
        needs.insert(here(Feature::ExactReads));
    }
    let has_roots = needs.iter().any(|need| need.feature == Feature::WritableRoots);
    if has_roots && confinement.place_of(cwd).is_none_or(|place| place.nature != Nature::Write) {
        needs.insert(here(Feature::RootsWithoutCwd));
    }
    needs.extend(
        confinement
            .globs()
            .iter()
            .map(|(glob, _)| Need { feature: Feature::Pattern, path: glob.base().clone() }),
    );
    needs.extend(of_network(confinement.reach()).into_iter().map(here));
    let limits = Limit::ALL.into_iter().filter(|limit| confinement.limits().get(*limit).is_some());
    needs.extend(limits.map(|limit| here(Feature::Limit(limit))));
    needs
}

fn feature_of(change: &Change<'_>) -> Option<Feature> {
    match (change.place.nature, change.around) {
        (Nature::Read, _) if change.place.path == AbsPath::root() => Some(Feature::ReadEverywhere),
        (Nature::Read, Access::Write) => Some(Feature::ReadOnlyCarveOut),
        (Nature::Read, Access::Read | Access::None) | (Nature::Write, Access::Write) => None,
        (Nature::Write, _) if change.in_writable => Some(Feature::ReopenedWrite),
        (Nature::Write, Access::Read | Access::None) => Some(Feature::WritableRoots),
        (Nature::Reserved, _) => Some(Feature::Reserved),
        (Nature::Hidden | Nature::Sealed, _) => Some(Feature::Hidden),
        (Nature::Private, _) => Some(Feature::RemadeDirectory),
        (Nature::Cache, _) => Some(Feature::Cache),
        (Nature::Processes, _) => Some(Feature::OtherProcesses),
        (Nature::Devices, _) => Some(Feature::Devices),
    }
}

fn of_network(reach: &Reach) -> Vec<Feature> {
    match reach {
        Reach::All => vec![Feature::NetworkAll],
        Reach::Only(openings) => {
            let opened = [
                (!openings.loopback_ports.is_empty(), Feature::LoopbackPorts),
                (openings.local_binding, Feature::LocalBinding),
                (!openings.sockets.is_empty(), Feature::UnixSockets),
            ];
            let opened = opened.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, feature)| feature);
            [Feature::NetworkOff].into_iter().chain(opened).collect()
        }
    }
}

/// Paths of a plan.
struct Paths {
    /// What becomes writable.
    writable: Vec<WindowsPath>,
    /// What is less than writable in them.
    read_only: Vec<WindowsPath>,
    /// Directories in between, which lead to those.
    leading: Vec<WindowsPath>,
    /// What is readable, where not everything is.
    readable: Vec<WindowsPath>,
    /// The person's profile.
    profile: Option<WindowsPath>,
    /// The run's own temporary directory.
    temporary: Option<WindowsPath>,
}

/// The paths that entries stand on, and those that Windows would read as something else.
fn paths(changes: &[Change<'_>], host: &WindowsHost) -> (Paths, Vec<Refusal>) {
    let mut bad = Vec::new();
    let mut spelled: Vec<(String, AbsPath)> = Vec::new();
    let mut path = |at: &AbsPath| match WindowsPath::new(at) {
        Ok(path) => {
            // Names are compared without their case; two entries on one file would say different things.
            let folded = path.to_string().to_lowercase();
            if spelled.iter().any(|(other, written)| *other == folded && written != at) {
                bad.push(Refusal::Path { path: at.clone(), because: BadPath::SameName });
            }
            spelled.push((folded, at.clone()));
            Some(path)
        }
        Err(because) => {
            bad.push(Refusal::Path { path: at.clone(), because });
            None
        }
    };
    let mut found = Paths {
        writable: Vec::new(),
        read_only: Vec::new(),
        leading: Vec::new(),
        readable: Vec::new(),
        profile: path(&host.profile),
        temporary: path(&host.temporary),
    };
    let mut leading: BTreeSet<AbsPath> = BTreeSet::new();
    for change in changes {
        let at = &change.place.path;
        match (change.place.nature, change.around) {
            (Nature::Write, Access::Read | Access::None) => found.writable.extend(path(at)),
            (Nature::Read | Nature::Reserved, Access::Write) => {
                found.read_only.extend(path(at));
                let above = std::iter::successors(at.parent(), AbsPath::parent);
                leading.extend(above.take_while(|above| is_writable(changes, above)));
            }
            (Nature::Read, Access::None) if *at != AbsPath::root() => found.readable.extend(path(at)),
            // Everything else is refused, or needs no entry.
            (
                Nature::Read
                | Nature::Write
                | Nature::Reserved
                | Nature::Hidden
                | Nature::Private
                | Nature::Sealed
                | Nature::Cache
                | Nature::Processes
                | Nature::Devices,
                _,
            ) => {}
        }
    }
    found.leading.extend(leading.iter().filter_map(&mut path));
    (found, bad)
}

fn is_writable(changes: &[Change<'_>], path: &AbsPath) -> bool {
    let covering = changes.iter().filter(|change| path.starts_with(&change.place.path));
    let nearest = covering.max_by_key(|change| change.place.path.depth());
    nearest.is_some_and(|change| change.access == Access::Write)
}

#[cfg(test)]
mod tests;
