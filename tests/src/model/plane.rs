//! The naive data plane: one list of flows, and a verdict for every packet.
//!
//! Where the design leaves a choice (which candidate, which worker, which source port), what the
//! gateway did is taken, if it is among what it may do and agrees with what it did before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use geneve::{Fragment, Tags};
use gwlb::dataplane::snapshot::{PoolId, TargetSlot};
use gwlb::dataplane::verdict::{
    Change as Changed, DropReason, Hop, Origin, ReplyCause, Side, WorkerId,
};
use netio::offload::Offload;
use router::{Attachment, EndpointId, Entry};

use super::books::{Books, briefly};
use super::fleet::Fleet;
use super::flow::{Flow, FlowId, Flows, Tcp, Who, is_tcp, word};
use super::fragments::{Fragments, Waiting, packet_id, reaches_too_far};
use super::placing::{Case, Change, Plan};
use super::routes::Next;
use super::seen::Seen;
use super::tuple::Tuple;
use super::view::View;
use super::wire::{Numbers, hold_reset, hold_too_big, may_be_reset, may_be_told};
use super::worker::Worker;
use super::{Clause, Wrong, hold, wrong};
use crate::gateway::journal::Judgement;

/// A packet that a worker has judged.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    pub worker: WorkerId,
    pub origin: Origin,
    pub handed_over: bool,
    pub released: bool,
    pub packet: &'a [u8],
    pub offload: &'a Offload,
    pub verdict: &'a Judgement,
}

/// The data plane of one gateway.
#[derive(Debug)]
pub(super) struct Plane {
    pub flows: Flows,
    /// Who owns a flow, and from which of its ports it sends that: for ever.
    lots: BTreeMap<FlowId, Lot>,
    pub workers: Vec<Worker>,
    pub fragments: Fragments,
    pub books: Books,
    pub fleet: Fleet,
    max_flows: usize,
}

#[derive(Debug, Clone, Copy)]
struct Lot {
    owner: WorkerId,
    port: Option<u16>,
}

/// What has to become of a packet.
#[derive(Debug, Clone)]
enum Expected {
    ToAppliance { id: FlowId, pool: PoolId, slot: TargetSlot, change: Change },
    Deliver(Attachment),
    Bypass(Attachment),
    HandOver(WorkerId, Origin),
    Held,
    TooBig { to: Attachment, endpoint: EndpointId, fits: u16 },
    Reset { to: Attachment, cause: ReplyCause },
    Drop(DropReason),
}

/// What becomes of a packet at an endpoint.
enum Stage {
    Passes,
    Ends(Expected),
}

/// One way that is open to a packet.
struct Path {
    /// Who has its flow, if anybody does.
    held: Option<Who>,
    plan: Plan,
    /// Who gets it.
    goes: Option<Who>,
    /// What that looks like; nothing: it goes past this endpoint.
    expected: Option<Expected>,
}

/// How many endpoints a packet may bypass.
const MOST_BYPASSED: usize = 8;

impl Plane {
    pub(super) fn new(workers: u16, max_flows: usize, fleet: Fleet) -> Plane {
        Plane {
            flows: Flows::default(),
            lots: BTreeMap::new(),
            workers: (0..workers).map(|_| Worker::new()).collect(),
            fragments: Fragments::default(),
            books: Books::default(),
            fleet,
            max_flows,
        }
    }

    pub(super) fn worker(&mut self, id: WorkerId) -> &mut Worker {
        &mut self.workers[usize::from(id.0)]
    }

    /// The view that a worker works with.
    pub(super) fn view(&self, id: WorkerId) -> Result<Arc<View>, Wrong> {
        let view = self.workers[usize::from(id.0)].view.clone();
        view.ok_or_else(|| Wrong::new(Clause::Conservation, format!("worker {} has no view", id.0)))
    }

    /// Judges a packet, and holds that the gateway has judged alike.
    pub(super) fn judge(&mut self, it: &Judged<'_>, now: Duration) -> Result<(), Wrong> {
        let Some(seen) = Seen::of(it.packet, it.offload) else {
            return wrong(Clause::Conservation, || "what is no packet was judged".to_owned());
        };
        let view = self.view(it.worker)?;
        self.arrive(it, &seen, &view)?;
        let mut origin = it.origin;
        let mut bypassed = 0;
        let expected = loop {
            match view.routes.next(origin.at, seen.inner.dst) {
                _ if bypassed > MOST_BYPASSED => break Expected::Drop(DropReason::RoutingLoop),
                Next::Drop(reason) => break Expected::Drop(reason),
                Next::Deliver(to) if bypassed > 0 => break Expected::Bypass(to),
                Next::Deliver(to) => break Expected::Deliver(to),
                Next::Endpoint(endpoint) => {
                    match self.balance(it, &seen, &view, (endpoint, origin), now)? {
                        Stage::Ends(expected) => break expected,
                        Stage::Passes => origin.at = Entry::Endpoint(endpoint),
                    }
                }
            }
            bypassed += 1;
        };
        self.hold_alike(it, &seen, &view, &expected)?;
        self.count(it, &seen, &view, expected, now)
    }

    /// What becomes of a packet at an endpoint; what it does to flows is noted.
    fn balance(
        &mut self,
        it: &Judged<'_>,
        seen: &Seen,
        view: &Arc<View>,
        (endpoint, origin): (EndpointId, Origin),
        now: Duration,
    ) -> Result<Stage, Wrong> {
        let ends = |expected| Ok(Stage::Ends(expected));
        let (wire_id, pool_id) = (view.endpoint(endpoint).wire_id, view.endpoint(endpoint).pool);
        let tuple = match self.tuple(it, seen, view, (wire_id, origin), now) {
            Ok(Some(tuple)) => tuple,
            Ok(None) => return ends(Expected::Held),
            Err(reason) => return ends(Expected::Drop(reason)),
        };
        let id: FlowId = (wire_id, tuple.sticky(view.pool(pool_id).stickiness));
        let owner = self.owner(id, it, origin)?;
        if owner != it.worker {
            return ends(Expected::HandOver(owner, origin));
        }
        self.fragments.notice(&seen.inner);

        let found = self.flows.get(&id).filter(|flow| flow.is_alive(now)).cloned();
        let overloaded = self.worker(owner).overloaded.get(&wire_id).copied();
        let found = found.as_ref();
        let case = Case { view, pool_id, id, tuple, seen, now, found, overloaded };
        let mut paths = Vec::new();
        for held in case.found.map_or(vec![None], |flow| flow.who.each().into_iter().map(Some).collect()) {
            let plan = case.plan(held.as_ref());
            self.add_paths(it, &case, endpoint, held, plan, &mut paths);
        }
        let first = paths[0].expected.clone();
        paths.retain(|path| {
            path.expected.as_ref().is_none_or(|expected| self.is_alike(it, expected, &case))
        });
        if paths.is_empty() {
            // None of them: say so with the first. The packet has reached this endpoint for sure.
            return Ok(first.map_or(Stage::Passes, Stage::Ends));
        }
        if paths.len() > 1
            && let Some(known) = self.fleet.chosen(&id.1, view.set(pool_id))
        {
            let is_known = |path: &Path| match (&path.goes, path.plan.is_choice()) {
                (Some(Who::One(slot)), true) => view.id(*slot) == known,
                _ => true,
            };
            if paths.iter().any(is_known) {
                paths.retain(is_known);
            }
        }
        let expected = paths[0].expected.clone();
        self.note(it, &case, paths, now)?;
        Ok(expected.map_or(Stage::Passes, Stage::Ends))
    }

    /// The tuple that decides to which flow a packet belongs: its own, that of its first fragment,
    /// or that of the packet that an ICMP error is about. `None`: it waits for its first fragment.
    fn tuple(
        &mut self,
        it: &Judged<'_>,
        seen: &Seen,
        view: &Arc<View>,
        (endpoint, from): (u64, Origin),
        now: Duration,
    ) -> Result<Option<Tuple>, DropReason> {
        let inner = &seen.inner;
        if reaches_too_far(inner) {
            self.fragments.hostile.too_long += 1;
            return Err(DropReason::MalformedPacket);
        }
        match inner.fragment {
            Fragment::Whole => {
                Ok(Some(Tuple::about(inner).unwrap_or_else(|| Tuple::of(inner))))
            }
            Fragment::First { id } => {
                let flow = Tuple::with_ports(inner).unwrap_or_else(|| Tuple::of(inner));
                if !it.handed_over {
                    let ready = self.fragments.first(packet_id(endpoint, inner, id), flow, now);
                    self.release(it.worker, ready, view);
                }
                Ok(Some(flow))
            }
            Fragment::Later { id, .. } => {
                let id = packet_id(endpoint, inner, id);
                if let Some(flow) = self.fragments.later(&id, now) {
                    return Ok(Some(flow));
                }
                let packet = seen.bytes.clone();
                let waiting = Waiting { id, since: now, from, view: Arc::clone(view), packet };
                let held = self.fragments.hold(waiting);
                if held { Ok(None) } else { Err(DropReason::FragmentQueueFull) }
            }
        }
    }

    /// Fragments wait no longer; where one came from may be gone.
    fn release(&mut self, worker: WorkerId, ready: Vec<Waiting>, view: &View) {
        for waiting in ready {
            let ledger = self.books.ledger(waiting.from.side);
            ledger.flow.released += 1;
            match place_now(waiting.from.at, &waiting.view, view) {
                Some(at) => {
                    let from = Origin { at, ..waiting.from };
                    self.worker(worker).released.push_back((from, waiting.packet));
                }
                None => ledger.drop(DropReason::Reconfigured, 1),
            }
        }
    }

    /// Who owns a flow: whoever is seen to take it first, and for ever then.
    fn owner(&mut self, id: FlowId, it: &Judged<'_>, origin: Origin) -> Result<WorkerId, Wrong> {
        let taker = match it.verdict {
            Judgement::HandOver(to, from) if *from == origin => *to,
            _ => it.worker,
        };
        hold(usize::from(taker.0) < self.workers.len(), Clause::Symmetry, || {
            format!("{} is handed over to worker {}, which is not there", id.1, taker.0)
        })?;
        let lot = *self.lots.entry(id).or_insert(Lot { owner: taker, port: None });
        hold(lot.owner == taker, Clause::Symmetry, || {
            format!("{} belongs to worker {}, and worker {} takes it", id.1, lot.owner.0, taker.0)
        })?;
        Ok(lot.owner)
    }

    fn add_paths(
        &mut self,
        it: &Judged<'_>,
        case: &Case<'_>,
        endpoint: EndpointId,
        held: Option<Who>,
        plan: Plan,
        paths: &mut Vec<Path>,
    ) {
        let expected = match &plan {
            Plan::Refuses(reason) => Expected::Drop(*reason),
            Plan::Resets(cause) => {
                let cause = ReplyCause::TargetGone(*cause);
                self.reset_or_drop(it, case, cause, DropReason::TargetGone)
            }
            Plan::Unknown(cause) => {
                self.reset_or_drop(it, case, *cause, DropReason::UnknownTcpFlow)
            }
            Plan::Follows { .. } | Plan::Begins { .. } => {
                for goes in plan.among() {
                    let expected = match goes {
                        Who::One(slot) => Some(self.towards(it, case, endpoint, *slot)),
                        _ => None,
                    };
                    let (held, plan) = (held.clone(), plan.clone());
                    paths.push(Path { held, plan, goes: Some(goes.clone()), expected });
                }
                return;
            }
        };
        paths.push(Path { held, plan, goes: None, expected: Some(expected) });
    }

    /// What becomes of a packet for this target.
    fn towards(
        &mut self,
        it: &Judged<'_>,
        case: &Case<'_>,
        endpoint: EndpointId,
        slot: TargetSlot,
    ) -> Expected {
        let change = case.change(slot);
        let Change::TooBig(fits) = change else {
            let (id, pool) = (case.id, case.pool_id);
            return Expected::ToAppliance { id, pool, slot, change };
        };
        let told = back_to(it, case).filter(|_| may_be_told(&case.seen.inner));
        let Some(to) = told else { return Expected::Drop(DropReason::ExceedsMtu) };
        if self.worker(it.worker).errors.has_one(case.now) {
            Expected::TooBig { to, endpoint, fits }
        } else {
            Expected::Drop(DropReason::ExceedsMtu)
        }
    }

    fn reset_or_drop(
        &mut self,
        it: &Judged<'_>,
        case: &Case<'_>,
        cause: ReplyCause,
        otherwise: DropReason,
    ) -> Expected {
        let told = back_to(it, case).filter(|_| may_be_reset(&case.seen.inner));
        let Some(to) = told else { return Expected::Drop(otherwise) };
        // Of a flow that was taken in there is one reset for each packet, and then it is over.
        let limited = !matches!(cause, ReplyCause::TargetGone(_));
        if limited && !self.worker(it.worker).resets.has_one(case.now) {
            return Expected::Drop(otherwise);
        }
        Expected::Reset { to, cause }
    }

    /// Notes what a packet has done to its flow. `paths` are those that it may have gone.
    fn note(
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
                    self.move_flow(&id, goes);
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
            self.books.gains(&who);
            if let Some(flow) = self.flows.get_mut(id) {
                flow.who = who;
            }
        }
    }

    fn move_flow(&mut self, id: &FlowId, to: Who) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        let before = std::mem::replace(&mut flow.who, to.clone());
        if before != to {
            self.books.flows.rebalanced += 1;
            self.books.loses(&before);
            self.books.gains(&to);
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
        if case.pool().stickiness == geneve::Stickiness::TwoTuple {
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
        let flow =
            Flow { worker, who, tcp, last: now, patience, words, begun, looked_at: 0 };
        let before = self.flows.get(&case.id).map(|flow| flow.who.clone());
        if !again {
            let admitted = self.worker(worker).admits(now);
            let room = before.is_some() || self.flows.count(worker) < self.max_flows;
            if !admitted || !room {
                self.books.flows.untracked += case.seen.segments;
                if is_tcp(&case.seen.inner) {
                    let until = now + case.pool().timers.tcp_idle;
                    self.worker(worker).overloaded.insert(case.id.0, until);
                }
                return;
            }
        }
        if let Some(before) = before {
            self.books.loses(&before);
            let flows = &mut self.books.flows;
            let ended = if again { &mut flows.reopened } else { &mut flows.expired };
            *ended += 1;
        }
        self.books.flows.created += 1;
        self.books.flows.adopted += u64::from(adopted);
        self.books.gains(&flow.who);
        self.flows.put(case.id, flow);
    }

    /// Whether a verdict is what is expected, as far as it can be told without doing it.
    fn is_alike(&self, it: &Judged<'_>, expected: &Expected, case: &Case<'_>) -> bool {
        match (expected, it.verdict) {
            (Expected::ToAppliance { slot, change, .. }, Judgement::ToAppliance(hop)) => {
                hop.target == *slot && *change == changed(hop)
            }
            (Expected::TooBig { to, endpoint, fits }, Judgement::Reply { .. }) => {
                self.hold_answer(it, case.seen, case.view, &Expected::TooBig {
                    to: *to,
                    endpoint: *endpoint,
                    fits: *fits,
                })
                .is_ok()
            }
            (Expected::Reset { to, cause }, Judgement::Reply { to: went, cause: why, .. }) => {
                (to, cause) == (went, why)
            }
            (Expected::Drop(reason), Judgement::Drop(dropped)) => reason == dropped,
            _ => false,
        }
    }

    /// Holds that an answer is the one that is expected.
    fn hold_answer(
        &self,
        it: &Judged<'_>,
        seen: &Seen,
        view: &View,
        expected: &Expected,
    ) -> Result<(), Wrong> {
        let Judgement::Reply { to: went, packet, cause: why } = it.verdict else {
            return self.differs(it, view, expected);
        };
        let inner = &seen.inner;
        match expected {
            Expected::TooBig { to, endpoint, fits } => {
                let right = (to, &ReplyCause::PacketTooBig) == (went, why);
                hold(right, Clause::Conservation, || format!("{:?} is expected", expected))?;
                let addresses = &view.endpoint(*endpoint).addresses;
                let mut of_family = addresses.iter().filter(|it| it.is_ipv4() == inner.dst.is_ipv4());
                let from = of_family.next().copied().unwrap_or(inner.dst);
                hold_too_big(packet, &seen.bytes, inner, from, *fits)
            }
            Expected::Reset { to, cause } => {
                hold((to, cause) == (went, why), Clause::Conservation, || {
                    format!("{expected:?} is expected")
                })?;
                let (src, dst) = inner.ports().unwrap_or_default();
                let numbers = Numbers::answering(&seen.bytes, inner);
                hold_reset(packet, (inner.dst, dst), (inner.src, src), numbers)
            }
            _ => self.differs(it, view, expected),
        }
    }

    /// Holds that the verdict is the one that is expected.
    fn hold_alike(
        &self,
        it: &Judged<'_>,
        seen: &Seen,
        view: &View,
        expected: &Expected,
    ) -> Result<(), Wrong> {
        let alike = match (expected, it.verdict) {
            (Expected::ToAppliance { slot, change, .. }, Judgement::ToAppliance(hop)) => {
                hop.target == *slot && *change == changed(hop)
            }
            (Expected::Deliver(to), Judgement::Deliver(went))
            | (Expected::Bypass(to), Judgement::Bypass(went)) => to == went,
            (Expected::HandOver(to, from), Judgement::HandOver(went, origin)) => {
                (to, from) == (went, origin)
            }
            (Expected::Held, Judgement::Held) => true,
            (Expected::Drop(reason), Judgement::Drop(dropped)) => reason == dropped,
            (Expected::TooBig { .. } | Expected::Reset { .. }, _) => {
                return self.hold_answer(it, seen, view, expected);
            }
            _ => false,
        };
        if alike { Ok(()) } else { self.differs(it, view, expected) }
    }

    /// The gateway has judged otherwise: which clause is that against?
    fn differs(&self, it: &Judged<'_>, view: &View, expected: &Expected) -> Result<(), Wrong> {
        let clause = match (expected, it.verdict) {
            (_, Judgement::Bypass(_) | Judgement::Deliver(_)) => Clause::NoUninspectedPath,
            (Expected::ToAppliance { .. }, Judgement::ToAppliance(_)) => self.moved_against(it, view),
            (Expected::HandOver(..), _) | (_, Judgement::HandOver(..)) => Clause::Symmetry,
            (Expected::Drop(DropReason::FragmentQueueFull), _) => Clause::Bounded,
            _ => Clause::Conservation,
        };
        wrong(clause, || {
            format!("{expected:?} is expected, and the verdict is {}", briefly(it.verdict))
        })
    }

    /// A packet goes to another target than expected: the first direction of its flow, whole, tells
    /// that the flow has moved; anything else, that it does not stay with its flow.
    fn moved_against(&self, it: &Judged<'_>, _view: &View) -> Clause {
        let Some(seen) = Seen::of(it.packet, it.offload) else { return Clause::Stability };
        let own = Tuple::of(&seen.inner);
        let same_way = |flow: &Flow| flow.begun == own;
        let begun_so = self.flows.iter().any(|(_, flow)| same_way(flow));
        if begun_so { Clause::Stability } else { Clause::Symmetry }
    }

    /// Notes where a packet comes from, and holds that it may come from there.
    fn arrive(&mut self, it: &Judged<'_>, seen: &Seen, view: &Arc<View>) -> Result<(), Wrong> {
        let segments = seen.segments;
        let side = it.origin.side;
        let is = |right: bool, what: &str| hold(right, Clause::Conservation, || what.to_owned());
        if it.released {
            let Some((from, packet)) = self.worker(it.worker).released.pop_front() else {
                return is(false, "a fragment was released that did not wait");
            };
            return is((from, packet) == (it.origin, seen.bytes.clone()), "another fragment was due");
        }
        if it.handed_over {
            self.books.ledger(side).flow.taken_over += segments;
            let Some(handed) = self.worker(it.worker).inbox.pop_front() else {
                return is(false, "a packet was taken over that nobody has handed over");
            };
            is(handed.packet == seen.bytes, "another packet was handed over before this one")?;
            let at = place_now(handed.from.at, &handed.view, view);
            return is(
                at == Some(it.origin.at) && handed.from.side == side,
                "it was handed over as coming from elsewhere",
            );
        }
        if let Some(onward) = self.worker(it.worker).onward.take() {
            return is(onward == (it.origin, seen.bytes.clone()), "what came back goes on first");
        }
        let enters = side == Side::Tun && !matches!(it.origin.at, Entry::Endpoint(_));
        is(enters, "it comes from nowhere")?;
        self.books.tun.flow.received += segments;
        Ok(())
    }

    /// Notes where a packet goes.
    fn count(
        &mut self,
        it: &Judged<'_>,
        seen: &Seen,
        view: &Arc<View>,
        expected: Expected,
        now: Duration,
    ) -> Result<(), Wrong> {
        let segments = seen.segments;
        let ledger = self.books.ledger(it.origin.side);
        match expected {
            Expected::Drop(reason) => ledger.drop(reason, segments),
            Expected::Held => ledger.flow.held += segments,
            Expected::Deliver(to) | Expected::Bypass(to) => {
                let bypass = matches!(expected, Expected::Bypass(_));
                let counter =
                    if bypass { &mut ledger.flow.bypassed } else { &mut ledger.flow.delivered };
                *counter += segments;
                self.worker(it.worker).leave(to, bypass, seen, view);
            }
            Expected::HandOver(to, from) => {
                ledger.flow.handed_over += segments;
                let (view, packet) = (Arc::clone(view), seen.bytes.clone());
                self.worker(to).inbox.push_back(super::worker::Handed { from, view, packet, segments });
            }
            Expected::TooBig { to, .. } | Expected::Reset { to, .. } => {
                ledger.flow.replied += segments;
                ledger.flow.generated += 1;
                ledger.flow.delivered += 1;
                let worker = &mut self.workers[usize::from(it.worker.0)];
                match expected {
                    Expected::TooBig { .. } => _ = worker.errors.take(now),
                    Expected::Reset { cause: ReplyCause::TargetGone(_), .. } => {}
                    _ => _ = worker.resets.take(now),
                }
                if let Expected::Reset { cause, .. } = expected {
                    self.books.reset(cause);
                }
                if let Judgement::Reply { packet, .. } = it.verdict {
                    self.worker(it.worker).leave_plain(to, packet.clone(), view);
                }
            }
            Expected::ToAppliance { id, pool, change, .. } => {
                if let Judgement::ToAppliance(hop) = it.verdict {
                    self.hold_port(it, view, hop, (id, pool))?;
                    self.send(it, seen, view, hop, (id.0, change))?;
                }
            }
        }
        Ok(())
    }

    /// A packet goes to an appliance: its header says what it must, and its cookie is the flow's.
    fn send(
        &mut self,
        it: &Judged<'_>,
        seen: &Seen,
        view: &Arc<View>,
        hop: &Hop,
        (endpoint, change): (u64, Change),
    ) -> Result<(), Wrong> {
        let target = &view.snapshot.targets[hop.target.0 as usize];
        let wrong_header =
            |why: String| Wrong::new(Clause::Determinism, format!("the Geneve header {why}"));
        let header = hop.header.as_bytes();
        let (parsed, _) = geneve::Header::parse(header)
            .map_err(|error| wrong_header(format!("is none: {error}")))?;
        let tags = target
            .dialect
            .read(&parsed)
            .map_err(|error| wrong_header(format!("is not of the dialect: {error}")))?;
        let protocol = match seen.inner.version {
            geneve::IpVersion::V4 => geneve::ProtocolType::IPV4,
            geneve::IpVersion::V6 => geneve::ProtocolType::IPV6,
        };
        let mut right = vec![0; target.dialect.header_len()];
        let expected = Tags { endpoint, attachment: 0, ..tags };
        let written = target.dialect.write(&expected, protocol, &mut right).is_ok();
        if !written || right != header {
            return Err(wrong_header(format!("is {header:02x?}")));
        }
        let key = match change {
            Change::Cut(_) => Tuple::of(&seen.inner).without_ports(),
            _ => Tuple::of(&seen.inner),
        };
        let epoch = view.snapshot.keys.cookie.epoch();
        let purpose = (tags.endpoint, target.id.get(), key.flow());
        self.fleet.issue(purpose, epoch, tags.cookie)?;
        hold(hop.address == target.address, Clause::Determinism, || {
            format!("it goes to {}, and the target is {}", hop.address, target.address)
        })?;
        self.worker(it.worker).send(it.origin.side, seen, view, hop, change);
        Ok(())
    }

    /// A flow is sent by the node that serves its endpoint, from one port for its whole life, and
    /// from one of those that there are.
    fn hold_port(
        &mut self,
        it: &Judged<'_>,
        view: &View,
        hop: &Hop,
        (id, pool): (FlowId, PoolId),
    ) -> Result<(), Wrong> {
        hold(hop.pool == pool, Clause::Determinism, || {
            format!("endpoint {:#x} is served by {pool:?}, and {:?} sends", id.0, hop.pool)
        })?;
        hold(hop.port < view.snapshot.source_ports, Clause::Bounded, || {
            format!("port {} of {}", hop.port, view.snapshot.source_ports)
        })?;
        let Some(lot) = self.lots.get_mut(&id) else { return Ok(()) };
        let port = *lot.port.get_or_insert(hop.port);
        hold(port == hop.port, Clause::Stability, || {
            let worker = it.worker.0;
            format!("{} is sent from port {} of worker {worker}, it was {port}", id.1, hop.port)
        })
    }
}

/// Where an answer to a packet goes: back where that came from.
fn back_to(it: &Judged<'_>, case: &Case<'_>) -> Option<Attachment> {
    let routes = &case.view.routes;
    let to = match it.origin.at {
        Entry::InternetGateway(id) => Attachment::InternetGateway(id),
        Entry::Subnet(id) => Attachment::Subnet(id),
        at @ Entry::Endpoint(_) => match routes.next(at, case.seen.inner.src) {
            Next::Deliver(to) => to,
            _ => return None,
        },
    };
    routes.is_attached(to).then_some(to)
}

/// A place as a later view counts, if that can be told: it is the same view's, or the next
/// numbering's.
pub(super) fn place_now(place: Entry, then: &View, now: &View) -> Option<Entry> {
    let (old, new) = (then.snapshot.topology_epoch, now.snapshot.topology_epoch);
    match new.checked_sub(old)? {
        0 => Some(place),
        1 => now.routes.place(&then.routes, place),
        _ => None,
    }
}

fn changed(hop: &Hop) -> Change {
    match hop.change {
        None => Change::None,
        Some(Changed::Fragment(mtu)) => Change::Cut(mtu),
        Some(Changed::ClampMss(mtu)) => Change::Clamp(mtu),
    }
}
