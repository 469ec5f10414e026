//! The same under the names that AWS CloudWatch has for it, as its exporters for Prometheus write
//! them, so that dashboards made for those show a gateway, too.
//!
//! CloudWatch tells of minutes: a sum is what came within the last whole minute, and everything here
//! is a gauge therefore.

use super::instrument::{Instrument, Kind};
use crate::runtime::minutes::{Level, Minute, Subject};

/// The dimensions of `AWS/GatewayELB`, and of targets, which CloudWatch does not tell of.
const ELB: &[&str] = &[
    "dimension_LoadBalancer",
    "dimension_AvailabilityZone",
    "dimension_TargetGroup",
    "dimension_Target",
];
/// The dimensions of `AWS/PrivateLinkEndpoints`.
const ENDPOINTS: &[&str] = &[
    "dimension_Endpoint_Type",
    "dimension_Service_Name",
    "dimension_VPC_Endpoint_Id",
    "dimension_VPC_Id",
    "dimension_Subnet_Id",
];
/// The dimension of `AWS/PrivateLinkServices`.
const SERVICES: &[&str] = &["dimension_Service_Id"];

/// A value of a minute, and what it is called: metric and statistic, help text.
#[derive(Clone, Copy)]
struct Alias(&'static str, &'static str, fn(&Minute) -> f64);

/// Of load balancers and their zones.
const OF_BALANCERS: &[Alias] = &[
    Alias(
        "peak_bytes_per_second_maximum",
        "PeakBytesPerSecond: bytes of inner packets to and from targets in the second of the last \
         minute that had the most.",
        |it| it.peak_bytes,
    ),
    Alias(
        "peak_packets_per_second_maximum",
        "PeakPacketsPerSecond: packets to and from targets in the second of the last minute that had \
         the most.",
        |it| it.peak_packets,
    ),
    Alias(
        "rejected_flow_count_sum",
        "RejectedFlowCount: packets of the last minute that would have begun a flow and were refused.",
        |it| it.sums.refused as f64,
    ),
    Alias("rejected_flow_count_tcp_sum", "RejectedFlowCount_TCP: of these, TCP segments.", |it| {
        it.sums.refused_tcp as f64
    }),
    Alias(
        "tcp_elb_reset_count_sum",
        "TCP_ELB_Reset_Count: TCP resets that the gateway sent in the last minute.",
        |it| it.sums.resets as f64,
    ),
];

/// Of load balancers, their zones, and targets.
const OF_ALL: &[Alias] = &[
    Alias("active_flow_count_average", "ActiveFlowCount: flows, on average of the last minute.", {
        |it| it.active_flows.average
    }),
    Alias("active_flow_count_maximum", "ActiveFlowCount: flows, at most in the last minute.", {
        |it| it.active_flows.maximum as f64
    }),
    Alias("active_flow_count_minimum", "ActiveFlowCount: flows, at least in the last minute.", {
        |it| it.active_flows.minimum as f64
    }),
    Alias("new_flow_count_sum", "NewFlowCount: flows that began in the last minute.", {
        |it| it.sums.new_flows as f64
    }),
    Alias(
        "processed_bytes_sum",
        "ProcessedBytes: bytes of inner packets to and from targets in the last minute.",
        |it| it.sums.bytes as f64,
    ),
    Alias(
        "processed_packets_sum",
        "ProcessedPackets: packets to and from targets in the last minute.",
        |it| it.sums.packets as f64,
    ),
];

/// Of endpoints.
const OF_ENDPOINTS: &[Alias] = &[
    ACTIVE_CONNECTIONS[0],
    ACTIVE_CONNECTIONS[1],
    BYTES_PROCESSED,
    NEW_CONNECTIONS,
    Alias(
        "packets_dropped_sum",
        "PacketsDropped: packets that the endpoint dropped in the last minute.",
        |it| it.sums.dropped as f64,
    ),
];

/// Of endpoint services.
const OF_SERVICES: &[Alias] = &[
    ACTIVE_CONNECTIONS[0],
    ACTIVE_CONNECTIONS[1],
    BYTES_PROCESSED,
    NEW_CONNECTIONS,
    Alias("endpoints_count_average", "EndpointsCount: endpoints of the service.", {
        |it| it.endpoints.average
    }),
];

const ACTIVE_CONNECTIONS: [Alias; 2] = [
    Alias(
        "active_connections_average",
        "ActiveConnections: flows of any protocol, on average of the last minute.",
        |it| it.active_flows.average,
    ),
    Alias(
        "active_connections_maximum",
        "ActiveConnections: flows of any protocol, at most in the last minute.",
        |it| it.active_flows.maximum as f64,
    ),
];
const BYTES_PROCESSED: Alias = Alias(
    "bytes_processed_sum",
    "BytesProcessed: bytes of inner packets through the endpoint in the last minute, both ways.",
    |it| it.sums.bytes as f64,
);
const NEW_CONNECTIONS: Alias = Alias(
    "new_connections_sum",
    "NewConnections: flows of any protocol that began in the last minute.",
    |it| it.sums.new_flows as f64,
);

/// How many targets are in a state: name, help text, value.
type Hosts = (&'static str, &'static str, fn(&Minute) -> Level);

const HOSTS: [Hosts; 2] = [
    ("healthy_host_count", "HealthyHostCount: targets that pass their checks", |it| it.healthy),
    ("un_healthy_host_count", "UnHealthyHostCount: targets that fail their checks", |it| {
        it.unhealthy
    }),
];

/// A statistic of a level: name, help text, value.
type Statistic = (&'static str, &'static str, fn(Level) -> f64);

const STATISTICS: [Statistic; 3] = [
    ("average", "on average of the last minute", |it| it.average),
    ("maximum", "at most in the last minute", |it| it.maximum as f64),
    ("minimum", "at least in the last minute", |it| it.minimum as f64),
];

/// All of them.
pub(super) fn instruments() -> Vec<Instrument> {
    let elb = |alias: &'static Alias, targets: bool| {
        of("aws_gatewayelb_", alias, ELB, move |subject| balanced(subject, targets))
    };
    let mut all: Vec<_> = OF_ALL.iter().map(|alias| elb(alias, true)).collect();
    all.extend(OF_BALANCERS.iter().map(|alias| elb(alias, false)));
    all.extend(hosts());
    let prefix = "aws_privatelinkendpoints_";
    all.extend(OF_ENDPOINTS.iter().map(|alias| of(prefix, alias, ENDPOINTS, endpoint)));
    let prefix = "aws_privatelinkservices_";
    all.extend(OF_SERVICES.iter().map(|alias| of(prefix, alias, SERVICES, service)));
    all
}

fn of(
    prefix: &str,
    Alias(name, help, value): &'static Alias,
    labels: &'static [&'static str],
    dimensions: impl Fn(&Subject) -> Option<Vec<&str>> + 'static,
) -> Instrument {
    let name = format!("{prefix}{name}");
    Instrument::new(Kind::Gauge, name, *help, labels, move |status, series| {
        for (subject, minute) in &*status.minutes {
            if let Some(labels) = dimensions(subject) {
                series.value(&labels, value(minute));
            }
        }
    })
}

fn hosts() -> impl Iterator<Item = Instrument> {
    HOSTS.into_iter().flat_map(|(name, help, level)| {
        STATISTICS.map(|(statistic, when, value)| {
            let (name, help) =
                (format!("aws_gatewayelb_{name}_{statistic}"), format!("{help}, {when}."));
            Instrument::new(Kind::Gauge, name, help, ELB, move |status, series| {
                for (subject, minute) in &*status.minutes {
                    if let Subject::Hosts { load_balancer, zone, target_group } = subject {
                        let labels = [&**load_balancer, zone, target_group, ""];
                        series.value(&labels, value(level(minute)));
                    }
                }
            })
        })
    })
}

/// A load balancer, one of its zones, or a target, if those are asked for.
fn balanced(subject: &Subject, targets: bool) -> Option<Vec<&str>> {
    match subject {
        Subject::Balancer { load_balancer } => Some(vec![load_balancer, "", "", ""]),
        Subject::Node { load_balancer, zone } => Some(vec![load_balancer, zone, "", ""]),
        Subject::Target { target_group, target } if targets => {
            Some(vec!["", "", target_group, target])
        }
        _ => None,
    }
}

fn endpoint(subject: &Subject) -> Option<Vec<&str>> {
    match subject {
        Subject::Endpoint { endpoint, vpc, subnet, service } => {
            Some(vec!["GatewayLoadBalancer", service, endpoint, vpc, subnet])
        }
        _ => None,
    }
}

fn service(subject: &Subject) -> Option<Vec<&str>> {
    match subject {
        Subject::Service { service } => Some(vec![service]),
        _ => None,
    }
}
