//! The world of one seed: gateways, appliances, hosts and the network on one virtual clock.

mod deeds;
mod ends;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gwlb::config::Settings;
use gwlb::control::ProbeOutcome;
use gwlb::control::{Input, Symptoms};
use gwlb::dataplane::stats::FlowTableTotals;

use super::appliances::{Appliance, LetOut};
use super::configuration::{Layout, Pair, Policy, Variant};
use super::coverage::{Coverage, Kind};
use super::hosts::{Conversation, Deeds, Hosts, Timer};
use super::judge::{Judge, Sight, Wrong, vpc_named};
use super::network::{Leg, Network, corrupted};
use super::plan::{Event, Plan, Trouble, Way, What};
use super::random::{About, Dice};
use super::trace::Trace;
use super::{Artificial, Options, Violation};
use crate::gateway::journal::Step;
use crate::gateway::{Datagram, Delivered, Gateway, Packet, Queues, Sent, Setup};
use crate::model::{Fleet, Model};

/// Everything.
pub(super) struct World<'a> {
    plan: &'a Plan,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Happening>,
    queued: u64,
    sites: Vec<Site>,
    fleet: Fleet,
    appliances: Vec<Appliance>,
    pairs: Vec<Pair>,
    hosts: Hosts,
    network: Network,
    let_out: LetOut,
    /// What was sent to appliances last, for those who overhear it.
    overheard: Vec<Sent>,
    /// Counts what goes to another gateway than before.
    shifts: usize,
    settings: BTreeMap<u8, Arc<Settings>>,
    /// By endpoint, as appliances know it: its VPC.
    vpcs: BTreeMap<u64, u8>,
    /// The gateway that does something, for those who ask when it is over.
    acting: Option<usize>,
    trace: Trace,
    coverage: Coverage,
    /// How many things have happened.
    steps: u64,
    artificial: Option<Artificial>,
    tell: bool,
}

/// A gateway and what is around it.
struct Site {
    gateway: Option<Gateway>,
    born: Duration,
    /// Counts its lives.
    life: u32,
    judge: Judge,
    model: Model,
    /// The view that workers were told about.
    told: u64,
    /// By worker: until when it does not take up views, and does not look into its inbox.
    lag: Vec<Duration>,
    /// Until when it does nothing, and until when it does nothing that is due.
    asleep: [Duration; 2],
    /// Whether it has not caught up since.
    sleeps: bool,
    stall: Vec<Duration>,
    /// By worker: whether it will look into its inbox.
    called: Vec<bool>,
    variant: Variant,
    /// How far its calendar is off, in seconds.
    calendar: i64,
    untracked: u64,
    flows: FlowTableTotals,
    /// Load balancers that are switched to bypass.
    switched: BTreeSet<usize>,
    /// What it has done last.
    recent: Vec<Step>,
}

/// Something that is going to happen.
#[derive(Debug)]
enum Happening {
    Begin(usize),
    End(usize),
    /// What a command or reload does at one gateway, and how its end shows there.
    Apply(usize, usize),
    Revert(usize, usize),
    /// The calendar of a gateway was set.
    Calendar(usize),
    /// An ICMP error says that nobody takes Geneve there.
    Refused(usize, IpAddr),
    Host(Timer),
    Enter {
        gateway: usize,
        device: &'static str,
        packet: Packet,
    },
    Leave {
        delivered: Delivered,
        vpc: u8,
        device: &'static str,
    },
    ToAppliance {
        gateway: usize,
        appliance: usize,
        sent: Sent,
    },
    FromAppliance {
        gateway: usize,
        datagram: Datagram,
    },
    Probe {
        gateway: usize,
        life: u32,
        input: Input,
    },
    TakeUp {
        gateway: usize,
        life: u32,
        worker: u16,
    },
    Serve {
        gateway: usize,
        life: u32,
        worker: u16,
    },
    /// Now and then: symptoms, and a look at the books.
    Look,
}

impl Happening {
    /// The gateway that it happens to.
    fn gateway(&self) -> Option<usize> {
        match self {
            Happening::Apply(_, gateway)
            | Happening::Revert(_, gateway)
            | Happening::Calendar(gateway)
            | Happening::Refused(gateway, _)
            | Happening::Enter { gateway, .. }
            | Happening::FromAppliance { gateway, .. }
            | Happening::Probe { gateway, .. }
            | Happening::TakeUp { gateway, .. }
            | Happening::Serve { gateway, .. } => Some(*gateway),
            Happening::Begin(_)
            | Happening::End(_)
            | Happening::Host(_)
            | Happening::Leave { .. }
            | Happening::ToAppliance { .. }
            | Happening::Look => None,
        }
    }
}

/// How often symptoms are told.
const LOOK: Duration = Duration::from_secs(20);
/// How long hosts are waited for when nothing new begins.
const PATIENCE: Duration = Duration::from_hours(1);
/// How long a gateway may be stopped so that nobody loses patience, and no flow is forgotten.
const BRIEFLY: Duration = Duration::from_secs(4);
/// How long a cookie's key stamps.
const EPOCH_SECONDS: u64 = 86_400;
/// More than any plan takes by far.
const MOST_STEPS: u64 = 5_000_000;

impl<'a> World<'a> {
    pub fn new(plan: &'a Plan, options: &Options) -> World<'a> {
        let world = &plan.world;
        let mut dice = Dice::of(plan.seed, About::Appliance, &[]);
        let manner = (dice.per_mille(400), dice.per_mille(600));
        let appliances = world.layout.appliances().iter();
        let appliances = appliances.map(|&(group, last, zone)| {
            Appliance::new((group, world.policy.underlay(last), zone), manner)
        });
        let mut made = World {
            plan,
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            queued: 0,
            sites: Vec::new(),
            fleet: Fleet::default(),
            appliances: appliances.collect(),
            pairs: world.layout.pairs(&world.policy),
            hosts: Hosts::default(),
            network: Network::new(plan.seed, world.weather),
            let_out: LetOut::default(),
            overheard: Vec::new(),
            shifts: 0,
            settings: BTreeMap::new(),
            vpcs: BTreeMap::new(),
            acting: None,
            trace: Trace::new(),
            coverage: Coverage::default(),
            steps: 0,
            artificial: options.artificial,
            tell: options.tell,
        };
        for _ in 0..world.gateways {
            let site = made.site(0, Variant::AsItWas, 0);
            made.sites.push(site);
        }
        for (index, event) in plan.events.iter().enumerate() {
            made.schedule(event.at, Happening::Begin(index));
        }
        made.schedule(LOOK, Happening::Look);
        made
    }

    /// Lets everything happen that is planned, and waits until all is quiet.
    pub fn run(&mut self) -> Result<(), Violation> {
        for site in 0..self.sites.len() {
            self.settle(site)?;
        }
        let mut end = None;
        loop {
            let due = self.sites.iter().filter_map(Site::due).min();
            let next = self.queue.keys().next().map(|(at, _)| *at);
            let Some(at) = [due, next].into_iter().flatten().min() else { break };
            if end.is_none() && (self.is_quiet() || at > self.plan.world.span + PATIENCE) {
                let awake =
                    self.sites.iter().map(|site| site.asleep[1]).fold(self.now, Duration::max);
                end = Some(awake + self.longest() + Duration::from_secs(40));
            }
            if end.is_some_and(|end| at > end) {
                break;
            }
            self.now = self.now.max(at);
            self.acting = None;
            self.steps += 1;
            if self.steps > MOST_STEPS {
                let text = format!("there is no end after {MOST_STEPS} steps");
                return Err(self.violation(None, Wrong::new("Bounded", text)));
            }
            for site in 0..self.sites.len() {
                if self.sites[site].due().is_some_and(|due| due <= self.now) {
                    self.catch_up(site)?;
                    self.settle(site)?;
                }
            }
            if next.is_some_and(|next| next <= self.now)
                && let Some((_, happening)) = self.queue.pop_first()
            {
                self.happen(happening)?;
            }
            if self.steps.is_multiple_of(64) {
                self.audit()?;
            }
        }
        self.finish()
    }

    /// What is wrong if something has panicked in the middle.
    pub fn panicked(&mut self, text: String) -> Violation {
        let wrong = Wrong::new(super::NO_PANIC, text);
        let trace = self.acting.map(|site| last(&self.sites[site].take_recent()));
        let trace = trace.unwrap_or_default();
        Violation { trace, ..self.violation(self.acting, wrong) }
    }

    /// The number of everything that happened.
    pub fn trace_hash(&self) -> u64 {
        self.trace.value()
    }

    /// How much time passed.
    pub fn simulated(&self) -> Duration {
        self.now
    }

    /// What was reached.
    pub fn coverage(&mut self) -> Coverage {
        for site in 0..self.sites.len() {
            self.count_flows(site);
        }
        std::mem::take(&mut self.coverage)
    }

    /// Nothing is planned any more, and no host waits for anything.
    fn is_quiet(&self) -> bool {
        !self.queue.values().any(|it| !matches!(it, Happening::Look | Happening::Probe { .. }))
    }

    fn longest(&self) -> Duration {
        let world = &self.plan.world;
        world.policy.longest().max(world.other.longest())
    }

    fn schedule(&mut self, at: Duration, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at, self.queued), happening);
    }

    fn violation(&self, site: Option<usize>, wrong: Wrong) -> Violation {
        Violation {
            clause: wrong.clause,
            text: wrong.text,
            at: self.now,
            gateway: site,
            trace: Vec::new(),
        }
    }

    /// A gateway that begins now.
    fn site(&mut self, life: u32, variant: Variant, calendar: i64) -> Site {
        let world = &self.plan.world;
        let queues = if world.by_flow { Queues::ByFlow } else { Queues::InTurn };
        let setup = Setup {
            queues,
            wall_clock: self.calendar(calendar),
            inbox: world.inbox,
            journal: true,
            by_hand: true,
            ..Setup::of(world.workers)
        };
        let settings = self.settings(variant);
        let model = Model::new(&settings, &setup, &self.fleet);
        let gateway = Gateway::new(Settings::clone(&settings), setup);
        let workers = usize::from(world.workers);
        Site {
            gateway: Some(gateway),
            born: self.now,
            life,
            judge: Judge::new(self.policy(variant).when_none_healthy == "bypass", life > 0),
            model,
            told: 0,
            lag: vec![Duration::ZERO; workers],
            asleep: [Duration::ZERO; 2],
            sleeps: false,
            stall: vec![Duration::ZERO; workers],
            called: vec![false; workers],
            variant,
            calendar,
            untracked: 0,
            flows: FlowTableTotals::default(),
            switched: BTreeSet::new(),
            recent: Vec::new(),
        }
    }

    /// The epoch of the cookie keys by a gateway's calendar.
    fn epoch(&self, gateway: usize) -> u64 {
        self.calendar(self.sites[gateway].calendar).as_secs() / EPOCH_SECONDS
    }

    /// The time on a calendar that is so far off.
    fn calendar(&self, off: i64) -> Duration {
        let right = self.plan.world.wall_clock + self.now;
        Duration::from_secs(right.as_secs().saturating_add_signed(off))
            + Duration::from_nanos(right.subsec_nanos().into())
    }

    fn policy(&self, variant: Variant) -> &'a Policy {
        match variant {
            Variant::OtherPolicy => &self.plan.world.other,
            _ => &self.plan.world.policy,
        }
    }

    fn settings(&mut self, variant: Variant) -> Arc<Settings> {
        let (policy, layout) = (self.policy(variant), self.plan.world.layout);
        let make = || Arc::new(policy.settings(layout, variant));
        let settings = Arc::clone(self.settings.entry(variant as u8).or_insert_with(make));
        for (_, endpoint) in settings.topology.endpoints() {
            self.vpcs.insert(endpoint.wire_id, vpc_named(endpoint.name.as_str()));
        }
        settings
    }

    /// Time passes at a gateway.
    fn catch_up(&mut self, index: usize) -> Result<(), Violation> {
        self.acting = Some(index);
        let site = &mut self.sites[index];
        let Some(gateway) = &mut site.gateway else { return Ok(()) };
        let passed = self.now.saturating_sub(site.born).saturating_sub(gateway.elapsed());
        if site.sleeps {
            gateway.sleep(passed);
            if site.asleep[1] > self.now {
                return Ok(());
            }
        }
        let passed = if std::mem::take(&mut site.sleeps) { Duration::ZERO } else { passed };
        let passed = gateway.try_advance(passed);
        passed.map_err(|stuck| {
            let steps = self.sites[index].take_recent();
            let wrong = Wrong::new("Bounded", stuck.to_string());
            Violation { trace: last(&steps), ..self.violation(Some(index), wrong) }
        })
    }

    /// Does something at a gateway, if it lives, and follows what comes of it.
    fn at(&mut self, index: usize, deed: impl FnOnce(&mut Gateway)) -> Result<(), Violation> {
        self.catch_up(index)?;
        let Some(gateway) = &mut self.sites[index].gateway else { return Ok(()) };
        deed(gateway);
        self.settle(index)
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        if let Some(gateway) = happening.gateway()
            && let [asleep, _] = self.sites[gateway].asleep
            && asleep > self.now
        {
            self.schedule(asleep, happening);
            return Ok(());
        }
        match happening {
            Happening::Begin(event) => self.begin(event),
            Happening::End(event) => self.finish_event(event),
            Happening::Apply(event, site) => self.apply(event, site),
            Happening::Revert(event, site) => self.revert(event, site),
            Happening::Calendar(site) => {
                let calendar = self.calendar(self.sites[site].calendar);
                self.at(site, |it| it.set_wall_clock(calendar))
            }
            Happening::Refused(site, target) => self.at(site, |it| {
                if let Some(slot) = it.target(target) {
                    it.control(Input::Suspect(slot));
                }
            }),
            Happening::Host(timer) => {
                let mut deeds = Deeds::default();
                self.hosts.time_out(timer, &mut deeds);
                self.follow_hosts(deeds)
            }
            Happening::Enter { gateway, device, packet } => self.enter(gateway, device, packet),
            Happening::Leave { delivered, vpc, device } => {
                self.trace.note(1, self.now, &delivered.packet);
                let mut deeds = Deeds::default();
                let found = self.hosts.find_packet(vpc, &delivered.packet);
                self.hosts.receive((vpc, device), delivered.packet, self.now, &mut deeds);
                if let Some((number, _)) = found
                    && let Some(states) =
                        self.hosts.talks.get(&number).and_then(Conversation::tcp_states)
                {
                    for state in states {
                        self.coverage.add(Kind::Tcp, state, 1);
                    }
                }
                self.follow_hosts(deeds)
            }
            Happening::ToAppliance { gateway, appliance, sent } => {
                self.appliance_gets(gateway, appliance, sent)
            }
            Happening::FromAppliance { gateway, datagram } => self.gateway_gets(gateway, datagram),
            Happening::Probe { gateway, life, input } => {
                if self.sites[gateway].life != life {
                    return Ok(());
                }
                self.at(gateway, |it| it.control(input))
            }
            Happening::TakeUp { gateway, life, worker } => {
                if self.sites[gateway].life != life {
                    return Ok(());
                }
                let until = self.sites[gateway].lag[usize::from(worker)];
                if until > self.now {
                    self.schedule(until, Happening::TakeUp { gateway, life, worker });
                    return Ok(());
                }
                self.at(gateway, |it| it.take_up(worker))
            }
            Happening::Serve { gateway, life, worker } => {
                let site = &mut self.sites[gateway];
                if site.life != life {
                    return Ok(());
                }
                let until = site.stall[usize::from(worker)];
                if until > self.now {
                    self.schedule(until, Happening::Serve { gateway, life, worker });
                    return Ok(());
                }
                site.called[usize::from(worker)] = false;
                self.at(gateway, |it| it.serve_inbox(worker))
            }
            Happening::Look => {
                self.schedule(self.now + LOOK, Happening::Look);
                for site in 0..self.sites.len() {
                    if self.sites[site].asleep[0] > self.now {
                        continue;
                    }
                    self.at(site, |gateway| {
                        let drops = gateway.totals().udp.drops;
                        let of = |name: &str| drops.get(name).copied().unwrap_or_default();
                        gateway.control(Input::Symptoms(Symptoms {
                            unknown_source: of("unknown_source"),
                            wrong_gateway_address: of("wrong_gateway_address"),
                            bad_cookie: of("bad_cookie"),
                            ..Symptoms::default()
                        }));
                    })?;
                }
                Ok(())
            }
        }
    }

    /// Takes what a gateway has done, judges it, and sends on what it sent.
    fn settle(&mut self, index: usize) -> Result<(), Violation> {
        self.acting = Some(index);
        let policy = self.policy(self.sites[index].variant);
        let site = &mut self.sites[index];
        let Some(gateway) = &mut site.gateway else { return Ok(()) };
        let journal = gateway.take_journal();
        let (sent, delivered) = (gateway.take_sent(), gateway.take_delivered());
        gateway.take_events();
        let probes = gateway.take_probes();
        let untracked = gateway.untracked();
        if untracked > site.untracked {
            (site.untracked, site.judge.loose) = (untracked, true);
        }
        let gateway = &*gateway;
        let sight = Sight {
            gateway,
            now: self.now,
            policy,
            soonest: self.plan.world.policy.soonest().min(self.plan.world.other.soonest()),
            let_out: &self.let_out,
        };
        let mut wrong = None;
        let mut followed = 0;
        for step in &journal {
            followed += 1;
            if self.tell {
                eprintln!("{:>14.6?} gateway {index}: {}", self.now, tell(step));
            }
            self.trace.step(index, step);
            self.coverage.note(step, policy, !site.switched.is_empty(), |address| {
                let address = address.to_string();
                gateway.targets().into_iter().find(|it| it.address == address)
            });
            if let Err(found) = site.model.follow(step) {
                wrong = Some(of_model(&found));
                break;
            }
            let judged = site.judge.follow(step, &sight, &mut self.hosts, &mut self.coverage);
            if let Err(found) = judged {
                wrong = Some(found);
                break;
            }
        }
        let wrong = wrong.or_else(|| site.judge.settle().err());
        if let Some(wrong) = wrong {
            // What it did behind the wrong step is of no use.
            let steps = site.recent.iter().chain(&journal[..followed]).cloned();
            let trace = last(&steps.collect::<Vec<_>>());
            return Err(Violation { trace, ..self.violation(Some(index), wrong) });
        }
        let generation = gateway.snapshot().generation;
        let waiting: Vec<_> =
            (0..self.plan.world.workers).map(|worker| gateway.waiting(worker) > 0).collect();
        if !journal.is_empty() {
            site.recent = journal;
        }
        let life = site.life;
        if generation > site.told {
            site.told = generation;
            for worker in 0..self.plan.world.workers {
                let names = [index as u64, u64::from(worker), generation, life.into()];
                let mut dice = Dice::of(self.plan.seed, About::Worker, &names);
                let after = dice.time(Duration::ZERO, Duration::from_millis(4));
                self.schedule(self.now + after, Happening::TakeUp { gateway: index, life, worker });
            }
        }
        for (worker, waiting) in (0..self.plan.world.workers).zip(waiting) {
            let called = &mut self.sites[index].called[usize::from(worker)];
            if waiting && !std::mem::replace(called, true) {
                let after = Duration::from_micros(50);
                self.schedule(self.now + after, Happening::Serve { gateway: index, life, worker });
            }
        }
        for request in probes {
            self.probe(index, &request);
        }
        for sent in sent {
            self.send_to_appliance(index, &sent);
        }
        for delivered in delivered {
            self.deliver(&delivered);
        }
        Ok(())
    }

    fn count_flows(&mut self, index: usize) {
        let site = &mut self.sites[index];
        let Some(gateway) = &site.gateway else { return };
        let totals = gateway.totals();
        for (reason, count) in totals.tun.drops.iter().chain(&totals.udp.drops) {
            self.coverage.add(Kind::Drop, reason, *count);
        }
        let flows = totals.flows;
        for ((name, _, after), (_, _, before)) in flows.fields().zip(site.flows.fields()) {
            self.coverage.add(Kind::Flow, name, after - before);
        }
        site.flows = flows;
    }
}

impl Site {
    /// What it has done last, what nobody has looked at included.
    fn take_recent(&mut self) -> Vec<Step> {
        let mut steps = std::mem::take(&mut self.recent);
        if let Some(gateway) = &mut self.gateway {
            steps.extend(gateway.take_journal());
        }
        steps
    }

    fn due(&self) -> Option<Duration> {
        let due = self.born + self.gateway.as_ref()?.poll_timeout()?;
        Some(due.max(self.asleep[1]))
    }
}

/// What the model of a gateway objects to.
fn of_model(found: &crate::model::Violation) -> Wrong {
    Wrong::new(format!("Model, {}", found.clause), found.to_string())
}

/// The last steps, a line each.
fn last(steps: &[Step]) -> Vec<String> {
    steps.iter().rev().take(12).rev().map(tell).collect()
}

/// A step in a line, for whoever looks for what went wrong.
fn tell(step: &Step) -> String {
    let mut line = format!("{:?} {:?}", step.time, step.what);
    if line.len() > 4000 {
        let end = (0..=4000).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}
