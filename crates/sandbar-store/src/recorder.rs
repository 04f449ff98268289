//! Recording one run: events in, lines out.
//!
//! A line that could not be written is an error to the caller and, if it was output, a stated gap in the
//! rollout as soon as writing works again; the recorder goes on either way, and never keeps more in memory
//! than its bounds. The end of the run is written by [`Recorder::finish`], after the output that may still come
//! from what the leader left behind.

use std::path::Path;

use sandbar_proto::{
    EndRecord, ExitStatus, GapReason, ProcessEvent, RecordedBy, RecordedOutput, RolloutEvent, RolloutItem,
    RunEnded, RunId, RunNotStarted, RunOutput, RunOutputGap, RunTakenOver, Seq, TakeoverReason, TaskComplete,
    Timestamp,
};

use crate::log_file::Locking;
use crate::output::BoundedOutput;
use crate::rollout::Rollout;
use crate::segment::{Chunk, Missing, Piece, Segment};
use crate::store::RolloutPath;
use crate::time::unix_seconds;
use crate::{StoreError, signal};

/// Why a command could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// Which step failed.
    pub step: String,
    /// errno(3), where there was one.
    pub errno: Option<i32>,
    /// Why, for people.
    pub reason: String,
}

/// What is still to be written about how it ended.
#[derive(Debug)]
enum Outcome {
    /// Nobody told yet.
    Unknown,
    /// The leader ended.
    Ended(EndRecord),
    /// It was never started.
    NotStarted(Timestamp, StartFailure),
    /// It is in the rollout already.
    Recorded,
}

/// Which run of which turn is recorded, by whom, since when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) run: RunId,
    pub(crate) turn: RunId,
    pub(crate) started: Timestamp,
    pub(crate) recorded_by: RecordedBy,
}

/// Writes one run into its rollout. See the module.
///
/// Dropping it unfinished leaves the turn open: what was not flushed and the tail are not recorded, until
/// [`crate::Store::resume`] takes over and is given the events again.
#[derive(Debug)]
pub struct Recorder {
    rollout: Rollout,
    path: RolloutPath,
    locking: Locking,
    subject: Subject,
    output: BoundedOutput,
    recorded: RecordedOutput,
    unwritten: Option<Missing>,
    outcome: Outcome,
    latest: Timestamp,
}

impl Recorder {
    pub(crate) fn new(
        rollout: Rollout,
        locking: Locking,
        subject: Subject,
        output: BoundedOutput,
        recorded: RecordedOutput,
    ) -> Self {
        let path = RolloutPath::new(rollout.path().to_owned(), subject.run);
        let (unwritten, outcome, latest) = (None, Outcome::Unknown, subject.started);
        Self { rollout, path, locking, subject, output, recorded, unwritten, outcome, latest }
    }

    /// Says that the rollout has the run's end already, so that only the turn's is missing.
    pub(crate) fn with_recorded_end(mut self, ended: Timestamp) -> Self {
        self.outcome = Outcome::Recorded;
        self.latest = ended;
        self
    }

    /// The rollout that is written.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.path.as_path()
    }

    /// Whether the file system lets others see that the rollout is in use.
    #[must_use]
    pub fn locking(&self) -> Locking {
        self.locking
    }

    /// The last event before which everything is settled: recorded, or stated missing. After
    /// [`crate::Store::resume`], ask the keeper for the events after this one; what is recorded already is
    /// recognised by its offset and skipped.
    #[must_use]
    pub fn settled_seq(&self) -> Seq {
        // The last known event may be there in part only.
        Seq(self.output.last_seq().0.saturating_sub(1))
    }

    /// Bytes of the output up to which nothing will be asked for again: they are in the rollout, or lie between the
    /// head and the tail that are recorded. What comes behind is in this process's memory only, and whoever takes
    /// over needs it once more.
    #[must_use]
    pub fn needed_from(&self) -> u64 {
        self.output.needed_from()
    }

    /// Writes down that this recorder goes on where another one stopped.
    pub(crate) fn taken_over(&mut self, at: Timestamp, reason: TakeoverReason) -> Result<(), StoreError> {
        let event = RolloutEvent::RunTakenOver(RunTakenOver {
            run_id: self.subject.run,
            offset_bytes: self.output.needed_from(),
            recorded_by: self.subject.recorded_by,
            reason,
        });
        written_or(self.append(at, event))
    }

    /// Takes an event, in the order of their sequence numbers. It is taken whatever is returned.
    ///
    /// # Errors
    /// The first trouble with writing. Output that could not be written becomes a gap in the rollout, with the
    /// reason `write_failed`; with [`StoreError::NotDurable`] it is written.
    pub fn event(&mut self, event: &ProcessEvent) -> Result<(), StoreError> {
        match event {
            ProcessEvent::Output { seq, stream, offset_bytes, time, bytes } => {
                self.latest = self.latest.max(*time);
                let (seq, stream, offset_bytes, time) = (*seq, *stream, *offset_bytes, *time);
                let pieces = self.output.output(Chunk { seq, stream, offset_bytes, time, bytes });
                self.write_pieces(pieces)
            }
            ProcessEvent::Gap(gap) => {
                self.output.gap(*gap);
                Ok(())
            }
            ProcessEvent::Exited(end) => {
                if matches!(self.outcome, Outcome::Unknown) {
                    self.latest = self.latest.max(end.ended);
                    self.outcome = Outcome::Ended(end.clone());
                }
                Ok(())
            }
            // A stop changes nothing that is recorded: what was written before and after it tells when.
            ProcessEvent::Stopped { .. } | ProcessEvent::Closed { .. } => Ok(()),
        }
    }

    /// Writes output that waits for more of its line. Call it every 100 ms while the command is silent, so that
    /// a reader of the rollout sees a prompt; more often makes more and shorter lines.
    ///
    /// # Errors
    /// As [`Recorder::event`].
    pub fn flush(&mut self) -> Result<(), StoreError> {
        let pieces = self.output.flush();
        self.write_pieces(pieces)
    }

    /// Takes that the command could not be started. [`Recorder::finish`] writes it.
    pub fn failed_to_start(&mut self, at: Timestamp, failure: StartFailure) {
        self.latest = self.latest.max(at);
        self.outcome = Outcome::NotStarted(at, failure);
    }

    /// Writes the tail, how the run ended and the turn's end, and makes them durable as was asked for. Without
    /// an end of the run the turn stays open, for [`crate::Store::resume`].
    ///
    /// # Errors
    /// The first trouble with writing. What can be written after it is written all the same; if the turn's end
    /// is not among it, [`crate::Store::resume`] can write it later.
    pub fn finish(mut self) -> Result<RolloutPath, StoreError> {
        let pieces = self.output.finish();
        let output = self.write_pieces(pieces);
        let unwritten = self.write_unwritten();
        let outcome = self.write_outcome();
        let synced = self.rollout.end_turn();
        output.and(unwritten).and(outcome).and(synced)?;
        Ok(self.path)
    }

    fn write_pieces(&mut self, pieces: Vec<Piece>) -> Result<(), StoreError> {
        let mut first = Ok(());
        for piece in pieces {
            first = first.and(self.write_piece(piece));
        }
        first
    }

    fn write_piece(&mut self, piece: Piece) -> Result<(), StoreError> {
        if let Err(error) = self.write_unwritten()
            && !error.is_written()
        {
            piece.join_gap(&mut self.unwritten, GapReason::WriteFailed);
            return Err(error);
        }
        let written = self.append_piece(&piece);
        if written.as_ref().is_err_and(|error| !error.is_written()) {
            piece.join_gap(&mut self.unwritten, GapReason::WriteFailed);
        }
        written
    }

    fn write_unwritten(&mut self) -> Result<(), StoreError> {
        let Some(missing) = self.unwritten.take() else { return Ok(()) };
        let gap = Piece::Gap(missing);
        let written = self.append_piece(&gap);
        if written.as_ref().is_err_and(|error| !error.is_written()) {
            gap.join_gap(&mut self.unwritten, GapReason::WriteFailed);
        }
        written
    }

    fn append_piece(&mut self, piece: &Piece) -> Result<(), StoreError> {
        let run_id = self.subject.run;
        let (time, event, bytes, missing_bytes) = match piece {
            Piece::Output(segment) => {
                (segment.time, output_event(run_id, segment), segment.data.len() as u64, 0)
            }
            // A gap before any output has no time of its own.
            Piece::Gap(missing) => {
                (missing.time.max(self.subject.started), gap_event(run_id, missing), 0, missing.bytes)
            }
        };
        let written = self.append(time, event);
        if written.as_ref().err().is_none_or(StoreError::is_written) {
            self.recorded.bytes += bytes;
            self.recorded.missing_bytes += missing_bytes;
        }
        written
    }

    fn write_outcome(&mut self) -> Result<(), StoreError> {
        let at = match std::mem::replace(&mut self.outcome, Outcome::Recorded) {
            Outcome::Unknown => return Ok(()),
            Outcome::Recorded => self.latest,
            Outcome::Ended(end) => {
                let event = self.ended_event(&end);
                written_or(self.append(end.ended, event))?;
                end.ended
            }
            Outcome::NotStarted(at, StartFailure { step, errno, reason }) => {
                let run_id = self.subject.run;
                let event = RolloutEvent::RunNotStarted(RunNotStarted { run_id, step, errno, reason });
                written_or(self.append(at, event))?;
                at
            }
        };
        let at = at.max(self.latest);
        let duration = at.since(self.subject.started);
        let complete = TaskComplete {
            turn_id: self.subject.turn,
            completed_at: unix_seconds(at),
            duration_ms: i64::try_from(duration.as_millis()).unwrap_or(i64::MAX),
        };
        self.append(at, RolloutEvent::TaskComplete(complete))
    }

    fn ended_event(&self, end: &EndRecord) -> RolloutEvent {
        let signal_name = match end.status {
            ExitStatus::Signaled { signal } => signal::name(signal).map(Into::into),
            ExitStatus::Exited { .. } | ExitStatus::Lost => None,
        };
        RolloutEvent::RunEnded(RunEnded {
            run_id: self.subject.run,
            status: end.status,
            signal_name,
            duration: end.ended.since(self.subject.started),
            usage: end.usage,
            output: end.output,
            recorded: self.recorded,
            timed_out: end.timed_out,
            limits: end.limits.clone(),
            out_of_memory: end.out_of_memory,
            unprotected: end.unprotected.clone(),
            recorded_by: self.subject.recorded_by,
        })
    }

    fn append(&mut self, at: Timestamp, event: RolloutEvent) -> Result<(), StoreError> {
        self.rollout.append(at, RolloutItem::EventMsg(event))
    }
}

/// Lets go on after a line that is written but not durable; the sync at the end tells of it again.
fn written_or(result: Result<(), StoreError>) -> Result<(), StoreError> {
    match result {
        Err(error) if !error.is_written() => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn output_event(run_id: RunId, segment: &Segment) -> RolloutEvent {
    RolloutEvent::RunOutput(RunOutput {
        run_id,
        from_seq: segment.from_seq,
        to_seq: segment.to_seq(),
        stream: segment.stream,
        offset_bytes: segment.offset_bytes,
        time: segment.time,
        data: segment.data.as_slice().into(),
    })
}

fn gap_event(run_id: RunId, missing: &Missing) -> RolloutEvent {
    RolloutEvent::RunOutputGap(RunOutputGap {
        run_id,
        from_seq: missing.from_seq,
        to_seq: missing.to_seq,
        offset_bytes: missing.offset_bytes,
        bytes: missing.bytes,
        reason: missing.reason,
    })
}
