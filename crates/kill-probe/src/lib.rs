//! Development only: kills a process of a program's family with SIGKILL, right before one of its system calls.
//!
//! A [`Tracing`] follows a program and everything that it starts, threads and daemons too. It either writes down who made
//! which call ([`Task::Survey`]), or kills one process before its n-th ([`Task::Kill`]): whoever does so for every n has
//! seen every state that a process can leave behind. A process is named by its [`Place`] in the family, so that it is found
//! again in the next run. From the kill on the others go on as if nobody had looked.
//!
//! Decides nothing about what is right. `unsafe` is kept to `ptrace`. Nothing that is shipped depends on this crate.

mod call;
mod family;
mod ptrace;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

pub use call::Call;
use family::Follower;

/// Where a process stands in the family of the traced program: the number of its ancestor among the children of the
/// program, then among that one's children, and so on. The program itself has an empty place.
pub type Place = Vec<usize>;

/// What a process did, call after call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deeds {
    /// Its calls, each with the name of the program that it was then (proc_pid_comm(5)).
    pub steps: Vec<(Call, String)>,
}

/// What a tracing is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Write everything down.
    Survey,
    /// Kill a process.
    Kill {
        /// Which one.
        place: Place,
        /// Before which of its calls, from 0.
        step: usize,
    },
}

/// Why a program could not be traced.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It could not be started.
    #[error("start the program: {0}")]
    Start(std::io::Error),
    /// The kernel refused a step.
    #[error("{step}: {error}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// The kernel's error.
        error: std::io::Error,
    },
}

/// What is known at the end of a tracing.
#[derive(Debug)]
pub struct Traced {
    /// Whether a process was killed; `false` also where it never came that far.
    pub killed: bool,
    /// What everybody did, of a survey.
    pub seen: BTreeMap<Place, Deeds>,
    /// The program's own end, if it was seen.
    pub status: Option<i32>,
    child: Child,
}

impl Traced {
    /// Whether the program itself has ended by now; its status, as wait(2) tells it, is not told twice.
    pub fn has_ended(&mut self) -> bool {
        self.status.is_some() || !matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the program if it has not ended, and waits for it.
    pub fn end(&mut self) -> Option<ExitStatus> {
        if self.status.is_some() {
            return None;
        }
        // It may have ended since; that is as good.
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

/// A program that is being followed, by a thread of its own.
#[derive(Debug)]
pub struct Tracing {
    thread: JoinHandle<Result<Traced, TraceError>>,
    milestones: Receiver<Milestone>,
}

/// How far a tracing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Milestone {
    /// The program has ended; others may go on.
    ProgramEnded,
    /// Nobody is followed any more: somebody was killed, or all have ended.
    Over,
}

/// Waits for a line and becomes its arguments: whoever follows has to be there first.
const GATE: &str = "read -r _ && exec \"$@\" </dev/null";

impl Tracing {
    /// Starts `program` with the directory and the environment of `around`, and follows it.
    #[must_use]
    pub fn start(around: &Command, task: Task) -> Self {
        let mut gate = Command::new("/bin/sh");
        gate.args([OsStr::new("-c"), OsStr::new(GATE), OsStr::new("sh"), around.get_program()]);
        gate.args(around.get_args()).env_clear().stdin(Stdio::piped()).process_group(0);
        gate.stdout(Stdio::null()).stderr(Stdio::null());
        gate.envs(around.get_envs().filter_map(|(name, value)| Some((name, value?))));
        around.get_current_dir().map(|folder| gate.current_dir(folder));
        let (sender, milestones) = channel();
        Self { thread: std::thread::spawn(move || follow(&mut gate, task, &sender)), milestones }
    }

    /// Waits for the next milestone; `None` at the deadline.
    #[must_use]
    pub fn wait(&self, deadline: Duration) -> Option<Milestone> {
        match self.milestones.recv_timeout(deadline) {
            Ok(milestone) => Some(milestone),
            // It failed, and says so when it is finished.
            Err(RecvTimeoutError::Disconnected) => Some(Milestone::Over),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }

    /// Whether nobody is followed any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until nobody is followed any more: somebody was killed, or all have ended.
    ///
    /// # Errors
    /// [`TraceError`].
    ///
    /// # Panics
    /// The thread that follows did.
    pub fn finish(self) -> Result<Traced, TraceError> {
        match self.thread.join() {
            Ok(traced) => traced,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// In the thread that follows: whoever is still followed at its end goes on alone (ptrace(2)).
fn follow(gate: &mut Command, task: Task, milestones: &Sender<Milestone>) -> Result<Traced, TraceError> {
    let mut child = gate.spawn().map_err(TraceError::Start)?;
    let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
    let opened = ptrace::seize(pid).and_then(|()| match child.stdin.take() {
        Some(stdin) => std::io::Write::write_all(&mut &stdin, b"\n"),
        None => Ok(()),
    });
    if let Err(error) = opened {
        let _ = child.kill();
        let _ = child.wait();
        return Err(TraceError::Step { step: "follow the program", error });
    }
    let mut follower = Follower::new(pid, task);
    let followed = follower.run(milestones);
    let Follower { killed, seen, status, .. } = follower;
    followed.map_err(|(step, error)| TraceError::Step { step, error })?;
    // Nobody may be waiting any more.
    let _ = milestones.send(Milestone::Over);
    Ok(Traced { killed, seen, status, child })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).env("PATH", "/usr/bin:/bin");
        command
    }

    #[test]
    fn a_survey_has_every_process_at_its_place() {
        let tracing =
            Tracing::start(&shell("mkdir -p /proc/none; (true; cat </dev/null); true"), Task::Survey);
        assert_eq!(tracing.wait(Duration::from_secs(20)), Some(Milestone::ProgramEnded));
        let traced = tracing.finish().unwrap();
        assert!(!traced.killed && traced.status == Some(0));
        let programs: Vec<(Place, &str)> = traced
            .seen
            .iter()
            .map(|(place, deeds)| (place.clone(), deeds.steps.last().unwrap().1.as_str()))
            .collect();
        assert_eq!(programs, [(vec![], "sh"), (vec![0], "mkdir"), (vec![1], "cat")]);
        assert!(traced.seen[&vec![0]].steps.iter().any(|(call, _)| call.changes_files()));
    }

    #[test]
    fn a_process_is_killed_before_its_call_and_not_behind_it() {
        let folder = std::env::temp_dir().join(format!("kill-probe-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let script = format!("cd {} && mkdir a; mkdir b; echo $? > status", folder.display());
        let survey = Tracing::start(&shell(&script), Task::Survey).finish().unwrap();
        let deeds = &survey.seen[&vec![1]].steps;
        let step =
            deeds.iter().position(|(call, program)| program == "mkdir" && call.makes_directory()).unwrap();
        for (step, is_made) in [(step, false), (step + 1, true)] {
            std::fs::remove_dir_all(&folder).unwrap();
            std::fs::create_dir(&folder).unwrap();
            let tracing = Tracing::start(&shell(&script), Task::Kill { place: vec![1], step });
            let mut traced = tracing.finish().unwrap();
            assert!(traced.killed);
            while !traced.has_ended() {
                std::thread::yield_now();
            }
            assert_eq!((folder.join("a").exists(), folder.join("b").exists()), (true, is_made));
            assert_eq!(std::fs::read_to_string(folder.join("status")).unwrap(), "137\n");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
