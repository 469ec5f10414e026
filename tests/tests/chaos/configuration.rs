//! Configurations that change all the time, and targets that come and go.

use std::time::Duration;

use gwlb_tests::world::{Ordeal, hold};

use super::{tell, three, world};

/// Between two reloads.
const EVERY: Duration = Duration::from_millis(100);

#[test]
fn a_reload_every_100_ms_breaks_moves_and_loses_nothing() {
    let Some(world) = world("a_reload_every_100_ms", three()) else { return };
    let mut ordeal = Ordeal::begin(world);
    for number in 0..3 {
        ordeal.wait_for_state(number, "healthy");
    }
    ordeal.open_streams(4);
    let before = ordeal.gateway.process.resident();
    let (first, other) = (ordeal.world.configuration(), ordeal.world.other_configuration());
    for round in 0..50 {
        let configuration = if round % 2 == 0 { &other } else { &first };
        ordeal.gateway.reload(configuration).unwrap();
        if round % 10 == 9 {
            ordeal.breathe();
        }
        hold(EVERY);
    }
    let status = ordeal.gateway.status();
    assert_eq!(status.flows.rebalanced, 0, "{status:#?}");
    assert_eq!(status.targets.len(), 3, "{status:#?}");
    let after = ordeal.gateway.process.resident();
    assert!(after < before + (8 << 20), "{before} bytes before 50 reloads, {after} after");
    let outcome = ordeal.end();
    outcome.assert_drops([]);
    tell("reloaded every 100 ms, 50 times", &outcome);
}

#[test]
fn a_target_that_flaps_every_second_disturbs_no_flow() {
    let Some(world) = world("a_target_that_flaps", three()) else { return };
    let mut ordeal = Ordeal::begin(world);
    ordeal.answer_for(1);
    for number in 0..3 {
        ordeal.wait_for_state(number, "healthy");
    }
    ordeal.open_streams(4);
    let before = ordeal.gateway.process.resident();
    for _ in 0..4 {
        ordeal.fail_health(1);
        ordeal.wait_for_state(1, "unhealthy");
        ordeal.breathe();
        ordeal.mend_health(1);
        ordeal.wait_for_state(1, "healthy");
        ordeal.breathe();
    }
    let status = ordeal.gateway.status();
    assert_eq!(status.flows.rebalanced, 0, "{status:#?}");
    let after = ordeal.gateway.process.resident();
    assert!(after < before + (8 << 20), "{before} bytes before, {after} after");
    let outcome = ordeal.end();
    outcome.assert_drops([]);
    tell("a target flapped four times", &outcome);
}
