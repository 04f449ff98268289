//! `sandbar kill`: ends runs with everything they started, or sends them a signal.
//!
//! Every id is found before anything is signalled, so that a mistyped one does no half of the work.

use std::time::Duration;

use sandbar_exec::remote::Beginning;
use sandbar_exec::{Process, ProcessError, Processes, Watching};
use sandbar_keeper::protocol::Refusal;
use sandbar_proto::{ProcessEvent, RunId, Seq, Timestamp};
use serde::Serialize;
use tokio::time::Instant;

use crate::cli::KillArgs;
use crate::dirs::Directories;
use crate::elsewhere::Elsewhere;
use crate::keepers::{self, Known};
use crate::places::{self, Where};
use crate::render::{self, Problem, note};
use crate::status::{self, Status};
use crate::{event_loop, exit, output, signal};

const SIGTERM: i32 = 15;

/// How long after KILL a tree may take to be gone. The kernel ends it at once, unless it is in an uninterruptible
/// wait (a disk or a network file system that does not answer).
const AFTER_KILL: Duration = Duration::from_secs(10);

/// What is to happen to the runs.
#[derive(Debug, Clone, Copy)]
enum Wish {
    /// TERM, this long, KILL; and wait.
    End(Duration),
    /// This signal to the command's process group, and no more.
    Signal(i32),
}

/// What became of one run. docs/json.md describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
enum Outcome {
    /// It has ended.
    Ended { status: Status },
    /// The signal was sent.
    Signaled { signal: i32 },
    /// It had ended before.
    AlreadyEnded { status: Status },
    /// Nothing, or not all.
    Failed { reason: String },
}

/// Ends or signals the runs.
///
/// # Errors
/// A signal that is none, an id that names no run or several. What fails later is told run by run.
pub(super) fn execute(args: &KillArgs) -> Result<u8, Problem> {
    let wish = match &args.signal {
        Some(text) => Wish::Signal(signal::parse(text)?),
        None => Wish::End(args.grace),
    };
    let directories = Directories::find()?;
    let (runs, outcomes) = match places::find(&args.on, &directories)? {
        Where::Local => {
            let runtime = keepers::runtime(&directories)?;
            let runs = find_all(&args.ids, |id| keepers::find(&runtime, id))?;
            let outcomes = event_loop::block_on(async { Ok(carry_out(&runs, wish, None).await) })?;
            (runs, outcomes)
        }
        Where::Elsewhere(place) => event_loop::block_on(async {
            let elsewhere = Elsewhere::new(place);
            let (all, _, _) = elsewhere.known().await?;
            let runs = find_all(&args.ids, |id| elsewhere.pick(all.clone(), id))?;
            let outcomes = carry_out(&runs, wish, Some(&elsewhere)).await;
            Ok((runs, outcomes))
        })?,
    };
    let results: Vec<(&Known, Outcome)> = runs.iter().zip(outcomes).collect();
    if args.json {
        let _ = output::print_json(&results.iter().map(Entry::of).collect::<Vec<_>>())?;
    } else {
        tell(&results)?;
    }
    Ok(status_of(wish, results.iter().map(|(_, outcome)| outcome)))
}

/// Finds every run, each once however often it was named.
fn find_all(ids: &[String], find: impl Fn(&str) -> Result<Known, Problem>) -> Result<Vec<Known>, Problem> {
    let mut runs: Vec<Known> = Vec::new();
    for id in ids {
        let known = find(id)?;
        if runs.iter().all(|other| other.id() != known.id()) {
            runs.push(known);
        }
    }
    Ok(runs)
}

/// Everything is asked first and waited for then, so that many runs end in the time of one.
async fn carry_out(runs: &[Known], wish: Wish, elsewhere: Option<&Elsewhere>) -> Vec<Outcome> {
    let mut asked = Vec::new();
    for known in runs {
        asked.push(match elsewhere {
            Some(elsewhere) => ask_elsewhere(elsewhere, known, wish).await,
            None => ask(known, wish).await,
        });
    }
    let patience = match wish {
        Wish::End(grace) => grace.saturating_add(AFTER_KILL),
        Wish::Signal(_) => Duration::ZERO,
    };
    let begun = Instant::now();
    let mut outcomes = Vec::new();
    for (known, asked) in runs.iter().zip(asked) {
        outcomes.push(match asked {
            Asked::Done(outcome) => outcome,
            Asked::Ending(process) => wait(known, process, begun, patience).await,
        });
    }
    outcomes
}

enum Asked {
    /// It ends; its last event is waited for.
    Ending(Box<dyn Process>),
    /// There is nothing to wait for.
    Done(Outcome),
}

/// Asks the keeper, also about a run whose end is on record: what it had started may go on behind it.
async fn ask(known: &Known, wish: Wish) -> Asked {
    let already =
        || Asked::Done(Outcome::AlreadyEnded { status: Status::of(&known.record, known.keeper_alive) });
    if !known.keeper_alive {
        return already();
    }
    let processes = match keepers::connect(&known.keeper) {
        Ok(processes) => processes,
        Err(_) if known.record.end.is_some() => return already(),
        Err(problem) => return Asked::Done(Outcome::Failed { reason: problem.what }),
    };
    match event_loop::answer(request(&processes, known, wish)).await {
        Ok(Ok(asked)) => asked,
        Ok(Err(error)) => Asked::Done(not_done(known, &error)),
        Err(problem) => Asked::Done(Outcome::Failed { reason: problem.what }),
    }
}

/// Asks the exec server, which follows the run for us. What has ended needs nobody to ask.
async fn ask_elsewhere(elsewhere: &Elsewhere, known: &Known, wish: Wish) -> Asked {
    if !known.is_running() {
        let status = Status::of(&known.record, known.keeper_alive);
        return Asked::Done(Outcome::AlreadyEnded { status });
    }
    let process = match elsewhere.attach(known, Beginning::Behind(Seq(0))).await {
        Ok(process) => process,
        Err(problem) => return Asked::Done(Outcome::Failed { reason: problem.what }),
    };
    let control = process.control();
    let asked = match wish {
        Wish::Signal(signal) => {
            control.signal(signal).await.map(|()| Asked::Done(Outcome::Signaled { signal }))
        }
        Wish::End(grace) => control.terminate(SIGTERM, grace).await.map(|()| Asked::Ending(process)),
    };
    asked.unwrap_or_else(|error| Asked::Done(Outcome::Failed { reason: error.to_string() }))
}

async fn request(processes: &dyn Processes, known: &Known, wish: Wish) -> Result<Asked, ProcessError> {
    let control = processes.control(known.id());
    match wish {
        Wish::Signal(signal) => {
            control.signal(signal).await?;
            Ok(Asked::Done(Outcome::Signaled { signal }))
        }
        // Asked first, watched then: an end that comes in between is on record.
        Wish::End(grace) => {
            control.terminate(SIGTERM, grace).await?;
            match processes.follow(known.id(), Watching::End).await {
                Ok(process) => Ok(Asked::Ending(process)),
                Err(ProcessError::Refused(Refusal::Unknown { .. })) => {
                    Ok(Asked::Done(Outcome::Ended { status: status_on_record(known) }))
                }
                Err(error) => Err(error),
            }
        }
    }
}

/// Waits until nothing is left of the tree.
async fn wait(known: &Known, mut process: Box<dyn Process>, begun: Instant, patience: Duration) -> Outcome {
    let mut status = None;
    loop {
        match tokio::time::timeout_at(begun + patience, process.next_event()).await {
            Ok(Ok(Some(ProcessEvent::Exited(end)))) => status = Some(end.status.into()),
            Ok(Ok(Some(
                ProcessEvent::Output { .. }
                | ProcessEvent::Gap(_)
                | ProcessEvent::Stopped { .. }
                | ProcessEvent::Closed { .. },
            ))) => {}
            Ok(Ok(None)) => return Outcome::Ended { status: status.unwrap_or(Status::Lost) },
            // The keeper takes everything that it holds along.
            Ok(Err(ProcessError::Lost(_))) => {
                return Outcome::Ended { status: status.unwrap_or(Status::Lost) };
            }
            Ok(Err(error)) => return not_done(known, &error),
            Err(_) => {
                return Outcome::Failed {
                    reason: format!("it has not ended within {} s", patience.as_secs()),
                };
            }
        }
    }
}

/// What an error means for the run. One that the keeper does not know has ended since it was found.
fn not_done(known: &Known, error: &ProcessError) -> Outcome {
    match error {
        ProcessError::Refused(Refusal::Unknown { .. }) => {
            Outcome::AlreadyEnded { status: status_on_record(known) }
        }
        ProcessError::Lost(_) => Outcome::AlreadyEnded { status: Status::Lost },
        ProcessError::Refused(_)
        | ProcessError::Output(_)
        | ProcessError::Elsewhere(_)
        | ProcessError::StdinClosed
        | ProcessError::TooOld { .. } => Outcome::Failed { reason: error.to_string() },
    }
}

/// How a run ended that its keeper knows no more. Without an end on record it never came to run: its start failed
/// in this moment.
fn status_on_record(known: &Known) -> Status {
    let record = sandbar_keeper::read(&known.record.path);
    record.and_then(|record| record.end).map_or(Status::Lost, |end| end.status.into())
}

/// Ids of what was done on standard output, everything else on standard error.
fn tell(results: &[(&Known, Outcome)]) -> Result<(), Problem> {
    let mut done = String::new();
    for (known, outcome) in results {
        match outcome {
            Outcome::Ended { .. } | Outcome::Signaled { .. } => done.push_str(&format!("{}\n", known.id())),
            Outcome::AlreadyEnded { .. } => {
                let words = status::words(&known.record, known.keeper_alive, Timestamp::now());
                if known.is_running() {
                    note(format_args!("run {} ended by itself.", known.id()));
                } else {
                    note(format_args!("run {} has already ended ({words}).", known.id()));
                }
            }
            Outcome::Failed { reason } => render::print(
                &Problem::new(format!("could not end or signal the run: {reason}"))
                    .at(format!("run {}", known.id()))
                    .advise("`sandbar ps` shows whether it still runs"),
            ),
        }
    }
    output::print(done).map(drop)
}

/// A run that is over is what `kill` is for; a signal, though, has to reach somebody.
fn status_of<'a>(wish: Wish, outcomes: impl Iterator<Item = &'a Outcome> + Clone) -> u8 {
    let failed = outcomes.clone().any(|outcome| matches!(outcome, Outcome::Failed { .. }));
    let reached = outcomes.clone().any(|outcome| matches!(outcome, Outcome::Signaled { .. }));
    match wish {
        Wish::End(_) if failed => exit::FAILED,
        Wish::Signal(_) if failed || !reached => exit::FAILED,
        Wish::End(_) | Wish::Signal(_) => exit::OK,
    }
}

/// One run as JSON.
#[derive(Serialize)]
struct Entry<'a> {
    id: RunId,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

impl<'a> Entry<'a> {
    fn of((known, outcome): &'a (&'a Known, Outcome)) -> Self {
        Self { id: known.id(), outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Wish = Wish::End(Duration::from_secs(2));
    const SIGNAL: Wish = Wish::Signal(10);

    #[test]
    fn to_end_what_has_ended_is_no_error_and_to_signal_it_is_one() {
        let ended = Outcome::AlreadyEnded { status: Status::Exited { code: 0 } };
        let signaled = Outcome::Signaled { signal: 10 };
        let failed = Outcome::Failed { reason: "x".to_owned() };
        let table = [
            (END, vec![&ended], exit::OK),
            (END, vec![&ended, &failed], exit::FAILED),
            (SIGNAL, vec![&ended], exit::FAILED),
            (SIGNAL, vec![&ended, &signaled], exit::OK),
            (SIGNAL, vec![&failed, &signaled], exit::FAILED),
        ];
        for (wish, outcomes, expected) in table {
            assert_eq!(status_of(wish, outcomes.iter().copied()), expected, "{wish:?} {outcomes:?}");
        }
    }

    #[test]
    fn an_outcome_is_json_with_the_status_that_ps_has() {
        let outcome = Outcome::Ended { status: Status::Signaled { signal: 15 } };
        let entry = Entry { id: RunId::from_uuid_bytes([7; 16]), outcome: &outcome };
        assert_eq!(
            serde_json::to_string(&entry).unwrap(),
            r#"{"id":"07070707-0707-0707-0707-070707070707","outcome":"ended","status":{"how":"signaled","signal":15}}"#
        );
    }
}
