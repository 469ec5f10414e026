//! A thread that stays in a network namespace and works there for others.
//!
//! Entering a namespace takes privilege; being in it takes none. A program that means to give up
//! its privileges has residents enter the namespaces before, and asks them for whatever is to be
//! opened there later. For a single errand with privileges [`Netns::run`] is enough.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use super::{Netns, NetnsError};

/// A resident of a network namespace. Dropping the last clone of this has the thread do what it was
/// asked, and waits until it has ended.
#[derive(Clone, Debug)]
pub struct Resident {
    netns: Netns,
    there: Arc<There>,
}

/// The thread.
#[derive(Debug)]
struct There {
    /// Nothing only while it is dropped.
    errands: Option<mpsc::Sender<Errand>>,
    /// The same.
    thread: Option<JoinHandle<()>>,
}

type Errand = Box<dyn FnOnce() + Send>;

impl Drop for There {
    fn drop(&mut self) {
        // Without it the thread ends, after the last errand.
        self.errands = None;
        // An errand may have been the last to hold it: the thread cannot wait for itself.
        let elsewhere = |thread: &JoinHandle<()>| thread.thread().id() != thread::current().id();
        if let Some(thread) = self.thread.take().filter(elsewhere) {
            // If it has panicked, it has said so to whoever asked.
            let _ = thread.join();
        }
    }
}

impl Netns {
    /// Starts a thread that stays in the namespace. When this returns, it has entered.
    ///
    /// # Errors
    /// [`NetnsError::System`] if the namespace cannot be entered, as with [`Netns::run`].
    pub fn resident(&self) -> Result<Resident, NetnsError> {
        let (errands, asked) = mpsc::channel::<Errand>();
        let thread = self.spawn(move || asked.into_iter().for_each(|errand| errand()))?;
        let there = There { errands: Some(errands), thread: Some(thread) };
        Ok(Resident { netns: self.clone(), there: Arc::new(there) })
    }
}

impl Resident {
    /// Where it lives.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Has it do something after what it was asked before, and does not wait.
    ///
    /// # Errors
    /// [`NetnsError::System`] if an earlier errand panicked: the thread is gone then.
    pub fn ask(&self, errand: impl FnOnce() + Send + 'static) -> Result<(), NetnsError> {
        let errands = self.there.errands.as_ref().ok_or_else(|| self.gone())?;
        errands.send(Box::new(errand)).map_err(|_| self.gone())
    }

    /// Has it do something, and waits for what comes of it.
    ///
    /// # Errors
    /// [`NetnsError::System`] if this or an earlier errand panicked.
    pub fn run<T: Send + 'static>(
        &self,
        errand: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NetnsError> {
        let (done, result) = mpsc::sync_channel(1);
        self.ask(move || drop(done.send(errand())))?;
        result.recv().map_err(|_| self.gone())
    }

    fn gone(&self) -> NetnsError {
        let error = io::Error::other("its thread there has panicked");
        NetnsError::system("work in", self.netns.name(), "ask the resident", error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::ScratchNetns;
    use super::*;
    use crate::process::privileges;

    #[test]
    fn a_resident_without_privileges_still_opens_sockets_there() {
        let name = "a_resident_without_privileges";
        let Some(netns) = ScratchNetns::for_test(name) else { return };
        let resident = netns.resident().unwrap();
        let links = crate::link::Links::in_netns(&netns).unwrap();
        links.set_up("lo").unwrap();
        resident.run(privileges::give_up).unwrap().unwrap();
        let there = resident.run(Netns::current).unwrap().unwrap();
        assert!(there.is_same(&netns));
        // And it cannot leave any more, nor can it change anything there.
        let here = Netns::current().unwrap();
        let away = resident.run(move || here.run(|| ())).unwrap();
        assert!(away.is_err());
        let inside = Netns::clone(&netns);
        let refused = resident.run(move || crate::link::Links::in_netns(&inside)?.set_up("lo"));
        let refused = refused.unwrap().unwrap_err();
        assert_eq!(refused.io_error().unwrap().kind(), io::ErrorKind::PermissionDenied);
        let bound = resident.run(|| std::net::UdpSocket::bind("127.0.0.1:0")).unwrap();
        assert!(bound.is_ok(), "a socket takes no privilege");
    }

    #[test]
    fn a_resident_has_ended_when_the_last_handle_is_gone() {
        let resident = Netns::current().unwrap().resident().unwrap();
        let (go_on, wait) = mpsc::channel::<()>();
        let done = Arc::new(AtomicBool::new(false));
        let does = Arc::clone(&done);
        resident
            .ask(move || {
                let _ = wait.recv();
                does.store(true, Ordering::Release);
            })
            .unwrap();
        drop(resident.clone());
        drop(go_on);
        drop(resident);
        assert!(done.load(Ordering::Acquire), "what it was asked is done");
    }

    #[test]
    fn a_resident_may_hold_the_last_handle_itself() {
        let resident = Netns::current().unwrap().resident().unwrap();
        let (done, wait) = mpsc::channel();
        let own = resident.clone();
        let (go_on, dropped) = mpsc::channel::<()>();
        let ask = move || {
            let _ = dropped.recv();
            drop(own);
            let _ = done.send(());
        };
        resident.ask(ask).unwrap();
        drop(resident);
        drop(go_on);
        wait.recv().unwrap();
    }

    #[test]
    fn a_resident_that_panicked_says_so() {
        let resident = Netns::current().unwrap().resident().unwrap();
        assert_eq!(resident.run(|| 7).unwrap(), 7);
        assert!(resident.run(|| -> u8 { std::panic::resume_unwind(Box::new("out")) }).is_err());
        let error = resident.run(|| 7).unwrap_err().to_string();
        assert!(error.contains("panicked"), "{error}");
    }
}
