//! Registration and deregistration: from the first word of a target until its slot is free.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::command::{
    CommandError, MAX_LEAVING, MAX_TARGETS_PER_ZONE, TargetSpec, group_named, zone_for,
};
use super::event::{DrainEnd, Event};
use super::target::{Life, Particulars, Registration};
use super::{Control, Item};
use crate::config::{Port, Weight};
use crate::dataplane::snapshot::TargetSlot;
use crate::fault::{self, Fault};

/// What putting a target into its group has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    New,
    Changed,
    Same,
}

impl Control {
    /// Registers a target, or changes zone or weight of one that is registered. One that is on its
    /// way out is restored, with its flows and with the health that its checks have gone on to
    /// find.
    ///
    /// # Errors
    /// [`CommandError`], if the request does not fit the configuration; nothing changes then.
    pub fn register(
        &mut self,
        group: &str,
        target: &TargetSpec,
        now: Instant,
    ) -> Result<(), CommandError> {
        self.see(now);
        let settings = std::sync::Arc::clone(&self.settings);
        let (index, group) = group_named(&settings, group)?;
        let port = target.port.unwrap_or(group.port).get();
        let address = SocketAddr::new(target.address, port);
        let name = group.name.as_str();
        let known = self.registry.find(name, address).and_then(|slot| self.registry.get(slot));
        let zone = zone_for(&settings, index, target, known.map(|it| it.zone.as_str()))?;
        let weight = target.weight.map(Weight::get).or(known.map(|it| it.weight));
        let others = self.registry.live().filter(|(_, it)| {
            it.is_registered() && it.group == name && it.zone == zone && it.address != address
        });
        if others.count() >= MAX_TARGETS_PER_ZONE {
            return Err(CommandError::TooMany { group: name.to_owned(), zone });
        }
        let leaving = self.registry.live().filter(|(_, it)| !it.is_registered()).count();
        if known.is_none() && leaving >= MAX_LEAVING {
            return Err(CommandError::TooManyLeaving);
        }
        let weight = weight.unwrap_or(Weight::default().get());
        self.put(index, Particulars { address, zone: &zone, weight });
        let come = self.sync_members(false);
        self.begin_slow_starts(&come);
        self.settle();
        Ok(())
    }

    /// Deregisters a target: it gets no new flows, and drains.
    ///
    /// # Errors
    /// [`CommandError::UnknownGroup`], and [`CommandError::UnknownTarget`] if it is not registered,
    /// which includes one that drains already.
    pub fn deregister(
        &mut self,
        group: &str,
        address: std::net::IpAddr,
        port: Option<Port>,
        now: Instant,
    ) -> Result<(), CommandError> {
        self.see(now);
        let settings = std::sync::Arc::clone(&self.settings);
        let (_, group) = group_named(&settings, group)?;
        let address = SocketAddr::new(address, port.unwrap_or(group.port).get());
        let found = self.registry.find(group.name.as_str(), address);
        let registered =
            |slot: &TargetSlot| self.registry.get(*slot).is_some_and(Registration::is_registered);
        let Some(slot) = found.filter(registered) else {
            return Err(CommandError::UnknownTarget { group: group.name.to_string(), address });
        };
        self.begin_drain(slot, group.deregistration_delay);
        self.settle();
        Ok(())
    }

    /// Registers, changes or restores a target of the group at this index. The members are to be
    /// brought in line by the caller.
    pub(super) fn put(&mut self, index: usize, target: Particulars<'_>) -> Put {
        let unix = self.unix_now();
        let group = &self.settings.target_groups[index];
        let Some(slot) = self.registry.find(group.name.as_str(), target.address) else {
            let registration = Registration::new(index, group, target, self.workers, unix);
            let target_group = registration.group.clone();
            self.registry.add(registration);
            self.dirty = true;
            self.event(Event::Registered {
                target_group,
                target: target.address,
                zone: target.zone.to_owned(),
                weight: target.weight,
            });
            return Put::New;
        };
        let Some(known) = self.registry.get_mut(slot) else { return Put::Same };
        let mut put = Put::Same;
        if known.zone != target.zone || known.weight != target.weight {
            target.zone.clone_into(&mut known.zone);
            known.weight = target.weight;
            self.dirty = true;
            put = Put::Changed;
        }
        if !known.is_registered() && !fault::on(Fault::DrainForgetsReregistration) {
            known.life = Life::Registered;
            known.since = unix;
            let (target_group, flows) = (known.group.clone(), known.active_flows());
            self.dirty = true;
            self.agenda.set(Item::Life(slot), None);
            self.event(Event::DrainEnded {
                target_group,
                target: target.address,
                cause: DrainEnd::Registered,
                flows,
            });
            put = Put::New;
        }
        put
    }

    /// A target gets no new flows from now on.
    pub(super) fn begin_drain(&mut self, slot: TargetSlot, delay: Duration) {
        let (now, unix, left) = (self.now, self.unix_now(), self.next_generation());
        let delay = match delay {
            _ if fault::on(Fault::DrainEndsAtOnce) => Duration::ZERO,
            _ if fault::on(Fault::DrainNeverEnds) => Duration::from_hours(1_000_000),
            delay => delay,
        };
        let Some(target) = self.registry.get_mut(slot) else { return };
        target.life = Life::Draining { begun: now, deadline: now + delay, left };
        target.since = unix;
        let event = Event::DrainBegun {
            target_group: target.group.clone(),
            target: target.address,
            flows: target.active_flows(),
            seconds: delay.as_secs_f64(),
        };
        self.dirty = true;
        self.event(event);
        self.advance_life(slot);
    }

    /// Goes on with the deregistration of a target.
    pub(super) fn advance_life(&mut self, slot: TargetSlot) {
        let (now, unix, acknowledged) = (self.now, self.unix_now(), self.acknowledged);
        let Some(target) = self.registry.get_mut(slot) else { return };
        let changed = target.advance(acknowledged, now);
        self.agenda.set(Item::Life(slot), target.due(acknowledged, now));
        if !changed {
            return;
        }
        self.dirty = true;
        if target.is_live() {
            target.since = unix;
            let flows = target.active_flows();
            let cause = if flows == 0 { DrainEnd::LastFlow } else { DrainEnd::Deadline };
            let (target_group, target) = (target.group.clone(), target.address);
            self.event(Event::DrainEnded { target_group, target, cause, flows });
        } else {
            self.watches.remove(&slot);
            let come = self.sync_members(false);
            self.begin_slow_starts(&come);
        }
    }

    /// Workers hold a later view than before: targets may have been left for good.
    pub(super) fn advance_lives(&mut self) {
        let leaving = self.registry.live().filter(|(_, target)| !target.is_registered());
        let leaving: Vec<_> = leaving.map(|(slot, _)| slot).collect();
        for slot in leaving {
            self.advance_life(slot);
        }
    }
}
