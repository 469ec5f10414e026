//! What workers gain that share nothing: several at once, each on a thread of its own, beside one
//! alone.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use geneve::inner::IpVersion;

use super::lane::{Lane, Plane};
use super::ring::{Random, Ring, Segment};
use super::{Effort, timed, yardstick};
use crate::bench::Measured;
use crate::bench::error::BenchError;
use crate::bench::progress::Progress;
use crate::bench::report::{Bar, Row, metric};
use crate::bench::statistics::{Samples, ratio_of_pairs};
use crate::runtime::clock;

/// Flows of all workers together.
const FLOWS: usize = 1_000_000;
const SIZES: [usize; 2] = [yardstick::LEN, 64];

/// A worker with its packets.
struct Worker {
    lane: Lane,
    ring: Ring,
    random: Random,
}

/// How many steps [`run`] reports.
pub(super) fn steps(effort: &Effort) -> usize {
    SIZES.len() * effort.rounds
}

/// Measures one worker, two, and as many as there are cores.
pub(super) fn run(
    cores: usize,
    effort: &Effort,
    progress: &Progress,
) -> Result<Measured, BenchError> {
    let most = cores.max(2);
    let numbers = if most > 2 { vec![1, 2, most] } else { vec![1, 2] };
    let (mut bars, mut rows) = (Vec::new(), Vec::new());
    for len in SIZES {
        let plane = Plane::new(most as u16, clock::now())?;
        let mut workers: Vec<_> = (0..most)
            .map(|number| -> Result<_, BenchError> {
                let mut lane = plane.lane(number as u16, IpVersion::V4, FLOWS)?;
                lane.populate(FLOWS.min(effort.most_flows()) / most);
                let ring = Ring::new(IpVersion::V4, len, usize::MAX);
                Ok(Worker { lane, ring, random: Random::new(number as u64) })
            })
            .collect::<Result<_, _>>()?;
        let mut rates = vec![Vec::new(); numbers.len()];
        // The first round warms up.
        for round in 0..=effort.rounds {
            progress.doing(format!("workers, {len} B: round {round} of {}", effort.rounds));
            for (number, rates) in numbers.iter().zip(&mut rates) {
                let rate = rate(&mut workers[..*number], effort.seconds)?;
                if round > 0 {
                    rates.push(rate);
                }
            }
            if round > 0 {
                progress.done(&format!("workers, {len} B: round {round}"));
            }
        }
        if len == yardstick::LEN {
            let pairs: Vec<_> = rates[1].iter().copied().zip(rates[0].iter().copied()).collect();
            bars.push(Bar::of("workers2_vs_1", &ratio_of_pairs(&pairs)));
        }
        for (number, rates) in numbers.iter().zip(rates) {
            let plural = if *number == 1 { "" } else { "s" };
            let setup = format!("IPv4, {len} B, {number} worker{plural}");
            let unit = (metric::RATE, "Mpackets/s");
            rows.push(Row::new("workers at once", setup, unit, &Samples::new(rates)));
        }
    }
    Ok((bars, rows))
}

/// Millions of packets in a second of processor time, of all workers together, from at least so
/// many seconds' work of each.
fn rate(workers: &mut [Worker], seconds: f64) -> Result<f64, BenchError> {
    let barrier = Barrier::new(workers.len());
    let rates: Vec<Result<f64, BenchError>> = thread::scope(|scope| {
        let running: Vec<_> = workers
            .iter_mut()
            .map(|worker| scope.spawn(|| worker.work(&barrier, seconds)))
            .collect();
        let died = || Err(BenchError::Wrong("a worker panicked".to_owned()));
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| died())).collect()
    });
    rates.into_iter().sum()
}

impl Worker {
    /// The rate of this worker. All begin each of their passes at once.
    fn work(&mut self, barrier: &Barrier, seconds: f64) -> Result<f64, BenchError> {
        let Self { lane, ring, random } = self;
        let (mut spent, mut packets, mut wrong) = (0.0, 0, false);
        // So many that all go through as many: who ended sooner would leave the others alone.
        // One takes about ten milliseconds.
        let passes = Duration::from_secs_f64(seconds).as_millis().div_ceil(10).max(1);
        for _ in 0..passes {
            ring.fill(Segment::Data, |_| lane.any(random));
            barrier.wait();
            let (outcome, seconds) = timed(|| lane.forward(ring, 0..ring.count()));
            spent += seconds;
            packets += outcome.packets;
            wrong |= outcome.packets != ring.count() as u64;
        }
        if wrong {
            return Err(BenchError::Wrong("a worker lost packets of its own flows".to_owned()));
        }
        Ok(packets as f64 / spent / 1e6)
    }
}
