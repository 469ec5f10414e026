//! What a gateway is for: packets of every kind go through the appliance and arrive, both ways,
//! both families, and every one of them is accounted for.

use gwlb_tests::world::traffic::{self, EchoServer, LENGTHS};
use gwlb_tests::world::{Family, Plan};

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
            println!(
                "{family:?}: {:.2} Gbit/s, {packets} packets, {per_packet:.3} syscalls/packet",
                transfer.gigabits_per_second(),
            );
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
    datagrams_and_pings("datagrams_and_pings", Family::V4);
}

#[test]
fn an_underlay_of_ipv6_carries_the_same() {
    datagrams_and_pings("an_underlay_of_ipv6", Family::V6);
}

fn datagrams_and_pings(test: &str, underlay: Family) {
    let Some(world) = world(test, Plan { underlay, ..Plan::default() }) else { return };
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
                traffic::ping(from, to, family, length - 1).unwrap();
                sent += 4;
            }
        }
    }
    let status = gateway.settled();
    status.assert_lossless();
    assert_eq!(status.tun.received, sent, "requests and answers, and nothing else");
    gateway.stop();
}
