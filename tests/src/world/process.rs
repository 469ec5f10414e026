//! The programs as processes: what they say is heard line by line, so that a test waits for words
//! and not for time.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use netio::process::{ChildExt as _, CommandExt as _};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::patience::Patience;

/// A running program. Dropping it kills it; and it dies with the thread that started it, which is
/// the test's.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
    listeners: Vec<JoinHandle<()>>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// Both, in the order in which they were heard.
    pub log: String,
}

/// What a program said so far.
#[derive(Debug)]
struct Output {
    heard: Mutex<Heard>,
    more: Condvar,
}

#[derive(Debug)]
struct Heard {
    lines: Vec<(Stream, String)>,
    /// Streams that may bring more.
    open: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

impl Process {
    /// Starts a command and listens to it, except where its stdout was set to something else.
    pub fn start(name: &str, command: Command) -> Self {
        Self::start_with(name, command, Stdio::piped())
    }

    /// Starts a command whose stdout goes elsewhere.
    pub fn start_with(name: &str, mut command: Command, stdout: impl Into<Stdio>) -> Self {
        // How a developer's shell is set must change no test.
        for variable in ["GWLB_LOG", "RUST_LOG", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"] {
            command.env_remove(variable);
        }
        command.env("GWLB_LOG_FORMAT", "human");
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        command.die_with_parent();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {name}: {error}"));
        // The command holds a copy of what it gave away as stdout.
        drop(command);
        let out =
            child.stdout.take().map(|out| (Stream::Out, Box::new(out) as Box<dyn Read + Send>));
        let err =
            child.stderr.take().map(|err| (Stream::Err, Box::new(err) as Box<dyn Read + Send>));
        let streams: Vec<_> = out.into_iter().chain(err).collect();
        let heard = Heard { lines: Vec::new(), open: streams.len() };
        let output = Arc::new(Output { heard: Mutex::new(heard), more: Condvar::new() });
        let listen = |(stream, from): (Stream, Box<dyn Read + Send>)| {
            let output = Arc::clone(&output);
            std::thread::spawn(move || output.listen(stream, from))
        };
        let listeners = streams.into_iter().map(listen).collect();
        Self { name: name.to_owned(), child, output, listeners }
    }

    /// Waits for a line with `text` in it, on stdout or stderr, and returns it. A line that came
    /// earlier counts.
    ///
    /// # Panics
    /// If the program ends without it, or does not say it within [`LIMIT`](super::LIMIT).
    pub fn wait_for_line(&mut self, text: &str) -> String {
        let mut patience = Patience::new();
        let mut heard = self.output.heard.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some((_, line)) = heard.lines.iter().find(|(_, line)| line.contains(text)) {
                return line.clone();
            }
            let Some(wait) = patience.wait().filter(|_| heard.open > 0) else {
                drop(heard);
                panic!("{} did not say {text:?}, but:\n{}", self.name, self.log());
            };
            heard = self.output.wait(heard, wait);
        }
    }

    /// What it said so far, stdout and stderr.
    pub fn log(&self) -> String {
        self.output.text(|_| true)
    }

    /// The number that the kernel knows it by.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends it a signal. It is not reaped before [`Self::finish`], so its number is its own.
    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().cast_signed());
        kill(id, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
    }

    /// Stops it until [`Self::resume`]; none of its threads runs when this returns.
    ///
    /// # Panics
    /// If it has ended.
    pub fn suspend(&self) {
        self.signal(Signal::SIGSTOP);
        let id = Pid::from_raw(self.child.id().cast_signed());
        let status = waitpid(id, Some(WaitPidFlag::WUNTRACED)).expect("our own child");
        assert!(matches!(status, WaitStatus::Stopped(..)), "{} ended: {status:?}", self.name);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn crash(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If that takes longer than [`LIMIT`](super::LIMIT).
    pub fn finish(&mut self) -> Finished {
        let Some(status) = self.wait() else {
            panic!("{} does not end:\n{}", self.name, self.log())
        };
        for listener in self.listeners.drain(..) {
            // The end of a stream may be held by a grandchild; there is none.
            listener.join().expect("a thread that only listens");
        }
        Finished {
            code: status.code(),
            stdout: self.output.text(|stream| stream == Stream::Out),
            stderr: self.output.text(|stream| stream == Stream::Err),
            log: self.log(),
        }
    }

    fn wait(&mut self) -> Option<ExitStatus> {
        let mut patience = Patience::new();
        while let Some(wait) = patience.wait() {
            let status = self.child.wait_timeout(wait).expect("our own child");
            if status.is_some() {
                return status;
            }
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
        if !std::thread::panicking() {
            let log = self.log();
            assert!(!log.contains("panicked at"), "{} panicked:\n{log}", self.name);
        } else if !self.log().is_empty() {
            eprintln!("--- {} said:\n{}", self.name, self.log());
        }
    }
}

impl Output {
    fn listen(&self, stream: Stream, from: Box<dyn Read + Send>) {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.change(|heard| heard.lines.push((stream, line)));
        }
        self.change(|heard| heard.open -= 1);
    }

    fn change(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        self.more.notify_all();
    }

    fn wait<'a>(
        &self,
        heard: std::sync::MutexGuard<'a, Heard>,
        at_most: std::time::Duration,
    ) -> std::sync::MutexGuard<'a, Heard> {
        self.more.wait_timeout(heard, at_most).unwrap_or_else(PoisonError::into_inner).0
    }

    fn text(&self, of: impl Fn(Stream) -> bool) -> String {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = heard.lines.iter().filter(|(stream, _)| of(*stream));
        lines.flat_map(|(_, line)| [line.as_str(), "\n"]).collect()
    }
}
