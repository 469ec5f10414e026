//! Whose rules route tables are held to, and what those rules are.
//!
//! A rule is what a cloud's API refuses. What no router could do is refused whatever the rules
//! are, and is no rule: a reference to nothing, two owners of one address, a packet that circles.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose rules hold.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RuleSet {
    /// Those of Amazon VPC (semantics 1d).
    #[default]
    Aws,
    /// Those of Alibaba Cloud VPC (semantics 2d).
    Alibaba,
    /// None: only what is impossible is refused.
    Linux,
}

impl fmt::Display for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RuleSet::Aws => "aws",
            RuleSet::Alibaba => "alibaba",
            RuleSet::Linux => "linux",
        })
    }
}

/// Declares the rules: name, code, statement, and where each cloud documents it.
macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $statement:literal,
        aws: $aws:expr, alibaba: $alibaba:expr;)*) => {
        /// A rule that a cloud has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[$doc])* #[doc = $statement] $name,)*
        }

        impl Rule {
            /// All rules.
            pub const ALL: &[Rule] = &[$(Rule::$name),*];

            /// Its short name, in words with hyphens.
            pub fn code(self) -> &'static str {
                match self { $(Rule::$name => $code,)* }
            }

            /// The rule in one sentence.
            pub fn statement(self) -> &'static str {
                match self { $(Rule::$name => $statement,)* }
            }

            /// Where a cloud documents it. `None`: the cloud has no such rule.
            pub fn source(self, of: RuleSet) -> Option<&'static str> {
                match (self, of) {
                    $((Rule::$name, RuleSet::Aws) => $aws,
                    (Rule::$name, RuleSet::Alibaba) => $alibaba,)*
                    (_, RuleSet::Linux) => None,
                }
            }
        }
    };
}

rules! {
    EdgeDestination = "edge-destination",
        "A gateway table's destinations are a whole range of the VPC or of one of its subnets.",
        aws: Some("VPC User Guide, Gateway route tables"), alibaba: None;
    EdgeSystemEntry = "edge-system-entry",
        "A gateway table has one system entry for each vSwitch; its next hop is edited, no others are added.",
        aws: None, alibaba: Some("VPC, Gateway route tables (UpdateGatewayRouteTableEntryAttribute)");
    EdgeTarget = "edge-target",
        "A gateway table leads only to local, to network interfaces and to Gateway Load Balancer endpoints.",
        aws: Some("VPC User Guide, Gateway route tables"),
        alibaba: Some("VPC, Gateway route tables (UpdateGatewayRouteTableEntryAttribute)");
    EdgePrefixList = "edge-prefix-list",
        "A gateway table has no routes for prefix lists.",
        aws: Some("VPC User Guide, Gateway route tables"),
        alibaba: Some("VPC, Gateway route tables (UpdateGatewayRouteTableEntryAttribute)");
    EdgePropagation = "edge-propagation",
        "A table with propagated routes cannot be a gateway table.",
        aws: Some("VPC User Guide, Gateway route tables"), alibaba: None;
    EdgeMain = "edge-main",
        "The main table cannot be a gateway table.",
        aws: Some("VPC User Guide, Subnet route tables"),
        alibaba: Some("VPC, Gateway route tables (the table type is Gateway)");
    LocalDestination = "local-destination",
        "A route more specific than local is for the whole range of a subnet.",
        aws: Some("VPC User Guide, Subnet route tables"), alibaba: None;
    LocalTarget = "local-target",
        "A route within the VPC leads to local, a NAT gateway, a network interface or a Gateway Load Balancer endpoint.",
        aws: Some("VPC User Guide, Subnet route tables (ReplaceRoute LocalTarget)"), alibaba: None;
    WithinSubnet = "within-subnet",
        "No route is for a part of a vSwitch.",
        aws: None, alibaba: Some("CreateRouteEntry, DestinationCidrBlock");
    ReservedDestination = "reserved-destination",
        "No route is for the addresses of the cloud's own services.",
        aws: Some("VPC User Guide, Subnet route tables (169.254.168.0/22, fd00:ec2::/32)"),
        alibaba: Some("CreateRouteEntry, DestinationCidrBlock (100.64.0.0/10)");
    PrefixListEndpoint = "prefix-list-endpoint",
        "A route for a prefix list does not lead to a Gateway Load Balancer endpoint.",
        aws: Some("AWS PrivateLink, Gateway Load Balancer endpoints"), alibaba: None;
    GroupMembers = "group-members",
        "A route target group has exactly two members in different zones, of weight 100 and 0.",
        aws: None, alibaba: Some("CreateRouteTargetGroup, ConfigMode Active-Standby");
    EndpointInUse = "endpoint-in-use",
        "An endpoint is not deleted while a route leads to it.",
        aws: Some("AWS PrivateLink, Gateway Load Balancer endpoints; DeleteVpcEndpoints"),
        alibaba: Some("PrivateLink, Gateway Load Balancer endpoints (routes, then the endpoint)");
    TableInUse = "table-in-use",
        "A route table is not deleted while a subnet or a gateway uses it, and the main table never.",
        aws: Some("VPC User Guide, Subnet route tables; DeleteRouteTable"),
        alibaba: Some("DeleteRouteTable");
    SubnetInUse = "subnet-in-use",
        "A subnet is not deleted while something is in it.",
        aws: Some("DeleteSubnet (DependencyViolation)"), alibaba: Some("DeleteVSwitch (DependencyViolation)");
    EndpointImmutable = "endpoint-immutable",
        "An endpoint keeps its subnet and its service.",
        aws: Some("AWS PrivateLink, Gateway Load Balancer endpoints"),
        alibaba: Some("PrivateLink, Gateway Load Balancer endpoints (one zone, none added)");
    InterfaceThroughLocal = "interface-through-local",
        "A gateway table's entry goes from one network interface to another by way of local.",
        aws: None, alibaba: Some("VPC, Gateway route tables (UpdateGatewayRouteTableEntryAttribute)");
}

impl Rule {
    /// Whether these rules have it.
    pub fn is_in(self, rules: RuleSet) -> bool {
        self.source(rules).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_somebodys_and_has_a_code_of_its_own() {
        let mut codes: Vec<&str> = Rule::ALL.iter().map(|rule| rule.code()).collect();
        codes.sort_unstable();
        assert!(codes.windows(2).all(|pair| pair[0] != pair[1]));
        for rule in Rule::ALL {
            assert!(rule.is_in(RuleSet::Aws) || rule.is_in(RuleSet::Alibaba), "{rule:?}");
            assert!(!rule.is_in(RuleSet::Linux));
            assert!(rule.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            assert!(rule.statement().ends_with('.'));
        }
    }
}
