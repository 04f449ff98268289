//! Handing a plan over: a sealed memfd and the caller's own descriptors.

use std::io::Write as _;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};
use sandbar_proto::{LaunchSpec, OutputMode};

use crate::processes::{Handles, StartError};

/// Whether the keeper logs any stream of the plan.
pub(super) fn is_logged(spec: &LaunchSpec) -> bool {
    [spec.stdio.stdout, spec.stdio.stderr].iter().any(|mode| *mode != OutputMode::Direct)
}

/// What travels with a start request, in its order.
///
/// # Errors
/// [`StartError::Handle`] or [`StartError::Plan`].
pub(super) fn descriptors(spec: &LaunchSpec, handles: Handles) -> Result<Vec<OwnedFd>, StartError> {
    let mut fds = vec![memfd(spec).map_err(StartError::Plan)?];
    let direct = spec.stdio.direct();
    let streams = [
        (direct.stdin, handles.stdin, "stdin"),
        (direct.stdout, handles.stdout, "stdout"),
        (direct.stderr, handles.stderr, "stderr"),
    ];
    for (wanted, handle, name) in streams {
        if wanted {
            fds.push(handle.ok_or(StartError::Handle(name))?);
        }
    }
    Ok(fds)
}

fn memfd(spec: &LaunchSpec) -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("sandbar-plan", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&serde_json::to_vec(spec)?)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}
