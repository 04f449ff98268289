//! Running other programs: always without standard input, always with their exit status looked at.
//!
//! A task that waits for a key in CI waits for ever, so no child gets the terminal's input.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Directories that system programs live in, for every user of a Debian host; a person's own `PATH` may lead
/// into a home directory that nobody else can read.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command without standard input.
pub(crate) fn quiet(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Which stream [`tee`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tee {
    /// Standard output; standard error passes straight through.
    Stdout,
    /// Standard error; standard output passes straight through.
    Stderr,
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("could not run {}", shown(command)))?;
    ensure_success(command, status)
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started, fails, or writes what is not UTF-8.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("could not run {}", shown(command)))?;
    ensure_success(command, output.status)?;
    String::from_utf8(output.stdout).with_context(|| format!("{} wrote other than UTF-8", shown(command)))
}

/// Runs a command to its end, passing both streams on and returning a copy of one.
///
/// # Errors
/// When it cannot be started; a failure of the command itself is in the status.
pub(crate) fn tee(command: &mut Command, which: Tee) -> Result<(ExitStatus, String)> {
    match which {
        Tee::Stdout => command.stdout(Stdio::piped()),
        Tee::Stderr => command.stderr(Stdio::piped()),
    };
    let mut child = command.spawn().with_context(|| format!("could not run {}", shown(command)))?;
    let copy = match which {
        Tee::Stdout => child.stdout.take().map(|pipe| pass_on(pipe, &mut std::io::stdout())),
        Tee::Stderr => child.stderr.take().map(|pipe| pass_on(pipe, &mut std::io::stderr())),
    };
    let copy = copy.transpose()?.unwrap_or_default();
    Ok((child.wait()?, copy))
}

/// Whether a program of this name is in one of the [`SYSTEM_PATH`] directories.
pub(crate) fn on_system_path(program: &str) -> bool {
    SYSTEM_PATH.split(':').any(|directory| std::path::Path::new(directory).join(program).is_file())
}

fn pass_on(pipe: impl std::io::Read, to: &mut dyn Write) -> Result<String> {
    let mut copy = String::new();
    for line in BufReader::new(pipe).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        writeln!(to, "{line}")?;
        copy.push_str(&line);
        copy.push('\n');
    }
    Ok(copy)
}

fn ensure_success(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_an_error_that_names_it() {
        let error = check(quiet("sh").args(["-c", "exit 3"])).expect_err("exit status 3");
        assert_eq!(error.to_string(), "sh -c exit 3 ended with exit status: 3");
    }

    #[test]
    fn a_teed_stream_is_returned_whole_with_the_status() {
        let (status, copy) = tee(quiet("sh").args(["-c", "printf 'a\\nb'; exit 4"]), Tee::Stdout).unwrap();
        assert_eq!((status.code(), copy.as_str()), (Some(4), "a\nb\n"));
    }

    #[test]
    fn standard_input_is_empty() {
        assert_eq!(output(&mut quiet("cat")).unwrap(), "");
    }
}
