//! Files that are read or written by blocks, under names that the client chose.
//!
//! A handle for reading goes on with the file that it opened, whatever takes its name meanwhile. What is written to a
//! handle becomes visible as a whole when it is closed, and not at all when it is dropped, which is what the end of a
//! connection means. Where the target can't be replaced as a whole, it is emptied at once and written in place, as the
//! dialect's own server does with every target.

use std::collections::HashMap;
use std::fs::File;

use rustix::buffer::spare_capacity;
use sandbar_proto::exec::OpenMode;
use sandbar_proto::{AbsPath, base64};
use serde_json::value::RawValue;

use crate::read::{Links, open_regular, retry};
use crate::replace::{Beginning, Replacement, WriteOptions};
use crate::{ErrorKind, FileError, Surroundings, content};

/// Most handles of a connection; one more is refused.
pub const MAX_HANDLES: usize = 128;

/// Most bytes of a block.
pub const MAX_BLOCK_BYTES: u64 = 1024 * 1024;

/// The handles of one connection.
#[derive(Debug, Default)]
pub struct Handles {
    open: HashMap<String, Handle>,
    surroundings: Surroundings,
    /// Memory of a block, kept from one to the next while something is open.
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Handle {
    path: AbsPath,
    what: What,
}

#[derive(Debug)]
enum What {
    Reads(File),
    Writes(Box<Replacement>),
}

/// A block of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What is there; shorter than asked for at the end of the file.
    pub bytes: Vec<u8>,
    /// Whether the file ends with it.
    pub is_end: bool,
}

impl Handles {
    /// None, for files in `surroundings`.
    #[must_use]
    pub fn new(surroundings: Surroundings) -> Self {
        Self { open: HashMap::new(), surroundings, scratch: Vec::new() }
    }

    /// Opens a file under the name `id`, which may be any text.
    ///
    /// # Errors
    /// [`ErrorKind::NameInUse`], [`ErrorKind::TooMany`] above [`MAX_HANDLES`], and what opening says.
    pub fn open(&mut self, id: &str, path: &AbsPath, mode: OpenMode) -> Result<(), FileError> {
        if self.open.contains_key(id) {
            let message = format!("file handle `{id}` is open already");
            return Err(FileError::new(ErrorKind::NameInUse, Some(path), message));
        }
        if self.open.len() >= MAX_HANDLES {
            let message = format!("a connection has at most {MAX_HANDLES} file handles");
            return Err(FileError::new(ErrorKind::TooMany, Some(path), message));
        }
        let what = match mode {
            OpenMode::Read => open_regular(path, Links::Follow).map(|(file, _)| What::Reads(file)),
            OpenMode::Replace => Replacement::begin(path, WriteOptions::default(), Beginning::Empty)
                .map(|replacement| What::Writes(Box::new(replacement))),
        };
        let what = what.map_err(|error| error.within(self.surroundings))?;
        self.open.insert(id.to_owned(), Handle { path: path.clone(), what });
        Ok(())
    }

    /// Reads up to `len_bytes` at `offset`.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownHandle`]; [`ErrorKind::OutOfRange`] unless `len_bytes` is 1 to [`MAX_BLOCK_BYTES`];
    /// [`ErrorKind::WrongMode`] on a handle for writing; what pread(2) says.
    pub fn read_block(&mut self, id: &str, offset: u64, len_bytes: u64) -> Result<Block, FileError> {
        let mut block = Block { bytes: Vec::new(), is_end: false };
        self.read_into(&mut block, id, offset, len_bytes)?;
        Ok(block)
    }

    fn read_into(
        &mut self,
        block: &mut Block,
        id: &str,
        offset: u64,
        len_bytes: u64,
    ) -> Result<(), FileError> {
        let handle = self.get(id)?;
        let path = &handle.path;
        let len = block_len(path, "fs/readBlock len", len_bytes)?;
        in_range(path, offset, len_bytes)?;
        let What::Reads(file) = &handle.what else { return Err(wrong_mode(path)) };
        let bytes = &mut block.bytes;
        bytes.clear();
        // One byte more tells whether the file goes on.
        bytes.reserve_exact(len + 1);
        while bytes.len() <= len {
            let at = offset + bytes.len() as u64;
            let got = retry(|| rustix::io::pread(file, spare_capacity(bytes), at));
            if got.map_err(|errno| FileError::at(path, errno))? == 0 {
                break;
            }
        }
        block.is_end = bytes.len() <= len;
        bytes.truncate(len);
        Ok(())
    }

    /// As [`Handles::read_block`], as the result of the method.
    pub(crate) fn read_block_json(
        &mut self,
        id: &str,
        offset: u64,
        len_bytes: u64,
    ) -> Result<Box<RawValue>, FileError> {
        let mut block = Block { bytes: std::mem::take(&mut self.scratch), is_end: false };
        let read = self.read_into(&mut block, id, offset, len_bytes);
        let json = read.and_then(|()| content::block(&block));
        self.scratch = block.bytes;
        json
    }

    /// As [`Handles::write_block`], of base64 text.
    ///
    /// # Errors
    /// Also [`ErrorKind::InvalidParams`] where it is none.
    pub(crate) fn write_block_text(&mut self, id: &str, offset: u64, text: &str) -> Result<(), FileError> {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let decoded = base64::append_decoded(text, &mut bytes)
            .map_err(|error| FileError::new(ErrorKind::InvalidParams, None, error.to_string()));
        let written = decoded.and_then(|()| self.write_block(id, offset, &bytes));
        self.scratch = bytes;
        written
    }

    /// Writes `bytes` at `offset`; what lies before it and was never written reads as zeros.
    ///
    /// # Errors
    /// As [`Handles::read_block`].
    pub fn write_block(&mut self, id: &str, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let surroundings = self.surroundings;
        let handle = self.get(id)?;
        let path = &handle.path;
        let len_bytes = bytes.len() as u64;
        block_len(path, "fs/writeBlock chunk", len_bytes)?;
        in_range(path, offset, len_bytes)?;
        let What::Writes(replacement) = &mut handle.what else { return Err(wrong_mode(path)) };
        replacement.write_at(offset, bytes).map_err(|error| error.within(surroundings))
    }

    /// Closes a handle; what was written to it is visible then. One that is not open is closed already.
    ///
    /// # Errors
    /// The content could not be put in place. The handle is closed all the same.
    pub fn close(&mut self, id: &str) -> Result<(), FileError> {
        let closed = self.open.remove(id);
        if self.open.is_empty() {
            self.scratch = Vec::new();
        }
        match closed {
            None | Some(Handle { what: What::Reads(_), .. }) => Ok(()),
            Some(Handle { what: What::Writes(replacement), .. }) => {
                let finished = replacement.commit();
                finished.map(|_| ()).map_err(|error| error.within(self.surroundings))
            }
        }
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn get(&mut self, id: &str) -> Result<&mut Handle, FileError> {
        self.open.get_mut(id).ok_or_else(|| {
            FileError::new(ErrorKind::UnknownHandle, None, format!("unknown file handle `{id}`"))
        })
    }
}

fn block_len(path: &AbsPath, what: &str, len_bytes: u64) -> Result<usize, FileError> {
    let len = usize::try_from(len_bytes).ok().filter(|_| (1..=MAX_BLOCK_BYTES).contains(&len_bytes));
    len.ok_or_else(|| {
        let message = format!("{what} is {len_bytes} bytes, and may be 1 to {MAX_BLOCK_BYTES}");
        FileError::new(ErrorKind::OutOfRange, Some(path), message)
    })
}

/// Offsets are signed on their way into the kernel.
fn in_range(path: &AbsPath, offset: u64, len_bytes: u64) -> Result<(), FileError> {
    let end = offset.checked_add(len_bytes + 1).and_then(|end| i64::try_from(end).ok());
    end.map(|_| ())
        .ok_or_else(|| FileError::new(ErrorKind::OutOfRange, Some(path), "the block ends above 2^63 bytes"))
}

fn wrong_mode(path: &AbsPath) -> FileError {
    FileError::at(path, rustix::io::Errno::BADF)
}
