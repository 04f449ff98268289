//! What takes longer than a test may: many cases of every property, fuzz targets for as long as somebody wants, and
//! the keeper under stress in full numbers.
//!
//! Nothing here is a test that CI does not have; it is the same tests with more time. How much is a flag. The seed
//! is another one each time and printed. Fuzz targets are built with counters of what ran (`fuzz/coverage.rs`), so
//! that inputs which reach something new lead to others; where they can't be built so, they run without, and the
//! report says that.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::cargo::{self, Executable, ExecutableKind, cargo, is_sandbar};
use crate::command::{check, output, quiet};
use crate::test::harness::{Ran, enter, run_test, tests};
use crate::test::report::{Outcome, Report};

/// What a test reads (`sandbar_testkit::soak`).
const SEED: &str = "SANDBAR_SOAK_SEED";
const SECONDS: &str = "SANDBAR_SOAK_SECONDS";
const PERCENT: &str = "SANDBAR_SOAK_PERCENT";
const CORPUS: &str = "SANDBAR_FUZZ_CORPUS";
const CASES: &str = "PROPTEST_CASES";

/// What names of fuzz targets begin with, behind their modules.
const TARGET: &str = "fuzz_";

/// The suites that put the keeper, the exec server and its client under stress, the one that compares sandboxes with
/// what is said of them, and the one that kills everybody at every step; and what the names of their tests begin with.
const STRESS: [(&str, &str); 5] =
    [("stress", ""), ("conformance", "faults::"), ("lossy", ""), ("views", ""), ("litter", "")];

/// What a fuzz target may take beyond the time that it was told: one slow input, and looking for a shorter one.
const FUZZ_MARGIN: Duration = Duration::from_secs(300);

/// How long one test under stress may take in full numbers.
const STRESS_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How long the cases of one property may take.
const PROPERTY_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Counters on every edge (clang's SanitizerCoverage). The pass is LLVM's and in every rustc.
const COUNTERS: [&str; 3] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=3",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
];

/// Command line of `cargo xtask soak`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run this step only; may be given several times
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
    /// Run only tests whose name has this in it
    #[arg(value_name = "NAME")]
    filter: Option<String>,
    /// Seconds for each fuzz target
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// Cases of each property
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    cases: u64,
    /// How much of the full numbers the keeper is put under
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    percent: u64,
    /// What random choices begin with, to repeat a run; another one each time without it
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// A step, in the order they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Properties, with many cases each
    Properties,
    /// Parsers of foreign bytes, for a time each
    Fuzz,
    /// The keeper under stress, in full numbers
    Stress,
}

/// Runs the steps, prints the report, and returns whether everything passed.
///
/// # Errors
/// When the seed can't be told from the clock.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let seed = match options.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
    };
    println!("seed {seed}");
    let mut report = Report::default();
    for step in Step::value_variants() {
        if !options.only.is_empty() && !options.only.contains(step) {
            continue;
        }
        let name = step.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        println!("== {name}");
        let started = Instant::now();
        let outcome = match step {
            Step::Properties => properties(root, options, seed),
            Step::Fuzz => fuzz(root, options, seed),
            Step::Stress => stress(root, options, seed),
        };
        let outcome = outcome.unwrap_or_else(|error| Outcome::failed(format!("{error:#}")));
        println!("== {name} {} in {:.1} s", outcome.word(), started.elapsed().as_secs_f64());
        report.add(&name, outcome, started.elapsed());
    }
    println!("\n{report}");
    Ok(report.passed())
}

/// A test of a binary, with what it is given.
struct Test<'a> {
    binary: &'a Executable,
    name: String,
}

impl Test<'_> {
    fn of<'a>(binaries: &'a [Executable], chosen: impl Fn(&str) -> bool) -> Result<Vec<Test<'a>>> {
        let mut found = Vec::new();
        for binary in binaries {
            let list = output(quiet(&binary.path).args(["--list", "--format", "terse"]))?;
            let names = tests(&list).filter(|name| chosen(name));
            found.extend(names.map(|name| Test { binary, name: name.to_owned() }));
        }
        Ok(found)
    }

    /// Runs it, and says what it says of itself.
    fn run(&self, variables: &[(&str, &str)], limit: Duration) -> Result<Ran> {
        let mut command = Command::new(&self.binary.path);
        // Tests find their samples from the folder of their package, as cargo starts them.
        command.current_dir(&self.binary.folder).stdin(std::process::Stdio::null());
        command.args(["--exact", &self.name, "--nocapture"]).envs(variables.iter().copied());
        let ran = run_test(&mut command, Instant::now() + limit)?;
        if let Ran::Ended { log, .. } = &ran {
            log.lines().filter_map(|line| line.strip_prefix("SOAK: ")).for_each(|line| println!("{line}"));
        }
        Ok(ran)
    }
}

/// Runs tests, so many at a time.
fn run_all(
    tests: Vec<Test<'_>>,
    workers: usize,
    variables: &[(&str, &str)],
    limit: Duration,
) -> Result<Outcome> {
    let tests = Mutex::new(VecDeque::from(tests));
    let outcome = Mutex::new(Outcome::default());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(test) = tests.lock().ok().and_then(|mut tests| tests.pop_front()) {
                    let ran = test.run(variables, limit);
                    if let Ok(mut outcome) = outcome.lock() {
                        enter(&mut outcome, &format!("{} {}", test.binary.package, test.name), "", ran);
                    }
                }
            });
        }
    });
    match outcome.into_inner() {
        Ok(outcome) => Ok(outcome),
        Err(_) => bail!("a worker panicked"),
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn wanted(options: &Options, name: &str) -> bool {
    options.filter.as_deref().is_none_or(|part| name.contains(part))
}

fn properties(root: &Path, options: &Options, seed: u64) -> Result<Outcome> {
    let mut command = cargo(root);
    command.args(["test", "--workspace", "--exclude", "xtask", "--lib", "--bins", "--no-run"]);
    let built = cargo::build(&mut command)?;
    let is_target = |name: &str| name.rsplit("::").next().is_some_and(|name| name.starts_with(TARGET));
    let tests = Test::of(&built, |name| !is_target(name) && wanted(options, name))?;
    let (seed, cases) = (seed.to_string(), options.cases.to_string());
    run_all(tests, processors(), &[(SEED, &seed), (CASES, &cases)], PROPERTY_LIMIT)
}

fn fuzz(root: &Path, options: &Options, seed: u64) -> Result<Outcome> {
    let packages = packages_with_targets(root)?;
    let folder = cargo::target_directory(root)?.join("soak");
    let mut without = None;
    let built = match guided(root, &folder, &packages) {
        Ok(built) => built,
        Err(error) => {
            without = Some(format!("guidance of fuzz targets by what ran: {error:#}"));
            cargo::build(targets(&mut cargo(root), &packages))?
        }
    };
    let is_target = |name: &str| name.rsplit("::").next().is_some_and(|name| name.starts_with(TARGET));
    let tests = Test::of(&built, |name| is_target(name) && wanted(options, name))?;
    let (seed, seconds) = (seed.to_string(), options.seconds.to_string());
    let corpus = folder.join("corpus");
    let corpus = corpus.to_str().context("the path of the target directory is no text")?;
    let variables = [(SEED, seed.as_str()), (SECONDS, &seconds), (CORPUS, corpus)];
    let limit = Duration::from_secs(options.seconds) + FUZZ_MARGIN;
    let mut outcome = run_all(tests, processors(), &variables, limit)?;
    outcome.skips.extend(without);
    Ok(outcome)
}

/// Packages of the workspace with fuzz targets among their unit tests.
fn packages_with_targets(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join("crates"))? {
        let folder = entry?.path();
        if has_target(&folder.join("src"))?
            && let Some(name) = folder.file_name().and_then(|name| name.to_str())
        {
            found.push(name.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

fn has_target(folder: &Path) -> Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_one = if path.is_dir() {
            has_target(&path)?
        } else {
            std::fs::read_to_string(&path)?.contains(&format!("    fn {TARGET}"))
        };
        if is_one {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Completes a cargo command to one that builds the unit tests of `packages`.
fn targets<'a>(command: &'a mut Command, packages: &[String]) -> &'a mut Command {
    command.args(["test", "--lib", "--bins", "--no-run"]);
    command.args(packages.iter().flat_map(|package| ["--package", package]))
}

/// Builds the targets with counters, in a folder of their own: nothing else is to be built again because of them.
fn guided(root: &Path, folder: &Path, packages: &[String]) -> Result<Vec<Executable>> {
    std::fs::create_dir_all(folder)?;
    let library = folder.join("libsandbar_coverage.rlib");
    let rustc = || quiet(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let mut command = rustc();
    command.current_dir(root).args([
        "--edition",
        "2024",
        "--crate-type",
        "rlib",
        "--crate-name",
        "sandbar_coverage",
    ]);
    check(command.args(["-O", "-D", "warnings", "fuzz/coverage.rs", "-o"]).arg(&library))?;
    let version = output(rustc().current_dir(root).arg("-vV"))?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let (library, place) = (text(&library)?, text(folder)?);
    let flags = [
        "--cfg=sandbar_coverage",
        &format!("--extern=sandbar_coverage={library}"),
        &format!("-Ldependency={place}"),
    ];
    let flags: Vec<&str> = flags.into_iter().chain(COUNTERS).collect();
    let mut command = cargo(root);
    // With a target named, programs that run during the build are spared the counters.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).env("CARGO_BUILD_TARGET", host);
    command.env("CARGO_TARGET_DIR", folder).env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    cargo::build(targets(&mut command, packages))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path of the target directory is no text")
}

fn stress(root: &Path, options: &Options, seed: u64) -> Result<Outcome> {
    let built = cargo::build_tests(root)?;
    let sandbar: PathBuf = built
        .iter()
        .find(|executable| is_sandbar(executable))
        .context("cargo built no program `sandbar`")?
        .path
        .clone();
    let suites: Vec<(Vec<Executable>, &str)> = STRESS
        .iter()
        .map(|(target, prefix)| {
            let is_it = |executable: &&Executable| {
                executable.kind == ExecutableKind::Test && executable.target == *target
            };
            (built.iter().filter(is_it).cloned().collect(), *prefix)
        })
        .collect();
    let mut tests = Vec::new();
    for ((suite, prefix), (target, _)) in suites.iter().zip(STRESS) {
        let found = Test::of(suite, |name| name.starts_with(prefix) && wanted(options, name))?;
        if found.is_empty() && options.filter.is_none() {
            bail!("there is no suite `{target}`");
        }
        tests.extend(found);
    }
    let (seed, percent) = (seed.to_string(), options.percent.to_string());
    let variables = [(SEED, seed.as_str()), (PERCENT, &percent), ("SANDBAR_BIN", text(&sandbar)?)];
    // One at a time: each is to have the machine.
    run_all(tests, 1, &variables, STRESS_LIMIT)
}
