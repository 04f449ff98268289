//! The record of a run: its thread in the store, or none when nobody wants one.

use std::path::Path;

use sandbar_policy::{Access, Compiled, ResolvedEnv};
use sandbar_proto::{AbsPath, ProcessEvent, RunId, Timestamp};
use sandbar_store::{Durability, OutputBounds, Recorder, RunMeta, StartFailure, Store, StoreError};

use crate::cli::RunArgs;
use crate::dirs::Directories;
use crate::exit;
use crate::render::{Problem, note};

/// The record of one run.
pub(super) struct Record {
    recorder: Option<Recorder>,
    /// Whether the person knows that something could not be recorded.
    told: bool,
}

impl Record {
    /// None at all.
    pub(super) fn none() -> Self {
        Self { recorder: None, told: true }
    }

    /// Begins the record; its first lines are written when this returns, so nothing runs unrecorded.
    ///
    /// # Errors
    /// The store can't be written.
    pub(super) fn begin(
        args: &RunArgs,
        directories: &Directories,
        id: RunId,
        compiled: &Compiled,
        env: &ResolvedEnv,
    ) -> Result<Self, Problem> {
        if args.no_record {
            return Ok(Self::none());
        }
        let spec = compiled.plan.spec();
        Self::begin_with(
            directories,
            RunMeta {
                id,
                argv: spec.argv.clone(),
                cwd: spec.cwd.path.clone(),
                profile: spec.profile.clone(),
                network: compiled.network,
                writable_roots: writable_roots(compiled),
                notes: compiled.notes.iter().map(ToString::to_string).collect(),
                withheld_env: u32::try_from(env.withheld_count()).unwrap_or(u32::MAX),
                started: Timestamp::now(),
                holder_pid: None,
            },
        )
    }

    /// As [`Self::begin`], with what is known of a run.
    ///
    /// # Errors
    /// The store can't be written.
    pub(super) fn begin_with(directories: &Directories, meta: RunMeta) -> Result<Self, Problem> {
        let sessions = directories.sessions();
        let recorder = Store::open(&sessions)
            .and_then(|store| store.record(meta, Durability::Turn, OutputBounds::default()))
            .map_err(|error| problem(&error, &sessions))?;
        Ok(Self { recorder: Some(recorder), told: false })
    }

    /// Records an event.
    pub(super) fn event(&mut self, event: &ProcessEvent) {
        let result = self.recorder.as_mut().map_or(Ok(()), |recorder| recorder.event(event));
        self.tell(result);
    }

    /// Records what was collected, because nothing came for a while.
    pub(super) fn flush(&mut self) {
        let result = self.recorder.as_mut().map_or(Ok(()), Recorder::flush);
        self.tell(result);
    }

    /// Records that the command never ran.
    pub(super) fn failed_to_start(mut self, step: &str, errno: i32, reason: &str) {
        if let Some(mut recorder) = self.recorder.take() {
            let errno = (errno != 0).then_some(errno);
            recorder.failed_to_start(
                Timestamp::now(),
                StartFailure { step: step.to_owned(), errno, reason: reason.to_owned() },
            );
            let result = recorder.finish().map(drop);
            self.tell(result);
        }
    }

    /// Completes the record; `false` where there is none, or not a whole one.
    pub(super) fn finish(&mut self) -> bool {
        let Some(recorder) = self.recorder.take() else { return false };
        let result = recorder.finish().map(drop);
        let is_whole = result.is_ok();
        self.tell(result);
        is_whole
    }

    /// Stops where it is: somebody else goes on. `false` where there is nothing to go on with.
    pub(super) fn leave(&mut self) -> bool {
        self.flush();
        self.recorder.take().is_some()
    }

    /// Where it is written.
    pub(super) fn rollout(&self) -> Option<AbsPath> {
        let path = self.recorder.as_ref()?.path();
        AbsPath::new(path.as_os_str().to_owned()).ok()
    }

    /// Up to where the output is settled in it; everything where there is no record.
    pub(super) fn needed_from(&self) -> Option<u64> {
        self.recorder.as_ref().map(Recorder::needed_from)
    }

    /// Says once that the record is not whole. The command goes on: it is not the command that failed.
    fn tell(&mut self, result: Result<(), StoreError>) {
        if let Err(error) = result
            && !self.told
        {
            self.told = true;
            note(format_args!("could not record everything of this run: {error}."));
        }
    }
}

fn writable_roots(compiled: &Compiled) -> Vec<AbsPath> {
    let writable = compiled.permissions.entries().iter().filter(|entry| entry.access == Access::Write);
    writable.map(|entry| entry.pattern.base().clone()).collect()
}

fn problem(error: &StoreError, sessions: &Path) -> Problem {
    Problem::new(format!("could not record the run: {error}"))
        .at(sessions.display())
        .advise("make the folder writable and see that its disk has space, or run with --no-record")
        .status(exit::CANNOT_RUN)
}
