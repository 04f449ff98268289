//! The subcommands, each on its own.

pub(crate) mod doctor;
mod keeper;
mod kill;
mod logs;
mod policy;
mod ps;

use crate::cli::{Cli, Command};
use crate::render::Problem;

/// Carries out what was typed.
///
/// # Errors
/// What it was, where, and what to do.
pub(crate) fn execute(cli: Cli) -> Result<u8, Problem> {
    match cli.command {
        Command::Run(args) => crate::run::execute(&args),
        Command::Ps(args) => ps::execute(&args),
        Command::Logs(args) => logs::execute(&args),
        Command::Kill(args) => kill::execute(&args),
        Command::Policy(command) => policy::execute(&command),
        Command::Doctor(args) => doctor::execute(&args),
        Command::Keeper(command) => keeper::execute(&command),
    }
}
