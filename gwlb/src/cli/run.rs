//! `gwlb run`: the gateway in the foreground.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;

use clap::Args;
use netio::process::{Preflight, Start, privileges};
use nix::sys::stat::{Mode, umask};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::service::{self, Service};
use super::{FAILED, WRONG_USE, fail};
use crate::config::{self, ProblemReport};
use crate::logging::{self, LogFormat};
use crate::runtime::{ControlHandle, Gateway, ReloadError, ReloadReport, Status};

/// Run the gateway that a configuration file describes, in the foreground.
///
/// Everything that the file names is built, or nothing: TUN devices inside existing network
/// namespaces, their addresses and routes, and the sockets of the underlay. "ready" on stdout says
/// that packets flow. On SIGTERM or Ctrl-C no more packets are taken in, those that are with the
/// appliances are waited for, and everything that was built is removed; a second signal ends the
/// program at once. SIGHUP reads the file again, as `gwlb reload` does.
///
/// Building takes privileges (root, or the capabilities to administer networks and to enter
/// namespaces). No thread that carries packets or answers anybody ever has them, and the last
/// thread gives them up before "ready" is said, which the log tells: what took them takes a restart
/// to change.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The configuration file (TOML); `gwlb check` looks it over.
    file: PathBuf,
    /// How the log on stderr looks: lines of text, a JSON object in each line, or the former at a
    /// terminal and the latter otherwise.
    #[arg(long, value_enum, default_value_t, env = "GWLB_LOG_FORMAT", value_name = "FORMAT")]
    log_format: LogFormat,
}

pub(super) fn run(arguments: &RunArgs) -> ExitCode {
    if let Err(error) = logging::start(arguments.log_format) {
        fail(&error.to_string());
        return ExitCode::from(WRONG_USE);
    }
    // What is made from here on is for nobody else: files, and memory, which holds the keys.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    if let Err(error) = privileges::hide_memory() {
        return fail(&format!("cannot hide the memory of the process: {error}"));
    }
    let settings = match config::load(&arguments.file) {
        Ok(settings) => settings,
        Err(problems) => {
            let _ = writeln!(io::stderr(), "{problems}");
            return ExitCode::from(WRONG_USE);
        }
    };
    for note in &settings.notes {
        tracing::warn!("{}", note.message);
    }
    // From here on a signal is not lost, and ends nothing by halves: it waits until all is there.
    let signals = match Signals::heed() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot take signals: {error}")),
    };
    let gateway = match Gateway::start(settings, Some(arguments.file.clone())) {
        Ok(gateway) => gateway,
        Err(error) => {
            let failed = fail(&format!("cannot start: {error}"));
            // What keys there were are wiped, and what hides them would keep the look at what is
            // missing from trying user namespaces. If it cannot be taken back, they seem to be.
            let _ = privileges::reveal_memory();
            let preflight = Preflight::check();
            if preflight.start() != Start::Directly {
                let _ = writeln!(io::stderr(), "\n{preflight}");
            }
            return failed;
        }
    };
    let mut service = Service::new();
    // Its threads have none any more; this one and those that it is about to start follow.
    let served = privileges::give_up().and_then(|left| {
        tracing::info!("privileges are given up: {left}");
        wait(&gateway, signals, &mut service)
    });
    service::stopping();
    let status = gateway.stop();
    for line in farewell(&status).lines() {
        tracing::info!("{line}");
    }
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot go on: {error}")),
    }
}

/// Until the first signal, or until a worker ends by itself; a second signal ends the process.
fn wait(gateway: &Gateway, signals: Signals, service: &mut Service) -> io::Result<()> {
    let first = signals.take(gateway.control().clone())?;
    let mut stdout = io::stdout();
    // Whoever started us may not be listening.
    let _ = stdout.write_all(b"ready\n").and_then(|()| stdout.flush());
    service.ready(gateway);
    loop {
        match first.recv_timeout(service.look()) {
            Err(mpsc::RecvTimeoutError::Timeout) if gateway.is_whole() => service.look_at(gateway),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(io::Error::other("a worker thread ended by itself"));
            }
            other => return other.map_err(io::Error::other),
        }
    }
}

/// The signals that the program minds.
struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Has them wait from now on for who takes them.
    fn heed() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let [terminate, interrupt, hang_up] = {
            let _context = runtime.enter();
            let [terminate, interrupt, hang_up] =
                [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
                    .map(signal);
            [terminate?, interrupt?, hang_up?]
        };
        Ok(Self { runtime, terminate, interrupt, hang_up })
    }

    /// Takes them on a thread of its own: it tells of the first that is to end the gateway, and ends
    /// the process at the second. One thread takes both, so that none is lost in between. At a SIGHUP
    /// the configuration is read again, which holds up no other signal.
    fn take(self, control: ControlHandle) -> io::Result<mpsc::Receiver<()>> {
        let Self { runtime, mut terminate, mut interrupt, mut hang_up } = self;
        let reloads = async move {
            while hang_up.recv().await.is_some() {
                service::reloading();
                tell_of_reload(control.reload(None, false).await);
                service::reloaded();
            }
        };
        let mut next = async move || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let (tell, first) = mpsc::channel();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.spawn(reloads);
            runtime.block_on(async {
                next().await;
                // Whoever waits for it does so until the end.
                let _ = tell.send(());
                next().await;
                std::process::exit(FAILED.into());
            });
        })?;
        Ok(first)
    }
}

/// Logs what a reload has changed, or why it has changed nothing.
fn tell_of_reload(done: Result<ReloadReport, ReloadError>) {
    match done {
        Ok(report) => {
            for change in &report.changes {
                tracing::info!("reload: {change}");
            }
            for note in &report.notes {
                tracing::warn!("reload: {note}");
            }
            tracing::info!(changes = report.changes.len(), "reloaded");
        }
        Err(ReloadError::Wrong(problems)) => {
            let file = problems.source().name();
            for problem in ProblemReport::list(&problems) {
                tracing::error!("reload: {}", problem.line(file));
            }
        }
        // That it was refused, and why, is an event, which is logged.
        Err(_) => {}
    }
}

/// What the gateway did, in a few lines.
fn farewell(status: &Status) -> String {
    use std::fmt::Write;
    let (tun, udp) = (&status.totals.tun, &status.totals.udp);
    let mut text = format!(
        "{} packets came in, {} went to appliances, {} came back, {} were delivered\n",
        tun.flow.received,
        tun.flow.encapsulated,
        udp.flow.received,
        tun.flow.delivered + udp.flow.delivered,
    );
    // Writing to a String cannot fail.
    let past = tun.flow.bypassed + udp.flow.bypassed;
    if past > 0 {
        let _ = writeln!(text, "{past} were delivered uninspected");
    }
    let probes = tun.flow.probes + udp.flow.probes;
    if probes > 0 {
        let _ = writeln!(text, "{probes} of those that came back were probes of the gateway's own");
    }
    for (side, ledger) in [("the networks", tun), ("appliances", udp)] {
        for (reason, count) in &ledger.drops {
            let _ = writeln!(text, "{count} from {side} dropped: {reason}");
        }
    }
    text
}
