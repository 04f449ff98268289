//! Results that are larger than a line, in several of them.

use std::io::{self, Write};

use sandbar_proto::base64;
use sandbar_proto::exec::{DirectoryEntries, Walked};
use serde::Serialize;

use super::codec::PIECE_BYTES;
use crate::content::LEAST_PIECE_BYTES;
use crate::{FileError, FileReader};

/// Why a result could not be written: the method failed, or the caller is gone.
pub(super) enum Failure {
    Method(FileError),
    Output(io::Error),
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::Method(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Writes a file's content as the result of `fs/readFile`.
pub(super) fn content(output: &mut impl Write, id: u64, mut reader: FileReader) -> Result<(), Failure> {
    // One byte more than the file has, so that its last piece is seen to be the last.
    let wanted = usize::try_from(reader.size_bytes()).unwrap_or(PIECE_BYTES).saturating_add(1);
    let wanted = wanted.clamp(LEAST_PIECE_BYTES, PIECE_BYTES).next_multiple_of(3);
    let mut bytes = vec![0; wanted];
    let mut line = Vec::new();
    loop {
        let got = reader.read(&mut bytes)?;
        let is_last = got < bytes.len();
        let member = if is_last { "result" } else { "part" };
        line.clear();
        write!(line, "{{\"id\":{id},\"{member}\":{{\"dataBase64\":\"")?;
        base64::append(&bytes[..got], &mut line);
        line.extend(b"\"}}\n");
        output.write_all(&line)?;
        if is_last {
            return Ok(());
        }
        bytes.resize(PIECE_BYTES, 0);
    }
}

/// Writes the result of `fs/readDirectory`.
pub(super) fn entries(output: &mut impl Write, id: u64, listing: &DirectoryEntries) -> io::Result<()> {
    let mut list = List::new(output, id, "entries");
    list.write(&listing.entries)?;
    let rest = list.rest;
    writeln!(output, "{{\"id\":{id},\"result\":{{\"entries\":[{rest}]}}}}")
}

/// Writes the result of `fs/walk`.
pub(super) fn walked(output: &mut impl Write, id: u64, walked: &Walked) -> io::Result<()> {
    let mut list = List::new(output, id, "entries");
    list.write(&walked.entries)?;
    let entries = list.rest;
    let mut list = List::new(output, id, "errors");
    list.write(&walked.errors)?;
    let (errors, truncated) = (list.rest, walked.truncated);
    writeln!(
        output,
        "{{\"id\":{id},\"result\":{{\"entries\":[{entries}],\"errors\":[{errors}],\"truncated\":{truncated}}}}}"
    )
}

/// A list whose items go out in parts when they are many.
struct List<'a, W> {
    output: &'a mut W,
    id: u64,
    member: &'static str,
    /// What no part had, as JSON with commas between.
    rest: String,
}

impl<'a, W: Write> List<'a, W> {
    fn new(output: &'a mut W, id: u64, member: &'static str) -> Self {
        Self { output, id, member, rest: String::new() }
    }

    fn write<T: Serialize>(&mut self, items: &[T]) -> io::Result<()> {
        for item in items {
            let item = serde_json::to_string(item)?;
            if self.rest.len() + item.len() > PIECE_BYTES {
                let (id, member, rest) = (self.id, self.member, std::mem::take(&mut self.rest));
                writeln!(self.output, "{{\"id\":{id},\"part\":{{\"{member}\":[{rest}]}}}}")?;
            }
            if !self.rest.is_empty() {
                self.rest.push(',');
            }
            self.rest.push_str(&item);
        }
        Ok(())
    }
}
