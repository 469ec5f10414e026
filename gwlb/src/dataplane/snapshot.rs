//! The data plane's view of the configuration: immutable, complete, and cheap to look things up in.
//!
//! The control plane makes a new one for every change and publishes it; a worker that holds an old
//! one is consistent in itself. Slots and pools keep their numbers for the life of the process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ahash::AHashMap;
use geneve::dialect::{Dialect, Template};
use geneve::flow::{CanonicalKey, FlowKey, Stickiness};
use geneve::header::ProtocolType;
use geneve::inner::{IpVersion, protocol};
use router::{Attachment, EndpointId, Entry, GroupId, Topology};

use super::keys::Keys;
use super::select::{Candidates, TargetId};
use super::stats::{EndpointCounters, EndpointCounts, RoundTrips, TargetCounters};
use super::translate::Translation;
use super::verdict::WorkerId;
use crate::config::{AfterBypass, FlowTimers, TrafficMode, UnknownFlow};
use crate::fault::{self, Fault};

/// A load balancer's node in one zone: an outer address and the targets behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u16);

/// A target's place in [`Snapshot::targets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetSlot(pub u32);

/// Everything that a worker needs to know to decide about packets.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Counts up with every view that is published: workers report which one they hold.
    pub generation: u64,
    /// The routes.
    pub topology: Arc<Topology>,
    /// Counts the topologies: places are numbered anew in each.
    pub topology_epoch: u32,
    /// The topology of the epoch before, if there was one.
    pub earlier_topology: Option<Arc<Topology>>,
    /// The keys of the present epoch.
    pub keys: Keys,
    /// By [`EndpointId`].
    pub endpoints: Vec<EndpointView>,
    /// What is counted for endpoints that are there no more, as long as they have flows; by the id on
    /// the wire.
    pub departed: AHashMap<u64, EndpointCounts>,
    /// By [`router::GroupId`].
    pub groups: Vec<GroupView>,
    /// By [`PoolId`].
    pub pools: Vec<Pool>,
    /// By [`TargetSlot`].
    pub targets: Vec<TargetView>,
    /// The targets at a source address: more than one if several groups or ports share it. A slot
    /// that is vacant is not among them.
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
    /// How many flows a worker takes into its table in a second; 0: as many as come.
    pub max_new_flows_per_second: u32,
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
    /// What happened at it.
    pub counters: EndpointCounts,
}

/// What the data plane knows of a group of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// All of them.
    pub members: Vec<EndpointId>,
    /// Among whom new flows are spread; never empty.
    pub chosen: Candidates<EndpointId>,
    /// Whose flows stay with them, though others may be chosen now.
    pub living: Vec<EndpointId>,
    /// Whose flows the chosen member takes on in their middle, since they are not living and are
    /// configured so (`target_failover.on_unhealthy`).
    pub leaving: Vec<EndpointId>,
}

/// A load balancer's node in one zone.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "switches of the configuration, each by itself")]
pub struct Pool {
    /// The load balancer's name.
    pub load_balancer: String,
    /// The zone.
    pub zone: String,
    /// The outer source address.
    pub address: IpAddr,
    /// What makes two packets the same flow.
    pub stickiness: Stickiness,
    /// How long flows are remembered without a packet.
    pub timers: FlowTimers,
    /// What becomes of a TCP packet without SYN for a flow that is not in the table.
    pub unknown_flow: UnknownFlow,
    /// Whether such a packet is reset whatever `unknown_flow` says
    /// (`send_tcp_reset_on_idle_timeout`).
    pub reset_idle: bool,
    /// Whether a gateway that starts without its flows takes on those that go on.
    pub adopt_after_start: bool,
    /// Whether packets go past the appliances altogether.
    pub traffic_mode: TrafficMode,
    /// Whether TCP is told to send segments that fit on the way to the appliance.
    pub mss_clamp: bool,
    /// Among whom new flows, and those that lose their target, are spread.
    pub candidates: Candidates<TargetSlot>,
    /// What becomes of them when there is no candidate.
    pub none: NoCandidate,
    /// What becomes of a bypassed flow when there is a candidate again.
    pub after_bypass: AfterBypass,
    /// By [`TargetSlot`]: what becomes of the flows that a target has. [`Fate::Stay`] for those
    /// behind the end.
    pub fates: Vec<Fate>,
    /// Whether both ends of a flow are reset at once, rather than who sends the next packet.
    pub reset_both_ends: bool,
    /// What an in-tunnel probe or a ping looks like when it comes back; `None` if the node serves no
    /// endpoint.
    pub probe: Option<TunnelFlow>,
}

/// What becomes of a flow for which there is no target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NoCandidate {
    /// Its packets are dropped.
    #[default]
    Drop,
    /// Its packets go on uninspected.
    Bypass,
}

/// What becomes of the flows that a target has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fate {
    /// They stay with it.
    #[default]
    Stay,
    /// Each moves to a candidate with its next packet.
    Rebalance,
    /// TCP flows are reset and forgotten; others stay.
    Reset(ResetCause),
}

/// Why flows are reset that had a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetCause {
    /// Health checks found it unhealthy.
    Unhealthy,
    /// It was deregistered, and its delay has passed.
    Deregistration,
}

/// The addresses of the packets that probe a path through appliances: UDP from and to `port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelFlow {
    /// Where they seem to come from.
    pub source: IpAddr,
    /// Where they seem to go.
    pub destination: IpAddr,
    /// Both ports.
    pub port: u16,
}

impl TunnelFlow {
    /// Whether `flow` is this one: that of a whole UDP packet, since a fragment's has no ports.
    #[inline]
    pub fn is(&self, flow: &FlowKey) -> bool {
        (flow.src_port(), flow.dst_port()) == (self.port, self.port)
            && flow.protocol() == protocol::UDP
            && (flow.src(), flow.dst()) == (self.source, self.destination)
    }
}

impl Pool {
    /// What becomes of the flows that a target has.
    pub fn fate(&self, target: TargetSlot) -> Fate {
        self.fates.get(target.0 as usize).copied().unwrap_or_default()
    }
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
    /// The largest inner packet that is known to come back from it, in bytes, where probes through
    /// the tunnel have measured it.
    pub usable_mtu: Option<u16>,
    /// The group's dialect.
    pub dialect: &'static Dialect,
    /// The dialect's headers.
    pub templates: Templates,
    /// What was sent and returned, by worker.
    pub counters: Arc<[TargetCounters]>,
    /// How long packets were with it, by worker.
    pub round_trips: Arc<[RoundTrips]>,
}

/// A dialect's Geneve headers for IPv4 and for IPv6, ready for the tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Templates([Template; 2]);

impl Templates {
    /// Those of a dialect.
    pub fn of(dialect: &Dialect) -> Self {
        Self([ProtocolType::IPV4, ProtocolType::IPV6].map(|protocol| dialect.template(protocol)))
    }

    /// The one for packets of this version.
    #[inline]
    pub fn for_version(&self, version: IpVersion) -> &Template {
        match version {
            IpVersion::V4 => &self.0[0],
            IpVersion::V6 => &self.0[1],
        }
    }
}

/// One of so many, by a hash that is uniform: the hash as a fraction, times their number.
#[inline]
fn one_of(many: u16, hash: u32) -> u16 {
    ((u64::from(hash) * u64::from(many)) >> 32) as u16
}

impl TargetView {
    /// The largest inner packet that gets there and back, in bytes: one that fits in an outer
    /// packet, and that the appliance was seen to return where that was tried.
    pub fn inner_mtu(&self) -> u16 {
        let outer = IpVersion::of(self.address.ip());
        let overhead = if fault::on(Fault::MtuWithoutOverhead) {
            0
        } else {
            self.dialect.overhead(outer) as u16
        };
        let fits = self.path_mtu.saturating_sub(overhead);
        self.usable_mtu.map_or(fits, |usable| usable.min(fits))
    }
}

impl Snapshot {
    /// The same view, but whoever decides by this one counts nothing that others see.
    #[must_use]
    pub fn uncounted(&self) -> Self {
        let mut view = self.clone();
        let counters: Arc<[TargetCounters]> =
            (0..self.workers).map(|_| TargetCounters::default()).collect();
        for target in &mut view.targets {
            target.counters = Arc::clone(&counters);
        }
        let endpoints = view.endpoints.iter_mut().map(|endpoint| &mut endpoint.counters);
        for counters in endpoints.chain(view.departed.values_mut()) {
            *counters = EndpointCounts::new(self.workers);
        }
        view
    }

    /// The endpoint with this number.
    pub fn endpoint(&self, id: EndpointId) -> &EndpointView {
        &self.endpoints[id.index()]
    }

    /// What a worker counts for the endpoint with this id on the wire, whose flows may outlive it.
    pub fn endpoint_counters(&self, wire_id: u64, worker: WorkerId) -> Option<&EndpointCounters> {
        let counters = match self.wire_ids.get(&wire_id) {
            Some(endpoint) => &self.endpoint(*endpoint).counters,
            None => self.departed.get(&wire_id)?,
        };
        counters.get(worker.0)
    }

    /// The group of endpoints with this number.
    pub fn group(&self, id: GroupId) -> &GroupView {
        &self.groups[id.index()]
    }

    /// The pool with this number.
    pub fn pool(&self, id: PoolId) -> &Pool {
        &self.pools[usize::from(id.0)]
    }

    /// The target in this slot.
    pub fn target(&self, slot: TargetSlot) -> &TargetView {
        &self.targets[slot.0 as usize]
    }

    /// Whether what resets at both ends need is kept of flows.
    pub fn keeps_ends(&self) -> bool {
        self.pools.iter().any(|pool| pool.reset_both_ends)
    }

    /// Which worker owns a flow, and by which of its source ports the flow goes: the same on every
    /// gateway with the same secret, and at every endpoint, so that a packet that goes through several
    /// has one owner, where their groups agree in stickiness.
    #[inline]
    pub fn share(&self, tuple: &CanonicalKey) -> (WorkerId, u8) {
        self.share_of(self.keys.placement.hash_flow(tuple))
    }

    /// The same for a flow with this hash: the worker by its upper half, by which the kernel chooses,
    /// too ([`netio::tun::steering`]), the port by the lower one.
    #[inline]
    pub(super) fn share_of(&self, hash: u64) -> (WorkerId, u8) {
        let worker = one_of(self.workers, (hash >> 32) as u32);
        let port = one_of(self.source_ports, hash as u32);
        (WorkerId(worker), port as u8)
    }

    /// A place that was numbered in the topology of `epoch`, as it is numbered now: by its name,
    /// and an endpoint by its id on the wire. `None` if it is not there any more, or if it is too
    /// long ago to say.
    pub fn entry(&self, place: Entry, epoch: u32) -> Option<Entry> {
        if epoch == self.topology_epoch || fault::on(Fault::TopologyEpochIgnored) {
            return Some(place);
        }
        let old = self.earlier_topology.as_ref().filter(|_| epoch + 1 == self.topology_epoch)?;
        let new = &self.topology;
        match place {
            Entry::InternetGateway(id) => {
                new.gateway_by_name(&old.gateway(id).name).map(Entry::InternetGateway)
            }
            Entry::Subnet(id) => new.subnet_by_name(&old.subnet(id).name).map(Entry::Subnet),
            Entry::Endpoint(id) => {
                self.wire_ids.get(&old.endpoint(id).wire_id).copied().map(Entry::Endpoint)
            }
            Entry::Interface(_) | Entry::Edge(_) => new.entry(&old.entry_name(place)).ok(),
        }
    }

    /// How packets that enter or leave here are translated, if they are: in every packet that
    /// enters, before it is parsed; in every packet that leaves, as the last thing.
    pub fn translation(&self, at: Attachment) -> Option<&Translation> {
        match at {
            Attachment::InternetGateway(id) => self.translations[id.index()].as_ref(),
            Attachment::Subnet(_) | Attachment::Interface(_) | Attachment::Edge(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::one_of;

    #[test]
    fn hashes_are_shared_out_evenly() {
        for many in [1, 2, 3, 7, 64, 300, u16::MAX] {
            assert_eq!((one_of(many, 0), one_of(many, u32::MAX)), (0, many - 1), "of {many}");
            // Each of them has the hashes from its own fraction up to that of the next.
            for one in 1..u64::from(many) {
                let first = (one << 32).div_ceil(u64::from(many)) as u32;
                let either_side = [first - 1, first].map(|hash| u64::from(one_of(many, hash)));
                assert_eq!(either_side, [one - 1, one], "of {many}");
            }
        }
    }
}
