//! How others ask the control plane: each request is a message, and its answer comes back.
//!
//! The control thread answers in the order of the requests, between probes. What is asked often is
//! kept for a moment, so that no crowd of clients can hold up a health check.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use router::source::{Problems, Source};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::StartError;
use super::clock;
use crate::config::{Change, Port, TrafficMode};
use crate::control::{CommandError, TargetSpec, TargetStatus};

/// Requests that may wait.
const QUEUE: usize = 64;
/// How old an answer about targets may be.
const FRESH: Duration = Duration::from_millis(10);

/// A way to the control plane, for the admin API, signals and whoever embeds a gateway.
#[derive(Debug, Clone)]
pub struct ControlHandle {
    requests: mpsc::Sender<Request>,
    targets: Arc<Mutex<Option<Known>>>,
}

/// What was known of the targets at a moment.
type Known = (Instant, Arc<Vec<TargetStatus>>);

/// What is asked of the control thread.
#[derive(Debug)]
pub(super) enum Request {
    Targets(oneshot::Sender<Vec<TargetStatus>>),
    Register {
        group: String,
        target: TargetSpec,
        reply: Reply<(), ControlError>,
    },
    Deregister {
        group: String,
        address: IpAddr,
        port: Option<Port>,
        reply: Reply<(), ControlError>,
    },
    TrafficMode {
        load_balancer: String,
        mode: TrafficMode,
        reply: Reply<(), ControlError>,
    },
    Reload {
        source: Option<Source>,
        dry_run: bool,
        reply: Reply<ReloadReport, ReloadError>,
    },
}

pub(super) type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// Why something was not done. Nothing has changed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// It makes no sense.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// What it needs could not be had.
    #[error(transparent)]
    Resources(#[from] StartError),
    /// The gateway is ending.
    #[error("the gateway is ending")]
    Ending,
}

/// What a reload has changed, or would change.
#[derive(Debug, Clone, Serialize)]
pub struct ReloadReport {
    /// Whether it was done, or only looked at.
    pub applied: bool,
    /// What is different, in the order of the tables.
    pub changes: Vec<Change>,
    /// What the new file allows and may surprise.
    pub notes: Vec<String>,
}

/// Why a configuration was not taken up. Nothing has changed.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The gateway was not started from a file, and none was given.
    #[error("the gateway was not started from a file, so there is none to read again")]
    NoFile,
    /// The file cannot be read, or something is wrong with it.
    #[error("{0}")]
    Wrong(Box<Problems>),
    /// It changes what a running gateway cannot change.
    #[error("a running gateway cannot change this; restart it: {}", listing(.0))]
    Restart(Vec<Change>),
    /// What it needs could not be had.
    #[error(transparent)]
    Resources(#[from] StartError),
    /// The gateway is ending.
    #[error("the gateway is ending")]
    Ending,
}

fn listing(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ControlHandle {
    pub(super) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (Self { requests, targets: Arc::default() }, receiver)
    }

    /// Every target with what is thought of it and what happened with it, not older than a moment.
    pub async fn targets(&self) -> Arc<Vec<TargetStatus>> {
        // Who waits for the lock finds the answer that another one has got.
        let mut known = self.targets.lock().await;
        let fresh = |at: &Instant| clock::now().saturating_duration_since(*at) < FRESH;
        if let Some((_, targets)) = known.as_ref().filter(|(at, _)| fresh(at)) {
            return Arc::clone(targets);
        }
        match self.ask(Request::Targets).await {
            Some(targets) => {
                let targets = Arc::new(targets);
                *known = Some((clock::now(), Arc::clone(&targets)));
                targets
            }
            // At the very end, what was known last.
            None => known.as_ref().map(|(_, targets)| Arc::clone(targets)).unwrap_or_default(),
        }
    }

    /// The same for a thread that may wait.
    pub(super) fn targets_blocking(&self) -> Vec<TargetStatus> {
        let (reply, answer) = oneshot::channel();
        match self.requests.blocking_send(Request::Targets(reply)) {
            Ok(()) => answer.blocking_recv().unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Registers a target, or changes one that is registered.
    ///
    /// # Errors
    /// [`ControlError`]; then nothing has changed.
    pub async fn register(&self, group: String, target: TargetSpec) -> Result<(), ControlError> {
        let ask = |reply| Request::Register { group, target, reply };
        self.ask(ask).await.unwrap_or(Err(ControlError::Ending))
    }

    /// Deregisters a target, which drains it.
    ///
    /// # Errors
    /// [`ControlError`]; then nothing has changed.
    pub async fn deregister(
        &self,
        group: String,
        address: IpAddr,
        port: Option<Port>,
    ) -> Result<(), ControlError> {
        let ask = |reply| Request::Deregister { group, address, port, reply };
        self.ask(ask).await.unwrap_or(Err(ControlError::Ending))
    }

    /// Has a load balancer's packets inspected or go past the appliances.
    ///
    /// # Errors
    /// [`ControlError`]; then nothing has changed.
    pub async fn set_traffic_mode(
        &self,
        load_balancer: String,
        mode: TrafficMode,
    ) -> Result<(), ControlError> {
        let ask = |reply| Request::TrafficMode { load_balancer, mode, reply };
        self.ask(ask).await.unwrap_or(Err(ControlError::Ending))
    }

    /// Takes up a configuration: the one given, or the file that the gateway was started from.
    /// With `dry_run` nothing is changed, and the report says what would be.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub async fn reload(
        &self,
        source: Option<Source>,
        dry_run: bool,
    ) -> Result<ReloadReport, ReloadError> {
        let ask = |reply| Request::Reload { source, dry_run, reply };
        self.ask(ask).await.unwrap_or(Err(ReloadError::Ending))
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// The file that a gateway was started from.
#[derive(Debug, Clone, Default)]
pub(super) struct ConfigFile(pub Option<PathBuf>);

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::Control;

    /// A handle to a control plane that has no workers and does nothing but answer about targets,
    /// until the handle is gone.
    pub(in crate::runtime) fn answered(control: Control) -> ControlHandle {
        let (handle, mut requests) = ControlHandle::new();
        std::thread::spawn(move || {
            while let Some(request) = requests.blocking_recv() {
                if let Request::Targets(reply) = request {
                    let _ = reply.send(control.targets());
                }
            }
        });
        handle
    }
}
