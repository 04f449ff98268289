//! stub

use crate::cli::LogsArgs;
use crate::render::Problem;

pub(crate) fn execute(_args: &LogsArgs) -> Result<u8, Problem> {
    Err(Problem::new("not yet"))
}
