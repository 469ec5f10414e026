//! Generated packets are read as what they were made as; everything else is compared with
//! `etherparse`'s strict walk, or stands in a table.

use etherparse::{IpNumber, IpSlice, TcpSlice, UdpSlice};
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::arbitrary::{self, ValidPacket};

/// Random bytes, most of them with the start of an IP header.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let version =
        prop_oneof![Just(None), (5..=15_u8).prop_map(|ihl| Some(0x40 | ihl)), Just(Some(0x60))];
    (version, prop::collection::vec(any::<u8>(), 0..120), any::<bool>(), 0..256_u16).prop_map(
        |(version, mut bytes, fits, other_len)| {
            let len = if fits { bytes.len() as u16 } else { other_len };
            match (version, bytes.get_mut(..8)) {
                (Some(0x60), Some(start)) => {
                    start[0] = 0x60;
                    start[4..6].copy_from_slice(&len.saturating_sub(40).to_be_bytes());
                    // An extension header, TCP or UDP.
                    start[6] = [0, 43, 44, 51, 60, 6, 17, 58][usize::from(start[6] % 8)];
                }
                (Some(first), Some(start)) => {
                    start[0] = first;
                    start[2..4].copy_from_slice(&len.to_be_bytes());
                }
                _ => {}
            }
            bytes
        },
    )
}

/// What must hold of anything that was read.
fn check(packet: &[u8], result: Result<Inner, InnerError>) {
    match result {
        Ok(inner) => {
            assert!(inner.version.header_len() <= inner.header_len);
            assert!(inner.header_len <= inner.total_len && inner.total_len <= packet.len());
            assert_eq!(IpVersion::of(inner.src), inner.version);
            assert_eq!(IpVersion::of(inner.dst), inner.version);
            let ports = inner.ports();
            assert_eq!(inner.ported_key().map(|key| (key.src_port(), key.dst_port())), ports);
            if inner.fragment != Fragment::Whole {
                assert_eq!(inner.flow_key(), inner.flow_key().portless());
            }
            // What stands behind the packet is no part of it.
            let exact = &packet[..inner.total_len];
            assert_eq!(Inner::parse(exact), Ok(inner));
            assert_eq!(Inner::parse(&[exact, &[0xff; 9]].concat()), Ok(inner));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    check_against_etherparse(packet, result);
}

/// Compares with `etherparse`'s own walk, except where it is meant to differ:
/// - it looks into IPv4 AH, which is a protocol like any other here;
/// - it takes an IPv6 payload length of 0 to mean "up to the end";
/// - it walks on behind the fragment header of a later fragment, and behind a second one;
/// - it knows no limit to extension headers;
/// - it lets UDP have length 0.
fn check_against_etherparse(packet: &[u8], ours: Result<Inner, InnerError>) {
    let fragment_or_many = |error| {
        matches!(error, InnerError::RepeatedFragment { .. } | InnerError::TooManyExtensions)
    };
    let later_ipv6 = |inner: Inner| {
        inner.version == IpVersion::V6 && matches!(inner.fragment, Fragment::Later { .. })
    };
    if ours.is_err_and(fragment_or_many)
        || ours.is_ok_and(later_ipv6)
        || packet.first().is_some_and(|byte| byte >> 4 == 4) && packet.get(9) == Some(&51)
        || packet.first().is_some_and(|byte| byte >> 4 == 6) && packet.get(4..6) == Some(&[0, 0])
    {
        return;
    }
    let theirs = IpSlice::from_slice(packet);
    let in_transport = |error| {
        matches!(
            error,
            InnerError::TransportTruncated { .. }
                | InnerError::TcpDataOffset(_)
                | InnerError::UdpLength { .. }
        )
    };
    let inner = match (ours, &theirs) {
        (Ok(inner), Ok(_)) => inner,
        (Err(_), Err(_)) => return,
        (Err(error), Ok(ip)) if in_transport(error) => {
            let payload = ip.payload();
            let no_length = payload.payload.get(4..6) == Some(&[0, 0]);
            let refused = if payload.ip_number == IpNumber::TCP {
                TcpSlice::from_slice(payload.payload).is_err()
            } else {
                no_length || UdpSlice::from_slice(payload.payload).is_err()
            };
            assert!(refused, "{error}, but not to etherparse: {packet:02x?}");
            return;
        }
        (ours, theirs) => panic!("{ours:?}, but {theirs:?} to etherparse: {packet:02x?}"),
    };

    let ip = theirs.unwrap();
    assert_eq!(inner.src, ip.source_addr());
    assert_eq!(inner.dst, ip.destination_addr());
    assert_eq!(inner.protocol, ip.payload_ip_number().0);
    assert_eq!(inner.fragment != Fragment::Whole, ip.is_fragmenting_payload());
    let payload = ip.payload().payload;
    assert_eq!(payload, &packet[inner.header_len..inner.total_len]);
    match inner.transport {
        Transport::Tcp { src, dst, flags, header_len } => {
            let tcp = TcpSlice::from_slice(payload).unwrap();
            assert_eq!((src, dst), (tcp.source_port(), tcp.destination_port()));
            assert_eq!(header_len, tcp.header_len());
            let theirs = [
                (TcpFlags::FIN, tcp.fin()),
                (TcpFlags::SYN, tcp.syn()),
                (TcpFlags::RST, tcp.rst()),
                (TcpFlags::PSH, tcp.psh()),
                (TcpFlags::ACK, tcp.ack()),
                (TcpFlags::URG, tcp.urg()),
                (TcpFlags::ECE, tcp.ece()),
                (TcpFlags::CWR, tcp.cwr()),
            ];
            for (flag, set) in theirs {
                assert_eq!(flags.contains(flag), set);
                assert_eq!(flags.intersects(flag), set);
            }
        }
        Transport::Udp { src, dst } if inner.fragment == Fragment::Whole => {
            let udp = UdpSlice::from_slice(payload).unwrap();
            assert_eq!((src, dst), (udp.source_port(), udp.destination_port()));
        }
        _ => {}
    }
}

/// There are more ways to be a packet than to be anything else here.
fn four_times_as_many() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases * 4, ..usual }
}

proptest! {
    #![proptest_config(four_times_as_many())]

    #[test]
    fn a_packet_is_read_as_what_it_was_made_as(
        packet in arbitrary::packet(),
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let ValidPacket { mut bytes, inner } = packet;
        bytes.extend(behind);
        prop_assert_eq!(Inner::parse(&bytes), Ok(inner));
        check(&bytes, Ok(inner));
    }

    #[test]
    fn noise_is_read_right_or_refused_with_a_reason(bytes in noise()) {
        check(&bytes, Inner::parse(&bytes));
    }

    #[test]
    fn a_changed_byte_is_read_right_or_refused(
        packet in arbitrary::packet(),
        at: prop::sample::Index,
        change in 1..=255_u8,
    ) {
        let mut bytes = packet.bytes;
        // Headers more often than payload.
        let at = at.index(bytes.len().min(packet.inner.header_len + 20));
        bytes[at] ^= change;
        check(&bytes, Inner::parse(&bytes));
    }

    #[test]
    fn a_cut_packet_is_truncated_at_every_byte(packet in arbitrary::packet()) {
        let total = packet.bytes.len();
        let header = packet.inner.version.header_len();
        for actual in 0..total {
            match Inner::parse(&packet.bytes[..actual]) {
                Err(InnerError::Truncated { needed, actual: found }) => {
                    prop_assert_eq!(found, actual);
                    prop_assert!(needed > actual && needed <= total);
                    prop_assert!(needed == total || actual < header || actual < packet.inner.header_len);
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    #[test]
    fn only_whole_packets_have_ports_in_their_flow(packet in arbitrary::packet()) {
        let key = packet.inner.flow_key();
        if packet.inner.fragment == Fragment::Whole {
            let ported = packet.inner.ported_key();
            prop_assert!(ported.is_none() || ported == Some(key));
        } else {
            prop_assert_eq!((key.src_port(), key.dst_port()), (0, 0));
        }
    }

    /// The fragments of a packet, in any cut, have one flow key: the packet's without ports.
    #[test]
    fn fragments_share_a_flow(
        packet in arbitrary::ip_version().prop_flat_map(arbitrary::simple_packet_of),
        at: prop::sample::Index,
    ) {
        let ValidPacket { bytes, inner } = packet;
        let (header, upper) = bytes.split_at(inner.header_len);
        let at = at.index(upper.len()) / 8 * 8;
        for (part, offset, more) in [(&upper[..at], 0, true), (&upper[at..], at as u16 / 8, at == 0)] {
            let (mut fragment, length_at, uncounted) = match inner.version {
                IpVersion::V4 => {
                    let [high, low] = (offset | u16::from(more) << 13).to_be_bytes();
                    (with(with([header, part].concat(), 6, high), 7, low), 2, 0)
                }
                IpVersion::V6 => {
                    let between = fragment_header(inner.protocol, offset, more);
                    (with([header, &between, part].concat(), 6, 44), 4, 40)
                }
            };
            let length = (fragment.len() - uncounted) as u16;
            fragment[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
            let found = Inner::parse(&fragment).unwrap();
            prop_assert_ne!(found.fragment, Fragment::Whole);
            prop_assert_eq!(found.flow_key(), inner.flow_key().portless());
        }
    }
}

const TCP: [u8; 20] = [0, 80, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x12, 0, 0, 0, 0, 0, 0];

/// An IPv4 packet from 192.0.2.1 to 198.51.100.2.
fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet.extend([192, 0, 2, 1, 198, 51, 100, 2]);
    packet.extend(payload);
    packet
}

/// An IPv6 packet from `2001:db8::1` to `2001:db8::2`.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    for last in [1, 2] {
        packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend(payload);
    packet
}

fn with(mut packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    packet[at] = value;
    packet
}

/// A fragment header with identification 9.
fn fragment_header(next: u8, offset: u16, more: bool) -> [u8; 8] {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    [next, 0, high, low, 0, 0, 0, 9]
}

#[rstest]
#[case::empty(vec![], InnerError::Truncated { needed: 1, actual: 0 })]
#[case::version(vec![0x50; 40], InnerError::Version(5))]
#[case::short_ipv4(vec![0x45; 19], InnerError::Truncated { needed: 20, actual: 19 })]
#[case::short_ipv6(vec![0x60; 39], InnerError::Truncated { needed: 40, actual: 39 })]
#[case::ihl(with(ipv4(6, &TCP), 0, 0x44), InnerError::HeaderLength(4))]
#[case::ihl_of_1(with(ipv4(6, &TCP), 0, 0x41), InnerError::HeaderLength(1))]
#[case::no_total_length(with(ipv4(6, &TCP), 3, 0), InnerError::NoTotalLength)]
#[case::total_length_in_header(
    with(ipv4(6, &TCP), 3, 19),
    InnerError::TotalLength { total: 19, header: 20 }
)]
#[case::total_length_in_options(
    with(with(ipv4(6, &TCP), 0, 0x46), 3, 23),
    InnerError::TotalLength { total: 23, header: 24 }
)]
#[case::total_length(with(ipv4(6, &TCP), 3, 41), InnerError::Truncated { needed: 41, actual: 40 })]
#[case::payload_length(with(ipv6(6, &TCP), 5, 21), InnerError::Truncated { needed: 61, actual: 60 })]
#[case::jumbogram(
    with(ipv6(0, &[6, 0, 0xc2, 4, 0, 1, 0, 0]), 5, 0),
    InnerError::Jumbogram
)]
#[case::extension_cut(
    ipv6(60, &[6, 0, 0, 0]),
    InnerError::Extension { kind: 60, offset: 40, needed: 8, available: 4 }
)]
#[case::extension_long(
    ipv6(43, &[6, 1, 0, 0, 0, 0, 0, 0]),
    InnerError::Extension { kind: 43, offset: 40, needed: 16, available: 8 }
)]
#[case::second_extension_cut(
    ipv6(0, &[44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0]),
    InnerError::Extension { kind: 44, offset: 48, needed: 8, available: 3 }
)]
#[case::extension_missing(
    ipv6(51, &[]),
    InnerError::Extension { kind: 51, offset: 40, needed: 12, available: 0 }
)]
#[case::authentication_length(
    ipv6(51, &[6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    InnerError::AuthenticationLength { offset: 40 }
)]
#[case::hop_by_hop_second(
    ipv6(60, &[0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0]),
    InnerError::HopByHopNotFirst { offset: 48 }
)]
#[case::two_fragment_headers(
    ipv6(44, &[fragment_header(44, 0, true), fragment_header(6, 0, true)].concat()),
    InnerError::RepeatedFragment { offset: 48 }
)]
#[case::tcp_cut(
    ipv4(6, &TCP[..19]),
    InnerError::TransportTruncated { protocol: 6, needed: 20, available: 19 }
)]
#[case::tcp_options_cut(
    with(ipv4(6, &TCP), 32, 0x60),
    InnerError::TransportTruncated { protocol: 6, needed: 24, available: 20 }
)]
#[case::tcp_data_offset(with(ipv4(6, &TCP), 32, 0x40), InnerError::TcpDataOffset(4))]
#[case::udp_cut(
    ipv6(17, &[0; 7]),
    InnerError::TransportTruncated { protocol: 17, needed: 8, available: 7 }
)]
#[case::udp_length_0(ipv4(17, &[0; 8]), InnerError::UdpLength { length: 0, available: 8 })]
#[case::udp_length_long(
    ipv4(17, &[0, 1, 0, 2, 0, 9, 0, 0]),
    InnerError::UdpLength { length: 9, available: 8 }
)]
fn refuses(#[case] packet: Vec<u8>, #[case] error: InnerError) {
    assert_eq!(Inner::parse(&packet), Err(error));
}

#[test]
fn bounds_the_extension_headers() {
    let chain = |count: usize| {
        let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        payload[(count - 1) * 8] = protocol::TCP;
        payload.extend(TCP);
        Inner::parse(&ipv6(60, &payload))
    };
    assert_eq!(chain(MAX_EXTENSIONS).unwrap().header_len, 40 + 8 * MAX_EXTENSIONS);
    assert_eq!(chain(MAX_EXTENSIONS + 1), Err(InnerError::TooManyExtensions));
}

#[test]
fn an_empty_ipv6_packet_is_one() {
    let inner = Inner::parse(&ipv6(59, &[])).unwrap();
    assert_eq!((inner.protocol, inner.transport), (59, Transport::Other));
    assert_eq!((inner.header_len, inner.total_len), (40, 40));
}

/// RFC 8200 §4.5 lets destination options stand behind the fragment header. A later fragment
/// cannot know what follows them, so the first must not tell either, or their keys differ.
#[test]
fn fragments_agree_about_the_protocol() {
    let fragmentable = [&[6, 0, 1, 4, 0, 0, 0, 0][..], &TCP].concat();
    let fragment = |offset, more| {
        let header = fragment_header(60, offset, more);
        Inner::parse(&ipv6(44, &[&header[..], &fragmentable].concat())).unwrap()
    };
    let (first, later, atomic) = (fragment(0, true), fragment(4, false), fragment(0, false));
    assert_eq!(first.fragment, Fragment::First { id: 9 });
    assert_eq!(later.fragment, Fragment::Later { id: 9, offset: 4 });
    assert_eq!(first.flow_key(), later.flow_key());
    assert_eq!(first.flow_key().protocol(), 60);
    assert_eq!((first.protocol, first.ports()), (protocol::TCP, Some((80, 1024))));
    assert_eq!((later.protocol, later.transport, later.header_len), (60, Transport::None, 48));

    // RFC 6946: an atomic fragment stands for itself.
    assert_eq!(atomic.fragment, Fragment::Whole);
    assert_eq!(Some(atomic.flow_key()), first.ported_key());
}

#[rstest]
#[case::no_ports(3, Transport::None)]
#[case::ports(4, Transport::PortsOnly { src: 80, dst: 1024 })]
#[case::no_whole_header(19, Transport::PortsOnly { src: 80, dst: 1024 })]
#[case::whole_header(
    20,
    Transport::Tcp { src: 80, dst: 1024, flags: TcpFlags::SYN | TcpFlags::ACK, header_len: 20 }
)]
fn a_first_fragment_may_end_anywhere(#[case] kept: usize, #[case] transport: Transport) {
    let inner = Inner::parse(&with(ipv4(6, &TCP[..kept]), 6, 0x20)).unwrap();
    assert_eq!(inner.fragment, Fragment::First { id: 7 });
    assert_eq!(inner.transport, transport);
}

#[test]
fn sees_source_routes() {
    let routed = |options: [u8; 8]| {
        let mut packet = ipv4(6, &TCP);
        packet[0] = 0x47;
        packet[3] += 8;
        packet.splice(20..20, options);
        Inner::parse(&packet).unwrap().readdressed
    };
    assert!(routed([131, 7, 4, 192, 0, 2, 1, 0]));
    assert!(routed([1, 137, 7, 4, 192, 0, 2, 1]));
    assert!(routed([7, 4, 4, 0, 131, 3, 3, 0]));
    assert!(!routed([131, 7, 8, 192, 0, 2, 1, 0])); // every hop taken
    assert!(!routed([0, 131, 7, 4, 192, 0, 2, 1])); // behind the end
    assert!(!routed([7, 1, 131, 7, 4, 0, 0, 0])); // behind a length that cannot be
    assert!(!routed([1, 1, 1, 1, 1, 1, 7, 40])); // longer than the options

    let routing = |segments_left| {
        let header = [6, 0, 4, segments_left, 0, 0, 0, 0];
        Inner::parse(&ipv6(43, &[&header[..], &TCP].concat())).unwrap().readdressed
    };
    assert!(routing(1) && !routing(0));
}

/// RFC 6275 §6.3: a home address option stands for the source in the pseudo-header.
#[test]
fn sees_home_addresses() {
    let with = |options: &[u8]| {
        let words = (options.len() + 2) / 8 - 1;
        let header = [&[6, words as u8], options].concat();
        Inner::parse(&ipv6(60, &[&header[..], &TCP].concat())).unwrap().readdressed
    };
    let home = [&[0xc9, 16][..], &[7; 16]].concat();
    assert!(with(&[&[1, 2, 0, 0][..], &home].concat()));
    assert!(with(&[&[0, 0, 0, 0][..], &home].concat()));
    assert!(!with(&[1, 4, 0, 0, 0, 0]));
    assert!(!with(&[0, 0, 0, 0, 0, 0]));
    assert!(!with(&[[1, 20, 0, 0], [0xc9, 16, 7, 7]].concat().repeat(3)[..22]), "within padding");
    assert!(!with(&[1, 200, 0xc9, 16, 0, 0]), "longer than the options");
    assert!(!with(&[0, 0, 0, 0, 0, 1]), "cut before the length");
}

fn icmp_error(quote: &[u8]) -> Transport {
    let message = [&[3, 4, 0, 0, 0, 0, 5, 0][..], quote].concat();
    Inner::parse(&ipv4(protocol::ICMP, &message)).unwrap().transport
}

fn about(packet: &[u8], key: impl Fn(&Inner) -> FlowKey) -> Transport {
    let kind = IcmpErrorKind::TooBig { mtu: 1280 };
    Transport::IcmpError { kind, about: key(&Inner::parse(packet).unwrap()) }
}

#[test]
fn an_icmp_error_is_about_the_flow_it_quotes() {
    let tcp = ipv4(6, &TCP);
    let ported = about(&tcp, Inner::flow_key);
    let portless = about(&tcp, |inner| inner.flow_key().portless());
    for kept in 0..=tcp.len() {
        let expected = match kept {
            24.. => ported,
            20.. => portless,
            _ => Transport::Other,
        };
        assert_eq!(icmp_error(&tcp[..kept]), expected, "{kept} bytes quoted");
    }
    // Some senders change the quoted length.
    for total in [0, 19, 21, 200] {
        let expected = if total == 21 { portless } else { ported };
        assert_eq!(icmp_error(&with(tcp.clone(), 3, total)), expected, "length {total}");
    }
    let first = with(tcp.clone(), 6, 0x20);
    assert_eq!(icmp_error(&first), about(&first, |inner| inner.ported_key().unwrap()));
    let later = with(tcp, 7, 4);
    assert_eq!(icmp_error(&later), about(&later, Inner::flow_key));
    let echo = ipv4(protocol::ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(icmp_error(&echo), about(&echo, Inner::flow_key));
    assert_eq!(icmp_error(&[0x35; 40]), Transport::Other);
}

#[test]
fn only_whole_icmp_errors_quote() {
    let message = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &ipv4(6, &TCP)].concat();
    let whole = Inner::parse(&ipv4(protocol::ICMP, &message)).unwrap();
    assert!(matches!(whole.transport, Transport::IcmpError { .. }));
    assert_eq!(whole.flow_key(), whole.flow_key().portless());
    assert_eq!(whole.flow_key().src(), whole.src);

    let first = Inner::parse(&with(ipv4(protocol::ICMP, &message), 6, 0x20)).unwrap();
    assert_eq!(first.transport, Transport::Other);
    // Neither version's ICMP means anything in the other.
    let foreign = Inner::parse(&ipv6(protocol::ICMP, &message)).unwrap();
    assert_eq!(foreign.transport, Transport::Other);
    let short = Inner::parse(&ipv4(protocol::ICMP, &message[..7])).unwrap();
    assert_eq!(short.transport, Transport::Other);
}

#[test]
fn quoted_and_parsed_packets_have_one_key_behind_extension_headers() {
    let payload = [&[60, 0, 1, 4, 0, 0, 0, 0][..], &[6, 0, 1, 4, 0, 0, 0, 0], &TCP].concat();
    let packet = ipv6(0, &payload);
    let key = Inner::parse(&packet).unwrap().flow_key();
    assert_eq!(key.src_port(), 80);
    let kind = IcmpErrorKind::TimeExceeded { code: 0 };
    // The length may be as it was, gone, or wrong.
    for payload_len in [36, 0, 200] {
        let quote = &with(packet.clone(), 5, payload_len)[..60];
        let message = [&[3, 0, 0, 0, 0, 0, 0, 0][..], quote].concat();
        let error = Inner::parse(&ipv6(protocol::ICMPV6, &message)).unwrap();
        assert_eq!(error.transport, Transport::IcmpError { kind, about: key });
    }
}

#[test]
fn the_start_of_a_packet_tells_its_flow() {
    let packet = ipv4(protocol::TCP, &TCP);
    let key = Inner::parse(&packet).unwrap().flow_key();
    for len in 24..=packet.len() {
        assert_eq!(flow_of_start(&packet[..len]), Some(key), "{len} bytes of it");
    }
    // What is too short for ports has none, and what is too short for addresses is nothing.
    assert_eq!(flow_of_start(&packet[..20]), Some(key.portless()));
    assert_eq!(flow_of_start(&packet[..19]), None);
    assert_eq!(flow_of_start(&[]), None);
    let first = with(packet, 6, 0x20);
    assert_eq!(flow_of_start(&first), Some(key), "a first fragment shows its ports");
}
