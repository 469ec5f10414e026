//! The IP layer: IPv4 with options, IPv6 with its chain of extension headers.
//!
//! One reader serves the packet itself and the packet that an ICMP error quotes, so that both come
//! to the same flow key; only the demands on the length differ.

use super::{Fragment, Inner, InnerError, IpVersion, MAX_EXTENSIONS, Transport};
use std::net::{Ipv4Addr, Ipv6Addr};

/// How much of the packet must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// Its headers: an ICMP error quotes only a packet's start, and some senders change the
    /// length field in the quote.
    Quoted,
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Bytes of the shortest authentication header (RFC 4302 §2).
const MIN_AUTHENTICATION: usize = 12;

/// Reads the IP layer; `transport` is [`Transport::None`] in the result.
/// `header_len <= total_len <= packet.len()` holds for it.
#[inline]
pub(super) fn parse(packet: &[u8], extent: Extent) -> Result<Inner, InnerError> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => ipv4(packet, extent),
        Some(6) => ipv6(packet, extent),
        Some(version) => Err(InnerError::Version(version)),
        None => Err(InnerError::Truncated { needed: 1, actual: 0 }),
    }
}

#[inline]
fn ipv4(packet: &[u8], extent: Extent) -> Result<Inner, InnerError> {
    let actual = packet.len();
    let Some(header) = packet.first_chunk::<20>() else {
        return Err(InnerError::Truncated { needed: 20, actual });
    };
    let words = header[0] & 0x0f;
    if words < 5 {
        return Err(InnerError::HeaderLength(words));
    }
    let header_len = usize::from(words) * 4;
    let stated = usize::from(be16(header[2], header[3]));
    let total_len = match extent {
        Extent::Whole if stated == 0 => return Err(InnerError::NoTotalLength),
        Extent::Whole if stated < header_len => {
            return Err(InnerError::TotalLength { total: stated, header: header_len });
        }
        Extent::Whole => stated,
        Extent::Quoted if (header_len..actual).contains(&stated) => stated,
        Extent::Quoted => header_len.max(actual),
    };
    if total_len > actual {
        return Err(InnerError::Truncated { needed: total_len, actual });
    }

    let fragmentation = be16(header[6], header[7]);
    let id = u32::from(be16(header[4], header[5]));
    let offset = fragmentation & 0x1fff;
    let more = fragmentation & 0x2000 != 0;
    Ok(Inner {
        version: IpVersion::V4,
        src: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
        dst: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
        protocol: header[9],
        header_len,
        total_len,
        fragment: fragment(id, offset, more),
        transport: Transport::None,
        tos: header[1],
        ttl: header[8],
        dont_fragment: fragmentation & 0x4000 != 0,
        flow_protocol: header[9],
        source_routed: header_len > 20 && source_route(&packet[20..header_len]),
    })
}

/// Whether IPv4 options hold a loose or strict source route with hops left (RFC 791 §3.1).
fn source_route(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    loop {
        options = match *options {
            [] | [END, ..] => return false,
            [NO_OPERATION, ref rest @ ..] => rest,
            [LOOSE | STRICT, len, pointer, ..] if pointer <= len => return true,
            // A length below 2 cannot be: nothing that follows can be told.
            [_, len, ..] if len >= 2 => options.get(usize::from(len)..).unwrap_or_default(),
            _ => return false,
        }
    }
}

#[inline]
fn ipv6(packet: &[u8], extent: Extent) -> Result<Inner, InnerError> {
    let actual = packet.len();
    let Some((header, _)) = packet.split_first_chunk::<40>() else {
        return Err(InnerError::Truncated { needed: 40, actual });
    };
    let payload_len = usize::from(be16(header[4], header[5]));
    let stated = header.len() + payload_len;
    let total_len = match extent {
        // RFC 2675 §3: a payload length of 0 and a hop-by-hop header that has the length.
        Extent::Whole if payload_len == 0 && header[6] == HOP_BY_HOP => {
            return Err(InnerError::Jumbogram);
        }
        Extent::Whole => stated,
        Extent::Quoted if payload_len > 0 && stated < actual => stated,
        Extent::Quoted => actual,
    };
    let Some(extent) = packet.get(..total_len) else {
        return Err(InnerError::Truncated { needed: total_len, actual });
    };

    let chain = extensions(extent, header[6])?;
    let mut addresses = [[0; 16]; 2];
    addresses.as_flattened_mut().copy_from_slice(&header[8..]);
    Ok(Inner {
        version: IpVersion::V6,
        src: Ipv6Addr::from(addresses[0]).into(),
        dst: Ipv6Addr::from(addresses[1]).into(),
        protocol: chain.protocol,
        header_len: chain.end,
        total_len,
        fragment: chain.fragment,
        transport: Transport::None,
        tos: header[0] << 4 | header[1] >> 4,
        ttl: header[7],
        dont_fragment: true,
        flow_protocol: chain.flow_protocol,
        source_routed: chain.source_routed,
    })
}

/// What stands behind the extension headers.
struct Chain {
    protocol: u8,
    flow_protocol: u8,
    end: usize,
    fragment: Fragment,
    source_routed: bool,
}

/// Walks the extension headers of `packet`; `first` is the next-header field of the IPv6 header.
///
/// ESP hides what follows it, and behind Mobility, HIP and Shim6 nothing follows in practice: these
/// are upper-layer protocols here.
#[inline]
fn extensions(packet: &[u8], first: u8) -> Result<Chain, InnerError> {
    let mut chain = Chain {
        protocol: first,
        flow_protocol: first,
        end: IpVersion::V6.header_len(),
        fragment: Fragment::Whole,
        source_routed: false,
    };
    let mut fragmented = false;
    for position in 0..=MAX_EXTENSIONS {
        let kind = chain.protocol;
        if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            if chain.fragment == Fragment::Whole {
                chain.flow_protocol = kind;
            }
            return Ok(chain);
        }
        let offset = chain.end;
        let header = extension(packet, offset, kind)?;
        match kind {
            // RFC 8200 §4.1: hop-by-hop options "are restricted to appear immediately after an
            // IPv6 header only".
            HOP_BY_HOP if position > 0 => return Err(InnerError::HopByHopNotFirst { offset }),
            FRAGMENT if fragmented => return Err(InnerError::RepeatedFragment { offset }),
            FRAGMENT => {
                fragmented = true;
                let [next, _, high, low, a, b, c, d] = header.fixed;
                let offset_and_more = be16(high, low);
                chain.fragment = fragment(
                    u32::from_be_bytes([a, b, c, d]),
                    offset_and_more >> 3,
                    offset_and_more & 1 != 0,
                );
                chain.flow_protocol = next;
            }
            // RFC 8200 §4.4: segments left.
            ROUTING => chain.source_routed |= header.fixed[3] != 0,
            _ => {}
        }
        chain.protocol = header.fixed[0];
        chain.end += header.len;
        // What follows in a later fragment is the middle of something.
        if matches!(chain.fragment, Fragment::Later { .. }) {
            return Ok(chain);
        }
    }
    Err(InnerError::TooManyExtensions)
}

/// One extension header, all of it in the packet.
struct Extension {
    /// Its first bytes, the next-header field first; every extension header has these eight.
    fixed: [u8; 8],
    len: usize,
}

#[inline]
fn extension(packet: &[u8], offset: usize, kind: u8) -> Result<Extension, InnerError> {
    let rest = packet.get(offset..).unwrap_or_default();
    let available = rest.len();
    let Some(fixed) = rest.first_chunk::<8>() else {
        return Err(InnerError::Extension { kind, offset, needed: 8, available });
    };
    let units = usize::from(fixed[1]);
    let len = match kind {
        FRAGMENT => 8,
        // RFC 4302 §2.2: in 4-byte units, minus 2.
        AUTHENTICATION => ((units + 2) * 4).max(MIN_AUTHENTICATION),
        // RFC 8200 §4.3: in 8-byte units, not including the first 8 bytes.
        _ => (units + 1) * 8,
    };
    if len > available {
        return Err(InnerError::Extension { kind, offset, needed: len, available });
    }
    Ok(Extension { fixed: *fixed, len })
}

#[inline]
fn fragment(id: u32, offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First { id },
        (offset, _) => Fragment::Later { id, offset },
    }
}

#[inline]
pub(super) const fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}
