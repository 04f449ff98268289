//! The filter of a command that stands in no namespace: what namespaces and mounts would keep from it is refused here.
//!
//! Stricter than the usual filter, of which it is made. Landlock decides about paths, signals and TCP; everything else of
//! the host that a call can reach is this filter's: sockets of every other kind, System V and POSIX IPC, scheduling and
//! limits of other processes, and changes to modes, times and owners and watches on files, about which Landlock says
//! nothing. Those are
//! answered by the holder ([`Verdict::Ask`]), which carries them out below writable places and nowhere else: programs
//! that build need chmod(2) and utimensat(2), and a filter sees no paths.

use std::borrow::Cow;

use sandbar_proto::{ArgTest, NetworkMode, SeccompSpec, SyscallRule, Verdict};

use super::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, EAFNOSUPPORT, ENOSYS, EPERM, IPC, NETLINK_ROUTE, S_ISGID,
    S_ISUID, SOCK_DGRAM, SOCK_STREAM, SOCK_TYPE_MASK, TIOCLINUX, TIOCSTI, Within, command_filter, has_bit,
    is, rule,
};

/// What a file system without extended attributes says, which every program that copies them knows.
const EOPNOTSUPP: Verdict = Verdict::Errno(95);

/// Kinds of ioctl(2) commands that reach nothing but what the descriptor is: terminals and descriptors (`T`), sockets.
const IOCTL_KINDS: [u32; 2] = [0x5400, 0x8900];
const IOCTL_KIND_MASK: u32 = 0xff00;
/// `FIGETBSZ`, `FS_IOC_GETFLAGS`, `FS_IOC_FSGETXATTR`, `FS_IOC_FIEMAP`: they only ask.
const IOCTL_QUESTIONS: [u32; 4] = [0x2, 0x8008_6601, 0x801c_581f, 0xc020_660b];

const PRIO_PROCESS: u32 = 0;
const IOPRIO_WHO_PROCESS: u32 = 1;

/// Calls about a process, whose number is their first argument: 0 is the caller.
const ABOUT_A_PROCESS: [&str; 5] =
    ["prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"];

/// What the holder is asked about besides modes: times, owners, and watches, which tell the names in a folder.
const ASKED: [&str; 9] = [
    "chown",
    "fchown",
    "fchownat",
    "lchown",
    "futimesat",
    "inotify_add_watch",
    "utime",
    "utimensat",
    "utimes",
];

/// A file system's own flags and attributes: nobody who builds needs them, and their values lie in memory.
const ATTRIBUTES: [&str; 9] = [
    "file_setattr",
    "fremovexattr",
    "fsetxattr",
    "lremovexattr",
    "lsetxattr",
    "removexattr",
    "removexattrat",
    "setxattr",
    "setxattrat",
];

/// The filter for a command without namespaces. Nobody nests in it, whatever `within` says; who may be traced is Landlock's to say.
#[must_use]
pub fn filter_without_namespaces(network: NetworkMode, within: Within) -> SeccompSpec {
    let mut spec = command_filter(network, Within { nesting: false, ..within });
    let own = rules(network);
    let is_own = |name: &str| own.iter().any(|rule| rule.name == name);
    spec.allow.retain(|name| !is_own(name));
    spec.rules.retain(|rule| !is_own(&rule.name));
    spec.rules.extend(own);
    spec
}

fn rules(network: NetworkMode) -> Vec<SyscallRule> {
    let refused = |name: &&'static str| rule(name, Vec::new(), EPERM);
    let asked = |name: &&'static str| rule(name, Vec::new(), Verdict::Ask);
    let unsupported = |name: &&'static str| rule(name, Vec::new(), EOPNOTSUPP);
    let itself = |name: &&'static str| rule(name, vec![(vec![is(0, 0)], Verdict::Allow)], EPERM);
    let mode = |name: &'static str, arg: u8| {
        let bits = [S_ISUID, S_ISGID].map(|bit| (vec![has_bit(arg, bit)], EPERM));
        rule(name, bits.to_vec(), Verdict::Ask)
    };
    let own = |name: &'static str, which: u32| {
        rule(name, vec![(vec![is(0, which), is(1, 0)], Verdict::Allow)], EPERM)
    };
    let mut rules: Vec<SyscallRule> = IPC.iter().map(refused).collect();
    rules.extend(ABOUT_A_PROCESS.iter().map(itself));
    rules.extend(ASKED.iter().map(asked));
    rules.extend(ATTRIBUTES.iter().map(unsupported));
    rules.extend([mode("chmod", 1), mode("fchmod", 1), mode("fchmodat", 2), mode("fchmodat2", 2)]);
    rules.extend([own("setpriority", PRIO_PROCESS), own("ioprio_set", IOPRIO_WHO_PROCESS)]);
    // Every process of the host has a number here; programs fall back to waiting by number.
    rules.push(rule("pidfd_open", Vec::new(), ENOSYS));
    rules.extend([ioctl(), socket(network)]);
    rules
}

/// File systems do with their own commands what Landlock does not ask about: flags, snapshots, subvolumes.
fn ioctl() -> SyscallRule {
    let typing = [TIOCSTI, TIOCLINUX].map(|command| (vec![is(1, command)], EPERM));
    let kinds = IOCTL_KINDS
        .map(|kind| (vec![ArgTest { arg: 1, mask: IOCTL_KIND_MASK, value: kind }], Verdict::Allow));
    let questions = IOCTL_QUESTIONS.map(|command| (vec![is(1, command)], Verdict::Allow));
    let when = typing.into_iter().chain(kinds).chain(questions).collect();
    SyscallRule { name: Cow::Borrowed("ioctl"), when, otherwise: EPERM }
}

/// No socket of this kind is confined by anything: without a network there is none, and a unix one never.
fn socket(network: NetworkMode) -> SyscallRule {
    let kind = |value| ArgTest { arg: 1, mask: SOCK_TYPE_MASK, value };
    let mut when = Vec::new();
    if network == NetworkMode::On {
        for family in [AF_INET, AF_INET6] {
            when.push((vec![is(0, family), kind(SOCK_STREAM)], Verdict::Allow));
            when.push((vec![is(0, family), kind(SOCK_DGRAM)], Verdict::Allow));
        }
        when.push((vec![is(0, AF_NETLINK), is(2, NETLINK_ROUTE)], Verdict::Allow));
    }
    when.extend([AF_UNIX, AF_INET, AF_INET6, AF_NETLINK].map(|family| (vec![is(0, family)], EPERM)));
    rule("socket", when, EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What the filter answers to a call, by the definition in proto.
    fn answer(spec: &SeccompSpec, name: &str, args: &[u32]) -> Verdict {
        let holds =
            |test: &ArgTest| args.get(usize::from(test.arg)).copied().unwrap_or(0) & test.mask == test.value;
        if let Some(rule) = spec.rules.iter().find(|rule| rule.name == name) {
            let clause = rule.when.iter().find(|(tests, _)| tests.iter().all(holds));
            return clause.map_or(rule.otherwise, |(_, verdict)| *verdict);
        }
        if spec.allow.iter().any(|allowed| allowed == name) { Verdict::Allow } else { spec.default }
    }

    #[test]
    fn what_namespaces_would_hold_is_refused() {
        let (allow, ask) = (Verdict::Allow, Verdict::Ask);
        #[rustfmt::skip]
        let table: &[(&str, &[u32], Verdict, Verdict)] = &[
            ("socket", &[AF_UNIX, SOCK_STREAM, 0], EPERM, EPERM),
            ("socket", &[AF_UNIX, 5, 0], EPERM, EPERM),
            ("socket", &[AF_INET, SOCK_STREAM, 0], EPERM, allow),
            ("socket", &[AF_INET6, SOCK_DGRAM | 0x80000, 0], EPERM, allow),
            ("socket", &[AF_INET, 3, 0], EPERM, EPERM),
            ("socket", &[AF_NETLINK, 3, NETLINK_ROUTE], EPERM, allow),
            ("socket", &[AF_NETLINK, 3, 9], EPERM, EPERM),
            ("socket", &[40, SOCK_STREAM, 0], EAFNOSUPPORT, EAFNOSUPPORT),
            ("socketpair", &[AF_UNIX, SOCK_STREAM, 0], allow, allow),
            ("socketpair", &[AF_UNIX, SOCK_DGRAM, 0], EPERM, EPERM),
            ("shmget", &[1], EPERM, EPERM),
            ("mq_open", &[], EPERM, EPERM),
            ("prlimit64", &[0, 7], allow, allow),
            ("prlimit64", &[1, 7], EPERM, EPERM),
            ("sched_setaffinity", &[0], allow, allow),
            ("sched_setaffinity", &[77], EPERM, EPERM),
            ("setpriority", &[0, 0, 5], allow, allow),
            ("setpriority", &[2, 0, 5], EPERM, EPERM),
            ("setpriority", &[0, 77, 5], EPERM, EPERM),
            ("ioprio_set", &[1, 0], allow, allow),
            ("ioprio_set", &[3, 0], EPERM, EPERM),
            ("pidfd_open", &[1], ENOSYS, ENOSYS),
            ("chmod", &[0, 0o644], ask, ask),
            ("fchmod", &[3, 0o4755], EPERM, EPERM),
            ("fchmodat", &[0, 0, 0o2755], EPERM, EPERM),
            ("utimensat", &[], ask, ask),
            ("fchownat", &[], ask, ask),
            ("setxattr", &[], EOPNOTSUPP, EOPNOTSUPP),
            ("ioctl", &[0, 0x5401], allow, allow),
            ("ioctl", &[0, TIOCSTI], EPERM, EPERM),
            ("ioctl", &[0, 0x4008_6602], EPERM, EPERM),
            ("ioctl", &[0, 0x5000_940e], EPERM, EPERM),
            ("openat", &[0, 0, 0, 0], allow, allow),
            ("kill", &[1, 9], allow, allow),
            ("unshare", &[0x1000_0000], EPERM, EPERM),
        ];
        for (name, args, off, on) in table {
            let answers = [NetworkMode::Off, NetworkMode::On]
                .map(|network| answer(&filter_without_namespaces(network, Within::default()), name, args));
            assert_eq!(answers, [*off, *on], "{name} {args:x?}");
        }
    }

    #[test]
    fn it_allows_nothing_plainly_that_the_usual_filter_does_not() {
        for network in [NetworkMode::Off, NetworkMode::On] {
            let names = |spec: &SeccompSpec| spec.allow.iter().cloned().collect::<BTreeSet<_>>();
            let (own, usual) = (
                filter_without_namespaces(network, Within::default()),
                command_filter(network, Within::default()),
            );
            assert!(names(&own).is_subset(&names(&usual)));
            let all: Vec<_> = own.allow.iter().chain(own.rules.iter().map(|rule| &rule.name)).collect();
            assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len(), "a call is named twice");
        }
    }
}
