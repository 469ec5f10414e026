//! The form of transit gateways, which join VPCs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::source::Located;

/// A router between VPCs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransitGateway {
    /// The name that others refer to.
    pub name: Located<String>,
}

/// One VPC at a transit gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransitGatewayAttachment {
    /// The name that others refer to.
    pub name: Located<String>,
    /// The transit gateway.
    pub transit_gateway: Located<String>,
    /// The VPC.
    pub vpc: Located<String>,
    /// One subnet for each zone; their tables decide about what comes from the transit gateway.
    pub subnets: Vec<Located<String>>,
    /// The transit gateway's table for what comes from this VPC.
    pub route_table: Located<String>,
    /// Whether all packets of a flow, in both directions, come in through one zone. Otherwise each
    /// stays in the zone that it comes from, as far as there is a subnet. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub appliance_mode: bool,
}

/// A table of a transit gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransitGatewayRouteTable {
    /// The name that others refer to.
    pub name: Located<String>,
    /// The transit gateway that it belongs to.
    pub transit_gateway: Located<String>,
    /// The attachments whose VPCs' ranges are in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub propagations: Vec<Located<String>>,
    /// The static routes. Of equal destinations, they win over those of propagations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Located<TransitRoute>>,
}

/// One route of a transit gateway: a destination, and one of the other keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransitRoute {
    /// The addresses that it is for, such as `0.0.0.0/0`.
    pub destination: Located<String>,
    /// To the VPC of an attachment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Located<String>>,
    /// `true`: to nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackhole: Option<Located<bool>>,
}
