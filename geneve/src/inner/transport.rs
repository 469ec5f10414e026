//! The upper layer: TCP, UDP, and the packet that an ICMP error quotes.

use etherparse::err::tcp;
use etherparse::{TcpHeaderSlice, UdpHeader, UdpHeaderSlice};

use super::network::{self, Extent, Network};
use super::{Fragment, IcmpErrorKind, Inner, InnerError, IpVersion, TcpFlags, Transport, protocol};
use crate::flow::FlowKey;

/// Reads the upper layer of the packet that `network` was read from, and puts both together.
#[inline]
pub(super) fn parse(network: Network, packet: &[u8]) -> Result<Inner, InnerError> {
    let payload = &packet[network.header_len..network.total_len];
    let whole = network.fragment == Fragment::Whole;
    let later = matches!(network.fragment, Fragment::Later { .. });
    let transport = match (network.version, network.protocol) {
        _ if later => Transport::None,
        (_, protocol::TCP) => tcp(payload, whole)?,
        (_, protocol::UDP) => udp(payload, whole)?,
        // ICMP goes its own way to the end, so that the large error variant costs the others nothing.
        (IpVersion::V4, protocol::ICMP) if whole => return Ok(icmp(network, payload, icmp_kind)),
        (IpVersion::V6, protocol::ICMPV6) if whole => {
            return Ok(icmp(network, payload, icmpv6_kind));
        }
        _ => Transport::Other,
    };
    Ok(Inner::new(network, transport))
}

#[inline]
fn tcp(payload: &[u8], whole: bool) -> Result<Transport, InnerError> {
    match TcpHeaderSlice::from_slice(payload) {
        Ok(header) => Ok(Transport::Tcp {
            src: header.source_port(),
            dst: header.destination_port(),
            flags: TcpFlags(header.slice()[13]),
            header_len: header.slice().len(),
        }),
        Err(tcp::HeaderSliceError::Content(tcp::HeaderError::DataOffsetTooSmall {
            data_offset,
        })) => Err(InnerError::TcpDataOffset(data_offset)),
        Err(tcp::HeaderSliceError::Len(error)) => {
            cut_header(payload, whole, protocol::TCP, error.required_len)
        }
    }
}

#[inline]
fn udp(payload: &[u8], whole: bool) -> Result<Transport, InnerError> {
    let available = payload.len();
    let Ok(header) = UdpHeaderSlice::from_slice(payload) else {
        return cut_header(payload, whole, protocol::UDP, UdpHeader::LEN);
    };
    let length = usize::from(header.length());
    if length < UdpHeader::LEN || (whole && length > available) {
        return Err(InnerError::UdpLength { length, available });
    }
    Ok(Transport::Udp { src: header.source_port(), dst: header.destination_port() })
}

/// A packet that ends within its TCP or UDP header, as only a first fragment may.
#[cold]
fn cut_header(
    payload: &[u8],
    whole: bool,
    protocol: u8,
    needed: usize,
) -> Result<Transport, InnerError> {
    if whole {
        Err(InnerError::TransportTruncated { protocol, needed, available: payload.len() })
    } else {
        Ok(ports_only(payload))
    }
}

fn ports_only(payload: &[u8]) -> Transport {
    match *payload {
        [a, b, c, d, ..] => Transport::PortsOnly {
            src: u16::from_be_bytes([a, b]),
            dst: u16::from_be_bytes([c, d]),
        },
        _ => Transport::None,
    }
}

/// ICMP of either version: an error if `kind` says so and the quoted packet can be read.
#[inline(never)]
fn icmp(network: Network, message: &[u8], kind: fn([u8; 8]) -> Option<IcmpErrorKind>) -> Inner {
    let error = message.split_first_chunk::<8>().and_then(|(header, quote)| {
        let kind = kind(*header)?;
        Some(Transport::IcmpError { kind, about: quoted_key(quote)? })
    });
    Inner::new(network, error.unwrap_or(Transport::Other))
}

/// The flow of a packet whose start is quoted. RFC 792 promises the IP header and eight bytes.
pub(super) fn quoted_key(quote: &[u8]) -> Option<FlowKey> {
    let key = network::parse(quote, Extent::Quoted, |network| {
        let transport = match (network.fragment, network.protocol) {
            (Fragment::Later { .. }, _) => Transport::None,
            (_, protocol::TCP | protocol::UDP) => {
                ports_only(&quote[network.header_len..network.total_len])
            }
            _ => Transport::Other,
        };
        let inner = Inner::new(network, transport);
        Ok(inner.ported_key().unwrap_or_else(|| inner.flow_key()))
    });
    key.ok()
}

/// RFC 792: the types that quote a packet.
fn icmp_kind(header: [u8; 8]) -> Option<IcmpErrorKind> {
    let [kind, code, .., high, low] = header;
    Some(match (kind, code) {
        // RFC 1191 §4: the next hop's MTU is in the low 16 bits of the second word.
        (3, 4) => IcmpErrorKind::TooBig { mtu: u16::from_be_bytes([high, low]).into() },
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
    let [kind, code, _, _, mtu @ ..] = header;
    Some(match kind {
        1 => IcmpErrorKind::Unreachable { code },
        2 => IcmpErrorKind::TooBig { mtu: u32::from_be_bytes(mtu) },
        3 => IcmpErrorKind::TimeExceeded { code },
        4 => IcmpErrorKind::ParameterProblem { code },
        128.. => return None,
        _ => IcmpErrorKind::Other { kind, code },
    })
}
