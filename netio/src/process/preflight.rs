//! May this process make network namespaces and TUN devices, and if not, how could it?
//!
//! Making them takes capabilities that root has. Where the system lets users make user namespaces,
//! anybody can have them over a private world of their own
//! ([`CommandExt::in_user_namespace`](super::CommandExt::in_user_namespace)); everything made there
//! vanishes with the last process in it.

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{fchdir, getegid, geteuid, mkdir};

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
    /// After [`super::restart_in_user_namespace`].
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
            user_namespaces: Isolation::prepare()
                .and_then(|mut isolation| attempt(move || isolation.enter())),
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

/// What a process does between fork and exec to have a private world; all that takes memory is
/// prepared beforehand.
///
/// It gets a new user, network and mount namespace, is root over everything that it makes there,
/// and has an empty `/run` for named network namespaces, through which the directories that were
/// there shine (a user's own `/run/user/…` among them), but for those that it may not enter. For the
/// outside it stays the user that it was.
pub(super) struct Isolation {
    user: String,
    group: String,
    /// Absolute paths of the directories in `/run` that stay visible.
    kept: Vec<CString>,
    /// Room for a handle on each; none on one that has gone since.
    handles: Vec<Option<OwnedFd>>,
}

impl Isolation {
    pub(super) fn prepare() -> io::Result<Self> {
        let mut kept = Vec::new();
        for entry in fs::read_dir("/run")? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && entry.file_name() != "netns" {
                kept.push(CString::new(entry.path().into_os_string().into_vec())?);
            }
        }
        let handles = Vec::with_capacity(kept.len());
        // user_namespaces(7): without privilege over the parent, one id can be mapped.
        let (user, group) = (format!("0 {} 1\n", geteuid()), format!("0 {} 1\n", getegid()));
        Ok(Self { user, group, kept, handles })
    }

    /// Allocates nothing: may run between fork and exec.
    pub(super) fn enter(&mut self) -> nix::Result<()> {
        // By itself, since AppArmor may let this pass and forbid what is made inside.
        unshare(CloneFlags::CLONE_NEWUSER)?;
        // user_namespaces(7): a group can be mapped only once setgroups(2) is given up.
        write(c"/proc/self/setgroups", b"deny")?;
        write(c"/proc/self/uid_map", self.user.as_bytes())?;
        write(c"/proc/self/gid_map", self.group.as_bytes())?;
        make_namespaces()?;
        self.private_run()
    }

    fn private_run(&mut self) -> nix::Result<()> {
        const NONE: Option<&CStr> = None;
        let here = handle(c".")?;
        self.handles.clear();
        // A handle each, so that the directories are still to be found when they are covered.
        for path in &self.kept {
            self.handles.push(match handle(path) {
                Err(Errno::ENOENT) => None,
                result => Some(result?),
            });
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(c"tmpfs"), c"/run", Some(c"tmpfs"), flags, Some(c"mode=0755"))?;
        for (path, handle) in self.kept.iter().zip(&self.handles) {
            let Some(handle) = handle else { continue };
            match fchdir(handle) {
                // Closed to the user, as system services have some: nothing is lost with it.
                Err(Errno::EACCES) => continue,
                result => result?,
            }
            mkdir(path.as_c_str(), Mode::from_bits_truncate(0o755))?;
            mount(Some(c"."), path.as_c_str(), NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
        }
        self.handles.clear();
        fchdir(here)
    }
}

fn write(path: &CStr, text: &[u8]) -> nix::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(&file, text).map(drop)
}

fn handle(path: &CStr) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

/// A network and a mount namespace whose mounts nobody else sees. Allocates nothing.
fn make_namespaces() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let none = None::<&CStr>;
    mount(none, c"/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)
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
fn attempt(
    mut steps: impl FnMut() -> nix::Result<()> + Send + Sync + 'static,
) -> Result<(), io::Error> {
    /// No step answers with this, so it means that all were done.
    const DONE: Errno = Errno::ECANCELED;

    let mut command = Command::new("/proc/self/exe");
    // SAFETY: between fork and exec only async-signal-safe functions may run; the steps
    // (`make_namespaces`, `Isolation::enter`) make system calls and allocate nothing.
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
        insta::assert_snapshot!(closed, @r"
        Network namespaces and TUN devices need privileges. This process:
          MISSING CAP_NET_ADMIN (links, addresses, routes)
          MISSING CAP_SYS_ADMIN (namespaces)
          MISSING permission to make and mount namespaces: Operation not permitted (os error 1)
          MISSING /dev/net/tun (TUN devices): Permission denied (os error 13)
          has     user namespaces (stand in for the first three)
        How to get it:
          - run as root; or let every user open /dev/net/tun, as most systems do:
            sudo chmod 0666 /dev/net/tun
        Then start it again.
        ");
        let nothing = preflight(false, Some(Errno::ENOENT), Some(Errno::ENOSPC)).to_string();
        insta::assert_snapshot!(nothing.split_once("How").unwrap().1, @r"
         to get it:
          - load the TUN driver: sudo modprobe tun; in a container, pass the device in:
            docker run --device /dev/net/tun ...
          - run as root: sudo, or in a container
            docker run --privileged --device /dev/net/tun ...
          - or without root, allow user namespaces, whichever applies:
            sudo sysctl user.max_user_namespaces=10000
        Then start it again.
        ");
        let forbidden = preflight(false, None, Some(Errno::EPERM)).to_string();
        insta::assert_snapshot!(forbidden.split_once("How").unwrap().1, @r"
         to get it:
          - run as root: sudo, or in a container
            docker run --privileged --device /dev/net/tun ...
          - or without root, allow user namespaces, whichever applies:
            sudo sysctl kernel.unprivileged_userns_clone=1                (Debian)
            sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0    (Ubuntu)
            a container's seccomp profile that permits unshare and mount
        Then start it again.
        ");
    }

    #[test]
    fn capabilities_are_read_from_the_status_file() {
        let status = "Name:\tx\nCapInh:\t0000000000000000\nCapEff:\t0000000000201000\n";
        let set = parse_capabilities(status).unwrap();
        assert_eq!(set, 1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN);
        assert_eq!(parse_capabilities("Name:\tx\n"), None);
    }
}
