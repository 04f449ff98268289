//! Adjacent output of one stream: what becomes one `run_output` line.
//!
//! Remembers where each event's bytes start, so that a segment can be cut anywhere and both parts still say
//! exactly which events they hold.

use std::time::Duration;

use sandbar_proto::{GapReason, Seq, Stream, Timestamp};

/// Most bytes of output in a line. A line of 32 KiB is written and read at once everywhere, and the envelope of
/// about 250 bytes is below one percent of it.
pub(crate) const MAX_SEGMENT_BYTES: usize = 32 * 1024;

/// Output of this span is one line; a replay cannot show finer steps than it.
pub(crate) const COALESCE: Duration = Duration::from_millis(100);

/// What an event carried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a> {
    pub(crate) seq: Seq,
    pub(crate) stream: Stream,
    pub(crate) offset_bytes: u64,
    pub(crate) time: Timestamp,
    pub(crate) bytes: &'a [u8],
}

impl Chunk<'_> {
    /// Drops the first `count` bytes.
    pub(crate) fn advance(&mut self, count: usize) {
        self.bytes = &self.bytes[count..];
        self.offset_bytes += count as u64;
    }
}

/// See the module. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) stream: Stream,
    pub(crate) from_seq: Seq,
    pub(crate) offset_bytes: u64,
    pub(crate) time: Timestamp,
    pub(crate) data: Vec<u8>,
    /// Where in `data` the bytes of `from_seq`, `from_seq + 1`, … start; the first is 0. Offsets up to
    /// `MAX_SEGMENT_BYTES` fit.
    starts: Vec<u16>,
}

impl Segment {
    /// The first `count` bytes of a chunk.
    pub(crate) fn new(chunk: &Chunk<'_>, count: usize) -> Self {
        Self {
            stream: chunk.stream,
            from_seq: chunk.seq,
            offset_bytes: chunk.offset_bytes,
            time: chunk.time,
            data: chunk.bytes[..count].to_vec(),
            starts: vec![0],
        }
    }

    /// The event of the last byte.
    pub(crate) fn to_seq(&self) -> Seq {
        Seq(self.from_seq.0 + self.starts.len() as u64 - 1)
    }

    pub(crate) fn end_offset_bytes(&self) -> u64 {
        self.offset_bytes + self.data.len() as u64
    }

    /// Whether a chunk goes on where this ends: same stream, nothing between, not too late.
    pub(crate) fn accepts(&self, chunk: &Chunk<'_>) -> bool {
        let adjacent = chunk.seq == self.to_seq() || chunk.seq == self.to_seq().next();
        let in_time = chunk.time.since(self.time) < COALESCE || self.is_incomplete_char();
        self.stream == chunk.stream && adjacent && in_time && chunk.offset_bytes == self.end_offset_bytes()
    }

    /// Takes the first `count` bytes of a chunk that it accepts.
    pub(crate) fn extend(&mut self, chunk: &Chunk<'_>, count: usize) {
        if self.is_incomplete_char() {
            self.time = self.time.max(chunk.time);
        }
        if chunk.seq != self.to_seq()
            && let Ok(start) = u16::try_from(self.data.len())
        {
            self.starts.push(start);
        }
        self.data.extend_from_slice(&chunk.bytes[..count]);
    }

    /// Cuts at `at`: returns what comes before and what comes after, where there is anything.
    pub(crate) fn split(mut self, at: usize) -> (Option<Self>, Option<Self>) {
        if at == 0 {
            return (None, Some(self));
        }
        if at >= self.data.len() {
            return (Some(self), None);
        }
        let first_event = self.starts.partition_point(|&start| usize::from(start) <= at) - 1;
        let later = self.starts[first_event + 1..].iter();
        // `at` is below the length of the segment, which fits.
        let shifted = later.map(|&start| start.saturating_sub(u16::try_from(at).unwrap_or(u16::MAX)));
        let second = Self {
            stream: self.stream,
            from_seq: Seq(self.from_seq.0 + first_event as u64),
            offset_bytes: self.offset_bytes + at as u64,
            time: self.time,
            data: self.data.split_off(at),
            starts: std::iter::once(0).chain(shifted).collect(),
        };
        self.starts.retain(|&start| usize::from(start) < at);
        (Some(self), Some(second))
    }

    /// Cuts before a character that is not complete yet.
    pub(crate) fn split_incomplete_char(self) -> (Option<Self>, Option<Self>) {
        let at = self.data.len() - incomplete_suffix(&self.data);
        self.split(at)
    }

    fn is_incomplete_char(&self) -> bool {
        incomplete_suffix(&self.data) == self.data.len()
    }
}

/// Output that will not be in the rollout. Never of 0 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) from_seq: Seq,
    pub(crate) to_seq: Seq,
    pub(crate) offset_bytes: u64,
    pub(crate) bytes: u64,
    pub(crate) reason: GapReason,
    pub(crate) time: Timestamp,
}

impl Missing {
    /// Grows by what follows directly; the reason stays.
    fn absorb(&mut self, next: &Self) {
        self.to_seq = self.to_seq.max(next.to_seq);
        self.bytes = self.bytes.saturating_add(next.bytes);
        self.time = self.time.max(next.time);
    }
}

/// One stretch of the output, recorded or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Output(Segment),
    Gap(Missing),
}

impl Piece {
    /// The stretch as a gap.
    pub(crate) fn missing(self, reason: GapReason) -> Missing {
        match self {
            Self::Gap(missing) => Missing { reason, ..missing },
            Self::Output(segment) => Missing {
                from_seq: segment.from_seq,
                to_seq: segment.to_seq(),
                offset_bytes: segment.offset_bytes,
                bytes: segment.data.len() as u64,
                reason,
                time: segment.time,
            },
        }
    }

    /// Adds the stretch to the gap that lies directly before it, if there is one.
    pub(crate) fn join_gap(self, gap: &mut Option<Missing>, reason: GapReason) {
        let missing = self.missing(reason);
        match gap {
            Some(gap) => gap.absorb(&missing),
            None => *gap = Some(missing),
        }
    }
}

/// How many bytes at the end begin a UTF-8 character without completing it: 0 to 3.
pub(crate) fn incomplete_suffix(data: &[u8]) -> usize {
    for (back, &byte) in data.iter().rev().take(3).enumerate() {
        let seen = back + 1;
        let needed = match byte {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x00..=0x7F | 0xC0 | 0xC1 | 0xF5..=0xFF => 1,
        };
        return if needed > seen { seen } else { 0 };
    }
    0
}

/// How many of the first bytes belong to a character that began before them: 0 to 3.
pub(crate) fn continuation_prefix(data: &[u8]) -> usize {
    data.iter().take(3).take_while(|&&byte| (0x80..=0xBF).contains(&byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(seq: u64, offset_bytes: u64, bytes: &[u8]) -> Chunk<'_> {
        Chunk { seq: Seq(seq), stream: Stream::Stdout, offset_bytes, time: Timestamp(0), bytes }
    }

    fn three_events() -> Segment {
        let mut segment = Segment::new(&chunk(5, 100, b"abc"), 3);
        segment.extend(&chunk(6, 103, b"de"), 2);
        segment.extend(&chunk(7, 105, b"f"), 1);
        segment
    }

    #[test]
    fn a_cut_segment_knows_which_events_are_on_which_side() {
        let cases = [(1, 5, 5), (2, 5, 5), (3, 5, 6), (4, 6, 6), (5, 6, 7)];
        for (at, left_to, right_from) in cases {
            let (Some(left), Some(right)) = three_events().split(at) else { panic!("{at}") };
            assert_eq!((left.from_seq, left.to_seq()), (Seq(5), Seq(left_to)), "{at}");
            assert_eq!((right.from_seq, right.to_seq()), (Seq(right_from), Seq(7)), "{at}");
            assert_eq!((left.end_offset_bytes(), right.offset_bytes), (100 + at as u64, 100 + at as u64));
            assert_eq!([left.data, right.data].concat(), b"abcdef");
        }
    }

    #[test]
    fn a_cut_at_an_end_leaves_nothing_on_that_side() {
        assert_eq!(three_events().split(0), (None, Some(three_events())));
        assert_eq!(three_events().split(6), (Some(three_events()), None));
    }

    #[test]
    fn output_joins_only_what_it_directly_follows() {
        let segment = three_events();
        assert!(segment.accepts(&chunk(8, 106, b"g")));
        assert!(segment.accepts(&chunk(7, 106, b"g")), "the rest of the same event");
        assert!(!segment.accepts(&chunk(9, 106, b"g")), "an event lies between");
        assert!(!segment.accepts(&chunk(8, 107, b"g")), "a byte lies between");
        assert!(!segment.accepts(&Chunk { stream: Stream::Stderr, ..chunk(8, 106, b"g") }));
        let late = Timestamp(100_000_000);
        assert!(!segment.accepts(&Chunk { time: late, ..chunk(8, 106, b"g") }), "100 ms later");
    }

    #[test]
    fn a_character_waits_for_its_rest_however_late_that_comes() {
        let mut segment = Segment::new(&chunk(5, 0, "€".as_bytes()), 2);
        let rest = Chunk { time: Timestamp(9_000_000_000), ..chunk(6, 2, &"€".as_bytes()[2..]) };
        assert!(segment.accepts(&rest));
        segment.extend(&rest, 1);
        assert_eq!((segment.data.as_slice(), segment.time), ("€".as_bytes(), rest.time));
    }

    #[test]
    fn incomplete_characters_are_found_and_garbage_is_not_waited_for() {
        let cases: [(&[u8], usize); 10] = [
            (b"", 0),
            (b"abc", 0),
            ("aü".as_bytes(), 0),
            (b"a\xC3", 1),
            (b"a\xE2\x82", 2),
            (b"a\xF0\x9F\x98", 3),
            (b"\x80\x80\x80", 0),
            (b"a\xFF", 0),
            (b"\xC0", 0),
            ("😀".as_bytes(), 0),
        ];
        for (data, expected) in cases {
            assert_eq!(incomplete_suffix(data), expected, "{data:?}");
        }
        assert_eq!(continuation_prefix(b"\x82\xACa"), 2);
        assert_eq!(continuation_prefix(b"abc"), 0);
    }
}
