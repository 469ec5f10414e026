//! Operations and the rules by which clouds refuse them, each in a form that is refused and in one
//! that is accepted; and the plans that obey them.
#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

use router::config::{self, Route};
use router::plan::{Danger, Kind, Network, Operation, Place, Plan};
use router::rules::{Rule, RuleSet};
use router::source::Source;
use rstest::rstest;

/// Something of each kind that a rule is about.
const NETWORK: &str = r#"
[[vpc]]
name = "app"
cidrs = ["10.0.0.0/16"]

[[subnet]]
name = "app-a"
vpc = "app"
zone = "az1"
cidrs = ["10.0.1.0/24"]
route_table = "app-a"

[[subnet]]
name = "gwlbe-a"
vpc = "app"
zone = "az1"
cidrs = ["10.0.101.0/28"]

[[subnet]]
name = "gwlbe-b"
vpc = "app"
zone = "az2"
cidrs = ["10.0.102.0/28"]

[[subnet]]
name = "public-a"
vpc = "app"
zone = "az1"
cidrs = ["10.0.3.0/24"]

[[subnet]]
name = "empty"
vpc = "app"
zone = "az1"
cidrs = ["10.0.4.0/24"]

[[internet_gateway]]
name = "igw"
vpc = "app"

[[internet_gateway]]
name = "igw-2"
vpc = "app"
route_table = "edge"

[[virtual_private_gateway]]
name = "vgw"
vpc = "app"

[[nat_gateway]]
name = "nat"
subnet = "public-a"

[[network_interface]]
name = "fw-1"
subnet = "gwlbe-a"

[[network_interface]]
name = "fw-2"
subnet = "gwlbe-a"

[[prefix_list]]
name = "offices"
entries = ["203.0.113.0/24"]

[[endpoint]]
name = "used"
subnet = "gwlbe-a"
service = "fw"

[[endpoint]]
name = "used-too"
subnet = "gwlbe-b"
service = "fw"

[[endpoint]]
name = "unused"
subnet = "gwlbe-a"
service = "fw"

[[route_table]]
name = "main"
vpc = "app"
main = true

[[route_table]]
name = "app-a"
vpc = "app"
routes = [{ destination = "0.0.0.0/0", endpoint = "used" }]

[[route_table]]
name = "edge"
vpc = "app"
routes = [{ destination = "10.0.1.0/24", interface = "fw-1" }]

[[route_table]]
name = "inward"
vpc = "app"
routes = [{ destination = "10.0.1.0/24", endpoint = "used-too" }]

[[route_table]]
name = "outward"
vpc = "app"
routes = [{ destination = "0.0.0.0/0", internet_gateway = "igw" }]

[[route_table]]
name = "propagated"
vpc = "app"
propagating = ["vgw"]

[[route_table]]
name = "listed"
vpc = "app"
routes = [{ prefix_list = "offices", blackhole = true }]
"#;

fn network(rules: RuleSet, text: &str) -> Network {
    let source = Source::new("t.toml", format!("routing.rules = \"{rules}\"\n{text}"));
    Network::new(&config::parse(&source).unwrap(), &source).unwrap()
}

fn delete(kind: Kind, name: &str) -> Operation {
    Operation::Delete { resource: Place::new(kind, name) }
}

fn associate(kind: Kind, name: &str, table: &str) -> Operation {
    Operation::AssociateRouteTable { user: Place::new(kind, name), route_table: table.to_owned() }
}

fn modify(endpoint: &str, subnet: Option<&str>, service: Option<&str>) -> Operation {
    Operation::ModifyEndpoint {
        endpoint: endpoint.to_owned(),
        subnet: subnet.map(str::to_owned),
        service: service.map(str::to_owned),
        wire_id: Some("0x0000000000000007".to_owned()),
    }
}

fn route(text: &str) -> Box<Route> {
    let source = Source::new(
        "t",
        format!("[[route_table]]\nname = \"t\"\nvpc = \"v\"\nroutes = [{{ {text} }}]"),
    );
    let file = config::parse(&source).unwrap();
    Box::new(file.route_tables[0].get().routes[0].get().clone())
}

fn create_route(table: &str, text: &str) -> Operation {
    Operation::CreateRoute { route_table: table.to_owned(), route: route(text) }
}

fn replace_route(table: &str, from: &str, to: &str) -> Operation {
    let (from, to) = (route(from), route(to));
    Operation::ReplaceRoute { route_table: table.to_owned(), from, to }
}

const AWS: RuleSet = RuleSet::Aws;
const ALIBABA: RuleSet = RuleSet::Alibaba;

const FW_1: &str = "destination = \"10.0.1.0/24\", interface = \"fw-1\"";
const FW_2: &str = "destination = \"10.0.1.0/24\", interface = \"fw-2\"";
const LOCAL: &str = "destination = \"10.0.1.0/24\", local = true";

#[rstest]
#[case::endpoint(
    AWS,
    Rule::EndpointInUse,
    delete(Kind::Endpoint, "used"),
    delete(Kind::Endpoint, "unused")
)]
#[case::main_table(
    AWS,
    Rule::TableInUse,
    delete(Kind::RouteTable, "main"),
    delete(Kind::RouteTable, "inward")
)]
#[case::table_of_subnet(
    AWS,
    Rule::TableInUse,
    delete(Kind::RouteTable, "app-a"),
    delete(Kind::RouteTable, "outward")
)]
#[case::table_of_gateway(
    AWS,
    Rule::TableInUse,
    delete(Kind::RouteTable, "edge"),
    delete(Kind::RouteTable, "listed")
)]
#[case::subnet_of_endpoint(
    AWS,
    Rule::SubnetInUse,
    delete(Kind::Subnet, "gwlbe-b"),
    delete(Kind::Subnet, "empty")
)]
#[case::subnet_of_nat_gateway(
    AWS,
    Rule::SubnetInUse,
    delete(Kind::Subnet, "public-a"),
    delete(Kind::Subnet, "empty")
)]
#[case::moved(
    AWS,
    Rule::EndpointImmutable,
    modify("used", Some("gwlbe-b"), None),
    modify("used", Some("gwlbe-a"), None)
)]
#[case::served(
    AWS,
    Rule::EndpointImmutable,
    modify("used", None, Some("other")),
    modify("used", None, Some("fw"))
)]
#[case::served_there(
    ALIBABA,
    Rule::EndpointImmutable,
    modify("used", None, Some("other")),
    modify("used", None, None)
)]
#[case::outward(
    AWS,
    Rule::EdgeTarget,
    associate(Kind::InternetGateway, "igw", "outward"),
    associate(Kind::InternetGateway, "igw", "inward")
)]
#[case::outward_vgw(
    AWS,
    Rule::EdgeTarget,
    associate(Kind::VirtualPrivateGateway, "vgw", "outward"),
    associate(Kind::VirtualPrivateGateway, "vgw", "inward")
)]
#[case::propagated(
    AWS,
    Rule::EdgePropagation,
    associate(Kind::InternetGateway, "igw", "propagated"),
    associate(Kind::Subnet, "empty", "propagated")
)]
#[case::listed(
    AWS,
    Rule::EdgePrefixList,
    associate(Kind::InternetGateway, "igw", "listed"),
    associate(Kind::Subnet, "empty", "listed")
)]
#[case::main(
    AWS,
    Rule::EdgeMain,
    associate(Kind::InternetGateway, "igw", "main"),
    associate(Kind::Subnet, "empty", "main")
)]
#[case::edge_destination(
    AWS,
    Rule::EdgeDestination,
    create_route("edge", "destination = \"10.0.0.0/8\", endpoint = \"used\""),
    create_route("edge", "destination = \"10.0.3.0/24\", endpoint = \"used\"")
)]
#[case::local_destination(
    AWS,
    Rule::LocalDestination,
    create_route("app-a", "destination = \"10.0.3.0/25\", endpoint = \"used\""),
    create_route("app-a", "destination = \"10.0.3.0/24\", endpoint = \"used\"")
)]
#[case::listed_endpoint(
    AWS,
    Rule::PrefixListEndpoint,
    create_route("app-a", "prefix_list = \"offices\", endpoint = \"used\""),
    create_route("app-a", "prefix_list = \"offices\", internet_gateway = \"igw\"")
)]
#[case::through_local(
    ALIBABA,
    Rule::InterfaceThroughLocal,
    replace_route("edge", FW_1, FW_2),
    replace_route("edge", FW_1, LOCAL)
)]
#[case::to_endpoint(
    ALIBABA,
    Rule::InterfaceThroughLocal,
    replace_route("edge", FW_1, FW_2),
    replace_route("edge", FW_1, "destination = \"10.0.1.0/24\", endpoint = \"used\"")
)]
fn an_operation_is_refused_by_its_rule(
    #[case] rules: RuleSet,
    #[case] rule: Rule,
    #[case] refused: Operation,
    #[case] accepted: Operation,
) {
    let before = network(rules, NETWORK);
    let mut after = before.clone();
    let problem = refused.apply(&mut after).unwrap_err();
    assert_eq!(problem.broken_rule(), Some((rule, rules)), "{problem}");
    assert!(after == before, "a refused operation has changed something");
    accepted.apply(&mut after).unwrap();
}

/// What is possible is done where there are no rules.
#[rstest]
#[case::moved(modify("used", Some("gwlbe-b"), None))]
#[case::served(modify("used", None, Some("other")))]
#[case::outward(associate(Kind::InternetGateway, "igw", "outward"))]
#[case::propagated(associate(Kind::InternetGateway, "igw", "propagated"))]
#[case::main(associate(Kind::InternetGateway, "igw", "main"))]
#[case::main_deleted(delete(Kind::RouteTable, "main"))]
#[case::between_interfaces(replace_route("edge", FW_1, FW_2))]
#[case::part_of_the_vpc(create_route(
    "app-a",
    "destination = \"10.0.3.0/25\", endpoint = \"used\""
))]
fn without_rules_it_is_accepted(#[case] operation: Operation) {
    let mut without = network(RuleSet::Linux, NETWORK);
    operation.apply(&mut without).unwrap();
    assert!(without != network(RuleSet::Linux, NETWORK));
}

#[rstest]
#[case::no_such_thing(delete(Kind::Endpoint, "absent"), "there is no endpoint absent")]
#[case::referred_to(delete(Kind::InternetGateway, "igw"), "there is no internet gateway \"igw\"")]
#[case::twice(
    create_route("app-a", "destination = \"0.0.0.0/0\", endpoint = \"used\""),
    "it is there already"
)]
#[case::other_target(
    create_route("app-a", "destination = \"0.0.0.0/0\", blackhole = true"),
    "route table \"app-a\" has two routes for 0.0.0.0/0"
)]
#[case::another_before(replace_route("edge", FW_2, LOCAL), "it is not there")]
#[case::associated(
    associate(Kind::Subnet, "app-a", "outward"),
    "subnet app-a has another route table"
)]
#[case::name_taken(
    Operation::Rename { resource: Place::new(Kind::Endpoint, "used"), to: "unused".into() },
    "endpoint unused is there already"
)]
#[case::ipv4_for_life(
    Operation::AssociateSubnetCidr { subnet: "empty".into(), cidr: "10.0.5.0/24".into() },
    "subnet empty keeps its IPv4 range"
)]
fn what_is_impossible_is_refused_everywhere(#[case] operation: Operation, #[case] why: &str) {
    for rules in [AWS, ALIBABA, RuleSet::Linux] {
        let mut network = network(rules, NETWORK);
        assert_eq!(operation.apply(&mut network).unwrap_err().message(), why);
    }
}

/// "routes, then the endpoint" (semantics 2c): the same operation is refused, and then is not.
#[test]
fn an_endpoint_is_deleted_after_its_routes() {
    for rules in [AWS, ALIBABA] {
        let mut network = network(rules, NETWORK);
        let problem = delete(Kind::Endpoint, "used").apply(&mut network).unwrap_err();
        assert_eq!(
            problem.message(),
            "endpoint used is not deleted while route 0.0.0.0/0 of route table app-a leads to it"
        );
        let to_it = "destination = \"0.0.0.0/0\", endpoint = \"used\"";
        let away = Operation::DeleteRoute { route_table: "app-a".into(), route: route(to_it) };
        away.apply(&mut network).unwrap();
        delete(Kind::Endpoint, "used").apply(&mut network).unwrap();
    }
}

/// A route is looked at when it is made, not when the subnet goes that it is for; but an entry of
/// Alibaba Cloud's is the vSwitch's own.
#[test]
fn a_subnet_is_deleted_in_spite_of_an_entry_for_its_range() {
    let subnet = || delete(Kind::Subnet, "app-a");
    let problem = subnet().apply(&mut network(ALIBABA, NETWORK)).unwrap_err();
    assert_eq!(problem.broken_rule(), Some((Rule::EdgeSystemEntry, ALIBABA)));

    let mut without = network(AWS, NETWORK);
    subnet().apply(&mut without).unwrap();
    // What has nothing to do with the entry is as possible as before.
    delete(Kind::Subnet, "empty").apply(&mut without).unwrap();
    // But neither it nor another one is made, and no other gateway gets it.
    let inward = "destination = \"10.0.1.0/24\", endpoint = \"used\"";
    for (rule, operation) in [
        (Rule::EdgeDestination, replace_route("edge", FW_1, inward)),
        (Rule::EdgeDestination, associate(Kind::InternetGateway, "igw", "edge")),
        (Rule::EdgeDestination, associate(Kind::VirtualPrivateGateway, "vgw", "inward")),
        (Rule::LocalDestination, associate(Kind::Subnet, "gwlbe-b", "inward")),
        (Rule::LocalDestination, create_route("main", inward)),
    ] {
        let problem = operation.apply(&mut without).unwrap_err();
        assert_eq!(problem.broken_rule(), Some((rule, AWS)), "{operation}");
    }
    let away = Operation::DeleteRoute { route_table: "edge".into(), route: route(FW_1) };
    away.apply(&mut without).unwrap();
    let problem = create_route("edge", FW_1).apply(&mut without).unwrap_err();
    assert_eq!(problem.broken_rule(), Some((Rule::EdgeDestination, AWS)));
}

fn plan(old: &str, new: &str) -> Plan {
    let read = |name: &str| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let source = Source::read(&folder.join(name)).unwrap();
        (config::parse(&source).unwrap(), source)
    };
    let ((old, old_source), (new, new_source)) = (read(old), read(new));
    let old = Network::new(&old, &old_source).unwrap();
    let new = old.followed_by(&new, &new_source).unwrap();
    let plan = Plan::new(&old, &new);
    assert!(plan.apply(&old).unwrap() == new, "{plan}");
    plan
}

fn place(plan: &Plan, text: &str) -> usize {
    let found = plan.steps.iter().position(|step| step.text.starts_with(text));
    assert!(found.is_some(), "no step \"{text}\" in\n{plan}");
    found.unwrap()
}

/// The endpoint and its table, then the way back, then the way in; and the reverse.
#[test]
fn inspection_comes_and_goes_in_the_providers_order() {
    let comes = plan("plan/uninspected.toml", "plan/inspected.toml");
    assert!(comes.safe);
    let order = [
        "create endpoint vpce-a",
        "associate route table gwlbe-a with subnet",
        "replace route 0.0.0.0/0 in route table app-a",
        "associate route table igw with internet gateway",
    ];
    assert!(order.map(|text| place(&comes, text)).is_sorted(), "{comes}");

    let goes = plan("plan/inspected.toml", "plan/uninspected.toml");
    assert!(goes.safe);
    let order = [
        "disassociate route table igw from internet gateway",
        "replace route 0.0.0.0/0 in route table app-a",
        "delete route table igw",
        "delete endpoint vpce-a",
        "delete subnet gwlbe-a",
    ];
    assert!(order.map(|text| place(&goes, text)).is_sorted(), "{goes}");
}

#[test]
fn an_endpoint_that_cannot_move_is_made_anew() {
    let plan = plan("plan/inspected.toml", "plan/moved.toml");
    assert!(plan.safe, "{plan}");
    let order = [
        "create endpoint vpce-a.new",
        "replace route 10.0.1.0/24 in route table igw: endpoint:vpce-a -> endpoint:vpce-a.new",
        "delete endpoint vpce-a",
        "rename endpoint vpce-a.new to vpce-a",
    ];
    assert!(order.map(|text| place(&plan, text)).is_sorted(), "{plan}");
}

#[test]
fn an_endpoint_that_cannot_change_its_service_is_made_anew_beside_the_old() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan");
    let text = std::fs::read_to_string(folder.join("inspected.toml")).unwrap();
    let new = text.replace("service = \"inspection\"", "service = \"other\"");
    let source = |text: String| Source::new("t", text);
    let (old, new) = (source(text), source(new));
    let before = Network::new(&config::parse(&old).unwrap(), &old).unwrap();
    let after = before.followed_by(&config::parse(&new).unwrap(), &new).unwrap();
    let plan = Plan::new(&before, &after);
    assert!(plan.safe, "{plan}");
    assert!(plan.apply(&before).unwrap() == after, "{plan}");
    let order = ["create endpoint vpce-a.new", "delete endpoint vpce-a", "rename endpoint"];
    assert!(order.map(|text| place(&plan, text)).is_sorted(), "{plan}");
}

/// Each single step would have packets pass one of the two services alone, or circle.
#[test]
fn where_no_order_is_safe_the_plan_says_so_and_loses_rather_than_lets_through() {
    let plan = plan("plan/chain.toml", "plan/chain-reversed.toml");
    assert!(!plan.safe);
    let dangers: Vec<Vec<Danger>> = plan
        .steps
        .iter()
        .map(|step| step.exposed.iter().map(|exposure| exposure.danger).collect())
        .collect();
    assert_eq!(dangers.last(), Some(&Vec::new()));
    assert!(dangers.iter().flatten().all(|danger| *danger == Danger::Lost), "{plan}");
    assert!(!dangers[0].is_empty(), "{plan}");
}

/// With the subnet, its association ends: that is no step of its own.
#[test]
fn what_belongs_to_a_thing_ends_with_it() {
    let plan = plan("verify/app-beside-its-endpoint.toml", "../examples/transit-hub.toml");
    assert!(plan.impossible.is_empty(), "{plan}");
    place(&plan, "delete subnet gwlbe-a");
    let association = "disassociate route table gwlbe-a from subnet gwlbe-a";
    assert!(plan.steps.iter().all(|step| step.text != association), "{plan}");
}

/// Two subnets have the ranges of two others, and a gateway table has entries for them.
#[test]
fn a_range_is_handed_over_from_subnet_to_subnet() {
    let old = "../examples/east-west.toml";
    let plan = plan(old, "verify/blackhole-behind-an-endpoint.toml");
    assert!(plan.safe, "{plan}");
    let last = place(&plan, "associate route table igw with internet gateway");
    for (gone, made) in [("db", "app-b"), ("web", "app-a")] {
        let order = [
            place(&plan, &format!("delete subnet {gone}")),
            place(&plan, &format!("create subnet {made}")),
            last,
        ];
        assert!(order.is_sorted(), "{plan}");
    }
}

/// A public address that stands for one in a subnet holds the subnet.
#[rstest]
#[case::comes("../examples/east-west.toml", "verify/elastic-address-behind-nat.toml", "web")]
#[case::stays("verify/answers-through-a-nat-gateway.toml", "../examples/multi-zone.toml", "app-b")]
fn an_address_is_associated_where_it_stays(
    #[case] old: &str,
    #[case] new: &str,
    #[case] subnet: &str,
) {
    let plan = plan(old, new);
    assert!(plan.impossible.is_empty(), "{plan}");
    let deletion = place(&plan, &format!("delete subnet {subnet}"));
    let last = plan.steps.iter().rposition(|it| it.text.starts_with("associate address"));
    assert!(last > Some(deletion), "{plan}");
}

/// The same address in a subnet in another zone is another machine's.
#[test]
fn an_address_leaves_with_its_subnet_and_comes_back() {
    let text = |zone: &str| {
        let address = "addresses = [{ public = \"198.51.100.9\", private = \"10.0.4.9\" }]";
        let igw = "[[internet_gateway]]\nname = \"igw\"\nvpc = \"app\"\n";
        let subnet = "name = \"empty\"\nvpc = \"app\"\nzone = \"az1\"";
        let there = NETWORK.replace(igw, &format!("{igw}{address}\n"));
        network(AWS, &there.replace(subnet, &subnet.replace("az1", zone)))
    };
    let (old, new) = (text("az1"), text("az2"));
    let plan = Plan::new(&old, &new);
    assert!(plan.apply(&old).unwrap() == new, "{plan}");
    let order = [
        "disassociate address 198.51.100.9",
        "delete subnet empty",
        "create subnet empty.new",
        "associate address 198.51.100.9",
    ];
    assert!(order.map(|text| place(&plan, text)).is_sorted(), "{plan}");
    let same = Operation::AssociateAddress {
        gateway: "igw".into(),
        public: "198.51.100.9".into(),
        private: "10.0.4.9".into(),
    };
    assert_eq!(same.apply(&mut old.clone()).unwrap_err().message(), "it is there already");
}

/// The entry is for the range of a vSwitch that is made anew in another zone. It would have to be
/// edited to local and back, which is not among the operations.
#[test]
fn what_has_no_order_cites_its_rule() {
    let text = |zone: &str| {
        let subnet = "name = \"app-a\"\nvpc = \"app\"\nzone = \"az1\"";
        let there = subnet.replace("az1", zone);
        let source = Source::new(
            "t",
            format!("routing.rules = \"alibaba\"\n{}", NETWORK.replace(subnet, &there)),
        );
        Network::new(&config::parse(&source).unwrap(), &source).unwrap()
    };
    let plan = Plan::new(&text("az1"), &text("az2"));
    assert!(!plan.safe);
    let deletion = plan.impossible.iter().find(|it| it.text == "delete subnet app-a");
    let rule = "edge-system-entry (alibaba)";
    assert_eq!(deletion.unwrap().rule.as_deref(), Some(rule), "{plan}");
    let text = plan.to_string();
    let told = format!(
        "  delete subnet app-a\n    not after these steps: 10.0.1.0/24 is no entry of a gateway \
         table [rule {rule}]\n"
    );
    assert!(text.contains("\nNo order was found for:\n") && text.contains(&told), "{text}");
    assert!(text.ends_with("more for which no order was found"), "{text}");
}

#[test]
fn what_is_no_call_to_a_cloud_is_told_apart() {
    let plan = plan("plan/inspected.toml", "plan/moved.toml");
    let alone = plan.steps.iter().filter(|step| step.in_file_alone);
    let texts: Vec<&str> = alone.map(|step| step.text.as_str()).collect();
    assert_eq!(texts.len(), 2, "{plan}");
    assert!(texts[0].starts_with("modify endpoint vpce-a.new: wire id 0x"), "{plan}");
    assert_eq!(texts[1], "rename endpoint vpce-a.new to vpce-a (in the file alone)");
    for step in &plan.steps {
        assert_eq!(step.text.ends_with(" (in the file alone)"), step.in_file_alone, "{plan}");
    }
    // In another subnet, or of another service, it is another endpoint to a cloud.
    assert!(!modify("used", Some("gwlbe-b"), None).is_in_file_alone());
    assert!(!modify("used", None, Some("other")).is_in_file_alone());
}

#[test]
fn an_entry_goes_from_interface_to_interface_in_two_steps() {
    let plan = plan("plan/firewalls.toml", "plan/firewalls-changed.toml");
    let texts: Vec<&str> = plan.steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "replace route 10.0.1.0/24 in route table igw: interface:fw-1 -> local",
            "replace route 10.0.1.0/24 in route table igw: local -> interface:fw-2",
        ]
    );
    assert!(!plan.safe);
    assert_eq!(plan.steps[0].exposed[0].from, "internet_gateway:igw");
    assert_eq!(plan.steps[1].exposed, []);
}

/// IPv6 comes to a network in whatever order keeps it inspected.
#[test]
fn ipv6_comes_inspected() {
    let source = |text: String| Source::new("t", text);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan");
    let both = std::fs::read_to_string(folder.join("inspected.toml")).unwrap();
    let without = |line: &&str| !line.contains("= \"::/0\"") && !line.contains("= \"fd00:");
    let v4: Vec<&str> = both.lines().filter(without).collect();
    let mut v4 = v4.join("\n");
    for range in ["fd00:10::/48", "fd00:10:0:1::/64", "fd00:10:0:101::/64"] {
        v4 = v4.replace(&format!(", \"{range}\""), "");
    }
    let (v4, both) = (source(v4), source(both));
    let old = Network::new(&config::parse(&v4).unwrap(), &v4).unwrap();
    let new = old.followed_by(&config::parse(&both).unwrap(), &both).unwrap();
    for (from, to) in [(&old, &new), (&new, &old)] {
        let plan = Plan::new(from, to);
        assert!(plan.safe, "{plan}");
        assert!(plan.apply(from).unwrap() == *to, "{plan}");
        assert!(plan.steps.iter().all(|step| !step.text.starts_with("create subnet")), "{plan}");
    }
}

/// Transit gateways, their tables and their attachments need each other; and so do an endpoint, its
/// subnet, and a table that both uses and leads to it.
#[test]
fn whole_networks_are_built_and_torn_down() {
    let bare = network(AWS, "");
    let text = format!(
        "{NETWORK}{}",
        r#"
[[route_table]]
name = "circle"
vpc = "hub"
routes = [
    { destination = "10.0.0.0/16", transit_gateway = "tgw" },
    { destination = "10.1.9.0/28", endpoint = "hub" },
    { destination = "0.0.0.0/0", endpoint_group = "both" },
]

[[vpc]]
name = "hub"
cidrs = ["10.1.0.0/16"]

[[subnet]]
name = "hub-a"
vpc = "hub"
zone = "az1"
cidrs = ["10.1.1.0/24"]
route_table = "circle"

[[subnet]]
name = "hub-b"
vpc = "hub"
zone = "az2"
cidrs = ["10.1.9.0/28"]

[[endpoint]]
name = "hub"
subnet = "hub-a"
service = "fw"

[[endpoint]]
name = "hub-b"
subnet = "hub-b"
service = "fw"

[[endpoint_group]]
name = "both"
members = [{ endpoint = "hub", weight = 100 }, { endpoint = "hub-b", weight = 0 }]

[[transit_gateway]]
name = "tgw"

[[transit_gateway_route_table]]
name = "rt"
transit_gateway = "tgw"
propagations = ["hub", "app"]
routes = [{ destination = "0.0.0.0/0", attachment = "hub" }]

[[transit_gateway_attachment]]
name = "app"
transit_gateway = "tgw"
vpc = "app"
subnets = ["app-a"]
route_table = "rt"

[[transit_gateway_attachment]]
name = "hub"
transit_gateway = "tgw"
vpc = "hub"
subnets = ["hub-a", "hub-b"]
route_table = "rt"
appliance_mode = true
"#
    );
    let whole = network(AWS, &text);
    for (from, to) in [(&bare, &whole), (&whole, &bare)] {
        let plan = Plan::new(from, to);
        assert!(plan.safe, "{plan}");
        assert!(plan.apply(from).unwrap() == *to, "{plan}");
    }
}

#[test]
fn a_circle_is_told_from_where_it_begins() {
    let with = |routes: &str| {
        format!(
            r#"
            [[vpc]]
            name = "app"
            cidrs = ["10.0.0.0/16"]

            [[subnet]]
            name = "app-a"
            vpc = "app"
            zone = "az1"
            cidrs = ["10.0.1.0/24"]

            [[subnet]]
            name = "tgw-a"
            vpc = "app"
            zone = "az1"
            cidrs = ["10.0.2.0/28"]

            [[route_table]]
            name = "main"
            vpc = "app"
            main = true
            routes = [{routes}]

            [[transit_gateway]]
            name = "tgw"

            [[transit_gateway_route_table]]
            name = "back"
            transit_gateway = "tgw"
            routes = [{{ destination = "10.9.0.0/16", attachment = "att" }}]

            [[transit_gateway_attachment]]
            name = "att"
            transit_gateway = "tgw"
            vpc = "app"
            subnets = ["tgw-a"]
            route_table = "back"
            "#
        )
    };
    let route = r#"{ destination = "10.9.0.0/16", transit_gateway = "tgw" }"#;
    let [old, new] = ["", route].map(|routes| Source::new("t", with(routes)));
    let before = Network::new(&config::parse(&old).unwrap(), &old).unwrap();
    let plan =
        Plan::new(&before, &before.followed_by(&config::parse(&new).unwrap(), &new).unwrap());
    let after = |from: &str| {
        let of = plan.paths.iter().filter(|it| it.from == from);
        of.flat_map(|it| &it.after).map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(after("subnet:app-a"), ["subnet:tgw-a -> dropped: loop"]);
    assert_eq!(after("subnet:tgw-a"), ["dropped: loop"]);
}
