//! Lines are read with a reader of their own, made from AWS's public description of the fields and
//! not from the writer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use geneve::inner::TcpFlags;
use proptest::prelude::*;

use super::*;
use crate::config::{LogDestination, LogFormat, Name};
use crate::dataplane::verdict::WorkerId;
use crate::runtime::shared::tests::idle;

/// What the description says of the fields of version 2, in their order.
const VERSION_2: [&str; 14] = [
    "version",
    "account-id",
    "interface-id",
    "srcaddr",
    "dstaddr",
    "srcport",
    "dstport",
    "protocol",
    "packets",
    "bytes",
    "start",
    "end",
    "action",
    "log-status",
];

/// Everything that versions 2 to 5 have, and ours.
const CUSTOM: &str = "${version} ${vpc-id} ${subnet-id} ${instance-id} ${interface-id} \
    ${account-id} ${type} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${pkt-srcaddr} \
    ${pkt-dstaddr} ${protocol} ${bytes} ${packets} ${start} ${end} ${action} ${tcp-flags} \
    ${log-status} ${region} ${az-id} ${sublocation-type} ${sublocation-id} \
    ${pkt-src-aws-service} ${pkt-dst-aws-service} ${flow-direction} ${traffic-path} ${endpoint} \
    ${load-balancer} ${zone} ${target} ${cookie} ${drop-reason}";

/// A record as whoever reads a flow log has it; a field that does not apply is absent.
#[derive(Debug, Default)]
struct Record(BTreeMap<String, String>);

impl Record {
    /// Reads a line whose fields have these names, and holds each to what its description says.
    fn read(line: &str, names: &[&str]) -> Self {
        let values: Vec<_> = line.split(' ').collect();
        assert_eq!(values.len(), names.len(), "{line}");
        let fields = names.iter().zip(values).filter(|(_, value)| *value != "-");
        let record =
            Self(fields.map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect());
        for (name, value) in &record.0 {
            let number = || value.parse::<u64>();
            let right = match name.as_str() {
                "version" => ["2", "3", "4", "5"].contains(&value.as_str()),
                "srcaddr" | "dstaddr" | "pkt-srcaddr" | "pkt-dstaddr" => {
                    value.parse::<IpAddr>().is_ok()
                }
                "srcport" | "dstport" => value.parse::<u16>().is_ok(),
                "protocol" | "tcp-flags" => value.parse::<u8>().is_ok(),
                "packets" | "bytes" => number().is_ok_and(|number| number > 0),
                "start" | "end" => number().is_ok(),
                "action" => ["ACCEPT", "REJECT"].contains(&value.as_str()),
                "log-status" => ["OK", "NODATA", "SKIPDATA"].contains(&value.as_str()),
                "type" => ["IPv4", "IPv6", "EFA"].contains(&value.as_str()),
                "flow-direction" => ["ingress", "egress"].contains(&value.as_str()),
                _ => !value.is_empty(),
            };
            assert!(right, "{name} is {value:?} in {line}");
        }
        record
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> u64 {
        self.get(name).unwrap().parse().unwrap()
    }
}

/// Two logs and what workers would tell them.
struct Rig {
    logs: Logs,
    counters: Vec<LogCounters>,
    view: Arc<Snapshot>,
    start: Instant,
    clock: WallClock,
    directory: tempfile::TempDir,
}

const INTERVAL: Duration = Duration::from_mins(1);
/// When the first windows begin.
const EPOCH: u64 = 1_700_000_000;

impl Rig {
    fn new(workers: usize, logs: &[(LogResource, TrafficType, &str, Duration)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let view = Arc::clone(&idle().exchange.published.load_full().snapshot);
        let start = clock::now();
        let settings: Vec<_> = logs
            .iter()
            .enumerate()
            .map(|(number, (resource, traffic_type, format, interval))| FlowLogSettings {
                name: Name::new(&format!("log-{number}")).unwrap(),
                resource: resource.clone(),
                traffic_type: *traffic_type,
                format: if format.is_empty() {
                    LogFormat::default()
                } else {
                    format.parse().unwrap()
                },
                interval: *interval,
                destination: LogDestination::File {
                    path: path(directory.path(), number),
                    max_bytes: 1 << 30,
                    files: 1,
                },
            })
            .collect();
        Self {
            logs: Logs::new(&settings, workers, start),
            counters: logs.iter().map(|_| LogCounters::default()).collect(),
            view,
            start,
            clock: WallClock::new(start, Duration::from_secs(EPOCH)),
            directory,
        }
    }

    fn tell(&mut self, entry: LogEntry) {
        self.logs.look(&self.view);
        self.logs.handle(&entry, &self.view, self.clock, &self.counters);
    }

    fn close(&mut self, worker: u16, seconds: u64, lost: u64) {
        let end = self.start + Duration::from_secs(seconds);
        self.tell(LogEntry::Closed { worker: WorkerId(worker), end, lost });
    }

    /// Some traffic through the first endpoint, seen from so many seconds on for ten.
    fn traffic(&self, from: &str, to: &str, protocol: u8, seconds: u64) -> LoggedTraffic {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let first = self.start + Duration::from_secs(seconds);
        LoggedTraffic {
            endpoint: Some(self.view.endpoints[0].wire_id),
            key: FlowKey::new(address(from), address(to), protocol).unwrap(),
            inspector: Some(Inspected::Target(self.view.targets[0].address)),
            cookie: Some(0x1234_abcd),
            packets: 3,
            bytes: 300,
            first,
            last: first + Duration::from_secs(10),
            flags: TcpFlags::SYN | TcpFlags::ACK,
            rejected: None,
        }
    }

    /// What a log has now.
    fn read(&mut self, number: usize, names: &[&str]) -> Vec<Record> {
        self.logs.flush(self.start, &self.counters);
        let path = path(self.directory.path(), number);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| Record::read(line, names)).collect()
    }
}

fn path(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("{number}.log"))
}

/// The names in a format string.
fn names(format: &str) -> Vec<&str> {
    format.split(' ').map(|word| word.trim_matches(|c| "${}".contains(c))).collect()
}

#[test]
fn lines_are_what_the_description_says() {
    let all = |format| (LogResource::All, TrafficType::All, format, INTERVAL);
    let mut rig = Rig::new(1, &[all(""), all(CUSTOM)]);
    let tcp = rig.traffic("203.0.113.7:4711", "10.0.1.11:443", 6, 5);
    let v6 = LoggedTraffic {
        inspector: Some(Inspected::Bypass),
        flags: TcpFlags::default(),
        cookie: None,
        ..rig.traffic("[2001:db8::7]:53", "[fd00:10:0:1::11]:999", 17, 6)
    };
    let icmp = LoggedTraffic {
        flags: TcpFlags::default(),
        ..rig.traffic("203.0.113.7:0", "10.0.1.11:0", 1, 7)
    };
    let rejected = LoggedTraffic {
        inspector: None,
        cookie: None,
        rejected: Some(DropReason::UnknownTcpFlow),
        ..rig.traffic("203.0.113.9:1", "10.0.1.11:80", 6, 8)
    };
    let nowhere = LoggedTraffic { endpoint: None, rejected: Some(DropReason::NoRoute), ..rejected };
    for one in [tcp, v6, icmp, rejected, nowhere] {
        rig.tell(LogEntry::Traffic(one));
    }
    rig.close(0, 60, 0);
    let usual = rig.read(0, &VERSION_2);
    // Both endpoints of the example are logged, and the other one had nothing.
    assert_eq!(usual.len(), 6);
    let first = &usual[0];
    assert_eq!(
        ["version", "srcaddr", "dstaddr", "srcport", "dstport", "protocol"].map(|it| first.get(it)),
        ["2", "203.0.113.7", "10.0.1.11", "4711", "443", "6"].map(Some)
    );
    assert_eq!(["packets", "bytes"].map(|it| first.number(it)), [3, 300]);
    assert_eq!(["start", "end"].map(|it| first.number(it)), [EPOCH + 5, EPOCH + 15]);
    assert_eq!(["action", "log-status"].map(|it| first.get(it)), ["ACCEPT", "OK"].map(Some));
    assert_eq!((first.get("interface-id"), first.get("account-id")), (Some("vpce-a"), None));
    assert_eq!(usual[3].get("action"), Some("REJECT"));
    assert_eq!(usual[4].get("interface-id"), None, "it came to no endpoint");
    let nothing = &usual[5];
    assert_eq!(nothing.get("log-status"), Some("NODATA"));
    assert_eq!(["start", "end"].map(|it| nothing.number(it)), [EPOCH, EPOCH + 60]);
    assert_eq!((nothing.get("interface-id"), nothing.get("srcaddr")), (Some("vpce-b"), None));
    assert_eq!(nothing.0.len(), 5, "version, interface, start, end and status");

    let custom = rig.read(1, &names(CUSTOM));
    let first = &custom[0];
    assert_eq!(first.get("version"), Some("5"));
    assert_eq!(
        ["vpc-id", "subnet-id", "az-id", "type"].map(|it| first.get(it)),
        ["app", "gwlbe-a", "az1", "IPv4"].map(Some)
    );
    assert_eq!(first.get("tcp-flags"), Some("18"), "SYN and ACK");
    assert_eq!(first.get("pkt-srcaddr"), first.get("srcaddr"));
    let target = rig.view.targets[0].address.to_string();
    assert_eq!(
        ["endpoint", "load-balancer", "zone", "target", "cookie"].map(|it| first.get(it)),
        [Some("vpce-a"), Some("fw"), Some("az1"), Some(target.as_str()), Some("0x1234abcd")]
    );
    assert_eq!((custom[1].get("type"), custom[1].get("target")), (Some("IPv6"), Some("bypass")));
    assert_eq!(custom[1].get("tcp-flags"), Some("0"));
    assert_eq!((custom[2].get("protocol"), custom[2].get("srcport")), (Some("1"), Some("0")));
    assert_eq!(custom[3].get("drop-reason"), Some("unknown_tcp_flow"));
    assert_eq!((custom[3].get("target"), custom[3].get("cookie")), (None, None));
    assert_eq!(custom[4].get("drop-reason"), Some("no_route"));
}

#[test]
fn a_log_has_what_it_is_for() {
    let endpoint = LogResource::Endpoint("vpce-a".to_owned());
    let other = LogResource::Endpoint("vpce-b".to_owned());
    let balancer = LogResource::LoadBalancer("fw".to_owned());
    let mut rig = Rig::new(
        1,
        &[
            (endpoint.clone(), TrafficType::Accept, "", INTERVAL),
            (endpoint, TrafficType::Reject, "", INTERVAL),
            (other, TrafficType::All, "", INTERVAL),
            (balancer, TrafficType::All, "", INTERVAL),
        ],
    );
    let accepted = rig.traffic("203.0.113.7:4711", "10.0.1.11:443", 6, 5);
    let rejected = LoggedTraffic { rejected: Some(DropReason::NoTarget), ..accepted };
    let nowhere = LoggedTraffic { endpoint: None, ..rejected };
    for one in [accepted, rejected, nowhere] {
        rig.tell(LogEntry::Traffic(one));
    }
    let mut actions = |number| -> Vec<_> {
        let records = rig.read(number, &VERSION_2);
        records.iter().map(|it| it.get("action").unwrap().to_owned()).collect()
    };
    assert_eq!(actions(0), ["ACCEPT"]);
    assert_eq!(actions(1), ["REJECT"]);
    assert_eq!(actions(2), Vec::<String>::new());
    assert_eq!(actions(3), ["ACCEPT", "REJECT"]);
}

#[test]
fn what_was_lost_is_said_when_all_workers_have_told() {
    let mut rig = Rig::new(2, &[(LogResource::All, TrafficType::All, "", INTERVAL)]);
    let traffic = rig.traffic("203.0.113.7:4711", "10.0.1.11:443", 6, 5);
    rig.tell(LogEntry::Traffic(traffic));
    rig.close(0, 60, 7);
    assert_eq!(rig.read(0, &VERSION_2).len(), 1, "the other worker may have more");
    rig.close(1, 60, 0);
    let records = rig.read(0, &VERSION_2);
    let statuses: Vec<_> = records.iter().map(|it| it.get("log-status").unwrap()).collect();
    assert_eq!(statuses, ["OK", "SKIPDATA", "SKIPDATA"], "one for each endpoint");
    rig.close(0, 120, 0);
    rig.close(1, 120, 0);
    let records = rig.read(0, &VERSION_2);
    let last = &records[records.len() - 1];
    assert_eq!((records.len(), last.get("log-status")), (5, Some("NODATA")), "lost once");
    assert_eq!(last.number("start"), EPOCH + 60);
    assert_eq!(rig.counters[0].lines.get(), 5);
}

/// What had no room in the queue when the gateway ended is told, too, though no worker could.
#[test]
fn what_is_lost_at_the_end_is_said() {
    for (told, lost, expected) in [(0, 0, 0), (0, 3, 2), (3, 3, 0)] {
        let mut rig = Rig::new(1, &[(LogResource::All, TrafficType::All, "", INTERVAL)]);
        rig.close(0, 60, told);
        let before = rig.read(0, &VERSION_2).len();
        rig.clock = WallClock::new(rig.start + INTERVAL * 3 / 2, Duration::from_secs(EPOCH + 90));
        rig.logs.finish(lost, &rig.view, rig.clock, &rig.counters);
        let records = rig.read(0, &VERSION_2);
        let last = &records[before..];
        assert_eq!(last.len(), expected, "one for each endpoint");
        for record in last {
            assert_eq!(record.get("log-status"), Some("SKIPDATA"));
            assert_eq!(["start", "end"].map(|it| record.number(it)), [EPOCH + 60, EPOCH + 90]);
        }
    }
    // A worker told of it in a window that another one did not close any more.
    let mut rig = Rig::new(2, &[(LogResource::All, TrafficType::All, "", INTERVAL)]);
    rig.close(0, 60, 3);
    rig.logs.finish(3, &rig.view, rig.clock, &rig.counters);
    assert_eq!(rig.read(0, &VERSION_2).len(), 2);
}

/// A reload takes an endpoint away while its window is open.
#[test]
fn what_is_told_of_an_endpoint_that_has_gone_is_in_its_log() {
    let endpoint = LogResource::Endpoint("vpce-a".to_owned());
    let balancer = LogResource::LoadBalancer("fw".to_owned());
    let other = LogResource::Endpoint("vpce-b".to_owned());
    let log = |resource| (resource, TrafficType::All, "", INTERVAL);
    let mut rig = Rig::new(1, &[log(endpoint), log(balancer), log(other)]);
    let traffic = rig.traffic("203.0.113.7:4711", "10.0.1.11:443", 6, 65);
    rig.close(0, 60, 0);
    let told = |rig: &mut Rig| {
        [0, 1, 2].map(|number| {
            let records = rig.read(number, &VERSION_2);
            records.iter().filter(|it| it.get("log-status") == Some("OK")).count()
        })
    };
    // Another one is in its place, with an id of its own.
    let mut view = Snapshot::clone(&rig.view);
    view.generation += 1;
    let gone = std::mem::replace(&mut view.endpoints[0].wire_id, 1);
    let id = view.wire_ids.remove(&gone).unwrap();
    view.wire_ids.insert(1, id);
    rig.view = Arc::new(view);
    rig.tell(LogEntry::Traffic(traffic));
    assert_eq!(told(&mut rig), [1, 1, 0]);
    for window in 2..2 + u64::from(KEPT) {
        assert!(rig.logs.all[0].covered.contains_key(&gone));
        rig.close(0, window * 60, 0);
    }
    assert!(!rig.logs.all[0].covered.contains_key(&gone), "nobody tells of it any more");
    rig.tell(LogEntry::Traffic(traffic));
    assert_eq!(told(&mut rig), [1, 1, 0]);
}

/// A worker that is ahead tells of the next window before the slowest has told of all of this one.
#[test]
fn a_window_is_not_empty_since_a_worker_was_ahead() {
    let mut rig = Rig::new(
        2,
        &[(LogResource::Endpoint("vpce-a".to_owned()), TrafficType::All, "", INTERVAL)],
    );
    rig.close(0, 60, 0);
    let ahead = rig.traffic("203.0.113.7:4711", "10.0.1.11:443", 6, 65);
    rig.tell(LogEntry::Traffic(ahead));
    for (worker, seconds) in [(1, 60), (0, 120), (1, 120), (0, 180), (1, 180)] {
        rig.close(worker, seconds, 0);
    }
    let records = rig.read(0, &VERSION_2);
    let told = records.iter().map(|it| (it.get("log-status").unwrap(), it.number("start") - EPOCH));
    assert_eq!(told.collect::<Vec<_>>(), [("OK", 65), ("NODATA", 0), ("NODATA", 120)]);
}

/// Lines that a file did not take are said to be missing when it takes lines again.
#[test]
fn lines_that_could_not_be_written_are_said_to_be_missing() {
    let mut rig = Rig::new(
        1,
        &[(LogResource::Endpoint("vpce-a".to_owned()), TrafficType::All, "", INTERVAL)],
    );
    let path = path(rig.directory.path(), 0);
    std::fs::create_dir(&path).unwrap();
    for window in 1..=5 {
        if window == 3 {
            std::fs::remove_dir(&path).unwrap();
        }
        let now = Duration::from_secs(60 * window);
        rig.clock = WallClock::new(rig.start + now, Duration::from_secs(EPOCH) + now);
        rig.close(0, 60 * window, 0);
        rig.logs.flush(rig.clock.now(), &rig.counters);
    }
    let records = rig.read(0, &VERSION_2);
    let told = records.iter().map(|it| {
        let times = ["start", "end"].map(|field| it.number(field) - EPOCH);
        (it.get("log-status").unwrap(), times)
    });
    let expected = [("SKIPDATA", [0, 180]), ("NODATA", [180, 240]), ("NODATA", [240, 300])];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

proptest! {
    /// A log with long windows puts short ones together, and loses nothing of them.
    #[test]
    fn long_windows_add_up(
        steps in prop::collection::vec((0u16..5, 1u64..100, 1u64..9000, 0u64..90), 1..80),
    ) {
        let long = INTERVAL * 10;
        let all = |interval| (LogResource::All, TrafficType::All, "", interval);
        let mut rig = Rig::new(1, &[all(INTERVAL), all(long)]);
        let (mut now, mut closed) = (0, 0);
        for (port, packets, bytes, pause) in steps {
            now += pause;
            while closed + 60 <= now {
                closed += 60;
                rig.close(0, closed, 0);
            }
            let from = format!("203.0.113.7:{}", 1000 + port);
            let one = rig.traffic(&from, "10.0.1.11:443", 6, now);
            rig.tell(LogEntry::Traffic(LoggedTraffic { packets, bytes, ..one }));
        }
        rig.logs.finish(0, &rig.view, rig.clock, &rig.counters);
        let sums = |records: Vec<Record>| {
            let mut sums = BTreeMap::<String, (u64, u64)>::new();
            for record in records.iter().filter(|it| it.get("log-status") == Some("OK")) {
                let sum = sums.entry(record.get("srcport").unwrap().to_owned()).or_default();
                *sum = (sum.0 + record.number("packets"), sum.1 + record.number("bytes"));
            }
            (sums, records.len())
        };
        let (short, lines) = sums(rig.read(0, &VERSION_2));
        let (long, fewer) = sums(rig.read(1, &VERSION_2));
        prop_assert_eq!(short, long);
        prop_assert!(fewer <= lines);
    }
}
