//! Opens sockets inside a network namespace for a thread that is outside of it.
//!
//! A socket belongs to the namespace of the thread that opened it, for good. A thread that lives in
//! the namespace opens all of them, so that a probe costs no thread of its own, and no privilege.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use netio::netns::Resident;
use nix::errno::Errno;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt,
    socket,
};
use tokio::sync::oneshot;

/// A socket of the resident's namespace that has begun to connect from `source`, and does not block.
/// It is writable as soon as it is connected or has failed (`SO_ERROR`).
pub(super) async fn connect(
    resident: &Resident,
    source: IpAddr,
    address: SocketAddr,
) -> io::Result<TcpStream> {
    let (done, result) = oneshot::channel();
    let open = move || {
        if !done.is_closed() {
            // Who gave up meanwhile gets nothing, and the socket is closed.
            let _ = done.send(start_to_connect(source, address));
        }
    };
    resident.ask(open).map_err(io::Error::other)?;
    result.await.map_err(io::Error::other)?
}

fn start_to_connect(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
    // Without this, `bind` would take a port from all destinations, and so many probes would
    // soon have taken them all; now `connect` takes one that is free towards its destination.
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}
