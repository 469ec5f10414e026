//! Plays a scenario on a gateway in memory.

mod flows;
mod words;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use geneve::outer;
use gwlb::config::{Settings, Weight};
use gwlb::control::{self, CommandError, Event, TargetSpec};
use gwlb::dataplane::snapshot::TargetSlot;
use gwlb::dataplane::stats::{EndpointTotals, LedgerTotals, TargetTotals, Totals};

use netio::offload::Segmentation;

use super::{
    Configure, Counters, Echo, Input, Outcome, Probe, Register, Reload, Scenario, ScenarioError,
    Step, configured,
};
use crate::appliance;
use crate::capture::{self, Captured};
use crate::describe::describe;
use crate::gateway::{Answer, Datagram, Gateway, Packet, Sent, Setup};
use crate::model::{Fleet, Model, Violation};
use crate::packets::{partial_checksum, super_packet};
use flows::Flows;
use words::{of_target, what};

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
    let answers: Vec<_> =
        scenario.probe.iter().map(|probe| answer(scenario, probe)).collect::<Result<_, _>>()?;
    let setup = Setup { wall_clock, journal: true, ..setup };
    let model = Model::new(&settings, &setup, &Fleet::new());
    let mut gateway = Gateway::with_answers(settings, setup, &answers);
    for (name, &address) in &scenario.appliances {
        if gateway.target(address).is_none() && !comes_later(scenario, name, address) {
            return Err(ScenarioError::NoTarget(name.clone(), address));
        }
    }
    // That targets are there, and pass their probes, is nothing to tell where nothing else is said.
    let events = gateway.take_events();
    let mut player = Player {
        folder,
        scenario,
        before: gateway.totals(),
        gateway,
        model: Some(model),
        changes: scenario.configure.clone(),
        holding: false,
        got: BTreeMap::new(),
        flows: Flows::default(),
        outcome: Outcome {
            streams: BTreeMap::new(),
            counters: Counters::default(),
            events: Vec::new(),
            steps: String::new(),
            violations: Vec::new(),
        },
    };
    if !answers.is_empty() {
        let _ = writeln!(player.outcome.steps, "0. the start");
        player.note_events(events);
    }
    for (number, step) in scenario.step.iter().enumerate() {
        player.step(number + 1, step)?;
    }
    Ok(player.finish())
}

/// Whether a step brings the appliance.
fn comes_later(scenario: &Scenario, name: &str, address: IpAddr) -> bool {
    scenario.step.iter().any(|step| match step {
        Step::Register(register) => register.appliance == name,
        Step::Reload(reload) => {
            let mut changes = reload.configure.iter();
            changes.any(|it| it.table == "target" && it.name == address.to_string())
        }
        _ => false,
    })
}

fn answer(scenario: &Scenario, probe: &Probe) -> Result<Answer, ScenarioError> {
    let target = scenario.appliances.get(&probe.appliance);
    let target = *target.ok_or_else(|| ScenarioError::NoAppliance(probe.appliance.clone()))?;
    let &Probe { outcome, node, kind, largest, .. } = probe;
    Ok(Answer { target, node, kind, outcome, largest })
}

struct Player<'a> {
    folder: &'a Path,
    scenario: &'a Scenario,
    gateway: Gateway,
    /// Follows the gateway, until it has found something wrong.
    model: Option<Model>,
    /// In what the present configuration differs from the file.
    changes: Vec<Configure>,
    /// Whether packets stay between workers.
    holding: bool,
    /// The totals before the step.
    before: Totals,
    /// What appliances got and have not sent back.
    got: BTreeMap<String, Vec<Sent>>,
    flows: Flows,
    outcome: Outcome,
}

impl Player<'_> {
    fn step(&mut self, number: usize, step: &Step) -> Result<(), ScenarioError> {
        let mut entered = 0;
        let mut said = Vec::new();
        match step {
            Step::Input(input) => entered = self.input(input)?,
            Step::Echo(echo) => entered = self.echo(number, echo)?,
            Step::AdvanceMs(milliseconds) => {
                self.gateway.advance(Duration::from_millis(*milliseconds));
            }
            Step::WallClockSeconds(seconds) => {
                self.gateway.set_wall_clock(Duration::from_secs(*seconds));
            }
            Step::PathMtu(path) => {
                let target = self.target(&path.appliance)?;
                self.gateway.control(control::Input::PathMtu { target, mtu: path.bytes });
            }
            Step::Probe(probe) => {
                let answer = answer(self.scenario, probe)?;
                self.gateway.answer_probes(answer);
            }
            Step::Suspect(name) => {
                let target = self.target(name)?;
                self.gateway.control(control::Input::Suspect(target));
            }
            Step::Register(register) => said.extend(self.register(register)?.err()),
            Step::Deregister(deregister) => {
                let address = self.address(&deregister.appliance)?;
                let group = self.group(deregister.group.as_ref());
                let deregistered = self.gateway.deregister(&group, address, None);
                said.extend(deregistered.err());
            }
            Step::TrafficMode(mode) => {
                let balancers = self.gateway.settings().load_balancers.iter();
                let names: Vec<_> = balancers.map(|it| it.name.to_string()).collect();
                for name in names {
                    let switched = self.gateway.set_traffic_mode(&name, *mode);
                    said.extend(switched.err());
                }
            }
            Step::SwitchEndpointGroup(switch) => {
                let to = switch.to.as_deref();
                said.extend(self.gateway.switch_endpoint_group(&switch.group, to).err());
            }
            Step::Reload(reload) => self.reload(number, reload)?,
            Step::Hold(_) => {
                self.holding = true;
                self.gateway.hold();
            }
            Step::Release(_) => {
                self.holding = false;
                self.gateway.release();
            }
            Step::Targets(_) => {}
        }
        let time = self.gateway.elapsed();
        let _ = writeln!(self.outcome.steps, "{number}. {} ms: {}", time.as_millis(), what(step));
        for error in said {
            let _ = writeln!(self.outcome.steps, "     refused    {error}");
        }
        self.note_what_happened(&format!("step {number}"), entered);
        if let Step::Targets(_) = step {
            for target in self.gateway.targets() {
                let _ = writeln!(self.outcome.steps, "     target     {}", of_target(&target));
            }
        }
        self.gateway.advance(STEP);
        Ok(())
    }

    /// Notes what has come of the step, or of the time after the last one.
    fn note_what_happened(&mut self, when: &str, entered: u64) {
        if let Err(violation) = self.follow() {
            self.model = None;
            self.outcome.violations.push(format!("{when}: {violation}"));
        }
        let events = self.gateway.take_events();
        let sent = self.gateway.take_sent();
        let delivered = self.gateway.take_delivered();
        self.hold(when, entered, sent.len() + delivered.len());
        self.flows.note_view(self.gateway.snapshot(), self.gateway.elapsed());
        for (time, event) in &events {
            if let Event::Failover { target, .. } = event {
                self.flows.note_failover(*target, *time);
            }
        }
        for sent in sent {
            self.note_sent(when, sent);
        }
        for delivered in delivered {
            if !flows::is_sound(&delivered.packet) {
                let broken = format!("{when}: a wrong checksum in {}", describe(&delivered.packet));
                self.outcome.violations.push(broken);
            }
            let stream = format!("at-{}", self.gateway.device(delivered.at));
            self.note(&stream, Captured { time: delivered.time, packet: delivered.packet });
        }
        self.note_drops();
        self.note_events(events);
    }

    /// Has the model judge what the gateway did.
    fn follow(&mut self) -> Result<(), Violation> {
        let journal = self.gateway.take_journal();
        let Some(model) = &mut self.model else { return Ok(()) };
        journal.iter().try_for_each(|step| model.follow(step))?;
        model.check_books(&self.gateway.totals(), &self.gateway.target_totals())?;
        model.check_hostile(&self.gateway.hostile())
    }

    fn register(&mut self, register: &Register) -> Result<Result<(), CommandError>, ScenarioError> {
        let weight = register.weight.map(|weight| Weight::new(weight.into()));
        let weight = weight.transpose();
        let spec = TargetSpec {
            address: self.address(&register.appliance)?,
            port: None,
            zone: register.zone.clone(),
            weight: weight.map_err(|error| ScenarioError::Configuration(error.to_string()))?,
        };
        let group = self.group(register.group.as_ref());
        Ok(self.gateway.register(&group, &spec))
    }

    fn reload(&mut self, number: usize, reload: &Reload) -> Result<(), ScenarioError> {
        self.changes.extend(reload.configure.iter().cloned());
        let settings = configured(self.folder, &self.changes)?;
        let changes = gwlb::config::diff(self.gateway.settings(), &settings);
        if changes.iter().any(|change| change.restart) {
            return Err(ScenarioError::Restart(number));
        }
        self.gateway.reload(settings);
        Ok(())
    }

    fn group(&self, name: Option<&String>) -> String {
        let first = || self.gateway.settings().target_groups[0].name.to_string();
        name.cloned().unwrap_or_else(first)
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
                    _ if input.partial_checksum => partial_checksum(packet),
                    _ => Packet::plain(&packet[..]),
                })
                .collect();
            self.gateway.enter(at, &packets, input.queue);
            return Ok(packets.iter().map(segments).sum());
        }
        self.address(place).map_err(|_| wrong())?;
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
            self.address(&name)?;
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

    fn address(&self, name: &str) -> Result<IpAddr, ScenarioError> {
        let address = self.scenario.appliances.get(name).copied();
        address.ok_or_else(|| ScenarioError::NoAppliance(name.to_owned()))
    }

    fn target(&self, name: &str) -> Result<TargetSlot, ScenarioError> {
        let address = self.address(name)?;
        let target = self.gateway.target(address);
        target.ok_or_else(|| ScenarioError::NoTarget(name.to_owned(), address))
    }

    fn note_sent(&mut self, when: &str, sent: Sent) {
        let untracked = self.gateway.totals().flows.untracked > 0;
        let noted = self.flows.note_sent(&sent, self.gateway.snapshot(), untracked);
        if let Err(broken) = noted {
            self.outcome.violations.push(format!("{when}: {broken}"));
        }
        let name = self.name(sent.to.ip());
        let captured = Captured { time: sent.time, packet: sent.on_the_wire() };
        self.note(&format!("to-{name}"), captured);
        self.got.entry(name).or_default().push(sent);
    }

    /// The name of the appliance, or its address if it takes no part by name.
    fn name(&self, address: IpAddr) -> String {
        let mut names = self.scenario.appliances.iter();
        let found = names.find(|(_, appliance)| **appliance == address);
        found.map_or_else(|| address.to_string(), |(name, _)| name.clone())
    }

    fn note_events(&mut self, events: Vec<(Duration, Event)>) {
        for (time, event) in events {
            let event = event.to_string();
            let _ =
                writeln!(self.outcome.steps, "     event      {} ms: {event}", time.as_millis());
            self.outcome.events.push((time, event));
        }
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
    fn hold(&mut self, when: &str, entered: u64, left: usize) {
        let after = self.gateway.totals();
        let mut broken = |what: String| self.outcome.violations.push(format!("{when}: {what}"));
        let mut counted = Counted::default();
        for (side, before, after) in
            [("TUN", &self.before.tun, &after.tun), ("UDP", &self.before.udp, &after.udp)]
        {
            let (came, went) = after.balance();
            if came != went {
                broken(format!("{came} packets are in the {side} ledger, {went} have left it"));
            }
            let between = after.flow.handed_over - after.flow.taken_over;
            if between > 0 && !self.holding {
                broken(format!("{between} packets are left between workers"));
            }
            counted.add(before, after);
        }
        if counted.entered != entered {
            broken(format!("{entered} packets entered, {} were counted", counted.entered));
        }
        if counted.left != left as u64 {
            broken(format!("{left} packets left, {} were counted", counted.left));
        }
        let targets = self.gateway.target_totals();
        let with_targets: u64 = targets.values().map(TargetTotals::active_flows).sum();
        let flows = after.flows.active();
        let endpoints = self.gateway.endpoint_totals();
        let with_endpoints: u64 = endpoints.iter().map(EndpointTotals::active_flows).sum();
        if with_endpoints != flows {
            broken(format!("{flows} flows are in the tables, endpoints have {with_endpoints}"));
        }
        let bypassed = after.tun.flow.bypassed + after.udp.flow.bypassed;
        if with_targets > flows || (with_targets < flows && bypassed == 0) {
            broken(format!("{flows} flows are in the tables, targets have {with_targets}"));
        }
    }

    fn finish(mut self) -> Outcome {
        self.note_what_happened("the end", 0);
        let totals = self.gateway.totals();
        for (side, ledger) in [("TUN", &totals.tun), ("UDP", &totals.udp)] {
            if ledger.queued() > 0 {
                let broken = format!("the end: {} {side} packets wait", ledger.queued());
                self.outcome.violations.push(broken);
            }
        }
        let targets = self.gateway.target_totals();
        let name = |address: &SocketAddr| self.name(address.ip());
        self.outcome.counters = Counters {
            appliances: targets.iter().map(|(target, totals)| (name(target), *totals)).collect(),
            tun: totals.tun,
            udp: totals.udp,
            flows: totals.flows,
            resets: totals.resets,
            hostile_fragments: self.gateway.hostile(),
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
        let left = |LedgerTotals { flow, .. }: &LedgerTotals| {
            flow.encapsulated + flow.delivered + flow.bypassed
        };
        // Probes through the tunnel are nobody's packets.
        let entered = |LedgerTotals { flow, .. }: &LedgerTotals| flow.received - flow.probes;
        self.entered += entered(after) - entered(before);
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
