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

/// The order of one process's events.
#[derive(Debug)]
pub(super) struct Order {
    /// The next number to give out.
    next: u64,
    waiting: BTreeMap<u64, News>,
    waiting_bytes: u64,
    /// Output that may wait. A server that heeds credit never sends more.
    window_bytes: u64,
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
            next: after + 1,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            window_bytes,
            told_exit: false,
            told_close: false,
            synced: None,
            dropped: 0,
        }
    }

    /// Takes news. What was given out already is dropped; so is what finds no room, which makes a read necessary.
    pub(super) fn push(&mut self, seq: u64, news: News) {
        if seq < self.next && !matches!(news, News::Gap { to_seq, .. } if to_seq >= self.next) {
            return;
        }
        let size = size(&news);
        // A server that heeds no credit floods; the rest is read at the pace of whoever takes it.
        if size > 0 && self.waiting_bytes + size > self.window_bytes.saturating_mul(4) {
            self.dropped += 1;
            return;
        }
        let seq = seq.max(self.next);
        if self.waiting.insert(seq, news).is_none() {
            self.waiting_bytes += size;
        }
    }

    /// The next event in order, if it is there.
    pub(super) fn pop(&mut self) -> Option<(u64, News)> {
        let entry = self.waiting.first_entry()?;
        // A gap may begin before what was given out meanwhile.
        if *entry.key() > self.next {
            return None;
        }
        let (seq, news) = entry.remove_entry();
        self.waiting_bytes -= size(&news);
        self.next = match &news {
            News::Gap { to_seq, .. } => to_seq + 1,
            News::Output { .. } | News::Exited(_) | News::Closed => seq + 1,
        };
        self.told_exit |= matches!(news, News::Exited(_));
        self.told_close |= matches!(news, News::Closed);
        self.waiting.retain(|seq, _| *seq >= self.next);
        self.waiting_bytes = self.waiting.values().map(size).sum();
        Some((seq, news))
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
        let is_at_end = read.chunks.is_empty() && read.gap.is_none() && read.next_seq <= self.next;
        let first = read.gap.as_ref().map_or(after + 1, |gap| gap.to_seq + 1);
        if let Some(gap) = &read.gap {
            self.insert(after + 1, News::Gap { to_seq: gap.to_seq, bytes: gap.bytes });
        }
        let mut missing: Vec<u64> = (first..read.next_seq).take(MOST_MISSING).collect();
        for chunk in read.chunks {
            missing.retain(|seq| *seq != chunk.seq);
            let news = News::Output {
                stream: chunk.stream,
                offset: chunk.offset,
                time: chunk.time,
                bytes: chunk.chunk.0,
            };
            self.insert(chunk.seq, news);
        }
        // The dialect does not say which of the numbers without output are the end and the close: the close is the last
        // of all, and what is missing besides both was given up by the server.
        if read.closed
            && !self.told_close
            && let Some(seq) = missing.pop()
        {
            self.insert(seq, News::Closed);
        }
        if read.exited && !self.told_exit {
            let said = read.end.as_ref().and_then(|end| end.seq()).map(|seq| seq.0);
            let place = said.filter(|seq| missing.contains(seq)).or_else(|| missing.last().copied());
            if let Some(seq) = place {
                missing.retain(|other| *other != seq);
                let code = read.exit_code.unwrap_or(-1);
                self.insert(seq, News::Exited(Ended { code, signal: read.signal, end: read.end }));
            }
        }
        for seq in missing {
            self.insert(seq, News::Gap { to_seq: seq, bytes: 0 });
        }
        is_at_end
    }

    /// As [`Self::push`], whatever the room: a read has a bound of its own.
    fn insert(&mut self, seq: u64, news: News) {
        if seq < self.next {
            return;
        }
        let size = size(&news);
        if let Some(known) = self.waiting.insert(seq, news) {
            self.waiting_bytes -= self::size(&known);
        }
        self.waiting_bytes += size;
    }
}

/// Numbers without output that one read may leave; a server that says more makes no sense.
const MOST_MISSING: usize = 1 << 20;

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
        let mut order = Order::new(0, 10);
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
        let gap = |seq| (seq, News::Gap { to_seq: seq, bytes: 0 });
        let expected =
            [gap(1), gap(2), gap(3), (4, output("d")), (5, exited()), (6, output("f")), (7, News::Closed)];
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

    proptest! {
        /// Whatever is lost, repeated or out of order, a reader that reads after a loss sees everything once.
        #[test]
        fn every_event_comes_once_and_in_order(
            count in 1..60u64,
            sent in proptest::collection::vec((1..60u64, any::<bool>()), 0..200),
        ) {
            let all = |seq: u64| if seq == count { News::Closed } else { output(&seq.to_string()) };
            let mut order = Order::new(0, 1000);
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
