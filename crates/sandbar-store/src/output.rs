//! Bounded recording of a run's output: a head, a tail, and a stated gap between them. Pure: no file, no clock.
//!
//! Takes events in, gives pieces out. Every byte that the process wrote is in exactly one piece, in order. The
//! head's pieces come out as they fill; the tail is kept in memory and comes out at the end. Memory is at most
//! a small multiple of the tail's bound. A character of UTF-8 text is torn apart only where the other
//! stream wrote into its middle, or the process stopped there.

use std::collections::VecDeque;

use sandbar_proto::{Gap, GapReason, Seq, Timestamp};

use crate::segment::{Chunk, MAX_SEGMENT_BYTES, Missing, Piece, Segment, continuation_prefix};

/// How much output of a run is recorded.
///
/// A line counts as 64 bytes at least: a program that writes single bytes now to one stream and now to the
/// other would make a file three hundred times the size of its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputBounds {
    /// The first bytes, written to the file as they come.
    pub head_bytes: u64,
    /// The last bytes, kept in memory until the end.
    pub tail_bytes: u64,
}

impl OutputBounds {
    /// Everything; for small output only, since nothing bounds the file.
    pub const UNBOUNDED: Self = Self { head_bytes: u64::MAX, tail_bytes: 0 };
}

impl Default for OutputBounds {
    /// 1 MiB each: what a person scrolls through, and more than a model reads.
    fn default() -> Self {
        Self { head_bytes: 1024 * 1024, tail_bytes: 1024 * 1024 }
    }
}

/// UTF-8's.
const MOST_BYTES_OF_A_CHARACTER: u64 = 4;

// See `OutputBounds`. 64 keeps the worst file below 5 MB per MiB, at an envelope of about 250 bytes.
const MIN_LINE_COST: u64 = 64;

/// What a line of this many output bytes counts against a bound.
pub(crate) fn cost(data_bytes: usize) -> u64 {
    (data_bytes as u64).max(MIN_LINE_COST)
}

fn piece_offset(piece: &Piece) -> u64 {
    match piece {
        Piece::Output(segment) => segment.offset_bytes,
        Piece::Gap(missing) => missing.offset_bytes,
    }
}

fn piece_cost(piece: &Piece) -> u64 {
    match piece {
        Piece::Output(segment) => cost(segment.data.len()),
        Piece::Gap(_) => MIN_LINE_COST,
    }
}

/// How much of a run's output is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Bytes of both streams that are recorded or stated missing.
    pub(crate) offset_bytes: u64,
    /// The last event among them.
    pub(crate) last_seq: Seq,
    /// What the head has cost so far; `u64::MAX` when it is over.
    pub(crate) head_cost: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct BoundedOutput {
    head_left: u64,
    pending: Option<Segment>,
    tail: Option<Tail>,
    tail_bytes: u64,
    next_offset_bytes: u64,
    last_seq: Seq,
    time: Timestamp,
    unplaced: Option<Gap>,
}

impl BoundedOutput {
    pub(crate) fn new(bounds: OutputBounds, progress: Progress) -> Self {
        let head_left = bounds.head_bytes.saturating_sub(progress.head_cost);
        // A head with less room than a character was over: the character that did not fit began the tail.
        let head_is_over = progress.head_cost > 0 && head_left < MOST_BYTES_OF_A_CHARACTER;
        Self {
            head_left,
            pending: None,
            tail: head_is_over.then(Tail::default),
            tail_bytes: bounds.tail_bytes,
            next_offset_bytes: progress.offset_bytes,
            last_seq: progress.last_seq,
            time: Timestamp::default(),
            unplaced: None,
        }
    }

    /// Where the first byte stands that came in and did not come out yet.
    pub(crate) fn needed_from(&self) -> u64 {
        let first = self.tail.as_ref().and_then(|tail| tail.pieces.front());
        let first =
            first.map(piece_offset).or_else(|| self.pending.as_ref().map(|pending| pending.offset_bytes));
        first.unwrap_or(self.next_offset_bytes)
    }

    /// The last event that is known of.
    pub(crate) fn last_seq(&self) -> Seq {
        self.last_seq
    }

    /// Takes output. What lies before the settled offset is already recorded and skipped; what lies between the
    /// settled offset and the chunk was dropped.
    pub(crate) fn output(&mut self, mut chunk: Chunk<'_>) -> Vec<Piece> {
        let mut out = Vec::new();
        self.time = self.time.max(chunk.time);
        let unplaced = self.unplaced.take();
        if chunk.offset_bytes > self.next_offset_bytes {
            let bytes = chunk.offset_bytes - self.next_offset_bytes;
            let before = Seq(chunk.seq.0.saturating_sub(1));
            let gap = Gap { from_seq: self.last_seq.next().min(before), to_seq: before, bytes };
            self.place_gap(Gap { bytes, ..unplaced.unwrap_or(gap) }, &mut out);
        }
        let settled =
            usize::try_from(self.next_offset_bytes.saturating_sub(chunk.offset_bytes)).unwrap_or(usize::MAX);
        chunk.advance(settled.min(chunk.bytes.len()));
        self.last_seq = self.last_seq.max(chunk.seq);
        self.next_offset_bytes += chunk.bytes.len() as u64;
        self.record(chunk, &mut out);
        out
    }

    /// Takes what the keeper says it dropped. Its place is certain only when the next output's offset is known,
    /// so it comes out with that, or at the end.
    pub(crate) fn gap(&mut self, gap: Gap) {
        self.unplaced = Some(match self.unplaced {
            None => gap,
            Some(first) => Gap {
                from_seq: first.from_seq.min(gap.from_seq),
                to_seq: first.to_seq.max(gap.to_seq),
                bytes: first.bytes.saturating_add(gap.bytes),
            },
        });
    }

    /// Gives out what waits for more of its line, except for a character that is not complete. What is kept for
    /// the tail stays.
    pub(crate) fn flush(&mut self) -> Vec<Piece> {
        let mut out = Vec::new();
        if self.tail.is_none() {
            self.close_line_before_incomplete_char(&mut out);
        }
        out
    }

    /// Gives out everything that is left.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let mut out = Vec::new();
        if let Some(gap) = self.unplaced.take().filter(|gap| gap.bytes > 0) {
            self.place_gap(gap, &mut out);
        }
        self.close_line(&mut out);
        if let Some(tail) = self.tail.take() {
            self.head_left = 0;
            out.extend(tail.finish(self.tail_bytes));
        }
        out
    }

    fn place_gap(&mut self, gap: Gap, out: &mut Vec<Piece>) {
        self.close_line(out);
        let missing = Missing {
            from_seq: gap.from_seq,
            to_seq: gap.to_seq.max(gap.from_seq),
            offset_bytes: self.next_offset_bytes,
            bytes: gap.bytes,
            reason: GapReason::Dropped,
            time: self.time,
        };
        self.next_offset_bytes = self.next_offset_bytes.saturating_add(gap.bytes);
        self.last_seq = self.last_seq.max(gap.to_seq);
        self.emit(Piece::Gap(missing), out);
    }

    fn record(&mut self, mut chunk: Chunk<'_>, out: &mut Vec<Piece>) {
        while !chunk.bytes.is_empty() {
            if self.pending.as_ref().is_some_and(|pending| !pending.accepts(&chunk)) {
                self.close_line(out);
            }
            let room = self.line_limit() - self.pending_bytes();
            if room == 0 {
                self.close_full_line(out);
                continue;
            }
            let taken = chunk.bytes.len().min(room);
            match &mut self.pending {
                Some(pending) => pending.extend(&chunk, taken),
                None => self.pending = Some(Segment::new(&chunk, taken)),
            }
            chunk.advance(taken);
        }
    }

    fn pending_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.data.len())
    }

    fn line_limit(&self) -> usize {
        match self.tail {
            None => {
                usize::try_from(self.head_left).map_or(MAX_SEGMENT_BYTES, |left| left.min(MAX_SEGMENT_BYTES))
            }
            Some(_) => MAX_SEGMENT_BYTES,
        }
    }

    /// Ends a line that has no room left, and with the head's last line the head.
    fn close_full_line(&mut self, out: &mut Vec<Piece>) {
        let ends_head = self.tail.is_none() && self.pending_bytes() as u64 == self.head_left;
        self.close_line_before_incomplete_char(out);
        if ends_head {
            self.tail = Some(Tail::default());
        }
    }

    fn close_line_before_incomplete_char(&mut self, out: &mut Vec<Piece>) {
        if let Some(segment) = self.pending.take() {
            let (whole, rest) = segment.split_incomplete_char();
            self.pending = whole;
            self.close_line(out);
            self.pending = rest;
        }
        // The line itself may have cost what its last character would still need.
        if self.tail.is_none() && self.pending_bytes() as u64 > self.head_left {
            self.tail = Some(Tail::default());
        }
    }

    fn close_line(&mut self, out: &mut Vec<Piece>) {
        if let Some(segment) = self.pending.take() {
            self.emit(Piece::Output(segment), out);
        }
    }

    fn emit(&mut self, piece: Piece, out: &mut Vec<Piece>) {
        match &mut self.tail {
            Some(tail) => tail.push(piece, self.tail_bytes),
            None => {
                self.head_left = self.head_left.saturating_sub(piece_cost(&piece));
                out.push(piece);
            }
        }
    }
}

/// The last pieces, and the gap that the ones before them have become.
#[derive(Debug, Default)]
struct Tail {
    pieces: VecDeque<Piece>,
    cost: u64,
    evicted: Option<Missing>,
}

impl Tail {
    fn push(&mut self, piece: Piece, tail_bytes: u64) {
        self.cost += piece_cost(&piece);
        self.pieces.push_back(piece);
        // The first piece is cut to measure only at the end; until then it may reach over the bound.
        while let Some(front) = self.pieces.pop_front_if(|front| self.cost - piece_cost(front) >= tail_bytes)
        {
            self.cost -= piece_cost(&front);
            front.join_gap(&mut self.evicted, GapReason::Bounded);
        }
    }

    fn finish(mut self, tail_bytes: u64) -> impl Iterator<Item = Piece> {
        let excess = usize::try_from(self.cost.saturating_sub(tail_bytes)).unwrap_or(usize::MAX);
        let front = if excess > 0 { self.pieces.pop_front() } else { None };
        let (evicted, kept) = match front {
            Some(Piece::Output(segment)) => cut_front(segment, excess),
            Some(gap @ Piece::Gap(_)) => (Some(gap), None),
            None => (None, None),
        };
        if let Some(evicted) = evicted {
            evicted.join_gap(&mut self.evicted, GapReason::Bounded);
        }
        self.evicted.map(Piece::Gap).into_iter().chain(kept).chain(self.pieces)
    }
}

/// Parts a segment after its first `excess` bytes, or after the character that these end in.
fn cut_front(segment: Segment, excess: usize) -> (Option<Piece>, Option<Piece>) {
    let at = excess.min(segment.data.len());
    let at = at + continuation_prefix(&segment.data[at..]);
    let (evicted, kept) = segment.split(at);
    (evicted.map(Piece::Output), kept.map(Piece::Output))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sandbar_proto::Stream::{self, Stderr, Stdout};

    fn bounds(head_bytes: u64, tail_bytes: u64) -> OutputBounds {
        OutputBounds { head_bytes, tail_bytes }
    }

    /// What a keeper would say of a process that writes these, one event each, at the same instant.
    struct Keeper {
        output: BoundedOutput,
        pieces: Vec<Piece>,
        seq: Seq,
        offset_bytes: u64,
        time: Timestamp,
    }

    impl Keeper {
        fn new(bounds: OutputBounds) -> Self {
            let output = BoundedOutput::new(bounds, Progress::default());
            Self { output, pieces: Vec::new(), seq: Seq(0), offset_bytes: 0, time: Timestamp(0) }
        }

        fn wrote(mut self, stream: Stream, bytes: &[u8]) -> Self {
            self.seq = self.seq.next();
            let (seq, offset_bytes, time) = (self.seq, self.offset_bytes, self.time);
            self.pieces.extend(self.output.output(Chunk { seq, stream, offset_bytes, time, bytes }));
            self.offset_bytes += bytes.len() as u64;
            self
        }

        fn dropped(mut self, events: u64, bytes: u64) -> Self {
            let to_seq = Seq(self.seq.0 + events);
            self.output.gap(Gap { from_seq: self.seq.next(), to_seq, bytes });
            self.seq = to_seq;
            self.offset_bytes += bytes;
            self
        }

        fn flushed(mut self) -> Self {
            self.pieces.extend(self.output.flush());
            self
        }

        fn later(mut self, millis: u64) -> Self {
            self.time.0 += millis * 1_000_000;
            self
        }

        fn ended(mut self) -> Vec<String> {
            self.pieces.extend(self.output.finish());
            self.pieces.iter().map(describe).collect()
        }
    }

    fn describe(piece: &Piece) -> String {
        match piece {
            Piece::Output(s) => format!(
                "{:?} {}-{} @{} {}",
                s.stream,
                s.from_seq,
                s.to_seq(),
                s.offset_bytes,
                String::from_utf8_lossy(&s.data)
            ),
            Piece::Gap(m) => {
                format!("{:?} {}-{} @{} {} bytes", m.reason, m.from_seq, m.to_seq, m.offset_bytes, m.bytes)
            }
        }
    }

    #[test]
    fn adjacent_output_of_a_stream_is_one_line() {
        let lines = Keeper::new(OutputBounds::default())
            .wrote(Stdout, b"one ")
            .wrote(Stdout, b"two ")
            .wrote(Stderr, b"oops ")
            .wrote(Stdout, b"three")
            .ended();
        assert_eq!(lines, ["Stdout 1-2 @0 one two ", "Stderr 3-3 @8 oops ", "Stdout 4-4 @13 three"]);
    }

    #[test]
    fn a_flush_or_100_ms_end_a_line() {
        let lines = Keeper::new(OutputBounds::default())
            .wrote(Stdout, b"a")
            .later(99)
            .wrote(Stdout, b"b")
            .later(1)
            .wrote(Stdout, b"c")
            .flushed()
            .wrote(Stdout, b"d")
            .ended();
        assert_eq!(lines, ["Stdout 1-2 @0 ab", "Stdout 3-3 @2 c", "Stdout 4-4 @3 d"]);
    }

    #[test]
    fn a_line_has_32_kib_at_most_and_ends_before_a_character_that_does_not_fit() {
        let mut text = "x".repeat(MAX_SEGMENT_BYTES - 1);
        text.push_str("ü and more");
        let keeper = Keeper::new(OutputBounds::default()).wrote(Stdout, text.as_bytes());
        assert_eq!(keeper.pieces.iter().map(piece_cost).collect::<Vec<_>>(), [32 * 1024 - 1]);
        assert_eq!(keeper.ended()[1], "Stdout 1-1 @32767 ü and more");
    }

    #[test]
    fn a_character_in_two_events_is_not_torn_by_a_flush() {
        let lines = Keeper::new(OutputBounds::default())
            .wrote(Stdout, b"caf\xC3")
            .flushed()
            .later(5_000)
            .wrote(Stdout, b"\xA9!")
            .ended();
        assert_eq!(lines, ["Stdout 1-1 @0 caf", "Stdout 1-2 @3 é!"]);
    }

    #[test]
    fn head_and_tail_are_kept_and_the_gap_between_is_stated_to_the_byte() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|letter| letter.repeat(100));
        let lines = Keeper::new(bounds(150, 120))
            .wrote(Stdout, a.as_bytes())
            .wrote(Stdout, b.as_bytes())
            .wrote(Stderr, c.as_bytes())
            .wrote(Stdout, d.as_bytes())
            .ended();
        let expected = [
            format!("Stdout 1-2 @0 {a}{}", "b".repeat(50)),
            "Bounded 2-3 @150 130 bytes".to_owned(),
            format!("Stderr 3-3 @280 {}", "c".repeat(20)),
            format!("Stdout 4-4 @300 {d}"),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn output_that_fits_into_head_and_tail_has_no_gap() {
        let lines = Keeper::new(bounds(100, 100)).wrote(Stdout, "z".repeat(200).as_bytes()).ended();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.starts_with("Stdout")), "{lines:?}");
    }

    #[test]
    fn the_bounds_fall_between_characters() {
        let text = "€".repeat(100);
        let lines = Keeper::new(bounds(100, 100)).wrote(Stdout, text.as_bytes()).ended();
        let kept = "€".repeat(33);
        let expected = [
            format!("Stdout 1-1 @0 {kept}"),
            "Bounded 1-1 @99 102 bytes".to_owned(),
            format!("Stdout 1-1 @201 {kept}"),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_character_that_the_head_has_no_room_left_for_begins_the_tail() {
        let lines =
            Keeper::new(bounds(2, 64)).wrote(Stdout, b"a\xC3").flushed().wrote(Stdout, b"\xA9b").ended();
        assert_eq!(lines, ["Stdout 1-1 @0 a", "Stdout 1-2 @1 éb"]);
    }

    #[test]
    fn a_gap_of_the_keeper_stands_where_the_output_is_missing() {
        let lines = Keeper::new(OutputBounds::default())
            .wrote(Stdout, b"before")
            .dropped(3, 1000)
            .wrote(Stdout, b"after")
            .dropped(2, 5)
            .ended();
        let expected = [
            "Stdout 1-1 @0 before",
            "Dropped 2-4 @6 1000 bytes",
            "Stdout 5-5 @1006 after",
            "Dropped 6-7 @1011 5 bytes",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_hole_that_nobody_stated_is_stated() {
        let mut output = BoundedOutput::new(OutputBounds::default(), Progress::default());
        let chunk = |seq, offset_bytes| Chunk {
            seq: Seq(seq),
            stream: Stdout,
            offset_bytes,
            time: Timestamp(0),
            bytes: b"x",
        };
        let mut pieces = output.output(chunk(1, 0));
        pieces.extend(output.output(chunk(4, 10)));
        pieces.extend(output.finish());
        let lines: Vec<_> = pieces.iter().map(describe).collect();
        assert_eq!(lines, ["Stdout 1-1 @0 x", "Dropped 2-3 @1 9 bytes", "Stdout 4-4 @10 x"]);
    }

    #[test]
    fn output_that_is_already_recorded_is_skipped() {
        let settled = Progress { offset_bytes: 4, last_seq: Seq(2), head_cost: 64 };
        let mut output = BoundedOutput::new(OutputBounds::default(), settled);
        let time = Timestamp(0);
        for (seq, offset_bytes, bytes) in [(1, 0, &b"ab"[..]), (2, 2, b"cdef"), (3, 6, b"g")] {
            let pieces = output.output(Chunk { seq: Seq(seq), stream: Stdout, offset_bytes, time, bytes });
            assert_eq!(pieces, []);
        }
        assert_eq!(output.finish().iter().map(describe).collect::<Vec<_>>(), ["Stdout 2-3 @4 efg"]);
    }

    #[test]
    fn single_bytes_on_alternating_streams_cannot_blow_up_file_or_memory() {
        let mut keeper = Keeper::new(bounds(64 * 100, 64 * 10));
        for _ in 0..10_000 {
            keeper = keeper.wrote(Stdout, b"o").wrote(Stderr, b"e");
        }
        assert_eq!(keeper.pieces.len(), 100);
        assert!(keeper.output.tail.as_ref().is_some_and(|tail| tail.pieces.len() <= 11));
        assert_eq!(keeper.ended().len(), 100 + 1 + 10);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(Stream, Vec<u8>),
        Drop(u64, u64),
        Flush,
        Wait(u64),
    }

    fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => "[a-zü€😀\n]{0,40}".prop_map(String::into_bytes),
            2 => proptest::collection::vec(any::<u8>(), 0..40),
            1 => (0..70_000_usize).prop_map(|length| "ü€x".bytes().cycle().take(length).collect()),
        ]
    }

    fn some_step() -> impl Strategy<Value = Step> {
        let stream = prop_oneof![Just(Stdout), Just(Stderr)];
        prop_oneof![
            8 => (stream, some_bytes()).prop_map(|(stream, bytes)| Step::Write(stream, bytes)),
            1 => (1..5_u64, 1..5_000_u64).prop_map(|(events, bytes)| Step::Drop(events, bytes)),
            1 => Just(Step::Flush),
            1 => (0..300_u64).prop_map(Step::Wait),
        ]
    }

    fn some_bound() -> impl Strategy<Value = u64> {
        prop_oneof![0..8_u64, 0..200_u64, 0..100_000_u64]
    }

    proptest! {
        #[test]
        fn lines_and_gaps_account_for_every_byte_exactly_once_and_in_order(
            steps in proptest::collection::vec(some_step(), 0..40),
            head_bytes in some_bound(),
            tail_bytes in some_bound(),
        ) {
            // What was written, by offset; `None` is a byte that the keeper dropped.
            let mut truth: Vec<Option<(Stream, u8, Seq)>> = Vec::new();
            let mut keeper = Keeper::new(bounds(head_bytes, tail_bytes));
            for step in steps {
                keeper = match step {
                    Step::Write(stream, bytes) => {
                        let seq = keeper.seq.next();
                        truth.extend(bytes.iter().map(|byte| Some((stream, *byte, seq))));
                        keeper.wrote(stream, &bytes)
                    }
                    Step::Drop(events, bytes) => {
                        truth.extend(std::iter::repeat_n(None, usize::try_from(bytes).unwrap()));
                        keeper.dropped(events, bytes)
                    }
                    Step::Flush => keeper.flushed(),
                    Step::Wait(millis) => keeper.later(millis),
                };
            }
            let last = keeper.output.finish();
            let mut recorded = 0;
            let mut at = 0;
            for piece in keeper.pieces.into_iter().chain(last) {
                match piece {
                    Piece::Output(segment) => {
                        prop_assert_eq!(segment.offset_bytes, at as u64);
                        prop_assert!(!segment.data.is_empty() && segment.data.len() <= MAX_SEGMENT_BYTES);
                        for byte in &segment.data {
                            prop_assert_eq!(truth[at].map(|(s, b, _)| (s, b)), Some((segment.stream, *byte)));
                            at += 1;
                        }
                        let first = truth[at - segment.data.len()].unwrap().2;
                        prop_assert_eq!((segment.from_seq, segment.to_seq()), (first, truth[at - 1].unwrap().2));
                        recorded += segment.data.len() as u64;
                    }
                    Piece::Gap(missing) => {
                        prop_assert_eq!(missing.offset_bytes, at as u64);
                        prop_assert!(missing.bytes > 0 && missing.from_seq <= missing.to_seq);
                        let next = at + usize::try_from(missing.bytes).unwrap();
                        if missing.reason == GapReason::Dropped {
                            prop_assert!(truth[at..next].iter().all(Option::is_none));
                        }
                        at = next;
                    }
                }
            }
            prop_assert_eq!(at, truth.len());
            prop_assert!(recorded <= head_bytes + tail_bytes);
        }
    }
}
