//! Receiving several datagrams, or batches of them, with one call of `recvmmsg`.

use std::{io, net::IpAddr, os::fd::AsRawFd, ptr};

use libc::{iovec, mmsghdr};
use socket2::{SockAddr, SockAddrStorage, Socket};

use super::{
    Datagram,
    control::{Buffer, Incoming},
    options,
};
use crate::device::Slot;

/// How many slots one call fills. Measured: 8 buffers of 64 KiB are enough to keep up, and more
/// only spread over the cache.
pub(super) const BATCH: usize = 16;

pub(super) struct Receiver {
    /// Made by the first call: some sockets only send.
    scratch: Option<Box<Scratch>>,
    /// The address that everything goes to, if the socket is bound to one.
    local: Option<IpAddr>,
    pub(super) syscalls: u64,
    pub(super) truncated: u64,
}

/// What `recvmmsg` reads and writes besides the packets, kept so that it need not be cleared for
/// every call.
struct Scratch {
    messages: [mmsghdr; BATCH],
    pieces: [iovec; BATCH],
    peers: [SockAddrStorage; BATCH],
    control: [Buffer; BATCH],
}

// SAFETY: the pointers in `messages` and `pieces` are set anew by every call of `receive`, and are
// not followed after it.
unsafe impl Send for Scratch {}

impl Receiver {
    pub(super) fn new(local: Option<IpAddr>) -> Self {
        Self { scratch: None, local, syscalls: 0, truncated: 0 }
    }

    /// Fills slots from the first on with what is waiting; see [`crate::device::Device::recv`].
    pub(super) fn receive(
        &mut self,
        socket: &Socket,
        slots: &mut [Slot<Datagram>],
    ) -> io::Result<usize> {
        let wanted = slots.len().min(BATCH);
        let slots = &mut slots[..wanted];
        if slots.is_empty() {
            return Ok(0);
        }
        let Self { scratch, local, syscalls, truncated } = self;
        let scratch = scratch.get_or_insert_with(Scratch::new);
        let received = match scratch.receive(socket, slots, syscalls) {
            // What a router said about a datagram sent earlier is no reason not to receive.
            Err(error) if options::is_soft(&error) => scratch.receive(socket, slots, syscalls),
            result => result,
        };
        match received {
            Ok(count) => scratch.take(slots, count, *local, truncated),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            // Another one; the poller reports the socket again.
            Err(error) if options::is_soft(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl Scratch {
    fn new() -> Box<Self> {
        let message = mmsghdr { msg_hdr: options::empty_message(), msg_len: 0 };
        let piece = iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Box::new(Self {
            messages: [message; BATCH],
            pieces: [piece; BATCH],
            peers: std::array::from_fn(|_| SockAddrStorage::zeroed()),
            control: [Buffer::EMPTY; BATCH],
        })
    }

    /// Has the messages point at the slots, [`BATCH`] at most, and receives as many as there are.
    fn receive(
        &mut self,
        socket: &Socket,
        slots: &mut [Slot<Datagram>],
        calls: &mut u64,
    ) -> io::Result<usize> {
        // One borrow of each, from which the pointers come and which lasts beyond the call.
        let Self { messages, pieces, peers, control } = self;
        let wanted = slots.len();
        for (index, slot) in slots.iter_mut().enumerate() {
            slot.packet.clear();
            let spare = slot.packet.spare_mut();
            pieces[index] = iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() };
            let message = &mut messages[index].msg_hdr;
            message.msg_name = (&raw mut peers[index]).cast();
            message.msg_namelen = peers[index].size_of();
            message.msg_iov = &raw mut pieces[index];
            message.msg_iovlen = 1;
            control[index].attach(message);
            message.msg_flags = 0;
        }
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
        loop {
            *calls += 1;
            let messages = messages.as_mut_ptr();
            // SAFETY: the first `wanted` messages point at buffers of the slots and of `self`, all
            // of which outlive the call and are borrowed mutably until after it.
            let received =
                unsafe { libc::recvmmsg(fd, messages, wanted as _, flags as _, ptr::null_mut()) };
            if let Ok(count) = usize::try_from(received) {
                return Ok(count);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Moves lengths, addresses and control messages into the slots.
    fn take(
        &self,
        slots: &mut [Slot<Datagram>],
        count: usize,
        local: Option<IpAddr>,
        truncated: &mut u64,
    ) -> io::Result<usize> {
        let mut filled = 0;
        for index in 0..count {
            let mmsghdr { msg_hdr: message, msg_len } = &self.messages[index];
            if message.msg_flags & libc::MSG_TRUNC != 0 {
                *truncated += 1;
                continue;
            }
            // SAFETY: `recvmmsg` filled this message in, and the buffers are still there.
            let incoming = unsafe { Incoming::read(message) };
            let peer = self.peer(index).ok_or(io::ErrorKind::InvalidData)?;
            let slot = &mut slots[index];
            slot.packet.set_len(*msg_len as usize).map_err(io::Error::other)?;
            slot.meta = Datagram {
                peer,
                local: local.or(incoming.local),
                segment_size: incoming.segment_size,
                tos: incoming.tos,
            };
            slots.swap(filled, index);
            filled += 1;
        }
        Ok(filled)
    }

    fn peer(&self, index: usize) -> Option<std::net::SocketAddr> {
        let len = self.messages[index].msg_hdr.msg_namelen;
        // SAFETY: the kernel wrote an address of `len` bytes into the storage, of which this makes
        // a copy: the storage consists of plain bytes.
        let address = unsafe { SockAddr::new(ptr::read(&raw const self.peers[index]), len) };
        address.as_socket()
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { scratch: _, local, syscalls, truncated } = self;
        f.debug_struct("Receiver")
            .field("local", local)
            .field("syscalls", syscalls)
            .field("truncated", truncated)
            .finish_non_exhaustive()
    }
}
