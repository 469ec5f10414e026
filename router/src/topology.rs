//! The checked topology: immutable, shared between threads, asked once per packet.
//!
//! How it is checked is in [`build`]; how it speaks to people, in [`explain`] and [`trace`].

mod build;
mod describe;
mod explain;
mod fib;
mod ids;
mod resources;
mod table;
mod trace;

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use fib::Fib;

pub use build::derived_wire_id;
pub use describe::{Description, EndpointLine, GatewayLine, SubnetLine, TableLine, VpcLine};
pub use explain::{Explanation, RouteLine};
pub use fib::Near;
pub use ids::{Attachment, EndpointId, Entry, GatewayId, NextHop, SubnetId, TableId, VpcId};
pub use resources::{
    AddressMapping, Endpoint, Intent, InternetGateway, Origin, Route, Subnet, Target, Vpc,
};
pub use table::RouteTable;
pub use trace::{Trace, UnknownEntry};

/// VPCs, subnets, gateways, tables and endpoints that fit together.
///
/// Ids count each kind in the order of the file, from 0. An id of another topology may be out of
/// range here, and then the accessors that take it panic.
#[derive(Clone, Debug)]
pub struct Topology {
    vpcs: Vec<Vpc>,
    subnets: Vec<Subnet>,
    gateways: Vec<InternetGateway>,
    tables: Vec<RouteTable>,
    endpoints: Vec<Endpoint>,
    intents: Vec<Intent>,
    names: Names,
    /// For each VPC, which subnet has an address.
    subnet_of: Vec<JointPrefixMap<IpNet, SubnetId>>,
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
    tables: HashMap<String, TableId>,
    endpoints: HashMap<String, EndpointId>,
}

/// The routes of one [`Entry`].
#[derive(Debug, Clone, Copy)]
pub struct Routes<'a> {
    fib: &'a Fib,
    /// Where packets come from that must not go back there.
    endpoint: Option<EndpointId>,
}

impl Routes<'_> {
    /// Where a packet for this address goes. Allocates nothing.
    #[inline]
    pub fn lookup(&self, destination: IpAddr) -> NextHop {
        self.lookup_near(destination, &mut Near::default())
    }

    /// The same for one packet of many: it looks first where the one before was found.
    #[inline]
    pub fn lookup_near(&self, destination: IpAddr, near: &mut Near) -> NextHop {
        match self.fib.next_hop(destination, near) {
            NextHop::Endpoint(id) if self.endpoint == Some(id) => NextHop::Loop,
            next_hop => next_hop,
        }
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
        let endpoint = match from {
            Entry::Endpoint(id) => Some(id),
            Entry::InternetGateway(_) | Entry::Subnet(_) => None,
        };
        Routes { fib: &self.fibs[self.table_for(from).index()], endpoint }
    }

    /// The table that decides about packets which enter here.
    #[inline]
    pub fn table_for(&self, from: Entry) -> TableId {
        match from {
            Entry::InternetGateway(id) => self.gateways[id.index()].table,
            Entry::Subnet(id) => self.subnets[id.index()].table,
            Entry::Endpoint(id) => self.table_of_endpoint[id.index()],
        }
    }

    /// The subnet of a VPC that holds an address.
    pub fn subnet_of(&self, vpc: VpcId, address: IpAddr) -> Option<SubnetId> {
        self.subnet_of[vpc.index()].get_lpm(&IpNet::from(address)).map(|(_, id)| *id)
    }

    /// The answers of a table, for every address.
    fn fib(&self, table: &RouteTable) -> Fib {
        let routes = table.routes().map(|route| route.destination);
        // What is local goes to the subnet that has the address.
        let subnets = self.subnet_of[table.vpc().index()].iter().map(|(prefix, _)| prefix);
        Fib::new(routes.chain(subnets), |address| match table.target(address) {
            Some(target) => self.resolve(table.vpc(), target, address),
            None => NextHop::NoRoute,
        })
    }

    fn resolve(&self, vpc: VpcId, target: Target, destination: IpAddr) -> NextHop {
        match target {
            Target::Local => self
                .subnet_of(vpc, destination)
                .map_or(NextHop::NoSubnet, |id| NextHop::Deliver(Attachment::Subnet(id))),
            Target::InternetGateway(id) => NextHop::Deliver(Attachment::InternetGateway(id)),
            Target::Endpoint(id) => NextHop::Endpoint(id),
            Target::Blackhole => NextHop::Blackhole,
        }
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

    /// What must hold for the paths, as the file says. Nothing here verifies it.
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

    /// The name of an attachment, without its kind.
    pub fn attachment_name(&self, attachment: Attachment) -> &str {
        match attachment {
            Attachment::InternetGateway(id) => &self.gateway(id).name,
            Attachment::Subnet(id) => &self.subnet(id).name,
        }
    }
}

fn numbered<I, T>(list: &[T], id: impl Fn(u16) -> I) -> impl ExactSizeIterator<Item = (I, &T)> {
    // `build` lets no list grow beyond what its ids can count.
    list.iter().enumerate().map(move |(index, item)| (id(index as u16), item))
}
