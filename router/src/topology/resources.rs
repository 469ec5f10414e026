//! What a checked topology is made of. Every reference holds, every address is in its place.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::{EndpointId, Entry, GatewayId, SubnetId, TableId, VpcId};

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

/// A route as it stands in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The addresses that it is for.
    pub destination: IpNet,
    /// Where they go.
    pub target: Target,
    /// Where it comes from.
    pub origin: Origin,
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
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::CreateRouteTable => "CreateRouteTable",
            Origin::CreateRoute => "CreateRoute",
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
    /// The endpoint service that every packet must have passed.
    pub inspected_by: String,
}
