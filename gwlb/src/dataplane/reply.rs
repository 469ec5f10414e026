//! Packets that the gateway makes itself: ICMP "packet too big" and TCP resets.
//!
//! Most answer one packet and go back where that came from. What must not be answered (RFC 1122
//! section 3.2.2, RFC 4443 section 2.4 e) is not, and a token bucket bounds the rest. A reset can
//! also go to an end of a connection that has sent nothing just now.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use geneve::buffer::PacketBuf;
use geneve::inner::{Fragment, Inner, TcpFlags, Transport, protocol};
use pnet_packet::icmp::{self, IcmpCode, IcmpPacket, IcmpTypes, MutableIcmpPacket};
use pnet_packet::icmpv6::{self, Icmpv6Code, Icmpv6Packet, Icmpv6Types, MutableIcmpv6Packet};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet_packet::ipv6::MutableIpv6Packet;
use pnet_packet::tcp::{self, MutableTcpPacket};

use super::frame::TcpNumbers;
use crate::fault::{self, Fault};

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
/// the packet is no TCP segment, is itself a reset, or is not from one host to one host.
pub fn tcp_reset(packet: &[u8], inner: &Inner) -> Option<PacketBuf> {
    let Transport::Tcp { src, dst, flags, .. } = inner.transport else { return None };
    if flags.contains(TcpFlags::RST) {
        return None;
    }
    let numbers = TcpNumbers::of(packet, inner)?;
    let reset = if let Some(ack) = numbers.ack {
        Reset { seq: ack, ack: None }
    } else {
        let length = numbers.len
            + u32::from(flags.contains(TcpFlags::SYN))
            + u32::from(flags.contains(TcpFlags::FIN));
        Reset { seq: 0, ack: Some(numbers.seq.wrapping_add(length)) }
    };
    reset.packet(SocketAddr::new(inner.src, src), SocketAddr::new(inner.dst, dst))
}

/// Resets the end `to` of an established connection, in the name of its peer `from`.
///
/// `seq` is the latest acknowledgement number that `to` itself has sent: the byte that it expects
/// next. An end obeys a reset with exactly this number, and answers one that is merely within its
/// window with a challenge (RFC 9293 section 3.10.7.4, RFC 5961 section 3.2); if it has received
/// more by now and not yet acknowledged that, it ignores the reset.
///
/// `None` if the addresses are of two families, or either is not that of one host on the network.
pub fn reset_end(to: SocketAddr, from: SocketAddr, seq: u32) -> Option<PacketBuf> {
    let wrong = u32::from(fault::on(Fault::ResetWithWrongNumber));
    Reset { seq: seq.wrapping_add(wrong), ack: None }.packet(to, from)
}

/// Resets the end `to`, which has sent a SYN with the number `syn` and no acknowledgement yet, in
/// the name of its peer `from`: it obeys only a reset that acknowledges its SYN (RFC 9293 section
/// 3.10.7.3). An end that has sent nothing at all cannot be reset.
///
/// `None` as for [`reset_end`].
pub fn reset_opening_end(to: SocketAddr, from: SocketAddr, syn: u32) -> Option<PacketBuf> {
    Reset { seq: 0, ack: Some(syn.wrapping_add(1)) }.packet(to, from)
}

/// What a reset says.
struct Reset {
    seq: u32,
    ack: Option<u32>,
}

impl Reset {
    fn packet(&self, to: SocketAddr, from: SocketAddr) -> Option<PacketBuf> {
        if !is_host(to.ip()) || !is_host(from.ip()) {
            return None;
        }
        match (from.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut bytes = [0; IPV4_HEADER + TCP_HEADER];
                let segment = self.segment(to, from, &mut bytes[IPV4_HEADER..])?;
                let checksum = tcp::ipv4_checksum(&segment.to_immutable(), &source, &destination);
                MutableTcpPacket::new(&mut bytes[IPV4_HEADER..])?.set_checksum(checksum);
                ipv4_header(&mut bytes, protocol::TCP, source, destination)?;
                Some(PacketBuf::from_slice(&bytes))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut bytes = [0; IPV6_HEADER + TCP_HEADER];
                let segment = self.segment(to, from, &mut bytes[IPV6_HEADER..])?;
                let checksum = tcp::ipv6_checksum(&segment.to_immutable(), &source, &destination);
                MutableTcpPacket::new(&mut bytes[IPV6_HEADER..])?.set_checksum(checksum);
                ipv6_header(&mut bytes, protocol::TCP, source, destination)?;
                Some(PacketBuf::from_slice(&bytes))
            }
            _ => None,
        }
    }

    fn segment<'a>(
        &self,
        to: SocketAddr,
        from: SocketAddr,
        bytes: &'a mut [u8],
    ) -> Option<MutableTcpPacket<'a>> {
        let mut reset = MutableTcpPacket::new(bytes)?;
        reset.set_source(from.port());
        reset.set_destination(to.port());
        reset.set_sequence(self.seq);
        reset.set_acknowledgement(self.ack.unwrap_or_default());
        reset.set_data_offset((TCP_HEADER / 4) as u8);
        let ack = if self.ack.is_some() { tcp::TcpFlags::ACK } else { 0 };
        reset.set_flags(tcp::TcpFlags::RST | ack);
        Some(reset)
    }
}

/// Bounds how many packets the gateway makes: a bucket of tokens.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    tokens: u32,
    filled: Instant,
    /// How many tokens the bucket holds.
    burst: u32,
    /// How many come in with each millisecond.
    per_millisecond: u32,
}

impl RateLimit {
    /// For answers, which a stranger's packets ask for: 50 at once and one more each millisecond,
    /// as Linux's `net.ipv4.icmp_msgs_burst` and `net.ipv4.icmp_msgs_per_sec` of 1000.
    pub fn new(now: Instant) -> Self {
        Self::full(50, 1, now)
    }

    /// For resets of established connections: 10,000 at once and 100 more each millisecond.
    ///
    /// Each ends a flow, which cost its sender a packet at least, so they amplify nothing; and when
    /// an appliance fails, all of its connections are to be reset, and each that waits for that
    /// hangs. At this pace 100,000 connections take a second, and the resets take 32 Mbit/s over
    /// IPv4, which starves nothing else.
    pub fn for_resets(now: Instant) -> Self {
        Self::full(10_000, 100, now)
    }

    /// A full bucket.
    fn full(burst: u32, per_millisecond: u32, now: Instant) -> Self {
        Self { tokens: burst, filled: now, burst, per_millisecond }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_millis();
        if passed > 0 {
            let passed = u32::try_from(passed).unwrap_or(u32::MAX);
            let new = passed.saturating_mul(self.per_millisecond);
            self.tokens = self.tokens.saturating_add(new).min(self.burst);
            // What is left of the last millisecond counts for the next token.
            self.filled += Duration::from_millis(passed.into());
        }
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }
}

/// No error is sent about an error, a later fragment, or a packet that did not come from one host
/// to one host; only ICMPv6 tells of packets that are too big for a group's way (RFC 4443 section
/// 2.4 e.3).
fn may_be_answered(inner: &Inner) -> bool {
    !matches!(inner.fragment, Fragment::Later { .. })
        && !matches!(inner.transport, Transport::IcmpError { .. })
        && is_host(inner.src)
        && (is_host(inner.dst) || inner.dst.is_ipv6())
}

/// Whether an address is that of one host on the network, as far as the address tells: no group,
/// no broadcast, not this host itself.
fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(ip) if ip.is_broadcast());
    !broadcast && !address.is_multicast() && !address.is_unspecified() && !address.is_loopback()
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
    header.set_next_level_protocol(pnet_packet::ip::IpNextHeaderProtocol(protocol));
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
    header.set_next_header(pnet_packet::ip::IpNextHeaderProtocol(protocol));
    header.set_source(from);
    header.set_destination(to);
    Some(())
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TcpHeader, TransportSlice};
    use geneve::checksum::{self, Integrity};
    use rstest::rstest;

    use super::super::testing::{CLIENT, SERVER, ack, start, syn, udp};
    use super::*;

    /// A reset's TCP header, if the packet is one between these two, with right checksums.
    fn reset_between(packet: &PacketBuf, from: SocketAddr, to: SocketAddr) -> TcpHeader {
        let inner = Inner::parse(packet).unwrap();
        assert_eq!(checksum::verify(&inner, packet), Integrity::Valid);
        let sliced = SlicedPacket::from_ip(packet).unwrap();
        let addresses: (IpAddr, IpAddr) = match sliced.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            NetSlice::Ipv6(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            NetSlice::Arp(_) => panic!("ARP"),
        };
        assert_eq!(addresses, (from.ip(), to.ip()));
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
        let header = tcp.to_header();
        assert_eq!((header.source_port, header.destination_port), (from.port(), to.port()));
        assert!(header.rst && !header.syn && !header.fin);
        header
    }

    #[rstest]
    #[case("10.0.1.11:80", "203.0.113.7:4000")]
    #[case("[fd00:10:0:1::11]:80", "[2001:db8::7]:4000")]
    fn an_end_is_reset_with_the_number_that_it_expects(
        #[case] to: SocketAddr,
        #[case] from: SocketAddr,
    ) {
        let header = reset_between(&reset_end(to, from, 0xfedc_ba98).unwrap(), from, to);
        assert_eq!((header.sequence_number, header.ack), (0xfedc_ba98, false));
        assert_eq!(header.acknowledgment_number, 0);

        let packet = reset_opening_end(to, from, u32::MAX).unwrap();
        let header = reset_between(&packet, from, to);
        assert_eq!((header.ack, header.acknowledgment_number), (true, 0), "the SYN counts as one");

        for nobody in ["224.0.0.1:80", "255.255.255.255:80", "0.0.0.0:80", "127.0.0.1:80"]
            .into_iter()
            .chain(["[ff02::1]:80", "[::]:80", "[::1]:80"])
        {
            let nobody: SocketAddr = nobody.parse().unwrap();
            assert_eq!(reset_end(nobody, from, 1), None, "{nobody}");
            assert_eq!(reset_end(to, nobody, 1), None, "{nobody}");
        }
        let other: SocketAddr =
            if to.is_ipv4() { "[fd00::1]:1" } else { "10.0.0.1:1" }.parse().unwrap();
        assert_eq!(reset_end(to, other, 1), None, "two families");
    }

    #[test]
    fn a_segment_is_answered_with_a_reset_that_its_sender_takes() {
        let of = |packet: &[u8]| tcp_reset(packet, &Inner::parse(packet).unwrap());
        let [client, server] = [(CLIENT, 4000), (SERVER, 80)].map(SocketAddr::from);
        let answer = of(&ack(CLIENT, SERVER, (4000, 80), b"hello")).unwrap();
        let header = reset_between(&answer, server, client);
        assert_eq!((header.sequence_number, header.ack), (77, false));
        let answer = of(&syn(CLIENT, SERVER, (4000, 80))).unwrap();
        let header = reset_between(&answer, server, client);
        assert_eq!((header.ack, header.acknowledgment_number), (true, 1001));
        assert_eq!(header.sequence_number, 0);
        // Without ACK, data and FIN count as well.
        let mut bare = ack(CLIENT, SERVER, (4000, 80), b"hello");
        bare[33] = TcpFlags::FIN.0;
        let header = reset_between(&of(&bare).unwrap(), server, client);
        assert_eq!((header.ack, header.acknowledgment_number), (true, 1007));

        assert_eq!(of(answer.bytes()), None, "no reset answers a reset");
        assert_eq!(of(&udp(CLIENT, SERVER, (4000, 80), b"hello")), None);
        let mut fragment = ack(CLIENT, SERVER, (4000, 80), b"hello");
        fragment[6] = 0x20;
        assert_eq!(of(&fragment), None);
    }

    #[rstest]
    #[case([224, 0, 0, 1])]
    #[case([255, 255, 255, 255])]
    #[case([0, 0, 0, 0])]
    #[case([127, 0, 0, 1])]
    fn nobody_answers_to_or_for_a_group(#[case] nobody: [u8; 4]) {
        for (src, dst) in [(nobody, SERVER), (CLIENT, nobody)] {
            let packet = ack(src, dst, (4000, 80), b"hello");
            let inner = Inner::parse(&packet).unwrap();
            assert_eq!(tcp_reset(&packet, &inner), None);
            assert_eq!(packet_too_big(&packet, &inner, IpAddr::from([10, 0, 0, 1]), 1000), None);
        }
    }

    /// RFC 9293 section 3.10.7.1, across the end of the number space: every combination of flags, at
    /// every distance that payload, SYN and FIN together can have from it.
    #[test]
    fn the_number_that_a_reset_acknowledges_wraps() {
        for from_end in 0..8_u32 {
            for (len, flags) in (0..6).flat_map(|len| (0..=u8::MAX).map(move |flags| (len, flags)))
            {
                let mut packet = ack(CLIENT, SERVER, (4000, 80), &vec![7; len]);
                let seq = u32::MAX - from_end;
                packet[24..28].copy_from_slice(&seq.to_be_bytes());
                packet[33] = flags;
                let answer = tcp_reset(&packet, &Inner::parse(&packet).unwrap());
                let flags = TcpFlags(flags);
                let Some(answer) = answer else {
                    assert!(flags.contains(TcpFlags::RST));
                    continue;
                };
                let header = reset_between(&answer, (SERVER, 80).into(), (CLIENT, 4000).into());
                if flags.contains(TcpFlags::ACK) {
                    assert_eq!((header.sequence_number, header.ack), (77, false));
                } else {
                    let counted = [TcpFlags::SYN, TcpFlags::FIN].map(|it| flags.contains(it));
                    let next =
                        u64::from(seq) + len as u64 + counted.map(u64::from).iter().sum::<u64>();
                    assert_eq!(u64::from(header.acknowledgment_number), next % (1 << 32));
                    assert_eq!((header.sequence_number, header.ack), (0, true));
                }
            }
        }
    }

    /// Every way in which six calls can come, at, just before and just after the turn of a
    /// millisecond: as a bucket that is filled at every turn gives.
    #[test]
    fn a_bucket_gives_what_the_plain_one_gives() {
        const BURST: u32 = 3;
        const RATE: u32 = 2;
        let steps = [0, 1, 999, 1_000, 1_001, 2_500_u64];
        for way in 0..steps.len().pow(6) {
            let start = start();
            let mut bucket = RateLimit::full(BURST, RATE, start);
            let (mut micros, mut turns, mut tokens) = (0, 0, BURST);
            for call in 0..6 {
                micros += steps[way / steps.len().pow(call) % steps.len()];
                while (turns + 1) * 1_000 <= micros {
                    turns += 1;
                    tokens = (tokens + RATE).min(BURST);
                }
                let expected = tokens > 0;
                tokens = tokens.saturating_sub(1);
                let taken = bucket.take(start + Duration::from_micros(micros));
                assert_eq!(taken, expected, "way {way}, call {call}");
            }
        }
    }

    #[rstest]
    #[case(RateLimit::new, 50, 1)]
    #[case(RateLimit::for_resets, 10_000, 100)]
    fn a_bucket_gives_what_is_in_it(
        #[case] make: fn(Instant) -> RateLimit,
        #[case] burst: usize,
        #[case] per_millisecond: usize,
    ) {
        let start = start();
        let mut bucket = make(start);
        let taken = |bucket: &mut RateLimit, micros: u64| {
            let now = start + Duration::from_micros(micros);
            (0..20_000).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(taken(&mut bucket, 0), burst);
        assert_eq!(taken(&mut bucket, 999), 0);
        assert_eq!(taken(&mut bucket, 1_900), per_millisecond);
        assert_eq!(
            taken(&mut bucket, 3_100),
            2 * per_millisecond,
            "no part of a millisecond is lost"
        );
        assert_eq!(taken(&mut bucket, 10_000_000_000), burst);
    }
}
