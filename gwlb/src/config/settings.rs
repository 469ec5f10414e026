//! The checked settings: all that the data plane, the control plane and the runtime ever see.
//!
//! Every reference is an index that holds, every number is in its range, every endpoint has its
//! load balancer. The form of the file, its spans and its mistakes stay behind in [`super`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use geneve::{Dialect, Stickiness};
use ipnet::IpNet;
use router::{EndpointId, Topology};
use serde::{Deserialize, Serialize};

use super::reader::Note;
use super::values::{AdminAddress, DeviceName, Matcher, Mtu, Name, NetnsName, Port, Weight};

/// A whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The gateway process itself.
    pub gateway: GatewaySettings,
    /// VPCs, subnets, route tables and endpoints.
    pub topology: Arc<Topology>,
    /// What endpoints connect to, in the order of the file.
    pub services: Vec<EndpointService>,
    /// In the order of the file.
    pub load_balancers: Vec<LoadBalancer>,
    /// In the order of the file.
    pub target_groups: Vec<TargetGroup>,
    /// Where packets enter and leave, in the order of the file.
    pub attachments: Vec<AttachmentSettings>,
    /// For each endpoint of the topology, in its order, the node that serves it.
    pub bindings: Vec<Binding>,
    /// What is allowed and may surprise, for a human to read.
    pub notes: Vec<Note>,
}

impl Settings {
    /// The load balancer node that serves an endpoint of this topology.
    ///
    /// # Panics
    /// If the id is from another topology and out of its range here.
    pub fn binding(&self, endpoint: EndpointId) -> Binding {
        self.bindings[endpoint.index()]
    }
}

/// The load balancer node that an endpoint hands its packets to: the one in its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Index in [`Settings::services`].
    pub service: usize,
    /// Index in [`Settings::load_balancers`].
    pub load_balancer: usize,
    /// Index in that load balancer's [`LoadBalancer::nodes`].
    pub node: usize,
}

/// `[gateway]`: the process, not what it balances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Worker threads; 0 means one per CPU. 0–256.
    pub workers: usize,
    /// Whose defaults and ranges the file was read with.
    pub semantics: Semantics,
    /// 32 bytes for cookies and placement, made on first start.
    pub secret_file: PathBuf,
    /// Where the admin API listens, if it does.
    pub admin: Option<AdminAddress>,
    /// Where metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
    /// Flows that each worker remembers at most.
    pub max_flows_per_worker: usize,
    /// Outer UDP source ports that each worker spreads its flows over.
    pub source_ports_per_worker: usize,
}

/// The cloud whose defaults and ranges apply.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Semantics {
    /// AWS Gateway Load Balancer.
    #[default]
    Aws,
    /// Alibaba Cloud Gateway Load Balancer.
    Alibaba,
}

/// `[[endpoint_service]]`: what an endpoint connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointService {
    /// Its name, by which endpoints refer to it.
    pub name: String,
    /// Indices in [`Settings::load_balancers`]; at least one.
    pub load_balancers: Vec<usize>,
    /// Whether a new endpoint waits for somebody to accept it.
    pub acceptance_required: bool,
    /// Who may connect an endpoint; `*` is everybody.
    pub allowed_principals: Vec<String>,
}

/// `[[load_balancer]]`: one node per zone in front of one target group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Unique among its kind.
    pub name: Name,
    /// Index in [`Settings::target_groups`].
    pub target_group: usize,
    /// At least one, each in a zone of its own.
    pub nodes: Vec<Node>,
    /// The underlay's namespace; absent: the process's own.
    pub netns: Option<NetnsName>,
    /// Whether a node uses the targets of every zone, not only those of its own.
    pub cross_zone: bool,
    /// After this long without a packet a TCP flow is forgotten.
    pub tcp_idle_timeout: Duration,
    /// The same for everything that is not TCP.
    pub other_idle_timeout: Duration,
    /// Whether the next packet of a flow that was forgotten is answered with a TCP reset.
    pub send_tcp_reset_on_idle_timeout: bool,
    /// What happens to a TCP packet without SYN for a flow that is not known.
    pub tcp_unknown_flow: UnknownFlow,
}

/// The presence of a load balancer in one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The zone.
    pub zone: String,
    /// The outer address that targets of this load balancer see, and answer to.
    pub address: IpAddr,
}

/// What happens to a TCP packet without SYN whose flow is not in the table.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum UnknownFlow {
    /// It is dropped (semantics 1a: "data packets sent after the idle timeout are dropped").
    #[default]
    Drop,
    /// It is answered with a reset.
    Reset,
    /// It starts a flow, as a SYN would.
    Adopt,
}

/// `[[target_group]]`: appliances that do the same work.
#[derive(Clone, Debug)]
pub struct TargetGroup {
    /// Unique among its kind.
    pub name: Name,
    /// The Geneve options that its targets understand.
    pub dialect: &'static Dialect,
    /// The UDP port on which targets take Geneve, unless they have one of their own.
    pub port: Port,
    /// Which packets count as one flow.
    pub stickiness: Stickiness,
    /// How long a deregistered target is `draining`. 0–3600 s.
    pub deregistration_delay: Duration,
    /// What happens to the flows of a target that is gone.
    pub target_failover: Causes<Failover>,
    /// Whether packets of such flows are answered with a TCP reset.
    pub send_tcp_reset: Causes<bool>,
    /// Where new flows go when no target is healthy.
    pub when_none_healthy: WhenNoneHealthy,
    /// How targets are probed.
    pub health_check: HealthCheck,
    /// At least one.
    pub targets: Vec<Target>,
}

/// One value per cause for which a target loses its flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causes<T> {
    /// Health checks found it unhealthy.
    pub on_unhealthy: T,
    /// It was deregistered, and its delay has passed.
    pub on_deregistration: T,
}

/// What happens to the flows of a target that is gone.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Failover {
    /// They stay with it.
    #[default]
    NoRebalance,
    /// They move to healthy targets.
    Rebalance,
}

/// Where new flows go when no target is healthy.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum WhenNoneHealthy {
    /// To any registered target, as if all were healthy (semantics 1a).
    #[default]
    FailOpen,
    /// Nowhere: they are dropped.
    FailClosed,
    /// Past the appliances, uninspected.
    Bypass,
}

/// How targets are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What a probe speaks.
    pub protocol: HealthProtocol,
    /// The TCP port that is probed.
    pub port: Port,
    /// From the start of one probe to the start of the next.
    pub interval: Duration,
    /// How long a probe may take; not longer than the interval.
    pub timeout: Duration,
    /// Good probes in a row that make a target healthy.
    pub healthy_threshold: u32,
    /// Bad probes in a row that make a target unhealthy.
    pub unhealthy_threshold: u32,
    /// The path that HTTP and HTTPS ask for.
    pub path: String,
    /// The status codes that HTTP and HTTPS take for healthy.
    pub matcher: Matcher,
}

/// What a health check speaks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthProtocol {
    /// A connection that opens is a good probe.
    #[default]
    Tcp,
    /// A GET whose status matches is a good probe.
    Http,
    /// The same over TLS.
    Https,
}

impl HealthProtocol {
    /// As the file has it.
    pub const fn name(self) -> &'static str {
        match self {
            HealthProtocol::Tcp => "TCP",
            HealthProtocol::Http => "HTTP",
            HealthProtocol::Https => "HTTPS",
        }
    }
}

impl fmt::Display for HealthProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `[[target]]`: one appliance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it takes Geneve.
    pub address: IpAddr,
    /// Its port, if it is not the group's.
    pub port: Option<Port>,
    /// The zone that it stands in: one in which its load balancer has a node.
    pub zone: String,
    /// Its share of new flows.
    pub weight: Weight,
}

/// `[[attachment]]`: a device through which packets enter and leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentSettings {
    /// What of the topology it attaches; nothing is attached twice.
    pub at: router::Attachment,
    /// The device, created inside the namespace.
    pub tun: DeviceName,
    /// An existing namespace; absent: the process's own.
    pub netns: Option<NetnsName>,
    /// Of the device.
    pub mtu: Mtu,
    /// Set on the device.
    pub addresses: Vec<IpNet>,
    /// Whether default routes of the addresses' families lead through the device.
    pub default_route: bool,
}
