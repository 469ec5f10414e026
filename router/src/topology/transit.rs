//! Transit gateways: their own tables, and the zone in which a packet comes out of them.

use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::{
    Choose, Entry, Origin, SubnetId, Topology, TransitAttachmentId, TransitGatewayId,
    TransitTableId, VpcId,
};
use crate::rules::RuleSet;

/// A router between VPCs.
#[derive(Clone, Debug)]
pub struct TransitGateway {
    /// Its name.
    pub name: String,
}

/// One VPC at a transit gateway.
#[derive(Clone, Debug)]
pub struct TransitAttachment {
    /// Its name.
    pub name: String,
    /// The transit gateway.
    pub gateway: TransitGatewayId,
    /// The VPC.
    pub vpc: VpcId,
    /// A subnet for each zone, by the zones' names; at least one.
    pub subnets: Vec<SubnetId>,
    /// The transit gateway's table for what comes from the VPC.
    pub table: TransitTableId,
    /// Whether one zone is chosen for a flow, in both directions (semantics 1d: appliance mode).
    pub appliance_mode: bool,
}

/// A table of a transit gateway.
#[derive(Clone, Debug)]
pub struct TransitTable {
    /// Its name.
    pub name: String,
    /// The transit gateway that it belongs to.
    pub gateway: TransitGatewayId,
    pub(super) routes: JointPrefixMap<IpNet, (TransitTarget, Origin)>,
}

/// Where a transit gateway's route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransitTarget {
    /// To the VPC of this attachment.
    Attachment(TransitAttachmentId),
    /// To nowhere.
    Blackhole,
}

impl TransitTable {
    /// The routes: IPv4 before IPv6, then by address, shorter prefixes first.
    pub fn routes(&self) -> impl Iterator<Item = (IpNet, TransitTarget, Origin)> {
        self.routes.iter().map(|(destination, (target, origin))| (destination, *target, *origin))
    }

    /// The route that decides about an address: the longest prefix.
    pub fn route(&self, address: IpAddr) -> Option<(IpNet, TransitTarget)> {
        let (destination, (target, _)) = self.routes.get_lpm(&IpNet::from(address))?;
        Some((destination, *target))
    }
}

impl Topology {
    /// Where a packet for this address goes that comes to a transit gateway from a VPC.
    pub fn transit_target(
        &self,
        from: TransitAttachmentId,
        destination: IpAddr,
    ) -> Option<TransitTarget> {
        let table = self.transit_attachment(from).table;
        self.transit_table(table).route(destination).map(|(_, target)| target)
    }

    /// Whether a packet that is here can leave its VPC by an attachment: only from a zone in which that
    /// has a subnet, as the clouds have it (AWS, Transit gateway attachments to a VPC; semantics 1d:
    /// `TGW_ATTACH_VPC_AZ_RESTRICTION`).
    pub fn reaches_transit(&self, from: Entry, by: TransitAttachmentId) -> bool {
        let Some(zone) = self.zone(from).filter(|_| self.rules() != RuleSet::Linux) else {
            return true;
        };
        self.transit_attachment(by).subnets.iter().any(|id| self.subnet(*id).zone == zone)
    }

    /// The subnet in which a packet comes into the VPC of an attachment. By itself, traffic stays
    /// in the zone that it comes from; in appliance mode, the flow decides (semantics 1d).
    pub fn transit_subnet(
        &self,
        from: Entry,
        to: TransitAttachmentId,
        choose: &impl Choose,
    ) -> SubnetId {
        let attachment = self.transit_attachment(to);
        let subnets = &attachment.subnets;
        let same_zone = || {
            let zone = self.zone(from)?;
            subnets.iter().position(|id| self.subnet(*id).zone == zone)
        };
        let index = if attachment.appliance_mode {
            choose.zone(to, subnets.len()) % subnets.len()
        } else {
            same_zone().unwrap_or(0)
        };
        subnets[index]
    }
}
