//! Environments: places where commands run.
//!
//! [`Process`] is the surface of one process: hear what becomes of it, send it input and signals. [`local`] starts plans
//! through this machine's keeper; [`remote`] asks an exec server, which plans there. Who follows a process never learns
//! which kind it is. Decides nothing about what may run.

#![forbid(unsafe_code)]

pub mod environment;
pub mod facts;
pub mod local;
mod processes;
pub mod remote;
pub mod server;
mod signals;
pub mod start;

pub use processes::{
    BoxFuture, Handles, Process, ProcessControl, ProcessError, Processes, Sessions, StartError, StartOptions,
    Watching,
};
