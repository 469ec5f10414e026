//! The checks of all nodes: which there are, what they ask for, what comes of their outcomes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use geneve::inner::IpVersion;

use super::event::Event;
use super::health::{Check, CheckId, Finding, ProbeRequest};
use super::member::{HealthRun, Member, pace};
use super::pool::{self, next_step};
use super::probe::ProbeOutcome;
use super::target::{Registration, Standing};
use super::tunnel::{self, Tunnel, TunnelOutcome, TunnelRequest, Way};
use super::{Control, Item, Output};
use crate::config::TargetGroup;
use crate::dataplane::snapshot::{PoolId, TargetSlot};
use crate::fault::{self, Fault};

/// The largest inner packet that fits into an outer one on the way to a target, in bytes.
pub(super) fn largest_inner(target: &Registration) -> u16 {
    let outer = if target.address.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
    target.path_mtu.saturating_sub(target.dialect.overhead(outer) as u16)
}

impl Control {
    /// Makes every node check the targets that it may use, and no others. What is checked already
    /// goes on undisturbed. Says who has come and is healthy from the beginning, since it is not
    /// checked.
    pub(super) fn sync_members(&mut self, at_start: bool) -> Vec<(TargetSlot, PoolId)> {
        let mut wanted = Vec::new();
        for (pool, node) in self.nodes.iter().enumerate() {
            let Some((balancer, _)) = node.place else { continue };
            let balancer = &self.settings.load_balancers[balancer];
            let group = self.settings.target_groups[balancer.target_group].name.as_str();
            let far = balancer.cross_zone
                || balancer.spill_over_below > 0
                || fault::on(Fault::ZoneIgnored);
            for (slot, target) in self.registry.live() {
                let near = target.zone == node.zone;
                if target.group == group && (near || far) {
                    wanted.push(((slot, PoolId(pool as u16)), near));
                }
            }
        }
        wanted.sort_unstable();
        let gone: Vec<_> = self
            .members
            .keys()
            .copied()
            .filter(|key| wanted.binary_search_by_key(key, |&(key, _)| key).is_err())
            .collect();
        for key in gone {
            self.remove_member(key);
        }
        let mut added = Vec::new();
        for (key, near) in wanted {
            if let Some(member) = self.members.get_mut(&key) {
                member.near = near;
            } else {
                self.add_member(key, near, at_start);
                added.push(key);
            }
        }
        added.retain(|key| {
            self.members.get(key).is_some_and(|it| it.published == pool::Health::Healthy)
        });
        added
    }

    fn add_member(&mut self, key: (TargetSlot, PoolId), near: bool, at_start: bool) {
        let member = Member {
            near,
            health: None,
            tunnel: None,
            slow_start: None,
            at_start,
            standing: Standing::HEALTHY,
            since: self.unix_now(),
            published: pool::Health::Initial,
        };
        self.members.insert(key, member);
        self.start_health(key, Finding::NOTHING);
        self.start_tunnel(key, Finding::NOTHING);
        self.dirty = true;
        let Some(member) = self.members.get_mut(&key) else { return };
        (member.standing, member.published) = (member.standing(), member.health());
    }

    pub(super) fn remove_member(&mut self, key: (TargetSlot, PoolId)) {
        let Some(member) = self.members.remove(&key) else { return };
        for id in member.checks() {
            self.checks.remove(&id);
            self.agenda.set(Item::Check(id), None);
        }
        self.agenda.set(Item::Step(key.0, key.1), None);
        self.dirty = true;
    }

    /// Starts the health check of a target anew, from what is thought of it, or ends it, as the
    /// settings say.
    pub(super) fn start_health(&mut self, key: (TargetSlot, PoolId), finding: Finding) {
        let Some(group) = self.group_of(key) else { return };
        let wanted = group.health_check.enabled.then(|| pace(&group.health_check));
        let interval = group.health_check.interval;
        let run = wanted.map(|pace| {
            let jitter = self.jitter(key, "health", interval);
            let id = self.new_check(key);
            HealthRun { id, check: Check::new(pace, finding, self.now, jitter) }
        });
        let Some(member) = self.members.get_mut(&key) else { return };
        let id = run.as_ref().map(|run| run.id);
        let old = std::mem::replace(&mut member.health, run);
        self.replace_check(old.map(|run| run.id), id);
    }

    /// The same for the check through the tunnel.
    pub(super) fn start_tunnel(&mut self, key: (TargetSlot, PoolId), finding: Finding) {
        let Some(group) = self.group_of(key) else { return };
        let settings = group.tunnel_check.clone();
        let flow = self.flow_of(key.1).map(|(flow, _)| flow);
        let largest = self.registry.get(key.0).map_or(0, largest_inner);
        let tunnel = settings.zip(flow).map(|(settings, flow)| {
            let jitter = self.jitter(key, "tunnel", settings.interval);
            let id = self.new_check(key);
            let begin = (self.now, jitter);
            Tunnel::new(id, &settings, flow, (finding, largest), begin, self.next_generation())
        });
        let Some(member) = self.members.get_mut(&key) else { return };
        let id = tunnel.as_ref().map(|tunnel| tunnel.id);
        let old = std::mem::replace(&mut member.tunnel, tunnel);
        self.replace_check(old.map(|tunnel| tunnel.id), id);
    }

    fn new_check(&mut self, key: (TargetSlot, PoolId)) -> CheckId {
        self.last_check += 1;
        let id = CheckId::new(self.last_check);
        self.checks.insert(id, key);
        id
    }

    fn replace_check(&mut self, old: Option<CheckId>, new: Option<CheckId>) {
        if let Some(old) = old {
            if !fault::on(Fault::LateAnswerCounted) {
                self.checks.remove(&old);
            }
            self.agenda.set(Item::Check(old), None);
        }
        if let Some(new) = new {
            self.reschedule(new);
        }
    }

    /// Where in its interval a check has its phase: the same for ever for a target and a node, and
    /// different for different ones, so that probes do not come in step. In whole milliseconds.
    fn jitter(
        &self,
        (slot, pool): (TargetSlot, PoolId),
        kind: &str,
        interval: Duration,
    ) -> Duration {
        let target = self.registry.get(slot).map_or(0, |target| target.id.get());
        let mut bytes = kind.as_bytes().to_vec();
        bytes.extend(target.to_be_bytes());
        bytes.extend(pool.0.to_be_bytes());
        let hash = u128::from(self.keys.probe.hash(&bytes));
        Duration::from_millis(((hash * interval.as_millis()) >> 64) as u64)
    }

    fn group_of(&self, key: (TargetSlot, PoolId)) -> Option<&TargetGroup> {
        let (balancer, _) = self.nodes.get(usize::from(key.1.0))?.place?;
        self.settings.target_groups.get(self.settings.load_balancers[balancer].target_group)
    }

    /// When a check probes next.
    pub(super) fn reschedule(&mut self, id: CheckId) {
        let due = self.checks.get(&id).and_then(|key| self.members.get(key)).and_then(|member| {
            match (&member.health, &member.tunnel) {
                (Some(run), _) if run.id == id => Some(run.check.due()),
                (_, Some(tunnel)) if tunnel.id == id => tunnel.due(self.acknowledged),
                _ => None,
            }
        });
        self.agenda.set(Item::Check(id), due);
    }

    /// Workers hold a later view than before: probes through the tunnel may begin.
    pub(super) fn reschedule_tunnels(&mut self) {
        let tunnels = self.members.values().filter_map(|it| it.tunnel.as_ref());
        let ids: Vec<_> = tunnels.map(|tunnel| tunnel.id).collect();
        for id in ids {
            self.reschedule(id);
        }
    }

    /// Starts what probes of a check are due.
    pub(super) fn start_probes(&mut self, id: CheckId) {
        let Some(&key) = self.checks.get(&id) else { return };
        let (slot, pool) = key;
        let now = self.now;
        let Some((balancer, node)) = self.nodes[usize::from(pool.0)].place else { return };
        let source = self.settings.load_balancers[balancer].nodes[node].address;
        let group = self.settings.load_balancers[balancer].target_group;
        let flow = self.flow_of(pool);
        let Some(target) = self.registry.get(slot) else { return };
        let Some(member) = self.members.get_mut(&key) else { return };
        if let Some(run) = member.health.as_mut().filter(|run| run.id == id)
            && run.check.start_due(now)
        {
            let health = std::sync::Arc::clone(&self.health_checks[group]);
            self.outputs.push_back(Output::Probe(ProbeRequest {
                check: id,
                load_balancer: balancer,
                source,
                address: SocketAddr::new(target.address.ip(), health.port.get()),
                timeout: health.timeout,
                health,
            }));
        }
        if let Some(tunnel) = member.tunnel.as_mut().filter(|tunnel| tunnel.id == id)
            && let Some((_, endpoint)) = flow
        {
            while let Some(start) = tunnel.start_due(now) {
                let dialect = target.dialect;
                let way = Way { flow: tunnel.flow(), endpoint, target: target.id, dialect };
                let tunnel::Start { sequence, size } = start;
                self.outputs.push_back(Output::TunnelProbe(TunnelRequest {
                    check: id,
                    sequence,
                    pool,
                    target: slot,
                    source,
                    address: target.address,
                    packet: tunnel::write(&self.keys, &way, id, sequence, size),
                    timeout: tunnel.timeout,
                }));
            }
        }
        self.reschedule(id);
    }

    pub(super) fn record_probe(&mut self, id: CheckId, outcome: ProbeOutcome) {
        let now = self.now;
        let Some(&key) = self.checks.get(&id) else { return };
        let run = self.members.get_mut(&key).and_then(|it| it.health.as_mut());
        let late = fault::on(Fault::LateAnswerCounted);
        if let Some(run) = run.filter(|run| run.id == id || late) {
            run.check.record(outcome, now);
            self.reschedule(id);
            self.follow_health(key);
        }
    }

    pub(super) fn record_probe_time(&mut self, id: CheckId, took: Duration) {
        let target = self.checks.get(&id).and_then(|(slot, _)| self.registry.get_mut(*slot));
        if let Some(target) = target {
            target.probes.record(took);
        }
    }

    pub(super) fn record_tunnel(&mut self, id: CheckId, sequence: u32, outcome: TunnelOutcome) {
        let now = self.now;
        let Some(&key) = self.checks.get(&id) else { return };
        let usable = self.usable_mtu(key.0);
        let tunnel = self.members.get_mut(&key).and_then(|it| it.tunnel.as_mut());
        let Some(tunnel) = tunnel.filter(|tunnel| tunnel.id == id) else { return };
        tunnel.record(sequence, outcome, now);
        self.reschedule(id);
        self.follow_health(key);
        let measured = self.usable_mtu(key.0);
        if measured != usable
            && let Some(target) = self.registry.get(key.0)
        {
            self.dirty = true;
            let (target_group, target) = (target.group.clone(), target.address);
            self.event(Event::UsableMtu { target_group, target, usable_mtu: measured });
        }
    }

    /// Something outside says that a target may be dead: all nodes look.
    pub(super) fn suspect(&mut self, slot: TargetSlot) {
        let now = self.now;
        let mut ids = Vec::new();
        for (_, member) in self.members.range_mut(of_target(slot)) {
            ids.extend(member.checks());
            if let Some(run) = &mut member.health {
                run.check.suspect(now);
            }
            if let Some(tunnel) = &mut member.tunnel {
                tunnel.suspect(now);
            }
        }
        for id in ids {
            self.reschedule(id);
        }
    }

    /// The path to a target carries other packets than before.
    pub(super) fn set_path_mtu(&mut self, slot: TargetSlot, mtu: u16) {
        let now = self.now;
        let target = self.registry.get_mut(slot).filter(|it| it.is_live());
        let Some(target) = target.filter(|it| it.path_mtu != mtu) else {
            return;
        };
        target.path_mtu = mtu;
        let largest = largest_inner(target);
        self.dirty = true;
        let mut ids = Vec::new();
        for (_, member) in self.members.range_mut(of_target(slot)) {
            if let Some(tunnel) = &mut member.tunnel {
                tunnel.set_largest(largest, now);
                ids.push(tunnel.id);
            }
        }
        for id in ids {
            self.reschedule(id);
        }
    }

    /// The largest inner packet that a target was seen to bring back to every node that has tried.
    pub(super) fn usable_mtu(&self, slot: TargetSlot) -> Option<u16> {
        let members = self.members.range(of_target(slot));
        members.filter_map(|(_, it)| it.tunnel.as_ref()?.usable_mtu()).min()
    }

    /// Something may have changed in what a node thinks of a target by itself: flows, the log and
    /// slow start are to know.
    fn follow_health(&mut self, key: (TargetSlot, PoolId)) {
        if self.note_health(key) {
            self.begin_slow_starts(&[key]);
        }
    }

    /// The same, but for slow start: says whether the target has become healthy, so that one is to
    /// begin as soon as it is known who else has.
    pub(super) fn note_health(&mut self, key: (TargetSlot, PoolId)) -> bool {
        let unix = self.unix_now();
        let Some(member) = self.members.get_mut(&key) else { return false };
        let (from, to) = (member.standing, member.standing());
        let (before, health) = (member.published, member.health());
        member.standing = to;
        member.published = health;
        if from.state != to.state {
            member.since = unix;
        }
        if before != health {
            self.dirty = true;
            if health != pool::Health::Healthy {
                self.end_slow_start(key);
            }
        }
        if from.state != to.state
            && let Some(target) = self.registry.get(key.0)
        {
            let node = &self.nodes[usize::from(key.1.0)];
            self.outputs.push_back(Output::Event(Event::TargetState {
                target_group: target.group.clone(),
                target: target.address,
                load_balancer: node.load_balancer.clone(),
                zone: node.zone.clone(),
                from,
                to,
            }));
        }
        before != health && health == pool::Health::Healthy && before != pool::Health::Presumed
    }

    /// These have become healthy at once.
    pub(super) fn begin_slow_starts(&mut self, together: &[(TargetSlot, PoolId)]) {
        let all: BTreeSet<_> = together.iter().copied().collect();
        for &key in &all {
            self.begin_slow_start(key, &all);
        }
    }

    /// A target has become healthy: it gets its share step by step, if there is somebody else to
    /// take the flows. As in AWS's application load balancers, that is a healthy target which is
    /// not in slow start itself. Those that come `together` with it are nobody else: they share
    /// among themselves, in whatever order they are looked at.
    fn begin_slow_start(
        &mut self,
        key: (TargetSlot, PoolId),
        together: &BTreeSet<(TargetSlot, PoolId)>,
    ) {
        if self.group_of(key).is_none_or(|group| group.slow_start.is_zero()) {
            return;
        }
        let taken = self.snapshot.pools.get(usize::from(key.1.0));
        let elsewhere = self.members.iter().any(|(other, member)| {
            let target = self.registry.get(other.0);
            let candidate =
                || taken.is_some_and(|pool| pool.candidates.iter().any(|it| it.target == other.0));
            other.1 == key.1
                && *other != key
                && !together.contains(other)
                && target.is_some_and(|it| it.is_registered() && it.weight > 0)
                && member.health() == pool::Health::Healthy
                && member.slow_start.is_none()
                // A target of another zone counts if it does get flows.
                && (member.near || candidate())
        });
        if elsewhere {
            if let Some(member) = self.members.get_mut(&key) {
                member.slow_start = Some(self.now);
            }
            self.step(key);
        }
    }

    fn end_slow_start(&mut self, key: (TargetSlot, PoolId)) {
        if let Some(member) = self.members.get_mut(&key) {
            member.slow_start = None;
        }
        self.agenda.set(Item::Step(key.0, key.1), None);
    }

    /// A step of a slow start is due.
    pub(super) fn step(&mut self, key: (TargetSlot, PoolId)) {
        self.dirty = true;
        let slow_start = self.group_of(key).map(|group| group.slow_start).unwrap_or_default();
        let begun = self.members.get(&key).and_then(|member| member.slow_start);
        match begun.and_then(|begun| next_step(begun, slow_start, self.now)) {
            Some(_) if fault::on(Fault::SlowStartStepLost) => {}
            Some(next) => self.agenda.set(Item::Step(key.0, key.1), Some(next)),
            None => self.end_slow_start(key),
        }
    }

    /// What the node of a target's own zone thinks of it; of several load balancers' nodes the
    /// first one's, and if the zone has none, that of another zone.
    pub(super) fn member_at_home(&self, slot: TargetSlot) -> Option<(PoolId, &Member)> {
        let near = self.members_of(slot).find(|(_, member)| member.near);
        near.or_else(|| self.members_of(slot).next())
    }

    /// What the nodes think of a target.
    pub(super) fn members_of(&self, slot: TargetSlot) -> impl Iterator<Item = (PoolId, &Member)> {
        self.members.range(of_target(slot)).map(|(&(_, pool), member)| (pool, member))
    }

    /// Whether a target counts as healthy at home.
    pub(super) fn is_healthy(&self, slot: TargetSlot) -> bool {
        let home = self.member_at_home(slot);
        home.is_some_and(|(_, member)| member.health() == pool::Health::Healthy)
    }
}

/// The keys of all that the nodes know of one target.
fn of_target(slot: TargetSlot) -> std::ops::RangeInclusive<(TargetSlot, PoolId)> {
    (slot, PoolId(0))..=(slot, PoolId(u16::MAX))
}
