//! Echo requests, by the kernel's ping sockets: no raw sockets, no program needed.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// Payload lengths: that of the usual ping, nothing, and a large one.
const LENGTHS: [usize; 3] = [56, 0, 1400];
/// Type, code, checksum, identifier, sequence number (RFC 792, RFC 4443 §4.1).
const HEADER: usize = 8;

/// Pings `to` and returns how many requests were answered, of how many. Blocks.
pub(in crate::lab) fn ping(to: IpAddr) -> io::Result<(usize, usize)> {
    let (family, protocol, request, reply) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let socket: OwnedFd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    // Datagrams in and out is all that a `UdpSocket` asks of its descriptor.
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(super::PATIENCE))?;
    socket.connect(SocketAddr::new(to, 0))?;
    let mut answered = 0;
    for (sequence, length) in (1_u16..).zip(LENGTHS) {
        let mut message = vec![0x5a; HEADER + length];
        // The kernel fills in the checksum and the identifier.
        message[..6].copy_from_slice(&[request, 0, 0, 0, 0, 0]);
        message[6..HEADER].copy_from_slice(&sequence.to_be_bytes());
        socket.send(&message)?;
        let mut back = vec![0; message.len() + 1];
        match socket.recv(&mut back) {
            Ok(len) => {
                let same = len == message.len() && back[6..len] == message[6..];
                answered += usize::from(back[0] == reply && same);
            }
            Err(error) if super::udp::is_timeout(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok((answered, LENGTHS.len()))
}
