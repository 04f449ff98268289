//! Waiting for facts.

use std::time::{Duration, Instant};

/// How long anything may take that a test waits for. A machine that builds something else at the same time is why
/// this is not one second; below half a minute, after which nextest calls a test slow.
pub const DEADLINE: Duration = Duration::from_secs(25);

/// What [`DEADLINE`] is in a soak, where a hundred times as much goes on.
const SOAK_DEADLINE: Duration = Duration::from_secs(600);

/// How long a test waits for what takes longer in a soak.
#[must_use]
pub fn patience() -> Duration {
    if crate::soak::is_soak() { SOAK_DEADLINE } else { DEADLINE }
}

/// How often a fact is looked at; nothing announces that a process ended or that a file appeared.
const INTERVAL: Duration = Duration::from_millis(5);

/// Asks until the answer is `Some`, and returns it.
///
/// # Panics
/// When `deadline` passes first; `what` says what did not happen.
pub fn eventually<T>(deadline: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {} s: {what}", deadline.as_secs());
        std::thread::sleep(INTERVAL);
    }
}
