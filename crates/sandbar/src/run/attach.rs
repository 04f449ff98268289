//! `sandbar attach`: somebody else looks at a run, types into it, and leaves it again.
//!
//! A viewer is one of several and owns nothing: a slow one misses output rather than make the command wait, one that
//! is killed leaves no trace, and the record is somebody else's.

use sandbar_exec::{ProcessError, Processes as _, Watching};
use sandbar_keeper::protocol::Refusal;

use super::follow::{Follower, Manner, Role};
use super::record::Record;
use super::signals::Signals;
use super::streams::Input;
use crate::cli::AttachArgs;
use crate::dirs::Directories;
use crate::event_loop;
use crate::keepers::{self, Known};
use crate::render::{Problem, note};
use crate::stdio::{self, Kind};

/// Attaches to a run until it ends or is detached from.
///
/// # Errors
/// There is no such run, it has ended, or it is lost.
pub(crate) fn execute(args: &AttachArgs) -> Result<u8, Problem> {
    let runtime = keepers::runtime(&Directories::find()?)?;
    let known = keepers::find(&runtime, &args.id)?;
    if !known.is_running() {
        return Err(ended(&known));
    }
    let result = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let tokio = result.map_err(|error| Problem::new(format!("could not make an event loop: {error}")))?;
    let result = tokio.block_on(attach(args, &known));
    // A thread may still wait for input that never comes; the process need not wait for it.
    tokio.shutdown_background();
    result
}

async fn attach(args: &AttachArgs, known: &Known) -> Result<u8, Problem> {
    let signals =
        Signals::listen().map_err(|error| Problem::new(format!("could not listen to signals: {error}")))?;
    let processes = keepers::connect(&known.keeper)?;
    let process = match event_loop::answer(processes.follow(known.id(), Watching::Output)).await? {
        Ok(process) => process,
        Err(ProcessError::Refused(Refusal::Unknown { .. })) => return Err(ended(known)),
        Err(error) => {
            return Err(Problem::new(format!("could not attach: {error}")).at(format!("run {}", known.id())));
        }
    };
    let input = input(process.terminal().is_some());
    if input == Input::Terminal && !args.quiet && args.detach_keys.to_string().is_empty() {
        note("nothing detaches here; end this program from elsewhere to leave the run to itself.");
    }
    let manner = Manner {
        role: Role::Viewer,
        json: false,
        quiet: args.quiet,
        timeout: None,
        keys: args.detach_keys.clone(),
    };
    Follower::new(manner, process, Record::none(), input, signals)?.follow().await
}

/// What of our input goes to the command.
fn input(has_terminal: bool) -> Input {
    let kinds = [stdio::kind(std::io::stdin()), stdio::kind(std::io::stdout())];
    match kinds {
        // In the background, too: a shell may give us the terminal at any time.
        [Kind::Terminal, Kind::Terminal] if has_terminal => Input::Terminal,
        [Kind::Closed, _] => Input::None,
        [kind @ (Kind::Terminal | Kind::Harmless | Kind::File | Kind::Other), _] => Input::Relayed(kind),
    }
}

fn ended(known: &Known) -> Problem {
    Problem::new("could not attach: the run has ended")
        .at(format!("run {}", known.id()))
        .advise("`sandbar logs` shows what it wrote")
}
