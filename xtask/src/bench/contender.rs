//! A command as a contender: whole-process wall time, from spawn to wait, exit status checked.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::race::Contender;

/// A command line with its folder and what it changes in the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    program: OsString,
    arguments: Vec<OsString>,
    folder: PathBuf,
    environment: Vec<(&'static str, Option<OsString>)>,
}

impl Line {
    /// A command in a folder.
    pub(super) fn new(program: impl Into<OsString>, folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { program: program.into(), arguments: Vec::new(), folder, environment: Vec::new() }
    }

    /// With more arguments.
    pub(super) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// With a variable set, or removed by `None`.
    pub(super) fn env(mut self, name: &'static str, value: Option<OsString>) -> Self {
        self.environment.push((name, value));
        self
    }

    /// Behind another program that starts it.
    pub(super) fn behind(mut self, program: &str, arguments: &[&str]) -> Self {
        let own = std::mem::replace(&mut self.program, program.into());
        let words = arguments.iter().map(OsString::from).chain([own]);
        self.arguments.splice(0..0, words);
        self
    }

    /// The command, silent.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Runs it once.
    ///
    /// # Errors
    /// When it does not exit with 0; says what it writes to standard error when asked again.
    pub(super) fn time(&self) -> Result<Duration> {
        let mut command = self.command();
        let started = Instant::now();
        let status = command.spawn()?.wait()?;
        let took = started.elapsed();
        if !status.success() {
            let again = self.command().stderr(Stdio::piped()).output()?;
            bail!("it ended with {status}: {}", String::from_utf8_lossy(&again.stderr).trim());
        }
        Ok(took)
    }

    /// Runs it once, reading its standard output through a pipe and counting.
    ///
    /// # Errors
    /// When it does not exit with 0, or did not write exactly this many bytes.
    pub(super) fn time_output(&self, bytes: u64) -> Result<Duration> {
        let mut command = self.command();
        let started = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut counted = 0;
        if let Some(mut pipe) = child.stdout.take() {
            let mut buffer = vec![0; 128 * 1024];
            loop {
                match pipe.read(&mut buffer)? {
                    0 => break,
                    read => counted += read as u64,
                }
            }
        }
        let status = child.wait()?;
        let took = started.elapsed();
        ensure!(status.success(), "it ended with {status}");
        ensure!(counted == bytes, "it wrote {counted} bytes instead of {bytes}");
        Ok(took)
    }

    /// As a contender of starts.
    pub(super) fn starts(self, name: &str) -> Contender<'static> {
        Contender { name: name.to_owned(), work: Box::new(move || self.time()) }
    }

    /// As a contender of throughput.
    pub(super) fn writes(self, name: &str, bytes: u64) -> Contender<'static> {
        Contender { name: name.to_owned(), work: Box::new(move || self.time_output(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Line {
        Line::new("/bin/sh", Path::new("/")).args(["-c", script])
    }

    #[test]
    fn a_command_that_fails_is_an_error_with_its_words() {
        let error = shell("echo no bwrap >&2; exit 7").time().expect_err("exit status 7");
        assert_eq!(error.to_string(), "it ended with exit status: 7: no bwrap");
        shell("exit 0").time().unwrap();
    }

    #[test]
    fn every_byte_of_output_is_counted() {
        shell("head -c 1000000 /dev/zero").time_output(1_000_000).unwrap();
        let error =
            shell("head -c 999999 /dev/zero").time_output(1_000_000).expect_err("one byte is missing");
        assert_eq!(error.to_string(), "it wrote 999999 bytes instead of 1000000");
    }

    #[test]
    fn the_environment_is_set_and_removed() {
        let line = shell("test \"$A\" = b && test -z \"$HOME\"").env("A", Some("b".into())).env("HOME", None);
        line.time().unwrap();
    }
}
