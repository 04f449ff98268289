//! A client of the keeper, as a state machine over a descriptor.
//!
//! Never blocks and owns no event loop: a caller queues requests, sends when the socket can be written, and
//! takes what came when it can be read. Answers come in the order of their requests; news come in between.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::protocol::{
    self, Event, MAX_PACKET_BYTES, Message, PacketError, Reply, Request, RequestHeader, UpgradeRefusal,
};
use crate::transport::{self, Received};

/// Why a conversation with the keeper is over.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The keeper closed the connection.
    #[error("the keeper closed the connection")]
    Closed,
    /// The connection failed.
    #[error("the connection to the keeper failed: {0}")]
    Io(Errno),
    /// The keeper said something that this program does not understand.
    #[error("the keeper sent something unintelligible: {0}")]
    Packet(#[from] PacketError),
}

/// Something that the keeper said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// The answer to the request with this number.
    Reply(u64, Reply),
    /// News of a process.
    Event(Event),
}

struct Outgoing {
    packet: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// The keeper at the other end, as it introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its [`protocol::MINOR`].
    pub minor: u32,
    /// Its release.
    pub version: String,
    /// Its process id.
    pub pid: u32,
}

/// One connection to a keeper.
pub struct Client {
    socket: OwnedFd,
    peer: Option<Peer>,
    upgrade_refusal: Option<UpgradeRefusal>,
    last_req: u64,
    queue: VecDeque<Outgoing>,
    buffer: Box<[u8]>,
}

impl Client {
    /// A client over a connected, non-blocking SOCK_SEQPACKET socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            peer: None,
            upgrade_refusal: None,
            last_req: 0,
            queue: VecDeque::new(),
            buffer: vec![0; MAX_PACKET_BYTES].into_boxed_slice(),
        }
    }

    /// The keeper, once it has introduced itself.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Why an outdated keeper went on as it is instead of replacing itself by this program, if it did.
    #[must_use]
    pub fn upgrade_refusal(&self) -> Option<&UpgradeRefusal> {
        self.upgrade_refusal.as_ref()
    }

    /// Notes what became of an upgrade: who the keeper is from now on, or why it is as before.
    pub(crate) fn note_upgrade(&mut self, result: Result<(u32, String), UpgradeRefusal>) {
        match (result, &mut self.peer) {
            (Ok((minor, version)), Some(peer)) => *peer = Peer { minor, version, pid: peer.pid },
            (Ok(_), None) => {}
            (Err(reason), _) => self.upgrade_refusal = Some(reason),
        }
    }

    /// Queues a request and returns its number, which its answer repeats.
    ///
    /// # Errors
    /// [`ClientError::Packet`] if it is too large.
    pub fn request(&mut self, request: Request, body: &[u8], fds: Vec<OwnedFd>) -> Result<u64, ClientError> {
        self.last_req += 1;
        let req = self.last_req;
        let packet = protocol::encode(&RequestHeader { req, request }, body)?;
        self.queue.push_back(Outgoing { packet, fds });
        Ok(req)
    }

    /// Queues a request that is not answered.
    ///
    /// # Errors
    /// [`ClientError::Packet`] if it is too large.
    pub fn notify(&mut self, request: Request) -> Result<(), ClientError> {
        let packet = protocol::encode(&RequestHeader { req: 0, request }, &[])?;
        self.queue.push_back(Outgoing { packet, fds: Vec::new() });
        Ok(())
    }

    /// Sends what the socket takes; `true` when nothing is left.
    ///
    /// # Errors
    /// [`ClientError::Closed`] or [`ClientError::Io`].
    pub fn flush(&mut self) -> Result<bool, ClientError> {
        while let Some(next) = self.queue.front() {
            let fds: Vec<BorrowedFd<'_>> = next.fds.iter().map(AsFd::as_fd).collect();
            match transport::send(&self.socket, &next.packet, &fds) {
                Ok(true) => drop(self.queue.pop_front()),
                Ok(false) => return Ok(false),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ClientError::Closed),
                Err(errno) => return Err(ClientError::Io(errno)),
            }
        }
        Ok(true)
    }

    /// Takes the next thing that came, or `None` when nothing did.
    ///
    /// # Errors
    /// [`ClientError`]; the connection is of no use any more.
    pub fn receive(&mut self) -> Result<Option<Incoming>, ClientError> {
        match transport::receive(&self.socket, &mut self.buffer) {
            Ok(Received::Packet(length, _)) => {
                let (message, _) = protocol::decode::<Message>(&self.buffer[..length])?;
                if let Message::Reply { reply: Reply::Hello { minor, version, pid }, .. } = &message {
                    self.peer = Some(Peer { minor: *minor, version: version.clone(), pid: *pid });
                }
                Ok(Some(match message {
                    Message::Reply { req, reply } => Incoming::Reply(req, reply),
                    Message::Event(event) => Incoming::Event(event),
                }))
            }
            Ok(Received::Nothing) => Ok(None),
            Ok(Received::End) | Err(Errno::CONNRESET) => Err(ClientError::Closed),
            Err(errno) => Err(ClientError::Io(errno)),
        }
    }

    /// Whether requests wait for the socket.
    #[must_use]
    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
