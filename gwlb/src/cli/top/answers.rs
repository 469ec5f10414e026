//! What the gateway answers, as far as it is shown.
//!
//! Parts that only newer gateways have are empty or absent for others, so that one `gwlb top` looks
//! at gateways of several versions.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::cli::client::AskError;
use crate::cli::shown::{self, Draining};
use crate::cli::status::warnings;

/// What one poll brought.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub status: Status,
    /// Events that were not known before, the oldest first; `None` if the gateway tells of none.
    pub events: Option<Vec<Event>>,
    /// The target groups.
    pub groups: Vec<TargetGroup>,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Status {
    pub version: String,
    pub uptime_seconds: u64,
    uptime_ms: Option<u64>,
    pub workers: usize,
    pub state: String,
    pub active_flows: u64,
    pub tun: Ledger,
    pub udp: Ledger,
    #[serde(default)]
    pub io: Io,
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    pub targets: Vec<Target>,
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    #[serde(default)]
    pub endpoint_groups: Vec<EndpointGroup>,
    /// What nobody should overlook, a line each.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// Where packets went that entered on one side.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ledger {
    pub received: u64,
    pub delivered: u64,
    pub bypassed: u64,
    pub drops: BTreeMap<String, u64>,
}

/// What the kernel lost.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Io {
    pub kernel_drops: u64,
}

/// What the kernel lost at one attachment.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Attachment {
    pub at: String,
    pub tx_dropped: Option<u64>,
    pub rx_dropped: Option<u64>,
}

/// A target.
#[derive(Debug, Clone, Default, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the API names the fields")]
pub(super) struct Target {
    pub target_group: String,
    /// With its port.
    pub address: String,
    pub zone: String,
    pub weight: u16,
    pub effective_weight: u16,
    pub state: String,
    pub reason: Option<String>,
    pub description: Option<String>,
    pub active_flows: u64,
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub returned_packets: u64,
    pub returned_bytes: u64,
    pub draining: Option<Draining>,
    pub diagnosis: Option<shown::Diagnosis>,
    pub tunnel: Option<Tunnel>,
    #[serde(default)]
    pub probe_latency_ms: Option<f64>,
    #[serde(default)]
    pub appliance_latency_us: Option<f64>,
}

/// What probes through a target have found out.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Tunnel {
    pub round_trip_ms: Option<f64>,
}

/// An endpoint.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct Endpoint {
    pub name: String,
    pub zone: String,
    pub active_flows: u64,
    pub received_packets: u64,
    /// Of what was given a target to go to.
    pub inspected_bytes: u64,
    pub dropped_packets: u64,
}

/// A group of endpoints.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct EndpointGroup {
    pub name: String,
    pub members: Vec<Member>,
}

/// An endpoint in a group.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Member {
    pub endpoint: String,
    pub zone: String,
    pub health: Option<String>,
    pub gets_new_flows: bool,
}

/// A target group.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct TargetGroup {
    pub name: String,
    pub deregistration_delay_seconds: u64,
}

/// Something that has happened.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct Event {
    pub id: u64,
    /// RFC 3339.
    pub time: String,
    pub severity: String,
    pub text: String,
}

/// A list of the API.
#[derive(Debug, Deserialize)]
struct List<T> {
    items: Vec<T>,
}

impl Status {
    pub fn of(value: &Value) -> Result<Self, AskError> {
        let mut status: Self = read(value, "/v1/status")?;
        let targets = shown::Target::list(&value["targets"])?;
        let marked = warnings(value, &targets).into_iter();
        status.warnings = marked.map(|line| line.trim_start_matches("!!! ").to_owned()).collect();
        Ok(status)
    }

    /// How long the gateway has been running, in milliseconds, by its own clock.
    pub fn uptime_ms(&self) -> u64 {
        self.uptime_ms.unwrap_or(self.uptime_seconds * 1000)
    }
}

impl Event {
    pub fn list(value: &Value) -> Result<Vec<Self>, AskError> {
        read::<List<Self>>(value, "/v1/events").map(|list| list.items)
    }
}

impl TargetGroup {
    pub fn list(value: &Value) -> Result<Vec<Self>, AskError> {
        read::<List<Self>>(value, "/v1/target-groups").map(|list| list.items)
    }
}

fn read<'a, T: Deserialize<'a>>(value: &'a Value, path: &str) -> Result<T, AskError> {
    T::deserialize(value)
        .map_err(|error| AskError::Other(format!("the gateway's answer to {path}: {error}")))
}
