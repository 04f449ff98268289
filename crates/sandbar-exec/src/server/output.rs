//! Reading a process's events from wherever a client stopped: `process/read`.

use std::time::Duration;

use sandbar_proto::exec::{Base64, Chunk, OutputGap, ReadParams};
use sandbar_proto::rpc::RpcError;
use sandbar_proto::{ProcessEvent, RunId, Seq};
use tokio::time::Instant;

use super::process::Exit;
use super::refusal;
use crate::local::LocalProcesses;
use crate::{Process, Processes as _, Watching};

/// Most bytes of one answer, whatever is asked for: what fits into a frame that clients read.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Most chunks of one answer: small ones make much more work at both ends than their bytes, and text besides.
const MAX_CHUNKS: usize = 4096;

/// Longest wait of one request.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// What one read found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) chunks: Vec<Chunk>,
    pub(super) gap: Option<OutputGap>,
    /// One more than the last number that was found, or than what was known before.
    pub(super) next_seq: u64,
    /// How it ended, if that was found by now.
    pub(super) exit: Option<Exit>,
    /// The last number of all, if that was found by now.
    pub(super) closed: Option<Seq>,
}

/// A reader that stays where it is between two requests, which usually go on where the last one stopped.
#[derive(Default)]
pub(super) struct Cursor {
    at: Option<Position>,
    /// What was found of its end, in whichever position: the follower may not have come that far yet.
    end: (Option<Exit>, Option<Seq>),
}

struct Position {
    process: Box<dyn Process>,
    /// The last number that was given out.
    seq: u64,
    /// What was read and not given out.
    peeked: Option<ProcessEvent>,
    is_at_end: bool,
}

impl Cursor {
    /// Whether it has given out what has that number.
    pub(super) fn knows(&self, seq: u64) -> bool {
        self.at.as_ref().is_some_and(|position| position.seq >= seq)
    }

    /// Reads what comes after the client's last number, waiting for it if there is nothing.
    ///
    /// # Errors
    /// The log can't be read, or the keeper is gone.
    pub(super) async fn read(
        &mut self,
        processes: &LocalProcesses,
        run: RunId,
        params: &ReadParams,
        records: bool,
    ) -> Result<Found, RpcError> {
        let after = params.after_seq.unwrap_or(0);
        if self.at.as_ref().is_none_or(|position| position.seq != after) {
            let followed = processes.follow_from(run, Watching::Output, Seq(after)).await;
            let process = followed.map_err(|error| refusal::process(&error))?;
            self.at = Some(Position { process, seq: after, peeked: None, is_at_end: false });
        }
        let Some(position) = &mut self.at else { return Ok(Found::default()) };
        let wait = Duration::from_millis(params.wait_ms.unwrap_or(0)).min(MAX_WAIT);
        let most = params.max_bytes.unwrap_or(MAX_BYTES).min(MAX_BYTES);
        match position.collect(Instant::now() + wait, most, records).await {
            Ok(mut found) => {
                let (exit, closed) = &mut self.end;
                *exit = found.exit.take().or_else(|| exit.take());
                *closed = found.closed.or(*closed);
                (found.exit, found.closed) = (exit.clone(), *closed);
                Ok(found)
            }
            Err(error) => {
                self.at = None;
                Err(refusal::process(&error))
            }
        }
    }
}

impl Position {
    async fn collect(
        &mut self,
        deadline: Instant,
        most: u64,
        records: bool,
    ) -> Result<Found, crate::ProcessError> {
        let mut found = Found { next_seq: self.seq + 1, ..Found::default() };
        let mut bytes = 0;
        let mut until = deadline;
        loop {
            if self.peeked.is_none() && !self.is_at_end {
                self.peeked = match tokio::time::timeout_at(until, self.process.next_event()).await {
                    Ok(Ok(Some(event))) => Some(event),
                    Ok(Ok(None)) => {
                        self.is_at_end = true;
                        None
                    }
                    Ok(Err(error)) => return Err(error),
                    Err(_elapsed) => None,
                };
            }
            let Some(event) = self.peeked.take() else { return Ok(found) };
            match event {
                ProcessEvent::Output { seq, stream, offset_bytes, time, bytes: chunk } => {
                    let size = chunk.len() as u64;
                    // One chunk is given whatever its size, or a client with little room would never go on.
                    let is_full = bytes + size > most || found.chunks.len() == MAX_CHUNKS;
                    if !found.chunks.is_empty() && is_full {
                        self.peeked =
                            Some(ProcessEvent::Output { seq, stream, offset_bytes, time, bytes: chunk });
                        return Ok(found);
                    }
                    bytes += size;
                    self.pass(seq, &mut found);
                    let (offset, time) = (records.then_some(offset_bytes), records.then_some(time));
                    found.chunks.push(Chunk { seq: seq.0, stream, chunk: Base64(chunk), offset, time });
                }
                ProcessEvent::Gap(gap) => {
                    // A gap is told before the first chunk of an answer, so that there is no doubt where it is.
                    if !found.chunks.is_empty() || found.gap.is_some() {
                        self.peeked = Some(ProcessEvent::Gap(gap));
                        return Ok(found);
                    }
                    self.pass(gap.to_seq, &mut found);
                    found.gap = Some(OutputGap {
                        process_id: None,
                        from_seq: gap.from_seq.0,
                        to_seq: gap.to_seq.0,
                        bytes: gap.bytes,
                    });
                }
                ProcessEvent::Exited(end) => {
                    if let Some(seq) = end.seq() {
                        self.pass(seq, &mut found);
                    }
                    found.exit = Some(Exit::of(&end));
                }
                ProcessEvent::Closed { seq } => {
                    self.pass(seq, &mut found);
                    found.closed = Some(seq);
                }
                ProcessEvent::Stopped { .. } => continue,
            }
            // Something was found; what is there besides is taken, and nothing more is waited for.
            until = Instant::now();
        }
    }

    fn pass(&mut self, seq: Seq, found: &mut Found) {
        self.seq = self.seq.max(seq.0);
        found.next_seq = self.seq + 1;
    }
}
