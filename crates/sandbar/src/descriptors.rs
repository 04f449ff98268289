//! Whether this process may open what it needs, asked before anything is begun.
//!
//! Without room the first step that lacks it fails, be it in the middle of a start; the event loop even panics.

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::exit;
use crate::render::Problem;

/// Descriptors that a run has open at once besides its standard streams, and a few to spare: the event loop and its
/// signals 5, the keeper's connection and a start's plan and streams 6, the record and the log 3.
const NEEDED: usize = 20;

/// The least hard limit. A keeper inherits it from whoever starts it, and serves everybody else with it: one run
/// takes it some 25.
const LEAST_LIMIT: u64 = 64;

/// Opens as many as are needed, and closes them.
///
/// # Errors
/// There is no room for them.
pub(crate) fn check() -> Result<(), Problem> {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|hard| hard < LEAST_LIMIT) {
        return Err(too_few(limit.maximum));
    }
    open(NEEDED).map_err(|_| too_few(limit.current))
}

fn open(count: usize) -> Result<(), Errno> {
    // Not one of the standard streams, which may be closed.
    let first = eventfd(0, EventfdFlags::CLOEXEC)?;
    let mut held = Vec::new();
    for _ in 1..count {
        held.push(rustix::io::fcntl_dupfd_cloexec(&first, 0)?);
    }
    Ok(())
}

fn too_few(limit: Option<u64>) -> Problem {
    let limit = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    Problem::new("too few files may be opened here")
        .at(format!("the limit of open files (RLIMIT_NOFILE) is {limit}"))
        .advise("raise it (`ulimit -n 1024`), or close what the caller holds open")
        .status(exit::CANNOT_RUN)
}
