//! Public addresses of an internet gateway: the internet sees them, the server has others, and
//! everything that speaks of one speaks of the other behind the gateway.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use gwlb_tests::world::traffic::{self, EchoServer, Stream};
use gwlb_tests::world::{Family, Gateway, LIMIT, Plan, World, wait_until};

use super::world;

/// By which the internet knows the first server.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);

fn start(world: &World) -> Gateway {
    let private = world.servers[0].address(Family::V4);
    let igw = "[[internet_gateway]]\n";
    let mapping = format!("addresses = [{{ public = \"{PUBLIC}\", private = \"{private}\" }}]\n");
    world.start_gateway_with(&world.configuration_with(&[(igw, &(igw.to_owned() + &mapping))]))
}

#[test]
fn a_server_is_reached_by_its_public_address_and_seen_by_it() {
    let Some(world) = world("a_public_address", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = start(&world);
    let (client, server) = (&world.client, &world.servers[0]);

    Stream::by_address(client, server, PUBLIC.into(), 8 << 20).finish();
    traffic::transfer(server, client, Family::V4, 8 << 20);
    traffic::transfer(client, server, Family::V6, 1 << 20);
    traffic::ping(client, PUBLIC.into(), 1000).unwrap();
    let echo = EchoServer::start(server, Family::V4);
    let socket = traffic::datagrams(client, (PUBLIC, echo.address().port()).into());
    for length in [0, 1, 1000, 20_000] {
        traffic::exchange(&socket, &vec![7; length]).unwrap();
    }
    gateway.settled().assert_lossless();

    let listener = traffic::listen(client, Family::V4, 0);
    let stream = traffic::connect(server, listener.local_addr().unwrap(), LIMIT).unwrap();
    let (_, seen) = listener.accept().unwrap();
    assert_eq!(seen.ip(), IpAddr::from(PUBLIC));
    assert_eq!(stream.local_addr().unwrap().ip(), server.address(Family::V4));

    let listener = traffic::listen(server, Family::V4, 0);
    let to = SocketAddr::new(PUBLIC.into(), listener.local_addr().unwrap().port());
    let _stream = traffic::connect(client, to, LIMIT).unwrap();
    let (accepted, seen) = listener.accept().unwrap();
    assert_eq!(seen.ip(), client.address(Family::V4));
    assert_eq!(accepted.local_addr().unwrap().ip(), server.address(Family::V4));
    gateway.stop();
}

#[test]
fn errors_speak_of_the_address_that_their_reader_knows() {
    let plan = Plan { underlay_mtu: 1500, ..Plan::default() };
    let Some(world) = world("errors_speak_of_the_address", plan) else { return };
    let _nva = world.start_appliances();
    let mut gateway = start(&world);
    let (client, server) = (&world.client, &world.servers[0]);

    // Nobody listens: the server says so about its own address.
    let unused = server.run(|| UdpSocket::bind((server.address(Family::V4), 0))).unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    let socket = traffic::datagrams(client, (PUBLIC, port).into());
    let refused = traffic::exchange(&socket, b"anybody there?").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    let refused = traffic::connect(client, (PUBLIC, port).into(), LIMIT).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");

    // And the gateway says what fits to the client about the public one, to the server about its
    // own.
    let transfer = Stream::by_address(client, server, PUBLIC.into(), 4 << 20).finish();
    assert!(transfer.mss < 1400, "{transfer:?}");
    let echo = EchoServer::start(client, Family::V4);
    let socket = traffic::datagrams(server, echo.address());
    socket.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    wait_until("a long datagram comes back", || traffic::exchange(&socket, &[7; 1472]).is_ok());
    let status = gateway.settled();
    assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");
    gateway.stop();
}
