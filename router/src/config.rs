//! The form of the tables that the router owns, `[[vpc]]` to `[[intent]]`, as they stand in the
//! file: strings with their places, not yet checked against each other.
//!
//! [`Topology::build`](crate::Topology::build) gives them a meaning. The tables that the gateway
//! owns are not looked at: `gwlb` checks them, and the names at the top level.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::source::{Document, Located, Problem, Problems, Source};

/// The router's part of a configuration file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RouterFile {
    /// `[[vpc]]`
    #[serde(rename = "vpc")]
    pub vpcs: Vec<Located<Vpc>>,
    /// `[[subnet]]`
    #[serde(rename = "subnet")]
    pub subnets: Vec<Located<Subnet>>,
    /// `[[internet_gateway]]`
    #[serde(rename = "internet_gateway")]
    pub internet_gateways: Vec<Located<InternetGateway>>,
    /// `[[route_table]]`
    #[serde(rename = "route_table")]
    pub route_tables: Vec<Located<RouteTable>>,
    /// `[[endpoint]]`
    #[serde(rename = "endpoint")]
    pub endpoints: Vec<Located<Endpoint>>,
    /// `[[intent]]`
    #[serde(rename = "intent")]
    pub intents: Vec<Located<Intent>>,
}

/// A virtual private cloud: an address space of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vpc {
    /// The name that others refer to.
    pub name: Located<String>,
    /// Its address ranges, IPv4 and IPv6, such as `10.0.0.0/16`.
    pub cidrs: Vec<Located<String>>,
}

/// A range of a VPC's addresses in one zone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
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
    #[serde(default)]
    pub route_table: Option<Located<String>>,
}

/// Where a VPC meets the internet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InternetGateway {
    /// The name that others refer to.
    pub name: Located<String>,
    /// The VPC that it is attached to.
    pub vpc: Located<String>,
    /// The gateway (edge) table, for packets that come in. Absent: straight to their subnets.
    #[serde(default)]
    pub route_table: Option<Located<String>>,
    /// Addresses that it translates one to one, as elastic addresses are.
    #[serde(default)]
    pub addresses: Vec<Located<AddressMapping>>,
}

/// A public address that stands for a private one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressMapping {
    /// The IPv4 address that the internet sees.
    pub public: Located<String>,
    /// The IPv4 address in a subnet of the gateway's VPC.
    pub private: Located<String>,
}

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
    /// The routes besides the local ones. The longest prefix wins.
    #[serde(default)]
    pub routes: Vec<Located<Route>>,
}

/// One route: a destination, and exactly one of the other keys.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The addresses that it is for, such as `0.0.0.0/0`.
    pub destination: Located<String>,
    /// To a Gateway Load Balancer endpoint of the same VPC.
    #[serde(default)]
    pub endpoint: Option<Located<String>>,
    /// Out through an internet gateway of the same VPC.
    #[serde(default)]
    pub internet_gateway: Option<Located<String>>,
    /// To a network interface. Reserved: this version does not carry it.
    #[serde(default)]
    pub interface: Option<Located<String>>,
    /// To a group of endpoints in different zones. Reserved: this version does not carry it.
    #[serde(default)]
    pub endpoint_group: Option<Located<String>>,
    /// `true`: to nowhere.
    #[serde(default)]
    pub blackhole: Option<Located<bool>>,
    /// `true`: to the subnet that holds the address.
    #[serde(default)]
    pub local: Option<Located<bool>>,
}

/// A Gateway Load Balancer endpoint: one subnet, one zone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
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
    #[serde(default)]
    pub wire_id: Option<Located<String>>,
    /// Its address. Absent: the first free one of the subnet in each address family.
    #[serde(default)]
    pub address: Option<Located<String>>,
}

/// What must hold for all paths between two places. For `router verify`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// `internet_gateway:NAME` or `subnet:NAME`, where `*` in the name stands for anything.
    pub from: Located<String>,
    /// The same.
    pub to: Located<String>,
    /// The endpoint service that every packet must have passed.
    pub inspected_by: Located<String>,
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
    RouterFile {
        vpcs: document.list("vpc", problems),
        subnets: document.list("subnet", problems),
        internet_gateways: document.list("internet_gateway", problems),
        route_tables: document.list("route_table", problems),
        endpoints: document.list("endpoint", problems),
        intents: document.list("intent", problems),
    }
}

impl RouterFile {
    /// The keys of the top level that are the router's.
    pub const TABLES: [&str; 6] =
        ["vpc", "subnet", "internet_gateway", "route_table", "endpoint", "intent"];
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
            assert_eq!(form["additionalProperties"], false, "{name}");
            assert!(form["description"].is_string(), "{name}");
        }
        let subnet = &schema["$defs"]["Subnet"];
        assert_eq!(subnet["required"], serde_json::json!(["name", "vpc", "zone", "cidrs"]));
        // A place in the text is no part of the form.
        assert_eq!(subnet["properties"]["cidrs"]["items"]["type"], "string");
    }
}
