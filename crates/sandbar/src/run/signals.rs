//! Signals that reach `sandbar run` and what they mean for the command.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit;
use crate::render::Problem;
use crate::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Pass it on to the command's process group.
    Forward(i32),
    /// End the tree: this signal, a while, then KILL.
    Terminate(i32),
}

impl Wish {
    /// What a person is told who interrupts before something has begun.
    pub(super) fn interrupted(self, before: &str) -> Problem {
        let (Self::Forward(signal) | Self::Terminate(signal)) = self;
        let status = u8::try_from(128 + signal).unwrap_or(exit::CANNOT_RUN);
        Problem::new(format!("interrupted by signal {signal} before {before}")).status(status)
    }
}

/// The signals that are listened to. One that was ignored when we were started stays ignored: whoever started us
/// with `nohup`, or in the background of a script, meant that.
pub(super) struct Signals {
    interrupt: Option<Signal>,
    quit: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn listen() -> std::io::Result<Self> {
        let listen = |number: i32| {
            (!sandbar_sandbox::caller::ignores(number))
                .then(|| signal(SignalKind::from_raw(number)))
                .transpose()
        };
        Ok(Self {
            interrupt: listen(SIGINT)?,
            quit: listen(SIGQUIT)?,
            terminate: listen(SIGTERM)?,
            hangup: listen(SIGHUP)?,
        })
    }

    /// Waits for the next one. Waits for ever when none comes, which is the usual life of a command.
    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            () = arrived(&mut self.interrupt) => Wish::Forward(SIGINT),
            () = arrived(&mut self.quit) => Wish::Forward(SIGQUIT),
            () = arrived(&mut self.terminate) => Wish::Terminate(SIGTERM),
            () = arrived(&mut self.hangup) => Wish::Terminate(SIGHUP),
        }
    }
}

async fn arrived(signal: &mut Option<Signal>) {
    let Some(signal) = signal else { return std::future::pending().await };
    if signal.recv().await.is_none() {
        std::future::pending().await
    }
}
