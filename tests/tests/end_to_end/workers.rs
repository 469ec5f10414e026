//! Flows belong to one worker each. The kernel is told to which, where it can be told from a packet;
//! where it is not, what it gives to another one is handed over, and nothing is lost on the way.

use std::net::UdpSocket;
use std::num::NonZero;
use std::thread;

use geneve::flow::Stickiness;
use gwlb_tests::world::traffic::{self, EchoServer, Stream};
use gwlb_tests::world::{Gateway, LIMIT, Plan, World};
use netio::netns::skip_test;
use netio::tun::steering::Program;

use super::{FAMILIES, directions, world};

/// Connections at the same time, in each direction and family.
const CONNECTIONS: usize = 8;
/// Sockets that exchange datagrams at the same time, in each direction and family.
const SOCKETS: usize = 16;
/// Datagrams of a flow that nobody answers.
const DATAGRAMS: usize = 3;

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

#[test]
fn the_kernel_gives_packets_to_the_owners_of_their_flows() {
    steered("packets_to_the_owners", Plan { workers: 2, ..Plan::default() });
}

#[test]
fn the_kernel_gives_packets_to_one_of_three_owners() {
    steered("one_of_three_owners", Plan { workers: 3, ..Plan::default() });
}

#[test]
fn the_kernel_knows_flows_of_which_only_addresses_and_protocol_count() {
    let target_group = "stickiness = \"3-tuple\"";
    steered("addresses_and_protocol_count", Plan { workers: 2, target_group, ..Plan::default() });
}

#[test]
fn the_kernel_knows_flows_of_which_only_addresses_count() {
    let target_group = "stickiness = \"2-tuple\"";
    steered("only_addresses_count", Plan { workers: 2, target_group, ..Plan::default() });
}

#[test]
fn a_reload_changes_how_the_kernel_chooses() {
    let test = "a_reload_changes_how_the_kernel_chooses";
    let Some((world, mut gateway)) = steered_gateway(test, Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut before = 0;
    for (configuration, hands_over) in
        [(world.configuration(), false), (unsteered(&world), true), (world.configuration(), false)]
    {
        gateway.reload(&configuration).unwrap();
        // What was learnt from the flows before is of no use to the kernel now: these are others.
        send_datagrams(&world);
        let status = gateway.settled();
        status.assert_lossless();
        assert_eq!(status.tun.handed_over > before, hands_over, "{status:#?}");
        before = status.tun.handed_over;
    }
    gateway.stop();
}

/// A gateway that may tell the kernel how to choose queues; or `None`, after saying that the test is
/// skipped.
fn steered_gateway(test: &str, plan: Plan) -> Option<(World, Gateway)> {
    let any = NonZero::new(2)?;
    if let Err(error) = Program::load(&[0; 16], Stickiness::FiveTuple, any) {
        skip_test(test, error);
        return None;
    }
    let world = world(test, plan)?;
    let gateway = world.start_gateway();
    Some((world, gateway))
}

/// Flows of all kinds, and none of their packets is for another worker than the one that reads it.
fn steered(test: &str, plan: Plan) {
    let Some((world, mut gateway)) = steered_gateway(test, plan) else { return };
    let _nva = world.start_appliances();
    send_datagrams(&world);
    exchange_datagrams(&world);
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            let streams = (0..CONNECTIONS).map(|_| Stream::of(from, to, family, 256 << 10));
            for stream in streams.collect::<Vec<_>>() {
                stream.finish();
            }
        }
    }
    let status = gateway.settled();
    status.assert_lossless();
    let sent = 4 * (DATAGRAMS * SOCKETS) as u64;
    assert!(status.tun.received > sent, "{status:#?}");
    assert_eq!(status.tun.handed_over, 0, "of {}", status.tun.received);
    gateway.stop();
}

/// Datagrams that nobody answers, of many flows in turn.
fn send_datagrams(world: &World) {
    for family in FAMILIES {
        for (from, to) in directions(world) {
            let sink = to.run(|| UdpSocket::bind((to.address(family), 0))).unwrap();
            let to = sink.local_addr().unwrap();
            let sockets: Vec<_> = (0..SOCKETS).map(|_| traffic::datagrams(from, to)).collect();
            for _ in 0..DATAGRAMS {
                for socket in &sockets {
                    socket.send(b"anybody there?").unwrap();
                }
            }
            // Who lets go of the port too early has somebody answer after all.
            sink.set_read_timeout(Some(LIMIT)).unwrap();
            for _ in 0..DATAGRAMS * SOCKETS {
                sink.recv(&mut []).unwrap();
            }
        }
    }
}

fn many_flows(test: &str, plan: Plan) {
    let workers = plan.workers;
    let Some(world) = world(test, plan) else { return };
    let [nva] = world.start_appliances().try_into().unwrap();
    let mut gateway = world.start_gateway_with(&unsteered(&world));
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

/// The configuration, with a second load balancer for which less of a flow counts: whose flow a
/// packet is of does not tell its owner then, and the kernel chooses queues as it likes.
fn unsteered(world: &World) -> String {
    let second = format!(
        "[[load_balancer]]\nname = \"second\"\ntarget_group = \"second\"\nnetns = \"{}\"\n\
         nodes = [{{ zone = \"az1\", address = \"127.0.0.1\" }}]\n\n\
         [[target_group]]\nname = \"second\"\ndialect = \"aws\"\nstickiness = \"2-tuple\"\n\n",
        world.gateway.reference()
    );
    let first = "[[load_balancer]]\n";
    world.configuration_with(&[(first, &(second + first))])
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
