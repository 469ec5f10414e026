//! The lookup, said in words: which table, which route, what it beat, and why it ends as it does.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Attachment, Edge, EdgeKind, Entry, GroupId, Interface, InterfaceKind, Learned, NextHop, Origin,
    Route, RouteState, RouteTable, Target, Topology, TransitAttachmentId,
};

/// One lookup, for people and for JSON. Places are written `kind:name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Explanation {
    /// Where the packet enters.
    pub at: String,
    /// The address that is looked up.
    pub destination: IpAddr,
    /// The table that decides.
    pub table: String,
    /// The route that decides, if any has the address.
    pub route: Option<RouteLine>,
    /// The routes that have the address too, and lost to a longer prefix or to one with priority;
    /// the longest first.
    pub passed_over: Vec<RouteLine>,
    /// Where the packet goes: a place, or `blackhole`, `no_route`, `no_subnet` or `loop`.
    pub next: String,
    /// Why, in one sentence.
    pub reason: String,
    /// The same as `next`, as [`Topology::lookup`] answers it.
    #[serde(skip)]
    #[schemars(skip)]
    pub next_hop: NextHop,
}

/// A route, written out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RouteLine {
    /// The addresses that it is for.
    #[schemars(with = "String")]
    pub destination: IpNet,
    /// `local`, `blackhole`, or a place.
    pub target: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The prefix list that has the destination, if the route is for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_list: Option<String>,
    /// Whether packets take it.
    pub state: RouteState,
}

impl Topology {
    /// The same lookup as [`Topology::lookup`], with its reasons.
    pub fn explain(&self, from: Entry, destination: IpAddr) -> Explanation {
        let table = self.table(self.table_for(from));
        let candidates = table.candidates(destination);
        let route = candidates.first().copied();
        let passed_over = candidates.iter().skip(1).map(|route| self.route_line(route)).collect();
        let next_hop = self.lookup(from, destination);
        Explanation {
            at: self.entry_name(from),
            destination,
            table: table.name().to_owned(),
            route: route.map(|route| self.route_line(&route)),
            reason: self.reason(table, &candidates, destination, next_hop),
            passed_over,
            next: self.next_hop_name(next_hop),
            next_hop,
        }
    }

    /// A route, written out.
    pub fn route_line(&self, route: &Route) -> RouteLine {
        let target = match route.target {
            Target::Local => "local".to_owned(),
            Target::Blackhole => "blackhole".to_owned(),
            Target::InternetGateway(id) => self.entry_name(Entry::InternetGateway(id)),
            Target::Endpoint(id) => self.entry_name(Entry::Endpoint(id)),
            Target::EndpointGroup(id) => self.group_name(id),
            Target::Interface(id) => self.entry_name(Entry::Interface(id)),
            Target::Edge(id) => self.entry_name(Entry::Edge(id)),
            Target::Transit(id) => self.transit_name(id),
        };
        RouteLine {
            destination: route.destination,
            target,
            origin: route.origin,
            prefix_list: route.list.map(|id| self.prefix_list(id).name.clone()),
            state: route.state,
        }
    }

    fn group_name(&self, id: GroupId) -> String {
        format!("endpoint_group:{}", self.endpoint_group(id).name)
    }

    fn transit_name(&self, id: TransitAttachmentId) -> String {
        let gateway = self.transit_attachment(id).gateway;
        format!("transit_gateway:{}", self.transit_gateway(gateway).name)
    }

    /// A place as it is written, such as `internet_gateway:NAME`, `subnet:NAME` or `endpoint:NAME`.
    pub fn entry_name(&self, entry: Entry) -> String {
        match entry {
            Entry::InternetGateway(id) => format!("internet_gateway:{}", self.gateway(id).name),
            Entry::Subnet(id) => format!("subnet:{}", self.subnet(id).name),
            Entry::Endpoint(id) => format!("endpoint:{}", self.endpoint(id).name),
            Entry::Interface(id) => {
                let Interface { name, kind, .. } = self.interface(id);
                match kind {
                    InterfaceKind::NetworkInterface => format!("interface:{name}"),
                    InterfaceKind::NatGateway { .. } => format!("nat_gateway:{name}"),
                }
            }
            Entry::Edge(id) => {
                let Edge { name, kind, .. } = self.edge(id);
                match kind {
                    EdgeKind::VirtualPrivateGateway => format!("virtual_private_gateway:{name}"),
                    EdgeKind::EgressOnlyInternetGateway => {
                        format!("egress_only_internet_gateway:{name}")
                    }
                    EdgeKind::Opaque(_) => format!("opaque:{name}"),
                }
            }
        }
    }

    /// A next hop as it is written: a place, or the name of the end.
    pub fn next_hop_name(&self, next_hop: NextHop) -> String {
        match next_hop {
            NextHop::Deliver(attachment) => self.entry_name(attachment.into()),
            NextHop::Endpoint(id) => self.entry_name(Entry::Endpoint(id)),
            NextHop::EndpointGroup(id) => self.group_name(id),
            NextHop::Transit(id) => self.transit_name(id),
            NextHop::Blackhole => "blackhole".to_owned(),
            NextHop::NoRoute => "no_route".to_owned(),
            NextHop::Loop => "loop".to_owned(),
            NextHop::NoSubnet => "no_subnet".to_owned(),
        }
    }

    fn reason(
        &self,
        table: &RouteTable,
        candidates: &[Route],
        destination: IpAddr,
        next_hop: NextHop,
    ) -> String {
        let Some((route, beaten)) = candidates.split_first() else {
            return format!("no route of table {} has {destination}", table.name());
        };
        let destination_net = route.destination;
        let equal = beaten.iter().take_while(|other| other.destination == destination_net).count();
        let longer = beaten
            .iter()
            .any(|other| other.destination.prefix_len() > destination_net.prefix_len());
        let shorter = beaten.len() - equal;
        let won = match (equal, shorter) {
            _ if longer => format!(
                "{destination_net} has {destination}; what is propagated within the VPC gives way"
            ),
            (0, 0) => format!("{destination_net} is the only route that has {destination}"),
            (0, n) => {
                let all = n + 1;
                format!(
                    "{destination_net} is the longest of {all} prefixes that have {destination}"
                )
            }
            (_, 0) => priority(route, destination),
            (_, _) => format!("{}, and is the longest prefix", priority(route, destination)),
        };
        let then = match next_hop {
            NextHop::Deliver(Attachment::InternetGateway(_)) => {
                "it leads to the internet".to_owned()
            }
            NextHop::Deliver(Attachment::Subnet(id)) => {
                format!("it is local, and subnet {} holds the address", self.subnet(id).name)
            }
            NextHop::Deliver(Attachment::Interface(id)) => {
                let what = match self.interface(id).kind {
                    InterfaceKind::NetworkInterface => "network interface",
                    InterfaceKind::NatGateway { .. } => "NAT gateway",
                };
                let how =
                    if route.target == Target::Local { "it is local, and" } else { "it leads to" };
                let has = if route.target == Target::Local { " has the address" } else { "" };
                format!("{how} {what} {}{has}", self.interface(id).name)
            }
            NextHop::Deliver(Attachment::Edge(id)) => {
                format!("it leads out through {}", self.entry_name(Entry::Edge(id)))
            }
            NextHop::Endpoint(id) => {
                format!("it leads to be inspected by {}", self.endpoint(id).service)
            }
            NextHop::EndpointGroup(id) => {
                let (first, _) = self.endpoint_group(id).members[0];
                let service = &self.endpoint(first).service;
                format!("it leads to be inspected by {service}, at the endpoint that is chosen")
            }
            NextHop::Transit(id) => format!("it leads to {}", self.transit_name(id)),
            NextHop::Blackhole => "it is a blackhole".to_owned(),
            NextHop::Loop => "it leads back to the endpoint that the packet came from".to_owned(),
            NextHop::NoSubnet => format!(
                "it is local, but no subnet of VPC {} holds the address",
                self.vpc(table.vpc()).name
            ),
            NextHop::NoRoute => "it leads nowhere".to_owned(),
        };
        format!("{won}; {then}")
    }
}

/// Why a route is used of those for the same addresses (semantics 1d).
fn priority(route: &Route, destination: IpAddr) -> String {
    let Route { destination: net, origin, list, learned, .. } = route;
    let what = match (origin, list, learned) {
        (Origin::EnableVgwRoutePropagation, _, Some(Learned::DirectConnect)) => {
            "learned over Direct Connect"
        }
        (Origin::EnableVgwRoutePropagation, _, _) => "propagated first",
        (_, Some(_), _) => "for a prefix list, which goes before what is propagated",
        (_, None, _) => "static",
    };
    format!("{net} has priority among the routes for {destination}: it is {what}")
}

/// Two lines: the step, and why.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} -> {}", self.at, self.next)?;
        write!(f, "    table {}: {}", self.table, self.reason)?;
        for route in &self.passed_over {
            write!(f, "\n    passed over: {route}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RouteLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.destination, self.target)
    }
}
