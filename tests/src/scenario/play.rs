//! Plays a scenario on a gateway in memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use geneve::flow::CanonicalKey;
use geneve::{Header, Inner, outer};
use gwlb::config::Settings;
use gwlb::control;
use gwlb::dataplane::snapshot::TargetSlot;
use gwlb::dataplane::stats::{FlowTableTotals, LedgerTotals, Totals};

use netio::offload::Segmentation;

use super::{Counters, Echo, Input, Outcome, Scenario, ScenarioError, Step};
use crate::appliance;
use crate::capture::{self, Captured};
use crate::describe::{self, describe};
use crate::gateway::{Datagram, Gateway, Packet, Sent, Setup};
use crate::packets::super_packet;

/// How long a step takes.
const STEP: Duration = Duration::from_millis(1);

/// Plays the scenario in `folder` and says what came of it.
///
/// # Errors
/// [`ScenarioError`] if the scenario itself is wrong.
pub fn play(
    folder: &Path,
    scenario: &Scenario,
    settings: Settings,
    setup: Setup,
) -> Result<Outcome, ScenarioError> {
    let wall_clock = Duration::from_secs(scenario.wall_clock_seconds);
    let gateway = Gateway::new(settings, Setup { wall_clock, ..setup });
    let mut targets = BTreeMap::new();
    for (name, &address) in &scenario.appliances {
        let target = gateway.target(address);
        let target = target.ok_or_else(|| ScenarioError::NoTarget(name.clone(), address))?;
        targets.insert(target, name.clone());
    }
    let mut player = Player {
        folder,
        scenario,
        targets,
        before: gateway.totals(),
        gateway,
        got: BTreeMap::new(),
        placed: BTreeMap::new(),
        outcome: Outcome {
            streams: BTreeMap::new(),
            counters: Counters {
                tun: LedgerTotals::default(),
                udp: LedgerTotals::default(),
                flows: FlowTableTotals::default(),
                appliances: BTreeMap::new(),
                sends: 0,
                writes: 0,
            },
            steps: String::new(),
            violations: Vec::new(),
        },
    };
    for (number, step) in scenario.step.iter().enumerate() {
        player.step(number + 1, step)?;
    }
    Ok(player.finish())
}

struct Player<'a> {
    folder: &'a Path,
    scenario: &'a Scenario,
    targets: BTreeMap<TargetSlot, String>,
    gateway: Gateway,
    /// The totals before the step.
    before: Totals,
    /// What appliances got and have not sent back.
    got: BTreeMap<String, Vec<Sent>>,
    /// Where each flow went, by endpoint.
    placed: BTreeMap<(u64, CanonicalKey), TargetSlot>,
    outcome: Outcome,
}

impl Player<'_> {
    fn step(&mut self, number: usize, step: &Step) -> Result<(), ScenarioError> {
        let entered = match step {
            Step::Input(input) => self.input(input)?,
            Step::Echo(echo) => self.echo(number, echo)?,
            Step::AdvanceMs(milliseconds) => {
                self.gateway.advance(Duration::from_millis(*milliseconds));
                0
            }
            Step::PathMtu(path) => {
                let target = self.target(&path.appliance)?;
                self.gateway.control(control::Input::PathMtu { target, mtu: path.bytes });
                0
            }
        };
        let time = self.gateway.elapsed();
        let _ = writeln!(self.outcome.steps, "{number}. {} ms: {}", time.as_millis(), what(step));
        let sent = self.gateway.take_sent();
        let delivered = self.gateway.take_delivered();
        self.hold(number, entered, sent.len() + delivered.len());
        for sent in sent {
            self.note_sent(number, sent);
        }
        for delivered in delivered {
            let stream = format!("at-{}", self.gateway.device(delivered.at));
            self.note(&stream, Captured { time: delivered.time, packet: delivered.packet });
        }
        self.note_drops();
        self.gateway.advance(STEP);
        Ok(())
    }

    fn input(&mut self, input: &Input) -> Result<u64, ScenarioError> {
        let name = &input.capture;
        let wrong = || ScenarioError::CaptureName(name.clone());
        let stem = name.strip_suffix(".pcap").ok_or_else(wrong)?;
        let (_, place) = stem.split_once("-from-").ok_or_else(wrong)?;
        let captured = capture::read(&self.folder.join(name))?;
        if let Some(at) = self.gateway.attachment(place) {
            let packets: Vec<_> = captured
                .iter()
                .map(|Captured { packet, .. }| match input.segment_size {
                    Some(size) if packet.len() > usize::from(size) => super_packet(packet, size),
                    _ => Packet::plain(&packet[..]),
                })
                .collect();
            self.gateway.enter(at, &packets, input.queue);
            return Ok(packets.iter().map(segments).sum());
        }
        self.target(place).map_err(|_| wrong())?;
        let datagram = |(number, captured): (usize, &Captured)| {
            let (outer, payload) = outer::parse(&captured.packet)
                .map_err(|error| ScenarioError::NoDatagram(name.clone(), number + 1, error))?;
            let bytes = captured.packet[payload].to_vec();
            Ok(Datagram { from: outer.src, to: outer.dst.ip(), bytes })
        };
        let datagrams: Vec<_> =
            captured.iter().enumerate().map(datagram).collect::<Result<_, ScenarioError>>()?;
        self.gateway.receive(&datagrams, input.queue);
        Ok(datagrams.len() as u64)
    }

    fn echo(&mut self, number: usize, echo: &Echo) -> Result<u64, ScenarioError> {
        let all = || self.scenario.appliances.keys().cloned().collect();
        let names: Vec<String> = echo.by.clone().unwrap_or_else(all);
        let mut entered = 0;
        for name in names {
            self.target(&name)?;
            let got = if echo.keep { self.got.get(&name).cloned() } else { self.got.remove(&name) };
            let got = got.unwrap_or_default();
            let mut datagrams = got.iter().map(appliance::echo).collect();
            for change in &echo.change {
                datagrams = change
                    .apply(datagrams)
                    .map_err(|cause| ScenarioError::Impossible { step: number, cause })?;
            }
            entered += datagrams.len() as u64;
            self.gateway.receive(&datagrams, echo.queue);
        }
        Ok(entered)
    }

    fn target(&self, name: &str) -> Result<TargetSlot, ScenarioError> {
        let mut targets = self.targets.iter();
        let found = targets.find(|(_, appliance)| *appliance == name).map(|(target, _)| *target);
        found.ok_or_else(|| ScenarioError::NoAppliance(name.to_owned()))
    }

    fn note_sent(&mut self, number: usize, sent: Sent) {
        self.hold_placement(number, &sent);
        let name = self.appliance(&sent);
        let captured = Captured { time: sent.time, packet: sent.on_the_wire() };
        self.note(&format!("to-{name}"), captured);
        self.got.entry(name).or_default().push(sent);
    }

    /// The name of the appliance, or its address if it takes no part by name.
    fn appliance(&self, sent: &Sent) -> String {
        let name = self.targets.get(&sent.target).cloned();
        name.unwrap_or_else(|| sent.to.ip().to_string())
    }

    fn note(&mut self, stream: &str, captured: Captured) {
        let _ = writeln!(self.outcome.steps, "     {stream:10} {}", describe(&captured.packet));
        self.outcome.streams.entry(stream.to_owned()).or_default().push(captured);
    }

    fn note_drops(&mut self) {
        let after = self.gateway.totals();
        for (side, before, after) in
            [("tun", &self.before.tun, &after.tun), ("udp", &self.before.udp, &after.udp)]
        {
            for (reason, count) in &after.drops {
                let new = count - before.drops.get(reason).copied().unwrap_or_default();
                if new > 0 {
                    let _ = writeln!(self.outcome.steps, "     dropped    {new} {side} {reason}");
                }
            }
        }
        self.before = after;
    }

    /// What must always hold after a step in which `entered` packets entered and `left` left.
    fn hold(&mut self, number: usize, entered: u64, left: usize) {
        let after = self.gateway.totals();
        let mut broken = |what: String| {
            self.outcome.violations.push(format!("step {number}: {what}"));
        };
        let mut counted = Counted::default();
        for (side, before, after) in
            [("TUN", &self.before.tun, &after.tun), ("UDP", &self.before.udp, &after.udp)]
        {
            let (came, went) = after.balance();
            if came != went {
                broken(format!("{came} packets are in the {side} ledger, {went} have left it"));
            }
            if after.queued() > 0 {
                broken(format!("{} packets are left between workers", after.queued()));
            }
            counted.add(before, after);
        }
        if counted.entered != entered {
            broken(format!("{entered} packets entered, {} were counted", counted.entered));
        }
        if counted.left != left as u64 {
            broken(format!("{left} packets left, {} were counted", counted.left));
        }
    }

    /// Both directions of a flow go to one target, whatever happens.
    fn hold_placement(&mut self, number: usize, sent: &Sent) {
        let Ok((header, payload)) = Header::parse(&sent.bytes) else {
            let address: SocketAddr = sent.to;
            let broken = format!("step {number}: {address} was sent something else than Geneve");
            return self.outcome.violations.push(broken);
        };
        let dialect = self.gateway.snapshot().target(sent.target).dialect;
        let (Ok(tags), Ok(inner)) = (dialect.read(&header), Inner::parse(payload)) else {
            let broken = format!("step {number}: sent {}", describe::datagram(&sent.bytes));
            return self.outcome.violations.push(broken);
        };
        let flow = inner.flow_key();
        let ported = inner.ports().is_some() && inner.flow_key() != flow.portless();
        if !ported {
            return;
        }
        let target = *self.placed.entry((tags.endpoint, flow.canonical())).or_insert(sent.target);
        if target != sent.target {
            let broken =
                format!("step {number}: {flow} went to {target:?}, now to {:?}", sent.target);
            self.outcome.violations.push(broken);
        }
    }

    fn finish(mut self) -> Outcome {
        let totals = self.gateway.totals();
        let name = |address: &SocketAddr| {
            let mut names = self.scenario.appliances.iter();
            let found = names.find(|(_, appliance)| **appliance == address.ip());
            found.map_or_else(|| address.ip().to_string(), |(name, _)| name.clone())
        };
        let targets = self.gateway.target_totals();
        self.outcome.counters = Counters {
            tun: totals.tun,
            udp: totals.udp,
            flows: totals.flows,
            appliances: targets.iter().map(|(target, totals)| (name(target), *totals)).collect(),
            sends: self.gateway.sends(),
            writes: self.gateway.writes(),
        };
        self.outcome
    }
}

/// What the ledgers say of one step.
#[derive(Default)]
struct Counted {
    entered: u64,
    left: u64,
}

impl Counted {
    fn add(&mut self, before: &LedgerTotals, after: &LedgerTotals) {
        let left = |totals: &LedgerTotals| totals.flow.encapsulated + totals.flow.delivered;
        self.entered += after.flow.received - before.flow.received;
        self.left += left(after) - left(before);
    }
}

/// How many packets a packet stands for.
fn segments(packet: &Packet) -> u64 {
    match packet.offload.segment {
        Segmentation::None => 1,
        Segmentation::Tcp { size, .. } | Segmentation::Udp { size } => {
            let payload = packet.bytes.len() - usize::from(packet.offload.hdr_len);
            payload.div_ceil(size.into()) as u64
        }
    }
}

fn what(step: &Step) -> String {
    let on = |queue: &Option<u16>| match queue {
        Some(queue) => format!(", on queue {queue}"),
        None => String::new(),
    };
    match step {
        Step::Input(Input { capture, queue, segment_size }) => match segment_size {
            Some(size) => format!("{capture}, segments of {size}{}", on(queue)),
            None => format!("{capture}{}", on(queue)),
        },
        Step::Echo(Echo { by, change, keep, queue }) => {
            let by = by.as_ref().map_or_else(|| "all".to_owned(), |names| names.join(", "));
            let changed = if change.is_empty() { "" } else { ", changed" };
            let kept = if *keep { ", kept" } else { "" };
            format!("echo by {by}{changed}{kept}{}", on(queue))
        }
        Step::AdvanceMs(milliseconds) => format!("{milliseconds} ms have passed"),
        Step::PathMtu(path) => format!("path MTU to {} is {} now", path.appliance, path.bytes),
    }
}
