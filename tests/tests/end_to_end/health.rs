//! Health seen from outside: who is healthy, how soon a dead one is found out, what the way through
//! an appliance says, and what is told of one that returns nothing.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use geneve::PORT;
use geneve::outer::{self, OuterHeader, UdpChecksum};
use gwlb_tests::world::traffic::{self, EchoServer, Stream};
use gwlb_tests::world::{Family, Plan, World};

use super::world;

/// Probes each 200 ms, two of a kind decide: an ordinary death takes up to 600 ms to be found out.
const FAST: &str = "[target_group.health_check]\nextended_ranges = true\ninterval_ms = 200\n\
                    timeout_ms = 200\nhealthy_threshold = 2\nunhealthy_threshold = 2\n";

/// One zone with two appliances that answer health checks.
fn two() -> Plan {
    Plan { appliances: vec![0, 0], health: true, target_group: FAST, ..Plan::default() }
}

#[test]
fn new_flows_avoid_the_dead_and_come_back_to_the_living() {
    let Some(world) = world("new_flows_avoid_the_dead", two()) else { return };
    let _living = world.start_appliance(0, &["passthrough"]);
    let mut dying = world.start_appliance(1, &["passthrough"]);
    let mut gateway = world.start_gateway();
    let healthy = |number: usize| {
        move |status: &gwlb_tests::world::status::Status| status.targets[number].state == "healthy"
    };
    gateway.wait_until("both are healthy", |status| healthy(0)(status) && healthy(1)(status));

    dying.process.crash();
    let status = gateway
        .wait_until("the dead one is found out", |status| status.targets[1].state == "unhealthy");
    assert_eq!(status.targets[1].reason.as_deref(), Some("Target.FailedHealthChecks"));
    let before = status.targets[1].new_flows;
    let server = EchoServer::start(&world.servers[0], Family::V4);
    for _ in 0..32 {
        let socket = traffic::datagrams(&world.client, server.address());
        traffic::exchange(&socket, b"who takes me?").unwrap();
    }
    assert_eq!(gateway.status().targets[1].new_flows, before, "no flow was placed on the dead one");

    let _back = world.start_appliance(1, &["passthrough"]);
    gateway.wait_until("it is back", healthy(1));
    for _ in 0..32 {
        let socket = traffic::datagrams(&world.client, server.address());
        traffic::exchange(&socket, b"and me?").unwrap();
    }
    assert!(gateway.status().targets[1].new_flows > before);
    gateway.stop();
}

#[test]
fn established_flows_move_where_that_is_wanted() {
    let plan = Plan {
        target_group: "target_failover = { on_unhealthy = \"rebalance\" }\n\
                       [target_group.health_check]\nextended_ranges = true\ninterval_ms = 200\n\
                       timeout_ms = 200\nhealthy_threshold = 2\nunhealthy_threshold = 2\n",
        ..two()
    };
    let Some(world) = world("established_flows_move", plan) else { return };
    let mut nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    gateway.wait_until("both are healthy", |status| {
        status.targets.iter().all(|target| target.state == "healthy")
    });
    let streams: Vec<_> =
        (0..8).map(|_| Stream::start(&world.client, &world.servers[0], Family::V4)).collect();
    for stream in &streams {
        stream.wait_for_more(1 << 16);
    }
    let before = gateway.status();
    let victim = usize::from(before.targets[1].active_flows > 0);
    let moving = before.targets[victim].active_flows;
    nva[victim].process.crash();
    for stream in streams {
        stream.wait_for_more(1 << 18);
        stream.finish();
    }
    let after = gateway.settled();
    assert!(after.is_balanced(), "{after:#?}");
    assert_eq!(after.flows.rebalanced, moving, "{after:#?}");
    gateway.stop();
}

#[test]
fn an_appliance_whose_data_path_is_dead_is_found_out_through_the_tunnel() {
    let plan = Plan {
        target_group: "[target_group.health_check]\nextended_ranges = true\ninterval_ms = 200\n\
                       timeout_ms = 200\n[target_group.tunnel_check]\nextended_ranges = true\n\
                       interval_ms = 200\ntimeout_ms = 200\n",
        underlay_mtu: 1500,
        ..two()
    };
    let Some(world) = world("an_appliance_whose_data_path_is_dead", plan) else { return };
    let _living = world.start_appliance(0, &["passthrough"]);
    // Its health port answers all the same.
    let _silent = world.start_appliance(1, &["passthrough", "--fault", "silent"]);
    let mut gateway = world.start_gateway();
    let status = gateway.wait_until("both are judged", |status| {
        let measured = status.targets[0].tunnel.as_ref().and_then(|tunnel| tunnel.usable_mtu);
        status.targets[1].state == "unhealthy" && measured.is_some()
    });
    assert_eq!(status.targets[0].state, "healthy");
    let tunnel = status.targets[0].tunnel.as_ref().unwrap();
    assert!(tunnel.round_trip_ms.is_some_and(|round_trip| round_trip < 200.0), "{tunnel:?}");
    assert_eq!(tunnel.usable_mtu, Some(1500 - 68));
    let server = EchoServer::start(&world.servers[0], Family::V4);
    for _ in 0..16 {
        let socket = traffic::datagrams(&world.client, server.address());
        traffic::exchange(&socket, b"past the dead one").unwrap();
    }
    let status = gateway.settled();
    assert_eq!(status.targets[1].new_flows, 0, "{status:#?}");
    assert!(status.udp.probes > 0 && status.is_balanced(), "{status:#?}");
    gateway.stop();
}

/// Returns what it gets with an outer UDP checksum that was never computed, as some appliances do.
fn return_unchecked(world: &World) -> std::thread::JoinHandle<()> {
    let listen = SocketAddr::new(world.plan.target(0), PORT);
    let (geneve, raw) = world.appliances[0].run(|| {
        let geneve = UdpSocket::bind(listen).unwrap();
        // When nothing has come for so long, the test is over.
        geneve.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let raw = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::RAW,
            Some(socket2::Protocol::from(nix::libc::IPPROTO_RAW)),
        );
        (geneve, raw.unwrap())
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = geneve.recv_from(&mut buffer) {
            let header = OuterHeader {
                src: SocketAddr::new(listen.ip(), from.port()),
                dst: SocketAddr::new(from.ip(), PORT),
                ttl: 64,
                tos: 0,
                dont_fragment: false,
                id: 0,
                checksum: UdpChecksum::On,
            };
            let mut packet = geneve::PacketBuf::from_slice(&buffer[..len]);
            outer::encapsulate(&header, &mut packet).unwrap();
            let bytes = packet.bytes_mut();
            // The checksum of UDP, behind IPv4 without options.
            bytes[26] ^= 0x55;
            raw.send_to(bytes, &SocketAddr::new(from.ip(), 0).into()).unwrap();
        }
    })
}

#[test]
fn wrong_outer_checksums_are_told_of_and_tolerated_on_request() {
    let quiet = "[target_group.health_check]\nenabled = false\n";
    let tolerant =
        "tolerate_bad_udp_checksum = true\n[target_group.health_check]\nenabled = false\n";
    for (target_group, name) in [(quiet, "told"), (tolerant, "tolerated")] {
        let plan = Plan { target_group, ..Plan::default() };
        let Some(world) = world(&format!("wrong_outer_checksums {name}"), plan) else { return };
        let mut gateway = world.start_gateway();
        let server = EchoServer::start(&world.servers[0], Family::V4);
        let appliance = return_unchecked(&world);
        let socket = traffic::datagrams(&world.client, server.address());
        if target_group == tolerant {
            for _ in 0..50 {
                traffic::exchange(&socket, b"as if nothing were wrong").unwrap();
            }
            let status = gateway.settled();
            assert_eq!(status.targets[0].returned_packets, 100, "{status:#?}");
            assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");
        } else {
            let status = gateway.wait_until("the cause is told", |status| {
                socket.send(b"nothing comes back").unwrap();
                status.targets[0].diagnosis.is_some()
            });
            let diagnosis = status.targets[0].diagnosis.as_ref().unwrap();
            assert_eq!(diagnosis.code, "udp_checksum");
            assert!(diagnosis.text.contains("tolerate_bad_udp_checksum"), "{diagnosis:?}");
        }
        gateway.stop();
        drop(world);
        appliance.join().unwrap();
    }
}
