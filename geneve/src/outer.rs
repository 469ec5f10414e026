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
