//! The checked topology: immutable, shared between threads, asked once per packet.
//!
//! How it is checked is in [`build`]; how it speaks to people, in [`explain`].

mod build;
mod describe;
mod explain;
mod fib;
mod ids;
mod places;
mod resources;
mod table;
mod transit;
mod walk;

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use fib::{Fib, Near};

use crate::rules::RuleSet;

pub(crate) use build::Leftover;
pub use build::{Circles, derived_wire_id};
pub use describe::{
    Description, EdgeLine, EndpointLine, GatewayLine, GroupLine, InterfaceLine, LearnedLine,
    MemberLine, PrefixListLine, SubnetLine, TableLine, TransitAttachmentLine, TransitTableLine,
    VpcLine,
};
pub use explain::{Explanation, RouteLine};
pub use ids::{
    Attachment, EdgeId, EndpointId, Entry, GatewayId, GroupId, InterfaceId, NextHop, PrefixListId,
    SubnetId, TableId, TransitAttachmentId, TransitGatewayId, TransitTableId, VpcId,
};
pub use places::UnknownEntry;
pub use resources::{
    AddressMapping, Edge, EdgeKind, Endpoint, EndpointGroup, GroupMode, Intent, Interface,
    InterfaceKind, InternetGateway, Learned, Origin, PrefixList, Route, RouteState, Subnet, Target,
    Vpc,
};
pub use table::RouteTable;
pub use transit::{TransitAttachment, TransitGateway, TransitTable, TransitTarget};
pub use walk::{Choose, Fixed, Step};

/// VPCs, subnets, gateways, tables and endpoints that fit together.
///
/// Ids count each kind in the order of the file, from 0. An id of another topology may be out of
/// range here, and then the accessors that take it panic.
#[derive(Clone, Debug)]
pub struct Topology {
    rules: RuleSet,
    vpcs: Vec<Vpc>,
    subnets: Vec<Subnet>,
    gateways: Vec<InternetGateway>,
    edges: Vec<Edge>,
    interfaces: Vec<Interface>,
    transit_gateways: Vec<TransitGateway>,
    transit_tables: Vec<TransitTable>,
    transit_attachments: Vec<TransitAttachment>,
    prefix_lists: Vec<PrefixList>,
    tables: Vec<RouteTable>,
    endpoints: Vec<Endpoint>,
    groups: Vec<EndpointGroup>,
    intents: Vec<Intent>,
    names: Names,
    /// For each VPC, which subnet has an address.
    subnet_of: Vec<JointPrefixMap<IpNet, SubnetId>>,
    /// For each VPC, which interface has an address.
    interface_of: Vec<HashMap<IpAddr, InterfaceId>>,
    /// For each endpoint, the table of its subnet: the fast path's short cut.
    table_of_endpoint: Vec<TableId>,
    /// For each table, where every address goes: the fast path's other one.
    fibs: Vec<Fib>,
}

/// The ids by name, one map for each kind.
#[derive(Clone, Debug, Default)]
struct Names {
    vpcs: HashMap<String, VpcId>,
    subnets: HashMap<String, SubnetId>,
    gateways: HashMap<String, GatewayId>,
    virtual_private_gateways: HashMap<String, EdgeId>,
    egress_only_internet_gateways: HashMap<String, EdgeId>,
    opaques: HashMap<String, EdgeId>,
    network_interfaces: HashMap<String, InterfaceId>,
    nat_gateways: HashMap<String, InterfaceId>,
    transit_gateways: HashMap<String, TransitGatewayId>,
    transit_tables: HashMap<String, TransitTableId>,
    transit_attachments: HashMap<String, TransitAttachmentId>,
    prefix_lists: HashMap<String, PrefixListId>,
    tables: HashMap<String, TableId>,
    endpoints: HashMap<String, EndpointId>,
    groups: HashMap<String, GroupId>,
}

/// The routes of one [`Entry`].
#[derive(Debug, Clone, Copy)]
pub struct Routes<'a> {
    fib: &'a Fib,
    /// The number of the endpoint that packets come from, which must not go back there, or what none
    /// has.
    from: usize,
}

/// The same for many packets, of which most go where the one before went.
#[derive(Debug, Clone)]
pub struct Lookups<'a> {
    near: Near<'a>,
    from: usize,
}

impl<'a> Routes<'a> {
    /// Where a packet for this address goes. Allocates nothing.
    #[inline]
    pub fn lookup(&self, destination: IpAddr) -> NextHop {
        or_loop(self.fib.next_hop(destination), self.from)
    }

    /// For looking up many packets.
    #[inline]
    pub fn lookups(&self) -> Lookups<'a> {
        Lookups { near: self.fib.near(), from: self.from }
    }
}

impl Lookups<'_> {
    /// Where a packet for this address goes. Allocates nothing.
    #[expect(clippy::inline_always, reason = "whoever calls it knows the version, mostly")]
    #[inline(always)]
    pub fn lookup(&mut self, destination: IpAddr) -> NextHop {
        or_loop(self.near.next_hop(destination), self.from)
    }
}

/// What becomes of a packet that would go back to the endpoint which it comes from.
#[inline]
fn or_loop(next_hop: NextHop, from: usize) -> NextHop {
    match next_hop {
        NextHop::Endpoint(id) if id.index() == from => NextHop::Loop,
        next_hop => next_hop,
    }
}

impl Topology {
    /// Where a packet goes that entered here and is for this address. Allocates nothing.
    #[inline]
    pub fn lookup(&self, from: Entry, destination: IpAddr) -> NextHop {
        self.routes(from).lookup(destination)
    }

    /// What decides about packets that enter here, for looking up many of them.
    #[inline]
    pub fn routes(&self, from: Entry) -> Routes<'_> {
        let fib = &self.fibs[self.table_for(from).index()];
        let from = match from {
            Entry::Endpoint(id) => id.index(),
            Entry::InternetGateway(_) | Entry::Subnet(_) | Entry::Interface(_) | Entry::Edge(_) => {
                usize::MAX
            }
        };
        Routes { fib, from }
    }

    /// The table that decides about packets which enter here.
    #[inline]
    pub fn table_for(&self, from: Entry) -> TableId {
        match from {
            Entry::InternetGateway(id) => self.gateways[id.index()].table,
            Entry::Subnet(id) => self.subnets[id.index()].table,
            Entry::Endpoint(id) => self.table_of_endpoint[id.index()],
            Entry::Interface(id) => self.subnets[self.interfaces[id.index()].subnet.index()].table,
            Entry::Edge(id) => self.edges[id.index()].table,
        }
    }

    /// The subnet of a VPC that holds an address.
    pub fn subnet_of(&self, vpc: VpcId, address: IpAddr) -> Option<SubnetId> {
        self.subnet_of[vpc.index()].get_lpm(&IpNet::from(address)).map(|(_, id)| *id)
    }

    /// The interface of a VPC that has an address.
    pub(crate) fn interface_of(&self, vpc: VpcId, address: IpAddr) -> Option<InterfaceId> {
        self.interface_of[vpc.index()].get(&address).copied()
    }

    /// What a table answers for an address, wherever a packet comes from.
    pub(crate) fn next_hop_in(&self, table: TableId, address: IpAddr) -> NextHop {
        self.fibs[table.index()].next_hop(address)
    }

    /// The answers of a table, for every address.
    fn fib(&self, table: &RouteTable) -> Fib {
        let routes = table.routes().map(|route| route.destination);
        // What is local goes to the interface that has the address, or else to the subnet.
        let vpc = table.vpc().index();
        let subnets = self.subnet_of[vpc].iter().map(|(prefix, _)| prefix);
        let interfaces = self.interface_of[vpc].keys().map(|address| IpNet::from(*address));
        Fib::new(routes.chain(subnets).chain(interfaces), |address| match table.target(address) {
            Some(target) => self.resolve(table.vpc(), target, address),
            None => NextHop::NoRoute,
        })
    }

    fn resolve(&self, vpc: VpcId, target: Target, destination: IpAddr) -> NextHop {
        match target {
            Target::Local => self.local(vpc, destination),
            Target::InternetGateway(id) => NextHop::Deliver(Attachment::InternetGateway(id)),
            Target::Interface(id) => NextHop::Deliver(Attachment::Interface(id)),
            Target::Edge(id) => NextHop::Deliver(Attachment::Edge(id)),
            Target::Endpoint(id) => NextHop::Endpoint(id),
            Target::EndpointGroup(id) => NextHop::EndpointGroup(id),
            Target::Transit(id) => NextHop::Transit(id),
            Target::Blackhole => NextHop::Blackhole,
        }
    }

    fn local(&self, vpc: VpcId, destination: IpAddr) -> NextHop {
        if let Some(id) = self.interface_of[vpc.index()].get(&destination) {
            return NextHop::Deliver(Attachment::Interface(*id));
        }
        self.subnet_of(vpc, destination)
            .map_or(NextHop::NoSubnet, |id| NextHop::Deliver(Attachment::Subnet(id)))
    }

    /// Whose rules its tables were held to.
    pub fn rules(&self) -> RuleSet {
        self.rules
    }

    /// All VPCs.
    pub fn vpcs(&self) -> impl ExactSizeIterator<Item = (VpcId, &Vpc)> {
        numbered(&self.vpcs, VpcId::from_index)
    }

    /// All subnets.
    pub fn subnets(&self) -> impl ExactSizeIterator<Item = (SubnetId, &Subnet)> {
        numbered(&self.subnets, SubnetId::from_index)
    }

    /// All internet gateways.
    pub fn gateways(&self) -> impl ExactSizeIterator<Item = (GatewayId, &InternetGateway)> {
        numbered(&self.gateways, GatewayId::from_index)
    }

    /// All route tables: those of the file, then one implicit table for each VPC.
    pub fn tables(&self) -> impl ExactSizeIterator<Item = (TableId, &RouteTable)> {
        numbered(&self.tables, TableId::from_index)
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = (EndpointId, &Endpoint)> {
        numbered(&self.endpoints, EndpointId::from_index)
    }

    /// All network interfaces, then all NAT gateways.
    pub fn interfaces(&self) -> impl ExactSizeIterator<Item = (InterfaceId, &Interface)> {
        numbered(&self.interfaces, InterfaceId::from_index)
    }

    /// All other ways out: virtual private gateways, egress-only internet gateways, opaque ones.
    pub fn edges(&self) -> impl ExactSizeIterator<Item = (EdgeId, &Edge)> {
        numbered(&self.edges, EdgeId::from_index)
    }

    /// All transit gateways.
    pub fn transit_gateways(
        &self,
    ) -> impl ExactSizeIterator<Item = (TransitGatewayId, &TransitGateway)> {
        numbered(&self.transit_gateways, TransitGatewayId::from_index)
    }

    /// All tables of transit gateways.
    pub fn transit_tables(&self) -> impl ExactSizeIterator<Item = (TransitTableId, &TransitTable)> {
        numbered(&self.transit_tables, TransitTableId::from_index)
    }

    /// All attachments of VPCs to transit gateways.
    pub fn transit_attachments(
        &self,
    ) -> impl ExactSizeIterator<Item = (TransitAttachmentId, &TransitAttachment)> {
        numbered(&self.transit_attachments, TransitAttachmentId::from_index)
    }

    /// All prefix lists.
    pub fn prefix_lists(&self) -> impl ExactSizeIterator<Item = (PrefixListId, &PrefixList)> {
        numbered(&self.prefix_lists, PrefixListId::from_index)
    }

    /// All groups of endpoints.
    pub fn endpoint_groups(&self) -> impl ExactSizeIterator<Item = (GroupId, &EndpointGroup)> {
        numbered(&self.groups, GroupId::from_index)
    }

    /// What must hold for the paths, as the file says; [`Topology::verify`] tells whether it does.
    pub fn intents(&self) -> &[Intent] {
        &self.intents
    }

    /// The VPC with this id.
    pub fn vpc(&self, id: VpcId) -> &Vpc {
        &self.vpcs[id.index()]
    }

    /// The subnet with this id.
    pub fn subnet(&self, id: SubnetId) -> &Subnet {
        &self.subnets[id.index()]
    }

    /// The internet gateway with this id.
    pub fn gateway(&self, id: GatewayId) -> &InternetGateway {
        &self.gateways[id.index()]
    }

    /// The route table with this id.
    pub fn table(&self, id: TableId) -> &RouteTable {
        &self.tables[id.index()]
    }

    /// The endpoint with this id.
    pub fn endpoint(&self, id: EndpointId) -> &Endpoint {
        &self.endpoints[id.index()]
    }

    /// The network interface or NAT gateway with this id.
    pub fn interface(&self, id: InterfaceId) -> &Interface {
        &self.interfaces[id.index()]
    }

    /// The other way out with this id.
    pub fn edge(&self, id: EdgeId) -> &Edge {
        &self.edges[id.index()]
    }

    /// The transit gateway with this id.
    pub fn transit_gateway(&self, id: TransitGatewayId) -> &TransitGateway {
        &self.transit_gateways[id.index()]
    }

    /// The transit gateway's table with this id.
    pub fn transit_table(&self, id: TransitTableId) -> &TransitTable {
        &self.transit_tables[id.index()]
    }

    /// The attachment with this id.
    pub fn transit_attachment(&self, id: TransitAttachmentId) -> &TransitAttachment {
        &self.transit_attachments[id.index()]
    }

    /// The prefix list with this id.
    pub fn prefix_list(&self, id: PrefixListId) -> &PrefixList {
        &self.prefix_lists[id.index()]
    }

    /// The group of endpoints with this id.
    pub fn endpoint_group(&self, id: GroupId) -> &EndpointGroup {
        &self.groups[id.index()]
    }

    /// The VPC that packets enter here.
    pub fn vpc_of(&self, at: Entry) -> VpcId {
        self.table(self.table_for(at)).vpc()
    }

    /// The VPC of this name.
    pub fn vpc_by_name(&self, name: &str) -> Option<VpcId> {
        self.names.vpcs.get(name).copied()
    }

    /// The subnet of this name.
    pub fn subnet_by_name(&self, name: &str) -> Option<SubnetId> {
        self.names.subnets.get(name).copied()
    }

    /// The internet gateway of this name.
    pub fn gateway_by_name(&self, name: &str) -> Option<GatewayId> {
        self.names.gateways.get(name).copied()
    }

    /// The route table of this name; implicit tables included.
    pub fn table_by_name(&self, name: &str) -> Option<TableId> {
        self.names.tables.get(name).copied()
    }

    /// The endpoint of this name.
    pub fn endpoint_by_name(&self, name: &str) -> Option<EndpointId> {
        self.names.endpoints.get(name).copied()
    }

    /// The group of endpoints of this name.
    pub fn endpoint_group_by_name(&self, name: &str) -> Option<GroupId> {
        self.names.groups.get(name).copied()
    }

    /// The network interface of this name.
    pub fn network_interface_by_name(&self, name: &str) -> Option<InterfaceId> {
        self.names.network_interfaces.get(name).copied()
    }

    /// The NAT gateway of this name.
    pub fn nat_gateway_by_name(&self, name: &str) -> Option<InterfaceId> {
        self.names.nat_gateways.get(name).copied()
    }

    /// The virtual private gateway of this name.
    pub fn virtual_private_gateway_by_name(&self, name: &str) -> Option<EdgeId> {
        self.names.virtual_private_gateways.get(name).copied()
    }

    /// The egress-only internet gateway of this name.
    pub fn egress_only_internet_gateway_by_name(&self, name: &str) -> Option<EdgeId> {
        self.names.egress_only_internet_gateways.get(name).copied()
    }

    /// What is opaque and has this name.
    pub fn opaque_by_name(&self, name: &str) -> Option<EdgeId> {
        self.names.opaques.get(name).copied()
    }

    /// The attachment to a transit gateway of this name.
    pub fn transit_attachment_by_name(&self, name: &str) -> Option<TransitAttachmentId> {
        self.names.transit_attachments.get(name).copied()
    }

    /// The name of an attachment, without its kind.
    pub fn attachment_name(&self, attachment: Attachment) -> &str {
        match attachment {
            Attachment::InternetGateway(id) => &self.gateway(id).name,
            Attachment::Subnet(id) => &self.subnet(id).name,
            Attachment::Interface(id) => &self.interface(id).name,
            Attachment::Edge(id) => &self.edge(id).name,
        }
    }
}

fn numbered<I, T>(list: &[T], id: impl Fn(u16) -> I) -> impl ExactSizeIterator<Item = (I, &T)> {
    // `build` lets no list grow beyond what its ids can count.
    list.iter().enumerate().map(move |(index, item)| (id(index as u16), item))
}
