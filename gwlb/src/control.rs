//! The control plane: what the data plane should know, as the configuration, commands, health and
//! time say.
//!
//! It has the form of the data plane: events come in with the time, side effects come out as data,
//! and nothing here has a thread, a socket or a clock. It does not speak HTTP either: probes are
//! made by whoever takes them from here.
//!
//! # How it is driven
//!
//! 1. [`Control::new`], then [`Control::poll_output`] until there is nothing left.
//! 2. Whatever happens goes in by [`Control::handle`] or one of the commands
//!    ([`Control::register`], [`Control::deregister`], [`Control::set_traffic_mode`],
//!    [`Control::reload`]), and when the time of [`Control::poll_timeout`] has come,
//!    [`Control::handle_timeout`] is called. Time never runs backwards.
//! 3. After each of these [`Control::poll_output`] is asked until there is nothing left, and then
//!    `poll_timeout` anew. A view comes before what depends on it.
//! 4. Every [`Output::Probe`] and [`Output::TunnelProbe`] is answered exactly once, within its
//!    timeout, and every view is acknowledged when all workers hold it or a later one.
//!
//! The same inputs at the same times have the same outputs. Nothing is polled for, but the flow
//! counters of targets that drain, which workers count without telling.

mod agenda;
mod checking;
mod command;
mod counts;
pub mod event;
mod failover;
mod health;
mod lifecycle;
mod member;
pub mod overview;
mod ping;
mod pool;
mod probe;
mod reload;
pub mod silence;
mod snapshot;
pub mod status;
mod target;
pub mod tunnel;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use router::Topology;

pub use command::{CommandError, MAX_TARGETS_PER_ZONE, TargetSpec};
pub use event::Event;
pub use failover::{EndpointGroupStatus, GroupMemberStatus};
pub use health::{CheckId, ProbeRequest};
pub use overview::{LoadBalancerStatus, NodePackets, NodeStatus};
pub use ping::{Ping, PingError};
pub use probe::ProbeOutcome;
pub use silence::{Diagnosis, Symptoms};
pub use status::TargetStatus;
pub use target::{ReasonCode, Standing, TargetState};
pub use tunnel::{Recognised, TunnelOutcome, TunnelRequest, recognise};

use agenda::Agenda;
use event::BypassCause;
use member::Member;
use silence::{Change, Watch};
use target::{Particulars, Registry};

use crate::config::{HealthCheck, Settings, TrafficMode};
use crate::dataplane::keys::{EPOCH_SECONDS, Keys, Secret};
use crate::dataplane::snapshot::{PoolId, Snapshot, TargetSlot, TunnelFlow};
use crate::fault::{self, Fault};

/// What the control plane is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The wall clock, as time since 1970: cookie keys turn by the calendar. To be told now and
    /// then, since clocks are set.
    WallClock(Duration),
    /// The underlay carries outer packets of at most `mtu` bytes to this target.
    PathMtu {
        /// The target.
        target: TargetSlot,
        /// In bytes, outer IP header included.
        mtu: u16,
    },
    /// A probe has ended.
    Probe {
        /// Whose it was.
        check: CheckId,
        /// How.
        outcome: ProbeOutcome,
    },
    /// A probe was passed within this time. Told besides its outcome, and for nothing but to be shown.
    ProbeTook {
        /// Whose it was.
        check: CheckId,
        /// From the connection's beginning to the end of the answer.
        took: Duration,
    },
    /// A probe through the tunnel has ended.
    TunnelProbe {
        /// Whose it was.
        check: CheckId,
        /// Which of its probes.
        sequence: u32,
        /// How.
        outcome: TunnelOutcome,
    },
    /// Something says that a target may be dead, such as an ICMP error about a packet of ours.
    Suspect(TargetSlot),
    /// Every worker holds the view of this generation or a later one.
    Acknowledged(u64),
    /// What was seen to go wrong on the way back, every few seconds.
    Symptoms(Symptoms),
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Output {
    /// Give this view to every worker.
    Publish(Arc<Snapshot>),
    /// Make this health probe.
    Probe(ProbeRequest),
    /// Send this packet through the tunnel.
    TunnelProbe(TunnelRequest),
    /// Tell whoever wants to know.
    Event(Event),
}

/// The control plane of one gateway.
#[derive(Debug)]
pub struct Control {
    settings: Arc<Settings>,
    /// By target group.
    health_checks: Vec<Arc<HealthCheck>>,
    /// By load balancer: as configured, or as somebody has switched it.
    traffic_modes: Vec<TrafficMode>,
    /// By [`router::GroupId`].
    endpoint_groups: Vec<failover::Run>,
    topology_epoch: u32,
    earlier_topology: Option<Arc<Topology>>,
    secret: Secret,
    keys: Keys,
    epoch: u64,
    workers: u16,
    /// By [`PoolId`].
    nodes: Vec<Node>,
    /// What is counted for endpoints.
    counts: counts::Counts,
    registry: Registry,
    members: BTreeMap<(TargetSlot, PoolId), Member>,
    checks: AHashMap<CheckId, (TargetSlot, PoolId)>,
    last_check: u64,
    watches: BTreeMap<TargetSlot, Watch>,
    agenda: Agenda<Item>,
    /// The latest time that was told, and the wall clock at a moment.
    now: Instant,
    wall_clock: (Instant, Duration),
    /// The view that every worker holds, or a later one.
    acknowledged: u64,
    snapshot: Arc<Snapshot>,
    unpublished: bool,
    /// Whether the view is not what is known any more.
    dirty: bool,
    outputs: VecDeque<Output>,
}

/// A load balancer's node.
#[derive(Debug, Clone)]
struct Node {
    /// The load balancer's name.
    load_balancer: String,
    zone: String,
    address: IpAddr,
    /// Index of the load balancer and of its node, if it is still there.
    place: Option<(usize, usize)>,
}

/// What can be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    /// The cookie keys turn.
    Epoch,
    /// A check probes.
    Check(CheckId),
    /// A slow start makes a step.
    Step(TargetSlot, PoolId),
    /// A deregistration goes on.
    Life(TargetSlot),
    /// A group of endpoints returns to the one that it prefers.
    Group(usize),
}

impl Control {
    /// A control plane for a checked configuration. `wall_clock` is the time since 1970.
    ///
    /// The first snapshot is the first output.
    pub fn new(
        settings: Arc<Settings>,
        secret: Secret,
        workers: u16,
        wall_clock: Duration,
        now: Instant,
    ) -> Self {
        let epoch = wall_clock.as_secs() / EPOCH_SECONDS;
        let keys = Keys::derive(&secret, epoch);
        let mut control = Self {
            health_checks: health_checks(&settings),
            traffic_modes: traffic_modes(&settings),
            endpoint_groups: settings
                .topology
                .endpoint_groups()
                .map(|(_, group)| failover::Run::of(&settings, group))
                .collect(),
            topology_epoch: 0,
            earlier_topology: None,
            secret,
            epoch,
            workers,
            nodes: places(&settings).map(|place| Node::at(&settings, place)).collect(),
            counts: counts::Counts::new(workers),
            registry: Registry::default(),
            members: BTreeMap::new(),
            checks: AHashMap::new(),
            // So that no probe of an earlier process, or of another gateway, is taken for ours.
            last_check: wall_clock.as_nanos() as u64,
            watches: BTreeMap::new(),
            agenda: Agenda::default(),
            now,
            wall_clock: (now, wall_clock),
            acknowledged: 0,
            snapshot: Arc::new(snapshot::nothing(&settings, keys.clone())),
            keys,
            unpublished: false,
            dirty: true,
            outputs: VecDeque::new(),
            settings,
        };
        control.turn_keys();
        control.counts.take(&control.settings.topology, 0);
        let settings = Arc::clone(&control.settings);
        for (index, group) in settings.target_groups.iter().enumerate() {
            for target in &group.targets {
                control.put(index, Particulars::of(group, target));
            }
        }
        control.sync_members(true);
        control.settle();
        control
    }

    /// Takes an event in.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.see(now);
        match input {
            Input::WallClock(wall_clock) => {
                self.wall_clock = (self.now, wall_clock);
                self.turn_keys();
            }
            Input::PathMtu { target, mtu } => self.set_path_mtu(target, mtu),
            Input::Probe { check, outcome } => self.record_probe(check, outcome),
            Input::ProbeTook { check, took } => self.record_probe_time(check, took),
            Input::TunnelProbe { check, sequence, outcome } => {
                self.record_tunnel(check, sequence, outcome);
            }
            Input::Suspect(slot) => self.suspect(slot),
            Input::Acknowledged(generation) => {
                if generation > self.acknowledged {
                    self.acknowledged = generation;
                    self.reschedule_tunnels();
                    self.advance_lives();
                    self.confirm_groups(generation);
                }
            }
            Input::Symptoms(symptoms) => self.look_for_silence(&symptoms),
        }
        self.settle();
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.see(now);
        self.settle();
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called. It may be called earlier.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.agenda.next()
    }

    /// What is to be done next, if anything.
    pub fn poll_output(&mut self) -> Option<Output> {
        if std::mem::take(&mut self.unpublished) {
            return Some(Output::Publish(Arc::clone(&self.snapshot)));
        }
        self.outputs.pop_front()
    }

    /// Whether each health check has got an answer, or has waited in vain for one. Checks through
    /// the tunnel need workers, so a start that waits for this does not wait for them.
    pub fn is_settled(&self) -> bool {
        let mut runs = self.members.values().filter_map(|member| member.health.as_ref());
        runs.all(|run| run.check.has_ended())
    }

    /// The latest view.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// The configuration that is in force. Targets that were registered since are not in it.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The configuration with what was changed since by commands: what a reload is compared with.
    pub fn effective_settings(&self) -> Settings {
        let mut settings = Settings::clone(&self.settings);
        for (balancer, mode) in settings.load_balancers.iter_mut().zip(&self.traffic_modes) {
            balancer.traffic_mode = *mode;
        }
        for group in &mut settings.target_groups {
            let registered = self.registry.live().map(|(_, it)| it).filter(|it| it.is_registered());
            let of_group = registered.filter(|it| it.group == group.name.as_str());
            group.targets = of_group.map(|it| it.settings(group.port)).collect();
        }
        settings
    }

    /// Switches a load balancer between inspection and bypass, until the next switch or reload.
    ///
    /// # Errors
    /// [`CommandError::UnknownLoadBalancer`].
    pub fn set_traffic_mode(
        &mut self,
        load_balancer: &str,
        mode: TrafficMode,
        now: Instant,
    ) -> Result<(), CommandError> {
        self.see(now);
        let mut balancers = self.settings.load_balancers.iter();
        let index = balancers
            .position(|it| it.name.as_str() == load_balancer)
            .ok_or_else(|| CommandError::unknown_load_balancer(load_balancer, &self.settings))?;
        if self.traffic_modes[index] != mode {
            self.traffic_modes[index] = mode;
            self.dirty = true;
            self.event(Event::Bypass {
                load_balancer: load_balancer.to_owned(),
                zone: None,
                on: mode == TrafficMode::Bypass,
                cause: BypassCause::TrafficMode,
            });
        }
        self.settle();
        Ok(())
    }

    /// Time has come this far.
    fn see(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Does what is due, and tells the workers what has changed.
    fn settle(&mut self) {
        while let Some(item) = self.agenda.take_due(self.now) {
            match item {
                Item::Epoch => self.turn_keys(),
                Item::Check(id) => self.start_probes(id),
                Item::Step(slot, pool) => self.step((slot, pool)),
                Item::Life(slot) => self.advance_life(slot),
                Item::Group(index) => self.return_group(index),
            }
        }
        if self.dirty {
            self.publish();
        }
    }

    /// Takes the keys of the present epoch, and sets the time of the next.
    fn turn_keys(&mut self) {
        let unix = self.unix_now();
        let epoch = unix.as_secs() / EPOCH_SECONDS;
        if epoch != self.epoch && !fault::on(Fault::EpochNeverTurns) {
            self.epoch = epoch;
            self.keys = Keys::derive(&self.secret, epoch);
            self.dirty = true;
        }
        let next = Duration::from_secs((epoch + 1) * EPOCH_SECONDS);
        self.agenda.set(Item::Epoch, Some(self.now + next.saturating_sub(unix)));
    }

    /// The wall clock now, as time since 1970.
    fn unix_now(&self) -> Duration {
        let (at, wall_clock) = self.wall_clock;
        wall_clock + self.now.saturating_duration_since(at)
    }

    /// The generation of the view that the present change leads to.
    fn next_generation(&self) -> u64 {
        self.snapshot.generation + 1
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// The inner addresses of a node's probes and pings, and the wire id of the endpoint that probes
    /// come through; `None` if it serves none.
    fn flow_of(&self, pool: PoolId) -> Option<(TunnelFlow, u64)> {
        tunnel::flow(&self.settings, self.nodes.get(usize::from(pool.0))?.place?)
    }

    fn look_for_silence(&mut self, symptoms: &Symptoms) {
        let slots: Vec<_> = self.registry.live().map(|(slot, _)| slot).collect();
        for slot in slots {
            let healthy = self.is_healthy(slot);
            let Some(target) = self.registry.get(slot) else { continue };
            let group = self.settings.target_groups.get(target.group_index);
            let tolerant = group.is_some_and(|group| group.tolerate_bad_udp_checksum);
            let watch = self.watches.entry(slot).or_default();
            let change = watch.look(healthy, &target.totals(), (symptoms, tolerant), self.now);
            let (target_group, target) = (target.group.clone(), target.address);
            match change {
                Some(Change::Diagnosed(diagnosis)) => {
                    self.event(Event::Diagnosed { target_group, target, diagnosis });
                }
                Some(Change::Cleared(code)) => {
                    self.event(Event::Cleared { target_group, target, code });
                }
                None => {}
            }
        }
    }
}

impl Node {
    fn at(settings: &Settings, place: (usize, usize)) -> Self {
        let balancer = &settings.load_balancers[place.0];
        let node = &balancer.nodes[place.1];
        Self {
            load_balancer: balancer.name.to_string(),
            zone: node.zone.clone(),
            address: node.address,
            place: Some(place),
        }
    }
}

/// Every node: index of the load balancer, index among its nodes.
fn places(settings: &Settings) -> impl Iterator<Item = (usize, usize)> {
    let balancers = settings.load_balancers.iter().enumerate();
    balancers.flat_map(|(index, it)| (0..it.nodes.len()).map(move |node| (index, node)))
}

fn health_checks(settings: &Settings) -> Vec<Arc<HealthCheck>> {
    settings.target_groups.iter().map(|group| Arc::new(group.health_check.clone())).collect()
}

fn traffic_modes(settings: &Settings) -> Vec<TrafficMode> {
    settings.load_balancers.iter().map(|balancer| balancer.traffic_mode).collect()
}
