//! `sandbar completions`: what a shell needs to complete our commands, made from their definition.

use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionsArgs};
use crate::output;
use crate::render::Problem;

/// Prints the script for one shell.
///
/// # Errors
/// Standard output can't be written.
pub(super) fn execute(args: &CompletionsArgs) -> Result<u8, Problem> {
    output::print(script(args.shell))
}

fn script(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sandbar", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;
    use clap_complete::Shell;

    use super::*;

    #[test]
    fn every_shell_learns_every_option_of_run() {
        let run = Cli::command().find_subcommand("run").unwrap().clone();
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            for option in run.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(script.contains(option), "{shell} does not know --{option}");
            }
        }
    }
}
