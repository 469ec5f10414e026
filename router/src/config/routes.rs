//! The form of route tables.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::source::Located;

/// Where packets go that leave a subnet or come in through an internet gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    /// The name that others refer to.
    pub name: Located<String>,
    /// The VPC that it belongs to. Its address ranges are local routes in every table.
    pub vpc: Located<String>,
    /// Whether it is for the VPC's subnets that name no table. One table per VPC can be.
    #[serde(default)]
    pub main: Option<Located<bool>>,
    /// The virtual private gateways whose routes are in it, too.
    #[serde(default)]
    pub propagating: Vec<Located<String>>,
    /// The routes besides the local ones. The longest prefix wins; of equal ones a route with a
    /// destination of its own, then one with a prefix list, then one that was propagated.
    #[serde(default)]
    pub routes: Vec<Located<Route>>,
}

/// One route: a destination or a prefix list, and exactly one of the other keys.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The addresses that it is for, such as `0.0.0.0/0`.
    #[serde(default)]
    pub destination: Option<Located<String>>,
    /// The list of ranges that it is for, in place of a destination.
    #[serde(default)]
    pub prefix_list: Option<Located<String>>,
    /// To a Gateway Load Balancer endpoint of the same VPC.
    #[serde(default)]
    pub endpoint: Option<Located<String>>,
    /// To a group of endpoints in different zones.
    #[serde(default)]
    pub endpoint_group: Option<Located<String>>,
    /// Out through an internet gateway of the same VPC.
    #[serde(default)]
    pub internet_gateway: Option<Located<String>>,
    /// To the networks behind a virtual private gateway of the same VPC.
    #[serde(default)]
    pub virtual_private_gateway: Option<Located<String>>,
    /// Out through an egress-only internet gateway of the same VPC: IPv6 alone.
    #[serde(default)]
    pub egress_only_internet_gateway: Option<Located<String>>,
    /// To a NAT gateway of the same VPC: IPv4 alone.
    #[serde(default)]
    pub nat_gateway: Option<Located<String>>,
    /// To a network interface of the same VPC.
    #[serde(default)]
    pub interface: Option<Located<String>>,
    /// To a transit gateway that the VPC is attached to.
    #[serde(default)]
    pub transit_gateway: Option<Located<String>>,
    /// To something that is known by name alone.
    #[serde(default)]
    pub opaque: Option<Located<String>>,
    /// `true`: to nowhere.
    #[serde(default)]
    pub blackhole: Option<Located<bool>>,
    /// `true`: to the subnet that holds the address.
    #[serde(default)]
    pub local: Option<Located<bool>>,
}

/// A list of ranges that routes can be for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixList {
    /// The name that others refer to.
    pub name: Located<String>,
    /// Its ranges.
    pub entries: Vec<Located<String>>,
}
