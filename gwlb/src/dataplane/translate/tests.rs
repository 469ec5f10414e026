//! `etherparse` judges the checksums: the translation itself does not use it.

use etherparse::checksum::Sum16BitWords;
use etherparse::{Ipv4HeaderSlice, TcpSlice, UdpSlice};
use geneve::arbitrary::{self, ValidPacket};
use geneve::checksum::{self, Integrity, Sum};
use geneve::inner::{Inner, IpVersion, Plain, Transport, protocol};
use netio::offload::{Coalescer, Limits, Place, Segmentation, Segmenter};
use proptest::prelude::*;
use router::Attachment;

use super::super::frame::Frame;
use super::super::reply;
use super::super::testing::{CLIENT, GATEWAY, PUBLIC, Plane, SERVER, ack, echo, syn, udp};
use super::super::verdict::{ReturnVerdict, Verdict, Way};
use super::*;

type Direction = fn(&Translation, &mut [u8], &Offload) -> bool;

const DIRECTIONS: [(Direction, [End; 2]); 2] = [
    (Translation::inward, [End::Destination, End::Source]),
    (Translation::outward, [End::Source, End::Destination]),
];

/// A translation in which each first address becomes the second one in this direction.
fn mapping(direction: usize, pairs: &[(Address, Address)]) -> Translation {
    let mappings: Vec<_> = pairs
        .iter()
        .map(|&(from, to)| {
            let (public, private) = if direction == 0 { (from, to) } else { (to, from) };
            AddressMapping { public: public.into(), private: private.into() }
        })
        .collect();
    Translation::of(&mappings).unwrap()
}

fn address(packet: &[u8], end: End) -> Address {
    packet[end.at()..][..4].try_into().unwrap()
}

/// A valid IPv4 packet, sometimes UDP without a checksum.
fn packet() -> impl Strategy<Value = ValidPacket> {
    (arbitrary::packet_of(IpVersion::V4), any::<bool>()).prop_map(|(mut packet, summed)| {
        let ValidPacket { bytes, inner } = &mut packet;
        if !summed && matches!(inner.transport, Transport::Udp { .. }) {
            bytes[inner.header_len + UDP_CHECKSUM..][..2].fill(0);
        }
        packet
    })
}

/// Where in an ICMP error the quoted packet begins.
fn quote(inner: &Inner) -> Option<usize> {
    matches!(inner.transport, Transport::IcmpError { .. }).then_some(inner.header_len + ICMP_HEADER)
}

/// The packets that a super-packet stands for.
fn segments(segmenter: &Segmenter, packet: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..segmenter.count()).map(|i| {
        let mut bytes = vec![0; segmenter.header_len()];
        let segment = segmenter.segment(i, &mut bytes);
        bytes.truncate(segment.header_len);
        bytes.extend_from_slice(&packet[segment.payload]);
        bytes
    })
}

/// Whether the header's checksum is right, and the transport's where it can be known.
fn is_right(packet: &[u8]) -> bool {
    let header = Ipv4HeaderSlice::from_slice(packet).unwrap();
    let upper = &packet[header.slice().len()..usize::from(header.total_len())];
    let (src, dst) = (header.source(), header.destination());
    header.header_checksum() == header.to_header().calc_header_checksum()
        && match header.protocol().0 {
            _ if header.is_fragmenting_payload() => true,
            protocol::TCP => {
                let tcp = TcpSlice::from_slice(upper).unwrap();
                tcp.checksum() == tcp.calc_checksum_ipv4(src, dst).unwrap()
            }
            protocol::UDP => {
                let udp = UdpSlice::from_slice(upper).unwrap().to_header();
                let sum = udp.calc_checksum_ipv4_raw(src, dst, &upper[8..]).unwrap();
                udp.checksum == 0 || udp.checksum == sum
            }
            protocol::ICMP => Sum16BitWords::new().add_slice(upper).ones_complement() == 0,
            _ => true,
        }
}

proptest! {
    /// There and back by the mirrored mapping: the same bytes. And in between, everything but the
    /// two addresses and the checksums is as it was, and what was right is right.
    #[test]
    fn the_way_back_undoes_the_way_there(
        packet in packet(),
        others: [Address; 2],
        direction in 0..2_usize,
    ) {
        let ValidPacket { bytes, inner } = packet;
        let (translate, [end, quoted_end]) = DIRECTIONS[direction];
        let mut addresses = vec![address(&bytes, end)];
        addresses.extend(quote(&inner).map(|at| address(&bytes[at..], quoted_end)));
        addresses.dedup();
        let pairs: Vec<_> = addresses.iter().copied().zip(others).collect();
        let mirrored: Vec<_> = pairs.iter().map(|&(from, to)| (to, from)).collect();
        addresses.extend(others);
        addresses.sort_unstable();
        prop_assume!(addresses.windows(2).all(|pair| pair[0] != pair[1]));

        let mut changed = bytes.clone();
        prop_assert!(translate(&mapping(direction, &pairs), &mut changed, &Offload::NONE));
        let there = Inner::parse(&changed).unwrap();
        prop_assert_eq!(address(&changed, end), pairs[0].1);
        if let Some(at) = quote(&inner) {
            prop_assert_eq!(address(&changed[at..], quoted_end), pairs[pairs.len() - 1].1);
        }
        // A source route leads on from the destination: the checksum covers another one.
        if checksum::verify(&inner, &bytes) != Integrity::Unknown {
            prop_assert!(is_right(&changed));
            prop_assert_eq!(checksum::verify(&there, &changed), checksum::verify(&inner, &bytes));
        }

        prop_assert!(translate(&mapping(direction, &mirrored), &mut changed, &Offload::NONE));
        prop_assert_eq!(&changed, &bytes);
        prop_assert!(!translate(&mapping(direction, &mirrored), &mut changed, &Offload::NONE));
        prop_assert_eq!(changed, bytes);
    }

    /// An updated checksum is the one that a host with the other address would have sent.
    #[test]
    fn the_result_is_what_the_other_address_would_send(
        packet in arbitrary::simple_packet_of(IpVersion::V4),
        other: Address,
        direction in 0..2_usize,
    ) {
        let bytes = packet.bytes;
        let (translate, [end, _]) = DIRECTIONS[direction];
        let mut changed = bytes.clone();
        let pair = (address(&bytes, end), other);
        prop_assert!(translate(&mapping(direction, &[pair]), &mut changed, &Offload::NONE));

        let mut expected = bytes;
        expected[end.at()..][..4].copy_from_slice(&other);
        checksum::complete(&Inner::parse(&expected).unwrap(), &mut expected);
        prop_assert_eq!(changed, expected);
    }

    /// Whoever gets an error about a packet finds in it the packet as it was sent, as far as it is
    /// quoted: with the addresses and checksums of its own side.
    #[test]
    fn an_error_quotes_what_was_sent(
        packet in packet(),
        other: Address,
        keep: prop::sample::Index,
        kind in prop::sample::select(vec![3_u8, 4, 5, 11, 12]),
        direction in 0..2_usize,
    ) {
        let ValidPacket { bytes: sent, inner } = packet;
        let (there, [end, _]) = DIRECTIONS[direction];
        let (back, _) = DIRECTIONS[1 - direction];
        let translation = mapping(direction, &[(address(&sent, end), other)]);
        let mut seen = sent.clone();
        prop_assert!(there(&translation, &mut seen, &Offload::NONE));

        // RFC 792 promises eight bytes; of half a checksum nobody can tell anything.
        let len = inner.header_len + keep.index((seen.len() - inner.header_len) / 2 + 1) * 2;
        let total = (IPV4_MIN + ICMP_HEADER + len) as u16;
        let mut error = vec![0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol::ICMP, 0, 0, 1, 2, 3, 4];
        error[2..4].copy_from_slice(&total.to_be_bytes());
        error.extend(address(&seen, End::Source));
        error.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        error.extend_from_slice(&seen[..len]);
        let parsed = Inner::parse(&error).unwrap();
        prop_assert!(checksum::complete(&parsed, &mut error));

        prop_assert!(back(&translation, &mut error, &Offload::NONE));
        prop_assert_eq!(&error[IPV4_MIN + ICMP_HEADER..], &sent[..len]);
        prop_assert!(is_right(&error));
    }

    /// Fragments that are put together again are the translated packet, wherever it is cut: even
    /// where the checksum is not in the first one (RFC 1858 section 3).
    #[test]
    fn fragments_join_to_the_translated_packet(
        packet in arbitrary::simple_packet_of(IpVersion::V4),
        other: Address,
        units in 1..8_usize,
        direction in 0..2_usize,
    ) {
        let ValidPacket { bytes, .. } = packet;
        let (translate, [end, _]) = DIRECTIONS[direction];
        let translation = mapping(direction, &[(address(&bytes, end), other)]);
        let mut whole = bytes.clone();
        prop_assert!(translate(&translation, &mut whole, &Offload::NONE));

        let (header, payload) = bytes.split_at(IPV4_MIN);
        let mut joined = Vec::new();
        for (number, part) in payload.chunks(units * 8).enumerate() {
            let more = (number + 1) * units * 8 < payload.len();
            let place = (number * units) as u16 | if more { 0x2000 } else { 0 };
            let mut fragment = [header, part].concat();
            fragment[2..4].copy_from_slice(&((IPV4_MIN + part.len()) as u16).to_be_bytes());
            fragment[6..8].copy_from_slice(&place.to_be_bytes());
            fragment[10..12].fill(0);
            let sum = checksum::of(&fragment[..IPV4_MIN]);
            fragment[10..12].copy_from_slice(&sum.to_be_bytes());
            prop_assert!(translate(&translation, &mut fragment, &Offload::NONE));
            prop_assert_eq!(checksum::of(&fragment[..IPV4_MIN]), 0);
            prop_assert_eq!(address(&fragment, end), other);
            joined.extend_from_slice(&fragment[IPV4_MIN..]);
        }
        prop_assert_eq!(&joined, &whole[IPV4_MIN..]);
    }

    /// A device that left the checksum to us gives only the pseudo-header's sum.
    #[test]
    fn an_unfinished_checksum_is_finished_right(
        packet in arbitrary::simple_packet_of(IpVersion::V4),
        other: Address,
        size in 1..100_u16,
        direction in 0..2_usize,
    ) {
        let ValidPacket { mut bytes, inner } = packet;
        let (tcp, offset) = match inner.transport {
            Transport::Tcp { .. } => (true, TCP_CHECKSUM),
            _ => (false, UDP_CHECKSUM),
        };
        let upper = (bytes.len() - IPV4_MIN) as u32;
        let sum = !Sum::pseudo_header(inner.src, inner.dst, inner.protocol, upper).finish();
        bytes[IPV4_MIN + offset..][..2].copy_from_slice(&sum.to_be_bytes());
        let start = IPV4_MIN as u16;
        let checksum = Some(PartialChecksum { start, offset: offset as u16 });
        let segment = if tcp {
            Segmentation::Tcp { size, ecn: false }
        } else {
            Segmentation::Udp { size }
        };

        let (translate, [end, _]) = DIRECTIONS[direction];
        let translation = mapping(direction, &[(address(&bytes, end), other)]);
        for segment in [Segmentation::None, segment] {
            let offload = Offload { segment, checksum, hdr_len: 0 };
            let mut changed = bytes.clone();
            prop_assert!(translate(&translation, &mut changed, &offload));
            let inner = Inner::parse(&changed).unwrap();
            let segmenter = Segmenter::new(&changed, &inner, &offload).unwrap();
            for packet in segments(&segmenter, &changed) {
                prop_assert!(is_right(&packet), "{packet:02x?}");
                prop_assert_eq!(address(&packet, end), other);
            }
        }
    }

    /// What leaves behind a copied head is what would leave if it were translated where it lies.
    #[test]
    fn a_head_is_all_that_changes(packet in packet(), others: [Address; 2], mapped: [bool; 2]) {
        let ValidPacket { bytes, inner } = packet;
        let quoted = quote(&inner).map(|at| address(&bytes[at..], End::Destination));
        let candidates = [Some(address(&bytes, End::Source)), quoted];
        let pairs: Vec<_> = candidates
            .into_iter()
            .zip(mapped)
            .filter_map(|(address, mapped)| address.filter(|_| mapped))
            .chain([[9; 4]])
            .zip([others[0], others[1], [8; 4]])
            .collect();
        let translation = mapping(1, &pairs);
        let mut changed = bytes.clone();
        let any = translation.outward(&mut changed, &Offload::NONE);
        let head = translation.outward_head(&bytes, &Offload::NONE);
        prop_assert_eq!(head.is_some(), any);
        prop_assert_eq!(Head::before(head.as_ref(), &bytes).concat(), changed.clone());

        // The same the other way round.
        let back = translation.inward_head(&changed, &Offload::NONE);
        let mut inward = changed.clone();
        prop_assert_eq!(back.is_some(), translation.inward(&mut inward, &Offload::NONE));
        prop_assert_eq!(Head::before(back.as_ref(), &changed).concat(), inward.clone());
        let len = back.as_ref().map_or(0, |back| back.bytes().len());
        prop_assert_eq!(back.as_ref().map_or(&[][..], Head::bytes), &inward[..len]);
    }

    /// Noise, with or without headers that let it in, never panics, and is left alone unless it
    /// begins with an IPv4 header.
    #[test]
    fn noise_does_no_harm(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        headers in prop::option::of((0x45..=0x4f_u8, 0x45..=0x4f_u8)),
        protocols in prop::sample::select(vec![[1_u8, 6], [1, 17], [6, 0], [17, 0], [136, 0]]),
        fragment in prop::option::of(any::<[u8; 2]>()),
        partial in prop::option::of(any::<[u16; 2]>()),
        other: Address,
        direction in 0..2_usize,
    ) {
        let quote = headers.map_or(0, |(outer, _)| usize::from(outer & 0xf) * 4 + ICMP_HEADER);
        if let Some((outer, inner)) = headers {
            let kind = quote - ICMP_HEADER;
            let values = [(0, outer), (9, protocols[0]), (kind, 3), (quote, inner), (quote + 9, protocols[1])];
            for (at, value) in values {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            if let Some(place) = field(&mut bytes, 6) {
                *place = fragment.unwrap_or_default();
            }
        }
        let checksum = partial.map(|[start, offset]| PartialChecksum { start, offset });
        let offload = Offload { checksum, ..Offload::NONE };
        let (translate, [end, quoted_end]) = DIRECTIONS[direction];
        // In both places the one address, so that both are translated.
        let known = [9; 4];
        for at in [end.at(), quote + quoted_end.at()] {
            if let Some(place) = field(&mut bytes, at) {
                *place = known;
            }
        }
        let mut changed = bytes.clone();
        let any = translate(&mapping(direction, &[(known, other)]), &mut changed, &offload);
        prop_assert!(any || changed == bytes);
        prop_assert!(!any || bytes[0] >> 4 == 4);
    }

    #[test]
    fn cut_anywhere_it_does_no_harm(packet in packet(), other: Address) {
        let bytes = packet.bytes;
        let (translate, [end, _]) = DIRECTIONS[0];
        let translation = mapping(0, &[(address(&bytes, end), other)]);
        for len in 0..bytes.len() {
            let mut cut = bytes[..len].to_vec();
            let any = translate(&translation, &mut cut, &Offload::NONE);
            prop_assert_eq!(any, len >= packet.inner.header_len);
        }
    }
}

/// UDP-Lite and DCCP have the pseudo-header of UDP, and their checksum where UDP has it.
#[test]
fn other_protocols_with_a_pseudo_header_are_summed_right() {
    for protocol in [33, 136] {
        let mut packet = udp(CLIENT, PUBLIC, (1000, 2000), b"data");
        packet[9] = protocol;
        let sum = |packet: &[u8]| {
            let upper = &packet[IPV4_MIN..];
            let mut words = Sum16BitWords::new().add_slice(&packet[12..20]).add_slice(upper);
            words = words.add_2bytes([0, protocol]).add_2bytes((upper.len() as u16).to_be_bytes());
            words.ones_complement()
        };
        packet[26..28].fill(0);
        let checksum = sum(&packet).to_ne_bytes();
        packet[26..28].copy_from_slice(&checksum);
        assert_eq!(sum(&packet), 0);
        assert!(mapping(0, &[(PUBLIC, SERVER)]).inward(&mut packet, &Offload::NONE));
        assert_eq!(sum(&packet), 0, "protocol {protocol}");
    }
}

/// The checksum of an ICMP error that its device is to sum up covers the quote as it is then.
#[test]
fn an_unfinished_icmp_checksum_is_left_alone() {
    let sent = udp(PUBLIC, CLIENT, (53, 1000), b"answer");
    let inner = Inner::parse(&sent).unwrap();
    let mut error = reply::packet_too_big(&sent, &inner, CLIENT.into(), 1000).unwrap();
    let unfinished = [0, 0];
    error.bytes_mut()[IPV4_MIN + ICMP_CHECKSUM..][..2].copy_from_slice(&unfinished);
    let checksum = Some(PartialChecksum { start: 20, offset: 2 });
    let offload = Offload { checksum, ..Offload::NONE };
    assert!(mapping(0, &[(PUBLIC, SERVER)]).inward(error.bytes_mut(), &offload));
    assert_eq!(error.bytes()[IPV4_MIN + ICMP_CHECKSUM..][..2], unfinished);
    assert_eq!(address(&error.bytes()[IPV4_MIN + ICMP_HEADER..], End::Source), SERVER);
}

/// A tunnel's outer checksum is finished where the one inside it is not.
#[test]
fn a_checksum_is_finished_unless_it_is_the_unfinished_one() {
    let mut packet = udp(CLIENT, PUBLIC, (1000, 4789), &[7; 100]);
    let checksum = Some(PartialChecksum { start: 70, offset: 16 });
    let offload = Offload { checksum, ..Offload::NONE };
    assert!(mapping(0, &[(PUBLIC, SERVER)]).inward(&mut packet, &offload));
    assert_eq!(packet, udp(CLIENT, SERVER, (1000, 4789), &[7; 100]));
}

/// RFC 768: a checksum of zero is sent as all ones, or it would be none.
#[test]
fn a_udp_checksum_that_becomes_zero_is_sent_as_all_ones() {
    let plane = Plane::new("drop");
    let without = udp(CLIENT, SERVER, (1000, 53), &[0, 0]);
    let payload = &without[IPV4_MIN + UDP_CHECKSUM..][..2];
    let inside = udp(CLIENT, SERVER, (1000, 53), payload);
    assert_eq!(inside[IPV4_MIN + UDP_CHECKSUM..][..2], [0xff, 0xff]);
    assert_eq!(plane.enter(udp(CLIENT, PUBLIC, (1000, 53), payload)), inside);
}

/// What looks like an error in the middle of a message is data.
#[test]
fn a_later_fragment_quotes_nothing() {
    let plane = Plane::new("drop");
    let sent = udp(PUBLIC, CLIENT, (53, 1000), b"answer");
    let inner = Inner::parse(&sent).unwrap();
    let error = reply::packet_too_big(&sent, &inner, CLIENT.into(), 1000).unwrap();
    let mut fragment = error.bytes().to_vec();
    fragment[7] = 1;
    assert_eq!(plane.enter(fragment.clone())[IPV4_MIN..], fragment[IPV4_MIN..]);
}

#[test]
fn the_longest_headers_fit_a_head() {
    let header = |protocol: u8, dst: Address| {
        let mut header = vec![0x4f, 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0, 1, 2, 3, 4];
        header.extend(dst);
        header.resize(IPV4_MAX, 1);
        header
    };
    let error = [3, 1, 0, 0, 0, 0, 0, 0];
    let packet =
        [&header(protocol::ICMP, CLIENT)[..], &error, &header(protocol::TCP, SERVER), &[7; 20]];
    let packet = packet.concat();
    let translation = mapping(1, &[(SERVER, PUBLIC)]);
    let head = translation.outward_head(&packet, &Offload::NONE);
    let mut changed = packet.clone();
    assert!(translation.outward(&mut changed, &Offload::NONE));
    assert_ne!(changed[Head::MAX - 2..], packet[Head::MAX - 2..], "up to the last byte");
    assert_eq!(Head::before(head.as_ref(), &packet).concat(), changed);
}

#[test]
fn a_gateway_without_mappings_has_no_translation() {
    assert!(Translation::of(&[]).is_none());
    let plane = Plane::new("drop");
    let subnet = plane.snapshot.topology.subnet_by_name("app-a").unwrap();
    assert!(plane.snapshot.translation(Attachment::Subnet(subnet)).is_none());
}

#[test]
fn what_has_no_mapping_passes_as_it_is() {
    let plane = Plane::new("drop");
    for packet in [
        udp(CLIENT, SERVER, (1, 2), b"straight to the private address"),
        udp(PUBLIC, CLIENT, (1, 2), b"its own address as source"),
    ] {
        assert_eq!(plane.enter(packet.clone()), packet);
    }
    for packet in [
        udp([10, 0, 1, 12], CLIENT, (1, 2), b"a machine without a public address"),
        udp(CLIENT, SERVER, (1, 2), b"to the private address"),
    ] {
        assert_eq!(plane.leave(plane.internet(), &packet), packet);
    }
}

#[test]
fn flows_and_appliances_see_private_addresses_only() {
    let mut plane = Plane::new("drop");
    let (igw, app, internet) = (plane.igw, plane.app, plane.internet());

    let question = plane.enter(syn(CLIENT, PUBLIC, (1000, 80)));
    assert_eq!(question, syn(CLIENT, SERVER, (1000, 80)));
    let there = plane.hop(igw, &question);
    let (from, datagram) = echo(&there, &question);
    let delivered = returned(&mut plane, from, &datagram);
    assert!(matches!(delivered.0, Attachment::Subnet(_)), "{delivered:?}");
    assert_eq!(delivered.1, question, "the server sees its own address");

    let answer = ack(SERVER, CLIENT, (80, 1000), b"hello");
    let back = plane.hop(app, &answer);
    assert_eq!(there, back);
    let (from, datagram) = echo(&back, &answer);
    let (to, packet) = returned(&mut plane, from, &datagram);
    assert_eq!(to, internet);
    assert_eq!(packet, ack(PUBLIC, CLIENT, (80, 1000), b"hello"), "the client sees what it asked");
}

/// Where a returned packet leaves, and its bytes after that.
fn returned(
    plane: &mut Plane,
    from: std::net::SocketAddr,
    datagram: &[u8],
) -> (Attachment, Vec<u8>) {
    match plane.returns.handle_datagram(from, GATEWAY, datagram) {
        ReturnVerdict::Accept(returned) => match returned.way {
            Way::Deliver(to) => (to, plane.leave(to, &datagram[returned.range])),
            other @ (Way::Onward(_) | Way::Probe) => panic!("{other:?}"),
        },
        ReturnVerdict::Drop(reason) => panic!("{reason}"),
    }
}

#[test]
fn an_error_from_the_internet_goes_where_its_flow_goes() {
    let mut plane = Plane::new("drop");
    let (igw, app, internet) = (plane.igw, plane.app, plane.internet());
    for port in 1000..1020 {
        let sent = udp(SERVER, CLIENT, (port, 53), b"question");
        let flow = plane.hop(app, &sent);
        let seen = plane.leave(internet, &sent);
        let router = [203, 0, 113, 1];
        let inner = Inner::parse(&seen).unwrap();
        let error = reply::packet_too_big(&seen, &inner, router.into(), 1000).unwrap();
        let error = plane.enter(error.bytes().to_vec());
        assert!(is_right(&error));
        assert_eq!(address(&error, End::Destination), SERVER);
        assert_eq!(error[IPV4_MIN + ICMP_HEADER..], sent);
        let about = plane.hop(igw, &error);
        assert_eq!((flow.target, flow.port), (about.target, about.port));
    }
}

#[test]
fn what_the_gateway_answers_the_internet_names_public_addresses() {
    for setting in ["drop", "reset"] {
        let mut plane = Plane::new(setting);
        let asked = match setting {
            "drop" => udp(CLIENT, PUBLIC, (1000, 53), &[0; 1405]),
            _ => ack(CLIENT, PUBLIC, (1000, 80), b"late"),
        };
        let packet = plane.enter(asked.clone());
        let Verdict::Reply(reply) = plane.send(plane.igw, &packet) else { panic!("no reply") };
        assert_eq!(reply.to, plane.internet());
        let answer = plane.leave(reply.to, reply.packet.bytes());
        assert!(is_right(&answer));
        if setting == "drop" {
            let quote = &answer[IPV4_MIN + ICMP_HEADER..];
            assert_eq!(quote, &asked[..quote.len()], "the client knows its packet by the quote");
        } else {
            assert_eq!(address(&answer, End::Source), PUBLIC);
        }
    }
}

/// Packets that were joined on their way back are translated once, by the headers they share.
#[test]
fn joined_packets_are_translated_by_their_common_headers() {
    let packets: Vec<_> = (0..5_u32)
        .map(|i| {
            let mut packet = ack(SERVER, CLIENT, (80, 1000), &[i as u8; 100]);
            packet[4..6].copy_from_slice(&(i as u16).to_be_bytes());
            packet[IPV4_MIN + 4..][..4].copy_from_slice(&(1000 + 100 * i).to_be_bytes());
            checksum::complete(&Inner::parse(&packet).unwrap(), &mut packet);
            packet
        })
        .collect();
    let plane = Plane::new("drop");
    let translation = plane.snapshot.translation(plane.internet()).unwrap();
    let mut coalescer = Coalescer::new(Limits::default());
    for (buffer, packet) in packets.iter().enumerate() {
        let at = Place { buffer: buffer as u32, start: 0 };
        let plain = Plain::read(packet);
        let bytes = |buffer: u32| &packets[buffer as usize][..];
        coalescer.push(packet, plain.as_ref(), at, (), bytes, |run| panic!("{run:?} came apart"));
    }
    let mut joined = Vec::new();
    coalescer.flush(|run| {
        let head = translation.outward_head(run.headers, &run.offload);
        let mut packet = Head::before(head.as_ref(), run.headers).concat();
        for piece in run.pieces {
            packet.extend_from_slice(piece.of(&packets[piece.buffer as usize]));
        }
        let inner = Inner::parse(&packet).unwrap();
        let segmenter = Segmenter::new(&packet, &inner, &run.offload).unwrap();
        joined.extend(segments(&segmenter, &packet));
    });
    let internet = plane.internet();
    let singly: Vec<_> = packets.iter().map(|packet| plane.leave(internet, packet)).collect();
    assert_eq!(joined, singly);
    assert!(joined.iter().all(|packet| is_right(packet) && address(packet, End::Source) == PUBLIC));
}

#[test]
fn a_super_packet_is_routed_and_cut_as_its_segments_would_be() {
    let mut plane = Plane::new("adopt");
    let mut packet = ack(CLIENT, PUBLIC, (1000, 80), &[7; 5000]);
    let upper = (packet.len() - IPV4_MIN) as u32;
    let sum = !Sum::pseudo_header(CLIENT.into(), PUBLIC.into(), protocol::TCP, upper).finish();
    packet[IPV4_MIN + TCP_CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
    let checksum = Some(PartialChecksum { start: 20, offset: 16 });
    let segment = Segmentation::Tcp { size: 1000, ecn: false };
    let offload = Offload { segment, checksum, hdr_len: 40 };
    let translation = plane.snapshot.translation(plane.internet()).unwrap();
    assert!(translation.inward(&mut packet, &offload));

    let frame = Frame::parse(&packet, &offload).unwrap();
    let verdict = plane.ingress.handle_packet(plane.igw.into(), &frame, plane.now);
    let Verdict::ToAppliance(hop) = verdict else { panic!("{verdict:?}") };
    let single = plane.hop(plane.igw, &ack(CLIENT, SERVER, (1000, 80), b"one"));
    assert_eq!(hop, single);
}
