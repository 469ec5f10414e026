//! Two zones, each with an endpoint, a node and targets of its own.

use gwlb_tests::world::traffic::{self, EchoServer};
use gwlb_tests::world::{Host, Plan};

use super::{FAMILIES, world};

/// Flows in each direction and family.
const FLOWS: usize = 12;

/// Each flow sends this often, and is answered as often.
const EXCHANGES: usize = 2;

fn exchange(from: &Host, to: &Host) {
    for family in FAMILIES {
        let server = EchoServer::start(to, family);
        // All open at the same time, so that no two of them have the same port.
        let sockets: Vec<_> =
            (0..FLOWS).map(|_| traffic::datagrams(from, server.address())).collect();
        for socket in sockets.iter().cycle().take(FLOWS * EXCHANGES) {
            traffic::exchange(socket, b"hello").unwrap();
        }
    }
}

#[test]
fn each_endpoint_uses_the_targets_of_its_zone_and_a_flow_stays_on_one() {
    let plan = Plan { zones: 2, appliances: vec![0, 0, 1, 1], ..Plan::default() };
    let Some(world) = world("two_zones", plan) else { return };
    let appliances = world.start_appliances();
    let mut gateway = world.start_gateway();
    let (client, [app_a, app_b]) = (&world.client, &world.servers[..]) else { unreachable!() };

    let flows = (4 * FLOWS) as u64;
    for (server, inside, outside) in [(app_a, 0..2, 2..4), (app_b, 2..4, 0..2)] {
        let before = gateway.settled();
        exchange(client, server);
        exchange(server, client);
        let after = gateway.settled();
        let new = |target: usize| {
            let (now, then) = (&after.targets[target], &before.targets[target]);
            (now.new_flows - then.new_flows, now.sent_packets - then.sent_packets)
        };
        assert!(outside.clone().all(|target| new(target) == (0, 0)), "{after:#?}");
        assert_eq!(inside.clone().map(|target| new(target).0).sum::<u64>(), flows);
        // That one of two gets none of 48 flows is a matter of 1 in 2 to the power of 47.
        assert!(inside.clone().all(|target| new(target).0 > 0), "{after:#?}");
    }
    gateway.settled().assert_lossless();
    for (appliance, target) in appliances.iter().zip(&gateway.settled().targets) {
        let report = appliance.report();
        assert_eq!(report.flows, target.new_flows);
        assert_eq!(report.flows_both_directions, report.flows, "{report:?}");
        assert_eq!(report.packets, report.flows * 2 * EXCHANGES as u64);
    }
    gateway.stop();
}

#[test]
fn what_stays_inside_of_the_vpc_is_not_inspected() {
    let plan = Plan { zones: 2, appliances: vec![0, 1], ..Plan::default() };
    let Some(world) = world("inside_of_the_vpc", plan) else { return };
    let _appliances = world.start_appliances();
    let mut gateway = world.start_gateway();
    let transfer = traffic::transfer(&world.servers[0], &world.servers[1], FAMILIES[0], 4 << 20);
    exchange(&world.servers[1], &world.servers[0]);
    let status = gateway.settled();
    assert!(status.tun.delivered > transfer.bytes / 1500, "{status:#?}");
    assert_eq!(status.tun.delivered, status.tun.received, "{status:#?}");
    assert_eq!((status.tun.encapsulated, status.udp.received), (0, 0), "{status:#?}");
    gateway.stop();
}
