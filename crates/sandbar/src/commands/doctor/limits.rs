//! What enforces limits here, as the keeper says and policy decides.

use sandbar_keeper::RuntimeDir;
use sandbar_policy::{ProcessCount, mechanisms};
use sandbar_proto::{CgroupObstacle, Limit, LimitFacts};

use super::{Check, Verdict};
use crate::keepers;
use crate::plan::limit_advice;
use crate::render::Problem;

/// The check that this makes.
pub(super) const NAME: &str = "limits";

/// Asks this caller's keeper; starts it if need be.
pub(super) fn check(runtime: &RuntimeDir) -> Check {
    match asked(runtime) {
        Ok((facts, count)) => judge(&facts, count),
        Err(problem) => Check::failed(NAME, &problem),
    }
}

fn asked(runtime: &RuntimeDir) -> Result<(LimitFacts, ProcessCount), Problem> {
    let facts = keepers::connect_or_start(runtime)?.limits()?;
    let host = sandbar_sandbox::facts::host_facts()
        .map_err(|error| Problem::new(format!("could not {error}")).advise("mount procfs on /proc"))?;
    let count = ProcessCount::sandboxed(host.uid, &host);
    Ok((facts, count))
}

fn judge(facts: &LimitFacts, count: ProcessCount) -> Check {
    let mut words = Vec::new();
    let mut refused = None;
    for limit in Limit::ALL {
        match mechanisms(limit, facts, count) {
            Ok(found) => {
                let by: Vec<String> = found.iter().map(|(by, _)| by.to_string()).collect();
                words.push(format!("{limit} by {}", by.join(" and ")));
            }
            Err(obstacle) => {
                words.push(format!("{limit} not at all"));
                refused = Some(obstacle);
            }
        }
    }
    let by = words.join(", ");
    let obstacle = facts.obstacle.filter(|_| !facts.pids || !facts.memory);
    match (refused, obstacle) {
        (None, None) => Check::new(NAME, Verdict::Ok, by),
        (Some(refused), _) => {
            Check::new(NAME, Verdict::Warn, format!("{by}: {refused}")).advise(limit_advice(refused.cgroup))
        }
        (None, Some(obstacle)) => {
            let advice = limit_advice(obstacle);
            let check = Check::new(NAME, Verdict::Warn, format!("{by}: {obstacle}"));
            if matches!(obstacle, CgroupObstacle::Unknown | CgroupObstacle::Failed { .. }) {
                check
            } else {
                check.advise(advice)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(obstacle: Option<CgroupObstacle>) -> LimitFacts {
        let all = obstacle.is_none();
        let cgroup = all.then(|| sandbar_proto::AbsPath::new("/sys/fs/cgroup/k").unwrap());
        LimitFacts { cgroup, pids: all, memory: all, obstacle }
    }

    #[test]
    fn a_delegated_cgroup_enforces_what_it_can() {
        let check = judge(&facts(None), ProcessCount::Exempt);
        let expected = "time by timer, CPU time by cgroup and rlimit, processes by cgroup, memory by cgroup, \
                        open files by rlimit, file size by rlimit";
        assert_eq!(check, Check::new(NAME, Verdict::Ok, expected));
    }

    #[test]
    fn without_one_there_is_a_reason_and_what_to_do() {
        let check = judge(&facts(Some(CgroupObstacle::NotDelegated)), ProcessCount::OfRun);
        assert!(check.detail.contains("processes by rlimit, memory by watchdog and rlimit"), "{check:?}");
        assert!(check.detail.ends_with(": the keeper's cgroup is not delegated to this user"), "{check:?}");
        assert!(check.advice.unwrap().contains("Delegate=yes sandbar keeper start"));
        let root = judge(&facts(Some(CgroupObstacle::NoControllers)), ProcessCount::Exempt);
        assert!(root.detail.contains("processes not at all"), "{root:?}");
        assert!(root.detail.contains("exempts uid 0"), "{root:?}");
        assert_eq!(root.status, Verdict::Warn);
    }
}
