//! The form of route tables.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::source::Located;

/// Where packets go that leave a subnet or come in through an internet gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    /// The name that others refer to.
    pub name: Located<String>,
    /// The VPC that it belongs to. Its address ranges are local routes in every table.
    pub vpc: Located<String>,
    /// Whether it is for the VPC's subnets that name no table. One table per VPC can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main: Option<Located<bool>>,
    /// The virtual private gateways whose routes are in it, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub propagating: Vec<Located<String>>,
    /// The routes besides the local ones. The longest prefix wins; of equal ones a route with a
    /// destination of its own, then one with a prefix list, then one that was propagated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Located<Route>>,
}

/// One route: a destination or a prefix list, and exactly one of the other keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The addresses that it is for, such as `0.0.0.0/0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Located<String>>,
    /// The list of ranges that it is for, in place of a destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_list: Option<Located<String>>,
    /// To a Gateway Load Balancer endpoint of the same VPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Located<String>>,
    /// To a group of endpoints in different zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_group: Option<Located<String>>,
    /// Out through an internet gateway of the same VPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internet_gateway: Option<Located<String>>,
    /// To the networks behind a virtual private gateway of the same VPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_private_gateway: Option<Located<String>>,
    /// Out through an egress-only internet gateway of the same VPC: IPv6 alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_only_internet_gateway: Option<Located<String>>,
    /// To a NAT gateway of the same VPC: IPv4 alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat_gateway: Option<Located<String>>,
    /// To a network interface of the same VPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Located<String>>,
    /// To a transit gateway that the VPC is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transit_gateway: Option<Located<String>>,
    /// To something that is known by name alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<Located<String>>,
    /// `true`: to nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackhole: Option<Located<bool>>,
    /// `true`: to the subnet that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Located<bool>>,
}

impl Route {
    /// All targets that it has, in the order of the form. One is right.
    pub(crate) fn written(&self) -> Vec<Written<'_>> {
        [
            self.endpoint.as_ref().map(Written::Endpoint),
            self.endpoint_group.as_ref().map(Written::EndpointGroup),
            self.internet_gateway.as_ref().map(Written::InternetGateway),
            self.virtual_private_gateway.as_ref().map(Written::VirtualPrivateGateway),
            self.egress_only_internet_gateway.as_ref().map(Written::EgressOnly),
            self.nat_gateway.as_ref().map(Written::NatGateway),
            self.interface.as_ref().map(Written::Interface),
            self.transit_gateway.as_ref().map(Written::TransitGateway),
            self.opaque.as_ref().map(Written::Opaque),
            self.blackhole.as_ref().map(Written::Blackhole),
            self.local.as_ref().map(Written::Local),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// A target as it stands in the file.
pub(crate) enum Written<'f> {
    Endpoint(&'f Located<String>),
    EndpointGroup(&'f Located<String>),
    InternetGateway(&'f Located<String>),
    VirtualPrivateGateway(&'f Located<String>),
    EgressOnly(&'f Located<String>),
    NatGateway(&'f Located<String>),
    Interface(&'f Located<String>),
    TransitGateway(&'f Located<String>),
    Opaque(&'f Located<String>),
    Blackhole(&'f Located<bool>),
    Local(&'f Located<bool>),
}

impl Written<'_> {
    /// The key that it is written with.
    pub fn key(&self) -> &'static str {
        match self {
            Written::Endpoint(_) => "endpoint",
            Written::EndpointGroup(_) => "endpoint_group",
            Written::InternetGateway(_) => "internet_gateway",
            Written::VirtualPrivateGateway(_) => "virtual_private_gateway",
            Written::EgressOnly(_) => "egress_only_internet_gateway",
            Written::NatGateway(_) => "nat_gateway",
            Written::Interface(_) => "interface",
            Written::TransitGateway(_) => "transit_gateway",
            Written::Opaque(_) => "opaque",
            Written::Blackhole(_) => "blackhole",
            Written::Local(_) => "local",
        }
    }

    /// As places are written: `kind:name`, or the key alone where there is no name.
    pub fn text(&self) -> String {
        match self.name() {
            Some(name) => format!("{}:{}", self.key(), name.get()),
            None => self.key().to_owned(),
        }
    }

    fn name(&self) -> Option<&Located<String>> {
        match self {
            Written::Endpoint(name)
            | Written::EndpointGroup(name)
            | Written::InternetGateway(name)
            | Written::VirtualPrivateGateway(name)
            | Written::EgressOnly(name)
            | Written::NatGateway(name)
            | Written::Interface(name)
            | Written::TransitGateway(name)
            | Written::Opaque(name) => Some(name),
            Written::Blackhole(_) | Written::Local(_) => None,
        }
    }

    /// Where it stands.
    pub fn span(&self) -> Range<usize> {
        match self {
            Written::Blackhole(flag) | Written::Local(flag) => flag.span(),
            named => named.name().map_or(0..0, Located::span),
        }
    }

    /// `blackhole = false` or `local = false`.
    pub fn is_no(&self) -> bool {
        matches!(self, Written::Blackhole(flag) | Written::Local(flag) if !***flag)
    }
}

/// A list of ranges that routes can be for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixList {
    /// The name that others refer to.
    pub name: Located<String>,
    /// Its ranges.
    pub entries: Vec<Located<String>>,
}
