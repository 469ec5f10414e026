use std::sync::mpsc::Receiver;

use appliance_sdk::testing::{self, FakeGateway, Segment};
use proptest::prelude::*;

use super::*;
use crate::problem::Source;

const CLIENT: &str = "203.0.113.9:50000";
const SERVER: &str = "10.0.1.11:80";

const PATTERNS: &str = r#"
    [[pattern]]
    name = "needle"
    text = "needle"

    [[pattern]]
    name = "worm"
    text = "worm"
    action = "block"
"#;

struct Watched {
    gateway: FakeGateway<Ids>,
    alerts: Receiver<Alert>,
}

impl Watched {
    fn new(depth: Option<u64>) -> Self {
        let patterns = file::parse(&Source::new("patterns.toml", PATTERNS), false).unwrap();
        let (counts, clock) = (Counts::default(), WallClock::start());
        let (sink, alerts) = AlertSink::new();
        let shared = Arc::new(Shared { patterns, depth, counts, clock });
        Self { gateway: FakeGateway::new(Ids::new(shared, sink)), alerts }
    }

    /// Sends a packet; returns whether it came back and the patterns that were told.
    fn send(&mut self, packet: &[u8]) -> (bool, Vec<String>) {
        let passed = !self.gateway.send(packet).is_empty();
        (passed, self.alerts.try_iter().map(|alert| alert.pattern).collect())
    }

    /// Opens a connection whose streams begin at 101 and 901.
    fn connect(&mut self) {
        assert!(self.send(&testing::tcp(CLIENT, SERVER, Segment::syn(100), b"")).0);
        assert!(self.send(&testing::tcp(SERVER, CLIENT, Segment::syn_ack(900, 101), b"")).0);
    }
}

fn request(sequence: u32, payload: &[u8]) -> Vec<u8> {
    testing::tcp(CLIENT, SERVER, Segment::data(sequence, 901), payload)
}

fn response(sequence: u32, payload: &[u8]) -> Vec<u8> {
    testing::tcp(SERVER, CLIENT, Segment::data(sequence, 101), payload)
}

fn told(pattern: &str) -> (bool, Vec<String>) {
    (true, vec![pattern.to_owned()])
}

const NOTHING: (bool, Vec<String>) = (true, Vec::new());

#[test]
fn a_pattern_is_told_once_per_connection_with_its_whereabouts() {
    let mut ids = Watched::new(None);
    ids.connect();
    ids.gateway.send(&request(101, b"a needle, and a needle"));
    let alert = ids.alerts.try_recv().unwrap();
    assert_eq!((alert.pattern.as_str(), alert.blocked), ("needle", false));
    assert_eq!((alert.source.as_str(), alert.destination.as_str()), (CLIENT, SERVER));
    assert_eq!((alert.protocol, alert.stream_bytes), (6, 22));
    assert_eq!(alert.endpoint, "0x0123456789abcdef");
    assert!(ids.alerts.try_recv().is_err());
    assert_eq!(ids.send(&request(123, b"needle")), NOTHING);
    // Another connection, on the same ports.
    assert!(ids.send(&testing::tcp(CLIENT, SERVER, Segment::syn(5000), b"")).0);
    assert!(ids.send(&testing::tcp(SERVER, CLIENT, Segment::syn_ack(7000, 5001), b"")).0);
    let again = testing::tcp(CLIENT, SERVER, Segment::data(5001, 7001), b"needle");
    assert_eq!(ids.send(&again), told("needle"));
}

#[test]
fn patterns_are_found_across_segments_in_both_directions() {
    let mut ids = Watched::new(None);
    ids.connect();
    assert_eq!(ids.send(&request(101, b"nee")), NOTHING);
    assert_eq!(ids.send(&response(901, b"dle")), NOTHING);
    assert_eq!(ids.send(&request(104, b"dle")), told("needle"));
    assert_eq!(ids.send(&response(906, b"rm")), NOTHING);
    let last = ids.send(&response(904, b"wo"));
    assert_eq!(last, (false, vec!["worm".to_owned()]));
}

#[test]
fn a_blocked_flow_stays_blocked() {
    let mut ids = Watched::new(None);
    ids.connect();
    assert!(!ids.send(&request(101, b"a worm")).0);
    assert!(!ids.send(&request(101, b"harmless")).0);
    assert!(!ids.send(&response(901, b"harmless")).0);
    assert!(!ids.send(&testing::tcp(CLIENT, SERVER, Segment::syn(9), b"")).0);
    assert_eq!(ids.gateway.appliance().shared.counts.blocked.load(Ordering::Relaxed), 1);
    // Other flows pass.
    assert!(ids.send(&testing::tcp("203.0.113.9:50001", SERVER, Segment::syn(9), b"")).0);
}

#[test]
fn a_lone_syn_makes_nobody_forget() {
    let mut ids = Watched::new(None);
    ids.connect();
    assert_eq!(ids.send(&request(101, b"nee")), NOTHING);
    assert_eq!(ids.send(&testing::tcp(CLIENT, SERVER, Segment::syn(77_000), b"")), NOTHING);
    assert_eq!(ids.send(&request(104, b"dle")), told("needle"));
}

#[test]
fn a_connection_that_is_met_half_way_is_searched_from_there() {
    let mut ids = Watched::new(None);
    assert_eq!(ids.send(&request(5, b"nee")), NOTHING);
    assert_eq!(ids.send(&request(8, b"dle")), told("needle"));
}

#[test]
fn datagrams_are_searched_one_by_one() {
    let mut ids = Watched::new(None);
    let datagram = |payload| testing::udp(CLIENT, SERVER, payload);
    assert_eq!(ids.send(&datagram(b"nee")), NOTHING);
    assert_eq!(ids.send(&datagram(b"dle")), NOTHING);
    assert_eq!(ids.send(&datagram(b"a needle")), told("needle"));
}

#[test]
fn what_no_receiver_takes_is_not_searched() {
    let mut ids = Watched::new(None);
    ids.connect();
    let mut damaged = request(101, b"harmless");
    let payload = damaged.len() - 8;
    damaged[payload..].copy_from_slice(b"a needle");
    assert_eq!(ids.send(&damaged), NOTHING);
    assert_eq!(ids.gateway.appliance().shared.counts.bad_checksums.load(Ordering::Relaxed), 1);
    assert_eq!(ids.send(&request(101, b"nee")), NOTHING);
    assert_eq!(ids.send(&request(104, b"dle")), told("needle"));
}

#[test]
fn beyond_the_depth_nothing_is_searched_or_asked() {
    let mut ids = Watched::new(Some(10));
    ids.connect();
    assert_eq!(ids.send(&request(101, b"0123456789")), NOTHING);
    assert_eq!(ids.send(&request(111, b"a needle")), NOTHING);
    assert_eq!(ids.send(&response(901, b"0123456789")), NOTHING);
    assert_eq!(ids.send(&response(911, b"a needle")), NOTHING);
    assert_eq!(ids.gateway.stats().decided_by_flow, 1);
}

proptest! {
    /// Whatever is inside: no panic, and no packet is lost unless its flow is blocked.
    #[test]
    fn noise_is_survived(
        packets in proptest::collection::vec(
            (any::<u32>(), any::<bool>(), any::<u8>(), "[ned leworm]{0,20}"), 1..40),
    ) {
        let mut ids = Watched::new(None);
        for (sequence, syn, flags, payload) in packets {
            let segment = Segment {
                sequence: sequence % 50,
                acknowledge: (flags & 1 > 0).then_some(sequence % 7),
                syn,
                fin: flags & 2 > 0,
                rst: flags & 4 > 0,
            };
            let (from, to) = if flags & 8 > 0 { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
            ids.send(&testing::tcp(from, to, segment, payload.as_bytes()));
        }
        let stats = ids.gateway.stats();
        prop_assert_eq!(stats.unaccounted(), 0);
        let blocked = ids.gateway.appliance().shared.counts.blocked.load(Ordering::Relaxed);
        prop_assert_eq!(stats.kept.packets > 0, blocked > 0);
    }
}
