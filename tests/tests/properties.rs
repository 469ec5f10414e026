//! Noise, mutations and random histories through a whole gateway: nothing panics, every packet ends
//! in exactly one counter, and nothing gets back that was not sent.
#![expect(clippy::unwrap_used, reason = "helpers of tests, and nothing else")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use geneve::flow::CanonicalKey;
use geneve::{Header, Inner, IpVersion, arbitrary};
use gwlb::config::Settings;
use gwlb::dataplane::fragments::FragmentTable;
use gwlb::dataplane::snapshot::TargetSlot;
use gwlb::dataplane::stats::{LedgerTotals, Totals};
use gwlb_tests::appliance::echo;
use gwlb_tests::gateway::{Datagram, Gateway, Packet, Queues, Sent, Setup};
use gwlb_tests::packets::{Ip, Problem, Tcp, fragments, super_packet};
use netio::offload::{Offload, PartialChecksum, Segmentation};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use router::source::Source;

fn settings() -> Settings {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/gateway.toml");
    gwlb::config::parse(&Source::read(&path).unwrap()).unwrap()
}

/// With devices that take and give super-packets, or without.
fn offloading(mut settings: Settings, offload: bool) -> Settings {
    settings.attachments.iter_mut().for_each(|attachment| attachment.offload = offload);
    settings
}

fn gateway() -> Gateway {
    Gateway::new(settings(), Setup::of(1))
}

/// Where packets of one side ended between two moments, with how many.
fn ends(before: &LedgerTotals, after: &LedgerTotals) -> Vec<(&'static str, u64)> {
    let (old, new) = (&before.flow, &after.flow);
    let replied = new.replied - old.replied;
    // What the gateway made ends nothing that entered: answers, and fragments beyond the first.
    let fragments = (new.generated - old.generated) - replied;
    let drops = after.drops.iter();
    let drops = drops.map(|(reason, count)| {
        (*reason, count - before.drops.get(reason).copied().unwrap_or_default())
    });
    [
        ("delivered", new.delivered - old.delivered - replied),
        ("bypassed", new.bypassed - old.bypassed),
        ("encapsulated", new.encapsulated - old.encapsulated - fragments),
        ("replied", replied),
        ("probes", new.probes - old.probes),
    ]
    .into_iter()
    .chain(drops)
    .filter(|(_, count)| *count > 0)
    .collect()
}

/// Holds that what entered between two moments, on one side, ended in one place.
fn assert_one_end(before: &Totals, after: &Totals, tun: bool) {
    let (side, other) = if tun {
        ((&before.tun, &after.tun), (&before.udp, &after.udp))
    } else {
        ((&before.udp, &after.udp), (&before.tun, &after.tun))
    };
    let entered = side.1.flow.received - side.0.flow.received;
    let ended = ends(side.0, side.1);
    assert!(matches!(ended[..], [(_, count)] if count == entered), "{entered} entered: {ended:?}");
    assert_eq!(ends(other.0, other.1), []);
}

fn enter(gateway: &mut Gateway, packet: Packet) {
    let at = gateway.attachment("igw").unwrap();
    let before = gateway.totals();
    gateway.enter(at, &[packet], None);
    // A later fragment waits in vain.
    gateway.advance(FragmentTable::HOLD);
    assert_one_end(&before, &gateway.totals(), true);
}

fn receive(gateway: &mut Gateway, datagram: Datagram) {
    let before = gateway.totals();
    gateway.receive(&[datagram], None);
    assert_one_end(&before, &gateway.totals(), false);
}

/// What a device might say that is left to be done, whether or not it fits the packet.
fn offload() -> impl Strategy<Value = Offload> {
    let segment = prop_oneof![
        Just(Segmentation::None),
        (any::<u16>(), any::<bool>()).prop_map(|(size, ecn)| Segmentation::Tcp { size, ecn }),
        any::<u16>().prop_map(|size| Segmentation::Udp { size }),
    ];
    let checksum = (0..200_u16, select(vec![6_u16, 16, 0, 65_000]))
        .prop_map(|(start, offset)| PartialChecksum { start, offset });
    (segment, prop::option::of(checksum), any::<u16>())
        .prop_map(|(segment, checksum, hdr_len)| Offload { segment, checksum, hdr_len })
}

/// A packet from the internet to the server that begins a flow.
fn opening() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), any::<bool>(), 1..u16::MAX, vec(any::<u8>(), 0..60)).prop_map(
        |(six, tcp, port, payload)| {
            let ip = host_pair(six);
            if tcp { ip.tcp((port, 80), Tcp::SYN, &payload) } else { ip.udp((port, 80), &payload) }
        },
    )
}

fn host_pair(six: bool) -> Ip {
    if six {
        Ip::new("2001:db8:113::7", "fd00:10:0:1::11")
    } else {
        Ip::new("203.0.113.7", "10.0.1.11")
    }
}

/// A way to spoil bytes.
#[derive(Debug, Clone)]
enum Spoil {
    Set(Index, u8),
    Flip(Index, u8),
    Truncate(Index),
    Append(Vec<u8>),
    Remove(Index),
    Insert(Index, u8),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Spoil::Set(at, value)),
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Spoil::Flip(at, bit)),
        any::<Index>().prop_map(Spoil::Truncate),
        vec(any::<u8>(), 1..20).prop_map(Spoil::Append),
        any::<Index>().prop_map(Spoil::Remove),
        (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Spoil::Insert(at, value)),
    ]
}

fn spoilt(mut bytes: Vec<u8>, spoils: &[Spoil]) -> Vec<u8> {
    for spoil in spoils {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        match spoil {
            Spoil::Set(at, value) => bytes[at.index(len)] = *value,
            Spoil::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Spoil::Truncate(at) => bytes.truncate(at.index(len)),
            Spoil::Append(more) => bytes.extend_from_slice(more),
            Spoil::Remove(at) => drop(bytes.remove(at.index(len))),
            Spoil::Insert(at, value) => bytes.insert(at.index(len), *value),
        }
    }
    bytes
}

fn source() -> impl Strategy<Value = SocketAddr> {
    let known = select(vec![[192, 0, 2, 11], [192, 0, 2, 12], [192, 0, 2, 21]]);
    (prop_oneof![4 => known, 1 => any::<[u8; 4]>()], any::<u16>())
        .prop_map(|(address, port)| (address, port).into())
}

/// The most payload that fits with the headers of TCP over IPv6, of AWS's dialect, and of IPv4.
const LARGEST_SEGMENT: u16 = 1500 - 68 - 60;

proptest! {
    #[test]
    fn noise_on_a_device_ends_in_one_counter(
        mut bytes in vec(any::<u8>(), 0..200),
        version in select(vec![0x45_u8, 0x46, 0x60, 0x61, 0xff]),
        offload in offload(),
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        enter(&mut gateway(), Packet { bytes, offload });
    }

    #[test]
    fn any_packet_with_any_offload_ends_in_one_counter(
        packet in arbitrary::packet(),
        offload in offload(),
        home in any::<bool>(),
    ) {
        let mut bytes = packet.bytes;
        if home {
            // To the server, so that it does not end for want of a route.
            match packet.inner.version {
                IpVersion::V4 => bytes[16..20].copy_from_slice(&[10, 0, 1, 11]),
                IpVersion::V6 => bytes[24..40].copy_from_slice(
                    &"fd00:10:0:1::11".parse::<std::net::Ipv6Addr>().unwrap().octets(),
                ),
            }
        }
        enter(&mut gateway(), Packet { bytes, offload });
    }

    #[test]
    fn a_spoilt_packet_ends_in_one_counter(packet in opening(), spoils in vec(spoil(), 1..4)) {
        enter(&mut gateway(), Packet::plain(spoilt(packet, &spoils)));
    }

    #[test]
    fn noise_from_appliances_ends_in_one_counter(
        from in source(),
        mut bytes in vec(any::<u8>(), 0..200),
        header in any::<bool>(),
    ) {
        if header && bytes.len() > 4 {
            bytes[..4].copy_from_slice(&[8, 0, 8, 0]);
        }
        receive(&mut gateway(), Datagram { from, to: [192, 0, 2, 1].into(), bytes });
    }

    /// Whatever is changed: what gets through is of the flow that was sent to that appliance.
    #[test]
    fn a_spoilt_return_ends_in_one_counter_and_opens_no_other_flow(
        packet in opening(),
        spoils in vec(spoil(), 1..4),
    ) {
        let mut gateway = gateway();
        enter(&mut gateway, Packet::plain(&packet[..]));
        let mut datagram = echo(&gateway.take_sent()[0]);
        datagram.bytes = spoilt(datagram.bytes, &spoils);
        receive(&mut gateway, datagram);
        let sent = Inner::parse(&packet).unwrap().flow_key();
        for delivered in gateway.take_delivered() {
            let key = Inner::parse(&delivered.packet).unwrap().flow_key();
            prop_assert_eq!(key.canonical(), sent.canonical());
        }
    }

    #[test]
    fn super_packets_come_back_whole(
        six: bool,
        tcp: bool,
        payload in vec(any::<u8>(), 1..12_000),
        size in 200..=LARGEST_SEGMENT,
        workers in 1..=3_u16,
        offload: bool,
    ) {
        let mut gateway = Gateway::new(offloading(settings(), offload), Setup::of(workers));
        let ports = (1000, 80);
        let (there, tun) = (host_pair(six), gateway.attachment("igw").unwrap());
        let whole = if tcp {
            gateway.enter(tun, &[Packet::plain(there.tcp(ports, Tcp::SYN, &[]))], None);
            gateway.take_sent();
            there.tcp(ports, Tcp::DATA, &payload)
        } else {
            there.udp(ports, &payload)
        };
        gateway.enter(tun, &[super_packet(&whole, size)], None);
        let datagrams: Vec<_> = gateway.take_sent().iter().map(echo).collect();
        prop_assert_eq!(datagrams.len(), payload.len().div_ceil(size.into()));
        gateway.receive(&datagrams, None);
        let mut joined = Vec::new();
        for packet in gateway.take_delivered() {
            let inner = Inner::parse(&packet.packet).unwrap();
            let integrity = geneve::checksum::verify(&inner, &packet.packet);
            prop_assert_eq!(integrity, geneve::checksum::Integrity::Valid);
            joined.extend_from_slice(&packet.packet[inner.header_len + if tcp { 20 } else { 8 }..]);
        }
        prop_assert!(joined == payload);
    }
}

/// Something that happens to a gateway.
#[derive(Debug, Clone)]
enum Event {
    Packet { flow: u16, six: bool, back: bool, kind: Kind, queue: Option<u16> },
    Echo { most: usize, queue: Option<u16> },
    Advance(u64),
    Hold,
    Release,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Syn,
    Ack,
    Udp,
    FirstFragment,
    LaterFragment,
    IcmpError,
    TooLong,
    SuperPacket,
}

fn event() -> impl Strategy<Value = Event> {
    use Kind::{Ack, FirstFragment, IcmpError, LaterFragment, SuperPacket, Syn, TooLong, Udp};
    let all = [Syn, Ack, Udp, FirstFragment, LaterFragment, IcmpError, TooLong, SuperPacket];
    let kind = select(all.to_vec());
    let queue = || prop::option::of(0..3_u16);
    prop_oneof![
        8 => (0..6_u16, any::<bool>(), any::<bool>(), kind, queue()).prop_map(
            |(flow, six, back, kind, queue)| Event::Packet { flow, six, back, kind, queue }
        ),
        3 => (1..10_usize, queue()).prop_map(|(most, queue)| Event::Echo { most, queue }),
        1 => prop_oneof![0..1000_u64, 30_000..400_000_u64].prop_map(Event::Advance),
        1 => Just(Event::Hold),
        2 => Just(Event::Release),
    ]
}

fn packet(flow: u16, six: bool, back: bool, kind: Kind) -> Packet {
    let (mut ip, mut ports) = (host_pair(six), (1000 + flow, 53));
    let about = ip.udp(ports, &[7; 100]);
    if back {
        (ip, ports) = (ip.reversed(), (53, 1000 + flow));
    }
    let udp = ip.udp(ports, &[7; 100]);
    Packet::plain(match kind {
        Kind::Syn => ip.tcp(ports, Tcp::SYN, &[]),
        Kind::Ack => ip.tcp(ports, Tcp::DATA, b"data"),
        Kind::Udp => udp,
        Kind::FirstFragment => fragments(&udp, flow, 64).remove(0),
        Kind::LaterFragment => fragments(&udp, flow, 64).remove(1),
        Kind::IcmpError => ip.icmp_error(Problem::PortUnreachable, &about, 64),
        Kind::TooLong => ip.udp(ports, &[7; 1450]),
        Kind::SuperPacket => return super_packet(&ip.udp(ports, &[7; 2500]), 1000),
    })
}

/// A gateway with what appliances hold and where flows went.
struct History {
    gateway: Gateway,
    appliances: Vec<Sent>,
    placed: BTreeMap<CanonicalKey, TargetSlot>,
}

impl History {
    fn step(&mut self, event: &Event) {
        match *event {
            Event::Packet { flow, six, back, kind, queue } => {
                let tun = if back { "app-a" } else { "igw" };
                let at = self.gateway.attachment(tun).unwrap();
                let packet = packet(flow, six, back, kind);
                self.gateway.enter(at, &[packet], queue);
            }
            Event::Echo { most, queue } => {
                let most = most.min(self.appliances.len());
                let datagrams: Vec<_> =
                    self.appliances.drain(..most).map(|sent| echo(&sent)).collect();
                self.gateway.receive(&datagrams, queue);
            }
            Event::Advance(milliseconds) => {
                self.gateway.advance(Duration::from_millis(milliseconds));
            }
            Event::Hold => self.gateway.hold(),
            Event::Release => self.gateway.release(),
        }
        let totals = self.gateway.totals();
        for ledger in [&totals.tun, &totals.udp] {
            let (came, went) = ledger.balance();
            assert_eq!(came, went, "{ledger:?}");
        }
        for sent in self.gateway.take_sent() {
            self.note_placement(&sent);
            self.appliances.push(sent);
        }
    }

    fn note_placement(&mut self, sent: &Sent) {
        let (_, payload) = Header::parse(&sent.bytes).unwrap();
        let flow = Inner::parse(payload).unwrap().flow_key();
        if flow != flow.portless() {
            let target = *self.placed.entry(flow.canonical()).or_insert(sent.target);
            assert_eq!(target, sent.target, "{flow} stays where it is");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Packets of few flows in any order, read by any worker, with queues and tables that are
    /// nearly always full: the ledgers balance after every event.
    #[test]
    fn histories_balance(
        workers in 1..=3_u16,
        in_turn: bool,
        inbox in 1..4_usize,
        max_flows in 1..8_usize,
        offload: bool,
        events in vec(event(), 1..60),
    ) {
        let mut settings = offloading(settings(), offload);
        settings.gateway.max_flows_per_worker = max_flows;
        let queues = if in_turn { Queues::InTurn } else { Queues::ByFlow };
        let setup = Setup { inbox, queues, ..Setup::of(workers) };
        let mut history = History {
            gateway: Gateway::new(settings, setup),
            appliances: Vec::new(),
            placed: BTreeMap::new(),
        };
        for event in &events {
            history.step(event);
        }
        history.step(&Event::Release);
        history.step(&Event::Advance(FragmentTable::HOLD.as_millis() as u64));
        history.step(&Event::Echo { most: usize::MAX, queue: None });
        let totals = history.gateway.totals();
        prop_assert_eq!((totals.tun.queued(), totals.udp.queued()), (0, 0));
        prop_assert_eq!(totals.udp.flow.received, totals.udp.flow.delivered, "all were genuine");
        prop_assert_eq!(totals.udp.flow.received, totals.tun.flow.encapsulated);
    }
}

/// Two services in a row, the first of which lets everything past its appliances: the fragments of
/// a packet stay together at the second, whichever workers they come by.
#[test]
fn fragments_that_pass_one_endpoint_are_known_at_the_next() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/two-services/gateway.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let ids = "[[load_balancer]]\nname = \"ids\"\n";
    let text = text.replace(ids, &format!("{ids}traffic_mode = \"bypass\"\n"));
    let settings = gwlb::config::parse(&Source::new("two-services.toml", text)).unwrap();
    for port in 1000..1050 {
        let mut gateway = Gateway::new(settings.clone(), Setup::of(3));
        let igw = gateway.attachment("igw").unwrap();
        let whole = Ip::new("203.0.113.7", "10.0.1.11").udp((port, 53), &[7; 300]);
        let pieces: Vec<_> = fragments(&whole, port, 104).into_iter().map(Packet::plain).collect();
        gateway.enter(igw, &pieces, None);
        assert_eq!(gateway.take_sent().len(), pieces.len(), "port {port}");
    }
}
