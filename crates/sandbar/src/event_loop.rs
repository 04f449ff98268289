//! One thread's event loop, for commands that talk to a keeper.

use std::future::Future;

use crate::render::Problem;

/// Runs `future` to its end.
///
/// # Errors
/// Those of the future, or there is no event loop.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| Problem::new(format!("could not make an event loop: {error}")))?
        .block_on(future)
}
