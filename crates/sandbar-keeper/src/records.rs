//! Records of processes in the runtime directory: written by the keeper, read by everybody of this user.
//!
//! A start record exists before its process runs, an end record before anybody is told of the end. The space
//! of the end record is taken at the start, so that a full directory can't lose how a process ended. A run with
//! a start record, no end record and no keeper was lost; the next keeper writes that down.

use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use sandbar_proto::{ByteString, EndRecord, InputId, OutputTotals, RunId, Seq, StartRecord};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::handover::{Adopted, Fd, HandoverError, Kept};
use crate::log::last_record;
use crate::runtime_dir::KeeperDir;

const START: &str = "start.json";
const END: &str = "end.json";
const END_RESERVED: &str = "end.json.new";
/// Everything that was written, where something was behind the end: its last sequence number is the one before the
/// close.
const CLOSED: &str = "closed.json";
/// What was accepted as its input under names, where something was: whoever did not hear so asks again, also when the
/// process has ended.
const INPUTS: &str = "inputs.json";
/// An empty file that says that the run's rollout is complete.
const RECORDED: &str = "recorded";

/// Room for an end record, which has no part of unbounded size; one block of any file system.
const END_BYTES: u64 = 4096;

/// The directory of one process, as its keeper holds it.
#[derive(Debug)]
pub(crate) struct ProcessDir {
    path: PathBuf,
    directory: OwnedFd,
    end: Option<OwnedFd>,
}

impl ProcessDir {
    /// Makes the directory of a new process, with its start record and the space of its end record.
    ///
    /// # Errors
    /// The kernel's; nothing is left behind. EEXIST for an id that was used before.
    pub(crate) fn create(keeper: &KeeperDir, start: &StartRecord) -> Result<Self, Errno> {
        let path = keeper.processes().join(start.id.to_string());
        rustix::fs::mkdir(&path, Mode::RWXU)?;
        let made = Self::fill(path.clone(), start);
        if made.is_err() {
            // Whatever was made is of this id only; the error that counts is the one above.
            remove(&path);
        }
        made
    }

    fn fill(path: PathBuf, start: &StartRecord) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = rustix::fs::open(&path, flags, Mode::empty())?;
        write_new(directory.as_fd(), START, &serde_json::to_vec(start).map_err(|_| Errno::INVAL)?)?;
        let end = create(directory.as_fd(), END_RESERVED)?;
        match rustix::fs::fallocate(&end, FallocateFlags::KEEP_SIZE, 0, END_BYTES) {
            // Not every file system can reserve; there a full disk at the end is what it is.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
        Ok(Self { path, directory, end: Some(end) })
    }

    /// The directory itself.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Writes the end record; it is there, whole, when this returns.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn finish(&mut self, end: &EndRecord) -> Result<(), Errno> {
        let text = serde_json::to_vec(end).map_err(|_| Errno::INVAL)?;
        let Some(file) = self.end.take() else { return Err(Errno::ALREADY) };
        write_all(&file, &text)?;
        rustix::fs::renameat(&self.directory, END_RESERVED, &self.directory, END)
    }

    /// Writes down what was written in all. `closing` has the number of the close as its last.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn close(&self, closing: &OutputTotals) -> Result<(), Errno> {
        let last_seq = Seq(closing.last_seq.0.saturating_sub(1));
        let text = serde_json::to_vec(&OutputTotals { last_seq, ..*closing }).map_err(|_| Errno::INVAL)?;
        write_new(self.directory.as_fd(), CLOSED, &text)
    }

    /// Writes down what was accepted as input, in bytes under each name.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn note_inputs(&self, accepted: &[(InputId, u64)]) -> Result<(), Errno> {
        let text = serde_json::to_vec(accepted).map_err(|_| Errno::INVAL)?;
        write_new(self.directory.as_fd(), INPUTS, &text)
    }

    /// Removes the directory and everything in it: the process never ran.
    pub(crate) fn discard(self) {
        remove(&self.path);
    }
}

/// A [`ProcessDir`] on its way to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedDir {
    path: ByteString,
    directory: Fd,
    end: Option<Fd>,
}

impl ProcessDir {
    /// Hands the directory over.
    pub(crate) fn save(&self, kept: &mut Kept) -> SavedDir {
        let Self { path, directory, end } = self;
        SavedDir {
            path: path.as_os_str().into(),
            directory: kept.keep(directory),
            end: end.as_ref().map(|end| kept.keep(end)),
        }
    }

    /// Takes a directory over.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub(crate) fn restore(saved: SavedDir, adopted: &mut Adopted) -> Result<Self, HandoverError> {
        let SavedDir { path, directory, end } = saved;
        Ok(Self {
            path: path.to_os_string().into(),
            directory: adopted.give(directory)?,
            end: end.map(|end| adopted.give(end)).transpose()?,
        })
    }
}

fn create(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)
}

fn write_new(directory: BorrowedFd<'_>, name: &str, text: &[u8]) -> Result<(), Errno> {
    write_all(&create(directory, name)?, text)
}

fn write_all(file: &OwnedFd, text: &[u8]) -> Result<(), Errno> {
    let mut file = std::fs::File::from(file.try_clone().map_err(|error| errno(&error))?);
    file.write_all(text).map_err(|error| errno(&error))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// What is written down of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// How it was started.
    pub start: StartRecord,
    /// How it ended; absent while it runs.
    pub end: Option<EndRecord>,
    /// Its directory, with its log.
    pub path: PathBuf,
}

impl Record {
    /// Whether it has a rollout that nobody called complete.
    #[must_use]
    pub fn is_unrecorded(&self) -> bool {
        self.start.rollout.is_some() && !self.path.join(RECORDED).exists()
    }

    /// What was written in all; its last sequence number is the highest before that of the close. Of a process that
    /// runs, what is in its log by now.
    #[must_use]
    pub fn output(&self) -> OutputTotals {
        let Some(end) = &self.end else { return logged(&self.path) };
        // Its keeper may have died after the end and before the close.
        let found = read_json(&self.path.join(CLOSED)).unwrap_or_else(|| logged(&self.path));
        if found.last_seq > end.output.last_seq { found } else { end.output }
    }
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read the records in {}: {errno}", path.display())]
pub struct RecordsError {
    /// The directory.
    pub path: PathBuf,
    /// The kernel's error.
    pub errno: Errno,
}

/// All records of one keeper, oldest first. A run that is being made or removed right now is left out.
///
/// # Errors
/// [`RecordsError`] if the directory can't be read; a missing one is empty.
pub fn read_all(keeper: &KeeperDir) -> Result<Vec<Record>, RecordsError> {
    let path = keeper.processes();
    let fail = |error: std::io::Error| RecordsError { path: path.clone(), errno: errno(&error) };
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut records = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let id = entry.file_name().to_str().and_then(|name| name.parse::<RunId>().ok());
        if let Some(record) = id.and_then(|_| read(&entry.path())) {
            records.push(record);
        }
    }
    records.sort_by_key(|record| record.start.id);
    Ok(records)
}

/// Removes the directory of a process. The start record goes first: a directory without one is that of no run, whatever
/// else is in it, and the next keeper removes what could not be removed now.
pub(crate) fn remove(directory: &Path) {
    let _ = std::fs::remove_file(directory.join(START));
    let _ = std::fs::remove_dir_all(directory);
}

/// Removes directories without a start record: their keeper was killed while it made or removed them, and nothing of
/// theirs ran. For the keeper alone, which makes them.
pub(crate) fn remove_unfinished(keeper: &KeeperDir) {
    let entries = std::fs::read_dir(keeper.processes()).into_iter().flatten().flatten();
    let is_run = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.parse::<RunId>().is_ok());
    for entry in entries.filter(|entry| is_run(&entry.file_name())) {
        let is_unfinished = match std::fs::read(entry.path().join(START)) {
            // One that is whole and not understood is another release's.
            Ok(text) => {
                serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_err_and(|error| error.is_eof())
            }
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if is_unfinished {
            remove(&entry.path());
        }
    }
}

/// The record in a process's directory, unless it has no readable start record.
#[must_use]
pub fn read(path: &Path) -> Option<Record> {
    let start = read_json(&path.join(START))?;
    Some(Record { start, end: read_json(&path.join(END)), path: path.to_owned() })
}

/// How many bytes the process in `directory`, which has ended, accepted of the input of that name. `None` where that is
/// not on record, as in what releases before this one left.
pub(crate) fn accepted_input(directory: &Path, name: InputId) -> Option<u64> {
    let accepted: Vec<(InputId, u64)> = read_json(&directory.join(INPUTS))?;
    accepted.into_iter().find_map(|(known, bytes)| (known == name).then_some(bytes))
}

/// What the log in `directory` says of what was written; what was dropped from it is not known.
fn logged(directory: &Path) -> OutputTotals {
    // A log that can't be read says nothing; its readers are told why.
    match last_record(directory) {
        Ok(Some(header)) => OutputTotals {
            bytes: header.offset_bytes + u64::from(header.length),
            dropped_bytes: 0,
            last_seq: header.seq,
        },
        Ok(None) | Err(_) => OutputTotals::default(),
    }
}

/// The output of a process that was lost with its keeper, with the number of its end behind it.
pub(crate) fn lost_output(directory: &Path) -> OutputTotals {
    let logged = logged(directory);
    OutputTotals { last_seq: logged.last_seq.next(), ..logged }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Notes that the rollout of the run in `directory` is complete.
///
/// # Errors
/// The kernel's.
pub(crate) fn mark_recorded(directory: &Path) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(directory.join(RECORDED), flags, Mode::RUSR | Mode::WUSR).map(drop)
}

/// Whether a keeper lives in this directory: it holds the lock.
#[must_use]
pub fn keeper_is_alive(keeper: &KeeperDir) -> bool {
    let Ok(file) = rustix::fs::open(keeper.lock(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    // Shared: two who look at the same time are not each other's keeper.
    matches!(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared), Err(Errno::AGAIN))
}

/// Writes the end of a run that its keeper did not see: the start record says what it was.
pub(crate) fn write_lost(record: &Record, end: &EndRecord) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let directory = rustix::fs::open(&record.path, flags, Mode::empty())?;
    let text = serde_json::to_vec(end).map_err(|_| Errno::INVAL)?;
    match rustix::fs::unlinkat(&directory, END_RESERVED, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    write_new(directory.as_fd(), END_RESERVED, &text)?;
    rustix::fs::renameat(&directory, END_RESERVED, &directory, END)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_proto::{AbsPath, ExitStatus, Lifetime, ResourceUse, Timestamp};

    fn start(id: RunId) -> StartRecord {
        StartRecord {
            id,
            argv: vec!["true".into()],
            cwd: AbsPath::root(),
            started: Timestamp(1),
            profile: "workspace".to_owned(),
            lifetime: Lifetime::Detached,
            holder_pid: None,
            terminal: false,
            rollout: None,
            owner: None,
            limits: Vec::new(),
            cgroup: None,
        }
    }

    fn end(id: RunId) -> EndRecord {
        EndRecord {
            id,
            status: ExitStatus::Exited { code: 3 },
            ended: Timestamp(2),
            usage: ResourceUse::default(),
            output: OutputTotals::default(),
            timed_out: false,
            limits: Vec::new(),
            out_of_memory: None,
            unprotected: None,
        }
    }

    fn keeper() -> (tempfile::TempDir, KeeperDir) {
        let parent = tempfile::tempdir().unwrap();
        let keeper = KeeperDir::at(parent.path().join("k1-0"));
        keeper.ensure().unwrap();
        (parent, keeper)
    }

    #[test]
    fn a_run_is_on_record_before_and_after_its_end() {
        let (_parent, keeper) = keeper();
        let id = RunId::generate();
        let mut process = ProcessDir::create(&keeper, &start(id)).unwrap();
        assert_eq!(read_all(&keeper).unwrap()[0].end, None);
        process.finish(&end(id)).unwrap();
        let records = read_all(&keeper).unwrap();
        assert_eq!((records[0].start.clone(), records[0].end.clone()), (start(id), Some(end(id))));
    }

    #[test]
    fn an_id_is_used_once() {
        let (_parent, keeper) = keeper();
        let id = RunId::generate();
        let _first = ProcessDir::create(&keeper, &start(id)).unwrap();
        assert_eq!(ProcessDir::create(&keeper, &start(id)).unwrap_err(), Errno::EXIST);
        assert_eq!(read_all(&keeper).unwrap().len(), 1, "the first one is still there");
    }

    #[test]
    fn a_run_that_never_ran_leaves_nothing() {
        let (_parent, keeper) = keeper();
        ProcessDir::create(&keeper, &start(RunId::generate())).unwrap().discard();
        assert_eq!(read_all(&keeper).unwrap(), []);
    }

    #[test]
    fn a_lost_run_gets_its_end_from_the_next_keeper() {
        let (_parent, keeper) = keeper();
        let id = RunId::generate();
        drop(ProcessDir::create(&keeper, &start(id)).unwrap());
        let lost = EndRecord { status: ExitStatus::Lost, ..end(id) };
        write_lost(&read_all(&keeper).unwrap()[0], &lost).unwrap();
        assert_eq!(read_all(&keeper).unwrap()[0].end, Some(lost));
    }

    #[test]
    fn a_directory_whose_making_or_removal_was_cut_short_is_removed() {
        let (_parent, keeper) = keeper();
        let leave = |start: Option<&str>| {
            let place = keeper.processes().join(RunId::generate().to_string());
            std::fs::create_dir(&place).unwrap();
            std::fs::write(place.join(END), "").unwrap();
            start.into_iter().for_each(|text| std::fs::write(place.join(START), text).unwrap());
            place
        };
        let unfinished = [leave(None), leave(Some("")), leave(Some("{\"id\":"))];
        let others = [leave(Some("{\"later\":1}")), keeper.processes().join("notes")];
        std::fs::create_dir(&others[1]).unwrap();
        let kept = RunId::generate();
        drop(ProcessDir::create(&keeper, &start(kept)).unwrap());
        remove_unfinished(&keeper);
        assert!(unfinished.iter().all(|place| !place.exists()));
        assert!(others.iter().all(|place| place.exists()), "they mean something to somebody else");
        assert_eq!(read_all(&keeper).unwrap().len(), 1);
    }

    #[test]
    fn a_lock_tells_a_living_keeper_from_a_dead_one() {
        let (_parent, keeper) = keeper();
        assert!(!keeper_is_alive(&keeper), "no lock file");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let lock = rustix::fs::open(keeper.lock(), flags, Mode::RUSR | Mode::WUSR).unwrap();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert!(keeper_is_alive(&keeper));
        drop(lock);
        assert!(!keeper_is_alive(&keeper));
    }
}
