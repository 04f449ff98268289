//! From settled grants to mount operations, Landlock rules and places.
//!
//! Walks the grants depth first and keeps on a stack what the mount namespace shows at the current place. A
//! grant that would change nothing makes no operation. The operations are sorted shallow to deep in the end, so
//! that a deeper one lands on top.
//!
//! The invariant that costs most: whatever is taken away inside a writable tree has every directory between
//! itself and the writable mount pinned by a bind onto itself, else a command renames the directory away and
//! forges another (facts/sandbox.md §6, row 25).

use std::collections::BTreeSet;

use sandbar_proto::{
    AbsPath, BindAccess, ByteString, CacheMount, CacheWrites, FileKind, LandlockAccess, LandlockRule,
    MountOp, PathGlob, PinnedPath, Placeholder, TmpfsAccess,
};

use crate::grants::{Grant, GrantKind};
use crate::paths::{below, between};
use crate::reader::{Found, Reader};
use crate::{CompileError, Nature, Origin, Place};

/// Anybody may make files, nobody removes another's (as /tmp everywhere).
const STICKY_WORLD_WRITABLE: u32 = 0o1777;
const SEALED_MODE: u32 = 0o755;
/// May be passed through to what was reopened below, but not listed.
const PASS_THROUGH: u32 = 0o111;
/// For what is rebuilt in a tmpfs; the bind on top brings the host's own bits.
const REBUILT_DIRECTORY: u32 = 0o755;
const REBUILT_FILE: u32 = 0o444;

/// What the mount namespace shows at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ground {
    /// The host's, read-only.
    HostRead,
    /// The host's, writable: what lies here can be renamed.
    HostWrite,
    /// Nothing of the host's is there, because nothing is shown that is not named.
    Absent,
    /// Something of our own; the host's is not there at all.
    Hidden,
    /// Our own writable tmpfs.
    Private,
    /// Our own empty tmpfs.
    Sealed,
    /// A copy-on-write view.
    Cache,
}

impl Ground {
    /// Whether the host's files are absent, so that showing one means to rebuild its path.
    fn is_remade(self) -> bool {
        match self {
            Self::Absent | Self::Hidden | Self::Private | Self::Sealed => true,
            Self::HostRead | Self::HostWrite | Self::Cache => false,
        }
    }
}

/// What is seen where no grant says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The host's, read-only.
    Everything,
    /// Nothing.
    Nothing,
}

/// What the grants come to.
#[derive(Debug)]
pub(crate) struct Arrangement {
    pub(crate) mounts: Vec<MountOp>,
    pub(crate) caches: Vec<CacheMount>,
    pub(crate) placeholders: Vec<Placeholder>,
    pub(crate) landlock: Vec<LandlockRule>,
    shown: Shown,
    places: Vec<Place>,
}

impl Arrangement {
    /// Those patterns that may cover something of the host's that is seen.
    pub(crate) fn live(&self, globs: Vec<(PathGlob, Origin)>) -> Vec<(PathGlob, Origin)> {
        let is_live = |path: &AbsPath| {
            let covering = self.places.iter().filter(|place| path.starts_with(&place.path));
            let decisive = covering.max_by_key(|place| (place.path.depth(), place.nature.access()));
            let nature = decisive.map_or(
                if self.shown == Shown::Everything { Nature::Read } else { Nature::Hidden },
                |place| place.nature,
            );
            match nature {
                Nature::Read | Nature::Write | Nature::Reserved | Nature::Cache => true,
                Nature::Hidden | Nature::Private | Nature::Sealed | Nature::Processes | Nature::Devices => {
                    false
                }
            }
        };
        let is_shown_below = |base: &AbsPath| {
            self.places.iter().any(|place| place.path.starts_with(base) && is_live(&place.path))
        };
        globs.into_iter().filter(|(glob, _)| is_live(glob.base()) || is_shown_below(glob.base())).collect()
    }

    /// What the mounts enforce, with `base` deciding what nothing else covers.
    pub(crate) fn places(&mut self, base: Origin) -> Vec<Place> {
        let place = |path: AbsPath, nature, origin| Place { path, nature, origin };
        let root = AbsPath::root();
        let nature = if self.shown == Shown::Everything { Nature::Read } else { Nature::Hidden };
        let mut places = vec![
            place(root.clone(), nature, base),
            place(below(&root, "proc"), Nature::Processes, Origin::Default("own processes only")),
            place(below(&root, "dev"), Nature::Devices, Origin::Default("minimal devices")),
        ];
        places.extend(self.places.iter().cloned());
        places
    }
}

/// Arranges `grants`, which are settled, over what is `shown`, and makes the directories `made`.
///
/// # Errors
/// [`CompileError::Fact`] when a directory to pin cannot be looked up.
pub(crate) fn arrange(
    grants: &[Grant],
    (shown, made): (Shown, &[AbsPath]),
    cache_store: &AbsPath,
    reader: &Reader<'_>,
) -> Result<Arrangement, CompileError> {
    let mut walk = Walk {
        stack: Vec::new(),
        operations: Vec::new(),
        bound: BTreeSet::new(),
        pins: BTreeSet::new(),
        cache_store,
        out: Arrangement {
            mounts: Vec::new(),
            caches: Vec::new(),
            placeholders: Vec::new(),
            landlock: Vec::new(),
            shown,
            places: Vec::new(),
        },
    };
    walk.begin();
    for rule in [
        ("proc", LandlockAccess::Device),
        ("dev", LandlockAccess::Device),
        ("dev/shm", LandlockAccess::Write),
    ] {
        walk.out.landlock.push(LandlockRule {
            path: below(&AbsPath::root(), rule.0),
            identity: None,
            access: rule.1,
        });
    }
    for (index, grant) in grants.iter().enumerate() {
        walk.visit(grant, &grants[index + 1..]);
    }
    for path in made {
        walk.push(path, MountOp::MakeDir { path: path.clone(), mode: 0o777 });
    }
    walk.finish(reader)
}

struct Walk<'a> {
    stack: Vec<(AbsPath, Ground)>,
    operations: Vec<(usize, MountOp)>,
    /// Where a bind of the host's file already stands.
    bound: BTreeSet<AbsPath>,
    /// Directories to pin.
    pins: BTreeSet<AbsPath>,
    cache_store: &'a AbsPath,
    out: Arrangement,
}

impl Walk<'_> {
    /// What every sandbox has of its own.
    fn begin(&mut self) {
        if self.out.shown == Shown::Nothing {
            let target = AbsPath::root();
            let access = TmpfsAccess::Read;
            // Before everything that is made in it.
            self.operations.push((0, MountOp::Tmpfs { target, mode: SEALED_MODE, access, size_bytes: None }));
            for name in ["proc", "dev"] {
                let path = below(&AbsPath::root(), name);
                self.operations.push((1, MountOp::MakeDir { path, mode: REBUILT_DIRECTORY }));
            }
        }
        self.operations.extend([(1, MountOp::Proc), (1, MountOp::Dev)]);
    }

    fn push(&mut self, at: &AbsPath, operation: MountOp) {
        self.operations.push((at.depth(), operation));
    }

    fn stand(&mut self, at: &AbsPath, ground: Ground) {
        self.stack.push((at.clone(), ground));
    }

    fn note_place(&mut self, grant: &Grant) {
        self.out.places.push(Place {
            path: grant.path.clone(),
            nature: Nature::of(&grant.kind),
            origin: grant.origin.clone(),
        });
    }

    fn rule(&mut self, at: &AbsPath, access: LandlockAccess) {
        self.out.landlock.push(LandlockRule { path: at.clone(), identity: None, access });
    }

    /// What is at `path` before the grant for it, and where that begins.
    fn ground_at(&mut self, path: &AbsPath) -> (AbsPath, Ground) {
        while self.stack.last().is_some_and(|(above, _)| !path.starts_with(above)) {
            self.stack.pop();
        }
        let shm = below(&AbsPath::root(), "dev/shm");
        let default = if path.starts_with(&shm) && *path != shm {
            (shm, Ground::Private)
        } else if self.out.shown == Shown::Everything {
            (AbsPath::root(), Ground::HostRead)
        } else {
            (AbsPath::root(), Ground::Absent)
        };
        self.stack.last().cloned().unwrap_or(default)
    }

    fn visit(&mut self, grant: &Grant, later: &[Grant]) {
        let (above, ground) = self.ground_at(&grant.path);
        match &grant.kind {
            GrantKind::Write => self.write(grant, &above, ground),
            GrantKind::Read => self.read(grant, &above, ground),
            GrantKind::Protect => self.protect(grant, &above, ground),
            GrantKind::Hide { readable_empty } => {
                self.hide(grant, *readable_empty, &above, ground, later);
            }
            GrantKind::Private => self.fresh(grant, Ground::Private, &above, ground),
            GrantKind::Sealed => self.fresh(grant, Ground::Sealed, &above, ground),
            GrantKind::Cache { name, writes } => self.cache(grant, name, *writes, ground),
            GrantKind::Reserve { parent, what } => {
                if ground == Ground::HostWrite {
                    let name = grant.path.file_name().unwrap_or_default();
                    let placeholder =
                        Placeholder { parent: parent.clone(), name: name.into(), what: what.clone() };
                    self.out.placeholders.push(placeholder);
                    self.pin(&above, &grant.path);
                    self.note_place(grant);
                    self.stand(&grant.path, Ground::HostRead);
                }
            }
            GrantKind::Link { to } => {
                if matches!(ground, Ground::Sealed | Ground::Absent) {
                    if let Some(parent) =
                        grant.path.parent().filter(|parent| ground == Ground::Absent && parent.depth() > 0)
                    {
                        let operation = MountOp::MakeDir { path: parent.clone(), mode: REBUILT_DIRECTORY };
                        self.push(&parent, operation);
                    }
                    let to = ByteString::from(to.as_bytes());
                    self.push(&grant.path, MountOp::Symlink { path: grant.path.clone(), to });
                }
            }
        }
    }

    fn write(&mut self, grant: &Grant, above: &AbsPath, ground: Ground) {
        if ground != Ground::HostWrite {
            self.show(grant, BindAccess::Write, above, ground);
            self.rule(&grant.path, LandlockAccess::Write);
            self.stand(&grant.path, Ground::HostWrite);
        }
        self.note_place(grant);
    }

    fn read(&mut self, grant: &Grant, above: &AbsPath, ground: Ground) {
        if ground != Ground::HostRead {
            self.show(grant, BindAccess::Read, above, ground);
            if ground == Ground::HostWrite {
                self.pin(above, &grant.path);
            }
            self.stand(&grant.path, Ground::HostRead);
        }
        self.note_place(grant);
    }

    fn protect(&mut self, grant: &Grant, above: &AbsPath, ground: Ground) {
        match ground {
            Ground::HostWrite | Ground::HostRead => self.read(grant, above, ground),
            // The host's is not there, or what is written to it does not reach the host's.
            Ground::Absent | Ground::Hidden | Ground::Private | Ground::Sealed | Ground::Cache => {}
        }
    }

    /// Binds the host's file, after rebuilding its path where that is gone.
    fn show(&mut self, grant: &Grant, access: BindAccess, above: &AbsPath, ground: Ground) {
        let Some(source) = grant.pinned() else { return };
        if ground.is_remade() {
            self.rebuild(&source, above);
        }
        let target = grant.path.clone();
        self.bound.insert(target.clone());
        self.push(&grant.path, MountOp::Bind { source, target, access });
    }

    /// Makes the place for `source` in the remade directory `above`.
    fn rebuild(&mut self, source: &PinnedPath, above: &AbsPath) {
        let path = source.path.clone();
        if source.identity.kind == FileKind::Directory {
            let operation = MountOp::MakeDir { path, mode: REBUILT_DIRECTORY };
            self.push(&source.path, operation);
            return;
        }
        if let Some(parent) = path.parent().filter(|parent| parent != above) {
            let operation = MountOp::MakeDir { path: parent.clone(), mode: REBUILT_DIRECTORY };
            self.push(&parent, operation);
        }
        self.push(&source.path, MountOp::MakeFile { path, mode: REBUILT_FILE });
    }

    fn hide(
        &mut self,
        grant: &Grant,
        readable_empty: bool,
        above: &AbsPath,
        ground: Ground,
        later: &[Grant],
    ) {
        match ground {
            // What a private directory covers is gone; what a command makes there under that name is its own.
            Ground::Private => return,
            Ground::Absent | Ground::Hidden | Ground::Sealed => {}
            Ground::HostRead | Ground::HostWrite | Ground::Cache => {
                self.cover(grant, readable_empty, later);
                if ground == Ground::HostWrite {
                    self.pin(above, &grant.path);
                }
                self.stand(&grant.path, Ground::Hidden);
            }
        }
        self.note_place(grant);
    }

    fn cover(&mut self, grant: &Grant, readable_empty: bool, later: &[Grant]) {
        let Some(target) = grant.pinned() else { return };
        let is_directory = target.identity.kind == FileKind::Directory;
        let operation = if is_directory && is_reopened(&grant.path, later) {
            let (target, mode) = (grant.path.clone(), PASS_THROUGH);
            MountOp::Tmpfs { target, mode, access: TmpfsAccess::Read, size_bytes: None }
        } else {
            MountOp::Mask { target, readable_empty }
        };
        self.push(&grant.path, operation);
    }

    fn fresh(&mut self, grant: &Grant, becomes: Ground, above: &AbsPath, ground: Ground) {
        if ground == Ground::Absent {
            // Nothing is there that had to be covered, and nothing to cover it with.
            if becomes == Ground::Sealed {
                return self.note_place(grant);
            }
            self.push(&grant.path, MountOp::MakeDir { path: grant.path.clone(), mode: REBUILT_DIRECTORY });
        } else if ground.is_remade() {
            if becomes == Ground::Sealed && ground != Ground::Private {
                self.note_place(grant);
            }
            return;
        }
        let (mode, access) = if becomes == Ground::Private {
            self.rule(&grant.path, LandlockAccess::Write);
            (STICKY_WORLD_WRITABLE, TmpfsAccess::Write)
        } else {
            (SEALED_MODE, TmpfsAccess::Read)
        };
        let target = grant.path.clone();
        self.push(&grant.path, MountOp::Tmpfs { target, mode, access, size_bytes: None });
        if ground == Ground::HostWrite {
            self.pin(above, &grant.path);
        }
        self.stand(&grant.path, becomes);
        self.note_place(grant);
    }

    fn cache(&mut self, grant: &Grant, name: &'static str, writes: CacheWrites, ground: Ground) {
        // Caches are mounted before everything else, so anything standing above would cover this one.
        let Some(target) = grant.pinned().filter(|_| self.stack.is_empty() && ground == Ground::HostRead)
        else {
            return;
        };
        let store = below(self.cache_store, name);
        self.out.caches.push(CacheMount { name: name.to_owned(), target, store, writes });
        self.rule(&grant.path, LandlockAccess::Write);
        self.stand(&grant.path, Ground::Cache);
        self.note_place(grant);
    }

    fn pin(&mut self, above: &AbsPath, path: &AbsPath) {
        self.pins.extend(between(above, path));
    }

    fn finish(mut self, reader: &Reader<'_>) -> Result<Arrangement, CompileError> {
        for path in std::mem::take(&mut self.pins) {
            if self.bound.contains(&path) {
                continue;
            }
            match reader.lookup(&path) {
                Found::Unknown => {}
                Found::File(fact) => {
                    let (source, target) = (fact.pinned.clone(), path.clone());
                    self.push(&path, MountOp::Bind { source, target, access: BindAccess::Write });
                }
                // Something was there a moment ago, since what lies below was found.
                Found::Missing => return Err(CompileError::Fact { path, errno: 0 }),
                Found::Failed(errno) => return Err(CompileError::Fact { path, errno }),
            }
        }
        self.operations.sort_by_key(|(depth, _)| *depth);
        self.out.mounts = self.operations.into_iter().map(|(_, operation)| operation).collect();
        Ok(self.out)
    }
}

/// Whether something below a hidden directory is shown again.
fn is_reopened(hidden: &AbsPath, later: &[Grant]) -> bool {
    later.iter().take_while(|grant| grant.path.starts_with(hidden)).any(|grant| match grant.kind {
        GrantKind::Write | GrantKind::Read => true,
        GrantKind::Hide { .. }
        | GrantKind::Protect
        | GrantKind::Private
        | GrantKind::Sealed
        | GrantKind::Cache { .. }
        | GrantKind::Reserve { .. }
        | GrantKind::Link { .. } => false,
    })
}
