//! What time it was when a packet came.

use std::time::{Duration, Instant, SystemTime};

/// Turns the monotonic time that packets carry into the time of day.
///
/// Both clocks are read once, so packets keep their order and distances whatever is done to the
/// time of day meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    monotonic: Instant,
    since_1970: Duration,
}

impl WallClock {
    /// Reads both clocks.
    #[expect(clippy::disallowed_methods, reason = "one of the places that read the clock")]
    pub fn start() -> Self {
        let since_1970 =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { monotonic: Instant::now(), since_1970 }
    }

    /// The time since 1970-01-01 00:00 UTC.
    pub fn at(&self, time: Instant) -> Duration {
        match time.checked_duration_since(self.monotonic) {
            Some(later) => self.since_1970 + later,
            None => self.since_1970.saturating_sub(self.monotonic.duration_since(time)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_kept() {
        let clock = WallClock::start();
        let now = clock.monotonic + Duration::from_secs(5);
        let second = Duration::from_secs(1);
        assert_eq!(clock.at(now + second), clock.at(now) + second);
        assert_eq!(clock.at(now), clock.since_1970 + 5 * second);
        if let Some(before) = clock.monotonic.checked_sub(second) {
            assert_eq!(clock.at(before) + second, clock.since_1970);
        }
    }
}
