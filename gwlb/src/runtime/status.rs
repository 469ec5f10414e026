//! What a gateway shows of itself: the sums of the workers' counters and the targets.

use std::sync::Arc;

use router::Attachment;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clock;
use super::control_handle::View;
use super::minutes::Told;
use super::shared::Shared;
use crate::config::{NetnsName, Settings};
use crate::control::{EndpointGroupStatus, LoadBalancerStatus, TargetStatus};
use crate::dataplane::fragments::HostileTotals;
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::stats::{BatchTotals, EndpointTotals, FlowLife, HistogramTotals, Totals};

/// The state of a gateway at one moment; `GET /v1/status`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Status {
    /// The version of the program.
    pub version: &'static str,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// The same in milliseconds: what differences of counters between two answers are divided by.
    pub uptime_ms: u64,
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
    /// Every endpoint, and what happened at it.
    pub endpoints: Vec<EndpointStatus>,
    /// Every attachment with its device.
    pub attachments: Vec<AttachmentStatus>,
    /// Every flow log, and whether it is written.
    pub flow_logs: Vec<FlowLogStatus>,
    /// How long flows were there that are over, in milliseconds.
    #[serde(skip)]
    #[schema(ignore)]
    pub flow_life: HistogramTotals,
    /// How many packets are handled together.
    #[serde(skip)]
    #[schema(ignore)]
    pub batches: BatchTotals,
    /// The last whole minute.
    #[serde(skip)]
    #[schema(ignore)]
    pub(super) minutes: Told,
}

/// One endpoint: what routes led to it, and what became of that.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EndpointStatus {
    /// Its name.
    pub name: String,
    /// The VPC that it is in.
    pub vpc: String,
    /// The subnet that it is in.
    pub subnet: String,
    /// The endpoint service that it connects to.
    pub service: String,
    /// The load balancer that serves it.
    pub load_balancer: String,
    /// Its zone.
    pub zone: String,
    /// Its id in the Geneve option.
    #[schema(example = "0x0123456789abcdef")]
    pub wire_id: String,
    /// Flows that it has now.
    pub active_flows: u64,
    /// Packets that routes led to it: those that were inspected, bypassed, answered or dropped.
    pub received_packets: u64,
    /// Counters, summed over workers.
    #[serde(flatten)]
    pub totals: EndpointTotals,
}

impl EndpointStatus {
    fn all(view: &Snapshot) -> Vec<Self> {
        let topology = &view.topology;
        let all = topology.endpoints().zip(&view.endpoints);
        all.map(|((_, endpoint), known)| {
            let (subnet, pool) = (topology.subnet(endpoint.subnet), view.pool(known.pool));
            let totals = known.counters.totals();
            Self {
                name: endpoint.name.clone(),
                vpc: topology.vpc(subnet.vpc).name.clone(),
                subnet: subnet.name.clone(),
                service: endpoint.service.clone(),
                load_balancer: pool.load_balancer.clone(),
                zone: endpoint.zone.clone(),
                wire_id: format!("{:#018x}", endpoint.wire_id),
                active_flows: totals.active_flows(),
                received_packets: totals.received_packets(),
                totals,
            }
        })
        .collect()
    }
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

/// One flow log.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FlowLogStatus {
    /// Its name.
    pub name: String,
    /// Lines that were written.
    pub lines: u64,
    /// Lines that could not be written.
    pub lines_lost: u64,
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
        let uptime = clock::now().saturating_duration_since(shared.started);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: uptime.as_secs(),
            uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
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
            endpoints: EndpointStatus::all(&shared.exchange.published.load_full().snapshot),
            attachments,
            flow_logs: (settings.flow_logs.iter().zip(&shared.flow_logs))
                .map(|(log, counters)| FlowLogStatus {
                    name: log.name.to_string(),
                    lines: counters.lines.get(),
                    lines_lost: counters.lines_lost.get(),
                })
                .collect(),
            flow_life: FlowLife::of(shared.stats.iter().map(AsRef::as_ref)),
            batches: BatchTotals::of(shared.stats.iter().map(AsRef::as_ref)),
            minutes: Arc::clone(&view.minutes),
        }
    }
}

fn place(settings: &Settings, at: Attachment) -> String {
    settings.topology.entry_name(at.into())
}
