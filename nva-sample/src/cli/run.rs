//! From arguments to a running appliance.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use appliance_sdk::{Appliance, Builder, Handle, RunError, Runtime, Worker};
use miette::Diagnostic;

#[cfg(feature = "handoff")]
use super::args::HandoffArgs;
use super::args::{Common, FirewallArgs, Health, IdsArgs, MirrorArgs, PassthroughArgs};
#[cfg(feature = "handoff")]
use crate::aside;
use crate::clock::WallClock;
use crate::firewall::{Firewall, Rules};
#[cfg(feature = "handoff")]
use crate::handoff::{self, Device, Handoff, Setup};
use crate::ids::alert::{self, AlertSink};
use crate::ids::{self, Ids};
use crate::mirror::{self, Mirror};
use crate::passthrough::Passthrough;
use crate::problem::Source;
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
        let hint = match &error {
            RunError::Health { address, error }
                if error.kind() == io::ErrorKind::PermissionDenied && address.port() < 1024 =>
            {
                "\nhint: ports below 1024 take CAP_NET_BIND_SERVICE; --health names another one"
            }
            RunError::Listen { error, .. } | RunError::Health { error, .. }
                if error.kind() == io::ErrorKind::AddrInUse =>
            {
                "\nhint: another program has the port, perhaps another appliance"
            }
            _ => "",
        };
        Self::Run(format!("{error}{hint}"))
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
            // Nobody may be able to read it; the appliance goes on all the same.
            let _ = writeln!(io::stderr(), "{:?}", miette::Report::new(error));
        }
    });
    sample.run(
        move |_| Firewall::new(rules.clone()),
        move || SampleReport { rules: counted.hits(), ..SampleReport::default() },
    )
}

pub(super) fn ids(args: &IdsArgs) -> Result<(), Failure> {
    let source = Source::read(&args.patterns).map_err(Failure::usage)?;
    let patterns = ids::file::parse(&source, args.block).map_err(Failure::usage)?;
    if args.check {
        return Ok(());
    }
    let shared = Arc::new(ids::Shared {
        patterns,
        depth: args.depth_bytes,
        counts: ids::Counts::default(),
        clock: WallClock::start(),
    });
    let cannot_alert = |error| Failure::run(args.alerts.display(), &error);
    let (sink, alerts) = AlertSink::new();
    let told = sink.counts();
    let to = alert::open(&args.alerts).map_err(cannot_alert)?;
    let writer = alert::write(alerts, to, Arc::clone(&told)).map_err(cannot_alert)?;

    let counted = Arc::clone(&shared);
    let result = Sample::new("ids", &args.common).run(
        move |_| Ids::new(Arc::clone(&shared), sink.clone()),
        move || SampleReport {
            rules: counted.patterns.hits(),
            counts: counts([
                ("alerts", &told.told),
                ("alerts_lost", &told.lost),
                ("flows_blocked", &counted.counts.blocked),
                ("stream_gaps", &counted.counts.stream_gaps),
                ("bad_checksums", &counted.counts.bad_checksums),
            ]),
        },
    );
    // The workers are gone, and with them the sinks: the writer ends with the last alert.
    wait_for(writer);
    result
}

pub(super) fn mirror(args: &MirrorArgs) -> Result<(), Failure> {
    let snaplen = args.snaplen as usize;
    let limit = match args.limit_mebibytes {
        0 => u64::MAX,
        mebibytes => mebibytes.saturating_mul(1 << 20),
    };
    let cannot_write = |error| Failure::run(args.out.display(), &error);
    let (mirror, copies) = Mirror::new(snaplen, WallClock::start());
    let counted = mirror.counts();
    let to = mirror::open(&args.out).map_err(cannot_write)?;
    let writer =
        mirror::write(copies, to, snaplen, limit, Arc::clone(&counted)).map_err(cannot_write)?;

    let mut sample = Sample::new("mirror", &args.common);
    // A line of text would spoil the capture.
    sample.quiet |= args.out == Path::new("-");
    let result = sample.run(
        move |_| mirror.clone(),
        move || SampleReport {
            counts: counts([
                ("copies_written", &counted.written),
                ("copies_lost", &counted.lost),
                ("copies_beyond_limit", &counted.beyond_limit),
            ]),
            ..SampleReport::default()
        },
    );
    wait_for(writer);
    result
}

#[cfg(feature = "handoff")]
pub(super) fn handoff(args: &HandoffArgs) -> Result<(), Failure> {
    let device = Device::open(&Setup {
        name: args.device.clone(),
        mtu: args.mtu,
        addresses: args.address.clone(),
        hairpin: args.hairpin,
    })
    .map_err(|error| Failure::Run(error.to_string()))?;
    let shared = Arc::new(handoff::Shared::new(device, args.common.max_flows));
    let (reading, counted) = (Arc::clone(&shared), Arc::clone(&shared));
    // It waits for the kernel and can only end with the process.
    let read = move || {
        let error = reading.read_device();
        tracing::error!(%error, "the device cannot be read any more");
    };
    aside::spawn("device", read).map_err(|error| Failure::run("cannot start a thread", &error))?;
    Sample::new("handoff", &args.common).run(
        move |worker| Handoff::new(Arc::clone(&shared), worker.emitter()),
        move || SampleReport {
            counts: counts([
                ("handed_over", &counted.counts.handed_over),
                ("refused_by_device", &counted.counts.refused),
                ("came_back", &counted.counts.came_back),
                ("of_no_flow", &counted.counts.of_no_flow),
                ("lost", &counted.counts.lost),
            ]),
            ..SampleReport::default()
        },
    )
}

fn counts<const N: usize>(named: [(&str, &AtomicU64); N]) -> BTreeMap<String, u64> {
    named.into_iter().map(|(name, n)| (name.to_owned(), n.load(Ordering::Relaxed))).collect()
}

fn wait_for(writer: JoinHandle<()>) {
    if writer.join().is_err() {
        tracing::error!("the writing thread panicked");
    }
}

/// A sample that is about to run.
pub(super) struct Sample<'a> {
    name: &'static str,
    common: &'a Common,
    quiet: bool,
    builder: Builder,
}

impl<'a> Sample<'a> {
    pub(super) fn new(name: &'static str, common: &'a Common) -> Self {
        let mut builder = Runtime::builder()
            .threads(common.threads)
            .drain(common.drain_seconds)
            .flow_idle_timeout(common.flow_idle_seconds)
            .max_flows(common.max_flows)
            .give_up_privileges()
            .end_on_signals();
        for &address in &common.listen {
            builder = builder.listen(address);
        }
        builder = match common.health {
            Health::At(address) => builder.health(address),
            Health::None => builder.without_health(),
        };
        Self { name, common, quiet: common.quiet, builder }
    }

    /// Runs until a signal ends it, and says what was counted.
    pub(super) fn run<A: Appliance>(
        self,
        make: impl FnMut(&Worker) -> A + Send + 'static,
        sample: impl Fn() -> SampleReport + Send + Sync + 'static,
    ) -> Result<(), Failure> {
        let Self { name, common, quiet, builder } = self;
        // A start gives up the privileges that the folder may take.
        let socket = common.stats.as_deref().map(|path| {
            let cannot_open = |error| Failure::run(path.display(), &error);
            ReportSocket::bind(path).map_err(cannot_open)
        });
        let socket = socket.transpose()?;
        let running = builder.build(make).start()?;
        let handle = running.handle();
        let report = Arc::new({
            let handle = handle.clone();
            move || Report::new(name, handle.stats(), sample())
        });
        let told = Arc::clone(&report);
        let served = socket.map(|socket| socket.serve(move || told())).transpose();
        let _socket = served.map_err(|error| Failure::run("cannot tell the statistics", &error))?;
        if !quiet {
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
