//! What a workspace protects: git's doors to running programs, and the names of agents' configuration.

use std::fs;
use std::os::unix::fs::symlink;

use super::files::{exchange, link, make, make_directory, open_to_write, rename};
use crate::outcome::{Outcome, reach};
use crate::raw::{self, sys};
use crate::stage::Stage;

pub(crate) fn git_config(stage: &Stage) -> Outcome {
    reach(open_to_write(stage.workspace(".git/config")))
}

pub(crate) fn git_hook(stage: &Stage) -> Outcome {
    make(stage.workspace(".git/hooks/pre-commit"))
}

pub(crate) fn git_hook_change(stage: &Stage) -> Outcome {
    reach(open_to_write(stage.workspace(".git/hooks/post-commit")))
}

pub(crate) fn git_rename(stage: &Stage) -> Outcome {
    rename(stage.workspace(".git"), stage.workspace("aside"))
}

pub(crate) fn git_hooks_rename(stage: &Stage) -> Outcome {
    rename(stage.workspace(".git/hooks"), stage.workspace("aside"))
}

pub(crate) fn git_info_rename(stage: &Stage) -> Outcome {
    rename(stage.workspace(".git/info"), stage.workspace("aside"))
}

pub(crate) fn git_config_replace(stage: &Stage) -> Outcome {
    let (config, other) = (stage.workspace(".git/config"), stage.workspace("other"));
    let replaced =
        fs::read(&config).and_then(|text| fs::write(&other, text)).and_then(|()| fs::rename(&other, config));
    let _ = fs::remove_file(other);
    reach(replaced)
}

pub(crate) fn git_config_exchange(stage: &Stage) -> Outcome {
    exchange(&stage.workspace(".git/config"), &stage.workspace("file"))
}

pub(crate) fn git_config_link(stage: &Stage) -> Outcome {
    link(stage.workspace(".git/config"), stage.workspace("new"))
}

pub(crate) fn git_config_remove(stage: &Stage) -> Outcome {
    let path = stage.workspace(".git/config");
    let text = fs::read(&path).unwrap_or_default();
    let removed = fs::remove_file(&path);
    if removed.is_ok() {
        let _ = fs::write(path, text);
    }
    reach(removed)
}

pub(crate) fn git_config_uncover(stage: &Stage) -> Outcome {
    let path = raw::path(stage.workspace(".git/config"));
    match sys!(libc::SYS_umount2, &path, libc::MNT_DETACH) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Outcome::absent("nothing is mounted there, or it is locked")
        }
        other => reach(other),
    }
}

/// A name that is reserved by something read-only may be there already.
fn make_reserved(stage: &Stage, name: &str) -> Outcome {
    let path = stage.workspace(name);
    if path.exists() { reach(open_to_write(path)) } else { make(path) }
}

pub(crate) fn git_config_worktree(stage: &Stage) -> Outcome {
    make_reserved(stage, ".git/config.worktree")
}

pub(crate) fn git_commondir(stage: &Stage) -> Outcome {
    make_reserved(stage, ".git/commondir")
}

pub(crate) fn git_attributes(stage: &Stage) -> Outcome {
    make_reserved(stage, ".git/info/attributes")
}

pub(crate) fn git_module(stage: &Stage) -> Outcome {
    make_directory(stage.workspace(".git/modules/planted"))
}

pub(crate) fn git_remote(stage: &Stage) -> Outcome {
    make(stage.workspace(".git/remotes/origin"))
}

pub(crate) fn git_nested_hook(stage: &Stage) -> Outcome {
    make(stage.workspace("nested/.git/hooks/pre-commit"))
}

/// Git appends to its log wherever that leads.
pub(crate) fn git_log_link(stage: &Stage) -> Outcome {
    let path = stage.workspace(".git/logs/HEAD");
    let made = symlink(stage.home(".profile"), &path);
    if made.is_ok() {
        let _ = fs::remove_file(path);
    }
    reach(made)
}

pub(crate) fn editor_tasks(stage: &Stage) -> Outcome {
    reach(open_to_write(stage.workspace(".vscode/tasks.json")))
}

pub(crate) fn own_write(stage: &Stage) -> Outcome {
    reach(open_to_write(stage.workspace(".claude/settings.json")))
}

pub(crate) fn own_rename(stage: &Stage) -> Outcome {
    rename(stage.workspace(".claude"), stage.workspace("aside"))
}

pub(crate) fn own_exchange(stage: &Stage) -> Outcome {
    exchange(&stage.workspace(".claude"), &stage.workspace("nested"))
}

pub(crate) fn own_make(stage: &Stage) -> Outcome {
    taken(make_directory(stage.workspace(".agents")), stage)
}

pub(crate) fn own_fill(stage: &Stage) -> Outcome {
    let folder = stage.workspace(".codex");
    // Where nothing reserves it, it takes making it.
    let made = fs::create_dir(&folder).is_ok();
    let outcome = make(folder.join("config.toml"));
    if made {
        let _ = fs::remove_dir(folder);
    }
    outcome
}

pub(crate) fn own_rename_onto(stage: &Stage) -> Outcome {
    let other = stage.workspace("other-directory");
    if let Err(error) = fs::create_dir(&other) {
        return reach::<()>(Err(error));
    }
    let outcome = rename(other.clone(), stage.workspace(".agents"));
    let _ = fs::remove_dir(other);
    outcome
}

pub(crate) fn own_symbolic_link(stage: &Stage) -> Outcome {
    let path = stage.workspace(".sandbar");
    let made = symlink("nested", &path);
    if made.is_ok() {
        let _ = fs::remove_file(&path);
    }
    taken(reach(made), stage)
}

/// The same name in another case must be another name.
pub(crate) fn own_other_case(stage: &Stage) -> Outcome {
    let path = stage.workspace(".CLAUDE/settings.json");
    if path.exists() {
        return reach(open_to_write(path));
    }
    Outcome::absent("another case is another name")
}

/// A name that something reserves can't be made, which is as good as a refusal if that can't be removed either.
fn taken(outcome: Outcome, stage: &Stage) -> Outcome {
    let names = [".agents", ".sandbar"];
    let is_reserved = names.iter().all(|name| {
        fs::symlink_metadata(stage.workspace(name)).is_ok() && fs::remove_dir(stage.workspace(name)).is_err()
    });
    if outcome.detail.contains("File exists") && is_reserved {
        return Outcome::denied("the name is reserved");
    }
    outcome
}
