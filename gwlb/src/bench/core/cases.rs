//! What a packet costs: known flows, new ones, some of each, and the way back, by the number of
//! flows, the size of packets and the family; beside the yardstick, in turns. And what it costs more
//! to keep records of flows, as gateways do unless they are told not to.

use std::net::SocketAddr;

use geneve::inner::IpVersion;

use super::lane::{Lane, Plane};
use super::ring::{Random, Ring, Segment};
use super::yardstick::{self, Yardstick};
use super::{Effort, timed};
use crate::bench::Measured;
use crate::bench::error::BenchError;
use crate::bench::progress::Progress;
use crate::bench::report::{Bar, FLOWS, Row, flows_shown, metric};
use crate::bench::statistics::{Samples, ratio_of_pairs};

/// Of mixed packets, one in so many begins a flow.
const NEW_ONE_IN: usize = 10;

/// What a packet finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hit,
    New,
    Mixed,
    Return,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Hit, Self::New, Self::Mixed, Self::Return];

    fn name(self) -> &'static str {
        match self {
            Self::Hit => "known flow: decide and encapsulate",
            Self::New => "new flow: decide and encapsulate",
            Self::Mixed => "one new flow in ten packets: decide and encapsulate",
            Self::Return => "return: verify, route and coalesce",
        }
    }
}

/// One thing that is measured once in every round.
#[derive(Debug)]
struct Case {
    kind: Kind,
    /// By their places.
    ring: usize,
    lane: usize,
    /// Nanoseconds per packet, by round.
    costs: Vec<f64>,
}

/// Sizes of packets in bytes, IP header included.
const SIZES: [usize; 2] = [yardstick::LEN, 64];

/// What is measured with records of flows, too, in large packets of IPv4.
const RECORDED: [Kind; 2] = [Kind::Hit, Kind::New];

/// So many flows with records there are, of a family of which that is measured.
fn recorded(version: IpVersion, effort: &Effort) -> Option<usize> {
    (version == IpVersion::V4).then(|| effort.recorded_flows())
}

/// How many steps [`run`] reports.
pub(super) fn steps(version: IpVersion, effort: &Effort) -> usize {
    effort.flows.len() + usize::from(recorded(version, effort).is_some()) + effort.rounds
}

/// Measures all cases of one family.
pub(super) fn run(
    plane: &Plane,
    version: IpVersion,
    effort: &Effort,
    progress: &Progress,
) -> Result<Measured, BenchError> {
    let family = match version {
        IpVersion::V4 => "IPv4",
        IpVersion::V6 => "IPv6",
    };
    let mut lanes = Vec::new();
    let without = effort.flows.iter().map(|&flows| (flows, false));
    let recorded = recorded(version, effort);
    for (flows, records) in without.chain(recorded.map(|flows| (flows, true))) {
        let with = if records { " with records" } else { "" };
        let shown = format!("{family}: {}{with}", flows_shown(flows));
        progress.doing(format!("{shown} begin"));
        // Room for those that come and go besides.
        let mut lane = plane.lane_with(0, version, flows + (1 << 20), records)?;
        lane.populate(flows);
        lanes.push(lane);
        progress.done(&format!("{shown} are there"));
    }
    let mut rings = SIZES.map(|len| Ring::new(version, len, usize::MAX));
    let mut cases: Vec<_> = (0..rings.len())
        .flat_map(|ring| Kind::ALL.map(|kind| (ring, kind)))
        .flat_map(|(ring, kind)| {
            let lanes = 0..effort.flows.len();
            lanes.map(move |lane| Case { kind, ring, lane, costs: Vec::new() })
        })
        .collect();
    // Those with records come last.
    let mut with_records: Vec<_> = recorded
        .iter()
        .flat_map(|_| RECORDED)
        .map(|kind| Case { kind, ring: 0, lane: effort.flows.len(), costs: Vec::new() })
        .collect();

    let mut yardstick = Yardstick::new();
    let mut copies = Vec::new();
    let mut random = Random::new(1);
    // The first round warms up.
    for round in 0..=effort.rounds {
        progress.doing(format!("{family}: round {round} of {}", effort.rounds));
        let copy = yardstick.measure(effort.seconds);
        if round > 0 {
            copies.push(copy);
        }
        for case in cases.iter_mut().chain(&mut with_records) {
            let (lane, ring) = (&mut lanes[case.lane], &mut rings[case.ring]);
            let cost = measure(case.kind, lane, ring, &mut random, effort.seconds)?;
            if round > 0 {
                case.costs.push(cost);
            }
        }
        if round > 0 {
            progress.done(&format!("{family}: round {round}"));
        }
    }

    let cost = |kind, len, flows| {
        let mut found = cases.iter();
        let found = found.find(|case| {
            (case.kind, SIZES[case.ring], lanes[case.lane].flows()) == (kind, len, flows)
        });
        found.map(|case| case.costs.as_slice())
    };
    let bars = match version {
        IpVersion::V4 => bars(&copies, cost),
        IpVersion::V6 => Vec::new(),
    };
    let mut rows = Vec::new();
    let unit = (metric::COST, "ns/packet");
    for kind in Kind::ALL {
        for case in cases.iter().filter(|case| case.kind == kind) {
            let flows = lanes[case.lane].flows();
            let samples = Samples::new(case.costs.iter().copied());
            let setup = format!("{family}, {} B", SIZES[case.ring]);
            rows.push(Row::new(kind.name(), setup, unit, &samples).with(FLOWS, flows));
        }
    }
    for case in &with_records {
        let (len, flows) = (SIZES[case.ring], lanes[case.lane].flows());
        let without = cost(case.kind, len, flows).unwrap_or_default();
        let of = format!("flow records, {family}, {len} B: decide and encapsulate");
        rows.extend(record_rows(&of, case.kind, flows, [without, &case.costs]));
    }
    let setup = format!("memcpy beside {family}, {} B", yardstick::LEN);
    rows.push(Row::new("yardstick", setup, ("copy", "ns/packet"), &Samples::new(copies)));
    Ok((bars, rows))
}

/// What packets cost without records of flows, and with them.
fn record_rows(of: &str, kind: Kind, flows: usize, costs: [&[f64]; 2]) -> [Row; 2] {
    let finds = if kind == Kind::New { "new flow" } else { "known flow" };
    let [without, with] = costs.map(|costs| Samples::new(costs.iter().copied()));
    [("without", without), ("with", with)].map(|(records, samples)| {
        let setup = format!("{finds} {records} records, {}", flows_shown(flows));
        Row::new(of, setup, (metric::COST, "ns/packet"), &samples)
    })
}

/// The comparisons, all with large packets of IPv4.
fn bars<'a>(copies: &[f64], cost: impl Fn(Kind, usize, usize) -> Option<&'a [f64]>) -> Vec<Bar> {
    const K: usize = 1_000;
    const M: usize = 1_000_000;
    let cost = |kind, flows| cost(kind, yardstick::LEN, flows);
    let pairs = |values: &[f64], baselines: &[f64]| -> Vec<(f64, f64)> {
        values.iter().copied().zip(baselines.iter().copied()).collect()
    };
    let compare = |name, value: Option<&[f64]>, baseline: Option<&[f64]>| {
        Some(Bar::of(name, &ratio_of_pairs(&pairs(value?, baseline?))))
    };
    let hit = |flows| cost(Kind::Hit, flows);
    // Rates are the other way round than costs; the baseline stays that of known flows.
    let rate = |costs: &[f64]| costs.iter().map(|cost| 1e9 / cost).collect::<Vec<_>>();
    let (new, known) = (cost(Kind::New, M).map(rate), hit(M).map(rate));
    [
        compare("core_hit_vs_memcpy", hit(M), Some(copies)),
        compare("cost_1m_vs_1k", hit(M), hit(K)),
        compare("cost_8m_vs_1k", hit(8 * M), hit(K)),
        compare("new_vs_hit", new.as_deref(), known.as_deref()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Nanoseconds of processor time per packet, from at least so many seconds' work.
fn measure(
    kind: Kind,
    lane: &mut Lane,
    ring: &mut Ring,
    random: &mut Random,
    seconds: f64,
) -> Result<f64, BenchError> {
    let (mut spent, mut packets) = (0.0, 0);
    while spent < seconds {
        let (time, count) = pass(kind, lane, ring, random)?;
        spent += time;
        packets += count;
    }
    Ok(spent / packets as f64 * 1e9)
}

/// Goes once through the ring, in pieces that are small beside the number of flows, so that there
/// are as many as there are said to be. The seconds it took, and the packets.
fn pass(
    kind: Kind,
    lane: &mut Lane,
    ring: &mut Ring,
    random: &mut Random,
) -> Result<(f64, usize), BenchError> {
    let piece = match kind {
        Kind::Hit | Kind::Return => ring.count(),
        Kind::New => lane.flows().clamp(1 << 10, 1 << 14).min(ring.count()),
        Kind::Mixed => (NEW_ONE_IN * lane.flows()).clamp(1 << 10, 1 << 17).min(ring.count()),
    };
    let mut from: Vec<SocketAddr> = Vec::new();
    for number in 0..ring.count() {
        let new = match kind {
            Kind::Hit | Kind::Return => false,
            Kind::New => true,
            Kind::Mixed => number % NEW_ONE_IN == 0,
        };
        if new {
            ring.write(number, Segment::Syn, lane.unseen());
        } else {
            ring.write(number, Segment::Data, lane.any(random));
        }
    }
    if kind == Kind::Return {
        from = lane.echo(ring);
    }
    let created = lane.created();
    let (mut spent, mut packets, mut start) = (0.0, 0, 0);
    while start < ring.count() {
        let end = (start + piece).min(ring.count());
        let (outcome, seconds) = timed(|| match kind {
            Kind::Return => lane.back(ring, &from, start..end),
            _ => lane.forward(ring, start..end),
        });
        spent += seconds;
        packets += outcome.packets as usize;
        if matches!(kind, Kind::New | Kind::Mixed) {
            lane.forget_unanswered();
        }
        start = end;
    }
    let begun = match kind {
        Kind::Hit | Kind::Return => 0,
        Kind::New => ring.count(),
        Kind::Mixed => ring.count().div_ceil(NEW_ONE_IN),
    };
    let made = (lane.created() - created) as usize;
    if (packets, made) != (ring.count(), begun) {
        let name = kind.name();
        return Err(BenchError::Wrong(format!(
            "{name}: of {} packets {packets} went on and made {made} flows in place of {begun}",
            ring.count(),
        )));
    }
    Ok((spent, packets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn each_kind_does_what_it_says() {
        for version in [IpVersion::V4, IpVersion::V6] {
            for records in [false, true] {
                let plane = Plane::new(1, clock::now()).unwrap();
                let mut lane = plane.lane_with(0, version, 1 << 20, records).unwrap();
                lane.populate(1000);
                for len in SIZES {
                    let mut ring = Ring::new(version, len, 3000);
                    let mut random = Random::new(1);
                    // Twice, since the second time finds what the first one left.
                    for kind in [Kind::ALL, Kind::ALL].concat() {
                        let done = pass(kind, &mut lane, &mut ring, &mut random);
                        let (spent, packets) = done.unwrap();
                        assert!(spent > 0.0);
                        assert_eq!(packets, 3000, "{kind:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn records_stand_beside_the_same_without() {
        let rows = record_rows("records", Kind::New, 1_000_000, [&[50.0, 70.0], &[80.0, 80.0]]);
        let shown = rows.map(|row| (row.setup, row.median, row.runs));
        let expected = [("without", 60.0), ("with", 80.0)]
            .map(|(records, median)| (format!("new flow {records} records, 1 M flows"), median, 2));
        assert_eq!(shown, expected);
    }

    #[test]
    fn bars_are_of_what_was_measured_in_the_same_round() {
        let costs = |kind, len, flows| -> Option<&[f64]> {
            assert_eq!(len, 1428);
            match (kind, flows) {
                (Kind::Hit, 1_000) => Some(&[50.0, 100.0]),
                (Kind::Hit, 1_000_000) => Some(&[75.0, 150.0]),
                (Kind::New, 1_000_000) => Some(&[100.0, 200.0]),
                _ => None,
            }
        };
        let bars = bars(&[150.0, 300.0], costs);
        let values: Vec<_> = bars.iter().map(|bar| (bar.name, bar.value)).collect();
        assert_eq!(
            values,
            [("core_hit_vs_memcpy", 0.5), ("cost_1m_vs_1k", 1.5), ("new_vs_hit", 0.75)]
        );
        assert!(bars.iter().all(|bar| bar.void), "the baselines double");
    }
}
