//! A terminal that is not ours: `tmux`, where it is installed, runs a program on a screen of its own
//! and tells what is seen there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::notice;
use crate::world::{Process, wait_until};

/// The environment variable that says, under `CI=true`, that `tmux` must be there.
pub const NEEDED: &str = "GWLB_NEED_TMUX";

/// Whether `tmux` is there; a notice for people if it is not.
///
/// # Panics
/// If it is not and has to be: under `CI=true` with [`NEEDED`] set to 1.
pub fn is_there(test: &str) -> bool {
    let version = Command::new("tmux").arg("-V").stderr(Stdio::null()).output();
    if version.is_ok_and(|output| output.status.success()) {
        return true;
    }
    let is = |name, value| std::env::var_os(name).is_some_and(|found| found == value);
    assert!(!(is("CI", "true") && is(NEEDED, "1")), "{test} may not be skipped: no tmux");
    notice::skip(test, "tmux is not installed");
    false
}

/// A shell on a screen. It ends with this, and with the test.
#[derive(Debug)]
pub struct Screen {
    socket: PathBuf,
    // In the foreground, so that it is a child of the test as every other process is.
    _server: Process,
}

impl Screen {
    /// Starts a shell on a screen of so many columns and rows; its socket is in `folder`.
    ///
    /// # Panics
    /// If that fails.
    pub fn start(folder: &Path, columns: u16, rows: u16) -> Self {
        let socket = folder.join("tmux.sock");
        let mut command = Command::new("tmux");
        command.args(["-D", "-u", "-f", "/dev/null", "-S"]).arg(&socket);
        let server = Process::start("tmux", command);
        wait_until("tmux listens", || socket.exists());
        let screen = Self { socket, _server: server };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        // What a developer's shell is set up to do must change no test.
        let shell = ["-e", "ENV=", "-e", "NO_COLOR=", "sh"];
        screen.tmux(&[&["new-session", "-d", "-x", &columns, "-y", &rows], &shell[..]].concat());
        screen.wait_for("the shell's prompt", |text| text.trim_end().ends_with(['$', '#']));
        screen
    }

    /// Types a line.
    pub fn line(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.keys(&["Enter"]);
    }

    /// Presses keys, by the names that `tmux` has for them.
    pub fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// What is seen, without blanks at the ends of lines.
    pub fn shown(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Makes it another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// Whether a program has the screen for itself, and whether the cursor is seen.
    pub fn state(&self) -> (bool, bool) {
        let flags = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        let mut flags = flags.split_whitespace().map(|flag| flag == "1");
        (flags.next().unwrap_or_default(), flags.next().unwrap_or_default())
    }

    /// Looks until what is seen is as wanted, and gives that.
    ///
    /// # Panics
    /// If it does not come to be so within [`LIMIT`](crate::world::LIMIT); what was seen last is
    /// told.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut seen = Last(self.shown());
        wait_until(what, || {
            seen.0 = self.shown();
            wanted(&seen.0)
        });
        std::mem::take(&mut seen.0)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.args(["-u", "-S"]).arg(&self.socket).args(arguments).stdin(Stdio::null());
        let output = command.output().expect("tmux");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

/// What was seen last: told if what was waited for never came.
struct Last(String);

impl Drop for Last {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the screen showed:\n{}", self.0);
        }
    }
}
