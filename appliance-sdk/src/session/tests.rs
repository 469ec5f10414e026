use std::slice::from_ref;

use geneve::header::{self, HeaderBuilder, ProtocolType};
use geneve::options::{GeneveOption, OptionClass, OptionType};
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::Action;
use crate::testing::{self, FakeGateway, Segment};
use crate::{Packet, Stats};

const CLIENT: &str = "203.0.113.9:40000";
const SERVER: &str = "10.0.1.11:80";

/// Does what a closure says, and remembers per flow how often it was asked.
struct Scripted<F> {
    decide: F,
    epoch: u64,
}

impl<F> Appliance for Scripted<F>
where
    F: FnMut(&mut Packet<'_>, u32) -> Action + Send + 'static,
{
    type Flow = u32;

    fn packet(&mut self, packet: &mut Packet<'_>, asked: &mut u32) -> Action {
        *asked += 1;
        (self.decide)(packet, *asked)
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }
}

fn gateway<F>(decide: F) -> FakeGateway<Scripted<F>>
where
    F: FnMut(&mut Packet<'_>, u32) -> Action + Send + 'static,
{
    FakeGateway::new(Scripted { decide, epoch: 0 })
}

fn syn() -> Vec<u8> {
    testing::tcp(CLIENT, SERVER, Segment::syn(1), b"")
}

fn data(payload: &[u8]) -> Vec<u8> {
    testing::tcp(CLIENT, SERVER, Segment::data(2, 2), payload)
}

fn answer(payload: &[u8]) -> Vec<u8> {
    testing::tcp(SERVER, CLIENT, Segment::data(2, 2), payload)
}

#[test]
fn a_verdict_for_the_flow_ends_the_questions_in_both_directions() {
    for (verdict, expected) in [(Action::ForwardFlow, 1), (Action::DropFlow, 0)] {
        let mut gateway = gateway(move |_, asked| {
            assert_eq!(asked, 1, "asked again");
            verdict
        });
        for packet in [syn(), data(b"a"), answer(b"b"), data(b"c")] {
            assert_eq!(gateway.send(&packet).len(), expected);
        }
        assert_eq!(gateway.stats().decided_by_flow, 3);
        assert_eq!(gateway.stats().flows.opened, 1);
        assert_eq!(gateway.stats().flows.both_directions, 1);
    }
}

#[test]
fn a_new_connection_on_the_same_ports_is_asked_about() {
    let mut gateway = gateway(|_, asked| match asked {
        1 => Action::ForwardFlow,
        _ => Action::Drop,
    });
    assert_eq!(gateway.send(&syn()).len(), 1);
    assert_eq!(gateway.send(&data(b"inspected enough")).len(), 1);
    assert_eq!(gateway.send(&syn()).len(), 0);
    assert_eq!(gateway.send(&data(b"not inspected")).len(), 0);
}

#[test]
fn a_new_epoch_has_every_flow_asked_about_again() {
    let mut gateway = gateway(|_, asked| match asked {
        1 => Action::ForwardFlow,
        _ => Action::DropFlow,
    });
    assert_eq!(gateway.send(&data(b"a")).len(), 1);
    assert_eq!(gateway.send(&data(b"b")).len(), 1);
    gateway.appliance_mut().epoch += 1;
    assert_eq!(gateway.send(&data(b"c")).len(), 0);
    assert_eq!(gateway.send(&answer(b"d")).len(), 0);
}

#[test]
fn the_direction_is_that_of_the_first_packet() {
    let mut gateway = gateway(|packet, _| {
        let from_client = packet.inner().src.to_string() == "203.0.113.9";
        assert_eq!(packet.direction() == Direction::FromInitiator, from_client);
        assert_eq!(packet.initiator().dst_port(), 80);
        assert_eq!(packet.flow_key().dst_port() == 80, from_client);
        Action::Forward
    });
    for packet in [syn(), answer(b"b"), data(b"a")] {
        assert_eq!(gateway.send(&packet), from_ref(&packet));
    }
}

#[test]
fn a_flow_first_seen_by_its_answer_was_started_by_the_other_side() {
    let mut gateway = gateway(|packet, _| {
        assert_eq!(packet.direction(), Direction::FromResponder);
        Action::Forward
    });
    gateway.send(&testing::tcp(SERVER, CLIENT, Segment::syn_ack(1, 2), b""));
    assert_eq!(gateway.stats().flows.both_directions, 0);
}

#[test]
fn endpoints_have_flows_of_their_own() {
    let mut gateway = gateway(|packet, asked| {
        assert_eq!(asked, 1, "endpoint {:#x}", packet.tags().endpoint);
        Action::ForwardFlow
    });
    for endpoint in [1, 2] {
        gateway.set_tags(Tags { endpoint, attachment: 0, cookie: 7 });
        assert_eq!(gateway.send(&syn()).len(), 1);
    }
    assert_eq!(gateway.stats().flows.current, 2);
}

#[test]
fn idle_flows_are_forgotten() {
    let mut gateway = gateway(|_, asked| {
        assert_eq!(asked, 1);
        Action::Forward
    });
    gateway.send(&syn());
    gateway.advance(Duration::from_secs(350));
    gateway.send(&syn());
    let flows = gateway.stats().flows;
    assert_eq!((flows.opened, flows.expired, flows.current), (2, 1, 1));
}

#[test]
fn the_flow_table_is_bounded() {
    let config = SessionConfig { max_flows: 10, ..SessionConfig::default() };
    let appliance = Scripted { decide: |_: &mut Packet<'_>, _| Action::Forward, epoch: 0 };
    let mut gateway = FakeGateway::with_config(appliance, &config);
    for port in 0..100 {
        gateway.send(&testing::udp(&format!("10.0.0.1:{}", 1000 + port), SERVER, b"x"));
    }
    let flows = gateway.stats().flows;
    assert_eq!((flows.current, flows.opened, flows.evicted), (10, 100, 90));
}

#[test]
fn a_run_goes_back_as_one_and_a_gap_splits_it() {
    let packets: Vec<Vec<u8>> = (0..5).map(|n| data(&[n; 100])).collect();
    let run: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
    for (refused, expected) in [(99, &[5][..]), (2, &[2, 2]), (0, &[4])] {
        let mut gateway = gateway(move |packet, _| match packet.payload()[0] {
            first if first == refused => Action::Drop,
            _ => Action::Forward,
        });
        let returned = gateway.send_run(&run);
        let kept = run.iter().filter(|packet| packet[40] != refused).count();
        assert_eq!(returned.len(), kept);
        let lengths: Vec<_> = gateway.replies().iter().map(|reply| reply.count.packets).collect();
        assert_eq!(lengths, expected);
    }
}

#[test]
fn every_segment_of_a_run_is_looked_at_by_its_own_flow() {
    let packets: Vec<Vec<u8>> =
        (0..6).map(|n| testing::udp(&format!("10.0.0.1:{}", 1000 + n % 2), SERVER, b"x")).collect();
    let run: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
    let mut gateway = gateway(|packet, _| match packet.flow_key().src_port() {
        1000 => Action::ForwardFlow,
        _ => Action::DropFlow,
    });
    let returned = gateway.send_run(&run);
    assert_eq!(returned.len(), 3);
    assert!(returned.iter().all(|packet| packet == &packets[0]));
}

#[test]
fn what_the_appliance_makes_follows_the_packet() {
    let mut gateway = gateway(|packet, _| {
        packet.inject(answer(b"injected"));
        packet.replace(data(b"replaced"));
        Action::Forward
    });
    assert_eq!(gateway.send(&data(b"original")), [data(b"replaced"), answer(b"injected")]);
    let stats = gateway.stats();
    assert_eq!((stats.generated.packets, stats.returned.packets), (1, 2));
}

#[test]
fn an_injected_packet_is_sent_even_if_the_cause_is_dropped() {
    let mut gateway = gateway(|packet, _| {
        packet.inject(answer(b"go away"));
        packet.replace(data(b"never seen"));
        Action::Drop
    });
    assert_eq!(gateway.send(&data(b"x")), [answer(b"go away")]);
}

#[rstest]
#[case::other_flow(testing::udp(CLIENT, SERVER, b"x"))]
#[case::no_packet(b"nonsense".to_vec())]
#[case::empty(Vec::new())]
fn what_is_not_of_the_flow_is_not_sent(#[case] foreign: Vec<u8>) {
    let injected = foreign.clone();
    let mut inject = gateway(move |packet, _| {
        packet.inject(injected.clone());
        Action::Forward
    });
    assert_eq!(inject.send(&data(b"x")), [data(b"x")]);
    assert_eq!(inject.stats().drops.get(DropReason::InjectForeign), 1);

    let mut replace = gateway(move |packet, _| {
        packet.replace(foreign.clone());
        Action::Forward
    });
    assert!(replace.send(&data(b"x")).is_empty());
    assert_eq!(replace.stats().drops.get(DropReason::RewriteForeign), 1);
}

#[test]
fn an_emitted_packet_bears_the_latest_header_of_its_flow() {
    let mut gateway = gateway(|_, _| Action::Drop);
    for cookie in [1, 2] {
        // The gateway checks that it gets back the tags that it sent last.
        gateway.set_tags(Tags { endpoint: 5, attachment: 6, cookie });
        gateway.send(&syn());
        assert_eq!(gateway.emit(&answer(b"late")), [answer(b"late")]);
    }
    assert!(gateway.emit(&testing::udp(CLIENT, SERVER, b"never seen")).is_empty());
    assert_eq!(gateway.stats().drops.get(DropReason::EmitUnknownFlow), 1);
}

#[test]
fn an_emitter_needs_no_thread_in_tests() {
    struct Later(crate::Emitter);

    impl Appliance for Later {
        type Flow = ();

        fn packet(&mut self, packet: &mut Packet<'_>, (): &mut ()) -> Action {
            self.0.emit(packet.tags().endpoint, packet.bytes().to_vec()).unwrap();
            Action::Drop
        }
    }

    let mut gateway = FakeGateway::with_worker(|worker| Later(worker.emitter()));
    assert!(gateway.send(&syn()).is_empty());
    assert!(gateway.send(&data(b"x")).is_empty());
    assert_eq!(gateway.emitted(), [syn(), data(b"x")]);
    assert!(gateway.emitted().is_empty());
}

#[test]
fn an_emitted_error_finds_the_flow_that_it_is_about() {
    let packet = testing::udp("10.0.0.1:5", "10.0.1.1:7", b"x");
    let mut refuse = gateway(|packet, _| {
        packet.reject();
        Action::Drop
    });
    let error = refuse.send(&packet).remove(0);
    let mut gateway = gateway(|_, _| Action::Drop);
    gateway.send(&packet);
    assert_eq!(gateway.emit(&error), from_ref(&error));
}

#[test]
fn an_error_about_a_flow_is_a_packet_of_it() {
    let mut quoted = data(b"too long");
    quoted.truncate(28);
    let icmp = [&[3, 4, 0, 0, 0, 0, 5, 0xdc][..], &quoted].concat();
    let error = testing::other("192.0.2.254", "203.0.113.9", 1, &icmp);

    let mut gateway = gateway(|packet, asked| match packet.inner().transport {
        Transport::IcmpError { .. } => {
            assert_eq!(packet.direction(), Direction::FromResponder);
            assert_eq!((asked, packet.initiator().dst_port()), (2, 80));
            Action::ForwardFlow
        }
        _ => Action::Forward,
    });
    gateway.send(&data(b"x"));
    assert_eq!(gateway.send(&error), from_ref(&error));
    assert_eq!(gateway.send(&error), from_ref(&error));
    let stats = gateway.stats();
    assert_eq!((stats.flows.opened, stats.flows.both_directions), (1, 0));
    assert_eq!(stats.decided_by_flow, 1);
}

#[test]
fn an_error_about_an_unknown_flow_is_a_flow_of_its_own() {
    let mut quoted = data(b"never seen");
    quoted.truncate(28);
    let icmp = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
    let mut gateway = gateway(|packet, _| {
        assert_eq!(packet.initiator(), packet.flow_key());
        Action::Forward
    });
    gateway.send(&testing::other("192.0.2.254", "203.0.113.9", 1, &icmp));
    assert_eq!(gateway.stats().flows.opened, 1);
}

#[test]
fn bytes_behind_the_inner_packet_go_back_too() {
    let mut gateway = gateway(|packet, _| {
        assert_eq!(packet.payload(), b"x");
        Action::Forward
    });
    let padded = [data(b"x"), vec![0xaa; 6]].concat();
    assert_eq!(gateway.send(&padded), from_ref(&padded));
}

#[test]
fn every_dialect_is_accepted_at_once_and_options_are_echoed() {
    let mut gateway = gateway(|_, _| Action::Forward);
    for dialect in Dialect::ALL {
        gateway.set_dialect(dialect);
        assert_eq!(gateway.send(&syn()), [syn()], "{}", dialect.name());
    }
    let config = SessionConfig { dialects: vec![&Dialect::TENCENT], ..SessionConfig::default() };
    let appliance = Scripted { decide: |_: &mut Packet<'_>, _| Action::Forward, epoch: 0 };
    let mut tencent_only = FakeGateway::with_config(appliance, &config);
    assert!(tencent_only.send(&syn()).is_empty());
    assert_eq!(tencent_only.stats().drops.get(DropReason::DialectUnknown), 1);
}

/// A datagram with any options.
fn datagram(options: &[(u16, u8, &[u8])], protocol: ProtocolType, packet: &[u8]) -> Vec<u8> {
    let options: Vec<GeneveOption<'_>> = options
        .iter()
        .map(|&(class, kind, data)| GeneveOption {
            class: OptionClass::new(class),
            kind: OptionType::new(kind),
            data,
        })
        .collect();
    let mut bytes = vec![0; header::MAX_LEN];
    let length = HeaderBuilder::new(protocol).options(&options).write(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes.extend_from_slice(packet);
    bytes
}

const ENDPOINT: (u16, u8, &[u8]) = (0x0108, 1, &[0, 0, 0, 0, 0, 0, 0, 5]);
const ATTACHMENT: (u16, u8, &[u8]) = (0x0108, 2, &[0, 0, 0, 0, 0, 0, 0, 6]);
const COOKIE: (u16, u8, &[u8]) = (0x0108, 3, &[0, 0, 0, 7]);

#[test]
fn options_are_recognised_by_type_and_unknown_ones_are_kept() {
    let mut gateway = gateway(|_, _| Action::Forward);
    gateway.set_tags(Tags { endpoint: 5, attachment: 6, cookie: 7 });
    let unknown = (0x0999, 9, &[1, 2, 3, 4][..]);
    let sent = datagram(&[unknown, COOKIE, ENDPOINT, ATTACHMENT], ProtocolType::IPV4, &syn());
    assert_eq!(gateway.send_datagrams(&sent, 0), [syn()]);
    let reply = gateway.replies().iter().next().unwrap();
    assert_eq!(
        reply.content,
        Content::Unchanged { range: 0..sent.len(), segment_size: sent.len() }
    );
}

#[rstest]
#[case::empty(vec![], DropReason::GeneveTruncated)]
#[case::version(vec![0x40, 0, 8, 0, 0, 0, 0, 0], DropReason::GeneveVersion)]
#[case::options_past_the_end(vec![0x01, 0, 8, 0, 0, 0, 0, 0], DropReason::GeneveTruncated)]
#[case::option_past_the_options(
    vec![0x01, 0, 8, 0, 0, 0, 0, 0, 1, 8, 1, 2], DropReason::GeneveOptions)]
#[case::control(
    { let mut d = aws(&[ENDPOINT, ATTACHMENT, COOKIE]); d[1] |= 0x80; d },
    DropReason::GeneveControl)]
#[case::ethernet(
    datagram(&[ENDPOINT, ATTACHMENT, COOKIE], ProtocolType::ETHERNET, &syn()),
    DropReason::ProtocolType)]
#[case::ipv4_as_ipv6(
    datagram(&[ENDPOINT, ATTACHMENT, COOKIE], ProtocolType::IPV6, &syn()),
    DropReason::ProtocolType)]
#[case::no_options(aws(&[]), DropReason::DialectUnknown)]
#[case::missing(aws(&[ENDPOINT, COOKIE]), DropReason::OptionMissing)]
#[case::twice(aws(&[ENDPOINT, ATTACHMENT, COOKIE, COOKIE]), DropReason::OptionDuplicate)]
#[case::length(
    aws(&[ENDPOINT, ATTACHMENT, (0x0108, 3, &[0; 8])]), DropReason::OptionLength)]
#[case::critical(
    aws(&[ENDPOINT, ATTACHMENT, COOKIE, (0x0999, 0x81, &[])]), DropReason::OptionCritical)]
#[case::no_packet(
    datagram(&[ENDPOINT, ATTACHMENT, COOKIE], ProtocolType::IPV4, b""),
    DropReason::InnerInvalid)]
fn malformed_datagrams_are_dropped_by_name(#[case] bytes: Vec<u8>, #[case] reason: DropReason) {
    let mut gateway = gateway(|_, _| Action::Forward);
    assert!(gateway.send_datagrams(&bytes, 0).is_empty());
    assert_eq!(gateway.stats().drops.get(reason), 1, "{:?}", gateway.stats().drops);
    assert_eq!(gateway.stats().flows.opened, 0);
}

fn aws(options: &[(u16, u8, &[u8])]) -> Vec<u8> {
    datagram(options, ProtocolType::IPV4, &syn())
}

#[test]
fn a_datagram_cut_anywhere_is_dropped() {
    let whole = aws(&[ENDPOINT, ATTACHMENT, COOKIE]);
    let mut gateway = gateway(|_, _| Action::Forward);
    for length in 0..whole.len() {
        assert!(gateway.send_datagrams(&whole[..length], 0).is_empty(), "{length} bytes");
    }
    assert_eq!(gateway.stats().drops.total(), whole.len() as u64);
}

/// What a bad network may make of good datagrams, or send in their place.
fn traffic() -> impl Strategy<Value = Vec<(Vec<u8>, usize)>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..200);
    let mutated =
        (0usize..5, proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4))
            .prop_map(|(which, changes)| {
                let packet = match which {
                    0 => syn(),
                    1 => testing::tcp(
                        "[2001:db8::1]:1",
                        "[2001:db8::2]:2",
                        Segment::data(1, 2),
                        b"six",
                    ),
                    2 => testing::udp(CLIENT, SERVER, b"datagram"),
                    3 => testing::icmp_echo("10.0.0.1", "10.0.0.2", 1, 2, b"ping"),
                    _ => testing::other(
                        "2001:db8::1",
                        "2001:db8::2",
                        44,
                        &[17, 0, 0, 9, 0, 0, 0, 1, 5],
                    ),
                };
                let version =
                    if packet[0] >> 4 == 6 { ProtocolType::IPV6 } else { ProtocolType::IPV4 };
                let mut bytes = datagram(&[ENDPOINT, ATTACHMENT, COOKIE], version, &packet);
                for (at, value) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = value;
                }
                bytes
            });
    proptest::collection::vec((prop_oneof![noise, mutated], 0usize..100), 1..20)
}

/// Exercises everything that an appliance can do, driven by the packet's own bytes.
fn whimsical(packet: &mut Packet<'_>, asked: u32) -> Action {
    let whim = packet.bytes().iter().fold(asked as u8, |sum, byte| sum.wrapping_add(*byte));
    match whim % 8 {
        0 => Action::Drop,
        1 => Action::DropFlow,
        2 => Action::ForwardFlow,
        3 => {
            packet.reject();
            Action::Drop
        }
        4 => match packet.replace_payload(b"rewritten") {
            Ok(()) => Action::Forward,
            Err(_) => Action::Drop,
        },
        5 => {
            packet.replace(vec![whim; usize::from(whim)]);
            packet.inject(packet.bytes().to_vec());
            Action::Forward
        }
        _ => {
            assert!(packet.payload().len() <= packet.bytes().len());
            Action::Forward
        }
    }
}

proptest! {
    /// Whatever arrives: no panic, every packet counted once, nothing but received bytes echoed.
    #[test]
    fn noise_is_survived_and_accounted_for(traffic in traffic()) {
        let appliance = Scripted { decide: whimsical, epoch: 0 };
        let config = SessionConfig { max_flows: 4, ..SessionConfig::default() };
        let mut session = Session::new(appliance, &config);
        let arrival = Arrival {
            gateway: "192.0.2.1:51000".parse().unwrap(),
            local: "192.0.2.11:6081".parse().unwrap(),
            tos: 0,
        };
        #[expect(clippy::disallowed_methods, reason = "only a starting point for virtual time")]
        let mut now = Instant::now();
        let mut expected = 0;
        let mut replies = Replies::new();
        for (bytes, segment_size) in traffic {
            now += Duration::from_secs(40);
            replies.clear();
            session.handle(&arrival, &bytes, segment_size, now, &mut replies);
            let step = if segment_size == 0 { bytes.len() } else { segment_size }.max(1);
            expected += bytes.len().div_ceil(step).max(1) as u64;
            for reply in &replies {
                prop_assert_eq!(reply.route, arrival.back());
                if let Content::Unchanged { range, .. } = &reply.content {
                    prop_assert!(range.end <= bytes.len() && !range.is_empty());
                }
            }
        }
        let stats: &Stats = session.stats();
        prop_assert_eq!(stats.received.packets, expected);
        prop_assert_eq!(stats.unaccounted(), 0);
        prop_assert!(stats.flows.current <= 4);
    }
}
