//! The demonstration: a whole network on one machine, real traffic through it, and a verdict.
//!
//! [`run`] builds namespaces for a client in the internet, a server in each of two zones, the
//! gateway and three appliances; starts the gateway and the appliances as processes of their own;
//! sends traffic through the kernels' stacks; judges what was seen; and takes all of it away again.
//!
//! A second act, on a network of its own with more appliances, shows what becomes of connections
//! when something goes: `failover`.
//!
//! Where to read on: `plan` says what is built, `network` and `stage` build it, `traffic` is what
//! the machines do, `trial`, `ledger` and `diagnosis` judge, `report` tells.

pub(crate) mod configuration;
mod diagnosis;
pub(crate) mod error;
mod failover;
mod ledger;
mod network;
mod plan;
pub(crate) mod process;
mod progress;
mod report;
mod stage;
pub(crate) mod statistics;
pub(crate) mod traffic;
mod trial;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use netio::process::{Preflight, Start, restart_in_user_namespace};
use tokio::signal::unix::{Signal, SignalKind, signal};

use error::LabError;
use plan::Plan;
use progress::Progress;
use report::Report;
use stage::Stage;

pub use plan::Sabotage;

/// A check failed, or the lab could not be built.
const FAILED: u8 = 1;
/// The privileges that it takes are not there.
const NOT_POSSIBLE: u8 = 2;
/// The arguments do not go together.
const WRONG_USE: u8 = 2;
/// Ended by Ctrl-C, as a shell says it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// See it work: a whole network on this machine, real traffic through it, and a verdict.
///
/// Builds network namespaces for a client in the internet, a server in each of two zones, the
/// gateway, and three appliances (firewall, IDS, pass-through). Route tables steer every packet
/// between client and servers through an appliance. Then HTTP, UDP, ping and bulk transfers run over
/// IPv4 and IPv6, and it is checked that everything arrived unchanged, that each flow stayed with
/// one appliance, that the denied port is denied, and that every packet is accounted for. All of it
/// is removed at the end, also after a failure or Ctrl-C.
///
/// Needs root, or a system where users may make user namespaces and open /dev/net/tun.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 every check held; 1 a check did not hold or the network \
                        could not be built; 2 privileges are missing; 130 interrupted.")]
pub struct DemoArgs {
    /// Write the results as JSON to FILE; "-" is stdout, which then has nothing else.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave the network running until Ctrl-C, and say how to enter it.
    #[arg(long)]
    keep: bool,
    /// Break the network on purpose, to see that the checks notice.
    #[arg(long = "break", value_name = "FAULT")]
    sabotage: Option<Sabotage>,
    /// How much data each transfer carries, in MiB; 256, or 16 with --failover.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    size: Option<u64>,
    /// Play a second act: appliances are drained, added, hung and killed, and the gateway is
    /// reloaded, killed and started again, under a steady load of 260 TCP connections.
    #[arg(long)]
    failover: bool,
}

impl DemoArgs {
    /// Bytes of each transfer.
    fn bytes(&self) -> u64 {
        let mebibytes = self.size.unwrap_or(if self.failover { 16 } else { 256 });
        mebibytes << 20
    }
}

/// Runs the demonstration.
pub fn run(arguments: &DemoArgs) -> ExitCode {
    if !arguments.failover && arguments.sabotage.is_some_and(Sabotage::is_of_failover) {
        return fail("this fault is one of the second act: add --failover", WRONG_USE);
    }
    let preflight = Preflight::check();
    match preflight.start() {
        Start::Directly => {}
        Start::InUserNamespace => {
            let error = restart_in_user_namespace();
            return fail(&format!("cannot start over in a user namespace: {error}"), FAILED);
        }
        Start::Impossible => return fail(&preflight.to_string(), NOT_POSSIBLE),
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start a runtime: {error}"), FAILED),
    };
    match runtime.block_on(demonstrate(arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(LabError::Interrupted) => fail("interrupted; everything is removed", INTERRUPTED),
        Err(error) => fail(&error.to_string(), FAILED),
    }
}

/// Whether every check held. When this returns, nothing is left.
async fn demonstrate(arguments: &DemoArgs) -> Result<bool, LabError> {
    let prefix = format!("gwlb-demo-{}", std::process::id());
    let (second, first) = match arguments.sabotage {
        Some(fault) if fault.is_of_failover() => (Some(fault), None),
        fault => (None, fault),
    };
    let plan = Plan::new(prefix.clone(), first);
    let second = arguments.failover.then(|| Plan::of_failover(prefix, second));
    let mut signals = Signals::new().map_err(LabError::io("watch for signals"))?;
    let mut progress = Progress::new();
    // Whichever ends first: dropping the other one ends its processes and removes its namespaces.
    let (stage, ok) = tokio::select! {
        performed = perform(arguments, &plan, second.as_ref(), &mut progress) => performed?,
        () = signals.wait() => return Err(LabError::Interrupted),
    };
    if arguments.keep {
        // With the results as JSON on stdout, this is for the other channel.
        let _ = writeln!(io::stderr(), "{}", how_to_enter(&plan, &stage));
        signals.wait().await;
    }
    Ok(ok)
}

async fn perform(
    arguments: &DemoArgs,
    plan: &Plan,
    second: Option<&Plan>,
    progress: &mut Progress,
) -> Result<(Stage, bool), LabError> {
    let mut stage = Stage::set(plan, &configuration::balancing(plan), progress).await?;
    let findings = trial::run(plan, &mut stage, progress, arguments.bytes()).await?;
    let mut report = Report::new(plan, findings, progress.timeline());
    if let Some(second) = second {
        // The second act has a network of the same names.
        drop(stage);
        progress.second_act();
        let scenes;
        (stage, scenes) = failover::run(second, progress).await?;
        report.add_failover(scenes, progress.timeline());
    }
    progress.hide();
    tell(arguments, plan, &report)?;
    Ok((stage, report.ok))
}

/// Ctrl-C, and the request to terminate. One watch from beginning to end, so that none gets lost
/// between two waits.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Until the next of either.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Text to stdout, and JSON where it was asked for.
fn tell(arguments: &DemoArgs, plan: &Plan, report: &Report) -> Result<(), LabError> {
    let on_stdout = Path::new("-");
    // What a terminal has shown line by line, it need not show again.
    let told = io::stdout().is_terminal() && io::stderr().is_terminal();
    let text = || report.to_text(plan, told);
    let Some(path) = arguments.json.as_deref() else {
        say(&text());
        return Ok(());
    };
    let json = serde_json::to_string_pretty(report)
        .map_err(io::Error::from)
        .map_err(LabError::io("write the results as JSON"))?;
    if path == on_stdout {
        say(&format!("{json}\n"));
        let _ = writeln!(io::stderr(), "{}", report.verdict());
        return Ok(());
    }
    say(&text());
    fs::write(path, json).map_err(LabError::io(format!("write {}", path.display())))
}

/// How somebody gets into the kept network.
fn how_to_enter(plan: &Plan, stage: &Stage) -> String {
    use std::fmt::Write;

    // Without root, the names are seen only from inside of our own namespaces.
    let here = std::process::id();
    let within = if private() {
        format!("nsenter -t {here} -U --preserve-credentials -m ")
    } else {
        String::new()
    };
    let mut text = String::from("\nThe network stays until Ctrl-C. To enter it:\n");
    for name in stage.namespaces() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {within}nsenter --net=/run/netns/{} bash", plan.netns(name));
    }
    let socket = stage.admin_socket();
    let _ = writeln!(text, "What the gateway does: gwlb status --socket {}", socket.display());
    let _ = writeln!(text, "Its configuration:     {}", stage.configuration().display());
    for (name, id) in stage.processes() {
        let _ = writeln!(text, "  process {id}: {name}");
    }
    text
}

/// Whether this process is root only in a user namespace of its own.
fn private() -> bool {
    // The initial user namespace maps all ids: "0 0 4294967295".
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2).is_some_and(|count| count == "1")
}

/// To stdout; a reader that went away has seen enough.
fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn fail(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "gwlb demo: {message}");
    ExitCode::from(code)
}
