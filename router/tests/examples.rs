//! The canonical designs under `examples/`: each is accepted, and the ways of their packets are as
//! they are written beside them.
//!
//! `INSTA_UPDATE=always cargo test -p router --test examples` rewrites the ways; read the diff.
#![expect(clippy::unwrap_used, clippy::panic, reason = "in the helpers of tests, as in tests")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use router::source::{Look, Source};
use router::trace::{ByZone, Inspection, Packet, Picture};
use router::{Entry, Fixed, Topology, Trace, config};
use rstest::rstest;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn topology(name: &str) -> Topology {
    let path = folder().join(name).with_extension("toml");
    let source = Source::new(format!("{name}.toml"), std::fs::read_to_string(path).unwrap());
    config::parse(&source)
        .and_then(|file| Topology::build(&file, &source))
        .unwrap_or_else(|problems| panic!("{}", problems.render(Look::Plain)))
}

/// Each packet's way, and its answer's.
fn ways(topology: &Topology, packets: &[(&str, &str)], inspection: &impl Inspection) -> String {
    let mut text = String::new();
    for (from, to) in packets {
        let trace = answered(topology, from, to, inspection);
        writeln!(text, "{trace}\n").unwrap();
    }
    text
}

fn answered(topology: &Topology, from: &str, to: &str, inspection: &impl Inspection) -> Trace {
    let (from, to) = (topology.entry(from).unwrap(), to.parse().unwrap());
    let source = topology.likely_source(from, to);
    let packet = Packet { source, ..Packet::to(to) };
    let mut trace = topology.trace_packet(from, &packet, inspection);
    trace.back = topology.trace_answer(&trace, inspection).map(Box::new);
    trace
}

/// Where packets enter, where they go, and whether an appliance sees them and their answers.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

const CASES: [Case; 6] = [
    (
        "single-zone",
        &[
            ("internet_gateway:igw", "198.51.100.11"),
            ("subnet:app-a", "203.0.113.7"),
            ("subnet:app-a", "2001:db8::7"),
        ],
    ),
    (
        "multi-zone",
        &[
            ("internet_gateway:igw", "198.51.100.12"),
            ("internet_gateway:igw", "fd00:10:0:3::9"),
            ("subnet:app-c", "203.0.113.7"),
        ],
    ),
    ("nat-gateway", &[("subnet:app-a", "203.0.113.7"), ("subnet:app-b", "203.0.113.7")]),
    ("transit-hub", &[("subnet:app-b", "10.2.1.9"), ("subnet:db-a", "203.0.113.7")]),
    (
        "route-target-group",
        &[("internet_gateway:ipv4gw", "198.51.100.11"), ("subnet:app-b", "203.0.113.7")],
    ),
    (
        "east-west",
        &[
            ("subnet:web", "10.0.2.9"),
            ("subnet:db", "192.168.1.1"),
            ("virtual_private_gateway:vgw", "10.0.1.9"),
        ],
    ),
];

#[test]
fn every_example_has_its_ways() {
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    files.dedup();
    let mut cases: Vec<_> = CASES.iter().map(|(name, _)| (*name).to_owned()).collect();
    cases.sort();
    assert_eq!(files, cases);
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples");
    insta::with_settings!({ snapshot_path => snapshots, prepend_module_to_snapshot => false, omit_expression => true }, {
        for (name, packets) in CASES {
            insta::assert_snapshot!(name, ways(&topology(name), packets, &Fixed::default()));
        }
    });
}

#[rstest]
#[case("az1")]
#[case("az2")]
fn both_directions_pass_the_same_endpoints_in_every_zone(#[case] zone: &str) {
    for (name, packets) in CASES {
        let topology = topology(name);
        for (from, to) in packets {
            let trace =
                answered(&topology, from, to, &ByZone { topology: &topology, zone: Some(zone) });
            assert!(trace.delivered, "{name}: {trace}");
            assert!(!trace.endpoints.is_empty(), "{name}: {trace}");
            let back = trace.back.as_deref().unwrap();
            assert!(back.delivered, "{name}: {trace}");
            assert_eq!(back.end, trace.from, "{name}: {trace}");
            let mut returned = back.endpoints.clone();
            returned.reverse();
            assert_eq!(returned, trace.endpoints, "{name}: {trace}");
        }
    }
}

#[test]
fn appliance_mode_and_groups_take_the_zone_that_is_asked_for() {
    for (name, from, to) in [
        ("transit-hub", "subnet:app-b", "10.2.1.9"),
        ("route-target-group", "subnet:app-b", "203.0.113.7"),
    ] {
        let topology = topology(name);
        for (zone, endpoint) in [("az1", "vpce-a"), ("az2", "vpce-b")] {
            let trace =
                answered(&topology, from, to, &ByZone { topology: &topology, zone: Some(zone) });
            assert_eq!(trace.endpoints, [topology.endpoint_by_name(endpoint).unwrap()]);
        }
    }
}

#[test]
fn pictures_have_every_place_and_every_lookup() {
    for (name, packets) in CASES {
        let topology = topology(name);
        for (from, to) in packets {
            let trace = answered(&topology, from, to, &Fixed::default());
            let picture = Picture::of(&trace);
            let (dot, svg) = (picture.to_dot(), picture.to_svg().unwrap());
            let back = trace.back.as_deref().unwrap();
            assert_eq!(dot.matches(" -> ").count(), trace.hops.len() + back.hops.len(), "{dot}");
            for place in [&trace.from, &trace.end] {
                assert!(dot.contains(place.as_str()) && svg.contains(place.as_str()), "{dot}");
            }
            assert_eq!(dot.matches("color=\"blue\"").count(), back.hops.len());
            assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"));
        }
    }
}

#[test]
fn a_way_that_ends_in_nothing_is_drawn_in_red() {
    let topology = topology("nat-gateway");
    let from: Entry = topology.entry("endpoint:vpce-a").unwrap();
    let trace = topology.trace(from, "2001:db8::1".parse().unwrap());
    assert!(!trace.delivered);
    assert!(Picture::of(&trace).to_dot().contains("color=\"red\""));
}
