//! The upper layer: TCP, UDP, and the packet that an ICMP error quotes.

use super::network::{self, Extent, be16};
use super::{Fragment, IcmpErrorKind, Inner, InnerError, IpVersion, TcpFlags, Transport, protocol};
use crate::flow::FlowKey;

const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;

/// Reads the upper layer of a packet; `payload` is what follows the IP layer.
#[inline]
pub(super) fn parse(inner: &Inner, payload: &[u8]) -> Result<Transport, InnerError> {
    let whole = match inner.fragment {
        Fragment::Whole => true,
        Fragment::First { .. } => false,
        Fragment::Later { .. } => return Ok(Transport::None),
    };
    match (inner.version, inner.protocol) {
        (_, protocol::TCP) => tcp(payload, whole),
        (_, protocol::UDP) => udp(payload, whole),
        (IpVersion::V4, protocol::ICMP) if whole => Ok(icmp(payload, icmp_kind)),
        (IpVersion::V6, protocol::ICMPV6) if whole => Ok(icmp(payload, icmpv6_kind)),
        _ => Ok(Transport::Other),
    }
}

#[inline]
fn tcp(payload: &[u8], whole: bool) -> Result<Transport, InnerError> {
    let available = payload.len();
    let truncated =
        |needed| InnerError::TransportTruncated { protocol: protocol::TCP, needed, available };
    let Some(header) = payload.first_chunk::<TCP_LEN>() else {
        return if whole { Err(truncated(TCP_LEN)) } else { Ok(ports_only(payload)) };
    };
    let words = header[12] >> 4;
    if words < 5 {
        return Err(InnerError::TcpDataOffset(words));
    }
    let header_len = usize::from(words) * 4;
    if whole && header_len > available {
        return Err(truncated(header_len));
    }
    Ok(Transport::Tcp {
        src: be16(header[0], header[1]),
        dst: be16(header[2], header[3]),
        flags: TcpFlags(header[13]),
        header_len,
    })
}

#[inline]
fn udp(payload: &[u8], whole: bool) -> Result<Transport, InnerError> {
    let available = payload.len();
    let Some(header) = payload.first_chunk::<UDP_LEN>() else {
        let needed = UDP_LEN;
        let error = InnerError::TransportTruncated { protocol: protocol::UDP, needed, available };
        return if whole { Err(error) } else { Ok(ports_only(payload)) };
    };
    let length = usize::from(be16(header[4], header[5]));
    if length < UDP_LEN || (whole && length > available) {
        return Err(InnerError::UdpLength { length, available });
    }
    Ok(Transport::Udp { src: be16(header[0], header[1]), dst: be16(header[2], header[3]) })
}

/// A first fragment that ends within the header.
fn ports_only(payload: &[u8]) -> Transport {
    match ports(payload) {
        Some((src, dst)) => Transport::PortsOnly { src, dst },
        None => Transport::None,
    }
}

fn ports(payload: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *payload.first_chunk::<4>()?;
    Some((be16(a, b), be16(c, d)))
}

/// ICMP of either version: an error if `kind` says so and the quoted packet can be read.
fn icmp(message: &[u8], kind: fn([u8; 8]) -> Option<IcmpErrorKind>) -> Transport {
    let error = message.split_first_chunk::<8>().and_then(|(header, quote)| {
        let kind = kind(*header)?;
        Some(Transport::IcmpError { kind, about: quoted_key(quote)? })
    });
    error.unwrap_or(Transport::Other)
}

/// The flow of a packet whose start is quoted. RFC 792 promises the IP header and eight bytes.
fn quoted_key(quote: &[u8]) -> Option<FlowKey> {
    let mut inner = network::parse(quote, Extent::Quoted).ok()?;
    let payload = &quote[inner.header_len..inner.total_len];
    let later = matches!(inner.fragment, Fragment::Later { .. });
    if matches!(inner.protocol, protocol::TCP | protocol::UDP) && !later {
        inner.transport = ports_only(payload);
    }
    Some(inner.ported_key().unwrap_or_else(|| inner.flow_key()))
}

/// RFC 792: the types that quote a packet.
fn icmp_kind(header: [u8; 8]) -> Option<IcmpErrorKind> {
    let code = header[1];
    Some(match (header[0], code) {
        // RFC 1191 §4: the next hop's MTU is in the low 16 bits of the second word.
        (3, 4) => IcmpErrorKind::TooBig { mtu: be16(header[6], header[7]).into() },
        (3, _) => IcmpErrorKind::Unreachable { code },
        (4, _) => IcmpErrorKind::SourceQuench,
        (5, _) => IcmpErrorKind::Redirect { code },
        (11, _) => IcmpErrorKind::TimeExceeded { code },
        (12, _) => IcmpErrorKind::ParameterProblem { code },
        _ => return None,
    })
}

/// RFC 4443 §2.1: types below 128 are errors, and §2.4 (c) has every error quote the packet.
fn icmpv6_kind(header: [u8; 8]) -> Option<IcmpErrorKind> {
    let [kind, code, _, _, a, b, c, d] = header;
    Some(match kind {
        1 => IcmpErrorKind::Unreachable { code },
        2 => IcmpErrorKind::TooBig { mtu: u32::from_be_bytes([a, b, c, d]) },
        3 => IcmpErrorKind::TimeExceeded { code },
        4 => IcmpErrorKind::ParameterProblem { code },
        128.. => return None,
        _ => IcmpErrorKind::Other { kind, code },
    })
}
