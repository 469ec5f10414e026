//! The registered targets: who they are, how far their deregistration has come, and their slots.
//!
//! Whether a target is healthy is not known here: that is each node's own finding.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use geneve::dialect::Dialect;
use serde::{Deserialize, Serialize};

use crate::config::{Port, Target, TargetGroup, Weight};
use crate::dataplane::select::TargetId;
use crate::dataplane::snapshot::{TargetSlot, TargetView, Templates};
use crate::dataplane::stats::{
    Histogram, HistogramTotals, PROBE_BOUNDS, RoundTrips, TargetCounters, TargetTotals,
};
use crate::fault::{self, Fault};

/// Outer packets on an ordinary Ethernet, until the underlay is asked.
const ETHERNET_MTU: u16 = 1500;

/// How long packets may be under way to an appliance and back after a target's last flow has
/// ended: "targets must respond within 30 seconds" (semantics 1a).
const UNDER_WAY: Duration = Duration::from_secs(30);
/// How often the flows of a draining target are counted.
const DRAIN_TICK: Duration = Duration::from_millis(100);
/// The same for flows that stay beyond the deregistration delay, for which nobody waits.
const REST_TICK: Duration = Duration::from_secs(1);

/// The index of a group that is not there: no group has it.
pub(super) const NO_GROUP: usize = usize::MAX;

/// The state of a target, as AWS names it (semantics 1b, `TargetHealthStateEnum`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TargetState {
    /// Registered, and not found healthy or unhealthy yet.
    Initial,
    /// It passes its checks.
    Healthy,
    /// It fails them.
    Unhealthy,
    /// It gets no flows: deregistered, or behind no load balancer.
    Unused,
    /// Deregistered, and its delay has not passed.
    Draining,
    /// Health checks are off, or cannot be made.
    Unavailable,
}

impl TargetState {
    /// As AWS spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unused => "unused",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a target is in its state, as AWS names it (semantics 1b, `TargetHealthReasonEnum`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum ReasonCode {
    /// `initial`: no probe has ended.
    #[serde(rename = "Elb.RegistrationInProgress")]
    RegistrationInProgress,
    /// `initial`: no threshold has been reached.
    #[serde(rename = "Elb.InitialHealthChecking")]
    InitialHealthChecking,
    /// `unavailable`: the probes cannot be made, for a fault of the gateway's own.
    #[serde(rename = "Elb.InternalError")]
    InternalError,
    /// `unhealthy`: an HTTP status that the matcher does not take.
    #[serde(rename = "Target.ResponseCodeMismatch")]
    ResponseCodeMismatch,
    /// `unhealthy`: no answer.
    #[serde(rename = "Target.Timeout")]
    Timeout,
    /// `unhealthy`: a wrong answer, a refused connection, or a data path that is dead.
    #[serde(rename = "Target.FailedHealthChecks")]
    FailedHealthChecks,
    /// `unused`: deregistered, and its delay has passed.
    #[serde(rename = "Target.NotRegistered")]
    NotRegistered,
    /// `unused`: no load balancer uses the target, or none in its zone.
    #[serde(rename = "Target.NotInUse")]
    NotInUse,
    /// `draining`.
    #[serde(rename = "Target.DeregistrationInProgress")]
    DeregistrationInProgress,
    /// `unavailable`: the health check is off, so that the target counts as healthy.
    #[serde(rename = "Target.HealthCheckDisabled")]
    HealthCheckDisabled,
}

impl ReasonCode {
    /// As AWS spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RegistrationInProgress => "Elb.RegistrationInProgress",
            Self::InitialHealthChecking => "Elb.InitialHealthChecking",
            Self::InternalError => "Elb.InternalError",
            Self::ResponseCodeMismatch => "Target.ResponseCodeMismatch",
            Self::Timeout => "Target.Timeout",
            Self::FailedHealthChecks => "Target.FailedHealthChecks",
            Self::NotRegistered => "Target.NotRegistered",
            Self::NotInUse => "Target.NotInUse",
            Self::DeregistrationInProgress => "Target.DeregistrationInProgress",
            Self::HealthCheckDisabled => "Target.HealthCheckDisabled",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A state with its reason. Only `healthy` needs none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Standing {
    /// The state.
    pub state: TargetState,
    /// Why.
    pub reason: Option<ReasonCode>,
}

impl Standing {
    /// It passes its checks.
    pub const HEALTHY: Self = Self { state: TargetState::Healthy, reason: None };

    /// A state with its reason.
    pub const fn new(state: TargetState, reason: ReasonCode) -> Self {
        Self { state, reason: Some(reason) }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Some(reason) => write!(f, "{} ({reason})", self.state),
            None => self.state.fmt(f),
        }
    }
}

/// How far the deregistration of a target has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It has not begun.
    Registered,
    /// It gets no new flows; those that it has stay until the deadline.
    Draining {
        /// When it was deregistered.
        begun: Instant,
        /// When the delay is over.
        deadline: Instant,
        /// The view of which it is no candidate any more.
        left: u64,
    },
    /// The delay is over, or it had no flows left. It may bring packets back.
    Unused {
        /// The view of which it is no candidate any more.
        left: u64,
        /// Since when it has no flows.
        empty: Option<Instant>,
    },
    /// Its slot is free.
    Gone,
}

/// A target, from its registration until its slot is used again.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    pub id: TargetId,
    /// The name of its group: indices change when the file does.
    pub group: String,
    /// Index of its group; [`NO_GROUP`] if the file does not have it any more.
    pub group_index: usize,
    pub address: SocketAddr,
    pub zone: String,
    pub weight: u16,
    pub dialect: &'static Dialect,
    pub path_mtu: u16,
    pub counters: Arc<[TargetCounters]>,
    pub round_trips: Arc<[RoundTrips]>,
    pub probes: ProbeTimes,
    pub life: Life,
    /// When `life` last changed, since 1970.
    pub since: Duration,
}

/// How long the probes of a target took that it has passed.
#[derive(Debug, Clone)]
pub(super) struct ProbeTimes {
    histogram: Arc<Histogram>,
    pub last: Option<Duration>,
}

impl ProbeTimes {
    pub fn record(&mut self, took: Duration) {
        self.histogram.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.last = Some(took);
    }

    pub fn totals(&self) -> HistogramTotals {
        HistogramTotals::of([&*self.histogram])
    }
}

impl Default for ProbeTimes {
    fn default() -> Self {
        Self { histogram: Arc::new(Histogram::new(PROBE_BOUNDS)), last: None }
    }
}

/// What a file or a command says of a target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Particulars<'a> {
    pub address: SocketAddr,
    pub zone: &'a str,
    pub weight: u16,
}

impl<'a> Particulars<'a> {
    /// As the file has them.
    pub fn of(group: &TargetGroup, target: &'a Target) -> Self {
        let port = target.port.unwrap_or(group.port).get();
        let address = SocketAddr::new(target.address, port);
        Self { address, zone: &target.zone, weight: target.weight.get() }
    }
}

impl Registration {
    pub fn new(
        index: usize,
        group: &TargetGroup,
        target: Particulars<'_>,
        workers: u16,
        since: Duration,
    ) -> Self {
        Self {
            id: TargetId::new(group.name.as_str(), target.address),
            group: group.name.to_string(),
            group_index: index,
            address: target.address,
            zone: target.zone.to_owned(),
            weight: target.weight,
            dialect: group.dialect,
            path_mtu: ETHERNET_MTU,
            counters: (0..workers).map(|_| TargetCounters::default()).collect(),
            round_trips: (0..workers).map(|_| RoundTrips::default()).collect(),
            probes: ProbeTimes::default(),
            life: Life::Registered,
            since,
        }
    }

    /// As a configuration would have it, in a group with this port.
    pub fn settings(&self, port: Port) -> Target {
        let own = Port::new(self.address.port().into()).ok().filter(|own| *own != port);
        let weight = Weight::new(self.weight.into()).unwrap_or_default();
        Target { address: self.address.ip(), port: own, zone: self.zone.clone(), weight }
    }

    /// Whether it may get new flows.
    pub fn is_registered(&self) -> bool {
        self.life == Life::Registered
    }

    /// Whether its slot is taken.
    pub fn is_live(&self) -> bool {
        self.life != Life::Gone
    }

    /// The sums of its counters over the workers.
    pub fn totals(&self) -> TargetTotals {
        let mut totals = TargetTotals::default();
        self.counters.iter().for_each(|counters| totals.add(counters));
        totals
    }

    /// Flows that it has now.
    pub fn active_flows(&self) -> u64 {
        self.totals().active_flows()
    }

    /// What the data plane is to know of it.
    pub fn view(&self, usable_mtu: Option<u16>) -> TargetView {
        TargetView {
            id: self.id,
            group: self.group_index,
            address: self.address,
            path_mtu: self.path_mtu,
            usable_mtu,
            dialect: self.dialect,
            templates: Templates::of(self.dialect),
            counters: Arc::clone(&self.counters),
            round_trips: Arc::clone(&self.round_trips),
        }
    }

    /// Goes on with a deregistration, as far as time, flows and workers (which hold the view
    /// `acknowledged` or a later one) allow. Returns whether `life` has changed otherwise than in
    /// its details.
    pub fn advance(&mut self, acknowledged: u64, now: Instant) -> bool {
        match self.life {
            Life::Registered | Life::Gone => false,
            Life::Draining { deadline, left, .. } => {
                // A worker with an older view may still place a flow here.
                let done = acknowledged >= left && self.active_flows() == 0;
                if done || now >= deadline {
                    self.life = Life::Unused { left, empty: None };
                    self.advance(acknowledged, now);
                    return true;
                }
                false
            }
            Life::Unused { left, empty } => {
                if self.active_flows() > 0 {
                    self.life = Life::Unused { left, empty: None };
                    return false;
                }
                let empty = empty.unwrap_or(now);
                let over = now >= empty + UNDER_WAY || fault::on(Fault::SlotFreedAtOnce);
                if acknowledged >= left && over {
                    self.life = Life::Gone;
                    return true;
                }
                self.life = Life::Unused { left, empty: Some(empty) };
                false
            }
        }
    }

    /// When [`advance`](Self::advance) is due next, besides when workers acknowledge a view.
    pub fn due(&self, acknowledged: u64, now: Instant) -> Option<Instant> {
        match self.life {
            Life::Registered | Life::Gone => None,
            Life::Draining { deadline, .. } => Some(deadline.min(now + DRAIN_TICK)),
            Life::Unused { empty: None, .. } => Some(now + REST_TICK),
            Life::Unused { empty: Some(empty), left } => {
                let due = empty + UNDER_WAY;
                (due > now || acknowledged >= left).then_some(due)
            }
        }
    }
}

/// All targets by slot.
#[derive(Debug, Default)]
pub(super) struct Registry {
    slots: Vec<Registration>,
}

impl Registry {
    /// Puts a target into the first free slot.
    pub fn add(&mut self, registration: Registration) -> TargetSlot {
        let free = self.slots.iter().position(|slot| {
            !slot.is_live() || fault::on(Fault::SlotReusedWhileDraining) && !slot.is_registered()
        });
        let slot = free.unwrap_or(self.slots.len());
        match free {
            Some(free) => {
                let before = std::mem::replace(&mut self.slots[free], registration);
                if fault::on(Fault::CountersReused) {
                    self.slots[free].counters = before.counters;
                }
            }
            None => self.slots.push(registration),
        }
        TargetSlot(slot as u32)
    }

    /// The target in this slot, or who was there last.
    pub fn get(&self, slot: TargetSlot) -> Option<&Registration> {
        self.slots.get(slot.0 as usize)
    }

    pub fn get_mut(&mut self, slot: TargetSlot) -> Option<&mut Registration> {
        self.slots.get_mut(slot.0 as usize)
    }

    /// The target of this group at this address, if its slot is not free.
    pub fn find(&self, group: &str, address: SocketAddr) -> Option<TargetSlot> {
        let id = TargetId::new(group, address);
        self.live().find(|(_, target)| target.id == id).map(|(slot, _)| slot)
    }

    /// Every slot, free ones included.
    pub fn all(&self) -> impl ExactSizeIterator<Item = (TargetSlot, &Registration)> {
        self.slots.iter().enumerate().map(|(slot, target)| (TargetSlot(slot as u32), target))
    }

    /// Every slot that is taken.
    pub fn live(&self) -> impl Iterator<Item = (TargetSlot, &Registration)> {
        self.all().filter(|(_, target)| target.is_live())
    }
}
