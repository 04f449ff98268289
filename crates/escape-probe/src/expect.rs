//! What an attempt is, and what has to come of it where.

use serde::Serialize;

use crate::outcome::{Outcome, Verdict};
use crate::stage::Stage;

/// One attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Its name, which does not change: expectations and reports speak of it.
    pub name: &'static str,
    /// What it is about.
    pub area: &'static str,
    /// What it tries, for people.
    pub tries: &'static str,
    /// Where it is not stopped, and why that is so. The first that applies counts; without one it is stopped.
    pub accepted: &'static [(When, Expected)],
    /// What comes of it without a sandbox.
    pub control: Control,
    pub(crate) act: fn(&Stage) -> Outcome,
}

/// What has to come of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// It is refused, or there is nothing to reach.
    Stopped,
    /// It succeeds, for a reason that `docs/threat-model.md` states or because it is meant to.
    Allowed(&'static str),
    /// It depends on the kernel or the host, and neither answer is a fault.
    Either(&'static str),
}

/// What comes of an attempt without a sandbox, which shows that it could succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    /// It succeeds.
    Allowed,
    /// It succeeds for root; what an ordinary user gets says nothing.
    Root,
    /// It succeeds where the caller itself starts the command, and not behind a keeper, even without a sandbox.
    Direct,
    /// What comes of it says nothing, for this reason.
    Open(&'static str),
}

/// Where something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Everywhere.
    Always,
    /// Where the workspace can be written.
    Writable,
    /// With the host's network.
    NetworkOn,
    /// For root as the caller.
    Root,
    /// For everybody else as the caller.
    User,
    /// Where bubblewrap makes the sandbox.
    Bwrap,
    /// Where Landlock and the filter hold alone.
    Landlock,
    /// Where both hold.
    Both(&'static Self, &'static Self),
}

/// What makes a sandbox. What holds of one has to hold of all, but for what the table names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executor {
    /// Sandbar itself.
    Native,
    /// The system's bubblewrap, for Sandbar.
    Bwrap,
    /// Landlock and the system-call filter alone. In a writable workspace protected names are given up.
    Landlock,
}

/// The sandbox that attempts are made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Whether the workspace can be written.
    pub writable: bool,
    /// Whether the host's network is there.
    pub network: bool,
    /// Whether root is the caller.
    pub root: bool,
    /// What makes it.
    pub executor: Executor,
}

impl When {
    fn holds(self, setting: Setting) -> bool {
        match self {
            Self::Always => true,
            Self::Writable => setting.writable,
            Self::NetworkOn => setting.network,
            Self::Root => setting.root,
            Self::User => !setting.root,
            Self::Bwrap => setting.executor == Executor::Bwrap,
            Self::Landlock => setting.executor == Executor::Landlock,
            Self::Both(one, other) => one.holds(setting) && other.holds(setting),
        }
    }
}

impl Expected {
    /// Whether a result is this.
    #[must_use]
    pub fn admits(self, verdict: Verdict) -> bool {
        match self {
            Self::Stopped => verdict.is_stopped(),
            Self::Allowed(_) => verdict == Verdict::Allowed,
            Self::Either(_) => verdict != Verdict::Error,
        }
    }
}

impl Attempt {
    /// What has to come of it in a sandbox.
    #[must_use]
    pub fn expected(&self, setting: Setting) -> Expected {
        let found = self.accepted.iter().find(|(when, _)| when.holds(setting));
        found.map_or(Expected::Stopped, |(_, expected)| *expected)
    }

    /// The line of JSON that tells of it.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::json!({"attempt": self.name, "area": self.area, "tries": self.tries}).to_string()
    }

    pub(crate) const fn control(self, control: Control) -> Self {
        Self { control, ..self }
    }

    pub(crate) const fn accepted(self, accepted: &'static [(When, Expected)]) -> Self {
        Self { accepted, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_exception_that_applies_counts_and_without_one_an_attempt_is_stopped() {
        let act = |_: &Stage| Outcome::denied("");
        let attempt =
            Attempt { name: "x", area: "y", tries: "z", accepted: &[], control: Control::Allowed, act };
        let setting = Setting { writable: true, network: false, root: true, executor: Executor::Native };
        assert_eq!(attempt.expected(setting), Expected::Stopped);
        let attempt = attempt.accepted(&[
            (When::NetworkOn, Expected::Allowed("asked for")),
            (When::Writable, Expected::Either("kernel")),
        ]);
        assert_eq!(attempt.expected(setting), Expected::Either("kernel"));
        assert_eq!(attempt.expected(Setting { network: true, ..setting }), Expected::Allowed("asked for"));
        assert_eq!(attempt.expected(Setting { writable: false, ..setting }), Expected::Stopped);
        let attempt =
            attempt.accepted(&[(When::Both(&When::Root, &When::Bwrap), Expected::Allowed("its /dev"))]);
        assert_eq!(attempt.expected(setting), Expected::Stopped);
        let by_bwrap = Setting { executor: Executor::Bwrap, ..setting };
        assert_eq!(attempt.expected(by_bwrap), Expected::Allowed("its /dev"));
    }

    #[test]
    fn an_error_is_never_what_was_expected() {
        for expected in [Expected::Stopped, Expected::Allowed(""), Expected::Either("")] {
            assert!(!expected.admits(Verdict::Error));
        }
        assert!(Expected::Stopped.admits(Verdict::Absent) && !Expected::Stopped.admits(Verdict::Allowed));
        assert!(!Expected::Allowed("").admits(Verdict::Denied));
    }
}
