//! The only place that reads the clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is where the runtime reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, as time since 1970; 0 for a clock that is set before that.
#[expect(clippy::disallowed_methods, reason = "this is where the runtime reads the clock")]
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
