//! Developer tasks of Sandbar, run as `cargo xtask TASK`.
//!
//! Everything CI does is a task here, so that a person can run the same thing. Knows the workspace from the
//! outside only: through cargo, the source text and the built binaries, never by linking a crate of it.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool talks on its streams")]

mod bench;
mod cargo;
mod command;
mod packages;
mod peers;
mod soak;
mod test;
mod tidy;
mod xcheck;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer tasks of Sandbar")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check the rules that the compiler does not know: rooms, unsafe code, licences, documents
    Tidy,
    /// Format, lint, tidy and every test, the kernel's twice: as root and as an ordinary user
    Test(test::Options),
    /// Properties with many cases, fuzz targets for a time each, the keeper under stress in full numbers
    Soak(soak::Options),
    /// Measure against the floor and, with --peers, against the peers, interleaved in one run
    Bench(bench::Options),
    /// Type-check what is written for other platforms: Arm, macOS, Windows
    Xcheck,
    /// Install what `bench --peers` compares with, under target/peers
    Peers,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether everything the task looked at was in order.
fn run(cli: &Cli) -> Result<bool> {
    let root = cargo::workspace_root()?;
    match &cli.task {
        Task::Tidy => tidy::run(&root),
        Task::Test(options) => test::run(&root, options),
        Task::Soak(options) => soak::run(&root, options),
        Task::Bench(options) => bench::run(&root, options),
        Task::Xcheck => xcheck::run(&root),
        Task::Peers => peers::install(&root),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
