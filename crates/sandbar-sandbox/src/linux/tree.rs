//! The descendants of a process without a pid namespace.
//!
//! A snapshot of /proc, taken again and again until nothing is left: a process may fork while we look. Each
//! signal goes through a pidfd whose parent is checked after it was opened, so it never reaches a process that
//! merely got a dead one's number.

use std::collections::{HashMap, HashSet};
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

/// How often a signal goes around for what was forked meanwhile. A tree that goes on forking whatever it is told ends by
/// SIGKILL, which is sent until nothing is left.
const ROUNDS: usize = 16;

/// Sends `signal` once to every descendant of this process, those included that are forked while it goes around.
pub(super) fn signal_descendants(signal: i32) {
    let Some(signal) = Signal::from_named_raw(signal) else { return };
    let own = getpid().as_raw_pid();
    each_once(own, snapshot, |pid, known| {
        let Some(target) = Pid::from_raw(pid) else { return };
        let Ok(pidfd) = pidfd_open(target, PidfdFlags::empty()) else { return };
        // Orphans come to us, so a descendant's parent only ever changes to us.
        let still_ours = parent(pid).is_some_and(|now| now == own || known == Some(now));
        if still_ours {
            // ESRCH: it ended by itself.
            let _ = pidfd_send_signal(&pidfd, signal);
        }
    });
}

/// Visits the descendants of `root`, each once and with its parent, until a look at all processes shows no new one.
fn each_once(
    root: i32,
    mut look: impl FnMut() -> HashMap<i32, i32>,
    mut visit: impl FnMut(i32, Option<i32>),
) {
    let mut visited = HashSet::new();
    for _ in 0..ROUNDS {
        let parents = look();
        let new: Vec<i32> =
            descendants(root, &parents).into_iter().filter(|pid| visited.insert(*pid)).collect();
        if new.is_empty() {
            return;
        }
        new.into_iter().for_each(|pid| visit(pid, parents.get(&pid).copied()));
    }
}

/// Every process that /proc shows.
pub(super) fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Every descendant of this process.
pub(super) fn own_descendants() -> Vec<i32> {
    descendants(getpid().as_raw_pid(), &snapshot())
}

/// Parent of every process, by id.
fn snapshot() -> HashMap<i32, i32> {
    all().filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

pub(super) fn parent(pid: i32) -> Option<i32> {
    parse_parent(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The parent's id in a line of /proc/PID/stat. The name in parentheses may hold anything, so fields are
/// counted from its last parenthesis (proc(5)).
fn parse_parent(stat: &[u8]) -> Option<i32> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn descendants(root: i32, parents: &HashMap<i32, i32>) -> Vec<i32> {
    let mut found: HashSet<i32> = HashSet::from([root]);
    let mut order = Vec::new();
    loop {
        let next: Vec<i32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if next.is_empty() {
            return order;
        }
        found.extend(&next);
        order.extend(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    #[test]
    fn a_command_name_with_parentheses_does_not_hide_its_parent() {
        assert_eq!(parse_parent(b"42 (a) S 7) S 5 42 42 0"), Some(5));
        assert_eq!(parse_parent(b"42 (a"), None);
    }

    #[test]
    fn fuzz_no_name_hides_the_parent_of_a_process() {
        let samples = Samples {
            whole: &[b"42 (a) S 7) S 5 42 42 0", b"1 (systemd) S 0 1 1 0 -1", b"7 ((sd-pam)) S 6 7"],
            words: &[b"(", b")", b" ", b") S 7", b"S", b"-1", b"2147483647", b"2147483648", b"\n"],
        };
        fuzz("process stat", samples, |input| {
            let real = [b"42 (", input, b") S 5 42 42 0 -1 4194560"].concat();
            assert_eq!(parse_parent(&real), Some(5));
            Took::if_understood(parse_parent(input).is_some())
        });
    }

    #[test]
    fn what_is_forked_while_a_signal_goes_around_is_visited_and_nothing_twice() {
        let mut looks = vec![
            HashMap::from([(2, 1), (3, 2), (9, 8)]),
            HashMap::from([(2, 1), (3, 2), (4, 3), (9, 8)]),
            // The one that was visited has ended, and its child is ours now.
            HashMap::from([(2, 1), (4, 1), (5, 4)]),
            HashMap::from([(2, 1), (4, 1), (5, 4)]),
        ]
        .into_iter();
        let mut visited = Vec::new();
        each_once(1, || looks.next().unwrap(), |pid, parent| visited.push((pid, parent)));
        assert_eq!(visited, [(2, Some(1)), (3, Some(2)), (4, Some(3)), (5, Some(4))]);
        assert_eq!(looks.next(), None, "it looked until nothing was new");
    }

    #[test]
    fn a_tree_that_never_stops_forking_is_left_to_what_comes_next() {
        let (mut next, mut visited) = (1, 0);
        let look = || {
            next += 1;
            (2..=next).map(|pid| (pid, 1)).collect()
        };
        each_once(1, look, |_, _| visited += 1);
        assert_eq!(visited, ROUNDS);
    }

    #[test]
    fn descendants_are_found_at_every_depth_and_nothing_else() {
        let parents = HashMap::from([(2, 1), (3, 2), (4, 3), (9, 8)]);
        let mut found = descendants(1, &parents);
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4]);
    }
}
