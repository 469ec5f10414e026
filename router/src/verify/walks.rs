//! The ways of packets, for every choice that can be made on them, each walked once.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::classes::{ClassId, Classes};
use crate::{
    Attachment, Choose, EndpointId, Entry, GroupId, InterfaceId, NextHop, Step, SubnetId, Topology,
    TransitAttachmentId, TransitTarget,
};

/// Something that is chosen for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Point {
    /// The zone of an attachment in appliance mode.
    Zone(TransitAttachmentId),
    /// The member of a group.
    Member(GroupId),
}

/// What is chosen where; a point that is not in it has not been asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Choices(Vec<(Point, usize)>);

impl Choices {
    pub fn get(&self, point: Point) -> Option<usize> {
        self.0.iter().find(|(of, _)| *of == point).map(|(_, choice)| *choice)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Point, usize)> {
        self.0.iter().copied()
    }

    fn with(&self, point: Point, choice: usize) -> Choices {
        let mut all = self.0.clone();
        all.push((point, choice));
        all.sort_unstable();
        Choices(all)
    }

    /// Both together, if they do not contradict each other.
    pub fn and(&self, other: &Choices) -> Option<Choices> {
        let mut all = self.clone();
        for (point, choice) in other.iter() {
            match all.get(point) {
                None => all = all.with(point, choice),
                Some(same) if same == choice => {}
                Some(_) => return None,
            }
        }
        Some(all)
    }
}

/// The way of a packet from where it enters to where it leaves or is lost.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// What it depends on.
    pub choices: Choices,
    /// Where it is looked up, in order; never empty.
    pub hops: Vec<Entry>,
    /// The endpoints that it passes, in order: a list for each stretch between NAT gateways.
    pub stretches: Vec<Vec<EndpointId>>,
    /// The NAT gateways between the stretches.
    pub nat: Vec<InterfaceId>,
    /// Where it comes out of transit gateways.
    pub arrivals: Vec<(TransitAttachmentId, SubnetId)>,
    /// The endpoints that a route leads to from another zone, not as members of a group.
    pub crossings: Vec<(Entry, EndpointId)>,
    pub end: End,
}

/// How a way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    Out(Attachment),
    /// Lost at the last hop, for this reason, which is not [`NextHop::Loop`].
    Lost(NextHop),
    /// It goes on for ever from the hop at this place.
    Circle(usize),
}

impl Walk {
    pub fn is_inspected(&self) -> bool {
        self.stretches.iter().any(|passed| !passed.is_empty())
    }

    pub fn endpoints(&self) -> impl Iterator<Item = EndpointId> {
        self.stretches.iter().flatten().copied()
    }

    /// The last hop.
    pub fn last(&self) -> Entry {
        self.hops[self.hops.len() - 1]
    }
}

/// All ways that have been asked for.
#[derive(Debug)]
pub(super) struct Walks<'t> {
    topology: &'t Topology,
    known: HashMap<(Entry, ClassId), Rc<[Walk]>>,
    /// For each subnet, the first with the same table in the same zone: all goes alike from both.
    alike: Vec<Entry>,
    lookups: Cell<usize>,
}

impl<'t> Walks<'t> {
    pub fn new(topology: &'t Topology) -> Walks<'t> {
        let mut first = HashMap::new();
        let alike = topology.subnets().map(|(id, subnet)| {
            *first.entry((subnet.table, &subnet.zone)).or_insert(Entry::Subnet(id))
        });
        Walks { topology, alike: alike.collect(), known: HashMap::new(), lookups: Cell::new(0) }
    }

    /// How many ways there are, and how many lookups they took.
    pub fn count(&self) -> (usize, usize) {
        (self.known.values().map(|walks| walks.len()).sum(), self.lookups.get())
    }

    /// The ways of a class of addresses from here, for all choices. The first hop may be another
    /// subnet from which all goes alike.
    pub fn of(&mut self, from: Entry, classes: &Classes, class: ClassId) -> Rc<[Walk]> {
        let from = match from {
            Entry::Subnet(id) => self.alike[id.index()],
            other => other,
        };
        if let Some(known) = self.known.get(&(from, class)) {
            return Rc::clone(known);
        }
        let mut walks = Vec::new();
        self.follow(from, classes.get(class).address, Choices::default(), &mut walks);
        let walks: Rc<[Walk]> = walks.into();
        self.known.insert((from, class), Rc::clone(&walks));
        walks
    }

    /// Whenever something is to be chosen that is not yet, begins again with each choice. All members
    /// of a group are possible: one of weight 0 gets flows if no other can, and one that is disabled
    /// keeps those that it has.
    fn follow(&self, from: Entry, address: IpAddr, choices: Choices, found: &mut Vec<Walk>) {
        let mut walk = Walk {
            choices,
            hops: Vec::new(),
            stretches: vec![Vec::new()],
            nat: Vec::new(),
            arrivals: Vec::new(),
            crossings: Vec::new(),
            end: End::Circle(0),
        };
        let mut at = from;
        loop {
            if let Some(first) = walk.hops.iter().position(|hop| *hop == at) {
                walk.end = End::Circle(first);
                break;
            }
            walk.hops.push(at);
            self.lookups.set(self.lookups.get() + 1);
            let chooser = Chooser { made: &walk.choices, open: Cell::new(None) };
            let step = self.topology.step(at, address, &chooser);
            if let Some((point, count)) = chooser.open.get() {
                for choice in 0..count {
                    self.follow(from, address, walk.choices.with(point, choice), found);
                }
                return;
            }
            match step {
                Step::Onward(next) => {
                    self.note(&mut walk, at, next, address);
                    at = next;
                }
                Step::Out(attachment) => {
                    walk.end = End::Out(attachment);
                    break;
                }
                Step::Lost(NextHop::Loop) => {
                    walk.end = End::Circle(walk.hops.len() - 1);
                    break;
                }
                Step::Lost(reason) => {
                    walk.end = End::Lost(reason);
                    break;
                }
            }
        }
        found.push(walk);
    }

    /// What a step adds to a way.
    fn note(&self, walk: &mut Walk, at: Entry, next: Entry, address: IpAddr) {
        let topology = self.topology;
        match (next, topology.lookup(at, address)) {
            (Entry::Endpoint(id), hop) => {
                if let Some(passed) = walk.stretches.last_mut() {
                    passed.push(id);
                }
                if matches!(hop, NextHop::Endpoint(_)) && self.crosses(at, id) {
                    walk.crossings.push((at, id));
                }
            }
            (Entry::Interface(id), _) => {
                walk.nat.push(id);
                walk.stretches.push(Vec::new());
            }
            (Entry::Subnet(subnet), NextHop::Transit(from)) => {
                if let Some(TransitTarget::Attachment(to)) = topology.transit_target(from, address)
                {
                    walk.arrivals.push((to, subnet));
                }
            }
            _ => {}
        }
    }

    /// Whether an endpoint is in another zone than packets come from, though its service has one
    /// in their zone of the same VPC.
    fn crosses(&self, at: Entry, id: EndpointId) -> bool {
        let topology = self.topology;
        let endpoint = topology.endpoint(id);
        let Some(zone) = topology.zone(at).filter(|zone| *zone != endpoint.zone) else {
            return false;
        };
        let vpc = |subnet: SubnetId| topology.subnet(subnet).vpc;
        topology.endpoints().any(|(_, other)| {
            other.service == endpoint.service
                && other.zone == zone
                && vpc(other.subnet) == vpc(endpoint.subnet)
        })
    }
}

/// What is not chosen is the first.
impl Choose for Choices {
    fn zone(&self, attachment: TransitAttachmentId, _: usize) -> usize {
        self.get(Point::Zone(attachment)).unwrap_or(0)
    }

    fn member(&self, group: GroupId, _: usize) -> usize {
        self.get(Point::Member(group)).unwrap_or(0)
    }
}

/// Answers with what is chosen, and notes what is not.
struct Chooser<'c> {
    made: &'c Choices,
    open: Cell<Option<(Point, usize)>>,
}

impl Chooser<'_> {
    fn choice(&self, point: Point, count: usize) -> usize {
        self.made.get(point).unwrap_or_else(|| {
            self.open.set(Some((point, count)));
            0
        })
    }
}

impl Choose for Chooser<'_> {
    fn zone(&self, attachment: TransitAttachmentId, zones: usize) -> usize {
        self.choice(Point::Zone(attachment), zones)
    }

    fn member(&self, group: GroupId, members: usize) -> usize {
        self.choice(Point::Member(group), members)
    }
}
