//! What a gateway is for: packets of every kind go through the appliance and arrive, both ways,
//! both families, and every one of them is accounted for.

use std::io::IoSlice;
use std::net::SocketAddr;

use gwlb_tests::notice;
use gwlb_tests::world::traffic::{self, EchoServer, LENGTHS, Stream};
use gwlb_tests::world::{Family, Host, LIMIT, Plan};
use netio::poll::Poller;
use netio::udp::{Datagram, UdpConfig, UdpSocket};
use netio::{Device as _, Slot};

use super::{FAMILIES, directions, world};

#[test]
fn bulk_data_arrives_as_it_was_sent_and_is_carried_in_super_packets() {
    let Some(world) = world("bulk_data_arrives", Plan::default()) else { return };
    let [nva] = world.start_appliances().try_into().unwrap();
    let mut gateway = world.start_gateway();
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            let before = gateway.settled();
            let transfer = traffic::transfer(from, to, family, 64 << 20);
            let after = gateway.settled();
            after.assert_lossless();
            let packets = after.tun.received - before.tun.received;
            let syscalls = after.io.syscalls - before.io.syscalls;
            // Each packet enters twice: from the network, and from the appliance.
            let per_packet = syscalls as f64 / (2 * packets) as f64;
            notice::say(&format!(
                "{family:?}: {:.2} Gbit/s, {packets} packets, {per_packet:.3} syscalls/packet\n",
                transfer.gigabits_per_second(),
            ));
            // 64 MiB, in segments.
            assert!(packets >= transfer.bytes / u64::from(transfer.mss), "{packets}");
            assert!(per_packet < 0.5, "{per_packet}: packets are not carried together");
        }
    }
    let (status, report) = (gateway.settled(), nva.report());
    assert_eq!(report.packets, status.tun.encapsulated);
    assert_eq!(report.returned_packets, status.udp.received);
    assert_eq!(report.bytes, status.targets[0].sent_bytes);
    assert_eq!((report.flows, report.flows_both_directions), (4, 4));
    assert!(report.drops.is_empty(), "{report:?}");
    gateway.stop();
}

#[test]
fn datagrams_and_pings_of_every_length_come_back() {
    datagrams_and_pings("datagrams_and_pings", Plan::default());
}

#[test]
fn an_underlay_of_ipv6_carries_the_same() {
    let plan = Plan { underlay: Family::V6, ..Plan::default() };
    datagrams_and_pings("an_underlay_of_ipv6", plan);
}

#[test]
fn devices_without_offload_carry_the_same() {
    let plan = Plan { workers: 1, attachment: "offload = false", ..Plan::default() };
    datagrams_and_pings("devices_without_offload", plan);
}

fn datagrams_and_pings(test: &str, plan: Plan) {
    let Some(world) = world(test, plan) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let mut sent = 0;
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            let server = EchoServer::start(to, family);
            let socket = traffic::datagrams(from, server.address());
            for length in LENGTHS {
                let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
                traffic::exchange(&socket, &payload).unwrap();
                traffic::ping(from, to.address(family), length - 1).unwrap();
                sent += 4;
            }
        }
    }
    let status = gateway.settled();
    status.assert_lossless();
    assert_eq!(status.tun.received, sent, "requests and answers, and nothing else");
    gateway.stop();
}

#[test]
fn datagrams_in_fragments_arrive_whole() {
    let Some(world) = world("datagrams_in_fragments", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            let server = EchoServer::start(to, family);
            let socket = traffic::datagrams(from, server.address());
            for length in [1500, 3000, 20_000, 60_000] {
                let payload: Vec<u8> = (0..length).map(|byte| (byte / 7) as u8).collect();
                traffic::exchange(&socket, &payload).unwrap();
                traffic::ping(from, to.address(family), length).unwrap();
            }
        }
    }
    gateway.settled().assert_lossless();
    gateway.stop();
}

#[test]
fn datagrams_that_were_sent_in_batches_arrive_one_by_one() {
    datagrams_in_batches("datagrams_in_batches", Plan::default());
}

#[test]
fn devices_without_offload_have_batches_cut_before() {
    let plan = Plan { attachment: "offload = false", ..Plan::default() };
    datagrams_in_batches("batches_without_offload", plan);
}

fn datagrams_in_batches(test: &str, plan: Plan) {
    const SIZE: usize = 1200;
    const BATCH: usize = 40;
    const BATCHES: usize = 50;
    let Some(world) = world(test, plan) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            let socket = |host: &Host| {
                let config = UdpConfig {
                    bind: SocketAddr::new(host.address(family), 0),
                    reuse_port: false,
                    gro: false,
                    dont_fragment: false,
                    recv_buffer: 1 << 20,
                    send_buffer: 0,
                };
                host.run(|| UdpSocket::bind(&config)).unwrap()
            };
            let (mut sender, receiver) = (socket(from), socket(to));
            let meta = Datagram {
                peer: receiver.local_addr(),
                segment_size: SIZE as u16,
                ..Datagram::default()
            };
            let mut arriving = Datagrams::new(receiver);
            for batch in 0..BATCHES {
                let sent: Vec<u8> = (0..BATCH * SIZE).map(|byte| (byte + batch) as u8).collect();
                sender.send(&meta, &[IoSlice::new(&sent)]).unwrap();
                for datagram in sent.chunks(SIZE) {
                    assert_eq!(arriving.next(), datagram);
                }
            }
        }
    }
    let status = gateway.settled();
    status.assert_lossless();
    assert_eq!(status.tun.received, (4 * BATCH * BATCHES) as u64);
    println!("{:.3} syscalls/packet", status.syscalls_per_packet());
    gateway.stop();
}

/// The datagrams that a socket receives, waited for one by one.
struct Datagrams {
    socket: UdpSocket,
    poller: Poller,
    slot: [Slot<Datagram>; 1],
}

impl Datagrams {
    fn new(socket: UdpSocket) -> Self {
        let poller = Poller::new().unwrap();
        poller.add(&socket, 0).unwrap();
        Self { socket, poller, slot: [Slot::with_capacity(65_536)] }
    }

    fn next(&mut self) -> &[u8] {
        let mut ready = Vec::new();
        while self.socket.recv(&mut self.slot).unwrap() == 0 {
            self.poller.wait(&mut ready, Some(LIMIT)).unwrap();
            assert!(!ready.is_empty(), "a datagram does not arrive");
        }
        self.slot[0].packet.bytes()
    }
}

#[test]
fn one_byte_that_an_appliance_changes_is_noticed() {
    let Some(world) = world("one_byte_that_changes", Plan::default()) else { return };
    let _nva = world.start_appliance(0, &["passthrough", "--fault", "rewrite"]);
    let mut gateway = world.start_gateway();
    let stream = Stream::of(&world.client, &world.servers[0], Family::V4, 1 << 20);
    assert!(!stream.end().identical, "the other tests would not notice either");
    gateway.stop();
}
