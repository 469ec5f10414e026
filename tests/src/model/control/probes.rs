//! Probes: which are made, how they end, and what nodes think of their targets then.

use geneve::Header;
use gwlb::control::{CheckId, Event, ProbeOutcome, ProbeRequest, TunnelOutcome, TunnelRequest};

use super::super::{Clause, Wrong, hold};
use super::choice::Health;
use super::member::Member;
use super::{Control, MemberId, Node, Target};

impl Control {
    /// A health probe is made: it must be due, and ask what is configured.
    pub(in super::super) fn probe(&mut self, request: &ProbeRequest) -> Result<(), Wrong> {
        let not_so = |why: &str| Wrong::new(Clause::Documented, format!("{why}: {request:?}"));
        let balancers = &self.settings.load_balancers;
        let balancer = balancers.get(request.load_balancer);
        let balancer = balancer.ok_or_else(|| not_so("no load balancer probes"))?;
        let node = balancer.nodes.iter().find(|node| node.address == request.source);
        let node = node.ok_or_else(|| not_so("no node probes"))?;
        let group = &self.settings.target_groups[balancer.target_group];
        let asks = (request.address.port(), request.timeout, &*request.health);
        let check = &group.health_check;
        hold(asks == (check.port.get(), check.timeout, check), Clause::Documented, || {
            format!("{check:?} is configured, and asked is {asks:?}")
        })?;
        let name = (balancer.name.to_string(), node.zone.clone());
        let is_new = !self.checks.contains_key(&request.check);
        let pool = self.pool(&name).ok_or_else(|| not_so("no node probes"))?;
        let meant = |(key, member): &(&MemberId, &Member)| {
            let target = &self.targets[&key.1];
            key.0 == pool
                && target.group == group.name.as_str()
                && target.address.ip() == request.address.ip()
                && member.health.is_some()
                && (member.health_id == Some(request.check) || is_new && member.health_id.is_none())
        };
        let key = self.members.iter().find(meant).map(|(key, _)| *key);
        let is_known = |it: &Target| it.address.ip() == request.address.ip();
        let just_forgotten = self.forgotten.contains(&(self.now, request.address.ip()));
        let late = self.late && !self.targets.values().any(is_known);
        if key.is_none() && (late || just_forgotten) {
            // It was due before its target was forgotten, and both are done only now; or at the same
            // moment.
            return Ok(());
        }
        let key = key.ok_or_else(|| not_so("nobody is checked so"))?;
        self.checks.insert(request.check, key);
        let (now, late) = (self.now, self.late);
        if let Some(member) = self.members.get_mut(&key) {
            member.health_id = Some(request.check);
            if let Some(due) = self.probes.iter().position(|due| *due == key) {
                self.probes.remove(due);
                if let Some(check) = member.health.as_mut().filter(|_| late) {
                    check.start_late(now);
                }
                return Ok(());
            }
            let check = member.health.as_mut();
            if check.is_some_and(|check| check.start_unforeseen(now, late)) {
                return Ok(());
            }
        }
        Err(not_so("it is not time for a probe"))
    }

    /// A probe goes through the tunnel.
    pub(in super::super) fn tunnel_probe(&mut self, request: &TunnelRequest) -> Result<(), Wrong> {
        let not_so = |why: &str| Wrong::new(Clause::Documented, format!("{why}: {request:02x?}"));
        let number = self.targets.iter().find(|(_, it)| it.slot == Some(request.target));
        if number.is_none() && self.late {
            return Ok(());
        }
        let (number, target) = number.ok_or_else(|| not_so("nobody is probed"))?;
        hold(target.address == request.address, Clause::Documented, || {
            format!("{} is probed at {}", target.address, request.address)
        })?;
        self.node(request.pool).ok_or_else(|| not_so("no node probes"))?;
        let key = (request.pool, *number);
        let member =
            self.members.get_mut(&key).ok_or_else(|| not_so("the node does not use it"))?;
        let other = member.tunnel_id.is_some_and(|id| id != request.check);
        if other || member.tunnel.is_none() {
            return Err(not_so("nobody is checked so"));
        }
        member.tunnel_id = Some(request.check);
        let (_, inner) = Header::parse(&request.packet).map_err(|_| not_so("no Geneve"))?;
        let decides = inner.len() < if inner[0] >> 4 == 4 { 576 } else { 1280 };
        if let (true, Some(check)) = (decides, &mut member.tunnel) {
            check.start(self.now);
        }
        self.checks.insert(request.check, key);
        let probe = (request.check, request.sequence);
        self.tunnelled.insert(probe, (inner.len() as u16, decides));
        Ok(())
    }

    pub(super) fn end_tunnelled(&mut self, probe: (CheckId, u32), outcome: TunnelOutcome) {
        let Some((len, decides)) = self.tunnelled.remove(&probe) else { return };
        let key = self.checks.get(&probe.0).copied();
        if let (Some((_, number)), TunnelOutcome::Returned) = (key, outcome)
            && let Some(target) = self.targets.get_mut(&number)
        {
            target.came_back.insert(len);
        }
        let outcome = match outcome {
            TunnelOutcome::Returned => ProbeOutcome::Passed,
            TunnelOutcome::Lost => ProbeOutcome::TimedOut,
            TunnelOutcome::TooLong | TunnelOutcome::Local => ProbeOutcome::Local,
        };
        let now = self.now;
        self.end(key, |member| {
            let run = member.tunnel.as_mut().filter(|_| member.tunnel_id == Some(probe.0));
            run.map(|run| {
                if decides {
                    run.end(outcome, now);
                }
            })
        });
    }

    /// A probe of somebody has ended.
    pub(super) fn end(
        &mut self,
        key: Option<MemberId>,
        record: impl FnOnce(&mut Member) -> Option<()>,
    ) {
        let Some(key) = key else { return };
        let recorded = self.members.get_mut(&key).and_then(record);
        if recorded.is_some() && self.note_health(key) {
            self.begin_slowly(&[key]);
        }
    }

    /// A node may think otherwise of a target than before. Returns whether it has become healthy.
    pub(super) fn note_health(&mut self, key: MemberId) -> bool {
        let Some(member) = self.members.get_mut(&key) else { return false };
        let (from, to) = (member.standing, member.standing_now());
        let (before, health) = (member.known, member.health_now());
        (member.standing, member.known) = (to, health);
        if from.state != to.state
            && let Some(target) = self.targets.get(&key.1)
            && let Some(Node { name: (balancer, zone), .. }) = self.nodes.get(usize::from(key.0.0))
        {
            self.events.push(Event::TargetState {
                target_group: target.group.clone(),
                target: target.address,
                load_balancer: balancer.clone(),
                zone: zone.clone(),
                from,
                to,
            });
        }
        if health != Health::Healthy {
            member.slow = None;
        }
        before != health && health == Health::Healthy && !before.is_presumed()
    }

    /// "a target that becomes healthy beside others gets its share in twenty steps"
    ///
    /// Those that become so together are not beside each other.
    pub(super) fn begin_slowly(&mut self, together: &[MemberId]) {
        let slow: Vec<_> =
            together.iter().filter(|key| self.is_beside_others(**key, together)).collect();
        for key in slow {
            if let Some(member) = self.members.get_mut(key) {
                member.slow = Some(self.now);
            }
        }
    }

    fn is_beside_others(&self, key: MemberId, together: &[MemberId]) -> bool {
        let Some((_, group)) = self.node(key.0) else { return false };
        let candidates = self.view.as_ref().and_then(|view| view.nodes.get(&key.0));
        let mut others = self.members.iter().filter(|(other, _)| !together.contains(other));
        let beside = others.any(|(other, member)| {
            let target = &self.targets[&other.1];
            let candidate = candidates.is_some_and(|(it, _)| it.candidates.contains_key(&other.1));
            other.0 == key.0
                && target.is_registered()
                && target.weight > 0
                && member.health_now() == Health::Healthy
                && member.slow.is_none()
                && (member.near || candidate)
        });
        beside && !group.slow_start.is_zero()
    }
}
