//! Reading a rollout far enough to go on with it.
//!
//! Skips what it does not understand: torn lines, garbage, lines of other programs and of later versions. Only
//! this crate's own lines say how much of a run is recorded.

use std::io::{self, BufRead};

use sandbar_proto::{
    GapReason, RecordedOutput, RolloutEvent, RolloutItem, RolloutLine, RunId, RunStarted, Seq, Timestamp,
};
use serde::Deserialize;

use crate::output::{Progress, cost};
use crate::rollout::{LastLine, Position};

// Our longest line is a command of execve's 2 MiB, every byte of it as a \u escape: 12 MiB. A longer line is
// foreign, and a file of one endless line must not fill the memory.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// What a rollout says.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) position: Position,
    pub(crate) turn: Option<RunId>,
    pub(crate) run: Option<RunStarted>,
    pub(crate) progress: Progress,
    pub(crate) recorded: RecordedOutput,
    /// When the run ended, if that is recorded.
    pub(crate) ended: Option<Timestamp>,
    pub(crate) turn_is_complete: bool,
}

/// The one field that every line has, whoever wrote it.
#[derive(Deserialize)]
struct Numbered {
    ordinal: u64,
}

/// Reads to the end.
///
/// # Errors
/// What reading gives.
pub(crate) fn scan(file: &mut impl BufRead) -> io::Result<Found> {
    let mut found = Found::nothing(Position::START);
    let mut line = Vec::new();
    loop {
        let (bytes, last_line) = read_line(file, &mut line)?;
        if bytes == 0 {
            return Ok(found);
        }
        found.position.len_bytes += bytes;
        found.position.last_line = last_line;
        found.take(&line);
    }
}

/// Reads one line into `line`, at most its first [`MAX_LINE_BYTES`]; returns its length with the newline, 0 at
/// the end.
fn read_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<(u64, LastLine)> {
    line.clear();
    let mut bytes = 0;
    loop {
        let available = match file.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok((bytes, LastLine::Torn));
        }
        let newline = available.iter().position(|&byte| byte == b'\n');
        let taken = newline.map_or(available.len(), |at| at + 1);
        let room = MAX_LINE_BYTES - line.len();
        line.extend_from_slice(&available[..taken.min(room)]);
        file.consume(taken);
        bytes += taken as u64;
        if newline.is_some() {
            return Ok((bytes, LastLine::Whole));
        }
    }
}

impl Found {
    fn nothing(position: Position) -> Self {
        Self {
            position,
            turn: None,
            run: None,
            progress: Progress::default(),
            recorded: RecordedOutput::default(),
            ended: None,
            turn_is_complete: false,
        }
    }

    fn is_about(&self, run: RunId) -> bool {
        self.run.as_ref().is_some_and(|known| known.run_id == run)
    }

    fn take(&mut self, line: &[u8]) {
        if let Ok(RolloutLine { ordinal, item, .. }) = serde_json::from_slice(line) {
            self.number(ordinal);
            self.take_item(item);
        } else if let Ok(Numbered { ordinal }) = serde_json::from_slice(line) {
            self.number(ordinal);
        }
    }

    fn number(&mut self, ordinal: u64) {
        // A last ordinal of u64::MAX is nobody's honest number.
        if let Some(next) = ordinal.checked_add(1) {
            self.position.next_ordinal = next;
        }
    }

    fn take_item(&mut self, item: RolloutItem) {
        match item {
            RolloutItem::SessionMeta(_) | RolloutItem::TurnContext(_) => {}
            RolloutItem::EventMsg(event) => self.take_event(event),
        }
    }

    fn take_event(&mut self, event: RolloutEvent) {
        match event {
            // Only the last turn can be gone on with.
            RolloutEvent::TaskStarted(started) => {
                *self = Self { turn: Some(started.turn_id), ..Self::nothing(self.position) };
            }
            RolloutEvent::RunStarted(started) => self.run = Some(started),
            RolloutEvent::RunOutput(output) if self.is_about(output.run_id) => {
                let length = output.data.as_bytes().len();
                self.recorded.bytes = self.recorded.bytes.saturating_add(length as u64);
                self.settle(output.to_seq, output.offset_bytes, length as u64, cost(length));
            }
            RolloutEvent::RunOutputGap(gap) if self.is_about(gap.run_id) => {
                // The gap before the tail: the head was over.
                let cost = if gap.reason == GapReason::Bounded { u64::MAX } else { cost(0) };
                self.recorded.missing_bytes = self.recorded.missing_bytes.saturating_add(gap.bytes);
                self.settle(gap.to_seq, gap.offset_bytes, gap.bytes, cost);
            }
            RolloutEvent::RunNotStarted(_) => self.ended = self.run.as_ref().map(|run| run.started),
            RolloutEvent::RunEnded(end) => {
                let started = self.run.as_ref().map(|run| run.started.0);
                let nanos = u64::try_from(end.duration.as_nanos()).unwrap_or(u64::MAX);
                self.ended = started.map(|started| Timestamp(started.saturating_add(nanos)));
            }
            RolloutEvent::RunTakenOver(_) => {}
            RolloutEvent::TaskComplete(_) => self.turn_is_complete = true,
            RolloutEvent::RunOutput(_) | RolloutEvent::RunOutputGap(_) => {}
        }
    }

    fn settle(&mut self, to_seq: Seq, offset_bytes: u64, bytes: u64, cost: u64) {
        let progress = &mut self.progress;
        progress.last_seq = progress.last_seq.max(to_seq);
        progress.offset_bytes = progress.offset_bytes.max(offset_bytes.saturating_add(bytes));
        progress.head_cost = progress.head_cost.saturating_add(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    const EXAMPLE: &[u8] = include_bytes!("../fixtures/run.jsonl");

    #[test]
    fn fuzz_any_file_is_read_to_its_end_and_what_follows_it_is_understood() {
        let lines: Vec<&[u8]> = EXAMPLE.split_inclusive(|&byte| byte == b'\n').collect();
        let torn = &EXAMPLE[..EXAMPLE.len() - 20];
        let mut words = lines.clone();
        words.extend([
            &b"\n"[..],
            b"{",
            b"}",
            b"\"",
            b",",
            b"\"ordinal\":18446744073709551615",
            b"null",
            b"\"offset_bytes\":",
            b"\xff",
            b"{\"bytes\":\"/w==\"}",
            b"{\"ordinal\":7}\n",
        ]);
        let samples =
            Samples { whole: &[EXAMPLE, torn, lines[0], &EXAMPLE[lines[0].len()..]], words: &words };
        // As the last turn of any file, it is what the file is about.
        let last_turn =
            EXAMPLE.split_inclusive(|&byte| byte == b'\n').skip_while(|line| !has(line, b"task_started"));
        let last_turn = last_turn.collect::<Vec<_>>().concat();
        let expected = scan(&mut &last_turn[..]).unwrap();
        fuzz("rollout", samples, |input| {
            let found = scan(&mut &*input).unwrap();
            assert_eq!(found.position.len_bytes, input.len() as u64);
            let is_whole = input.is_empty() || input.ends_with(b"\n");
            assert_eq!(found.position.last_line == LastLine::Whole, is_whole);
            // Read in pieces of one byte it is the same.
            if input.len() < 4096 {
                let slow = scan(&mut io::BufReader::with_capacity(1, input)).unwrap();
                assert_eq!(format!("{slow:?}"), format!("{found:?}"));
            }
            let followed = scan(&mut &*[input, b"\n", &last_turn].concat()).unwrap();
            assert_eq!(followed.run, expected.run);
            assert_eq!(followed.progress.offset_bytes, expected.progress.offset_bytes);
            assert_eq!(followed.recorded, expected.recorded);
            assert!(followed.turn_is_complete);
            Took::if_understood(found.position.next_ordinal > 0)
        });
    }

    fn has(line: &[u8], word: &[u8]) -> bool {
        line.windows(word.len()).any(|part| part == word)
    }
}
