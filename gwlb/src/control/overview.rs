//! What is shown of each load balancer: whether its packets are inspected, node by node.

use std::net::IpAddr;

use serde::Serialize;
use utoipa::ToSchema;

use super::Control;
use super::pool;
use super::target::TargetState;
use crate::config::TrafficMode;
use crate::dataplane::snapshot::{NoCandidate, Pool, PoolId};

/// One load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LoadBalancerStatus {
    /// Its name.
    pub name: String,
    /// The target group that it forwards to.
    pub target_group: String,
    /// Whether its packets are to be inspected: as configured, or as somebody has switched it.
    pub traffic_mode: TrafficMode,
    /// Whether a node uses the targets of every zone.
    pub cross_zone: bool,
    /// With fewer healthy targets a zone uses those of the others, too; 0: never.
    pub spill_over_below_healthy_targets: u32,
    /// One per zone.
    pub nodes: Vec<NodeStatus>,
}

/// A load balancer's node in one zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodeStatus {
    /// The zone.
    pub zone: String,
    /// The outer address that targets see.
    #[schema(value_type = String, example = "192.0.2.1")]
    pub address: IpAddr,
    /// What becomes of new flows.
    pub packets: NodePackets,
    /// Targets that it may use and that pass its checks, or are not checked.
    pub healthy_targets: usize,
    /// Targets that it may use and that fail its checks.
    pub unhealthy_targets: usize,
}

/// What becomes of the packets of new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodePackets {
    /// They go to a target.
    Inspected,
    /// They go past the targets.
    Bypassed,
    /// They are dropped: no target may take them.
    Dropped,
}

impl NodePackets {
    fn of(pool: &Pool) -> Self {
        match pool.none {
            _ if pool.traffic_mode == TrafficMode::Bypass => Self::Bypassed,
            _ if !pool.candidates.is_empty() => Self::Inspected,
            NoCandidate::Bypass => Self::Bypassed,
            NoCandidate::Drop => Self::Dropped,
        }
    }
}

impl Control {
    /// Every load balancer, in the order of the file.
    pub fn load_balancers(&self) -> Vec<LoadBalancerStatus> {
        let balancers = self.settings.load_balancers.iter().zip(&self.traffic_modes);
        balancers
            .enumerate()
            .map(|(index, (balancer, &traffic_mode))| LoadBalancerStatus {
                name: balancer.name.to_string(),
                target_group: self.settings.target_groups[balancer.target_group].name.to_string(),
                traffic_mode,
                cross_zone: balancer.cross_zone,
                spill_over_below_healthy_targets: balancer.spill_over_below,
                nodes: (self.nodes.iter().enumerate())
                    .filter(|(_, node)| node.place.is_some_and(|(place, _)| place == index))
                    .map(|(pool, _)| self.node_status(PoolId(pool as u16)))
                    .collect(),
            })
            .collect()
    }

    fn node_status(&self, id: PoolId) -> NodeStatus {
        let node = &self.nodes[usize::from(id.0)];
        let found = |wanted: fn(pool::Health, TargetState) -> bool| {
            let members = self.members.iter().filter(|((_, pool), _)| *pool == id);
            let found = members.filter(|((slot, _), member)| {
                self.registry.get(*slot).is_some_and(super::target::Registration::is_registered)
                    && wanted(member.health(), member.standing().state)
            });
            found.count()
        };
        NodeStatus {
            zone: node.zone.clone(),
            address: node.address,
            packets: NodePackets::of(self.snapshot.pool(id)),
            healthy_targets: found(|health, state| {
                health == pool::Health::Healthy && state != TargetState::Initial
            }),
            unhealthy_targets: found(|_, state| state == TargetState::Unhealthy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{Manner, World, address, file};

    /// The first load balancer's nodes: what becomes of packets, healthy and unhealthy targets.
    fn nodes(world: &World) -> Vec<(NodePackets, usize, usize)> {
        let balancers = world.control.load_balancers();
        let nodes = balancers[0].nodes.iter();
        nodes.map(|it| (it.packets, it.healthy_targets, it.unhealthy_targets)).collect()
    }

    #[test]
    fn a_node_tells_what_becomes_of_its_packets() {
        use NodePackets::{Bypassed, Dropped, Inspected};
        for (policy, none_healthy) in
            [("fail_open", Inspected), ("fail_closed", Dropped), ("bypass", Bypassed)]
        {
            let group = format!("when_none_healthy = \"{policy}\"");
            let text = file(["", &group, ""], &["a", "b"], &[(11, "a"), (12, "a"), (21, "b")]);
            let manners = [(12, Manner::DEAD), (21, Manner::DEAD)];
            let mut world = World::with(&text, manners.into());
            world.run_until(60_000);
            assert_eq!(nodes(&world), [(Inspected, 1, 1), (none_healthy, 0, 1)], "{policy}");

            let now = world.now();
            world.control.set_traffic_mode("lb", TrafficMode::Bypass, now).unwrap();
            assert_eq!(nodes(&world), [(Bypassed, 1, 1), (Bypassed, 0, 1)]);
            assert_eq!(world.control.load_balancers()[0].traffic_mode, TrafficMode::Bypass);

            // A target that was deregistered is none of theirs any more.
            world.control.deregister("fw", address(12), None, now).unwrap();
            assert_eq!(nodes(&world)[0], (Bypassed, 1, 0));
        }
    }
}
