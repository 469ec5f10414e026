//! Processes that are killed or stopped.

use std::time::Duration;

use gwlb_tests::world::{Fault, Ordeal, Plan};

use super::{tell, three, world};

#[test]
fn a_gateway_that_is_killed_again_and_again_lets_nothing_past_and_breaks_no_connection() {
    let Some(world) = world("a_gateway_killed_again", three()) else { return };
    let mut ordeal = Ordeal::begin(world);
    ordeal.open_streams(2);
    for _ in 0..3 {
        ordeal.strike(&Fault::KillGateway);
        ordeal.breathe();
    }
    let outcome = ordeal.end();
    outcome.assert_drops([]);
    assert_eq!(outcome.status.flows.adopted, 8, "{:#?}", outcome.status);
    tell("gateway killed three times", &outcome);
}

#[test]
fn a_gateway_that_is_stopped_goes_on_where_it_was() {
    let Some(world) = world("a_gateway_that_is_stopped", three()) else { return };
    let mut ordeal = Ordeal::begin(world);
    ordeal.open_streams(2);
    for _ in 0..2 {
        ordeal.strike(&Fault::PauseGateway(Duration::from_secs(1)));
        ordeal.breathe();
    }
    let outcome = ordeal.end();
    outcome.assert_only(&["handover_full"]);
    tell("gateway stopped twice for 1 s", &outcome);
}

#[test]
fn appliances_that_are_killed_or_stopped_harm_only_their_own_flows_and_those_only_meanwhile() {
    let Some(world) = world("appliances_killed_or_stopped", three()) else { return };
    let mut ordeal = Ordeal::begin(world);
    for number in 0..3 {
        ordeal.wait_for_state(number, "healthy");
    }
    ordeal.open_streams(4);
    let moment = Duration::from_millis(700);
    for fault in [
        Fault::PauseAppliance(0, moment),
        Fault::KillAppliance(1, moment),
        Fault::PauseAppliance(2, moment),
        Fault::KillAppliance(2, moment),
    ] {
        let before = ordeal.gateway.status();
        ordeal.strike(&fault);
        ordeal.breathe();
        let after = ordeal.gateway.status();
        let moved = after.flows.rebalanced - before.flows.rebalanced;
        assert_eq!(moved, 0, "{fault}: {after:#?}");
    }
    let outcome = ordeal.end();
    outcome.assert_drops([]);
    assert_eq!(outcome.status.flows.adopted, 0, "{:#?}", outcome.status);
    tell("appliances killed and stopped", &outcome);
}

#[test]
fn flows_of_a_dead_appliance_move_and_no_others_do() {
    let target_group = "target_failover = { on_unhealthy = \"rebalance\" }\n\
                        [target_group.health_check]\nextended_ranges = true\ninterval_ms = 400\n\
                        timeout_ms = 400\nhealthy_threshold = 2\nunhealthy_threshold = 2\n";
    let Some(world) = world("flows_of_a_dead_appliance", Plan { target_group, ..three() }) else {
        return;
    };
    let mut ordeal = Ordeal::begin(world);
    for number in 0..3 {
        ordeal.wait_for_state(number, "healthy");
    }
    ordeal.open_streams(4);
    for victim in 0..3 {
        let before = ordeal.gateway.status();
        ordeal.kill_appliance(victim);
        ordeal.wait_for_state(victim, "unhealthy");
        // Its streams go on nowhere else but where they have moved to.
        ordeal.breathe();
        let after = ordeal.gateway.status();
        let moved = after.flows.rebalanced - before.flows.rebalanced;
        let [had, has] = [&before, &after].map(|status| &status.targets[victim]);
        let its_own = had.active_flows + (has.new_flows - had.new_flows);
        assert!(moved > 0, "none of {its_own} flows has moved: {after:#?}");
        assert!(moved <= its_own, "{moved} flows moved, {its_own} were its own: {after:#?}");
        ordeal.start_appliance(victim);
        ordeal.wait_for_state(victim, "healthy");
    }
    let outcome = ordeal.end();
    outcome.assert_drops([]);
    tell("three appliances killed in turn, flows move", &outcome);
}
