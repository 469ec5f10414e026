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

use super::log_format::LogFormat;
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
    /// Where records of flows are written, in the order of the file.
    pub flow_logs: Vec<FlowLogSettings>,
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

    /// Where packets can leave, each with the index of the attachment whose device is there: first
    /// what is attached itself, then network interfaces and NAT gateways that are reached through
    /// the device of their subnet.
    pub fn exits(&self) -> Vec<(router::Attachment, usize)> {
        let attached = self.attachments.iter().enumerate();
        let mut exits: Vec<_> = attached.map(|(index, it)| (it.at, index)).collect();
        let own = exits.clone();
        let device = |at| own.iter().find(|(known, _)| *known == at).map(|(_, index)| *index);
        for (id, interface) in self.topology.interfaces() {
            let at = router::Attachment::Interface(id);
            if device(at).is_none()
                && let Some(index) = device(router::Attachment::Subnet(interface.subnet))
            {
                exits.push((at, index));
            }
        }
        exits
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
    /// New flows that each worker remembers in a second at most; beyond them it places flows
    /// without remembering them. 0: no cap. 0–10,000,000, 100,000 unless told otherwise: a table of
    /// a million flows is not full before ten seconds of a flood.
    pub max_new_flows_per_second: u32,
    /// The CPU that each worker stays on, by worker; empty: none is kept anywhere. 0–1023, each
    /// once.
    pub pin_workers: Vec<usize>,
    /// How long a worker without work keeps looking for some before it sleeps. 0–100 ms; 0 unless
    /// told otherwise, since it takes the CPU from everybody else.
    pub busy_poll: Duration,
    /// Whether flow tables take all of their memory at the start, on huge pages where there are any.
    pub huge_pages: bool,
    /// Whether each flow has a record of what went each way. True unless told otherwise.
    pub flow_records: bool,
    /// What each socket of the underlay asks the kernel to buffer of what it receives, in bytes.
    /// 65,536–1,073,741,823; 4 MiB unless told otherwise.
    pub udp_receive_buffer: usize,
    /// The same of what it sends.
    pub udp_send_buffer: usize,
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
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the file, and its own")]
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
    /// How many healthy targets a zone needs to keep its flows to itself: with fewer, those of the
    /// other zones are candidates, too. 0–300; 0: never. 0 with AWS's semantics, whose zones stand
    /// alone, and 1 with Alibaba's, which spread to other zones when a zone's appliances fail.
    pub spill_over_below: u32,
    /// When a flow is forgotten.
    pub timers: FlowTimers,
    /// Whether the next packet of a flow that was forgotten is answered with a TCP reset.
    pub send_tcp_reset_on_idle_timeout: bool,
    /// What happens to a TCP packet without SYN for a flow that is not known.
    pub tcp_unknown_flow: UnknownFlow,
    /// Whether TCP packets without SYN start flows for one TCP idle timeout after the gateway has
    /// started, whatever `tcp_unknown_flow` says, so that a restart breaks no connection.
    pub adopt_after_start: bool,
    /// Whether packets are inspected at all.
    pub traffic_mode: TrafficMode,
    /// Whether outer IPv4 packets carry the "don't fragment" bit. Off by default, as in the packets
    /// that AWS's gateways send.
    pub outer_dont_fragment: bool,
    /// Whether the maximum segment size in TCP SYNs is lowered to what fits through the tunnel.
    pub tcp_mss_clamp: bool,
}

/// How long each kind of flow may be without a packet before it is forgotten.
///
/// None of TCP's timers is longer than `tcp_idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTimers {
    /// A TCP connection that is open. 60–6000 s, 350 s unless told otherwise (semantics 1a, 2a).
    pub tcp_idle: Duration,
    /// A TCP connection that is not answered yet. 60 s, as `nf_conntrack_tcp_timeout_syn_recv` of
    /// Linux has it.
    pub tcp_half_open: Duration,
    /// A TCP connection that one end has closed. 120 s (`nf_conntrack_tcp_timeout_fin_wait`).
    pub tcp_half_closed: Duration,
    /// A TCP connection that both ends have closed, or one has reset. 30 s
    /// (`nf_conntrack_tcp_timeout_last_ack`).
    pub tcp_closed: Duration,
    /// Everything that is not TCP. 120 s (semantics 1a).
    pub other_idle: Duration,
}

/// `[[flow_log]]`: which records of flows are written where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLogSettings {
    /// Unique among its kind.
    pub name: Name,
    /// Whose flows.
    pub resource: LogResource,
    /// Which packets.
    pub traffic_type: TrafficType,
    /// What a line has.
    pub format: LogFormat,
    /// How long packets of a flow are put together at most. 60 or 600 s, as in AWS
    /// (`MaxAggregationInterval`), 600 s unless told otherwise; 1–600 s with extended ranges.
    pub interval: Duration,
    /// Where lines go.
    pub destination: LogDestination,
}

/// Whose flows a log has, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogResource {
    /// All, and packets that a route drops before they come to any endpoint.
    All,
    /// Those through an endpoint.
    Endpoint(String),
    /// Those through the endpoints that a load balancer serves.
    LoadBalancer(String),
}

impl fmt::Display for LogResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Endpoint(name) => write!(f, "endpoint:{name}"),
            Self::LoadBalancer(name) => write!(f, "load_balancer:{name}"),
        }
    }
}

/// Which packets a log has, as AWS has it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum TrafficType {
    /// All.
    #[default]
    All,
    /// Those that went on.
    Accept,
    /// Those that were dropped, or answered in place of going on.
    Reject,
}

/// Where the lines of a log go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDestination {
    /// To the gateway's stdout.
    Stdout,
    /// To a file.
    File {
        /// Absolute.
        path: PathBuf,
        /// When a new one is begun. 4 KiB–1 TiB; 100 MiB unless told otherwise.
        max_bytes: u64,
        /// How many older ones are kept. 1–1000; 5 unless told otherwise.
        files: u32,
    },
}

/// Whether a load balancer hands packets to its targets: Alibaba's `TrafficMode` (semantics 2a).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TrafficMode {
    /// It does.
    #[default]
    LoadBalance,
    /// It does not: every packet goes on uninspected.
    Bypass,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Whether packets of such flows are answered with a TCP reset. Never both this and
    /// [`Failover::Rebalance`] for one cause.
    pub send_tcp_reset: Causes<bool>,
    /// Whether such a reset goes to both ends of a flow at once, not only to who sends next.
    pub reset_both_ends: bool,
    /// Where new flows go when no target is healthy.
    pub when_none_healthy: WhenNoneHealthy,
    /// What becomes of a flow that was handed past the appliances, once one is healthy again.
    pub after_bypass: AfterBypass,
    /// How long the share of a target that has become healthy grows before it is whole. 0–900 s,
    /// the range of AWS's application load balancers; 0, the default: it is whole at once.
    pub slow_start: Duration,
    /// Whether returned packets are taken whose outer UDP checksum is wrong.
    pub tolerate_bad_udp_checksum: bool,
    /// How targets are probed.
    pub health_check: HealthCheck,
    /// How targets are probed through the tunnel, if they are.
    pub tunnel_check: Option<TunnelCheck>,
    /// In the order of the file. There may be none: targets can be registered later.
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

impl<T> Causes<T> {
    /// The same causes with other values.
    pub fn map<U>(self, mut value: impl FnMut(T) -> U) -> Causes<U> {
        Causes {
            on_unhealthy: value(self.on_unhealthy),
            on_deregistration: value(self.on_deregistration),
        }
    }
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
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
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

/// What becomes of a flow that passed uninspected, once a target is healthy again.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AfterBypass {
    /// It stays uninspected: a firewall would refuse what it has not seen begin.
    #[default]
    Keep,
    /// Its next packet is handed to an appliance.
    Inspect,
}

/// How targets are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Whether they are. If not, each counts as healthy.
    pub enabled: bool,
    /// What a probe speaks.
    pub protocol: HealthProtocol,
    /// The TCP port that is probed.
    pub port: Port,
    /// From the start of one probe to the start of the next. 50 ms to 300 s.
    pub interval: Duration,
    /// How long a probe may take; not longer than the interval. 50 ms to 300 s.
    pub timeout: Duration,
    /// Good probes in a row that make a target healthy.
    pub healthy_threshold: u32,
    /// Bad probes in a row that make a target unhealthy.
    pub unhealthy_threshold: u32,
    /// The host that HTTP and HTTPS ask for, in the `Host` header and in the TLS handshake: a DNS
    /// name or an IP address. Absent: the target's address.
    pub host: Option<String>,
    /// The path that HTTP and HTTPS ask for.
    pub path: String,
    /// The status codes that HTTP and HTTPS take for healthy.
    pub matcher: Matcher,
    /// The certificate authorities (PEM) that an HTTPS target's certificate is checked against.
    /// Absent: it is not checked, as by AWS (semantics 1b).
    pub ca_file: Option<PathBuf>,
}

/// How targets are probed through the tunnel, the way that packets go: no cloud does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelCheck {
    /// From the start of one probe to the start of the next. 50 ms to 300 s.
    pub interval: Duration,
    /// How long a probe may take to come back; not longer than the interval. 50 ms to 300 s.
    pub timeout: Duration,
    /// Probes in a row that came back and make the tunnel healthy.
    pub healthy_threshold: u32,
    /// Probes in a row that did not come back and make the tunnel unhealthy.
    pub unhealthy_threshold: u32,
    /// Where the packet inside claims to come from. Absent: the gateway chooses.
    pub source: Option<IpAddr>,
    /// Where the packet inside claims to go; of the same family as `source`. Absent: the gateway
    /// chooses.
    pub destination: Option<IpAddr>,
    /// Whether the largest packet that comes back is looked for, too.
    pub measure_mtu: bool,
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
    /// Whether the device takes and gives super-packets and unfinished checksums.
    pub offload: bool,
    /// The longest super-packet that the kernel gives, in bytes, 576–65,536 and not less than `mtu`;
    /// absent: as long as one send to an appliance holds. Absent without `offload`.
    pub gso_max_size: Option<u32>,
    /// Whether TCP over IPv4 is written in super-packets of more than 65,535 bytes, across PSH. Never
    /// without `offload`.
    pub big_tcp: bool,
}
