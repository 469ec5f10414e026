//! Ways that few packets take: they wait for another, go through two endpoints, are made by the
//! gateway itself, or are no packets.

use std::io::{ErrorKind, Read};

use gwlb_tests::packets::{Ip, fragments};
use gwlb_tests::world::raw::RawSender;
use gwlb_tests::world::traffic::{self, EchoServer};
use gwlb_tests::world::{Family, LIMIT, Plan};

use super::{FAMILIES, directions, world};

#[test]
fn fragments_wait_for_the_first_and_arrive_as_one() {
    let Some(world) = world("fragments_wait", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let (client, server) = (&world.client, &world.servers[0]);
    let echo = EchoServer::start(server, Family::V4);
    let socket = traffic::datagrams(client, echo.address());
    let ports = (socket.local_addr().unwrap().port(), echo.address().port());
    let between = Ip::between(client.address(Family::V4), server.address(Family::V4));
    let payload: Vec<u8> = (0..=255).cycle().take(4000).collect();
    let mut pieces = fragments(&between.udp(ports, &payload), 7, 1000);
    pieces.reverse();
    RawSender::new(client).send(&pieces).unwrap();
    let mut back = vec![0; 5000];
    let length = socket.recv(&mut back).unwrap();
    assert!(back[..length] == payload, "{length} bytes come back");
    let status = gateway.settled();
    status.assert_lossless();
    assert_eq!((status.tun.held, status.tun.released), (4, 4), "{status:#?}");
    gateway.stop();
}

#[test]
fn an_endpoint_behind_an_endpoint_inspects_again() {
    let Some(world) = world("an_endpoint_behind", Plan::default()) else { return };
    let nva = world.start_appliances();
    let before = "[[endpoint_service]]";
    let second = "[[subnet]]\nname = \"second\"\nvpc = \"app\"\nzone = \"az1\"\n\
                  cidrs = [\"10.0.110.0/28\", \"fd00:10:0:110::/64\"]\nroute_table = \"second\"\n\n\
                  [[route_table]]\nname = \"second\"\nvpc = \"app\"\nroutes = [\n\
                  { destination = \"0.0.0.0/0\", internet_gateway = \"igw\" },\n\
                  { destination = \"::/0\", internet_gateway = \"igw\" },\n\
                  { destination = \"10.0.1.0/24\", endpoint = \"vpce-a\" },\n\
                  { destination = \"fd00:10:0:1::/64\", endpoint = \"vpce-a\" },\n]\n\n\
                  [[endpoint]]\nname = \"vpce-second\"\nsubnet = \"second\"\n\
                  service = \"inspection\"\n\n";
    // From the first endpoint on and from the internet, the second comes next.
    let [v4, v6] = ["10.0.1.0/24", "fd00:10:0:1::/64"];
    let inward =
        |cidr: &str, to: &str| format!("  {{ destination = \"{cidr}\", endpoint = \"{to}\" }},\n");
    let changes = [
        (inward(v4, "vpce-a"), inward(v4, "vpce-second")),
        (inward(v6, "vpce-a"), inward(v6, "vpce-second")),
        ("internet_gateway = \"igw\" },".to_owned(), "endpoint = \"vpce-second\" },".to_owned()),
        (before.to_owned(), second.to_owned() + before),
    ];
    let changes: Vec<_> = changes.iter().map(|(from, to)| (&**from, &**to)).collect();
    let mut gateway = world.start_gateway_with(&world.configuration_with(&changes));
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            traffic::transfer(from, to, family, 1 << 20);
        }
    }
    let status = gateway.settled();
    assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");
    let once = status.tun.received;
    let twice = (status.tun.encapsulated, status.udp.encapsulated, status.udp.delivered);
    assert_eq!(twice, (once, once, once), "each packet goes on to the second: {status:#?}");
    assert_eq!(nva[0].report().packets, 2 * once);
    gateway.stop();
}

#[test]
fn both_ends_are_reset_without_another_packet() {
    let target_group = "deregistration_delay_seconds = 0\n\
                        send_tcp_reset = { on_deregistration = true, both_ends = true }";
    let plan = Plan { target_group, ..Plan::default() };
    let Some(world) = world("both_ends_are_reset", plan) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let (client, server) = (&world.client, &world.servers[0]);
    let mut ends = Vec::new();
    for family in FAMILIES {
        let listener = traffic::listen(server, family, 0);
        let stream = traffic::connect(client, listener.local_addr().unwrap(), LIMIT).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_read_timeout(Some(LIMIT)).unwrap();
        ends.extend([stream, accepted]);
    }
    gateway.settled().assert_lossless();
    let target = format!(
        "[[target]]\ngroup = \"fw\"\naddress = \"{}\"\nzone = \"az1\"\n",
        world.plan.target(0)
    );
    gateway.reload(&world.configuration_with(&[(&target, "")])).unwrap();
    for mut end in ends {
        let error = end.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let status = gateway.settled();
    assert_eq!((status.tun.generated, status.flows.reset), (4, 2), "{status:#?}");
    gateway.stop();
}

#[test]
fn what_is_no_packet_is_counted_and_harms_nobody() {
    let Some(world) = world("what_is_no_packet", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let (client, server) = (&world.client, &world.servers[0]);
    let between = Ip::between(client.address(Family::V4), server.address(Family::V4));
    // A TCP header of which four bytes are there.
    let stump = between.protocol(6, &[0; 4]);
    RawSender::new(client).send(&vec![stump; 100]).unwrap();
    traffic::transfer(client, server, Family::V4, 1 << 20);
    let status = gateway.settled();
    assert!(status.is_balanced(), "{status:#?}");
    assert_eq!(status.drops().into_iter().collect::<Vec<_>>(), [("malformed_packet", 100)]);
    gateway.stop();
}
