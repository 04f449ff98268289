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
    fn an_ignored_signal_is_told_from_a_default_one() {
        // The standard library ignores SIGPIPE before main.
        assert!(ignores(libc::SIGPIPE) && !ignores(libc::SIGUSR2));
    }
}
