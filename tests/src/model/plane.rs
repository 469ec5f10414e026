//! The naive data plane: one list of flows, and a verdict for every packet.
//!
//! Where the design leaves a choice (which candidate, which worker, which source port), what the
//! gateway did is taken, if it is among what it may do and agrees with what it did before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use geneve::Fragment;
use gwlb::dataplane::verdict::{DropReason, Origin, ReplyCause, Side, WorkerId};
use netio::offload::Offload;
use router::{Attachment, EndpointId, Entry};

use super::books::Books;
use super::fleet::Fleet;
use super::flow::{FlowId, Flows, Who};
use super::fragments::{Fragments, Waiting, packet_id, reaches_too_far};
use super::guess::guess;
use super::placing::{Case, Plan};
use super::routes::Next;
use super::seen::Seen;
use super::translating::Way;
use super::tuple::Tuple;
use super::verdict::Expected;
use super::view::View;
use super::worker::{Handed, Worker};
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
    pub lots: BTreeMap<FlowId, Lot>,
    pub workers: Vec<Worker>,
    pub fragments: Fragments,
    pub books: Books,
    pub fleet: Fleet,
    pub max_flows: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Lot {
    pub owner: WorkerId,
    pub port: Option<u16>,
}

/// What becomes of a packet at an endpoint.
pub(super) enum Stage {
    Passes,
    Ends(Expected),
}

/// One way that is open to a packet.
pub(super) struct Path {
    /// Who has its flow, if anybody does.
    pub held: Option<Who>,
    pub plan: Plan,
    /// Who gets it.
    pub goes: Option<Who>,
    /// What that looks like; nothing: it goes past this endpoint.
    pub expected: Option<Expected>,
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

    /// Of the view that a worker works with.
    pub(super) fn generation(&self, id: WorkerId) -> u64 {
        let view = &self.workers[usize::from(id.0)].view;
        view.as_ref().map_or(0, |view| view.snapshot.generation)
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
        self.worker(it.worker).contradictory = seen.is_contradictory();
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
                Next::Group(group) => {
                    match self.balance_group(it, &seen, &view, (group, origin), now)? {
                        (_, Stage::Ends(expected)) => break expected,
                        (endpoint, Stage::Passes) => origin.at = Entry::Endpoint(endpoint),
                    }
                }
            }
            bypassed += 1;
        };
        self.hold_alike(it, &seen, &view, &expected)?;
        self.count(it, &seen, &view, &expected, now)
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
        let wire_id = view.endpoint(endpoint).wire_id;
        let tuple = match self.tuple(it, seen, view, (wire_id, origin), now) {
            Ok(Some(tuple)) => tuple,
            Ok(None) => return ends(Expected::Held),
            Err(reason) => return ends(Expected::Drop(reason)),
        };
        self.balance_tuple(it, seen, view, (endpoint, origin), (tuple, false), now)
    }

    /// The same for a packet of which it is known what decides; `moved`, if its flow comes from
    /// another member of a group.
    pub(super) fn balance_tuple(
        &mut self,
        it: &Judged<'_>,
        seen: &Seen,
        view: &Arc<View>,
        (endpoint, origin): (EndpointId, Origin),
        (tuple, moved): (Tuple, bool),
        now: Duration,
    ) -> Result<Stage, Wrong> {
        let ends = |expected| Ok(Stage::Ends(expected));
        let (wire_id, pool_id) = (view.endpoint(endpoint).wire_id, view.endpoint(endpoint).pool);
        let id: FlowId = (wire_id, tuple.sticky(view.pool(pool_id).stickiness));
        let owner = self.owner(id, it, origin)?;
        if owner != it.worker {
            return ends(Expected::HandOver(owner, origin));
        }
        self.fragments.notice(&seen.inner);

        let found = self.flows.get(&id).filter(|flow| flow.is_alive(now)).cloned();
        let overloaded = self.worker(owner).overloaded.get(&wire_id).copied();
        let found = found.as_ref();
        let case = Case { view, pool_id, id, tuple, seen, now, found, overloaded, moved };
        let mut paths = Vec::new();
        for held in
            case.found.map_or(vec![None], |flow| flow.who.each().into_iter().map(Some).collect())
        {
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
        let among = view.set(pool_id);
        let known = || self.fleet.chosen(&id.1, among).or_else(|| guess(view, &id.1, among));
        if paths.len() > 1
            && let Some(known) = known()
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
    pub(super) fn tuple(
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
            Fragment::Whole => Ok(Some(Tuple::about(inner).unwrap_or_else(|| Tuple::of(inner)))),
            Fragment::First { id } => {
                let flow = Tuple::with_ports(inner).unwrap_or_else(|| Tuple::of(inner));
                // Whoever handed it over has noted it for the endpoint that it was at, and for
                // none that it comes to after that.
                if !it.handed_over || from != it.origin {
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
    pub(super) fn owner(
        &mut self,
        id: FlowId,
        it: &Judged<'_>,
        origin: Origin,
    ) -> Result<WorkerId, Wrong> {
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

    /// Notes where a packet comes from, and holds that it may come from there.
    fn arrive(&mut self, it: &Judged<'_>, seen: &Seen, view: &Arc<View>) -> Result<(), Wrong> {
        let segments = seen.segments;
        let side = it.origin.side;
        let is = |right: bool, what: &str| hold(right, Clause::Conservation, || what.to_owned());
        if it.released {
            let Some((from, packet)) = self.worker(it.worker).released.pop_front() else {
                return is(false, "a fragment was released that did not wait");
            };
            return is(
                (from, packet) == (it.origin, seen.bytes.clone()),
                "another fragment was due",
            );
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
        if let Some((at, before)) = self.worker(it.worker).entered.take() {
            is(it.origin.at == Entry::from(at), "it came in elsewhere")?;
            let translated = Way::In.is_translated(&before, it.packet, view.routes.addresses(at));
            hold(translated, Clause::Transparency, || {
                format!("what came in as {before:02x?} is judged as {:02x?}", it.packet)
            })?;
        } else {
            let is_translated = match it.origin.at {
                Entry::InternetGateway(id) => {
                    !view.routes.addresses(Attachment::InternetGateway(id)).is_empty()
                }
                _ => false,
            };
            is(!is_translated, "nobody knows what it was when it came in")?;
        }
        self.books.tun.flow.received += segments;
        Ok(())
    }

    /// Notes where a packet goes.
    fn count(
        &mut self,
        it: &Judged<'_>,
        seen: &Seen,
        view: &Arc<View>,
        expected: &Expected,
        now: Duration,
    ) -> Result<(), Wrong> {
        let segments = seen.segments;
        let ledger = self.books.ledger(it.origin.side);
        match *expected {
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
                self.worker(to).inbox.push_back(Handed { from, view, packet, segments });
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
                    self.books.reset(*cause);
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
