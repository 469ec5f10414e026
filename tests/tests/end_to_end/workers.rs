//! Flows belong to one worker each, and the kernel does not know to which: what it gives to another
//! is handed over, and nothing is lost on the way.

use std::thread;

use gwlb_tests::world::traffic::{self, EchoServer, Stream};
use gwlb_tests::world::{Plan, World};

use super::{FAMILIES, directions, world};

/// Connections at the same time, in each direction and family.
const CONNECTIONS: usize = 8;
/// Sockets that exchange datagrams at the same time, in each direction and family.
const SOCKETS: usize = 16;

#[test]
fn one_worker_hands_nothing_over() {
    many_flows("one_worker", Plan { workers: 1, ..Plan::default() });
}

#[test]
fn two_workers_lose_nothing_that_they_hand_over() {
    many_flows("two_workers", Plan { workers: 2, ..Plan::default() });
}

#[test]
fn three_workers_lose_nothing_that_they_hand_over() {
    many_flows("three_workers", Plan { workers: 3, ..Plan::default() });
}

#[test]
fn workers_without_offload_lose_nothing_that_they_hand_over() {
    let plan = Plan { workers: 3, attachment: "offload = false", ..Plan::default() };
    many_flows("workers_without_offload", plan);
}

fn many_flows(test: &str, plan: Plan) {
    let workers = plan.workers;
    let Some(world) = world(test, plan) else { return };
    let [nva] = world.start_appliances().try_into().unwrap();
    let mut gateway = world.start_gateway();
    for host in [&world.client, &world.servers[0]] {
        host.limit_window((4 << 20) / (4 * CONNECTIONS) as u32);
    }
    thread::scope(|scope| {
        scope.spawn(|| exchange_datagrams(&world));
        let streams: Vec<_> = (0..CONNECTIONS)
            .flat_map(|_| FAMILIES)
            .flat_map(|family| {
                directions(&world).map(|(from, to)| Stream::of(from, to, family, 1 << 20))
            })
            .collect();
        for stream in streams {
            stream.finish();
        }
    });
    let status = gateway.settled();
    status.assert_lossless();
    let flows = 4 * (CONNECTIONS + SOCKETS) as u64;
    assert_eq!(status.workers, workers);
    assert_eq!(status.flows.created, flows);
    assert_eq!(status.targets[0].new_flows, flows);
    println!(
        "{workers} workers: {} of {} packets handed over",
        status.tun.handed_over, status.tun.received
    );
    // That no flow begins at its owner by chance has a probability of 1 in 2 to the power of 96.
    assert_eq!(status.tun.handed_over > 0, workers > 1);
    let report = nva.report();
    assert_eq!((report.flows, report.flows_both_directions), (flows, flows));
    gateway.stop();
}

fn exchange_datagrams(world: &World) {
    for family in FAMILIES {
        for (from, to) in directions(world) {
            let server = EchoServer::start(to, family);
            let sockets: Vec<_> =
                (0..SOCKETS).map(|_| traffic::datagrams(from, server.address())).collect();
            for payload in ["one", "two", "three"] {
                for socket in &sockets {
                    traffic::exchange(socket, payload.as_bytes()).unwrap();
                }
            }
        }
    }
}
