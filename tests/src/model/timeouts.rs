//! What a worker does of its own accord: it forgets flows that have idled out, resets such as have
//! lost their target at both ends, and gives up fragments that have waited for too long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gwlb::config::TrafficMode;
use gwlb::dataplane::snapshot::{Fate, ResetCause};
use gwlb::dataplane::verdict::{DropReason, ReplyCause, WorkerId};
use router::Entry;

use super::flow::{Flow, FlowId, Who};
use super::plane::Plane;
use super::routes::Next;
use super::view::View;
use super::wire::{Numbers, is_host};
use super::worker::OwnReset;
use super::{Clause, Wrong, hold};

impl Plane {
    /// A worker works with another view from now on.
    pub(super) fn take_up(&mut self, id: WorkerId, view: Arc<View>, now: Duration) {
        self.worker(id).take_up(view, now);
        if !self.worker(id).keeps_words {
            let all: Vec<FlowId> = self
                .flows
                .iter()
                .filter(|(_, flow)| flow.worker == id && flow.words != [None; 2])
                .map(|(id, _)| *id)
                .collect();
            for id in all {
                if let Some(flow) = self.flows.get_mut(&id) {
                    flow.words = [None; 2];
                }
            }
        }
    }

    /// Something happens now: what was due before was done.
    pub(super) fn pass(&self, now: Duration) -> Result<(), Wrong> {
        let is_late = |due: Option<Duration>| due.is_some_and(|due| due < now);
        hold(!is_late(self.fragments.due()), Clause::Bounded, || {
            format!("a fragment waits that should have been given up at {:?}", self.fragments.due())
        })?;
        hold(!is_late(self.flows.due()), Clause::Bounded, || {
            format!("a flow should have been looked at, at {:?}", self.flows.due())
        })
    }

    /// A worker does what is due.
    pub(super) fn timeout(&mut self, id: WorkerId, now: Duration) -> Result<(), Wrong> {
        let view = self.view(id)?;
        for (flow_id, flow) in self.flows.look(id, now) {
            self.books.flows.expired += 1;
            self.books.loses(&flow.who, view.snapshot.generation);
            let pool = view.pool_of(flow_id.0);
            let wanted = pool.is_some_and(|pool| pool.reset_idle && pool.reset_both_ends);
            if wanted && !flow.is_closed() {
                self.reset_ends(&view, id, &flow_id, &flow, ReplyCause::IdleTimeout);
            }
        }
        if std::mem::take(&mut self.worker(id).sweeps) {
            self.sweep(&view, id, now);
        }
        for waiting in self.fragments.give_up(now) {
            let ledger = self.books.ledger(waiting.from.side);
            ledger.flow.released += 1;
            ledger.drop(DropReason::FragmentWithoutFirst, 1);
        }
        Ok(())
    }

    /// "With `both_ends = true` both ends of a connection are reset at once, without waiting for a
    /// packet (if they have sent any since it was turned on)"
    fn sweep(&mut self, view: &View, id: WorkerId, now: Duration) {
        let lost = self.flows.iter().filter(|(_, flow)| flow.worker == id);
        let lost = lost.filter_map(|(flow_id, flow)| {
            let (cause, closed) = loses(view, flow_id, flow, now)?;
            Some((*flow_id, flow.clone(), cause, closed))
        });
        for (flow_id, flow, cause, closed) in lost.collect::<Vec<_>>() {
            self.reset_ends(view, id, &flow_id, &flow, ReplyCause::TargetGone(cause));
            // "An end that has not is reset at its next packet"
            if flow.words.contains(&None) && flow.tcp.is_some_and(|tcp| tcp.answered) {
                if let Some(flow) = self.flows.get_mut(&flow_id) {
                    flow.words = [None; 2];
                }
                continue;
            }
            self.books.flows.reset += 1;
            self.close(&flow_id, closed, now);
        }
    }

    /// Both ends of a connection are reset, as far as anything was seen of them.
    fn reset_ends(
        &mut self,
        view: &View,
        worker: WorkerId,
        id: &FlowId,
        flow: &Flow,
        cause: ReplyCause,
    ) {
        let Some(endpoint) = view.routes.endpoint(id.0) else { return };
        let ends: [SocketAddr; 2] = id.1.ends();
        for (end, word) in flow.words.iter().enumerate() {
            let (to, from) = (ends[end], ends[1 - end]);
            let Some(word) = word else { continue };
            if !is_host(to.ip()) || !is_host(from.ip()) {
                continue;
            }
            if let Next::Deliver(at) = view.routes.next(Entry::Endpoint(endpoint), to.ip()) {
                let numbers = Numbers::obeyed_after(*word);
                self.worker(worker).replies.push(OwnReset { at, from, to, numbers, cause });
            }
        }
    }
}

/// Whether a connection that goes on has lost its target, and both its ends are to know.
fn loses(view: &View, id: &FlowId, flow: &Flow, now: Duration) -> Option<(ResetCause, Duration)> {
    let pool = view.pool_of(id.0)?;
    let goes_on = flow.tcp.is_some() && !flow.is_closed() && flow.is_alive(now);
    let inspected = pool.traffic_mode != TrafficMode::Bypass;
    if !goes_on || !inspected || !pool.reset_both_ends {
        return None;
    }
    let causes = flow.who.each().into_iter().map(|who| match who {
        Who::One(slot) => match View::fate(pool, slot) {
            Fate::Reset(cause) => Some(cause),
            _ => None,
        },
        _ => None,
    });
    let causes: Option<Vec<_>> = causes.collect();
    Some((*causes?.first()?, pool.timers.tcp_closed))
}
