//! One step of a packet's way, whatever it is for: what packets, traces and proofs have in common.

use std::net::IpAddr;

use super::{
    Attachment, Entry, GroupId, InterfaceKind, NextHop, Topology, TransitAttachmentId,
    TransitTarget,
};

/// What is chosen for a flow, where something is. Both directions of a flow must get the same
/// answers.
pub trait Choose {
    /// Which of so many zones an attachment in appliance mode takes; any number, of which the
    /// remainder counts.
    fn zone(&self, attachment: TransitAttachmentId, zones: usize) -> usize;

    /// Which member of a group of so many; any number, of which the remainder counts.
    fn member(&self, group: GroupId, members: usize) -> usize;
}

/// Always the same zone and the same member: the first is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fixed {
    /// The zone, by the order of the attachment's subnets.
    pub zone: usize,
    /// The member, by the order of the group.
    pub member: usize,
}

impl Choose for Fixed {
    fn zone(&self, _: TransitAttachmentId, _: usize) -> usize {
        self.zone
    }

    fn member(&self, _: GroupId, _: usize) -> usize {
        self.member
    }
}

/// What becomes of a packet after a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// It is looked up again: after an appliance ([`Entry::Endpoint`]), in the VPC that a transit
    /// gateway sends it to ([`Entry::Subnet`]), with another source ([`Entry::Interface`] of a NAT
    /// gateway).
    Onward(Entry),
    /// It has left the router.
    Out(Attachment),
    /// It is lost: [`NextHop::Blackhole`], [`NextHop::NoRoute`], [`NextHop::Loop`] or
    /// [`NextHop::NoSubnet`].
    Lost(NextHop),
}

impl Topology {
    /// What becomes of a packet for this address that enters here.
    pub fn step(&self, at: Entry, destination: IpAddr, choose: &impl Choose) -> Step {
        self.after(at, self.lookup(at, destination), destination, choose)
    }

    /// What becomes of a packet that got this answer.
    pub(crate) fn after(
        &self,
        at: Entry,
        next_hop: NextHop,
        destination: IpAddr,
        choose: &impl Choose,
    ) -> Step {
        match next_hop {
            NextHop::Endpoint(id) => Step::Onward(Entry::Endpoint(id)),
            NextHop::EndpointGroup(id) => {
                let members = &self.endpoint_group(id).members;
                let (endpoint, _) = members[choose.member(id, members.len()) % members.len()];
                if at == Entry::Endpoint(endpoint) {
                    return Step::Lost(NextHop::Loop);
                }
                Step::Onward(Entry::Endpoint(endpoint))
            }
            NextHop::Transit(from) if !self.reaches_transit(at, from) => {
                Step::Lost(NextHop::NoRoute)
            }
            NextHop::Transit(from) => match self.transit_target(from, destination) {
                None => Step::Lost(NextHop::NoRoute),
                Some(TransitTarget::Blackhole) => Step::Lost(NextHop::Blackhole),
                Some(TransitTarget::Attachment(to)) => {
                    Step::Onward(Entry::Subnet(self.transit_subnet(at, to, choose)))
                }
            },
            NextHop::Deliver(Attachment::Interface(id)) if self.translates(id, destination) => {
                match at {
                    // A NAT gateway does not get back what it has sent.
                    Entry::Interface(from) if from == id => Step::Lost(NextHop::Loop),
                    _ => Step::Onward(Entry::Interface(id)),
                }
            }
            NextHop::Deliver(attachment) => Step::Out(attachment),
            lost @ (NextHop::Blackhole | NextHop::NoRoute | NextHop::Loop | NextHop::NoSubnet) => {
                Step::Lost(lost)
            }
        }
    }

    /// Whether a packet is on its way through a NAT gateway, and not an answer to it.
    fn translates(&self, id: super::InterfaceId, destination: IpAddr) -> bool {
        let interface = self.interface(id);
        matches!(interface.kind, InterfaceKind::NatGateway { .. })
            && !interface.addresses.contains(&destination)
    }

    /// The zone that packets which enter here come from, where they come from one.
    pub fn zone(&self, at: Entry) -> Option<&str> {
        match at {
            Entry::Subnet(id) => Some(&self.subnet(id).zone),
            Entry::Endpoint(id) => Some(&self.endpoint(id).zone),
            Entry::Interface(id) => Some(&self.interface(id).zone),
            Entry::InternetGateway(_) | Entry::Edge(_) => None,
        }
    }
}
