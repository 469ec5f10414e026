//! What `gwlb explain` says is what happens: of random packets in random histories, over random
//! configurations, each is explained first and then let in.
#![expect(clippy::unwrap_used, reason = "helpers of tests, and nothing else")]

#[path = "histories/policy.rs"]
mod policy;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use geneve::TcpFlags;
use gwlb::config::{Settings, TrafficMode};
use gwlb::control::{ProbeOutcome, TargetSpec};
use gwlb::dataplane::explain::{Explanation, Given, Step};
use gwlb_tests::appliance::echo;
use gwlb_tests::gateway::{Answer, Datagram, Gateway, Packet, Queues, Setup};
use gwlb_tests::packets::{Ip, Problem, Tcp, fragments, super_packet};
use policy::{Loss, Policy, Variant, policy};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use router::Entry;

/// What the configuration has beyond the policy.
#[derive(Debug, Clone)]
struct Extras {
    /// Whether the internet gateway translates the address of a host.
    translated: bool,
    /// Whether routes lead to both endpoints as a group, and the weight of the second one.
    grouped: Option<u16>,
    mss_clamp: bool,
    stickiness: &'static str,
    /// New flows in a second; 0: as many as come.
    new_flows: u32,
}

fn extras() -> impl Strategy<Value = Extras> {
    let grouped = select(vec![None, None, Some(0), Some(100)]);
    let stickiness = select(vec!["5-tuple", "5-tuple", "3-tuple", "2-tuple"]);
    let new_flows = select(vec![0_u32, 0, 0, 1, 20]);
    (any::<bool>(), grouped, any::<bool>(), stickiness, new_flows).prop_map(
        |(translated, grouped, mss_clamp, stickiness, new_flows)| Extras {
            translated,
            grouped,
            mss_clamp,
            stickiness,
            new_flows,
        },
    )
}

impl Extras {
    fn settings(&self, policy: &Policy, variant: Variant) -> Settings {
        policy.settings(variant, |text| self.add(policy, text))
    }

    fn add(&self, policy: &Policy, text: &mut String) {
        let mut insert = |behind: &str, keys: &str| {
            assert_eq!(text.matches(behind).count(), 1, "{behind}");
            *text = text.replace(behind, &format!("{behind}{keys}"));
        };
        let Self { translated, grouped, mss_clamp, stickiness, new_flows } = self;
        // TCP is only reset where each connection is a flow.
        let resets = [policy.on_unhealthy, policy.on_deregistration].contains(&Loss::Reset);
        let stickiness = if resets { "5-tuple" } else { stickiness };
        insert("[[load_balancer]]\nname = \"fw\"\n", &format!("tcp_mss_clamp = {mss_clamp}\n"));
        insert("[[target_group]]\nname = \"fw\"\n", &format!("stickiness = \"{stickiness}\"\n"));
        if *translated {
            let addresses = "addresses = [{ public = \"198.18.0.11\", private = \"10.0.1.11\" }]\n";
            insert("[[internet_gateway]]\nname = \"igw\"\n", addresses);
        }
        if let Some(weight) = grouped {
            let mode = if *weight == 0 { "active_standby" } else { "weighted" };
            *text = text.replace("endpoint = \"vpce-a\" }", "endpoint_group = \"both\" }");
            let _ = write!(
                text,
                "\n[[endpoint_group]]\nname = \"both\"\nmode = \"{mode}\"\nmembers = [\
                 {{ endpoint = \"vpce-a\", weight = 100 }}, \
                 {{ endpoint = \"vpce-b\", weight = {weight} }}]\n"
            );
        }
        let _ = write!(
            text,
            "\n[gateway]\nmax_flows_per_worker = 1024\n\
             max_new_flows_per_second_per_worker = {new_flows}\n"
        );
    }
}

/// What can happen.
#[derive(Debug, Clone)]
enum Event {
    /// A packet of a flow enters.
    Enters(Host, Kind, u16),
    /// A packet for which there is no way, or hardly one.
    Odd(usize),
    /// An appliance sends the last datagram that it got, with this byte changed.
    Forged(usize, u8),
    /// Many packets that are too long.
    Burst(u16),
    /// More flows than a table takes.
    Flood,
    /// Somebody switches the group of endpoints.
    SwitchEndpoints(Option<&'static str>),
    Advance(u64),
    Probe(usize, ProbeOutcome),
    Register(usize, u16),
    Deregister(usize),
    Reload(Variant),
    Switch(TrafficMode),
    PathMtu(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Near,
    /// The one nearby, by its public address.
    Public,
    Six,
    Far,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Open,
    OpenWithMss,
    Accept,
    Data,
    Answer,
    Large,
    LargeToCut,
    LargeQuestion,
    Finish,
    Reset,
    Question,
    Ping,
    ErrorThere,
    ErrorBack,
    First,
    Later,
    LastAnswer,
    /// Super-packets: of segments that fit, and of such that do not.
    Super,
    SuperBack,
    SuperTooLong,
    SuperQuestion,
}

const TARGETS: [[u8; 4]; 4] = [[192, 0, 2, 11], [192, 0, 2, 12], [192, 0, 2, 21], [192, 0, 2, 13]];

fn event() -> impl Strategy<Value = Event> {
    use Kind::{
        Accept, Answer, Data, ErrorBack, ErrorThere, Finish, First, Large, LargeQuestion,
        LargeToCut, LastAnswer, Later, Open, OpenWithMss, Ping, Question, Reset, Super, SuperBack,
        SuperQuestion, SuperTooLong,
    };
    let kinds = vec![
        Super,
        SuperBack,
        SuperTooLong,
        SuperQuestion,
        Open,
        Open,
        Open,
        OpenWithMss,
        Accept,
        Data,
        Answer,
        Large,
        LargeToCut,
        LargeQuestion,
        LargeQuestion,
        Finish,
        Reset,
        Question,
        Ping,
        ErrorThere,
        ErrorBack,
        First,
        First,
        Later,
        Later,
        LastAnswer,
    ];
    let host = select(vec![Host::Near, Host::Near, Host::Public, Host::Six, Host::Far]);
    let outcomes = vec![
        ProbeOutcome::Passed,
        ProbeOutcome::Passed,
        ProbeOutcome::TimedOut,
        ProbeOutcome::Refused,
    ];
    let modes = vec![TrafficMode::LoadBalance, TrafficMode::LoadBalance, TrafficMode::Bypass];
    prop_oneof![
        24 => (host, select(kinds), 1000..1003_u16).prop_map(|(h, k, p)| Event::Enters(h, k, p)),
        2 => (0..10_usize).prop_map(Event::Odd),
        2 => (0..64_usize, any::<u8>()).prop_map(|(at, bits)| Event::Forged(at, bits)),
        5 => prop_oneof![0..1000_u64, 1000..15_000_u64, 15_000..130_000_u64, Just(351_000_u64)]
            .prop_map(Event::Advance),
        4 => (0..4_usize, select(outcomes)).prop_map(|(target, to)| Event::Probe(target, to)),
        2 => (0..4_usize, select(vec![100, 300, 0])).prop_map(|(t, w)| Event::Register(t, w)),
        2 => (0..4_usize).prop_map(Event::Deregister),
        1 => select(Variant::ALL.to_vec()).prop_map(Event::Reload),
        1 => select(modes).prop_map(Event::Switch),
        1 => (1000..1003_u16).prop_map(Event::Burst),
        1 => Just(Event::Flood),
        1 => select(vec![None, Some("vpce-a"), Some("vpce-b")]).prop_map(Event::SwitchEndpoints),
        1 => select(vec![1500, 1400, 1568]).prop_map(Event::PathMtu),
    ]
}

fn packet(host: Host, kind: Kind, port: u16, id: u16) -> (&'static str, Packet) {
    let (device, bytes) = bytes(host, kind, port, id);
    let size = match kind {
        Kind::Super | Kind::SuperBack | Kind::SuperQuestion => 1000,
        Kind::SuperTooLong => 1440,
        _ => return (device, Packet::plain(bytes)),
    };
    (device, super_packet(&bytes, size))
}

fn bytes(host: Host, kind: Kind, port: u16, id: u16) -> (&'static str, Vec<u8>) {
    let (there, home) = match host {
        Host::Near => (Ip::new("203.0.113.7", "10.0.1.11"), "app-a"),
        Host::Public => (Ip::new("203.0.113.7", "198.18.0.11"), "app-a"),
        Host::Six => (Ip::new("2001:db8:113::7", "fd00:10:0:1::11"), "app-a"),
        Host::Far => (Ip::new("203.0.113.7", "10.0.2.11"), "app-b"),
    };
    let private = there.reversed();
    let (there, back) = (there.identification(id), private);
    // From its subnet, a host sends with its own address, which the internet gateway translates.
    let back = if host == Host::Public { Ip::new("10.0.1.11", "203.0.113.7") } else { back };
    let tcp = |tcp: Tcp, payload: &[u8]| there.tcp((port, 80), tcp, payload);
    let tcp_back = |tcp: Tcp, payload: &[u8]| back.tcp((80, port), tcp, payload);
    let fin = TcpFlags::FIN | TcpFlags::ACK;
    let pieces = |payload: &[u8]| fragments(&there.udp((port, 53), payload), 7 + port, 104);
    match kind {
        Kind::Open => ("igw", tcp(Tcp::SYN, b"")),
        Kind::OpenWithMss => ("igw", tcp(Tcp::SYN.mss(1460), b"")),
        Kind::Accept => (home, tcp_back(Tcp::SYN_ACK, b"")),
        Kind::Data => ("igw", tcp(Tcp::DATA, b"data")),
        Kind::Answer => (home, tcp_back(Tcp::ANSWER, b"answer")),
        Kind::Large => ("igw", tcp(Tcp::DATA, &[7; 1450])),
        Kind::LargeToCut => ("igw", there.clone().may_fragment().udp((port, 53), &[7; 1450])),
        Kind::LargeQuestion => ("igw", there.udp((port, 53), &[7; 1450])),
        Kind::Finish => ("igw", tcp(Tcp::DATA.flags(fin), b"")),
        Kind::Reset => ("igw", tcp(Tcp::DATA.flags(TcpFlags::RST), b"")),
        Kind::Question => ("igw", there.udp((port, 53), b"question")),
        Kind::Ping => ("igw", there.echo_request(port, 1)),
        Kind::ErrorThere => {
            let about = tcp_back(Tcp::ANSWER, &[7; 100]);
            ("igw", there.icmp_error(Problem::TooBig(1280), &about, 100))
        }
        Kind::ErrorBack => {
            let about = tcp(Tcp::DATA, &[7; 100]);
            (home, back.icmp_error(Problem::PortUnreachable, &about, 100))
        }
        Kind::First => ("igw", pieces(&[7; 300]).remove(0)),
        Kind::Later => ("igw", pieces(&[7; 300]).remove(1)),
        Kind::Super | Kind::SuperTooLong => ("igw", tcp(Tcp::DATA, &[7; 4500])),
        Kind::SuperBack => (home, tcp_back(Tcp::ANSWER, &[7; 4500])),
        Kind::SuperQuestion => ("igw", there.udp((port, 53), &[7; 4500])),
        Kind::LastAnswer => (home, tcp_back(Tcp::ANSWER.flags(fin), b"")),
    }
}

fn odd(number: usize) -> (&'static str, Vec<u8>) {
    let udp = |from: &str, to: &str| Ip::new(from, to).udp((1000, 53), b"where to?");
    match number {
        0 => ("igw", udp("203.0.113.7", "192.0.2.200")),
        1 => ("igw", udp("203.0.113.7", "10.0.77.1")),
        2 => ("igw", udp("203.0.113.7", "10.0.9.5")),
        3 => ("app-a", udp("10.0.1.11", "198.51.100.9")),
        4 => ("app-a", udp("10.0.1.11", "10.0.2.11")),
        5 => ("app-a", udp("10.0.1.11", "203.0.113.7")),
        6 => ("igw", b"no packet at all".to_vec()),
        7 => ("igw", Vec::new()),
        8 => {
            let mut cut = udp("203.0.113.7", "10.0.1.11");
            cut.truncate(25);
            ("igw", cut)
        }
        _ => ("app-b", udp("10.0.2.11", "10.0.1.11")),
    }
}

/// What happened to a packet: sent to appliances, delivered, and dropped, each sorted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fate {
    /// Source, target, and bytes.
    sent: Vec<(SocketAddr, SocketAddr, String)>,
    /// Where, by which device, and the bytes.
    delivered: Vec<(String, String, String)>,
    dropped: BTreeMap<String, u64>,
    held: usize,
}

impl Fate {
    /// As explained.
    fn told(explanation: &Explanation) -> Self {
        let mut fate = Self::default();
        for step in &explanation.steps {
            match step {
                Step::Encapsulated { target, source, source_port, datagrams, .. } => {
                    let source = SocketAddr::new(*source, source_port.unwrap());
                    let sent = datagrams.iter().map(|it| (source, *target, it.bytes.clone()));
                    fate.sent.extend(sent);
                }
                Step::Leaves { at, device, bytes, .. }
                | Step::Replied { at, device, bytes, .. } => {
                    let device = device.clone().unwrap_or_default();
                    fate.delivered.push((at.clone(), device, bytes.clone()));
                }
                Step::Dropped { reason, packets, .. } => {
                    *fate.dropped.entry(reason.clone()).or_default() += packets;
                }
                Step::Held => fate.held += 1,
                _ => {}
            }
        }
        fate.sorted()
    }

    fn sorted(mut self) -> Self {
        self.sent.sort();
        self.delivered.sort();
        self
    }
}

struct History<'a> {
    gateway: Gateway,
    policy: Policy,
    extras: Extras,
    id: u16,
    last: Option<Datagram>,
    /// What explanations told of.
    seen: &'a RefCell<BTreeSet<String>>,
}

/// What is special about a step.
fn kind(step: &Step) -> Option<String> {
    let name = match step {
        Step::Dropped { reason, .. } => reason,
        Step::Replied { cause, .. } if cause != "packet_too_big" => "reset",
        Step::Replied { .. } => "replied",
        Step::Encapsulated { change: Some(change), .. } => change,
        Step::Flow { known: Some(known), becomes: Some(becomes), .. }
            if known.target != becomes.target =>
        {
            "flow moves"
        }
        Step::Leaves { uninspected: true, .. } => "uninspected",
        Step::Leaves { .. } => "delivered",
        Step::Flow { unremembered: Some(why), .. } => why,
        Step::Translated { .. } => "translated",
        Step::Enters { packets: 2.., .. } => "super-packet",
        Step::Endpoint { group: Some(_), .. } => "grouped",
        Step::Endpoint { stickiness, .. } if stickiness != "5-tuple" => stickiness,
        Step::Held => "held",
        Step::Released { .. } => "released",
        Step::Accepted { .. } => "accepted",
        _ => return None,
    };
    Some(name.to_owned())
}

impl History<'_> {
    fn step(&mut self, event: &Event) {
        let gateway = &mut self.gateway;
        match *event {
            Event::Enters(host, kind, port) => {
                self.id = self.id.wrapping_add(1);
                let (device, packet) = packet(host, kind, port, self.id);
                return self.enter(device, packet);
            }
            Event::Odd(number) => {
                let (device, packet) = odd(number);
                return self.enter(device, Packet::plain(packet));
            }
            Event::Forged(at, bits) => {
                let Some(mut datagram) = self.last.clone() else { return };
                if let Some(byte) = datagram.bytes.get_mut(at) {
                    *byte ^= bits;
                }
                let Datagram { from, to, bytes } = datagram.clone();
                let given = Given::Returning { from, to, datagram: bytes };
                return self.happens(&given, |gateway| gateway.receive(&[datagram], None));
            }
            Event::Burst(port) => {
                let at = gateway.attachment("igw").unwrap();
                let (_, packet) = packet(Host::Near, Kind::LargeQuestion, port, 1);
                gateway.enter(at, &vec![packet; 60], None);
            }
            Event::Flood => {
                let at = gateway.attachment("igw").unwrap();
                let flow = |port| packet(Host::Near, Kind::Question, port, 1).1;
                gateway.enter(at, &(2000..3100).map(flow).collect::<Vec<_>>(), None);
            }
            Event::SwitchEndpoints(to) => {
                // Whether there is a group is of no interest.
                let _ = gateway.switch_endpoint_group("both", to);
            }
            Event::Advance(milliseconds) => gateway.advance(Duration::from_millis(milliseconds)),
            Event::Probe(target, outcome) => {
                let (target, node, kind) = (TARGETS[target].into(), None, None);
                gateway.answer_probes(Answer { target, node, kind, outcome, largest: None });
            }
            Event::Register(target, weight) => {
                let zone = if target == 2 { "az2" } else { "az1" };
                let spec = TargetSpec {
                    address: TARGETS[target].into(),
                    port: None,
                    zone: Some(zone.to_owned()),
                    weight: Some(gwlb::config::Weight::new(weight.into()).unwrap()),
                };
                gateway.register("fw", &spec).unwrap();
            }
            Event::Deregister(target) => {
                // Whether it is there is of no interest.
                let _ = gateway.deregister("fw", TARGETS[target].into(), None);
            }
            Event::Reload(variant) => gateway.reload(self.extras.settings(&self.policy, variant)),
            Event::Switch(mode) => gateway.set_traffic_mode("fw", mode).unwrap(),
            Event::PathMtu(mtu) => {
                for target in TARGETS {
                    if let Some(target) = gateway.target(target.into()) {
                        gateway.control(gwlb::control::Input::PathMtu { target, mtu });
                    }
                }
            }
        }
        // What became of packets that waited.
        self.gateway.take_sent();
        self.gateway.take_delivered();
    }

    fn enter(&mut self, device: &str, entering: Packet) {
        let at = self.gateway.attachment(device).unwrap();
        let Packet { bytes: packet, offload } = entering.clone();
        let given = Given::Entering { at: Entry::from(at), packet, offload };
        self.happens(&given, |gateway| gateway.enter(at, &[entering], None));
    }

    /// Explains what is given, lets it happen, and has appliances return what they get.
    fn happens(&mut self, given: &Given, happen: impl FnOnce(&mut Gateway)) {
        let before = self.counted();
        let explanation = self.gateway.explain(given.clone());
        assert_eq!(self.counted(), before, "explaining has changed something");
        assert_eq!(explanation, self.gateway.explain(given.clone()), "the same once more");

        self.seen.borrow_mut().extend(explanation.steps.iter().filter_map(kind));

        let drops = self.drops();
        let waiting = self.waiting();
        happen(&mut self.gateway);
        let mut fate = Fate::default();
        loop {
            let sent = self.gateway.take_sent();
            if sent.is_empty() {
                break;
            }
            for it in &sent {
                fate.sent.push((it.from, it.to, hex(&it.bytes)));
            }
            let datagrams: Vec<_> = sent.iter().map(echo).collect();
            self.last = datagrams.last().cloned();
            self.gateway.receive(&datagrams, None);
        }
        for it in self.gateway.take_delivered() {
            let at = self.gateway.snapshot().topology.entry_name(it.at.into());
            fate.delivered.push((at, it.device.to_string(), hex(&it.packet)));
        }
        for (reason, count) in self.drops() {
            let more = count - drops.get(&reason).copied().unwrap_or_default();
            if more > 0 {
                fate.dropped.insert(reason, more);
            }
        }
        fate.held = self.waiting().saturating_sub(waiting);
        let told = Fate::told(&explanation);
        assert_eq!(fate.sorted(), told, "{given:?}\n{explanation}");
        let delivered = told.dropped.is_empty() && told.held == 0;
        assert!(delivered || !explanation.delivered, "{explanation}");
    }

    /// All that could have changed.
    fn counted(&self) -> String {
        let it = &self.gateway;
        let mut text = format!("{:?}{:?}{:?}", it.totals(), it.target_totals(), it.hostile());
        let _ = write!(text, "{:?}", it.poll_timeout());
        text
    }

    fn drops(&self) -> BTreeMap<String, u64> {
        let totals = self.gateway.totals();
        let mut drops = BTreeMap::new();
        for (reason, count) in totals.tun.drops.iter().chain(&totals.udp.drops) {
            *drops.entry((*reason).to_owned()).or_default() += count;
        }
        drops
    }

    /// Fragments that wait.
    fn waiting(&self) -> usize {
        let totals = self.gateway.totals();
        let of = |flow: &gwlb::dataplane::stats::FlowTotals| (flow.held - flow.released) as usize;
        of(&totals.tun.flow) + of(&totals.udp.flow)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What histories have to bring about, for the test to mean anything.
const WANTED: &[&str] = &[
    "2-tuple",
    "3-tuple",
    "accepted",
    "blackhole",
    "bad_cookie",
    "delivered",
    "exceeds_mtu",
    "flow moves",
    "fragmented",
    "grouped",
    "held",
    "malformed_packet",
    "mss_clamped",
    "new_flow_limit",
    "no_route",
    "no_subnet",
    "no_target",
    "not_attached",
    "released",
    "replied",
    "reset",
    "super-packet",
    "table_full",
    "translated",
    "uninspected",
    "unknown_tcp_flow",
];

#[test]
fn what_is_explained_is_what_happens() {
    let courses = (policy(), extras(), 1..=3_u16, any::<bool>(), vec(event(), 1..100));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(240) };
    let (mut runner, seen) = (TestRunner::new(config), RefCell::new(BTreeSet::new()));
    let outcome = runner.run(&courses, |(policy, extras, workers, in_turn, events)| {
        let queues = if in_turn { Queues::InTurn } else { Queues::ByFlow };
        let setup = Setup { queues, ..Setup::of(workers) };
        let gateway = Gateway::new(extras.settings(&policy, Variant::AsItWas), setup);
        let seen = &seen;
        let mut history = History { gateway, policy, extras, id: 0, last: None, seen };
        for event in &events {
            history.step(event);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    let missed: Vec<_> = WANTED.iter().filter(|it| !seen.contains(**it)).collect();
    assert!(missed.is_empty(), "never: {missed:?}, but {seen:?}");
}
