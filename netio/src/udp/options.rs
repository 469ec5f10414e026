//! Socket options that are not offered by `socket2`, and what they answer.

use std::{
    io,
    mem::{self, size_of},
    os::fd::AsRawFd,
};

use libc::{c_int, socklen_t};
use socket2::Socket;

use super::UdpConfig;

/// Where the count of dropped datagrams stands in `SO_MEMINFO` (`SK_MEMINFO_DROPS`).
const MEMINFO_DROPS: usize = 8;
/// How many numbers `SO_MEMINFO` has (`SK_MEMINFO_VARS`).
const MEMINFO_VARS: usize = 9;

/// Sets everything that has to be set before binding.
pub(super) fn set_up(socket: &Socket, config: &UdpConfig) -> io::Result<()> {
    let v6 = config.bind.is_ipv6();
    if v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, &1)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &1)?;
        let fragment =
            if config.dont_fragment { libc::IPV6_PMTUDISC_PROBE } else { libc::IPV6_PMTUDISC_DONT };
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &fragment)?;
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, &1)?;
        set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, &1)?;
        let fragment =
            if config.dont_fragment { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_DONT };
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &fragment)?;
    }
    // A bound address says by itself where datagrams went to.
    if config.bind.ip().is_unspecified() {
        if v6 {
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &1)?;
        } else {
            set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, &1)?;
        }
    }
    if config.gro {
        set(socket, libc::SOL_UDP, libc::UDP_GRO, &1)?;
    }
    set_buffer(socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, config.recv_buffer)?;
    set_buffer(socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, config.send_buffer)
}

/// Without the privilege to force a size, as much of it as the system allows.
pub(crate) fn set_buffer(
    socket: &Socket,
    force: c_int,
    ask: c_int,
    bytes: usize,
) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    match set(socket, libc::SOL_SOCKET, force, &bytes) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            set(socket, libc::SOL_SOCKET, ask, &bytes)
        }
        result => result,
    }
}

/// What of a buffer's size was asked for: the kernel takes twice that, for what it keeps books with
/// (socket(7)), and says so when it is asked.
pub(crate) fn granted(size: usize) -> usize {
    size / 2
}

/// The MTU of the route that a connected socket uses.
pub(super) fn mtu(socket: &Socket, v6: bool) -> io::Result<u32> {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_MTU) } else { (libc::IPPROTO_IP, libc::IP_MTU) };
    let mut mtu = [0];
    get(socket, level, name, &mut mtu)?;
    Ok(mtu[0])
}

/// A number that stands for the socket's network namespace, different for each.
pub(super) fn netns_cookie(socket: &Socket) -> io::Result<[u32; 2]> {
    let mut cookie = [0; 2];
    get(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, &mut cookie)?;
    Ok(cookie)
}

/// How many datagrams the socket has dropped, modulo 2³².
pub(crate) fn drops(socket: &Socket) -> io::Result<u32> {
    let mut info = [0; MEMINFO_VARS];
    get(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut info)?;
    Ok(info[MEMINFO_DROPS])
}

/// Whether the error is one that a router or peer reported about an earlier datagram: the kernel
/// hands it to whatever call comes next on the socket, and is rid of it then.
pub(super) fn is_soft(error: &io::Error) -> bool {
    // What `icmp_err_convert` and `icmpv6_err_convert` in the kernel can make of an ICMP error.
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EMSGSIZE
                | libc::EPROTO
                | libc::EACCES
        )
    )
}

/// A message with nothing in it. Its fields cannot be listed: some systems have padding there.
pub(crate) fn empty_message() -> libc::msghdr {
    // SAFETY: `msghdr` consists of integers and pointers, for which zero is a valid value.
    unsafe { mem::zeroed() }
}

/// Sets an option to `value`, which has to have the form that the kernel expects.
pub(crate) fn set<T>(socket: &Socket, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let (fd, len) = (socket.as_raw_fd(), size_of::<T>() as socklen_t);
    // SAFETY: the kernel reads `len` bytes at `value`, which has as many.
    match unsafe { libc::setsockopt(fd, level, name, (&raw const *value).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

pub(crate) fn get(socket: &Socket, level: c_int, name: c_int, value: &mut [u32]) -> io::Result<()> {
    let mut len = size_of_val(value) as socklen_t;
    let fd = socket.as_raw_fd();
    // SAFETY: `value` has `len` bytes, and the kernel writes no more than that.
    match unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
