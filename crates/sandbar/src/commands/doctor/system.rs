//! What the kernel offers, feature by feature. docs/kernel-support.md says what each is used for.

use std::path::Path;

use sandbar_sandbox::facts::FactsError;

use super::{Check, Verdict};
use crate::{host, plan};

/// The oldest kernel that we write for.
const OLDEST: (u32, u32) = (5, 14);

/// Since when a peer on a socket is known by a pidfd (SO_PEERPIDFD). Asked by version: the option can be asked for
/// only by code that this program forbids itself.
const PEER_PIDFD: (u32, u32) = (6, 5);

/// What Landlock restricts from an ABI version on, and what holds before; landlock(7).
const LANDLOCK: [(u32, &str); 4] = [
    (2, "every rename and link from one directory to another is refused"),
    (3, "truncation is held by mounts alone"),
    (5, "ioctls on devices are not restricted"),
    (6, "abstract sockets and signals are held by namespaces and the filter alone"),
];

/// All checks of the kernel. `works` says whether a sandboxed command has just run.
pub(super) fn checks(works: bool) -> Vec<Check> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let facts = match sandbar_sandbox::facts::host_facts() {
        Ok(facts) => facts,
        Err(error @ FactsError::Wsl1) => {
            let check = Check::new("kernel", Verdict::Fail, format!("Linux {release}: could not {error}"));
            return vec![check.advise(plan::WSL2)];
        }
        Err(error) => {
            let check = Check::new("kernel", Verdict::Fail, format!("could not {error}"));
            return vec![check.advise("mount procfs on /proc")];
        }
    };
    vec![
        kernel(&release, facts.kernel),
        container(works),
        confinement(&std::fs::read_to_string("/proc/self/status").unwrap_or_default(), works),
        user_namespaces(facts.uid == 0, works),
        landlock(facts.landlock_abi),
        seccomp(std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").ok().as_deref()),
        peers(facts.kernel),
    ]
}

fn kernel(release: &str, version: (u32, u32)) -> Check {
    let check = |status, remark: &str| Check::new("kernel", status, format!("Linux {release}{remark}"));
    if version < OLDEST {
        let (major, minor) = OLDEST;
        return check(Verdict::Fail, &format!(" is older than {major}.{minor}")).advise("use a newer kernel");
    }
    check(Verdict::Ok, if release.contains("microsoft") { " (WSL 2)" } else { "" })
}

/// Signs that container engines leave; podman-run(1), docker, and systemd's container interface.
fn container(works: bool) -> Check {
    let signs = [
        ("/run/.containerenv", "podman"),
        ("/.dockerenv", "docker"),
        ("/run/systemd/container", "a container"),
    ];
    let found = signs.into_iter().find(|(sign, _)| Path::new(sign).exists());
    match found {
        None => Check::new("container", Verdict::Ok, "no sign of one"),
        Some((sign, engine)) if works => {
            Check::new("container", Verdict::Ok, format!("inside {engine} ({sign})"))
        }
        Some((sign, engine)) => Check::new("container", Verdict::Warn, format!("inside {engine} ({sign})"))
            .advise(
                "containers forbid user namespaces and mask parts of /proc unless they are started otherwise \
             (docker: --security-opt seccomp=unconfined --security-opt systempaths=unconfined)",
            ),
    }
}

/// What whoever started us has put around us, from `/proc/self/status`; proc_pid_status(5).
fn confinement(status: &str, works: bool) -> Check {
    const NAME: &str = "confinement";
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map_or("0", str::trim)
    };
    let filters = field("Seccomp_filters");
    let (filtered, pinned) = (field("Seccomp") == "2", field("NoNewPrivs") == "1");
    let detail = match (filtered, pinned) {
        (false, false) => return Check::new(NAME, Verdict::Ok, "sandbar itself is not confined"),
        (true, _) => format!("sandbar itself runs behind system-call filters ({filters})"),
        (false, true) => "sandbar itself runs with no_new_privs".to_owned(),
    };
    if works {
        return Check::new(NAME, Verdict::Ok, detail);
    }
    Check::new(NAME, Verdict::Warn, detail)
        .advise("start sandbar outside of the sandbox or container that it is in")
}

fn user_namespaces(privileged: bool, works: bool) -> Check {
    const NAME: &str = "user-namespaces";
    match (host::namespace_obstacle(!privileged), works) {
        (None, true) => Check::new(NAME, Verdict::Ok, "made by the trial below"),
        (None, false) => Check::new(NAME, Verdict::Ok, "no setting forbids them"),
        (Some(obstacle), true) => {
            Check::new(NAME, Verdict::Ok, format!("made by the trial below, although {}", obstacle.place))
        }
        (Some(obstacle), false) => Check::new(NAME, Verdict::Fail, obstacle.place).advise(obstacle.advice),
    }
}

fn landlock(abi: u32) -> Check {
    const NAME: &str = "landlock";
    if abi == 0 {
        return Check::new(NAME, Verdict::Warn, "not there; mounts and the system-call filter hold alone").advise(
            "boot a kernel from 5.13 on with `landlock` among its security modules (/sys/kernel/security/lsm)",
        );
    }
    let missing: Vec<&str> =
        LANDLOCK.iter().filter(|(since, _)| abi < *since).map(|(_, what)| *what).collect();
    if missing.is_empty() {
        return Check::new(NAME, Verdict::Ok, format!("ABI {abi}"));
    }
    Check::new(NAME, Verdict::Warn, format!("ABI {abi}: {}", missing.join("; ")))
        .advise("a newer kernel restricts these too")
}

/// `actions` is the content of actions_avail, seccomp(2).
fn seccomp(actions: Option<&str>) -> Check {
    const NAME: &str = "seccomp";
    let has =
        |action: &str| actions.is_some_and(|actions| actions.split_whitespace().any(|one| one == action));
    if has("kill_process") && has("errno") {
        return Check::new(NAME, Verdict::Ok, "filters can refuse and kill");
    }
    Check::new(NAME, Verdict::Fail, "this kernel has no system-call filters")
        .advise("boot a kernel that is built with CONFIG_SECCOMP_FILTER")
}

fn peers(version: (u32, u32)) -> Check {
    const NAME: &str = "peer-pidfd";
    if version >= PEER_PIDFD {
        return Check::new(NAME, Verdict::Ok, "peers on sockets are known by pidfds");
    }
    Check::new(
        NAME,
        Verdict::Warn,
        "before Linux 6.5 peers on sockets are known by their pids, and looked at twice",
    )
    .advise("a newer kernel knows them by pidfds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wsl_1_is_told_from_wsl_2_and_old_from_new() {
        let table = [
            ("6.18.44-fc", (6, 18), Verdict::Ok, "Linux 6.18.44-fc"),
            ("5.14.0-427.el9", (5, 14), Verdict::Ok, "Linux 5.14.0-427.el9"),
            ("5.13.0", (5, 13), Verdict::Fail, "Linux 5.13.0 is older than 5.14"),
            (
                "5.15.153.1-microsoft-standard-WSL2",
                (5, 15),
                Verdict::Ok,
                "Linux 5.15.153.1-microsoft-standard-WSL2 (WSL 2)",
            ),
        ];
        for (release, version, status, detail) in table {
            let check = kernel(release, version);
            assert_eq!((check.status, check.detail.as_str()), (status, detail));
        }
    }

    #[test]
    fn walls_around_sandbar_itself_matter_when_nothing_works() {
        let inside = "Name:\tsandbar\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        let table = [
            (inside, false, Verdict::Warn, "sandbar itself runs behind system-call filters (3)"),
            (inside, true, Verdict::Ok, "sandbar itself runs behind system-call filters (3)"),
            ("NoNewPrivs:\t1\nSeccomp:\t0\n", false, Verdict::Warn, "sandbar itself runs with no_new_privs"),
            ("NoNewPrivs:\t0\nSeccomp:\t0\n", false, Verdict::Ok, "sandbar itself is not confined"),
        ];
        for (status, works, verdict, detail) in table {
            let check = confinement(status, works);
            assert_eq!((check.status, check.detail.as_str()), (verdict, detail));
        }
    }

    #[test]
    fn landlock_says_what_its_level_leaves_open() {
        assert_eq!(landlock(7), Check::new("landlock", Verdict::Ok, "ABI 7"));
        let five = landlock(5);
        assert_eq!(
            (five.status, five.detail.as_str()),
            (
                Verdict::Warn,
                "ABI 5: abstract sockets and signals are held by namespaces and the filter alone"
            )
        );
        assert_eq!(landlock(1).detail.matches("; ").count(), 3);
        assert_eq!(landlock(0).status, Verdict::Warn);
    }

    #[test]
    fn seccomp_needs_both_of_its_answers() {
        let available = "kill_process kill_thread trap errno user_notif trace log allow\n";
        assert_eq!(seccomp(Some(available)).status, Verdict::Ok);
        assert_eq!(seccomp(Some("trap allow")).status, Verdict::Fail);
        assert_eq!(seccomp(None).status, Verdict::Fail);
    }

    #[test]
    fn old_kernels_know_peers_by_pid() {
        assert_eq!((peers((6, 5)).status, peers((6, 4)).status), (Verdict::Ok, Verdict::Warn));
    }
}
