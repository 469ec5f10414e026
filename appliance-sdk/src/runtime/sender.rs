//! Sends replies from the ports that gateways chose: one socket per local address and port, opened
//! when the first reply needs it, bounded in number.
//!
//! It decides how to send, never what. A gateway picks its source ports freely, so everything here
//! has a limit that a flood of ports runs into.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ahash::RandomState;
use netio::Device;
use netio::udp::{Datagram, UdpConfig, UdpSocket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::outbox::Parcel;
use super::raw::RawSender;
use crate::stats::{DropReason, Oddities, Syscalls};

pub(super) struct Sender {
    doors: HashMap<SocketAddr, Door, RandomState>,
    limit: usize,
    send_buffer: usize,
    raw: RawSender,
    warned: bool,
    pub(super) counts: SendCounts,
}

/// What sending cost, and how it went.
#[derive(Clone, Copy, Default)]
pub(super) struct SendCounts {
    pub(super) oddities: Oddities,
    pub(super) syscalls: Syscalls,
    /// Those of the calls that the listening socket counts too.
    pub(super) through_listener: u64,
}

/// Datagrams of a reply that were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotSent {
    pub(super) datagrams: usize,
    pub(super) reason: DropReason,
}

/// The way out for one local address and port.
enum Door {
    Socket {
        socket: Box<UdpSocket>,
        last_used: Instant,
    },
    /// The port is taken; whether it still is will be seen later.
    Taken {
        since: Instant,
    },
}

/// A socket that was used more recently does not make room for another one: with more ports in
/// use than sockets, opening and closing them all the time would be worse than raw sockets.
const IN_USE: Duration = Duration::from_secs(1);

/// How long a port that was taken is taken for taken.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a full send queue is waited for: what a queue of 1,000 packets takes at 1 Gbit/s.
const QUEUE_WAIT_MS: u8 = 12;

/// Nothing is received on these sockets but ICMP errors, which nobody reads: the least there is.
const RECEIVE_BUFFER: usize = 2048;

impl Sender {
    pub(super) fn new(limit: usize, send_buffer: usize) -> Self {
        Self {
            doors: HashMap::default(),
            limit,
            send_buffer,
            raw: RawSender::default(),
            warned: false,
            counts: SendCounts::default(),
        }
    }

    /// Opens, while there may be the privilege for it, what replies go through for which no socket
    /// of their own can be had.
    pub(super) fn open_raw(&mut self) {
        if let Err(error) = self.raw.open() {
            tracing::debug!(%error, "replies will not go through raw sockets");
        }
    }

    /// Sends what a parcel holds. Replies to a gateway that sends from the Geneve port itself leave
    /// through the socket that listens there.
    pub(super) fn send(
        &mut self,
        batch: &Parcel<'_>,
        now: Instant,
        listener: &mut UdpSocket,
    ) -> Result<(), NotSent> {
        let route = batch.route;
        if route.source.port() == listener.local_addr().port() {
            let before = listener.syscalls();
            let local = Some(route.source.ip());
            let result = batch.send_through(listener, local, &mut self.counts);
            self.counts.through_listener += listener.syscalls() - before;
            return result;
        }
        if let Some(Door::Socket { socket, last_used }) = self.doors.get_mut(&route.source) {
            *last_used = now;
            return batch.send_through(socket, None, &mut self.counts);
        }
        match self.open(route.source, now) {
            Some(mut socket) => {
                let result = batch.send_through(&mut socket, None, &mut self.counts);
                self.doors.insert(route.source, Door::Socket { socket, last_used: now });
                result
            }
            None => self.send_raw(batch),
        }
    }

    /// A new socket, if there may be one and the port is free.
    fn open(&mut self, source: SocketAddr, now: Instant) -> Option<Box<UdpSocket>> {
        if let Some(Door::Taken { since }) = self.doors.get(&source)
            && now < *since + RETRY_AFTER
        {
            return None;
        }
        if !self.doors.contains_key(&source) && self.doors.len() >= self.limit {
            self.make_room(now)?;
        }
        let config = UdpConfig {
            bind: source,
            reuse_port: true, // The other workers may need the same port.
            gro: false,
            dont_fragment: false,
            recv_buffer: RECEIVE_BUFFER,
            send_buffer: self.send_buffer,
        };
        self.counts.syscalls.other += 1;
        match UdpSocket::bind(&config) {
            Ok(socket) => Some(Box::new(socket)),
            Err(error) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(
                        %source, %error,
                        "cannot open a socket for replies, trying a raw socket from now on"
                    );
                }
                self.doors.insert(source, Door::Taken { since: now });
                None
            }
        }
    }

    /// Closes the socket that was unused for the longest time, unless all are in use.
    fn make_room(&mut self, now: Instant) -> Option<()> {
        let idle_since = |door: &Door| match door {
            Door::Socket { last_used, .. } => *last_used,
            Door::Taken { since } => *since,
        };
        let (&source, door) = self.doors.iter().min_by_key(|(_, door)| idle_since(door))?;
        if now < idle_since(door) + IN_USE {
            return None;
        }
        if matches!(self.doors.remove(&source), Some(Door::Socket { .. })) {
            self.counts.oddities.send_sockets_evicted += 1;
        }
        Some(())
    }

    fn send_raw(&mut self, batch: &Parcel<'_>) -> Result<(), NotSent> {
        let mut failed = 0;
        let mut reason = DropReason::SendPortTaken;
        for datagram in batch.datagrams() {
            self.counts.syscalls.send += 1;
            match self.raw.send(batch.route, datagram) {
                Ok(()) => self.counts.oddities.sent_raw += 1,
                Err(error) => {
                    failed += 1;
                    if error.kind() != io::ErrorKind::PermissionDenied {
                        reason = failure(&error);
                    }
                }
            }
        }
        not_sent(failed, reason)
    }
}

impl Parcel<'_> {
    fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().flat_map(|piece| piece.chunks(self.segment_size))
    }

    fn send_through(
        &self,
        socket: &mut UdpSocket,
        local: Option<std::net::IpAddr>,
        counts: &mut SendCounts,
    ) -> Result<(), NotSent> {
        let datagrams = self.count.packets as usize;
        let segment_size = if datagrams > 1 { self.segment_size } else { 0 };
        let meta = Datagram {
            peer: self.route.destination,
            local,
            segment_size: segment_size as u16,
            tos: self.route.tos,
        };
        match send_patiently(socket, &meta, self.pieces, counts) {
            Ok(()) => Ok(()),
            Err(error) if datagrams > 1 && too_big(&error) => {
                counts.oddities.runs_sent_singly += 1;
                self.send_singly(socket, Datagram { segment_size: 0, ..meta }, counts)
            }
            Err(error) => not_sent(datagrams, failure(&error)),
        }
    }

    fn send_singly(
        &self,
        socket: &mut UdpSocket,
        meta: Datagram,
        counts: &mut SendCounts,
    ) -> Result<(), NotSent> {
        let mut failed = 0;
        let mut reason = DropReason::SendFailed;
        for datagram in self.datagrams() {
            if let Err(error) = send_patiently(socket, &meta, &[IoSlice::new(datagram)], counts) {
                failed += 1;
                reason = failure(&error);
            }
        }
        not_sent(failed, reason)
    }
}

/// Sends, and waits a moment if the queue is full.
fn send_patiently(
    socket: &mut UdpSocket,
    meta: &Datagram,
    pieces: &[IoSlice<'_>],
    counts: &mut SendCounts,
) -> io::Result<()> {
    let before = socket.syscalls();
    let mut result = socket.send(meta, pieces);
    if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
        counts.syscalls.wait += 1;
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        // Whether it was worth it, the second try shows.
        let _ = poll(&mut waiting, PollTimeout::from(QUEUE_WAIT_MS));
        result = socket.send(meta, pieces);
    }
    counts.syscalls.send += socket.syscalls() - before;
    result
}

/// Whether a run was refused for the size of its datagrams, which may still go one by one.
fn too_big(error: &io::Error) -> bool {
    use nix::errno::Errno;
    error
        .raw_os_error()
        .map(Errno::from_raw)
        .is_some_and(|errno| matches!(errno, Errno::EMSGSIZE | Errno::EINVAL))
}

fn failure(error: &io::Error) -> DropReason {
    match error.kind() {
        io::ErrorKind::WouldBlock => DropReason::SendQueueFull,
        _ => DropReason::SendFailed,
    }
}

fn not_sent(datagrams: usize, reason: DropReason) -> Result<(), NotSent> {
    match datagrams {
        0 => Ok(()),
        datagrams => Err(NotSent { datagrams, reason }),
    }
}
