//! The data plane's view of the configuration: immutable, complete, and cheap to look things up in.
//!
//! The control plane makes a new one for every change and publishes it; a worker that holds an old
//! one is consistent in itself. Slots and pools keep their numbers for the life of the process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use geneve::dialect::Dialect;
use geneve::flow::Stickiness;
use router::{Attachment, EndpointId, Topology};

use super::keys::Keys;
use super::select::{Candidate, TargetId};
use super::stats::TargetCounters;
use super::translate::Translation;
use crate::config::UnknownFlow;

/// A load balancer's node in one zone: an outer address and the targets behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u16);

/// A target's place in [`Snapshot::targets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetSlot(pub u32);

/// Everything that a worker needs to know to decide about packets.
#[derive(Debug)]
pub struct Snapshot {
    /// The routes.
    pub topology: Arc<Topology>,
    /// The keys of the present epoch.
    pub keys: Keys,
    /// By [`EndpointId`].
    pub endpoints: Vec<EndpointView>,
    /// By [`PoolId`].
    pub pools: Vec<Pool>,
    /// By [`TargetSlot`].
    pub targets: Vec<TargetView>,
    /// The targets at a source address: more than one if several groups or ports share it.
    pub sources: AHashMap<IpAddr, Vec<TargetSlot>>,
    /// Endpoints by the id that they have on the wire.
    pub wire_ids: AHashMap<u64, EndpointId>,
    /// Where packets can leave, with the MTU there.
    pub attachments: AHashMap<Attachment, u32>,
    /// By [`router::GatewayId`]: the addresses that an internet gateway translates, if any.
    pub translations: Vec<Option<Translation>>,
    /// How many workers share the flows.
    pub workers: u16,
    /// How many source ports each worker has in each pool.
    pub source_ports: u16,
}

/// What the data plane knows of an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointView {
    /// The id in the Geneve option.
    pub wire_id: u64,
    /// The node that serves it: that of its zone.
    pub pool: PoolId,
    /// Its addresses in its subnet: ICMP that the gateway makes comes from here.
    pub addresses: Vec<IpAddr>,
}

/// A load balancer's node in one zone.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The load balancer's name.
    pub load_balancer: String,
    /// The zone.
    pub zone: String,
    /// The outer source address.
    pub address: IpAddr,
    /// What makes two packets the same flow.
    pub stickiness: Stickiness,
    /// After how long without a packet a TCP flow is forgotten.
    pub tcp_idle_timeout: Duration,
    /// The same for everything else.
    pub other_idle_timeout: Duration,
    /// What becomes of a TCP packet without SYN for a flow that is not in the table.
    pub unknown_flow: UnknownFlow,
    /// Among whom new flows are spread.
    pub candidates: Vec<Candidate<TargetSlot>>,
}

/// What the data plane knows of a target.
#[derive(Debug, Clone)]
pub struct TargetView {
    /// Who it is, for placement and cookies.
    pub id: TargetId,
    /// The target group it belongs to.
    pub group: usize,
    /// Where it takes Geneve.
    pub address: SocketAddr,
    /// The largest outer packet on the way there, in bytes: the MTU of the underlay's route.
    pub path_mtu: u16,
    /// The group's dialect.
    pub dialect: &'static Dialect,
    /// What was sent and returned, by worker.
    pub counters: Arc<[TargetCounters]>,
}

impl TargetView {
    /// The largest inner packet that fits in one outer packet, in bytes.
    pub fn inner_mtu(&self) -> u16 {
        let outer = if self.address.is_ipv4() {
            geneve::inner::IpVersion::V4
        } else {
            geneve::inner::IpVersion::V6
        };
        self.path_mtu.saturating_sub(self.dialect.overhead(outer) as u16)
    }
}

impl Snapshot {
    /// The endpoint with this number.
    pub fn endpoint(&self, id: EndpointId) -> &EndpointView {
        &self.endpoints[id.index()]
    }

    /// The pool with this number.
    pub fn pool(&self, id: PoolId) -> &Pool {
        &self.pools[usize::from(id.0)]
    }

    /// The target in this slot.
    pub fn target(&self, slot: TargetSlot) -> &TargetView {
        &self.targets[slot.0 as usize]
    }

    /// How packets that enter or leave here are translated, if they are: in every packet that
    /// enters, before it is parsed; in every packet that leaves, as the last thing.
    pub fn translation(&self, at: Attachment) -> Option<&Translation> {
        match at {
            Attachment::InternetGateway(id) => self.translations[id.index()].as_ref(),
            Attachment::Subnet(_) => None,
        }
    }
}
