//! Bytes in words: packets in a line, headers field by field.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use geneve::dialect::Dialect;
use geneve::header::{BASE_LEN, Header};
use geneve::inner::{Fragment, IcmpErrorKind, Inner, IpVersion, TcpFlags, Transport, protocol};
use geneve::options::OPTION_HEADER_LEN;
use geneve::outer::UDP_LEN;
use serde::Serialize;
use utoipa::ToSchema;

use crate::dataplane::encap::HOP_LIMIT;

/// A field of a header, or a few of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Line {
    /// The bytes in hexadecimal digits; empty where the kernel writes them.
    pub bytes: String,
    /// What they say.
    pub means: String,
}

/// A packet in one line.
pub fn describe(packet: &[u8]) -> String {
    let inner = match Inner::parse(packet) {
        Ok(inner) => inner,
        Err(error) => return format!("no packet, {} bytes: {error}", packet.len()),
    };
    let mut text = match inner.ports() {
        Some((source, destination)) => format!(
            "{} > {}",
            SocketAddr::new(inner.src, source),
            SocketAddr::new(inner.dst, destination)
        ),
        None => format!("{} > {}", inner.src, inner.dst),
    };
    let _ = write!(text, " {}", upper(&inner));
    let _ = match inner.fragment {
        Fragment::Whole => Ok(()),
        Fragment::First { id } => write!(text, ", first fragment of {id}"),
        Fragment::Later { id, offset } => {
            write!(text, ", fragment of {id} at byte {}", 8 * usize::from(offset))
        }
    };
    let _ = write!(text, ", {} bytes", inner.total_len);
    text
}

fn upper(inner: &Inner) -> String {
    match inner.transport {
        Transport::Tcp { flags, .. } => format!("TCP {}", flag_names(flags)),
        Transport::IcmpError { kind, about } => {
            format!("ICMP error ({}) about {about}", error_name(kind))
        }
        _ => match inner.flow_key().protocol() {
            protocol::TCP => "TCP".to_owned(),
            protocol::UDP => "UDP".to_owned(),
            protocol::ICMP => "ICMP".to_owned(),
            protocol::ICMPV6 => "ICMPv6".to_owned(),
            other => format!("protocol {other}"),
        },
    }
}

fn flag_names(flags: TcpFlags) -> String {
    let names = [
        (TcpFlags::SYN, "SYN"),
        (TcpFlags::FIN, "FIN"),
        (TcpFlags::RST, "RST"),
        (TcpFlags::PSH, "PSH"),
        (TcpFlags::ACK, "ACK"),
        (TcpFlags::URG, "URG"),
        (TcpFlags::ECE, "ECE"),
        (TcpFlags::CWR, "CWR"),
    ];
    let set = names.into_iter().filter(|(flag, _)| flags.contains(*flag));
    let set: Vec<_> = set.map(|(_, name)| name).collect();
    if set.is_empty() { "without flags".to_owned() } else { set.join("+") }
}

fn error_name(kind: IcmpErrorKind) -> String {
    match kind {
        IcmpErrorKind::Unreachable { code } => format!("unreachable, code {code}"),
        IcmpErrorKind::TooBig { mtu } => format!("too big for {mtu} bytes"),
        IcmpErrorKind::TimeExceeded { .. } => "time exceeded".to_owned(),
        IcmpErrorKind::ParameterProblem { .. } => "parameter problem".to_owned(),
        IcmpErrorKind::Redirect { .. } => "redirect".to_owned(),
        IcmpErrorKind::SourceQuench => "source quench".to_owned(),
        IcmpErrorKind::Other { kind, code } => format!("type {kind}, code {code}"),
    }
}

/// Hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of an outer packet.
pub(super) fn outer_len(target: IpAddr, datagram: &[u8]) -> usize {
    IpVersion::of(target).header_len() + UDP_LEN + datagram.len()
}

/// The outer headers, which the kernel writes.
pub(super) fn outer(
    source: IpAddr,
    port: Option<u16>,
    target: SocketAddr,
    datagram: &[u8],
) -> Vec<Line> {
    let version = if target.is_ipv4() { "IPv4" } else { "IPv6" };
    let length = outer_len(target.ip(), datagram);
    let limit = if target.is_ipv4() { "TTL" } else { "hop limit" };
    let port = port.map_or_else(|| "?".to_owned(), |port| port.to_string());
    let (udp, to) = (UDP_LEN + datagram.len(), target.port());
    [
        format!("{version} {source} > {}, {length} bytes, {limit} {HOP_LIMIT}", target.ip()),
        format!("UDP port {port} > {to}, {udp} bytes"),
    ]
    .map(|means| Line { bytes: String::new(), means })
    .into()
}

/// The Geneve header of a datagram with its options, as this dialect has them, if it is known.
pub(super) fn geneve(datagram: &[u8], dialect: Option<&Dialect>) -> Vec<Line> {
    let (header, _) = match Header::parse(datagram) {
        Ok(parsed) => parsed,
        Err(error) => {
            let start = &datagram[..datagram.len().min(BASE_LEN)];
            return vec![Line { bytes: hex(start), means: format!("no Geneve header: {error}") }];
        }
    };
    let bytes = header.as_bytes();
    let mut means = format!(
        "Geneve version 0, protocol {:#06x}, VNI {}, {} bytes of options",
        header.protocol().get(),
        header.vni().get(),
        header.len() - BASE_LEN,
    );
    if header.is_control() {
        means += ", control (O)";
    }
    if header.is_critical() {
        means += ", critical options (C)";
    }
    let mut lines = vec![Line { bytes: hex(&bytes[..BASE_LEN]), means }];
    let mut known = dialect.into_iter().chain(Dialect::ALL);
    let tags = known.find_map(|it| Some((it, it.read(&header).ok()?)));
    let (mut at, mut named) = (BASE_LEN, false);
    for option in header.options() {
        let end = at + OPTION_HEADER_LEN + option.data.len();
        let kind = option.kind.get();
        let mut means = format!("option class {}, type {kind}", option.class);
        if let Some((dialect, tags)) = &tags
            && option.class == dialect.class()
        {
            let number = option.data.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
            let cookie = dialect.cookie_at(&header) == Some(at + OPTION_HEADER_LEN);
            let _ = if cookie {
                write!(means, ": flow cookie {:08x}", tags.cookie)
            } else if number == tags.endpoint && !named {
                named = true;
                write!(means, ": endpoint {:016x}", tags.endpoint)
            } else if number == tags.attachment {
                write!(means, ": attachment {:016x}", tags.attachment)
            } else {
                Ok(())
            };
        }
        lines.push(Line { bytes: hex(bytes.get(at..end).unwrap_or_default()), means });
        at = end;
    }
    lines
}
