//! stub

use crate::cli::KillArgs;
use crate::render::Problem;

pub(crate) fn execute(_args: &KillArgs) -> Result<u8, Problem> {
    Err(Problem::new("not yet"))
}
