//! How long to wait for what should happen at all.

use std::time::{Duration, Instant};

use super::{LIMIT, now};

/// The longest time between two looks at something.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// What counts of the time between two looks. When more has passed, this program did not run: the
/// machine was suspended, or had no processor to spare. What is waited for had no time then either.
const COUNTS: Duration = Duration::from_secs(1);

/// What is left of [`LIMIT`].
#[derive(Debug)]
pub(crate) struct Patience {
    left: Duration,
    looked: Instant,
}

impl Patience {
    /// All of it, from now on.
    pub fn new() -> Self {
        Self { left: LIMIT, looked: now() }
    }

    /// To be called between two looks: how long to wait for the next at most, if there is one.
    pub fn wait(&mut self) -> Option<Duration> {
        self.wait_at(now())
    }

    fn wait_at(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.looked);
        self.looked = now;
        self.left = self.left.saturating_sub(passed.min(COUNTS));
        (!self.left.is_zero()).then(|| self.left.min(LOOK_AGAIN))
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_nobody_ran_does_not_count() {
        let mut patience = Patience::new();
        let asleep = patience.looked + LIMIT * 2;
        assert_eq!(patience.wait_at(asleep), Some(LOOK_AGAIN));
        assert_eq!(patience.left + COUNTS, LIMIT);
    }

    #[test]
    fn it_ends_with_its_limit() {
        let mut patience = Patience::new();
        let begin = patience.looked;
        let looks = (1..).take_while(|&look| patience.wait_at(begin + LOOK_AGAIN * look).is_some());
        assert_eq!(looks.count() as u128, LIMIT.as_millis() / LOOK_AGAIN.as_millis() - 1);
    }
}
