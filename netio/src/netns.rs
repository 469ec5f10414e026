//! Network namespaces: make, open, enter and delete them, named as `ip netns` names them, so that
//! both tools see the same ones.
//!
//! A thread that has entered a namespace never leaves it: work goes to a thread of its own
//! ([`Netns::run`], [`Netns::spawn`], [`Resident`]), and a socket opened there stays in the
//! namespace wherever it is used afterwards. Links, addresses and routes are in [`crate::link`].

mod resident;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};

pub use resident::Resident;

/// Where named namespaces live; iproute2's `NETNS_RUN_DIR`.
pub const DIRECTORY: &str = "/run/netns";

/// The namespace of the calling thread (not of the process: threads may differ).
const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

/// `NSFS_MAGIC` of linux/magic.h: the file system that namespace files belong to.
const NSFS: FsType = FsType(0x6e73_6673);

/// Longest file name, `NAME_MAX` of linux/limits.h.
const LONGEST_NAME: usize = 255;

/// An open network namespace. It lives at least as long as this handle, even when its name is
/// deleted; clones are the same namespace.
#[derive(Clone)]
pub struct Netns {
    name: String,
    path: Option<PathBuf>,
    handle: Arc<OwnedFd>,
}

impl Netns {
    /// Makes a new, empty network namespace and gives it a name, as `ip netns add` does.
    ///
    /// It holds a loopback device, which is down. [`Netns::delete`] removes the name.
    ///
    /// # Errors
    /// [`NetnsError::Name`], [`NetnsError::Exists`], or [`NetnsError::System`] without
    /// `CAP_SYS_ADMIN` or a writable [`DIRECTORY`]. Nothing is left behind.
    pub fn create(name: &str) -> Result<Self, NetnsError> {
        let path = path_of(name)?;
        let fail = |step| move |source| NetnsError::system("create", name, step, source);

        prepare_directory().map_err(fail("prepare /run/netns"))?;
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(NetnsError::Exists { name: name.to_owned() });
            }
            Err(error) => return Err(fail("create its file")(error)),
        }

        let made = thread::scope(|scope| {
            let maker = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).map_err(|e| fail("unshare")(e.into()))?;
                bind(Path::new(OF_THIS_THREAD), &path).map_err(|e| fail("bind mount")(e.into()))
            });
            maker.join().unwrap_or_else(|panic| resume_unwind(panic))
        });
        made.and_then(|()| Self::open(name)).inspect_err(|_| {
            let _ = umount2(&path, MntFlags::MNT_DETACH);
            let _ = fs::remove_file(&path);
        })
    }

    /// Opens an existing namespace: a name under [`DIRECTORY`], or anything with a slash as a path
    /// (`/proc/1234/ns/net`).
    ///
    /// # Errors
    /// [`NetnsError::NotFound`], [`NetnsError::NotANamespace`], or [`NetnsError::System`].
    pub fn open(name_or_path: &str) -> Result<Self, NetnsError> {
        let (name, path) = if name_or_path.contains('/') {
            let path = PathBuf::from(name_or_path);
            let in_directory = path.parent() == Some(Path::new(DIRECTORY));
            let last = path.file_name().filter(|_| in_directory);
            (last.map_or_else(|| name_or_path.into(), |n| n.to_string_lossy().into_owned()), path)
        } else {
            (name_or_path.to_owned(), path_of(name_or_path)?)
        };
        Self::open_file(name, &path, Some(path.clone()))
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open_file("(current)".to_owned(), Path::new(OF_THIS_THREAD), None)
    }

    /// The name under [`DIRECTORY`], else the path it was opened by, else `(current)`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that it was opened by; `None` for [`Netns::current`].
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether both handles are for the same namespace.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self.identity(), other.identity()) {
            (Ok(one), Ok(two)) => one == two,
            _ => false,
        }
    }

    /// Runs `work` inside the namespace, on a thread of its own, and returns what it returned. A
    /// panic of `work` goes on in the caller.
    ///
    /// # Errors
    /// [`NetnsError::System`] if the namespace is another one than the caller's and cannot be
    /// entered (`CAP_SYS_ADMIN`); `work` has then not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        thread::scope(|scope| {
            let inside = || {
                self.enter()?;
                Ok(work())
            };
            let thread = thread::Builder::new()
                .name(self.thread_name())
                .spawn_scoped(scope, inside)
                .map_err(|error| {
                    NetnsError::system("enter", &self.name, "start a thread", error)
                })?;
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a thread inside the namespace. When this returns, it has entered.
    ///
    /// # Errors
    /// [`NetnsError::System`] if the namespace cannot be entered, as with [`Netns::run`]; `work` has
    /// then not run, and the thread has ended.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, NetnsError> {
        let (entered, wait) = mpsc::sync_channel(1);
        let netns = self.clone();
        let inside = move || {
            let result = netns.enter();
            let may_work = result.is_ok();
            // The receiver waits below; it cannot have gone.
            let _ = entered.send(result);
            if !may_work {
                // Ends the thread without the noise of a panic; the caller gets the error.
                resume_unwind(Box::new("the namespace could not be entered"));
            }
            work()
        };
        let fail = |error| NetnsError::system("enter", &self.name, "start a thread", error);
        let thread = thread::Builder::new().name(self.thread_name()).spawn(inside).map_err(fail)?;
        match wait.recv() {
            Ok(Ok(())) => Ok(thread),
            Ok(Err(error)) => {
                let _ = thread.join();
                Err(error)
            }
            Err(mpsc::RecvError) => Err(fail(io::Error::other("it ended before it had entered"))),
        }
    }

    /// Reads a setting of the kernel inside the namespace, such as `net.ipv4.ip_forward`.
    ///
    /// Keys are written with dots as in `sysctl`, or with slashes where a device's name has dots.
    pub fn sysctl(&self, key: &str) -> Result<String, NetnsError> {
        let path = sysctl_path(key);
        let value = self.run(|| fs::read_to_string(&path))?;
        let value = value.map_err(|error| NetnsError::setting("read", key, &self.name, error))?;
        Ok(value.trim_end().to_owned())
    }

    /// Changes a setting of the kernel inside the namespace, such as
    /// `net.ipv4.tcp_congestion_control`. Keys as in [`Netns::sysctl`].
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<(), NetnsError> {
        let path = sysctl_path(key);
        let written = self.run(|| fs::write(&path, value))?;
        written.map_err(|error| NetnsError::setting("set", key, &self.name, error))
    }

    /// Removes the name, as `ip netns delete` does. The namespace itself goes when nothing is left
    /// inside and nobody holds it open.
    ///
    /// # Errors
    /// [`NetnsError::NotFound`] if the name has already gone, [`NetnsError::Unnamed`] for
    /// [`Netns::current`], [`NetnsError::System`] otherwise.
    pub fn delete(self) -> Result<(), NetnsError> {
        let Some(path) = &self.path else { return Err(NetnsError::Unnamed) };
        remove(&self.name, path)
    }

    fn open_file(name: String, file: &Path, path: Option<PathBuf>) -> Result<Self, NetnsError> {
        let handle = File::open(file).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                NetnsError::NotFound { name: name.clone(), path: file.to_owned() }
            }
            _ => NetnsError::system("open", &name, "open its file", error),
        })?;
        let found = fstatfs(&handle)
            .map_err(|e| NetnsError::system("open", &name, "look at its file", e.into()))?;
        if found.filesystem_type() != NSFS {
            return Err(NetnsError::NotANamespace { path: file.to_owned() });
        }
        Ok(Self { name, path, handle: Arc::new(handle.into()) })
    }

    /// Moves the calling thread, for good. The kernel asks for privilege even of a thread that is
    /// there already, so that one is left where it is.
    fn enter(&self) -> Result<(), NetnsError> {
        if Self::current().is_ok_and(|here| here.is_same(self)) {
            return Ok(());
        }
        setns(&*self.handle, CloneFlags::CLONE_NEWNET)
            .map_err(|error| NetnsError::system("enter", &self.name, "setns", error.into()))
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        let file = File::from(self.handle.try_clone()?).metadata()?;
        Ok((file.dev(), file.ino()))
    }

    /// At most 15 bytes of a thread's name are kept; the end of ours says more than the beginning.
    fn thread_name(&self) -> String {
        let skip = self.name.chars().count().saturating_sub(15);
        self.name.chars().skip(skip).filter(|c| *c != '\0').collect()
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netns")
            .field("name", &self.name)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A new namespace with a name of its own that is deleted when this is dropped: for tests and other
/// short-lived networks.
#[derive(Debug)]
pub struct ScratchNetns(Netns);

impl ScratchNetns {
    /// Makes a namespace named `<prefix>-<process>-<number>`. A number that is taken is left out: a
    /// process that was killed leaves its namespaces behind, and process ids come again.
    ///
    /// # Errors
    /// Those of [`Netns::create`] but [`NetnsError::Exists`].
    pub fn new(prefix: &str) -> Result<Self, NetnsError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            match Netns::create(&format!("{prefix}-{}-{number}", std::process::id())) {
                Err(NetnsError::Exists { .. }) => {}
                made => return made.map(Self),
            }
        }
    }

    /// A namespace for the test `name`; or `None`, after [`skip_test`].
    pub fn for_test(name: &str) -> Option<Self> {
        Self::new("test").map_err(|error| skip_test(name, error)).ok()
    }
}

/// Says on stderr that the test `name` is skipped, and why.
///
/// # Panics
/// In place of skipping where the environment says `CI=true`: there, every test must run.
pub fn skip_test(name: &str, why: impl fmt::Display) {
    let must = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!must, "{name} may not be skipped here, but {why}");
    // Past the test harness, which keeps to itself what a passing test says with `eprintln!`.
    let line = format!("SKIP {name}: {why}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

impl std::ops::Deref for ScratchNetns {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.0
    }
}

impl Drop for ScratchNetns {
    fn drop(&mut self) {
        if let Err(error) = self.0.clone().delete() {
            tracing::warn!(%error, "a scratch namespace stays behind");
        }
    }
}

/// Why something could not be done to a network namespace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// The name cannot be a file's name.
    #[error(
        "{0:?} cannot name a network namespace: a name has 1 to 255 bytes, no slash, and is neither \".\" nor \"..\""
    )]
    Name(String),
    /// The name is taken.
    #[error("cannot create network namespace {name:?}: the name is taken")]
    Exists {
        /// The name asked for.
        name: String,
    },
    /// There is no such file.
    #[error("network namespace {name:?} does not exist: there is no {}", path.display())]
    NotFound {
        /// The name, or the path as it was given.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file is there, but it is not a namespace; perhaps the rest of one.
    #[error("{} is a file, but not a namespace (a leftover of one can be removed)", path.display())]
    NotANamespace {
        /// The file.
        path: PathBuf,
    },
    /// The namespace was not opened by a name, so there is none to delete.
    #[error("the current network namespace was not opened by a name: nothing to delete")]
    Unnamed,
    /// A setting could not be read or changed.
    #[error("cannot {action} {key} in network namespace {name:?}: {source}")]
    Setting {
        /// `read` or `set`.
        action: &'static str,
        /// The key as it was given.
        key: String,
        /// The namespace.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a step.
    #[error("cannot {action} network namespace {name:?}: {step}: {source}")]
    System {
        /// What was asked for: `create`, `open`, `enter`, `look into`, `work in`, `delete`.
        action: &'static str,
        /// The namespace.
        name: String,
        /// The step that failed.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl NetnsError {
    /// The kernel's answer, where there is one.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Setting { source, .. } | Self::System { source, .. } => Some(source),
            _ => None,
        }
    }

    pub(crate) fn system(
        action: &'static str,
        name: &str,
        step: &'static str,
        source: io::Error,
    ) -> Self {
        Self::System { action, name: name.to_owned(), step, source }
    }

    fn setting(action: &'static str, key: &str, name: &str, source: io::Error) -> Self {
        Self::Setting { action, key: key.to_owned(), name: name.to_owned(), source }
    }
}

fn path_of(name: &str) -> Result<PathBuf, NetnsError> {
    let fits = !name.is_empty() && name.len() <= LONGEST_NAME && name != "." && name != "..";
    if !fits || name.contains(['/', '\0']) {
        return Err(NetnsError::Name(name.to_owned()));
    }
    Ok(Path::new(DIRECTORY).join(name))
}

/// Makes [`DIRECTORY`] a mount point of its own with shared propagation, so that a namespace named
/// here is seen in every mount namespace, and its deletion too (as `ip netns add` does).
fn prepare_directory() -> io::Result<()> {
    let directory = Path::new(DIRECTORY);
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    // Two creators at once would stack two mounts; iproute2 takes the same lock.
    let lock = File::open(directory)?;
    lock.lock()?;
    match share(directory) {
        // Not a mount point yet.
        Err(Errno::EINVAL) => {
            bind(directory, directory)?;
            share(directory)?;
        }
        result => result?,
    }
    Ok(())
}

fn share(path: &Path) -> nix::Result<()> {
    mount(None::<&Path>, path, None::<&Path>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&Path>)
}

fn bind(from: &Path, to: &Path) -> nix::Result<()> {
    mount(Some(from), to, None::<&Path>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&Path>)
}

fn remove(name: &str, path: &Path) -> Result<(), NetnsError> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: the file is there, but nothing is mounted on it.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(NetnsError::system("delete", name, "unmount", error.into())),
    }
    fs::remove_file(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            NetnsError::NotFound { name: name.to_owned(), path: path.to_owned() }
        }
        _ => NetnsError::system("delete", name, "remove its file", error),
    })
}

fn sysctl_path(key: &str) -> PathBuf {
    let key = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    Path::new("/proc/sys").join(key.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_file_names_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
            assert!(matches!(path_of(name), Err(NetnsError::Name(_))), "{name:?}");
        }
        assert_eq!(path_of("az1").unwrap(), Path::new("/run/netns/az1"));
    }

    #[test]
    fn settings_are_found_by_dots_and_by_slashes() {
        let path = Path::new("/proc/sys/net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), path);
        assert_eq!(sysctl_path("net/ipv4/ip_forward"), path);
        let dotted = sysctl_path("net/ipv4/conf/eth0.7/forwarding");
        assert_eq!(dotted, Path::new("/proc/sys/net/ipv4/conf/eth0.7/forwarding"));
    }

    #[test]
    fn opening_says_what_is_wrong() {
        let missing = Netns::open("netio-no-such-namespace").unwrap_err();
        assert!(matches!(missing, NetnsError::NotFound { .. }), "{missing}");
        let plain = Netns::open("/proc/version").unwrap_err();
        assert!(matches!(plain, NetnsError::NotANamespace { .. }), "{plain}");
    }

    #[test]
    fn the_current_namespace_is_itself_and_has_no_name_to_delete() {
        let current = Netns::current().unwrap();
        assert!(current.is_same(&Netns::open("/proc/self/ns/net").unwrap()));
        assert!(matches!(current.delete(), Err(NetnsError::Unnamed)));
    }
}
