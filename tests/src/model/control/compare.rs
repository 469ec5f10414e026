//! Holds that a view which the gateway publishes says what it should.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gwlb::dataplane::snapshot::{Pool, PoolId, Snapshot, TargetSlot};

use super::super::fleet::Fleet;
use super::super::{Clause, Wrong, hold};
use super::choice::TargetNumber;
use super::{Control, Node};

impl Control {
    /// A view is published.
    pub(in super::super) fn publish(
        &mut self,
        snapshot: &Snapshot,
        fleet: &Fleet,
    ) -> Result<(), Wrong> {
        hold(snapshot.generation > self.generation, Clause::Documented, || {
            format!("view {} follows view {}", snapshot.generation, self.generation)
        })?;
        self.generation = snapshot.generation;
        self.note_left(snapshot.generation);
        self.note_slots(snapshot, fleet)?;
        self.hold_whole(snapshot)?;
        self.hold_endpoints(snapshot)?;
        for ((number, node), pool) in self.nodes.iter().enumerate().zip(&snapshot.pools) {
            self.hold_node(PoolId(number as u16), node, pool)?;
        }
        self.published.clone_from(&self.view);
        self.hold_groups(snapshot)
    }

    /// Who has which place: one that is there keeps it, and is known by what it has ever been known
    /// by.
    fn note_slots(&mut self, snapshot: &Snapshot, fleet: &Fleet) -> Result<(), Wrong> {
        let groups = &self.settings.target_groups;
        let listed: BTreeSet<TargetSlot> = snapshot.sources.values().flatten().copied().collect();
        let mut taken = BTreeSet::new();
        for target in self.targets.values_mut() {
            let group = groups.iter().position(|it| it.name.as_str() == target.group);
            let group = group.unwrap_or(usize::MAX);
            let is = |slot: TargetSlot| {
                let view = snapshot.targets.get(slot.0 as usize);
                view.is_some_and(|view| (view.address, view.group) == (target.address, group))
            };
            let at_source = snapshot.sources.get(&target.address.ip());
            let found = at_source.and_then(|slots| slots.iter().copied().find(|slot| is(*slot)));
            let Some(found) = found else {
                return Err(Wrong::new(
                    Clause::Documented,
                    format!("{} of {} is not in the view", target.address, target.group),
                ));
            };
            hold(target.slot.is_none_or(|slot| slot == found), Clause::Stability, || {
                format!("{} moves from slot {:?} to {found:?}", target.address, target.slot)
            })?;
            target.slot = Some(found);
            taken.insert(found);
            let view = &snapshot.targets[found.0 as usize];
            fleet.identify(&target.group, target.address, view.id.get())?;
            hold(view.path_mtu == target.path_mtu, Clause::Documented, || {
                format!(
                    "the path to {} is {} bytes, not {}",
                    view.address, target.path_mtu, view.path_mtu
                )
            })?;
            if let Some(usable) = view.usable_mtu {
                hold(target.came_back.contains(&usable), Clause::Documented, || {
                    format!("{usable} bytes never came back from {}", view.address)
                })?;
            }
            if let Some(group) = groups.get(group) {
                hold(view.dialect == group.dialect, Clause::Documented, || {
                    format!("{} speaks {}", view.address, view.dialect.name())
                })?;
            }
        }
        hold(taken == listed, Clause::NoUninspectedPath, || {
            format!("sources are {listed:?}, and {taken:?} are there")
        })
    }

    /// What is the whole gateway's.
    fn hold_whole(&self, snapshot: &Snapshot) -> Result<(), Wrong> {
        let settings = &self.settings;
        let is = (
            snapshot.keys.cookie.epoch(),
            snapshot.topology_epoch,
            snapshot.workers,
            usize::from(snapshot.source_ports),
            snapshot.max_new_flows_per_second,
            snapshot.pools.len(),
        );
        let should = (
            self.epoch,
            self.topology_epoch,
            self.workers,
            settings.gateway.source_ports_per_worker,
            settings.gateway.max_new_flows_per_second,
            self.nodes.len(),
        );
        hold(is == should, Clause::Documented, || {
            format!("epochs, workers, ports, flows and nodes are {is:?}, not {should:?}")
        })?;
        let there: BTreeMap<_, _> =
            snapshot.attachments.iter().map(|(at, mtu)| (*at, *mtu)).collect();
        let should: BTreeMap<_, _> = (settings.exits().into_iter())
            .map(|(at, attachment)| (at, settings.attachments[attachment].mtu.get()))
            .collect();
        hold(there == should, Clause::Documented, || format!("attachments are {there:?}"))?;
        let same = Arc::ptr_eq(&snapshot.topology, &settings.topology);
        hold(same, Clause::Documented, || "the routes are another configuration's".to_owned())
    }

    fn hold_endpoints(&self, snapshot: &Snapshot) -> Result<(), Wrong> {
        let settings = &self.settings;
        for (id, endpoint) in settings.topology.endpoints() {
            let binding = settings.bindings[id.index()];
            let balancer = &settings.load_balancers[binding.load_balancer];
            let name = (balancer.name.to_string(), balancer.nodes[binding.node].zone.clone());
            let pool = self.pool(&name);
            let view = snapshot.endpoints.get(id.index());
            let right = view.is_some_and(|view| {
                view.wire_id == endpoint.wire_id
                    && Some(view.pool) == pool
                    && view.addresses == endpoint.addresses
            }) && snapshot.wire_ids.get(&endpoint.wire_id) == Some(&id);
            hold(right, Clause::Documented, || format!("{} is {view:?}", endpoint.name))?;
        }
        let count = settings.topology.endpoints().len();
        let right = snapshot.endpoints.len() == count && snapshot.wire_ids.len() == count;
        hold(right, Clause::Documented, || "there are more endpoints than configured".to_owned())
    }

    fn hold_node(&self, number: PoolId, node: &Node, pool: &Pool) -> Result<(), Wrong> {
        let name = &node.name;
        let Some((balancer, group)) = node.in_force(&self.settings) else {
            let left = pool.candidates.is_empty() && pool.probe.is_none();
            return hold(left, Clause::Documented, || format!("{name:?} is gone: {pool:?}"));
        };
        let address = node.settings(&self.settings).map(|it| it.address);
        let settings_right = (&pool.load_balancer, &pool.zone) == (&name.0, &name.1)
            && Some(pool.address) == address
            && pool.stickiness == group.stickiness
            && pool.timers == balancer.timers
            && pool.unknown_flow == balancer.tcp_unknown_flow
            && pool.reset_idle == balancer.send_tcp_reset_on_idle_timeout
            && pool.adopt_after_start == balancer.adopt_after_start
            && pool.mss_clamp == balancer.tcp_mss_clamp
            && pool.after_bypass == group.after_bypass
            && pool.reset_both_ends == group.reset_both_ends
            && pool.probe.is_some() == self.serves(name);
        hold(settings_right, Clause::Documented, || {
            format!("{name:?} is not as configured: {pool:?}")
        })?;
        let Some((choice, mode)) = self.view.as_ref().and_then(|view| view.nodes.get(&number))
        else {
            return Ok(());
        };
        let slot = |number: &TargetNumber| self.targets.get(number).and_then(|it| it.slot);
        let candidates: BTreeMap<_, _> =
            choice.candidates.iter().map(|(number, weight)| (slot(number), *weight)).collect();
        let are: BTreeMap<_, _> =
            pool.candidates.iter().map(|it| (Some(it.target), it.weight)).collect();
        hold(are == candidates && are.len() == pool.candidates.len(), Clause::Documented, || {
            format!("the candidates of {name:?} should be {candidates:?}: {:?}", pool.candidates)
        })?;
        hold(
            (pool.none, pool.traffic_mode) == (choice.none, *mode),
            Clause::NoUninspectedPath,
            || {
                let is = (pool.none, pool.traffic_mode);
                format!(
                    "without a candidate, {name:?} should {:?}, in {mode:?}: {is:?}",
                    choice.none
                )
            },
        )?;
        let fates: BTreeMap<_, _> =
            choice.fates.iter().map(|(number, fate)| (slot(number), *fate)).collect();
        let are = pool
            .fates
            .iter()
            .enumerate()
            .map(|(slot, fate)| (Some(TargetSlot(slot as u32)), *fate));
        let are: BTreeMap<_, _> =
            are.filter(|(_, fate)| *fate != gwlb::dataplane::snapshot::Fate::Stay).collect();
        hold(are == fates, Clause::Stability, || {
            format!("the flows of targets of {name:?} should {fates:?}: {are:?}")
        })
    }
}
