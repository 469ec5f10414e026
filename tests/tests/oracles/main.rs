//! What we read in packets, judged by those who share no code with us: `tshark`, Scapy, and for
//! routes the kernel.
//!
//! Every field that we read of every packet is compared with what each judge reads, and so is every
//! field that a judge reads and we do not. Where both are installed, both are asked.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, and nothing else")]

mod packets;
mod reading;
mod routes;
mod scapy;
mod wireshark;

use std::fmt::Write as _;

use gwlb_tests::capture::Captured;
use gwlb_tests::{notice, tshark};
use reading::{Reading, differences, is_field, ours};

type Named = Vec<(String, Captured)>;

/// Where somebody reads otherwise than we do, and is not followed: the packet, the field, and why.
const TSHARK_ASTRAY: [(&str, &str, &str); 3] = [
    // An option of a length that RFC 791 does not give it (security, 2 in place of 11) makes
    // `tshark` give up the packet. No option is ours to act on: the appliance has to see it.
    (MALFORMED_OPTION, "outer.ports", ""),
    (MALFORMED_OPTION, "outer.tcp", ""),
    (MALFORMED_OPTION, "outer.upper_sum", ""),
];
const MALFORMED_OPTION: &str =
    "inner/suricata-firewall-tcp-session-decode-malformed-ipv4-input.pcap 8";

/// Packets of the captures that we refuse, so that there is nothing to compare behind that point.
const REFUSED: usize = 46;

#[test]
fn tshark_reads_generated_packets_as_we_do() {
    if tshark::is_there("tshark_reads_generated_packets_as_we_do") {
        let packets = numbered(packets::generated());
        compare("tshark", &packets, &wireshark::readings(&only(&packets)), |_, _, _| false);
    }
}

#[test]
fn tshark_reads_captured_packets_as_we_do() {
    if tshark::is_there("tshark_reads_captured_packets_as_we_do")
        && let Some(packets) = packets::captured()
    {
        let theirs = wireshark::readings(&only(&packets));
        let astray = |name: &str, difference: &str, theirs: &Reading| {
            TSHARK_ASTRAY.iter().any(|(packet, field, reads)| {
                let read = theirs.get(*field).map_or("", String::as_str);
                name == *packet && difference.starts_with(&format!("{field}:")) && read == *reads
            })
        };
        assert_eq!(compare("tshark", &packets, &theirs, astray), REFUSED);
    }
}

#[test]
fn tshark_reads_every_field_of_what_scenarios_expect_as_we_do() {
    if tshark::is_there("tshark_reads_every_field_of_what_scenarios_expect_as_we_do") {
        let packets = packets::expected();
        let theirs = wireshark::readings(&only(&packets));
        assert_eq!(compare("tshark", &packets, &theirs, |_, _, _| false), 0);
    }
}

#[test]
fn scapy_reads_generated_packets_as_we_do() {
    if scapy::is_there("scapy_reads_generated_packets_as_we_do") {
        let packets = numbered(packets::generated());
        compare("Scapy", &packets, &scapy::readings(&only(&packets)), scapy_sees_no_cut_header);
    }
}

#[test]
fn scapy_reads_captured_packets_as_we_do() {
    if scapy::is_there("scapy_reads_captured_packets_as_we_do")
        && let Some(packets) = packets::captured()
    {
        let theirs = scapy::readings(&only(&packets));
        assert_eq!(compare("Scapy", &packets, &theirs, scapy_sees_no_cut_header), REFUSED);
    }
}

#[test]
fn scapy_reads_what_scenarios_expect_as_we_do() {
    if scapy::is_there("scapy_reads_what_scenarios_expect_as_we_do") {
        let packets = packets::expected();
        let theirs = scapy::readings(&only(&packets));
        assert_eq!(compare("Scapy", &packets, &theirs, |_, _, _| false), 0);
    }
}

/// The comparison sees each field: with one byte of one header changed on one side only, what is
/// different is named.
#[test]
fn a_difference_in_any_header_is_named() {
    let packets = packets::expected();
    let (_, good) =
        packets.iter().find(|(name, _)| name.starts_with("tcp-ipv4/expected/to-")).unwrap();
    // Of the outer IPv4 header, the UDP ports, the VNI, the class, type and data of options, the
    // inner IPv4 header, the inner TCP header.
    let places = [
        (8, "outer.ttl"),
        (21, "outer.ports"),
        (33, "geneve.vni"),
        (37, "geneve.option 0"),
        (50, "geneve.option 1"),
        (64, "geneve.option 2"),
        (76, "inner.ttl"),
        (84, "inner.dst"),
        (89, "inner.ports"),
        (101, "inner.tcp"),
        (104, "inner.upper_sum"),
    ];
    for (at, field) in places {
        let mut changed = good.packet.clone();
        changed[at] ^= 1;
        let found = differences(&ours(&good.packet), &ours(&changed));
        let named = found.iter().any(|difference| difference.starts_with(&format!("{field}:")));
        assert!(named, "byte {at}, {field}: {found:?}");
    }
}

/// Scapy leaves a TCP or UDP header alone that the packet ends in, as that of a first fragment or
/// of a quote may; RFC 792 has the ports in the eight bytes that are quoted at the least.
fn scapy_sees_no_cut_header(_: &str, difference: &str, theirs: &Reading) -> bool {
    let which = difference.split('.').next().unwrap_or_default();
    let is = |field: &str| difference.starts_with(&format!("{which}.{field}:"));
    let of = |field: &str| theirs.get(&format!("{which}.{field}")).map_or("", String::as_str);
    is("ports") && of("ports").is_empty() && of("fragment").ends_with(" at 0")
        || is("about") && of("about").ends_with(" 0 0")
}

fn numbered(packets: Vec<Captured>) -> Named {
    let named = |(number, packet)| (format!("generated packet {number}"), packet);
    packets.into_iter().enumerate().map(named).collect()
}

fn only(packets: &Named) -> Vec<Captured> {
    packets.iter().map(|(_, packet)| packet.clone()).collect()
}

/// Compares all fields; `excused` says which differences are known. Returns how many packets were
/// refused by us.
fn compare(
    judge: &str,
    packets: &Named,
    theirs: &[Reading],
    excused: impl Fn(&str, &str, &Reading) -> bool,
) -> usize {
    let (mut text, mut fields, mut refused, mut known) = (String::new(), 0, 0, 0);
    for ((name, packet), theirs) in packets.iter().zip(theirs) {
        let ours = ours(&packet.packet);
        refused += usize::from(ours.contains_key("refused"));
        fields += ours.keys().filter(|field| is_field(field)).count();
        let mut found = differences(&ours, theirs);
        found.retain(|difference| {
            let excused = excused(name, difference, theirs);
            known += usize::from(excused);
            !excused
        });
        if !found.is_empty() {
            let bytes = reading::hexadecimal(&packet.packet);
            writeln!(text, "{name}: {bytes}\n    {}", found.join("\n    ")).unwrap();
        }
    }
    assert!(text.is_empty(), "{judge} reads otherwise:\n{text}");
    notice::say(&format!(
        "{judge}: agrees on {fields} fields of {} packets, {refused} of them refused by us; {known} \
         known differences\n",
        packets.len(),
    ));
    refused
}
