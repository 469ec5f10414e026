//! Where the packets of a network go: each class of addresses, from each place where packets come
//! from, by every choice that may be made on the way.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;

use super::kind::Place;
use crate::space::{Family, Ranges, bits, starts};
use crate::topology::{
    Attachment, Choose, EdgeKind, Entry, GroupId, InterfaceKind, NextHop, Step, SubnetId, Topology,
    TransitAttachmentId,
};

/// All addresses, cut where any table of some networks makes a difference.
pub(super) struct Classes {
    /// The first address of each class, in order: IPv4, then IPv6. A class ends before the next.
    starts: Vec<IpAddr>,
}

impl Classes {
    /// The classes of these networks together. The tables of networks between them have no other
    /// borders.
    pub fn new(networks: &[&Topology]) -> Classes {
        let borders: Vec<IpNet> = networks.iter().flat_map(|network| borders(network)).collect();
        let of_family = |family| {
            starts(family, &borders).into_iter().map(move |start| Family::address(family, start))
        };
        Classes { starts: Family::BOTH.into_iter().flat_map(of_family).collect() }
    }

    /// An address of each class, which stands for all of it.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.starts
    }

    /// The prefixes that some classes are, given by their indices.
    pub fn prefixes(&self, classes: &[usize]) -> Vec<IpNet> {
        let of_family = |family| {
            let of_family = classes.iter().filter(|it| Family::of(self.starts[**it]) == family);
            let ranges = of_family.map(|it| (bits(self.starts[*it]), self.last(family, *it)));
            Ranges::new(ranges).prefixes(family)
        };
        Family::BOTH.into_iter().flat_map(of_family).collect()
    }

    fn last(&self, family: Family, class: usize) -> u128 {
        let next = self.starts.get(class + 1).filter(|next| Family::of(**next) == family);
        next.map_or(family.last(), |next| bits(*next) - 1)
    }
}

/// Every prefix at whose ends something may change.
fn borders(network: &Topology) -> impl Iterator<Item = IpNet> {
    let routes = network.tables().flat_map(|(_, table)| table.routes().map(|it| it.destination));
    let subnets = network.subnets().flat_map(|(_, subnet)| subnet.cidrs.iter().copied());
    let interfaces = network.interfaces().flat_map(|(_, it)| &it.addresses);
    let mappings = network.gateways().flat_map(|(_, gateway)| &gateway.addresses);
    let public = mappings.flat_map(|mapping| [&mapping.public, &mapping.private]);
    let hosts = interfaces.chain(public).map(|address| IpNet::from(*address));
    let transit = network
        .transit_tables()
        .flat_map(|(_, table)| table.routes().map(|(destination, ..)| destination));
    routes.chain(subnets).chain(hosts).chain(transit)
}

/// The places where packets come from: gateways, subnets, NAT gateways, and what is opaque.
/// Machines with interfaces use the tables of their subnets.
fn entries(network: &Topology) -> impl Iterator<Item = Entry> {
    let nat = network.interfaces().filter(|(_, it)| it.kind != InterfaceKind::NetworkInterface);
    let edges = network.edges().filter(|(_, it)| it.kind != EdgeKind::EgressOnlyInternetGateway);
    let gateways = network.gateways().map(|(id, _)| Entry::InternetGateway(id));
    let subnets = network.subnets().map(|(id, _)| Entry::Subnet(id));
    gateways
        .chain(edges.map(|(id, _)| Entry::Edge(id)))
        .chain(subnets)
        .chain(nat.map(|(id, _)| Entry::Interface(id)))
}

/// Something of every entry, which is found out once for all subnets of a zone with the same table:
/// what leaves them goes the same ways. Each of those that ways come through is on its own: a way that
/// begins there and comes back is a circle already, and from the others it is none yet.
pub(super) fn by_entry<T: ?Sized>(
    network: &Topology,
    mut find: impl FnMut(Entry) -> Rc<T>,
) -> Vec<(Entry, Rc<T>)> {
    let attachments = network.transit_attachments();
    let crossed: HashSet<SubnetId> = attachments.flat_map(|(_, it)| &it.subnets).copied().collect();
    let mut known: HashMap<_, Rc<T>> = HashMap::new();
    let of = |entry: Entry| {
        let is_like_others = matches!(entry, Entry::Subnet(id) if !crossed.contains(&id));
        let own = (!is_like_others).then_some(entry);
        let key = (network.table_for(entry), network.zone(entry), own);
        (entry, Rc::clone(known.entry(key).or_insert_with(|| find(entry))))
    };
    entries(network).map(of).collect()
}

/// The way of a packet.
pub(super) struct Way {
    /// Where it is looked up, one place after the other.
    pub places: Vec<Entry>,
    /// The address that it is looked up by.
    pub destination: IpAddr,
    /// How it ends.
    pub end: Result<Attachment, NextHop>,
}

/// The ways of a packet from where it enters, one for each of the choices that can be made on it.
pub(super) fn ways(network: &Topology, from: Entry, to: IpAddr) -> Vec<Way> {
    let chooser = Chooser { made: RefCell::default() };
    let mut ways = Vec::new();
    loop {
        ways.push(walk(network, from, to, &chooser));
        // The last choice that can be made otherwise is; those behind it depend on it.
        let mut made = chooser.made.borrow_mut();
        while made.pop_if(|choice| choice.taken + 1 == choice.of).is_some() {}
        match made.last_mut() {
            Some(choice) => choice.taken += 1,
            None => return ways,
        }
    }
}

fn walk(network: &Topology, from: Entry, to: IpAddr, chooser: &Chooser) -> Way {
    let destination = network.translated(from, to).unwrap_or(to);
    let mut places = vec![from];
    let mut at = from;
    let end = loop {
        match network.step(at, destination, chooser) {
            Step::Out(attachment) => break Ok(attachment),
            Step::Lost(why) => break Err(why),
            Step::Onward(next) if places.contains(&next) => break Err(NextHop::Loop),
            Step::Onward(next) => {
                places.push(next);
                at = next;
            }
        }
    };
    Way { places, destination, end }
}

/// Makes each choice once for a flow, and remembers which there were.
struct Chooser {
    made: RefCell<Vec<Choice>>,
}

struct Choice {
    point: Point,
    taken: usize,
    of: usize,
}

/// Where something is chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Point {
    Zone(TransitAttachmentId),
    Member(GroupId),
}

impl Chooser {
    fn choose(&self, point: Point, of: usize) -> usize {
        let mut made = self.made.borrow_mut();
        if let Some(choice) = made.iter().find(|choice| choice.point == point) {
            return choice.taken;
        }
        made.push(Choice { point, taken: 0, of });
        0
    }
}

impl Choose for Chooser {
    fn zone(&self, attachment: TransitAttachmentId, zones: usize) -> usize {
        self.choose(Point::Zone(attachment), zones)
    }

    fn member(&self, group: GroupId, members: usize) -> usize {
        self.choose(Point::Member(group), members)
    }
}

/// What becomes of a packet, without how: names of things that are there in several networks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Outcome {
    /// Where it leaves, if it is delivered.
    pub end: Option<u32>,
    /// The services that have inspected it.
    pub services: Vec<u32>,
}

/// The outcomes of a class from an entry, for every choice; a number for each such set.
pub(super) type Fate = u32;

/// Numbers for names and for fates, which hold for all networks of a plan.
pub(super) struct Book {
    names: HashMap<String, u32>,
    fates: HashMap<Vec<Outcome>, Fate>,
    by_number: Vec<Rc<[Outcome]>>,
    /// The names of things for the meantime, and their own.
    aliases: HashMap<String, String>,
    /// The ranges of each subnet before and afterwards. Nobody has an address yet, or any more,
    /// that is not in both.
    somebody: HashMap<String, [Vec<IpNet>; 2]>,
}

/// The fate of every class from every entry of a network.
pub(super) type Fates = BTreeMap<String, Rc<[Fate]>>;

impl Book {
    pub fn new(old: &Topology, new: &Topology, aliases: &BTreeMap<Place, Place>) -> Book {
        let aliases: HashMap<String, String> =
            aliases.iter().map(|(place, it)| (place.to_string(), it.to_string())).collect();
        let mut somebody: HashMap<String, [Vec<IpNet>; 2]> = HashMap::new();
        for (index, network) in [old, new].into_iter().enumerate() {
            for (id, subnet) in network.subnets() {
                let name = network.entry_name(Entry::Subnet(id));
                somebody.entry(name).or_default()[index].clone_from(&subnet.cidrs);
            }
        }
        let (names, fates) = (HashMap::new(), HashMap::new());
        Book { names, fates, by_number: Vec::new(), aliases, somebody }
    }

    /// The outcomes of a fate.
    pub fn outcomes(&self, fate: Fate) -> &Rc<[Outcome]> {
        &self.by_number[fate as usize]
    }

    /// The name of a place, which it has in all networks.
    pub fn name(&self, network: &Topology, entry: Entry) -> String {
        let name = network.entry_name(entry);
        self.aliases.get(&name).cloned().unwrap_or(name)
    }

    /// What becomes of all packets of a network.
    pub fn fates(&mut self, network: &Topology, classes: &Classes) -> Fates {
        let rows = by_entry(network, |entry| {
            let addresses = classes.addresses().iter();
            addresses.map(|address| self.fate(network, entry, *address)).collect()
        });
        rows.into_iter().map(|(entry, row)| (self.name(network, entry), row)).collect()
    }

    fn fate(&mut self, network: &Topology, from: Entry, to: IpAddr) -> Fate {
        let ways = ways(network, from, to);
        let mut outcomes: Vec<Outcome> =
            ways.iter().map(|way| self.outcome(network, way)).collect();
        outcomes.sort_unstable();
        outcomes.dedup();
        if let Some(fate) = self.fates.get(&outcomes) {
            return *fate;
        }
        let fate = self.by_number.len() as Fate;
        self.by_number.push(outcomes.as_slice().into());
        self.fates.insert(outcomes, fate);
        fate
    }

    fn outcome(&mut self, network: &Topology, way: &Way) -> Outcome {
        let lost = Outcome { end: None, services: Vec::new() };
        let Ok(attachment) = way.end else { return lost };
        let holder = match attachment {
            Attachment::Subnet(id) => Some(id),
            Attachment::Interface(id) => {
                let interface = network.interface(id);
                interface.addresses.contains(&way.destination).then_some(interface.subnet)
            }
            Attachment::InternetGateway(_) | Attachment::Edge(_) => None,
        };
        let holder = holder.map(|id| self.name(network, Entry::Subnet(id)));
        let is_in = |ranges: &Vec<IpNet>| ranges.iter().any(|it| it.contains(&way.destination));
        let is_somebody =
            |subnet: String| self.somebody.get(&subnet).is_some_and(|both| both.iter().all(is_in));
        if !holder.is_none_or(is_somebody) {
            return lost;
        }
        let name = self.name(network, attachment.into());
        let mut services: Vec<u32> = inspections(network, &way.places)
            .map(|service| self.number(&format!("service:{service}")))
            .collect();
        services.sort_unstable();
        services.dedup();
        Outcome { end: Some(self.number(&name)), services }
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.names.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.names.insert(name.to_owned(), number);
        number
    }
}

/// The services that a packet passes on its way, in order.
pub(super) fn inspections<'n>(
    network: &'n Topology,
    way: &[Entry],
) -> impl Iterator<Item = &'n str> {
    way.iter().filter_map(|at| match at {
        Entry::Endpoint(id) => Some(network.endpoint(*id).service.as_str()),
        _ => None,
    })
}
