//! What can be asked of the control plane, and why it refuses.

use std::net::{IpAddr, SocketAddr};

use router::failover::Refused;
use thiserror::Error;

use crate::config::{Port, Settings, TargetGroup, Weight};

/// The most targets of a group in one zone (semantics 1a: "targets per AZ per GENEVE TG", fixed).
pub const MAX_TARGETS_PER_ZONE: usize = 300;

/// The most targets that are deregistered and not gone yet, of all groups. New ones are refused
/// until some are gone; so nobody can fill the memory by registering and deregistering.
pub const MAX_LEAVING: usize = 1000;

/// A target that is to be registered, or of which something is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSpec {
    /// Where it takes Geneve.
    pub address: IpAddr,
    /// Its port; absent: the group's.
    pub port: Option<Port>,
    /// The zone that it stands in; absent: as before, or the only one that there is.
    pub zone: Option<String>,
    /// Its share of new flows; absent: as before, or 100.
    pub weight: Option<Weight>,
}

/// Why a command is refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    /// There is no target group of this name.
    #[error("there is no target group {group:?}{}", meant(known, nearest.as_deref()))]
    UnknownGroup {
        /// The name given.
        group: String,
        /// The names that there are.
        known: Vec<String>,
        /// The one of them that may have been meant.
        nearest: Option<String>,
    },
    /// There is no load balancer of this name.
    #[error("there is no load balancer {load_balancer:?}{}", meant(known, nearest.as_deref()))]
    UnknownLoadBalancer {
        /// The name given.
        load_balancer: String,
        /// The names that there are.
        known: Vec<String>,
        /// The one of them that may have been meant.
        nearest: Option<String>,
    },
    /// There is no group of endpoints of this name.
    #[error("there is no endpoint group {group:?}{}", meant(known, nearest.as_deref()))]
    UnknownEndpointGroup {
        /// The name given.
        group: String,
        /// The names that there are.
        known: Vec<String>,
        /// The one of them that may have been meant.
        nearest: Option<String>,
    },
    /// The group of endpoints has no such member.
    #[error("endpoint group {group:?} has no member {endpoint:?}{}", meant(known, nearest.as_deref()))]
    NotAMember {
        /// The group.
        group: String,
        /// The endpoint given.
        endpoint: String,
        /// The members that there are.
        known: Vec<String>,
        /// The one of them that may have been meant.
        nearest: Option<String>,
    },
    /// The group of endpoints cannot be switched so.
    #[error("endpoint group {group:?} is not switched{}: {why}", to(endpoint.as_deref()))]
    NotSwitched {
        /// The group.
        group: String,
        /// The endpoint given; absent: back.
        endpoint: Option<String>,
        /// Why not.
        why: Refused,
    },
    /// The group has no such target registered. AWS says nothing when one is deregistered that is
    /// not there (semantics 1b).
    #[error("target group {group:?} has no target {address} registered")]
    UnknownTarget {
        /// The group.
        group: String,
        /// The address and port.
        address: SocketAddr,
    },
    /// No load balancer that uses the group has a node in this zone.
    #[error("no load balancer of the target group has a node in zone {zone:?}{}", in_zones(zones))]
    NoNodeInZone {
        /// The zone given.
        zone: String,
        /// The zones in which there are nodes.
        zones: Vec<String>,
    },
    /// The zone must be said.
    #[error("the zone of the target must be given{}", in_zones(zones))]
    ZoneMissing {
        /// The zones in which there are nodes.
        zones: Vec<String>,
    },
    /// The outer packets are of the other address family.
    #[error(
        "the target is {}, but the load balancer's nodes are {}: {node}",
        family(address),
        family(node)
    )]
    Family {
        /// The target's address.
        address: IpAddr,
        /// A node's.
        node: IpAddr,
    },
    /// Too many that were deregistered are not gone yet.
    #[error(
        "{MAX_LEAVING} targets that were deregistered still have flows; wait until some have ended"
    )]
    TooManyLeaving,
    /// The zone is full.
    #[error(
        "target group {group:?} has {MAX_TARGETS_PER_ZONE} targets in zone {zone:?}, and no more are allowed"
    )]
    TooMany {
        /// The group.
        group: String,
        /// The zone.
        zone: String,
    },
}

impl CommandError {
    /// The field of the request that is wrong, as the API names it.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::UnknownGroup { .. } => Some("group"),
            Self::UnknownEndpointGroup { .. } => Some("endpoint_group"),
            Self::NotAMember { .. } => Some("to"),
            Self::NotSwitched { endpoint, .. } => endpoint.as_ref().map(|_| "to"),
            Self::UnknownLoadBalancer { .. } => Some("load_balancer"),
            Self::UnknownTarget { .. } | Self::Family { .. } => Some("address"),
            Self::NoNodeInZone { .. } | Self::ZoneMissing { .. } => Some("zone"),
            Self::TooMany { .. } | Self::TooManyLeaving => None,
        }
    }

    pub(crate) fn unknown_group(group: &str, settings: &Settings) -> Self {
        let known: Vec<_> = settings.target_groups.iter().map(|it| it.name.to_string()).collect();
        let nearest = nearest(group, &known);
        Self::UnknownGroup { group: group.to_owned(), known, nearest }
    }

    pub(crate) fn unknown_endpoint_group(group: &str, settings: &Settings) -> Self {
        let groups = settings.topology.endpoint_groups();
        let known: Vec<_> = groups.map(|(_, it)| it.name.clone()).collect();
        let nearest = nearest(group, &known);
        Self::UnknownEndpointGroup { group: group.to_owned(), known, nearest }
    }

    pub(crate) fn not_a_member(group: &str, endpoint: &str, known: Vec<String>) -> Self {
        let nearest = nearest(endpoint, &known);
        let (group, endpoint) = (group.to_owned(), endpoint.to_owned());
        Self::NotAMember { group, endpoint, known, nearest }
    }

    pub(crate) fn unknown_load_balancer(load_balancer: &str, settings: &Settings) -> Self {
        let known: Vec<_> = settings.load_balancers.iter().map(|it| it.name.to_string()).collect();
        let nearest = nearest(load_balancer, &known);
        Self::UnknownLoadBalancer { load_balancer: load_balancer.to_owned(), known, nearest }
    }
}

fn nearest(name: &str, known: &[String]) -> Option<String> {
    router::source::nearest(name, known.iter().map(String::as_str)).map(str::to_owned)
}

pub(super) fn meant(known: &[String], nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean {nearest:?}?"),
        None if known.is_empty() => "; there is none at all".to_owned(),
        None => format!("; there are: {}", known.join(", ")),
    }
}

fn to(endpoint: Option<&str>) -> String {
    endpoint.map_or_else(|| " back".to_owned(), |endpoint| format!(" to {endpoint:?}"))
}

fn in_zones(zones: &[String]) -> String {
    if zones.is_empty() {
        "; no load balancer uses the target group".to_owned()
    } else {
        format!("; there are nodes in: {}", zones.join(", "))
    }
}

fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The index of a group and the group.
pub(super) fn group_named<'a>(
    settings: &'a Settings,
    group: &str,
) -> Result<(usize, &'a TargetGroup), CommandError> {
    let mut groups = settings.target_groups.iter().enumerate();
    groups
        .find(|(_, it)| it.name.as_str() == group)
        .ok_or_else(|| CommandError::unknown_group(group, settings))
}

/// The zone that a target is put into: the one that is asked for, or else the one that it is in,
/// or else the only one that there is. Both it and the address must suit the load balancers.
pub(super) fn zone_for(
    settings: &Settings,
    group: usize,
    spec: &TargetSpec,
    before: Option<&str>,
) -> Result<String, CommandError> {
    let balancers = settings.load_balancers.iter().filter(|it| it.target_group == group);
    let nodes: Vec<_> = balancers.flat_map(|it| &it.nodes).collect();
    let mut zones: Vec<_> = nodes.iter().map(|node| node.zone.clone()).collect();
    zones.sort();
    zones.dedup();
    if let Some(node) = nodes.iter().find(|node| node.address.is_ipv4() != spec.address.is_ipv4()) {
        return Err(CommandError::Family { address: spec.address, node: node.address });
    }
    let asked = spec.zone.as_deref().or(before);
    match (asked, zones.as_slice()) {
        (Some(zone), []) => Ok(zone.to_owned()),
        (Some(zone), _) if zones.iter().any(|it| it == zone) => Ok(zone.to_owned()),
        (Some(zone), _) => Err(CommandError::NoNodeInZone { zone: zone.to_owned(), zones }),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(CommandError::ZoneMissing { zones }),
    }
}
