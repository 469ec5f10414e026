//! What is accepted on the way back and what is not, and that what came before makes no difference.

use etherparse::PacketBuilder;
use proptest::prelude::*;
use router::Attachment;

use super::super::testing::{CLIENT, GATEWAY, Plane, SERVER, ack, echo, syn, udp};
use super::super::verdict::Returned;
use super::*;

fn accepted(verdict: ReturnVerdict) -> Returned {
    match verdict {
        ReturnVerdict::Accept(returned) => returned,
        ReturnVerdict::Drop(reason) => panic!("{reason}"),
    }
}

#[test]
fn what_was_sent_comes_back_and_goes_on() {
    let mut plane = Plane::new("drop");
    let (igw, app) = (plane.igw, plane.app);
    let packet = syn(CLIENT, SERVER, (1000, 80));
    let (from, datagram) = echo(&plane.hop(igw, &packet), &packet);
    let returned = accepted(plane.returns.handle_datagram(from, GATEWAY, &datagram));
    assert!(matches!(returned.way, Way::Deliver(Attachment::Subnet(_))));
    assert_eq!(&datagram[returned.range], &packet);

    let packet = ack(SERVER, CLIENT, (80, 1000), b"answer");
    let (from, datagram) = echo(&plane.hop(app, &packet), &packet);
    let returned = accepted(plane.returns.handle_datagram(from, GATEWAY, &datagram));
    assert!(matches!(returned.way, Way::Deliver(Attachment::InternetGateway(_))));
}

#[test]
fn what_is_not_genuine_is_dropped_by_name() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let packet = udp(CLIENT, SERVER, (1000, 53), b"question");
    let hop = plane.hop(igw, &packet);
    let (from, genuine) = echo(&hop, &packet);
    let other_flow = echo(&hop, &udp(CLIENT, SERVER, (1001, 53), b"question")).1;
    let mutated = |byte: usize, value: u8| {
        let mut datagram = genuine.clone();
        datagram[byte] = value;
        datagram
    };
    let stranger = SocketAddr::from(([192, 0, 2, 99], 6081));
    let sibling_address = if from.ip() == IpAddr::from([192, 0, 2, 11]) { 12 } else { 11 };
    let sibling = SocketAddr::from(([192, 0, 2, sibling_address], 6081));
    let elsewhere = IpAddr::from([192, 0, 2, 2]);
    let cases = [
        (stranger, GATEWAY, genuine.clone(), DropReason::UnknownSource),
        (sibling, GATEWAY, genuine.clone(), DropReason::BadCookie),
        (from, elsewhere, genuine.clone(), DropReason::WrongGatewayAddress),
        (from, GATEWAY, other_flow, DropReason::BadCookie),
        (from, GATEWAY, mutated(0, 0x48), DropReason::GeneveVersion),
        (from, GATEWAY, mutated(0, 0x3f), DropReason::MalformedGeneve),
        (from, GATEWAY, mutated(1, 0x80), DropReason::GeneveControl),
        (from, GATEWAY, mutated(2, 0x86), DropReason::ProtocolType),
        (from, GATEWAY, mutated(8, 0x7f), DropReason::DialectOptions),
        (from, GATEWAY, mutated(19, 0xff), DropReason::UnknownEndpoint),
        (from, GATEWAY, mutated(39, genuine[39] ^ 1), DropReason::BadCookie),
        (from, GATEWAY, mutated(40, 0x50), DropReason::MalformedPacket),
    ];
    for (number, (from, local, datagram, expected)) in cases.into_iter().enumerate() {
        // After a genuine one, so that what was remembered of it cannot let a bad one pass.
        accepted(plane.returns.handle_datagram(echo(&hop, &packet).0, GATEWAY, &genuine));
        let verdict = plane.returns.handle_datagram(from, local, &datagram);
        assert_eq!(verdict, ReturnVerdict::Drop(expected), "case {number}");
    }
}

#[test]
fn an_unknown_critical_option_has_a_name_of_its_own() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let packet = udp(CLIENT, SERVER, (1000, 53), b"question");
    let hop = plane.hop(igw, &packet);
    let header = hop.header.as_bytes();
    for (kind, expected) in [(0x80, Some(DropReason::CriticalOption)), (0x00, None)] {
        let mut datagram = header.to_vec();
        datagram[0] += 1;
        datagram.extend_from_slice(&[0x12, 0x34, kind, 0]);
        datagram.extend_from_slice(&packet);
        let verdict = plane.returns.handle_datagram(hop.address, GATEWAY, &datagram);
        match expected {
            Some(reason) => assert_eq!(verdict, ReturnVerdict::Drop(reason)),
            None => drop(accepted(verdict)),
        }
    }
}

#[test]
fn cut_short_at_any_byte_it_is_dropped() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let packet = udp(CLIENT, SERVER, (1000, 53), b"question");
    let (from, datagram) = echo(&plane.hop(igw, &packet), &packet);
    for len in 0..datagram.len() {
        let verdict = plane.returns.handle_datagram(from, GATEWAY, &datagram[..len]);
        assert!(matches!(verdict, ReturnVerdict::Drop(_)), "{len} bytes: {verdict:?}");
    }
    let totals = plane.totals();
    assert_eq!(totals.udp.drops.values().sum::<u64>(), datagram.len() as u64);
}

#[test]
fn an_appliance_may_reject_a_packet_with_the_header_of_its_flow() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let [packet, other] = [1000, 1001].map(|port| udp(CLIENT, SERVER, (port, 53), b"question"));
    let hop = plane.hop(igw, &packet);
    let error = |about: &[u8]| {
        let inner = Inner::parse(about).unwrap();
        crate::dataplane::reply::packet_too_big(about, &inner, SERVER.into(), 1000).unwrap()
    };
    let (from, datagram) = echo(&hop, error(&packet).bytes());
    let returned = accepted(plane.returns.handle_datagram(from, GATEWAY, &datagram));
    assert!(matches!(returned.way, Way::Deliver(Attachment::InternetGateway(_))));

    let (from, datagram) = echo(&hop, error(&other).bytes());
    let verdict = plane.returns.handle_datagram(from, GATEWAY, &datagram);
    assert_eq!(verdict, ReturnVerdict::Drop(DropReason::BadCookie), "about another flow");
}

#[test]
fn an_appliance_may_reject_a_fragment() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let mut fragment = udp(CLIENT, SERVER, (1000, 53), &[0; 64]);
    fragment[6] = 0x20;
    let hop = plane.hop(igw, &fragment);
    let inner = Inner::parse(&fragment).unwrap();
    let error =
        crate::dataplane::reply::packet_too_big(&fragment, &inner, SERVER.into(), 1000).unwrap();
    let (from, datagram) = echo(&hop, error.bytes());
    accepted(plane.returns.handle_datagram(from, GATEWAY, &datagram));
}

#[test]
fn a_whole_packet_may_come_back_with_the_header_of_a_fragment() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let whole = udp(CLIENT, SERVER, (1000, 53), &[0; 64]);
    let mut fragment = whole.clone();
    fragment[6] = 0x20;
    let hop = plane.hop(igw, &fragment);
    let (from, datagram) = echo(&hop, &whole);
    accepted(plane.returns.handle_datagram(from, GATEWAY, &datagram));
}

#[test]
fn a_first_fragment_may_come_back_with_the_header_of_a_whole_packet() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let [whole, other] = [1000, 1001].map(|port| udp(CLIENT, SERVER, (port, 53), &[0; 64]));
    let hop = plane.hop(igw, &whole);
    let first = |whole: &[u8]| {
        let mut fragment = whole.to_vec();
        fragment[6] = 0x20;
        fragment
    };
    let (from, datagram) = echo(&hop, &first(&whole));
    accepted(plane.returns.handle_datagram(from, GATEWAY, &datagram));
    let (from, datagram) = echo(&hop, &first(&other));
    let verdict = plane.returns.handle_datagram(from, GATEWAY, &datagram);
    assert_eq!(verdict, ReturnVerdict::Drop(DropReason::BadCookie), "of another flow");
}

fn udp6(ports: (u16, u16)) -> Vec<u8> {
    let (client, server) = ([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], 0x11_u8);
    let mut destination = [0xfd, 0, 0, 0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    destination[15] = server;
    let builder = PacketBuilder::ipv6(client, destination, 64).udp(ports.0, ports.1);
    let mut packet = Vec::new();
    builder.write(&mut packet, b"question").unwrap();
    packet
}

/// Packets of several flows and kinds, each with who returns it and behind which header.
fn genuine(plane: &mut Plane) -> Vec<(SocketAddr, Vec<u8>, Vec<u8>)> {
    let (igw, app) = (plane.igw, plane.app);
    let question = |port| udp(CLIENT, SERVER, (port, 53), &[0; 64]);
    let mut fragment = question(1000);
    fragment[6] = 0x20;
    let mut later = question(1000);
    later[7] = 1;
    let error = {
        let about = question(1000);
        let inner = Inner::parse(&about).unwrap();
        crate::dataplane::reply::packet_too_big(&about, &inner, SERVER.into(), 1000).unwrap()
    };
    let packets = [
        (igw, syn(CLIENT, SERVER, (1000, 80))),
        (app, ack(SERVER, CLIENT, (80, 1000), b"answer")),
        (igw, question(1000)),
        (igw, question(1001)),
        (igw, fragment),
        (igw, later),
        (igw, udp6((1000, 53))),
        (igw, udp6((1001, 53))),
    ];
    let mut all: Vec<_> = packets
        .into_iter()
        .map(|(entry, packet)| {
            let hop = plane.hop(entry, &packet);
            (hop.address, hop.header.as_bytes().to_vec(), packet)
        })
        .collect();
    let (from, header, _) = all[2].clone();
    all.push((from, header, error.bytes().to_vec()));
    all
}

#[test]
fn all_that_is_genuine_is_accepted_in_any_order() {
    let mut plane = Plane::new("drop");
    let all = genuine(&mut plane);
    for (first, second) in (0..all.len()).flat_map(|a| (0..all.len()).map(move |b| (a, b))) {
        for (from, header, packet) in [&all[first], &all[second], &all[first], &all[first]] {
            let datagram = [&header[..], packet].concat();
            let returned = accepted(plane.returns.handle_datagram(*from, GATEWAY, &datagram));
            assert_eq!(&datagram[returned.range], packet);
            assert_eq!(returned.plain, Plain::read(packet));
        }
    }
}

proptest! {
    /// Whatever came before, and whatever was remembered of it, a datagram ends as it would at a
    /// gateway that has just started: headers and packets are mixed, damaged, cut and lengthened.
    /// Targets may share an address, as those of several groups can.
    #[test]
    fn what_is_remembered_makes_no_difference(
        shared: bool,
        steps in prop::collection::vec(
            (0..9_usize, 0..9_usize, 0..9_usize, 0..12_u8, 0..120_usize, 1..=255_u8), 1..60,
        ),
    ) {
        let mut plane = Plane::new("drop");
        let all = genuine(&mut plane);
        if shared {
            let mut snapshot = Snapshot::clone(&plane.snapshot);
            let slots: Vec<_> = snapshot.sources.values().flatten().copied().collect();
            prop_assert_eq!(slots.len(), 2);
            snapshot.sources.values_mut().for_each(|at| at.clone_from(&slots));
            plane.snapshot = Arc::new(snapshot);
            plane.returns.handle_snapshot(Arc::clone(&plane.snapshot));
        }
        let elsewhere = IpAddr::from([192, 0, 2, 2]);
        for (header, packet, source, change, at, value) in steps {
            // Mostly what belongs together.
            let (_, header, _) = &all[if change < 8 { packet } else { header }];
            let (from, _, _) = all[if change < 9 { packet } else { source }];
            let mut datagram = [&header[..], &all[packet].2].concat();
            let at = at % datagram.len();
            let mut local = GATEWAY;
            match change {
                0 | 8 => datagram[at] ^= value,
                1 => datagram.truncate(at),
                2 => datagram.extend(vec![value; at]),
                3 => local = elsewhere,
                _ => {}
            }
            let verdict = plane.returns.handle_datagram(from, local, &datagram);
            let mut started = Return::new(WorkerId(0), Arc::clone(&plane.snapshot), Arc::default());
            prop_assert_eq!(verdict, started.handle_datagram(from, local, &datagram));
        }
    }
}
