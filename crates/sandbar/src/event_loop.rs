//! One thread's event loop, for commands that talk to a keeper.

use std::future::Future;
use std::time::Duration;

use crate::exit;
use crate::render::Problem;

/// How long a keeper may take to answer a request. It answers within milliseconds unless it is stopped or its
/// machine swaps; a person who is told so (`keepers::patience`) has this long to let it go on.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Runs `future` to its end.
///
/// # Errors
/// Those of the future, or there is no event loop.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    new()?.block_on(future)
}

/// As [`block_on`], for who follows a run: a thread may still wait for input that never comes, and the process need not
/// wait for it.
///
/// # Errors
/// As [`block_on`].
pub(crate) fn block_on_and_leave<T>(future: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let tokio = new()?;
    let result = tokio.block_on(future);
    tokio.shutdown_background();
    result
}

fn new() -> Result<tokio::runtime::Runtime, Problem> {
    let made = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    made.map_err(|error| {
        Problem::new(format!("could not make an event loop: {error}")).status(exit::CANNOT_RUN)
    })
}

/// Waits for the keeper's answer to a request.
///
/// # Errors
/// It does not come.
pub(crate) async fn answer<T>(request: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(ANSWER_DEADLINE, request).await.map_err(|_| {
        Problem::new(format!("the keeper has not answered for {} s", ANSWER_DEADLINE.as_secs()))
            .advise("look whether its process is stopped (kill -CONT), or end it; what it holds ends with it")
    })
}
