//! Limits of a run in words, for people.

use std::time::Duration;

use crate::escape::{self, Layout};
use sandbar_proto::{EndRecord, Limit, LimitMechanism, LimitReport, OutOfMemory};

/// What there is to say about limits at the end of a run, one sentence each. What nobody saw is not guessed at.
pub(crate) fn sentences(end: &EndRecord) -> Vec<String> {
    // A command may end by itself while it is being ended; then its status is its own.
    let was_ended = end.status.shell_code().is_none_or(|code| code > 128);
    let mut told = Vec::new();
    let mut sentences = Vec::new();
    for report in end.limits.iter().filter(|report| report.held == Some(true)) {
        let limit = report.enforced.limit;
        if !told.contains(&limit) {
            told.push(limit);
            sentences.extend(sentence(report, was_ended));
        }
    }
    if end.out_of_memory == Some(OutOfMemory::Host) {
        sentences.push("the command was ended because this machine ran out of memory.".to_owned());
    }
    sentences
}

/// Which name could not be protected any more, where a run was ended for that. A warning, so also for those who want no
/// notes.
pub(crate) fn lost_protection(end: &EndRecord) -> Option<String> {
    let path = escape::escape(end.unprotected.as_ref()?.as_bytes(), Layout::OneLine);
    Some(format!(
        "the command was ended because {path} could not be protected from it any more: it was removed or replaced on this \
         machine, or can't be watched (`sysctl fs.inotify`)."
    ))
}

fn sentence(report: &LimitReport, was_ended: bool) -> Option<String> {
    let value = value(report.enforced.limit, report.enforced.value);
    let reached = |what: String| {
        if was_ended {
            format!("the command was ended because it reached its {what}.")
        } else {
            format!("the command reached its {what}.")
        }
    };
    match report.enforced.limit {
        // Said with the status of its own.
        Limit::Wall | Limit::Files => None,
        Limit::Memory => Some(reached(format!("memory limit of {value}"))),
        Limit::Cpu => Some(reached(format!("limit of {value} of CPU time"))),
        // Only a cgroup counts what it refused.
        Limit::Procs if report.enforced.by == LimitMechanism::Cgroup => {
            Some(format!("the command reached its limit of {value}; starting more was refused."))
        }
        Limit::Procs => Some(format!("the command had as many as its limit of {value} allows.")),
        Limit::FileSize => {
            Some(format!("a file of the command reached the limit of {value}; who wrote it was ended."))
        }
    }
}

/// The limit that ended a run, in a word for a listing.
pub(crate) fn cause(end: &EndRecord) -> Option<&'static str> {
    let is_held =
        |limit| end.limits.iter().any(|report| report.enforced.limit == limit && report.held == Some(true));
    match end.out_of_memory {
        Some(OutOfMemory::Run) => return Some("memory limit"),
        Some(OutOfMemory::Host) => return Some("out of memory"),
        None if end.unprotected.is_some() => return Some("unprotected"),
        None => {}
    }
    [(Limit::Cpu, "CPU limit"), (Limit::FileSize, "file size limit")]
        .into_iter()
        .find_map(|(limit, words)| is_held(limit).then_some(words))
        .filter(|_| end.status.shell_code().is_some_and(|code| code > 128))
}

/// A value with its unit.
pub(crate) fn value(limit: Limit, value: u64) -> String {
    match limit {
        Limit::Wall | Limit::Cpu => format!("{:?}", Duration::from_micros(value)),
        Limit::Procs => count(value, "process", "processes"),
        Limit::Files => count(value, "file", "files"),
        Limit::Memory | Limit::FileSize => bytes(value),
    }
}

fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Bytes in the largest binary unit that gives no fraction, or a tenth of one.
fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        let (tenths, rest) = ((u128::from(bytes) * 10) >> shift, u128::from(bytes) * 10 % (1 << shift));
        if tenths >= 10 && rest == 0 {
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") };
        }
    }
    count(bytes, "byte", "bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_proto::{EnforcedLimit, ExitStatus, LimitScope};

    fn end(status: ExitStatus, held: &[(Limit, u64)], out_of_memory: Option<OutOfMemory>) -> EndRecord {
        let report = |(limit, value): &(Limit, u64)| LimitReport {
            enforced: EnforcedLimit {
                limit: *limit,
                value: *value,
                by: LimitMechanism::Cgroup,
                per: LimitScope::Run,
            },
            held: Some(true),
        };
        let limits = held.iter().map(report).collect();
        let record = crate::status::tests::record(Some(status)).end.unwrap();
        EndRecord { limits, out_of_memory, ..record }
    }

    const KILLED: ExitStatus = ExitStatus::Signaled { signal: 9 };

    #[test]
    fn each_limit_that_held_is_a_sentence() {
        let table = [
            (
                end(KILLED, &[(Limit::Memory, 512 << 20)], Some(OutOfMemory::Run)),
                "the command was ended because it reached its memory limit of 512 MiB.",
            ),
            (
                end(ExitStatus::Signaled { signal: 24 }, &[(Limit::Cpu, 1_500_000)], None),
                "the command was ended because it reached its limit of 1.5s of CPU time.",
            ),
            (
                end(ExitStatus::Exited { code: 0 }, &[(Limit::Cpu, 2_000_000)], None),
                "the command reached its limit of 2s of CPU time.",
            ),
            (
                end(ExitStatus::Exited { code: 1 }, &[(Limit::Procs, 1)], None),
                "the command reached its limit of 1 process; starting more was refused.",
            ),
            (
                end(ExitStatus::Exited { code: 153 }, &[(Limit::FileSize, 1536)], None),
                "a file of the command reached the limit of 1.5 KiB; who wrote it was ended.",
            ),
            (
                end(KILLED, &[], Some(OutOfMemory::Host)),
                "the command was ended because this machine ran out of memory.",
            ),
        ];
        for (end, expected) in table {
            assert_eq!(sentences(&end), [expected]);
        }
    }

    #[test]
    fn what_was_only_looked_at_is_not_said_to_have_been_refused() {
        let mut end = end(ExitStatus::Exited { code: 0 }, &[(Limit::Procs, 5)], None);
        end.limits[0].enforced.by = LimitMechanism::Rlimit;
        assert_eq!(sentences(&end), ["the command had as many as its limit of 5 processes allows."]);
    }

    #[test]
    fn a_limit_with_two_mechanisms_is_told_once_and_one_that_nobody_saw_never() {
        let twice = end(KILLED, &[(Limit::Cpu, 1_000_000), (Limit::Cpu, 1_000_000)], None);
        assert_eq!(sentences(&twice).len(), 1);
        let mut unseen = twice;
        unseen.limits.iter_mut().for_each(|report| report.held = None);
        assert!(sentences(&unseen).is_empty() && cause(&unseen).is_none());
    }

    #[test]
    fn the_cause_of_an_end_is_told_in_a_word_and_what_only_slowed_it_is_not() {
        let exited = ExitStatus::Exited { code: 0 };
        let table = [
            (end(KILLED, &[(Limit::Memory, 1)], Some(OutOfMemory::Run)), Some("memory limit")),
            (end(KILLED, &[], Some(OutOfMemory::Host)), Some("out of memory")),
            (end(ExitStatus::Signaled { signal: 24 }, &[(Limit::Cpu, 1)], None), Some("CPU limit")),
            (end(exited, &[(Limit::Cpu, 1)], None), None),
            (end(KILLED, &[(Limit::Procs, 1)], None), None),
        ];
        for (end, expected) in table {
            assert_eq!(cause(&end), expected);
        }
    }

    #[test]
    fn bytes_are_binary_and_exact() {
        let table = [
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1 << 29, "512 MiB"),
            ((1 << 30) + (1 << 29), "1.5 GiB"),
            ((1 << 20) + 1, "1048577 bytes"),
            (3 << 40, "3 TiB"),
        ];
        for (number, expected) in table {
            assert_eq!(bytes(number), expected);
        }
    }
}
