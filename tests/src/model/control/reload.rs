//! Another configuration takes the place of the present one: "What the file says is what is in force
//! afterwards".

use std::sync::Arc;
use std::time::Duration;

use gwlb::config::{Settings, TargetGroup, TrafficMode};
use gwlb::control::Event;
use gwlb::control::event::BypassCause;

use super::super::books::Books;
use super::super::routes::Routes;
use super::check::{Check, Finding};
use super::choice::{Health, TargetNumber};
use super::leaving::Life;
use super::member::{health_pace, tunnel_pace};
use super::registry::address_of;
use super::{Control, MemberId, NodeName, nodes};

impl Control {
    pub(in super::super) fn reload(
        &mut self,
        settings: &Arc<Settings>,
        now: Duration,
        books: &Books,
    ) {
        self.now = now;
        let before = std::mem::replace(&mut self.settings, Arc::clone(settings));
        if !Routes::of(&before).counts_as(&Routes::of(settings)) {
            self.topology_epoch += 1;
        }
        for node in &mut self.nodes {
            node.place = None;
        }
        for node in nodes(settings) {
            match self.nodes.iter_mut().find(|known| known.name == node.name) {
                Some(known) => known.place = node.place,
                None => self.nodes.push(node),
            }
        }
        self.reload_groups();
        self.take_modes(settings);
        self.take_delays(books);
        self.take_targets(&before, books);
        let stay: Vec<_> = self.members.keys().copied().collect();
        let mut together = self.sync_members(false);
        together.extend(stay.into_iter().filter(|key| self.take_checks(*key, &before)));
        self.begin_slowly(&together);
        self.settle(books, 1);
    }

    fn take_modes(&mut self, settings: &Settings) {
        let balancers = settings.load_balancers.iter();
        let modes = balancers.map(|it| (it.name.to_string(), it.traffic_mode)).collect();
        let before = std::mem::replace(&mut self.modes, modes);
        for (name, mode) in &self.modes {
            if before.get(name).copied().unwrap_or_default() != *mode {
                self.events.push(Event::Bypass {
                    load_balancer: name.clone(),
                    zone: None,
                    on: *mode == TrafficMode::Bypass,
                    cause: BypassCause::TrafficMode,
                });
            }
        }
    }

    /// Those that drain have as much time as the configuration gives them now.
    fn take_delays(&mut self, books: &Books) {
        for number in self.leaving() {
            let settings = Arc::clone(&self.settings);
            let Some(target) = self.targets.get_mut(&number) else { continue };
            let Some(group) = group_of(&settings, &target.group) else { continue };
            if let Life::Draining { begun, deadline, .. } = &mut target.life {
                *deadline = *begun + group.deregistration_delay;
                self.look_at_leaving(number, books);
            }
        }
    }

    /// "targets that were registered by command and are not in it are deregistered"
    fn take_targets(&mut self, before: &Settings, books: &Books) {
        let settings = Arc::clone(&self.settings);
        let [registered, changed] = self.put_all(books);
        let is_named = |group: &str, address| {
            group_of(&settings, group).is_some_and(|group| {
                group.targets.iter().any(|target| address_of(group, target) == address)
            })
        };
        let gone = self.targets.iter().filter(|(_, target)| {
            target.is_registered() && !is_named(&target.group, target.address)
        });
        let gone: Vec<(TargetNumber, String)> =
            gone.map(|(number, target)| (*number, target.group.clone())).collect();
        let deregistered = gone.len();
        for (number, group) in gone {
            let group = group_of(&settings, &group).or_else(|| group_of(before, &group));
            let delay = group.map(|it| it.deregistration_delay).unwrap_or_default();
            self.begin_to_leave(number, delay, books);
        }
        self.events.push(Event::Reload { registered, deregistered, changed });
    }

    /// A check whose settings are others begins anew, from what is thought of the target. Returns
    /// whether that makes it healthy.
    fn take_checks(&mut self, key: MemberId, before: &Settings) -> bool {
        let settings = Arc::clone(&self.settings);
        let Some(group) = self.targets.get(&key.1).map(|target| target.group.clone()) else {
            return false;
        };
        let (Some(old), Some(new)) = (group_of(before, &group), group_of(&settings, &group)) else {
            return false;
        };
        let Some(name) = self.nodes.get(usize::from(key.0.0)).map(|node| node.name.clone()) else {
            return false;
        };
        let serves = self.serves(&name);
        let now = self.now;
        let Some(member) = self.members.get_mut(&key) else { return false };
        // One that was not there before cannot know better than those that were.
        let presumed = match member.health_now() {
            Health::Healthy => Finding::Healthy,
            _ => Finding::NOTHING,
        };
        let finding = |check: &Option<Check>| check.as_ref().map_or(presumed, |it| it.finding);
        let (health, tunnel) = (finding(&member.health), finding(&member.tunnel));
        let mut ended = Vec::new();
        if old.health_check != new.health_check {
            member.health = health_pace(new).map(|pace| Check::new(pace, health, now));
            ended.extend(member.health_id.take());
            self.probes.retain(|it| *it != key);
        }
        let wanted = tunnel_pace(new).filter(|_| serves);
        let moved = tunnel_ends(before, &name) != tunnel_ends(&settings, &name);
        if old.tunnel_check != new.tunnel_check
            || moved
            || member.tunnel.is_some() != wanted.is_some()
        {
            member.tunnel = wanted.map(|pace| Check::new(pace, tunnel, now));
            ended.extend(member.tunnel_id.take());
        }
        for id in ended {
            self.checks.remove(&id);
        }
        self.note_health(key)
    }
}

/// What the ends of a node's probes through the tunnel depend on: the first endpoint that it
/// serves.
fn tunnel_ends(settings: &Settings, name: &NodeName) -> Option<Vec<std::net::IpAddr>> {
    let served = settings.topology.endpoints().find(|(id, _)| {
        let binding = settings.bindings[id.index()];
        let balancer = &settings.load_balancers[binding.load_balancer];
        (balancer.name.as_str(), &balancer.nodes[binding.node].zone) == (name.0.as_str(), &name.1)
    });
    served.map(|(_, endpoint)| endpoint.addresses.clone())
}

fn group_of<'a>(settings: &'a Settings, name: &str) -> Option<&'a TargetGroup> {
    settings.target_groups.iter().find(|it| it.name.as_str() == name)
}
