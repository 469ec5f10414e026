//! One worker: waits, receives, lets the session decide, sends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netio::poll::Poller;
use netio::udp::{Datagram, MAX_GSO_SEGMENTS, UdpSocket};
use netio::{Device, Slot};

use super::RunError;
use super::builder::Settings;
use super::emitter::{Emission, Emissions};
use super::handle::WorkerShare;
use super::outbox::{Outbox, Parcel};
use super::sender::Sender;
use crate::appliance::Appliance;
use crate::route::Arrival;
use crate::session::{Replies, Session};
use crate::stats::{DropReason, Stats, Syscalls};

/// A worker that is ready to run on a thread of its own.
pub(super) struct WorkerThread<A: Appliance> {
    index: usize,
    session: Session<A>,
    sockets: Vec<UdpSocket>,
    sender: Sender,
    slots: Vec<Slot<Datagram>>,
    replies: Replies,
    outbox: Outbox,
    emissions: Emissions,
    poller: Poller,
    share: Arc<WorkerShare>,
    failures: u32,
}

/// A received run has at most 64 KiB.
const SLOT_BYTES: usize = 65_535;

/// Receive buffers: as many as datagrams are sent at a time, for gateways that send singly.
const SLOTS: usize = MAX_GSO_SEGMENTS;

/// How many buffers one call fills: with eight, flows that interleave are received in one call each.
const SLOTS_AT_ONCE: usize = 8;

/// As many bytes as one send carries are enough to go on with: more would only leave the cache.
const ENOUGH: usize = SLOT_BYTES;

/// How many receive calls are made before looking at anything else.
const ROUNDS: usize = 32;

/// How many failed receive calls in a row are taken for a socket that is gone.
const MAX_FAILURES: u32 = 100;

/// Flows need not be forgotten to the second, and a wake-up for each would be many.
const EXPIRY_GRAIN: Duration = Duration::from_secs(1);

/// The token of the waker; sockets have their index.
const WAKER: u64 = u64::MAX;

impl<A: Appliance> WorkerThread<A> {
    pub(super) fn new(
        index: usize,
        appliance: A,
        settings: &Settings,
        sockets: Vec<UdpSocket>,
        emissions: Emissions,
        share: Arc<WorkerShare>,
    ) -> Result<Self, RunError> {
        let setup = |error| RunError::Setup { what: "poller", error };
        let poller = Poller::new().map_err(setup)?;
        for (token, socket) in sockets.iter().enumerate() {
            poller.add(socket, token as u64).map_err(setup)?;
        }
        poller.add(&share.waker, WAKER).map_err(setup)?;
        let mut sender = Sender::new(settings.send_sockets, settings.socket_buffer);
        if settings.give_up_privileges {
            sender.open_raw();
        }
        Ok(Self {
            index,
            session: Session::new(appliance, &settings.session),
            sockets,
            sender,
            slots: (0..SLOTS).map(|_| Slot::with_capacity(SLOT_BYTES)).collect(),
            replies: Replies::new(),
            outbox: Outbox::new(),
            emissions,
            poller,
            share,
            failures: 0,
        })
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self) -> Result<(), RunError> {
        let result = self.work();
        let stats = self.stats();
        self.share.close(stats);
        result.map_err(|error| RunError::Receive { worker: self.index, error })
    }

    fn work(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        let mut answered = 0;
        while !self.share.is_stopping() {
            let timeout = self
                .session
                .poll_timeout()
                .map(|due| due.saturating_duration_since(now()).max(EXPIRY_GRAIN));
            self.poller.wait(&mut ready, timeout)?;
            let time = now();
            for &token in &ready {
                match token {
                    WAKER => self.emit(time)?,
                    token => self.receive(token as usize)?,
                }
            }
            self.session.handle_timeout(time);
            let question = self.share.question();
            if question != answered {
                answered = question;
                let stats = self.stats();
                self.share.publish(stats, question);
            }
        }
        Ok(())
    }

    /// Receives until nothing is waiting, or for so long that the others deserve a turn.
    fn receive(&mut self, which: usize) -> io::Result<()> {
        for _ in 0..ROUNDS {
            let Some(socket) = self.sockets.get_mut(which) else { return Ok(()) };
            match fill(socket, &mut self.slots) {
                Ok(Filled { slots: 0, .. }) => {
                    self.failures = 0;
                    // An ICMP error about an earlier reply also counts as something to receive.
                    while let Some(error) = socket.take_error() {
                        tracing::debug!(?error, "a reply was not delivered");
                    }
                    return Ok(());
                }
                Ok(Filled { slots, all }) => {
                    self.failures = 0;
                    self.handle(which, slots);
                    if all {
                        return Ok(());
                    }
                }
                Err(error) => {
                    self.failures += 1;
                    if self.failures >= MAX_FAILURES {
                        return Err(error);
                    }
                    tracing::debug!(%error, "cannot receive");
                }
            }
        }
        Ok(())
    }

    fn handle(&mut self, which: usize, received: usize) {
        let Self { session, sockets, sender, slots, replies, outbox, .. } = self;
        let Some(listener) = sockets.get_mut(which) else { return };
        let (listening, time) = (listener.local_addr(), now());
        let slots = &slots[..received];
        for (index, slot) in slots.iter().enumerate() {
            let meta = &slot.meta;
            // Without a destination address there is no telling which one to answer from.
            let local = meta.local.unwrap_or_else(|| listening.ip());
            let local = SocketAddr::new(local, listening.port());
            let arrival = Arrival { gateway: meta.peer, local, tos: meta.tos };
            let segment_size = usize::from(meta.segment_size);
            session.handle(&arrival, slot.packet.bytes(), segment_size, time, replies);
            let send = |parcel: &Parcel<'_>| send(parcel, time, sender, listener, session);
            outbox.take(slots, index, replies, send);
        }
        outbox.flush(slots, |parcel| send(parcel, time, sender, listener, session));
    }

    /// Sends what other threads want to have sent.
    fn emit(&mut self, time: Instant) -> io::Result<()> {
        let Self { session, sockets, sender, replies, outbox, emissions, share, .. } = self;
        share.waker.drain()?;
        // At most as many as fit into the queue: whoever fills it again wakes again.
        for _ in 0..emissions.capacity() {
            let Some(Emission { endpoint, packet }) = emissions.pop() else { break };
            session.emit(endpoint, &packet, time, replies);
            outbox.take(&[], 0, replies, |parcel| emit(parcel, time, sender, sockets, session));
        }
        outbox.flush(&[], |parcel| emit(parcel, time, sender, sockets, session));
        Ok(())
    }

    fn stats(&mut self) -> Stats {
        let dropped =
            self.sockets.iter_mut().map(|socket| socket.kernel_drops().unwrap_or(0)).sum();
        let mut stats = self.session.stats().clone();
        let sent = &self.sender.counts;
        stats.oddities = sent.oddities;
        stats.oddities.kernel_receive_drops = dropped;
        stats.syscalls = sent.syscalls;
        stats.syscalls += Syscalls {
            receive: self.sockets.iter().map(UdpSocket::syscalls).sum::<u64>()
                - sent.through_listener,
            wait: self.poller.syscalls(),
            ..Syscalls::default()
        };
        stats
    }
}

/// How many slots were filled.
struct Filled {
    slots: usize,
    /// Whether nothing more was waiting.
    all: bool,
}

/// Receives until nothing is waiting, all slots are filled, or it is [`ENOUGH`].
fn fill(socket: &mut UdpSocket, slots: &mut [Slot<Datagram>]) -> io::Result<Filled> {
    let (mut filled, mut bytes) = (0, 0);
    while filled < slots.len() && bytes < ENOUGH {
        let end = slots.len().min(filled + SLOTS_AT_ONCE);
        let wanted = &mut slots[filled..end];
        let received = match socket.recv(wanted) {
            Ok(received) => received,
            // What came before is there all the same; the next call tells again.
            Err(_) if filled > 0 => break,
            Err(error) => return Err(error),
        };
        bytes += wanted.iter().take(received).map(|slot| slot.packet.len()).sum::<usize>();
        filled += received;
        if filled < end {
            return Ok(Filled { slots: filled, all: true });
        }
    }
    Ok(Filled { slots: filled, all: false })
}

/// Sends what a session decided on, and tells it what could not be sent.
fn send<A: Appliance>(
    parcel: &Parcel<'_>,
    time: Instant,
    sender: &mut Sender,
    listener: &mut UdpSocket,
    session: &mut Session<A>,
) {
    if let Err(not_sent) = sender.send(parcel, time, listener) {
        session.not_sent(parcel.count, not_sent.datagrams as u64, not_sent.reason);
    }
}

/// The same for what did not come by a socket: through that of its IP version, if any.
fn emit<A: Appliance>(
    parcel: &Parcel<'_>,
    time: Instant,
    sender: &mut Sender,
    sockets: &mut [UdpSocket],
    session: &mut Session<A>,
) {
    let v4 = parcel.route.source.is_ipv4();
    match sockets.iter_mut().find(|socket| socket.local_addr().is_ipv4() == v4) {
        Some(listener) => send(parcel, time, sender, listener, session),
        None => session.not_sent(parcel.count, parcel.count.packets, DropReason::SendFailed),
    }
}

#[expect(clippy::disallowed_methods, reason = "the worker's clock: once per wake-up and batch")]
fn now() -> Instant {
    Instant::now()
}
