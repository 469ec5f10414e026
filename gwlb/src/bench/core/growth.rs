//! How long a batch takes while the table grows from nothing, and what memory it has taken in the
//! end. A table that stands still to move everything to a larger place shows here, and nowhere in
//! an average.

use geneve::inner::IpVersion;
use procfs::process::Process;

use super::lane::{BATCH, Plane};
use super::ring::{Ring, Segment};
use super::{Effort, timed};
use crate::bench::Measured;
use crate::bench::error::BenchError;
use crate::bench::progress::Progress;
use crate::bench::report::{Bar, Row, flows_shown};
use crate::bench::statistics::Samples;
use crate::runtime::clock;

/// The table grows so many times. What a batch takes every time is the table's doing; what it takes
/// once is the machine's.
const REPEATS: usize = 3;

/// How many steps [`run`] reports.
pub(super) fn steps() -> usize {
    REPEATS
}

/// Grows a table to the most flows that are to be measured.
pub(super) fn run(effort: &Effort, progress: &Progress) -> Result<Measured, BenchError> {
    let flows = effort.most_flows();
    let shown = flows_shown(flows);
    let batches = flows / BATCH;
    let mut fastest = vec![f64::INFINITY; batches];
    let mut worst = Vec::new();
    let mut resident = Vec::new();
    let mut table = Vec::new();
    for repeat in 1..=REPEATS {
        progress.doing(format!("growth to {shown}, {repeat} of {REPEATS}"));
        let before = resident_bytes()?;
        let plane = Plane::new(1, clock::now())?;
        let mut lane = plane.lane(0, IpVersion::V4, flows)?;
        let mut ring = Ring::new(IpVersion::V4, 64, BATCH);
        let mut slowest: f64 = 0.0;
        for fastest in &mut fastest {
            ring.fill(Segment::Data, |_| lane.unseen());
            let (outcome, seconds) = timed(|| lane.forward(&ring, 0..BATCH));
            let microseconds = seconds * 1e6;
            if outcome.packets != BATCH as u64 {
                return Err(BenchError::Wrong("a growing table lost packets".to_owned()));
            }
            *fastest = fastest.min(microseconds);
            slowest = slowest.max(microseconds);
        }
        if lane.created() != (batches * BATCH) as u64 {
            return Err(BenchError::Wrong("a growing table did not take all flows".to_owned()));
        }
        worst.push(slowest);
        table.push(lane.table_bytes() as f64 / flows as f64);
        let grown = resident_bytes()?.saturating_sub(before);
        resident.push(grown as f64 / (batches * BATCH) as f64);
        progress.done(&format!("growth to {shown}, {repeat} of {REPEATS}"));
    }

    let samples = Samples::new(fastest);
    let setup = format!("IPv4, batches of {BATCH}, to {shown}");
    let row = |metric, unit, value: f64| {
        Row::new(
            "the table grows from empty",
            setup.clone(),
            (metric, unit),
            &Samples::new([value]),
        )
    };
    let table = Samples::new(table);
    // The bar is for eight million, where nothing that is there once makes a difference.
    let bars = match flows {
        8_000_000 => vec![Bar::alone("bytes_per_flow", &table)],
        _ => Vec::new(),
    };
    let rows = vec![
        row("batch, median", "µs", samples.median()),
        row("batch, p99.9 / median", "", samples.quantile(0.999) / samples.median()),
        row("batch, worst / median", "", samples.max() / samples.median()),
        Row::new(
            "the table grows from empty",
            setup.clone(),
            ("worst of each growth", "µs"),
            &Samples::new(worst),
        ),
        Row::new(
            "memory of a flow",
            format!("IPv4, {shown}"),
            ("hot entries and index", "B"),
            &table,
        ),
        Row::new(
            "memory of a flow",
            format!("IPv4, {shown}"),
            ("resident, all in all", "B"),
            &Samples::new(resident),
        ),
    ];
    Ok((bars, rows))
}

/// Bytes of memory that this process has.
fn resident_bytes() -> Result<u64, BenchError> {
    let pages = Process::myself().and_then(|process| process.statm()).map_err(|error| {
        BenchError::io("see how much memory there is")(std::io::Error::other(error))
    })?;
    Ok(pages.resident * procfs::page_size())
}
