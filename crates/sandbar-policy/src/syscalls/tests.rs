use std::collections::BTreeSet;

use super::*;

/// What the filter answers to a call, by the definition in proto.
fn evaluate(spec: &SeccompSpec, name: &str, args: &[u64]) -> Verdict {
    if let Some(rule) = spec.rules.iter().find(|rule| rule.name == name) {
        let holds = |test: &ArgTest| {
            let arg = args.get(usize::from(test.arg)).copied().unwrap_or(0);
            u32::try_from(arg & 0xffff_ffff).unwrap() & test.mask == test.value
        };
        let clause = rule.when.iter().find(|(tests, _)| tests.iter().all(holds));
        return clause.map_or(rule.otherwise, |(_, verdict)| *verdict);
    }
    if spec.allow.iter().any(|allowed| allowed == name) { Verdict::Allow } else { spec.default }
}

fn filter() -> SeccompSpec {
    command_filter(NetworkMode::Off, Within::default())
}

#[test]
fn calls_with_arguments_get_these_answers() {
    let spec = filter();
    let allow = Verdict::Allow;
    let thread = 0x003d_0f00;
    #[rustfmt::skip]
    let table: &[(&str, &[u64], Verdict)] = &[
        ("clone", &[thread], allow),
        ("clone", &[17], allow),
        ("clone", &[0x1000_0011], EPERM),
        ("clone", &[0x0002_0011], EPERM),
        ("clone", &[0x4000_0000], EPERM),
        ("clone3", &[], ENOSYS),
        ("unshare", &[0], allow),
        ("unshare", &[0x600], allow),
        ("unshare", &[0x80], EPERM),
        ("unshare", &[0x1000_0000], EPERM),
        ("chmod", &[0, 0o755], allow),
        ("chmod", &[0, 0o4755], EPERM),
        ("fchmod", &[3, 0o2755], EPERM),
        ("fchmodat", &[0, 0, 0o1777], allow),
        ("fchmodat", &[0, 0, 0o4000], EPERM),
        ("fchmodat2", &[0, 0, 0o4000], EPERM),
        ("creat", &[0, 0o644], allow),
        ("creat", &[0, 0o4644], EPERM),
        ("open", &[0, 0o100, 0o4755], EPERM),
        ("openat", &[0, 0, 0o101, 0o644], allow),
        ("openat", &[0, 0, 0o101, 0o2755], EPERM),
        ("openat", &[0, 0, 0o20_200_000, 0o4755], EPERM),
        // Without O_CREAT the mode is rubbish.
        ("openat", &[0, 0, 0, 0xffff_ffff], allow),
        ("openat2", &[], ENOSYS),
        ("mkdir", &[0, 0o2775], allow),
        ("mkdirat", &[0, 0, 0o4755], EPERM),
        ("mknod", &[0, 0o010_644], allow),
        ("mknod", &[0, 0o020_644], EPERM),
        ("mknodat", &[0, 0, 0o060_644], EPERM),
        ("mknodat", &[0, 0, 0o100_644], allow),
        ("mknodat", &[0, 0, 0o140_644], allow),
        ("mknodat", &[0, 0, 0o104_755], EPERM),
        ("socket", &[1, 1, 0], allow),
        ("socket", &[1, 5 | 0x80000, 0], allow),
        ("socket", &[1, 2 | 0x80800, 0], EPERM),
        ("socket", &[1, 3, 0], EPERM),
        ("socket", &[2, 1 | 0x80000, 6], allow),
        ("socket", &[2, 2, 17], allow),
        ("socket", &[2, 2, 1], allow),
        ("socket", &[2, 3, 1], EPERM),
        ("socket", &[2, 10, 0], EPERM),
        ("socket", &[10, 1, 0], allow),
        ("socket", &[10, 3, 58], EPERM),
        ("socket", &[16, 3, 0], allow),
        ("socket", &[16, 3, 9], EPERM),
        ("socket", &[17, 3, 0], EAFNOSUPPORT),
        ("socket", &[38, 5, 0], EAFNOSUPPORT),
        ("socket", &[40, 1, 0], EAFNOSUPPORT),
        // The kernel takes the low 32 bits of the family.
        ("socket", &[0xdead_0000_0000_0028, 1, 0], EAFNOSUPPORT),
        ("socketpair", &[1, 1, 0], allow),
        ("socketpair", &[1, 2, 0], EPERM),
        ("socketpair", &[2, 1, 0], EAFNOSUPPORT),
        ("ioctl", &[0, 0x5412], EPERM),
        ("ioctl", &[0, 0xffff_ffff_0000_5412], EPERM),
        ("ioctl", &[0, 0x541c], EPERM),
        ("ioctl", &[0, 0x5413], allow),
        ("personality", &[0xffff_ffff], allow),
        ("personality", &[0x4_0000], allow),
        ("personality", &[0x40_0000], EPERM),
    ];
    for (name, args, expected) in table {
        assert_eq!(evaluate(&spec, name, args), *expected, "{name}{args:x?}");
    }
}

#[test]
fn what_every_program_needs_is_allowed() {
    let spec = filter();
    let needed = [
        "read",
        "write",
        "openat",
        "close",
        "mmap",
        "brk",
        "execve",
        "exit_group",
        "futex",
        "rt_sigaction",
        "rt_sigreturn",
        "restart_syscall",
        "wait4",
        "waitid",
        "pidfd_open",
        "pidfd_send_signal",
        "epoll_wait",
        "getrandom",
        "rseq",
        "membarrier",
        "set_robust_list",
        "prctl",
        "prlimit64",
        "statx",
        "newfstatat",
        "sendmsg",
        "recvmsg",
        "connect",
        "bind",
        "memfd_create",
        "inotify_init1",
        "seccomp",
        "io_submit",
        "landlock_restrict_self",
        "name_to_handle_at",
        "shmget",
        "mq_open",
        "sched_setaffinity",
        "close_range",
        "copy_file_range",
        "renameat2",
        "vfork",
        "faccessat2",
        "utimensat",
        "flock",
        "arch_prctl",
        "mseal",
    ];
    for name in needed {
        assert_eq!(evaluate(&spec, name, &[]), Verdict::Allow, "{name}");
    }
}

#[test]
fn what_reaches_around_the_sandbox_is_refused() {
    let spec = filter();
    let refused = [
        "mount",
        "umount2",
        "pivot_root",
        "move_mount",
        "open_tree",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
        "chroot",
        "setns",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "kcmp",
        "pidfd_getfd",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "open_by_handle_at",
        "kexec_load",
        "init_module",
        "finit_module",
        "delete_module",
        "reboot",
        "swapon",
        "swapoff",
        "acct",
        "quotactl",
        "syslog",
        "vhangup",
        "settimeofday",
        "clock_settime",
        "adjtimex",
        "iopl",
        "ioperm",
        "lookup_dcookie",
        "nfsservctl",
        "fanotify_init",
    ];
    for name in refused {
        assert_eq!(evaluate(&spec, name, &[]), EPERM, "{name}");
    }
}

#[test]
fn a_call_that_nobody_has_heard_of_does_not_exist() {
    for name in ["listmount", "modify_ldt", "brand_new_call"] {
        assert_eq!(evaluate(&filter(), name, &[]), ENOSYS, "{name}");
    }
}

#[test]
fn every_name_is_stated_once() {
    let spec = filter();
    let names: Vec<&str> = spec
        .allow
        .iter()
        .map(AsRef::as_ref)
        .chain(spec.rules.iter().map(|rule| rule.name.as_ref()))
        .collect();
    let unique: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(unique.len(), names.len());
}

#[test]
fn the_network_is_not_the_filters_concern() {
    assert_eq!(
        command_filter(NetworkMode::Off, Within::default()),
        command_filter(NetworkMode::On, Within::default())
    );
}

#[test]
fn what_a_run_may_do_within_is_added_and_nothing_else() {
    let plain = filter();
    let of = |within| command_filter(NetworkMode::Off, within);
    let debugging = of(Within { debugging: true, nesting: false });
    let nesting = of(Within { debugging: false, nesting: true });
    let added = |spec: &SeccompSpec| -> Vec<String> {
        spec.allow.iter().filter(|name| !plain.allow.contains(name)).map(|name| name.to_string()).collect()
    };
    assert_eq!(added(&debugging), DEBUGGING);
    assert_eq!(added(&nesting), NESTING);
    let of_clone =
        |spec: &SeccompSpec| spec.rules.iter().find(|rule| rule.name == "clone").unwrap().when.len();
    assert_eq!((of_clone(&plain), of_clone(&debugging), of_clone(&nesting)), (7, 7, 0));
    // Whatever is asked for, these stay refused.
    for spec in [&debugging, &nesting] {
        for name in ["bpf", "keyctl", "pidfd_getfd", "open_by_handle_at", "io_uring_setup"] {
            let rule = spec.rules.iter().find(|rule| rule.name == name).unwrap();
            assert_eq!(rule.otherwise, EPERM, "{name}");
        }
    }
}
