//! A gateway that dies and is started again, and one whose configuration changes, while packets
//! flow.

use gwlb_tests::world::traffic::{self, EchoServer, Stream};
use gwlb_tests::world::{Family, Plan};
use nix::sys::signal::Signal;

use super::{FAMILIES, directions, world};

#[test]
fn a_gateway_that_is_killed_and_started_again_breaks_no_connection() {
    let plan = Plan { appliances: vec![0, 0, 0], ..Plan::default() };
    let Some(world) = world("a_gateway_that_is_killed", plan) else { return };
    let nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let streams: Vec<_> = (0..4)
        .flat_map(|_| FAMILIES)
        .flat_map(|family| directions(&world).map(|(from, to)| Stream::start(from, to, family)))
        .collect();
    for stream in &streams {
        stream.wait_for_more(1 << 18);
    }
    let flows = |nva: &[gwlb_tests::world::Appliance]| {
        nva.iter().map(|nva| nva.report().flows).collect::<Vec<_>>()
    };
    let before = flows(&nva);
    gateway.process.crash();
    drop(gateway);
    let mut gateway = world.start_gateway();
    for stream in streams {
        stream.wait_for_more(1 << 18);
        stream.finish();
    }
    // Who has seen no flow that it did not know has got back those that it had.
    assert_eq!(flows(&nva), before, "each flow went on at its appliance");
    let status = gateway.settled();
    assert!(status.is_balanced(), "{status:#?}");
    assert_eq!(status.flows.adopted, 16, "{status:#?}");
    assert!(!status.drops().contains_key("unknown_tcp_flow"), "{status:#?}");
    assert!(!status.drops().contains_key("bad_cookie"), "{status:#?}");
    gateway.stop();
}

#[test]
fn a_reload_under_load_loses_and_moves_nothing() {
    let plan = Plan { appliances: vec![0, 0], zones: 2, ..Plan::default() };
    let Some(world) = world("a_reload_under_load", plan) else { return };
    let _nva = world.start_appliances();
    let first = world.configuration();
    let mut gateway = world.start_gateway_with(&first);
    let client = &world.client;
    let streams: Vec<_> = FAMILIES
        .into_iter()
        .flat_map(|family| directions(&world).map(|(from, to)| Stream::start(from, to, family)))
        .collect();
    for stream in &streams {
        stream.wait_for_more(1 << 20);
    }
    let placed: Vec<_> = gateway.status().targets.iter().map(|t| t.active_flows).collect();

    // Everything of the second zone goes but its subnet with the device, which a running gateway
    // can neither let go nor make; and what is left is read in another order.
    let (route_tables, rest) = split_zone(&first);
    let one_zone = format!("{rest}{route_tables}");
    world.write("gateway.toml", one_zone.replace("dialect = \"aws\"", "slow_start_seconds = 1"));
    gateway.process.signal(Signal::SIGHUP);
    let gone = "load_balancer fw: node az2: 192.0.2.2 removed";
    gateway.process.wait_for_line(gone);
    for stream in &streams {
        stream.wait_for_more(1 << 20);
    }

    // A wrong file changes nothing.
    world.write("gateway.toml", "[gateway]\nworkerz = 1\n");
    gateway.process.signal(Signal::SIGHUP);
    gateway.process.wait_for_line("workerz");
    assert_eq!(gateway.status().attachments.len(), 3);

    // And all of it is back: the node's sockets are opened anew, without any privilege.
    world.write("gateway.toml", &first);
    gateway.process.signal(Signal::SIGHUP);
    gateway.process.wait_for_line("load_balancer fw: node az2: 192.0.2.2 added");
    let server = EchoServer::start(&world.servers[1], Family::V4);
    // Nobody inspects there, as before: both appliances stand in the first zone.
    let socket = traffic::datagrams(client, server.address());
    socket.send(b"nobody inspects me").unwrap();
    gateway.wait_until("it is dropped", |status| status.drops().contains_key("no_target"));
    for stream in streams {
        stream.wait_for_more(1 << 20);
        stream.finish();
    }
    let status = gateway.settled();
    assert!(status.is_balanced(), "{status:#?}");
    assert_eq!(status.drops().into_keys().collect::<Vec<_>>(), ["no_target"], "{status:#?}");
    assert_eq!(status.flows.rebalanced, 0);
    let now: Vec<_> = status.targets.iter().map(|target| target.new_flows).collect();
    assert_eq!(now, placed, "{status:#?}");
    for target in &status.targets {
        assert_eq!(target.kept_packets, 0, "{status:#?}");
    }
    gateway.stop();
}

/// The route tables of the first zone and of the gateway, and everything else of the first zone,
/// with the second one's subnet and device.
fn split_zone(configuration: &str) -> (String, String) {
    let zone_b = ["app-b", "gwlbe-b", "vpce-b"];
    let (mut tables, mut rest) = (String::new(), String::new());
    for table in configuration.split("\n\n") {
        let name = table
            .lines()
            .find_map(|line| line.strip_prefix("name = ").or(line.strip_prefix("subnet = ")));
        let of_b = name.is_some_and(|name| zone_b.iter().any(|b| name.contains(b)));
        let has_device = name.is_some_and(|name| name.contains("app-b"));
        let stays = has_device && !table.contains("[[route_table]]");
        if of_b && !stays {
            continue;
        }
        let of_table_b = |line: &str| line == "route_table = \"app-b\"";
        let kept = table
            .lines()
            .filter(|line| (!line.contains("vpce-b") || line.contains("az1")) && !of_table_b(line));
        let mut text = kept.collect::<Vec<_>>().join("\n");
        if let Some((before, _)) = text.split_once(", { zone = \"az2\"") {
            let after = text.split_once("}]").map_or("", |(_, after)| after).to_owned();
            text = format!("{before}]{after}");
        }
        let section = if text.contains("[[route_table]]") { &mut tables } else { &mut rest };
        section.push_str(&text);
        section.push_str("\n\n");
    }
    (tables, rest)
}
