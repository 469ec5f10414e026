//! Hosts on the underlay that mean harm, and appliances that cannot be trusted.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use gwlb_tests::notice;
use gwlb_tests::world::impostor::Impostor;
use gwlb_tests::world::raw::Listener;
use gwlb_tests::world::rogue::{Genuine, Rogue, made_up, malformed, tap};
use gwlb_tests::world::site::UNDERLAY;
use gwlb_tests::world::status::Status;
use gwlb_tests::world::traffic::{self, EchoServer};
use gwlb_tests::world::{Family, Ordeal, Plan, World};

use super::{tell, world};

/// Datagrams that are sent before it is looked whether they have arrived: fewer than the queues on
/// the way hold.
const STEP: usize = 400;

/// Two appliances in one zone, and nobody probes them.
fn two() -> Plan {
    Plan { appliances: vec![0, 0], ..Plan::default() }
}

/// A packet of the internet that nobody has sent.
fn uninvited(world: &World, port: u16) -> Vec<u8> {
    let (client, server) = (&world.client, &world.servers[0]);
    made_up((client.address(Family::V4), port), (server.address(Family::V4), 4000))
}

/// Sends packets that must all be dropped, a few at a time, and counts what for.
struct Counted {
    rogue: Rogue,
    expected: BTreeMap<&'static str, u64>,
}

impl Counted {
    fn send(&mut self, ordeal: &Ordeal, reason: &'static str, packets: &[Vec<u8>]) {
        for step in packets.chunks(STEP) {
            let count = self.expected.entry(reason).or_default();
            *count += step.len() as u64;
            let goal = *count;
            self.rogue.send(step).unwrap();
            ordeal.gateway.wait_until("it was dropped by name", |status| {
                status.udp.drops.get(reason).is_some_and(|&dropped| dropped >= goal)
            });
        }
    }
}

#[test]
fn malformed_geneve_at_line_rate_is_dropped_by_name_and_harms_no_connection() {
    let Some(world) = world("malformed_geneve_at_line_rate", two()) else { return };
    let mut ordeal = Ordeal::begin(world);
    ordeal.open_streams(1);
    let rogue = Rogue::new(&ordeal.world, 0);
    let wrong = malformed(&uninvited(&ordeal.world, 1000));
    let target = ordeal.world.plan.target(0);
    // Of both workers' ports.
    let packets: Vec<_> = (0..2_u16)
        .flat_map(|port| wrong.iter().map(move |(_, datagram)| (port, datagram)))
        .map(|(port, datagram)| rogue.packet((target, 61_000 + port).into(), datagram))
        .cycle()
        .take(20_000)
        .collect();
    let before = ordeal.gateway.process.resident();
    let (mut sent, mut took) = (0, Duration::ZERO);
    for _ in 0..10 {
        took += rogue.send(&packets).unwrap();
        sent += packets.len() as u64;
        ordeal.breathe();
    }
    let after = ordeal.gateway.process.resident();
    assert!(after < before + (8 << 20), "{before} bytes before, {after} after");
    let reasons: Vec<_> = wrong.iter().map(|(reason, _)| *reason).collect();
    // What was lost may have been of the connections, too; the kernel is asked every second.
    let links = ordeal.world.appliances[0].links();
    let lost =
        |status: &Status| status.io.kernel_drops + links.statistics(UNDERLAY).unwrap().tx_dropped;
    ordeal.gateway.wait_until("every datagram is accounted for", |status| {
        let by_name: u64 = status.udp.drops.values().sum();
        by_name <= sent && by_name + lost(status) >= sent
    });
    let lost = lost(&ordeal.gateway.status());
    let outcome = ordeal.end();
    let dropped = outcome.assert_only(&reasons);
    assert!(dropped > 0 && dropped <= sent, "{dropped} of {sent}: {:#?}", outcome.status);
    tell("malformed Geneve at line rate", &outcome);
    notice::say(&format!(
        "malformed Geneve at line rate: {sent} sent at {:.0} a second, {dropped} dropped by name, \
         {lost} datagrams of all kinds lost in the kernel's queues\n",
        sent as f64 / took.as_secs_f64(),
    ));
}

#[test]
fn what_is_no_targets_malformed_or_forged_is_dropped_for_what_it_is_to_the_last_packet() {
    let Some(world) = world("what_is_no_targets", two()) else { return };
    let mut ordeal = Ordeal::begin(world);
    let [first, second] = [0, 1].map(|number| tap(&ordeal.world, number));
    let server = EchoServer::start(&ordeal.world.servers[0], Family::V4);
    for _ in 0..32 {
        let socket = traffic::datagrams(&ordeal.world.client, server.address());
        traffic::exchange(&socket, b"what will they make of me?").unwrap();
    }
    let [first, second] = [first, second].map(Listener::take);
    // Echoes, of which there are two to each flow and both hold the same cookie.
    let echoes = |recorded: Vec<Genuine>| -> Vec<_> {
        let wanted = |it: &Genuine| it.inner.ends_with(b"what will they make of me?");
        recorded.into_iter().filter(wanted).take(6).collect()
    };
    let (first, second) = (echoes(first), echoes(second));
    ordeal.open_streams(1);
    assert!(first.len() > 2 && second.len() > 2, "{} and {}", first.len(), second.len());
    let (here, there) = (ordeal.world.plan.target(0), ordeal.world.plan.target(1));
    let stranger = ordeal.world.plan.stranger(0);
    let mut counted = Counted { rogue: Rogue::new(&ordeal.world, 0), expected: BTreeMap::new() };

    // Whatever it is, it is from nobody: from addresses of the underlay, of the hosts, of the whole
    // internet.
    let nobodies: Vec<IpAddr> = (0..200_u32)
        .map(|number| Ipv4Addr::from(0xc612_0000 + number * 331).into())
        .chain([stranger, ordeal.world.client.address(Family::V4)])
        .collect();
    for genuine in &first {
        let packet = |&from: &IpAddr| {
            counted.rogue.packet(SocketAddr::new(from, genuine.port), &genuine.datagram())
        };
        let packets: Vec<_> = nobodies.iter().map(packet).collect();
        counted.send(&ordeal, "unknown_source", &packets);
    }

    // Malformed, from a target's address.
    let wrong = malformed(&uninvited(&ordeal.world, 1000));
    for (reason, datagram) in &wrong {
        let packet = counted.rogue.packet(SocketAddr::new(here, 61_000), datagram);
        counted.send(&ordeal, reason, &vec![packet; 500]);
    }

    // Forged: cookies that were guessed, and each single bit of a genuine one turned.
    for (number, genuine) in first.iter().enumerate() {
        let from = SocketAddr::new(here, genuine.port);
        let mut packets: Vec<_> = (0..32)
            .map(|bit| counted.rogue.packet(from, &genuine.with_cookie(|it| it ^ (1 << bit))))
            .collect();
        packets.extend((1..500_u32).map(|guess| {
            let step = guess.wrapping_mul(0x9e37_79b1) ^ number as u32;
            counted.rogue.packet(from, &genuine.with_cookie(|it| it ^ step.max(1)))
        }));
        counted.send(&ordeal, "bad_cookie", &packets);
    }

    // Stolen: the genuine header of a flow around another packet, and of another appliance's flow.
    for genuine in &first {
        let from = SocketAddr::new(here, genuine.port);
        let packets: Vec<_> = (2000..2100)
            .map(|port| genuine.around(&uninvited(&ordeal.world, port)))
            .map(|datagram| counted.rogue.packet(from, &datagram))
            .collect();
        counted.send(&ordeal, "bad_cookie", &packets);
    }
    for genuine in &second {
        let from = SocketAddr::new(here, genuine.port);
        let packet = counted.rogue.packet(from, &genuine.datagram());
        counted.send(&ordeal, "bad_cookie", &vec![packet; 50]);
    }
    for genuine in &first {
        let from = SocketAddr::new(there, genuine.port);
        let packet = counted.rogue.packet(from, &genuine.datagram());
        counted.send(&ordeal, "bad_cookie", &vec![packet; 50]);
    }

    let expected = counted.expected;
    let sent: u64 = expected.values().sum();
    let outcome = ordeal.end();
    assert_eq!(outcome.status.drops(), expected, "{:#?}", outcome.status);
    assert_eq!(outcome.status.io.kernel_drops, 0);
    tell("strangers, malformed, forged and stolen", &outcome);
    notice::say(&format!("strangers, malformed, forged and stolen: {sent} sent, each by name\n"));
}

#[test]
fn a_replay_is_what_the_appliance_could_have_sent_itself_and_no_more() {
    let Some(world) = world("a_replay", two()) else { return };
    let mut ordeal = Ordeal::begin(world);
    let recording = tap(&ordeal.world, 0);
    let server = EchoServer::start(&ordeal.world.servers[0], Family::V4);
    for _ in 0..16 {
        let socket = traffic::datagrams(&ordeal.world.client, server.address());
        traffic::exchange(&socket, b"again and again").unwrap();
    }
    let recorded = recording.take();
    ordeal.open_streams(1);
    let rogue = Rogue::new(&ordeal.world, 0);
    let here = ordeal.world.plan.target(0);
    let port = server.address().port();
    drop(server);
    // Towards the server only, and nobody is there any more: an answer would be an echo of its own.
    let question = |it: &&Genuine| {
        it.inner.ends_with(b"again and again") && it.inner[22..24] == port.to_be_bytes()
    };
    let replayed: Vec<_> = recorded
        .iter()
        .filter(question)
        .map(|it| rogue.packet(SocketAddr::new(here, it.port), &it.datagram()))
        .collect();
    assert!(!replayed.is_empty(), "{} recorded", recorded.len());
    let before = ordeal.gateway.status().targets[0].clone();
    let mut sent = 0;
    for _ in 0..100 {
        rogue.send(&replayed).unwrap();
        sent += replayed.len() as u64;
    }
    ordeal.breathe();
    let outcome = ordeal.end();
    outcome.assert_drops([]);
    // They were accepted, as the appliance's own would be, and the books say so: it seems to have
    // returned so many more than it denied.
    let after = &outcome.status.targets[0];
    assert!(after.returned_packets >= before.returned_packets + sent, "{:#?}", outcome.status);
    tell("replayed", &outcome);
    notice::say(&format!("replayed: {sent} of {} datagrams, accepted\n", replayed.len()));
}

#[test]
fn an_appliance_that_answers_with_other_peoples_flows_delivers_none_of_it() {
    let Some(world) = world("an_appliance_that_answers_for_others", two()) else { return };
    let mut ordeal = Ordeal::begin_with(world, &[], |number| number == 0);
    let addresses = [Family::V4, Family::V6].map(|family| {
        (ordeal.world.client.address(family), ordeal.world.servers[0].address(family))
    });
    let impostor = Impostor::start(
        &ordeal.world,
        1,
        Box::new(move |genuine| {
            // With its own flow's header, packets of flows that are others': in both directions, of
            // flows that are there and of such that are not; and its own with a cookie bit turned.
            let (client, server) = addresses[usize::from(genuine.inner[0] >> 4 == 6)];
            vec![
                genuine.around(&made_up((client, 2000), (server, 4000))),
                genuine.around(&made_up((server, 4000), (client, 2000))),
                genuine.with_cookie(|cookie| cookie ^ 1),
            ]
        }),
    );
    ordeal.open_streams(2);
    for _ in 0..3 {
        ordeal.breathe();
        ordeal.sing();
    }
    assert!(impostor.honest() > 0, "no flow was placed on it");
    let outcome = ordeal.end();
    let wrong = outcome.assert_only(&["bad_cookie"]);
    assert_eq!(wrong, impostor.besides(), "{:#?}", outcome.status);
    let impostor_target = &outcome.status.targets[1];
    assert_eq!(impostor_target.returned_packets, impostor.honest(), "{:#?}", outcome.status);
    tell("an appliance that answers with other people's flows", &outcome);
    let besides = impostor.besides();
    notice::say(&format!(
        "an appliance that answers with other people's flows: {besides} of them, each bad_cookie\n"
    ));
}
