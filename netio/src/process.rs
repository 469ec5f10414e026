//! What a program needs from the system around it: privileges, a private world where it has none
//! ([`preflight`]), giving them up when they are not needed any more ([`privileges`]), the CPUs that a
//! thread runs on ([`affinity`]), giving way to all others ([`idle`]), child processes inside a namespace that never outlive it, and the
//! processor time that a thread or a child has spent.
//!
//! Processes are known by their handles here; none is ever searched for by its name.

pub mod affinity;
pub mod idle;
pub mod preflight;
pub mod privileges;

use std::env;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};

pub use preflight::{Preflight, Start};

use crate::netns::Netns;
use crate::poll::milliseconds;
use preflight::Isolation;

/// How a child process is to start.
pub trait CommandExt {
    /// Starts it inside `netns`. The caller stays where it is.
    fn in_netns(&mut self, netns: &Netns) -> &mut Self;

    /// Kills it (`SIGKILL`) when the **thread** that starts it ends, so start it from one that
    /// lasts: the main thread.
    fn die_with_parent(&mut self) -> &mut Self;

    /// Starts it in a new user, network and mount namespace, where it is root over everything that
    /// it makes, and has room of its own in `/run` for named network namespaces. For the outside it
    /// stays the user that it was. With [`exec`](std::os::unix::process::CommandExt::exec) this
    /// works only from a process of one thread.
    ///
    /// # Errors
    /// If `/run` cannot be read. What the kernel refuses comes out at the start of the command.
    fn in_user_namespace(&mut self) -> io::Result<&mut Self>;
}

/// Starts the running program anew, with the same arguments, in place of itself, as
/// [`CommandExt::in_user_namespace`] says. Call it first thing in `main`, before there are threads.
///
/// Returns only if that fails; the process may then be half inside and should end.
pub fn restart_in_user_namespace() -> io::Error {
    let mut arguments = env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    match command.args(arguments).in_user_namespace() {
        Ok(command) => command.exec(),
        Err(error) => error,
    }
}

impl CommandExt for Command {
    fn in_netns(&mut self, netns: &Netns) -> &mut Self {
        let netns = netns.clone();
        let enter = move || setns(&netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        // SAFETY: between fork and exec only async-signal-safe functions may run; `enter` makes
        // one system call and allocates nothing.
        unsafe { self.pre_exec(enter) }
    }

    fn die_with_parent(&mut self) -> &mut Self {
        let parent = getpid();
        let tie = move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the tie was made; then nothing would ever come.
            if getppid() == parent { Ok(()) } else { Err(io::Error::from(Errno::ESRCH)) }
        };
        // SAFETY: between fork and exec only async-signal-safe functions may run; `tie` makes two
        // system calls and allocates nothing.
        unsafe { self.pre_exec(tie) }
    }

    fn in_user_namespace(&mut self) -> io::Result<&mut Self> {
        let mut isolation = Isolation::prepare()?;
        let enter = move || isolation.enter().map_err(io::Error::from);
        // SAFETY: between fork and exec only async-signal-safe functions may run; `enter` makes
        // system calls, with paths and room prepared above, and allocates nothing.
        Ok(unsafe { self.pre_exec(enter) })
    }
}

/// How a running child process is asked to end, and awaited.
pub trait ChildExt {
    /// Asks the child to end (`SIGTERM`). One that has ended already is left in peace.
    fn terminate(&mut self) -> io::Result<()>;

    /// Waits until the child has ended, but no longer than `timeout` (rounded up to the next
    /// millisecond; at most 24 days). `None`: it runs on. Signals do not shorten the wait.
    fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>>;

    /// Asks the child to end, gives it `grace`, then kills it.
    fn stop(&mut self, grace: Duration) -> io::Result<ExitStatus>;
}

impl ChildExt for Child {
    fn terminate(&mut self) -> io::Result<()> {
        // Until it is reaped, which only `self` can do, its id belongs to nobody else.
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        Ok(kill(pid_of(self)?, Signal::SIGTERM)?)
    }

    fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.try_wait()? {
            return Ok(Some(status));
        }
        let handle = pidfd(pid_of(self)?)?;
        let start = now();
        loop {
            let left = timeout.saturating_sub(now() - start);
            let left = PollTimeout::try_from(milliseconds(left)).unwrap_or(PollTimeout::MAX);
            // A pidfd is readable when its process has ended (pidfd_open(2)).
            match poll(&mut [PollFd::new(handle.as_fd(), PollFlags::POLLIN)], left) {
                Ok(_) => return self.try_wait(),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn stop(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.terminate()?;
        if let Some(status) = self.wait_timeout(grace)? {
            return Ok(status);
        }
        self.kill()?;
        self.wait()
    }
}

/// The processor time that the calling thread has spent, user and system together.
pub fn thread_cpu_time() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

/// The processor time that a process has spent so far, all its threads together.
///
/// # Errors
/// If there is no such process.
pub fn process_cpu_time(process: u32) -> io::Result<Duration> {
    let process = libc::pid_t::try_from(process).map_err(|_| Errno::ESRCH)?;
    let mut id = 0;
    // SAFETY: `id` is a valid place for the answer.
    match unsafe { libc::clock_getcpuclockid(process, &raw mut id) } {
        0 => clock(id),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[expect(clippy::disallowed_methods, reason = "what an interrupted wait has left to wait")]
fn now() -> Instant {
    Instant::now()
}

fn clock(id: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    Errno::result(unsafe { libc::clock_gettime(id, &raw mut time) })?;
    Ok(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
}

fn pid_of(child: &Child) -> io::Result<Pid> {
    let id = i32::try_from(child.id()).map_err(|_| Errno::ESRCH)?;
    Ok(Pid::from_raw(id))
}

fn pidfd(process: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and returns a file descriptor or -1.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};

    #[test]
    fn a_child_that_ignores_the_request_is_killed() {
        let script = "trap '' TERM; echo ready; read never; sleep 60";
        let mut child = shell(script);
        let status = child.stop(Duration::from_millis(50)).unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    }

    #[test]
    fn a_child_that_listens_is_not_killed() {
        let mut child = shell("trap 'exit 7' TERM; echo ready; while :; do read line; done");
        let status = child.stop(Duration::from_secs(30)).unwrap();
        assert_eq!(status.code(), Some(7));
        // Asking twice is no error.
        child.terminate().unwrap();
    }

    #[test]
    fn waiting_ends_in_time_and_tells_the_status() {
        let mut child = shell("echo ready; read go; exit 3");
        assert_eq!(child.wait_timeout(Duration::from_millis(10)).unwrap(), None);
        drop(child.stdin.take());
        let status = child.wait_timeout(Duration::from_secs(30)).unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn signals_do_not_shorten_the_wait() {
        const SIGNALS: u32 = 50;
        static HANDLED: AtomicU32 = AtomicU32::new(0);
        extern "C" fn count(_: libc::c_int) {
            HANDLED.fetch_add(1, Ordering::Relaxed);
        }
        let handler = SigHandler::Handler(count);
        let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler only counts, and nothing else here handles this signal.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();

        let mut child = shell("echo ready; read go; exit 3");
        let stdin = child.stdin.take();
        // SAFETY: the call has no conditions.
        let waiting = unsafe { libc::pthread_self() };
        let status = thread::scope(|scope| {
            scope.spawn(move || {
                // Each one has interrupted the wait before the next is sent.
                for sent in 1..=SIGNALS {
                    // SAFETY: the thread lives until this scope ends.
                    assert_eq!(unsafe { libc::pthread_kill(waiting, libc::SIGUSR1) }, 0);
                    while HANDLED.load(Ordering::Relaxed) < sent {
                        thread::yield_now();
                    }
                }
                drop(stdin);
            });
            child.wait_timeout(Duration::from_secs(30)).unwrap()
        });
        let status = status.or_else(|| {
            child.kill().unwrap();
            None
        });
        assert_eq!(status.unwrap().code(), Some(3));
    }

    #[test]
    fn processor_time_grows_with_work() {
        let until = thread_cpu_time() + Duration::from_millis(5);
        let process_before = process_cpu_time(std::process::id()).unwrap();
        let mut value = 1_u64;
        while thread_cpu_time() < until {
            value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005));
        }
        let process_after = process_cpu_time(std::process::id()).unwrap();
        // The first reading of the process came a little later than that of the thread.
        assert!(process_after > process_before + Duration::from_millis(4));
    }

    #[test]
    fn there_is_no_time_of_a_process_that_is_not() {
        assert!(process_cpu_time(u32::MAX).is_err());
    }

    /// A shell that has said "ready", so that its traps are set.
    fn shell(script: &str) -> Child {
        use std::io::Read;
        use std::process::Stdio;

        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .die_with_parent()
            .spawn()
            .unwrap();
        let mut line = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"ready\n");
        child
    }
}
