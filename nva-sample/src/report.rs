//! What an appliance tells about itself: one JSON object per question, through a Unix socket.
//!
//! Whoever connects gets the current numbers and the end of the stream; nothing has to be sent. A
//! socket, not a file, because numbers are asked for when they are wanted and are never stale.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use appliance_sdk::Stats;
use serde::{Deserialize, Serialize};

use crate::firewall::rules::RuleHits;

/// The numbers of an appliance since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which sample it is: the name of the subcommand.
    pub appliance: String,
    /// Inner packets received.
    pub packets: u64,
    /// Bytes in them, inner IP headers included.
    pub bytes: u64,
    /// Inner packets given to the gateway.
    pub returned_packets: u64,
    /// Bytes in them.
    pub returned_bytes: u64,
    /// Packets that the appliance kept by its own decision.
    pub kept_packets: u64,
    /// Flows seen.
    pub flows: u64,
    /// Those of them of which packets went both ways.
    pub flows_both_directions: u64,
    /// Packets dropped for another reason than the appliance's decision, by the reason's name.
    pub drops: BTreeMap<String, u64>,
    /// System calls of the packet threads.
    pub syscalls: u64,
    /// Everything that the runtime counts.
    pub runtime: Stats,
    /// What the sample counts itself.
    #[serde(flatten)]
    pub sample: SampleReport,
}

/// What a sample counts besides packets and flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleReport {
    /// Of the firewall: how often each rule decided, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleHits>,
    /// Of the others: counts by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
}

impl Report {
    /// A report of what the runtime and the sample counted.
    pub fn new(appliance: &str, runtime: Stats, sample: SampleReport) -> Self {
        let drops = runtime.drops.iter().filter(|(_, packets)| *packets > 0);
        Self {
            appliance: appliance.to_owned(),
            packets: runtime.received.packets,
            bytes: runtime.received.bytes,
            returned_packets: runtime.returned.packets,
            returned_bytes: runtime.returned.bytes,
            kept_packets: runtime.kept.packets,
            flows: runtime.flows.opened,
            flows_both_directions: runtime.flows.both_directions,
            drops: drops.map(|(reason, packets)| (reason.name().to_owned(), packets)).collect(),
            syscalls: runtime.syscalls.total(),
            sample,
            runtime,
        }
    }

    /// Asks a running appliance that was started with `--stats`.
    pub fn read(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut json = String::new();
        stream.read_to_string(&mut json)?;
        serde_json::from_str(&json).map_err(io::Error::from)
    }
}

/// How long the other end may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket that tells the current report. Dropping it closes and removes it, if its folder is the
/// process's to change.
pub struct ReportSocket {
    path: PathBuf,
    listener: UnixListener,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ReportSocket {
    /// Opens the socket; whoever connects waits until it is served. What an earlier process left
    /// behind is replaced; a socket that somebody answers on, or another kind of file, is an error.
    pub fn bind(path: &Path) -> io::Result<Self> {
        clear_the_way(path)?;
        let listener = UnixListener::bind(path)?;
        let closing = Arc::new(AtomicBool::new(false));
        Ok(Self { path: path.to_owned(), listener, closing, thread: None })
    }

    /// Tells whoever has connected, and connects from now on, on a thread of its own.
    ///
    /// # Errors
    /// What the system says if there can be no thread; the socket is gone then.
    pub fn serve(mut self, report: impl Fn() -> Report + Send + 'static) -> io::Result<Self> {
        let (listener, closed) = (self.listener.try_clone()?, Arc::clone(&self.closing));
        let thread = thread::Builder::new().name("report".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                if closed.load(Ordering::Acquire) {
                    break;
                }
                let told = stream.and_then(|stream| tell(stream, &report()));
                if let Err(error) = told {
                    // Whoever asked went away; or there are no file descriptors for the moment.
                    tracing::debug!(%error, "cannot tell the statistics");
                }
            }
        })?;
        self.thread = Some(thread);
        Ok(self)
    }
}

impl Drop for ReportSocket {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // The thread waits for a connection: here is one.
            if UnixStream::connect(&self.path).is_ok() {
                let _ = thread.join();
            }
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn tell(mut stream: UnixStream, report: &Report) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    serde_json::to_writer(&mut stream, report)?;
    stream.write_all(b"\n")
}

fn clear_the_way(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the file exists, and is no socket",
        ));
    }
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
    }
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let rules = vec![RuleHits { rule: "web".to_owned(), hits: 7 }];
        let sample = SampleReport { rules, ..SampleReport::default() };
        Report::new("firewall", Stats::default(), sample)
    }

    fn open(path: &Path) -> io::Result<ReportSocket> {
        ReportSocket::bind(path)?.serve(report)
    }

    #[test]
    fn the_report_is_told_as_often_as_asked_and_the_socket_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats");
        let socket = open(&path).unwrap();
        for _ in 0..3 {
            assert_eq!(Report::read(&path).unwrap(), report());
        }
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn who_connects_before_it_is_served_is_told_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats");
        let socket = ReportSocket::bind(&path).unwrap();
        let mut early = UnixStream::connect(&path).unwrap();
        let socket = socket.serve(report).unwrap();
        let mut json = String::new();
        early.read_to_string(&mut json).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report());
        drop(socket);
        drop(ReportSocket::bind(&path).unwrap());
        assert!(!path.exists(), "whether it was ever served or not");
    }

    #[test]
    fn what_an_earlier_process_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stats");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = open(&path).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report());
        let second = open(&path).err().unwrap();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(Report::read(&path).unwrap(), report());
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(open(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn the_names_in_json_are_those_that_others_rely_on() {
        let json = serde_json::to_value(report()).unwrap();
        let names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "appliance",
            "packets",
            "bytes",
            "returned_packets",
            "returned_bytes",
            "kept_packets",
            "flows",
            "flows_both_directions",
            "drops",
            "syscalls",
            "runtime",
            "rules",
        ];
        for name in expected {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
    }
}
