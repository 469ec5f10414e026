//! Echo requests, by the kernel's ping sockets.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::world::{Host, LIMIT};

/// Type, code, checksum, identifier, sequence number (RFC 792; RFC 4443 section 4.1).
const HEADER: usize = 8;

/// Pings an address with a payload of so many bytes and waits for the answer.
///
/// # Errors
/// What the kernel says, a timeout included.
///
/// # Panics
/// If the answer is another than it should be.
pub fn ping(from: &Host, to: IpAddr, length: usize) -> io::Result<()> {
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let socket = from.run(|| Socket::new(domain, Type::DGRAM, Some(protocol)))?;
    // To send and to receive datagrams is all that is asked of it.
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(SocketAddr::new(to, 0))?;
    let mut message = vec![0x5a; HEADER + length];
    // The kernel fills in the checksum and the identifier.
    message[..HEADER].copy_from_slice(&[request, 0, 0, 0, 0, 0, 0, 1]);
    socket.send(&message)?;
    let mut back = vec![0; message.len() + 1];
    let len = socket.recv(&mut back)?;
    assert_eq!(back[0], reply, "the type of what came back");
    assert_eq!(back[6..len], message[6..], "sequence number and payload");
    Ok(())
}
