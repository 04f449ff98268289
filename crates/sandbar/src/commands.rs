//! The subcommands, each on its own.

mod doctor;
mod keeper;
mod kill;
mod logs;
mod policy;
mod ps;

use crate::cli::{Cli, Command};
use crate::exit;
use crate::render::Problem;

/// Carries out what was typed.
///
/// # Errors
/// What it was, where, and what to do.
pub(crate) fn execute(cli: Cli) -> Result<u8, Problem> {
    match cli.command {
        Command::Run(args) => crate::run::execute(&args),
        Command::Ps(args) => ps::execute(&args).map_err(plain_status),
        Command::Logs(args) => logs::execute(&args).map_err(plain_status),
        Command::Attach(args) => crate::run::attach::execute(&args).map_err(plain_status),
        Command::Kill(args) => kill::execute(&args).map_err(plain_status),
        Command::Policy(command) => policy::execute(&command).map_err(plain_status),
        Command::Doctor(args) => doctor::execute(&args).map_err(plain_status),
        Command::Keeper(command) => keeper::execute(&command).map_err(plain_status),
    }
}

/// Gives a problem that `run` has a status of its own for the plain one: only there it would be mistaken for the
/// command's.
fn plain_status(problem: Problem) -> Problem {
    match problem.status {
        exit::CANNOT_RUN => problem.status(exit::FAILED),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_run_are_its_own() {
        let status = |status| plain_status(Problem::new("x").status(status)).status;
        assert_eq!((status(exit::CANNOT_RUN), status(exit::USAGE)), (exit::FAILED, exit::USAGE));
    }
}
