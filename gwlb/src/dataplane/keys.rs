//! The keys of a gateway, all derived from one secret: placement, and the flow cookie with its epochs.
//!
//! Keys are wiped when whoever holds them lets go, all but [that of tables](Keys::tables), and never
//! shown. What the compiler moves through registers and the stack on the way is not: nobody else may
//! look there ([`netio::process::privileges::hide_memory`]).
//!
//! Placement never rotates, or flows would move; the cookie does, by the calendar, so that every
//! gateway with the same secret changes at the same time without talking.

mod sip;

use ahash::RandomState;
use geneve::flow::{CanonicalKey, HashWords};
use siphasher::sip::SipHasher13;
use zeroize::Zeroize;

use super::select::TargetId;
use crate::fault::{self, Fault};

/// What the gateways of a cluster share: 32 random bytes.
#[derive(Clone)]
pub struct Secret(Wiped<[u8; Self::LEN]>);

impl Secret {
    /// How many bytes a secret has.
    pub const LEN: usize = 32;

    /// A secret from its bytes.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(Wiped(bytes))
    }

    fn derive(&self, purpose: &str, number: u64) -> Key {
        let mut hasher = blake3::Hasher::new_keyed(&self.0.0);
        hasher.update(purpose.as_bytes()).update(&number.to_be_bytes());
        let mut key = Wiped([0; 16]);
        let mut output = hasher.finalize_xof();
        output.fill(&mut key.0);
        output.zeroize();
        hasher.zeroize();
        key
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A key for SipHash.
type Key = Wiped<[u8; 16]>;

/// What is overwritten when it is let go: [`zeroize::Zeroizing`], but that a constant can be one.
#[derive(Clone)]
struct Wiped<B: Zeroize>(B);

impl<B: Zeroize> Drop for Wiped<B> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// How long one cookie key stamps, in seconds; it is accepted for as long again. Appliances keep
/// the header of a flow for as long as the longest idle timeout, 6000 s (reference: AWS listener
/// attribute `tcp.idle_timeout.seconds`), so a day leaves room.
pub const EPOCH_SECONDS: u64 = 86_400;

/// All keys that the data plane uses, at one epoch.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Chooses the worker, the source port and the target of a flow; the same for ever.
    pub placement: PlacementKey,
    /// Spreads what tables in memory hold, so that nobody outside can choose what collides there; the
    /// same for ever. It is not wiped: who has it can make a table slow, and nothing else.
    pub tables: RandomState,
    /// Marks the packets that probe the way through an appliance; the same for ever.
    pub probe: PlacementKey,
    /// Stamps and verifies cookies.
    pub cookie: CookieKeys,
}

impl Keys {
    /// Derives the keys for an epoch: the number of [`EPOCH_SECONDS`] since 1970.
    pub fn derive(secret: &Secret, epoch: u64) -> Self {
        let rotated = if fault::on(Fault::PlacementRotates) { epoch } else { 0 };
        let everybodys =
            fault::on(Fault::PlacementUnkeyed).then(|| Secret::from_bytes([0; Secret::LEN]));
        let placer = everybodys.as_ref().unwrap_or(secret);
        Self {
            placement: placer.derive("gwlb placement", rotated).into(),
            tables: tables(secret),
            probe: secret.derive("gwlb probe", 0).into(),
            cookie: CookieKeys::derive(secret, epoch),
        }
    }

    /// Lends out the key for placement: to the kernel, which chooses by it whom it gives a packet
    /// to. No other key is anybody else's to see.
    pub(crate) fn lend_placement<T>(&self, to: impl FnOnce(&[u8; 16]) -> T) -> T {
        to(&self.placement.key.0)
    }
}

fn tables(secret: &Secret) -> RandomState {
    let [a, b] = [0, 1].map(|half| u128::from_le_bytes(secret.derive("gwlb tables", half).0));
    RandomState::with_seeds(a as u64, (a >> 64) as u64, b as u64, (b >> 64) as u64)
}

/// A key for hashes that must be the same on every machine.
#[derive(Clone)]
pub struct PlacementKey {
    key: Key,
    /// All hashes by it begin with this.
    begun: Wiped<sip::State>,
}

impl From<Key> for PlacementKey {
    fn from(key: Key) -> Self {
        Self { begun: Wiped(sip::State::new(&key.0)), key }
    }
}

impl PlacementKey {
    /// The keyed hash of some bytes.
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        SipHasher13::new_with_key(&self.key.0).hash(bytes)
    }

    /// That of [what tells a flow from all others](CanonicalKey::to_hash_words).
    #[expect(clippy::inline_always, reason = "as with the cookie's MAC")]
    #[inline(always)]
    pub fn hash_flow(&self, flow: &CanonicalKey) -> u64 {
        let begun = self.begun.0;
        match flow.to_hash_words() {
            HashWords::V4 { ends, rest } => {
                begun.with_all::<1, 1>(ends).finish::<1, 3>(with_len::<1>(rest))
            }
            HashWords::V6 { ends, rest } => {
                begun.with_all::<1, 4>(ends).finish::<1, 3>(with_len::<4>(rest))
            }
        }
    }
}

/// The last word of a message that has six bytes behind so many words.
#[inline]
fn with_len<const WORDS: u64>(rest: u64) -> u64 {
    debug_assert!(rest >> 48 == 0, "{rest:#x} has more than six bytes");
    rest | (8 * WORDS + 6) << 56
}

impl std::fmt::Debug for PlacementKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlacementKey(…)")
    }
}

/// The flow cookie: a keyed MAC over (endpoint, target, flow), cut to 30 bits, with the epoch of
/// its key in the two bits above.
///
/// It binds a returned packet to what was sent: a packet with another tuple, from another target,
/// or for another endpoint does not verify. A packet recorded within an epoch can be replayed.
///
/// Who guesses one for a flow of which he has seen none, at a target, and tells the epochs, which
/// are no secret, hits with 2⁻³⁰; with cookies of 32 random bits, of whose four tags three are
/// accepted, with ¾ · 2⁻³⁰. A packet is tried against up to three flows
/// ([`Return`](super::Return)): two for an ordinary one, with ports and without.
#[derive(Clone)]
pub struct CookieKeys {
    epoch: u64,
    /// The keys of the previous, the present and the next epoch; the last for gateways whose
    /// clock is ahead of ours.
    keys: [Key; 3],
}

const MAC_BITS: u32 = 30;
const MAC_MASK: u32 = (1 << MAC_BITS) - 1;

impl CookieKeys {
    fn derive(secret: &Secret, epoch: u64) -> Self {
        let key = |epoch| secret.derive("gwlb cookie", epoch);
        Self { epoch, keys: [key(epoch.wrapping_sub(1)), key(epoch), key(epoch.wrapping_add(1))] }
    }

    /// The epoch that stamps.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The cookie for a flow that goes by way of `endpoint` (its wire id) to `target`.
    pub fn stamp(&self, endpoint: u64, target: TargetId, flow: &CanonicalKey) -> u32 {
        self.stamper(endpoint).stamp(target, flow)
    }

    /// What stamps at one endpoint.
    pub fn stamper(&self, endpoint: u64) -> Stamper {
        Stamper { begun: Wiped(begin_mac(&self.keys[1], endpoint)), tag: Self::tag(self.epoch) }
    }

    /// Whether `cookie` was stamped for this flow by us or by a gateway with our secret, in the
    /// present epoch or in one of its neighbours.
    pub fn verify(
        &self,
        cookie: u32,
        endpoint: u64,
        target: TargetId,
        flow: &CanonicalKey,
    ) -> bool {
        self.verify_bits::<MAC_BITS>(cookie, endpoint, target, flow)
    }

    /// The same for a MAC of fewer bits, with which forgeries are so frequent that they can be
    /// counted.
    fn verify_bits<const BITS: u32>(
        &self,
        cookie: u32,
        endpoint: u64,
        target: TargetId,
        flow: &CanonicalKey,
    ) -> bool {
        let mask = (1 << BITS) - 1;
        // The tag is the epoch's number modulo 4. How far it is from that of the previous epoch says
        // which of the keys it is for; there is none for the fourth.
        let previous = Self::tag(self.epoch.wrapping_sub(1));
        let number = (cookie & !MAC_MASK).wrapping_sub(previous) >> MAC_BITS;
        let refused = fault::on(Fault::PreviousEpochRefused) && number == 0
            || fault::on(Fault::NextEpochRefused) && number == 2;
        let key = self.keys.get(number as usize).filter(|_| !refused);
        key.is_some_and(|key| (cookie ^ mac(begin_mac(key, endpoint), target, flow)) & mask == 0)
    }

    const fn tag(epoch: u64) -> u32 {
        ((epoch & 0b11) as u32) << MAC_BITS
    }
}

impl std::fmt::Debug for CookieKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CookieKeys").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// What stamps the cookies of flows at one endpoint, in one epoch: with that part of the MAC done already
/// that all of them share.
pub struct Stamper {
    begun: Wiped<sip::State>,
    tag: u32,
}

impl Stamper {
    /// The cookie for a flow that goes to `target`.
    #[inline]
    pub fn stamp(&self, target: TargetId, flow: &CanonicalKey) -> u32 {
        self.tag | mac(self.begun.0, target, flow)
    }
}

impl std::fmt::Debug for Stamper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stamper(…)")
    }
}

/// The MAC is SipHash-2-4 over the endpoint's id on the wire, the flow's addresses, the target's
/// identity, and the other six bytes that [tell the flow from all others](CanonicalKey::to_hash_words),
/// all little-endian. The lengths tell the versions apart, so no two flows make one message. This is
/// its beginning.
#[inline]
fn begin_mac(key: &Key, endpoint: u64) -> sip::State {
    let endpoint = if fault::on(Fault::CookieWithoutEndpoint) { 0 } else { endpoint };
    sip::State::new(&key.0).with_all::<2, 1>([endpoint])
}

/// And this the rest of it. The target comes late: who has to choose it first has the rest begun
/// meanwhile.
#[expect(clippy::inline_always, reason = "it is short, and asked for in few places")]
#[inline(always)]
fn mac(begun: sip::State, target: TargetId, flow: &CanonicalKey) -> u32 {
    let target = if fault::on(Fault::CookieWithoutTarget) { 0 } else { target.get() };
    let (begun, last) = match flow.to_hash_words() {
        HashWords::V4 { ends, rest } => (begun.with_all::<2, 1>(ends), with_len::<3>(rest)),
        HashWords::V6 { ends, rest } => (begun.with_all::<2, 4>(ends), with_len::<6>(rest)),
    };
    begun.with_all::<2, 1>([target]).finish::<2, 4>(last) as u32 & MAC_MASK
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::SocketAddr;

    use geneve::arbitrary;
    use geneve::flow::{FlowKey, Stickiness};
    use proptest::prelude::*;
    use siphasher::sip::SipHasher24;

    use super::vectors::{KEY, SIP_1_3, SIP_2_4, siphash};
    use super::*;

    fn at(epoch: u64) -> CookieKeys {
        Keys::derive(&Secret::from_bytes([1; 32]), epoch).cookie
    }

    fn flow(port: u16) -> FlowKey {
        FlowKey::new(
            SocketAddr::from(([10, 0, 0, 1], port)),
            SocketAddr::from(([10, 0, 0, 2], 80)),
            6,
        )
        .unwrap()
    }

    fn target(n: u8) -> TargetId {
        TargetId::new("fw", SocketAddr::from(([192, 0, 2, n], 6081)))
    }

    #[test]
    fn both_directions_carry_the_same_cookie() {
        let there = at(9).stamp(5, target(1), &flow(1000).canonical());
        let back = at(9).stamp(5, target(1), &flow(1000).reversed().canonical());
        assert_eq!(there, back);
    }

    #[test]
    fn tables_are_spread_by_a_key_of_their_own() {
        let hash = |secret: u8, epoch| {
            Keys::derive(&Secret::from_bytes([secret; 32]), epoch).tables.hash_one(5)
        };
        assert_eq!(hash(1, 9), hash(1, 10), "the same for ever");
        assert_ne!(hash(1, 9), hash(2, 9), "and another one for another secret");
    }

    #[test]
    fn a_cookie_is_good_for_one_flow_endpoint_and_target() {
        let keys = at(9);
        let cookie = keys.stamp(5, target(1), &flow(1000).canonical());
        assert!(keys.verify(cookie, 5, target(1), &flow(1000).canonical()));
        assert!(!keys.verify(cookie, 6, target(1), &flow(1000).canonical()), "other endpoint");
        assert!(!keys.verify(cookie, 5, target(2), &flow(1000).canonical()), "other target");
        assert!(!keys.verify(cookie, 5, target(1), &flow(1001).canonical()), "other flow");
        assert!(!keys.verify(cookie ^ 1, 5, target(1), &flow(1000).canonical()), "other bit");
        assert!(!keys.verify(cookie ^ (1 << 31), 5, target(1), &flow(1000).canonical()));
    }

    #[test]
    fn neighbouring_epochs_verify_and_others_do_not() {
        let cookie = at(9).stamp(5, target(1), &flow(1000).canonical());
        for (epoch, accepted) in
            [(7, false), (8, true), (9, true), (10, true), (11, false), (13, false)]
        {
            let verified = at(epoch).verify(cookie, 5, target(1), &flow(1000).canonical());
            assert_eq!(verified, accepted, "epoch {epoch}");
        }
    }

    /// Every way in which bytes come out when somebody prints them.
    fn shows(text: &str, bytes: &[u8]) -> bool {
        let list = bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let plain = String::from_utf8_lossy(bytes);
        [list, hex.to_uppercase(), hex, plain.into_owned()].iter().any(|form| text.contains(form))
    }

    /// Our hashes are those that were published; and so is the plain implementation that judges what no vector can say.
    #[test]
    fn hashes_are_the_published_ones() {
        let message: Vec<u8> = (0..64).collect();
        for (len, (sip_1_3, sip_2_4)) in SIP_1_3.into_iter().zip(SIP_2_4).enumerate() {
            let message = &message[..len];
            assert_eq!(PlacementKey::from(Wiped(KEY)).hash(message), sip_1_3, "{len}");
            assert_eq!(siphash::<1, 3>(&KEY, message), sip_1_3, "{len}");
            assert_eq!(siphash::<2, 4>(&KEY, message), sip_2_4, "{len}");
            assert_eq!(SipHasher24::new_with_key(&KEY).hash(message), sip_2_4, "{len}");
        }
    }

    /// The same of words, as many as are hashed anywhere, with any number of bytes behind them.
    #[test]
    fn hashes_of_words_are_the_published_ones() {
        fn hold<const WORDS: usize>() {
            let words = std::array::from_fn(|word| {
                u64::from_le_bytes(std::array::from_fn(|byte| (8 * word + byte) as u8))
            });
            for rest in 0..8 {
                let len = 8 * WORDS + rest;
                let bytes = (8 * WORDS..len).rev();
                let last = bytes.fold(0, |last, byte| last << 8 | byte as u64);
                let last = last | (len as u64) << 56;
                let state = sip::State::new(&KEY);
                let sip_1_3 = state.with_all::<1, WORDS>(words).finish::<1, 3>(last);
                assert_eq!(sip_1_3, SIP_1_3[len], "{len}");
                let sip_2_4 = state.with_all::<2, WORDS>(words).finish::<2, 4>(last);
                assert_eq!(sip_2_4, SIP_2_4[len], "{len}");
            }
        }
        hold::<0>();
        hold::<1>();
        hold::<3>();
        hold::<4>();
        hold::<6>();
    }

    proptest! {
        /// A flow is hashed as the bytes of its words are.
        #[test]
        fn a_flow_is_hashed_as_its_bytes(key: [u8; 16], flow in arbitrary::flow_key()) {
            let (flow, key) = (flow.canonical(), PlacementKey::from(Wiped(key)));
            let bytes: Vec<u8> = flow.to_hash_words().bytes().collect();
            prop_assert_eq!(key.hash_flow(&flow), key.hash(&bytes));
        }

        /// A cookie is made of SipHash-2-4 over what its documentation says, in that order.
        #[test]
        fn a_cookie_is_the_hash_of_endpoint_target_and_flow(
            key: [u8; 16], endpoint: u64, group in "[a-z]{0,9}", address in arbitrary::socket_pair(),
            flow in arbitrary::flow_key(), sticky in prop::sample::select(&Stickiness::ALL[..]),
        ) {
            let (flow, target) = (flow.sticky(sticky), TargetId::new(&group, address.0));
            let words: Vec<u8> = flow.to_hash_words().bytes().collect();
            let (addresses, rest) = words.split_at(words.len() - 6);
            let [endpoint_bytes, target_bytes] = [endpoint, target.get()].map(u64::to_le_bytes);
            let message = [&endpoint_bytes, addresses, &target_bytes, rest].concat();
            let expected = siphash::<2, 4>(&key, &message);
            let keys = CookieKeys { epoch: 6, keys: [[0; 16], key, [0; 16]].map(Wiped) };
            let cookie = keys.stamp(endpoint, target, &flow);
            prop_assert_eq!(u64::from(cookie), 2 << 30 | expected & 0x3fff_ffff);
            prop_assert_eq!(keys.stamper(endpoint).stamp(target, &flow), cookie);
        }

        /// And a target's identity of SipHash-1-3 over group and address.
        #[test]
        fn an_identity_is_the_hash_of_group_and_address(
            group in "[a-z]{0,99}", address in arbitrary::socket_pair(),
        ) {
            let address = address.0;
            let mut message = (group.len() as u64).to_be_bytes().to_vec();
            message.extend(group.as_bytes());
            match address.ip() {
                std::net::IpAddr::V4(ip) => message.extend(ip.octets()),
                std::net::IpAddr::V6(ip) => message.extend(ip.octets()),
            }
            message.extend(address.port().to_be_bytes());
            let expected = siphash::<1, 3>(b"gwlb target id 1", &message);
            prop_assert_eq!(TargetId::new(&group, address).get(), expected);
        }
    }

    /// Every pair of the epoch that stamps and the epoch that verifies, all the way round the two
    /// bits and across the ends of the number.
    #[test]
    fn epochs_turn_without_a_gap() {
        let secret = Secret::from_bytes([1; 32]);
        let numbers = [0_u64, 1, 2, 3, 4, 5, 20_000, u64::MAX - 4, u64::MAX - 1, u64::MAX];
        for stamped in numbers {
            let flow = flow(1000).canonical();
            let cookie = CookieKeys::derive(&secret, stamped).stamp(5, target(1), &flow);
            assert_eq!(u64::from(cookie >> 30), stamped % 4, "{stamped}");
            for distance in -9..=9_i64 {
                let at = stamped.wrapping_add_signed(distance);
                let verified = CookieKeys::derive(&secret, at).verify(cookie, 5, target(1), &flow);
                assert_eq!(verified, distance.abs() <= 1, "{stamped} at {at}");
            }
        }
    }

    /// Each of the 32 bits counts: no other cookie within one bit of the right one is taken.
    #[test]
    fn every_bit_of_a_cookie_counts() {
        for epoch in 4..8 {
            let keys = at(epoch);
            let flow = flow(1000).canonical();
            let cookie = keys.stamp(5, target(1), &flow);
            assert!(keys.verify(cookie, 5, target(1), &flow));
            for bit in 0..32 {
                assert!(!keys.verify(cookie ^ 1 << bit, 5, target(1), &flow), "{epoch} {bit}");
            }
            for tag in (0..4).filter(|tag| u64::from(*tag) != epoch % 4) {
                let other = cookie & MAC_MASK | tag << MAC_BITS;
                assert!(!keys.verify(other, 5, target(1), &flow), "{epoch} {tag}");
            }
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let bytes = *b"a secret of thirty-two bytes 012";
        let secret = Secret::from_bytes(bytes);
        let keys = Keys::derive(&secret, 3);
        let shown = format!("{secret:?} {secret:#?} {keys:?} {keys:#?}");
        let mut parts: Vec<&[u8]> = vec![&bytes[..4], &keys.placement.key.0[..4]];
        parts.extend(keys.cookie.keys.iter().map(|key| &key.0[..4]));
        for part in parts {
            assert!(!shows(&shown, part), "{part:?} is in {shown}");
        }
        assert!(shows(&format!("{bytes:?}"), &bytes[..4]), "the test can fail");
    }

    #[test]
    fn secrets_are_wiped() {
        struct Watched<'a>(&'a Cell<u32>);
        impl Zeroize for Watched<'_> {
            fn zeroize(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let times = Cell::new(0);
        let watched = Wiped(Watched(&times));
        assert_eq!(times.get(), 0);
        drop(watched);
        assert_eq!(times.get(), 1);
        // And there is nothing in a secret, or in what a snapshot has of it, that is not such, but for
        // the key of tables, which vouches for nothing.
        let secret = Secret::from_bytes([1; 32]);
        let Keys { placement, tables: _, probe, cookie } = Keys::derive(&secret, 3);
        let Secret(Wiped(_)) = &secret;
        for PlacementKey { key: Wiped(_), begun: Wiped(_) } in [&placement, &probe] {}
        let CookieKeys { epoch: _, keys: [Wiped(_), Wiped(_), Wiped(_)] } = &cookie;
        let Stamper { begun: Wiped(_), tag: _ } = cookie.stamper(5);
    }

    /// A generator of numbers, for cookies that nobody stamped (splitmix64).
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Of all cookies that there are, each of the accepted epochs has exactly one for a flow.
    #[test]
    fn exactly_three_cookies_are_good_for_a_flow() {
        const BITS: u32 = 12;
        let keys = at(9);
        for port in 1..=20 {
            let flow = flow(port).canonical();
            let good = (0..4_u32 << BITS).filter(|number| {
                let cookie = (number >> BITS) << MAC_BITS | number & ((1 << BITS) - 1);
                keys.verify_bits::<BITS>(cookie, 5, target(1), &flow)
            });
            assert_eq!(good.count(), 3, "port {port}");
        }
    }

    /// How many of so many random cookies are taken by a MAC of so many bits, for packets that are
    /// tried with their ports and without; and how many standard deviations that is off.
    fn forge<const BITS: u32>(tries: u32) -> (u32, f64) {
        let (keys, mut state) = (at(9), 4);
        let mut taken = 0_u32;
        for _ in 0..tries {
            let number = random(&mut state);
            let (cookie, port) = (number as u32, (number >> 32) as u16 | 1);
            let flow = flow(port);
            let candidates = [flow.canonical(), flow.portless().canonical()];
            let hit = |flow| keys.verify_bits::<BITS>(cookie, 5, target(1), flow);
            taken += u32::from(candidates.iter().any(hit));
        }
        // Three of the four tags, and two candidates, one of which is enough.
        let miss = 1.0 - 1.0 / f64::from(1 << BITS);
        let expected = f64::from(tries) * 0.75 * (1.0 - miss * miss);
        (taken, (f64::from(taken) - expected) / expected.sqrt())
    }

    #[test]
    fn forgeries_are_as_rare_as_the_width_says() {
        let (taken, off) = forge::<8>(500_000);
        assert!(off.abs() < 5.0, "{taken} were taken, {off:.1} standard deviations off");
    }

    #[test]
    #[ignore = "takes a minute without optimisation; cargo test -p gwlb --lib -- --ignored forgeries"]
    fn forgeries_are_as_rare_as_a_greater_width_says() {
        let (taken, off) = forge::<12>(10_000_000);
        println!("{taken} of 10,000,000 were taken, {off:.2} standard deviations off");
        assert!(off.abs() < 5.0, "{taken} were taken, {off:.1} standard deviations off");
    }

    /// Every bit of the MAC counts, and none of them more than the others.
    #[test]
    fn each_bit_of_the_mac_is_set_half_of_the_time() {
        const FLOWS: u16 = 10_000;
        let keys = at(9);
        let mut set = [0_u32; MAC_BITS as usize];
        for port in 1..=FLOWS {
            let cookie = keys.stamp(5, target(1), &flow(port).canonical());
            for (bit, count) in set.iter_mut().enumerate() {
                *count += cookie >> bit & 1;
            }
            for bit in 0..MAC_BITS {
                let forged = cookie ^ 1 << bit;
                assert!(!keys.verify(forged, 5, target(1), &flow(port).canonical()), "bit {bit}");
            }
        }
        // Five standard deviations of a fair coin.
        let (half, bound) = (f64::from(FLOWS) / 2.0, 2.5 * f64::from(FLOWS).sqrt());
        for (bit, count) in set.into_iter().enumerate() {
            assert!((f64::from(count) - half).abs() < bound, "bit {bit}: {count} of {FLOWS}");
        }
    }
}
