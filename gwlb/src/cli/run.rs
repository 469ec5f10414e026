//! `gwlb run`: the gateway in the foreground.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use netio::process::{Preflight, Start, privileges};
use nix::sys::stat::{Mode, umask};
use tokio::signal::unix::{SignalKind, signal};

use super::{FAILED, WRONG_USE, fail};
use crate::config::{self, ProblemReport};
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
}

pub(super) fn run(arguments: &RunArgs) -> ExitCode {
    super::start_logging();
    // What is made from here on is for nobody else: files, and memory, which holds the keys.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    if let Err(error) = privileges::hide_memory() {
        return fail(&format!("cannot hide the memory of the process: {error}"));
    }
    let settings = match config::load(&arguments.file) {
        Ok(settings) => settings,
        Err(problems) => {
            let _ = write!(io::stderr(), "{problems}");
            return ExitCode::from(WRONG_USE);
        }
    };
    for note in &settings.notes {
        tracing::warn!("{}", note.message);
    }
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
    // Its threads have none any more; this one and those that it is about to start follow.
    let served = privileges::give_up().and_then(|left| {
        tracing::info!("privileges are given up: {left}");
        wait(&gateway)
    });
    tracing::info!("draining");
    let status = gateway.stop();
    let _ = write!(io::stderr(), "{}", farewell(&status));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot go on: {error}")),
    }
}

/// How often it is looked whether every worker is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Until the first signal, or until a worker ends by itself; a second signal ends the process.
fn wait(gateway: &Gateway) -> io::Result<()> {
    let first = take_signals(gateway.control().clone())?;
    tracing::info!(workers = gateway.status().workers, "packets flow");
    let mut stdout = io::stdout();
    // Whoever started us may not be listening.
    let _ = stdout.write_all(b"ready\n").and_then(|()| stdout.flush());
    loop {
        match first.recv_timeout(LOOK) {
            Err(mpsc::RecvTimeoutError::Timeout) if gateway.is_whole() => {}
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(io::Error::other("a worker thread ended by itself"));
            }
            other => return other.map_err(io::Error::other),
        }
    }
}

/// Takes signals on a thread of its own: it tells of the first, and ends the process at the second.
/// One thread takes both, so that none is lost in between. At a SIGHUP the configuration is read
/// again, which holds up no other signal.
fn take_signals(control: ControlHandle) -> io::Result<mpsc::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt, mut hang_up) = {
        let _context = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        )
    };
    let reloads = async move {
        while hang_up.recv().await.is_some() {
            tell_of_reload(control.reload(None, false).await);
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
            let problems = problems.len();
            tracing::error!(problems, "not reloaded: the file is wrong, and nothing has changed");
        }
        Err(error) => tracing::error!("not reloaded, and nothing has changed: {error}"),
    }
}

/// What the gateway did, in a few lines.
fn farewell(status: &Status) -> String {
    use std::fmt::Write;
    let (tun, udp) = (&status.totals.tun, &status.totals.udp);
    let mut text = format!(
        "gwlb: {} packets came in, {} went to appliances, {} came back, {} were delivered\n",
        tun.flow.received,
        tun.flow.encapsulated,
        udp.flow.received,
        tun.flow.delivered + udp.flow.delivered,
    );
    for (side, ledger) in [("before", tun), ("after", udp)] {
        for (reason, count) in &ledger.drops {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "gwlb: {count} dropped {side} inspection: {reason}");
        }
    }
    text
}
