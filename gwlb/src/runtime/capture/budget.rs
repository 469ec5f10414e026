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
/// As much as they may save up, so that a burst is seen whole, and as much as they may owe. Code that
/// is not optimised takes ten times as long for the same burst.
const MOST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 50 } else { 5 });
/// Where packets come one by one, one in so many looks is timed, and counts for all of them: to ask
/// for the time twice costs about as much as a look.
const TIMED: u8 = 16;
/// No look at a packet takes longer. If it seems so, somebody else had the CPU.
const LONGEST: Duration = Duration::from_micros(50);

/// The time that the captures of one worker have left.
#[derive(Debug)]
pub(in crate::runtime) struct Budget {
    /// In nanoseconds; less than nothing is owed.
    left: i64,
    refilled: Instant,
    /// Looks since the last one that was timed, by point.
    looks: [u8; Point::ALL.len()],
}

/// A look that is being timed, or not.
#[derive(Debug)]
#[must_use]
pub(in crate::runtime) struct Look {
    began: Option<Instant>,
    /// It is at so many packets,
    packets: u32,
    /// and counts for so many such.
    stands_for: u32,
}

impl Budget {
    /// What captures have that begin now.
    pub fn new(now: Instant) -> Self {
        Self { left: nanos(MOST), refilled: now, looks: [0; Point::ALL.len()] }
    }

    /// Time has passed.
    pub fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        self.refilled = now;
        self.left = self.left.saturating_add(nanos(passed / SHARE)).min(nanos(MOST));
    }

    /// Whether they have nothing left.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.left <= 0
    }

    /// A look at so many packets begins at this point.
    #[inline]
    pub fn begin(&mut self, point: Point, packets: usize) -> Look {
        let packets = packets as u32;
        if packets > 1 {
            return Look { began: Some(clock::now()), packets, stands_for: 1 };
        }
        let looks = &mut self.looks[point as usize];
        *looks = (*looks + 1) % TIMED;
        let began = (*looks == 0).then(clock::now);
        Look { began, packets, stands_for: TIMED.into() }
    }

    /// It is over.
    #[inline]
    pub fn end(&mut self, look: &Look) {
        if let Some(began) = look.began {
            self.charge(look, clock::now().saturating_duration_since(began));
        }
    }

    fn charge(&mut self, look: &Look, took: Duration) {
        let took = took.min(LONGEST * look.packets) * look.stands_for;
        self.left = self.left.saturating_sub(nanos(took)).max(-nanos(MOST));
    }
}

/// In nanoseconds; 292 years at most.
fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(packets: u32) -> Look {
        Look { began: None, packets, stands_for: 1 }
    }

    #[test]
    fn it_is_spent_and_comes_again_with_the_time() {
        let start = clock::now();
        let mut budget = Budget::new(start);
        assert!(!budget.is_spent());
        budget.charge(&batch(10_000), MOST + Duration::from_millis(1));
        assert!(budget.is_spent());
        budget.refill(start + SHARE * Duration::from_micros(990));
        assert!(budget.is_spent(), "what is owed comes first");
        budget.refill(start + SHARE * Duration::from_micros(1010));
        assert!(!budget.is_spent());
        budget.refill(start + Duration::from_mins(1));
        assert_eq!(budget.left, nanos(MOST), "no more is saved up");
        budget.charge(&batch(u32::MAX), MOST * 100);
        assert_eq!(budget.left, -nanos(MOST), "and no more is owed");
    }

    /// Whoever would look all the time does so for a part of it.
    #[test]
    fn captures_have_their_share_of_the_time() {
        let (start, tick) = (clock::now(), Duration::from_micros(100));
        let mut budget = Budget::new(start);
        let (mut looked, ticks) = (Duration::ZERO, 1_000_000);
        for number in 1..=ticks {
            budget.refill(start + tick * number);
            if !budget.is_spent() {
                // A look takes a third of the batch that it belongs to.
                budget.charge(&batch(64), tick / 3);
                looked += tick / 3;
            }
        }
        let share = looked.as_secs_f64() / (tick * ticks).as_secs_f64();
        assert!((share * f64::from(SHARE) - 1.0).abs() < 0.03, "{share}");
    }

    #[test]
    fn one_of_many_looks_at_single_packets_stands_for_all() {
        let mut budget = Budget::new(clock::now());
        for round in 0..3 {
            for turn in 1..=u32::from(TIMED) {
                let look = budget.begin(Point::Out, 1);
                assert_eq!(look.began.is_some(), turn == u32::from(TIMED), "{turn} of {round}");
                assert_eq!(look.stands_for, u32::from(TIMED));
            }
        }
        assert!(budget.begin(Point::Out, 2).began.is_some(), "a batch is always timed");
        let one = Look { began: None, packets: 1, stands_for: TIMED.into() };
        budget.charge(&one, Duration::from_micros(10));
        assert_eq!(nanos(MOST) - budget.left, 160_000);
        budget.charge(&one, Duration::from_secs(1));
        assert_eq!(nanos(MOST) - budget.left, 960_000, "somebody else had the CPU");
    }
}
