//! After a run: whether it added submodules, which no sandbox can prevent without preventing commits.

use sandbar_policy::WatchedIndex;
use sandbar_proto::{AbsPath, FactAnswer, FactQuery};
use sandbar_sandbox::facts;

use crate::escape::{Layout, escape};
use crate::render::note;

/// Says which submodules the `watched` indexes have that they had not before the run.
pub(super) fn tell_added(watched: &[WatchedIndex]) {
    for index in watched {
        match index.added(&facts::answer(&index.query())) {
            Some(added) => added.iter().filter(|path| has_repository(path)).for_each(tell),
            None => note(format_args!(
                "cannot tell whether this run added submodules: the index of git is not readable any more. Look at \
                 `git -c core.fsmonitor= status --ignore-submodules=all` first."
            )),
        }
    }
}

/// Whether git would enter the submodule. One without a repository is protected from getting one in the next run.
fn has_repository(path: &AbsPath) -> bool {
    let dot = path.join(".git").map(FactQuery::Lookup);
    dot.is_ok_and(|query| !matches!(facts::answer(&query), FactAnswer::Missing))
}

fn tell(path: &AbsPath) {
    let path = escape(path.as_bytes(), Layout::OneLine);
    note(format_args!(
        "this run added the submodule {path}; `git status` obeys the configuration in it. Look at it before you use \
         git here, or remove it: git rm --cached {path}"
    ));
}
