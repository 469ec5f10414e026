//! The obvious twin of `verify`: single packets, walked one step after the other.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use router::{
    Attachment, Choose, EdgeKind, EndpointId, Entry, GroupId, InterfaceId, InterfaceKind, NextHop,
    Step, SubnetId, Topology, TransitAttachmentId, VpcId,
};

/// What is wrong with one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Uninspected,
    Asymmetric,
    Circles,
    LostAfterInspection,
    LostBehindGateway,
    LostReturn,
    Blackhole,
    EgressOnly,
    Crosses,
}

impl Fault {
    pub const ALL: [Fault; 9] = [
        Fault::Uninspected,
        Fault::Asymmetric,
        Fault::Circles,
        Fault::LostAfterInspection,
        Fault::LostBehindGateway,
        Fault::LostReturn,
        Fault::Blackhole,
        Fault::EgressOnly,
        Fault::Crosses,
    ];
}

/// Whether a fault of answers can be told as that of packets which go the same way.
pub fn is_cause(fault: Fault) -> bool {
    matches!(fault, Fault::LostReturn | Fault::Circles)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub at: Entry,
    pub from: String,
    pub source: IpAddr,
    pub destination: IpAddr,
}

/// A fault, and as what else it may be told.
pub type Faults = Vec<(Fault, Vec<(Fault, Packet)>)>;

/// What is chosen: a zone for each attachment, a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Chosen {
    zones: [usize; 2],
    member: usize,
}

impl Chosen {
    /// Whether another choice is the same where a way has asked for one.
    fn agrees(&self, other: &Chosen, asked: [bool; 3]) -> bool {
        let choices = |it: &Chosen| [it.zones[0], it.zones[1], it.member];
        let pairs = choices(self).into_iter().zip(choices(other));
        pairs.zip(asked).all(|((one, other), asked)| !asked || one == other)
    }
}

/// Answers with what is chosen, and notes what was asked: the zones, the member.
struct Asked {
    chosen: Chosen,
    asked: Cell<[bool; 3]>,
}

impl Asked {
    fn note(&self, index: usize) {
        let mut asked = self.asked.get();
        asked[index] = true;
        self.asked.set(asked);
    }
}

impl Choose for Asked {
    fn zone(&self, attachment: TransitAttachmentId, _: usize) -> usize {
        self.note(attachment.index());
        self.chosen.zones[attachment.index()]
    }

    fn member(&self, _: GroupId, _: usize) -> usize {
        self.note(2);
        self.chosen.member
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Out(Attachment),
    /// Lost, and whether by a transit gateway.
    Lost(NextHop, bool),
    Circles,
}

#[derive(Clone, Debug)]
struct Way {
    stretches: Vec<BTreeSet<EndpointId>>,
    nat: Vec<InterfaceId>,
    /// Whether a transit gateway is on it.
    transit: bool,
    crossings: Vec<EndpointId>,
    last: Entry,
    /// Which choices it depends on.
    asked: [bool; 3],
    end: End,
}

impl Way {
    fn is_inspected(&self) -> bool {
        self.stretches.iter().any(|passed| !passed.is_empty())
    }
}

/// Answers: their ways, or `None` if they do not come home; and whether they circle.
struct Answer {
    ways: Vec<Way>,
    is_home: bool,
    circles: bool,
}

pub struct Naive<'t> {
    topology: &'t Topology,
    choices: Vec<Chosen>,
    addresses: Vec<IpAddr>,
    known: RefCell<HashMap<(Entry, IpAddr, Chosen), Way>>,
}

impl<'t> Naive<'t> {
    pub fn new(topology: &'t Topology) -> Naive<'t> {
        let few = |there: bool| if there { 2 } else { 1 };
        let zones = few(topology.transit_attachments().any(|(_, it)| it.appliance_mode));
        let members = few(topology.endpoint_groups().len() > 0);
        let mut choices = Vec::new();
        for first in 0..zones {
            for second in 0..zones {
                for member in 0..members {
                    choices.push(Chosen { zones: [first, second], member });
                }
            }
        }
        Naive { topology, choices, addresses: addresses(topology), known: RefCell::default() }
    }

    /// From every place to every address, and from every gateway to every machine: at and beside
    /// every border that there is.
    pub fn packets(&self) -> Vec<Packet> {
        let mut packets = Vec::new();
        for (place, subnet) in self.topology.subnets().filter(|(id, _)| self.is_place(*id)) {
            let at = Entry::Subnet(place);
            let own: Vec<IpAddr> = self
                .addresses
                .iter()
                .copied()
                .filter(|address| subnet.cidrs.iter().any(|cidr| cidr.contains(address)))
                .collect();
            for machine in &own {
                for other in self.addresses.iter().filter(|it| !own.contains(it)) {
                    if machine.is_ipv4() != other.is_ipv4() {
                        continue;
                    }
                    packets.push(self.packet(at, *machine, *other));
                    for gateway in self.outside() {
                        packets.push(self.packet(gateway, *other, *machine));
                    }
                }
            }
        }
        packets.dedup();
        packets
    }

    fn packet(&self, at: Entry, source: IpAddr, destination: IpAddr) -> Packet {
        Packet { at, from: self.topology.entry_name(at), source, destination }
    }

    pub fn faults(&self, packet: &Packet) -> Faults {
        let mut faults = Vec::new();
        for choice in &self.choices {
            match packet.at {
                Entry::Subnet(place) => self.outward(place, packet, *choice, &mut faults),
                gateway => self.inward(gateway, packet, *choice, &mut faults),
            }
        }
        faults
    }

    fn outward(&self, place: SubnetId, packet: &Packet, choice: Chosen, faults: &mut Faults) {
        let way = self.walk(packet.at, packet.destination, choice);
        let wanted = self.wanted(place, packet.destination);
        let outside = self.outside_of(packet.destination);
        match way.end {
            End::Circles => faults.push((Fault::Circles, Vec::new())),
            End::Lost(reason, transit) => {
                let exits = self.has_exit(place, packet.destination.is_ipv4());
                let hole = reason == NextHop::Blackhole && !transit;
                let candidates = self.topology.table(self.topology.table_for(way.last));
                let default = candidates
                    .candidates(packet.destination)
                    .first()
                    .is_some_and(|route| route.destination.prefix_len() == 0);
                if way.is_inspected()
                    && (wanted.is_some() || outside && reason != NextHop::NoSubnet)
                {
                    if wanted.is_none() && exits {
                        if hole {
                            faults.push((Fault::Blackhole, self.blamed(packet)));
                        } else if !(transit && reason == NextHop::NoRoute) {
                            faults.push((Fault::LostAfterInspection, Vec::new()));
                        }
                    } else {
                        faults.push((Fault::LostAfterInspection, Vec::new()));
                    }
                } else if hole && (wanted.is_some() || outside && default) {
                    faults.push((Fault::Blackhole, self.blamed(packet)));
                } else if !hole && reason != NextHop::NoSubnet && self.is_led(packet, &way) {
                    let on_the_way = transit && reason == NextHop::NoRoute && exits;
                    let meant = if wanted.is_some() { !transit } else { outside && !on_the_way };
                    if meant {
                        faults.push((Fault::LostBehindGateway, Vec::new()));
                    }
                }
            }
            End::Out(attachment) => match self.arrival(attachment, packet.destination) {
                Some(Entry::Subnet(to)) if to == place => {}
                Some(to) => self.delivered(place, to, packet, &way, choice, faults),
                None => {}
            },
        }
    }

    /// Whether a packet is led to a NAT gateway, or by a default route to a transit gateway; the
    /// latter does not matter for what is in a VPC.
    fn is_led(&self, packet: &Packet, way: &Way) -> bool {
        let table = self.topology.table(self.topology.table_for(packet.at));
        let target = table.target(packet.destination);
        let any: IpNet =
            if packet.destination.is_ipv4() { "0.0.0.0/0" } else { "::/0" }.parse().unwrap();
        let default =
            table.routes().any(|route| route.destination == any && Some(route.target) == target);
        let known = matches!(packet.at, Entry::Subnet(place) if self.wanted(place, packet.destination).is_some());
        !way.nat.is_empty() || way.transit && (default || known)
    }

    fn delivered(
        &self,
        place: SubnetId,
        to: Entry,
        packet: &Packet,
        way: &Way,
        choice: Chosen,
        faults: &mut Faults,
    ) {
        let is_place = matches!(to, Entry::Subnet(_));
        let asked = !is_place && self.is_asked(place, to);
        let answers_only = self.is_egress_only(to);
        if answers_only && way.is_inspected() {
            faults.push((Fault::EgressOnly, Vec::new()));
            return;
        }
        if asked && !way.is_inspected() {
            faults.push((Fault::Uninspected, Vec::new()));
        }
        let answer = self.answer(way, to, place, packet.source, choice);
        let reversed = self.packet(to, packet.destination, packet.source);
        if answer.circles {
            faults.push((Fault::Circles, vec![(Fault::Circles, reversed)]));
            return;
        }
        if !answer.is_home {
            faults.push((Fault::LostReturn, vec![(Fault::LostAfterInspection, reversed)]));
            return;
        }
        let back_inspected = answer.ways.iter().any(Way::is_inspected);
        if !is_place && way.nat.is_empty() && !answers_only && asked && !back_inspected {
            return;
        }
        if asked && !way.is_inspected() {
            return;
        }
        let forward = way.stretches.iter();
        let backward = answer.ways.iter().rev();
        let same = forward.zip(backward).all(|(passed, answer)| {
            *passed == answer.stretches.iter().flatten().copied().collect::<BTreeSet<_>>()
        });
        if !same {
            let told = if is_place { vec![(Fault::Asymmetric, reversed)] } else { Vec::new() };
            faults.push((Fault::Asymmetric, told));
            return;
        }
        let zones = [self.topology.zone(Entry::Subnet(place)), self.topology.zone(to)];
        let crossings = way.crossings.iter().chain(answer.ways.iter().flat_map(|it| &it.crossings));
        if crossings.into_iter().any(|id| !zones.contains(&Some(&self.topology.endpoint(*id).zone)))
        {
            let told = if is_place { vec![(Fault::Crosses, reversed)] } else { Vec::new() };
            faults.push((Fault::Crosses, told));
        }
    }

    fn inward(&self, gateway: Entry, packet: &Packet, choice: Chosen, faults: &mut Faults) {
        if self.is_egress_only(gateway) {
            return;
        }
        for place in self.places_of(packet.destination) {
            self.inward_to(place, gateway, packet, choice, faults);
        }
    }

    fn inward_to(
        &self,
        place: SubnetId,
        gateway: Entry,
        packet: &Packet,
        choice: Chosen,
        faults: &mut Faults,
    ) {
        let way = self.walk(gateway, packet.destination, choice);
        let behind = self.is_behind(gateway, packet.source);
        match way.end {
            End::Circles if behind => faults.push((Fault::Circles, Vec::new())),
            End::Lost(..) if behind && way.is_inspected() => {
                faults.push((Fault::LostAfterInspection, Vec::new()));
            }
            End::Out(attachment)
                if self.arrival(attachment, packet.destination) == Some(Entry::Subnet(place)) =>
            {
                let mapped = self.is_mapped(gateway, packet.destination);
                let out = self.walk(Entry::Subnet(place), packet.source, choice);
                let leaves = out.nat.is_empty() && out.end == End::Out(attachment_of(gateway));
                let asked = self.is_asked(place, gateway);
                let nat = !way.nat.is_empty();
                if asked && !way.is_inspected() && (leaves && !nat || mapped && behind) {
                    faults.push((Fault::Uninspected, Vec::new()));
                }
                let reached = behind && (mapped || way.is_inspected());
                if let (End::Lost(reason, transit), true) = (out.end, reached) {
                    let arrives =
                        self.any_answer_arrives(gateway, place, packet.source, &choice, way.asked);
                    let hole = reason == NextHop::Blackhole && !transit;
                    if !arrives {
                        faults.push((Fault::LostReturn, Vec::new()));
                    } else if hole {
                        faults.push((Fault::Blackhole, self.blamed(packet)));
                    }
                }
            }
            _ => {}
        }
    }

    /// A blackhole that is blamed for something else is not told again: for any of the packets that
    /// meet it.
    fn blamed(&self, packet: &Packet) -> Vec<(Fault, Packet)> {
        let others = self.packets();
        let faults = [Fault::LostReturn, Fault::LostAfterInspection];
        let all = others.into_iter().chain([packet.clone()]);
        all.flat_map(|it| faults.map(|fault| (fault, it.clone()))).collect()
    }

    fn walk(&self, from: Entry, to: IpAddr, choice: Chosen) -> Way {
        if let Some(known) = self.known.borrow().get(&(from, to, choice)) {
            return known.clone();
        }
        let mut way = Way {
            stretches: vec![BTreeSet::new()],
            nat: Vec::new(),
            transit: false,
            crossings: Vec::new(),
            last: from,
            asked: [false; 3],
            end: End::Circles,
        };
        let chooser = Asked { chosen: choice, asked: Cell::default() };
        // More steps than there are places to be at.
        for _ in 0..100 {
            let at = way.last;
            let hop = self.topology.lookup(at, to);
            way.transit |= matches!(hop, NextHop::Transit(_));
            match self.topology.step(at, to, &chooser) {
                Step::Onward(next) => {
                    match next {
                        Entry::Endpoint(id) => {
                            way.stretches.last_mut().unwrap().insert(id);
                            if matches!(hop, NextHop::Endpoint(_)) && self.crosses(at, id) {
                                way.crossings.push(id);
                            }
                        }
                        Entry::Interface(id) => {
                            way.nat.push(id);
                            way.stretches.push(BTreeSet::new());
                        }
                        _ => {}
                    }
                    way.last = next;
                }
                Step::Out(attachment) => {
                    way.end = End::Out(attachment);
                    break;
                }
                Step::Lost(NextHop::Loop) => break,
                Step::Lost(reason) => {
                    way.end = End::Lost(reason, matches!(hop, NextHop::Transit(_)));
                    break;
                }
            }
        }
        way.asked = chooser.asked.get();
        self.known.borrow_mut().insert((from, to, choice), way.clone());
        way
    }

    fn answer(&self, way: &Way, from: Entry, home: SubnetId, to: IpAddr, choice: Chosen) -> Answer {
        let mut answer = Answer { ways: Vec::new(), is_home: false, circles: false };
        let mut at = from;
        for nat in way.nat.iter().rev() {
            let address = self.topology.interface(*nat).addresses[0];
            let back = self.walk(at, address, choice);
            answer.circles = back.end == End::Circles;
            let home = back.end == End::Out(Attachment::Interface(*nat)) && back.nat.is_empty();
            answer.ways.push(back);
            if !home {
                return answer;
            }
            at = Entry::Interface(*nat);
        }
        let back = self.walk(at, to, choice);
        answer.circles = back.end == End::Circles;
        answer.is_home = back.end == End::Out(Attachment::Subnet(home)) && back.nat.is_empty();
        answer.ways.push(back);
        answer
    }

    fn crosses(&self, at: Entry, id: EndpointId) -> bool {
        let endpoint = self.topology.endpoint(id);
        let vpc = |subnet: SubnetId| self.topology.subnet(subnet).vpc;
        self.topology.zone(at).is_some_and(|zone| {
            zone != endpoint.zone
                && self.topology.endpoints().any(|(_, other)| {
                    other.zone == zone && vpc(other.subnet) == vpc(endpoint.subnet)
                })
        })
    }

    /// Where a packet has arrived: a subnet with machines, or outside.
    fn arrival(&self, attachment: Attachment, _: IpAddr) -> Option<Entry> {
        match attachment {
            Attachment::Subnet(id) => self.is_place(id).then_some(Entry::Subnet(id)),
            // There are no interfaces but those of NAT gateways.
            Attachment::Interface(_) => None,
            other => Some(other.into()),
        }
    }

    /// By their names: p0, p1, … have machines.
    fn is_place(&self, id: SubnetId) -> bool {
        self.topology.subnet(id).name.starts_with('p')
    }

    fn outside(&self) -> Vec<Entry> {
        let gateways = self.topology.gateways().map(|(id, _)| Entry::InternetGateway(id));
        gateways.chain(self.topology.edges().map(|(id, _)| Entry::Edge(id))).collect()
    }

    fn is_egress_only(&self, at: Entry) -> bool {
        matches!(at, Entry::Edge(id)
            if self.topology.edge(id).kind == EdgeKind::EgressOnlyInternetGateway)
    }

    fn is_asked(&self, place: SubnetId, outside: Entry) -> bool {
        let inspects = |vpc: VpcId| {
            self.topology.endpoints().any(|(_, it)| self.topology.subnet(it.subnet).vpc == vpc)
        };
        inspects(self.topology.subnet(place).vpc) || inspects(self.topology.vpc_of(outside))
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        self.topology.vpcs().any(|(_, vpc)| vpc.cidrs.iter().any(|cidr| cidr.contains(&address)))
    }

    fn is_behind(&self, gateway: Entry, address: IpAddr) -> bool {
        let all = !self.is_inside(address);
        match gateway {
            Entry::Edge(id) => {
                let edge = self.topology.edge(id);
                if self.is_egress_only(gateway) {
                    all && address.is_ipv6()
                } else if edge.learned.is_empty() {
                    all
                } else {
                    edge.learned.iter().any(|(net, _)| net.contains(&address))
                }
            }
            _ => all,
        }
    }

    fn outside_of(&self, address: IpAddr) -> bool {
        self.outside().iter().any(|gateway| self.is_behind(*gateway, address))
    }

    /// The subnets with machines that have an address, each in its VPC.
    fn places_of(&self, address: IpAddr) -> Vec<SubnetId> {
        let all = self.topology.vpcs().filter_map(|(vpc, _)| self.topology.subnet_of(vpc, address));
        all.filter(|id| self.is_place(*id)).collect()
    }

    fn wanted(&self, from: SubnetId, address: IpAddr) -> Option<SubnetId> {
        let own = self.topology.subnet(from).vpc;
        let connected = |vpc: VpcId| vpc == own || self.topology.transit_attachments().len() == 2;
        self.topology
            .vpcs()
            .filter(|(vpc, _)| connected(*vpc))
            .filter_map(|(vpc, _)| self.topology.subnet_of(vpc, address))
            .find(|id| *id != from && self.is_place(*id))
    }

    fn has_exit(&self, place: SubnetId, ipv4: bool) -> bool {
        let own = &self.topology.subnet(place).cidrs;
        self.choices.iter().any(|choice| {
            self.addresses
                .iter()
                .filter(|it| it.is_ipv4() == ipv4 && !own.iter().any(|cidr| cidr.contains(*it)))
                .any(|address| {
                    let way = self.walk(Entry::Subnet(place), *address, *choice);
                    let out = |attachment| self.arrival(attachment, *address);
                    matches!(way.end, End::Out(attachment)
                        if out(attachment).is_some_and(|to| !matches!(to, Entry::Subnet(_))))
                })
        })
    }

    /// Whether any answer of a place to whoever is behind a gateway arrives anywhere, with what was
    /// chosen for the packet that it answers.
    fn any_answer_arrives(
        &self,
        gateway: Entry,
        place: SubnetId,
        like: IpAddr,
        choice: &Chosen,
        asked: [bool; 3],
    ) -> bool {
        let all = self.addresses.iter().filter(|it| it.is_ipv4() == like.is_ipv4());
        let mut behind = all.filter(|it| self.is_behind(gateway, **it));
        behind.any(|it| {
            let choices = self.choices.iter().filter(|other| choice.agrees(other, asked));
            choices.into_iter().any(|choice| {
                let way = self.walk(Entry::Subnet(place), *it, *choice);
                matches!(way.end, End::Out(_))
            })
        })
    }

    fn is_mapped(&self, gateway: Entry, address: IpAddr) -> bool {
        let Entry::InternetGateway(id) = gateway else { return false };
        let of_machine = |mapping: &router::AddressMapping| {
            mapping.private == address
                && !self.topology.interfaces().any(|(_, it)| {
                    it.kind != InterfaceKind::NetworkInterface && it.addresses.contains(&address)
                })
        };
        self.topology.gateway(id).addresses.iter().any(of_machine)
    }
}

fn attachment_of(gateway: Entry) -> Attachment {
    gateway.attachment().unwrap()
}

/// The ends of every prefix and their neighbours, and some others.
fn addresses(topology: &Topology) -> Vec<IpAddr> {
    let tables = topology.tables().flat_map(|(_, it)| it.routes().map(|route| route.destination));
    let transit = topology.transit_tables().flat_map(|(_, it)| it.routes().map(|route| route.0));
    let subnets = topology.subnets().flat_map(|(_, it)| it.cidrs.clone());
    let vpcs = topology.vpcs().flat_map(|(_, it)| it.cidrs.clone());
    let learned = topology.edges().flat_map(|(_, it)| it.learned.iter().map(|(net, _)| *net));
    let mapped = topology
        .gateways()
        .flat_map(|(_, it)| it.addresses.iter().map(|mapping| IpNet::from(mapping.private)));
    let nat =
        topology.interfaces().flat_map(|(_, it)| it.addresses.iter().map(|it| IpNet::from(*it)));
    let nets =
        tables.chain(transit).chain(subnets).chain(vpcs).chain(learned).chain(mapped).chain(nat);
    let mut all: BTreeSet<IpAddr> = BTreeSet::new();
    for net in nets {
        all.insert(net.network());
        all.insert(after(net.broadcast()));
    }
    all.insert(Ipv4Addr::new(203, 0, 113, 7).into());
    all.insert(Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, 7).into());
    all.into_iter().collect()
}

fn after(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(it) => Ipv4Addr::from_bits(it.to_bits().wrapping_add(1)).into(),
        IpAddr::V6(it) => Ipv6Addr::from_bits(it.to_bits().wrapping_add(1)).into(),
    }
}
