//! Keys that say which packets belong together.
//!
//! A [`FlowKey`] has a direction; a [`CanonicalKey`] is the same for both directions. Both are plain
//! bytes in a fixed layout, the same on every machine, so they can go into a keyed hash as they are.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::hint::select_unpredictable;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::inner::IpVersion;

/// Bytes of a key as [`FlowKey::to_bytes`] gives it.
pub const KEY_LEN: usize = 38;

/// A flow in one direction: addresses, upper-layer protocol, ports.
///
/// Ports are 0 where a packet has none that can be relied on. IPv4 and IPv6 never meet: the key of
/// `10.0.0.1` differs from that of `::ffff:10.0.0.1`.
#[derive(Clone, Copy, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    // Words, so that a key is made, compared and turned round in registers.
    words: [u64; 5],
}

/// Where the parts stand in [`FlowKey::words`]. The first holds version, protocol and both ports
/// in its low 48 bits. The addresses of IPv4 are in the second, the source in its upper half, and the
/// others are zero; one of IPv6 takes two, big end first.
const SMALL: usize = 0;
const ENDS: usize = 1;

impl FlowKey {
    /// The key of what flows from `src` to `dst`; scope and flow label of IPv6 are no part of it.
    ///
    /// # Errors
    /// [`MixedVersions`] if one is IPv4 and the other IPv6.
    pub fn new(src: SocketAddr, dst: SocketAddr, protocol: u8) -> Result<FlowKey, MixedVersions> {
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(MixedVersions { src: src.ip(), dst: dst.ip() });
        }
        Ok(FlowKey::pack(protocol, src.ip(), dst.ip(), (src.port(), dst.port())))
    }

    /// Both addresses are of one version.
    #[inline]
    pub(crate) fn pack(
        protocol: u8,
        src: IpAddr,
        dst: IpAddr,
        (src_port, dst_port): (u16, u16),
    ) -> FlowKey {
        let ports = u32::from(src_port) << 16 | u32::from(dst_port);
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let ends = u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits());
                FlowKey::of_v4(protocol, ports, ends)
            }
            _ => FlowKey::of_v6(protocol, ports, words_of_v6(src), words_of_v6(dst)),
        }
    }

    /// The key of IPv4 addresses and of ports, of either the source in the upper half.
    #[inline]
    pub(crate) fn of_v4(protocol: u8, ports: u32, ends: u64) -> FlowKey {
        FlowKey { words: [small(IpVersion::V4, protocol, ports), ends, 0, 0, 0] }
    }

    /// The key of IPv6 addresses, the upper words first, and of ports, the source in the upper half.
    #[inline]
    pub(crate) fn of_v6(protocol: u8, ports: u32, src: [u64; 2], dst: [u64; 2]) -> FlowKey {
        let small = small(IpVersion::V6, protocol, ports);
        FlowKey { words: [small, src[0], src[1], dst[0], dst[1]] }
    }

    /// The IP version of both addresses.
    #[inline]
    pub fn version(&self) -> IpVersion {
        if self.is_v4() { IpVersion::V4 } else { IpVersion::V6 }
    }

    #[inline]
    fn is_v4(&self) -> bool {
        self.words[SMALL] >> 40 == IpVersion::V4 as u64
    }

    /// The upper-layer protocol; 0 in a key made for [`Stickiness::TwoTuple`].
    #[inline]
    pub fn protocol(&self) -> u8 {
        (self.words[SMALL] >> 32) as u8
    }

    /// Where it comes from.
    #[inline]
    pub fn src(&self) -> IpAddr {
        self.end(self.version(), false)
    }

    /// Where it goes.
    #[inline]
    pub fn dst(&self) -> IpAddr {
        self.end(self.version(), true)
    }

    /// The source port, or 0.
    #[inline]
    pub fn src_port(&self) -> u16 {
        (self.words[SMALL] >> 16) as u16
    }

    /// The destination port, or 0.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        self.words[SMALL] as u16
    }

    /// Where it goes, or else where it comes from; without a branch on which of them, which nobody can
    /// predict. Its version is this one.
    #[inline]
    pub(crate) fn end(&self, version: IpVersion, dst: bool) -> IpAddr {
        match version {
            IpVersion::V4 => {
                let shift = u32::from(!dst) * 32;
                Ipv4Addr::from_bits((self.words[ENDS] >> shift) as u32).into()
            }
            IpVersion::V6 => {
                let [_, src_high, src_low, dst_high, dst_low] = self.words;
                let high = select_unpredictable(dst, dst_high, src_high);
                let low = select_unpredictable(dst, dst_low, src_low);
                address(high, low)
            }
        }
    }

    /// The other direction of the same flow.
    #[inline]
    #[must_use]
    pub fn reversed(&self) -> FlowKey {
        self.turned(self.version(), true)
    }

    /// The other direction, or this one; without a branch on which, which nobody can predict. Its version
    /// is this one.
    #[inline]
    pub(crate) fn turned(&self, version: IpVersion, round: bool) -> FlowKey {
        let [small, a, b, c, d] = self.words;
        let small = turn_ports(small, round);
        let words = match version {
            IpVersion::V4 => [small, a.rotate_left(u32::from(round) * 32), 0, 0, 0],
            IpVersion::V6 => {
                let either = |here, there| select_unpredictable(round, there, here);
                [small, either(a, c), either(b, d), either(c, a), either(d, b)]
            }
        };
        FlowKey { words }
    }

    /// Addresses and protocol, ports 0.
    #[inline]
    #[must_use]
    pub fn portless(&self) -> FlowKey {
        let mut words = self.words;
        words[SMALL] = words[SMALL] >> 32 << 32;
        FlowKey { words }
    }

    /// The key of the flow without its direction.
    #[inline]
    pub fn canonical(&self) -> CanonicalKey {
        self.canonical_and_downward().0
    }

    /// The same, and whether this one goes from the higher end to the lower one.
    ///
    /// Nobody can predict which way a packet goes, so no branch has to.
    #[inline]
    pub(crate) fn canonical_and_downward(&self) -> (CanonicalKey, bool) {
        let [small, src_high, src_low, dst_high, dst_low] = self.words;
        let (src_port, dst_port) = (small >> 16 & 0xffff, small & 0xffff);
        let (words, downward) = if self.is_v4() {
            let ends = self.words[ENDS];
            // Turned round it is the greater one, unless it goes downward; ports decide between equals.
            let (ports, there) = (small as u32, ends.rotate_left(32));
            let one = u128::from(ends) << 64 | u128::from(ports);
            let other = u128::from(there) << 64 | u128::from(ports.rotate_left(16));
            let downward = one > other;
            let ends = select_unpredictable(downward, there, ends);
            ([turn_ports(small, downward), ends, 0, 0, 0], downward)
        } else {
            let src = u128::from(src_high) << 64 | u128::from(src_low);
            let dst = u128::from(dst_high) << 64 | u128::from(dst_low);
            let downward = (src, src_port) > (dst, dst_port);
            let either = |up, down| select_unpredictable(downward, down, up);
            let (a, b) = (either(src_high, dst_high), either(src_low, dst_low));
            let (c, d) = (either(dst_high, src_high), either(dst_low, src_low));
            ([turn_ports(small, downward), a, b, c, d], downward)
        };
        (CanonicalKey(FlowKey { words }), downward)
    }

    /// The key by which flows stay together on one target.
    #[inline]
    pub fn sticky(&self, stickiness: Stickiness) -> CanonicalKey {
        match stickiness {
            Stickiness::FiveTuple => self.canonical(),
            Stickiness::ThreeTuple => self.portless().canonical(),
            Stickiness::TwoTuple => {
                let mut key = self.portless();
                key.words[SMALL] = key.words[SMALL] >> 40 << 40;
                key.canonical()
            }
        }
    }

    /// The key as bytes, the same on every machine and in every version of this crate.
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 0 | IP version, 4 or 6 |
    /// | 1 | protocol |
    /// | 2–17 | source address; IPv4 in the first four bytes, then zeros |
    /// | 18–33 | destination address, likewise |
    /// | 34–35 | source port, big-endian |
    /// | 36–37 | destination port, big-endian |
    #[inline]
    pub fn to_bytes(&self) -> [u8; KEY_LEN] {
        let [small, addresses @ ..] = self.spread();
        let [_, _, version, protocol, ports @ ..] = small.to_be_bytes();
        let mut bytes = [0; KEY_LEN];
        bytes[0] = version;
        bytes[1] = protocol;
        for (bytes, word) in bytes[2..34].chunks_exact_mut(8).zip(addresses) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        bytes[34..].copy_from_slice(&ports);
        bytes
    }

    /// The words, with two for each address also of IPv4, which is in the upper half of the first.
    #[inline]
    fn spread(&self) -> [u64; 5] {
        let [small, ends, ..] = self.words;
        if self.is_v4() { [small, ends >> 32 << 32, 0, ends << 32, 0] } else { self.words }
    }
}

/// The address of IPv6 with these words.
#[inline]
fn address(high: u64, low: u64) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
}

/// The first of [`FlowKey::words`] of the other direction, or of this one.
#[inline]
fn turn_ports(small: u64, round: bool) -> u64 {
    small >> 32 << 32 | u64::from((small as u32).rotate_left(u32::from(round) * 16))
}

/// The first of [`FlowKey::words`].
#[inline]
fn small(version: IpVersion, protocol: u8, ports: u32) -> u64 {
    u64::from(version as u8) << 40 | u64::from(protocol) << 32 | u64::from(ports)
}

impl PartialEq for FlowKey {
    /// All words at once: one branch is cheaper than a call.
    #[inline]
    fn eq(&self, other: &FlowKey) -> bool {
        let pairs = self.words.iter().zip(&other.words);
        pairs.fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
    }
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.words.hash(hasher);
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let src = SocketAddr::new(self.src(), self.src_port());
        let dst = SocketAddr::new(self.dst(), self.dst_port());
        write!(f, "protocol {} {src} > {dst}", self.protocol())
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlowKey({self})")
    }
}

/// Addresses of different IP versions, which no packet can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a flow has one IP version, found {src} and {dst}")]
pub struct MixedVersions {
    /// The source.
    pub src: IpAddr,
    /// The destination.
    pub dst: IpAddr,
}

/// A flow without direction: of its two ends the lower one, by address and then port, stands first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CanonicalKey(FlowKey);

impl CanonicalKey {
    /// The IP version of both ends.
    #[inline]
    pub fn version(&self) -> IpVersion {
        self.0.version()
    }

    /// The upper-layer protocol; 0 in a key made for [`Stickiness::TwoTuple`].
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.0.protocol()
    }

    /// The end with the lower address, and of equal addresses the lower port.
    pub fn low(&self) -> SocketAddr {
        SocketAddr::new(self.0.src(), self.0.src_port())
    }

    /// The other end.
    pub fn high(&self) -> SocketAddr {
        SocketAddr::new(self.0.dst(), self.0.dst_port())
    }

    /// Whether `flow` is this one, in either direction.
    #[inline]
    pub fn is_of(&self, flow: &FlowKey) -> bool {
        self.0 == *flow || self.0.reversed() == *flow
    }

    /// The flow in the direction from [`low`](CanonicalKey::low) to [`high`](CanonicalKey::high).
    #[inline]
    pub fn directed(&self) -> FlowKey {
        self.0
    }

    /// The key as bytes, in the layout of [`FlowKey::to_bytes`], the low end as the source.
    #[inline]
    pub fn to_bytes(&self) -> [u8; KEY_LEN] {
        self.0.to_bytes()
    }

    /// What to hash of the key: the fewest words that tell it from all others, the same on every
    /// machine.
    #[inline]
    pub fn to_hash_words(&self) -> HashWords {
        let [rest, ends @ ..] = self.0.words;
        match self.version() {
            IpVersion::V4 => HashWords::V4 { ends: [ends[0]], rest },
            IpVersion::V6 => HashWords::V6 { ends, rest },
        }
    }

    /// The key as words, for tables: the upper 16 bits of the first are zero, its lower 48 never
    /// are. Those of two keys of IPv4 differ in the first two, if at all. Their meaning is this crate's
    /// alone; [`from_words`](Self::from_words) has it.
    #[inline]
    pub fn to_words(&self) -> [u64; 5] {
        self.0.words
    }

    /// The same words, where they are.
    #[inline]
    pub fn as_words(&self) -> &[u64; 5] {
        &self.0.words
    }

    /// The key that [`to_words`](Self::to_words) gave these words for. Of other words it makes a key
    /// that no packet has.
    #[inline]
    pub fn from_words(words: [u64; 5]) -> CanonicalKey {
        CanonicalKey(FlowKey { words })
    }
}

impl fmt::Display for CanonicalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "protocol {} {} <> {}", self.protocol(), self.low(), self.high())
    }
}

impl fmt::Debug for CanonicalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CanonicalKey({self})")
    }
}

/// What tells a [`CanonicalKey`] from all others, in as few words as can be: for hashes.
///
/// | bytes of IPv4 | of IPv6 | what, little-endian |
/// |---|---|---|
/// | 0–7 | | low address << 32, high address |
/// | | 0–31 | low address, high address, each as two words, the upper first |
/// | 8–13 | 32–37 | version << 40, protocol << 32, low port << 16, high port |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashWords {
    /// Those of IPv4.
    V4 {
        /// The addresses.
        ends: [u64; 1],
        /// The six bytes behind them, and zeros above.
        rest: u64,
    },
    /// Those of IPv6.
    V6 {
        /// The addresses.
        ends: [u64; 4],
        /// The six bytes behind them, and zeros above.
        rest: u64,
    },
}

impl HashWords {
    /// As bytes, for a hash over such.
    pub fn bytes(&self) -> impl Iterator<Item = u8> {
        let (ends, rest): (&[u64], _) = match self {
            HashWords::V4 { ends, rest } => (ends, rest),
            HashWords::V6 { ends, rest } => (ends, rest),
        };
        let rest = rest.to_le_bytes().into_iter().take(6);
        ends.iter().copied().flat_map(u64::to_le_bytes).chain(rest)
    }
}

/// How much of a flow key decides that flows share a target. Alibaba Cloud says 5TCH, 3TCH, 2TCH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Stickiness {
    /// Addresses, protocol, ports: each flow for itself. The default of the clouds.
    #[default]
    FiveTuple,
    /// Addresses and protocol.
    ThreeTuple,
    /// Addresses.
    TwoTuple,
}

impl Stickiness {
    /// All of them.
    pub const ALL: [Stickiness; 3] =
        [Stickiness::FiveTuple, Stickiness::ThreeTuple, Stickiness::TwoTuple];

    /// The name, as configuration files have it.
    pub const fn name(self) -> &'static str {
        match self {
            Stickiness::FiveTuple => "5-tuple",
            Stickiness::ThreeTuple => "3-tuple",
            Stickiness::TwoTuple => "2-tuple",
        }
    }

    /// The stickiness with this name: `5-tuple`, `3-tuple`, `2-tuple`.
    pub fn by_name(name: &str) -> Option<Stickiness> {
        Stickiness::ALL.into_iter().find(|stickiness| stickiness.name() == name)
    }
}

/// The two words of an address; of one of IPv4 they are those of the address that it is mapped to.
#[inline]
fn words_of_v6(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary;

    fn key(src: &str, dst: &str) -> FlowKey {
        FlowKey::new(src.parse().unwrap(), dst.parse().unwrap(), 6).unwrap()
    }

    proptest! {
        #[test]
        fn gives_back_what_it_was_made_of(
            (src, dst) in arbitrary::socket_pair(),
            protocol: u8,
        ) {
            let key = FlowKey::new(src, dst, protocol).unwrap();
            prop_assert_eq!(SocketAddr::new(key.src(), key.src_port()), src);
            prop_assert_eq!(SocketAddr::new(key.dst(), key.dst_port()), dst);
            prop_assert_eq!(key.protocol(), protocol);
            prop_assert_eq!(key.version(), IpVersion::of(src.ip()));
            prop_assert_eq!(key.reversed(), FlowKey::new(dst, src, protocol).unwrap());
            let portless = FlowKey::new((src.ip(), 0).into(), (dst.ip(), 0).into(), protocol);
            prop_assert_eq!(Ok(key.portless()), portless);
        }

        #[test]
        fn both_directions_are_one_flow(key in arbitrary::flow_key()) {
            let hasher = RandomState::new();
            let canonical = key.canonical();
            prop_assert_eq!(canonical, key.reversed().canonical());
            prop_assert_eq!(canonical.to_bytes(), key.reversed().canonical().to_bytes());
            prop_assert_eq!(
                hasher.hash_one(canonical),
                hasher.hash_one(key.reversed().canonical())
            );
            prop_assert!(canonical.low() <= canonical.high());
            prop_assert!([key, key.reversed()].contains(&canonical.directed()));
            for stickiness in Stickiness::ALL {
                prop_assert_eq!(key.sticky(stickiness), key.reversed().sticky(stickiness));
            }
        }

        /// Where both ends have one address, ports decide, and where they have one port, nothing has to.
        #[test]
        fn ends_alike_are_one_flow_too(
            (src, _) in arbitrary::socket_pair(), port: u16, same: bool, protocol: u8,
        ) {
            let dst = SocketAddr::new(src.ip(), if same { src.port() } else { port });
            let key = FlowKey::new(src, dst, protocol).unwrap();
            let (canonical, downward) = key.canonical_and_downward();
            prop_assert_eq!(downward, src.port() > dst.port());
            prop_assert_eq!(canonical.low().port(), src.port().min(dst.port()));
            prop_assert_eq!(canonical, key.reversed().canonical());
            prop_assert_eq!(canonical.directed(), if downward { key.reversed() } else { key });
        }

        #[test]
        fn different_flows_have_different_bytes(
            one in arbitrary::flow_key(),
            other in arbitrary::flow_key(),
        ) {
            prop_assert_eq!(one == other, one.to_bytes() == other.to_bytes());
            let same = one.canonical() == other.canonical();
            prop_assert_eq!(same, one == other || one == other.reversed());
            let hashed = [one, other].map(|key| key.canonical().to_hash_words());
            prop_assert_eq!(same, hashed[0] == hashed[1]);
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        let mut expected = [0; KEY_LEN];
        expected[..6].copy_from_slice(&[4, 6, 10, 0, 0, 1]);
        expected[18..22].copy_from_slice(&[10, 0, 0, 2]);
        expected[34..].copy_from_slice(&[0x12, 0x34, 0x00, 0x50]);
        assert_eq!(key("10.0.0.1:4660", "10.0.0.2:80").to_bytes(), expected);

        let six = key("[2001:db8::1]:4660", "[fd00::2]:80").to_bytes();
        assert_eq!(six[..6], [6, 6, 0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!([six[17], six[18], six[33]], [1, 0xfd, 2]);
    }

    #[test]
    fn hashed_words_are_as_documented() {
        let hashed = |key: FlowKey| key.canonical().to_hash_words();
        let four = hashed(key("10.0.0.2:80", "10.0.0.1:4660"));
        let (ends, rest) = ([0x0a00_0001_0a00_0002], 0x0406_1234_0050);
        assert_eq!(four, HashWords::V4 { ends, rest });
        let bytes = [2, 0, 0, 10, 1, 0, 0, 10, 0x50, 0, 0x34, 0x12, 6, 4];
        assert_eq!(four.bytes().collect::<Vec<_>>(), bytes);
        let six = hashed(key("[2001:db8::1]:4660", "[fd00::2]:80"));
        let (ends, rest) = ([0x2001_0db8 << 32, 1, 0xfd00 << 48, 2], 0x0606_1234_0050);
        assert_eq!(six, HashWords::V6 { ends, rest });
        assert_eq!(six.bytes().count(), 38);
    }

    #[test]
    fn stickiness_says_what_counts() {
        let one = key("10.0.0.1:1000", "10.0.0.2:80");
        let same_protocol = key("10.0.0.2:443", "10.0.0.1:2000");
        let other_protocol =
            FlowKey::new("10.0.0.2:53".parse().unwrap(), "10.0.0.1:9".parse().unwrap(), 17);
        let together = |stickiness: Stickiness| {
            let sticky = one.sticky(stickiness);
            let others = [same_protocol, other_protocol.unwrap()];
            others.map(|other| other.sticky(stickiness) == sticky)
        };
        assert_eq!(together(Stickiness::FiveTuple), [false, false]);
        assert_eq!(together(Stickiness::ThreeTuple), [true, false]);
        assert_eq!(together(Stickiness::TwoTuple), [true, true]);
        for stickiness in Stickiness::ALL {
            assert_eq!(Stickiness::by_name(stickiness.name()), Some(stickiness));
        }
        assert_eq!(Stickiness::by_name("4-tuple"), None);
    }

    #[test]
    fn mapped_addresses_are_not_ipv4() {
        let four = key("10.0.0.1:1", "10.0.0.2:2");
        let six = key("[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:2");
        assert_ne!(four, six);
        // Nor are the addresses whose words an IPv4 key holds.
        assert_ne!(four, key("[a00:1:a00:2::]:1", "[::]:2"));
        let mixed = FlowKey::new("1.2.3.4:1".parse().unwrap(), "[::1]:2".parse().unwrap(), 6);
        assert_eq!(
            mixed.unwrap_err().to_string(),
            "a flow has one IP version, found 1.2.3.4 and ::1"
        );
    }

    #[test]
    fn is_shown_with_its_direction() {
        let key = key("10.0.0.2:1000", "10.0.0.1:80");
        assert_eq!(key.to_string(), "protocol 6 10.0.0.2:1000 > 10.0.0.1:80");
        assert_eq!(key.canonical().to_string(), "protocol 6 10.0.0.1:80 <> 10.0.0.2:1000");
    }
}
