//! What a flood of new flows does to those that are there: whether any of them loses its place in a
//! table that is full, and what their packets cost meanwhile.

use std::hint::black_box;

use geneve::inner::IpVersion;

use super::lane::{BATCH, Lane, Plane};
use super::ring::{Random, Ring, Segment};
use super::{Effort, timed, yardstick};
use crate::bench::Measured;
use crate::bench::error::BenchError;
use crate::bench::progress::Progress;
use crate::bench::report::{Bar, Row, metric};
use crate::bench::statistics::{Samples, ratio_of_pairs};
use crate::dataplane::snapshot::TargetSlot;
use crate::runtime::clock;

/// Flows that were there before.
const ESTABLISHED: usize = 100_000;
/// The most flows that the table takes.
const LIMIT: usize = 1_000_000;

/// How many steps [`run`] reports.
pub(super) fn steps(effort: &Effort) -> usize {
    effort.rounds
}

/// Floods a table, a batch of new flows before each batch of known ones.
pub(super) fn run(effort: &Effort, progress: &Progress) -> Result<Measured, BenchError> {
    let plane = Plane::new(1, clock::now())?;
    let mut calm = plane.lane(0, IpVersion::V4, LIMIT)?;
    let mut flooded = plane.lane(0, IpVersion::V4, LIMIT)?;
    let mut random = Random::new(3);
    calm.populate(ESTABLISHED);
    flooded.populate(ESTABLISHED);
    // Room for a batch, as a worker has it: each is written where the last one was.
    let mut ring = Ring::new(IpVersion::V4, yardstick::LEN, BATCH);
    let mut flood = Ring::new(IpVersion::V4, 64, BATCH);
    let targets = targets(&mut flooded)?;
    // The table fills to its limit, and the flood goes on.
    while flooded.untracked() == 0 {
        flood_once(&mut flooded, &mut flood);
    }

    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..=effort.rounds {
        progress.doing(format!("flood: round {round} of {}", effort.rounds));
        let quiet = rate(&mut calm, &mut ring, None, &mut random, effort.seconds)?;
        let loud = rate(&mut flooded, &mut ring, Some(&mut flood), &mut random, effort.seconds)?;
        // The first round warms up.
        if round > 0 {
            without.push(quiet);
            with.push(loud);
            progress.done(&format!("flood: round {round}"));
        }
    }
    let kept = kept(&mut flooded, &targets);

    let pairs: Vec<_> = with
        .iter()
        .zip(&without)
        .map(|(with, without)| (with * kept as f64 / ESTABLISHED as f64, *without))
        .collect();
    let bars = vec![Bar::of("flood_goodput", &ratio_of_pairs(&pairs))];
    let case = "known flows under a flood of new ones";
    let unit = (metric::RATE, "Mpackets/s");
    let rows = vec![
        Row::new(case, "without the flood", unit, &Samples::new(without)),
        Row::new(case, "one in two packets begins a flow", unit, &Samples::new(with)),
        Row::new(case, "kept of 100 k known flows", ("flows", ""), &Samples::new([kept as f64])),
    ];
    Ok((bars, rows))
}

/// A batch of packets that begin flows.
fn flood_once(lane: &mut Lane, flood: &mut Ring) {
    flood.fill(Segment::Syn, |_| lane.unseen());
    black_box(lane.forward(flood, 0..flood.count()));
}

/// Millions of packets of known flows in a second of processor time that is spent on them.
///
/// Each batch is written right before it is taken, as the kernel writes it into a worker's buffers.
/// From a ring that is in no cache it would be the processor that fetches packets ahead; how well it
/// does when something else is between two batches varies a lot, and a worker has nothing like it.
fn rate(
    lane: &mut Lane,
    ring: &mut Ring,
    mut flood: Option<&mut Ring>,
    random: &mut Random,
    seconds: f64,
) -> Result<f64, BenchError> {
    let (mut spent, mut packets, mut offered) = (0.0, 0, 0);
    while spent < seconds {
        if let Some(flood) = &mut flood {
            flood_once(lane, flood);
        }
        ring.fill(Segment::Data, |_| lane.any(random));
        let (outcome, seconds) = timed(|| lane.forward(ring, 0..ring.count()));
        spent += seconds;
        packets += outcome.packets;
        offered += ring.count() as u64;
    }
    if packets != offered {
        return Err(BenchError::Wrong(format!("{packets} of {offered} packets went on")));
    }
    Ok(packets as f64 / spent / 1e6)
}

/// Where the packets of each known flow go.
fn targets(lane: &mut Lane) -> Result<Vec<TargetSlot>, BenchError> {
    let mut ring = Ring::new(IpVersion::V4, 64, 1);
    let lost = || BenchError::Wrong("a known flow has no target".to_owned());
    (0..lane.flows())
        .map(|number| {
            ring.write(0, Segment::Data, lane.nth(number));
            lane.hop(ring.packet(0)).map(|hop| hop.target).ok_or_else(lost)
        })
        .collect()
}

/// How many known flows are still in the table, and at their targets.
fn kept(lane: &mut Lane, targets: &[TargetSlot]) -> usize {
    let mut ring = Ring::new(IpVersion::V4, 64, 1);
    let mut kept = 0;
    for (number, target) in targets.iter().enumerate() {
        ring.write(0, Segment::Data, lane.nth(number));
        let before = (lane.created(), lane.untracked());
        let hop = lane.hop(ring.packet(0));
        let known = (lane.created(), lane.untracked()) == before;
        kept += usize::from(known && hop.is_some_and(|hop| hop.target == *target));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_lost_its_place_is_noticed() {
        let plane = Plane::new(1, clock::now()).unwrap();
        let mut lane = plane.lane(0, IpVersion::V4, 1000).unwrap();
        lane.populate(100);
        let targets = targets(&mut lane).unwrap();
        assert_eq!(kept(&mut lane, &targets), 100);
        // Another table: none of them is in it, though all would go where they went.
        let mut other = plane.lane(0, IpVersion::V4, 1000).unwrap();
        other.populate(100);
        let mut forgetful = plane.lane(0, IpVersion::V4, 1000).unwrap();
        forgetful.know_from(&other);
        assert_eq!(kept(&mut forgetful, &targets), 0);
    }
}
