//! Alerts, as lines of JSON, written by a thread of its own so that no packet waits for a disk.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use crate::aside;

/// A pattern was found in a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// When the packet came, in microseconds since 1970-01-01 00:00 UTC.
    pub time_us: u64,
    /// The pattern's name.
    pub pattern: String,
    /// Whether the flow was blocked for it.
    pub blocked: bool,
    /// The IP protocol's number.
    pub protocol: u8,
    /// Where the packet came from: an address, and a port if it has one.
    pub source: String,
    /// Where it went.
    pub destination: String,
    /// Bytes of the TCP stream that were searched up to and including this packet; 0 for others.
    pub stream_bytes: u64,
    /// The endpoint, in hexadecimal.
    pub endpoint: String,
    /// The flow cookie, in hexadecimal.
    pub cookie: String,
}

/// Where workers put alerts.
#[derive(Clone, Debug)]
pub struct AlertSink {
    queue: SyncSender<Alert>,
    counts: Arc<Counts>,
}

/// What became of alerts.
#[derive(Debug, Default)]
pub struct Counts {
    /// Alerts given to the writer.
    pub told: AtomicU64,
    /// Alerts lost because the writer could not keep up, or could not write.
    pub lost: AtomicU64,
}

/// How many alerts may wait.
const QUEUE_LENGTH: usize = 4096;

impl AlertSink {
    /// A sink, and the end where alerts come out.
    pub fn new() -> (Self, Receiver<Alert>) {
        let (queue, alerts) = sync_channel(QUEUE_LENGTH);
        (Self { queue, counts: Arc::default() }, alerts)
    }

    /// What became of alerts so far.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Gives an alert to the writer, unless too many wait.
    pub fn tell(&self, alert: Alert) {
        let counter = match self.queue.try_send(alert) {
            Ok(()) => &self.counts.told,
            Err(_) => &self.counts.lost,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Opens the place that alerts are written to: a file to append to, or `-` for stdout.
pub fn open(path: &Path) -> io::Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    Ok(Box::new(OpenOptions::new().create(true).append(true).open(path)?))
}

/// Writes alerts until all sinks are gone.
pub fn write(
    alerts: Receiver<Alert>,
    mut to: Box<dyn Write + Send>,
    counts: Arc<Counts>,
) -> io::Result<JoinHandle<()>> {
    aside::spawn("alerts", move || {
        let mut line = Vec::new();
        for alert in alerts {
            line.clear();
            let written =
                serde_json::to_writer(&mut line, &alert).map_err(io::Error::from).and_then(|()| {
                    line.push(b'\n');
                    to.write_all(&line)?;
                    to.flush()
                });
            if let Err(error) = written
                && counts.lost.fetch_add(1, Ordering::Relaxed) == 0
            {
                tracing::error!(%error, "alerts cannot be written, and are lost");
            }
        }
    })
}
