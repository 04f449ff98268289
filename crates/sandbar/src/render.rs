//! Errors for people: what happened, where, what to do now.
//!
//! The libraries' errors are facts; advice is kept here, beside the words, keyed by the facts.

use std::fmt::Display;
use std::io::Write as _;

use crate::escape::{Layout, escape};
use crate::exit;

/// Something that went wrong, ready to be shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// What happened: a sentence without its end.
    pub(crate) what: String,
    /// Where: a file, a system call, a flag.
    pub(crate) place: Option<String>,
    /// What to do now.
    pub(crate) advice: Option<String>,
    /// Exit status of the process.
    pub(crate) status: u8,
}

impl Problem {
    /// A problem without place and advice.
    pub(crate) fn new(what: impl Display) -> Self {
        Self { what: what.to_string(), place: None, advice: None, status: exit::FAILED }
    }

    /// Says where.
    pub(crate) fn at(mut self, place: impl Display) -> Self {
        self.place = Some(place.to_string());
        self
    }

    /// Says what to do.
    pub(crate) fn advise(mut self, advice: impl Display) -> Self {
        self.advice = Some(advice.to_string());
        self
    }

    /// Says with which status to exit.
    pub(crate) fn status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    /// The text on standard error.
    fn text(&self) -> String {
        // Names and values in it may be a command's.
        let safe = |part: &str| escape(part.as_bytes(), Layout::Lines);
        let mut text = format!("error: {}\n", safe(&self.what));
        if let Some(place) = &self.place {
            text.push_str(&format!("  where: {}\n", safe(place)));
        }
        if let Some(advice) = &self.advice {
            text.push_str(&format!("  do:    {}\n", safe(advice)));
        }
        text
    }
}

/// Writes a problem to standard error.
pub(crate) fn print(problem: &Problem) {
    // Nothing is left to be done when standard error is closed.
    let _ = std::io::stderr().write_all(problem.text().as_bytes());
}

/// Writes one line about something that a person should know and that is no error.
pub(crate) fn note(text: impl Display) {
    let text = escape(text.to_string().as_bytes(), Layout::Lines);
    let _ = std::io::stderr().write_all(format!("sandbar: {text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_what_where_and_what_to_do() {
        let problem = Problem::new("could not start `x`").at("PATH").advise("install x");
        assert_eq!(problem.text(), "error: could not start `x`\n  where: PATH\n  do:    install x\n");
    }

    #[test]
    fn what_a_command_named_cannot_drive_a_terminal() {
        assert_eq!(Problem::new("no \x1b[2J").text(), "error: no \\u{1b}[2J\n");
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        assert_eq!(Problem::new("no").text(), "error: no\n");
    }
}
