//! Which limits held a run back, and what the keeper does about those that nobody else acts on.
//!
//! A cgroup and the kernel refuse and kill by themselves. CPU time is looked at here, in the cgroup or as the holder
//! reports it, and ends a run as its resource limit would: SIGXCPU, and SIGKILL for what does not heed it.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use sandbar_proto::{ExitStatus, Limit, LimitMechanism, LimitReport, OutOfMemory, ResourceUse, RunId};

use super::process::Process;
use super::{Keeper, LIMIT_GRACE, Timer};

/// The shortest and the longest time between two looks at the CPU time of a cgroup: exact enough for a person, and no
/// work worth speaking of.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

impl Process {
    fn limit(&self, limit: Limit, by: LimitMechanism) -> Option<u64> {
        self.start.limits.iter().find(|found| found.limit == limit && found.by == by).map(|found| found.value)
    }

    fn has(&self, limit: Limit) -> bool {
        self.start.limits.iter().any(|found| found.limit == limit)
    }

    /// What became of each limit, for a leader that ended like this.
    pub(super) fn limits(&mut self, status: ExitStatus, usage: ResourceUse) -> Vec<LimitReport> {
        if self.start.limits.is_empty() {
            return Vec::new();
        }
        let events = self.cgroup.as_ref().map(|run| run.cgroup.events()).unwrap_or_default();
        let used = usage.user_us + usage.system_us;
        let used =
            self.cgroup.as_ref().and_then(|run| run.cgroup.cpu_us().ok()).unwrap_or_default().max(used);
        let reports = self.start.limits.iter().map(|limit| {
            let seen = self.held.contains(&limit.limit);
            let held = match (limit.limit, limit.by) {
                (Limit::Wall, _) => Some(self.timed_out),
                // The kernel counts for its own limit by ticks, which may run ahead of the time that was used.
                (Limit::Cpu, LimitMechanism::Rlimit) => {
                    Some(seen || used >= limit.value || is_signal(status, libc::SIGXCPU))
                }
                (Limit::Cpu, _) => Some(seen || used >= limit.value),
                (Limit::Procs, LimitMechanism::Cgroup) => Some(events.refused_forks > 0),
                (Limit::Memory, LimitMechanism::Cgroup) => Some(events.oom_kills > 0),
                (Limit::Memory, LimitMechanism::Watchdog) => Some(seen),
                // Looked at, but only now and then.
                (Limit::Procs, _) => seen.then_some(true),
                (Limit::FileSize, _) => is_signal(status, libc::SIGXFSZ).then_some(true),
                (Limit::Files | Limit::Memory, _) => None,
            };
            LimitReport { enforced: *limit, held }
        });
        reports.collect()
    }

    /// What ran out of memory, if that is why the leader ended like this.
    pub(super) fn out_of_memory(&self, status: ExitStatus, limits: &[LimitReport]) -> Option<OutOfMemory> {
        let of_run =
            limits.iter().any(|report| report.enforced.limit == Limit::Memory && report.held == Some(true));
        if of_run {
            return Some(OutOfMemory::Run);
        }
        let grew = self.host_oom_kills.is_some_and(|before| host_oom_kills().is_some_and(|now| now > before));
        (grew && !self.killed && is_signal(status, libc::SIGKILL)).then_some(OutOfMemory::Host)
    }
}

/// Whether a signal ended the leader, or a command of a shell that says so by its own status.
fn is_signal(status: ExitStatus, signal: i32) -> bool {
    status.shell_code() == u8::try_from(128 + signal).ok()
}

/// How many processes the kernel has killed for lack of memory since it was booted.
fn host_oom_kills() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/vmstat").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

impl Keeper {
    /// Begins to look after the limits of a new run.
    pub(super) fn watch_limits(&mut self, id: RunId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.has(Limit::Memory) {
            process.host_oom_kills = host_oom_kills();
        }
        if process.limit(Limit::Cpu, LimitMechanism::Cgroup).is_some() {
            self.look_at_cpu(id);
        }
    }

    /// Looks at the CPU time of a run's cgroup, and ends the run or looks again when it may have used up the rest.
    pub(super) fn look_at_cpu(&mut self, id: RunId) {
        let Some(process) = self.processes.get(&id) else { return };
        let (Some(limit), Some(run)) = (process.limit(Limit::Cpu, LimitMechanism::Cgroup), &process.cgroup)
        else {
            return;
        };
        // What can't be read is used up: a limit that nobody sees is none.
        let used = run.cgroup.cpu_us().unwrap_or(u64::MAX);
        if used >= limit {
            return self.limit_held(id, Limit::Cpu);
        }
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let rest = Duration::from_micros((limit - used) / processors);
        let pause = rest.clamp(SHORTEST_LOOK, LONGEST_LOOK);
        self.timers.push(Reverse((Instant::now() + pause, Timer::CpuLimit(id))));
    }

    /// A run reached a limit. Memory is seen to by who noticed, processes by the kernel.
    pub(super) fn limit_held(&mut self, id: RunId, limit: Limit) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.held.contains(&limit) {
            process.held.push(limit);
        }
        match limit {
            Limit::Cpu => self.terminate(id, libc::SIGXCPU, LIMIT_GRACE),
            Limit::Memory => process.killed = true,
            Limit::Wall | Limit::Procs | Limit::Files | Limit::FileSize => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_seen_through_a_shell() {
        assert!(is_signal(ExitStatus::Signaled { signal: 25 }, 25));
        assert!(is_signal(ExitStatus::Exited { code: 153 }, 25));
        assert!(!is_signal(ExitStatus::Exited { code: 25 }, 25) && !is_signal(ExitStatus::Lost, 25));
    }

    #[test]
    fn the_kernel_counts_what_it_killed_for_lack_of_memory() {
        assert!(host_oom_kills().is_some());
    }
}
