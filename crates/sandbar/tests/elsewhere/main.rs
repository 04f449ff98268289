//! Runs on another machine: `--on`, over every kind of link, and over links that break.
//!
//! The other machine is a Sandbar of its own, with its own directories, keeper and environment.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

mod interrupted;
mod links;
mod machines;
mod places;
mod runs;
