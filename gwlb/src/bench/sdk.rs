//! `gwlb bench sdk`: what an appliance on the SDK costs per packet, alone.
//!
//! Each sample appliance runs as a process of its own in a namespace of its own, as in the lab. In
//! place of a gateway, a generator sends Geneve datagrams that were written beforehand, never more
//! at a time than fit into the sockets, and counts what comes back. So nothing is lost, and the
//! processor time of the appliance's process, divided by the packets that it returned, is the cost.
//!
//! That includes what the kernel does on the way to the generator's socket, in the time of whoever
//! sends. Where to read on: `load` is what is sent, `generator` sends it, `field` builds the rest.

mod field;
mod generator;
mod load;

use std::fmt;
use std::io;
use std::time::Duration;

use clap::Args;
use tokio::task::yield_now;

use self::field::{Field, Sample};
use self::generator::{Counted, Generator};
use self::load::{Load, Shape};
use super::error::BenchError;
use super::report::{Bar, Row, metric};
use super::statistics::Samples;
use super::{Context, Measured, with_networks};
use crate::lab::error::LabError;

/// Measure what an appliance costs per packet: the SDK with the sample appliances, fed by a
/// generator, without a gateway.
///
/// Builds network namespaces for the generator and for each appliance, and removes them at the end.
/// The cost is processor time of the appliance's process, one packet thread unless the set-up says
/// otherwise. Needs root, or a system where users may make user namespaces.
#[derive(Debug, Args)]
pub(super) struct SdkArgs {
    /// How often each case is measured, in turns; the median counts.
    #[arg(long, value_name = "N", default_value_t = 7,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    repetitions: u16,
    /// Measure only the cases with TEXT in their names, as "pass-through, 64" or "IDS".
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// How long a case is measured each time: long enough for tens of thousands of system calls, and
/// many times what the kernel's clock of processor time could be wrong by.
const TIME: Duration = Duration::from_millis(500);

/// Before each measurement, this part of its time goes by so that caches and the scheduler settle.
const WARM_UP: u32 = 10;

/// Without the privileges for it, or after Ctrl-C, there is nothing to tell, and nothing is left.
pub(super) fn run(arguments: &SdkArgs, context: &Context) -> Result<Measured, BenchError> {
    with_networks(async || measure(arguments, context).await)
}

/// One thing that is measured again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    sample: Sample,
    shape: Shape,
}

/// The one that is judged.
const BAR: Case = Case { sample: Sample::Passthrough, shape: Shape::Runs };

/// All that is measured.
const CASES: [Case; 12] = {
    use Sample::{Firewall, Ids, Passthrough, PassthroughOnAllCores};
    use Shape::{Bulk, Interleaved, Runs, Singly};
    const fn case(sample: Sample, shape: Shape) -> Case {
        Case { sample, shape }
    }
    [
        case(Passthrough, Runs),
        case(Passthrough, Interleaved),
        case(Passthrough, Singly),
        case(Passthrough, Bulk),
        case(PassthroughOnAllCores, Runs),
        case(PassthroughOnAllCores, Interleaved),
        case(Firewall, Runs),
        case(Firewall, Interleaved),
        case(Firewall, Bulk),
        case(Ids, Runs),
        case(Ids, Interleaved),
        case(Ids, Bulk),
    ]
};

/// What was measured of one case, a value for each time.
#[derive(Debug, Default)]
struct Figures {
    cost: Vec<f64>,
    rate: Vec<f64>,
    syscalls: Vec<f64>,
    lost: u64,
}

/// A case with what it is sent and what was measured.
#[derive(Debug)]
struct Run {
    case: Case,
    load: Load,
    figures: Figures,
}

async fn measure(arguments: &SdkArgs, context: &Context) -> Result<Measured, BenchError> {
    let repetitions = usize::from(arguments.repetitions);
    let time = if context.quick { TIME / 10 } else { TIME };
    let only = arguments.only.as_deref().unwrap_or_default();
    let cases: Vec<_> = CASES.iter().filter(|case| case.to_string().contains(only)).collect();
    if cases.is_empty() {
        return Err(BenchError::Wrong(format!("no case has {only:?} in its name")));
    }
    let progress = context.begin(repetitions * cases.len());
    progress.doing("building the network");
    let mut field = Field::set().await.map_err(of_lab)?;
    let mut generator = Generator::open(field.gateway(), field::GATEWAY)?;
    // Each has what it is sent to itself: streams go on from one time to the next.
    let mut runs: Vec<_> = cases.into_iter().map(|case| Run::new(*case)).collect();
    for run in &runs {
        generator.open_flows(run.case.sample.address(), &run.load)?;
    }
    for repetition in 1..=repetitions {
        for run in &mut runs {
            progress.doing(run.case.to_string());
            run.once(time, &mut field, &mut generator)?;
            progress.done(&format!("{repetition}: {run}"));
            // Lets Ctrl-C come through.
            yield_now().await;
        }
    }

    let mut bars = Vec::new();
    let mut rows = Vec::new();
    for Run { case, figures, .. } in &runs {
        let cost = Samples::new(figures.cost.iter().copied());
        if *case == BAR {
            bars.push(Bar::alone("sdk_cpu_per_packet_us", &cost));
        }
        let rate = Samples::new(figures.rate.iter().copied());
        let syscalls = Samples::new(figures.syscalls.iter().copied());
        for (what, samples) in [
            ((metric::COST, "µs/packet"), &cost),
            ((metric::RATE, "packets/s"), &rate),
            (("syscalls", "per packet"), &syscalls),
        ] {
            let row = Row::new(case.shape.to_string(), case.sample.to_string(), what, samples);
            rows.push(row.with("threads", case.sample.threads()).with("lost", figures.lost));
        }
    }
    Ok((bars, rows))
}

impl Run {
    fn new(case: Case) -> Self {
        Self { case, load: Load::new(case.shape), figures: Figures::default() }
    }

    /// Measures it once.
    fn once(
        &mut self,
        time: Duration,
        field: &mut Field,
        generator: &mut Generator,
    ) -> Result<(), BenchError> {
        let Self { case: Case { sample, .. }, load, figures } = self;
        let address = sample.address();
        generator.run(address, load, time / WARM_UP)?;
        // Asking costs processor time, too: that is done before and after.
        let syscalls = field.report(*sample).map_err(of_lab)?.syscalls;
        let busy = field.processor_time(*sample).map_err(of_lab)?;
        let Counted { returned, lost, took } = generator.run(address, load, time)?;
        let busy = field.processor_time(*sample).map_err(of_lab)?.saturating_sub(busy);
        let syscalls = field.report(*sample).map_err(of_lab)?.syscalls - syscalls;
        figures.cost.push(busy.as_secs_f64() * 1e6 / returned as f64);
        figures.rate.push(returned as f64 / took.as_secs_f64());
        figures.syscalls.push(syscalls as f64 / returned as f64);
        figures.lost += lost;
        Ok(())
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.sample, self.shape)
    }
}

/// The latest figures.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latest = |figures: &[f64]| figures.last().copied().unwrap_or(f64::NAN);
        let (cost, rate) = (latest(&self.figures.cost), latest(&self.figures.rate) / 1e3);
        write!(f, "{}: {cost:.3} µs per packet, {rate:.0} k packets/s", self.case)
    }
}

fn of_lab(error: LabError) -> BenchError {
    match error {
        LabError::Io { what, source } => BenchError::Io { what, source },
        LabError::Interrupted => BenchError::Interrupted,
        other => {
            BenchError::Io { what: "build the network".to_owned(), source: io::Error::other(other) }
        }
    }
}
