//! Environments: places where commands run.
//!
//! [`Processes`] is the surface: start a plan, hear what becomes of it, send it input and signals. [`local`]
//! answers it through this machine's keeper. Callers never learn which kind they talk to. Decides nothing about
//! what may run: a [`LaunchPlan`](sandbar_policy::LaunchPlan) is all it takes.

#![forbid(unsafe_code)]

pub mod facts;
pub mod local;
mod processes;
pub mod server;
pub mod start;

pub use processes::{
    BoxFuture, Handles, Process, ProcessControl, ProcessError, Processes, Sessions, StartError, StartOptions,
    Watching,
};
