//! What would help against a fault.

use super::Finding;
use super::collect::{Cause, Draft, Fate, Spot};
use super::judge::Judge;
use super::words::{list, passed};
use crate::space::say;
use crate::{Endpoint, EndpointId, Entry, NextHop, SubnetId};

impl Judge<'_> {
    /// What would help.
    pub fn help(&self, draft: &Draft, finding: &Finding) -> String {
        let topology = self.topology;
        let addresses = say(&finding.addresses);
        match &draft.cause {
            Cause::Ingress { gateway, .. } => {
                let table = topology.table(topology.table_for(*gateway));
                let gateway = topology.entry_name(*gateway);
                let endpoints = self.near(draft);
                if table.is_implicit() {
                    format!(
                        "give {gateway} a gateway table with a route for {addresses} to {endpoints}"
                    )
                } else {
                    format!("in table {}, lead {addresses} to {endpoints}", table.name())
                }
            }
            Cause::Egress { table, .. } => {
                let endpoints = self.near(draft);
                let route = finding.path.first().and_then(|hop| hop.route.clone());
                let route = route.map_or(String::new(), |route| format!(" in place of {route}"));
                format!(
                    "in table {}, lead these packets to {endpoints}{route}",
                    topology.table(*table).name()
                )
            }
            Cause::Intent { .. } => {
                let hop = finding.path.first();
                let table = hop.map_or("", |hop| &hop.table);
                format!("lead them to an endpoint of that service: table {table} decides first")
            }
            Cause::SharedSubnet { .. } => {
                "put the endpoint into a subnet of its own: one table cannot lead to the endpoint \
                 and away from it (semantics 1d)"
                    .to_owned()
            }
            Cause::OneWay { table, answers } => {
                let (past, through) = if *answers {
                    (&finding.way_back, passed(&finding.path))
                } else {
                    (&finding.path, passed(&finding.way_back))
                };
                let name = topology.table(*table).name();
                let transit = past.iter().find(|hop| hop.next.starts_with("transit_gateway:"));
                match transit {
                    Some(hop) => format!(
                        "table {name} and the table of {} lead them past inspection: lead them to \
                         {through}, or inspect neither direction",
                        hop.next.split(" -> ").next().unwrap_or_default()
                    ),
                    None => format!(
                        "table {name} leads them past inspection: give it a route to {through} \
                         for them, or inspect neither direction"
                    ),
                }
            }
            Cause::Different { .. } => {
                "lead both directions to the same endpoint: no appliance sees both otherwise"
                    .to_owned()
            }
            Cause::ApplianceMode { attachment } => {
                let name = &topology.transit_attachment(*attachment).name;
                format!("set appliance_mode = true for transit_gateway_attachment:{name}")
            }
            Cause::Circle { hops, .. } => help_for_circle(hops, finding),
            Cause::LostAfter { at, reason }
            | Cause::LostBehindGateway { at, reason }
            | Cause::LostReturn { at, fate: Fate::Lost(reason) } => {
                self.help_for_loss(*at, *reason, finding)
            }
            Cause::LostReturn { .. } => {
                let astray = finding.way_back.iter().find(|hop| hop.translated.is_some());
                let hop = astray.or(finding.way_back.last());
                let (table, route) =
                    hop.map_or(("", ""), |hop| (&hop.table, hop.route.as_deref().unwrap_or("")));
                format!(
                    "lead answers back the way that the packets came: see {route} of table {table}"
                )
            }
            Cause::EgressOnly { .. } => {
                "lead inspected IPv6 to an internet gateway: an egress-only internet gateway does \
                 not work behind an endpoint (semantics 1c)"
                    .to_owned()
            }
            Cause::Blackhole { table, route } => {
                format!(
                    "remove {route} from table {}, or lead it where it belongs",
                    topology.table(*table).name()
                )
            }
            Cause::Crossing { table, endpoint } => {
                let others = self.siblings(*endpoint, draft);
                format!(
                    "in table {}, and for the way back, lead to {others}: traffic between zones \
                     costs more and fails with either",
                    topology.table(*table).name()
                )
            }
            Cause::ImplicitMain { .. } => {
                "name a route_table for each subnet, or make one the main table (main = true)"
                    .to_owned()
            }
            Cause::Unused { .. } => "lead packets to it, or remove it".to_owned(),
            Cause::NotFollowed { .. } => {
                "the proof ends there; if that is meant, say so: [[intent]] with uninspected = true"
                    .to_owned()
            }
        }
    }

    fn help_for_loss(&self, at: Spot, reason: NextHop, finding: &Finding) -> String {
        let hop = finding.way_back.last().or(finding.path.last());
        let Some(hop) = hop else { return String::new() };
        if let (Spot::Entry(entry), NextHop::NoRoute, Some(route)) = (at, reason, &hop.route) {
            // There is a route, to a transit gateway that the zone has no way to.
            let zone = self.topology.zone(entry).unwrap_or_default();
            return format!(
                "{route} is of no use in zone {zone}: give the VPC's attachment a subnet there"
            );
        }
        let (table, route) = match at {
            Spot::Entry(_) => (format!("table {}", hop.table), hop.route.clone()),
            Spot::Transit(id) => {
                let table = self.topology.transit_table(id);
                let route = table.route(hop.destination);
                let route = route.map(|(destination, _)| format!("{destination} -> blackhole"));
                (format!("transit gateway route table {}", table.name), route)
            }
        };
        match (reason, route) {
            (NextHop::NoRoute, _) | (_, None) => {
                format!("{table} needs a route that has {}", hop.destination)
            }
            (NextHop::NoSubnet, Some(route)) => {
                format!("{route} of {table} leads into a VPC where nobody has {}", hop.destination)
            }
            (_, Some(route)) => format!("replace {route} of {table}"),
        }
    }

    /// The endpoints to lead packets of a finding to: those in the zones of its subnets, or any of
    /// the VPC.
    fn near(&self, draft: &Draft) -> String {
        let topology = self.topology;
        let ends = draft.flows.keys().flat_map(|(from, to)| [Some(*from), *to]).flatten();
        let subnets: Vec<SubnetId> = ends
            .filter_map(|end| match end {
                Entry::Subnet(id) => Some(id),
                _ => None,
            })
            .collect();
        let vpc = |id: SubnetId| topology.subnet(id).vpc;
        let of_vpc = |(_, endpoint): &(EndpointId, &Endpoint)| {
            subnets.iter().any(|id| vpc(*id) == vpc(endpoint.subnet))
        };
        let near = |(_, endpoint): &(EndpointId, &Endpoint)| {
            subnets.iter().any(|id| topology.subnet(*id).zone == endpoint.zone)
        };
        let all: Vec<_> = topology.endpoints().filter(of_vpc).collect();
        let mut found: Vec<_> = all.iter().copied().filter(near).collect();
        if found.is_empty() {
            found = all;
        }
        let names: Vec<String> =
            found.iter().map(|(id, _)| topology.entry_name(Entry::Endpoint(*id))).collect();
        match names.as_slice() {
            [] => "an endpoint".to_owned(),
            [one] => one.clone(),
            _ => format!("the endpoint of the same zone ({})", list(&names)),
        }
    }

    /// The endpoints of the same service in the zones of a finding's subnets.
    fn siblings(&self, endpoint: EndpointId, draft: &Draft) -> String {
        let topology = self.topology;
        let service = &topology.endpoint(endpoint).service;
        let ends = draft.flows.keys().flat_map(|(from, to)| [Some(*from), *to]).flatten();
        let zones: Vec<&str> = ends.filter_map(|end| topology.zone(end)).collect();
        let names: Vec<String> = topology
            .endpoints()
            .filter(|(_, it)| it.service == *service && zones.contains(&it.zone.as_str()))
            .map(|(id, _)| topology.entry_name(Entry::Endpoint(id)))
            .collect();
        list(&names)
    }
}

/// By what is in the circle: one of its tables leads back.
fn help_for_circle(circle: &[Entry], finding: &Finding) -> String {
    let is_in = |kind: fn(&Entry) -> bool| circle.iter().any(kind);
    let whose = if is_in(|hop| matches!(hop, Entry::Endpoint(_))) {
        "the table of an endpoint's subnet leads"
    } else if is_in(|hop| matches!(hop, Entry::Interface(_))) {
        "the table of a NAT gateway's subnet leads"
    } else {
        "the table of a subnet that a transit gateway is attached to leads"
    };
    let way = if finding.way_back.is_empty() { &finding.path } else { &finding.way_back };
    let mut see: Vec<String> = Vec::new();
    // The way ends where it would come to a hop again.
    for hop in way.iter().rev().take(circle.len()).rev() {
        let route = hop.route.as_deref().unwrap_or("no route");
        see.push(format!("{route} of table {}", hop.table));
    }
    see.dedup();
    format!("{whose} on to where packets go, not back: see {}", see.join(", and "))
}
