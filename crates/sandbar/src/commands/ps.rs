//! stub

use crate::cli::PsArgs;
use crate::render::Problem;

pub(crate) fn execute(_args: &PsArgs) -> Result<u8, Problem> {
    Err(Problem::new("not yet"))
}
