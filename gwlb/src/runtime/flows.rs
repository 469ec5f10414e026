//! The flows of all workers, for those who look at them: gone through step by step, so that no
//! packet waits for long, however many flows there are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::inquiry::{Inquiry, Served};
use super::shared::Shared;
use crate::dataplane::Ingress;
use crate::dataplane::filter::FlowMatcher;
use crate::dataplane::flow_table::record::FlowRecord;
use crate::dataplane::flow_table::{Flow, FlowNumber, FlowTable};
use crate::dataplane::verdict::WorkerId;

/// The most flows that one answer has.
pub(super) const MOST: usize = 10_000;

/// Flows looked at in one step.
const STEP: usize = 512;

/// A worker answers within this time, whatever comes in: millions of flows take a second or two.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which flows are asked for.
#[derive(Debug, Clone)]
pub(super) struct FlowQuery {
    pub matcher: FlowMatcher,
    pub order: Order,
    /// So many at most, and never more than [`MOST`].
    pub limit: usize,
}

/// In which order, and from where on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As they lie in the tables, from this place on.
    Table(Cursor),
    /// The largest first, or the smallest.
    By(SortKey, Direction),
}

/// Which end of the order comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Largest,
    Smallest,
}

/// What flows are put in order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SortKey {
    Age,
    Idle,
    Packets,
    Bytes,
    /// The time until it is forgotten.
    Expires,
}

impl SortKey {
    pub const ALL: [(&'static str, Self); 5] = [
        ("age", Self::Age),
        ("idle", Self::Idle),
        ("packets", Self::Packets),
        ("bytes", Self::Bytes),
        ("expires", Self::Expires),
    ];
}

/// A place in the tables: a worker, and a flow's number there. Flows that begin or end in between
/// may be missed, or not; none that stays is told twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub worker: u16,
    pub number: u32,
}

/// A flow, as its worker knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeenFlow {
    pub worker: WorkerId,
    pub number: u32,
    pub flow: Flow,
    pub cookie: Option<u32>,
    pub record: Option<FlowRecord>,
    /// From when on the times of the record count.
    pub start: Instant,
}

/// What there is.
#[derive(Debug, Default)]
pub(super) struct FoundFlows {
    pub flows: Vec<SeenFlow>,
    /// Where the tables go on behind these, if they do.
    pub next: Option<Cursor>,
    /// How many there are altogether; known if all were looked at.
    pub matched: Option<u64>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// Too many ask.
    Busy,
    /// The gateway is ending.
    Ending,
    /// A worker did not come to it in time.
    Late,
}

impl Shared {
    /// Looks for flows, in all workers.
    pub async fn find_flows(&self, query: FlowQuery) -> Result<FoundFlows, Unanswered> {
        let limit = query.limit.min(MOST);
        match query.order {
            Order::Table(from) => self.find_in_order(&query.matcher, from, limit).await,
            Order::By(key, direction) => {
                self.find_sorted(&query.matcher, (key, direction), limit).await
            }
        }
    }

    /// How many flows there are.
    pub async fn count_flows(&self, matcher: &FlowMatcher) -> Result<u64, Unanswered> {
        let by = (SortKey::Age, Direction::Largest);
        let found = self.find_sorted(matcher, by, 0).await?;
        Ok(found.matched.unwrap_or_default())
    }

    async fn find_in_order(
        &self,
        matcher: &FlowMatcher,
        from: Cursor,
        limit: usize,
    ) -> Result<FoundFlows, Unanswered> {
        let mut found = FoundFlows::default();
        let workers = self.exchange.inboxes.len();
        for worker in usize::from(from.worker)..workers {
            let at = if worker == usize::from(from.worker) { from.number } else { 0 };
            let limit = limit - found.flows.len();
            let answer = self.ask(worker, |answer| Search {
                worker: WorkerId(worker as u16),
                matcher: matcher.clone(),
                kept: Kept::First(Vec::with_capacity(limit), limit),
                matched: 0,
                next: at as usize,
                answer: Some(answer),
            })?;
            let Answer { flows, next, .. } = answered(answer).await?;
            found.flows.extend(flows);
            if let Some(number) = next {
                found.next = Some(Cursor { worker: worker as u16, number });
                return Ok(found);
            }
        }
        Ok(found)
    }

    async fn find_sorted(
        &self,
        matcher: &FlowMatcher,
        by: (SortKey, Direction),
        limit: usize,
    ) -> Result<FoundFlows, Unanswered> {
        let mut answers = Vec::new();
        for worker in 0..self.exchange.inboxes.len() {
            answers.push(self.ask(worker, |answer| Search {
                worker: WorkerId(worker as u16),
                matcher: matcher.clone(),
                kept: Kept::Best(BinaryHeap::with_capacity(limit), limit, by),
                matched: 0,
                next: 0,
                answer: Some(answer),
            })?);
        }
        let (mut ranked, mut count) = (Vec::new(), 0);
        for answer in answers {
            let answer = answered(answer).await?;
            count += answer.matched;
            ranked.extend(answer.ranks.into_iter().zip(answer.flows));
        }
        ranked.sort_by_key(|(rank, _)| Reverse(*rank));
        ranked.truncate(limit);
        let flows = ranked.into_iter().map(|(_, flow)| flow).collect();
        Ok(FoundFlows { flows, next: None, matched: Some(count) })
    }

    fn ask(
        &self,
        worker: usize,
        search: impl FnOnce(oneshot::Sender<Answer>) -> Search,
    ) -> Result<oneshot::Receiver<Answer>, Unanswered> {
        let (tell, answer) = oneshot::channel();
        let worker = WorkerId(worker as u16);
        self.inquire(worker, Box::new(search(tell))).map_err(|_| Unanswered::Busy)?;
        Ok(answer)
    }
}

async fn answered(answer: oneshot::Receiver<Answer>) -> Result<Answer, Unanswered> {
    let answer = tokio::time::timeout(PATIENCE, answer).await.map_err(|_| Unanswered::Late)?;
    answer.map_err(|_| Unanswered::Ending)
}

/// What one worker has.
#[derive(Debug, Default)]
struct Answer {
    flows: Vec<SeenFlow>,
    /// What they are put in order by, the first first, if they are.
    ranks: Vec<Rank>,
    next: Option<u32>,
    matched: u64,
}

/// Larger ones come first; of equal ones, the earlier in the tables.
type Rank = (u64, Reverse<(u16, u32)>);

/// A question to one worker.
struct Search {
    worker: WorkerId,
    matcher: FlowMatcher,
    kept: Kept,
    matched: u64,
    /// The next number to look at.
    next: usize,
    answer: Option<oneshot::Sender<Answer>>,
}

/// What is kept of the flows that match; never more than there is room for.
enum Kept {
    /// The first so many.
    First(Vec<SeenFlow>, usize),
    /// The so many that are first in an order, the last of them on top.
    Best(BinaryHeap<Reverse<Ranked>>, usize, (SortKey, Direction)),
}

struct Ranked(Rank, SeenFlow);

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl Inquiry for Search {
    fn serve(&mut self, ingress: &Ingress, now: Instant) -> Served {
        if self.answer.as_ref().is_none_or(oneshot::Sender::is_closed) {
            return Served::Entirely;
        }
        let flows = ingress.flows();
        let end = self.next + STEP;
        for number in flows.in_range(self.next..end) {
            if self.is_full() {
                // There may be more from here on.
                return self.tell(Some(number.get()));
            }
            self.look_at(flows, number, now);
        }
        self.next = end;
        if end < flows.numbers() { Served::Partly } else { self.tell(None) }
    }
}

impl Search {
    fn is_full(&self) -> bool {
        matches!(&self.kept, Kept::First(flows, limit) if flows.len() == *limit)
    }

    fn look_at(&mut self, flows: &FlowTable, number: FlowNumber, now: Instant) {
        let flow = flows.get(number);
        let (id, inspector) = (&flow.id, flow.placement.inspector);
        // What has idled out may lie in the table for a while, and is no flow any more.
        if flow.deadline <= now
            || !self.matcher.matches(&id.tuple, id.endpoint, inspector, flow.tcp)
        {
            return;
        }
        self.matched += 1;
        let seen = |record| SeenFlow {
            worker: self.worker,
            number: number.get(),
            flow,
            cookie: flows.cookie(number),
            record,
            start: flows.at(Duration::ZERO),
        };
        match &mut self.kept {
            Kept::First(found, _) => found.push(seen(flows.record(number))),
            Kept::Best(_, 0, _) => {}
            Kept::Best(best, limit, (key, direction)) => {
                let seen = seen(flows.record(number));
                let key = key.of(&seen, now);
                let key = if *direction == Direction::Largest { key } else { u64::MAX - key };
                let ranked = Ranked((key, Reverse((seen.worker.0, seen.number))), seen);
                if best.len() < *limit {
                    best.push(Reverse(ranked));
                } else if let Some(mut last) = best.peek_mut()
                    && last.0 < ranked
                {
                    *last = Reverse(ranked);
                }
            }
        }
    }

    fn tell(&mut self, next: Option<u32>) -> Served {
        let mut answer = Answer { next, matched: self.matched, ..Answer::default() };
        match &mut self.kept {
            Kept::First(found, _) => answer.flows = std::mem::take(found),
            Kept::Best(best, ..) => {
                let best = std::mem::take(best).into_vec();
                (answer.ranks, answer.flows) =
                    best.into_iter().map(|Reverse(Ranked(rank, flow))| (rank, flow)).unzip();
            }
        }
        if let Some(tell) = self.answer.take() {
            // Whoever asked may have gone.
            let _ = tell.send(answer);
        }
        Served::Entirely
    }
}

impl SortKey {
    fn of(self, seen: &SeenFlow, now: Instant) -> u64 {
        let nanos = |duration: Duration| duration.as_nanos() as u64;
        let sum = |of: fn(&crate::dataplane::flow_table::record::Traffic) -> u64| {
            seen.record.map_or(0, |record| record.ends.iter().map(of).sum())
        };
        match self {
            Self::Age => nanos(seen.age(now).unwrap_or_default()),
            Self::Idle => nanos(seen.idle(now).unwrap_or_default()),
            Self::Packets => sum(|end| end.packets),
            Self::Bytes => sum(|end| end.bytes),
            Self::Expires => nanos(seen.flow.deadline.saturating_duration_since(now)),
        }
    }
}

impl SeenFlow {
    /// How long ago it began.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.record.map(|record| self.ago(record.began, now))
    }

    /// How long ago its last packet came.
    pub fn idle(&self, now: Instant) -> Option<Duration> {
        self.record.map(|record| self.ago(record.last(), now))
    }

    /// How long ago a time of its record was.
    pub fn ago(&self, at: Duration, now: Instant) -> Duration {
        now.saturating_duration_since(self.start + at)
    }
}

#[cfg(test)]
mod tests;
