//! The naive control plane: who is registered, what each node thinks of whom, and what workers
//! should be told. It predicts every view, event and probe from what the gateway was told.
//!
//! Not predicted are the moment within an interval at which regular probes are made, when probes
//! through the tunnel are made and what size they measure, and what is diagnosed of targets that are
//! silent; of those it holds what can be seen to follow.

mod check;
mod choice;
mod compare;
mod groups;
mod leaving;
mod member;
mod probes;
mod registry;
mod reload;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gwlb::config::{LoadBalancer, Node as NodeSettings, Settings, TargetGroup, TrafficMode};
use gwlb::control::event::{BypassCause, FailoverAction};
use gwlb::control::{CheckId, Event, Input};
use gwlb::dataplane::snapshot::{Fate, NoCandidate, PoolId, TargetSlot};

use super::books::Books;
use super::{Clause, Wrong, hold, wrong};
use choice::{Choice, Health, Seen, TargetNumber, choice};
use groups::Group;
use leaving::Life;
use member::Member;

/// How long a cookie's key stamps: a day.
const EPOCH_SECONDS: u64 = 86_400;

/// A load balancer's node, by its load balancer's name and its zone.
type NodeName = (String, String);

/// Who a node checks: a target of those that it may use.
type MemberId = (PoolId, TargetNumber);

/// A node that is there or was.
#[derive(Debug, Clone)]
struct Node {
    name: NodeName,
    /// Where the configuration has it, if it is there now: its load balancer, and which of its nodes.
    place: Option<(usize, usize)>,
}

/// A target, from its registration until it is forgotten.
#[derive(Debug, Clone)]
struct Target {
    group: String,
    address: SocketAddr,
    zone: String,
    weight: u16,
    life: Life,
    /// When its leaving is looked at again.
    look_at: Option<Duration>,
    path_mtu: u16,
    slot: Option<TargetSlot>,
    /// Lengths of packets that came back through the tunnel.
    came_back: BTreeSet<u16>,
}

/// What the control plane of one gateway knows.
#[derive(Debug)]
pub(super) struct Control {
    settings: Arc<Settings>,
    modes: BTreeMap<String, TrafficMode>,
    /// Every node that ever was, by its number.
    nodes: Vec<Node>,
    targets: BTreeMap<TargetNumber, Target>,
    last_target: TargetNumber,
    members: BTreeMap<MemberId, Member>,
    checks: BTreeMap<CheckId, MemberId>,
    /// Probes through the tunnel that are under way: the length of the packet inside, and whether it
    /// is one of those that decide.
    tunnelled: BTreeMap<(CheckId, u32), (u16, bool)>,
    workers: u16,
    now: Duration,
    wall_clock: (Duration, Duration),
    epoch: u64,
    topology_epoch: u32,
    acknowledged: u64,
    generation: u64,
    causes: Option<Causes>,
    /// What workers should be told.
    view: Option<Arc<Told>>,
    /// What they were told last.
    published: Option<Arc<Told>>,
    /// Whether what was due before now may be done only now.
    pub(super) late: bool,
    /// Targets that were forgotten last, with when.
    forgotten: Vec<(Duration, IpAddr)>,
    events: Vec<Event>,
    probes: Vec<MemberId>,
    /// By the name of each group of endpoints.
    groups: BTreeMap<String, Group>,
}

/// All that a view follows from: as long as it is the same, so is the view.
#[derive(Debug, PartialEq, Eq)]
struct Causes {
    nodes: Vec<(PoolId, TrafficMode, Vec<Seen>)>,
    /// Those that are there, with the path MTU that they have.
    targets: Vec<(TargetNumber, u16)>,
    epoch: u64,
    /// Counts reloads: all that a configuration says goes with one.
    reloads: u32,
    topology_epoch: u32,
}

/// What is to be seen in a view.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    nodes: BTreeMap<PoolId, (Choice, TrafficMode)>,
    targets: Vec<(TargetNumber, u16)>,
    epoch: u64,
    reloads: u32,
    topology_epoch: u32,
}

impl Control {
    /// At the start, when the gateway has read its configuration.
    pub(super) fn new(
        settings: &Arc<Settings>,
        workers: u16,
        wall_clock: Duration,
        books: &Books,
    ) -> Control {
        let balancers = settings.load_balancers.iter();
        let mut control = Control {
            modes: balancers.map(|it| (it.name.to_string(), it.traffic_mode)).collect(),
            nodes: nodes(settings),
            targets: BTreeMap::new(),
            last_target: 0,
            members: BTreeMap::new(),
            checks: BTreeMap::new(),
            tunnelled: BTreeMap::new(),
            workers,
            now: Duration::ZERO,
            wall_clock: (Duration::ZERO, wall_clock),
            epoch: 0,
            topology_epoch: 0,
            acknowledged: 0,
            generation: 0,
            causes: None,
            view: None,
            published: None,
            late: false,
            forgotten: Vec::new(),
            events: Vec::new(),
            probes: Vec::new(),
            groups: BTreeMap::new(),
            settings: Arc::clone(settings),
        };
        control.put_all(books);
        control.sync_members(true);
        control.settle(books, 0);
        control
    }

    /// Something happens now: nothing that was due before may have been missed.
    pub(super) fn pass(&mut self, now: Duration) -> Result<(), Wrong> {
        self.hold_up_to_date()?;
        let late = self.members.iter().find_map(|((node, target), member)| {
            let due = member.health.as_ref()?.due();
            (due < now)
                .then(|| format!("{} was to be probed at {due:?}", self.names((*node, *target))))
        });
        let leaving = self.targets.values().find_map(|target| {
            let due = target.look_at?;
            let what = || format!("the leaving of {} was to go on at {due:?}", target.address);
            (due < now).then(what)
        });
        let slow = self.members.iter().find_map(|((node, target), member)| {
            let due = self.next_weight(*node, member)?;
            (due < now).then(|| format!("{} was to get more at {due:?}", self.name(*target)))
        });
        let turns = self.unix(self.now).as_secs() / EPOCH_SECONDS + 1;
        let turns = Duration::from_secs(turns * EPOCH_SECONDS);
        let turn = self.unix(now) > turns;
        let turn = turn.then(|| "the cookie keys were to turn".to_owned());
        match late.or(leaving).or(slow).or(turn) {
            Some(late) => wrong(Clause::Documented, || late),
            None => Ok(()),
        }
    }

    /// Holds that workers, whoever listens, and the prober were told all that there is to tell.
    pub(super) fn hold_up_to_date(&self) -> Result<(), Wrong> {
        if let Some(event) = self.events.first() {
            return wrong(Clause::Documented, || format!("nobody was told of {event:?}"));
        }
        if let Some(missing) = self.probes.first() {
            return wrong(Clause::Documented, || format!("nobody probed {}", self.names(*missing)));
        }
        hold(self.view == self.published, Clause::Documented, || {
            format!("workers should know {:?}, and were told {:?}", self.view, self.published)
        })
    }

    /// The control plane was told something.
    pub(super) fn told(&mut self, input: &Input, now: Duration, books: &Books) {
        let known = (self.now, self.unix(self.now));
        self.now = now;
        match *input {
            // It is as late as it was when it was last found out what is due.
            Input::WallClock(wall_clock) if known == (now, wall_clock) => return,
            Input::WallClock(wall_clock) => self.wall_clock = (now, wall_clock),
            Input::PathMtu { target, mtu } => {
                if let Some(target) = self.target_in(target) {
                    target.path_mtu = mtu;
                }
            }
            Input::Probe { check, outcome } => {
                let key = self.checks.get(&check).copied();
                self.end(key, |member| {
                    let run = member.health.as_mut().filter(|_| member.health_id == Some(check));
                    run.map(|run| run.end(outcome, now))
                });
            }
            Input::TunnelProbe { check, sequence, outcome } => {
                self.end_tunnelled((check, sequence), outcome);
            }
            Input::Suspect(slot) => {
                let number = self.targets.iter().find(|(_, it)| it.slot == Some(slot));
                let number = number.map(|(number, _)| *number);
                let of_target = self.members.iter_mut().filter(|((_, it), _)| Some(*it) == number);
                for (_, member) in of_target {
                    member.health.iter_mut().for_each(|check| check.suspect(now));
                    member.tunnel.iter_mut().for_each(|check| check.suspect(now));
                }
            }
            Input::Acknowledged(generation) if generation > self.acknowledged => {
                self.acknowledged = generation;
                for number in self.leaving() {
                    self.look_at_leaving(number, books);
                }
            }
            // What is shown only: nothing depends on it.
            Input::ProbeTook { .. } | Input::Acknowledged(_) | Input::Symptoms(_) => {}
        }
        self.settle(books, 0);
    }

    /// It was called because something is due.
    pub(super) fn timeout(&mut self, now: Duration, books: &Books) {
        self.now = now;
        self.settle(books, 0);
    }

    /// Somebody has switched a load balancer. Returns whether there is one.
    pub(super) fn switch(
        &mut self,
        balancer: &str,
        mode: TrafficMode,
        now: Duration,
        books: &Books,
    ) -> bool {
        self.now = now;
        let Some(present) = self.modes.get_mut(balancer) else { return false };
        if std::mem::replace(present, mode) != mode {
            self.events.push(Event::Bypass {
                load_balancer: balancer.to_owned(),
                zone: None,
                on: mode == TrafficMode::Bypass,
                cause: BypassCause::TrafficMode,
            });
        }
        self.settle(books, 0);
        true
    }

    /// An event was told: it must have happened.
    pub(super) fn event(&mut self, event: &Event) -> Result<(), Wrong> {
        if let Event::Diagnosed { .. } | Event::Cleared { .. } | Event::UsableMtu { .. } = event {
            return Ok(());
        }
        if let Event::EndpointGroup { endpoint_group, from, to, active, .. } = event {
            return self.group_event(endpoint_group, *from, *to, active.as_deref());
        }
        let Some(found) = self.events.iter().position(|it| it == event) else {
            let due = &self.events;
            return wrong(Clause::Documented, || format!("{event:?} is told, {due:?} happened"));
        };
        self.events.remove(found);
        Ok(())
    }

    /// When a target in slow start gets more.
    fn next_weight(&self, node: PoolId, member: &Member) -> Option<Duration> {
        let begun = member.slow?;
        let whole = self.node(node)?.1.slow_start;
        let step = steps(whole, self.now.saturating_sub(begun));
        Some(begun + whole * (step + 1) / STEPS)
    }

    /// Does what is due, and says what workers are to know.
    fn settle(&mut self, books: &Books, reloads: u32) {
        self.epoch = self.unix(self.now).as_secs() / EPOCH_SECONDS;
        for number in self.leaving() {
            let due = self.targets[&number].look_at.is_some_and(|due| due <= self.now);
            if due {
                self.look_at_leaving(number, books);
            }
        }
        let now = self.now;
        for (key, member) in &mut self.members {
            let group = self.nodes[usize::from(key.0.0)].in_force(&self.settings);
            let whole = group.map(|(_, group)| group.slow_start).unwrap_or_default();
            if member.slow.is_some_and(|begun| now >= begun + whole) {
                member.slow = None;
            }
            let Some(check) = &mut member.health else { continue };
            // One at a time, but for the regular ones, of which nobody knows the moment yet.
            if check.due() <= now && !self.probes.contains(key) {
                check.start(now);
                self.probes.push(*key);
            }
        }
        let reloads = self.causes.as_ref().map_or(0, |causes| causes.reloads) + reloads;
        let causes = self.causes(reloads);
        if self.causes.as_ref() == Some(&causes) {
            return;
        }
        let told = self.tell(&causes);
        self.causes = Some(causes);
        // It is the same thing as long as it says the same.
        if self.view.as_deref() != Some(&told) {
            let before = self.view.replace(Arc::new(told));
            self.tell_of_changes(before.as_deref(), books);
        }
    }

    /// What the view follows from now.
    fn causes(&self, reloads: u32) -> Causes {
        let targets: Vec<(TargetNumber, &Target)> =
            self.targets.iter().map(|(number, target)| (*number, target)).collect();
        let nodes = self.nodes.iter().enumerate().filter_map(|(number, node)| {
            let pool = PoolId(number as u16);
            let (_, group) = node.in_force(&self.settings)?;
            let seen = targets.iter();
            let seen = seen.filter_map(|(number, target)| self.seen(pool, group, *number, target));
            let mode = self.modes.get(&node.name.0).copied().unwrap_or_default();
            Some((pool, mode, seen.collect()))
        });
        Causes {
            nodes: nodes.collect(),
            targets: targets.iter().map(|(number, target)| (*number, target.path_mtu)).collect(),
            epoch: self.epoch,
            reloads,
            topology_epoch: self.topology_epoch,
        }
    }

    /// What workers are to know.
    fn tell(&self, causes: &Causes) -> Told {
        let nodes = causes.nodes.iter().filter_map(|(pool, mode, seen)| {
            let (balancer, group) = self.node(*pool)?;
            Some((*pool, (choice(balancer, group, seen), *mode)))
        });
        Told {
            nodes: nodes.collect(),
            targets: causes.targets.clone(),
            epoch: causes.epoch,
            reloads: causes.reloads,
            topology_epoch: causes.topology_epoch,
        }
    }

    /// A target as a node sees it; nothing, if the node has nothing to do with it.
    fn seen(
        &self,
        node: PoolId,
        group: &TargetGroup,
        number: TargetNumber,
        target: &Target,
    ) -> Option<Seen> {
        let member = self.members.get(&(node, number));
        let over = matches!(target.life, Life::Unused { .. });
        if member.is_none() && !over {
            return None;
        }
        let begun = member.and_then(|member| member.slow);
        let present_weight = begun.map_or(target.weight, |begun| {
            let part = steps(group.slow_start, self.now.saturating_sub(begun));
            let weight = u32::from(target.weight) * part / STEPS;
            (weight as u16).clamp(target.weight.min(1), target.weight)
        });
        Some(Seen {
            number,
            checked: member.is_some(),
            near: member.is_some_and(|member| member.near),
            registered: target.is_registered(),
            over,
            weight: target.weight,
            present_weight,
            health: member.map_or(Health::Healthy, Member::health_now),
        })
    }

    /// Tells of flows that lose their target, and of packets that begin to pass uninspected.
    fn tell_of_changes(&mut self, before: Option<&Told>, books: &Books) {
        let Some(view) = &self.view else { return };
        let mut events = Vec::new();
        for (pool, (now, _)) in &view.nodes {
            let Some((balancer, _)) = self.node(*pool) else { continue };
            let name = &self.nodes[usize::from(pool.0)].name;
            let was = before.and_then(|before| before.nodes.get(pool)).map(|(choice, _)| choice);
            let passes = |choice: &Choice| {
                choice.candidates.is_empty() && choice.none == NoCandidate::Bypass
            };
            if was.is_some_and(passes) != passes(now) {
                events.push(Event::Bypass {
                    load_balancer: name.0.clone(),
                    zone: Some(name.1.clone()),
                    on: passes(now),
                    cause: BypassCause::NoneHealthy,
                });
            }
            for (number, fate) in &now.fates {
                let known = was.and_then(|was| was.fates.get(number)) == Some(fate);
                let Some(target) = self.targets.get(number) else { continue };
                let concerned =
                    target.zone == name.1 || balancer.cross_zone || balancer.spill_over_below > 0;
                let flows = target.flows(books);
                if known || !concerned || flows == 0 {
                    continue;
                }
                events.push(Event::Failover {
                    load_balancer: name.0.clone(),
                    zone: name.1.clone(),
                    target: target.address,
                    action: match fate {
                        Fate::Reset(cause) => (*cause).into(),
                        _ => FailoverAction::Rebalance,
                    },
                    flows,
                });
            }
        }
        self.events.extend(events);
    }

    /// The load balancer and target group of a node that is there.
    fn node(&self, node: PoolId) -> Option<(&LoadBalancer, &TargetGroup)> {
        self.nodes.get(usize::from(node.0))?.in_force(&self.settings)
    }

    /// The number of a node.
    fn pool(&self, name: &NodeName) -> Option<PoolId> {
        let found = self.nodes.iter().position(|it| it.name == *name)?;
        Some(PoolId(found as u16))
    }

    fn target_in(&mut self, slot: TargetSlot) -> Option<&mut Target> {
        self.targets.values_mut().find(|target| target.slot == Some(slot))
    }

    fn name(&self, target: TargetNumber) -> String {
        self.targets.get(&target).map_or_else(|| "?".to_owned(), |it| it.address.to_string())
    }

    /// A target, and the node that checks it.
    fn names(&self, (node, target): MemberId) -> String {
        let node = self.nodes.get(usize::from(node.0)).map(|node| &node.name);
        format!("{} for {node:?}", self.name(target))
    }

    /// The calendar's time.
    fn unix(&self, now: Duration) -> Duration {
        let (at, wall_clock) = self.wall_clock;
        wall_clock + now.saturating_sub(at)
    }
}

/// In how many steps a slow start leads to the full weight.
const STEPS: u32 = 20;

/// How many steps a slow start has made.
fn steps(whole: Duration, passed: Duration) -> u32 {
    if passed >= whole {
        return STEPS;
    }
    (passed.as_nanos() * u128::from(STEPS) / whole.as_nanos()) as u32
}

impl Node {
    /// Its load balancer and target group in the configuration in force, if it is there.
    fn in_force<'a>(&self, settings: &'a Settings) -> Option<(&'a LoadBalancer, &'a TargetGroup)> {
        let balancer = &settings.load_balancers[self.place?.0];
        Some((balancer, &settings.target_groups[balancer.target_group]))
    }

    /// Where the configuration has it.
    fn settings<'a>(&self, settings: &'a Settings) -> Option<&'a NodeSettings> {
        let (balancer, node) = self.place?;
        Some(&settings.load_balancers[balancer].nodes[node])
    }
}

/// The nodes of a configuration, in its order.
fn nodes(settings: &Settings) -> Vec<Node> {
    let mut all = Vec::new();
    for (balancer, of) in settings.load_balancers.iter().enumerate() {
        for (number, node) in of.nodes.iter().enumerate() {
            let name = (of.name.to_string(), node.zone.clone());
            all.push(Node { name, place: Some((balancer, number)) });
        }
    }
    all
}
