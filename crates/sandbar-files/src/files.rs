//! The methods.

use sandbar_proto::AbsPath;
use sandbar_proto::exec::{CanonicalPath, DirectoryEntries, Metadata, WalkOptions, Walked};

use crate::copy::{self, Directories};
use crate::directory::{self, Ancestors};
use crate::read::{FileReader, Links};
use crate::remove::{self, RemoveOptions};
use crate::replace::{Beginning, Replacement, WriteOptions};
use crate::{FileError, Surroundings, metadata, walk};

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
    /// What statx(2) says; a symbolic link that is followed and leads nowhere is not found.
    pub fn metadata(&self, path: &AbsPath, links: Links) -> Result<Metadata, FileError> {
        self.say(metadata::metadata(path, links))
    }

    /// The path without symbolic links.
    ///
    /// # Errors
    /// What realpath(3) says.
    pub fn canonicalize(&self, path: &AbsPath) -> Result<CanonicalPath, FileError> {
        self.say(metadata::canonicalize(path))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// What mkdir(2) says.
    pub fn create_directory(&self, path: &AbsPath, ancestors: Ancestors) -> Result<(), FileError> {
        self.say(directory::create(path, ancestors))
    }

    /// What is in a directory, sorted by name. An entry whose target can't be told, such as a link that leads nowhere,
    /// is neither file nor directory.
    ///
    /// # Errors
    /// What open(2) says; [`crate::ErrorKind::TooLarge`] for names of more than 64 MiB.
    pub fn read_directory(&self, path: &AbsPath, links: Links) -> Result<DirectoryEntries, FileError> {
        self.say(directory::read(path, links))
    }

    /// Files and directories below a directory, sorted by path. The depth that was asked for does not make the answer
    /// truncated; the other bounds do.
    ///
    /// # Errors
    /// [`crate::ErrorKind::OutOfRange`] for bounds above the maxima, and what opening the directory says.
    pub fn walk(&self, path: &AbsPath, options: &WalkOptions) -> Result<Walked, FileError> {
        self.say(walk::walk(path, options))
    }

    /// Removes a file, a link or a directory.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Changed`] where a directory was swapped for something else meanwhile, and what unlink(2) and
    /// rmdir(2) say, with the path that it is about.
    pub fn remove(&self, path: &AbsPath, options: RemoveOptions) -> Result<(), FileError> {
        self.say(remove::remove(path, options))
    }

    /// Copies a file, a link or a directory.
    ///
    /// # Errors
    /// [`crate::ErrorKind::IsADirectory`], [`crate::ErrorKind::IntoItself`], [`crate::ErrorKind::SpecialFile`],
    /// [`crate::ErrorKind::SameFile`], [`crate::ErrorKind::Changed`], and what the kernel says, with the path that it is
    /// about.
    pub fn copy(&self, from: &AbsPath, to: &AbsPath, directories: Directories) -> Result<(), FileError> {
        self.say(copy::copy(from, to, directories))
    }

    pub(crate) fn say<T>(&self, answer: Result<T, FileError>) -> Result<T, FileError> {
        answer.map_err(|error| error.within(self.surroundings))
    }
}
