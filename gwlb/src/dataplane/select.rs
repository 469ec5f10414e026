//! Weighted rendezvous hashing: which target a new flow goes to.
//!
//! The choice is a function of the key, the flow and the set of (target, weight) and of nothing
//! else, so every gateway that shares the secret chooses alike, and a change of the set moves
//! exactly the flows that it must. No float takes part: results would differ between CPUs.

use std::cmp::Ordering;
use std::hash::Hasher;
use std::hint::select_unpredictable;
use std::ops::Deref;

use geneve::flow::CanonicalKey;
use siphasher::sip::SipHasher13;

use super::keys::PlacementKey;
use crate::fault::{self, Fault};

/// A target's identity, the same on every gateway and across restarts: placement and cookies
/// depend on it, so it derives from the names in the configuration and not from positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(u64);

impl TargetId {
    /// The identity of the target at `address` (written as the configuration's canonical text)
    /// in `group`.
    pub fn new(group: &str, address: std::net::SocketAddr) -> Self {
        // The key is public on purpose: an identity is no secret, it only has to be stable.
        let mut hasher = SipHasher13::new_with_key(b"gwlb target id 1");
        hasher.write(&(group.len() as u64).to_be_bytes());
        hasher.write(group.as_bytes());
        match address.ip() {
            std::net::IpAddr::V4(ip) => hasher.write(&ip.octets()),
            std::net::IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write(&address.port().to_be_bytes());
        Self(hasher.finish())
    }

    /// The identity of the endpoint with this id on the wire, where one of several is chosen.
    pub fn of_endpoint(wire_id: u64) -> Self {
        let mut hasher = SipHasher13::new_with_key(b"gwlb endpoint id");
        hasher.write(&wire_id.to_be_bytes());
        Self(hasher.finish())
    }

    /// The identity as a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A target that may be chosen, with its effective weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<T> {
    /// What the caller gets back when this one is chosen.
    pub target: T,
    /// Who it is.
    pub id: TargetId,
    /// Its share of the new flows, relative to the other weights; 0 is never chosen.
    pub weight: u16,
}

/// Whose claim on any flow is the smallest there is.
const NOBODY: TargetId = TargetId(0);

/// Candidates, ready to be chosen from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates<T> {
    all: Box<[Candidate<T>]>,
    /// If all have the same weight, who they are, in the order of their identities, and as many behind
    /// them as make it fours, who are never chosen; or else nothing. Fours, since to count them one by
    /// one takes a third of the time.
    equal: Box<[[Equal<T>; 4]]>,
}

/// One of several candidates that have the same weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Equal<T> {
    id: TargetId,
    target: T,
}

impl<T: Copy> From<Vec<Candidate<T>>> for Candidates<T> {
    fn from(all: Vec<Candidate<T>>) -> Self {
        let alike = all.iter().all(|it| it.weight == all[0].weight && it.weight > 0);
        let equal = all.iter().filter(|_| alike);
        let mut equal: Vec<_> =
            equal.map(|&Candidate { id, target, .. }| Equal { id, target }).collect();
        equal.sort_by_key(|it| it.id);
        if let Some(first) = equal.first().copied() {
            let nobody = Equal { id: NOBODY, ..first };
            equal.resize(equal.len().next_multiple_of(4), nobody);
        }
        let (fours, _) = equal.as_chunks();
        Self { all: all.into(), equal: fours.into() }
    }
}

impl<T> Default for Candidates<T> {
    fn default() -> Self {
        Self { all: Box::default(), equal: Box::default() }
    }
}

impl<T> Deref for Candidates<T> {
    type Target = [Candidate<T>];

    #[inline]
    fn deref(&self) -> &[Candidate<T>] {
        &self.all
    }
}

/// Chooses for a flow among the candidates: the one with the smallest `−log2(u) / weight`, `u`
/// uniform in (0, 1] and particular to (key, flow, target). `None` when none has a weight.
///
/// Ties go to the same one everywhere: of unequal weights, whose logarithm has 32 bits of fraction, so
/// that about one pair in 2³² ties, to the smaller identity; of equal ones, of which the largest `u` is
/// chosen as it is, one pair in 2⁶⁴ does.
#[inline]
pub fn choose<T: Copy>(
    key: &PlacementKey,
    flow: &CanonicalKey,
    candidates: &Candidates<T>,
) -> Option<T> {
    choose_for(key.hash_flow(flow), candidates)
}

/// The same for a flow with this hash.
#[inline]
pub fn choose_for<T: Copy>(flow: u64, candidates: &Candidates<T>) -> Option<T> {
    let Candidates { all, equal } = candidates;
    if fault::on(Fault::PlacementByPosition) {
        return all.get(flow as usize % all.len().max(1)).map(|it| it.target);
    }
    let Some([first, ..]) = equal.first() else {
        return choose_by_weight(flow, all);
    };
    // The smallest cost has the largest `u`. Which that is nobody can predict, and no branch should
    // have to; nor should each have to wait for the one before, so every other one is compared with.
    let mut best = [first.target; 2];
    let mut largest = [0; 2];
    for four in equal {
        for (number, it) in four.iter().enumerate() {
            let (u, half) = (mix(flow, it.id), number % 2);
            best[half] = select_unpredictable(u > largest[half], it.target, best[half]);
            largest[half] = u.max(largest[half]);
        }
    }
    Some(select_unpredictable(largest[1] > largest[0], best[1], best[0]))
}

#[inline(never)]
fn choose_by_weight<T: Copy>(flow: u64, candidates: &[Candidate<T>]) -> Option<T> {
    candidates
        .iter()
        .filter(|candidate| candidate.weight > 0)
        .map(|candidate| (minus_log2(mix(flow, candidate.id)), candidate))
        .min_by(|a, b| by_cost(*a, *b))
        .map(|(_, candidate)| candidate.target)
}

/// Which of two candidates a flow with these costs goes to: the lesser one.
fn by_cost<T>((cost_a, a): (u64, &Candidate<T>), (cost_b, b): (u64, &Candidate<T>)) -> Ordering {
    let weight =
        |it: &Candidate<T>| if fault::on(Fault::WeightIgnored) { 1 } else { u64::from(it.weight) };
    // cost_a / weight_a against cost_b / weight_b, multiplied out: costs stay below 2^39 and weights
    // below 2^16, so nothing overflows and nothing is rounded.
    let left = cost_a * weight(b);
    let right = cost_b * weight(a);
    left.cmp(&right).then(a.id.cmp(&b.id))
}

/// What [`choose`] weighs: one candidate's claim on a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score<T> {
    /// The candidate.
    pub candidate: Candidate<T>,
    /// `u`, in units of 2⁻⁶⁴.
    pub draw: u64,
    /// `−log2(u)` with 32 bits of fraction. Divided by the weight it is what is compared, and the
    /// smallest wins.
    pub cost: u64,
}

impl<T> Score<T> {
    /// `−log2(u) / weight`, for people: the smallest wins.
    pub fn value(&self) -> f64 {
        let scale = (1u64 << FRACTION) as f64;
        self.cost as f64 / scale / f64::from(self.candidate.weight)
    }
}

/// The claims of all candidates with a weight on a flow, the one that is chosen first: for those who
/// ask why.
pub fn scores<T: Copy>(
    key: &PlacementKey,
    flow: &CanonicalKey,
    candidates: &Candidates<T>,
) -> Vec<Score<T>> {
    let flow = key.hash_flow(flow);
    let score = |candidate: &Candidate<T>| {
        let draw = mix(flow, candidate.id);
        Score { candidate: *candidate, draw, cost: minus_log2(draw) }
    };
    let all = candidates.iter().filter(|candidate| candidate.weight > 0);
    let mut scores: Vec<_> = all.map(score).collect();
    scores.sort_by(|a, b| {
        if candidates.equal.is_empty() {
            by_cost((a.cost, &a.candidate), (b.cost, &b.candidate))
        } else {
            b.draw.cmp(&a.draw).then(a.candidate.id.cmp(&b.candidate.id))
        }
    });
    scores
}

/// A value for the pair of flow and target, as good as uniform over all flows: the halves of the product
/// of the flow's hash and of the identity, which is a hash, too, one over the other (as in wyhash). The
/// flow's is keyed, so nobody outside can aim flows at a target.
#[inline]
fn mix(flow: u64, TargetId(target): TargetId) -> u64 {
    let product = u128::from(flow) * u128::from(target);
    (product >> 64) as u64 ^ product as u64
}

/// Bits of the fraction in the fixed-point results below.
const FRACTION: u32 = 32;
/// The table divides the octave \[1, 2) into this many steps, and lines join them: the error
/// stays below 2e-7, which no share of flows can show.
const STEPS: usize = 1 << STEP_BITS;
const STEP_BITS: u32 = 10;

/// `−log2(x / 2^64)` in fixed point with 32 bits of fraction; `x = 0` counts as 1.
fn minus_log2(x: u64) -> u64 {
    let x = x.max(1);
    let zeros = x.leading_zeros();
    // x = 2^(63 − zeros) · (1 + fraction / 2^32)
    let fraction = ((x << zeros) << 1) >> (64 - FRACTION);
    let index = (fraction >> (FRACTION - STEP_BITS)) as usize;
    let within = fraction & ((1 << (FRACTION - STEP_BITS)) - 1);
    let (low, high) = (LOG2[index], LOG2[index + 1]);
    let log = low + (((high - low) * within) >> (FRACTION - STEP_BITS));
    ((u64::from(zeros) + 1) << FRACTION) - log
}

/// `log2(1 + i / STEPS)` in fixed point.
static LOG2: [u64; STEPS + 1] = log2_table();

const fn log2_table() -> [u64; STEPS + 1] {
    let mut table = [0; STEPS + 1];
    let mut i = 0;
    while i <= STEPS {
        table[i] = log2_one_plus(i as u64);
        i += 1;
    }
    table
}

/// `log2(1 + i / STEPS)`, bit by bit: squaring doubles a logarithm, and each time the square
/// leaves the octave the next bit is a one.
const fn log2_one_plus(i: u64) -> u64 {
    if i == STEPS as u64 {
        return 1 << FRACTION;
    }
    // The mantissa in [1, 2) with 62 bits of fraction.
    let mut mantissa: u64 = (1 << 62) + (i << (62 - STEP_BITS));
    let mut result = 0;
    let mut bit = 0;
    while bit < FRACTION {
        let square = ((mantissa as u128 * mantissa as u128) >> 62) as u64;
        result <<= 1;
        if square >= 1 << 63 {
            result |= 1;
            mantissa = square >> 1;
        } else {
            mantissa = square;
        }
        bit += 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use geneve::flow::FlowKey;
    use proptest::prelude::*;

    use super::*;

    fn key() -> PlacementKey {
        super::super::keys::Keys::derive(&super::super::keys::Secret::from_bytes([7; 32]), 0)
            .placement
    }

    fn flow(n: u32) -> CanonicalKey {
        let src = SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], (n >> 16) as u16));
        FlowKey::new(src, SocketAddr::from(([192, 0, 2, 1], 80)), 6).unwrap().canonical()
    }

    fn candidates(weights: &[u16]) -> Candidates<usize> {
        each(weights).into()
    }

    fn each(weights: &[u16]) -> Vec<Candidate<usize>> {
        weights
            .iter()
            .enumerate()
            .map(|(i, &weight)| Candidate {
                target: i,
                id: TargetId::new("fw", SocketAddr::from(([192, 0, 2, i as u8], 6081))),
                weight,
            })
            .collect()
    }

    /// Weights that are all the same choose as they would beside one that is never chosen, which has
    /// them compared by their logarithms.
    #[test]
    fn equal_weights_need_no_logarithm() {
        for weight in [1, 7, u16::MAX] {
            let equal = candidates(&[weight; 9]);
            let beside_none = Candidates::from([&equal[..], &each(&[0; 10])[9..]].concat());
            assert!(beside_none.equal.is_empty() && equal.equal.len() == 3);
            for n in 0..20_000 {
                let flow = flow(n);
                assert_eq!(choose(&key(), &flow, &equal), choose(&key(), &flow, &beside_none));
            }
        }
    }

    #[test]
    fn logarithm_agrees_with_floats() {
        for x in [1, 2, 3, 1000, u64::from(u32::MAX), u64::MAX / 3, u64::MAX - 1, u64::MAX] {
            let expected = 64.0 - (x as f64).log2();
            let actual = minus_log2(x) as f64 / f64::from(1u32 << 31) / 2.0;
            assert!((expected - actual).abs() < 3e-7, "{x}: {expected} {actual}");
        }
        assert_eq!(minus_log2(0), minus_log2(1), "zero has no logarithm");
    }

    #[test]
    fn shares_follow_the_weights() {
        let candidates = candidates(&[100, 200, 0, 700]);
        let mut shares = BTreeMap::new();
        let flows = 40_000;
        for n in 0..flows {
            *shares.entry(choose(&key(), &flow(n), &candidates).unwrap()).or_insert(0u32) += 1;
        }
        for (target, share) in [(0, 0.1), (1, 0.2), (3, 0.7)] {
            let actual = f64::from(shares[&target]) / f64::from(flows);
            // Four standard deviations of a binomial sample of this size are below 0.01.
            assert!((actual - share).abs() < 0.01, "target {target}: {actual} of {share}");
        }
        assert!(!shares.contains_key(&2), "weight 0 takes no new flow");
    }

    #[test]
    fn nobody_to_choose() {
        assert_eq!(choose::<usize>(&key(), &flow(1), &Candidates::default()), None);
        assert_eq!(choose(&key(), &flow(1), &candidates(&[0, 0])), None);
    }

    proptest! {
        #[test]
        fn removing_one_moves_only_its_flows(
            count in 2usize..40, removed in 0usize..40, seed: u32,
        ) {
            let removed = removed % count;
            let all = candidates(&vec![100; count]);
            let mut rest = all.to_vec();
            rest.remove(removed);
            let rest = rest.into();
            for n in 0..64 {
                let flow = flow(seed.wrapping_add(n));
                let before = choose(&key(), &flow, &all).unwrap();
                let after = choose(&key(), &flow, &rest).unwrap();
                prop_assert!(before == removed || before == after);
            }
        }

        #[test]
        fn the_best_score_is_chosen(
            weights in prop::collection::vec(0u16..=1000, 0..20), equal in 0u16..3, n: u32,
        ) {
            let weights = if equal == 0 { vec![100; weights.len()] } else { weights };
            let all = candidates(&weights);
            let scores = scores(&key(), &flow(n), &all);
            let best = scores.first().map(|score| score.candidate.target);
            prop_assert_eq!(best, choose(&key(), &flow(n), &all));
            prop_assert_eq!(scores.len(), weights.iter().filter(|weight| **weight > 0).count());
            prop_assert!(scores.is_sorted_by(|a, b| a.value() <= b.value()));
        }

        #[test]
        fn order_does_not_matter(weights in prop::collection::vec(0u16..=1000, 1..20), n: u32) {
            let forward = candidates(&weights);
            let mut backward = forward.to_vec();
            backward.reverse();
            let backward = backward.into();
            prop_assert_eq!(
                choose(&key(), &flow(n), &forward),
                choose(&key(), &flow(n), &backward)
            );
        }
    }
}
