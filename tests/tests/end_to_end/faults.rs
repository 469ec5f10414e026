//! Appliances that die, an underlay that complains, and strangers that send anything at all.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};

use geneve::PORT;
use gwlb_tests::packets::Ip;
use gwlb_tests::world::rogue::malformed;
use gwlb_tests::world::site::cable;
use gwlb_tests::world::traffic::{self, EchoServer, Stream};
use gwlb_tests::world::{Family, Plan, World};
use netio::link::Route;

use super::{FAMILIES, directions, world};

#[test]
fn an_appliance_that_dies_and_comes_back_keeps_its_flows() {
    let Some(world) = world("an_appliance_that_dies", Plan::default()) else { return };
    let mut nva = world.start_appliance(0, &["passthrough"]);
    let mut gateway = world.start_gateway();
    let streams: Vec<_> = FAMILIES
        .into_iter()
        .flat_map(|family| directions(&world).map(|(from, to)| Stream::start(from, to, family)))
        .collect();
    for stream in &streams {
        stream.wait_for_more(1 << 20);
    }
    nva.process.crash();
    // The kernel in the appliance's namespace says that nobody listens there any more.
    let status = gateway.wait_until("the underlay complains", |status| {
        status.io.underlay_errors > 0 && status.targets[0].kept_packets > 0
    });
    assert!(!status.drops().contains_key("send_failed"), "{status:#?}");

    let _nva = world.start_appliance(0, &["passthrough"]);
    for stream in streams {
        stream.wait_for_more(1 << 20);
        stream.finish();
    }
    let status = gateway.settled();
    assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");
    assert_eq!((status.flows.created, status.targets[0].new_flows), (4, 4), "{status:#?}");
    gateway.stop();
}

#[test]
fn bursts_of_complaints_about_one_appliance_disturb_no_flow_of_another() {
    let plan = Plan { appliances: vec![0, 0], ..Plan::default() };
    let Some(world) = world("bursts_of_complaints", plan) else { return };
    // Nobody listens behind the second target, and its kernel says so each time.
    let _living = world.start_appliance(0, &["passthrough"]);
    let dead = &world.appliances[1];
    for key in ["net.ipv4.icmp_ratelimit", "net.ipv4.icmp_ratemask"] {
        dead.netns().set_sysctl(key, "0").unwrap();
    }
    let mut gateway = world.start_gateway();
    let server = EchoServer::start(&world.servers[0], Family::V4);
    let sockets: Vec<UdpSocket> =
        (0..64).map(|_| traffic::datagrams(&world.client, server.address())).collect();
    for socket in &sockets {
        socket.send(b"whose are you?").unwrap();
    }
    gateway.settled();
    let (living, dead): (Vec<_>, Vec<_>) = sockets.into_iter().partition(|socket| {
        socket.set_nonblocking(true).unwrap();
        let answered = socket.recv(&mut [0; 64]).is_ok();
        socket.set_nonblocking(false).unwrap();
        answered
    });
    println!("{} flows of the living appliance, {} of the dead one", living.len(), dead.len());
    assert!(!living.is_empty() && !dead.is_empty());

    for _ in 0..100 {
        for socket in &dead {
            socket.send(b"anybody there?").unwrap();
        }
        for socket in &living {
            traffic::exchange(socket, b"still there?").unwrap();
        }
    }
    let status = gateway.settled();
    assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");
    assert_eq!(status.targets[0].kept_packets, 0, "{status:#?}");
    assert_eq!(status.targets[1].returned_packets, 0, "{status:#?}");
    assert!(status.io.underlay_errors > 100, "{status:#?}");
    gateway.stop();
}

#[test]
fn an_underlay_that_goes_away_is_used_again_when_it_is_back() {
    let Some(world) = world("an_underlay_that_goes_away", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let server = EchoServer::start(&world.servers[0], Family::V4);
    let socket = traffic::datagrams(&world.client, server.address());
    traffic::exchange(&socket, b"before").unwrap();

    // With the device, the kernel takes the route away.
    let cable = cable(0);
    world.gateway.links().set_down(&cable).unwrap();
    socket.send(b"meanwhile").unwrap();
    let status = gateway.wait_until("the failure is counted", |status| !status.drops().is_empty());
    assert_eq!(status.drops(), BTreeMap::from([("send_failed", 1)]), "{status:#?}");

    world.gateway.links().set_up(&cable).unwrap();
    let route = Route::new(world.plan.target(0), 32).device(&cable).source(world.plan.node(0));
    world.gateway.links().add_route(&route).unwrap();
    traffic::exchange(&socket, b"after").unwrap();
    let status = gateway.settled();
    assert!(status.is_balanced() && status.flows.created == 1, "{status:#?}");
    gateway.stop();
}

#[test]
fn what_a_device_that_is_down_does_not_take_is_counted() {
    let Some(world) = world("a_device_that_is_down", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let server = EchoServer::start(&world.servers[0], Family::V4);
    let socket = traffic::datagrams(&world.client, server.address());
    traffic::exchange(&socket, b"before").unwrap();

    world.servers[0].links().set_down("app-a").unwrap();
    socket.send(b"meanwhile").unwrap();
    let status = gateway.wait_until("the failure is counted", |status| !status.drops().is_empty());
    assert_eq!(status.drops(), BTreeMap::from([("delivery_failed", 1)]), "{status:#?}");
    assert!(gateway.settled().is_balanced());
    gateway.stop();
}

#[test]
fn a_device_that_somebody_deletes_takes_nothing_else_with_it() {
    let plan = Plan { zones: 2, appliances: vec![0, 1], ..Plan::default() };
    let Some(world) = world("a_device_that_somebody_deletes", plan) else { return };
    let _appliances = world.start_appliances();
    let mut gateway = world.start_gateway();
    world.servers[1].links().delete("app-b").unwrap();
    // Devices that are gone are ready for ever.
    let before = gateway.settled();
    let after = gateway.settled();
    assert!(after.io.syscalls - before.io.syscalls < 100, "{before:#?}{after:#?}");

    traffic::transfer(&world.client, &world.servers[0], Family::V6, 1 << 20);
    let lost = traffic::datagrams(&world.client, (world.servers[1].address(Family::V4), 9).into());
    lost.send(b"to nowhere").unwrap();
    let status = gateway.wait_until("the failure is counted", |status| !status.drops().is_empty());
    assert_eq!(status.drops(), BTreeMap::from([("delivery_failed", 1)]), "{status:#?}");
    gateway.stop();
}

/// Sockets of whoever is on the underlay, in the namespace of an appliance that does not run.
struct Attacker {
    target: UdpSocket,
    stranger: UdpSocket,
    gateway: SocketAddr,
}

impl Attacker {
    fn new(world: &World) -> Self {
        let bind = |address| {
            let address = SocketAddr::new(address, PORT);
            world.appliances[0].run(|| UdpSocket::bind(address)).unwrap()
        };
        let gateway = SocketAddr::new(world.plan.node(0), PORT);
        Self { target: bind(world.plan.target(0)), stranger: bind(world.plan.stranger(0)), gateway }
    }

    /// A socket beside an appliance that runs.
    fn from_strangers(world: &World) -> UdpSocket {
        let address = SocketAddr::new(world.plan.stranger(0), PORT);
        world.appliances[0].run(|| UdpSocket::bind(address)).unwrap()
    }
}

#[test]
fn noise_is_dropped_by_name_to_the_last_datagram() {
    let Some(world) = world("noise", Plan::default()) else { return };
    let mut gateway = world.start_gateway();
    let attacker = Attacker::new(&world);
    let mut noise = blake3::Hasher::new().update(b"noise").finalize_xof();
    let mut sent = 0;
    for _ in 0..20 {
        for _ in 0..250 {
            let mut length = [0; 2];
            noise.fill(&mut length);
            let mut datagram = vec![0; usize::from(u16::from_le_bytes(length) % 1500)];
            noise.fill(&mut datagram);
            if let [first, ..] = &mut datagram[..] {
                // Half of it looks like Geneve for longer than its first bits.
                *first &= if sent % 2 == 0 { 0x07 } else { 0xff };
            }
            attacker.target.send_to(&datagram, attacker.gateway).unwrap();
            sent += 1;
        }
        // Never more than the queues between the namespaces hold.
        gateway.wait_until("the noise was received", |status| status.udp.received == sent);
    }
    let status = gateway.settled();
    assert_eq!(status.drops().values().sum::<u64>(), sent, "{status:#?}");
    assert!(status.drops().len() >= 4, "{status:#?}");
    gateway.stop();
}

#[test]
fn what_the_kernel_loses_is_shown() {
    let Some(world) = world("what_the_kernel_loses", Plan::default()) else { return };
    let [nva] = world.start_appliances().try_into().unwrap();
    let mut gateway = world.start_gateway();
    let attacker = Attacker::from_strangers(&world);
    let server = &world.servers[0];
    let silent = SocketAddr::new(server.address(Family::V4), 0);
    let silent = server.run(|| UdpSocket::bind(silent)).unwrap();
    let client = traffic::datagrams(&world.client, silent.local_addr().unwrap());

    // More than a TUN device queues (500 packets), and more than a socket's buffer holds (8 MiB).
    let (from_client, from_strangers) = (2_000, 8_000);
    gateway.process.suspend();
    for _ in 0..from_client {
        client.send(b"is anybody listening?").unwrap();
    }
    for _ in 0..from_strangers {
        attacker.send_to(&[0; 1400], SocketAddr::new(world.plan.node(0), PORT)).unwrap();
    }
    gateway.process.resume();

    let status = gateway.wait_until("losses are told", |status| status.io.kernel_drops > 0);
    let igw = status.attachments.iter().find(|attachment| attachment.tun == "igw").unwrap();
    let lost = igw.tx_dropped.unwrap();
    assert!(lost > 0, "{status:#?}");
    assert_eq!(status.tun.received + lost, from_client, "{status:#?}");
    // Some may have been lost between the namespaces, where nobody counts.
    let arrived = status.udp.received + status.io.kernel_drops;
    let sent = from_strangers + nva.report().returned_packets;
    assert!(arrived <= sent && arrived > from_strangers / 2, "{arrived} of {sent}: {status:#?}");
    gateway.stop();
}

#[test]
fn datagrams_to_the_ports_that_only_send_keep_nobody_busy() {
    let Some(world) = world("ports_that_only_send", Plan::default()) else { return };
    let mut gateway = world.start_gateway();
    let attacker = Attacker::new(&world);
    for port in 61_000..=u16::MAX {
        let to = SocketAddr::new(attacker.gateway.ip(), port);
        // Most of them are nobody's, of which the kernel informs the sender of the next one.
        let _ = attacker.target.send_to(b"anybody there?", to);
    }
    // Settled is what does not change for a while; a worker that spins makes thousands of calls.
    let before = gateway.settled();
    let after = gateway.settled();
    assert!(after.io.syscalls - before.io.syscalls < 100, "{before:#?}{after:#?}");
    gateway.stop();
}

#[test]
fn whatever_strangers_send_is_dropped_by_name_and_goes_nowhere() {
    let Some(world) = world("whatever_strangers_send", Plan::default()) else { return };
    let mut gateway = world.start_gateway();
    let attacker = Attacker::new(&world);
    let inner = Ip::new("203.0.113.7", "10.0.1.11").udp((1000, 53), b"let me in");

    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, datagram) in malformed(&inner) {
        attacker.target.send_to(&datagram, attacker.gateway).unwrap();
        *expected.entry(reason).or_default() += 1;
        // It is the address that makes a stranger; the rest does not matter.
        attacker.stranger.send_to(&datagram, attacker.gateway).unwrap();
        *expected.entry("unknown_source").or_default() += 1;
    }
    let sent: u64 = expected.values().sum();
    let status = gateway.wait_until("everything was received", |s| s.udp.received == sent);
    assert!(status.is_balanced(), "{status:#?}");
    assert_eq!(status.drops(), expected);
    assert_eq!(status.udp.delivered, 0);
    for (host, device) in [(&world.client, "igw"), (&world.servers[0], "app-a")] {
        assert_eq!(host.links().statistics(device).unwrap().rx_packets, 0);
    }
    drop(attacker);

    // It works as before for those who behave.
    let _nva = world.start_appliances();
    let server = EchoServer::start(&world.servers[0], Family::V4);
    traffic::exchange(&traffic::datagrams(&world.client, server.address()), b"hello").unwrap();
    gateway.stop();
}
