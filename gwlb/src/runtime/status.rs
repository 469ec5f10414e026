//! What a gateway shows of itself: the sums of the workers' counters and the targets.

use router::Attachment;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clock;
use super::control_handle::View;
use super::shared::Shared;
use crate::config::{NetnsName, Settings};
use crate::control::{EndpointGroupStatus, LoadBalancerStatus, TargetStatus};
use crate::dataplane::fragments::HostileTotals;
use crate::dataplane::stats::Totals;

/// The state of a gateway at one moment; `GET /v1/status`.
#[derive(Debug, Clone, Serialize, ToSchema)]
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
    /// What fragments did that honest senders hardly do.
    pub fragments: HostileTotals,
    /// Every load balancer, and what becomes of its packets.
    pub load_balancers: Vec<LoadBalancerStatus>,
    /// Every group of endpoints, and which of them gets new flows.
    pub endpoint_groups: Vec<EndpointGroupStatus>,
    /// Every target of every group.
    pub targets: Vec<TargetStatus>,
    /// Every attachment with its device.
    pub attachments: Vec<AttachmentStatus>,
}

/// Whether a gateway takes packets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GatewayState {
    /// It does.
    Running,
    /// It waits for packets that are with the appliances.
    Draining,
}

/// One attachment, and what its device lost.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AttachmentStatus {
    /// What it attaches, such as `subnet:NAME` or `internet_gateway:NAME`.
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
    pub(super) fn of(shared: &Shared, view: &View) -> Self {
        let settings = shared.settings.load();
        let links = shared.links.lock();
        let attachments = settings
            .attachments
            .iter()
            .map(|attachment| {
                let netns = attachment.netns.as_ref().map(NetnsName::as_str);
                let tun = attachment.tun.as_str();
                let mut known = links.iter();
                let port = known.find(|port| port.tun == tun && port.netns.as_deref() == netns);
                let statistics = port.and_then(|port| port.links.statistics(tun).ok());
                AttachmentStatus {
                    at: place(&settings, attachment.at),
                    tun: tun.to_owned(),
                    netns: netns.map(str::to_owned),
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
            active_flows: totals.flows.active(),
            totals,
            fragments: shared.fragments.hostile(),
            load_balancers: view.load_balancers.clone(),
            endpoint_groups: view.endpoint_groups.clone(),
            targets: view.targets.to_vec(),
            attachments,
        }
    }
}

fn place(settings: &Settings, at: Attachment) -> String {
    settings.topology.entry_name(at.into())
}
