//! From outside to every place, and what intents ask for.

use super::Severity;
use super::classes::ClassId;
use super::collect::{Cause, Fate, Flow};
use super::judge::{Judge, circle, last};
use super::roles::{Arrival, is_behind, meant};
use super::walks::{End, Walk};
use crate::space::Family;
use crate::{Attachment, Entry, NextHop, SubnetId, VpcId};

/// A gateway with all addresses of a family behind it, and a place that they send to.
#[derive(Clone, Copy)]
struct Ends<'a> {
    gateway: Entry,
    sources: &'a [ClassId],
    place: SubnetId,
}

impl Judge<'_> {
    /// Packets from a gateway to a place, as far as those of the place to the gateway have not shown
    /// everything.
    pub fn enter_place(&mut self, gateway: Entry, place: SubnetId) {
        let destinations = self.classes.of_subnet(place).to_vec();
        for family in Family::BOTH {
            let sources = self.behind(gateway, family);
            let ends = Ends { gateway, sources: &sources, place };
            let is_of_family = |id: &&ClassId| self.classes.get(**id).family == family;
            let of_family: Vec<ClassId> =
                destinations.iter().filter(is_of_family).copied().collect();
            for destination in of_family {
                let ways = self.walks.of(gateway, &self.classes, destination);
                for way in &*ways {
                    self.inward(ends, destination, way);
                }
            }
        }
    }

    fn inward(&mut self, ends: Ends<'_>, destination: ClassId, way: &Walk) {
        let Ends { gateway, sources, place } = ends;
        let to = Entry::Subnet(place);
        let flow = |source: ClassId| Flow::along(way, gateway, Some(to), source, destination);
        match way.end {
            End::Circle(first) => {
                let cause = circle(&way.hops[first..], false);
                for source in sources {
                    let flow = Flow { to: None, ..flow(*source) };
                    self.found.add(cause.clone(), Severity::Error, flow);
                }
            }
            End::Lost(reason) if way.is_inspected() => {
                let at = way.last();
                let cause = Cause::LostAfter { at: self.spot(at, destination), reason };
                self.found.draft(cause.clone(), Severity::Error).blamed =
                    self.blackhole(at, destination);
                for source in sources {
                    self.found.add(cause.clone(), Severity::Error, flow(*source));
                }
            }
            End::Out(attachment) if self.is_at(attachment, place, destination) => {
                let mapped = self.is_mapped(gateway, destination);
                let silent = self.roles.is_silent(gateway, to);
                if mapped
                    && !way.is_inspected()
                    && self.is_asked(place, gateway)
                    && !silent
                    && !self.roles.is_demanded(gateway, to)
                {
                    let cause = Cause::Ingress { gateway, ipv6_only: false };
                    let cause = self.shared(to).unwrap_or(cause);
                    for source in sources {
                        self.found.add(cause.clone(), Severity::Error, flow(*source));
                    }
                }
                if mapped || way.is_inspected() {
                    self.answers(ends, destination, way);
                }
            }
            _ => {}
        }
    }

    /// Answers of a place that can be reached from outside. If only some are lost, and by a
    /// blackhole, that may be meant; if no route has them, somebody wanted it so.
    fn answers(&mut self, ends: Ends<'_>, destination: ClassId, way: &Walk) {
        let Ends { gateway, sources, place } = ends;
        let from = Entry::Subnet(place);
        let mut lost = Vec::new();
        let mut arrives = false;
        for source in sources {
            let answers = self.walks.of(from, &self.classes, *source);
            for answer in &*answers {
                let Some(choices) = way.choices.and(&answer.choices) else { continue };
                let End::Lost(reason) = answer.end else {
                    arrives |= matches!(answer.end, End::Out(_));
                    continue;
                };
                let at = last(answer, from);
                let flow =
                    Flow::along(way, gateway, Some(from), *source, destination).answered(choices);
                lost.push((at, reason, flow));
            }
        }
        for (at, reason, flow) in lost {
            let hole = self.blackhole(at, flow.source);
            match hole {
                Some((table, route)) if arrives => {
                    self.found.add(Cause::Blackhole { table, route }, Severity::Warning, flow);
                }
                _ if arrives => {}
                _ => {
                    let spot = self.spot(at, flow.source);
                    let cause = Cause::LostReturn { at: spot, fate: Fate::Lost(reason) };
                    if reason == NextHop::Blackhole {
                        self.found.draft(cause.clone(), Severity::Error).blamed = hole;
                    }
                    self.found.add(cause, Severity::Error, flow);
                }
            }
        }
    }

    /// Every path of an intent passes an endpoint of its service.
    pub fn check_intents(&mut self) {
        let topology = self.topology;
        for (index, intent) in topology.intents().iter().enumerate() {
            let Some(service) = &intent.inspected_by else { continue };
            let from: Vec<Entry> = meant(&intent.from, &self.roles).collect();
            let to: Vec<Entry> = meant(&intent.to, &self.roles).collect();
            for from in &from {
                for to in to.iter().filter(|to| *to != from) {
                    self.check_intent(index, service, *from, *to);
                }
            }
        }
    }

    fn check_intent(&mut self, index: usize, service: &str, from: Entry, to: Entry) {
        for family in Family::BOTH {
            let sources = self.addresses(from, family);
            let destinations = match to {
                Entry::Subnet(_) => self.addresses(to, family),
                _ => self.classes.of_family(family).map(|(id, _)| id).collect(),
            };
            if sources.is_empty() {
                continue;
            }
            for destination in destinations {
                let ways = self.walks.of(from, &self.classes, destination);
                for way in &*ways {
                    let End::Out(attachment) = way.end else { continue };
                    let arrived = match to {
                        Entry::Subnet(id) => self.is_at(attachment, id, destination),
                        _ => Entry::from(attachment) == to,
                    };
                    let passed =
                        way.endpoints().any(|id| self.topology.endpoint(id).service == service);
                    if !arrived || passed {
                        continue;
                    }
                    for source in &sources {
                        let flow = Flow::along(way, from, Some(to), *source, destination);
                        self.found.add(Cause::Intent { index }, Severity::Error, flow);
                    }
                }
            }
        }
    }

    /// The addresses that packets from a place can have.
    fn addresses(&self, place: Entry, family: Family) -> Vec<ClassId> {
        match place {
            Entry::Subnet(id) => {
                let all = self.classes.of_subnet(id).iter().copied();
                all.filter(|id| self.classes.get(*id).family == family).collect()
            }
            Entry::Interface(id) => {
                let addresses = self.topology.interface(id).addresses.iter();
                let of_family = addresses.filter(|address| Family::of(**address) == family);
                of_family.map(|address| self.classes.of(*address)).collect()
            }
            _ => self.behind(place, family),
        }
    }

    /// Whether a packet has arrived at the machine of a place that it is for.
    fn is_at(&self, attachment: Attachment, place: SubnetId, destination: ClassId) -> bool {
        let class = self.classes.get(destination);
        let own = |vpc: VpcId| class.owner(vpc).and_then(|owner| owner.interface);
        match self.roles.arrival(self.topology, attachment, own) {
            Arrival::Place(id) => id == place,
            // An intent may be about a subnet without machines, too.
            _ => attachment == Attachment::Subnet(place),
        }
    }

    /// Whether a public address stands for these at a gateway.
    fn is_mapped(&self, gateway: Entry, class: ClassId) -> bool {
        let Entry::InternetGateway(id) = gateway else { return false };
        let class = self.classes.get(class);
        class.mapped
            && self
                .topology
                .gateway(id)
                .addresses
                .iter()
                .any(|mapping| self.classes.of(mapping.private) == self.classes.of(class.address))
    }

    /// The addresses of whoever is behind a gateway.
    fn behind(&self, gateway: Entry, family: Family) -> Vec<ClassId> {
        let of_family = self.classes.of_family(family);
        of_family
            .filter(|(_, class)| is_behind(self.topology, gateway, class))
            .map(|(id, _)| id)
            .collect()
    }
}
