//! What a waker rings: an eventfd. Under the feature `loom` it is a stand-in that works in models of
//! threads, where no thread can wait in a system call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(not(feature = "loom"))]
pub(super) use std::sync::atomic::AtomicBool;

#[cfg(feature = "loom")]
pub(super) use loom::sync::atomic::AtomicBool;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Readable from [`ring`](Self::ring) to [`silence`](Self::silence), however often it is rung.
#[derive(Debug)]
pub(super) struct Bell {
    event: EventFd,
    #[cfg(feature = "loom")]
    model: model::Bell,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            #[cfg(feature = "loom")]
            model: model::Bell::default(),
        })
    }

    pub(super) fn ring(&self) -> io::Result<()> {
        #[cfg(feature = "loom")]
        self.model.set(true);
        until_it_is_done(|| self.event.write(1).map(drop))
    }

    pub(super) fn silence(&self) -> io::Result<()> {
        #[cfg(feature = "loom")]
        self.model.set(false);
        until_it_is_done(|| match self.event.read() {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error),
        })
    }

    /// Waits, in a model, until it is rung; it stays so.
    #[cfg(feature = "loom")]
    pub(super) fn wait(&self) {
        self.model.wait();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

fn until_it_is_done(mut call: impl FnMut() -> nix::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result.map_err(Into::into),
        }
    }
}

#[cfg(feature = "loom")]
mod model {
    use loom::sync::{Condvar, Mutex};

    /// What the kernel does for an eventfd, under a lock as it does.
    #[derive(Debug, Default)]
    pub struct Bell {
        rung: Mutex<bool>,
        changed: Condvar,
    }

    #[expect(clippy::unwrap_used, reason = "a model that panics is over")]
    impl Bell {
        pub fn set(&self, rung: bool) {
            *self.rung.lock().unwrap() = rung;
            self.changed.notify_all();
        }

        pub fn wait(&self) {
            let mut rung = self.rung.lock().unwrap();
            while !*rung {
                rung = self.changed.wait(rung).unwrap();
            }
        }
    }
}
