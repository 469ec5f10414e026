use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use geneve::flow::FlowKey;
use geneve::inner::{Inner, TcpFlags};
use netio::offload::Offload;
use proptest::prelude::*;
use router::Entry;

use super::super::super::flow_log::{FlowLogTap, Inspected, LogEntry, LoggedTraffic};
use super::super::super::flow_table::record::Placed;
use super::super::super::testing::{CLIENT, CONFIGURATION, Plane, SERVER, ack, start, syn, udp};
use super::*;
use crate::config::TrafficMode;
use crate::dataplane::snapshot::{Fate, TargetSlot};
use crate::dataplane::verdict::{Verdict, WorkerId};

const WINDOW: Duration = Duration::from_mins(1);

/// All that a worker has told by now; what is due is done before.
fn told(plane: &mut Plane, tap: &FlowLogTap) -> (Vec<LoggedTraffic>, usize) {
    let (mut traffic, mut closed) = (Vec::new(), 0);
    loop {
        while let Some(entry) = tap.queue.pop() {
            match entry {
                LogEntry::Traffic(one) => traffic.push(one),
                LogEntry::Closed { lost, .. } => {
                    assert_eq!(lost, 0);
                    closed += 1;
                }
            }
        }
        if plane.ingress.poll_timeout().is_none_or(|due| due > plane.now) {
            return (traffic, closed);
        }
        plane.ingress.handle_timeout(plane.now);
    }
}

/// Sends a packet by the short way, if it takes it, or else by the long one; says who inspects it.
fn pass(plane: &mut Plane, from: Entry, packet: &[u8]) -> Option<Inspected> {
    let mut glances = Vec::new();
    plane
        .ingress
        .entrance(from.into())
        .glance_all(std::iter::once((packet, &Offload::NONE)), &mut glances);
    if let Some(Some(glance)) = glances.first_mut() {
        plane.ingress.prefetch(glance);
        if let Some(course) = plane.shortcut(glance) {
            return Some(Inspected::Target(plane.snapshot.target(course.target).address));
        }
    }
    match plane.send(from, packet) {
        Verdict::ToAppliance(hop) => Some(Inspected::Target(hop.address)),
        Verdict::Bypass(_) => Some(Inspected::Bypass),
        _ => None,
    }
}

#[test]
fn a_record_says_who_began_a_flow_and_what_went_each_way() {
    for by_short_way in [true, false] {
        let mut plane = Plane::new("drop");
        let (igw, app) = (plane.igw, plane.app);
        let begun = plane.now;
        let packets = [
            (igw, syn(CLIENT, SERVER, (4711, 443)), 0),
            (app, ack(SERVER, CLIENT, (443, 4711), b""), 10),
            (igw, ack(CLIENT, SERVER, (4711, 443), b"hello"), 20),
            (igw, ack(CLIENT, SERVER, (4711, 443), b"hello again"), 30),
        ];
        for (from, packet, at) in &packets {
            plane.now = begun + Duration::from_secs(*at);
            if by_short_way {
                pass(&mut plane, *from, packet);
            } else {
                plane.send(*from, packet);
            }
        }
        let flows = plane.ingress.flows();
        let number = flows.in_range(0..1).next().unwrap();
        let (flow, record) = (flows.get(number), flows.record(number).unwrap());
        let client = usize::from(flow.id.tuple.low().ip() != std::net::IpAddr::from(CLIENT));
        assert_eq!((record.placed, record.initiator), (Placed::New, Some(client)));
        let [from_client, from_server] = [record.ends[client], record.ends[1 - client]];
        assert_eq!((from_client.packets, from_client.bytes), (3, 40 + 45 + 51));
        assert_eq!((from_server.packets, from_server.bytes), (1, 40));
        assert_eq!(from_client.flags, TcpFlags::SYN | TcpFlags::ACK);
        assert_eq!(from_server.flags, TcpFlags::ACK);
        assert_eq!((seconds(from_client.last), seconds(from_server.last)), (30, 10));
        assert_eq!(seconds(Some(record.life())), 30);
    }
}

#[test]
fn a_record_says_why_a_flow_is_where_it_is() {
    let mut plane = Plane::new("adopt");
    let (igw, packet) = (plane.igw, ack(CLIENT, SERVER, (4711, 443), b"hello"));
    plane.hop(igw, &packet);
    let placed = |plane: &Plane| {
        let flows = plane.ingress.flows();
        flows.record(flows.in_range(0..9).next().unwrap()).unwrap()
    };
    let record = placed(&plane);
    assert_eq!((record.placed, record.initiator), (Placed::Adopted, None));
    let number = plane.ingress.flows().in_range(0..9).next().unwrap();
    let Inspector::Target(TargetSlot(slot)) = plane.ingress.flows().placement(number).inspector
    else {
        panic!("somebody inspects it")
    };
    plane.change(|view| {
        let pool = &mut view.pools[0];
        pool.fates = vec![Fate::Stay; 2];
        pool.fates[slot as usize] = Fate::Rebalance;
        let others = pool.candidates.iter().filter(|it| it.target.0 != slot).copied();
        pool.candidates = others.collect::<Vec<_>>().into();
    });
    plane.now += Duration::from_secs(7);
    plane.hop(igw, &packet);
    let record = placed(&plane);
    assert_eq!((record.placed, record.initiator), (Placed::Rebalanced, None));
    assert_eq!(seconds(record.placed_at.checked_sub(record.began)), 7);
    let reset = {
        let mut reset = packet.clone();
        reset[33] = TcpFlags::RST.0;
        reset
    };
    plane.hop(igw, &reset);
    plane.hop(igw, &syn(CLIENT, SERVER, (4711, 443)));
    let record = placed(&plane);
    assert_eq!(record.placed, Placed::Reopened);
    assert_eq!(record.ends.iter().map(|end| end.packets).sum::<u64>(), 1, "of the new one");
}

#[test]
fn what_goes_nowhere_is_told_with_its_reason() {
    let (mut plane, tap) = Plane::logged(WINDOW, 64);
    let (igw, app) = (plane.igw, plane.app);
    plane.send(igw, &ack(CLIENT, SERVER, (1, 80), b"unknown"));
    plane.send(igw, &ack(CLIENT, SERVER, (1, 80), b"again"));
    plane.send(app, &udp(SERVER, [198, 51, 100, 3], (1, 53), b"blackhole"));
    plane.now += WINDOW;
    let (mut traffic, closed) = told(&mut plane, &tap);
    traffic.sort_by_key(|one| one.rejected);
    assert_eq!((traffic.len(), closed), (2, 1));
    assert_eq!(traffic[0].rejected, Some(DropReason::Blackhole));
    assert_eq!((traffic[0].endpoint, traffic[0].packets), (None, 1));
    let wire_id = plane.snapshot.endpoints[0].wire_id;
    assert_eq!(traffic[1].rejected, Some(DropReason::UnknownTcpFlow));
    assert_eq!((traffic[1].endpoint, traffic[1].packets), (Some(wire_id), 2));
    assert_eq!(traffic[1].key.src(), std::net::IpAddr::from(CLIENT));
}

/// The gateway goes into bypass and back: each record says who inspected its packets, and none has
/// packets of both kinds.
#[test]
fn packets_that_bypass_are_logged_as_such_though_their_flow_has_a_target() {
    let (mut plane, tap) = Plane::logged(WINDOW, 64);
    let (igw, packet) = (plane.igw, udp(CLIENT, SERVER, (1, 53), b"x"));
    let answer = udp(SERVER, CLIENT, (53, 1), b"x");
    let mode = |plane: &mut Plane, mode| plane.change(|view| view.pools[0].traffic_mode = mode);
    let told = |plane: &mut Plane| -> Vec<_> {
        plane.now += WINDOW;
        let (traffic, _) = told(plane, &tap);
        traffic.iter().map(|one| (one.inspector, one.cookie.is_some(), one.packets)).collect()
    };
    pass(&mut plane, igw, &packet);
    let before = told(&mut plane);
    let [(Some(Inspected::Target(_)), true, 1)] = before[..] else { panic!("{before:?}") };
    mode(&mut plane, TrafficMode::Bypass);
    pass(&mut plane, igw, &packet);
    assert_eq!(told(&mut plane), [(Some(Inspected::Bypass), false, 1)]);
    // There and back in one window, each time with the end that was not heard of before.
    let app = plane.app;
    pass(&mut plane, igw, &packet);
    mode(&mut plane, TrafficMode::LoadBalance);
    for _ in 0..3 {
        pass(&mut plane, app, &answer);
    }
    for _ in 0..4 {
        pass(&mut plane, igw, &packet);
    }
    mode(&mut plane, TrafficMode::Bypass);
    pass(&mut plane, app, &answer);
    let mut all = told(&mut plane);
    all.sort_by_key(|(inspector, _, packets)| (*inspector == Some(Inspected::Bypass), *packets));
    let (target, bypass) = (before[0].0, Some(Inspected::Bypass));
    assert_eq!(all, [(target, true, 3), (target, true, 4), (bypass, false, 1), (bypass, false, 1)]);
}

/// A packet that passes one endpoint and is dropped at the next is the next one's.
#[test]
fn what_is_dropped_is_logged_at_the_endpoint_that_dropped_it() {
    let to_igw = r#"{ destination = "0.0.0.0/0", internet_gateway = "igw" }"#;
    let through_b = r#"{ destination = "10.0.1.0/24", endpoint = "vpce-b" }"#;
    let routes_of_a =
        format!(r#"routes = [{to_igw}, {{ destination = "::/0", internet_gateway = "igw" }}]"#);
    let configuration = CONFIGURATION.replace("UNKNOWN_FLOW", "drop");
    assert!(configuration.contains(&routes_of_a));
    let routes = routes_of_a.replace("[{", &format!("[{through_b}, {{"));
    let text = configuration.replace(&routes_of_a, &routes) + SECOND;
    for (second_bypasses, reason, dropped_at) in
        [(false, DropReason::NoTarget, Some(1)), (true, DropReason::NotAttached, None)]
    {
        let start = start();
        let tap = FlowLogTap { window: WINDOW, start, queue: Arc::new(ArrayQueue::new(64)) };
        let mut plane = Plane::of_file_logged(text.clone(), WorkerId(0), 1, Some(tap.clone()));
        plane.now = start;
        plane.change(|view| {
            for (number, endpoint) in view.endpoints.iter().enumerate() {
                if number == 0 || second_bypasses {
                    view.pools[usize::from(endpoint.pool.0)].traffic_mode = TrafficMode::Bypass;
                }
            }
            view.attachments.clear();
        });
        let verdict = plane.send(plane.igw, &udp(CLIENT, SERVER, (1, 53), b"x"));
        assert!(matches!(verdict, Verdict::Drop(it) if it == reason), "{verdict:?}");
        plane.now += WINDOW;
        let (traffic, _) = told(&mut plane, &tap);
        let ids: Vec<_> = plane.snapshot.endpoints.iter().map(|it| it.wire_id).collect();
        let rejected: Vec<_> = traffic.iter().filter(|it| it.rejected.is_some()).collect();
        assert_eq!(rejected.len(), 1);
        assert_eq!(rejected[0].endpoint, dropped_at.map(|number: usize| ids[number]));
        let accepted = traffic.iter().filter(|it| it.rejected.is_none());
        let accepted: Vec<_> = accepted.filter_map(|it| it.endpoint).collect();
        assert_eq!(accepted, if second_bypasses { ids } else { vec![ids[0]] });
    }
}

/// A second endpoint, whose load balancer has no targets.
const SECOND: &str = r#"
[[subnet]]
name = "gwlbe-b"
vpc = "app"
zone = "az1"
cidrs = ["10.0.102.0/28", "fd00:10:0:102::/64"]
route_table = "gwlbe-b"
[[route_table]]
name = "gwlbe-b"
vpc = "app"
routes = [{ destination = "0.0.0.0/0", internet_gateway = "igw" }]
[[endpoint]]
name = "vpce-b"
subnet = "gwlbe-b"
service = "second"
[[endpoint_service]]
name = "second"
load_balancers = ["fw2"]
[[load_balancer]]
name = "fw2"
target_group = "fw2"
nodes = [{ zone = "az1", address = "192.0.2.2" }]
[[target_group]]
name = "fw2"
"#;

/// Between a packet and the end of its window another target may get the slot.
#[test]
fn a_record_names_the_target_that_the_packets_went_to() {
    let (mut plane, tap) = Plane::logged(Duration::from_mins(10), 4096);
    let igw = plane.igw;
    for port in 1..=100 {
        plane.hop(igw, &udp(CLIENT, SERVER, (port, 53), b"fills the table"));
    }
    let packet = udp(CLIENT, SERVER, (200, 53), b"of no flow");
    let first = plane.hop(igw, &packet).address;
    plane.change(|view| {
        for target in &mut view.targets {
            target.address.set_port(6082);
        }
    });
    let second = plane.hop(igw, &packet).address;
    assert_ne!(first, second);
    plane.hop(igw, &packet);
    plane.now += Duration::from_mins(10);
    let (traffic, _) = told(&mut plane, &tap);
    let of_packet = traffic.iter().filter(|one| one.key.src_port() == 200);
    let mut of_packet: Vec<_> = of_packet.map(|one| (one.packets, one.inspector)).collect();
    of_packet.sort_by_key(|(packets, _)| *packets);
    let target = |address| Some(Inspected::Target(address));
    assert_eq!(of_packet, [(1, target(first)), (2, target(second))]);
}

/// Nobody empties the queue: packets go on, and what is lost is counted and told.
#[test]
fn a_full_queue_loses_records_and_no_packets() {
    let (mut plane, tap) = Plane::logged(WINDOW, 4);
    let igw = plane.igw;
    for port in 1..=20 {
        plane.hop(igw, &udp(CLIENT, SERVER, (port, 53), b"hello"));
    }
    // All end before their window does, and so cannot wait for room.
    plane.now += Duration::from_mins(10);
    for _ in 0..2000 {
        plane.ingress.handle_timeout(plane.now);
        plane.now += Duration::from_millis(5);
    }
    let counters = plane.totals().flow_log;
    assert_eq!((counters.records, counters.lost), (4, 16));
    while tap.queue.pop().is_some() {}
    let mut told = Vec::new();
    for _ in 0..10 {
        plane.now += WINDOW;
        plane.ingress.handle_timeout(plane.now);
        told.extend(std::iter::from_fn(|| tap.queue.pop()));
    }
    let lost = told.iter().map(|entry| match entry {
        LogEntry::Closed { lost, .. } => *lost,
        LogEntry::Traffic(_) => 0,
    });
    assert_eq!(lost.sum::<u64>(), 16);
    plane.hop(igw, &udp(CLIENT, SERVER, (99, 53), b"hello"));
}

/// Whatever a window is at when the end comes, nothing of it is missing.
#[test]
fn the_end_leaves_nothing_out() {
    for closing in [false, true] {
        let (mut plane, tap) = Plane::logged(WINDOW, 4096);
        let igw = plane.igw;
        let send = |plane: &mut Plane| {
            for port in 1..=90 {
                plane.hop(igw, &udp(CLIENT, SERVER, (port, 53), b"hello"));
            }
        };
        send(&mut plane);
        if closing {
            plane.now += WINDOW;
            plane.ingress.handle_timeout(plane.now);
            send(&mut plane);
        }
        let mut steps = 0;
        while !plane.ingress.finish_logs(plane.now) {
            steps += 1;
            assert!(steps < 100);
        }
        let told = std::iter::from_fn(|| tap.take());
        let packets = told.map(|entry| match entry {
            LogEntry::Traffic(one) => one.packets,
            LogEntry::Closed { .. } => 0,
        });
        assert_eq!(packets.sum::<u64>(), if closing { 180 } else { 90 });
        assert!(plane.ingress.finish_logs(plane.now), "once");
    }
}

/// Whoever writes the logs does not keep up with the end: what is lost then is counted.
#[test]
fn what_the_end_leaves_no_time_for_is_counted() {
    let (mut plane, tap) = Plane::logged(WINDOW, 4);
    let igw = plane.igw;
    for port in 1..=20 {
        plane.hop(igw, &udp(CLIENT, SERVER, (port, 53), b"hello"));
    }
    plane.send(igw, &ack(CLIENT, SERVER, (1, 80), b"unknown"));
    while tap.queue.push(LogEntry::Closed { worker: WorkerId(1), end: plane.now, lost: 0 }).is_ok()
    {
    }
    assert!((0..100).all(|_| !plane.ingress.finish_logs(plane.now)), "it waits for room");
    plane.ingress.give_up_logs();
    assert!((0..100).any(|_| plane.ingress.finish_logs(plane.now)));
    let counters = plane.totals().flow_log;
    assert_eq!((counters.records, counters.lost), (0, 21));
}

/// More kinds of packets without a flow than are kept apart: what is lost are packets, not records.
#[test]
fn packets_that_come_into_no_record_are_counted_as_packets() {
    let (mut plane, tap) = Plane::logged(WINDOW, 1 << 14);
    let igw = plane.igw;
    for port in 1..=4100 {
        plane.send(igw, &ack(CLIENT, SERVER, (port, 80), b"unknown"));
    }
    plane.send(igw, &ack(CLIENT, SERVER, (4100, 80), b"again"));
    plane.now += WINDOW;
    let mut lost = 0;
    for _ in 0..100 {
        plane.ingress.handle_timeout(plane.now);
        while let Some(entry) = tap.take() {
            lost += if let LogEntry::Closed { lost, .. } = entry { lost } else { 0 };
        }
    }
    let counters = plane.totals().flow_log;
    assert_eq!((counters.records, counters.lost, counters.strays_lost, lost), (4096, 0, 5, 5));
}

/// Nobody asks about a fragment again that has waited in vain; it is in the log all the same.
#[test]
fn a_fragment_whose_first_one_never_came_is_logged() {
    let (mut plane, tap) = Plane::logged(WINDOW, 64);
    let mut fragment = udp(CLIENT, SERVER, (1, 53), b"the rest of it");
    // Fragment offset 8 (RFC 791), and the header checksum set right.
    fragment[6..8].copy_from_slice(&1u16.to_be_bytes());
    fragment[10..12].fill(0);
    let sum = fragment[..20].chunks(2).map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])));
    let sum = sum.sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    fragment[10..12].copy_from_slice(&sum.to_be_bytes());
    assert!(matches!(plane.send(plane.igw, &fragment), Verdict::Held));
    plane.now += WINDOW;
    plane.ingress.handle_timeout(plane.now);
    plane.now += WINDOW;
    let (traffic, _) = told(&mut plane, &tap);
    let told: Vec<_> = traffic.iter().map(|it| (it.endpoint, it.rejected, it.packets)).collect();
    let wire_id = plane.snapshot.endpoints[0].wire_id;
    assert_eq!(told, [(Some(wire_id), Some(DropReason::FragmentWithoutFirst), 1)]);
}

proptest! {
    /// Whatever flows do, what is told of all windows is what was sent: packets that went on, by the
    /// direction that they went in and by who inspected them, and those that did not, whenever the
    /// gateway goes into bypass and back.
    #[test]
    fn windows_add_up_to_what_was_sent(
        steps in prop::collection::vec((0u16..4, 0u8..7, 0usize..700, 0u64..90), 1..120),
    ) {
        let (mut plane, tap) = Plane::logged(WINDOW, 4096);
        let (igw, app) = (plane.igw, plane.app);
        let mut sent = BTreeMap::<String, (u64, u64)>::new();
        let mut logged = BTreeMap::<String, (u64, u64)>::new();
        let mut windows = Vec::new();
        let begun = plane.now;
        for (port, kind, payload, pause) in steps {
            plane.now += Duration::from_secs(pause);
            let payload = vec![7; payload];
            let (from, packet) = match kind {
                0 => (igw, syn(CLIENT, SERVER, (1000 + port, 443))),
                1 => (igw, ack(CLIENT, SERVER, (1000 + port, 443), &payload)),
                2 => (app, ack(SERVER, CLIENT, (443, 1000 + port), &payload)),
                3 => (igw, udp(CLIENT, SERVER, (1000 + port, 53), &payload)),
                4 => (app, udp(SERVER, CLIENT, (53, 1000 + port), &payload)),
                5 => {
                    let mut end = ack(CLIENT, SERVER, (1000 + port, 443), &[]);
                    end[33] |= if payload.len() % 2 == 0 { TcpFlags::FIN.0 } else { TcpFlags::RST.0 };
                    (igw, end)
                }
                _ => {
                    plane.change(|view| {
                        let mode = &mut view.pools[0].traffic_mode;
                        *mode = match mode {
                            TrafficMode::Bypass => TrafficMode::LoadBalance,
                            TrafficMode::LoadBalance => TrafficMode::Bypass,
                        };
                    });
                    windows.extend(told(&mut plane, &tap).0);
                    continue;
                }
            };
            let inspected = pass(&mut plane, from, &packet);
            let key = Inner::parse(&packet).unwrap().flow_key();
            let sum = sent.entry(name(&key, inspected)).or_default();
            *sum = (sum.0 + 1, sum.1 + packet.len() as u64);
            windows.extend(told(&mut plane, &tap).0);
        }
        plane.now += WINDOW;
        windows.extend(told(&mut plane, &tap).0);
        for one in windows {
            prop_assert!(one.first <= one.last && one.last <= plane.now);
            prop_assert!(one.last - one.first <= WINDOW + Duration::from_secs(90));
            prop_assert!(one.last >= begun);
            let sum = logged.entry(name(&one.key, one.inspector)).or_default();
            *sum = (sum.0 + one.packets, sum.1 + one.bytes);
        }
        prop_assert_eq!(logged, sent);
        prop_assert_eq!(plane.totals().flow_log.lost, 0);
    }
}

/// In whole seconds, which records are kept to and better.
fn seconds(time: Option<Duration>) -> u64 {
    (time.unwrap() + Duration::from_millis(500)).as_secs()
}

fn name(key: &FlowKey, inspected: Option<Inspected>) -> String {
    format!("{key:?} {inspected:?}")
}
