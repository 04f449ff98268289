//! What a run found: counts of the runners, failures by name, and what was not tested, with the reason.

use std::fmt;
use std::time::Duration;

/// Counts of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// The sum of two.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }

    /// Counts tests that passed without testing anything as skipped.
    pub(crate) fn with_skips(self, tests: u64) -> Self {
        let tests = tests.min(self.passed);
        Self { passed: self.passed - tests, skipped: self.skipped + tests, ..self }
    }
}

/// What one step came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Counts, for steps that run tests.
    pub(crate) tally: Tally,
    /// Why it failed, one line each; empty when it passed.
    pub(crate) failures: Vec<String>,
    /// What it did not test, as `name: reason`.
    pub(crate) skips: Vec<String>,
    /// What a reader should know although nothing failed.
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    /// A step that failed as a whole.
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self { failures: vec![why.into()], ..Self::default() }
    }

    /// A step that did not run.
    pub(crate) fn skipped(reason: impl Into<String>) -> Self {
        Self { skips: vec![reason.into()], ..Self::default() }
    }

    /// Counts another one in.
    pub(super) fn add(&mut self, other: Self) {
        let Self { tally, failures, skips, notes } = other;
        self.tally = self.tally.and(tally);
        self.failures.extend(failures);
        self.skips.extend(skips);
        self.notes.extend(notes);
    }

    /// One word for the progress line.
    pub(crate) fn word(&self) -> &'static str {
        if !self.failures.is_empty() || self.tally.failed > 0 {
            "failed"
        } else if self.tally == Tally::default() && !self.skips.is_empty() {
            "skipped"
        } else {
            "passed"
        }
    }
}

/// What all steps came to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    steps: Vec<(String, Outcome, Duration)>,
    /// What the whole run did not test, as `name: reason`.
    pub(crate) skips: Vec<String>,
}

impl Report {
    /// Enters a step.
    pub(crate) fn add(&mut self, name: &str, outcome: Outcome, took: Duration) {
        self.steps.push((name.to_owned(), outcome, took));
    }

    /// Whether every step passed.
    pub(crate) fn passed(&self) -> bool {
        self.steps.iter().all(|(_, outcome, _)| outcome.word() != "failed")
    }

    fn tally(&self) -> Tally {
        self.steps.iter().fold(Tally::default(), |sum, (_, outcome, _)| sum.and(outcome.tally))
    }
}

impl fmt::Display for Report {
    /// Ends with `N passed, N failed, N skipped` alone on a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome, took) in &self.steps {
            writeln!(f, "{name:<14} {:<8} {:>7.1} s", outcome.word(), took.as_secs_f64())?;
        }
        let all = |of: fn(&Outcome) -> &Vec<String>| {
            self.steps.iter().flat_map(move |(step, outcome, _)| {
                of(outcome).iter().map(move |line| format!("{step}: {line}"))
            })
        };
        section(f, "Not tested", self.skips.iter().cloned().chain(all(|outcome| &outcome.skips)))?;
        section(f, "Notes", all(|outcome| &outcome.notes))?;
        section(f, "Failures", all(|outcome| &outcome.failures))?;
        let Tally { passed, failed, skipped } = self.tally();
        write!(f, "\n{passed} passed, {failed} failed, {skipped} skipped")
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, lines: impl Iterator<Item = String>) -> fmt::Result {
    for (at, line) in lines.enumerate() {
        if at == 0 {
            writeln!(f, "\n{title}:")?;
        }
        writeln!(f, "  {line}")?;
    }
    Ok(())
}

/// The `name: reason` of each line `SKIP: name: reason` in a test's output.
pub(crate) fn skips(output: &str) -> impl Iterator<Item = &str> {
    output.lines().filter_map(|line| line.trim().strip_prefix("SKIP: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_what_was_not_tested_and_ends_with_the_counts() {
        let mut report = Report::default();
        report.add("fmt", Outcome::default(), Duration::from_millis(1500));
        let tests = Outcome {
            tally: Tally { passed: 5, failed: 1, skipped: 0 }.with_skips(2),
            failures: vec!["store::append".into()],
            skips: vec!["landlock_scopes: the kernel has Landlock ABI 5".into()],
            notes: Vec::new(),
        };
        report.add("tests", tests, Duration::from_secs(12));
        report.add("unprivileged", Outcome::skipped("this is not root"), Duration::ZERO);
        assert_eq!(
            report.to_string(),
            "\
fmt            passed       1.5 s
tests          failed      12.0 s
unprivileged   skipped      0.0 s

Not tested:
  tests: landlock_scopes: the kernel has Landlock ABI 5
  unprivileged: this is not root

Failures:
  tests: store::append

3 passed, 1 failed, 2 skipped"
        );
        assert!(!report.passed());
    }

    #[test]
    fn a_failed_test_fails_its_step_even_without_a_reason() {
        let outcome = Outcome { tally: Tally { failed: 1, ..Tally::default() }, ..Outcome::default() };
        assert_eq!(outcome.word(), "failed");
    }

    #[test]
    fn skips_are_read_from_lines_that_begin_with_them() {
        let output = "running 1 test\nSKIP: overlay: no user namespace\n  SKIP: b: c\nnot a SKIP: d: e\n";
        assert_eq!(skips(output).collect::<Vec<_>>(), ["overlay: no user namespace", "b: c"]);
    }
}
