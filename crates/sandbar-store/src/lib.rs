//! Rollouts: the append-only record of every thread.
//!
//! A [`Recorder`] writes what one command does, line by line, into a file of its own below the sessions
//! directory. No operation here loses or damages a line that was acknowledged, whatever fails in between; output
//! is bounded, and what is not recorded is stated as a gap. `docs/rollouts.md` describes the format.
//!
//! Knows no clock: every time comes with the event that it belongs to. Reading, listing, searching and
//! compressing are not here yet, nor is the ownership of a thread; the shared lock that a [`Recorder`] holds says
//! only that the file is in use.

#![forbid(unsafe_code)]

mod error;
mod log_file;
mod output;
mod recorder;
mod resume;
mod rollout;
mod segment;
mod signal;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod time;

pub use error::{Step, StoreError};
pub use log_file::Locking;
pub use output::OutputBounds;
pub use recorder::{Recorder, StartFailure};
pub use rollout::Durability;
pub use store::{RolloutPath, RunMeta, Store};
