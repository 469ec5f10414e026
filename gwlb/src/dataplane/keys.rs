//! The keys of a gateway, all derived from one secret: placement, ownership, and the flow cookie
//! with its epochs.
//!
//! Placement never rotates, or flows would move; the cookie does, by the calendar, so that every
//! gateway with the same secret changes at the same time without talking.

use std::hash::Hasher;

use geneve::flow::CanonicalKey;
use siphasher::sip::{SipHasher13, SipHasher24};

use super::select::TargetId;

/// What the gateways of a cluster share: 32 random bytes.
#[derive(Clone)]
pub struct Secret([u8; Self::LEN]);

impl Secret {
    /// How many bytes a secret has.
    pub const LEN: usize = 32;

    /// A secret from its bytes.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    fn derive(&self, purpose: &str, number: u64) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(purpose.as_bytes()).update(&number.to_be_bytes());
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        key
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How long one cookie key stamps, in seconds; it is accepted for as long again. Appliances keep
/// the header of a flow for as long as the longest idle timeout, 6000 s (reference: AWS listener
/// attribute `tcp.idle_timeout.seconds`), so a day leaves room.
pub const EPOCH_SECONDS: u64 = 86_400;

/// All keys that the data plane uses, at one epoch.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Chooses targets; the same for ever.
    pub placement: PlacementKey,
    /// Chooses the worker and source port of a flow; the same for ever.
    pub ownership: PlacementKey,
    /// Marks the packets that probe the way through an appliance; the same for ever.
    pub probe: PlacementKey,
    /// Stamps and verifies cookies.
    pub cookie: CookieKeys,
}

impl Keys {
    /// Derives the keys for an epoch: the number of [`EPOCH_SECONDS`] since 1970.
    pub fn derive(secret: &Secret, epoch: u64) -> Self {
        Self {
            placement: PlacementKey(secret.derive("gwlb placement", 0)),
            ownership: PlacementKey(secret.derive("gwlb ownership", 0)),
            probe: PlacementKey(secret.derive("gwlb probe", 0)),
            cookie: CookieKeys::derive(secret, epoch),
        }
    }
}

/// A key for hashes that must be the same on every machine.
#[derive(Clone)]
pub struct PlacementKey([u8; 16]);

impl PlacementKey {
    /// The keyed hash of some bytes.
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(bytes);
        hasher.finish()
    }
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
#[derive(Clone)]
pub struct CookieKeys {
    epoch: u64,
    /// The keys of the previous, the present and the next epoch; the last for gateways whose
    /// clock is ahead of ours.
    keys: [[u8; 16]; 3],
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
        Self::tag(self.epoch) | mac(&self.keys[1], endpoint, target, flow)
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
        let epochs = [self.epoch.wrapping_sub(1), self.epoch, self.epoch.wrapping_add(1)];
        epochs.iter().zip(&self.keys).any(|(&epoch, key)| {
            cookie & !MAC_MASK == Self::tag(epoch)
                && cookie & MAC_MASK == mac(key, endpoint, target, flow)
        })
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

fn mac(key: &[u8; 16], endpoint: u64, target: TargetId, flow: &CanonicalKey) -> u32 {
    let (endpoint, target) = (endpoint.to_be_bytes(), target.get().to_be_bytes());
    cookie_hash(key, [&endpoint, &target, &flow.to_bytes()]) as u32 & MAC_MASK
}

/// SipHash-2-4 over pieces that follow each other.
fn cookie_hash(key: &[u8; 16], pieces: [&[u8]; 3]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(key);
    for piece in pieces {
        hasher.write(piece);
    }
    hasher.finish()
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use geneve::arbitrary;
    use geneve::flow::FlowKey;
    use proptest::prelude::*;

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

    /// Our hashes are those that were published, however the message is cut into pieces; and so is
    /// the plain implementation that judges what no vector can say.
    #[test]
    fn hashes_are_the_published_ones() {
        let message: Vec<u8> = (0..64).collect();
        for (len, (sip_1_3, sip_2_4)) in SIP_1_3.into_iter().zip(SIP_2_4).enumerate() {
            let message = &message[..len];
            assert_eq!(PlacementKey(KEY).hash(message), sip_1_3, "{len}");
            assert_eq!(siphash::<1, 3>(&KEY, message), sip_1_3, "{len}");
            assert_eq!(siphash::<2, 4>(&KEY, message), sip_2_4, "{len}");
            for first in 0..=len {
                for second in first..=len {
                    let pieces = [&message[..first], &message[first..second], &message[second..]];
                    assert_eq!(cookie_hash(&KEY, pieces), sip_2_4, "{first} {second} {len}");
                }
            }
        }
    }

    proptest! {
        /// A cookie is made of SipHash-2-4 over what its documentation says, in that order.
        #[test]
        fn a_cookie_is_the_hash_of_endpoint_target_and_flow(
            key: [u8; 16], endpoint: u64, group in "[a-z]{0,9}", address in arbitrary::socket_pair(),
            flow in arbitrary::flow_key(),
        ) {
            let (flow, target) = (flow.canonical(), TargetId::new(&group, address.0));
            let mut message = endpoint.to_be_bytes().to_vec();
            message.extend(target.get().to_be_bytes());
            message.extend(flow.to_bytes());
            let expected = siphash::<2, 4>(&key, &message);
            prop_assert_eq!(mac(&key, endpoint, target, &flow), expected as u32 & 0x3fff_ffff);
            let keys = CookieKeys { epoch: 6, keys: [[0; 16], key, [0; 16]] };
            let cookie = keys.stamp(endpoint, target, &flow);
            prop_assert_eq!(u64::from(cookie), 2 << 30 | expected & 0x3fff_ffff);
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
        let secret = Secret::from_bytes([0x5a; 32]);
        let shown = format!("{secret:?} {:?}", Keys::derive(&secret, 3));
        assert!(!shown.contains("90") && !shown.contains("5a"), "{shown}");
    }
}
