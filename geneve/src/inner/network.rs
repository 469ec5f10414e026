//! The IP layer: IPv4 with options, IPv6 with its chain of extension headers.
//!
//! `etherparse` reads each header; how they follow one another, and which lengths must agree, is
//! said here. One reader serves the packet itself and the packet that an ICMP error quotes, so that
//! both come to the same flow key: `etherparse`'s own walk goes on behind the fragment header of a
//! later fragment, where there is only data.

use std::net::IpAddr;

use etherparse::err::{ip_auth, ipv4, ipv6};
use etherparse::{
    IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice, ip_number,
};

use super::{Fragment, InnerError, IpVersion, MAX_EXTENSIONS};

/// The IP layer's part of an [`Inner`](super::Inner).
/// `header_len <= total_len` holds, and the packet has `total_len` bytes.
#[derive(Clone, Copy)]
pub(super) struct Network {
    pub(super) version: IpVersion,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: u8,
    pub(super) flow_protocol: u8,
    pub(super) header_len: usize,
    pub(super) total_len: usize,
    pub(super) fragment: Fragment,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) dont_fragment: bool,
    pub(super) readdressed: bool,
}

/// How much of the packet must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// Its headers: an ICMP error quotes only a packet's start, and some senders change the
    /// length field in the quote.
    Quoted,
}

/// Reads the IP layer of a packet and goes on with it.
///
/// It takes what comes next as an argument so that each version has a straight way to the end:
/// joined in between, they take twice the time, which goes into moving [`Network`] about.
#[inline]
pub(super) fn parse<T>(
    packet: &[u8],
    extent: Extent,
    next: impl Fn(Network) -> Result<T, InnerError>,
) -> Result<T, InnerError> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => next(ipv4(packet, extent)?),
        Some(6) => next(ipv6(packet, extent)?),
        Some(version) => Err(InnerError::Version(version)),
        None => Err(InnerError::Truncated { needed: 1, actual: 0 }),
    }
}

#[inline]
fn ipv4(packet: &[u8], extent: Extent) -> Result<Network, InnerError> {
    let header = Ipv4HeaderSlice::from_slice(packet).map_err(|error| match error {
        ipv4::HeaderSliceError::Len(error) => truncated(error.required_len, packet),
        ipv4::HeaderSliceError::Content(ipv4::HeaderError::UnexpectedVersion {
            version_number,
        }) => InnerError::Version(version_number),
        ipv4::HeaderSliceError::Content(ipv4::HeaderError::HeaderLengthSmallerThanHeader {
            ihl,
        }) => InnerError::HeaderLength(ihl),
    })?;
    let header_len = header.slice().len();
    let stated = usize::from(header.total_len());
    let total_len = match extent {
        Extent::Whole if stated == 0 => return Err(InnerError::NoTotalLength),
        Extent::Whole if stated < header_len => {
            return Err(InnerError::TotalLength { total: stated, header: header_len });
        }
        Extent::Whole => stated,
        Extent::Quoted if (header_len..packet.len()).contains(&stated) => stated,
        Extent::Quoted => packet.len(),
    };
    if total_len > packet.len() {
        return Err(truncated(total_len, packet));
    }
    Ok(Network {
        version: IpVersion::V4,
        src: header.source_addr().into(),
        dst: header.destination_addr().into(),
        protocol: header.protocol().0,
        flow_protocol: header.protocol().0,
        header_len,
        total_len,
        fragment: fragment(
            header.identification().into(),
            header.fragments_offset().value(),
            header.more_fragments(),
        ),
        tos: header.slice()[1],
        ttl: header.ttl(),
        dont_fragment: header.dont_fragment(),
        readdressed: header_len > IpVersion::V4.header_len() && source_route(header.options()),
    })
}

#[cold]
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

/// Whether an IPv6 destination options header holds a home address (RFC 6275 section 6.3).
#[cold]
fn has_home_address(header: &[u8]) -> bool {
    const PAD1: u8 = 0;
    const HOME_ADDRESS: u8 = 0xc9;
    let mut options = header.get(2..).unwrap_or_default();
    loop {
        options = match *options {
            [PAD1, ref rest @ ..] => rest,
            [HOME_ADDRESS, ..] => return true,
            [_, len, ref rest @ ..] => rest.get(usize::from(len)..).unwrap_or_default(),
            [] | [_] => return false,
        }
    }
}

#[inline]
fn ipv6(packet: &[u8], extent: Extent) -> Result<Network, InnerError> {
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|error| match error {
        ipv6::HeaderSliceError::Len(error) => truncated(error.required_len, packet),
        ipv6::HeaderSliceError::Content(ipv6::HeaderError::UnexpectedVersion {
            version_number,
        }) => InnerError::Version(version_number),
    })?;
    let payload_len = usize::from(header.payload_length());
    let stated = header.slice().len() + payload_len;
    let total_len = match extent {
        // RFC 2675 §3: a payload length of 0, and a hop-by-hop header that has the real one.
        Extent::Whole if payload_len == 0 && header.next_header() == ip_number::IPV6_HOP_BY_HOP => {
            return Err(InnerError::Jumbogram);
        }
        Extent::Whole => stated,
        Extent::Quoted if payload_len > 0 && stated < packet.len() => stated,
        Extent::Quoted => packet.len(),
    };
    let Some(whole) = packet.get(..total_len) else {
        return Err(truncated(total_len, packet));
    };
    let chain = extensions(whole, header.next_header())?;
    Ok(Network {
        version: IpVersion::V6,
        src: header.source_addr().into(),
        dst: header.destination_addr().into(),
        protocol: chain.protocol.0,
        flow_protocol: chain.flow_protocol.0,
        header_len: chain.end,
        total_len,
        fragment: chain.fragment,
        tos: header.traffic_class(),
        ttl: header.hop_limit(),
        dont_fragment: true,
        readdressed: chain.readdressed,
    })
}

/// What stands behind the extension headers.
struct Chain {
    protocol: IpNumber,
    flow_protocol: IpNumber,
    end: usize,
    fragment: Fragment,
    readdressed: bool,
}

/// Walks the extension headers of an IPv6 packet, of which the IPv6 header names the first.
///
/// ESP hides what follows it, and behind Mobility, HIP and Shim6 nothing follows in practice: these
/// are upper-layer protocols here.
#[inline]
fn extensions(packet: &[u8], first: IpNumber) -> Result<Chain, InnerError> {
    use ip_number::{AUTH, IPV6_DEST_OPTIONS, IPV6_FRAG, IPV6_HOP_BY_HOP, IPV6_ROUTE};

    let mut chain = Chain {
        protocol: first,
        flow_protocol: first,
        end: IpVersion::V6.header_len(),
        fragment: Fragment::Whole,
        readdressed: false,
    };
    let mut has_fragment_header = false;
    for position in 0..=MAX_EXTENSIONS {
        let offset = chain.end;
        let rest = &packet[offset..];
        let truncated = |kind: IpNumber, needed| InnerError::Extension {
            kind: kind.0,
            offset,
            needed,
            available: rest.len(),
        };
        match chain.protocol {
            // RFC 8200 §4.1: hop-by-hop options "are restricted to appear immediately after an
            // IPv6 header only".
            IPV6_HOP_BY_HOP if position > 0 => {
                return Err(InnerError::HopByHopNotFirst { offset });
            }
            kind @ (IPV6_HOP_BY_HOP | IPV6_DEST_OPTIONS | IPV6_ROUTE) => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest)
                    .map_err(|error| truncated(kind, error.required_len))?;
                // RFC 8200 §4.4: byte 3 of a routing header is "segments left".
                chain.readdressed |= kind == IPV6_ROUTE && header.slice()[3] != 0
                    || kind == IPV6_DEST_OPTIONS && has_home_address(header.slice());
                chain.protocol = header.next_header();
                chain.end += header.slice().len();
            }
            AUTH => {
                let header = IpAuthHeaderSlice::from_slice(rest).map_err(|error| match error {
                    ip_auth::HeaderSliceError::Len(error) => truncated(AUTH, error.required_len),
                    ip_auth::HeaderSliceError::Content(ip_auth::HeaderError::ZeroPayloadLen) => {
                        InnerError::AuthenticationLength { offset }
                    }
                })?;
                chain.protocol = header.next_header();
                chain.end += header.slice().len();
            }
            IPV6_FRAG if has_fragment_header => {
                return Err(InnerError::RepeatedFragment { offset });
            }
            IPV6_FRAG => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest)
                    .map_err(|error| truncated(IPV6_FRAG, error.required_len))?;
                has_fragment_header = true;
                chain.fragment = fragment(
                    header.identification(),
                    header.fragment_offset().value(),
                    header.more_fragments(),
                );
                chain.flow_protocol = header.next_header();
                chain.protocol = header.next_header();
                chain.end += header.slice().len();
                // What follows in a later fragment is the middle of something.
                if matches!(chain.fragment, Fragment::Later { .. }) {
                    return Ok(chain);
                }
            }
            upper => {
                if chain.fragment == Fragment::Whole {
                    chain.flow_protocol = upper;
                }
                return Ok(chain);
            }
        }
    }
    Err(InnerError::TooManyExtensions)
}

#[inline]
fn fragment(id: u32, offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First { id },
        (offset, _) => Fragment::Later { id, offset },
    }
}

fn truncated(needed: usize, packet: &[u8]) -> InnerError {
    InnerError::Truncated { needed, actual: packet.len() }
}
