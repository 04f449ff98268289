//! Reading what is hidden: secrets, and Sandbar's own files.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::files::rename;
use crate::outcome::{Outcome, reach};
use crate::raw::{self, sys};
use crate::stage::{SECRET, SECRET_VARIABLE, Stage};

/// Reads a file, which counts only if the secret is in it.
fn read(path: impl AsRef<Path>) -> Outcome {
    match fs::read(path) {
        Ok(text) if holds_secret(&text) => Outcome::allowed("read"),
        Ok(_) => Outcome::denied("it reads as something else"),
        Err(error) => reach::<()>(Err(error)),
    }
}

fn holds_secret(text: &[u8]) -> bool {
    text.windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
}

pub(crate) fn ssh_key(stage: &Stage) -> Outcome {
    read(stage.home(".ssh/id_escape_probe"))
}

pub(crate) fn cloud_credentials(stage: &Stage) -> Outcome {
    read(stage.home(".aws/credentials"))
}

pub(crate) fn gnupg_ring(stage: &Stage) -> Outcome {
    read(stage.home(".gnupg/secring.gpg"))
}

pub(crate) fn forge_token(stage: &Stage) -> Outcome {
    read(stage.home(".config/gh/hosts.yml"))
}

pub(crate) fn git_credentials(stage: &Stage) -> Outcome {
    read(stage.home(".git-credentials"))
}

pub(crate) fn netrc(stage: &Stage) -> Outcome {
    read(stage.home(".netrc"))
}

pub(crate) fn shell_history(stage: &Stage) -> Outcome {
    read(stage.home(".bash_history"))
}

pub(crate) fn browser_keys(stage: &Stage) -> Outcome {
    read(stage.home(".mozilla/key4.db"))
}

pub(crate) fn by_proc_root(stage: &Stage) -> Outcome {
    read(format!("/proc/self/root{}", stage.home(".ssh/id_escape_probe").display()))
}

pub(crate) fn rename_secrets(stage: &Stage) -> Outcome {
    rename(stage.home(".ssh"), stage.home("aside"))
}

pub(crate) fn list_secrets(stage: &Stage) -> Outcome {
    reach(fs::read_dir(stage.home(".ssh")))
}

/// A handle of a file names it without a path: that of the secret where it can be had, else that of its directory's
/// neighbour shows that handles can be opened.
pub(crate) fn open_by_handle(stage: &Stage) -> Outcome {
    const HANDLE_BYTES: u32 = 128;
    let mut handle = vec![0_u8; 8 + HANDLE_BYTES as usize];
    handle[..4].copy_from_slice(&HANDLE_BYTES.to_ne_bytes());
    let mut mount_id = [0_u8; 4];
    let path = raw::path(stage.home("readable"));
    let named =
        sys!(libc::SYS_name_to_handle_at, libc::AT_FDCWD, &path, &mut handle[..], &mut mount_id[..], 0);
    if let Err(error) = named {
        return reach::<()>(Err(error));
    }
    let opened = File::open(&stage.folders.home).and_then(|mount| {
        use std::os::fd::AsRawFd as _;
        sys!(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &handle[..], libc::O_RDONLY)
    });
    reach(opened)
}

pub(crate) fn shadow(_: &Stage) -> Outcome {
    reach(File::open("/etc/shadow"))
}

pub(crate) fn variable(_: &Stage) -> Outcome {
    match std::env::var_os(SECRET_VARIABLE) {
        Some(value) if value == SECRET => Outcome::allowed("it is in the environment"),
        Some(_) => Outcome::denied("it has another value"),
        None => Outcome::absent("it is not in the environment"),
    }
}

pub(crate) fn own_directory(stage: &Stage) -> Outcome {
    let Some(own) = &stage.own else { return Outcome::absent("there is no Sandbar here") };
    reach(fs::read_dir(own))
}

pub(crate) fn own_record(stage: &Stage) -> Outcome {
    let Some(own) = &stage.own else { return Outcome::absent("there is no Sandbar here") };
    match find_file(own) {
        Ok(Some(path)) => reach(File::open(path)),
        Ok(None) => Outcome::absent("no file is there"),
        Err(error) => reach::<()>(Err(error)),
    }
}

/// The first file below a directory that is not a socket.
fn find_file(folder: &Path) -> io::Result<Option<std::path::PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_file() {
            return Ok(Some(entry.path()));
        }
        if kind.is_dir() {
            match find_file(&entry.path()) {
                Ok(None) => {}
                found => return found,
            }
        }
    }
    Ok(None)
}

pub(crate) fn own_write(stage: &Stage) -> Outcome {
    let Some(own) = &stage.own else { return Outcome::absent("there is no Sandbar here") };
    super::files::make(own.join("escape-probe-new"))
}

pub(crate) fn own_socket(stage: &Stage) -> Outcome {
    let Some(socket) = &stage.own_socket else { return Outcome::absent("there is no keeper here") };
    // A stream would be refused for its kind alone.
    reach(super::sockets::connect_sequential(socket))
}
