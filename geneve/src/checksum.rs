//! Internet checksums (RFC 1071): computed, verified, completed in place, updated.
//!
//! A checksum is a `u16` as the header's big-endian field has it.

use std::net::IpAddr;

use crate::inner::{Fragment, Inner, IpVersion, protocol};

/// A running sum over bytes that may lie in several pieces.
///
/// Words are summed as the machine has them in memory, since the order of their bytes does not matter
/// before the end (RFC 1071 §2, B), and as many at a time as a register holds: what such a sum
/// carries out at its top comes in again at its bottom, as it does with 16 bits.
#[derive(Debug, Default, Clone, Copy)]
pub struct Sum {
    /// The sum of the pieces.
    sum: u64,
    /// Whether the pieces so far end in the middle of a word.
    odd: bool,
}

impl Sum {
    /// A sum over nothing.
    pub fn new() -> Sum {
        Sum::default()
    }

    /// A sum over the pseudo-header of TCP, UDP (RFC 9293 §3.1, RFC 768) or an upper layer of IPv6
    /// (RFC 8200 §8.1). `len` is in bytes: the upper layer's header and payload.
    #[inline]
    pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> Sum {
        let address = |address| match address {
            IpAddr::V4(address) => sum_array(&address.octets()),
            IpAddr::V6(address) => sum_array(&address.octets()),
        };
        Sum { sum: plus(plus(address(src), address(dst)), tail(protocol, len)), odd: false }
    }

    /// Adds the bytes that follow; a piece may end at an odd byte.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let sum = sum_slice(bytes);
        // A piece that begins in the middle of a word has all its bytes in the other place of theirs.
        let sum = if self.odd { fold(sum).swap_bytes().into() } else { sum };
        self.sum = plus(self.sum, sum);
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The checksum. Over bytes that include a correct one it is 0.
    #[inline]
    pub fn finish(&self) -> u16 {
        u16::from_be(!fold(self.sum))
    }

    /// The checksum as UDP sends it: RFC 768 has a 0 sent as all ones, since 0 means none.
    #[inline]
    pub fn finish_udp(&self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

/// Two sums in one, with what they carry added again.
#[inline]
fn plus(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry)
}

/// A sum in one word, with what it carries added again.
#[inline]
fn fold(sum: u64) -> u16 {
    let (sum, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let sum = sum + u32::from(carry);
    let (sum, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
    sum + u16::from(carry)
}

/// The sum over the pseudo-header behind its addresses. The forms for IPv4 and IPv6 differ only in
/// zeros, which add nothing.
#[inline]
fn tail(protocol: u8, len: u32) -> u64 {
    u64::from(len.to_be()) + u64::from(u16::from(protocol).to_be())
}

/// The sum over bytes, as if a zero followed where they end in the middle of a word.
///
/// Each addition takes in what the one before has carried out, as processors have an instruction for;
/// two such chains at a time, since each of its links waits for the one before.
#[inline]
fn sum_slice(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<128>();
    let (mut sum, mut other) = (0, 0);
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        let (low, high) = words.split_at(8);
        sum = chain(sum, low);
        other = chain(other, high);
    }
    let mut sum = plus(sum, other);
    let (blocks, rest) = rest.as_chunks::<32>();
    for block in blocks {
        sum = chain(sum, block.as_chunks().0);
    }
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        sum = plus(sum, u64::from_ne_bytes(*word));
    }
    let (words, rest) = rest.as_chunks::<4>();
    let mut last: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    last += match *rest {
        [a, b, c] => u64::from(u32::from_ne_bytes([a, b, c, 0])),
        [a, b] => u64::from(u16::from_ne_bytes([a, b])),
        [a] => u64::from(u16::from_ne_bytes([a, 0])),
        _ => 0,
    };
    plus(sum, last)
}

/// The sum over bytes whose number the compiler knows: a multiple of four.
#[inline]
fn sum_array<const N: usize>(bytes: &[u8; N]) -> u64 {
    const { assert!(N.is_multiple_of(4), "nothing is left out") };
    let (words, rest) = bytes.as_chunks::<8>();
    let last = rest.first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
    plus(chain(0, words), last.into())
}

/// A sum, and what is to be added to it.
#[inline]
fn chain(mut sum: u64, words: &[[u8; 8]]) -> u64 {
    let mut carry = false;
    for word in words {
        (sum, carry) = sum.carrying_add(u64::from_ne_bytes(*word), carry);
    }
    // There is room: no addition has both carried and left all ones.
    sum + u64::from(carry)
}

/// The checksum of bytes, for example of an IPv4 header whose checksum field is 0.
#[inline]
pub fn of(bytes: &[u8]) -> u16 {
    let mut sum = Sum::new();
    sum.add(bytes);
    sum.finish()
}

/// The checksum after `old` became `new` among the summed bytes (RFC 1624, equation 3).
///
/// The bytes stood at an even offset, and `N` is even. For UDP, leave a checksum of 0 alone and
/// send a result of 0 as 0xffff.
#[inline]
#[must_use]
pub fn update<const N: usize>(checksum: u16, old: [u8; N], new: [u8; N]) -> u16 {
    let mut sum = Sum::new();
    sum.add(&(!checksum).to_be_bytes());
    sum.add(&old.map(|byte| !byte));
    sum.add(&new);
    sum.finish()
}

/// What became of verifying a packet's checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// The IPv4 header's and the upper layer's are both right.
    Valid,
    /// The IPv4 header is right, and the upper layer has none: UDP over IPv4 with a zero.
    Absent,
    /// The IPv4 header is right, and the upper layer's cannot be told: a fragment, a protocol that
    /// is not known here, a source route that hides the final destination, a home address in place
    /// of the source.
    Unknown,
    /// One of them is wrong; UDP over IPv6 without one is (RFC 8200 §8.1).
    Invalid,
}

/// Verifies the checksums of the packet that `inner` was parsed from.
pub fn verify(inner: &Inner, packet: &[u8]) -> Integrity {
    let Some(packet) = packet.get(..inner.total_len) else {
        return Integrity::Unknown;
    };
    if inner.version == IpVersion::V4 && of(&packet[..inner.header_len]) != 0 {
        return Integrity::Invalid;
    }
    let Some(upper) = Upper::of(inner, packet) else {
        return Integrity::Unknown;
    };
    let covered = &packet[upper.start..upper.end];
    if inner.protocol == protocol::UDP && covered[upper.field..upper.field + 2] == [0, 0] {
        return match inner.version {
            IpVersion::V4 => Integrity::Absent,
            IpVersion::V6 => Integrity::Invalid,
        };
    }
    let mut sum = upper.seed(inner);
    sum.add(covered);
    if sum.finish() == 0 { Integrity::Valid } else { Integrity::Invalid }
}

/// Whether the checksums of an ordinary packet are right, for much less than [`verify`] takes.
///
/// The packet is whole and ends where `packet` does, its IP header has neither options nor extension
/// headers, and behind that is TCP, or UDP that fills it and has a checksum.
#[inline]
pub fn plain_is_valid(version: IpVersion, protocol: u8, packet: &[u8]) -> bool {
    // A sum of all ones is what a right checksum makes of bytes that are not all zeros.
    let right = |sum| fold(sum) == 0xffff;
    match version {
        IpVersion::V4 => packet.split_first_chunk::<20>().is_some_and(|(ip, upper)| {
            let (fields, addresses) = (ip.first_chunk::<12>(), ip.last_chunk::<8>());
            let (Some(fields), Some(addresses)) = (fields, addresses) else { return false };
            let addresses = sum_array(addresses);
            let pseudo_header = plus(addresses, tail(protocol, upper.len() as u32));
            right(plus(sum_array(fields), addresses))
                && right(plus(pseudo_header, sum_slice(upper)))
        }),
        IpVersion::V6 => packet.split_first_chunk::<40>().is_some_and(|(ip, upper)| {
            let Some(addresses) = ip.last_chunk::<32>() else { return false };
            let pseudo_header = plus(sum_array(addresses), tail(protocol, upper.len() as u32));
            right(plus(pseudo_header, sum_slice(upper)))
        }),
    }
}

/// Writes the checksums of the packet that `inner` was parsed from: the IPv4 header's, and the
/// upper layer's where it can be known (see [`Integrity::Unknown`]). Returns whether both are done.
pub fn complete(inner: &Inner, packet: &mut [u8]) -> bool {
    let Some(packet) = packet.get_mut(..inner.total_len) else {
        return false;
    };
    if inner.version == IpVersion::V4 {
        let header = &mut packet[..inner.header_len];
        header[10..12].fill(0);
        let checksum = of(header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    let Some(upper) = Upper::of(inner, packet) else {
        return false;
    };
    let covered = &mut packet[upper.start..upper.end];
    let field = upper.field..upper.field + 2;
    covered[field.clone()].fill(0);
    let mut sum = upper.seed(inner);
    sum.add(covered);
    let checksum = if inner.protocol == protocol::UDP { sum.finish_udp() } else { sum.finish() };
    covered[field].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Which bytes of a packet an upper-layer checksum covers, and where in them it stands.
struct Upper {
    start: usize,
    end: usize,
    field: usize,
    pseudo_header: bool,
}

impl Upper {
    /// `None` where the checksum cannot be known. `packet` is `inner.total_len` bytes long.
    fn of(inner: &Inner, packet: &[u8]) -> Option<Upper> {
        if inner.fragment != Fragment::Whole || inner.readdressed {
            return None;
        }
        let start = inner.header_len;
        let (end, field, header_len) = match (inner.version, inner.protocol) {
            (_, protocol::TCP) => (inner.total_len, 16, 20),
            (_, protocol::UDP) => (start + udp_len(packet.get(start..)?)?, 6, 8),
            (IpVersion::V4, protocol::ICMP) | (IpVersion::V6, protocol::ICMPV6) => {
                (inner.total_len, 2, 4)
            }
            _ => return None,
        };
        let pseudo_header = inner.protocol != protocol::ICMP;
        let in_order = start + header_len <= end && end <= packet.len();
        in_order.then_some(Upper { start, end, field, pseudo_header })
    }

    fn seed(&self, inner: &Inner) -> Sum {
        if self.pseudo_header {
            let len = (self.end - self.start) as u32;
            Sum::pseudo_header(inner.src, inner.dst, inner.protocol, len)
        } else {
            Sum::new()
        }
    }
}

fn udp_len(udp: &[u8]) -> Option<usize> {
    let header = udp.first_chunk::<8>()?;
    Some(usize::from(u16::from_be_bytes([header[4], header[5]])))
}

#[cfg(test)]
mod tests {
    use etherparse::checksum::Sum16BitWords;
    use etherparse::{Icmpv6Slice, Ipv4Header, TcpSlice, UdpSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary::{self, ValidPacket};

    /// RFC 1071 §4.1, word by word.
    fn obvious(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// What a packet's checksums are worth when nothing is wrong with them.
    fn expected(inner: &Inner) -> Integrity {
        let known = matches!(inner.protocol, protocol::TCP | protocol::UDP)
            || inner.version == IpVersion::V4 && inner.protocol == protocol::ICMP
            || inner.version == IpVersion::V6 && inner.protocol == protocol::ICMPV6;
        if known && inner.fragment == Fragment::Whole && !inner.readdressed {
            Integrity::Valid
        } else {
            Integrity::Unknown
        }
    }

    #[test]
    fn no_carry_is_lost() {
        let mut bytes = [0xff; 300];
        for len in 0..bytes.len() {
            assert_eq!(of(&bytes[..len]), obvious(&bytes[..len]), "{len}");
        }
        // Sums that are all ones just when there is something to carry, wherever that is.
        for at in 0..bytes.len() - 1 {
            bytes[at..at + 2].copy_from_slice(&[0, 1]);
            for end in [299, 300] {
                assert_eq!(of(&bytes[..end]), obvious(&bytes[..end]), "{at}");
            }
            bytes[at..at + 2].copy_from_slice(&[0xff; 2]);
        }
    }

    #[test]
    fn sums_the_example_of_rfc_1071() {
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(of(&[]), 0xffff);
        assert_eq!(Sum::new().finish(), 0xffff);
    }

    proptest! {
        #[test]
        fn pieces_sum_like_the_whole(pieces: Vec<Vec<u8>>) {
            let mut sum = Sum::new();
            for piece in &pieces {
                sum.add(piece);
            }
            let whole = pieces.concat();
            prop_assert_eq!(sum.finish(), obvious(&whole));
            prop_assert_eq!(of(&whole), obvious(&whole));
            prop_assert_ne!(sum.finish_udp(), 0);
        }

        #[test]
        fn an_update_is_a_new_sum(
            bytes in prop::collection::vec(any::<u8>(), 8..200),
            at: prop::sample::Index,
            new: [u8; 4],
        ) {
            let at = at.index((bytes.len() - 4) / 2 + 1) * 2;
            let mut changed = bytes.clone();
            changed[at..at + 4].copy_from_slice(&new);
            let old = bytes[at..at + 4].try_into().unwrap();
            // Both zeros of one's complement are the same checksum.
            let both = |checksum| if checksum == 0xffff { 0 } else { checksum };
            prop_assert_eq!(both(update(of(&bytes), old, new)), both(of(&changed)));
        }

        /// Any number of updates, one after the other, of words anywhere: exactly the checksum that
        /// `etherparse` and the plain sum find, and never the other zero (RFC 1624 section 3).
        #[test]
        fn updates_add_up(
            bytes in prop::collection::vec(any::<u8>(), 8..100),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<[u8; 2]>()), 1..20),
        ) {
            let mut bytes = bytes;
            bytes[0] |= 1;
            let mut checksum = of(&bytes);
            for (at, new) in changes {
                // All but the first word, so that never all is zero.
                let at = 2 + at.index(bytes.len() / 2 - 1) * 2;
                let old = [bytes[at], bytes[at + 1]];
                bytes[at..at + 2].copy_from_slice(&new);
                checksum = update(checksum, old, new);
                prop_assert_eq!(checksum, obvious(&bytes));
                let judge = Sum16BitWords::new().add_slice(&bytes).ones_complement();
                prop_assert_eq!(checksum, u16::from_be(judge));
            }
        }

        /// The generator completes its packets with [`complete`]: `etherparse` judges that.
        #[test]
        fn completed_packets_are_right(packet in arbitrary::packet()) {
            let ValidPacket { mut bytes, inner } = packet;
            prop_assert_eq!(verify(&inner, &bytes), expected(&inner));
            if inner.version == IpVersion::V4 {
                let (header, _) = Ipv4Header::from_slice(&bytes).unwrap();
                prop_assert_eq!(header.calc_header_checksum(), header.header_checksum);
            }
            if expected(&inner) == Integrity::Valid {
                let upper = &bytes[inner.header_len..];
                let right = match (inner.src, inner.dst, inner.protocol) {
                    (IpAddr::V4(src), IpAddr::V4(dst), protocol::TCP) => {
                        let tcp = TcpSlice::from_slice(upper).unwrap();
                        let sum = tcp.calc_checksum_ipv4(src.octets(), dst.octets()).unwrap();
                        tcp.checksum() == sum
                    }
                    (IpAddr::V6(src), IpAddr::V6(dst), protocol::TCP) => {
                        let tcp = TcpSlice::from_slice(upper).unwrap();
                        let sum = tcp.calc_checksum_ipv6(src.octets(), dst.octets()).unwrap();
                        tcp.checksum() == sum
                    }
                    (IpAddr::V4(src), IpAddr::V4(dst), protocol::UDP) => {
                        let udp = UdpSlice::from_slice(upper).unwrap().to_header();
                        let (src, dst) = (src.octets(), dst.octets());
                        let sum = udp.calc_checksum_ipv4_raw(src, dst, &upper[8..]).unwrap();
                        udp.checksum == sum
                    }
                    (IpAddr::V6(src), IpAddr::V6(dst), protocol::UDP) => {
                        let udp = UdpSlice::from_slice(upper).unwrap().to_header();
                        let (src, dst) = (src.octets(), dst.octets());
                        let sum = udp.calc_checksum_ipv6_raw(src, dst, &upper[8..]).unwrap();
                        udp.checksum == sum
                    }
                    // `etherparse` sums what it knows of the message, not what is there.
                    (_, _, protocol::ICMP) => obvious(upper) == 0,
                    (IpAddr::V6(src), IpAddr::V6(dst), _) => {
                        let icmp = Icmpv6Slice::from_slice(upper).unwrap();
                        icmp.is_checksum_valid(src.octets(), dst.octets())
                    }
                    (..) => false,
                };
                prop_assert!(right);
            }
            // Doing it again changes nothing.
            let before = bytes.clone();
            prop_assert_eq!(complete(&inner, &mut bytes), expected(&inner) == Integrity::Valid);
            prop_assert_eq!(bytes, before);
        }

        /// Of an ordinary packet, damaged or not, [`plain_is_valid`] says what [`verify`] says.
        #[test]
        fn of_plain_packets_both_say_the_same(
            packet in arbitrary::packet(),
            at: prop::sample::Index,
            change: u8,
        ) {
            let ValidPacket { mut bytes, .. } = packet;
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            let Ok(inner) = Inner::parse(&bytes) else { return Ok(()) };
            let ip = inner.version.header_len();
            let fills = match inner.protocol {
                protocol::TCP => true,
                protocol::UDP => {
                    udp_len(&bytes[ip..]) == Some(bytes.len() - ip)
                        && bytes[ip + 6..ip + 8] != [0, 0]
                }
                _ => false,
            };
            let whole = inner.fragment == Fragment::Whole;
            if fills && whole && (inner.header_len, inner.total_len) == (ip, bytes.len()) {
                let valid = verify(&inner, &bytes) == Integrity::Valid;
                prop_assert_eq!(plain_is_valid(inner.version, inner.protocol, &bytes), valid);
            }
        }

        #[test]
        fn a_changed_byte_is_noticed(
            packet in arbitrary::packet(),
            at: prop::sample::Index,
            change in 1..=255_u8,
        ) {
            let ValidPacket { mut bytes, inner } = packet;
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            let in_ipv4_header = inner.version == IpVersion::V4 && at < inner.header_len;
            let in_upper = at >= inner.header_len && expected(&inner) == Integrity::Valid;
            let found = verify(&inner, &bytes);
            let udp_checksum = inner.protocol == protocol::UDP
                && (inner.header_len + 4..inner.header_len + 8).contains(&at);
            if udp_checksum {
                // A UDP length says how much is summed, and a checksum may become 0.
                prop_assert_ne!(found, Integrity::Valid);
            } else if in_ipv4_header || in_upper {
                prop_assert_eq!(found, Integrity::Invalid);
            }
        }

        #[test]
        fn a_cut_packet_is_left_alone(packet in arbitrary::packet()) {
            for len in 0..packet.bytes.len() {
                let mut cut = packet.bytes[..len].to_vec();
                prop_assert_eq!(verify(&packet.inner, &cut), Integrity::Unknown);
                prop_assert!(!complete(&packet.inner, &mut cut));
                prop_assert_eq!(&cut, &packet.bytes[..len]);
            }
        }

        /// Bytes that are not the packet that was parsed are judged somehow, but never panic.
        #[test]
        fn a_stranger_does_no_harm(
            packet in arbitrary::packet(),
            mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            verify(&packet.inner, &bytes);
            complete(&packet.inner, &mut bytes);
        }
    }

    /// RFC 1624 section 3, exhaustively: every old word with every new word that is at an edge of
    /// one's complement, and the other way round, beside words that bring the sum to its edges. Equal
    /// to the last bit, so that the two zeros of one's complement are never mixed up.
    #[test]
    fn every_word_is_updated_as_it_would_be_summed() {
        let edges = [0_u16, 1, 2, 0x7fff, 0x8000, 0x8001, 0xfffd, 0xfffe, 0xffff];
        for beside in [1_u16, 2, 0x7fff, 0x8000, 0xfffe, 0xffff] {
            let sum = |word: u16| obvious(&[beside.to_be_bytes(), word.to_be_bytes()].concat());
            let edges = edges.map(|edge| (edge, sum(edge)));
            for word in 0..=u16::MAX {
                let checksum = sum(word);
                for (edge, of_edge) in edges {
                    let to = update(checksum, word.to_be_bytes(), edge.to_be_bytes());
                    assert_eq!(to, of_edge, "{word:#x} to {edge:#x} beside {beside:#x}");
                    let from = update(of_edge, edge.to_be_bytes(), word.to_be_bytes());
                    assert_eq!(from, checksum, "{edge:#x} to {word:#x} beside {beside:#x}");
                }
            }
        }
    }

    /// RFC 768: "If the computed checksum is zero, it is transmitted as all ones".
    #[test]
    fn a_udp_checksum_of_0_is_sent_as_all_ones() {
        let mut packet = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        packet.extend([0, 0, 0, 0, 0, 10, 0, 0]);
        // With the pseudo-header's protocol and length, and the length, this sums to all ones.
        packet.extend((0xffff_u16 - 17 - 10 - 10).to_be_bytes());
        let inner = Inner::parse(&packet).unwrap();
        assert!(complete(&inner, &mut packet));
        assert_eq!(packet[26..28], [0xff, 0xff]);
        assert_eq!(verify(&inner, &packet), Integrity::Valid);
    }

    #[test]
    fn a_message_too_short_for_a_checksum_has_none() {
        for len in 0..4 {
            let mut packet = vec![0x45, 0, 0, 20 + len, 0, 0, 0, 0, 64, 1, 0, 0];
            packet.resize(20 + usize::from(len), 0);
            let inner = Inner::parse(&packet).unwrap();
            assert!(!complete(&inner, &mut packet));
            assert_eq!(verify(&inner, &packet), Integrity::Unknown);
        }
    }

    #[test]
    fn a_udp_checksum_may_be_absent_over_ipv4_only() {
        let udp = [0, 1, 0, 2, 0, 8, 0, 0];
        let mut four = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let header = of(&four);
        four[10..12].copy_from_slice(&header.to_be_bytes());
        four.extend(udp);
        let mut six = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        six.extend([1; 32]);
        six.extend(udp);
        for (mut packet, integrity) in [(four, Integrity::Absent), (six, Integrity::Invalid)] {
            let inner = Inner::parse(&packet).unwrap();
            assert_eq!(verify(&inner, &packet), integrity);
            assert!(complete(&inner, &mut packet));
            assert_eq!(verify(&inner, &packet), Integrity::Valid);
        }
    }
}
