//! Packet sockets: receiving what no UDP socket is given.
//!
//! Some appliances leave the checksum of their outer UDP header uninitialised. The kernel then
//! throws away what they send, and the only way to it leads past the kernel's UDP.

mod datagram;
mod filter;

use std::{
    io::{self, IoSlice},
    mem::size_of,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use socket2::{Domain, Socket, Type};

use crate::{
    device::{Device, Slot},
    udp::{
        Datagram,
        control::{self, Buffer},
        options,
    },
};

/// How many packets one receive call looks at, most of which it may skip: whoever waits for several
/// devices gets back to the others.
const LOOKED_AT: usize = 64;

/// Which datagrams [`BadChecksums`] is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadChecksumsConfig {
    /// The address that they are sent to, one of this host's.
    pub address: IpAddr,
    /// The ports that they are sent to, 1 to 64 of them.
    pub ports: Vec<u16>,
    /// Those whose source port, modulo `workers`, is this number: as
    /// [`UdpSocket::steer_by_source_port`](crate::udp::UdpSocket::steer_by_source_port) counts.
    pub worker: u32,
    /// How many share the work, at least 1.
    pub workers: u32,
    /// Room for waiting packets, in bytes of kernel memory, as in
    /// [`UdpConfig::recv_buffer`](crate::udp::UdpConfig::recv_buffer). 0 leaves the system's
    /// default.
    pub recv_buffer: usize,
}

/// Receives the datagrams that the kernel gives no UDP socket because their UDP checksum is wrong,
/// and no others: every datagram comes either here or there.
///
/// Over IPv6, datagrams without a checksum belong to them (RFC 8200 §8.1). Fragments are left out:
/// their checksum is that of the whole datagram, which nobody has here.
///
/// It stands in front of the firewall and of `rp_filter`, so that what they would have dropped is
/// received as well. All datagrams to these ports are copied to it, and the good ones are thrown
/// away here: use it where it is needed.
///
/// A packet's [`Slot`] holds the UDP payload. Nothing can be sent.
#[derive(Debug)]
pub struct BadChecksums {
    socket: Socket,
    address: IpAddr,
    skipped: u64,
    truncated: u64,
    drops: u64,
    syscalls: u64,
}

impl BadChecksums {
    /// Opens a socket in the network namespace of the calling thread, for all its devices.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a configuration out of range, and what the kernel says:
    /// this needs `CAP_NET_RAW`.
    pub fn open(config: &BadChecksumsConfig) -> io::Result<Self> {
        let mut program = filter::program(config)?;
        // PACKET_VNET_HDR would tell what is known about checksums, too, but only together with
        // link headers (SOCK_RAW), whose form depends on the device.
        // Of no protocol until it has a filter: nothing else may come in between.
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::PACKET, kind, None)?;
        options::set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1)?;
        options::set_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, config.recv_buffer)?;
        crate::bpf::attach(&socket, libc::SO_ATTACH_FILTER, &mut program)?;
        bind(&socket, config.address)?;
        Ok(Self {
            socket,
            address: config.address,
            skipped: 0,
            truncated: 0,
            drops: 0,
            syscalls: 0,
        })
    }

    /// How many packets were looked at and left to the kernel, mostly since nothing is wrong with
    /// them.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// How many packets were longer than their slot and so were discarded, without a look at their
    /// checksum.
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// How many packets, good or bad, the kernel dropped for want of room in the receive buffer.
    pub fn kernel_drops(&mut self) -> io::Result<u64> {
        let now = options::drops(&self.socket)?;
        // The kernel counts in 32 bits.
        self.drops += u64::from(now.wrapping_sub(self.drops as u32));
        Ok(self.drops)
    }

    /// What the kernel has granted of [`BadChecksumsConfig::recv_buffer`], as
    /// [`UdpSocket::recv_buffer`](crate::udp::UdpSocket::recv_buffer) counts.
    pub fn recv_buffer(&self) -> io::Result<usize> {
        Ok(options::granted(self.socket.recv_buffer_size()?))
    }

    /// How many system calls receiving has made.
    pub fn syscalls(&self) -> u64 {
        self.syscalls
    }

    /// Takes the next packet in; says whether it is one to be received. `None`: nothing is waiting.
    fn take(&mut self, slot: &mut Slot<Datagram>) -> io::Result<Option<bool>> {
        let packet = &mut slot.packet;
        packet.clear();
        let (len, known) = loop {
            self.syscalls += 1;
            match receive(&self.socket, packet.spare_mut()) {
                Ok(received) => break received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        if known == Checksum::Good {
            self.skipped += 1;
            return Ok(Some(false));
        }
        if packet.set_len(len).is_err() {
            self.truncated += 1;
            return Ok(Some(false));
        }
        let Some(found) = datagram::with_bad_checksum(packet, self.address) else {
            self.skipped += 1;
            return Ok(Some(false));
        };
        slot.meta = found.meta;
        packet.truncate(found.payload.end);
        packet.strip(found.payload.start);
        Ok(Some(true))
    }
}

impl Device for BadChecksums {
    type Meta = Datagram;

    /// Looks at up to 64 packets, each with one system call. So 0 may mean that all of them were
    /// skipped and others are waiting, which a [`Poller`](crate::poll::Poller) then reports.
    fn recv(&mut self, slots: &mut [Slot<Datagram>]) -> io::Result<usize> {
        let mut filled = 0;
        for _ in 0..LOOKED_AT {
            let Some(slot) = slots.get_mut(filled) else { break };
            match self.take(slot) {
                Ok(Some(wanted)) => filled += usize::from(wanted),
                Err(error) if filled == 0 => return Err(error),
                // What is there already is not lost; the error comes again, or it is over.
                Ok(None) | Err(_) => break,
            }
        }
        Ok(filled)
    }

    /// Always [`io::ErrorKind::Unsupported`].
    fn send(&mut self, _: &Datagram, _: &[IoSlice<'_>]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl AsFd for BadChecksums {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the kernel knows about a packet's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checksum {
    /// A device has verified it; or it is not complete, as in packets from this host and in
    /// super-packets, and the kernel takes those for good.
    Good,
    /// It is to be verified.
    Unknown,
}

/// Receives one packet, from its IP header on, and gives its length, which may be more than there
/// is room for.
fn receive(socket: &Socket, room: &mut [u8]) -> io::Result<(usize, Checksum)> {
    let mut piece = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    let mut buffer = Buffer::EMPTY;
    let mut message = options::empty_message();
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    buffer.attach(&mut message);
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: `message` points at `room` and `buffer`, which outlive the call and which nobody else
    // uses meanwhile.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let Ok(len) = usize::try_from(len) else { return Err(io::Error::last_os_error()) };
    let mut known = Checksum::Unknown;
    // SAFETY: `message` is as `recvmsg` left it, and any bits are a valid `tpacket_auxdata`.
    unsafe {
        control::each(&message, |header, data| {
            if (header.cmsg_level, header.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
                let good = libc::TP_STATUS_CSUMNOTREADY | libc::TP_STATUS_CSUM_VALID;
                let data = control::value::<libc::tpacket_auxdata>(data);
                if data.is_some_and(|data| data.tp_status & good != 0) {
                    known = Checksum::Good;
                }
            }
        });
    }
    Ok((len, known))
}

/// Begins to receive packets of the address's IP version. A socket for one protocol is given a
/// packet where IP is given it: once, and by the innermost of devices that lie in each other.
fn bind(socket: &Socket, address: IpAddr) -> io::Result<()> {
    let protocol = if address.is_ipv6() { libc::ETH_P_IPV6 } else { libc::ETH_P_IP };
    let protocol = protocol.cast_unsigned() as u16;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: protocol.to_be(),
        // Every device.
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes at `address`, which has as many.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
