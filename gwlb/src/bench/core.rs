//! The data plane alone, in memory: what a packet costs from the moment it is there to the moment
//! when it could be sent.
//!
//! It is the data plane of the gateway, with a view made from a real configuration, and packets of
//! flows in random order; only devices and sockets are left out. Time is processor time of the
//! thread, so that others on the machine take as little part in it as they can.

mod cases;
mod flood;
mod growth;
mod instructions;
pub(super) mod lane;
pub(super) mod ring;
mod workers;
mod yardstick;

use clap::Args;
use geneve::inner::IpVersion;
use netio::process::thread_cpu_time;

use super::error::BenchError;
use super::statistics::PAIRS;
use super::{Context, Measured};
use crate::runtime::clock;
use lane::Plane;

/// The data plane alone, in memory.
///
/// Decides about packets and encapsulates them, and takes them back, single-threaded and with all
/// cores: known flows, new flows and both, among a thousand flows, a million and eight million; 64
/// and 1428 bytes, IPv4 and IPv6. The yardstick beside it is copying 1428 bytes that are in no
/// cache. Also: what records of flows cost, how long a batch takes while the table grows, what memory
/// a flow takes, and what a flood of new flows does to those that are there.
///
/// Needs no privileges, and about 3 GiB of memory for eight million flows.
#[derive(Debug, Args)]
pub(super) struct CoreArgs {
    /// Leave out what takes more flows than this.
    #[arg(long, value_name = "N", default_value_t = MOST,
          value_parser = clap::value_parser!(u32).range(1000..=MOST.into()))]
    max_flows: u32,
}

/// The most flows that are measured.
const MOST: u32 = 8_000_000;

/// The most flows with records that are measured.
const RECORDED: usize = 1_000_000;

/// How much is done.
#[derive(Debug)]
struct Effort {
    /// Every comparison has so many pairs.
    rounds: usize,
    /// Each measurement takes at least so many seconds of processor time.
    seconds: f64,
    /// Among so many flows.
    flows: Vec<usize>,
}

impl Effort {
    fn new(arguments: &CoreArgs, quick: bool) -> Self {
        let most = arguments.max_flows as usize;
        let flows = [1_000, 1_000_000, MOST as usize].into_iter().filter(|&flows| flows <= most);
        let (rounds, seconds) = if quick { (PAIRS, 0.005) } else { (2 * PAIRS + 1, 0.03) };
        Self { rounds, seconds, flows: flows.collect() }
    }

    /// Among so many flows with records: the most, up to [`RECORDED`].
    fn recorded_flows(&self) -> usize {
        self.flows.iter().copied().filter(|&flows| flows <= RECORDED).max().unwrap_or(1_000)
    }

    /// Not less than a thousand, which are always measured.
    fn most_flows(&self) -> usize {
        self.flows.last().copied().unwrap_or(1_000)
    }
}

/// Measures all of it.
pub(super) fn run(arguments: &CoreArgs, context: &Context) -> Result<Measured, BenchError> {
    let effort = Effort::new(arguments, context.quick);
    let families = [IpVersion::V4, IpVersion::V6];
    let steps = growth::steps()
        + families.map(|version| cases::steps(version, &effort)).iter().sum::<usize>()
        + workers::steps(&effort)
        + flood::steps(&effort);
    let progress = context.begin(steps);

    let (mut bars, mut rows) = (Vec::new(), Vec::new());
    let mut add = |(more_bars, more_rows): Measured| {
        bars.extend(more_bars);
        rows.extend(more_rows);
    };
    // First, while all memory that is taken is new.
    let growth = growth::run(&effort, &progress)?;
    for version in families {
        // One after the other, so that the memory of only one is needed at a time.
        add(cases::run(&Plane::new(1, clock::now())?, version, &effort, &progress)?);
    }
    add(workers::run(context.machine.cores, &effort, &progress)?);
    add(growth);
    add(flood::run(&effort, &progress)?);
    add(instructions::run()?);
    Ok((bars, rows))
}

/// What `work` gives, and the seconds of processor time that it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let before = thread_cpu_time();
    let outcome = work();
    (outcome, thread_cpu_time().saturating_sub(before).as_secs_f64())
}
