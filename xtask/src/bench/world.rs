//! Where a bench works: a world of its own (runtime, state, configuration and cache directories, workspace), so that
//! nobody's keeper, record or settings are touched. It is taken down at the end, keeper included.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::contender::Line;
use crate::cargo::{self, cargo};
use crate::command::check;

/// How long a keeper may take to end after it was told to.
const KEEPER_ENDS: Duration = Duration::from_secs(5);

/// Everything one bench touches.
pub(super) struct World {
    pub(super) sandbar: PathBuf,
    pub(super) workspace: PathBuf,
    /// Removed last: `workspace` and the state directories lie in it.
    pub(super) folder: TempDir,
    /// Sockets and logs; in memory where the host has a place for that, as `XDG_RUNTIME_DIR` is.
    pub(super) runtime: TempDir,
}

impl World {
    /// Builds a release and makes a world for it.
    ///
    /// # Errors
    /// The build fails, or a directory can't be made.
    pub(super) fn new(root: &Path) -> Result<Self> {
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
    pub(super) fn run(&self, runtime: &Path) -> Line {
        self.sandbar(runtime).args(["run"])
    }

    pub(super) fn sandbar(&self, runtime: &Path) -> Line {
        let directory = |name: &str| Some(OsString::from(self.folder.path().join(name)));
        Line::new(&self.sandbar, &self.workspace)
            .env("SANDBAR_HOME", None)
            .env("XDG_RUNTIME_DIR", Some(runtime.into()))
            .env("XDG_STATE_HOME", directory("state"))
            .env("XDG_CONFIG_HOME", directory("config"))
            .env("XDG_CACHE_HOME", directory("cache"))
    }

    /// The keeper of this world, as its lock file names it.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn keeper(&self) -> Result<Pid> {
        let homes = std::fs::read_dir(self.runtime.path().join("sandbar"))?.flatten();
        let lock = homes.map(|home| home.path().join("lock")).find(|lock| lock.exists());
        let lock = lock.context("no keeper has a lock in this world")?;
        let pid = std::fs::read_to_string(&lock)?.trim().parse().ok().and_then(Pid::from_raw);
        pid.with_context(|| format!("{} names no process", lock.display()))
    }

    /// Ends the keeper of a runtime directory: by asking, else by its process, which holds files in there open.
    pub(super) fn stop_keeper(&self, runtime: &Path) -> Result<()> {
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
pub(super) fn runtime_directory() -> Result<TempDir> {
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
