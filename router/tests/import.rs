//! Imports of what AWS says: whole networks against their configurations, and what becomes of
//! documents that are wrong, not whole, or of another time.
#![expect(clippy::unwrap_used, clippy::panic, reason = "in the helpers of tests, as in tests")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use router::import::{Imported, import};
use router::source::{Look, Source};
use router::verify::FindingKind;
use router::{Topology, config};
use rstest::rstest;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import")
}

/// One document, or all of a folder.
fn documents(name: &str) -> Vec<Source> {
    let path = folder().join(name);
    let mut paths = if path.is_dir() {
        std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect()
    } else {
        vec![path.with_extension("json")]
    };
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        Source::new(name, std::fs::read_to_string(path).unwrap())
    };
    paths.iter().map(read).collect()
}

fn imported(documents: &[Source]) -> Imported {
    import(documents).unwrap_or_else(|problems| {
        let reports: Vec<String> = problems.iter().map(|it| it.render(Look::Plain)).collect();
        panic!("{}", reports.join("\n"))
    })
}

fn topology(toml: &str) -> Topology {
    let source = Source::new("imported.toml", toml);
    config::parse(&source)
        .and_then(|file| Topology::build(&file, &source))
        .unwrap_or_else(|problems| panic!("{}\n{toml}", problems.render(Look::Plain)))
}

/// One output of everything.
fn import_json(value: &Value) -> Imported {
    imported(&[Source::new("all.json", value.to_string())])
}

fn notes(imported: &Imported) -> Vec<String> {
    imported.notes.iter().map(ToString::to_string).collect()
}

fn report(text: &str) -> String {
    let problems = import(&[Source::new("all.json", text)]).unwrap_err();
    problems.iter().map(|problems| problems.render(Look::Plain)).collect::<Vec<_>>().join("\n")
}

#[rstest]
#[case("one-zone")]
#[case("two-zones")]
#[case("hub")]
fn networks_become_configurations(#[case] name: &str) {
    let documents = documents(name);
    let imported = imported(&documents);
    insta::with_settings!({ snapshot_path => folder(), prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, imported.toml);
    });
    let topology = topology(&imported.toml);
    assert!(topology.subnets().len() > 1);
    // The head of the file says what the notes say.
    let head = imported.toml.replace("\n#   ", " ");
    for note in &imported.notes {
        assert!(head.contains(&format!("# - {note}\n")), "{note}");
    }
    let mut reversed = documents;
    reversed.reverse();
    assert_eq!(self::imported(&reversed).toml, imported.toml, "the order of the documents matters");
}

/// What the AWS CLI prints may come one after the other, in an array, or joined by `jq -s add`.
#[test]
fn documents_may_be_joined_in_any_way() {
    let json = std::fs::read_to_string(folder().join("two-zones.json")).unwrap();
    let outputs: Vec<Value> =
        serde_json::Deserializer::from_str(&json).into_iter().map(Result::unwrap).collect();
    let mut joined = serde_json::Map::new();
    for output in &outputs {
        joined.extend(output.as_object().unwrap().clone());
    }
    let toml = |text: String| imported(&[Source::new("two-zones.json", text)]).toml;
    let expected = toml(json.clone());
    assert_eq!(toml(Value::Array(outputs).to_string()), expected);
    assert_eq!(toml(Value::Object(joined).to_string()), expected);
    assert_eq!(toml(format!("\u{feff}{json}")), expected, "as Windows writes it");
    assert_eq!(toml(format!("{json}{json}")), expected, "twice the same is once");
}

fn minimal() -> Value {
    json!({
        "Vpcs": [{ "VpcId": "vpc-1", "CidrBlock": "10.0.0.0/16" }],
        "Subnets": [
            {
                "SubnetId": "subnet-1", "VpcId": "vpc-1", "AvailabilityZone": "z-a",
                "CidrBlock": "10.0.1.0/24",
            },
            {
                "SubnetId": "subnet-2", "VpcId": "vpc-1", "AvailabilityZone": "z-a",
                "CidrBlock": "10.0.2.0/24",
            },
        ],
        "RouteTables": [
            {
                "RouteTableId": "rtb-1", "VpcId": "vpc-1", "PropagatingVgws": [],
                "Associations": [{
                    "Main": false, "SubnetId": "subnet-1",
                    "AssociationState": { "State": "associated" },
                }],
                "Routes": [],
            },
            { "RouteTableId": "rtb-2", "VpcId": "vpc-1", "Associations": [{ "Main": true }] },
        ],
        "InternetGateways": [
            { "InternetGatewayId": "igw-1", "Attachments": [{ "VpcId": "vpc-1", "State": "available" }] },
        ],
        "VpcEndpoints": [{
            "VpcEndpointId": "vpce-1", "VpcEndpointType": "GatewayLoadBalancer", "VpcId": "vpc-1",
            "ServiceName": "inspection", "State": "available", "SubnetIds": ["subnet-2"],
        }],
    })
}

/// The minimal network with one route in the table of its first subnet.
fn with_route(route: &Value) -> Value {
    let mut all = minimal();
    all["RouteTables"][0]["Routes"] = json!([route]);
    all
}

const LOCAL: &str = "10.0.0.0/16";

#[rstest]
#[case::local_is_implied(json!({ "DestinationCidrBlock": LOCAL, "GatewayId": "local", "Origin": "CreateRouteTable" }), "name = \"rtb-1\"\nvpc = \"vpc-1\"\n\n")]
#[case::local_of_a_subnet(json!({ "DestinationCidrBlock": "10.0.1.0/24", "GatewayId": "local" }), r#"{ destination = "10.0.1.0/24", local = true },"#)]
#[case::local_replaced(json!({ "DestinationCidrBlock": LOCAL, "GatewayId": "vpce-1" }), r#"{ destination = "10.0.0.0/16", endpoint = "vpce-1" },"#)]
#[case::internet(json!({ "DestinationIpv6CidrBlock": "::/0", "GatewayId": "igw-1" }), r#"{ destination = "::/0", internet_gateway = "igw-1" },"#)]
#[case::untold_private_gateway(json!({ "DestinationCidrBlock": "10.9.0.0/16", "GatewayId": "vgw-1" }), r#"{ destination = "10.9.0.0/16", virtual_private_gateway = "vgw-1" },"#)]
#[case::untold_egress_only(json!({ "DestinationIpv6CidrBlock": "::/0", "EgressOnlyInternetGatewayId": "eigw-1" }), r#"{ destination = "::/0", egress_only_internet_gateway = "eigw-1" },"#)]
#[case::untold_nat(json!({ "DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1" }), "name = \"nat-1\"\nkind = \"nat_gateway\"\nvpc = \"vpc-1\"\n")]
#[case::untold_interface(json!({ "DestinationCidrBlock": "0.0.0.0/0", "InstanceId": "i-1", "NetworkInterfaceId": "eni-1" }), "name = \"eni-1\"\nkind = \"network_interface\"\n")]
#[case::instance(json!({ "DestinationCidrBlock": "0.0.0.0/0", "InstanceId": "i-1", "InstanceOwnerId": "111122223333" }), "name = \"i-1\"\nkind = \"instance\"\n")]
#[case::untold_transit(json!({ "DestinationCidrBlock": "0.0.0.0/0", "TransitGatewayId": "tgw-1" }), "name = \"tgw-1\"\nkind = \"transit_gateway\"\n")]
#[case::untold_endpoint(json!({ "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "vpce-9" }), "name = \"vpce-9\"\nkind = \"vpc_endpoint\"\n")]
#[case::carrier(json!({ "DestinationCidrBlock": "0.0.0.0/0", "CarrierGatewayId": "cagw-1" }), "kind = \"carrier_gateway\"\n")]
#[case::carrier_as_gateway(json!({ "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "cagw-1" }), "kind = \"carrier_gateway\"\n")]
#[case::outpost(json!({ "DestinationCidrBlock": "0.0.0.0/0", "LocalGatewayId": "lgw-1" }), "kind = \"local_gateway\"\n")]
#[case::cloud_wan(json!({ "DestinationCidrBlock": "0.0.0.0/0", "CoreNetworkArn": "arn:aws:networkmanager::111122223333:core-network/core-network-1" }), "name = \"core-network-1\"\nkind = \"core_network\"\n")]
#[case::database(json!({ "DestinationCidrBlock": "0.0.0.0/0", "OdbNetworkArn": "arn:aws:odb:eu-central-1:111122223333:odb-network/odbnet-1" }), "name = \"odbnet-1\"\nkind = \"odb_network\"\n")]
#[case::peering(json!({ "DestinationCidrBlock": "10.9.0.0/16", "VpcPeeringConnectionId": "pcx-1" }), "kind = \"vpc_peering_connection\"\n")]
#[case::newer_than_this(json!({ "DestinationCidrBlock": "0.0.0.0/0", "TeleportHubId": "hub-1" }), "[[opaque]] # TeleportHubId of a route\nname = \"hub-1\"\nkind = \"teleport_hub\"\n")]
#[case::blackhole(json!({ "DestinationCidrBlock": "10.9.0.0/16", "NatGatewayId": "nat-9", "State": "blackhole" }), r#"{ destination = "10.9.0.0/16", blackhole = true }, # led to nat gateway nat-9, which is gone"#)]
#[case::filtered(json!({ "DestinationCidrBlock": "10.9.0.0/16", "GatewayId": "igw-1", "State": "filtered" }), "  # filtered, to internet gateway igw-1: { destination")]
#[case::advertised(json!({ "DestinationCidrBlock": "10.9.0.0/16", "GatewayId": "igw-1", "Origin": "Advertisement" }), r#"{ destination = "10.9.0.0/16", internet_gateway = "igw-1" }, # origin Advertisement"#)]
#[case::propagated(json!({ "DestinationCidrBlock": "10.9.0.0/16", "GatewayId": "vgw-1", "Origin": "EnableVgwRoutePropagation" }), "routes = [\n  { destination = \"10.9.0.0/16\" },\n]\n\n[[route_table]]\nname = \"rtb-1\"\nvpc = \"vpc-1\"\npropagating = [\"vgw-1\"]\n")]
#[case::prefix_list_without_ranges(json!({ "DestinationPrefixListId": "pl-1", "GatewayId": "igw-1" }), "  # the ranges of the prefix list are not known: { prefix_list = \"pl-1\", internet_gateway = \"igw-1\" },\n")]
#[case::range_with_bits_behind_it(json!({ "DestinationCidrBlock": "10.9.0.18/18", "GatewayId": "igw-1" }), r#"{ destination = "10.9.0.0/18", internet_gateway"#)]
#[case::nothing(json!({ "DestinationCidrBlock": "10.9.0.0/16" }), r#"{ destination = "10.9.0.0/16", blackhole = true }, # there is no target in the input"#)]
fn every_target_has_its_form(#[case] route: Value, #[case] written: &str) {
    let imported = import_json(&with_route(&route));
    assert!(imported.toml.contains(written), "{}", imported.toml);
    topology(&imported.toml);
}

#[test]
fn what_is_not_told_is_opaque_with_the_command_that_tells() {
    for (member, id, command) in [
        ("GatewayId", "vpce-9", "describe-vpc-endpoints"),
        ("NatGatewayId", "nat-9", "describe-nat-gateways"),
        ("NetworkInterfaceId", "eni-9", "describe-network-interfaces"),
        ("TransitGatewayId", "tgw-9", "describe-transit-gateway-vpc-attachments"),
        ("GatewayId", "igw-9", "describe-internet-gateways"),
        ("GatewayId", "vgw-9", "describe-vpn-gateways"),
    ] {
        let route = json!({ "DestinationCidrBlock": "0.0.0.0/0", member: id });
        let notes = notes(&import_json(&with_route(&route)));
        assert!(notes.iter().any(|note| note.contains(command) && note.contains(id)), "{notes:?}");
    }
    let all = json!({ "Vpcs": [{ "VpcId": "vpc-1", "CidrBlock": "10.0.0.0/16" }] });
    let notes = notes(&import_json(&all));
    assert_eq!(
        notes,
        ["commands whose output is not given, and usually matters: describe-subnets, \
          describe-route-tables, describe-vpc-endpoints, describe-internet-gateways"]
    );
}

#[test]
fn what_is_not_understood_is_told() {
    let mut all = minimal();
    all["Vpcs"][0]["Wormhole"] = json!({ "To": "vpc-2" });
    all["Reservations"] = json!([]);
    all["NextToken"] = json!("more");
    all["RouteTables"][0]["Routes"] =
        json!([{ "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1", "Weight": 7 }]);
    all["Subnets"][1]["VpcId"] = json!("vpc-2");
    let told = notes(&import_json(&all)).join("\n");
    for what in [
        "members of a VPC that this version does not know, and leaves out: Wormhole of vpc-1",
        "lists that are not read: Reservations in all.json",
        "the output says that there is more",
        "Weight of 0.0.0.0/0 of rtb-1",
        "subnets left out, for their VPC is not in the output of `aws ec2 describe-vpcs` that was \
         given: subnet-2 of vpc-2",
        "Gateway Load Balancer endpoints that are opaque if anything leads to them: vpce-1 (its \
         subnet subnet-2 is not known)",
    ] {
        assert!(told.contains(what), "{what}\n{told}");
    }
}

/// Something that is gone leaves a route that nobody could make anew.
#[test]
fn a_network_that_breaks_the_rules_is_held_to_none() {
    let route = json!({ "DestinationCidrBlock": "10.0.7.0/24", "NetworkInterfaceId": "eni-9", "State": "blackhole" });
    let imported = import_json(&with_route(&route));
    assert!(imported.toml.contains("rules = \"linux\""), "{}", imported.toml);
    let told = notes(&imported).join("\n");
    assert!(told.contains("10.0.7.0/24 is only a part of VPC \"vpc-1\""), "{told}");
    topology(&imported.toml);
    assert!(import_json(&minimal()).toml.contains("rules = \"aws\""));
}

/// An endpoint whose subnet leads to itself: the engine refuses it, and the import says so.
#[test]
fn what_check_refuses_is_told() {
    let mut all =
        with_route(&json!({ "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "vpce-1" }));
    all["VpcEndpoints"][0]["SubnetIds"] = json!(["subnet-1"]);
    let imported = import_json(&all);
    let told = notes(&imported).join("\n");
    assert!(told.contains("`router check` refuses the configuration"), "{told}");
    assert!(told.contains("endpoint \"vpce-1\" would get its own packets back"), "{told}");
    config::parse(&Source::new("imported.toml", imported.toml)).unwrap();
}

#[test]
fn only_what_is_associated_counts() {
    let mut all = minimal();
    all["Vpcs"][0]["CidrBlockAssociationSet"] = json!([
        { "CidrBlock": "10.0.0.0/16", "CidrBlockState": { "State": "associated" } },
        { "CidrBlock": "10.1.0.0/16", "CidrBlockState": { "State": "disassociating" } },
    ]);
    all["Vpcs"][0]["Ipv6CidrBlockAssociationSet"] = json!([
        { "Ipv6CidrBlock": "2001:db8::/56", "Ipv6CidrBlockState": { "State": "associated" } },
        { "Ipv6CidrBlock": "2001:db8:1::/56", "Ipv6CidrBlockState": { "State": "failed" } },
    ]);
    all["RouteTables"][0]["Associations"][0]["AssociationState"]["State"] = json!("failed");
    all["InternetGateways"][0]["Attachments"][0]["State"] = json!("detached");
    let toml = import_json(&all).toml;
    assert!(toml.contains("cidrs = [\"10.0.0.0/16\", \"2001:db8::/56\"]\n"), "{toml}");
    assert!(!toml.contains("route_table = "), "{toml}");
    assert!(!toml.contains("[[internet_gateway]]"), "{toml}");
}

/// A firewall with an elastic address, as gateway tables lead to.
#[test]
fn an_interface_that_routes_lead_to_keeps_its_addresses() {
    let mut all =
        with_route(&json!({ "DestinationCidrBlock": "0.0.0.0/0", "NetworkInterfaceId": "eni-1" }));
    let interface = |id: &str, address: &str, public: &str| {
        json!({
            "NetworkInterfaceId": id, "SubnetId": "subnet-2", "VpcId": "vpc-1",
            "SourceDestCheck": true, "PrivateIpAddress": address, "Ipv6Addresses": [],
            "PrivateIpAddresses":
                [{ "PrivateIpAddress": address, "Association": { "PublicIp": public } }],
            "TagSet": [{ "Key": "Name", "Value": "firewall" }],
        })
    };
    all["NetworkInterfaces"] = json!([
        interface("eni-1", "10.0.2.9", "198.51.100.9"),
        interface("eni-2", "10.0.2.10", "198.51.100.10")
    ]);
    let imported = import_json(&all);
    let toml = &imported.toml;
    assert!(toml.contains("{ public = \"198.51.100.9\", private = \"10.0.2.9\" },\n"), "{toml}");
    assert!(toml.contains("{ public = \"198.51.100.10\", private = \"10.0.2.10\" },\n"), "{toml}");
    let one = "[[network_interface]] # eni-1, SourceDestCheck is on\nname = \"firewall\"\n\
               subnet = \"subnet-2\"\naddresses = [\"10.0.2.9\"]\n";
    assert!(toml.contains(one), "{toml}");
    assert_eq!(toml.matches("[[network_interface]]").count(), 1, "the other is led to by none");
    assert!(notes(&imported).iter().any(|note| note.contains("SourceDestCheck is on: eni-1")));
    topology(toml);
}

/// Without their interfaces, elastic addresses are of the VPC that has a subnet for them; but those
/// of NAT gateways are told by these.
#[test]
fn elastic_addresses_find_their_vpc() {
    let mut all = minimal();
    let address = |public: &str, private: &str, interface: &str| json!({ "PublicIp": public, "PrivateIpAddress": private, "NetworkInterfaceId": interface });
    all["Addresses"] = json!([
        address("198.51.100.1", "10.0.1.9", "eni-1"),
        address("198.51.100.2", "10.0.2.10", "eni-2"),
        address("198.51.100.3", "192.168.0.1", "eni-3"),
        { "PublicIp": "198.51.100.4" },
    ]);
    all["NatGateways"] = json!([{
        "NatGatewayId": "nat-1", "VpcId": "vpc-1", "SubnetId": "subnet-2", "State": "available",
        "NatGatewayAddresses":
            [{ "PrivateIp": "10.0.2.10", "PublicIp": "198.51.100.2", "IsPrimary": true }],
    }]);
    let imported = import_json(&all);
    let told = notes(&imported);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].ends_with("tells for certain: 198.51.100.1 = 10.0.1.9"), "{told:?}");
    assert!(told[1].ends_with("`describe-subnets` tell: 198.51.100.3 = 192.168.0.1"), "{told:?}");
    let toml = imported.toml;
    let mapping = "addresses = [\n  { public = \"198.51.100.1\", private = \"10.0.1.9\" },\n]\n";
    assert!(toml.contains(mapping), "{toml}");
    let nat = "[[nat_gateway]]\nname = \"nat-1\"\nsubnet = \"subnet-2\"\naddress = \"10.0.2.10\"\n\
               public_address = \"198.51.100.2\"\n";
    assert!(toml.contains(nat), "{toml}");
    topology(&toml);
}

#[test]
fn a_main_table_that_is_not_told_is_missed() {
    let mut all = minimal();
    all["RouteTables"].as_array_mut().unwrap().pop();
    let told = notes(&import_json(&all));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("VPCs whose main route table is not in"), "{told:?}");
}

#[test]
fn of_equal_destinations_the_static_one_is_in_effect() {
    let mut all = minimal();
    all["RouteTables"][0]["Routes"] = json!([
        { "DestinationCidrBlock": "10.9.0.0/16", "GatewayId": "vgw-1", "Origin": "Advertisement" },
        { "DestinationCidrBlock": "10.9.0.0/16", "GatewayId": "igw-1", "Origin": "CreateRoute" },
    ]);
    let toml = import_json(&all).toml;
    let routes = "  { destination = \"10.9.0.0/16\", internet_gateway = \"igw-1\" },\n  # origin \
                  Advertisement: { destination = \"10.9.0.0/16\", virtual_private_gateway";
    assert!(toml.contains(routes), "{toml}");
    topology(&toml);
}

/// What the form does not let a route lead to is opaque to it.
#[test]
fn what_a_route_cannot_lead_to_is_opaque() {
    let mut all = minimal();
    all["Vpcs"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "VpcId": "vpc-2", "CidrBlock": "10.2.0.0/16" }));
    all["NatGateways"] =
        json!([{ "NatGatewayId": "nat-1", "VpcId": "vpc-1", "SubnetId": "subnet-2" }]);
    all["VpcEndpoints"][0]["SubnetIds"] = json!(["subnet-1", "subnet-2"]);
    let peering = |to: &str, range: &str| json!({ "DestinationCidrBlock": range, "VpcPeeringConnectionId": to });
    all["RouteTables"][0]["Routes"] = json!([
        { "DestinationIpv6CidrBlock": "64:ff9b::/96", "NatGatewayId": "nat-1" },
        { "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "vpce-1" },
        peering("a", "172.16.0.0/16"),
        peering("a.vpc-1", "172.17.0.0/16"),
    ]);
    all["RouteTables"].as_array_mut().unwrap().push(json!({
        "RouteTableId": "rtb-3", "VpcId": "vpc-2", "Associations": [{ "Main": true }],
        "Routes": [
            { "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1" },
            peering("a", "172.16.0.0/16"),
        ],
    }));
    let imported = import_json(&all);
    for route in [
        "{ destination = \"64:ff9b::/96\", opaque = \"nat-1\" }",
        "{ destination = \"0.0.0.0/0\", opaque = \"vpce-1\" }",
        "{ destination = \"0.0.0.0/0\", opaque = \"igw-1\" }",
    ] {
        assert!(imported.toml.contains(route), "{route}\n{}", imported.toml);
    }
    assert!(notes(&imported).iter().any(|note| note.contains("vpce-1 (it has 2 subnets)")));
    topology(&imported.toml);
}

/// What leads to an endpoint that carries nothing is found by a proof.
#[rstest]
#[case("pendingAcceptance", true)]
#[case("pending", true)]
#[case("Rejected", true)]
#[case("failed", true)]
#[case("expired", true)]
#[case("deleting", false)]
#[case("deleted", false)]
fn what_leads_to_a_dead_endpoint_is_a_blackhole(#[case] state: &str, #[case] is_there: bool) {
    for subnets in [json!(["subnet-2"]), json!([])] {
        let is_there = is_there && subnets != json!([]);
        let route = json!({ "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "vpce-1" });
        let mut all = with_route(&route);
        all["VpcEndpoints"][0]["State"] = json!(state);
        all["VpcEndpoints"][0]["SubnetIds"] = subnets;
        let imported = import_json(&all);
        let toml = &imported.toml;
        let row = format!(
            "{{ destination = \"0.0.0.0/0\", blackhole = true }}, # led to vpce-1, which is in the \
             state {state}\n"
        );
        assert!(toml.contains(&row), "{toml}");
        assert_eq!(toml.contains("[[endpoint]]"), is_there, "{toml}");
        assert_eq!(
            notes(&imported),
            [format!(
                "Gateway Load Balancer endpoints that carry no packets in their state: routes to \
                 them are blackholes: vpce-1 ({state})"
            )]
        );
        let report = topology(toml).verify();
        assert_eq!(report.of(FindingKind::BlackholeInUse).count(), 1, "{report}");
    }
}

/// The hub with another route in the table of the attachment that inspects, or another owner of it.
fn hub_with(change: impl Fn(&mut Value), document: &str) -> String {
    let mut documents = documents("hub");
    for source in documents.iter_mut().filter(|source| source.name() == document) {
        let mut json: Value = serde_json::from_str(source.text()).unwrap();
        change(&mut json);
        *source = Source::new(source.name(), json.to_string());
    }
    let toml = imported(&documents).toml;
    topology(&toml);
    toml
}

#[test]
fn routes_of_transit_gateways_are_what_they_are_in_effect() {
    let toml = hub_with(
        |json| json["Routes"][0]["State"] = json!("blackhole"),
        "tgw-rtb-0c3000000000000d1.json",
    );
    let blackhole = "{ destination = \"0.0.0.0/0\", blackhole = true }, # led to vpc";
    assert!(toml.contains(blackhole), "{toml}");
    let toml = hub_with(
        |json| {
            let mut row = json["Routes"][0].clone();
            row["Type"] = json!("static");
            row["DestinationCidrBlock"] = json!("192.168.128.0/17");
            json["Routes"].as_array_mut().unwrap().insert(0, row);
        },
        "tgw-rtb-0c3000000000000d2.json",
    );
    assert!(
        toml.contains("{ destination = \"192.168.128.0/17\", attachment = \"app\" }"),
        "{toml}"
    );
    let toml = hub_with(
        |json| json["TransitGatewayRouteTables"][0]["TransitGatewayId"] = json!("tgw-other"),
        "transit-gateway-route-tables.json",
    );
    assert!(
        toml.contains("{ destination = \"0.0.0.0/0\", opaque = \"tgw-0c3000000000000c1\" }"),
        "{toml}"
    );
}

/// What one account calls "a" may be another's "b".
#[test]
fn zones_that_accounts_name_differently_are_named_by_their_ids() {
    let mut all = minimal();
    all["Subnets"][0]["AvailabilityZoneId"] = json!("z1");
    all["Subnets"][1]["AvailabilityZoneId"] = json!("z2");
    let imported = import_json(&all);
    assert!(imported.toml.contains("zone = \"z1\"\n"), "{}", imported.toml);
    assert!(imported.toml.contains("zone = \"z2\"\n"), "{}", imported.toml);
    assert!(notes(&imported)[0].starts_with("zones are named by their ids"));
}

/// Only one of several accounts sees the tags.
#[test]
fn the_same_thing_twice_is_one_with_the_tags_of_either() {
    let mut all = minimal();
    let mut again = all["Subnets"][0].clone();
    again["Tags"] = json!([{ "Key": "Name", "Value": "web" }]);
    again["AvailableIpAddressCount"] = json!(3);
    all["Subnets"].as_array_mut().unwrap().push(again);
    let toml = import_json(&all).toml;
    assert!(toml.contains("[[subnet]] # subnet-1\nname = \"web\"\n"), "{toml}");
}

#[rstest]
#[case::not_json("not-json", "{\n  \"Vpcs\": [\n    {\"VpcId\": \"vpc-1\",}\n  ]\n}\n")]
#[case::cut_off("cut-off", "{\n  \"Vpcs\": [\n    {\"VpcId\": \"vpc-1\"")]
#[case::of_query("of-query", "[\n  {\"VpcId\": \"vpc-1\", \"CidrBlock\": \"10.0.0.0/16\"}\n]\n")]
#[case::text("text", "VPCS\t10.0.0.0/16\tdopt-1\n")]
#[case::empty("empty", "")]
#[case::no_vpc("no-vpc", "{\"Vpcs\": []}")]
#[case::several(
    "several",
    r#"{
    "Vpcs": [
        {"VpcId": "vpc-1", "CidrBlock": "10.0.0.0/33"},
        {"CidrBlock": "10.0.0.0/16"},
        {"VpcId": "vpc-3", "CidrBlock": "10.0.0.0/16"},
        {"VpcId": "vpc-3", "CidrBlock": "10.1.0.0/16"},
        {"VpcId": "vpc-4"}
    ],
    "RouteTables": [
        {
            "RouteTableId": "rtb-1",
            "VpcId": "vpc-3",
            "Associations": [{"Main": "yes"}]
        },
        {
            "RouteTableId": "rtb-2",
            "VpcId": "vpc-3",
            "Routes": [{"GatewayId": "local"}]
        }
    ],
    "Entries": [{"Cidr": "192.0.2.0/24"}]
}"#
)]
#[case::two_tables("two-tables", r#"{
    "Vpcs": [{"VpcId": "vpc-1", "CidrBlock": "10.0.0.0/16"}],
    "Subnets": [{"SubnetId": "subnet-1", "VpcId": "vpc-1", "AvailabilityZone": "a", "CidrBlock": "10.0.1.0/24"}],
    "RouteTables": [
        {"RouteTableId": "rtb-1", "VpcId": "vpc-1", "Associations": [{"Main": true}, {"SubnetId": "subnet-1"}]},
        {"RouteTableId": "rtb-2", "VpcId": "vpc-1", "Associations": [{"Main": true}, {"SubnetId": "subnet-1"}]}
    ]
}"#)]
fn mistakes_are_told_where_they_stand(#[case] name: &str, #[case] text: &str) {
    let report = report(text);
    insta::with_settings!({ snapshot_path => folder().join("errors"), prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, report);
    });
}

/// All documents are told of, each with its own lines.
#[test]
fn problems_of_several_documents_are_told_together() {
    let [a, b] = [("a.json", "{"), ("b.json", "[1]")].map(|(name, text)| Source::new(name, text));
    let problems = import(&[a, b]).unwrap_err();
    let names: Vec<&str> = problems.iter().map(|problems| problems.source().name()).collect();
    assert_eq!(names, ["a.json", "b.json"]);
    let none = import(&[]).unwrap_err();
    assert_eq!(none[0].iter().next().unwrap().message(), "there is no VPC in the input");
}

/// A text that people might put anywhere.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}",
        any::<String>(),
        prop::sample::select(vec![
            "\"", "'", "\n", "\r\n", "#", "\"\"\"", "'''", "\u{0}", "é漢", "]]"
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    /// Whatever things are called, the configuration is one, and has them all.
    #[test]
    fn any_names_survive(
        tags in prop::collection::vec(any_text(), 6),
        ids in prop::collection::hash_set(any_text(), 3),
        service in any_text(),
        zone in any_text(),
    ) {
        let mut all = minimal();
        let tag = |index: usize| json!([{ "Key": "Name", "Value": tags[index] }]);
        all["Vpcs"][0]["Tags"] = tag(0);
        all["Subnets"][0]["Tags"] = tag(1);
        all["Subnets"][1]["Tags"] = tag(2);
        all["RouteTables"][0]["Tags"] = tag(3);
        all["InternetGateways"][0]["Tags"] = tag(4);
        all["VpcEndpoints"][0]["Tags"] = tag(5);
        all["VpcEndpoints"][0]["ServiceName"] = json!(service);
        for subnet in 0..2 {
            all["Subnets"][subnet]["AvailabilityZone"] = json!(zone);
        }
        let routes = ids.iter().enumerate().map(|(index, id)| {
            json!({ "DestinationCidrBlock": format!("172.16.{index}.0/24"), "VpcPeeringConnectionId": id })
        });
        all["RouteTables"][0]["Routes"] = routes.collect();
        let imported = import_json(&all);
        let file = config::parse(&Source::new("imported.toml", imported.toml.as_str()));
        let file = file.map_err(|problems| TestCaseError::fail(problems.render(Look::Plain)))?;
        prop_assert_eq!(file.endpoints[0].service.get(), &service);
        prop_assert_eq!(file.subnets[0].zone.get(), &zone);
        prop_assert_eq!(file.opaques.len(), 3);
        prop_assert_eq!(file.subnets.len(), 2);
        if !service.trim().is_empty() && !zone.trim().is_empty() {
            let told = notes(&imported).join("\n");
            prop_assert!(!told.contains("refuses"), "{}\n{}", told, imported.toml);
        }
    }

    /// No damage makes it panic, and what it makes of it has the form of a configuration.
    #[test]
    fn damaged_documents_are_imported_or_refused(
        name in prop::sample::select(vec!["one-zone", "two-zones", "hub"]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..6_u8), 1..4),
    ) {
        let mut documents = documents(name);
        for (document, line, kind) in damage {
            let at = document.index(documents.len());
            let source = &documents[at];
            let mut lines: Vec<&str> = source.text().lines().collect();
            // An earlier damage may have left nothing.
            let Some(last) = lines.len().checked_sub(1) else { continue };
            let line = line.index(last + 1);
            match kind {
                0 => drop(lines.remove(line)),
                1 => lines.truncate(line),
                2 => lines[line] = "\"State\": \"blackhole\",",
                3 => lines[line] = "\"VpcId\": \"vpc-0c3000000000000bb\",",
                4 => lines[line] = "\"GatewayId\": null,",
                _ => lines.swap(line, 0),
            }
            documents[at] = Source::new(source.name(), lines.join("\n"));
        }
        match import(&documents) {
            Ok(imported) => {
                let source = Source::new("imported.toml", imported.toml);
                let parsed = config::parse(&source).err();
                prop_assert!(parsed.is_none(), "{}", parsed.unwrap().render(Look::Plain));
            }
            Err(problems) => {
                for problems in problems {
                    prop_assert!(problems.render(Look::Plain).len() > 20);
                }
            }
        }
    }
}
