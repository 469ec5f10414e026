//! UDP sockets that send and receive in batches: one system call carries up to 64 datagrams of
//! equal size out (`UDP_SEGMENT`), and several times 64 KiB of them in (`recvmmsg` with `UDP_GRO`).
//!
//! What comes along is what a tunnel needs: both addresses, TOS, ICMP errors, lost datagrams. A
//! socket never waits, and never decides what to do about an error.

pub(crate) mod control;
pub(crate) mod error;
pub(crate) mod options;
mod probe;
mod receive;
mod steering;

use std::{
    cell::OnceCell,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::device::{Device, Slot};
use control::Outgoing;
use probe::Probe;
use receive::Receiver;

pub use error::{ErrorOrigin, SocketError};

/// How many datagrams one send carries at most (the kernel's `UDP_MAX_SEGMENTS` up to Linux 6.8,
/// which later ones raised to 128).
pub const MAX_GSO_SEGMENTS: usize = 64;

/// How many bytes one send carries at most: what fits into one IPv4 packet (65,535 bytes less the
/// IP and UDP headers).
pub const MAX_GSO_BYTES: usize = 65_507;

/// How many slots one receive call fills at most.
pub const MAX_RECEIVE: usize = receive::BATCH;

/// What accompanies one datagram, or a batch of datagrams of equal size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// The other side: source of what was received, destination of what is sent.
    pub peer: SocketAddr,
    /// This side's address: destination of what was received, source of what is sent. `None`
    /// leaves the choice of the source to the socket's own address and the routing table.
    pub local: Option<IpAddr>,
    /// Bytes in each datagram of a batch but the last, which may have fewer. 0: one datagram.
    pub segment_size: u16,
    /// IPv4 TOS or IPv6 traffic class: DSCP and ECN.
    pub tos: u8,
}

/// One datagram to or from nobody.
impl Default for Datagram {
    fn default() -> Self {
        let peer = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { peer, local: None, segment_size: 0, tos: 0 }
    }
}

/// How to set up a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpConfig {
    /// The address and port to bind to. With an unspecified address ([`Datagram::local`] then says
    /// which one it was) the socket is still for one IP version only.
    pub bind: SocketAddr,
    /// Lets several sockets bind to the same address and port (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Lets the kernel join datagrams of equal size (`UDP_GRO`): the slots to receive into should
    /// then have room for 64 KiB.
    pub gro: bool,
    /// Forbids everybody on the way, this host included, to fragment what the socket sends (DF in
    /// IPv4; in IPv6 only this host could).
    ///
    /// What does not fit the device that it leaves by is refused (`EMSGSIZE`). What does not fit a
    /// router behind that is lost, and the router's word comes by [`UdpSocket::take_error`] and
    /// shows in [`UdpSocket::path_mtu`], but the kernel does not act upon it (`IP_PMTUDISC_PROBE`).
    /// With `IP_PMTUDISC_DO` it would refuse, from that moment, whole batches for one datagram that
    /// is too long, before their sender can know why; and since such a word can be forged, it is
    /// for the sender to decide what to make of it.
    pub dont_fragment: bool,
    /// Room for waiting received datagrams, in bytes of kernel memory (`SO_RCVBUF`); beyond
    /// `net.core.rmem_max` only with the privilege for it. 0 leaves the system's default.
    pub recv_buffer: usize,
    /// The same for sent datagrams (`SO_SNDBUF`, `net.core.wmem_max`).
    pub send_buffer: usize,
}

/// A UDP socket that is never waited for.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    /// Answers questions about routes; opened when the first is asked.
    probe: OnceCell<Probe>,
    local: SocketAddr,
    receiver: Receiver,
    send_calls: u64,
    drops: u64,
}

impl UdpSocket {
    /// Opens and binds a socket in the network namespace of the calling thread.
    ///
    /// Fragmentation of what it sends is allowed (DF is clear) unless
    /// [`UdpConfig::dont_fragment`] says otherwise; ICMP errors are queued
    /// ([`Self::take_error`]).
    pub fn bind(config: &UdpConfig) -> io::Result<Self> {
        let socket = open(config.bind)?;
        socket.set_reuse_port(config.reuse_port)?;
        options::set_up(&socket, config)?;
        socket.bind(&config.bind.into())?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        let receiver = Receiver::new(Some(local.ip()).filter(|ip| !ip.is_unspecified()));
        Ok(Self { socket, probe: OnceCell::new(), local, receiver, send_calls: 0, drops: 0 })
    }

    /// The address and port that the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Has the kernel choose by source port among the sockets that share this one's address and
    /// port: a datagram goes to socket number `source port % workers`, counted in the order in
    /// which they were bound (`SO_ATTACH_REUSEPORT_CBPF`).
    ///
    /// One call serves the whole group. It holds as long as no socket of the group is closed: the
    /// last one then takes the number of the closed one. IPv6 datagrams with extension headers,
    /// and what goes to a number without a socket, are spread by the kernel's hash.
    pub fn steer_by_source_port(&self, workers: u32) -> io::Result<()> {
        steering::by_source_port(&self.socket, self.local.is_ipv6(), workers)
    }

    /// Sets the time to live (IPv4) or the hop limit (IPv6) of what the socket sends to single
    /// hosts, in hops. Until then it is the system's default, mostly 64.
    pub fn set_hop_limit(&self, hops: u8) -> io::Result<()> {
        if self.local.is_ipv6() {
            self.socket.set_unicast_hops_v6(hops.into())
        } else {
            self.socket.set_ttl_v4(hops.into())
        }
    }

    /// Opens now what [`Self::path_mtu`] asks with. From a thread in the socket's network namespace
    /// this takes no privilege, and asking then takes none from anywhere.
    pub fn prepare_path_mtu(&self) -> io::Result<()> {
        if self.probe.get().is_none() {
            let probe = Probe::open(&self.socket, self.local)?;
            self.probe.get_or_init(|| probe);
        }
        Ok(())
    }

    /// The MTU of the path to `peer` in bytes, IP header included, as far as it is known: that of
    /// the route, or less if a router on the way said so.
    ///
    /// It is the one in the socket's network namespace, whoever asks. Asking from another one for
    /// the first time needs `CAP_NET_ADMIN` over the socket's, and `CAP_SYS_ADMIN`, unless
    /// [`Self::prepare_path_mtu`] was called.
    pub fn path_mtu(&self, peer: SocketAddr) -> io::Result<u16> {
        self.prepare_path_mtu()?;
        let probe = self.probe.get().ok_or(io::ErrorKind::NotFound)?;
        probe.path_mtu(peer)
    }

    /// Takes the oldest error out of the queue: what a router or the peer said by ICMP about a
    /// datagram that was sent. `None`: there is none.
    ///
    /// As long as errors are queued, a [`Poller`](crate::poll::Poller) reports the socket, so take
    /// them all whenever it is reported.
    pub fn take_error(&mut self) -> Option<SocketError> {
        self.receiver.syscalls += 1;
        error::take(&self.socket)
    }

    /// How many received datagrams the kernel dropped since the socket was bound, mostly for want
    /// of room in the receive buffer.
    ///
    /// This is the count that `SO_RXQ_OVFL` attaches to later datagrams, asked for directly, so
    /// that it is exact even if none follows.
    pub fn kernel_drops(&mut self) -> io::Result<u64> {
        let now = options::drops(&self.socket)?;
        // The kernel counts in 32 bits.
        self.drops += u64::from(now.wrapping_sub(self.drops as u32));
        Ok(self.drops)
    }

    /// What the kernel has granted of [`UdpConfig::recv_buffer`], in the same bytes: as much as was
    /// asked for, or what `net.core.rmem_max` allows to those without the privilege for more.
    pub fn recv_buffer(&self) -> io::Result<usize> {
        Ok(options::granted(self.socket.recv_buffer_size()?))
    }

    /// The same of [`UdpConfig::send_buffer`], with `net.core.wmem_max`.
    pub fn send_buffer(&self) -> io::Result<usize> {
        Ok(options::granted(self.socket.send_buffer_size()?))
    }

    /// How many received datagrams (or batches) were longer than their slot and so were discarded.
    pub fn truncated(&self) -> u64 {
        self.receiver.truncated
    }

    /// How many system calls receiving, sending and [`Self::take_error`] have made.
    pub fn syscalls(&self) -> u64 {
        self.receiver.syscalls + self.send_calls
    }

    fn send_once(&mut self, message: &libc::msghdr) -> io::Result<()> {
        loop {
            self.send_calls += 1;
            // SAFETY: `message` refers to an address, control messages and pieces that `send`
            // borrows or owns until this returns; the kernel only reads them.
            let sent = unsafe { libc::sendmsg(self.socket.as_raw_fd(), message, 0) };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl Device for UdpSocket {
    type Meta = Datagram;

    /// Fills up to [`MAX_RECEIVE`] slots with one system call, each with one datagram or with a
    /// batch of datagrams of equal size from one peer.
    fn recv(&mut self, slots: &mut [Slot<Datagram>]) -> io::Result<usize> {
        self.receiver.receive(&self.socket, slots)
    }

    /// Sends one datagram, or several of `meta.segment_size` bytes (the last may be shorter), up to
    /// [`MAX_GSO_SEGMENTS`] and [`MAX_GSO_BYTES`].
    ///
    /// `EMSGSIZE` or `EINVAL` for a batch means that its datagrams do not fit the route's MTU
    /// ([`UdpSocket::path_mtu`]), `EIO` that the way out cannot do it: they can still be sent
    /// singly.
    /// What an earlier datagram met on its way (an ICMP error) fails no other: such a send is tried
    /// again.
    fn send(&mut self, meta: &Datagram, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let peer = SockAddr::from(meta.peer);
        let mut control = Outgoing::new();
        // Saying what is the case anyway costs the kernel a lookup of the control message.
        let source = meta.local.filter(|&local| local != self.local.ip());
        if let Some(local) = source {
            control.push_source(local);
        }
        if meta.segment_size > 0 {
            control.push_segment_size(meta.segment_size);
        }
        if meta.tos != 0 {
            control.push_tos(meta.tos, meta.peer.is_ipv6());
        }

        let mut message = options::empty_message();
        message.msg_name = peer.as_ptr().cast_mut().cast();
        message.msg_namelen = peer.len();
        // `IoSlice` is guaranteed to have the layout of `iovec`.
        message.msg_iov = pieces.as_ptr().cast_mut().cast();
        message.msg_iovlen = pieces.len() as _;
        control.attach(&mut message);
        match self.send_once(&message) {
            Err(error) if options::is_soft(&error) => self.send_once(&message),
            result => result,
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
