//! The methods.

use sandbar_proto::AbsPath;
use sandbar_proto::exec::{CanonicalPath, Metadata};

use crate::read::{FileReader, Links};
use crate::replace::{Beginning, Replacement, WriteOptions};
use crate::{FileError, Surroundings, metadata};

/// The file methods that need no memory between two calls; those that do are in [`crate::Handles`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Files {
    surroundings: Surroundings,
}

impl Files {
    /// The methods in these surroundings.
    #[must_use]
    pub fn new(surroundings: Surroundings) -> Self {
        Self { surroundings }
    }

    /// Reads a regular file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotAFile`], [`crate::ErrorKind::TooLarge`] above [`crate::MAX_READ_BYTES`], and what open(2)
    /// and read(2) say.
    pub fn read_file(&self, path: &AbsPath, links: Links) -> Result<Vec<u8>, FileError> {
        self.say(FileReader::open(path, links).and_then(|mut reader| reader.read_to_end()))
    }

    /// Opens a regular file that is to be read by pieces.
    ///
    /// # Errors
    /// As [`Files::read_file`].
    pub fn open_file(&self, path: &AbsPath, links: Links) -> Result<FileReader, FileError> {
        self.say(FileReader::open(path, links))
    }

    /// Gives a file this content, and returns its BLAKE3 hash in hexadecimal if the options expected one.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Changed`], [`crate::ErrorKind::NotAtomic`], [`crate::ErrorKind::NotAFile`], and what the
    /// kernel says.
    pub fn write_file(
        &self,
        path: &AbsPath,
        content: &[u8],
        options: WriteOptions,
    ) -> Result<Option<String>, FileError> {
        let written = Replacement::begin(path, options, Beginning::Kept).and_then(|mut replacement| {
            replacement.write(content)?;
            replacement.commit()
        });
        self.say(written)
    }

    /// Begins to give a file new content that comes by pieces.
    ///
    /// # Errors
    /// As [`Files::write_file`].
    pub fn replace_file(&self, path: &AbsPath, options: WriteOptions) -> Result<Replacement, FileError> {
        self.say(Replacement::begin(path, options, Beginning::Kept))
    }

    /// What a path is.
    ///
    /// # Errors
    /// What statx(2) says; a symbolic link that leads nowhere is not found.
    pub fn metadata(&self, path: &AbsPath) -> Result<Metadata, FileError> {
        self.say(metadata::metadata(path))
    }

    /// The path without symbolic links.
    ///
    /// # Errors
    /// What realpath(3) says.
    pub fn canonicalize(&self, path: &AbsPath) -> Result<CanonicalPath, FileError> {
        self.say(metadata::canonicalize(path))
    }

    fn say<T>(&self, answer: Result<T, FileError>) -> Result<T, FileError> {
        answer.map_err(|error| error.within(self.surroundings))
    }
}
