//! What is sent: Geneve datagrams as the gateway makes them, written before anything is measured.
//!
//! Every datagram has a number, in the IPv4 identification of its inner packet, by which it is
//! found again when it comes back.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use geneve::checksum::{self, Integrity};
use geneve::dialect::{Dialect, Tags};
use geneve::header::ProtocolType;
use geneve::inner::{Inner, protocol};
use netio::udp::MAX_GSO_BYTES;
use pnet_packet::ip::IpNextHeaderProtocol;
use pnet_packet::ipv4::{Ipv4Flags, MutableIpv4Packet};
use pnet_packet::tcp::{MutableTcpPacket, TcpFlags};
use pnet_packet::udp::MutableUdpPacket;

use super::generator::DOORS;

/// In which form packets are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// 64-byte UDP packets over 1000 flows, 32 of one flow in a send.
    Runs,
    /// The same, 32 of as many flows in a send.
    Interleaved,
    /// The same, each in a send of its own, every one of another flow than the one before.
    Singly,
    /// 1428-byte TCP segments of eight flows, 42 of one flow in a send.
    Bulk,
}

/// The network that the flows come from.
pub(super) const INSIDE: &str = "10.0.0.0/16";

/// Bytes of Geneve header: the AWS dialect's.
const GENEVE: usize = Dialect::AWS.header_len();

const IP: usize = 20;
const UDP: usize = 8;
const TCP: usize = 20;

/// Where the sequence number stands in a TCP header, and the checksum.
const SEQUENCE: usize = 4;
const CHECKSUM: usize = 16;

impl Shape {
    fn flows(self) -> usize {
        match self {
            Self::Runs | Self::Interleaved | Self::Singly => 1000,
            Self::Bulk => 8,
        }
    }

    /// Bytes of an inner packet, IP header included.
    fn packet(self) -> usize {
        match self {
            Self::Runs | Self::Interleaved | Self::Singly => 64,
            Self::Bulk => 1428,
        }
    }

    /// Datagrams in a send.
    fn together(self) -> usize {
        match self {
            Self::Runs | Self::Interleaved => 32,
            Self::Singly => 1,
            Self::Bulk => MAX_GSO_BYTES / (GENEVE + self.packet()),
        }
    }

    /// Which flows the sends are of, in turn, datagram by datagram.
    fn sends(self) -> Vec<Vec<usize>> {
        let flows = self.flows();
        let one_after_another = |first: usize| vec![first; self.together()];
        match self {
            Self::Runs | Self::Singly | Self::Bulk => (0..flows).map(one_after_another).collect(),
            Self::Interleaved => {
                // A send has one source port, so the flows of a send are of one port. After as many
                // rounds as a send has datagrams, each flow has had its turn in every place.
                let of_door = flows / DOORS;
                let send = |number: usize| {
                    let (door, round) = (number % DOORS, number / DOORS);
                    let turn = |place| (round * self.together() + place) % of_door;
                    (0..self.together()).map(|place| turn(place) * DOORS + door).collect()
                };
                (0..of_door * DOORS).map(send).collect()
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (packet, flows, together) = (self.packet(), self.flows(), self.together());
        match self {
            Self::Runs => write!(f, "{packet}-byte UDP in runs of {together}, {flows} flows"),
            Self::Interleaved => write!(f, "{packet}-byte UDP interleaved over {flows} flows"),
            Self::Singly => write!(f, "{packet}-byte UDP, a send for each, {flows} flows"),
            Self::Bulk => write!(f, "{packet}-byte TCP in runs of {together}, {flows} flows"),
        }
    }
}

/// All that is sent in one form, again and again.
#[derive(Debug)]
pub(super) struct Load {
    shape: Shape,
    /// What begins the flows, where that takes a packet of its own.
    opening: Vec<Send>,
    sends: Vec<Send>,
    next: usize,
    /// TCP: the sequence number of each flow's next segment.
    sequences: Vec<u32>,
}

/// Datagrams of equal size that are sent by one call.
#[derive(Debug)]
pub(super) struct Send {
    /// By which of the generator's ports.
    pub door: usize,
    pub bytes: Vec<u8>,
    /// Bytes of each datagram.
    pub size: usize,
    flow: usize,
}

impl Send {
    /// How many datagrams there are in it.
    pub(super) fn datagrams(&self) -> usize {
        self.bytes.len() / self.size
    }
}

/// The first sequence number of every TCP flow.
const FIRST_SEQUENCE: u32 = 1_000_000;

impl Load {
    pub(super) fn new(shape: Shape) -> Self {
        let mut number = 0;
        let sends = shape.sends().into_iter().map(|flows| {
            let mut bytes = Vec::with_capacity(flows.len() * (GENEVE + shape.packet()));
            for &flow in &flows {
                write_datagram(&mut bytes, shape, flow, number, false);
                number += 1;
            }
            let flow = flows.first().copied().unwrap_or_default();
            Send { door: flow % DOORS, bytes, size: GENEVE + shape.packet(), flow }
        });
        let sends = sends.collect();
        let opening = |flow| {
            let mut bytes = Vec::new();
            write_datagram(&mut bytes, shape, flow, 0, true);
            Send { door: flow % DOORS, size: bytes.len(), bytes, flow }
        };
        let opening = match shape {
            Shape::Bulk => (0..shape.flows()).map(opening).collect(),
            Shape::Runs | Shape::Interleaved | Shape::Singly => Vec::new(),
        };
        let sequences = vec![FIRST_SEQUENCE; shape.flows()];
        Self { shape, opening, sends, next: 0, sequences }
    }

    /// What begins the flows.
    pub(super) fn opening(&self) -> &[Send] {
        &self.opening
    }

    /// How many datagrams the next send has.
    pub(super) fn next_datagrams(&self) -> usize {
        self.sends[self.next].datagrams()
    }

    /// What is to be sent next.
    pub(super) fn next(&mut self) -> &Send {
        let following = (self.next + 1) % self.sends.len();
        let send = &mut self.sends[std::mem::replace(&mut self.next, following)];
        if self.shape == Shape::Bulk {
            let sequence = &mut self.sequences[send.flow];
            for datagram in send.bytes.chunks_exact_mut(send.size) {
                let payload = datagram.len() - GENEVE - IP - TCP;
                set_sequence(&mut datagram[GENEVE + IP..], *sequence);
                *sequence = sequence.wrapping_add(payload as u32);
            }
        }
        send
    }

    /// Whether this is a datagram that was sent, unchanged.
    pub(super) fn knows(&self, datagram: &[u8]) -> bool {
        let Some(sent) = self.sent(datagram) else { return false };
        if self.shape != Shape::Bulk {
            return sent == datagram;
        }
        // The same place may have been sent again since, with a later sequence number.
        let sequence = GENEVE + IP + SEQUENCE;
        let checksum = GENEVE + IP + CHECKSUM;
        let fixed = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[sequence..sequence + 4].fill(0);
            bytes[checksum..checksum + 2].fill(0);
            bytes
        };
        let packet = &datagram[GENEVE..];
        fixed(sent) == fixed(datagram)
            && Inner::parse(packet)
                .is_ok_and(|inner| checksum::verify(&inner, packet) == Integrity::Valid)
    }

    /// What was sent under the number that a datagram has, if it is as long.
    fn sent(&self, datagram: &[u8]) -> Option<&[u8]> {
        let id = datagram.get(GENEVE + 4..GENEVE + 6)?.first_chunk()?;
        let number = usize::from(u16::from_be_bytes(*id));
        let together = self.shape.together();
        let Send { bytes, size, .. } = self.sends.get(number / together)?;
        let sent = bytes.chunks_exact(*size).nth(number % together)?;
        (sent.len() == datagram.len()).then_some(sent)
    }
}

/// Gives a TCP segment another sequence number, and the checksum that goes with it.
fn set_sequence(segment: &mut [u8], new: u32) {
    let Some(&old) = segment[SEQUENCE..].first_chunk::<4>() else { return };
    let Some(&sum) = segment[CHECKSUM..].first_chunk::<2>() else { return };
    let sum = checksum::update(u16::from_be_bytes(sum), old, new.to_be_bytes());
    segment[SEQUENCE..SEQUENCE + 4].copy_from_slice(&new.to_be_bytes());
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Appends datagram `number` of a flow, or the packet that opens the flow.
fn write_datagram(out: &mut Vec<u8>, shape: Shape, flow: usize, number: usize, opening: bool) {
    let start = out.len();
    let length = if opening { IP + TCP } else { shape.packet() };
    out.resize(start + GENEVE + length, 0);
    let datagram = &mut out[start..];
    let (header, packet) = datagram.split_at_mut(GENEVE);
    // The gateway gives every flow a cookie, so that headers differ between flows.
    let cookie = blake3::hash(&flow.to_le_bytes());
    let cookie = cookie.as_bytes().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let tags = Tags { endpoint: 0x0123_4567_89ab_cdef, attachment: 0, cookie };
    // The length is what it asks for.
    let _ = Dialect::AWS.write(&tags, ProtocolType::IPV4, header);

    let tcp = shape == Shape::Bulk;
    write_ip(packet, flow, number, if tcp { protocol::TCP } else { protocol::UDP });
    let ends = Ends::of(flow);
    let (segment, transport) = (&mut packet[IP..], if tcp { TCP } else { UDP });
    // Random, so that no search is easier than it is with real data.
    blake3::Hasher::new()
        .update(&[flow, number].map(usize::to_le_bytes).concat())
        .finalize_xof()
        .fill(&mut segment[transport..]);
    if tcp {
        if let Some(mut header) = MutableTcpPacket::new(segment) {
            header.set_source(ends.source.port());
            header.set_destination(ends.destination.port());
            // A SYN takes a number, too.
            header.set_sequence(FIRST_SEQUENCE - u32::from(opening));
            header.set_acknowledgement(u32::from(!opening));
            header.set_data_offset((TCP / 4) as u8);
            header.set_flags(if opening { TcpFlags::SYN } else { TcpFlags::ACK });
            header.set_window(u16::MAX);
        }
    } else {
        let length = segment.len() as u16;
        if let Some(mut header) = MutableUdpPacket::new(segment) {
            header.set_source(ends.source.port());
            header.set_destination(ends.destination.port());
            header.set_length(length);
        }
    }
    if let Ok(inner) = Inner::parse(packet) {
        checksum::complete(&inner, packet);
    }
}

fn write_ip(packet: &mut [u8], flow: usize, number: usize, protocol: u8) {
    let length = packet.len() as u16;
    let Ends { source, destination } = Ends::of(flow);
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source.ip(), destination.ip()) else {
        return;
    };
    if let Some(mut header) = MutableIpv4Packet::new(packet) {
        header.set_version(4);
        header.set_header_length((IP / 4) as u8);
        header.set_total_length(length);
        header.set_identification(number as u16);
        header.set_flags(Ipv4Flags::DontFragment);
        header.set_ttl(64);
        header.set_next_level_protocol(IpNextHeaderProtocol::new(protocol));
        header.set_source(source);
        header.set_destination(destination);
    }
}

/// The ends of a flow.
struct Ends {
    source: SocketAddr,
    destination: SocketAddr,
}

impl Ends {
    fn of(flow: usize) -> Self {
        let [low, high, ..] = flow.to_le_bytes();
        Self {
            source: (Ipv4Addr::new(10, 0, high, low), 10_000 + flow as u16).into(),
            destination: (Ipv4Addr::new(198, 51, 100, 10), 443).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use geneve::header::Header;

    use super::*;

    const ALL: [Shape; 4] = [Shape::Runs, Shape::Interleaved, Shape::Singly, Shape::Bulk];

    fn inner(datagram: &[u8]) -> Inner {
        let (header, packet) = Header::parse(datagram).unwrap();
        assert!(Dialect::AWS.read(&header).is_ok());
        let inner = Inner::parse(packet).unwrap();
        assert_eq!(inner.total_len, packet.len());
        assert_eq!(checksum::verify(&inner, packet), Integrity::Valid);
        inner
    }

    #[test]
    fn every_datagram_is_valid_and_a_flow_has_one_header_and_one_port() {
        for shape in ALL {
            let load = Load::new(shape);
            let mut of_flow = HashMap::new();
            let mut datagrams = 0;
            for send in load.opening.iter().chain(&load.sends) {
                assert!(send.bytes.len() <= MAX_GSO_BYTES);
                for datagram in send.bytes.chunks(send.size) {
                    let key = inner(datagram).flow_key();
                    let header = (datagram[..GENEVE].to_vec(), send.door);
                    assert_eq!(*of_flow.entry(key).or_insert_with(|| header.clone()), header);
                    datagrams += 1;
                }
            }
            assert_eq!(of_flow.len(), shape.flows(), "{shape}");
            assert!(datagrams <= 1 << 16, "numbers are unique");
            let headers: HashSet<_> = of_flow.values().collect();
            assert_eq!(headers.len(), shape.flows(), "{shape}");
        }
    }

    #[test]
    fn sends_are_of_one_flow_or_of_as_many_as_they_have_datagrams() {
        for (shape, flows) in ALL.into_iter().zip([1, 32, 1, 1]) {
            let load = Load::new(shape);
            for send in &load.sends {
                assert_eq!(send.datagrams(), shape.together());
                let keys: HashSet<_> =
                    send.bytes.chunks(send.size).map(|it| inner(it).flow_key()).collect();
                assert_eq!(keys.len(), flows, "{shape}");
            }
        }
        assert_eq!(Shape::Bulk.together(), 44);
    }

    #[test]
    fn what_comes_back_is_known_unless_a_byte_has_changed() {
        for shape in ALL {
            let mut load = Load::new(shape);
            for _ in 0..2 * load.sends.len() {
                load.next();
            }
            let datagram = load.sends[3].bytes[..load.sends[3].size].to_vec();
            assert!(load.knows(&datagram));
            for at in 0..datagram.len() {
                let mut changed = datagram.clone();
                changed[at] ^= 1;
                assert!(!load.knows(&changed), "{shape}: byte {at}");
            }
            assert!(!load.knows(&datagram[..datagram.len() - 1]));
            assert!(!load.knows(&[]));
        }
    }

    #[test]
    fn a_stream_goes_on_where_it_was() {
        let mut load = Load::new(Shape::Bulk);
        let sequence = |datagram: &[u8]| {
            inner(datagram);
            let at = GENEVE + IP + SEQUENCE;
            u32::from_be_bytes(*datagram[at..].first_chunk().unwrap())
        };
        let payload = (Shape::Bulk.packet() - IP - TCP) as u32;
        let mut expected = FIRST_SEQUENCE;
        assert_eq!(sequence(&load.opening()[0].bytes), FIRST_SEQUENCE - 1);
        for turn in 0..3 * Shape::Bulk.flows() {
            let send = load.next();
            if turn % Shape::Bulk.flows() == 0 {
                for datagram in send.bytes.chunks(send.size) {
                    assert_eq!(sequence(datagram), expected);
                    expected += payload;
                }
            }
        }
    }
}
