//! How many instructions a packet takes, counted by callgrind: known flows, new ones, and the way
//! back. Counts repeat where times do not.
//!
//! `.ci/instructions` runs this and compares with `instructions.json`.
#![expect(missing_docs, reason = "the macros make items that nobody documents")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up ends")]

use std::hint::black_box;
use std::net::SocketAddr;

use geneve::inner::IpVersion::{self, V4, V6};
use gungraun::Callgrind;
use gungraun::prelude::*;
use gwlb::bench::lane::{Lane, Outcome, Plane, Random, Ring, Segment};
use gwlb::runtime::clock;

/// Packets that are counted together; `.ci/instructions` divides by it.
const PACKETS: usize = 4096;
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

#[library_benchmark]
#[bench::return_ipv4_64(args = (V4, 64), setup = returned)]
#[bench::return_ipv4_1428(args = (V4, 1428), setup = returned)]
#[bench::return_ipv6_1428(args = (V6, 1428), setup = returned)]
fn back(
    (mut lane, ring, from): (Lane, Ring, Vec<SocketAddr>),
) -> Counted<(Lane, Ring, Vec<SocketAddr>)> {
    (black_box(lane.back(&ring, &from, 0..PACKETS)), (lane, ring, from))
}

library_benchmark_group!(name = packets, benchmarks = [forward, back]);
main!(
    config = LibraryBenchmarkConfig::default()
        // Instructions alone: a cache that is simulated is none that anybody has.
        .tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = packets
);
