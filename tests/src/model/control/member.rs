//! A target as one node sees it: what its checks have found out, and what that is called.

use std::time::Duration;

use gwlb::config::TargetGroup;
use gwlb::control::{CheckId, ProbeOutcome, ReasonCode, Standing, TargetState};

use super::check::{Check, Finding, Pace};
use super::choice::Health;

/// A target as one node sees it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub near: bool,
    /// Whether it is as old as the gateway.
    pub at_start: bool,
    /// Absent: health checks are off.
    pub health: Option<Check>,
    /// Absent: there are no checks through the tunnel.
    pub tunnel: Option<Check>,
    /// Who its checks are, as soon as they have probed.
    pub health_id: Option<CheckId>,
    pub tunnel_id: Option<CheckId>,
    /// Since when it is in slow start.
    pub slow: Option<Duration>,
    pub standing: Standing,
    pub known: Health,
}

/// The check that a group wants, if it wants one.
pub(super) fn health_pace(group: &TargetGroup) -> Option<Pace> {
    let check = &group.health_check;
    let pace = Pace {
        interval: check.interval,
        healthy: check.healthy_threshold,
        unhealthy: check.unhealthy_threshold,
    };
    check.enabled.then_some(pace)
}

/// The same through the tunnel.
pub(super) fn tunnel_pace(group: &TargetGroup) -> Option<Pace> {
    group.tunnel_check.as_ref().map(|check| Pace {
        interval: check.interval,
        healthy: check.healthy_threshold,
        unhealthy: check.unhealthy_threshold,
    })
}

impl Member {
    pub(super) fn new(
        near: bool,
        at_start: bool,
        checks: (Option<Pace>, Option<Pace>),
        now: Duration,
    ) -> Member {
        let check = |pace| Check::new(pace, Finding::NOTHING, now);
        let mut member = Member {
            near,
            at_start,
            health: checks.0.map(check),
            tunnel: checks.1.map(check),
            health_id: None,
            tunnel_id: None,
            slow: None,
            standing: Standing::HEALTHY,
            known: Health::Healthy,
        };
        (member.standing, member.known) = (member.standing_now(), member.health_now());
        member
    }

    fn findings(&self) -> impl Iterator<Item = Finding> {
        let checks = [self.health.as_ref(), self.tunnel.as_ref()];
        checks.into_iter().flatten().map(|check| check.finding)
    }

    /// The table of states and reasons. A target has to pass both checks.
    pub(super) fn standing_now(&self) -> Standing {
        let health = self.health.as_ref().map(|check| check.finding);
        let faulted = |check: &Option<Check>| check.as_ref().is_some_and(Check::is_faulted);
        if let Some(Finding::Unhealthy(outcome)) = health {
            return Standing::new(
                TargetState::Unhealthy,
                match outcome {
                    ProbeOutcome::TimedOut => ReasonCode::Timeout,
                    ProbeOutcome::Mismatch(_) => ReasonCode::ResponseCodeMismatch,
                    _ => ReasonCode::FailedHealthChecks,
                },
            );
        }
        if self.findings().any(Finding::is_unhealthy) {
            return Standing::new(TargetState::Unhealthy, ReasonCode::FailedHealthChecks);
        }
        if faulted(&self.health) || faulted(&self.tunnel) {
            return Standing::new(TargetState::Unavailable, ReasonCode::InternalError);
        }
        if self.findings().any(Finding::is_initial) {
            let nothing = self.findings().all(|finding| finding == Finding::NOTHING);
            return Standing::new(
                TargetState::Initial,
                if nothing {
                    ReasonCode::RegistrationInProgress
                } else {
                    ReasonCode::InitialHealthChecking
                },
            );
        }
        if health.is_none() {
            return Standing::new(TargetState::Unavailable, ReasonCode::HealthCheckDisabled);
        }
        Standing::HEALTHY
    }

    /// What the node makes of it.
    pub(super) fn health_now(&self) -> Health {
        if self.findings().any(Finding::is_unhealthy) {
            return Health::Unhealthy;
        }
        if !self.findings().any(Finding::is_initial) {
            return Health::Healthy;
        }
        let failed = |finding| matches!(finding, Finding::Initial { failed: true, .. });
        let failed = self.findings().any(failed);
        // Once one has failed it makes no difference any more how old it is.
        Health::Initial { failed, at_start: self.at_start && !failed }
    }
}
