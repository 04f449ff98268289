//! S1: `sandbar run` as a whole process, from spawn to wait, against the floor and the peers.
//!
//! Works in a world of its own (runtime, state, configuration and cache directories, workspace), so that nobody's
//! keeper, record or settings are touched, and takes that world down at the end, keeper included.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::contender::Line;
use super::race::{Contender, Pace, Times, race};
use super::row::{Role, Row};
use crate::cargo::{self, cargo};
use crate::command::check;
use crate::peers::Peers;

const ID: &str = "S1";
const TRUE: &str = "/bin/true";

/// A command line, split at blanks, that starts the rest of its line in the least sandbox there can be; measured
/// as a second floor. For prototypes that are not part of this repository.
const FLOOR: &str = "SANDBAR_BENCH_FLOOR";

/// Long enough that starting is noise, short enough for a few rounds.
const THROUGHPUT_BYTES: u64 = 1_000_000_000;
const THROUGHPUT_ROUNDS: u32 = 5;

/// A cold keeper costs a process start, a handshake and its end: fewer rounds give the same median.
const COLD_ROUNDS: u32 = 50;

/// How long a keeper may take to end after it was told to.
const KEEPER_ENDS: Duration = Duration::from_secs(5);

/// Everything one bench touches.
struct World {
    sandbar: PathBuf,
    workspace: PathBuf,
    /// Removed last: `workspace` and the state directories lie in it.
    folder: TempDir,
    /// Sockets and logs; in memory where the host has a place for that, as `XDG_RUNTIME_DIR` is.
    runtime: TempDir,
}

/// Measures the rows of S1.
///
/// # Errors
/// When the release build fails or a measured command does.
pub(super) fn rows(root: &Path, peers: &Peers, runs: u32) -> Result<Vec<Row>> {
    let world = World::new(root)?;
    let runtime = world.runtime.path();
    let not_recorded = || world.run(runtime).args(["--no-record", "--", TRUE]);
    let recorded = || world.run(runtime).args(["--", TRUE]);
    let floors = || world.floors();

    eprintln!("measuring {ID}: warm keeper, {runs} rounds");
    let warm = compare(
        not_recorded().starts("sandbar run"),
        floors(),
        world.peers(peers)?,
        runs,
        Pace::SlowOnesLess,
    )?;
    eprintln!("measuring {ID}: recorded, {runs} rounds");
    let with_record =
        compare(recorded().starts("sandbar run"), floors(), Vec::new(), runs, Pace::EveryRound)?;
    eprintln!("measuring {ID}: cold keeper, {} rounds", runs.min(COLD_ROUNDS));
    let cold = compare(world.cold(), floors(), Vec::new(), runs.min(COLD_ROUNDS), Pace::EveryRound)?;
    eprintln!("measuring {ID}: throughput, {THROUGHPUT_ROUNDS} rounds");
    let throughput = world.throughput(peers, runs.min(THROUGHPUT_ROUNDS))?;

    let row = |name, (ours, others), targets| Row { id: ID, name, ours, others, targets, bytes: None };
    Ok(vec![
        row("start, warm keeper, not recorded", warm, vec![("bwrap", 1.0), ("codex sandbox", 9.0)]),
        row("start, warm keeper, recorded", with_record, Vec::new()),
        row("start, cold keeper, not recorded", cold, Vec::new()),
        Row { bytes: Some(THROUGHPUT_BYTES), ..row("1 GB to a pipe, not recorded", throughput, Vec::new()) },
    ])
}

type Others = Vec<(Role, Times)>;

/// Races ours against the others and sorts the times by what each is to us.
fn compare(
    ours: Contender<'_>,
    floors: Vec<Contender<'_>>,
    peers: Vec<Contender<'_>>,
    rounds: u32,
    pace: Pace,
) -> Result<(Times, Others)> {
    let mut roles: Vec<_> = std::iter::repeat_n(Role::Floor, floors.len()).collect();
    roles.extend(std::iter::repeat_n(Role::Peer, peers.len()));
    let contenders = std::iter::once(ours).chain(floors).chain(peers).collect();
    let mut times = race(contenders, rounds, pace)?.into_iter();
    let ours = times.next().context("a race without times")?;
    Ok((ours, roles.into_iter().zip(times).collect()))
}

impl World {
    fn new(root: &Path) -> Result<Self> {
        check(cargo(root).args(["build", "--release", "--package", "sandbar"]))?;
        let target = cargo::target_directory(root)?;
        let benches = target.join("bench");
        std::fs::create_dir_all(&benches)?;
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(benches)?;
        let workspace = folder.path().join("workspace");
        make_repository(&workspace)?;
        for name in ["state", "config", "cache", "codex"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        Ok(Self { sandbar: target.join("release/sandbar"), workspace, folder, runtime: runtime_directory()? })
    }

    /// `sandbar run` in the workspace with this world's directories.
    fn run(&self, runtime: &Path) -> Line {
        self.sandbar(runtime).args(["run"])
    }

    fn sandbar(&self, runtime: &Path) -> Line {
        let directory = |name: &str| Some(OsString::from(self.folder.path().join(name)));
        Line::new(&self.sandbar, &self.workspace)
            .env("SANDBAR_HOME", None)
            .env("XDG_RUNTIME_DIR", Some(runtime.into()))
            .env("XDG_STATE_HOME", directory("state"))
            .env("XDG_CONFIG_HOME", directory("config"))
            .env("XDG_CACHE_HOME", directory("cache"))
    }

    fn floors(&self) -> Vec<Contender<'static>> {
        let mut floors = vec![Line::new(TRUE, &self.workspace).starts(TRUE)];
        if let Some(prototype) = std::env::var_os(FLOOR) {
            let prototype = prototype.to_string_lossy().into_owned();
            let mut words = prototype.split_whitespace();
            if let Some(program) = words.next() {
                floors.push(Line::new(program, &self.workspace).args(words).args([TRUE]).starts("prototype"));
            }
        }
        floors
    }

    fn peers(&self, peers: &Peers) -> Result<Vec<Contender<'static>>> {
        let mut contenders = Vec::new();
        if let Some(bwrap) = &peers.bwrap {
            contenders.push(self.bwrap(bwrap).args([TRUE]).starts("bwrap"));
        }
        if let Some(codex) = &peers.codex {
            // `:workspace` is its profile with a writable workspace and no network. Its home must not lie in /tmp.
            let home = self.folder.path().join("codex");
            let line = Line::new(codex, &self.workspace).env("CODEX_HOME", Some(home.into()));
            contenders.push(line.args(["sandbox", "-P", ":workspace", "--", TRUE]).starts("codex sandbox"));
        }
        if let Some(srt) = &peers.srt {
            let settings = self.folder.path().join("srt.json");
            std::fs::write(&settings, srt_settings(&self.workspace).to_string())?;
            let line = Line::new(srt, &self.workspace).args(["--settings".as_ref(), settings.as_os_str()]);
            contenders.push(line.args([TRUE]).starts("srt"));
        }
        Ok(contenders)
    }

    /// What the `workspace` profile asks for, as far as bubblewrap can say it.
    fn bwrap(&self, bwrap: &Path) -> Line {
        let workspace = self.workspace.as_os_str();
        Line::new(bwrap, &self.workspace)
            .args(["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"])
            .args(["--bind".as_ref(), workspace, workspace])
            .args(["--unshare-all", "--cap-drop", "ALL", "--die-with-parent"])
    }

    /// Ours with a new runtime directory each time: the keeper's start is measured, its end is not.
    fn cold(&self) -> Contender<'_> {
        let work = move || {
            let runtime = runtime_directory()?;
            let took = self.run(runtime.path()).args(["--no-record", "--", TRUE]).time();
            self.stop_keeper(runtime.path())?;
            took
        };
        Contender { name: "sandbar run".into(), work: Box::new(work) }
    }

    fn throughput(&self, peers: &Peers, rounds: u32) -> Result<(Times, Others)> {
        let head = ["head".to_owned(), "-c".to_owned(), THROUGHPUT_BYTES.to_string(), "/dev/zero".to_owned()];
        let ours = self.run(self.runtime.path()).args(["--no-record", "--"]).args(&head);
        let floor = Line::new(&head[0], &self.workspace).args(&head[1..]);
        let bwrap = peers.bwrap.as_deref().map(|bwrap| self.bwrap(bwrap).args(&head));
        compare(
            ours.writes("sandbar run", THROUGHPUT_BYTES),
            vec![floor.writes("head", THROUGHPUT_BYTES)],
            bwrap.map(|line| line.writes("bwrap", THROUGHPUT_BYTES)).into_iter().collect(),
            rounds,
            Pace::EveryRound,
        )
    }

    /// Ends the keeper of a runtime directory: by asking, else by its process, which holds files in there open.
    fn stop_keeper(&self, runtime: &Path) -> Result<()> {
        let asked = self.sandbar(runtime).args(["keeper", "stop"]).time();
        let deadline = Instant::now() + KEEPER_ENDS;
        while Instant::now() < deadline {
            let keepers = processes_in(runtime);
            if keepers.is_empty() {
                return Ok(());
            }
            if asked.is_err() {
                for keeper in keepers {
                    // It may have ended by itself in between.
                    let _ = kill_process(keeper, Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("a keeper of {} goes on running", runtime.display())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = self.stop_keeper(self.runtime.path()) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// A new directory only we can enter; on a memory file system where there is one.
fn runtime_directory() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    // tempfile makes it 0700, as a runtime directory has to be.
    tempfile::Builder::new()
        .prefix("sandbar-bench-")
        .tempdir_in(place)
        .context("could not make a runtime directory")
}

/// An empty git repository, made by hand: a repository of its own, so that nothing above it counts as the workspace.
fn make_repository(workspace: &Path) -> Result<()> {
    let git = workspace.join(".git");
    std::fs::create_dir_all(git.join("objects"))?;
    std::fs::create_dir_all(git.join("refs/heads"))?;
    std::fs::write(git.join("HEAD"), "ref: refs/heads/main\n")?;
    std::fs::write(git.join("config"), "[core]\n\trepositoryformatversion = 0\n\tbare = false\n")?;
    Ok(())
}

/// Sandbox-runtime's settings for a writable workspace without network.
fn srt_settings(workspace: &Path) -> serde_json::Value {
    serde_json::json!({
        "network": {"allowedDomains": [], "deniedDomains": []},
        "filesystem": {"denyRead": [], "allowWrite": [workspace.to_string_lossy()], "denyWrite": []},
    })
}

/// Processes that have files of a directory open, other than this one. A keeper that is not dumpable shows its files
/// to root only; for everybody else this finds nothing, and asking it to stop has to be enough.
fn processes_in(directory: &Path) -> Vec<Pid> {
    let this = rustix::process::getpid();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|&pid| pid != this && has_open(pid, directory))
        .collect()
}

fn has_open(pid: Pid, directory: &Path) -> bool {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|path| path.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_found_by_the_files_it_holds_in_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(processes_in(directory.path()), []);
        let file = std::fs::File::create(directory.path().join("keeper.lock")).unwrap();
        let mut child = Command::new("sleep").arg("30").stdin(Stdio::null()).stdout(file).spawn().unwrap();
        let found = processes_in(directory.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [Pid::from_child(&child)]);
    }

    #[test]
    fn the_workspace_is_a_repository_to_git() {
        let folder = tempfile::tempdir().unwrap();
        make_repository(folder.path()).unwrap();
        let shown =
            Command::new("git").args(["rev-parse", "--show-toplevel"]).current_dir(folder.path()).output();
        let Ok(shown) = shown else { return println!("SKIP: the_workspace_is_a_repository_to_git: no git") };
        let toplevel = String::from_utf8_lossy(&shown.stdout).trim().to_owned();
        assert_eq!(Path::new(&toplevel), folder.path().canonicalize().unwrap());
    }
}
