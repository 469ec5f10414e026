//! The whole path, in namespaces, end to end with an appliance, beside what it is measured against.
//!
//! All set-ups stand at the same time, so that measurements go round them: the gateway, the hairpin,
//! the others, and again. Only the one that is measured carries anything, and the others cost
//! nothing meanwhile.
//!
//! Where to read on: `setup` says what is compared, `network`, `gateway` and `forwarder` build it,
//! `traffic` is what goes through, `case` and `measure` say what is looked at, `results` tells.

mod case;
mod cpu;
mod forwarder;
mod gateway;
mod measure;
mod network;
mod results;
mod setup;
mod stage;
mod traffic;
mod watched;

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::error::BenchError;
use super::statistics::PAIRS;
use super::{Context, Measured, with_networks};
use measure::Plan;
use setup::Setup;
use stage::Stage;

/// How long each measurement takes, in seconds.
const SECONDS: f64 = 1.0;
/// Both with `--quick`: together a tenth of the time.
const QUICK_SECONDS: f64 = 0.25;
const QUICK_PAIRS: usize = 3;

/// The whole path, in namespaces, end to end with an appliance, beside what it is measured against.
///
/// Builds network namespaces with a client and a server for each set-up and measures them in turns:
/// "gateway" with a pass-through appliance on the SDK and, where the kernel has it, `big_tcp`;
/// "hairpin", the kernel's VXLAN tunnel to an appliance namespace and back, by policy routing;
/// "gateway-64k", the gateway with its defaults; "kernel", which only forwards; "tun", a program that
/// carries packets between two TUN devices; and "tun-offload", the same with super-packets. All of it
/// is removed at the end, also after a failure or Ctrl-C.
///
/// Needs root, or a system where users may make user namespaces and open /dev/net/tun.
#[derive(Debug, Args)]
pub(super) struct PathArgs {
    /// How often each measurement is made, in turns with the others; 7, or 3 with --quick.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pairs: Option<u16>,
    /// How long each measurement takes; 1, or 0.25 with --quick. A quarter more is for warming up.
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<Duration>,
    /// What is measured; everything, if it is not said.
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    only: Vec<Part>,
    /// Which set-ups are measured; all, if it is not said.
    #[arg(long, value_name = "SETUPS", value_delimiter = ',')]
    setups: Vec<Setup>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Bulk data over TCP: in 1 connection, in 8 that one thread serves at either end, and in 8 with a
    /// thread for each.
    Tcp,
    /// 64-byte UDP, in runs and interleaved.
    Udp,
    /// Round trips, idle and at half load.
    Latency,
    /// New connections.
    Connections,
    /// A connection beside a flood of new flows.
    Flood,
    /// What it costs to be looked at: a gateway that keeps records of all flows, writes a flow log
    /// and is asked for everything each second, beside one that does nothing of it.
    Observability,
}

/// Measures it.
pub(super) fn run(arguments: &PathArgs, context: &Context) -> Result<Measured, BenchError> {
    with_networks(async || {
        let plan = arguments.plan(context.quick);
        let progress = context.begin(plan.steps());
        let mut stage = Stage::set(&plan, &progress).await?;
        measure::run(&plan, &mut stage, &progress).await.map(|series| results::told(&series))
    })
}

impl PathArgs {
    fn plan(&self, quick: bool) -> Plan {
        let default = if quick { (QUICK_PAIRS, QUICK_SECONDS) } else { (PAIRS, SECONDS) };
        let wanted = |part| self.only.is_empty() || self.only.contains(&part);
        let parts = Part::value_variants().iter().copied().filter(|&part| wanted(part));
        // In their order, and each once.
        let setups = Setup::ALL.into_iter();
        let setups = setups.filter(|it| self.setups.is_empty() || self.setups.contains(it));
        Plan {
            prefix: format!("gwlb-bench-{}", std::process::id()),
            parts: parts.collect(),
            setups: setups.collect(),
            pairs: self.pairs.map_or(default.0, usize::from),
            length: self.seconds.unwrap_or(Duration::from_secs_f64(default.1)),
        }
    }
}

/// Seconds on the command line: 0.05 to 600.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected seconds, from 0.05 to 600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        path: PathArgs,
    }

    fn plan(arguments: &[&str], quick: bool) -> Plan {
        let arguments = ["path"].iter().chain(arguments);
        Command::try_parse_from(arguments)
            .unwrap_or_else(|error| panic!("{error}"))
            .path
            .plan(quick)
    }

    #[test]
    fn a_quick_run_takes_a_tenth_of_the_time() {
        let [long, quick] = [false, true].map(|quick| {
            let plan = plan(&[], quick);
            plan.pairs as f64 * plan.length.as_secs_f64()
        });
        assert!((9.0..11.0).contains(&(long / quick)), "{long} s, {quick} s");
    }

    #[test]
    fn what_is_said_counts_and_set_ups_keep_their_order() {
        let plan = plan(
            &["--pairs", "2", "--seconds", "0.5", "--only", "udp,tcp", "--setups", "tun,gateway"],
            true,
        );
        assert_eq!((plan.pairs, plan.length), (2, Duration::from_millis(500)));
        assert_eq!(plan.parts, [Part::Tcp, Part::Udp]);
        assert_eq!(plan.setups, [Setup::Gateway, Setup::Tun]);
    }

    #[test]
    fn seconds_have_bounds() {
        for wrong in ["0", "0.04", "601", "-1", "x", "NaN", "inf"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
        assert_eq!(seconds("0.05").unwrap(), Duration::from_millis(50));
    }
}
