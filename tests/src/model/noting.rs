//! What a packet does to its flow: it begins, goes on, moves, is over.

use std::time::Duration;

use geneve::Stickiness;

use super::flow::{Flow, FlowId, Tcp, Who, is_tcp, word};
use super::guess::guess;
use super::placing::{Case, Plan};
use super::plane::{Judged, Path, Plane};
use super::{Clause, Wrong, hold};

impl Plane {
    /// Notes what a packet has done to its flow. `paths` are those that it may have gone.
    pub(super) fn note(
        &mut self,
        it: &Judged<'_>,
        case: &Case<'_>,
        paths: Vec<Path>,
        now: Duration,
    ) -> Result<(), Wrong> {
        let id = case.id;
        let plan = paths[0].plan.clone();
        let held: Option<Vec<Who>> = paths.iter().map(|path| path.held.clone()).collect();
        if let (Some(held), Some(flow)) = (held, case.found) {
            self.learn(&id, flow, Who::any_of(held));
        }
        let goes: Option<Vec<Who>> = paths.into_iter().map(|path| path.goes).collect();
        let goes = goes.filter(|goes| !goes.is_empty()).map(Who::any_of);
        if let (Some(Who::One(slot)), true) = (&goes, plan.is_choice()) {
            let (set, chosen) = (case.view.set(case.pool_id), case.view.id(*slot));
            let expected = guess(case.view, &id.1, set).unwrap_or(chosen);
            hold(chosen == expected, Clause::Determinism, || {
                format!("{} goes to {chosen:#x}, and by its hash to {expected:#x}", id.1)
            })?;
            self.fleet.choose(&id.1, set, chosen)?;
        }
        match plan {
            Plan::Refuses(_) | Plan::Unknown(_) => {}
            Plan::Resets(_) => {
                if !case.found.is_some_and(Flow::is_closed) {
                    self.books.flows.reset += 1;
                }
                self.close(&id, case.pool().timers.tcp_closed, now);
            }
            Plan::Follows { moves, touches, .. } => {
                if let (true, Some(goes)) = (moves, goes) {
                    self.move_flow(&id, &goes);
                }
                if touches {
                    self.touch(it, case, now);
                }
            }
            Plan::Begins { tracked, adopted, again, .. } => {
                if let (true, Some(who)) = (tracked, goes) {
                    self.begin(it, case, who, (adopted, again), now);
                }
            }
        }
        Ok(())
    }

    /// Now it is seen with whom a flow is.
    fn learn(&mut self, id: &FlowId, before: &Flow, who: Who) {
        if matches!(before.who, Who::OneOf(_)) && before.who != who {
            let view = self.generation(before.worker);
            self.books.gains(&who, view);
            if let Some(flow) = self.flows.get_mut(id) {
                flow.who = who;
            }
        }
    }

    fn move_flow(&mut self, id: &FlowId, to: &Who) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        let worker = flow.worker;
        let before = std::mem::replace(&mut flow.who, to.clone());
        let view = self.generation(worker);
        if before != *to {
            self.books.flows.rebalanced += 1;
            self.books.loses(&before, view);
            self.books.gains(to, view);
        }
    }

    /// A connection is over.
    pub(super) fn close(&mut self, id: &FlowId, patience: Duration, now: Duration) {
        if let Some(flow) = self.flows.get_mut(id) {
            flow.tcp = Some(Tcp::CLOSED);
        }
        self.flows.touch(id, patience, now);
    }

    fn touch(&mut self, it: &Judged<'_>, case: &Case<'_>, now: Duration) {
        let segment = case.segment();
        let keeps_words = self.worker(it.worker).keeps_words;
        let Some(flow) = self.flows.get_mut(&case.id) else { return };
        if let (Some(tcp), Some(segment)) = (&mut flow.tcp, segment) {
            tcp.see(segment);
        }
        let mut patience = case.patience(flow.tcp);
        if case.pool().stickiness == Stickiness::TwoTuple {
            // One flow of all protocols: the ping beside a connection does not shorten its life.
            patience = patience.max(flow.patience);
        }
        if let (true, Some(segment)) = (keeps_words, segment)
            && let Some(word) = word(&case.seen.bytes, &case.seen.inner)
        {
            flow.words[segment.end] = Some(word);
        }
        self.flows.touch(&case.id, patience, now);
    }

    fn begin(
        &mut self,
        it: &Judged<'_>,
        case: &Case<'_>,
        who: Who,
        (adopted, again): (bool, bool),
        now: Duration,
    ) {
        let segment = case.segment();
        let tcp = segment.map(Tcp::begun_by);
        let mut words = [None; 2];
        if let (true, Some(segment)) = (self.worker(it.worker).keeps_words, segment) {
            words[segment.end] = word(&case.seen.bytes, &case.seen.inner);
        }
        let patience = case.patience(tcp);
        let (worker, begun) = (it.worker, case.tuple);
        let flow = Flow { worker, who, tcp, last: now, patience, words, begun, looked_at: 0 };
        let before = self.flows.get(&case.id).map(|flow| flow.who.clone());
        if !again {
            let admitted = self.worker(worker).admits(now);
            let room = before.is_some() || self.flows.count(worker) < self.max_flows;
            if !admitted || !room {
                self.books.flows.untracked += case.seen.segments;
                let limit = if admitted {
                    &mut self.books.flows.table_full
                } else {
                    &mut self.books.flows.too_fast
                };
                *limit += case.seen.segments;
                if is_tcp(&case.seen.inner) {
                    let until = now + case.pool().timers.tcp_idle;
                    self.worker(worker).overloaded.insert(case.id.0, until);
                }
                return;
            }
        }
        let view = self.generation(worker);
        if let Some(before) = before {
            self.books.loses(&before, view);
            let flows = &mut self.books.flows;
            let ended = if again { &mut flows.reopened } else { &mut flows.expired };
            *ended += 1;
        }
        self.books.flows.created += 1;
        self.books.flows.adopted += u64::from(adopted);
        self.books.gains(&flow.who, view);
        self.flows.put(case.id, flow);
    }
}
