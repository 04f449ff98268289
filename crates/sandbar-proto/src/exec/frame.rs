//! Ours: output in binary frames, raw bytes behind a header.
//!
//! All numbers are big-endian. A frame begins with a byte that no JSON text begins with.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 1, the version |
//! | 1 | stream: 1 stdout, 2 stderr, 3 pty |
//! | 2 | length of the process id |
//! | 8 | seq |
//! | 8 | offset: bytes that the process wrote before |
//! | 8 | time, in nanoseconds since 1970 |
//! | … | the process id, UTF-8 |
//! | … | output, up to the end of the frame |

use std::fmt;

use crate::{Stream, Timestamp};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 28;

/// One portion of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputFrame<'a> {
    /// The process.
    pub process_id: &'a str,
    /// Where it was written.
    pub stream: Stream,
    /// Its place among the events.
    pub seq: u64,
    /// Bytes that the process wrote before.
    pub offset_bytes: u64,
    /// When the executor read it.
    pub time: Timestamp,
    /// What was written.
    pub bytes: &'a [u8],
}

/// A frame that is none of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// It is shorter than what it says, or than a header.
    Short,
    /// Its version is not known.
    Version(u8),
    /// There is no such stream.
    Stream(u8),
    /// The process id is no text.
    ProcessId,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the frame is cut short"),
            Self::Version(version) => write!(f, "a frame of version {version}"),
            Self::Stream(stream) => write!(f, "a frame of stream {stream}"),
            Self::ProcessId => f.write_str("a process id that is not UTF-8"),
        }
    }
}

impl std::error::Error for FrameError {}

impl<'a> OutputFrame<'a> {
    /// The frame, or `None` if the process id is longer than 65535 bytes.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let length = u16::try_from(self.process_id.len()).ok()?;
        let mut frame = Vec::with_capacity(HEADER_BYTES + self.process_id.len() + self.bytes.len());
        frame.push(VERSION);
        frame.push(match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
            Stream::Pty => 3,
        });
        frame.extend(length.to_be_bytes());
        for number in [self.seq, self.offset_bytes, self.time.0] {
            frame.extend(number.to_be_bytes());
        }
        frame.extend(self.process_id.as_bytes());
        frame.extend(self.bytes);
        Some(frame)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(frame: &'a [u8]) -> Result<Self, FrameError> {
        let (head, rest) = frame.split_first_chunk::<HEADER_BYTES>().ok_or(FrameError::Short)?;
        let [version, stream, high, low, numbers @ ..] = head;
        if *version != VERSION {
            return Err(FrameError::Version(*version));
        }
        let stream = match stream {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            3 => Stream::Pty,
            other => return Err(FrameError::Stream(*other)),
        };
        let number = |at: usize| numbers[at..at + 8].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (id, bytes) = rest.split_at_checked(length).ok_or(FrameError::Short)?;
        Ok(Self {
            process_id: std::str::from_utf8(id).map_err(|_| FrameError::ProcessId)?,
            stream,
            seq: number(0),
            offset_bytes: number(8),
            time: Timestamp(number(16)),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    const FRAME: OutputFrame<'static> = OutputFrame {
        process_id: "p1",
        stream: Stream::Pty,
        seq: 7,
        offset_bytes: 1 << 40,
        time: Timestamp(3),
        bytes: b"\0out",
    };

    #[test]
    fn a_frame_is_its_header_its_process_and_its_bytes() {
        let mut expected = vec![1, 3, 0, 2];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        expected.extend(b"p1\0out");
        assert_eq!(FRAME.encode().unwrap(), expected);
        assert_eq!(OutputFrame::decode(&expected), Ok(FRAME));
    }

    #[test]
    fn what_is_no_frame_is_named() {
        let frame = FRAME.encode().unwrap();
        let with = |at: usize, byte: u8| {
            let mut frame = frame.clone();
            frame[at] = byte;
            OutputFrame::decode(&frame).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(0, b'{'), FrameError::Version(b'{'));
        assert_eq!(with(1, 0), FrameError::Stream(0));
        assert_eq!(with(3, 200), FrameError::Short);
        assert_eq!(with(28, 0xff), FrameError::ProcessId);
        assert_eq!(OutputFrame::decode(&frame[..27]), Err(FrameError::Short));
        let long = "x".repeat(70_000);
        assert_eq!(OutputFrame { process_id: &long, ..FRAME }.encode(), None);
    }

    proptest! {
        #[test]
        fn every_frame_comes_back(id in ".{0,40}", seq: u64, offset_bytes: u64, bytes: Vec<u8>) {
            let frame = OutputFrame { process_id: &id, seq, offset_bytes, bytes: &bytes, ..FRAME };
            let encoded = frame.encode().unwrap();
            prop_assert_eq!(OutputFrame::decode(&encoded), Ok(frame));
        }
    }

    #[test]
    fn fuzz_a_frame_is_read_as_it_is_written_or_refused() {
        let whole = FRAME.encode().unwrap();
        let samples = Samples { whole: &[&whole, &whole[..30]], words: &[&[1, 1, 0, 2], &[0xff; 8], b"p1"] };
        fuzz("output frame", samples, |input| {
            let read = OutputFrame::decode(input);
            if let Ok(frame) = &read {
                assert_eq!(frame.encode().as_deref(), Some(input), "no byte means nothing");
            }
            Took::if_understood(read.is_ok())
        });
    }
}
