//! `sandbar run`: one command, from what was typed to its exit status.
//!
//! Everything that can be wrong is found before anything starts. Then one loop follows the process: its events
//! go to the record and to the person, signals that reach us go to it, and whoever falls behind makes it wait
//! rather than lose a byte.

pub(crate) mod attach;
pub(crate) mod denials;
mod detach;
mod elsewhere;
pub(crate) mod failure;
mod follow;
mod record;
mod relay;
mod signals;
mod streams;
mod submodules;
mod tail;

use std::time::Duration;

use sandbar_exec::local::LocalProcesses;
use sandbar_exec::start::{NotStarted, Told};
use sandbar_exec::{Process, Processes as _, StartError, StartOptions};
use sandbar_keeper::RuntimeDir;
use sandbar_policy::{Compiled, ResolvedEnv, RunRequest, Wanted};
use sandbar_proto::{AbsPath, ByteString, EnvVar, LimitFacts, ProcessAttributes, RunId};

use crate::cli::RunArgs;
use crate::dirs::Directories;
use crate::places::Where;
use crate::render::{Problem, note};
use crate::signal::SIGKILL;
use crate::terminal::DetachKeys;
use crate::{environment, event_loop, exit, keepers, places, plan, profile};
use denials::Denials;
use follow::{Follower, Manner, Role};
use record::Record;
use signals::{Signals, Wish};
use streams::Streams;

/// Runs the command of `args` and returns the status to exit with.
///
/// # Errors
/// It could not be run; statuses 125 to 127.
pub(crate) fn execute(args: &RunArgs) -> Result<u8, Problem> {
    let directories = Directories::find()?;
    if let Where::Elsewhere(place) = places::find(&args.on, &directories)? {
        return elsewhere::execute(args, &directories, place);
    }
    let wanted = profile::wanted(&args.sandbox, &directories)?;
    let profile = wanted.profile;
    let runtime = keepers::runtime(&directories)?;
    // A keeper that runs looks at us while we think. One that is started first cleans up behind its predecessor, which
    // may change what there is to plan with.
    let attributes = sandbar_sandbox::caller::attributes();
    let keeper = Keeper::reach(&runtime, &attributes)?;
    let id = RunId::generate();
    let network = wanted.network;
    let env = environment::resolve(&args.env, profile, network, Some(id));
    let streams = Streams::choose(args, profile)?;
    let request = RunRequest { attributes, ..request(args, &directories, &env, streams, wanted)? };
    raise_file_size_limit();
    let (keeper, limits) = keeper.limits(&request)?;
    let mut compiled = plan::compile(&request, &limits)?;
    tell_notes(&compiled, &env, args.quiet);
    if args.detach {
        detach::warn(args, &directories);
    }
    let watched = compiled.watched.clone();
    let keeper = keeper.enter()?;
    let record = Record::begin(args, &directories, id, &compiled, &env)?;
    // Its start needs them no more.
    let permissions = std::mem::take(&mut compiled.permissions);
    let denials = Denials::new(permissions, compiled.network, request.cwd.clone(), request.home.clone());
    let result = event_loop::block_on_and_leave(async {
        // Listened to before the start, so that none of the first moments kills us and leaves the command alone.
        let mut signals =
            Signals::listen().map_err(|error| cannot_run(format!("could not listen to signals: {error}")))?;
        let processes = keeper.converse()?;
        let about = failure::About::of(compiled.plan.spec());
        let started = tokio::select! {
            biased;
            started = start(&processes, (request, limits), compiled, (id, record.rollout()), streams) => started?,
            wish = signals.next() => return Err(interrupted(&processes, id, record, wish).await),
        };
        if let (Ok(process), false) = (&started, args.quiet) {
            tell_lowered(process.lowered());
        }
        match started {
            Ok(process) if args.detach => detach::leave(args, process, record).await,
            Ok(process) => {
                let manner = Manner {
                    role: Role::Starter,
                    json: args.json,
                    quiet: args.quiet,
                    timeout: args.timeout,
                    keys: args.detach_keys.clone().unwrap_or_else(DetachKeys::none),
                };
                let follower = Follower::new(manner, process, record, streams.input(), signals)?;
                follower.explaining(denials).follow().await
            }
            Err(error) => {
                let (problem, step, errno) = failure::problem(&error, &about);
                record.failed_to_start(&step, errno, &problem.what);
                Err(problem)
            }
        }
    });
    // Also to those who want no notes: the next command on the host may be the one that does the harm.
    submodules::tell_added(&watched);
    result
}

/// Ends a start that is under way; whatever it leads to is ended as well.
async fn interrupted(processes: &LocalProcesses, id: RunId, record: Record, wish: Wish) -> Problem {
    // A keeper that does not answer is why somebody interrupts; the request is on its way to it.
    let control = processes.control(id);
    let _ = tokio::time::timeout(INTERRUPT_PATIENCE, control.terminate(SIGKILL, Duration::ZERO)).await;
    let problem = wish.interrupted("the command was started");
    record.failed_to_start("interrupted", 0, &problem.what);
    problem
}

/// How long an interrupted start waits for the keeper's answer.
const INTERRUPT_PATIENCE: Duration = Duration::from_millis(200);

/// A small limit is meant for the command, which has it; our own plan and record count as files too (setrlimit(2)).
fn raise_file_size_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    // Raising a soft limit to its hard one is always allowed.
    let _ = setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum });
}

/// The keeper of this run.
enum Keeper {
    /// It runs, and has not answered yet.
    Knocked(keepers::Knocked),
    /// It was started, and answered.
    Entered(keepers::Entered),
}

impl Keeper {
    fn reach(runtime: &RuntimeDir, caller: &ProcessAttributes) -> Result<Self, Problem> {
        let knocked = keepers::knock(runtime, caller)?;
        if knocked.is_answered() {
            return Ok(Self::Knocked(knocked));
        }
        knocked.enter().map(Self::Entered)
    }

    /// What it can enforce limits with, where the request has some that need it.
    fn limits(self, request: &RunRequest) -> Result<(Self, LimitFacts), Problem> {
        if !request.limits.bound_resources() {
            return Ok((self, LimitFacts::default()));
        }
        let mut entered = self.enter()?;
        let facts = entered.limits()?;
        Ok((Self::Entered(entered), facts))
    }

    fn enter(self) -> Result<keepers::Entered, Problem> {
        match self {
            Self::Knocked(knocked) => knocked.enter(),
            Self::Entered(entered) => Ok(entered),
        }
    }
}

/// What is asked of the policy.
fn request(
    args: &RunArgs,
    directories: &Directories,
    env: &ResolvedEnv,
    streams: Streams,
    wanted: Wanted,
) -> Result<RunRequest, Problem> {
    let mut request = plan::request(&args.sandbox, directories, wanted)?;
    request.argv = args.command.iter().map(|argument| ByteString::from(argument.clone())).collect();
    request.env.clone_from(&env.vars);
    if args.sandbox.cwd.is_some() {
        replace(&mut request.env, "PWD", request.cwd.as_bytes());
    }
    request.stdio = streams.plan();
    request.terminal = streams.terminal();
    request.limits = args.limits()?;
    Ok(request)
}

/// Starts the plan, or another one where the world changed between plan and start, see [`sandbar_exec::start`].
///
/// # Errors
/// The outer one: there is no new plan. The inner one: it could not be started.
async fn start(
    processes: &LocalProcesses,
    (request, limits): (RunRequest, LimitFacts),
    compiled: Compiled,
    (id, rollout): (RunId, Option<AbsPath>),
    streams: Streams,
) -> Result<Result<Box<dyn Process>, StartError>, Problem> {
    let profile = request.profile_name().to_owned();
    let about = failure::About::of(compiled.plan.spec());
    let options = || {
        Ok(StartOptions {
            id,
            watching: streams.watching(),
            handles: streams.handles()?,
            rollout: rollout.clone(),
            owner: None,
        })
    };
    let told = |told: Told<'_>| match told {
        Told::WithoutCaches(failure) => {
            note(format_args!("{}; caches are read-only in this run.", failure::cache_obstacle(failure)));
        }
        Told::ByBwrap => note(
            "sandbar may not make namespaces here, so the system's bubblewrap is to make this sandbox; caches are \
             read-only in it.",
        ),
        Told::ByLandlock(notes) => {
            note("nobody may make namespaces here, so Landlock holds this run alone.");
            notes.iter().for_each(note);
        }
    };
    match sandbar_exec::start::start(processes, (request, &limits), compiled, options, told).await {
        Ok(process) => Ok(Ok(process)),
        Err(NotStarted::Start(error)) => Ok(Err(error)),
        Err(NotStarted::Options(problem)) => Err(problem),
        Err(NotStarted::Plan(error)) => Err(plan::problem(&error, &profile)),
        Err(NotStarted::NoExecutor { error, landlock }) => {
            Err(failure::without_executor(&error, &about, &plan::problem(&landlock, &profile)))
        }
    }
}

fn cannot_run(what: String) -> Problem {
    Problem::new(what).status(exit::CANNOT_RUN)
}

fn replace(env: &mut Vec<EnvVar>, name: &str, value: &[u8]) {
    env.retain(|var| var.name.as_bytes() != name.as_bytes());
    env.push(EnvVar { name: name.into(), value: value.into() });
}

/// Says which of the caller's resource limits its command does not have.
fn tell_lowered(lowered: &[(u32, u64)]) {
    for (resource, value) in lowered {
        let (name, option) = sandbar_sandbox::caller::resource_name(*resource);
        note(format_args!(
            "the limit on {name} is {value} in this run (`ulimit {option}`): the keeper was started under a lower one than \
             yours; `sandbar keeper stop` lets the next run start another when nothing runs."
        ));
    }
}

fn tell_notes(compiled: &Compiled, env: &ResolvedEnv, is_quiet: bool) {
    compiled.notes.iter().filter(|note| !is_quiet || note.is_warning()).for_each(note);
    if is_quiet {
        return;
    }
    let withheld = env.withheld_count();
    if withheld > 0 {
        let variables = if withheld == 1 { "variable" } else { "variables" };
        note(format_args!(
            "withheld {withheld} environment {variables} that may be secret (`sandbar policy env` lists them, \
             --env-keep keeps them)."
        ));
    }
}
