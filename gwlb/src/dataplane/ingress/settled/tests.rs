//! The short way beside the long one: two planes that get the same packets, of which one has the
//! long way alone, decide the same and come to the same flows.

use std::time::Duration;

use geneve::arbitrary;
use netio::offload::Segmentation;
use proptest::prelude::*;

use super::super::super::testing::{
    CLIENT, CLIENT_V6, Plane, SERVER, SERVER_V6, ack, ack_v6, udp, udp_v6,
};
use super::*;
use crate::dataplane::flow_table::Flow;
use crate::dataplane::keys::{Keys, Secret};
use crate::dataplane::select::Candidates;
use crate::dataplane::snapshot::ResetCause;
use crate::dataplane::verdict::Verdict;

/// What a packet of a flow of these few can be.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Tcp(TcpFlags, u8),
    Udp(u8),
    /// A super-packet of so many segments of so many bytes.
    Super(u16, u8),
}

#[derive(Debug, Clone)]
enum Step {
    /// Packets that are glanced at before the first of them is handled: flow, direction and kind.
    Batch(Vec<(u16, bool, Kind)>),
    Wait(u64),
    Fate(Fate),
    Narrow(u16),
    Timers(u64),
    /// So many new flows in a second, and whether the MSS is clamped.
    Admit(u32, bool),
    /// Nobody is a candidate, or everybody again.
    Candidates(bool),
    Bypass(bool),
    BothEnds(bool),
    /// Cookies are made with the key of this epoch from now on.
    Epoch(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(vec![
        TcpFlags::ACK,
        TcpFlags::ACK,
        TcpFlags::ACK | TcpFlags::PSH,
        TcpFlags::SYN,
        TcpFlags::SYN | TcpFlags::ACK,
        TcpFlags::FIN | TcpFlags::ACK,
        TcpFlags::RST,
        TcpFlags::RST | TcpFlags::ACK,
    ]);
    let kind = prop_oneof![
        6 => (flags, any::<u8>()).prop_map(|(flags, len)| Kind::Tcp(flags, len)),
        2 => any::<u8>().prop_map(Kind::Udp),
        1 => (1u16..1500, 1u8..20).prop_map(|(size, count)| Kind::Super(size, count)),
    ];
    let fate =
        prop::sample::select(vec![Fate::Stay, Fate::Rebalance, Fate::Reset(ResetCause::Unhealthy)]);
    prop_oneof![
        20 => prop::collection::vec((0u16..4, any::<bool>(), kind), 1..6).prop_map(Step::Batch),
        2 => prop_oneof![0u64..100, 29_000u64..31_000, 119_000u64..121_000, 349_000u64..351_000]
            .prop_map(Step::Wait),
        1 => fate.prop_map(Step::Fate),
        1 => prop::sample::select(vec![600u16, 1280, 9000]).prop_map(Step::Narrow),
        1 => (60u64..400).prop_map(Step::Timers),
        1 => (0u32..30, any::<bool>()).prop_map(|(limit, clamp)| Step::Admit(limit, clamp)),
        1 => any::<bool>().prop_map(Step::Candidates),
        1 => any::<bool>().prop_map(Step::Bypass),
        1 => any::<bool>().prop_map(Step::BothEnds),
        1 => (0u64..3).prop_map(Step::Epoch),
    ]
}

/// Every other flow is of IPv6.
fn packet(flow: u16, back: bool, kind: Kind) -> (Vec<u8>, Offload) {
    let v6 = flow % 2 == 1;
    let (mut ends, mut ends_v6) = ([CLIENT, SERVER], [CLIENT_V6, SERVER_V6]);
    let mut ports = (1000 + flow, 80);
    if back {
        ends.reverse();
        ends_v6.reverse();
        ports = (ports.1, ports.0);
    }
    let ([src, dst], [src_v6, dst_v6]) = (ends, ends_v6);
    let tcp = |len: usize| {
        let payload = vec![1; len];
        if v6 { ack_v6(src_v6, dst_v6, ports, &payload) } else { ack(src, dst, ports, &payload) }
    };
    match kind {
        Kind::Udp(len) => {
            let payload = vec![1; len.into()];
            let packet = if v6 {
                udp_v6(src_v6, dst_v6, ports, &payload)
            } else {
                udp(src, dst, ports, &payload)
            };
            (packet, Offload::NONE)
        }
        Kind::Tcp(flags, len) => {
            let mut packet = tcp(len.into());
            packet[if v6 { 40 } else { 20 } + 13] = flags.0;
            (packet, Offload::NONE)
        }
        Kind::Super(size, count) => {
            let packet = tcp(usize::from(size) * usize::from(count));
            let segment = Segmentation::Tcp { size, ecn: false };
            (packet, Offload { segment, ..Offload::NONE })
        }
    }
}

/// What a verdict says, in a form that can be compared.
fn told(verdict: Verdict) -> String {
    match verdict {
        Verdict::ToAppliance(hop) => format!("{hop:?}"),
        Verdict::Reply(reply) => format!("{:?} {:?}", reply.cause, reply.packet.bytes()),
        other => format!("{other:?}"),
    }
}

/// All flows, and how long each is remembered from now on.
fn flows(plane: &Plane) -> Vec<String> {
    let flows = plane.ingress.flows();
    let told = |number| {
        let Flow { id, placement, tcp, deadline } = flows.get(number);
        let left = deadline.saturating_duration_since(plane.now);
        let (cookie, ends) = (flows.cookie(number), flows.ends(number));
        format!("{id:?} {placement:?} {tcp:?} {left:?} {cookie:?} {ends:?}")
    };
    flows.in_range(0..flows.numbers()).map(told).collect()
}

fn change(plane: &mut Plane, change: impl FnOnce(&mut Snapshot)) {
    let mut snapshot = Snapshot::clone(&plane.snapshot);
    change(&mut snapshot);
    plane.snapshot = std::sync::Arc::new(snapshot);
    plane.ingress.handle_snapshot(std::sync::Arc::clone(&plane.snapshot), plane.now);
}

fn glance(entrance: &Entrance<'_>, packet: &[u8], offload: &Offload) -> Option<Glance> {
    let mut glance = None;
    entrance.glance(packet, offload, &mut entrance.routes.lookups(), &mut glance);
    glance
}

/// Sends packets as a batch, each by the short way if it is open; says what becomes of each, and
/// whether it went that way.
fn send(plane: &mut Plane, batch: &[(bool, Vec<u8>, Offload)]) -> Vec<(String, bool)> {
    let origins = [plane.igw, plane.app].map(Origin::from);
    let origin = |back: bool| origins[usize::from(back)];
    let mut glances: Vec<_> = batch
        .iter()
        .map(|(back, packet, offload)| {
            glance(&plane.ingress.entrance(origin(*back)), packet, offload)
        })
        .collect();
    for glance in glances.iter_mut().flatten() {
        plane.ingress.prefetch(glance);
    }
    let mut told_all = Vec::new();
    for ((back, packet, offload), glance) in batch.iter().zip(glances) {
        let course = glance.as_ref().and_then(|it| plane.shortcut(it));
        let frame = Frame::parse(packet, offload).unwrap();
        let verdict = if let Some(course) = course {
            Verdict::ToAppliance(course.hop(&plane.snapshot))
        } else {
            plane.ingress.handle_glanced(origin(*back), &frame, glance.as_ref(), plane.now)
        };
        told_all.push((told(verdict), course.is_some()));
    }
    told_all
}

type Edit = Box<dyn Fn(&mut Snapshot)>;

/// What a step changes in the configuration, if it does.
fn edit(step: &Step) -> Option<Edit> {
    Some(match *step {
        Step::Batch(_) | Step::Wait(_) => return None,
        Step::Fate(fate) => Box::new(move |it| it.pools[0].fates = vec![fate, Fate::Stay]),
        Step::Narrow(mtu) => {
            Box::new(move |it| it.targets.iter_mut().for_each(|it| it.usable_mtu = Some(mtu)))
        }
        Step::Timers(seconds) => Box::new(move |it| {
            let timers = &mut it.pools[0].timers;
            timers.tcp_idle = Duration::from_secs(seconds);
            timers.other_idle = Duration::from_secs(seconds / 2);
        }),
        Step::Admit(limit, clamp) => Box::new(move |it| {
            it.max_new_flows_per_second = limit;
            it.pools[0].mss_clamp = clamp;
        }),
        Step::Candidates(some) => {
            let all = Plane::new("drop").snapshot.pools[0].candidates.clone();
            let candidates = if some { all } else { Candidates::default() };
            Box::new(move |it| it.pools[0].candidates.clone_from(&candidates))
        }
        Step::Bypass(on) => {
            let mode = if on { TrafficMode::Bypass } else { TrafficMode::default() };
            Box::new(move |it| it.pools[0].traffic_mode = mode)
        }
        Step::BothEnds(on) => Box::new(move |it| it.pools[0].reset_both_ends = on),
        Step::Epoch(epoch) => Box::new(move |it| {
            it.keys = Keys::derive(&Secret::from_bytes([9; Secret::LEN]), epoch);
        }),
    })
}

/// Plays steps by both ways, and says how many packets went the short way.
fn play(steps: &[Step]) -> Result<usize, TestCaseError> {
    let (mut short, mut long) = (Plane::new("drop"), Plane::new("drop"));
    let mut taken = 0;
    for step in steps {
        if let Some(edit) = edit(step) {
            change(&mut short, &edit);
            change(&mut long, &edit);
        }
        if let Step::Wait(millis) = step {
            for plane in [&mut short, &mut long] {
                plane.now += Duration::from_millis(*millis);
                plane.ingress.handle_timeout(plane.now);
            }
        }
        if let Step::Batch(packets) = step {
            let made = packets.iter().map(|&(flow, back, kind)| {
                let (packet, offload) = packet(flow, back, kind);
                (back, packet, offload)
            });
            let batch: Vec<_> = made.collect();
            for ((back, packet, offload), (by_short, was_short)) in
                batch.iter().zip(send(&mut short, &batch))
            {
                let origin = Origin::from(if *back { long.app } else { long.igw });
                let frame = Frame::parse(packet, offload).unwrap();
                let by_long = told(long.ingress.handle_packet(origin, &frame, long.now));
                prop_assert_eq!(by_short, by_long, "{:?}", step);
                taken += usize::from(was_short);
            }
        }
        prop_assert_eq!(flows(&short), flows(&long), "after {:?}", step);
        let counted = [&short, &long].map(Plane::totals);
        prop_assert_eq!(&counted[0].flows, &counted[1].flows);
    }
    Ok(taken)
}

proptest! {
    #[test]
    fn the_short_way_leads_where_the_long_one_does(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        play(&steps)?;
    }

    /// Of whatever comes, a glance tells what a closer look does.
    #[test]
    fn a_glance_is_right(packet in arbitrary::packet(), size: u16) {
        let plane = Plane::new("drop");
        let segment = Segmentation::Tcp { size, ecn: false };
        for offload in [Offload::NONE, Offload { segment, ..Offload::NONE }] {
            let entrance = plane.ingress.entrance(plane.app.into());
            if let Some(glance) = glance(&entrance, &packet.bytes, &offload) {
                let frame = Frame::parse(&packet.bytes, &offload).unwrap();
                let framed = glance.frame(&packet.bytes, &offload);
                prop_assert_eq!((framed.inner, framed.shape), (frame.inner, frame.shape));
                prop_assert_eq!(framed.packet, frame.packet);
            }
        }
    }

    /// And the flow that it looks for is the one that the long way does, whatever makes a flow.
    #[test]
    fn a_glance_looks_for_the_same_flow(packet in arbitrary::packet()) {
        for stickiness in Stickiness::ALL {
            let mut plane = Plane::new("drop");
            plane.change(|snapshot| {
                snapshot.pools.iter_mut().for_each(|pool| pool.stickiness = stickiness);
            });
            let Ingress { state, shortcuts, .. } = &plane.ingress;
            let entrance = plane.ingress.entrance(plane.app.into());
            if let Some(glance) = glance(&entrance, &packet.bytes, &Offload::NONE) {
                let frame = Frame::parse(&packet.bytes, &Offload::NONE).unwrap();
                let tuple = frame.inner.flow_key();
                let sought = state.sought(&plane.snapshot, glance.endpoint, tuple);
                let aim = glance.aim(shortcuts).unwrap();
                prop_assert_eq!((aim.flow.id, aim.flow.hash), (sought.id, sought.hash));
                prop_assert_eq!((aim.flow.tuple, aim.endpoint), (tuple, glance.endpoint));
            }
        }
    }
}

/// What was seen of a batch is of that batch, be it shorter than the one before.
#[test]
fn nothing_of_an_earlier_batch_is_left() {
    let plane = Plane::new("drop");
    let entrance = plane.ingress.entrance(plane.igw.into());
    let packet = udp([203, 0, 113, 7], [10, 0, 1, 11], (5000, 53), b"hello");
    let (ordinary, other) = ((&packet[..], &Offload::NONE), (&[0xff; 60][..], &Offload::NONE));
    let mut glances = Vec::new();
    for (batch, expected) in [
        (vec![ordinary; 3], vec![true; 3]),
        (vec![other, ordinary], vec![false, true]),
        (vec![other; 3], vec![false; 3]),
        (vec![], vec![]),
    ] {
        entrance.glance_all(batch.into_iter(), &mut glances);
        let seen: Vec<_> = glances.iter().map(Option::is_some).collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn an_established_connection_goes_the_short_way() {
    for flow in [0, 1] {
        let packet = |flags, back| Step::Batch(vec![(flow, back, Kind::Tcp(flags, 9))]);
        let data = |back| packet(TcpFlags::ACK, back);
        let steps =
            [packet(TcpFlags::SYN, false), data(true), data(false), data(true), data(false)];
        assert_eq!(play(&steps).unwrap(), 4, "all but the answer, which settles it");
    }
}

#[test]
fn what_is_too_long_goes_the_long_way() {
    for flow in [0, 1] {
        let step = |back, kind| Step::Batch(vec![(flow, back, kind)]);
        let data = |back| step(back, Kind::Tcp(TcpFlags::ACK, 9));
        let long = || step(false, Kind::Super(1300, 3));
        let known = [step(false, Kind::Tcp(TcpFlags::SYN, 0)), data(true), data(false)];
        let fits = [&known[..], &[long()]].concat();
        let too_long = [&known[..], &[Step::Narrow(600), long()]].concat();
        assert_eq!(play(&fits).unwrap(), 3, "all but the answer");
        assert_eq!(play(&too_long).unwrap(), 2, "nor what does not fit");
    }
}
