//! Whether more flows begin than the workers take in: noticed once a second from their counters.

use std::time::{Duration, Instant};

use super::{FloodLimit, GatewayEvent};
use crate::dataplane::stats::FlowTableCounters;

/// A flood is over when no flow was turned away for this long; so it is told at most once in that
/// time.
const QUIET: Duration = Duration::from_secs(5);

/// What is known of the floods of all workers.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Floods(Vec<[Limit; 2]>);

/// What is known of one limit of one worker.
#[derive(Debug, Default, Clone, Copy)]
struct Limit {
    /// Packets of flows that were turned away, at the last look.
    counted: u64,
    flood: Option<Flood>,
}

/// A flood that goes on.
#[derive(Debug, Clone, Copy)]
struct Flood {
    began: Instant,
    /// When it was last seen that flows are turned away.
    seen: Instant,
    /// What was counted when it began.
    before: u64,
}

impl Floods {
    /// Looks at the counters of a worker, and says what has begun or is over.
    pub fn look(
        &mut self,
        worker: usize,
        counters: &FlowTableCounters,
        now: Instant,
    ) -> impl Iterator<Item = GatewayEvent> {
        if self.0.len() <= worker {
            self.0.resize(worker + 1, Default::default());
        }
        // Each has a counter of its own: between two, a worker may be about to count the same packet.
        let limits = [
            (FloodLimit::NewFlowsPerSecond, counters.too_fast.get()),
            (FloodLimit::FlowTable, counters.table_full.get()),
        ];
        let known = self.0[worker].iter_mut();
        let looked = known.zip(limits).map(move |(known, (limit, counted))| {
            known.look(counted, now).map(|change| change.event(worker, limit))
        });
        looked.collect::<Vec<_>>().into_iter().flatten()
    }
}

/// A flood has begun, or is over.
enum Change {
    Begun,
    Over { packets: u64, lasted: Duration },
}

impl Change {
    fn event(self, worker: usize, limit: FloodLimit) -> GatewayEvent {
        match self {
            Self::Begun => GatewayEvent::FloodBegun { worker, limit },
            Self::Over { packets, lasted } => {
                GatewayEvent::FloodOver { worker, limit, packets, seconds: lasted.as_secs_f64() }
            }
        }
    }
}

impl Limit {
    fn look(&mut self, counted: u64, now: Instant) -> Option<Change> {
        let before = std::mem::replace(&mut self.counted, counted);
        let more = counted > before;
        match &mut self.flood {
            None if more => {
                self.flood = Some(Flood { began: now, seen: now, before });
                Some(Change::Begun)
            }
            Some(flood) if more => {
                flood.seen = now;
                None
            }
            Some(flood) if now.saturating_duration_since(flood.seen) >= QUIET => {
                let packets = counted.saturating_sub(flood.before);
                let lasted = flood.seen.saturating_duration_since(flood.began);
                self.flood = None;
                Some(Change::Over { packets, lasted })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn a_flood_is_told_when_it_begins_and_when_it_is_over() {
        let (mut floods, counters) = (Floods::default(), FlowTableCounters::default());
        let start = clock::now();
        let mut look = |second: u64| {
            floods.look(1, &counters, start + Duration::from_secs(second)).collect::<Vec<_>>()
        };
        assert_eq!(look(0), []);
        counters.too_fast.add(7);
        let limit = FloodLimit::NewFlowsPerSecond;
        assert_eq!(look(1), [GatewayEvent::FloodBegun { worker: 1, limit }]);
        counters.too_fast.add(2);
        assert_eq!(look(2), [], "it is told once");
        // The table fills while flows still come too fast.
        counters.too_fast.add(1);
        counters.table_full.add(9);
        let full = FloodLimit::FlowTable;
        assert_eq!(look(4), [GatewayEvent::FloodBegun { worker: 1, limit: full }]);
        assert_eq!(look(8), [], "a pause is no end");
        let over = |limit, packets, seconds| GatewayEvent::FloodOver {
            worker: 1,
            limit,
            packets,
            seconds,
        };
        assert_eq!(look(9), [over(limit, 10, 3.0), over(full, 9, 0.0)]);
        assert_eq!(look(20), []);
        counters.too_fast.add(1);
        assert_eq!(look(21), [GatewayEvent::FloodBegun { worker: 1, limit }]);
    }

    #[test]
    fn a_full_table_is_no_flood_of_the_other_kind_while_a_packet_is_being_counted() {
        let (mut floods, counters) = (Floods::default(), FlowTableCounters::default());
        let mut look = || floods.look(0, &counters, clock::now()).collect::<Vec<_>>();
        // The worker has counted the packet, and not yet why.
        counters.untracked.add(1);
        assert_eq!(look(), []);
        counters.table_full.add(1);
        let limit = FloodLimit::FlowTable;
        assert_eq!(look(), [GatewayEvent::FloodBegun { worker: 0, limit }]);
    }

    #[test]
    fn each_worker_has_its_own() {
        let mut floods = Floods::default();
        let [calm, flooded] = [FlowTableCounters::default(), FlowTableCounters::default()];
        flooded.table_full.add(1);
        assert_eq!(floods.look(0, &calm, clock::now()).count(), 0);
        let limit = FloodLimit::FlowTable;
        let told: Vec<_> = floods.look(1, &flooded, clock::now()).collect();
        assert_eq!(told, [GatewayEvent::FloodBegun { worker: 1, limit }]);
    }
}
