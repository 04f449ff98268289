//! Watching for what is missing, and for the loss of what is there.
//!
//! A watch ends with its first news: something on the way to a missing path was made, or the present path went. The
//! kernel tells of it through inotify(7); every directory on the way is watched, also those that symbolic links lead
//! through, and each is watched before the next name is looked up in it, so that nothing happens unseen in between.
//! Whoever owns a [`Watches`] waits until its descriptor is readable and asks what changed.
//!
//! Names that a keeper reserves are missing to a watch for as long as nobody uses them: they come with a sandbox, and go with
//! it. They are known by their mode ([`Placeholder`]). One of them may have gone by the time we look, so that what came and
//! went again is no news, whatever it was: it is as missing as before.
//!
//! Not seen: what another machine does on a network file system, and what is mounted over a directory (inotify(7),
//! "Limitations and caveats").

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, CWD, Stat, readlinkat, statat};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, FileKind, Placeholder};

use crate::at::kind;
use crate::read::retry;
use crate::{ErrorKind, FileError, Surroundings};

/// Most watches of a connection at a time; one more is refused.
pub const MAX_WATCHES: usize = 128;

/// Most paths of a watch.
pub const MAX_WATCH_PATHS: usize = 256;

/// Most symbolic links on the way to a path, as in path_resolution(7).
const MAX_LINKS: usize = 40;

/// How often a way is looked at anew because it changed while we looked.
const TRACE_TRIES: usize = 16;

/// Room for some hundred events; what does not fit is read next.
const EVENTS_BYTES: usize = 16 * 1024;

/// Which watch, among those of all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchKey {
    /// The connection that asked for it, by any number.
    pub connection: u64,
    /// Its own number for the watch.
    pub id: u64,
}

/// What became of a request to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// It waits.
    Waiting,
    /// What was said to be missing is there, or the other way round: the news is old, and there is no watch.
    Changed,
}

/// Watches of any number of connections, on one inotify instance, of which a user has few (`max_user_instances`).
#[derive(Debug, Default)]
pub struct Watches {
    surroundings: Surroundings,
    /// Made with the first watch, and kept.
    inotify: Option<Inotify>,
    waiting: HashMap<WatchKey, Ways>,
}

#[derive(Debug)]
struct Inotify {
    fd: OwnedFd,
    /// The directories that the kernel watches for us.
    directories: HashSet<i32>,
}

/// The ways of one watch.
#[derive(Debug)]
struct Ways {
    missing: Vec<(AbsPath, Way)>,
    present: Option<(AbsPath, Way)>,
}

/// How a path was followed: names that were looked up in watched directories, up to the first that is not there.
#[derive(Debug)]
struct Way {
    steps: Vec<Step>,
    is_there: bool,
}

/// What a reserved name counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reserved {
    /// For who waits for something to be made.
    Missing,
    /// For who saw it, and waits for its loss.
    There,
}

#[derive(Debug)]
struct Step {
    /// None for a directory that we may pass through and not read: what happens in it goes unseen.
    directory: Option<i32>,
    name: Vec<u8>,
    /// The whole path of the name.
    path: Vec<u8>,
}

/// An event, in the terms of a way.
#[derive(Debug)]
struct Event {
    directory: i32,
    name: Vec<u8>,
    what: ReadFlags,
}

const WATCHED: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

impl Watches {
    /// None, for paths in `surroundings`.
    #[must_use]
    pub fn new(surroundings: Surroundings) -> Self {
        Self { surroundings, ..Self::default() }
    }

    /// Readable when something may have changed. None before the first watch, and the same ever after.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|inotify| inotify.fd.as_fd())
    }

    /// Waits until one of `missing`, or something above it that is missing as well, is made, or `present` goes.
    ///
    /// # Errors
    /// [`ErrorKind::NameInUse`]; [`ErrorKind::TooMany`] above [`MAX_WATCHES`], or when the user's inotify watches are
    /// used up; [`ErrorKind::OutOfRange`] above [`MAX_WATCH_PATHS`]; what looking at the paths says.
    pub fn watch(
        &mut self,
        key: WatchKey,
        missing: &[AbsPath],
        present: Option<&AbsPath>,
    ) -> Result<Watch, FileError> {
        if self.waiting.contains_key(&key) {
            let message = format!("watch {} is there already", key.id);
            return Err(FileError::new(ErrorKind::NameInUse, None, message));
        }
        if missing.len() > MAX_WATCH_PATHS {
            let message = format!("a watch has at most {MAX_WATCH_PATHS} paths");
            return Err(FileError::new(ErrorKind::OutOfRange, None, message));
        }
        if self.waiting.keys().filter(|other| other.connection == key.connection).count() >= MAX_WATCHES {
            let message = format!("a connection has at most {MAX_WATCHES} watches");
            return Err(FileError::new(ErrorKind::TooMany, None, message));
        }
        let answer = self.begin(key, missing, present).map_err(|error| error.within(self.surroundings));
        if answer != Ok(Watch::Waiting) {
            self.release();
        }
        answer
    }

    fn begin(
        &mut self,
        key: WatchKey,
        missing: &[AbsPath],
        present: Option<&AbsPath>,
    ) -> Result<Watch, FileError> {
        let inotify = match &mut self.inotify {
            Some(inotify) => inotify,
            none => none.insert(Inotify::make()?),
        };
        let mut ways = Ways { missing: Vec::new(), present: None };
        for path in missing {
            let way = Way::trace(inotify, path, Reserved::Missing)?;
            if way.is_there {
                return Ok(Watch::Changed);
            }
            ways.missing.push((path.clone(), way));
        }
        if let Some(path) = present {
            let way = Way::trace(inotify, path, Reserved::There)?;
            if !way.is_there {
                return Ok(Watch::Changed);
            }
            if way.steps.last().is_some_and(|step| step.directory.is_none()) {
                // Nobody would tell of its loss.
                return Err(FileError::at(path, Errno::ACCESS));
            }
            ways.present = Some((path.clone(), way));
        }
        self.waiting.insert(key, ways);
        Ok(Watch::Waiting)
    }

    /// The watches that have news, sorted; they are over. Does not wait.
    ///
    /// # Errors
    /// What read(2) says of the descriptor.
    pub fn changed(&mut self) -> Result<Vec<WatchKey>, FileError> {
        let Some(inotify) = &mut self.inotify else { return Ok(Vec::new()) };
        let events = inotify.read_events().map_err(|errno| {
            FileError::new(ErrorKind::Io, None, format!("inotify can't be read: {errno}"))
        })?;
        let mut changed = Vec::new();
        for (key, ways) in &mut self.waiting {
            if ways.have_news(inotify, &events) {
                changed.push(*key);
            }
        }
        changed.sort_unstable();
        for key in &changed {
            self.waiting.remove(key);
        }
        if !events.is_empty() {
            self.release();
        }
        Ok(changed)
    }

    /// Ends every watch of a connection.
    pub fn forget(&mut self, connection: u64) {
        self.waiting.retain(|key, _| key.connection != connection);
        self.release();
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives back the kernel's watches that nothing needs any more; a user has a bounded number of them.
    fn release(&mut self) {
        let Some(inotify) = &mut self.inotify else { return };
        let used: HashSet<i32> = self.waiting.values().flat_map(Ways::directories).collect();
        for &unused in inotify.directories.difference(&used) {
            // It is gone already when its directory is.
            let _ = inotify::remove_watch(&inotify.fd, unused);
        }
        inotify.directories = used;
    }
}

impl Inotify {
    fn make() -> Result<Self, FileError> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|errno| {
            let message = format!("no inotify instance can be had (fs.inotify.max_user_instances): {errno}");
            FileError::new(ErrorKind::TooMany, None, message)
        })?;
        Ok(Self { fd, directories: HashSet::new() })
    }

    fn watch(&mut self, directory: &[u8]) -> Result<i32, Errno> {
        let watched = inotify::add_watch(&self.fd, directory, WATCHED)?;
        self.directories.insert(watched);
        Ok(watched)
    }

    fn read_events(&mut self) -> Result<Vec<Event>, Errno> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes().to_vec()).unwrap_or_default();
                    events.push(Event { directory: event.wd(), name, what: event.events() });
                }
                Err(Errno::AGAIN) => return Ok(events),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl Ways {
    /// Whether the events end the watch; ways that lead elsewhere now are followed anew.
    fn have_news(&mut self, inotify: &mut Inotify, events: &[Event]) -> bool {
        let gone = ReadFlags::DELETE | ReadFlags::MOVED_FROM;
        for (path, way) in &mut self.missing {
            if !way.is_touched(events) {
                continue;
            }
            let Some(last) = way.steps.last() else { return true };
            if is_there(&last.path) {
                return true;
            }
            match Way::trace(inotify, path, Reserved::Missing) {
                Ok(now) if !now.is_there => *way = now,
                // It is there, or can't be looked at any more: either is for the client to see to.
                Ok(_) | Err(_) => return true,
            }
        }
        let Some((path, way)) = &mut self.present else { return false };
        if !way.is_touched(events) {
            return false;
        }
        if way.steps.iter().any(|step| step.is_met(events, gone)) {
            return true;
        }
        match Way::trace(inotify, path, Reserved::There) {
            Ok(now) if now.is_there => *way = now,
            Ok(_) | Err(_) => return true,
        }
        false
    }

    fn directories(&self) -> impl Iterator<Item = i32> {
        let ways = self.missing.iter().chain(&self.present).map(|(_, way)| way);
        ways.flat_map(|way| way.steps.iter().filter_map(|step| step.directory))
    }
}

impl Way {
    /// Follows a path and watches every directory on it.
    fn trace(inotify: &mut Inotify, path: &AbsPath, reserved: Reserved) -> Result<Self, FileError> {
        for _ in 0..TRACE_TRIES {
            match Self::try_trace(inotify, path, reserved) {
                // A directory that was there a moment ago.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(Errno::NOSPC) => {
                    let message = "the user's inotify watches are used up (fs.inotify.max_user_watches)";
                    return Err(FileError::new(ErrorKind::TooMany, Some(path), message));
                }
                answer => return answer.map_err(|errno| FileError::at(path, errno)),
            }
        }
        let message = format!("what is above `{}` keeps changing", path.to_display());
        Err(FileError::new(ErrorKind::Changed, Some(path), message))
    }

    fn try_trace(inotify: &mut Inotify, path: &AbsPath, reserved: Reserved) -> Result<Self, Errno> {
        // Has no links, because those are followed here.
        let mut here: Vec<u8> = Vec::new();
        let mut names: VecDeque<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        let (mut steps, mut links) = (Vec::new(), 0);
        while let Some(name) = names.pop_front() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    here.truncate(here.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let directory = match inotify.watch(if here.is_empty() { b"/" } else { &here }) {
                Ok(watched) => Ok(watched),
                Err(Errno::ACCESS) => Err(Errno::ACCESS),
                Err(errno) => return Err(errno),
            };
            let whole = [here.as_slice(), b"/", &name].concat();
            let found = statat(CWD, whole.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
            steps.push(Step { directory: directory.ok(), name, path: whole.clone() });
            let is_end = names.is_empty() && reserved == Reserved::Missing;
            if is_end && found.as_ref().is_ok_and(|stat| is_reserved(&whole, stat)) {
                // Nobody would tell of it.
                directory?;
                return Ok(Self { steps, is_there: false });
            }
            match found.map(|stat| kind(&stat)) {
                Ok(FileKind::Directory) => here = whole,
                Ok(FileKind::Symlink) if links < MAX_LINKS => {
                    links += 1;
                    let target = readlinkat(CWD, whole.as_slice(), Vec::new())?;
                    if target.as_bytes().first() == Some(&b'/') {
                        here.clear();
                    }
                    for name in target.as_bytes().rsplit(|&byte| byte == b'/') {
                        names.push_front(name.to_vec());
                    }
                }
                Ok(FileKind::File | FileKind::Other) if names.is_empty() => {}
                // Something else is in the way, or links lead round: not there until that changes.
                Ok(FileKind::File | FileKind::Other | FileKind::Symlink) | Err(Errno::NOENT) => {
                    // Nobody would tell of it.
                    directory?;
                    return Ok(Self { steps, is_there: false });
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(Self { steps, is_there: true })
    }

    /// Whether an event is about anything on the way.
    fn is_touched(&self, events: &[Event]) -> bool {
        let all = ReadFlags::all();
        let is_lost = events.iter().any(|event| event.what.contains(ReadFlags::QUEUE_OVERFLOW));
        is_lost || self.steps.iter().any(|step| step.is_met(events, all))
    }
}

impl Step {
    /// Whether one of these events is about the name, or about the directory as a whole.
    fn is_met(&self, events: &[Event], what: ReadFlags) -> bool {
        events.iter().any(|event| {
            Some(event.directory) == self.directory
                && event.what.intersects(what)
                && (event.name == self.name || event.name.is_empty())
        })
    }
}

/// Whether there is something of that name besides what a keeper reserves it with.
fn is_there(path: &[u8]) -> bool {
    retry(|| statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)).is_ok_and(|stat| !is_reserved(path, &stat))
}

/// Whether a keeper of this user made it to reserve the name, and nobody uses it.
fn is_reserved(path: &[u8], stat: &Stat) -> bool {
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return false;
    }
    let mode = stat.st_mode & 0o7777;
    match kind(stat) {
        FileKind::Directory => mode == Placeholder::DIRECTORY_MODE && is_empty(path),
        FileKind::File => mode == Placeholder::FILE_MODE,
        FileKind::Symlink | FileKind::Other => false,
    }
}

/// Whether a directory has nothing in it. One that can't be read has something, for all that is known.
fn is_empty(path: &[u8]) -> bool {
    std::fs::read_dir(OsStr::from_bytes(path)).is_ok_and(|mut entries| entries.next().is_none())
}
