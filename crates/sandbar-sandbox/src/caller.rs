//! What a command would inherit from its caller if the caller forked it itself.
//!
//! The keeper forks instead, so these travel with the plan.

use rustix::process::{Resource, getrlimit};
use sandbar_proto::ProcessAttributes;

/// Resources whose limits travel. Those that the kernel counts per user keep their meaning inside.
const RESOURCES: [Resource; 16] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Nofile,
    Resource::Memlock,
    Resource::As,
    Resource::Locks,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Rtprio,
    Resource::Rttime,
];

/// umask, nice value and resource limits of the calling process. For programs with one thread: reading the
/// umask sets it for a moment (umask(2)).
#[must_use]
pub fn attributes() -> ProcessAttributes {
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(umask);
    let limits = RESOURCES.into_iter().map(|resource| {
        let limit = getrlimit(resource);
        (resource as u32, limit.current, limit.maximum)
    });
    ProcessAttributes {
        umask: umask.as_raw_mode(),
        nice: rustix::process::getpriority_process(None).unwrap_or_default(),
        rlimits: limits.collect(),
    }
}

/// The hard limits of the calling process: the most that it can give a child.
#[must_use]
pub fn hard_limits() -> Vec<(u32, Option<u64>)> {
    RESOURCES.into_iter().map(|resource| (resource as u32, getrlimit(resource).maximum)).collect()
}

/// The soft limits of a plan that a process with these hard limits can't give, and what it gives instead.
#[must_use]
pub fn lowered(planned: &ProcessAttributes, hard: &[(u32, Option<u64>)]) -> Vec<(u32, u64)> {
    let most = |resource| hard.iter().find(|(found, _)| *found == resource).and_then(|(_, most)| *most);
    let lowered = |(resource, soft): (u32, Option<u64>)| {
        let most = most(resource)?;
        soft.is_none_or(|soft| soft > most).then_some((resource, most))
    };
    planned.rlimits.iter().filter_map(|(resource, soft, _)| lowered((*resource, *soft))).collect()
}

/// What a resource limit is about, in words, and the option of a shell's ulimit that shows it.
#[must_use]
pub fn resource_name(resource: u32) -> (&'static str, &'static str) {
    let found = RESOURCES.into_iter().find(|known| *known as u32 == resource);
    match found {
        Some(Resource::Cpu) => ("CPU time in seconds", "-t"),
        Some(Resource::Fsize) => ("file size", "-f"),
        Some(Resource::Data) => ("data segment", "-d"),
        Some(Resource::Stack) => ("stack size", "-s"),
        Some(Resource::Core) => ("core file size", "-c"),
        Some(Resource::Nproc) => ("processes", "-u"),
        Some(Resource::Nofile) => ("open files", "-n"),
        Some(Resource::Memlock) => ("locked memory", "-l"),
        Some(Resource::As) => ("address space", "-v"),
        Some(Resource::Locks) => ("file locks", "-x"),
        Some(Resource::Sigpending) => ("pending signals", "-i"),
        Some(Resource::Msgqueue) => ("message queues", "-q"),
        Some(Resource::Nice) => ("nice value", "-e"),
        Some(Resource::Rtprio) => ("real-time priority", "-r"),
        Some(Resource::Rttime) => ("real-time CPU time", "-R"),
        Some(_) | None => ("resources", "-a"),
    }
}

/// The parent of a process, if there is one.
#[must_use]
pub fn parent(pid: i32) -> Option<i32> {
    crate::linux::parent(pid)
}

/// Whether the calling process ignores a signal, as what was started by `nohup` or in the background of a
/// script does; a program that respects that leaves it so.
#[must_use]
pub fn ignores(signal: i32) -> bool {
    let mut current = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only reads; the old one goes to live memory.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), current.as_mut_ptr()) };
    // SAFETY: zeroed is a valid sigaction, and the kernel filled it in unless the call failed.
    let action = unsafe { current.assume_init() };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Makes writing beyond the limit of a file's size an error (EFBIG) instead of the end of this process (SIGXFSZ,
/// setrlimit(2)). Commands start with the default action, whatever is ignored here.
pub fn survive_file_size_limit() {
    // SAFETY: SIG_IGN is a valid action for this signal, and no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_own_limits_are_read() {
        let found = attributes();
        let nofile = found.rlimits.iter().find(|(resource, ..)| *resource == Resource::Nofile as u32);
        assert_eq!(nofile.map(|limit| limit.1), Some(getrlimit(Resource::Nofile).current));
    }

    #[test]
    fn a_soft_limit_above_the_hard_one_of_the_giver_is_lowered() {
        let planned = ProcessAttributes {
            rlimits: vec![(7, Some(1024), None), (0, None, None), (1, None, None), (2, Some(5), Some(5))],
            ..ProcessAttributes::default()
        };
        let hard = [(7, Some(256)), (0, Some(60)), (1, None), (2, Some(5))];
        assert_eq!(lowered(&planned, &hard), [(7, 256), (0, 60)]);
        assert_eq!(lowered(&planned, &[]), []);
    }

    #[test]
    fn an_ignored_signal_is_told_from_a_default_one() {
        // The standard library ignores SIGPIPE before main.
        assert!(ignores(libc::SIGPIPE) && !ignores(libc::SIGUSR2));
    }
}
