//! One record of the log: a fixed header and the bytes of one read from a stream.
//!
//! All numbers are little-endian. Layout: `SB`, version, stream, length (4), seq (8), offset (8), time (8), then
//! the bytes. A record whose bytes are not all in the file is being written, or was torn by the end of the
//! keeper; either way it is not there yet.

use sandbar_proto::{Seq, Stream, Timestamp};

/// Bytes before a record's payload.
pub(crate) const HEADER_BYTES: usize = 32;

const MAGIC: [u8; 2] = *b"SB";
const VERSION: u8 = 1;

/// Largest payload: one read from a pipe.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

/// What precedes a record's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Where it was written.
    pub stream: Stream,
    /// Bytes of the payload.
    pub length: u32,
    /// Place among the events of the process.
    pub seq: Seq,
    /// Bytes that both streams carried before this record.
    pub offset_bytes: u64,
    /// When it was read from the stream.
    pub time: Timestamp,
}

/// Why bytes are no record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They do not begin like one; a hole where the keeper gave space back looks like this too.
    #[error("no log record begins here")]
    NotARecord,
    /// Written by a newer keeper.
    #[error("log record of version {0}, this program reads version {VERSION}")]
    Version(u8),
    /// A stream, a length or a place that no keeper writes, or not behind the record before it.
    #[error("damaged log record")]
    Damaged,
}

impl RecordHeader {
    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = VERSION;
        bytes[3] = match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
            Stream::Pty => 3,
        };
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset_bytes.to_le_bytes());
        bytes[24..].copy_from_slice(&self.time.0.to_le_bytes());
        bytes
    }

    /// The header that `bytes` are.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, RecordError> {
        if bytes[..2] != MAGIC {
            return Err(RecordError::NotARecord);
        }
        if bytes[2] != VERSION {
            return Err(RecordError::Version(bytes[2]));
        }
        let stream = match bytes[3] {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            3 => Stream::Pty,
            _ => return Err(RecordError::Damaged),
        };
        let number = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(raw)
        };
        let length = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let (seq, offset_bytes) = (Seq(number(8)), number(16));
        let is_end_known = offset_bytes.checked_add(u64::from(length)).is_some();
        if length == 0
            || length as usize > MAX_PAYLOAD_BYTES
            || !is_end_known
            || seq.0 == 0
            || seq.0 == u64::MAX
        {
            return Err(RecordError::Damaged);
        }
        Ok(Self { stream, length, seq, offset_bytes, time: Timestamp(number(24)) })
    }

    /// Bytes of the whole record.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_survive_their_bytes(
            length in 1..=65536_u32, seq in 1..u64::MAX, offset_bytes in 0..u64::MAX / 2, time: u64, which in 0..3_usize,
        ) {
            let stream = Stream::ALL[which];
            let header = RecordHeader { stream, length, seq: Seq(seq), offset_bytes, time: Timestamp(time) };
            prop_assert_eq!(RecordHeader::decode(&header.encode()), Ok(header));
        }

    }

    #[test]
    fn a_hole_in_the_file_is_no_record() {
        assert_eq!(RecordHeader::decode(&[0; HEADER_BYTES]), Err(RecordError::NotARecord));
    }
}
