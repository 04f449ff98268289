//! `sandbar attach`: somebody else looks at a run, types into it, and leaves it again.
//!
//! A viewer is one of several and owns nothing: a slow one misses output rather than make the command wait, one that
//! is killed leaves no trace, and the record is somebody else's.

use sandbar_exec::remote::Beginning;
use sandbar_exec::{Process, ProcessError, Processes as _, Watching};
use sandbar_keeper::protocol::Refusal;

use super::follow::{Follower, Manner, Role};
use super::record::Record;
use super::signals::Signals;
use super::streams::Input;
use crate::cli::AttachArgs;
use crate::dirs::Directories;
use crate::elsewhere::Elsewhere;
use crate::event_loop;
use crate::keepers::{self, Known};
use crate::places::{self, Place, Where};
use crate::render::{Problem, note};
use crate::stdio::{self, Kind};
use crate::terminal::TAIL_BYTES;

/// Attaches to a run until it ends or is detached from.
///
/// # Errors
/// There is no such run, it has ended, or it is lost.
pub(crate) fn execute(args: &AttachArgs) -> Result<u8, Problem> {
    let directories = Directories::find()?;
    let holder = match places::find(&args.on, &directories)? {
        Where::Local => {
            let known = keepers::find(&keepers::runtime(&directories)?, &args.id)?;
            if !known.is_running() {
                return Err(ended(&known));
            }
            Holder::Keeper(Box::new(known))
        }
        Where::Elsewhere(place) => Holder::Elsewhere(place),
    };
    event_loop::block_on_and_leave(attach(args, holder))
}

/// What holds the run.
enum Holder {
    /// A keeper here.
    Keeper(Box<Known>),
    /// Another machine, which is asked for it.
    Elsewhere(Place),
}

async fn attach(args: &AttachArgs, holder: Holder) -> Result<u8, Problem> {
    let mut signals =
        Signals::listen().map_err(|error| Problem::new(format!("could not listen to signals: {error}")))?;
    match holder {
        Holder::Keeper(known) => {
            let process = follow(&known).await?;
            look(args, process, signals).await
        }
        Holder::Elsewhere(place) => {
            let elsewhere = Elsewhere::new(place);
            let follow = async {
                let known = elsewhere.find(&args.id).await?;
                if !known.is_running() {
                    return Err(ended(&known));
                }
                // What it wrote before does not have to come over.
                elsewhere.attach(&known, Beginning::Tail(TAIL_BYTES as u64)).await
            };
            let process = tokio::select! {
                biased;
                followed = follow => followed?,
                wish = signals.next() => return Err(wish.interrupted("it was attached to")),
            };
            elsewhere.while_telling(look(args, process, signals)).await
        }
    }
}

async fn follow(known: &Known) -> Result<Box<dyn Process>, Problem> {
    let processes = keepers::connect(&known.keeper)?;
    match event_loop::answer(processes.follow(known.id(), Watching::Output)).await? {
        Ok(process) => Ok(process),
        Err(ProcessError::Refused(Refusal::Unknown { .. })) => Err(ended(known)),
        Err(error) => {
            Err(Problem::new(format!("could not attach: {error}")).at(format!("run {}", known.id())))
        }
    }
}

async fn look(args: &AttachArgs, process: Box<dyn Process>, signals: Signals) -> Result<u8, Problem> {
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
