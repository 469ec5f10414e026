//! Giving up privileges: capabilities, the way to new ones, and memory that others may read.
//!
//! On Linux each thread has capability sets of its own and hands them to the threads that it
//! starts. So a program opens what takes privileges, enters the namespaces that it will need on
//! threads that stay there ([`crate::netns::Resident`]), has each of them [`give_up`], and starts
//! all other threads after that.

use std::fmt;
use std::fs;
use std::io;

use caps::{CapSet, Capability};
use nix::sys::prctl;

/// The capability sets of a thread, as `/proc` tells them: bit by bit, as linux/capability.h
/// numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Privileges {
    /// What counts now (`CapEff`).
    pub effective: u64,
    /// What the thread can make effective (`CapPrm`).
    pub permitted: u64,
    /// What a program with file capabilities could inherit (`CapInh`).
    pub inheritable: u64,
    /// The most that any program started from here could get (`CapBnd`).
    pub bounding: u64,
    /// What programs that are started get without further ado (`CapAmb`).
    pub ambient: u64,
    /// Whether no program started from here gets more than the thread has, whatever its file says
    /// (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
}

impl Privileges {
    /// Those of the calling thread.
    ///
    /// # Errors
    /// If `/proc` is not there or does not tell.
    pub fn current() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/thread-self/status")?)
    }

    /// Those that the file `status` of a thread under `/proc` tells.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if it does not.
    pub fn parse(status: &str) -> io::Result<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("the kernel tells no {name}"))
            })
        };
        let set = |name| {
            let text = field(name)?;
            u64::from_str_radix(text, 16)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        };
        Ok(Self {
            effective: set("CapEff")?,
            permitted: set("CapPrm")?,
            inheritable: set("CapInh")?,
            bounding: set("CapBnd")?,
            ambient: set("CapAmb")?,
            no_new_privileges: field("NoNewPrivs")? == "1",
        })
    }

    /// Whether the thread has none and, whatever it starts, can get none.
    pub fn are_gone(&self) -> bool {
        self.effective | self.permitted | self.inheritable | self.ambient == 0
            && self.no_new_privileges
    }
}

impl fmt::Display for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { effective, permitted, inheritable, bounding, ambient, no_new_privileges } = self;
        write!(
            f,
            "CapEff={effective:x} CapPrm={permitted:x} CapInh={inheritable:x} CapBnd={bounding:x} \
             CapAmb={ambient:x} NoNewPrivs={}",
            u8::from(*no_new_privileges)
        )
    }
}

/// Takes every capability from the calling thread, for good: the effective, permitted, inheritable
/// and ambient sets become empty, `PR_SET_NO_NEW_PRIVS` is set, and so it is with all threads and
/// programs that this thread starts from now on. Other threads keep what they have.
///
/// The bounding set becomes empty, too, where the thread has `CAP_SETPCAP`; without it the kernel
/// does not let go of it, and nothing can be had from it any more.
///
/// What is open stays open: sockets, devices, files of `/proc`. A thread stays in its namespaces.
///
/// # Errors
/// If the kernel refuses a step, or if afterwards something is left. Then the thread must not go
/// on.
pub fn give_up() -> io::Result<Privileges> {
    let told = |step: &'static str| {
        move |error: caps::errors::CapsError| io::Error::other(format!("{step}: {error}"))
    };
    caps::clear(None, CapSet::Ambient).map_err(told("clear the ambient set"))?;
    // Only this capability lets a thread take from its bounding set.
    let may = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP);
    if may.map_err(told("look at the effective set"))? {
        caps::clear(None, CapSet::Bounding).map_err(told("clear the bounding set"))?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(told("clear the inheritable set"))?;
    caps::clear(None, CapSet::Permitted).map_err(told("clear the permitted set"))?;
    prctl::set_no_new_privs()?;
    let left = Privileges::current()?;
    if !left.are_gone() {
        return Err(io::Error::other(format!("some privileges are left: {left}")));
    }
    Ok(left)
}

/// Keeps the memory of the process to itself: no core dump, and no other process of its user may
/// attach to it or read its memory (`PR_SET_DUMPABLE`). Root may, with `CAP_SYS_PTRACE`.
///
/// Its files under `/proc` are root's then, so that a process of another user, or a child of it that
/// has not started a program yet, cannot set up a user namespace.
pub fn hide_memory() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// Takes [`hide_memory`] back: for a process that has no secrets any more.
pub fn reveal_memory() -> io::Result<()> {
    Ok(prctl::set_dumpable(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn one_thread_gives_up_and_those_that_it_starts_have_nothing() {
        let before = Privileges::current().unwrap();
        let (gone, child) = thread::spawn(|| {
            let gone = give_up().unwrap();
            (gone, thread::spawn(|| Privileges::current().unwrap()).join().unwrap())
        })
        .join()
        .unwrap();
        assert!(gone.are_gone(), "{gone}");
        assert_eq!(child, gone);
        // Of a thread that could take from it, the bounding set is empty.
        let setpcap = before.effective & Capability::CAP_SETPCAP.bitmask() != 0;
        assert_eq!(gone.bounding == 0, setpcap || before.bounding == 0, "{before} -> {gone}");
        assert_eq!(Privileges::current().unwrap(), before, "this thread keeps what it had");
    }

    #[test]
    fn giving_up_twice_is_no_error() {
        let twice = thread::spawn(|| give_up().and_then(|_| give_up())).join().unwrap();
        assert!(twice.unwrap().are_gone());
    }

    #[test]
    fn memory_is_hidden_and_revealed() {
        hide_memory().unwrap();
        assert!(!prctl::get_dumpable().unwrap());
        reveal_memory().unwrap();
        assert!(prctl::get_dumpable().unwrap());
    }

    #[test]
    fn a_status_is_read_by_name() {
        let status = "Name:\tx\nCapInh:\t0000000000000001\nCapPrm:\t0000000000000002\n\
                      CapEff:\t0000000000000004\nCapBnd:\t000001ffffffffff\n\
                      CapAmb:\t0000000000000010\nNoNewPrivs:\t1\n";
        let privileges = Privileges::parse(status).unwrap();
        let expected = "CapEff=4 CapPrm=2 CapInh=1 CapBnd=1ffffffffff CapAmb=10 NoNewPrivs=1";
        assert_eq!(privileges.to_string(), expected);
        assert!(!privileges.are_gone());
        let missing = Privileges::parse("CapInh:\t0\n").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::InvalidData);
    }
}
