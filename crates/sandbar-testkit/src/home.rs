//! A Sandbar of a test's own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::need::{self, Need};
use crate::processes::Process;
use crate::running::{Finished, finish};
use crate::wait::{DEADLINE, eventually};

/// The search path of everything that a test starts: the system's, not the developer's.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a keeper's arguments hold.
const KEEPER: &str = "--sandbar-run-as-keeper";

/// Names the program to test instead of the one that was built with the test.
const PROGRAM: &str = "SANDBAR_BIN";

/// The variable that names an executor for the runs of a test, so that one suite is a suite for each of them.
pub(crate) const EXECUTOR: &str = "SANDBAR_TEST_EXECUTOR";

/// Directories, environment and keeper of one test. Dropping it ends the keeper and all that it holds.
///
/// ```text
/// <folder>/s      SANDBAR_HOME      <folder>/home   HOME      <folder>/ws   the working directory
/// ```
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
    program: PathBuf,
}

impl Home {
    /// A new one for the program in `SANDBAR_BIN`, or else `built`.
    ///
    /// It lies in the home of whoever runs the test: in /tmp, of which every sandbox has its own, the rules for
    /// what lies elsewhere would not be tested.
    ///
    /// # Panics
    /// No folder can be made.
    #[must_use]
    pub fn new(built: &str) -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let folder = home.and_then(|home| make_folder(&home).ok());
        let folder =
            folder.map_or_else(|| make_folder(&std::env::temp_dir()), Ok).expect("a temporary folder");
        Self::fill(folder, built)
    }

    /// A new one below `parent`.
    ///
    /// # Panics
    /// No folder can be made there.
    #[must_use]
    pub fn below(parent: &Path, built: &str) -> Self {
        Self::fill(make_folder(parent).expect("a temporary folder"), built)
    }

    fn fill(folder: TempDir, built: &str) -> Self {
        for name in ["s", "home", "ws"] {
            fs::create_dir(folder.path().join(name)).expect("a folder in a fresh folder");
        }
        let program = std::env::var_os(PROGRAM).map_or_else(|| PathBuf::from(built), PathBuf::from);
        Self { folder, program }
    }

    /// The folder that holds the others; nothing in it is writable inside a sandbox.
    #[must_use]
    pub fn outside(&self) -> &Path {
        self.folder.path()
    }

    /// The working directory.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.folder.path().join("ws")
    }

    /// The home directory of the test's person.
    #[must_use]
    pub fn user_home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// `SANDBAR_HOME`.
    #[must_use]
    pub fn sandbar_home(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// The program under test.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Any program in the surroundings of this home: an exact environment, the workspace, no input.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.workspace())
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", self.user_home())
            .env("SANDBAR_HOME", self.sandbar_home())
            .env("LANG", "C.UTF-8");
        command
    }

    /// The program under test with `arguments`. Runs have the executor that [`EXECUTOR`] names, if it names one.
    pub fn sandbar(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.program);
        match (arguments, std::env::var_os(EXECUTOR)) {
            (["run", rest @ ..], Some(executor)) => {
                command.args(["run", "--sandbox"]).arg(executor).args(rest)
            }
            (arguments, _) => command.args(arguments),
        };
        command
    }

    /// `sandbar run --quiet OPTIONS -- sh -c SCRIPT`.
    pub fn shell(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.sandbar(&["run", "--quiet"]);
        command.args(options).args(["--", "sh", "-c", script]);
        command
    }

    /// A script of the host's shell, which finds the program under test in `$0`.
    pub fn host_shell(&self, script: &str) -> Command {
        let mut command = self.command("sh");
        command.args(["-c", script]).arg(&self.program);
        command
    }

    /// Runs `sandbar ARGUMENTS` to its end.
    #[must_use]
    #[track_caller]
    pub fn finish(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.sandbar(arguments))
    }

    /// Runs `sandbar run --quiet OPTIONS -- sh -c SCRIPT` to its end.
    #[must_use]
    #[track_caller]
    pub fn run(&self, options: &[&str], script: &str) -> Finished {
        finish(&mut self.shell(options, script))
    }

    /// Runs a script of the host's shell in a mount namespace of its own, where the runtime directory, `$run`, is a
    /// tmpfs of `size`.
    ///
    /// # Errors
    /// This host lets nobody here mount a tmpfs.
    #[track_caller]
    pub fn in_small_runtime(&self, size: &str, script: &str) -> Need<Finished> {
        let mounts = need::private_mounts()?;
        // Nobody else sees the keeper's lock in there, so the script itself ends it.
        let whole = format!(
            "run=$SANDBAR_HOME/run; mkdir $run && mount -t tmpfs -o mode=700,size={size} tmpfs $run || exit 99
            trap 'cat $run/*/lock | xargs -r kill -9' EXIT\n{script}"
        );
        let mut command = self.command(mounts[0]);
        command.args(&mounts[1..]).args(["sh", "-c", &whole]).arg(&self.program);
        Ok(finish(&mut command))
    }

    /// Puts a file into the workspace, with the folders above it.
    ///
    /// # Panics
    /// It can't be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.workspace().join(name);
        put(&path, content.as_ref());
        path
    }

    /// Puts a file into the person's home.
    ///
    /// # Panics
    /// It can't be written.
    pub fn write_home(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.user_home().join(name);
        put(&path, content.as_ref());
        path
    }

    /// The keepers of this home, as their lock files name them.
    #[must_use]
    pub fn keepers(&self) -> Vec<Process> {
        let homes = fs::read_dir(self.sandbar_home().join("run")).into_iter().flatten().flatten();
        let pids =
            homes.filter_map(|home| fs::read_to_string(home.path().join("lock")).ok()?.trim().parse().ok());
        let is_keeper = |process: &Process| {
            let line = process.command_line();
            process.is_alive() && line.windows(KEEPER.len()).any(|part| part == KEEPER.as_bytes())
        };
        pids.filter_map(Process::find).filter(is_keeper).collect()
    }

    /// The one keeper of this home.
    ///
    /// # Panics
    /// There is none, or more than one.
    #[must_use]
    #[track_caller]
    pub fn keeper(&self) -> Process {
        let mut keepers = self.keepers();
        assert_eq!(keepers.len(), 1, "{keepers:?}");
        keepers.remove(0)
    }

    /// Kills the keepers and waits until nothing of what they held is left.
    ///
    /// # Panics
    /// Something is left at the deadline.
    pub fn end_keepers(&self) {
        for keeper in self.keepers() {
            let held = keeper.descendants();
            keeper.signal(Signal::KILL);
            let all = || held.iter().chain([&keeper]);
            eventually(DEADLINE, "the end of a keeper and of all that it held", || {
                all().all(|process| !process.is_alive()).then_some(())
            });
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for keeper in self.keepers() {
                keeper.signal(Signal::KILL);
            }
        } else {
            self.end_keepers();
        }
    }
}

fn make_folder(parent: &Path) -> std::io::Result<TempDir> {
    tempfile::Builder::new().prefix(".sandbar-test-").rand_bytes(5).tempdir_in(parent)
}

fn put(path: &Path, content: &[u8]) {
    let folder = path.parent().expect("a file lies in a folder");
    fs::create_dir_all(folder).expect("a folder of the test");
    fs::write(path, content).expect("a file of the test");
}
