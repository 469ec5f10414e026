//! Where the lines of a flow log go: stdout, or a file that is begun anew when it is long enough.
//!
//! Why no crate: those that turn files over take a file which cannot be opened for one that takes all,
//! or give up for good. Here it is told once, counted, and tried again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::LogCounters;
use crate::config::LogDestination;

/// So much is written at a time.
const BUFFER: usize = 64 * 1024;
/// How long nothing is tried after something failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Debug)]
pub(super) struct Output {
    log: String,
    sink: Sink,
    /// Whole lines that are not written yet.
    buffer: String,
    lines: u64,
    /// Until when nothing is tried, since it failed.
    failing: Option<Instant>,
}

#[derive(Debug)]
enum Sink {
    Stdout,
    File(Rotating),
}

/// A file that is begun anew when it is long enough; the older ones are kept as `.1`, `.2`, …
#[derive(Debug)]
struct Rotating {
    path: PathBuf,
    max_bytes: u64,
    /// How many older files are kept.
    files: u32,
    open: Option<(File, u64)>,
}

impl Output {
    pub fn new(log: &str, destination: &LogDestination) -> Self {
        let sink = match destination {
            LogDestination::Stdout => Sink::Stdout,
            LogDestination::File { path, max_bytes, files } => Sink::File(Rotating {
                path: path.clone(),
                max_bytes: *max_bytes,
                files: *files,
                open: None,
            }),
        };
        Self { log: log.to_owned(), sink, buffer: String::new(), lines: 0, failing: None }
    }

    /// Takes a line.
    pub fn line(&mut self, line: &str, now: Instant, counters: &LogCounters) {
        let room = match &self.sink {
            Sink::Stdout => BUFFER,
            Sink::File(file) => BUFFER.min(file.max_bytes as usize),
        };
        if !self.buffer.is_empty() && self.buffer.len() + line.len() + 1 > room {
            self.flush(now, counters);
        }
        self.buffer.push_str(line);
        self.buffer.push('\n');
        self.lines += 1;
    }

    /// Writes what was taken. What cannot be written is lost, and counted.
    pub fn flush(&mut self, now: Instant, counters: &LogCounters) {
        if self.buffer.is_empty() {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        let written = match self.failing {
            Some(until) if now < until => None,
            _ => Some(self.sink.write(self.buffer.as_bytes())),
        };
        self.buffer.clear();
        match written {
            Some(Ok(())) => {
                counters.lines.add(lines);
                if self.failing.take().is_some() {
                    tracing::info!(flow_log = self.log, "the flow log is written again");
                }
            }
            Some(Err(error)) => {
                counters.lines_lost.add(lines);
                // Once, until it has worked again.
                if self.failing.replace(now + PAUSE).is_none() {
                    tracing::error!(flow_log = self.log, %error, "the flow log cannot be written");
                }
            }
            None => counters.lines_lost.add(lines),
        }
    }
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File(file) => file.write(bytes),
        }
    }
}

impl Rotating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        let full = |(_, written): &(File, u64)| *written > 0 && written + length > self.max_bytes;
        if self.open.is_none() {
            self.open = Some(open(&self.path)?);
        }
        if self.open.as_ref().is_some_and(full) {
            self.open = None;
            self.rotate()?;
            self.open = Some(open(&self.path)?);
        }
        let Some((file, written)) = &mut self.open else { return Ok(()) };
        if let Err(error) = file.write_all(bytes) {
            // Half a line would be taken for a whole one. Where even that fails, there is no more to
            // be done.
            let _ = file.set_len(*written);
            self.open = None;
            return Err(error);
        }
        *written += length;
        Ok(())
    }

    /// Makes room for a new file: the oldest goes.
    fn rotate(&self) -> io::Result<()> {
        for number in (1..self.files).rev() {
            rename(&numbered(&self.path, number), &numbered(&self.path, number + 1))?;
        }
        rename(&self.path, &numbered(&self.path, 1))
    }
}

/// Opens a file to write at its end; it is for whoever runs the gateway, and nobody else.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Renames a file, if it is there.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn output(path: &Path, max_bytes: u64, files: u32) -> Output {
        Output::new("test", &LogDestination::File { path: path.to_owned(), max_bytes, files })
    }

    #[test]
    fn files_are_turned_over_at_the_ends_of_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flows.log");
        let (now, counters) = (clock::now(), LogCounters::default());
        let mut log = output(&path, 20, 2);
        for number in 0..12 {
            log.line(&format!("line {number:02}"), now, &counters);
        }
        log.flush(now, &counters);
        assert_eq!(counters.lines.get(), 12);
        assert_eq!(text(&path), "line 10\nline 11\n");
        assert_eq!(text(&numbered(&path, 1)), "line 08\nline 09\n");
        assert_eq!(text(&numbered(&path, 2)), "line 06\nline 07\n");
        assert!(!numbered(&path, 3).exists());
        // A gateway that starts again goes on where the one before stopped.
        let mut log = output(&path, 20, 2);
        log.line("more", now, &counters);
        log.flush(now, &counters);
        assert_eq!(text(&path), "more\n", "there was no room for it");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("missing");
        let path = folder.join("flows.log");
        let (mut now, counters) = (clock::now(), LogCounters::default());
        let mut log = output(&path, 1000, 1);
        for _ in 0..3 {
            log.line("lost", now, &counters);
            log.flush(now, &counters);
        }
        assert_eq!((counters.lines.get(), counters.lines_lost.get()), (0, 3));
        std::fs::create_dir(&folder).unwrap();
        now += PAUSE;
        log.line("kept", now, &counters);
        log.flush(now, &counters);
        assert_eq!((counters.lines.get(), counters.lines_lost.get()), (1, 3));
        assert_eq!(text(&path), "kept\n");
    }

    /// A disk that is full, as the kernel has one for tests.
    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let (now, counters) = (clock::now(), LogCounters::default());
        let mut log = output(Path::new("/dev/full"), 1000, 1);
        log.line("lost", now, &counters);
        log.flush(now, &counters);
        assert_eq!((counters.lines.get(), counters.lines_lost.get()), (0, 1));
    }
}
