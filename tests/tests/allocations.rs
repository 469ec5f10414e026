//! The way of a packet takes no memory: not to an appliance, not back, and not where it begins a
//! flow in a table that has held as many before.
//!
//! What is driven is the data plane as a worker of the runtime drives it, but with packets from
//! memory and back into it; an allocator counts what this thread asks for meanwhile.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests, and nothing else")]

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use geneve::{Inner, IpVersion, TcpFlags};
use gwlb::bench::lane::BATCH;
use gwlb::control::Control;
use gwlb::dataplane::encap::{Batch, Encapsulator};
use gwlb::dataplane::flow_log::FlowLogTap;
use gwlb::dataplane::fragments::FragmentTable;
use gwlb::dataplane::frame::Frame;
use gwlb::dataplane::gather::{self, Gatherer};
use gwlb::dataplane::snapshot::{Snapshot, TargetSlot};
use gwlb::dataplane::stats::WorkerStats;
use gwlb::dataplane::verdict::{Course, Hop, Origin, ReturnVerdict, Verdict, Way, WorkerId};
use gwlb::dataplane::{Glance, Ingress, IngressConfig, Return};
use gwlb::runtime::clock;
use gwlb_tests::gateway::{Packet, SECRET};
use gwlb_tests::packets::{Ip, Tcp, fragments, partial_checksum, super_packet};
use netio::mem::Commit;
use netio::offload::{Coalescer, Limits, MAX_HEADERS, Offload, Place, Run, Segmenter};
use router::source::Source;
use router::{Attachment, Entry};

/// Flows of each protocol and version that are settled.
const FLOWS: u16 = 12;
/// Flows of each protocol and version that begin in a round: nearly as many as are let in at once.
const BEGINNING: u16 = 2400;
/// Payload of a full segment.
const SEGMENT: usize = 1300;
/// Segments of a super-packet: too many for one send.
const SEGMENTS: usize = 48;
const PORT: u16 = 443;

#[test]
fn a_hit_takes_no_memory_there_or_back() {
    for (way, keeps) in WAYS {
        let mut worker = Worker::new(way, keeps);
        for (from, packets) in handshakes() {
            worker.forward(from, &packets);
        }
        let traffic = [(From::Internet, traffic(false)), (From::Server, traffic(true))];
        let round = |worker: &mut Worker| {
            worker.segments = 0;
            for (from, packets) in &traffic {
                worker.forward(*from, packets);
                worker.back();
            }
        };
        // Buffers grow to what they are needed for, and what was verified is remembered.
        let cold = measure(|| round(&mut worker));
        assert!(cold.count_total > 0, "it is counted what is taken");
        let expected: usize = traffic.iter().flat_map(|(_, packets)| packets).map(segments).sum();
        for _ in 0..3 {
            worker.by_short_way = 0;
            let warm = measure(|| round(&mut worker));
            assert_eq!(worker.segments, expected, "all of it has come back");
            assert_eq!((warm.count_total, warm.bytes_total), (0, 0), "{way:?}, {keeps:?}");
            let packets = traffic.iter().map(|(_, packets)| packets.len()).sum();
            assert_eq!(worker.by_short_way, if way == ByWay::Short { packets } else { 0 });
        }
    }
}

#[test]
fn a_flow_that_begins_takes_no_memory_that_the_table_has_held() {
    for (way, keeps) in WAYS {
        let mut worker = Worker::new(way, keeps);
        // As many timers lie at as many times as ever will.
        for round in 0..3 {
            worker.begin(&beginning(round));
            worker.forget();
        }
        for round in 3..6 {
            let packets = beginning(round);
            let begun = measure(|| worker.begin(&packets));
            assert_eq!(worker.ingress.flows().len(), packets.len(), "all are in the table");
            assert_eq!((begun.count_total, begun.bytes_total), (0, 0), "{way:?}, {keeps:?}");
            let forgotten = measure(|| worker.forget());
            assert_eq!(
                (forgotten.count_total, forgotten.bytes_total),
                (0, 0),
                "{way:?}, {keeps:?}"
            );
            let told = worker.stats.flow_log.records.get();
            assert_eq!(told > 0, keeps == Keeps::Logs, "{told} records for flow logs");
            assert_eq!(worker.stats.flow_log.lost.get(), 0);
            let short = if way == ByWay::Short { packets.len() } else { 0 };
            assert_eq!(worker.by_short_way, short);
        }
    }
}

/// What the data plane does take is counted: a fragment that waits for its first is copied.
#[test]
fn what_is_taken_on_the_way_is_seen() {
    let mut worker = Worker::new(ByWay::Short, Keeps::Nothing);
    let whole = ip(IpVersion::V4, false).udp((1, PORT), &[7; 2000]);
    let later = [Packet::plain(fragments(&whole, 9, 1000).remove(1))];
    let taken = measure(|| worker.forward(From::Internet, &later));
    assert!(taken.count_total > 0 && taken.bytes_total > 1000, "{taken:?}");
    assert_eq!(worker.stats.tun.flow.held.get(), 1);
}

/// On which way packets are to be judged that could go by the short one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByWay {
    Short,
    Long,
}

/// What is kept of flows besides where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    Nothing,
    /// A record of each.
    Records,
    /// The same, in windows that are closed.
    Logs,
}

const WAYS: [(ByWay, Keeps); 6] = [
    (ByWay::Short, Keeps::Nothing),
    (ByWay::Long, Keeps::Nothing),
    (ByWay::Short, Keeps::Records),
    (ByWay::Long, Keeps::Records),
    (ByWay::Short, Keeps::Logs),
    (ByWay::Long, Keeps::Logs),
];

/// Where packets enter.
#[derive(Debug, Clone, Copy)]
enum From {
    Internet,
    Server,
}

/// What small packets have to have in common to go out together, and who gets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lane {
    port: u16,
    target: TargetSlot,
    address: SocketAddr,
}

impl gather::Lane for Lane {
    fn digest(&self) -> usize {
        gather::digest(self.target, self.port)
    }
}

/// One worker and the appliances that it sends to.
struct Worker {
    way: ByWay,
    log: Option<FlowLogTap>,
    ingress: Ingress,
    returns: Return,
    snapshot: Arc<Snapshot>,
    stats: Arc<WorkerStats>,
    internet: Attachment,
    server: Attachment,
    now: Instant,
    glances: Vec<Option<Glance>>,
    encapsulator: Encapsulator,
    gatherer: Gatherer<Lane>,
    coalescer: Coalescer<Attachment>,
    wire: Wire,
    /// A run that leaves, in one piece.
    run: Vec<u8>,
    /// How many packets went the short way.
    by_short_way: usize,
    /// How many segments were delivered.
    segments: usize,
}

/// Datagrams under way.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    datagrams: Vec<(Range<usize>, SocketAddr)>,
}

impl Wire {
    fn put(&mut self, to: SocketAddr, batch: &Batch<'_>) {
        batch.singly(|datagram| {
            let start = self.bytes.len();
            datagram.pieces.iter().for_each(|piece| self.bytes.extend_from_slice(piece));
            self.datagrams.push((start..self.bytes.len(), to));
        });
    }
}

impl Worker {
    fn new(way: ByWay, keeps: Keeps) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/gateway.toml");
        let settings = gwlb::config::parse(&Source::read(&path).unwrap()).unwrap();
        let device = |name: &str| {
            let mut attachments = settings.attachments.iter();
            attachments.find(|attachment| attachment.tun.as_str() == name).unwrap().at
        };
        let (internet, server) = (device("igw"), device("app-a"));
        let start = clock::now();
        let control = Control::new(Arc::new(settings), SECRET, 1, Duration::ZERO, start);
        let (snapshot, stats) = (control.snapshot(), Arc::new(WorkerStats::default()));
        let log = (keeps == Keeps::Logs).then(|| FlowLogTap::new(Duration::from_mins(1), start));
        let config = IngressConfig {
            worker: WorkerId(0),
            max_flows: 1 << 16,
            commit: Commit::Lazily,
            records: keeps == Keeps::Records,
            log: log.clone(),
            fragments: Arc::new(FragmentTable::default()),
            stats: Arc::clone(&stats),
        };
        Self {
            way,
            log,
            ingress: Ingress::new(config, Arc::clone(&snapshot), start).unwrap(),
            returns: Return::new(WorkerId(0), Arc::clone(&snapshot), Arc::clone(&stats)),
            snapshot,
            stats,
            internet,
            server,
            now: start,
            glances: Vec::with_capacity(BATCH),
            encapsulator: Encapsulator::default(),
            gatherer: Gatherer::default(),
            coalescer: Coalescer::new(Limits::default()),
            wire: Wire::default(),
            run: Vec::new(),
            by_short_way: 0,
            segments: 0,
        }
    }

    /// Takes packets from a device, and has what is made of them on the wire.
    fn forward(&mut self, from: From, packets: &[Packet]) {
        let origin = Origin::from(Entry::from(match from {
            From::Internet => self.internet,
            From::Server => self.server,
        }));
        self.wire.bytes.clear();
        self.wire.datagrams.clear();
        for batch in packets.chunks(BATCH) {
            let mut glances = std::mem::take(&mut self.glances);
            let entrance = self.ingress.entrance(origin);
            let looked_at = batch.iter().map(|Packet { bytes, offload }| (&bytes[..], offload));
            entrance.glance_all(looked_at, &mut glances);
            for glance in glances.iter_mut().flatten() {
                self.ingress.prefetch(glance);
            }
            for (packet, glance) in batch.iter().zip(glances.drain(..)) {
                self.take(origin, packet, glance.as_ref());
            }
            self.glances = glances;
            self.gatherer.flush(|lane, batch| self.wire.put(lane.address, batch));
        }
    }

    fn take(&mut self, origin: Origin, packet: &Packet, glance: Option<&Glance>) {
        let Packet { bytes, offload } = packet;
        let moment = self.ingress.moment(self.now);
        if let Some(glance) = glance.filter(|_| self.way == ByWay::Short)
            && let Some(course) = self.ingress.shortcut(glance, &moment)
        {
            self.by_short_way += 1;
            return self.send(packet, glance, &course);
        }
        let frame = Frame::parse(bytes, offload).unwrap();
        match self.ingress.handle_glanced(origin, &frame, glance, self.now) {
            Verdict::ToAppliance(hop) => self.encapsulate(&frame, &hop),
            Verdict::Held => {}
            other => panic!("{other:?}"),
        }
    }

    /// What the runtime does with a packet that has gone the short way.
    fn send(&mut self, packet: &Packet, glance: &Glance, course: &Course) {
        let Packet { bytes, offload } = packet;
        if *offload != Offload::NONE {
            return self.encapsulate(&glance.frame(bytes, offload), &course.hop(&self.snapshot));
        }
        let header = course.header(&self.snapshot);
        let address = self.snapshot.target(course.target).address;
        let lane = Lane { port: course.port.into(), target: course.target, address };
        let send = |lane: Lane, batch: &Batch<'_>| self.wire.put(lane.address, batch);
        self.gatherer.send_whole(lane, &header, &bytes[..glance.total_len()], send);
    }

    /// And with any other.
    fn encapsulate(&mut self, frame: &Frame<'_>, hop: &Hop) {
        assert_eq!(hop.change, None);
        let lane = Lane { port: hop.port, target: hop.target, address: hop.address };
        let mut send = |lane: Lane, batch: &Batch<'_>| self.wire.put(lane.address, batch);
        if Gatherer::<Lane>::takes(frame) {
            self.gatherer.push(lane, &hop.header, frame, send).unwrap();
        } else {
            self.gatherer.flush_lane(lane, &mut send);
            let encapsulator = &mut self.encapsulator;
            encapsulator.encapsulate(&hop.header, frame, |batch| send(lane, batch)).unwrap();
        }
    }

    /// Has everything on the wire returned, joined, delivered, and cut again.
    fn back(&mut self) {
        let Self { returns, snapshot, coalescer, wire, run, segments, .. } = self;
        let local = snapshot.pools.iter().find(|pool| pool.zone == "az1").unwrap().address;
        let bytes = |number: u32| &wire.bytes[wire.datagrams[number as usize].0.clone()];
        for (number, (_, from)) in wire.datagrams.iter().enumerate() {
            let datagram = bytes(number as u32);
            let verdict = returns.handle_datagram(*from, local, datagram);
            let ReturnVerdict::Accept(returned) = verdict else { panic!("{verdict:?}") };
            let Way::Deliver(to) = returned.way else { panic!("{returned:?}") };
            let place = Place { buffer: number as u32, start: returned.range.start as u32 };
            let (packet, plain) = (&datagram[returned.range], returned.plain.as_ref());
            coalescer.push(packet, plain, place, to, bytes, |it| {
                *segments += deliver(&it, bytes, run);
            });
        }
        coalescer.flush(|it| *segments += deliver(&it, bytes, run));
    }

    /// Takes packets each of which begins a flow.
    fn begin(&mut self, packets: &[Packet]) {
        self.by_short_way = 0;
        self.forward(From::Internet, packets);
    }

    /// Lets the time pass in which all flows are forgotten.
    fn forget(&mut self) {
        while !self.ingress.flows().is_empty()
            && let Some(due) = self.ingress.poll_timeout()
        {
            self.now = self.now.max(due);
            self.ingress.handle_timeout(self.now);
            while self.log.as_ref().is_some_and(|log| log.take().is_some()) {}
        }
        assert!(self.ingress.flows().is_empty());
    }
}

/// Writes a run down and cuts it; how many segments it has.
fn deliver<'b>(
    leaving: &Run<'_, Attachment>,
    bytes: impl Fn(u32) -> &'b [u8],
    run: &mut Vec<u8>,
) -> usize {
    run.clear();
    run.extend_from_slice(leaving.headers);
    leaving.pieces.iter().for_each(|piece| run.extend_from_slice(piece.of(bytes(piece.buffer))));
    let inner = Inner::parse(run).unwrap();
    let segmenter = Segmenter::new(run, &inner, &leaving.offload).unwrap();
    let mut headers = [0; MAX_HEADERS];
    for index in 0..segmenter.count() {
        assert!(segmenter.segment(index, &mut headers).payload.end <= run.len());
    }
    assert_eq!(segmenter.count(), leaving.pieces.len(), "what was joined is cut again");
    segmenter.count()
}

/// From the internet to the server, or back.
fn ip(version: IpVersion, back: bool) -> Ip {
    let ip = match version {
        IpVersion::V4 => Ip::new("203.0.113.7", "10.0.1.11"),
        IpVersion::V6 => Ip::new("2001:db8::7", "fd00:10:0:1::11"),
    };
    if back { ip.reversed() } else { ip }
}

const VERSIONS: [IpVersion; 2] = [IpVersion::V4, IpVersion::V6];

/// Both ports of a flow.
fn ports(flow: u16, back: bool) -> (u16, u16) {
    if back { (PORT, 1000 + flow) } else { (1000 + flow, PORT) }
}

/// What connections begin with, and the first datagrams of as many other flows.
fn handshakes() -> [(From, Vec<Packet>); 3] {
    let each = |back, tcp: Tcp| {
        let packets = VERSIONS.into_iter().flat_map(move |version| {
            let ip = ip(version, back);
            (0..FLOWS).flat_map(move |flow| {
                let ports = ports(flow, back);
                [ip.tcp(ports, tcp, &[]), ip.udp(ports, b"hello")].map(Packet::plain)
            })
        });
        packets.collect()
    };
    [
        (From::Internet, each(false, Tcp::SYN)),
        (From::Server, each(true, Tcp::SYN_ACK)),
        (From::Internet, each(false, Tcp::DATA)),
    ]
}

/// Packets of all flows, interleaved: small ones and full ones, with whole checksums and with such
/// as the sender's device was to complete, and super-packets.
fn traffic(back: bool) -> Vec<Packet> {
    let all = (0..FLOWS).flat_map(|flow| VERSIONS.map(|version| (flow, version)));
    let flows: Vec<_> = all.collect();
    let mut packets = Vec::new();
    let mut each = |packet: &dyn Fn(&Ip, (u16, u16)) -> Packet, step: u16| {
        for (flow, version) in &flows {
            let ip = ip(*version, back).identification(step);
            packets.push(packet(&ip, ports(*flow, back)));
        }
    };
    let tcp = if back { Tcp::ANSWER } else { Tcp::DATA };
    let full = [1; SEGMENT];
    let many = vec![2; SEGMENT * SEGMENTS];
    let few = &many[..SEGMENT * 9 + 100];
    // In sequence, so that those are joined that interleave with others.
    for step in 0..6 {
        let tcp = tcp.after(usize::from(step) * SEGMENT);
        each(&|ip, ports| Packet::plain(ip.tcp(ports, tcp, &full)), step);
        each(&|ip, ports| Packet::plain(ip.udp(ports, &full)), step);
        each(&|ip, ports| Packet::plain(ip.tcp(ports, tcp, &[])), step);
        each(&|ip, ports| Packet::plain(ip.udp(ports, &full[..30])), step);
    }
    let push = tcp.flags(TcpFlags(TcpFlags::ACK.0 | TcpFlags::PSH.0));
    each(&|ip, ports| partial_checksum(&ip.tcp(ports, push, &full[..10])), 6);
    each(&|ip, ports| partial_checksum(&ip.udp(ports, &full)), 6);
    for (payload, step) in [(few, 7), (&many[..], 100)] {
        each(&|ip, ports| super_packet(&ip.tcp(ports, push, payload), SEGMENT as u16), step);
        each(&|ip, ports| super_packet(&ip.udp(ports, payload), SEGMENT as u16), step);
    }
    packets
}

/// How many segments a packet stands for.
fn segments(packet: &Packet) -> usize {
    let inner = Inner::parse(&packet.bytes).unwrap();
    Segmenter::new(&packet.bytes, &inner, &packet.offload).unwrap().count()
}

/// First packets of flows that no other round has.
fn beginning(round: u16) -> Vec<Packet> {
    let flows = round * BEGINNING..(round + 1) * BEGINNING;
    let each = flows.flat_map(|flow| {
        VERSIONS.map(|version| {
            let (ip, ports) = (ip(version, false), ports(flow, false));
            [ip.tcp(ports, Tcp::SYN, &[]), ip.udp(ports, b"hello")].map(Packet::plain)
        })
    });
    each.flatten().collect()
}
