//! What comes at most so often: answers in a second, new flows in a second.

use std::time::Duration;

/// Tokens that come in one after the other, and are taken.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    /// How many there can be.
    most: u64,
    /// How many come in with each tick, and how many ticks a second has.
    per_tick: u64,
    ticks_per_second: u64,
    tokens: u64,
    /// The last tick that brought some.
    filled: Duration,
    /// Whether ticks are counted anew from when it was found full.
    restarts: bool,
}

impl Bucket {
    /// For answers to strangers: 50 at once, and one more each millisecond, as Linux has it for
    /// ICMP.
    pub(super) fn for_errors() -> Bucket {
        Bucket::full(50, 1, 1000)
    }

    /// For resets: 10,000 at once, and 100 more each millisecond.
    pub(super) fn for_resets() -> Bucket {
        Bucket::full(10_000, 100, 1000)
    }

    /// For new flows: so many in a second, and as many at once as a tenth of a second brings.
    pub(super) fn for_flows(per_second: u64, now: Duration) -> Bucket {
        let bucket = Bucket::full((per_second / 10).max(1), 1, per_second);
        Bucket { filled: now, restarts: true, ..bucket }
    }

    fn full(most: u64, per_tick: u64, ticks_per_second: u64) -> Bucket {
        let (tokens, filled, restarts) = (most, Duration::ZERO, false);
        Bucket { most, per_tick, ticks_per_second, tokens, filled, restarts }
    }

    /// Whether there is one.
    pub(super) fn has_one(&mut self, now: Duration) -> bool {
        self.fill(now);
        self.tokens > 0
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let there = self.has_one(now);
        self.tokens -= u64::from(there);
        there
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled).as_nanos();
        let ticks = passed * u128::from(self.ticks_per_second) / 1_000_000_000;
        if self.restarts && ticks >= u128::from(self.most) {
            (self.tokens, self.filled) = (self.most, now);
            return;
        }
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        self.tokens =
            self.tokens.saturating_add(ticks.saturating_mul(self.per_tick)).min(self.most);
        let time = u128::from(ticks) * 1_000_000_000 / u128::from(self.ticks_per_second);
        self.filled += Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX));
    }
}
