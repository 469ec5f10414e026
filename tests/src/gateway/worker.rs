//! One worker: its halves of the data plane, and what the runtime's worker does around them.

use std::sync::Arc;
use std::time::Instant;

use gwlb::dataplane::encap::{Batch, Encapsulator, Gathered};
use gwlb::dataplane::fragments::FragmentTable;
use gwlb::dataplane::frame::Frame;
use gwlb::dataplane::ingress::ledger;
use gwlb::dataplane::snapshot::{Snapshot, TargetSlot};
use gwlb::dataplane::stats::WorkerStats;
use gwlb::dataplane::verdict::{DropReason, Hop, ReturnVerdict, Returned, Verdict, Way, WorkerId};
use gwlb::dataplane::{Ingress, IngressConfig, Return};
use netio::offload::{Coalescer, Limits, Offload, Place};
use router::{Attachment, Entry};

use super::exits::{Exits, Handover};
use super::{Datagram, Packet};

/// What workers have in common when they are made.
pub(super) struct Surroundings<'a> {
    pub max_flows: usize,
    pub fragments: &'a Arc<FragmentTable>,
    pub snapshot: &'a Arc<Snapshot>,
    pub start: Instant,
}

#[derive(Debug)]
pub(super) struct Worker {
    id: WorkerId,
    pub ingress: Ingress,
    pub returns: Return,
    pub stats: Arc<WorkerStats>,
    encapsulator: Encapsulator,
    gathered: Gathered,
    /// Where what is gathered goes, and which ledger it is counted in.
    lane: Option<(Entry, Hop)>,
    coalescer: Coalescer<Attachment>,
}

impl Worker {
    pub fn new(id: WorkerId, around: &Surroundings<'_>) -> Worker {
        let stats = Arc::new(WorkerStats::default());
        let config = IngressConfig {
            worker: id,
            max_flows: around.max_flows,
            seed: id.0.into(),
            fragments: Arc::clone(around.fragments),
            stats: Arc::clone(&stats),
        };
        let snapshot = Arc::clone(around.snapshot);
        Worker {
            id,
            ingress: Ingress::new(config, Arc::clone(&snapshot), around.start),
            returns: Return::new(snapshot, Arc::clone(&stats)),
            stats,
            encapsulator: Encapsulator::default(),
            gathered: Gathered::default(),
            lane: None,
            coalescer: Coalescer::new(Limits::default()),
        }
    }

    pub fn take_tun(&mut self, at: Attachment, batch: &[Packet], now: Instant, exits: &mut Exits) {
        let snapshot = Arc::clone(&exits.snapshot);
        for Packet { bytes, offload } in batch {
            let mut bytes = bytes.clone();
            if let Some(translation) = snapshot.translation(at) {
                translation.inward(&mut bytes, offload);
            }
            match Frame::parse(&bytes, offload) {
                Ok(frame) => {
                    self.stats.tun.flow.received.add(frame.segments());
                    self.handle(at.into(), &frame, now, exits);
                }
                Err(reason) => {
                    self.stats.tun.flow.received.add(1);
                    self.stats.tun.drops.add(reason, 1);
                }
            }
        }
        self.flush(exits);
    }

    pub fn take_udp(&mut self, batch: &[Datagram], now: Instant, exits: &mut Exits) {
        let mut runs = Vec::new();
        let mut genuine: Vec<(Attachment, &[u8])> = Vec::new();
        for (buffer, Datagram { from, to, bytes }) in batch.iter().enumerate() {
            self.stats.udp.flow.received.add(1);
            let verdict = self.returns.handle_datagram(*from, *to, bytes);
            let ReturnVerdict::Accept(Returned { way, target, range, inner }) = verdict else {
                continue;
            };
            self.count_return(exits, target, inner.total_len);
            let packet = &bytes[range.clone()];
            match way {
                Way::Deliver(to) => {
                    genuine.push((to, packet));
                    let place = Place { buffer: buffer as u32, start: range.start as u32 };
                    self.coalescer.push(packet, &inner, place, to, |run| {
                        runs.push(exits.deliver(&self.stats, batch, &run));
                    });
                }
                Way::Onward(endpoint) => {
                    let frame = Frame::single(packet, inner);
                    self.handle(Entry::Endpoint(endpoint), &frame, now, exits);
                }
            }
        }
        self.coalescer.flush(|run| runs.push(exits.deliver(&self.stats, batch, &run)));
        exits.assert_transparent(runs, genuine);
        self.flush(exits);
    }

    pub fn take_inbox(&mut self, now: Instant, exits: &mut Exits) {
        while let Some(handover) = exits.inbox(self.id).pop_front() {
            let Handover { from, packet, offload } = handover;
            let frame = Frame::parse(&packet, &offload).expect("it was valid where it was read");
            ledger(&self.stats, from).flow.taken_over.add(frame.segments());
            self.handle(from, &frame, now, exits);
        }
        self.flush(exits);
    }

    fn handle(&mut self, from: Entry, frame: &Frame<'_>, now: Instant, exits: &mut Exits) {
        let verdict = self.ingress.handle_packet(from, frame, now);
        let ledger = ledger(&self.stats, from);
        match verdict {
            Verdict::ToAppliance(hop) => self.encapsulate(from, frame, hop, exits),
            Verdict::Deliver(to) => match exits.write(to, frame.packet, frame.offload) {
                Ok(written) => {
                    assert_eq!(written, frame.segments(), "written as counted");
                    ledger.flow.delivered.add(written);
                }
                Err(_) => ledger.drops.add(DropReason::DeliveryFailed, frame.segments()),
            },
            Verdict::HandOver(to) => {
                assert_ne!(to, self.id, "a packet was handed over to its worker");
                let (packet, offload) = (frame.packet.to_vec(), *frame.offload);
                match exits.hand_over(to, Handover { from, packet, offload }) {
                    Ok(()) => ledger.flow.handed_over.add(frame.segments()),
                    Err(_) => ledger.drops.add(DropReason::HandoverFull, frame.segments()),
                }
            }
            Verdict::Reply(reply) => {
                ledger.flow.generated.add(1);
                let written = exits.write(reply.to, reply.packet.bytes(), &Offload::NONE);
                ledger.flow.delivered.add(written.expect("a reply is one whole packet"));
            }
            Verdict::Drop(_) => {}
        }
    }

    fn encapsulate(&mut self, from: Entry, frame: &Frame<'_>, hop: Hop, exits: &mut Exits) {
        let same = |(source, to): (Entry, Hop)| {
            source == from && (to.pool, to.port, to.target) == (hop.pool, hop.port, hop.target)
        };
        let small = Gathered::takes(frame);
        let joins = small && self.lane.is_some_and(same) && self.gathered.fits(&hop.header, frame);
        if !joins {
            self.flush(exits);
        }
        let mut sent = frame.segments();
        let result = if small {
            self.lane = Some((from, hop));
            self.gathered.push(&hop.header, frame)
        } else {
            sent = 0;
            let mut encapsulator = std::mem::take(&mut self.encapsulator);
            let result = encapsulator.encapsulate(&hop.header, frame, |batch| {
                sent += batch.segments as u64;
                self.transmit(from, &hop, batch, exits);
            });
            self.encapsulator = encapsulator;
            result
        };
        if result.is_err() {
            let drops = &ledger(&self.stats, from).drops;
            return drops.add(DropReason::MalformedPacket, frame.segments());
        }
        assert_eq!(sent, frame.segments(), "sent as counted");
    }

    /// Sends what was gathered, at the end of every batch.
    fn flush(&mut self, exits: &mut Exits) {
        let Some((from, hop)) = self.lane.take() else { return };
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.flush(|batch| self.transmit(from, &hop, batch, exits));
        self.gathered = gathered;
    }

    fn transmit(&self, from: Entry, hop: &Hop, batch: &Batch<'_>, exits: &mut Exits) {
        let segments = batch.segments as u64;
        let target = exits.snapshot.target(hop.target);
        let headers = segments * target.dialect.header_len() as u64;
        let counters = &target.counters[usize::from(self.id.0)];
        ledger(&self.stats, from).flow.encapsulated.add(segments);
        counters.sent_packets.add(segments);
        counters.sent_bytes.add(batch.len() as u64 - headers);
        exits.send(self.id, hop, batch);
    }

    fn count_return(&self, exits: &Exits, target: TargetSlot, bytes: usize) {
        let counters = &exits.snapshot.target(target).counters[usize::from(self.id.0)];
        counters.returned_packets.add(1);
        counters.returned_bytes.add(bytes as u64);
    }
}
