//! The address space cut into classes: addresses that no table, subnet or interface tells apart.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::space::{Family, Ranges, bits, starts};
use crate::{
    EdgeId, InterfaceId, InterfaceKind, NextHop, SubnetId, TableId, Topology, TransitTarget, VpcId,
};

/// A class, by its place among all: IPv4 first, then by its lowest address.
pub(super) type ClassId = usize;

/// Addresses of the documentation, which a reader takes for the internet.
const FAMILIAR: [&str; 4] = ["203.0.113.7", "198.51.100.7", "2001:db8::7", "2600::7"];

/// All addresses of both families, each in one class.
#[derive(Debug)]
pub(super) struct Classes {
    all: Vec<Class>,
    v4: Cut,
    v6: Cut,
    /// Of each subnet, the classes of its machines: all but the addresses of its NAT gateways.
    of_subnet: Vec<Vec<ClassId>>,
}

/// Addresses that go the same way from everywhere.
#[derive(Debug)]
pub(super) struct Class {
    pub family: Family,
    pub ranges: Ranges,
    /// One of them, for counter-examples.
    pub address: IpAddr,
    /// Whose they are, in each VPC that has them in a subnet.
    pub owners: Vec<(VpcId, Owner)>,
    /// Whether they are in the ranges of any VPC.
    pub inside: bool,
    /// Whether a public address stands for each of them at an internet gateway, and they are not
    /// those of NAT gateways.
    pub mapped: bool,
}

/// Who has an address in a VPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub subnet: SubnetId,
    pub interface: Option<InterfaceId>,
}

/// Where each stretch of a family begins, and its class.
#[derive(Debug, Default)]
struct Cut {
    starts: Vec<u128>,
    classes: Vec<ClassId>,
}

/// What tells addresses apart: the answers of all tables, and whose they are.
#[derive(PartialEq, Eq, Hash)]
struct Signature {
    hops: Vec<NextHop>,
    /// The blackholes that have it, each with its table: they are told one by one.
    holes: Vec<(TableId, IpNet)>,
    transit: Vec<Option<TransitTarget>>,
    owners: Vec<(VpcId, Owner)>,
    /// The ways out that have learned of it.
    learned: Vec<EdgeId>,
    inside: bool,
    mapped: bool,
}

impl Classes {
    pub fn new(topology: &Topology) -> Classes {
        let mut classes = Classes {
            all: Vec::new(),
            v4: Cut::default(),
            v6: Cut::default(),
            of_subnet: Vec::new(),
        };
        let borders = borders(topology);
        for family in Family::BOTH {
            let cut = classes.cut(topology, family, &borders);
            match family {
                Family::V4 => classes.v4 = cut,
                Family::V6 => classes.v6 = cut,
            }
        }
        let subnets = topology.subnets();
        classes.of_subnet = subnets.map(|(id, _)| classes.machines(topology, id)).collect();
        classes
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// How many stretches of addresses there are, in both families.
    pub fn stretches(&self) -> usize {
        self.v4.starts.len() + self.v6.starts.len()
    }

    pub fn get(&self, id: ClassId) -> &Class {
        &self.all[id]
    }

    pub fn of_family(&self, family: Family) -> impl Iterator<Item = (ClassId, &Class)> {
        self.all.iter().enumerate().filter(move |(_, class)| class.family == family)
    }

    /// The classes of a subnet's machines.
    pub fn of_subnet(&self, id: SubnetId) -> &[ClassId] {
        &self.of_subnet[id.index()]
    }

    /// The class of an address.
    pub fn of(&self, address: IpAddr) -> ClassId {
        let cut = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let behind = cut.starts.partition_point(|start| *start <= bits(address));
        cut.classes[behind.saturating_sub(1)]
    }

    fn cut(&mut self, topology: &Topology, family: Family, borders: &[IpNet]) -> Cut {
        let starts = starts(family, borders);
        let mapped = mapped(topology);
        let mut known: HashMap<Signature, (ClassId, Vec<(u128, u128)>)> = HashMap::new();
        let mut classes = Vec::with_capacity(starts.len());
        let mut next = self.all.len();
        for (index, start) in starts.iter().enumerate() {
            let last = starts.get(index + 1).map_or(family.last(), |next| next - 1);
            let signature = Signature::of(topology, family.address(*start), &mapped);
            let (id, ranges) = known.entry(signature).or_insert_with(|| {
                next += 1;
                (next - 1, Vec::new())
            });
            ranges.push((*start, last));
            classes.push(*id);
        }
        let mut found: Vec<_> = known.into_iter().collect();
        found.sort_unstable_by_key(|(_, (id, _))| *id);
        self.all.extend(found.into_iter().map(|(signature, (_, ranges))| {
            let ranges = Ranges::new(ranges);
            let address = example(topology, family, &ranges, &signature.owners);
            let Signature { owners, inside, mapped, .. } = signature;
            Class { family, ranges, address, owners, inside, mapped }
        }));
        Cut { starts, classes }
    }

    fn machines(&self, topology: &Topology, subnet: SubnetId) -> Vec<ClassId> {
        let vpc = topology.subnet(subnet).vpc;
        let is_machine = |owner: &Owner| {
            let nat = |id| topology.interface(id).kind != InterfaceKind::NetworkInterface;
            owner.subnet == subnet && !owner.interface.is_some_and(nat)
        };
        let has = |class: &Class| class.owners.iter().any(|(of, it)| *of == vpc && is_machine(it));
        (0..self.all.len()).filter(|id| has(&self.all[*id])).collect()
    }
}

impl Class {
    /// Whether a reader knows its example: an address of a subnet, or one of the documentation.
    pub fn is_familiar(&self) -> bool {
        !self.owners.is_empty() || FAMILIAR.contains(&self.address.to_string().as_str())
    }

    /// Whose these addresses are in a VPC.
    pub fn owner(&self, vpc: VpcId) -> Option<Owner> {
        self.owners.iter().find(|(of, _)| *of == vpc).map(|(_, owner)| *owner)
    }
}

impl Signature {
    fn of(topology: &Topology, address: IpAddr, mapped: &HashMap<IpAddr, VpcId>) -> Signature {
        let tables = (0..topology.tables().len() as u16).map(TableId::from_index);
        let hops: Vec<NextHop> =
            tables.clone().map(|table| topology.next_hop_in(table, address)).collect();
        let lost = tables.zip(&hops).filter(|(_, hop)| **hop == NextHop::Blackhole);
        let holes = lost.filter_map(|(table, _)| {
            Some((table, topology.table(table).candidates(address).first()?.destination))
        });
        let owners = topology.vpcs().filter_map(|(vpc, _)| {
            let subnet = topology.subnet_of(vpc, address)?;
            Some((vpc, Owner { subnet, interface: topology.interface_of(vpc, address) }))
        });
        Signature {
            holes: holes.collect(),
            hops,
            transit: topology
                .transit_tables()
                .map(|(_, table)| table.route(address).map(|(_, target)| target))
                .collect(),
            owners: owners.collect(),
            learned: topology
                .edges()
                .filter(|(_, edge)| edge.learned.iter().any(|(net, _)| net.contains(&address)))
                .map(|(id, _)| id)
                .collect(),
            inside: topology
                .vpcs()
                .any(|(_, vpc)| vpc.cidrs.iter().any(|cidr| cidr.contains(&address))),
            mapped: mapped.contains_key(&address),
        }
    }
}

/// Every prefix at whose ends something may change.
fn borders(topology: &Topology) -> Vec<IpNet> {
    let tables = topology.tables().flat_map(|(_, table)| table.routes().map(|it| it.destination));
    let transit = topology
        .transit_tables()
        .flat_map(|(_, table)| table.routes().map(|(destination, ..)| destination));
    let vpcs = topology.vpcs().flat_map(|(_, vpc)| vpc.cidrs.iter().copied());
    let subnets = topology.subnets().flat_map(|(_, subnet)| subnet.cidrs.iter().copied());
    let interfaces = topology
        .interfaces()
        .flat_map(|(_, interface)| interface.addresses.iter().map(|it| IpNet::from(*it)));
    let mappings = topology
        .gateways()
        .flat_map(|(_, gateway)| gateway.addresses.iter().map(|it| IpNet::from(it.private)));
    let learned = topology.edges().flat_map(|(_, edge)| edge.learned.iter().map(|(net, _)| *net));
    let tables = tables.chain(learned);
    tables.chain(transit).chain(vpcs).chain(subnets).chain(interfaces).chain(mappings).collect()
}

/// The private addresses that public ones stand for, without those of NAT gateways.
fn mapped(topology: &Topology) -> HashMap<IpAddr, VpcId> {
    let mappings = topology.gateways().flat_map(|(_, gateway)| {
        gateway.addresses.iter().map(|mapping| (mapping.private, gateway.vpc))
    });
    let of_nat = |(address, vpc): &(IpAddr, VpcId)| {
        topology
            .interface_of(*vpc, *address)
            .is_some_and(|id| topology.interface(id).kind != InterfaceKind::NetworkInterface)
    };
    mappings.filter(|mapping| !of_nat(mapping)).collect()
}

/// An address that a reader takes for a machine of a subnet, or of the internet.
fn example(
    topology: &Topology,
    family: Family,
    ranges: &Ranges,
    owners: &[(VpcId, Owner)],
) -> IpAddr {
    let of_subnets = owners
        .iter()
        .flat_map(|(_, owner)| &topology.subnet(owner.subnet).cidrs)
        .filter(|cidr| Family::of(cidr.addr()) == family)
        .flat_map(|cidr| [10, 5].map(|host| bits(cidr.network()) + host));
    let familiar = FAMILIAR
        .iter()
        .filter_map(|text| text.parse().ok())
        .filter(|address| Family::of(*address) == family)
        .map(bits);
    let host = |(first, last): (u128, u128)| first + (last - first).min(10);
    let anywhere = ranges.iter().map(host);
    let mut candidates = of_subnets.chain(familiar).chain(anywhere);
    family.address(candidates.find(|it| ranges.contains(*it)).unwrap_or_default())
}
