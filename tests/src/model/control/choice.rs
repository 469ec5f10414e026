//! What a node does with its targets, read off the tables of the documentation.

use std::collections::BTreeMap;

use gwlb::config::{Failover, LoadBalancer, TargetGroup, WhenNoneHealthy};
use gwlb::dataplane::snapshot::{Fate, NoCandidate, ResetCause};

/// Who a target is in the model, for as long as it is there.
pub(super) type TargetNumber = u32;

/// What a node knows of a target's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It passes its checks, or has none.
    Healthy,
    Unhealthy,
    /// Nobody knows yet.
    Initial {
        /// A probe has failed already.
        failed: bool,
        /// It is as old as the gateway: before a restart it may have been healthy, and its flows
        /// are to come back to it.
        at_start: bool,
    },
}

impl Health {
    pub(super) fn is_initial(self) -> bool {
        matches!(self, Health::Initial { .. })
    }

    /// Whether it counts as if it were healthy, at the start, until its first probe has ended.
    pub(super) fn is_presumed(self) -> bool {
        self == Health::Initial { failed: false, at_start: true }
    }
}

/// A target, as a node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "what is known of it, each by itself")]
pub(super) struct Seen {
    pub number: TargetNumber,
    /// Whether the node checks it.
    pub checked: bool,
    /// Whether it stands in the node's zone.
    pub near: bool,
    pub registered: bool,
    /// Whether it was deregistered, and its delay is over.
    pub over: bool,
    pub weight: u16,
    /// Its weight now, in slow start.
    pub present_weight: u16,
    pub health: Health,
}

/// What a node does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// With their weights.
    pub candidates: BTreeMap<TargetNumber, u16>,
    pub none: NoCandidate,
    /// Whether a candidate may be healthy; nothing: nobody knows yet.
    pub hopeful: Option<bool>,
    /// Of those whose flows do not just stay.
    pub fates: BTreeMap<TargetNumber, Fate>,
}

/// What a node of this load balancer does with these targets.
pub(super) fn choice(balancer: &LoadBalancer, group: &TargetGroup, targets: &[Seen]) -> Choice {
    let may = |it: &&Seen| it.checked && it.registered && it.weight > 0;
    // "A node uses the targets of its zone; those of all zones with `cross_zone = true`; those of
    // other zones, too, as long as fewer than `spill_over_below_healthy_targets` of its own are
    // healthy."
    let good = |it: &&Seen| it.health == Health::Healthy || it.health.is_presumed();
    let good_here = targets.iter().filter(may).filter(|it| it.near).filter(good).count();
    let everywhere = balancer.cross_zone || good_here < balancer.spill_over_below as usize;
    let reach = |it: &&Seen| it.near || everywhere;
    let usable: Vec<&Seen> = targets.iter().filter(may).filter(reach).collect();

    let any_healthy = usable.iter().any(|it| it.health == Health::Healthy);
    let chosen: Vec<&Seen> = if any_healthy {
        usable.iter().copied().filter(good).collect()
    } else if group.when_none_healthy == WhenNoneHealthy::FailOpen {
        // "go to any registered target, as if all were healthy", to one that may be healthy first.
        let hopeful = |it: &&Seen| {
            matches!(it.health, Health::Healthy | Health::Initial { failed: false, .. })
        };
        let hopeful: Vec<&Seen> = usable.iter().copied().filter(hopeful).collect();
        if hopeful.is_empty() { usable.clone() } else { hopeful }
    } else {
        Vec::new()
    };

    // "As long as a target is still `initial`, nobody knows that none is healthy, and nothing is
    // bypassed yet", nor because the healthy ones want no new flows.
    let unknown = usable.iter().any(|it| it.health.is_initial());
    let healthy = targets
        .iter()
        .filter(reach)
        .any(|it| it.checked && it.registered && it.health == Health::Healthy);
    let bypass = group.when_none_healthy == WhenNoneHealthy::Bypass && !unknown && !healthy;
    let none = if bypass { NoCandidate::Bypass } else { NoCandidate::Drop };

    // "at least one target that is healthy, or of which nothing bad is known, and that is a candidate
    // not just because none is healthy"
    let not_bad =
        |it: &&&Seen| matches!(it.health, Health::Healthy | Health::Initial { failed: false, .. });
    let hopeful =
        if chosen.iter().any(|it| not_bad(&it)) { Some(true) } else { (!unknown).then_some(false) };

    let fates = targets.iter().map(|it| {
        let candidate = chosen.iter().any(|chosen| chosen.number == it.number);
        (it.number, fate(group, it, candidate))
    });
    let fates = fates.filter(|(_, fate)| *fate != Fate::Stay).collect();
    let candidates = chosen.iter().map(|it| (it.number, it.present_weight)).collect();
    Choice { candidates, none, hopeful, fates }
}

/// "When a target goes". A target without answer that is a candidate all the same keeps its flows:
/// nobody would be better.
fn fate(group: &TargetGroup, target: &Seen, candidate: bool) -> Fate {
    let unhealthy = target.health == Health::Unhealthy && !candidate;
    let (moves, resets) = (group.target_failover, group.send_tcp_reset);
    if unhealthy && resets.on_unhealthy {
        Fate::Reset(ResetCause::Unhealthy)
    } else if unhealthy && moves.on_unhealthy == Failover::Rebalance {
        Fate::Rebalance
    } else if target.over && resets.on_deregistration {
        Fate::Reset(ResetCause::Deregistration)
    } else if target.over && moves.on_deregistration == Failover::Rebalance {
        Fate::Rebalance
    } else {
        Fate::Stay
    }
}
