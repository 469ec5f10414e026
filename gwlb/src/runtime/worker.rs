//! One worker: share-nothing, both directions, polling only when all its queues are empty.
//!
//! It carries packets between its TUN queues, its sockets and its half of the data plane, and
//! counts what was really sent and delivered. It decides nothing about packets.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use arc_swap::{ArcSwap, Cache};
use crossbeam::queue::ArrayQueue;
use geneve::buffer::PacketBuf;
use netio::offload::{Coalescer, Limits, MAX_PIECES, Offload, Place, Run};
use netio::poll::{Poller, Waker};
use netio::tun::TunQueue;
use netio::udp::{Datagram, UdpSocket};
use netio::{Device, Slot};
use router::{Attachment, Entry};

use super::clock;
use super::underlay::Underlay;
use crate::config::Settings;
use crate::dataplane::encap::{Batch, Encapsulator};
use crate::dataplane::frame::Frame;
use crate::dataplane::ingress::ledger;
use crate::dataplane::snapshot::{Snapshot, TargetSlot};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::{DropReason, Hop, ReturnVerdict, Verdict, Way, WorkerId};
use crate::dataplane::{Ingress, Return};

/// Packets read from one TUN queue before the next device has its turn.
const TUN_BATCH: usize = 16;
/// Receive buffers for datagrams, each for a whole batch of segments.
const UDP_BATCH: usize = 8;
/// The largest packet or batch that a device gives.
const BUFFER: usize = 65_536;
/// Packets that wait for another worker.
const INBOX: usize = 1024;
/// A drain is over when nothing has come back for this long.
const DRAIN_QUIET: Duration = Duration::from_millis(200);
/// A drain is over after this long in any case.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// What the threads of a gateway share.
#[derive(Debug)]
pub(super) struct Shared {
    pub settings: Arc<Settings>,
    pub snapshot: ArcSwap<Snapshot>,
    pub stats: Vec<Arc<WorkerStats>>,
    pub inboxes: Vec<Inbox>,
    /// Targets to which a packet turned out to be too long: their path is to be measured again.
    pub too_long: ArrayQueue<TargetSlot>,
    pub started: Instant,
    draining: AtomicBool,
}

/// Where other workers put packets of flows that a worker owns.
#[derive(Debug)]
pub(super) struct Inbox {
    packets: ArrayQueue<Handover>,
    waker: Waker,
}

/// A packet on its way to the owner of its flow.
#[derive(Debug)]
struct Handover {
    from: Entry,
    packet: PacketBuf,
    offload: Offload,
}

impl Inbox {
    pub fn new() -> io::Result<Self> {
        Ok(Self { packets: ArrayQueue::new(INBOX), waker: Waker::new()? })
    }
}

impl Shared {
    pub fn new(
        settings: Arc<Settings>,
        snapshot: Arc<Snapshot>,
        stats: Vec<Arc<WorkerStats>>,
        inboxes: Vec<Inbox>,
    ) -> Self {
        let too_long = ArrayQueue::new(snapshot.targets.len().max(1));
        Self {
            settings,
            snapshot: ArcSwap::new(snapshot),
            stats,
            inboxes,
            too_long,
            started: clock::now(),
            draining: AtomicBool::new(false),
        }
    }

    /// Publishes a new view to all workers; each takes it up before its next batch.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.store(snapshot);
        self.wake_all();
    }

    /// Tells the workers to take in nothing more and to end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake_all();
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn wake_all(&self) {
        for inbox in &self.inboxes {
            // A worker that cannot be woken finds out at its next packet.
            let _ = inbox.waker.wake();
        }
    }
}

/// A TUN queue and what it is attached to.
#[derive(Debug)]
pub(super) struct Port {
    pub at: Attachment,
    pub queue: TunQueue,
}

/// What a worker is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub id: WorkerId,
    pub shared: Arc<Shared>,
    pub ingress: Ingress,
    pub returns: Return,
    pub ports: Vec<Port>,
    /// By pool: which of `underlays` it sends on.
    pub pools: Vec<usize>,
    pub underlays: Vec<Underlay>,
    /// What the devices take in one write.
    pub limits: Limits,
}

/// A worker, ready to run on a thread of its own.
#[derive(Debug)]
pub(super) struct Worker {
    id: WorkerId,
    shared: Arc<Shared>,
    ingress: Ingress,
    returns: Return,
    io: Io,
    poller: Poller,
    sources: Vec<Source>,
    tun_slots: Vec<Slot<Offload>>,
    udp_slots: Vec<Slot<Datagram>>,
    coalescer: Coalescer<usize>,
}

/// Something that the poller reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Inbox,
    Port(usize),
    Receiver { underlay: usize, socket: usize },
    Sender { underlay: usize, socket: usize },
}

/// What a worker sends with.
#[derive(Debug)]
struct Io {
    id: WorkerId,
    shared: Arc<Shared>,
    stats: Arc<WorkerStats>,
    snapshot: Arc<Snapshot>,
    ports: Vec<Port>,
    port_of: AHashMap<Attachment, usize>,
    pools: Vec<usize>,
    underlays: Vec<Underlay>,
    encapsulator: Encapsulator,
}

impl Worker {
    pub fn new(parts: Parts) -> io::Result<Self> {
        let Parts { id, shared, ingress, returns, ports, pools, underlays, limits } = parts;
        let poller = Poller::new()?;
        let mut sources = vec![Source::Inbox];
        poller.add(&shared.inboxes[usize::from(id.0)].waker, 0)?;
        let mut watch = |fd: &dyn std::os::fd::AsFd, source| {
            poller.add(&fd.as_fd(), sources.len() as u64)?;
            sources.push(source);
            io::Result::Ok(())
        };
        for (number, port) in ports.iter().enumerate() {
            watch(&port.queue, Source::Port(number))?;
        }
        for (underlay, sockets) in underlays.iter().enumerate() {
            for (socket, receiver) in sockets.receivers.iter().enumerate() {
                watch(receiver, Source::Receiver { underlay, socket })?;
            }
            for (socket, sender) in sockets.senders.iter().enumerate() {
                watch(sender, Source::Sender { underlay, socket })?;
            }
        }
        let port_of = ports.iter().enumerate().map(|(number, port)| (port.at, number)).collect();
        Ok(Self {
            id,
            ingress,
            returns,
            io: Io {
                id,
                stats: Arc::clone(&shared.stats[usize::from(id.0)]),
                shared: Arc::clone(&shared),
                snapshot: shared.snapshot.load_full(),
                ports,
                port_of,
                pools,
                underlays,
                encapsulator: Encapsulator::default(),
            },
            shared,
            poller,
            sources,
            tun_slots: (0..TUN_BATCH).map(|_| Slot::with_capacity(BUFFER)).collect(),
            udp_slots: (0..UDP_BATCH).map(|_| Slot::with_capacity(BUFFER)).collect(),
            coalescer: Coalescer::new(limits),
        })
    }

    /// Carries packets until the gateway drains.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut snapshot = Cache::new(&shared.snapshot);
        let mut ready = Vec::new();
        let mut active: Vec<Source> = Vec::new();
        let mut drain = None;
        loop {
            let now = clock::now();
            if drain.is_none() && shared.is_draining() {
                self.close_entrances();
                active.retain(|source| !matches!(source, Source::Port(_)));
                drain = Some(Drain { quiet: now + DRAIN_QUIET, end: now + DRAIN_LIMIT });
            }
            let timeout = match &drain {
                Some(drain) if drain.is_over(now) => break,
                _ if !active.is_empty() => Some(Duration::ZERO),
                Some(drain) => Some(drain.next().saturating_duration_since(now)),
                None => self.ingress.poll_timeout().map(|at| at.saturating_duration_since(now)),
            };
            if let Err(error) = self.poller.wait(&mut ready, timeout) {
                tracing::error!(worker = self.id.0, %error, "cannot wait for packets");
                break;
            }
            for source in ready.iter().map(|&token| self.sources[token as usize]) {
                if !active.contains(&source) {
                    active.push(source);
                }
            }
            // Once for each batch, not for each packet: the time and the configuration.
            let now = clock::now();
            let latest = snapshot.load();
            if !Arc::ptr_eq(latest, &self.io.snapshot) {
                self.io.snapshot = Arc::clone(latest);
                self.ingress.handle_snapshot(Arc::clone(latest));
                self.returns.handle_snapshot(Arc::clone(latest));
            }
            if self.ingress.poll_timeout().is_some_and(|at| at <= now) {
                self.ingress.handle_timeout(now);
            }
            let before = self.io.stats.udp.flow.received.get();
            active.retain(|&source| self.serve(source, now));
            if let Some(drain) = &mut drain
                && self.io.stats.udp.flow.received.get() != before
            {
                drain.quiet = now + DRAIN_QUIET;
            }
            self.count_syscalls();
        }
    }

    /// Takes a batch from one source; says whether there may be more.
    fn serve(&mut self, source: Source, now: Instant) -> bool {
        let more = match source {
            Source::Inbox => Ok(self.take_inbox(now)),
            Source::Port(port) => self.take_tun(port, now),
            Source::Receiver { underlay, socket } => self.take_udp(underlay, socket, now),
            Source::Sender { underlay, socket } => {
                let socket = &mut self.io.underlays[underlay].senders[socket];
                count_errors(&self.io.stats, socket);
                Ok(false)
            }
        };
        more.unwrap_or_else(|error| {
            if let Source::Receiver { underlay, socket } = source {
                count_errors(&self.io.stats, &mut self.io.underlays[underlay].receivers[socket]);
            }
            tracing::debug!(worker = self.id.0, ?source, %error, "cannot receive");
            false
        })
    }

    fn take_inbox(&mut self, now: Instant) -> bool {
        let shared = Arc::clone(&self.shared);
        let inbox = &shared.inboxes[usize::from(self.id.0)];
        // Taken back before looking, so that no packet is left without a wake-up.
        let _ = inbox.waker.drain();
        for _ in 0..INBOX {
            let Some(handover) = inbox.packets.pop() else { return false };
            let Handover { from, packet, offload } = handover;
            // It was valid where it was handed over.
            if let Ok(frame) = Frame::parse(packet.bytes(), &offload) {
                ledger(&self.io.stats, from).flow.taken_over.add(frame.segments());
                let verdict = self.ingress.handle_packet(from, &frame, now);
                self.io.execute(from, &frame, verdict);
            }
        }
        true
    }

    fn take_tun(&mut self, port: usize, now: Instant) -> io::Result<bool> {
        let Self { io, ingress, tun_slots, .. } = self;
        let count = io.ports[port].queue.recv(tun_slots)?;
        let from = match io.ports[port].at {
            Attachment::InternetGateway(id) => Entry::InternetGateway(id),
            Attachment::Subnet(id) => Entry::Subnet(id),
        };
        for Slot { packet, meta } in &tun_slots[..count] {
            match Frame::parse(packet.bytes(), meta) {
                Ok(frame) => {
                    io.stats.tun.flow.received.add(frame.segments());
                    let verdict = ingress.handle_packet(from, &frame, now);
                    io.execute(from, &frame, verdict);
                }
                Err(reason) => {
                    io.stats.tun.flow.received.add(1);
                    io.stats.tun.drops.add(reason, 1);
                }
            }
        }
        Ok(count == tun_slots.len())
    }

    fn take_udp(&mut self, underlay: usize, socket: usize, now: Instant) -> io::Result<bool> {
        let Self { io, ingress, returns, udp_slots, coalescer, .. } = self;
        let receiver = &mut io.underlays[underlay].receivers[socket];
        let count = receiver.recv(udp_slots)?;
        let address = io.underlays[underlay].address;
        let slots = &udp_slots[..count];
        for (buffer, Slot { packet, meta }) in slots.iter().enumerate() {
            let local = meta.local.unwrap_or(address);
            let mut start = 0;
            for datagram in datagrams(packet.bytes(), meta.segment_size) {
                io.stats.udp.flow.received.add(1);
                let verdict = returns.handle_datagram(meta.peer, local, datagram);
                if let ReturnVerdict::Accept(returned) = verdict {
                    io.count_return(returned.target, returned.inner.total_len);
                    let inner = &datagram[returned.range.clone()];
                    match returned.way {
                        Way::Deliver(to) => {
                            let place = Place {
                                buffer: buffer as u32,
                                start: (start + returned.range.start) as u32,
                            };
                            match io.port_of.get(&to) {
                                Some(&port) => {
                                    coalescer.push(inner, &returned.inner, place, port, |run| {
                                        io.deliver(slots, &run);
                                    });
                                }
                                None => io.stats.udp.drops.add(DropReason::NotAttached, 1),
                            }
                        }
                        Way::Onward(endpoint) => {
                            let from = Entry::Endpoint(endpoint);
                            let frame = Frame::single(inner, returned.inner);
                            let verdict = ingress.handle_packet(from, &frame, now);
                            io.execute(from, &frame, verdict);
                        }
                    }
                }
                start += datagram.len();
            }
        }
        // The runs refer to the buffers, which the next batch overwrites.
        coalescer.flush(|run| io.deliver(slots, &run));
        Ok(count == udp_slots.len())
    }

    fn close_entrances(&mut self) {
        for port in &self.io.ports {
            let _ = self.poller.remove(&port.queue);
        }
    }

    fn count_syscalls(&self) {
        let io = &self.io;
        let sockets = |underlay: &Underlay| {
            let all = underlay.receivers.iter().chain(&underlay.senders);
            all.map(UdpSocket::syscalls).sum::<u64>()
        };
        let total = self.poller.syscalls()
            + io.ports.iter().map(|port| port.queue.syscalls()).sum::<u64>()
            + io.underlays.iter().map(sockets).sum::<u64>();
        io.stats.io.syscalls.set(total);
    }
}

impl Io {
    /// Does what the data plane decided for a packet, and counts what was done.
    fn execute(&mut self, from: Entry, frame: &Frame<'_>, verdict: Verdict) {
        match verdict {
            Verdict::ToAppliance(hop) => self.encapsulate(from, frame, &hop),
            Verdict::Deliver(to) => {
                self.write(from, to, frame.packet, frame.offload, frame.segments());
            }
            Verdict::HandOver(owner) => self.hand_over(from, frame, owner),
            Verdict::Reply(reply) => {
                ledger(&self.stats, from).flow.generated.add(1);
                self.write(from, reply.to, reply.packet.bytes(), &Offload::NONE, 1);
            }
            // Counted where it was decided.
            Verdict::Drop(_) => {}
        }
    }

    fn encapsulate(&mut self, from: Entry, frame: &Frame<'_>, hop: &Hop) {
        let Self { id, shared, snapshot, stats, pools, underlays, encapsulator, .. } = self;
        let socket = &mut underlays[pools[usize::from(hop.pool.0)]].senders[usize::from(hop.port)];
        let ledger = ledger(stats, from);
        let counters = &snapshot.target(hop.target).counters[usize::from(id.0)];
        let sent = |batch: &Batch<'_>, result: io::Result<()>| {
            let segments = batch.segments() as u64;
            match result {
                Ok(()) => {
                    let bytes: usize = batch.pieces.iter().map(|piece| piece.len()).sum();
                    let headers = segments * hop.header.as_bytes().len() as u64;
                    ledger.flow.encapsulated.add(segments);
                    counters.sent_packets.add(segments);
                    counters.sent_bytes.add(bytes as u64 - headers);
                }
                Err(_) => ledger.drops.add(DropReason::SendFailed, segments),
            }
        };
        let mut send = |batch: &Batch<'_>| {
            let meta = |batch: &Batch<'_>| Datagram {
                peer: hop.address,
                segment_size: if batch.segments() > 1 { batch.segment_size } else { 0 },
                ..Datagram::default()
            };
            match socket.send(&meta(batch), batch.pieces) {
                // The segments are longer than the route's MTU, or the device takes no batches.
                Err(error) if batch.segments() > 1 && refuses_batches(&error) => {
                    stats.io.split_sends.add(1);
                    let _ = shared.too_long.push(hop.target);
                    for single in batch.singly() {
                        sent(&single, socket.send(&meta(&single), single.pieces));
                    }
                }
                result => sent(batch, result),
            }
        };
        if encapsulator.encapsulate(&hop.header, frame, &mut send).is_err() {
            ledger.drops.add(DropReason::MalformedPacket, frame.segments());
        }
    }

    fn hand_over(&mut self, from: Entry, frame: &Frame<'_>, to: WorkerId) {
        let segments = frame.segments();
        let packet = PacketBuf::from_slice(frame.packet);
        let handover = Handover { from, packet, offload: *frame.offload };
        let inbox = &self.shared.inboxes[usize::from(to.0)];
        let ledger = ledger(&self.stats, from);
        // Counted before it is pushed: the owner may take it at once, and a reader must never see
        // more taken than given.
        if inbox.packets.is_full() {
            return ledger.drops.add(DropReason::HandoverFull, segments);
        }
        ledger.flow.handed_over.add(segments);
        if inbox.packets.push(handover).is_err() {
            ledger.flow.taken_over.add(segments);
            return ledger.drops.add(DropReason::HandoverFull, segments);
        }
        let _ = inbox.waker.wake();
    }

    fn write(&mut self, from: Entry, to: Attachment, bytes: &[u8], offload: &Offload, n: u64) {
        let ledger = ledger(&self.stats, from);
        let Some(&port) = self.port_of.get(&to) else {
            return ledger.drops.add(DropReason::NotAttached, n);
        };
        match self.ports[port].queue.send(offload, &[IoSlice::new(bytes)]) {
            Ok(()) => ledger.flow.delivered.add(n),
            Err(_) => ledger.drops.add(DropReason::DeliveryFailed, n),
        }
    }

    /// Writes a run of returned packets to the device that it leaves by.
    fn deliver(&mut self, slots: &[Slot<Datagram>], run: &Run<'_, usize>) {
        let mut pieces = std::array::from_fn::<_, { MAX_PIECES + 1 }, _>(|_| IoSlice::new(&[]));
        pieces[0] = IoSlice::new(run.headers);
        for (room, piece) in pieces[1..].iter_mut().zip(run.pieces) {
            *room = IoSlice::new(piece.of(slots[piece.buffer as usize].packet.bytes()));
        }
        let used = &pieces[usize::from(run.headers.is_empty())..=run.pieces.len()];
        let packets = run.pieces.len() as u64;
        match self.ports[run.tag].queue.send(&run.offload, used) {
            Ok(()) => self.stats.udp.flow.delivered.add(packets),
            Err(_) => self.stats.udp.drops.add(DropReason::DeliveryFailed, packets),
        }
    }

    fn count_return(&self, target: TargetSlot, bytes: usize) {
        let counters = &self.snapshot.target(target).counters[usize::from(self.id.0)];
        counters.returned_packets.add(1);
        counters.returned_bytes.add(bytes as u64);
    }
}

/// When a worker that drains may end.
struct Drain {
    quiet: Instant,
    end: Instant,
}

impl Drain {
    fn next(&self) -> Instant {
        self.quiet.min(self.end)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.next() <= now
    }
}

/// The datagrams of a batch that the kernel joined.
fn datagrams(bytes: &[u8], segment_size: u16) -> impl Iterator<Item = &[u8]> {
    let size = match segment_size {
        0 => bytes.len(),
        size => usize::from(size),
    };
    bytes.chunks(size.max(1))
}

/// `UDP_SEGMENT` fails with these where a segment is longer than the route's MTU, or where the
/// device cannot checksum (`udp_send_skb` in the kernel).
fn refuses_batches(error: &io::Error) -> bool {
    use nix::errno::Errno;
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EINVAL | Errno::EMSGSIZE | Errno::EIO)
    )
}

fn count_errors(stats: &WorkerStats, socket: &mut UdpSocket) {
    while let Some(error) = socket.take_error() {
        tracing::debug!(?error, "the underlay reports an error");
        stats.io.underlay_errors.add(1);
    }
}
