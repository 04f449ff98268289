//! `sandbar run`: one command, from what was typed to its exit status.
//!
//! Everything that can be wrong is found before anything starts. Then one loop follows the process: its events
//! go to the record and to the person, signals that reach us go to it, and whoever falls behind makes it wait
//! rather than lose a byte.

mod failure;
mod follow;
mod json;
mod record;
mod relay;
mod signals;
mod streams;

use sandbar_exec::StartOptions;
use sandbar_exec::local::LocalProcesses;
use sandbar_policy::{Compiled, ResolvedEnv};
use sandbar_proto::{ByteString, EnvVar, Limits, RunId};

use crate::cli::RunArgs;
use crate::dirs::Directories;
use crate::render::{Problem, note};
use crate::{environment, exit, keepers, plan};
use follow::Follower;
use record::Record;
use streams::Streams;

/// Runs the command of `args` and returns the status to exit with.
///
/// # Errors
/// It could not be run; statuses 125 to 127.
pub(crate) fn execute(args: &RunArgs) -> Result<u8, Problem> {
    let directories = Directories::find()?;
    let id = RunId::generate();
    let profile = args.sandbox.profile()?;
    let network = args.sandbox.network().unwrap_or_else(|| profile.network());
    let env = environment::resolve(&args.env, profile, network, Some(id))?;
    let streams = Streams::choose(args, profile)?;
    let mut request = plan::request(&args.sandbox, &directories)?;
    request.argv = args.command.iter().map(|argument| ByteString::from(argument.clone())).collect();
    request.env.clone_from(&env.vars);
    if args.sandbox.cwd.is_some() {
        replace(&mut request.env, "PWD", request.cwd.as_bytes());
    }
    request.stdio = streams.plan();
    request.attributes = sandbar_sandbox::caller::attributes();
    request.limits = Limits { wall: args.timeout };
    let compiled = plan::compile(&request)?;
    if !args.quiet {
        tell_notes(&compiled, &env);
    }
    let runtime = keepers::runtime(&directories)?;
    let (client, processes) = keepers::connect_or_start(&runtime)?;
    let record = Record::begin(args, &directories, id, &compiled, &env)?;
    let options = StartOptions { id, watching: streams.watching(), handles: streams.handles()? };
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| cannot_run(format!("could not make an event loop: {error}")))?;
    let result = tokio.block_on(async {
        let processes = LocalProcesses::new(client, processes)
            .map_err(|error| cannot_run(format!("could not watch the connection to the keeper: {error}")))?;
        Follower::start(args, &processes, compiled.plan, options, record, &streams).await?.follow().await
    });
    // A thread may still wait for input that never comes; the process need not wait for it.
    tokio.shutdown_background();
    result
}

fn cannot_run(what: String) -> Problem {
    Problem::new(what).status(exit::CANNOT_RUN)
}

fn replace(env: &mut Vec<EnvVar>, name: &str, value: &[u8]) {
    env.retain(|var| var.name.as_bytes() != name.as_bytes());
    env.push(EnvVar { name: name.into(), value: value.into() });
}

fn tell_notes(compiled: &Compiled, env: &ResolvedEnv) {
    for text in &compiled.notes {
        note(text);
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
