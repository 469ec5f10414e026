//! Joining packets and cutting them again, for the tests of both.

use geneve::inner::{Inner, Plain};
use netio::offload::{Coalescer, Limits, Offload, Place, Run};

use super::{Packet, cut};

/// What came out of a coalescer, copied out of the buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
    pub(crate) count: usize,
}

/// Pushes packets through a coalescer, each lying in a buffer of its own at some offset.
pub(crate) fn join(limits: Limits, packets: &[Vec<u8>]) -> Vec<Joined> {
    let tagged: Vec<_> = packets.iter().map(|packet| (0, packet.clone())).collect();
    join_tagged(limits, &tagged)
}

pub(crate) fn join_tagged(limits: Limits, packets: &[(u8, Vec<u8>)]) -> Vec<Joined> {
    const START: u32 = 40;
    let buffers: Vec<_> =
        packets.iter().map(|(_, packet)| [&[0xee; START as usize], &packet[..]].concat()).collect();
    let bytes = |buffer: u32| &buffers[buffer as usize][..];
    let mut joined = Vec::new();
    let mut collect = |run: Run<'_, u8>| {
        let pieces = run.pieces.iter().map(|piece| piece.of(bytes(piece.buffer)));
        let bytes = [run.headers, &pieces.collect::<Vec<_>>().concat()].concat();
        let (count, offload) = (run.pieces.len(), run.offload);
        assert_eq!(offload.is_super_packet(), count > 1);
        joined.push(Joined { bytes, offload, count });
    };
    let mut coalescer = Coalescer::new(limits);
    for (index, (tag, packet)) in packets.iter().enumerate() {
        let place = Place { buffer: index as u32, start: START };
        let plain = Plain::read(packet);
        coalescer.push(packet, plain.as_ref(), place, *tag, bytes, &mut collect);
    }
    coalescer.flush(&mut collect);
    joined
}

/// The packets that went in, if joining and cutting are each other's reverse.
pub(crate) fn restore(joined: &[Joined]) -> Vec<Vec<u8>> {
    let cut = |run: &Joined| {
        let mut bytes = run.bytes.clone();
        let mut inner = if bytes.len() > 65_535 {
            // The length field of BIG TCP is 0, which is refused from outside.
            assert_eq!(bytes[2..4], [0, 0]);
            bytes[2..4].copy_from_slice(&[0xff, 0xff]);
            Inner::parse(&bytes[..65_535]).unwrap()
        } else {
            Inner::parse(&bytes).unwrap()
        };
        inner.total_len = inner.total_len.max(bytes.len());
        let segments = cut(&bytes, &inner, &run.offload);
        assert_eq!(segments.len(), run.count);
        segments
    };
    joined.iter().flat_map(cut).collect()
}

pub(crate) fn chain(first: &Packet, sizes: &[usize]) -> Vec<Packet> {
    let mut packets: Vec<Packet> = Vec::new();
    for (index, &size) in sizes.iter().enumerate() {
        let payload: Vec<u8> = (0..size).map(|byte| (byte * 7 + index) as u8).collect();
        let next = packets.last().map_or_else(
            || Packet { payload: payload.clone(), ..first.clone() },
            |last| last.next(&payload),
        );
        packets.push(next);
    }
    packets
}

pub(crate) fn built(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().map(Packet::build).collect()
}

pub(crate) fn counts(joined: &[Joined]) -> Vec<usize> {
    joined.iter().map(|run| run.count).collect()
}
