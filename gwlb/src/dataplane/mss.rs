//! Clamping of TCP's maximum segment size (RFC 9293 section 3.7.1) to what fits on the way to an
//! appliance, so that hosts do not depend on ICMP errors that something in between may swallow.
//!
//! Only what a SYN or SYN/ACK offers is lowered. An option that is not there is not added: without
//! it a host sends segments of 536 bytes over IPv4 and 1220 over IPv6, which fit everywhere, and a
//! longer header would have to move what lies behind it.

use geneve::checksum;
use geneve::inner::{Inner, IpVersion, TcpFlags, Transport};
use netio::offload::{Offload, PartialChecksum};

use super::frame::Frame;
use crate::fault::{self, Fault};

/// Bytes of a TCP header without options, and where its checksum stands.
const TCP_HEADER: usize = 20;
const TCP_CHECKSUM: usize = 16;
/// Of the option kinds of RFC 9293 section 3.2.
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const MAXIMUM_SEGMENT_SIZE_LEN: u8 = 4;

/// Whether a packet offers a larger segment size than fits into packets of `mtu` bytes: whether
/// [`clamp`] would change it. For all but SYNs this is a look at one flag.
#[inline]
pub fn needs_clamp(frame: &Frame<'_>, mtu: u16) -> bool {
    opening(&frame.inner).is_some_and(|header_len| {
        let limit = limit(frame.inner.version, mtu);
        larger(tcp_options(frame.packet, &frame.inner, header_len), limit)
    })
}

/// Lowers the segment size that a SYN or SYN/ACK offers to what fits into packets of `mtu` bytes,
/// and updates the checksum, unless `offload` says that it is still to be completed. Returns
/// whether it changed anything; a list of options that contradicts itself stays as it is.
///
/// IP options and extension headers are not subtracted, and neither are TCP's: whoever sends them
/// makes room for them (RFC 6691 section 2).
pub fn clamp(packet: &mut [u8], inner: &Inner, offload: &Offload, mtu: u16) -> bool {
    let Some(header_len) = opening(inner) else { return false };
    let limit = limit(inner.version, mtu);
    if !larger(tcp_options(packet, inner, header_len), limit) {
        return false;
    }
    let start = inner.header_len;
    let partial = PartialChecksum { start: start as u16, offset: TCP_CHECKSUM as u16 };
    let is_partial = offload.checksum == Some(partial);
    let mut at = TCP_HEADER;
    let tcp = &mut packet[start..start + header_len];
    while let Some(option) = next_option(&tcp[at..]) {
        if let Some(size) = option.segment_size
            && size > limit
        {
            // A checksum is updated by 16-bit words, and an option may begin at any byte. The
            // header has an even length, so a byte follows an option at an odd one.
            let word = at.next_multiple_of(2);
            let before = four(tcp, word);
            tcp[at + 2..at + 4].copy_from_slice(&limit.to_be_bytes());
            let after = four(tcp, word);
            if !is_partial && !fault::on(Fault::ClampedChecksumStale) {
                let [high, low, ..] = four(tcp, TCP_CHECKSUM);
                let checksum = checksum::update(u16::from_be_bytes([high, low]), before, after);
                tcp[TCP_CHECKSUM..][..2].copy_from_slice(&checksum.to_be_bytes());
            }
        }
        at += option.len;
    }
    true
}

/// The length of the TCP header if the packet opens a connection, and the header is all there.
#[inline]
fn opening(inner: &Inner) -> Option<usize> {
    match inner.transport {
        Transport::Tcp { flags, header_len, .. } if flags.contains(TcpFlags::SYN) => {
            Some(header_len)
        }
        _ => None,
    }
}

/// The largest segment size that fits. RFC 6691 section 2: the MTU less the fixed headers. Never
/// less than every host takes anyway (RFC 9293 section 3.7.1).
fn limit(version: IpVersion, mtu: u16) -> u16 {
    let (headers, least) = match version {
        IpVersion::V4 => (40, 536),
        IpVersion::V6 => (60, 1220),
    };
    let headers = headers - if fault::on(Fault::MssWithoutTcpHeader) { 20 } else { 0 };
    mtu.saturating_sub(headers).max(least)
}

fn tcp_options<'a>(packet: &'a [u8], inner: &Inner, header_len: usize) -> &'a [u8] {
    let header = inner.header_len..inner.header_len + header_len;
    packet.get(header).and_then(|header| header.get(TCP_HEADER..)).unwrap_or_default()
}

/// Whether a list of options is sound and offers more than `limit`.
fn larger(mut options: &[u8], limit: u16) -> bool {
    let mut larger = false;
    while let Some(option) = next_option(options) {
        larger |= option.segment_size.is_some_and(|size| size > limit);
        options = &options[option.len..];
    }
    larger && matches!(options, [] | [END_OF_OPTIONS, ..])
}

struct TcpOption {
    len: usize,
    segment_size: Option<u16>,
}

/// The first of the options; `None` at their end, and where the list contradicts itself.
fn next_option(options: &[u8]) -> Option<TcpOption> {
    let (len, segment_size) = match *options {
        [] | [END_OF_OPTIONS, ..] => return None,
        [NO_OPERATION, ..] => (1, None),
        [MAXIMUM_SEGMENT_SIZE, MAXIMUM_SEGMENT_SIZE_LEN, high, low, ..] => {
            (4, Some(u16::from_be_bytes([high, low])))
        }
        [kind, len, ..] if kind != MAXIMUM_SEGMENT_SIZE && len >= 2 => (usize::from(len), None),
        _ => return None,
    };
    (len <= options.len()).then_some(TcpOption { len, segment_size })
}

fn four(bytes: &[u8], at: usize) -> [u8; 4] {
    [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, TcpOptionElement, TcpSlice};
    use geneve::arbitrary;
    use geneve::checksum::{Integrity, Sum};
    use geneve::inner::Fragment;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// A SYN with these options.
    fn syn(version: IpVersion, options: &[u8]) -> Vec<u8> {
        let builder = match version {
            IpVersion::V4 => PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
            IpVersion::V6 => PacketBuilder::ipv6([1; 16], [2; 16], 64),
        };
        let mut packet = Vec::new();
        let builder = builder.tcp(1, 80, 1000, 1024).syn().options_raw(options).unwrap();
        builder.write(&mut packet, b"early").unwrap();
        packet
    }

    /// Clamps, and says what is offered then, with everything else as it was.
    fn clamped(packet: &[u8], mtu: u16) -> Option<Vec<u16>> {
        let inner = Inner::parse(packet).unwrap();
        let needed = needs_clamp(&Frame::parse(packet, &Offload::NONE).unwrap(), mtu);
        let mut after = packet.to_vec();
        let changed = clamp(&mut after, &inner, &Offload::NONE, mtu);
        assert_eq!((changed, needed), (after != packet, changed));
        assert_eq!(checksum::verify(&inner, &after), checksum::verify(&inner, packet));
        changed.then(|| {
            let options = TcpSlice::from_slice(&after[inner.header_len..]).unwrap();
            let sizes = options.options_iterator().map(Result::unwrap).filter_map(|option| {
                if let TcpOptionElement::MaximumSegmentSize(size) = option {
                    Some(size)
                } else {
                    None
                }
            });
            sizes.collect()
        })
    }

    #[rstest]
    // The link that offered it is an Ethernet, the way a tunnel over one.
    #[case(IpVersion::V4, 1460, 1432, Some(1392))]
    #[case(IpVersion::V6, 1440, 1432, Some(1372))]
    // It fits already, to the byte.
    #[case(IpVersion::V4, 1392, 1432, None)]
    #[case(IpVersion::V4, 1393, 1432, Some(1392))]
    #[case(IpVersion::V4, 100, 1432, None)]
    // Not below what everybody takes.
    #[case(IpVersion::V4, 1460, 500, Some(536))]
    #[case(IpVersion::V4, 536, 68, None)]
    #[case(IpVersion::V6, 1440, 1000, Some(1220))]
    #[case(IpVersion::V6, 1220, 0, None)]
    fn an_offer_is_lowered_to_what_fits(
        #[case] version: IpVersion,
        #[case] offered: u16,
        #[case] mtu: u16,
        #[case] expected: Option<u16>,
    ) {
        let [high, low] = offered.to_be_bytes();
        for (before, behind) in [
            (&[][..], &[4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7][..]),
            (&[1], &[1, 1, 1]),
            (&[3, 3, 7], &[0]),
            (&[4, 2], &[0, 0xff]),
            (&[1, 2, 4, 0xff, 0xff], &[1, 1, 1]),
        ] {
            let packet = syn(version, &[before, &[2, 4, high, low], behind].concat());
            let twice = before.len() == 5;
            let sizes = clamped(&packet, mtu);
            if twice {
                let limit = limit(version, mtu);
                assert_eq!(sizes, Some(vec![limit, offered.min(limit)]), "every one is lowered");
            } else {
                assert_eq!(sizes, expected.map(|size| vec![size]), "behind {before:?}");
            }
        }
    }

    #[test]
    fn a_syn_ack_is_clamped_and_nothing_else() {
        let mut packet = syn(IpVersion::V4, &[2, 4, 5, 0xb4]);
        for (flags, expected) in [(0x02, true), (0x12, true), (0x10, false), (0x11, false)] {
            packet[33] = flags;
            assert_eq!(clamped(&packet, 1000).is_some(), expected, "{flags:#x}");
        }
        assert_eq!(clamped(&syn(IpVersion::V4, &[]), 1000), None, "no option, none added");
    }

    #[rstest]
    #[case(&[2, 4, 5, 0xb4, 3, 0, 0, 0])]
    #[case(&[2, 4, 5, 0xb4, 3, 1, 0, 0])]
    #[case(&[2, 4, 5, 0xb4, 8, 10, 0, 0])]
    #[case(&[2, 4, 5, 0xb4, 1, 1, 1, 3])]
    #[case(&[2, 3, 5, 0xb4])]
    #[case(&[2, 5, 5, 0xb4, 0, 0, 0, 0])]
    #[case(&[1, 1, 2, 4])]
    #[case(&[1, 1, 1, 2])]
    #[case(&[2, 4, 5, 0xb4, 2, 2, 0, 0])]
    fn a_malformed_list_stays_as_it_is(#[case] options: &[u8]) {
        let packet = syn(IpVersion::V4, &[]);
        let mut packet = [&packet[..40], options, &packet[40..]].concat();
        packet[32] = ((20 + options.len()) / 4 * 16) as u8;
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        let inner = Inner::parse(&packet).unwrap();
        assert!(checksum::complete(&inner, &mut packet));
        assert_eq!(clamped(&packet, 1000), None);
    }

    #[test]
    fn a_partial_checksum_stays_partial() {
        let mut packet = syn(IpVersion::V4, &[2, 4, 5, 0xb4]);
        let inner = Inner::parse(&packet).unwrap();
        let len = (packet.len() - 20) as u32;
        let pseudo = !Sum::pseudo_header(inner.src, inner.dst, 6, len).finish();
        packet[36..38].copy_from_slice(&pseudo.to_be_bytes());
        let checksum = Some(PartialChecksum { start: 20, offset: 16 });
        let offload = Offload { checksum, ..Offload::NONE };
        assert!(clamp(&mut packet, &inner, &offload, 1000));
        assert_eq!(packet[36..38], pseudo.to_be_bytes());
        assert_eq!(packet[42..44], 960_u16.to_be_bytes());
        // One of another place is none of TCP's.
        let mut packet = syn(IpVersion::V4, &[2, 4, 5, 0xb4]);
        let checksum = Some(PartialChecksum { start: 40, offset: 2 });
        assert!(clamp(&mut packet, &inner, &Offload { checksum, ..Offload::NONE }, 1000));
        assert_eq!(checksum::verify(&inner, &packet), Integrity::Valid);
    }

    proptest! {
        #[test]
        fn noise_in_the_options_never_panics(
            version in arbitrary::ip_version(),
            words in prop::collection::vec(
                prop::collection::vec(prop_oneof![0..9_u8, any::<u8>()], 4..=4),
                0..=10,
            ),
            mtu: u16,
        ) {
            let packet = syn(version, &words.concat());
            let before = packet.clone();
            let sizes = clamped(&packet, mtu);
            prop_assert_eq!(packet, before);
            if let Some(sizes) = sizes {
                prop_assert!(sizes.iter().all(|size| *size <= limit(version, mtu)));
            }
        }

        #[test]
        fn other_packets_are_left_alone(packet in arbitrary::packet(), mtu: u16) {
            let mut after = packet.bytes.clone();
            let changed = clamp(&mut after, &packet.inner, &Offload::NONE, mtu);
            let frame = Frame::parse(&packet.bytes, &Offload::NONE).unwrap();
            prop_assert_eq!(changed, needs_clamp(&frame, mtu));
            let syn = matches!(packet.inner.transport,
                Transport::Tcp { flags, .. } if flags.contains(TcpFlags::SYN));
            prop_assert!(syn || !changed);
            prop_assert_eq!(changed, after != packet.bytes);
            if packet.inner.fragment == Fragment::Whole {
                let integrity = |bytes| checksum::verify(&packet.inner, bytes);
                prop_assert_eq!(integrity(&after), integrity(&packet.bytes));
            }
        }
    }
}
