//! Runs that were started elsewhere: what is on record, and following one as a process of a session.
//!
//! Whoever may start a process without a sandbox here may look at everything that this user runs, so that no more than
//! being let in is asked for.

use std::sync::Arc;
use std::time::Duration;

use sandbar_keeper::protocol::Refusal;
use sandbar_keeper::{KeeperDir, Patience, RuntimeDir};
use sandbar_proto::exec::{AttachParams, RecordsPage, RecordsParams, RunRecord, Started};
use sandbar_proto::rpc::{RpcError, code};
use sandbar_proto::{RunId, Seq};

use super::launch::{Begin, Reserved};
use super::process::Memo;
use super::session::Session;
use super::{Shared, refusal};
use crate::local::LocalProcesses;
use crate::{Process, ProcessError, Processes as _, Watching};

/// Runs of one page.
const PAGE: usize = 64;

/// How long another keeper may be silent before that is worth a word; nobody is there to hear it.
const SILENCE: Duration = Duration::from_secs(3);

/// What a client is told of a process that is followed.
pub(super) fn started(process: &dyn Process) -> Started {
    Started {
        record: process.record().clone(),
        written: process.written(),
        terminal: process.terminal(),
        stopped: process.was_stopped(),
        lowered: process.lowered().to_vec(),
        after_seq: None,
        plan: None,
    }
}

/// `process/attach`: follows a run as a process of this session, which does not own it.
///
/// # Errors
/// There is no such run, or the name is taken.
pub(super) async fn attach(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    params: AttachParams,
) -> Result<(Started, Begin), RpcError> {
    session.reserve(&params.process_id, params.run_id)?;
    let reserved = Reserved::new(session, &params.process_id);
    let (process, processes, after) = follow(shared, &params).await?;
    let memo = Memo {
        process_id: params.process_id.clone(),
        sandbox_type: String::new(),
        has_input: true,
        is_viewed: true,
    };
    let told = Started { after_seq: params.tail_bytes.map(|_| after.0), ..started(&*process) };
    Ok((told, reserved.settle(memo, (process, processes), None).1))
}

/// Where a client wants to begin. A log that can't be read is said by whoever follows it.
fn beginning(processes: &LocalProcesses, params: &AttachParams) -> Seq {
    match params.tail_bytes {
        Some(bytes) => processes.before_tail(params.run_id, bytes).unwrap_or_default(),
        None => Seq(params.after_seq),
    }
}

/// The run, what holds it, and the number behind which it is followed.
async fn follow(
    shared: &Arc<Shared>,
    params: &AttachParams,
) -> Result<(Box<dyn Process>, LocalProcesses, Seq), RpcError> {
    let run = params.run_id;
    let held = shared.keeper.alive().await.map_err(|error| refusal::process(&error))?;
    let readers = held.to.readers;
    let after = beginning(&readers, params);
    match readers.follow_from(run, Watching::Output, after).await {
        Ok(process) => return Ok((process, readers, after)),
        Err(ProcessError::Refused(Refusal::Unknown { .. })) => {}
        Err(error) => return Err(refusal::process(&error)),
    }
    let Some(processes) = holder(shared.host.runtime.clone(), run).await? else {
        return Err(refusal::invalid("unknown_run", format!("no run {run} is held here")));
    };
    let after = beginning(&processes, params);
    match processes.follow_from(run, Watching::Output, after).await {
        Ok(process) => Ok((process, processes, after)),
        Err(error) => Err(refusal::process(&error)),
    }
}

/// The processes of the keeper that has a run on record.
async fn holder(runtime: RuntimeDir, run: RunId) -> Result<Option<LocalProcesses>, RpcError> {
    let internal = |kind: &str, why: String| RpcError::with_kind(code::INTERNAL, kind, why);
    let found = tokio::task::spawn_blocking(move || {
        let (keepers, _) = runtime.keepers().map_err(|error| error.to_string())?;
        let has = |keeper: &KeeperDir| keeper.processes().join(run.to_string()).is_dir();
        let Some(keeper) = keepers.into_iter().find(has) else { return Ok(None) };
        let patience = Patience::new(keeper.clone(), SILENCE, |_| {});
        let client = sandbar_keeper::connect(&keeper, &patience).map_err(|error| error.to_string())?;
        Ok(Some((client, keeper, patience)))
    });
    let found = found.await.map_err(|error| internal("keeper_gone", error.to_string()))?;
    let Some((client, keeper, patience)) = found.map_err(|why: String| internal("keeper_gone", why))? else {
        return Ok(None);
    };
    let processes = LocalProcesses::new(client, keeper.processes(), patience);
    processes.map(Some).map_err(|error| internal("keeper_gone", error.to_string()))
}

/// `process/records`: what this user has on record here, oldest first.
///
/// # Errors
/// The records can't be read.
pub(super) async fn records(shared: &Arc<Shared>, params: RecordsParams) -> Result<RecordsPage, RpcError> {
    let runtime = shared.host.runtime.clone();
    let read = tokio::task::spawn_blocking(move || read(&runtime, params.after));
    let read = read.await.map_err(|error| error.to_string()).and_then(|read| read);
    let mut page = read.map_err(|why| RpcError::with_kind(code::INTERNAL, "records", why))?;
    // A keeper that does not answer leaves out who looks; everything else is on record.
    if let Ok(Ok(living)) = tokio::time::timeout(SILENCE, shared.keeper.held().to.readers.list()).await {
        for state in living {
            if let Some(found) = page.runs.iter_mut().find(|run| run.start.id == state.start.id) {
                found.viewers = Some(state.viewers);
            }
        }
    }
    Ok(page)
}

fn read(runtime: &RuntimeDir, after: Option<RunId>) -> Result<RecordsPage, String> {
    let (keepers, foreign_keepers) = runtime.keepers().map_err(|error| error.to_string())?;
    let mut runs = Vec::new();
    for keeper in keepers {
        let keeper_alive = sandbar_keeper::keeper_is_alive(&keeper);
        for record in sandbar_keeper::read_all(&keeper).map_err(|error| error.to_string())? {
            runs.push(RunRecord { start: record.start, end: record.end, keeper_alive, viewers: None });
        }
    }
    runs.sort_by_key(|run| run.start.id);
    if let Some(after) = after {
        runs.retain(|run| run.start.id > after);
    }
    let more = runs.len() > PAGE;
    runs.truncate(PAGE);
    Ok(RecordsPage { runs, more, foreign_keepers })
}
