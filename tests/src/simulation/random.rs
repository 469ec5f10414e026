//! Chance, all of it from one seed.
//!
//! Every decision has a name: what it is about and which one it is. What happens to a packet has
//! the name of its conversation and side, and its number among those: it does not depend on the
//! packets of others. So an event can be left out of a plan, and chance does to the others what it
//! did before; what they do to each other is another matter.

use std::hash::Hasher as _;
use std::time::Duration;

use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng as _;
use siphasher::sip::SipHasher13;

/// What a decision is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum About {
    World,
    Event,
    Leg,
    Rogue,
    Appliance,
    Probe,
    Worker,
}

/// A stream of numbers.
#[derive(Debug, Clone)]
pub(super) struct Dice(Pcg32);

impl Dice {
    /// The stream of one decision. PCG's streams are fixed by its authors, and so is SipHash; both
    /// are the same on every computer.
    pub fn of(seed: u64, about: About, names: &[u64]) -> Dice {
        let mut hasher = SipHasher13::new_with_keys(seed, about as u64);
        for name in names {
            hasher.write(&name.to_le_bytes());
        }
        let state = hasher.finish();
        Dice(Pcg32::new(state, state.rotate_left(32)))
    }

    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // Far more numbers than outcomes: the bias is of no consequence here.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// A number from `first` to `last`.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// Whether something happens that does so in so many of a thousand cases.
    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.below(1000) < chance
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// One of these, each as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, of: &[(u64, T)]) -> T {
        let mut left = self.below(of.iter().map(|(weight, _)| weight).sum());
        for &(weight, item) in of {
            if left < weight {
                return item;
            }
            left -= weight;
        }
        of[0].1
    }

    /// A time between these, to the microsecond.
    pub fn time(&mut self, first: Duration, last: Duration) -> Duration {
        let (first, last) = (first.as_micros() as u64, last.as_micros() as u64);
        Duration::from_micros(self.between(first, last.max(first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_what_they_always_were() {
        let mut dice = Dice::of(7, About::Leg, &[1, 2]);
        let first = [dice.next(), dice.next()];
        assert_eq!(
            first,
            [11_053_210_132_691_775_607, 9_506_270_584_061_605_277],
            "every kept seed would mean something else"
        );
        assert_ne!(Dice::of(7, About::Leg, &[2, 1]).next(), first[0]);
        assert_ne!(Dice::of(8, About::Leg, &[1, 2]).next(), first[0]);
    }

    #[test]
    fn numbers_are_in_their_range_and_reach_its_ends() {
        let mut dice = Dice::of(1, About::World, &[]);
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[dice.between(3, 7) as usize - 3] += 1;
        }
        assert!(seen.iter().all(|&times| times > 100), "{seen:?}");
        let heads = (0..10_000).filter(|_| dice.per_mille(250)).count();
        assert!((2200..2800).contains(&heads), "{heads}");
    }
}
