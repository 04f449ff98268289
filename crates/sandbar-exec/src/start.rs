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
    use super::*;

    fn failure(step: StartStep, errno: i32) -> StartFailure {
        StartFailure { step, errno, path: None, detail: String::new() }
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
