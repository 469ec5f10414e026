//! From arguments to a running appliance.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use appliance_sdk::{Appliance, Builder, Handle, RunError, Runtime, Worker};
use miette::Diagnostic;

use super::args::{Common, FirewallArgs, Health, PassthroughArgs};
use crate::firewall::{Firewall, Rules};
use crate::passthrough::Passthrough;
use crate::report::{Report, ReportSocket, SampleReport};

/// Why a command ended otherwise than asked for; its `Debug` is the report for the user.
pub(super) enum Failure {
    /// It could not run.
    Run(String),
    /// The user has to change something.
    Usage(miette::Report),
}

impl Failure {
    pub(super) fn usage(error: impl Diagnostic + Send + Sync + 'static) -> Self {
        Self::Usage(miette::Report::new(error))
    }

    pub(super) fn run(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::Run(format!("{what}: {error}"))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(message) => write!(f, "error: {message}"),
            Self::Usage(report) => fmt::Debug::fmt(report, f),
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::Run(error.to_string())
    }
}

pub(super) fn passthrough(args: &PassthroughArgs) -> Result<(), Failure> {
    let fault = args.fault;
    if let Some(fault) = fault {
        tracing::warn!(?fault, "broken on purpose");
    }
    Sample::new("passthrough", &args.common)
        .run(move |_| Passthrough::new(fault), SampleReport::default)
}

pub(super) fn firewall(args: &FirewallArgs) -> Result<(), Failure> {
    let rules = Rules::load(&args.rules).map_err(Failure::usage)?;
    if args.check {
        return Ok(());
    }
    let (reloaded, counted) = (rules.clone(), rules.clone());
    let mut sample = Sample::new("firewall", &args.common);
    sample.builder = sample.builder.on_hangup(move || match reloaded.reload() {
        Ok(()) => tracing::info!("new rules are in force"),
        Err(error) => {
            tracing::error!("the old rules stay in force");
            eprintln!("{:?}", miette::Report::new(error));
        }
    });
    sample.run(
        move |_| Firewall::new(rules.clone()),
        move || SampleReport { rules: counted.hits(), ..SampleReport::default() },
    )
}

/// A sample that is about to run.
pub(super) struct Sample<'a> {
    name: &'static str,
    common: &'a Common,
    pub(super) builder: Builder,
}

impl<'a> Sample<'a> {
    pub(super) fn new(name: &'static str, common: &'a Common) -> Self {
        let mut builder = Runtime::builder()
            .threads(common.threads)
            .drain(common.drain_seconds)
            .flow_idle_timeout(common.flow_idle_seconds)
            .max_flows(common.max_flows)
            .end_on_signals();
        for &address in &common.listen {
            builder = builder.listen(address);
        }
        builder = match common.health {
            Health::At(address) => builder.health(address),
            Health::None => builder.without_health(),
        };
        Self { name, common, builder }
    }

    /// Runs until a signal ends it, and says what was counted.
    pub(super) fn run<A: Appliance>(
        self,
        make: impl FnMut(&Worker) -> A + Send + 'static,
        sample: impl Fn() -> SampleReport + Send + Sync + 'static,
    ) -> Result<(), Failure> {
        let Self { name, common, builder } = self;
        let running = builder.build(make).start()?;
        let handle = running.handle();
        let report = Arc::new({
            let handle = handle.clone();
            move || Report::new(name, handle.stats(), sample())
        });
        let _socket = common
            .stats
            .as_deref()
            .map(|path| {
                let report = Arc::clone(&report);
                ReportSocket::open(path, move || report())
                    .map_err(|error| Failure::run(path.display(), &error))
            })
            .transpose()?;
        if !common.quiet {
            say_ready(&handle);
        }
        running.join()?;
        let Report { packets, bytes, returned_packets, kept_packets, flows, drops, .. } = report();
        tracing::info!(packets, bytes, returned_packets, kept_packets, flows, ?drops, "ended");
        Ok(())
    }
}

/// Tells a parent process that it need not wait any longer.
fn say_ready(handle: &Handle) {
    let listening: Vec<_> = handle.listening().iter().map(ToString::to_string).collect();
    let health = handle.health().map_or_else(|| "none".to_owned(), |address| address.to_string());
    let mut stdout = io::stdout().lock();
    // Nobody has to read it.
    let _ = writeln!(stdout, "ready geneve={} health={health}", listening.join(","));
    let _ = stdout.flush();
}
