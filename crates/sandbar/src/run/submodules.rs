//! After a run: whether it added submodules, which no sandbox can prevent without preventing commits.

use sandbar_policy::WatchedIndex;
use sandbar_proto::{AbsPath, FactAnswer, FactQuery};
use sandbar_sandbox::facts;

use crate::escape::{Layout, escape, shell_word};
use crate::render::note;

/// Says which submodules the `watched` indexes have that they had not before the run.
pub(super) fn tell_added(watched: &[WatchedIndex]) {
    for index in watched {
        match index.added(&facts::answer(&index.query())) {
            Some(added) => {
                added
                    .iter()
                    .filter(|path| has_repository(path))
                    .for_each(|path| tell(index.worktree(), path));
            }
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

fn tell(worktree: &AbsPath, path: &AbsPath) {
    note(format_args!(
        "this run added the submodule {}; `git status` obeys the configuration in it. Look at it before you use git \
         here, or remove it: {}",
        escape(path.as_bytes(), Layout::OneLine),
        removal(worktree, path)
    ));
}

/// The command that takes a submodule out of an index without entering it. `git rm --cached` enters it to look for
/// changes, and obeys what it finds; so does `git reset`.
fn removal(worktree: &AbsPath, path: &AbsPath) -> String {
    let relative = path.components().skip(worktree.depth()).collect::<Vec<_>>().join(&b'/');
    format!(
        "git -C {} update-index --force-remove -- {}",
        shell_word(worktree.as_bytes()),
        shell_word(&relative)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submodule_is_removed_by_its_name_below_the_worktree() {
        let path = |text: &str| AbsPath::new(text).unwrap();
        assert_eq!(
            removal(&path("/w/my repo"), &path("/w/my repo/a/-x y")),
            "git -C '/w/my repo' update-index --force-remove -- 'a/-x y'"
        );
    }
}
