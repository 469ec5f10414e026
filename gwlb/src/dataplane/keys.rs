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
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(&endpoint.to_be_bytes());
    hasher.write(&target.get().to_be_bytes());
    hasher.write(&flow.to_bytes());
    hasher.finish() as u32 & MAC_MASK
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use geneve::flow::FlowKey;

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

    #[test]
    fn secrets_do_not_show() {
        let secret = Secret::from_bytes([0x5a; 32]);
        let shown = format!("{secret:?} {:?}", Keys::derive(&secret, 3));
        assert!(!shown.contains("90") && !shown.contains("5a"), "{shown}");
    }
}
