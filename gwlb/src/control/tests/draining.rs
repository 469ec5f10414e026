//! Registration and deregistration, draining, failover, and the use of slots.

use std::collections::BTreeMap;

use rstest::rstest;

use crate::config::Weight;
use crate::control::command::MAX_LEAVING;
use crate::control::testing::{Manner, World, address, file};
use crate::control::{CommandError, Input, TargetSpec};
use crate::dataplane::snapshot::{Fate, ResetCause, TargetSlot};

fn group(more: &str) -> String {
    let group = format!("deregistration_delay_seconds = 20\n{more}");
    file(["", &group, ""], &["az1"], &[(11, "az1"), (12, "az1"), (13, "az1")])
}

fn draining(world: &World, target: u8) -> Option<(u64, f64)> {
    world.status(target).draining.map(|it| (it.flows_left, it.seconds_left))
}

#[test]
fn a_drain_ends_with_the_last_flow() {
    let mut world = World::new(&group(""));
    world.run_until(1_000);
    world.flows(11, 5, 2);
    world.take_events();
    world.deregister(11);
    assert_eq!(world.state(11), ("draining", Some("Target.DeregistrationInProgress")));
    assert_eq!(world.candidates(0), [12, 13]);
    assert_eq!(world.status(11).effective_weight, 0);
    assert_eq!(draining(&world, 11), Some((3, 20.0)));

    world.run_for(7_050);
    world.flows(11, 0, 1);
    assert_eq!(draining(&world, 11), Some((2, 13.0)), "as of the last look");
    world.flows(11, 0, 2);
    world.run_for(49);
    assert!(draining(&world, 11).is_some());
    world.run_for(1);
    assert_eq!(world.state(11), ("unused", Some("Target.NotRegistered")));
    assert_eq!(draining(&world, 11), None);
    assert_eq!(
        world.take_events(),
        [
            "fw: 192.0.2.11:6081 is deregistered; its 3 flows may take 20 s more",
            "fw: 192.0.2.11:6081 is drained: its last flow has ended",
        ]
    );
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let mut world = World::new(&group(""));
    world.run_until(1_000);
    world.flows(11, 5, 0);
    world.take_events();
    world.deregister(11);
    world.run_for(19_999);
    assert_eq!(world.state(11).0, "draining");
    world.run_for(1);
    assert_eq!(world.state(11), ("unused", Some("Target.NotRegistered")));
    assert_eq!(
        world.take_events()[1],
        "fw: 192.0.2.11:6081 is not drained any longer: 5 flows left"
    );
}

#[test]
fn a_drain_does_not_end_before_all_workers_know_of_it() {
    let mut world = World::new(&group(""));
    world.run_until(1_000);
    world.acknowledges = false;
    world.deregister(11);
    world.run_for(5_000);
    assert_eq!(world.state(11).0, "draining", "a worker may still give it a flow");
    let generation = world.snapshot().generation;
    world.handle(Input::Acknowledged(generation - 1));
    assert_eq!(world.state(11).0, "draining");
    world.handle(Input::Acknowledged(generation));
    assert_eq!(world.state(11).0, "unused");
}

#[rstest]
#[case::stay("", Fate::Stay, Fate::Stay)]
#[case::rebalance(
    "target_failover = { on_unhealthy = \"no_rebalance\", on_deregistration = \"rebalance\" }",
    Fate::Stay,
    Fate::Rebalance
)]
#[case::rebalance_both(
    "target_failover = { on_unhealthy = \"rebalance\", on_deregistration = \"rebalance\" }",
    Fate::Rebalance,
    Fate::Rebalance
)]
#[case::rebalance_unhealthy(
    "target_failover = { on_unhealthy = \"rebalance\", on_deregistration = \"no_rebalance\" }",
    Fate::Rebalance,
    Fate::Stay
)]
#[case::reset(
    "send_tcp_reset = { on_unhealthy = true, on_deregistration = true }",
    Fate::Reset(ResetCause::Unhealthy),
    Fate::Reset(ResetCause::Deregistration)
)]
#[case::reset_and_rebalance(
    "send_tcp_reset = { on_unhealthy = false, on_deregistration = true }\n\
     target_failover = { on_unhealthy = \"rebalance\", on_deregistration = \"no_rebalance\" }",
    Fate::Rebalance,
    Fate::Reset(ResetCause::Deregistration)
)]
fn flows_fare_as_configured(
    #[case] configured: &str,
    #[case] of_unhealthy: Fate,
    #[case] of_deregistered: Fate,
) {
    let mut world = World::new(&group(configured));
    world.run_until(1_000);
    for target in [11, 12] {
        world.flows(target, 4, 0);
    }
    world.manners.insert(12, Manner::DEAD);
    world.run_until(30_000);
    world.deregister(11);
    assert_eq!(world.fate(0, 11), Fate::Stay);
    world.run_until(49_999);
    assert_eq!(world.fate(0, 11), Fate::Stay, "existing flows stay until the delay is over");
    assert_eq!(world.fate(0, 12), of_unhealthy);
    world.take_events();
    world.run_until(50_000);
    assert_eq!(world.fate(0, 11), of_deregistered);
    assert_eq!(world.candidates(0), [13]);
    let told = match of_deregistered {
        Fate::Stay => None,
        Fate::Rebalance => Some("lb in az1: 192.0.2.11:6081 loses 4 flows to other targets"),
        Fate::Reset(_) => {
            Some("lb in az1: 192.0.2.11:6081 loses 4 flows to resets, being deregistered")
        }
    };
    assert_eq!(world.take_events().get(1).map(String::as_str), told);

    // It recovers: what has moved does not come back, what is there stays.
    world.manners.clear();
    world.run_until(200_000);
    assert_eq!(world.fate(0, 12), Fate::Stay);
    assert_eq!(world.candidates(0), [12, 13]);
}

#[test]
fn with_delay_0_it_is_over_at_once() {
    let more =
        "target_failover = { on_unhealthy = \"no_rebalance\", on_deregistration = \"rebalance\" }";
    let text = group(more).replace("delay_seconds = 20", "delay_seconds = 0");
    let mut world = World::new(&text);
    world.run_until(1_000);
    world.flows(11, 1, 0);
    world.take_events();
    world.deregister(11);
    assert_eq!(world.state(11), ("unused", Some("Target.NotRegistered")));
    assert_eq!(world.fate(0, 11), Fate::Rebalance);
    let mut staying = World::new(&text.replace(more, ""));
    staying.flows(11, 1, 0);
    staying.deregister(11);
    assert_eq!(staying.state(11), ("unused", Some("Target.NotRegistered")));
    assert_eq!(staying.fate(0, 11), Fate::Stay);
    assert_eq!(
        world.take_events(),
        [
            "fw: 192.0.2.11:6081 is deregistered; its 1 flow may take 0 s more",
            "fw: 192.0.2.11:6081 is not drained any longer: 1 flow left",
            "lb in az1: 192.0.2.11:6081 loses 1 flow to other targets",
        ]
    );
}

#[test]
fn a_draining_target_can_be_restored() {
    let mut world = World::new(&group(""));
    world.run_until(1_000);
    let slot = world.slot(11);
    world.flows(11, 2, 0);
    world.deregister(11);
    world.run_for(10_000);
    world.take_events();
    world.register(11, "az1");
    assert_eq!(world.take_events(), ["fw: 192.0.2.11:6081 is back: it keeps its 2 flows"]);
    assert_eq!(world.state(11), ("healthy", None), "its checks have gone on");
    assert_eq!((world.slot(11), world.candidates(0)), (slot, vec![11, 12, 13]));
    world.run_for(60_000);
    assert_eq!(world.state(11), ("healthy", None), "the deadline is forgotten");

    // And one whose delay is over but whose flows are not; its health is what it is now.
    world.deregister(11);
    world.manners.insert(11, Manner::DEAD);
    world.run_for(60_000);
    assert_eq!(world.state(11).0, "unused");
    world.register(11, "az1");
    assert_eq!(world.state(11), ("unhealthy", Some("Target.Timeout")));
    assert_eq!((world.slot(11), world.candidates(0)), (slot, vec![12, 13]));
}

#[test]
fn a_slot_is_free_when_nothing_can_come_back() {
    let mut world = World::new(&group(""));
    world.run_until(1_000);
    let slot = world.slot(11);
    world.flows(11, 1, 0);
    world.deregister(11);
    world.run_for(20_000);
    assert_eq!(world.state(11).0, "unused");
    world.run_for(100_000);
    assert_eq!(world.slot(11), slot, "it has a flow, whose packets it may return");
    world.flows(11, 0, 1);
    let ended = world.ms;
    world.run_until(ended + 30_000);
    assert_eq!(world.slot(11), slot, "packets may be under way");
    world.run_until(ended + 31_000);
    assert_eq!(world.snapshot().sources.len(), 2);
    assert_eq!(world.control.targets().len(), 2);
    assert_eq!(world.snapshot().targets.len(), 3, "the slot is vacant");
    world.take_probes(1, 11);
    world.run_for(30_000);
    assert_eq!(world.take_probes(1, 11), [0; 0], "and nobody looks after it");
    assert_eq!(world.fate(0, 12), Fate::Stay);

    world.register(19, "az1");
    assert_eq!(world.slot(19), slot);
    assert_eq!(world.status(19).totals.new_flows, 0, "it begins with nothing");
    world.register(18, "az1");
    assert_eq!(world.slot(18), TargetSlot(3));
}

#[test]
fn a_slot_is_not_free_before_all_workers_know_of_it() {
    let mut world = World::new(&group(""));
    world.run_until(1_000);
    world.acknowledges = false;
    world.deregister(11);
    world.run_for(600_000);
    assert_eq!(world.snapshot().sources.len(), 3);
    let generation = world.snapshot().generation;
    world.handle(Input::Acknowledged(generation));
    assert_eq!(world.snapshot().sources.len(), 2);
}

#[test]
fn a_drain_is_not_looked_at_more_often_than_needed() {
    let mut world = World::new(&group(""));
    world.run_until(1_000);
    world.flows(11, 1, 0);
    world.deregister(11);
    world.published.clear();
    let mut looks = 0;
    for _ in 0..10_000 {
        let before = world.control.poll_timeout();
        world.run_for(1);
        looks += usize::from(before != world.control.poll_timeout());
    }
    assert!(looks <= 100 + 10, "every 100 ms, and a few probes: {looks}");
    assert!(world.published.is_empty());
}

#[test]
fn registering_again_changes_zone_and_weight() {
    let mut world = World::new(&file(["", "", ""], &["az1", "az2"], &[(11, "az1")]));
    world.run_until(1_000);
    let spec = TargetSpec { address: address(11), port: None, zone: None, weight: None };
    let weight = Some(Weight::new(7).unwrap());
    let now = world.now();
    world.control.register("fw", &TargetSpec { weight, ..spec.clone() }, now).unwrap();
    assert_eq!(world.weights(0), [(11, 7)]);
    let zone = Some("az2".to_owned());
    world.control.register("fw", &TargetSpec { zone, ..spec }, now).unwrap();
    assert_eq!((world.weights(0), world.weights(1)), (vec![], vec![(11, 7)]));
    world.register(11, "az2");
    world.run_for(10);
    assert_eq!(world.weights(1), [(11, 7)], "what is not said stays");
    assert_eq!(world.state(11), ("healthy", None), "found by its new node");
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let mut world = World::new(&file(["", "", ""], &["az1", "az2"], &[(11, "az1")]));
    let now = world.now();
    let spec = TargetSpec { address: address(12), port: None, zone: None, weight: None };
    let zone = |zone: &str| TargetSpec { zone: Some(zone.to_owned()), ..spec.clone() };
    let v6 = TargetSpec { address: "2001:db8::1".parse().unwrap(), ..zone("az1") };
    let before = world.snapshot().generation;
    let control = &mut world.control;
    let errors = [
        control.register("fv", &spec, now),
        control.register("something", &spec, now),
        control.register("fw", &spec, now),
        control.register("fw", &zone("az3"), now),
        control.register("fw", &v6, now),
        control.deregister("fw", address(12), None, now),
        control.deregister("fw", address(11), Some(crate::config::Port::new(1).unwrap()), now),
        control.deregister("fx", address(11), None, now),
        control.set_traffic_mode("lc", crate::config::TrafficMode::Bypass, now),
    ];
    let errors = errors.map(Result::unwrap_err);
    let told: Vec<_> = errors.iter().map(|it| (it.field(), it.to_string())).collect();
    let expected = [
        ("group", "there is no target group \"fv\"; did you mean \"fw\"?"),
        ("group", "there is no target group \"something\"; there are: fw"),
        ("zone", "the zone of the target must be given; there are nodes in: az1, az2"),
        (
            "zone",
            "no load balancer of the target group has a node in zone \"az3\"; there are nodes in: \
             az1, az2",
        ),
        ("address", "the target is IPv6, but the load balancer's nodes are IPv4: 192.0.2.1"),
        ("address", "target group \"fw\" has no target 192.0.2.12:6081 registered"),
        ("address", "target group \"fw\" has no target 192.0.2.11:1 registered"),
        ("group", "there is no target group \"fx\"; did you mean \"fw\"?"),
        ("load_balancer", "there is no load balancer \"lc\"; did you mean \"lb\"?"),
    ];
    let expected: Vec<_> =
        expected.iter().map(|&(field, text)| (Some(field), text.to_owned())).collect();
    assert_eq!(told, expected);
    assert_eq!(world.snapshot().generation, before, "nothing has changed");

    world.deregister(11);
    let again = world.control.deregister("fw", address(11), None, now);
    assert!(matches!(again, Err(CommandError::UnknownTarget { .. })), "it drains already");
}

/// One of many targets of the group.
fn one_of_many(n: usize, zone: &str) -> TargetSpec {
    TargetSpec {
        address: std::net::IpAddr::from([10, 1, (n >> 8) as u8, n as u8]),
        port: None,
        zone: Some(zone.to_owned()),
        weight: None,
    }
}

#[test]
fn a_zone_holds_300_targets_of_a_group() {
    let mut world = World::new(&file(["", "", "enabled = false"], &["az1", "az2"], &[]));
    let now = world.now();
    for n in 0..300 {
        world.control.register("fw", &one_of_many(n, "az1"), now).unwrap();
    }
    let full = world.control.register("fw", &one_of_many(300, "az1"), now).unwrap_err();
    assert_eq!(
        full.to_string(),
        "target group \"fw\" has 300 targets in zone \"az1\", and no more are allowed"
    );
    world.control.register("fw", &one_of_many(299, "az1"), now).expect("it is there already");
    world.control.register("fw", &one_of_many(300, "az2"), now).expect("another zone");
    world.control.deregister("fw", one_of_many(0, "").address, None, now).unwrap();
    world.control.register("fw", &one_of_many(301, "az1"), now).expect("one has left");
}

#[test]
fn a_thousand_targets_may_be_leaving() {
    let mut world = World::new(&file(["", "", "enabled = false"], &["az1"], &[]));
    let now = world.now();
    // No worker acknowledges a view, so that each may still have flows.
    for n in 0..MAX_LEAVING {
        let target = one_of_many(n, "az1");
        world.control.register("fw", &target, now).unwrap();
        world.control.deregister("fw", target.address, None, now).unwrap();
    }
    let full = world.control.register("fw", &one_of_many(MAX_LEAVING, "az1"), now).unwrap_err();
    assert_eq!(
        full.to_string(),
        "1000 targets that were deregistered still have flows; wait until some have ended"
    );
    world.control.register("fw", &one_of_many(7, "az1"), now).expect("one of them comes back");
    world.control.register("fw", &one_of_many(MAX_LEAVING, "az1"), now).expect("so one fewer");
}

#[test]
fn a_group_behind_no_load_balancer_is_not_in_use() {
    let mut text = file(["", "", ""], &["az1"], &[(11, "az1")]);
    text += "[[target_group]]\nname = \"spare\"\n";
    let mut world = World::with(&text, BTreeMap::new());
    let spec =
        TargetSpec { address: address(50), port: None, zone: Some("az1".to_owned()), weight: None };
    let now = world.now();
    world.control.register("spare", &spec, now).unwrap();
    world.run_until(5_000);
    assert_eq!(world.state(50), ("unused", Some("Target.NotInUse")));
    assert!(world.take_probes(1, 50).is_empty());
    let error = world.control.register("spare", &TargetSpec { zone: None, ..spec }, now);
    assert!(error.is_ok(), "its zone is known");
}
