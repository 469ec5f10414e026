//! An underlay that carries less than the hosts send: they are told, and what they send arrives.

use std::time::Duration;

use gwlb_tests::world::site::{UNDERLAY, cable};
use gwlb_tests::world::traffic::{self, EchoServer, Stream};
use gwlb_tests::world::{Family, Plan, wait_until};

use super::{FAMILIES, directions, world};

/// Ethernet.
const UNDERLAY_MTU: u32 = 1500;
/// Outer IPv4, UDP, and Geneve with the options of the AWS dialect.
const OVERHEAD: u32 = 68;
/// TCP with timestamps.
const TCP_HEADER: u32 = 32;

/// What a TCP segment carries when its sender knows what fits.
fn segment(family: Family) -> u32 {
    UNDERLAY_MTU - OVERHEAD - family.header_len() as u32 - TCP_HEADER
}

#[test]
fn a_tcp_sender_learns_what_fits_and_its_transfer_completes() {
    let plan = Plan { underlay_mtu: UNDERLAY_MTU, ..Plan::default() };
    let Some(world) = world("a_tcp_sender_learns", plan) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    for family in FAMILIES {
        let before = gateway.settled();
        for (from, to) in directions(&world) {
            let transfer = traffic::transfer(from, to, family, 8 << 20);
            assert_eq!(transfer.mss, segment(family), "{family:?}");
        }
        let after = gateway.settled();
        // The client is told; and what it knows, it tells the server when that connects.
        let told = after.tun.generated - before.tun.generated;
        let refused = after.tun.replied - before.tun.replied;
        assert!(told > 0 && refused >= told, "{after:#?}");
    }
    let status = gateway.settled();
    assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");
    assert_eq!(u32::from(status.targets[0].path_mtu), UNDERLAY_MTU);
    assert_eq!(status.targets[0].kept_packets, 0);
    assert_eq!(status.io.split_sends, 0, "nothing was sent that does not fit");
    gateway.stop();
}

#[test]
fn a_tcp_sender_that_permits_fragments_gets_them() {
    let plan = Plan { underlay_mtu: UNDERLAY_MTU, ..Plan::default() };
    let Some(world) = world("a_tcp_sender_that_permits", plan) else { return };
    for host in [&world.client, &world.servers[0]] {
        // "Don't fragment" is left out, and what routers say of a path is not believed.
        host.netns().set_sysctl("net.ipv4.ip_no_pmtu_disc", "1").unwrap();
    }
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    for (from, to) in directions(&world) {
        let before = gateway.settled();
        let transfer = traffic::transfer(from, to, Family::V4, 8 << 20);
        assert_eq!(transfer.mss, 1500 - 20 - TCP_HEADER, "full segments");
        let after = gateway.settled();
        // Each full segment became two; a few are not full.
        let segments = (8 << 20) / u64::from(transfer.mss);
        let made = after.tun.generated - before.tun.generated;
        assert!(made > segments * 9 / 10, "{made} of {segments}: {after:#?}");
        assert_eq!(after.tun.replied, before.tun.replied, "nobody was told anything");
    }
    let status = gateway.settled();
    assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");
    assert_eq!(status.targets[0].kept_packets, 0);
    gateway.stop();
}

#[test]
fn with_the_segment_size_clamped_everything_fits_from_the_beginning() {
    let load_balancer = "tcp_mss_clamp = true";
    let plan = Plan { underlay_mtu: UNDERLAY_MTU, load_balancer, ..Plan::default() };
    let Some(world) = world("with_the_segment_size_clamped", plan) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            let transfer = traffic::transfer(from, to, family, 8 << 20);
            assert_eq!(transfer.mss, segment(family), "{family:?}");
        }
    }
    let status = gateway.settled();
    assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");
    assert_eq!((status.tun.generated, status.tun.replied), (0, 0), "{status:#?}");
    gateway.stop();
}

#[test]
fn datagrams_that_do_not_fit_arrive_in_fragments() {
    let plan = Plan { underlay_mtu: UNDERLAY_MTU, ..Plan::default() };
    let Some(world) = world("datagrams_that_do_not_fit", plan) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            let server = EchoServer::start(to, family);
            let socket = traffic::datagrams(from, server.address());
            let length = 1500 - family.header_len() - 8;
            let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            // The first tells the client what fits; its answer tells the server.
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            wait_until("a datagram comes back", || traffic::exchange(&socket, &payload).is_ok());
        }
    }
    let status = gateway.settled();
    assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");
    assert!(status.tun.generated >= 4, "{status:#?}");
    gateway.stop();
}

#[test]
fn an_underlay_that_shrinks_is_noticed_and_nothing_stalls() {
    let Some(world) = world("an_underlay_that_shrinks", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let streams: Vec<_> = FAMILIES
        .into_iter()
        .flat_map(|family| {
            directions(&world).map(|(from, to)| (family, Stream::start(from, to, family)))
        })
        .collect();
    for (_, stream) in &streams {
        stream.wait_for_more(1 << 20);
    }
    assert_eq!(gateway.status().targets[0].path_mtu, 9000);
    world.appliances[0].links().set_mtu(UNDERLAY, UNDERLAY_MTU).unwrap();
    world.gateway.links().set_mtu(&cable(0), UNDERLAY_MTU).unwrap();
    let status = gateway.wait_until("the gateway measures the path again", |status| {
        u32::from(status.targets[0].path_mtu) == UNDERLAY_MTU
    });
    assert!(status.io.split_sends > 0, "{status:#?}");
    for (family, stream) in streams {
        stream.wait_for_more(1 << 20);
        assert_eq!(stream.finish().mss, segment(family));
    }
    let status = gateway.settled();
    // What did not fit in batches was sent singly, and came back, but for what was on the cable when
    // it shrank.
    assert!(status.targets[0].kept_packets < status.io.split_sends, "{status:#?}");
    // How often it tells is limited; what it does not tell about is dropped, and sent again.
    let others = status.drops().into_keys().find(|&reason| reason != "exceeds_mtu");
    assert!(status.is_balanced() && others.is_none(), "{status:#?}");
    gateway.stop();
}
