//! An endpoint's counters, worker by worker.

use std::sync::Arc;

use crossbeam::utils::CachePadded;

use super::{EndpointCounters, EndpointTotals};

/// An endpoint's counters: one set for each worker, in cache lines of its own, since with a single
/// endpoint every packet of every worker is counted here.
#[derive(Debug, Clone)]
pub struct EndpointCounts(Arc<[Arc<CachePadded<EndpointCounters>>]>);

impl EndpointCounts {
    /// Of an endpoint that has seen nothing.
    pub fn new(workers: u16) -> Self {
        Self((0..workers).map(|_| Arc::default()).collect())
    }

    /// A worker's own; a worker that is not there counts for nobody.
    pub fn of(&self, worker: u16) -> Arc<CachePadded<EndpointCounters>> {
        self.0.get(usize::from(worker)).cloned().unwrap_or_default()
    }

    /// A worker's own, for one addition.
    pub fn get(&self, worker: u16) -> Option<&EndpointCounters> {
        self.0.get(usize::from(worker)).map(|counters| &***counters)
    }

    /// The sums over workers.
    pub fn totals(&self) -> EndpointTotals {
        let mut totals = EndpointTotals::default();
        self.0.iter().for_each(|counters| totals.add(counters));
        totals
    }
}
