//! Bounds how often the same is logged: what packets, peers and clients can cause must not fill a
//! disk, nor hold up who has to say it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Lets a few lines pass in each stretch of time, and counts those that it leaves out.
///
/// Threads that ask at the same moment as a stretch ends may get a line more.
#[derive(Debug)]
pub(crate) struct Throttle {
    most: u64,
    seconds: u64,
    stretch: AtomicU64,
    asked: AtomicU64,
    left_out: AtomicU64,
}

impl Throttle {
    /// At most so many lines in so many seconds, which are more than none.
    pub const fn new(most: u64, seconds: u64) -> Self {
        Self {
            most,
            seconds,
            stretch: AtomicU64::new(u64::MAX),
            asked: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// Whether there may be a line now; then, how many were left out since the last one.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(crate::runtime::clock::wall_clock().as_secs())
    }

    fn admit_at(&self, second: u64) -> Option<u64> {
        let stretch = second / self.seconds;
        // A clock that is set back begins a stretch, too.
        if self.stretch.swap(stretch, Ordering::Relaxed) != stretch {
            self.asked.store(0, Ordering::Relaxed);
        }
        if self.asked.fetch_add(1, Ordering::Relaxed) < self.most {
            Some(self.left_out.swap(0, Ordering::Relaxed))
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// Logs at a level what strangers can cause: ten lines a second from this place, the first of which
/// tells with `left_out` how many there would have been besides. Nothing is counted while the level
/// is off.
macro_rules! throttled {
    ($level:ident, $($what:tt)+) => {
        if tracing::enabled!(tracing::Level::$level) {
            static THROTTLE: $crate::logging::Throttle = $crate::logging::Throttle::new(10, 1);
            if let Some(left_out) = THROTTLE.admit() {
                let left_out = (left_out > 0).then_some(left_out);
                tracing::event!(tracing::Level::$level, left_out, $($what)+);
            }
        }
    };
}

pub(crate) use throttled;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_pass_and_the_others_are_counted() {
        let throttle = Throttle::new(2, 10);
        let at = |second| throttle.admit_at(second);
        assert_eq!([at(100), at(100), at(109), at(109)], [Some(0), Some(0), None, None]);
        assert_eq!([at(110), at(111), at(112)], [Some(2), Some(0), None]);
        assert_eq!(at(50), Some(1), "the clock was set back");
    }

    #[test]
    fn what_is_left_out_is_never_lost() {
        let throttle = Throttle::new(3, 1);
        let (threads, each) = (4, 10_000_u64);
        let told: u64 = std::thread::scope(|scope| {
            let ask =
                || (0..each).filter_map(|n| throttle.admit_at(n / 100)).map(|n| n + 1).sum::<u64>();
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
        });
        let rest = throttle.left_out.load(Ordering::Relaxed);
        assert_eq!(told + rest, threads * each);
    }
}
