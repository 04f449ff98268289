//! Files of the stage: a repository with protected names, an outside, a home with secrets.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::{Folders, SECRET};
use crate::raw::{self, sys};

fn put(path: PathBuf, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

/// A git repository with another one in it, names that are protected and ways out that somebody left.
pub(super) fn make_workspace(folders: &Folders) -> io::Result<()> {
    let workspace = &folders.workspace;
    for repository in [workspace.clone(), workspace.join("nested")] {
        let git = repository.join(".git");
        for name in ["objects", "refs/heads", "hooks", "info", "logs", "modules", "remotes"] {
            fs::create_dir_all(git.join(name))?;
        }
        put(git.join("HEAD"), "ref: refs/heads/main\n")?;
        put(git.join("config"), "[core]\n\trepositoryformatversion = 0\n\tbare = false\n")?;
        put(git.join("hooks/post-commit"), "#!/bin/sh\n")?;
    }
    put(workspace.join(".claude/settings.json"), "{}")?;
    put(workspace.join(".vscode/tasks.json"), "{}")?;
    put(workspace.join("file"), "of the workspace")?;
    let linked = folders.outside.join("linked");
    put(linked.clone(), "untouched")?;
    fs::hard_link(&linked, workspace.join("hard-link"))?;
    symlink(folders.outside.join("file"), workspace.join("symbolic-link"))
}

/// What no command is to change.
pub(super) fn make_outside(outside: &Path) -> io::Result<()> {
    for name in ["file", "removable", "movable", "inherited", "input"] {
        put(outside.join(name), "untouched")?;
    }
    fs::create_dir_all(outside.join("directory"))?;
    sys!(libc::SYS_mknodat, libc::AT_FDCWD, &raw::path(outside.join("fifo")), libc::S_IFIFO | 0o600, 0)?;
    Ok(())
}

/// Secrets where tools keep them.
pub(super) fn make_home(home: &Path) -> io::Result<()> {
    let secrets = [
        ".ssh/id_escape_probe",
        ".aws/credentials",
        ".gnupg/secring.gpg",
        ".config/gh/hosts.yml",
        ".git-credentials",
        ".netrc",
        ".bash_history",
        ".mozilla/key4.db",
    ];
    for name in secrets {
        put(home.join(name), SECRET)?;
    }
    put(home.join("readable"), "untouched")?;
    put(home.join(".profile"), "")
}

/// A copy of this program that runs as `nobody`, which only root can make. Everybody may execute it.
pub(super) fn make_set_user_id(outside: &Path) -> io::Result<Option<PathBuf>> {
    const NOBODY: u32 = 65_534;
    if raw::euid() != 0 {
        return Ok(None);
    }
    let copy = outside.join("set-user-id");
    fs::copy("/proc/self/exe", &copy)?;
    std::os::unix::fs::chown(&copy, Some(NOBODY), Some(NOBODY))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755))?;
    Ok(Some(copy))
}
