//! Packets of many flows, prepared in a ring: nothing is written while somebody measures.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use geneve::checksum::{self, Sum};
use geneve::inner::{Inner, IpVersion, TcpFlags, protocol};

use crate::dataplane::verdict::GeneveHeader;

/// How much memory a ring of large packets takes, in bytes: too much for the caches that a core has
/// for itself.
pub const RING: usize = 64 << 20;

/// The most packets in a ring. Of small ones, fewer bytes are enough.
const MOST: usize = 1 << 16;

/// Room in front of each packet, for the Geneve header that it returns behind.
const ROOM: usize = GeneveHeader::MAX;

/// TCP's header without options (RFC 9293).
const TCP_HEADER: usize = 20;
const HTTPS: u16 = 443;
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 1, 0, 0, 0, 0x11);

/// What the packets say of their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// Data in the middle of a connection.
    Data,
    /// The beginning of a connection.
    Syn,
}

/// The packets of one family and size: TCP segments from clients in the internet to one server.
#[derive(Debug)]
pub struct Ring {
    version: IpVersion,
    /// Bytes of a packet, IP header included.
    len: usize,
    stride: usize,
    bytes: Vec<u8>,
    /// For each packet, how many bytes of Geneve are in front of it.
    geneve: Vec<usize>,
}

impl Ring {
    /// Packets of `len` bytes each, of no flow yet. `most` is for those who want fewer than fit.
    ///
    /// # Panics
    /// If there is no room for TCP's header in so few bytes.
    pub fn new(version: IpVersion, len: usize, most: usize) -> Self {
        let header = ip_header(version);
        assert!(len >= header + TCP_HEADER, "{len} bytes are no TCP segment");
        let stride = (ROOM + len).next_multiple_of(64);
        let count = (RING / stride).min(MOST).min(most);
        let mut ring =
            Self { version, len, stride, bytes: vec![0; count * stride], geneve: vec![0; count] };
        let total = len as u16;
        for number in 0..count {
            let packet = ring.packet_mut(number);
            match version {
                IpVersion::V4 => {
                    packet[0] = 0x45;
                    packet[2..4].copy_from_slice(&total.to_be_bytes());
                    // Don't fragment.
                    packet[6] = 0x40;
                    packet[8] = 64;
                    packet[9] = protocol::TCP;
                    packet[16..20].copy_from_slice(&SERVER_V4.octets());
                }
                IpVersion::V6 => {
                    packet[0] = 0x60;
                    packet[4..6].copy_from_slice(&(total - header as u16).to_be_bytes());
                    packet[6] = protocol::TCP;
                    packet[7] = 64;
                    packet[24..40].copy_from_slice(&SERVER_V6.octets());
                }
            }
            let tcp = &mut packet[header..];
            tcp[2..4].copy_from_slice(&HTTPS.to_be_bytes());
            // Five words of header.
            tcp[12] = 5 << 4;
            tcp[14..16].copy_from_slice(&1024_u16.to_be_bytes());
        }
        ring
    }

    /// How many packets there are.
    pub fn count(&self) -> usize {
        self.geneve.len()
    }

    /// Makes each packet one of the flow that `flow` names, in turn.
    pub fn fill(&mut self, segment: Segment, mut flow: impl FnMut(usize) -> u64) {
        for number in 0..self.count() {
            self.write(number, segment, flow(number));
        }
    }

    /// Makes the packets those of one flow, each continuing the one before, as its sender cuts them.
    pub fn fill_run(&mut self, flow: u64) {
        let (header, payload) =
            (ip_header(self.version), self.len - ip_header(self.version) - TCP_HEADER);
        for number in 0..self.count() {
            self.write(number, Segment::Data, flow);
            let version = self.version;
            let packet = self.packet_mut(number);
            if version == IpVersion::V4 {
                packet[4..6].copy_from_slice(&(number as u16).to_be_bytes());
            }
            let sequence = (number * payload) as u32;
            packet[header + 4..header + 8].copy_from_slice(&sequence.to_be_bytes());
            if let Ok(inner) = Inner::parse(packet) {
                checksum::complete(&inner, packet);
            }
        }
    }

    /// Makes one packet one of this flow.
    pub fn write(&mut self, number: usize, segment: Segment, flow: u64) {
        let (version, len) = (self.version, self.len);
        let header = ip_header(version);
        let packet = self.packet_mut(number);
        let source = source(version, flow);
        let destination = match source {
            IpAddr::V4(source) => {
                packet[12..16].copy_from_slice(&source.octets());
                packet[10..12].fill(0);
                let sum = checksum::of(&packet[..header]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
                IpAddr::V4(SERVER_V4)
            }
            IpAddr::V6(source) => {
                packet[8..24].copy_from_slice(&source.octets());
                IpAddr::V6(SERVER_V6)
            }
        };
        let tcp = &mut packet[header..];
        tcp[0..2].copy_from_slice(&port(flow).to_be_bytes());
        let flags = match segment {
            Segment::Data => TcpFlags::ACK,
            Segment::Syn => TcpFlags::SYN,
        };
        tcp[13] = flags.0;
        tcp[16..18].fill(0);
        // The payload is all zeros and adds nothing.
        let mut sum = Sum::pseudo_header(source, destination, protocol::TCP, (len - header) as u32);
        sum.add(&tcp[..TCP_HEADER]);
        tcp[16..18].copy_from_slice(&sum.finish().to_be_bytes());
    }

    /// Some packets in a row.
    #[inline]
    pub fn packets(&self, numbers: Range<usize>) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        let places = &self.bytes[numbers.start * self.stride..numbers.end * self.stride];
        places.chunks_exact(self.stride).map(|place| &place[ROOM..][..self.len])
    }

    /// A packet.
    #[inline]
    pub fn packet(&self, number: usize) -> &[u8] {
        &self.bytes[number * self.stride + ROOM..][..self.len]
    }

    /// Puts a Geneve header in front of a packet, as the appliance sends it back.
    pub fn put(&mut self, number: usize, header: &GeneveHeader) {
        let header = header.as_bytes();
        let start = number * self.stride + ROOM - header.len();
        self.bytes[start..][..header.len()].copy_from_slice(header);
        self.geneve[number] = header.len();
    }

    /// A packet with the Geneve header that was put in front of it.
    #[inline]
    pub fn datagram(&self, number: usize) -> &[u8] {
        let geneve = self.geneve[number];
        &self.bytes[number * self.stride + ROOM - geneve..][..geneve + self.len]
    }

    fn packet_mut(&mut self, number: usize) -> &mut [u8] {
        &mut self.bytes[number * self.stride + ROOM..][..self.len]
    }
}

/// Numbers that look random and are always the same.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of 0 to `end` − 1; `end` is not 0.
    #[inline]
    pub fn below(&mut self, end: usize) -> usize {
        // The high half of the product is as even as the number is.
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn ip_header(version: IpVersion) -> usize {
    match version {
        IpVersion::V4 => 20,
        IpVersion::V6 => 40,
    }
}

/// The client of a flow. Each flow has an address of its own for the first 16 million; then ports
/// differ.
fn source(version: IpVersion, flow: u64) -> IpAddr {
    // An odd factor makes other numbers of these, each once.
    match version {
        IpVersion::V4 => {
            let host = (flow as u32).wrapping_mul(0x9e37_79b1) & 0x00ff_ffff;
            IpAddr::V4(Ipv4Addr::from_bits(0x6400_0000 | host))
        }
        IpVersion::V6 => {
            let host = (flow & 0x00ff_ffff).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(host)))
        }
    }
}

fn port(flow: u64) -> u16 {
    let round = flow >> 24;
    (1024 + (flow + round) % 64_000) as u16
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use geneve::checksum::{Integrity, verify};
    use geneve::inner::Transport;

    use super::*;

    #[test]
    fn packets_are_whole_and_of_their_flows() {
        for (version, len) in [(IpVersion::V4, 64), (IpVersion::V4, 1428), (IpVersion::V6, 1428)] {
            let mut ring = Ring::new(version, len, 100);
            ring.fill(Segment::Data, |number| number as u64 * 1_000_003);
            let mut flows = HashSet::new();
            for number in 0..ring.count() {
                let packet = ring.packet(number);
                let inner = Inner::parse(packet).unwrap();
                assert_eq!((inner.total_len, inner.version), (len, version));
                assert_eq!(verify(&inner, packet), Integrity::Valid);
                flows.insert(inner.flow_key());
            }
            assert_eq!(flows.len(), 100);
        }
    }

    #[test]
    fn a_syn_opens_and_data_does_not() {
        let mut ring = Ring::new(IpVersion::V4, 64, 1);
        for (segment, expected) in [(Segment::Syn, TcpFlags::SYN), (Segment::Data, TcpFlags::ACK)] {
            ring.write(0, segment, 7);
            let inner = Inner::parse(ring.packet(0)).unwrap();
            let Transport::Tcp { flags, .. } = inner.transport else { panic!("{inner:?}") };
            assert_eq!(flags, expected);
        }
    }

    #[test]
    fn no_two_flows_are_the_same_beyond_all_addresses() {
        let ends = |flow| (source(IpVersion::V4, flow), port(flow));
        let all = (0..40_u64).flat_map(|round| (0..50).map(move |flow| (round << 24) + flow));
        let distinct: HashSet<_> = all.clone().map(ends).collect();
        assert_eq!(distinct.len(), all.count());
    }

    #[test]
    fn a_datagram_is_a_header_and_the_packet() {
        let mut ring = Ring::new(IpVersion::V4, 64, 2);
        ring.fill(Segment::Data, |number| number as u64);
        let header = GeneveHeader::copy_of(&[7; 32]).unwrap();
        ring.put(1, &header);
        assert_eq!(ring.datagram(1), [&[7; 32], ring.packet(1)].concat());
    }

    #[test]
    fn random_numbers_are_even_and_within_their_bounds() {
        let mut random = Random::new(1);
        let mut counts = [0; 10];
        for _ in 0..100_000 {
            counts[random.below(10)] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
