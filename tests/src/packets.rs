//! Packets to send through a gateway, built by `etherparse`, which is not what writes packets in
//! the code under test.
//!
//! Everything here is for packets that a test thinks up. Packets that were captured come from
//! [`capture`](crate::capture).

use std::net::IpAddr;

use etherparse::{
    IcmpEchoHeader, Icmpv4Type, Icmpv6Type, IpFragOffset, IpHeaders, IpNumber, Ipv4Header,
    Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, TcpHeader,
    TcpOptionElement, icmpv4, icmpv6,
};
use geneve::checksum::Sum;
use geneve::{Inner, TcpFlags, Transport, protocol};
use netio::offload::{Offload, PartialChecksum, Segmentation};

use crate::gateway::Packet;

/// The IP headers of packets from one host to another.
#[derive(Debug, Clone)]
pub struct Ip(Box<IpHeaders>);

/// What a TCP segment says besides its ports.
#[derive(Debug, Clone, Copy)]
pub struct Tcp {
    /// Its flags.
    pub flags: TcpFlags,
    /// The number of its first byte.
    pub sequence: u32,
    /// The number of the byte that is expected next; written only together with the flag.
    pub acknowledgement: u32,
    /// The largest segment that its sender takes, in an option.
    pub mss: Option<u16>,
}

impl Tcp {
    /// Opens a connection.
    pub const SYN: Tcp = Tcp::new(TcpFlags::SYN, 999, 0);
    /// Answers [`Tcp::SYN`].
    pub const SYN_ACK: Tcp = Tcp::new(TcpFlags(0x12), 4_999_999, 1000);
    /// Data from the side that opened the connection, its first byte first.
    pub const DATA: Tcp = Tcp::new(TcpFlags::ACK, 1000, 5_000_000);
    /// Data from the other side.
    pub const ANSWER: Tcp = Tcp::new(TcpFlags::ACK, 5_000_000, 1000);

    const fn new(flags: TcpFlags, sequence: u32, acknowledgement: u32) -> Tcp {
        Tcp { flags, sequence, acknowledgement, mss: None }
    }

    /// The same with other flags.
    #[must_use]
    pub fn flags(self, flags: TcpFlags) -> Tcp {
        Tcp { flags, ..self }
    }

    /// The same with an option that says how large segments may be.
    #[must_use]
    pub fn mss(self, mss: u16) -> Tcp {
        Tcp { mss: Some(mss), ..self }
    }

    /// What follows `bytes` bytes later.
    #[must_use]
    pub fn after(self, bytes: usize) -> Tcp {
        Tcp { sequence: self.sequence.wrapping_add(bytes as u32), ..self }
    }
}

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Nobody listens on the port.
    PortUnreachable,
    /// Time to live or hop limit ran out.
    TimeExceeded,
    /// The packet exceeds this MTU.
    TooBig(u16),
    /// This type and code of the IP version at hand.
    Other(u8, u8),
}

impl Ip {
    /// Headers without anything special: TTL 64, DF set in IPv4, identification 1.
    ///
    /// # Panics
    /// If the addresses are no addresses, or of two versions.
    pub fn new(src: &str, dst: &str) -> Ip {
        let address = |text: &str| text.parse().expect("an IP address");
        Ip::between(address(src), address(dst))
    }

    /// The same with addresses that are some already.
    ///
    /// # Panics
    /// If they are of two versions.
    pub fn between(src: IpAddr, dst: IpAddr) -> Ip {
        Ip(Box::new(match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let protocol = IpNumber::UDP;
                let header = Ipv4Header::new(0, 64, protocol, src.octets(), dst.octets());
                let mut header = header.expect("a header without payload");
                header.dont_fragment = true;
                header.identification = 1;
                IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => IpHeaders::Ipv6(
                Ipv6Header {
                    hop_limit: 64,
                    source: src.octets(),
                    destination: dst.octets(),
                    ..Ipv6Header::default()
                },
                Ipv6Extensions::default(),
            ),
            (src, dst) => panic!("{src} and {dst} are of two IP versions"),
        }))
    }

    /// The headers of packets back.
    #[must_use]
    pub fn reversed(&self) -> Ip {
        let mut reversed = self.clone();
        match &mut *reversed.0 {
            IpHeaders::Ipv4(ip, _) => std::mem::swap(&mut ip.source, &mut ip.destination),
            IpHeaders::Ipv6(ip, _) => std::mem::swap(&mut ip.source, &mut ip.destination),
        }
        reversed
    }

    /// IPv4: the identification. IPv6 has none.
    #[must_use]
    pub fn identification(mut self, id: u16) -> Ip {
        if let IpHeaders::Ipv4(ip, _) = &mut *self.0 {
            ip.identification = id;
        }
        self
    }

    /// IPv4: may be fragmented on the way.
    #[must_use]
    pub fn may_fragment(mut self) -> Ip {
        if let IpHeaders::Ipv4(ip, _) = &mut *self.0 {
            ip.dont_fragment = false;
        }
        self
    }

    /// IPv4: options, a multiple of four bytes.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Ip {
        if let IpHeaders::Ipv4(ip, _) = &mut *self.0 {
            ip.options = options.try_into().expect("a multiple of four bytes, 40 at most");
        }
        self
    }

    /// IPv6: a hop-by-hop header with padding, and a destination options header likewise.
    #[must_use]
    pub fn extensions(mut self) -> Ip {
        if let IpHeaders::Ipv6(_, extensions) = &mut *self.0 {
            // PadN over the rest (RFC 8200 §4.2).
            let padding = Ipv6RawExtHeader::new_raw(IpNumber::UDP, &[1, 4, 0, 0, 0, 0]);
            let padding = padding.expect("eight bytes");
            extensions.hop_by_hop_options = Some(padding.clone());
            extensions.destination_options = Some(padding);
        }
        self
    }

    /// A TCP segment.
    pub fn tcp(&self, (src, dst): (u16, u16), tcp: Tcp, payload: &[u8]) -> Vec<u8> {
        let mut header = TcpHeader::new(src, dst, tcp.sequence, 65_000);
        let has = |flag| tcp.flags.contains(flag);
        header.fin = has(TcpFlags::FIN);
        header.syn = has(TcpFlags::SYN);
        header.rst = has(TcpFlags::RST);
        header.psh = has(TcpFlags::PSH);
        header.cwr = has(TcpFlags::CWR);
        header.ece = has(TcpFlags::ECE);
        header.ack = has(TcpFlags::ACK);
        if header.ack {
            header.acknowledgment_number = tcp.acknowledgement;
        }
        if let Some(mss) = tcp.mss {
            let option = TcpOptionElement::MaximumSegmentSize(mss);
            header.set_options(&[option]).expect("four bytes");
        }
        let builder = PacketBuilder::ip((*self.0).clone()).tcp_header(header);
        written(|out| builder.write(out, payload))
    }

    /// A UDP datagram.
    pub fn udp(&self, (src, dst): (u16, u16), payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ip((*self.0).clone()).udp(src, dst);
        written(|out| builder.write(out, payload))
    }

    /// A ping.
    pub fn echo_request(&self, id: u16, seq: u16) -> Vec<u8> {
        let echo = IcmpEchoHeader { id, seq };
        self.icmp(Icmpv4Type::EchoRequest(echo), Icmpv6Type::EchoRequest(echo), b"ping")
    }

    /// The answer to a ping.
    pub fn echo_reply(&self, id: u16, seq: u16) -> Vec<u8> {
        let echo = IcmpEchoHeader { id, seq };
        self.icmp(Icmpv4Type::EchoReply(echo), Icmpv6Type::EchoReply(echo), b"ping")
    }

    /// An ICMP error about a packet, of which it quotes the first `quoted` bytes.
    pub fn icmp_error(&self, problem: Problem, about: &[u8], quoted: usize) -> Vec<u8> {
        use {icmpv4::DestUnreachableHeader as Four, icmpv6::DestUnreachableCode as Six};
        let (four, six) = match problem {
            Problem::PortUnreachable => (
                Icmpv4Type::DestinationUnreachable(Four::Port),
                Icmpv6Type::DestinationUnreachable(Six::Port),
            ),
            Problem::TimeExceeded => (
                Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
                Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
            ),
            Problem::TooBig(mtu) => (
                Icmpv4Type::DestinationUnreachable(Four::FragmentationNeeded { next_hop_mtu: mtu }),
                Icmpv6Type::PacketTooBig { mtu: mtu.into() },
            ),
            Problem::Other(type_u8, code_u8) => (
                Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8: [0; 4] },
                Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8: [0; 4] },
            ),
        };
        self.icmp(four, six, &about[..quoted.min(about.len())])
    }

    /// A packet of any other protocol.
    pub fn protocol(&self, number: u8, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ip((*self.0).clone());
        written(|out| builder.write(out, IpNumber(number), payload))
    }

    fn icmp(&self, four: Icmpv4Type, six: Icmpv6Type, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ip((*self.0).clone());
        match *self.0 {
            IpHeaders::Ipv4(..) => written(|out| builder.icmpv4(four).write(out, payload)),
            IpHeaders::Ipv6(..) => written(|out| builder.icmpv6(six).write(out, payload)),
        }
    }
}

/// Cuts a packet into fragments with `size` bytes of payload each, the last maybe fewer, as a
/// router (IPv4) or the sender (IPv6) would.
///
/// # Panics
/// If it is no packet without options and extension headers, or `size` no multiple of eight.
pub fn fragments(packet: &[u8], id: u16, size: usize) -> Vec<Vec<u8>> {
    assert!(size.is_multiple_of(8) && size > 0, "fragments count in units of eight bytes");
    let version = Inner::parse(packet).expect("a packet to fragment").version;
    let (head, payload) = packet.split_at(version.header_len());
    let count = payload.len().div_ceil(size);
    let fragment = |(index, part): (usize, &[u8])| {
        let offset = IpFragOffset::try_new((index * size / 8) as u16).expect("13 bits");
        let more = index + 1 < count;
        let headers = match version {
            geneve::IpVersion::V4 => {
                let (mut ip, _) = Ipv4Header::from_slice(head).expect("IPv4 without options");
                (ip.more_fragments, ip.fragment_offset) = (more, offset);
                (ip.dont_fragment, ip.identification) = (false, id);
                ip.set_payload_len(part.len()).expect("shorter than before");
                ip.header_checksum = ip.calc_header_checksum();
                ip.to_bytes().to_vec()
            }
            geneve::IpVersion::V6 => {
                let (mut ip, _) = Ipv6Header::from_slice(head).expect("IPv6 without extensions");
                let fragment = Ipv6FragmentHeader::new(ip.next_header, offset, more, u32::from(id));
                ip.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
                ip.set_payload_length(Ipv6FragmentHeader::LEN + part.len()).expect("shorter");
                [&ip.to_bytes()[..], &fragment.to_bytes()].concat()
            }
        };
        [&headers[..], part].concat()
    };
    payload.chunks(size).enumerate().map(fragment).collect()
}

/// What a host with offload gives to its TUN device in place of segments of `size` payload bytes:
/// the packet with only the pseudo-header summed, and what is left to be done to it.
///
/// # Panics
/// If it is no whole TCP or UDP packet.
pub fn super_packet(packet: &[u8], size: u16) -> Packet {
    let mut whole = partial_checksum(packet);
    whole.offload.segment = match Inner::parse(packet).map(|inner| inner.transport) {
        Ok(Transport::Tcp { .. }) => Segmentation::Tcp { size, ecn: false },
        _ => Segmentation::Udp { size },
    };
    whole
}

/// What a host with offload gives to its TUN device in place of a packet with a checksum: only the
/// pseudo-header is summed.
///
/// # Panics
/// If it is no whole TCP or UDP packet.
pub fn partial_checksum(packet: &[u8]) -> Packet {
    let inner = Inner::parse(packet).expect("a packet to sum");
    let (protocol, offset, header) = match inner.transport {
        Transport::Tcp { header_len, .. } => (protocol::TCP, 16, header_len),
        Transport::Udp { .. } => (protocol::UDP, 6, 8),
        other => panic!("{other:?} has no checksum"),
    };
    let start = inner.header_len;
    let len = (inner.total_len - start) as u32;
    let pseudo_header = Sum::pseudo_header(inner.src, inner.dst, protocol, len);
    let mut bytes = packet[..inner.total_len].to_vec();
    let field = start + usize::from(offset);
    bytes[field..field + 2].copy_from_slice(&(!pseudo_header.finish()).to_be_bytes());
    let checksum = Some(PartialChecksum { start: start as u16, offset });
    let hdr_len = (start + header) as u16;
    Packet { bytes, offload: Offload { segment: Segmentation::None, checksum, hdr_len } }
}

fn written<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut packet = Vec::new();
    write(&mut packet).expect("a packet that fits");
    packet
}

#[cfg(test)]
mod tests {
    use geneve::checksum::{Integrity, verify};
    use geneve::{Fragment, IcmpErrorKind};

    use super::*;

    const PAIRS: [(&str, &str); 2] = [("192.0.2.1", "10.0.0.2"), ("2001:db8::1", "fd00::2")];

    #[test]
    fn packets_are_sound() {
        for (src, dst) in PAIRS {
            let ip = Ip::new(src, dst).options(&[1, 1, 1, 0]).extensions();
            let udp = ip.udp((1, 2), b"hello");
            for packet in [
                ip.tcp((1, 2), Tcp::DATA, b"hello"),
                ip.reversed().echo_request(1, 2),
                ip.icmp_error(Problem::TooBig(1300), &udp, 500),
                udp,
            ] {
                let inner = Inner::parse(&packet).unwrap();
                assert_eq!(inner.total_len, packet.len());
                assert_eq!(verify(&inner, &packet), Integrity::Valid, "{inner:?}");
            }
        }
    }

    #[test]
    fn an_error_is_about_a_packet() {
        for (src, dst) in PAIRS {
            let packet = Ip::new(src, dst).udp((1, 2), &[7; 100]);
            let about = Inner::parse(&packet).unwrap().flow_key();
            let error = Ip::new(dst, src).icmp_error(Problem::TimeExceeded, &packet, 60);
            let kind = IcmpErrorKind::TimeExceeded { code: 0 };
            let expected = Transport::IcmpError { kind, about };
            assert_eq!(Inner::parse(&error).unwrap().transport, expected);
        }
    }

    #[test]
    fn fragments_hold_the_payload_in_order() {
        for (src, dst) in PAIRS {
            let payload: Vec<u8> = (0..100).collect();
            let packet = Ip::new(src, dst).udp((1, 2), &payload);
            let fragments = fragments(&packet, 9, 48);
            let mut joined = Vec::new();
            for (index, fragment) in fragments.iter().enumerate() {
                let inner = Inner::parse(fragment).unwrap();
                let expected = match index {
                    0 => Fragment::First { id: 9 },
                    _ => Fragment::Later { id: 9, offset: (index * 6) as u16 },
                };
                assert_eq!(inner.fragment, expected);
                joined.extend_from_slice(&fragment[inner.header_len..]);
            }
            assert_eq!(fragments.len(), 3);
            assert!(packet.ends_with(&joined) && joined.len() == 108);
        }
    }
}
