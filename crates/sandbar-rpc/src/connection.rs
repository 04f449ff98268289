//! One connection at work: a reader, a writer and a watch over the peer's life, in one task.
//!
//! They share a task so that whatever one turn of the reader leads to is written at once; none of them waits for
//! another. Dropping the future ends the connection.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use sandbar_proto::rpc::{Message, RequestId, RpcError, UNREADABLE_ID, code};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::close::{CloseReason, Closed, Violation};
use crate::envelope;
use crate::limits::Limits;
use crate::outbox::Outbox;
use crate::packing::{Packing, Unpacked};
use crate::pending::{Answer, Pending};
use crate::responder::{Place, Responder};
use crate::sender::{Sender, Shared};
use crate::service::{Call, Service};
use crate::transport::{About, Activity, FRONT, Frame, Inbound, Reader, Side, Transport, Writer, lost};

/// Messages that are read in one turn, at most: then what they led to is written.
const TURN: usize = 64;

/// A connection that is not run yet. Dropped without being run, it ends.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    alive: Alive,
    limits: Limits,
}

/// Ends the connection when it is dropped, unless it has ended.
#[derive(Debug)]
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.close(CloseReason::Abandoned);
    }
}

/// Tells the service of the end, also when the future that runs the connection is dropped.
struct Served<S: Service> {
    alive: Alive,
    service: Arc<S>,
}

impl<S: Service> Drop for Served<S> {
    fn drop(&mut self) {
        let shared = &self.alive.0;
        shared.close(CloseReason::Abandoned);
        self.service.closed(&shared.outbox.reason());
    }
}

impl Connection {
    /// A connection over `transport`, and its writing side. What is sent before [`Self::run`] is queued.
    #[must_use]
    pub fn new(transport: Transport, limits: Limits) -> (Sender, Self) {
        let shared = Arc::new(Shared {
            outbox: Outbox::new(&limits),
            pending: Pending::new(limits.max_outstanding),
            max_request_frame: limits.max_request_frame,
            has_binary: transport.about.has_binary,
            packing: Packing::default(),
        });
        (Sender::new(Arc::clone(&shared)), Self { transport, alive: Alive(shared), limits })
    }

    /// Runs it until it ends, and returns why it did. Dropping the future ends it.
    pub async fn run<S: Service>(self, service: Arc<S>) -> CloseReason {
        let Self { transport, alive, limits } = self;
        let Transport { reader, writer, about } = transport;
        let served = Served { alive, service };
        let shared = &served.alive.0;
        let activity = Activity::default();
        let hearing = Hearing {
            service: &served.service,
            shared,
            about: &about,
            limits: &limits,
            in_flight: Arc::default(),
            long_polls: Arc::default(),
        };
        let mut reading = pin!(read(reader, hearing, &activity));
        let mut writing = pin!(write(writer, &shared.outbox, &activity));
        let watching = pin!(watch(&shared.outbox, &about, &limits, &activity));
        let (mut is_read, mut is_written) = (false, false);
        let reason = tokio::select! {
            biased;
            reason = &mut reading => {
                is_read = true;
                reason
            }
            result = &mut writing => {
                is_written = true;
                result.map_or_else(|error| lost(&error), |()| shared.outbox.reason())
            }
            reason = watching => reason,
            reason = shared.outbox.wait_closed() => reason,
        };
        shared.close(reason);
        let reason = shared.outbox.reason();
        if reason.has_last_words() {
            let parting = async {
                if !is_written && writing.await.is_ok() && about.lingers && !is_read {
                    // What nobody reads would destroy our last words on their way.
                    reading.await;
                }
            };
            // What isn't taken within this time isn't written at all.
            let _ = timeout(limits.flush, parting).await;
        }
        reason
    }
}

/// Runs a connection over a transport until it ends, and returns why it did.
///
/// `opened` gets the writing side before the first message is read. Who needs it to make the service uses
/// [`Connection`].
pub async fn serve<S: Service>(
    transport: Transport,
    service: Arc<S>,
    opened: impl FnOnce(Sender),
    limits: Limits,
) -> CloseReason {
    let (sender, connection) = Connection::new(transport, limits);
    opened(sender);
    connection.run(service).await
}

/// Writes batch after batch until the connection is closed and nothing is queued.
async fn write(mut writer: Writer, outbox: &Outbox, activity: &Activity) -> io::Result<()> {
    while let Some(batch) = outbox.next_batch().await {
        writer.write(batch.frames, activity).await?;
        outbox.written(batch.data);
    }
    writer.finish(&outbox.reason()).await
}

/// Asks for signs of life. Ends when there are none.
async fn watch(outbox: &Outbox, about: &About, limits: &Limits, activity: &Activity) -> CloseReason {
    if !about.has_pings {
        return std::future::pending().await;
    }
    // After a suspension of this machine one interval counts, not all that passed.
    let mut ticks = interval_at(Instant::now() + limits.ping_interval, limits.ping_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = activity.count();
    let mut pings = 0;
    loop {
        ticks.tick().await;
        let now = activity.count();
        if now != heard {
            (heard, pings) = (now, 0);
        } else if pings >= limits.missed_pings {
            return CloseReason::Silent { silence: limits.ping_interval * pings };
        }
        pings += 1;
        outbox.ping();
    }
}

/// Reads until the link or the protocol ends. Once the connection is closed, what comes is thrown away.
async fn read<S: Service>(mut reader: Reader, hearing: Hearing<'_, S>, activity: &Activity) -> CloseReason {
    loop {
        for _ in 0..TURN {
            let inbound = match reader.next(hearing.limits.max_inbound_frame, activity).await {
                Ok(inbound) => inbound,
                Err(reason) => return reason,
            };
            if hearing.shared.outbox.is_closed() {
                continue;
            }
            if let Err(reason) = hearing.hear(&inbound) {
                return reason;
            }
            reader.recycle(inbound);
        }
        tokio::task::yield_now().await;
    }
}

/// What the reader needs to take a message.
struct Hearing<'a, S> {
    service: &'a Arc<S>,
    shared: &'a Arc<Shared>,
    about: &'a About,
    limits: &'a Limits,
    in_flight: Arc<AtomicUsize>,
    long_polls: Arc<AtomicUsize>,
}

impl<S: Service> Hearing<'_, S> {
    fn hear(&self, inbound: &Inbound) -> Result<(), CloseReason> {
        match inbound {
            Inbound::Text(text) => self.message(text),
            Inbound::Binary(bytes) => self.binary(bytes),
            Inbound::Ping(payload) => {
                self.shared.outbox.pong(payload.clone());
                Ok(())
            }
            Inbound::Pong => Ok(()),
            Inbound::TooLarge { front } => self.too_large(front),
        }
    }

    fn binary(&self, bytes: &[u8]) -> Result<(), CloseReason> {
        let most = self.limits.max_inbound_frame;
        let unpacked = match self.shared.packing.unpack(bytes, most, FRONT) {
            Unpacked::Plain => None,
            Unpacked::Message(message) => Some(message),
            Unpacked::TooLarge(front) => return self.too_large(&front),
            Unpacked::Damaged(why) => return Err(Violation::Binary { why }.into()),
        };
        let bytes = unpacked.as_deref().unwrap_or(bytes);
        if is_text(bytes) { self.message(bytes) } else { Ok(self.service.binary(bytes)?) }
    }

    fn message(&self, text: &[u8]) -> Result<(), CloseReason> {
        match envelope::decode(text) {
            Ok(Message::Request { id, method, params, trace }) => {
                let is_long_poll = self.service.is_long_poll(&method, params.as_deref());
                self.request(id, Call { method, params, trace, is_long_poll })
            }
            Ok(Message::Notification { method, params }) => {
                Ok(self.service.notification(&method, params.as_deref())?)
            }
            Ok(Message::Response { id, result }) => self.answer(id, Ok(result)),
            Ok(Message::Error { id, error }) => self.answer(id, Err(error)),
            Err(error) => self.unreadable(&error),
        }
    }

    fn request(&self, id: RequestId, call: Call) -> Result<(), CloseReason> {
        let (taken, most) = if call.is_long_poll {
            (&self.long_polls, self.limits.max_long_polls)
        } else {
            (&self.in_flight, self.limits.max_in_flight)
        };
        let Some(place) = Place::take(taken, most) else {
            let error = RpcError {
                code: code::TOO_MANY_REQUESTS,
                message: format!("{most} requests are in flight on this connection, which is all it allows"),
                data: Some(json!({"kind": "too_many_requests", "limit": most})),
            };
            return self.refuse(&id, &error);
        };
        let responder = Responder::new(Arc::clone(self.shared), id, &call.method, place);
        self.service.request(call, responder);
        Ok(())
    }

    fn answer(&self, id: RequestId, answer: Answer) -> Result<(), CloseReason> {
        if self.about.side == Side::Client
            && id == UNREADABLE_ID
            && let Err(error) = answer
        {
            return Err(CloseReason::NotUnderstood { message: error.message });
        }
        if self.shared.pending.answer(&id, answer) {
            return Ok(());
        }
        Err(Violation::UnsolicitedAnswer { id }.into())
    }

    fn unreadable(&self, error: &serde_json::Error) -> Result<(), CloseReason> {
        let About { side, kind, peer, .. } = self.about;
        match side {
            Side::Client => Err(Violation::Unreadable { why: error.to_string() }.into()),
            Side::Server => {
                let message = format!("failed to parse {kind} JSON-RPC message from {peer}: {error}");
                self.refuse(
                    &UNREADABLE_ID,
                    &RpcError::with_kind(code::INVALID_REQUEST, "unreadable", message),
                )
            }
        }
    }

    fn too_large(&self, front: &[u8]) -> Result<(), CloseReason> {
        let limit = self.limits.max_inbound_frame;
        let message = format!("the message is larger than {limit} bytes, which is all that is read");
        if self.about.side == Side::Client {
            return Err(Violation::Unreadable { why: message }.into());
        }
        let id = envelope::id_in_front(front).unwrap_or(UNREADABLE_ID);
        let data = Some(json!({"kind": "frame_too_large", "limit": limit}));
        self.refuse(&id, &RpcError { code: code::FRAME_TOO_LARGE, message, data })
    }

    fn refuse(&self, id: &RequestId, error: &RpcError) -> Result<(), CloseReason> {
        let refusal = Frame::Text(envelope::refusal(id, error));
        self.shared.outbox.control(refusal).map_err(|Closed(reason)| reason)
    }
}

/// Whether a binary frame is meant as text: peers may send JSON in one, our own begin with a control character.
fn is_text(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first >= 0x20 || matches!(first, b'\t' | b'\n' | b'\r'))
}

#[cfg(test)]
mod tests;
