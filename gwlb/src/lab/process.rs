//! The lab's processes: the gateway and the appliances, each this very program started again inside
//! a namespace. None outlives the lab, and what they say is kept for the error that needs it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netio::netns::Netns;
use netio::process::{ChildExt, CommandExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::LabError;
use crate::runtime::clock;

/// How long a process may take to get ready. Health checks and devices take well under a second;
/// the rest is for busy machines.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long a process may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at whether it is ready.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How much of a log an error shows.
const LAST_WORDS: usize = 20;

/// A running process. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ending: Ending,
    /// Whether it was ended on purpose.
    gone: bool,
}

/// How a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is asked, and given time to put things in order.
    InOrder,
    /// It is killed.
    AtOnce,
}

impl Process {
    /// Starts this program with other `arguments` inside `netns`. What it says goes to
    /// `<directory>/<name>.log`.
    pub(crate) fn start<A: AsRef<OsStr>>(
        name: &str,
        netns: &Netns,
        arguments: &[A],
        directory: &Path,
        ending: Ending,
    ) -> Result<Self, LabError> {
        let log = directory.join(format!("{name}.log"));
        // A process that is started again goes on where the one before it ended.
        let output = File::options().create(true).append(true).open(&log);
        let output = output.map_err(LabError::io(format!("write {}", log.display())))?;
        let errors = output.try_clone().map_err(LabError::io("write a log"))?;
        let child = Command::new("/proc/self/exe")
            .arg0("gwlb")
            .args(arguments)
            // People read it, if anybody does.
            .env("GWLB_LOG_FORMAT", "human")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // Ctrl-C is for the lab, which then ends its processes in order.
            .process_group(0)
            .in_netns(netns)
            .die_with_parent()
            .spawn()
            .map_err(LabError::io(format!("start {name}")))?;
        Ok(Self { name: name.to_owned(), child, log, ending, gone: false })
    }

    /// The number that the kernel knows it by.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until `ready` says so. `ready` says why not, as long as it is not.
    pub(crate) async fn wait_ready(
        &mut self,
        mut ready: impl AsyncFnMut() -> Result<(), String>,
    ) -> Result<(), LabError> {
        let until = clock::now() + READY_LIMIT;
        loop {
            let Err(why) = ready().await else { return Ok(()) };
            self.check_alive()?;
            if clock::now() > until {
                return Err(LabError::NotReady {
                    name: self.name.clone(),
                    seconds: READY_LIMIT.as_secs(),
                    why,
                    log: self.last_words(),
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Kills it (`SIGKILL`), and waits until its sockets are gone. From then on it may be dead.
    pub(crate) fn kill(&mut self) -> Result<(), LabError> {
        self.gone = true;
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(LabError::io(format!("kill {}", self.name)))
    }

    /// Has it hang (`SIGSTOP`): its sockets stay, and nobody takes anything from them.
    pub(crate) fn hang(&self) -> Result<(), LabError> {
        let what = || format!("stop {}", self.name);
        let id = i32::try_from(self.child.id()).map_err(io::Error::other);
        let id = Pid::from_raw(id.map_err(LabError::io(what()))?);
        // Until it is reaped, which only we can do, its id belongs to nobody else.
        kill(id, Signal::SIGSTOP).map_err(|error| LabError::io(what())(error.into()))
    }

    /// An error if it has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<(), LabError> {
        if self.gone {
            return Ok(());
        }
        match self.child.try_wait().map_err(LabError::io(format!("look after {}", self.name)))? {
            None => Ok(()),
            Some(status) => {
                Err(LabError::Ended { name: self.name.clone(), status, log: self.last_words() })
            }
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = match self.ending {
            _ if self.gone => Ok(()),
            Ending::InOrder => self.child.stop(GRACE).map(drop),
            Ending::AtOnce => self.child.kill().and_then(|()| self.child.wait().map(drop)),
        };
        if let Err(error) = ended {
            tracing::warn!(name = self.name, %error, "cannot end a process");
        }
    }
}

/// A directory of the run's own, removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct RunDirectory(PathBuf);

impl RunDirectory {
    /// Makes `<temporary directory>/<name>`, for this user alone.
    pub(crate) fn create(name: &str) -> Result<Self, LabError> {
        use std::os::unix::fs::DirBuilderExt;

        let path = std::env::temp_dir().join(name);
        let what = format!("make directory {}", path.display());
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(LabError::io(what))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, LabError> {
        let path = self.0.join(name);
        fs::write(&path, text).map_err(LabError::io(format!("write {}", path.display())))?;
        Ok(path)
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a directory stays behind");
        }
    }
}
