//! Exit statuses, as docs/exit-status.md lists them.

use std::process::ExitCode;

use crate::render::{self, Problem};

/// Sandbar did what was asked.
pub(crate) const OK: u8 = 0;
/// It could not, for a reason that has no status of its own.
pub(crate) const FAILED: u8 = 1;
/// The command line was not understood.
pub(crate) const USAGE: u8 = 2;
/// A command took longer than it was given.
pub(crate) const TIMED_OUT: u8 = 124;
/// `run` could not run the command.
pub(crate) const CANNOT_RUN: u8 = 125;
/// `run` found the program and could not execute it.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// `run` did not find the program.
pub(crate) const NOT_FOUND: u8 = 127;
/// A person interrupted what would have gone on: 128 plus SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// Renders a problem, if there is one, and gives the status of the process.
pub(crate) fn code(result: Result<u8, Problem>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(status),
        Err(problem) => {
            let status = problem.status;
            render::print(&problem);
            ExitCode::from(status)
        }
    }
}
