//! Reading regular files and nothing else.
//!
//! What is no regular file is refused before it is opened: opening a FIFO wakes whoever waits at its other end, and
//! opening a device may set it going. Should one be swapped in between, the open does not block (`O_NONBLOCK`) and what
//! was opened is looked at again.

use std::fs::File;

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, FileKind};

use crate::at::kind;
use crate::{ErrorKind, FileError};

/// Most bytes that `fs/readFile` reads, the dialect's bound.
pub const MAX_READ_BYTES: u64 = 512 * 1024 * 1024;

/// Whether a symbolic link in the last place of a path is followed. Those above it always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// To the file it leads to; the dialect's default.
    #[default]
    Follow,
    /// It is not: reading and writing refuse it, others take it as itself.
    NoFollow,
}

/// The refusal of a link that was not to be followed.
pub(crate) fn is_a_symlink(path: &AbsPath) -> FileError {
    let message = format!("path `{}` is a symbolic link", path.to_display());
    FileError::new(ErrorKind::IsASymlink, Some(path), message)
}

/// Opens a regular file for reading.
pub(crate) fn open_regular(path: &AbsPath, links: Links) -> Result<(File, Stat), FileError> {
    let at = |errno| FileError::at(path, errno);
    let (stat_flags, open_flags) = match links {
        Links::Follow => (AtFlags::empty(), OFlags::empty()),
        Links::NoFollow => (AtFlags::SYMLINK_NOFOLLOW, OFlags::NOFOLLOW),
    };
    let refuse = |stat: &Stat| match kind(stat) {
        FileKind::File => Ok(()),
        FileKind::Symlink => Err(is_a_symlink(path)),
        FileKind::Directory | FileKind::Other => Err(FileError::not_a_file(path)),
    };
    refuse(&statat(CWD, path.as_bytes(), stat_flags).map_err(at)?)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | open_flags;
    let file = openat(CWD, path.as_bytes(), flags, Mode::empty()).map_err(|errno| match (links, errno) {
        (Links::NoFollow, Errno::LOOP) => is_a_symlink(path),
        _ => at(errno),
    })?;
    let stat = fstat(&file).map_err(at)?;
    refuse(&stat)?;
    Ok((File::from(file), stat))
}

/// A file that is read from its beginning to its end, up to [`MAX_READ_BYTES`].
#[derive(Debug)]
pub struct FileReader {
    file: File,
    path: AbsPath,
    /// As its directory entry says; files in /proc say 0 and have more.
    size_bytes: u64,
    read_bytes: u64,
}

impl FileReader {
    pub(crate) fn open(path: &AbsPath, links: Links) -> Result<Self, FileError> {
        let (file, stat) = open_regular(path, links)?;
        let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        let reader = Self { file, path: path.clone(), size_bytes, read_bytes: 0 };
        if size_bytes > MAX_READ_BYTES { Err(reader.too_large()) } else { Ok(reader) }
    }

    /// What the file's size was said to be when it was opened; what it holds may be more or less.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Reads on and says how many bytes. Fewer than `buffer` has only at the end of the file.
    ///
    /// # Errors
    /// What read(2) says, and [`ErrorKind::TooLarge`] once the file has given more than [`MAX_READ_BYTES`].
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FileError> {
        let mut taken = 0;
        while taken < buffer.len() {
            let got = retry(|| rustix::io::read(&self.file, &mut buffer[taken..]));
            match got.map_err(|errno| FileError::at(&self.path, errno))? {
                0 => break,
                got => taken += got,
            }
        }
        self.count(taken)?;
        Ok(taken)
    }

    /// Reads all of it.
    pub(crate) fn read_to_end(&mut self) -> Result<Vec<u8>, FileError> {
        // One byte more than its size, so that the end is seen without growing the buffer.
        let expected = usize::try_from(self.size_bytes).unwrap_or(0).saturating_add(1);
        let mut content = Vec::with_capacity(expected.max(LEAST_CAPACITY));
        loop {
            // Into memory that was never touched: writing zeros there first would cost as much as reading.
            let got = retry(|| rustix::io::read(&self.file, spare_capacity(&mut content)));
            match got.map_err(|errno| FileError::at(&self.path, errno))? {
                0 => return Ok(content),
                got => self.count(got)?,
            }
            if content.len() == content.capacity() {
                content.reserve(content.len());
            }
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), FileError> {
        self.read_bytes += bytes as u64;
        if self.read_bytes > MAX_READ_BYTES { Err(self.too_large()) } else { Ok(()) }
    }

    fn too_large(&self) -> FileError {
        FileError::new(ErrorKind::TooLarge, Some(&self.path), "file is too large to read")
    }
}

/// Most files of /proc, whose size is said to be 0, come in one read of this size.
const LEAST_CAPACITY: usize = 16 * 1024;

/// Asks again when a signal came between.
pub(crate) fn retry<T>(mut ask: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match ask() {
            Err(Errno::INTR) => {}
            answer => return answer,
        }
    }
}
