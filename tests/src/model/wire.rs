//! Bytes: checksums, the size that TCP is told, fragments, answers. Everything is computed from
//! scratch, or read back and compared.

use std::net::IpAddr;

use geneve::checksum::{Integrity, verify};
use geneve::{Fragment, Inner, IpVersion, TcpFlags, Transport};

use super::flow::Word;
use super::{Clause, Wrong, hold};

/// The Internet checksum of some bytes, one part after the other; all but the last even.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or_default());
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// The checksum of a transport header and what follows it, pseudo-header included.
pub(super) fn transport_checksum(inner: &Inner, segment: &[u8]) -> u16 {
    let addresses = match (inner.src, inner.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => [src.octets(), dst.octets()].concat(),
        (IpAddr::V6(src), IpAddr::V6(dst)) => [src.octets(), dst.octets()].concat(),
        _ => Vec::new(),
    };
    let len = (segment.len() as u32).to_be_bytes();
    checksum(&[&addresses, &len, &[0, inner.protocol], segment])
}

pub(super) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The largest segment that TCP is to be told of in packets of `mtu` bytes (RFC 6691 section 2),
/// and never less than every host takes (RFC 9293 section 3.7.1).
fn segment_size(version: IpVersion, mtu: u16) -> u16 {
    match version {
        IpVersion::V4 => mtu.saturating_sub(40).max(536),
        IpVersion::V6 => mtu.saturating_sub(60).max(1220),
    }
}

/// Where a SYN says a larger segment size than fits; nowhere, if its options contradict each other.
fn too_large(packet: &[u8], inner: &Inner, mtu: u16) -> Vec<usize> {
    let Transport::Tcp { flags, header_len, .. } = inner.transport else { return Vec::new() };
    let end = inner.header_len + header_len;
    if !flags.contains(TcpFlags::SYN) || packet.len() < end {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut at = inner.header_len + 20;
    while at < end && packet[at] != 0 {
        if packet[at] == 1 {
            at += 1;
            continue;
        }
        let len = packet.get(at + 1).copied().map_or(0, usize::from);
        if at + 2 > end || len < 2 || at + len > end || (packet[at] == 2 && len != 4) {
            return Vec::new();
        }
        if packet[at] == 2 && be16(packet, at + 2) > segment_size(inner.version, mtu) {
            found.push(at + 2);
        }
        at += len;
    }
    found
}

/// Whether a SYN offers more than fits.
pub(super) fn wants_clamp(packet: &[u8], inner: &Inner, mtu: u16) -> bool {
    !too_large(packet, inner, mtu).is_empty()
}

/// The same SYN, offering what fits. A right checksum stays right.
pub(super) fn clamped(packet: &[u8], inner: &Inner, mtu: u16, partial: bool) -> Vec<u8> {
    let mut changed = packet.to_vec();
    for at in too_large(packet, inner, mtu) {
        put16(&mut changed, at, segment_size(inner.version, mtu));
    }
    if !partial {
        // What was wrong by some amount is wrong by the same amount afterwards.
        let field = inner.header_len + 16;
        let right = |packet: &[u8]| {
            let mut segment = packet[inner.header_len..].to_vec();
            put16(&mut segment, 16, 0);
            transport_checksum(inner, &segment)
        };
        let off = u32::from(be16(packet, field)) + 0xffff - u32::from(right(packet));
        let sum = u32::from(right(&changed)) + off;
        let sum = (sum >> 16) + (sum & 0xffff);
        put16(&mut changed, field, ((sum >> 16) + (sum & 0xffff)) as u16);
    }
    changed
}

/// Whether two packets are the same but that a checksum of 0 may stand for 0xffff: to one's
/// complement they are one number.
pub(super) fn same_but_for_zero(one: &[u8], other: &[u8], field: usize) -> bool {
    let zero = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        if packet.len() > field + 1 && be16(&packet, field) == 0xffff {
            put16(&mut packet, field, 0);
        }
        packet
    };
    one == other || zero(one) == zero(other)
}

/// Whether `piece` is the fragment of the IPv4 packet `whole` that begins `at` bytes behind its
/// header, and how many bytes it has.
pub(super) fn piece_of(whole: &[u8], piece: &[u8], at: usize, mtu: u16) -> Result<usize, String> {
    let header = usize::from(whole[0] & 0xf) * 4;
    if piece.len() <= header || piece.len() > usize::from(mtu.max(68)) {
        return Err(format!("it has {} bytes, {mtu} fit", piece.len()));
    }
    let payload = &piece[header..];
    let rest = &whole[header + at..];
    if !rest.starts_with(payload) {
        return Err("its payload is not the packet's".to_owned());
    }
    let last = payload.len() == rest.len();
    let place = be16(whole, 6) + (at / 8) as u16;
    let more = if last { 0 } else { 0x2000 };
    if be16(piece, 6) != place | more {
        return Err(format!("flags and offset are {:#06x}", be16(piece, 6)));
    }
    if !last && !payload.len().is_multiple_of(8) {
        return Err(format!("{} bytes are followed by more", payload.len()));
    }
    if usize::from(be16(piece, 2)) != piece.len() || checksum(&[&piece[..header]]) != 0 {
        return Err("its header is wrong".to_owned());
    }
    let same = |range: std::ops::Range<usize>| whole[range.clone()] == piece[range];
    if !(same(0..2) && same(4..6) && same(8..10) && same(12..20)) {
        return Err("its header is not the packet's".to_owned());
    }
    let options = |packet: &[u8]| packet[20..header].to_vec();
    let expected = if at == 0 { options(whole) } else { copied_options(options(whole)) };
    if options(piece) != expected {
        return Err("its options are wrong".to_owned());
    }
    Ok(payload.len())
}

/// The options that later fragments have, too; what is not copied is padding (RFC 791 section 3.1).
fn copied_options(mut options: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while at < options.len() && options[at] != 0 {
        let len = match (options[at], options.get(at + 1)) {
            (1, _) => 1,
            (_, Some(&len)) if len >= 2 && at + usize::from(len) <= options.len() => len.into(),
            _ => break,
        };
        if options[at] & 0x80 == 0 {
            options[at..at + len].fill(1);
        }
        at += len;
    }
    options
}

/// Whether an address is that of one host, as far as it tells.
pub(super) fn is_host(address: IpAddr) -> bool {
    let nobody = address.is_multicast() || address.is_unspecified() || address.is_loopback();
    !nobody && address != IpAddr::from([255; 4])
}

/// Whether a packet may be answered with an error (RFC 1122 section 3.2.2, RFC 4443 section 2.4 e).
pub(super) fn may_be_told(inner: &Inner) -> bool {
    let later = matches!(inner.fragment, Fragment::Later { .. });
    let error = matches!(inner.transport, Transport::IcmpError { .. });
    !later && !error && is_host(inner.src) && (is_host(inner.dst) || inner.dst.is_ipv6())
}

/// Whether a packet may be answered with a reset: it is a whole TCP segment, no reset, from one
/// host to one host.
pub(super) fn may_be_reset(inner: &Inner) -> bool {
    let Transport::Tcp { flags, .. } = inner.transport else { return false };
    let whole = inner.fragment == Fragment::Whole && !flags.contains(TcpFlags::RST);
    whole && is_host(inner.src) && is_host(inner.dst)
}

/// Holds that an answer says "too big, so many bytes fit" about a packet.
pub(super) fn hold_too_big(
    answer: &[u8],
    packet: &[u8],
    inner: &Inner,
    from: IpAddr,
    mtu: u16,
) -> Result<(), Wrong> {
    let told = parsed(answer)?;
    let right = |is: bool, what: &str| {
        hold(is, Clause::Transparency, || format!("the ICMP error {what}: {answer:02x?}"))
    };
    right((told.src, told.dst) == (from, inner.src), "is not between the right two")?;
    let message = &answer[told.header_len..];
    let (kind, limit) = match inner.version {
        IpVersion::V4 => ([3, 4], 576),
        IpVersion::V6 => ([2, 0], 1280),
    };
    right(message[..2] == kind, "is another")?;
    right(be32(message, 4) == u32::from(mtu), &format!("does not say {mtu} bytes"))?;
    let quoted = packet.len().min(limit - told.header_len - 8);
    right(message[8..] == packet[..quoted], "does not quote the packet")
}

/// What a reset for an end must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub seq: u32,
    pub ack: Option<u32>,
}

impl Numbers {
    /// The reset that a host without the connection would answer a segment with (RFC 9293 section
    /// 3.10.7.1).
    pub(super) fn answering(packet: &[u8], inner: &Inner) -> Numbers {
        let Transport::Tcp { flags, header_len, .. } = inner.transport else {
            return Numbers { seq: 0, ack: None };
        };
        let tcp = &packet[inner.header_len..];
        if flags.contains(TcpFlags::ACK) {
            return Numbers { seq: be32(tcp, 8), ack: None };
        }
        let payload = inner.total_len - inner.header_len - header_len;
        let flags = [TcpFlags::SYN, TcpFlags::FIN].map(|flag| u32::from(flags.contains(flag)));
        let end = be32(tcp, 4).wrapping_add(payload as u32 + flags[0] + flags[1]);
        Numbers { seq: 0, ack: Some(end) }
    }

    /// The reset that an end obeys which said this last.
    pub(super) fn obeyed_after(word: Word) -> Numbers {
        match word {
            Word::Acknowledges(ack) => Numbers { seq: ack, ack: None },
            Word::Opens(seq) => Numbers { seq: 0, ack: Some(seq.wrapping_add(1)) },
        }
    }
}

/// Holds that a packet is a reset in the name of `from` to `to`, with these numbers.
pub(super) fn hold_reset(
    answer: &[u8],
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    numbers: Numbers,
) -> Result<(), Wrong> {
    let told = parsed(answer)?;
    let right = |is: bool, what: &str| {
        hold(is, Clause::Transparency, || format!("the reset {what}: {answer:02x?}"))
    };
    let Transport::Tcp { src, dst, flags, header_len } = told.transport else {
        return right(false, "is no TCP");
    };
    let ends = ((told.src, src), (told.dst, dst));
    right(ends == (from, to), &format!("is not from {from:?} to {to:?}"))?;
    let wanted = if numbers.ack.is_some() { TcpFlags::RST | TcpFlags::ACK } else { TcpFlags::RST };
    right(flags == wanted, "has other flags")?;
    let tcp = &answer[told.header_len..];
    let ack = numbers.ack.unwrap_or_default();
    right((be32(tcp, 4), be32(tcp, 8)) == (numbers.seq, ack), &format!("is not {numbers:?}"))?;
    right(told.total_len == told.header_len + header_len, "has payload")
}

fn parsed(answer: &[u8]) -> Result<Inner, Wrong> {
    let told = Inner::parse(answer).map_err(|error| Wrong {
        clause: Clause::Transparency,
        text: format!("an answer is no packet: {error}: {answer:02x?}"),
    })?;
    let right = verify(&told, answer) == Integrity::Valid && told.total_len == answer.len();
    let header = told.version == IpVersion::V6 || checksum(&[&answer[..told.header_len]]) == 0;
    hold(right && header, Clause::Transparency, || {
        format!("an answer has a wrong checksum or length: {answer:02x?}")
    })?;
    Ok(told)
}
