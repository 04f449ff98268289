//! What a path is.

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, StatxTimestamp, statx};
use sandbar_proto::AbsPath;
use sandbar_proto::exec::{CanonicalPath, Metadata, WirePath};

use crate::{FileError, Links};

/// Type, size and times. All are of what a symbolic link leads to, if it is followed, except that it is one; a link that
/// leads nowhere is not found then.
pub(crate) fn metadata(path: &AbsPath, links: Links) -> Result<Metadata, FileError> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let ask = |flags| statx(CWD, path.as_bytes(), flags, wanted).map_err(|errno| FileError::at(path, errno));
    let kind = |mode: u16| FileType::from_raw_mode(mode.into());
    let itself = ask(AtFlags::SYMLINK_NOFOLLOW)?;
    let is_symlink = kind(itself.stx_mode) == FileType::Symlink;
    let found = if is_symlink && links == Links::Follow { ask(AtFlags::empty())? } else { itself };
    let knows_birth = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
    Ok(Metadata {
        is_directory: kind(found.stx_mode) == FileType::Directory,
        is_file: kind(found.stx_mode) == FileType::RegularFile,
        is_symlink,
        size: found.stx_size,
        created_at_ms: if knows_birth { milliseconds(found.stx_btime) } else { 0 },
        modified_at_ms: milliseconds(found.stx_mtime),
    })
}

/// Since 1970, before it negative.
fn milliseconds(time: StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(1000).saturating_add(i64::from(time.tv_nsec / 1_000_000))
}

/// The path without symbolic links. All of it must be there.
pub(crate) fn canonicalize(path: &AbsPath) -> Result<CanonicalPath, FileError> {
    let found = std::fs::canonicalize(path.as_path()).map_err(|error| FileError::io(path, &error))?;
    let found = AbsPath::new(found.into_os_string());
    let invalid = |error: sandbar_proto::AbsPathError| {
        FileError::new(crate::ErrorKind::InvalidInput, Some(path), error.to_string())
    };
    found.map(|path| CanonicalPath { path: WirePath(path) }).map_err(invalid)
}
