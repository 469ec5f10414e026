//! What the gateway and the appliances say of themselves, read through their sockets as any tool
//! would read it.
//!
//! The forms are this package's own: a field that is renamed in the programs breaks a test, as it
//! would break somebody's tool.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::Deserialize;

use super::LIMIT;

/// `GET /v1/status` of the gateway.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// `running` or `draining`.
    pub state: String,
    /// Worker threads.
    pub workers: usize,
    /// Flows in the tables.
    pub active_flows: u64,
    /// Packets that came by TUN devices.
    pub tun: Ledger,
    /// Packets that came back from appliances.
    pub udp: Ledger,
    /// What the flow tables did.
    pub flows: Flows,
    /// What was asked of the kernel.
    pub io: Io,
    /// In the order of the configuration.
    pub targets: Vec<Target>,
    /// In the order of the configuration.
    pub attachments: Vec<Attachment>,
}

/// Where the packets went that came from one side.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "as the gateway documents them")]
pub struct Ledger {
    pub received: u64,
    pub generated: u64,
    pub encapsulated: u64,
    pub delivered: u64,
    pub bypassed: u64,
    pub replied: u64,
    pub probes: u64,
    pub handed_over: u64,
    pub taken_over: u64,
    pub held: u64,
    pub released: u64,
    pub drops: BTreeMap<String, u64>,
}

/// What the flow tables did.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "as the gateway documents them")]
pub struct Flows {
    pub created: u64,
    pub adopted: u64,
    pub expired: u64,
    pub rebalanced: u64,
    pub reset: u64,
    pub untracked: u64,
}

/// What was asked of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "as the gateway documents them")]
pub struct Io {
    pub syscalls: u64,
    pub split_sends: u64,
    pub kernel_drops: u64,
    pub underlay_errors: u64,
}

/// What the gateway knows of one target.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "as the gateway documents them")]
pub struct Target {
    pub address: String,
    pub zone: String,
    pub weight: u16,
    pub state: String,
    pub reason: Option<String>,
    pub path_mtu: u16,
    pub inner_mtu: u16,
    pub active_flows: u64,
    pub new_flows: u64,
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub returned_packets: u64,
    pub returned_bytes: u64,
    pub kept_packets: u64,
    pub draining: Option<Draining>,
    pub diagnosis: Option<Diagnosis>,
    pub tunnel: Option<Tunnel>,
}

/// How far a deregistration has come.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "as the gateway documents them")]
pub struct Draining {
    pub flows_left: u64,
    pub seconds_left: f64,
}

/// What is probably wrong with a target.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "as the gateway documents them")]
pub struct Diagnosis {
    pub code: String,
    pub text: String,
}

/// What probes through the tunnel have found out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "as the gateway documents them")]
pub struct Tunnel {
    pub state: String,
    pub round_trip_ms: Option<f64>,
    pub usable_mtu: Option<u16>,
}

/// What the kernel lost at one attachment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "as the gateway documents them")]
pub struct Attachment {
    pub at: String,
    pub tun: String,
    pub tx_dropped: Option<u64>,
    pub rx_dropped: Option<u64>,
}

impl Status {
    /// Asks the gateway behind an admin socket.
    pub fn read(admin: &Path) -> io::Result<Self> {
        serde_json::from_slice(&get(admin, "/v1/status")?).map_err(io::Error::other)
    }

    /// Whether nothing is under way and everything is accounted for.
    pub fn is_balanced(&self) -> bool {
        [&self.tun, &self.udp].iter().all(|ledger| ledger.unaccounted() == 0)
    }

    /// Everything that was dropped, on both sides.
    pub fn drops(&self) -> BTreeMap<&str, u64> {
        let mut all = BTreeMap::new();
        for (reason, count) in self.tun.drops.iter().chain(&self.udp.drops) {
            *all.entry(reason.as_str()).or_default() += count;
        }
        all
    }

    /// Asserts that nothing was lost, of whatever went through an appliance that keeps nothing.
    ///
    /// # Panics
    /// If anything was.
    pub fn assert_lossless(&self) {
        assert!(self.is_balanced(), "{self:#?}");
        assert!(self.drops().is_empty(), "{self:#?}");
        assert_eq!(self.tun.encapsulated, self.tun.received, "{self:#?}");
        assert_eq!(self.udp.received, self.tun.encapsulated, "{self:#?}");
        assert_eq!(self.udp.delivered, self.udp.received, "{self:#?}");
        assert_eq!(self.tun.handed_over, self.tun.taken_over, "{self:#?}");
        assert_eq!(self.io.kernel_drops, 0, "{self:#?}");
        for attachment in &self.attachments {
            let dropped = (attachment.tx_dropped, attachment.rx_dropped);
            assert_eq!(dropped, (Some(0), Some(0)), "{attachment:#?}");
        }
        for target in &self.targets {
            assert_eq!(target.sent_packets, target.returned_packets, "{target:#?}");
            assert_eq!(target.sent_bytes, target.returned_bytes, "{target:#?}");
        }
        let sent: u64 = self.targets.iter().map(|target| target.sent_packets).sum();
        assert_eq!(sent, self.tun.encapsulated, "{self:#?}");
    }

    /// System calls for each packet that entered, on either side.
    pub fn syscalls_per_packet(&self) -> f64 {
        self.io.syscalls as f64 / (self.tun.received + self.udp.received).max(1) as f64
    }
}

impl Ledger {
    /// What entered less what left. Conservation is that this is zero.
    pub fn unaccounted(&self) -> i128 {
        let entered = self.received + self.generated + self.taken_over + self.released;
        let left = self.encapsulated
            + self.delivered
            + self.bypassed
            + self.replied
            + self.probes
            + self.handed_over
            + self.held;
        i128::from(entered) - i128::from(left + self.drops.values().sum::<u64>())
    }
}

/// What a sample appliance says through its `--stats` socket.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "as the samples document them")]
pub struct Report {
    pub appliance: String,
    pub packets: u64,
    pub bytes: u64,
    pub returned_packets: u64,
    pub returned_bytes: u64,
    pub kept_packets: u64,
    pub flows: u64,
    pub flows_both_directions: u64,
    pub drops: BTreeMap<String, u64>,
    pub syscalls: u64,
    /// Of the firewall: how often each rule decided.
    #[serde(default)]
    pub rules: Vec<RuleHits>,
    /// Of the others: what they count, by name.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
}

/// How often a rule decided.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "as the firewall documents them")]
pub struct RuleHits {
    pub rule: String,
    pub hits: u64,
}

impl Report {
    /// Asks an appliance.
    pub fn read(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        serde_json::from_reader(stream).map_err(io::Error::other)
    }

    /// How often the rule with this name decided.
    pub fn hits(&self, rule: &str) -> u64 {
        self.rules.iter().find(|hits| hits.rule == rule).map_or(0, |hits| hits.hits)
    }
}

/// Asks an HTTP server behind a Unix socket; returns the body of a good answer.
///
/// # Errors
/// What the kernel says; any other answer, whole.
pub fn get(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    ask(stream, path, "")
}

/// Sends something to an HTTP server behind a Unix socket; returns the body of a good answer.
///
/// # Errors
/// As [`get`].
pub fn post(socket: &Path, path: &str, kind: &str, body: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let fixed = "Host: gwlb\r\nConnection: close";
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\n{fixed}\r\nContent-Type: {kind}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    answer_of(stream)
}

/// Asks an HTTP server over a connection, with further header lines; returns the body of a good
/// answer.
///
/// # Errors
/// As [`get`].
pub fn ask(mut stream: impl Read + Write, path: &str, headers: &str) -> io::Result<Vec<u8>> {
    let fixed = "Host: gwlb\r\nConnection: close\r\n";
    write!(stream, "GET {path} HTTP/1.1\r\n{fixed}{headers}\r\n")?;
    answer_of(stream)
}

fn answer_of(mut stream: impl Read) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.ok_or(io::ErrorKind::UnexpectedEof)? + 4);
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
    }
    Ok(body.to_vec())
}
