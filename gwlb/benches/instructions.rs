//! How many instructions a packet takes, counted by callgrind: known flows, new ones, the way back,
//! and the cutting of super-packets. Counts repeat where times do not.
//!
//! `.ci/instructions` runs this and compares with `instructions.json`.
#![expect(missing_docs, reason = "the macros make items that nobody documents")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up ends")]

use std::hint::black_box;
use std::net::SocketAddr;

use geneve::inner::IpVersion::{self, V4, V6};
use geneve::inner::{Inner, Plain};
use gungraun::Callgrind;
use gungraun::prelude::*;
use gwlb::bench::lane::{Lane, Outcome, Plane, Random, Ring, Segment};
use gwlb::runtime::clock;
use netio::offload::{Coalescer, Limits, MAX_HEADERS, Offload, Place, Run, Segmenter};

/// Packets that are counted together; `.ci/instructions` divides by it.
const PACKETS: usize = 4096;
/// Segments of a super-packet: it is cut as often as makes [`PACKETS`] of them.
const SEGMENTS: usize = 32;
/// Flows in the table.
const FLOWS: usize = 10_000;

/// What is counted, and given back so that its end is not.
type Counted<T> = (Outcome, T);

fn lane(version: IpVersion, len: usize) -> (Lane, Ring) {
    let mut lane = Plane::new(1, clock::now()).unwrap().lane(0, version, 1 << 20).unwrap();
    lane.populate(FLOWS);
    let mut ring = Ring::new(version, len, PACKETS);
    assert_eq!(ring.count(), PACKETS);
    // Twice round: flows have come and gone, buffers have grown, and the table need not.
    for _ in 0..2 {
        ring.fill(Segment::Syn, |_| lane.unseen());
        lane.forward(&ring, 0..PACKETS);
        lane.forget_unanswered();
    }
    (lane, ring)
}

fn known(version: IpVersion, len: usize) -> (Lane, Ring) {
    let (mut lane, mut ring) = lane(version, len);
    let mut random = Random::new(1);
    ring.fill(Segment::Data, |_| lane.any(&mut random));
    lane.forward(&ring, 0..PACKETS);
    (lane, ring)
}

fn new(version: IpVersion, len: usize) -> (Lane, Ring) {
    let (mut lane, mut ring) = lane(version, len);
    ring.fill(Segment::Syn, |_| lane.unseen());
    (lane, ring)
}

fn returned(version: IpVersion, len: usize) -> (Lane, Ring, Vec<SocketAddr>) {
    let (mut lane, mut ring) = known(version, len);
    let from = lane.echo(&mut ring);
    lane.back(&ring, &from, 0..PACKETS);
    (lane, ring, from)
}

#[library_benchmark]
#[bench::hit_ipv4_1428(args = (V4, 1428), setup = known)]
#[bench::hit_ipv4_64(args = (V4, 64), setup = known)]
#[bench::hit_ipv6_1428(args = (V6, 1428), setup = known)]
#[bench::new_ipv4_1428(args = (V4, 1428), setup = new)]
#[bench::new_ipv4_64(args = (V4, 64), setup = new)]
#[bench::new_ipv6_1428(args = (V6, 1428), setup = new)]
fn forward((mut lane, ring): (Lane, Ring)) -> Counted<(Lane, Ring)> {
    (black_box(lane.forward(&ring, 0..PACKETS)), (lane, ring))
}

/// All packets of one flow, in order.
fn run(version: IpVersion, len: usize) -> (Lane, Ring, Vec<SocketAddr>) {
    let (mut lane, mut ring) = known(version, len);
    ring.fill_run(lane.nth(0));
    let from = lane.echo(&mut ring);
    lane.back(&ring, &from, 0..PACKETS);
    (lane, ring, from)
}

/// A super-packet that stands for so many segments of `len` bytes.
fn super_packet(len: usize) -> (Vec<u8>, Inner, Offload) {
    let ring = {
        let mut ring = Ring::new(V4, len, SEGMENTS);
        ring.fill_run(1);
        ring
    };
    let (mut coalescer, mut joined) = (Coalescer::new(Limits::default()), None);
    let mut take = |run: Run<'_, ()>| {
        let mut packet = run.headers.to_vec();
        for piece in run.pieces {
            packet.extend_from_slice(piece.of(ring.packet(piece.buffer as usize)));
        }
        assert!(joined.replace((packet, run.offload)).is_none());
    };
    for number in 0..SEGMENTS {
        let (packet, place) = (ring.packet(number), Place { buffer: number as u32, start: 0 });
        let bytes = |buffer: u32| ring.packet(buffer as usize);
        let plain = Plain::read(packet);
        coalescer.push(packet, plain.as_ref(), place, (), bytes, &mut take);
    }
    coalescer.flush(&mut take);
    let (packet, offload) = joined.unwrap();
    let inner = Inner::parse(&packet).unwrap();
    (packet, inner, offload)
}

#[library_benchmark]
#[bench::cut_ipv4_1428(args = (1428), setup = super_packet)]
fn cut((packet, inner, offload): (Vec<u8>, Inner, Offload)) -> Vec<u8> {
    let mut headers = [0; MAX_HEADERS];
    for _ in 0..PACKETS / SEGMENTS {
        let segmenter = Segmenter::new(&packet, &inner, &offload).unwrap();
        for index in 0..segmenter.count() {
            black_box(segmenter.segment(index, &mut headers));
        }
    }
    packet
}

#[library_benchmark]
#[bench::return_run_ipv4_1428(args = (V4, 1428), setup = run)]
#[bench::return_run_ipv6_1428(args = (V6, 1428), setup = run)]
#[bench::return_ipv4_64(args = (V4, 64), setup = returned)]
#[bench::return_ipv4_1428(args = (V4, 1428), setup = returned)]
#[bench::return_ipv6_1428(args = (V6, 1428), setup = returned)]
fn back(
    (mut lane, ring, from): (Lane, Ring, Vec<SocketAddr>),
) -> Counted<(Lane, Ring, Vec<SocketAddr>)> {
    (black_box(lane.back(&ring, &from, 0..PACKETS)), (lane, ring, from))
}

library_benchmark_group!(name = packets, benchmarks = [forward, back, cut]);
main!(
    config = LibraryBenchmarkConfig::default()
        // Instructions alone: a cache that is simulated is none that anybody has.
        .tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = packets
);
