//! The whole way of a packet through the tables, from where it enters to where it leaves, and the
//! way of its answer.
//!
//! Appliances are taken to give back what they get: what they do with it is not the router's. Which
//! of them a packet comes to, only the balancer knows: it is asked through [`Inspection`].

mod packet;
mod picture;
mod text;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::topology::{
    Attachment, Choose, EndpointGroup, EndpointId, Entry, Explanation, Fixed, GroupId, InterfaceId,
    NextHop, Step, Topology, TransitAttachmentId, TransitTarget,
};

pub use packet::{Packet, Protocol, UnknownProtocol};
pub use picture::Picture;

/// The way of a packet, hop by hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Trace {
    /// Where it enters, as `kind:name`.
    pub from: String,
    /// The address that it is for.
    pub to: IpAddr,
    /// The packet, as far as it was given.
    pub packet: Packet,
    /// The private address that the internet gateway turns a public one into, before the gateway
    /// table is asked.
    pub translated: Option<IpAddr>,
    /// Each lookup on the way; never empty.
    pub hops: Vec<Hop>,
    /// The source address that it leaves with, where an internet gateway or a NAT gateway has
    /// changed it.
    pub source_translated: Option<IpAddr>,
    /// Whether it leaves the router.
    pub delivered: bool,
    /// Where it leaves, or the name of the drop.
    pub end: String,
    /// The way of the answer, if it was asked for and there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back: Option<Box<Trace>>,
    /// The same as `end`, as the last lookup answered it.
    #[serde(skip)]
    #[schemars(skip)]
    pub outcome: NextHop,
    /// The endpoints that it passes, in order.
    #[serde(skip)]
    #[schemars(skip)]
    pub endpoints: Vec<EndpointId>,
    /// The NAT gateways that it passes, each with the source that it came with.
    #[serde(skip)]
    #[schemars(skip)]
    sources: Vec<(InterfaceId, IpAddr)>,
}

/// One lookup, and what happens before the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Hop {
    /// The lookup.
    #[serde(flatten)]
    pub lookup: Explanation,
    /// What the packet passes then; nothing where it leaves or is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passage: Option<Passage>,
}

/// What a packet passes between two lookups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Passage {
    /// An appliance.
    Inspected {
        /// The endpoint.
        endpoint: String,
        /// The service that it connects to.
        service: String,
        /// Its zone.
        zone: String,
        /// The group that it was chosen from, if the route leads to one.
        #[serde(skip_serializing_if = "Option::is_none")]
        group: Option<String>,
        /// The appliance, where a balancer was asked.
        #[serde(skip_serializing_if = "Option::is_none")]
        target: Option<Chosen>,
    },
    /// A transit gateway.
    Transit {
        /// Its name.
        transit_gateway: String,
        /// Its table that decides.
        table: String,
        /// The destination of the route that wins there.
        route: String,
        /// The attachment that the packet leaves by.
        attachment: String,
        /// The zone in which it comes out.
        zone: String,
        /// Whether the flow decided on the zone, as appliance mode has it.
        appliance_mode: bool,
        /// The subnet in which it comes out, whose table is asked next.
        subnet: String,
    },
    /// A transit gateway, in which it is lost.
    LostInTransit {
        /// Its name.
        transit_gateway: String,
        /// Its table for what comes from the VPC.
        table: String,
        /// Why, in one sentence.
        why: String,
    },
    /// A NAT gateway.
    Translated {
        /// Its name.
        nat_gateway: String,
        /// Which address it changes.
        side: Side,
        /// What it is from there on.
        address: IpAddr,
    },
}

/// One of a packet's two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Where it comes from, on the way out.
    Source,
    /// Where it goes, on the way back.
    Destination,
}

/// The appliance that a balancer chooses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Chosen {
    /// The load balancer.
    pub load_balancer: String,
    /// The target, as `address:port`; `None` if there is none for it.
    pub target: Option<String>,
    /// Why this one, or why none, in one sentence.
    pub why: String,
}

/// What the balancer knows of packets that come to endpoints.
pub trait Inspection: Choose {
    /// The target that a new flow of this packet would get at an endpoint.
    fn choose(&self, endpoint: EndpointId, packet: &Packet) -> Option<Chosen>;
}

/// Where there is no balancer to ask: the first zone and the first member are taken.
impl Inspection for Fixed {
    fn choose(&self, _: EndpointId, _: &Packet) -> Option<Chosen> {
        None
    }
}

impl Topology {
    /// Follows a packet for this address from where it enters until it leaves or is dropped.
    pub fn trace(&self, from: Entry, to: IpAddr) -> Trace {
        let usual = ByZone { topology: self, zone: None };
        self.trace_packet(from, &Packet::to(to), &usual)
    }

    /// The same for a packet of which more is known, asking this balancer.
    pub fn trace_packet(
        &self,
        from: Entry,
        packet: &Packet,
        inspection: &impl Inspection,
    ) -> Trace {
        let translated = self.translated(from, packet.destination);
        let mut way = Way::of(self.inside(from, packet));
        let mut at = from;
        let outcome = loop {
            match self.pass(&mut way, at, inspection) {
                Ok(onward) => at = onward,
                Err(outcome) => break outcome,
            }
        };
        self.finish(from, packet, translated, way, outcome)
    }

    /// The way of the answer to a packet that was delivered. `None` if it was not, or if its source
    /// is not known.
    pub fn trace_answer(&self, trace: &Trace, inspection: &impl Inspection) -> Option<Trace> {
        let NextHop::Deliver(attachment) = trace.outcome else { return None };
        let seen = trace.source_translated.or(trace.packet.source)?;
        let from = Entry::from(attachment);
        // Each side answers to the addresses that it saw.
        let answer = Packet {
            source: Some(trace.translated.unwrap_or(trace.packet.destination)),
            destination: seen,
            ..trace.packet.reversed()
        };
        let translated = self.translated(from, seen);
        let mut way = Way::of(self.inside(from, &answer));
        let mut behind: Vec<(InterfaceId, IpAddr)> = trace.sources.clone();
        let mut at = from;
        let outcome = loop {
            match self.pass(&mut way, at, inspection) {
                Ok(onward) => at = onward,
                // The answer has come to the NAT gateway, which knows whose it is.
                Err(NextHop::Deliver(Attachment::Interface(id)))
                    if behind.last().is_some_and(|(nat, _)| *nat == id) =>
                {
                    let Some((_, source)) = behind.pop() else { break NextHop::Loop };
                    let passage = Passage::Translated {
                        nat_gateway: self.interface(id).name.clone(),
                        side: Side::Destination,
                        address: source,
                    };
                    way.turn(source, passage);
                    at = Entry::Interface(id);
                }
                Err(outcome) => break outcome,
            }
        };
        Some(self.finish(from, &answer, translated, way, outcome))
    }

    /// An address from which packets that enter here may come, for an example; of the family of
    /// another address.
    pub fn likely_source(&self, from: Entry, like: IpAddr) -> Option<IpAddr> {
        let of_family = |address: &IpAddr| address.is_ipv4() == like.is_ipv4();
        // Behind those that a cloud keeps for itself, if the range has so many.
        let within = |net: &ipnet::IpNet| {
            let mut hosts = Some(net).filter(|net| of_family(&net.addr()))?.hosts();
            let first = hosts.next()?;
            hosts.nth(8).or(Some(first))
        };
        match from {
            Entry::Subnet(id) => self.subnet(id).cidrs.iter().find_map(within),
            Entry::Endpoint(id) => self.endpoint(id).addresses.iter().copied().find(of_family),
            Entry::Interface(id) => self.interface(id).addresses.iter().copied().find(of_family),
            Entry::Edge(id) => {
                let learned = self.edge(id).learned.iter();
                learned.map(|(net, _)| net).find_map(within).or_else(|| outside(like))
            }
            Entry::InternetGateway(_) => outside(like),
        }
    }

    /// One lookup, and what the packet passes then: where it goes on, or how it ends.
    fn pass(
        &self,
        way: &mut Way,
        at: Entry,
        inspection: &impl Inspection,
    ) -> Result<Entry, NextHop> {
        let destination = way.packet.destination;
        let lookup = self.explain(at, destination);
        let next_hop = lookup.next_hop;
        let step = self.after(at, next_hop, destination, inspection);
        let lost = match (step, next_hop) {
            (Step::Lost(_), NextHop::Transit(from)) => {
                Some(self.lost_in_transit(at, from, destination))
            }
            _ => None,
        };
        let again = matches!(step, Step::Onward(onward) if way.visited.contains(&onward));
        let passage = match step {
            Step::Onward(onward) if !again => {
                Some(self.passage(way, at, next_hop, onward, inspection))
            }
            _ => lost,
        };
        way.hops.push(Hop { lookup, passage });
        match step {
            Step::Onward(_) if again => Err(NextHop::Loop),
            Step::Onward(onward) => {
                way.visited.push(onward);
                Ok(onward)
            }
            Step::Out(attachment) => Err(NextHop::Deliver(attachment)),
            Step::Lost(lost) => Err(lost),
        }
    }

    fn passage(
        &self,
        way: &mut Way,
        at: Entry,
        next_hop: NextHop,
        onward: Entry,
        inspection: &impl Inspection,
    ) -> Passage {
        match (next_hop, onward) {
            (_, Entry::Endpoint(id)) => {
                way.endpoints.push(id);
                let endpoint = self.endpoint(id);
                Passage::Inspected {
                    endpoint: endpoint.name.clone(),
                    service: endpoint.service.clone(),
                    zone: endpoint.zone.clone(),
                    group: self.group_of(next_hop),
                    target: inspection.choose(id, &way.packet),
                }
            }
            (NextHop::Transit(from), Entry::Subnet(subnet)) => {
                self.transit_passage(from, subnet, way.packet.destination)
            }
            (_, Entry::Interface(id)) => {
                let interface = self.interface(id);
                let address = interface.addresses.first().copied();
                if let (Some(address), Some(source)) = (address, way.packet.source) {
                    way.sources.push((id, source));
                    way.packet.source = Some(address);
                }
                Passage::Translated {
                    nat_gateway: interface.name.clone(),
                    side: Side::Source,
                    address: address.unwrap_or(way.packet.destination),
                }
            }
            // Nothing else leads on; named by where it was.
            _ => Passage::Translated {
                nat_gateway: self.entry_name(at),
                side: Side::Source,
                address: way.packet.destination,
            },
        }
    }

    fn group_of(&self, next_hop: NextHop) -> Option<String> {
        let NextHop::EndpointGroup(id) = next_hop else { return None };
        Some(self.endpoint_group(id).name.clone())
    }

    fn transit_passage(
        &self,
        from: TransitAttachmentId,
        subnet: crate::SubnetId,
        destination: IpAddr,
    ) -> Passage {
        let attachment = self.transit_attachment(from);
        let table = self.transit_table(attachment.table);
        let route = table.route(destination);
        let to = route.and_then(|(_, target)| match target {
            TransitTarget::Attachment(to) => Some(self.transit_attachment(to)),
            TransitTarget::Blackhole => None,
        });
        let subnet = self.subnet(subnet);
        Passage::Transit {
            transit_gateway: self.transit_gateway(attachment.gateway).name.clone(),
            table: table.name.clone(),
            route: route.map_or(String::new(), |(destination, _)| destination.to_string()),
            attachment: to.map_or(String::new(), |to| to.name.clone()),
            zone: subnet.zone.clone(),
            appliance_mode: to.is_some_and(|to| to.appliance_mode),
            subnet: subnet.name.clone(),
        }
    }

    /// Why a packet does not come through a transit gateway.
    fn lost_in_transit(
        &self,
        at: Entry,
        from: TransitAttachmentId,
        destination: IpAddr,
    ) -> Passage {
        let attachment = self.transit_attachment(from);
        let table = self.transit_table(attachment.table);
        let why = match table.route(destination) {
            _ if !self.reaches_transit(at, from) => format!(
                "attachment {} has no subnet in zone {}, where the packet comes from",
                attachment.name,
                self.zone(at).unwrap_or_default()
            ),
            None => format!("no route of table {} has {destination}", table.name),
            Some((route, TransitTarget::Blackhole)) => {
                format!("{route} of table {} is a blackhole", table.name)
            }
            Some((route, TransitTarget::Attachment(_))) => {
                format!("{route} of table {} leads on, but nobody takes it", table.name)
            }
        };
        let transit_gateway = self.transit_gateway(attachment.gateway).name.clone();
        Passage::LostInTransit { transit_gateway, table: table.name.clone(), why }
    }

    fn finish(
        &self,
        from: Entry,
        packet: &Packet,
        translated: Option<IpAddr>,
        way: Way,
        outcome: NextHop,
    ) -> Trace {
        let mut source = way.packet.source;
        if let NextHop::Deliver(Attachment::InternetGateway(id)) = outcome {
            let mappings = &self.gateway(id).addresses;
            let public = mappings.iter().find(|mapping| Some(mapping.private) == source);
            source = public.map(|mapping| mapping.public).or(source);
        }
        Trace {
            from: self.entry_name(from),
            to: packet.destination,
            packet: packet.clone(),
            translated,
            hops: way.hops,
            source_translated: source.filter(|_| source != packet.source),
            delivered: matches!(outcome, NextHop::Deliver(_)),
            end: self.next_hop_name(outcome),
            back: None,
            outcome,
            endpoints: way.endpoints,
            sources: way.sources,
        }
    }

    /// A packet as it is looked up where it enters: with the private address that an internet gateway
    /// puts in the place of a public one.
    #[must_use]
    pub fn inside(&self, from: Entry, packet: &Packet) -> Packet {
        let destination = self.translated(from, packet.destination).unwrap_or(packet.destination);
        Packet { destination, ..packet.clone() }
    }

    /// The gateway table sees private addresses (semantics 1d: the lookup happens after DNAT).
    pub(crate) fn translated(&self, from: Entry, to: IpAddr) -> Option<IpAddr> {
        let Entry::InternetGateway(id) = from else { return None };
        let mapping = self.gateway(id).addresses.iter().find(|mapping| mapping.public == to)?;
        Some(mapping.private)
    }
}

/// A way as far as it was gone.
struct Way {
    /// As it is now.
    packet: Packet,
    hops: Vec<Hop>,
    endpoints: Vec<EndpointId>,
    sources: Vec<(InterfaceId, IpAddr)>,
    /// Where it was looked up with this destination: a second time is a circle.
    visited: Vec<Entry>,
}

impl Way {
    fn of(packet: Packet) -> Way {
        let (hops, endpoints, sources, visited) = Default::default();
        Way { packet, hops, endpoints, sources, visited }
    }

    /// Goes on towards another address.
    fn turn(&mut self, destination: IpAddr, passage: Passage) {
        self.packet.destination = destination;
        self.visited.clear();
        if let Some(hop) = self.hops.last_mut() {
            hop.passage = Some(passage);
        }
    }
}

/// An address of the internet that stands in no network (RFC 5737, RFC 3849).
fn outside(like: IpAddr) -> Option<IpAddr> {
    let text = if like.is_ipv4() { "203.0.113.7" } else { "2001:db8::7" };
    text.parse().ok()
}

/// A choice by name, for commands: which zone appliance mode takes, which member a group.
#[derive(Clone, Copy, Debug)]
pub struct ByZone<'a> {
    /// The topology whose zones are meant.
    pub topology: &'a Topology,
    /// The zone's name. Where there is none of this name, or `None` is asked for: the first zone, and
    /// the member that gets packets while all is well.
    pub zone: Option<&'a str>,
}

impl Choose for ByZone<'_> {
    fn zone(&self, attachment: TransitAttachmentId, _: usize) -> usize {
        let subnets = &self.topology.transit_attachment(attachment).subnets;
        let in_zone = |id: &crate::SubnetId| Some(&*self.topology.subnet(*id).zone) == self.zone;
        subnets.iter().position(in_zone).unwrap_or(0)
    }

    fn member(&self, group: GroupId, _: usize) -> usize {
        let EndpointGroup { members, disabled, .. } = self.topology.endpoint_group(group);
        let in_zone =
            |(id, _): &(EndpointId, u8)| Some(&*self.topology.endpoint(*id).zone) == self.zone;
        let usual = || {
            let all = members.iter().enumerate();
            // Of equal ones the first: the last that is not less, from the end on.
            let rank =
                |(_, (id, weight)): &(usize, &(EndpointId, u8))| (!disabled.contains(id), *weight);
            all.rev().max_by_key(rank).map_or(0, |(index, _)| index)
        };
        members.iter().position(in_zone).unwrap_or_else(usual)
    }
}

impl Inspection for ByZone<'_> {
    fn choose(&self, _: EndpointId, _: &Packet) -> Option<Chosen> {
        None
    }
}
