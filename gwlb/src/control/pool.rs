//! What a node does with its targets: among whom it spreads flows, and what becomes of the flows
//! of a target that is no longer good.
//!
//! A pure function of what the node knows. Nothing here remembers anything.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::config::{Causes, Failover, WhenNoneHealthy};
use crate::dataplane::select::{Candidate, TargetId};
use crate::dataplane::snapshot::{Fate, NoCandidate, ResetCause, TargetSlot};
use crate::fault::{self, Fault};

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
    /// Whether a candidate may be healthy, and is not just one because none is. `None`: there is none
    /// such, but it is not known yet of all.
    pub hopeful: Option<bool>,
    /// By slot, up to the last that is not to stay.
    pub fates: Vec<Fate>,
}

/// What a node with these rules does with these targets.
pub(super) fn choose(rules: &Rules, participants: &[Participant]) -> Choice {
    let all = || participants.iter().filter(|it| it.registered && it.weight > 0);
    // At the start, before the first probes have ended, a zone is not poor in targets but unknown. A
    // target that is new to a gateway which runs has to show that it is healthy.
    let counts = |health| matches!(health, Health::Healthy | Health::Presumed);
    let any = fault::on(Fault::SpillOverCountsUnhealthy);
    let near = all().filter(|it| it.near && (any || counts(it.health))).count();
    let far =
        rules.cross_zone || near < rules.spill_over_below as usize || fault::on(Fault::ZoneIgnored);
    let eligible: Vec<_> = all().filter(|it| it.near || far).collect();

    let chosen = chosen(rules.when_none_healthy, &eligible);
    let candidates: Vec<_> = chosen
        .iter()
        .map(|it| Candidate { target: it.slot, id: it.id, weight: it.effective_weight })
        .collect();
    // As long as nobody knows that none is healthy, nothing goes past the appliances; nor does it
    // because healthy ones have weight 0.
    let healthy =
        |it: &Participant| it.registered && (it.near || far) && it.health == Health::Healthy;
    let known = eligible.iter().all(|it| !it.health.is_open()) && !participants.iter().any(healthy);
    let none = match rules.when_none_healthy {
        WhenNoneHealthy::Bypass if known || fault::on(Fault::BypassBeforeProbes) => {
            NoCandidate::Bypass
        }
        WhenNoneHealthy::FailClosed if fault::on(Fault::FailClosedBypasses) => NoCandidate::Bypass,
        _ => NoCandidate::Drop,
    };
    let hopeful = match chosen.iter().any(|it| it.health.has_not_failed()) {
        true => Some(true),
        false if eligible.iter().any(|it| it.health.is_open()) => None,
        false => Some(false),
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
    Choice { candidates, none, hopeful, fates }
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
    let Rules { mut failover, mut reset, .. } = *rules;
    if fault::on(Fault::CausesMixedUp) {
        std::mem::swap(&mut failover.on_unhealthy, &mut failover.on_deregistration);
        std::mem::swap(&mut reset.on_unhealthy, &mut reset.on_deregistration);
    }
    // If it is a candidate all the same, nobody is better: flows do not move for nothing, and a
    // connection that was reset would only come back to it.
    if target.health == Health::Unhealthy && !is_candidate {
        if reset.on_unhealthy {
            return Fate::Reset(ResetCause::Unhealthy);
        }
        if failover.on_unhealthy == Failover::Rebalance {
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use Failover::{NoRebalance, Rebalance};
    use Health::{Doubtful, Healthy, Initial, Presumed, Unhealthy};
    use WhenNoneHealthy::{Bypass, FailClosed, FailOpen};
    use rstest::rstest;

    use super::super::testing::start;
    use super::*;

    /// Every step of slow starts of whole milliseconds, to the nanosecond: the weight begins with at
    /// least one, only grows, and changes when it was said that it would and at no other time.
    #[test]
    fn a_slow_start_grows_by_the_steps_that_it_announces() {
        let begun = start();
        let nanosecond = Duration::from_nanos(1);
        for millis in (1..=100).chain([999, 1_001, 30_000, 59_999, 900_000]) {
            let slow_start = Duration::from_millis(millis);
            for weight in [0, 1, 2, 19, 20, 21, 100, 999, 1_000] {
                let of = |at| slow_weight(weight, begun, slow_start, at).unwrap_or(weight);
                let (mut now, mut steps) = (begun, 0);
                assert!(of(now) <= weight && (of(now) > 0 || weight == 0));
                while let Some(next) = next_step(begun, slow_start, now) {
                    assert!(next > now, "time goes on");
                    let before = next.checked_sub(nanosecond).unwrap();
                    assert_eq!(of(now), of(before), "it changes before its time");
                    assert!(of(next) >= of(now), "it shrinks");
                    let expected = u32::from(weight) * (steps + 1) / STEPS;
                    assert_eq!(u32::from(of(next)), expected.max(1).min(weight.into()));
                    (now, steps) = (next, steps + 1);
                }
                assert_eq!((now, steps), (begun + slow_start, STEPS));
                assert_eq!(of(now), weight);
            }
        }
    }

    const RULES: Rules = Rules {
        cross_zone: false,
        spill_over_below: 0,
        when_none_healthy: FailOpen,
        failover: Causes { on_unhealthy: NoRebalance, on_deregistration: NoRebalance },
        reset: Causes { on_unhealthy: false, on_deregistration: false },
    };

    fn target(slot: u32, health: Health) -> Participant {
        Participant {
            slot: TargetSlot(slot),
            id: TargetId::new("fw", SocketAddr::from(([192, 0, 2, slot as u8], 6081))),
            near: true,
            registered: true,
            delay_over: false,
            weight: 100,
            effective_weight: 100,
            health,
        }
    }

    fn slots(choice: &Choice) -> Vec<u32> {
        choice.candidates.iter().map(|it| it.target.0).collect()
    }

    #[rstest]
    #[case::healthy(&[Healthy, Unhealthy, Initial, Healthy], &[0, 3])]
    #[case::the_first_at_the_start(&[Healthy, Presumed, Unhealthy, Doubtful, Initial], &[0, 1])]
    #[case::none_healthy_but_initial(&[Unhealthy, Initial, Doubtful, Presumed], &[1, 3])]
    #[case::none_but_doubtful(&[Unhealthy, Doubtful], &[0, 1])]
    #[case::none(&[Unhealthy, Unhealthy], &[0, 1])]
    fn candidates_if_it_fails_open(#[case] health: &[Health], #[case] expected: &[u32]) {
        let targets: Vec<_> = (0..).zip(health).map(|(slot, &it)| target(slot, it)).collect();
        let choice = choose(&RULES, &targets);
        assert_eq!(slots(&choice), expected);
        assert_eq!(choice.none, NoCandidate::Drop);
        for policy in [FailClosed, Bypass] {
            let choice = choose(&Rules { when_none_healthy: policy, ..RULES }, &targets);
            let any = health.contains(&Healthy);
            assert_eq!(slots(&choice), if any { expected } else { &[] }, "{policy:?}");
        }
    }

    #[rstest]
    #[case(FailOpen, &[], NoCandidate::Drop)]
    #[case(FailClosed, &[], NoCandidate::Drop)]
    #[case(FailClosed, &[Unhealthy], NoCandidate::Drop)]
    #[case(Bypass, &[], NoCandidate::Bypass)]
    #[case(Bypass, &[Unhealthy, Unhealthy], NoCandidate::Bypass)]
    #[case::nobody_knows(Bypass, &[Unhealthy, Initial], NoCandidate::Drop)]
    #[case::nobody_knows_for_sure(Bypass, &[Unhealthy, Doubtful], NoCandidate::Drop)]
    #[case::at_the_start(Bypass, &[Presumed], NoCandidate::Drop)]
    fn without_a_candidate(
        #[case] policy: WhenNoneHealthy,
        #[case] health: &[Health],
        #[case] none: NoCandidate,
    ) {
        let targets: Vec<_> = (0..).zip(health).map(|(slot, &it)| target(slot, it)).collect();
        let choice = choose(&Rules { when_none_healthy: policy, ..RULES }, &targets);
        assert_eq!((slots(&choice), choice.none), (Vec::new(), none));
    }

    #[test]
    fn who_is_not_eligible_is_never_a_candidate() {
        let weightless = Participant { weight: 0, ..target(0, Healthy) };
        let draining = Participant { registered: false, ..target(1, Healthy) };
        let far = Participant { near: false, ..target(2, Healthy) };
        let targets = [weightless, draining, far, target(3, Unhealthy)];
        assert_eq!(slots(&choose(&RULES, &targets)), [3], "nobody better is eligible");
        let cross_zone = Rules { cross_zone: true, ..RULES };
        assert_eq!(slots(&choose(&cross_zone, &targets)), [2]);
    }

    #[rstest]
    #[case::off(0, &[Unhealthy, Unhealthy], &[0, 1])]
    #[case::enough(1, &[Healthy, Unhealthy], &[0])]
    #[case::too_few(2, &[Healthy, Unhealthy], &[0, 9])]
    #[case::none(1, &[Unhealthy, Unhealthy], &[9])]
    #[case::nobody_knows_yet(2, &[Healthy, Presumed], &[0, 1])]
    #[case::doubt_is_not_enough(2, &[Healthy, Doubtful], &[0, 9])]
    fn spill_over(#[case] below: u32, #[case] near: &[Health], #[case] expected: &[u32]) {
        let mut targets: Vec<_> = (0..).zip(near).map(|(slot, &it)| target(slot, it)).collect();
        targets.push(Participant { near: false, ..target(9, Healthy) });
        let rules = Rules { spill_over_below: below, ..RULES };
        assert_eq!(slots(&choose(&rules, &targets)), expected);
    }

    /// Semantics 1b and 2b, and beyond: what is configured for each cause, independently.
    #[rstest]
    fn the_failover_matrix(
        #[values(NoRebalance, Rebalance)] unhealthy_moves: Failover,
        #[values(NoRebalance, Rebalance)] deregistered_moves: Failover,
        #[values(false, true)] unhealthy_resets: bool,
        #[values(false, true)] deregistered_resets: bool,
    ) {
        let rules = Rules {
            failover: Causes {
                on_unhealthy: unhealthy_moves,
                on_deregistration: deregistered_moves,
            },
            reset: Causes {
                on_unhealthy: unhealthy_resets,
                on_deregistration: deregistered_resets,
            },
            ..RULES
        };
        let of_unhealthy = match (unhealthy_resets, unhealthy_moves) {
            (true, _) => Fate::Reset(ResetCause::Unhealthy),
            (false, Rebalance) => Fate::Rebalance,
            (false, NoRebalance) => Fate::Stay,
        };
        let of_deregistered = match (deregistered_resets, deregistered_moves) {
            (true, _) => Fate::Reset(ResetCause::Deregistration),
            (false, Rebalance) => Fate::Rebalance,
            (false, NoRebalance) => Fate::Stay,
        };
        let draining = |it| Participant { registered: false, ..it };
        let unused = |it| Participant { delay_over: true, ..draining(it) };
        let both = if of_unhealthy == Fate::Stay { of_deregistered } else { of_unhealthy };
        for (case, expected) in [
            (target(1, Healthy), Fate::Stay),
            (target(1, Initial), Fate::Stay),
            (target(1, Doubtful), Fate::Stay),
            (target(1, Unhealthy), of_unhealthy),
            (draining(target(1, Healthy)), Fate::Stay),
            (draining(target(1, Unhealthy)), of_unhealthy),
            (unused(target(1, Healthy)), of_deregistered),
            (unused(target(1, Initial)), of_deregistered),
            (unused(target(1, Unhealthy)), both),
        ] {
            let choice = choose(&rules, &[target(0, Healthy), case]);
            let fate = choice.fates.get(1).copied().unwrap_or_default();
            assert_eq!(fate, expected, "{case:?}");
            assert_eq!(choice.fates.first().copied().unwrap_or_default(), Fate::Stay);
        }
    }

    #[test]
    fn a_target_that_is_new_does_not_make_its_zone_rich() {
        let rules = Rules { spill_over_below: 1, when_none_healthy: FailClosed, ..RULES };
        let far = Participant { near: false, ..target(1, Healthy) };
        let of = |near| choose(&rules, &[target(0, near), far]).candidates.len();
        assert_eq!((of(Initial), of(Doubtful), of(Unhealthy)), (1, 1, 1), "the other zone helps");
        // At the start it is not known whether the zone needs help.
        assert_eq!(of(Presumed), 0);
    }

    #[test]
    fn nothing_passes_uninspected_because_healthy_targets_have_weight_0() {
        let rules = Rules { when_none_healthy: Bypass, ..RULES };
        let weightless = Participant { weight: 0, effective_weight: 0, ..target(0, Healthy) };
        assert_eq!(choose(&rules, &[weightless]).none, NoCandidate::Drop);
        let dead = Participant { health: Unhealthy, ..weightless };
        assert_eq!(choose(&rules, &[dead]).none, NoCandidate::Bypass);
        assert_eq!(choose(&rules, &[weightless, target(1, Unhealthy)]).none, NoCandidate::Drop);
    }

    #[test]
    fn flows_do_not_move_if_nobody_is_better() {
        let rebalance = Causes { on_unhealthy: Rebalance, on_deregistration: Rebalance };
        let rules = Rules { failover: rebalance, ..RULES };
        let all = [target(0, Unhealthy), target(1, Unhealthy)];
        assert_eq!(choose(&rules, &all).fates, []);
        // With another policy there is nobody at all; its own rule applies to them.
        let closed = Rules { when_none_healthy: FailClosed, ..rules };
        assert_eq!(choose(&closed, &all).fates, [Fate::Rebalance, Fate::Rebalance]);
        // One that gets no new flows is no candidate either.
        let weightless = Participant { weight: 0, ..target(0, Unhealthy) };
        assert_eq!(choose(&rules, &[weightless, all[1]]).fates, [Fate::Rebalance]);
        // Nor is one reset that its clients would only come back to.
        let reset = Causes { on_unhealthy: true, on_deregistration: false };
        let rules = Rules { failover: Causes::default(), reset, ..RULES };
        assert_eq!(choose(&rules, &all).fates, []);
        let living = [all[0], target(1, Healthy)];
        assert_eq!(choose(&rules, &living).fates, [Fate::Reset(ResetCause::Unhealthy)]);
    }

    #[test]
    fn slow_start_has_twenty_steps() {
        let at = |ms| start() + Duration::from_millis(ms);
        let slow_start = Duration::from_secs(30);
        let weight = |ms| slow_weight(100, at(0), slow_start, at(ms));
        assert_eq!(weight(0), Some(1), "never nothing");
        assert_eq!((weight(1_499), weight(1_500), weight(2_999)), (Some(1), Some(5), Some(5)));
        assert_eq!((weight(29_999), weight(30_000)), (Some(95), None));
        assert_eq!(slow_weight(7, at(0), slow_start, at(1_500)), Some(1));
        let mut steps = Vec::new();
        let mut now = at(0);
        while let Some(next) = next_step(at(0), slow_start, now) {
            steps.push(next.duration_since(at(0)).as_millis());
            now = next;
        }
        assert_eq!(steps, (1..=20).map(|step| step * 1_500).collect::<Vec<_>>());
        assert_eq!(slow_weight(100, at(0), Duration::ZERO, at(0)), None);
    }
}
