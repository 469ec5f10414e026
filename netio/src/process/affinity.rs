//! On which CPUs a thread may run: which there are for it, and staying on one of them.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The highest number that a CPU can have here, plus one (`CPU_SETSIZE` of the C library).
pub const MAX_CPUS: usize = CpuSet::count();

/// The CPUs on which the calling thread may run, by number and in order: those that there are, less
/// what its cgroup, its container or `taskset` withhold.
///
/// # Errors
/// What the kernel says: [`io::ErrorKind::InvalidInput`] on a machine with more than [`MAX_CPUS`].
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(CALLER)?;
    Ok((0..MAX_CPUS).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}

/// Keeps the calling thread on one CPU from now on. This takes no privilege.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for a CPU that there is not, or that the thread's cgroup
/// withholds.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(CALLER, &set)?)
}

/// What `sched_setaffinity` takes for the thread that calls it.
const CALLER: Pid = Pid::from_raw(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_where_it_is_put_and_takes_nobody_along() {
        let before = allowed().unwrap();
        let last = *before.last().unwrap();
        let pinned = std::thread::spawn(move || {
            pin(last).unwrap();
            allowed().unwrap()
        });
        assert_eq!(pinned.join().unwrap(), [last]);
        assert_eq!(allowed().unwrap(), before);
    }

    #[test]
    fn there_is_no_staying_on_a_cpu_that_is_not_there() {
        let missing = (0..MAX_CPUS).rfind(|cpu| !allowed().unwrap().contains(cpu)).unwrap();
        for cpu in [missing, MAX_CPUS] {
            assert_eq!(pin(cpu).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{cpu}");
        }
    }
}
