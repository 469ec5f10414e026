//! Which flow a later fragment belongs to: only the first fragment of a packet carries ports.
//!
//! One small table for all workers, since a later fragment may be read by another worker than the
//! first. It is bounded in entries and in time, and only fragments ever touch its lock.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use geneve::flow::FlowKey;
use parking_lot::Mutex;
use router::EndpointId;

/// What the fragments of one packet have in common (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FragmentId {
    /// The endpoint that the packet goes through.
    pub endpoint: EndpointId,
    /// The sender.
    pub src: IpAddr,
    /// The receiver.
    pub dst: IpAddr,
    /// The protocol inside.
    pub protocol: u8,
    /// The identification field.
    pub id: u32,
}

/// The packets of which the first fragment was seen a short while ago.
#[derive(Debug)]
pub struct FragmentTable {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    flows: AHashMap<FragmentId, (FlowKey, Instant)>,
    /// In the order of arrival, which is the order of expiry.
    order: VecDeque<(Instant, FragmentId)>,
}

impl FragmentTable {
    /// Packets under way at the same time; the oldest give way.
    pub const LIMIT: usize = 4096;
    /// How long later fragments may take: as long as Linux waits for them
    /// (`net.ipv4.ipfrag_time`, 30 s).
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// A table for at most `limit` packets.
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), inner: Mutex::default() }
    }

    /// Notes to which flow the fragments of a packet belong.
    pub fn first(&self, id: FragmentId, flow: FlowKey, now: Instant) {
        let mut inner = self.inner.lock();
        while let Some(&(seen, oldest)) = inner.order.front()
            && (inner.order.len() >= self.limit || seen + Self::TIMEOUT <= now)
        {
            inner.order.pop_front();
            // A packet that re-used the identification is younger and stays.
            if inner.flows.get(&oldest).is_some_and(|&(_, last)| last == seen) {
                inner.flows.remove(&oldest);
            }
        }
        inner.flows.insert(id, (flow, now));
        inner.order.push_back((now, id));
    }

    /// The flow of a packet whose first fragment was seen.
    pub fn later(&self, id: &FragmentId, now: Instant) -> Option<FlowKey> {
        let inner = self.inner.lock();
        let (flow, seen) = inner.flows.get(id)?;
        (*seen + Self::TIMEOUT > now).then_some(*flow)
    }
}

impl Default for FragmentTable {
    fn default() -> Self {
        Self::new(Self::LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::testing::start;
    use super::*;

    fn id(id: u32) -> FragmentId {
        let src = IpAddr::from([10, 0, 0, 1]);
        let dst = IpAddr::from([10, 0, 0, 2]);
        FragmentId { endpoint: EndpointId::from_index(0), src, dst, protocol: 17, id }
    }

    fn flow(port: u16) -> FlowKey {
        FlowKey::new(
            SocketAddr::from(([10, 0, 0, 1], port)),
            SocketAddr::from(([10, 0, 0, 2], 53)),
            17,
        )
        .unwrap()
    }

    #[test]
    fn later_fragments_find_their_flow_for_a_while() {
        let table = FragmentTable::default();
        let start = start();
        table.first(id(1), flow(1), start);
        assert_eq!(table.later(&id(1), start), Some(flow(1)));
        assert_eq!(table.later(&id(2), start), None);
        assert_eq!(table.later(&id(1), start + FragmentTable::TIMEOUT), None);
    }

    #[test]
    fn a_flood_pushes_out_the_oldest_only() {
        let table = FragmentTable::new(3);
        let start = start();
        for n in 0..5 {
            table.first(id(n), flow(n as u16), start + Duration::from_millis(n.into()));
        }
        let now = start + Duration::from_millis(5);
        let known: Vec<_> = (0..5).filter(|&n| table.later(&id(n), now).is_some()).collect();
        assert_eq!(known, [2, 3, 4]);
        assert_eq!(table.inner.lock().flows.len(), 3, "memory is bounded");
    }

    #[test]
    fn a_reused_identification_belongs_to_the_younger_packet() {
        let table = FragmentTable::new(2);
        let start = start();
        table.first(id(1), flow(1), start);
        table.first(id(1), flow(2), start + Duration::from_secs(1));
        table.first(id(2), flow(3), start + Duration::from_secs(2));
        assert_eq!(table.later(&id(1), start + Duration::from_secs(2)), Some(flow(2)));
    }
}
