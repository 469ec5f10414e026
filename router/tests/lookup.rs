//! Where packets go: the canonical design, case by case, and what the rules accept.
#![expect(clippy::unwrap_used, clippy::panic, reason = "in the helpers of tests, as in tests")]

use std::net::IpAddr;
use std::path::Path;

use router::source::Source;
use router::{Attachment, Entry, NextHop, Origin, Target, Topology, config};
use rstest::rstest;

fn build(text: &str) -> Topology {
    let source = Source::new("test.toml", text);
    config::parse(&source)
        .and_then(|file| Topology::build(&file, &source))
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn two_zones() -> Topology {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/two-zones.toml");
    build(&std::fs::read_to_string(path).unwrap())
}

#[rstest]
// In from the internet: each zone's application through its own zone's endpoint.
#[case("internet_gateway:igw", "10.0.1.11", "endpoint:vpce-a")]
#[case("internet_gateway:igw", "10.0.2.11", "endpoint:vpce-b")]
#[case("internet_gateway:igw", "fd00:10:0:1::11", "endpoint:vpce-a")]
#[case("internet_gateway:igw", "fd00:10:0:2::11", "endpoint:vpce-b")]
// Subnets that the gateway table does not name are reached by the local route.
#[case("internet_gateway:igw", "10.0.7.1", "subnet:data")]
#[case("internet_gateway:igw", "10.0.101.4", "subnet:gwlbe-a")]
#[case("internet_gateway:igw", "10.0.9.1", "no_subnet")]
// A gateway table knows nothing but the VPC.
#[case("internet_gateway:igw", "203.0.113.7", "no_route")]
#[case("internet_gateway:igw", "2001:db8::7", "no_route")]
// Back from the appliance: the endpoint's own subnet's table.
#[case("endpoint:vpce-a", "10.0.1.11", "subnet:app-a")]
#[case("endpoint:vpce-a", "fd00:10:0:1::11", "subnet:app-a")]
#[case("endpoint:vpce-b", "10.0.1.11", "subnet:app-a")]
#[case("endpoint:vpce-a", "203.0.113.7", "internet_gateway:igw")]
#[case("endpoint:vpce-b", "2001:db8::7", "internet_gateway:igw")]
// Out of the application.
#[case("subnet:app-a", "203.0.113.7", "endpoint:vpce-a")]
#[case("subnet:app-b", "203.0.113.7", "endpoint:vpce-b")]
#[case("subnet:app-b", "2001:db8::7", "endpoint:vpce-b")]
#[case("subnet:app-a", "192.0.2.255", "blackhole")]
#[case("subnet:app-a", "192.0.3.0", "endpoint:vpce-a")]
// Within the VPC: local, unless a route for the whole subnet says otherwise.
#[case("subnet:app-a", "10.0.2.11", "subnet:app-b")]
#[case("subnet:app-b", "10.0.1.11", "endpoint:vpce-b")]
#[case("subnet:app-b", "10.0.2.12", "subnet:app-b")]
#[case("subnet:app-b", "fd00:10:0:1::11", "subnet:app-a")]
// The main table, here the implicit one, has only local routes.
#[case("subnet:data", "10.0.1.11", "subnet:app-a")]
#[case("subnet:data", "203.0.113.7", "no_route")]
#[case("subnet:data", "fd00:10:0:ffff::1", "no_subnet")]
fn packets_go_where_the_tables_say(
    #[case] from: &str,
    #[case] destination: IpAddr,
    #[case] expected: &str,
) {
    let topology = two_zones();
    let from = topology.entry(from).unwrap();
    let found = topology.lookup(from, destination);
    assert_eq!(topology.next_hop_name(found), expected);
    // The same for one packet of many, wherever the one before went.
    let mut lookups = topology.routes(from).lookups();
    for before in ["10.0.1.11", "203.0.113.7", "10.0.7.1", "fd00:10:0:1::11", "2001:db8::7"] {
        let before = before.parse().unwrap();
        assert_eq!(lookups.lookup(before), topology.lookup(from, before));
        assert_eq!(lookups.lookup(destination), found, "after {before}");
    }
    // What is said to people is what is done to packets.
    let explanation = topology.explain(from, destination);
    assert_eq!(explanation.next_hop, found);
    assert_eq!(explanation.next, expected);
}

#[test]
fn names_and_ids_lead_to_each_other() {
    let topology = two_zones();
    assert!(topology.vpcs().all(|(id, vpc)| topology.vpc_by_name(&vpc.name) == Some(id)));
    assert!(topology.subnets().all(|(id, it)| topology.subnet_by_name(&it.name) == Some(id)));
    assert!(topology.gateways().all(|(id, it)| topology.gateway_by_name(&it.name) == Some(id)));
    assert!(topology.tables().all(|(id, it)| topology.table_by_name(it.name()) == Some(id)));
    assert!(topology.endpoints().all(|(id, it)| topology.endpoint_by_name(&it.name) == Some(id)));
    let indices: Vec<usize> = topology.subnets().map(|(id, _)| id.index()).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4], "ids count in the order of the file");
    let igw = topology.gateway_by_name("igw").unwrap();
    assert_eq!(topology.attachment_name(Attachment::InternetGateway(igw)), "igw");
    assert_eq!(topology.endpoint_by_name("vpce-c"), None);
}

#[test]
fn endpoints_have_what_the_file_leaves_out() {
    let topology = two_zones();
    let endpoints: Vec<_> = topology.endpoints().map(|(_, endpoint)| endpoint).collect();
    let addresses = |texts: [&str; 2]| texts.map(|text| text.parse::<IpAddr>().unwrap()).to_vec();
    assert_eq!(endpoints[0].wire_id, 0x0123_4567_89ab_cdef);
    assert_eq!(endpoints[0].zone, "az1");
    assert_eq!(endpoints[0].addresses, addresses(["10.0.101.4", "fd00:10:0:101::4"]));
    assert_eq!(endpoints[1].wire_id, router::derived_wire_id("vpce-b"));
    assert_eq!(endpoints[1].zone, "az2");
    assert_eq!(endpoints[1].addresses, addresses(["10.0.102.9", "fd00:10:0:102::4"]));
}

#[test]
fn endpoints_of_one_subnet_share_it() {
    let topology = build(
        r#"
        vpc = [{ name = "app", cidrs = ["10.0.0.0/16"] }]
        subnet = [{ name = "s", vpc = "app", zone = "z", cidrs = ["10.0.0.0/24"] }]
        internet_gateway = [{ name = "igw", vpc = "app", addresses = [
            { public = "198.51.100.6", private = "10.0.0.6" },
        ] }]
        endpoint = [
            { name = "one", subnet = "s", service = "x" },
            { name = "two", subnet = "s", service = "x" },
            { name = "three", subnet = "s", service = "x", address = "10.0.0.4" },
            { name = "four", subnet = "s", service = "x" },
        ]
        "#,
    );
    let addresses: Vec<String> =
        topology.endpoints().map(|(_, endpoint)| endpoint.addresses[0].to_string()).collect();
    // .4 is written and .6 belongs to a server.
    assert_eq!(addresses, ["10.0.0.5", "10.0.0.7", "10.0.0.4", "10.0.0.8"]);
}

#[test]
fn a_main_table_is_for_the_subnets_that_name_none() {
    let topology = build(
        r#"
        vpc = [{ name = "app", cidrs = ["10.0.0.0/16"] }]
        subnet = [
            { name = "without", vpc = "app", zone = "z", cidrs = ["10.0.0.0/24"] },
            { name = "with", vpc = "app", zone = "z", cidrs = ["10.0.1.0/24"], route_table = "t" },
        ]
        internet_gateway = [{ name = "igw", vpc = "app" }]
        route_table = [
            { name = "t", vpc = "app", main = false },
            { name = "m", vpc = "app", main = true, routes = [
                { destination = "0.0.0.0/0", internet_gateway = "igw" },
            ] },
        ]
        "#,
    );
    let igw = topology.gateway_by_name("igw").unwrap();
    let internet = "203.0.113.7".parse().unwrap();
    let next = |name| topology.lookup(topology.entry(name).unwrap(), internet);
    assert_eq!(next("subnet:without"), NextHop::Deliver(Attachment::InternetGateway(igw)));
    assert_eq!(next("subnet:with"), NextHop::NoRoute);
    // A gateway without a table has the local routes, not the main table.
    assert_eq!(next("internet_gateway:igw"), NextHop::NoRoute);
    let within = topology.lookup(Entry::InternetGateway(igw), "10.0.1.9".parse().unwrap());
    assert_eq!(topology.next_hop_name(within), "subnet:with");
}

#[test]
fn address_spaces_of_vpcs_may_overlap() {
    let topology = build(
        r#"
        vpc = [{ name = "one", cidrs = ["10.0.0.0/16"] }, { name = "two", cidrs = ["10.0.0.0/16"] }]
        subnet = [
            { name = "one-a", vpc = "one", zone = "z", cidrs = ["10.0.0.0/24"] },
            { name = "two-a", vpc = "two", zone = "z", cidrs = ["10.0.0.0/24"] },
        ]
        endpoint = [
            { name = "vpce-one", subnet = "one-a", service = "x" },
            { name = "vpce-two", subnet = "two-a", service = "x" },
        ]
        "#,
    );
    let there = "10.0.0.9".parse().unwrap();
    for vpc in ["one", "two"] {
        let from = topology.entry(&format!("endpoint:vpce-{vpc}")).unwrap();
        let next = topology.lookup(from, there);
        assert_eq!(topology.next_hop_name(next), format!("subnet:{vpc}-a"));
    }
}

/// The accepted forms of what `errors/gateway-table.toml` shows refused.
#[test]
fn a_gateway_table_takes_whole_ranges_to_endpoints_and_local() {
    let topology = build(
        r#"
        vpc = [{ name = "app", cidrs = ["10.0.0.0/16", "fd00:10::/48"] }]
        subnet = [
            { name = "a", vpc = "app", zone = "z", cidrs = ["10.0.1.0/24", "fd00:10:0:1::/64"] },
            { name = "b", vpc = "app", zone = "z", cidrs = ["10.0.2.0/24"] },
            { name = "gwlbe", vpc = "app", zone = "z", cidrs = ["10.0.101.0/28", "fd00:10:0:101::/64"] },
        ]
        internet_gateway = [{ name = "igw", vpc = "app", route_table = "edge" }]
        route_table = [{ name = "edge", vpc = "app", routes = [
            { destination = "10.0.0.0/16", endpoint = "vpce" },
            { destination = "10.0.2.0/24", local = true },
            { destination = "fd00:10:0:1::/64", endpoint = "vpce" },
            { destination = "fd00:10::/48", local = true },
        ] }]
        endpoint = [{ name = "vpce", subnet = "gwlbe", service = "x" }]
        "#,
    );
    let from = topology.entry("internet_gateway:igw").unwrap();
    for (destination, expected) in [
        ("10.0.1.9", "endpoint:vpce"),
        ("10.0.2.9", "subnet:b"),
        ("10.0.200.9", "endpoint:vpce"),
        ("fd00:10:0:1::9", "endpoint:vpce"),
    ] {
        let next = topology.lookup(from, destination.parse().unwrap());
        assert_eq!(topology.next_hop_name(next), expected, "{destination}");
    }
    let edge = topology.table(topology.table_by_name("edge").unwrap());
    let whole = edge.routes().find(|route| route.destination.prefix_len() == 16).unwrap();
    assert_eq!(whole.origin, Origin::CreateRoute, "it has replaced the local route");
    assert!(matches!(whole.target, Target::Endpoint(_)));
}

/// One endpoint after the other is no circle, nor is a circle that no address follows.
#[test]
fn endpoints_may_follow_each_other() {
    let topology = build(
        r#"
        vpc = [{ name = "app", cidrs = ["10.0.0.0/16"] }]
        subnet = [
            { name = "one", vpc = "app", zone = "z", cidrs = ["10.0.1.0/24"], route_table = "one" },
            { name = "two", vpc = "app", zone = "z", cidrs = ["10.0.2.0/24"], route_table = "two" },
        ]
        route_table = [
            { name = "one", vpc = "app", routes = [
                { destination = "192.0.2.0/25", endpoint = "second" },
                { destination = "192.0.2.128/25", blackhole = true },
            ] },
            { name = "two", vpc = "app", routes = [
                { destination = "192.0.2.0/24", endpoint = "first" },
                { destination = "192.0.2.0/25", blackhole = true },
            ] },
        ]
        endpoint = [
            { name = "first", subnet = "one", service = "x" },
            { name = "second", subnet = "two", service = "y" },
        ]
        "#,
    );
    let trace = topology.trace(topology.entry("endpoint:first").unwrap(), [192, 0, 2, 1].into());
    assert_eq!(trace.hops.len(), 2);
    assert_eq!(trace.end, "blackhole");
}

#[test]
fn a_topology_is_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Topology>();
}

#[rstest]
#[case(
    "igw",
    "\"igw\" names no place: write KIND:NAME, where the kind is internet_gateway, subnet, endpoint, interface, nat_gateway, virtual_private_gateway, egress_only_internet_gateway or opaque"
)]
#[case(
    "vpc:app",
    "\"vpc:app\" names no place: write KIND:NAME, where the kind is internet_gateway, subnet, endpoint, interface, nat_gateway, virtual_private_gateway, egress_only_internet_gateway or opaque"
)]
#[case("subnet:app-c", "there is no subnet \"app-c\": did you mean \"app-a\"?")]
#[case("endpoint:x", "there is no endpoint \"x\"")]
#[case("internet_gateway:", "there is no internet gateway \"\"")]
fn places_that_are_not_there_are_told(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(two_zones().entry(text).unwrap_err().to_string(), expected);
}
