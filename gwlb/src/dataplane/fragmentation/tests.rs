//! Through the encapsulator, as the exits use it. What comes out is put together again by an obvious
//! reassembler, and must be what went in.

use std::collections::BTreeMap;

use etherparse::{IpNumber, Ipv4Header, Ipv4HeaderSlice};
use geneve::arbitrary;
use geneve::checksum::Integrity;
use geneve::dialect::{Dialect, Tags};
use geneve::header::ProtocolType;
use geneve::inner::protocol;
use netio::offload::{Offload, PartialChecksum, Segmentation};
use netio::udp::{MAX_GSO_BYTES, MAX_GSO_SEGMENTS};
use proptest::prelude::*;
use rstest::rstest;

use super::super::encap::Encapsulator;
use super::super::testing::{CLIENT, SERVER};
use super::super::verdict::GeneveHeader;
use super::*;

fn header() -> GeneveHeader {
    let tags = Tags { endpoint: 1, attachment: 0, cookie: 2 };
    GeneveHeader::stamped(&Dialect::AWS.template(ProtocolType::IPV4), &tags)
}

/// What is sent for a packet, without the Geneve headers, and how many pieces the gateway made. The
/// batches are such as the kernel takes.
fn sent(packet: &[u8], offload: &Offload, mtu: u16) -> Result<(Vec<Vec<u8>>, u64), OffloadError> {
    let frame = Frame::parse(packet, offload).unwrap();
    let header = header();
    let mut sent: Vec<Vec<u8>> = Vec::new();
    let made = Encapsulator::default().encapsulate_fragmented(&header, &frame, mtu, |batch| {
        assert!((1..=MAX_GSO_SEGMENTS).contains(&batch.segments));
        assert!(batch.segments == 1 || batch.len() <= MAX_GSO_BYTES);
        let before = sent.len();
        batch.singly(|single| {
            let datagram: Vec<u8> = single.pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            let inner = datagram.strip_prefix(header.as_bytes()).expect("behind its header");
            sent.push(inner.to_vec());
        });
        let mut lengths: Vec<_> = sent[before..].iter().map(Vec::len).collect();
        assert_eq!(lengths.len(), batch.segments);
        let size = usize::from(batch.segment_size) - header.as_bytes().len();
        assert!(lengths.pop().unwrap() <= size, "the last may be shorter");
        assert!(lengths.iter().all(|len| *len == size), "{lengths:?} in steps of {size}");
    })?;
    assert_eq!(made, sent.len() as u64 - frame.segments());
    Ok((sent, made))
}

/// The options that a header has in effect: without padding.
fn options(packet: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = Ipv4HeaderSlice::from_slice(packet).unwrap().options();
    let mut options = Vec::new();
    loop {
        let len = match *rest {
            [] | [0, ..] => return options,
            [1, ..] => 1,
            [_, len, ..] => usize::from(len),
            [_] => return options,
        };
        if rest[0] != 1 {
            options.push(rest[..len].to_vec());
        }
        rest = &rest[len..];
    }
}

/// Fragments of one packet, in any order, put together: RFC 791 section 3.2, slow and plain. What
/// it gives is as the packet was before, so if that was a fragment, a fragment.
fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let read = |packet: &[u8]| {
        let (header, _) = Ipv4Header::from_slice(packet).unwrap();
        (header.fragment_offset.value(), header.more_fragments)
    };
    let mut sorted: Vec<_> = fragments.iter().map(|packet| (read(packet), &packet[..])).collect();
    sorted.sort_unstable();
    let mut whole = Vec::new();
    let mut expected = sorted[0].0.0;
    let last = sorted.len() - 1;
    for (position, ((offset, more), packet)) in sorted.iter().enumerate() {
        assert_eq!(*offset, expected, "neither gap nor overlap");
        let header_len = Ipv4HeaderSlice::from_slice(packet).unwrap().slice().len();
        let payload = &packet[header_len..];
        if position == 0 {
            whole.extend_from_slice(packet);
        } else {
            whole.extend_from_slice(payload);
        }
        if position < last {
            assert!(*more && payload.len().is_multiple_of(8) && !payload.is_empty());
            expected += (payload.len() / 8) as u16;
        } else if !more {
            whole[6] &= !0x20;
        }
    }
    let len = whole.len() as u16;
    whole[2..4].copy_from_slice(&len.to_be_bytes());
    let header_len = Ipv4HeaderSlice::from_slice(&whole).unwrap().slice().len();
    whole[10..12].fill(0);
    let checksum = checksum::of(&whole[..header_len]);
    whole[10..12].copy_from_slice(&checksum.to_be_bytes());
    whole
}

/// What must hold for all pieces of one segment.
fn check_pieces(segment: &[u8], pieces: &[Vec<u8>], mtu: u16) {
    if segment.len() <= usize::from(mtu.max(MIN_MTU)) {
        assert_eq!(pieces, [segment], "what fits is not touched");
        return;
    }
    assert_eq!(reassembled(pieces), segment);
    let original = Ipv4HeaderSlice::from_slice(segment).unwrap();
    let header_len = original.slice().len();
    let most = (usize::from(mtu.max(MIN_MTU)) - header_len) / 8 * 8;
    // As few as can be, were it not that the last may hold a few bytes more than a multiple of 8.
    let fewest = (segment.len() - header_len).div_ceil(most);
    assert!(pieces.len() <= fewest, "{} pieces of {fewest}", pieces.len());
    let copied: Vec<_> =
        options(segment).into_iter().filter(|option| option[0] & 0x80 != 0).collect();
    for (position, piece) in pieces.iter().enumerate() {
        assert!(piece.len() <= usize::from(mtu.max(MIN_MTU)));
        let header = Ipv4HeaderSlice::from_slice(piece).unwrap();
        assert_eq!(usize::from(header.total_len()), piece.len());
        assert_eq!(checksum::of(header.slice()), 0);
        assert_eq!(header.identification(), original.identification());
        let same = |header: &Ipv4HeaderSlice<'_>| {
            let bytes = header.slice();
            (bytes[1], bytes[8], bytes[9], header.source(), header.destination())
        };
        assert_eq!(same(&header), same(&original));
        let expected = if position == 0 { options(segment) } else { copied.clone() };
        assert_eq!(options(piece), expected);
    }
    let lengths: Vec<_> = pieces.iter().map(Vec::len).collect();
    assert!(lengths[..lengths.len() - 1].iter().all(|len| *len == lengths[0]));
}

/// A packet that may be cut, of any protocol, with options and perhaps itself a fragment.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        2 => Just(vec![1]),
        1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..8)).prop_map(|(kind, data)| {
            // Neither the end nor padding, which have no length.
            let mut option = vec![kind.max(2), 2 + data.len() as u8];
            option.extend(data);
            option
        }),
    ];
    let options = prop::collection::vec(option, 0..6).prop_map(|options| {
        let mut bytes = options.concat();
        bytes.truncate(40);
        // An option that was cut off would have no valid length.
        let mut whole = 0;
        while whole < bytes.len() {
            let len = if bytes[whole] == 1 { 1 } else { *bytes.get(whole + 1).unwrap_or(&99) };
            if whole + usize::from(len) > bytes.len() {
                break;
            }
            whole += usize::from(len);
        }
        bytes.truncate(whole);
        bytes.resize(whole.next_multiple_of(4), 0);
        bytes
    });
    let place = prop_oneof![2 => Just((0, false)), 1 => (0..7000_u16, any::<bool>())];
    let payload = prop_oneof![3 => 0..3000_usize, 1 => 0..9000_usize];
    (options, place, payload, any::<[u8; 4]>()).prop_map(
        |(options, (offset, more), len, [tos, ttl, high, low])| {
            // ESP: nothing of the payload is read.
            let header = Ipv4Header::new(len as u16, ttl, IpNumber(50), CLIENT, SERVER);
            let mut header = header.unwrap();
            header.options = options[..].try_into().unwrap();
            header.set_payload_len(len).unwrap();
            (header.dscp, header.identification) =
                ((tos >> 2).try_into().unwrap(), u16::from_be_bytes([high, low]));
            header.fragment_offset = offset.try_into().unwrap();
            (header.more_fragments, header.dont_fragment) = (more, false);
            header.header_checksum = header.calc_header_checksum();
            let payload = (0..len).map(|at| (at * 7 + at / 256) as u8);
            header.to_bytes().iter().copied().chain(payload).collect()
        },
    )
}

/// TCP or UDP between two hosts, with a checksum that is right or left to be completed.
fn segment(number: u8, payload: usize, partial: bool) -> (Vec<u8>, Option<PartialChecksum>) {
    let mut transport = vec![0; if number == protocol::TCP { 32 } else { 8 }];
    transport[..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
    let field: u16 = if number == protocol::TCP { 16 } else { 6 };
    if number == protocol::TCP {
        (transport[12], transport[13]) = (0x80, 0x10);
        transport[20..].copy_from_slice(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    } else {
        transport[4..6].copy_from_slice(&(8 + payload as u16).to_be_bytes());
    }
    transport.extend((0..payload).map(|at| (at * 13) as u8));
    let mut header =
        Ipv4Header::new(transport.len() as u16, 64, IpNumber(number), CLIENT, SERVER).unwrap();
    (header.identification, header.dont_fragment) = (0xfffe, false);
    header.header_checksum = header.calc_header_checksum();
    let mut packet = [&header.to_bytes()[..], &transport].concat();
    if !partial {
        let inner = Inner::parse(&packet).unwrap();
        assert!(checksum::complete(&inner, &mut packet));
        return (packet, None);
    }
    let len = transport.len() as u32;
    let sum = checksum::Sum::pseudo_header(CLIENT.into(), SERVER.into(), number, len).finish();
    let at = 20 + usize::from(field);
    packet[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
    (packet, Some(PartialChecksum { start: 20, offset: field }))
}

#[rstest]
#[case(protocol::UDP, false)]
#[case(protocol::UDP, true)]
#[case(protocol::TCP, true)]
fn a_checksum_is_completed_before_the_cut(#[case] number: u8, #[case] partial: bool) {
    let (packet, checksum) = segment(number, 3001, partial);
    let offload = Offload { checksum, ..Offload::NONE };
    for mtu in [68, 576, 1432] {
        let (pieces, made) = sent(&packet, &offload, mtu).unwrap();
        assert_eq!(made, pieces.len() as u64 - 1);
        let whole = reassembled(&pieces);
        let inner = Inner::parse(&whole).unwrap();
        assert_eq!(checksum::verify(&inner, &whole), Integrity::Valid);
        assert_eq!(whole[..26], packet[..26], "{mtu}");
        assert_eq!(whole[28..36], packet[28..36]);
        assert_eq!(whole[38..], packet[38..]);
    }
}

/// Longer segments than fit are cut each for itself, under an identification of its own.
#[rstest]
#[case(Segmentation::Udp { size: 1472 }, 20_000)]
#[case(Segmentation::Udp { size: 1404 }, 60_000)]
#[case(Segmentation::Udp { size: 1405 }, 60_000)]
#[case(Segmentation::Tcp { size: 1448, ecn: false }, 62_000)]
#[case(Segmentation::Tcp { size: 9000, ecn: false }, 62_000)]
fn super_packets_are_cut_into_segments_first(
    #[case] segmentation: Segmentation,
    #[case] payload: usize,
) {
    const MTU: u16 = 1432;
    let number = if matches!(segmentation, Segmentation::Udp { .. }) {
        protocol::UDP
    } else {
        protocol::TCP
    };
    let (packet, checksum) = segment(number, payload, true);
    let offload = Offload { segment: segmentation, checksum, hdr_len: 0 };
    let (pieces, _) = sent(&packet, &offload, MTU).unwrap();
    let mut by_id = BTreeMap::<u16, Vec<Vec<u8>>>::new();
    for piece in pieces {
        let id = be16(&piece, 4).wrapping_sub(0xfffe);
        by_id.entry(id).or_default().push(piece);
    }

    let inner = Inner::parse(&packet).unwrap();
    let segmenter = Segmenter::new(&packet, &inner, &offload).unwrap();
    assert_eq!(by_id.len(), segmenter.count());
    for (index, pieces) in by_id {
        let mut headers = [0; MAX_HEADERS];
        let segment = segmenter.segment(index.into(), &mut headers);
        let segment = [&headers[..segment.header_len], &packet[segment.payload]].concat();
        check_pieces(&segment, &pieces, MTU);
        let inner = Inner::parse(&segment).unwrap();
        assert_eq!(checksum::verify(&inner, &segment), Integrity::Valid);
    }
}

#[test]
fn sends_are_few() {
    let frames = |packet: &[u8], offload: &Offload| {
        let frame = Frame::parse(packet, offload).unwrap();
        let mut sends = 0;
        Encapsulator::default()
            .encapsulate_fragmented(&header(), &frame, 1432, |_| sends += 1)
            .unwrap();
        sends
    };
    // 46 equal fragments in two sends: 64 KiB is more than one takes.
    let (packet, _) = segment(protocol::UDP, 65_000, false);
    assert_eq!(frames(&packet, &Offload::NONE), 2);
    // Segments of two equal fragments each go out together.
    let (packet, checksum) = segment(protocol::UDP, 1480 * 10, true);
    let segment = Segmentation::Udp { size: 1480 };
    assert_eq!(frames(&packet, &Offload { segment, checksum, hdr_len: 0 }), 1);
}

#[test]
fn what_may_not_be_cut_goes_out_as_it_is() {
    let (mut packet, _) = segment(protocol::UDP, 3000, false);
    packet[6] = 0x40;
    assert_eq!(sent(&packet, &Offload::NONE, 1000).unwrap(), (vec![packet], 0));
    let (mut packet, _) = segment(protocol::UDP, 3000, false);
    packet[6..8].copy_from_slice(&8000_u16.to_be_bytes());
    assert_eq!(sent(&packet, &Offload::NONE, 1000).unwrap(), (vec![packet], 0));
    let mut ipv6 = vec![0; 40 + 2000];
    (ipv6[0], ipv6[4], ipv6[5], ipv6[6]) = (0x60, 7, 0xd0, 59);
    assert_eq!(sent(&ipv6, &Offload::NONE, 1000).unwrap(), (vec![ipv6], 0));
}

#[test]
fn options_go_where_their_copy_bit_says() {
    // Record route (not copied), router alert (copied), padding, timestamp (not copied), security
    // (copied), end.
    let listed = [
        &[7, 3, 4][..],
        &[148, 4, 0, 0],
        &[1],
        &[68, 4, 5, 0],
        &[130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        &[0],
    ];
    let mut options = listed.concat();
    drop_uncopied(&mut options);
    let expected = [
        &[1, 1, 1][..],
        &[148, 4, 0, 0],
        &[1],
        &[1, 1, 1, 1],
        &[130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        &[0],
    ];
    assert_eq!(options, expected.concat());
    for malformed in [&[7, 0, 4, 7][..], &[7, 1, 7, 3], &[7, 5, 4, 0], &[7]] {
        let mut options = malformed.to_vec();
        drop_uncopied(&mut options);
        assert_eq!(options, malformed);
    }
}

#[test]
fn pieces_are_balanced() {
    for (len, most, expected) in [
        (0, 1412, 0),
        (1412, 1412, 1412),
        (1413, 1412, 712),
        (1480, 1412, 744),
        (2816, 1412, 1408),
        (2817, 1412, 944),
        (17, 8, 8),
        (9, 15, 9),
    ] {
        assert_eq!(piece(len, most), expected, "{len} bytes, {most} at most");
    }
}

/// What a device might say that is left to be done, whether or not it fits the packet.
fn offload() -> impl Strategy<Value = Offload> {
    let segment = prop_oneof![
        3 => Just(Segmentation::None),
        1 => (any::<u16>(), any::<bool>()).prop_map(|(size, ecn)| Segmentation::Tcp { size, ecn }),
        1 => (0..200_u16).prop_map(|size| Segmentation::Udp { size }),
    ];
    let checksum = (0..200_u16, prop::sample::select(vec![6_u16, 16, 0, 65_000]))
        .prop_map(|(start, offset)| PartialChecksum { start, offset });
    (segment, prop::option::of(checksum)).prop_map(|(segment, checksum)| Offload {
        segment,
        checksum,
        hdr_len: 0,
    })
}

proptest! {
    #[test]
    fn fragments_make_the_packet_again(packet in packet(), mtu in 60..3000_u16) {
        let inner = Inner::parse(&packet).unwrap();
        prop_assume!(may_fragment(&inner));
        let (pieces, _) = sent(&packet, &Offload::NONE, mtu).unwrap();
        check_pieces(&packet, &pieces, mtu);
        // Cut again at a shorter link, it is still the same packet.
        let again: Vec<_> = pieces
            .iter()
            .flat_map(|piece| sent(piece, &Offload::NONE, mtu / 2).unwrap().0)
            .collect();
        prop_assert_eq!(reassembled(&again), packet);
    }

    #[test]
    fn noise_never_panics(
        packet in prop_oneof![
            packet(),
            arbitrary::packet().prop_map(|packet| packet.bytes),
        ],
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        offload in offload(),
        mtu: u16,
        small in 0..200_u16,
    ) {
        let mut packet = packet;
        for (at, value) in changes {
            let at = at.index(packet.len().min(120));
            packet[at] = value;
        }
        for mtu in [mtu, small] {
            if Frame::parse(&packet, &offload).is_ok() {
                let _ = sent(&packet, &offload, mtu);
            }
        }
    }
}
