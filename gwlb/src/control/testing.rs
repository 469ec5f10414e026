//! A control plane in virtual time for the unit tests: targets that answer as told, and a record
//! of everything that came out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use router::source::Source;

use super::event::Event;
use super::probe::ProbeOutcome;
use super::status::TargetStatus;
use super::tunnel::{TunnelOutcome, TunnelRequest};
use super::{Control, Input, Output, ProbeRequest, TargetSpec};
use crate::config::Settings;
use crate::dataplane::keys::Secret;
use crate::dataplane::snapshot::{Fate, Snapshot, TargetSlot};

/// Where the virtual clock starts: the same in every call.
#[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
pub(super) fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// The calendar at that time: 1000 s after 1970.
pub(super) const EPOCH: Duration = Duration::from_secs(1000);

/// A file with one endpoint and one load balancer node per zone. `balancer`, `group`, `check` are
/// further lines of these tables; each target is its address (the last byte) and zone.
pub(super) fn file(
    [balancer, group, check]: [&str; 3],
    zones: &[&str],
    targets: &[(u8, &str)],
) -> String {
    let mut text = String::from("[[vpc]]\nname = \"app\"\ncidrs = [\"10.0.0.0/16\"]\n");
    let mut nodes = Vec::new();
    for (number, zone) in zones.iter().enumerate() {
        let _ = write!(
            text,
            "[[subnet]]\nname = \"gwlbe-{zone}\"\nvpc = \"app\"\nzone = \"{zone}\"\n\
             cidrs = [\"10.0.{number}.0/28\"]\n\
             [[endpoint]]\nname = \"vpce-{zone}\"\nsubnet = \"gwlbe-{zone}\"\n\
             service = \"inspection\"\n"
        );
        nodes.push(format!("{{ zone = \"{zone}\", address = \"192.0.2.{}\" }}", number + 1));
    }
    let _ = write!(
        text,
        "[[endpoint_service]]\nname = \"inspection\"\nload_balancers = [\"lb\"]\n\
         [[load_balancer]]\nname = \"lb\"\ntarget_group = \"fw\"\nnodes = [{}]\n{balancer}\n\
         [[target_group]]\nname = \"fw\"\n{group}\n\
         [target_group.health_check]\n{check}\n",
        nodes.join(", ")
    );
    for (address, zone) in targets {
        let _ = write!(
            text,
            "[[target]]\ngroup = \"fw\"\naddress = \"192.0.2.{address}\"\nzone = \"{zone}\"\n"
        );
    }
    text
}

/// The settings of a file, which is right.
pub(super) fn settings(text: &str) -> Arc<Settings> {
    let source = Source::new("test.toml", text);
    Arc::new(crate::config::parse(&source).unwrap_or_else(|problems| panic!("{problems}\n{text}")))
}

/// How a target behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// The outcome of health probes and how long they take.
    pub probe: (ProbeOutcome, Duration),
    /// The largest inner packet that comes back through the tunnel, and how long that takes.
    pub tunnel: (u16, Duration),
}

const ROUND_TRIP: Duration = Duration::from_millis(1);

impl Manner {
    pub const GOOD: Self =
        Self { probe: (ProbeOutcome::Passed, ROUND_TRIP), tunnel: (u16::MAX, ROUND_TRIP) };
    /// Probes time out.
    pub const DEAD: Self =
        Self { probe: (ProbeOutcome::TimedOut, Duration::MAX), tunnel: (0, ROUND_TRIP) };

    pub const fn answering(outcome: ProbeOutcome) -> Self {
        Self { probe: (outcome, ROUND_TRIP), ..Self::GOOD }
    }
}

/// A control plane, and a world that answers it.
pub(super) struct World {
    pub control: Control,
    /// Milliseconds since the start.
    pub ms: u64,
    /// By the last byte of the target's address; those that are not here are good.
    pub manners: BTreeMap<u8, Manner>,
    /// A node from which packets come back through tunnels only up to a size.
    pub narrow: Option<(u8, u16)>,
    /// Whether views are acknowledged at once.
    pub acknowledges: bool,
    /// Answers on their way, by time.
    answers: BTreeMap<(u64, u64), Input>,
    count: u64,
    /// Health probes made: time in ms, and the last bytes of source and target.
    pub probes: Vec<(u64, u8, u8)>,
    /// Probes sent through tunnels.
    pub tunnels: Vec<(u64, TunnelRequest)>,
    pub events: Vec<(u64, Event)>,
    /// Times of the views.
    pub published: Vec<u64>,
}

fn last(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}

impl World {
    pub fn new(text: &str) -> Self {
        Self::with(text, BTreeMap::new())
    }

    pub fn with(text: &str, manners: BTreeMap<u8, Manner>) -> Self {
        let secret = Secret::from_bytes([3; Secret::LEN]);
        let control = Control::new(settings(text), secret, 2, EPOCH, start());
        let mut world = Self {
            control,
            ms: 0,
            manners,
            narrow: None,
            acknowledges: true,
            answers: BTreeMap::new(),
            count: 0,
            probes: Vec::new(),
            tunnels: Vec::new(),
            events: Vec::new(),
            published: Vec::new(),
        };
        world.take_outputs();
        world
    }

    pub fn now(&self) -> Instant {
        start() + Duration::from_millis(self.ms)
    }

    pub fn handle(&mut self, input: Input) {
        self.control.handle(input, self.now());
        self.take_outputs();
    }

    /// Time passes until `ms`, and everything happens at its time.
    pub fn run_until(&mut self, ms: u64) {
        loop {
            let due = self.control.poll_timeout().map(|due| {
                let since = due.saturating_duration_since(start());
                u64::try_from(since.as_micros().div_ceil(1000)).unwrap()
            });
            let answer = self.answers.keys().next().map(|&(at, _)| at);
            let next = [due, answer].into_iter().flatten().min();
            let Some(next) = next.filter(|&next| next <= ms) else { break };
            self.ms = self.ms.max(next);
            if answer == Some(next) {
                let (_, input) = self.answers.pop_first().unwrap();
                self.control.handle(input, self.now());
            } else {
                self.control.handle_timeout(self.now());
                let due = self.control.poll_timeout();
                assert!(due.is_none_or(|due| due > self.now()), "it would be polled for ever");
            }
            self.take_outputs();
        }
        self.ms = ms;
    }

    pub fn run_for(&mut self, ms: u64) {
        self.run_until(self.ms + ms);
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.control.poll_output() {
            match output {
                Output::Publish(snapshot) => {
                    self.published.push(self.ms);
                    if self.acknowledges {
                        let now = self.now();
                        self.control.handle(Input::Acknowledged(snapshot.generation), now);
                    }
                }
                Output::Probe(request) => self.answer(&request),
                Output::TunnelProbe(request) => self.answer_tunnel(request),
                Output::Event(event) => self.events.push((self.ms, event)),
            }
        }
    }

    fn manner(&self, target: IpAddr) -> Manner {
        self.manners.get(&last(target)).copied().unwrap_or(Manner::GOOD)
    }

    fn answer(&mut self, request: &ProbeRequest) {
        let ProbeRequest { check, source, address, timeout, .. } = *request;
        self.probes.push((self.ms, last(source), last(address.ip())));
        let (outcome, takes) = self.manner(address.ip()).probe;
        self.later(takes.min(timeout), Input::Probe { check, outcome });
    }

    fn answer_tunnel(&mut self, request: TunnelRequest) {
        let TunnelRequest { check, sequence, address, timeout, .. } = request;
        let (largest, takes) = self.manner(address.ip()).tunnel;
        let inner = request.packet.len() - 40;
        let from = last(request.source);
        let narrow = self.narrow.filter(|&(node, _)| node == from);
        let largest = narrow.map_or(largest, |(_, narrow)| narrow.min(largest));
        let (outcome, takes) = if inner <= usize::from(largest) {
            (TunnelOutcome::Returned, takes)
        } else {
            (TunnelOutcome::Lost, timeout)
        };
        self.tunnels.push((self.ms, request));
        self.later(takes, Input::TunnelProbe { check, sequence, outcome });
    }

    fn later(&mut self, after: Duration, input: Input) {
        self.count += 1;
        let at = self.ms + u64::try_from(after.as_millis()).unwrap();
        self.answers.insert((at, self.count), input);
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.control.snapshot()
    }

    /// The last bytes of the addresses of a pool's candidates, with their weights.
    pub fn weights(&self, pool: usize) -> Vec<(u8, u16)> {
        let snapshot = self.snapshot();
        let candidates = snapshot.pools[pool].candidates.iter();
        candidates.map(|it| (last(snapshot.target(it.target).address.ip()), it.weight)).collect()
    }

    /// The last bytes of the addresses of a pool's candidates.
    pub fn candidates(&self, pool: usize) -> Vec<u8> {
        self.weights(pool).into_iter().map(|(target, _)| target).collect()
    }

    /// The slot of the target whose address ends so.
    pub fn slot(&self, target: u8) -> TargetSlot {
        let snapshot = self.snapshot();
        let mut slots = snapshot.sources.values().flatten();
        *slots.find(|slot| last(snapshot.target(**slot).address.ip()) == target).unwrap()
    }

    pub fn fate(&self, pool: usize, target: u8) -> Fate {
        self.snapshot().pools[pool].fate(self.slot(target))
    }

    pub fn status(&self, target: u8) -> TargetStatus {
        let ending = format!(".{target}:6081");
        let mut targets = self.control.targets().into_iter();
        targets.find(|status| status.address.ends_with(&ending)).unwrap()
    }

    /// State, and reason as AWS spells it.
    pub fn state(&self, target: u8) -> (&'static str, Option<&'static str>) {
        let status = self.status(target);
        (status.state.name(), status.reason.map(super::ReasonCode::name))
    }

    /// Flows begin at and end with a target.
    pub fn flows(&self, target: u8, begun: u64, ended: u64) {
        let snapshot = self.snapshot();
        let counters = &snapshot.target(self.slot(target)).counters;
        counters[0].new_flows.add(begun);
        counters[1].ended_flows.add(ended);
    }

    pub fn deregister(&mut self, target: u8) {
        let now = self.now();
        self.control.deregister("fw", address(target), None, now).unwrap();
        self.take_outputs();
    }

    pub fn register(&mut self, target: u8, zone: &str) {
        let zone = Some(zone.to_owned());
        let spec = TargetSpec { address: address(target), port: None, zone, weight: None };
        let now = self.now();
        self.control.register("fw", &spec, now).unwrap();
        self.take_outputs();
    }

    pub fn reload(&mut self, text: &str) {
        let now = self.now();
        self.control.reload(settings(text), now);
        self.take_outputs();
    }

    /// When the probes of one node for one target were made, in ms, since the last call.
    pub fn take_probes(&mut self, source: u8, target: u8) -> Vec<u64> {
        let (these, others) = std::mem::take(&mut self.probes)
            .into_iter()
            .partition(|&(_, from, to)| (from, to) == (source, target));
        self.probes = others;
        let these: Vec<(u64, u8, u8)> = these;
        these.into_iter().map(|(at, ..)| at).collect()
    }

    /// The sentences of the events since the last call.
    pub fn take_events(&mut self) -> Vec<String> {
        self.events.drain(..).map(|(_, event)| event.to_string()).collect()
    }
}

pub(super) fn address(target: u8) -> IpAddr {
    SocketAddr::from(([192, 0, 2, target], 0)).ip()
}
