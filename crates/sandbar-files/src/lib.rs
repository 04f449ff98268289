//! Files of the exec server: every file method of its dialect, carried out on this host.
//!
//! [`Files`] does the work with blocking system calls; it has no runtime and no threads. It decides nothing about what
//! may be touched: that is the kernel's part, inside a sandbox that somebody else made, where the same code runs as a
//! helper. Nothing here waits for anything but a disk: FIFOs and devices are refused, not opened.

#![forbid(unsafe_code)]

mod at;
mod attributes;
mod content;
mod copy;
mod directory;
mod error;
mod files;
mod handles;
mod helper;
mod metadata;
mod methods;
mod read;
mod remove;
mod replace;
mod walk;
mod watch;

pub use copy::Directories;
pub use directory::Ancestors;
pub use error::{ErrorData, ErrorKind, FileError, Surroundings};
pub use files::Files;
pub use handles::{Block, Handles, MAX_BLOCK_BYTES, MAX_HANDLES};
pub use helper::{
    Answer, AnswerDecoder, Assembly, HELPER_ARGUMENT, MAX_LINE_BYTES, PIECE_BYTES, PIECE_TEXT_BYTES,
    ProtocolError, close_connection, encode_piece, encode_request, helper_main, serve,
};
pub use methods::{Part, part_for};
pub use read::{FileReader, Links, MAX_READ_BYTES};
pub use remove::RemoveOptions;
pub use replace::{Atomicity, Expected, Replacement, WriteOptions};
pub use walk::{MAX_WALK_DEPTH, MAX_WALK_DIRECTORIES, MAX_WALK_ENTRIES};
pub use watch::{MAX_WATCH_PATHS, MAX_WATCHES, Watch, WatchKey, Watches};

#[cfg(test)]
mod tests;
