//! One followed process of the keeper: its log and its news, merged into one ordered stream of events.

use std::path::PathBuf;

use sandbar_keeper::protocol::{ProcessState, Request};
use sandbar_keeper::{LogItem, LogReader};
use sandbar_proto::{EndRecord, Gap, OutputTotals, ProcessEvent, Seq, StartRecord, TerminalSize};
use tokio::sync::watch;

use super::LocalControl;
use super::actor::{Handle, News};
use crate::processes::{BoxFuture, Process, ProcessControl, ProcessError, Watching};

/// Bytes after which the keeper is told how far we are. An eighth of what it lets a process get ahead, so the
/// process never waits for the message.
const ACK_BYTES: u64 = 512 * 1024;

pub(super) struct LocalProcess {
    keeper: Handle,
    record: StartRecord,
    news: watch::Receiver<News>,
    log: Option<Log>,
    /// An end that was known when we began to follow.
    known_end: Option<EndRecord>,
    /// Its last sequence number, when it was closed by then.
    was_closed: Option<Seq>,
    written: OutputTotals,
    terminal: Option<TerminalSize>,
    was_stopped: bool,
    lowered: Vec<(u32, u64)>,
    told_stops: u64,
    told_exit: bool,
    told_close: bool,
    /// The number of the last thing that was told, or that was told to somebody else before.
    last: Seq,
    /// Output that comes behind the end, and waits for it.
    held: Option<ProcessEvent>,
}

struct Log {
    path: PathBuf,
    /// Where in it we begin.
    after: Seq,
    reader: Option<LogReader>,
    lossless: bool,
    acked_bytes: u64,
    /// Where what is needed again begins, if the reader says so.
    needed_from: Option<u64>,
}

impl LocalProcess {
    pub(super) fn new(
        keeper: Handle,
        state: ProcessState,
        news: watch::Receiver<News>,
        log: Option<PathBuf>,
        watching: Watching,
        after: Seq,
    ) -> Self {
        let lossless = watching == Watching::Lossless;
        let follows = watching != Watching::End;
        let told_stops = news.borrow().stops;
        let was_closed = state.closed.then(|| state.output.last_seq.next());
        let told_exit = state.end.as_ref().and_then(EndRecord::seq).is_some_and(|seq| seq <= after);
        Self {
            keeper,
            record: state.start,
            news,
            log: log.filter(|_| follows).map(|path| Log {
                path,
                after,
                reader: None,
                lossless,
                acked_bytes: 0,
                needed_from: None,
            }),
            known_end: state.end,
            told_close: was_closed.is_some_and(|seq| seq <= after),
            was_closed,
            written: state.output,
            terminal: state.terminal,
            was_stopped: state.stopped,
            lowered: state.lowered,
            told_stops,
            told_exit,
            last: after,
            held: None,
        }
    }

    /// The same for one that was just started, and whose news were kept since before: it may have been stopped by now.
    pub(super) fn since_its_start(self) -> Self {
        Self { told_stops: 0, ..self }
    }

    async fn advance(&mut self) -> Result<Option<ProcessEvent>, ProcessError> {
        loop {
            if self.told_close {
                return Ok(None);
            }
            // The state first, the log then: what the state counts is in the log by the time we look.
            let news = self.news.borrow_and_update().clone();
            if let Some(event) = self.next_in_order(&news)? {
                return Ok(Some(event));
            }
            self.ack(AckWhen::Idle);
            if news.stops > self.told_stops && news.end.is_none() {
                self.told_stops = news.stops;
                return Ok(Some(ProcessEvent::Stopped { signal: news.stop_signal }));
            }
            if let Some(event) = self.next_end(&news) {
                return Ok(Some(event));
            }
            if let Some(reason) = news.lost {
                return Err(ProcessError::Lost(reason));
            }
            // Waits as long as the process runs silently.
            if self.news.changed().await.is_err() && !self.news.has_changed().unwrap_or(false) {
                let news = self.news.borrow().clone();
                if news.closed.is_none() && news.lost.is_none() {
                    return Err(ProcessError::Lost("the connection has ended".to_owned()));
                }
            }
        }
    }

    /// The next output, or the end that comes before it.
    fn next_in_order(&mut self, news: &News) -> Result<Option<ProcessEvent>, ProcessError> {
        let next = match self.held.take() {
            Some(event) => Some(event),
            None => self.next_output()?,
        };
        let Some(event) = next else { return Ok(None) };
        let Some((first, last)) = numbers(&event) else { return Ok(Some(event)) };
        if !self.told_exit {
            match news.end.as_ref().or(self.known_end.as_ref()) {
                Some(end) if end.seq().is_some_and(|seq| seq <= last) => {
                    let end = end.clone();
                    self.held = Some(event);
                    self.told_exit = true;
                    return Ok(Some(ProcessEvent::Exited(end)));
                }
                // A number without output is that of the end, which was written before and is told in a moment.
                None if first > self.last.next() && news.lost.is_none() => {
                    self.held = Some(event);
                    return Ok(None);
                }
                Some(_) | None => {}
            }
        }
        self.last = last;
        Ok(Some(event))
    }

    fn next_output(&mut self) -> Result<Option<ProcessEvent>, ProcessError> {
        let Some(log) = &mut self.log else { return Ok(None) };
        if log.reader.is_none() {
            log.reader = Some(LogReader::open_after(&log.path, log.after)?);
        }
        let Some(reader) = &mut log.reader else { return Ok(None) };
        let event = reader.next_item()?.map(|item| match item {
            LogItem::Record(header, bytes) => ProcessEvent::Output {
                seq: header.seq,
                stream: header.stream,
                offset_bytes: header.offset_bytes,
                time: header.time,
                bytes,
            },
            LogItem::Gap(gap) => ProcessEvent::Gap(gap),
        });
        if event.is_some() {
            self.ack(AckWhen::Due);
        }
        Ok(event)
    }

    /// The end or the close, once everything before it was delivered.
    fn next_end(&mut self, news: &News) -> Option<ProcessEvent> {
        let end = news.end.clone().or_else(|| self.known_end.clone());
        let read = self.log.as_ref().and_then(|log| log.reader.as_ref()).map(LogReader::offset_bytes);
        if let Some(end) = end
            && !self.told_exit
        {
            let complete = read.is_none_or(|offset| offset >= end.output.bytes);
            if complete || news.closed.is_some() || self.was_closed.is_some() {
                self.told_exit = true;
                return Some(ProcessEvent::Exited(end));
            }
        }
        let seq = news.closed.or(self.was_closed)?;
        let written = news.output.bytes.max(self.written.bytes);
        let before = Seq(seq.0.saturating_sub(1));
        if let Some(reader) = self.log.as_ref().and_then(|log| log.reader.as_ref())
            && let Some(gap) = reader.missing_until(before, written)
            && let Some(log) = self.log.take()
        {
            // Dropped before we came to it; there is nothing left to read.
            drop(log);
            return Some(ProcessEvent::Gap(gap));
        }
        self.told_close = true;
        Some(ProcessEvent::Closed { seq })
    }

    fn ack(&mut self, when: AckWhen) {
        let Some(log) = &mut self.log else { return };
        let Some(offset_bytes) = log.reader.as_ref().map(LogReader::offset_bytes) else { return };
        let due = match when {
            AckWhen::Due => offset_bytes >= log.acked_bytes + ACK_BYTES,
            AckWhen::Idle => offset_bytes > log.acked_bytes,
        };
        if log.lossless
            && due
            && self.keeper.notify(Request::Ack {
                id: self.record.id,
                offset_bytes,
                needed_from: log.needed_from,
            })
        {
            log.acked_bytes = offset_bytes;
        }
    }
}

/// First and last number of what was written or is missing.
fn numbers(event: &ProcessEvent) -> Option<(Seq, Seq)> {
    match event {
        ProcessEvent::Output { seq, .. } => Some((*seq, *seq)),
        ProcessEvent::Gap(Gap { from_seq, to_seq, .. }) => Some((*from_seq, *to_seq)),
        ProcessEvent::Stopped { .. } | ProcessEvent::Exited(_) | ProcessEvent::Closed { .. } => None,
    }
}

/// When the keeper is told how far we are.
#[derive(Clone, Copy)]
enum AckWhen {
    /// When enough was read since the last time.
    Due,
    /// When everything there was is read: the process may be waiting for just this.
    Idle,
}

impl Process for LocalProcess {
    fn record(&self) -> &StartRecord {
        &self.record
    }

    fn next_event(&mut self) -> BoxFuture<'_, Result<Option<ProcessEvent>, ProcessError>> {
        Box::pin(self.advance())
    }

    fn needs_from(&mut self, offset_bytes: u64) {
        if let Some(log) = &mut self.log {
            log.needed_from = Some(offset_bytes);
        }
    }

    fn written(&self) -> OutputTotals {
        self.written
    }

    fn terminal(&self) -> Option<TerminalSize> {
        self.terminal
    }

    fn lowered(&self) -> &[(u32, u64)] {
        &self.lowered
    }

    fn was_stopped(&self) -> bool {
        self.was_stopped
    }

    fn is_stalled(&self) -> bool {
        self.news.borrow().stalled
    }

    fn stalled(&self) -> BoxFuture<'static, ()> {
        let mut news = self.news.clone();
        Box::pin(async move {
            if news.wait_for(|news| news.stalled).await.is_err() {
                std::future::pending().await
            }
        })
    }

    fn ended(&self) -> BoxFuture<'static, Option<EndRecord>> {
        let (known, mut news) = (self.known_end.clone(), self.news.clone());
        Box::pin(async move {
            if known.is_some() {
                return known;
            }
            let told = news.wait_for(|news| news.end.is_some() || news.lost.is_some()).await;
            told.ok().and_then(|news| news.end.clone())
        })
    }

    fn control(&self) -> Box<dyn ProcessControl> {
        Box::new(LocalControl { keeper: self.keeper.clone(), id: self.record.id })
    }
}
