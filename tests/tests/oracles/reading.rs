//! What is read in a packet, in the same words whoever reads it: one text for each field.

use std::collections::{BTreeMap, BTreeSet};

use geneve::checksum::{self, Integrity};
use geneve::inner::IcmpErrorKind;
use geneve::{Fragment, Header, Inner, IpVersion, PORT, Transport, protocol};
use gwlb_tests::corpus;

/// Field and value. The fields of the packet as it is on the wire begin with `outer.`, those of
/// the packet inside Geneve with `inner.`.
pub type Reading = BTreeMap<String, String>;

/// Said in place of a field where an upper layer's checksum cannot be known, with the reason.
const UNJUDGED: &str = "unjudged";

/// What we read.
pub fn ours(packet: &[u8]) -> Reading {
    let mut reading = Reading::new();
    let Ok(outer) = Inner::parse(packet) else {
        reading.insert("refused".to_owned(), "outer".to_owned());
        return reading;
    };
    ip("outer", &outer, packet, &mut reading);
    let Transport::Udp { dst: PORT, .. } = outer.transport else { return reading };
    let Ok((_, payload)) = geneve::outer::parse(packet) else { return reading };
    let datagram = &packet[payload];
    let Ok((header, _)) = Header::parse(datagram) else {
        reading.insert("refused".to_owned(), "geneve".to_owned());
        return reading;
    };
    geneve(&header, &mut reading);
    let Some(packet) = corpus::inner_packet(datagram) else { return reading };
    match Inner::parse(&packet) {
        Ok(inner) => ip("inner", &inner, &packet, &mut reading),
        Err(_) => drop(reading.insert("refused".to_owned(), "inner".to_owned())),
    }
    reading
}

fn geneve(header: &Header<'_>, reading: &mut Reading) {
    let mut put = |name: &str, value: String| reading.insert(format!("geneve.{name}"), value);
    put("version", "0".to_owned());
    put("options_len", (header.len() - 8).to_string());
    put("control", u8::from(header.is_control()).to_string());
    put("critical", u8::from(header.is_critical()).to_string());
    put("protocol", format!("{:04x}", header.protocol().get()));
    put("vni", header.vni().get().to_string());
    for (number, option) in header.options().enumerate() {
        let (class, kind, words) = (option.class.get(), option.kind.get(), option.data.len() / 4);
        let data = hexadecimal(option.data);
        put(&format!("option {number}"), format!("{class:04x} {kind:02x} {words} {data}"));
    }
}

fn ip(which: &str, ip: &Inner, packet: &[u8], reading: &mut Reading) {
    let mut put = |name: &str, value: String| reading.insert(format!("{which}.{name}"), value);
    put("version", (ip.version as u8).to_string());
    put("src", ip.src.to_string());
    put("dst", ip.dst.to_string());
    put("protocol", ip.protocol.to_string());
    put("header_len", ip.header_len.to_string());
    put("total_len", ip.total_len.to_string());
    put("tos", ip.tos.to_string());
    put("ttl", ip.ttl.to_string());
    put("fragment", fragment(ip));
    if ip.version == IpVersion::V4 {
        put("dont_fragment", u8::from(ip.dont_fragment).to_string());
        let right = checksum::of(&packet[..ip.header_len]) == 0;
        put("header_sum", if right { "good" } else { "bad" }.to_owned());
    }
    if let Some((src, dst)) = ip.ports() {
        put("ports", format!("{src} {dst}"));
    }
    if let Transport::Tcp { flags, header_len, .. } = ip.transport {
        put("tcp", format!("flags {:02x} header {header_len}", flags.0));
    }
    // Of an error that is not known nobody else would look for the quote.
    if let Transport::IcmpError { kind, about } = ip.transport
        && !matches!(kind, IcmpErrorKind::Other { .. })
    {
        put("icmp_error", icmp(ip.version, kind));
        let ports = format!("{} {}", about.src_port(), about.dst_port());
        put("about", format!("{} {} {ports}", about.src(), about.dst()));
    }
    if let Some(sum) = upper_sum(ip, packet) {
        put("upper_sum", sum.to_owned());
    }
    if let Some(reason) = unjudged(ip, packet) {
        put(UNJUDGED, reason.to_owned());
    }
}

fn fragment(ip: &Inner) -> String {
    match ip.fragment {
        Fragment::Whole => "whole".to_owned(),
        Fragment::First { id } => format!("{id} at 0"),
        Fragment::Later { id, offset } => format!("{id} at {}", usize::from(offset) * 8),
    }
}

/// What the upper layer's checksum is worth. A 0 for none is legal over IPv4 and to be judged by
/// the receiver over IPv6 (RFC 6935); that it is 0 is what everybody reads.
fn upper_sum(ip: &Inner, packet: &[u8]) -> Option<&'static str> {
    // Where the IPv4 header is wrong, `verify` says so and no more; the upper layer does not
    // depend on it.
    let mut packet = packet[..ip.total_len].to_vec();
    if ip.version == IpVersion::V4 {
        packet[10..12].fill(0);
        let sum = checksum::of(&packet[..ip.header_len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let udp = ip.protocol == protocol::UDP && ip.fragment == Fragment::Whole;
    match checksum::verify(ip, &packet) {
        Integrity::Unknown => None,
        Integrity::Absent => Some("zero"),
        Integrity::Invalid if udp && packet[ip.header_len + 6..][..2] == [0, 0] => Some("zero"),
        Integrity::Invalid => Some("bad"),
        Integrity::Valid => Some("good"),
    }
}

/// Why an upper layer's checksum is not to be judged, if it is not. It is read here once more and in
/// another way: otherwise one that we only fail to judge would not be missed.
fn unjudged(ip: &Inner, packet: &[u8]) -> Option<&'static str> {
    let upper = &packet[ip.header_len..ip.total_len];
    let len = upper.len();
    let there = match (ip.version, ip.protocol) {
        _ if ip.fragment != Fragment::Whole => return Some("fragment"),
        (_, protocol::TCP) => len >= 20,
        (_, protocol::UDP) => {
            len >= 8 && (8..=len).contains(&usize::from(u16::from_be_bytes([upper[4], upper[5]])))
        }
        (IpVersion::V4, protocol::ICMP) | (IpVersion::V6, protocol::ICMPV6) => len >= 4,
        _ => return Some("protocol"),
    };
    if !there {
        return Some("length");
    }
    readdressed(ip.version, &packet[..ip.header_len]).then_some("readdressed")
}

/// Whether a source route leads on from the destination (RFC 791, RFC 8200 section 4.4), or a home
/// address stands for the source (RFC 6275 section 6.3).
fn readdressed(version: IpVersion, header: &[u8]) -> bool {
    if version == IpVersion::V4 {
        let mut rest = &header[20..];
        loop {
            match *rest {
                [131 | 137, len, pointer, ..] if pointer <= len => return true,
                [1, ..] => rest = &rest[1..],
                [2..=255, len @ 2..=255, ..] => rest = rest.get(usize::from(len)..).unwrap_or(&[]),
                _ => return false,
            }
        }
    }
    let (mut next, mut at) = (header[6], 40);
    while at < header.len() {
        let extension = &header[at..];
        let words = usize::from(extension[1]);
        let len = match next {
            44 => 8,
            51 => (words + 2) * 4,
            _ => (words + 1) * 8,
        };
        let found = match next {
            43 => extension[3] != 0,
            60 => {
                let mut rest = &extension[2..len];
                loop {
                    match *rest {
                        [0xc9, ..] => break true,
                        [0, ..] => rest = &rest[1..],
                        [_, len, ..] => rest = rest.get(2 + usize::from(len)..).unwrap_or(&[]),
                        _ => break false,
                    }
                }
            }
            _ => false,
        };
        if found {
            return true;
        }
        (next, at) = (extension[0], at + len);
    }
    false
}

/// Type, and the MTU that a packet was too big for.
fn icmp(version: IpVersion, kind: IcmpErrorKind) -> String {
    let of = |four: u8, six: u8| match version {
        IpVersion::V4 => four.to_string(),
        IpVersion::V6 => six.to_string(),
    };
    match kind {
        IcmpErrorKind::Unreachable { .. } => of(3, 1),
        IcmpErrorKind::TooBig { mtu } => format!("{} mtu {mtu}", of(3, 2)),
        IcmpErrorKind::TimeExceeded { .. } => of(11, 3),
        IcmpErrorKind::ParameterProblem { .. } => of(12, 4),
        IcmpErrorKind::Redirect { .. } => of(5, 0),
        IcmpErrorKind::SourceQuench => of(4, 0),
        IcmpErrorKind::Other { kind, .. } => kind.to_string(),
    }
}

pub fn hexadecimal(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// Whether it is read in the packet, and not said of our reading.
pub fn is_field(name: &str) -> bool {
    name != "refused" && !name.ends_with(UNJUDGED)
}

/// Every field that two do not read alike. What we do not judge, nobody else has to leave alone:
/// a checksum that cannot be known ([`UNJUDGED`]), and what is inside of something that we refuse.
pub fn differences(ours: &Reading, theirs: &Reading) -> Vec<String> {
    let refused = ours.contains_key("refused");
    let known = ours.keys().filter(|field| is_field(field));
    let left_out = |field: &str| {
        let which = field.strip_suffix("upper_sum");
        which.is_some_and(|which| ours.contains_key(&format!("{which}{UNJUDGED}")))
    };
    let more = theirs.keys().filter(|field| is_field(field) && !refused && !left_out(field));
    let fields: BTreeSet<_> = known.chain(more).collect();
    // What is behind the ports of a TCP header that is cut, we leave to the appliance.
    let cut = |field: &&String| {
        field.strip_suffix("tcp").is_some_and(|which| {
            let fragment = ours.get(&format!("{which}fragment"));
            !ours.contains_key(*field) && fragment.is_some_and(|it| it.ends_with("at 0"))
        })
    };
    let differ = |field: &&String| ours.get(*field) != theirs.get(*field);
    let value = |of: &Reading, field: &String| of.get(field).cloned().unwrap_or_default();
    let say = |field: &String| {
        format!("{field}: we read {:?}, they read {:?}", value(ours, field), value(theirs, field))
    };
    fields.into_iter().filter(differ).filter(|field| !cut(field)).map(say).collect()
}
