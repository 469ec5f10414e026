//! One worker: its halves of the data plane, and what the runtime's worker does around them.

use std::sync::Arc;
use std::time::Instant;

use geneve::outer;
use gwlb::dataplane::encap::{Batch, Encapsulator, Gathered};
use gwlb::dataplane::fragments::FragmentTable;
use gwlb::dataplane::frame::Frame;
use gwlb::dataplane::mss;
use gwlb::dataplane::snapshot::{Snapshot, TargetSlot};
use gwlb::dataplane::stats::WorkerStats;
use gwlb::dataplane::verdict::{
    Change, DropReason, Hop, Origin, Reply, ReturnVerdict, Returned, Side, Verdict, Way, WorkerId,
};
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
    lane: Option<(Side, Hop)>,
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
                    self.handle(Entry::from(at).into(), &frame, now, exits);
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
            if way != Way::Probe {
                self.count_return(exits, target, inner.total_len);
            }
            let packet = &bytes[range.clone()];
            match way {
                Way::Probe => {
                    self.stats.udp.flow.probes.add(1);
                    exits.probes.push(packet[inner.header_len + outer::UDP_LEN..].to_vec());
                }
                Way::Deliver(to) => {
                    genuine.push((to, packet));
                    let place = Place { buffer: buffer as u32, start: range.start as u32 };
                    self.coalescer.push(packet, &inner, place, to, |run| {
                        runs.push(exits.deliver(&self.stats, batch, &run));
                    });
                }
                Way::Onward(endpoint) => {
                    let frame = Frame::single(packet, inner);
                    self.handle(Entry::Endpoint(endpoint).into(), &frame, now, exits);
                }
            }
        }
        self.coalescer.flush(|run| runs.push(exits.deliver(&self.stats, batch, &run)));
        exits.assert_transparent(runs, genuine);
        self.flush(exits);
    }

    pub fn take_inbox(&mut self, now: Instant, exits: &mut Exits) {
        while let Some(handover) = exits.inbox(self.id).pop_front() {
            let Handover { from, epoch, packet, offload } = handover;
            let frame = Frame::parse(&packet, &offload).expect("it was valid where it was read");
            let ledger = self.stats.ledger(from.side);
            ledger.flow.taken_over.add(frame.segments());
            match exits.snapshot.entry(from.at, epoch) {
                Some(at) => {
                    let origin = Origin { at, ..from };
                    let verdict = self.ingress.handle_handover(origin, &frame, now);
                    self.execute(origin, &frame, verdict, now, exits);
                }
                None => ledger.drops.add(DropReason::Reconfigured, frame.segments()),
            }
        }
        self.flush(exits);
    }

    /// What is due now, and what it brings about.
    pub fn handle_timeout(&mut self, now: Instant, exits: &mut Exits) {
        self.ingress.handle_timeout(now);
        self.follow_up(now, exits);
        self.flush(exits);
    }

    fn follow_up(&mut self, now: Instant, exits: &mut Exits) {
        while let Some(reply) = self.ingress.poll_reply() {
            self.reply(Side::Tun, &reply, exits);
        }
        while let Some((origin, waiting)) = self.ingress.poll_released() {
            let frame = Frame::parse(waiting.packet.bytes(), &Offload::NONE);
            self.handle(origin, &frame.expect("it was valid when it came"), now, exits);
        }
    }

    fn handle(&mut self, origin: Origin, frame: &Frame<'_>, now: Instant, exits: &mut Exits) {
        let verdict = self.ingress.handle_packet(origin, frame, now);
        self.execute(origin, frame, verdict, now, exits);
    }

    fn execute(
        &mut self,
        origin: Origin,
        frame: &Frame<'_>,
        verdict: Verdict,
        now: Instant,
        exits: &mut Exits,
    ) {
        let ledger = self.stats.ledger(origin.side);
        match verdict {
            Verdict::ToAppliance(hop) => self.send_to_appliance(origin.side, frame, hop, exits),
            Verdict::Deliver(to) | Verdict::Bypass(to) => {
                let bypass = matches!(verdict, Verdict::Bypass(_));
                match exits.write(to, frame.packet, frame.offload) {
                    Ok(written) => {
                        assert_eq!(written, frame.segments(), "written as counted");
                        let flow = &ledger.flow;
                        let counter = if bypass { &flow.bypassed } else { &flow.delivered };
                        counter.add(written);
                    }
                    Err(_) => ledger.drops.add(DropReason::DeliveryFailed, frame.segments()),
                }
            }
            Verdict::HandOver(to, from) => {
                assert_ne!(to, self.id, "a packet was handed over to its worker");
                let (packet, offload) = (frame.packet.to_vec(), *frame.offload);
                let epoch = exits.snapshot.topology_epoch;
                match exits.hand_over(to, Handover { from, epoch, packet, offload }) {
                    Ok(()) => ledger.flow.handed_over.add(frame.segments()),
                    Err(_) => ledger.drops.add(DropReason::HandoverFull, frame.segments()),
                }
            }
            Verdict::Reply(reply) => self.reply(origin.side, &reply, exits),
            Verdict::Drop(_) | Verdict::Held => {}
        }
        self.follow_up(now, exits);
    }

    fn reply(&self, side: Side, reply: &Reply, exits: &mut Exits) {
        let ledger = self.stats.ledger(side);
        ledger.flow.generated.add(1);
        let written = exits.write(reply.to, reply.packet.bytes(), &Offload::NONE);
        ledger.flow.delivered.add(written.expect("a reply is one whole packet"));
    }

    fn send_to_appliance(&mut self, side: Side, frame: &Frame<'_>, hop: Hop, exits: &mut Exits) {
        match hop.change {
            None => self.encapsulate(side, frame, hop, exits),
            Some(Change::ClampMss(mtu)) => {
                let mut packet = frame.packet.to_vec();
                mss::clamp(&mut packet, &frame.inner, frame.offload, mtu);
                self.encapsulate(side, &Frame { packet: &packet, ..*frame }, hop, exits);
            }
            Some(Change::Fragment(mtu)) => {
                self.flush(exits);
                let mut encapsulator = std::mem::take(&mut self.encapsulator);
                let mut sent = 0;
                let result =
                    encapsulator.encapsulate_fragmented(&hop.header, frame, mtu, |batch| {
                        sent += batch.segments as u64;
                        self.transmit(side, &hop, batch, exits);
                    });
                self.encapsulator = encapsulator;
                if result.is_err() {
                    // A device may say anything of a packet.
                    let drops = &self.stats.ledger(side).drops;
                    return drops.add(DropReason::MalformedPacket, frame.segments());
                }
                assert!(sent >= frame.segments(), "at least one for each");
                self.stats.ledger(side).flow.generated.add(sent - frame.segments());
            }
        }
    }

    fn encapsulate(&mut self, side: Side, frame: &Frame<'_>, hop: Hop, exits: &mut Exits) {
        let same = |(source, to): (Side, Hop)| {
            source == side && (to.pool, to.port, to.target) == (hop.pool, hop.port, hop.target)
        };
        let small = Gathered::takes(frame);
        let joins = small && self.lane.is_some_and(same) && self.gathered.fits(&hop.header, frame);
        if !joins {
            self.flush(exits);
        }
        let mut sent = frame.segments();
        let result = if small {
            self.lane = Some((side, hop));
            self.gathered.push(&hop.header, frame)
        } else {
            sent = 0;
            let mut encapsulator = std::mem::take(&mut self.encapsulator);
            let result = encapsulator.encapsulate(&hop.header, frame, |batch| {
                sent += batch.segments as u64;
                self.transmit(side, &hop, batch, exits);
            });
            self.encapsulator = encapsulator;
            result
        };
        if result.is_err() {
            let drops = &self.stats.ledger(side).drops;
            return drops.add(DropReason::MalformedPacket, frame.segments());
        }
        assert_eq!(sent, frame.segments(), "sent as counted");
    }

    /// Sends what was gathered, at the end of every batch.
    fn flush(&mut self, exits: &mut Exits) {
        let Some((side, hop)) = self.lane.take() else { return };
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.flush(|batch| self.transmit(side, &hop, batch, exits));
        self.gathered = gathered;
    }

    fn transmit(&self, side: Side, hop: &Hop, batch: &Batch<'_>, exits: &mut Exits) {
        let segments = batch.segments as u64;
        let target = exits.snapshot.target(hop.target);
        let headers = segments * target.dialect.header_len() as u64;
        let counters = &target.counters[usize::from(self.id.0)];
        self.stats.ledger(side).flow.encapsulated.add(segments);
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
