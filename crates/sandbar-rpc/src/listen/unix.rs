//! Unix sockets at a path: made so that nobody else can connect, taken over only from the dead.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// Connections that wait to be accepted: the most that Linux allows unless told otherwise (listen(2), somaxconn).
const BACKLOG: i32 = 4096;

/// A listening socket, its path and the lock on it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode of the socket we made.
    identity: (u64, u64),
    _lock: OwnedFd,
}

/// Why there is no socket.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another process listens.
    InUse,
    /// Something else than a socket is there.
    NotASocket,
    Io(io::Error),
}

impl<E: Into<io::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Io(error.into())
    }
}

impl SocketFile {
    /// Binds and listens. The socket has mode 0600 before anybody can connect. A lock beside it (`PATH.lock`, which stays)
    /// keeps two servers from taking the path from each other; a socket that nobody listens on any more is replaced.
    pub(crate) fn bind(path: &Path) -> Result<(OwnedFd, Self), Failure> {
        let lock = lock(path)?;
        remove_dead(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        with_address(path, |address| Ok(bind(&socket, address)?))?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let about = fs::symlink_metadata(path)?;
        listen(&socket, BACKLOG)?;
        Ok((socket, Self { path: path.to_owned(), identity: (about.dev(), about.ino()), _lock: lock }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|about| (about.dev(), about.ino()) == self.identity);
        if is_ours {
            // One that stays is dead, and the next server replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn lock(path: &Path) -> Result<OwnedFd, Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = openat(CWD, Path::new(&name), flags, Mode::RUSR | Mode::WUSR)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::InUse),
        result => Ok(result.map(|()| lock)?),
    }
}

/// Removes a socket that nobody listens on.
fn remove_dead(path: &Path) -> Result<(), Failure> {
    let about = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        about => about?,
    };
    if !about.file_type().is_socket() {
        return Err(Failure::NotASocket);
    }
    // A server that knows nothing of our lock may live.
    match connect_to(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Also when its queue is full, or when it is none of our kind.
        _ => Err(Failure::InUse),
    }
}

/// Connects to the socket at a path; never waits.
///
/// # Errors
/// The system's; `WouldBlock` when more wait to be accepted than the listener allows.
pub(crate) fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    with_address(path, |address| Ok(connect(&socket, address)?))?;
    Ok(socket)
}

/// Calls with the address of a path; one of more than 107 bytes (unix(7)) goes through a descriptor of its folder.
fn with_address(path: &Path, call: impl FnOnce(&SocketAddrUnix) -> io::Result<()>) -> io::Result<()> {
    if let Ok(address) = SocketAddrUnix::new(path) {
        return call(&address);
    }
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let (folder, name) = (path.parent().ok_or_else(invalid)?, path.file_name().ok_or_else(invalid)?);
    let folder = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    call(&SocketAddrUnix::new(&short)?)
}
