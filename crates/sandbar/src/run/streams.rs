//! Which way each standard stream of the command takes.
//!
//! Input that a command may simply have is handed over: nothing is read that it does not read itself. Output is
//! handed over only when nobody records it; otherwise it goes through the keeper's log.

use std::os::fd::{AsFd as _, OwnedFd};

use sandbar_exec::{Handles, Watching};
use sandbar_policy::Profile;
use sandbar_proto::{OutputMode, StdinMode, Stdio};

use crate::cli::RunArgs;
use crate::render::Problem;
use crate::stdio::{self, Kind};

/// The ways of the three streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Streams {
    stdin: Kind,
    direct_stdin: bool,
    direct_stdout: bool,
    direct_stderr: bool,
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
        Ok(Self::of(kinds, landlock, !args.no_record || args.json))
    }

    fn of([stdin, stdout, stderr]: [Kind; 3], landlock: bool, logged: bool) -> Self {
        Self {
            stdin,
            direct_stdin: stdin.may_be_direct(landlock),
            direct_stdout: !logged && stdout.may_be_direct(landlock),
            direct_stderr: !logged && stderr.may_be_direct(landlock),
        }
    }

    /// The streams as a plan has them.
    pub(super) fn plan(&self) -> Stdio {
        let output = |direct| if direct { OutputMode::Direct } else { OutputMode::Logged };
        Stdio {
            stdin: match (self.direct_stdin, self.stdin) {
                (true, _) => StdinMode::Direct,
                (false, Kind::Closed) => StdinMode::Null,
                (false, Kind::Harmless | Kind::File | Kind::Terminal | Kind::Other) => StdinMode::Piped,
            },
            stdout: output(self.direct_stdout),
            stderr: output(self.direct_stderr),
        }
    }

    /// Whether input has to be relayed, and what it is.
    pub(super) fn relayed_stdin(&self) -> Option<Kind> {
        (self.plan().stdin == StdinMode::Piped).then_some(self.stdin)
    }

    /// How closely the process is followed.
    pub(super) fn watching(&self) -> Watching {
        if self.direct_stdout && self.direct_stderr { Watching::End } else { Watching::Lossless }
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
            stdin: take(self.direct_stdin, std::io::stdin().as_fd())?,
            stdout: take(self.direct_stdout, std::io::stdout().as_fd())?,
            stderr: take(self.direct_stderr, std::io::stderr().as_fd())?,
        })
    }
}

/// Whether a file can be handed over: without any sandbox there is nothing to get around.
fn landlock(profile: Profile) -> bool {
    profile == Profile::DangerFullAccess || sandbar_sandbox::facts::landlock_abi() > 0
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
        assert_eq!((streams.watching(), streams.relayed_stdin()), (Watching::End, None));
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
