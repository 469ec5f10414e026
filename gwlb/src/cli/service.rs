//! What systemd is told of a gateway, where systemd has started it (`sd_notify`(3)): that it is ready,
//! that it reloads, that it ends, how it is in a line, and that its workers are alive.
//!
//! Who does not listen is not waited for, and is no failure.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::control::{NodePackets, TargetState};
use crate::runtime::{Gateway, Status, clock};

/// How often a watchdog is told in the time after which it takes the service for dead.
const TIMES: u32 = 3;

/// How often the line is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What systemd knows of the gateway.
#[derive(Debug)]
pub(super) struct Service {
    listens: bool,
    watchdog: Option<Duration>,
    line: String,
    /// When the watchdog is to be told again.
    due: Option<Instant>,
    /// Whether all workers have answered the last time.
    alive: bool,
}

impl Service {
    /// As the environment says.
    pub fn new() -> Self {
        let listens = std::env::var_os("NOTIFY_SOCKET").is_some();
        let watchdog = sd_notify::watchdog_enabled().filter(|_| listens);
        Self { listens, watchdog, line: String::new(), due: None, alive: true }
    }

    /// How long may pass until the next look.
    pub fn look(&self) -> Duration {
        self.watchdog.map_or(LOOK, |watchdog| LOOK.min(watchdog / TIMES))
    }

    /// Packets flow.
    pub fn ready(&mut self, gateway: &Gateway) {
        if self.listens {
            self.line = line(&gateway.status());
            tell(&[NotifyState::Ready, NotifyState::Status(&self.line)]);
        }
    }

    /// Tells how the gateway is, if that has changed, and that it is alive, if it is: when each worker
    /// has answered a question, and the control plane another one.
    pub fn look_at(&mut self, gateway: &Gateway) {
        if !self.listens {
            return;
        }
        let line = line(&gateway.status());
        if line != self.line {
            tell(&[NotifyState::Status(&line)]);
            self.line = line;
        }
        let Some(watchdog) = self.watchdog else { return };
        let now = clock::now();
        if self.due.is_some_and(|due| now < due) {
            return;
        }
        let alive = gateway.workers_answer(watchdog / TIMES);
        if alive {
            tell(&[NotifyState::Watchdog]);
            self.due = Some(now + watchdog / TIMES);
        } else if self.alive {
            tracing::error!("a worker does not answer; the watchdog is not told that it is alive");
        }
        self.alive = alive;
    }
}

/// No more packets are taken in.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// The configuration is about to be read again.
pub(super) fn reloading() {
    // Without the time systemd would take an earlier word for this one.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// The configuration was read, whatever came of it.
pub(super) fn reloaded() {
    tell(&[NotifyState::Ready]);
}

fn tell(what: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(%error, "cannot tell systemd");
    }
}

/// The gateway in a line.
fn line(status: &Status) -> String {
    let healthy =
        |state: TargetState| matches!(state, TargetState::Healthy | TargetState::Unavailable);
    let healthy = status.targets.iter().filter(|target| healthy(target.state)).count();
    let targets = status.targets.len();
    let bypassed = status
        .load_balancers
        .iter()
        .filter(|balancer| balancer.nodes.iter().any(|node| node.packets == NodePackets::Bypassed));
    let bypassed: Vec<_> = bypassed.map(|balancer| balancer.name.as_str()).collect();
    let workers = status.workers;
    let noun = if workers == 1 { "worker" } else { "workers" };
    let line = format!("{workers} {noun}; {healthy} of {targets} targets take new flows");
    if bypassed.is_empty() {
        line
    } else {
        format!("{line}; PACKETS PASS UNINSPECTED at {}", bypassed.join(", "))
    }
}
