//! `tshark`, where it is installed, as a judge that shares no code with what it judges.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::capture::{self, Captured};
use crate::notice;

/// The environment variable that says, under `CI=true`, that `tshark` must be there.
pub const NEEDED: &str = "GWLB_NEED_TSHARK";

/// What `tshark` says of one packet: for each field the values, outer headers first.
pub type Fields = BTreeMap<String, Vec<String>>;

/// Whether `tshark` is there; a notice for people if it is not.
///
/// # Panics
/// If it is not and has to be: under `CI=true` with [`NEEDED`] set to 1.
pub fn is_there(test: &str) -> bool {
    let version = Command::new("tshark").arg("--version").stderr(Stdio::null()).output();
    if version.is_ok_and(|output| output.status.success()) {
        return true;
    }
    let is = |name, value| std::env::var_os(name).is_some_and(|found| found == value);
    assert!(!(is("CI", "true") && is(NEEDED, "1")), "{test} may not be skipped: no tshark");
    notice::skip(test, "tshark is not installed");
    false
}

/// Has `tshark` decode packets, with all checksums verified, and gives what it says of the named
/// fields of each; fields that a packet does not have are left out. Fragments are taken as they are:
/// those of two captures that have the same identification would be joined.
///
/// # Panics
/// If `tshark` fails or says nothing that makes sense.
pub fn decode(packets: &[Captured], fields: &[&str]) -> Vec<Fields> {
    // What goes to well-known ports is not what one would expect there.
    let disabled = ["dns", "find", "http", "idmp", "tls"];
    let disabled = disabled.iter().flat_map(|name| ["--disable-protocol", name]);
    run(packets, fields, disabled.chain(ALONE))
}

/// The same with each packet taken for itself, no fragment joined to another, and nothing read
/// but what this project reads too: for packets whose ports and fragments are noise.
///
/// # Panics
/// As [`decode`] does.
pub fn decode_each(packets: &[Captured], fields: &[&str]) -> Vec<Fields> {
    let enabled = [
        "ah",
        "data",
        "eth",
        "ethertype",
        "frame",
        "geneve",
        "icmp",
        "icmpv6",
        "ip",
        "ipv6",
        "ipv6.dstopts",
        "ipv6.fraghdr",
        "ipv6.hopopts",
        "ipv6.routing",
        "raw",
        "tcp",
        "udp",
        "vlan",
    ];
    let enabled = enabled.iter().flat_map(|name| ["--enable-protocol", name]);
    run(packets, fields, ["--disable-protocol", "ALL"].into_iter().chain(enabled).chain(ALONE))
}

/// No fragment is joined to another.
const ALONE: [&str; 4] = ["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"];

fn run<'a>(
    packets: &[Captured],
    fields: &[&str],
    arguments: impl Iterator<Item = &'a str>,
) -> Vec<Fields> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r", "-", "-T", "json"]);
    for protocol in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    // Sequence numbers are judged by nobody, and flows of different scenarios share ports.
    command.args(["-o", "tcp.analyze_sequence_numbers:FALSE"]);
    command.args(arguments);
    for field in fields {
        command.args(["-e", field]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut tshark = command.spawn().expect("tshark starts");
    let mut input = tshark.stdin.take().expect("a pipe to tshark");
    let bytes = capture::bytes(packets);
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = tshark.wait_with_output().expect("tshark ends");
    writer.join().expect("the writer ends").expect("tshark reads");
    assert!(output.status.success(), "tshark: {}", output.status);

    let decoded: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(decoded.len(), packets.len(), "tshark tells of every packet");
    decoded.iter().map(layers).collect()
}

fn layers(packet: &Value) -> Fields {
    let layers = packet.pointer("/_source/layers").and_then(Value::as_object);
    let values = |value: &Value| {
        let values = value.as_array().into_iter().flatten();
        values.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    layers.into_iter().flatten().map(|(name, value)| (name.clone(), values(value))).collect()
}
