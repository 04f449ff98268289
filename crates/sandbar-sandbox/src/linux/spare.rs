//! A spare holder: a process that already stands in its namespaces and waits for a plan.
//!
//! Making namespaces, a network above all, is a third of a start, and needs no plan. A keeper that has just been used
//! keeps one spare ready, so that the next run begins where the walls do. A spare holds a copy of the host's mount
//! table from the moment it was made; its keeper throws it away when that table changes.
//!
//! Unlike a holder that is forked for a launch it reads its plan itself, and so allocates: it is the copy of a process
//! with one thread.

use std::ffi::CStr;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use sandbar_proto::{LaunchSpec, MountOp, NetworkMode};
use serde::{Deserialize, Serialize};

use super::holder::{self, Inherited, fail, give_up};
use super::memory;
use super::prepare::{FilterCache, Launch};
use crate::report::{Order, PACKET_BYTES, SetupFailure, Step};
use crate::{CacheLayer, SpawnError};

/// Descriptors of a launch order: what the keeper adds, and the streams.
const LAUNCH_FDS: usize = 4;

/// With the door to a cgroup, where there is one.
const MOST_FDS: usize = LAUNCH_FDS + 1;

/// What a keeper adds to a plan.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Additions {
    /// Further mounts, behind those of the plan.
    pub(super) mounts: Vec<MountOp>,
    /// Layers of the caches.
    pub(super) caches: Vec<CacheLayer>,
}

/// Runs a spare holder; never returns. Must be called in a freshly forked process with one thread.
pub(super) fn main(network: NetworkMode, filters: &mut FilterCache, inherited: &Inherited<'_>) -> ! {
    if holder::take_descriptors(inherited).is_err() {
        // Without the channel in its place there is nobody to tell; its end tells the keeper.
        holder::exit(1);
    }
    if let Err(failure) = holder::settle(Some(network)) {
        give_up(failure);
    }
    memory::populate();
    match receive_launch(filters) {
        Ok(Some(mut launch)) => holder::run(&mut launch),
        // Thrown away.
        Ok(None) => holder::exit(0),
        Err(failure) => give_up(failure),
    }
}

pub(super) fn receive_launch(filters: &mut FilterCache) -> Result<Option<Launch>, SetupFailure> {
    let Some(mut plan) = receive(Order::Plan)? else { return Ok(None) };
    let plan = plan.pop().ok_or(fail(Step::Plan)(Errno::PROTO))?;
    let spec: LaunchSpec = read(plan)?;
    let unprepared = |_: SpawnError| fail(Step::Plan)(Errno::INVAL);
    // While the keeper reserves and records.
    let mut launch = Launch::new(&spec, &[], filters).map_err(unprepared)?;
    let Some(mut fds) = receive(Order::Launch)? else { return Ok(None) };
    let cgroup = (fds.len() > LAUNCH_FDS).then(|| fds.pop()).flatten();
    let Ok([additions, streams @ ..]) = <[OwnedFd; LAUNCH_FDS]>::try_from(fds) else {
        return Err(fail(Step::Plan)(Errno::PROTO));
    };
    let additions: Additions = read(additions)?;
    launch.add(&additions.mounts, &additions.caches).map_err(unprepared)?;
    let stdio = [&streams[0], &streams[1], &streams[2]].map(OwnedFd::as_fd);
    let door = cgroup.as_ref().map(OwnedFd::as_fd);
    let inherited = Inherited { stdio, control: holder::control(), cgroup: door };
    holder::take_descriptors(&inherited).map_err(fail(Step::Descriptors))?;
    // Closed with everything else just now.
    std::mem::forget((streams, cgroup));
    Ok(Some(launch))
}

/// Waits for an order and returns its descriptors; `None` when the keeper wants nothing any more.
fn receive(expected: Order) -> Result<Option<Vec<OwnedFd>>, SetupFailure> {
    let mut packet = [0; PACKET_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut slices = [IoSliceMut::new(&mut packet)];
        match recvmsg(holder::control(), &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => break message,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(fail(Step::Plan)(errno)),
        }
    };
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for item in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            fds.extend(received);
        }
    }
    match Order::decode(&packet) {
        Some(order) if order == expected => Ok(Some(fds)),
        _ => Err(fail(Step::Plan)(Errno::PROTO)),
    }
}

/// Reads a memfd to its end and closes it.
fn read<T: for<'de> Deserialize<'de>>(memfd: OwnedFd) -> Result<T, SetupFailure> {
    let mut text = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        match rustix::io::pread(&memfd, &mut chunk, text.len() as u64) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&chunk[..count]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(fail(Step::Plan)(errno)),
        }
    }
    serde_json::from_slice(&text).map_err(|_| fail(Step::Plan)(Errno::INVAL))
}

/// Sends an order with descriptors to a spare.
pub(super) fn send(control: BorrowedFd<'_>, order: Order, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    send_packet(control, &order.encode(), fds)
}

/// Sends a packet with descriptors.
pub(super) fn send_packet(
    control: BorrowedFd<'_>,
    packet: &[u8; PACKET_BYTES],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOMANYREFS);
    }
    sendmsg(control, &[std::io::IoSlice::new(packet)], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

/// A memfd with `value` as JSON.
pub(super) fn memfd_of(name: &CStr, value: &impl Serialize) -> Result<OwnedFd, Errno> {
    memfd(name, &serde_json::to_vec(value).map_err(|_| Errno::INVAL)?)
}

/// A memfd with `content`, to be read from its beginning.
pub(super) fn memfd(name: &CStr, content: &[u8]) -> Result<OwnedFd, Errno> {
    let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut done = 0;
    while done < content.len() {
        // Leaves the position where it is.
        done += rustix::io::pwrite(&fd, &content[done..], done as u64)?;
    }
    Ok(fd)
}
