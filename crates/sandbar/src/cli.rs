//! The command line: what a person may type.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sandbar_policy::Profile;
use sandbar_proto::NetworkMode;

use crate::exit;
use crate::render::Problem;
use crate::terminal::DetachKeys;

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
    #[arg(long, value_name = "PATH")]
    pub(crate) allow_write: Vec<OsString>,
    /// Also readable, secrets too; repeatable
    #[arg(long, value_name = "PATH")]
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
    #[arg(short = 'C', long = "cwd", value_name = "DIR")]
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
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<OsString>,
    /// Keep variables that look like secrets; repeatable
    #[arg(long, value_name = "GLOB")]
    pub(crate) env_keep: Vec<OsString>,
    /// Remove a variable; repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) env_unset: Vec<OsString>,
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
    #[arg(long, value_name = "TIME", value_parser = duration)]
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
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
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
    #[arg(required = true, value_name = "PATH")]
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

#[derive(Debug, Subcommand)]
pub(crate) enum KeeperCommand {
    /// End the keeper if nothing runs
    Stop,
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

/// A time as people write it: seconds, or a number with s, m or h.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.char_indices().find(|(_, character)| character.is_ascii_alphabetic()) {
        Some((at, _)) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is no unit of time; write s, m or h")),
    };
    let seconds: f64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    let duration = Duration::try_from_secs_f64(seconds * factor).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("a time of zero would end it at once".to_owned()) } else { Ok(duration) }
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
    fn times_are_read_as_people_write_them() {
        let table = [("90", 90_000), ("90s", 90_000), ("1.5m", 90_000), ("1h", 3_600_000), ("250ms", 250)];
        for (text, millis) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        for text in ["", "0", "x", "5d", "-1"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn options_of_the_command_are_not_ours() {
        let cli = Cli::try_parse_from(["sandbar", "run", "-p", "read-only", "ls", "-l", "--json"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert_eq!(args.command, ["ls", "-l", "--json"]);
        assert!(!args.json);
    }

    #[test]
    fn the_help_of_run_fits_a_screen() {
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").unwrap();
        let help = run.render_help().to_string();
        assert!(help.lines().count() <= 40, "{help}");
    }
}
