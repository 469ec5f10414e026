//! May this process make network namespaces and TUN devices, and if not, how could it?
//!
//! Making them takes capabilities that root has. Where the system lets users make user namespaces,
//! anybody can have them over a private world of their own ([`enter_user_namespace`]); everything
//! made there vanishes with the last process in it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

const TUN_DEVICE: &str = "/dev/net/tun";
/// Bits of the capability sets (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// What this process has of that which network namespaces and TUN devices take.
///
/// Its `Display` is for the user: what is missing, and how to get it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Preflight {
    /// `CAP_NET_ADMIN`: links, addresses, routes, TUN devices.
    pub net_admin: bool,
    /// `CAP_SYS_ADMIN`: namespaces and mounts.
    pub sys_admin: bool,
    /// Whether `/dev/net/tun` opens for reading and writing.
    pub tun: Result<(), io::Error>,
    /// Whether namespaces can be made and mounted with what the process has now: a container may
    /// grant the capability and forbid the call.
    pub namespaces: Result<(), io::Error>,
    /// Whether they can be made inside a new user namespace.
    pub user_namespaces: Result<(), io::Error>,
}

/// How a program that needs namespaces and TUN devices can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As it is.
    Directly,
    /// After [`enter_user_namespace`].
    InUserNamespace,
    /// Not at all: show the [`Preflight`].
    Impossible,
}

impl Preflight {
    /// Looks, by trying each thing in a short-lived child process; nothing is changed.
    pub fn check() -> Self {
        let capabilities = effective_capabilities();
        Self {
            net_admin: capabilities & (1 << CAP_NET_ADMIN) != 0,
            sys_admin: capabilities & (1 << CAP_SYS_ADMIN) != 0,
            tun: OpenOptions::new().read(true).write(true).open(TUN_DEVICE).map(|_| ()),
            namespaces: attempt(make_namespaces),
            user_namespaces: attempt(|| {
                // In two steps, as the second is what AppArmor forbids where it lets the first pass.
                unshare(CloneFlags::CLONE_NEWUSER)?;
                make_namespaces()
            }),
        }
    }

    /// How to start.
    pub fn start(&self) -> Start {
        if self.tun.is_err() {
            Start::Impossible
        } else if self.net_admin && self.sys_admin && self.namespaces.is_ok() {
            Start::Directly
        } else if self.user_namespaces.is_ok() {
            Start::InUserNamespace
        } else {
            Start::Impossible
        }
    }
}

impl fmt::Display for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |yes: bool| if yes { "has    " } else { "MISSING" };
        let why = |result: &Result<(), io::Error>| match result {
            Ok(()) => String::new(),
            Err(error) => format!(": {error}"),
        };
        writeln!(f, "Network namespaces and TUN devices need privileges. This process:")?;
        writeln!(f, "  {} CAP_NET_ADMIN (links, addresses, routes)", has(self.net_admin))?;
        writeln!(f, "  {} CAP_SYS_ADMIN (namespaces)", has(self.sys_admin))?;
        writeln!(
            f,
            "  {} permission to make and mount namespaces{}",
            has(self.namespaces.is_ok()),
            why(&self.namespaces)
        )?;
        let tun = why(&self.tun);
        writeln!(f, "  {} {TUN_DEVICE} (TUN devices){tun}", has(self.tun.is_ok()))?;
        writeln!(
            f,
            "  {} user namespaces (stand in for the first three){}",
            has(self.user_namespaces.is_ok()),
            why(&self.user_namespaces)
        )?;
        match self.start() {
            Start::Directly => write!(f, "Nothing is missing."),
            Start::InUserNamespace => {
                write!(f, "It can run without root, in a user namespace of its own.")
            }
            Start::Impossible => self.advise(f),
        }
    }
}

impl Preflight {
    fn advise(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "How to get it:")?;
        match self.tun.as_ref().err().map(io::Error::kind) {
            None => {}
            Some(io::ErrorKind::NotFound) => {
                writeln!(
                    f,
                    "  - load the TUN driver: sudo modprobe tun; in a container, pass the device in:"
                )?;
                writeln!(f, "    docker run --device {TUN_DEVICE} ...")?;
            }
            Some(io::ErrorKind::PermissionDenied) => {
                writeln!(
                    f,
                    "  - run as root; or let every user open {TUN_DEVICE}, as most systems do:"
                )?;
                writeln!(f, "    sudo chmod 0666 {TUN_DEVICE}")?;
            }
            Some(_) => writeln!(
                f,
                "  - {TUN_DEVICE} is there but does not open: load the TUN driver, sudo modprobe tun"
            )?,
        }
        if let Err(error) = &self.user_namespaces
            && !(self.net_admin && self.sys_admin && self.namespaces.is_ok())
        {
            writeln!(f, "  - run as root: sudo, or in a container")?;
            writeln!(f, "    docker run --privileged --device {TUN_DEVICE} ...")?;
            writeln!(f, "  - or without root, allow user namespaces, whichever applies:")?;
            if error.raw_os_error() == Some(libc::ENOSPC) {
                writeln!(f, "    sudo sysctl user.max_user_namespaces=10000")?;
            } else {
                writeln!(
                    f,
                    "    sudo sysctl kernel.unprivileged_userns_clone=1                (Debian)"
                )?;
                writeln!(
                    f,
                    "    sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0    (Ubuntu)"
                )?;
                writeln!(f, "    a container's seccomp profile that permits unshare and mount")?;
            }
        }
        write!(f, "Then start it again.")
    }
}

/// Moves the calling process into a new user, network and mount namespace in which it is root over
/// everything that it makes, with room of its own in `/run` for named network namespaces.
///
/// For the outside it stays the user that it was. Call it first thing in `main`.
///
/// # Errors
/// [`IsolationError::Threads`] when the process has started other threads: then nothing has
/// changed. Otherwise the process may be half inside, and should end.
pub fn enter_user_namespace() -> Result<(), IsolationError> {
    let threads = fs::read_dir("/proc/self/task")
        .map_err(|e| IsolationError::step("count the threads", e))?
        .count();
    if threads != 1 {
        return Err(IsolationError::Threads(threads));
    }
    let (user, group) = (geteuid(), getegid());
    let step = |what| move |error: Errno| IsolationError::step(what, error.into());

    unshare(CloneFlags::CLONE_NEWUSER).map_err(step("make a user namespace"))?;
    // user_namespaces(7): without privilege over the parent, one id can be mapped, and a group
    // only once setgroups(2) is given up.
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1\n")),
        ("/proc/self/gid_map", format!("0 {group} 1\n")),
    ] {
        fs::write(file, text).map_err(|error| IsolationError::step("become root in it", error))?;
    }
    make_namespaces().map_err(step("make a network and a mount namespace"))?;
    private_run().map_err(|error| IsolationError::step("make room in /run", error))
}

/// Why a process could not be given a world of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IsolationError {
    /// The kernel moves only a process of one thread.
    #[error("cannot enter a user namespace: the process has {0} threads, and may have only one")]
    Threads(usize),
    /// A step failed.
    #[error("cannot enter a user namespace: {step}: {source}")]
    Step {
        /// The step.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl IsolationError {
    fn step(step: &'static str, source: io::Error) -> Self {
        Self::Step { step, source }
    }
}

/// A network and a mount namespace whose mounts nobody else sees. Allocates nothing.
fn make_namespaces() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let none = None::<&Path>;
    mount(none, Path::new("/"), none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)
}

/// Lays an empty file system over `/run`, which belongs to root, and lets the directories that were
/// there shine through (a user's own `/run/user/…` among them).
fn private_run() -> io::Result<()> {
    let run = Path::new("/run");
    let mut kept: Vec<(PathBuf, File)> = Vec::new();
    for entry in fs::read_dir(run)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || entry.file_name() == "netns" {
            continue;
        }
        // A handle, so that the directory is still to be found when it is covered.
        let handle = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(entry.path());
        if let Ok(handle) = handle {
            kept.push((entry.path(), handle));
        }
    }
    let none = None::<&Path>;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), run, Some("tmpfs"), flags, Some("mode=0755"))?;
    for (path, handle) in kept {
        fs::create_dir(&path)?;
        let from = format!("/proc/self/fd/{}", handle.as_raw_fd());
        mount(Some(from.as_str()), &path, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    }
    Ok(())
}

/// The effective set of the calling thread; none if `/proc` does not tell.
fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    parse_capabilities(&status).unwrap_or(0)
}

fn parse_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Runs `steps` in a child process that then ends, without ever starting a program.
fn attempt(steps: fn() -> nix::Result<()>) -> Result<(), io::Error> {
    /// No step answers with this, so it means that all were done.
    const DONE: Errno = Errno::ECANCELED;

    let mut command = Command::new("/proc/self/exe");
    // SAFETY: between fork and exec only async-signal-safe functions may run; the steps make
    // system calls and allocate nothing.
    unsafe { command.pre_exec(move || Err(steps().err().unwrap_or(DONE).into())) };
    match command.spawn() {
        Err(error) if error.raw_os_error() == Some(DONE as i32) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => unreachable!("pre_exec always ends the child"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preflight(root: bool, tun: Option<Errno>, user: Option<Errno>) -> Preflight {
        let result = |errno: Option<Errno>| errno.map_or(Ok(()), |e| Err(e.into()));
        Preflight {
            net_admin: root,
            sys_admin: root,
            tun: result(tun),
            namespaces: result((!root).then_some(Errno::EPERM)),
            user_namespaces: result(user),
        }
    }

    #[test]
    fn the_way_to_start_follows_from_what_is_there() {
        let user = Some(Errno::EPERM);
        assert_eq!(preflight(true, None, user).start(), Start::Directly);
        assert_eq!(preflight(false, None, None).start(), Start::InUserNamespace);
        assert_eq!(preflight(false, None, user).start(), Start::Impossible);
        assert_eq!(preflight(true, Some(Errno::ENOENT), None).start(), Start::Impossible);
    }

    #[test]
    fn a_container_with_capabilities_that_may_not_mount_is_not_enough() {
        let mut container = preflight(true, None, Some(Errno::EPERM));
        container.namespaces = Err(Errno::EPERM.into());
        assert_eq!(container.start(), Start::Impossible);
        assert!(container.to_string().contains("--privileged"), "{container}");
    }

    #[test]
    fn the_report_names_what_is_missing_and_the_way_to_it() {
        let closed = preflight(false, Some(Errno::EACCES), None).to_string();
        insta::assert_snapshot!(closed);
        let nothing = preflight(false, Some(Errno::ENOENT), Some(Errno::ENOSPC)).to_string();
        insta::assert_snapshot!(nothing);
    }

    #[test]
    fn capabilities_are_read_from_the_status_file() {
        let status = "Name:\tx\nCapInh:\t0000000000000000\nCapEff:\t0000000000201000\n";
        let set = parse_capabilities(status).unwrap();
        assert_eq!(set, 1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN);
        assert_eq!(parse_capabilities("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_of_many_threads_is_told_so_and_left_alone() {
        // The test harness runs this beside a main thread.
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || held.recv());
        let before = fs::read_link("/proc/self/ns/user").unwrap();
        assert!(matches!(enter_user_namespace(), Err(IsolationError::Threads(2..))));
        assert_eq!(fs::read_link("/proc/self/ns/user").unwrap(), before);
        drop(hold);
        let _ = other.join();
    }
}
