//! This user's keepers: finding them, and what they and their predecessors wrote down.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sandbar_exec::local::LocalProcesses;
use sandbar_keeper::protocol::UpgradeRefusal;
use sandbar_keeper::{
    Client, ConnectError, KeeperDir, Knock, Patience, Record, RuntimeDir, RuntimeDirError, Unanswered,
};
use sandbar_proto::{LimitFacts, ProcessAttributes, RunId};
use sandbar_sandbox::caller::attributes;

use crate::dirs::Directories;
use crate::exit;
use crate::render::{Problem, note};

/// The program that is started as a keeper: this one.
const SELF: &str = "/proc/self/exe";

/// A run on record, and the keeper that holds or held it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) record: Record,
    pub(crate) keeper: KeeperDir,
    pub(crate) keeper_alive: bool,
}

impl Known {
    /// Its id.
    pub(crate) fn id(&self) -> RunId {
        self.record.start.id
    }

    /// Whether it runs still.
    pub(crate) fn is_running(&self) -> bool {
        self.record.end.is_none() && self.keeper_alive
    }
}

/// The checked runtime directory; makes it if it is missing.
///
/// # Errors
/// It can't be made or trusted.
pub(crate) fn runtime(directories: &Directories) -> Result<RuntimeDir, Problem> {
    let path = directories.own.runtime.as_path();
    // Only below SANDBAR_HOME may the parent be missing as well: everything there is ours.
    if let (Some(_), Some(parent)) = (&directories.own.home, path.parent()) {
        std::fs::create_dir_all(parent).map_err(|error| {
            Problem::new(format!("could not make the folder of SANDBAR_HOME: {error}"))
                .at(parent.display())
                .advise("set SANDBAR_HOME to a folder that you may write to")
                .status(exit::CANNOT_RUN)
        })?;
    }
    RuntimeDir::open(path).map_err(|error| runtime_problem(&error))
}

/// This caller's keeper, greeted and not heard yet.
pub(crate) struct Knocked {
    keeper: KeeperDir,
    knock: Knock,
}

/// Greets the keeper of a caller with these attributes, if it runs.
///
/// # Errors
/// It can't be told which one that is, or it can't be reached.
pub(crate) fn knock(runtime: &RuntimeDir, caller: &ProcessAttributes) -> Result<Knocked, Problem> {
    let keeper = runtime.keeper(caller).map_err(|error| runtime_problem(&error))?;
    let knock = sandbar_keeper::knock(&keeper).map_err(|error| connect_problem(&error))?;
    Ok(Knocked { keeper, knock })
}

/// A keeper that greeted us.
pub(crate) struct Entered {
    keeper: KeeperDir,
    client: Client,
}

impl Entered {
    /// What this keeper can enforce limits with.
    ///
    /// # Errors
    /// It does not say.
    pub(crate) fn limits(&mut self) -> Result<LimitFacts, Problem> {
        let patience = patience(&self.keeper);
        sandbar_keeper::limits(&self.keeper, &mut self.client, &patience)
            .map_err(|error| connect_problem(&error))
    }

    /// Moves the connection into the runtime.
    ///
    /// # Errors
    /// The runtime can't watch it.
    pub(crate) fn converse(self) -> Result<LocalProcesses, Problem> {
        converse(&self.keeper, self.client)
    }
}

/// Connects to this caller's keeper, starting it if need be.
///
/// # Errors
/// There is no keeper and none can be started.
pub(crate) fn connect_or_start(runtime: &RuntimeDir) -> Result<Entered, Problem> {
    knock(runtime, &attributes())?.enter()
}

/// How long a keeper may be silent until a person is told. It answers within milliseconds.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);

/// Tells a person about a keeper that does not answer.
fn patience(keeper: &KeeperDir) -> Patience {
    Patience::new(keeper.clone(), SILENCE, |unanswered| {
        // Several connections of this process may wait for the same one.
        static TOLD: AtomicBool = AtomicBool::new(false);
        if !TOLD.swap(true, Ordering::Relaxed) {
            note(silence(unanswered));
        }
    })
}

/// A keeper that does not answer, in words.
fn silence(Unanswered { pid, waited, is_stopped }: Unanswered) -> String {
    let seconds = waited.as_secs();
    match pid {
        Some(pid) if is_stopped => format!(
            "the keeper (pid {pid}) has not answered for {seconds} s: it is stopped. `kill -CONT {pid}` lets it go on; \
             `kill -9 {pid}` ends it and all that it holds."
        ),
        Some(pid) => format!(
            "the keeper (pid {pid}) has not answered for {seconds} s. If that lasts, `kill -9 {pid}` ends it and all \
             that it holds."
        ),
        None => format!("the keeper has not answered for {seconds} s."),
    }
}

impl Knocked {
    /// Whether a keeper runs.
    pub(crate) fn is_answered(&self) -> bool {
        self.knock.is_answered()
    }

    /// Waits for the keeper's answer, starting it if need be.
    ///
    /// # Errors
    /// There is no keeper and none can be started.
    pub(crate) fn enter(self) -> Result<Entered, Problem> {
        let entered = self.knock.enter(&self.keeper, Path::new(SELF), &patience(&self.keeper));
        let client = entered.map_err(|error| connect_problem(&error))?;
        if let (Some(reason), Some(peer)) = (client.upgrade_refusal(), client.peer()) {
            note(format_args!(
                "the keeper is that of sandbar {} and could not be replaced by this one: {reason}. It goes on as it is.",
                peer.version
            ));
        }
        Ok(Entered { keeper: self.keeper, client })
    }
}

/// Connects to a keeper that runs.
///
/// # Errors
/// It does not run or does not serve us.
pub(crate) fn greet(keeper: &KeeperDir) -> Result<Client, Problem> {
    sandbar_keeper::connect(keeper, &patience(keeper)).map_err(|error| connect_problem(&error))
}

/// Has a keeper that was greeted replace itself by `program`. The inner result is what the keeper says to that.
///
/// # Errors
/// It is gone or silent.
pub(crate) fn upgrade(
    keeper: &KeeperDir,
    client: &mut Client,
    program: OwnedFd,
) -> Result<Result<(u32, String), UpgradeRefusal>, Problem> {
    sandbar_keeper::upgrade(keeper, client, program, &patience(keeper))
        .map_err(|error| connect_problem(&error))
}

/// Connects to a keeper that runs, and moves the connection into the runtime.
///
/// # Errors
/// It does not run or does not serve us.
pub(crate) fn connect(keeper: &KeeperDir) -> Result<LocalProcesses, Problem> {
    converse(keeper, greet(keeper)?)
}

/// Moves a connection into the runtime.
///
/// # Errors
/// The runtime can't watch it.
pub(crate) fn converse(keeper: &KeeperDir, client: Client) -> Result<LocalProcesses, Problem> {
    LocalProcesses::new(client, keeper.processes(), patience(keeper)).map_err(|error| {
        Problem::new(format!("could not watch the connection to the keeper: {error}"))
            .at(keeper.path().display())
            .status(exit::CANNOT_RUN)
    })
}

/// The keeper that serves callers like this one, whether it runs or not.
///
/// # Errors
/// This caller's namespaces can't be told.
pub(crate) fn own(runtime: &RuntimeDir) -> Result<KeeperDir, Problem> {
    runtime.keeper(&attributes()).map_err(|error| runtime_problem(&error))
}

/// The keepers of this protocol that run.
///
/// # Errors
/// The runtime directory can't be read.
pub(crate) fn living(runtime: &RuntimeDir) -> Result<Vec<KeeperDir>, Problem> {
    let (keepers, _) = runtime.keepers().map_err(|error| runtime_problem(&error))?;
    Ok(keepers.into_iter().filter(sandbar_keeper::keeper_is_alive).collect())
}

/// Everything on record, oldest first, and how many keepers of another protocol there are besides.
///
/// # Errors
/// A directory can't be read.
pub(crate) fn known(runtime: &RuntimeDir) -> Result<(Vec<Known>, usize), Problem> {
    let (keepers, foreign) = runtime.keepers().map_err(|error| runtime_problem(&error))?;
    let mut all = Vec::new();
    for keeper in keepers {
        let keeper_alive = sandbar_keeper::keeper_is_alive(&keeper);
        let records = sandbar_keeper::read_all(&keeper)
            .map_err(|error| Problem::new(format!("could not {error}")).at(error.path.display()))?;
        all.extend(records.into_iter().map(|record| Known { record, keeper: keeper.clone(), keeper_alive }));
    }
    all.sort_by_key(|known| known.record.start.id);
    Ok((all, foreign))
}

/// The one run whose id begins with `prefix`.
///
/// # Errors
/// There is none, or more than one.
pub(crate) fn find(runtime: &RuntimeDir, prefix: &str) -> Result<Known, Problem> {
    pick(|| Ok(known(runtime)?.0), prefix, runtime.path().display())
}

/// The one run of `all`, which is on record at `place`, whose id begins with `prefix`.
///
/// # Errors
/// There is none, or more than one; those of `all`.
pub(crate) fn pick(
    all: impl FnOnce() -> Result<Vec<Known>, Problem>,
    prefix: &str,
    place: impl std::fmt::Display,
) -> Result<Known, Problem> {
    if prefix.is_empty() {
        return Err(Problem::new("an id is needed, and this one is empty")
            .advise("name a run by the beginning of its id; `sandbar ps --all` lists them")
            .status(exit::USAGE));
    }
    let prefix = prefix.to_ascii_lowercase();
    let mut found: Vec<Known> =
        all()?.into_iter().filter(|known| known.record.start.id.to_string().starts_with(&prefix)).collect();
    if found.is_empty() {
        return Err(Problem::new(format!("no run has an id that begins with {prefix:?}"))
            .at(place)
            .advise("`sandbar ps --all` lists the runs that are still on record"));
    }
    if found.len() > 1 {
        let ids: Vec<RunId> = found.iter().map(|known| known.record.start.id).take(5).collect();
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        return Err(Problem::new(format!("{} runs have an id that begins with {prefix:?}", found.len()))
            .at(ids.join(", "))
            .advise("give more of the id"));
    }
    Ok(found.remove(0))
}

/// A runtime directory that can't be used.
fn runtime_problem(error: &RuntimeDirError) -> Problem {
    let (path, advice) = match error {
        RuntimeDirError::Io { path, errno } => {
            let advice = if *errno == rustix::io::Errno::NOSPC || *errno == rustix::io::Errno::DQUOT {
                "free some space there, or set SANDBAR_HOME to a folder that has some"
            } else {
                "make the folder above it writable for you, or set SANDBAR_HOME to another place"
            };
            (path, advice)
        }
        RuntimeDirError::Untrusted { path, .. } => (
            path,
            "remove it or give it to you alone (chown, chmod 700), or set SANDBAR_HOME to another place",
        ),
    };
    Problem::new(format!("could not {error}")).at(path.display()).advise(advice).status(exit::CANNOT_RUN)
}

/// A keeper that can't be reached.
fn connect_problem(error: &ConnectError) -> Problem {
    let problem =
        |path: &Path| Problem::new(format!("could not {error}")).at(path.display()).status(exit::CANNOT_RUN);
    match error {
        ConnectError::Directory(error) => runtime_problem(error),
        ConnectError::NotRunning { path } => problem(path).advise("nothing runs there; `sandbar run` starts a keeper"),
        ConnectError::Io { path, errno, .. } if is_full(*errno) => problem(path).advise(FULL),
        ConnectError::Io { path, .. } => problem(path),
        ConnectError::Start { path, errno: Some(errno), .. } if is_full(rustix::io::Errno::from_raw_os_error(*errno)) => {
            problem(path).advise(FULL)
        }
        ConnectError::Start { path, .. } => problem(path).advise("`sandbar doctor` checks what a keeper needs"),
        ConnectError::Silent { path, .. } => {
            problem(path).advise("look whether its process is stopped (kill -CONT), or end it; what it holds ends with it")
        }
        ConnectError::Refused { path, .. } => problem(path).advise(
            "a keeper serves only programs outside of its own runs; call sandbar from outside, or give this one a \
             folder of its own with SANDBAR_HOME",
        ),
        ConnectError::TooOld { path, .. } | ConnectError::NoLimits { path } => problem(path).advise(
            "end what it holds (`sandbar kill`), then `sandbar keeper stop`; the next run starts a new keeper",
        ),
        ConnectError::Protocol { path, .. } => {
            problem(path).advise("it may be of another version: `sandbar keeper stop` ends it when nothing runs")
        }
    }
}

const FULL: &str = "free some space there, or set SANDBAR_HOME to a folder that has some";

fn is_full(errno: rustix::io::Errno) -> bool {
    errno == rustix::io::Errno::NOSPC || errno == rustix::io::Errno::DQUOT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_keeper_is_named_with_what_to_do_about_it() {
        let fact = |pid, is_stopped| silence(Unanswered { pid, waited: SILENCE, is_stopped });
        assert_eq!(
            fact(Some(7), true),
            "the keeper (pid 7) has not answered for 3 s: it is stopped. `kill -CONT 7` lets it go on; `kill -9 7` ends \
             it and all that it holds."
        );
        assert!(fact(Some(7), false).contains("(pid 7)") && !fact(Some(7), false).contains("CONT"));
        assert_eq!(fact(None, false), "the keeper has not answered for 3 s.");
    }
}
