//! The behaviour of the whole control plane, in virtual time.

mod checks;
mod draining;
mod groups;
mod histories;
mod reload;
mod shown;
mod tunnels;
mod zones;

use super::testing::World;
use super::*;
use crate::dataplane::snapshot::TargetSlot;

const TWO_ZONES: &str = include_str!("../../examples/two-zones.toml");

fn addresses(snapshot: &Snapshot, pool: usize) -> Vec<String> {
    let candidates = snapshot.pools[pool].candidates.iter();
    candidates.map(|c| snapshot.target(c.target).address.to_string()).collect()
}

#[test]
fn a_node_uses_the_targets_of_its_zone() {
    let world = World::new(TWO_ZONES);
    let snapshot = world.snapshot();
    assert_eq!(addresses(&snapshot, 0), ["192.0.2.11:6081", "192.0.2.12:6081"]);
    assert_eq!(addresses(&snapshot, 1), ["192.0.2.21:6081"]);
    for (endpoint, zone) in snapshot.endpoints.iter().zip(["az1", "az2"]) {
        assert_eq!(snapshot.pool(endpoint.pool).zone, zone);
    }
    assert_eq!(snapshot.sources.len(), 3);
}

#[test]
fn with_cross_zone_a_node_uses_all() {
    let world = World::new(&TWO_ZONES.replace("# cross_zone = false", "cross_zone = true"));
    assert_eq!(world.candidates(0), [11, 12, 21]);
    assert_eq!(world.candidates(0), world.candidates(1));
}

#[test]
fn only_a_change_is_published() {
    let mut world = World::new(TWO_ZONES);
    world.run_until(1_000);
    world.published.clear();
    let target = TargetSlot(0);
    world.handle(Input::PathMtu { target, mtu: 1500 });
    assert!(world.published.is_empty(), "1500 is what it begins with");
    world.handle(Input::PathMtu { target, mtu: 9000 });
    world.handle(Input::PathMtu { target: TargetSlot(99), mtu: 9000 });
    assert_eq!(world.snapshot().target(target).inner_mtu(), 9000 - 68);
    assert_eq!(world.published, [1_000]);
}

#[test]
fn keys_turn_at_midnight_to_the_millisecond() {
    let mut world = World::new(TWO_ZONES);
    let midnight = 86_400_000 - 1_000_000;
    world.run_until(midnight - 1);
    assert_eq!(world.snapshot().keys.cookie.epoch(), 0);
    world.run_until(midnight);
    assert_eq!(world.snapshot().keys.cookie.epoch(), 1);

    // The clock is set back, and forth again.
    world.handle(Input::WallClock(Duration::from_secs(86_000)));
    assert_eq!(world.snapshot().keys.cookie.epoch(), 0);
    world.run_for(399_999);
    assert_eq!(world.snapshot().keys.cookie.epoch(), 0);
    world.run_for(1);
    assert_eq!(world.snapshot().keys.cookie.epoch(), 1);
}
