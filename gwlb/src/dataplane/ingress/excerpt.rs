//! What an ingress knows that a few packets depend on, taken out: whoever has it can tell what would
//! become of them, with the code that decides it, and without touching what packets go by.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netio::mem::Commit;

use super::{Ingress, IngressConfig};
use crate::dataplane::flow_table::{Flow, FlowId};
use crate::dataplane::fragments::FragmentTable;
use crate::dataplane::ingress::admission::Admission;
use crate::dataplane::reply::RateLimit;
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::WorkerId;

/// Flows that may begin in an ingress that was made of an excerpt: more than one packet begins, in
/// however many fragments it comes.
const ROOM: usize = 1024;

/// What one worker knows of a few flows, and of what begins any.
#[derive(Debug)]
pub struct Excerpt {
    worker: WorkerId,
    /// The view that the worker holds.
    view: Arc<Snapshot>,
    /// Those that are there, and the longest time that each was remembered for.
    flows: Vec<(Flow, Duration)>,
    /// When those began that have a record.
    began: Vec<(FlowId, Instant)>,
    /// How many more its table takes.
    room: usize,
    keeps_ends: bool,
    admission: Admission,
    errors: RateLimit,
    resets: RateLimit,
}

impl Excerpt {
    /// Whose it is.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// The view that the worker held.
    pub fn view(&self) -> &Arc<Snapshot> {
        &self.view
    }

    /// When the flows began, as far as there are records of them.
    pub fn began(&self) -> &[(FlowId, Instant)] {
        &self.began
    }

    /// An ingress that decides about packets of the flows as the worker would now, and counts where
    /// nobody looks: `view` is the worker's [uncounted](Snapshot::uncounted).
    ///
    /// # Errors
    /// If there is no memory for the flows.
    pub fn ingress(
        self,
        view: Arc<Snapshot>,
        fragments: Arc<FragmentTable>,
        now: Instant,
    ) -> io::Result<Ingress> {
        let config = IngressConfig {
            worker: self.worker,
            max_flows: self.flows.len() + self.room.min(ROOM),
            commit: Commit::Lazily,
            records: false,
            log: None,
            fragments,
            stats: Arc::new(WorkerStats::default()),
        };
        let mut ingress = Ingress::new(config, view, now)?;
        let state = &mut ingress.state;
        state.flows.keep_ends(self.keeps_ends);
        for (flow, longest) in self.flows {
            let hash = state.flows.hash(&flow.id);
            // There is room for each.
            let _ = state.flows.insert(flow, longest, hash);
        }
        (state.admission, state.errors, state.resets) = (self.admission, self.errors, self.resets);
        Ok(ingress)
    }
}

impl Ingress {
    /// What is known of these flows, each at an endpoint. Takes as long as looking them up.
    pub fn excerpt(&self, flows: &[FlowId]) -> Excerpt {
        let state = &self.state;
        let mut known: Vec<(Flow, Duration)> = Vec::new();
        let mut began = Vec::new();
        for id in flows {
            let Some(number) = state.flows.look(id, state.flows.hash(id)) else { continue };
            if known.iter().all(|(flow, _)| flow.id != *id) {
                known.push((state.flows.get(number), state.flows.longest(number)));
                let record = state.flows.record(number);
                began.extend(record.map(|record| (*id, state.flows.at(record.began))));
            }
        }
        Excerpt {
            worker: state.worker,
            view: Arc::clone(&self.snapshot),
            flows: known,
            began,
            room: state.flows.room(),
            keeps_ends: state.flows.keeps_ends(),
            admission: state.admission.excerpt(flows.iter().map(|id| id.endpoint)),
            errors: state.errors,
            resets: state.resets,
        }
    }

    /// Packets that were placed without a flow, and those of them for which the table had no room.
    pub(in crate::dataplane) fn untracked(&self) -> (u64, u64) {
        let flows = &self.state.stats.flows;
        (flows.untracked.get(), flows.table_full.get())
    }

    /// The worker whose it is.
    pub fn worker(&self) -> WorkerId {
        self.state.worker
    }
}
