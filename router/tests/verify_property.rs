//! What `verify` finds over all addresses is what a naive walk of single packets finds, packet by
//! packet, on random topologies: both ways, for every choice, with no classes and no sets.
#![expect(clippy::unwrap_used, clippy::panic, reason = "in the helpers of tests, as in tests")]

mod naive;

use std::fmt::Write;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use router::source::Source;
use router::verify::{FindingKind, Report};
use router::{Circles, Topology, config};

use FindingKind::*;
use naive::{Fault, Naive};

/// A random network. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
struct Design {
    /// The second VPC, if there is one: whether its range is that of the first.
    second: Option<bool>,
    /// Subnets with machines, by VPC and zone.
    places: Vec<(u8, u8)>,
    /// Endpoints, each in a subnet of its own.
    endpoints: Vec<(u8, u8)>,
    /// By VPC: an internet gateway, with a table of its own or without.
    gateways: [Option<bool>; 2],
    /// By VPC: a NAT gateway.
    nat: [bool; 2],
    /// By VPC: a virtual private gateway with a table, that has learned something or not.
    private: [Option<bool>; 2],
    /// By VPC: an egress-only internet gateway.
    egress_only: [bool; 2],
    /// Whether there is a transit gateway, and the appliance mode of both attachments.
    transit: Option<[bool; 2]>,
    /// Whether the first two endpoints are a group, if they can be.
    group: bool,
    /// The weights of its members, by number; if none, one is active and the other stands by.
    weights: Option<u8>,
    /// An elastic address for a machine of the first subnet.
    mapped: bool,
    /// Whether all places of a VPC use one table.
    one_table: bool,
    /// Routes by table, destination and target.
    routes: Vec<(u8, u8, u8)>,
    /// Whether, where these say nothing, both directions of each place pass an endpoint: from which
    /// one on they are taken in turn.
    inspected: Option<u8>,
}

fn design() -> impl Strategy<Value = Design> {
    let place = (0u8..2, 0u8..2);
    (
        (
            prop::option::of(prop::bool::weighted(0.2)),
            prop::collection::vec(place.clone(), 1..4),
            prop::collection::vec(place, 0..4),
            prop::array::uniform2(prop::option::weighted(0.8, any::<bool>())),
        ),
        (
            prop::array::uniform2(prop::bool::weighted(0.4)),
            prop::array::uniform2(prop::option::weighted(0.2, any::<bool>())),
            prop::array::uniform2(prop::bool::weighted(0.3)),
            prop::option::weighted(0.5, any::<[bool; 2]>()),
        ),
        (
            any::<bool>(),
            prop::option::of(any::<u8>()),
            prop::bool::weighted(0.3),
            prop::bool::weighted(0.3),
        ),
        prop::collection::vec(any::<(u8, u8, u8)>(), 0..40),
        prop::option::weighted(0.6, any::<u8>()),
    )
        .prop_map(|(space, ways, (group, weights, mapped, one_table), routes, inspected)| {
            Design {
                inspected,
                one_table,
                second: space.0,
                places: space.1,
                // A group has its members in two zones of one VPC.
                endpoints: match space.2.first() {
                    Some((vpc, _)) if group => [(*vpc, 0), (*vpc, 1)]
                        .into_iter()
                        .chain(space.2.iter().skip(2).copied())
                        .collect(),
                    _ => space.2,
                },
                gateways: space.3,
                nat: ways.0,
                private: ways.1,
                egress_only: ways.2,
                transit: ways.3,
                group,
                weights,
                mapped,
                routes,
            }
        })
}

/// A table in the making.
struct Table {
    name: String,
    vpc: usize,
    is_edge: bool,
    routes: Vec<(String, String)>,
}

impl Design {
    fn vpc(&self, number: u8) -> usize {
        if self.second.is_some() { usize::from(number % 2) } else { 0 }
    }

    /// The places, at least one in each VPC: where there is none, those of attachments are.
    fn places(&self) -> Vec<(usize, u8)> {
        let mut places: Vec<(usize, u8)> =
            self.places.iter().map(|(vpc, zone)| (self.vpc(*vpc), *zone)).collect();
        for vpc in 0..if self.second.is_some() { 2 } else { 1 } {
            if places.iter().all(|(of, _)| *of != vpc) {
                places.push((vpc, 0));
            }
        }
        places
    }

    fn octet(&self, vpc: usize) -> usize {
        if self.second == Some(true) { 0 } else { vpc }
    }

    fn text(&self) -> String {
        let mut text = "[routing]\nrules = \"linux\"\n".to_owned();
        let vpcs = if self.second.is_some() { 2 } else { 1 };
        let mut tables: Vec<Table> = Vec::new();
        let mut next = vec![1usize; vpcs];
        let mut subnet = |tables: &mut Vec<Table>, name: &str, vpc: usize, zone: u8| {
            let third = next[vpc];
            next[vpc] += 1;
            let octet = self.octet(vpc);
            let (v4, v6) =
                (format!("10.{octet}.{third}.0/24"), format!("fd00:{octet:x}:0:{third:x}::/64"));
            tables.push(Table { name: name.to_owned(), vpc, is_edge: false, routes: Vec::new() });
            format!(
                "[[subnet]]\nname = {name:?}\nvpc = \"v{vpc}\"\nzone = \"z{zone}\"\n\
                 cidrs = [{v4:?}, {v6:?}]\nroute_table = {name:?}\n"
            )
        };
        for vpc in 0..vpcs {
            let octet = self.octet(vpc);
            writeln!(
                text,
                "[[vpc]]\nname = \"v{vpc}\"\ncidrs = [\"10.{octet}.0.0/16\", \"fd00:{octet:x}::/48\"]"
            )
            .unwrap();
        }
        let places = self.places();
        for (index, (vpc, zone)) in places.iter().enumerate() {
            let first = places.iter().position(|(of, _)| of == vpc).filter(|_| self.one_table);
            let table = format!("p{}", first.unwrap_or(index));
            let name = format!("p{index}");
            text += &subnet(&mut tables, &name, *vpc, *zone)
                .replace(&format!("route_table = {name:?}"), &format!("route_table = {table:?}"));
        }
        let mut targets: Vec<Vec<String>> = vec![vec!["blackhole = true".to_owned()]; vpcs];
        for (index, (vpc, zone)) in self.endpoints.iter().enumerate() {
            let (name, vpc) = (format!("e{index}"), self.vpc(*vpc));
            text += &subnet(&mut tables, &name, vpc, *zone);
            writeln!(text, "[[endpoint]]\nname = {name:?}\nsubnet = {name:?}\nservice = \"s\"")
                .unwrap();
            for _ in 0..2 {
                targets[vpc].push(format!("endpoint = {name:?}"));
            }
        }
        if let [(vpc, 0), (other, 1), ..] | [(vpc, 1), (other, 0), ..] = self.endpoints[..]
            && self.group
            && self.vpc(vpc) == self.vpc(other)
        {
            let (mode, [first, second]) = match self.weights {
                None => ("active_standby", [100, 0]),
                Some(number) => {
                    let all = [[100, 0], [0, 1], [50, 50], [1, 99]];
                    ("weighted", all[usize::from(number) % all.len()])
                }
            };
            writeln!(
                text,
                "[[endpoint_group]]\nname = \"g\"\nmode = {mode:?}\n\
                 members = [{{ endpoint = \"e0\", weight = {first} }}, \
                 {{ endpoint = \"e1\", weight = {second} }}]"
            )
            .unwrap();
            targets[self.vpc(vpc)].push("endpoint_group = \"g\"".to_owned());
        }
        for (vpc, targets) in targets.iter_mut().enumerate() {
            if self.nat[vpc] {
                text += &subnet(&mut tables, &format!("n{vpc}"), vpc, 0);
                writeln!(text, "[[nat_gateway]]\nname = \"n{vpc}\"\nsubnet = \"n{vpc}\"").unwrap();
                targets.push(format!("nat_gateway = \"n{vpc}\""));
            }
            if let Some(with_table) = self.gateways[vpc] {
                writeln!(text, "[[internet_gateway]]\nname = \"i{vpc}\"\nvpc = \"v{vpc}\"")
                    .unwrap();
                if with_table {
                    writeln!(text, "route_table = \"i{vpc}\"").unwrap();
                    let name = format!("i{vpc}");
                    tables.push(Table { name, vpc, is_edge: true, routes: Vec::new() });
                }
                if self.mapped && self.places()[0].0 == vpc {
                    let octet = self.octet(vpc);
                    writeln!(
                        text,
                        "addresses = [{{ public = \"203.0.113.9\", private = \"10.{octet}.1.9\" }}]"
                    )
                    .unwrap();
                }
                for _ in 0..2 {
                    targets.push(format!("internet_gateway = \"i{vpc}\""));
                }
            }
            if let Some(learned) = self.private[vpc] {
                writeln!(
                    text,
                    "[[virtual_private_gateway]]\nname = \"w{vpc}\"\nvpc = \"v{vpc}\"\n\
                     route_table = \"w{vpc}\""
                )
                .unwrap();
                if learned {
                    text += "routes = [{ destination = \"192.168.0.0/16\" }]\n";
                }
                let name = format!("w{vpc}");
                tables.push(Table { name, vpc, is_edge: true, routes: Vec::new() });
                targets.push(format!("virtual_private_gateway = \"w{vpc}\""));
            }
            if self.egress_only[vpc] {
                writeln!(
                    text,
                    "[[egress_only_internet_gateway]]\nname = \"o{vpc}\"\nvpc = \"v{vpc}\""
                )
                .unwrap();
                targets.push(format!("egress_only_internet_gateway = \"o{vpc}\""));
            }
        }
        if let (Some(appliance), Some(_)) = (self.transit, self.second) {
            text += "[[transit_gateway]]\nname = \"t\"\n";
            for (vpc, targets) in targets.iter_mut().enumerate() {
                for zone in 0..2 {
                    text += &subnet(&mut tables, &format!("t{vpc}{zone}"), vpc, zone);
                }
                writeln!(
                    text,
                    "[[transit_gateway_attachment]]\nname = \"a{vpc}\"\ntransit_gateway = \"t\"\n\
                     vpc = \"v{vpc}\"\nsubnets = [\"t{vpc}0\", \"t{vpc}1\"]\n\
                     route_table = \"t{vpc}\"\nappliance_mode = {}",
                    appliance[vpc]
                )
                .unwrap();
                let other = 1 - vpc;
                writeln!(
                    text,
                    "[[transit_gateway_route_table]]\nname = \"t{vpc}\"\ntransit_gateway = \"t\"\n\
                     propagations = [\"a{other}\"]\n\
                     routes = [{{ destination = \"0.0.0.0/0\", attachment = \"a{other}\" }}]"
                )
                .unwrap();
                for _ in 0..2 {
                    targets.push("transit_gateway = \"t\"".to_owned());
                }
            }
        }
        self.add_routes(&mut tables, &targets, &next);
        if let Some(first) = self.inspected {
            self.inspect(&mut tables, usize::from(first));
        }
        for Table { name, vpc, routes, .. } in &tables {
            writeln!(text, "[[route_table]]\nname = {name:?}\nvpc = \"v{vpc}\"").unwrap();
            if !routes.is_empty() {
                text += "routes = [\n";
                for (destination, target) in routes {
                    writeln!(text, "{{ destination = {destination:?}, {target} }},").unwrap();
                }
                text += "]\n";
            }
        }
        text
    }

    /// A design as it should be, but for zones, and for what is there already.
    fn inspect(&self, tables: &mut [Table], first: usize) {
        let mut add = |name: &str, destination: &str, target: String| {
            let table = tables.iter_mut().find(|table| table.name == name);
            let Some(table) = table else { return };
            if table.routes.iter().all(|(other, _)| other != destination) {
                table.routes.push((destination.to_owned(), target));
            }
        };
        let mut next = [1, 1];
        for (index, (vpc, _)) in self.places().into_iter().enumerate() {
            let (octet, third) = (self.octet(vpc), next[vpc]);
            next[vpc] += 1;
            let of_vpc: Vec<usize> = (0..self.endpoints.len())
                .filter(|endpoint| self.vpc(self.endpoints[*endpoint].0) == vpc)
                .collect();
            if of_vpc.is_empty() {
                continue;
            }
            let endpoint = of_vpc[(first + index) % of_vpc.len()];
            let in_group = endpoint < 2 && self.group && first % 2 == 1;
            let target = || {
                if in_group {
                    "endpoint_group = \"g\"".to_owned()
                } else {
                    format!("endpoint = \"e{endpoint}\"")
                }
            };
            let members = if in_group { vec![0, 1] } else { vec![endpoint] };
            for destination in ["0.0.0.0/0", "::/0"] {
                add(&format!("p{index}"), destination, target());
            }
            for gateway in [format!("i{vpc}"), format!("w{vpc}")] {
                add(&gateway, &format!("10.{octet}.{third}.0/24"), target());
                add(&gateway, &format!("fd00:{octet:x}:0:{third:x}::/64"), target());
            }
            for endpoint in members {
                if self.gateways[vpc].is_none() {
                    continue;
                }
                let out = format!("internet_gateway = \"i{vpc}\"");
                add(&format!("e{endpoint}"), "0.0.0.0/0", out.clone());
                let out = if self.egress_only[vpc] {
                    format!("egress_only_internet_gateway = \"o{vpc}\"")
                } else {
                    out
                };
                add(&format!("e{endpoint}"), "::/0", out);
            }
        }
        if self.transit.is_some() && self.second == Some(false) {
            self.inspect_transit(&mut add);
        }
    }

    /// What goes between the VPCs passes the endpoints of the second one, zone by zone.
    fn inspect_transit(&self, add: &mut impl FnMut(&str, &str, String)) {
        let transit = || "transit_gateway = \"t\"".to_owned();
        let places = self.places();
        let of_second = |endpoint: &usize| self.vpc(self.endpoints[*endpoint].0) == 1;
        for endpoint in (0..self.endpoints.len()).filter(of_second) {
            add(&format!("e{endpoint}"), "10.0.0.0/16", transit());
            let zone = self.endpoints[endpoint].1;
            let through = || format!("endpoint = \"e{endpoint}\"");
            let mut third = 0;
            for (index, (vpc, zone_of)) in places.iter().enumerate() {
                if *vpc == 0 {
                    add(&format!("p{index}"), "10.1.0.0/16", transit());
                    continue;
                }
                third += 1;
                add(&format!("t1{zone}"), &format!("10.1.{third}.0/24"), through());
                if *zone_of == zone {
                    add(&format!("p{index}"), "10.0.0.0/16", through());
                }
            }
        }
    }

    fn add_routes(&self, tables: &mut [Table], targets: &[Vec<String>], subnets: &[usize]) {
        let count = tables.len();
        for (table, destination, target) in &self.routes {
            let table = &mut tables[usize::from(*table) % count];
            let octet = self.octet(table.vpc);
            let mut destinations: Vec<String> = Vec::new();
            if !table.is_edge {
                for text in ["0.0.0.0/0", "0.0.0.0/0", "0.0.0.0/0", "::/0", "::/0"] {
                    destinations.push(text.to_owned());
                }
                for text in ["198.51.100.0/24", "192.168.0.0/16", "2001:db8::/32", "10.0.0.0/8"] {
                    destinations.push(text.to_owned());
                }
            }
            for third in 1..subnets[table.vpc].min(5) {
                destinations.push(format!("10.{octet}.{third}.0/24"));
                destinations.push(format!("fd00:{octet:x}:0:{third:x}::/64"));
            }
            destinations.push(format!("10.{octet}.1.0/25"));
            // An application in the subnet of its endpoint is tested elsewhere.
            let is_works = |destination: &str| {
                let third = destination.split(['.', ':']).nth(if destination.contains(':') {
                    3
                } else {
                    2
                });
                let third = third.and_then(|text| usize::from_str_radix(text, 16).ok());
                third.is_some_and(|third| {
                    let places = self.places().iter().filter(|(vpc, _)| *vpc == table.vpc).count();
                    third > places
                })
            };
            if table.is_edge {
                destinations.retain(|destination| !is_works(destination));
            }
            if destinations.is_empty() {
                continue;
            }
            let destination = &destinations[usize::from(*destination) % destinations.len()];
            let ipv6 = destination.contains(':');
            let of_family: Vec<&String> = targets[table.vpc]
                .iter()
                .filter(|target| !(ipv6 && target.starts_with("nat_gateway")))
                .filter(|target| ipv6 || !target.starts_with("egress_only"))
                .collect();
            let target = of_family[usize::from(*target) % of_family.len()];
            if table.routes.iter().all(|(other, _)| other != destination) {
                table.routes.push((destination.clone(), target.clone()));
            }
        }
    }
}

fn build(text: &str) -> Topology {
    let source = Source::new("random.toml", text);
    let file = config::parse(&source).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    Topology::build_with(&file, &source, Circles::Kept)
        .unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

/// The findings that may tell of a fault of a packet.
fn kinds(fault: Fault) -> &'static [FindingKind] {
    match fault {
        Fault::Uninspected => &[UninspectedIngress, UninspectedEgress, Ipv6Uninspected],
        Fault::Asymmetric => &[OneWayInspection, DifferentEndpoints, ApplianceMode],
        Fault::Circles => &[Loop],
        Fault::LostAfterInspection => &[LostAfterInspection],
        Fault::LostBehindGateway => &[LostBehindGateway],
        Fault::LostReturn => &[LostReturn],
        Fault::Blackhole => &[BlackholeInUse],
        Fault::EgressOnly => &[EgressOnlyBehindEndpoint],
        Fault::Crosses => &[ZoneCrossing],
    }
}

fn told(report: &Report, fault: Fault, packet: &naive::Packet) -> bool {
    report
        .findings
        .iter()
        .filter(|finding| kinds(fault).contains(&finding.kind))
        .any(|finding| finding.concerns(&packet.from, packet.source, packet.destination))
}

fn check(design: &Design) -> Result<(), TestCaseError> {
    let text = design.text();
    let topology = build(&text);
    let report = topology.verify();
    let naive = Naive::new(&topology);
    for packet in naive.packets() {
        let faults = naive.faults(&packet);
        for fault in Fault::ALL {
            let expected = faults.iter().any(|(found, _)| *found == fault);
            let found = told(&report, fault, &packet);
            // A fault may be told as that of another packet with the same cause.
            let by_others = || {
                faults.iter().filter(|(it, _)| *it == fault).any(|(_, others)| {
                    others.iter().any(|(fault, packet)| told(&report, *fault, packet))
                        || naive::is_cause(fault) && told_for(&report, &packet)
                })
            };
            prop_assert!(
                !expected || found || by_others(),
                "{fault:?} of {packet:?} is not told:\n{report}\n{text}"
            );
            prop_assert!(
                expected || !found,
                "{fault:?} of {packet:?} is told, but is none:\n{report}\n{text}"
            );
        }
    }
    for finding in &report.findings {
        let Some(fault) = Fault::ALL.into_iter().find(|it| kinds(*it).contains(&finding.kind))
        else {
            continue;
        };
        // The counter-example, and the ends of some of the sets.
        let shown = finding.counter_example.iter();
        let shown = shown.map(|it| (it.from.clone(), it.source, it.destination));
        let ends = finding.flows.iter().take(8).flat_map(|flows| {
            let source = flows.sources[0].network();
            let last = flows.sources[flows.sources.len() - 1].broadcast();
            let destinations = flows.destinations.iter().take(4);
            destinations.flat_map(move |net| {
                [
                    (flows.from.clone(), source, net.broadcast()),
                    (flows.from.clone(), last, net.network()),
                ]
            })
        });
        for (from, source, destination) in shown.chain(ends) {
            let at = topology.entry(&from).unwrap();
            let packet = naive::Packet { at, from, source, destination };
            let faults = naive.faults(&packet);
            prop_assert!(
                faults.iter().any(|(it, _)| *it == fault),
                "{packet:?} shows no {fault:?}: {finding}\n{text}"
            );
        }
    }
    Ok(())
}

/// Whether packets for the source of this one are lost or circle: its answers are among them.
fn told_for(report: &Report, packet: &naive::Packet) -> bool {
    report
        .findings
        .iter()
        .filter(|finding| matches!(finding.kind, LostAfterInspection | Loop))
        .any(|finding| finding.addresses.iter().any(|net| net.contains(&packet.source)))
}

proptest! {
    #[test]
    fn verify_agrees_with_packets(design in design()) {
        check(&design)?;
    }
}

/// Otherwise the agreement would mean little.
#[test]
fn random_networks_have_every_fault() {
    let mut runner = TestRunner::deterministic();
    let mut met: Vec<(Fault, usize)> = Fault::ALL.map(|fault| (fault, 0)).to_vec();
    for _ in 0..300 {
        let report = build(&design().new_tree(&mut runner).unwrap().current().text()).verify();
        for (fault, count) in &mut met {
            *count += usize::from(kinds(*fault).iter().any(|kind| report.of(*kind).count() > 0));
        }
    }
    assert!(met.iter().all(|(_, count)| *count >= 5), "{met:?}");
}
