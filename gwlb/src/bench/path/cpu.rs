//! The processor time that the whole machine spends: the kernel's share of the work, in interrupts
//! and threads of its own, is in no process's account.

use std::io;
use std::time::Duration;

use procfs::{CurrentSI, KernelStats};

/// The time that all processors were busy since the machine started. What is done at low priority
/// is left out: it uses what nobody else wants.
pub(super) fn busy() -> io::Result<Duration> {
    let total = KernelStats::current().map_err(io::Error::other)?.total;
    let interrupts = total.irq_ms().unwrap_or(0) + total.softirq_ms().unwrap_or(0);
    Ok(Duration::from_millis(total.user_ms() + total.system_ms() + interrupts))
}

#[cfg(test)]
mod tests {
    use netio::process::thread_cpu_time;

    use super::*;

    #[test]
    fn a_busy_thread_is_in_the_account() {
        let before = busy().unwrap();
        let until = thread_cpu_time() + Duration::from_millis(200);
        let mut value = 1_u64;
        while thread_cpu_time() < until {
            value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005));
        }
        let spent = busy().unwrap().saturating_sub(before);
        // The kernel counts in ticks of some milliseconds.
        assert!(spent >= Duration::from_millis(100), "{spent:?}");
    }
}
