//! Which packet is a whole datagram with nothing wrong but its UDP checksum. Anything else that is
//! wrong is for the kernel to throw away.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};

use geneve::checksum::{self, Sum};

use crate::{
    offload::{UDP_CHECKSUM, UDP_HEADER, be16},
    udp::Datagram,
};

/// Protocol number of UDP.
const UDP: u8 = 17;
/// The shortest IPv4 header.
const IPV4_HEADER: usize = 20;
/// The IPv6 header.
const IPV6_HEADER: usize = 40;
/// More fragments, and the offset: set in fragments alone.
const FRAGMENT: u16 = 0x3fff;

/// What was found in a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) meta: Datagram,
    /// Where the UDP payload lies.
    pub(super) payload: Range<usize>,
}

/// The datagram to `address` that `packet` is, if its UDP checksum is wrong and nothing else.
pub(super) fn with_bad_checksum(packet: &[u8], address: IpAddr) -> Option<Found> {
    let Ip { source, destination, tos, payload } = match packet.first()? >> 4 {
        4 => ipv4(packet)?,
        6 => ipv6(packet)?,
        _ => return None,
    };
    if destination != address {
        return None;
    }
    let start = payload.start;
    let header = packet.get(payload)?;
    if header.len() < UDP_HEADER {
        return None;
    }
    let len = usize::from(be16(header, 4));
    // What follows a datagram inside its packet does not belong to it.
    let datagram = header.get(..len).filter(|_| len >= UDP_HEADER)?;
    let bad = if be16(datagram, UDP_CHECKSUM) == 0 {
        // RFC 8200 §8.1: "IPv6 receivers must discard UDP packets containing a zero checksum".
        destination.is_ipv6()
    } else {
        let mut sum = Sum::pseudo_header(source, destination, UDP, len as u32);
        sum.add(datagram);
        sum.finish() != 0
    };
    bad.then(|| Found {
        meta: Datagram {
            peer: SocketAddr::new(source, be16(datagram, 0)),
            local: Some(destination),
            segment_size: 0,
            tos,
        },
        payload: start + UDP_HEADER..start + len,
    })
}

struct Ip {
    source: IpAddr,
    destination: IpAddr,
    tos: u8,
    payload: Range<usize>,
}

fn ipv4(packet: &[u8]) -> Option<Ip> {
    let header_len = usize::from(packet[0] & 0xf) * 4;
    let header = packet.get(..header_len).filter(|_| header_len >= IPV4_HEADER)?;
    let len = usize::from(be16(header, 2));
    let whole = be16(header, 6) & FRAGMENT == 0;
    if !whole || header[9] != UDP || len < header_len || checksum::of(header) != 0 {
        return None;
    }
    let [source, destination] = [12, 16]
        .map(|at| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    Some(Ip {
        source: source.into(),
        destination: destination.into(),
        tos: header[1],
        payload: header_len..len,
    })
}

fn ipv6(packet: &[u8]) -> Option<Ip> {
    let header = packet.first_chunk::<IPV6_HEADER>()?;
    if header[6] != UDP {
        return None;
    }
    let address = |at: usize| {
        header[at..].first_chunk::<16>().map(|octets| IpAddr::from(Ipv6Addr::from(*octets)))
    };
    Some(Ip {
        source: address(8)?,
        destination: address(24)?,
        tos: (be16(header, 0) >> 4) as u8,
        payload: IPV6_HEADER..IPV6_HEADER + usize::from(be16(header, 4)),
    })
}

#[cfg(test)]
mod tests {
    use etherparse::{
        IpDscp, IpEcn, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options,
        Ipv6Extensions, Ipv6Header, PacketBuilder,
    };
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const PAYLOAD: &[u8] = b"inner packet";

    /// A datagram with a good checksum from port 1 to port 6081.
    fn good(v6: bool) -> Vec<u8> {
        let builder = if v6 {
            let header = Ipv6Header {
                traffic_class: 0xb9,
                next_header: IpNumber::UDP,
                hop_limit: 64,
                source: [1; 16],
                destination: [2; 16],
                ..Ipv6Header::default()
            };
            PacketBuilder::ip(IpHeaders::Ipv6(header, Ipv6Extensions::default()))
        } else {
            let mut header = Ipv4Header::new(0, 64, IpNumber::UDP, [1; 4], [2; 4]).unwrap();
            header.dscp = IpDscp::try_new(0xb9 >> 2).unwrap();
            header.ecn = IpEcn::try_new(0xb9 & 3).unwrap();
            // A header with options is longer.
            header.options = Ipv4Options::try_from(&[1, 1, 1, 0][..]).unwrap();
            PacketBuilder::ip(IpHeaders::Ipv4(header, Ipv4Extensions::default()))
        };
        let mut packet = Vec::new();
        builder.udp(1, 6081).write(&mut packet, PAYLOAD).unwrap();
        packet
    }

    fn destination(v6: bool) -> IpAddr {
        if v6 { [2_u8; 16].into() } else { [2; 4].into() }
    }

    fn udp(v6: bool) -> usize {
        if v6 { 40 } else { 24 }
    }

    /// A datagram with another checksum, over an IPv4 header that is correct all the same.
    fn with_checksum(v6: bool, value: u16) -> Vec<u8> {
        let mut packet = good(v6);
        packet[udp(v6) + 6..][..2].copy_from_slice(&value.to_be_bytes());
        packet
    }

    #[rstest]
    fn only_a_wrong_checksum_counts(#[values(false, true)] v6: bool) {
        let to = destination(v6);
        assert_eq!(with_bad_checksum(&good(v6), to), None);
        let mut bad = with_checksum(v6, 0xdead);
        let peer: IpAddr = if v6 { [1_u8; 16].into() } else { [1; 4].into() };
        let found = Found {
            meta: Datagram {
                peer: SocketAddr::new(peer, 1),
                local: Some(to),
                segment_size: 0,
                tos: 0xb9,
            },
            payload: udp(v6) + 8..udp(v6) + 8 + PAYLOAD.len(),
        };
        assert_eq!(with_bad_checksum(&bad, to).as_ref(), Some(&found));
        // An Ethernet frame has at least 60 bytes.
        bad.resize(80, 0xff);
        assert_eq!(with_bad_checksum(&bad, to), Some(found));
        assert_eq!(with_bad_checksum(&bad, peer), None, "to somebody else");
        let unset = with_bad_checksum(&with_checksum(v6, 0), to);
        assert_eq!(unset.is_some(), v6, "over IPv4 no checksum is none");
    }

    #[rstest]
    #[case::version(false, 0, 0x56)]
    #[case::header_length(false, 0, 0x44)]
    #[case::total_length(false, 3, 19)]
    #[case::more_fragments(false, 6, 0x20)]
    #[case::fragment_offset(false, 7, 1)]
    #[case::protocol(false, 9, 6)]
    #[case::header_checksum(false, 10, 0)]
    #[case::udp_length_too_short(false, 29, 7)]
    #[case::udp_length_too_long(false, 28, 1)]
    #[case::next_header(true, 6, 44)]
    #[case::payload_length(true, 5, 7)]
    #[case::udp_length_too_short(true, 45, 7)]
    #[case::udp_length_too_long(true, 44, 1)]
    fn what_else_is_wrong_is_the_kernels(#[case] v6: bool, #[case] at: usize, #[case] value: u8) {
        let mut bad = with_checksum(v6, 0xdead);
        assert!(with_bad_checksum(&bad, destination(v6)).is_some());
        assert_ne!(bad[at], value);
        bad[at] = value;
        if !v6 && at != 10 {
            // So that this is not what is found out.
            bad[10..12].fill(0);
            let header = usize::from(bad[0] & 0xf) * 4;
            let sum = checksum::of(&bad[..header]);
            bad[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        assert_eq!(with_bad_checksum(&bad, destination(v6)), None);
    }

    proptest! {
        #[test]
        fn noise_and_short_packets_are_nothing(noise: Vec<u8>, v6: bool, len in 0..80_usize) {
            let bad = with_checksum(v6, 0xdead);
            let to = destination(v6);
            if len < bad.len() {
                prop_assert_eq!(with_bad_checksum(&bad[..len], to), None);
            }
            with_bad_checksum(&noise, to);
        }

        #[test]
        fn it_is_the_checksum_alone(value: u16, v6: bool) {
            let correct = be16(&good(v6), udp(v6) + 6);
            let found = with_bad_checksum(&with_checksum(v6, value), destination(v6));
            prop_assert_eq!(found.is_some(), value != correct && (v6 || value != 0));
        }
    }
}
