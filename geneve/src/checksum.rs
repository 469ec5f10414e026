//! Internet checksums (RFC 1071): computed, verified, completed in place, updated.
//!
//! A checksum is a `u16` as the header's big-endian field has it. The summing itself is the
//! `internet-checksum` crate's; which bytes are summed for which protocol is said here.

use std::net::IpAddr;

use crate::inner::{Fragment, Inner, IpVersion, protocol};

/// A running sum over bytes that may lie in several pieces.
#[derive(Default)]
pub struct Sum(internet_checksum::Checksum);

impl Sum {
    /// A sum over nothing.
    pub fn new() -> Sum {
        Sum::default()
    }

    /// A sum over the pseudo-header of TCP, UDP (RFC 9293 §3.1, RFC 768) or an upper layer of IPv6
    /// (RFC 8200 §8.1). `len` is in bytes: the upper layer's header and payload.
    #[inline]
    pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> Sum {
        let mut sum = Sum::new();
        for address in [src, dst] {
            match address {
                IpAddr::V4(address) => sum.add(&address.octets()),
                IpAddr::V6(address) => sum.add(&address.octets()),
            }
        }
        // The forms for IPv4 and IPv6 differ only in zeros, which add nothing.
        let mut tail = [0; 8];
        tail[..4].copy_from_slice(&len.to_be_bytes());
        tail[7] = protocol;
        sum.add(&tail);
        sum
    }

    /// Adds the bytes that follow; a piece may end at an odd byte.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.add_bytes(bytes);
    }

    /// The checksum. Over bytes that include a correct one it is 0.
    #[inline]
    pub fn finish(&self) -> u16 {
        u16::from_be_bytes(self.0.checksum())
    }

    /// The checksum as UDP sends it: RFC 768 has a 0 sent as all ones, since 0 means none.
    #[inline]
    pub fn finish_udp(&self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

/// The checksum of bytes, for example of an IPv4 header whose checksum field is 0.
#[inline]
pub fn of(bytes: &[u8]) -> u16 {
    let mut sum = Sum::new();
    sum.add(bytes);
    sum.finish()
}

/// The checksum after `old` became `new` among the summed bytes (RFC 1624, equation 3).
///
/// The bytes stood at an even offset, and `N` is even. For UDP, leave a checksum of 0 alone and
/// send a result of 0 as 0xffff.
#[inline]
#[must_use]
pub fn update<const N: usize>(checksum: u16, old: [u8; N], new: [u8; N]) -> u16 {
    u16::from_be_bytes(internet_checksum::update(checksum.to_be_bytes(), &old, &new))
}

/// What became of verifying a packet's checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// The IPv4 header's and the upper layer's are both right.
    Valid,
    /// The IPv4 header is right, and the upper layer has none: UDP over IPv4 with a zero.
    Absent,
    /// The IPv4 header is right, and the upper layer's cannot be told: a fragment, a protocol that
    /// is not known here, a source route that hides the final destination.
    Unknown,
    /// One of them is wrong; UDP over IPv6 without one is (RFC 8200 §8.1).
    Invalid,
}

/// Verifies the checksums of the packet that `inner` was parsed from.
pub fn verify(inner: &Inner, packet: &[u8]) -> Integrity {
    let Some(packet) = packet.get(..inner.total_len) else {
        return Integrity::Unknown;
    };
    if inner.version == IpVersion::V4 && of(&packet[..inner.header_len]) != 0 {
        return Integrity::Invalid;
    }
    let Some(upper) = Upper::of(inner, packet) else {
        return Integrity::Unknown;
    };
    let covered = &packet[upper.start..upper.end];
    if inner.protocol == protocol::UDP && covered[upper.field..upper.field + 2] == [0, 0] {
        return match inner.version {
            IpVersion::V4 => Integrity::Absent,
            IpVersion::V6 => Integrity::Invalid,
        };
    }
    let mut sum = upper.seed(inner);
    sum.add(covered);
    if sum.finish() == 0 { Integrity::Valid } else { Integrity::Invalid }
}

/// Writes the checksums of the packet that `inner` was parsed from: the IPv4 header's, and the
/// upper layer's where it can be known (see [`Integrity::Unknown`]). Returns whether both are done.
pub fn complete(inner: &Inner, packet: &mut [u8]) -> bool {
    let Some(packet) = packet.get_mut(..inner.total_len) else {
        return false;
    };
    if inner.version == IpVersion::V4 {
        let header = &mut packet[..inner.header_len];
        header[10..12].fill(0);
        let checksum = of(header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    let Some(upper) = Upper::of(inner, packet) else {
        return false;
    };
    let covered = &mut packet[upper.start..upper.end];
    let field = upper.field..upper.field + 2;
    covered[field.clone()].fill(0);
    let mut sum = upper.seed(inner);
    sum.add(covered);
    let checksum = if inner.protocol == protocol::UDP { sum.finish_udp() } else { sum.finish() };
    covered[field].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Which bytes of a packet an upper-layer checksum covers, and where in them it stands.
struct Upper {
    start: usize,
    end: usize,
    field: usize,
    pseudo_header: bool,
}

impl Upper {
    /// `None` where the checksum cannot be known. `packet` is `inner.total_len` bytes long.
    fn of(inner: &Inner, packet: &[u8]) -> Option<Upper> {
        if inner.fragment != Fragment::Whole || inner.source_routed {
            return None;
        }
        let start = inner.header_len;
        let (end, field, header_len) = match (inner.version, inner.protocol) {
            (_, protocol::TCP) => (inner.total_len, 16, 20),
            (_, protocol::UDP) => (start + udp_len(packet.get(start..)?)?, 6, 8),
            (IpVersion::V4, protocol::ICMP) | (IpVersion::V6, protocol::ICMPV6) => {
                (inner.total_len, 2, 4)
            }
            _ => return None,
        };
        let pseudo_header = inner.protocol != protocol::ICMP;
        let in_order = start + header_len <= end && end <= packet.len();
        in_order.then_some(Upper { start, end, field, pseudo_header })
    }

    fn seed(&self, inner: &Inner) -> Sum {
        if self.pseudo_header {
            let len = (self.end - self.start) as u32;
            Sum::pseudo_header(inner.src, inner.dst, inner.protocol, len)
        } else {
            Sum::new()
        }
    }
}

fn udp_len(udp: &[u8]) -> Option<usize> {
    let header = udp.first_chunk::<8>()?;
    Some(usize::from(u16::from_be_bytes([header[4], header[5]])))
}
