//! Waiting for a keeper that should answer at once, and telling somebody when it does not.
//!
//! A keeper has one thread and answers within milliseconds. One that was stopped (SIGSTOP, a debugger) or whose machine
//! swaps keeps its clients waiting, and nothing shows why. This says which process it is and how it is; what to do
//! about it, and whether to go on waiting, is the caller's to say.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::runtime_dir::KeeperDir;

/// A keeper that has left a request unanswered for longer than it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered {
    /// Its process, as its lock file says.
    pub pid: Option<i32>,
    /// How long it has been waited for.
    pub waited: Duration,
    /// Whether a signal or a tracer has stopped it.
    pub is_stopped: bool,
}

/// How long a keeper's answer is waited for in silence, and who is told then.
#[derive(Clone)]
pub struct Patience {
    keeper: KeeperDir,
    silence: Duration,
    tell: Arc<dyn Fn(Unanswered) + Send + Sync>,
}

impl Patience {
    /// Patience with the keeper of `keeper`: `tell` is called once for each answer, or row of answers, that takes
    /// longer than `silence`. Nobody stops waiting because of it.
    pub fn new(
        keeper: KeeperDir,
        silence: Duration,
        tell: impl Fn(Unanswered) + Send + Sync + 'static,
    ) -> Self {
        Self { keeper, silence, tell: Arc::new(tell) }
    }

    /// How long nothing is said.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.silence
    }

    /// Tells that an answer has been missing for that long.
    pub fn run_out(&self) {
        let pid = pid(&self.keeper);
        (self.tell)(Unanswered { pid, waited: self.silence, is_stopped: pid.is_some_and(is_stopped) });
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience").field("keeper", &self.keeper).field("silence", &self.silence).finish()
    }
}

/// Who holds the keeper's lock, as it wrote down there.
fn pid(keeper: &KeeperDir) -> Option<i32> {
    std::fs::read_to_string(keeper.lock()).ok()?.trim().parse().ok().filter(|pid| *pid > 0)
}

/// Whether the kernel runs nothing of a process until somebody lets it go on (proc_pid_stat(5)).
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    // The name in its second field may hold anything.
    let state = stat.ok().and_then(|stat| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()));
    matches!(state, Some('T' | 't'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn told(lock: Option<&str>) -> Unanswered {
        let parent = tempfile::tempdir().unwrap();
        let keeper = KeeperDir::at(parent.path().to_owned());
        if let Some(text) = lock {
            std::fs::write(keeper.lock(), text).unwrap();
        }
        let (sender, receiver) = mpsc::channel();
        let patience = Patience::new(keeper, Duration::from_secs(3), move |fact| sender.send(fact).unwrap());
        patience.run_out();
        receiver.try_recv().unwrap()
    }

    #[test]
    fn a_keeper_is_named_by_its_lock() {
        let own = i32::try_from(std::process::id()).unwrap();
        let expected = Unanswered { pid: Some(own), waited: Duration::from_secs(3), is_stopped: false };
        assert_eq!(told(Some(&format!("{own}\n"))), expected);
    }

    #[test]
    fn a_keeper_that_left_no_name_is_told_without_one() {
        for lock in [None, Some(""), Some("0\n"), Some("-1\n"), Some("x\n")] {
            let expected = Unanswered { pid: None, waited: Duration::from_secs(3), is_stopped: false };
            assert_eq!(told(lock), expected, "{lock:?}");
        }
    }

    #[test]
    fn a_stopped_process_is_told_from_one_that_runs() {
        use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
        let mut child = std::process::Command::new("sleep").arg("86400").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(!is_stopped(pid.as_raw_nonzero().get()));
        kill_process(pid, Signal::STOP).unwrap();
        waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
        assert!(is_stopped(pid.as_raw_nonzero().get()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_stopped(pid.as_raw_nonzero().get()));
    }
}
