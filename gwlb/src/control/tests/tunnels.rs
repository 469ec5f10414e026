//! Checks through the tunnel, and targets that are silent.

use std::collections::BTreeMap;
use std::time::Duration;

use geneve::header::Header;
use geneve::inner::Inner;
use rstest::rstest;

use crate::control::silence::Symptoms;
use crate::control::testing::{Manner, World, file};
use crate::control::{Input, tunnel};

const CHECK: &str = "[target_group.tunnel_check]\ninterval_seconds = 10\ntimeout_seconds = 2\n";

fn two(more: &str) -> String {
    let group = format!("{CHECK}{more}");
    file(["", &group, ""], &["az1", "az2"], &[(11, "az1"), (12, "az1")])
}

fn brings_back(largest: u16) -> Manner {
    Manner { tunnel: (largest, Duration::from_millis(2)), ..Manner::GOOD }
}

/// The sizes of the inner packets sent to a target, and when.
fn sizes(world: &World, target: u8) -> Vec<(u64, usize)> {
    let slot = world.slot(target);
    let these = world.tunnels.iter().filter(|(_, request)| request.target == slot);
    these.map(|(at, request)| (*at, request.packet.len() - 40)).collect()
}

#[test]
fn a_probe_is_as_if_from_the_endpoint_to_its_neighbour() {
    let mut world = World::new(&two(""));
    world.run_until(5);
    let snapshot = world.snapshot();
    let (_, request) = &world.tunnels[0];
    assert_eq!(request.source.to_string(), "192.0.2.1");
    assert_eq!(request.address.to_string(), "192.0.2.11:6081");
    assert_eq!(request.timeout, Duration::from_secs(2));
    let (header, inner) = Header::parse(&request.packet).unwrap();
    let parsed = Inner::parse(inner).unwrap();
    assert_eq!(
        (parsed.src.to_string(), parsed.dst.to_string()),
        ("10.0.0.4".into(), "10.0.0.5".into())
    );
    let flow = snapshot.pool(request.pool).probe.unwrap();
    assert!(flow.is(&parsed.flow_key()), "the return path knows it by its addresses");
    let target = snapshot.target(request.target);
    let tags = target.dialect.read(&header).unwrap();
    assert_eq!(tags.endpoint, snapshot.endpoints[0].wire_id);
    let key = parsed.flow_key().canonical();
    assert!(snapshot.keys.cookie.verify(tags.cookie, tags.endpoint, target.id, &key));
    let payload = &inner[parsed.header_len + 8..];
    let recognised = tunnel::recognise(&snapshot.keys, payload).unwrap();
    assert_eq!((recognised.check, recognised.sequence), (request.check, request.sequence));
}

#[rstest]
#[case::both("source = \"10.9.9.1\"\ndestination = \"10.9.9.2\"\n", "10.9.9.1", "10.9.9.2")]
#[case::source("source = \"10.9.9.1\"\n", "10.9.9.1", "10.0.0.5")]
#[case::destination("destination = \"10.9.9.2\"\n", "10.0.0.4", "10.9.9.2")]
fn its_addresses_can_be_chosen(
    #[case] more: &str,
    #[case] source: &str,
    #[case] destination: &str,
) {
    let world = World::new(&two(more));
    let flow = world.snapshot().pools[0].probe.unwrap();
    assert_eq!(
        (flow.source.to_string(), flow.destination.to_string()),
        (source.into(), destination.into())
    );
    assert_eq!(flow.port, tunnel::PORT);
}

#[test]
fn a_target_must_pass_both() {
    let mut world =
        World::with(&two("measure_mtu = false\n"), BTreeMap::from([(12, brings_back(0))]));
    assert_eq!(world.state(11), ("initial", Some("Elb.RegistrationInProgress")));
    world.run_until(1);
    assert_eq!(world.state(11), ("healthy", None));
    assert_eq!(world.state(12), ("initial", Some("Elb.InitialHealthChecking")));
    assert_eq!(world.candidates(0), [11, 12]);
    world.run_until(30_000);
    assert_eq!(world.state(12), ("unhealthy", Some("Target.FailedHealthChecks")));
    assert_eq!(
        world.status(12).description.as_deref(),
        Some("the data path is dead: probes through the tunnel do not come back")
    );
    assert_eq!(world.candidates(0), [11]);
    let tunnel = world.status(11).tunnel.unwrap();
    assert_eq!((tunnel.state.name(), tunnel.round_trip_ms), ("healthy", Some(1.0)));
    assert_eq!(world.status(12).tunnel.unwrap().state.name(), "unhealthy");

    world.manners.insert(12, brings_back(100));
    world.run_for(20_000);
    assert_eq!(world.state(12), ("healthy", None));
    // And its health check counts as much.
    world.manners.insert(12, Manner { tunnel: Manner::GOOD.tunnel, ..Manner::DEAD });
    world.run_for(30_000);
    assert_eq!(world.state(12), ("unhealthy", Some("Target.Timeout")));
}

#[test]
fn it_waits_until_the_workers_know_the_target() {
    let mut world = World::new(&two(""));
    world.run_until(1_000);
    world.tunnels.clear();
    world.acknowledges = false;
    world.register(13, "az1");
    world.run_until(30_000);
    let slot = world.slot(13);
    let asked = |world: &World| world.tunnels.iter().any(|(_, it)| it.target == slot);
    assert!(!asked(&world), "its answer would come from an unknown source");
    let generation = world.snapshot().generation;
    world.handle(Input::Acknowledged(generation));
    assert!(asked(&world));
}

#[test]
fn the_largest_packet_is_measured() {
    let mut world = World::new(&two(""));
    world.manners.insert(12, brings_back(1_000));
    world.run_until(60_000);
    // 1500 less 68: all that fits comes back.
    assert_eq!(world.status(11).tunnel.unwrap().usable_mtu, Some(1_432));
    let padded: Vec<_> = sizes(&world, 11).into_iter().filter(|&(_, size)| size > 100).collect();
    assert_eq!(padded.iter().map(|&(_, size)| size).collect::<Vec<_>>(), [1_432, 1_432]);
    assert_eq!(world.status(12).tunnel.unwrap().usable_mtu, Some(1_000));
    let slot = world.slot(12);
    assert_eq!(world.snapshot().target(slot).usable_mtu, Some(1_000));
    assert_eq!(world.status(12).inner_mtu, 1_000);
    let diagnosis = world.status(12).diagnosis.unwrap();
    assert_eq!(diagnosis.code.name(), "mtu");
    assert_eq!(world.status(11).diagnosis, None);
    assert_eq!(world.state(12), ("healthy", None), "what was lost for its size does not count");
    let told = "fw: 192.0.2.12:6081 brings back packets of up to 1000 bytes";
    assert_eq!(world.take_events().iter().filter(|it| *it == told).count(), 1);

    // Again after ten minutes, and meanwhile what is known stays.
    let measured = padded[1].0 + 1;
    world.manners.insert(11, brings_back(900));
    world.run_until(measured + 599_000);
    assert_eq!(world.status(11).tunnel.unwrap().usable_mtu, Some(1_432));
    world.run_until(measured + 660_000);
    assert_eq!(world.status(11).tunnel.unwrap().usable_mtu, Some(900));

    // At once when the path is another one.
    world.manners.insert(11, Manner::GOOD);
    let target = world.slot(11);
    world.handle(Input::PathMtu { target, mtu: 9_000 });
    world.run_for(10);
    assert_eq!(world.status(11).tunnel.unwrap().usable_mtu, Some(8_932));
    assert_eq!(world.status(11).inner_mtu, 8_932);
}

#[test]
fn what_is_measured_serves_all_nodes() {
    let text =
        two("").replace("target_group = \"fw\"\n", "target_group = \"fw\"\ncross_zone = true\n");
    let mut world = World::new(&text);
    world.narrow = Some((2, 1_100));
    world.run_until(100_000);
    assert_eq!(world.status(11).tunnel.unwrap().usable_mtu, Some(1_100));
}

#[test]
fn a_probe_never_goes_to_the_broadcast_address() {
    let at = |last: u8| {
        let name = "name = \"vpce-az1\"\n";
        World::new(&two("").replace(name, &format!("{name}address = \"10.0.0.{last}\"\n")))
    };
    for (own, neighbour) in [(13, 14), (14, 13)] {
        let flow = at(own).snapshot().pools[0].probe.unwrap();
        let expected = [own, neighbour].map(|last| format!("10.0.0.{last}"));
        assert_eq!([flow.source.to_string(), flow.destination.to_string()], expected);
    }

    // Another address of the endpoint is another flow, from the reload on.
    let mut world = at(13);
    world.run_until(30_000);
    world.tunnels.clear();
    let name = "name = \"vpce-az1\"\n";
    world.reload(&two("").replace(name, &format!("{name}address = \"10.0.0.9\"\n")));
    world.run_until(60_000);
    assert_eq!(world.state(11), ("healthy", None));
    let flow = world.snapshot().pools[0].probe.unwrap();
    assert_eq!(flow.source.to_string(), "10.0.0.9");
    assert!(world.tunnels.len() > 4);
    for (_, request) in &world.tunnels {
        assert!(flow.is(&Inner::parse(&request.packet[40..]).unwrap().flow_key()));
    }
}

#[test]
fn a_dead_tunnel_ends_the_measuring() {
    let mut world = World::new(&two(""));
    world.run_until(1);
    world.manners.insert(12, brings_back(0));
    world.run_until(120_000);
    let lost = sizes(&world, 12).into_iter().filter(|&(at, _)| at > 30_000);
    assert!(lost.clone().all(|(_, size)| size < 100), "{:?}", lost.collect::<Vec<_>>());
    world.manners.insert(12, Manner::GOOD);
    world.run_for(60_000);
    assert_eq!(world.status(12).tunnel.unwrap().usable_mtu, Some(1_432));
}

#[test]
fn suspicion_is_about_the_tunnel_too() {
    let mut world = World::new(&two("measure_mtu = false\n"));
    world.run_until(30_000);
    world.manners.insert(12, brings_back(0));
    let target = world.slot(12);
    world.handle(Input::Suspect(target));
    world.run_for(2 * 2_000);
    assert_eq!(world.state(12), ("unhealthy", Some("Target.FailedHealthChecks")));
}

#[test]
fn a_node_without_an_endpoint_has_no_tunnel_checks() {
    let text = two("");
    let cut = text.find("[[endpoint]]\nname = \"vpce-az1\"").unwrap();
    let end = cut + text[cut..].find("[[subnet]]").unwrap();
    let mut world = World::new(&[&text[..cut], &text[end..]].concat());
    world.run_until(20_000);
    assert!(world.tunnels.is_empty());
    assert_eq!(world.state(11), ("healthy", None), "by its health check");
    let tunnel = world.status(11).tunnel.unwrap();
    assert_eq!(tunnel.state.name(), "unavailable");
    assert!(tunnel.note.unwrap().starts_with("no endpoint uses the node"));
}

fn sends(world: &World, target: u8, sent: u64, returned: u64) {
    let snapshot = world.snapshot();
    let counters = &snapshot.target(world.slot(target)).counters;
    counters[0].sent_packets.add(sent);
    counters[1].returned_packets.add(returned);
}

fn diagnosis(world: &World, target: u8) -> Option<&'static str> {
    world.status(target).diagnosis.map(|it| it.code.name())
}

const NOTHING: Symptoms = Symptoms {
    udp_checksum_errors: 1_000,
    reverse_path_filter: 1_000,
    unknown_source: 1_000,
    wrong_gateway_address: 1_000,
    bad_cookie: 1_000,
};

#[rstest]
#[case::checksum(Symptoms { udp_checksum_errors: 1_030, bad_cookie: 1_002, ..NOTHING }, "udp_checksum")]
#[case::rp_filter(Symptoms { reverse_path_filter: 1_030, ..NOTHING }, "reverse_path_filter")]
#[case::source(Symptoms { unknown_source: 1_030, ..NOTHING }, "wrong_source")]
#[case::gateway(Symptoms { wrong_gateway_address: 1_030, ..NOTHING }, "wrong_gateway_address")]
#[case::cookie(Symptoms { bad_cookie: 1_030, ..NOTHING }, "bad_cookie")]
#[case::nothing(NOTHING, "data_path")]
fn silence_has_a_likely_cause(#[case] symptoms: Symptoms, #[case] code: &str) {
    let mut world = World::new(&file(["", "", ""], &["az1"], &[(11, "az1"), (12, "az1")]));
    world.run_until(1_000);
    world.handle(Input::Symptoms(NOTHING));
    world.take_events();
    sends(&world, 11, 19, 0);
    sends(&world, 12, 100, 1);
    world.run_for(5_000);
    world.handle(Input::Symptoms(symptoms));
    assert_eq!(diagnosis(&world, 11), None, "too few to tell");
    sends(&world, 11, 1, 0);
    world.handle(Input::Symptoms(symptoms));
    assert_eq!((diagnosis(&world, 11), diagnosis(&world, 12)), (Some(code), None));
    assert_eq!(world.take_events().len(), 1);
    world.run_for(5_000);
    world.handle(Input::Symptoms(symptoms));
    assert_eq!((diagnosis(&world, 11), world.take_events().len()), (Some(code), 0), "told once");

    sends(&world, 11, 1, 1);
    world.handle(Input::Symptoms(symptoms));
    assert_eq!(diagnosis(&world, 11), None);
    let told = format!("fw: 192.0.2.11:6081 returns packets again ({code})");
    assert_eq!(world.take_events(), [told]);
}

#[test]
fn silence_takes_its_time() {
    let mut world = World::new(&file(["", "", ""], &["az1"], &[(11, "az1")]));
    world.run_until(1_000);
    world.handle(Input::Symptoms(NOTHING));
    sends(&world, 11, 1_000, 0);
    world.run_for(4_999);
    world.handle(Input::Symptoms(NOTHING));
    assert_eq!(diagnosis(&world, 11), None);
    world.run_for(1);
    world.handle(Input::Symptoms(NOTHING));
    assert_eq!(diagnosis(&world, 11), Some("data_path"));
}

#[test]
fn who_is_not_healthy_is_not_silent() {
    let mut world = World::new(&file(["", "", ""], &["az1"], &[(11, "az1")]));
    world.manners.insert(11, Manner::DEAD);
    world.run_until(60_000);
    world.handle(Input::Symptoms(NOTHING));
    sends(&world, 11, 1_000, 0);
    world.run_for(6_000);
    world.handle(Input::Symptoms(NOTHING));
    assert_eq!(diagnosis(&world, 11), None);
}

#[test]
fn a_few_packets_in_a_long_time_are_no_silence() {
    let mut world = World::new(&file(["", "", ""], &["az1"], &[(11, "az1")]));
    world.run_until(1_000);
    for _ in 0..100 {
        world.handle(Input::Symptoms(NOTHING));
        sends(&world, 11, 1, 0);
        world.run_for(5_000);
    }
    assert_eq!(diagnosis(&world, 11), None, "a firewall may refuse each of them");
}

#[test]
fn a_tolerated_checksum_is_not_the_cause() {
    let text = file(["", "tolerate_bad_udp_checksum = true", ""], &["az1"], &[(11, "az1")]);
    let mut world = World::new(&text);
    world.run_until(1_000);
    world.handle(Input::Symptoms(NOTHING));
    sends(&world, 11, 100, 0);
    world.run_for(5_000);
    world.handle(Input::Symptoms(Symptoms { udp_checksum_errors: 2_000, ..NOTHING }));
    assert_eq!(diagnosis(&world, 11), Some("data_path"));
}
