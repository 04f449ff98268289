//! Reaching servers of the host, and kinds of sockets that reach around walls.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::outcome::{Outcome, reach};
use crate::raw::{self, sys};
use crate::stage::{Stage, unix_address};

/// How long an answer from this machine may take, and a connection to nowhere is waited for.
const PATIENCE: Duration = Duration::from_millis(300);

fn path_address(path: &Path) -> Vec<u8> {
    unix_address(path.as_os_str().as_encoded_bytes())
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<std::os::fd::OwnedFd> {
    sys!(libc::SYS_socket, family, kind | libc::SOCK_CLOEXEC, protocol).map(raw::owned)
}

pub(crate) fn stream_by_path(stage: &Stage) -> Outcome {
    reach(UnixStream::connect(stage.outside("stream.sock")))
}

pub(crate) fn stream_in_runtime_directory(stage: &Stage) -> Outcome {
    reach(UnixStream::connect(stage.folders.runtime.join("stream.sock")))
}

pub(crate) fn stream_in_tmp(stage: &Stage) -> Outcome {
    reach(UnixStream::connect(stage.tmp.join("stream.sock")))
}

pub(crate) fn stream_by_abstract_name(stage: &Stage) -> Outcome {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&stage.abstract_name);
    reach(address.and_then(|address| UnixStream::connect_addr(&address)))
}

pub(crate) fn sequential_by_path(stage: &Stage) -> Outcome {
    reach(connect_sequential(&stage.outside("sequential.sock")))
}

/// Connects to a socket of kind SEQPACKET.
pub(super) fn connect_sequential(path: &Path) -> io::Result<i64> {
    let address = path_address(path);
    socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0)
        .and_then(|socket| sys!(libc::SYS_connect, &socket, &address[..], address.len()))
}

fn send_to(socket: io::Result<std::os::fd::OwnedFd>, address: &[u8]) -> Outcome {
    let message: &[u8] = b"x";
    let sent = socket.and_then(|socket| {
        sys!(libc::SYS_sendto, &socket, message, message.len(), libc::MSG_DONTWAIT, address, address.len())
    });
    reach(sent)
}

pub(crate) fn datagram_by_sendto(stage: &Stage) -> Outcome {
    send_to(socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0), &path_address(&stage.outside("datagram.sock")))
}

/// sendmsg(2) names the address in memory, where a filter does not see it.
pub(crate) fn datagram_by_sendmsg(stage: &Stage) -> Outcome {
    let address = path_address(&stage.outside("datagram.sock"));
    let message: &[u8] = b"x";
    let vector: Vec<u8> =
        [message.as_ptr().addr(), message.len()].into_iter().flat_map(usize::to_ne_bytes).collect();
    // struct msghdr of 64-bit Linux: name, its length, vectors, their number, control, its length, flags.
    let header: Vec<u8> = [address.as_ptr().addr(), address.len(), vector.as_ptr().addr(), 1, 0, 0, 0]
        .into_iter()
        .flat_map(usize::to_ne_bytes)
        .collect();
    let sent = socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)
        .and_then(|socket| sys!(libc::SYS_sendmsg, &socket, &header[..], libc::MSG_DONTWAIT));
    reach(sent)
}

pub(crate) fn datagram_by_raw_kind(stage: &Stage) -> Outcome {
    send_to(socket(libc::AF_UNIX, libc::SOCK_RAW, 0), &path_address(&stage.outside("datagram.sock")))
}

pub(crate) fn datagram_by_high_bits(stage: &Stage) -> Outcome {
    let family = 0x1_0000_0000_u64 | u64::from(u16::try_from(libc::AF_UNIX).unwrap_or_default());
    let made = sys!(libc::SYS_socket, family, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0).map(raw::owned);
    send_to(made, &path_address(&stage.outside("datagram.sock")))
}

/// One end of a pair can send to others too.
pub(crate) fn datagram_by_pair(stage: &Stage) -> Outcome {
    let mut pair = [0_u8; 8];
    let made = sys!(libc::SYS_socketpair, libc::AF_UNIX, libc::SOCK_DGRAM, 0, &mut pair[..]);
    let first = made.map(|_| {
        let [a, b, c, d, ..] = pair;
        raw::owned(i64::from(i32::from_ne_bytes([a, b, c, d])))
    });
    send_to(first, &path_address(&stage.outside("datagram.sock")))
}

pub(crate) fn datagram_by_abstract_name(stage: &Stage) -> Outcome {
    let name = [b"\0", stage.abstract_datagram.as_bytes()].concat();
    send_to(socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0), &unix_address(&name))
}

fn connect(address: SocketAddr) -> Outcome {
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Outcome::allowed("a route is there"),
        other => reach(other),
    }
}

pub(crate) fn tcp_4(stage: &Stage) -> Outcome {
    connect(SocketAddr::from(([127, 0, 0, 1], stage.tcp4)))
}

pub(crate) fn tcp_6(stage: &Stage) -> Outcome {
    let Some(port) = stage.tcp6 else { return Outcome::absent("this host has no IPv6") };
    connect(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)))
}

pub(crate) fn udp(stage: &Stage) -> Outcome {
    let asked = UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(("127.0.0.1", stage.udp))?;
        socket.send(b"x")?;
        socket.recv(&mut [0; 1])
    });
    match asked {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::absent("nobody answers"),
        other => reach(other),
    }
}

/// An address that belongs to nobody (RFC 5737): that a route leads there is enough.
pub(crate) fn tcp_elsewhere(_: &Stage) -> Outcome {
    connect(SocketAddr::from(([192, 0, 2, 1], 80)))
}

pub(crate) fn raw_socket(_: &Stage) -> Outcome {
    reach(socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP))
}

pub(crate) fn packet_socket(_: &Stage) -> Outcome {
    const ALL_PROTOCOLS: i32 = 0x0300;
    reach(socket(libc::AF_PACKET, libc::SOCK_RAW, ALL_PROTOCOLS))
}

pub(crate) fn packet_socket_of_old(_: &Stage) -> Outcome {
    const SOCK_PACKET: i32 = 10;
    reach(socket(libc::AF_INET, SOCK_PACKET, 0x0300))
}

pub(crate) fn machine_socket(_: &Stage) -> Outcome {
    reach(socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0))
}

pub(crate) fn crypto_socket(_: &Stage) -> Outcome {
    reach(socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0))
}

pub(crate) fn netlink_audit(_: &Stage) -> Outcome {
    reach(socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT))
}

pub(crate) fn netlink_events(_: &Stage) -> Outcome {
    reach(socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT))
}

pub(crate) fn netlink_sockets(_: &Stage) -> Outcome {
    reach(socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG))
}

pub(crate) fn netlink_firewall(_: &Stage) -> Outcome {
    reach(socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER))
}

/// Families that few programs need and few people have looked at.
pub(crate) fn odd_families(_: &Stage) -> Outcome {
    let families = [
        ("AF_AX25", 3),
        ("AF_KEY", libc::AF_KEY),
        ("AF_RDS", libc::AF_RDS),
        ("AF_CAN", libc::AF_CAN),
        ("AF_TIPC", libc::AF_TIPC),
        ("AF_BLUETOOTH", libc::AF_BLUETOOTH),
        ("AF_NFC", libc::AF_NFC),
        ("AF_KCM", 41),
        ("AF_QIPCRTR", 42),
        ("AF_SMC", 43),
        ("AF_XDP", libc::AF_XDP),
    ];
    let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET];
    let made = families.iter().find(|(_, family)| kinds.iter().any(|kind| socket(*family, *kind, 0).is_ok()));
    match made {
        Some((name, _)) => Outcome::allowed(*name),
        None => Outcome::denied("none of them can be made"),
    }
}
