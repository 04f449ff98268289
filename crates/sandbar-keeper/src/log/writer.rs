//! The keeper's end of a log.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use sandbar_proto::{OutputTotals, Seq, Stream, Timestamp};
use serde::{Deserialize, Serialize};

use super::record::{HEADER_BYTES, MAX_PAYLOAD_BYTES, RecordHeader};
use super::segment;
use crate::handover::{Adopted, Fd, HandoverError, Kept, failed};

/// Bytes after which a new segment begins. A sixteenth of the default retention: what is dropped at once.
const SEGMENT_BYTES: u64 = 1024 * 1024;

/// Space taken for the first segment before a process starts, so that a full runtime directory refuses the
/// start instead of stopping the process at its first word.
const RESERVED_BYTES: u64 = 16 * 1024;

/// Appends to one log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    directory: OwnedFd,
    segments: VecDeque<Segment>,
    current: OwnedFd,
    next_index: u32,
    retention_bytes: u64,
    /// Largest file that this process may write (RLIMIT_FSIZE, setrlimit(2)).
    max_file_bytes: u64,
    totals: OutputTotals,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Segment {
    index: u32,
    /// Bytes of records in the file.
    file_bytes: u64,
    /// Bytes of output in it.
    payload_bytes: u64,
    /// Offset behind its last record.
    end_offset: u64,
}

/// What of a log must not be dropped; `None` where nobody needs anything.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Keep {
    /// What every lossless reader has read ends here. Nothing behind it is ever dropped.
    pub(crate) read_to: Option<u64>,
    /// What a recorder may need a second time begins here. Dropped only where there is no room otherwise: better a gap
    /// in a record whose writer dies than a process that waits for ever.
    pub(crate) needed_from: Option<u64>,
}

/// Why a chunk could not be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppendError {
    /// No space, and nothing may be dropped before the reader has come further.
    Full,
    /// The kernel's error.
    Failed(Errno),
}

impl LogWriter {
    /// Makes the log in `directory`, with room for its beginning.
    ///
    /// # Errors
    /// ENOSPC and the like.
    pub(crate) fn create(directory: BorrowedFd<'_>, retention_bytes: u64) -> Result<Self, Errno> {
        let directory = directory.try_clone_to_owned().map_err(|error| errno(&error))?;
        let current = create_segment(directory.as_fd(), 0)?;
        match rustix::fs::fallocate(&current, FallocateFlags::KEEP_SIZE, 0, RESERVED_BYTES) {
            // Not every file system can; there the first write says what it has to say.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
        let first = Segment { index: 0, file_bytes: 0, payload_bytes: 0, end_offset: 0 };
        Ok(Self {
            directory,
            segments: VecDeque::from([first]),
            current,
            next_index: 1,
            retention_bytes,
            max_file_bytes: max_file_bytes(),
            totals: OutputTotals::default(),
        })
    }

    /// Bytes of the largest chunk that can be appended.
    pub(crate) fn max_chunk(&self) -> usize {
        // One without room for its beginning was not made; a chunk of nothing would pass for the end of a stream.
        let room = self.max_file_bytes.saturating_sub(HEADER_BYTES as u64);
        usize::try_from(room).unwrap_or(usize::MAX).clamp(1, MAX_PAYLOAD_BYTES)
    }

    /// What was written so far.
    pub(crate) fn totals(&self) -> OutputTotals {
        self.totals
    }

    /// Bytes that the log takes in the file system.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.file_bytes).sum()
    }

    /// Gives out the next sequence number to something that is not output.
    pub(crate) fn next_seq(&mut self) -> Seq {
        self.totals.last_seq = self.totals.last_seq.next();
        self.totals.last_seq
    }

    /// Appends one chunk. Segments that `keep` does not hold may be dropped to make room.
    ///
    /// # Errors
    /// [`AppendError`]; the log is as before, the chunk is not in it.
    pub(crate) fn append(
        &mut self,
        stream: Stream,
        time: Timestamp,
        payload: &[u8],
        keep: Keep,
    ) -> Result<(), AppendError> {
        let header = RecordHeader {
            stream,
            length: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            seq: self.totals.last_seq.next(),
            offset_bytes: self.totals.bytes,
            time,
        };
        let is_full = self.last().file_bytes + header.record_bytes() > self.max_file_bytes;
        if self.last().file_bytes >= SEGMENT_BYTES || is_full {
            self.rotate().map_err(AppendError::Failed)?;
        }
        loop {
            match self.write(&header, payload) {
                Ok(()) => break,
                Err(Errno::NOSPC | Errno::DQUOT) => {
                    if self.last().file_bytes > 0 {
                        self.rotate().map_err(AppendError::Failed)?;
                    }
                    if !self.drop_oldest(keep.needed_from) && !self.drop_oldest(keep.read_to) {
                        return Err(AppendError::Full);
                    }
                }
                Err(errno) => return Err(AppendError::Failed(errno)),
            }
        }
        self.account(&header);
        while self.file_bytes() > self.retention_bytes && self.drop_oldest(keep.needed_from) {}
        Ok(())
    }

    /// Counts output that was read but could not be kept; its readers see a gap.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.totals.last_seq = self.totals.last_seq.next();
        self.totals.bytes += bytes;
        self.totals.dropped_bytes += bytes;
    }

    fn last(&self) -> &Segment {
        // There is always one: `create` makes it and `drop_oldest` keeps the last.
        &self.segments[self.segments.len() - 1]
    }

    fn account(&mut self, header: &RecordHeader) {
        self.totals.last_seq = header.seq;
        self.totals.bytes += u64::from(header.length);
        let end_offset = self.totals.bytes;
        if let Some(last) = self.segments.back_mut() {
            last.file_bytes += header.record_bytes();
            last.payload_bytes += u64::from(header.length);
            last.end_offset = end_offset;
        }
    }

    /// Writes a record at the end of the current segment, or nothing.
    fn write(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<(), Errno> {
        let at = self.last().file_bytes;
        let head = header.encode();
        let total = HEADER_BYTES + payload.len();
        let result = rustix::io::pwritev(&self.current, &[IoSlice::new(&head), IoSlice::new(payload)], at);
        match result {
            Ok(written) if written == total => Ok(()),
            // A short write is a file system that filled up in the middle; what is torn must not stay, because
            // the next record goes to the same place or to another segment.
            Ok(_) => {
                rustix::fs::ftruncate(&self.current, at)?;
                Err(Errno::NOSPC)
            }
            Err(errno) => Err(errno),
        }
    }

    fn rotate(&mut self) -> Result<(), Errno> {
        let index = self.next_index;
        self.current = create_segment(self.directory.as_fd(), index)?;
        self.next_index += 1;
        let end_offset = self.totals.bytes;
        self.segments.push_back(Segment { index, file_bytes: 0, payload_bytes: 0, end_offset });
        Ok(())
    }

    /// Drops the oldest segment if it is not the current one and its reader is through with it.
    fn drop_oldest(&mut self, keep_from: Option<u64>) -> bool {
        let Some(oldest) = self.segments.front() else { return false };
        let read = keep_from.is_none_or(|offset| oldest.end_offset <= offset);
        if self.segments.len() < 2 || !read {
            return false;
        }
        let name = segment::name(oldest.index);
        let file =
            rustix::fs::openat(&self.directory, &name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        // Unlinked first: a reader that finds the file linked behind its reading has read before the hole.
        let _ = rustix::fs::unlinkat(&self.directory, &name, rustix::fs::AtFlags::empty());
        // A reader that has the file open would keep its space; a hole gives it back (fallocate(2)).
        if let Ok(file) = file {
            let _ = rustix::fs::fallocate(
                &file,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                0,
                oldest.file_bytes.max(1),
            );
        }
        self.totals.dropped_bytes += oldest.payload_bytes;
        self.segments.pop_front();
        true
    }

    /// Drops everything but the current segment, for a quota over all logs; returns the freed bytes.
    pub(crate) fn shrink(&mut self, keep_from: Option<u64>) -> u64 {
        let before = self.file_bytes();
        while self.drop_oldest(keep_from) {}
        before - self.file_bytes()
    }
}

/// A [`LogWriter`] on its way to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedLog {
    directory: Fd,
    segments: VecDeque<Segment>,
    current: Fd,
    next_index: u32,
    retention_bytes: u64,
    totals: OutputTotals,
}

impl LogWriter {
    /// Hands the log over.
    pub(crate) fn save(&self, kept: &mut Kept) -> SavedLog {
        // What this process may write is looked up by the next program.
        let Self { directory, segments, current, next_index, retention_bytes, max_file_bytes: _, totals } =
            self;
        SavedLog {
            directory: kept.keep(directory),
            segments: segments.clone(),
            current: kept.keep(current),
            next_index: *next_index,
            retention_bytes: *retention_bytes,
            totals: *totals,
        }
    }

    /// Takes a log over.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub(crate) fn restore(saved: SavedLog, adopted: &mut Adopted) -> Result<Self, HandoverError> {
        let SavedLog { directory, segments, current, next_index, retention_bytes, totals } = saved;
        if segments.is_empty() {
            return Err(failed("take a log over")(Errno::INVAL));
        }
        Ok(Self {
            directory: adopted.give(directory)?,
            segments,
            current: adopted.give(current)?,
            next_index,
            retention_bytes,
            max_file_bytes: max_file_bytes(),
            totals,
        })
    }
}

fn max_file_bytes() -> u64 {
    getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX)
}

fn create_segment(directory: BorrowedFd<'_>, index: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, segment::name(index), flags, Mode::RUSR | Mode::WUSR)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
