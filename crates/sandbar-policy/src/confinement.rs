//! What a run is confined to, in no platform's words: places and what becomes of each, the network, bounds.
//!
//! The mount operations of Linux, the profile for macOS and the plan for Windows are made of the same walk over the
//! grants, and the [`Permissions`] that a person is shown are read from here, so a platform can refuse what it can't
//! enforce but can't mean something else by it. Deliberately not here: how any of them does it.

use std::collections::BTreeSet;

use sandbar_proto::{AbsPath, Limits, NetworkMode, PathGlob};

use crate::grants::{GrantKind, depth_first};
use crate::{Access, Entry, EntryPath, Origin, Permissions};

/// What becomes of a place and of everything below it that no deeper place decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nature {
    /// The host's, read-only.
    Read,
    /// The host's, writable.
    Write,
    /// Missing on the host, and to stay so while the run lives.
    Reserved,
    /// The host's, invisible.
    Hidden,
    /// An own writable directory in the place of the host's.
    Private,
    /// An own empty directory in the place of the host's.
    Sealed,
    /// The host's, where what is written does not reach it.
    Cache,
    /// The kernel's files about processes, of which a run sees its own.
    Processes,
    /// Device files, of which a run has those that every program expects.
    Devices,
}

impl Nature {
    /// Every nature.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Write,
        Self::Reserved,
        Self::Hidden,
        Self::Private,
        Self::Sealed,
        Self::Cache,
        Self::Processes,
        Self::Devices,
    ];

    /// What it means to somebody who asks about a path (facts/sandbox.md §1.2).
    #[must_use]
    pub fn access(self) -> Access {
        match self {
            Self::Write | Self::Private | Self::Cache | Self::Devices => Access::Write,
            Self::Read | Self::Reserved | Self::Processes => Access::Read,
            Self::Hidden | Self::Sealed => Access::None,
        }
    }

    /// What a grant comes to that has an effect; a link shows what is shown elsewhere.
    pub(crate) fn of(kind: &GrantKind) -> Self {
        match kind {
            GrantKind::Write => Self::Write,
            GrantKind::Read | GrantKind::Protect | GrantKind::Link { .. } => Self::Read,
            GrantKind::Hide { .. } => Self::Hidden,
            GrantKind::Private => Self::Private,
            GrantKind::Sealed => Self::Sealed,
            GrantKind::Cache { .. } => Self::Cache,
            GrantKind::Reserve { .. } => Self::Reserved,
        }
    }
}

/// One place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where; a real path.
    pub path: AbsPath,
    /// What becomes of it.
    pub nature: Nature,
    /// Who said so.
    pub origin: Origin,
}

/// What of the network a run without one may reach nevertheless.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Openings {
    /// Ports of this machine's loopback that it may connect to: those of a proxy that decides further.
    pub loopback_ports: BTreeSet<u16>,
    /// Unix sockets that it may connect to; real paths.
    pub sockets: BTreeSet<AbsPath>,
    /// Whether it may serve and reach every port of the loopback.
    pub local_binding: bool,
}

/// What the network of a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Nothing but the openings.
    Only(Openings),
    /// The caller's network.
    All,
}

/// What a run is confined to. Made by policy and by nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    places: Vec<Place>,
    globs: Vec<(PathGlob, Origin)>,
    reach: Reach,
    cwd: AbsPath,
    limits: Limits,
}

impl Confinement {
    /// Puts `places` into depth-first order. Of equal paths the last one decides: none beats write beats read.
    pub(crate) fn new(mut places: Vec<Place>, network: NetworkMode, cwd: AbsPath, limits: Limits) -> Self {
        places.sort_by(|a, b| depth_first(&a.path, &b.path).then(a.nature.access().cmp(&b.nature.access())));
        let reach = match network {
            NetworkMode::Off => Reach::Only(Openings::default()),
            NetworkMode::On => Reach::All,
        };
        Self { places, globs: Vec::new(), reach, cwd, limits }
    }

    /// The places, in depth-first order; the first one is `/`.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Patterns whose matches are hidden, also those that come to be while the run lives. What is named by a longer path than a
    /// match is an exception of it.
    #[must_use]
    pub fn globs(&self) -> &[(PathGlob, Origin)] {
        &self.globs
    }

    pub(crate) fn with_globs(self, globs: Vec<(PathGlob, Origin)>) -> Self {
        Self { globs, ..self }
    }

    /// Whether a pattern hides `path`.
    #[must_use]
    pub fn is_hidden_by_glob(&self, path: &AbsPath) -> bool {
        let place = self.place_of(path).map_or(0, |place| place.path.depth());
        self.globs.iter().any(|(glob, _)| glob.deepest(path).is_some_and(|depth| depth >= place))
    }

    /// The network.
    #[must_use]
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Where the command starts.
    #[must_use]
    pub fn cwd(&self) -> &AbsPath {
        &self.cwd
    }

    /// Bounds on what it uses.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The place that decides `path`, if one does.
    #[must_use]
    pub fn place_of(&self, path: &AbsPath) -> Option<&Place> {
        let covering = self.places.iter().filter(|place| path.starts_with(&place.path));
        // `max_by_key` takes the last of equals, as `new` says.
        covering.max_by_key(|place| place.path.depth())
    }

    /// Opens something of the network, where it is off: for a proxy, whose places are known only when it listens.
    #[must_use]
    pub fn with_openings(self, openings: Openings) -> Self {
        let reach = match self.reach {
            Reach::Only(_) => Reach::Only(openings),
            Reach::All => Reach::All,
        };
        Self { reach, ..self }
    }

    /// The lines that say the same of every path.
    pub(crate) fn permissions(&self) -> Permissions {
        let line = |place: &Place| Entry {
            pattern: EntryPath::Path(place.path.clone()),
            access: place.nature.access(),
            origin: place.origin.clone(),
        };
        let pattern = |(glob, origin): &(PathGlob, Origin)| Entry {
            pattern: EntryPath::Glob(glob.clone()),
            access: Access::None,
            origin: origin.clone(),
        };
        Permissions::new(self.places.iter().map(line).chain(self.globs.iter().map(pattern)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::{FakeHost, path, request};

    fn place(at: &str, nature: Nature) -> Place {
        Place { path: path(at), nature, origin: Origin::Flag("--test") }
    }

    fn confinement(places: &[(&str, Nature)], network: NetworkMode) -> Confinement {
        let places = places.iter().map(|(at, nature)| place(at, *nature)).collect();
        Confinement::new(places, network, path("/w"), Limits::default())
    }

    #[test]
    fn the_deepest_place_decides_and_of_equal_ones_none_before_write_before_read() {
        let places = [
            ("/w/a", Nature::Hidden),
            ("/w", Nature::Write),
            ("/", Nature::Read),
            ("/w/a", Nature::Write),
            ("/w", Nature::Read),
            ("/w-b", Nature::Hidden),
        ];
        let made = confinement(&places, NetworkMode::Off);
        let asked = ["/", "/w", "/w/x", "/w/a", "/w/a/b", "/w-b/c", "/wx"];
        let natures = asked.map(|at| made.place_of(&path(at)).map(|place| place.nature));
        let expected = [
            Nature::Read,
            Nature::Write,
            Nature::Write,
            Nature::Hidden,
            Nature::Hidden,
            Nature::Hidden,
            Nature::Read,
        ];
        assert_eq!(natures, expected.map(Some));
        for (at, nature) in asked.iter().zip(expected) {
            assert_eq!(made.permissions().access(&path(at)).0, nature.access(), "{at}");
        }
    }

    #[test]
    fn openings_are_of_a_network_that_is_off() {
        let openings = Openings { loopback_ports: [3128].into(), ..Openings::default() };
        let off = confinement(&[], NetworkMode::Off).with_openings(openings.clone());
        assert_eq!(off.reach(), &Reach::Only(openings.clone()));
        assert_eq!(confinement(&[], NetworkMode::On).with_openings(openings).reach(), &Reach::All);
    }

    #[test]
    fn a_sandboxed_run_is_confined_and_another_one_is_not() {
        let host = FakeHost::with_home().dir("/home/u/w");
        let compiled = host.compile(&request("/home/u/w"));
        let confinement = compiled.confinement.unwrap();
        assert_eq!(confinement.permissions(), compiled.permissions);
        assert_eq!(confinement.places()[0].path, AbsPath::root());
        assert_eq!(confinement.cwd(), &path("/home/u/w"));
        let mut asked = request("/home/u/w");
        asked.profile = crate::Profile::DangerFullAccess;
        assert_eq!(host.compile(&asked).confinement, None);
    }
}
