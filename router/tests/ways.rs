//! Ways that are easily told wrong: zones without a transit gateway, routes of one range from several
//! sources, members of groups, and likely sources.
#![expect(clippy::unwrap_used, clippy::panic, reason = "in the helpers of tests, as in tests")]

use std::path::Path;

use router::source::{Look, Source};
use router::trace::{ByZone, Packet, Passage};
use router::{RouteState, Topology, config};
use rstest::rstest;

fn build(text: &str) -> Topology {
    let source = Source::new("test.toml", text);
    config::parse(&source)
        .and_then(|file| Topology::build(&file, &source))
        .unwrap_or_else(|problems| panic!("{}", problems.render(Look::Plain)))
}

fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// One VPC with a subnet, its table, and whatever else.
fn network(routes: &str, more: &str) -> Topology {
    build(&format!(
        r#"
[[vpc]]
name = "app"
cidrs = ["fd00:10::/48", "10.0.0.0/16"]

[[subnet]]
name = "app"
vpc = "app"
zone = "az1"
cidrs = ["fd00:10:0:1::/64", "10.0.1.0/24"]
route_table = "app"

[[internet_gateway]]
name = "igw"
vpc = "app"

[[virtual_private_gateway]]
name = "vgw"
vpc = "app"
routes = [{{ destination = "10.0.2.0/25" }}, {{ destination = "fd00:99::/32" }}, {{ destination = "9.0.0.0/8" }}]

[[prefix_list]]
name = "nine"
entries = ["9.0.0.0/8"]

[[route_table]]
name = "app"
vpc = "app"
propagating = ["vgw"]
routes = [{routes}]

{more}
"#
    ))
}

#[rstest]
#[case("subnet:app", "1.1.1.1", Some("10.0.1.10"))]
#[case("subnet:app", "2001:db8::1", Some("fd00:10:0:1::9"))]
#[case("virtual_private_gateway:vgw", "10.0.1.9", Some("10.0.2.10"))]
#[case("virtual_private_gateway:vgw", "fd00:10:0:1::9", Some("fd00:99::9"))]
#[case("internet_gateway:igw", "10.0.1.9", Some("203.0.113.7"))]
fn a_likely_source_is_of_the_family_of_the_destination(
    #[case] from: &str,
    #[case] to: &str,
    #[case] expected: Option<&str>,
) {
    let topology = network("", "");
    let source = topology.likely_source(topology.entry(from).unwrap(), to.parse().unwrap());
    assert_eq!(source, expected.map(|text| text.parse().unwrap()));
}

#[test]
fn a_zone_without_a_subnet_of_the_attachment_does_not_reach_the_transit_gateway() {
    let whole = example("transit-hub.toml");
    let one_zone = whole.replace("subnets = [\"app-a\", \"app-b\"]", "subnets = [\"app-a\"]");
    assert_ne!(whole, one_zone);
    let delivered = |text: &str, from: &str| {
        let topology = build(text);
        let trace = topology.trace(topology.entry(from).unwrap(), "10.2.1.5".parse().unwrap());
        (trace.delivered, trace.to_string())
    };
    assert!(delivered(&one_zone, "subnet:app-a").0);
    let (arrived, text) = delivered(&one_zone, "subnet:app-b");
    assert!(!arrived && text.contains("has no subnet in zone az2"), "{text}");
    // On Linux nothing holds it to its zone.
    let linux = format!("[routing]\nrules = \"linux\"\n{one_zone}");
    assert!(delivered(&linux, "subnet:app-b").0);
}

#[rstest]
#[case("10.9.1.5", "no route of table inspection has 10.9.1.5")]
#[case("10.8.1.5", "10.8.0.0/16 of table inspection is a blackhole")]
fn what_is_lost_in_a_transit_gateway_says_why(#[case] to: &str, #[case] why: &str) {
    let text = example("transit-hub.toml").replace(
        "propagations = [\"app\", \"db\"]",
        "propagations = [\"app\", \"db\"]\nroutes = [{ destination = \"10.8.0.0/16\", blackhole = true }]",
    );
    let topology = build(&text);
    let trace = topology.trace(topology.entry("subnet:app-a").unwrap(), to.parse().unwrap());
    assert!(!trace.delivered);
    let last = trace.hops.last().unwrap().passage.as_ref().unwrap();
    assert!(matches!(last, Passage::LostInTransit { why: told, .. } if told == why), "{trace}");
}

#[test]
fn a_list_and_a_destination_may_have_one_range_in_either_order() {
    let destination = r#"{ destination = "9.0.0.0/8", internet_gateway = "igw" }"#;
    let list = r#"{ prefix_list = "nine", blackhole = true }"#;
    for routes in [format!("{destination}, {list}"), format!("{list}, {destination}")] {
        let topology = network(&routes, "");
        let app = topology.entry("subnet:app").unwrap();
        let explained = topology.explain(app, "9.9.9.9".parse().unwrap());
        assert_eq!(explained.next, "internet_gateway:igw");
        // The list's, and then the propagated one.
        let beaten: Vec<_> =
            explained.passed_over.iter().map(|it| (it.target.as_str(), it.state)).collect();
        let filtered = RouteState::Filtered;
        assert_eq!(beaten, [("blackhole", filtered), ("virtual_private_gateway:vgw", filtered)]);
    }
}

#[test]
fn what_is_propagated_within_the_vpc_gives_way_to_local() {
    let topology = network("", "");
    let app = topology.entry("subnet:app").unwrap();
    let explained = topology.explain(app, "10.0.2.9".parse().unwrap());
    assert_eq!(explained.next, "no_subnet", "{explained}");
    assert!(explained.reason.contains("propagated within the VPC gives way"), "{explained}");
    assert_eq!(explained.passed_over[0].state, RouteState::Filtered);
    assert_eq!(
        topology.explain(app, "9.9.9.9".parse().unwrap()).next,
        "virtual_private_gateway:vgw"
    );
}

#[test]
fn a_group_takes_who_is_active_whoever_is_listed_first() {
    let text = example("route-target-group.toml");
    let turned = text
        .replace("\"vpce-a\", weight = 100", "\"vpce-a\", weight = 0")
        .replace("\"vpce-b\", weight = 0", "\"vpce-b\", weight = 100");
    let disabled = text.replace("weight = 100 }", "weight = 100, enabled = false }");
    for (text, endpoint) in [(&text, "vpce-a"), (&turned, "vpce-b"), (&disabled, "vpce-b")] {
        let topology = build(text);
        let from = topology.entry("subnet:app-a").unwrap();
        let trace = topology.trace(from, "203.0.113.7".parse().unwrap());
        assert_eq!(trace.endpoints, [topology.endpoint_by_name(endpoint).unwrap()], "{trace}");
        // Who asks for a zone gets its member.
        let zone = ByZone { topology: &topology, zone: Some("az1") };
        let packet = Packet::to("203.0.113.7".parse().unwrap());
        let trace = topology.trace_packet(from, &packet, &zone);
        assert_eq!(trace.endpoints, [topology.endpoint_by_name("vpce-a").unwrap()], "{trace}");
    }
}
