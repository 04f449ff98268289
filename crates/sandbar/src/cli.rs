//! The command line: what a person may type.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sandbar_policy::{Glob, Profile};
use sandbar_proto::{ByteString, EnvVar, NetworkMode};

use crate::render::Problem;
use crate::terminal::DetachKeys;
use crate::{exit, values};

/// Runs commands in a sandbox, under rules a person wrote, recorded so that nothing is lost.
#[derive(Debug, Parser)]
#[command(name = "sandbar", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command: sandboxed and recorded
    Run(RunArgs),
    /// List what runs here
    Ps(PsArgs),
    /// Show what a run wrote
    Logs(LogsArgs),
    /// Look at a run, and type into it
    Attach(AttachArgs),
    /// End runs, with everything they started
    Kill(KillArgs),
    /// What may be touched, and which line says so
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Check whether this machine can run a sandbox
    Doctor(DoctorArgs),
    /// Print what completes these commands in a shell
    Completions(CompletionsArgs),
    /// Print a manual page, or write all of them
    Man(ManArgs),
    /// The process that holds what runs
    #[command(subcommand, hide = true)]
    Keeper(KeeperCommand),
}

/// What may be touched.
#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// read-only, workspace or danger-full-access
    #[arg(short, long, value_name = "PROFILE", default_value = "workspace")]
    pub(crate) profile: String,
    /// Also writable; repeatable
    #[arg(long, value_name = "PATH", value_parser = values::path())]
    pub(crate) allow_write: Vec<OsString>,
    /// Also readable, secrets too; repeatable
    #[arg(long, value_name = "PATH", value_parser = values::path())]
    pub(crate) allow_read: Vec<OsString>,
    /// Network: off has a loopback of its own, on is this machine's
    #[arg(long, value_enum, value_name = "off|on", hide_possible_values = true)]
    pub(crate) net: Option<Net>,
    /// commit: commits work; protect: .git is read-only
    #[arg(
        long,
        value_enum,
        value_name = "commit|protect",
        default_value = "commit",
        hide_possible_values = true
    )]
    pub(crate) git: Git,
    /// Working directory, instead of the current one
    #[arg(short = 'C', long = "cwd", value_name = "DIR", value_parser = values::path())]
    pub(crate) cwd: Option<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Net {
    Off,
    On,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Git {
    Commit,
    Protect,
}

/// What the environment holds.
#[derive(Debug, Default, Args)]
pub(crate) struct EnvArgs {
    /// Set a variable; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::variable())]
    pub(crate) env: Vec<EnvVar>,
    /// Keep variables that look like secrets; repeatable
    #[arg(long, value_name = "GLOB", value_parser = values::glob())]
    pub(crate) env_keep: Vec<Glob>,
    /// Remove a variable; repeatable
    #[arg(long, value_name = "NAME", value_parser = values::name())]
    pub(crate) env_unset: Vec<ByteString>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: the command's own, 128+n for signal n, 124 time-out, 125 sandbar could not \
                        run it, 126 not executable, 127 not found."
)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    #[command(flatten)]
    pub(crate) env: EnvArgs,
    /// End it after this time (90, 90s, 5m, 1h)
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Keep no record of this run
    #[arg(long)]
    pub(crate) no_record: bool,
    /// Print the run's id and leave it running; `sandbar attach` comes back to it
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keys that detach from its terminal (for example ctrl-p,ctrl-q); none unless given
    #[arg(long, value_name = "KEYS", conflicts_with = "detach")]
    pub(crate) detach_keys: Option<DetachKeys>,
    /// Print events as JSON lines instead of the output itself
    #[arg(long)]
    pub(crate) json: bool,
    /// Print no notes
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Also list what has ended
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Run, by any unique beginning of its id
    pub(crate) id: String,
    /// Go on until the run ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print the bytes as they are, escape sequences included
    #[arg(long)]
    pub(crate) raw: bool,
    /// Print events as JSON lines
    #[arg(long, conflicts_with = "raw")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Shows the screen as it is, then goes on. Others may be attached too: everybody's keys reach the \
                  command, and its terminal has the size of whoever attached or changed theirs last.\n\nExit status: \
                  the command's own when it ends, 0 when detached."
)]
pub(crate) struct AttachArgs {
    /// Run, by any unique beginning of its id
    pub(crate) id: String,
    /// Keys that detach: letters and ctrl-LETTER between commas; empty for none
    #[arg(long, value_name = "KEYS", default_value = DetachKeys::USUAL)]
    pub(crate) detach_keys: DetachKeys,
    /// Print no notes
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Runs, by any unique beginning of their ids
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Send only this signal (TERM, INT, 9), to the command's process group, and do not wait
    #[arg(short, long, value_name = "SIGNAL", conflicts_with = "grace")]
    pub(crate) signal: Option<String>,
    /// Time from TERM to KILL
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "2s")]
    pub(crate) grace: Duration,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// List what a run here may touch
    Show(PolicyShowArgs),
    /// Say what a run here may do with paths, and why
    Explain(PolicyExplainArgs),
    /// List which environment variables a run gets, and why; never their values
    Env(PolicyEnvArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PolicyShowArgs {
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyExplainArgs {
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Paths
    #[arg(required = true, value_name = "PATH", value_parser = values::path())]
    pub(crate) paths: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyEnvArgs {
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    #[command(flatten)]
    pub(crate) env: EnvArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "For bash: sandbar completions bash > ~/.local/share/bash-completion/completions/sandbar"
)]
pub(crate) struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "To read one: sandbar man run | man -l -")]
pub(crate) struct ManArgs {
    /// Commands of the page, none for the page of sandbar itself
    #[arg(value_name = "COMMAND")]
    pub(crate) path: Vec<String>,
    /// Write every page into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "path")]
    pub(crate) dir: Option<std::path::PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeeperCommand {
    /// End the keeper if nothing runs
    Stop,
    /// Replace the keeper by this version of sandbar; what runs goes on
    Upgrade,
}

/// Parses this process's arguments. Help and version are printed here and end the process.
///
/// # Errors
/// Nothing: what clap does not understand it says itself, with status 2.
pub(crate) fn parse() -> Result<Cli, Problem> {
    Cli::try_parse().map_err(|error| {
        // Help goes to standard output with status 0, everything else to standard error.
        let status = if error.use_stderr() { exit::USAGE } else { exit::OK };
        // A reader that closed the pipe has seen enough.
        let _ = error.print();
        std::process::exit(i32::from(status))
    })
}

impl SandboxArgs {
    /// The profile that was named.
    ///
    /// # Errors
    /// No profile has that name.
    pub(crate) fn profile(&self) -> Result<Profile, Problem> {
        self.profile.parse().map_err(|error: sandbar_policy::UnknownProfile| {
            Problem::new(format!("no profile is named {:?}", error.name))
                .at(format!("--profile {}", error.name))
                .advise(format!("use one of {}", error.known.join(", ")))
                .status(exit::CANNOT_RUN)
        })
    }

    /// The network that was chosen.
    pub(crate) fn network(&self) -> Option<NetworkMode> {
        self.net.map(|net| match net {
            Net::Off => NetworkMode::Off,
            Net::On => NetworkMode::On,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_the_command_are_not_ours() {
        let cli = Cli::try_parse_from(["sandbar", "run", "-p", "read-only", "ls", "-l", "--json"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert_eq!(args.command, ["ls", "-l", "--json"]);
        assert!(!args.json);
    }

    #[test]
    fn values_that_mean_nothing_are_no_command_line() {
        let table: [(&[&str], &str); 16] = [
            (&["run", "--allow-write", "", "true"], "the path is empty"),
            (&["run", "--allow-read", "", "true"], "the path is empty"),
            (&["run", "-C", "", "true"], "the path is empty"),
            (&["policy", "show", "--cwd="], "the path is empty"),
            (&["policy", "explain", ""], "the path is empty"),
            (&["run", "--env", "", "true"], "no NAME=VALUE"),
            (&["run", "--env", "=x", "true"], "no NAME=VALUE"),
            (&["run", "--env", "A", "true"], "--env-keep NAME"),
            (&["run", "--env-unset", "", "true"], "the name is empty"),
            (&["run", "--env-unset", "A=B", "true"], "a name has no ="),
            (&["run", "--env-keep", "", "true"], "the glob is empty"),
            (&["run", "--env-keep", "[", "true"], "and no ["),
            (&["run", "--env-keep", "A=B", "true"], "a name has no ="),
            (&["policy", "env", "--env-keep", "{A,B}"], "and no {"),
            (&["run", "--timeout", "-1", "true"], "from 1ms to 8760h"),
            (&["kill", "--grace", "1e30", "id"], "from 1ms to 8760h"),
        ];
        for (arguments, reason) in table {
            let parsed = Cli::try_parse_from([&["sandbar"], arguments].concat());
            let error = parsed.expect_err(&arguments.join(" ")).to_string();
            assert!(error.contains(reason), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn a_pair_may_have_more_equal_signs() {
        let cli = Cli::try_parse_from(["sandbar", "run", "--env", "A=b=c", "true"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert_eq!(args.env.env, [EnvVar { name: "A".into(), value: "b=c".into() }]);
    }

    #[test]
    fn the_help_of_run_fits_a_screen() {
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").unwrap();
        let help = run.render_help().to_string();
        assert!(help.lines().count() <= 40, "{help}");
    }
}
