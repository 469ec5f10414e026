//! The ordinary packet, at a glance: what nearly all traffic is, read in a few loads.
//!
//! It says less than [`Inner`], of fewer packets, in a quarter of the time, and never
//! anything else.

use std::net::IpAddr;

use super::{Fragment, Inner, IpVersion, TcpFlags, Transport, protocol};
use crate::flow::{CanonicalKey, FlowKey};

/// A whole TCP or UDP packet over IPv4 without options or IPv6 without extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain {
    key: CanonicalKey,
    /// Whether it goes from the higher end of the key to the lower one.
    downward: bool,
    total_len: u32,
    header_len: u8,
    flags: TcpFlags,
    // As the key says, but at hand.
    version: IpVersion,
    tcp: bool,
}

/// Length of IPv4's header without options in bytes.
const IPV4_HEADER: usize = 20;
/// Length of UDP's header in bytes.
const UDP_HEADER: usize = 8;
/// Length of TCP's header without options in bytes.
const TCP_HEADER: usize = 20;
/// IPv4's "more fragments" and the fragment offset, as they lie in memory.
const FRAGMENT: u16 = u16::to_be(0x3fff);

impl Plain {
    /// Reads the packet at the start of `packet`. `None`: it is none of the ordinary kind, or none at
    /// all, which [`Inner::parse`] will tell.
    #[inline]
    pub fn read(packet: &[u8]) -> Option<Plain> {
        match packet.first()? {
            0x45 => {
                let (header, upper) = packet.split_first_chunk()?;
                Plain::read_v4_of(header, upper, packet.len())
            }
            0x60..=0x6f => Plain::read_v6(packet),
            _ => None,
        }
    }

    /// The same of the start of a packet whose first byte is 0x45, which is IPv4 without options; `len`
    /// bytes of it are there. All of TCP and most of UDP is so long that nothing else of it has to be
    /// asked for its length. Of others it says nonsense.
    #[expect(
        clippy::inline_always,
        reason = "what it says goes through memory otherwise, and twice"
    )]
    #[inline(always)]
    pub fn read_v4(start: &[u8; Plain::START_V4], len: usize) -> Option<Plain> {
        debug_assert_eq!(start[0], 0x45, "not IPv4 without options");
        let (header, upper) = start.split_first_chunk()?;
        Plain::read_v4_of(header, upper, len)
    }

    /// The headers of TCP over IPv4 without options, in bytes.
    pub const START_V4: usize = IPV4_HEADER + TCP_HEADER;

    /// The same of the headers of a packet, of which so many bytes are there.
    #[expect(clippy::inline_always, reason = "as for the whole packet")]
    #[inline(always)]
    fn read_v4_of(header: &[u8; IPV4_HEADER], upper: &[u8], len: usize) -> Option<Plain> {
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fragment = u16::from_ne_bytes([header[6], header[7]]) & FRAGMENT != 0;
        if fragment || total_len > len {
            return None;
        }
        let upper = Upper::read(header[9], upper, IPV4_HEADER, total_len)?;
        let ends = header.last_chunk().map_or(0, |ends| u64::from_be_bytes(*ends));
        let key = FlowKey::of_v4(header[9], upper.ports, ends);
        Some(Plain::of(IpVersion::V4, key, total_len, upper))
    }

    /// The same of a packet whose first four bits are 6, which is IPv6. Of others it says nonsense.
    #[expect(clippy::inline_always, reason = "as for IPv4")]
    #[inline(always)]
    pub fn read_v6(packet: &[u8]) -> Option<Plain> {
        let (header, rest) = packet.split_first_chunk::<40>()?;
        debug_assert_eq!(header[0] >> 4, 6, "not IPv6");
        let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if payload_len > rest.len() {
            return None;
        }
        let (words, _) = header[8..].as_chunks::<8>();
        let word = |index: usize| words.get(index).map_or(0, |word| u64::from_be_bytes(*word));
        let [src, dst] = [[word(0), word(1)], [word(2), word(3)]];
        let total_len = header.len() + payload_len;
        let upper = Upper::read(header[6], rest, header.len(), total_len)?;
        let key = FlowKey::of_v6(header[6], upper.ports, src, dst);
        Some(Plain::of(IpVersion::V6, key, total_len, upper))
    }

    #[inline]
    fn of(version: IpVersion, directed: FlowKey, total_len: usize, upper: Upper) -> Plain {
        let (key, downward) = directed.canonical_and_downward();
        let Upper { header_len, flags, tcp, .. } = upper;
        let (total_len, header_len) = (total_len as u32, header_len as u8);
        Plain { key, downward, total_len, header_len, flags, version, tcp }
    }

    /// All that there is to know of the packet, which is the one that this was read from: what
    /// [`Inner::parse`] says of it. Of another packet it is nonsense.
    #[inline]
    pub fn inner(&self, packet: &[u8]) -> Inner {
        let byte = |at: usize| packet.get(at).copied().unwrap_or_default();
        let version = self.version();
        let (tos, ttl, dont_fragment) = match version {
            IpVersion::V4 => (byte(1), byte(8), byte(6) & 0x40 != 0),
            IpVersion::V6 => (byte(0) << 4 | byte(1) >> 4, byte(7), true),
        };
        let key = self.flow_key();
        let (src, dst) = (key.src_port(), key.dst_port());
        let transport = if self.is_tcp() {
            let header_len = self.header_len() - version.header_len();
            Transport::Tcp { src, dst, flags: self.flags, header_len }
        } else {
            Transport::Udp { src, dst }
        };
        Inner {
            version,
            src: key.src(),
            dst: key.dst(),
            protocol: key.protocol(),
            header_len: version.header_len(),
            total_len: self.total_len(),
            fragment: Fragment::Whole,
            transport,
            tos,
            ttl,
            dont_fragment,
            flow_protocol: key.protocol(),
            readdressed: false,
        }
    }

    /// The packet's flow in its direction, with ports.
    #[inline]
    pub fn flow_key(&self) -> FlowKey {
        self.key.directed().turned(self.version, self.downward)
    }

    /// The packet's flow without its direction.
    #[inline]
    pub fn canonical(&self) -> &CanonicalKey {
        &self.key
    }

    /// Whether the packet goes from the higher end of its [flow](Self::canonical) to the lower one.
    #[inline]
    pub fn is_downward(&self) -> bool {
        self.downward
    }

    /// The IP version of the packet.
    #[inline]
    pub fn version(&self) -> IpVersion {
        self.version
    }

    /// The destination address.
    #[inline]
    pub fn dst(&self) -> IpAddr {
        self.key.directed().end(self.version, !self.downward)
    }

    /// Whether it is TCP, and not UDP.
    #[inline]
    pub fn is_tcp(&self) -> bool {
        self.tcp
    }

    /// The flags of TCP; none of UDP.
    #[inline]
    pub fn flags(&self) -> TcpFlags {
        self.flags
    }

    /// Bytes of the packet by its IP header.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.total_len as usize
    }

    /// Bytes of all headers, TCP's or UDP's included.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.header_len)
    }
}

/// What the upper layer's header tells.
#[derive(Clone, Copy)]
struct Upper {
    /// The source's in the upper half.
    ports: u32,
    /// Bytes of all headers, IP's included.
    header_len: usize,
    flags: TcpFlags,
    tcp: bool,
}

impl Upper {
    /// `bytes` are behind the IP header, which has `ip` bytes, and a packet of `total_len` is there.
    #[inline]
    fn read(protocol: u8, bytes: &[u8], ip: usize, total_len: usize) -> Option<Upper> {
        let header = bytes.first_chunk::<UDP_HEADER>()?;
        let ports = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        match protocol {
            protocol::TCP => {
                let header = bytes.first_chunk::<TCP_HEADER>()?;
                let header_len = ip + usize::from(header[12] >> 4) * 4;
                let fits = (ip + TCP_HEADER..=total_len).contains(&header_len);
                let flags = TcpFlags(header[13]);
                fits.then_some(Upper { ports, header_len, flags, tcp: true })
            }
            protocol::UDP => {
                let stated = ip + usize::from(u16::from_be_bytes([header[4], header[5]]));
                let (header_len, flags) = (ip + UDP_HEADER, TcpFlags::default());
                let fits = (header_len..=total_len).contains(&stated);
                fits.then_some(Upper { ports, header_len, flags, tcp: false })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary;

    /// What an ordinary packet is, said by what [`Inner::parse`] tells.
    fn expected(bytes: &[u8]) -> Option<Plain> {
        let inner = Inner::parse(bytes).ok()?;
        let (transport_len, flags) = match inner.transport {
            Transport::Tcp { flags, header_len, .. } => (header_len, flags),
            Transport::Udp { .. } => (8, TcpFlags(0)),
            _ => return None,
        };
        // An atomic fragment is whole, but has a header for it.
        let bare = inner.header_len == inner.version.header_len();
        let key = inner.flow_key();
        (bare && inner.fragment == Fragment::Whole).then(|| Plain {
            key: key.canonical(),
            downward: key.canonical().directed() != key,
            total_len: inner.total_len as u32,
            header_len: (inner.header_len + transport_len) as u8,
            flags,
            version: inner.version,
            tcp: inner.flow_protocol == protocol::TCP,
        })
    }

    /// What [`Plain::read`] says, by the versions' own ways where there is one.
    fn read_apart(bytes: &[u8]) -> Option<Plain> {
        match (bytes.first(), bytes.first_chunk()) {
            (Some(0x45), Some(start)) => Plain::read_v4(start, bytes.len()),
            (Some(0x60..=0x6f), _) => Plain::read_v6(bytes),
            _ => Plain::read(bytes),
        }
    }

    proptest! {
        #[test]
        fn says_what_the_parser_says(
            packet in arbitrary::packet(),
            surplus in prop::collection::vec(any::<u8>(), 0..50),
            cut: prop::sample::Index,
            change: Option<(prop::sample::Index, u8)>,
        ) {
            let mut bytes = [packet.bytes, surplus].concat();
            if let Some((at, value)) = change {
                let at = at.index(bytes.len().min(60));
                bytes[at] = value;
            }
            prop_assert_eq!(Plain::read(&bytes), expected(&bytes));
            prop_assert_eq!(read_apart(&bytes), expected(&bytes));
            if let Some(plain) = Plain::read(&bytes) {
                let inner = Inner::parse(&bytes).unwrap();
                prop_assert_eq!(plain.inner(&bytes), inner);
                prop_assert_eq!((plain.dst(), plain.flow_key()), (inner.dst, inner.flow_key()));
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            prop_assert_eq!(Plain::read(&bytes), expected(&bytes));
            prop_assert_eq!(read_apart(&bytes), expected(&bytes));
        }

        #[test]
        fn whole_tcp_and_udp_is_ordinary(
            four in arbitrary::simple_packet_of(IpVersion::V4),
            six in arbitrary::simple_packet_of(IpVersion::V6),
        ) {
            for packet in [four, six] {
                prop_assert!(Plain::read(&packet.bytes).is_some(), "{:?}", packet.inner);
            }
        }
    }
}
