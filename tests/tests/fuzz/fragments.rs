//! Fragments: the table that knows to which flow they belong, and the cutting of packets.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use geneve::checksum::{self, Integrity};
use geneve::{FlowKey, Fragment, Inner, PacketBuf};
use gwlb::dataplane::encap::Encapsulator;
use gwlb::dataplane::fragmentation::{MIN_MTU, may_fragment};
use gwlb::dataplane::fragments::{FragmentId, FragmentTable, Waiting};
use gwlb::dataplane::frame::Frame;
use gwlb::dataplane::verdict::GeneveHeader;
use netio::offload::{Offload, PartialChecksum, Segmentation};
use router::{Entry, SubnetId};

use crate::engine::fuzz;
use crate::input::Input;

/// The table as one would write it without a thought for speed.
#[derive(Default)]
struct Naive {
    /// Oldest first.
    known: Vec<(FragmentId, FlowKey, Instant)>,
    /// Number, bytes of memory, and since when; oldest first.
    held: Vec<(FragmentId, u32, usize, Instant)>,
}

impl Naive {
    fn first(&mut self, id: FragmentId, flow: FlowKey, limit: usize, now: Instant) -> Vec<u32> {
        // Four at most, so that nobody pays for a flood before.
        for _ in 0..4 {
            if self.known.first().is_some_and(|(.., at)| *at + FragmentTable::TIMEOUT <= now) {
                self.known.remove(0);
            }
        }
        self.known.retain(|(known, ..)| *known != id);
        self.known.push((id, flow, now));
        if self.known.len() > limit {
            self.known.remove(0);
        }
        let ready = self.held.extract_if(.., |(waits_for, ..)| *waits_for == id);
        ready.map(|(_, number, ..)| number).collect()
    }

    fn later(&self, id: &FragmentId, now: Instant) -> Option<FlowKey> {
        let mut known = self.known.iter();
        let (_, flow, at) = known.find(|(known, ..)| known == id)?;
        (*at + FragmentTable::TIMEOUT > now).then_some(*flow)
    }

    fn hold(&mut self, id: FragmentId, number: u32, bytes: usize, now: Instant) -> bool {
        let taken: usize = self.held.iter().map(|(_, _, bytes, _)| bytes).sum();
        let queued = self.held.iter().filter(|(waits_for, ..)| *waits_for == id).count();
        let room = self.held.len() < FragmentTable::HELD_PACKETS
            && queued < FragmentTable::HELD_PER_PACKET
            && taken + bytes <= FragmentTable::HELD_BYTES;
        let held = room && self.later(&id, now).is_none();
        if held {
            self.held.push((id, number, bytes, now));
        }
        held
    }

    fn expire(&mut self, now: Instant) -> Vec<u32> {
        let over = self.held.extract_if(.., |(.., since)| *since + FragmentTable::HOLD <= now);
        over.map(|(_, number, ..)| number).collect()
    }
}

/// More than enough to fill what one packet may hold; longer programs are slow, and tell no more.
const STEPS: usize = 300;

#[test]
fn table() {
    let start = start();
    fuzz!(2_000, |bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let limit = 1 + input.below(8);
        let (table, mut naive) = (FragmentTable::new(limit), Naive::default());
        let mut now = start;
        let mut number = 0;
        for _ in 0..STEPS {
            if input.is_empty() {
                break;
            }
            let step = input.byte();
            let id = fragment_id(step >> 3);
            match step & 7 {
                0 | 1 => {
                    let flow = flow(input.byte() & 3);
                    let ready = table.first(id, flow, now);
                    assert_eq!(numbers(&ready), naive.first(id, flow, limit, now));
                }
                2..=4 => {
                    number += 1;
                    let len = if step & 7 == 4 { 16 * input.u16() as usize } else { 64 };
                    let packet = PacketBuf::with_capacity(len);
                    let bytes = packet.headroom() + packet.capacity();
                    let from = Entry::Subnet(SubnetId::from_index(0)).into();
                    let held = table.hold(id, Waiting { from, epoch: number, packet }, now);
                    assert_eq!(held.is_ok(), naive.hold(id, number, bytes, now));
                }
                5 => {
                    // Up to the moment and over it.
                    let due = table.poll_timeout();
                    assert_eq!(due, naive.held.first().map(|(.., at)| *at + FragmentTable::HOLD));
                    now = due.filter(|_| input.flag()).unwrap_or(now).max(now);
                    assert_eq!(numbers(&table.expire(now)), naive.expire(now));
                }
                6 => now += Duration::from_millis(u64::from(input.byte())),
                _ => now += Duration::from_secs(u64::from(input.byte() & 0x3f)),
            }
            assert_eq!(table.later(&id, now), naive.later(&id, now));
            assert_eq!(table.waiting(), naive.held.len());
        }
        now += FragmentTable::HOLD;
        assert_eq!(numbers(&table.expire(now)), naive.expire(now));
        assert_eq!((table.waiting(), table.poll_timeout()), (0, None), "nobody waits for ever");
    });
}

fn fragment_id(id: u8) -> FragmentId {
    let (src, dst) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    FragmentId { endpoint: 7, src, dst, protocol: 17, id: id.into() }
}

fn flow(port: u8) -> FlowKey {
    let (src, dst) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let from = SocketAddr::from((src, 1000 + u16::from(port)));
    FlowKey::new(from, (dst, 53).into(), 17).expect("one IP version")
}

fn numbers(waiting: &[Waiting]) -> Vec<u32> {
    waiting.iter().map(|waiting| waiting.epoch).collect()
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary point from which virtual time runs")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn cutting() {
    // No options of any dialect: what is in front of the pieces does not matter here.
    let header = GeneveHeader::copy_of(&[0, 0, 8, 0, 0, 0, 0, 0]).expect("a short header");
    let mut encapsulator = Encapsulator::default();
    fuzz!(10_000, move |bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let mtu = input.u16() % 1600;
        let (mut packet, offload) = some_packet(&mut input);
        let Ok(frame) = Frame::parse(&packet, &offload) else { return };
        let mut pieces = Vec::new();
        let made = encapsulator.encapsulate_fragmented(&header, &frame, mtu, |batch| {
            let before = pieces.len();
            batch.singly(|one| {
                let bytes: Vec<u8> = one.pieces.iter().flat_map(|piece| piece.to_vec()).collect();
                assert!(bytes.len() <= usize::from(batch.segment_size));
                pieces.push(bytes[header.as_bytes().len()..].to_vec());
            });
            assert_eq!(pieces.len() - before, batch.segments);
        });
        let Ok(made) = made else {
            // Only what its offload contradicts is refused, and nothing of it goes out.
            assert!(offload != Offload::NONE && pieces.is_empty(), "{made:?}");
            return;
        };
        assert_eq!(pieces.len() as u64, made + frame.segments());
        if !may_fragment(&frame.inner) {
            assert_eq!(made, 0);
            return;
        }
        if offload != Offload::NONE {
            return assert_fit(&pieces, mtu, &frame.inner);
        }
        assert_fit(&pieces, mtu, &frame.inner);
        let inner = frame.inner;
        packet.truncate(inner.total_len);
        assert_eq!(reassembled(&pieces, &inner), &packet[inner.header_len..]);
        if pieces.len() > 1 {
            let sum = |piece: &Vec<u8>| checksum::of(&piece[..inner.header_len]);
            assert!(pieces.iter().all(|piece| sum(piece) == 0), "checksums of headers");
        }
    });
}

/// A packet with a plausible header, and a plausible offload, half of the time none.
fn some_packet(input: &mut Input<'_>) -> (Vec<u8>, Offload) {
    let words = input.below(11);
    let header_len = 20 + 4 * words;
    let place = input.array::<2>();
    let protocol = input.pick(&[17, 6, 47]);
    let size = input.u16() % 1400;
    let segment = match protocol {
        _ if input.flag() => Segmentation::None,
        17 => Segmentation::Udp { size },
        6 => Segmentation::Tcp { size, ecn: false },
        _ => Segmentation::None,
    };
    let mut packet = vec![0x40 + (header_len / 4) as u8, 0, 0, 0, 1, 2];
    packet.extend(place);
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(input.take(4 * words));
    packet.resize(header_len, 0);
    let repeat = 1 + input.below(12);
    let payload = input.rest();
    for _ in 0..repeat {
        packet.extend_from_slice(payload);
    }
    packet.truncate(65_535);
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    if protocol == 17 && packet.len() >= header_len + 8 {
        let udp = (packet.len() - header_len) as u16;
        packet[header_len + 4..header_len + 6].copy_from_slice(&udp.to_be_bytes());
    }
    let offset = if protocol == 17 { 6 } else { 16 };
    let checksum = (segment != Segmentation::None)
        .then_some(PartialChecksum { start: header_len as u16, offset });
    (packet, Offload { segment, checksum, hdr_len: 0 })
}

/// Every piece is a packet, and none is longer than the MTU lets it be.
fn assert_fit(pieces: &[Vec<u8>], mtu: u16, whole: &Inner) {
    for piece in pieces {
        // The transport's own header may be cut in two: what is left is a fragment all the same.
        assert!(piece.len() <= usize::from(mtu.max(MIN_MTU)), "{} bytes", piece.len());
        let stated = usize::from(u16::from_be_bytes([piece[2], piece[3]]));
        assert_eq!(stated, piece.len());
        assert_eq!(piece[12..20], whole_addresses(whole));
    }
}

fn whole_addresses(inner: &Inner) -> [u8; 8] {
    match (inner.src, inner.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut both = [0; 8];
            both[..4].copy_from_slice(&src.octets());
            both[4..].copy_from_slice(&dst.octets());
            both
        }
        _ => panic!("only IPv4 is cut"),
    }
}

/// What a receiver makes of the pieces: in order, without a gap, the last one the end.
fn reassembled(pieces: &[Vec<u8>], whole: &Inner) -> Vec<u8> {
    let field = |piece: &[u8]| u16::from_be_bytes([piece[6], piece[7]]);
    let first = match whole.fragment {
        Fragment::Later { offset, .. } => usize::from(offset) * 8,
        Fragment::Whole | Fragment::First { .. } => 0,
    };
    let mut payload = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let at = usize::from(field(piece) & 0x1fff) * 8;
        assert_eq!(at, first + payload.len(), "no gap and no overlap");
        if index + 1 < pieces.len() {
            assert!(field(piece) & 0x2000 > 0, "more fragments");
        }
        payload.extend_from_slice(&piece[usize::from(piece[0] & 15) * 4..]);
    }
    payload
}

#[test]
fn pieces_of_a_sound_packet_are_sound() {
    // Not fuzzed: that the oracle above meets a packet that is really cut.
    let packet = gwlb_tests::packets::Ip::new("10.0.0.1", "10.0.0.2").may_fragment();
    let packet = packet.udp((1, 2), &[7; 3000]);
    let frame = Frame::parse(&packet, &Offload::NONE).unwrap();
    let header = GeneveHeader::copy_of(&[0, 0, 8, 0, 0, 0, 0, 0]).unwrap();
    let mut pieces = Vec::new();
    let made = Encapsulator::default().encapsulate_fragmented(&header, &frame, 1000, |batch| {
        batch.singly(|one| {
            let bytes: Vec<u8> = one.pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            pieces.push(bytes[8..].to_vec());
        });
    });
    assert_eq!((made.unwrap(), pieces.len()), (3, 4));
    let whole = [&packet[..20], &reassembled(&pieces, &frame.inner)].concat();
    assert_eq!(checksum::verify(&frame.inner, &whole), Integrity::Valid);
}
