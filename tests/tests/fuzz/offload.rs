//! Super-packets: cut into segments, and segments joined again. Each restores what the other made,
//! byte for byte, and neither loses, makes up or reorders anything.

use std::collections::BTreeMap;

use geneve::checksum::{self, Integrity};
use geneve::inner::{Plain, TcpFlags};
use geneve::{Fragment, Inner, IpVersion};
use gwlb_tests::packets::{Ip, Tcp, partial_checksum};
use netio::offload::{
    Coalescer, Limits, MAX_HEADERS, Offload, PartialChecksum, Place, Run, Segmentation, Segmenter,
};

use crate::engine::fuzz;
use crate::input::Input;

/// Any offload, half of the time one that could be meant.
pub fn offload(input: &mut Input<'_>, packet: &[u8]) -> Offload {
    let size = input.u16();
    let segment = match input.byte() & 3 {
        0 => Segmentation::None,
        1 | 2 => Segmentation::Tcp { size, ecn: input.flag() },
        _ => Segmentation::Udp { size },
    };
    let plausible = Inner::parse(packet).ok().map(|inner| {
        let offset = if inner.protocol == 17 { 6 } else { 16 };
        PartialChecksum { start: inner.header_len as u16, offset }
    });
    let checksum = match input.byte() & 3 {
        0 => None,
        1 => Some(PartialChecksum { start: input.u16(), offset: input.u16() }),
        _ => plausible,
    };
    Offload { segment, checksum, hdr_len: input.u16() }
}

fn segments(segmenter: &Segmenter<'_>, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut headers = [0; MAX_HEADERS];
    let segments = (0..segmenter.count()).map(|index| {
        let segment = segmenter.segment(index, &mut headers);
        [&headers[..segment.header_len], &packet[segment.payload]].concat()
    });
    segments.collect()
}

#[test]
fn segmenting() {
    fuzz!(10_000, |bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let control = input.take(12);
        let packet = input.rest();
        let Ok(inner) = Inner::parse(packet) else { return };
        let offload = offload(&mut Input::new(control), packet);
        let Ok(segmenter) = Segmenter::new(packet, &inner, &offload) else { return };
        let segments = segments(&segmenter, packet);
        if (offload.segment, offload.checksum) == (Segmentation::None, None) {
            assert_eq!(segments, [packet]);
            return;
        }
        let whole = &packet[..inner.total_len];
        let size = match offload.segment {
            Segmentation::None => {
                assert_completed(whole, &segments, &offload);
                return;
            }
            Segmentation::Tcp { size, .. } | Segmentation::Udp { size } => usize::from(size),
        };
        let headers = segmenter.header_len();
        let payload: Vec<u8> =
            segments.iter().flat_map(|segment| segment[headers..].to_vec()).collect();
        assert_eq!(payload, &whole[headers..], "all of the payload, in order");
        let (last, full) = segments.split_last().unwrap();
        assert!(full.iter().all(|segment| segment.len() == headers + size));
        assert!(last.len() <= headers + size);
        for (index, segment) in segments.iter().enumerate() {
            let read = Inner::parse(segment).unwrap();
            assert_eq!((read.total_len, read.flow_key()), (segment.len(), inner.flow_key()));
            if inner.version == IpVersion::V4 {
                let id = |packet: &[u8]| u16::from_be_bytes([packet[4], packet[5]]);
                assert_eq!(id(segment), id(packet).wrapping_add(index as u16));
                assert_eq!(checksum::of(&segment[..read.header_len]), 0);
            }
            // The kernel's partial checksum is trusted; where it is one, the whole is right.
            if partial_checksum_holds(&inner, whole, &offload) {
                assert_eq!(checksum::verify(&read, segment), Integrity::Valid);
            }
        }
    });
}

/// Whether the field holds the sum over the pseudo-header, as it has to.
fn partial_checksum_holds(inner: &Inner, packet: &[u8], offload: &Offload) -> bool {
    let Some(PartialChecksum { start, offset }) = offload.checksum else { return false };
    let field = usize::from(start) + usize::from(offset);
    let expected = partial_checksum(packet).bytes;
    inner.fragment == Fragment::Whole && packet[field..field + 2] == expected[field..field + 2]
}

/// Nothing changes but the checksum.
fn assert_completed(packet: &[u8], segments: &[Vec<u8>], offload: &Offload) {
    let [segment] = segments else { panic!("one packet is one packet") };
    let Some(PartialChecksum { start, offset }) = offload.checksum else { unreachable!() };
    let field = usize::from(start) + usize::from(offset);
    let mut expected = packet.to_vec();
    expected[field..field + 2].copy_from_slice(&segment[field..field + 2]);
    assert_eq!(segment, &expected);
}

/// Packets that may continue one another, some of them changed.
fn stream(input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let pairs = [("203.0.113.7", "10.0.1.11"), ("2001:db8:113::7", "fd00:10:0:1::11")];
    let mut sequence = [1000_u32; 4];
    let mut id = [1_u16; 4];
    let mut packets = Vec::new();
    while !input.is_empty() && packets.len() < 48 {
        let choice = input.byte();
        let flow = usize::from(choice & 3);
        let (src, dst) = pairs[flow & 1];
        let len = match choice >> 4 & 3 {
            0 => 100,
            1 => 64,
            2 => usize::from(input.byte()),
            _ => usize::from(input.u16()) % 1460,
        };
        let payload = vec![choice; len];
        let ip = Ip::new(src, dst).identification(id[flow]);
        id[flow] = id[flow].wrapping_add(1);
        let mut packet = if flow & 2 == 0 {
            let pushed = Tcp::DATA.flags | TcpFlags::PSH;
            let flags = if choice & 0x40 > 0 { pushed } else { Tcp::DATA.flags };
            let tcp = Tcp { sequence: sequence[flow], flags, ..Tcp::DATA };
            sequence[flow] = sequence[flow].wrapping_add(len as u32);
            ip.tcp((1000, 80), tcp, &payload)
        } else {
            ip.udp((1000, 53), &payload)
        };
        if choice & 0x80 > 0 {
            change(&mut packet, input);
        }
        if Inner::parse(&packet).is_ok() {
            packets.push(packet);
        }
    }
    packets
}

/// A changed byte; the checksum follows, or does not.
fn change(packet: &mut Vec<u8>, input: &mut Input<'_>) {
    let how = input.byte();
    let at = usize::from(input.byte()) % packet.len();
    packet[at] ^= input.byte();
    if how & 1 > 0 {
        packet.extend(input.take(usize::from(how >> 4)));
    }
    if how & 2 > 0
        && let Ok(inner) = Inner::parse(packet)
    {
        checksum::complete(&inner, packet);
    }
}

#[test]
fn coalescing() {
    fuzz!(1_500, |bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let choice = input.byte();
        let max_bytes = if choice & 1 > 0 { 180_000 } else { 65_535 };
        let (udp, across_push) = (choice & 2 == 0, choice & 4 > 0);
        let limits = Limits { max_bytes, udp, across_push, ..Limits::default() };
        let flush_every = 1 + usize::from(choice >> 3);
        let packets = stream(&mut input);
        let mut restored = Vec::new();
        let mut take = |run: Run<'_, u8>| restored.extend(cut_again(&run, &packets));
        let mut coalescer = Coalescer::new(limits);
        for (index, packet) in packets.iter().enumerate() {
            let plain = Plain::read(packet);
            let place = Place { buffer: index as u32, start: 0 };
            // Two devices, so that neighbours may have to part.
            let tag = packet[packet.len() - 1] >> 7;
            let bytes = |buffer: u32| &packets[buffer as usize][..];
            coalescer.push(packet, plain.as_ref(), place, tag, bytes, &mut take);
            if index % flush_every == 0 {
                coalescer.flush(&mut take);
            }
        }
        coalescer.flush(&mut take);
        coalescer.flush(|_| panic!("nothing is left after a flush"));
        let [restored, packets] = if across_push {
            [&restored, &packets].map(|all| all.iter().map(|it| without_push(it)).collect())
        } else {
            [restored, packets]
        };
        assert_eq!(by_flow(&restored), by_flow(&packets), "each flow's packets, in order");
    });
}

/// The same packet without PSH, if it is sound TCP over IPv4: that alone may be lost between segments
/// that are joined across it.
fn without_push(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    if let Some(plain) = Plain::read(packet)
        && plain.is_tcp()
        && plain.version() == IpVersion::V4
        && let Ok(inner) = Inner::parse(packet)
        && checksum::verify(&inner, packet) == Integrity::Valid
    {
        bytes[inner.header_len + 13] &= !TcpFlags::PSH.0;
        assert!(checksum::complete(&inner, &mut bytes));
    }
    bytes
}

/// What the kernel makes of a run.
fn cut_again(run: &Run<'_, u8>, buffers: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let pieces = run.pieces.iter().flat_map(|piece| piece.of(&buffers[piece.buffer as usize]));
    let mut packet = run.headers.to_vec();
    packet.extend(pieces);
    if run.offload == Offload::NONE {
        assert_eq!((run.pieces.len(), run.headers.len()), (1, 0));
        return vec![packet];
    }
    let inner = if packet.len() > 65_535 {
        // BIG TCP has 0 for a length, which no packet from outside may have.
        assert_eq!(packet[2..4], [0, 0]);
        packet[2..4].copy_from_slice(&[0xff, 0xff]);
        let mut inner = Inner::parse(&packet[..65_535]).unwrap();
        inner.total_len = packet.len();
        inner
    } else {
        Inner::parse(&packet).unwrap()
    };
    let joined = run.pieces.iter().filter_map(|it| Plain::read(&buffers[it.buffer as usize]));
    let pushed = joined.into_iter().any(|it| it.is_tcp() && it.flags().contains(TcpFlags::PSH));
    let push = inner.protocol == 6 && packet[inner.header_len + 13] & TcpFlags::PSH.0 > 0;
    assert_eq!(push, pushed, "what one segment says of hurry, the super-packet says");
    let segmenter = Segmenter::new(&packet, &inner, &run.offload).unwrap();
    assert_eq!(segmenter.count(), run.pieces.len());
    segments(&segmenter, &packet)
}

/// Packets by flow, in order; between those without ports the order is kept by addresses.
fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<String, Vec<&[u8]>> {
    let mut all = BTreeMap::<_, Vec<&[u8]>>::new();
    for packet in packets {
        let inner = Inner::parse(packet).unwrap();
        let key = inner.ported_key().filter(|_| inner.fragment == Fragment::Whole);
        let key = key.map_or_else(|| format!("{} {}", inner.src, inner.dst), |k| format!("{k:?}"));
        all.entry(key).or_default().push(packet);
    }
    all
}
