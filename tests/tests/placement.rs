//! Where flows go, over random histories of targets: the choice depends on who is there now and on
//! nothing else, a change moves what it must, and shares follow the weights.
#![expect(clippy::unwrap_used, reason = "helpers of tests, and nothing else")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use geneve::flow::{CanonicalKey, FlowKey};
use gwlb::dataplane::keys::{Keys, PlacementKey, Secret};
use gwlb::dataplane::select::{Candidate, Candidates, TargetId, choose};
use proptest::collection::vec;
use proptest::prelude::*;

/// How many targets there are at most.
const MANY: u16 = 300;

fn key(secret: u8) -> PlacementKey {
    Keys::derive(&Secret::from_bytes([secret; Secret::LEN]), 0).placement
}

fn flow(n: u32) -> CanonicalKey {
    let [high, low] = [(n >> 16) as u16, n as u16];
    let [third, fourth] = high.to_be_bytes();
    let client = SocketAddr::from(([198, 18, third, fourth], low));
    FlowKey::new(client, SocketAddr::from(([192, 0, 2, 1], 443)), 6).unwrap().canonical()
}

fn candidate(number: u16, weight: u16) -> Candidate<u16> {
    let [third, fourth] = number.to_be_bytes();
    let address = SocketAddr::from(([10, 0, third, fourth], 6081));
    Candidate { target: number, id: TargetId::new("fw", address), weight }
}

/// The targets that are there, with their weights, in the order of their numbers.
type Present = BTreeMap<u16, u16>;

fn candidates(present: &Present) -> Vec<Candidate<u16>> {
    present.iter().map(|(&number, &weight)| candidate(number, weight)).collect()
}

fn placed(key: &PlacementKey, flows: u32, candidates: &[Candidate<u16>]) -> Vec<Option<u16>> {
    let candidates = candidates.to_vec().into();
    (0..flows).map(|n| choose(key, &flow(n), &candidates)).collect()
}

/// A target comes with a weight, or has another one, or goes.
#[derive(Debug, Clone, Copy)]
enum Change {
    Weighs(u16, u16),
    Goes(u16),
}

fn change(targets: u16) -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..targets, prop_oneof![Just(100_u16), 0..=1000_u16])
            .prop_map(|(number, weight)| Change::Weighs(number, weight)),
        2 => (0..targets).prop_map(Change::Goes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// A gateway that has seen a thousand changes, with its candidates in the order in which they
    /// came, places every flow as one that was started just now.
    #[test]
    fn the_choice_depends_on_the_present_set_alone(
        secret: u8,
        targets in prop_oneof![Just(3_u16), Just(10), Just(32), 2..=64_u16],
        changes in vec(change(64), 1000),
    ) {
        const FLOWS: u32 = 40;
        let key = key(secret);
        let mut present = Present::new();
        let mut in_order: Vec<Candidate<u16>> = Vec::new();
        let mut before = vec![None; FLOWS as usize];
        for change in changes {
            let number = match change {
                Change::Weighs(number, weight) => {
                    let number = number % targets;
                    present.insert(number, weight);
                    in_order.retain(|it| it.target != number);
                    in_order.push(candidate(number, weight));
                    number
                }
                Change::Goes(number) => {
                    let number = number % targets;
                    present.remove(&number);
                    if let Some(position) = in_order.iter().position(|it| it.target == number) {
                        in_order.swap_remove(position);
                    }
                    number
                }
            };
            let now = placed(&key, FLOWS, &in_order);
            prop_assert_eq!(&now, &placed(&key, FLOWS, &candidates(&present)));
            // Whoever moves, moves to or from the one that has changed.
            for (before, now) in before.iter().zip(&now) {
                let concerned = [before, now].contains(&&Some(number)) || before.is_none();
                prop_assert!(before == now || concerned || now.is_none());
            }
            before = now;
        }
    }

    /// With equal weights, exactly the flows of a target that goes move, and a target that comes
    /// gets exactly those that it would have had from the beginning; nobody else's move. So what
    /// moves is the least that can: with one target more, each of `count` holds no flow more than
    /// its share of `1 / (count + 1)` asks for.
    #[test]
    fn what_moves_is_the_minimum(secret: u8, one in 0..MANY) {
        let key = key(secret);
        for count in [3, 10, 32, 100, MANY] {
            // The cost of a choice grows with the targets.
            let flows = 30_000 / u32::from(count);
            let one = one % count;
            let all: Present = (0..count).map(|number| (number, 100)).collect();
            let mut without = all.clone();
            without.remove(&one);
            let with = placed(&key, flows, &candidates(&all));
            let rest = placed(&key, flows, &candidates(&without));
            let moved: BTreeSet<_> = (0..flows as usize).filter(|&n| with[n] != rest[n]).collect();
            let its: BTreeSet<_> = (0..flows as usize).filter(|&n| with[n] == Some(one)).collect();
            prop_assert_eq!(&moved, &its, "{} of {} targets goes, or comes", one, count);
            assert_share(its.len() as u32, flows, 1.0 / f64::from(count));
        }
    }

    /// A target whose weight grows takes flows from others and gives none away, and the others
    /// exchange none among themselves.
    #[test]
    fn a_weight_that_grows_takes_and_gives_nothing_away(
        secret: u8,
        weights in vec(1..=1000_u16, 2..40),
        one in any::<prop::sample::Index>(),
        more in 1..=1000_u16,
    ) {
        let key = key(secret);
        let mut present: Present = (0..).zip(weights.iter().copied()).collect();
        let one = one.index(weights.len()) as u16;
        let before = placed(&key, 400, &candidates(&present));
        *present.get_mut(&one).unwrap() += more;
        let after = placed(&key, 400, &candidates(&present));
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(before == after || *after == Some(one));
        }
    }

    /// The worker that owns a flow and its source port come of the same hash as its target, and say
    /// nothing about it: of the flows of any worker and port, each target has its share.
    #[test]
    fn owners_have_flows_of_all_targets(
        secret: u8, targets in 2..=12_u16, parts in prop::sample::select(&[2_u64, 3, 8, 64][..]),
        equal: bool,
    ) {
        const FLOWS: u32 = 40_000;
        let key = key(secret);
        let weight = |number| if equal { 100 } else { 100 + 100 * (number % 3) };
        let candidates: Vec<_> = (0..targets).map(|it| candidate(it, weight(it))).collect();
        let total: u32 = candidates.iter().map(|it| u32::from(it.weight)).sum();
        let candidates: Candidates<_> = candidates.into();
        let mut shares = BTreeMap::<_, BTreeMap<u16, u32>>::new();
        for flow in (0..FLOWS).map(flow) {
            let hash = key.hash_flow(&flow);
            let target = choose(&key, &flow, &candidates).unwrap();
            // The upper half says the worker, the lower the port, each as a fraction.
            for (which, half) in [hash >> 32, hash & 0xffff_ffff].into_iter().enumerate() {
                let shares = shares.entry((which, (half * parts) >> 32)).or_default();
                *shares.entry(target).or_default() += 1;
            }
        }
        prop_assert_eq!(shares.len() as u64, 2 * parts);
        let mut squares = [0.0; 2];
        for ((which, _), shares) in shares {
            let flows = f64::from(shares.values().sum::<u32>());
            for it in candidates.iter() {
                let expected = flows * f64::from(it.weight) / f64::from(total);
                let got = f64::from(shares.get(&it.target).copied().unwrap_or_default());
                squares[which] += (got - expected).powi(2) / expected;
            }
        }
        // Of χ² with n degrees of freedom less than one in eight million is above n + 8 √n + 32 (Laurent
        // and Massart, lemma 1, with x = 16).
        let freedom = parts as f64 * f64::from(targets - 1);
        let bound = freedom + 8.0 * freedom.sqrt() + 32.0;
        prop_assert!(squares.iter().all(|it| *it < bound), "{squares:?} of {freedom}");
    }

    #[test]
    fn shares_follow_the_weights(secret: u8, weights in vec(0..=1000_u16, 2..12)) {
        const FLOWS: u32 = 20_000;
        let total: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
        prop_assume!(total > 0);
        let present: Present = (0..).zip(weights.iter().copied()).collect();
        let mut shares = BTreeMap::<u16, u32>::new();
        for target in placed(&key(secret), FLOWS, &candidates(&present)).into_iter().flatten() {
            *shares.entry(target).or_default() += 1;
        }
        for (number, &weight) in (0..).zip(&weights) {
            let flows = shares.get(&number).copied().unwrap_or_default();
            assert_share(flows, FLOWS, f64::from(weight) / f64::from(total));
        }
    }
}

/// Holds that a target has its share, within sampling error. How many of so many flows it gets is
/// binomial, with the deviation σ = √(flows × share × (1 − share)). It is off by more than 6σ + 12
/// less than once in ten million samples, however small the share is (Bernstein's inequality:
/// 2 exp(−t² / (2σ² + 2t/3)) with t = 6σ + 12 is below 4e-8); the tests here take a few hundred.
fn assert_share(got: u32, flows: u32, share: f64) {
    let expected = f64::from(flows) * share;
    let bound = 6.0 * (expected * (1.0 - share)).sqrt() + 12.0;
    let off = (f64::from(got) - expected).abs();
    assert!(off <= bound, "{got} of {flows} flows, {expected:.1} ± {bound:.1} expected");
}
