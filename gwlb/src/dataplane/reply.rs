//! Packets that the gateway makes itself: ICMP "packet too big" and TCP resets.
//!
//! Each answers one packet and goes back where that came from. What must not be answered (RFC 1122
//! section 3.2.2, RFC 4443 section 2.4 e) is not, and a token bucket bounds the rest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use geneve::buffer::PacketBuf;
use geneve::inner::{Fragment, Inner, TcpFlags, Transport, protocol};
use pnet::packet::icmp::{self, IcmpCode, IcmpPacket, IcmpTypes, MutableIcmpPacket};
use pnet::packet::icmpv6::{self, Icmpv6Code, Icmpv6Packet, Icmpv6Types, MutableIcmpv6Packet};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::ipv6::MutableIpv6Packet;
use pnet::packet::tcp::{self, MutableTcpPacket, TcpPacket};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// ICMP and ICMPv6 errors: type, code, checksum, and four bytes with the MTU.
const ICMP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
/// A generated packet's time to live, as Linux's default.
const TTL: u8 = 64;
/// An ICMP error quotes as much as fits into this many bytes in all (RFC 1812 section 4.3.2.3).
const ICMP_LIMIT: usize = 576;
/// The same for ICMPv6: the minimum MTU (RFC 4443 section 3.2).
const ICMPV6_LIMIT: usize = 1280;
/// "Fragmentation needed and DF set" (RFC 792).
const FRAGMENTATION_NEEDED: IcmpCode = IcmpCode(4);

/// An answer that says which size fits: ICMP type 3 code 4 (RFC 1191) or ICMPv6 type 2 (RFC 4443
/// section 3.2), from `source`. `None` if the packet must not be answered.
pub fn packet_too_big(packet: &[u8], inner: &Inner, source: IpAddr, mtu: u16) -> Option<PacketBuf> {
    if !may_be_answered(inner) {
        return None;
    }
    let quoted = &packet[..inner.total_len.min(packet.len())];
    match (source, inner.src) {
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            let quoted = &quoted[..quoted.len().min(ICMP_LIMIT - IPV4_HEADER - ICMP_HEADER)];
            let mut bytes = vec![0; IPV4_HEADER + ICMP_HEADER + quoted.len()];
            let mut message = MutableIcmpPacket::new(&mut bytes[IPV4_HEADER..])?;
            message.set_icmp_type(IcmpTypes::DestinationUnreachable);
            message.set_icmp_code(FRAGMENTATION_NEEDED);
            message.set_payload(&error_body(mtu, quoted));
            let checksum = icmp::checksum(&IcmpPacket::new(&bytes[IPV4_HEADER..])?);
            MutableIcmpPacket::new(&mut bytes[IPV4_HEADER..])?.set_checksum(checksum);
            ipv4_header(&mut bytes, IpNextHeaderProtocols::Icmp.0, source, to)?;
            Some(PacketBuf::from_slice(&bytes))
        }
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            let quoted = &quoted[..quoted.len().min(ICMPV6_LIMIT - IPV6_HEADER - ICMP_HEADER)];
            let mut bytes = vec![0; IPV6_HEADER + ICMP_HEADER + quoted.len()];
            let mut message = MutableIcmpv6Packet::new(&mut bytes[IPV6_HEADER..])?;
            message.set_icmpv6_type(Icmpv6Types::PacketTooBig);
            message.set_icmpv6_code(Icmpv6Code(0));
            message.set_payload(&error_body(mtu, quoted));
            let message = Icmpv6Packet::new(&bytes[IPV6_HEADER..])?;
            let checksum = icmpv6::checksum(&message, &source, &to);
            MutableIcmpv6Packet::new(&mut bytes[IPV6_HEADER..])?.set_checksum(checksum);
            ipv6_header(&mut bytes, IpNextHeaderProtocols::Icmpv6.0, source, to)?;
            Some(PacketBuf::from_slice(&bytes))
        }
        _ => None,
    }
}

/// The reset that a host without the connection would send (RFC 9293 section 3.10.7.1). `None` if
/// the packet is no TCP segment, or itself a reset.
pub fn tcp_reset(packet: &[u8], inner: &Inner) -> Option<PacketBuf> {
    let Transport::Tcp { flags, .. } = inner.transport else { return None };
    if flags.contains(TcpFlags::RST) || !matches!(inner.fragment, Fragment::Whole) {
        return None;
    }
    let segment = TcpPacket::new(packet.get(inner.header_len..inner.total_len)?)?;
    let payload = inner.total_len - inner.header_len - usize::from(segment.get_data_offset()) * 4;
    let length = payload as u32
        + u32::from(flags.contains(TcpFlags::SYN))
        + u32::from(flags.contains(TcpFlags::FIN));
    let fill = |bytes: &mut [u8]| -> Option<()> {
        let mut reset = MutableTcpPacket::new(bytes)?;
        reset.set_source(segment.get_destination());
        reset.set_destination(segment.get_source());
        reset.set_data_offset((TCP_HEADER / 4) as u8);
        if flags.contains(TcpFlags::ACK) {
            reset.set_sequence(segment.get_acknowledgement());
            reset.set_flags(tcp::TcpFlags::RST);
        } else {
            reset.set_acknowledgement(segment.get_sequence().wrapping_add(length));
            reset.set_flags(tcp::TcpFlags::RST | tcp::TcpFlags::ACK);
        }
        Some(())
    };
    match (inner.dst, inner.src) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut bytes = vec![0; IPV4_HEADER + TCP_HEADER];
            fill(&mut bytes[IPV4_HEADER..])?;
            let checksum = tcp::ipv4_checksum(&TcpPacket::new(&bytes[IPV4_HEADER..])?, &from, &to);
            MutableTcpPacket::new(&mut bytes[IPV4_HEADER..])?.set_checksum(checksum);
            ipv4_header(&mut bytes, protocol::TCP, from, to)?;
            Some(PacketBuf::from_slice(&bytes))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut bytes = vec![0; IPV6_HEADER + TCP_HEADER];
            fill(&mut bytes[IPV6_HEADER..])?;
            let checksum = tcp::ipv6_checksum(&TcpPacket::new(&bytes[IPV6_HEADER..])?, &from, &to);
            MutableTcpPacket::new(&mut bytes[IPV6_HEADER..])?.set_checksum(checksum);
            ipv6_header(&mut bytes, protocol::TCP, from, to)?;
            Some(PacketBuf::from_slice(&bytes))
        }
        _ => None,
    }
}

/// Bounds how many packets the gateway makes: a bucket of tokens.
#[derive(Debug)]
pub struct RateLimit {
    tokens: u32,
    filled: Instant,
}

impl RateLimit {
    /// At most so many at once, as Linux's `net.ipv4.icmp_msgs_burst`.
    const BURST: u32 = 50;
    /// One more each millisecond, as Linux's `net.ipv4.icmp_msgs_per_sec` of 1000.
    const EVERY: Duration = Duration::from_millis(1);

    /// A full bucket.
    pub fn new(now: Instant) -> Self {
        Self { tokens: Self::BURST, filled: now }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let new = now.saturating_duration_since(self.filled).as_millis() / Self::EVERY.as_millis();
        if new > 0 {
            self.tokens = self.tokens.saturating_add(new.min(Self::BURST.into()) as u32);
            self.tokens = self.tokens.min(Self::BURST);
            self.filled = now;
        }
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }
}

/// No error is sent about an error, a later fragment, or a packet that did not come from one host
/// to one host.
fn may_be_answered(inner: &Inner) -> bool {
    let single = |address: IpAddr| match address {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified(),
    };
    !matches!(inner.fragment, Fragment::Later { .. })
        && !matches!(inner.transport, Transport::IcmpError { .. })
        && single(inner.src)
        && (single(inner.dst) || inner.dst.is_ipv6())
        && !inner.src.is_loopback()
}

/// What follows type, code and checksum: the MTU in the lower half of four bytes, then the quote.
fn error_body(mtu: u16, quoted: &[u8]) -> Vec<u8> {
    let mut body = u32::from(mtu).to_be_bytes().to_vec();
    body.extend_from_slice(quoted);
    body
}

fn ipv4_header(bytes: &mut [u8], protocol: u8, from: Ipv4Addr, to: Ipv4Addr) -> Option<()> {
    let len = u16::try_from(bytes.len()).ok()?;
    let mut header = MutableIpv4Packet::new(bytes)?;
    header.set_version(4);
    header.set_header_length((IPV4_HEADER / 4) as u8);
    header.set_total_length(len);
    header.set_ttl(TTL);
    header.set_next_level_protocol(pnet::packet::ip::IpNextHeaderProtocol(protocol));
    header.set_source(from);
    header.set_destination(to);
    let checksum = ipv4::checksum(&Ipv4Packet::new(bytes)?);
    MutableIpv4Packet::new(bytes)?.set_checksum(checksum);
    Some(())
}

fn ipv6_header(bytes: &mut [u8], protocol: u8, from: Ipv6Addr, to: Ipv6Addr) -> Option<()> {
    let len = u16::try_from(bytes.len() - IPV6_HEADER).ok()?;
    let mut header = MutableIpv6Packet::new(bytes)?;
    header.set_version(6);
    header.set_payload_length(len);
    header.set_hop_limit(TTL);
    header.set_next_header(pnet::packet::ip::IpNextHeaderProtocol(protocol));
    header.set_source(from);
    header.set_destination(to);
    Some(())
}
