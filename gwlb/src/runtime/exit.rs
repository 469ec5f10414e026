//! How packets leave a worker: to appliances, to TUN devices, to other workers.
//!
//! It does what the data plane decided and counts what was really done; it decides nothing.

mod cut;
mod sampler;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;

use geneve::buffer::PacketBuf;
use netio::offload::{MAX_PIECES, Offload, Piece, Run};
use netio::tun::TunQueue;
use netio::udp::Datagram;
use netio::{Device, Slot};
use nix::errno::Errno;
use router::{Attachment, EndpointId};

use super::capture::Point;
use super::clock;
use super::rig::{Parts, Rig};
use super::shared::{Handover, Shared};
use super::underlay::Underlay;
use super::witness::{Dropped, Whereabouts, Witness};
use crate::dataplane::Glance;
use crate::dataplane::by_attachment::ByAttachment;
use crate::dataplane::encap::{Batch, Encapsulator};
use crate::dataplane::frame::Frame;
use crate::dataplane::gather::{self, Gatherer};
use crate::dataplane::mss;
use crate::dataplane::snapshot::{PoolId, Snapshot, TargetSlot};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::translate::Head;
use crate::dataplane::verdict::{
    Change, Course, DropReason, GeneveHeader, Hop, Origin, Reply, Side, Verdict, WorkerId,
};

use sampler::Sampler;

/// What a worker sends with.
#[derive(Debug)]
pub(super) struct Exit {
    id: WorkerId,
    shared: Arc<Shared>,
    pub stats: Arc<WorkerStats>,
    pub snapshot: Arc<Snapshot>,
    /// What the devices and sockets below are for, in the configuration of the snapshot.
    pub rig: Arc<Rig>,
    /// The devices, by number.
    pub ports: Vec<TunQueue>,
    pub port_of: ByAttachment<usize>,
    /// By number; a hole where a node was removed.
    pub underlays: Vec<Option<Underlay>>,
    encapsulator: Encapsulator,
    /// A packet that is changed before it goes out.
    scratch: Vec<u8>,
    gatherer: Gatherer<Lane>,
    /// Sees what is done with packets.
    pub witness: Witness,
    pub sampler: Sampler,
}

/// What small packets have to have in common to go out together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lane {
    side: Side,
    pool: PoolId,
    port: u16,
    target: TargetSlot,
}

impl gather::Lane for Lane {
    #[inline]
    fn digest(&self) -> usize {
        gather::digest(self.target, self.port)
    }
}

impl Exit {
    /// The exits of one worker, with nothing to send with yet.
    pub fn new(id: WorkerId, shared: Arc<Shared>, snapshot: Arc<Snapshot>) -> Self {
        let record = Arc::clone(&shared.drops[usize::from(id.0)]);
        let sampler = Sampler::new(shared.started, snapshot.targets.len());
        Self {
            id,
            witness: Witness::new(id, shared.captures.plan(), record, shared.started),
            stats: Arc::clone(&shared.stats[usize::from(id.0)]),
            snapshot,
            rig: Arc::default(),
            shared,
            ports: Vec::new(),
            port_of: ByAttachment::default(),
            underlays: Vec::new(),
            encapsulator: Encapsulator::default(),
            scratch: Vec::new(),
            gatherer: Gatherer::default(),
            sampler,
        }
    }

    /// Takes up another view.
    pub fn take_up(&mut self, snapshot: Arc<Snapshot>) {
        self.sampler.make_room(snapshot.targets.len());
        self.snapshot = snapshot;
    }

    /// Takes up what is new, and lets go of the sockets that `rig` has no use for.
    pub fn refit(&mut self, rig: Arc<Rig>, new: impl Iterator<Item = Parts>) {
        for parts in new {
            self.ports.extend(parts.ports);
            put(&mut self.underlays, parts.underlays);
        }
        let own = rig.ports.iter().enumerate().map(|(number, &at)| (at, number));
        self.port_of = own.chain(rig.through.iter().copied()).collect();
        for (number, underlay) in self.underlays.iter_mut().enumerate() {
            if !rig.uses_underlay(number) {
                *underlay = None;
            }
        }
        self.rig = rig;
    }

    /// Does what the data plane decided for a packet, and counts what was done.
    pub fn execute(&mut self, origin: Origin, frame: &Frame<'_>, verdict: Verdict) {
        match verdict {
            Verdict::ToAppliance(hop) => self.send(origin, frame, &hop),
            Verdict::Deliver(to) | Verdict::Bypass(to) => {
                let uninspected = matches!(verdict, Verdict::Bypass(_));
                let (bytes, offload) = (frame.packet, frame.offload);
                let written = self.write(origin.side, to, bytes, offload, frame.segments());
                let ledger = &self.stats.ledger(origin.side).flow;
                let counter = if uninspected { &ledger.bypassed } else { &ledger.delivered };
                counter.add(written);
            }
            Verdict::HandOver(owner, from) => self.hand_over(from, frame, owner),
            Verdict::Reply(reply) => self.reply(origin.side, &reply),
            // Counted where it was decided.
            Verdict::Drop(reason) => {
                let segments = frame.segments();
                let at = Whereabouts::At(origin);
                self.dropped(reason, segments, at, frame.packet, frame.offload);
            }
            Verdict::Held => {}
        }
    }

    /// Tells those who look that a packet was dropped, once that is counted.
    #[inline]
    pub fn dropped(
        &mut self,
        reason: DropReason,
        segments: u64,
        whereabouts: Whereabouts,
        bytes: &[u8],
        offload: &Offload,
    ) {
        let pieces = &[IoSlice::new(bytes)];
        let dropped = Dropped { reason, segments, whereabouts, pieces, offload };
        self.witness.dropped(&self.snapshot, &dropped);
    }

    /// Counts a packet that is dropped here, and tells of it.
    pub fn drop_packet(&mut self, reason: DropReason, from: Origin, frame: &Frame<'_>) {
        let segments = frame.segments();
        self.stats.ledger(from.side).drops.add(reason, segments);
        self.dropped(reason, segments, Whereabouts::At(from), frame.packet, frame.offload);
    }

    /// Sends a packet that the gateway made.
    pub fn reply(&mut self, side: Side, reply: &Reply) {
        self.stats.ledger(side).flow.generated.add(1);
        let written = self.write(side, reply.to, reply.packet.bytes(), &Offload::NONE, 1);
        self.stats.ledger(side).flow.delivered.add(written);
    }

    fn send(&mut self, origin: Origin, frame: &Frame<'_>, hop: &Hop) {
        match hop.change {
            None => self.encapsulate(origin, frame, hop),
            Some(Change::ClampMss(mtu)) => {
                let mut packet = std::mem::take(&mut self.scratch);
                packet.clear();
                packet.extend_from_slice(frame.packet);
                mss::clamp(&mut packet, &frame.inner, frame.offload, mtu);
                self.encapsulate(origin, &Frame { packet: &packet, ..*frame }, hop);
                self.scratch = packet;
            }
            Some(Change::Fragment(mtu)) => self.fragment(origin, frame, hop, mtu),
        }
    }

    /// Sends a packet in fragments. Those that it becomes more than it was are counted as made
    /// here.
    fn fragment(&mut self, origin: Origin, frame: &Frame<'_>, hop: &Hop, mtu: u16) {
        let lane = Lane { side: origin.side, pool: hop.pool, port: hop.port, target: hop.target };
        let (mut sender, gatherer, encapsulator) = self.split();
        gatherer.flush_lane(lane, |lane, batch| sender.transmit(&lane, batch));
        let result = encapsulator.encapsulate_fragmented(&hop.header, frame, mtu, |batch| {
            sender.transmit(&lane, batch);
        });
        match result {
            Ok(more) => self.stats.ledger(origin.side).flow.generated.add(more),
            Err(_) => self.drop_packet(DropReason::MalformedPacket, origin, frame),
        }
    }

    /// Sends a packet of a settled flow on its way.
    #[inline]
    pub fn send_settled(
        &mut self,
        origin: Origin,
        packet: &[u8],
        offload: &Offload,
        glance: &Glance,
        course: &Course,
    ) {
        if *offload != Offload::NONE {
            // It is to be segmented, or has a checksum to be completed.
            let hop = course.hop(&self.snapshot);
            return self.encapsulate(origin, &glance.frame(packet, offload), &hop);
        }
        // What lies behind the packet is no part of it.
        let packet = &packet[..glance.total_len()];
        let mut header = GeneveHeader::default();
        course.write_header(&self.snapshot, &mut header);
        let Course { pool, port, target, .. } = *course;
        let lane = Lane { side: origin.side, pool, port: port.into(), target };
        let (mut sender, gatherer, _) = self.split();
        gatherer.send_whole(lane, &header, packet, |lane, batch| sender.transmit(&lane, batch));
    }

    fn encapsulate(&mut self, origin: Origin, frame: &Frame<'_>, hop: &Hop) {
        let lane = Lane { side: origin.side, pool: hop.pool, port: hop.port, target: hop.target };
        let (mut sender, gatherer, encapsulator) = self.split();
        let result = if Gatherer::<Lane>::takes(frame) {
            let send = |lane, batch: &Batch<'_>| sender.transmit(&lane, batch);
            gatherer.push(lane, &hop.header, frame, send)
        } else {
            // What came first leaves first.
            gatherer.flush_lane(lane, |lane, batch| sender.transmit(&lane, batch));
            let send = |batch: &Batch<'_>| sender.transmit(&lane, batch);
            encapsulator.encapsulate(&hop.header, frame, send)
        };
        if result.is_err() {
            self.drop_packet(DropReason::MalformedPacket, origin, frame);
        }
    }

    /// Sends the small packets that were gathered; at the end of every batch, so that none waits.
    pub fn flush(&mut self) {
        let (mut sender, gatherer, _) = self.split();
        gatherer.flush(|lane, batch| sender.transmit(&lane, batch));
    }

    /// What sends, and what makes that which is sent.
    #[inline]
    fn split(&mut self) -> (Sender<'_>, &mut Gatherer<Lane>, &mut Encapsulator) {
        let Self {
            id,
            shared,
            snapshot,
            stats,
            rig,
            underlays,
            gatherer,
            encapsulator,
            witness,
            sampler,
            ..
        } = self;
        let sender = Sender { id: *id, shared, snapshot, stats, rig, underlays, witness, sampler };
        (sender, gatherer, encapsulator)
    }

    fn hand_over(&mut self, from: Origin, frame: &Frame<'_>, to: WorkerId) {
        let segments = frame.segments();
        let packet = PacketBuf::from_slice(frame.packet);
        let epoch = self.snapshot.topology_epoch;
        let handover = Handover { from, epoch, packet, offload: *frame.offload };
        let inbox = &self.shared.exchange.inboxes[usize::from(to.0)];
        let ledger = self.stats.ledger(from.side);
        if inbox.give(handover, &ledger.flow, segments).is_err() {
            self.drop_packet(DropReason::HandoverFull, from, frame);
        }
    }

    /// Writes a packet, which stands for `n`, to the device that it leaves by. Returns how many were
    /// written; the others are counted here.
    fn write(
        &mut self,
        side: Side,
        to: Attachment,
        bytes: &[u8],
        offload: &Offload,
        n: u64,
    ) -> u64 {
        let leaving = Whereabouts::Leaving { to, side };
        let queue = self.port_of.get(to).and_then(|port| self.ports.get_mut(port));
        let Some(queue) = queue else {
            self.stats.ledger(side).drops.add(DropReason::NotAttached, n);
            self.dropped(DropReason::NotAttached, n, leaving, bytes, offload);
            return 0;
        };
        let translation = self.snapshot.translation(to);
        let head = translation.and_then(|translation| translation.outward_head(bytes, offload));
        let pieces = Head::before(head.as_ref(), bytes);
        let written = if queue.has_offload() || *offload == Offload::NONE {
            queue.send(offload, &pieces.map(IoSlice::new)).map_or(0, |()| n)
        } else {
            cut::send(queue, &pieces.concat(), offload)
        };
        if written > 0 && self.witness.looks_at(Point::Out) {
            let written_pieces = pieces.map(IoSlice::new);
            let bytes = (bytes, &written_pieces[..]);
            self.witness.left(&self.snapshot, (to, side), written, bytes, offload);
        }
        let failed = n.saturating_sub(written);
        if failed > 0 {
            self.stats.ledger(side).drops.add(DropReason::DeliveryFailed, failed);
            self.dropped(DropReason::DeliveryFailed, failed, leaving, bytes, offload);
        }
        written
    }

    /// Writes a run of returned packets to the device that it leaves by.
    pub fn deliver(&mut self, slots: &[Slot<Datagram>], run: &Run<'_, usize>) {
        let bytes_of = |piece: &Piece| piece.of(slots[piece.buffer as usize].packet.bytes());
        let (start, others) = match run.pieces {
            [single] if run.headers.is_empty() => (bytes_of(single), &[][..]),
            joined => (run.headers, joined),
        };
        let packets = run.pieces.len() as u64;
        let at = self.rig.ports.get(run.tag).copied();
        let Some((at, queue)) = at.zip(self.ports.get_mut(run.tag)) else {
            // Its device is taken up and let go of together with the view, so this does not happen.
            self.stats.udp.drops.add(DropReason::NotAttached, packets);
            let pieces = std::iter::once(start).chain(others.iter().map(bytes_of));
            let dropped = Dropped {
                reason: DropReason::NotAttached,
                segments: packets,
                whereabouts: Whereabouts::Gone(Side::Udp),
                pieces: &pieces.map(IoSlice::new).collect::<Vec<_>>(),
                offload: &run.offload,
            };
            return self.witness.dropped(&self.snapshot, &dropped);
        };
        // Once for all packets that were joined.
        let translation = self.snapshot.translation(at);
        let head =
            translation.and_then(|translation| translation.outward_head(start, &run.offload));
        let parts =
            Head::before(head.as_ref(), start).into_iter().chain(others.iter().map(bytes_of));
        let mut pieces = std::array::from_fn::<_, { MAX_PIECES + 2 }, _>(|_| IoSlice::new(&[]));
        let mut used = 0;
        for (room, part) in pieces.iter_mut().zip(parts.filter(|part| !part.is_empty())) {
            *room = IoSlice::new(part);
            used += 1;
        }
        let pieces = &pieces[..used];
        if queue.send(&run.offload, pieces).is_ok() {
            self.stats.udp.flow.delivered.add(packets);
            if self.witness.looks_at(Point::Out) {
                let bytes = (start, pieces);
                let to = (at, Side::Udp);
                self.witness.left(&self.snapshot, to, packets, bytes, &run.offload);
            }
            return;
        }
        self.stats.udp.drops.add(DropReason::DeliveryFailed, packets);
        let dropped = Dropped {
            reason: DropReason::DeliveryFailed,
            segments: packets,
            whereabouts: Whereabouts::Leaving { to: at, side: Side::Udp },
            pieces,
            offload: &run.offload,
        };
        self.witness.dropped(&self.snapshot, &dropped);
    }

    /// Counts packets that came back.
    pub fn count_returns(&self, returns: &Returns) {
        let Some((target, endpoint)) = returns.of else { return };
        let counters = &self.snapshot.target(target).counters[usize::from(self.id.0)];
        counters.returned_packets.add(returns.packets);
        counters.returned_bytes.add(returns.bytes);
        if let Some(counters) = self.snapshot.endpoint(endpoint).counters.get(self.id.0) {
            counters.returned_packets.add(returns.packets);
            counters.returned_bytes.add(returns.bytes);
        }
    }

    /// Notes a packet that came back, if one is waited for.
    #[inline]
    pub fn see_return(&mut self, target: TargetSlot, packet: &[u8]) {
        if self.sampler.is_waiting() {
            let view = self.snapshot.target(target);
            self.sampler.see(target, packet, &view.round_trips[usize::from(self.id.0)]);
        }
    }
}

/// Packets that came back one after the other from one target to one endpoint: counted together.
#[derive(Debug, Default)]
pub(super) struct Returns {
    of: Option<(TargetSlot, EndpointId)>,
    packets: u64,
    bytes: u64,
}

impl Returns {
    /// Another packet. Those before it are to be counted if they are of another kind.
    #[inline]
    pub fn add(&mut self, of: (TargetSlot, EndpointId), bytes: usize, count: impl FnOnce(&Self)) {
        if self.of != Some(of) {
            count(self);
            *self = Self { of: Some(of), packets: 0, bytes: 0 };
        }
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// What a batch is sent with.
struct Sender<'a> {
    id: WorkerId,
    shared: &'a Shared,
    snapshot: &'a Arc<Snapshot>,
    stats: &'a WorkerStats,
    rig: &'a Rig,
    underlays: &'a mut [Option<Underlay>],
    witness: &'a mut Witness,
    sampler: &'a mut Sampler,
}

impl Sender<'_> {
    fn transmit(&mut self, lane: &Lane, batch: &Batch<'_>) {
        let Self { id, shared, snapshot, stats, rig, underlays, witness, sampler } = self;
        let ledger = stats.ledger(lane.side);
        let underlay = rig.underlay(lane.pool).and_then(|number| underlays.get_mut(number));
        let Some(Some(underlay)) = underlay else {
            // A snapshot is taken up together with what it needs, so this does not happen.
            ledger.drops.add(DropReason::SendFailed, batch.segments as u64);
            // There is no socket, and so no port that it would have come from.
            let local = SocketAddr::new(snapshot.pool(lane.pool).address, 0);
            let peer = snapshot.target(lane.target).address;
            let whereabouts = Whereabouts::To { peer, local, side: lane.side };
            return unsent(witness, snapshot, whereabouts, batch);
        };
        let socket = &mut underlay.senders[usize::from(lane.port)];
        let target = snapshot.target(lane.target);
        let (local, peer) = (socket.local_addr(), target.address);
        let whereabouts = Whereabouts::To { peer, local, side: lane.side };
        let mut send = |batch: &Batch<'_>| {
            let segment_size = if batch.segments > 1 { batch.segment_size } else { 0 };
            let meta = Datagram { peer: target.address, segment_size, ..Datagram::default() };
            socket.send(&meta, batch.pieces)
        };
        let counters = &target.counters[usize::from(id.0)];
        let mut count = |batch: &Batch<'_>, result: io::Result<()>| {
            let segments = batch.segments as u64;
            if let Err(error) = result {
                if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) {
                    let _ = shared.notices.too_long.push(lane.target);
                }
                ledger.drops.add(DropReason::SendFailed, segments);
                return unsent(witness, snapshot, whereabouts, batch);
            }
            if witness.looks_at(Point::ToAppliance) {
                witness.sent(snapshot, whereabouts, batch);
            }
            let headers = batch.segments * target.dialect.header_len();
            ledger.flow.encapsulated.add(segments);
            counters.sent_packets.add(segments);
            counters.sent_bytes.add((batch.len() - headers) as u64);
        };
        stats.batches.sent.record(batch.segments as u64);
        // Before it is sent: with an appliance on this host, much happens within the call.
        let sampled = sampler.is_due(lane.target).then(clock::now);
        match send(batch) {
            // The segments are longer than the route's MTU, or the device takes no batches.
            Err(error) if batch.segments > 1 && refuses_batches(&error) => {
                stats.io.split_sends.add(1);
                let _ = shared.notices.too_long.push(lane.target);
                batch.singly(|single| count(single, send(single)));
            }
            result => {
                if let Some(begun) = sampled
                    && result.is_ok()
                {
                    sampler.sent(lane.target, batch, target.dialect.header_len(), begun);
                }
                count(batch, result);
            }
        }
    }
}

/// Tells of datagrams that could not be sent, once they are counted.
#[cold]
fn unsent(witness: &mut Witness, view: &Arc<Snapshot>, to: Whereabouts, batch: &Batch<'_>) {
    batch.singly(|datagram| {
        let dropped = Dropped {
            reason: DropReason::SendFailed,
            segments: 1,
            whereabouts: to,
            pieces: datagram.pieces,
            offload: &Offload::NONE,
        };
        witness.dropped(view, &dropped);
    });
}

/// Puts each thing in its numbered place.
fn put<T>(places: &mut Vec<Option<T>>, new: Vec<(usize, T)>) {
    for (number, thing) in new {
        if places.len() <= number {
            places.resize_with(number + 1, || None);
        }
        places[number] = Some(thing);
    }
}

/// `UDP_SEGMENT` fails with these where a segment is longer than the route's MTU, or where the
/// device cannot checksum (`udp_send_skb` in the kernel).
fn refuses_batches(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EINVAL | Errno::EMSGSIZE | Errno::EIO)
    )
}
