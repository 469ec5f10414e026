//! The lookup, said in words: which table, which route, what it beat, and why it ends as it does.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Attachment, Entry, NextHop, Origin, Route, RouteTable, Target, Topology};

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
    /// The routes that have the address too, and lost to a longer prefix; the longest first.
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
}

impl Topology {
    /// The same lookup as [`Topology::lookup`], with its reasons.
    pub fn explain(&self, from: Entry, destination: IpAddr) -> Explanation {
        let table = self.table(self.table_for(from));
        let mut candidates = table.candidates(destination).into_iter();
        let route = candidates.next();
        let passed_over: Vec<_> = candidates.map(|route| self.route_line(&route)).collect();
        let next_hop = self.lookup(from, destination);
        Explanation {
            at: self.entry_name(from),
            destination,
            table: table.name().to_owned(),
            route: route.map(|route| self.route_line(&route)),
            reason: self.reason(table, route, passed_over.len(), destination, next_hop),
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
        };
        RouteLine { destination: route.destination, target, origin: route.origin }
    }

    /// A place as it is written: `internet_gateway:NAME`, `subnet:NAME` or `endpoint:NAME`.
    pub fn entry_name(&self, entry: Entry) -> String {
        match entry {
            Entry::InternetGateway(id) => format!("internet_gateway:{}", self.gateway(id).name),
            Entry::Subnet(id) => format!("subnet:{}", self.subnet(id).name),
            Entry::Endpoint(id) => format!("endpoint:{}", self.endpoint(id).name),
        }
    }

    /// A next hop as it is written: a place, or the name of the end.
    pub fn next_hop_name(&self, next_hop: NextHop) -> String {
        match next_hop {
            NextHop::Deliver(attachment) => self.entry_name(attachment.into()),
            NextHop::Endpoint(id) => self.entry_name(Entry::Endpoint(id)),
            NextHop::Blackhole => "blackhole".to_owned(),
            NextHop::NoRoute => "no_route".to_owned(),
            NextHop::Loop => "loop".to_owned(),
            NextHop::NoSubnet => "no_subnet".to_owned(),
        }
    }

    fn reason(
        &self,
        table: &RouteTable,
        route: Option<Route>,
        beaten: usize,
        destination: IpAddr,
        next_hop: NextHop,
    ) -> String {
        let Some(route) = route else {
            return format!("no route of table {} has {destination}", table.name());
        };
        let destination_net = route.destination;
        let won = match beaten {
            0 => format!("{destination_net} is the only route that has {destination}"),
            n => {
                let all = n + 1;
                format!(
                    "{destination_net} is the longest of {all} prefixes that have {destination}"
                )
            }
        };
        let then = match next_hop {
            NextHop::Deliver(Attachment::InternetGateway(_)) => {
                "it leads to the internet".to_owned()
            }
            NextHop::Deliver(Attachment::Subnet(id)) => {
                format!("it is local, and subnet {} holds the address", self.subnet(id).name)
            }
            NextHop::Endpoint(id) => {
                format!("it leads to be inspected by {}", self.endpoint(id).service)
            }
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
