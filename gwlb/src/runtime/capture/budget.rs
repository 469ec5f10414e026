//! How much of a worker's time captures may take.
//!
//! What a capture costs a worker cannot be told beforehand: it depends on filters, on lengths, and on
//! what is in caches. So the time is measured, and once captures have taken their share of it they do
//! not look at packets until there is more. Of a worker that rests they get what they need.

use std::time::{Duration, Instant};

use super::Point;
use crate::runtime::clock;

/// Captures have one part in so many of the time. With what they cost besides, that is less than a
/// tenth.
const SHARE: u32 = 32;
/// As much as they may save up, so that a burst is seen whole.
const MOST: Duration = Duration::from_millis(5);
/// Where packets come one by one, one in so many looks is timed, and counts for all of them: to ask
/// for the time twice costs about as much as a look.
const TIMED: u8 = 16;

/// The time that the captures of one worker have left.
#[derive(Debug)]
pub(in crate::runtime) struct Budget {
    left: Duration,
    refilled: Instant,
    /// Looks since the last one that was timed, by point.
    looks: [u8; Point::ALL.len()],
}

/// A look that is being timed.
#[derive(Debug)]
#[must_use]
pub(in crate::runtime) struct Look {
    began: Option<Instant>,
    stands_for: u32,
}

impl Budget {
    /// What captures have that begin now.
    pub fn new(now: Instant) -> Self {
        Self { left: MOST, refilled: now, looks: [0; Point::ALL.len()] }
    }

    /// Time has passed.
    pub fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        self.refilled = now;
        self.left = (self.left + passed / SHARE).min(MOST);
    }

    /// Whether they have nothing left.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.left.is_zero()
    }

    /// A look at many packets begins.
    pub fn begin(&self) -> Look {
        Look { began: Some(clock::now()), stands_for: 1 }
    }

    /// A look at a single packet begins at this point.
    #[inline]
    pub fn begin_one(&mut self, point: Point) -> Look {
        let looks = &mut self.looks[point as usize];
        *looks = (*looks + 1) % TIMED;
        let began = (*looks == 1).then(clock::now);
        Look { began, stands_for: TIMED.into() }
    }

    /// It is over.
    #[inline]
    pub fn end(&mut self, look: &Look) {
        if let Some(began) = look.began {
            let took = clock::now().saturating_duration_since(began);
            self.left = self.left.saturating_sub(took.saturating_mul(look.stands_for));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_spent_and_comes_again_with_the_time() {
        let start = clock::now();
        let mut budget = Budget::new(start);
        let look = |took| Look { began: clock::now().checked_sub(took), stands_for: 1 };
        assert!(!budget.is_spent());
        budget.end(&look(MOST));
        assert!(budget.is_spent());
        budget.refill(start);
        assert!(budget.is_spent(), "no time has passed");
        let period = Duration::from_millis(1);
        budget.refill(start + period);
        assert_eq!(budget.left, period / SHARE);
        budget.end(&look(period));
        assert!(budget.is_spent(), "a debt is not kept");
        budget.refill(start + Duration::from_secs(60));
        assert_eq!(budget.left, MOST, "no more is saved up");
    }

    #[test]
    fn one_of_many_looks_at_single_packets_stands_for_all() {
        let mut budget = Budget::new(clock::now());
        for round in 0..3 {
            for turn in 0..u32::from(TIMED) {
                let look = budget.begin_one(Point::Out);
                assert_eq!(look.began.is_some(), turn == 0, "{turn} of {round}");
                assert_eq!(look.stands_for, u32::from(TIMED));
            }
        }
        assert!(budget.begin_one(Point::FromAppliance).began.is_some(), "each point by itself");
        budget.left = MOST;
        let began = clock::now().checked_sub(MOST / u32::from(TIMED));
        budget.end(&Look { began, stands_for: TIMED.into() });
        assert!(budget.is_spent());
    }
}
