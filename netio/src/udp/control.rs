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
pub(crate) struct Incoming {
    pub(crate) segment_size: u16,
    pub(crate) local: Option<IpAddr>,
    pub(crate) tos: u8,
}

impl Incoming {
    /// Reads the control messages that the kernel attached to `message`.
    ///
    /// # Safety
    /// `message` has to be as `recvmsg` left it, with its control buffer alive.
    pub(crate) unsafe fn read(message: &msghdr) -> Self {
        let mut all = Self::default();
        // SAFETY: the caller's promise is passed on.
        unsafe { each(message, |header, data| all.note(header, data)) };
        all
    }

    /// The same for control messages that lie in `buffer`, one behind the other.
    #[cfg(feature = "fuzz")]
    pub(crate) fn read_from(buffer: &[u8]) -> Self {
        let mut all = Self::default();
        walk(buffer, |header, data| all.note(header, data));
        all
    }

    fn note(&mut self, header: &cmsghdr, data: &[u8]) {
        // SAFETY: all of these consist of integers, for which all bits are valid.
        unsafe {
            match (header.cmsg_level, header.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = value::<c_int>(data);
                    self.segment_size = size.and_then(|size| size.try_into().ok()).unwrap_or(0);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    self.local = value::<libc::in_pktinfo>(data)
                        .map(|info| Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    self.local = value::<libc::in6_pktinfo>(data)
                        .map(|info| Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                // IPv4 sends a byte, IPv6 an int.
                (libc::IPPROTO_IP, libc::IP_TOS) => self.tos = value::<u8>(data).unwrap_or(0),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    self.tos = value::<u32>(data).map_or(0, |class| class as u8);
                }
                _ => {}
            }
        }
    }
}

/// Calls `visit` with each control message of `message` and its data.
///
/// # Safety
/// `message` has to be as `recvmsg` left it, with its control buffer alive.
pub(crate) unsafe fn each(message: &msghdr, visit: impl FnMut(&cmsghdr, &[u8])) {
    let (control, len) = (message.msg_control.cast::<u8>(), message.msg_controllen as _);
    if !control.is_null() {
        // SAFETY: the kernel has set the length to what it wrote of the buffer, all of which was
        // initialised before.
        walk(unsafe { std::slice::from_raw_parts(control, len) }, visit);
    }
}

/// Calls `visit` with each control message that lies in `buffer`, up to the first that does not
/// fit into it. It reads what `CMSG_NXTHDR` reads, without following a length that leads out.
fn walk(mut buffer: &[u8], mut visit: impl FnMut(&cmsghdr, &[u8])) {
    // SAFETY: a header consists of integers, for which all bits are valid.
    while let Some(header) = unsafe { value::<cmsghdr>(buffer) } {
        let len: usize = header.cmsg_len as _;
        let Some(data) = buffer.get(HEADER_LEN..len) else { break };
        visit(&header, data);
        buffer = buffer.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
}

/// Where the data of a control message begins (`CMSG_LEN(0)`).
const HEADER_LEN: usize = size_of::<cmsghdr>().next_multiple_of(ALIGNMENT);

/// Where the next one begins: at a multiple of so many bytes (`CMSG_ALIGN`).
const ALIGNMENT: usize = size_of::<usize>();

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
