//! What the gateway and the appliances counted, read from outside as any tool would.
//!
//! The form of the gateway's counters is the lab's own: it judges by what the program shows, not by
//! the types that it counts with.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::traffic::http;

pub(crate) use nva_sample::report::Report as ApplianceReport;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The gateway's counters: the part of `GET /v1/status` that the lab needs.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct GatewayStatus {
    /// Worker threads.
    pub workers: usize,
    /// Packets that came by TUN devices.
    pub tun: Ledger,
    /// Packets that came back from appliances.
    pub udp: Ledger,
    /// The flow tables.
    #[serde(default)]
    pub flows: Flows,
    /// System calls, and what the kernel lost.
    pub io: Io,
    /// The devices at the ends.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// In the order of the configuration.
    pub targets: Vec<Target>,
}

/// Where the packets went that came from one side.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Ledger {
    pub received: u64,
    pub generated: u64,
    pub encapsulated: u64,
    pub delivered: u64,
    pub replied: u64,
    pub handed_over: u64,
    pub taken_over: u64,
    pub drops: BTreeMap<String, u64>,
}

/// What the flow tables did.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Flows {
    pub created: u64,
    pub adopted: u64,
    pub rebalanced: u64,
    pub reset: u64,
    #[serde(default)]
    pub untracked: u64,
}

/// A device through which packets enter and leave.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Attachment {
    pub tun: String,
    /// Lost in the device's queue, before or after the gateway; absent: the kernel does not tell.
    pub tx_dropped: Option<u64>,
    pub rx_dropped: Option<u64>,
}

/// What the gateway asked of the kernel.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Io {
    pub syscalls: u64,
    pub kernel_drops: u64,
}

/// What the gateway counted for one appliance.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Target {
    /// `address:port`
    pub address: String,
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub returned_packets: u64,
    pub returned_bytes: u64,
    pub new_flows: u64,
    /// `healthy`, `draining`, …
    #[serde(default)]
    pub state: String,
    /// `Target.FailedHealthChecks`, …
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub since_unix_seconds: f64,
    /// How far its deregistration has come.
    #[serde(default)]
    pub draining: Option<Draining>,
}

/// How far a deregistration has come.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Draining {
    pub flows_left: u64,
    pub seconds_left: f64,
}

/// Asks the gateway behind the admin socket.
pub(crate) async fn gateway(socket: &Path) -> io::Result<GatewayStatus> {
    let answer = async {
        let stream = UnixStream::connect(socket).await?;
        http::get(TokioIo::new(stream), "gwlb", "/v1/status").await
    };
    let body = timeout(PATIENCE, answer).await.map_err(|_| io::ErrorKind::TimedOut)??;
    serde_json::from_slice(&body).map_err(io::Error::other)
}

/// Asks an appliance behind its statistics socket.
pub(crate) async fn appliance(socket: PathBuf) -> io::Result<ApplianceReport> {
    // It waits for the answer in the way of threads.
    spawn_blocking(move || ApplianceReport::read(&socket)).await.map_err(io::Error::other)?
}

impl Ledger {
    /// What came in, and what became of it; equal when nothing is under way. The difference of
    /// `handed_over` and `taken_over` is in a queue.
    pub(crate) fn balance(&self) -> (u64, u64) {
        let queued = self.handed_over.saturating_sub(self.taken_over);
        let left = self.encapsulated + self.delivered + self.replied + queued;
        (self.received + self.generated, left + self.drops.values().sum::<u64>())
    }

    fn since(&self, earlier: &Self) -> Self {
        let drops = self.drops.iter().map(|(reason, count)| {
            let before = earlier.drops.get(reason).copied().unwrap_or(0);
            (reason.clone(), count.saturating_sub(before))
        });
        Self {
            received: self.received.saturating_sub(earlier.received),
            generated: self.generated.saturating_sub(earlier.generated),
            encapsulated: self.encapsulated.saturating_sub(earlier.encapsulated),
            delivered: self.delivered.saturating_sub(earlier.delivered),
            replied: self.replied.saturating_sub(earlier.replied),
            handed_over: self.handed_over.saturating_sub(earlier.handed_over),
            taken_over: self.taken_over.saturating_sub(earlier.taken_over),
            drops: drops.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl GatewayStatus {
    /// What was counted after `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let io = Io {
            syscalls: self.io.syscalls.saturating_sub(earlier.io.syscalls),
            kernel_drops: self.io.kernel_drops.saturating_sub(earlier.io.kernel_drops),
        };
        let targets = self.targets.iter().zip(&earlier.targets).map(|(now, then)| Target {
            address: now.address.clone(),
            sent_packets: now.sent_packets.saturating_sub(then.sent_packets),
            sent_bytes: now.sent_bytes.saturating_sub(then.sent_bytes),
            returned_packets: now.returned_packets.saturating_sub(then.returned_packets),
            returned_bytes: now.returned_bytes.saturating_sub(then.returned_bytes),
            new_flows: now.new_flows.saturating_sub(then.new_flows),
            ..now.clone()
        });
        Self {
            workers: self.workers,
            tun: self.tun.since(&earlier.tun),
            udp: self.udp.since(&earlier.udp),
            flows: Flows {
                created: self.flows.created.saturating_sub(earlier.flows.created),
                adopted: self.flows.adopted.saturating_sub(earlier.flows.adopted),
                rebalanced: self.flows.rebalanced.saturating_sub(earlier.flows.rebalanced),
                reset: self.flows.reset.saturating_sub(earlier.flows.reset),
                untracked: self.flows.untracked.saturating_sub(earlier.flows.untracked),
            },
            io,
            attachments: self.attachments.clone(),
            targets: targets.collect(),
        }
    }

    /// System calls for each packet that was taken in. Each is twice: from a network, and when it
    /// comes back from its appliance.
    pub(crate) fn syscalls_per_packet(&self) -> f64 {
        self.io.syscalls as f64 / (self.tun.received + self.udp.received).max(1) as f64
    }

    /// Everything dropped, on both sides, by reason.
    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        for (reason, count) in self.tun.drops.iter().chain(&self.udp.drops) {
            *sum.entry(reason.clone()).or_default() += count;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: serde_json::Value) -> GatewayStatus {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn differences_are_of_counters_and_leave_out_what_did_not_happen() {
        let ledger = |received: u64, lost: u64| {
            serde_json::json!({
                "received": received, "generated": 0, "encapsulated": received - lost,
                "delivered": 0, "replied": 0, "handed_over": 0, "taken_over": 0,
                "drops": {"no_route": lost, "blackhole": 1},
            })
        };
        let whole = |received, lost| {
            status(serde_json::json!({
                "workers": 2, "tun": ledger(received, lost), "udp": ledger(1, 0),
                "io": {"syscalls": received * 2, "kernel_drops": 0}, "targets": [],
            }))
        };
        let difference = whole(100, 7).since(&whole(40, 2));
        assert_eq!(difference.tun.received, 60);
        assert_eq!(difference.io.syscalls, 120);
        assert_eq!(difference.drops(), BTreeMap::from([("no_route".to_owned(), 5)]));
        assert_eq!(difference.tun.balance(), (60, 60));
    }
}
