//! A target as one node sees it: the checks that the node makes, and what they add up to.

use std::time::{Duration, Instant};

use super::health::{Check, CheckId, Finding, Pace};
use super::pool;
use super::probe::ProbeOutcome;
use super::target::{ReasonCode, Standing, TargetState};
use super::tunnel::Tunnel;
use crate::config::HealthCheck;
use crate::fault::{self, Fault};

/// A target as one node sees it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Whether it stands in the node's zone.
    pub near: bool,
    /// Absent: health checks are off.
    pub health: Option<HealthRun>,
    /// Absent: there are no checks through the tunnel.
    pub tunnel: Option<Tunnel>,
    /// Since when it is in slow start.
    pub slow_start: Option<Instant>,
    /// Whether it is as old as the gateway.
    pub at_start: bool,
    /// What was told last.
    pub standing: Standing,
    /// Since when it has this state, since 1970.
    pub since: Duration,
    /// What the last view is made of.
    pub published: pool::Health,
}

/// A health check that runs.
#[derive(Debug, Clone)]
pub(super) struct HealthRun {
    pub id: CheckId,
    pub check: Check,
}

/// How often a target's health is checked.
pub(super) fn pace(settings: &HealthCheck) -> Pace {
    Pace {
        interval: settings.interval,
        healthy_threshold: settings.healthy_threshold,
        unhealthy_threshold: settings.unhealthy_threshold,
    }
}

impl Member {
    /// What the node thinks of the target. It must pass all of its checks.
    pub fn standing(&self) -> Standing {
        let (health, tunnel) = self.findings();
        let faulted = self.health.as_ref().is_some_and(|run| run.check.is_faulted())
            || self.tunnel.as_ref().is_some_and(Tunnel::is_faulted);
        let unhealthy = |reason| Standing::new(TargetState::Unhealthy, reason);
        match (health, tunnel) {
            (Some(Finding::Unhealthy(outcome)), _) => unhealthy(reason(outcome)),
            (_, Some(Finding::Unhealthy(_))) => unhealthy(ReasonCode::FailedHealthChecks),
            _ if faulted => Standing::new(TargetState::Unavailable, ReasonCode::InternalError),
            (Some(Finding::Initial { .. }), _) | (_, Some(Finding::Initial { .. })) => {
                let begun = |finding| !matches!(finding, Finding::Initial { probed: false, .. });
                let any = [health, tunnel].into_iter().flatten().any(begun);
                let reason = if any {
                    ReasonCode::InitialHealthChecking
                } else {
                    ReasonCode::RegistrationInProgress
                };
                Standing::new(TargetState::Initial, reason)
            }
            (None, _) => Standing::new(TargetState::Unavailable, ReasonCode::HealthCheckDisabled),
            (Some(Finding::Healthy), _) => Standing::HEALTHY,
        }
    }

    /// What flows are to make of it. Faults of our own change nothing.
    pub fn health(&self) -> pool::Health {
        let (health, tunnel) = self.findings();
        let tunnel = tunnel.filter(|_| !fault::on(Fault::TunnelCheckIgnored));
        let mut result = pool::Health::Healthy;
        for finding in [health, tunnel].into_iter().flatten() {
            match finding {
                Finding::Unhealthy(_) => return pool::Health::Unhealthy,
                Finding::Initial { failed: true, .. } => result = pool::Health::Doubtful,
                Finding::Initial { .. } if result == pool::Health::Healthy => {
                    result =
                        if self.at_start { pool::Health::Presumed } else { pool::Health::Initial };
                }
                Finding::Initial { .. } | Finding::Healthy => {}
            }
        }
        result
    }

    /// The reason of the standing in a sentence.
    pub fn description(&self, settings: &HealthCheck) -> Option<String> {
        let port = settings.port;
        let probes = settings.protocol;
        Some(match self.standing().reason? {
            ReasonCode::RegistrationInProgress => "no probe has ended yet".to_owned(),
            ReasonCode::InitialHealthChecking => {
                "it has not passed all of its checks yet".to_owned()
            }
            ReasonCode::InternalError => {
                "the gateway cannot make its probes; the log says why".to_owned()
            }
            ReasonCode::HealthCheckDisabled => {
                "the health check is off, and the target counts as healthy".to_owned()
            }
            ReasonCode::Timeout => format!(
                "{probes} probes of port {port} are not answered within {} s",
                settings.timeout.as_secs_f64()
            ),
            _ => match self.findings() {
                (Some(Finding::Unhealthy(ProbeOutcome::Mismatch(status))), _) => format!(
                    "{probes} probes of port {port} are answered with status {status}, which is \
                     not among {}",
                    settings.matcher
                ),
                (Some(Finding::Unhealthy(ProbeOutcome::Refused)), _) => {
                    format!("connections to port {port} are refused")
                }
                (Some(Finding::Unhealthy(_)), _) => {
                    format!("{probes} probes of port {port} are not answered as they should be")
                }
                _ => "the data path is dead: probes through the tunnel do not come back".to_owned(),
            },
        })
    }

    fn findings(&self) -> (Option<Finding>, Option<Finding>) {
        let health = self.health.as_ref().map(|run| run.check.finding());
        (health, self.tunnel.as_ref().map(Tunnel::finding))
    }

    /// The checks that it has.
    pub fn checks(&self) -> impl Iterator<Item = CheckId> {
        let health = self.health.as_ref().map(|run| run.id);
        health.into_iter().chain(self.tunnel.as_ref().map(|tunnel| tunnel.id))
    }
}

/// The reason code for a bad probe.
fn reason(outcome: ProbeOutcome) -> ReasonCode {
    match outcome {
        ProbeOutcome::TimedOut => ReasonCode::Timeout,
        ProbeOutcome::Mismatch(_) => ReasonCode::ResponseCodeMismatch,
        ProbeOutcome::Refused
        | ProbeOutcome::Failed
        | ProbeOutcome::Passed
        | ProbeOutcome::Local => ReasonCode::FailedHealthChecks,
    }
}
