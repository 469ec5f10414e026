//! From every place to everywhere, and back.

use ipnet::IpNet;

use super::back::Back;
use super::classes::{Class, ClassId, Classes};
use super::collect::{Cause, Collector, Fate, Flow, Spot};
use super::roles::{Arrival, Roles, Seen, is_behind, lets_in, not_places, outside};
use super::walks::{Choices, End, Walk, Walks};
use super::{Examined, Report, Severity};
use crate::space::Family;
use crate::{
    Entry, InterfaceKind, NextHop, SubnetId, TableId, Topology, TransitAttachmentId, VpcId,
};

/// Everything at hand while ways are judged.
pub(super) struct Judge<'t> {
    pub topology: &'t Topology,
    pub classes: Classes,
    pub walks: Walks<'t>,
    pub roles: Roles,
    pub found: Collector,
    /// Where IPv4 packets were seen to go out, and to come in.
    seen: [Seen; 2],
}

/// A route that is a blackhole, and its table.
type Hole = (TableId, IpNet);

/// A place with all its addresses of a family, in one direction of a flow.
#[derive(Clone, Copy)]
struct Side<'a> {
    place: SubnetId,
    sources: &'a [ClassId],
    family: Family,
}

/// What goes out of a place and is lost after inspection, until it is known whether all is.
#[derive(Default)]
struct Outcome {
    lost: Vec<(Cause, Option<Hole>, Flow)>,
    exits: bool,
}

impl<'t> Judge<'t> {
    pub fn new(topology: &'t Topology) -> Judge<'t> {
        let classes = Classes::new(topology);
        Judge {
            topology,
            found: Collector::new(&classes),
            classes,
            walks: Walks::new(topology),
            roles: Roles::new(topology),
            seen: [Seen::default(), Seen::default()],
        }
    }

    pub fn report(mut self) -> Report {
        let places = self.topology.subnets().map(|(id, _)| id);
        let places: Vec<SubnetId> = places.filter(|id| self.roles.is_place(*id)).collect();
        for place in &places {
            self.leave_place(*place);
        }
        for gateway in outside(self.topology) {
            if lets_in(self.topology, gateway) {
                for place in &places {
                    self.enter_place(gateway, *place);
                }
            }
        }
        self.check_intents();
        self.add_standing();
        let (ways, lookups) = self.walks.count();
        let examined = Examined {
            stretches: self.classes.stretches(),
            classes: self.classes.len(),
            ways,
            lookups,
            not_places: not_places(self.topology, &self.roles),
        };
        let drafts = std::mem::take(&mut self.found).finish();
        let findings = drafts.iter().map(|draft| self.finding(draft)).collect();
        Report { findings, examined }
    }

    fn leave_place(&mut self, place: SubnetId) {
        let vpc = self.topology.subnet(place).vpc;
        for family in Family::BOTH {
            let is_of_family = |id: &&ClassId| self.classes.get(**id).family == family;
            let sources: Vec<ClassId> =
                self.classes.of_subnet(place).iter().filter(is_of_family).copied().collect();
            if sources.is_empty() {
                continue;
            }
            let side = Side { place, sources: &sources, family };
            let others: Vec<ClassId> = self
                .classes
                .of_family(family)
                // Within a subnet, machines reach each other without the router.
                .filter(|(_, class)| class.owner(vpc).is_none_or(|owner| owner.subnet != place))
                .map(|(id, _)| id)
                .collect();
            let mut outcome = Outcome::default();
            for destination in others {
                let ways = self.walks.of(Entry::Subnet(place), &self.classes, destination);
                for way in &*ways {
                    self.forward(side, destination, way, &mut outcome);
                }
            }
            self.settle(outcome);
        }
    }

    fn forward(&mut self, side: Side<'_>, destination: ClassId, way: &Walk, all: &mut Outcome) {
        let from = Entry::Subnet(side.place);
        let class = self.classes.get(destination);
        let flow =
            |to: Option<Entry>, source: ClassId| Flow::along(way, from, to, source, destination);
        match way.end {
            End::Circle(first) => {
                let cause = circle(&way.hops[first..], false);
                for source in side.sources {
                    self.found.add(cause.clone(), Severity::Error, flow(None, *source));
                }
            }
            End::Lost(reason) => {
                let to = self.wanted(side.place, destination);
                let external = self.is_behind_any(class);
                let at = last(way, from);
                let inspected = way.is_inspected();
                let hole = self.blackhole(at, destination);
                let is_default = hole.is_some_and(|(_, route)| route.prefix_len() == 0);
                let cause = match hole {
                    // That nobody holds an address of the VPC is no fault of the tables.
                    _ if inspected && (to.is_some() || external && reason != NextHop::NoSubnet) => {
                        Cause::LostAfter { at: self.spot(at, destination), reason }
                    }
                    Some((table, route)) if to.is_some() || external && is_default => {
                        Cause::Blackhole { table, route }
                    }
                    None if self.is_led_to_gateway(side.place, destination, way, to, reason) => {
                        Cause::LostBehindGateway { at: self.spot(at, destination), reason }
                    }
                    _ => return,
                };
                for source in side.sources {
                    if to.is_some_and(|to| self.roles.is_silent(from, to)) {
                        continue;
                    }
                    let flow = flow(to, *source);
                    match &cause {
                        Cause::LostAfter { .. } | Cause::LostBehindGateway { .. }
                            if to.is_none() =>
                        {
                            all.lost.push((cause.clone(), hole, flow));
                        }
                        Cause::LostAfter { .. } => {
                            self.found.draft(cause.clone(), Severity::Error).blamed = hole;
                            self.found.add(cause.clone(), Severity::Error, flow);
                        }
                        _ => self.found.add(cause.clone(), Severity::Warning, flow),
                    }
                }
            }
            End::Out(attachment) => {
                let class = self.classes.get(destination);
                let own = |vpc: VpcId| class.owner(vpc).and_then(|owner| owner.interface);
                match self.roles.arrival(self.topology, attachment, own) {
                    Arrival::Outside(exit) => {
                        all.exits = true;
                        self.exit(side, exit, destination, way);
                    }
                    Arrival::Place(to) => self.between(side, to, destination, way),
                    Arrival::Unknown(to) => {
                        all.exits = true;
                        self.unknown(side, to, destination, way);
                    }
                    Arrival::Nobody => {}
                }
            }
        }
    }

    /// Packets that leave a VPC.
    fn exit(&mut self, side: Side<'_>, exit: Entry, destination: ClassId, way: &Walk) {
        let from = Entry::Subnet(side.place);
        let asked = self.is_asked(side.place, exit);
        let silent = [self.roles.is_silent(from, exit), self.roles.is_silent(exit, from)];
        let inspected = way.is_inspected();
        let only_answers = !lets_in(self.topology, exit);
        for &source in side.sources {
            let flow = Flow::along(way, from, Some(exit), source, destination);
            // semantics 1c: "GWLBE + egress-only IGW: IPv6 dropped".
            if let (true, true, Entry::Edge(edge)) = (only_answers, inspected, exit) {
                self.found.add(Cause::EgressOnly { edge }, Severity::Error, flow);
                continue;
            }
            if side.family == Family::V4 {
                self.seen[0].note(side.place, inspected);
            }
            if asked && !inspected && !silent[0] && !self.roles.is_demanded(from, exit) {
                let cause = self.uninspected_egress(side, exit);
                self.found.add(cause, Severity::Error, flow.clone());
            }
            for back in self.ways_back(way, exit, side.place, source) {
                let comes_in = way.nat.is_empty() && !only_answers && back.fate.is_none();
                if comes_in && side.family == Family::V4 {
                    self.seen[1].note(side.place, back.is_inspected());
                }
                let flow = flow.clone().answered(back.choices.clone());
                if back.fate.is_some() {
                    self.unanswered(flow, &back, Severity::Error);
                } else if comes_in && asked && !back.is_inspected() {
                    if !silent[1] && !self.roles.is_demanded(exit, from) {
                        let cause = self.uninspected_ingress(side, exit);
                        self.found.add(cause, Severity::Error, flow.reversed());
                    }
                } else if !(silent[0] || silent[1] || asked && !inspected) {
                    self.compare(flow, way, &back);
                }
            }
        }
    }

    /// Packets from one place to another.
    fn between(&mut self, side: Side<'_>, to: SubnetId, destination: ClassId, way: &Walk) {
        let (from, to) = (Entry::Subnet(side.place), Entry::Subnet(to));
        if from == to || self.roles.is_silent(from, to) || self.roles.is_silent(to, from) {
            return;
        }
        let inspected = way.is_inspected();
        for &source in side.sources {
            for back in self.ways_back(way, to, side.place, source) {
                let flow = Flow::along(way, from, Some(to), source, destination)
                    .answered(back.choices.clone());
                if back.fate.is_some() {
                    let severity = if inspected { Severity::Error } else { Severity::Warning };
                    self.unanswered(flow, &back, severity);
                    continue;
                }
                // The other end sees the same flow the other way round; it is told once.
                let told_by_other =
                    if inspected == back.is_inspected() { from > to } else { !inspected };
                if !way.nat.is_empty() || !told_by_other {
                    self.compare(flow, way, &back);
                }
            }
        }
    }

    /// Packets to a machine that they are not for, or to something opaque.
    fn unknown(&mut self, side: Side<'_>, to: Entry, destination: ClassId, way: &Walk) {
        let from = Entry::Subnet(side.place);
        if !self.is_asked(side.place, to) || self.roles.is_silent(from, to) {
            return;
        }
        for &source in side.sources {
            let flow = Flow::along(way, from, Some(to), source, destination);
            self.found.add(Cause::NotFollowed { to }, Severity::Warning, flow);
        }
    }

    /// Whether both directions pass the same endpoints, and those of their own zones.
    fn compare(&mut self, flow: Flow, way: &Walk, back: &Back) {
        let answers = back.stretches.iter().rev();
        for (index, (forward, (start, answer))) in way.stretches.iter().zip(answers).enumerate() {
            let [forward, answer] = [forward, answer].map(|passed| {
                let mut passed = passed.clone();
                passed.sort_unstable();
                passed
            });
            if forward == answer {
                continue;
            }
            let cause = if answer.is_empty() {
                Cause::OneWay { table: self.topology.table_for(*start), answers: true }
            } else if forward.is_empty() {
                let start = match index.checked_sub(1).and_then(|nat| way.nat.get(nat)) {
                    Some(nat) => Entry::Interface(*nat),
                    None => flow.from,
                };
                Cause::OneWay { table: self.topology.table_for(start), answers: false }
            } else if let Some(attachment) = self.split(way, back) {
                Cause::ApplianceMode { attachment }
            } else {
                let (forward, back) =
                    if forward < answer { (forward, answer) } else { (answer, forward) };
                Cause::Different { forward, back }
            };
            let cause =
                self.shared(flow.from).or(flow.to.and_then(|to| self.shared(to))).unwrap_or(cause);
            self.found.add(cause, Severity::Error, flow);
            return;
        }
        let zones = [Some(flow.from), flow.to].map(|end| end.and_then(|it| self.topology.zone(it)));
        for (at, endpoint) in way.crossings.iter().chain(&back.crossings) {
            if !zones.contains(&Some(&self.topology.endpoint(*endpoint).zone)) {
                let table = self.topology.table_for(*at);
                let cause = Cause::Crossing { table, endpoint: *endpoint };
                self.found.add(cause, Severity::Warning, flow.clone());
            }
        }
    }

    /// The attachment of a VPC with endpoints that the two directions come out of in different
    /// zones.
    fn split(&self, way: &Walk, back: &Back) -> Option<TransitAttachmentId> {
        let apart = |(attachment, subnet): &&(TransitAttachmentId, SubnetId)| {
            let of = self.topology.transit_attachment(*attachment);
            self.roles.inspects(of.vpc)
                && !of.appliance_mode
                && back.arrivals.iter().any(|(other, it)| other == attachment && it != subnet)
        };
        way.arrivals.iter().find(apart).map(|(attachment, _)| *attachment)
    }

    /// Answers that do not come home.
    pub fn unanswered(&mut self, flow: Flow, back: &Back, severity: Severity) {
        let Some((at, fate)) = back.fate else { return };
        match fate {
            Fate::Circles => {
                self.found.add(circle(&back.circle, true), Severity::Error, flow);
            }
            Fate::Unknown(to) => {
                let ends = [Some(flow.from), flow.to, Some(to)].into_iter().flatten();
                let asked = ends.clone().any(|end| self.roles.inspects(self.topology.vpc_of(end)));
                let silent = ends.into_iter().any(|end| self.roles.is_silent(end, to));
                if asked && !silent {
                    self.found.add(Cause::NotFollowed { to }, Severity::Warning, flow);
                }
            }
            _ => {
                let spot = match fate {
                    Fate::Lost(_) => self.spot(at, flow.source),
                    _ => Spot::Entry(at),
                };
                let cause = Cause::LostReturn { at: spot, fate };
                if fate == Fate::Lost(NextHop::Blackhole) {
                    self.found.draft(cause.clone(), severity).blamed =
                        self.blackhole(at, flow.source);
                }
                self.found.add(cause, severity, flow);
            }
        }
    }

    fn uninspected_egress(&self, side: Side<'_>, exit: Entry) -> Cause {
        let place = Entry::Subnet(side.place);
        let ipv6_only = side.family == Family::V6 && self.seen[0].all(side.place);
        let table = self.topology.table_for(place);
        self.shared(place).unwrap_or(Cause::Egress { table, exit, ipv6_only })
    }

    fn uninspected_ingress(&self, side: Side<'_>, gateway: Entry) -> Cause {
        let ipv6_only = side.family == Family::V6 && self.seen[1].all(side.place);
        let shared = self.shared(Entry::Subnet(side.place));
        shared.unwrap_or(Cause::Ingress { gateway, ipv6_only })
    }

    /// In a subnet that an application shares with an endpoint, all else follows from that.
    pub fn shared(&self, place: Entry) -> Option<Cause> {
        self.roles.is_shared(place).map(|subnet| Cause::SharedSubnet { subnet })
    }

    /// Whether what goes between a place and the outside has to be inspected.
    pub fn is_asked(&self, place: SubnetId, outside: Entry) -> bool {
        self.roles.inspects(self.topology.subnet(place).vpc)
            || self.roles.inspects(self.topology.vpc_of(outside))
    }

    /// Whether a route leads packets to a NAT gateway or a transit gateway, which then loses what it
    /// is there for. A transit gateway is not there for all that is led to it: its tables keep VPCs
    /// apart, and a route to it may be for more than there is.
    fn is_led_to_gateway(
        &self,
        place: SubnetId,
        destination: ClassId,
        way: &Walk,
        to: Option<Entry>,
        reason: NextHop,
    ) -> bool {
        let at = last(way, Entry::Subnet(place));
        let by_transit = matches!(self.spot(at, destination), Spot::Transit(_));
        let through_nat = !way.nat.is_empty();
        if reason == NextHop::NoSubnet || !(through_nat || by_transit || !way.arrivals.is_empty()) {
            return false;
        }
        let class = self.classes.get(destination);
        if to.is_some() {
            return !by_transit;
        }
        let table = self.topology.table(self.topology.table_for(Entry::Subnet(place)));
        let target = table.target(class.address);
        // Other routes may lead the rest of the class to the same gateway.
        let is_default = table.routes().any(|route| {
            route.destination.prefix_len() == 0
                && Family::of(route.destination.addr()) == class.family
                && Some(route.target) == target
        });
        self.is_behind_any(class) && (through_nat || is_default)
    }

    /// The place that an address is for, as far as packets may go there from here.
    fn wanted(&self, from: SubnetId, destination: ClassId) -> Option<Entry> {
        let vpc = self.topology.subnet(from).vpc;
        let is_wanted = |(of, subnet): &(VpcId, SubnetId)| {
            *subnet != from && self.roles.connected(vpc, *of) && self.roles.is_place(*subnet)
        };
        let owners = &self.classes.get(destination).owners;
        let nat = |id| self.topology.interface(id).kind != InterfaceKind::NetworkInterface;
        owners
            .iter()
            .filter(|(_, owner)| !owner.interface.is_some_and(nat))
            .map(|(of, owner)| (*of, owner.subnet))
            .find(is_wanted)
            .map(|(_, subnet)| Entry::Subnet(subnet))
    }

    /// Whether anybody outside can have an address.
    fn is_behind_any(&self, class: &Class) -> bool {
        outside(self.topology).iter().any(|exit| is_behind(self.topology, *exit, class))
    }

    /// Whose table loses a packet that is lost after it was looked up here.
    pub fn spot(&self, at: Entry, class: ClassId) -> Spot {
        let address = self.classes.get(class).address;
        match self.topology.lookup(at, address) {
            // What does not reach the transit gateway is lost before its table is asked.
            NextHop::Transit(from) if self.topology.reaches_transit(at, from) => {
                Spot::Transit(self.topology.transit_attachment(from).table)
            }
            _ => Spot::Entry(at),
        }
    }

    /// The table and the route that lose a packet for an address, if a blackhole does.
    pub fn blackhole(&self, at: Entry, class: ClassId) -> Option<Hole> {
        let address = self.classes.get(class).address;
        let table = self.topology.table_for(at);
        if self.topology.next_hop_in(table, address) != NextHop::Blackhole {
            return None;
        }
        let candidates = self.topology.table(table).candidates(address);
        candidates.first().map(|route| (table, route.destination))
    }

    fn settle(&mut self, outcome: Outcome) {
        for (cause, hole, flow) in outcome.lost {
            match (hole, &cause) {
                (Some((table, route)), _) if outcome.exits => {
                    self.found.add(Cause::Blackhole { table, route }, Severity::Warning, flow);
                }
                // No VPC at the transit gateway has the address: nobody is missing anything.
                (
                    None,
                    Cause::LostAfter { at: Spot::Transit(_), reason: NextHop::NoRoute }
                    | Cause::LostBehindGateway { at: Spot::Transit(_), reason: NextHop::NoRoute },
                ) if outcome.exits => {}
                (_, Cause::LostBehindGateway { .. }) => {
                    self.found.add(cause, Severity::Warning, flow);
                }
                _ => {
                    let severity = if outcome.exits { Severity::Warning } else { Severity::Error };
                    self.found.draft(cause.clone(), severity).blamed = hole;
                    self.found.add(cause, severity, flow);
                }
            }
        }
    }
}

impl Flow {
    /// Packets that go this way, without their answers.
    pub fn along(
        way: &Walk,
        from: Entry,
        to: Option<Entry>,
        source: ClassId,
        destination: ClassId,
    ) -> Flow {
        let choices = way.choices.clone();
        Flow { from, to, source, destination, choices, with_answer: false }
    }

    /// The same flow with its answers, and what is chosen for both.
    pub fn answered(self, choices: Choices) -> Flow {
        Flow { choices, with_answer: true, ..self }
    }

    /// The same flow seen from its other end.
    fn reversed(self) -> Flow {
        Flow {
            from: self.to.unwrap_or(self.from),
            to: Some(self.from),
            source: self.destination,
            destination: self.source,
            ..self
        }
    }
}

/// The last hop of a way that begins here: the way may be that of a subnet like this.
pub(super) fn last(way: &Walk, from: Entry) -> Entry {
    if way.hops.len() == 1 { from } else { way.last() }
}

/// A circle, whichever of its hops was met first.
pub(super) fn circle(hops: &[Entry], answers: bool) -> Cause {
    let mut hops = hops.to_vec();
    let lowest = hops.iter().enumerate().min_by_key(|(_, hop)| **hop).map_or(0, |(at, _)| at);
    hops.rotate_left(lowest);
    Cause::Circle { hops, answers }
}
