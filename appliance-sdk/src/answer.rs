//! Refusals: the packets with which an appliance tells a sender that it will get no answer.
//!
//! They are made as if the packet's destination had sent them, because an appliance has no address
//! of its own within the inspected network.

use std::net::IpAddr;

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::icmpv6::DestUnreachableCode;
use etherparse::{
    Icmpv4Type, Icmpv6Type, IpHeaders, PacketBuilder, PacketBuilderStep, TcpHeader, TcpHeaderSlice,
};
use geneve::inner::{Fragment, Inner, IpVersion, Transport};

use crate::packet::Packet;

impl Packet<'_> {
    /// Tells the sender that the packet was refused: a TCP segment is answered with a reset, any
    /// other packet with an ICMP error "administratively prohibited". The answer is
    /// [injected](Self::inject); whether the packet itself is dropped is the
    /// [`Action`](crate::Action)'s to say.
    ///
    /// Returns whether there was something to answer: never a reset, an ICMP error, a later
    /// fragment, or a multicast packet (RFC 9293 §3.10.7.1, RFC 1122 §3.2.2, RFC 4443 §2.4).
    pub fn reject(&mut self) -> bool {
        let answer = match self.inner().transport {
            Transport::Tcp { .. } if self.inner().fragment == Fragment::Whole => {
                tcp_reset(self.bytes(), self.inner())
            }
            _ => prohibited(self.bytes(), self.inner()),
        };
        let answered = answer.is_some();
        if let Some(answer) = answer {
            self.inject(answer);
        }
        answered
    }
}

/// What a host without a listener would answer to a TCP segment.
fn tcp_reset(packet: &[u8], inner: &Inner) -> Option<Vec<u8>> {
    let segment = packet.get(inner.header_len..inner.total_len)?;
    let tcp = TcpHeaderSlice::from_slice(segment).ok()?;
    if tcp.rst() {
        return None;
    }
    let mut reset = TcpHeader::new(tcp.destination_port(), tcp.source_port(), 0, 0);
    reset.rst = true;
    // RFC 9293 §3.10.7.1: with an ACK, <SEQ=SEG.ACK><CTL=RST>; without,
    // <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>, where SYN and FIN count as one byte each.
    if tcp.ack() {
        reset.sequence_number = tcp.acknowledgment_number();
    } else {
        let payload = segment.len().saturating_sub(tcp.slice().len());
        let length = payload as u32 + u32::from(tcp.syn()) + u32::from(tcp.fin());
        reset.ack = true;
        reset.acknowledgment_number = tcp.sequence_number().wrapping_add(length);
    }
    let mut answer = Vec::new();
    from_destination(inner)?.tcp_header(reset).write(&mut answer, &[]).ok()?;
    Some(answer)
}

/// What a filtering router would answer to any packet.
fn prohibited(packet: &[u8], inner: &Inner) -> Option<Vec<u8>> {
    let later_fragment = matches!(inner.fragment, Fragment::Later { .. });
    let is_error = matches!(inner.transport, Transport::IcmpError { .. });
    if later_fragment || is_error || !is_unicast(inner.src) || !is_unicast(inner.dst) {
        return None;
    }
    // RFC 1812 §4.3.2.3: as much of the packet as fits into 576 bytes; RFC 4443 §2.4: into 1280.
    let whole_answer = match inner.version {
        IpVersion::V4 => 576,
        IpVersion::V6 => 1280,
    };
    let room = whole_answer - inner.version.header_len() - ICMP_HEADER_LEN;
    let quoted = packet.get(..packet.len().min(room))?;
    let mut answer = Vec::new();
    let ip = from_destination(inner)?;
    match inner.version {
        IpVersion::V4 => ip
            .icmpv4(Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FilterProhibited))
            .write(&mut answer, quoted),
        IpVersion::V6 => ip
            .icmpv6(Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Prohibited))
            .write(&mut answer, quoted),
    }
    .ok()?;
    Some(answer)
}

const ICMP_HEADER_LEN: usize = 8;

/// Hosts start with this (IANA, "IP option numbers: default TTL").
const HOP_LIMIT: u8 = 64;

/// An IP header from where the packet was going, to where it came from.
fn from_destination(inner: &Inner) -> Option<PacketBuilderStep<IpHeaders>> {
    match (inner.dst, inner.src) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            Some(PacketBuilder::ipv4(from.octets(), to.octets(), HOP_LIMIT))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            Some(PacketBuilder::ipv6(from.octets(), to.octets(), HOP_LIMIT))
        }
        _ => None,
    }
}

fn is_unicast(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || broadcast)
}

#[cfg(test)]
mod tests {
    use geneve::checksum::{self, Integrity};
    use geneve::inner::{IcmpErrorKind, TcpFlags};

    use crate::testing::{self, FakeGateway, Segment};
    use crate::{Action, Appliance};

    use super::*;

    struct RejectAll;

    impl Appliance for RejectAll {
        type Flow = ();

        fn packet(&mut self, packet: &mut Packet<'_>, (): &mut ()) -> Action {
            packet.reject();
            Action::Drop
        }
    }

    fn refusal(packet: &[u8]) -> Option<(Inner, Vec<u8>)> {
        let mut gateway = FakeGateway::new(RejectAll);
        let mut answers = gateway.send(packet);
        assert!(answers.len() <= 1);
        let answer = answers.pop()?;
        let inner = Inner::parse(&answer).unwrap();
        assert_eq!(checksum::verify(&inner, &answer), Integrity::Valid);
        let refused = Inner::parse(packet).unwrap();
        assert_eq!((inner.src, inner.dst), (refused.dst, refused.src));
        Some((inner, answer))
    }

    fn reset(packet: &[u8]) -> Option<TcpHeader> {
        let (inner, answer) = refusal(packet)?;
        Some(TcpHeaderSlice::from_slice(&answer[inner.header_len..]).unwrap().to_header())
    }

    const ENDS: [(&str, &str); 2] =
        [("10.0.0.1:4000", "10.0.1.1:25"), ("[2001:db8::1]:4000", "[2001:db8:1::1]:25")];

    #[test]
    fn a_syn_is_reset_with_an_acknowledgement() {
        for (from, to) in ENDS {
            let reset = reset(&testing::tcp(from, to, Segment::syn(99), b"")).unwrap();
            assert_eq!((reset.source_port, reset.destination_port), (25, 4000));
            assert!(reset.rst && reset.ack && !reset.syn);
            assert_eq!((reset.sequence_number, reset.acknowledgment_number), (0, 100));
        }
    }

    #[test]
    fn a_segment_with_an_acknowledgement_is_reset_where_it_is_expected() {
        for (from, to) in ENDS {
            let reset = reset(&testing::tcp(from, to, Segment::data(5, 777), b"hello")).unwrap();
            assert!(reset.rst && !reset.ack);
            assert_eq!(reset.sequence_number, 777);
        }
    }

    #[test]
    fn data_without_an_acknowledgement_is_acknowledged_whole() {
        let segment = Segment { sequence: u32::MAX, fin: true, ..Segment::default() };
        let reset = reset(&testing::tcp(ENDS[0].0, ENDS[0].1, segment, b"abc")).unwrap();
        // Three bytes and the FIN, past the end of the sequence numbers.
        assert_eq!(reset.acknowledgment_number, 3);
    }

    #[test]
    fn a_reset_is_not_answered() {
        let segment = Segment { rst: true, ..Segment::data(1, 1) };
        assert!(refusal(&testing::tcp(ENDS[0].0, ENDS[0].1, segment, b"")).is_none());
    }

    #[test]
    fn udp_is_refused_with_an_error_about_it() {
        for ((from, to), (code, size)) in ENDS.into_iter().zip([(13, 576), (1, 1280)]) {
            let packet = testing::udp(from, to, &[7; 1400]);
            let (inner, answer) = refusal(&packet).unwrap();
            assert_eq!(answer.len(), size);
            let Transport::IcmpError { kind, about } = inner.transport else {
                panic!("{inner:?} is no error");
            };
            assert_eq!(kind, IcmpErrorKind::Unreachable { code });
            assert_eq!(about, Inner::parse(&packet).unwrap().flow_key());
        }
    }

    #[test]
    fn errors_and_multicast_are_not_answered() {
        let refused = testing::udp(ENDS[0].0, ENDS[0].1, b"x");
        let (_, error) = refusal(&refused).unwrap();
        assert!(refusal(&error).is_none());
        assert!(refusal(&testing::udp("10.0.0.1:1", "224.0.0.251:5353", b"x")).is_none());
        assert!(refusal(&testing::udp("0.0.0.0:68", "255.255.255.255:67", b"x")).is_none());
    }

    #[test]
    fn resets_do_not_carry_flags_of_their_cause() {
        let packet = testing::tcp(ENDS[0].0, ENDS[0].1, Segment::syn(1), b"");
        let (inner, _) = refusal(&packet).unwrap();
        let Transport::Tcp { flags, .. } = inner.transport else { panic!("no TCP") };
        assert_eq!(flags, TcpFlags::RST | TcpFlags::ACK);
    }
}
