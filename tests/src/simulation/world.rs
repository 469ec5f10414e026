//! The world of one seed: gateways, appliances, hosts and the network on one virtual clock.

mod deeds;
mod wire;

use std::collections::BTreeMap;
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
use super::hosts::{Conversation, Deeds, Ending, Hosts, Timer};
use super::judge::{Judge, Sight, Wrong, balanced};
use super::network::{Leg, Network, corrupted};
use super::plan::{Event, Plan, Trouble, Way, What};
use super::random::{About, Dice};
use super::trace::Trace;
use super::{Artificial, Options, Violation};
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
    stall: Vec<Duration>,
    /// By worker: whether it will look into its inbox.
    called: Vec<bool>,
    variant: Variant,
    /// How far its calendar is off, in seconds.
    calendar: i64,
    untracked: u64,
    flows: FlowTableTotals,
}

/// Something that is going to happen.
#[derive(Debug)]
enum Happening {
    Begin(usize),
    End(usize),
    /// What a command or reload does at one gateway.
    Apply(usize, usize),
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

/// How often symptoms are told.
const LOOK: Duration = Duration::from_secs(20);
/// How long hosts are waited for when nothing new begins.
const PATIENCE: Duration = Duration::from_hours(1);

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
            trace: Trace::new(),
            coverage: Coverage::default(),
            steps: 0,
            artificial: options.artificial,
            tell: options.tell,
        };
        for index in 0..world.gateways {
            let site = made.site(index, 0, Variant::AsItWas, 0);
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
                end = Some(self.now + self.longest() + Duration::from_secs(40));
            }
            if end.is_some_and(|end| at > end) {
                break;
            }
            self.now = self.now.max(at);
            self.steps += 1;
            for site in 0..self.sites.len() {
                if self.sites[site].due().is_some_and(|due| due <= self.now) {
                    self.catch_up(site);
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

    /// The number of everything that happened, what was reached, and how much time passed.
    pub fn results(&mut self) -> (u64, Coverage, Duration) {
        for site in 0..self.sites.len() {
            self.count_flows(site);
        }
        (self.trace.value(), std::mem::take(&mut self.coverage), self.now)
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
    fn site(&mut self, index: usize, life: u32, variant: Variant, calendar: i64) -> Site {
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
        let _ = index;
        Site {
            gateway: Some(gateway),
            born: self.now,
            life,
            judge: Judge::new(self.policy(variant).when_none_healthy == "bypass", life > 0),
            model,
            told: 0,
            lag: vec![Duration::ZERO; workers],
            stall: vec![Duration::ZERO; workers],
            called: vec![false; workers],
            variant,
            calendar,
            untracked: 0,
            flows: FlowTableTotals::default(),
        }
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
        Arc::clone(self.settings.entry(variant as u8).or_insert_with(make))
    }

    /// Time passes at a gateway.
    fn catch_up(&mut self, index: usize) {
        let site = &mut self.sites[index];
        if let Some(gateway) = &mut site.gateway {
            let age = self.now.saturating_sub(site.born);
            gateway.advance(age.saturating_sub(gateway.elapsed()));
        }
    }

    /// Does something at a gateway, if it lives, and follows what comes of it.
    fn at(&mut self, index: usize, deed: impl FnOnce(&mut Gateway)) -> Result<(), Violation> {
        self.catch_up(index);
        let Some(gateway) = &mut self.sites[index].gateway else { return Ok(()) };
        deed(gateway);
        self.settle(index)
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Begin(event) => self.begin(event),
            Happening::End(event) => self.finish_event(event),
            Happening::Apply(event, site) => self.apply(event, site),
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
        for step in &journal {
            if self.tell {
                eprintln!("{:>14.6?} gateway {index}: {}", self.now, tell(step));
            }
            self.trace.step(index, step);
            self.coverage.note(step, policy);
            if let Err(found) = site.model.follow(step) {
                wrong = Some(of_model(&found));
                break;
            }
            let followed = site.judge.follow(step, &sight, &mut self.hosts, &mut self.coverage);
            if let Err(found) = followed {
                wrong = Some(found);
                break;
            }
        }
        let wrong = wrong.or_else(|| site.judge.settle().err());
        if let Some(wrong) = wrong {
            let mut violation = self.violation(Some(index), wrong);
            violation.trace = journal.iter().rev().take(12).rev().map(tell).collect();
            return Err(violation);
        }
        let generation = gateway.snapshot().generation;
        let waiting: Vec<_> =
            (0..self.plan.world.workers).map(|worker| gateway.waiting(worker) > 0).collect();
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

    fn follow_hosts(&mut self, deeds: Deeds) -> Result<(), Violation> {
        for (after, timer) in deeds.timers {
            self.schedule(self.now + after, Happening::Host(timer));
        }
        for (number, side, packet) in deeds.sent {
            self.send_from_host(number, side, &packet);
        }
        if let Some((clause, text)) = deeds.wrong {
            return Err(self.violation(None, Wrong::new(clause, text)));
        }
        if let Some(number) = deeds.denied {
            let talk = &self.hosts.talks[&number];
            // Of two services in a row one may be bypassed, and the packet does not end there.
            let in_a_row = self.plan.world.layout == Layout::Chained
                && self.sites.iter().any(|site| site.judge.may_bypass);
            if talk.inspected && !talk.bypassed && !in_a_row {
                let text = format!("no firewall lets this through: {}", talk.describe());
                return Err(self.violation(None, Wrong::new("NoUninspectedPath", text)));
            }
        }
        Ok(())
    }

    /// Looks at the books.
    fn audit(&mut self) -> Result<(), Violation> {
        for index in 0..self.sites.len() {
            let Some(gateway) = &self.sites[index].gateway else { continue };
            let totals = gateway.totals();
            let ledgers = [("TUN", &totals.tun), ("UDP", &totals.udp)];
            for (name, ledger) in ledgers {
                balanced(name, ledger).map_err(|wrong| self.violation(Some(index), wrong))?;
            }
            let books = self.sites[index].model.check_books(&totals, &gateway.target_totals());
            if let Err(found) = books {
                return Err(self.violation(Some(index), of_model(&found)));
            }
        }
        Ok(())
    }

    /// What must hold when all is quiet.
    fn finish(&mut self) -> Result<(), Violation> {
        self.audit()?;
        let world = &self.plan.world;
        for (index, site) in self.sites.iter().enumerate() {
            let Some(gateway) = &site.gateway else { continue };
            let totals = gateway.totals();
            let queued = (totals.tun.queued(), totals.udp.queued());
            if queued != (0, 0) {
                let text = format!("{queued:?} packets are queued for ever");
                return Err(self.violation(Some(index), Wrong::new("Bounded", text)));
            }
            if totals.flows.active() != 0 {
                let text = format!("{} flows are never forgotten", totals.flows.active());
                return Err(self.violation(Some(index), Wrong::new("Bounded", text)));
            }
        }
        for appliance in &self.appliances {
            if appliance.unaccounted() != 0 {
                let text = format!("appliance {} has lost packets", appliance.address);
                return Err(self.violation(None, Wrong::new("Conservation", text)));
            }
        }
        for talk in self.hosts.talks.values() {
            let name = match talk.end {
                Some(Ending::Done) => "done",
                Some(Ending::Reset) => "reset",
                Some(Ending::GaveUp) => "given up",
                None => "without end",
            };
            self.coverage.add(Kind::World, &format!("talks {name}"), 1);
            if let Some(harm) = talk.harm {
                self.coverage.add(Kind::World, &format!("harmed: {harm}"), 1);
            }
            let patient = talk.pause() < self.shortest() && talk.pause() < Duration::from_mins(15);
            let in_order = world.by_flow && !self.network.is_rough();
            let excused = talk.harm.is_some()
                || talk.losses > 2
                || talk.is_denied()
                || !patient
                || (talk.is_fragmented() && !in_order);
            if !excused {
                self.coverage.add(Kind::World, "unharmed talks", 1);
            }
            if talk.end != Some(Ending::Done) && !excused {
                let text = format!("nothing was done to it, and it is {name}: {}", talk.describe());
                return Err(self.violation(None, Wrong::new("Unharmed", text)));
            }
        }
        Ok(())
    }

    fn shortest(&self) -> Duration {
        self.plan.world.policy.shortest().min(self.plan.world.other.shortest())
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
    fn due(&self) -> Option<Duration> {
        Some(self.born + self.gateway.as_ref()?.poll_timeout()?)
    }
}

/// What the model of a gateway objects to.
fn of_model(found: &crate::model::Violation) -> Wrong {
    Wrong::new(format!("Model, {}", found.clause), found.to_string())
}

/// A step in a line, for whoever looks for what went wrong.
fn tell(step: &crate::gateway::journal::Step) -> String {
    let mut line = format!("{:?} {:?}", step.time, step.what);
    if line.len() > 4000 {
        let end = (0..=4000).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}
