//! A whole gateway in memory, from both sides: packets, datagrams, time, health and reloads in any
//! order. The model follows every step, and the gateway in memory itself insists on more: sends that
//! a kernel would take, segments that fit, super-packets that are cut into what came.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use geneve::Inner;
use gwlb::config::Settings;
use gwlb::control::ProbeOutcome;
use gwlb::dataplane::fragments::FragmentTable;
use gwlb::dataplane::stats::Totals;
use gwlb_tests::appliance::echo;
use gwlb_tests::gateway::{Answer, Datagram, Gateway, Packet, Queues, Sent, Setup};
use gwlb_tests::model::{Fleet, Model, Violation};
use gwlb_tests::packets::{fragments, super_packet};
use router::source::Source;

use crate::engine::fuzz;
use crate::input::Input;
use crate::offload::offload;
use crate::session::some_packet;

/// What the configuration of the scenarios is changed into.
const VARIANTS: [(&str, &str); 9] = [
    ("", ""),
    (GROUP, "dialect = \"google\"\nstickiness = \"3-tuple\"\n"),
    (GROUP, "when_none_healthy = \"bypass\"\n"),
    (
        GROUP,
        "when_none_healthy = \"fail_closed\"\ntarget_failover = { on_unhealthy = \"rebalance\" }\n",
    ),
    (GROUP, "send_tcp_reset = { on_unhealthy = true, on_deregistration = true }\n"),
    (
        BALANCER,
        "cross_zone = true\ntcp_unknown_flow = \"adopt\"\nsend_tcp_reset_on_idle_timeout = true\n",
    ),
    (BALANCER, "tcp_unknown_flow = \"reset\"\n"),
    (
        "[[internet_gateway]]\nname = \"igw\"\n",
        "addresses = [{ public = \"198.51.100.11\", private = \"10.0.1.11\" }]\n",
    ),
    ("address = \"192.0.2.12\"\n", "weight = 0\n"),
];
const GROUP: &str = "[[target_group]]\nname = \"fw\"\n";
const BALANCER: &str = "[[load_balancer]]\nname = \"fw\"\n";

fn variants() -> Vec<Settings> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/gateway.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let changed = |(behind, added): (&str, &str)| {
        assert!(behind.is_empty() || text.contains(behind), "{behind:?} is in the scenarios' file");
        let text =
            text.replacen(behind, &format!("{behind}{added}"), usize::from(!behind.is_empty()));
        let settings = gwlb::config::parse(&Source::new("gateway.toml", text));
        settings.unwrap_or_else(|problems| panic!("{problems}"))
    };
    VARIANTS.map(changed).into()
}

const TARGETS: [[u8; 4]; 3] = [[192, 0, 2, 11], [192, 0, 2, 12], [192, 0, 2, 21]];
const NODES: [[u8; 4]; 3] = [[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 11]];

/// A gateway with what appliances hold, and the model that follows it.
struct History {
    gateway: Gateway,
    model: Model,
    appliances: Vec<Sent>,
    before: Totals,
}

impl History {
    fn new(input: &mut Input<'_>, variants: &[Settings]) -> Self {
        let choice = input.byte();
        let mut settings = variants[usize::from(choice) % variants.len()].clone();
        settings.gateway.max_flows_per_worker = 1 + usize::from(choice >> 5);
        let sizes = input.byte();
        let queues = if sizes & 1 > 0 { Queues::InTurn } else { Queues::ByFlow };
        let inbox = 1 + usize::from(sizes >> 1 & 3);
        let workers = 1 + u16::from(sizes >> 3) % 3;
        let setup = Setup { inbox, queues, journal: true, ..Setup::of(workers) };
        let model = Model::new(&settings, &setup, &Fleet::new());
        let gateway = Gateway::new(settings, setup);
        let before = gateway.totals();
        Self { gateway, model, appliances: Vec::new(), before }
    }

    fn step(&mut self, input: &mut Input<'_>, variants: &[Settings]) {
        let step = input.byte();
        let queue = (step & 0x80 > 0).then(|| u16::from(step >> 5 & 3));
        match step & 15 {
            0..=3 => {
                let packet = some_packet(input);
                self.enter(step & 0x10 > 0, &[Packet::plain(packet)], queue);
            }
            4 => {
                let control = input.take(12);
                let mut packet =
                    if step & 0x20 > 0 { some_packet(input) } else { input.chunk().into() };
                if step & 0x40 > 0 {
                    // Too long for the path, whatever it is.
                    lengthen(&mut packet, 2000);
                }
                let offload = offload(&mut Input::new(control), &packet);
                self.enter(step & 0x10 > 0, &[Packet { bytes: packet, offload }], queue);
            }
            5 => {
                let (size, repeat) = (1 + u16::from(input.byte()) * 8, input.below(8));
                let packet = some_packet(input);
                let Some(packet) = grown(packet, usize::from(size) * repeat, size) else { return };
                self.enter(step & 0x10 > 0, &[packet], queue);
            }
            6 => {
                let packet = some_packet(input);
                let simple = Inner::parse(&packet).is_ok_and(|inner| {
                    inner.header_len == inner.version.header_len()
                        && inner.total_len == packet.len()
                        && inner.fragment == geneve::Fragment::Whole
                });
                if !simple || packet.len() == 20 || packet.len() == 40 {
                    return;
                }
                let mut pieces = fragments(&packet, u16::from(step >> 4), 24);
                if step & 0x40 > 0 {
                    pieces.reverse();
                }
                let pieces: Vec<_> = pieces.into_iter().map(Packet::plain).collect();
                self.enter(step & 0x10 > 0, &pieces, queue);
            }
            7 | 8 => {
                let most = self.appliances.len().min(1 + input.below(16));
                let back: Vec<_> = self.appliances.drain(..most).map(|sent| echo(&sent)).collect();
                self.receive(&back, queue);
            }
            9 => {
                let Some(sent) = self.appliances.get(usize::from(step >> 4)) else { return };
                let mut datagram = echo(sent);
                spoil(&mut datagram, input);
                self.receive(&[datagram], queue);
            }
            10 => {
                let from = SocketAddr::from((input.pick(&TARGETS), input.u16()));
                let to = input.pick(&NODES).into();
                self.receive(&[Datagram { from, to, bytes: input.chunk().to_vec() }], queue);
            }
            11 => self.gateway.advance(Duration::from_millis(u64::from(input.u16()))),
            12 => self.gateway.advance(Duration::from_secs(u64::from(input.byte()) * 2)),
            13 if step & 0x10 > 0 => self.gateway.hold(),
            13 => self.gateway.release(),
            14 => {
                let outcome = input.pick(&[
                    ProbeOutcome::Passed,
                    ProbeOutcome::TimedOut,
                    ProbeOutcome::Local,
                ]);
                let target = IpAddr::from(input.pick(&TARGETS));
                let answer = Answer { target, node: None, kind: None, outcome, largest: None };
                self.gateway.answer_probes(answer);
            }
            _ => {
                let mut settings = variants[input.below(variants.len())].clone();
                let present = self.gateway.settings();
                settings.gateway = present.gateway.clone();
                let changes = gwlb::config::diff(present, &settings);
                if !changes.iter().any(|change| change.restart) {
                    self.gateway.reload(settings);
                }
            }
        }
    }

    fn enter(&mut self, inside: bool, packets: &[Packet], queue: Option<u16>) {
        let at = self.gateway.attachment(if inside { "app-a" } else { "igw" }).unwrap();
        self.gateway.enter(at, packets, queue);
    }

    fn receive(&mut self, datagrams: &[Datagram], queue: Option<u16>) {
        self.gateway.receive(datagrams, queue);
    }

    /// What holds after every step.
    fn check(&mut self) {
        let totals = self.gateway.totals();
        for (ledger, before) in [(&totals.tun, &self.before.tun), (&totals.udp, &self.before.udp)] {
            let (came, went) = ledger.balance();
            assert_eq!(came, went, "{ledger:?}");
            assert!(ledger.flow.received >= before.flow.received, "a counter went back");
        }
        self.before = totals;
        self.follow().unwrap_or_else(|violation| panic!("{violation}"));
        self.gateway.take_delivered();
        self.appliances.extend(self.gateway.take_sent());
        // Memory of the test, not of the gateway.
        self.appliances.truncate(64);
    }

    fn follow(&mut self) -> Result<(), Violation> {
        let steps = self.gateway.take_journal();
        steps.iter().try_for_each(|step| self.model.follow(step))?;
        self.model.check_books(&self.gateway.totals(), &self.gateway.target_totals())?;
        self.model.check_hostile(&self.gateway.hostile())
    }

    fn end(mut self) {
        self.gateway.release();
        self.gateway.advance(FragmentTable::HOLD);
        self.check();
        let back: Vec<_> = self.appliances.drain(..).map(|sent| echo(&sent)).collect();
        self.receive(&back, None);
        self.check();
        let totals = self.gateway.totals();
        assert_eq!((totals.tun.queued(), totals.udp.queued()), (0, 0));
    }
}

/// The packet with more payload, as a host would offload it.
fn grown(mut packet: Vec<u8>, by: usize, size: u16) -> Option<Packet> {
    let inner = Inner::parse(&packet).ok()?;
    let sound = inner.total_len == packet.len() && inner.fragment == geneve::Fragment::Whole;
    let udp = match inner.transport {
        geneve::Transport::Tcp { .. } => false,
        geneve::Transport::Udp { .. } => true,
        _ => return None,
    };
    let total = packet.len() + by;
    if !sound || total > 65_535 {
        return None;
    }
    lengthen(&mut packet, total);
    if udp {
        let len = (total - inner.header_len) as u16;
        packet[inner.header_len + 4..][..2].copy_from_slice(&len.to_be_bytes());
    }
    Some(super_packet(&packet, size))
}

/// Makes an IP packet longer, if it is one.
fn lengthen(packet: &mut Vec<u8>, total: usize) {
    let (at, len) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => (2, total),
        Some(6) => (4, total - 40),
        _ => return,
    };
    packet.resize(total, 7);
    packet[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
}

/// Changes a datagram as nobody should.
fn spoil(datagram: &mut Datagram, input: &mut Input<'_>) {
    let len = datagram.bytes.len();
    match input.byte() & 7 {
        0 => datagram.bytes.truncate(input.below(len + 1)),
        1 => datagram.bytes.extend_from_slice(input.chunk()),
        2 => datagram.from.set_ip(input.pick(&TARGETS).into()),
        3 => datagram.from.set_port(input.u16()),
        4 => datagram.to = input.pick(&NODES).into(),
        _ => {
            let at = input.below(len);
            datagram.bytes[at] ^= 1 << (input.byte() & 7);
        }
    }
}

/// Longer histories are the simulation's; here it is how many different ones are tried that counts.
const STEPS: usize = 80;

#[test]
fn histories() {
    let variants = variants();
    fuzz!(400, move |bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let mut history = History::new(&mut input, &variants);
        for _ in 0..STEPS {
            if input.is_empty() {
                break;
            }
            history.step(&mut input, &variants);
            history.check();
        }
        history.end();
    });
}

/// One packet out, and anything in its place back: what gets through is of the flow that was sent
/// to that appliance.
#[test]
fn returns() {
    let settings = variants().swap_remove(0);
    let opening =
        gwlb_tests::packets::Ip::new("203.0.113.7", "10.0.1.11").udp((1000, 53), b"hello");
    let key = Inner::parse(&opening).unwrap().flow_key().canonical();
    fuzz!(600, move |bytes: &[u8]| {
        let mut gateway = Gateway::new(settings.clone(), Setup::of(1));
        let igw = gateway.attachment("igw").unwrap();
        gateway.enter(igw, &[Packet::plain(&opening[..])], None);
        let sent = gateway.take_sent().remove(0);
        let mut input = Input::new(bytes);
        let choice = input.byte();
        let mut back = echo(&sent);
        if choice & 1 > 0 {
            // The header is right, and what it carries is anything.
            back.bytes.truncate(40);
            back.bytes.extend_from_slice(input.rest());
        } else if choice & 2 > 0 {
            while !input.is_empty() && !back.bytes.is_empty() {
                spoil(&mut back, &mut input);
            }
        } else {
            back.bytes = input.rest().to_vec();
        }
        gateway.receive(&[back], None);
        for delivered in gateway.take_delivered() {
            let inner = Inner::parse(&delivered.packet).unwrap();
            // A first fragment shows the ports as well.
            let own = inner.ported_key().is_some_and(|own| own.canonical() == key);
            let about = match inner.transport {
                geneve::Transport::IcmpError { about, .. } => about.canonical() == key,
                _ => false,
            };
            assert!(own || about, "{inner:?}");
        }
        let totals = gateway.totals();
        assert_eq!(totals.udp.balance().0, totals.udp.balance().1);
    });
}
