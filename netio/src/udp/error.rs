//! The error queue: what routers and peers said by ICMP about datagrams that were sent.

use std::{
    io,
    mem::size_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
};

use socket2::{SockAddr, Socket};

use super::{
    control::{self, Buffer},
    options,
};

/// Where an error came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorOrigin {
    /// This host: for example, the datagram is longer than the path's MTU.
    Local,
    /// ICMP.
    Icmp,
    /// `ICMPv6`.
    Icmp6,
    /// Something else, by the kernel's number (`ee_origin`).
    Other(u8),
}

/// What became of a datagram that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketError {
    /// Where the datagram was sent to.
    pub peer: Option<SocketAddr>,
    /// Who reported it: a router on the way, or the peer.
    pub offender: Option<IpAddr>,
    /// Where the error came from.
    pub origin: ErrorOrigin,
    /// The ICMP or `ICMPv6` type.
    pub kind: u8,
    /// The ICMP or `ICMPv6` code.
    pub code: u8,
    /// The path's MTU in bytes, if that is what the error is about.
    pub mtu: Option<u32>,
    /// What it means, by the system's error number (`ee_errno`).
    pub errno: i32,
}

/// Takes one error out of the socket's queue.
pub(super) fn take(socket: &Socket) -> Option<SocketError> {
    let mut control = Buffer::EMPTY;
    loop {
        match receive(socket, &mut control) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result.ok().flatten(),
        }
    }
}

fn receive(socket: &Socket, control: &mut Buffer) -> io::Result<Option<SocketError>> {
    // SAFETY: the closure passes valid storage and its length to `recvmsg`, which writes an
    // address of at most that length; zeroed storage is valid before that, too.
    let (error, peer) = unsafe {
        SockAddr::try_init(|storage, len| {
            let mut message = options::empty_message();
            message.msg_name = storage.cast();
            message.msg_namelen = *len;
            control.attach(&mut message);
            // The datagram itself, of which the kernel returns the beginning, is not asked for.
            let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
            if libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) < 0 {
                return Err(io::Error::last_os_error());
            }
            *len = message.msg_namelen;
            let mut error = None;
            control::each(&message, |header, data| {
                if matches!(
                    (header.cmsg_level, header.cmsg_type),
                    (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
                ) {
                    error = read(data);
                }
            });
            Ok(error)
        })?
    };
    Ok(error.map(|error| SocketError { peer: peer.as_socket(), ..error }))
}

/// Reads a `sock_extended_err` and the address of the offender behind it.
pub(crate) fn read(data: &[u8]) -> Option<SocketError> {
    // SAFETY: both consist of integers, for which all bits are valid.
    let (error, family) = unsafe {
        let error = control::value::<libc::sock_extended_err>(data)?;
        let offender = data.get(size_of::<libc::sock_extended_err>()..)?;
        (error, control::value::<libc::sa_family_t>(offender).map(|family| (family, offender)))
    };
    let offender = family.and_then(|(family, offender)| address(family, offender));
    Some(SocketError {
        peer: None,
        offender,
        origin: match error.ee_origin {
            libc::SO_EE_ORIGIN_LOCAL => ErrorOrigin::Local,
            libc::SO_EE_ORIGIN_ICMP => ErrorOrigin::Icmp,
            libc::SO_EE_ORIGIN_ICMP6 => ErrorOrigin::Icmp6,
            other => ErrorOrigin::Other(other),
        },
        kind: error.ee_type,
        code: error.ee_code,
        mtu: (error.ee_errno == libc::EMSGSIZE as u32).then_some(error.ee_info),
        errno: error.ee_errno.cast_signed(),
    })
}

fn address(family: libc::sa_family_t, bytes: &[u8]) -> Option<IpAddr> {
    // SAFETY: both consist of integers, for which all bits are valid.
    unsafe {
        match i32::from(family) {
            libc::AF_INET => control::value::<libc::sockaddr_in>(bytes)
                .map(|address| Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into()),
            libc::AF_INET6 => control::value::<libc::sockaddr_in6>(bytes)
                .map(|address| Ipv6Addr::from(address.sin6_addr.s6_addr).into()),
            _ => None,
        }
    }
}
