//! Follows one process for as long as there is something to hear, and passes it on to the connection that its session
//! has at that moment.
//!
//! Without a connection it reads on and lets go what it reads: the keeper's log has it, and a client that comes back
//! reads it from there. A connection that takes nothing, or grants no room, holds the follower, and with it the process,
//! whose log is never more than a bound ahead of its reader.
//!
//! A connection that resumed a session has missed something of each process, and reads that first. News wait until it
//! has, and go on exactly where its first answer stopped, wherever it reads later and however far we are by then: a client
//! that puts events in order by their numbers, as Codex's does with room for 256, would otherwise fail at a process that
//! writes much. That client takes news in while it still goes
//! through the answer, so that behind the answer come at first only as many as it has room for.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sandbar_proto::exec::{
    Base64, OutputFrame, OutputGap, ProcessClosed, ProcessExited, ProcessOutput, ProcessStopped, method,
};
use sandbar_proto::{EndRecord, Gap, OutputTotals, ProcessEvent, Seq};
use sandbar_rpc::{Closed, Frame};
use tokio::time::Instant;

use super::process::{Exit, Granted, Live};
use super::session::{Attachment, Session};
use crate::{BoxFuture, Process};

/// How long after a resume news wait for a client to read what it missed. Long enough for several requests over a slow
/// link, and not for ever: a client need not read.
const CATCH_UP: Duration = Duration::from_secs(5);

/// How long after the answer to its first read a client may still be going through that.
const SETTLING: Duration = Duration::from_secs(2);

/// Events that a client is sent meanwhile, and bytes of them: half of what Codex's client has room for.
const SETTLING_EVENTS: usize = 128;
const SETTLING_BYTES: usize = 512 * 1024;

/// A connection that knows all that came before the next event.
#[derive(Debug)]
struct Flow {
    connection: u64,
    settling: Option<Settling>,
}

/// What is sent to a client that is going through what it missed.
#[derive(Debug)]
struct Settling {
    until: Instant,
    events: usize,
    bytes: usize,
}

impl Settling {
    fn new(until: Instant) -> Self {
        Self { until, events: 0, bytes: 0 }
    }

    /// Whether there is room for one more event with so many bytes, which it takes then.
    fn takes(&mut self, bytes: usize) -> bool {
        let takes = self.events < SETTLING_EVENTS && bytes <= SETTLING_BYTES - self.bytes;
        if takes {
            self.events += 1;
            self.bytes += bytes;
        }
        takes
    }
}

/// Follows `process` until its close.
pub(super) async fn follow(session: Weak<Session>, live: Arc<Live>, mut process: Box<dyn Process>) {
    tokio::spawn(note_end(Arc::downgrade(&live), process.ended()));
    let mut sent = Granted::default();
    let mut flow: Option<Flow> = None;
    loop {
        let event = match process.next_event().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                live.progress.send_modify(|progress| progress.failure = Some(error.to_string()));
                tell_loss(&session, &live).await;
                return;
            }
        };
        note(&live, &event);
        let Some(session) = session.upgrade() else { continue };
        let attachment = session.attachment();
        let is_over = live.progress.borrow().is_over();
        if let Some(attachment) = attachment {
            // A connection that has ended is no reason to stop: the next one may be attached already.
            let flows = flow.as_ref().is_some_and(|flow| flow.connection == attachment.connection);
            if !flows {
                flow = join(&session, &attachment, &live, &event).await;
            }
            if let Some(flow) = &mut flow
                && settled(&session, flow, &event).await
                && has_room(&session, &attachment, &live, &event, &mut sent).await
            {
                let _ = tell(&attachment, &live, event).await;
            }
        }
        if is_over {
            session.note_end(live.id());
        }
    }
}

/// Ends a process whose keeper is gone, for clients that wait for its end: nobody saw how it went, which is told as -1.
async fn tell_loss(session: &Weak<Session>, live: &Live) {
    let Some(session) = session.upgrade() else { return };
    let (mut end, mut closed) = (None, None);
    live.progress.send_modify(|progress| {
        let next = progress.last_seq.next();
        end = match &progress.exit {
            None => Some(live.lost(OutputTotals {
                bytes: progress.output_bytes,
                dropped_bytes: 0,
                last_seq: next,
            })),
            // It was known before its place came.
            Some(exit) if exit.seq > progress.last_seq => Some((*exit.end).clone()),
            Some(_told) => None,
        };
        let exit = end.as_ref().map(Exit::of);
        let last = exit.as_ref().map_or(next, |exit| exit.seq.next());
        progress.exit = exit.or_else(|| progress.exit.take());
        (progress.last_seq, progress.closed, closed) = (last, Some(last), Some(last));
    });
    if let Some(attachment) = session.attachment() {
        let end = end.map(ProcessEvent::Exited);
        let closed = closed.map(|seq| ProcessEvent::Closed { seq });
        for event in end.into_iter().chain(closed) {
            // One that comes later reads it.
            let _ = tell(&attachment, live, event).await;
        }
    }
    session.note_end(live.id());
}

/// Notes the end of a process as soon as it is known, for those who wait for it: its output may be held up for long.
async fn note_end(live: Weak<Live>, ended: BoxFuture<'static, Option<EndRecord>>) {
    let end = ended.await;
    if let (Some(live), Some(end)) = (live.upgrade(), end) {
        live.progress.send_modify(|progress| progress.exit = Some(Exit::of(&end)));
    }
}

/// The first and the last number of an event, if it has any.
fn numbers(event: &ProcessEvent) -> Option<(u64, u64)> {
    let (Seq(first), Seq(last)) = match event {
        ProcessEvent::Output { seq, .. } | ProcessEvent::Closed { seq } => (*seq, *seq),
        ProcessEvent::Gap(gap) => (gap.from_seq, gap.to_seq),
        ProcessEvent::Exited(end) => end.seq().map(|seq| (seq, seq)).unwrap_or_default(),
        ProcessEvent::Stopped { .. } => return None,
    };
    Some((first, last))
}

/// Waits until a connection that resumed the session has read what it missed, and tells it what is between that and an
/// event. `None` if it has read the event as well, or no longer speaks for the session.
async fn join(session: &Session, attachment: &Attachment, live: &Live, event: &ProcessEvent) -> Option<Flow> {
    let connection = attachment.connection;
    let mut flow = Flow { connection, settling: None };
    let (Some((first, last)), Some(resumed)) = (numbers(event), attachment.resumed) else {
        return Some(flow);
    };
    // Who grants room says so itself; who started it on this connection has missed nothing.
    if attachment.extensions.credit || live.since >= resumed {
        return Some(flow);
    }
    let mut known = live.known.subscribe();
    let read = known
        .wait_for(|known| known.connection == connection && (known.first.is_some() || known.asked > last));
    let known = tokio::select! {
        biased;
        known = read => *known.ok()?,
        () = session.lost(connection) => return None,
        () = tokio::time::sleep_until(resumed + CATCH_UP) => return Some(flow),
    };
    if known.next() > last {
        return None;
    }
    flow.settling = known.first.map(|answered| Settling::new(answered.at + SETTLING));
    if known.next() < first {
        tokio::select! {
            biased;
            () = session.lost(connection) => return None,
            () = bridge(session, attachment, live, &mut flow, (known.next(), first)) => {}
        }
    }
    Some(flow)
}

/// Tells what was let go while nobody was connected, and did not fit into the first answer: from a number on, up to another
/// one. What can't be read any more is missing, as it is to whoever reads.
async fn bridge(
    session: &Session,
    attachment: &Attachment,
    live: &Live,
    flow: &mut Flow,
    (from, to): (u64, u64),
) {
    let Ok(mut process) = live.again(Seq(from.saturating_sub(1))).await else { return };
    while let Ok(Some(event)) = process.next_event().await {
        let Some((first, last)) = numbers(&event) else { continue };
        if first >= to || !settled(session, flow, &event).await {
            return;
        }
        let event = if let ProcessEvent::Gap(gap) = event {
            ProcessEvent::Gap(Gap { to_seq: gap.to_seq.min(Seq(to - 1)), ..gap })
        } else {
            event
        };
        if tell(attachment, live, event).await.is_err() || last + 1 >= to {
            return;
        }
    }
}

/// Waits until a client that is going through what it missed has room for an event; `false` if it no longer speaks for the
/// session.
async fn settled(session: &Session, flow: &mut Flow, event: &ProcessEvent) -> bool {
    let Some(settling) = &mut flow.settling else { return true };
    let bytes = match event {
        ProcessEvent::Output { bytes, .. } => bytes.len(),
        ProcessEvent::Gap(_)
        | ProcessEvent::Exited(_)
        | ProcessEvent::Closed { .. }
        | ProcessEvent::Stopped { .. } => 0,
    };
    if Instant::now() < settling.until && settling.takes(bytes) {
        return true;
    }
    let is_settled = tokio::select! {
        biased;
        () = session.lost(flow.connection) => false,
        () = tokio::time::sleep_until(settling.until) => true,
    };
    if is_settled {
        flow.settling = None;
    }
    is_settled
}

/// Waits for room for an event; `false` if the connection no longer speaks for the session, or knows the event because it
/// asked for what comes behind. What is told besides output needs no room, and a portion that is larger than the room fits
/// into the last of it.
async fn has_room(
    session: &Session,
    attachment: &Attachment,
    live: &Live,
    event: &ProcessEvent,
    sent: &mut Granted,
) -> bool {
    let ProcessEvent::Output { seq, bytes, .. } = event else { return true };
    if !attachment.extensions.credit {
        return true;
    }
    let connection = attachment.connection;
    if sent.connection != connection {
        *sent = Granted { connection, bytes: 0 };
    }
    let (mut granted, mut known) = (live.granted.subscribe(), live.known.subscribe());
    let is_known = known.wait_for(|known| known.connection == connection && known.asked > seq.0);
    let room = granted.wait_for(|granted| granted.connection == connection && granted.bytes > sent.bytes);
    let has_room = tokio::select! {
        biased;
        _ = is_known => false,
        granted = room => granted.is_ok(),
        () = session.lost(connection) => false,
    };
    if has_room {
        sent.bytes += bytes.len() as u64;
    }
    has_room
}

/// What is known of it before anybody is told.
fn note(live: &Live, event: &ProcessEvent) {
    live.progress.send_modify(|progress| match event {
        ProcessEvent::Output { seq, offset_bytes, bytes, .. } => {
            progress.last_seq = *seq;
            progress.output_bytes = offset_bytes + bytes.len() as u64;
        }
        ProcessEvent::Gap(gap) => {
            progress.last_seq = progress.last_seq.max(gap.to_seq);
            progress.output_bytes += gap.bytes;
        }
        ProcessEvent::Exited(end) => {
            let exit = Exit::of(end);
            progress.last_seq = progress.last_seq.max(exit.seq);
            progress.exit = Some(exit);
        }
        ProcessEvent::Closed { seq } => {
            progress.last_seq = *seq;
            progress.closed = Some(*seq);
        }
        ProcessEvent::Stopped { .. } => {}
    });
}

async fn tell(attachment: &Attachment, live: &Live, event: ProcessEvent) -> Result<(), Closed> {
    let process_id = live.id().to_owned();
    let sender = &attachment.sender;
    match event {
        ProcessEvent::Output { seq, stream, offset_bytes, time, bytes } => {
            if attachment.extensions.binary_output {
                let frame = OutputFrame {
                    process_id: &process_id,
                    stream,
                    seq: seq.0,
                    offset_bytes,
                    time,
                    bytes: &bytes,
                };
                if let Some(frame) = frame.encode() {
                    return sender.data(Frame::Binary(frame)).await;
                }
            }
            let records = attachment.extensions.records;
            let output = ProcessOutput {
                process_id,
                seq: seq.0,
                stream,
                chunk: Base64(bytes),
                offset: records.then_some(offset_bytes),
                time: records.then_some(time),
            };
            sender.data_notification(method::PROCESS_OUTPUT, &output).await
        }
        ProcessEvent::Stopped { signal } if attachment.extensions.records => {
            let stopped = ProcessStopped { process_id, signal };
            sender.data_notification(method::PROCESS_STOPPED, &stopped).await
        }
        ProcessEvent::Gap(gap) if attachment.extensions.gaps => {
            let gap = OutputGap {
                process_id: Some(process_id),
                from_seq: gap.from_seq.0,
                to_seq: gap.to_seq.0,
                bytes: gap.bytes,
            };
            sender.data_notification(method::PROCESS_GAP, &gap).await
        }
        // The dialect has no word for it; its clients see it by the numbers.
        ProcessEvent::Gap(_) | ProcessEvent::Stopped { .. } => Ok(()),
        // On the data lane, since the numbers must come in order.
        ProcessEvent::Exited(end) => {
            let exit = Exit::of(&end);
            let exited = ProcessExited {
                process_id,
                seq: exit.seq.0,
                exit_code: exit.code,
                sandbox_denied: None,
                signal: exit.signal,
                end: attachment.extensions.records.then_some(exit.end),
            };
            sender.data_notification(method::PROCESS_EXITED, &exited).await
        }
        ProcessEvent::Closed { seq } => {
            let closed = ProcessClosed { process_id, seq: seq.0 };
            sender.data_notification(method::PROCESS_CLOSED, &closed).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_goes_through_what_it_missed_is_sent_no_more_than_it_has_room_for() {
        let mut settling = Settling::new(Instant::now());
        assert_eq!((0..1000).filter(|_| settling.takes(10)).count(), SETTLING_EVENTS);
        let mut settling = Settling::new(Instant::now());
        let chunk = 64 * 1024;
        assert_eq!((0..1000).filter(|_| settling.takes(chunk)).count(), SETTLING_BYTES / chunk);
        assert!(settling.takes(0), "an end has no bytes");
    }
}
