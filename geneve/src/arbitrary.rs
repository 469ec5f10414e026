//! Generators of valid values for property tests, here and in other crates (feature `proptest`).
//!
//! [`packet`] makes a packet together with the [`Inner`] that it must be read as, put together
//! without the parser. Shrinking works throughout. Nothing here is meant for use outside tests.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use crate::checksum;
use crate::flow::FlowKey;
use crate::header::{ProtocolType, Vni};
use crate::inner::{Fragment, IcmpErrorKind, Inner, IpVersion, TcpFlags, Transport, protocol};
use crate::options::{GeneveOption, OptionClass, OptionType};
use crate::{Dialect, Tags};

/// Any virtual network identifier.
pub fn vni() -> impl Strategy<Value = Vni> {
    (0..=Vni::MAX.get()).prop_filter_map("24 bits", |vni| Vni::new(vni).ok())
}

/// Any payload type; the three that matter more often than others.
pub fn protocol_type() -> impl Strategy<Value = ProtocolType> {
    prop_oneof![
        Just(ProtocolType::IPV4),
        Just(ProtocolType::IPV6),
        Just(ProtocolType::ETHERNET),
        any::<u16>().prop_map(ProtocolType::new),
    ]
}

/// An option that owns its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedOption {
    /// Its class.
    pub class: OptionClass,
    /// Its type.
    pub kind: OptionType,
    /// Its data: a multiple of four bytes.
    pub data: Vec<u8>,
}

impl OwnedOption {
    /// The same as a view.
    pub fn view(&self) -> GeneveOption<'_> {
        GeneveOption { class: self.class, kind: self.kind, data: &self.data }
    }
}

/// Up to seven options, which always fit one header together.
pub fn options() -> impl Strategy<Value = Vec<OwnedOption>> {
    let data = (0..=8_usize).prop_flat_map(|words| prop::collection::vec(any::<u8>(), words * 4));
    let option = (any::<u16>(), any::<u8>(), data).prop_map(|(class, kind, data)| OwnedOption {
        class: OptionClass::new(class),
        kind: OptionType::new(kind),
        data,
    });
    prop::collection::vec(option, 0..=7)
}

/// Any tags.
pub fn tags() -> impl Strategy<Value = Tags> {
    (any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(endpoint, attachment, cookie)| Tags {
        endpoint,
        attachment,
        cookie,
    })
}

/// Any dialect.
pub fn dialect() -> impl Strategy<Value = &'static Dialect> {
    prop::sample::select(Dialect::ALL.iter().collect::<Vec<_>>())
}

/// Either version of IP.
pub fn ip_version() -> impl Strategy<Value = IpVersion> {
    prop_oneof![Just(IpVersion::V4), Just(IpVersion::V6)]
}

/// An address of this version.
pub fn address(version: IpVersion) -> BoxedStrategy<IpAddr> {
    match version {
        IpVersion::V4 => any::<[u8; 4]>().prop_map(IpAddr::from).boxed(),
        IpVersion::V6 => any::<[u8; 16]>().prop_map(IpAddr::from).boxed(),
    }
}

/// Two sockets of one version.
pub fn socket_pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    ip_version().prop_flat_map(|version| {
        let socket =
            || (address(version), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port));
        (socket(), socket())
    })
}

/// Any flow.
pub fn flow_key() -> impl Strategy<Value = FlowKey> {
    (socket_pair(), any::<u8>()).prop_filter_map("one version", |((src, dst), protocol)| {
        FlowKey::new(src, dst, protocol).ok()
    })
}

/// A packet, and what it must be read as.
#[derive(Debug, Clone)]
pub struct ValidPacket {
    /// The packet, and nothing behind it.
    pub bytes: Vec<u8>,
    /// What [`Inner::parse`] must say of it.
    pub inner: Inner,
}

/// A valid packet of either version: options, extension headers, fragments, TCP, UDP, ICMP errors
/// and other protocols, with right checksums.
pub fn packet() -> impl Strategy<Value = ValidPacket> {
    ip_version().prop_flat_map(packet_of)
}

/// A valid packet of this version, as [`packet`] makes them.
pub fn packet_of(version: IpVersion) -> impl Strategy<Value = ValidPacket> {
    let upper = prop_oneof![3 => plain(version), 1 => icmp_error(version)];
    (network(version), upper, split())
        .prop_map(|(network, upper, split)| assemble(&network, &upper, split))
}

/// A whole TCP or UDP packet of this version without options and extension headers.
pub fn simple_packet_of(version: IpVersion) -> impl Strategy<Value = ValidPacket> {
    let upper = prop_oneof![tcp(), udp()];
    (network(version), upper).prop_map(|(network, upper)| {
        let network = Network { ipv4_options: Vec::new(), extensions: Vec::new(), ..network };
        assemble(&network, &upper, Split::None)
    })
}

/// The fields of the IP header.
#[derive(Debug, Clone)]
struct Network {
    version: IpVersion,
    src: IpAddr,
    dst: IpAddr,
    tos: u8,
    ttl: u8,
    id: u32,
    dont_fragment: bool,
    ipv4_options: Vec<u8>,
    extensions: Vec<Extension>,
}

/// An IPv6 extension header other than the fragment header.
#[derive(Debug, Clone, Copy)]
enum Extension {
    HopByHop { words: u8 },
    Destination { words: u8 },
    Routing { words: u8, segments_left: u8 },
    Authentication,
}

impl Extension {
    fn kind(self) -> u8 {
        match self {
            Extension::HopByHop { .. } => 0,
            Extension::Destination { .. } => 60,
            Extension::Routing { .. } => 43,
            Extension::Authentication => 51,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        let (len, units) = match self {
            Extension::HopByHop { words }
            | Extension::Destination { words }
            | Extension::Routing { words, .. } => (8 * (usize::from(words) + 1), words),
            Extension::Authentication => (16, 2),
        };
        let mut bytes = vec![0; len];
        bytes[0] = next;
        bytes[1] = units;
        if let Extension::Routing { segments_left, .. } = self {
            bytes[3] = segments_left;
        }
        bytes
    }
}

/// How a packet is cut.
#[derive(Debug, Clone, Copy)]
enum Split {
    None,
    /// IPv6: a fragment header that fragments nothing.
    Atomic,
    /// The first so many bytes of the upper layer.
    First(usize),
    Later(u16),
}

/// The upper layer of an unfragmented packet.
#[derive(Debug, Clone)]
struct Upper {
    protocol: u8,
    bytes: Vec<u8>,
    transport: Transport,
}

fn network(version: IpVersion) -> impl Strategy<Value = Network> {
    let extension = prop_oneof![
        (0..3_u8).prop_map(|words| Extension::Destination { words }),
        // Of type 0 (RFC 2460 section 4.4): two words for each hop, of which none or one is left.
        (0..2_u8, 0..2_u8).prop_map(|(hops, left)| Extension::Routing {
            words: 2 * hops,
            segments_left: left.min(hops),
        }),
        Just(Extension::Authentication),
    ];
    let hop_by_hop = prop::option::of((0..3_u8).prop_map(|words| Extension::HopByHop { words }));
    let extensions = (hop_by_hop, prop::collection::vec(extension, 0..4))
        .prop_map(|(first, others)| first.into_iter().chain(others).collect());
    (
        (address(version), address(version)),
        (any::<u8>(), any::<u8>(), any::<u32>(), any::<bool>()),
        ipv4_options(),
        prop_oneof![Just(Vec::new()), extensions],
    )
        .prop_map(
            move |((src, dst), (tos, ttl, id, dont_fragment), ipv4_options, extensions)| Network {
                version,
                src,
                dst,
                tos,
                ttl,
                id,
                dont_fragment,
                ipv4_options,
                extensions,
            },
        )
}

/// None, some that do nothing, or a source route with one hop: left to go, or done.
fn ipv4_options() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => Just(Vec::new()),
        1 => (1..=10_usize).prop_map(|words| vec![1; words * 4]),
        1 => Just(vec![131, 7, 4, 192, 0, 2, 1, 0]),
        1 => Just(vec![1, 137, 7, 8, 192, 0, 2, 1]),
    ]
}

fn split() -> impl Strategy<Value = Split> {
    prop_oneof![
        6 => Just(Split::None),
        1 => Just(Split::Atomic),
        1 => (0..64_usize).prop_map(Split::First),
        1 => (1..0x2000_u16).prop_map(Split::Later),
    ]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

fn plain(version: IpVersion) -> BoxedStrategy<Upper> {
    prop_oneof![3 => tcp(), 3 => udp(), 1 => echo(version), 1 => other()].boxed()
}

fn tcp() -> BoxedStrategy<Upper> {
    (any::<[u16; 2]>(), any::<[u8; 13]>(), 0..=10_usize, payload())
        .prop_map(|([src, dst], fill, option_words, payload)| {
            let header_len = 20 + option_words * 4;
            let mut bytes = ports(src, dst);
            bytes.extend_from_slice(&fill[..8]);
            bytes.extend_from_slice(&[(header_len as u8 / 4) << 4, fill[8], 0, 0, 0, 0, 0, 0]);
            bytes.resize(header_len, 1);
            bytes.extend(payload);
            let flags = TcpFlags(fill[8]);
            let transport = Transport::Tcp { src, dst, flags, header_len };
            Upper { protocol: protocol::TCP, bytes, transport }
        })
        .boxed()
}

fn udp() -> BoxedStrategy<Upper> {
    (any::<[u16; 2]>(), payload())
        .prop_map(|([src, dst], payload)| {
            let mut bytes = ports(src, dst);
            bytes.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
            bytes.extend_from_slice(&[0, 0]);
            bytes.extend(payload);
            Upper { protocol: protocol::UDP, bytes, transport: Transport::Udp { src, dst } }
        })
        .boxed()
}

fn echo(version: IpVersion) -> BoxedStrategy<Upper> {
    (any::<[u8; 4]>(), payload())
        .prop_map(move |(id, payload)| {
            let (protocol, kind) = match version {
                IpVersion::V4 => (protocol::ICMP, 8),
                IpVersion::V6 => (protocol::ICMPV6, 128),
            };
            let mut bytes = vec![kind, 0, 0, 0];
            bytes.extend(id);
            bytes.extend(payload);
            Upper { protocol, bytes, transport: Transport::Other }
        })
        .boxed()
}

/// A protocol that says nothing to this crate: SCTP, GRE, ESP, or one that is nobody's.
fn other() -> BoxedStrategy<Upper> {
    (prop::sample::select(&[132_u8, 47, 50, 253][..]), payload())
        .prop_map(|(protocol, bytes)| Upper { protocol, bytes, transport: Transport::Other })
        .boxed()
}

/// An error that quotes the start of a packet, its first eight bytes of upper layer at the least.
fn icmp_error(version: IpVersion) -> BoxedStrategy<Upper> {
    let kinds = match version {
        IpVersion::V4 => vec![
            (3, 1, IcmpErrorKind::Unreachable { code: 1 }),
            (3, 4, IcmpErrorKind::TooBig { mtu: 1400 }),
            (4, 0, IcmpErrorKind::SourceQuench),
            (5, 1, IcmpErrorKind::Redirect { code: 1 }),
            (11, 0, IcmpErrorKind::TimeExceeded { code: 0 }),
            (12, 2, IcmpErrorKind::ParameterProblem { code: 2 }),
        ],
        IpVersion::V6 => vec![
            (1, 4, IcmpErrorKind::Unreachable { code: 4 }),
            (2, 0, IcmpErrorKind::TooBig { mtu: 1400 }),
            (3, 1, IcmpErrorKind::TimeExceeded { code: 1 }),
            (4, 2, IcmpErrorKind::ParameterProblem { code: 2 }),
            (127, 9, IcmpErrorKind::Other { kind: 127, code: 9 }),
        ],
    };
    let quoted = (network(version), plain(version), split())
        .prop_map(|(network, upper, split)| assemble(&network, &upper, split));
    (prop::sample::select(kinds), quoted, 8..100_usize)
        .prop_map(move |((kind, code, what), quoted, keep)| {
            let protocol = match version {
                IpVersion::V4 => protocol::ICMP,
                IpVersion::V6 => protocol::ICMPV6,
            };
            let mut bytes = vec![kind, code, 0, 0, 0, 0, 0, 0];
            bytes[6..].copy_from_slice(&1400_u16.to_be_bytes());
            let quote = quoted.bytes.len().min(quoted.inner.header_len + keep);
            bytes.extend_from_slice(&quoted.bytes[..quote]);
            let about = quoted.inner.ported_key().unwrap_or_else(|| quoted.inner.flow_key());
            Upper { protocol, bytes, transport: Transport::IcmpError { kind: what, about } }
        })
        .boxed()
}

fn ports(src: u16, dst: u16) -> Vec<u8> {
    [src.to_be_bytes(), dst.to_be_bytes()].concat()
}

/// Puts a packet together, checksums included, and says what it is.
fn assemble(network: &Network, upper: &Upper, split: Split) -> ValidPacket {
    let id = match network.version {
        IpVersion::V4 => network.id & 0xffff,
        IpVersion::V6 => network.id,
    };
    let (fragment, kept, transport) = match split {
        Split::None | Split::Atomic => (Fragment::Whole, &upper.bytes[..], upper.transport),
        Split::First(len) => {
            let kept = &upper.bytes[..len.min(upper.bytes.len())];
            (Fragment::First { id }, kept, first_transport(upper.transport, kept.len()))
        }
        Split::Later(offset) => (Fragment::Later { id, offset }, &upper.bytes[..], Transport::None),
    };
    let mut bytes = match network.version {
        IpVersion::V4 => ipv4(network, upper.protocol, fragment, id),
        IpVersion::V6 => ipv6(network, upper.protocol, fragment, matches!(split, Split::Atomic)),
    };
    let header_len = bytes.len();
    bytes.extend_from_slice(kept);
    let total_len = bytes.len();
    match network.version {
        IpVersion::V4 => bytes[2..4].copy_from_slice(&(total_len as u16).to_be_bytes()),
        IpVersion::V6 => bytes[4..6].copy_from_slice(&((total_len - 40) as u16).to_be_bytes()),
    }
    let readdressed = match network.version {
        IpVersion::V4 => network.ipv4_options.first() == Some(&131),
        IpVersion::V6 => network
            .extensions
            .iter()
            .any(|extension| matches!(extension, Extension::Routing { segments_left: 1.., .. })),
    };
    let inner = Inner {
        version: network.version,
        src: network.src,
        dst: network.dst,
        protocol: upper.protocol,
        header_len,
        total_len,
        fragment,
        transport,
        tos: network.tos,
        ttl: network.ttl,
        dont_fragment: network.version == IpVersion::V6 || network.dont_fragment,
        flow_protocol: upper.protocol,
        readdressed,
    };
    checksum::complete(&inner, &mut bytes);
    ValidPacket { bytes, inner }
}

/// What can be told of the upper layer from a first fragment with so many bytes of it.
fn first_transport(whole: Transport, len: usize) -> Transport {
    match whole {
        Transport::Tcp { header_len, .. } if len >= header_len => whole,
        Transport::Udp { .. } if len >= 8 => whole,
        Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst } if len >= 4 => {
            Transport::PortsOnly { src, dst }
        }
        Transport::Tcp { .. } | Transport::Udp { .. } => Transport::None,
        _ => Transport::Other,
    }
}

fn ipv4(network: &Network, protocol: u8, fragment: Fragment, id: u32) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    bytes[0] = 0x45 + (network.ipv4_options.len() / 4) as u8;
    bytes[1] = network.tos;
    bytes[4..6].copy_from_slice(&(id as u16).to_be_bytes());
    let fragmentation = match fragment {
        Fragment::Whole => 0,
        Fragment::First { .. } => 0x2000,
        Fragment::Later { offset, .. } => offset,
    } | if network.dont_fragment { 0x4000 } else { 0 };
    bytes[6..8].copy_from_slice(&fragmentation.to_be_bytes());
    bytes[8] = network.ttl;
    bytes[9] = protocol;
    push_address(&mut bytes, network.src);
    push_address(&mut bytes, network.dst);
    bytes.extend_from_slice(&network.ipv4_options);
    bytes
}

/// The fragment header stands behind all others, where it belongs (RFC 8200 §4.5), but for
/// destination options, which come in either place elsewhere (see the tests of `inner`).
fn ipv6(network: &Network, protocol: u8, fragment: Fragment, atomic: bool) -> Vec<u8> {
    let fragment_header = match fragment {
        Fragment::Whole if !atomic => None,
        Fragment::Whole => Some(0),
        Fragment::First { .. } => Some(1),
        Fragment::Later { offset, .. } => Some(offset << 3 | 1),
    };
    let mut kinds: Vec<u8> = network.extensions.iter().map(|extension| extension.kind()).collect();
    kinds.extend(fragment_header.map(|_| 44));
    kinds.push(protocol);

    let mut bytes = vec![0x60 | network.tos >> 4, network.tos << 4, 0, 0, 0, 0];
    bytes.extend([kinds[0], network.ttl]);
    push_address(&mut bytes, network.src);
    push_address(&mut bytes, network.dst);
    for (extension, next) in network.extensions.iter().zip(&kinds[1..]) {
        bytes.extend(extension.bytes(*next));
    }
    if let Some(offset_and_more) = fragment_header {
        bytes.extend([protocol, 0]);
        bytes.extend(offset_and_more.to_be_bytes());
        bytes.extend(network.id.to_be_bytes());
    }
    bytes
}

fn push_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
}
