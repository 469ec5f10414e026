//! The benchmarks: how fast the gateway is, beside yardsticks that are measured in the same
//! minutes.
//!
//! [`run`] measures one of three things: the data plane alone in memory (`core`), the whole path
//! through namespaces and an appliance (`path`), or an appliance on the SDK alone (`sdk`). Figures
//! that count are ratios within one run, thread CPU time and counts of instructions, never bare
//! seconds: those say more of the machine than of the program.
//!
//! Where to read on: `bars` has the figures that are judged, `statistics` says when a comparison
//! counts at all, `report` and `charts` tell.

mod bars;
mod charts;
mod core;
mod error;
mod machine;
mod path;
mod progress;
mod report;
mod sdk;
mod statistics;

/// A worker's data plane without devices, for the benches of functions and of instructions
/// (`benches/`): what they measure is what [`run`] measures.
pub mod lane {
    pub use super::core::lane::{BATCH, Lane, Outcome, Plane};
    pub use super::core::ring::{Random, Ring, Segment};
    pub use super::error::BenchError;
}

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use netio::process::{Preflight, Start, restart_in_user_namespace};
use tokio::runtime::Builder;

use crate::lab::Signals;
use error::BenchError;
use machine::Machine;
use progress::Progress;
use report::{Bar, Report, Row};

/// A bar is not reached, or it could not be measured.
const FAILED: u8 = 1;
/// The privileges that it takes are not there.
const NOT_POSSIBLE: u8 = 2;
/// Ended by Ctrl-C, as a shell says it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// Measure how fast the gateway is on this machine, beside baselines in the same run.
///
/// Every figure that is judged is a ratio to a baseline that was measured in turns with it (A, B, A,
/// B, …), the median of at least seven such pairs. A comparison whose baseline spreads over more
/// than 1.35 times is called void: the machine was not quiet enough to say anything.
///
/// Build with --release, and keep the machine quiet.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 done; 1 it could not be measured, or, with --check, a bar is \
                        short of what it must be at least; 2 privileges are missing; 130 interrupted."
)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum What {
    Core(self::core::CoreArgs),
    Path(path::PathArgs),
    Sdk(sdk::SdkArgs),
}

#[derive(Debug, Args)]
struct Common {
    /// Write the results as JSON to FILE; "-" is stdout, which then has nothing else.
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
    /// Draw the results as SVG charts into DIR, which is made if it is not there.
    #[arg(long, value_name = "DIR", global = true)]
    charts: Option<PathBuf>,
    /// Take about a tenth of the time, for a look: less is measured, and it spreads more.
    #[arg(long, global = true)]
    quick: bool,
    /// Exit with status 1 if a bar that is not void is short of what it must be at least.
    #[arg(long, global = true)]
    check: bool,
}

/// What was measured: the figures that are judged, and everything.
type Measured = (Vec<Bar>, Vec<Row>);

/// What each benchmark is given.
#[derive(Debug)]
struct Context {
    /// Whether a tenth of the time has to do.
    quick: bool,
    machine: Machine,
}

impl Context {
    /// Begins to measure in so many steps. Not before it is certain that this process will: one
    /// that restarts itself elsewhere would say everything twice.
    fn begin(&self, steps: usize) -> Progress {
        let progress = Progress::new(steps);
        if let Some(warning) = self.machine.warning() {
            progress.say(&format!("warning: {warning}"));
        }
        progress
    }
}

/// Does what builds networks: with the privileges that it takes, and until Ctrl-C. Whichever ends
/// first, `work` or the wait: dropping `work` ends its threads and processes, and removes its
/// namespaces.
fn with_networks(
    work: impl AsyncFnOnce() -> Result<Measured, BenchError>,
) -> Result<Measured, BenchError> {
    let preflight = Preflight::check();
    match preflight.start() {
        Start::Directly => {}
        Start::InUserNamespace => {
            let error = restart_in_user_namespace();
            return Err(BenchError::io("start over in a user namespace")(error));
        }
        Start::Impossible => return Err(BenchError::NotPossible(preflight.to_string())),
    }
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::io("start a runtime"))?;
    runtime.block_on(async {
        let mut signals = Signals::new().map_err(BenchError::io("watch for signals"))?;
        tokio::select! {
            measured = work() => measured,
            () = signals.wait() => Err(BenchError::Interrupted),
        }
    })
}

/// Runs a benchmark.
pub fn run(arguments: &BenchArgs) -> ExitCode {
    let BenchArgs { what, common } = arguments;
    let context = Context { quick: common.quick, machine: Machine::look() };
    let measured = match what {
        What::Core(arguments) => self::core::run(arguments, &context),
        What::Path(arguments) => path::run(arguments, &context),
        What::Sdk(arguments) => sdk::run(arguments, &context),
    };
    let told = measured.and_then(|(bars, rows)| {
        let report = Report { machine: context.machine, quick: context.quick, bars, rows };
        tell(common, &report)?;
        Ok(report)
    });
    match told {
        Ok(report) if common.check && report.is_short() => {
            fail("a bar is short of what it must be at least", FAILED)
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error @ BenchError::Interrupted) => fail(&error.to_string(), INTERRUPTED),
        Err(error @ BenchError::NotPossible(_)) => fail(&error.to_string(), NOT_POSSIBLE),
        Err(error) => fail(&error.to_string(), FAILED),
    }
}

/// Text to stdout; JSON and charts where they were asked for.
fn tell(common: &Common, report: &Report) -> Result<(), BenchError> {
    if let Some(folder) = &common.charts {
        charts::draw(report, folder)?;
    }
    let Some(path) = common.json.as_deref() else {
        say(&report.to_text());
        return Ok(());
    };
    let json = serde_json::to_string_pretty(report)
        .map_err(io::Error::from)
        .map_err(BenchError::io("write the results as JSON"))?;
    if path == Path::new("-") {
        say(&format!("{json}\n"));
        return Ok(());
    }
    say(&report.to_text());
    fs::write(path, json).map_err(BenchError::io(format!("write {}", path.display())))
}

/// To stdout; a reader that went away has seen enough.
fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn fail(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "gwlb bench: {message}");
    ExitCode::from(code)
}
