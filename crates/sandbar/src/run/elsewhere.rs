//! `sandbar run --on`: the command runs on another machine, planned and held there, shown and recorded here.
//!
//! What is asked for goes over in a person's words; the other machine's own rules, home and environment decide what
//! that comes to. Nothing of this machine is checked for it, and of our environment only what `--env` says goes along.

use std::collections::BTreeMap;
use std::time::Duration;

use sandbar_exec::remote::RemoteError;
use sandbar_exec::{Process, ProcessControl as _};
use sandbar_policy::{Glob, Profile};
use sandbar_proto::exec::{RunIntent, StartParams, Started, WireEnvPolicy, WirePath};
use sandbar_proto::{AbsPath, ByteString, OutputMode, RunId, StdinMode, Timestamp};
use sandbar_store::RunMeta;

use super::follow::{Follower, Manner, Role};
use super::record::Record;
use super::signals::{Signals, Wish};
use super::streams::Streams;
use super::{cannot_run, tell_lowered};
use crate::cli::{Git, RunArgs};
use crate::dirs::Directories;
use crate::elsewhere::Elsewhere;
use crate::json::Line;
use crate::places::{self, Place};
use crate::render::{Problem, note};
use crate::signal::SIGKILL;
use crate::terminal::DetachKeys;
use crate::{event_loop, exit, output};

/// Runs the command of `args` there and returns the status to exit with.
///
/// # Errors
/// It could not be run; statuses 125 to 127.
pub(super) fn execute(args: &RunArgs, directories: &Directories, place: Place) -> Result<u8, Problem> {
    if args.sandbox.permissions.is_some() {
        return Err(cannot_run("--permissions are not sent to another machine".to_owned())
            .at("--permissions with --on")
            .advise("write them as a profile there, and name it with --profile")
            .status(exit::USAGE));
    }
    if args.sandbox.debug || args.sandbox.nested {
        return Err(cannot_run("--debug and --nested are not sent to another machine".to_owned())
            .at("--on")
            .advise("write a profile with `debug` or `nested` there, and name it with --profile")
            .status(exit::USAGE));
    }
    // What the name of another profile means is said there.
    let profile = profile_there(args).parse::<Profile>().unwrap_or_default();
    if args.sandbox.executor.is_some() {
        return Err(cannot_run(
            "--sandbox chooses a program of this machine, and the command runs elsewhere".to_owned(),
        )
        .at("--sandbox with --on")
        .advise("leave it out: the other machine chooses")
        .status(exit::USAGE));
    }
    if !args.sandbox.give_up.is_empty() {
        return Err(cannot_run(
            "--give-up is about what this machine can't hold, and the command runs elsewhere".to_owned(),
        )
        .at("--give-up with --on")
        .advise("leave it out; where the other machine makes namespaces nothing has to be given up")
        .status(exit::USAGE));
    }
    let streams = Streams::choose(args, profile)?.relayed();
    let limits = args.limits()?;
    event_loop::block_on_and_leave(async {
        let mut signals =
            Signals::listen().map_err(|error| cannot_run(format!("could not listen to signals: {error}")))?;
        let elsewhere = Elsewhere::new(place);
        let id = RunId::generate();
        let begun = async {
            let cwd = working_directory(args, &elsewhere).await?;
            let intent = RunIntent {
                profile: profile_there(args).to_owned(),
                network: args.sandbox.network(),
                allow_write: paths("--allow-write", &args.sandbox.allow_write, &cwd)?,
                allow_read: paths("--allow-read", &args.sandbox.allow_read, &cwd)?,
                protect_git: matches!(args.sandbox.git, Some(Git::Protect)),
                separate_stderr: streams.plan().stderr == OutputMode::Logged,
                limits,
            };
            begin(args, directories, &elsewhere, streams, (id, cwd, intent)).await
        };
        let mut begun = std::pin::pin!(begun);
        let (process, record) = tokio::select! {
            biased;
            begun = &mut begun => begun?,
            wish = signals.next() => {
                let begun = tokio::time::timeout(INTERRUPT_PATIENCE, begun).await;
                return Err(interrupted(wish, begun.ok(), id, &elsewhere).await);
            }
        };
        if args.detach {
            return leave(args, &*process, &elsewhere);
        }
        let manner = Manner {
            role: Role::Starter,
            json: args.json,
            quiet: args.quiet,
            timeout: args.timeout,
            keys: args.detach_keys.clone().unwrap_or_else(DetachKeys::none),
        };
        let follower = Follower::new(manner, process, record, streams.input(), signals)?;
        elsewhere.while_telling(follower.follow()).await
    })
}

/// The profile's name, which is looked up there. What surrounds this program does not surround that machine.
fn profile_there(args: &RunArgs) -> &str {
    args.sandbox.profile.as_deref().unwrap_or_else(|| Profile::default().name())
}

/// Where the command runs: where it is said, or where the other machine begins.
async fn working_directory(args: &RunArgs, elsewhere: &Elsewhere) -> Result<AbsPath, Problem> {
    let info = elsewhere.remote().info().await;
    let info = info.map_err(|error| places::problem("run the command", elsewhere.place(), &error))?;
    let base = info.and_then(|info| info.cwd).map_or_else(AbsPath::root, |cwd| cwd.0);
    match &args.sandbox.cwd {
        Some(cwd) => below("--cwd", &base, cwd),
        None => Ok(base),
    }
}

/// A path of the other machine. `..` is refused: what it means depends on links there.
fn below(flag: &str, base: &AbsPath, path: &std::ffi::OsStr) -> Result<AbsPath, Problem> {
    let text = std::path::Path::new(path);
    let joined = if text.is_absolute() {
        AbsPath::new(path.to_owned())
    } else {
        AbsPath::new(base.as_path().join(text).into_os_string())
    };
    joined.map_err(|error| {
        Problem::new(format!("could not use the path {}: {error}", text.display()))
            .at(flag)
            .advise("name an absolute path of the other machine")
            .status(exit::USAGE)
    })
}

fn paths(flag: &str, given: &[std::ffi::OsString], cwd: &AbsPath) -> Result<Vec<WirePath>, Problem> {
    given.iter().map(|path| below(flag, cwd, path).map(WirePath)).collect()
}

/// A process that was started, and its record.
type Begun = (Box<dyn Process>, Record);

/// Starts it, with its record begun before.
async fn begin(
    args: &RunArgs,
    directories: &Directories,
    elsewhere: &Elsewhere,
    streams: Streams,
    (id, cwd, intent): (RunId, AbsPath, RunIntent),
) -> Result<Begun, Problem> {
    let place = elsewhere.place();
    let argv: Vec<ByteString> = args.command.iter().map(|argument| argument.clone().into()).collect();
    let command = argv.first().map(ByteString::to_display).unwrap_or_default();
    // Nobody here would go on with the record of a run that is left; the log there has what it writes.
    let record = if args.no_record || args.detach {
        Record::none()
    } else {
        let profile = profile_there(args).parse::<Profile>().unwrap_or_default();
        Record::begin_with(
            directories,
            RunMeta {
                id,
                argv: argv.clone(),
                cwd: cwd.clone(),
                profile: profile_there(args).to_owned(),
                network: intent.network.unwrap_or(profile.network()),
                writable_roots: intent.allow_write.iter().map(|path| path.0.clone()).collect(),
                notes: vec![format!("ran on {} ({})", place.name, place.reach)],
                withheld_env: 0,
                started: Timestamp::now(),
                holder_pid: None,
            },
        )?
    };
    let stdin = streams.plan().stdin;
    let params = StartParams {
        process_id: id.to_string(),
        argv,
        cwd: Some(WirePath(cwd)),
        env_policy: Some(env_policy(args)),
        env: overlay(args)?,
        unset: names(args)?,
        tty: stdin == StdinMode::Terminal,
        size: streams.terminal().map(|terminal| terminal.size),
        pipe_stdin: stdin == StdinMode::Piped,
        start_id: Some(id.to_string()),
        // As here: a run outlives whoever started it.
        detached: true,
        run: Some(intent),
        ..StartParams::default()
    };
    match elsewhere.remote().start(params).await {
        Ok((process, started)) => {
            tell(args, started.as_ref());
            Ok((process, record))
        }
        Err(error) => {
            let problem = not_started(&command, place, &error);
            record.failed_to_start(error.kind().unwrap_or("connection"), 0, &problem.what);
            Err(problem)
        }
    }
}

fn tell(args: &RunArgs, started: Option<&Started>) {
    let Some(started) = started else { return };
    if let Some(plan) = &started.plan {
        let shown = plan.notes.iter().filter(|note| note.is_warning || !args.quiet);
        shown.for_each(|told| note(&told.text));
        if plan.withheld_env > 0 && !args.quiet {
            let variables = if plan.withheld_env == 1 { "variable" } else { "variables" };
            note(format_args!(
                "withheld {} environment {variables} of the other machine that may be secret (--env-keep keeps them).",
                plan.withheld_env
            ));
        }
    }
    if !args.quiet {
        tell_lowered(&started.lowered);
    }
}

fn not_started(command: &str, place: &Place, error: &RemoteError) -> Problem {
    let problem = places::problem(&format!("start `{command}`"), place, error);
    let status = match error.kind() {
        Some("program_not_found") => exit::NOT_FOUND,
        Some("not_executable") => exit::NOT_EXECUTABLE,
        _ => exit::CANNOT_RUN,
    };
    problem.status(status)
}

/// The rules of `sandbar run` for the other machine's environment.
fn env_policy(args: &RunArgs) -> WireEnvPolicy {
    WireEnvPolicy {
        inherit: "all".to_owned(),
        include: args.env.env_keep.iter().map(Glob::to_string).collect(),
        ..WireEnvPolicy::default()
    }
}

fn overlay(args: &RunArgs) -> Result<BTreeMap<String, ByteString>, Problem> {
    let pair = |var: &sandbar_proto::EnvVar| Ok((text("--env", &var.name)?, var.value.clone()));
    args.env.env.iter().map(pair).collect()
}

fn names(args: &RunArgs) -> Result<Vec<String>, Problem> {
    args.env.env_unset.iter().map(|name| text("--env-unset", name)).collect()
}

fn text(flag: &str, name: &ByteString) -> Result<String, Problem> {
    name.as_str().map(str::to_owned).ok_or_else(|| {
        Problem::new("names of variables on another machine have to be UTF-8").at(flag).status(exit::USAGE)
    })
}

/// Leaves it to itself.
fn leave(args: &RunArgs, process: &dyn Process, elsewhere: &Elsewhere) -> Result<u8, Problem> {
    if args.json {
        return output::print(Line::started(process.record()).bytes());
    }
    if !args.quiet {
        let name = &elsewhere.place().name;
        note(format_args!("it is not recorded here; `sandbar logs --on {name}` shows what it writes."));
    }
    output::print(format!("{}\n", process.record().id))
}

/// How long an interrupted start, and the end of what it came to, may take to be answered.
const INTERRUPT_PATIENCE: Duration = Duration::from_secs(2);

/// How long the end of a run whose start is not answered may take to be answered. That it is asked for is what counts.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Ends what a start came to that was interrupted. Where that can't be known, it is said.
async fn interrupted(
    wish: Wish,
    begun: Option<Result<Begun, Problem>>,
    id: RunId,
    elsewhere: &Elsewhere,
) -> Problem {
    let name = &elsewhere.place().name;
    let problem = wish.interrupted("the command was started");
    let may_run = |problem: Problem| {
        let problem = problem.at(format!("run {id} on {name}, which may have been started there"));
        problem.advise(format!("`sandbar kill --on {name} {id}` ends it if it was"))
    };
    let record = match begun {
        // It failed by itself.
        Some(Err(_)) => return problem,
        Some(Ok((_, record))) => Some(record),
        None => None,
    };
    // One whose start is not answered yet ends as soon as it has begun, also when we are gone.
    let control = elsewhere.remote().control(&id.to_string());
    let patience = if record.is_some() { INTERRUPT_PATIENCE } else { LAST_WORD };
    let ended = tokio::time::timeout(patience, control.terminate(SIGKILL, Duration::ZERO)).await;
    if let Some(record) = record {
        record.failed_to_start("interrupted", 0, &problem.what);
    }
    if matches!(ended, Ok(Ok(()))) { problem } else { may_run(problem) }
}
