//! What a sandboxed command can and cannot do, asked from inside by small probes.
//!
//! Each probe is one attempt of facts/sandbox.md §6 or one promise of the profiles. Attempts print one line; a
//! refusal by any of EPERM, EACCES, EROFS, EXDEV and EBUSY prints `denied`, every other error its name.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::Signal;
use sandbar_testkit::need::Need;
use sandbar_testkit::{DEADLINE, Finished, Home, Running, eventually, finish, need, processes};

fn sandbox() -> Need<Home> {
    need::user_namespaces()?;
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

/// A sandbox and the interpreter of the probes that a shell can't make.
fn python_sandbox() -> Need<Home> {
    need::program("python3")?;
    sandbox()
}

const PRELUDE: &str = r#"
import ctypes, errno, os, socket, struct, sys
DENIED = {errno.EPERM, errno.EACCES, errno.EROFS, errno.EXDEV, errno.EBUSY}
libc = ctypes.CDLL(None, use_errno=True)

def attempt(label, act):
    try:
        result = act()
        print(label + ':', 'ok' if result is None else result)
    except OSError as error:
        print(label + ':', 'denied' if error.errno in DENIED else errno.errorcode.get(error.errno, error))

def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), 'refused')

def write(path, flags=os.O_WRONLY):
    os.close(os.open(path, flags | os.O_NONBLOCK, 0o600))

def read(path):
    with open(path, 'rb') as file:
        return file.read(200)
"#;

/// Runs a probe in the sandbox of `options`, with the paths it needs as arguments.
fn probe(home: &Home, options: &[&str], code: &str, arguments: &[&Path]) -> String {
    let mut command = home.sandbar(&["run", "--quiet"]);
    command.args(options).args(["--", "python3", "-I", "-S", "-c"]).arg(format!("{PRELUDE}\n{code}"));
    command.args(arguments);
    finish(&mut command).ok()
}

/// Numbers of system calls, which a probe makes without the C library.
#[cfg(target_arch = "x86_64")]
const NUMBERS: &str = "\
n = dict(ptrace=101, process_vm_readv=310, keyctl=250, add_key=248, request_key=249, unshare=272, setns=308,
         clone3=435, mount=165, umount2=166, pivot_root=155, chroot=161, open_tree=428, fsopen=430, move_mount=429,
         mount_setattr=442, bpf=321, perf_event_open=298, userfaultfd=323, io_uring_setup=425,
         open_by_handle_at=304, fanotify_init=300, init_module=175, kexec_load=246, reboot=169, swapon=167,
         sethostname=170, clock_settime=227, syslog=103, acct=163, quotactl=179, pidfd_getfd=438, kcmp=312,
         iopl=172, mknod=133, shmget=29, memfd_create=319, chmod=90, openat=257)
";
#[cfg(target_arch = "aarch64")]
const NUMBERS: &str = "\
n = dict(ptrace=117, process_vm_readv=270, keyctl=219, add_key=217, request_key=218, unshare=97, setns=268,
         clone3=435, mount=40, umount2=39, pivot_root=41, chroot=51, open_tree=428, fsopen=430, move_mount=429,
         mount_setattr=442, bpf=280, perf_event_open=241, userfaultfd=282, io_uring_setup=425,
         open_by_handle_at=265, fanotify_init=262, init_module=105, kexec_load=104, reboot=142, swapon=224,
         sethostname=161, clock_settime=112, syslog=116, acct=89, quotactl=60, pidfd_getfd=438, kcmp=272,
         shmget=194, memfd_create=279, openat=56)
";

fn landlock_abi() -> u32 {
    sandbar_sandbox::facts::host_facts().map_or(0, |facts| facts.landlock_abi)
}

/// A repository with one commit, made outside.
fn repository(home: &Home) -> Need<()> {
    need::program("git")?;
    let script = "git init -q . && git config user.name t && git config user.email t@example.org && \
                  echo one > file && git add file && git commit -q -m one";
    let mut command = home.command("sh");
    let _ = finish(command.args(["-c", script])).ok();
    Ok(())
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

// --- files ---

#[test]
fn a_workspace_can_be_written_and_nothing_else() {
    let home = need!(python_sandbox());
    let outside = home.outside().join("outside");
    fs::write(&outside, "untouched").unwrap();
    symlink(&outside, home.workspace().join("link")).unwrap();
    let code = r#"
outside, home = sys.argv[1:]
attempt('create here', lambda: write('new', os.O_WRONLY | os.O_CREAT))
attempt('folder here', lambda: os.makedirs('a/b'))
attempt('execute from here', lambda: (open('x', 'w').write('#!/bin/sh\nexit 7'), os.chmod('x', 0o755), os.waitstatus_to_exitcode(os.system('./x')))[2])
attempt('read outside', lambda: read(outside).decode())
attempt('write outside', lambda: write(outside))
attempt('truncate outside', lambda: os.truncate(outside, 0))
attempt('chmod outside', lambda: os.chmod(outside, 0o777))
attempt('utime outside', lambda: os.utime(outside, (1, 1)))
attempt('xattr outside', lambda: os.setxattr(outside, 'user.x', b'y'))
attempt('through a link', lambda: write('link'))
attempt('link into here', lambda: os.link(outside, 'hard'))
attempt('move into here', lambda: os.rename(outside, 'moved'))
attempt('move out of here', lambda: os.rename('new', os.path.dirname(outside) + '/new'))
attempt('create beside', lambda: write(os.path.dirname(outside) + '/other', os.O_WRONLY | os.O_CREAT))
attempt('create in home', lambda: write(home + '/other', os.O_WRONLY | os.O_CREAT))
attempt('create in /', lambda: write('/other', os.O_WRONLY | os.O_CREAT))
attempt('write /etc/passwd', lambda: write('/etc/passwd'))
attempt('by /proc/self/root', lambda: write('/proc/self/root' + outside))
attempt('by /proc/self/cwd', lambda: write('/proc/self/cwd/../outside'))
attempt('in /sys', lambda: os.mkdir('/sys/fs/cgroup/x'))
"#;
    let expected = "\
create here: ok
folder here: ok
execute from here: 7
read outside: untouched
write outside: denied
truncate outside: denied
chmod outside: denied
utime outside: denied
xattr outside: denied
through a link: denied
link into here: denied
move into here: denied
move out of here: denied
create beside: denied
create in home: denied
create in /: denied
write /etc/passwd: denied
by /proc/self/root: denied
by /proc/self/cwd: denied
in /sys: denied
";
    assert_eq!(probe(&home, &[], code, &[&outside, &home.user_home()]), expected);
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
    assert_ne!(fs::metadata(&outside).unwrap().mtime(), 1);
    assert!(home.workspace().join("a/b").is_dir());
}

#[test]
fn read_only_writes_nowhere_but_in_its_own_temporary_directories() {
    let home = need!(sandbox());
    home.write("file", "text");
    let script = "cat file; for place in new file /etc/new $HOME/new /tmp/new /var/tmp/new /dev/shm/new; do \
                  (echo x >> $place) 2>/dev/null && echo wrote $place; done; true";
    let expected = "textwrote /tmp/new\nwrote /var/tmp/new\nwrote /dev/shm/new\n";
    assert_eq!(home.run(&["-p", "read-only"], script), Finished::with(0, expected, ""));
    assert!(!Path::new("/tmp/new").exists() && !Path::new("/dev/shm/new").exists());
}

#[test]
fn temporary_directories_are_the_sandboxs_own() {
    let home = need!(sandbox());
    for place in ["/tmp", "/var/tmp", "/dev/shm"] {
        let Ok(folder) = tempfile::tempdir_in(place) else { continue };
        let name = folder.path().display().to_string();
        let script = format!(
            "ls -A {place}; test -e {name} && echo visible; touch {place}/made.inside; ls {place}/made.inside"
        );
        let listing = home.run(&[], &script).ok();
        assert!(!listing.contains("visible") && listing.ends_with("made.inside\n"), "{place}: {listing}");
        assert!(!Path::new(place).join("made.inside").exists(), "{place}");
    }
}

#[test]
fn named_paths_can_be_written_and_read_too() {
    let home = need!(sandbox());
    let shared = home.outside().join("shared");
    fs::create_dir(&shared).unwrap();
    let name = shared.display().to_string();
    let script = format!("echo made > {name}/file");
    assert_ne!(home.run(&[], &script).code, Some(0));
    assert_eq!(home.run(&["--allow-write", &name], &script), Finished::with(0, "", ""));
    assert_eq!(fs::read_to_string(shared.join("file")).unwrap(), "made\n");
    let kept = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(kept.path().join("file"), "of the host").unwrap();
    let name = kept.path().display().to_string();
    let script = format!("cat {name}/file; touch {name}/x");
    let finished = home.run(&["--allow-read", &name], &script);
    assert_eq!(finished.out(), "of the host");
    assert!(finished.code != Some(0) && !kept.path().join("x").exists(), "{finished:?}");
}

#[test]
fn too_much_is_not_granted_by_a_flag() {
    let home = need!(sandbox());
    let user_home = home.user_home().display().to_string();
    let own = home.sandbar_home().display().to_string();
    let table = [
        ("--allow-write", user_home.as_str(), "is or holds the home directory"),
        ("--allow-write", "/", "is the whole file system"),
        ("--allow-write", &own, "sandbar's own files"),
        ("--allow-read", &own, "sandbar's own files"),
        ("--allow-write", "/proc/sys", "which every sandbox has of its own"),
        ("--allow-write", "~/x", "begins with a ~"),
    ];
    for (flag, path, reason) in table {
        let finished = home.run(&[flag, path], "touch ran");
        assert!(matches!(finished.code, Some(125 | 2)), "{flag} {path}: {finished:?}");
        assert!(finished.err().contains(reason), "{flag} {path}: {finished:?}");
    }
    assert!(!home.workspace().join("ran").exists());
}

#[test]
fn a_home_directory_as_workspace_is_read_only_and_says_so() {
    let home = need!(sandbox());
    let user_home = home.user_home();
    home.write_home("file", "text");
    let mut command = home.sandbar(&["run", "--", "sh", "-c", "cat file; touch made"]);
    let finished = finish(command.current_dir(&user_home));
    assert_eq!((finished.code, finished.out().as_str()), (Some(1), "text"), "{finished:?}");
    assert!(finished.err().contains("is or holds the home directory"), "{finished:?}");
    assert!(!user_home.join("made").exists());
}

#[test]
fn a_workspace_behind_a_symlink_is_the_workspace() {
    let home = need!(sandbox());
    let link = home.outside().join("link");
    symlink(home.workspace(), &link).unwrap();
    let mut command = home.shell(&[], "pwd -P; echo made > made");
    let finished = finish(command.current_dir(&link).env("PWD", &link));
    assert_eq!(finished, Finished::with(0, format!("{}\n", home.workspace().display()), ""));
    assert!(home.workspace().join("made").exists());
}

#[test]
fn a_workspace_below_tmp_is_the_hosts_and_its_neighbours_are_not_there() {
    need!(need::user_namespaces());
    for parent in ["/tmp", "/var/tmp"] {
        let home = Home::below(Path::new(parent), env!("CARGO_BIN_EXE_sandbar"));
        let script = format!(
            "echo made > made; ls -A {parent} | wc -l; ls -A ..; mkdir .claude 2>/dev/null || echo kept"
        );
        let inside = home.run(&[], &script).ok();
        // The workspace's folder, and at most one for caches.
        let (count, rest) = inside.split_once('\n').unwrap();
        assert!(count.trim().parse::<u32>().is_ok_and(|count| count <= 2), "{inside}");
        assert_eq!(rest, "ws\nkept\n");
        assert_eq!(fs::read_to_string(home.workspace().join("made")).unwrap(), "made\n");
        assert!(!home.workspace().join(".claude").exists());
    }
}

#[test]
fn sandbars_own_files_are_hidden() {
    let home = need!(sandbox());
    assert_eq!(home.run(&[], "true").code, Some(0));
    let own = home.sandbar_home().display().to_string();
    for options in [&[][..], &["-p", "read-only"], &["--net", "on"]] {
        let script = format!(
            "for place in {own} {own}/run {own}/state {own}/state/sessions; do ls -A $place 2>/dev/null; done; \
             touch {own}/x 2>/dev/null && echo wrote; true"
        );
        assert_eq!(home.run(options, &script), Finished::with(0, "", ""), "{options:?}");
    }
}

#[test]
fn records_in_the_default_places_are_hidden_from_a_run_whose_own_are_elsewhere() {
    let home = need!(sandbox());
    let places = [".local/state/sandbar/sessions/r.jsonl", ".config/sandbar/c.toml", ".cache/sandbar/c"];
    for place in places {
        home.write_home(place, "hunter2");
    }
    let moved = home.outside().join("xdg");
    fs::create_dir_all(moved.join("sandbar")).unwrap();
    fs::write(moved.join("sandbar/r.jsonl"), "hunter2").unwrap();
    home.write_home(".config/other", "readable");
    let script = format!(
        "cat ~/.config/other; cat ~/{} ~/{} ~/{} {}/sandbar/r.jsonl 2>/dev/null; true",
        places[0],
        places[1],
        places[2],
        moved.display()
    );
    for options in [&[][..], &["-p", "read-only"]] {
        let mut command = home.shell(options, &script);
        let finished = finish(command.env("XDG_STATE_HOME", &moved));
        assert_eq!(finished, Finished::with(0, "readable", ""), "{options:?}");
    }
    let everything = home.run(&["-p", "danger-full-access"], &script).out();
    assert_eq!(everything, format!("readable{}", "hunter2".repeat(4)), "there is something to hide");
}

// --- protected names and git ---

#[test]
fn protected_names_cannot_be_made_written_or_moved() {
    let home = need!(python_sandbox());
    home.write(".claude/settings.json", "{}");
    home.write(".codex/config.toml", "");
    let code = r#"
for name in ['.claude', '.codex', '.agents', '.sandbar']:
    attempt(name + ' make', lambda: os.mkdir(name))
    attempt(name + ' fill', lambda: write(name + '/new', os.O_WRONLY | os.O_CREAT))
    attempt(name + ' move', lambda: os.rename(name, 'away'))
    attempt(name + ' replace', lambda: (os.makedirs('other', exist_ok=True), os.rename('other', name))[1])
    attempt(name + ' remove', lambda: os.rmdir(name))
    attempt(name + ' chmod', lambda: os.chmod(name, 0o777))
attempt('write', lambda: write('.claude/settings.json'))
attempt('unlink', lambda: os.unlink('.claude/settings.json'))
attempt('link out', lambda: os.link('.claude/settings.json', 'hard'))
"#;
    let each = |name: &str| {
        format!(
            "{name} make: EEXIST\n{name} fill: denied\n{name} move: denied\n{name} replace: denied\n\
             {name} remove: denied\n{name} chmod: denied\n"
        )
    };
    let expected = [".claude", ".codex", ".agents", ".sandbar"].map(each).concat()
        + "write: denied\nunlink: denied\nlink out: denied\n";
    assert_eq!(probe(&home, &[], code, &[]), expected);
    let left = |name: &str| home.workspace().join(name).exists();
    assert_eq!([".claude", ".codex", ".agents", ".sandbar"].map(left), [true, true, false, false]);
}

#[test]
fn a_protected_name_that_is_a_link_stops_the_run() {
    let home = need!(sandbox());
    symlink("/etc", home.workspace().join(".claude")).unwrap();
    let finished = home.run(&[], "touch ran");
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.err().contains("is a symbolic link, which cannot be protected"), "{finished:?}");
}

#[test]
fn placeholders_are_gone_after_a_run_that_was_killed_from_outside() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let script = format!("echo $SANDBAR_THREAD_ID; exec sleep {marker}");
    let mut running = Running::start(&mut home.shell(&[], &script));
    let id = running.line();
    let names = || fs::read_dir(home.workspace()).unwrap().count();
    assert_eq!(names(), 4);
    running.signal(Signal::KILL);
    assert_eq!(running.finish().signal, Some(9));
    assert_eq!(home.finish(&["kill", "--grace", "50ms", &id]).code, Some(0));
    eventually(DEADLINE, "an empty workspace", || (names() == 0).then_some(()));
}

#[test]
fn commits_work_and_what_makes_git_run_programs_stays_as_it_is() {
    let home = need!(python_sandbox());
    need!(repository(&home));
    let code = r#"
attempt('commit', lambda: os.waitstatus_to_exitcode(os.system('echo two > file && git commit -q -a -m two && git checkout -q -b side && git tag t && git gc -q && git stash -q 2>/dev/null; git log --oneline | wc -l')))
attempt('config', lambda: write('.git/config'))
attempt('config.worktree', lambda: write('.git/config.worktree', os.O_WRONLY | os.O_CREAT))
attempt('hook', lambda: write('.git/hooks/pre-commit', os.O_WRONLY | os.O_CREAT))
attempt('commondir', lambda: write('.git/commondir', os.O_WRONLY | os.O_CREAT))
attempt('attributes', lambda: write('.git/info/attributes', os.O_WRONLY | os.O_CREAT))
for name in ['.git', '.git/hooks', '.git/info', '.git/config']:
    attempt('move ' + name, lambda: os.rename(name, 'away'))
attempt('replace config', lambda: (open('other', 'w').close(), os.rename('other', '.git/config'))[1])
"#;
    let expected = "\
2
commit: 0
config: denied
config.worktree: denied
hook: denied
commondir: denied
attributes: denied
move .git: denied
move .git/hooks: denied
move .git/info: denied
move .git/config: denied
replace config: denied
";
    assert_eq!(probe(&home, &[], code, &[]), expected);
    let mut command = home.command("git");
    assert_eq!(finish(command.args(["log", "--format=%s", "side"])).ok(), "two\none\n");
    for name in ["commondir", "config.worktree"] {
        assert!(!home.workspace().join(".git").join(name).exists(), "{name} is left behind");
    }
}

#[test]
fn commits_work_in_a_linked_worktree_whose_repository_lies_elsewhere() {
    let home = need!(sandbox());
    need!(repository(&home));
    let linked = home.outside().join("linked");
    let mut command = home.command("git");
    let _ = finish(command.args(["worktree", "add", "-q", "-b", "side"]).arg(&linked)).ok();
    let script = "echo two > file && git commit -q -a -m two && git log --format=%s | head -1; \
                  (echo x >> $(git rev-parse --git-common-dir)/config) 2>/dev/null && echo wrote config; \
                  (echo x > ../ws/file) 2>/dev/null && echo wrote the other worktree; true";
    let mut command = home.shell(&[], script);
    assert_eq!(finish(command.current_dir(&linked)), Finished::with(0, "two\n", ""));
}

#[test]
fn a_working_directory_inside_a_git_directory_is_read_only_and_says_so() {
    let home = need!(sandbox());
    need!(repository(&home));
    let inside = home.workspace().join(".git");
    let mut command = home.sandbar(&["run", "--", "sh", "-c", "cat HEAD; touch hooks/pre-commit"]);
    let finished = finish(command.current_dir(&inside));
    assert!(finished.code == Some(1) && finished.out().starts_with("ref: "), "{finished:?}");
    assert!(finished.err().contains("is a protected directory"), "{finished:?}");
    assert!(!inside.join("hooks/pre-commit").exists());
}

#[test]
fn git_is_read_only_when_it_is_to_be_protected() {
    let home = need!(sandbox());
    need!(repository(&home));
    let script =
        "git status --short 2>&1; echo two > file; git commit -q -a -m two 2>/dev/null || echo refused";
    assert_eq!(home.run(&["--git", "protect"], script).ok(), "refused\n");
}

/// Who commits in repositories that have no configuration of their own.
const IDENTITY: &str = "[user]\n\tname = A\n\temail = a@example.com\n";

/// Makes `.git/modules/lib` and the checked out submodule `lib` in the workspace's repository.
fn submodule(home: &Home) {
    home.write_home(".gitconfig", IDENTITY);
    let script = "git init -q ../lib && git -C ../lib commit -q --allow-empty -m lib && \
                  git -c protocol.file.allow=always submodule --quiet add ../lib lib && git commit -q -m submodule";
    let _ = finish(home.command("sh").args(["-c", script])).ok();
}

#[test]
fn a_submodule_cannot_be_replaced_by_a_repository_that_runs_programs_of_the_host() {
    let home = need!(sandbox());
    need!(repository(&home));
    submodule(&home);
    let plant = "git -C lib log --format=%s; git -C lib commit -q --allow-empty -m inside && echo committed; \
                 rm -rf planted copy; git init -q planted && touch planted/f && git -C planted add f && git -C planted commit -q -m x && \
                 git -C planted config core.fsmonitor 'touch ../PWNED; false' && \
                 rm -rf lib/.git 2>/dev/null; mv planted/.git lib/.git 2>/dev/null; \
                 cp -r lib copy; mv planted/.git copy/.git 2>/dev/null; mv lib away 2>/dev/null && mv copy lib; true";
    for mode in ["commit", "protect"] {
        let out = home.run(&["--git", mode], plant).ok();
        assert_eq!(out.contains("committed"), mode == "commit", "{out}");
        let _ = finish(home.command("git").args(["status", "--short"])).ok();
        assert!(!home.workspace().join("PWNED").exists(), "--git {mode}");
    }
}

#[test]
fn a_submodule_that_a_run_adds_is_named_before_git_enters_it() {
    let home = need!(sandbox());
    need!(repository(&home));
    home.write_home(".gitconfig", IDENTITY);
    let plant = "git init -q evil && git -C evil commit -q --allow-empty -m x && git add evil 2>/dev/null";
    let finished = finish(&mut home.sandbar(&["run", "--", "sh", "-c", plant]));
    assert!(finished.code == Some(0) && finished.err().contains("added the submodule"), "{finished:?}");
    assert!(finished.err().contains("update-index --force-remove -- evil"), "{finished:?}");
    let again = finish(&mut home.sandbar(&["run", "--", "true"]));
    assert!(!again.err().contains("added the submodule"), "{again:?}");
    let script = "(echo x >> evil/.git/config) 2>/dev/null || echo denied";
    assert_eq!(home.run(&[], script).ok(), "denied\n");
}

#[test]
fn a_submodule_that_a_run_adds_to_a_submodule_is_named_even_to_who_wants_no_notes() {
    let home = need!(sandbox());
    need!(repository(&home));
    submodule(&home);
    let plant =
        "cd lib && git init -q evil && git -C evil commit -q --allow-empty -m x && git add evil 2>/dev/null";
    let finished = home.run(&[], plant);
    assert!(
        finished.err().contains("added the submodule") && finished.err().contains("lib/evil"),
        "{finished:?}"
    );
}

#[test]
fn an_added_submodule_is_removed_as_advised_without_running_anything() {
    let home = need!(sandbox());
    need!(repository(&home));
    home.write_home(".gitconfig", IDENTITY);
    let plant = "git init -q 'e vil' && git -C 'e vil' commit -q --allow-empty -m x && mv 'e vil/.git' away && \
                 echo 'gitdir: ../away' > 'e vil/.git' && git add 'e vil' 2>/dev/null; git -C away config core.worktree \"../e vil\"; \
                 pwn away/config; git -C 'e vil' -c core.fsmonitor= commit -q --allow-empty -m staged-is-different";
    let said = assert_nothing_runs(&home, plant, "true");
    let (_, advice) = said.trim_end().split_once("remove it: ").unwrap_or_else(|| panic!("{said}"));
    let _ = finish(home.command("sh").args(["-c", advice])).ok();
    let index = finish(home.command("git").args(["ls-files"])).ok();
    assert_eq!((index.as_str(), home.user_home().join("PWNED").exists()), ("file\n", false), "{advice}");
}

#[test]
fn what_a_repositorys_configuration_names_is_not_shown_because_of_that() {
    let home = need!(sandbox());
    need!(repository(&home));
    let key = home.write_home(".ssh/id", "secret");
    let socket = home.outside().join("r/socket");
    fs::create_dir(home.outside().join("r")).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    let script = format!(
        "mkdir lib && echo gitdir: {2}/.ssh > lib/.git && \
         git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),lib && \
         git config core.hooksPath {1} && git config include.path {0}",
        key.display(),
        socket.display(),
        home.user_home().display()
    );
    let _ = finish(home.command("sh").args(["-c", &script])).ok();
    home.write_home(".ssh/config", "secret");
    let script =
        format!("cat ~/.ssh/id ~/.ssh/config 2>/dev/null; test -e {} && echo seen; true", socket.display());
    let mut command = home.shell(&[], &script);
    assert_eq!(finish(command.env("XDG_RUNTIME_DIR", home.outside().join("r"))).ok(), "");
}

/// A line of git's configuration, quoted for printf(1), that makes git write a file which no sandbox can.
const PWN: &str = r"[core]\n\tfsmonitor = touch $HOME/PWNED\n";

/// Runs `attack` in a sandbox and then `host` on the host; nothing of the former may run in the latter. Returns what
/// the run said.
#[track_caller]
fn assert_nothing_runs(home: &Home, attack: &str, host: &str) -> String {
    let attack = format!("pwn() {{ printf '{PWN}' >> \"$1\"; }} 2>/dev/null; {attack}");
    let finished = finish(&mut home.sandbar(&["run", "--", "sh", "-c", &attack]));
    let _ = finish(home.command("sh").args(["-c", host]));
    assert!(!home.user_home().join("PWNED").exists(), "{finished:?}");
    finished.err()
}

#[test]
fn a_repository_cannot_be_planted_for_a_submodule_that_is_not_there_yet() {
    let home = need!(sandbox());
    need!(repository(&home));
    let plant = "plant() { git init -q --bare $1 && git config -f $1/config core.bare false && \
                   git config -f $1/config core.worktree $PWD/$2 && pwn $1/config; }; ";
    let link = "mkdir -p lib; printf '[submodule \"lib\"]\n path = lib\n url = ./lib\n' > .gitmodules; \
                git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),lib; git add .gitmodules; ";
    let host = "git submodule update --init; git status";
    assert_nothing_runs(&home, &format!("{plant}{link} plant .git/modules/lib lib; true"), host);
    let script = "git reset -q --hard HEAD && rm -rf lib";
    let _ = finish(home.command("sh").args(["-c", script])).ok();
    submodule(&home);
    let _ = finish(home.command("git").args(["submodule", "--quiet", "deinit", "-f", "lib"])).ok();
    let rename = "sed -i 's/\"lib\"/\"zz\"/' .gitmodules; plant .git/modules/zz lib; plant .git/modules/lib/modules/x x; true";
    assert_nothing_runs(&home, &format!("{plant}{rename}"), host);
}

/// A hook that cannot run in a sandbox, and what makes it.
const HOOK: &str = "hook() { rm -f \"$1\"; printf '#!/bin/sh\\ntouch $HOME/PWNED\\n' > \"$1\"; chmod +x \"$1\"; } 2>/dev/null; ";

#[test]
fn a_configuration_of_any_length_is_heeded_or_stops_the_run() {
    let home = need!(sandbox());
    need!(repository(&home));
    let script = "mkdir ci; git config core.hooksPath ci; for i in $(seq 4000); do printf '[branch \"b%d\"]\\n\\tremote = o\\n' $i; done >> .git/config";
    let _ = finish(home.command("sh").args(["-c", script])).ok();
    assert!(fs::metadata(home.workspace().join(".git/config")).unwrap().len() > 100_000);
    assert_nothing_runs(
        &home,
        &format!("{HOOK} hook ci/pre-commit; true"),
        "git commit -q --allow-empty -m two",
    );
    let script = "head -c 1100000 /dev/zero | tr '\\0' '#' >> .git/config";
    let _ = finish(home.command("sh").args(["-c", script])).ok();
    let refused = home.run(&[], "true");
    assert!(refused.code == Some(125) && refused.err().contains(".git/config is too long"), "{refused:?}");
}

#[test]
fn the_users_configuration_counts_wherever_it_is() {
    let home = need!(sandbox());
    need!(repository(&home));
    home.write("ci/.keep", "");
    let text = format!("{IDENTITY}[core]\n\thooksPath = ci\n");
    let linked = home.write("gitconfig", &text);
    let moved = home.write_home("xdg/git/config", &text);
    symlink(&linked, home.user_home().join(".gitconfig")).unwrap();
    let attack = format!("{HOOK} hook ci/pre-commit; pwn gitconfig; true");
    assert_nothing_runs(&home, &attack, "git commit -q --allow-empty -m two; git status");
    fs::remove_file(home.user_home().join(".gitconfig")).unwrap();
    let moved_home = moved.parent().and_then(Path::parent).unwrap();
    for (name, value) in [
        ("XDG_CONFIG_HOME", moved_home.as_os_str()),
        ("GIT_CONFIG_GLOBAL", moved.as_os_str()),
        ("GIT_CONFIG_PARAMETERS", "'core.hooksPath=ci'".as_ref()),
    ] {
        let _ = finish(home.shell(&[], &attack).env(name, value)).ok();
        let mut command = home.command("git");
        let _ = finish(command.args(["commit", "-q", "--allow-empty", "-m", "x"]).env(name, value)).ok();
        assert!(!home.user_home().join("PWNED").exists(), "{name:?}");
    }
}

#[test]
fn a_hook_that_is_a_link_cannot_be_written() {
    let home = need!(sandbox());
    need!(repository(&home));
    home.write("scripts/check", "#!/bin/sh\n");
    let script = "chmod +x scripts/check; ln -s ../../scripts/check .git/hooks/pre-commit; \
                  ln -s ../../scripts/missing .git/hooks/post-commit";
    let _ = finish(home.command("sh").args(["-c", script])).ok();
    let attack = format!(
        "{HOOK} hook scripts/check; hook scripts/missing; cp -r scripts copy; mv scripts away && mv copy scripts; true"
    );
    assert_nothing_runs(&home, &attack, "git commit -q --allow-empty -m two");
    // The whole directory as a link.
    let script = "mv .git/hooks hooks && ln -s ../hooks .git/hooks";
    let _ = finish(home.command("sh").args(["-c", script])).ok();
    assert_nothing_runs(
        &home,
        &format!("{HOOK} hook hooks/pre-commit; true"),
        "git commit -q --allow-empty -m two",
    );
}

#[test]
fn a_git_directory_of_another_name_cannot_be_led_astray() {
    let home = need!(sandbox());
    need!(repository(&home));
    let attack = "pwn .bare/config; git commit -q --allow-empty -m inside && echo committed >&2; true";
    let _ = finish(home.command("sh").args(["-c", "mv .git .bare && echo 'gitdir: ./.bare' > .git"])).ok();
    let said = assert_nothing_runs(&home, attack, "git status");
    assert_eq!(said, "committed\n");
    fs::remove_file(home.workspace().join(".git")).unwrap();
    let mut command = home.shell(&[], &format!("printf '{PWN}' >> .bare/config; true"));
    let _ = finish(command.env("GIT_DIR", home.workspace().join(".bare"))).ok();
    let mut command = home.command("git");
    let _ = finish(command.arg("status").env("GIT_DIR", home.workspace().join(".bare"))).ok();
    assert!(!home.user_home().join("PWNED").exists());
}

#[test]
fn a_repository_to_push_to_cannot_be_planted() {
    let home = need!(sandbox());
    need!(repository(&home));
    for name in ["remotes", "branches"] {
        let _ = fs::remove_dir_all(home.workspace().join(".git").join(name));
    }
    let attack = format!(
        "{HOOK} git init -q --bare evil.git; hook evil.git/hooks/pre-receive; mkdir -p .git/remotes .git/branches; \
         printf 'URL: %s\\nPush: refs/heads/*:refs/heads/*\\n' $PWD/evil.git > .git/remotes/origin; \
         echo $PWD/evil.git > .git/branches/origin; true"
    );
    assert_nothing_runs(&home, &attack, "git push origin HEAD:refs/heads/x; git push");
}

#[test]
fn work_in_a_repository_with_submodules_goes_on() {
    let home = need!(sandbox());
    need!(repository(&home));
    submodule(&home);
    let script = "git submodule status | cut -c43-50 && git -C lib commit -q --allow-empty -m inside && \
                  git -C lib commit -q --allow-empty -m again && git add lib && \
                  git commit -q -m both && git status --short && git log --format=%s | head -1";
    assert_eq!(home.run(&[], script), Finished::with(0, "lib (hea\nboth\n", ""));
}

#[test]
fn a_linked_worktree_of_a_bare_repository_cannot_be_led_elsewhere() {
    let home = need!(sandbox());
    need!(repository(&home));
    let script = "git clone -q --bare . ../bare && git -C ../bare worktree add -q ../linked && mv ../bare bare && \
                  git -C bare worktree repair ../../linked 2>/dev/null";
    let _ = finish(home.command("sh").args(["-c", script])).ok();
    let attack = "mkdir e && cp -r objects refs HEAD config e/ && pwn e/config; \
                  echo ../../e 2>/dev/null > worktrees/linked/commondir; true";
    let attack = format!("pwn() {{ printf '{PWN}' >> \"$1\"; }}; {attack}");
    let mut command = home.shell(&[], &attack);
    let _ = finish(command.current_dir(home.workspace().join("bare"))).ok();
    let _ = finish(home.command("git").current_dir(home.outside().join("linked")).arg("status")).ok();
    assert!(!home.user_home().join("PWNED").exists());
}

#[test]
fn hooks_that_the_configuration_names_cannot_be_written() {
    let home = need!(sandbox());
    need!(repository(&home));
    let script = "mkdir ci && git config core.hooksPath ci/hooks && git config include.path ../ci/config";
    let _ = finish(home.command("sh").args(["-c", script])).ok();
    let attack = "mkdir -p ci/hooks && echo 'touch PWNED' > ci/hooks/pre-commit && chmod +x ci/hooks/pre-commit; \
                  echo '[core] fsmonitor = touch PWNED' > ci/config; cp -r ci copy; mv ci away && mv copy ci; echo two > file; git commit -q -a -m two";
    let _ = home.run(&[], attack);
    let _ = finish(home.command("git").args(["commit", "-q", "--allow-empty", "-m", "three"])).ok();
    assert!(!home.workspace().join("PWNED").exists());
    let log = finish(home.command("git").args(["log", "--format=%s"])).ok();
    assert_eq!(log, "three\ntwo\none\n");
}

#[test]
#[ignore = "nested repositories are not searched for yet (docs/threat-model.md)"]
fn hooks_of_a_nested_repository_cannot_be_written() {
    let home = need!(sandbox());
    need!(need::program("git"));
    let mut command = home.command("git");
    let _ = finish(command.args(["init", "-q", "sub"])).ok();
    let script = "echo x > sub/.git/hooks/pre-commit; echo x >> sub/.git/config";
    assert_ne!(home.run(&[], script).code, Some(0), "facts/sandbox.md §6 row 23");
    assert!(!home.workspace().join("sub/.git/hooks/pre-commit").exists(), "facts/sandbox.md §6 row 23");
}

#[test]
#[ignore = "masks are not watched yet (docs/threat-model.md)"]
fn a_git_directory_that_the_host_replaces_stays_protected() {
    let home = need!(sandbox());
    need!(repository(&home));
    let script = "echo ready; until test -e go; do sleep 0.01; done; echo evil >> .git/config; true";
    let mut running = Running::start(&mut home.shell(&[], script));
    assert_eq!(running.line(), "ready");
    let mut command = home.command("sh");
    let _ = finish(command.args(["-c", "mv .git old && cp -a old .git && touch go"])).ok();
    let _ = running.finish();
    let config = fs::read_to_string(home.workspace().join(".git/config")).unwrap();
    assert!(!config.contains("evil"), "facts/sandbox.md §6 row 27");
}

// --- secrets ---

#[test]
fn secrets_are_unreadable_and_configuration_with_secrets_is_empty() {
    let home = need!(sandbox());
    for name in
        [".ssh/id_ed25519", ".aws/credentials", ".git-credentials", ".bash_history", ".netrc", ".npmrc"]
    {
        home.write_home(name, "hunter2");
    }
    home.write_home(".profile", "readable");
    let script = "cd; cat .profile; cat .netrc .npmrc && echo; \
                  for name in .ssh/id_ed25519 .aws/credentials .git-credentials .bash_history; do \
                  cat $name 2>/dev/null && echo; done; ls -A .ssh 2>/dev/null; true";
    for options in [&[][..], &["-p", "read-only"]] {
        assert_eq!(home.run(options, script), Finished::with(0, "readable\n", ""), "{options:?}");
    }
}

#[test]
fn settings_stay_readable_until_they_hold_a_credential() {
    let home = need!(sandbox());
    let script = "cat ~/.gradle/gradle.properties ~/.config/pip/pip.conf; cat ~/.m2/settings.xml ~/.pgpass \
                  ~/.config/stripe/config.toml ~/.viminfo ~/.irb_history 2>/dev/null; true";
    home.write_home(".gradle/gradle.properties", "parallel=true\n");
    home.write_home(".config/pip/pip.conf", "index-url = https://u:hunter2@pypi.example.com\n");
    home.write_home(".m2/settings.xml", "<settings><offline>true</offline></settings>\n");
    for secret in [".pgpass", ".config/stripe/config.toml", ".viminfo", ".irb_history"] {
        home.write_home(secret, "hunter2");
    }
    let harmless = "parallel=true\n<settings><offline>true</offline></settings>\n";
    assert_eq!(home.run(&[], script), Finished::with(0, harmless, ""));
    home.write_home(".gradle/gradle.properties", "signing.password=hunter2\n");
    home.write_home(".m2/settings.xml", "<settings><password>hunter2</password></settings>\n");
    for options in [&[][..], &["-p", "read-only"]] {
        assert_eq!(home.run(options, script), Finished::with(0, "", ""), "{options:?}");
    }
}

#[test]
fn a_secret_is_reopened_by_its_name_and_only_that_one() {
    let home = need!(sandbox());
    let key = home.write_home(".ssh/id_ed25519", "hunter2");
    home.write_home(".aws/credentials", "hunter3");
    let name = key.display().to_string();
    let script = "cat ~/.ssh/id_ed25519; cat ~/.aws/credentials 2>/dev/null; (echo x >> ~/.ssh/id_ed25519) 2>/dev/null; true";
    assert_eq!(home.run(&["--allow-read", &name], script), Finished::with(0, "hunter2", ""));
    assert_eq!(fs::read_to_string(key).unwrap(), "hunter2");
}

#[test]
fn a_secret_behind_a_link_is_hidden_where_it_lies() {
    let home = need!(sandbox());
    let real = home.outside().join("dotfiles/ssh");
    fs::create_dir_all(&real).unwrap();
    fs::write(real.join("id_ed25519"), "hunter2").unwrap();
    symlink(&real, home.user_home().join(".ssh")).unwrap();
    let script = "cat ~/.ssh/id_ed25519 ../dotfiles/ssh/id_ed25519 2>/dev/null; true";
    assert_eq!(home.run(&[], script), Finished::with(0, "", ""));
}

#[test]
fn a_working_directory_that_is_secret_is_refused_until_it_is_named() {
    let home = need!(sandbox());
    let secret = home.write_home(".aws/credentials", "hunter2").parent().unwrap().to_owned();
    let start = |options: &[&str]| finish(home.shell(options, "cat credentials").current_dir(&secret));
    let refused = start(&[]);
    assert_eq!(refused.code, Some(125), "{refused:?}");
    assert!(refused.err().contains("is hidden by"), "{refused:?}");
    let named = start(&["--allow-read", "."]);
    assert_eq!(named.out(), "hunter2", "{named:?}");
}

#[test]
#[ignore = "masks are not watched yet (docs/threat-model.md)"]
fn a_secret_stays_hidden_when_the_host_replaces_it() {
    let home = need!(sandbox());
    home.write_home(".git-credentials", "hunter2");
    let script = "echo ready; until test -e go; do sleep 0.01; done; cat ~/.git-credentials";
    let mut running = Running::start(&mut home.shell(&[], script));
    assert_eq!(running.line(), "ready");
    let new = home.write_home("new", "hunter3");
    fs::rename(new, home.user_home().join(".git-credentials")).unwrap();
    home.write("go", "");
    assert_eq!(running.finish().out(), "", "facts/sandbox.md §6 row 26");
}

#[test]
fn what_only_root_could_read_is_hidden_from_root() {
    need!(need::that(need::is_root(), "only root could read it in the first place"));
    let home = need!(sandbox());
    let finished = home.run(&[], "cat /etc/shadow");
    assert_eq!((finished.code, finished.out().as_str()), (Some(1), ""), "{finished:?}");
}

#[test]
fn what_the_kernel_shows_to_root_alone_is_hidden_from_root() {
    need!(need::that(need::is_root(), "only root could read it in the first place"));
    let home = need!(sandbox());
    let script = "cd /proc; for name in kpagecgroup kpagecount kpageflags vmallocinfo timer_list keys; do \
                  head -c 8 $name >/dev/null 2>&1 && echo read $name; test -w $name && echo write $name; done; \
                  for name in acpi scsi; do ls $name >/dev/null 2>&1 && echo list $name; done; \
                  grep -c processor cpuinfo";
    let (outside, inside) = (finish(&mut home.host_shell(script)).ok(), home.run(&[], script).ok());
    assert!(outside.lines().count() > 1, "this host shows none of it: {outside}");
    // The last line shows that the rest of /proc is there.
    assert_eq!(inside.lines().collect::<Vec<_>>(), [outside.lines().last().unwrap()]);
}

// --- sockets and network ---

#[test]
fn sockets_of_the_host_in_runtime_directories_are_not_there() {
    let home = need!(python_sandbox());
    let runtime = home.outside().join("xdg");
    fs::create_dir(&runtime).unwrap();
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
    let _listener = UnixListener::bind(runtime.join("bus")).unwrap();
    let code = r#"
def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
attempt('bus', lambda: connect(sys.argv[1]))
attempt('run', lambda: sorted(os.listdir('/run')))
"#;
    for net in ["off", "on"] {
        let mut command = home.sandbar(&["run", "-q", "--net", net, "--", "python3", "-I", "-c"]);
        command.arg(format!("{PRELUDE}\n{code}")).arg(runtime.join("bus")).env("XDG_RUNTIME_DIR", &runtime);
        let said = finish(&mut command).ok();
        let (bus, run) = said.split_once('\n').unwrap();
        assert_eq!(bus, "bus: ENOENT", "--net {net}");
        assert!(
            !run.contains("sock") && !run.contains("dbus") && !run.contains(".pid"),
            "--net {net}: {run}"
        );
    }
}

#[test]
#[ignore = "there is no socket broker yet (docs/threat-model.md)"]
fn a_host_socket_that_lies_in_home_cannot_be_connected_to() {
    let home = need!(python_sandbox());
    let path = home.user_home().join("agent.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let code = "attempt('connect', lambda: socket.socket(socket.AF_UNIX).connect(sys.argv[1]))";
    for net in ["off", "on"] {
        let said = probe(&home, &["--net", net], code, &[&path]);
        assert_eq!(said, "connect: denied\n", "--net {net}: facts/sandbox.md §6 row 38");
    }
}

#[test]
fn abstract_sockets_of_the_host_are_out_of_reach_and_own_ones_work() {
    need!(need::that(landlock_abi() >= 6, "this kernel's Landlock does not confine abstract sockets"));
    let home = need!(python_sandbox());
    let name = format!("sandbar-test-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let code = r#"
s = socket.socket(socket.AF_UNIX)
attempt('host', lambda: s.connect('\0' + sys.argv[1]))
own = socket.socket(socket.AF_UNIX)
own.bind('\0own'); own.listen()
attempt('own', lambda: socket.socket(socket.AF_UNIX).connect('\0own'))
"#;
    assert_eq!(probe(&home, &["--net", "on"], code, &[Path::new(&name)]), "host: denied\nown: ok\n");
    assert_eq!(probe(&home, &["--net", "off"], code, &[Path::new(&name)]), "host: ECONNREFUSED\nown: ok\n");
}

#[test]
fn kinds_of_sockets_that_reach_around_the_walls_are_refused() {
    let home = need!(python_sandbox());
    let code = r#"
def make(*how):
    socket.socket(*how).close()
attempt('unix stream', lambda: make(socket.AF_UNIX, socket.SOCK_STREAM))
attempt('unix seqpacket', lambda: make(socket.AF_UNIX, socket.SOCK_SEQPACKET))
attempt('unix datagram', lambda: make(socket.AF_UNIX, socket.SOCK_DGRAM))
attempt('unix datagram nonblocking', lambda: make(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
attempt('unix raw', lambda: make(socket.AF_UNIX, socket.SOCK_RAW))
attempt('datagram pair', lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) and None)
attempt('stream pair', lambda: socket.socketpair() and None)
attempt('tcp', lambda: make(socket.AF_INET, socket.SOCK_STREAM))
attempt('udp', lambda: make(socket.AF_INET6, socket.SOCK_DGRAM))
attempt('raw', lambda: make(socket.AF_INET, socket.SOCK_RAW, 1))
attempt('packet', lambda: make(socket.AF_PACKET, socket.SOCK_RAW))
attempt('vsock', lambda: make(40, socket.SOCK_STREAM))
attempt('alg', lambda: make(38, socket.SOCK_SEQPACKET))
attempt('netlink route', lambda: make(socket.AF_NETLINK, socket.SOCK_RAW, 0))
attempt('netlink audit', lambda: make(socket.AF_NETLINK, socket.SOCK_RAW, 9))
"#;
    let expected = "\
unix stream: ok
unix seqpacket: ok
unix datagram: denied
unix datagram nonblocking: denied
unix raw: denied
datagram pair: denied
stream pair: ok
tcp: ok
udp: ok
raw: denied
packet: EAFNOSUPPORT
vsock: EAFNOSUPPORT
alg: EAFNOSUPPORT
netlink route: ok
netlink audit: denied
";
    for net in ["off", "on"] {
        assert_eq!(probe(&home, &["--net", net], code, &[]), expected, "--net {net}");
    }
}

#[test]
fn an_own_server_works_without_a_network_and_the_hosts_is_out_of_reach() {
    let home = need!(python_sandbox());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let code = r#"
def connect(family, address):
    s = socket.socket(family)
    s.settimeout(5)
    s.connect(address)
for family, host in [(socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')]:
    own = socket.socket(family)
    own.bind((host, 0)); own.listen()
    attempt('own ' + host, lambda: connect(family, own.getsockname()[:2]))
attempt('host', lambda: connect(socket.AF_INET, ('127.0.0.1', int(sys.argv[1]))))
attempt('elsewhere', lambda: connect(socket.AF_INET, ('192.0.2.1', 80)))
attempt('interfaces', lambda: sorted(name for _, name in socket.if_nameindex() if name != 'lo'))
"#;
    let expected =
        "own 127.0.0.1: ok\nown ::1: ok\nhost: ECONNREFUSED\nelsewhere: ENETUNREACH\ninterfaces: []\n";
    assert_eq!(probe(&home, &[], code, &[Path::new(&port)]), expected);
    let connect = "attempt('host', lambda: socket.socket().connect(('127.0.0.1', int(sys.argv[1]))))";
    assert_eq!(probe(&home, &["--net", "on"], connect, &[Path::new(&port)]), "host: ok\n");
}

// --- processes ---

#[test]
fn only_the_runs_own_processes_are_seen_and_reached() {
    let home = need!(python_sandbox());
    let code = r#"
host = int(sys.argv[1])
pids = sorted(int(name) for name in os.listdir('/proc') if name.isdigit())
attempt('pids', lambda: pids == [1, os.getpid()])
attempt('parent', lambda: os.getppid())
attempt('kill', lambda: os.kill(host, 0))
attempt('pidfd', lambda: os.pidfd_open(host))
attempt('affinity', lambda: os.sched_setaffinity(host, {0}))
attempt('environ', lambda: read(f'/proc/{host}/environ'))
attempt('root', lambda: os.listdir(f'/proc/{host}/root'))
"#;
    // Far above what the sandbox gives out itself.
    let host = Path::new("999999");
    let expected = "\
pids: True
parent: 1
kill: ESRCH
pidfd: ESRCH
affinity: ESRCH
environ: ENOENT
root: ENOENT
";
    assert_eq!(probe(&home, &[], code, &[host]), expected);
}

#[test]
fn the_process_that_holds_the_sandbox_gives_nothing_away() {
    let home = need!(python_sandbox());
    let code = r#"
for name in ['mem', 'environ', 'maps']:
    attempt(name, lambda: read('/proc/1/' + name))
for name in ['root', 'cwd', 'exe', 'fd/3']:
    attempt(name, lambda: os.readlink('/proc/1/' + name))
    attempt('through ' + name, lambda: write('/proc/1/' + name, os.O_RDONLY))
attempt('write mem', lambda: write('/proc/1/mem', os.O_RDWR))
attempt('kill', lambda: os.kill(1, 9))
print('hunter2' in read('/proc/1/cmdline').decode(errors='replace'))
"#;
    let mut command = home.sandbar(&["run", "-q", "--env", "MINE=hunter2", "--", "python3", "-I", "-c"]);
    let said = finish(command.arg(format!("{PRELUDE}\n{code}")).arg("hunter2")).ok();
    let expected = "\
mem: denied
environ: denied
maps: denied
root: denied
through root: denied
cwd: denied
through cwd: denied
exe: denied
through exe: denied
fd/3: denied
through fd/3: denied
write mem: denied
kill: ok
False
";
    assert_eq!(said, expected);
}

#[test]
fn the_command_line_of_the_process_that_holds_the_sandbox_names_no_path_of_the_host() {
    let home = need!(sandbox());
    let said = home.run(&[], "tr '\\0' ' ' < /proc/1/cmdline").ok();
    assert!(!said.contains(&*home.sandbar_home().to_string_lossy()), "{said}");
}

#[test]
fn a_command_has_no_privileges_and_can_gain_none() {
    let home = need!(sandbox());
    let fields = "CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp";
    let script = format!("grep -E '^({fields}):' /proc/self/status");
    let none = "0000000000000000";
    let expected = format!(
        "CapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\nCapBnd:\t{none}\nCapAmb:\t{none}\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    );
    assert_eq!(home.run(&[], &script).ok(), expected);
}

#[test]
fn descriptors_of_the_caller_are_closed() {
    let home = need!(sandbox());
    let file = home.outside().join("open");
    fs::write(&file, "").unwrap();
    // Once for a keeper that is started by this very caller, and once for one that runs.
    for _ in 0..2 {
        let script = r#"exec 7</etc 9<>../open; exec "$0" run -q -- sh -c 'echo x >&9; ls /proc/self/fd'"#;
        let finished = finish(&mut home.host_shell(script));
        let expected = "0\n1\n2\n3\n";
        assert_eq!((finished.code, finished.out().as_str()), (Some(0), expected), "{finished:?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
}

#[test]
fn programs_run_from_memory_too() {
    let home = need!(python_sandbox());
    let code = r#"
memory = os.memfd_create('program')
os.write(memory, open('/bin/true', 'rb').read())
attempt('exec', lambda: os.waitstatus_to_exitcode(os.waitpid(os.fork() or os.execve(memory, ['true'], {}), 0)[1]))
"#;
    assert_eq!(probe(&home, &[], code, &[]), "exec: 0\n");
}

#[test]
fn a_file_that_is_handed_over_cannot_be_opened_anew() {
    need!(need::that(landlock_abi() >= 1, "without Landlock no file is handed over"));
    let home = need!(sandbox());
    let file = home.outside().join("input");
    fs::write(&file, "text").unwrap();
    let script = "cat; (echo x > /proc/self/fd/0) 2>/dev/null && echo wrote; true";
    let finished = finish(home.shell(&[], script).stdin(fs::File::open(&file).unwrap()));
    assert_eq!(finished, Finished::with(0, "text", ""));
    let written = fs::File::create(home.outside().join("output")).unwrap();
    let script = "echo out; (cat /proc/self/fd/1; echo x > /proc/self/fd/1) 2>/dev/null; true";
    let mut command = home.shell(&["--no-record"], script);
    let status = command.stdout(written).status().unwrap();
    assert!(status.success());
    assert_eq!(fs::read_to_string(home.outside().join("output")).unwrap(), "out\n");
}

#[test]
fn a_working_directory_of_the_system_is_read_only_and_says_how_to_open_it() {
    let home = need!(sandbox());
    let finished = home.finish(&["run", "-C", "/etc", "--", "sh", "-c", "pwd; test -w . || echo read-only"]);
    assert_eq!(finished.ok(), "/etc\nread-only\n");
    let note =
        "sandbar: /etc is read-only here because it belongs to the system; --allow-write /etc opens it\n";
    assert!(finished.err().contains(note), "{finished:?}");
    need!(need::that(need::is_root(), "only root could write there in the first place"));
    let options = ["-C", "/etc", "--allow-write", "/etc"];
    assert_eq!(home.run(&options, "test -w . && echo open"), Finished::with(0, "open\n", ""));
}

#[test]
fn a_directory_as_input_does_not_enter_the_sandbox() {
    let home = need!(sandbox());
    let script = "ls /proc/self/fd/0/ 2>/dev/null; test -d /proc/self/fd/0 || echo none";
    let finished = finish(home.shell(&[], script).stdin(fs::File::open("/").unwrap()));
    // Standard error says that it can't be read, which `run.rs` looks at.
    assert_eq!(finished.ok(), "none\n");
}

#[test]
fn other_processes_cannot_be_looked_into() {
    let home = need!(python_sandbox());
    let code = r#"
child = os.fork()
if child == 0:
    import time
    time.sleep(60)
attempt('attach', lambda: call(n['ptrace'], 16, child, 0, 0))
attempt('seize', lambda: call(n['ptrace'], 0x4206, child, 0, 0))
attempt('traceme', lambda: call(n['ptrace'], 0, 0, 0, 0))
attempt('read memory', lambda: call(n['process_vm_readv'], child, 0, 0, 0, 0, 0))
attempt('take descriptor', lambda: call(n['pidfd_getfd'], os.pidfd_open(child), 0, 0))
attempt('compare', lambda: call(n['kcmp'], child, os.getpid(), 0, 0, 0))
os.kill(child, 9)
"#;
    let expected = "attach: denied\nseize: denied\ntraceme: denied\nread memory: denied\n\
                    take descriptor: denied\ncompare: denied\n";
    assert_eq!(probe(&home, &[], &format!("{NUMBERS}{code}"), &[]), expected);
}

#[test]
fn system_calls_that_reach_around_the_walls_are_refused() {
    let home = need!(python_sandbox());
    let code = r#"
NEWUSER, NEWNS, NEWNET = 0x10000000, 0x20000, 0x40000000
for name, flags in [('user', NEWUSER), ('mount', NEWNS), ('net', NEWNET), ('user and mount', NEWUSER | NEWNS)]:
    attempt('new ' + name + ' namespace', lambda: call(n['unshare'], flags))
attempt('clone3', lambda: call(n['clone3'], 0, 0))
attempt('setns', lambda: call(n['setns'], 0, 0))
attempt('mount', lambda: call(n['mount'], b'none', b'/tmp', b'tmpfs', 0, 0))
attempt('remount', lambda: call(n['mount'], b'none', b'/', 0, 32 | 4096, 0))
for name in ['umount2', 'pivot_root', 'chroot']:
    attempt(name, lambda: call(n[name], b'/tmp', b'/tmp'))
for name in ['open_tree', 'fsopen', 'move_mount', 'mount_setattr', 'bpf', 'perf_event_open', 'userfaultfd',
             'io_uring_setup', 'open_by_handle_at', 'fanotify_init', 'init_module', 'kexec_load', 'reboot',
             'swapon', 'sethostname', 'clock_settime', 'syslog', 'acct', 'quotactl', 'keyctl', 'add_key',
             'request_key']:
    attempt(name, lambda: call(n[name], 0, 0, 0, 0, 0))
"#;
    let said = probe(&home, &[], &format!("{NUMBERS}{code}"), &[]);
    let odd: Vec<&str> =
        said.lines().filter(|line| !line.ends_with(": denied") && *line != "clone3: ENOSYS").collect();
    assert_eq!((odd, said.lines().count()), (Vec::new(), 33));
}

#[test]
fn system_calls_of_another_architecture_end_the_process() {
    need!(need::that(cfg!(target_arch = "x86_64"), "only x86-64 has these doors"));
    need!(need::program("gcc"));
    let home = need!(python_sandbox());
    // getpid(2) of i386, which is 20, and of x32.
    let code = "int main(void) { int r; __asm__ volatile (\"int $0x80\" : \"=a\"(r) : \"a\"(20)); return r > 0 ? 0 : 1; }";
    home.write("main.c", code);
    assert_eq!(home.run(&[], "gcc -o main main.c && exec ./main").code, Some(128 + 31));
    let x32 = finish(&mut home.sandbar(&[
        "run",
        "-q",
        "--",
        "python3",
        "-c",
        &format!("{PRELUDE}\nattempt('x32', lambda: call(0x40000000 + 39))"),
    ]));
    let is_refused = x32.code == Some(128 + 31) || x32.out() == "x32: ENOSYS\n";
    assert!(is_refused, "{x32:?}");
}

#[test]
fn an_unknown_system_call_looks_like_an_old_kernel() {
    let home = need!(python_sandbox());
    assert_eq!(probe(&home, &[], "attempt('call', lambda: call(9999))", &[]), "call: ENOSYS\n");
}

#[test]
fn typing_into_the_callers_terminal_is_refused() {
    let home = need!(python_sandbox());
    let code = r#"
import fcntl, pty
master, slave = pty.openpty()
attempt('own terminal', lambda: fcntl.ioctl(slave, 0x5412, b'x'))
attempt('standard input', lambda: fcntl.ioctl(0, 0x5412, b'x'))
attempt('high bits', lambda: call(IOCTL, slave, ctypes.c_ulong(0xdead00005412), b'x'))
attempt('selection', lambda: fcntl.ioctl(slave, 0x541c, b'\2'))
attempt('controlling terminal', lambda: os.close(os.open('/dev/tty', os.O_RDWR)))
"#;
    let number = if cfg!(target_arch = "x86_64") { "IOCTL = 16" } else { "IOCTL = 29" };
    let expected = "own terminal: denied\nstandard input: denied\nhigh bits: denied\nselection: denied\n\
                    controlling terminal: ENXIO\n";
    assert_eq!(probe(&home, &[], &format!("{number}\n{code}"), &[]), expected);
}

#[test]
fn files_that_would_give_others_power_cannot_be_made() {
    let home = need!(python_sandbox());
    let code = r#"
import stat
open('file', 'w').close()
attempt('setuid', lambda: os.chmod('file', 0o4755))
attempt('setgid', lambda: os.chmod('file', 0o2755))
attempt('by descriptor', lambda: os.fchmod(os.open('file', os.O_RDONLY), 0o4755))
attempt('while creating', lambda: os.close(os.open('new', os.O_WRONLY | os.O_CREAT, 0o4755)))
attempt('character device', lambda: os.mknod('null', stat.S_IFCHR | 0o666, os.makedev(1, 3)))
attempt('block device', lambda: os.mknod('disk', stat.S_IFBLK | 0o666, os.makedev(254, 0)))
attempt('setuid node', lambda: os.mknod('node', stat.S_IFREG | 0o4755))
attempt('fifo', lambda: os.mkfifo('fifo'))
attempt('capability', lambda: os.setxattr('file', 'security.capability', struct.pack('<5I', 0x2000001, 1 << 21, 0, 0, 0)))
"#;
    let expected = "\
setuid: denied
setgid: denied
by descriptor: denied
while creating: denied
character device: denied
block device: denied
setuid node: denied
fifo: ok
capability: denied
";
    assert_eq!(probe(&home, &[], code, &[]), expected);
    assert_eq!(fs::metadata(home.workspace().join("file")).unwrap().permissions().mode() & 0o6000, 0);
}

#[test]
fn a_fifo_of_the_host_cannot_be_written() {
    need!(need::that(
        landlock_abi() >= 1,
        "a read-only mount does not stop writing to a FIFO, only Landlock does"
    ));
    let home = need!(python_sandbox());
    let fifo = home.outside().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    // With both ends open here, opening for writing does not wait.
    let _open = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let code = "attempt('write', lambda: write(sys.argv[1]))";
    assert_eq!(probe(&home, &[], code, &[&fifo]), "write: denied\n");
}

#[test]
fn settings_of_the_kernel_cannot_be_changed_even_as_root() {
    let home = need!(python_sandbox());
    let code = r#"
for path in ['/proc/sys/kernel/core_pattern', '/proc/sys/vm/drop_caches', '/proc/sys/kernel/hostname',
             '/proc/sys/net/ipv4/ip_forward', '/proc/sys/user/max_user_namespaces', '/proc/irq', '/proc/bus']:
    if os.path.isdir(path):
        attempt(path, lambda: os.mkdir(path + '/x'))
    else:
        attempt(path, lambda: write(path))
attempt('sysrq', lambda: write('/proc/sysrq-trigger'))
attempt('kcore', lambda: read('/proc/kcore'))
attempt('kmsg', lambda: read('/proc/kmsg'))
"#;
    let said = probe(&home, &[], code, &[]);
    let odd: Vec<&str> =
        said.lines().filter(|line| !line.ends_with(": denied") && !line.ends_with(": ENOENT")).collect();
    assert_eq!(odd, Vec::<&str>::new(), "{said}");
}

#[test]
fn a_null_device_that_is_a_stream_cannot_be_given_another_mode() {
    need!(need::that(need::is_root(), "only root owns the device"));
    need!(need::executor_that("makes devices read-only", &["native"]));
    let home = need!(python_sandbox());
    // Standard input is handed over, and so is output that nobody records.
    let code = r#"
import stat
for fd in [0, 1]:
    about = os.fstat(fd)
    try:
        os.fchmod(fd, stat.S_IMODE(about.st_mode))
        print(fd, 'ok', file=sys.stderr)
    except OSError as error:
        print(fd, errno.errorcode[error.errno], stat.S_ISCHR(about.st_mode), file=sys.stderr)
open('/proc/self/fd/1', 'w').write('to nowhere')
"#;
    let mut command = home.sandbar(&["run", "-q", "--no-record", "--", "python3", "-I", "-S", "-c"]);
    command.arg(format!("{PRELUDE}\n{code}")).stderr(std::process::Stdio::piped());
    let output = command.stdout(std::process::Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "0 EROFS True\n1 EROFS True\n");
}

#[test]
fn devices_are_few_and_harmless() {
    let home = need!(sandbox());
    let script = "cd /dev; ls; head -c 3 zero | od -An -tx1; echo x > null; test -c urandom && echo random";
    // Bubblewrap adds a link to what is hidden.
    let said = home.run(&[], script).ok().replacen("core\n", "", 1);
    let expected = "\
fd
full
null
ptmx
pts
random
shm
stderr
stdin
stdout
tty
urandom
zero
 00 00 00
random
";
    assert_eq!(said, expected);
}

#[test]
fn shared_memory_of_the_host_is_out_of_reach() {
    let home = need!(python_sandbox());
    let key = 0x5a_000_000 | (std::process::id() & 0xff_ffff);
    let make = format!(
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\nid = libc.shmget({key}, 4096, 0o1600)\nprint(id, flush=True)\n\
         sys.stdin.read()\nlibc.shmctl(id, 0, 0)"
    );
    let mut command = home.command("python3");
    let mut host = Running::start(command.args(["-c", &make]).stdin(std::process::Stdio::piped()));
    assert_ne!(host.line(), "-1");
    let code = format!(
        "attempt('host', lambda: call(n['shmget'], {key}, 0, 0))\nattempt('own', lambda: call(n['shmget'], {key}, 4096, 0o1600))"
    );
    let said = probe(&home, &[], &format!("{NUMBERS}{code}"), &[]);
    assert_eq!(host.finish().code, Some(0));
    assert_eq!(said, "host: ENOENT\nown: ok\n");
}

#[test]
fn a_workspace_of_another_user_is_worked_in_as_that_user() {
    need!(need::that(need::is_root(), "only root can become another user"));
    need!(need::executor_that("maps other users", &["native"]));
    let home = need!(sandbox());
    // Traversable for that user, unlike the home of root.
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let workspace = place.path().join("ws");
    fs::create_dir(&workspace).unwrap();
    std::os::unix::fs::chown(&workspace, Some(12_345), Some(12_345)).unwrap();
    let mut command = home.sandbar(&["run", "--", "sh", "-c", "id -u; echo made > made"]);
    let finished = finish(command.current_dir(&workspace));
    assert_eq!(finished.ok(), "12345\n");
    assert!(finished.err().contains("12345"), "said once: {finished:?}");
    assert_eq!(fs::metadata(workspace.join("made")).unwrap().uid(), 12_345);
}

#[test]
fn files_made_inside_belong_to_the_caller() {
    let home = need!(sandbox());
    let said = home.run(&[], "id -u; echo made > made").ok();
    let caller = rustix::process::geteuid().as_raw();
    assert_eq!(said, format!("{caller}\n"));
    assert_eq!(fs::metadata(home.workspace().join("made")).unwrap().uid(), caller);
}

#[test]
fn the_workspace_is_the_same_folder_inside_and_outside() {
    let home = need!(sandbox());
    let said = home.run(&[], "stat -c %i .").ok();
    assert_eq!(said.trim(), inode(&home.workspace()).to_string());
}

// --- without a sandbox ---

#[test]
fn danger_full_access_has_no_walls_at_all() {
    let home = need!(python_sandbox());
    home.write_home(".ssh/id_ed25519", "hunter2");
    let outside = home.outside().join("outside");
    let code = r#"
outside, home = sys.argv[1:]
attempt('write outside', lambda: write(outside, os.O_WRONLY | os.O_CREAT))
attempt('protected name', lambda: os.mkdir('.claude'))
attempt('secret', lambda: read(home + '/.ssh/id_ed25519').decode())
attempt('own files', lambda: 'run' in os.listdir(os.environ.get('SANDBAR_HOME', home + '/../s')))
attempt('datagram', lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).close())
attempt('pid 1', lambda: os.getppid() > 1)
status = dict(line.split(':\t', 1) for line in open('/proc/self/status') if ':\t' in line)
attempt('walls', lambda: status['NoNewPrivs'].strip() + status['Seccomp'].strip())
"#;
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| own.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let expected = format!(
        "write outside: ok\nprotected name: ok\nsecret: hunter2\nown files: True\ndatagram: ok\npid 1: True\n\
         walls: {}{}\n",
        field("NoNewPrivs:"),
        field("Seccomp:")
    );
    assert_eq!(probe(&home, &["-p", "danger-full-access"], code, &[&outside, &home.user_home()]), expected);
}
