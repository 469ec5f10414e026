//! What is shown of each target.

use serde::Serialize;

use super::Control;
use super::checking::largest_inner;
use super::health::Finding;
use super::member::Member;
use super::pool::slow_weight;
use super::silence::{Diagnosis, Watch};
use super::target::{Life, ReasonCode, Registration, Standing, TargetState};
use crate::dataplane::snapshot::TargetSlot;
use crate::dataplane::stats::{HistogramTotals, RoundTrips, TargetTotals};

/// One target: what it is thought of, and what happened with it.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct TargetStatus {
    /// The target group.
    pub target_group: String,
    /// Its address and port.
    pub address: String,
    /// Its zone.
    pub zone: String,
    /// Its weight, as configured.
    pub weight: u16,
    /// Its weight as it counts now: smaller in slow start, 0 when it gets no new flows.
    pub effective_weight: u16,
    /// What the node of its zone thinks of it, or how far its deregistration has come.
    pub state: TargetState,
    /// Why.
    pub reason: Option<ReasonCode>,
    /// Why, in a sentence.
    pub description: Option<String>,
    /// When the state last changed, in seconds since 1970.
    pub since_unix_seconds: f64,
    /// The largest outer packet that the underlay carries to it, in bytes.
    pub path_mtu: u16,
    /// The largest inner packet that gets to it and back, in bytes.
    pub inner_mtu: u16,
    /// Flows that it has now.
    pub active_flows: u64,
    /// Counters, summed over workers.
    #[serde(flatten)]
    pub totals: TargetTotals,
    /// Packets sent and not returned: what it dropped, answered itself, or has not returned yet.
    pub kept_packets: u64,
    /// How far its deregistration has come, if it is draining.
    pub draining: Option<Draining>,
    /// What each node thinks, where they differ.
    pub zones: Vec<ZoneStatus>,
    /// What is wrong with it that its health does not show.
    pub diagnosis: Option<Diagnosis>,
    /// What probes through the tunnel have found out, if there are any.
    pub tunnel: Option<TunnelStatus>,
    /// How long the last health check took that it passed.
    pub probe_latency_ms: Option<f64>,
    /// How long the last packet took to it and back that was timed.
    pub appliance_latency_us: Option<u64>,
    /// All such checks, in microseconds.
    #[serde(skip)]
    #[schema(ignore)]
    pub probe_times: HistogramTotals,
    /// All such packets, in microseconds.
    #[serde(skip)]
    #[schema(ignore)]
    pub round_trips: HistogramTotals,
}

/// How far a deregistration has come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Draining {
    /// Flows that have not ended.
    pub flows_left: u64,
    /// Until the deregistration delay is over.
    pub seconds_left: f64,
}

/// What one node thinks of a target.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ZoneStatus {
    /// The load balancer.
    pub load_balancer: String,
    /// The zone of the node.
    pub zone: String,
    /// What it thinks.
    pub state: TargetState,
    /// Why.
    pub reason: Option<ReasonCode>,
    /// Since when, in seconds since 1970.
    pub since_unix_seconds: f64,
}

/// What probes through the tunnel have found out.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct TunnelStatus {
    /// `initial`, `healthy`, `unhealthy`, or `unavailable` where it cannot be probed.
    pub state: TargetState,
    /// How long the last probe took that came back.
    pub round_trip_ms: Option<f64>,
    /// The largest inner packet that comes back, in bytes, as far as it was measured.
    pub usable_mtu: Option<u16>,
    /// Why it is not probed, if it is not.
    pub note: Option<&'static str>,
}

impl Control {
    /// Every target whose slot is taken, by group.
    pub fn targets(&self) -> Vec<TargetStatus> {
        let mut targets: Vec<_> = self.registry.live().collect();
        targets.sort_by_key(|(slot, target)| (target.group_index, *slot));
        targets.into_iter().map(|(slot, target)| self.status(slot, target)).collect()
    }

    fn status(&self, slot: TargetSlot, target: &Registration) -> TargetStatus {
        let totals = target.totals();
        let flows_left = target.active_flows();
        let home = self.member_at_home(slot);
        let group = self.settings.target_groups.iter().find(|it| it.name.as_str() == target.group);
        let (standing, description) = self.standing(target, home.map(|(_, member)| member));
        let since = match home {
            Some((_, member)) if target.is_registered() => member.since.max(target.since),
            _ => target.since,
        };
        let slow_start = group.map(|group| group.slow_start).unwrap_or_default();
        let stepped = home
            .and_then(|(_, member)| member.slow_start)
            .and_then(|begun| slow_weight(target.weight, begun, slow_start, self.now));
        let weight = stepped.unwrap_or(target.weight);
        let usable_mtu = self.usable_mtu(slot);
        let view = target.view(usable_mtu);
        let largest = largest_inner(target);
        let cut = usable_mtu.filter(|&usable| usable < largest);
        let silence = self.watches.get(&slot).and_then(Watch::diagnosis).cloned();
        TargetStatus {
            target_group: target.group.clone(),
            address: target.address.to_string(),
            zone: target.zone.clone(),
            weight: target.weight,
            effective_weight: if target.is_registered() { weight } else { 0 },
            state: standing.state,
            reason: standing.reason,
            description,
            since_unix_seconds: since.as_secs_f64(),
            path_mtu: target.path_mtu,
            inner_mtu: view.inner_mtu(),
            active_flows: flows_left,
            totals,
            kept_packets: totals.sent_packets.saturating_sub(totals.returned_packets),
            draining: match target.life {
                Life::Draining { deadline, .. } => {
                    let left = deadline.saturating_duration_since(self.now);
                    Some(Draining { flows_left, seconds_left: left.as_secs_f64() })
                }
                _ => None,
            },
            zones: if target.is_registered() { self.zones(slot) } else { Vec::new() },
            diagnosis: silence.or_else(|| cut.map(|usable| Diagnosis::of_mtu(usable, largest))),
            tunnel: group
                .filter(|group| group.tunnel_check.is_some())
                .zip(home)
                .map(|(_, (_, member))| tunnel(member, usable_mtu)),
            probe_latency_ms: target.probes.last.map(|last| last.as_secs_f64() * 1000.0),
            appliance_latency_us: RoundTrips::last_of(&target.round_trips),
            probe_times: target.probes.totals(),
            round_trips: HistogramTotals::of(target.round_trips.iter().map(|it| &it.times)),
        }
    }

    /// What is to be said of a target as a whole.
    fn standing(&self, target: &Registration, home: Option<&Member>) -> (Standing, Option<String>) {
        match (target.life, home) {
            (Life::Registered, Some(member)) => {
                let health = self.settings.target_groups.get(target.group_index);
                let standing = member.standing();
                (standing, health.and_then(|group| member.description(&group.health_check)))
            }
            (Life::Registered, None) => (
                Standing::new(TargetState::Unused, ReasonCode::NotInUse),
                Some("no load balancer with a node in its zone uses the target group".to_owned()),
            ),
            (Life::Draining { .. }, _) => (
                Standing::new(TargetState::Draining, ReasonCode::DeregistrationInProgress),
                Some("it gets no new flows; those that it has stay with it".to_owned()),
            ),
            (Life::Unused { .. } | Life::Gone, _) => (
                Standing::new(TargetState::Unused, ReasonCode::NotRegistered),
                Some("it was deregistered, and its delay is over".to_owned()),
            ),
        }
    }

    /// What each node thinks of a target, if they differ.
    fn zones(&self, slot: TargetSlot) -> Vec<ZoneStatus> {
        let zones: Vec<_> = self
            .members_of(slot)
            .map(|(pool, member)| {
                let node = &self.nodes[usize::from(pool.0)];
                let Standing { state, reason } = member.standing();
                ZoneStatus {
                    load_balancer: node.load_balancer.clone(),
                    zone: node.zone.clone(),
                    state,
                    reason,
                    since_unix_seconds: member.since.as_secs_f64(),
                }
            })
            .collect();
        let differ = zones
            .windows(2)
            .any(|two| (two[0].state, two[0].reason) != (two[1].state, two[1].reason));
        if differ { zones } else { Vec::new() }
    }
}

fn tunnel(member: &Member, usable_mtu: Option<u16>) -> TunnelStatus {
    let Some(tunnel) = &member.tunnel else {
        let note = "no endpoint uses the node, and a probe needs the addresses of one";
        let state = TargetState::Unavailable;
        return TunnelStatus { state, round_trip_ms: None, usable_mtu, note: Some(note) };
    };
    let state = match tunnel.finding() {
        _ if tunnel.is_faulted() => TargetState::Unavailable,
        Finding::Initial { .. } => TargetState::Initial,
        Finding::Healthy => TargetState::Healthy,
        Finding::Unhealthy(_) => TargetState::Unhealthy,
    };
    let round_trip_ms = tunnel.round_trip().map(|it| it.as_secs_f64() * 1000.0);
    TunnelStatus { state, round_trip_ms, usable_mtu, note: None }
}
