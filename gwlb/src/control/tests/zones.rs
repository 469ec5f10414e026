//! Zones, what happens when nothing is healthy, bypass, and slow start.

use std::collections::BTreeMap;

use rstest::rstest;

use crate::config::{TrafficMode, Weight};
use crate::control::testing::{Manner, World, address, file};
use crate::control::{ProbeOutcome, TargetSpec};
use crate::dataplane::snapshot::{Fate, NoCandidate};

const QUICK: &str =
    "extended_ranges = true\ninterval_ms = 1000\ntimeout_ms = 500\nhealthy_threshold = 2";

fn zones(balancer: &str, group: &str) -> String {
    let targets = [(11, "az1"), (12, "az1"), (21, "az2")];
    file([balancer, group, QUICK], &["az1", "az2"], &targets)
}

#[test]
fn each_node_probes_what_it_may_use() {
    let probed = |balancer: &str| {
        let mut world = World::new(&zones(balancer, ""));
        world.run_until(500);
        let mut pairs: Vec<_> = world.probes.iter().map(|&(_, from, to)| (from, to)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    };
    let own = [(1, 11), (1, 12), (2, 21)];
    let all = [(1, 11), (1, 12), (1, 21), (2, 11), (2, 12), (2, 21)];
    assert_eq!(probed(""), own);
    assert_eq!(probed("cross_zone = true"), all);
    assert_eq!(probed("spill_over_below_healthy_targets = 1"), all);
}

#[test]
fn nodes_find_out_for_themselves() {
    let rebalance =
        "target_failover = { on_unhealthy = \"rebalance\", on_deregistration = \"rebalance\" }";
    let mut world = World::new(&zones("cross_zone = true", rebalance));
    world.run_until(3_000);
    assert!(world.status(11).zones.is_empty(), "they agree");
    // Only the node of az2 is answered badly.
    let check = {
        world.probes.clear();
        let key = world.control.members.keys().copied();
        let slot = world.slot(11);
        let mut keys = key.filter(|it| it.0 == slot);
        let second = keys.nth(1).unwrap();
        world.control.members[&second].health.as_ref().unwrap().id
    };
    for _ in 0..2 {
        let outcome = ProbeOutcome::Failed;
        world.handle(crate::control::Input::Probe { check, outcome });
    }
    assert_eq!((world.candidates(0), world.candidates(1)), (vec![11, 12, 21], vec![12, 21]));
    assert_eq!((world.fate(0, 11), world.fate(1, 11)), (Fate::Stay, Fate::Rebalance));
    let status = world.status(11);
    assert_eq!(status.state.name(), "healthy", "that of its own zone");
    let zones: Vec<_> = status.zones.iter().map(|it| (&*it.zone, it.state.name())).collect();
    assert_eq!(zones, [("az1", "healthy"), ("az2", "unhealthy")]);
}

#[test]
fn a_zone_without_healthy_targets_stands_alone_or_spills_over() {
    for (balancer, expected) in
        [("", vec![21]), ("spill_over_below_healthy_targets = 1", vec![11, 12])]
    {
        let mut world = World::new(&zones(balancer, ""));
        assert_eq!(world.candidates(1), [21], "nobody knows that it is too few");
        world.run_until(2_000);
        assert_eq!(world.candidates(1), [21]);
        world.manners.insert(21, Manner::DEAD);
        world.run_until(6_000);
        assert_eq!(world.candidates(1), expected, "{balancer}");
        assert_eq!(world.candidates(0), [11, 12]);
        world.manners.clear();
        world.run_until(10_000);
        assert_eq!(world.candidates(1), [21]);
        assert_eq!(world.fate(1, 11), Fate::Stay, "what has gone over there stays");
    }
}

#[test]
fn below_a_threshold_both_zones_share() {
    let mut world = World::new(&zones("spill_over_below_healthy_targets = 2", ""));
    world.run_until(2_000);
    assert_eq!((world.candidates(0), world.candidates(1)), (vec![11, 12], vec![11, 12, 21]));
    world.manners.insert(11, Manner::DEAD);
    world.run_until(6_000);
    assert_eq!((world.candidates(0), world.candidates(1)), (vec![12, 21], vec![12, 21]));
}

#[rstest]
#[case::open("fail_open", &[11, 12], &[11, 12], NoCandidate::Drop)]
#[case::closed("fail_closed", &[], &[], NoCandidate::Drop)]
#[case::bypass("bypass", &[], &[], NoCandidate::Bypass)]
fn when_none_is_healthy(
    #[case] policy: &str,
    #[case] at_first: &[u8],
    #[case] at_last: &[u8],
    #[case] none: NoCandidate,
) {
    let policy = format!("when_none_healthy = \"{policy}\"");
    let manners = BTreeMap::from([(11, Manner::DEAD), (12, Manner::DEAD)]);
    let mut world = World::with(&zones("", &policy), manners);
    let pool = |world: &World| (world.candidates(0), world.snapshot().pools[0].none);
    assert_eq!(pool(&world), (at_first.to_vec(), NoCandidate::Drop), "nobody knows");
    world.run_until(5_000);
    assert_eq!(pool(&world), (at_last.to_vec(), none));
    let text = "lb in az1: PACKETS PASS UNINSPECTED: no target is healthy";
    assert_eq!(world.take_events().iter().any(|it| it == text), none == NoCandidate::Bypass);

    world.manners.remove(&12);
    world.run_until(10_000);
    assert_eq!(world.candidates(0), [12]);
    let text = "lb in az1: new flows are inspected again: a target may take them";
    assert_eq!(world.take_events().iter().any(|it| it == text), none == NoCandidate::Bypass);
}

#[test]
fn no_target_at_all() {
    for (policy, none) in [
        ("fail_open", NoCandidate::Drop),
        ("fail_closed", NoCandidate::Drop),
        ("bypass", NoCandidate::Bypass),
    ] {
        let policy = format!("when_none_healthy = \"{policy}\"");
        let mut world = World::new(&file(["", &policy, ""], &["az1"], &[]));
        assert_eq!(world.snapshot().pools[0].none, none);
        assert_eq!(world.take_events().len(), usize::from(none == NoCandidate::Bypass));
    }
}

#[test]
fn a_gateway_that_was_restarted_gives_flows_back() {
    // 11 answers its first probe much sooner than 12.
    let slow = Manner {
        probe: (ProbeOutcome::Passed, std::time::Duration::from_millis(300)),
        ..Manner::GOOD
    };
    let closed = "when_none_healthy = \"fail_closed\"\nslow_start_seconds = 30";
    let mut world = World::with(&zones("", closed), BTreeMap::from([(12, slow)]));
    world.run_until(1);
    assert_eq!(world.weights(0), [(11, 100), (12, 100)], "12 may have flows from before");
    world.run_until(300);
    assert_eq!(world.weights(0), [(11, 100), (12, 100)], "and starts at full speed");
    // One that comes later has none.
    world.manners.insert(13, slow);
    world.register(13, "az1");
    world.run_until(301);
    assert_eq!(world.candidates(0), [11, 12]);
    world.run_until(1_000);
    assert_eq!(world.weights(0), [(11, 100), (12, 100), (13, 1)]);
    // And one that is dead is not presumed good for longer than its first probe takes.
    let mut world = World::with(&zones("", closed), BTreeMap::from([(12, Manner::DEAD)]));
    world.run_until(499);
    assert_eq!(world.candidates(0), [11, 12]);
    world.run_until(500);
    assert_eq!(world.candidates(0), [11]);
}

#[test]
fn bypass_by_hand_lasts_until_the_next_reload() {
    let mut world = World::new(&zones("", ""));
    world.run_until(1_000);
    world.take_events();
    let now = world.now();
    world.control.set_traffic_mode("lb", TrafficMode::Bypass, now).unwrap();
    world.run_for(0);
    let modes =
        |world: &World| world.snapshot().pools.iter().map(|it| it.traffic_mode).collect::<Vec<_>>();
    assert_eq!(modes(&world), [TrafficMode::Bypass; 2]);
    world.control.set_traffic_mode("lb", TrafficMode::Bypass, now).unwrap();
    let generation = world.snapshot().generation;
    world.handle(crate::control::Input::Acknowledged(generation));
    assert_eq!(
        world.take_events(),
        ["lb: PACKETS PASS UNINSPECTED: the traffic mode is bypass"],
        "told once"
    );
    assert_eq!(world.candidates(0), [11, 12], "health goes on");
    world.reload(&zones("", ""));
    assert_eq!(modes(&world), [TrafficMode::LoadBalance; 2]);
    assert_eq!(
        world.take_events()[0],
        "lb: new flows are inspected again: the traffic mode is load_balance again"
    );
}

#[test]
fn slow_start_has_its_steps_at_their_times() {
    let mut world = World::new(&zones("", "slow_start_seconds = 30"));
    world.run_until(1_000);
    world.register(13, "az1");
    world.run_until(1_001);
    let begun = 1_001;
    world.published.clear();
    let weight = |world: &World| world.weights(0)[2];
    assert_eq!(weight(&world), (13, 1));
    for step in 1..20 {
        world.run_until(begun + step * 1_500 - 1);
        let before = weight(&world);
        world.run_until(begun + step * 1_500);
        assert_eq!(before, (13, (step as u16 - 1) * 5).max((13, 1)));
        assert_eq!(weight(&world), (13, step as u16 * 5));
        assert_eq!(world.status(13).effective_weight, step as u16 * 5);
    }
    world.run_until(begun + 29_999);
    assert_eq!(weight(&world), (13, 95));
    world.run_until(begun + 30_000);
    assert_eq!(weight(&world), (13, 100));
    world.run_until(begun + 100_000);
    let steps: Vec<_> = (1..=20).map(|step| begun + step * 1_500).collect();
    assert_eq!(world.published, steps, "nothing else was published");
}

#[test]
fn slow_start_is_for_those_who_join_others() {
    let manners = BTreeMap::from([(11, Manner::DEAD), (12, Manner::DEAD)]);
    let mut world = World::with(&zones("", "slow_start_seconds = 30"), manners);
    world.run_until(5_000);
    world.manners.remove(&11);
    world.run_until(10_000);
    assert_eq!(world.weights(0), [(11, 100)], "nobody else could take the flows");
    world.manners.remove(&12);
    world.run_until(13_000);
    assert!(world.weights(0)[1].1 < 10, "{:?}", world.weights(0));
    // It fails in its slow start, and begins anew.
    world.run_until(25_000);
    let grown = world.weights(0)[1].1;
    assert!(grown > 30, "{grown}");
    world.manners.insert(12, Manner::DEAD);
    world.run_until(30_000);
    assert_eq!(world.weights(0), [(11, 100)]);
    world.manners.remove(&12);
    world.run_until(34_000);
    assert!(world.weights(0)[1].1 < 15, "{:?}", world.weights(0));
}

#[test]
fn slow_start_needs_somebody_at_full_speed() {
    let mut world = World::new(&zones("", "slow_start_seconds = 300"));
    world.manners.insert(12, Manner::DEAD);
    world.run_until(5_000);
    world.manners.remove(&12);
    world.run_until(9_000);
    assert!(world.weights(0)[1].1 < 5, "{:?}", world.weights(0));
    world.manners.insert(11, Manner::DEAD);
    world.run_until(13_000);
    world.register(13, "az1");
    world.run_until(13_010);
    let [(12, slow), (13, 100)] = world.weights(0)[..] else { panic!("{:?}", world.weights(0)) };
    assert!(slow < 10, "{slow}");
}

#[test]
fn nobody_is_told_of_flows_that_are_not_there() {
    let rebalance =
        "target_failover = { on_unhealthy = \"rebalance\", on_deregistration = \"rebalance\" }";
    let mut world = World::new(&zones("", rebalance));
    world.run_until(3_000);
    world.flows(12, 1, 0);
    for (target, told) in
        [(11, None), (12, Some("lb in az1: 192.0.2.12:6081 loses 1 flow to other targets"))]
    {
        world.take_events();
        world.manners.insert(target, Manner::DEAD);
        world.run_for(4_000);
        let events = world.take_events();
        let loss = events.iter().find(|it| it.contains("loses"));
        assert_eq!(loss.map(String::as_str), told);
        world.manners.remove(&target);
        world.run_for(4_000);
    }
}

#[test]
fn slow_start_counts_those_who_do_take_flows() {
    // Others of another zone count for a node that uses them.
    for (balancer, weight) in [("cross_zone = true", 1..10), ("", 100..101)] {
        let slow = zones(balancer, "slow_start_seconds = 300");
        let mut world = World::with(&slow, BTreeMap::from([(21, Manner::DEAD)]));
        world.run_until(3_000);
        world.manners.clear();
        world.run_until(8_000);
        let (_, own) = *world.weights(1).last().unwrap();
        assert!(weight.contains(&own), "{balancer}: {own}");
    }
    // Who drains does not.
    let mut world = World::new(&zones("", "slow_start_seconds = 300"));
    world.run_until(3_000);
    for target in [11, 12] {
        world.flows(target, 1, 0);
        world.deregister(target);
    }
    world.register(13, "az1");
    world.run_until(4_000);
    assert_eq!(world.weights(0), [(13, 100)]);
    // Nor does who has no weight.
    let mut world = World::new(&zones("", "slow_start_seconds = 300"));
    world.run_until(3_000);
    for target in [11, 12] {
        let (address, weight) = (address(target), Weight::new(0).ok());
        let spec = TargetSpec { address, port: None, zone: None, weight };
        world.control.register("fw", &spec, world.now()).unwrap();
    }
    world.register(13, "az1");
    world.run_until(4_000);
    assert_eq!(world.weights(0), [(13, 100)]);
}
