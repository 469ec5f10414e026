//! The form of the file, as it is written: what keys there are, of which type, and what they mean.
//!
//! The doc comments are the descriptions in the JSON schema, so they speak to who writes a file.
//! A range given here is the widest one; [`super::preset`] has what each cloud allows, and the
//! defaults. Tables from `[[vpc]]` to `[[intent]]` are [`router::config`]'s.

use geneve::{Dialect, Stickiness};
use schemars::JsonSchema;
use serde::Deserialize;

use super::by_name::ByName;
use super::field::Field;
use super::settings::{
    AfterBypass, Failover, HealthProtocol, Semantics, TrafficMode, TrafficType, UnknownFlow,
    WhenNoneHealthy,
};

/// Several tables of one kind, each under its own `[[header]]`.
pub(super) type Tables<T> = Field<Vec<Field<T>>>;

/// The gateway's part of a configuration file, for the JSON schema: the tables are read one by one.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct GatewayFile {
    #[serde(default)]
    gateway: Field<GatewayForm>,
    #[serde(default)]
    endpoint_service: Tables<EndpointServiceForm>,
    #[serde(default)]
    load_balancer: Tables<LoadBalancerForm>,
    #[serde(default)]
    target_group: Tables<TargetGroupForm>,
    #[serde(default)]
    target: Tables<TargetForm>,
    #[serde(default)]
    attachment: Tables<AttachmentForm>,
    #[serde(default)]
    flow_log: Tables<FlowLogForm>,
}

impl GatewayFile {
    /// The keys of the top level that are the gateway's.
    pub(super) const TABLES: [&str; 7] = [
        "gateway",
        "endpoint_service",
        "load_balancer",
        "target_group",
        "target",
        "attachment",
        "flow_log",
    ];
}

/// The gateway process itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Gateway")]
pub(super) struct GatewayForm {
    /// Worker threads; 0: one per CPU.
    #[serde(default)]
    #[schemars(range(min = 0, max = 256), extend("default" = 0))]
    pub(super) workers: Field<i64>,
    /// The cloud whose defaults and ranges the other tables start from.
    #[serde(default)]
    #[schemars(extend("default" = "aws"))]
    pub(super) semantics: Field<Semantics>,
    /// File of 32 random bytes for cookies and placement; made on first start, mode 0600. Gateways
    /// of one cluster share it.
    #[serde(default)]
    #[schemars(extend("default" = "/var/lib/gwlb/secret"))]
    pub(super) secret_file: Field<String>,
    /// Where the admin API listens: the absolute path of a Unix socket, or a loopback address and
    /// port, which needs `admin_token_file`. Absent: no admin API.
    #[serde(default)]
    #[schemars(extend("examples" = ["/run/gwlb/main.sock", "127.0.0.1:9960"]))]
    pub(super) admin: Field<String>,
    /// File that holds the token which requests to a TCP `admin` address show.
    #[serde(default)]
    pub(super) admin_token_file: Field<String>,
    /// Address and port where metrics are served over HTTP. Absent: no metrics listener.
    #[serde(default)]
    #[schemars(extend("examples" = ["127.0.0.1:9961"]))]
    pub(super) metrics: Field<String>,
    /// Flows that each worker remembers at most; a flow beyond them is placed packet by packet.
    #[serde(default)]
    #[schemars(range(min = 1024, max = 67_108_864), extend("default" = 1_048_576))]
    pub(super) max_flows_per_worker: Field<i64>,
    /// Outer UDP source ports that each worker spreads its flows over, per load balancer and zone.
    #[serde(default)]
    #[schemars(range(min = 1, max = 64), extend("default" = 8))]
    pub(super) source_ports_per_worker: Field<i64>,
    /// New flows that each worker remembers in a second at most; those beyond are placed without
    /// being remembered. 0: no cap.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000_000), extend("default" = 100_000))]
    pub(super) max_new_flows_per_second_per_worker: Field<i64>,
    /// The CPUs that the workers stay on, by number: as many as there are workers. With
    /// `workers = 0`, one worker for each. Empty: the kernel moves them as it sees fit.
    #[serde(default)]
    #[schemars(
        inner(range(min = 0, max = 1023)),
        extend("default" = [], "examples" = [[2, 3]])
    )]
    pub(super) pin_workers: Field<Vec<Field<i64>>>,
    /// Microseconds for which a worker that has nothing to do keeps looking for packets before it
    /// sleeps. 0: it sleeps at once.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100_000), extend("default" = 0))]
    pub(super) busy_poll_us: Field<i64>,
    /// Room for received datagrams that wait, in bytes, of each socket of the underlay
    /// (`SO_RCVBUF`).
    #[serde(default)]
    #[schemars(range(min = 65_536, max = 1_073_741_823), extend("default" = 4_194_304))]
    pub(super) udp_receive_buffer_bytes: Field<i64>,
    /// The same for sent datagrams that wait (`SO_SNDBUF`).
    #[serde(default)]
    #[schemars(range(min = 65_536, max = 1_073_741_823), extend("default" = 4_194_304))]
    pub(super) udp_send_buffer_bytes: Field<i64>,
    /// Whether the flow tables take all of their memory when the gateway starts, on huge pages
    /// where the kernel offers them, rather than page by page as they fill.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) huge_pages: Field<bool>,
    /// Whether each flow has a record of when it began, who began it, and what went each way: what
    /// `gwlb flows` shows besides the flows' targets, and what flow logs are made of. It takes 64
    /// bytes for each flow.
    #[serde(default)]
    #[schemars(extend("default" = true))]
    pub(super) flow_records: Field<bool>,
}

/// Records of flows, written window by window.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FlowLog")]
pub(super) struct FlowLogForm {
    /// Its name.
    pub(super) name: Field<String>,
    /// Whose flows: `all`, `endpoint:NAME` or `load_balancer:NAME`.
    #[serde(default)]
    #[schemars(extend("default" = "all", "examples" = ["endpoint:vpce-a", "load_balancer:fw"]))]
    pub(super) resource: Field<String>,
    /// Packets that went on, such that were rejected, or both.
    #[serde(default)]
    #[schemars(extend("default" = "ALL"))]
    pub(super) traffic_type: Field<TrafficType>,
    /// The fields of a line, as AWS writes them. Absent: those of version 2.
    #[serde(default)]
    #[schemars(extend("examples" = ["${srcaddr} ${dstaddr} ${action} ${target} ${drop-reason}"]))]
    pub(super) format: Field<String>,
    /// How long packets of a flow are put together in one record at most: 60 or 600.
    #[serde(default)]
    #[schemars(range(min = 1, max = 600), extend("default" = 600))]
    pub(super) max_aggregation_interval_seconds: Field<i64>,
    /// Whether the interval may be any number of seconds up to 600.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) extended_ranges: Field<bool>,
    /// `stdout`, or the absolute path of a file.
    #[schemars(extend("examples" = ["stdout", "/var/log/gwlb/flows.log"]))]
    pub(super) destination: Field<String>,
    /// When a file has so many bytes a new one is begun.
    #[serde(default)]
    #[schemars(range(min = 4096, max = 1_099_511_627_776_i64), extend("default" = 104_857_600))]
    pub(super) max_file_bytes: Field<i64>,
    /// How many older files are kept.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000), extend("default" = 5))]
    pub(super) max_files: Field<i64>,
}

/// What GWLB endpoints connect to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EndpointService")]
pub(super) struct EndpointServiceForm {
    /// Its name, by which an `[[endpoint]]` refers to it.
    pub(super) name: Field<String>,
    /// The load balancers behind it. An endpoint is served by the first one with a node in its
    /// zone.
    pub(super) load_balancers: Field<Vec<Field<String>>>,
    /// Whether a new endpoint waits until it is accepted.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) acceptance_required: Field<bool>,
    /// Who may connect an endpoint; `*` is everybody.
    #[serde(default)]
    #[schemars(extend("default" = ["*"]))]
    pub(super) allowed_principals: Field<Vec<Field<String>>>,
}

/// One node per zone in front of one target group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LoadBalancer")]
pub(super) struct LoadBalancerForm {
    /// 1–32 letters, digits and hyphens; no hyphen at either end.
    pub(super) name: Field<String>,
    /// The target group that it forwards to. A target group has one load balancer.
    pub(super) target_group: Field<String>,
    /// Its presence in each zone.
    pub(super) nodes: Tables<NodeForm>,
    /// Network namespace of the underlay: a name under `/run/netns`, or an absolute path. Absent:
    /// the process's own.
    #[serde(default)]
    pub(super) netns: Field<String>,
    /// Whether a node uses the targets of all zones, not only those of its own. Default: false
    /// with `semantics = "aws"`, true with `"alibaba"`.
    #[serde(default)]
    pub(super) cross_zone: Field<bool>,
    /// With fewer healthy targets than this in its own zone, a node uses those of the other zones,
    /// too; 0: never. Default: 0 with `semantics = "aws"`, 1 with `"alibaba"`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 300))]
    pub(super) spill_over_below_healthy_targets: Field<i64>,
    /// `bypass`: every packet goes on uninspected, past the targets.
    #[serde(default)]
    #[schemars(extend("default" = "load_balance"))]
    pub(super) traffic_mode: Field<TrafficMode>,
    /// Seconds without a packet after which a TCP flow is forgotten. 60–6000; from 1 with
    /// `extended_ranges`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 6000), extend("default" = 350))]
    pub(super) tcp_idle_timeout_seconds: Field<i64>,
    /// The same for everything that is not TCP.
    #[serde(default)]
    #[schemars(range(min = 1, max = 6000), extend("default" = 120))]
    pub(super) other_idle_timeout_seconds: Field<i64>,
    /// The same for a TCP flow that is not answered yet. Not more than `tcp_idle_timeout_seconds`,
    /// which is the default where it is shorter than 60.
    #[serde(default)]
    #[schemars(range(min = 1, max = 6000), extend("default" = 60))]
    pub(super) tcp_half_open_timeout_seconds: Field<i64>,
    /// The same for a TCP flow that one end has closed. Not more than `tcp_idle_timeout_seconds`,
    /// which is the default where it is shorter than 120.
    #[serde(default)]
    #[schemars(range(min = 1, max = 6000), extend("default" = 120))]
    pub(super) tcp_half_closed_timeout_seconds: Field<i64>,
    /// The same for a TCP flow that is closed or reset. Not more than `tcp_idle_timeout_seconds`,
    /// which is the default where it is shorter than 30.
    #[serde(default)]
    #[schemars(range(min = 1, max = 6000), extend("default" = 30))]
    pub(super) tcp_closed_timeout_seconds: Field<i64>,
    /// Whether the next packet of a TCP flow that was forgotten is answered with a reset.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) send_tcp_reset_on_idle_timeout: Field<bool>,
    /// What becomes of a TCP packet without SYN for a flow that is not known.
    #[serde(default)]
    #[schemars(extend("default" = "drop"))]
    pub(super) tcp_unknown_flow: Field<UnknownFlow>,
    /// Whether such packets start flows for one TCP idle timeout after the gateway has started,
    /// whatever `tcp_unknown_flow` says.
    #[serde(default)]
    #[schemars(extend("default" = true))]
    pub(super) adopt_after_start: Field<bool>,
    /// Whether outer IPv4 packets carry the "don't fragment" bit.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) outer_dont_fragment: Field<bool>,
    /// Whether the maximum segment size in TCP SYNs is lowered to what fits through the tunnel.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) tcp_mss_clamp: Field<bool>,
    /// Accepts idle timeouts that are shorter than the clouds allow.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) extended_ranges: Field<bool>,
}

/// The presence of a load balancer in one zone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Node")]
pub(super) struct NodeForm {
    /// The zone; one node in each.
    pub(super) zone: Field<String>,
    /// The outer IP address that the targets see, and answer to.
    pub(super) address: Field<String>,
}

/// Appliances that do the same work.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TargetGroup")]
pub(super) struct TargetGroupForm {
    /// 1–32 letters, digits and hyphens; no hyphen at either end.
    pub(super) name: Field<String>,
    /// The Geneve options that its targets understand. Alibaba's are AWS's.
    #[serde(default)]
    #[schemars(extend("default" = "aws"))]
    pub(super) dialect: Field<ByName<&'static Dialect>>,
    /// The UDP port on which the targets take Geneve.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_535), extend("default" = 6081))]
    pub(super) port: Field<i64>,
    /// Which packets count as one flow and reach the same target.
    #[serde(default)]
    #[schemars(extend("default" = "5-tuple"))]
    pub(super) stickiness: Field<ByName<Stickiness>>,
    /// Seconds that a deregistered target stays `draining`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600), extend("default" = 300))]
    pub(super) deregistration_delay_seconds: Field<i64>,
    /// What happens to the flows of a target that is gone.
    #[serde(default)]
    pub(super) target_failover: Field<FailoverForm>,
    /// Whether packets of such flows are answered with a TCP reset.
    #[serde(default)]
    pub(super) send_tcp_reset: Field<ResetForm>,
    /// Where new flows go when no target is healthy.
    #[serde(default)]
    #[schemars(extend("default" = "fail_open"))]
    pub(super) when_none_healthy: Field<WhenNoneHealthy>,
    /// What becomes of a flow that passed uninspected, once a target is healthy again.
    #[serde(default)]
    #[schemars(extend("default" = "keep"))]
    pub(super) after_bypass: Field<AfterBypass>,
    /// Seconds over which the share of a target grows that has become healthy; 0: at once.
    #[serde(default)]
    #[schemars(range(min = 0, max = 900), extend("default" = 0))]
    pub(super) slow_start_seconds: Field<i64>,
    /// Whether returned packets are taken whose outer UDP checksum is wrong.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) tolerate_bad_udp_checksum: Field<bool>,
    /// How targets are probed.
    #[serde(default)]
    pub(super) health_check: Field<HealthCheckForm>,
    /// How targets are probed through the tunnel. Absent: they are not.
    #[serde(default)]
    pub(super) tunnel_check: Field<TunnelCheckForm>,
}

/// What happens to the flows of a target that is gone. With `semantics = "alibaba"`, which has one
/// switch, one cause given stands for both.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TargetFailover")]
pub(super) struct FailoverForm {
    /// When health checks found it unhealthy.
    #[serde(default)]
    #[schemars(extend("default" = "no_rebalance"))]
    pub(super) on_unhealthy: Field<Failover>,
    /// When it was deregistered and the delay has passed.
    #[serde(default)]
    #[schemars(extend("default" = "no_rebalance"))]
    pub(super) on_deregistration: Field<Failover>,
}

/// Whether packets of flows whose target is gone are answered with a TCP reset. Needs 5-tuple
/// stickiness, and no rebalancing for the same cause.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SendTcpReset")]
pub(super) struct ResetForm {
    /// When health checks found it unhealthy.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) on_unhealthy: Field<bool>,
    /// When it was deregistered and the delay has passed.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) on_deregistration: Field<bool>,
    /// Whether both ends are reset at once, not only the sender of the next packet.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) both_ends: Field<bool>,
}

/// How targets are probed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HealthCheck")]
pub(super) struct HealthCheckForm {
    /// Whether targets are probed; if not, each counts as healthy.
    #[serde(default)]
    #[schemars(extend("default" = true))]
    pub(super) enabled: Field<bool>,
    /// TCP: a connection that opens is good. HTTP and HTTPS: a GET whose status matches is good.
    #[serde(default)]
    #[schemars(extend("default" = "TCP"))]
    pub(super) protocol: Field<HealthProtocol>,
    /// The TCP port to probe.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_535), extend("default" = 80))]
    pub(super) port: Field<i64>,
    /// Seconds from probe to probe; not less than the timeout. AWS 5–300, Alibaba 1–50; 1–300 with
    /// `extended_ranges`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 300), extend("default" = 10))]
    pub(super) interval_seconds: Field<i64>,
    /// The same in milliseconds, instead. Needs `extended_ranges`.
    #[serde(default)]
    #[schemars(range(min = 50, max = 300_000))]
    pub(super) interval_ms: Field<i64>,
    /// Seconds that a probe may take. AWS 2–120, Alibaba 1–300; 1–300 with `extended_ranges`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 300), extend("default" = 5))]
    pub(super) timeout_seconds: Field<i64>,
    /// The same in milliseconds, instead. Needs `extended_ranges`.
    #[serde(default)]
    #[schemars(range(min = 50, max = 300_000))]
    pub(super) timeout_ms: Field<i64>,
    /// Good probes in a row that make a target healthy. 2–10; from 1 with `extended_ranges`.
    /// Default: 5 with `semantics = "aws"`, 2 with `"alibaba"`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10))]
    pub(super) healthy_threshold: Field<i64>,
    /// Bad probes in a row that make a target unhealthy. 2–10; from 1 with `extended_ranges`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10), extend("default" = 2))]
    pub(super) unhealthy_threshold: Field<i64>,
    /// The host that HTTP and HTTPS ask for: a DNS name or an IP address. Absent: the target's
    /// address.
    #[serde(default)]
    #[schemars(extend("examples" = ["fw.example.com"]))]
    pub(super) host: Field<String>,
    /// The path that HTTP and HTTPS ask for.
    #[serde(default)]
    #[schemars(extend("default" = "/"))]
    pub(super) path: Field<String>,
    /// The status codes that HTTP and HTTPS take for healthy: codes and ranges within 200–399,
    /// separated by commas.
    #[serde(default)]
    #[schemars(extend("default" = "200-399"))]
    pub(super) matcher: Field<String>,
    /// Absolute path of a PEM file with the certificate authorities that an HTTPS target's
    /// certificate is checked against. Absent: it is not checked.
    #[serde(default)]
    pub(super) ca_file: Field<String>,
    /// Accepts probes that are faster than the clouds allow.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) extended_ranges: Field<bool>,
}

/// How targets are probed through the tunnel: a packet in Geneve that the appliance brings back.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TunnelCheck")]
pub(super) struct TunnelCheckForm {
    /// Seconds from probe to probe; not less than the timeout.
    #[serde(default)]
    #[schemars(range(min = 1, max = 300), extend("default" = 10))]
    pub(super) interval_seconds: Field<i64>,
    /// The same in milliseconds, instead. Needs `extended_ranges`.
    #[serde(default)]
    #[schemars(range(min = 50, max = 300_000))]
    pub(super) interval_ms: Field<i64>,
    /// Seconds that a probe may take to come back.
    #[serde(default)]
    #[schemars(range(min = 1, max = 300), extend("default" = 5))]
    pub(super) timeout_seconds: Field<i64>,
    /// The same in milliseconds, instead. Needs `extended_ranges`.
    #[serde(default)]
    #[schemars(range(min = 50, max = 300_000))]
    pub(super) timeout_ms: Field<i64>,
    /// Probes in a row that come back and make the tunnel healthy. 2–10; from 1 with
    /// `extended_ranges`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10), extend("default" = 2))]
    pub(super) healthy_threshold: Field<i64>,
    /// Probes in a row that do not come back and make the tunnel unhealthy. 2–10; from 1 with
    /// `extended_ranges`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10), extend("default" = 2))]
    pub(super) unhealthy_threshold: Field<i64>,
    /// The source address of the packet inside. Absent: the gateway chooses.
    #[serde(default)]
    pub(super) source: Field<String>,
    /// The destination address of the packet inside, of the same family. Absent: the gateway
    /// chooses.
    #[serde(default)]
    pub(super) destination: Field<String>,
    /// Whether the largest packet that comes back is looked for, too.
    #[serde(default)]
    #[schemars(extend("default" = true))]
    pub(super) measure_mtu: Field<bool>,
    /// Accepts probes that are faster than one a second, and thresholds of 1.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) extended_ranges: Field<bool>,
}

/// One appliance.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Target")]
pub(super) struct TargetForm {
    /// The target group that it belongs to.
    pub(super) group: Field<String>,
    /// The IP address where it takes Geneve.
    pub(super) address: Field<String>,
    /// Its UDP port, if it is not the group's.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_535))]
    pub(super) port: Field<i64>,
    /// The zone that it stands in; its load balancer has a node there.
    pub(super) zone: Field<String>,
    /// Its share of new flows, relative to the others; 0: no new flows.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000), extend("default" = 100))]
    pub(super) weight: Field<i64>,
}

/// A device through which packets enter and leave, of exactly one place.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Attachment")]
pub(super) struct AttachmentForm {
    /// The subnet that it attaches. Network interfaces and NAT gateways of the subnet that have no
    /// device of their own are reached through this one, too.
    #[serde(default)]
    pub(super) subnet: Field<String>,
    /// The internet gateway that it attaches.
    #[serde(default)]
    pub(super) internet_gateway: Field<String>,
    /// The network interface that it attaches: of the machine that routes lead to.
    #[serde(default)]
    pub(super) interface: Field<String>,
    /// The NAT gateway that it attaches: whoever translates stands behind the device.
    #[serde(default)]
    pub(super) nat_gateway: Field<String>,
    /// The virtual private gateway that it attaches.
    #[serde(default)]
    pub(super) virtual_private_gateway: Field<String>,
    /// The egress-only internet gateway that it attaches.
    #[serde(default)]
    pub(super) egress_only_internet_gateway: Field<String>,
    /// The opaque way out that it attaches.
    #[serde(default)]
    pub(super) opaque: Field<String>,
    /// Name of the TUN device, which is created: 1–15 bytes.
    pub(super) tun: Field<String>,
    /// The existing network namespace in which the device is created: a name under `/run/netns`,
    /// or an absolute path. Absent: the process's own.
    #[serde(default)]
    pub(super) netns: Field<String>,
    /// MTU of the device in bytes: 68–65535, from 1280 where IPv6 is spoken.
    #[serde(default)]
    #[schemars(range(min = 68, max = 65_535), extend("default" = 1500))]
    pub(super) mtu: Field<i64>,
    /// Addresses with prefix length that are set on the device.
    #[serde(default)]
    #[schemars(extend("examples" = [["10.0.1.11/24", "fd00:10:0:1::11/64"]]))]
    pub(super) addresses: Field<Vec<Field<String>>>,
    /// Whether default routes of the addresses' families lead through the device.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) default_route: Field<bool>,
    /// Whether the device takes and gives super-packets and unfinished checksums (TSO, USO, GRO).
    #[serde(default)]
    #[schemars(extend("default" = true))]
    pub(super) offload: Field<bool>,
    /// The longest super-packet that the kernel gives to the device, in bytes; not less than `mtu`.
    /// Absent: as long as one send to an appliance holds.
    #[serde(default)]
    #[schemars(range(min = 576, max = 65_536))]
    pub(super) gso_max_size: Field<i64>,
    /// Whether TCP over IPv4 is given to the device in super-packets beyond 64 KiB (IPv4 BIG TCP,
    /// Linux 6.3), of which only the last segment keeps PSH.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) big_tcp: Field<bool>,
}
