//! Names that must not come into being while a run lives.
//!
//! A mount can protect only what exists, so a protected name that is missing is made for as long as a run needs
//! it, mounted read-only, and removed behind the last one. What is ours is known by device and inode, and after
//! a crash, from the journals of the lost runs, by its marks: an odd mode that nobody chooses, no content but ours, no
//! older than the run that it was made for. Every run that relies on a placeholder has it in its journal: the one that
//! it was made for may have ended long before. Where the journal was lost as well, or leads nowhere because the workspace
//! was moved, the next run that wants the name finds the marks there.
//!
//! A placeholder is moved in from a private pool and moved out again when pool and workspace share a file system:
//! making and removing a directory costs twenty times as much (ext4: 61 µs against 3 µs), and removing one that
//! a dying sandbox still has mounted waits for every processor on top. Each keeper has a directory of its own in the pool,
//! locked as long as it lives: what is in one that nobody has locked was lost.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use sandbar_proto::{
    AbsPath, ByteString, FileIdentity, FileKind, PinnedPath, Placeholder, PlaceholderKind, Timestamp,
};
use sandbar_sandbox::facts::{identity, is_empty_directory, is_marked};
use serde::{Deserialize, Serialize};

use crate::handover::{Adopted, Fd, HandoverError, Kept};
use crate::records;
use crate::runtime_dir::KeeperDir;

/// How much older than the clock a file's times may be: they are those of the last tick of the kernel, of which there
/// are at least a hundred in a second (CONFIG_HZ).
const TICK: Duration = Duration::from_millis(10);

/// Name of the journal in a process's directory.
const JOURNAL: &str = "placeholders.json";

/// What a journal remembers of one placeholder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    path: AbsPath,
    what: PlaceholderKind,
    /// When the run was started that it was made for; absent where that is the run itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
}

/// Everything that was made, and how many runs rely on each.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    made: HashMap<AbsPath, Made>,
    pools: HashMap<AbsPath, Pool>,
}

#[derive(Debug)]
struct Made {
    identity: FileIdentity,
    what: PlaceholderKind,
    parent: OwnedFd,
    name: ByteString,
    runs: usize,
    /// When the first of them was started.
    since: Timestamp,
    /// Where it goes when nobody needs it any more; without one it is removed.
    pool: Option<AbsPath>,
}

/// Placeholders that wait for their next use.
#[derive(Debug)]
struct Pool {
    /// Locked by this keeper.
    directory: OwnedFd,
    /// Where it is. `None` in what releases before this one handed over: there all keepers of a user had one directory.
    place: Option<AbsPath>,
    spare: Vec<Spare>,
    next: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Spare {
    name: String,
    what: PlaceholderKind,
}

/// What names of keepers' directories in a pool begin with.
const POOL_PREFIX: &str = "keeper-";

/// The name of a spare, which says what it is: whoever finds it behind a crash has to know what was not put into it.
fn spare_name(number: u64, what: &PlaceholderKind) -> String {
    match what {
        PlaceholderKind::Directory => number.to_string(),
        PlaceholderKind::File { content } => {
            let content: String = content.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{number}={content}")
        }
    }
}

/// What a spare of that name was made as.
fn spare_kind(name: &str) -> Option<PlaceholderKind> {
    let Some((number, content)) = name.split_once('=') else {
        return name.parse::<u64>().ok().map(|_| PlaceholderKind::Directory);
    };
    let _: u64 = number.parse().ok()?;
    let digits = content.as_bytes().chunks(2);
    let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let content = bytes.collect::<Option<Vec<u8>>>()?;
    Some(PlaceholderKind::File { content: content.as_slice().into() })
}

impl Pool {
    /// Makes the directory of this keeper in the pool at `path`, and removes what dead ones left there.
    ///
    /// # Errors
    /// The kernel's, also where it locks no directories: what is lost could not be told there.
    fn open(path: &AbsPath) -> Result<Self, Errno> {
        super::caches::make_private(path)?;
        clear_lost_pools(path);
        let own = std::process::id();
        let mut number = 0_u64;
        loop {
            number += 1;
            let place =
                path.join(format!("{POOL_PREFIX}{own}-{number}").as_bytes()).map_err(|_| Errno::INVAL)?;
            match rustix::fs::mkdir(place.as_path(), Mode::RWXU) {
                Ok(()) => {}
                // Of a keeper with our id in another pid namespace, or before us.
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(errno),
            }
            match lock_pool(&place) {
                Ok(Some(directory)) => {
                    return Ok(Self { directory, place: Some(place), spare: Vec::new(), next: 0 });
                }
                // Somebody took it for a lost one before it was locked.
                Ok(None) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    // An empty directory is all that there is of it.
                    let _ = rustix::fs::rmdir(place.as_path());
                    return Err(errno);
                }
            }
        }
    }

    /// Moves a placeholder to `name` in `parent`. EXDEV when that is another file system.
    fn lend(&mut self, parent: &OwnedFd, name: &ByteString, what: &PlaceholderKind) -> Result<(), Errno> {
        let spare = match self.spare.iter().position(|spare| spare.what == *what) {
            Some(at) => self.spare.swap_remove(at),
            None => self.make(what)?,
        };
        let moved = rename_new(&self.directory, spare.name.as_bytes(), parent, name.as_bytes());
        if moved.is_err() {
            self.spare.push(spare);
        }
        moved
    }

    fn make(&mut self, what: &PlaceholderKind) -> Result<Spare, Errno> {
        loop {
            self.next += 1;
            let name = spare_name(self.next, what);
            match make_at(&self.directory, name.as_bytes(), what) {
                Ok(()) => return Ok(Spare { name, what: what.clone() }),
                // In a directory that other keepers have too.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Takes a placeholder back; `false` if somebody uses it by now, and it stays where it is.
    fn take_back(&mut self, parent: &OwnedFd, name: &ByteString, what: &PlaceholderKind) -> bool {
        // Not even for a moment, if it can be seen: this keeper may be killed in it.
        if !is_unused(parent, name.as_bytes(), what) {
            return false;
        }
        self.next += 1;
        let spare = spare_name(self.next, what);
        if rename_new(parent, name.as_bytes(), &self.directory, spare.as_bytes()).is_err() {
            return false;
        }
        // Whoever uses it by now gets it back. Here nobody can put anything into it any more.
        if !is_unused(&self.directory, spare.as_bytes(), what) {
            let _ = rename_new(&self.directory, spare.as_bytes(), parent, name.as_bytes());
            return false;
        }
        self.spare.push(Spare { name: spare, what: what.clone() });
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for spare in &self.spare {
            remove_unchanged(&self.directory, spare.name.as_bytes(), &spare.what);
        }
        if let Some(place) = &self.place {
            // What somebody used all the same keeps it there.
            let _ = rustix::fs::rmdir(place.as_path());
        }
    }
}

/// Opens and locks a keeper's directory in a pool; `None` if another keeper has it, or removed it.
fn lock_pool(place: &AbsPath) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let directory = rustix::fs::open(place.as_path(), flags, Mode::empty())?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    let (ours, there) = (rustix::fs::fstat(&directory)?, rustix::fs::lstat(place.as_path())?);
    Ok((identity(&ours) == identity(&there)).then_some(directory))
}

/// Removes what keepers that were killed have left in a pool. What somebody used in the moment of the kill stays there.
fn clear_lost_pools(path: &AbsPath) {
    for entry in std::fs::read_dir(path.as_path()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_pool = name.as_encoded_bytes().starts_with(POOL_PREFIX.as_bytes());
        let Some(place) = is_pool.then(|| path.join(name.as_encoded_bytes()).ok()).flatten() else {
            continue;
        };
        let Ok(Some(lost)) = lock_pool(&place) else { continue };
        for spare in std::fs::read_dir(place.as_path()).into_iter().flatten().flatten() {
            if let Some(name) = spare.file_name().to_str()
                && let Some(what) = spare_kind(name)
            {
                remove_unchanged(&lost, name.as_bytes(), &what);
            }
        }
        let _ = rustix::fs::rmdir(place.as_path());
    }
}

fn rename_new(from: &OwnedFd, old: &[u8], to: &OwnedFd, new: &[u8]) -> Result<(), Errno> {
    rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)
}

/// Whether a placeholder has nothing but what it was made with.
fn is_unused(parent: &OwnedFd, name: &[u8], what: &PlaceholderKind) -> bool {
    match what {
        PlaceholderKind::Directory => is_empty(parent, name).unwrap_or(false),
        PlaceholderKind::File { content } => has_content(parent, name, content).unwrap_or(false),
    }
}

fn is_empty(parent: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    is_empty_directory(directory.as_fd())
}

/// A run that reserves names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    /// The keeper's home, beside those of others.
    pub(super) home: &'a KeeperDir,
    /// Its directory, which keeps its journal.
    pub(super) directory: BorrowedFd<'a>,
    /// When it was started.
    pub(super) started: Timestamp,
}

/// Why a name could not be reserved.
#[derive(Debug)]
pub(super) struct ReserveError {
    pub(super) path: AbsPath,
    pub(super) errno: Errno,
}

impl Placeholders {
    /// Counts a run whose plan mounts placeholders of ours that it took for files of the host: it needs them as long as
    /// the runs that they were made for. Returns which; they are given up like those of [`Placeholders::reserve`].
    pub(super) fn join<'a>(&mut self, mounted: impl Iterator<Item = &'a PinnedPath>) -> Vec<PinnedPath> {
        let mut joined = Vec::new();
        for pinned in mounted {
            if let Some(made) = self.made.get_mut(&pinned.path)
                && made.identity == pinned.identity
            {
                made.runs += 1;
                joined.push(pinned.clone());
            }
        }
        joined
    }

    /// Makes what is missing of `wanted` and returns what must be mounted read-only. Names that the caller could
    /// not make either are left out: the command has no more rights than the keeper. `joined` is what
    /// [`Placeholders::join`] returned for the same run, which gets all of it into its journal.
    ///
    /// # Errors
    /// [`ReserveError`]; what was made for this run is removed again.
    pub(super) fn reserve(
        &mut self,
        run: Run<'_>,
        joined: &[PinnedPath],
        wanted: &[Placeholder],
        pool: Option<&AbsPath>,
    ) -> Result<Vec<PinnedPath>, ReserveError> {
        if wanted.is_empty() && joined.is_empty() {
            return Ok(Vec::new());
        }
        write_journal(run.directory, &self.entries(joined, wanted)?)?;
        let mut reserved = Vec::with_capacity(wanted.len());
        for placeholder in wanted {
            match self.reserve_one(placeholder, run, pool) {
                Ok(Some(pinned)) => reserved.push(pinned),
                Ok(None) => {}
                Err(error) => {
                    self.release(&reserved);
                    return Err(error);
                }
            }
        }
        Ok(reserved)
    }

    /// What a run relies on, or will once it is made.
    fn entries(&self, joined: &[PinnedPath], wanted: &[Placeholder]) -> Result<Vec<Entry>, ReserveError> {
        let joined = joined.iter().filter_map(|pinned| {
            let made = self.made.get(&pinned.path)?;
            Some(Ok(Entry { path: pinned.path.clone(), what: made.what.clone(), since: Some(made.since) }))
        });
        let wanted = wanted.iter().map(|placeholder| {
            let path = path_of(placeholder)?;
            let since = self.made.get(&path).map(|made| made.since);
            Ok(Entry { path, what: placeholder.what.clone(), since })
        });
        joined.chain(wanted).collect()
    }

    fn reserve_one(
        &mut self,
        wanted: &Placeholder,
        run: Run<'_>,
        pool: Option<&AbsPath>,
    ) -> Result<Option<PinnedPath>, ReserveError> {
        let path = path_of(wanted)?;
        let fail = |errno| ReserveError { path: path.clone(), errno };
        if let Some(made) = self.made.get_mut(&path)
            && identity_at(&made.parent, &made.name).ok().flatten() == Some(made.identity)
        {
            made.runs += 1;
            return Ok(Some(PinnedPath { path, identity: made.identity }));
        }
        let parent = open_parent(&wanted.parent).map_err(fail)?;
        let mut made = self.make(&parent, wanted, pool);
        if matches!(made, Err(Errno::EXIST)) && remove_lost(run.home, &path, &parent, wanted, pool) {
            made = self.make(&parent, wanted, pool);
        }
        let lent = match made {
            Ok(lent) => lent,
            // Somebody made it since the plan; it is protected as it is.
            Err(Errno::EXIST) => {
                let identity = identity_at(&parent, &wanted.name).map_err(fail)?;
                return match identity {
                    Some(identity) if identity.kind != FileKind::Symlink => {
                        Ok(Some(PinnedPath { path, identity }))
                    }
                    Some(_) | None => Err(fail(Errno::LOOP)),
                };
            }
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        };
        let Some(identity) = identity_at(&parent, &wanted.name).map_err(fail)? else {
            return Err(fail(Errno::NOENT));
        };
        let (what, name) = (wanted.what.clone(), wanted.name.clone());
        let made = Made { identity, what, parent, name, runs: 1, since: run.started, pool: lent };
        self.made.insert(path.clone(), made);
        Ok(Some(PinnedPath { path, identity }))
    }

    /// Gives up what [`Placeholders::reserve`] returned; the last run removes what was made.
    pub(super) fn release(&mut self, reserved: &[PinnedPath]) {
        for pinned in reserved {
            let Some(made) = self.made.get_mut(&pinned.path) else { continue };
            if made.identity != pinned.identity {
                continue;
            }
            made.runs -= 1;
            if made.runs == 0
                && let Some(made) = self.made.remove(&pinned.path)
            {
                self.remove(&made);
            }
        }
    }

    /// Makes a placeholder; returns the pool that it came from, if it did.
    fn make(
        &mut self,
        parent: &OwnedFd,
        wanted: &Placeholder,
        pool: Option<&AbsPath>,
    ) -> Result<Option<AbsPath>, Errno> {
        if let Some(path) = pool {
            if !self.pools.contains_key(path)
                && let Ok(opened) = Pool::open(path)
            {
                self.pools.insert(path.clone(), opened);
            }
            if let Some(pool) = self.pools.get_mut(path) {
                match pool.lend(parent, &wanted.name, &wanted.what) {
                    Ok(()) => return Ok(Some(path.clone())),
                    Err(Errno::EXIST) => return Err(Errno::EXIST),
                    // Another file system, or one that can't: made in place then, and judged by that.
                    Err(_) => {}
                }
            }
        }
        make_at(parent, wanted.name.as_bytes(), &wanted.what).map(|()| None)
    }

    /// Takes the name away if it is still what was made, unchanged.
    fn remove(&mut self, made: &Made) {
        if identity_at(&made.parent, &made.name).ok().flatten() != Some(made.identity) {
            return;
        }
        match made.pool.as_ref().and_then(|path| self.pools.get_mut(path)) {
            // `false`: somebody uses it by now.
            Some(pool) => drop(pool.take_back(&made.parent, &made.name, &made.what)),
            None => remove_unchanged(&made.parent, made.name.as_bytes(), &made.what),
        }
    }
}

/// [`Placeholders`] on their way to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedPlaceholders {
    made: Vec<SavedMade>,
    pools: Vec<SavedPool>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedMade {
    path: AbsPath,
    identity: FileIdentity,
    what: PlaceholderKind,
    parent: Fd,
    name: ByteString,
    runs: usize,
    since: Timestamp,
    pool: Option<AbsPath>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedPool {
    path: AbsPath,
    directory: Fd,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<AbsPath>,
    spare: Vec<Spare>,
    next: u64,
}

impl Placeholders {
    /// Hands everything over. Directories in pools stay locked: what is handed over is open.
    pub(super) fn save(&self, kept: &mut Kept) -> SavedPlaceholders {
        let Self { made, pools } = self;
        let made = made.iter().map(|(path, made)| made.save(path, kept)).collect();
        let pools = pools.iter().map(|(path, pool)| pool.save(path, kept)).collect();
        SavedPlaceholders { made, pools }
    }

    /// Takes everything over. Pools come last: one that is dropped removes what is in it.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub(super) fn restore(saved: SavedPlaceholders, adopted: &mut Adopted) -> Result<Self, HandoverError> {
        let mut restored = Self::default();
        for SavedMade { path, identity, what, parent, name, runs, since, pool } in saved.made {
            let parent = adopted.give(parent)?;
            restored.made.insert(path, Made { identity, what, parent, name, runs, since, pool });
        }
        let directories: Result<Vec<OwnedFd>, HandoverError> =
            saved.pools.iter().map(|pool| adopted.give(pool.directory)).collect();
        for (SavedPool { path, directory: _, place, spare, next }, directory) in
            saved.pools.into_iter().zip(directories?)
        {
            restored.pools.insert(path, Pool { directory, place, spare, next });
        }
        Ok(restored)
    }
}

#[cfg(test)]
impl Placeholders {
    /// Lets go of everything and leaves it where it is.
    pub(super) fn abandon(mut self) {
        for pool in self.pools.values_mut() {
            pool.spare.clear();
            pool.place = None;
        }
    }
}

impl Made {
    fn save(&self, path: &AbsPath, kept: &mut Kept) -> SavedMade {
        let Self { identity, what, parent, name, runs, since, pool } = self;
        SavedMade {
            path: path.clone(),
            identity: *identity,
            what: what.clone(),
            parent: kept.keep(parent),
            name: name.clone(),
            runs: *runs,
            since: *since,
            pool: pool.clone(),
        }
    }
}

impl Pool {
    fn save(&self, path: &AbsPath, kept: &mut Kept) -> SavedPool {
        let Self { directory, place, spare, next } = self;
        let (place, spare) = (place.clone(), spare.clone());
        SavedPool { path: path.clone(), directory: kept.keep(directory), place, spare, next: *next }
    }
}

fn remove_unchanged(parent: &OwnedFd, name: &[u8], what: &PlaceholderKind) {
    // An error means that somebody uses it: a directory with something in it, a file that grew. It is theirs now.
    match what {
        PlaceholderKind::Directory => {
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
        PlaceholderKind::File { content } => {
            if has_content(parent, name, content).unwrap_or(false) {
                let _ = rustix::fs::unlinkat(parent, name, AtFlags::empty());
            }
        }
    }
}

fn has_content(parent: &OwnedFd, name: &[u8], content: &ByteString) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let mut found = vec![0; content.as_bytes().len() + 1];
    let count = rustix::io::read(&file, &mut found)?;
    // A beginning of it has what its maker wrote before it was killed.
    Ok(content.as_bytes().starts_with(&found[..count]))
}

/// Removes what has a name that is wanted, if it is a placeholder of a run that was lost; whether it did.
fn remove_lost(
    home: &KeeperDir,
    path: &AbsPath,
    parent: &OwnedFd,
    wanted: &Placeholder,
    pool: Option<&AbsPath>,
) -> bool {
    let name = wanted.name.as_bytes();
    let is_lost = || {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok::<_, Errno>(
            is_kind(&stat, &wanted.what) && is_marked(&stat) && is_unused(parent, name, &wanted.what),
        )
    };
    if !is_lost().unwrap_or(false) || is_relied_on_elsewhere(home, path, pool) {
        return false;
    }
    remove_unchanged(parent, name, &wanted.what);
    true
}

fn is_kind(stat: &rustix::fs::Stat, what: &PlaceholderKind) -> bool {
    FileType::from_raw_mode(stat.st_mode)
        == match what {
            PlaceholderKind::Directory => FileType::Directory,
            PlaceholderKind::File { .. } => FileType::RegularFile,
        }
}

/// Whether a run of a keeper that lives, and is not the one at `home`, may rely on a placeholder: its journal says so, or
/// nobody here knows where its journal is. That one lives is seen by its directory in the pool.
fn is_relied_on_elsewhere(home: &KeeperDir, path: &AbsPath, pool: Option<&AbsPath>) -> bool {
    let beside = home.path().parent().and_then(|runtime| std::fs::read_dir(runtime).ok());
    let others = beside.into_iter().flatten().flatten().map(|entry| KeeperDir::at(entry.path()));
    let others: Vec<_> = others.filter(|other| other != home && records::keeper_is_alive(other)).collect();
    let known = |pid: &str| {
        let is_its =
            |other: &KeeperDir| std::fs::read_to_string(other.lock()).is_ok_and(|text| text.trim() == pid);
        pid == std::process::id().to_string() || others.iter().any(is_its)
    };
    living_in_pool(pool).iter().any(|pid| !known(pid))
        || others.iter().any(|other| has_in_a_journal(other, path))
}

/// The ids of the keepers that have a directory in the pool.
fn living_in_pool(pool: Option<&AbsPath>) -> Vec<String> {
    let Some(pool) = pool else { return Vec::new() };
    let mut living = Vec::new();
    for entry in std::fs::read_dir(pool.as_path()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(POOL_PREFIX)?.split_once('-'));
        if let Some((pid, _)) = pid
            && let Ok(place) = pool.join(name.as_encoded_bytes())
            && matches!(lock_pool(&place), Ok(None))
        {
            living.push(pid.to_owned());
        }
    }
    living
}

fn has_in_a_journal(keeper: &KeeperDir, path: &AbsPath) -> bool {
    let runs = std::fs::read_dir(keeper.processes()).into_iter().flatten().flatten();
    let mut journals = runs.filter_map(|run| std::fs::read(run.path().join(JOURNAL)).ok());
    journals.any(|text| match serde_json::from_slice::<Vec<Entry>>(&text) {
        Ok(entries) => entries.iter().any(|entry| entry.path == *path),
        // One that is just being written is not relied on yet; of another one nobody knows.
        Err(error) => !error.is_eof(),
    })
}

fn path_of(placeholder: &Placeholder) -> Result<AbsPath, ReserveError> {
    let fail = |_| ReserveError { path: placeholder.parent.path.clone(), errno: Errno::INVAL };
    placeholder.parent.path.join(placeholder.name.as_bytes()).map_err(fail)
}

fn open_parent(parent: &PinnedPath) -> Result<OwnedFd, Errno> {
    let fd = rustix::fs::openat2(
        rustix::fs::CWD,
        parent.path.as_bytes(),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    let stat = rustix::fs::fstat(&fd)?;
    // ESTALE: the path leads somewhere else than when the plan was made.
    if (stat.st_dev, stat.st_ino) == (parent.identity.dev, parent.identity.ino) {
        Ok(fd)
    } else {
        Err(Errno::STALE)
    }
}

fn make_at(parent: &OwnedFd, name: &[u8], what: &PlaceholderKind) -> Result<(), Errno> {
    match what {
        PlaceholderKind::Directory => {
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(Placeholder::DIRECTORY_MODE))?;
            // The umask of the keeper may have taken bits of the mark away.
            rustix::fs::chmodat(
                parent,
                name,
                Mode::from_raw_mode(Placeholder::DIRECTORY_MODE),
                AtFlags::empty(),
            )
        }
        PlaceholderKind::File { content } => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            // Marked from the first moment on, so that one who is killed in the next leaves what is known.
            let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(Placeholder::FILE_MODE))?;
            if !content.as_bytes().is_empty() {
                rustix::io::write(&file, content.as_bytes())?;
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(Placeholder::FILE_MODE))
        }
    }
}

fn identity_at(parent: &OwnedFd, name: &ByteString) -> Result<Option<FileIdentity>, Errno> {
    match rustix::fs::statat(parent, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(identity(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn write_journal(directory: BorrowedFd<'_>, entries: &[Entry]) -> Result<(), ReserveError> {
    let fail = |errno| ReserveError { path: AbsPath::root(), errno };
    let text = serde_json::to_vec(entries).map_err(|_| fail(Errno::INVAL))?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, JOURNAL, flags, Mode::RUSR | Mode::WUSR).map_err(fail)?;
    let written = rustix::io::write(&file, &text).map_err(fail)?;
    if written == text.len() { Ok(()) } else { Err(fail(Errno::NOSPC)) }
}

/// Removes the journal of a run whose names were released.
pub(super) fn forget(process_directory: BorrowedFd<'_>) {
    // One that stays names what is not there any more.
    let _ = rustix::fs::unlinkat(process_directory, JOURNAL, AtFlags::empty());
}

/// Removes what a run left behind whose keeper died before it released its names, as far as it carries our marks and
/// is not older than the run that it was made for.
pub(super) fn reclaim(process_directory: &Path, started: Timestamp) {
    let journal = process_directory.join(JOURNAL);
    let Ok(text) = std::fs::read(&journal) else { return };
    let entries = match serde_json::from_slice::<Vec<Entry>>(&text) {
        Ok(entries) => entries,
        // Its writer was killed before it made anything.
        Err(error) if error.is_eof() => Vec::new(),
        // It may mean something to another release.
        Err(_) => return,
    };
    for entry in entries {
        // Whatever can't be told to be ours stays.
        let _ = reclaim_one(&entry, entry.since.unwrap_or(started));
    }
    // Once is enough: what stayed is not ours, and what comes later belongs to others.
    let _ = std::fs::remove_file(journal);
}

fn reclaim_one(entry: &Entry, since: Timestamp) -> Result<(), Errno> {
    let (Some(parent), Some(name)) = (entry.path.parent(), entry.path.file_name()) else { return Ok(()) };
    let parent = rustix::fs::openat2(
        rustix::fs::CWD,
        parent.as_bytes(),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    let stat = rustix::fs::statat(parent.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
    let nanoseconds = |seconds: i64| u64::try_from(seconds).unwrap_or_default().saturating_mul(1_000_000_000);
    let changed = Timestamp(nanoseconds(stat.st_ctime).saturating_add(stat.st_ctime_nsec));
    let ours = is_kind(&stat, &entry.what) && is_marked(&stat) && since.since(changed) <= TICK;
    if ours {
        remove_unchanged(&parent, name, &entry.what);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    struct Scene {
        root: tempfile::TempDir,
        journals: Vec<tempfile::TempDir>,
        registry: Placeholders,
        pool: Option<AbsPath>,
        keeper: KeeperDir,
        _runtime: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let runtime = tempfile::tempdir().unwrap();
            Self {
                keeper: KeeperDir::at(runtime.path().join("k1-0")),
                _runtime: runtime,
                root: tempfile::tempdir().unwrap(),
                journals: Vec::new(),
                registry: Placeholders::default(),
                pool: None,
            }
        }

        /// With a pool beside the workspace, on the same file system.
        fn with_pool() -> (Self, tempfile::TempDir) {
            let pool = tempfile::tempdir().unwrap();
            let path = AbsPath::new(pool.path().join("deep/pool").into_os_string()).unwrap();
            (Self { pool: Some(path), ..Self::new() }, pool)
        }

        fn wanted(&self, name: &str, what: PlaceholderKind) -> Placeholder {
            let stat = std::fs::metadata(self.root.path()).unwrap();
            let identity = FileIdentity { dev: stat.dev(), ino: stat.ino(), kind: FileKind::Directory };
            let real = std::fs::canonicalize(self.root.path()).unwrap();
            let path = AbsPath::new(real.into_os_string()).unwrap();
            Placeholder { parent: PinnedPath { path, identity }, name: name.into(), what }
        }

        fn reserve(&mut self, wanted: &[Placeholder]) -> Vec<PinnedPath> {
            self.reserve_at(Timestamp(1), &[], wanted)
        }

        fn reserve_at(
            &mut self,
            started: Timestamp,
            joined: &[PinnedPath],
            wanted: &[Placeholder],
        ) -> Vec<PinnedPath> {
            self.journals.push(tempfile::tempdir().unwrap());
            let journal = self.journals.last().unwrap().path();
            let fd = rustix::fs::open(journal, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
            let run = Run { home: &self.keeper, directory: fd.as_fd(), started };
            self.registry.reserve(run, joined, wanted, self.pool.as_ref()).unwrap()
        }

        fn exists(&self, name: &str) -> bool {
            self.root.path().join(name).symlink_metadata().is_ok()
        }
    }

    #[test]
    fn a_missing_name_exists_as_long_as_any_run_needs_it() {
        let mut scene = Scene::new();
        let wanted = [scene.wanted(".codex", PlaceholderKind::Directory)];
        let first = scene.reserve(&wanted);
        let second = scene.reserve(&wanted);
        assert_eq!(first, second);
        scene.registry.release(&first);
        assert!(scene.exists(".codex"), "the second run still needs it");
        scene.registry.release(&second);
        assert!(!scene.exists(".codex"));
    }

    #[test]
    fn a_run_that_took_a_placeholder_for_a_file_of_the_host_keeps_it() {
        let mut scene = Scene::new();
        let first = scene.reserve(&[scene.wanted(".codex", PlaceholderKind::Directory)]);
        let second = scene.registry.join(first.iter());
        assert_eq!(first, second);
        scene.registry.release(&first);
        assert!(scene.exists(".codex"));
        scene.registry.release(&second);
        assert!(!scene.exists(".codex"));
    }

    #[test]
    fn what_was_there_before_is_protected_but_never_removed() {
        let mut scene = Scene::new();
        std::fs::create_dir(scene.root.path().join(".claude")).unwrap();
        let reserved = scene.reserve(&[scene.wanted(".claude", PlaceholderKind::Directory)]);
        assert_eq!(reserved.len(), 1);
        scene.registry.release(&reserved);
        assert!(scene.exists(".claude"));
    }

    #[test]
    fn a_placeholder_that_somebody_uses_by_now_stays() {
        let mut scene = Scene::new();
        let reserved = scene.reserve(&[scene.wanted(".agents", PlaceholderKind::Directory)]);
        let path = scene.root.path().join(".agents");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(path.join("mine"), "x").unwrap();
        scene.registry.release(&reserved);
        assert!(scene.exists(".agents/mine"));
    }

    #[test]
    fn a_file_placeholder_with_other_content_stays() {
        let mut scene = Scene::new();
        let what = PlaceholderKind::File { content: "".into() };
        let reserved = scene.reserve(&[scene.wanted("kept", what.clone()), scene.wanted("gone", what)]);
        let kept = scene.root.path().join("kept");
        std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&kept, "mine").unwrap();
        scene.registry.release(&reserved);
        assert!(scene.exists("kept") && !scene.exists("gone"));
    }

    #[test]
    fn a_symlink_in_place_of_a_protected_name_is_an_error() {
        let mut scene = Scene::new();
        std::os::unix::fs::symlink("/", scene.root.path().join(".codex")).unwrap();
        let wanted = [
            scene.wanted("other", PlaceholderKind::Directory),
            scene.wanted(".codex", PlaceholderKind::Directory),
        ];
        let journal = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(journal.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let run = Run { home: &scene.keeper, directory: fd.as_fd(), started: Timestamp(1) };
        let error = scene.registry.reserve(run, &[], &wanted, None).unwrap_err();
        assert_eq!(error.errno, Errno::LOOP);
        assert!(!scene.exists("other"), "what was made for the failed run is gone");
    }

    #[test]
    fn a_crash_leaves_nothing_that_the_next_keeper_does_not_reclaim() {
        let mut scene = Scene::new();
        std::fs::create_dir(scene.root.path().join("real")).unwrap();
        let wanted = [
            scene.wanted(".codex", PlaceholderKind::Directory),
            scene.wanted("real", PlaceholderKind::Directory),
            scene.wanted("file", PlaceholderKind::File { content: "".into() }),
        ];
        scene.reserve(&wanted);
        // The registry is lost with its keeper; the journal is not.
        reclaim(scene.journals[0].path(), Timestamp(1));
        assert!(!scene.exists(".codex") && !scene.exists("file") && scene.exists("real"));
    }

    #[test]
    fn a_crash_leaves_nothing_of_a_run_that_ended_when_later_ones_relied_on_it() {
        // Those runs were started long after the placeholder was made, one with it in its plan, one without.
        const LATE: Timestamp = Timestamp(u64::MAX);
        for joins in [true, false] {
            let mut scene = Scene::new();
            let wanted = [scene.wanted(".codex", PlaceholderKind::Directory)];
            let first = scene.reserve(&wanted);
            if joins {
                let joined = scene.registry.join(first.iter());
                scene.reserve_at(LATE, &joined, &[]);
            } else {
                scene.reserve_at(LATE, &[], &wanted);
            }
            scene.registry.release(&first);
            assert!(scene.exists(".codex"));
            reclaim(scene.journals[1].path(), LATE);
            assert!(!scene.exists(".codex"), "joins: {joins}");
        }
    }

    #[test]
    fn a_journal_of_an_earlier_version_is_understood() {
        let mut scene = Scene::new();
        scene.reserve(&[scene.wanted(".codex", PlaceholderKind::Directory)]);
        let path = scene.root.path().canonicalize().unwrap().join(".codex");
        let old = format!(r#"[{{"path":"{}","what":"directory"}}]"#, path.display());
        std::fs::write(scene.journals[0].path().join(JOURNAL), old).unwrap();
        reclaim(scene.journals[0].path(), Timestamp(1));
        assert!(!scene.exists(".codex"));
    }

    #[test]
    fn something_older_than_the_run_is_not_ours_but_for_a_tick() {
        for (later, is_ours) in [(TICK, true), (2 * TICK, false)] {
            let mut scene = Scene::new();
            scene.reserve(&[scene.wanted(".codex", PlaceholderKind::Directory)]);
            let stat = std::fs::metadata(scene.root.path().join(".codex")).unwrap();
            let made = Duration::new(stat.ctime().try_into().unwrap(), stat.ctime_nsec().try_into().unwrap());
            let started = Timestamp((made + later).as_nanos().try_into().unwrap());
            reclaim(scene.journals[0].path(), started);
            assert_eq!(scene.exists(".codex"), !is_ours, "{later:?}");
        }
    }

    #[test]
    fn a_pool_lends_a_placeholder_again_and_leaves_nothing_when_it_goes() {
        let (mut scene, pool) = Scene::with_pool();
        let wanted = [scene.wanted(".codex", PlaceholderKind::Directory)];
        let first = scene.reserve(&wanted);
        assert!(scene.exists(".codex"));
        scene.registry.release(&first);
        assert!(!scene.exists(".codex"));
        let second = scene.reserve(&wanted);
        assert_eq!(first, second, "the same directory came back");
        scene.registry.release(&second);
        scene.registry = Placeholders::default();
        assert_eq!(std::fs::read_dir(pool.path().join("deep/pool")).unwrap().count(), 0);
    }

    #[test]
    fn a_lent_placeholder_that_somebody_uses_by_now_stays_with_what_is_in_it() {
        let (mut scene, _pool) = Scene::with_pool();
        let file = PlaceholderKind::File { content: "".into() };
        let reserved =
            scene.reserve(&[scene.wanted(".claude", PlaceholderKind::Directory), scene.wanted("file", file)]);
        std::fs::write(scene.root.path().join(".claude/mine"), "x").unwrap();
        let path = scene.root.path().join("file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(path, "mine").unwrap();
        scene.registry.release(&reserved);
        assert!(scene.exists(".claude/mine") && scene.exists("file"));
    }

    #[test]
    fn a_crash_with_a_pool_leaves_nothing_in_the_workspace_either() {
        let (mut scene, _pool) = Scene::with_pool();
        scene.reserve(&[scene.wanted(".codex", PlaceholderKind::Directory)]);
        reclaim(scene.journals[0].path(), Timestamp(1));
        assert!(!scene.exists(".codex"));
    }

    /// A file or directory of this mode in the workspace, as a keeper leaves it that is killed while it makes one.
    fn leave(scene: &Scene, name: &str, what: &PlaceholderKind, mode: u32, content: &str) {
        let path = scene.root.path().join(name);
        match what {
            PlaceholderKind::Directory => std::fs::create_dir(&path).unwrap(),
            PlaceholderKind::File { .. } => std::fs::write(&path, content).unwrap(),
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_placeholder_whose_making_was_cut_short_is_known_and_one_that_somebody_changed_is_not() {
        let file = PlaceholderKind::File { content: ".\n".into() };
        let directory = PlaceholderKind::Directory;
        let table = [
            (&directory, 0o1700, "", true),
            (&directory, 0o3755, "", true),
            (&directory, 0o755, "", false),
            (&directory, 0o1777, "", false),
            (&file, 0o1400, "", true),
            (&file, 0o1400, ".\n", true),
            (&file, 0o1444, "..", false),
            (&file, 0o444, "", false),
        ];
        for (what, mode, content, is_ours) in table {
            let mut scene = Scene::new();
            scene.reserve(&[scene.wanted("x", what.clone())]);
            let path = scene.root.path().join("x");
            std::fs::remove_dir(&path).or_else(|_| std::fs::remove_file(&path)).unwrap();
            leave(&scene, "x", what, mode, content);
            reclaim(scene.journals[0].path(), Timestamp(1));
            assert_eq!(scene.exists("x"), !is_ours, "{what:?} {mode:o} {content:?}");
        }
    }

    #[test]
    fn a_placeholder_without_a_journal_is_given_back_by_the_next_run_that_wants_the_name() {
        let (mut scene, _pool) = Scene::with_pool();
        let file = PlaceholderKind::File { content: ".\n".into() };
        leave(&scene, ".codex", &PlaceholderKind::Directory, 0o1755, "");
        leave(&scene, "commondir", &file, 0o1444, "");
        let wanted = [scene.wanted(".codex", PlaceholderKind::Directory), scene.wanted("commondir", file)];
        let reserved = scene.reserve(&wanted);
        assert_eq!(std::fs::read_to_string(scene.root.path().join("commondir")).unwrap(), ".\n");
        scene.registry.release(&reserved);
        assert!(!scene.exists(".codex") && !scene.exists("commondir"));
    }

    #[test]
    fn a_placeholder_that_a_run_of_another_keeper_relies_on_is_left_to_it() {
        for (lives, stays) in [(true, true), (false, false)] {
            let mut scene = Scene::new();
            let other = KeeperDir::at(scene.keeper.path().with_file_name("k1-1"));
            other.ensure().unwrap();
            let run = other.processes().join("run");
            std::fs::create_dir(&run).unwrap();
            let wanted = [scene.wanted(".codex", PlaceholderKind::Directory)];
            let fd = rustix::fs::open(&run, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
            let mut theirs = Placeholders::default();
            let its = Run { home: &other, directory: fd.as_fd(), started: Timestamp(1) };
            assert_eq!(theirs.reserve(its, &[], &wanted, None).unwrap().len(), 1);
            let flags = OFlags::CREATE | OFlags::RDWR;
            let lock = rustix::fs::open(other.lock(), flags, Mode::RUSR | Mode::WUSR).unwrap();
            if lives {
                rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
            }
            let reserved = scene.reserve(&wanted);
            assert_eq!(reserved.len(), 1, "it is protected as it is");
            scene.registry.release(&reserved);
            assert_eq!(scene.exists(".codex"), stays);
        }
    }

    #[test]
    fn a_placeholder_stays_while_a_keeper_lives_of_whose_runs_nobody_knows() {
        for (lives, stays) in [(true, true), (false, false)] {
            let (mut scene, pool) = Scene::with_pool();
            leave(&scene, ".codex", &PlaceholderKind::Directory, 0o1755, "");
            let place = pool.path().join("deep/pool/keeper-1-1");
            std::fs::create_dir_all(&place).unwrap();
            let place = AbsPath::new(place.into_os_string()).unwrap();
            let _lock = lives.then(|| lock_pool(&place).unwrap().unwrap());
            let reserved = scene.reserve(&[scene.wanted(".codex", PlaceholderKind::Directory)]);
            assert_eq!(reserved.len(), 1, "it is protected as it is");
            scene.registry.release(&reserved);
            assert_eq!(scene.exists(".codex"), stays);
        }
    }

    #[test]
    fn a_lost_placeholder_that_somebody_uses_is_protected_and_stays() {
        let mut scene = Scene::new();
        leave(&scene, ".codex", &PlaceholderKind::Directory, 0o1755, "");
        std::fs::write(scene.root.path().join(".codex/mine"), "x").unwrap();
        let reserved = scene.reserve(&[scene.wanted(".codex", PlaceholderKind::Directory)]);
        assert_eq!(reserved.len(), 1);
        scene.registry.release(&reserved);
        assert!(scene.exists(".codex/mine"));
    }

    #[test]
    fn what_dead_keepers_left_in_a_pool_is_removed_and_what_living_ones_have_there_is_not() {
        let (mut scene, pool) = Scene::with_pool();
        let place = pool.path().join("deep/pool");
        for name in ["keeper-1-1", "keeper-2-1", "keeper-3-1"] {
            std::fs::create_dir_all(place.join(name).join("1")).unwrap();
            std::fs::write(place.join(name).join("2=2e0a"), ".").unwrap();
        }
        let living = AbsPath::new(place.join("keeper-2-1").into_os_string()).unwrap();
        let _lock = lock_pool(&living).unwrap().unwrap();
        std::fs::write(place.join("keeper-3-1/2=2e0a"), "mine").unwrap();
        std::fs::write(place.join("keeper-3-1/1/mine"), "x").unwrap();
        scene.reserve(&[scene.wanted(".codex", PlaceholderKind::Directory)]);
        let count = |name: &str| std::fs::read_dir(place.join(name)).map(Iterator::count).ok();
        let found = ["keeper-1-1", "keeper-2-1", "keeper-3-1"].map(count);
        assert_eq!(found, [None, Some(2), Some(2)], "what somebody used is nobody's to remove");
    }

    #[test]
    fn spares_say_by_their_names_what_they_are() {
        let contents = ["", ".\n"].map(|content| PlaceholderKind::File { content: content.into() });
        for what in contents.into_iter().chain([PlaceholderKind::Directory]) {
            assert_eq!(spare_kind(&spare_name(7, &what)), Some(what));
        }
        for other in ["", "x", "7=0g", "7=é", "=00"] {
            assert_eq!(spare_kind(other), None, "{other}");
        }
    }

    #[test]
    fn a_journal_that_was_cut_short_goes_and_one_that_is_not_understood_stays() {
        for (text, stays) in [("", false), ("[{\"path\":\"/", false), ("{\"later\":1}", true)] {
            let journal = tempfile::tempdir().unwrap();
            std::fs::write(journal.path().join(JOURNAL), text).unwrap();
            reclaim(journal.path(), Timestamp(1));
            assert_eq!(journal.path().join(JOURNAL).exists(), stays, "{text}");
        }
    }
}
