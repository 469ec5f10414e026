//! What the parts of a topology are to a proof: which subnets are places to protect, which VPCs
//! inspect, and what the intents say.

use std::collections::{HashMap, HashSet};

use super::NotPlace;
use super::classes::Class;
use crate::space::Family;
use crate::{
    Attachment, EdgeKind, Entry, Interface, InterfaceId, InterfaceKind, SubnetId, TableId, Target,
    Topology, VpcId,
};

/// What everything is, worked out once.
#[derive(Debug)]
pub(super) struct Roles {
    /// By subnet: whether machines are there.
    is_place: Vec<bool>,
    /// By subnet: whether machines are there, and an endpoint, too.
    is_shared: Vec<bool>,
    /// By VPC: whether it has an endpoint.
    inspects: Vec<bool>,
    /// By VPC: the transit gateways that it is attached to.
    transit: Vec<HashSet<usize>>,
    /// Between which nothing is asked.
    silent: HashSet<(Entry, Entry)>,
    /// Between which an intent asks for a service.
    demanded: HashSet<(Entry, Entry)>,
}

/// Where a packet ends that has left the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// In a subnet with machines.
    Place(SubnetId),
    /// Out of the VPC.
    Outside(Entry),
    /// At a machine that it is not for, or at something opaque: what follows is not known.
    Unknown(Entry),
    /// In a subnet without machines, or at a NAT gateway itself.
    Nobody,
}

impl Roles {
    pub fn new(topology: &Topology) -> Roles {
        let subnets = topology.subnets().len();
        let mut inspects = vec![false; topology.vpcs().len()];
        let mut holds_endpoint = vec![false; subnets];
        for (_, endpoint) in topology.endpoints() {
            holds_endpoint[endpoint.subnet.index()] = true;
            inspects[topology.subnet(endpoint.subnet).vpc.index()] = true;
        }
        let machines = machines(topology, &holds_endpoint);
        let works = works(topology, &holds_endpoint);
        let (silent, demanded) = intents(topology);
        let mut transit = vec![HashSet::new(); topology.vpcs().len()];
        for (_, attachment) in topology.transit_attachments() {
            transit[attachment.vpc.index()].insert(attachment.gateway.index());
        }
        Roles {
            is_place: (0..subnets).map(|id| machines[id] || !works[id]).collect(),
            is_shared: (0..subnets).map(|id| machines[id] && holds_endpoint[id]).collect(),
            inspects,
            transit,
            silent,
            demanded,
        }
    }

    pub fn is_place(&self, subnet: SubnetId) -> bool {
        self.is_place[subnet.index()]
    }

    /// Whether it holds an endpoint and machines.
    pub fn is_shared(&self, place: Entry) -> Option<SubnetId> {
        let Entry::Subnet(id) = place else { return None };
        self.is_shared[id.index()].then_some(id)
    }

    pub fn inspects(&self, vpc: VpcId) -> bool {
        self.inspects[vpc.index()]
    }

    /// Whether packets may go from one VPC to the other at all.
    pub fn connected(&self, one: VpcId, other: VpcId) -> bool {
        one == other || !self.transit[one.index()].is_disjoint(&self.transit[other.index()])
    }

    /// Whether nothing is asked of a flow between two places.
    pub fn is_silent(&self, from: Entry, to: Entry) -> bool {
        self.silent.contains(&(from, to))
    }

    /// Whether an intent asks for what would be asked anyway.
    pub fn is_demanded(&self, from: Entry, to: Entry) -> bool {
        self.demanded.contains(&(from, to))
    }

    /// Where a packet ends. `own` is the interface that has its destination in the VPC it leaves in.
    pub fn arrival(
        &self,
        topology: &Topology,
        attachment: Attachment,
        own: impl Fn(VpcId) -> Option<InterfaceId>,
    ) -> Arrival {
        match attachment {
            Attachment::Subnet(id) if self.is_place(id) => Arrival::Place(id),
            Attachment::Subnet(_) => Arrival::Nobody,
            Attachment::Interface(id) => {
                let interface = topology.interface(id);
                let vpc = topology.subnet(interface.subnet).vpc;
                match (interface.kind, own(vpc) == Some(id)) {
                    (InterfaceKind::NetworkInterface, true) => Arrival::Place(interface.subnet),
                    (InterfaceKind::NetworkInterface, false) => {
                        Arrival::Unknown(Entry::Interface(id))
                    }
                    (InterfaceKind::NatGateway { .. }, _) => Arrival::Nobody,
                }
            }
            Attachment::InternetGateway(_) => Arrival::Outside(attachment.into()),
            Attachment::Edge(id) => match topology.edge(id).kind {
                EdgeKind::Opaque(_) => Arrival::Unknown(Entry::Edge(id)),
                _ => Arrival::Outside(Entry::Edge(id)),
            },
        }
    }
}

/// Which subnets something says that machines are in: an interface, a mapping, or, for a subnet
/// with an endpoint, that a gateway table leads packets for it to an endpoint.
fn machines(topology: &Topology, holds_endpoint: &[bool]) -> Vec<bool> {
    let mut machines = vec![false; topology.subnets().len()];
    for (_, interface) in topology.interfaces() {
        if interface.kind == InterfaceKind::NetworkInterface {
            machines[interface.subnet.index()] = true;
        }
    }
    for (_, gateway) in topology.gateways() {
        for mapping in &gateway.addresses {
            let nat = topology
                .interface_of(gateway.vpc, mapping.private)
                .map(|id| topology.interface(id).kind)
                .is_some_and(|kind| kind != InterfaceKind::NetworkInterface);
            if let (false, Some(id)) = (nat, topology.subnet_of(gateway.vpc, mapping.private)) {
                machines[id.index()] = true;
            }
        }
    }
    for table in edge_tables(topology) {
        for route in topology.table(table).routes() {
            let id = topology.subnet_of(topology.table(table).vpc(), route.destination.addr());
            let inspected = matches!(route.target, Target::Endpoint(_) | Target::EndpointGroup(_));
            let whole = |id: &SubnetId| topology.subnet(*id).cidrs.contains(&route.destination);
            if let Some(id) = id.filter(whole)
                && inspected
                && holds_endpoint[id.index()]
            {
                machines[id.index()] = true;
            }
        }
    }
    machines
}

/// The subnets that are no places, and what they hold.
pub(super) fn not_places(topology: &Topology, roles: &Roles) -> Vec<NotPlace> {
    let mut all: Vec<NotPlace> = Vec::new();
    for (id, subnet) in topology.subnets().filter(|(id, _)| !roles.is_place(*id)) {
        let is_nat = |interface: &Interface| {
            interface.subnet == id && interface.kind != InterfaceKind::NetworkInterface
        };
        let held = [
            ("endpoint", topology.endpoints().any(|(_, it)| it.subnet == id)),
            ("nat_gateway", topology.interfaces().any(|(_, it)| is_nat(it))),
            (
                "transit_gateway_attachment",
                topology.transit_attachments().any(|(_, it)| it.subnets.contains(&id)),
            ),
        ];
        let holds = held.into_iter().filter(|(_, is_held)| *is_held).map(|(kind, _)| kind);
        all.push(NotPlace { subnet: subnet.name.clone(), holds: holds.collect() });
    }
    all
}

/// Which subnets hold what moves packets, and are there for nothing else, as far as can be seen.
fn works(topology: &Topology, holds_endpoint: &[bool]) -> Vec<bool> {
    let mut works = holds_endpoint.to_vec();
    let mut busy = vec![false; topology.vpcs().len()];
    for (_, interface) in topology.interfaces() {
        if interface.kind != InterfaceKind::NetworkInterface {
            works[interface.subnet.index()] = true;
        }
    }
    for (id, subnet) in topology.subnets() {
        busy[subnet.vpc.index()] |= works[id.index()];
    }
    // An attachment is in a subnet of its own, unless the VPC has no other for its machines.
    let mut attached = vec![false; works.len()];
    for (_, attachment) in topology.transit_attachments() {
        for id in &attachment.subnets {
            attached[id.index()] = true;
        }
    }
    for (id, subnet) in topology.subnets() {
        let plain = |other: SubnetId| !attached[other.index()] && !works[other.index()];
        let others = || topology.subnets().any(|(it, of)| of.vpc == subnet.vpc && plain(it));
        if attached[id.index()] && !works[id.index()] && (busy[subnet.vpc.index()] || others()) {
            // `plain` never asks about attached subnets, so this changes no later answer.
            works[id.index()] = true;
        }
    }
    works
}

fn edge_tables(topology: &Topology) -> impl Iterator<Item = TableId> {
    let gateways = topology.gateways().map(|(_, gateway)| gateway.table);
    gateways.chain(topology.edges().map(|(_, edge)| edge.table))
}

type Pairs = HashSet<(Entry, Entry)>;

/// The pairs of places that intents silence, and those that they ask a service for.
fn intents(topology: &Topology) -> (Pairs, Pairs) {
    let (mut silent, mut demanded) = (HashSet::new(), HashSet::new());
    for intent in topology.intents() {
        for from in &intent.from {
            for to in &intent.to {
                if intent.inspected_by.is_some() {
                    demanded.insert((*from, *to));
                } else {
                    silent.insert((*from, *to));
                }
            }
        }
    }
    (silent, demanded)
}

/// The ways in and out of VPCs, in the order of the file: internet gateways, then the others.
pub(super) fn outside(topology: &Topology) -> Vec<Entry> {
    let gateways = topology.gateways().map(|(id, _)| Entry::InternetGateway(id));
    let edges = topology
        .edges()
        .filter(|(_, edge)| !matches!(edge.kind, EdgeKind::Opaque(_)))
        .map(|(id, _)| Entry::Edge(id));
    gateways.chain(edges).collect()
}

/// Whether packets come in there by themselves, and not only as answers.
pub(super) fn lets_in(topology: &Topology, place: Entry) -> bool {
    match place {
        Entry::Edge(id) => topology.edge(id).kind == EdgeKind::VirtualPrivateGateway,
        _ => true,
    }
}

/// Whether addresses are of whoever is behind a gateway: what a virtual private gateway has learned,
/// if it has learned anything, and else all that are in no VPC.
pub(super) fn is_behind(topology: &Topology, gateway: Entry, class: &Class) -> bool {
    let all = !class.inside;
    match gateway {
        Entry::Edge(id) => {
            let edge = topology.edge(id);
            match edge.kind {
                EdgeKind::VirtualPrivateGateway if !edge.learned.is_empty() => {
                    edge.learned.iter().any(|(net, _)| net.contains(&class.address))
                }
                EdgeKind::EgressOnlyInternetGateway => all && class.family == Family::V6,
                _ => all,
            }
        }
        _ => all,
    }
}

/// The subnets that an intent is about: all, or without those that hold no machines if a pattern
/// has these by the way.
pub(super) fn meant<'a>(places: &'a [Entry], roles: &'a Roles) -> impl Iterator<Item = Entry> + 'a {
    let machines = move |place: &Entry| match place {
        Entry::Subnet(id) => roles.is_place(*id),
        _ => true,
    };
    let some = places.iter().any(machines);
    places.iter().copied().filter(move |place| !some || machines(place))
}

/// Which subnets' packets were seen to be inspected, and which not.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<SubnetId, (bool, bool)>);

impl Seen {
    pub fn note(&mut self, place: SubnetId, inspected: bool) {
        let seen = self.0.entry(place).or_default();
        if inspected { seen.0 = true } else { seen.1 = true }
    }

    /// Whether some of its packets were inspected, and none was not.
    pub fn all(&self, place: SubnetId) -> bool {
        self.0.get(&place) == Some(&(true, false))
    }
}
