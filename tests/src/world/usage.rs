//! What a process has of the machine, and how it is given less.

use std::process::Command;

use super::{Process, World};

impl Process {
    /// The memory that it has in use, in bytes (`VmRSS`).
    ///
    /// # Panics
    /// If it has ended.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS")
    }

    /// What counts against `RLIMIT_DATA`, in bytes (`VmData`): all memory of its own that it may
    /// write to, whether it has done so or not.
    ///
    /// # Panics
    /// If it has ended.
    pub fn data(&self) -> u64 {
        self.memory("VmData")
    }

    /// How many file descriptors it has open.
    ///
    /// # Panics
    /// If it has ended.
    pub fn open_files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.id());
        std::fs::read_dir(folder).expect("a process that runs").count()
    }

    /// Has the kernel give it no more than this from now on, in the words of `prlimit`, for example
    /// `--nofile=64:`. What it has, it keeps.
    ///
    /// # Panics
    /// If that is not possible.
    pub fn limit(&self, what: &str) {
        let id = self.id().to_string();
        let done = Command::new("prlimit").args(["--pid", &id, what]).output();
        let done = done.expect("prlimit of util-linux");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn memory(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(path).expect("a process that runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.expect("a field of every process's status") << 10
    }
}

impl World {
    /// Starts `gwlb run` by another command, which replaces itself with the one that is appended to
    /// its arguments; without waiting for anything.
    pub fn launch_gateway_by(&self, starter: &[&str], configuration: &str) -> Process {
        let file = self.write("gateway.toml", configuration);
        let file = file.to_str().expect("a path in Unicode");
        Process::start("gwlb", by(starter, self.command(&["gwlb", "run", file])))
    }
}

/// A command that another one starts, which gets it as further arguments; or itself.
pub(super) fn by(starter: &[&str], command: Command) -> Command {
    let Some((first, rest)) = starter.split_first() else { return command };
    let mut whole = Command::new(first);
    whole.args(rest).arg(command.get_program()).args(command.get_args());
    whole
}
