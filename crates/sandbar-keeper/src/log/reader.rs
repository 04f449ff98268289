//! A reader's end of a log: its own position, its own pace, gaps stated.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sandbar_proto::{Gap, Seq};

use super::record::{HEADER_BYTES, MAX_PAYLOAD_BYTES, RecordError, RecordHeader};
use super::segment;

/// Holds one record of the largest kind, and a run of small ones.
const BUFFER_BYTES: usize = HEADER_BYTES + MAX_PAYLOAD_BYTES;

/// One thing found in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogItem {
    /// A record and its payload.
    Record(RecordHeader, Vec<u8>),
    /// Records between the last one and the next are gone.
    Gap(Gap),
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log's directory or a segment could not be opened or read.
    #[error("read the output log {}: {errno}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The kernel's error.
        errno: Errno,
    },
    /// A record can't be understood.
    #[error("read the output log {}: {error}", path.display())]
    Record {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        error: RecordError,
    },
}

/// Reads a log from its beginning, also while it grows.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    directory: OwnedFd,
    segment: Option<(u32, OwnedFd)>,
    /// Whether the segment was given up by its writer, with what is not in the buffer.
    is_dropped: bool,
    position: u64,
    next_seq: Seq,
    /// The last number that the caller has already.
    after: Seq,
    offset_bytes: u64,
    found: Option<LogItem>,
    /// Bytes of the segment that were read ahead: many records are much smaller than one read.
    /// Made when something is read: a server reads the logs of many that write nothing.
    buffer: Box<[u8]>,
    unread: std::ops::Range<usize>,
}

impl LogReader {
    /// Opens the log in a process's directory, at its beginning.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| ReadError::Io { path: path.to_owned(), errno })?;
        Ok(Self {
            path: path.to_owned(),
            directory,
            segment: None,
            is_dropped: false,
            position: 0,
            next_seq: Seq(1),
            after: Seq(0),
            offset_bytes: 0,
            found: None,
            buffer: Box::default(),
            unread: 0..0,
        })
    }

    /// Opens the log in a process's directory behind the number `after`: what a reader has that read up to there. What
    /// is before it is passed over and not stated as a gap. A gap that reaches over `after` begins behind it, and its
    /// bytes are those of the whole gap: how many of them came before can't be told any more.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn open_after(path: &Path, after: Seq) -> Result<Self, ReadError> {
        Ok(Self { after, ..Self::open(path)? })
    }

    /// Offset behind everything read so far, over both streams.
    #[must_use]
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// Returns the next item, or `None` when there is none yet.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next_item(&mut self) -> Result<Option<LogItem>, ReadError> {
        let after = self.after;
        loop {
            match self.next_stored()? {
                Some(LogItem::Record(header, _)) if header.seq <= after => {}
                Some(LogItem::Gap(gap)) if gap.to_seq <= after => {}
                Some(LogItem::Gap(gap)) => {
                    let from_seq = gap.from_seq.max(after.next());
                    return Ok(Some(LogItem::Gap(Gap { from_seq, ..gap })));
                }
                other => return Ok(other),
            }
        }
    }

    fn next_stored(&mut self) -> Result<Option<LogItem>, ReadError> {
        if let Some(item) = self.found.take() {
            return Ok(Some(item));
        }
        loop {
            if self.segment.is_none() && !self.open_segment(0)? {
                return Ok(None);
            }
            match self.read_record()? {
                Read::Record(header, payload) => return self.advance(header, payload).map(Some),
                Read::Hole => {
                    if !self.leave_segment()? {
                        return Ok(None);
                    }
                }
                // Nothing more here now: either nothing more at all, or the log went on in another segment. The
                // order of the two questions matters: a segment is complete once its successor exists.
                Read::End => {
                    let Some((index, _)) = &self.segment else { return Ok(None) };
                    let next = *index + 1;
                    if !self.successor_exists(next)? {
                        return Ok(None);
                    }
                    if let Read::Record(header, payload) = self.read_record()? {
                        return self.advance(header, payload).map(Some);
                    }
                    self.segment = None;
                    if !self.open_segment(next)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// What is missing when the whole log ends at `last` with `total_bytes` and this reader saw less.
    #[must_use]
    pub fn missing_until(&self, last: Seq, total_bytes: u64) -> Option<Gap> {
        let bytes = total_bytes.saturating_sub(self.offset_bytes);
        let is_known = self.after > Seq(0) && last <= self.after;
        let from_seq = self.next_seq.max(self.after.next());
        (bytes > 0 && !is_known).then_some(Gap { from_seq, to_seq: last, bytes })
    }

    /// Reads the rest of the segment that is open, and returns the header of its last record.
    fn last_in_segment(&mut self) -> Result<Option<RecordHeader>, ReadError> {
        let mut last = None;
        while let Read::Record(header, _) = self.read_record()? {
            last = Some(header);
        }
        Ok(last)
    }

    /// The first record of the segment that is open whose bytes reach behind `offset`.
    fn first_behind(&mut self, offset: u64) -> Result<Option<RecordHeader>, ReadError> {
        while let Read::Record(header, _) = self.read_record()? {
            if header.offset_bytes + u64::from(header.length) > offset {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Indices of the segments that are there, the newest first.
    fn newest_first(&self) -> Result<Vec<u32>, ReadError> {
        let mut segments = segment::all(self.directory.as_fd()).map_err(|errno| self.io(errno))?;
        segments.sort_unstable_by(|one, other| other.cmp(one));
        Ok(segments)
    }

    fn io(&self, errno: Errno) -> ReadError {
        ReadError::Io { path: self.path.clone(), errno }
    }

    fn advance(&mut self, header: RecordHeader, payload: Vec<u8>) -> Result<LogItem, ReadError> {
        // Bytes are missing exactly where records are.
        let is_next = header.offset_bytes == self.offset_bytes;
        let goes_back = header.seq < self.next_seq || header.offset_bytes < self.offset_bytes;
        let is_torn = header.seq == self.next_seq && !is_next;
        let after = (header.seq.0.checked_add(1), header.offset_bytes.checked_add(header.length.into()));
        let (false, false, (Some(next_seq), Some(end))) = (goes_back, is_torn, after) else {
            return Err(ReadError::Record { path: self.path.clone(), error: RecordError::Damaged });
        };
        let gap = (!is_next).then(|| Gap {
            from_seq: self.next_seq,
            to_seq: Seq(header.seq.0 - 1),
            bytes: header.offset_bytes - self.offset_bytes,
        });
        self.next_seq = Seq(next_seq);
        self.offset_bytes = end;
        let record = LogItem::Record(header, payload);
        Ok(match gap {
            None => record,
            Some(gap) => {
                self.found = Some(record);
                LogItem::Gap(gap)
            }
        })
    }

    fn successor_exists(&self, from: u32) -> Result<bool, ReadError> {
        Ok(segment::first_from(self.directory.as_fd(), from).map_err(|errno| self.io(errno))?.is_some())
    }

    /// Opens the first segment from `from` on; `false` if there is none.
    fn open_segment(&mut self, from: u32) -> Result<bool, ReadError> {
        loop {
            let found = segment::first_from(self.directory.as_fd(), from).map_err(|errno| self.io(errno))?;
            let Some(index) = found else { return Ok(false) };
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            match rustix::fs::openat(&self.directory, segment::name(index), flags, Mode::empty()) {
                Ok(file) => {
                    self.segment = Some((index, file));
                    self.is_dropped = false;
                    self.position = 0;
                    self.unread = 0..0;
                    return Ok(true);
                }
                // Dropped between the look and the open; the next one is further on.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.io(errno)),
            }
        }
    }

    /// Leaves a segment whose space was given back while we read it; `false` when it is the last one, which is
    /// looked at again another time.
    fn leave_segment(&mut self) -> Result<bool, ReadError> {
        self.unread = 0..0;
        let Some((index, _)) = &self.segment else { return Ok(false) };
        let next = index.saturating_add(1);
        if !self.successor_exists(next)? {
            return Ok(false);
        }
        self.segment = None;
        self.open_segment(next)
    }

    fn read_record(&mut self) -> Result<Read, ReadError> {
        let header = match self.peek_header()? {
            Ok(header) => header,
            Err(other) => return Ok(other),
        };
        let end = HEADER_BYTES + header.length as usize;
        if self.unread.len() < end {
            self.refill()?;
        }
        let Some(record) = self.buffer[self.unread.clone()].get(..end) else { return Ok(self.end()) };
        let payload = record[HEADER_BYTES..].to_vec();
        self.unread.start += end;
        self.position += header.record_bytes();
        Ok(Read::Record(header, payload))
    }

    /// The header at the current position, or what is there instead.
    fn peek_header(&mut self) -> Result<Result<RecordHeader, Read>, ReadError> {
        if self.unread.len() < HEADER_BYTES {
            self.refill()?;
        }
        let Some(head) = self.buffer[self.unread.clone()].first_chunk::<HEADER_BYTES>() else {
            return Ok(Err(self.end()));
        };
        match RecordHeader::decode(head) {
            Ok(header) => Ok(Ok(header)),
            Err(RecordError::NotARecord) if head.iter().all(|&byte| byte == 0) => Ok(Err(Read::Hole)),
            Err(error) => Err(ReadError::Record { path: self.path.clone(), error }),
        }
    }

    /// What it means that nothing more is there.
    fn end(&self) -> Read {
        if self.is_dropped { Read::Hole } else { Read::End }
    }

    /// Fills the buffer from the current position on.
    fn refill(&mut self) -> Result<(), ReadError> {
        let Some((_, file)) = &self.segment else { return Ok(()) };
        if self.buffer.is_empty() {
            if rustix::fs::fstat(file).is_ok_and(|stat| stat.st_size == 0) {
                return Ok(());
            }
            self.buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        }
        let kept = self.unread.len();
        self.buffer.copy_within(self.unread.clone(), 0);
        let count = read_full(file, &mut self.buffer[kept..], self.position + kept as u64);
        let links = rustix::fs::fstat(file).map(|stat| stat.st_nlink);
        let count = count.map_err(|errno| self.io(errno))?;
        // Its writer unlinks a segment before it makes a hole of it: what was read may be zeros by now.
        self.is_dropped = links.map_err(|errno| self.io(errno))? == 0;
        self.unread = 0..kept + if self.is_dropped { 0 } else { count };
        Ok(())
    }
}

/// The header of the last record in the log of a process's directory; `None` if there is none.
///
/// # Errors
/// [`ReadError`].
pub(crate) fn last_record(path: &Path) -> Result<Option<RecordHeader>, ReadError> {
    let mut reader = LogReader::open(path)?;
    // A segment may have been begun and not been written to.
    for index in reader.newest_first()? {
        if reader.open_segment(index)?
            && let Some(header) = reader.last_in_segment()?
        {
            return Ok(Some(header));
        }
    }
    Ok(None)
}

/// The number behind which the log in a process's directory has its last `bytes`: as many at least, from a whole record
/// on, or all that there is. For somebody who comes late and wants to see no more than where it stands.
///
/// # Errors
/// [`ReadError`].
pub fn before_tail(path: &Path, bytes: u64) -> Result<Seq, ReadError> {
    let Some(last) = last_record(path)? else { return Ok(Seq(0)) };
    let wanted_from = (last.offset_bytes + u64::from(last.length)).saturating_sub(bytes);
    let mut reader = LogReader::open(path)?;
    let mut before = last.seq;
    for index in reader.newest_first()? {
        // One that was given up meanwhile has nothing any more, nor have those before it.
        if !reader.open_segment(index)? {
            break;
        }
        // A segment may have been begun and not been written to.
        if let Some(first) = reader.first_behind(wanted_from)? {
            before = Seq(first.seq.0 - 1);
            if first.offset_bytes <= wanted_from {
                break;
            }
        }
    }
    Ok(before)
}

enum Read {
    Record(RecordHeader, Vec<u8>),
    End,
    Hole,
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &OwnedFd, buffer: &mut [u8], position: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file, &mut buffer[done..], position + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::super::{Keep, LogWriter};
    use super::*;
    use proptest::prelude::*;
    use sandbar_proto::{Stream, Timestamp};
    use sandbar_testkit::{Samples, Took, fuzz};

    fn open_directory(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    fn log(retention_bytes: u64) -> (tempfile::TempDir, LogWriter) {
        let directory = tempfile::tempdir().unwrap();
        let writer = LogWriter::create(open_directory(directory.path()).as_fd(), retention_bytes).unwrap();
        (directory, writer)
    }

    fn read_to(offset: u64) -> Keep {
        Keep { read_to: Some(offset), needed_from: Some(offset) }
    }

    fn append(writer: &mut LogWriter, payload: &[u8]) {
        writer.append(Stream::Stdout, Timestamp(1), payload, Keep::default()).unwrap();
    }

    #[test]
    fn a_reader_follows_a_log_that_grows() {
        let (directory, mut writer) = log(1 << 20);
        let mut reader = LogReader::open(directory.path()).unwrap();
        assert_eq!(reader.next_item().unwrap(), None);
        append(&mut writer, b"one");
        let header = RecordHeader {
            stream: Stream::Stdout,
            length: 3,
            seq: Seq(1),
            offset_bytes: 0,
            time: Timestamp(1),
        };
        assert_eq!(reader.next_item().unwrap(), Some(LogItem::Record(header, b"one".to_vec())));
        assert_eq!(reader.next_item().unwrap(), None);
    }

    #[test]
    fn what_was_dropped_is_a_gap_with_its_size_and_numbers() {
        let (directory, mut writer) = log(2 << 20);
        let chunk = vec![7; MAX_PAYLOAD_BYTES];
        for _ in 0..64 {
            append(&mut writer, &chunk);
        }
        let mut reader = LogReader::open(directory.path()).unwrap();
        let dropped = writer.totals().dropped_bytes;
        let records = dropped / MAX_PAYLOAD_BYTES as u64;
        assert!(dropped > 0);
        let gap = Gap { from_seq: Seq(1), to_seq: Seq(records), bytes: dropped };
        assert_eq!(reader.next_item().unwrap(), Some(LogItem::Gap(gap)));
        let mut seen = dropped;
        while let Some(LogItem::Record(header, payload)) = reader.next_item().unwrap() {
            assert_eq!(header.offset_bytes, seen);
            seen += payload.len() as u64;
        }
        assert_eq!(seen, writer.totals().bytes);
    }

    #[test]
    fn a_tail_begins_with_the_record_that_holds_its_first_byte() {
        let (directory, mut writer) = log(4 << 20);
        let tail = |bytes| before_tail(directory.path(), bytes).unwrap().0;
        assert_eq!(tail(10), 0);
        // Several segments.
        for _ in 0..40 {
            append(&mut writer, &vec![7; MAX_PAYLOAD_BYTES]);
        }
        append(&mut writer, b"three");
        append(&mut writer, b"two");
        let whole = writer.totals().bytes;
        assert_eq!([0, 1, 3, 4, 8, 9].map(tail), [42, 41, 41, 40, 40, 39]);
        for (record, bytes) in [(40, 9), (39, 9 + (1 << 16)), (2, 9 + (38 << 16)), (1, 9 + (39 << 16))] {
            assert_eq!(tail(bytes), record - 1);
        }
        assert_eq!((tail(whole - 1), tail(whole), tail(u64::MAX)), (0, 0, 0));
        let mut reader = LogReader::open_after(directory.path(), Seq(tail(4))).unwrap();
        let Some(LogItem::Record(header, bytes)) = reader.next_item().unwrap() else { panic!("no record") };
        assert_eq!((header.seq, bytes.as_slice()), (Seq(41), &b"three"[..]));
    }

    #[test]
    fn a_tail_that_reaches_over_what_was_dropped_is_what_is_there() {
        let (directory, mut writer) = log(2 << 20);
        for _ in 0..64 {
            append(&mut writer, &vec![7; MAX_PAYLOAD_BYTES]);
        }
        let dropped = writer.totals().dropped_bytes / MAX_PAYLOAD_BYTES as u64;
        assert!(dropped > 0);
        assert_eq!(before_tail(directory.path(), u64::MAX).unwrap(), Seq(dropped));
    }

    #[test]
    fn a_segment_dropped_under_an_open_reader_is_a_gap_too() {
        let (directory, mut writer) = log(2 << 20);
        let chunk = vec![7; MAX_PAYLOAD_BYTES];
        append(&mut writer, &chunk);
        append(&mut writer, &chunk);
        let mut reader = LogReader::open(directory.path()).unwrap();
        assert!(matches!(reader.next_item().unwrap(), Some(LogItem::Record(..))));
        for _ in 0..64 {
            append(&mut writer, &chunk);
        }
        let Some(LogItem::Gap(gap)) = reader.next_item().unwrap() else { panic!("no gap") };
        assert_eq!(gap.from_seq, Seq(2));
        assert_eq!(gap.bytes + MAX_PAYLOAD_BYTES as u64, writer.totals().dropped_bytes);
    }

    #[test]
    fn zeros_of_a_segment_that_is_being_given_up_are_never_output() {
        let (directory, mut writer) = log(2 << 20);
        let chunk = vec![7; MAX_PAYLOAD_BYTES];
        for _ in 0..20 {
            append(&mut writer, &chunk);
        }
        let mut reader = LogReader::open(directory.path()).unwrap();
        assert!(matches!(reader.next_item().unwrap(), Some(LogItem::Record(..))));
        // In the middle of it: the name is gone, and of the next record the header is still there, its bytes are not.
        let path = directory.path().join(segment::name(0));
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let record = (HEADER_BYTES + MAX_PAYLOAD_BYTES) as u64;
        let zeros = vec![0; MAX_PAYLOAD_BYTES];
        rustix::io::pwrite(&file, &zeros, record + HEADER_BYTES as u64).unwrap();
        let mut bytes = MAX_PAYLOAD_BYTES as u64;
        let mut gaps = 0;
        while let Some(item) = reader.next_item().unwrap() {
            match item {
                LogItem::Record(_, payload) => {
                    assert!(payload.iter().all(|&byte| byte == 7));
                    bytes += payload.len() as u64;
                }
                LogItem::Gap(gap) => (bytes, gaps) = (bytes + gap.bytes, gaps + 1),
            }
        }
        assert_eq!((bytes, gaps), (writer.totals().bytes, 1));
    }

    #[test]
    fn a_lossless_reader_keeps_its_segments_from_being_dropped() {
        let (_directory, mut writer) = log(1 << 20);
        let chunk = vec![7; MAX_PAYLOAD_BYTES];
        for _ in 0..64 {
            writer.append(Stream::Stderr, Timestamp(1), &chunk, read_to(0)).unwrap();
        }
        assert_eq!(writer.totals().dropped_bytes, 0);
        let read = read_to(writer.totals().bytes);
        writer.append(Stream::Stderr, Timestamp(1), &chunk, read).unwrap();
        assert!(writer.totals().dropped_bytes > 0);
    }

    #[test]
    fn what_a_recorder_may_need_again_is_kept_beyond_what_was_read() {
        let (_directory, mut writer) = log(1 << 20);
        let chunk = vec![7; MAX_PAYLOAD_BYTES];
        for _ in 0..64 {
            let keep = Keep { read_to: Some(writer.totals().bytes), needed_from: Some(0) };
            writer.append(Stream::Pty, Timestamp(1), &chunk, keep).unwrap();
        }
        assert_eq!(writer.totals().dropped_bytes, 0);
    }

    #[test]
    fn a_torn_record_at_the_end_is_not_there_yet() {
        let (directory, mut writer) = log(1 << 20);
        append(&mut writer, b"whole");
        let path = directory.path().join(segment::name(0));
        let mut bytes = std::fs::read(&path).unwrap();
        let whole = bytes.clone();
        bytes.extend_from_slice(&whole[..HEADER_BYTES + 2]);
        std::fs::write(&path, bytes).unwrap();
        let mut reader = LogReader::open(directory.path()).unwrap();
        assert!(matches!(reader.next_item().unwrap(), Some(LogItem::Record(..))));
        assert_eq!(reader.next_item().unwrap(), None);
    }

    #[test]
    fn a_log_that_ends_with_a_hole_ends() {
        let (directory, mut writer) = log(1 << 20);
        append(&mut writer, b"whole");
        let path = directory.path().join(segment::name(0));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &[0; 100]].concat()).unwrap();
        let mut reader = LogReader::open(directory.path()).unwrap();
        assert!(matches!(reader.next_item().unwrap(), Some(LogItem::Record(..))));
        assert_eq!(reader.next_item().unwrap(), None);
        std::fs::write(directory.path().join(segment::name(1)), &whole).unwrap();
        assert!(reader.next_item().is_err(), "the same record again is damage");
    }

    #[test]
    fn fuzz_a_damaged_log_ends_and_never_goes_back() {
        // Between two segments.
        const CUT: &[u8] = b"--cut--";
        let record = |seq: u64, offset_bytes: u64, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap();
            let header = RecordHeader {
                stream: Stream::Stdout,
                length,
                seq: Seq(seq),
                offset_bytes,
                time: Timestamp(1),
            };
            [&header.encode(), payload].concat()
        };
        let (one, two) = (record(1, 0, b"first"), record(2, 5, b"second"));
        let (three, after_gap) = (record(3, 11, b"third"), record(9, 100, b"ninth"));
        let samples = Samples {
            whole: &[
                &[one.as_slice(), &two, &three].concat(),
                &[one.as_slice(), &two, CUT, &three, &after_gap].concat(),
                &[&[0; 64], CUT, &after_gap].concat(),
                &[one.as_slice(), &after_gap, &two].concat(),
            ],
            words: &[
                &one,
                &two,
                &after_gap,
                CUT,
                &[0; HEADER_BYTES],
                b"SB\x01\x01",
                b"\xff\xff\xff\xff\xff\xff\xff\xff",
            ],
        };
        let directory = tempfile::tempdir().unwrap();
        fuzz("output log", samples, |input| {
            for entry in std::fs::read_dir(directory.path()).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
            let mut rest = input;
            for index in 0..16 {
                let cut = rest.windows(CUT.len()).position(|part| part == CUT);
                std::fs::write(
                    directory.path().join(segment::name(index)),
                    &rest[..cut.unwrap_or(rest.len())],
                )
                .unwrap();
                let Some(cut) = cut else { break };
                rest = &rest[cut + CUT.len()..];
            }
            let mut reader = LogReader::open(directory.path()).unwrap();
            let (mut last, mut offset, mut found) = (Seq(0), 0, 0);
            while let Ok(Some(item)) = reader.next_item() {
                found += 1;
                assert!(found <= 2 * input.len() / HEADER_BYTES, "more items than there is room for");
                let (from, to, bytes) = match item {
                    LogItem::Record(header, payload) => {
                        assert_eq!((header.length as usize, header.offset_bytes), (payload.len(), offset));
                        (header.seq, header.seq, payload.len() as u64)
                    }
                    LogItem::Gap(gap) => (gap.from_seq, gap.to_seq, gap.bytes),
                };
                assert!(from > last && bytes > 0);
                (last, offset) = (to, offset + bytes);
            }
            Took::if_understood(found > 0)
        });
    }

    /// Bytes of everything that the reader finds now, missing ones included.
    fn bytes_left(reader: &mut LogReader) -> u64 {
        let items = std::iter::from_fn(|| reader.next_item().unwrap());
        let bytes = items.map(|item| match item {
            LogItem::Record(_, payload) => payload.len() as u64,
            LogItem::Gap(gap) => gap.bytes,
        });
        bytes.sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn records_and_gaps_account_for_every_byte_once(sizes in proptest::collection::vec(1..65_536_usize, 1..80)) {
            let (directory, mut writer) = log(2 << 20);
            let mut reader = LogReader::open(directory.path()).unwrap();
            let mut seen = 0;
            for (turn, size) in sizes.iter().enumerate() {
                append(&mut writer, &vec![1; *size]);
                // Reads now and then, so that some runs stay behind and others do not.
                if turn % 7 == 3 {
                    seen += bytes_left(&mut reader);
                }
            }
            seen += bytes_left(&mut reader);
            prop_assert_eq!(seen, writer.totals().bytes);
        }
    }
}
