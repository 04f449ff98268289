//! The sessions directory: where rollouts are, how they are named, how they are begun.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use rustix::io::Errno;
use sandbar_proto::{
    AbsPath, ByteString, HistoryMode, NetworkMode, RecordedBy, RecordedOutput, RolloutEvent, RolloutItem,
    RunId, RunStarted, SandboxSummary, SessionMeta, TakeoverReason, TaskStarted, Timestamp, TurnContext,
};

use crate::log_file::{DiskFile, Sharing, errno_of, sync_directory};
use crate::output::{BoundedOutput, OutputBounds, Progress};
use crate::recorder::{Recorder, Subject};
use crate::resume;
use crate::rollout::{Durability, Position, Rollout};
use crate::time::{name_parts, rfc3339_ms, unix_seconds};
use crate::{Step, StoreError};

/// A rollout's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutPath {
    path: PathBuf,
    id: RunId,
}

impl RolloutPath {
    pub(crate) fn new(path: PathBuf, id: RunId) -> Self {
        Self { path, id }
    }

    /// The file.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.path
    }

    /// The run that it records.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.id
    }
}

impl AsRef<Path> for RolloutPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// What is known of a run before it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMeta {
    /// The run; also the id of its thread and its only turn.
    pub id: RunId,
    /// Program and arguments.
    pub argv: Vec<ByteString>,
    /// Where it runs.
    pub cwd: AbsPath,
    /// Name of the profile.
    pub profile: String,
    /// Reach of the network.
    pub network: NetworkMode,
    /// Where it may write.
    pub writable_roots: Vec<AbsPath>,
    /// What a person should know about the sandbox.
    pub notes: Vec<String>,
    /// How many environment variables were withheld from it.
    pub withheld_env: u32,
    /// When it is started.
    pub started: Timestamp,
    /// The process that holds its tree, if it runs already; see [`sandbar_proto::StartRecord::holder_pid`].
    pub holder_pid: Option<u32>,
}

/// A sessions directory. Holds no lock and no open file; cheap to make again.
#[derive(Debug, Clone)]
pub struct Store {
    sessions_dir: PathBuf,
    zone: TimeZone,
}

impl Store {
    /// Opens the store at `sessions_dir`, creating it and what is missing above it with mode 0700. Modes of
    /// directories that exist stay as they are. File names use the system's time zone.
    ///
    /// # Errors
    /// When a directory cannot be created or, once created, not be written to the disk.
    pub fn open(sessions_dir: &Path) -> Result<Self, StoreError> {
        Self::open_in_zone(sessions_dir, TimeZone::system())
    }

    pub(crate) fn open_in_zone(sessions_dir: &Path, zone: TimeZone) -> Result<Self, StoreError> {
        for directory in create_private_directories(sessions_dir)? {
            sync_directory(&directory)
                .map_err(|errno| StoreError::new(Step::SyncDirectory, &directory, errno))?;
        }
        Ok(Self { sessions_dir: sessions_dir.to_owned(), zone })
    }

    /// Begins the rollout of a run that is about to be started; when this returns, the command is recorded.
    ///
    /// # Errors
    /// When the rollout cannot be created or begun; then it is not there. [`StoreError::NotDurable`] with
    /// [`Durability::Line`] only.
    pub fn record(
        &self,
        meta: RunMeta,
        durability: Durability,
        bounds: OutputBounds,
    ) -> Result<Recorder, StoreError> {
        let (date, time) = name_parts(meta.started, &self.zone);
        let directory = self.sessions_dir.join(date);
        let mut unsynced = create_private_directories(&directory)?;
        let path = directory.join(format!("rollout-{time}-{}.jsonl", meta.id));
        unsynced.push(directory);
        let file = DiskFile::create(&path, unsynced)?;
        let locking = file.locking();
        let mut rollout = Rollout::new(Box::new(file), path.clone(), Position::START, durability);
        let recorded_by = RecordedBy::Run;
        let subject = Subject { run: meta.id, turn: meta.id, started: meta.started, recorded_by };
        if let Err(error) = begin(&mut rollout, meta) {
            // Ours alone, with nothing acknowledged in it. Should it stay, it is one more unfinished run.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let output = BoundedOutput::new(bounds, Progress::default());
        Ok(Recorder::new(rollout, locking, subject, output, RecordedOutput::default()))
    }

    /// Goes on with the rollout of a run whose recorder is gone. Lines that are there stay, byte for byte, also
    /// those that nobody here understands; a torn last line is ended before the next one is written.
    ///
    /// The caller makes sure that the former recorder is gone, and gives the events after
    /// [`Recorder::settled_seq`].
    ///
    /// # Errors
    /// [`StoreError::Complete`] when nothing is missing, [`StoreError::NotARun`] when nothing says what is
    /// recorded, else what opening and reading gives.
    pub fn resume(
        &self,
        path: &Path,
        durability: Durability,
        bounds: OutputBounds,
    ) -> Result<Recorder, StoreError> {
        go_on(DiskFile::open(path, Sharing::Shared)?, path, durability, bounds)
    }

    /// The same for a recording that another process has given up, which is written down first. As long as somebody
    /// has the rollout open, it is [`StoreError::Locked`].
    ///
    /// # Errors
    /// As [`Store::resume`].
    pub fn take_over(
        path: &Path,
        at: Timestamp,
        reason: TakeoverReason,
        durability: Durability,
        bounds: OutputBounds,
    ) -> Result<Recorder, StoreError> {
        let file = DiskFile::open(path, Sharing::Alone)?;
        let mut recorder = go_on(file, path, durability, bounds)?;
        recorder.taken_over(at, reason)?;
        Ok(recorder)
    }
}

/// Goes on with the rollout in `file`.
fn go_on(
    mut file: DiskFile,
    path: &Path,
    durability: Durability,
    bounds: OutputBounds,
) -> Result<Recorder, StoreError> {
    let found = resume::scan(&mut std::io::BufReader::new(file.file()))
        .map_err(|error| StoreError::new(Step::Read, path, errno_of(&error)))?;
    if found.turn_is_complete {
        return Err(StoreError::Complete { path: path.to_owned() });
    }
    let (Some(run), Some(turn)) = (&found.run, found.turn) else {
        return Err(StoreError::NotARun { path: path.to_owned() });
    };
    let recorded_by = RecordedBy::Attend;
    let subject = Subject { run: run.run_id, turn, started: run.started, recorded_by };
    file.share(path)?;
    let locking = file.locking();
    let rollout = Rollout::new(Box::new(file), path.to_owned(), found.position, durability);
    let output = BoundedOutput::new(bounds, found.progress);
    let recorder = Recorder::new(rollout, locking, subject, output, found.recorded);
    Ok(match found.ended {
        Some(ended) => recorder.with_recorded_end(ended),
        None => recorder,
    })
}

/// Writes the lines that come before a run's output.
fn begin(rollout: &mut Rollout, meta: RunMeta) -> Result<(), StoreError> {
    let at = meta.started;
    let session = SessionMeta {
        id: meta.id,
        session_id: meta.id,
        timestamp: rfc3339_ms(at),
        cwd: meta.cwd.clone(),
        originator: "sandbar".into(),
        cli_version: env!("CARGO_PKG_VERSION").into(),
        source: "run".into(),
        history_mode: HistoryMode::Paginated,
    };
    let context = TurnContext {
        turn_id: meta.id,
        cwd: meta.cwd.clone(),
        sandbox: SandboxSummary {
            profile: meta.profile.clone(),
            network: meta.network,
            writable_roots: meta.writable_roots,
            notes: meta.notes,
        },
        withheld_env: meta.withheld_env,
    };
    let turn = TaskStarted { turn_id: meta.id, started_at: unix_seconds(at) };
    let run = RunStarted {
        run_id: meta.id,
        command: meta.argv,
        cwd: meta.cwd,
        profile: meta.profile,
        started: meta.started,
        holder_pid: meta.holder_pid,
    };
    rollout.append(at, RolloutItem::SessionMeta(session))?;
    rollout.append(at, RolloutItem::TurnContext(context))?;
    rollout.append(at, RolloutItem::EventMsg(RolloutEvent::TaskStarted(turn)))?;
    rollout.append(at, RolloutItem::EventMsg(RolloutEvent::RunStarted(run)))
}

/// Creates what is missing of a path, 0700; returns the directories that have a new entry.
fn create_private_directories(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|directory| !directory.as_os_str().is_empty() && !directory.exists())
        .collect();
    let mut changed = Vec::new();
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(directory).map_err(|error| errno_of(&error)) {
            // The caller's umask may have taken our own rights away.
            Ok(()) => fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
                .map_err(|error| StoreError::new(Step::CreateDirectory, directory, errno_of(&error)))?,
            // Another recorder was faster, and syncs it too: that costs nothing and needs no agreement.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(StoreError::new(Step::CreateDirectory, directory, errno)),
        }
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        changed.push(parent.unwrap_or(Path::new(".")).to_owned());
    }
    Ok(changed)
}
