//! What a gateway shows of itself: the sums of the workers' counters and the targets.

use router::Attachment;
use serde::{Deserialize, Serialize};

use super::clock;
use super::shared::Shared;
use crate::config::Settings;
use crate::dataplane::stats::{TargetTotals, Totals};

/// The state of a gateway at one moment; `GET /v1/status`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The version of the program.
    pub version: &'static str,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// How many worker threads carry packets.
    pub workers: usize,
    /// Whether it is running, or on its way out.
    pub state: GatewayState,
    /// Flows in the tables now.
    pub active_flows: u64,
    /// Where all packets went.
    #[serde(flatten)]
    pub totals: Totals,
    /// Every target of every group.
    pub targets: Vec<TargetStatus>,
    /// Every attachment with its device.
    pub attachments: Vec<AttachmentStatus>,
}

/// Whether a gateway takes packets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayState {
    /// It does.
    Running,
    /// It waits for packets that are with the appliances.
    Draining,
}

/// One target and what happened with it.
#[derive(Debug, Clone, Serialize)]
pub struct TargetStatus {
    /// The target group.
    pub target_group: String,
    /// Its address and port.
    pub address: String,
    /// Its zone.
    pub zone: String,
    /// Its weight.
    pub weight: u16,
    /// The largest outer packet that the underlay carries to it, in bytes.
    pub path_mtu: u16,
    /// Counters, summed over workers.
    #[serde(flatten)]
    pub totals: TargetTotals,
    /// Packets sent and not returned: what it dropped, answered itself, or has not returned yet.
    pub kept_packets: u64,
}

/// One attachment, and what its device lost.
#[derive(Debug, Clone, Serialize)]
pub struct AttachmentStatus {
    /// The subnet or internet gateway, as `subnet:NAME` or `internet_gateway:NAME`.
    pub at: String,
    /// The TUN device.
    pub tun: String,
    /// Its namespace; absent: the gateway's own.
    pub netns: Option<String>,
    /// Packets that the kernel dropped because the device's queue was full, before they came in.
    /// A super-packet counts once. `None` if the kernel does not tell.
    pub tx_dropped: Option<u64>,
    /// Packets that the kernel dropped after they were delivered to the device.
    pub rx_dropped: Option<u64>,
}

impl Status {
    pub(super) fn of(shared: &Shared) -> Self {
        let snapshot = shared.snapshot.load();
        let settings = &shared.settings;
        let configured = settings
            .target_groups
            .iter()
            .flat_map(|group| group.targets.iter().map(move |target| (group, target)));
        let targets = configured
            .zip(&snapshot.targets)
            .map(|((group, target), view)| {
                let mut totals = TargetTotals::default();
                view.counters.iter().for_each(|counters| totals.add(counters));
                TargetStatus {
                    target_group: group.name.to_string(),
                    address: view.address.to_string(),
                    zone: target.zone.clone(),
                    weight: target.weight.get(),
                    path_mtu: view.path_mtu,
                    totals,
                    kept_packets: totals.sent_packets.saturating_sub(totals.returned_packets),
                }
            })
            .collect();
        let attachments = settings
            .attachments
            .iter()
            .zip(&shared.links)
            .map(|(attachment, links)| {
                let statistics = links.statistics(attachment.tun.as_str()).ok();
                AttachmentStatus {
                    at: place(settings, attachment.at),
                    tun: attachment.tun.as_str().to_owned(),
                    netns: attachment.netns.as_ref().map(|netns| netns.as_str().to_owned()),
                    tx_dropped: statistics.map(|counters| counters.tx_dropped),
                    rx_dropped: statistics.map(|counters| counters.rx_dropped),
                }
            })
            .collect();
        let totals = Totals::of(shared.stats.iter().map(AsRef::as_ref));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: clock::now().saturating_duration_since(shared.started).as_secs(),
            workers: shared.stats.len(),
            state: if shared.is_draining() {
                GatewayState::Draining
            } else {
                GatewayState::Running
            },
            active_flows: totals.flows.created.saturating_sub(totals.flows.expired),
            totals,
            targets,
            attachments,
        }
    }
}

fn place(settings: &Settings, at: Attachment) -> String {
    match at {
        Attachment::InternetGateway(id) => {
            format!("internet_gateway:{}", settings.topology.gateway(id).name)
        }
        Attachment::Subnet(id) => format!("subnet:{}", settings.topology.subnet(id).name),
    }
}
