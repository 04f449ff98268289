//! The attendant: records what nobody else records.
//!
//! Started by the keeper when a run is detached or its recorder dies, one for all runs. It takes each record over
//! where it stands, reads from the keeper's log what is not written down yet, and completes it. The keeper holds back
//! what the record needs until then. What the keeper itself took with it is completed from its log as lost.
//!
//! Has nobody to talk to: what it can't do it reports to the keeper, and the record shows.

use std::path::Path;
use std::time::Duration;

use sandbar_exec::local::LocalProcesses;
use sandbar_exec::{Process, ProcessError};
use sandbar_keeper::{KeeperDir, LogItem, LogReader, Patience};
use sandbar_proto::{
    EndRecord, ExitStatus, OutputTotals, ProcessEvent, ResourceUse, RunId, Seq, TakeoverReason, Timestamp,
};
use sandbar_store::{Durability, OutputBounds, Recorder, Store, StoreError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::keepers;

/// How long the attendant stays when nothing is left to record: a detached run is often followed by the next.
const LINGER: Duration = Duration::from_secs(5);

/// Silence after which what was collected is written to the record.
const SILENCE: Duration = Duration::from_millis(100);

/// How long a record may still be open elsewhere. Its recorder is ending: it lets go as soon as it has.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often is looked whether a record is free. Nothing announces the end of a lock that is asked for without
/// waiting (flock(2)); its recorder needs some milliseconds, and a few looks a record cost nothing.
const INTERVAL: Duration = Duration::from_millis(10);

/// The attendant's main function. Its working directory is its keeper's.
#[must_use]
pub(crate) fn main() -> i32 {
    let Ok(home) = std::env::current_dir().map(KeeperDir::at) else { return 2 };
    // It reads everything that runs write; others of this user have no business in its memory.
    if sandbar_sandbox::harden_self().is_err() {
        return 1;
    }
    // Nobody is there to be told that a keeper is slow.
    let patience = Patience::new(home.clone(), keepers::SILENCE, |_| {});
    let Ok(client) = sandbar_keeper::connect(&home, &patience) else { return 1 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let Ok(runtime) = runtime else { return 1 };
    runtime.block_on(async {
        let Ok(processes) = LocalProcesses::new(client, home.processes(), patience) else { return 1 };
        match serve(&home, &processes).await {
            Ok(()) => 0,
            Err(_) => 1,
        }
    })
}

/// Records what the keeper tells of, until nothing has been left for a while or the keeper is gone.
async fn serve(home: &KeeperDir, processes: &LocalProcesses) -> Result<(), ProcessError> {
    let mut unattended = processes.attend().await?;
    let mut records = JoinSet::new();
    let mut keeper_lives = true;
    while keeper_lives || !records.is_empty() {
        tokio::select! {
            runs = unattended.next(), if keeper_lives => match runs {
                Some(runs) => for (id, reason) in runs {
                    records.spawn(attend(home.clone(), processes.clone(), id, reason));
                },
                None => keeper_lives = false,
            },
            Some(_) = records.join_next() => {}
            () = tokio::time::sleep(LINGER), if records.is_empty() => return Ok(()),
        }
    }
    Ok(())
}

/// Completes the record of one run, and says so.
async fn attend(home: KeeperDir, processes: LocalProcesses, id: RunId, reason: TakeoverReason) {
    let complete = record(&home.processes().join(id.to_string()), &processes, id, reason).await;
    // A keeper that is gone is told by the next attendant, which finds the record complete.
    let _ = processes.recorded(id, complete).await;
}

/// Returns whether the record is complete.
async fn record(directory: &Path, processes: &LocalProcesses, id: RunId, reason: TakeoverReason) -> bool {
    let Some(known) = sandbar_keeper::read(directory) else { return false };
    let Some(rollout) = known.start.rollout.clone() else { return true };
    let mut recorder = match open(rollout.as_path(), reason).await {
        Ok(recorder) => recorder,
        Err(StoreError::Complete { .. }) => return true,
        // Whatever it is, nobody can be asked about it.
        Err(_) => return false,
    };
    let followed = match processes.take_over(id).await {
        Ok(process) => follow(process, &mut recorder).await,
        Err(error) => Err(error),
    };
    if followed.is_err() {
        // It ended before we came, or with its keeper: its log is all there is, and all that there will be.
        read_rest(directory, &mut recorder);
    }
    recorder.finish().is_ok()
}

/// Takes the rollout over once nobody has it open any more.
async fn open(rollout: &Path, reason: TakeoverReason) -> Result<Recorder, StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let bounds = OutputBounds::default();
        match Store::take_over(rollout, Timestamp::now(), reason, Durability::Turn, bounds) {
            Err(StoreError::Locked { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(INTERVAL).await;
            }
            result => return result,
        }
    }
}

/// Records a run that the keeper holds, to its end.
async fn follow(mut process: Box<dyn Process>, recorder: &mut Recorder) -> Result<(), ProcessError> {
    let mut quiet = false;
    loop {
        process.needs_from(recorder.needed_from());
        let event = tokio::select! {
            biased;
            event = process.next_event() => event?,
            () = tokio::time::sleep(SILENCE), if !quiet => {
                quiet = true;
                // What can't be written is a gap in the record, with its reason.
                let _ = recorder.flush();
                continue;
            }
        };
        quiet = false;
        let Some(event) = event else { return Ok(()) };
        let _ = recorder.event(&event);
    }
}

/// Records what is in the log of a run that nobody holds any more, and how it ended.
fn read_rest(directory: &Path, recorder: &mut Recorder) {
    // Read anew: its end came after the first look.
    let Some(known) = sandbar_keeper::read(directory) else { return };
    let mut log = LogReader::open(directory).ok();
    while let Some(Ok(Some(item))) = log.as_mut().map(LogReader::next_item) {
        // What can't be written is a gap in the record, with its reason.
        let _ = recorder.event(&match item {
            LogItem::Record(header, bytes) => ProcessEvent::Output {
                seq: header.seq,
                stream: header.stream,
                offset_bytes: header.offset_bytes,
                time: header.time,
                bytes,
            },
            LogItem::Gap(gap) => ProcessEvent::Gap(gap),
        });
    }
    let read_bytes = log.as_ref().map_or(0, LogReader::offset_bytes);
    let end = known.end.unwrap_or_else(|| lost(known.start.id, read_bytes));
    let last = Seq(end.output.last_seq.0.saturating_sub(1));
    if let Some(gap) = log.and_then(|log| log.missing_until(last, end.output.bytes)) {
        let _ = recorder.event(&ProcessEvent::Gap(gap));
    }
    let _ = recorder.event(&ProcessEvent::Exited(end));
}

fn lost(id: RunId, bytes: u64) -> EndRecord {
    EndRecord {
        id,
        status: ExitStatus::Lost,
        ended: Timestamp::now(),
        usage: ResourceUse::default(),
        output: OutputTotals { bytes, ..OutputTotals::default() },
        timed_out: false,
        limits: Vec::new(),
        out_of_memory: None,
        unprotected: None,
    }
}
