//! The outer IP and UDP headers around a Geneve datagram, written and read.
//!
//! For captures, scenarios and raw sockets, where no kernel does it. A datagram that came through a
//! UDP socket has no outer header left to read.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use thiserror::Error;

use crate::buffer::PacketBuf;
use crate::checksum::{self, Integrity, Sum};
use crate::flow::MixedVersions;
use crate::inner::{Fragment, Inner, InnerError, IpVersion, Transport, protocol};

/// Bytes of the UDP header.
pub const UDP_LEN: usize = 8;

/// What the outer headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterHeader {
    /// The sender's address and UDP port.
    pub src: SocketAddr,
    /// The receiver's address and UDP port: [`PORT`](crate::PORT) in both directions.
    pub dst: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// DF. IPv6 has no such bit: its packets are never fragmented on the way.
    pub dont_fragment: bool,
    /// The IPv4 identification; IPv6 has none.
    pub id: u16,
    /// What to do about the UDP checksum.
    pub checksum: UdpChecksum,
}

/// What to write as the UDP checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UdpChecksum {
    /// The right one.
    #[default]
    On,
    /// 0, for none; over IPv6 too, where RFC 6935 §5 lets tunnels do so.
    Zero,
}

/// Outer headers that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// The sender's address and UDP port.
    pub src: SocketAddr,
    /// The receiver's address and UDP port.
    pub dst: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// DF; always set for IPv6.
    pub dont_fragment: bool,
    /// The IPv4 identification; 0 for IPv6.
    pub id: u16,
    /// What the UDP checksum is worth. It is never [`Integrity::Unknown`] unless the outer packet
    /// is source-routed.
    pub checksum: Integrity,
}

/// Puts UDP and IP headers in front of the datagram in `packet`.
///
/// # Errors
/// [`OuterError`], with the buffer's packet unchanged, if the addresses are of different versions,
/// the result is longer than IP can say, or there is no headroom.
pub fn encapsulate(outer: &OuterHeader, packet: &mut PacketBuf) -> Result<(), OuterError> {
    let (src, dst) = (outer.src.ip(), outer.dst.ip());
    let version = IpVersion::of(src);
    if version != IpVersion::of(dst) {
        return Err(MixedVersions { src, dst }.into());
    }
    let header_len = version.header_len() + UDP_LEN;
    let udp_len = UDP_LEN + packet.len();
    // IPv4's length field counts its own header, IPv6's does not.
    let stated = match version {
        IpVersion::V4 => IpVersion::V4.header_len() + udp_len,
        IpVersion::V6 => udp_len,
    };
    let Ok(stated) = u16::try_from(stated) else {
        return Err(OuterError::TooLong { len: header_len + packet.len() });
    };
    let udp_len = udp_len as u16;

    let mut udp = [0; UDP_LEN];
    udp[..2].copy_from_slice(&outer.src.port().to_be_bytes());
    udp[2..4].copy_from_slice(&outer.dst.port().to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    if outer.checksum == UdpChecksum::On {
        let mut sum = Sum::pseudo_header(src, dst, protocol::UDP, udp_len.into());
        sum.add(&udp);
        sum.add(packet.bytes());
        udp[6..].copy_from_slice(&sum.finish_udp().to_be_bytes());
    }

    let available = packet.headroom();
    let Some(headers) = packet.prepend(header_len) else {
        return Err(OuterError::NoHeadroom { needed: header_len, available });
    };
    let (ip, rest) = headers.split_at_mut(version.header_len());
    rest.copy_from_slice(&udp);
    ip.fill(0);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ip[0] = 0x45;
            ip[1] = outer.tos;
            ip[2..4].copy_from_slice(&stated.to_be_bytes());
            ip[4..6].copy_from_slice(&outer.id.to_be_bytes());
            ip[6] = if outer.dont_fragment { 0x40 } else { 0 };
            ip[8] = outer.ttl;
            ip[9] = protocol::UDP;
            ip[12..16].copy_from_slice(&src.octets());
            ip[16..].copy_from_slice(&dst.octets());
            let checksum = checksum::of(ip);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            ip[0] = 0x60 | outer.tos >> 4;
            ip[1] = outer.tos << 4;
            ip[4..6].copy_from_slice(&stated.to_be_bytes());
            ip[6] = protocol::UDP;
            ip[7] = outer.ttl;
            ip[8..24].copy_from_slice(&src.octets());
            ip[24..].copy_from_slice(&dst.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
    }
    Ok(())
}

/// Reads the outer headers at the start of an IP packet; returns them and where the UDP payload
/// lies in `packet`. The UDP checksum is reported, not judged.
///
/// # Errors
/// [`OuterError`] if it is no valid IP packet, a wrong IPv4 header checksum, a fragment, or not UDP.
pub fn parse(packet: &[u8]) -> Result<(Outer, Range<usize>), OuterError> {
    let ip = Inner::parse(packet)?;
    if ip.fragment != Fragment::Whole {
        return Err(OuterError::Fragment);
    }
    let Transport::Udp { src, dst } = ip.transport else {
        return Err(OuterError::NotUdp(ip.protocol));
    };
    if ip.version == IpVersion::V4 && checksum::of(&packet[..ip.header_len]) != 0 {
        return Err(OuterError::HeaderChecksum);
    }
    // The packet was parsed: its UDP header is complete, and its length is 8 to what is there.
    let udp = &packet[ip.header_len..ip.total_len];
    let udp_len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    let zero_checksum = udp[6..8] == [0, 0];
    let outer = Outer {
        src: SocketAddr::new(ip.src, src),
        dst: SocketAddr::new(ip.dst, dst),
        ttl: ip.ttl,
        tos: ip.tos,
        dont_fragment: ip.dont_fragment,
        id: match ip.version {
            IpVersion::V4 => u16::from_be_bytes([packet[4], packet[5]]),
            IpVersion::V6 => 0,
        },
        checksum: if zero_checksum { Integrity::Absent } else { checksum::verify(&ip, packet) },
    };
    Ok((outer, ip.header_len + UDP_LEN..ip.header_len + udp_len))
}

/// Why outer headers could not be written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OuterError {
    /// Source and destination are of different IP versions.
    #[error(transparent)]
    MixedVersions(#[from] MixedVersions),
    /// The packet would be longer than its length field can say.
    #[error("outer packet of {len} bytes, IP holds at most 65535 (and 40 of header in IPv6)")]
    TooLong {
        /// Bytes of the whole packet.
        len: usize,
    },
    /// The buffer has too little room in front.
    #[error("outer headers need {needed} bytes of headroom, {available} available")]
    NoHeadroom {
        /// Bytes of the headers.
        needed: usize,
        /// Bytes of headroom.
        available: usize,
    },
    /// No valid IP packet.
    #[error("outer packet: {0}")]
    Ip(#[from] InnerError),
    /// The IPv4 header's checksum is wrong.
    #[error("outer IPv4 header checksum is wrong")]
    HeaderChecksum,
    /// A fragment, which holds no whole datagram.
    #[error("outer packet is a fragment")]
    Fragment,
    /// Another protocol than UDP.
    #[error("outer packet carries protocol {0}, expected UDP (17)")]
    NotUdp(u8),
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::arbitrary;
    use crate::buffer::HEADROOM;

    fn outer() -> impl Strategy<Value = OuterHeader> {
        let checksum = prop_oneof![3 => Just(UdpChecksum::On), 1 => Just(UdpChecksum::Zero)];
        (arbitrary::socket_pair(), any::<[u8; 2]>(), any::<bool>(), any::<u16>(), checksum)
            .prop_map(|((src, dst), [ttl, tos], dont_fragment, id, checksum)| OuterHeader {
                src,
                dst,
                ttl,
                tos,
                dont_fragment,
                id,
                checksum,
            })
    }

    fn payload() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..200)
    }

    fn encapsulated(outer: &OuterHeader, payload: &[u8]) -> PacketBuf {
        let mut packet = PacketBuf::from_slice(payload);
        // The headroom holds what was there before.
        packet.prepend(HEADROOM).unwrap().fill(0xaa);
        packet.strip(HEADROOM);
        encapsulate(outer, &mut packet).unwrap();
        packet
    }

    proptest! {
        #[test]
        fn reads_what_was_written(outer in outer(), payload in payload(), behind: [u8; 3]) {
            let packet = [encapsulated(&outer, &payload).bytes(), &behind].concat();
            let (found, range) = parse(&packet).unwrap();
            let six = outer.src.is_ipv6();
            prop_assert_eq!(found, Outer {
                src: outer.src,
                dst: outer.dst,
                ttl: outer.ttl,
                tos: outer.tos,
                dont_fragment: six || outer.dont_fragment,
                id: if six { 0 } else { outer.id },
                checksum: match outer.checksum {
                    UdpChecksum::On => Integrity::Valid,
                    UdpChecksum::Zero => Integrity::Absent,
                },
            });
            prop_assert_eq!(&packet[range], &payload[..]);
        }

        #[test]
        fn writes_what_etherparse_writes(outer in outer(), payload in payload()) {
            let outer = OuterHeader {
                tos: 0,
                id: 0,
                dont_fragment: true,
                checksum: UdpChecksum::On,
                ..outer
            };
            let builder = match (outer.src.ip(), outer.dst.ip()) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    PacketBuilder::ipv4(src.octets(), dst.octets(), outer.ttl)
                }
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    PacketBuilder::ipv6(src.octets(), dst.octets(), outer.ttl)
                }
                _ => unreachable!("sockets of one version"),
            };
            let mut expected = Vec::new();
            let builder = builder.udp(outer.src.port(), outer.dst.port());
            builder.write(&mut expected, &payload).unwrap();
            let found = encapsulated(&outer, &payload);
            prop_assert_eq!(found.bytes(), &expected[..]);
        }

        #[test]
        fn noise_is_refused_with_a_reason(
            mut bytes in prop::collection::vec(any::<u8>(), 28..100),
            six: bool,
        ) {
            // Up to the checksum it could be a UDP packet.
            let len = bytes.len() as u16;
            if six {
                bytes.resize(60, 0);
                let len = (bytes.len() - 40) as u16;
                bytes[..7].copy_from_slice(&[0x60, 0, 0, 0, 0, len as u8, 17]);
            } else {
                bytes[..8].copy_from_slice(&[0x45, 0, 0, len as u8, 0, 0, 0, 0]);
                bytes[9] = 17;
            }
            match parse(&bytes) {
                Ok((_, range)) => prop_assert!(range.start <= range.end && range.end <= bytes.len()),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }

        #[test]
        fn a_changed_byte_is_noticed(
            outer in outer(),
            payload in payload(),
            at: prop::sample::Index,
            change in 1..=255_u8,
        ) {
            let outer = OuterHeader { checksum: UdpChecksum::On, ..outer };
            let mut packet = encapsulated(&outer, &payload);
            let at = at.index(packet.len());
            packet[at] ^= change;
            // IPv6 sums neither traffic class and flow label nor hop limit.
            let unprotected = outer.src.is_ipv6() && (at < 4 || at == 7);
            match parse(&packet) {
                Ok((found, _)) => prop_assert!(unprotected || found.checksum != Integrity::Valid),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }

        #[test]
        fn a_cut_packet_is_truncated_at_every_byte(outer in outer(), payload in payload()) {
            let packet = encapsulated(&outer, &payload);
            for actual in 0..packet.len() {
                match parse(&packet[..actual]) {
                    Err(OuterError::Ip(InnerError::Truncated { actual: found, .. })) => {
                        prop_assert_eq!(found, actual);
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }

        #[test]
        fn a_buffer_without_headroom_is_left_alone(outer in outer(), payload in payload()) {
            let needed = IpVersion::of(outer.src.ip()).header_len() + UDP_LEN;
            for available in 0..needed {
                let mut packet = PacketBuf::from_slice(&payload);
                packet.prepend(HEADROOM - available).unwrap().fill(0xaa);
                let before = packet.clone();
                let error = OuterError::NoHeadroom { needed, available };
                prop_assert_eq!(encapsulate(&outer, &mut packet), Err(error));
                prop_assert_eq!(packet, before);
            }
        }
    }

    fn header(src: &str, dst: &str) -> OuterHeader {
        OuterHeader {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            ttl: 255,
            tos: 0,
            dont_fragment: false,
            id: 0,
            checksum: UdpChecksum::On,
        }
    }

    #[rstest]
    #[case("192.0.2.1:60000", "192.0.2.9:6081", 65_535 - 28)]
    #[case("[2001:db8::1]:60000", "[2001:db8::9]:6081", 65_535 - 8)]
    fn is_no_longer_than_ip_can_say(#[case] src: &str, #[case] dst: &str, #[case] most: usize) {
        let outer = header(src, dst);
        let packet = encapsulated(&outer, &vec![1; most]);
        assert_eq!(parse(&packet).unwrap().1.len(), most);

        let mut packet = PacketBuf::from_slice(&vec![1; most + 1]);
        let len = most + 1 + packet_headers(&outer);
        assert_eq!(encapsulate(&outer, &mut packet), Err(OuterError::TooLong { len }));
        assert_eq!(packet.len(), most + 1);
    }

    fn packet_headers(outer: &OuterHeader) -> usize {
        IpVersion::of(outer.src.ip()).header_len() + UDP_LEN
    }

    #[test]
    fn refuses_mixed_versions() {
        let outer = header("192.0.2.1:60000", "[2001:db8::9]:6081");
        let mut packet = PacketBuf::from_slice(&[1]);
        let (src, dst) = (outer.src.ip(), outer.dst.ip());
        let error = OuterError::MixedVersions(MixedVersions { src, dst });
        assert_eq!(encapsulate(&outer, &mut packet), Err(error));
        assert_eq!(packet.bytes(), [1]);
    }

    #[test]
    fn refuses_what_is_no_whole_udp_datagram() {
        let packet = encapsulated(&header("192.0.2.1:60000", "192.0.2.9:6081"), &[1, 2, 3]);
        let changed = |at: usize, value: u8| {
            let mut packet = packet.clone();
            packet[at] = value;
            parse(&packet).unwrap_err()
        };
        assert_eq!(changed(6, 0x20), OuterError::Fragment);
        assert_eq!(changed(9, 1), OuterError::NotUdp(1));
        assert_eq!(changed(8, 1), OuterError::HeaderChecksum);
        assert_eq!(changed(0, 0x55), OuterError::Ip(InnerError::Version(5)));
    }
}
