//! Development only: attempts to get out of a sandbox, as data and as a program that makes them inside one.
//!
//! [`ATTEMPTS`] names each attempt, what it stands for and what is expected of it; nothing else decides what is right.
//! The program prepares the host's side ([`stage`]), and inside makes every attempt in a process of its own, so that one
//! that is killed is a result and not the end. An attempt that succeeds leaves everything as it was.
//!
//! It makes system calls that no library wraps, with arguments that no library would let through: `unsafe` is kept to
//! `raw`. Nothing that is shipped depends on this crate.

mod attempts;
pub mod expect;
mod outcome;
mod raw;
pub mod run;
pub mod stage;
mod table;

pub use expect::{Attempt, Control, Executor, Expected, Setting};
pub use outcome::{Outcome, Verdict};
pub use table::attempts;
