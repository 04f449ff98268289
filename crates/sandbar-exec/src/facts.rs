//! The round between a policy that asks and a host that answers.

use sandbar_policy::{CompileError, Compiled, RunRequest, Step};
use sandbar_proto::{Facts, LimitFacts};
use sandbar_sandbox::facts::{FactsError, gather, host_facts};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The host could not be asked.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The policy refuses the request.
    #[error(transparent)]
    Policy(#[from] CompileError),
    /// The policy asks without end.
    #[error("the policy still asks after {} rounds", Step::MAX_ROUNDS)]
    Endless,
}

/// Compiles `request` with the facts of this machine. `limits` is what the keeper says it can enforce; the default where
/// nothing is limited.
///
/// # Errors
/// [`PlanError`].
pub fn plan(request: &RunRequest, limits: &LimitFacts) -> Result<Compiled, PlanError> {
    let mut facts =
        Facts { host: host_facts()?, answers: std::collections::BTreeMap::new(), limits: limits.clone() };
    for _ in 0..Step::MAX_ROUNDS {
        match sandbar_policy::compile(request, &facts)? {
            Step::Ready(compiled) => return Ok(*compiled),
            Step::Need(queries) => gather(&mut facts, queries),
        }
    }
    Err(PlanError::Endless)
}
