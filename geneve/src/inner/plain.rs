//! The ordinary packet, at a glance: what nearly all traffic is, read in a few loads.
//!
//! It says less than [`Inner`], of fewer packets, in a quarter of the time, and never
//! anything else.

use std::net::IpAddr;

use super::{Fragment, Inner, IpVersion, TcpFlags, Transport, protocol};
use crate::flow::FlowKey;

/// A whole TCP or UDP packet over IPv4 without options or IPv6 without extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain {
    key: FlowKey,
    total_len: u32,
    transport_len: u8,
    flags: TcpFlags,
}

/// Length of UDP's header in bytes.
const UDP_HEADER: usize = 8;
/// Length of TCP's header without options in bytes.
const TCP_HEADER: usize = 20;
/// IPv4's "more fragments" and the fragment offset.
const FRAGMENT: u16 = 0x3fff;

impl Plain {
    /// Reads the packet at the start of `packet`. `None`: it is none of the ordinary kind, or none at
    /// all, which [`Inner::parse`] will tell.
    #[expect(
        clippy::inline_always,
        reason = "what it says goes through memory otherwise, and twice"
    )]
    #[inline(always)]
    pub fn read(packet: &[u8]) -> Option<Plain> {
        match packet.first()? {
            0x45 => Plain::read_v4(packet),
            0x60..=0x6f => Plain::read_v6(packet),
            _ => None,
        }
    }

    #[inline]
    fn read_v4(packet: &[u8]) -> Option<Plain> {
        let (header, rest) = packet.split_first_chunk::<20>()?;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fragment = u16::from_be_bytes([header[6], header[7]]) & FRAGMENT != 0;
        let payload_len = total_len.checked_sub(header.len())?;
        if fragment || payload_len > rest.len() {
            return None;
        }
        let (addresses, _) = header[12..].as_chunks::<4>();
        let word = |index: usize| addresses.get(index).map_or(0, |it| u32::from_be_bytes(*it));
        let [src, dst] = [0, 1].map(|index| [u64::from(word(index)) << 32, 0]);
        let protocol = header[9];
        Plain::read_transport(IpVersion::V4, protocol, [src, dst], rest, payload_len, total_len)
    }

    #[inline]
    fn read_v6(packet: &[u8]) -> Option<Plain> {
        let (header, rest) = packet.split_first_chunk::<40>()?;
        let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if payload_len > rest.len() {
            return None;
        }
        let (words, _) = header[8..].as_chunks::<8>();
        let word = |index: usize| words.get(index).map_or(0, |word| u64::from_be_bytes(*word));
        let ends = [[word(0), word(1)], [word(2), word(3)]];
        let total_len = header.len() + payload_len;
        Plain::read_transport(IpVersion::V6, header[6], ends, rest, payload_len, total_len)
    }

    /// `len` bytes of `rest` are the packet's.
    #[inline]
    fn read_transport(
        version: IpVersion,
        protocol: u8,
        [src, dst]: [[u64; 2]; 2],
        rest: &[u8],
        len: usize,
        total_len: usize,
    ) -> Option<Plain> {
        let header = rest.first_chunk::<UDP_HEADER>().filter(|_| len >= UDP_HEADER)?;
        let (transport_len, flags) = match protocol {
            protocol::TCP => {
                let header = rest.first_chunk::<TCP_HEADER>()?;
                let header_len = usize::from(header[12] >> 4) * 4;
                if !(TCP_HEADER..=len).contains(&header_len) {
                    return None;
                }
                (header_len, TcpFlags(header[13]))
            }
            protocol::UDP => {
                let stated = usize::from(u16::from_be_bytes([header[4], header[5]]));
                if !(UDP_HEADER..=len).contains(&stated) {
                    return None;
                }
                (UDP_HEADER, TcpFlags::default())
            }
            _ => return None,
        };
        let ports = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let key = FlowKey::of_words(version, protocol, ports, src, dst);
        let transport_len = transport_len as u8;
        Some(Plain { key, total_len: total_len as u32, transport_len, flags })
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
        let (src, dst) = (self.key.src_port(), self.key.dst_port());
        let transport = if self.is_tcp() {
            let header_len = usize::from(self.transport_len);
            Transport::Tcp { src, dst, flags: self.flags, header_len }
        } else {
            Transport::Udp { src, dst }
        };
        Inner {
            version,
            src: self.key.src(),
            dst: self.key.dst(),
            protocol: self.key.protocol(),
            header_len: version.header_len(),
            total_len: self.total_len(),
            fragment: Fragment::Whole,
            transport,
            tos,
            ttl,
            dont_fragment,
            flow_protocol: self.key.protocol(),
            readdressed: false,
        }
    }

    /// The packet's flow in its direction, with ports.
    #[inline]
    pub fn flow_key(&self) -> FlowKey {
        self.key
    }

    /// The IP version of the packet.
    #[inline]
    pub fn version(&self) -> IpVersion {
        self.key.version()
    }

    /// The destination address.
    #[inline]
    pub fn dst(&self) -> IpAddr {
        self.key.dst()
    }

    /// Whether it is TCP, and not UDP.
    #[inline]
    pub fn is_tcp(&self) -> bool {
        self.key.protocol() == protocol::TCP
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
        self.version().header_len() + usize::from(self.transport_len)
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
        (bare && inner.fragment == Fragment::Whole).then(|| Plain {
            key: inner.flow_key(),
            total_len: inner.total_len as u32,
            transport_len: transport_len as u8,
            flags,
        })
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
            if let Some(plain) = Plain::read(&bytes) {
                let inner = Inner::parse(&bytes).unwrap();
                prop_assert_eq!(plain.inner(&bytes), inner);
                prop_assert_eq!(plain.dst(), inner.dst);
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            prop_assert_eq!(Plain::read(&bytes), expected(&bytes));
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
