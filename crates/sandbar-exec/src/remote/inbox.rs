//! What is known of one process and not given out yet: events in their order, each once.
//!
//! News come from notifications, which may come out of order, twice, or not at all, and from reads, which fill what is
//! missing. [`Order`] is the rule, without locks or time; [`Inbox`] is what a reader and a connection share.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sandbar_proto::exec::ReadResult;
use sandbar_proto::{EndRecord, Stream, Timestamp};
use tokio::sync::Notify;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    /// The code, or 128 plus the signal's number.
    pub(super) code: i32,
    /// The signal's name.
    pub(super) signal: Option<String>,
    /// The executor's record.
    pub(super) end: Option<Box<EndRecord>>,
}

/// Something that is told of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// It wrote.
    Output {
        stream: Stream,
        /// Bytes before, where the server says so.
        offset: Option<u64>,
        time: Option<Timestamp>,
        bytes: Vec<u8>,
    },
    /// Output up to `to_seq` can't be had.
    Gap { to_seq: u64, bytes: u64 },
    /// Its leader ended.
    Exited(Ended),
    /// Nothing follows.
    Closed,
}

/// Numbers above this one make no sense: nothing counts that far.
const MAX_SEQ: u64 = 1 << 62;

/// What an event takes besides its bytes, in bytes: so many small ones are bounded as well.
const EVENT_BYTES: u64 = 128;

/// The order of one process's events. Numbers of a peer are never trusted: what makes no sense is left out, and shows as
/// something that is missing.
#[derive(Debug)]
pub(super) struct Order {
    /// The next number to give out.
    next: u64,
    waiting: BTreeMap<u64, News>,
    /// What waits costs so much memory.
    waiting_bytes: u64,
    /// Output that may wait. A server that heeds credit never sends more.
    window_bytes: u64,
    /// Where the output is, as far as the server says so.
    offset_bytes: Option<u64>,
    /// Output that came and was not needed, which the server counts as taken from its credit.
    unneeded_bytes: u64,
    told_exit: bool,
    told_close: bool,
    /// The connection behind whose notifications nothing is missing, and what was dropped by then.
    synced: Option<(u64, u64)>,
    /// News that found no room.
    dropped: u64,
}

impl Order {
    pub(super) fn new(after: u64, window_bytes: u64) -> Self {
        Self {
            next: after.min(MAX_SEQ) + 1,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            window_bytes,
            offset_bytes: None,
            unneeded_bytes: 0,
            told_exit: false,
            told_close: false,
            synced: None,
            dropped: 0,
        }
    }

    /// Takes news. What was given out already is dropped; so is what finds no room, which makes a read necessary.
    pub(super) fn push(&mut self, seq: u64, news: News) {
        let last = if let News::Gap { to_seq, .. } = news { to_seq } else { seq };
        if last < seq || last > MAX_SEQ || last < self.next {
            self.unneeded_bytes = self.unneeded_bytes.saturating_add(size(&news));
            return;
        }
        // A server that heeds no credit floods; the rest is read at the pace of whoever takes it.
        if self.waiting_bytes.saturating_add(cost(&news)) > self.window_bytes.saturating_mul(4) {
            self.unneeded_bytes = self.unneeded_bytes.saturating_add(size(&news));
            self.dropped += 1;
            return;
        }
        self.insert(seq.max(self.next), news);
    }

    /// The next event in order, if it is there.
    pub(super) fn pop(&mut self) -> Option<(u64, News)> {
        let entry = self.waiting.first_entry()?;
        if *entry.key() > self.next {
            return None;
        }
        let (seq, news) = entry.remove_entry();
        self.waiting_bytes -= cost(&news);
        self.next = match &news {
            News::Gap { to_seq, .. } => to_seq + 1,
            News::Output { .. } | News::Exited(_) | News::Closed => seq + 1,
        };
        if let News::Output { offset: Some(offset), bytes, .. } = &news {
            self.offset_bytes = offset.checked_add(bytes.len() as u64);
        }
        self.told_exit |= matches!(news, News::Exited(_));
        self.told_close |= matches!(news, News::Closed);
        // Only behind a gap can there be some.
        self.drop_passed();
        Some((seq, news))
    }

    /// Begins behind `after`, where that is further on: the other end was asked where to begin.
    pub(super) fn begin_behind(&mut self, after: u64) {
        self.next = self.next.max(after.min(MAX_SEQ) + 1);
        self.drop_passed();
    }

    /// Lets go of what waits and is not to be given out.
    fn drop_passed(&mut self) {
        while let Some(entry) = self.waiting.first_entry().filter(|entry| *entry.key() < self.next) {
            let passed = entry.remove();
            self.waiting_bytes -= cost(&passed);
            self.unneeded_bytes = self.unneeded_bytes.saturating_add(size(&passed));
        }
    }

    /// Bytes of output that came and were not needed, since it was asked last.
    pub(super) fn take_unneeded(&mut self) -> u64 {
        std::mem::take(&mut self.unneeded_bytes)
    }

    /// The last number that was given out.
    pub(super) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Whether nothing will follow.
    pub(super) fn is_over(&self) -> bool {
        self.told_close
    }

    /// Whether something may be missing that notifications of this connection will not bring.
    pub(super) fn must_read(&self, epoch: u64) -> bool {
        self.synced != Some((epoch, self.dropped)) && !self.told_close
    }

    /// Whether something waits for what is missing before it.
    pub(super) fn has_hole(&self) -> bool {
        self.waiting.keys().next().is_some_and(|seq| *seq > self.next)
    }

    /// What was dropped so far, to be said to [`Self::sync`].
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Nothing is missing before the notifications of this connection, unless more was dropped since `dropped` was asked.
    pub(super) fn sync(&mut self, epoch: u64, dropped: u64) {
        self.synced = Some((epoch, dropped));
    }

    /// Forgets that nothing is missing.
    pub(super) fn doubt(&mut self) {
        self.synced = None;
    }

    /// Takes what was read behind [`Self::last`]. `true` if there was nothing more to read.
    pub(super) fn absorb(&mut self, read: ReadResult) -> bool {
        let after = self.last();
        let end = read.next_seq.min(MAX_SEQ);
        let gap = read.gap.filter(|gap| gap.to_seq > after && gap.to_seq < end);
        if end <= self.next {
            return true;
        }
        let mut first = self.next;
        if let Some(gap) = gap {
            let known = self.offset_bytes.zip(read.chunks.first().and_then(|chunk| chunk.offset));
            // The log counts from where it begins to lack something, which may be before what is known here.
            let bytes = known.map_or(gap.bytes, |(here, there)| there.saturating_sub(here));
            self.insert(first, News::Gap { to_seq: gap.to_seq, bytes });
            first = gap.to_seq + 1;
        }
        let mut missing = Vec::new();
        let mut expected = first;
        for chunk in read.chunks {
            if chunk.seq < expected || chunk.seq >= end {
                continue;
            }
            if chunk.seq > expected {
                missing.push((expected, chunk.seq - 1));
            }
            expected = chunk.seq + 1;
            let news = News::Output {
                stream: chunk.stream,
                offset: chunk.offset,
                time: chunk.time,
                bytes: chunk.chunk.0,
            };
            self.insert(chunk.seq, news);
        }
        let has_chunks = expected > first;
        if expected < end {
            missing.push((expected, end - 1));
        }
        let closes = read.closed && !self.told_close && expected < end;
        if closes {
            self.insert(end - 1, News::Closed);
            take(&mut missing, end - 1);
        }
        if read.exited && !self.told_exit {
            // The dialect does not say which number the end has: one without output, behind output if there is such a one,
            // since what a server gave up was the oldest. In an answer that was cut it may come later.
            let behind = missing.iter().rev().find(|(from, _)| !has_chunks || *from > first);
            let guess = behind.or_else(|| missing.last().filter(|_| closes)).map(|(_, to)| *to);
            let place = match &read.end {
                Some(end) => end.seq().map(|seq| seq.0),
                None => guess,
            };
            if let Some(seq) = place.filter(|seq| take(&mut missing, *seq)) {
                let code = read.exit_code.unwrap_or(-1);
                self.insert(seq, News::Exited(Ended { code, signal: read.signal, end: read.end }));
            }
        }
        for (from, to) in missing {
            self.insert(from, News::Gap { to_seq: to, bytes: 0 });
        }
        false
    }

    /// As [`Self::push`], whatever the room: a read has a bound of its own.
    fn insert(&mut self, seq: u64, news: News) {
        self.waiting_bytes += cost(&news);
        if let Some(known) = self.waiting.insert(seq, news) {
            self.waiting_bytes -= cost(&known);
            self.unneeded_bytes = self.unneeded_bytes.saturating_add(size(&known));
        }
    }
}

/// Takes a number out of ranges of numbers; `false` if it is in none.
fn take(ranges: &mut Vec<(u64, u64)>, number: u64) -> bool {
    let Some(at) = ranges.iter().position(|(from, to)| (*from..=*to).contains(&number)) else { return false };
    let (from, to) = ranges.remove(at);
    if number < to {
        ranges.insert(at, (number + 1, to));
    }
    if from < number {
        ranges.insert(at, (from, number - 1));
    }
    true
}

fn cost(news: &News) -> u64 {
    size(news) + EVENT_BYTES
}

fn size(news: &News) -> u64 {
    match news {
        News::Output { bytes, .. } => bytes.len() as u64,
        News::Gap { .. } | News::Exited(_) | News::Closed => 0,
    }
}

/// What a process's reader and the connection share.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<(Order, Option<i32>)>,
    changed: Notify,
}

impl Inbox {
    pub(super) fn new(after: u64, window_bytes: u64) -> Self {
        Self { state: Mutex::new((Order::new(after, window_bytes), None)), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, (Order, Option<i32>)> {
        // What is pushed is checked before anything changes; nothing below panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes news.
    pub(super) fn push(&self, seq: u64, news: News) {
        self.state().0.push(seq, news);
        self.wake();
    }

    /// Notes that the leader was stopped. The newest signal counts.
    pub(super) fn stopped(&self, signal: i32) {
        self.state().1 = Some(signal);
        self.wake();
    }

    /// The signal that stopped it, once.
    pub(super) fn take_stop(&self) -> Option<i32> {
        self.state().1.take()
    }

    /// Does something with the order.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Order) -> T) -> T {
        work(&mut self.state().0)
    }

    /// Lets the reader look again.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Waits until there may be something new. Nothing is missed between two waits.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sandbar_proto::exec::{Base64, Chunk, OutputGap};

    fn output(text: &str) -> News {
        News::Output { stream: Stream::Stdout, offset: None, time: None, bytes: text.into() }
    }

    fn exited() -> News {
        News::Exited(Ended { code: 3, signal: None, end: None })
    }

    fn drain(order: &mut Order) -> Vec<(u64, News)> {
        std::iter::from_fn(|| order.pop()).collect()
    }

    fn chunk(seq: u64, text: &str) -> Chunk {
        let (stream, chunk) = (Stream::Stdout, Base64(text.into()));
        Chunk { seq, stream, chunk, offset: None, time: None }
    }

    #[test]
    fn news_are_given_out_in_their_order_and_once() {
        let mut order = Order::new(0, 100);
        order.push(2, output("b"));
        assert_eq!(order.pop(), None, "1 is missing");
        order.push(1, output("a"));
        order.push(1, output("a"));
        assert_eq!(drain(&mut order), [(1, output("a")), (2, output("b"))]);
        order.push(2, output("b"));
        assert_eq!(order.pop(), None);
        order.push(4, News::Closed);
        order.push(3, exited());
        assert_eq!(drain(&mut order), [(3, exited()), (4, News::Closed)]);
        assert!(order.is_over());
    }

    #[test]
    fn a_flood_is_not_kept_and_makes_a_read_necessary() {
        let mut order = Order::new(0, 4 * (10 + EVENT_BYTES) / 4);
        order.sync(1, order.dropped());
        for seq in 1..=5 {
            order.push(seq, output("0123456789"));
        }
        assert!(order.must_read(1), "the fifth found no room");
        assert_eq!(drain(&mut order).len(), 4);
        assert!(!order.absorb(ReadResult {
            chunks: vec![chunk(5, "x")],
            next_seq: 6,
            ..ReadResult::default()
        }));
        assert_eq!(drain(&mut order), [(5, output("x"))]);
        assert!(order.absorb(ReadResult { next_seq: 6, ..ReadResult::default() }), "nothing more");
    }

    #[test]
    fn numbers_without_output_are_the_end_the_close_and_what_is_lost() {
        // A server of the dialect: 1 to 3 were evicted, 5 is the end, 7 the close.
        let mut order = Order::new(0, 100);
        let read = ReadResult {
            chunks: vec![chunk(4, "d"), chunk(6, "f")],
            next_seq: 8,
            exited: true,
            exit_code: Some(3),
            closed: true,
            ..ReadResult::default()
        };
        assert!(!order.absorb(read));
        let seen = drain(&mut order);
        let gap = (1, News::Gap { to_seq: 3, bytes: 0 });
        let expected = [gap, (4, output("d")), (5, exited()), (6, output("f")), (7, News::Closed)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_gap_that_is_told_is_one_and_covers_what_was_not_given_out() {
        let mut order = Order::new(2, 100);
        order.push(1, News::Gap { to_seq: 5, bytes: 9 });
        order.push(6, output("f"));
        assert_eq!(drain(&mut order), [(3, News::Gap { to_seq: 5, bytes: 9 }), (6, output("f"))]);
        let gap = OutputGap { process_id: None, from_seq: 7, to_seq: 9, bytes: 4 };
        let read = ReadResult {
            gap: Some(gap),
            chunks: vec![chunk(10, "j")],
            next_seq: 11,
            ..ReadResult::default()
        };
        order.absorb(read);
        assert_eq!(drain(&mut order), [(7, News::Gap { to_seq: 9, bytes: 4 }), (10, output("j"))]);
    }

    #[test]
    fn an_answer_that_was_cut_has_neither_end_nor_close() {
        // Of 1 to 5, where 2 is the end and 5 the close, only 1 and 3 found room.
        let mut order = Order::new(0, 1000);
        let cut = ReadResult {
            chunks: vec![chunk(1, "a"), chunk(3, "c")],
            next_seq: 4,
            exited: true,
            exit_code: Some(3),
            closed: true,
            ..ReadResult::default()
        };
        assert!(!order.absorb(cut));
        assert_eq!(drain(&mut order), [(1, output("a")), (2, exited()), (3, output("c"))]);
        let rest = ReadResult {
            chunks: vec![chunk(4, "d")],
            next_seq: 6,
            exited: true,
            exit_code: Some(3),
            closed: true,
            ..ReadResult::default()
        };
        assert!(!order.absorb(rest));
        assert_eq!(drain(&mut order), [(4, output("d")), (5, News::Closed)]);
    }

    #[test]
    fn what_came_and_was_not_needed_is_given_back_as_credit() {
        let mut order = Order::new(3, 10_000);
        order.push(2, output("twice"));
        order.push(4, output("d"));
        order.push(4, output("d"));
        assert_eq!((order.take_unneeded(), order.take_unneeded()), (6, 0));
    }

    #[test]
    fn numbers_that_make_no_sense_change_nothing() {
        let mut order = Order::new(5, 10_000);
        for (seq, to_seq) in [(6, u64::MAX), (9, 7), (1, 5), (u64::MAX, u64::MAX)] {
            order.push(seq, News::Gap { to_seq, bytes: u64::MAX });
        }
        order.push(u64::MAX, News::Closed);
        let gap = OutputGap { process_id: None, from_seq: 1, to_seq: u64::MAX, bytes: 1 };
        let read = ReadResult { gap: Some(gap), next_seq: u64::MAX, ..ReadResult::default() };
        assert!(!order.absorb(read), "one gap and not one for each number");
        assert_eq!(drain(&mut order).len(), 1);
        assert!(order.absorb(ReadResult::default()) && order.last() < u64::MAX / 2);
        // Events without a byte cost something, too.
        let mut order = Order::new(0, 1000);
        for seq in 2..100_000 {
            order.push(seq, output(""));
        }
        assert!(order.waiting.len() < 100 && order.must_read(1));
    }

    proptest! {
        /// Whatever is lost, repeated or out of order, a reader that reads after a loss sees everything once.
        #[test]
        fn every_event_comes_once_and_in_order(
            count in 1..60u64,
            sent in proptest::collection::vec((1..60u64, any::<bool>()), 0..200),
        ) {
            let all = |seq: u64| if seq == count { News::Closed } else { output(&seq.to_string()) };
            let mut order = Order::new(0, 100_000);
            let mut seen = Vec::new();
            for (seq, reads) in sent {
                if seq <= count {
                    order.push(seq, all(seq));
                }
                seen.extend(drain(&mut order));
                if reads && !order.is_over() {
                    let from = order.last() + 1;
                    let to = (from + 3).min(count);
                    let chunks = (from..=to.min(count - 1)).map(|seq| chunk(seq, &seq.to_string())).collect();
                    let read = ReadResult { chunks, next_seq: to + 1, closed: to == count, ..ReadResult::default() };
                    order.absorb(read);
                    seen.extend(drain(&mut order));
                }
            }
            let expected: Vec<(u64, News)> = (1..=seen.len() as u64).map(|seq| (seq, all(seq))).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
