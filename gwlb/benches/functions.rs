//! The functions that a packet goes through, one by one: for whoever changes one of them. What
//! they cost together is for `gwlb bench core` to say.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up ends")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use geneve::checksum;
use geneve::flow::{CanonicalKey, Stickiness};
use geneve::inner::{Inner, IpVersion, Plain};
use gwlb::bench::lane::{Plane, Random, Ring, Segment};
use gwlb::dataplane::encap::Encapsulator;
use gwlb::dataplane::flow_table::{Flow, FlowId, FlowTable, Inspector, Placement};
use gwlb::dataplane::frame::Frame;
use gwlb::dataplane::keys::{Keys, Secret};
use gwlb::dataplane::select::{Candidate, Candidates, TargetId, choose};
use gwlb::dataplane::snapshot::TargetSlot;
use gwlb::runtime::clock;
use netio::mem::Commit;
use netio::offload::{Coalescer, Limits, Offload, PartialChecksum, Place, Segmentation};

const VERSIONS: [(&str, IpVersion); 2] = [("IPv4", IpVersion::V4), ("IPv6", IpVersion::V6)];
/// Packets, and flows, to choose from.
const MANY: usize = 1024;

/// Packets of flows of their own.
fn packets(version: IpVersion, len: usize) -> Ring {
    let mut ring = Ring::new(version, len, MANY);
    ring.fill(Segment::Data, |number| number as u64);
    ring
}

fn keys_of(ring: &Ring) -> Vec<CanonicalKey> {
    let key = |number| Inner::parse(ring.packet(number)).unwrap().flow_key();
    (0..ring.count()).map(|number| key(number).sticky(Stickiness::FiveTuple)).collect()
}

/// Calls `work` with one number after the other.
fn each(bencher: &mut criterion::Bencher<'_>, mut work: impl FnMut(usize)) {
    let mut number = 0;
    bencher.iter(|| {
        work(number);
        number = (number + 1) % MANY;
    });
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, version) in VERSIONS {
        let ring = packets(version, 1428);
        group.bench_function(name, |bencher| {
            each(bencher, |number| {
                let _ = black_box(Frame::parse(black_box(ring.packet(number)), &Offload::NONE));
            });
        });
    }
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow lookup");
    for flows in [1_000, 1_000_000] {
        let now = clock::now();
        let key = Keys::derive(&Secret::from_bytes([7; Secret::LEN]), 0).tables;
        let mut table = FlowTable::new(flows, key, Commit::Lazily, now).unwrap();
        let mut ring = Ring::new(IpVersion::V4, 64, 1);
        let mut id = |flow| {
            ring.write(0, Segment::Data, flow);
            let tuple = Inner::parse(ring.packet(0)).unwrap().flow_key();
            FlowId { endpoint: 1, tuple: tuple.sticky(Stickiness::FiveTuple) }
        };
        for flow in 0..flows as u64 {
            let placement = Placement { inspector: Inspector::Target(TargetSlot(0)), port: 0 };
            let idle_timeout = Duration::from_secs(350);
            let id = id(flow);
            let flow = Flow { id, placement, tcp: None, deadline: now + idle_timeout };
            let hash = table.hash(&id);
            table.insert(flow, idle_timeout, hash).unwrap();
        }
        let mut random = Random::new(1);
        // More than the caches have room for, of the larger table.
        let ids: Vec<_> = (0..1 << 18).map(|_| id(random.below(flows) as u64)).collect();
        let mut next = 0;
        group.bench_function(BenchmarkId::from_parameter(flows), |bencher| {
            bencher.iter(|| {
                next = (next + 1) % ids.len();
                let id = &ids[next];
                black_box(table.find(id, table.hash(id), now))
            });
        });
    }
}

fn placement(c: &mut Criterion) {
    let keys = Keys::derive(&Secret::from_bytes([7; Secret::LEN]), 0);
    let flows = keys_of(&packets(IpVersion::V4, 64));
    let mut group = c.benchmark_group("placement");
    for targets in [10, 300] {
        let candidates: Candidates<_> = (0..targets)
            .map(|target| {
                let address = SocketAddr::from(([192, 0, (target >> 8) as u8, target as u8], 6081));
                let id = TargetId::new("fw", address);
                Candidate { target: TargetSlot(target), id, weight: 100 }
            })
            .collect::<Vec<_>>()
            .into();
        group.bench_function(BenchmarkId::from_parameter(targets), |bencher| {
            each(bencher, |number| {
                black_box(choose(&keys.placement, &flows[number], &candidates));
            });
        });
    }
}

fn cookie(c: &mut Criterion) {
    let keys = Keys::derive(&Secret::from_bytes([7; Secret::LEN]), 0);
    let flows = keys_of(&packets(IpVersion::V4, 64));
    let target = TargetId::new("fw", SocketAddr::from(([192, 0, 2, 11], 6081)));
    let mut group = c.benchmark_group("cookie");
    group.bench_function("stamp", |bencher| {
        each(bencher, |number| {
            black_box(keys.cookie.stamp(1, target, &flows[number]));
        });
    });
    let cookies: Vec<_> = flows.iter().map(|flow| keys.cookie.stamp(1, target, flow)).collect();
    group.bench_function("verify", |bencher| {
        each(bencher, |number| {
            black_box(keys.cookie.verify(cookies[number], 1, target, &flows[number]));
        });
    });
}

fn encapsulate(c: &mut Criterion) {
    let mut lane = Plane::new(1, clock::now()).unwrap().lane(0, IpVersion::V4, MANY).unwrap();
    let small = packets(IpVersion::V4, 64);
    let header = lane.hop(small.packet(0)).unwrap().header;
    let mut group = c.benchmark_group("encapsulate");
    // The most that leaves the gateway in one send.
    let segments = 42;
    let large = 40 + segments * 1388;
    let super_packet = Offload {
        segment: Segmentation::Tcp { size: 1388, ecn: false },
        // Behind the header of IPv4, and where TCP has it.
        checksum: Some(PartialChecksum { start: 20, offset: 16 }),
        ..Offload::NONE
    };
    for (name, len, offload) in
        [("packet", 1428, Offload::NONE), ("super-packet of 42", large, super_packet)]
    {
        let mut ring = Ring::new(IpVersion::V4, len, 1);
        ring.write(0, Segment::Data, 1);
        let frame = Frame::parse(ring.packet(0), &offload).unwrap();
        let mut encapsulator = Encapsulator::default();
        group.throughput(Throughput::Elements(frame.segments()));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let sent = encapsulator.encapsulate(black_box(&header), &frame, |batch| {
                    black_box(batch);
                });
                sent.unwrap();
            });
        });
    }
}

fn sum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [64, 1428] {
        let ring = packets(IpVersion::V4, len);
        let inners: Vec<_> =
            (0..MANY).map(|number| Inner::parse(ring.packet(number)).unwrap()).collect();
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            each(bencher, |number| {
                black_box(checksum::verify(&inners[number], ring.packet(number)));
            });
        });
    }
}

/// A run of segments of one flow, in order, which become one super-packet.
fn coalesce(c: &mut Criterion) {
    const RUN: usize = 32;
    let mut ring = Ring::new(IpVersion::V4, 1428, RUN);
    ring.fill(Segment::Data, |_| 1);
    let mut packets: Vec<_> = (0..RUN).map(|number| ring.packet(number).to_vec()).collect();
    for (number, packet) in packets.iter_mut().enumerate() {
        let sequence = 1 + 1388 * number as u32;
        packet[24..28].copy_from_slice(&sequence.to_be_bytes());
        packet[4..6].copy_from_slice(&(number as u16).to_be_bytes());
        packet[10..12].fill(0);
        let sum = checksum::of(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let inner = Inner::parse(packet).unwrap();
        assert!(checksum::complete(&inner, packet));
    }
    let plains: Vec<_> = packets.iter().map(|packet| Plain::read(packet)).collect();
    let mut coalescer = Coalescer::new(Limits::default());
    let mut group = c.benchmark_group("coalesce");
    group.throughput(Throughput::Elements(RUN as u64));
    group.bench_function("run of 32", |bencher| {
        bencher.iter(|| {
            let mut runs = 0;
            for (number, (packet, plain)) in packets.iter().zip(&plains).enumerate() {
                let place = Place { buffer: number as u32, start: 0 };
                let bytes = |buffer: u32| &packets[buffer as usize][..];
                coalescer.push(packet, plain.as_ref(), place, 0, bytes, |_| runs += 1);
            }
            coalescer.flush(|_| runs += 1);
            assert_eq!(runs, 1, "the run was not joined");
        });
    });
}

criterion_group! {
    name = functions;
    // Quick: the figures of a function are a hint, and the bars are elsewhere.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = parse, lookup, placement, cookie, encapsulate, sum, coalesce
}
criterion_main!(functions);
