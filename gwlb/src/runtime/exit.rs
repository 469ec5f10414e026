//! How packets leave a worker: to appliances, to TUN devices, to other workers.
//!
//! It does what the data plane decided and counts what was really done; it decides nothing.

use std::io::{self, IoSlice};
use std::sync::Arc;

use ahash::AHashMap;
use geneve::buffer::PacketBuf;
use netio::offload::{MAX_PIECES, Offload, Piece, Run};
use netio::tun::TunQueue;
use netio::udp::Datagram;
use netio::{Device, Slot};
use nix::errno::Errno;
use router::{Attachment, Entry, SubnetId};

use super::shared::{Handover, Shared};
use super::underlay::Underlay;
use crate::dataplane::encap::{Batch, Encapsulator, Gathered};
use crate::dataplane::frame::Frame;
use crate::dataplane::ingress::ledger;
use crate::dataplane::snapshot::{PoolId, Snapshot, TargetSlot};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::translate::Head;
use crate::dataplane::verdict::{DropReason, Hop, Verdict, WorkerId};

/// A TUN queue and what it is attached to.
#[derive(Debug)]
pub(super) struct Attached {
    pub at: Attachment,
    pub queue: TunQueue,
}

/// What a worker sends with.
#[derive(Debug)]
pub(super) struct Exit {
    id: WorkerId,
    shared: Arc<Shared>,
    pub stats: Arc<WorkerStats>,
    pub snapshot: Arc<Snapshot>,
    pub ports: Vec<Attached>,
    pub port_of: AHashMap<Attachment, usize>,
    pools: Vec<usize>,
    pub underlays: Vec<Underlay>,
    encapsulator: Encapsulator,
    gathered: Gathered,
    /// Where what is gathered goes.
    lane: Lane,
}

/// What small packets have to have in common to go out together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lane {
    from: Entry,
    pool: PoolId,
    port: u16,
    target: TargetSlot,
}

impl Exit {
    /// The exits of one worker.
    pub fn new(
        id: WorkerId,
        shared: Arc<Shared>,
        ports: Vec<Attached>,
        pools: Vec<usize>,
        underlays: Vec<Underlay>,
    ) -> Self {
        Self {
            id,
            stats: Arc::clone(&shared.stats[usize::from(id.0)]),
            snapshot: shared.snapshot.load_full(),
            shared,
            port_of: ports.iter().enumerate().map(|(number, port)| (port.at, number)).collect(),
            ports,
            pools,
            underlays,
            encapsulator: Encapsulator::default(),
            gathered: Gathered::default(),
            // Of nobody, as long as nothing is gathered.
            lane: Lane {
                from: Entry::Subnet(SubnetId::from_index(0)),
                pool: PoolId(0),
                port: 0,
                target: TargetSlot(0),
            },
        }
    }

    /// Does what the data plane decided for a packet, and counts what was done.
    pub fn execute(&mut self, from: Entry, frame: &Frame<'_>, verdict: Verdict) {
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
        let lane = Lane { from, pool: hop.pool, port: hop.port, target: hop.target };
        let small = Gathered::takes(frame);
        if !small || lane != self.lane || !self.gathered.fits(&hop.header, frame) {
            // What came first leaves first.
            self.flush();
        }
        let result = if small {
            self.lane = lane;
            self.gathered.push(&hop.header, frame)
        } else {
            let mut encapsulator = std::mem::take(&mut self.encapsulator);
            let send = |batch: &Batch<'_>| self.transmit(&lane, batch);
            let result = encapsulator.encapsulate(&hop.header, frame, send);
            self.encapsulator = encapsulator;
            result
        };
        if result.is_err() {
            ledger(&self.stats, from).drops.add(DropReason::MalformedPacket, frame.segments());
        }
    }

    /// Sends the small packets that were gathered; at the end of every batch, so that none waits.
    pub fn flush(&mut self) {
        let mut gathered = std::mem::take(&mut self.gathered);
        let lane = self.lane;
        gathered.flush(|batch| self.transmit(&lane, batch));
        self.gathered = gathered;
    }

    fn transmit(&mut self, lane: &Lane, batch: &Batch<'_>) {
        let Self { id, shared, snapshot, stats, pools, underlays, .. } = self;
        let underlay = &mut underlays[pools[usize::from(lane.pool.0)]];
        let socket = &mut underlay.senders[usize::from(lane.port)];
        let target = snapshot.target(lane.target);
        let mut send = |batch: &Batch<'_>| {
            let segment_size = if batch.segments > 1 { batch.segment_size } else { 0 };
            let meta = Datagram { peer: target.address, segment_size, ..Datagram::default() };
            socket.send(&meta, batch.pieces)
        };
        let ledger = ledger(stats, lane.from);
        let counters = &target.counters[usize::from(id.0)];
        let count = |batch: &Batch<'_>, result: io::Result<()>| {
            let segments = batch.segments as u64;
            if result.is_err() {
                return ledger.drops.add(DropReason::SendFailed, segments);
            }
            let headers = batch.segments * target.dialect.header_len();
            ledger.flow.encapsulated.add(segments);
            counters.sent_packets.add(segments);
            counters.sent_bytes.add((batch.len() - headers) as u64);
        };
        match send(batch) {
            // The segments are longer than the route's MTU, or the device takes no batches.
            Err(error) if batch.segments > 1 && refuses_batches(&error) => {
                stats.io.split_sends.add(1);
                let _ = shared.too_long.push(lane.target);
                batch.singly(|single| count(single, send(single)));
            }
            result => count(batch, result),
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
        let translation = self.snapshot.translation(to);
        let head = translation.and_then(|translation| translation.outward_head(bytes, offload));
        let pieces = Head::before(head.as_ref(), bytes).map(IoSlice::new);
        match self.ports[port].queue.send(offload, &pieces) {
            Ok(()) => ledger.flow.delivered.add(n),
            Err(_) => ledger.drops.add(DropReason::DeliveryFailed, n),
        }
    }

    /// Writes a run of returned packets to the device that it leaves by.
    pub fn deliver(&mut self, slots: &[Slot<Datagram>], run: &Run<'_, usize>) {
        let bytes_of = |piece: &Piece| piece.of(slots[piece.buffer as usize].packet.bytes());
        let (start, others) = match run.pieces {
            [single] if run.headers.is_empty() => (bytes_of(single), &[][..]),
            joined => (run.headers, joined),
        };
        let port = &mut self.ports[run.tag];
        // Once for all packets that were joined.
        let translation = self.snapshot.translation(port.at);
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
        let packets = run.pieces.len() as u64;
        match port.queue.send(&run.offload, &pieces[..used]) {
            Ok(()) => self.stats.udp.flow.delivered.add(packets),
            Err(_) => self.stats.udp.drops.add(DropReason::DeliveryFailed, packets),
        }
    }

    pub fn count_return(&self, target: TargetSlot, bytes: usize) {
        let counters = &self.snapshot.target(target).counters[usize::from(self.id.0)];
        counters.returned_packets.add(1);
        counters.returned_bytes.add(bytes as u64);
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
