//! The form of the tables that the router owns, `[routing]` and `[[vpc]]` to `[[intent]]`, as they
//! stand in the file: strings with their places, not yet checked against each other.
//!
//! [`Topology::build`](crate::Topology::build) gives them a meaning. The tables that the gateway
//! owns are not looked at, but for `semantics` in `[gateway]`, from which the rules follow where
//! `[routing]` does not say them: `gwlb` checks them, and the names at the top level.

mod gateways;
mod inspection;
mod routes;
mod transit;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::RuleSet;
use crate::source::{Document, Located, Problem, Problems, Source};

pub use gateways::{
    AddressMapping, EgressOnlyInternetGateway, InternetGateway, Learned, LearnedRoute, NatGateway,
    NetworkInterface, Opaque, VirtualPrivateGateway,
};
pub use inspection::{Endpoint, EndpointGroup, GroupMember, GroupMode, Intent};
pub(crate) use routes::Written;
pub use routes::{PrefixList, Route, RouteTable};
pub use transit::{
    TransitGateway, TransitGatewayAttachment, TransitGatewayRouteTable, TransitRoute,
};

/// The router's part of a configuration file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RouterFile {
    /// `[routing]`
    pub routing: Routing,
    /// `[[vpc]]`
    #[serde(rename = "vpc")]
    pub vpcs: Vec<Located<Vpc>>,
    /// `[[subnet]]`
    #[serde(rename = "subnet")]
    pub subnets: Vec<Located<Subnet>>,
    /// `[[internet_gateway]]`
    #[serde(rename = "internet_gateway")]
    pub internet_gateways: Vec<Located<InternetGateway>>,
    /// `[[virtual_private_gateway]]`
    #[serde(rename = "virtual_private_gateway")]
    pub virtual_private_gateways: Vec<Located<VirtualPrivateGateway>>,
    /// `[[egress_only_internet_gateway]]`
    #[serde(rename = "egress_only_internet_gateway")]
    pub egress_only_internet_gateways: Vec<Located<EgressOnlyInternetGateway>>,
    /// `[[nat_gateway]]`
    #[serde(rename = "nat_gateway")]
    pub nat_gateways: Vec<Located<NatGateway>>,
    /// `[[network_interface]]`
    #[serde(rename = "network_interface")]
    pub network_interfaces: Vec<Located<NetworkInterface>>,
    /// `[[transit_gateway]]`
    #[serde(rename = "transit_gateway")]
    pub transit_gateways: Vec<Located<TransitGateway>>,
    /// `[[transit_gateway_attachment]]`
    #[serde(rename = "transit_gateway_attachment")]
    pub transit_gateway_attachments: Vec<Located<TransitGatewayAttachment>>,
    /// `[[transit_gateway_route_table]]`
    #[serde(rename = "transit_gateway_route_table")]
    pub transit_gateway_route_tables: Vec<Located<TransitGatewayRouteTable>>,
    /// `[[prefix_list]]`
    #[serde(rename = "prefix_list")]
    pub prefix_lists: Vec<Located<PrefixList>>,
    /// `[[opaque]]`
    #[serde(rename = "opaque")]
    pub opaques: Vec<Located<Opaque>>,
    /// `[[route_table]]`
    #[serde(rename = "route_table")]
    pub route_tables: Vec<Located<RouteTable>>,
    /// `[[endpoint]]`
    #[serde(rename = "endpoint")]
    pub endpoints: Vec<Located<Endpoint>>,
    /// `[[endpoint_group]]`
    #[serde(rename = "endpoint_group")]
    pub endpoint_groups: Vec<Located<EndpointGroup>>,
    /// `[[intent]]`
    #[serde(rename = "intent")]
    pub intents: Vec<Located<Intent>>,
}

/// What holds for all route tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// Whose rules the tables are held to. Default: what `semantics` in `[gateway]` says, or else
    /// `aws`.
    #[serde(default)]
    pub rules: Option<Located<RuleSet>>,
}

/// A virtual private cloud: an address space of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vpc {
    /// The name that others refer to.
    pub name: Located<String>,
    /// Its address ranges, IPv4 and IPv6, such as `10.0.0.0/16`.
    pub cidrs: Vec<Located<String>>,
}

/// A range of a VPC's addresses in one zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// The name that others refer to.
    pub name: Located<String>,
    /// The VPC that it is part of.
    pub vpc: Located<String>,
    /// The zone that it is in, any name.
    pub zone: Located<String>,
    /// Its address ranges, each within one of its VPC's.
    pub cidrs: Vec<Located<String>>,
    /// The table for packets that leave it. Absent: the VPC's main table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_table: Option<Located<String>>,
}

/// Reads the router's tables of a configuration file.
///
/// # Errors
/// All syntax errors, or else everything in these tables that is not of their form.
pub fn parse(source: &Source) -> Result<RouterFile, Problems> {
    let document = Document::parse(source)?;
    let mut problems = Vec::new();
    let file = read(&document, &mut problems);
    Problems::check(source, problems)?;
    Ok(file)
}

/// The same for a file whose TOML is read already; the problems are added to the list.
pub fn read(document: &Document<'_>, problems: &mut Vec<Problem>) -> RouterFile {
    let routing = document.table("routing", problems).map(Located::into_inner);
    let mut routing: Routing = routing.unwrap_or_default();
    if routing.rules.is_none() {
        routing.rules = rules_of_gateway(document);
    }
    RouterFile {
        routing,
        vpcs: document.list("vpc", problems),
        subnets: document.list("subnet", problems),
        internet_gateways: document.list("internet_gateway", problems),
        virtual_private_gateways: document.list("virtual_private_gateway", problems),
        egress_only_internet_gateways: document.list("egress_only_internet_gateway", problems),
        nat_gateways: document.list("nat_gateway", problems),
        network_interfaces: document.list("network_interface", problems),
        transit_gateways: document.list("transit_gateway", problems),
        transit_gateway_attachments: document.list("transit_gateway_attachment", problems),
        transit_gateway_route_tables: document.list("transit_gateway_route_table", problems),
        prefix_lists: document.list("prefix_list", problems),
        opaques: document.list("opaque", problems),
        route_tables: document.list("route_table", problems),
        endpoints: document.list("endpoint", problems),
        endpoint_groups: document.list("endpoint_group", problems),
        intents: document.list("intent", problems),
    }
}

/// The gateway's `semantics` name a cloud. What is wrong with them is the gateway's to tell.
fn rules_of_gateway(document: &Document<'_>) -> Option<Located<RuleSet>> {
    #[derive(Deserialize)]
    struct Gateway {
        semantics: Option<Located<RuleSet>>,
    }
    document.table::<Gateway>("gateway", &mut Vec::new())?.into_inner().semantics
}

impl RouterFile {
    /// The keys of the top level that are the router's.
    pub const TABLES: [&str; 17] = [
        "routing",
        "vpc",
        "subnet",
        "internet_gateway",
        "virtual_private_gateway",
        "egress_only_internet_gateway",
        "nat_gateway",
        "network_interface",
        "transit_gateway",
        "transit_gateway_attachment",
        "transit_gateway_route_table",
        "prefix_list",
        "opaque",
        "route_table",
        "endpoint",
        "endpoint_group",
        "intent",
    ];

    /// Whose rules its tables are held to.
    pub fn rules(&self) -> RuleSet {
        self.routing.rules.as_deref().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> serde_json::Value {
        schemars::schema_for!(RouterFile).to_value()
    }

    #[test]
    fn the_schema_has_the_tables_under_their_names() {
        let schema = schema();
        let properties = schema["properties"].as_object().unwrap();
        let mut names: Vec<&str> = properties.keys().map(String::as_str).collect();
        names.sort_unstable();
        let mut tables = RouterFile::TABLES;
        tables.sort_unstable();
        assert_eq!(names, tables);
    }

    #[test]
    fn the_schema_is_as_strict_as_the_reader() {
        let schema = schema();
        for (name, form) in schema["$defs"].as_object().unwrap() {
            // What is one of several words has no properties.
            let strict = form["additionalProperties"] == false || form["oneOf"].is_array();
            assert!(strict, "{name}");
            assert!(form["description"].is_string(), "{name}");
        }
        let subnet = &schema["$defs"]["Subnet"];
        assert_eq!(subnet["required"], serde_json::json!(["name", "vpc", "zone", "cidrs"]));
        // A place in the text is no part of the form.
        assert_eq!(subnet["properties"]["cidrs"]["items"]["type"], "string");
    }
}
