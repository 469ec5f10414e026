//! `gwlb explain` and `gwlb ping`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, TsResolution};
use rstest::rstest;
use serde_json::Value;

use crate::rig::{Gateway, at_terminal, command, text};

const SYN: [&str; 11] = [
    "explain",
    "--from",
    "internet_gateway:igw",
    "--source",
    "203.0.113.7",
    "--destination",
    "10.0.1.11",
    "--source-port",
    "4711",
    "--port",
    "443",
];

#[test]
fn the_way_of_a_packet_is_told() {
    let gateway = Gateway::start();
    let target = gateway.target.to_string();
    gateway.json(&["target", "register", "fw", &target, "--wait"]);
    let output = gateway.run(&SYN);
    // There are no devices here by which it could leave.
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["end"], "dropped: not_attached");
    let steps = told["steps"].as_array().unwrap();
    let step = |kind: &str| steps.iter().find(|step| step["step"] == kind).unwrap();
    let sent = step("encapsulated");
    assert!(sent["target"].as_str().unwrap().starts_with(&target), "{sent}");
    assert!(sent["source_port"].as_u64().unwrap() >= 61_000, "{sent}");
    assert!(step("dropped")["advice"].as_str().unwrap().contains("[[attachment]]"));

    let (code, shown) = at_terminal(command(&gateway.socket(), &SYN));
    assert_eq!(code, Some(1), "{shown}");
    for line in [
        " 1. enters at internet_gateway:igw",
        "table igw of internet_gateway:igw leads to endpoint:vpce-a",
        "begins a flow",
        "flow cookie",
        "is dropped: not_attached",
        "advice",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }

    // The same as bytes; and captured, as an Ethernet frame and as what an appliance returns.
    let bytes = sent["datagrams"][0]["bytes"].as_str().unwrap();
    let packet = &bytes[2 * 40..];
    let again = gateway.run(&["explain", "--from", "internet_gateway:igw", "--hex", packet]);
    assert_eq!(text(&again.stdout), text(&output.stdout));

    let digits = |text: &str| -> Vec<u8> {
        (0..text.len() / 2)
            .map(|at| u8::from_str_radix(&text[2 * at..][..2], 16).unwrap())
            .collect()
    };
    let capture = gateway.directory.path().join("it.pcap");
    let header = PcapHeader {
        datalink: DataLink::ETHERNET,
        ts_resolution: TsResolution::NanoSecond,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(fs::File::create(&capture).unwrap(), header).unwrap();
    let source = sent["source"].as_str().unwrap();
    let outer = etherparse::PacketBuilder::ipv4(
        target.parse::<std::net::Ipv4Addr>().unwrap().octets(),
        source.parse::<std::net::Ipv4Addr>().unwrap().octets(),
        64,
    )
    .udp(61_000, 6081);
    let mut returned = Vec::new();
    outer.write(&mut returned, &digits(bytes)).unwrap();
    for ip in [digits(packet), returned] {
        let frame = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], &ip[..]].concat();
        writer.write_packet(&PcapPacket::new(Duration::ZERO, frame.len() as u32, &frame)).unwrap();
    }
    let file = capture.to_str().unwrap();
    let from_file = gateway.run(&["explain", "--from", "internet_gateway:igw", "--pcap", file]);
    assert_eq!(text(&from_file.stdout), text(&output.stdout));
    let back = gateway.run(&["explain", "--pcap", file, "--packet", "2"]);
    let told: Value = serde_json::from_slice(&back.stdout).unwrap();
    assert_eq!(told["steps"][0]["step"], "returned", "{told:#}");
    assert_eq!(told["steps"][0]["supposed"], false);
    assert_eq!(told["end"], "dropped: not_attached", "its cookie is right");
}

#[rstest]
#[case::place(&["explain", "--from", "subnet:app-x", "--source", "10.0.1.1", "--destination", "10.0.1.2",
    "--source-port", "1", "--port", "2"], "did you mean \"app-a\"?")]
#[case::nothing(&["explain"], "destination is needed, or the bytes of the packet")]
#[case::no_place(&["explain", "--hex", "4500"], "from is needed")]
#[case::digits(&["explain", "--hex", "45x0"], "no hexadecimal digit")]
#[case::flags(&["explain", "--from", "subnet:app-a", "--source", "10.0.1.1", "--destination", "1.1.1.1",
    "--source-port", "1", "--port", "2", "--flags", "sin"], "\"sin\" is no TCP flag")]
#[case::ports(&["explain", "--from", "subnet:app-a", "--source", "10.0.1.1", "--destination", "1.1.1.1",
    "--protocol", "icmp", "--port", "2"], "protocol 1 has no ports")]
#[case::length(&["explain", "--from", "subnet:app-a", "--source", "10.0.1.1", "--destination", "1.1.1.1",
    "--protocol", "udp", "--source-port", "1", "--port", "2", "--length", "20"], "at least 28 bytes")]
#[case::families(&["explain", "--from", "subnet:app-a", "--source", "fd00::1", "--destination", "1.1.1.1",
    "--source-port", "1", "--port", "2"], "source")]
#[case::file(&["explain", "--from", "subnet:app-a", "--pcap", "/nonexistent"], "/nonexistent")]
#[case::both(&["explain", "--hex", "45", "--source", "1.1.1.1"], "cannot be used with")]
fn what_cannot_be_explained_is_said(#[case] arguments: &[&str], #[case] said: &str) {
    let gateway = Gateway::start();
    let output = gateway.run(arguments);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
}

#[test]
fn pings_that_nobody_returns_are_lost_and_what_is_wrong_is_said() {
    let gateway = Gateway::start();
    let lost =
        gateway.run(&["ping", "vpce-a", "--count", "2", "--interval", "10", "--timeout", "50"]);
    assert_eq!(lost.status.code(), Some(1), "{}", text(&lost.stderr));
    let shown = text(&lost.stdout);
    assert!(
        shown.contains("seq=2 lost") && shown.contains("2 packets sent, 0 returned"),
        "{shown}"
    );
    for (arguments, code, said) in [
        (&["ping", "vpce-x"][..], 2, "did you mean \"vpce-a\"?"),
        (&["ping", "vpce-a", "--target", "192.0.2.99"], 2, "has no target 192.0.2.99"),
        (&["ping", "vpce-a", "--timeout", "0"], 2, "1..=10000"),
        (&["ping"], 2, "ENDPOINT"),
    ] {
        let output = gateway.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
}

#[test]
fn pings_end_when_nobody_reads_on() {
    let gateway = Gateway::start();
    let ping = ["ping", "vpce-a", "--count", "300", "--interval", "10", "--timeout", "20"];
    let mut ping = command(&gateway.socket(), &ping);
    let mut ping = ping.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    // The pipe is closed after it.
    BufReader::new(ping.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("seq=1 "), "{first}");
    let output = ping.wait_with_output().unwrap();
    // All of them would be lost, which is 1.
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}
