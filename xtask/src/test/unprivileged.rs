//! The kernel's tests again as an ordinary user, for a run that is root.
//!
//! Root sees none of the faults that an unprivileged user namespace has (uid maps, dumpable, sticky folders), so
//! the suites that touch the kernel run twice. The test binaries are copied to a folder that everybody can reach:
//! the work tree may lie in somebody's home. Each test gets a process of its own and an exact environment.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::executors::{EXECUTOR, executors_for};
use super::harness::run_suite;
use super::report::Outcome;
use crate::cargo::{Executable, ExecutableKind, is_probe, is_sandbar};
use crate::command::{SYSTEM_PATH, check, quiet};
use crate::packages::{Install, is_root};

/// Packages whose tests ask the kernel.
const PACKAGES: &[&str] = &["sandbar-sandbox", "sandbar-keeper", "sandbar-exec", "sandbar"];

/// An account of its own: `nobody` has no home, and shares its processes with other services.
const USER: &str = "sandbar-test";

/// The account that tests run as.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    home: PathBuf,
}

/// Executables where that user can start them.
struct Stage {
    folder: TempDir,
    sandbar: PathBuf,
    probe: PathBuf,
    suites: Vec<(String, PathBuf)>,
}

/// Runs the suites as [`USER`].
///
/// # Errors
/// When the user or the folder cannot be made.
pub(super) fn run(built: &[Executable], install: Install) -> Result<Outcome> {
    if !is_root() {
        let why =
            "this run is not root: the suites ran as an ordinary user already, and were not run as root";
        return Ok(Outcome::skipped(why));
    }
    let Some(user) = user(install)? else {
        return Ok(Outcome::skipped(format!(
            "there is no user {USER}, and --no-install forbids to make one"
        )));
    };
    let stage = stage(built)?;
    let mut outcome = Outcome::default();
    for (name, path) in &stage.suites {
        let command = || as_user(&user, &stage, path);
        outcome.add(run_suite(name, &format!(" (as {USER})"), command)?);
        for executor in executors_for(name) {
            let command = || {
                let mut command = as_user(&user, &stage, path);
                command.env(EXECUTOR, executor);
                command
            };
            outcome.add(run_suite(name, &format!(" (as {USER}, by {executor})"), command)?);
        }
    }
    outcome.notes = end_leftovers(stage.folder.path());
    Ok(outcome)
}

/// The account, made when it is missing and may be made.
fn user(install: Install) -> Result<Option<User>> {
    if let Some(user) = look_up()? {
        return Ok(Some(user));
    }
    if install == Install::Forbidden {
        return Ok(None);
    }
    check(quiet("useradd").env("PATH", SYSTEM_PATH).args(["--create-home", "--shell", "/bin/sh", USER]))?;
    look_up()
}

fn look_up() -> Result<Option<User>> {
    let passwd = std::fs::read_to_string("/etc/passwd").context("could not read /etc/passwd")?;
    Ok(passwd.lines().find_map(|line| parse_passwd(line, USER)))
}

/// Reads a line of passwd(5) if it is the user's.
fn parse_passwd(line: &str, name: &str) -> Option<User> {
    let fields: Vec<_> = line.split(':').collect();
    let [found, _, uid, gid, _, home, _] = fields.as_slice() else { return None };
    (*found == name).then_some(())?;
    Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into() })
}

/// Copies the programs and the suites to a folder of mode 0755.
fn stage(built: &[Executable]) -> Result<Stage> {
    let folder = tempfile::Builder::new().prefix("sandbar-test-").tempdir_in("/var/tmp")?;
    open_to_all(folder.path())?;
    let (mut sandbar, mut probe) = (None, None);
    let mut suites = Vec::new();
    for executable in built {
        let suite =
            executable.kind == ExecutableKind::Test && PACKAGES.contains(&executable.package.as_str());
        if executable.kind == ExecutableKind::Test && !suite {
            continue;
        }
        let place = folder.path().join(if suite { "tests" } else { "bin" });
        std::fs::create_dir_all(&place)?;
        open_to_all(&place)?;
        let file = executable.path.file_name().context("an executable without a name")?;
        let copy = place.join(file);
        std::fs::copy(&executable.path, &copy)
            .with_context(|| format!("could not copy {}", executable.path.display()))?;
        open_to_all(&copy)?;
        if suite {
            suites.push((format!("{}::{}", executable.package, executable.target), copy));
        } else if is_sandbar(executable) {
            sandbar = Some(copy);
        } else if is_probe(executable) {
            probe = Some(copy);
        }
    }
    let sandbar = sandbar.context("cargo built no program `sandbar`")?;
    let probe = probe.context("cargo built no program `escape-probe`")?;
    Ok(Stage { folder, sandbar, probe, suites })
}

fn open_to_all(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))
        .with_context(|| format!("could not open {} to all", path.display()))
}

/// A test binary as the user, with nothing of this process's environment.
fn as_user(user: &User, stage: &Stage, program: &Path) -> Command {
    let mut command = quiet("setpriv");
    command
        .args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)])
        .args(["--init-groups", "--inh-caps=-all", "--"])
        // Whoever started us in the background had signals ignored, and what respects that would ignore them too.
        .args(["env", "--default-signal"])
        .arg(program)
        .stdout(Stdio::piped())
        .current_dir(&user.home)
        .env_clear()
        .env("PATH", SYSTEM_PATH)
        .env("HOME", &user.home)
        .env("USER", USER)
        .env("LOGNAME", USER)
        .env("LANG", "C.UTF-8")
        .env("RUST_BACKTRACE", "1")
        .env("INSTA_UPDATE", "no")
        .env("SANDBAR_BIN", &stage.sandbar)
        .env("ESCAPE_PROBE_BIN", &stage.probe);
    if let Some(ci) = std::env::var_os("CI") {
        command.env("CI", ci);
    }
    command
}

/// Ends processes that outlived their tests, and says which: only those whose program lies in our folder.
fn end_leftovers(stage: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let program = std::fs::read_link(entry.path().join("exe")).ok()?;
            program.starts_with(stage).then_some(())?;
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let pid = rustix::process::Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok()?;
            let line =
                line.iter().map(|&byte| if byte == 0 { ' ' } else { char::from(byte) }).collect::<String>();
            Some(format!("a process outlived its test and was ended: {}", line.trim_end().escape_debug()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_line_of_passwd_is_read() {
        let line = "sandbar-test:x:1001:1002:,,,:/home/sandbar-test:/bin/sh";
        let user = User { uid: 1001, gid: 1002, home: "/home/sandbar-test".into() };
        assert_eq!(parse_passwd(line, USER), Some(user));
        assert_eq!(parse_passwd("sandbar-test2:x:1:1::/:/bin/sh", USER), None);
        assert_eq!(parse_passwd("sandbar-test:x:1", USER), None);
    }
}
