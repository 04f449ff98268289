//! Starting a request: plans it again when the world changed between plan and start.

use sandbar_keeper::protocol::{StartFailure, StartStep};
use sandbar_policy::{CacheMode, Compiled, ExecutorWish, Note, RunRequest};
use sandbar_proto::LimitFacts;
use sandbar_sandbox::report::Step;

use crate::facts::{self, PlanError};
use crate::{Process, Processes, StartError, StartOptions};

/// How often a plan is made again because the host changed under it. Other runs that begin and end in the same
/// workspace are such changes, so once is not enough; a host that changes all the time is not worth waiting for.
const CHANGES: u32 = 10;

const ENOENT: i32 = 2;
const ESTALE: i32 = 116;

/// Why a request is not a process.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted<E> {
    /// There is no options for it.
    #[error("{0}")]
    Options(E),
    /// There is no new plan.
    #[error(transparent)]
    Plan(PlanError),
    /// It was not started.
    #[error(transparent)]
    Start(StartError),
    /// Nobody may make namespaces here, and what is asked for can't be had without.
    #[error("{error}; and without namespaces: {landlock}")]
    NoExecutor {
        /// Why there are no namespaces.
        error: StartError,
        /// Why Landlock alone is not enough.
        landlock: PlanError,
    },
}

/// Why what starts is not what was planned first.
#[derive(Debug)]
pub enum Told<'a> {
    /// Caches can't be mounted copy-on-write.
    WithoutCaches(&'a StartFailure),
    /// Only bubblewrap may make namespaces.
    ByBwrap,
    /// Nobody may, so Landlock holds alone. This is what there is to say about that plan.
    ByLandlock(&'a [Note]),
}

/// Starts the plan of `compiled`, or another one of `request` if the host changed in between. Where caches can't be
/// mounted copy-on-write they are left read-only, which is stricter; where only the system's bubblewrap may make
/// namespaces, it makes them; where nobody may, Landlock holds alone what it can hold. `told` hears why. `options` is asked
/// for each attempt.
///
/// # Errors
/// [`NotStarted`].
pub async fn start<E>(
    processes: &dyn Processes,
    (mut request, limits): (RunRequest, &LimitFacts),
    mut compiled: Compiled,
    mut options: impl FnMut() -> Result<StartOptions, E>,
    mut told: impl FnMut(Told<'_>),
) -> Result<Box<dyn Process>, NotStarted<E>> {
    let mut changes = CHANGES;
    let is_free = request.executor == ExecutorWish::Any;
    // Why the native executor could not; what bubblewrap says after it is about bubblewrap.
    let mut native = None;
    loop {
        let options = options().map_err(NotStarted::Options)?;
        let error = match processes.start(compiled.plan, options).await {
            Ok(process) => return Ok(process),
            Err(error) => error,
        };
        let StartError::Failed(failure) = &error else { return Err(NotStarted::Start(error)) };
        if changes > 0 && is_about_a_change(failure) {
            changes -= 1;
        } else if request.caches == CacheMode::CopyOnWrite && is_about_caches(failure) {
            told(Told::WithoutCaches(failure));
            request.caches = CacheMode::Off;
        } else if is_free && makes_no_namespaces(request.executor, failure) {
            let reason = native.take().unwrap_or(error);
            let stand_in = stand_in(&request, limits);
            match stand_in {
                Ok((next, planned)) => {
                    told(if next.executor == ExecutorWish::Bwrap {
                        Told::ByBwrap
                    } else {
                        Told::ByLandlock(&planned.notes)
                    });
                    (request, compiled, native) = (next, planned, Some(reason));
                }
                Err(landlock) => return Err(NotStarted::NoExecutor { error: reason, landlock }),
            }
            continue;
        } else {
            return Err(NotStarted::Start(error));
        }
        compiled = facts::plan(&request, limits).map_err(NotStarted::Plan)?;
    }
}

/// Whether an executor failed because it may not make namespaces.
fn makes_no_namespaces(executor: ExecutorWish, failure: &StartFailure) -> bool {
    match executor {
        ExecutorWish::Any => is_about_namespaces(failure),
        ExecutorWish::Bwrap => failure.step.in_sandbox() == Some(Step::Bwrap),
        ExecutorWish::Native | ExecutorWish::Landlock => false,
    }
}

/// The plan for whoever comes after the executor of `request`: bubblewrap if there is one that can be trusted, then
/// Landlock alone.
fn stand_in(request: &RunRequest, limits: &LimitFacts) -> Result<(RunRequest, Compiled), PlanError> {
    if request.executor == ExecutorWish::Any {
        let by_bwrap = RunRequest { executor: ExecutorWish::Bwrap, ..request.clone() };
        if let Ok(planned) = facts::plan(&by_bwrap, limits) {
            return Ok((by_bwrap, planned));
        }
    }
    let by_landlock = RunRequest { executor: ExecutorWish::Landlock, ..request.clone() };
    let planned = facts::plan(&by_landlock, limits)?;
    Ok((by_landlock, planned))
}

/// Whether a start failed because something on the host changed between plan and start.
fn is_about_a_change(failure: &StartFailure) -> bool {
    match failure.step.in_sandbox() {
        Some(Step::Changed | Step::CwdChanged) => true,
        Some(Step::Source | Step::Mount) => failure.errno == ENOENT,
        Some(_other) => false,
        None => failure.step == StartStep::Placeholder && failure.errno == ESTALE,
    }
}

/// Whether a start failed because this program may not make namespaces, or not use them.
fn is_about_namespaces(failure: &StartFailure) -> bool {
    matches!(failure.step.in_sandbox(), Some(Step::Namespaces | Step::IdMap))
}

/// Whether a start failed because caches can't be mounted here.
fn is_about_caches(failure: &StartFailure) -> bool {
    failure.step == StartStep::CacheStore || failure.step.in_sandbox() == Some(Step::Cache)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use sandbar_keeper::protocol::ProcessState;
    use sandbar_policy::{LaunchPlan, OwnDirectories, Profile};
    use sandbar_proto::{AbsPath, Executor, RunId, Sandbox, Seq};
    use sandbar_testkit::need;

    use super::*;
    use crate::{BoxFuture, Handles, ProcessControl, ProcessError, Watching};

    fn failure(step: StartStep, errno: i32) -> StartFailure {
        StartFailure { step, errno, path: None, detail: String::new() }
    }

    /// A keeper that starts nothing: it fails each time at one step, and remembers who was to make the sandbox.
    struct Refusing {
        step: Step,
        asked: Mutex<Vec<&'static str>>,
    }

    impl Processes for Refusing {
        fn start(
            &self,
            plan: LaunchPlan,
            _: StartOptions,
        ) -> BoxFuture<'_, Result<Box<dyn Process>, StartError>> {
            let Sandbox::Linux(sandbox) = &plan.spec().sandbox else { panic!("there is no sandbox") };
            self.asked.lock().unwrap().push(match sandbox.executor {
                Executor::Native => "native",
                Executor::Bwrap { .. } => "bwrap",
                Executor::Landlock { .. } => "landlock",
            });
            let failure = failure(StartStep::Sandbox(self.step.name().to_owned()), 1);
            Box::pin(async { Err(StartError::Failed(failure)) })
        }

        fn follow(&self, _: RunId, _: Watching) -> BoxFuture<'_, Result<Box<dyn Process>, ProcessError>> {
            unreachable!("nothing runs")
        }

        fn follow_from(
            &self,
            _: RunId,
            _: Watching,
            _: Seq,
        ) -> BoxFuture<'_, Result<Box<dyn Process>, ProcessError>> {
            unreachable!("nothing runs")
        }

        fn list(&self) -> BoxFuture<'_, Result<Vec<ProcessState>, ProcessError>> {
            unreachable!("nothing runs")
        }

        fn control(&self, _: RunId) -> Box<dyn ProcessControl> {
            unreachable!("nothing runs")
        }
    }

    fn abs(path: &std::path::Path) -> AbsPath {
        AbsPath::new(path.as_os_str()).unwrap()
    }

    fn request(folder: &std::path::Path, executor: ExecutorWish, search: &[&str]) -> RunRequest {
        let own = |name: &str| abs(&folder.join(name));
        let own = OwnDirectories {
            runtime: own("run"),
            state: own("state"),
            config: own("config"),
            cache: own("cache"),
            home: None,
            elsewhere: Vec::new(),
        };
        RunRequest {
            executor,
            search: search.iter().map(|path| abs(path.as_ref())).collect(),
            ..RunRequest::new(abs(&folder.join("work")), own)
        }
    }

    /// Who was asked to make the sandbox, one after another, how often somebody was told, and whether nobody could.
    async fn asked(
        step: Step,
        executor: ExecutorWish,
        search: &[&str],
        profile: Profile,
    ) -> (Vec<&'static str>, usize, bool) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        let request = RunRequest { profile, ..request(folder.path(), executor, search) };
        let compiled = facts::plan(&request, &LimitFacts::default()).unwrap();
        let keeper = Refusing { step, asked: Mutex::default() };
        let options = || {
            Ok::<_, std::convert::Infallible>(StartOptions {
                id: RunId::generate(),
                watching: Watching::End,
                handles: Handles::default(),
                rollout: None,
                owner: None,
            })
        };
        let mut told = 0;
        let limits = LimitFacts::default();
        let started = start(&keeper, (request, &limits), compiled, options, |_| told += 1).await;
        let is_nobody = match started.map(drop) {
            Err(NotStarted::Start(StartError::Failed(_))) => false,
            Err(NotStarted::NoExecutor { error: StartError::Failed(_), .. }) => true,
            other => panic!("{other:?}"),
        };
        (keeper.asked.into_inner().unwrap(), told, is_nobody)
    }

    #[tokio::test]
    async fn bubblewrap_makes_the_sandbox_where_this_program_may_not() {
        let bwrap = need!(need::program("bwrap"));
        let place = bwrap.parent().unwrap().to_str().unwrap();
        for step in [Step::Namespaces, Step::IdMap] {
            assert_eq!(
                asked(step, ExecutorWish::Any, &[place], Profile::Workspace).await,
                (vec!["native", "bwrap"], 1, false),
                "{step}"
            );
        }
    }

    #[tokio::test]
    async fn landlock_holds_alone_where_nobody_makes_namespaces_and_it_can() {
        let abi = sandbar_sandbox::facts::landlock_abi();
        need!(need::that(abi >= 6, "Landlock holds alone from ABI 6 on"));
        let any = ExecutorWish::Any;
        let alone = asked(Step::Namespaces, any, &[], Profile::ReadOnly).await;
        assert_eq!(alone, (vec!["native", "landlock"], 1, false));
        let cannot = asked(Step::Namespaces, any, &[], Profile::Workspace).await;
        assert_eq!(cannot, (vec!["native"], 0, true));
        let bwrap = need!(need::program("bwrap"));
        let place = bwrap.parent().unwrap().to_str().unwrap();
        // It fails at every step with that one, which is bubblewrap's.
        let keeper = asked(Step::Bwrap, ExecutorWish::Any, &[place], Profile::ReadOnly).await;
        assert_eq!(keeper, (vec!["native"], 0, false), "the native executor has no such step");
    }

    #[tokio::test]
    async fn nobody_else_makes_it_when_that_is_not_wanted_or_does_not_help() {
        let bwrap = need!(need::program("bwrap"));
        let place = bwrap.parent().unwrap().to_str().unwrap();
        let workspace = Profile::Workspace;
        let native = || (vec!["native"], 0, false);
        assert_eq!(asked(Step::Namespaces, ExecutorWish::Native, &[place], workspace).await, native());
        assert_eq!(asked(Step::Seccomp, ExecutorWish::Any, &[place], workspace).await, native());
        let by_bwrap = asked(Step::Namespaces, ExecutorWish::Bwrap, &[place], workspace).await;
        assert_eq!(by_bwrap, (vec!["bwrap"], 0, false));
    }

    #[test]
    fn only_what_another_plan_may_mend_is_planned_again() {
        let sandbox = |step: Step, errno| failure(StartStep::Sandbox(step.name().to_owned()), errno);
        for changed in [
            sandbox(Step::Changed, 0),
            sandbox(Step::CwdChanged, 0),
            sandbox(Step::Source, ENOENT),
            failure(StartStep::Placeholder, ESTALE),
        ] {
            assert!(is_about_a_change(&changed), "{changed:?}");
        }
        for other in
            [sandbox(Step::Source, 13), sandbox(Step::Exec, ENOENT), failure(StartStep::Placeholder, 30)]
        {
            assert!(!is_about_a_change(&other), "{other:?}");
        }
        assert!(
            is_about_caches(&sandbox(Step::Cache, 1)) && is_about_caches(&failure(StartStep::CacheStore, 28))
        );
        assert!(!is_about_caches(&sandbox(Step::Mount, 1)));
    }
}
