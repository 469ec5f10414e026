use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use netio::mem::Commit;
use rstest::rstest;

use super::super::snapshot::Snapshot;
use super::super::testing::{CLIENT, GATEWAY, PUBLIC, Plane, SERVER, ack, syn, udp};
use super::super::{Ingress, IngressConfig};
use super::*;
use crate::config::TrafficMode;

/// Devices are called as what they are at, and ports are numbers of sockets.
struct Plain<'a>(&'a Snapshot);

impl Surroundings for Plain<'_> {
    fn device(&self, at: Attachment) -> Option<String> {
        Some(self.0.topology.attachment_name(at).to_owned())
    }

    fn is_own_probe(&self, keys: &Keys, payload: &[u8]) -> bool {
        crate::control::recognise(keys, payload).is_some()
    }

    fn source_port(&self, _: WorkerId, port: u16) -> Option<u16> {
        Some(61_000 + port)
    }
}

fn told(plane: &Plane, given: Given) -> Explanation {
    let fragments = FragmentTable::default();
    let question = Question::new(&plane.snapshot, &fragments, given, plane.now);
    assert_eq!(question.owners().collect::<Vec<_>>(), [WorkerId(0)]);
    let excerpt = plane.ingress.excerpt(question.flows());
    let around = Plain(&plane.snapshot);
    let of = question.fragments(&fragments);
    explain(&question, vec![excerpt], of, &around, plane.now).unwrap()
}

fn entering(plane: &Plane, at: Entry, packet: &[u8]) -> Explanation {
    told(plane, Given::Entering { at, packet: packet.to_vec(), offload: Offload::NONE })
}

#[test]
fn a_new_connection_is_followed_from_the_internet_to_the_server() {
    let plane = Plane::new("drop");
    let explanation = entering(&plane, plane.igw, &syn(CLIENT, PUBLIC, (4711, 443)));
    assert!(explanation.delivered, "{explanation}");
    assert_eq!(explanation.end, "delivered to subnet:app-a");
    let kinds: Vec<_> = serde_json::to_value(&explanation.steps)
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "enters",
        "translated",
        "routed",
        "endpoint",
        "flow",
        "encapsulated",
        "returned",
        "accepted",
        "routed",
        "leaves",
    ];
    assert_eq!(kinds, expected);
    let Step::Flow { known: None, becomes: Some(flow), candidates, .. } = &explanation.steps[4]
    else {
        panic!("{explanation}")
    };
    let chosen: Vec<_> = candidates.iter().filter(|it| it.chosen).collect();
    assert_eq!(chosen.len(), 1);
    assert_eq!(chosen[0], &candidates[0], "the best stands first");
    assert_eq!(flow.target, Some(chosen[0].target));
    assert_eq!((&*flow.state, flow.idle_seconds_left), ("half_open", 60.0));

    let text = explanation.to_string();
    for line in [
        " 1. enters at internet_gateway:igw\n      device  igw\n",
        "198.51.100.11 -> 10.0.1.11",
        "begins a flow",
        "<- chosen",
        "option class 0x0108, type 3: flow cookie ",
        "IPv4 192.0.2.1 > 192.0.2.1",
        "let us say unchanged",
        "10. leaves at subnet:app-a",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.ends_with("\ndelivered to subnet:app-a"), "{text}");
}

#[test]
fn what_is_told_of_known_flows_is_what_the_table_has() {
    let mut plane = Plane::new("drop");
    let (igw, app) = (plane.igw, plane.app);
    let refused = entering(&plane, igw, &ack(CLIENT, SERVER, (4711, 443), b"data"));
    let Some(Step::Dropped { reason, help, advice, .. }) = refused.steps.last() else {
        panic!("{refused}")
    };
    assert_eq!(reason, "unknown_tcp_flow");
    assert!(help.contains("without SYN") && advice.contains("tcp_idle_timeout_seconds"));
    assert_eq!(refused.end, "dropped: unknown_tcp_flow");

    let hop = plane.hop(igw, &syn(CLIENT, SERVER, (4711, 443)));
    let counted = format!("{:?}", plane.stats);
    let explanation = entering(&plane, app, &ack(SERVER, CLIENT, (443, 4711), b"answer"));
    assert_eq!(explanation.end, "delivered to internet_gateway:igw");
    let Some(Step::Flow { known: Some(flow), becomes: Some(after), .. }) =
        explanation.steps.iter().find(|step| matches!(step, Step::Flow { .. }))
    else {
        panic!("{explanation}")
    };
    assert_eq!(flow.target, Some(hop.address));
    assert_eq!((&*flow.state, &*after.state), ("half_open", "established"));
    assert_eq!((flow.idle_seconds_left, after.idle_seconds_left), (60.0, 350.0));
    assert!(explanation.to_string().contains("-> 198.51.100.11"), "{explanation}");
    assert_eq!(format!("{:?}", plane.stats), counted, "nothing was counted");
}

/// While its load balancer is switched to bypass, a flow is told as kept, and not as inspected.
#[test]
fn a_flow_that_bypasses_is_kept_for_its_target() {
    let mut plane = Plane::new("drop");
    let (igw, packet) = (plane.igw, syn(CLIENT, SERVER, (4711, 443)));
    let target = plane.hop(igw, &packet).address;
    let known = |plane: &Plane| {
        let explanation = entering(plane, igw, &packet);
        let known = explanation.steps.iter().find_map(|step| match step {
            Step::Flow { known, .. } => known.clone(),
            _ => None,
        });
        let known = known.unwrap();
        (known.target, known.bypassed, known.to_string())
    };
    let (with, bypassed, text) = known(&plane);
    assert_eq!((with, bypassed), (Some(target), false));
    assert!(text.starts_with(&format!("with {target}, ")), "{text}");
    plane.change(|view| view.pools[0].traffic_mode = TrafficMode::Bypass);
    let (kept, bypassed, text) = known(&plane);
    assert_eq!((kept, bypassed), (Some(target), true));
    assert!(text.starts_with(&format!("past the appliances, kept for {target}, ")), "{text}");
}

#[rstest]
#[case(true)]
#[case(false)]
fn how_old_a_known_flow_is_is_told_if_there_are_records(#[case] records: bool) {
    let mut plane = Plane::new("drop");
    let config = IngressConfig {
        worker: WorkerId(0),
        max_flows: 100,
        commit: Commit::Lazily,
        records,
        log: None,
        fragments: Arc::default(),
        stats: Arc::default(),
    };
    plane.ingress = Ingress::new(config, Arc::clone(&plane.snapshot), plane.now).unwrap();
    let igw = plane.igw;
    plane.now += Duration::from_secs(5);
    plane.hop(igw, &syn(CLIENT, SERVER, (4711, 443)));
    let age = |plane: &Plane, port| {
        let explanation = entering(plane, igw, &syn(CLIENT, SERVER, (port, 443)));
        let step = explanation.steps.iter().find_map(|step| match step {
            Step::Flow { known, age_seconds, .. } => Some((known.is_some(), *age_seconds)),
            _ => None,
        });
        (step.unwrap(), explanation.to_string())
    };
    plane.now += Duration::from_secs(40);
    plane.hop(igw, &syn(CLIENT, SERVER, (4711, 443)));
    plane.now += Duration::from_secs(50);
    let ((known, seconds), text) = age(&plane, 4711);
    assert!(known, "{text}");
    assert_eq!(seconds.map(f64::round), records.then_some(90.0), "it began before its last packet");
    assert_eq!(text.contains("      began      90.0 s ago\n"), records, "{text}");
    let (new, text) = age(&plane, 4712);
    assert_eq!(new, (false, None), "{text}");
    // What has idled out is no flow any more.
    plane.now += Duration::from_mins(1);
    let (forgotten, text) = age(&plane, 4711);
    assert_eq!(forgotten, (false, None), "{text}");
    assert!(!text.contains(" ago"), "{text}");
}

#[test]
fn what_an_appliance_sends_is_checked_for_real() {
    let mut plane = Plane::new("drop");
    let packet = udp(CLIENT, SERVER, (1000, 53), b"question");
    let igw = plane.igw;
    let hop = plane.hop(igw, &packet);
    let mut datagram = [hop.header.as_bytes(), &packet].concat();
    let returning = |plane: &Plane, datagram: &[u8]| {
        let (from, datagram) = (hop.address, datagram.to_vec());
        told(plane, Given::Returning { from, to: GATEWAY, datagram })
    };
    let explanation = returning(&plane, &datagram);
    assert_eq!(explanation.end, "delivered to subnet:app-a");
    let Step::Returned { supposed: false, header, .. } = &explanation.steps[0] else {
        panic!("{explanation}")
    };
    assert_eq!(header.len(), 4, "the header and three options: {header:?}");

    let last = hop.header.as_bytes().len() - 1;
    datagram[last] ^= 1;
    assert_eq!(returning(&plane, &datagram).end, "dropped: bad_cookie");
    datagram.truncate(5);
    assert_eq!(returning(&plane, &datagram).end, "dropped: malformed_geneve");
    assert_eq!(returning(&plane, &[]).end, "dropped: malformed_geneve");
}

#[test]
fn an_answer_of_an_earlier_view_is_no_answer() {
    let mut plane = Plane::new("drop");
    let packet = syn(CLIENT, SERVER, (1, 2));
    let given = Given::Entering { at: plane.igw, packet, offload: Offload::NONE };
    let fragments = FragmentTable::default();
    let question = Question::new(&plane.snapshot, &fragments, given, plane.now);
    let mut later = Snapshot::clone(&plane.snapshot);
    later.generation += 1;
    plane.ingress.handle_snapshot(Arc::new(later), plane.now);
    let excerpts = vec![plane.ingress.excerpt(question.flows())];
    let of = question.fragments(&fragments);
    let answer = explain(&question, excerpts, of, &Plain(&plane.snapshot), plane.now);
    assert_eq!(answer.unwrap_err(), Unexplained::Changed);
}

#[test]
fn noise_has_an_end_with_a_name() {
    let plane = Plane::new("drop");
    let ends: BTreeSet<_> = [&b""[..], b"E", &[0x45; 40], &[0x60; 80], &[0xff; 2000]]
        .into_iter()
        .map(|noise| entering(&plane, plane.igw, noise).end)
        .collect();
    assert_eq!(ends, BTreeSet::from(["dropped: malformed_packet".to_owned()]));
}

#[test]
fn what_is_longer_than_the_mtu_is_a_super_packet_and_all_of_it_arrives() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    plane.hop(igw, &syn(CLIENT, SERVER, (4711, 443)));
    let packet = ack(CLIENT, SERVER, (4711, 443), &vec![7; 20_000]);
    let as_it_is = entering(&plane, igw, &packet);
    assert_eq!(as_it_is.end, "answered: packet_too_big", "as one packet, which it is not");

    let offload = as_the_kernel_gives(&packet, 1400);
    let explanation = told(&plane, Given::Entering { at: igw, packet, offload });
    assert!(explanation.delivered, "{explanation}");
    let Step::Enters { packets: 15, segment_size: Some(1360), .. } = explanation.steps[0] else {
        panic!("{explanation}")
    };
    let leaves = |step: &&Step| matches!(step, Step::Leaves { .. });
    assert_eq!(explanation.steps.iter().filter(leaves).count(), 15);
    let text = explanation.to_string();
    for line in [
        "stands for 15 packets with up to 1360 bytes of payload each",
        "and 12 datagrams more",
        "… 14 more of the same that go the same way\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(text.matches("leaves at subnet:app-a").count(), 1, "{text}");
}

#[test]
fn only_what_the_kernel_gives_longer_than_the_mtu_is_a_super_packet() {
    let long = [7; 3000];
    let tcp = ack(CLIENT, SERVER, (4711, 443), &long);
    assert_eq!(as_the_kernel_gives(&tcp, tcp.len() as u32), Offload::NONE);
    assert!(as_the_kernel_gives(&tcp, tcp.len() as u32 - 1).is_super_packet());
    assert!(as_the_kernel_gives(&tcp, 41).is_super_packet());
    assert_eq!(as_the_kernel_gives(&tcp, 40), Offload::NONE, "there is no room for a payload");
    assert!(as_the_kernel_gives(&udp(CLIENT, SERVER, (1, 2), &long), 1500).is_super_packet());
    let mut other = udp(CLIENT, SERVER, (1, 2), &long);
    other[9] = 47;
    assert_eq!(as_the_kernel_gives(&other, 1500), Offload::NONE, "no device cuts GRE");
    let mut fragment = udp(CLIENT, SERVER, (1, 2), &long);
    fragment[6] = 0x20;
    assert_eq!(as_the_kernel_gives(&fragment, 1500), Offload::NONE, "it is cut already");
}

#[test]
fn what_has_a_probes_addresses_and_not_its_mark_is_not_called_ours() {
    let mut plane = Plane::new("drop");
    let igw = plane.igw;
    let hop = plane.hop(igw, &udp(CLIENT, SERVER, (1000, 53), b"question"));
    let (header, _) = Header::parse(hop.header.as_bytes()).unwrap();
    let target = plane.snapshot.target(hop.target);
    let tags = target.dialect.read(&header).unwrap();
    let endpoint = plane.snapshot.wire_ids[&tags.endpoint];
    let pool = plane.snapshot.pool(plane.snapshot.endpoint(endpoint).pool);
    let probe = pool.probe.unwrap();
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (probe.source, probe.destination) else {
        panic!("{probe:?}")
    };
    let ends = (source.octets(), destination.octets());
    let packet = udp(ends.0, ends.1, (probe.port, probe.port), b"not the gateway's");
    let key = Inner::parse(&packet).unwrap().flow_key().canonical();
    let cookie = plane.snapshot.keys.cookie.stamp(tags.endpoint, target.id, &key);
    let tags = geneve::dialect::Tags { cookie, ..tags };
    let mut datagram = vec![0; target.dialect.header_len()];
    let _ = target.dialect.write(&tags, geneve::header::ProtocolType::IPV4, &mut datagram);
    datagram.extend(packet);
    let explanation = told(&plane, Given::Returning { from: hop.address, to: GATEWAY, datagram });
    assert_eq!(explanation.end, "taken for a probe; not ours", "{explanation}");
    assert!(!explanation.delivered);
}

#[test]
fn why_a_flow_is_not_remembered_is_told() {
    let mut plane = Plane::new("drop");
    let mut view = Snapshot::clone(&plane.snapshot);
    view.max_new_flows_per_second = 1;
    plane.snapshot = Arc::new(view);
    plane.ingress.handle_snapshot(Arc::clone(&plane.snapshot), plane.now);
    let igw = plane.igw;
    plane.hop(igw, &syn(CLIENT, SERVER, (4711, 443)));
    let explanation = entering(&plane, igw, &syn(CLIENT, SERVER, (4712, 443)));
    assert!(explanation.delivered, "{explanation}");
    assert!(explanation.to_string().contains("takes in no more in this second"), "{explanation}");
}
