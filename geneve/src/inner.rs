//! The IP packet inside Geneve: validated, not copied.
//!
//! [`Inner::parse`] reads what a load balancer must know of a packet (its extent, its flow, whether
//! it is a fragment, what an ICMP error is about) and refuses a packet whose lengths contradict each
//! other. It neither verifies checksums (see [`checksum`](crate::checksum)) nor reassembles.

mod network;
mod plain;
#[cfg(test)]
mod tests;
mod transport;

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use crate::flow::FlowKey;
use network::{Extent, Network};

pub use plain::Plain;

/// IANA's numbers of the protocols that this crate looks into.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// The most IPv6 extension headers that a packet may have. RFC 8200 §4.1 recommends an order with
/// seven; the bound keeps the work per packet small whatever is sent.
pub const MAX_EXTENSIONS: usize = 16;

/// The version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum IpVersion {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

impl IpVersion {
    /// The version that an address belongs to.
    pub const fn of(address: IpAddr) -> IpVersion {
        match address {
            IpAddr::V4(_) => IpVersion::V4,
            IpAddr::V6(_) => IpVersion::V6,
        }
    }

    /// Bytes of the IP header without options and extension headers.
    pub const fn header_len(self) -> usize {
        match self {
            IpVersion::V4 => 20,
            IpVersion::V6 => 40,
        }
    }
}

impl fmt::Display for IpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IPv{}", *self as u8)
    }
}

/// What is known of a valid packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inner {
    /// The IP version of the packet.
    pub version: IpVersion,
    /// The source address.
    pub src: IpAddr,
    /// The destination address in the IP header, whatever a routing header says.
    pub dst: IpAddr,
    /// The upper-layer protocol, after IPv6 extension headers (hop-by-hop, routing, fragment,
    /// destination options, AH). In a later IPv6 fragment, what its fragment header says follows.
    pub protocol: u8,
    /// Bytes in front of the upper layer: IP header, its options or extension headers.
    pub header_len: usize,
    /// Bytes of the packet by its IP header; surplus bytes behind it are no part of it.
    pub total_len: usize,
    /// Which part of a fragmented packet it is.
    pub fragment: Fragment,
    /// What is known of the upper layer.
    pub transport: Transport,
    /// IPv4 TOS or IPv6 traffic class: DSCP and ECN.
    pub tos: u8,
    /// IPv4 TTL or IPv6 hop limit.
    pub ttl: u8,
    /// IPv4 DF; always set for IPv6, which routers never fragment.
    pub dont_fragment: bool,
    /// The protocol that all fragments of one packet state alike: [`Inner::protocol`], but for a
    /// fragment what its fragment header says follows (RFC 8200 §4.5), be it an extension header.
    pub(crate) flow_protocol: u8,
    /// The upper layer's checksum covers another address than the IP header has: a source route
    /// leads on from the destination, or a home address stands for the source (RFC 6275 §6.3).
    pub(crate) readdressed: bool,
}

impl Inner {
    /// Reads and validates the packet at the start of `packet`.
    ///
    /// # Errors
    /// [`InnerError`] if it is no IP packet, is cut short, or its lengths contradict each other:
    /// IPv4 with a total length of 0, and IPv6 jumbograms, are refused. TCP and UDP headers must be
    /// complete, but for fragments.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Inner, InnerError> {
        network::parse(packet, Extent::Whole, |network| transport::parse(network, packet))
    }

    #[inline]
    fn new(network: Network, transport: Transport) -> Inner {
        Inner {
            version: network.version,
            src: network.src,
            dst: network.dst,
            protocol: network.protocol,
            header_len: network.header_len,
            total_len: network.total_len,
            fragment: network.fragment,
            transport,
            tos: network.tos,
            ttl: network.ttl,
            dont_fragment: network.dont_fragment,
            flow_protocol: network.flow_protocol,
            readdressed: network.readdressed,
        }
    }

    /// The packet's flow in its direction: with ports for unfragmented TCP and UDP, without for
    /// everything else (ICMP, other protocols, every fragment, the first included), so that all
    /// fragments of a packet have one key.
    #[inline]
    pub fn flow_key(&self) -> FlowKey {
        let ports = match self.fragment {
            Fragment::Whole => self.ports().unwrap_or((0, 0)),
            Fragment::First { .. } | Fragment::Later { .. } => (0, 0),
        };
        FlowKey::pack(self.flow_protocol, self.src, self.dst, ports)
    }

    /// The flow with its ports, wherever TCP or UDP ports can be read: in an unfragmented packet
    /// and in a first fragment.
    #[inline]
    pub fn ported_key(&self) -> Option<FlowKey> {
        let ports = self.ports()?;
        Some(FlowKey::pack(self.protocol, self.src, self.dst, ports))
    }

    /// The TCP or UDP ports, source first, if they can be read.
    #[inline]
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Tcp { src, dst, .. }
            | Transport::Udp { src, dst }
            | Transport::PortsOnly { src, dst } => Some((src, dst)),
            Transport::IcmpError { .. } | Transport::Other | Transport::None => None,
        }
    }
}

/// The flow of a packet of which at least the start is at hand: what a capture has cut short, or what
/// lies in pieces. With ports wherever they can be read, a first fragment's too. `None` if its headers
/// are not there, or say what cannot be.
///
/// For those who look at packets; what becomes of a packet is decided by [`Inner`].
pub fn flow_of_start(start: &[u8]) -> Option<FlowKey> {
    transport::quoted_key(start)
}

/// Which part of a fragmented packet a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// No fragment. So is an IPv6 packet with a fragment header, offset 0 and no more fragments:
    /// RFC 6946 has such an "atomic fragment" processed apart from all others.
    Whole,
    /// The first fragment, which holds the upper layer's header, or its start.
    First {
        /// The identification that all fragments of the packet share: 16 bits in IPv4.
        id: u32,
    },
    /// Any other fragment.
    Later {
        /// The identification that all fragments of the packet share: 16 bits in IPv4.
        id: u32,
        /// Where it belongs, in units of 8 bytes, from the start of the fragmentable part.
        offset: u16,
    },
}

/// What is known of the upper layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP, with its whole header.
    Tcp {
        /// The source port.
        src: u16,
        /// The destination port.
        dst: u16,
        /// The flags.
        flags: TcpFlags,
        /// Bytes of the TCP header, options included.
        header_len: usize,
    },
    /// UDP.
    Udp {
        /// The source port.
        src: u16,
        /// The destination port.
        dst: u16,
    },
    /// A first fragment of TCP or UDP that ends within the header, but behind the ports.
    PortsOnly {
        /// The source port.
        src: u16,
        /// The destination port.
        dst: u16,
    },
    /// An ICMP or `ICMPv6` error that quotes the packet it is about.
    IcmpError {
        /// What happened.
        kind: IcmpErrorKind,
        /// The quoted packet's flow, in the direction in which that packet flew: with ports where
        /// they can be read (its [`Inner::ported_key`]), else without (its [`Inner::flow_key`]).
        about: FlowKey,
    },
    /// Another protocol, an ICMP message that is no error, or an error whose quote is unreadable.
    Other,
    /// Not there: a later fragment, or a first one that ends before the ports.
    None,
}

/// The flags of a TCP segment, as its byte 13 holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Opens a connection.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// Resets a connection.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// Push.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgement number is valid.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// The urgent pointer is valid.
    pub const URG: TcpFlags = TcpFlags(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: TcpFlags = TcpFlags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: TcpFlags = TcpFlags(0x80);

    /// Whether all flags of `other` are set.
    #[inline]
    pub const fn contains(self, other: TcpFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    #[inline]
    pub const fn intersects(self, other: TcpFlags) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = TcpFlags;

    fn bitor(self, other: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | other.0)
    }
}

/// What an ICMP error tells, of either version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IcmpErrorKind {
    /// The destination cannot be reached (ICMP type 3, `ICMPv6` type 1), but for [`TooBig`].
    ///
    /// [`TooBig`]: IcmpErrorKind::TooBig
    Unreachable {
        /// Why, by the numbers of the ICMP version.
        code: u8,
    },
    /// The packet exceeds the MTU of a link (ICMP type 3 code 4, `ICMPv6` type 2).
    TooBig {
        /// The MTU in bytes; 0 from a router that predates RFC 1191.
        mtu: u32,
    },
    /// TTL, hop limit or reassembly time ran out (ICMP type 11, `ICMPv6` type 3).
    TimeExceeded {
        /// 0 in transit, 1 in reassembly.
        code: u8,
    },
    /// A field could not be processed (ICMP type 12, `ICMPv6` type 4).
    ParameterProblem {
        /// Why, by the numbers of the ICMP version.
        code: u8,
    },
    /// A better first hop is known (ICMP type 5).
    Redirect {
        /// For what, by the numbers of ICMP.
        code: u8,
    },
    /// Send slower (ICMP type 4, deprecated by RFC 6633).
    SourceQuench,
    /// An `ICMPv6` error (type below 128) that is not known here.
    Other {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
}

/// Why bytes are no valid packet. Offsets and lengths are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InnerError {
    /// The bytes end before the packet does.
    #[error("packet truncated: {needed} bytes needed, {actual} found")]
    Truncated {
        /// Bytes of the packet, as far as it could be told.
        needed: usize,
        /// Bytes that there were.
        actual: usize,
    },
    /// Neither IPv4 nor IPv6.
    #[error("IP version {0}, expected 4 or 6")]
    Version(u8),
    /// IPv4 with a header length below 20.
    #[error("IPv4 header length of {0} words, expected 5 at least")]
    HeaderLength(u8),
    /// IPv4 with a total length of 0, as a segmentation-offload capture may show it.
    #[error("IPv4 total length is 0")]
    NoTotalLength,
    /// IPv4 that ends within its own header.
    #[error("IPv4 total length of {total} bytes is shorter than the header of {header}")]
    TotalLength {
        /// The total length in the header.
        total: usize,
        /// The header length in the header.
        header: usize,
    },
    /// An IPv6 jumbogram (RFC 2675): payload length 0 and a hop-by-hop header.
    #[error("IPv6 jumbogram")]
    Jumbogram,
    /// An IPv6 extension header that the packet ends in.
    #[error(
        "IPv6 extension header {kind} at byte {offset} needs {needed} bytes, {available} are there"
    )]
    Extension {
        /// Its protocol number.
        kind: u8,
        /// Where it starts in the packet.
        offset: usize,
        /// Bytes of the header, as far as it could be told.
        needed: usize,
        /// Bytes of the packet that are left for it.
        available: usize,
    },
    /// An authentication header that states a length below its fixed part (RFC 4302 §2).
    #[error("authentication header at byte {offset} is shorter than its fixed part")]
    AuthenticationLength {
        /// Where it starts in the packet.
        offset: usize,
    },
    /// A hop-by-hop header elsewhere than right behind the IPv6 header (RFC 8200 §4.1).
    #[error("IPv6 hop-by-hop header at byte {offset}, expected right behind the IPv6 header")]
    HopByHopNotFirst {
        /// Where it starts in the packet.
        offset: usize,
    },
    /// A fragment header behind a fragment header.
    #[error("second IPv6 fragment header at byte {offset}")]
    RepeatedFragment {
        /// Where the second starts in the packet.
        offset: usize,
    },
    /// More than [`MAX_EXTENSIONS`] extension headers.
    #[error("more than {MAX_EXTENSIONS} IPv6 extension headers")]
    TooManyExtensions,
    /// An unfragmented packet that ends within its TCP or UDP header.
    #[error("header of protocol {protocol} needs {needed} bytes, {available} are there")]
    TransportTruncated {
        /// TCP or UDP.
        protocol: u8,
        /// Bytes of the header, as far as it could be told.
        needed: usize,
        /// Bytes of the packet that are left for it.
        available: usize,
    },
    /// TCP with a data offset below 20 bytes.
    #[error("TCP data offset of {0} words, expected 5 at least")]
    TcpDataOffset(u8),
    /// UDP with a length that is below 8 or reaches past the packet.
    #[error("UDP length of {length} bytes, expected 8 to {available}")]
    UdpLength {
        /// The length in the UDP header.
        length: usize,
        /// Bytes of the packet that are left for UDP.
        available: usize,
    },
}
