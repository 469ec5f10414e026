//! Control messages: what accompanies a datagram through `sendmsg` and `recvmsg`.

use std::{
    mem::{MaybeUninit, size_of},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
};

use libc::{c_int, cmsghdr, msghdr};

/// Room for the control messages of one datagram, aligned as they have to be. The most that comes
/// in at once is IPv6 packet info, traffic class and segment size: 40 + 24 + 24 bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Buffer([u8; 128]);

impl Buffer {
    pub(crate) const EMPTY: Self = Self([0; 128]);

    /// Has `message` receive its control messages here.
    pub(crate) fn attach(&mut self, message: &mut msghdr) {
        message.msg_control = self.0.as_mut_ptr().cast();
        message.msg_controllen = self.0.len() as _;
    }
}

/// The control messages of a datagram to be sent.
pub(super) struct Outgoing {
    /// Zeroed, since the space between messages must not hold stale lengths.
    buffer: Buffer,
    len: usize,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self { buffer: Buffer::EMPTY, len: 0 }
    }

    /// The datagrams that the kernel makes of the bytes have this many bytes each.
    pub(super) fn push_segment_size(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, size);
    }

    /// The source address.
    pub(super) fn push_source(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(address).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            IpAddr::V6(address) => {
                let info = libc::in6_pktinfo {
                    ipi6_ifindex: 0,
                    ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
                };
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
    }

    /// TOS, or traffic class in IPv6.
    pub(super) fn push_tos(&mut self, tos: u8, v6: bool) {
        let tos = c_int::from(tos);
        if v6 {
            self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, tos);
        } else {
            self.push(libc::IPPROTO_IP, libc::IP_TOS, tos);
        }
    }

    /// Has `message` send these control messages; it must not outlive them.
    pub(super) fn attach(&mut self, message: &mut msghdr) {
        if self.len > 0 {
            self.buffer.attach(message);
            message.msg_controllen = self.len as _;
        }
    }

    #[expect(clippy::cast_ptr_alignment, reason = "the buffer is aligned, and so is every space")]
    fn push<T: Copy>(&mut self, level: c_int, kind: c_int, value: T) {
        let size = size_of::<T>() as u32;
        // SAFETY: these two only compute lengths.
        let (len, space) = unsafe { (libc::CMSG_LEN(size), libc::CMSG_SPACE(size)) };
        let end = self.len + space as usize;
        assert!(end <= self.buffer.0.len(), "the buffer has room for one message of each kind");
        let message = self.buffer.0[self.len..end].as_mut_ptr().cast::<cmsghdr>();
        // SAFETY: there are `space` bytes at `message`, enough for a header and a `T`, and every
        // message starts at a multiple of 8 in an aligned buffer.
        unsafe {
            (*message).cmsg_level = level;
            (*message).cmsg_type = kind;
            (*message).cmsg_len = len as _;
            ptr::write_unaligned(libc::CMSG_DATA(message).cast::<T>(), value);
        }
        self.len = end;
    }
}

/// What the control messages of a received datagram said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Incoming {
    pub(super) segment_size: u16,
    pub(super) local: Option<IpAddr>,
    pub(super) tos: u8,
}

impl Incoming {
    /// Reads the control messages that the kernel attached to `message`.
    ///
    /// # Safety
    /// `message` has to be as `recvmsg` left it, with its control buffer alive.
    pub(super) unsafe fn read(message: &msghdr) -> Self {
        let mut all = Self::default();
        // SAFETY: the caller's promise is passed on.
        unsafe {
            each(message, |header, data| match (header.cmsg_level, header.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = value::<c_int>(data);
                    all.segment_size = size.and_then(|size| size.try_into().ok()).unwrap_or(0);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    all.local = value::<libc::in_pktinfo>(data)
                        .map(|info| Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    all.local = value::<libc::in6_pktinfo>(data)
                        .map(|info| Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                // IPv4 sends a byte, IPv6 an int.
                (libc::IPPROTO_IP, libc::IP_TOS) => all.tos = value::<u8>(data).unwrap_or(0),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    all.tos = value::<u32>(data).map_or(0, |class| class as u8);
                }
                _ => {}
            });
        }
        all
    }
}

/// Calls `visit` with each control message of `message` and its data.
///
/// # Safety
/// `message` has to be as `recvmsg` left it, with its control buffer alive.
pub(crate) unsafe fn each(message: &msghdr, mut visit: impl FnMut(&cmsghdr, &[u8])) {
    // SAFETY: the kernel wrote the control messages and their lengths into the buffer, and the
    // macros do not leave it; `cmsg_len` covers header and data of each.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = next.as_ref() {
            let data = libc::CMSG_DATA(next);
            let end: usize = header.cmsg_len as _;
            let len = end.saturating_sub(data.cast_const().byte_offset_from(next).unsigned_abs());
            visit(header, std::slice::from_raw_parts(data, len));
            next = libc::CMSG_NXTHDR(message, next);
        }
    }
}

/// The value that a control message begins with; `None` if it is too short for one.
///
/// # Safety
/// Every pattern of bits has to be a valid `T`.
pub(crate) unsafe fn value<T: Copy>(data: &[u8]) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    let data = data.get(..size_of::<T>())?;
    // SAFETY: as many bytes as a `T` has are copied, and any bytes make a `T`.
    unsafe {
        ptr::copy_nonoverlapping(data.as_ptr(), value.as_mut_ptr().cast(), data.len());
        Some(value.assume_init())
    }
}
