//! A thread that stays in a network namespace and works there for others.
//!
//! Entering a namespace takes privilege; being in it takes none. A program that means to give up
//! its privileges has residents enter the namespaces before, and asks them for whatever is to be
//! opened there later. For a single errand with privileges [`Netns::run`] is enough.

use std::io;
use std::sync::mpsc;

use super::{Netns, NetnsError};

/// A resident of a network namespace. The thread ends when the last clone of this is dropped.
#[derive(Clone, Debug)]
pub struct Resident {
    netns: Netns,
    errands: mpsc::Sender<Errand>,
}

type Errand = Box<dyn FnOnce() + Send>;

impl Netns {
    /// Starts a thread that stays in the namespace. When this returns, it has entered.
    ///
    /// # Errors
    /// [`NetnsError::System`] if the namespace cannot be entered, as with [`Netns::run`].
    pub fn resident(&self) -> Result<Resident, NetnsError> {
        let (errands, asked) = mpsc::channel::<Errand>();
        // Nothing is to be waited for: the thread ends with the last errand.
        let _detached = self.spawn(move || asked.into_iter().for_each(|errand| errand()))?;
        Ok(Resident { netns: self.clone(), errands })
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
        self.errands.send(Box::new(errand)).map_err(|_| self.gone())
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
    fn a_resident_that_panicked_says_so() {
        let resident = Netns::current().unwrap().resident().unwrap();
        assert_eq!(resident.run(|| 7).unwrap(), 7);
        assert!(resident.run(|| -> u8 { std::panic::resume_unwind(Box::new("out")) }).is_err());
        let error = resident.run(|| 7).unwrap_err().to_string();
        assert!(error.contains("panicked"), "{error}");
    }
}
