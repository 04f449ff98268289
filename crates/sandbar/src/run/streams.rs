//! Which way each standard stream of the command takes.
//!
//! Input that a command may simply have is handed over: nothing is read that it does not read itself. Output is
//! handed over only when nobody records it; otherwise it goes through the keeper's log. From a terminal in whose
//! foreground we are, the command gets a terminal of its own; a standard error that is none stays what it is.

use std::os::fd::{AsFd as _, OwnedFd};

use sandbar_exec::{Handles, Watching};
use sandbar_policy::Profile;
use sandbar_proto::{OutputMode, StdinMode, Stdio, Terminal};

use crate::cli::RunArgs;
use crate::render::Problem;
use crate::stdio::{self, Kind};
use crate::terminal;

/// The ways of the three streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Streams {
    terminal: Option<Covers>,
    stdin: Kind,
    direct_stdin: bool,
    direct_stdout: bool,
    direct_stderr: bool,
}

/// What of our standard input is read for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// Nothing: it has its own.
    None,
    /// Everything, from something of this kind.
    Relayed(Kind),
    /// What is typed on the terminal that stands for its own.
    Terminal,
}

/// Which of the streams are the command's terminal, besides standard input and standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Covers {
    /// Standard error too.
    Stderr,
    /// No other.
    Nothing,
}

impl Streams {
    /// Chooses by what our own streams are.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub(super) fn choose(args: &RunArgs, profile: Profile) -> Result<Self, Problem> {
        let kinds =
            [stdio::kind(std::io::stdin()), stdio::kind(std::io::stdout()), stdio::kind(std::io::stderr())];
        let landlock = !kinds.contains(&Kind::File) || landlock(profile);
        let streams = Self::of(kinds, landlock, !args.no_record || args.json || args.detach);
        // Lines of JSON take the place of a screen; of a run that is detached they tell only its start.
        let on_screen = !args.json || args.detach;
        let streams =
            if on_screen && terminal::is_foreground() { streams.on_a_terminal(kinds) } else { streams };
        Ok(if args.detach { streams.without_us() } else { streams })
    }

    /// The same for a command that has none of our descriptors: everything is relayed.
    pub(super) fn relayed(self) -> Self {
        Self { direct_stdin: false, direct_stdout: false, direct_stderr: false, ..self }
    }

    /// The same, with a terminal of the command's own where our streams are one.
    fn on_a_terminal(self, [stdin, stdout, stderr]: [Kind; 3]) -> Self {
        let terminal = (stdin == Kind::Terminal && stdout == Kind::Terminal)
            .then_some(if stderr == Kind::Terminal { Covers::Stderr } else { Covers::Nothing });
        Self { terminal, ..self }
    }

    /// The same for a run that goes on without us: what we would have to relay is nothing.
    fn without_us(self) -> Self {
        Self { stdin: if self.direct_stdin { self.stdin } else { Kind::Closed }, ..self }
    }

    fn of([stdin, stdout, stderr]: [Kind; 3], landlock: bool, logged: bool) -> Self {
        Self {
            terminal: None,
            stdin,
            direct_stdin: stdin.may_be_direct(landlock),
            direct_stdout: !logged && stdout.may_be_direct(landlock),
            direct_stderr: !logged && stderr.may_be_direct(landlock),
        }
    }

    /// The streams as a plan has them.
    pub(super) fn plan(&self) -> Stdio {
        let output = |direct| if direct { OutputMode::Direct } else { OutputMode::Logged };
        let stderr = output(self.direct_stderr);
        if let Some(covers) = self.terminal {
            return Stdio {
                stdin: StdinMode::Terminal,
                stdout: OutputMode::Terminal,
                stderr: if covers == Covers::Stderr { OutputMode::Terminal } else { stderr },
            };
        }
        Stdio {
            stdin: match (self.direct_stdin, self.stdin) {
                (true, _) => StdinMode::Direct,
                (false, Kind::Closed) => StdinMode::Null,
                (false, Kind::Harmless | Kind::File | Kind::Terminal | Kind::Other) => StdinMode::Piped,
            },
            stdout: output(self.direct_stdout),
            stderr,
        }
    }

    /// The command's terminal, as ours is now.
    pub(super) fn terminal(&self) -> Option<Terminal> {
        self.terminal.map(|_| terminal::describe())
    }

    /// What of our standard input has to be read for the command.
    pub(super) fn input(&self) -> Input {
        match self.plan().stdin {
            StdinMode::Piped => Input::Relayed(self.stdin),
            StdinMode::Terminal => Input::Terminal,
            StdinMode::Null | StdinMode::Direct => Input::None,
        }
    }

    /// How closely the process is followed.
    pub(super) fn watching(&self) -> Watching {
        if self.direct_stdout && self.direct_stderr && self.terminal.is_none() {
            Watching::End
        } else {
            Watching::Lossless
        }
    }

    /// The descriptors that are handed over.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(super) fn handles(&self) -> Result<Handles, Problem> {
        let take = |wanted: bool, fd: std::os::fd::BorrowedFd<'_>| -> Result<Option<OwnedFd>, Problem> {
            wanted
                .then(|| stdio::duplicate(fd))
                .transpose()
                .map_err(|error| super::cannot_run(format!("could not duplicate a standard stream: {error}")))
        };
        Ok(Handles {
            stdin: take(self.direct_stdin && self.terminal.is_none(), std::io::stdin().as_fd())?,
            stdout: take(self.direct_stdout && self.terminal.is_none(), std::io::stdout().as_fd())?,
            stderr: take(self.direct_stderr, std::io::stderr().as_fd())?,
        })
    }
}

/// Whether a file can be handed over: without any sandbox there is nothing to get around.
fn landlock(profile: Profile) -> bool {
    !profile.has_sandbox() || sandbar_sandbox::facts::landlock_abi() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_run_has_its_output_logged_and_its_input_direct() {
        let streams = Streams::of([Kind::Harmless; 3], true, true);
        let plan = streams.plan();
        assert_eq!((plan.stdin, plan.stdout), (StdinMode::Direct, OutputMode::Logged));
        assert_eq!(streams.watching(), Watching::Lossless);
    }

    #[test]
    fn an_unrecorded_run_in_pipes_relays_nothing() {
        let streams = Streams::of([Kind::Harmless, Kind::File, Kind::Harmless], true, false);
        assert_eq!((streams.watching(), streams.input()), (Watching::End, Input::None));
    }

    #[test]
    fn a_terminal_is_given_for_a_terminal_and_a_standard_error_that_is_none_stays_what_it_is() {
        let table = [
            ([Kind::Terminal; 3], Some(OutputMode::Terminal)),
            ([Kind::Terminal, Kind::Terminal, Kind::File], Some(OutputMode::Logged)),
            ([Kind::Terminal, Kind::Harmless, Kind::Terminal], None),
            ([Kind::Harmless, Kind::Terminal, Kind::Terminal], None),
        ];
        for (kinds, stderr) in table {
            let streams = Streams::of(kinds, true, true).on_a_terminal(kinds);
            let plan = streams.plan();
            let expected = stderr.map(|stderr| (StdinMode::Terminal, OutputMode::Terminal, stderr));
            assert_eq!(streams.input() == Input::Terminal, stderr.is_some(), "{kinds:?}");
            if let Some(expected) = expected {
                assert_eq!((plan.stdin, plan.stdout, plan.stderr), expected);
                assert_eq!(streams.watching(), Watching::Lossless);
                assert_eq!(streams.input(), Input::Terminal);
            }
        }
    }

    #[test]
    fn terminals_and_odd_descriptors_are_relayed() {
        let streams = Streams::of([Kind::Terminal, Kind::Terminal, Kind::Harmless], true, false);
        let plan = streams.plan();
        assert_eq!(
            (plan.stdin, plan.stdout, plan.stderr),
            (StdinMode::Piped, OutputMode::Logged, OutputMode::Direct)
        );
        let closed = Streams::of([Kind::Closed, Kind::Closed, Kind::Closed], true, false);
        assert_eq!(closed.plan().stdin, StdinMode::Null);
    }
}
