//! The form of what leads out of a VPC, or to one machine in it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::source::Located;

/// Where a VPC meets the internet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InternetGateway {
    /// The name that others refer to.
    pub name: Located<String>,
    /// The VPC that it is attached to.
    pub vpc: Located<String>,
    /// The gateway (edge) table, for packets that come in. Absent: straight to their subnets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_table: Option<Located<String>>,
    /// Addresses that it translates one to one, as elastic addresses are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Located<AddressMapping>>,
}

/// A public address that stands for a private one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressMapping {
    /// The IPv4 address that the internet sees.
    pub public: Located<String>,
    /// The IPv4 address in a subnet of the gateway's VPC.
    pub private: Located<String>,
}

/// Where a VPC meets networks of its owner elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VirtualPrivateGateway {
    /// The name that others refer to.
    pub name: Located<String>,
    /// The VPC that it is attached to.
    pub vpc: Located<String>,
    /// The gateway (edge) table, for packets that come in. Absent: straight to their subnets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_table: Option<Located<String>>,
    /// What it has learned, for the tables that name it in `propagating`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Located<LearnedRoute>>,
}

/// A range that a virtual private gateway has learned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LearnedRoute {
    /// The addresses, such as `192.168.0.0/16`.
    pub destination: Located<String>,
    /// Over what. Default: `vpn_bgp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<Located<Learned>>,
}

/// Over what a virtual private gateway has learned a range. Of equal ranges, the first of these
/// wins (semantics 1d).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Learned {
    /// Direct Connect, by BGP.
    DirectConnect,
    /// A VPN, by a static route.
    VpnStatic,
    /// A VPN, by BGP.
    VpnBgp,
}

impl fmt::Display for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Learned::DirectConnect => "direct_connect",
            Learned::VpnStatic => "vpn_static",
            Learned::VpnBgp => "vpn_bgp",
        })
    }
}

/// A way to the internet for IPv6 that lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressOnlyInternetGateway {
    /// The name that others refer to.
    pub name: Located<String>,
    /// The VPC that it is attached to.
    pub vpc: Located<String>,
}

/// A place in a subnet that gives packets its own source address, and sends them on by the table of
/// that subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NatGateway {
    /// The name that others refer to.
    pub name: Located<String>,
    /// The subnet that it is in.
    pub subnet: Located<String>,
    /// Its IPv4 address there. Absent: the first free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Located<String>>,
    /// The public address that stands for it at the internet gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_address: Option<Located<String>>,
}

/// The network interface of a machine that routes can lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterface {
    /// The name that others refer to.
    pub name: Located<String>,
    /// The subnet that it is in.
    pub subnet: Located<String>,
    /// Its addresses there, at most one of each family. Absent: the first free ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Located<String>>,
}

/// Anything else that routes lead to, known by name alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Opaque {
    /// The name that others refer to.
    pub name: Located<String>,
    /// What it is, such as `vpc_peering_connection`.
    pub kind: Located<String>,
    /// The VPC whose tables lead to it.
    pub vpc: Located<String>,
}
