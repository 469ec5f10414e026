//! Who is registered, and which nodes check whom.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gwlb::config::{Port, Target as Configured, TargetGroup, Weight};
use gwlb::control::event::DrainEnd;
use gwlb::control::{Event, TargetSpec};
use gwlb::dataplane::snapshot::PoolId;

use super::super::books::Books;
use super::choice::{Health, TargetNumber};
use super::leaving::Life;
use super::member::{Member, health_pace, tunnel_pace};
use super::{Control, MemberId, NodeName, Target};

/// What putting a target into its group has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    New,
    Changed,
    Same,
}

/// The most targets of a group in a zone (semantics 1a), and the most that leave at a time.
const MOST_IN_ZONE: usize = 300;
const MOST_LEAVING: usize = 1000;
/// Of an ordinary Ethernet, until the underlay was asked.
const PATH_MTU: u16 = 1500;

impl Control {
    /// Somebody registers a target, or changes it. Returns whether that is allowed.
    pub(in super::super) fn register(
        &mut self,
        group: &str,
        spec: &TargetSpec,
        now: Duration,
        books: &Books,
    ) -> bool {
        self.now = now;
        let settings = Arc::clone(&self.settings);
        let mut groups = settings.target_groups.iter();
        let Some(group) = groups.find(|it| it.name.as_str() == group) else { return false };
        let name = group.name.as_str();
        let address = SocketAddr::new(spec.address, spec.port.unwrap_or(group.port).get());
        let known = self.find(name, address).map(|number| &self.targets[&number]);
        let Some(zone) = self.zone(group, spec, known.map(|it| it.zone.clone())) else {
            return false;
        };
        let others = self.targets.values().filter(|it| {
            it.is_registered() && it.group == name && it.zone == zone && it.address != address
        });
        let full = others.count() >= MOST_IN_ZONE;
        if full || (known.is_none() && self.leaving().len() >= MOST_LEAVING) {
            return false;
        }
        let weight = spec.weight.map(Weight::get).or(known.map(|it| it.weight));
        self.put(name, address, &zone, weight.unwrap_or(100), books);
        let come = self.sync_members(false);
        self.begin_slowly(&come);
        self.settle(books, 0);
        true
    }

    /// Somebody deregisters a target. Returns whether it was registered.
    pub(in super::super) fn deregister(
        &mut self,
        group: &str,
        (address, port): (IpAddr, Option<Port>),
        now: Duration,
        books: &Books,
    ) -> bool {
        self.now = now;
        let mut groups = self.settings.target_groups.iter();
        let Some(group) = groups.find(|it| it.name.as_str() == group) else { return false };
        let delay = group.deregistration_delay;
        let address = SocketAddr::new(address, port.unwrap_or(group.port).get());
        let number = self.find(group.name.as_str(), address);
        let Some(number) = number.filter(|number| self.targets[number].is_registered()) else {
            return false;
        };
        self.begin_to_leave(number, delay, books);
        self.settle(books, 0);
        true
    }

    /// The zone that a target is put into; nothing, if it fits nowhere.
    fn zone(
        &self,
        group: &TargetGroup,
        spec: &TargetSpec,
        before: Option<String>,
    ) -> Option<String> {
        let groups = &self.settings.target_groups;
        let uses = self
            .settings
            .load_balancers
            .iter()
            .filter(|it| groups[it.target_group].name == group.name);
        let nodes: Vec<_> = uses.flat_map(|it| it.nodes.clone()).collect();
        if nodes.iter().any(|node| node.address.is_ipv4() != spec.address.is_ipv4()) {
            return None;
        }
        match spec.zone.clone().or(before) {
            Some(zone) if nodes.is_empty() || nodes.iter().any(|it| it.zone == zone) => Some(zone),
            Some(_) => None,
            None => {
                let first = nodes.first()?.zone.clone();
                nodes.iter().all(|node| node.zone == first).then_some(first)
            }
        }
    }

    /// All that the configuration has.
    pub(super) fn put_all(&mut self, books: &Books) -> [usize; 2] {
        let settings = Arc::clone(&self.settings);
        let mut changed = [0, 0];
        for group in &settings.target_groups {
            for target in &group.targets {
                let weight = target.weight.get();
                let put = self.put(
                    group.name.as_str(),
                    address_of(group, target),
                    &target.zone,
                    weight,
                    books,
                );
                match put {
                    Put::New => changed[0] += 1,
                    Put::Changed => changed[1] += 1,
                    Put::Same => {}
                }
            }
        }
        changed
    }

    /// "Registering a draining target again takes it back."
    fn put(
        &mut self,
        group: &str,
        address: SocketAddr,
        zone: &str,
        weight: u16,
        books: &Books,
    ) -> Put {
        let (target_group, zone) = (group.to_owned(), zone.to_owned());
        let Some(number) = self.find(group, address) else {
            self.last_target += 1;
            self.targets.insert(
                self.last_target,
                Target {
                    group: target_group.clone(),
                    address,
                    zone: zone.clone(),
                    weight,
                    life: Life::Registered,
                    look_at: None,
                    path_mtu: PATH_MTU,
                    slot: None,
                    came_back: std::collections::BTreeSet::new(),
                },
            );
            self.events.push(Event::Registered { target_group, target: address, zone, weight });
            return Put::New;
        };
        let Some(target) = self.targets.get_mut(&number) else { return Put::Same };
        let same = (&target.zone, target.weight) == (&zone, weight);
        (target.zone, target.weight) = (zone, weight);
        if target.is_registered() {
            return if same { Put::Same } else { Put::Changed };
        }
        (target.life, target.look_at) = (Life::Registered, None);
        let (cause, flows) = (DrainEnd::Registered, target.flows(books));
        self.events.push(Event::DrainEnded { target_group, target: address, cause, flows });
        Put::New
    }

    pub(super) fn find(&self, group: &str, address: SocketAddr) -> Option<TargetNumber> {
        let mut targets = self.targets.iter();
        let found = targets.find(|(_, it)| it.group == group && it.address == address);
        found.map(|(number, _)| *number)
    }

    /// "Every load balancer node probes by itself the targets that it may use, those of its zone,
    /// or of all zones with `cross_zone` or spill-over"
    ///
    /// Returns those that have come and are healthy at once, since nobody checks them.
    pub(super) fn sync_members(&mut self, at_start: bool) -> Vec<MemberId> {
        let mut wanted: Vec<(MemberId, bool)> = Vec::new();
        for (pool, node) in self.nodes.iter().enumerate() {
            let pool = PoolId(pool as u16);
            let Some((balancer, group)) = node.in_force(&self.settings) else { continue };
            let far = balancer.cross_zone || balancer.spill_over_below > 0;
            for (number, target) in &self.targets {
                let near = target.zone == node.name.1;
                if target.group == group.name.as_str() && (near || far) {
                    wanted.push(((pool, *number), near));
                }
            }
        }
        let gone: Vec<_> = self
            .members
            .keys()
            .filter(|key| !wanted.iter().any(|(it, _)| it == *key))
            .copied()
            .collect();
        for key in gone {
            self.members.remove(&key);
            self.checks.retain(|_, it| *it != key);
            self.probes.retain(|it| *it != key);
        }
        let mut come = Vec::new();
        for (key, near) in wanted {
            if let Some(member) = self.members.get_mut(&key) {
                member.near = near;
                continue;
            }
            let Some((_, group)) = self.node(key.0) else { continue };
            let tunnel =
                tunnel_pace(group).filter(|_| self.serves(&self.nodes[usize::from(key.0.0)].name));
            let member = Member::new(near, at_start, (health_pace(group), tunnel), self.now);
            let healthy = member.known == Health::Healthy;
            self.members.insert(key, member);
            if healthy {
                come.push(key);
            }
        }
        come
    }

    /// Whether an endpoint is served by a node: only then is there a way for probes to have come.
    pub(super) fn serves(&self, name: &NodeName) -> bool {
        let settings = &self.settings;
        settings.topology.endpoints().any(|(id, _)| {
            let binding = settings.bindings[id.index()];
            let balancer = &settings.load_balancers[binding.load_balancer];
            (balancer.name.as_str(), &balancer.nodes[binding.node].zone)
                == (name.0.as_str(), &name.1)
        })
    }
}

/// Where a target of the configuration takes Geneve.
pub(super) fn address_of(group: &TargetGroup, target: &Configured) -> SocketAddr {
    SocketAddr::new(target.address, target.port.unwrap_or(group.port).get())
}
