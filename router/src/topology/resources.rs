//! What a checked topology is made of. Every reference holds, every address is in its place.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    EdgeId, EndpointId, Entry, GatewayId, GroupId, InterfaceId, PrefixListId, SubnetId, TableId,
    TransitAttachmentId, VpcId,
};
pub use crate::config::{GroupMode, Learned};

/// A virtual private cloud.
#[derive(Clone, Debug)]
pub struct Vpc {
    /// Its name.
    pub name: String,
    /// Its address ranges, which do not overlap.
    pub cidrs: Vec<IpNet>,
    /// The table of subnets that name none.
    pub main_table: TableId,
}

/// A range of a VPC's addresses in one zone.
#[derive(Clone, Debug)]
pub struct Subnet {
    /// Its name.
    pub name: String,
    /// The VPC that it is part of.
    pub vpc: VpcId,
    /// The zone that it is in.
    pub zone: String,
    /// Its address ranges, which overlap with no other subnet's of the VPC.
    pub cidrs: Vec<IpNet>,
    /// The table for packets that leave it.
    pub table: TableId,
}

/// Where a VPC meets the internet.
#[derive(Clone, Debug)]
pub struct InternetGateway {
    /// Its name.
    pub name: String,
    /// The VPC that it is attached to.
    pub vpc: VpcId,
    /// The table for packets that come in: the gateway table, or only local routes.
    pub table: TableId,
    /// The addresses that it translates. No public and no private address is in it twice.
    pub addresses: Vec<AddressMapping>,
}

/// A public address that stands for a private one. Both are IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AddressMapping {
    /// What the internet sees.
    pub public: IpAddr,
    /// What the VPC sees.
    pub private: IpAddr,
}

/// A Gateway Load Balancer endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// The one subnet that it is in.
    pub subnet: SubnetId,
    /// The zone of that subnet.
    pub zone: String,
    /// The endpoint service that it connects to, by name: the router does not know services.
    pub service: String,
    /// Its id in the Geneve option. No two endpoints have the same.
    pub wire_id: u64,
    /// Its addresses in its subnet: at most one of each family, at least one.
    pub addresses: Vec<IpAddr>,
}

/// A network interface or a NAT gateway.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name, among others of its kind.
    pub name: String,
    /// Which of the two it is.
    pub kind: InterfaceKind,
    /// The one subnet that it is in.
    pub subnet: SubnetId,
    /// The zone of that subnet.
    pub zone: String,
    /// Its addresses in its subnet: at most one of each family, at least one.
    pub addresses: Vec<IpAddr>,
}

/// What an interface belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceKind {
    /// To a machine.
    NetworkInterface,
    /// To a NAT gateway: packets that come to it from the VPC go on with its address as their
    /// source, by the table of its subnet; the answers come to that address.
    NatGateway {
        /// What stands for its address at the internet gateway, if anything does.
        public: Option<IpAddr>,
    },
}

/// A way out of a VPC other than an internet gateway.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Its name, among others of its kind.
    pub name: String,
    /// What it is.
    pub kind: EdgeKind,
    /// The VPC whose way out it is.
    pub vpc: VpcId,
    /// The table for packets that come in: a gateway table, or only local routes.
    pub table: TableId,
    /// What it has learned, for tables that it propagates to.
    pub learned: Vec<(IpNet, Learned)>,
}

/// The kinds of other ways out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeKind {
    /// To networks of the owner elsewhere.
    VirtualPrivateGateway,
    /// To the internet, IPv6 alone, and nobody comes in but with answers.
    EgressOnlyInternetGateway,
    /// Something that is known by name alone, and what it is called.
    Opaque(String),
}

/// A list of ranges that routes can be for.
#[derive(Clone, Debug)]
pub struct PrefixList {
    /// Its name.
    pub name: String,
    /// Its ranges.
    pub entries: Vec<IpNet>,
}

/// Endpoints of one service in different zones, as one next hop.
#[derive(Clone, Debug)]
pub struct EndpointGroup {
    /// Its name.
    pub name: String,
    /// How packets are spread over the members.
    pub mode: GroupMode,
    /// Its members with their weights, at least two, each in a zone of its own.
    pub members: Vec<(EndpointId, u8)>,
    /// Such of them as get nothing new.
    pub disabled: Vec<EndpointId>,
    /// How long the active member has to be healthy again before it gets packets back: up to a day.
    /// `None`: until somebody switches them back.
    pub return_after: Option<Duration>,
}

/// A route as it stands in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The addresses that it is for.
    pub destination: IpNet,
    /// Where they go.
    pub target: Target,
    /// Where it comes from.
    pub origin: Origin,
    /// The prefix list that has the destination, if the route is for one.
    pub list: Option<PrefixListId>,
    /// Over what it was learned, if it was propagated.
    pub learned: Option<Learned>,
    /// Whether packets take it.
    pub state: RouteState,
}

/// Whether packets take a route, as AWS names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteState {
    /// They do.
    Active,
    /// They do, and are lost.
    Blackhole,
    /// They do not: another route for the same addresses has priority.
    Filtered,
}

impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RouteState::Active => "active",
            RouteState::Blackhole => "blackhole",
            RouteState::Filtered => "filtered",
        })
    }
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// To the subnet that holds the address.
    Local,
    /// Out to the internet.
    InternetGateway(GatewayId),
    /// To be inspected.
    Endpoint(EndpointId),
    /// To be inspected by a member of this group.
    EndpointGroup(GroupId),
    /// To the machine with this interface, or to a NAT gateway.
    Interface(InterfaceId),
    /// Out of the VPC by another way.
    Edge(EdgeId),
    /// To a transit gateway, by this attachment of the VPC.
    Transit(TransitAttachmentId),
    /// To nowhere.
    Blackhole,
}

/// How a route came to be in its table, as AWS names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
pub enum Origin {
    /// With the table: a local route.
    CreateRouteTable,
    /// Written in the file.
    CreateRoute,
    /// Learned by a virtual private gateway.
    EnableVgwRoutePropagation,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::CreateRouteTable => "CreateRouteTable",
            Origin::CreateRoute => "CreateRoute",
            Origin::EnableVgwRoutePropagation => "EnableVgwRoutePropagation",
        })
    }
}

/// What must hold for all paths between two sets of places.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Where the paths begin.
    pub from: Vec<Entry>,
    /// Where they end.
    pub to: Vec<Entry>,
    /// The endpoint service that every packet must have passed; `None`: nothing is asked.
    pub inspected_by: Option<String>,
}
