//! One client of the keeper.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use sandbar_proto::{Blob, RunId};
use serde::{Deserialize, Serialize};

use crate::handover::{Adopted, Fd, HandoverError, Kept};
use crate::protocol::{self, Event, Message, PeerRefusal, Reply};
use crate::transport;

/// Answers that may wait for a client that does not read them. Beyond it the keeper stops reading its requests:
/// each waits in the client's own socket then.
const MAX_QUEUED: usize = 128;

/// A connected client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    /// Why it is not served, if it is not.
    pub(super) refused: Option<PeerRefusal>,
    /// Whether it introduced itself.
    pub(super) greeted: bool,
    /// Runs that it wants to hear of.
    pub(super) watched: BTreeSet<RunId>,
    /// Runs whose growth it has not been told yet; told at once with the newest totals when there is room.
    pub(super) grown: BTreeSet<RunId>,
    /// Runs that end with it.
    pub(super) bound: BTreeSet<RunId>,
    /// What epoll watches its socket for.
    pub(super) interest: EventFlags,
    queue: VecDeque<Vec<u8>>,
}

/// What epoll watches the socket of a new connection for.
const INITIAL: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);

impl Connection {
    pub(super) fn new(socket: OwnedFd, refused: Option<PeerRefusal>) -> Self {
        Self {
            socket,
            refused,
            greeted: false,
            watched: BTreeSet::new(),
            grown: BTreeSet::new(),
            bound: BTreeSet::new(),
            interest: INITIAL,
            queue: VecDeque::new(),
        }
    }

    /// Queues an answer.
    pub(super) fn reply(&mut self, req: u64, reply: Reply) {
        // Requests without a number expect none.
        if req != 0 {
            self.push(&Message::Reply { req, reply });
        }
    }

    /// Queues news.
    pub(super) fn tell(&mut self, event: Event) {
        self.push(&Message::Event(event));
    }

    fn push(&mut self, message: &Message) {
        // Every message of ours is far below the limit: the largest is a page of a listing, whose commands are
        // cut when it is made.
        if let Ok(packet) = protocol::encode(message, &[]) {
            self.queue.push_back(packet);
        }
    }

    /// Sends what fits; `true` if everything is sent.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn flush(&mut self) -> Result<bool, Errno> {
        while let Some(packet) = self.queue.front() {
            if !transport::send(&self.socket, packet, &[])? {
                return Ok(false);
            }
            self.queue.pop_front();
        }
        Ok(true)
    }

    /// Whether requests are read now.
    pub(super) fn takes_requests(&self) -> bool {
        self.queue.len() < MAX_QUEUED
    }
}

/// A [`Connection`] on its way to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedConnection {
    socket: Fd,
    refused: Option<PeerRefusal>,
    greeted: bool,
    watched: BTreeSet<RunId>,
    grown: BTreeSet<RunId>,
    bound: BTreeSet<RunId>,
    queue: VecDeque<Blob>,
}

impl Connection {
    /// Hands the connection over, with what it was not sent yet.
    pub(super) fn save(&self, kept: &mut Kept) -> SavedConnection {
        // What epoll watches is made anew with it.
        let Self { socket, refused, greeted, watched, grown, bound, interest: _, queue } = self;
        SavedConnection {
            socket: kept.keep(socket),
            refused: *refused,
            greeted: *greeted,
            watched: watched.clone(),
            grown: grown.clone(),
            bound: bound.clone(),
            queue: queue.iter().map(|packet| packet.as_slice().into()).collect(),
        }
    }

    /// Takes a connection over.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub(super) fn restore(saved: SavedConnection, adopted: &mut Adopted) -> Result<Self, HandoverError> {
        let SavedConnection { socket, refused, greeted, watched, grown, bound, queue } = saved;
        let queue = queue.into_iter().map(Blob::into_bytes).collect();
        let socket = adopted.give(socket)?;
        Ok(Self { socket, refused, greeted, watched, grown, bound, interest: INITIAL, queue })
    }
}
