//! A whole gateway without threads, sockets, devices and a clock: workers, the hand-over between
//! them, and the control plane, driven packet by packet.
//!
//! It decides nothing itself. It does with the sans-IO core what the runtime does, with memory in
//! place of the kernel, and holds on the way what must always hold: batches that the kernel would
//! take, segments that fit the path, super-packets that are cut into what came back.

mod by_hand;
mod exits;
mod explained;
pub mod journal;
mod probes;
mod time;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use geneve::Inner;
use gwlb::config::{Port, Settings, TrafficMode};
use gwlb::control::{
    CheckId, CommandError, Control, Event, Input, Output, ProbeRequest, TargetSpec, TargetStatus,
    TunnelOutcome, TunnelRequest, recognise,
};
use gwlb::dataplane::fragments::{FragmentTable, HostileTotals};
use gwlb::dataplane::keys::Secret;
use gwlb::dataplane::snapshot::{Snapshot, TargetSlot};
use gwlb::dataplane::stats::{EndpointCounts, EndpointTotals, TargetTotals, Totals};
use gwlb::dataplane::verdict::WorkerId;
use netio::offload::{Limits, MAX_HEADERS, Offload, Segmenter};
use router::Attachment;

pub use exits::{Delivered, Sent};
use exits::{Devices, Exits};
use journal::{Command, Happened, Step};
pub use probes::{Answer, ProbeKind};
use probes::{Answers, Tunnelled};
pub use time::Stuck;
use worker::{Surroundings, Worker};

/// The secret of every gateway here, so that the same packets make the same bytes. Of many that were
/// tried it is one by which the flows of scenarios that are about several appliances do not all go to
/// the same.
pub const SECRET: Secret = Secret::from_bytes(*b"^^^^^^^^^^^^^^^^^^^^^^^^\0\0\0\0\x16\xe6\x06\x25");

/// How a gateway is set up, beyond its configuration.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// How many workers.
    pub workers: u16,
    /// Which of them reads what arrives.
    pub queues: Queues,
    /// The calendar's time at the start, since 1970.
    pub wall_clock: Duration,
    /// How many packets fit into the queue to a worker.
    pub inbox: usize,
    /// Whether what happens is written down, for [`Gateway::take_journal`].
    pub journal: bool,
    /// Whether nothing goes by itself between its parts: workers take up views, and what others
    /// hand over to them, when they are told to ([`Gateway::take_up`], [`Gateway::serve_inbox`]);
    /// probes are answered by whoever takes them ([`Gateway::take_probes`]), and those through the
    /// tunnel are sent and received as all datagrams are.
    pub by_hand: bool,
}

impl Setup {
    /// Workers that read what the kernel would give them.
    pub fn of(workers: u16) -> Setup {
        let (queues, wall_clock) = (Queues::ByFlow, Duration::ZERO);
        Setup { workers, queues, wall_clock, inbox: 1024, journal: false, by_hand: false }
    }
}

/// Which worker reads what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queues {
    /// As the kernel has it: on a TUN a hash of the flow that is the same in both directions, on
    /// UDP the worker in whose slice the source port lies.
    ByFlow,
    /// The next one for each packet, so that nearly all of them are wrong.
    InTurn,
}

/// A packet as a device gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Its bytes: an IP packet, one should think.
    pub bytes: Vec<u8>,
    /// What is left to be done to it.
    pub offload: Offload,
}

impl Packet {
    /// A packet to which nothing is left to be done.
    pub fn plain(bytes: impl Into<Vec<u8>>) -> Packet {
        Packet { bytes: bytes.into(), offload: Offload::NONE }
    }

    /// What it stands for; if that is nothing that could be, its bytes as they are.
    fn cut(&self) -> Vec<Packet> {
        let segmenter = Inner::parse(&self.bytes).ok();
        let segmenter = segmenter
            .and_then(|inner| Segmenter::new(&self.bytes, &inner, &self.offload).ok())
            .filter(|_| self.offload != Offload::NONE);
        let Some(segmenter) = segmenter else { return vec![Packet::plain(&self.bytes[..])] };
        let mut headers = [0; MAX_HEADERS];
        let segment = |index| {
            let segment = segmenter.segment(index, &mut headers);
            let payload = &self.bytes[segment.payload];
            Packet::plain([&headers[..segment.header_len], payload].concat())
        };
        (0..segmenter.count()).map(segment).collect()
    }
}

/// A UDP payload on its way to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it, with the port.
    pub from: SocketAddr,
    /// The gateway's address that it was sent to.
    pub to: IpAddr,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// A whole gateway in memory.
#[derive(Debug)]
pub struct Gateway {
    settings: Arc<Settings>,
    control: Control,
    workers: Vec<Worker>,
    exits: Exits,
    setup: Setup,
    start: Instant,
    elapsed: Duration,
    /// Counts what arrived, for [`Queues::InTurn`].
    arrived: usize,
    holding: bool,
    /// Whether time has passed in which nothing was done.
    asleep: bool,
    fragments: Arc<FragmentTable>,
    answers: Answers,
    /// Probes that nobody answers, and when their time is over.
    unanswered: Vec<(Instant, Input)>,
    /// Health probes that nobody has taken yet.
    probes: Vec<ProbeRequest>,
    /// By whom the probes through the tunnel are brought back that are under way.
    tunnels: BTreeMap<(CheckId, u32), TargetSlot>,
    /// The calendar's time, and when it was that.
    wall_clock: (Duration, Duration),
    /// The view that every worker holds, or a later one, as far as the control plane was told.
    acknowledged: u64,
    events: Vec<(Duration, Event)>,
}

impl Gateway {
    /// A gateway at time 0.
    pub fn new(settings: Settings, setup: Setup) -> Gateway {
        Gateway::with_answers(settings, setup, &[])
    }

    /// A gateway at time 0, with targets some of which answer probes in another way than by
    /// passing them.
    pub fn with_answers(settings: Settings, setup: Setup, answers: &[Answer]) -> Gateway {
        let settings = Arc::new(settings);
        let start = start();
        let control =
            Control::new(Arc::clone(&settings), SECRET, setup.workers, setup.wall_clock, start);
        let snapshot = control.snapshot();
        let fragments = Arc::new(FragmentTable::default());
        let surroundings = Surroundings {
            max_flows: settings.gateway.max_flows_per_worker,
            fragments: &fragments,
            snapshot: &snapshot,
            start,
        };
        let workers =
            (0..setup.workers).map(|id| Worker::new(WorkerId(id), &surroundings)).collect();
        let mut devices = Devices::default();
        devices.note(snapshot.topology_epoch, &settings);
        let exits = Exits::new(snapshot, devices, setup.inbox, setup.journal);
        let mut gateway = Gateway {
            settings,
            control,
            workers,
            exits,
            setup,
            start,
            elapsed: Duration::ZERO,
            arrived: 0,
            holding: false,
            asleep: false,
            fragments,
            answers: Answers::default(),
            unanswered: Vec::new(),
            probes: Vec::new(),
            tunnels: BTreeMap::new(),
            wall_clock: (setup.wall_clock, Duration::ZERO),
            acknowledged: 0,
            events: Vec::new(),
        };
        for answer in answers {
            gateway.answers.say(*answer);
        }
        gateway.follow();
        gateway
    }

    /// The configuration that is in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The attachment whose device has this name.
    pub fn attachment(&self, tun: &str) -> Option<Attachment> {
        let mut attachments = self.settings.attachments.iter();
        attachments.find(|attachment| attachment.tun.as_str() == tun).map(|found| found.at)
    }

    /// The name of an attachment's device.
    pub fn device(&self, at: Attachment) -> &str {
        let exits = self.settings.exits();
        let found = exits.iter().find(|(known, _)| *known == at);
        found.map_or("?", |(_, attachment)| self.settings.attachments[*attachment].tun.as_str())
    }

    /// The name of the device at a place as a worker numbers it now.
    pub fn device_of(&self, worker: WorkerId, at: Attachment) -> Arc<str> {
        self.exits.devices.name(at, self.view(worker).topology_epoch)
    }

    /// The target that takes Geneve at this address.
    pub fn target(&self, address: IpAddr) -> Option<TargetSlot> {
        self.exits.snapshot.sources.get(&address)?.first().copied()
    }

    /// What the data plane knows of the configuration now.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.exits.snapshot
    }

    /// Packets are waiting on the device at `at`, in this order. They are read by the worker of
    /// this queue, or by whoever [`Setup::queues`] says.
    pub fn enter(&mut self, at: Attachment, packets: &[Packet], queue: Option<u16>) {
        let now = self.now();
        let latest = self.exits.snapshot.topology_epoch;
        let device = self.exits.devices.find(at, latest);
        // The kernel has cut what it gives to a device without offload.
        let cut = device.filter(|it| it.limits == Limits::PLAIN);
        let cut = cut.map(|_| packets.iter().flat_map(Packet::cut).collect::<Vec<_>>());
        let packets = cut.as_deref().unwrap_or(packets);
        let readers = self.readers(packets, queue, |packet| flow_hash(&packet.bytes));
        for (reader, batch) in batches(&readers, packets) {
            // A worker's devices are those of the view that it holds.
            let own = self.workers[reader].snapshot.topology_epoch;
            let at = self.exits.devices.renumbered(at, latest, own);
            self.workers[reader].take_tun(at, batch, now, &mut self.exits);
            self.hand_over();
        }
    }

    /// Datagrams from appliances are waiting, in this order.
    pub fn receive(&mut self, datagrams: &[Datagram], queue: Option<u16>) {
        let now = self.now();
        let by_port = |datagram: &Datagram| usize::from(datagram.from.port());
        let readers = self.readers(datagrams, queue, by_port);
        for (reader, batch) in batches(&readers, datagrams) {
            self.workers[reader].take_udp(batch, now, &mut self.exits);
            self.hand_over();
        }
        self.recognise_probes();
    }

    /// Leaves packets in the queues between workers from now on, until [`Gateway::release`].
    pub fn hold(&mut self) {
        self.holding = true;
    }

    /// Empties the queues between workers.
    pub fn release(&mut self) {
        self.holding = false;
        self.hand_over();
    }

    /// The control plane is told something, and what it has to say reaches every worker.
    pub fn control(&mut self, input: Input) {
        self.tell(input);
        self.follow();
    }

    /// A target is registered, or changed.
    ///
    /// # Errors
    /// [`CommandError`], as of [`Control::register`].
    pub fn register(&mut self, group: &str, spec: &TargetSpec) -> Result<(), CommandError> {
        let command = || Command::Register { group: group.to_owned(), spec: spec.clone() };
        self.command(command, |control, now| control.register(group, spec, now))
    }

    /// A target is deregistered.
    ///
    /// # Errors
    /// [`CommandError`], as of [`Control::deregister`].
    pub fn deregister(
        &mut self,
        group: &str,
        address: IpAddr,
        port: Option<Port>,
    ) -> Result<(), CommandError> {
        let command = || Command::Deregister { group: group.to_owned(), address, port };
        self.command(command, |control, now| control.deregister(group, address, port, now))
    }

    /// A load balancer is switched between inspection and bypass.
    ///
    /// # Errors
    /// [`CommandError`], as of [`Control::set_traffic_mode`].
    pub fn set_traffic_mode(
        &mut self,
        load_balancer: &str,
        mode: TrafficMode,
    ) -> Result<(), CommandError> {
        let command = || Command::TrafficMode { load_balancer: load_balancer.to_owned(), mode };
        self.command(command, |control, now| control.set_traffic_mode(load_balancer, mode, now))
    }

    /// A group of endpoints is switched to one of them, or back.
    ///
    /// # Errors
    /// [`CommandError`], as of [`Control::switch_endpoint_group`].
    pub fn switch_endpoint_group(
        &mut self,
        group: &str,
        to: Option<&str>,
    ) -> Result<(), CommandError> {
        let command =
            || Command::SwitchEndpointGroup { group: group.to_owned(), to: to.map(str::to_owned) };
        self.command(command, |control, now| control.switch_endpoint_group(group, to, now))
    }

    fn command(
        &mut self,
        command: impl FnOnce() -> Command,
        ask: impl FnOnce(&mut Control, Instant) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let now = self.now();
        let answer = ask(&mut self.control, now);
        let ok = answer.is_ok();
        self.exits.journal.note(|| Happened::Command { command: command(), ok });
        self.follow();
        answer
    }

    fn tell(&mut self, input: Input) {
        let now = self.now();
        self.exits.journal.note(|| Happened::Told(input));
        self.control.handle(input, now);
    }

    /// Another configuration takes the place of the present one.
    ///
    /// # Panics
    /// If it differs in what a running gateway cannot change.
    pub fn reload(&mut self, settings: Settings) {
        let difference = gwlb::config::diff(&self.settings, &settings);
        assert!(!difference.iter().any(|change| change.restart), "takes a restart: {difference:?}");
        self.settings = Arc::new(settings);
        let settings = Arc::clone(&self.settings);
        let now = self.now();
        self.exits.journal.note(|| Happened::Reloaded(Arc::clone(&settings)));
        self.control.reload(settings, now);
        self.follow();
    }

    /// How a target answers probes from now on.
    pub fn answer_probes(&mut self, answer: Answer) {
        self.answers.say(answer);
    }

    /// What has happened in the control plane since the last call, and when.
    pub fn take_events(&mut self) -> Vec<(Duration, Event)> {
        std::mem::take(&mut self.events)
    }

    /// What is thought of every target.
    pub fn targets(&self) -> Vec<TargetStatus> {
        self.control.targets()
    }

    /// Does what the control plane wants done: views reach the workers, and probes are answered.
    fn follow(&mut self) {
        let now = self.now();
        while let Some(output) = self.control.poll_output() {
            match output {
                Output::Publish(snapshot) => {
                    self.exits.journal.note(|| Happened::Published(Arc::clone(&snapshot)));
                    self.exits.devices.note(snapshot.topology_epoch, &self.settings);
                    self.exits.snapshot = snapshot;
                    if !self.setup.by_hand {
                        for worker in &mut self.workers {
                            worker.take_up(now, &mut self.exits);
                        }
                        self.acknowledge();
                    }
                }
                Output::Probe(request) => {
                    self.exits.journal.note(|| Happened::Probe(request.clone()));
                    if self.setup.by_hand {
                        self.probes.push(request);
                    } else {
                        let (input, due) = self.answers.health(&request, now);
                        self.answer(input, due);
                    }
                }
                Output::TunnelProbe(request) => {
                    self.exits.journal.note(|| Happened::TunnelProbe(request.clone()));
                    if self.setup.by_hand {
                        self.send_tunnel_probe(&request);
                    } else {
                        self.probe_tunnel(&request);
                    }
                }
                Output::Event(event) => {
                    self.exits.journal.note(|| Happened::Event(event.clone()));
                    self.events.push((self.elapsed, event));
                }
            }
        }
    }

    /// Tells the control plane which view every worker holds, if that has changed.
    fn acknowledge(&mut self) {
        let held = self.workers.iter().map(|worker| worker.snapshot.generation).min();
        let held = held.unwrap_or_default();
        if held > self.acknowledged {
            self.acknowledged = held;
            self.tell(Input::Acknowledged(held));
            if self.setup.by_hand {
                self.follow();
            }
        }
    }

    fn answer(&mut self, input: Input, due: Instant) {
        let now = self.now();
        if due > now {
            self.unanswered.push((due, input));
        } else {
            self.tell(input);
        }
    }

    /// Sends a probe through the tunnel, from the first socket that there is.
    fn probe_tunnel(&mut self, request: &TunnelRequest) {
        let now = self.now();
        let (check, sequence) = (request.check, request.sequence);
        let (outcome, due) = match self.answers.tunnel(request, &self.exits.snapshot, now) {
            Tunnelled::Ends(outcome, due) => (outcome, due),
            Tunnelled::Back => {
                let from = SocketAddr::new(request.address.ip(), 61_000);
                let (to, bytes) = (request.source, request.packet.clone());
                self.workers[0].take_udp(&[Datagram { from, to, bytes }], now, &mut self.exits);
                let came_back = std::mem::take(&mut self.exits.probes);
                let keys = &self.exits.snapshot.keys;
                let mut found =
                    came_back.iter().filter_map(|(_, payload)| recognise(keys, payload));
                assert!(
                    found.any(|found| (found.check, found.sequence) == (check, sequence)),
                    "the way back knows the probes of this gateway",
                );
                (TunnelOutcome::Returned, now)
            }
        };
        self.answer(Input::TunnelProbe { check, sequence, outcome }, due);
    }

    /// How long the gateway has been there.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// What has happened since the last call, in order; empty unless [`Setup::journal`] is set.
    pub fn take_journal(&mut self) -> Vec<Step> {
        self.exits.journal.take()
    }

    /// What was sent to appliances since the last call, in order.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.exits.sent)
    }

    /// What left through attachments since the last call, in order.
    pub fn take_delivered(&mut self) -> Vec<Delivered> {
        std::mem::take(&mut self.exits.delivered)
    }

    /// How often a UDP socket was asked to send, all batches counted as one.
    pub fn sends(&self) -> u64 {
        self.exits.sends
    }

    /// How often a TUN device was written to, all super-packets counted as one.
    pub fn writes(&self) -> u64 {
        self.exits.writes
    }

    /// All that the workers counted.
    pub fn totals(&self) -> Totals {
        Totals::of(self.workers.iter().map(|worker| &*worker.stats))
    }

    /// How many packets went without a flow that is remembered, as [`Gateway::totals`] has it.
    pub fn untracked(&self) -> u64 {
        self.workers.iter().map(|worker| worker.stats.flows.untracked.get()).sum()
    }

    /// What fragments did that honest senders hardly do.
    pub fn hostile(&self) -> HostileTotals {
        self.fragments.hostile()
    }

    /// What was sent to each target and returned by it.
    pub fn target_totals(&self) -> BTreeMap<SocketAddr, TargetTotals> {
        let mut all = BTreeMap::<_, TargetTotals>::new();
        for target in &self.exits.snapshot.targets {
            // Who is registered once more may have another slot than before.
            let totals = all.entry(target.address).or_default();
            target.counters.iter().for_each(|counters| totals.add(counters));
        }
        all
    }

    /// What each endpoint has counted, and each that is gone and has flows.
    pub fn endpoint_totals(&self) -> Vec<EndpointTotals> {
        let view = &self.exits.snapshot;
        let there = view.endpoints.iter().map(|endpoint| &endpoint.counters);
        there.chain(view.departed.values()).map(EndpointCounts::totals).collect()
    }

    fn now(&mut self) -> Instant {
        self.exits.journal.time = self.elapsed;
        self.start + self.elapsed
    }

    /// Who reads each of `waiting`.
    fn readers<T>(
        &mut self,
        waiting: &[T],
        queue: Option<u16>,
        by_flow: impl Fn(&T) -> usize,
    ) -> Vec<usize> {
        let reader = |item| {
            self.arrived += 1;
            let reader = match (queue, self.setup.queues) {
                (Some(queue), _) => usize::from(queue),
                (None, Queues::ByFlow) => by_flow(item),
                (None, Queues::InTurn) => self.arrived,
            };
            reader % self.workers.len()
        };
        waiting.iter().map(reader).collect()
    }

    fn hand_over(&mut self) {
        if self.holding || self.setup.by_hand {
            return;
        }
        let now = self.now();
        // What bypasses an endpoint may belong to another worker at the next one.
        for _ in 0..=self.settings.topology.endpoints().count() {
            for worker in &mut self.workers {
                worker.take_inbox(now, &mut self.exits);
            }
        }
        assert!(self.exits.inboxes.iter().all(VecDeque::is_empty), "an owner handed over");
    }
}

/// What one reader after the other takes, neighbours of the same reader together.
fn batches<'a, T>(
    readers: &'a [usize],
    waiting: &'a [T],
) -> impl Iterator<Item = (usize, &'a [T])> {
    let mut rest = waiting;
    readers.chunk_by(|one, next| one == next).map(move |readers| {
        let (batch, behind) = rest.split_at(readers.len());
        rest = behind;
        (readers[0], batch)
    })
}

/// Where the virtual clock starts.
#[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
fn start() -> Instant {
    Instant::now()
}

/// A number that is the same for both directions of a flow; 0 for what is no packet.
fn flow_hash(packet: &[u8]) -> usize {
    let Ok(inner) = Inner::parse(packet) else { return 0 };
    let key = inner.flow_key().canonical().to_bytes();
    key.iter().fold(0, |hash: usize, &byte| hash.wrapping_mul(31) ^ usize::from(byte))
}

#[cfg(test)]
mod tests {
    use super::journal::Judgement;
    use super::*;
    use crate::appliance::echo;
    use crate::packets::{Ip, Tcp};

    #[test]
    fn the_journal_tells_the_way_of_a_packet() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/gateway.toml");
        let settings = gwlb::config::load(std::path::Path::new(file)).unwrap();
        let mut gateway = Gateway::new(settings, Setup { journal: true, ..Setup::of(2) });
        let start = gateway.take_journal();
        assert!(start.iter().any(|step| matches!(step.what, Happened::Published(_))));
        let took_up = |step: &&Step| matches!(step.what, Happened::TookUp { .. });
        assert!(start.iter().filter(took_up).count() >= 2, "each worker");
        let syn = Ip::new("203.0.113.7", "10.0.1.11").tcp((1000, 80), Tcp::SYN, b"");
        let igw = gateway.attachment("igw").unwrap();
        for queue in 0..2 {
            gateway.enter(igw, &[Packet::plain(syn.clone())], Some(queue));
        }
        let datagrams: Vec<_> = gateway.take_sent().iter().map(echo).collect();
        gateway.receive(&datagrams, None);
        let told: Vec<_> = gateway
            .take_journal()
            .into_iter()
            .map(|step| match step.what {
                Happened::Judged { verdict: Judgement::ToAppliance(_), handed_over, .. } => {
                    if handed_over {
                        "taken over, to appliance"
                    } else {
                        "to appliance"
                    }
                }
                Happened::Judged { verdict: Judgement::HandOver(..), .. } => "handed over",
                Happened::Sent { .. } => "sent",
                Happened::Returned { .. } => "returned",
                Happened::Delivered { delivered, .. } => {
                    assert_eq!(delivered.packet, syn);
                    "delivered"
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let own = ["to appliance", "sent"];
        let other = ["handed over", "taken over, to appliance", "sent"];
        let back = ["returned", "delivered", "returned", "delivered"];
        let orders = [[&own[..], &other, &back].concat(), [&other[..], &own, &back].concat()];
        assert!(orders.contains(&told), "{told:?}");
    }
}
