//! Starting a request: plans it again when the world changed between plan and start.

use sandbar_keeper::protocol::{StartFailure, StartStep};
use sandbar_policy::{CacheMode, Compiled, ExecutorWish, RunRequest};
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
}

/// Starts the plan of `compiled`, or another one of `request` if the host changed in between. Where caches can't be
/// mounted copy-on-write they are left read-only, which is stricter; where only the system's bubblewrap may make
/// namespaces, it makes them. `told` hears why. `options` is asked for each attempt.
///
/// # Errors
/// [`NotStarted`].
pub async fn start<E>(
    processes: &dyn Processes,
    (mut request, limits): (RunRequest, &LimitFacts),
    mut compiled: Compiled,
    mut options: impl FnMut() -> Result<StartOptions, E>,
    mut told: impl FnMut(&StartFailure),
) -> Result<Box<dyn Process>, NotStarted<E>> {
    let mut changes = CHANGES;
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
            told(failure);
            request.caches = CacheMode::Off;
        } else if request.executor == ExecutorWish::Any && is_about_namespaces(failure) {
            let by_bwrap = RunRequest { executor: ExecutorWish::Bwrap, ..request };
            // Without one that can be trusted, the kernel's refusal is what there is to say.
            let Ok(planned) = facts::plan(&by_bwrap, limits) else { return Err(NotStarted::Start(error)) };
            told(failure);
            (request, compiled) = (by_bwrap, planned);
            continue;
        } else {
            return Err(NotStarted::Start(error));
        }
        compiled = facts::plan(&request, limits).map_err(NotStarted::Plan)?;
    }
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
pub fn is_about_namespaces(failure: &StartFailure) -> bool {
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
    use sandbar_policy::{LaunchPlan, OwnDirectories};
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

    /// Who was asked to make the sandbox, one after another, and how often somebody was told.
    async fn asked(step: Step, executor: ExecutorWish, search: &[&str]) -> (Vec<&'static str>, usize) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        let request = request(folder.path(), executor, search);
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
        assert!(matches!(started.map(drop), Err(NotStarted::Start(StartError::Failed(_)))));
        (keeper.asked.into_inner().unwrap(), told)
    }

    #[tokio::test]
    async fn bubblewrap_makes_the_sandbox_where_this_program_may_not() {
        let bwrap = need!(need::program("bwrap"));
        let place = bwrap.parent().unwrap().to_str().unwrap();
        for step in [Step::Namespaces, Step::IdMap] {
            assert_eq!(
                asked(step, ExecutorWish::Any, &[place]).await,
                (vec!["native", "bwrap"], 1),
                "{step}"
            );
        }
    }

    #[tokio::test]
    async fn nobody_else_makes_it_when_that_is_not_wanted_does_not_help_or_nobody_is_there() {
        let bwrap = need!(need::program("bwrap"));
        let place = bwrap.parent().unwrap().to_str().unwrap();
        let native = || (vec!["native"], 0);
        assert_eq!(asked(Step::Namespaces, ExecutorWish::Native, &[place]).await, native());
        assert_eq!(asked(Step::Namespaces, ExecutorWish::Any, &[]).await, native());
        assert_eq!(asked(Step::Seccomp, ExecutorWish::Any, &[place]).await, native());
        assert_eq!(asked(Step::Namespaces, ExecutorWish::Bwrap, &[place]).await, (vec!["bwrap"], 0));
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
