//! One suite for every way to an exec server: what Codex 0.169's clients may count on, and what is ours on top.
//!
//! The cases of [`dialect`] hold for Codex's own server as well, which is run beside ours, so that a case is a fact and
//! not an opinion; where the two differ on purpose, the case is one of [`ours`]. Each runs on every transport, and once
//! more on a server that took the place of one that was killed.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

mod client;
mod dialect;
mod doors;
mod faults;
mod http;
mod ours;
mod server;

/// Runs cases over one way to a server, each as a test of its own.
macro_rules! over {
    ($name:ident, $over:expr, $cases:ident, [$($case:ident),* $(,)?]) => {
        mod $name {
            $(
                #[test]
                fn $case() {
                    let server = sandbar_testkit::need!($crate::server::Server::start($over));
                    $crate::$cases::$case(&server);
                }
            )*
        }
    };
}
use over;
