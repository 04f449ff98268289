//! The subcommands, each on its own.

mod completions;
mod doctor;
mod keeper;
mod kill;
mod logs;
mod man;
mod policy;
mod ps;
mod serve;

use crate::cli::{Cli, Command};
use crate::render::Problem;
use crate::{descriptors, exit};

/// Carries out what was typed.
///
/// # Errors
/// What it was, where, and what to do.
pub(crate) fn execute(cli: Cli) -> Result<u8, Problem> {
    let is_run = matches!(cli.command, Command::Run(_));
    let result = descriptors::check().and_then(|()| carry_out(cli.command));
    if is_run { result } else { result.map_err(plain_status) }
}

fn carry_out(command: Command) -> Result<u8, Problem> {
    match command {
        Command::Run(args) => crate::run::execute(&args),
        Command::Ps(args) => ps::execute(&args),
        Command::Logs(args) => logs::execute(&args),
        Command::Attach(args) => crate::run::attach::execute(&args),
        Command::Kill(args) => kill::execute(&args),
        Command::Policy(command) => policy::execute(&command),
        Command::Serve(args) => serve::execute(&args),
        Command::Doctor(args) => doctor::execute(&args),
        Command::Completions(args) => completions::execute(&args),
        Command::Man(args) => man::execute(&args),
        Command::Keeper(command) => keeper::execute(&command),
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
