//! Keys that say which packets belong together.
//!
//! A [`FlowKey`] has a direction; a [`CanonicalKey`] is the same for both directions. Both are plain
//! bytes in a fixed layout, the same on every machine, so they can go into a keyed hash as they are.

use std::fmt;
use std::hash::{Hash, Hasher};
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
/// in its low 48 bits; an address takes two, big end first, IPv4 in the upper half of the first.
const SMALL: usize = 0;
const SRC: usize = 1;
const DST: usize = 3;

impl FlowKey {
    /// The key of what flows from `src` to `dst`; scope and flow label of IPv6 are no part of it.
    ///
    /// # Errors
    /// [`MixedVersions`] if one is IPv4 and the other IPv6.
    pub fn new(src: SocketAddr, dst: SocketAddr, protocol: u8) -> Result<FlowKey, MixedVersions> {
        let version = IpVersion::of(src.ip());
        if version != IpVersion::of(dst.ip()) {
            return Err(MixedVersions { src: src.ip(), dst: dst.ip() });
        }
        let ports = (src.port(), dst.port());
        Ok(FlowKey::pack(version, protocol, src.ip(), dst.ip(), ports))
    }

    /// Both addresses are of `version`.
    #[inline]
    pub(crate) fn pack(
        version: IpVersion,
        protocol: u8,
        src: IpAddr,
        dst: IpAddr,
        (src_port, dst_port): (u16, u16),
    ) -> FlowKey {
        let [a, b] = src_port.to_be_bytes();
        let [c, d] = dst_port.to_be_bytes();
        let small = u64::from_be_bytes([0, 0, version as u8, protocol, a, b, c, d]);
        let [src_high, src_low] = address_words(src);
        let [dst_high, dst_low] = address_words(dst);
        FlowKey { words: [small, src_high, src_low, dst_high, dst_low] }
    }

    /// The key of addresses of `version` as [`address_words`] gives them, and both ports, the source
    /// in the upper half.
    #[inline]
    pub(crate) fn of_words(
        version: IpVersion,
        protocol: u8,
        ports: u32,
        src: [u64; 2],
        dst: [u64; 2],
    ) -> FlowKey {
        let small = u64::from(version as u8) << 40 | u64::from(protocol) << 32 | u64::from(ports);
        FlowKey { words: [small, src[0], src[1], dst[0], dst[1]] }
    }

    /// The IP version of both addresses.
    #[inline]
    pub fn version(&self) -> IpVersion {
        if self.small()[2] == IpVersion::V4 as u8 { IpVersion::V4 } else { IpVersion::V6 }
    }

    /// The upper-layer protocol; 0 in a key made for [`Stickiness::TwoTuple`].
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.small()[3]
    }

    /// Where it comes from.
    #[inline]
    pub fn src(&self) -> IpAddr {
        self.address(SRC)
    }

    /// Where it goes.
    #[inline]
    pub fn dst(&self) -> IpAddr {
        self.address(DST)
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

    /// The other direction of the same flow.
    #[inline]
    #[must_use]
    pub fn reversed(&self) -> FlowKey {
        let [small, src_high, src_low, dst_high, dst_low] = self.words;
        let ports = (small as u32).rotate_left(16);
        let small = small >> 32 << 32 | u64::from(ports);
        FlowKey { words: [small, dst_high, dst_low, src_high, src_low] }
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
        let [_, src_high, src_low, dst_high, dst_low] = self.words;
        let src = (src_high, src_low, self.src_port());
        let dst = (dst_high, dst_low, self.dst_port());
        CanonicalKey(if src <= dst { *self } else { self.reversed() })
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
        let [_, _, version, protocol, ports @ ..] = self.small();
        let mut bytes = [0; KEY_LEN];
        bytes[0] = version;
        bytes[1] = protocol;
        for (bytes, word) in bytes[2..34].chunks_exact_mut(8).zip(&self.words[SRC..]) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        bytes[34..].copy_from_slice(&ports);
        bytes
    }

    /// The same bytes as words, for a hash that reads such: each a number of 64 bits, little-endian.
    /// The last has six of the bytes, and zeros above.
    #[inline]
    pub fn to_byte_words(&self) -> [u64; KEY_LEN.div_ceil(8)] {
        let [small, a, b, c, d] = self.words.map(u64::swap_bytes);
        // Version and protocol come first, so that all else is two bytes further on.
        let (first, ports) = (small >> 16 & 0xffff, small >> 32);
        let join = |low: u64, high: u64| low >> 48 | high << 16;
        [first | a << 16, join(a, b), join(b, c), join(c, d), join(d, ports)]
    }

    #[inline]
    fn small(&self) -> [u8; 8] {
        self.words[SMALL].to_be_bytes()
    }

    #[inline]
    fn address(&self, at: usize) -> IpAddr {
        let [high, low] = [self.words[at], self.words[at + 1]];
        match self.version() {
            IpVersion::V4 => Ipv4Addr::from_bits((high >> 32) as u32).into(),
            IpVersion::V6 => Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(),
        }
    }
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

    /// These bytes as words; see [`FlowKey::to_byte_words`].
    #[inline]
    pub fn to_byte_words(&self) -> [u64; KEY_LEN.div_ceil(8)] {
        self.0.to_byte_words()
    }

    /// What to hash of the key: the fewest words that tell it from all others, the same on every
    /// machine.
    #[inline]
    pub fn to_hash_words(&self) -> HashWords {
        let words = self.0.words;
        match self.version() {
            IpVersion::V4 => HashWords::V4([words[SMALL], words[SRC] | words[DST] >> 32]),
            IpVersion::V6 => HashWords::V6(words),
        }
    }

    /// The key as words, for tables: the upper 16 bits of the first are zero, its lower 48 never
    /// are. Their meaning is this crate's alone; [`from_words`](Self::from_words) has it.
    #[inline]
    pub fn to_words(&self) -> [u64; 5] {
        self.0.words
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

/// The fewest words that tell a [`CanonicalKey`] from all others.
///
/// | IPv4 | IPv6 | what |
/// |---|---|---|
/// | 0 | 0 | version << 40, protocol << 32, low port << 16, high port |
/// | 1 | | low address << 32, high address |
/// | | 1–4 | low address, high address, each as two words, the upper first |
///
/// For a hash over bytes, they are numbers of 64 bits, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashWords {
    /// Those of IPv4.
    V4([u64; 2]),
    /// Those of IPv6.
    V6([u64; 5]),
}

impl HashWords {
    /// As bytes, for a hash over such.
    pub fn bytes(&self) -> impl Iterator<Item = u8> {
        let words: &[u64] = match self {
            HashWords::V4(words) => words,
            HashWords::V6(words) => words,
        };
        words.iter().copied().flat_map(u64::to_le_bytes)
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

#[inline]
fn address_words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [u64::from(address.to_bits()) << 32, 0],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [(bits >> 64) as u64, bits as u64]
        }
    }
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
            let words = key.to_byte_words().map(u64::to_le_bytes);
            let (bytes, above) = words.as_flattened().split_at(KEY_LEN);
            prop_assert_eq!((bytes, above), (&key.to_bytes()[..], &[0; 2][..]));
            let portless = FlowKey::new((src.ip(), 0).into(), (dst.ip(), 0).into(), protocol);
            prop_assert_eq!(Ok(key.portless()), portless);
        }

        #[test]
        fn both_directions_are_one_flow(key in arbitrary::flow_key()) {
            let hasher = RandomState::new();
            let canonical = key.canonical();
            prop_assert_eq!(canonical, key.reversed().canonical());
            prop_assert_eq!(canonical.to_bytes(), key.reversed().canonical().to_bytes());
            prop_assert_eq!(canonical.to_byte_words(), canonical.directed().to_byte_words());
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
        assert_eq!(four, HashWords::V4([0x0406_1234_0050, 0x0a00_0001_0a00_0002]));
        let bytes = [0x50, 0, 0x34, 0x12, 6, 4, 0, 0, 2, 0, 0, 10, 1, 0, 0, 10];
        assert_eq!(four.bytes().collect::<Vec<_>>(), bytes);
        let six = hashed(key("[2001:db8::1]:4660", "[fd00::2]:80"));
        let words = [0x0606_1234_0050, 0x2001_0db8 << 32, 1, 0xfd00 << 48, 2];
        assert_eq!(six, HashWords::V6(words));
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
        // Nor is the address whose bytes an IPv4 key holds.
        assert_ne!(four, key("[a00:1::]:1", "[a00:2::]:2"));
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
