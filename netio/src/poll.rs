//! Waiting until one of several devices has something to receive, and waking the one who waits.
//!
//! Level-triggered and for receiving only: a device that was not emptied reports itself again, so
//! no wake-up can be lost. Nothing here is for sending; a device that cannot send says
//! [`std::io::ErrorKind::WouldBlock`] and the caller decides.

mod bell;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use bell::{AtomicBool, Bell};

/// How many ready devices one [`Poller::wait`] reports at most; the others are reported by the
/// next call.
pub const MAX_READY: usize = 64;

/// Waits for several devices at once.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    events: Box<[EpollEvent; MAX_READY]>,
    syscalls: u64,
}

impl Poller {
    /// A poller that waits for nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: Box::new([EpollEvent::empty(); MAX_READY]),
            syscalls: 0,
        })
    }

    /// Reports `token` from now on whenever `device` has something to receive, an error in its
    /// queue included (on a UDP socket: [`crate::udp::UdpSocket::take_error`]).
    ///
    /// A device that is closed is forgotten by itself.
    pub fn add(&self, device: &impl AsFd, token: u64) -> io::Result<()> {
        self.epoll.add(device, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        Ok(())
    }

    /// Reports `token` from now on whenever `device` has an error in its queue, and only then: for
    /// devices that only send. Whatever anybody sends to such a device stays unread, and would
    /// otherwise be reported without end.
    pub fn add_errors(&self, device: &impl AsFd, token: u64) -> io::Result<()> {
        // EPOLLERR is reported whether it is asked for or not (epoll_ctl(2)).
        self.epoll.add(device, EpollEvent::new(EpollFlags::empty(), token))?;
        Ok(())
    }

    /// Stops reporting `device`.
    pub fn remove(&self, device: &impl AsFd) -> io::Result<()> {
        self.epoll.delete(device)?;
        Ok(())
    }

    /// Waits until a device is ready or `timeout` has passed (`None`: for as long as it takes),
    /// and replaces what is in `ready` with the tokens of the ready devices.
    ///
    /// A signal ends the wait early with nothing ready, as if the time were over. The timeout is
    /// rounded up to the next millisecond; zero looks and returns at once.
    pub fn wait(&mut self, ready: &mut Vec<u64>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        let timeout = timeout.map_or(EpollTimeout::NONE, round_up);
        self.syscalls += 1;
        match self.epoll.wait(self.events.as_mut_slice(), timeout) {
            Ok(count) => ready.extend(self.events.iter().take(count).map(EpollEvent::data)),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// How many times [`Self::wait`] went into the kernel.
    pub fn syscalls(&self) -> u64 {
        self.syscalls
    }
}

fn round_up(timeout: Duration) -> EpollTimeout {
    EpollTimeout::try_from(milliseconds(timeout)).unwrap_or(EpollTimeout::MAX)
}

/// A timeout as system calls take it. Rounding down would turn the last fraction of a millisecond
/// into a busy loop.
pub(crate) fn milliseconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// Wakes a thread that waits in [`Poller::wait`] from any other thread.
///
/// The order that loses nothing: whoever wakes first puts its message where it belongs and then
/// calls [`wake`](Self::wake); whoever is woken first calls [`drain`](Self::drain) and then looks
/// for messages.
#[derive(Debug, Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bell: Bell,
    /// Set from the first wake until the drain: wakes in between need no system call.
    pending: AtomicBool,
}

impl Waker {
    /// A waker; its clones wake the same poller, to which it has to be [added](Poller::add).
    pub fn new() -> io::Result<Self> {
        let bell = Bell::new()?;
        Ok(Self { shared: Arc::new(Shared { bell, pending: AtomicBool::new(false) }) })
    }

    /// Makes the poller report the waker's token until [`drain`](Self::drain) is called.
    pub fn wake(&self) -> io::Result<()> {
        if self.shared.pending.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.shared.bell.ring().inspect_err(|_| {
            self.shared.pending.store(false, Ordering::Release);
        })
    }

    /// Takes the wake-up back; says whether there was one.
    pub fn drain(&self) -> io::Result<bool> {
        // The event goes before the flag. The other way round, a wake between the two would leave
        // the flag set without an event, and every later wake would be taken for a repetition.
        self.shared.bell.silence()?;
        Ok(self.shared.pending.swap(false, Ordering::AcqRel))
    }

    /// In a model of threads: waits as [`Poller::wait`] does for a poller that has this waker alone.
    #[cfg(feature = "loom")]
    pub fn wait(&self) {
        self.shared.bell.wait();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::device::Device as _;
    use crate::udp::{Datagram, UdpConfig, UdpSocket};

    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn a_wake_is_reported_until_it_is_drained() {
        let (mut poller, waker, mut ready) = set_up();
        poller.wait(&mut ready, NOW).unwrap();
        assert!(ready.is_empty());

        waker.wake().unwrap();
        waker.wake().unwrap();
        for _ in 0..2 {
            poller.wait(&mut ready, NOW).unwrap();
            assert_eq!(ready, [7]);
        }
        assert!(waker.drain().unwrap());
        assert!(!waker.drain().unwrap());
        poller.wait(&mut ready, NOW).unwrap();
        assert!(ready.is_empty());
        assert_eq!(poller.syscalls(), 4);
    }

    #[test]
    fn a_device_that_only_sends_is_reported_for_errors_alone() {
        let config = UdpConfig {
            bind: "127.0.0.1:0".parse().unwrap(),
            reuse_port: false,
            gro: false,
            dont_fragment: false,
            recv_buffer: 0,
            send_buffer: 0,
        };
        let bind = || UdpSocket::bind(&config).unwrap();
        let (mut sender, mut other) = (bind(), bind());
        let (mut poller, mut ready) = (Poller::new().unwrap(), Vec::new());
        poller.add_errors(&sender, 9).unwrap();
        let to = |socket: &UdpSocket| Datagram { peer: socket.local_addr(), ..Datagram::default() };
        other.send(&to(&sender), &[IoSlice::new(b"never read")]).unwrap();
        poller.wait(&mut ready, NOW).unwrap();
        assert!(ready.is_empty());

        // Nobody is there any more, as the kernel then says.
        let gone = to(&other);
        drop(other);
        sender.send(&gone, &[IoSlice::new(b"to nobody")]).unwrap();
        poller.wait(&mut ready, Some(Duration::from_secs(10))).unwrap();
        assert_eq!(ready, [9]);
        assert!(sender.take_error().is_some());
        poller.wait(&mut ready, NOW).unwrap();
        assert!(ready.is_empty());
    }

    #[test]
    fn a_removed_device_is_silent() {
        let (mut poller, waker, mut ready) = set_up();
        waker.wake().unwrap();
        poller.remove(&waker).unwrap();
        poller.wait(&mut ready, NOW).unwrap();
        assert!(ready.is_empty());
    }

    #[test]
    fn no_message_is_lost_between_threads() {
        const MESSAGES: usize = 20_000;
        let (mut poller, waker, mut ready) = set_up();
        let (sender, receiver) = std::sync::mpsc::channel();
        let other = waker.clone();
        let thread = std::thread::spawn(move || {
            for i in 0..MESSAGES {
                sender.send(i).unwrap();
                other.wake().unwrap();
            }
        });
        // Only wake-ups drive the receiver: were one lost, this would wait for ever.
        let mut seen = 0;
        while seen < MESSAGES {
            poller.wait(&mut ready, None).unwrap();
            waker.drain().unwrap();
            seen += receiver.try_iter().count();
        }
        thread.join().unwrap();
    }

    #[test]
    fn timeouts_are_rounded_up() {
        assert_eq!(round_up(Duration::ZERO), EpollTimeout::ZERO);
        assert_eq!(round_up(Duration::from_nanos(1)), EpollTimeout::try_from(1_i32).unwrap());
        assert_eq!(round_up(Duration::from_micros(1001)), EpollTimeout::try_from(2_i32).unwrap());
        assert_eq!(round_up(Duration::MAX), EpollTimeout::MAX);
    }

    fn set_up() -> (Poller, Waker, Vec<u64>) {
        let (poller, waker) = (Poller::new().unwrap(), Waker::new().unwrap());
        poller.add(&waker, 7).unwrap();
        (poller, waker, Vec::new())
    }
}
