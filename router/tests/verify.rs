//! What `verify` finds: each file of `verify/` has one mistake, and its report beside it; on those
//! of `verify/correct/` and on the examples there is nothing to say.
//!
//! `INSTA_UPDATE=always cargo test -p router --test verify` rewrites the reports; read the diff.
#![expect(clippy::unwrap_used, clippy::panic, reason = "in the helpers of tests, as in tests")]

mod large;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use router::source::Source;
use router::trace::{self, Chosen, Inspection, Trace};
use router::verify::{Examined, Finding, FindingKind, Packet, Report, Severity};
use router::{
    Choose, Circles, EndpointId, GroupId, NextHop, Origin, Topology, TransitAttachmentId, config,
};

use FindingKind::*;

/// Each mistake, and the kinds of findings that it has, no more and no less.
const MISTAKES: &[(&str, &[FindingKind])] = &[
    ("a-machine-in-place-of-an-endpoint", &[NotFollowed]),
    ("a-range-past-the-endpoint", &[UninspectedEgress]),
    ("answers-through-a-nat-gateway", &[OneWayInspection, LostReturn]),
    ("app-beside-its-endpoint", &[SharedSubnet]),
    ("app-table-to-the-wrong-zone", &[DifferentEndpoints]),
    ("appliance-mode-off", &[ApplianceMode]),
    ("blackhole-behind-an-endpoint", &[LostAfterInspection]),
    ("blackhole-left-over", &[BlackholeInUse]),
    ("both-directions-to-the-wrong-zone", &[ZoneCrossing, UnusedEndpoint]),
    ("default-route-to-the-gateway", &[UninspectedEgress]),
    ("east-west-at-two-endpoints", &[DifferentEndpoints]),
    ("east-west-one-way", &[OneWayInspection]),
    ("edge-entry-for-a-part", &[UninspectedIngress]),
    ("edge-entry-missing", &[UninspectedIngress]),
    ("edge-entry-missing-for-ipv6", &[Ipv6Uninspected]),
    ("edge-entry-to-the-wrong-zone", &[DifferentEndpoints]),
    ("edge-table-missing", &[UninspectedIngress]),
    ("egress-only-gateway-behind-an-endpoint", &[EgressOnlyBehindEndpoint]),
    ("egress-only-gateway-without-inspection", &[Ipv6Uninspected]),
    ("elastic-address-behind-nat", &[UninspectedIngress]),
    ("endpoint-subnet-to-itself", &[Loop]),
    ("endpoints-in-a-circle", &[Loop]),
    ("group-in-one-direction", &[DifferentEndpoints]),
    ("group-with-an-idle-member", &[LostAfterInspection]),
    ("hub-without-way-back-in-one-zone", &[Loop]),
    ("intent-between-subnets", &[IntentViolated]),
    ("intent-of-another-service", &[IntentViolated, UnusedEndpoint]),
    ("ipv6-default-route-to-the-gateway", &[Ipv6Uninspected]),
    ("nat-gateway-without-a-way-out", &[LostBehindGateway]),
    ("nat-gateway-without-inspection", &[UninspectedEgress]),
    ("nat-gateways-in-a-circle", &[Loop]),
    ("nat-subnet-without-way-back", &[OneWayInspection]),
    ("no-table", &[ImplicitMainTable, UnusedEndpoint]),
    ("no-way-out-behind-an-endpoint", &[LostAfterInspection]),
    ("peering-connection", &[NotFollowed]),
    ("propagated-past-the-endpoint", &[UninspectedEgress]),
    ("return-route-missing-in-one-zone", &[LostReturn]),
    ("table-of-the-other-zone", &[DifferentEndpoints]),
    ("transit-attachments-in-a-circle", &[Loop]),
    ("transit-blackhole", &[LostAfterInspection]),
    ("transit-gateway-without-a-default", &[LostBehindGateway]),
    ("transit-route-past-the-hub", &[OneWayInspection]),
    ("unused-endpoint", &[UnusedEndpoint]),
    ("virtual-private-gateway-without-table", &[UninspectedIngress]),
    ("zone-without-the-attachment", &[LostReturn]),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify")
}

/// The files of a folder by name, in order.
fn files(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    files.sort();
    files
}

fn build(path: &Path) -> Topology {
    let source = Source::read(path).unwrap();
    let file = config::parse(&source).unwrap_or_else(|problems| panic!("{problems}"));
    Topology::build_with(&file, &source, Circles::Kept)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

/// Takes what a counter-example says.
struct AsSaid<'a> {
    topology: &'a Topology,
    packet: &'a Packet,
}

impl AsSaid<'_> {
    fn index(&self, at: &str) -> usize {
        let choice = self.packet.choices.iter().find(|choice| choice.at == at);
        choice.map_or(0, |choice| choice.index)
    }
}

impl Choose for AsSaid<'_> {
    fn zone(&self, attachment: TransitAttachmentId, _: usize) -> usize {
        let name = &self.topology.transit_attachment(attachment).name;
        self.index(&format!("transit_gateway_attachment:{name}"))
    }

    fn member(&self, group: GroupId, _: usize) -> usize {
        self.index(&format!("endpoint_group:{}", self.topology.endpoint_group(group).name))
    }
}

impl Inspection for AsSaid<'_> {
    fn choose(&self, _: EndpointId, _: &trace::Packet) -> Option<Chosen> {
        None
    }
}

/// Follows a counter-example, there and back.
fn follow(topology: &Topology, packet: &Packet) -> (Trace, Option<Trace>) {
    let choices = AsSaid { topology, packet };
    let from = topology.entry(&packet.from).unwrap();
    let to = trace::Packet { source: Some(packet.source), ..trace::Packet::to(packet.destination) };
    let way = topology.trace_packet(from, &to, &choices);
    let back = topology.trace_answer(&way, &choices);
    (way, back)
}

/// Whether the packet of a finding really shows the fault.
fn assert_shown(topology: &Topology, finding: &Finding, name: &str) {
    let Some(packet) = &finding.counter_example else {
        let about_tables =
            matches!(finding.kind, ImplicitMainTable | UnusedEndpoint | SharedSubnet);
        assert!(about_tables, "{name}: no counter-example: {finding}");
        return;
    };
    assert!(
        finding.concerns(&packet.from, packet.source, packet.destination),
        "{name}: the counter-example is not of the flows: {finding}"
    );
    let (way, back) = follow(topology, packet);
    let passed = |trace: &Trace| trace.endpoints.iter().copied().collect::<BTreeSet<_>>();
    let ends =
        |how: NextHop| [Some(&way), back.as_ref()].iter().flatten().any(|way| way.outcome == how);
    let shown = match finding.kind {
        UninspectedIngress | UninspectedEgress | Ipv6Uninspected => {
            way.delivered && way.endpoints.is_empty()
        }
        SharedSubnet => {
            way.endpoints.is_empty() || back.as_ref().is_some_and(|back| back.endpoints.is_empty())
        }
        IntentViolated => {
            let services = way.endpoints.iter().map(|id| &topology.endpoint(*id).service);
            let asked = topology.intents().iter().filter_map(|intent| intent.inspected_by.as_ref());
            let services: Vec<_> = services.collect();
            way.delivered && asked.into_iter().any(|service| !services.contains(&service))
        }
        OneWayInspection => way.endpoints.is_empty() != back.as_ref().unwrap().endpoints.is_empty(),
        DifferentEndpoints | ApplianceMode => {
            let back = back.as_ref().unwrap();
            assert!(way.delivered && back.delivered);
            passed(&way) != passed(back) && !passed(&way).is_empty() && !passed(back).is_empty()
        }
        Loop => ends(NextHop::Loop),
        LostAfterInspection => !way.delivered && !way.endpoints.is_empty(),
        LostBehindGateway => !way.delivered && way.endpoints.is_empty(),
        LostReturn => {
            let back = back.as_ref().unwrap();
            // An answer with another source is none; one that comes elsewhere, neither.
            let is_none = back.source_translated.is_some() || back.end != packet.from;
            way.delivered && (!back.delivered || is_none)
        }
        EgressOnlyBehindEndpoint => {
            !way.endpoints.is_empty() && way.end.starts_with("egress_only_internet_gateway:")
        }
        BlackholeInUse => [Some(&way), back.as_ref()]
            .iter()
            .flatten()
            .any(|way| way.outcome == NextHop::Blackhole),
        ZoneCrossing => {
            let zones = |trace: &Trace| {
                trace.endpoints.iter().map(|id| topology.endpoint(*id).zone.clone()).collect()
            };
            let zones: Vec<String> = zones(&way);
            let from = topology.zone(topology.entry(&packet.from).unwrap()).unwrap_or_default();
            zones.iter().any(|zone| zone != from)
        }
        NotFollowed => way.delivered,
        ImplicitMainTable | UnusedEndpoint => false,
    };
    assert!(shown, "{name}: the counter-example shows nothing: {finding}");
    let ats: Vec<&String> = way.hops.iter().map(|hop| &hop.lookup.at).collect();
    assert_eq!(ats, finding.path.iter().map(|hop| &hop.at).collect::<Vec<_>>(), "{name}");
}

#[test]
fn every_mistake_is_found_and_shown() {
    let files = files(&folder());
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, MISTAKES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    insta::with_settings!({ snapshot_path => folder(), prepend_module_to_snapshot => false, omit_expression => true }, {
        for ((name, path), (_, kinds)) in files.iter().zip(MISTAKES) {
            let topology = build(path);
            let report = topology.verify();
            insta::assert_snapshot!(name.as_str(), report.to_string());
            let found: BTreeSet<FindingKind> = report.findings.iter().map(|it| it.kind).collect();
            assert_eq!(found, kinds.iter().copied().collect(), "{name}:\n{report}");
            for finding in &report.findings {
                assert_shown(&topology, finding, name);
            }
        }
    });
}

#[test]
fn nothing_is_said_of_correct_designs() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let correct = files(&folder().join("correct"));
    assert!(correct.len() >= 10, "only {}", correct.len());
    for (name, path) in correct.into_iter().chain(files(&examples)) {
        let report = build(&path).verify();
        assert!(report.is_clean(), "{name}:\n{report}");
        // What is only good to know is known of none of them either.
        assert_eq!(report.findings, [], "{name}");
    }
}

#[test]
fn every_kind_is_in_some_report() {
    let all: BTreeSet<FindingKind> =
        MISTAKES.iter().flat_map(|(_, kinds)| kinds.iter().copied()).collect();
    assert_eq!(all, FindingKind::ALL.iter().copied().collect());
}

#[test]
fn the_documentation_has_every_kind() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/routing.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("--test verify` -->\n").unwrap();
    let (found, after) = rest.split_once("<!-- end of findings -->").unwrap();
    let mut table = "\n| finding | gravity | what it means |\n|---|---|---|\n".to_owned();
    for kind in FindingKind::ALL {
        writeln!(table, "| `{kind}` | {} | {} |", kind.gravity(), kind.statement()).unwrap();
    }
    table += "\n";
    if std::env::var_os("GWLB_BLESS").is_some() {
        let page = format!("{before}--test verify` -->\n{table}<!-- end of findings -->{after}");
        std::fs::write(&path, page).unwrap();
    } else {
        assert_eq!(found, table, "GWLB_BLESS=1 rewrites it");
    }
}

/// What a reader of JSON relies on.
#[test]
fn the_json_of_a_report_has_its_addresses_as_prefixes() {
    let report = build(&folder().join("edge-entry-missing.toml")).verify();
    let json = serde_json::to_value(&report).unwrap();
    let finding = &json["findings"][0];
    assert_eq!(finding["kind"], "uninspected-ingress");
    assert_eq!(finding["severity"], "error");
    assert_eq!(finding["from"], serde_json::json!(["internet_gateway:igw"]));
    assert_eq!(finding["to"], serde_json::json!(["subnet:app-b"]));
    assert_eq!(finding["addresses"], serde_json::json!(["10.0.2.0/24"]));
    assert_eq!(finding["counter_example"]["destination"], "10.0.2.10");
    assert_eq!(finding["path"][0]["route"], "10.0.0.0/16 -> local");
    assert_eq!(finding["way_back"][0]["at"], "subnet:app-b");
}

/// A subnet that was left out because of what it holds may have machines that the file does not say.
#[test]
fn what_was_not_looked_at_is_told() {
    let path = folder().join("correct/transit-hub.toml");
    let report = build(&path).verify();
    let json = serde_json::to_value(&report).unwrap();
    let expected: Vec<_> = [
        ("tgw-a", "transit_gateway_attachment"),
        ("gwlbe-a", "endpoint"),
        ("public-a", "nat_gateway"),
        ("tgw-b", "transit_gateway_attachment"),
        ("gwlbe-b", "endpoint"),
        ("public-b", "nat_gateway"),
    ]
    .map(|(subnet, holds)| serde_json::json!({ "subnet": subnet, "holds": [holds] }))
    .into();
    assert_eq!(json["examined"]["not_places"], serde_json::json!(expected));
    let text = report.to_string();
    assert!(
        text.ends_with(
            "; not places, as far as the file says: tgw-a, tgw-b (attachments), gwlbe-a, gwlbe-b \
             (endpoints), public-a, public-b (NAT gateways))"
        ),
        "{text}"
    );
    // An address that is mapped is a machine's.
    let text = std::fs::read_to_string(&path).unwrap();
    let igw = "[[internet_gateway]]\nname = \"igw\"\n";
    assert!(text.contains(igw));
    let mapped =
        format!("{igw}addresses = [{{ public = \"198.51.100.9\", private = \"10.100.51.9\" }}]\n");
    let source = Source::new("mapped.toml", text.replace(igw, &mapped));
    let file = config::parse(&source).unwrap();
    let report = Topology::build(&file, &source).unwrap().verify();
    assert!(report.examined.not_places.iter().all(|it| it.subnet != "public-a"), "{report}");
}

#[test]
fn severities_say_whether_a_report_is_clean() {
    let clean = |name: &str| build(&folder().join(name)).verify();
    let info: Report = clean("unused-endpoint.toml");
    assert_eq!((info.is_clean(), info.count(Severity::Info)), (true, 1));
    let warning = clean("blackhole-left-over.toml");
    assert_eq!((warning.is_clean(), warning.count(Severity::Warning)), (false, 2));
    let source: IpAddr = "10.0.1.10".parse().unwrap();
    let of_kind: Vec<_> = warning.of(BlackholeInUse).collect();
    assert!(of_kind[0].concerns("subnet:app-a", source, "10.0.2.1".parse().unwrap()));
    assert!(!of_kind[0].concerns("subnet:app-a", source, "10.0.3.1".parse().unwrap()));
    assert!(!of_kind[0].concerns("subnet:app-b", source, "10.0.2.1".parse().unwrap()));
}

/// What takes time is counted, not timed: classes, ways and lookups grow with the network, and not
/// with the square of it.
#[test]
fn a_large_network_takes_few_lookups() {
    let topology = large::topology();
    let routes: usize = topology
        .tables()
        .filter(|(_, table)| !table.is_implicit())
        .map(|(_, table)| table.routes().filter(|it| it.origin == Origin::CreateRoute).count())
        .sum();
    assert_eq!((topology.subnets().len(), routes), (200, 1000));
    let report = topology.verify();
    assert_eq!(report.findings, []);
    let Examined { stretches, classes, ways, lookups, .. } = report.examined;
    assert!(classes <= 500, "{classes} classes of {stretches} stretches");
    assert!(ways <= 10 * classes, "{ways} ways of {classes} classes");
    assert!(lookups <= 5 * ways, "{lookups} lookups on {ways} ways");
}
