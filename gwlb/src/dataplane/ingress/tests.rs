//! Tests of the way out.

use std::net::IpAddr;
use std::time::Duration;

use geneve::inner::protocol;
use netio::offload::{Offload, PartialChecksum, Segmentation};

use super::super::testing::{CLIENT, CLIENT_V6, Plane, SERVER, SERVER_V6, ack, syn, udp, udp_v6};
use super::*;
use crate::config::{AfterBypass, TrafficMode};
use crate::dataplane::frame::TcpNumbers;
use crate::dataplane::snapshot::{Fate, NoCandidate, ResetCause, TargetSlot};
use crate::dataplane::stats::TargetTotals;

#[test]
fn both_directions_go_to_one_appliance_by_one_port_with_one_cookie() {
    let mut plane = Plane::new("drop");
    let (igw, app) = (plane.igw, plane.app);
    let mut targets = std::collections::BTreeSet::new();
    for port in 1..=100 {
        let there = plane.hop(igw, &syn(CLIENT, SERVER, (port, 80)));
        let back = plane.hop(app, &ack(SERVER, CLIENT, (80, port), b"hello"));
        assert_eq!(there, back);
        targets.insert(there.target);
    }
    assert_eq!(targets.len(), 2, "both appliances have flows");
    assert_eq!(plane.totals().flows.created, 100, "as many as the table takes");
    assert_eq!(plane.totals().flows.active(), 100);
}

#[test]
fn routes_lead_elsewhere_too() {
    let mut plane = Plane::new("drop");
    let (igw, app) = (plane.igw, plane.app);
    for (from, to, expected) in [
        (app, [198, 51, 100, 1], DropReason::Blackhole),
        (app, [10, 0, 77, 1], DropReason::NoSubnet),
        (igw, [192, 0, 2, 200], DropReason::NoRoute),
    ] {
        match plane.send(from, &udp(CLIENT, to, (1, 2), b"")) {
            Verdict::Drop(reason) => assert_eq!(reason, expected),
            other => panic!("{other:?}"),
        }
    }
    let local = plane.send(app, &udp(SERVER, [10, 0, 1, 12], (1, 2), b""));
    assert!(matches!(local, Verdict::Deliver(Attachment::Subnet(_))), "{local:?}");
}

#[test]
fn a_segment_of_an_unknown_flow_is_dropped_reset_or_adopted() {
    let segment = ack(CLIENT, SERVER, (1000, 80), b"late");
    for setting in ["drop", "reset", "adopt"] {
        let mut plane = Plane::new(setting);
        let verdict = plane.send(plane.igw, &segment);
        match setting {
            "drop" => assert!(matches!(verdict, Verdict::Drop(DropReason::UnknownTcpFlow))),
            "reset" => assert!(matches!(verdict, Verdict::Reply(_))),
            _ => assert!(matches!(verdict, Verdict::ToAppliance(_))),
        }
    }
}

#[test]
fn an_idle_flow_is_forgotten() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    plane.hop(igw, &syn(CLIENT, SERVER, (1000, 80)));
    plane.hop(igw, &ack(CLIENT, SERVER, (1000, 80), b"open"));
    plane.now += Duration::from_secs(349);
    plane.hop(igw, &ack(CLIENT, SERVER, (1000, 80), b"in time"));
    plane.now += Duration::from_secs(350);
    let late = plane.send(igw, &ack(CLIENT, SERVER, (1000, 80), b"late"));
    assert!(matches!(late, Verdict::Drop(DropReason::UnknownTcpFlow)), "{late:?}");
    plane.now += Duration::from_secs(2);
    plane.ingress.handle_timeout(plane.now);
    assert_eq!(plane.totals().flows.expired, 1);
}

#[test]
fn every_flow_has_one_owner() {
    let mut planes: Vec<_> =
        (0..3).map(|worker| Plane::of_worker("drop", WorkerId(worker), 3)).collect();
    for port in 1..50 {
        let packet = udp(CLIENT, SERVER, (port, 53), b"who");
        let verdicts: Vec<_> =
            planes.iter_mut().map(|plane| plane.send(plane.igw, &packet)).collect();
        let owners: Vec<_> = verdicts
            .iter()
            .enumerate()
            .filter(|(_, verdict)| matches!(verdict, Verdict::ToAppliance(_)))
            .map(|(worker, _)| worker as u16)
            .collect();
        assert_eq!(owners.len(), 1);
        for verdict in &verdicts {
            if let Verdict::HandOver(owner, _) = verdict {
                assert_eq!(owner.0, owners[0]);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_answered_or_dropped() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let too_long = vec![0; 1433 - 28];
    let mut packet = udp(CLIENT, SERVER, (1, 2), &too_long);
    assert_eq!(packet.len(), 1433, "one more than an underlay of 1500 bytes carries");
    let verdict = plane.send(igw, &packet);
    let Verdict::Reply(reply) = verdict else { panic!("{verdict:?}") };
    let answer = Inner::parse(reply.packet.bytes()).unwrap();
    assert!(matches!(answer.transport, Transport::IcmpError { .. }), "{answer:?}");
    assert_eq!(answer.dst, std::net::IpAddr::from(CLIENT));

    packet[6] &= !0x40;
    assert_eq!(plane.hop(igw, &packet).change, Some(Change::Fragment(1432)));
    plane.hop(igw, &udp(CLIENT, SERVER, (1, 2), &too_long[1..]));
}

#[test]
fn a_super_packet_is_measured_and_counted_by_its_segments() {
    let mut plane = Plane::new("adopt");
    let segment = Segmentation::Tcp { size: 1392, ecn: false };
    let checksum = Some(PartialChecksum { start: 20, offset: 16 });
    let offload = Offload { segment, checksum, hdr_len: 40 };
    let packet = ack(CLIENT, SERVER, (1, 80), &vec![0; 1392 * 10 + 1]);
    let frame = Frame::parse(&packet, &offload).unwrap();
    assert_eq!(frame.segments(), 11);
    let verdict = plane.ingress.handle_packet(plane.igw.into(), &frame, plane.now);
    assert!(matches!(verdict, Verdict::ToAppliance(_)), "1432 bytes fit: {verdict:?}");

    let segment = Segmentation::Tcp { size: 1393, ecn: false };
    let offload = Offload { segment, ..offload };
    let frame = Frame::parse(&packet, &offload).unwrap();
    let verdict = plane.ingress.handle_packet(plane.igw.into(), &frame, plane.now);
    assert!(matches!(verdict, Verdict::Reply(_)), "1433 bytes do not: {verdict:?}");
    assert_eq!(plane.totals().tun.flow.replied, 10);
}

#[test]
fn later_fragments_follow_the_first_and_strangers_are_dropped() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let whole = plane.hop(igw, &udp(CLIENT, SERVER, (1000, 53), &[0; 64]));
    let fragment = |more: bool, offset: u8, id: u8| {
        let mut packet = udp(CLIENT, SERVER, (1000, 53), &[0; 64]);
        packet[5] = id;
        packet[6] = if more { 0x20 } else { 0 };
        packet[7] = offset;
        packet
    };
    let first = plane.hop(igw, &fragment(true, 0, 7));
    let later = plane.hop(igw, &fragment(false, 9, 7));
    assert_eq!((whole.target, whole.port), (first.target, first.port));
    assert_eq!(first, later, "fragments share a cookie, which needs no ports");
    let early = plane.send(igw, &fragment(false, 9, 8));
    assert!(matches!(early, Verdict::Held));
    plane.hop(igw, &fragment(true, 0, 8));
    let (origin, waiting) = plane.ingress.poll_released().unwrap();
    let frame = Frame::parse(waiting.packet.bytes(), &Offload::NONE).unwrap();
    let verdict = plane.ingress.handle_packet(origin, &frame, plane.now);
    assert!(matches!(verdict, Verdict::ToAppliance(hop) if hop == first), "{verdict:?}");

    let stranger = plane.send(igw, &fragment(false, 9, 9));
    assert!(matches!(stranger, Verdict::Held));
    plane.now = plane.ingress.poll_timeout().unwrap();
    plane.ingress.handle_timeout(plane.now);
    let totals = plane.totals().tun;
    assert_eq!(totals.drops["fragment_without_first"], 1);
    assert_eq!(totals.queued(), 0);
    let (reason, dropped) = plane.ingress.poll_dropped().unwrap();
    assert_eq!(reason, DropReason::FragmentWithoutFirst);
    assert_eq!(dropped.packet.bytes(), fragment(false, 9, 9), "it is told which one it was");
    assert!(plane.ingress.poll_dropped().is_none());
}

#[test]
fn options_behind_the_fragment_header_do_not_part_fragments() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let fragment = |offset_and_more: u8, payload: &[u8]| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8 + payload.len() as u8, 44, 64];
        packet.extend(CLIENT_V6);
        packet.extend(SERVER_V6);
        // Destination options follow, in the part that is cut up.
        packet.extend([60, 0, 0, offset_and_more, 0, 0, 0, 7]);
        packet.extend(payload);
        packet
    };
    let options = [protocol::UDP, 0, 1, 4, 0, 0, 0, 0];
    let start_of_udp = [3, 232, 0, 53, 0, 40, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let first = plane.hop(igw, &fragment(1, &[&options[..], &start_of_udp].concat()));
    let later = plane.hop(igw, &fragment(24, &[9; 24]));
    assert_eq!(first, later);
}

#[test]
fn an_icmp_error_goes_where_the_flow_goes_that_it_is_about() {
    let mut plane = Plane::new("drop");
    let (igw, app) = (plane.igw, plane.app);
    for port in 1000..1020 {
        let packet = udp(CLIENT, SERVER, (port, 53), b"question");
        let flow = plane.hop(igw, &packet);
        let inner = Inner::parse(&packet).unwrap();
        let error = reply::packet_too_big(&packet, &inner, SERVER.into(), 1000).unwrap();
        let about = plane.hop(app, error.bytes());
        assert_eq!((flow.target, flow.port), (about.target, about.port));
    }
    let created = plane.totals().flows.created;
    let packet = udp(CLIENT, SERVER, (1, 53), b"never seen");
    let inner = Inner::parse(&packet).unwrap();
    let error = reply::packet_too_big(&packet, &inner, SERVER.into(), 1000).unwrap();
    plane.hop(app, error.bytes());
    assert_eq!(plane.totals().flows.created, created, "an error begins no flow");
}

/// The plane with what health says of both targets: fates by slot, and who may get flows.
fn with(plane: &mut Plane, fates: [Fate; 2], candidates: &[u32], none: NoCandidate) {
    plane.change(|snapshot| {
        for pool in &mut snapshot.pools {
            pool.fates = fates.to_vec();
            let mut some = pool.candidates.to_vec();
            some.retain(|candidate| candidates.contains(&candidate.target.0));
            pool.candidates = some.into();
            pool.none = none;
        }
    });
}

/// A plane with flows from ports 1000 to 1019, and the target of each.
fn with_flows(unknown_flow: &str) -> (Plane, Vec<(u16, TargetSlot)>) {
    let mut plane = Plane::new(unknown_flow);
    let igw = plane.igw;
    let targets = (1000..1020)
        .map(|port| (port, plane.hop(igw, &syn(CLIENT, SERVER, (port, 80))).target))
        .collect();
    (plane, targets)
}

const RESET: Fate = Fate::Reset(ResetCause::Unhealthy);

#[test]
fn flows_stay_move_once_or_are_reset_as_their_target_s_fate_says() {
    let rescued = |fate| {
        let (mut plane, targets) = with_flows("drop");
        let igw = plane.igw;
        with(&mut plane, [fate, Fate::Stay], &[1], NoCandidate::Drop);
        for (port, target) in &targets {
            let verdict = plane.send(igw, &ack(CLIENT, SERVER, (*port, 80), b"on"));
            match (fate, target.0) {
                (Fate::Stay, before) | (_, before @ 1) => {
                    let Verdict::ToAppliance(hop) = verdict else { panic!("{verdict:?}") };
                    assert_eq!(hop.target.0, before);
                }
                (Fate::Rebalance, _) => {
                    let Verdict::ToAppliance(hop) = verdict else { panic!("{verdict:?}") };
                    assert_eq!(hop.target.0, 1);
                }
                (Fate::Reset(_), _) => {
                    let Verdict::Reply(reply) = verdict else { panic!("{verdict:?}") };
                    let reset = Inner::parse(reply.packet.bytes()).unwrap();
                    assert_eq!(
                        (reset.src, reset.dst),
                        (IpAddr::from(SERVER), IpAddr::from(CLIENT))
                    );
                }
            }
        }
        let lost = targets.iter().filter(|(_, target)| target.0 == 0).count() as u64;
        assert!(lost > 3, "both have flows");
        (plane, targets, lost)
    };

    let (plane, ..) = rescued(Fate::Stay);
    assert_eq!(plane.totals().flows.rebalanced, 0);

    let (mut plane, targets, lost) = rescued(Fate::Rebalance);
    assert_eq!(plane.totals().flows.rebalanced, lost);
    let totals = |plane: &Plane, slot| {
        let mut totals = TargetTotals::default();
        totals.add(&plane.snapshot.target(TargetSlot(slot)).counters[0]);
        totals
    };
    assert_eq!(totals(&plane, 0).active_flows(), 0);
    assert_eq!(totals(&plane, 1).active_flows(), targets.len() as u64);
    // The first target is back: nothing moves back.
    plane.change(|snapshot| snapshot.pools[0].fates = Vec::new());
    let igw = plane.igw;
    for (port, _) in targets {
        assert_eq!(plane.hop(igw, &ack(CLIENT, SERVER, (port, 80), b"on")).target.0, 1);
    }

    let (mut plane, targets, lost) = rescued(RESET);
    let counted = plane.totals();
    assert_eq!((counted.flows.reset, counted.resets.on_unhealthy), (lost, lost));
    assert_eq!(totals(&plane, 0).active_flows(), lost, "the other end is answered, too");
    let (port, _) = targets.iter().find(|(_, target)| target.0 == 0).unwrap();
    let again = plane.hop(plane.igw, &syn(CLIENT, SERVER, (*port, 80)));
    assert_eq!(again.target.0, 1, "a new connection goes to who is healthy");
}

#[test]
fn a_forged_reset_moves_no_flow() {
    let (mut plane, targets) = with_flows("drop");
    let igw = plane.igw;
    let only_one = plane.snapshot.pools[0].candidates[0];
    plane.change(|snapshot| {
        // What was placed by two would be placed otherwise now.
        let mut newcomer = only_one;
        newcomer.id = crate::dataplane::select::TargetId::new("fw", ([192, 0, 2, 99], 1).into());
        newcomer.weight = 1000;
        let candidates = &mut snapshot.pools[0].candidates;
        *candidates = [&candidates[..], &[newcomer]].concat().into();
    });
    for (port, target) in targets {
        let mut reset = ack(CLIENT, SERVER, (port, 80), b"");
        reset[33] = 4;
        plane.hop(igw, &reset);
        assert_eq!(plane.hop(igw, &syn(CLIENT, SERVER, (port, 80))).target, target);
    }
    assert_eq!(plane.totals().flows.reopened, 20);
}

#[test]
fn what_opens_again_and_again_takes_no_memory() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let mut reset = ack(CLIENT, SERVER, (1, 80), b"");
    reset[33] = 4;
    for _ in 0..1000 {
        plane.hop(igw, &syn(CLIENT, SERVER, (1, 80)));
        plane.hop(igw, &reset);
    }
    assert_eq!(plane.ingress.flows().timers(), 2, "one for each of its two terms");
    assert_eq!(plane.totals().flows.active(), 1);
}

#[test]
fn a_fragment_opens_no_tcp_flow() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    // The first eight bytes of TCP, with more to come.
    let mut tiny = ack(CLIENT, SERVER, (1, 80), b"");
    tiny.truncate(28);
    (tiny[2], tiny[3], tiny[6], tiny[7]) = (0, 28, 0x20, 0);
    let verdict = plane.send(igw, &tiny);
    assert!(matches!(verdict, Verdict::Drop(DropReason::UnknownTcpFlow)), "{verdict:?}");
}

#[test]
fn with_2_tuple_stickiness_a_ping_shortens_no_connection() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    plane.change(|snapshot| {
        snapshot.pools[0].stickiness = geneve::flow::Stickiness::TwoTuple;
    });
    plane.hop(igw, &syn(CLIENT, SERVER, (1, 80)));
    plane.hop(igw, &udp(CLIENT, SERVER, (1, 53), b"?"));
    plane.now += Duration::from_secs(349);
    plane.hop(igw, &ack(CLIENT, SERVER, (1, 80), b"still there"));
}

#[test]
fn ipv6_is_told_of_no_mtu_that_nobody_would_believe() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    plane.change(|snapshot| snapshot.targets.iter_mut().for_each(|it| it.path_mtu = 1300));
    let packet = |len: usize| udp_v6(CLIENT_V6, SERVER_V6, (1, 53), &vec![0; len - 48]);
    plane.hop(igw, &packet(1280));
    let verdict = plane.send(igw, &packet(1281));
    assert!(matches!(verdict, Verdict::Reply(_)), "{verdict:?}");
}

#[test]
fn what_is_no_tcp_is_not_reset() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let packets: Vec<_> = (0..20).map(|port| udp(CLIENT, SERVER, (port, 53), b"?")).collect();
    let before: Vec<_> = packets.iter().map(|packet| plane.hop(igw, packet).target).collect();
    with(&mut plane, [RESET, RESET], &[], NoCandidate::Drop);
    let after: Vec<_> = packets.iter().map(|packet| plane.hop(igw, packet).target).collect();
    assert_eq!(before, after);
}

#[test]
fn without_anybody_healthy_the_policy_decides() {
    let (mut plane, targets) = with_flows("drop");
    let (igw, fates) = (plane.igw, [Fate::Rebalance, Fate::Rebalance]);
    with(&mut plane, fates, &[], NoCandidate::Drop);
    let new = plane.send(igw, &syn(CLIENT, SERVER, (1, 80)));
    assert!(matches!(new, Verdict::Drop(DropReason::NoTarget)), "{new:?}");
    let known = ack(CLIENT, SERVER, (targets[0].0, 80), b"?");
    let old = plane.send(igw, &known);
    assert!(matches!(old, Verdict::Drop(DropReason::NoTarget)), "{old:?}");

    with(&mut plane, fates, &[], NoCandidate::Bypass);
    for packet in [&syn(CLIENT, SERVER, (1, 80)), &known] {
        let verdict = plane.send(igw, packet);
        assert!(matches!(verdict, Verdict::Bypass(Attachment::Subnet(_))), "{verdict:?}");
    }
    // Somebody is healthy again. A bypassed flow stays what it is, unless it is to be inspected.
    let mut healthy = Plane::new("drop");
    healthy.change(|_| {});
    let candidates = healthy.snapshot.pools[0].candidates.clone();
    plane.change(|snapshot| {
        snapshot.pools[0].fates = Vec::new();
        snapshot.pools[0].candidates.clone_from(&candidates);
    });
    let verdict = plane.send(igw, &known);
    assert!(matches!(verdict, Verdict::Bypass(_)), "{verdict:?}");
    plane.change(|snapshot| snapshot.pools[0].after_bypass = AfterBypass::Inspect);
    plane.hop(igw, &known);
}

#[test]
fn the_manual_switch_lets_everything_pass_and_forgets_nothing() {
    let (mut plane, targets) = with_flows("drop");
    let igw = plane.igw;
    plane.change(|snapshot| snapshot.pools[0].traffic_mode = TrafficMode::Bypass);
    for packet in [
        ack(CLIENT, SERVER, (targets[0].0, 80), b"known"),
        ack(CLIENT, SERVER, (1, 80), b"never seen"),
        udp(CLIENT, SERVER, (1, 53), b"?"),
    ] {
        let verdict = plane.send(igw, &packet);
        assert!(matches!(verdict, Verdict::Bypass(_)), "{verdict:?}");
    }
    plane.change(|snapshot| snapshot.pools[0].traffic_mode = TrafficMode::LoadBalance);
    let hop = plane.hop(igw, &ack(CLIENT, SERVER, (targets[0].0, 80), b"known"));
    assert_eq!(hop.target, targets[0].1);
}

#[test]
fn a_full_table_places_packet_by_packet_and_evicts_nobody() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let first = plane.hop(igw, &syn(CLIENT, SERVER, (1, 80)));
    for port in 2..=100 {
        plane.hop(igw, &syn(CLIENT, SERVER, (port, 80)));
    }
    for port in 101..200 {
        let opening = plane.hop(igw, &syn(CLIENT, SERVER, (port, 80)));
        let later = plane.hop(igw, &ack(CLIENT, SERVER, (port, 80), b"its later packets, too"));
        assert_eq!(opening, later);
    }
    let totals = plane.totals().flows;
    assert_eq!((totals.created, totals.untracked), (100, 2 * 99));
    assert_eq!(plane.hop(igw, &ack(CLIENT, SERVER, (1, 80), b"still there")).target, first.target);
    // When there is room again, the flow that was not taken in is.
    plane.now += Duration::from_secs(349);
    for _ in 0..3 {
        plane.ingress.handle_timeout(plane.now);
    }
    plane.hop(igw, &ack(CLIENT, SERVER, (150, 80), b"and on"));
    assert_eq!(plane.totals().flows.adopted, 1);
}

#[test]
fn more_new_flows_than_allowed_are_placed_all_the_same() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    plane.change(|snapshot| snapshot.max_new_flows_per_second = 100);
    for port in 1..=50 {
        plane.hop(igw, &udp(CLIENT, SERVER, (port, 53), b"?"));
    }
    let totals = plane.totals().flows;
    assert_eq!((totals.created, totals.untracked), (10, 40), "a tenth of a second's at once");
}

#[test]
fn after_a_start_flows_are_taken_on_in_their_middle_for_one_idle_timeout() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    plane.change(|snapshot| snapshot.pools[0].adopt_after_start = true);
    plane.hop(igw, &ack(CLIENT, SERVER, (1, 80), b"on"));
    let mut reset = ack(CLIENT, SERVER, (2, 80), b"");
    reset[33] = 4;
    plane.hop(igw, &reset);
    let totals = plane.totals().flows;
    assert_eq!((totals.created, totals.adopted), (1, 1), "a reset is nothing to remember");
    plane.now += Duration::from_secs(350);
    let late = plane.send(igw, &ack(CLIENT, SERVER, (3, 80), b"on"));
    assert!(matches!(late, Verdict::Drop(DropReason::UnknownTcpFlow)), "{late:?}");
}

#[test]
fn closed_and_opened_again_is_a_new_flow() {
    let (mut plane, targets) = with_flows("drop");
    let (igw, app) = (plane.igw, plane.app);
    let (port, _) = *targets.iter().find(|(_, target)| target.0 == 0).unwrap();
    with(&mut plane, [Fate::Stay, Fate::Stay], &[1], NoCandidate::Drop);
    let mut fin = ack(CLIENT, SERVER, (port, 80), b"");
    fin[33] = 0x11;
    let mut answer = ack(SERVER, CLIENT, (80, port), b"");
    answer[33] = 0x11;
    assert_eq!(plane.hop(igw, &fin).target.0, 0);
    let again = syn(CLIENT, SERVER, (port, 80));
    assert_eq!(plane.hop(igw, &again).target.0, 0, "half of it is still open");
    assert_eq!(plane.hop(app, &answer).target.0, 0);
    assert_eq!(plane.hop(igw, &again).target.0, 1);
    assert_eq!(plane.totals().flows.reopened, 1);
}

#[test]
fn both_ends_are_reset_at_once_where_that_is_wanted() {
    let (mut plane, targets) = with_flows("drop");
    let (igw, app) = (plane.igw, plane.app);
    let (port, _) = *targets.iter().find(|(_, target)| target.0 == 0).unwrap();
    plane.change(|snapshot| snapshot.pools[0].reset_both_ends = true);
    plane.hop(igw, &ack(CLIENT, SERVER, (port, 80), b"hello"));
    plane.hop(app, &ack(SERVER, CLIENT, (80, port), b"hello"));
    with(&mut plane, [RESET, Fate::Stay], &[1], NoCandidate::Drop);
    assert!(plane.ingress.poll_timeout().unwrap() <= plane.now, "at once");
    plane.ingress.handle_timeout(plane.now);
    let mut resets = Vec::new();
    while let Some(reply) = plane.ingress.poll_reply() {
        let inner = Inner::parse(reply.packet.bytes()).unwrap();
        let sequence = TcpNumbers::of(reply.packet.bytes(), &inner).unwrap().seq;
        resets.push((inner.dst, inner.ports().unwrap(), sequence, reply.to));
    }
    resets.sort_by_key(|reset| reset.0);
    let expected = [
        (
            IpAddr::from(SERVER),
            (port, 80),
            77,
            Attachment::Subnet(match app {
                Entry::Subnet(id) => id,
                other => panic!("{other:?}"),
            }),
        ),
        (IpAddr::from(CLIENT), (80, port), 77, plane.internet()),
    ];
    assert_eq!(resets, expected, "of the others nobody has acknowledged anything");
    assert_eq!(plane.totals().resets.on_unhealthy, 2);
    // An end that does not believe it asks back, and is answered.
    for (from, packet) in
        [(app, ack(SERVER, CLIENT, (80, port), b"")), (igw, ack(CLIENT, SERVER, (port, 80), b""))]
    {
        let doubt = plane.send(from, &packet);
        assert!(matches!(doubt, Verdict::Reply(_)), "{doubt:?}");
    }
    let again = plane.hop(igw, &syn(CLIENT, SERVER, (port, 80)));
    assert_eq!(again.target.0, 1, "a new connection");
}

#[test]
fn an_end_that_said_nothing_since_is_reset_when_it_does() {
    let (mut plane, targets) = with_flows("drop");
    let (igw, app) = (plane.igw, plane.app);
    let (port, _) = *targets.iter().find(|(_, target)| target.0 == 0).unwrap();
    plane.change(|snapshot| snapshot.pools[0].reset_both_ends = true);
    plane.hop(igw, &ack(CLIENT, SERVER, (port, 80), b"hello"));
    with(&mut plane, [RESET, Fate::Stay], &[1], NoCandidate::Drop);
    plane.ingress.handle_timeout(plane.now);
    assert!(plane.ingress.poll_reply().is_some(), "the client is reset");
    assert!(plane.ingress.poll_reply().is_none(), "of the server nothing is known");
    // For longer than what is over is remembered.
    plane.now += Duration::from_secs(100);
    plane.ingress.handle_timeout(plane.now);
    let late = plane.send(app, &ack(SERVER, CLIENT, (80, port), b"hello"));
    assert!(matches!(late, Verdict::Reply(_)), "{late:?}");
}

#[test]
fn a_connection_that_began_again_is_reset_by_its_new_first_word() {
    let (mut plane, targets) = with_flows("drop");
    let igw = plane.igw;
    let (port, _) = *targets.iter().find(|(_, target)| target.0 == 0).unwrap();
    plane.change(|snapshot| snapshot.pools[0].reset_both_ends = true);
    let mut reset = ack(CLIENT, SERVER, (port, 80), b"");
    reset[33] = 4;
    plane.hop(igw, &reset);
    let mut again = syn(CLIENT, SERVER, (port, 80));
    again[24..28].copy_from_slice(&1000_u32.to_be_bytes());
    assert_eq!(plane.hop(igw, &again).target.0, 0, "kept");
    assert_eq!(plane.totals().flows.reopened, 1);
    with(&mut plane, [RESET, Fate::Stay], &[1], NoCandidate::Drop);
    plane.ingress.handle_timeout(plane.now);
    let reply = plane.ingress.poll_reply().expect("a reset of the end that has spoken");
    let inner = Inner::parse(reply.packet.bytes()).unwrap();
    let numbers = TcpNumbers::of(reply.packet.bytes(), &inner).unwrap();
    assert_eq!((inner.dst, numbers.ack), (IpAddr::from(CLIENT), Some(1001)));
    assert!(plane.ingress.poll_reply().is_none(), "the other end has not said anything");
}
