//! Proves, for all addresses at once, that every path is inspected, both ways, at one endpoint; or
//! tells which is not, with a packet that shows it.
//!
//! The address space is cut into classes at every border of every table, subnet, interface,
//! mapping and transit gateway's table. All addresses of a class go the same way from everywhere,
//! so one way stands for all of them, and nothing is sampled. Each class is followed from every
//! place where packets enter, there and back, for every choice that can be made on the way: the
//! zone of an attachment in appliance mode, the member of a group.
//!
//! What is looked at:
//! - Every subnet with machines is a place that packets come from and go to. Subnets that hold only
//!   endpoints, NAT gateways or attachments of transit gateways are not.
//! - In a VPC with an endpoint, everything between a place and an internet gateway, a virtual
//!   private gateway or an egress-only internet gateway has to pass an endpoint, both ways.
//!   Traffic between subnets has not, unless an intent asks for it; but where one direction does,
//!   the other must, too.
//! - From an internet gateway come packets to addresses that are mapped, that are led to an
//!   endpoint, or whose answers would leave by it as they are. (What goes out through a NAT gateway
//!   only, nobody can reach from outside.)
//! - Appliances are taken to give back what they get. A NAT gateway sends packets on with its own
//!   address as their source, and answers, which come to that address, on to whom they are for.
//!
//! What machines do that routes lead to, and what is behind an opaque thing, is not known here;
//! [`FindingKind::NotFollowed`] says where the proof ends because of that.

mod back;
mod classes;
mod collect;
mod display;
mod help;
mod judge;
mod outside;
mod roles;

mod show;
mod standing;
mod walks;
mod words;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use crate::Topology;

/// What there is to say about all paths of a topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Report {
    /// The findings, the gravest first; one for each cause.
    pub findings: Vec<Finding>,
    /// What was looked at.
    pub examined: Examined,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Examined {
    /// Stretches of addresses between two borders, IPv4 and IPv6.
    pub stretches: usize,
    /// Classes of addresses that are routed alike everywhere.
    pub classes: usize,
    /// Ways that were followed: one for each entry, class and choice.
    pub ways: usize,
    /// Lookups in tables.
    pub lookups: usize,
}

/// One fault, with all that it concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// How grave it is.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub text: String,
    /// Where the packets enter, as `kind:name`.
    pub from: Vec<String>,
    /// Where they leave, or should; empty if they do not.
    pub to: Vec<String>,
    /// The addresses that they are for: all of `flows`, merged.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// Exactly which packets it concerns. Empty if it is not about packets.
    pub flows: Vec<Flows>,
    /// One of them.
    pub counter_example: Option<Packet>,
    /// Its way.
    pub path: Vec<Hop>,
    /// The way of the answer, as far as it matters.
    pub way_back: Vec<Hop>,
    /// What would help.
    pub help: String,
}

/// All packets from one place to another with any of these sources and any of these destinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Flows {
    /// Where they enter.
    pub from: String,
    /// Where they leave, or should, if there is such a place.
    pub to: Option<String>,
    /// Their sources; merged, all of one family.
    #[schemars(with = "Vec<String>")]
    pub sources: Vec<IpNet>,
    /// Their destinations; merged, all of the same family.
    #[schemars(with = "Vec<String>")]
    pub destinations: Vec<IpNet>,
}

/// A packet that shows a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Packet {
    /// Where it enters, as `kind:name`.
    pub from: String,
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// What is chosen for its flow, where something is.
    pub choices: Vec<Choice>,
}

/// What is chosen for a flow, in both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Choice {
    /// `transit_gateway_attachment:NAME` or `endpoint_group:NAME`.
    pub at: String,
    /// The subnet or the endpoint that is taken.
    pub takes: String,
    /// The same, by its place among the attachment's subnets or the group's members; the first
    /// is 0.
    pub index: usize,
}

/// One lookup on the way, in short; [`Topology::trace_packet`] says more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Hop {
    /// Where the packet is.
    pub at: String,
    /// The address that is looked up.
    pub destination: IpAddr,
    /// The table that decides.
    pub table: String,
    /// The route that decides, as `destination -> target`, if any has the address.
    pub route: Option<String>,
    /// Where it goes: a place, or `blackhole`, `no_route`, `no_subnet` or `loop`.
    pub next: String,
    /// What a NAT gateway makes of the packet there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub translated: Option<String>,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Packets get around inspection, or are lost.
    Error,
    /// It works, but probably not as it was meant.
    Warning,
    /// Good to know.
    Info,
}

/// Declares the kinds of findings: name, the name that users see, which stays what it is, how grave
/// they are, and what they mean.
macro_rules! kinds {
    ($($name:ident = $code:literal, $severity:literal, $statement:literal;)*) => {
        /// What can be wrong.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum FindingKind {
            $(#[doc = $statement] $name,)*
        }

        impl FindingKind {
            /// All kinds.
            pub const ALL: &[FindingKind] = &[$(FindingKind::$name),*];

            /// Its name, in words with hyphens; the same in JSON.
            pub fn code(self) -> &'static str {
                match self { $(FindingKind::$name => $code,)* }
            }

            /// How grave findings of this kind are, in words.
            pub fn gravity(self) -> &'static str {
                match self { $(FindingKind::$name => $severity,)* }
            }

            /// What it means, in one sentence.
            pub fn statement(self) -> &'static str {
                match self { $(FindingKind::$name => $statement,)* }
            }
        }
    };
}

kinds! {
    UninspectedIngress = "uninspected-ingress", "error",
        "Packets from an internet gateway or a virtual private gateway reach a subnet without passing an endpoint, though its VPC or the gateway's has one.";
    UninspectedEgress = "uninspected-egress", "error",
        "Packets from a subnet leave by a gateway without passing an endpoint, though its VPC or the gateway's has one.";
    Ipv6Uninspected = "ipv6-uninspected", "error",
        "The same for IPv6 in one of both directions, where all IPv4 packets of the subnet pass an endpoint.";
    IntentViolated = "intent-violated", "error",
        "An intent with `inspected_by` does not hold for some packets.";
    SharedSubnet = "shared-subnet", "error, or warning if all packets are inspected all the same",
        "An application is in the same subnet as its endpoint, so that one table would have to lead to the endpoint and away from it.";
    OneWayInspection = "one-way-inspection", "error",
        "One direction passes an endpoint and the other does not.";
    DifferentEndpoints = "different-endpoints", "error",
        "The two directions pass different endpoints, so that no appliance sees both (semantics 1d: asymmetric routing is not supported).";
    ApplianceMode = "appliance-mode", "error",
        "The two directions come out of a transit gateway in different zones and pass the endpoints of these, since the attachment has no appliance mode (semantics 1d).";
    Loop = "loop", "error",
        "Packets, or their answers, circle.";
    LostAfterInspection = "lost-after-inspection", "error, or warning if only some are lost",
        "Packets are lost after they have passed an endpoint.";
    LostBehindGateway = "lost-behind-gateway", "warning",
        "A route leads packets to a NAT gateway or a transit gateway, and they are lost there or behind it, before any endpoint.";
    LostReturn = "lost-return", "error, or warning between subnets without inspection",
        "Packets arrive, but the answers do not.";
    EgressOnlyBehindEndpoint = "egress-only-behind-endpoint", "error",
        "IPv6 packets come from an endpoint to an egress-only internet gateway, which drops them (semantics 1c).";
    BlackholeInUse = "blackhole-in-use", "warning",
        "A route is a blackhole, and packets between places that are there meet it.";
    ZoneCrossing = "zone-crossing", "warning",
        "Packets pass an endpoint of another zone than both ends of their flow, though its service has one in their zone.";
    ImplicitMainTable = "implicit-main-table", "warning",
        "Subnets of a VPC with endpoints name no table, and the file has no main table for them.";
    UnusedEndpoint = "unused-endpoint", "info",
        "No route leads to an endpoint.";
    NotFollowed = "not-followed", "warning",
        "Packets of a VPC with endpoints are handed to a machine that they are not for, or to something opaque; what becomes of them is not known, and the proof ends there.";
}

impl Topology {
    /// Follows every class of addresses from everywhere, there and back. Best with a topology that
    /// was built with [`Circles::Kept`](crate::Circles::Kept), so that circles are found here, too.
    pub fn verify(&self) -> Report {
        judge::Judge::new(self).report()
    }
}

impl Report {
    /// Whether there is nothing worse than [`Severity::Info`].
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Info)
    }

    /// How many findings there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// The findings of a kind.
    pub fn of(&self, kind: FindingKind) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.kind == kind)
    }
}

impl Finding {
    /// Whether a packet is among those that it concerns.
    pub fn concerns(&self, from: &str, source: IpAddr, destination: IpAddr) -> bool {
        let has = |nets: &[IpNet], address| nets.iter().any(|net| net.contains(&address));
        self.flows.iter().any(|flows| {
            flows.from == from
                && has(&flows.sources, source)
                && has(&flows.destinations, destination)
        })
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_alike_in_text_and_in_json() {
        for kind in FindingKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.code());
        }
    }
}
