//! A socket for questions about routes. Only a connected socket is told the path's MTU, and
//! connecting the one that receives would limit what it receives.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use socket2::Socket;

use super::options;
use crate::netns::Netns;

#[derive(Debug)]
pub(super) struct Probe(Socket);

impl Probe {
    /// Opens a probe in the network namespace of `socket`, which is bound to `local`.
    pub(super) fn open(socket: &Socket, local: SocketAddr) -> io::Result<Self> {
        let here = super::open(local)?;
        let probe = if options::netns_cookie(&here)? == options::netns_cookie(socket)? {
            here
        } else {
            let namespace = namespace_of(socket)?;
            let path = format!("/proc/self/fd/{}", namespace.as_raw_fd());
            let netns = Netns::open(&path).map_err(io::Error::other)?;
            netns.run(|| super::open(local)).map_err(io::Error::other)??
        };
        probe.bind(&SocketAddr::new(local.ip(), 0).into())?;
        Ok(Self(probe))
    }

    /// See [`super::UdpSocket::path_mtu`].
    pub(super) fn path_mtu(&self, peer: SocketAddr) -> io::Result<u16> {
        // A socket may be connected again; the route is looked up anew.
        self.0.connect(&peer.into())?;
        let mtu = options::mtu(&self.0, peer.is_ipv6())?;
        // Loopback has 65,536: no IPv4 packet is as long.
        Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
    }
}

fn namespace_of(socket: &Socket) -> io::Result<OwnedFd> {
    // SAFETY: SIOCGSKNS takes no argument and returns a file descriptor.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGSKNS) } {
        fd if fd < 0 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just opened it for us, and nobody else knows it.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}
