//! Which packets may begin a flow in the table, and for how long flows are taken on in their middle.

use std::time::{Duration, Instant};

use ahash::AHashMap;

use crate::dataplane::snapshot::Pool;
use crate::fault::{self, Fault};

/// Nanoseconds in a second.
const NANOS: u64 = 1_000_000_000;

/// What a worker lets into its table.
#[derive(Debug)]
pub(super) struct Admission {
    started: Instant,
    /// By endpoint (its id on the wire), until when there may be TCP flows that were placed without
    /// being taken in.
    overloaded: AHashMap<u64, Instant>,
    per_second: u32,
    /// In flows; at most what a tenth of a second brings.
    tokens: u32,
    filled: Instant,
}

impl Admission {
    pub fn new(now: Instant) -> Self {
        Self { started: now, overloaded: AHashMap::new(), per_second: 0, tokens: 0, filled: now }
    }

    /// What of it packets of these endpoints depend on.
    pub fn excerpt(&self, endpoints: impl Iterator<Item = u64>) -> Self {
        let of = |endpoint| Some((endpoint, *self.overloaded.get(&endpoint)?));
        Self { overloaded: endpoints.filter_map(of).collect(), ..*self }
    }

    /// Takes in at most so many new flows a second; 0: as many as come.
    pub fn limit(&mut self, per_second: u32, now: Instant) {
        if self.per_second != per_second {
            self.per_second = per_second;
            self.tokens = self.burst();
            self.filled = now;
        }
    }

    /// Whether one more new flow is taken in.
    #[inline]
    pub fn take(&mut self, now: Instant) -> bool {
        self.per_second == 0 || self.take_limited(now)
    }

    fn take_limited(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled);
        let new = u128::from(self.per_second) * elapsed.as_nanos() / u128::from(NANOS);
        if new >= u128::from(self.burst()) {
            self.tokens = self.burst();
            self.filled = now;
        } else if new > 0 {
            let new = new as u32;
            self.tokens = self.tokens.saturating_add(new).min(self.burst());
            // What is left of the time counts for the next one.
            self.filled +=
                Duration::from_nanos(u64::from(new) * NANOS / u64::from(self.per_second));
        }
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }

    fn burst(&self) -> u32 {
        (self.per_second / 10).max(1)
    }

    /// A TCP packet of this endpoint was placed without a flow. What begins so may go on for as long
    /// as a silent flow would have been remembered after its last packet.
    pub fn overflow(&mut self, endpoint: u64, tcp_idle: Duration, now: Instant) {
        self.overloaded.insert(endpoint, now + tcp_idle);
    }

    /// Whether a TCP flow in its middle may be one that this worker lost, or never took in: after a
    /// start without state, or after more flows came than it takes, both for as long as a silent
    /// flow would have been remembered.
    pub fn adopts(&self, endpoint: u64, pool: &Pool, now: Instant) -> bool {
        let recent = now < self.started + pool.timers.tcp_idle;
        (pool.adopt_after_start && (recent || fault::on(Fault::AdoptionNeverEnds)))
            || self.overloaded.get(&endpoint).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{Plane, start};
    use super::*;

    #[test]
    fn no_more_than_the_limit_in_a_second() {
        let start = start();
        let mut admission = Admission::new(start);
        assert!((0..1_000_000).all(|_| admission.take(start)), "no limit");
        for per_second in [1, 7, 1000, 99_999] {
            admission.limit(per_second, start);
            // Asked every 10 µs for ten seconds.
            let taken = (0..1_000_000u64)
                .filter(|n| admission.take(start + Duration::from_micros(10 * n)))
                .count() as f64;
            let expected = f64::from(per_second) * 10.0 + f64::from(admission.burst());
            assert!((taken - expected).abs() <= expected * 0.02 + 1.0, "{taken} of {expected}");
            admission = Admission::new(start);
        }
    }

    #[test]
    fn flows_are_taken_on_for_one_idle_timeout() {
        let plane = Plane::new("drop");
        let mut pool = plane.snapshot.pools[0].clone();
        let (start, idle) = (plane.now, pool.timers.tcp_idle);
        let nearly = idle.checked_sub(Duration::from_nanos(1)).unwrap();
        let mut admission = Admission::new(start);
        pool.adopt_after_start = true;
        assert!(admission.adopts(1, &pool, start + nearly));
        assert!(!admission.adopts(1, &pool, start + idle));
        pool.adopt_after_start = false;
        assert!(!admission.adopts(1, &pool, start));
        let late = start + idle;
        admission.overflow(1, idle, late);
        assert!(admission.adopts(1, &pool, late + nearly));
        assert!(!admission.adopts(2, &pool, late + nearly), "another endpoint has lost nothing");
        assert!(!admission.adopts(1, &pool, late + idle));
    }
}
