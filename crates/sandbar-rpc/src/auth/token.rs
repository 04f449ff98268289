//! Files that hold a secret: read only if nobody else could, made only where nobody else looks.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::fs::{CWD, Mode, OFlags};

use super::AuthError;

/// Largest file that is read as a secret: a shared secret may be a file of key material.
const MOST: u64 = 64 * 1024;

/// Random bits of a token we make: as many as its hash has.
const TOKEN_BYTES: usize = 32;

/// Reads a token, after making its file if there is none.
pub(super) fn read_or_make(path: &Path) -> Result<Vec<u8>, AuthError> {
    match read_secret(path, 1) {
        Err(AuthError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            make(path).map_err(|source| AuthError::File { path: path.to_owned(), source })?;
            read_secret(path, 1)
        }
        result => result,
    }
}

/// Makes a file with a new token, whole or not at all; one that another process made meanwhile stays.
fn make(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut random = [0; TOKEN_BYTES];
    crate::random::fill(&mut random)?;
    let text = URL_SAFE_NO_PAD.encode(random);
    crate::random::fill(&mut random[..8])?;
    let temporary = folder.join(format!(".token-{}", hex(&random[..8])));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
    let linked = written.and_then(|()| match std::fs::hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    });
    std::fs::remove_file(&temporary)?;
    linked
}

/// Reads a secret of at least `least` bytes from a file that belongs to us or to root and that nobody else can read.
/// White space at its end doesn't count.
pub(super) fn read_secret(path: &Path, least: usize) -> Result<Vec<u8>, AuthError> {
    let failed = |source: io::Error| AuthError::File { path: path.to_owned(), source };
    // Non-blocking: a pipe without a writer would hold us for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let file = File::from(fd);
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() || about.len() > MOST {
        return Err(AuthError::NotASecret { path: path.to_owned(), most: MOST });
    }
    let mode = about.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(AuthError::Exposed { path: path.to_owned(), mode });
    }
    let owner = about.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(AuthError::Foreign { path: path.to_owned(), owner });
    }
    let mut secret = Vec::new();
    file.take(MOST).read_to_end(&mut secret).map_err(failed)?;
    secret.truncate(secret.trim_ascii_end().len());
    if secret.len() < least {
        return Err(AuthError::TooShort { path: path.to_owned(), length: secret.len(), least });
    }
    Ok(secret)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}
