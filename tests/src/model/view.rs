//! What a worker knows of the configuration: the view that it holds, read plainly.

use std::sync::Arc;

use geneve::IpVersion;
use gwlb::dataplane::snapshot::{EndpointView, Fate, Pool, PoolId, Snapshot, TargetSlot};
use router::EndpointId;

use super::routes::Routes;

/// Candidates with their weights, by who they are, in order.
pub(super) type Set = Vec<(u64, u16)>;

/// A view, with the routes of the configuration that it was made from.
#[derive(Debug)]
pub(super) struct View {
    pub snapshot: Arc<Snapshot>,
    pub routes: Arc<Routes>,
    /// By pool.
    sets: Vec<Arc<Set>>,
}

/// The smallest MTU that IPv6 knows.
const IPV6_LEAST: u16 = 1280;

impl View {
    pub(super) fn new(snapshot: Arc<Snapshot>, routes: Arc<Routes>) -> View {
        let sets = snapshot.pools.iter().map(|pool| {
            let with_weight = pool.candidates.iter().filter(|it| it.weight > 0);
            let mut set: Set = with_weight.map(|it| (it.id.get(), it.weight)).collect();
            set.sort_unstable();
            Arc::new(set)
        });
        View { sets: sets.collect(), snapshot, routes }
    }

    pub(super) fn endpoint(&self, id: EndpointId) -> &EndpointView {
        &self.snapshot.endpoints[id.index()]
    }

    pub(super) fn pool(&self, id: PoolId) -> &Pool {
        &self.snapshot.pools[usize::from(id.0)]
    }

    /// The node that serves an endpoint of this id on the wire.
    pub(super) fn pool_of(&self, wire_id: u64) -> Option<&Pool> {
        let endpoint = self.snapshot.endpoints.iter().find(|it| it.wire_id == wire_id)?;
        Some(self.pool(endpoint.pool))
    }

    /// Among whom a node spreads new flows.
    pub(super) fn set(&self, pool: PoolId) -> &Arc<Set> {
        &self.sets[usize::from(pool.0)]
    }

    /// Who somebody is, wherever he stands.
    pub(super) fn id(&self, slot: TargetSlot) -> u64 {
        self.snapshot.targets[slot.0 as usize].id.get()
    }

    /// What becomes of the flows of a target.
    pub(super) fn fate(pool: &Pool, slot: TargetSlot) -> Fate {
        pool.fates.get(slot.0 as usize).copied().unwrap_or(Fate::Stay)
    }

    /// The largest packet inside that gets to a target and back: "the path MTU of the underlay less
    /// the outer headers with their options, or less if the tunnel check has measured less. IPv6 is
    /// told of nothing below 1280 bytes".
    pub(super) fn fits(&self, slot: TargetSlot, inside: IpVersion) -> u16 {
        let target = &self.snapshot.targets[slot.0 as usize];
        let outer = if target.address.is_ipv4() { 20 } else { 40 };
        let headers = outer + 8 + target.dialect.header_len();
        let path = target.path_mtu.saturating_sub(headers as u16);
        let fits = target.usable_mtu.unwrap_or(path).min(path);
        if inside == IpVersion::V6 { fits.max(IPV6_LEAST) } else { fits }
    }
}
