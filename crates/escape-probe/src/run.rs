//! Making the attempts: each in a process of its own, one line of JSON for each.

use std::io::{self, Read as _, Write};

use serde::{Deserialize, Serialize};

use crate::expect::Attempt;
use crate::outcome::{Outcome, Verdict};
use crate::raw::{self, Forked};
use crate::stage::Stage;

/// How long an attempt may take. The longest waits 300 ms for an answer that does not come.
const LIMIT_SECONDS: u32 = 10;

/// What came of an attempt, as a line tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Name of the attempt.
    pub attempt: String,
    /// What it is about.
    pub area: String,
    /// What came of it.
    pub result: Verdict,
    /// What that was read from.
    pub detail: String,
}

/// Makes one attempt after the other and tells each.
///
/// # Errors
/// The results can't be written.
pub fn make(attempts: &[&Attempt], stage: &Stage, to: &mut impl Write) -> io::Result<()> {
    for attempt in attempts {
        let outcome = alone(attempt, stage).unwrap_or_else(|error| Outcome::error(error.to_string()));
        let told = Told {
            attempt: attempt.name.to_owned(),
            area: attempt.area.to_owned(),
            result: outcome.verdict,
            detail: outcome.detail,
        };
        serde_json::to_writer(&mut *to, &told)?;
        to.write_all(b"\n")?;
        to.flush()?;
    }
    Ok(())
}

/// Makes an attempt in a fork, so that being killed is a result.
fn alone(attempt: &Attempt, stage: &Stage) -> io::Result<Outcome> {
    let (mut read, mut write) = io::pipe()?;
    match raw::fork()? {
        Forked::Child => {
            drop(read);
            raw::alarm(LIMIT_SECONDS);
            let outcome = (attempt.act)(stage);
            let text = serde_json::to_vec(&(outcome.verdict, outcome.detail)).unwrap_or_default();
            // Without an answer the parent reports that there is none.
            let _ = write.write_all(&text);
            raw::exit(0);
        }
        Forked::Parent(child) => {
            drop(write);
            let mut text = Vec::new();
            read.read_to_end(&mut text)?;
            let status = raw::wait(child)?;
            Ok(understand(&text, status))
        }
    }
}

/// The outcome from a child's answer and its end.
fn understand(text: &[u8], status: i32) -> Outcome {
    if let Ok((verdict, detail)) = serde_json::from_slice::<(Verdict, String)>(text) {
        return Outcome::new(verdict, detail);
    }
    if libc::WIFSIGNALED(status) {
        return match libc::WTERMSIG(status) {
            libc::SIGSYS => Outcome::denied("SIGSYS"),
            libc::SIGALRM => Outcome::error(format!("no answer within {LIMIT_SECONDS} s")),
            signal => Outcome::error(format!("killed by signal {signal}")),
        };
    }
    Outcome::error(format!("no answer, wait status {status:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_is_killed_by_the_filter_was_refused_and_every_other_end_is_an_error() {
        assert_eq!(understand(b"", libc::SIGSYS), Outcome::denied("SIGSYS"));
        assert_eq!(understand(b"", libc::SIGSEGV).verdict, Verdict::Error);
        assert_eq!(understand(b"", libc::SIGALRM).verdict, Verdict::Error);
        assert_eq!(understand(b"", 0).verdict, Verdict::Error);
        assert_eq!(understand(br#"["allowed","x"]"#, 0), Outcome::allowed("x"));
    }
}
