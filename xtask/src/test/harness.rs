//! Single tests of a libtest binary, each in a process of its own and within a deadline.

use std::collections::VecDeque;
use std::io::{Read, Seek};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::SUITE_LIMIT;
use super::report::{Outcome, Tally, skips};
use super::suites::libtest_counts;
use crate::command::output;

/// How often a running test is looked at; well below what a person would notice over a suite.
const POLL: Duration = Duration::from_millis(2);

/// Runs every test of the binary that `command` starts, as many at a time as there are processors, within
/// [`SUITE_LIMIT`], and says how that went. `whose` tells this run of the suite from others.
///
/// # Errors
/// The binary does not list its tests.
pub(super) fn run_suite(name: &str, whose: &str, command: impl Fn() -> Command + Sync) -> Result<Outcome> {
    let started = Instant::now();
    let list = output(command().args(["--list", "--format", "terse"]))?;
    let tests: Mutex<VecDeque<&str>> = Mutex::new(tests(&list).collect());
    let deadline = started + SUITE_LIMIT;
    let outcome = Mutex::new(Outcome::default());
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(test) = tests.lock().ok().and_then(|mut tests| tests.pop_front()) {
                    let ran = run_test(command().args(["--exact", test, "--nocapture"]), deadline);
                    if let Ok(mut outcome) = outcome.lock() {
                        enter(&mut outcome, &format!("{name} {test}"), whose, ran);
                    }
                }
            });
        }
    });
    let Ok(outcome) = outcome.into_inner() else { bail!("a worker of {name} panicked") };
    println!(
        "{name}{whose}: {} passed, {} failed, {} skipped in {:.1} s",
        outcome.tally.passed,
        outcome.tally.failed,
        outcome.tally.skipped,
        started.elapsed().as_secs_f64()
    );
    Ok(outcome)
}

/// Enters one test's end; a failure's output is printed at once. `whose` tells this run of it from others.
pub(crate) fn enter(outcome: &mut Outcome, test: &str, whose: &str, ran: Result<Ran>) {
    let (tally, log) = match ran {
        Ok(Ran::Ended { tally, log }) => (tally, log),
        Ok(Ran::TooLong { log }) => (
            Tally { failed: 1, ..Tally::default() },
            format!("{log}\nit was not done at the deadline of its suite"),
        ),
        Err(error) => (Tally { failed: 1, ..Tally::default() }, format!("{error:#}")),
    };
    if tally.failed > 0 {
        println!("-- {test} failed{whose}:\n{log}");
        outcome.failures.push(test.to_owned());
        outcome.tally = outcome.tally.and(tally);
        return;
    }
    let skips: Vec<_> = skips(&log).map(|skip| format!("{skip}{whose}")).collect();
    outcome.tally = outcome.tally.and(tally.with_skips(u64::from(!skips.is_empty())));
    outcome.skips.extend(skips);
}

/// How a test's process ended.
#[derive(Debug)]
pub(crate) enum Ran {
    /// By itself.
    Ended { tally: Tally, log: String },
    /// It was killed at the deadline.
    TooLong { log: String },
}

/// Runs one test with its output in a file, so that a grandchild that holds the stream delays nobody.
pub(crate) fn run_test(command: &mut Command, deadline: Instant) -> Result<Ran> {
    let mut file = tempfile::tempfile()?;
    let mut child = command.stdout(file.try_clone()?).stderr(file.try_clone()?).spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(POLL);
    };
    let mut log = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut log)?;
    let log = String::from_utf8_lossy(&log).into_owned();
    let Some(status) = status else { return Ok(Ran::TooLong { log }) };
    let counted = log.lines().rev().find_map(|line| line.strip_prefix("test result: ")).map(libtest_counts);
    let failed = Tally { failed: 1, ..Tally::default() };
    let tally = if status.success() { counted.unwrap_or(failed) } else { failed };
    Ok(Ran::Ended { tally, log })
}

/// Names in `--list --format terse`.
pub(crate) fn tests(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| line.strip_suffix(": test"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::quiet;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn tests_are_listed_without_benches() {
        assert_eq!(tests("a::b: test\nc: benchmark\nd: test\n").collect::<Vec<_>>(), ["a::b", "d"]);
    }

    fn ran(script: &str, limit: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        enter(
            &mut outcome,
            "suite test",
            " (as sandbar-test)",
            run_test(quiet("sh").args(["-c", script]), Instant::now() + limit),
        );
        outcome
    }

    const RESULT: &str = "echo 'test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured'";

    #[test]
    fn a_test_that_passes_counts_as_passed_and_one_that_says_skip_as_skipped() {
        assert_eq!(ran(RESULT, LONG).tally, Tally { passed: 1, failed: 0, skipped: 0 });
        let skipped = ran(&format!("echo 'SKIP: a: no b'; {RESULT}"), LONG);
        assert_eq!(skipped.tally, Tally { passed: 0, failed: 0, skipped: 1 });
        assert_eq!(skipped.skips, ["a: no b (as sandbar-test)"]);
    }

    #[test]
    fn a_test_that_ends_badly_or_silently_or_never_counts_as_failed() {
        let failed = Tally { failed: 1, ..Tally::default() };
        assert_eq!(ran(&format!("{RESULT}; exit 1"), LONG).tally, failed);
        assert_eq!(ran("exit 0", LONG).tally, failed);
        assert_eq!(ran(&format!("{RESULT}; sleep 30"), Duration::from_millis(50)).tally, failed);
    }
}
