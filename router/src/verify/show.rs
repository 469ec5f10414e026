//! The finding that a fault makes: its packets, and one of them with its way.

use super::collect::{Cause, Draft, Flow, Spot};
use super::judge::Judge;
use super::walks::{Choices, Point};
use super::{Choice, Finding, Hop, Packet};
use crate::trace::{self, Inspection, Passage, Side, Trace};
use crate::{EndpointId, Entry, NextHop};

impl Judge<'_> {
    /// The finding that a fault makes.
    pub fn finding(&self, draft: &Draft) -> Finding {
        let flows = draft.flows(self.topology, &self.classes);
        let mut from = self.names(draft.flows.keys().map(|(from, _)| *from));
        let to = self.names(draft.flows.keys().filter_map(|(_, to)| *to));
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
        finding.path = self.way(&trace);
        if flow.with_answer
            && let Some(answer) = self.topology.trace_answer(&trace, &flow.choices)
        {
            finding.way_back = self.way(&answer);
        }
        let from = self.topology.entry_name(flow.from);
        let choices = self.choices(&flow.choices);
        finding.counter_example = Some(Packet { from, source, destination, choices });
    }

    fn way(&self, trace: &Trace) -> Vec<Hop> {
        let mut hops: Vec<Hop> = trace.hops.iter().map(Hop::of).collect();
        // A transit gateway can lose packets, too.
        if let (Some(last), Some(hop)) = (trace.hops.last(), hops.last_mut())
            && matches!(last.lookup.next_hop, NextHop::Transit(_))
            && !trace.delivered
        {
            hop.next = format!("{} -> {}", hop.next, self.topology.next_hop_name(trace.outcome));
        }
        hops
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

    /// The names of places, each once, in order.
    pub fn names(&self, places: impl Iterator<Item = Entry>) -> Vec<String> {
        let mut names: Vec<String> = places.map(|it| self.topology.entry_name(it)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whose table it is, in words.
    pub fn spot_name(&self, spot: Spot) -> String {
        match spot {
            Spot::Entry(entry) => self.topology.entry_name(entry),
            Spot::Transit(table) => {
                format!("transit_gateway_route_table:{}", self.topology.transit_table(table).name)
            }
        }
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
