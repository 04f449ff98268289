//! Names that runs protect: watched from outside, because the host can take the protection away.
//!
//! One inotify(7) instance watches the directories of all of them, and those above: whoever renames a directory takes
//! along what is in it. What happens to a name that a run protects is looked at once it is told; what has the name then is
//! protected again ([`sandbar_sandbox::guard`]), and where that can't be done the run ends, which its record says.
//!
//! Commands may write in watched directories as much as they like: a name that nobody protects costs a look into a map.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, RunId, Sandbox};
use sandbar_sandbox::guard::{self, Guarded, NotRestored, Walls};
use serde::{Deserialize, Serialize};

use super::process::Phase;
use super::{Keeper, Target};
use crate::handover::{Adopted, Fd, HandoverError, Kept, failed};

/// How long a command runs before anybody watches for it. Most are over by then; what changes in this time is seen all
/// the same, by the names' identities.
pub(super) const GUARDED_AFTER: Duration = Duration::from_millis(5);

/// What can take a name from one file and give it to another.
const CHANGES: WatchFlags =
    WatchFlags::CREATE.union(WatchFlags::DELETE).union(WatchFlags::MOVED_FROM).union(WatchFlags::MOVED_TO);

/// What a run protects.
#[derive(Debug)]
pub(super) struct Guard {
    walls: Walls,
    names: Vec<Guarded>,
}

/// A guard on its way into the keeper that comes next.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedGuard {
    mounts: Fd,
    names: Vec<Guarded>,
}

impl Guard {
    pub(super) fn save(&self, kept: &mut Kept) -> SavedGuard {
        let Self { walls, names } = self;
        SavedGuard { mounts: kept.keep(walls.mounts()), names: names.clone() }
    }

    pub(super) fn restore(saved: SavedGuard, adopted: &mut Adopted) -> Result<Self, HandoverError> {
        let SavedGuard { mounts, names } = saved;
        let walls = Walls::new(adopted.give(mounts)?).map_err(failed("find a sandbox again"))?;
        Ok(Self { walls, names })
    }

    /// The names at and below `path`.
    fn below(&self, path: &AbsPath) -> Vec<&Guarded> {
        self.names.iter().filter(|name| name.path.starts_with(path)).collect()
    }
}

/// The directories that are watched, and for whom.
#[derive(Debug, Default)]
pub(super) struct Guards {
    inotify: Option<OwnedFd>,
    directories: HashMap<i32, Names>,
}

/// A directory that can't be watched.
struct Unwatched(AbsPath);

/// Who looks at which name in a directory, and as what. The kernel gives one directory one watch, however many paths lead
/// to it (bind mounts, a rename): so each run has the path by which it looks.
type Names = HashMap<Vec<u8>, BTreeSet<(RunId, AbsPath)>>;

impl Guards {
    /// Watches every name on the ways from `top` to `paths` for `run`, and in no directory that was there before.
    fn watch<'a>(
        &mut self,
        run: RunId,
        paths: impl Iterator<Item = &'a AbsPath>,
        top: &AbsPath,
    ) -> Result<(), Unwatched> {
        let mut names: BTreeMap<AbsPath, BTreeSet<AbsPath>> = BTreeMap::new();
        for path in paths {
            let way = std::iter::successors(Some(path.clone()), AbsPath::parent);
            for name in way.take_while(|name| name.starts_with(top)) {
                if let Some(directory) = name.parent() {
                    names.entry(directory).or_default().insert(name);
                }
            }
        }
        let mut watched = BTreeSet::new();
        for (directory, names) in names {
            watched.extend(self.watch_directory(run, directory, names)?);
        }
        // Those that were there before are no business of this run any more, and may belong to its command now.
        self.retain(|watch, (other, path)| {
            *other != run || !path.starts_with(top) || watched.contains(&watch)
        });
        Ok(())
    }

    /// Watches names in their directory; the watch, if it can be had and is needed.
    fn watch_directory(
        &mut self,
        run: RunId,
        path: AbsPath,
        names: BTreeSet<AbsPath>,
    ) -> Result<Option<i32>, Unwatched> {
        let Some(inotify) = &self.inotify else { return Err(Unwatched(path)) };
        let flags = CHANGES | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        let watch = match inotify::add_watch(inotify, path.as_bytes(), flags) {
            Ok(watch) => watch,
            // Who may not read a directory may not change it either, and as another user it can't be watched at all.
            Err(Errno::ACCESS) => return Ok(None),
            // Gone or exchanged in this moment: the names' own identities tell.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            // Out of watches (`fs.inotify.max_user_watches`), or of memory.
            Err(_) => return Err(Unwatched(path)),
        };
        let known = self.directories.entry(watch).or_default();
        for name in names {
            if let Some(last) = name.file_name() {
                known.entry(last.to_vec()).or_default().insert((run, name));
            }
        }
        Ok(Some(watch))
    }

    /// Forgets what only `run` looked at.
    pub(super) fn forget(&mut self, run: RunId) {
        self.retain(|_, (other, _)| *other != run);
    }

    /// Forgets whoever is not to be kept, and the directories that nobody looks at then.
    fn retain(&mut self, keep: impl Fn(i32, &(RunId, AbsPath)) -> bool) {
        let Some(inotify) = &self.inotify else { return };
        self.directories.retain(|watch, names| {
            names.retain(|_, lookers| {
                lookers.retain(|looker| keep(*watch, looker));
                !lookers.is_empty()
            });
            if names.is_empty() {
                // The kernel has forgotten directories that are gone.
                let _ = inotify::remove_watch(inotify, *watch);
            }
            !names.is_empty()
        });
    }

    /// Which names changed for which runs, as far as one read tells; `None` when the kernel lost count.
    fn changed(&mut self) -> Option<BTreeSet<(RunId, AbsPath)>> {
        let inotify = self.inotify.as_ref()?;
        let mut space = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = Reader::new(inotify, &mut space);
        let mut changed = BTreeSet::new();
        loop {
            // Nothing there, or nothing that could be read: then there is nothing to go by either.
            let Ok(event) = reader.next() else { return Some(changed) };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                return None;
            }
            if let (Some(names), Some(name)) = (self.directories.get(&event.wd()), event.file_name())
                && let Some(lookers) = names.get(name.to_bytes())
            {
                changed.extend(lookers.iter().cloned());
            }
            // A command may write faster than this reads; others wait meanwhile.
            if reader.is_buffer_empty() {
                return Some(changed);
            }
        }
    }
}

impl Keeper {
    /// Takes the walls of a sandbox, which its holder has just built.
    pub(super) fn take_walls(&mut self, id: RunId, fds: Vec<OwnedFd>) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Phase::Starting { spec, .. } = &process.phase else { return };
        let Sandbox::Linux(sandbox) = &spec.sandbox else { return };
        let names = guard::guarded(sandbox);
        let walls = <[OwnedFd; 1]>::try_from(fds).map_err(|_| Errno::PROTO).and_then(|[fd]| Walls::new(fd));
        match walls {
            Ok(walls) => process.guard = Some(Guard { walls, names }),
            // Out of descriptors: nothing that is uncovered could be covered again.
            Err(_) => {
                let first = names.into_iter().next().map(|name| name.path);
                self.give_up_guarding(id, first);
            }
        }
    }

    /// Begins to watch what a run protects, and looks whether anything changed before.
    pub(super) fn begin_guarding(&mut self, id: RunId) {
        if self.guards.inotify.is_none() && self.watch_guards().is_err() {
            return self.give_up_guarding(id, None);
        }
        let Some(process) = self.processes.get(&id) else { return };
        let Some(guard) = &process.guard else { return };
        let paths = guard.names.iter().map(|name| &name.path);
        if let Err(Unwatched(path)) = self.guards.watch(id, paths, &AbsPath::root()) {
            return self.give_up_guarding(id, Some(path));
        }
        self.look_at_all(id);
    }

    /// Makes the instance that watches.
    ///
    /// # Errors
    /// EMFILE where the user has as many as it may.
    pub(super) fn watch_guards(&mut self) -> Result<(), Errno> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let token = self.token(Target::Guards);
        rustix::event::epoll::add(
            &self.epoll,
            &inotify,
            rustix::event::epoll::EventData::new_u64(token),
            EventFlags::IN,
        )?;
        self.guards.inotify = Some(inotify);
        Ok(())
    }

    /// Something happened to a watched directory.
    pub(super) fn guards_changed(&mut self) {
        match self.guards.changed() {
            Some(changed) => {
                for (id, path) in changed {
                    self.restore_below(id, &path);
                }
            }
            None => {
                let guarded = self.processes.iter().filter(|(_, process)| process.guard.is_some());
                let all: Vec<RunId> = guarded.map(|(id, _)| *id).collect();
                // Which directories there are is not known any more either.
                all.into_iter().for_each(|id| self.begin_guarding(id));
            }
        }
    }

    /// Protects again what is not what it was.
    fn look_at_all(&mut self, id: RunId) {
        let Some(guard) = self.processes.get(&id).and_then(|process| process.guard.as_ref()) else { return };
        let changed: Vec<AbsPath> = guard
            .names
            .iter()
            .filter(|name| !guard::is_unchanged(name))
            .map(|name| name.path.clone())
            .collect();
        for path in changed {
            self.restore_below(id, &path);
        }
    }

    fn restore_below(&mut self, id: RunId, path: &AbsPath) {
        let Some(process) = self.processes.get(&id) else { return };
        if process.tree_ended || process.unprotected.is_some() {
            return;
        }
        let Some(guard) = &process.guard else { return };
        let names = guard.below(path);
        if names.is_empty() {
            return;
        }
        // What is there now may be another directory, which nobody watches. First that, then a look: what comes to be
        // in between is told.
        if let Err(Unwatched(path)) = self.guards.watch(id, names.iter().map(|name| &name.path), path) {
            return self.give_up_guarding(id, Some(path));
        }
        // SAFETY: the keeper has one thread.
        let restored = unsafe { guard::restore(&guard.walls, &names) };
        let lost = match restored {
            Ok(()) => return,
            Err(NotRestored::At(index)) => names.get(index).map(|name| name.path.clone()),
            Err(NotRestored::Child(_)) => names.first().map(|name| name.path.clone()),
        };
        self.give_up_guarding(id, lost);
    }

    /// Ends a run whose walls can't be put up again.
    fn give_up_guarding(&mut self, id: RunId, path: Option<AbsPath>) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.unprotected = path.or(Some(AbsPath::root()));
        }
        self.kill_tree(id);
    }
}
