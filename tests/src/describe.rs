//! Says in one line what a packet is, for failure messages and listings.
//!
//! It looks into Geneve on port 6081, of every dialect. It judges nothing: bytes that are no packet
//! are described as such.

use std::fmt::Write as _;

use etherparse::{TcpHeader, TcpOptionElement};
use geneve::{
    Dialect, Fragment, Header, IcmpErrorKind, Inner, IpVersion, PORT, Tags, TcpFlags, Transport,
    outer, protocol,
};

/// One line about an IP packet; about the outer one and the inner one if it carries Geneve.
pub fn describe(packet: &[u8]) -> String {
    if let Ok((outer, payload)) = outer::parse(packet)
        && outer.dst.port() == PORT
    {
        return format!("{} > {}  {}", outer.src, outer.dst, datagram(&packet[payload]));
    }
    ip(packet)
}

/// One line about a Geneve header and the packet behind it.
pub fn datagram(bytes: &[u8]) -> String {
    match Header::parse(bytes) {
        Ok((header, payload)) => format!("{} | {}", geneve(&header), ip(payload)),
        Err(error) => format!("no Geneve: {error}"),
    }
}

fn geneve(header: &Header<'_>) -> String {
    let mut text = match Dialect::ALL
        .iter()
        .find_map(|dialect| Some((dialect, tags(dialect, header)?)))
    {
        Some((dialect, tags)) => {
            format!("{} endpoint {:016x} cookie {:08x}", dialect.name(), tags.endpoint, tags.cookie)
        }
        None => format!("Geneve, {} bytes of another dialect", header.len()),
    };
    if header.is_control() {
        text.push_str(" O");
    }
    if header.is_critical() {
        text.push_str(" C");
    }
    text
}

fn tags(dialect: &Dialect, header: &Header<'_>) -> Option<Tags> {
    dialect.read(header).ok()
}

fn ip(packet: &[u8]) -> String {
    let inner = match Inner::parse(packet) {
        Ok(inner) => inner,
        Err(error) => return format!("no packet, {} bytes: {error}", packet.len()),
    };
    let mut text = String::new();
    match inner.ports() {
        Some((src, dst)) => {
            let socket = |ip, port| std::net::SocketAddr::new(ip, port);
            let _ = write!(text, "{} > {}", socket(inner.src, src), socket(inner.dst, dst));
        }
        None => {
            let _ = write!(text, "{} > {}", inner.src, inner.dst);
        }
    }
    let _ = write!(text, " {}", upper(&inner, packet));
    match inner.fragment {
        Fragment::Whole => {}
        Fragment::First { id } => {
            let _ = write!(text, " fragment {id} first");
        }
        Fragment::Later { id, offset } => {
            let _ = write!(text, " fragment {id} at {}", usize::from(offset) * 8);
        }
    }
    if inner.header_len > inner.version.header_len() {
        let _ = write!(text, ", {} bytes of headers", inner.header_len);
    }
    let _ = write!(text, ", {} bytes", inner.total_len);
    if packet.len() > inner.total_len {
        let _ = write!(text, " and {} behind", packet.len() - inner.total_len);
    }
    text
}

fn upper(inner: &Inner, packet: &[u8]) -> String {
    match inner.transport {
        Transport::Tcp { flags, .. } => {
            let sequence = packet.get(inner.header_len + 4..).and_then(<[u8]>::first_chunk);
            let sequence = u32::from_be_bytes(*sequence.unwrap_or(&[0; 4]));
            let mut text = format!("TCP {} {sequence}", flag_names(flags));
            if let Some(mss) = packet.get(inner.header_len..).and_then(mss) {
                let _ = write!(text, " MSS {mss}");
            }
            text
        }
        Transport::IcmpError { kind, about } => {
            format!("ICMP {} about {about}", icmp_error(kind))
        }
        transport => match (inner.version, inner.protocol) {
            (_, protocol::TCP) => "TCP".to_owned(),
            (_, protocol::UDP) => "UDP".to_owned(),
            (IpVersion::V4, protocol::ICMP) | (IpVersion::V6, protocol::ICMPV6) => {
                match packet.get(inner.header_len) {
                    Some(kind) if transport != Transport::None => format!("ICMP type {kind}"),
                    _ => "ICMP".to_owned(),
                }
            }
            (_, number) => format!("protocol {number}"),
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
    let set: Vec<_> =
        names.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect();
    set.join("+")
}

/// The largest segment that the options of a TCP header state.
fn mss(segment: &[u8]) -> Option<u16> {
    let (tcp, _) = TcpHeader::from_slice(segment).ok()?;
    let mut options = tcp.options_iterator().map_while(Result::ok);
    options.find_map(|option| match option {
        TcpOptionElement::MaximumSegmentSize(mss) => Some(mss),
        _ => None,
    })
}

fn icmp_error(kind: IcmpErrorKind) -> String {
    match kind {
        IcmpErrorKind::Unreachable { code } => format!("unreachable ({code})"),
        IcmpErrorKind::TooBig { mtu } => format!("too big, MTU {mtu}"),
        IcmpErrorKind::TimeExceeded { code } => format!("time exceeded ({code})"),
        IcmpErrorKind::ParameterProblem { code } => format!("parameter problem ({code})"),
        IcmpErrorKind::Redirect { code } => format!("redirect ({code})"),
        IcmpErrorKind::SourceQuench => "source quench".to_owned(),
        IcmpErrorKind::Other { kind, code } => format!("type {kind} ({code})"),
    }
}

#[cfg(test)]
mod tests {
    use geneve::outer::{OuterHeader, UdpChecksum};
    use geneve::{PacketBuf, ProtocolType};

    use super::*;
    use crate::packets::{Ip, Problem, Tcp, fragments};

    #[test]
    fn inner_and_outer_are_told() {
        let ip = Ip::new("203.0.113.7", "10.0.1.11");
        let packet = ip.tcp((1000, 80), Tcp::SYN_ACK, &[]);
        let line = "203.0.113.7:1000 > 10.0.1.11:80 TCP SYN+ACK 4999999, 40 bytes";
        let said = describe(&ip.tcp((1000, 80), Tcp::SYN_ACK.mss(1400), &[]));
        assert!(said.ends_with("TCP SYN+ACK 4999999 MSS 1400, 44 bytes"), "{said}");
        assert_eq!(describe(&packet), line);

        let mut buffer = PacketBuf::from_slice(&packet);
        let tags = Tags { endpoint: 0xabc, attachment: 0, cookie: 0x123 };
        let header = buffer.prepend(Dialect::GOOGLE.header_len()).unwrap();
        Dialect::GOOGLE.write(&tags, ProtocolType::IPV4, header).unwrap();
        let outer = OuterHeader {
            src: "192.0.2.1:61000".parse().unwrap(),
            dst: "192.0.2.11:6081".parse().unwrap(),
            ttl: 64,
            tos: 0,
            dont_fragment: false,
            id: 0,
            checksum: UdpChecksum::On,
        };
        outer::encapsulate(&outer, &mut buffer).unwrap();
        let expected = format!(
            "192.0.2.1:61000 > 192.0.2.11:6081  google endpoint 0000000000000abc cookie 00000123 \
             | {line}"
        );
        assert_eq!(describe(&buffer), expected);
    }

    #[test]
    fn oddities_are_told() {
        let ip = Ip::new("2001:db8::1", "fd00::2");
        let packet = ip.udp((1, 2), &[0; 100]);
        let [first, later] = fragments(&packet, 7, 64).try_into().unwrap();
        let error = ip.reversed().icmp_error(Problem::TooBig(1300), &packet, 60);
        let padded = [&packet[..], &[0; 3]].concat();
        for (packet, expected) in [
            (&first, "[2001:db8::1]:1 > [fd00::2]:2 UDP fragment 7 first"),
            (&later, "2001:db8::1 > fd00::2 UDP fragment 7 at 64"),
            (&error, "too big, MTU 1300 about protocol 17 [2001:db8::1]:1 > [fd00::2]:2"),
            (&padded, "148 bytes and 3 behind"),
            (&vec![0x45, 0], "no packet, 2 bytes"),
        ] {
            assert!(describe(packet).contains(expected), "{}", describe(packet));
        }
    }
}
