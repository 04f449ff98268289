//! The command line: what a person may type.

use std::ffi::OsString;
use std::io::Write as _;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sandbar_exec::server::AllowedHost;
use sandbar_policy::{ExecutorWish, GiveUp, Glob, Profile};
use sandbar_proto::{ByteString, EnvVar, Limit, Limits, NetworkMode};

use crate::dirs::is_within_sandbox;
use crate::render::Problem;
use crate::terminal::DetachKeys;
use crate::values::LimitValue;
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
    /// Run commands and touch files for other programs, here or from afar
    Serve(ServeArgs),
    /// Places where commands run: this machine, and others
    #[command(subcommand)]
    Env(EnvCommand),
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
    /// read-only, workspace, external, danger-full-access, or one of config.toml
    ///
    /// Without a word about it workspace, and external within a sandbox of sandbar's own.
    #[arg(short, long, value_name = "PROFILE")]
    pub(crate) profile: Option<String>,
    /// Permissions in JSON instead, in the shapes of Codex
    #[arg(long, value_name = "FILE|JSON", value_parser = values::path(), conflicts_with = "profile")]
    pub(crate) permissions: Option<OsString>,
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
    #[arg(long, value_enum, value_name = "commit|protect", hide_possible_values = true)]
    pub(crate) git: Option<Git>,
    /// Debuggers may trace what the command starts
    #[arg(long, hide_short_help = true)]
    pub(crate) debug: bool,
    /// Other sandboxes may be made inside; Landlock is left out
    #[arg(long, hide_short_help = true)]
    pub(crate) nested: bool,
    /// Made by sandbar (native), the system's bwrap, or landlock alone
    #[arg(long = "sandbox", value_enum, value_name = "EXECUTOR", hide_possible_values = true)]
    pub(crate) executor: Option<Executor>,
    /// What landlock may go without: protected-names (.git/config, hooks, .claude); repeatable
    #[arg(long, value_enum, value_name = "WHAT", hide_possible_values = true, hide_short_help = true)]
    pub(crate) give_up: Vec<GivenUp>,
    /// Working directory, instead of the current one
    #[arg(short = 'C', long = "cwd", value_name = "DIR", value_parser = values::path())]
    pub(crate) cwd: Option<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Executor {
    Native,
    Bwrap,
    Landlock,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum GivenUp {
    ProtectedNames,
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

/// Where it happens.
#[derive(Debug, Default, Args)]
pub(crate) struct OnArgs {
    /// Where: a place of `sandbar env list`, an address (ws://, wss://, unix:, ssh://), or local
    #[arg(long, value_name = "ENV")]
    pub(crate) on: Option<String>,
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
    #[command(flatten)]
    pub(crate) on: OnArgs,
    /// End it after this time (90, 90s, 5m, 1h)
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Limit procs, memory, cpu, files or file-size (memory=2G,procs=99); repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::limit, value_delimiter = ',')]
    pub(crate) limit: Vec<LimitValue>,
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
    /// Print no notes but warnings about what is not protected
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    pub(crate) on: OnArgs,
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
    #[command(flatten)]
    pub(crate) on: OnArgs,
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
    #[command(flatten)]
    pub(crate) on: OnArgs,
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
    #[command(flatten)]
    pub(crate) on: OnArgs,
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

#[derive(Debug, Subcommand)]
pub(crate) enum EnvCommand {
    /// List the places, and which one is used
    List(EnvListArgs),
    /// Add a place: ws://HOST:PORT, wss://HOST:PORT, unix:PATH or ssh://[USER@]HOST[:PORT]
    Add(EnvAddArgs),
    /// Connect to a place, and say what is there
    Check(EnvCheckArgs),
    /// Forget a place
    Remove(EnvRemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct EnvListArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EnvAddArgs {
    /// What it is to be called: letters, digits, - and _
    pub(crate) name: String,
    /// Its address
    pub(crate) url: String,
    /// File with the token that its server asks for
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<std::path::PathBuf>,
    /// Certificate authorities to trust instead of the system's, in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<std::path::PathBuf>,
    /// Program of the other machine, where its shell does not find `sandbar`; with ssh:// only
    #[arg(long, value_name = "PATH")]
    pub(crate) program: Option<String>,
    /// Use it wherever nothing else is said
    #[arg(long)]
    pub(crate) default: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EnvCheckArgs {
    /// The place, by its name or its address; the one that is used without it
    pub(crate) name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EnvRemoveArgs {
    /// Its name
    pub(crate) name: String,
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

/// How clients of a TCP listener are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WsAuth {
    /// By nothing: on loopback and unix sockets only
    None,
    /// By a token
    CapabilityToken,
    /// By a JWT
    SignedBearerToken,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The bound address is the first line on standard output. A unix socket asks the kernel who connects; \
                  TCP asks for the token, which is made on first use."
)]
pub(crate) struct ServeArgs {
    /// unix:///PATH, ws://IP:PORT, wss://IP:PORT or stdio; a socket in the runtime directory without it
    #[arg(long, value_name = "URL")]
    pub(crate) listen: Option<String>,
    /// How clients are known: none, capability-token or signed-bearer-token
    #[arg(long, visible_alias = "auth", value_enum, value_name = "HOW", hide_possible_values = true)]
    pub(crate) ws_auth: Option<WsAuth>,
    /// File with the token; made if it is missing
    #[arg(long, value_name = "FILE", conflicts_with = "ws_token_sha256")]
    pub(crate) ws_token_file: Option<std::path::PathBuf>,
    /// SHA-256 of the token, in hexadecimal
    #[arg(long, value_name = "HEX")]
    pub(crate) ws_token_sha256: Option<String>,
    /// File with the secret that tokens are signed with (HS256)
    #[arg(long, value_name = "FILE")]
    pub(crate) ws_shared_secret_file: Option<std::path::PathBuf>,
    /// The only issuer of signed tokens
    #[arg(long, value_name = "NAME")]
    pub(crate) ws_issuer: Option<String>,
    /// The audience that signed tokens must be for
    #[arg(long, value_name = "NAME")]
    pub(crate) ws_audience: Option<String>,
    /// How far clocks may differ
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "30s")]
    pub(crate) ws_max_clock_skew: Duration,
    /// A web page that may connect, as its Origin names it; repeatable
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) allow_origin: Vec<String>,
    /// Certificate chain for wss, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<std::path::PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<std::path::PathBuf>,
    /// A host that http/request may reach, *.DOMAIN for all below; none without this; repeatable
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) http_allow: Vec<AllowedHost>,
    /// Write a line of JSON to standard error for each request: method, time, refusal, trace; no contents
    #[arg(long)]
    pub(crate) log: bool,
    /// How long a session waits for its client to come back
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "80s")]
    pub(crate) session_ttl: Duration,
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
    /// Start the keeper here, in this cgroup, unless it runs
    Start,
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
        match error.print().and_then(|()| std::io::stdout().flush()) {
            Err(failed) if status == exit::OK && failed.kind() != std::io::ErrorKind::BrokenPipe => {
                Problem::new(format!("could not write to standard output: {failed}"))
            }
            // A reader that closed the pipe has seen enough, and who has no standard error sees the status.
            Ok(()) | Err(_) => std::process::exit(i32::from(status)),
        }
    })
}

impl RunArgs {
    /// Every limit that was asked for.
    ///
    /// # Errors
    /// One was asked for twice.
    pub(crate) fn limits(&self) -> Result<Limits, Problem> {
        let mut limits = Limits { wall: self.timeout, ..Limits::default() };
        for given in &self.limit {
            if limits.get(given.limit).is_some() {
                return Err(Problem::new(format!("the limit on {} is given twice", given.limit))
                    .at("--limit")
                    .advise("give it once")
                    .status(exit::USAGE));
            }
            let number = u32::try_from(given.value).ok();
            match given.limit {
                Limit::Cpu => limits.cpu = Some(Duration::from_micros(given.value)),
                Limit::Procs => limits.procs = number,
                Limit::Memory => limits.memory_bytes = Some(given.value),
                Limit::Files => limits.files = number,
                Limit::FileSize => limits.file_size_bytes = Some(given.value),
                // It has a flag of its own.
                Limit::Wall => {}
            }
        }
        Ok(limits)
    }
}

impl SandboxArgs {
    /// The name of the profile.
    pub(crate) fn profile_name(&self) -> &str {
        let usual = || if is_within_sandbox() { Profile::External } else { Profile::default() };
        self.profile.as_deref().unwrap_or_else(|| usual().name())
    }

    /// Who is to make the sandbox.
    pub(crate) fn executor(&self) -> ExecutorWish {
        match self.executor {
            None => ExecutorWish::Any,
            Some(Executor::Native) => ExecutorWish::Native,
            Some(Executor::Bwrap) => ExecutorWish::Bwrap,
            Some(Executor::Landlock) => ExecutorWish::Landlock,
        }
    }

    /// What it may go on without.
    pub(crate) fn give_up(&self) -> Vec<GiveUp> {
        let named = self.give_up.iter().map(|what| match what {
            GivenUp::ProtectedNames => GiveUp::ProtectedNames,
        });
        named.collect()
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
        let table: [(&[&str], &str); 18] = [
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
            (&["run", "--limit", "procs=0", "true"], "from 1 to 4194304"),
            (&["run", "--limit", "memory=1G,disk=1", "true"], "is no limit"),
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
    fn limits_may_stand_in_one_flag_or_in_several_but_each_only_once() {
        let limits = |arguments: &[&str]| {
            let cli = Cli::try_parse_from([&["sandbar", "run"], arguments, &["true"]].concat()).unwrap();
            let Command::Run(args) = cli.command else { panic!("not run") };
            args.limits()
        };
        let both = Limits { memory_bytes: Some(1 << 30), procs: Some(9), ..Limits::default() };
        assert_eq!(limits(&["--limit", "memory=1G,procs=9"]), Ok(both));
        assert_eq!(limits(&["--limit", "memory=1G", "--limit=procs=9"]), Ok(both));
        let problem = limits(&["--limit", "procs=9,procs=8"]).unwrap_err();
        assert_eq!((problem.status, problem.what.as_str()), (2, "the limit on processes is given twice"));
    }

    #[test]
    fn the_help_of_run_fits_a_screen() {
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").unwrap();
        let help = run.render_help().to_string();
        assert!(help.lines().count() <= 40, "{help}");
    }
}
