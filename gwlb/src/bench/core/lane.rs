//! One worker's data plane, as the runtime drives it but for the devices: packets come from a ring,
//! and what would be sent or written is only looked at.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use geneve::inner::IpVersion;
use netio::mem::Commit;
use netio::offload::{Coalescer, Limits, Offload, Place};
use router::Entry;
use router::source::Source;

use super::ring::{Random, Ring, Segment};
use crate::bench::error::BenchError;
use crate::control::Control;
use crate::dataplane::encap::{Batch, Encapsulator};
use crate::dataplane::fragments::FragmentTable;
use crate::dataplane::frame::Frame;
use crate::dataplane::gather::{self, Gatherer};
use crate::dataplane::keys::Secret;
use crate::dataplane::snapshot::{PoolId, Snapshot, TargetSlot};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::{
    Course, GeneveHeader, Hop, Origin, ReturnVerdict, Verdict, Way, WorkerId,
};
use crate::dataplane::{Glance, Ingress, IngressConfig, Moment, Return};

/// Packets that are taken at a time: as many as a worker takes from one device.
pub const BATCH: usize = crate::runtime::TUN_BATCH;

const CONFIGURATION: &str = include_str!("plane.toml");

/// A gateway's view of its configuration, for lanes to share.
#[derive(Debug)]
pub struct Plane {
    snapshot: Arc<Snapshot>,
    fragments: Arc<FragmentTable>,
    /// Where packets enter.
    internet: Origin,
    /// When everything begins. No clock is read after that.
    start: Instant,
}

/// One worker.
#[derive(Debug)]
pub struct Lane {
    ingress: Ingress,
    returns: Return,
    snapshot: Arc<Snapshot>,
    stats: Arc<WorkerStats>,
    internet: Origin,
    glances: Vec<Option<Glance>>,
    encapsulator: Encapsulator,
    gatherer: Gatherer<SendLane>,
    coalescer: Coalescer<usize>,
    version: IpVersion,
    now: Instant,
    /// The flows that this worker owns, by their numbers.
    flows: Vec<u32>,
    /// The number of the next flow that nobody has seen.
    next: u64,
}

/// What packets have in common that can leave together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SendLane {
    pool: PoolId,
    port: u16,
    target: TargetSlot,
}

impl gather::Lane for SendLane {
    #[inline]
    fn digest(&self) -> usize {
        gather::digest(self.target, self.port)
    }
}

/// What became of packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Those that would have been sent, or written.
    pub packets: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
}

impl Plane {
    /// For so many workers.
    ///
    /// # Errors
    /// If the configuration that is built in does not hold together.
    pub fn new(workers: u16, start: Instant) -> Result<Self, BenchError> {
        let wrong = |what: String| BenchError::Wrong(format!("the bench's configuration: {what}"));
        let source = Source::new("bench.toml", CONFIGURATION);
        let settings =
            crate::config::parse(&source).map_err(|error| wrong(format!("{error:?}")))?;
        let topology = Arc::clone(&settings.topology);
        let gateway = topology.gateway_by_name("igw").ok_or_else(|| wrong("no igw".to_owned()))?;
        let secret = Secret::from_bytes([9; Secret::LEN]);
        let control = Control::new(Arc::new(settings), secret, workers, Duration::ZERO, start);
        Ok(Self {
            snapshot: control.snapshot(),
            fragments: Arc::new(FragmentTable::default()),
            internet: Entry::InternetGateway(gateway).into(),
            start,
        })
    }

    /// A worker that may have so many flows, without records, and has none.
    ///
    /// # Errors
    /// If there is no memory for so many.
    pub fn lane(
        &self,
        worker: u16,
        version: IpVersion,
        max_flows: usize,
    ) -> Result<Lane, BenchError> {
        self.lane_with(worker, version, max_flows, false)
    }

    /// The same with records of its flows, if they are wanted.
    ///
    /// # Errors
    /// If there is no memory for so many.
    pub fn lane_with(
        &self,
        worker: u16,
        version: IpVersion,
        max_flows: usize,
        records: bool,
    ) -> Result<Lane, BenchError> {
        let stats = Arc::new(WorkerStats::default());
        let config = IngressConfig {
            worker: WorkerId(worker),
            max_flows,
            commit: Commit::Lazily,
            records,
            log: None,
            fragments: Arc::clone(&self.fragments),
            stats: Arc::clone(&stats),
        };
        let snapshot = Arc::clone(&self.snapshot);
        let ingress = Ingress::new(config, Arc::clone(&snapshot), self.start)
            .map_err(BenchError::io(format!("have memory for {max_flows} flows")))?;
        Ok(Lane {
            ingress,
            returns: Return::new(WorkerId(0), Arc::clone(&snapshot), Arc::clone(&stats)),
            snapshot,
            stats,
            internet: self.internet,
            glances: Vec::with_capacity(BATCH),
            encapsulator: Encapsulator::default(),
            gatherer: Gatherer::default(),
            coalescer: Coalescer::new(Limits::default()),
            version,
            now: self.start,
            flows: Vec::new(),
            next: 0,
        })
    }
}

impl Lane {
    /// Has flows begin until there are so many.
    pub fn populate(&mut self, flows: usize) {
        let mut ring = Ring::new(self.version, 64, 1);
        while self.flows.len() < flows {
            ring.write(0, Segment::Data, self.next);
            if self.hop(ring.packet(0)).is_some() {
                self.flows.push(self.next as u32);
            }
            self.next += 1;
        }
    }

    /// How many flows were begun to stay.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// A flow that is known, by chance.
    pub fn any(&self, random: &mut Random) -> u64 {
        u64::from(self.flows[random.below(self.flows.len())])
    }

    /// A flow that nobody has seen.
    pub fn unseen(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// The number of the nth flow that is known.
    pub fn nth(&self, number: usize) -> u64 {
        u64::from(self.flows[number])
    }

    /// Decides about packets and encapsulates them, up to what would be sent.
    ///
    /// There is one copy of it in the program, as there is of a worker's: with one for known flows and
    /// another for new ones, each would push the other out of the processor.
    #[inline(never)]
    pub fn forward(&mut self, ring: &Ring, packets: Range<usize>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut numbers = packets;
        while !numbers.is_empty() {
            let end = (numbers.start + BATCH).min(numbers.end);
            self.forward_batch(ring, numbers.start..end, &mut outcome);
            numbers.start = end;
        }
        outcome
    }

    /// Takes datagrams back from appliances, up to what would be written.
    pub fn back(&mut self, ring: &Ring, hops: &[SocketAddr], packets: Range<usize>) -> Outcome {
        let mut outcome = Outcome::default();
        let local = self.local();
        let mut numbers = packets;
        while !numbers.is_empty() {
            let end = (numbers.start + BATCH).min(numbers.end);
            self.back_batch(ring, hops, local, numbers.start..end, &mut outcome);
            numbers.start = end;
        }
        outcome
    }

    /// Sends the packets of a ring to their appliances and has them returned: puts the headers in
    /// front of them, and says who returns each.
    pub fn echo(&mut self, ring: &mut Ring) -> Vec<SocketAddr> {
        let mut from = Vec::with_capacity(ring.count());
        for number in 0..ring.count() {
            if let Some(hop) = self.hop(ring.packet(number)) {
                ring.put(number, &hop.header);
                from.push(hop.address);
            }
        }
        from
    }

    /// Lets connections be forgotten that nobody has answered.
    pub fn forget_unanswered(&mut self) {
        let due = self.now + Duration::from_secs(2);
        while let Some(at) = self.ingress.poll_timeout().filter(|at| *at <= due) {
            self.now = self.now.max(at);
            self.ingress.handle_timeout(self.now);
        }
        self.now = due;
    }

    /// How many flows were made so far.
    pub fn created(&self) -> u64 {
        self.stats.flows.created.get()
    }

    /// Bytes of the table's hot part, when it is full.
    pub fn table_bytes(&self) -> usize {
        self.ingress.flows().bytes()
    }

    /// How many packets were not remembered, for want of room.
    pub fn untracked(&self) -> u64 {
        self.stats.flows.untracked.get()
    }

    /// Takes flows for known that another lane knows.
    #[cfg(test)]
    pub fn know_from(&mut self, other: &Self) {
        self.flows.clone_from(&other.flows);
    }

    /// Where a packet would go; for preparing, and for judging.
    pub fn hop(&mut self, packet: &[u8]) -> Option<Hop> {
        let frame = Frame::parse(packet, &Offload::NONE).ok()?;
        match self.ingress.handle_packet(self.internet, &frame, self.now) {
            Verdict::ToAppliance(hop) => Some(hop),
            _ => None,
        }
    }

    #[inline]
    fn forward_batch(&mut self, ring: &Ring, numbers: Range<usize>, outcome: &mut Outcome) {
        let mut glances = std::mem::take(&mut self.glances);
        let entrance = self.ingress.entrance(self.internet);
        let packets = ring.packets(numbers);
        entrance.glance_all(packets.clone().map(|it| (it, &Offload::NONE)), &mut glances);
        for glance in glances.iter_mut().flatten() {
            self.ingress.prefetch(glance);
        }
        let moment = self.ingress.moment(self.now);
        let mut seen = glances.iter();
        for packet in packets {
            let Some(glance) = seen.next() else { break };
            if let Some(glance) = glance
                && let Some(course) = self.ingress.settled(glance, &moment)
            {
                self.send_whole(packet, &course, outcome);
            } else {
                self.unsettled(packet, glance, &moment, outcome);
            }
        }
        self.glances = glances;
        self.flush(outcome);
    }

    /// Out of the way of the others, as in the runtime.
    #[expect(clippy::ref_option, reason = "nine instructions fewer for each packet")]
    #[inline(never)]
    fn unsettled(
        &mut self,
        packet: &[u8],
        glance: &Option<Glance>,
        moment: &Moment,
        outcome: &mut Outcome,
    ) {
        let glance = glance.as_ref();
        if let Some(course) = glance.and_then(|it| self.ingress.begun(it, moment)) {
            return self.send_whole(packet, &course, outcome);
        }
        let frame = match glance {
            Some(glance) => Ok(glance.frame(packet, &Offload::NONE)),
            None => Frame::parse(packet, &Offload::NONE),
        };
        let Ok(frame) = frame else { return };
        let verdict = self.ingress.handle_glanced(self.internet, &frame, glance, self.now);
        if let Verdict::ToAppliance(hop) = verdict {
            self.encapsulate(&frame, &hop, outcome);
        }
    }

    /// As the runtime does: small packets are gathered, others get their headers.
    #[inline]
    fn send_whole(&mut self, packet: &[u8], course: &Course, outcome: &mut Outcome) {
        let mut header = GeneveHeader::default();
        course.write_header(&self.snapshot, &mut header);
        let lane = SendLane { pool: course.pool, port: course.port.into(), target: course.target };
        self.gatherer.send_whole(lane, &header, packet, |_, batch| tell(batch, outcome));
    }

    /// The same for what was looked at more closely.
    #[inline]
    fn encapsulate(&mut self, frame: &Frame<'_>, hop: &Hop, outcome: &mut Outcome) {
        let lane = SendLane { pool: hop.pool, port: hop.port, target: hop.target };
        let send = |_, batch: &Batch<'_>| tell(batch, outcome);
        // What cannot be segmented is not counted, and so is noticed.
        let _ = if Gatherer::<SendLane>::takes(frame) {
            self.gatherer.push(lane, &hop.header, frame, send)
        } else {
            let mut send = send;
            self.gatherer.flush_lane(lane, &mut send);
            self.encapsulator.encapsulate(&hop.header, frame, |batch| send(lane, batch))
        };
    }

    fn flush(&mut self, outcome: &mut Outcome) {
        self.gatherer.flush(|_, batch| tell(batch, outcome));
    }

    #[inline]
    fn back_batch(
        &mut self,
        ring: &Ring,
        hops: &[SocketAddr],
        local: IpAddr,
        numbers: Range<usize>,
        outcome: &mut Outcome,
    ) {
        let Self { returns, coalescer, .. } = self;
        let mut emit = |run: netio::offload::Run<'_, usize>| {
            let run = black_box(run);
            let bytes = run.pieces.iter().map(|piece| piece.len as usize).sum();
            count(run.pieces.len(), bytes, outcome);
        };
        for number in numbers {
            let datagram = ring.datagram(number);
            let verdict = returns.handle_datagram(hops[number], local, datagram);
            if let ReturnVerdict::Accept(returned) = verdict
                && let Way::Deliver(_) = returned.way
            {
                let packet = &datagram[returned.range.clone()];
                let place = Place { buffer: number as u32, start: returned.range.start as u32 };
                let bytes = |number: u32| ring.datagram(number as usize);
                coalescer.push(packet, returned.plain.as_ref(), place, 0, bytes, &mut emit);
            }
        }
        coalescer.flush(emit);
    }

    /// The address that appliances answer to.
    fn local(&self) -> IpAddr {
        self.snapshot.pools[0].address
    }
}

#[inline]
fn tell(batch: &Batch<'_>, outcome: &mut Outcome) {
    let batch = black_box(batch);
    // The short way for most: instructions are counted for what is measured, not for the measuring.
    let bytes = if batch.segments == 1 { batch.segment_size.into() } else { batch.len() };
    count(batch.segments, bytes, outcome);
}

#[inline]
fn count(packets: usize, bytes: usize, outcome: &mut Outcome) {
    outcome.packets += packets as u64;
    outcome.bytes += bytes as u64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    const FLOWS: usize = 500;

    fn lane(version: IpVersion) -> (Lane, Ring) {
        let mut lane = Plane::new(1, clock::now()).unwrap().lane(0, version, 10_000).unwrap();
        lane.populate(FLOWS);
        (lane, Ring::new(version, 1428, 100))
    }

    #[test]
    fn packets_of_known_flows_make_none_and_all_are_sent() {
        for version in [IpVersion::V4, IpVersion::V6] {
            let (mut lane, mut ring) = lane(version);
            let mut random = Random::new(1);
            ring.fill(Segment::Data, |_| lane.any(&mut random));
            let created = lane.created();
            let outcome = lane.forward(&ring, 0..100);
            assert_eq!(outcome.packets, 100);
            assert!(outcome.bytes > 100 * 1428);
            assert_eq!(lane.created(), created);
        }
    }

    #[test]
    fn unseen_flows_are_made_and_forgotten_again() {
        let (mut lane, mut ring) = lane(IpVersion::V4);
        for round in 1..=5 {
            ring.fill(Segment::Syn, |_| lane.unseen());
            assert_eq!(lane.forward(&ring, 0..100).packets, 100);
            assert_eq!(lane.created(), (FLOWS + 100 * round) as u64);
            lane.forget_unanswered();
            assert_eq!(lane.stats.flows.expired.get(), 100 * round as u64);
        }
    }

    #[test]
    fn what_was_sent_comes_back() {
        for version in [IpVersion::V4, IpVersion::V6] {
            let (mut lane, mut ring) = lane(version);
            let mut random = Random::new(1);
            ring.fill(Segment::Data, |_| lane.any(&mut random));
            let hops = lane.echo(&mut ring);
            assert_eq!(lane.back(&ring, &hops, 0..100).packets, 100);
        }
    }

    #[test]
    fn records_have_each_packet_if_they_are_wanted() {
        for records in [false, true] {
            let plane = Plane::new(1, clock::now()).unwrap();
            let mut lane = plane.lane_with(0, IpVersion::V4, 10_000, records).unwrap();
            lane.populate(FLOWS);
            let (mut ring, mut random) = (Ring::new(IpVersion::V4, 1428, 100), Random::new(1));
            ring.fill(Segment::Data, |_| lane.any(&mut random));
            assert_eq!(lane.forward(&ring, 0..100).packets, 100);
            let flows = lane.ingress.flows();
            let kept = flows.in_range(0..flows.numbers()).filter_map(|number| flows.record(number));
            let packets: u64 = kept.flat_map(|record| record.ends).map(|end| end.packets).sum();
            // One of each began it.
            assert_eq!(packets, if records { FLOWS as u64 + 100 } else { 0 });
        }
    }

    #[test]
    fn small_packets_are_sent_too() {
        let (mut lane, _) = lane(IpVersion::V4);
        let mut ring = Ring::new(IpVersion::V4, 64, 100);
        let mut random = Random::new(1);
        ring.fill(Segment::Data, |_| lane.any(&mut random));
        assert_eq!(lane.forward(&ring, 0..100).packets, 100);
    }

    #[test]
    fn workers_own_flows_of_their_own() {
        let plane = Plane::new(2, clock::now()).unwrap();
        let mut lanes = [0, 1].map(|worker| plane.lane(worker, IpVersion::V4, 1000).unwrap());
        for lane in &mut lanes {
            lane.populate(100);
        }
        let [one, other] = &lanes;
        assert!(one.flows.iter().all(|flow| !other.flows.contains(flow)));
    }
}
