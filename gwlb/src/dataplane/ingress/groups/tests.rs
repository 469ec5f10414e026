use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use netio::offload::Offload;
use router::Choose as _;
use rstest::rstest;

use super::super::super::testing::{CLIENT, Plane, SERVER, ack, echo, syn, udp};
use super::*;
use crate::dataplane::inspection::Balancer;
use crate::dataplane::select::Candidate;
use crate::dataplane::snapshot::GroupView;
use crate::dataplane::stats::EndpointTotals;
use crate::dataplane::verdict::{Hop, ReturnVerdict, Verdict, Way, WorkerId};

/// Two zones behind one group, and a further endpoint in front of it for who comes from
/// 203.0.113.128/25.
fn file(group: &str, balancer: &str) -> String {
    let mut text = String::from(
        r#"
[[vpc]]
name = "app"
cidrs = ["10.0.0.0/16"]
[[subnet]]
name = "app-a"
vpc = "app"
zone = "az1"
cidrs = ["10.0.1.0/24"]
route_table = "app-a"
[[internet_gateway]]
name = "igw"
vpc = "app"
route_table = "igw"
[[route_table]]
name = "igw"
vpc = "app"
routes = [{ destination = "10.0.1.0/24", endpoint_group = "inspection" }]
[[route_table]]
name = "app-a"
vpc = "app"
routes = [
    { destination = "0.0.0.0/0", endpoint_group = "inspection" },
    { destination = "203.0.113.128/25", endpoint = "vpce-first" },
]
[[route_table]]
name = "first"
vpc = "app"
routes = [{ destination = "0.0.0.0/0", endpoint_group = "inspection" }]
[[route_table]]
name = "gwlbe"
vpc = "app"
routes = [{ destination = "0.0.0.0/0", internet_gateway = "igw" }]
[[subnet]]
name = "first"
vpc = "app"
zone = "az1"
cidrs = ["10.0.100.0/28"]
route_table = "first"
[[endpoint]]
name = "vpce-first"
subnet = "first"
service = "inspection"
[[endpoint_service]]
name = "inspection"
load_balancers = ["fw"]
[[load_balancer]]
name = "fw"
target_group = "fw"
nodes = [{ zone = "az1", address = "192.0.2.1" }, { zone = "az2", address = "192.0.2.2" }]
adopt_after_start = false
BALANCER
[[target_group]]
name = "fw"
[[attachment]]
internet_gateway = "igw"
tun = "igw"
[[attachment]]
subnet = "app-a"
tun = "app-a"
[[endpoint_group]]
name = "inspection"
GROUP
"#,
    );
    for (zone, number) in [("az1", 1), ("az2", 2)] {
        write!(
            text,
            r#"
[[subnet]]
name = "gwlbe-{zone}"
vpc = "app"
zone = "{zone}"
cidrs = ["10.0.10{number}.0/28"]
route_table = "gwlbe"
[[endpoint]]
name = "vpce-{zone}"
subnet = "gwlbe-{zone}"
service = "inspection"
[[target]]
group = "fw"
address = "192.0.2.{number}1"
zone = "{zone}"
"#
        )
        .unwrap();
    }
    text.replace("GROUP", group).replace("BALANCER", balancer)
}

const PAIR: &str =
    r#"members = [{ endpoint = "vpce-az1", weight = 100 }, { endpoint = "vpce-az2", weight = 0 }]"#;
const WEIGHTED: &str = r#"mode = "weighted"
members = [{ endpoint = "vpce-az1", weight = 50 }, { endpoint = "vpce-az2", weight = 50 }]"#;

fn plane(group: &str) -> Plane {
    Plane::of_file(file(group, ""), WorkerId(0), 1)
}

/// The members of the group.
fn members(plane: &Plane) -> [EndpointId; 2] {
    let named = |name| plane.snapshot.topology.endpoint_by_name(name).unwrap();
    [named("vpce-az1"), named("vpce-az2")]
}

/// The group is otherwise from now on.
fn regroup(plane: &mut Plane, change: impl FnOnce(&mut GroupView)) {
    plane.change(|view| change(&mut view.groups[0]));
}

/// This member gets new flows, and these are alive.
fn choose_only(plane: &mut Plane, chosen: usize, living: &[usize]) {
    let members = members(plane);
    regroup(plane, |group| {
        group.chosen = vec![Candidate { target: members[chosen], ..group.chosen[0] }].into();
        group.living = living.iter().map(|at| members[*at]).collect();
    });
}

/// Which member a packet has gone to.
fn member(plane: &Plane, hop: &Hop) -> usize {
    let wire_ids = members(plane).map(|it| plane.snapshot.endpoint(it).wire_id);
    let target = plane.snapshot.target(hop.target);
    let endpoint = target.dialect.read(&geneve::Header::parse(hop.header.as_bytes()).unwrap().0);
    wire_ids.iter().position(|id| *id == endpoint.unwrap().endpoint).unwrap()
}

#[test]
fn the_active_member_gets_what_begins_in_both_directions() {
    let mut plane = plane(PAIR);
    let (igw, app) = (plane.igw, plane.app);
    for active in [0, 1] {
        choose_only(&mut plane, active, &[0, 1]);
        let port = 1000 + active as u16;
        let there = plane.hop(igw, &syn(CLIENT, SERVER, (port, 80)));
        let back = plane.hop(app, &ack(SERVER, CLIENT, (80, port), b"hello"));
        assert_eq!(there, back);
        assert_eq!(member(&plane, &there), active);
    }
}

#[test]
fn a_flow_stays_with_the_member_that_has_it() {
    let mut plane = plane(PAIR);
    let (igw, app) = (plane.igw, plane.app);
    let begun = plane.hop(igw, &syn(CLIENT, SERVER, (1000, 80)));
    plane.hop(app, &ack(SERVER, CLIENT, (80, 1000), b"hello"));
    // Over to the other zone, by hand, and back: neither moves what is established.
    choose_only(&mut plane, 1, &[0, 1]);
    assert_eq!(plane.hop(igw, &ack(CLIENT, SERVER, (1000, 80), b"still")), begun);
    let other = plane.hop(igw, &syn(CLIENT, SERVER, (1001, 80)));
    assert_eq!(member(&plane, &other), 1);
    choose_only(&mut plane, 0, &[0, 1]);
    assert_eq!(plane.hop(app, &ack(SERVER, CLIENT, (80, 1001), b"still")), other);
    assert_eq!(plane.hop(igw, &ack(CLIENT, SERVER, (1000, 80), b"still")), begun);
    assert_eq!(plane.totals().flows.created, 2);
}

/// What `tcp_unknown_flow` says of the flows of a zone that is gone, unless they are to move.
#[test]
fn flows_of_a_zone_that_is_gone_begin_again_or_move() {
    for (balancer, moves, expected) in [
        ("", false, "dropped"),
        ("tcp_unknown_flow = \"reset\"", false, "answered"),
        ("tcp_unknown_flow = \"adopt\"", false, "moved"),
        ("", true, "moved"),
    ] {
        let mut plane = Plane::of_file(file(PAIR, balancer), WorkerId(0), 1);
        let igw = plane.igw;
        plane.hop(igw, &syn(CLIENT, SERVER, (1000, 80)));
        plane.hop(igw, &ack(CLIENT, SERVER, (1000, 80), b"open"));
        plane.hop(igw, &udp(CLIENT, SERVER, (1000, 53), b"asks"));
        choose_only(&mut plane, 1, &[1]);
        if moves {
            regroup(&mut plane, |group| group.leaving = vec![group.members[0]]);
        }
        let segment = ack(CLIENT, SERVER, (1000, 80), b"goes on");
        let verdict = match plane.send(igw, &segment) {
            Verdict::Drop(DropReason::UnknownTcpFlow) => "dropped",
            Verdict::Reply(_) => "answered",
            Verdict::ToAppliance(hop) if member(&plane, &hop) == 1 => "moved",
            other => panic!("{other:?}"),
        };
        assert_eq!(verdict, expected, "{balancer} {moves}");
        let datagram = plane.hop(igw, &udp(CLIENT, SERVER, (1000, 53), b"asks again"));
        assert_eq!(member(&plane, &datagram), 1, "nobody has to know its middle");
        let moved = expected == "moved";
        let flows = plane.totals().flows;
        assert_eq!(flows.active(), 2, "{flows:?}");
        assert_eq!(flows.rebalanced, if moves { 2 } else { 0 });
        assert_eq!(flows.adopted, u64::from(moved));

        // The zone is back, and gets new flows: what has begun elsewhere stays there.
        choose_only(&mut plane, 0, &[0, 1]);
        assert_eq!(plane.hop(igw, &udp(CLIENT, SERVER, (1000, 53), b"and again")), datagram);
        let segment = plane.hop(igw, &segment);
        assert_eq!(member(&plane, &segment), usize::from(moved), "it was never anywhere else");
    }
}

#[test]
fn a_connection_that_is_over_begins_anew_at_whom_is_chosen() {
    let mut plane = plane(PAIR);
    let (igw, app) = (plane.igw, plane.app);
    let fin = |src, dst, ports| {
        let mut packet = ack(src, dst, ports, b"");
        packet[33] |= 1;
        packet
    };
    plane.hop(igw, &syn(CLIENT, SERVER, (1000, 80)));
    plane.hop(app, &fin(SERVER, CLIENT, (80, 1000)));
    plane.hop(igw, &fin(CLIENT, SERVER, (1000, 80)));
    choose_only(&mut plane, 1, &[0, 1]);
    let last = plane.hop(app, &ack(SERVER, CLIENT, (80, 1000), b""));
    assert_eq!(member(&plane, &last), 0);
    let anew = plane.hop(igw, &syn(CLIENT, SERVER, (1000, 80)));
    assert_eq!(member(&plane, &anew), 1);
    // What was there before does not take it back.
    choose_only(&mut plane, 0, &[0, 1]);
    assert_eq!(plane.hop(app, &ack(SERVER, CLIENT, (80, 1000), b"hello")), anew);
    assert_eq!(plane.totals().flows.active(), 1);
}

#[test]
fn a_weighted_group_spreads_flows_and_keeps_both_directions_together() {
    let mut plane = plane(WEIGHTED);
    let (igw, app) = (plane.igw, plane.app);
    let mut flows = BTreeMap::<usize, usize>::new();
    for port in 1..=50 {
        let there = plane.hop(igw, &udp(CLIENT, SERVER, (port, 53), b"asks"));
        assert_eq!(plane.hop(app, &udp(SERVER, CLIENT, (53, port), b"answers")), there);
        *flows.entry(member(&plane, &there)).or_default() += 1;
    }
    assert!(flows.values().all(|count| *count > 10), "{flows:?}");
    // Without a flow in the table the same is chosen.
    plane.change(|view| view.max_new_flows_per_second = 1);
    for port in 60..=90 {
        let there = plane.hop(igw, &udp(CLIENT, SERVER, (port, 53), b"asks"));
        assert_eq!(plane.hop(app, &udp(SERVER, CLIENT, (53, port), b"answers")), there);
    }
    assert!(plane.totals().flows.untracked > 30);
}

#[test]
fn shares_are_as_the_weights_say() {
    let mut plane = plane(WEIGHTED);
    for (shares, expected) in [([75, 25], 0.75), ([50, 50], 0.5), ([1, 100], 1.0 / 101.0)] {
        regroup(&mut plane, |group| {
            let chosen = group.chosen.iter().zip(shares);
            let chosen = chosen.map(|(it, weight)| Candidate { weight, ..*it });
            group.chosen = chosen.collect::<Vec<_>>().into();
        });
        let mut first = 0_u32;
        for port in 1..=4000_u16 {
            let tuple = geneve::flow::FlowKey::new(
                (CLIENT, port).into(),
                (SERVER, 53).into(),
                geneve::inner::protocol::UDP,
            )
            .unwrap();
            let sought = plane.ingress.state.sought(&plane.snapshot, members(&plane)[0], tuple);
            let chosen =
                spread(&plane.snapshot, &sought, &plane.snapshot.groups[0].chosen).unwrap();
            first += u32::from(chosen == members(&plane)[0]);
        }
        let share = f64::from(first) / 4000.0;
        // Five standard deviations.
        let off = 5.0 * (expected * (1.0 - expected) / 4000.0_f64).sqrt();
        assert!((share - expected).abs() < off, "{shares:?}: {share}");
    }
}

#[test]
fn who_traces_a_packet_is_told_the_same_member() {
    for group in [PAIR, WEIGHTED] {
        let mut plane = plane(group);
        let igw = plane.igw;
        for port in 1..=20 {
            let hop = plane.hop(igw, &udp(CLIENT, SERVER, (port, 53), b"asks"));
            let packet = router::trace::Packet {
                source: Some(CLIENT.into()),
                destination: SERVER.into(),
                protocol: Some(router::trace::Protocol(geneve::inner::protocol::UDP)),
                source_port: Some(port),
                destination_port: Some(53),
            };
            for packet in [packet.reversed(), packet] {
                let balancer = Balancer::new(&plane.snapshot, &packet);
                assert_eq!(balancer.member(GroupId::from_index(0), 2), member(&plane, &hop));
            }
        }
    }
}

#[test]
fn every_worker_says_the_same_owner() {
    let mut planes: Vec<_> =
        (0..3).map(|worker| Plane::of_file(file(WEIGHTED, ""), WorkerId(worker), 3)).collect();
    for port in 1..50 {
        let packet = udp(CLIENT, SERVER, (port, 53), b"who");
        let sent: Vec<_> = planes.iter_mut().map(|plane| plane.send(plane.igw, &packet)).collect();
        let owners = sent.iter().filter(|it| matches!(it, Verdict::ToAppliance(_))).count();
        assert_eq!(owners, 1);
        let owner = sent.iter().position(|it| matches!(it, Verdict::ToAppliance(_))).unwrap();
        let agree = sent.iter().all(|verdict| match verdict {
            Verdict::HandOver(to, _) => usize::from(to.0) == owner,
            _ => true,
        });
        assert!(agree, "{sent:?}");
    }
}

#[test]
fn a_chain_leads_through_an_endpoint_and_then_a_group() {
    let mut plane = plane(PAIR);
    let app = plane.app;
    let packet = udp(SERVER, [203, 0, 113, 200], (53, 1000), b"answers");
    let first = plane.hop(app, &packet);
    let (from, datagram) = echo(&first, &packet);
    let local = "192.0.2.1".parse().unwrap();
    let ReturnVerdict::Accept(returned) = plane.returns.handle_datagram(from, local, &datagram)
    else {
        panic!("it is genuine")
    };
    let Way::Onward(came_from) = returned.way else { panic!("{returned:?}") };
    let second = plane.hop(Entry::Endpoint(came_from), &packet);
    assert_eq!(member(&plane, &second), 0);
    assert_ne!(first.header.as_bytes(), second.header.as_bytes());
}

/// However a packet comes back to a group that it is returned from.
#[rstest]
#[case::the_active_member(0)]
#[case::the_other_member(1)]
fn back_to_its_own_group_is_a_loop(#[case] from: usize) {
    // Tables that do so are refused, so the group becomes one that the endpoint in front is of.
    let mut plane = plane(PAIR);
    let app = plane.app;
    let front = plane.snapshot.topology.endpoint_by_name("vpce-first").unwrap();
    regroup(&mut plane, |group| group.members[from] = front);
    let packet = udp(SERVER, [203, 0, 113, 200], (53, 1000), b"answers");
    let hop = plane.hop(app, &packet);
    let (source, datagram) = echo(&hop, &packet);
    let local = "192.0.2.1".parse().unwrap();
    let verdict = plane.returns.handle_datagram(source, local, &datagram);
    assert_eq!(verdict, ReturnVerdict::Drop(DropReason::RoutingLoop));
    let verdict = plane.send(Entry::Endpoint(front), &packet);
    assert!(matches!(verdict, Verdict::Drop(DropReason::RoutingLoop)), "{verdict:?}");
}

#[test]
fn fragments_of_a_packet_stay_together_whatever_is_chosen_meanwhile() {
    let mut plane = plane(PAIR);
    let igw = plane.igw;
    let whole = udp(CLIENT, SERVER, (1000, 53), &[7; 64]);
    let piece = |from: usize, to: usize, more: bool| {
        let mut packet = whole[..20].to_vec();
        packet.extend_from_slice(&whole[20 + from..20 + to]);
        packet[2..4].copy_from_slice(&((20 + to - from) as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&77_u16.to_be_bytes());
        let offset = (from / 8) as u16 | if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&offset.to_be_bytes());
        packet
    };
    // The later one waits; the first one says whose it is.
    let later = piece(32, 72, false);
    assert!(matches!(plane.send(igw, &later), Verdict::Held));
    let first = plane.hop(igw, &piece(0, 32, true));
    choose_only(&mut plane, 1, &[0, 1]);
    let (origin, waiting) = plane.ingress.poll_released().unwrap();
    let frame = Frame::parse(&waiting.packet, &Offload::NONE).unwrap();
    plane.now += Duration::from_millis(1);
    let Verdict::ToAppliance(rest) = plane.ingress.handle_packet(origin, &frame, plane.now) else {
        panic!("its first one was there")
    };
    assert_eq!((member(&plane, &first), member(&plane, &rest)), (0, 0));
    assert_eq!((first.port, first.target), (rest.port, rest.target));
}

#[test]
fn what_is_dropped_before_a_member_is_chosen_is_no_members() {
    let mut plane = plane(PAIR);
    let igw = plane.igw;
    let front = plane.snapshot.topology.endpoint_by_name("vpce-first").unwrap();
    regroup(&mut plane, |group| {
        group.members[0] = front;
        group.chosen = Candidates::default();
    });
    let packet = udp(SERVER, [203, 0, 113, 200], (53, 1000), b"answers");
    let verdict = plane.send(Entry::Endpoint(front), &packet);
    assert!(matches!(verdict, Verdict::Drop(DropReason::RoutingLoop)), "{verdict:?}");
    let verdict = plane.send(igw, &udp(CLIENT, SERVER, (1, 2), b"there"));
    assert!(matches!(verdict, Verdict::Drop(DropReason::NoTarget)), "{verdict:?}");
    let totals = plane.totals();
    let drops = [totals.udp.drops, totals.tun.drops];
    let one = |reason| BTreeMap::from([(reason, 1)]);
    assert_eq!(drops, [one("routing_loop"), one("no_target")]);
    for endpoint in &plane.snapshot.endpoints {
        assert_eq!(endpoint.counters.totals(), EndpointTotals::default());
    }
}
