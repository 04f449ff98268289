//! The real thing: a command in a sandbox, through the keeper, exactly as `sandbar run` starts one.
//!
//! Keeps no rollout. The keeper has it on record like any run, and stays as long as after any run.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use sandbar_exec::{Handles, Processes as _, StartOptions, Watching};
use sandbar_keeper::protocol::{MINOR, Reply, Request};
use sandbar_keeper::{Client, Incoming, KeeperDir, RuntimeDir};
use sandbar_policy::{LaunchPlan, Profile, Wanted};
use sandbar_proto::{ExitStatus, LaunchSpec, LimitFacts, ProcessEvent, RunId, Sandbox};
use sandbar_sandbox::report::Step;

use super::{Check, Verdict, limits};
use crate::cli::{self, EnvArgs, SandboxArgs};
use crate::dirs::Directories;
use crate::render::Problem;
use crate::run::failure;
use crate::{environment, event_loop, keepers, plan};

const PROGRAM: &str = "true";

/// A command that does nothing and has not ended after this long hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// A keeper that has greeted us answers at once, unless it was stopped since.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

const KEEPER: &str = "keeper";
const SANDBOX: &str = "sandbox";
const OVERLAY: &str = "overlay";
const BWRAP: &str = "bwrap";
const LANDLOCK: &str = "landlock alone";
const EXECUTOR: &str = "executor";

/// What the trial showed.
pub(super) struct Trial {
    pub(super) keeper: Check,
    pub(super) overlay: Check,
    pub(super) sandbox: Check,
    /// Who else could make one, and who is chosen.
    pub(super) others: [Check; 3],
    pub(super) limits: Check,
}

/// Looks at the keeper as it is, and then runs the command.
pub(super) fn run(directories: &Directories) -> Trial {
    let looked = keepers::runtime(directories).map(|runtime| {
        let keeper = keeper(&runtime).unwrap_or_else(|problem| Check::failed(KEEPER, &problem));
        (runtime, keeper)
    });
    match looked {
        Ok((runtime, keeper)) => {
            let (native, overlay) = sandbox(directories, &runtime);
            let bwrap = stand_in(BWRAP, cli::Executor::Bwrap, directories, &runtime);
            let landlock = landlock(stand_in(LANDLOCK, cli::Executor::Landlock, directories, &runtime));
            let chosen = chosen(&native, &bwrap, &landlock);
            let sandbox = with_stand_in(native, &bwrap, &landlock);
            let others = [bwrap, landlock, chosen];
            Trial { keeper, overlay, sandbox, others, limits: limits::check(&runtime) }
        }
        Err(problem) => Trial {
            keeper: Check::new(KEEPER, Verdict::Skip, "there is no runtime directory"),
            overlay: Check::new(OVERLAY, Verdict::Skip, "no command could be tried"),
            sandbox: Check::failed(SANDBOX, &problem),
            others: [BWRAP, LANDLOCK, EXECUTOR]
                .map(|name| Check::new(name, Verdict::Skip, "no command could be tried")),
            limits: Check::new(limits::NAME, Verdict::Skip, "no keeper could be asked"),
        },
    }
}

// --- the keeper ---

fn keeper(runtime: &RuntimeDir) -> Result<Check, Problem> {
    let own = keepers::own(runtime)?;
    let living = keepers::living(runtime)?;
    if !living.contains(&own) {
        return Ok(Check::new(KEEPER, Verdict::Ok, "does not run; a run starts it"));
    }
    let mut client = keepers::greet(&own)?;
    let (version, pid) = introduce(&mut client)?;
    let held = event_loop::block_on(held(&own, client))?;
    let runs = if held == 1 { "run" } else { "runs" };
    let others = match living.len() - 1 {
        0 => String::new(),
        others => format!("; {others} more for callers with other groups or namespaces"),
    };
    let detail = format!("sandbar {version}, pid {pid}, holds {held} {runs}{others}");
    if version == env!("CARGO_PKG_VERSION") {
        return Ok(Check::new(KEEPER, Verdict::Ok, detail));
    }
    Ok(Check::new(KEEPER, Verdict::Warn, detail)
        .advise("`sandbar keeper stop` ends it when nothing runs; the next run starts one of this version"))
}

async fn held(keeper: &KeeperDir, client: Client) -> Result<usize, Problem> {
    let processes = keepers::converse(keeper, client)?;
    let listed = event_loop::answer(processes.list()).await?.map_err(|error| {
        Problem::new(format!("could not ask the keeper what it holds: {error}")).at(keeper.path().display())
    })?;
    Ok(listed.iter().filter(|process| !process.closed).count())
}

/// Asks a keeper for its release and process id: the greeting again, which it answers at any time.
fn introduce(client: &mut Client) -> Result<(String, u32), Problem> {
    let failed = |reason: &dyn std::fmt::Display| {
        Problem::new(format!("could not ask the keeper for its version: {reason}"))
    };
    let hello = Request::Hello { minor: MINOR, version: env!("CARGO_PKG_VERSION").to_owned() };
    client.request(hello, &[], Vec::new()).and_then(|_| client.flush()).map_err(|error| failed(&error))?;
    let deadline = Instant::now() + ANSWER_DEADLINE;
    loop {
        match client.receive().map_err(|error| failed(&error))? {
            Some(Incoming::Reply(_, Reply::Hello { version, pid, .. })) => return Ok((version, pid)),
            Some(Incoming::Reply(..) | Incoming::Event(_)) => {}
            None => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(failed(&"it does not answer"));
                }
                let left = rustix::time::Timespec::try_from(left).ok();
                // Interrupted or not, what came is looked at next.
                let _ = poll(&mut [PollFd::new(&*client, PollFlags::IN)], left.as_ref());
            }
        }
    }
}

// --- the command ---

/// The sandbox as a whole, and the overlays in it.
fn sandbox(directories: &Directories, runtime: &RuntimeDir) -> (Check, Check) {
    let plan = match plan(directories, cli::Executor::Native) {
        Ok(plan) => plan,
        Err(problem) => {
            return (
                Check::failed(SANDBOX, &problem),
                Check::new(OVERLAY, Verdict::Skip, "no command could be tried"),
            );
        }
    };
    let caches = caches(plan.spec());
    let result = start(runtime, plan);
    let overlay = overlay(caches, &result);
    let sandbox = match result {
        Ok(took) => {
            let detail = format!(
                "`{PROGRAM}` ran as profile {} in {:.1} ms",
                Profile::ReadOnly,
                took.as_secs_f64() * 1e3
            );
            Check::new(SANDBOX, Verdict::Ok, detail)
        }
        Err(failed) => Check::failed(SANDBOX, &failed.problem).without_itself(),
    };
    (sandbox, overlay)
}

/// The sandbox again, as somebody else makes it, whom nobody needs as long as sandbar can make namespaces itself.
fn stand_in(
    name: &'static str,
    executor: cli::Executor,
    directories: &Directories,
    runtime: &RuntimeDir,
) -> Check {
    let plan = match plan(directories, executor) {
        Ok(plan) => plan,
        Err(problem) => return Check::new(name, Verdict::Skip, problem.what),
    };
    match start(runtime, plan) {
        Ok(took) => {
            let detail = format!("`{PROGRAM}` ran in its sandbox in {:.1} ms", took.as_secs_f64() * 1e3);
            Check::new(name, Verdict::Ok, detail)
        }
        Err(failed) => Check::new(name, Verdict::Skip, failed.problem.what),
    }
}

/// What Landlock alone is good for, where it works.
fn landlock(check: Check) -> Check {
    if check.status != Verdict::Ok {
        return check;
    }
    let abi = sandbar_sandbox::facts::landlock_abi();
    let detail = format!(
        "{}; ABI {abi}, which keeps signals in; for -p read-only, and for writable folders with --give-up \
         protected-names",
        check.detail
    );
    Check { detail, ..check }
}

/// Who makes the sandbox of a run that names nobody.
fn chosen(native: &Check, bwrap: &Check, landlock: &Check) -> Check {
    let works = |check: &Check| check.status == Verdict::Ok;
    let (status, detail) = if works(native) {
        (Verdict::Ok, "native")
    } else if works(bwrap) {
        (Verdict::Warn, "bwrap, because native can't make one")
    } else if works(landlock) {
        (Verdict::Warn, "landlock, for what it can hold, because nobody makes namespaces")
    } else {
        (Verdict::Fail, "none")
    };
    Check::new(EXECUTOR, status, detail)
}

/// What there is to say about the sandbox when somebody else works.
fn with_stand_in(native: Check, bwrap: &Check, landlock: &Check) -> Check {
    let instead = match (native.status, bwrap.status, landlock.status) {
        (Verdict::Fail, Verdict::Ok, _) => "bubblewrap makes sandboxes instead, without caches",
        (Verdict::Fail, _, Verdict::Ok) => {
            "Landlock alone holds what it can instead: -p read-only, or less by its name"
        }
        _ => return native,
    };
    let detail = format!("{}; {instead}", native.detail);
    Check { status: Verdict::Warn, detail, ..native }
}

/// The plan of `sandbar run -p read-only --sandbox EXECUTOR --cwd / true`.
fn plan(directories: &Directories, executor: cli::Executor) -> Result<LaunchPlan, Problem> {
    let profile = Profile::ReadOnly;
    let args = SandboxArgs {
        profile: Some(profile.name().to_owned()),
        allow_write: Vec::new(),
        allow_read: Vec::new(),
        net: None,
        permissions: None,
        git: None,
        debug: false,
        nested: false,
        executor: Some(executor),
        give_up: Vec::new(),
        cwd: Some("/".into()),
    };
    let env = environment::resolve(&EnvArgs::default(), profile, profile.network(), None);
    let mut request = plan::request(&args, directories, Wanted::of(profile))?;
    request.argv = vec![PROGRAM.into()];
    request.env = env.vars;
    request.attributes = sandbar_sandbox::caller::attributes();
    Ok(plan::compile(&request, &LimitFacts::default())?.plan)
}

fn caches(spec: &LaunchSpec) -> usize {
    match &spec.sandbox {
        Sandbox::None => 0,
        Sandbox::Linux(sandbox) => sandbox.caches.len(),
    }
}

/// Why the command did not run to its end, and at which step.
struct Failed {
    problem: Problem,
    step: Option<String>,
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self { problem, step: None }
    }
}

/// Runs the plan; returns the time from its start to its end.
fn start(runtime: &RuntimeDir, plan: LaunchPlan) -> Result<Duration, Failed> {
    let keeper = keepers::connect_or_start(runtime)?;
    let spec = plan.spec().clone();
    event_loop::block_on(async {
        let processes = keeper.converse()?;
        let options = StartOptions {
            id: RunId::generate(),
            watching: Watching::End,
            handles: Handles::default(),
            rollout: None,
            owner: None,
        };
        let begun = Instant::now();
        let mut process = match event_loop::answer(processes.start(plan, options)).await? {
            Ok(process) => process,
            Err(error) => {
                let (problem, step, _) = failure::problem(&error, &failure::About::of(&spec));
                return Ok(Err(Failed { problem, step: Some(step) }));
            }
        };
        let ended = async {
            loop {
                match process.next_event().await {
                    Ok(Some(ProcessEvent::Exited(end))) => return Ok(end.status),
                    Ok(Some(
                        ProcessEvent::Output { .. }
                        | ProcessEvent::Gap(_)
                        | ProcessEvent::Stopped { .. }
                        | ProcessEvent::Closed { .. },
                    )) => {}
                    Ok(None) => return Ok(ExitStatus::Lost),
                    Err(error) => return Err(Problem::new(format!("lost the trial: {error}"))),
                }
            }
        };
        Ok(match tokio::time::timeout(DEADLINE, ended).await {
            Ok(Ok(ExitStatus::Exited { code: 0 })) => Ok(begun.elapsed()),
            Ok(Ok(status)) => Err(Problem::new(format!("`{PROGRAM}` {status}")).into()),
            Ok(Err(problem)) => Err(problem.into()),
            Err(_) => {
                let late = format!("`{PROGRAM}` has not ended within {} s", DEADLINE.as_secs());
                Err(Problem::new(late).advise("`sandbar ps` shows it, `sandbar kill` ends it").into())
            }
        })
    })
    .unwrap_or_else(|problem| Err(problem.into()))
}

/// What the trial says about overlays, which it has only if there are caches to put them on.
fn overlay(caches: usize, result: &Result<Duration, Failed>) -> Check {
    let refused = |failed: &&Failed| failed.step.as_deref() == Some(Step::Cache.name());
    match (caches, result.as_ref().err().filter(refused), result) {
        (_, Some(failed), _) => Check::failed(OVERLAY, &failed.problem),
        (0, None, _) => {
            Check::new(OVERLAY, Verdict::Skip, "there is no download cache to mount copy-on-write")
        }
        (1, None, Ok(_)) => Check::new(OVERLAY, Verdict::Ok, "1 cache was mounted copy-on-write"),
        (_, None, Ok(_)) => {
            Check::new(OVERLAY, Verdict::Ok, format!("{caches} caches were mounted copy-on-write"))
        }
        (_, None, Err(_)) => Check::new(OVERLAY, Verdict::Skip, "the trial failed for another reason"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(step: Step) -> Result<Duration, Failed> {
        Err(Failed { problem: Problem::new("no"), step: Some(step.name().to_owned()) })
    }

    #[test]
    fn a_machine_where_only_a_stand_in_works_is_one_that_works_and_says_who_is_chosen() {
        use Verdict::{Fail, Ok, Skip, Warn};
        let check = |status| Check::new(SANDBOX, status, "said");
        let table = [
            (Ok, Skip, Skip, Ok, "native"),
            (Ok, Ok, Ok, Ok, "native"),
            (Fail, Skip, Skip, Fail, "none"),
            (Fail, Ok, Ok, Warn, "bwrap"),
            (Fail, Ok, Skip, Warn, "bwrap"),
            (Fail, Skip, Ok, Warn, "landlock"),
        ];
        for (native, bwrap, landlock, expected, who) in table {
            let told = with_stand_in(check(native), &check(bwrap), &check(landlock));
            assert_eq!(told.status, expected, "{native:?} {bwrap:?} {landlock:?}");
            let chosen = chosen(&check(native), &check(bwrap), &check(landlock));
            assert_eq!((chosen.status, chosen.detail.split(',').next()), (expected, Some(who)));
        }
    }

    #[test]
    fn overlays_are_judged_only_by_a_trial_that_had_some() {
        let table = [
            (2, Ok(Duration::ZERO), Verdict::Ok),
            (0, Ok(Duration::ZERO), Verdict::Skip),
            (2, failed(Step::Cache), Verdict::Fail),
            (2, failed(Step::Proc), Verdict::Skip),
        ];
        for (caches, result, expected) in table {
            assert_eq!(overlay(caches, &result).status, expected);
        }
    }
}
