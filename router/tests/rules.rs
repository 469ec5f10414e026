//! The clouds' rules, each with what it refuses and what it lets through, under every set of rules:
//! who has the rule refuses and cites it, all others accept the same file.
#![expect(clippy::panic, reason = "in the helpers of tests, as in tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use router::rules::{Rule, RuleSet};
use router::source::{Look, Problems, Source};
use router::{Topology, config};

const SETS: [RuleSet; 3] = [RuleSet::Aws, RuleSet::Alibaba, RuleSet::Linux];

/// A network in which every kind of target is there; `EDGE` and `SUBNET` are its gateway table and
/// the table of its subnets, `MORE` is whatever else.
const NETWORK: &str = r#"
[routing]
rules = "RULES"

[[vpc]]
name = "app"
cidrs = ["10.0.0.0/16", "fd00:10::/48"]

[[internet_gateway]]
name = "igw"
vpc = "app"
route_table = "edge"

[[virtual_private_gateway]]
name = "vgw"
vpc = "app"
routes = [{ destination = "192.168.0.0/16" }]

[[egress_only_internet_gateway]]
name = "eigw"
vpc = "app"

[[nat_gateway]]
name = "nat"
subnet = "app-a"

[[network_interface]]
name = "eni"
subnet = "app-b"

[[opaque]]
name = "pcx"
kind = "vpc_peering_connection"
vpc = "app"

[[prefix_list]]
name = "offices"
entries = ["203.0.113.0/24"]

[[subnet]]
name = "app-a"
vpc = "app"
zone = "az1"
cidrs = ["10.0.1.0/24", "fd00:10:0:1::/64"]
route_table = "subnet"

[[subnet]]
name = "app-b"
vpc = "app"
zone = "az2"
cidrs = ["10.0.2.0/24"]
route_table = "subnet"

[[subnet]]
name = "gwlbe-a"
vpc = "app"
zone = "az1"
cidrs = ["10.0.101.0/28", "fd00:10:0:101::/64"]

[[subnet]]
name = "gwlbe-b"
vpc = "app"
zone = "az2"
cidrs = ["10.0.102.0/28"]

[[endpoint]]
name = "vpce-a"
subnet = "gwlbe-a"
service = "inspection"

[[endpoint]]
name = "vpce-b"
subnet = "gwlbe-b"
service = "inspection"

[[route_table]]
name = "edge"
vpc = "app"
EDGE

[[route_table]]
name = "subnet"
vpc = "app"
SUBNET

MORE
"#;

/// A list with the range of a subnet.
const INNER: &str = "[[prefix_list]]\nname = \"inner\"\nentries = [\"10.0.2.0/24\"]";

/// What differs from one case to the next.
#[derive(Clone, Copy, Default)]
struct Parts {
    edge: &'static str,
    subnet: &'static str,
    more: &'static str,
}

fn edge(edge: &'static str) -> Parts {
    Parts { edge, ..Parts::default() }
}

fn subnet(subnet: &'static str) -> Parts {
    Parts { subnet, ..Parts::default() }
}

fn more(more: &'static str) -> Parts {
    Parts { more, ..Parts::default() }
}

fn build(rules: RuleSet, parts: Parts) -> Result<Topology, Problems> {
    let text = NETWORK
        .replace("RULES", &rules.to_string())
        .replace("EDGE", parts.edge)
        .replace("SUBNET", parts.subnet)
        .replace("MORE", parts.more);
    let source = Source::new("network.toml", text);
    config::parse(&source).and_then(|file| Topology::build(&file, &source))
}

/// A rule, what breaks it and nothing else, and the nearest that does not.
fn cases() -> Vec<(Rule, Parts, Parts)> {
    use Rule::*;
    vec![
        // Part of a subnet; larger than one; outside of the VPC.
        (
            EdgeDestination,
            edge(r#"routes = [{ destination = "10.0.1.0/25", endpoint = "vpce-a" }]"#),
            edge(r#"routes = [{ destination = "10.0.1.0/24", endpoint = "vpce-a" }]"#),
        ),
        (
            EdgeDestination,
            edge(r#"routes = [{ destination = "10.0.0.0/20", endpoint = "vpce-a" }]"#),
            edge(r#"routes = [{ destination = "10.0.2.0/24", interface = "eni" }]"#),
        ),
        (
            EdgeDestination,
            edge(r#"routes = [{ destination = "0.0.0.0/0", endpoint = "vpce-a" }]"#),
            edge(r#"routes = [{ destination = "fd00:10:0:1::/64", endpoint = "vpce-a" }]"#),
        ),
        // The whole VPC, which AWS lets be replaced and Alibaba Cloud has no entry for.
        (
            EdgeSystemEntry,
            edge(r#"routes = [{ destination = "10.0.0.0/16", endpoint = "vpce-a" }]"#),
            edge(r#"routes = [{ destination = "10.0.1.0/24", local = true }]"#),
        ),
        (
            EdgeTarget,
            edge(r#"routes = [{ destination = "10.0.1.0/24", nat_gateway = "nat" }]"#),
            edge(r#"routes = [{ destination = "10.0.1.0/24", interface = "eni" }]"#),
        ),
        (
            EdgeTarget,
            edge(r#"routes = [{ destination = "10.0.1.0/24", blackhole = true }]"#),
            edge(r#"routes = [{ destination = "10.0.1.0/24", local = true }]"#),
        ),
        (
            EdgeTarget,
            edge(r#"routes = [{ destination = "10.0.1.0/24", opaque = "pcx" }]"#),
            edge(r#"routes = [{ destination = "10.0.1.0/24", endpoint = "vpce-b" }]"#),
        ),
        (
            EdgePrefixList,
            edge(r#"routes = [{ prefix_list = "offices", local = true }]"#),
            subnet(r#"routes = [{ prefix_list = "offices", internet_gateway = "igw" }]"#),
        ),
        (EdgePropagation, edge(r#"propagating = ["vgw"]"#), subnet(r#"propagating = ["vgw"]"#)),
        (EdgeMain, edge("main = true"), subnet("main = true")),
        (
            LocalDestination,
            subnet(r#"routes = [{ destination = "10.0.96.0/20", endpoint = "vpce-a" }]"#),
            subnet(r#"routes = [{ destination = "10.0.2.0/24", endpoint = "vpce-a" }]"#),
        ),
        (
            LocalTarget,
            subnet(r#"routes = [{ destination = "10.0.2.0/24", internet_gateway = "igw" }]"#),
            subnet(r#"routes = [{ destination = "10.0.2.0/24", nat_gateway = "nat" }]"#),
        ),
        (
            LocalTarget,
            subnet(
                r#"routes = [{ destination = "10.0.0.0/16", virtual_private_gateway = "vgw" }]"#,
            ),
            subnet(r#"routes = [{ destination = "10.0.0.0/16", interface = "eni" }]"#),
        ),
        (
            LocalTarget,
            subnet(r#"routes = [{ destination = "10.0.2.0/24", opaque = "pcx" }]"#),
            subnet(r#"routes = [{ destination = "10.1.0.0/16", opaque = "pcx" }]"#),
        ),
        // The ranges of a list are held to the rules as if they were written.
        (
            LocalTarget,
            Parts {
                subnet: r#"routes = [{ prefix_list = "inner", internet_gateway = "igw" }]"#,
                more: INNER,
                ..Parts::default()
            },
            Parts {
                subnet: r#"routes = [{ prefix_list = "inner", interface = "eni" }]"#,
                more: INNER,
                ..Parts::default()
            },
        ),
        (
            WithinSubnet,
            subnet(r#"routes = [{ destination = "10.0.2.128/25", interface = "eni" }]"#),
            subnet(r#"routes = [{ destination = "10.0.2.0/24", interface = "eni" }]"#),
        ),
        (
            ReservedDestination,
            subnet(r#"routes = [{ destination = "169.254.169.0/24", internet_gateway = "igw" }]"#),
            subnet(r#"routes = [{ destination = "169.254.0.0/16", internet_gateway = "igw" }]"#),
        ),
        (
            ReservedDestination,
            subnet(r#"routes = [{ destination = "100.64.0.0/11", internet_gateway = "igw" }]"#),
            subnet(r#"routes = [{ destination = "100.0.0.0/8", internet_gateway = "igw" }]"#),
        ),
        (
            PrefixListEndpoint,
            subnet(r#"routes = [{ prefix_list = "offices", endpoint = "vpce-a" }]"#),
            subnet(r#"routes = [{ destination = "203.0.113.0/24", endpoint = "vpce-a" }]"#),
        ),
        (
            GroupMembers,
            more(
                r#"
[[endpoint_group]]
name = "g"
mode = "weighted"
members = [{ endpoint = "vpce-a", weight = 60 }, { endpoint = "vpce-b", weight = 40 }]"#,
            ),
            more(
                r#"
[[endpoint_group]]
name = "g"
members = [{ endpoint = "vpce-a", weight = 0 }, { endpoint = "vpce-b", weight = 100 }]"#,
            ),
        ),
    ]
}

/// Who of the rules' owners minds this file, with what they cite.
fn refused_by(parts: Parts) -> Vec<(RuleSet, Vec<Rule>)> {
    let cited = |set| match build(set, parts) {
        Ok(_) => None,
        Err(problems) => {
            let rules: BTreeSet<Rule> = problems
                .iter()
                .map(|problem| match problem.broken_rule() {
                    Some((rule, of)) if of == set => rule,
                    _ => panic!("no rule is cited:\n{}", problems.render(Look::Plain)),
                })
                .collect();
            Some((set, rules.into_iter().collect()))
        }
    };
    SETS.into_iter().filter_map(cited).collect()
}

#[test]
fn each_rule_refuses_what_it_says_and_nothing_beside() {
    for (number, (rule, refused, accepted)) in cases().into_iter().enumerate() {
        let by = refused_by(refused);
        assert!(!by.is_empty(), "case {number}: nobody minds what breaks {rule:?}");
        assert!(by.iter().any(|(_, rules)| rules == &[rule]), "case {number}: {rule:?}: {by:?}");
        for (set, rules) in &by {
            // Another cloud may refuse the same for a reason of its own.
            assert!(rules.iter().all(|rule| rule.is_in(*set)), "case {number}: {by:?}");
        }
        for set in SETS.into_iter().filter(|set| rule.is_in(*set)) {
            let named = by.iter().any(|(by, _)| *by == set);
            // 169.254.0.0/16 is AWS's matter, 100.64.0.0/10 Alibaba Cloud's.
            assert!(named || rule == Rule::ReservedDestination, "case {number}: {set}: {by:?}");
            if let Err(problems) = build(set, accepted) {
                panic!("case {number}: {rule:?}:\n{}", problems.render(Look::Plain));
            }
        }
        assert!(by.iter().all(|(set, _)| *set != RuleSet::Linux), "case {number}: {by:?}");
    }
}

#[test]
fn every_rule_about_a_file_has_its_case() {
    // The others are about changes: `tests/changes.rs`.
    let changes = [
        Rule::EndpointInUse,
        Rule::TableInUse,
        Rule::SubnetInUse,
        Rule::EndpointImmutable,
        Rule::InterfaceThroughLocal,
    ];
    let tried: BTreeSet<Rule> = cases().into_iter().map(|(rule, ..)| rule).collect();
    let all: BTreeSet<Rule> = Rule::ALL.iter().copied().collect();
    let left: Vec<_> = all.difference(&tried).filter(|rule| !changes.contains(rule)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_is_impossible_is_refused_whatever_the_rules() {
    let cases = [
        subnet(r#"routes = [{ destination = "::/0", nat_gateway = "nat" }]"#),
        subnet(
            r#"routes = [{ destination = "0.0.0.0/0", egress_only_internet_gateway = "eigw" }]"#,
        ),
        subnet(r#"routes = [{ destination = "192.0.2.0/24", local = true }]"#),
        subnet(r#"routes = [{ destination = "0.0.0.0/0", endpoint = "vpce-c" }]"#),
        subnet("routes = [{ blackhole = true }]"),
        subnet(r#"routes = [{ prefix_list = "offices", egress_only_internet_gateway = "eigw" }]"#),
        subnet(r#"routes = [{ prefix_list = "offices", local = true }]"#),
        subnet(
            r#"routes = [{ prefix_list = "offices", opaque = "pcx" }, { prefix_list = "offices", blackhole = true }]"#,
        ),
        subnet(
            r#"routes = [{ destination = "0.0.0.0/0", prefix_list = "offices", blackhole = true }]"#,
        ),
        subnet(r#"routes = [{ destination = "0.0.0.0/0", transit_gateway = "tgw" }]"#),
        more(
            "[[endpoint_group]]\nname = \"g\"\nmembers = [{ endpoint = \"vpce-a\", weight = 100 }]",
        ),
        more(
            "[[endpoint_group]]\nname = \"g\"\nmode = \"weighted\"\nmembers = [{ endpoint = \"vpce-a\", weight = 0 }, { endpoint = \"vpce-b\", weight = 0 }]",
        ),
        more(
            "[[transit_gateway]]\nname = \"tgw\"\n[[transit_gateway_route_table]]\nname = \"t\"\ntransit_gateway = \"tgw\"\nroutes = [{ destination = \"0.0.0.0/0\" }]",
        ),
        more("[[prefix_list]]\nname = \"twice\"\nentries = [\"192.0.2.0/24\", \"192.0.2.0/24\"]"),
        more(
            "[[network_interface]]\nname = \"out\"\nsubnet = \"app-a\"\naddresses = [\"10.0.2.9\"]",
        ),
    ];
    for (number, parts) in cases.into_iter().enumerate() {
        for set in SETS {
            assert!(build(set, parts).is_err(), "case {number} under {set}");
        }
    }
}

#[test]
fn the_gateways_semantics_choose_the_rules_where_nothing_else_does() {
    let rules = |text: &str| {
        let source = Source::new("t.toml", text);
        config::parse(&source).unwrap().rules()
    };
    assert_eq!(rules(""), RuleSet::Aws);
    assert_eq!(rules("[gateway]\nsemantics = \"alibaba\""), RuleSet::Alibaba);
    assert_eq!(
        rules("[gateway]\nsemantics = \"alibaba\"\n[routing]\nrules = \"linux\""),
        RuleSet::Linux
    );
    // What is wrong there is the gateway's to tell.
    assert_eq!(rules("[gateway]\nsemantics = 7"), RuleSet::Aws);
}

/// The table of the documentation.
#[test]
fn the_documentation_has_every_rule() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/routing.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("--test rules` -->\n").unwrap();
    let (found, after) = rest.split_once("<!-- end of rules -->").unwrap();
    let mut table =
        "\n| rule | what it says | AWS | Alibaba Cloud |\n|---|---|---|---|\n".to_owned();
    for rule in Rule::ALL {
        let source = |set| rule.source(set).unwrap_or("no such rule");
        let (aws, alibaba) = (source(RuleSet::Aws), source(RuleSet::Alibaba));
        writeln!(table, "| `{}` | {} | {aws} | {alibaba} |", rule.code(), rule.statement())
            .unwrap();
    }
    table += "\n";
    if std::env::var_os("GWLB_BLESS").is_some() {
        let page = format!("{before}--test rules` -->\n{table}<!-- end of rules -->{after}");
        std::fs::write(&path, page).unwrap();
    } else {
        assert_eq!(found, table, "GWLB_BLESS=1 rewrites it");
    }
}
