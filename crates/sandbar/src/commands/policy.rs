//! stub

use crate::cli::PolicyCommand;
use crate::render::Problem;

pub(crate) fn execute(_args: &PolicyCommand) -> Result<u8, Problem> {
    Err(Problem::new("not yet"))
}
