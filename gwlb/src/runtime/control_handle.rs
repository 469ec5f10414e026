//! How others ask the control plane: each request is a message, and its answer comes back.
//!
//! The control thread answers in the order of the requests, between probes. What is asked often is
//! kept for a moment, so that no crowd of clients can hold up a health check.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use router::source::{Problems, Source};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::StartError;
use super::clock;
use super::minutes::Told;
use super::pings::{PingRefused, Pinged, Wanted};
use crate::config::{self, Change, Port, ProblemReport, Settings, TrafficMode};
use crate::control::{
    CommandError, Control, EndpointGroupStatus, LoadBalancerStatus, TargetSpec, TargetStatus,
};
use crate::dataplane::snapshot::Snapshot;

/// Requests that may wait.
const QUEUE: usize = 64;
/// How old an answer about targets may be.
const FRESH: Duration = Duration::from_millis(10);

/// A way to the control plane, for the admin API, signals and whoever embeds a gateway.
#[derive(Debug, Clone)]
pub struct ControlHandle {
    requests: mpsc::Sender<Request>,
    known: Arc<Mutex<Known>>,
}

/// What was seen last, and when.
type Known = Option<(Instant, Arc<View>)>;

/// What is seen of the control plane at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// Every target, by group.
    pub targets: Arc<Vec<TargetStatus>>,
    /// Every load balancer.
    pub load_balancers: Vec<LoadBalancerStatus>,
    /// Every group of endpoints.
    pub endpoint_groups: Vec<EndpointGroupStatus>,
    /// What the workers were given last; `None` once the control thread has ended.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The last whole minute.
    pub minutes: Told,
}

impl View {
    pub fn of(control: &Control, minutes: Told) -> Self {
        Self {
            targets: Arc::new(control.targets()),
            load_balancers: control.load_balancers(),
            endpoint_groups: control.endpoint_groups(),
            snapshot: Some(control.snapshot()),
            minutes,
        }
    }
}

/// What is asked of the control thread.
#[derive(Debug)]
pub(super) enum Request {
    View(oneshot::Sender<View>),
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
    SwitchEndpointGroup {
        group: String,
        to: Option<String>,
        reply: Reply<(), ControlError>,
    },
    Ping {
        wanted: Wanted,
        reply: Reply<Vec<Pinged>, PingRefused>,
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
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
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
    /// It changes what a running gateway cannot change. These are all the changes, and each says
    /// whether it is one of those.
    #[error("a running gateway cannot change this; restart it: {}", listing(.0))]
    Restart(Vec<Change>),
    /// What it needs could not be had.
    #[error(transparent)]
    Resources(#[from] StartError),
    /// The gateway is ending.
    #[error("the gateway is ending")]
    Ending,
}

impl ReloadError {
    /// The same in one line, of bounded length: of a file that is wrong, the first problem.
    pub(super) fn in_a_line(&self) -> String {
        const LONGEST: usize = 500;
        let mut line = match self {
            Self::Wrong(problems) => {
                let file = problems.source().name();
                let listed = ProblemReport::list(problems);
                let first = listed.first().map(|first| first.line(file).to_string());
                let first = first.unwrap_or_default();
                match listed.len() {
                    0 | 1 => first,
                    count => format!("{first} (the first of {count} problems)"),
                }
            }
            other => other.to_string(),
        };
        if let Some((end, _)) = line.char_indices().nth(LONGEST) {
            line.truncate(end);
            line.push('…');
        }
        line
    }
}

fn listing(changes: &[Change]) -> String {
    let restart = changes.iter().filter(|change| change.restart);
    restart.map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ControlHandle {
    pub(super) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (Self { requests, known: Arc::default() }, receiver)
    }

    /// Another handle, whose users do not stand in line with those of this one.
    pub(super) fn apart(&self) -> Self {
        Self { requests: self.requests.clone(), known: Arc::default() }
    }

    /// Every target with what is thought of it and what happened with it, not older than a moment.
    pub async fn targets(&self) -> Arc<Vec<TargetStatus>> {
        Arc::clone(&self.view().await.targets)
    }

    /// Targets and load balancers, not older than a moment, and not older than the last change that
    /// was asked for through this handle or its clones.
    pub(super) async fn view(&self) -> Arc<View> {
        // Who waits for the lock finds the answer that another one has got.
        let mut known = self.known.lock().await;
        let fresh = |at: &Instant| clock::now().saturating_duration_since(*at) < FRESH;
        if let Some((_, view)) = known.as_ref().filter(|(at, _)| fresh(at)) {
            return Arc::clone(view);
        }
        match self.ask(Request::View).await {
            Some(view) => {
                let view = Arc::new(view);
                *known = Some((clock::now(), Arc::clone(&view)));
                view
            }
            // At the very end, what was known last.
            None => known.as_ref().map(|(_, view)| Arc::clone(view)).unwrap_or_default(),
        }
    }

    /// The same for a thread that may wait.
    pub(super) fn view_blocking(&self) -> View {
        let (reply, answer) = oneshot::channel();
        match self.requests.blocking_send(Request::View(reply)) {
            Ok(()) => answer.blocking_recv().unwrap_or_default(),
            Err(_) => View::default(),
        }
    }

    /// Registers a target, or changes one that is registered.
    ///
    /// # Errors
    /// [`ControlError`]; then nothing has changed.
    pub async fn register(&self, group: String, target: TargetSpec) -> Result<(), ControlError> {
        let ask = |reply| Request::Register { group, target, reply };
        self.change(ask).await.unwrap_or(Err(ControlError::Ending))
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
        self.change(ask).await.unwrap_or(Err(ControlError::Ending))
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
        self.change(ask).await.unwrap_or(Err(ControlError::Ending))
    }

    /// Has a group of endpoints give new flows to this one of them, or takes that back (`None`).
    ///
    /// # Errors
    /// [`ControlError`]; then nothing has changed.
    pub async fn switch_endpoint_group(
        &self,
        group: String,
        to: Option<String>,
    ) -> Result<(), ControlError> {
        let ask = |reply| Request::SwitchEndpointGroup { group, to, reply };
        self.change(ask).await.unwrap_or(Err(ControlError::Ending))
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
        self.change(ask).await.unwrap_or(Err(ReloadError::Ending))
    }

    /// Sends a ping to each target that is wanted.
    pub(super) async fn ping(&self, wanted: Wanted) -> Result<Vec<Pinged>, PingRefused> {
        let answer = self.ask(|reply| Request::Ping { wanted, reply }).await;
        answer.unwrap_or(Err(PingRefused::Ending))
    }

    /// Asks for a change, and forgets what was seen before it.
    async fn change<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let answer = self.ask(request).await;
        *self.known.lock().await = None;
        answer
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

/// A reload that can be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub settings: Settings,
    /// What it changes; not applied yet.
    pub report: ReloadReport,
}

impl Plan {
    /// Reads and checks what is to be taken up: `source`, or else the file. `fit` is what the
    /// gateway does to the settings before it works with them.
    pub fn of(
        present: &Settings,
        file: &ConfigFile,
        source: Option<Source>,
        fit: impl FnOnce(&mut Settings),
    ) -> Result<Self, ReloadError> {
        let wrong = |problems| ReloadError::Wrong(Box::new(problems));
        let source = match (source, &file.0) {
            (Some(source), _) => source,
            (None, Some(path)) => Source::read(path).map_err(wrong)?,
            (None, None) => return Err(ReloadError::NoFile),
        };
        let mut settings = config::parse(&source).map_err(wrong)?;
        fit(&mut settings);
        let changes = config::diff(present, &settings);
        if changes.iter().any(|change| change.restart) {
            return Err(ReloadError::Restart(changes));
        }
        let notes = settings.notes.iter().map(|note| note.message.clone()).collect();
        Ok(Self { settings, report: ReloadReport { applied: false, changes, notes } })
    }
}

#[cfg(any(test, feature = "fuzz"))]
pub(super) mod rehearsal;

#[cfg(test)]
pub(super) mod tests {
    use super::rehearsal::answer;
    use super::*;
    use crate::control::{Input, Output};

    /// A handle to a control plane that has no workers and probes nobody, but does all that it is
    /// asked for, until the handle is gone.
    pub(in crate::runtime) fn answered(control: Control) -> ControlHandle {
        answered_with(control, ConfigFile::default())
    }

    /// The same for one that was started from a file.
    pub(in crate::runtime) fn answered_with(
        mut control: Control,
        file: ConfigFile,
    ) -> ControlHandle {
        let (handle, mut requests) = ControlHandle::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    let due = control.poll_timeout().unwrap_or_else(|| clock::now() + FRESH);
                    tokio::select! {
                        request = requests.recv() => match request {
                            Some(request) => answer(&mut control, &file, request),
                            None => break,
                        },
                        () = tokio::time::sleep_until(due.into()) => {
                            control.handle_timeout(clock::now());
                        }
                    }
                    while let Some(output) = control.poll_output() {
                        if let Output::Publish(view) = output {
                            // As workers would that have nothing else to do.
                            let held = Input::Acknowledged(view.generation);
                            control.handle(held, clock::now());
                        }
                    }
                }
            });
        });
        handle
    }
}
