//! Packets with descriptors over a SOCK_SEQPACKET socket, without blocking.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::protocol::MAX_FDS;

/// What came in.
#[derive(Debug)]
pub(crate) enum Received {
    /// A packet of this many bytes at the start of the buffer, and its descriptors.
    Packet(usize, Vec<OwnedFd>),
    /// The peer has closed.
    End,
    /// Nothing now.
    Nothing,
}

/// Sends one packet; `false` when the socket has no room now.
///
/// # Errors
/// The kernel's; EPIPE and ECONNRESET when the peer is gone.
pub(crate) fn send(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Result<bool, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOMANYREFS);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        return match sendmsg(&socket, &[IoSlice::new(packet)], &mut ancillary, flags) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::NOBUFS) => Ok(false),
            Err(Errno::INTR) => continue,
            Err(errno) => Err(errno),
        };
    }
}

/// Receives one packet into `buffer`.
///
/// # Errors
/// The kernel's; EMSGSIZE for a packet or descriptors that did not fit, which are dropped.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
            Ok(message) => break message,
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    };
    let mut fds = Vec::new();
    for item in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            fds.extend(received);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    // An empty packet can't be told from the end of a SEQPACKET stream (unix(7)); nobody sends one.
    if message.bytes == 0 { Ok(Received::End) } else { Ok(Received::Packet(message.bytes, fds)) }
}
