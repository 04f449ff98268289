//! What enforces each limit of a run, decided from what the keeper and the kernel can do.
//!
//! | limit | with a cgroup | without |
//! |---|---|---|
//! | processes | the cgroup's `pids.max` | RLIMIT_NPROC, which counts per user namespace since Linux 5.14 |
//! | memory | `memory.max`, no swap | RLIMIT_DATA for each process, and a watchdog over the whole tree |
//! | CPU time | the cgroup's own count | a watchdog over the whole tree; RLIMIT_CPU for each process in both cases |
//! | open files, file size | RLIMIT_NOFILE, RLIMIT_FSIZE | the same |
//! | time | a timer | the same |
//!
//! What nothing enforces is refused. docs/adr/0008 has the reasons.

use std::fmt;

use sandbar_proto::{
    CgroupObstacle, EnforcedLimit, HostFacts, Limit, LimitFacts, LimitMechanism, LimitScope, Limits,
    ProcessAttributes,
};

// Numbers of getrlimit(2) on x86-64, arm64 and everything else with the generic table of Linux.
const RLIMIT_CPU: u32 = 0;
const RLIMIT_FSIZE: u32 = 1;
const RLIMIT_DATA: u32 = 2;
const RLIMIT_NPROC: u32 = 6;
const RLIMIT_NOFILE: u32 = 7;

/// Processes of ours that RLIMIT_NPROC counts along with the run's: the sandbox's pid 1.
const OUR_PROCESSES: u64 = 1;

/// How the kernel counts a run's processes against RLIMIT_NPROC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessCount {
    /// By themselves: the run has a user namespace.
    OfRun,
    /// Not at all: uid 0 of the initial user namespace is exempt (kernel/fork.c, `copy_process`).
    Exempt,
    /// With everything else of the user: the run has no user namespace.
    OfUser,
}

impl ProcessCount {
    /// How a sandboxed command that runs as `uid` is counted.
    #[must_use]
    pub fn sandboxed(uid: u32, host: &HostFacts) -> Self {
        if host.outer_root == Some(uid) { Self::Exempt } else { Self::OfRun }
    }
}

/// Why nothing enforces a limit here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitObstacle {
    /// Why no resource limit does.
    pub count: ProcessCount,
    /// Why no cgroup does.
    pub cgroup: CgroupObstacle,
}

impl fmt::Display for LimitObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rlimit = match self.count {
            ProcessCount::Exempt => "the kernel exempts uid 0 from RLIMIT_NPROC",
            ProcessCount::OfUser => "without a sandbox RLIMIT_NPROC counts all processes of the user",
            ProcessCount::OfRun => "RLIMIT_NPROC was not tried",
        };
        write!(f, "{rlimit}, and {}", self.cgroup)
    }
}

/// What enforces `limit`: one mechanism, or two that complement each other.
///
/// # Errors
/// [`LimitObstacle`]: nothing does.
pub fn mechanisms(
    limit: Limit,
    facts: &LimitFacts,
    count: ProcessCount,
) -> Result<&'static [(LimitMechanism, LimitScope)], LimitObstacle> {
    use LimitMechanism::{Cgroup, Rlimit, Timer, Watchdog};
    use LimitScope::{Process, Run};
    let has_cgroup = facts.cgroup.is_some();
    Ok(match limit {
        Limit::Wall => &[(Timer, Run)],
        Limit::Cpu if has_cgroup => &[(Cgroup, Run), (Rlimit, Process)],
        Limit::Cpu => &[(Watchdog, Run), (Rlimit, Process)],
        Limit::Procs if has_cgroup && facts.pids => &[(Cgroup, Run)],
        Limit::Procs if count == ProcessCount::OfRun => &[(Rlimit, Run)],
        Limit::Procs => {
            return Err(LimitObstacle { count, cgroup: facts.obstacle.unwrap_or(CgroupObstacle::Unknown) });
        }
        Limit::Memory if has_cgroup && facts.memory => &[(Cgroup, Run)],
        Limit::Memory => &[(Watchdog, Run), (Rlimit, Process)],
        Limit::Files | Limit::FileSize => &[(Rlimit, Process)],
    })
}

/// Decides about every limit that was asked for, and lowers the resource limits of `attributes` where one of them
/// enforces it. The caller's own limits stay where they are lower.
///
/// # Errors
/// The limit that nothing enforces, and why.
pub(crate) fn enforce(
    limits: &Limits,
    facts: &LimitFacts,
    count: ProcessCount,
    attributes: &mut ProcessAttributes,
) -> Result<Vec<EnforcedLimit>, (Limit, LimitObstacle)> {
    let mut enforced = Vec::new();
    for limit in Limit::ALL {
        let Some(value) = limits.get(limit) else { continue };
        let found = mechanisms(limit, facts, count).map_err(|obstacle| (limit, obstacle))?;
        for &(by, per) in found {
            let mut value = value;
            if by == LimitMechanism::Rlimit {
                if limit == Limit::Memory {
                    value = backstop(value);
                }
                let (resource, soft, hard) = rlimit(limit, value);
                let given = lower(attributes, resource, soft, hard);
                value = match limit {
                    // The caller's own may be lower, and one in whole seconds is never lower than what was asked for.
                    Limit::Cpu => value.min(given.saturating_mul(1_000_000)),
                    Limit::Memory | Limit::Files | Limit::FileSize => given,
                    // Counted with ours.
                    Limit::Procs | Limit::Wall => value,
                };
            }
            enforced.push(EnforcedLimit { limit, value, by, per });
        }
    }
    Ok(enforced)
}

/// How much memory one process may ask for while a watchdog sees to what the run has. RLIMIT_DATA counts what is asked
/// for, touched or not: stacks of threads, arenas, heaps that are still empty. At the limit itself it would refuse
/// programs that stay far below, and nobody would hear why; it is there for what grows faster than anybody looks.
fn backstop(bytes: u64) -> u64 {
    bytes.saturating_mul(2).saturating_add(1 << 30)
}

/// Resource, soft and hard value of the resource limit for `limit`.
fn rlimit(limit: Limit, value: u64) -> (u32, u64, u64) {
    match limit {
        Limit::Cpu => {
            // Whole seconds. SIGXCPU at the soft one, SIGKILL for who does not heed it a second later.
            let seconds = value.div_ceil(1_000_000);
            (RLIMIT_CPU, seconds, seconds.saturating_add(1))
        }
        Limit::Procs => (RLIMIT_NPROC, value + OUR_PROCESSES, value + OUR_PROCESSES),
        Limit::Memory => (RLIMIT_DATA, value, value),
        Limit::Files => (RLIMIT_NOFILE, value, value),
        Limit::FileSize | Limit::Wall => (RLIMIT_FSIZE, value, value),
    }
}

/// Lowers a resource limit, and returns the soft one that comes out.
fn lower(attributes: &mut ProcessAttributes, resource: u32, soft: u64, hard: u64) -> u64 {
    let least = |have: Option<u64>, most: u64| Some(have.map_or(most, |have| have.min(most)));
    match attributes.rlimits.iter_mut().find(|(found, ..)| *found == resource) {
        Some((_, own_soft, own_hard)) => {
            *own_soft = least(*own_soft, soft);
            *own_hard = least(*own_hard, hard);
            own_soft.unwrap_or(soft)
        }
        None => {
            attributes.rlimits.push((resource, Some(soft), Some(hard)));
            soft
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LimitMechanism::{Cgroup, Rlimit, Timer, Watchdog};
    use ProcessCount::{Exempt, OfRun, OfUser};
    use std::time::Duration;

    fn facts(pids: bool, memory: bool) -> LimitFacts {
        let cgroup = Some(sandbar_proto::AbsPath::new("/sys/fs/cgroup/here").unwrap());
        let obstacle = (!pids || !memory).then_some(CgroupObstacle::NoControllers);
        LimitFacts { cgroup, pids, memory, obstacle }
    }

    fn by(limit: Limit, facts: &LimitFacts, count: ProcessCount) -> Option<Vec<LimitMechanism>> {
        Some(mechanisms(limit, facts, count).ok()?.iter().map(|(by, _)| *by).collect())
    }

    #[test]
    fn each_limit_has_its_mechanism_wherever_there_is_one() {
        let (full, bare, none) = (facts(true, true), facts(false, false), LimitFacts::default());
        let table: [(Limit, &LimitFacts, ProcessCount, Option<&[LimitMechanism]>); 15] = [
            (Limit::Procs, &full, OfRun, Some(&[Cgroup])),
            (Limit::Procs, &full, Exempt, Some(&[Cgroup])),
            (Limit::Procs, &full, OfUser, Some(&[Cgroup])),
            (Limit::Procs, &bare, OfRun, Some(&[Rlimit])),
            (Limit::Procs, &none, OfRun, Some(&[Rlimit])),
            (Limit::Procs, &none, Exempt, None),
            (Limit::Procs, &bare, OfUser, None),
            (Limit::Memory, &full, OfUser, Some(&[Cgroup])),
            (Limit::Memory, &bare, OfRun, Some(&[Watchdog, Rlimit])),
            (Limit::Memory, &none, Exempt, Some(&[Watchdog, Rlimit])),
            (Limit::Cpu, &bare, OfRun, Some(&[Cgroup, Rlimit])),
            (Limit::Cpu, &none, OfUser, Some(&[Watchdog, Rlimit])),
            (Limit::Files, &full, OfRun, Some(&[Rlimit])),
            (Limit::FileSize, &none, Exempt, Some(&[Rlimit])),
            (Limit::Wall, &none, OfUser, Some(&[Timer])),
        ];
        for (limit, facts, count, expected) in table {
            assert_eq!(by(limit, facts, count).as_deref(), expected, "{limit:?} {facts:?} {count:?}");
        }
    }

    #[test]
    fn one_controller_without_the_other_is_used() {
        assert_eq!(by(Limit::Procs, &facts(true, false), Exempt), Some(vec![Cgroup]));
        assert_eq!(by(Limit::Memory, &facts(true, false), OfRun), Some(vec![Watchdog, Rlimit]));
    }

    #[test]
    fn what_nothing_enforces_says_both_reasons() {
        let obstacle = mechanisms(Limit::Procs, &LimitFacts::default(), Exempt).unwrap_err();
        assert_eq!(
            obstacle.to_string(),
            "the kernel exempts uid 0 from RLIMIT_NPROC, and nobody looked for a cgroup"
        );
        let limits = Limits { procs: Some(5), ..Limits::default() };
        let refused = enforce(&limits, &facts(false, true), OfUser, &mut ProcessAttributes::default());
        let cgroup = CgroupObstacle::NoControllers;
        assert_eq!(refused, Err((Limit::Procs, LimitObstacle { count: OfUser, cgroup })));
    }

    #[test]
    fn resource_limits_are_lowered_and_never_raised() {
        let own = vec![(RLIMIT_NOFILE, Some(10), Some(4096)), (RLIMIT_NPROC, None, None)];
        let mut attributes = ProcessAttributes { rlimits: own, ..ProcessAttributes::default() };
        let limits = Limits {
            files: Some(64),
            procs: Some(7),
            cpu: Some(Duration::from_millis(1500)),
            ..Limits::default()
        };
        let enforced = enforce(&limits, &LimitFacts::default(), OfRun, &mut attributes).unwrap();
        let files = enforced.iter().find(|found| found.limit == Limit::Files);
        assert_eq!(files.map(|found| found.value), Some(10), "the caller's own, since it is lower");
        assert_eq!(
            attributes.rlimits,
            [
                (RLIMIT_NOFILE, Some(10), Some(64)),
                (RLIMIT_NPROC, Some(8), Some(8)),
                (RLIMIT_CPU, Some(2), Some(3)),
            ]
        );
    }

    #[test]
    fn what_a_watchdog_sees_to_is_bounded_for_each_process_with_room_for_what_is_never_touched() {
        let mut attributes = ProcessAttributes::default();
        let limits = Limits { memory_bytes: Some(512 << 20), ..Limits::default() };
        let enforced = enforce(&limits, &LimitFacts::default(), OfRun, &mut attributes).unwrap();
        let values = enforced.iter().map(|limit| (limit.by, limit.value)).collect::<Vec<_>>();
        assert_eq!(values, [(Watchdog, 512 << 20), (Rlimit, 2 << 30)]);
        assert_eq!(attributes.rlimits, [(RLIMIT_DATA, Some(2 << 30), Some(2 << 30))]);
    }

    #[test]
    fn with_a_cgroup_for_memory_no_process_is_bounded_by_itself() {
        let mut attributes = ProcessAttributes::default();
        let limits = Limits { memory_bytes: Some(1 << 30), procs: Some(9), ..Limits::default() };
        let enforced = enforce(&limits, &facts(true, true), OfRun, &mut attributes).unwrap();
        assert_eq!((enforced.len(), attributes.rlimits), (2, vec![]));
        assert!(enforced.iter().all(|limit| limit.by == Cgroup && limit.per == LimitScope::Run));
    }

    #[test]
    fn only_the_outer_root_is_exempt() {
        let host = crate::fake_host::FakeHost::with_home().called_by_root().facts_of_host();
        assert_eq!(ProcessCount::sandboxed(0, &host), Exempt);
        assert_eq!(ProcessCount::sandboxed(1000, &host), OfRun);
        let contained = HostFacts { outer_root: None, ..host };
        assert_eq!(ProcessCount::sandboxed(0, &contained), OfRun);
    }
}
