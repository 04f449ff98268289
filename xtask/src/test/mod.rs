//! Everything that has to pass: format, lints, rules, tests, the sandbox's tests again with other executors, and the
//! kernel's as an ordinary user.
//!
//! All steps run even when one failed, so that one run tells everything. What was not tested is named with its
//! reason at the end; counts are those of the test runners, never of steps.

mod executors;
pub(crate) mod harness;
pub(crate) mod report;
mod suites;
mod unprivileged;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::cargo::{self, Executable, cargo, has_subcommand, is_sandbar};
use crate::packages::{self, FOR_TESTS, Install};
use report::{Outcome, Report};

/// How long one integration suite, and any single test, may take. A suite that needs longer is a soak test.
const SUITE_LIMIT: Duration = Duration::from_secs(60);

/// Command line of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run this step only; may be given several times
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
    /// Change nothing on this host: install no package, make no user
    #[arg(long)]
    no_install: bool,
}

/// A step, in the order they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// cargo fmt --check
    Fmt,
    /// cargo clippy, warnings are errors
    Clippy,
    /// cargo xtask tidy
    Tidy,
    /// Unit and integration tests
    Tests,
    /// Examples in documentation
    Doc,
    /// The sandbox's tests with every other executor
    Executors,
    /// The kernel's tests as an ordinary user
    Unprivileged,
}

/// What a step knows.
struct Setting<'a> {
    root: &'a Path,
    install: Install,
}

/// Runs the steps, prints the report, and returns whether everything passed.
///
/// # Errors
/// When a step could not be carried out at all.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let install = if options.no_install { Install::Forbidden } else { Install::Allowed };
    let context = Setting { root, install };
    let mut report = Report::default();
    if let Some(missing) = packages::ensure(FOR_TESTS, install)? {
        report.skips.push(format!("host programs: {missing}"));
    }
    for step in Step::value_variants() {
        if !options.only.is_empty() && !options.only.contains(step) {
            continue;
        }
        let name = step.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        println!("== {name}");
        let started = Instant::now();
        let outcome = step.run(&context).unwrap_or_else(|error| Outcome::failed(format!("{error:#}")));
        println!("== {name} {} in {:.1} s", outcome.word(), started.elapsed().as_secs_f64());
        report.add(&name, outcome, started.elapsed());
    }
    println!("\n{report}");
    Ok(report.passed())
}

impl Step {
    fn run(self, context: &Setting) -> Result<Outcome> {
        let root = context.root;
        match self {
            Self::Fmt => simple(cargo(root).args(["fmt", "--all", "--check"]), "run `cargo fmt --all`"),
            Self::Clippy => simple(
                cargo(root).args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
                "see the lints above",
            ),
            Self::Tidy => {
                let in_order = crate::tidy::run(root)?;
                Ok(if in_order { Outcome::default() } else { Outcome::failed("see the findings above") })
            }
            Self::Tests => suites::run(root, sandbar(&cargo::build_tests(root)?)?),
            Self::Doc => suites::run_doc(root),
            Self::Executors => {
                let built = cargo::build_tests(root)?;
                executors::run(&built, sandbar(&built)?)
            }
            Self::Unprivileged => unprivileged::run(&cargo::build_tests(root)?, context.install),
        }
    }
}

fn simple(command: &mut std::process::Command, advice: &str) -> Result<Outcome> {
    let status = command.status().context("could not run cargo")?;
    Ok(if status.success() { Outcome::default() } else { Outcome::failed(advice) })
}

fn sandbar(built: &[Executable]) -> Result<&Path> {
    match built.iter().find(|executable| is_sandbar(executable)) {
        Some(executable) => Ok(&executable.path),
        None => bail!("cargo built no program `sandbar`"),
    }
}
