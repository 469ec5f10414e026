//! Flows of a gateway that runs: asked for while they are there, and read in its flow logs afterwards.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use gwlb_tests::packets::Ip;
use gwlb_tests::world::raw::RawSender;
use gwlb_tests::world::traffic::{self, EchoServer};
use gwlb_tests::world::{Family, Plan};
use serde_json::Value;

use super::{FAMILIES, world};

/// Datagrams each way.
const DATAGRAMS: u64 = 20;
const PAYLOAD: &[u8] = b"how many are we?";

/// From, to, and what became of them: packets and bytes of all lines.
type Sums = BTreeMap<(String, String, String), (u64, u64)>;

/// Reads lines of version 2, by the places that the fields have in its public description.
fn sums(file: &Path) -> Sums {
    let mut sums = Sums::new();
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let fields: Vec<_> = line.split(' ').collect();
        assert_eq!(fields.len(), 14, "{line}");
        assert_eq!(fields[0], "2", "{line}");
        if fields[13] == "NODATA" {
            continue;
        }
        assert_eq!(fields[13], "OK", "{line}");
        let end = |address: usize, port: usize| format!("{} {}", fields[address], fields[port]);
        let key = (end(3, 5), end(4, 6), fields[12].to_owned());
        let number = |at: usize| fields[at].parse::<u64>().unwrap();
        assert!(number(10) <= number(11), "it ends before it begins: {line}");
        let (packets, bytes) = sums.entry(key).or_default();
        *packets += number(8);
        *bytes += number(9);
    }
    sums
}

#[test]
fn a_flow_is_shown_while_it_is_there_and_logged_when_it_was() {
    let plan = Plan { workers: 2, ..Plan::default() };
    let Some(world) = world("flow_logs", plan) else { return };
    let _nva = world.start_appliances();
    let files = [world.folder().join("all.log"), world.folder().join("rejected.log")];
    let [all, rejected] = files.each_ref().map(|file| file.to_str().unwrap());
    let logs = format!(
        r#"
[[flow_log]]
name = "all"
destination = "{all}"
max_aggregation_interval_seconds = 1
extended_ranges = true

[[flow_log]]
name = "rejected"
destination = "{rejected}"
traffic_type = "REJECT"
format = "${{srcaddr}} ${{dstaddr}} ${{packets}} ${{action}} ${{drop-reason}} ${{log-status}}"
"#
    );
    let mut gateway = world.start_gateway_with(&(world.configuration() + &logs));

    let mut expected = Sums::new();
    for family in FAMILIES {
        let server = EchoServer::start(&world.servers[0], family);
        let socket = traffic::datagrams(&world.client, server.address());
        for _ in 0..DATAGRAMS {
            traffic::exchange(&socket, PAYLOAD).unwrap();
        }
        let (own, there) = (socket.local_addr().unwrap(), server.address());
        let headers = if family == Family::V4 { 28 } else { 48 };
        let counted = (DATAGRAMS, DATAGRAMS * (headers + PAYLOAD.len() as u64));
        let end = |it: SocketAddr| format!("{} {}", it.ip(), it.port());
        for (from, to) in [(own, there), (there, own)] {
            expected.insert((end(from), end(to), "ACCEPT".to_owned()), counted);
        }

        // The same flow, by a name that a person would give it, in the other direction.
        let (name, admin) = (format!("{there}-{own}/udp"), world.admin_socket());
        let shown =
            world.run(&["gwlb", "flow", &name, "--socket", admin.to_str().unwrap(), "--json"]);
        assert_eq!(shown.code, Some(0), "{}", shown.log);
        let list: Value = serde_json::from_str(&shown.stdout).unwrap();
        let [flow] = &list["items"].as_array().unwrap()[..] else { panic!("one flow: {list:#}") };
        assert_eq!(flow["source"], own.ip().to_string(), "who began it comes first: {flow:#}");
        assert_eq!(flow["endpoint"], "vpce-a");
        let target = SocketAddr::new(world.plan.target(0), 6081).to_string();
        assert_eq!(flow["target"], target);
        assert_eq!(flow["candidates"][0]["target"], target, "{flow:#}");
        let sent: Vec<_> = flow.as_object().unwrap().iter().collect();
        let told = |name: &str| flow[name].as_u64().unwrap_or_else(|| panic!("{name}: {sent:#?}"));
        let (packets, bytes) = counted;
        assert_eq!((told("packets_to_destination"), told("packets_to_source")), (packets, packets));
        assert_eq!((told("bytes_to_destination"), told("bytes_to_source")), (bytes, bytes));
    }

    let client = world.client.address(Family::V4).to_string();
    let nowhere = Ip::new(&client, "10.0.77.7").udp((1, 2), b"nowhere");
    RawSender::new(&world.client).send(&vec![nowhere; 3]).unwrap();
    gateway.wait_until("they are dropped", |it| it.drops().get("no_subnet") == Some(&3));
    let dropped = (format!("{client} 1"), "10.0.77.7 2".to_owned(), "REJECT".to_owned());
    expected.insert(dropped, (3, 3 * 35));

    gateway.settled();
    // The last windows are told when it ends.
    gateway.stop();
    let written = sums(&files[0]);
    for (key, counted) in &expected {
        assert_eq!(written.get(key), Some(counted), "{key:?} of {written:#?}");
    }
    let text = std::fs::read_to_string(&files[1]).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.ends_with("NODATA")).collect();
    assert_eq!(lines, [format!("{client} 10.0.77.7 3 REJECT no_subnet OK")], "{text}");
}
