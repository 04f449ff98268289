//! Every attempt of `escape-probe` in every kind of sandbox: what is expected comes of it, and nothing else.
//!
//! Attempts and expectations are that crate's; this suite starts its program as the command of `sandbar run`, below a
//! caller who has files, sockets, a key and a terminal, and compares.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use escape_probe::run::Told;
use escape_probe::{Attempt, Control, Executor, Expected, Setting, Verdict, attempts};
use sandbar_testkit::need::Need;
use sandbar_testkit::{Finished, Home, finish, need};

/// Names the program that makes the attempts, where it does not lie beside `sandbar`.
const PROGRAM: &str = "ESCAPE_PROBE_BIN";

/// The program, if it is of the same build as this suite's table.
fn program() -> Need<PathBuf> {
    let beside = || Path::new(env!("CARGO_BIN_EXE_sandbar")).with_file_name("escape-probe");
    let program = std::env::var_os(PROGRAM).map_or_else(beside, PathBuf::from);
    need::that(program.is_file(), "escape-probe is not built: `cargo build -p escape-probe`")?;
    let table = finish(std::process::Command::new(&program).arg("list")).ok();
    let expected: String = attempts().map(|attempt| attempt.line() + "\n").collect();
    assert_eq!(table, expected, "{} is of another build: `cargo build -p escape-probe`", program.display());
    Ok(program)
}

/// A stage and the program in its workspace, where a sandbox shows it.
struct Place {
    home: Home,
    program: PathBuf,
    runtime: PathBuf,
}

impl Place {
    fn new() -> Need<Self> {
        need::user_namespaces()?;
        let program = program()?;
        let home = Home::new(env!("CARGO_BIN_EXE_sandbar"));
        let runtime = home.outside().join("runtime");
        fs::create_dir(&runtime).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(home.outside().join("outside")).unwrap();
        fs::copy(&program, home.workspace().join("escape-probe")).unwrap();
        Ok(Self { home, program, runtime })
    }

    /// What the probe tells when `sandbar run OPTIONS` starts it.
    fn told(&self, options: &[&str]) -> Vec<Told> {
        let home = &self.home;
        // So that there are a keeper's socket and records to reach.
        let _ = home.finish(&["run", "true"]).ok();
        let socket = find(&home.sandbar_home(), "sock").unwrap();
        let mut command = home.command(&self.program);
        command.arg("stage").arg(home.workspace()).arg(home.outside().join("outside")).arg(home.user_home());
        command.arg(&self.runtime).arg(home.sandbar_home()).arg(socket).arg("--").arg(home.program());
        command.args(["run", "--quiet"]).args(options).arg("--");
        command.arg(home.workspace().join("escape-probe")).args(["attempt", "stage.json"]);
        let finished: Finished = finish(&mut command);
        let told: Vec<Told> = finished.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let names: Vec<&str> = told.iter().map(|told| told.attempt.as_str()).collect();
        assert_eq!(names, attempts().map(|attempt| attempt.name).collect::<Vec<_>>());
        told
    }
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let here = entries.iter().find(|path| path.ends_with(name)).cloned();
    here.or_else(|| entries.iter().find_map(|path| find(path, name)))
}

fn describe(told: &Told) -> String {
    format!("{}: {:?}, {}", told.attempt, told.result, told.detail)
}

/// Makes all attempts in a sandbox and compares.
fn compare(profile: &str, network: &str, executor: Executor) -> Need<()> {
    let mut options = vec!["-p", profile, "--net", network];
    if executor == Executor::Bwrap {
        need::program("bwrap")?;
        options.extend(["--sandbox", "bwrap"]);
    }
    if executor == Executor::Landlock {
        need::that(sandbar_sandbox::facts::landlock_abi() >= 6, "Landlock holds alone from ABI 6 on")?;
        options.extend(["--sandbox", "landlock"]);
        if profile == "workspace" {
            options.extend(["--give-up", "protected-names"]);
        }
    }
    let place = Place::new()?;
    let told = place.told(&options);
    let (writable, network) = (profile == "workspace", network == "on");
    let setting = Setting { writable, network, root: need::is_root(), executor };
    let as_expected = |attempt: &Attempt, told: &Told| attempt.expected(setting).admits(told.result);
    let unexpected: Vec<String> = attempts()
        .zip(&told)
        .filter(|(attempt, told)| !as_expected(attempt, told))
        .map(|(attempt, told)| format!("{} instead of {:?}", describe(told), attempt.expected(setting)))
        .collect();
    assert!(unexpected.is_empty(), "{options:?}, {setting:?}:\n{}", unexpected.join("\n"));
    // A probe that can do nothing at all would pass for a sandbox.
    let meant = attempts().filter(|attempt| matches!(attempt.expected(setting), Expected::Allowed(_)));
    assert!(meant.count() >= 4, "{told:?}");
    Ok(())
}

#[test]
fn nothing_unexpected_comes_of_any_attempt_in_a_workspace() {
    need!(compare("workspace", "off", Executor::Native));
}

#[test]
fn nothing_unexpected_comes_of_any_attempt_in_a_workspace_with_a_network() {
    need!(compare("workspace", "on", Executor::Native));
}

#[test]
fn nothing_unexpected_comes_of_any_attempt_when_everything_is_read_only() {
    need!(compare("read-only", "off", Executor::Native));
}

#[test]
fn nothing_unexpected_comes_of_any_attempt_when_everything_is_read_only_with_a_network() {
    need!(compare("read-only", "on", Executor::Native));
}

#[test]
fn nothing_unexpected_comes_of_any_attempt_in_a_workspace_by_bubblewrap() {
    need!(compare("workspace", "off", Executor::Bwrap));
}

#[test]
fn nothing_unexpected_comes_of_any_attempt_in_a_workspace_with_a_network_by_bubblewrap() {
    need!(compare("workspace", "on", Executor::Bwrap));
}

#[test]
fn nothing_unexpected_comes_of_any_attempt_when_everything_is_read_only_by_bubblewrap() {
    need!(compare("read-only", "off", Executor::Bwrap));
}

#[test]
fn nothing_unexpected_comes_of_any_attempt_when_everything_is_read_only_with_a_network_by_bubblewrap() {
    need!(compare("read-only", "on", Executor::Bwrap));
}

#[test]
fn nothing_unexpected_comes_of_any_attempt_in_a_workspace_by_landlock_alone() {
    need!(compare("workspace", "off", Executor::Landlock));
}

#[test]
fn nothing_unexpected_comes_of_any_attempt_in_a_workspace_with_a_network_by_landlock_alone() {
    need!(compare("workspace", "on", Executor::Landlock));
}

#[test]
fn nothing_unexpected_comes_of_any_attempt_when_everything_is_read_only_by_landlock_alone() {
    need!(compare("read-only", "off", Executor::Landlock));
}

#[test]
fn nothing_unexpected_comes_of_any_attempt_when_everything_is_read_only_with_a_network_by_landlock_alone() {
    need!(compare("read-only", "on", Executor::Landlock));
}

#[test]
fn without_a_sandbox_the_same_attempts_succeed() {
    let place = need!(Place::new());
    let told = place.told(&["-p", "danger-full-access"]);
    let is_root = need::is_root();
    let stopped: Vec<String> = attempts()
        .zip(&told)
        .filter(|(attempt, told)| match attempt.control {
            Control::Allowed => told.result != Verdict::Allowed,
            Control::Root => is_root && told.result != Verdict::Allowed,
            Control::Direct | Control::Open(_) => false,
        })
        .map(|(_, told)| describe(told))
        .collect();
    assert_eq!(stopped, Vec::<String>::new());
    // Sandbar's own things are there to be hidden.
    let own: Vec<_> = told.iter().filter(|told| told.area == "own").map(|told| told.result).collect();
    assert_eq!(own, [Verdict::Allowed; 4]);
}
