//! Names that runs protect: watched from outside, because the host can take the protection away.
//!
//! One inotify(7) instance watches the directories of all of them, and those above: whoever renames a directory takes
//! along what is in it. What happens to a name that a run protects is looked at once it is told; what has the name then is
//! protected again ([`sandbar_sandbox::guard`]), and where that can't be done the run ends, which its record says.
//!
//! Commands may write in watched directories as much as they like: a name that nobody protects costs a look into a map.
//! Patterns, which may cover what comes to be anywhere below a directory, are looked after by [`patterns`].

mod patterns;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, LaunchSpec, PathGlob, RunId, Sandbox};
use sandbar_sandbox::facts::search;
use sandbar_sandbox::guard::{self, Guarded, NotRestored, Walls};
use sandbar_sandbox::report::Order;

use super::{Keeper, Leaving, Target};
use patterns::{Appeared, Pace, Pattern};

/// How long a command runs before anybody watches for it. Most are over by then and cost nothing of this; what changes in
/// this time is seen all the same, by the names' identities.
pub(super) const GUARDED_AFTER: Duration = Duration::from_millis(5);

/// What can take a name from one file and give it to another.
const CHANGES: WatchFlags =
    WatchFlags::CREATE.union(WatchFlags::DELETE).union(WatchFlags::MOVED_FROM).union(WatchFlags::MOVED_TO);

/// What a run protects.
#[derive(Debug)]
pub(super) struct Guard {
    /// The way to it, once somebody watches.
    walls: Option<Walls>,
    names: Vec<Guarded>,
    globs: Vec<Arc<PathGlob>>,
    /// Whether the command may make mount namespaces of its own.
    nests: bool,
    /// How long the keeper looked after this run's patterns lately.
    pace: Pace,
}

impl Guard {
    /// What a sandbox protects, if it protects anything that the host could take the protection from.
    pub(super) fn of(spec: &LaunchSpec) -> Option<Self> {
        let Sandbox::Linux(sandbox) = &spec.sandbox else { return None };
        let nests = sandbox.seccomp.allow.iter().any(|call| call == "mount");
        Self::restore(guard::guarded(sandbox), sandbox.globs.clone(), nests)
    }

    /// Whether the command may make mount namespaces of its own, for the same.
    pub(super) fn nests(&self) -> bool {
        self.nests
    }

    /// The names, for the keeper that comes next; it asks for the walls itself.
    pub(super) fn save(&self) -> Vec<Guarded> {
        self.names.clone()
    }

    /// The patterns, for the same.
    pub(super) fn save_globs(&self) -> Vec<PathGlob> {
        self.globs.iter().map(|glob| PathGlob::clone(glob)).collect()
    }

    pub(super) fn restore(names: Vec<Guarded>, globs: Vec<PathGlob>, nests: bool) -> Option<Self> {
        let globs: Vec<Arc<PathGlob>> = globs.into_iter().map(Arc::new).collect();
        (!names.is_empty() || !globs.is_empty()).then_some(Self {
            walls: None,
            names,
            globs,
            nests,
            pace: Pace::default(),
        })
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
    directories: HashMap<i32, Watched>,
}

/// What is looked for in one directory.
#[derive(Debug, Default)]
struct Watched {
    names: Names,
    patterns: Vec<Pattern>,
}

impl Watched {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.patterns.is_empty()
    }
}

/// What one read told.
#[derive(Debug, Default)]
struct Changed {
    /// Which names changed for which runs.
    names: BTreeSet<(RunId, AbsPath)>,
    /// What came to be where a pattern may cover it.
    appeared: Vec<Appeared>,
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
        let Some(watch) = self.add_watch(&path)? else { return Ok(None) };
        let known = &mut self.directories.entry(watch).or_default().names;
        for name in names {
            if let Some(last) = name.file_name() {
                known.entry(last.to_vec()).or_default().insert((run, name));
            }
        }
        Ok(Some(watch))
    }

    /// The watch of a directory, if it can be had and is needed.
    fn add_watch(&self, path: &AbsPath) -> Result<Option<i32>, Unwatched> {
        let Some(inotify) = &self.inotify else { return Err(Unwatched(path.clone())) };
        let flags = CHANGES | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        match inotify::add_watch(inotify, path.as_bytes(), flags) {
            Ok(watch) => Ok(Some(watch)),
            // Somebody else's, whose names this user's command can't change either. Its own it could open any time.
            Err(Errno::ACCESS) if !search::is_own(path) => Ok(None),
            // Gone or exchanged in this moment: the names' own identities tell.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            // Out of watches (`fs.inotify.max_user_watches`), or of memory.
            Err(_) => Err(Unwatched(path.clone())),
        }
    }

    /// Forgets what only `run` looked at.
    pub(super) fn forget(&mut self, run: RunId) {
        for watched in self.directories.values_mut() {
            watched.patterns.retain(|pattern| pattern.run != run);
        }
        self.retain(|_, (other, _)| *other != run);
    }

    /// Forgets whoever is not to be kept, and the directories that nobody looks at then.
    fn retain(&mut self, keep: impl Fn(i32, &(RunId, AbsPath)) -> bool) {
        let Some(inotify) = &self.inotify else { return };
        self.directories.retain(|watch, watched| {
            watched.names.retain(|_, lookers| {
                lookers.retain(|looker| keep(*watch, looker));
                !lookers.is_empty()
            });
            if watched.is_empty() {
                // The kernel has forgotten directories that are gone.
                let _ = inotify::remove_watch(inotify, *watch);
            }
            !watched.is_empty()
        });
    }

    /// What changed, as far as one read tells; `None` when the kernel lost count.
    fn changed(&mut self) -> Option<Changed> {
        let inotify = self.inotify.as_ref()?;
        let mut space = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = Reader::new(inotify, &mut space);
        let mut changed = Changed::default();
        let mut forgotten = Vec::new();
        let told = loop {
            // Nothing there, or nothing that could be read: then there is nothing to go by either.
            let Ok(event) = reader.next() else { break Some(changed) };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                break None;
            }
            if event.events().contains(ReadFlags::IGNORED) {
                forgotten.push(event.wd());
            }
            if let (Some(watched), Some(name)) = (self.directories.get(&event.wd()), event.file_name()) {
                if let Some(lookers) = watched.names.get(name.to_bytes()) {
                    changed.names.extend(lookers.iter().cloned());
                }
                if event.events().intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                    let is_directory = event.events().contains(ReadFlags::ISDIR);
                    let patterns = watched.patterns.iter();
                    changed.appeared.extend(
                        patterns.filter_map(|pattern| pattern.appeared(name.to_bytes(), is_directory)),
                    );
                }
            }
            // A command may write faster than this reads; others wait meanwhile.
            if reader.is_buffer_empty() {
                break Some(changed);
            }
        };
        // The kernel gives no number twice, so nobody else has these by now.
        for watch in forgotten {
            self.directories.remove(&watch);
        }
        told
    }
}

/// Since when something may be other than it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// Since the plan was made: perhaps nothing is.
    Plan,
    /// Since somebody watches: something was told.
    Watch,
}

impl Keeper {
    /// Asks for the way into a sandbox whose names are to be guarded from now on.
    pub(super) fn ask_for_walls(&mut self, id: RunId) {
        if self.processes.get(&id).is_some_and(|process| process.guard.is_some()) {
            self.order(id, Order::Walls);
        }
    }

    /// Takes the way into a sandbox, and begins to watch what it protects.
    pub(super) fn take_walls(&mut self, id: RunId, fds: Vec<OwnedFd>) {
        let Some(guard) = self.processes.get_mut(&id).and_then(|process| process.guard.as_mut()) else {
            return;
        };
        let walls = <[OwnedFd; 1]>::try_from(fds).map_err(|_| Errno::PROTO).and_then(|[fd]| Walls::new(fd));
        match walls {
            Ok(walls) => {
                guard.walls = Some(walls);
                self.begin_guarding(id);
            }
            // Out of descriptors: nothing that is uncovered could be covered again.
            Err(_) => {
                let first = guard.names.first().map(|name| name.path.clone());
                self.give_up_guarding(id, first);
            }
        }
    }

    /// Begins to watch what a run protects, and looks whether anything changed before.
    fn begin_guarding(&mut self, id: RunId) {
        if self.guards.inotify.is_none() && self.watch_guards().is_err() {
            return self.give_up_guarding(id, None);
        }
        let Some(guard) = self.processes.get(&id).and_then(|process| process.guard.as_ref()) else { return };
        let paths = guard.names.iter().map(|name| &name.path);
        if let Err(Unwatched(path)) = self.guards.watch(id, paths, &AbsPath::root()) {
            return self.give_up_guarding(id, Some(path));
        }
        self.look_at_all(id);
        self.look_for_all(id);
    }

    /// Makes the instance that watches.
    ///
    /// # Errors
    /// EMFILE where the user has as many as it may.
    pub(super) fn watch_guards(&mut self) -> Result<(), Errno> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let token = self.token(Target::Guards);
        epoll::add(&self.epoll, &inotify, EventData::new_u64(token), EventFlags::IN)?;
        self.guards.inotify = Some(inotify);
        Ok(())
    }

    /// The runs whose names are guarded, or are to be.
    pub(super) fn guarded(&self) -> Vec<RunId> {
        self.processes.iter().filter(|(_, process)| process.guard.is_some()).map(|(id, _)| *id).collect()
    }

    /// Something happened to a watched directory.
    pub(super) fn guards_changed(&mut self) {
        match self.guards.changed() {
            Some(changed) => {
                for (id, path) in changed.names {
                    self.restore_below(id, &path);
                }
                self.look_at_appeared(changed.appeared);
            }
            None => {
                // Which directories there are is not known any more either.
                self.guarded().into_iter().for_each(|id| self.begin_guarding(id));
            }
        }
    }

    /// Protects again what is not what it was.
    fn look_at_all(&mut self, id: RunId) {
        let Some(process) = self.processes.get(&id) else { return };
        let Some(guard) = &process.guard else { return };
        let started = process.start.started;
        // What is there is watched by now, so all of them are protected at once.
        let changed: Vec<Guarded> =
            guard.names.iter().filter(|name| !guard::is_unchanged(name, started)).cloned().collect();
        let is_ended = process.tree_ended || process.unprotected.is_some();
        if !changed.is_empty() && !is_ended {
            self.put_up(id, &changed, Since::Plan);
        }
    }

    fn restore_below(&mut self, id: RunId, path: &AbsPath) {
        let Some(process) = self.processes.get(&id) else { return };
        if process.tree_ended || process.unprotected.is_some() {
            return;
        }
        let Some(guard) = &process.guard else { return };
        if guard.walls.is_none() {
            return;
        }
        let names: Vec<Guarded> = guard.below(path).into_iter().cloned().collect();
        if names.is_empty() {
            return;
        }
        // What is there now may be another directory, which nobody watches. First that, then a look: what comes to be
        // in between is told.
        if let Err(Unwatched(path)) = self.guards.watch(id, names.iter().map(|name| &name.path), path) {
            return self.give_up_guarding(id, Some(path));
        }
        self.put_up(id, &names, Since::Watch);
    }

    /// Protects what has these names now; ends the run where that can't be done.
    fn put_up(&mut self, id: RunId, names: &[Guarded], since: Since) {
        let guard = self.processes.get(&id).and_then(|process| process.guard.as_ref());
        if since == Since::Watch && guard.is_some_and(|guard| guard.nests) {
            // What is mounted now does not reach the mount namespaces that the command may have made.
            return self.give_up_guarding(id, names.first().map(|name| name.path.clone()));
        }
        let Some(walls) = guard.and_then(|guard| guard.walls.as_ref()) else { return };
        let all: Vec<&Guarded> = names.iter().collect();
        // SAFETY: the keeper has one thread.
        let restored = unsafe { guard::restore(walls, &all) };
        let (at, stuck) = match restored {
            Ok(()) => return,
            Err(NotRestored::At(index)) => (index, None),
            Err(NotRestored::Child(_)) => (0, None),
            Err(NotRestored::Stuck(pidfd)) => (0, Some(pidfd)),
        };
        let lost = names.get(at).map(|name| name.path.clone());
        if let Some(pidfd) = stuck {
            self.wait_for(Leaving { pidfd, control: None });
        }
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
