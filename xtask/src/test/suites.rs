//! The workspace's tests through cargo-nextest, or through `cargo test` where that is not installed.
//!
//! Tests get the path of the built program in `SANDBAR_BIN`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::report::{Outcome, Tally, skips};
use super::{cargo, has_subcommand};
use crate::command::{Tee, tee};

/// Runs unit and integration tests.
///
/// # Errors
/// When the runner cannot be started or its report cannot be read.
pub(super) fn run(root: &Path, sandbar: &Path) -> Result<Outcome> {
    if has_subcommand(root, "nextest") { run_nextest(root, sandbar) } else { run_libtest(root, sandbar) }
}

/// Runs the examples in documentation.
///
/// # Errors
/// When cargo cannot be started.
pub(super) fn run_doc(root: &Path) -> Result<Outcome> {
    from_libtest(cargo(root).args(["test", "--workspace", "--doc", "--no-fail-fast"]))
}

fn run_nextest(root: &Path, sandbar: &Path) -> Result<Outcome> {
    let report = root.join("target/nextest/ci/junit.xml");
    // An old report must not stand for a run that wrote none.
    let _ = std::fs::remove_file(&report);
    let mut command = cargo(root);
    command.args(["nextest", "run", "--workspace", "--profile", "ci", "--no-fail-fast"]);
    let (status, log) = tee(command.env("SANDBAR_BIN", sandbar), Tee::Stderr)?;
    let Some(tally) = nextest_summary(&log) else {
        return Ok(Outcome::failed(format!("cargo nextest ended with {status} and no summary")));
    };
    let report = std::fs::read_to_string(&report).context("cargo nextest wrote no junit.xml")?;
    let mut outcome = from_junit(&report, tally);
    if !status.success() && tally.failed == 0 {
        outcome.failures.push(format!("cargo nextest ended with {status}"));
    }
    Ok(outcome)
}

fn run_libtest(root: &Path, sandbar: &Path) -> Result<Outcome> {
    let mut command = cargo(root);
    command.args([
        "test",
        "--workspace",
        "--lib",
        "--bins",
        "--tests",
        "--no-fail-fast",
        "--",
        "--show-output",
    ]);
    let mut outcome = from_libtest(command.env("SANDBAR_BIN", sandbar))?;
    outcome.notes.push("cargo-nextest is not installed: tests shared processes and had no time limit".into());
    Ok(outcome)
}

fn from_libtest(command: &mut Command) -> Result<Outcome> {
    let (status, log) = tee(command, Tee::Stdout)?;
    let mut outcome = libtest_outcome(&log);
    if !status.success() && outcome.tally.failed == 0 {
        outcome.failures.push(format!("cargo test ended with {status}"));
    }
    Ok(outcome)
}

/// Counts in nextest's `Summary [ 1.2s] 7 tests run: 5 passed (1 slow), 1 failed, 1 timed out, 2 skipped`.
fn nextest_summary(log: &str) -> Option<Tally> {
    let line = log.lines().rev().find(|line| line.trim_start().starts_with("Summary ["))?;
    let (_, counts) = line.split_once("run: ")?;
    let mut tally = Tally::default();
    for part in counts.split(", ") {
        let (number, kind) = part.trim().split_once(' ')?;
        let number: u64 = number.parse().ok()?;
        let kind = kind.split(" (").next().unwrap_or(kind);
        match kind {
            "passed" => tally.passed += number,
            "skipped" => tally.skipped += number,
            _ => tally.failed += number,
        }
    }
    Some(tally)
}

/// Failures and skips by name, from nextest's JUnit report.
fn from_junit(report: &str, tally: Tally) -> Outcome {
    let cases: Vec<_> = report
        .split("<testcase ")
        .skip(1)
        .map(|case| case.split("</testcase>").next().unwrap_or(case))
        .collect();
    let named = |case: &&str| format!("{} {}", attribute(case, "classname"), attribute(case, "name"));
    let failed = |case: &&&str| case.contains("<failure") || case.contains("<error");
    let skipping: Vec<_> = cases.iter().filter(|case| !failed(case)).map(|case| unescape(case)).collect();
    let skips_of = |case: &String| skip_lines(case);
    let skipped = skipping.iter().filter(|case| !skips_of(case).is_empty()).count();
    Outcome {
        tally: tally.with_skips(skipped as u64),
        failures: cases.iter().filter(failed).map(named).collect(),
        skips: skipping.iter().flat_map(skips_of).collect(),
        notes: Vec::new(),
    }
}

/// A test's output stands between `<system-out>` tags, so its first line begins behind one.
fn skip_lines(case: &str) -> Vec<String> {
    let output =
        case.replace("<system-out>", "\n").replace("<system-err>", "\n").replace("</system-", "\n</system-");
    skips(&output).map(str::to_owned).collect()
}

fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
    let start = format!("{name}=\"");
    let found = element.match_indices(&start).find(|(at, _)| *at == 0 || element[..*at].ends_with(' '));
    found.and_then(|(at, _)| element[at + start.len()..].split('"').next()).unwrap_or_default()
}

fn unescape(xml: &str) -> String {
    xml.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

/// Sums the `test result:` lines of libtest and reads the names of failures and the skips.
fn libtest_outcome(log: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let mut block_skips = false;
    let mut skipped = 0;
    for line in log.lines() {
        if let Some(counts) = line.strip_prefix("test result: ") {
            outcome.tally = outcome.tally.and(libtest_counts(counts));
        }
        if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            outcome.failures.push(name.to_owned());
        }
        if line.starts_with("---- ") {
            block_skips = false;
        }
        for skip in skips(line) {
            outcome.skips.push(skip.to_owned());
            skipped += u64::from(!block_skips);
            block_skips = true;
        }
    }
    outcome.tally = outcome.tally.with_skips(skipped);
    outcome
}

/// Counts in libtest's `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; …`.
pub(super) fn libtest_counts(counts: &str) -> Tally {
    let mut tally = Tally::default();
    let counts = counts.split_once(". ").map_or(counts, |(_, counts)| counts);
    for part in counts.split("; ") {
        let mut words = part.split_whitespace();
        let (number, kind) = (words.next().and_then(|number| number.parse::<u64>().ok()), words.next());
        match (number, kind) {
            (Some(number), Some("passed")) => tally.passed = number,
            (Some(number), Some("failed")) => tally.failed = number,
            (Some(number), Some("ignored")) => tally.skipped = number,
            _ => {}
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextests_summary_is_counted_with_everything_that_is_not_a_pass_as_a_failure() {
        let log = "  PASS a\n     Summary [   1.204s] 7 tests run: 4 passed (1 slow), 1 failed, 1 timed out, 1 exec failed, 2 skipped\n";
        assert_eq!(nextest_summary(log), Some(Tally { passed: 4, failed: 3, skipped: 2 }));
        assert_eq!(nextest_summary("error: could not compile"), None);
    }

    #[test]
    fn a_passing_test_that_said_skip_is_a_skip_and_a_failing_one_a_failure() {
        let report = r#"<testsuite name="x::it"><testcase name="one" classname="x::it" time="0.1">
<system-out>
running 1 test
SKIP: one: needs &quot;overlay&quot;
</system-out></testcase><testcase name="two" classname="x::it"><failure type="test failure"/>
<system-err>SKIP: two: never</system-err></testcase><testcase name="three" classname="x::it"/></testsuite>"#;
        let outcome = from_junit(report, Tally { passed: 2, failed: 1, skipped: 0 });
        assert_eq!(
            outcome,
            Outcome {
                tally: Tally { passed: 1, failed: 1, skipped: 1 },
                failures: vec!["x::it two".into()],
                skips: vec!["one: needs \"overlay\"".into()],
                notes: Vec::new(),
            }
        );
    }

    #[test]
    fn libtests_results_are_summed_over_binaries() {
        let log = "\
test a ... ok
test b ... FAILED
---- a stdout ----
SKIP: a: no tmpfs
SKIP: a: no procfs either
test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let outcome = libtest_outcome(log);
        assert_eq!(outcome.tally, Tally { passed: 4, failed: 1, skipped: 2 });
        assert_eq!(outcome.failures, ["b"]);
        assert_eq!(outcome.skips, ["a: no tmpfs", "a: no procfs either"]);
    }
}
