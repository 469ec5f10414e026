//! Threads that have only the time that nobody else wants.

use std::io;

/// Gives the calling thread only such time as no ordinary thread wants, for good (`SCHED_IDLE`): any
/// of these that wakes up takes its CPU at once. A thread that is merely nice (`nice(2)`) keeps it
/// for some milliseconds more. This takes no privilege.
///
/// # Errors
/// What the kernel says.
pub fn give_way() -> io::Result<()> {
    // SAFETY: a structure of plain numbers, for which zero is a value each.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads the structure, which is there until it has, and keeps no pointer to
    // it. Zero is the thread that calls.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The scheduling policy of the calling thread: field 41 of its `stat` (`proc_pid_stat(5)`).
    fn policy() -> i32 {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        // The second field is the name, in brackets, and may have anything in it.
        let (_, rest) = stat.rsplit_once(')').unwrap();
        rest.split_whitespace().nth(41 - 3).unwrap().parse().unwrap()
    }

    #[test]
    fn a_thread_gives_way_and_takes_nobody_along() {
        let given_way = std::thread::spawn(|| {
            give_way().unwrap();
            policy()
        });
        assert_eq!(given_way.join().unwrap(), libc::SCHED_IDLE);
        assert_ne!(policy(), libc::SCHED_IDLE);
    }
}
