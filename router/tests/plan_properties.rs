//! Plans between random networks: they lead where they should, and what they claim about safety is
//! what packets meet, one by one.
#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use router::plan::{Danger, Network, Path, Plan};
use router::source::Source;
use router::{Attachment, EdgeKind, Entry, Fixed, InterfaceKind, Step, Topology, config};

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn a_plan_leads_there_and_tells_the_truth_about_the_way(
        rules in prop::sample::select(vec!["aws", "alibaba", "linux"]),
        (old, new) in pair(),
        packets in prop::collection::vec((any::<prop::sample::Index>(), address()), 24),
    ) {
        let Some((old, new)) = networks(rules, &old, &new) else {
            return Err(TestCaseError::reject("not a network"));
        };
        let plan = Plan::new(&old, &new);
        let places = places(&old, &new);
        let mut now = old.clone();
        for step in &plan.steps {
            step.operation.apply(&mut now).unwrap();
            for (place, to) in &packets {
                let from = place.get(&places);
                let expected = danger(&old, &new, &now, from, *to);
                let said = step.exposed.iter().find(|it| {
                    it.from == *from && it.to.iter().any(|net| net.contains(to))
                });
                prop_assert_eq!(
                    said.map(|it| it.danger), expected,
                    "from {} to {} after {}\n{}", from, to, step.number, plan
                );
            }
        }
        let exposed = plan.steps.iter().any(|step| !step.exposed.is_empty());
        prop_assert_eq!(plan.safe, !exposed && plan.impossible.is_empty());
        if plan.impossible.is_empty() {
            prop_assert!(now == new, "{}\n{:#?}\n{:#?}", plan, now.file(), new.file());
        }
        for (place, to) in &packets {
            let from = place.get(&places);
            let said = plan.paths.iter().find(|it| {
                it.from == *from && it.to.iter().any(|net| net.contains(to))
            });
            let [before, after] = [&old, &new].map(|it| ways(it, from, *to));
            prop_assert_eq!(said.is_some(), before != after, "from {} to {}\n{}", from, to, plan);
            if let Some(said) = said {
                let texts = |paths: &[Path]| paths.iter().map(Path::to_string).collect::<BTreeSet<_>>();
                prop_assert_eq!(texts(&said.before), before);
                prop_assert_eq!(texts(&said.after), after);
            }
        }
    }
}

/// What is asked of every packet, by the words of the definition alone.
fn danger(old: &Network, new: &Network, now: &Network, from: &str, to: IpAddr) -> Option<Danger> {
    let (before, after) = (subnets(old), subnets(new));
    let somebody = |subnet: &str, address: IpAddr| {
        [&before, &after].into_iter().all(|it| {
            it.get(subnet).is_some_and(|ranges| ranges.iter().any(|it| it.contains(&address)))
        })
    };
    let ends = |it: &Network| -> Vec<Option<(String, BTreeSet<String>)>> {
        let Some(from) = entry(it.topology(), from) else { return Vec::new() };
        choices()
            .into_iter()
            .map(|choose| end(it.topology(), from, to, choose, &somebody))
            .collect()
    };
    let now = ends(now);
    let sure: Vec<_> = ends(old).into_iter().chain(ends(new)).collect();
    let delivered: Vec<_> = sure.iter().flatten().collect();
    let uninspected = now.iter().flatten().any(|(_, passed)| {
        let never_without = !delivered.is_empty() && delivered.iter().all(|(_, it)| !it.is_empty());
        let always = |service: &String| delivered.iter().all(|(_, it)| it.contains(service));
        let misses =
            delivered.iter().flat_map(|(_, it)| it).any(|it| always(it) && !passed.contains(it));
        misses || never_without && passed.is_empty()
    });
    let astray = now.iter().flatten().any(|(end, _)| delivered.iter().all(|(it, _)| it != end));
    let lost = now.iter().any(Option::is_none) && sure.iter().all(Option::is_some);
    match (uninspected, astray, lost) {
        (true, ..) => Some(Danger::Uninspected),
        (_, true, _) => Some(Danger::Astray),
        (_, _, true) => Some(Danger::Lost),
        _ => None,
    }
}

/// Where a packet ends, and the services that it has passed.
fn end(
    topology: &Topology,
    from: Entry,
    to: IpAddr,
    choose: Fixed,
    somebody: &impl Fn(&str, IpAddr) -> bool,
) -> Option<(String, BTreeSet<String>)> {
    let to = translated(topology, from, to);
    let mut services = BTreeSet::new();
    let mut at = from;
    // No way is longer than all places together.
    for _ in 0..100 {
        match topology.step(at, to, &choose) {
            Step::Lost(_) => return None,
            Step::Onward(next) => {
                if let Entry::Endpoint(id) = next {
                    services.insert(topology.endpoint(id).service.clone());
                }
                at = next;
            }
            Step::Out(out) => {
                let subnet = match out {
                    Attachment::Subnet(id) => Some(id),
                    Attachment::Interface(id) if topology.interface(id).addresses.contains(&to) => {
                        Some(topology.interface(id).subnet)
                    }
                    _ => None,
                };
                let nobody =
                    subnet.is_some_and(|id| !somebody(&own_name(&topology.subnet(id).name), to));
                return (!nobody).then(|| (own_name(&topology.entry_name(out.into())), services));
            }
        }
    }
    None
}

fn ways(network: &Network, from: &str, to: IpAddr) -> BTreeSet<String> {
    let topology = network.topology();
    let from = entry(topology, from).unwrap();
    let to = translated(topology, from, to);
    let way = |choose: Fixed| {
        let (mut at, mut text, mut services) = (from, String::new(), Vec::new());
        let mut seen = vec![from];
        loop {
            match topology.step(at, to, &choose) {
                Step::Onward(next) if seen.contains(&next) => text += "dropped: loop",
                Step::Onward(next) => {
                    if let Entry::Endpoint(id) = next {
                        services.push(topology.endpoint(id).service.clone());
                    }
                    write!(text, "{} -> ", topology.entry_name(next)).unwrap();
                    seen.push(next);
                    at = next;
                    continue;
                }
                Step::Out(out) => text += &topology.entry_name(out.into()),
                Step::Lost(why) => {
                    write!(text, "dropped: {}", topology.next_hop_name(why)).unwrap();
                }
            }
            if !services.is_empty() {
                write!(text, " (inspected by {})", services.join(", ")).unwrap();
            }
            return text;
        }
    };
    choices().into_iter().map(way).collect()
}

fn translated(topology: &Topology, from: Entry, to: IpAddr) -> IpAddr {
    let Entry::InternetGateway(id) = from else { return to };
    let mapping = topology.gateway(id).addresses.iter().find(|it| it.public == to);
    mapping.map_or(to, |it| it.private)
}

/// Nothing here has more than two zones or members.
fn choices() -> Vec<Fixed> {
    (0..2).flat_map(|zone| (0..2).map(move |member| Fixed { zone, member })).collect()
}

/// Without the ending that a thing has for the meantime. No other name here has it.
fn own_name(name: &str) -> String {
    name.trim_end_matches(".new").to_owned()
}

fn subnets(network: &Network) -> BTreeMap<String, Vec<IpNet>> {
    network.topology().subnets().map(|(_, it)| (it.name.clone(), it.cidrs.clone())).collect()
}

fn entries(topology: &Topology) -> BTreeMap<String, Entry> {
    let gateways = topology.gateways().map(|(id, _)| Entry::InternetGateway(id));
    let subnets = topology.subnets().map(|(id, _)| Entry::Subnet(id));
    let edges = topology.edges().filter(|(_, it)| it.kind != EdgeKind::EgressOnlyInternetGateway);
    let nat = topology.interfaces().filter(|(_, it)| it.kind != InterfaceKind::NetworkInterface);
    gateways
        .chain(subnets)
        .chain(edges.map(|(id, _)| Entry::Edge(id)))
        .chain(nat.map(|(id, _)| Entry::Interface(id)))
        .map(|entry| (topology.entry_name(entry), entry))
        .collect()
}

/// By its own name, or, if it is new, by the one for the meantime.
fn entry(topology: &Topology, name: &str) -> Option<Entry> {
    let entries = entries(topology);
    entries.get(&format!("{name}.new")).or(entries.get(name)).copied()
}

fn places(old: &Network, new: &Network) -> Vec<String> {
    let (old, new) = (entries(old.topology()), entries(new.topology()));
    old.into_keys().filter(|name| new.contains_key(name)).collect()
}

fn address() -> impl Strategy<Value = IpAddr> {
    let near = prop::sample::select(vec![
        "0.0.0.0",
        "10.0.0.0",
        "10.0.1.0",
        "10.0.1.255",
        "10.0.1.11",
        "10.0.2.0",
        "10.0.2.9",
        "10.0.2.255",
        "10.0.3.0",
        "10.0.101.0",
        "10.0.101.4",
        "10.0.101.16",
        "10.0.102.5",
        "10.0.112.5",
        "10.1.0.0",
        "10.1.1.9",
        "10.2.0.0",
        "192.0.2.0",
        "192.0.2.255",
        "192.0.3.0",
        "198.51.100.11",
        "198.51.100.12",
        "203.0.113.7",
        "255.255.255.255",
        "::",
        "2001:db8::7",
        "fd00:10:0:1::9",
        "fd00:10:0:2::9",
        "fd00:10:1::",
        "fd00:10::",
    ]);
    prop_oneof![
        3 => near.prop_map(|text| text.parse().unwrap()),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        1 => (0u32..1 << 17).prop_map(|bits| Ipv4Addr::from_bits(0x0a00_0000 | bits).into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
    ]
}

/// What the choices of a network are taken from, one byte for each; nothing is left at 0.
type Tape = Vec<u8>;

/// A network, and the same with some choices made otherwise.
fn pair() -> impl Strategy<Value = (Tape, Tape)> {
    let tape = || prop::collection::vec(any::<u8>(), TAPE);
    let edits = prop::collection::vec((0..TAPE, any::<u8>()), 1..12);
    let edited = (tape(), edits).prop_map(|(old, edits)| {
        let mut new = old.clone();
        for (at, to) in edits {
            new[at] = to;
        }
        (old, new)
    });
    prop_oneof![3 => edited, 1 => (tape(), tape())]
}

const TAPE: usize = 96;

fn networks(rules: &str, old: &Tape, new: &Tape) -> Option<(Network, Network)> {
    let source = |tape| Source::new("t.toml", text(rules, tape));
    let (old, new) = (source(old), source(new));
    let before = Network::new(&config::parse(&old).unwrap(), &old).ok()?;
    let after = before.followed_by(&config::parse(&new).unwrap(), &new).ok()?;
    Some((before, after))
}

/// Reads a tape: each choice has its place on it, whatever the others are.
struct Reader<'t>(&'t [u8], usize);

impl Reader<'_> {
    fn one_of(&mut self, count: usize) -> usize {
        self.1 += 1;
        usize::from(self.0.get(self.1 - 1).copied().unwrap_or(0)) % count
    }

    fn often(&mut self) -> bool {
        self.one_of(5) != 4
    }

    fn sometimes(&mut self) -> bool {
        self.one_of(3) == 2
    }
}

fn text(rules: &str, tape: &[u8]) -> String {
    let mut tape = Reader(tape, 0);
    let it = &mut tape;
    let mut text = format!("[routing]\nrules = \"{rules}\"\n");
    let v6 = it.one_of(5) != 4;
    let ranges = |v4: &str, v6_range: &str| {
        if v6 { format!("[\"{v4}\", \"{v6_range}\"]") } else { format!("[\"{v4}\"]") }
    };
    let mut add = |part: String| text += &(part + "\n");
    add(format!("[[vpc]]\nname = \"app\"\ncidrs = {}", ranges("10.0.0.0/16", "fd00:10::/48")));
    let main = it.one_of(4);
    let used = |it: &mut Reader<'_>| match it.one_of(4) {
        3 => String::new(),
        table => format!("\nroute_table = \"t{table}\""),
    };
    let mut subnet = |it: &mut Reader<'_>, name: &str, zone: &str, v4: &str, v6: &str| {
        let table = used(it);
        add(format!(
            "[[subnet]]\nname = \"{name}\"\nvpc = \"app\"\nzone = \"{zone}\"\ncidrs = {}{table}",
            ranges(v4, v6)
        ));
    };
    subnet(it, "app-a", "az1", "10.0.1.0/24", "fd00:10:0:1::/64");
    let b = it.often();
    let moved = it.one_of(4) == 3;
    if b {
        subnet(it, "app-b", "az2", "10.0.2.0/24", "fd00:10:0:2::/64");
    } else {
        it.one_of(1);
    }
    subnet(it, "gwlbe-a", "az1", "10.0.101.0/28", "fd00:10:0:101::/64");
    let range = if moved { "10.0.112.0/28" } else { "10.0.102.0/28" };
    subnet(it, "gwlbe-b", "az2", range, "fd00:10:0:102::/64");
    let edge = it.often();
    let mapped = it.one_of(4);
    let table = if edge { "\nroute_table = \"edge\"" } else { "" };
    let addresses = match mapped {
        0 => String::new(),
        number => format!(
            "\naddresses = [{{ public = \"198.51.100.{}\", private = \"10.0.1.{}\" }}]",
            11 + number % 2,
            11 + number / 2
        ),
    };
    add(format!("[[internet_gateway]]\nname = \"igw\"\nvpc = \"app\"{table}{addresses}"));
    let (vgw, learned) = (it.often(), it.one_of(3));
    if vgw {
        let routes = ["10.2.0.0/16", "192.0.2.0/24"][..learned.min(2)]
            .iter()
            .map(|range| format!("{{ destination = \"{range}\" }}"));
        let routes: Vec<String> = routes.collect();
        add(format!(
            "[[virtual_private_gateway]]\nname = \"vgw\"\nvpc = \"app\"\nroutes = [{}]",
            routes.join(", ")
        ));
    }
    let mut endpoints = Vec::new();
    for name in ["e0", "e1", "e2"] {
        let (there, subnet, service) = (it.often(), it.one_of(4), it.one_of(5));
        let zone = (subnet % 2 == 0) == (name == "e0");
        let service = if service == 4 { "other" } else { "fw" };
        if there {
            let subnet = if zone { "gwlbe-a" } else { "gwlbe-b" };
            add(format!(
                "[[endpoint]]\nname = \"{name}\"\nsubnet = \"{subnet}\"\nservice = \"{service}\""
            ));
            endpoints.push((name, zone, service));
        }
    }
    let group = it.sometimes();
    let weights = it.one_of(2);
    let first_two = endpoints.first().zip(endpoints.get(1));
    let group = group && first_two.is_some_and(|(a, b)| a.1 != b.1 && a.2 == b.2);
    if let (true, Some((a, b))) = (group, first_two) {
        let (one, other) = if weights == 0 { (100, 0) } else { (0, 100) };
        add(format!(
            "[[endpoint_group]]\nname = \"group\"\nmembers = [{{ endpoint = \"{}\", weight = {one} }}, {{ endpoint = \"{}\", weight = {other} }}]",
            a.0, b.0
        ));
    }
    let interfaces: Vec<&str> = ["eni0", "eni1"].into_iter().filter(|_| it.sometimes()).collect();
    for name in &interfaces {
        add(format!("[[network_interface]]\nname = \"{name}\"\nsubnet = \"gwlbe-a\""));
    }
    let nat = it.sometimes();
    if nat {
        add("[[nat_gateway]]\nname = \"nat\"\nsubnet = \"gwlbe-a\"\npublic_address = \"203.0.113.99\"".to_owned());
    }
    let list = it.sometimes();
    let entries = ["\"192.0.2.0/24\"", "\"192.0.2.0/24\", \"198.18.0.0/15\""][it.one_of(2)];
    if list {
        add(format!("[[prefix_list]]\nname = \"list\"\nentries = [{entries}]"));
    }
    let hub = it.sometimes();
    let (appliance_mode, transit, propagates) = (it.sometimes(), it.one_of(3), it.often());
    if hub {
        let route = [
            "",
            "{ destination = \"0.0.0.0/0\", attachment = \"att-app\" }",
            "{ destination = \"0.0.0.0/0\", blackhole = true }",
        ][transit];
        let propagations = if propagates { "\"att-app\", \"att-hub\"" } else { "\"att-app\"" };
        add(format!(
            "[[vpc]]\nname = \"hub\"\ncidrs = [\"10.1.0.0/16\"]\n\
             [[subnet]]\nname = \"hub-a\"\nvpc = \"hub\"\nzone = \"az1\"\ncidrs = [\"10.1.1.0/24\"]\nroute_table = \"hub\"\n\
             [[route_table]]\nname = \"hub\"\nvpc = \"hub\"\nroutes = [{{ destination = \"0.0.0.0/0\", transit_gateway = \"tgw\" }}]\n\
             [[transit_gateway]]\nname = \"tgw\"\n\
             [[transit_gateway_route_table]]\nname = \"rt\"\ntransit_gateway = \"tgw\"\npropagations = [{propagations}]\nroutes = [{route}]\n\
             [[transit_gateway_attachment]]\nname = \"att-hub\"\ntransit_gateway = \"tgw\"\nvpc = \"hub\"\nsubnets = [\"hub-a\"]\nroute_table = \"rt\"\n\
             [[transit_gateway_attachment]]\nname = \"att-app\"\ntransit_gateway = \"tgw\"\nvpc = \"app\"\nsubnets = [\"gwlbe-a\", \"gwlbe-b\"]\nroute_table = \"rt\"\nappliance_mode = {appliance_mode}"
        ));
    }
    let inspection = |choice: usize| match (choice, endpoints.get(choice % endpoints.len().max(1)))
    {
        (5, _) if group => Some("endpoint_group = \"group\"".to_owned()),
        (_, Some((name, ..))) => Some(format!("endpoint = \"{name}\"")),
        _ => None,
    };
    for index in 0..3 {
        let mut routes = Vec::new();
        let mut route = |destination: &str, target: Option<String>| {
            routes.extend(target.map(|it| format!("{{ destination = \"{destination}\", {it} }}")));
        };
        for (destination, at_all) in [
            ("0.0.0.0/0", 5),
            ("192.0.2.0/24", 2),
            ("10.1.0.0/16", 2),
            ("10.2.0.0/16", 2),
            ("::/0", 4),
        ] {
            let (there, choice) = (it.one_of(5) < at_all, it.one_of(12));
            let target = match choice {
                0..=5 => inspection(choice),
                6 if vgw => Some("virtual_private_gateway = \"vgw\"".to_owned()),
                7 if hub => Some("transit_gateway = \"tgw\"".to_owned()),
                8 if nat && !destination.contains("::") => Some("nat_gateway = \"nat\"".to_owned()),
                9 => interfaces.first().map(|name| format!("interface = \"{name}\"")),
                10 => Some("blackhole = true".to_owned()),
                _ => Some("internet_gateway = \"igw\"".to_owned()),
            };
            if there {
                route(destination, target);
            }
        }
        let (east_west, choice) = (it.sometimes(), it.one_of(6));
        if east_west && rules != "alibaba" {
            route("10.0.1.0/24", inspection(choice));
        }
        if it.one_of(6) == 5 && list {
            routes.push("{ prefix_list = \"list\", internet_gateway = \"igw\" }".to_owned());
        }
        let propagating = if it.sometimes() && vgw { "\npropagating = [\"vgw\"]" } else { "" };
        let main = if main == index { "\nmain = true" } else { "" };
        add(format!(
            "[[route_table]]\nname = \"t{index}\"\nvpc = \"app\"{main}{propagating}\nroutes = [{}]",
            routes.join(", ")
        ));
    }
    let mut routes = Vec::new();
    for (destination, possible) in
        [("10.0.1.0/24", true), ("10.0.2.0/24", b), ("fd00:10:0:1::/64", v6)]
    {
        let (there, choice) = (it.often(), it.one_of(9));
        let target = match choice {
            0..=5 => inspection(choice),
            choice => interfaces.get(choice - 6).map(|name| format!("interface = \"{name}\"")),
        };
        if there && possible {
            routes.extend(target.map(|it| format!("{{ destination = \"{destination}\", {it} }}")));
        }
    }
    add(format!(
        "[[route_table]]\nname = \"edge\"\nvpc = \"app\"\nroutes = [{}]",
        routes.join(", ")
    ));
    text
}
