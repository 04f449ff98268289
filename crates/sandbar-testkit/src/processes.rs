//! Processes of this machine as /proc shows them to their user.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// A process, told from a later one of the same id by its start time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent when it was looked at.
    pub parent: i32,
    started: u64,
    is_zombie: bool,
}

impl Process {
    /// The process `pid`, if there is one.
    #[must_use]
    pub fn find(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads /proc/PID/stat; the name in its second field may hold anything, parentheses too (proc_pid_stat(5)).
    fn parse(pid: i32, stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            is_zombie: matches!(*fields.first()?, "Z" | "X"),
        })
    }

    /// Whether it still runs; one that ended and was not waited for does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::find(self.pid).is_some_and(|now| now.started == self.started && !now.is_zombie)
    }

    /// Everything below it, children before their own children.
    #[must_use]
    pub fn descendants(&self) -> Vec<Self> {
        let all = all();
        let mut found: Vec<Self> = Vec::new();
        let mut above = vec![self.pid];
        while let Some(parent) = above.pop() {
            for process in all.iter().filter(|process| process.parent == parent) {
                above.push(process.pid);
                found.push(process.clone());
            }
        }
        found
    }

    /// Sends a signal, unless the process is gone.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // It may have ended since; that is as good.
            let _ = kill_process(pid, signal);
        }
    }

    /// Its arguments, each with its NUL.
    #[must_use]
    pub fn command_line(&self) -> Vec<u8> {
        fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default()
    }
}

/// All processes that this user sees.
#[must_use]
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Process::find(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// The living processes with `text` somewhere in their arguments.
#[must_use]
pub fn with_argument(text: &str) -> Vec<Process> {
    let holds = |process: &Process| {
        process.command_line().windows(text.len()).any(|part| part == text.as_bytes()) && process.is_alive()
    };
    all().into_iter().filter(holds).collect()
}

/// An argument for sleep(1) that no other process has: about a day, and who asked.
#[must_use]
pub fn unique_sleep() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("86400.{:07}{number:03}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_parenthesis_does_not_shift_the_fields() {
        let rest: Vec<String> = (5..=30).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) Z 1) S 3 {}", rest.join(" "));
        let expected = Process { pid: 7, parent: 3, started: 22, is_zombie: false };
        assert_eq!(Process::parse(7, &stat), Some(expected));
    }

    #[test]
    fn this_test_is_alive_and_descends_from_its_parent() {
        let own = Process::find(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_alive());
        let parent = Process::find(own.parent).unwrap();
        assert!(parent.descendants().iter().any(|process| process.pid == own.pid));
    }
}
