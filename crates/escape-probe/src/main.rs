//! `escape-probe stage … -- COMMAND` prepares the host's side and starts a command on it; `escape-probe attempt FILE`
//! makes the attempts; `escape-probe list` tells the table. See the library.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use escape_probe::stage::{self, Folders, Stage};
use escape_probe::{attempts, run};

const USAGE: &str = "usage: escape-probe list
       escape-probe attempt STAGE [NAME…]
       escape-probe stage WORKSPACE OUTSIDE HOME RUNTIME OWN|- SOCKET|- -- COMMAND…
";

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&OsString> = arguments.iter().collect();
    match words.as_slice() {
        [word] if *word == "list" => list(),
        [word] if *word == "user" => user(),
        [word, file, names @ ..] if *word == "attempt" => attempt(file, names),
        [word, workspace, outside, home, runtime, own, socket, dashes, program, rest @ ..]
            if *word == "stage" && *dashes == "--" =>
        {
            let [workspace, outside, home, runtime] = [workspace, outside, home, runtime].map(PathBuf::from);
            let [own, socket] = [own, socket].map(|path| (*path != "-").then(|| PathBuf::from(path)));
            let folders = Folders { workspace, outside, home, runtime };
            perform(&folders, own, socket, Command::new(program).args(rest))
        }
        _ => {
            io::stderr().write_all(USAGE.as_bytes())?;
            Ok(ExitCode::from(2))
        }
    }
}

/// Tells the table, a line of JSON for each attempt.
fn list() -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    for attempt in attempts() {
        writeln!(out, "{}", attempt.line())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells the effective user, for whoever executes this program with rights that it carries.
fn user() -> io::Result<ExitCode> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    writeln!(io::stdout(), "{}", ids.split_whitespace().nth(1).unwrap_or_default())?;
    Ok(ExitCode::SUCCESS)
}

fn attempt(file: &OsString, names: &[&OsString]) -> io::Result<ExitCode> {
    let stage = Stage::read(file.as_ref())?;
    let chosen: Vec<_> = attempts()
        .filter(|attempt| names.is_empty() || names.iter().any(|name| *name == attempt.name))
        .collect();
    run::make(&chosen, &stage, &mut io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

/// Starts a command in the workspace as a caller would who has something open, a key and a terminal.
fn perform(
    folders: &Folders,
    own: Option<PathBuf>,
    socket: Option<PathBuf>,
    command: &mut Command,
) -> io::Result<ExitCode> {
    let prepared = stage::prepare(folders, own, socket)?;
    let input = std::fs::File::open(folders.outside.join("input"))?;
    command
        .current_dir(&folders.workspace)
        .env("HOME", &folders.home)
        .env("XDG_RUNTIME_DIR", &folders.runtime);
    command.env(stage::SECRET_VARIABLE, stage::SECRET).stdin(input);
    let status = command.status()?;
    drop(prepared);
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
