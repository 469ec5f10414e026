//! Faults in words, with the packet that shows each.

use super::collect::{Cause, Draft, Fate, Flow};
use super::judge::Judge;
use super::space::say;
use super::walks::{Choices, Point};
use super::{Choice, Finding, Hop, Packet};
use crate::trace::{self, Inspection, Passage, Side};
use crate::{EndpointId, Entry, SubnetId};

/// A list is cut after so many names.
const MOST_NAMES: usize = 8;

impl Judge<'_> {
    /// The finding that a fault makes.
    pub fn finding(&self, draft: &Draft) -> Finding {
        let flows = draft.flows(self.topology, &self.classes);
        let names = |places: &mut dyn Iterator<Item = Entry>| {
            let mut names: Vec<String> =
                places.map(|place| self.topology.entry_name(place)).collect();
            names.sort();
            names.dedup();
            names
        };
        let mut from = names(&mut draft.flows.keys().map(|(from, _)| *from));
        let to = names(&mut draft.flows.keys().filter_map(|(_, to)| *to));
        if from.is_empty() {
            from = self.concerned(&draft.cause);
        }
        let mut finding = Finding {
            kind: draft.cause.kind(),
            severity: draft.severity,
            text: String::new(),
            addresses: Draft::addresses(&flows),
            from,
            to,
            flows,
            counter_example: None,
            path: Vec::new(),
            way_back: Vec::new(),
            help: String::new(),
        };
        if let Some(flow) = &draft.example {
            self.show(flow, &mut finding);
        }
        finding.text = self.text(draft, &finding);
        finding.help = self.help(draft, &finding);
        finding
    }

    /// What a fault is about that is about no packets.
    fn concerned(&self, cause: &Cause) -> Vec<String> {
        let topology = self.topology;
        match cause {
            Cause::Unused { endpoint } => vec![topology.entry_name(Entry::Endpoint(*endpoint))],
            Cause::SharedSubnet { subnet } => vec![topology.entry_name(Entry::Subnet(*subnet))],
            Cause::ImplicitMain { vpc } => topology
                .subnets()
                .filter(|(_, it)| it.vpc == *vpc && topology.table(it.table).is_implicit())
                .map(|(id, _)| topology.entry_name(Entry::Subnet(id)))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The packet of a flow, its way, and that of the answer if it matters.
    fn show(&self, flow: &Flow, finding: &mut Finding) {
        let source = self.classes.get(flow.source).address;
        let destination = self.classes.get(flow.destination).address;
        let packet = trace::Packet { source: Some(source), ..trace::Packet::to(destination) };
        let trace = self.topology.trace_packet(flow.from, &packet, &flow.choices);
        finding.path = trace.hops.iter().map(Hop::of).collect();
        if flow.with_answer {
            let answer = self.topology.trace_answer(&trace, &flow.choices);
            finding.way_back = answer.iter().flat_map(|answer| &answer.hops).map(Hop::of).collect();
        }
        let from = self.topology.entry_name(flow.from);
        let choices = self.choices(&flow.choices);
        finding.counter_example = Some(Packet { from, source, destination, choices });
    }

    fn choices(&self, choices: &Choices) -> Vec<Choice> {
        let topology = self.topology;
        let name = |(point, index)| match point {
            Point::Zone(id) => {
                let attachment = topology.transit_attachment(id);
                let subnet = attachment.subnets[index];
                Choice {
                    at: format!("transit_gateway_attachment:{}", attachment.name),
                    takes: topology.entry_name(Entry::Subnet(subnet)),
                    index,
                }
            }
            Point::Member(id) => {
                let group = topology.endpoint_group(id);
                Choice {
                    at: format!("endpoint_group:{}", group.name),
                    takes: topology.entry_name(Entry::Endpoint(group.members[index].0)),
                    index,
                }
            }
        };
        choices.iter().map(name).collect()
    }

    fn text(&self, draft: &Draft, finding: &Finding) -> String {
        let topology = self.topology;
        let (from, to) = (list(&finding.from), list(&finding.to));
        let addresses = say(&finding.addresses);
        let first = passed(&finding.path);
        let back = passed(&finding.way_back);
        match &draft.cause {
            Cause::Ingress { ipv6_only, .. } => {
                let (ipv6, though) = ipv6_words(*ipv6_only);
                format!(
                    "{ipv6}packets from {from} reach {to} ({addresses}) without passing an endpoint{though}"
                )
            }
            Cause::Egress { ipv6_only, .. } => {
                let (ipv6, though) = ipv6_words(*ipv6_only);
                format!(
                    "{ipv6}packets from {from} leave by {to} without passing an endpoint{though}"
                )
            }
            Cause::Intent { index } => {
                let service = topology.intents()[*index].inspected_by.as_deref().unwrap_or("");
                let number = index + 1;
                format!(
                    "packets from {from} to {to} ({addresses}) pass no endpoint of service {service}, as intent {number} asks"
                )
            }
            Cause::SharedSubnet { .. } if finding.path.is_empty() => {
                format!("an application shares {from} with an endpoint")
            }
            Cause::SharedSubnet { subnet } => {
                let place = topology.entry_name(Entry::Subnet(*subnet));
                format!(
                    "an application shares {place} with an endpoint, and not all of its packets pass one"
                )
            }
            Cause::OneWay { answers: true, .. } => {
                format!(
                    "packets from {from} to {to} pass {first}, but the answers pass no endpoint"
                )
            }
            Cause::OneWay { answers: false, .. } => {
                format!("packets from {from} to {to} pass no endpoint, but the answers pass {back}")
            }
            Cause::Different { .. } => {
                format!("packets from {from} to {to} pass {first}, but the answers pass {back}")
            }
            Cause::ApplianceMode { attachment } => {
                let name = &topology.transit_attachment(*attachment).name;
                format!(
                    "packets from {from} to {to} pass {first}, but the answers pass {back}: transit_gateway_attachment:{name} has no appliance mode, so each direction stays in the zone that it comes from"
                )
            }
            Cause::Circle { hops } => {
                let mut names: Vec<String> =
                    hops.iter().map(|hop| topology.entry_name(*hop)).collect();
                names.extend(names.first().cloned());
                format!("packets from {from} to {addresses} circle: {}", names.join(" -> "))
            }
            Cause::LostAfter { at, reason } => {
                let (at, reason) = (topology.entry_name(*at), topology.next_hop_name(*reason));
                format!(
                    "packets from {from} to {addresses} are inspected, and then lost at {at}: {reason}"
                )
            }
            Cause::LostReturn { at, fate } => {
                let at = topology.entry_name(*at);
                let end = match fate {
                    Fate::Lost(reason) => {
                        format!("lost at {at}: {}", topology.next_hop_name(*reason))
                    }
                    Fate::Circles => "circle".to_owned(),
                    Fate::Astray(place) | Fate::Unknown(place) => {
                        format!("delivered to {} instead", topology.entry_name(*place))
                    }
                    Fate::Translated(id) => {
                        let nat = topology.entry_name(Entry::Interface(*id));
                        format!("no answers any more: {nat} gives them its own address")
                    }
                };
                format!("packets from {from} reach {to}, but the answers are {end}")
            }
            Cause::EgressOnly { .. } => {
                format!("IPv6 packets from {from} come from {first} to {to}, which drops them")
            }
            Cause::Blackhole { table, route } => {
                let table = topology.table(*table).name();
                format!(
                    "route {route} of table {table} is a blackhole, and packets between {from} and {} meet it",
                    if to.is_empty() { &addresses } else { &to }
                )
            }
            Cause::Crossing { endpoint, .. } => {
                let zone = &topology.endpoint(*endpoint).zone;
                let name = topology.entry_name(Entry::Endpoint(*endpoint));
                format!(
                    "packets between {from} and {to} pass {name} of zone {zone}, though its service has an endpoint in their own zone"
                )
            }
            Cause::ImplicitMain { vpc } => {
                let vpc = &topology.vpc(*vpc).name;
                let has = if finding.from.len() == 1 { "names" } else { "name" };
                format!(
                    "{from} {has} no table, and VPC {vpc} has no main table in the file: nothing but local routes"
                )
            }
            Cause::Unused { .. } => format!("no route leads to {from}"),
            Cause::NotFollowed { to } => {
                let to = topology.entry_name(*to);
                format!(
                    "packets between {from} and {addresses} are handed to {to}; what becomes of them is not known here"
                )
            }
        }
    }

    fn help(&self, draft: &Draft, finding: &Finding) -> String {
        let topology = self.topology;
        let addresses = say(&finding.addresses);
        match &draft.cause {
            Cause::Ingress { gateway, .. } => {
                let table = topology.table(topology.table_for(*gateway));
                let gateway = topology.entry_name(*gateway);
                let endpoints = self.near(draft);
                if table.is_implicit() {
                    format!("give {gateway} a gateway table with a route for {addresses} to {endpoints}")
                } else {
                    format!("in table {}, lead {addresses} to {endpoints}", table.name())
                }
            }
            Cause::Egress { table, .. } => {
                let endpoints = self.near(draft);
                let route = finding.path.first().and_then(|hop| hop.route.clone());
                let route = route.map_or(String::new(), |route| format!(" in place of {route}"));
                format!("in table {}, lead these packets to {endpoints}{route}", topology.table(*table).name())
            }
            Cause::Intent { .. } => {
                let hop = finding.path.first();
                let table = hop.map_or("", |hop| &hop.table);
                format!("lead them to an endpoint of that service: table {table} decides first")
            }
            Cause::SharedSubnet { .. } => {
                "put the endpoint into a subnet of its own: one table cannot lead to the endpoint and \
                 away from it (semantics 1d)".to_owned()
            }
            Cause::OneWay { table, .. } => {
                let name = topology.table(*table).name();
                let endpoints = if passed(&finding.path).is_empty() {
                    passed(&finding.way_back)
                } else {
                    passed(&finding.path)
                };
                format!("table {name} leads them past inspection: give it a route to {endpoints} for them, or inspect neither direction")
            }
            Cause::Different { .. } => {
                "lead both directions to the same endpoint: no appliance sees both otherwise".to_owned()
            }
            Cause::ApplianceMode { attachment } => {
                let name = &topology.transit_attachment(*attachment).name;
                format!("set appliance_mode = true for transit_gateway_attachment:{name}")
            }
            Cause::Circle { .. } => {
                let hop = finding.path.last();
                let (table, route) =
                    hop.map_or(("", ""), |hop| (&hop.table, hop.route.as_deref().unwrap_or("")));
                format!("the table of an endpoint's subnet leads on to where packets go, not back: see {route} of table {table}")
            }
            Cause::LostAfter { at, .. } | Cause::LostReturn { at, fate: Fate::Lost(_) } => {
                let table = topology.table(topology.table_for(*at)).name();
                let hop = finding.way_back.last().or(finding.path.last());
                match hop {
                    Some(Hop { next, destination, .. }) if next == "no_route" => {
                        format!("table {table}, or that of the transit gateway that it leads to, needs a route that has {destination}")
                    }
                    Some(Hop { route: Some(route), .. }) => {
                        format!("replace {route} of table {table}")
                    }
                    _ => format!("see table {table}"),
                }
            }
            Cause::LostReturn { at, .. } => {
                let table = topology.table(topology.table_for(*at)).name();
                format!("lead answers back the way that the packets came: table {table} decides last")
            }
            Cause::EgressOnly { .. } => {
                "lead inspected IPv6 to an internet gateway: an egress-only internet gateway does not \
                 work behind an endpoint (semantics 1c)".to_owned()
            }
            Cause::Blackhole { table, route } => {
                format!("remove {route} from table {}, or lead it where it belongs", topology.table(*table).name())
            }
            Cause::Crossing { table, endpoint } => {
                let others = self.siblings(*endpoint, draft);
                format!("in table {}, and for the way back, lead to {others}: traffic between zones costs more and fails with either", topology.table(*table).name())
            }
            Cause::ImplicitMain { .. } => {
                "name a route_table for each subnet, or make one the main table (main = true)".to_owned()
            }
            Cause::Unused { .. } => "lead packets to it, or remove it".to_owned(),
            Cause::NotFollowed { .. } => {
                "inspection on these ways is not proven; an intent with uninspected = true silences \
                 what goes to subnets".to_owned()
            }
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
        let of_vpc = |(_, endpoint): &(EndpointId, &crate::Endpoint)| {
            subnets.iter().any(|id| vpc(*id) == vpc(endpoint.subnet))
        };
        let near = |(_, endpoint): &(EndpointId, &crate::Endpoint)| {
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

fn ipv6_words(ipv6_only: bool) -> (&'static str, &'static str) {
    if ipv6_only { ("IPv6 ", ", though IPv4 packets pass one") } else { ("", "") }
}

/// The endpoints that a way passes.
fn passed(way: &[Hop]) -> String {
    let at: Vec<String> =
        way.iter().map(|hop| &hop.at).filter(|at| at.starts_with("endpoint:")).cloned().collect();
    list(&at)
}

fn list(names: &[String]) -> String {
    match names.len().saturating_sub(MOST_NAMES) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..MOST_NAMES].join(", ")),
    }
}

impl Hop {
    fn of(hop: &trace::Hop) -> Hop {
        let lookup = &hop.lookup;
        let next = match &hop.passage {
            Some(Passage::Inspected { endpoint, group: Some(group), .. }) => {
                format!("endpoint:{endpoint} of endpoint_group:{group}")
            }
            Some(Passage::Transit { transit_gateway, subnet, .. }) => {
                format!("transit_gateway:{transit_gateway} -> subnet:{subnet}")
            }
            _ => lookup.next.clone(),
        };
        let translated = match &hop.passage {
            Some(Passage::Translated { nat_gateway, side, address }) => {
                let side = match side {
                    Side::Source => "source",
                    Side::Destination => "destination",
                };
                Some(format!("nat_gateway:{nat_gateway} makes its {side} {address}"))
            }
            _ => None,
        };
        Hop {
            at: lookup.at.clone(),
            destination: lookup.destination,
            table: lookup.table.clone(),
            route: lookup.route.as_ref().map(ToString::to_string),
            next,
            translated,
        }
    }
}

/// A flow for which all is chosen that is asked for.
impl Inspection for Choices {
    fn choose(&self, _: EndpointId, _: &trace::Packet) -> Option<trace::Chosen> {
        None
    }
}
