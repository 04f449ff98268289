//! Reading a process's events from wherever a client stopped: `process/read`.

use std::time::Duration;

use sandbar_proto::exec::{Base64, Chunk, OutputGap, ReadParams};
use sandbar_proto::rpc::RpcError;
use sandbar_proto::{ProcessEvent, RunId, Seq};
use tokio::time::Instant;

use super::refusal;
use crate::local::LocalProcesses;
use crate::{Process, Processes as _, Watching};

/// Most bytes of one answer, whatever is asked for: what fits into a frame that clients read.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Longest wait of one request.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// What one read found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) chunks: Vec<Chunk>,
    pub(super) gap: Option<OutputGap>,
    /// One more than the last number that was found, or than what was known before.
    pub(super) next_seq: u64,
}

/// A reader that stays where it is between two requests, which usually go on where the last one stopped.
#[derive(Default)]
pub(super) struct Cursor {
    at: Option<Position>,
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
    /// Reads what comes after the client's last number, waiting for it if there is nothing.
    ///
    /// # Errors
    /// The log can't be read, or the keeper is gone.
    pub(super) async fn read(
        &mut self,
        processes: &LocalProcesses,
        run: RunId,
        params: &ReadParams,
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
        let found = position.collect(Instant::now() + wait, most).await;
        if found.is_err() {
            self.at = None;
        }
        found.map_err(|error| refusal::process(&error))
    }
}

impl Position {
    async fn collect(&mut self, deadline: Instant, most: u64) -> Result<Found, crate::ProcessError> {
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
                ProcessEvent::Output { seq, stream, bytes: chunk, .. } => {
                    let size = chunk.len() as u64;
                    // One chunk is given whatever its size, or a client with little room would never go on.
                    if !found.chunks.is_empty() && bytes + size > most {
                        self.peeked = Some(ProcessEvent::Output {
                            seq,
                            stream,
                            offset_bytes: 0,
                            time: sandbar_proto::Timestamp::default(),
                            bytes: chunk,
                        });
                        return Ok(found);
                    }
                    bytes += size;
                    self.pass(seq, &mut found);
                    found.chunks.push(Chunk { seq: seq.0, stream, chunk: Base64(chunk) });
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
                }
                ProcessEvent::Closed { seq } => self.pass(seq, &mut found),
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
