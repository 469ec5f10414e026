//! One worker: its halves of the data plane, and what the runtime's worker does around them.

use std::sync::Arc;
use std::time::Instant;

use geneve::{Inner, outer};
use gwlb::dataplane::encap::{Batch, Encapsulator};
use gwlb::dataplane::fragments::FragmentTable;
use gwlb::dataplane::frame::Frame;
use gwlb::dataplane::gather::{self, Gatherer};
use gwlb::dataplane::mss;
use gwlb::dataplane::snapshot::{Snapshot, TargetSlot};
use gwlb::dataplane::stats::WorkerStats;
use gwlb::dataplane::verdict::{
    Change, DropReason, Hop, Origin, Reply, ReturnVerdict, Returned, Side, Verdict, Way, WorkerId,
};
use gwlb::dataplane::{Glance, Ingress, IngressConfig, Return};
use netio::mem::Commit;
use netio::offload::{Coalescer, Limits, Offload, Place};
use router::{Attachment, EndpointId, Entry};

use super::exits::{By, Exits, Handover};
use super::journal::{Happened, Judgement, Stage};
use super::{Datagram, Packet};

/// What workers have in common when they are made.
pub(super) struct Surroundings<'a> {
    pub max_flows: usize,
    pub fragments: &'a Arc<FragmentTable>,
    pub snapshot: &'a Arc<Snapshot>,
    pub start: Instant,
}

/// How a packet came to be judged.
#[derive(Debug, Clone, Copy)]
enum Came {
    /// From a device, glanced at if it is ordinary, or from an appliance on its way to a further
    /// endpoint.
    In(Option<Glance>),
    /// From another worker.
    HandedOver,
    /// It had waited for its first fragment.
    Released,
}

/// What small packets have to have in common to go out together, and where one of them goes.
#[derive(Debug, Clone, Copy)]
struct Lane {
    side: Side,
    hop: Hop,
}

impl PartialEq for Lane {
    fn eq(&self, other: &Self) -> bool {
        let of = |Self { side, hop }: &Self| (*side, hop.pool, hop.port, hop.target);
        of(self) == of(other)
    }
}

impl gather::Lane for Lane {
    fn digest(&self) -> usize {
        gather::digest(self.hop.target, self.hop.port)
    }
}

#[derive(Debug)]
pub(super) struct Worker {
    pub id: WorkerId,
    pub ingress: Ingress,
    pub returns: Return,
    /// What it works with.
    pub snapshot: Arc<Snapshot>,
    pub stats: Arc<WorkerStats>,
    encapsulator: Encapsulator,
    gatherer: Gatherer<Lane>,
    coalescer: Coalescer<Attachment>,
}

impl Worker {
    pub fn new(id: WorkerId, around: &Surroundings<'_>) -> Worker {
        let stats = Arc::new(WorkerStats::default());
        let config = IngressConfig {
            worker: id,
            max_flows: around.max_flows,
            commit: Commit::Lazily,
            records: true,
            log: None,
            fragments: Arc::clone(around.fragments),
            stats: Arc::clone(&stats),
        };
        let snapshot = Arc::clone(around.snapshot);
        Worker {
            id,
            ingress: Ingress::new(config, Arc::clone(&snapshot), around.start)
                .expect("memory for a few flows"),
            returns: Return::new(id, Arc::clone(&snapshot), Arc::clone(&stats)),
            snapshot,
            stats,
            encapsulator: Encapsulator::default(),
            gatherer: Gatherer::default(),
            coalescer: Coalescer::new(Limits::default()),
        }
    }

    pub fn take_tun(&mut self, at: Attachment, batch: &[Packet], now: Instant, exits: &mut Exits) {
        let snapshot = Arc::clone(&self.snapshot);
        let translation = snapshot.translation(at);
        let entered: Vec<_> = batch
            .iter()
            .map(|Packet { bytes, offload }| {
                let mut bytes = bytes.clone();
                if let Some(translation) = translation {
                    translation.inward(&mut bytes, offload);
                }
                bytes
            })
            .collect();
        // In the phases of a real worker: what is found out of a packet first holds when those
        // before it have been handled.
        let origin = Origin::from(Entry::from(at));
        let entrance = self.ingress.entrance(origin);
        let packets = entered.iter().zip(batch);
        let packets = packets.map(|(bytes, Packet { offload, .. })| (&bytes[..], offload));
        let mut glances = Vec::new();
        entrance.glance_all(packets, &mut glances);
        for glance in glances.iter_mut().flatten() {
            self.ingress.prefetch(glance);
        }
        for ((Packet { bytes, offload }, entered), glance) in
            batch.iter().zip(&entered).zip(glances)
        {
            if translation.is_some() {
                let worker = self.id;
                exits.journal.note(|| Happened::Entered { worker, at, packet: bytes.clone() });
            }
            match Frame::parse(entered, offload) {
                Ok(frame) => {
                    self.stats.tun.flow.received.add(frame.segments());
                    if let Some(glance) = &glance {
                        assert_eq!(glance.shape, frame.shape, "seen as what it is");
                        assert_eq!(glance.total_len(), frame.packet.len(), "seen as what it is");
                    }
                    self.handle(origin, &frame, Came::In(glance), now, exits);
                }
                Err(reason) => {
                    self.stats.tun.flow.received.add(1);
                    self.stats.tun.drops.add(reason, 1);
                    self.note_lost(Side::Tun, (Stage::Entering, reason), (entered, 1), exits);
                }
            }
        }
        self.flush(exits);
    }

    /// Takes up the latest view, unless it holds that already; says whether it did.
    pub fn take_up(&mut self, now: Instant, exits: &mut Exits) -> bool {
        if Arc::ptr_eq(&self.snapshot, &exits.snapshot) {
            return false;
        }
        self.snapshot = Arc::clone(&exits.snapshot);
        self.returns.handle_snapshot(Arc::clone(&self.snapshot));
        self.ingress.handle_snapshot(Arc::clone(&self.snapshot), now);
        let (worker, generation) = (self.id, self.snapshot.generation);
        exits.journal.note(|| Happened::TookUp { worker, generation });
        true
    }

    pub fn take_udp(&mut self, batch: &[Datagram], now: Instant, exits: &mut Exits) {
        let view = Arc::clone(&self.snapshot);
        let by = By { worker: self.id, snapshot: &view };
        let mut runs = Vec::new();
        let mut genuine: Vec<(Attachment, &[u8])> = Vec::new();
        for (buffer, Datagram { from, to, bytes }) in batch.iter().enumerate() {
            self.stats.udp.flow.received.add(1);
            let verdict = self.returns.handle_datagram(*from, *to, bytes);
            exits.journal.note(|| Happened::Returned {
                worker: self.id,
                from: *from,
                to: *to,
                bytes: bytes.clone(),
                verdict: verdict.clone(),
            });
            let ReturnVerdict::Accept(Returned { way, target, endpoint, range, plain }) = verdict
            else {
                continue;
            };
            let packet = &bytes[range.clone()];
            if way != Way::Probe {
                self.count_return((target, endpoint), packet.len());
            }
            match way {
                Way::Probe => {
                    self.stats.udp.flow.probes.add(1);
                    let inner = Inner::parse(packet).expect("it was accepted");
                    let payload = packet[inner.header_len + outer::UDP_LEN..].to_vec();
                    exits.probes.push((target, payload));
                }
                Way::Deliver(to) => {
                    genuine.push((to, packet));
                    if let Some(device) = exits.devices.find(to, view.topology_epoch) {
                        self.coalescer.set_limits(to, device.limits);
                    }
                    let place = Place { buffer: buffer as u32, start: range.start as u32 };
                    let bytes = |buffer: u32| &batch[buffer as usize].bytes[..];
                    self.coalescer.push(packet, plain.as_ref(), place, to, bytes, |run| {
                        runs.push(exits.deliver(by, &self.stats, batch, &run));
                    });
                }
                Way::Onward(endpoint) => {
                    let frame = Frame::parse(packet, &Offload::NONE).expect("it was accepted");
                    let origin = Entry::Endpoint(endpoint).into();
                    self.handle(origin, &frame, Came::In(None), now, exits);
                }
            }
        }
        self.coalescer.flush(|run| runs.push(exits.deliver(by, &self.stats, batch, &run)));
        exits.assert_transparent(&view, runs, genuine);
        self.flush(exits);
    }

    pub fn take_inbox(&mut self, now: Instant, exits: &mut Exits) {
        while let Some(handover) = exits.inbox(self.id).pop_front() {
            let Handover { from, epoch, packet, offload } = handover;
            let frame = Frame::parse(&packet, &offload).expect("it was valid where it was read");
            if epoch > self.snapshot.topology_epoch {
                // Who handed it over was sooner to take up the latest view.
                self.take_up(now, exits);
            }
            let ledger = self.stats.ledger(from.side);
            ledger.flow.taken_over.add(frame.segments());
            if let Some(at) = self.snapshot.entry(from.at, epoch) {
                self.handle(Origin { at, ..from }, &frame, Came::HandedOver, now, exits);
            } else {
                let (reason, segments) = (DropReason::Reconfigured, frame.segments());
                ledger.drops.add(reason, segments);
                let lost = (frame.packet, segments);
                self.note_lost(from.side, (Stage::Inbox, reason), lost, exits);
            }
        }
        self.flush(exits);
    }

    /// What is due now, and what it brings about.
    pub fn handle_timeout(&mut self, now: Instant, exits: &mut Exits) {
        self.ingress.handle_timeout(now);
        exits.journal.note(|| Happened::WorkerTimeout { worker: self.id });
        self.follow_up(now, exits);
        self.flush(exits);
    }

    fn follow_up(&mut self, now: Instant, exits: &mut Exits) {
        while let Some(reply) = self.ingress.poll_reply() {
            exits.journal.note(|| Happened::Reply {
                worker: self.id,
                to: reply.to,
                packet: reply.packet.bytes().to_vec(),
                cause: reply.cause,
            });
            self.reply(Side::Tun, &reply, exits);
        }
        while let Some((origin, waiting)) = self.ingress.poll_released() {
            let frame = Frame::parse(waiting.packet.bytes(), &Offload::NONE);
            let frame = frame.expect("it was valid when it came");
            self.handle(origin, &frame, Came::Released, now, exits);
        }
    }

    fn handle(
        &mut self,
        origin: Origin,
        frame: &Frame<'_>,
        came: Came,
        now: Instant,
        exits: &mut Exits,
    ) {
        let verdict = match came {
            Came::HandedOver => self.ingress.handle_handover(origin, frame, now),
            Came::In(glance) => {
                let moment = self.ingress.moment(now);
                let settled = glance.and_then(|glance| self.ingress.shortcut(&glance, &moment));
                match settled {
                    Some(course) => Verdict::ToAppliance(course.hop(&self.snapshot)),
                    None => self.ingress.handle_glanced(origin, frame, glance.as_ref(), now),
                }
            }
            Came::Released => self.ingress.handle_packet(origin, frame, now),
        };
        exits.journal.note(|| Happened::Judged {
            worker: self.id,
            origin,
            handed_over: matches!(came, Came::HandedOver),
            released: matches!(came, Came::Released),
            packet: frame.packet.to_vec(),
            offload: *frame.offload,
            verdict: Judgement::from(&verdict),
        });
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
                match exits.write(self.by(), to, frame.packet, frame.offload) {
                    Ok(written) => {
                        assert_eq!(written, frame.segments(), "written as counted");
                        let flow = &ledger.flow;
                        let counter = if bypass { &flow.bypassed } else { &flow.delivered };
                        counter.add(written);
                    }
                    Err(_) => self.lose(origin.side, frame, DropReason::DeliveryFailed, exits),
                }
            }
            Verdict::HandOver(to, from) => {
                assert_ne!(to, self.id, "a packet was handed over to its worker");
                let (packet, offload) = (frame.packet.to_vec(), *frame.offload);
                let epoch = self.snapshot.topology_epoch;
                match exits.hand_over(to, Handover { from, epoch, packet, offload }) {
                    Ok(()) => ledger.flow.handed_over.add(frame.segments()),
                    Err(_) => self.lose(origin.side, frame, DropReason::HandoverFull, exits),
                }
            }
            Verdict::Reply(reply) => self.reply(origin.side, &reply, exits),
            Verdict::Drop(_) | Verdict::Held => {}
        }
        self.follow_up(now, exits);
    }

    fn by(&self) -> By<'_> {
        By { worker: self.id, snapshot: &self.snapshot }
    }

    /// What was judged cannot be done.
    fn lose(&self, side: Side, frame: &Frame<'_>, reason: DropReason, exits: &mut Exits) {
        self.stats.ledger(side).drops.add(reason, frame.segments());
        let lost = (frame.packet, frame.segments());
        self.note_lost(side, (Stage::Leaving, reason), lost, exits);
    }

    fn note_lost(
        &self,
        side: Side,
        (stage, reason): (Stage, DropReason),
        (packet, segments): (&[u8], u64),
        exits: &mut Exits,
    ) {
        let (worker, packet) = (self.id, packet);
        exits.journal.note(|| {
            let packet = packet.to_vec();
            Happened::Lost { worker, side, stage, reason, segments, packet }
        });
    }

    fn reply(&self, side: Side, reply: &Reply, exits: &mut Exits) {
        let ledger = self.stats.ledger(side);
        ledger.flow.generated.add(1);
        let written = exits.write(self.by(), reply.to, reply.packet.bytes(), &Offload::NONE);
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
                self.flush_lane(Lane { side, hop }, exits);
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
                    return self.lose(side, frame, DropReason::MalformedPacket, exits);
                }
                assert!(sent >= frame.segments(), "at least one for each");
                self.stats.ledger(side).flow.generated.add(sent - frame.segments());
            }
        }
    }

    fn encapsulate(&mut self, side: Side, frame: &Frame<'_>, hop: Hop, exits: &mut Exits) {
        let lane = Lane { side, hop };
        let mut sent = frame.segments();
        let result = if Gatherer::<Lane>::takes(frame) {
            let mut gatherer = std::mem::take(&mut self.gatherer);
            let result = gatherer.push(lane, &hop.header, frame, |lane, batch| {
                self.transmit(lane.side, &lane.hop, batch, exits);
            });
            self.gatherer = gatherer;
            result
        } else {
            self.flush_lane(lane, exits);
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
            return self.lose(side, frame, DropReason::MalformedPacket, exits);
        }
        assert_eq!(sent, frame.segments(), "sent as counted");
    }

    /// Sends what was gathered, at the end of every batch.
    fn flush(&mut self, exits: &mut Exits) {
        let mut gatherer = std::mem::take(&mut self.gatherer);
        gatherer.flush(|lane, batch| self.transmit(lane.side, &lane.hop, batch, exits));
        self.gatherer = gatherer;
    }

    fn flush_lane(&mut self, lane: Lane, exits: &mut Exits) {
        let mut gatherer = std::mem::take(&mut self.gatherer);
        gatherer.flush_lane(lane, |lane, batch| self.transmit(lane.side, &lane.hop, batch, exits));
        self.gatherer = gatherer;
    }

    fn transmit(&self, side: Side, hop: &Hop, batch: &Batch<'_>, exits: &mut Exits) {
        let segments = batch.segments as u64;
        let target = self.snapshot.target(hop.target);
        let headers = segments * target.dialect.header_len() as u64;
        let counters = &target.counters[usize::from(self.id.0)];
        self.stats.ledger(side).flow.encapsulated.add(segments);
        counters.sent_packets.add(segments);
        counters.sent_bytes.add(batch.len() as u64 - headers);
        exits.send(self.by(), side, hop, batch);
    }

    fn count_return(&self, (target, endpoint): (TargetSlot, EndpointId), bytes: usize) {
        let counters = &self.snapshot.target(target).counters[usize::from(self.id.0)];
        counters.returned_packets.add(1);
        counters.returned_bytes.add(bytes as u64);
        if let Some(counters) = self.snapshot.endpoint(endpoint).counters.get(self.id.0) {
            counters.returned_packets.add(1);
            counters.returned_bytes.add(bytes as u64);
        }
    }
}
