//! What a node does with its targets: among whom it spreads flows, and what becomes of the flows
//! of a target that is no longer good.
//!
//! A pure function of what the node knows. Nothing here remembers anything.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::config::{Causes, Failover, WhenNoneHealthy};
use crate::dataplane::select::{Candidate, TargetId};
use crate::dataplane::snapshot::{Fate, NoCandidate, ResetCause, TargetSlot};

/// How a node chooses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Whether the targets of other zones are as good as its own.
    pub cross_zone: bool,
    /// With fewer healthy targets in its own zone than this, it uses the others, too. 0: never.
    pub spill_over_below: u32,
    pub when_none_healthy: WhenNoneHealthy,
    pub failover: Causes<Failover>,
    pub reset: Causes<bool>,
}

/// What a node knows of a target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Participant {
    pub slot: TargetSlot,
    pub id: TargetId,
    /// Whether it stands in the node's zone.
    pub near: bool,
    /// Whether it is registered, and not on its way out.
    pub registered: bool,
    /// Whether its deregistration delay is over.
    pub delay_over: bool,
    /// As configured.
    pub weight: u16,
    /// As it counts now, in slow start.
    pub effective_weight: u16,
    pub health: Health,
}

/// What a node knows of a target's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It passes its checks, or is not checked.
    Healthy,
    /// It fails them.
    Unhealthy,
    /// Nobody knows; a probe has failed already.
    Doubtful,
    /// Nobody knows.
    Initial,
    /// Nobody knows, but it is as old as the gateway, and its first probe has not ended.
    Presumed,
}

impl Health {
    /// Whether it is `initial`.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Doubtful | Self::Initial | Self::Presumed)
    }

    /// Whether nothing bad is known.
    fn has_not_failed(self) -> bool {
        matches!(self, Self::Healthy | Self::Initial | Self::Presumed)
    }
}

/// What a node does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub candidates: Vec<Candidate<TargetSlot>>,
    pub none: NoCandidate,
    /// By slot, up to the last that is not to stay.
    pub fates: Vec<Fate>,
}

/// What a node with these rules does with these targets.
pub(super) fn choose(rules: &Rules, participants: &[Participant]) -> Choice {
    let all = || participants.iter().filter(|it| it.registered && it.weight > 0);
    // At the start, before the first probes have ended, a zone is not poor in targets but unknown.
    let near = all().filter(|it| it.near && it.health.has_not_failed()).count();
    let far = rules.cross_zone || near < rules.spill_over_below as usize;
    let eligible: Vec<_> = all().filter(|it| it.near || far).collect();

    let chosen = chosen(rules.when_none_healthy, &eligible);
    let candidates: Vec<_> = chosen
        .iter()
        .map(|it| Candidate { target: it.slot, id: it.id, weight: it.effective_weight })
        .collect();
    // As long as nobody knows that none is healthy, nothing goes past the appliances.
    let known = eligible.iter().all(|it| !it.health.is_open());
    let none = match rules.when_none_healthy {
        WhenNoneHealthy::Bypass if known => NoCandidate::Bypass,
        _ => NoCandidate::Drop,
    };
    let are_candidates: BTreeSet<_> = chosen.iter().map(|it| it.slot).collect();
    let mut fates = Vec::new();
    for it in participants {
        let fate = fate(rules, it, are_candidates.contains(&it.slot));
        if fate != Fate::Stay {
            let slot = it.slot.0 as usize;
            fates.resize(fates.len().max(slot + 1), Fate::Stay);
            fates[slot] = fate;
        }
    }
    Choice { candidates, none, fates }
}

/// The candidates among the targets that may be.
fn chosen<'a>(policy: WhenNoneHealthy, eligible: &[&'a Participant]) -> Vec<&'a Participant> {
    let those = |good: fn(Health) -> bool| -> Vec<&'a Participant> {
        eligible.iter().copied().filter(|it| good(it.health)).collect()
    };
    if eligible.iter().any(|it| it.health == Health::Healthy) {
        // A gateway that was restarted gives flows back to the targets that had them, before all
        // of those have answered their first probe: otherwise who answers first would get all.
        return those(|health| matches!(health, Health::Healthy | Health::Presumed));
    }
    match policy {
        // "If there are no healthy targets, it picks a random target" (semantics 1a): one that may
        // be healthy rather than one that is not.
        WhenNoneHealthy::FailOpen => {
            let open = those(Health::has_not_failed);
            if open.is_empty() { eligible.to_vec() } else { open }
        }
        WhenNoneHealthy::FailClosed | WhenNoneHealthy::Bypass => Vec::new(),
    }
}

/// The failover matrix (semantics 1b, 2b).
fn fate(rules: &Rules, target: &Participant, is_candidate: bool) -> Fate {
    let Rules { failover, reset, .. } = rules;
    if target.health == Health::Unhealthy {
        if reset.on_unhealthy {
            return Fate::Reset(ResetCause::Unhealthy);
        }
        // If it is a candidate all the same, nobody is better, and flows do not move for nothing.
        if failover.on_unhealthy == Failover::Rebalance && !is_candidate {
            return Fate::Rebalance;
        }
    }
    if target.delay_over {
        if reset.on_deregistration {
            return Fate::Reset(ResetCause::Deregistration);
        }
        if failover.on_deregistration == Failover::Rebalance {
            return Fate::Rebalance;
        }
    }
    Fate::Stay
}

/// In how many steps a slow start leads to the full weight.
const STEPS: u32 = 20;

/// The weight of a target that is in slow start since `begun`; `None` if that is over.
pub(super) fn slow_weight(
    weight: u16,
    begun: Instant,
    slow_start: Duration,
    now: Instant,
) -> Option<u16> {
    let step = step(begun, slow_start, now)?;
    let part = u32::from(weight) * step / STEPS;
    Some((part as u16).max(1).min(weight))
}

/// When the weight of a target in slow start changes next.
pub(super) fn next_step(begun: Instant, slow_start: Duration, now: Instant) -> Option<Instant> {
    let step = step(begun, slow_start, now)?;
    Some(begun + slow_start * (step + 1) / STEPS)
}

/// The step that a slow start has reached, if it is not over.
fn step(begun: Instant, slow_start: Duration, now: Instant) -> Option<u32> {
    let elapsed = now.saturating_duration_since(begun);
    if elapsed >= slow_start {
        return None;
    }
    let step = elapsed.as_nanos() * u128::from(STEPS) / slow_start.as_nanos();
    u32::try_from(step).ok()
}
