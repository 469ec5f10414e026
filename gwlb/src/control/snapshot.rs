//! The data plane's view, made from what the control plane knows.

use std::sync::Arc;

use router::failover::Health;

use super::Control;
use super::event::{BypassCause, Event, FailoverAction};
use super::member::Member;
use super::pool::{self, Participant, Rules, choose, slow_weight};
use super::target::{Life, Registration};
use crate::config::{TargetGroup, TrafficMode};
use crate::dataplane::select::Candidates;
use crate::dataplane::snapshot::{
    EndpointView, Fate, NoCandidate, Pool, PoolId, Snapshot, TargetSlot,
};
use crate::dataplane::translate::Translation;
use crate::fault::{self, Fault};

impl Control {
    /// Makes a new view of this moment, to be given to the workers.
    pub(super) fn publish(&mut self) {
        let (pools, health): (Vec<_>, Vec<_>) =
            (0..self.nodes.len()).map(|pool| self.pool(PoolId(pool as u16))).unzip();
        self.report_to_groups(&health);
        self.counts.prune(self.acknowledged);
        let next = Arc::new(self.view(pools));
        let before = std::mem::replace(&mut self.snapshot, next);
        // Of several views that nobody has taken yet, only the last one counts.
        self.unpublished = true;
        self.dirty = false;
        if fault::on(Fault::AcknowledgementPresumed) {
            self.acknowledged = self.snapshot.generation;
        }
        self.tell_fates(&before);
        self.tell_bypass(&before);
    }

    /// The view of this moment.
    fn view(&self, pools: Vec<Pool>) -> Snapshot {
        let settings = &self.settings;
        let endpoints: Vec<_> = settings
            .topology
            .endpoints()
            .map(|(id, endpoint)| {
                let binding = settings.binding(id);
                let place = Some((binding.load_balancer, binding.node));
                let pool = self.nodes.iter().position(|node| node.place == place);
                EndpointView {
                    wire_id: endpoint.wire_id,
                    // Every place has its node.
                    pool: PoolId(pool.unwrap_or_default() as u16),
                    addresses: endpoint.addresses.clone(),
                    counters: self.counts.of(endpoint.wire_id),
                }
            })
            .collect();
        let mut sources = ahash::AHashMap::<_, Vec<_>>::new();
        for (slot, target) in self.registry.live() {
            sources.entry(target.address.ip()).or_default().push(slot);
        }
        Snapshot {
            generation: self.next_generation(),
            topology: Arc::clone(&settings.topology),
            topology_epoch: self.topology_epoch,
            earlier_topology: self.earlier_topology.clone(),
            keys: self.keys.clone(),
            wire_ids: settings
                .topology
                .endpoints()
                .map(|(id, endpoint)| (endpoint.wire_id, id))
                .collect(),
            endpoints,
            departed: self.counts.departed(),
            groups: settings
                .topology
                .endpoint_groups()
                .map(|(id, _)| self.group_view(id))
                .collect(),
            pools,
            targets: self
                .registry
                .all()
                .map(|(slot, target)| target.view(self.usable_mtu(slot)))
                .collect(),
            sources,
            attachments: settings
                .exits()
                .into_iter()
                .map(|(at, attachment)| (at, settings.attachments[attachment].mtu.get()))
                .collect(),
            translations: settings
                .topology
                .gateways()
                .map(|(_, gateway)| Translation::of(&gateway.addresses))
                .collect(),
            workers: self.workers,
            source_ports: settings.gateway.source_ports_per_worker as u16,
            max_new_flows_per_second: settings.gateway.max_new_flows_per_second,
        }
    }

    /// A node, and whether it can take flows, as far as that is known.
    fn pool(&self, id: PoolId) -> (Pool, Option<Health>) {
        let node = &self.nodes[usize::from(id.0)];
        let Some((balancer, _)) = node.place else {
            // The node is not there any more, and no endpoint leads to it.
            let mut pool = self.snapshot.pool(id).clone();
            (pool.candidates, pool.none, pool.probe) =
                (Candidates::default(), NoCandidate::Drop, None);
            return (pool, None);
        };
        let load_balancer = &self.settings.load_balancers[balancer];
        let group = &self.settings.target_groups[load_balancer.target_group];
        let rules = Rules {
            // "A load balancer node routes to the targets of its own zone" unless cross-zone is on
            // (AWS attribute load_balancing.cross_zone.enabled).
            cross_zone: load_balancer.cross_zone,
            spill_over_below: load_balancer.spill_over_below,
            when_none_healthy: group.when_none_healthy,
            failover: group.target_failover,
            reset: group.send_tcp_reset,
        };
        let participants = self.registry.live().filter_map(|(slot, target)| {
            self.participant(slot, target, self.members.get(&(slot, id)), group)
        });
        let choice = choose(&rules, &participants.collect::<Vec<_>>());
        let traffic_mode = self.traffic_modes[balancer];
        let health = match choice.hopeful {
            // With or without targets.
            _ if traffic_mode == TrafficMode::Bypass => Some(Health::Normal),
            Some(true) => Some(Health::Normal),
            Some(false) => Some(Health::Abnormal),
            None => None,
        };
        let pool = Pool {
            load_balancer: node.load_balancer.clone(),
            zone: node.zone.clone(),
            address: node.address,
            stickiness: group.stickiness,
            timers: load_balancer.timers,
            unknown_flow: load_balancer.tcp_unknown_flow,
            reset_idle: load_balancer.send_tcp_reset_on_idle_timeout,
            adopt_after_start: load_balancer.adopt_after_start,
            traffic_mode,
            mss_clamp: load_balancer.tcp_mss_clamp,
            candidates: choice.candidates.into(),
            none: choice.none,
            after_bypass: group.after_bypass,
            fates: choice.fates,
            reset_both_ends: group.reset_both_ends,
            probe: self.flow_of(id).map(|(flow, _)| flow),
        };
        (pool, health)
    }

    /// A target as a node sees it; `None` if the node has nothing to do with it.
    fn participant(
        &self,
        slot: TargetSlot,
        target: &Registration,
        member: Option<&Member>,
        group: &TargetGroup,
    ) -> Option<Participant> {
        let delay_over = matches!(target.life, Life::Unused { .. });
        // Flows may still be with a target that the node does not know any more, and end with it.
        if member.is_none() && !delay_over {
            return None;
        }
        let draining = matches!(target.life, Life::Draining { .. });
        let stays = fault::on(Fault::DrainingStillChosen) && draining;
        let zero_counts = fault::on(Fault::ZeroWeightChosen);
        let weight = if zero_counts { target.weight.max(1) } else { target.weight };
        let slow_start = member.and_then(|member| member.slow_start);
        let stepped =
            slow_start.and_then(|begun| slow_weight(weight, begun, group.slow_start, self.now));
        let thinks = if fault::on(Fault::HealthOfOtherNode) {
            self.members_of(slot).last().map(|(_, member)| member)
        } else {
            member
        };
        Some(Participant {
            slot,
            id: target.id,
            near: member.is_some_and(|member| member.near),
            registered: member.is_some() && (target.is_registered() || stays),
            delay_over,
            weight,
            effective_weight: stepped.unwrap_or(weight),
            health: thinks.map_or(pool::Health::Healthy, Member::health),
        })
    }

    /// Tells of flows that lose their target with the present view, and did not before.
    fn tell_fates(&mut self, before: &Snapshot) {
        let view = Arc::clone(&self.snapshot);
        for (index, pool) in view.pools.iter().enumerate() {
            for (slot, &fate) in pool.fates.iter().enumerate() {
                let slot = TargetSlot(slot as u32);
                let action = match fate {
                    Fate::Stay => continue,
                    Fate::Rebalance => FailoverAction::Rebalance,
                    Fate::Reset(cause) => cause.into(),
                };
                let known = before.pools.get(index).is_some_and(|it| it.fate(slot) == fate);
                let Some(registration) = self.registry.get(slot) else { continue };
                // A node that could not choose the target has nothing to tell of it.
                let balancer = self.nodes[index].place.map(|(balancer, _)| balancer);
                let concerned = registration.zone == pool.zone
                    || balancer.is_some_and(|balancer| {
                        let balancer = &self.settings.load_balancers[balancer];
                        balancer.cross_zone || balancer.spill_over_below > 0
                    });
                let flows = registration.active_flows();
                if known || !concerned || flows == 0 {
                    continue;
                }
                self.event(Event::Failover {
                    load_balancer: pool.load_balancer.clone(),
                    zone: pool.zone.clone(),
                    target: view.target(slot).address,
                    action,
                    flows,
                });
            }
        }
    }

    /// Tells where packets begin to go past the appliances, or cease to.
    fn tell_bypass(&mut self, before: &Snapshot) {
        let view = Arc::clone(&self.snapshot);
        let bypassed = |pool: &Pool| pool.candidates.is_empty() && pool.none == NoCandidate::Bypass;
        for (index, pool) in view.pools.iter().enumerate() {
            let on = bypassed(pool);
            if before.pools.get(index).is_some_and(bypassed) != on {
                self.event(Event::Bypass {
                    load_balancer: pool.load_balancer.clone(),
                    zone: Some(pool.zone.clone()),
                    on,
                    cause: BypassCause::NoneHealthy,
                });
            }
        }
    }
}

/// A view of nothing, before there is a first one.
pub(super) fn nothing(
    settings: &crate::config::Settings,
    keys: crate::dataplane::keys::Keys,
) -> Snapshot {
    Snapshot {
        generation: 0,
        topology: Arc::clone(&settings.topology),
        topology_epoch: 0,
        earlier_topology: None,
        keys,
        endpoints: Vec::new(),
        departed: ahash::AHashMap::new(),
        groups: Vec::new(),
        pools: Vec::new(),
        targets: Vec::new(),
        sources: ahash::AHashMap::new(),
        wire_ids: ahash::AHashMap::new(),
        attachments: ahash::AHashMap::new(),
        translations: Vec::new(),
        workers: 0,
        source_ports: 0,
        max_new_flows_per_second: 0,
    }
}
