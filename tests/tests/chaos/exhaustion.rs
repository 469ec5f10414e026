//! What runs out: room for the log, file descriptors, memory.

use gwlb_tests::world::Ordeal;

use super::{tell, three, world};

/// A log of which no line can be written: what is done while it fails is done all the same.
fn goes_on_without_a_log(name: &str, starter: &[&str]) {
    let Some(world) = world(name, three()) else { return };
    let mut ordeal = Ordeal::begin_by(world, starter);
    ordeal.open_streams(1);
    let other = ordeal.world.other_configuration();
    for _ in 0..3 {
        // Each is told of in the log, and so are targets that come and go.
        ordeal.gateway.reload(&other).unwrap();
        ordeal.gateway.reload(&ordeal.world.configuration()).unwrap();
        ordeal.kill_appliance(2);
        ordeal.wait_for_state(2, "unhealthy");
        ordeal.start_appliance(2);
        ordeal.wait_for_state(2, "healthy");
        ordeal.breathe();
    }
    // A device that is gone is told of by the workers themselves.
    ordeal.world.client.links().delete("igw").unwrap();
    ordeal.gateway.wait_until("the device is missed", |status| {
        status.drops().contains_key("delivery_failed")
    });
    ordeal.restart_gateway();
    let outcome = ordeal.end();
    outcome.assert_drops([]);
    tell(name, &outcome);
}

#[test]
fn a_full_disk_for_stderr_stops_nothing() {
    goes_on_without_a_log("stderr_is_full", &["sh", "-c", "exec \"$0\" \"$@\" 2>/dev/full"]);
}

#[test]
fn a_full_disk_for_all_output_stops_nothing() {
    let all = "exec \"$0\" \"$@\" >/dev/full 2>/dev/full";
    goes_on_without_a_log("all_output_is_full", &["sh", "-c", all]);
}
