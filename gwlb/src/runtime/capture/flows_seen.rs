//! Which way the flows of a capture go, as the datagrams to and from appliances tell it: packets at
//! the other points do not show their endpoint, their target and their cookie.

use std::collections::HashMap;
use std::net::SocketAddr;

use geneve::{CanonicalKey, FlowKey};

/// Flows that are remembered; with one more, all are forgotten.
const FLOWS: usize = 65_536;
/// Ways of one flow, which may go by several endpoints one after the other.
const WAYS: usize = 4;

/// By which endpoint, to whom, and with which cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeenWay {
    /// The endpoint's id on the wire.
    pub endpoint: u64,
    pub target: SocketAddr,
    pub cookie: u32,
}

/// The flows that were seen.
#[derive(Debug, Default)]
pub(super) struct FlowsSeen(HashMap<CanonicalKey, Vec<SeenWay>>);

impl FlowsSeen {
    /// Learns that a flow went this way.
    pub fn learn(&mut self, flow: &FlowKey, way: SeenWay) {
        if self.0.len() >= FLOWS {
            self.0.clear();
        }
        let ways = self.0.entry(flow.canonical()).or_default();
        if ways.contains(&way) {
            return;
        }
        // A flow that moved has been elsewhere before.
        ways.retain(|known| known.endpoint != way.endpoint);
        ways.truncate(WAYS - 1);
        ways.insert(0, way);
    }

    /// The ways of a flow, the latest first.
    pub fn ways(&self, flow: &FlowKey) -> &[SeenWay] {
        self.0.get(&flow.canonical()).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(endpoint: u64, cookie: u32) -> SeenWay {
        SeenWay { endpoint, target: ([192, 0, 2, 11], 6081).into(), cookie }
    }

    fn flow(port: u32) -> FlowKey {
        let [_, _, high, low] = port.to_be_bytes();
        let src = SocketAddr::from(([10, high, 0, 1], 1000 + u16::from(low)));
        FlowKey::new(src, ([203, 0, 113, 7], (port >> 16) as u16).into(), 6).unwrap()
    }

    #[test]
    fn both_directions_go_the_latest_way_of_each_endpoint() {
        let mut seen = FlowsSeen::default();
        seen.learn(&flow(1), way(1, 5));
        seen.learn(&flow(1).reversed(), way(1, 6));
        seen.learn(&flow(1), way(2, 7));
        seen.learn(&flow(1), way(2, 7));
        assert_eq!(seen.ways(&flow(1).reversed()), [way(2, 7), way(1, 6)]);
        for endpoint in 3..20 {
            seen.learn(&flow(1), way(endpoint, 0));
        }
        assert_eq!(seen.ways(&flow(1)).len(), WAYS);
        assert!(seen.ways(&flow(2)).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = FlowsSeen::default();
        for port in 0..FLOWS as u32 + 10 {
            seen.learn(&flow(port), way(1, 1));
        }
        assert!(seen.0.len() <= FLOWS);
        assert_eq!(seen.ways(&flow(FLOWS as u32 + 9)), [way(1, 1)], "the last is known");
    }
}
