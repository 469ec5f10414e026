//! The form of what inspects: endpoints, groups of them, and what is asked of the paths.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::source::Located;

/// A Gateway Load Balancer endpoint: one subnet, one zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The name that others refer to.
    pub name: Located<String>,
    /// The subnet that it is in. Its table says where packets go that come back inspected.
    pub subnet: Located<String>,
    /// The endpoint service that it connects to.
    pub service: Located<String>,
    /// Its 64-bit id in the Geneve option, such as `0x0123456789abcdef`. Absent: derived from the
    /// name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire_id: Option<Located<String>>,
    /// Its address. Absent: the first free one of the subnet in each address family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Located<String>>,
}

/// Endpoints of one service in different zones, as one next hop: what Alibaba Cloud calls a route
/// target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointGroup {
    /// The name that others refer to.
    pub name: Located<String>,
    /// How packets are spread over the members. Default: `active_standby`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Located<GroupMode>>,
    /// Its endpoints, at least two, each in a zone of its own.
    pub members: Vec<Located<GroupMember>>,
    /// `false`: packets stay with the standby that has taken over until somebody switches them back.
    /// Default: true.
    #[serde(default)]
    pub automatic_return: Option<Located<bool>>,
    /// How long the active member has to be healthy again before it gets packets back: 0 to 86400.
    /// Default: 60.
    #[serde(default)]
    pub return_after_seconds: Option<Located<u32>>,
}

/// How packets are spread over the members of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupMode {
    /// Two members: the one of weight 100 gets all as long as it is healthy, the one of weight 0
    /// otherwise (semantics 2c).
    #[default]
    ActiveStandby,
    /// All healthy members, by their weights; each flow, in both directions, goes to one of them.
    Weighted,
}

/// An endpoint in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupMember {
    /// The endpoint.
    pub endpoint: Located<String>,
    /// 100 (active) and 0 (standby), or its share: 0 to 100.
    pub weight: Located<u8>,
    /// `false`: it keeps what is established there, and gets nothing new. Default: true.
    #[serde(default)]
    pub enabled: Option<Located<bool>>,
}

/// What must hold for all paths between two places. For `router verify`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// `internet_gateway:NAME`, `virtual_private_gateway:NAME`,
    /// `egress_only_internet_gateway:NAME`, `opaque:NAME`, `interface:NAME` or `subnet:NAME`, where
    /// `*` in the name stands for anything.
    pub from: Located<String>,
    /// The same.
    pub to: Located<String>,
    /// The endpoint service that every packet must have passed.
    #[serde(default)]
    pub inspected_by: Option<Located<String>>,
    /// `true`, in place of a service: nothing is asked of these paths.
    #[serde(default)]
    pub uninspected: Option<Located<bool>>,
}
