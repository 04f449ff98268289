//! What a bubblewrap leaves behind that is killed between two of its steps.
//!
//! It makes its child in the new namespaces and then tells it to go on. The child asks to die with its parent only behind
//! that word (bubblewrap 0.8 to 0.11): whose parent is killed before waits for ever, with our arguments and as pid 1 of its
//! namespace. It holds nothing of the host, but it is somebody of a run that is over. A child whose parent lives is left
//! alone, whoever started that.

use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Ends the children of bubblewraps that we started and that are gone. A look at every process there is: for the rare moment
/// in which one of ours was killed.
pub fn end_bwrap_orphans() {
    let words = super::bwrap::words();
    let line: Vec<u8> = words.iter().flat_map(|word| word.to_bytes_with_nul()).copied().collect();
    let is_bwrap = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == line);
    let own_depth = Status::read(Path::new("/proc/self")).map_or(1, |own| own.depth);
    let is_orphan = |pid: i32| {
        is_bwrap(pid)
            && Status::read(Path::new(&format!("/proc/{pid}"))).is_some_and(|status| {
                status.uid == rustix::process::geteuid().as_raw()
                    && status.depth > own_depth
                    && status.is_first
                    && !is_bwrap(status.parent)
            })
    };
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if !is_orphan(pid) {
            continue;
        }
        // Looked at again once it can't be mistaken for another one any more.
        let Some(Ok(found)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            continue;
        };
        if is_orphan(pid) {
            // It may have ended.
            let _ = pidfd_send_signal(&found, Signal::KILL);
        }
    }
}

/// What the status of a process says of its place (proc_pid_status(5)).
#[derive(Debug, PartialEq, Eq)]
struct Status {
    parent: i32,
    uid: u32,
    /// How many pid namespaces it is seen from, ours and those below.
    depth: usize,
    /// Whether it is pid 1 of the innermost.
    is_first: bool,
}

impl Status {
    fn read(process: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(process.join("status")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let pids: Vec<&str> = field("NSpid:")?.split_ascii_whitespace().collect();
        Some(Self {
            parent: field("PPid:")?.trim().parse().ok()?,
            // Real, effective, saved, of the file system.
            uid: field("Uid:")?.split_ascii_whitespace().nth(1)?.parse().ok()?,
            depth: pids.len(),
            is_first: pids.last() == Some(&"1"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_who_is_pid_1_of_a_namespace_below() {
        let text = "Name:\tbwrap\nPPid:\t7\nUid:\t1000\t1001\t1000\t1000\nNSpid:\t4711\t1\n";
        let expected = Status { parent: 7, uid: 1001, depth: 2, is_first: true };
        assert_eq!(Status::parse(text), Some(expected));
        let own = Status::read(Path::new("/proc/self")).unwrap();
        assert_eq!(own.uid, rustix::process::geteuid().as_raw());
        assert_eq!(Status::parse("PPid:\t7\n"), None);
    }
}
