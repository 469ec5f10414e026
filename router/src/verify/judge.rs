//! From every place to everywhere, and back.

use super::classes::{ClassId, Classes};
use super::collect::{Cause, Collector, Fate, Flow};
use super::roles::{Arrival, Roles, Seen, lets_in, outside};
use super::space::Family;
use super::walks::{Choices, End, Walk, Walks};
use super::{Examined, Report, Severity};
use crate::{
    Attachment, EdgeKind, EndpointId, Entry, InterfaceId, NextHop, SubnetId, TableId, Topology,
    TransitAttachmentId, VpcId,
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

/// A way of answers, through the same NAT gateways.
#[derive(Clone, Debug)]
pub(super) struct Back {
    pub choices: Choices,
    /// The endpoints of each stretch, and where it begins; the first is that of the far end.
    stretches: Vec<(Entry, Vec<EndpointId>)>,
    arrivals: Vec<(TransitAttachmentId, SubnetId)>,
    crossings: Vec<(Entry, EndpointId)>,
    /// Where and why it does not come home.
    pub fate: Option<(Entry, Fate)>,
    circle: Vec<Entry>,
}

/// Where an answer should arrive.
#[derive(Clone, Copy)]
enum Home {
    Nat(InterfaceId),
    Place(SubnetId, ClassId),
}

/// A place with all its addresses of a family, in one direction of a flow.
#[derive(Clone, Copy)]
struct Side<'a> {
    place: SubnetId,
    sources: &'a [ClassId],
    family: Family,
}

/// What goes out of a place and is lost after inspection, until it is known whether anything is not.
#[derive(Default)]
struct Outcome {
    lost: Vec<(Cause, Flow)>,
    exits: bool,
}

impl<'t> Judge<'t> {
    pub fn new(topology: &'t Topology) -> Judge<'t> {
        Judge {
            topology,
            classes: Classes::new(topology),
            walks: Walks::new(topology),
            roles: Roles::new(topology),
            found: Collector::default(),
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
        let flow = |to: Option<Entry>, source: ClassId| Flow {
            from,
            to,
            source,
            destination,
            choices: way.choices.clone(),
            with_answer: false,
        };
        match way.end {
            End::Circle(first) => {
                let cause = circle(&way.hops[first..]);
                for source in side.sources {
                    self.found.add(cause.clone(), Severity::Error, flow(None, *source));
                }
            }
            End::Lost(reason) => {
                let to = self.wanted(side.place, destination);
                let external = !class.inside && self.has_exit(side.family);
                let at = last(way, from);
                let inspected = way.is_inspected();
                let hole = self.blackhole(at, destination);
                let is_default = hole.is_some_and(|(_, route)| route.prefix_len() == 0);
                let cause = match hole {
                    // That nobody holds an address of the VPC is no fault of the tables.
                    _ if inspected && (to.is_some() || external && reason != NextHop::NoSubnet) => {
                        Cause::LostAfter { at, reason }
                    }
                    Some((table, route)) if to.is_some() || external && is_default => {
                        Cause::Blackhole { table, route }
                    }
                    _ => return,
                };
                for source in side.sources {
                    if to.is_some_and(|to| self.roles.is_silent(from, to)) {
                        continue;
                    }
                    let flow = flow(to, *source);
                    match &cause {
                        Cause::LostAfter { .. } if to.is_none() => {
                            all.lost.push((cause.clone(), flow));
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
            let flow = Flow {
                from,
                to: Some(exit),
                source,
                destination,
                choices: way.choices.clone(),
                with_answer: false,
            };
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
                let flow =
                    Flow { choices: back.choices.clone(), with_answer: true, ..flow.clone() };
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
                let flow = Flow {
                    from,
                    to: Some(to),
                    source,
                    destination,
                    choices: back.choices.clone(),
                    with_answer: true,
                };
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
            let flow = Flow {
                from,
                to: Some(to),
                source,
                destination,
                choices: way.choices.clone(),
                with_answer: false,
            };
            self.found.add(Cause::NotFollowed { to }, Severity::Info, flow);
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
                self.found.add(circle(&back.circle), Severity::Error, flow);
            }
            Fate::Unknown(to) => {
                self.found.add(Cause::NotFollowed { to }, Severity::Info, flow);
            }
            _ => {
                let cause = Cause::LostReturn { at, fate };
                if fate == Fate::Lost(NextHop::Blackhole) {
                    self.found.draft(cause.clone(), severity).blamed =
                        self.blackhole(at, flow.source);
                }
                self.found.add(cause, severity, flow);
            }
        }
    }

    /// The ways of answers to a packet that has left here, back to the place that it came from.
    pub fn ways_back(
        &mut self,
        way: &Walk,
        from: Entry,
        home: SubnetId,
        source: ClassId,
    ) -> Vec<Back> {
        let mut ways = vec![Back {
            choices: way.choices.clone(),
            stretches: Vec::new(),
            arrivals: Vec::new(),
            crossings: Vec::new(),
            fate: None,
            circle: Vec::new(),
        }];
        let mut at = from;
        let nat = way.nat.iter().rev().map(|id| Home::Nat(*id));
        for home in nat.chain([Home::Place(home, source)]) {
            let class = match home {
                // Whoever translates has an address to translate to.
                Home::Nat(id) => match self.topology.interface(id).addresses.first() {
                    Some(address) => self.classes.of(*address),
                    None => return Vec::new(),
                },
                Home::Place(_, class) => class,
            };
            let onward = self.walks.of(at, &self.classes, class);
            let so_far = std::mem::take(&mut ways);
            for back in so_far {
                if back.fate.is_some() {
                    ways.push(back);
                    continue;
                }
                for walk in &*onward {
                    let Some(choices) = back.choices.and(&walk.choices) else { continue };
                    ways.push(self.extended(&back, choices, at, walk, home));
                }
            }
            if let Home::Nat(id) = home {
                at = Entry::Interface(id);
            }
        }
        ways
    }

    fn extended(&self, back: &Back, choices: Choices, at: Entry, walk: &Walk, home: Home) -> Back {
        let mut back = Back { choices, ..back.clone() };
        back.stretches.push((at, walk.endpoints().collect()));
        back.arrivals.extend(&walk.arrivals);
        back.crossings.extend(&walk.crossings);
        let last = last(walk, at);
        let fate = match walk.end {
            End::Lost(reason) => Some(Fate::Lost(reason)),
            End::Circle(first) => {
                back.circle = walk.hops[first..].to_vec();
                Some(Fate::Circles)
            }
            End::Out(_) if !walk.nat.is_empty() => Some(Fate::Translated(walk.nat[0])),
            End::Out(attachment) => self.missed(attachment, home),
        };
        back.fate = fate.map(|fate| (last, fate));
        back
    }

    /// Where else than home an answer has arrived.
    fn missed(&self, attachment: Attachment, home: Home) -> Option<Fate> {
        match (attachment, home) {
            (Attachment::Interface(id), Home::Nat(nat)) if id == nat => None,
            (Attachment::Subnet(id), Home::Place(subnet, _)) if id == subnet => None,
            (Attachment::Interface(id), Home::Place(subnet, class))
                if self.topology.interface(id).subnet == subnet && self.has(class, id) =>
            {
                None
            }
            (Attachment::Interface(id), Home::Place(_, class)) if !self.has(class, id) => {
                Some(Fate::Unknown(Entry::Interface(id)))
            }
            (Attachment::Edge(id), _)
                if matches!(self.topology.edge(id).kind, EdgeKind::Opaque(_)) =>
            {
                Some(Fate::Unknown(Entry::Edge(id)))
            }
            _ => Some(Fate::Astray(attachment.into())),
        }
    }

    fn has(&self, class: ClassId, id: InterfaceId) -> bool {
        let owners = &self.classes.get(class).owners;
        owners.iter().any(|(_, owner)| owner.interface == Some(id))
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

    /// The place that an address is for, as far as packets may go there from here.
    fn wanted(&self, from: SubnetId, destination: ClassId) -> Option<Entry> {
        let vpc = self.topology.subnet(from).vpc;
        let is_wanted = |(of, subnet): &(VpcId, SubnetId)| {
            *subnet != from && self.roles.connected(vpc, *of) && self.roles.is_place(*subnet)
        };
        let owners = &self.classes.get(destination).owners;
        let nat = |id| self.topology.interface(id).kind != crate::InterfaceKind::NetworkInterface;
        owners
            .iter()
            .filter(|(_, owner)| !owner.interface.is_some_and(nat))
            .map(|(of, owner)| (*of, owner.subnet))
            .find(is_wanted)
            .map(|(_, subnet)| Entry::Subnet(subnet))
    }

    /// Whether anything leads out for a family, so that addresses outside mean something.
    fn has_exit(&self, family: Family) -> bool {
        let carries = |exit: &Entry| family == Family::V6 || lets_in(self.topology, *exit);
        outside(self.topology).iter().any(carries)
    }

    /// The table and the route that lose a packet for an address, if a blackhole does.
    pub fn blackhole(&self, at: Entry, class: ClassId) -> Option<(TableId, ipnet::IpNet)> {
        let address = self.classes.get(class).address;
        let table = self.topology.table_for(at);
        if self.topology.next_hop_in(table, address) != NextHop::Blackhole {
            return None;
        }
        let candidates = self.topology.table(table).candidates(address);
        candidates.first().map(|route| (table, route.destination))
    }

    fn settle(&mut self, outcome: Outcome) {
        for (cause, flow) in outcome.lost {
            let Cause::LostAfter { at, reason } = cause else { continue };
            let table = self.topology.table_for(at);
            let address = self.classes.get(flow.destination).address;
            let transit = matches!(self.topology.next_hop_in(table, address), NextHop::Transit(_));
            match self.blackhole(at, flow.destination) {
                // No VPC at the transit gateway has the address: nobody is missing anything.
                None if outcome.exits && transit && reason == NextHop::NoRoute => {}
                Some((table, route)) if outcome.exits => {
                    self.found.add(Cause::Blackhole { table, route }, Severity::Warning, flow);
                }
                hole => {
                    let severity = if outcome.exits { Severity::Warning } else { Severity::Error };
                    self.found.draft(cause.clone(), severity).blamed = hole;
                    self.found.add(cause, severity, flow);
                }
            }
        }
    }
}

impl Back {
    pub fn is_inspected(&self) -> bool {
        self.stretches.iter().any(|(_, passed)| !passed.is_empty())
    }
}

impl Flow {
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
pub(super) fn circle(hops: &[Entry]) -> Cause {
    let mut hops = hops.to_vec();
    let lowest = hops.iter().enumerate().min_by_key(|(_, hop)| **hop).map_or(0, |(at, _)| at);
    hops.rotate_left(lowest);
    Cause::Circle { hops }
}
