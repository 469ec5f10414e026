//! Another configuration takes the place of the present one, and as little as possible moves.

use std::sync::Arc;
use std::time::Instant;

use router::{Entry, Topology};

use super::event::{BypassCause, Event};
use super::health::Finding;
use super::lifecycle::Put;
use super::pool;
use super::target::{Life, NO_GROUP, Particulars};
use super::{Control, Node, tunnel};
use crate::config::{Settings, TargetGroup};
use crate::dataplane::snapshot::{PoolId, TargetSlot};
use crate::fault::{self, Fault};

impl Control {
    /// Takes another configuration up: after this the gateway is what the file says. Targets that
    /// it does not have are deregistered, whoever registered them. What has not changed keeps its
    /// slot, its health and its checks; nodes keep their numbers.
    ///
    /// The caller has seen to it that what a running gateway cannot change is unchanged.
    pub fn reload(&mut self, settings: Arc<Settings>, now: Instant) {
        self.see(now);
        let before = std::mem::replace(&mut self.settings, settings);
        self.take_topology(&before.topology);
        self.counts.take(&self.settings.topology, self.next_generation());
        self.take_nodes();
        self.take_endpoint_groups(&before);
        self.take_traffic_modes(&before);
        self.health_checks = super::health_checks(&self.settings);
        self.take_groups();
        self.take_targets(&before);
        // Members that stay are those of the same group as before.
        let stay: Vec<_> = self.members.keys().copied().collect();
        let mut together = self.sync_members(false);
        for key in stay {
            if self.take_checks(key, &before) {
                together.push(key);
            }
            if self.members.get(&key).is_some_and(|member| member.slow_start.is_some()) {
                self.step(key);
            }
        }
        self.begin_slow_starts(&together);
        self.dirty = true;
        self.settle();
    }

    /// Places are numbered anew where the names or their order have changed.
    fn take_topology(&mut self, before: &Arc<Topology>) {
        let numbering = |topology: &Topology| {
            let gateways = topology.gateways().map(|(_, it)| it.name.clone());
            let subnets = topology.subnets().map(|(_, it)| it.name.clone());
            let endpoints = topology.endpoints().map(|(_, it)| it.wire_id);
            let interfaces = topology.interfaces().map(|(id, _)| Entry::Interface(id));
            let others = interfaces.chain(topology.edges().map(|(id, _)| Entry::Edge(id)));
            (
                gateways.collect::<Vec<_>>(),
                subnets.collect::<Vec<_>>(),
                endpoints.collect::<Vec<_>>(),
                others.map(|at| topology.entry_name(at)).collect::<Vec<_>>(),
            )
        };
        if numbering(before) != numbering(&self.settings.topology) {
            self.topology_epoch += 1;
            self.earlier_topology = Some(Arc::clone(before));
        }
    }

    /// Nodes keep their numbers; those that are not there any more keep theirs empty.
    fn take_nodes(&mut self) {
        for node in &mut self.nodes {
            node.place = None;
        }
        if fault::on(Fault::NodesRenumbered) {
            self.nodes.clear();
        }
        for place in super::places(&self.settings) {
            let new = Node::at(&self.settings, place);
            let known = self
                .nodes
                .iter_mut()
                .find(|node| (&node.load_balancer, &node.zone) == (&new.load_balancer, &new.zone));
            match known {
                Some(known) => *known = new,
                None => self.nodes.push(new),
            }
        }
    }

    fn take_traffic_modes(&mut self, before: &Settings) {
        let modes = super::traffic_modes(&self.settings);
        let old = std::mem::replace(&mut self.traffic_modes, modes);
        for (balancer, &mode) in self.settings.load_balancers.iter().zip(&self.traffic_modes) {
            let was = before.load_balancers.iter().position(|it| it.name == balancer.name);
            let was = was.map_or_else(Default::default, |index| old[index]);
            if was != mode {
                self.outputs.push_back(super::Output::Event(Event::Bypass {
                    load_balancer: balancer.name.to_string(),
                    zone: None,
                    on: mode == crate::config::TrafficMode::Bypass,
                    cause: BypassCause::TrafficMode,
                }));
            }
        }
    }

    /// Indices, dialects and delays may be others.
    fn take_groups(&mut self) {
        let slots: Vec<_> = self.registry.live().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(target) = self.registry.get_mut(slot) else { continue };
            let mut groups = self.settings.target_groups.iter().enumerate();
            let Some((index, group)) = groups.find(|(_, it)| it.name.as_str() == target.group)
            else {
                target.group_index = NO_GROUP;
                continue;
            };
            target.group_index = index;
            target.dialect = group.dialect;
            if let Life::Draining { begun, deadline, .. } = &mut target.life {
                *deadline = *begun + group.deregistration_delay;
                self.advance_life(slot);
            }
        }
    }

    fn take_targets(&mut self, before: &Settings) {
        let settings = Arc::clone(&self.settings);
        let mut named = Vec::new();
        let (mut registered, mut changed) = (0, 0);
        for (index, group) in settings.target_groups.iter().enumerate() {
            for target in &group.targets {
                let target = Particulars::of(group, target);
                named.push((group.name.as_str(), target.address));
                match self.put(index, target) {
                    Put::New => registered += 1,
                    Put::Changed => changed += 1,
                    Put::Same => {}
                }
            }
        }
        named.sort_unstable();
        let gone = self.registry.live().filter(|(_, target)| {
            let name = (target.group.as_str(), target.address);
            target.is_registered() && named.binary_search(&name).is_err()
        });
        let gone: Vec<_> = gone.map(|(slot, target)| (slot, target.group.clone())).collect();
        let deregistered = gone.len();
        for (slot, group) in gone {
            let delay = group_of(&settings, &group).or_else(|| group_of(before, &group));
            self.begin_drain(slot, delay.map(|it| it.deregistration_delay).unwrap_or_default());
        }
        self.event(Event::Reload { registered, deregistered, changed });
    }

    /// A check whose settings are others starts its schedule anew, from what is thought of the
    /// target. Says whether that makes it healthy.
    fn take_checks(&mut self, key: (TargetSlot, PoolId), before: &Settings) -> bool {
        let settings = Arc::clone(&self.settings);
        let Some(member) = self.members.get(&key) else { return false };
        let Some(group) = self.registry.get(key.0).map(|target| target.group.as_str()) else {
            return false;
        };
        let (Some(old), Some(new)) = (group_of(before, group), group_of(&settings, group)) else {
            return false;
        };
        // A check that was not there before cannot know better than those that were.
        let presumed = match member.health() {
            pool::Health::Healthy => Finding::Healthy,
            _ => Finding::NOTHING,
        };
        let health = member.health.as_ref().map_or(presumed, |run| run.check.finding());
        let tunnel = member.tunnel.as_ref();
        let flow = tunnel.map(tunnel::Tunnel::flow);
        let finding = tunnel.map_or(presumed, tunnel::Tunnel::finding);
        let wanted = new.tunnel_check.as_ref().and(self.flow_of(key.1)).map(|(flow, _)| flow);
        let forgets = fault::on(Fault::ReloadForgetsHealth);
        if old.health_check != new.health_check || forgets {
            self.start_health(key, if forgets { Finding::NOTHING } else { health });
        }
        if old.tunnel_check != new.tunnel_check || flow != wanted {
            self.start_tunnel(key, finding);
        }
        self.note_health(key)
    }
}

fn group_of<'a>(settings: &'a Settings, name: &str) -> Option<&'a TargetGroup> {
    settings.target_groups.iter().find(|it| it.name.as_str() == name)
}
