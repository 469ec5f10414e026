//! Processes that are killed or stopped.

use std::time::Duration;

use gwlb_tests::world::{Fault, Ordeal};

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
