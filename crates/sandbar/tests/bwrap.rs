//! Sandboxes that bubblewrap makes: which one is taken, and that what it makes is not believed but looked at.
//!
//! That a command in them can do what it should and nothing else is asked by the suites `sandbox`, `terminal` and
//! `programs`, which `cargo xtask test` runs again with this executor.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sandbar_testkit::need::Need;
use sandbar_testkit::{DEADLINE, Finished, Home, PATH, eventually, finish, need, processes};
use tempfile::TempDir;

fn bwrap() -> Need<Home> {
    need::program("bwrap")?;
    need::user_namespaces()?;
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

/// A program that stands in for bubblewrap, where only root could have put it.
struct StandIn(TempDir);

impl StandIn {
    /// Compiles `main`, which sees `argc`, `argv` and `envp`.
    fn new(main: &str) -> Need<Self> {
        need::that(need::is_root(), "only root can put a program where it is trusted")?;
        need::program("cc")?;
        let folder = tempfile::tempdir_in("/root").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let source = folder.path().join("bwrap.c");
        let code = format!(
            "#include <stdio.h>\n#include <unistd.h>\nint main(int argc, char **argv, char **envp) {{ {main} }}\n"
        );
        fs::write(&source, code).unwrap();
        let mut compiler = std::process::Command::new("cc");
        let _ = finish(compiler.arg("-o").arg(folder.path().join("bwrap")).arg(source)).ok();
        Ok(Self(folder))
    }

    fn run(&self, home: &Home, script: &str) -> Finished {
        run_on(home, &[self.0.path()], script)
    }
}

/// Runs a script by bubblewrap, with these directories in front of the usual ones.
fn run_on(home: &Home, directories: &[&Path], script: &str) -> Finished {
    let front: String = directories.iter().map(|directory| format!("{}:", directory.display())).collect();
    let mut command = home.sandbar(&["run", "--quiet"]);
    if std::env::var_os("SANDBAR_TEST_EXECUTOR").is_none() {
        command.args(["--sandbox", "bwrap"]);
    }
    finish(command.args(["--", "sh", "-c", script]).env("PATH", format!("{front}{PATH}")))
}

#[test]
fn the_command_has_its_output_and_its_exit_status_to_itself() {
    let home = need!(bwrap());
    let finished = run_on(&home, &[], "echo out; echo err >&2; exit 7");
    assert_eq!(finished, Finished::with(7, "out\n", "err\n"));
    let killed = run_on(&home, &[], "kill -9 $$");
    assert_eq!(killed.code, Some(137));
}

#[test]
fn whatever_the_command_leaves_behind_ends_with_it() {
    let home = need!(bwrap());
    let sleep = processes::unique_sleep();
    let script = format!("setsid sleep {sleep} & setsid sh -c 'setsid sleep {sleep} &' & echo started");
    assert_eq!(run_on(&home, &[], &script).ok(), "started\n");
    eventually(DEADLINE, "that nothing of it is left", || {
        processes::with_argument(&sleep).is_empty().then_some(())
    });
}

#[test]
fn a_bubblewrap_that_anybody_could_have_planted_is_passed_over() {
    let home = need!(bwrap());
    let planted = home.workspace().join("bwrap");
    fs::write(&planted, "#!/bin/sh\ntouch ../taken\n").unwrap();
    fs::set_permissions(&planted, fs::Permissions::from_mode(0o755)).unwrap();
    let workspace = home.workspace();
    assert_eq!(run_on(&home, &[&workspace], "echo ran").ok(), "ran\n");
    assert!(!home.outside().join("taken").exists());
}

#[test]
fn what_bubblewrap_says_about_its_failure_is_passed_on() {
    let home = need!(bwrap());
    let broken = need!(StandIn::new(r#"fputs("bwrap: no such luck\\n", stderr); return 3;"#));
    let finished = broken.run(&home, "echo never");
    assert_eq!((finished.code, finished.out()), (Some(125), String::new()));
    assert!(finished.err().contains("bubblewrap made no sandbox: bwrap: no such luck"), "{}", finished.err());
}

#[test]
fn a_bubblewrap_that_makes_no_sandbox_at_all_is_found_out() {
    let home = need!(bwrap());
    // What stands behind `--` is what it should execute inside.
    let liar = need!(StandIn::new("execve(argv[argc - 2], argv + argc - 2, envp); return 9;"));
    let finished = liar.run(&home, "echo ran; touch made");
    assert_eq!((finished.code, finished.out()), (Some(125), String::new()), "{}", finished.err());
    assert!(!home.workspace().join("made").exists());
}

#[test]
fn a_bubblewrap_that_leaves_everything_writable_is_found_out() {
    let home = need!(bwrap());
    let real = need!(need::program("bwrap"));
    let liar = need!(StandIn::new(&format!(
        r#"char *new[] = {{"bwrap", "--args", "4", "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--",
            argv[argc - 2], argv[argc - 1], 0}}; execve("{}", new, envp); return 9;"#,
        real.display()
    )));
    let finished = liar.run(&home, "echo ran; touch made");
    assert_eq!((finished.code, finished.out()), (Some(125), String::new()), "{}", finished.err());
    assert!(finished.err().contains("read-only"), "{}", finished.err());
}
