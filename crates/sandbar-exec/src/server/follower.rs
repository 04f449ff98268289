//! Follows one process for as long as there is something to hear, and passes it on to the connection that its session
//! has at that moment.
//!
//! Without a connection it reads on and lets go what it reads: the keeper's log has it, and a client that comes back
//! reads it from there. A connection that takes nothing holds the follower, and with it the process, whose log is
//! never more than a bound ahead of its reader.

use std::sync::{Arc, Weak};

use sandbar_proto::ProcessEvent;
use sandbar_proto::exec::{Base64, OutputGap, ProcessClosed, ProcessExited, ProcessOutput, method};
use sandbar_rpc::Closed;

use super::process::{Exit, Live};
use super::session::{Attachment, Session};
use crate::Process;

/// Follows `process` until its close.
pub(super) async fn follow(session: Weak<Session>, live: Arc<Live>, mut process: Box<dyn Process>) {
    loop {
        let event = match process.next_event().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                live.progress.send_modify(|progress| progress.failure = Some(error.to_string()));
                return;
            }
        };
        note(&live, &event);
        let Some(session) = session.upgrade() else { continue };
        let attachment = session.attachment();
        let is_over = live.progress.borrow().is_over();
        if let Some(attachment) = attachment {
            // A connection that has ended is no reason to stop: the next one may be attached already.
            let _ = tell(&attachment, &live, event).await;
        }
        if is_over {
            session.note_end(live.id());
        }
    }
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
        ProcessEvent::Output { seq, stream, bytes, .. } => {
            let output = ProcessOutput { process_id, seq: seq.0, stream, chunk: Base64(bytes) };
            sender.data_notification(method::PROCESS_OUTPUT, &output).await
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
            };
            sender.data_notification(method::PROCESS_EXITED, &exited).await
        }
        ProcessEvent::Closed { seq } => {
            let closed = ProcessClosed { process_id, seq: seq.0 };
            sender.data_notification(method::PROCESS_CLOSED, &closed).await
        }
    }
}
