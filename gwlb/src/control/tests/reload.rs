//! What a reload changes, and above all what it does not.

use rstest::rstest;

use crate::config::{TrafficMode, diff};
use crate::control::Input;
use crate::control::testing::{Manner, World, file, settings};
use crate::dataplane::snapshot::{Fate, PoolId};

const THREE: &[(u8, &str)] = &[(11, "az1"), (12, "az1"), (21, "az2")];

fn text(balancer: &str, group: &str, check: &str, targets: &[(u8, &str)]) -> String {
    file([balancer, group, check], &["az1", "az2"], targets)
}

#[test]
fn the_same_file_changes_nothing() {
    let same = text("", "slow_start_seconds = 60", "", THREE);
    let mut world = World::new(&same);
    world.run_until(12_345);
    let before = world.snapshot();
    world.take_events();
    world.reload(&same);
    let after = world.snapshot();
    assert_eq!(after.generation, before.generation + 1);
    assert_eq!(after.topology_epoch, 0);
    for (before, after) in before.pools.iter().zip(&after.pools) {
        assert_eq!(before.candidates, after.candidates);
        assert_eq!(before.fates, after.fates);
    }
    assert_eq!(world.take_events(), ["another configuration is in force, with the same targets"]);
    // The schedule goes on: were it new, there would be a probe at once.
    let mut undisturbed = World::new(&same);
    undisturbed.run_until(60_000);
    world.run_until(60_000);
    assert_eq!(world.probes, undisturbed.probes);
}

#[test]
fn targets_come_and_go() {
    let mut world = World::new(&text("", "", "", THREE));
    world.run_until(30_000);
    let slots = [11, 12, 21].map(|target| world.slot(target));
    world.register(13, "az1");
    for target in [12, 13] {
        world.flows(target, 1, 0);
    }
    world.take_events();
    let mut changed = text("", "", "", &[(14, "az1"), (21, "az2"), (11, "az1")]);
    changed += "weight = 40\n";
    world.reload(&changed);
    assert_eq!(world.weights(0), [(11, 40)], "14 is not healthy yet, 13 was not in the file");
    assert_eq!(
        [world.state(12).0, world.state(13).0, world.state(14).0],
        ["draining", "draining", "initial"]
    );
    assert_eq!([11, 12, 21].map(|target| world.slot(target)), slots);
    let events = world.take_events();
    let told =
        "another configuration is in force; targets: 1 registered, 2 deregistered, 1 changed";
    assert!(events.iter().any(|it| it == told), "{events:?}");

    // And back: who drains is restored.
    world.reload(&text("", "", "", THREE));
    assert_eq!(world.weights(0), [(11, 100), (12, 100)]);
    assert_eq!(world.state(12), ("healthy", None));
}

#[test]
fn health_is_kept_and_the_schedule_new() {
    let mut world = World::new(&text("", "", "", THREE));
    world.manners.insert(12, Manner::DEAD);
    world.run_until(60_000);
    assert_eq!(world.state(12).0, "unhealthy");
    world.probes.clear();
    let quick =
        "extended_ranges = true\ninterval_ms = 100\ntimeout_ms = 100\nhealthy_threshold = 3";
    let before = world.status(11).since_unix_seconds.to_bits();
    world.reload(&text("", "", quick, THREE));
    assert_eq!((world.state(11).0, world.state(12).0), ("healthy", "unhealthy"));
    assert_eq!(world.status(11).since_unix_seconds.to_bits(), before);
    world.run_for(1_000);
    let times = world.take_probes(1, 11);
    assert_eq!(times[0], 60_000);
    assert!(times.windows(2).skip(1).all(|two| two[1] - two[0] == 100), "{times:?}");
    assert!(times.len() >= 10);
    assert_eq!(world.candidates(0), [11]);
}

#[rstest]
#[case::off("", "enabled = false", ("unavailable", Some("Target.HealthCheckDisabled")))]
#[case::on("enabled = false", "", ("healthy", None))]
fn health_checks_are_switched(
    #[case] before: &str,
    #[case] after: &str,
    #[case] state: (&str, Option<&str>),
) {
    let closed = "when_none_healthy = \"fail_closed\"";
    let mut world = World::new(&text("", closed, before, THREE));
    world.run_until(20_000);
    world.published.clear();
    world.reload(&text("", closed, after, THREE));
    assert_eq!(world.state(11), state, "what counted as healthy does so until it fails");
    assert_eq!(world.candidates(0), [11, 12]);
    world.manners.insert(12, Manner::DEAD);
    world.run_for(40_000);
    assert_eq!(world.candidates(0).len(), if after.is_empty() { 1 } else { 2 });
}

#[test]
fn a_tunnel_check_that_is_switched_on_moves_no_flow() {
    let with =
        "when_none_healthy = \"fail_closed\"\n[target_group.tunnel_check]\ninterval_seconds = 10";
    let mut world = World::new(&text("", "when_none_healthy = \"fail_closed\"", "", THREE));
    world.run_until(20_000);
    let dead = Manner { tunnel: (0, std::time::Duration::ZERO), ..Manner::GOOD };
    world.manners.insert(12, dead);
    world.reload(&text("", with, "", THREE));
    assert_eq!(world.candidates(0), [11, 12]);
    world.run_for(30_000);
    assert_eq!(world.candidates(0), [11], "found dead by it");
    world.reload(&text("", "when_none_healthy = \"fail_closed\"", "", THREE));
    assert_eq!(world.candidates(0), [11, 12], "nobody asks any more");
}

#[test]
fn policies_and_timers_apply_at_once() {
    let delay = |seconds: u32| format!("deregistration_delay_seconds = {seconds}");
    let mut world = World::new(&text("", &delay(100), "", THREE));
    world.run_until(1_000);
    world.flows(12, 1, 0);
    world.deregister(12);
    world.run_for(10_000);
    let without: Vec<_> = THREE.iter().copied().filter(|it| it.0 != 12).collect();
    let group = format!(
        "{}\ntarget_failover = {{ on_unhealthy = \"rebalance\", on_deregistration = \"rebalance\" }}",
        delay(30)
    );
    world.reload(&text("tcp_idle_timeout_seconds = 77", &group, "", &without));
    assert_eq!(world.snapshot().pools[1].timers.tcp_idle.as_secs(), 77);
    assert_eq!(world.status(12).draining.map(|it| it.seconds_left), Some(20.0));
    world.run_until(30_999);
    assert_eq!(world.fate(0, 12), Fate::Stay);
    world.run_until(31_000);
    assert_eq!(world.fate(0, 12), Fate::Rebalance);
}

#[test]
fn a_target_moves_to_another_zone() {
    let mut world = World::new(&text("", "", "", THREE));
    world.run_until(1_000);
    world.flows(12, 1, 0);
    let slot = world.slot(12);
    let policy =
        "target_failover = { on_unhealthy = \"rebalance\", on_deregistration = \"rebalance\" }";
    world.reload(&text("", policy, "", &[(11, "az1"), (12, "az2"), (21, "az2")]));
    assert_eq!((world.candidates(0), world.candidates(1)), (vec![11], vec![21]));
    assert_eq!(world.state(12), ("initial", Some("Elb.RegistrationInProgress")));
    world.run_for(10);
    assert_eq!(world.candidates(1), [12, 21]);
    assert_eq!(
        (world.slot(12), world.fate(0, 12)),
        (slot, Fate::Stay),
        "flows stay where they are"
    );
    world.deregister(12);
    world.run_for(300_000);
    let fates = (world.fate(0, 12), world.fate(1, 12));
    assert_eq!(
        fates,
        (Fate::Rebalance, Fate::Rebalance),
        "also those of the node that it has left"
    );
}

#[test]
fn nodes_and_places_keep_their_numbers() {
    let mut world = World::new(&text("", "", "", THREE));
    world.run_until(1_000);
    let before = world.snapshot();
    // The zones change their places in the file.
    let swapped = file(["", "", ""], &["az2", "az1"], THREE)
        .replace(
            "zone = \"az2\", address = \"192.0.2.1\"",
            "zone = \"az2\", address = \"192.0.2.2x\"",
        )
        .replace(
            "zone = \"az1\", address = \"192.0.2.2\"",
            "zone = \"az1\", address = \"192.0.2.1\"",
        )
        .replace("192.0.2.2x", "192.0.2.2");
    world.reload(&swapped);
    let after = world.snapshot();
    let zones = |pools: &[crate::dataplane::snapshot::Pool]| {
        pools.iter().map(|it| (it.zone.clone(), it.address)).collect::<Vec<_>>()
    };
    assert_eq!(zones(&after.pools), zones(&before.pools));
    assert_eq!(after.endpoints[0].pool, PoolId(1), "the endpoint of az2 comes first now");
    assert_eq!(after.topology_epoch, 1);
    let place = router::Entry::Endpoint(router::EndpointId::from_index(0));
    let moved = router::Entry::Endpoint(router::EndpointId::from_index(1));
    assert_eq!(after.entry(place, 0), Some(moved));
    assert_eq!(world.candidates(0), [11, 12], "health is kept");

    // A node that is not there any more leaves its number behind.
    world.reload(&file(["", "", ""], &["az1"], &[(11, "az1"), (12, "az1")]));
    assert_eq!((world.candidates(0), world.candidates(1)), (vec![11, 12], vec![]));
    assert_eq!(world.state(21).0, "unused", "it had no flows to drain");
}

#[test]
fn a_group_that_is_not_there_any_more_drains() {
    let mut world = World::new(&text("", "deregistration_delay_seconds = 50", "", THREE));
    world.run_until(1_000);
    world.flows(11, 1, 0);
    let other = text("", "deregistration_delay_seconds = 9", "", &[(31, "az1")])
        .replace("\"fw\"", "\"other\"");
    world.reload(&other);
    assert_eq!(world.status(11).draining.map(|it| it.seconds_left), Some(50.0), "by its own delay");
    let view = world.snapshot();
    assert!(view.target(world.slot(11)).group > 0, "the group at 0 is another one now");
    world.run_for(10);
    assert_eq!(world.candidates(0), [31]);
    world.run_for(49_990);
    assert_eq!(world.state(11), ("unused", Some("Target.NotRegistered")));
    world.handle(Input::Suspect(world.slot(11)));
    assert_eq!(world.fate(0, 11), Fate::Stay);
}

#[test]
fn commands_are_differences_that_a_reload_undoes() {
    let file = text("", "", "", THREE);
    let mut world = World::new(&file);
    world.run_until(1_000);
    let differences = |world: &World| -> Vec<String> {
        let changes = diff(&world.control.effective_settings(), &settings(&file));
        changes.iter().map(ToString::to_string).collect()
    };
    assert_eq!(differences(&world), [""; 0]);
    let now = world.now();
    world.control.set_traffic_mode("lb", TrafficMode::Bypass, now).unwrap();
    world.deregister(12);
    world.register(13, "az1");
    assert_eq!(
        differences(&world),
        [
            "changed load_balancer lb: traffic_mode: bypass -> load_balance",
            "removed target fw/192.0.2.13:6081",
            "added target fw/192.0.2.12:6081",
        ]
    );
    world.reload(&file);
    assert_eq!(differences(&world), [""; 0]);
}

/// Nobody is checked, and all of them are new: each has its share at once, whoever is looked at
/// first, since there is nobody beside whom any of them would begin slowly.
#[test]
fn those_who_come_together_begin_with_whole_shares() {
    let group = "slow_start_seconds = 30";
    let mut world = World::new(&text("", group, "enabled = false", &[]));
    world.reload(&text("", group, "enabled = false", &[(11, "az1"), (12, "az1")]));
    assert_eq!(world.weights(0), [(11, 100), (12, 100)]);
    // Who comes after them begins slowly, and so do two at a time.
    let all = [(11, "az1"), (12, "az1"), (13, "az1"), (14, "az1")];
    world.reload(&text("", group, "enabled = false", &all));
    assert_eq!(world.weights(0), [(11, 100), (12, 100), (13, 1), (14, 1)]);
}

/// Some are there, and become healthy since nobody checks them any more; one comes, and is healthy
/// from the beginning: they have come together.
#[test]
fn those_who_are_no_longer_checked_begin_with_whole_shares() {
    let group = "slow_start_seconds = 30";
    let mut world = World::new(&text("", group, "", &[]));
    world.reload(&text("", group, "", &[(11, "az1"), (12, "az1")]));
    assert_eq!(world.state(11).0, "initial", "nobody knows yet");
    let all = [(13, "az1"), (11, "az1"), (12, "az1")];
    world.reload(&text("", group, "enabled = false", &all));
    assert_eq!(world.weights(0), [(11, 100), (12, 100), (13, 100)]);
}
