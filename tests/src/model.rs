//! What is right: a gateway in plain collections, written from the design for obviousness and not
//! for speed, which follows the journal of a real one in memory and objects to what it did.
//!
//! It shares no code with the gateway beyond the wire format, the plain types of settings, inputs
//! and verdicts, and the keyed hash in `guess`. Where the design leaves a choice (which of the candidates, which worker,
//! which source port), it takes what the gateway did, if that is one of those it may choose among
//! and the same as ever, on every gateway of the [`Fleet`]. It does not judge how a packet looks on
//! the wire beyond what the journal holds, nor what the kernel and threads do.

mod books;
mod bucket;
mod control;
mod exits;
mod fleet;
mod flow;
mod fragments;
mod groups;
mod guess;
mod noting;
mod placing;
mod plane;
mod returns;
mod routes;
mod seen;
mod sending;
mod timeouts;
mod translating;
mod tuple;
mod verdict;
mod view;
mod ways;
mod wire;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gwlb::config::Settings;
use gwlb::dataplane::fragments::HostileTotals;
use gwlb::dataplane::keys::{Keys, Secret};
use gwlb::dataplane::snapshot::{Snapshot, TargetSlot};
use gwlb::dataplane::stats::{TargetTotals, Totals};
use gwlb::dataplane::verdict::{DropReason, Side, WorkerId};
use thiserror::Error;

pub use fleet::Fleet;

use books::briefly;
use control::Control;
use flow::Who;
use plane::{Judged, Plane};
use returns::Datagram;
use routes::Routes;
use view::View;

use crate::gateway::Setup;
use crate::gateway::journal::{Command, Happened, Stage, Step};

/// What must always hold, as the design names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Clause {
    /// Every packet that enters ends in exactly one way, by its name, and all ends add up.
    Conservation,
    /// What leaves is what came, but for what the configuration has changed.
    Transparency,
    /// Both directions of a flow, its fragments, and ICMP errors about it stay together.
    Symmetry,
    /// A flow changes its target only for a cause that the configuration names.
    Stability,
    /// Nothing that is to be inspected passes without, and nothing comes back that was not sent.
    NoUninspectedPath,
    /// The same flow among the same candidates goes to the same target, with the same cookie.
    Determinism,
    /// Every table and queue has its limit, and keeps to it.
    Bounded,
    /// States and reasons, thresholds and times, candidates and events are those of the
    /// documentation.
    Documented,
}

/// A gateway has done what it must not do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("step {step} at {time:?}: {clause}: {text}\n  the step: {what}")]
pub struct Violation {
    /// Against what.
    pub clause: Clause,
    /// What was expected, and what was found.
    pub text: String,
    /// The number of the step in the journal, from 0.
    pub step: u64,
    /// When, counted from the gateway's start.
    pub time: Duration,
    /// The step.
    pub what: String,
}

/// A secret that no gateway has.
const STRANGERS: Secret = Secret::from_bytes([0x0f; Secret::LEN]);

/// The model of one gateway.
#[derive(Debug)]
pub struct Model {
    plane: Plane,
    control: Control,
    routes: Arc<Routes>,
    /// Those that a worker may still take up.
    views: BTreeMap<u64, Arc<View>>,
    latest: Option<Arc<Snapshot>>,
    inbox: usize,
    now: Duration,
    /// Whether what is due waits: nothing need be done at its time.
    asleep: bool,
    step: u64,
}

impl Model {
    /// The model of a gateway at its start. Gateways with one secret are of one fleet.
    pub fn new(settings: &Settings, setup: &Setup, fleet: &Fleet) -> Model {
        let max_flows = settings.gateway.max_flows_per_worker;
        let plane = Plane::new(setup.workers, max_flows, fleet.clone());
        let in_force = Arc::new(settings.clone());
        Model {
            control: Control::new(&in_force, setup.workers, setup.wall_clock, &plane.books),
            plane,
            routes: Arc::new(Routes::of(settings)),
            views: BTreeMap::new(),
            latest: None,
            inbox: setup.inbox,
            now: Duration::ZERO,
            asleep: false,
            step: 0,
        }
    }

    /// Follows a step of the gateway's journal; every step, in their order.
    ///
    /// # Errors
    /// [`Violation`], if the gateway should not have done this, or should have done something
    /// before. What follows then means nothing.
    pub fn follow(&mut self, step: &Step) -> Result<(), Violation> {
        let judged = self.judge(step);
        self.step += 1;
        judged.map_err(|wrong| self.violation(wrong, self.step - 1, briefly(&step.what)))
    }

    /// Holds that a gateway has counted what the model has, to the last packet.
    ///
    /// # Errors
    /// [`Violation`] of [`Clause::Conservation`].
    pub fn check_books(
        &self,
        totals: &Totals,
        targets: &BTreeMap<SocketAddr, TargetTotals>,
    ) -> Result<(), Violation> {
        let checked = self.finished().and_then(|()| {
            let slots: Vec<SocketAddr> = match &self.latest {
                Some(snapshot) => snapshot.targets.iter().map(|target| target.address).collect(),
                None => Vec::new(),
            };
            let mut open = BTreeMap::<TargetSlot, u64>::new();
            for (_, flow) in self.plane.flows.iter() {
                if let Who::OneOf(slots) = &flow.who {
                    for slot in slots {
                        *open.entry(*slot).or_default() += 1;
                    }
                }
            }
            self.plane.books.check(totals, targets, &slots, &open)
        });
        checked.map_err(|wrong| self.violation(wrong, self.step, "the books".to_owned()))
    }

    /// The same for what fragments did that honest senders hardly do.
    ///
    /// # Errors
    /// [`Violation`] of [`Clause::Conservation`].
    pub fn check_hostile(&self, totals: &HostileTotals) -> Result<(), Violation> {
        let own = &self.plane.fragments.hostile;
        hold(own == totals, Clause::Conservation, || format!("{own:?} is counted as {totals:?}"))
            .map_err(|wrong| self.violation(wrong, self.step, "the books".to_owned()))
    }

    /// How many flows the gateway remembers, idle ones included.
    pub fn flows(&self) -> usize {
        self.plane.flows.len()
    }

    fn violation(&self, Wrong { clause, text }: Wrong, step: u64, what: String) -> Violation {
        Violation { clause, text, step, time: self.now, what }
    }

    fn judge(&mut self, step: &Step) -> Result<(), Wrong> {
        let now = step.time;
        // Who sleeps does nothing at its time.
        self.asleep |= matches!(step.what, Happened::Slept);
        if now > self.now {
            self.finished()?;
            if self.asleep {
                self.control.hold_up_to_date()?;
                self.control.late = true;
            } else {
                self.control.late = false;
                self.control.pass(now)?;
                self.plane.pass(now)?;
            }
            self.now = now;
        }
        let books = &self.plane.books;
        match &step.what {
            Happened::Reloaded(settings) => {
                self.routes = Arc::new(Routes::of(settings));
                self.control.reload(settings, now, books);
                Ok(())
            }
            Happened::Published(snapshot) => {
                self.control.publish(snapshot, &self.plane.fleet)?;
                self.publish(snapshot)
            }
            Happened::Told(input) => {
                self.control.told(input, now, books);
                Ok(())
            }
            Happened::Command { command, ok } => self.command(command, *ok),
            Happened::Timeout => {
                self.control.timeout(now, books);
                Ok(())
            }
            Happened::Slept => Ok(()),
            Happened::Awake => {
                self.asleep = false;
                Ok(())
            }
            Happened::Event(event) => self.control.event(event),
            Happened::Probe(request) => self.control.probe(request),
            Happened::TookUp { worker, generation } => self.take_up(*worker, *generation),
            Happened::Judged {
                worker,
                origin,
                handed_over,
                released,
                packet,
                offload,
                verdict,
            } => {
                self.control.hold_up_to_date()?;
                let judged = Judged {
                    worker: *worker,
                    origin: *origin,
                    handed_over: *handed_over,
                    released: *released,
                    packet,
                    offload,
                    verdict,
                };
                self.plane.judge(&judged, now)
            }
            Happened::Entered { worker, at, packet } => {
                self.plane.worker(*worker).entered = Some((*at, packet.clone()));
                Ok(())
            }
            Happened::Lost { worker, side, stage, reason, segments, packet } => {
                let lost = (*side, *stage, *reason, *segments);
                self.lose(*worker, lost, packet)
            }
            Happened::Returned { worker, from, to, bytes, verdict } => {
                let datagram = Datagram { from: *from, to: *to, bytes };
                self.plane.judge_return(*worker, &datagram, verdict)
            }
            Happened::WorkerTimeout { worker } => self.plane.timeout(*worker, now),
            Happened::Reply { worker, to, packet, cause } => {
                self.plane.replied(*worker, *to, packet, *cause)
            }
            Happened::Sent { worker, side, sent } => self.plane.sent(*worker, *side, sent),
            Happened::Delivered { worker, delivered } => self.plane.delivered(*worker, delivered),
            Happened::TunnelProbe(request) => {
                self.control.tunnel_probe(request)?;
                self.plane.probe(request, self.latest.as_deref(), self.control.late)
            }
        }
    }

    /// Something was asked of the control plane.
    fn command(&mut self, command: &Command, ok: bool) -> Result<(), Wrong> {
        let (now, books) = (self.now, &self.plane.books);
        let control = &mut self.control;
        let should = match command {
            Command::Register { group, spec } => control.register(group, spec, now, books),
            Command::Deregister { group, address, port } => {
                control.deregister(group, (*address, *port), now, books)
            }
            Command::TrafficMode { load_balancer, mode } => {
                control.switch(load_balancer, *mode, now, books)
            }
            Command::SwitchEndpointGroup { group, to } => {
                control.switch_group(group, to.as_deref(), now)
            }
        };
        hold(should == ok, Clause::Documented, || {
            let was = if ok { "done" } else { "refused" };
            format!("{command:?} should not have been {was}")
        })
    }

    fn publish(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), Wrong> {
        if self.latest.is_none() {
            let places = |keys: &Keys| keys.placement.hash(b"any flow");
            let strangers = Keys::derive(&STRANGERS, snapshot.keys.cookie.epoch());
            hold(places(&snapshot.keys) != places(&strangers), Clause::Determinism, || {
                "who does not know the secret places flows as well".to_owned()
            })?;
        }
        for (slot, target) in snapshot.targets.iter().enumerate() {
            let before = self.latest.as_ref().and_then(|before| before.targets.get(slot));
            let Some(before) = before else { continue };
            // Who is registered once more may have the slot that he had, and counts anew.
            let anew = !Arc::ptr_eq(&before.counters, &target.counters);
            hold(anew || before.address == target.address, Clause::Conservation, || {
                format!("{} counts on where {} has counted", target.address, before.address)
            })?;
            if anew {
                self.plane.books.vacate(TargetSlot(slot as u32), snapshot.generation);
            }
        }
        let view = View::new(Arc::clone(snapshot), Arc::clone(&self.routes));
        let view = Arc::new(view);
        // Workers begin with the first one.
        for worker in self.plane.workers.iter_mut().filter(|worker| worker.view.is_none()) {
            worker.take_up(Arc::clone(&view), self.now);
        }
        self.views.insert(snapshot.generation, view);
        self.latest = Some(Arc::clone(snapshot));
        Ok(())
    }

    fn take_up(&mut self, worker: WorkerId, generation: u64) -> Result<(), Wrong> {
        let Some(view) = self.views.get(&generation).cloned() else {
            return wrong(Clause::Conservation, || {
                format!("worker {} works with view {generation}, which is not there", worker.0)
            });
        };
        let before = self.plane.worker(worker).view.as_ref().map(|view| view.snapshot.generation);
        hold(before.is_none_or(|before| before <= generation), Clause::Conservation, || {
            format!("worker {} goes back from view {before:?} to {generation}", worker.0)
        })?;
        self.plane.take_up(worker, view, self.now);
        let workers = self.plane.workers.iter();
        let oldest = workers.map(|it| it.view.as_ref().map(|view| view.snapshot.generation)).min();
        if let Some(oldest) = oldest.flatten() {
            self.views = self.views.split_off(&oldest);
        }
        Ok(())
    }

    /// A worker has dropped a packet itself.
    fn lose(
        &mut self,
        worker: WorkerId,
        (side, stage, reason, segments): (Side, Stage, DropReason, u64),
        packet: &[u8],
    ) -> Result<(), Wrong> {
        let inbox = self.inbox;
        let is = |right: bool, clause, what: &str| hold(right, clause, || what.to_owned());
        match (stage, reason) {
            (Stage::Entering, DropReason::MalformedPacket) => {
                let malformed = geneve::Inner::parse(packet).is_err() && segments == 1;
                is(malformed, Clause::Conservation, "a sound packet was dropped as malformed")?;
                self.plane.worker(worker).entered = None;
                self.plane.books.ledger(side).flow.received += segments;
            }
            (Stage::Inbox, DropReason::Reconfigured) => {
                let view = self.plane.view(worker)?;
                let Some(handed) = self.plane.worker(worker).inbox.pop_front() else {
                    return is(false, Clause::Conservation, "nothing was handed over");
                };
                let same = handed.packet == packet && handed.segments == segments;
                is(same, Clause::Conservation, "another packet was handed over before this one")?;
                let gone = plane::place_now(handed.from.at, &handed.view, &view).is_none();
                is(gone, Clause::Conservation, "where it came from is still there")?;
                self.plane.books.ledger(side).flow.taken_over += segments;
            }
            (Stage::Leaving, DropReason::HandoverFull) => {
                let is_last = |it: &worker::Worker| {
                    it.inbox.back().is_some_and(|handed| handed.packet == packet)
                };
                // What was thought to be handed over just now was not.
                let mut full = self.plane.workers.iter_mut().filter(|it| it.inbox.len() > inbox);
                let Some(to) = full.find(|it| is_last(it)) else {
                    return is(false, Clause::Bounded, "no queue was full");
                };
                to.inbox.pop_back();
                self.plane.books.ledger(side).flow.handed_over -= segments;
            }
            (Stage::Leaving, DropReason::MalformedPacket | DropReason::DeliveryFailed) => {
                self.plane.cannot_leave(worker, side, (reason, segments))?;
            }
            _ => return is(false, Clause::Conservation, "no worker drops for this reason"),
        }
        self.plane.books.ledger(side).drop(reason, segments);
        Ok(())
    }

    /// Holds that workers have done all that they should have done at their moment.
    fn finished(&self) -> Result<(), Wrong> {
        for (number, worker) in self.plane.workers.iter().enumerate() {
            if let Some(unfinished) = worker.unfinished() {
                return wrong(Clause::Conservation, || format!("worker {number}: {unfinished}"));
            }
        }
        Ok(())
    }
}

impl Clause {
    /// All of them.
    pub const ALL: [Clause; 8] = [
        Clause::Conservation,
        Clause::Transparency,
        Clause::Symmetry,
        Clause::Stability,
        Clause::NoUninspectedPath,
        Clause::Determinism,
        Clause::Bounded,
        Clause::Documented,
    ];
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Clause::Conservation => "conservation",
            Clause::Transparency => "transparency",
            Clause::Symmetry => "symmetry",
            Clause::Stability => "stability",
            Clause::NoUninspectedPath => "no uninspected path",
            Clause::Determinism => "determinism",
            Clause::Bounded => "bounded",
            Clause::Documented => "as documented",
        })
    }
}

/// What does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wrong {
    clause: Clause,
    text: String,
}

impl Wrong {
    fn new(clause: Clause, text: String) -> Wrong {
        Wrong { clause, text }
    }
}

fn hold(holds: bool, clause: Clause, text: impl FnOnce() -> String) -> Result<(), Wrong> {
    if holds { Ok(()) } else { wrong(clause, text) }
}

fn wrong<T>(clause: Clause, text: impl FnOnce() -> String) -> Result<T, Wrong> {
    Err(Wrong::new(clause, text()))
}
