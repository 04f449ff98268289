//! stub

use crate::cli::KeeperCommand;
use crate::render::Problem;

pub(crate) fn execute(_args: &KeeperCommand) -> Result<u8, Problem> {
    Err(Problem::new("not yet"))
}
