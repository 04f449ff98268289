//! The watchdog of a holder: what its tree uses, looked at again and again.
//!
//! For limits that no cgroup enforces. It reads /proc, which in a sandbox shows the tree and nothing else; without
//! one it is the descendants that count. A look sees what is there at that moment: what a process used between the
//! last look and its end is counted only if somebody waited for it. docs/threat-model.md says what that leaves open.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::getpid;
use sandbar_proto::{Executor, LaunchSpec, Limit, LimitMechanism, MountOp, Sandbox, TmpfsAccess};

use super::exec::NulByte;
use super::{sys, tree};

/// Time until the first look, and twice that until the next one: what goes wrong at once is seen at once.
const FIRST: Duration = Duration::from_millis(1);

/// Longest time between two looks: short against what a person would notice, and a thousandth of a processor for a tree of a
/// dozen processes. In this time a process writes a few hundred MiB, for which RLIMIT_DATA is there.
const INTERVAL: Duration = Duration::from_millis(50);

/// The unit of times in /proc: USER_HZ is 100 on every architecture that we know (time(7)).
const TICK_US: u64 = 10_000;

/// What a watchdog looks for.
#[derive(Debug)]
pub(super) struct Watch {
    cpu_us: Option<u64>,
    memory_bytes: Option<u64>,
    /// Processes and threads; the kernel enforces that one, and tells only who it refuses.
    procs: Option<u64>,
    /// File systems in memory that the run may fill.
    tmpfs: Vec<CString>,
    /// Own CPU time of each process when it was last seen, by id and start time.
    seen: HashMap<(i32, u64), u64>,
    held: Vec<Limit>,
    next: Option<Instant>,
    interval: Duration,
}

/// What one look saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    cpu_us: u64,
    memory_bytes: u64,
    tasks: u64,
}

/// CPU time of one process, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    /// When it was started.
    started: u64,
    /// What it used itself.
    own: u64,
    /// What its children used that it waited for.
    waited: u64,
}

/// Memory and threads of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Size {
    /// Resident, or swapped out.
    memory_kib: u64,
    threads: u64,
}

impl Watch {
    /// The watch that `spec` asks for, if it asks for any.
    ///
    /// # Errors
    /// [`NulByte`] in a path.
    pub(super) fn of(spec: &LaunchSpec) -> Result<Option<Self>, NulByte> {
        let find = |limit, by| spec.enforced.iter().find(|found| found.limit == limit && found.by == by);
        let value = |limit, by| find(limit, by).map(|found| found.value);
        let cpu_us = value(Limit::Cpu, LimitMechanism::Watchdog);
        let memory_bytes = value(Limit::Memory, LimitMechanism::Watchdog);
        let procs = value(Limit::Procs, LimitMechanism::Rlimit);
        if cpu_us.is_none() && memory_bytes.is_none() && procs.is_none() {
            return Ok(None);
        }
        let tmpfs = if memory_bytes.is_some() { writable_tmpfs(&spec.sandbox)? } else { Vec::new() };
        let (seen, held) = (HashMap::new(), Vec::new());
        Ok(Some(Self { cpu_us, memory_bytes, procs, tmpfs, seen, held, next: None, interval: FIRST }))
    }

    /// How long there is until the next look.
    pub(super) fn pause(&mut self) -> Duration {
        let now = Instant::now();
        self.next.get_or_insert_with(|| now + FIRST).saturating_duration_since(now)
    }

    /// Looks, if it is time, and returns the limits that were reached since the last look.
    pub(super) fn look(&mut self, sandboxed: bool) -> Vec<Limit> {
        if self.next.is_some_and(|next| next > Instant::now()) {
            return Vec::new();
        }
        self.interval = (self.interval * 2).min(INTERVAL);
        self.next = Some(Instant::now() + self.interval);
        self.look_now(sandboxed, 0)
    }

    /// Looks. `gone` tasks have ended just now and count as if they were there.
    pub(super) fn look_now(&mut self, sandboxed: bool, gone: u64) -> Vec<Limit> {
        let own = getpid().as_raw_pid();
        let pids: Vec<i32> =
            if sandboxed { tree::all().filter(|pid| *pid != own).collect() } else { tree::own_descendants() };
        let totals = self.totals(&pids, gone);
        self.judge(totals)
    }

    fn judge(&mut self, totals: Totals) -> Vec<Limit> {
        let reached = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
        let limits = [
            (Limit::Cpu, reached(self.cpu_us, totals.cpu_us)),
            (Limit::Procs, reached(self.procs, totals.tasks)),
            (Limit::Memory, reached(self.memory_bytes, totals.memory_bytes)),
        ];
        let new = limits.into_iter().filter(|(limit, reached)| *reached && !self.held.contains(limit));
        let new: Vec<Limit> = new.map(|(limit, _)| limit).collect();
        self.held.extend(&new);
        new
    }

    fn totals(&mut self, pids: &[i32], gone: u64) -> Totals {
        let mut totals = Totals { tasks: gone, ..Totals::default() };
        if self.memory_bytes.is_some() || self.procs.is_some() {
            let sizes: Vec<Size> = pids.iter().filter_map(|pid| size(*pid)).collect();
            totals.tasks += sizes.iter().map(|size| size.threads).sum::<u64>();
            totals.memory_bytes = self.memory(pids, &sizes);
        }
        if self.cpu_us.is_some() {
            totals.cpu_us = self.cpu(pids);
        }
        totals
    }

    /// Memory of the tree. Resident sets count a page as often as it is shared, so they tell only that there is enough
    /// left; whether there is not, proportional sets tell, which take the kernel longer to find out.
    fn memory(&self, pids: &[i32], sizes: &[Size]) -> u64 {
        let Some(limit) = self.memory_bytes else { return 0 };
        let files: u64 = self.tmpfs.iter().map(used_bytes).sum();
        let at_most = files + sizes.iter().map(|size| size.memory_kib * 1024).sum::<u64>();
        if at_most < limit {
            return at_most;
        }
        files + pids.iter().map(|pid| proportional_kib(*pid) * 1024).sum::<u64>()
    }

    /// CPU time of the tree: what processes used that are there or were seen, or what those that are there and this
    /// process know of themselves and of children they waited for, whichever is more. Neither sees everything, and
    /// neither counts anything twice.
    fn cpu(&mut self, pids: &[i32]) -> u64 {
        let mut known = 0;
        for &pid in pids {
            let Some(times) = times(pid) else { continue };
            known += times.own + times.waited;
            self.seen.insert((pid, times.started), times.own);
        }
        let seen: u64 = self.seen.values().sum();
        (known * TICK_US + sys::waited_cpu_us()).max(seen * TICK_US)
    }
}

fn writable_tmpfs(sandbox: &Sandbox) -> Result<Vec<CString>, NulByte> {
    const SHM: &[u8] = b"/dev/shm";
    let Sandbox::Linux(sandbox) = sandbox else { return Ok(Vec::new()) };
    if matches!(sandbox.executor, Executor::Landlock { .. }) {
        return Ok(Vec::new());
    }
    let targets = sandbox.mounts.iter().filter_map(|op| match op {
        MountOp::Tmpfs { target, access: TmpfsAccess::Write, .. } => Some(target),
        MountOp::Tmpfs { .. }
        | MountOp::Bind { .. }
        | MountOp::Mask { .. }
        | MountOp::MakeDir { .. }
        | MountOp::MakeFile { .. }
        | MountOp::Symlink { .. }
        | MountOp::Proc
        | MountOp::Dev => None,
    });
    // Every /dev of a sandbox has one of its own, unless the host's was asked for by name.
    let is_hosts = |op: &MountOp| matches!(op, MountOp::Bind { target, .. } if target.as_bytes() == SHM);
    let shm = (!sandbox.mounts.iter().any(is_hosts)).then_some(SHM);
    let paths = targets.map(sandbar_proto::AbsPath::as_bytes).chain(shm);
    paths.map(|path| CString::new(path).map_err(|_| NulByte)).collect()
}

/// Bytes that a tmpfs holds.
fn used_bytes(path: &CString) -> u64 {
    rustix::fs::statfs(path.as_c_str()).map_or(0, |stat| {
        let block = u64::try_from(stat.f_bsize).unwrap_or_default();
        stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(block)
    })
}

fn times(pid: i32) -> Option<Times> {
    parse_times(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields of /proc/PID/stat, counted from the last parenthesis: the name in front of it may hold anything
/// (proc_pid_stat(5)).
fn parse_times(stat: &[u8]) -> Option<Times> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The state is field 3; utime, stime, cutime and cstime are 14 to 17, the start is 22.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Times { started: field(22)?, own: field(14)? + field(15)?, waited: field(16)? + field(17)? })
}

fn size(pid: i32) -> Option<Size> {
    Some(parse_size(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?))
}

/// Lines of /proc/PID/status. The name in its first line has line ends escaped (proc_pid_status(5)). One that ended
/// and was not waited for has no memory.
fn parse_size(status: &str) -> Size {
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    Size { memory_kib: number("VmRSS") + number("VmSwap"), threads: number("Threads") }
}

/// Memory of a process with shared pages divided among those who share them; its resident set where the kernel does
/// not say.
fn proportional_kib(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let shares = rollup.ok().and_then(|text| parse_shares(&text));
    shares.or_else(|| Some(size(pid)?.memory_kib)).unwrap_or_default()
}

fn parse_shares(rollup: &str) -> Option<u64> {
    let number = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    Some(number("Pss")? + number("SwapPss").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(cpu_us: Option<u64>, memory_bytes: Option<u64>, procs: Option<u64>) -> Watch {
        Watch {
            cpu_us,
            memory_bytes,
            procs,
            tmpfs: vec![],
            seen: HashMap::new(),
            held: vec![],
            next: None,
            interval: FIRST,
        }
    }

    #[test]
    fn times_are_counted_behind_a_name_that_looks_like_fields() {
        let fields: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) R 1) 2) S {}", fields.join(" "));
        let expected = Times { started: 22, own: 14 + 15, waited: 16 + 17 };
        assert_eq!(parse_times(stat.as_bytes()), Some(expected));
        assert_eq!(parse_times(b"7 (a) S 1"), None);
    }

    #[test]
    fn a_size_is_what_is_resident_or_swapped_out() {
        let status = "Name:\tVmRSS:\\n9\nThreads:\t3\nVmRSS:\t  100 kB\nVmSwap:\t 20 kB\n";
        assert_eq!(parse_size(status), Size { memory_kib: 120, threads: 3 });
        assert_eq!(parse_size("Name:\tx\nState:\tZ\nThreads:\t1\n"), Size { memory_kib: 0, threads: 1 });
    }

    #[test]
    fn shares_are_proportional() {
        let rollup =
            "00400000-7fff r--p 0 0:0 0 [rollup]\nRss: 9 kB\nPss: 5 kB\nPss_Anon: 4 kB\nSwapPss: 2 kB\n";
        assert_eq!(parse_shares(rollup), Some(7));
        assert_eq!(parse_shares(""), None);
    }

    #[test]
    fn each_limit_is_told_once_when_it_is_reached() {
        let mut watch = watch(Some(10), Some(100), Some(4));
        assert_eq!(watch.judge(Totals { cpu_us: 9, memory_bytes: 99, tasks: 3 }), []);
        let over = Totals { cpu_us: 10, memory_bytes: 1, tasks: 4 };
        assert_eq!(watch.judge(over), [Limit::Cpu, Limit::Procs]);
        assert_eq!(watch.judge(over), []);
        assert_eq!(watch.judge(Totals { memory_bytes: 100, ..over }), [Limit::Memory]);
    }

    #[test]
    fn this_process_has_a_size_and_times() {
        let own = getpid().as_raw_pid();
        assert!(size(own).unwrap().memory_kib > 0 && size(own).unwrap().threads > 0);
        assert!(times(own).unwrap().started > 0);
        assert!(proportional_kib(own) > 0);
    }

    #[test]
    fn what_a_process_used_stays_counted_when_it_is_gone() {
        let mut watch = watch(Some(1), None, None);
        watch.seen.insert((1, 1), 500);
        assert!(watch.cpu(&[]) >= 500 * TICK_US);
    }
}
