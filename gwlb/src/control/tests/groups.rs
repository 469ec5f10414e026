//! Groups of endpoints: zones fail and recover, and somebody switches.

use router::failover::State;

use crate::config::TrafficMode;
use crate::control::event::Event;
use crate::control::testing::{Manner, World, file};
use crate::control::{CommandError, Input};
use crate::dataplane::snapshot::GroupView;

const PAIR: &str = r#"
[[endpoint_group]]
name = "inspection"
members = [{ endpoint = "vpce-a", weight = 100 }, { endpoint = "vpce-b", weight = 0 }]
"#;

/// A zone `a` with the target 11, and a zone `b` with the target 21.
fn zones([balancer, group]: [&str; 2], endpoint_group: &str) -> String {
    file([balancer, group, ""], &["a", "b"], &[(11, "a"), (21, "b")]) + endpoint_group
}

fn world(text: &str) -> World {
    let mut world = World::new(text);
    world.run_until(20_000);
    world
}

fn group(world: &World) -> GroupView {
    world.snapshot().groups[0].clone()
}

/// The numbers of endpoints that get new flows, and of those whose flows stay.
fn told(world: &World) -> (Vec<usize>, Vec<usize>) {
    let group = group(world);
    (
        group.chosen.iter().map(|it| it.target.index()).collect(),
        group.living.iter().map(|it| it.index()).collect(),
    )
}

/// Its states since the last call, with the times in seconds at which they began.
fn states(world: &mut World) -> Vec<(u64, State)> {
    let events = world.events.drain(..);
    let states = events.filter_map(|(ms, event)| match event {
        Event::EndpointGroup { to, .. } => Some((ms / 1000, to)),
        _ => None,
    });
    states.collect()
}

fn named(states: &[(u64, State)]) -> Vec<&'static str> {
    states.iter().map(|(_, state)| state.name()).collect()
}

fn switch(world: &mut World, to: Option<&str>) -> Result<(), CommandError> {
    let now = world.now();
    let done = world.control.switch_endpoint_group("inspection", to, now);
    world.run_for(0);
    world.handle(Input::Acknowledged(world.snapshot().generation));
    done
}

#[test]
fn a_zone_fails_and_comes_back() {
    let mut world = world(&zones(["", ""], PAIR));
    assert_eq!(named(&states(&mut world)), ["Available"]);
    assert_eq!(told(&world), (vec![0], vec![0, 1]));

    world.manners.insert(11, Manner::DEAD);
    world.run_for(40_000);
    assert_eq!(named(&states(&mut world)), ["Switching", "Switched"]);
    assert_eq!(told(&world), (vec![1], vec![1]));
    assert!(world.candidates(0) == [11], "the zone itself does what it does");

    world.manners.remove(&11);
    world.run_for(200_000);
    let states = states(&mut world);
    assert_eq!(named(&states), ["Recovering", "Recovering", "Available"]);
    assert_eq!(states[1].0 - states[0].0, 60, "it has shown for a minute that it is healthy");
    assert_eq!(told(&world), (vec![0], vec![0, 1]));
}

#[test]
fn both_zones_fail() {
    let mut world = world(&zones(["", ""], PAIR));
    world.manners.extend([(11, Manner::DEAD), (21, Manner::DEAD)]);
    world.run_for(60_000);
    assert_eq!(named(&states(&mut world)).last(), Some(&"Unavailable"));
    let (chosen, living) = told(&world);
    assert_eq!((chosen.len(), living.len()), (1, 0), "somebody decides what becomes of packets");
}

#[test]
fn a_group_is_over_when_all_workers_know() {
    let mut world = world(&zones(["", ""], PAIR));
    world.acknowledges = false;
    states(&mut world);
    world.manners.insert(11, Manner::DEAD);
    world.run_for(60_000);
    assert_eq!(named(&states(&mut world)), ["Switching"]);
    let generation = world.snapshot().generation;
    world.handle(Input::Acknowledged(generation - 1));
    assert_eq!(named(&states(&mut world)), Vec::<&str>::new(), "not the view that says so");
    world.handle(Input::Acknowledged(generation));
    assert_eq!(named(&states(&mut world)), ["Switched"]);
}

#[test]
fn a_zone_that_uses_the_targets_of_others_does_not_fail_alone() {
    for balancer in ["cross_zone = true", "spill_over_below_healthy_targets = 1"] {
        let mut world = world(&zones([balancer, ""], PAIR));
        world.manners.insert(11, Manner::DEAD);
        world.run_for(60_000);
        assert_eq!(named(&states(&mut world)), ["Available"], "{balancer}");
    }
}

#[test]
fn no_zone_fails_where_nothing_is_inspected() {
    let mut world = world(&zones(["", "when_none_healthy = \"fail_closed\""], PAIR));
    let now = world.now();
    world.control.set_traffic_mode("lb", TrafficMode::Bypass, now).unwrap();
    world.manners.insert(11, Manner::DEAD);
    world.run_for(60_000);
    assert_eq!(named(&states(&mut world)), ["Available"]);
    let now = world.now();
    world.control.set_traffic_mode("lb", TrafficMode::LoadBalance, now).unwrap();
    world.run_for(0);
    assert_eq!(told(&world).0, [1]);
}

/// Nobody is sent to the other zone because that was checked first.
#[test]
fn a_group_waits_until_its_zones_are_known() {
    let text = zones(["", "when_none_healthy = \"fail_closed\""], PAIR);
    let mut world = World::with(&text, [(11, Manner::DEAD)].into());
    world.run_until(1000);
    assert_eq!(world.control.endpoint_groups()[0].state, State::Pending);
    assert_eq!(told(&world).0, [0]);
    world.run_until(60_000);
    assert_eq!(named(&states(&mut world)), ["Switching", "Switched"]);
}

#[test]
fn somebody_switches() {
    let mut world = world(&zones(["", ""], PAIR));
    states(&mut world);
    switch(&mut world, Some("vpce-b")).unwrap();
    assert_eq!(named(&states(&mut world)), ["Switching", "Switched"]);
    assert_eq!(told(&world), (vec![1], vec![0, 1]));
    let status = world.control.endpoint_groups().remove(0);
    assert_eq!(status.switched_to.as_deref(), Some("vpce-b"));
    assert_eq!(status.active.as_deref(), Some("vpce-b"));

    // It stays so, over a reload, too.
    world.run_for(600_000);
    world.reload(&zones(["cross_zone = true", ""], PAIR));
    assert_eq!(named(&states(&mut world)), Vec::<&str>::new());
    assert_eq!(told(&world).0, [1]);

    switch(&mut world, None).unwrap();
    assert_eq!(named(&states(&mut world)), ["Recovering", "Available"]);
    assert_eq!(told(&world).0, [0]);
}

#[test]
fn what_cannot_be_switched_is_refused() {
    let mut world = world(&zones(["", ""], PAIR));
    world.manners.insert(21, Manner::DEAD);
    world.run_for(60_000);
    let mut refused = |group: &str, to: Option<&str>| {
        let now = world.now();
        world.control.switch_endpoint_group(group, to, now).unwrap_err()
    };
    let errors = [
        refused("inspections", None),
        refused("inspection", Some("vpce-c")),
        refused("inspection", Some("vpce-b")),
    ];
    let fields = errors.each_ref().map(CommandError::field);
    assert_eq!(fields, [Some("endpoint_group"), Some("to"), Some("to")]);
    assert_eq!(
        errors.map(|error| error.to_string()),
        [
            "there is no endpoint group \"inspections\"; did you mean \"inspection\"?",
            "endpoint group \"inspection\" has no member \"vpce-c\"; did you mean \"vpce-a\"?",
            "endpoint group \"inspection\" is not switched to \"vpce-b\": the member is Abnormal",
        ]
    );
    assert_eq!(named(&states(&mut world)), ["Available", "Abnormal"]);
}

#[test]
fn a_weighted_group_spreads_over_the_zones_that_are_well() {
    let weighted = r#"
[routing]
rules = "linux"
[[endpoint_group]]
name = "inspection"
mode = "weighted"
members = [{ endpoint = "vpce-a", weight = 60 }, { endpoint = "vpce-b", weight = 40 }]
"#;
    let mut world = world(&zones(["", ""], weighted));
    let weights = |world: &World| -> Vec<_> {
        group(world).chosen.iter().map(|it| (it.target.index(), it.weight)).collect()
    };
    assert_eq!(weights(&world), [(0, 60), (1, 40)]);
    world.manners.insert(11, Manner::DEAD);
    world.run_for(60_000);
    assert_eq!(weights(&world), [(1, 40)]);
    world.manners.remove(&11);
    world.run_for(60_000);
    assert_eq!(weights(&world), [(0, 60), (1, 40)]);
    assert_eq!(named(&states(&mut world)), ["Available", "Abnormal", "Available"]);
}

#[test]
fn a_reload_adds_changes_and_removes_groups() {
    let mut world = world(&zones(["", ""], ""));
    world.reload(&zones(["", ""], PAIR));
    assert_eq!(named(&states(&mut world)), ["Available"], "all is known of its zones");

    // A member that is disabled keeps what it has, and gets nothing new.
    let disabled = PAIR.replace("weight = 100", "weight = 100, enabled = false");
    world.reload(&zones(["", ""], &disabled));
    assert_eq!(named(&states(&mut world)), ["Switching", "Switched"]);
    assert_eq!(told(&world), (vec![1], vec![0, 1]));

    world.reload(&zones(["", ""], ""));
    assert_eq!(named(&states(&mut world)), ["Deleting"]);
    assert!(world.snapshot().groups.is_empty() && world.control.endpoint_groups().is_empty());
}

/// Whose flows are taken on by the other zone, and whose begin anew.
#[test]
fn flows_of_a_zone_that_fails_move_if_those_of_a_target_would() {
    let rebalance =
        "target_failover = { on_unhealthy = \"rebalance\", on_deregistration = \"no_rebalance\" }";
    for (failover, leaving) in [("", 0), (rebalance, 1)] {
        let mut world = world(&zones(["", failover], PAIR));
        assert_eq!(group(&world).leaving, []);
        world.manners.insert(11, Manner::DEAD);
        world.run_for(60_000);
        assert_eq!(group(&world).leaving.len(), leaving);
    }
}

#[test]
fn an_event_says_who_gets_new_flows_and_why() {
    let mut world = world(&zones(["", ""], PAIR));
    world.manners.insert(11, Manner::DEAD);
    world.run_for(60_000);
    let told = world.take_events().into_iter().filter(|it| it.starts_with("inspection"));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            "inspection is Available, it was Pending, new flows go to vpce-a: by the health of its \
             zones",
            "inspection is Switching, it was Available, new flows go to vpce-b: by the health of its \
             zones",
            "inspection is Switched, it was Switching, new flows go to vpce-b: all workers know",
        ]
    );
}
