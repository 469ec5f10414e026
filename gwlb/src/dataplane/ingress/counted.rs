//! What endpoints count of the packets that come to them.

use std::time::Duration;

use geneve::inner::{Inner, TcpFlags};
use netio::offload::{Offload, PartialChecksum, Segmentation};

use super::super::testing::{CLIENT, GATEWAY, Plane, SERVER, ack, echo, syn, udp};
use super::*;
use crate::config::TrafficMode;
use crate::dataplane::reply;
use crate::dataplane::select::Candidates;
use crate::dataplane::snapshot::NoCandidate;
use crate::dataplane::stats::EndpointTotals;
use crate::dataplane::verdict::{ReturnVerdict, Verdict};

fn counted(plane: &Plane) -> EndpointTotals {
    plane.snapshot.endpoints[0].counters.totals()
}

/// Sends a packet as a worker does, by the short way if it goes that; says whether it did.
fn send(plane: &mut Plane, packet: &[u8], offload: &Offload) -> bool {
    let entrance = plane.ingress.entrance(plane.igw.into());
    let mut glances = Vec::new();
    entrance.glance_all(std::iter::once((packet, offload)), &mut glances);
    let Some(mut glance) = glances[0] else { panic!("it is an ordinary one") };
    plane.ingress.prefetch(&mut glance);
    if plane.shortcut(&glance).is_some() {
        return true;
    }
    let frame = Frame::parse(packet, offload).unwrap();
    let verdict = plane.ingress.handle_glanced(plane.igw.into(), &frame, Some(&glance), plane.now);
    assert!(matches!(verdict, Verdict::ToAppliance(_)), "{verdict:?}");
    false
}

#[test]
fn each_way_to_an_appliance_counts_the_same() {
    let mut plane = Plane::new("drop");
    let opening = syn(CLIENT, SERVER, (1000, 80));
    assert!(send(&mut plane, &opening, &Offload::NONE), "it begins by the short way");
    let mut expected = EndpointTotals { inspected_packets: 1, new_flows: 1, ..Default::default() };
    expected.inspected_bytes = opening.len() as u64;
    assert_eq!(counted(&plane), expected);

    let segment = ack(CLIENT, SERVER, (1000, 80), b"hello");
    for short in [false, true] {
        assert_eq!(send(&mut plane, &segment, &Offload::NONE), short);
        expected.inspected_packets += 1;
        expected.inspected_bytes += segment.len() as u64;
        assert_eq!(counted(&plane), expected);
    }

    // Three segments, the last of which is shorter: each has headers of its own.
    let super_packet = ack(CLIENT, SERVER, (1000, 80), &[7; 2500]);
    let offload = Offload {
        checksum: Some(PartialChecksum { start: 20, offset: 16 }),
        segment: Segmentation::Tcp { size: 1000, ecn: false },
        hdr_len: 40,
    };
    for long in [false, true] {
        if long {
            let frame = Frame::parse(&super_packet, &offload).unwrap();
            plane.ingress.handle_packet(plane.igw.into(), &frame, plane.now);
        } else {
            assert!(send(&mut plane, &super_packet, &offload));
        }
        expected.inspected_packets += 3;
        expected.inspected_bytes += 2500 + 3 * 40;
        assert_eq!(counted(&plane), expected, "by the long way: {long}");
    }

    plane.now += Duration::from_secs(400);
    plane.ingress.handle_timeout(plane.now);
    expected.ended_flows = 1;
    assert_eq!(counted(&plane), expected);
    assert_eq!(counted(&plane).active_flows(), 0);
}

#[test]
fn what_is_not_inspected_is_counted_by_what_became_of_it() {
    let mut plane = Plane::new("reset");
    let igw = plane.igw;
    let mut expected = EndpointTotals::default();
    // Nobody knows its flow.
    let late = ack(CLIENT, SERVER, (1, 80), b"late");
    assert!(matches!(plane.send(igw, &late), Verdict::Reply(_)));
    expected.answered_packets += 1;
    (expected.refused_flows, expected.refused_tcp_flows, expected.tcp_resets) = (1, 1, 1);
    assert_eq!(counted(&plane), expected);
    // It does not fit, and may not be fragmented: that is answered, and the flow is there.
    let mut long = udp(CLIENT, SERVER, (1, 2), &[0; 1433]);
    long[6] |= 0x40;
    assert!(matches!(plane.send(igw, &long), Verdict::Reply(_)));
    expected.answered_packets += 1;
    expected.new_flows += 1;
    assert_eq!(counted(&plane), expected);

    plane.change(|view| view.pools[0].traffic_mode = TrafficMode::Bypass);
    assert!(matches!(plane.send(igw, &udp(CLIENT, SERVER, (3, 4), b"")), Verdict::Bypass(_)));
    expected.bypassed_packets += 1;
    expected.new_flows += 1;
    assert_eq!(counted(&plane), expected);

    plane.change(|view| {
        view.pools[0].traffic_mode = TrafficMode::LoadBalance;
        view.pools[0].candidates = Candidates::default();
        view.pools[0].none = NoCandidate::Drop;
    });
    assert!(matches!(plane.send(igw, &udp(CLIENT, SERVER, (5, 6), b"")), Verdict::Drop(_)));
    expected.dropped_packets += 1;
    expected.refused_flows += 1;
    assert_eq!(counted(&plane), expected);
    assert_eq!(counted(&plane).received_packets(), 4);
}

#[test]
fn what_begins_no_flow_is_no_refused_one() {
    for mode in ["drop", "reset"] {
        let mut plane = Plane::new(mode);
        let (igw, app) = (plane.igw, plane.app);
        // A flow's last word, and an error about one: nobody knows either.
        let mut last = ack(CLIENT, SERVER, (1, 80), b"");
        last[33] |= TcpFlags::RST.0;
        assert!(matches!(plane.send(igw, &last), Verdict::Drop(DropReason::UnknownTcpFlow)));
        plane.change(|view| view.pools[0].candidates = Candidates::default());
        let about = udp(CLIENT, SERVER, (3, 4), b"never seen");
        let inner = Inner::parse(&about).unwrap();
        let error = reply::packet_too_big(&about, &inner, SERVER.into(), 1000).unwrap();
        let verdict = plane.send(app, error.bytes());
        assert!(matches!(verdict, Verdict::Drop(DropReason::NoTarget)), "{verdict:?}");
        let expected = EndpointTotals { dropped_packets: 2, ..Default::default() };
        assert_eq!(counted(&plane), expected, "{mode}");
        // The packet that it is about would have begun one.
        assert!(matches!(plane.send(igw, &about), Verdict::Drop(DropReason::NoTarget)));
        assert_eq!(counted(&plane).refused_flows, 1);
    }
}

#[test]
fn of_returned_packets_those_are_counted_that_are_certainly_its_own() {
    let mut plane = Plane::new("drop");
    let (igw, packet) = (plane.igw, udp(CLIENT, SERVER, (1, 2), b"there"));
    let hop = plane.hop(igw, &packet);
    let (from, datagram) = echo(&hop, &packet);
    let mut forged = datagram.clone();
    forged[hop.header.as_bytes().len() - 1] ^= 1;
    plane.returns.handle_datagram(from, GATEWAY, &forged);
    assert_eq!(counted(&plane).dropped_returns, 0, "anybody can say that it is one of ours");
    let ReturnVerdict::Accept(returned) = plane.returns.handle_datagram(from, GATEWAY, &datagram)
    else {
        panic!("it is genuine");
    };
    assert_eq!(plane.snapshot.topology.endpoint(returned.endpoint).name, "vpce-a");
    plane.change(|view| view.attachments.clear());
    for _ in 0..2 {
        let lost = plane.returns.handle_datagram(from, GATEWAY, &datagram);
        assert!(matches!(lost, ReturnVerdict::Drop(DropReason::NotAttached)), "{lost:?}");
    }
    assert_eq!(counted(&plane).dropped_returns, 2);
}

#[test]
fn flows_of_an_endpoint_that_is_gone_end_there_all_the_same() {
    let mut plane = Plane::new("drop");
    plane.hop(plane.igw, &udp(CLIENT, SERVER, (1, 2), b""));
    let counters = plane.snapshot.endpoints[0].counters.clone();
    plane.change(|view| {
        let wire_id = view.endpoints[0].wire_id;
        view.wire_ids.clear();
        view.departed.insert(wire_id, view.endpoints[0].counters.clone());
    });
    plane.now += Duration::from_secs(130);
    plane.ingress.handle_timeout(plane.now);
    assert_eq!((counters.totals().new_flows, counters.totals().ended_flows), (1, 1));
}
