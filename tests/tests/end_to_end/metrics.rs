//! What a scrape says is what was sent.

use std::fmt::Debug;
use std::iter::Sum;
use std::str::FromStr;
use std::time::Duration;

use gwlb_tests::world::status::get;
use gwlb_tests::world::traffic::Stream;
use gwlb_tests::world::{Family, Plan};

use super::world;

/// The sum of a metric's series whose labels contain all of `parts`.
fn sum<T: FromStr<Err: Debug> + Sum>(text: &str, name: &str, parts: &[&str]) -> T {
    let series = text.lines().filter_map(|line| line.strip_prefix(name));
    let series = series.filter(|rest| rest.starts_with(['{', ' ']));
    let wanted = series.filter(|rest| parts.iter().all(|part| rest.contains(part)));
    wanted.map(|rest| rest.rsplit(' ').next().unwrap().parse::<T>().unwrap()).sum()
}

#[test]
fn a_scrape_says_what_was_sent_and_a_reload_keeps_it() {
    let plan = Plan { health: true, ..Plan::default() };
    let Some(world) = world("a_scrape_says", plan) else { return };
    let [nva] = world.start_appliances().try_into().unwrap();
    let mut gateway = world.start_gateway();
    let scrape = || String::from_utf8(get(&world.admin_socket(), "/metrics").unwrap()).unwrap();
    let stream = Stream::start(&world.client, &world.servers[0], Family::V4);
    stream.wait_for_more(8 << 20);
    // For as long as a few samples take.
    gateway.wait_until("a packet is timed", |_| {
        sum::<u64>(&scrape(), "gwlb_target_round_trip_seconds_count", &[]) >= 3
    });
    stream.finish();
    let status = gateway.settled();
    let (text, report) = (scrape(), nva.report());
    let packets = status.tun.encapsulated;
    let one = |name: &str| sum::<u64>(&text, name, &[]);
    assert_eq!(report.packets, packets);
    assert_eq!(one("gwlb_target_sent_packets_total"), packets);
    assert_eq!(one("gwlb_endpoint_inspected_packets_total"), packets);
    assert_eq!(one("gwlb_endpoint_inspected_bytes_total"), report.bytes);
    assert_eq!(one("gwlb_endpoint_returned_packets_total"), report.returned_packets);
    assert_eq!(one("gwlb_endpoint_returned_bytes_total"), one("gwlb_target_returned_bytes_total"));
    assert_eq!(one("gwlb_endpoint_new_flows_total"), status.flows.created);
    assert_eq!(one("gwlb_endpoint_active_flows"), status.active_flows);
    let dropped: u64 = sum(&text, "gwlb_packets_dropped_total", &["side=\"tun\""]);
    assert_eq!(one("gwlb_endpoint_dropped_packets_total"), dropped);

    // Batches add up to what they are batches of.
    assert_eq!(one("gwlb_batch_sent_packets_sum"), packets);
    assert_eq!(one("gwlb_batch_received_packets_sum"), status.udp.received);
    assert!(one("gwlb_batch_read_packets_sum") <= status.tun.received);
    assert!(one("gwlb_batch_sent_packets_count") < packets, "none left together");

    // On one machine, so within what anybody would wait.
    let seconds: f64 = sum(&text, "gwlb_target_round_trip_seconds_sum", &[]);
    let mean = seconds / one("gwlb_target_round_trip_seconds_count") as f64;
    let mean = Duration::from_secs_f64(mean);
    assert!(mean > Duration::ZERO && mean < Duration::from_secs(3), "{mean:?}");
    assert!(one("gwlb_target_probe_duration_seconds_count") >= 1, "{text}");

    let reloaded = world.configuration().replace("dialect = \"aws\"", "slow_start_seconds = 1");
    gateway.reload(&reloaded).unwrap();
    let after = scrape();
    for name in ["gwlb_endpoint_inspected_packets_total", "gwlb_endpoint_returned_bytes_total"] {
        assert!(sum::<u64>(&after, name, &[]) >= one(name), "{name}: {after}");
    }
    gateway.stop();
}
