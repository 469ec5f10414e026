//! The ways of answers.

use super::classes::ClassId;
use super::collect::Fate;
use super::judge::{Judge, last};
use super::walks::{Choices, End, Walk};
use crate::{Attachment, EdgeKind, EndpointId, Entry, InterfaceId, SubnetId, TransitAttachmentId};

/// A way of answers, through the same NAT gateways.
#[derive(Clone, Debug)]
pub(super) struct Back {
    pub choices: Choices,
    /// The endpoints of each stretch, and where it begins; the first is that of the far end.
    pub stretches: Vec<(Entry, Vec<EndpointId>)>,
    pub arrivals: Vec<(TransitAttachmentId, SubnetId)>,
    pub crossings: Vec<(Entry, EndpointId)>,
    /// Where and why it does not come home.
    pub fate: Option<(Entry, Fate)>,
    pub circle: Vec<Entry>,
}

/// Where an answer should arrive.
#[derive(Clone, Copy)]
enum Home {
    Nat(InterfaceId),
    Place(SubnetId, ClassId),
}

impl Judge<'_> {
    /// The ways of answers to a packet that has left here, back to the place that it came from.
    pub fn ways_back(
        &mut self,
        way: &Walk,
        from: Entry,
        home: SubnetId,
        source: ClassId,
    ) -> Vec<Back> {
        let mut ways = vec![Back {
            choices: way.choices.clone(),
            stretches: Vec::new(),
            arrivals: Vec::new(),
            crossings: Vec::new(),
            fate: None,
            circle: Vec::new(),
        }];
        let mut at = from;
        let nat = way.nat.iter().rev().map(|id| Home::Nat(*id));
        for home in nat.chain([Home::Place(home, source)]) {
            let class = match home {
                // Whoever translates has an address to translate to.
                Home::Nat(id) => match self.topology.interface(id).addresses.first() {
                    Some(address) => self.classes.of(*address),
                    None => return Vec::new(),
                },
                Home::Place(_, class) => class,
            };
            let onward = self.walks.of(at, &self.classes, class);
            let so_far = std::mem::take(&mut ways);
            for back in so_far {
                if back.fate.is_some() {
                    ways.push(back);
                    continue;
                }
                for walk in &*onward {
                    let Some(choices) = back.choices.and(&walk.choices) else { continue };
                    ways.push(self.extended(&back, choices, at, walk, home));
                }
            }
            if let Home::Nat(id) = home {
                at = Entry::Interface(id);
            }
        }
        ways
    }

    fn extended(&self, back: &Back, choices: Choices, at: Entry, walk: &Walk, home: Home) -> Back {
        let mut back = Back { choices, ..back.clone() };
        back.stretches.push((at, walk.endpoints().collect()));
        back.arrivals.extend(&walk.arrivals);
        back.crossings.extend(&walk.crossings);
        let last = last(walk, at);
        let fate = match walk.end {
            End::Lost(reason) => Some(Fate::Lost(reason)),
            End::Circle(first) => {
                back.circle = walk.hops[first..].to_vec();
                Some(Fate::Circles)
            }
            End::Out(_) if !walk.nat.is_empty() => Some(Fate::Translated(walk.nat[0])),
            End::Out(attachment) => self.missed(attachment, home),
        };
        back.fate = fate.map(|fate| (last, fate));
        back
    }

    /// Where else than home an answer has arrived.
    fn missed(&self, attachment: Attachment, home: Home) -> Option<Fate> {
        match (attachment, home) {
            (Attachment::Interface(id), Home::Nat(nat)) if id == nat => None,
            (Attachment::Subnet(id), Home::Place(subnet, _)) if id == subnet => None,
            (Attachment::Interface(id), Home::Place(subnet, class))
                if self.topology.interface(id).subnet == subnet && self.has(class, id) =>
            {
                None
            }
            (Attachment::Interface(id), Home::Place(_, class)) if !self.has(class, id) => {
                Some(Fate::Unknown(Entry::Interface(id)))
            }
            (Attachment::Edge(id), _)
                if matches!(self.topology.edge(id).kind, EdgeKind::Opaque(_)) =>
            {
                Some(Fate::Unknown(Entry::Edge(id)))
            }
            _ => Some(Fate::Astray(attachment.into())),
        }
    }

    fn has(&self, class: ClassId, id: InterfaceId) -> bool {
        let owners = &self.classes.get(class).owners;
        owners.iter().any(|(_, owner)| owner.interface == Some(id))
    }
}

impl Back {
    pub fn is_inspected(&self) -> bool {
        self.stretches.iter().any(|(_, passed)| !passed.is_empty())
    }
}
