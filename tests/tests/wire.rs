//! What scenarios put on the wire, judged by `tshark`: it has to read the same as we do, find
//! nothing malformed, and find every checksum good.
#![expect(clippy::unwrap_used, reason = "helpers of tests, and nothing else")]

use std::fmt::Write as _;
use std::path::Path;

use geneve::{Dialect, Header, Inner, PORT, outer};
use gwlb_tests::capture::{self, Captured};
use gwlb_tests::describe::describe;
use gwlb_tests::tshark::{self, Fields};
use gwlb_tests::{notice, scenario};

/// What is asked of `tshark`.
const FIELDS: [&str; 22] = [
    "ip.checksum.status",
    "udp.checksum.status",
    "tcp.checksum.status",
    "icmp.checksum.status",
    "icmpv6.checksum.status",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "ip.ttl",
    "udp.srcport",
    "udp.dstport",
    "geneve.version",
    "geneve.flags.oam",
    "geneve.flags.critical",
    "geneve.proto_type",
    "geneve.vni",
    "geneve.reserved",
    "geneve.options",
    "geneve.option.class",
    "frame.protocols",
    "_ws.expert.severity",
];

/// `tshark`'s word for a checksum that it has verified.
const GOOD: &str = "1";
/// And for one that is wrong.
const BAD: &str = "0";
/// What `tshark` calls an error (`PI_ERROR` of epan/proto.h).
const ERROR: u32 = 0x0080_0000;

/// What is wrong with a packet in `tshark`'s eyes, or differs from what we read in it.
fn complaints(packet: &[u8], said: &Fields) -> Vec<String> {
    let values = |field: &str| said.get(field).map_or(&[][..], Vec::as_slice);
    let mut complaints = Vec::new();
    let mut demand = |holds: bool, what: String| {
        if !holds {
            complaints.push(what);
        }
    };
    let protocols = values("frame.protocols").concat();
    // An ICMP error quotes only the start of a segment, over which no checksum can be right.
    let quotes_tcp = protocols.contains(":icmp") && protocols.contains(":tcp");
    for field in FIELDS.iter().filter(|field| field.ends_with("checksum.status")) {
        let quoted = quotes_tcp && field.starts_with("tcp");
        let statuses = if quoted { &[] } else { values(field) };
        demand(statuses.iter().all(|status| status != BAD), format!("{field} is {statuses:?}"));
    }
    demand(!protocols.contains("malformed"), format!("malformed: {protocols}"));
    let severities = values("_ws.expert.severity").iter();
    let worst = severities.filter_map(|severity| severity.parse().ok()).max().unwrap_or(0);
    demand(worst < ERROR || quotes_tcp, format!("an error: severity {worst:#x}"));

    let Ok((outer, payload)) = outer::parse(packet) else { return complaints };
    if outer.dst.port() != PORT {
        return complaints;
    }
    let (header, payload) = Header::parse(&packet[payload]).unwrap();
    let inner = Inner::parse(payload).unwrap();
    let first = |field: &str| values(field).first().map_or("", String::as_str);
    let mut same = |field: &str, ours: String| {
        let theirs = first(field);
        demand(theirs == ours, format!("{field}: tshark reads {theirs:?}, we read {ours:?}"));
    };
    let (src, dst, ip_checksum) = if outer.src.is_ipv4() {
        ("ip.src", "ip.dst", Some("ip.checksum.status"))
    } else {
        ("ipv6.src", "ipv6.dst", None)
    };
    same(src, outer.src.ip().to_string());
    same(dst, outer.dst.ip().to_string());
    same("udp.srcport", outer.src.port().to_string());
    same("udp.dstport", PORT.to_string());
    if let Some(field) = ip_checksum {
        same(field, GOOD.to_owned());
    }
    same("udp.checksum.status", GOOD.to_owned());
    same("geneve.version", "0".to_owned());
    same("geneve.flags.oam", "0".to_owned());
    same("geneve.flags.critical", "0".to_owned());
    same("geneve.vni", "0x000000".to_owned());
    same("geneve.reserved", "0x00".to_owned());
    let ether_type = match inner.version {
        geneve::IpVersion::V4 => "0x0800",
        geneve::IpVersion::V6 => "0x86dd",
    };
    same("geneve.proto_type", ether_type.to_owned());
    let digits: Vec<_> =
        header.options().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    same("geneve.options", digits.concat());
    let dialect = Dialect::ALL.iter().find(|dialect| dialect.read(&header).is_ok()).unwrap();
    let class = format!("{:#06x}", dialect.class().get());
    let classes = values("geneve.option.class");
    demand(classes == [&class[..]; 3], format!("option classes {classes:?}"));
    complaints
}

/// What all scenarios send and deliver.
fn outputs() -> Vec<Captured> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut packets = Vec::new();
    for scenario in scenario::folders(&folder).unwrap() {
        let mut captures: Vec<_> = std::fs::read_dir(scenario.join("expected"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "pcap"))
            .collect();
        captures.sort();
        packets.extend(captures.iter().flat_map(|path| capture::read(path).unwrap()));
    }
    packets
}

#[test]
fn tshark_reads_what_we_send_as_we_meant_it() {
    if !tshark::is_there("tshark_reads_what_we_send_as_we_meant_it") {
        return;
    }
    let packets = outputs();
    let mut wrong = String::new();
    for (Captured { packet, .. }, said) in packets.iter().zip(tshark::decode(&packets, &FIELDS)) {
        let complaints = complaints(packet, &said).join("; ");
        if !complaints.is_empty() {
            writeln!(wrong, "{}\n    {complaints}", describe(packet)).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    notice::say(&format!("tshark: agrees on {} packets\n", packets.len()));
}

/// The judge sees what is wrong, or its silence would mean nothing.
#[test]
fn tshark_finds_what_is_wrong() {
    if !tshark::is_there("tshark_finds_what_is_wrong") {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/tcp-ipv4/expected");
    let good = capture::read(&folder.join("to-fw2.pcap")).unwrap().remove(0);
    let changed = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad.packet[at] = value;
        bad
    };
    // Of the outer IPv4 header, the UDP checksum, the VNI, the class of the second option, the
    // inner IPv4 header, the inner TCP checksum.
    let bad = [10, 26, 32, 49, 78, 104].map(|at| changed(at, 0xa5));
    let packets = [vec![good.clone()], bad.to_vec()].concat();
    let said = tshark::decode(&packets, &FIELDS);
    assert_eq!(complaints(&good.packet, &said[0]), [""; 0]);
    // What we would have meant is the good packet: it is compared with what tshark says of the bad.
    let judged: Vec<_> = said[1..].iter().map(|said| complaints(&good.packet, said)).collect();
    for (complaints, expected) in judged.iter().zip([
        "ip.checksum.status",
        "udp.checksum.status",
        "geneve.vni",
        "option classes",
        "ip.checksum.status",
        "tcp.checksum.status",
    ]) {
        let found = complaints.iter().any(|complaint| complaint.starts_with(expected));
        assert!(found, "{expected}: {complaints:?}");
    }
}
