//! Sandboxes of Landlock and seccomp alone: what they hold without any namespace, what has to be given up for them, and
//! that real programs work in them.
//!
//! What no attempt to escape comes to is asked by the suite `escape`, and whether random trees are what the permissions
//! say by `views`, which `cargo xtask test` runs again with this executor.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use sandbar_testkit::need::Need;
use sandbar_testkit::processes::{self, Process};
use sandbar_testkit::{DEADLINE, Finished, Home, Running, Terminal, eventually, finish, need};

const GIVE_UP: [&str; 2] = ["--give-up", "protected-names"];

fn landlock(programs: &[&str]) -> Need<Home> {
    need::that(sandbar_sandbox::facts::landlock_abi() >= 6, "Landlock holds alone from ABI 6 on")?;
    for program in programs {
        need::program(program)?;
    }
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

fn command(home: &Home, options: &[&str], command: &[&str]) -> Command {
    let mut run = home.command(home.program());
    run.args(["run", "--quiet", "--sandbox", "landlock"]).args(options).arg("--").args(command);
    run
}

/// What a script prints in a writable workspace, where that it gives something up is said.
fn written(home: &Home, script: &str) -> (Option<i32>, String, String) {
    let finished = finish(&mut command(home, &GIVE_UP, &["sh", "-c", script]));
    let err = finished.err();
    let (said, rest) = err.split_once('\n').unwrap_or_default();
    assert!(said.contains("protected-names given up"), "{err}");
    (finished.code, finished.out(), rest.to_owned())
}

fn read_only(home: &Home, script: &str) -> Finished {
    finish(&mut command(home, &["-p", "read-only"], &["sh", "-c", script]))
}

fn all_right(out: &str) -> (Option<i32>, String, String) {
    (Some(0), out.to_owned(), String::new())
}

/// The temporary directories of runs that there are.
fn temporaries(home: &Home) -> Vec<PathBuf> {
    let store = home.sandbar_home().join("cache/temporary");
    fs::read_dir(store)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default()
}

// --- what is refused, and what is given up ---

#[test]
fn a_writable_workspace_is_refused_until_its_protection_is_given_up_by_name() {
    let home = need!(landlock(&[]));
    let refused = finish(&mut command(&home, &[], &["true"]));
    assert_eq!((refused.code, refused.out()), (Some(125), String::new()));
    let said = refused.err();
    for part in
        ["landlock alone cannot keep", "/.agents missing below", "--give-up protected-names", "-p read-only"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(written(&home, "echo hi > made && cat made"), all_right("hi\n"));
}

#[test]
fn giving_up_says_which_names_and_only_then() {
    let home = need!(landlock(&["git"]));
    let _ = finish(home.command("git").args(["init", "-q"])).ok();
    let finished = finish(&mut command(&home, &GIVE_UP, &["true"]));
    for name in [".git/config", ".git/hooks", ".claude", ".sandbar"] {
        assert!(finished.err().contains(name), "{name}: {}", finished.err());
    }
    let mut native = home.command(home.program());
    let native = native.args(["run", "--quiet"]).args(GIVE_UP).args(["--", "true"]);
    need!(need::user_namespaces());
    assert_eq!(finish(native), Finished::with(0, "", ""));
}

#[test]
fn a_step_that_fails_is_told_apart_from_the_command() {
    let home = need!(landlock(&[]));
    let finished = finish(&mut command(&home, &["-p", "read-only"], &["no-such-program"]));
    assert_eq!((finished.code, finished.out()), (Some(127), String::new()));
    let seven =
        finish(&mut command(&home, &["-p", "read-only"], &["sh", "-c", "echo out; echo err >&2; exit 7"]));
    assert_eq!(seven, Finished::with(7, "out\n", "err\n"));
    let store = home.sandbar_home().join("cache/temporary");
    fs::remove_dir_all(&store).unwrap();
    fs::write(&store, "").unwrap();
    let finished = finish(&mut command(&home, &["-p", "read-only"], &["echo", "never"]));
    assert_eq!((finished.code, finished.out()), (Some(125), String::new()), "{}", finished.err());
}

#[test]
fn where_nobody_makes_namespaces_it_is_chosen_for_what_it_can_hold() {
    let home = need!(landlock(&["unshare"]));
    need!(need::user_namespaces());
    // In a user namespace whose owner forbids further ones.
    let among = |script: &str| {
        let forbid = "echo 0 > /proc/sys/user/max_user_namespaces";
        let script = format!("{forbid}; {script}; status=$?; \"$0\" keeper stop >&2; exit $status");
        let mut command = home.command("unshare");
        finish(command.args(["-Ur", "sh", "-c", &script]).arg(home.program()))
    };
    let read_only = among("\"$0\" run -p read-only echo ran");
    assert_eq!((read_only.code, read_only.out().as_str()), (Some(0), "ran\n"), "{}", read_only.err());
    assert!(read_only.err().contains("Landlock holds this run alone"), "{}", read_only.err());
    let refused = among("\"$0\" run echo ran");
    assert_eq!((refused.code, refused.out()), (Some(125), String::new()));
    for part in ["cannot make its namespaces", "landlock alone cannot keep", "--give-up protected-names"] {
        assert!(refused.err().contains(part), "{part}: {}", refused.err());
    }
    let given_up = among("\"$0\" run --quiet --give-up protected-names -- sh -c 'echo x > made && echo ran'");
    assert_eq!((given_up.code, given_up.out().as_str()), (Some(0), "ran\n"), "{}", given_up.err());
    assert!(given_up.err().contains("protected-names given up"), "{}", given_up.err());
}

// --- what it holds ---

#[test]
fn secrets_are_hidden_and_what_lies_beside_them_is_not() {
    let home = need!(landlock(&[]));
    let user = home.user_home();
    fs::create_dir_all(user.join(".ssh")).unwrap();
    fs::write(user.join(".ssh/id"), "secret").unwrap();
    fs::write(user.join("notes"), "notes\n").unwrap();
    let script = "cat ~/notes; cat ~/.ssh/id; ls ~/.ssh; ls ~; cat ~/../*/.ssh/id; echo end";
    let finished = read_only(&home, script);
    assert_eq!(finished.out(), "notes\nend\n", "{}", finished.err());
    assert_eq!(finished.err().lines().count(), 4, "{}", finished.err());
}

#[test]
fn modes_and_times_change_below_writable_places_and_nowhere_else() {
    let home = need!(landlock(&["python3"]));
    let outside = home.outside().join("file");
    fs::write(&outside, "").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&outside, home.workspace().join("link")).unwrap();
    std::os::unix::fs::symlink(home.outside(), home.workspace().join("folder")).unwrap();
    let before = outside.metadata().unwrap();
    let code = r#"
import os, sys
outside = sys.argv[1]
def attempt(label, act):
    try:
        act()
        print(label, 'ok')
    except OSError as error:
        print(label, error.errno)
open('own', 'w').close()
os.mkdir('sub')
own = os.open('own', os.O_RDONLY)
there = os.open(outside, os.O_RDONLY)
above = os.open('..', os.O_PATH | os.O_DIRECTORY)
here = os.open('.', os.O_RDONLY | os.O_DIRECTORY)
for label, path in (('own', 'own'), ('link', 'link'), ('outside', outside), ('folder', 'folder/file')):
    attempt(label + ' chmod', lambda: os.chmod(path, 0o640))
    attempt(label + ' utime', lambda: os.utime(path, (1, 2)))
    attempt(label + ' chown', lambda: os.chown(path, -1, -1))
for label, file in (('own', own), ('outside', there)):
    attempt(label + ' fchmod', lambda: os.fchmod(file, 0o604))
    attempt(label + ' futime', lambda: os.utime(file, (3, 4)))
    attempt(label + ' by /proc', lambda: os.chmod('/proc/self/fd/%d' % file, 0o604))
attempt('beside', lambda: os.chmod('own', 0o600, dir_fd=here))
attempt('above', lambda: os.chmod('file', 0o644, dir_fd=above))
attempt('through', lambda: os.chmod('sub/../../' + os.path.basename(os.path.dirname(outside)) + '/file', 0o644))
attempt('the link itself', lambda: os.utime('link', (5, 6), follow_symlinks=False))
attempt('set-user-id', lambda: os.chmod('own', 0o4755))
attempt('missing', lambda: os.chmod('missing', 0o644))
attempt('empty', lambda: os.chmod('', 0o644))
attempt('long', lambda: os.chmod('x' * 5000, 0o644))
print(oct(os.stat('own').st_mode), os.stat('own').st_mtime)
print(int(os.lstat('link').st_mtime))
"#;
    let mut run = command(&home, &GIVE_UP, &["python3", "-I", "-S", "-c", code]);
    let finished = finish(run.arg(&outside));
    let expected = "own chmod ok\nown utime ok\nown chown ok\n\
        link chmod 1\nlink utime 1\nlink chown 1\n\
        outside chmod 1\noutside utime 1\noutside chown 1\n\
        folder chmod 1\nfolder utime 1\nfolder chown 1\n\
        own fchmod ok\nown futime ok\nown by /proc ok\n\
        outside fchmod 1\noutside futime 1\noutside by /proc 1\n\
        beside ok\nabove 1\nthrough 1\nthe link itself ok\nset-user-id 1\nmissing 2\nempty 2\nlong 36\n\
        0o100600 4.0\n6\n";
    let out = finished.out();
    let out = out.replace("above 2", "above 1").replace("through 2", "through 1");
    assert_eq!(out, expected, "{}", finished.err());
    let after = outside.metadata().unwrap();
    assert_eq!(
        (after.mode(), after.mtime(), after.ctime_nsec()),
        (before.mode(), before.mtime(), before.ctime_nsec())
    );
}

#[test]
fn folders_are_watched_where_they_may_be_read_and_no_others() {
    let home = need!(landlock(&["python3"]));
    fs::create_dir_all(home.user_home().join(".ssh")).unwrap();
    let code = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def watch(path):
    watcher = libc.inotify_init1(0)
    added = libc.inotify_add_watch(watcher, path.encode(), 0x100)
    print(added if added > 0 else os.strerror(ctypes.get_errno()))
    return watcher
home = os.environ['HOME']
watch(home + '/.ssh')
watch('/etc')
print(libc.inotify_add_watch(0, b'.', 0x100))
own = watch(os.environ['TMPDIR'])
open(os.environ['TMPDIR'] + '/made', 'w').close()
print(b'made' in os.read(own, 4096))
"#;
    let mut run = command(&home, &["-p", "read-only"], &["python3", "-I", "-S", "-c", code]);
    let out = finish(&mut run).ok();
    let lines: Vec<&str> = out.lines().collect();
    // Whether /etc holds something hidden depends on the host.
    assert!(lines[1] == "1" || lines[1] == "Permission denied", "{out}");
    assert_eq!([lines[0], lines[2], lines[3], lines[4]], ["Permission denied", "-1", "1", "True"]);
}

#[test]
fn many_threads_and_processes_may_ask_at_once() {
    let home = need!(landlock(&[]));
    let script = "for i in $(seq 20); do (for j in $(seq 20); do f=f$i-$j; : > $f; chmod 640 $f; touch -d @9 $f; done) & \
                  done; wait; find . -name 'f*' -perm 640 ! -newermt @9 | wc -l";
    assert_eq!(written(&home, script), all_right("400\n"));
}

#[test]
fn a_signal_to_whoever_holds_it_is_refused_and_so_it_ends_with_its_tree() {
    let home = need!(landlock(&[]));
    let sleep = processes::unique_sleep();
    let script =
        format!("kill -9 $PPID; kill -STOP $PPID; kill -0 $PPID; (setsid sleep {sleep} &) ; echo on");
    let finished = read_only(&home, &script);
    assert_eq!(finished.out(), "on\n");
    assert_eq!(finished.err().matches("not permitted").count(), 3, "{}", finished.err());
    eventually(DEADLINE, "that nothing of it is left", || {
        processes::with_argument(&sleep).is_empty().then_some(())
    });
}

#[test]
fn whatever_it_left_behind_ends_with_it_and_nothing_of_the_host_does() {
    let home = need!(landlock(&[]));
    let (own, hosts) = (processes::unique_sleep(), processes::unique_sleep());
    let mut bystander = home.command("sleep").arg(&hosts).spawn().unwrap();
    let script = format!(
        "setsid sleep {own} & (setsid sh -c 'setsid sleep {own} & exec sleep {own}' &) ; echo started"
    );
    assert_eq!(read_only(&home, &script), Finished::with(0, "started\n", ""));
    eventually(DEADLINE, "that nothing of it is left", || {
        processes::with_argument(&own).is_empty().then_some(())
    });
    assert_eq!(processes::with_argument(&hosts).len(), 1, "the end of a tree ended a process of the host");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn there_is_no_socket_but_a_pair_and_with_a_network_there_is_the_internet() {
    let home = need!(landlock(&["python3"]));
    let code = "
import socket
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
    try:
        socket.socket(family, socket.SOCK_RAW if family == socket.AF_NETLINK else socket.SOCK_STREAM).close()
        print('yes', end=' ')
    except OSError:
        print('no', end=' ')
a, b = socket.socketpair()
a.send(b'pair')
print(b.recv(9).decode())
";
    let tried = |network| {
        let options = ["-p", "read-only", "--net", network];
        finish(&mut command(&home, &options, &["python3", "-I", "-S", "-c", code])).ok()
    };
    assert_eq!(tried("off"), "no no no no pair\n");
    assert_eq!(tried("on"), "no yes yes yes pair\n");
}

#[test]
fn the_run_of_another_is_not_seen_in_its_memory_and_environment() {
    let home = need!(landlock(&[]));
    let mut victim = home.command("sleep").arg("600").env("SECRET", "hunter2").spawn().unwrap();
    let pid = victim.id();
    let script = format!(
        "cat /proc/{pid}/environ; cat /proc/{pid}/maps; cat /proc/{pid}/fd/0; ls /proc/{pid}/root/; echo 0 > /proc/{pid}/oom_score_adj; echo end"
    );
    let finished = read_only(&home, &script);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(finished.out(), "end\n", "{}", finished.err());
    // Without the sandbox all of that is the caller's own.
    assert!(finished.err().lines().count() >= 5, "{}", finished.err());
}

// --- its temporary directory ---

#[test]
fn temporary_files_are_its_own_and_go_with_it() {
    let home = need!(landlock(&[]));
    let script = "cd $TMPDIR && touch a && mkdir -p d/e && chmod 0 d && stat -c %a . && (echo x > /tmp/x) 2>&1 | grep -c denied";
    let finished = read_only(&home, script);
    assert_eq!(finished.out(), "700\n1\n", "{}", finished.err());
    eventually(DEADLINE, "that the directory is removed", || temporaries(&home).is_empty().then_some(()));
}

#[test]
fn what_a_killed_run_left_is_reclaimed_by_the_next() {
    let home = need!(landlock(&[]));
    let sleep = processes::unique_sleep();
    let script = format!("touch $TMPDIR/left; exec sleep {sleep}");
    let running = Running::start(&mut command(&home, &["-p", "read-only"], &["sh", "-c", &script]));
    let is_sleep = |process: &Process| process.command_line().starts_with(b"sleep");
    let leader =
        eventually(DEADLINE, "that it runs", || processes::with_argument(&sleep).into_iter().find(is_sleep));
    assert_eq!(temporaries(&home).len(), 1);
    let holder = holder_of(&leader);
    holder.signal(Signal::KILL);
    leader.signal(Signal::KILL);
    let _ = running.finish();
    assert_eq!(temporaries(&home).len(), 1, "nobody was left to remove it");
    assert_eq!(read_only(&home, "echo next").ok(), "next\n");
    eventually(DEADLINE, "that both are removed", || temporaries(&home).is_empty().then_some(()));
}

/// The parent of the leader.
fn holder_of(leader: &Process) -> Process {
    let is_parent = |process: &Process| process.descendants().iter().any(|child| child.pid == leader.pid);
    let above: Vec<Process> = processes::all().into_iter().filter(is_parent).collect();
    let fewest = |process: &Process| process.descendants().len();
    above.into_iter().min_by_key(fewest).unwrap()
}

// --- real programs ---

#[test]
fn git_makes_a_repository_and_commits() {
    let home = need!(landlock(&["git"]));
    let script = "git init -q -b main . && git config user.name t && git config user.email t@example.org && \
                  mkdir -p a/b && echo one > a/b/c && git add . && git commit -q -m one && \
                  git checkout -q -b side && echo two > a/b/c && git commit -q -a -m two && \
                  git checkout -q main && git merge -q side && git log --format=%s && git status --short";
    assert_eq!(written(&home, script), all_right("two\none\n"));
    assert_eq!(finish(home.command("git").args(["fsck", "--strict"])).code, Some(0));
}

#[test]
fn make_and_a_compiler_build_a_program_that_runs() {
    let home = need!(landlock(&["make", "gcc"]));
    home.write("main.c", "#include <stdio.h>\nint main(void) { puts(\"compiled\"); return 0; }\n");
    home.write("Makefile", "main: main.c\n\tgcc -O2 -o $@ $<\nout/%:\n\tmkdir -p out; echo $* > $@\nall: main $(addprefix out/,$(shell seq 20))\n");
    assert_eq!(
        written(&home, "make -s -j 8 all && ./main && cat out/* | sort -n | tail -1"),
        all_right("compiled\n20\n")
    );
}

#[test]
fn cargo_builds_and_tests_a_package() {
    let home = need!(landlock(&["gcc"]));
    let cargo = need!(std::env::var_os("CARGO").map(PathBuf::from).ok_or("cargo did not start this test"));
    let tools = cargo.parent().unwrap();
    home.write(
        "Cargo.toml",
        "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
    );
    home.write("src/main.rs", "fn main() { println!(\"{}\", std::env::args().count()); }\n");
    home.write(
        "tests/it.rs",
        "#[test] fn it() { std::fs::write(std::env::temp_dir().join(\"x\"), \"y\").unwrap(); }\n",
    );
    let script = "cargo build -q --offline && target/debug/app one && cargo test -q --offline 2>&1 | grep -c 'ok. 1 passed'; \
                  cargo build --offline 2>&1 | grep -c Compiling";
    let mut run = command(&home, &GIVE_UP, &["sh", "-c", script]);
    run.env("PATH", format!("{}:{}", tools.display(), sandbar_testkit::PATH))
        .env("RUSTC", tools.join("rustc"));
    let finished = finish(&mut run);
    assert_eq!(finished.out(), "2\n1\n0\n", "{}", finished.err());
}

#[test]
fn python_runs_programs_threads_tests_and_virtual_environments() {
    let home = need!(landlock(&["python3"]));
    home.write(
        "test_it.py",
        "import unittest, tempfile, subprocess, sqlite3, threading\nclass T(unittest.TestCase):\n    def test_it(self):\n        \
         with tempfile.TemporaryDirectory() as folder: sqlite3.connect(folder + '/db').execute('create table t (x)')\n        \
         self.assertEqual(subprocess.check_output(['echo', 'x'], text=True), 'x\\n')\n        \
         t = threading.Thread(target=print); t.start(); t.join()\n",
    );
    let script = "python3 -m unittest -q 2>&1 | grep -c OK; python3 -m venv --without-pip v && v/bin/python -c 'print(6 * 7)'";
    assert_eq!(written(&home, script), all_right("1\n42\n"));
}

#[test]
fn archives_are_packed_and_unpacked_with_their_modes_and_times() {
    let home = need!(landlock(&["tar", "gzip"]));
    let script = "mkdir -p a/b && seq 1000 > a/b/c && ln -s b a/l && ln a/b/c a/d && chmod 750 a/b && \
                  touch -d 2001-02-03 a/d && tar czf a.tgz a && rm -r a && tar xzf a.tgz && cmp a/b/c a/d && \
                  readlink a/l && stat -c %a a/b && find a -newermt 2002-01-01 -type f | wc -l && cp -a a e && stat -c %a e/b";
    assert_eq!(written(&home, script), all_right("b\n750\n0\n750\n"));
}

#[test]
fn shells_have_pipelines_here_documents_and_process_substitution() {
    let home = need!(landlock(&["bash"]));
    let script = "set -e; cat <<E\nhere\nE\ndiff <(seq 3) <(seq 3) && echo same\nmkfifo f; (echo through > f &); cat f\n\
                  seq 100 | xargs -P 4 -n 10 echo | wc -l; trap 'echo trapped' USR1; kill -USR1 $$\n\
                  seq 300000 | sort -R --buffer-size=1M | sort -n | tail -1; timeout 5 true && nice -n 1 echo in time\n";
    home.write("script", script);
    assert_eq!(
        written(&home, "bash script"),
        all_right("here\nsame\nthrough\n10\ntrapped\n300000\nin time\n")
    );
}

#[test]
fn a_command_on_a_terminal_has_that_one_and_no_other() {
    let home = need!(landlock(&[]));
    let inside =
        "test -t 0 && test -t 1 && stty size && echo x > $(tty) && echo y > /dev/tty; ls /dev/pts; exit 3";
    let script = format!("\"$0\" run -q --sandbox landlock -p read-only -- sh -c '{inside}'; echo status $?");
    let mut terminal = Terminal::start(&home.host_shell(&script));
    terminal.expect("24 80\r\nx\r\ny\r\n");
    terminal.expect("denied");
    terminal.expect("status 3");
}
