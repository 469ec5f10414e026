//! What was found against what is expected, told so that one sees what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use geneve::{Fragment, Header, Inner, IpVersion, Transport, outer};
use gwlb::dataplane::stats::FlowTableTotals;
use serde_json::{Map, Value};

use super::{BLESS, Outcome, ScenarioError};
use crate::capture::{self, Captured};
use crate::describe::describe;

/// In what an outcome differs from what is expected of the scenario in `folder`.
///
/// # Errors
/// [`ScenarioError`] if an expectation cannot be read.
pub fn differences(folder: &Path, found: &Outcome) -> Result<Vec<String>, ScenarioError> {
    let expected = folder.join("expected");
    let failed = |error| ScenarioError::Io(expected.clone(), error);
    let files = found.files();
    let mut names: BTreeSet<String> = files.keys().cloned().collect();
    if expected.is_dir() {
        for entry in fs::read_dir(&expected).map_err(failed)? {
            names.insert(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        }
    }
    let mut problems = Vec::new();
    for name in names {
        let path = expected.join(&name);
        let (stem, kind) = name.rsplit_once('.').unwrap_or((&name, ""));
        let stream = found.streams.get(stem).map_or(&[][..], Vec::as_slice);
        let different = match (files.get(&name), path.is_file(), kind) {
            (Some(_), false, "pcap") => vec![format!("{} packets are unexpected", stream.len())],
            (Some(_), false, _) => vec!["is missing".to_owned()],
            (_, true, "pcap") => packets(&capture::read(&path)?, stream),
            (Some(is), true, _) => {
                let should = fs::read(&path).map_err(failed)?;
                if kind == "json" { json(&should, is) } else { lines(&should, is) }
            }
            (None, ..) => vec!["is no expectation of anything".to_owned()],
        };
        problems.extend(different.into_iter().map(|what| format!("expected/{name}: {what}")));
    }
    if !problems.is_empty() {
        let hint = "makes what was found what is expected; read the diff then";
        problems.push(format!("{BLESS}=1 {hint}"));
    }
    Ok(problems)
}

/// In what two outcomes differ that they must not, where they come from gateways with different
/// workers: which source port a flow has and how its packets were batched may change, and so may
/// the order between flows; with `limits_per_worker` also what was counted of flows.
pub fn differences_between_workers(
    one: &Outcome,
    other: &Outcome,
    limits_per_worker: bool,
) -> Vec<String> {
    let mut problems = Vec::new();
    let (ones, others) = (flows(one), flows(other));
    let names: BTreeSet<_> = ones.keys().chain(others.keys()).collect();
    for name in names {
        let packets = packets(
            ones.get(name).map_or(&[][..], Vec::as_slice),
            others.get(name).map_or(&[][..], Vec::as_slice),
        );
        let (stream, flow) = name;
        problems.extend(packets.into_iter().map(|what| format!("{stream}, {flow}: {what}")));
    }
    let counters = values(&counted(one, limits_per_worker), &counted(other, limits_per_worker));
    problems.extend(counters.into_iter().map(|what| format!("counters: {what}")));
    let events = |outcome: &Outcome| {
        let lines = outcome.events.iter();
        let lines = lines.map(|(time, event)| format!("{} ms: {event}\n", time.as_millis()));
        lines.collect::<String>()
    };
    let events = lines(events(one).as_bytes(), events(other).as_bytes());
    problems.extend(events.into_iter().map(|what| format!("events: {what}")));
    problems
}

/// The packets of each flow in each stream, without the outer source port.
fn flows(outcome: &Outcome) -> BTreeMap<(String, String), Vec<Captured>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    for (stream, packets) in &outcome.streams {
        for Captured { time, packet } in packets {
            let mut packet = packet.clone();
            let inner = without_source_port(&mut packet);
            let flow = match Inner::parse(&packet[inner..]) {
                Ok(inner) => flow_name(&inner),
                Err(error) => error.to_string(),
            };
            let captured = Captured { time: *time, packet };
            flows.entry((stream.clone(), flow)).or_default().push(captured);
        }
    }
    flows
}

/// What keeps its order: fragments belong to a flow that their own key does not tell, and so do
/// ICMP errors.
fn flow_name(inner: &Inner) -> String {
    match (inner.transport, inner.fragment) {
        (Transport::IcmpError { about, .. }, _) => format!("ICMP about {about}"),
        (_, Fragment::First { id } | Fragment::Later { id, .. }) => {
            format!("{} fragment {id}", inner.flow_key())
        }
        (_, Fragment::Whole) => inner.flow_key().to_string(),
    }
}

/// Overwrites the outer source port and the checksum over it; says where the inner packet starts.
fn without_source_port(packet: &mut [u8]) -> usize {
    let Ok((_, payload)) = outer::parse(packet) else { return 0 };
    let Ok((header, _)) = Header::parse(&packet[payload.clone()]) else { return 0 };
    let inner = payload.start + header.len();
    let udp = payload.start - outer::UDP_LEN;
    debug_assert!(udp >= IpVersion::V4.header_len(), "behind an IP header");
    packet[udp..udp + 2].fill(0);
    packet[udp + 6..udp + 8].fill(0);
    inner
}

/// The counters that do not depend on workers.
fn counted(outcome: &Outcome, limits_per_worker: bool) -> Value {
    let mut counters = outcome.counters.clone();
    (counters.sends, counters.writes) = (0, 0);
    for ledger in [&mut counters.tun, &mut counters.udp] {
        (ledger.flow.handed_over, ledger.flow.taken_over) = (0, 0);
    }
    if limits_per_worker {
        counters.flows = FlowTableTotals::default();
        for appliance in counters.appliances.values_mut() {
            (appliance.new_flows, appliance.ended_flows) = (0, 0);
        }
    }
    counters.to_json()
}

fn packets(expected: &[Captured], found: &[Captured]) -> Vec<String> {
    let mut problems = Vec::new();
    if expected.len() != found.len() {
        problems.push(format!("{} packets expected, {} found", expected.len(), found.len()));
    }
    let mut pairs = expected.iter().zip(found).enumerate();
    if let Some((index, (expected, found))) = pairs.find(|(_, (one, other))| one != other) {
        let what = match first_difference(&expected.packet, &found.packet) {
            Some(what) => what,
            None => "differs in its time".to_owned(),
        };
        problems.push(format!(
            "packet {} {what}\n    expected {}\n    found    {}",
            index + 1,
            line(expected),
            line(found),
        ));
    } else if let Some(first) = found.get(expected.len()) {
        problems.push(format!("the first unexpected is {}", line(first)));
    } else if let Some(first) = expected.get(found.len()) {
        problems.push(format!("the first missing is {}", line(first)));
    }
    problems
}

fn first_difference(expected: &[u8], found: &[u8]) -> Option<String> {
    let byte = |byte: Option<&u8>| byte.map_or("none".to_owned(), |byte| format!("{byte:02x}"));
    let longer = expected.len().max(found.len());
    let at = (0..longer).find(|&at| expected.get(at) != found.get(at))?;
    let (expected, found) = (byte(expected.get(at)), byte(found.get(at)));
    Some(format!("differs from byte {at} on, expected {expected}, found {found}"))
}

fn line(captured: &Captured) -> String {
    format!("{} ms  {}", captured.time.as_millis(), describe(&captured.packet))
}

fn json(expected: &[u8], found: &[u8]) -> Vec<String> {
    match (serde_json::from_slice(expected), serde_json::from_slice(found)) {
        (Ok(expected), Ok(found)) => values(&expected, &found),
        (Err(error), _) | (_, Err(error)) => vec![format!("is no JSON: {error}")],
    }
}

/// The paths at which two JSON values differ, and how.
fn values(expected: &Value, found: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    compare_values("", expected, found, &mut problems);
    problems
}

fn compare_values(path: &str, expected: &Value, found: &Value, problems: &mut Vec<String>) {
    if let (Value::Object(expected), Value::Object(found)) = (expected, found) {
        let keys: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let member = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or_default();
            compare_values(&path, &member(expected), &member(found), problems);
        }
    } else if expected != found {
        let text = |value: &Value| match value {
            Value::Null => "nothing".to_owned(),
            value => value.to_string(),
        };
        problems.push(format!("{path}: expected {}, found {}", text(expected), text(found)));
    }
}

fn lines(expected: &[u8], found: &[u8]) -> Vec<String> {
    let (expected, found) = (String::from_utf8_lossy(expected), String::from_utf8_lossy(found));
    let (mut expected, mut found) = (expected.lines(), found.lines());
    for number in 1.. {
        match (expected.next(), found.next()) {
            (None, None) => break,
            (one, other) if one == other => {}
            (one, other) => {
                let text = |line: Option<&str>| line.unwrap_or("the end").trim().to_owned();
                return vec![format!(
                    "line {number} differs\n    expected {}\n    found    {}",
                    text(one),
                    text(other),
                )];
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::packets::Ip;

    fn captured(millis: u64, payload: &[u8]) -> Captured {
        let packet = Ip::new("192.0.2.1", "192.0.2.2").udp((1, 2), payload);
        Captured { time: Duration::from_millis(millis), packet }
    }

    #[test]
    fn the_first_different_packet_and_byte_are_told() {
        let expected = [captured(1, b"aa"), captured(2, b"bb")];
        assert_eq!(packets(&expected, &expected), [""; 0]);
        let found = [captured(1, b"aa"), captured(2, b"bc")];
        let told = packets(&expected, &found).concat();
        assert!(told.starts_with("packet 2 differs from byte 27 on"), "{told}");
        assert!(told.contains("2 ms  192.0.2.1:1 > 192.0.2.2:2 UDP, 30 bytes"), "{told}");
        let told = packets(&expected, &[captured(1, b"aa"), captured(3, b"bb")]).concat();
        assert!(told.starts_with("packet 2 differs in its time"), "{told}");
    }

    #[test]
    fn missing_and_unexpected_packets_are_told() {
        let both = [captured(1, b"aa"), captured(2, b"bb")];
        let told = packets(&both, &both[..1]).join("; ");
        assert!(
            told.starts_with("2 packets expected, 1 found; the first missing is 2 ms"),
            "{told}"
        );
        let told = packets(&both[..1], &both).join("; ");
        assert!(told.contains("the first unexpected is 2 ms"), "{told}");
    }

    #[test]
    fn counters_are_told_by_their_path() {
        let expected =
            json!({ "udp": { "received": 2, "drops": { "bad_cookie": 1 } }, "sends": 1 });
        let found = json!({ "udp": { "received": 2, "drops": {} }, "sends": 2 });
        assert_eq!(
            values(&expected, &found),
            ["sends: expected 1, found 2", "udp.drops.bad_cookie: expected 1, found nothing"]
        );
        assert_eq!(values(&found, &found), [""; 0]);
    }

    #[test]
    fn the_first_different_line_is_told() {
        assert_eq!(lines(b"a\nb\n", b"a\nb\n"), [""; 0]);
        let told = lines(b"a\nb\n", b"a\n").concat();
        assert_eq!(told, "line 2 differs\n    expected b\n    found    the end");
    }
}
