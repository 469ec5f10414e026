//! The way out: a packet from a TUN device, or one on its way to a further endpoint, is routed,
//! its flow found or made, and the hop to the appliance written.
//!
//! Each worker has one [`Ingress`]; it owns the flows whose hash says so and hands the packets of
//! others over. It reads no clock and sends nothing: what it decides on its own account, such as
//! resets of flows that lose their target, is taken out with [`Ingress::poll_reply`].

mod admission;
mod begun;
#[cfg(test)]
mod counted;
mod excerpt;
mod flows;
mod groups;
mod logged;
mod reset;
mod settled;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use geneve::flow::FlowKey;
use geneve::inner::{Fragment, Inner, Transport};
use netio::mem::Commit;
use router::{Attachment, EndpointId, Entry, NextHop};

use super::flow_log::{FlowLog, FlowLogTap};
use super::flow_table::record::Gone;
use super::flow_table::{Ends, FlowHash, FlowId, FlowNumber, FlowTable, Inspector};
use super::fragmentation::may_fragment;
use super::fragments::{FragmentId, FragmentTable, Waiting};
use super::frame::Frame;
use super::mss;
use super::reply::{self, RateLimit};
use super::snapshot::{Snapshot, TargetSlot};
use super::stats::WorkerStats;
use super::verdict::{
    Change, Course, DropReason, Hop, Origin, Reply, ReplyCause, Verdict, WorkerId,
};
use crate::fault::{self, Fault};
use admission::Admission;
use flows::Way;
use reset::Sweep;
use settled::{Shortcuts, fits, of_version, stickiness};

pub use excerpt::Excerpt;
pub(super) use settled::fits as largest;
pub use settled::{Entrance, Glance, Moment};

/// The half of the data plane that owns flows; one per worker.
///
/// Packets come in batches, and a flow that is in no cache takes as long to fetch as all that is
/// done with it. So the caller goes through a batch several times: [glances](Entrance::glance_all) at
/// each packet, has its flow [fetched](Self::prefetch), and then goes on with each. Most flows are
/// [settled](Self::settled), or [begin](Self::begun) as they should, and there are short ways for
/// these; other packets are looked at more closely and [handled](Self::handle_glanced).
/// [`handle_packet`](Self::handle_packet) does all at once.
#[derive(Debug)]
pub struct Ingress {
    snapshot: Arc<Snapshot>,
    state: State,
    shortcuts: Shortcuts,
}

/// What an [`Ingress`] knows besides the configuration.
#[derive(Debug)]
struct State {
    worker: WorkerId,
    flows: FlowTable,
    admission: Admission,
    fragments: Arc<FragmentTable>,
    /// Fragments whose first one has come, to be handled by whoever has this.
    released: VecDeque<Waiting>,
    /// Some that have ended while they waited.
    dropped: VecDeque<(DropReason, Waiting)>,
    /// Goes through the table after targets whose flows are reset at both ends.
    sweep: Sweep,
    /// Whether the packet in hand was handed over.
    handed_over: bool,
    /// Whether the flow of the packet in hand comes from another endpoint of a group, and is taken on
    /// in its middle.
    moved: bool,
    /// The endpoint at which the packet in hand is, or came to its end; none before the first one,
    /// and behind one that let it pass.
    at: Option<EndpointId>,
    /// Packets that answer no packet.
    replies: VecDeque<Reply>,
    /// Flows that are being forgotten; empty, and kept for its room.
    gone: Vec<(Gone, Ends)>,
    /// What flow logs are made of, if there are any.
    log: Option<Box<FlowLog>>,
    errors: RateLimit,
    resets: RateLimit,
    stats: Arc<WorkerStats>,
}

/// What of the outside an [`Ingress`] is made with.
#[derive(Debug)]
pub struct IngressConfig {
    /// Which worker this is.
    pub worker: WorkerId,
    /// The most flows it may hold.
    pub max_flows: usize,
    /// When the flow table takes its memory.
    pub commit: Commit,
    /// Whether it keeps a [record](crate::dataplane::flow_table::record) of each flow.
    pub records: bool,
    /// Where what flow logs are made of goes, if it is wanted; that takes records.
    pub log: Option<FlowLogTap>,
    /// Shared by all workers.
    pub fragments: Arc<FragmentTable>,
    /// The worker's counters.
    pub stats: Arc<WorkerStats>,
}

/// The flow that an unfragmented packet is of, by the first endpoint on its way.
#[derive(Debug, Clone, Copy)]
struct Aim {
    endpoint: EndpointId,
    flow: Sought,
}

/// A flow, as it is looked for.
#[derive(Debug, Clone, Copy)]
struct Sought {
    id: FlowId,
    hash: FlowHash,
    /// The tuple with its direction, and whole.
    tuple: FlowKey,
}

/// The smallest MTU of IPv6 (RFC 8200 section 5).
const IPV6_MIN_MTU: u16 = 1280;

/// How many endpoints a packet may bypass in a row. Routes do not lead in circles; this is for a
/// topology that nobody would draw.
const MAX_BYPASSED: usize = 8;
/// Fragments that ended while they waited, of which it is told.
const MAX_NOTED: usize = 16;

impl Ingress {
    /// A worker's ingress, without flows.
    ///
    /// # Errors
    /// If there is no memory for the flow table.
    pub fn new(config: IngressConfig, snapshot: Arc<Snapshot>, now: Instant) -> io::Result<Self> {
        let key = snapshot.keys.tables.clone();
        let mut flows = FlowTable::new(config.max_flows, key, config.commit, now)?;
        if config.records || config.log.is_some() {
            flows = flows.with_records(config.log.is_some(), config.commit)?;
        }
        let state = State {
            worker: config.worker,
            flows,
            admission: Admission::new(now),
            fragments: config.fragments,
            released: VecDeque::new(),
            dropped: VecDeque::new(),
            sweep: Sweep::default(),
            handed_over: false,
            moved: false,
            at: None,
            replies: VecDeque::new(),
            gone: Vec::new(),
            log: config.log.map(|tap| Box::new(FlowLog::new(tap, config.worker))),
            errors: RateLimit::new(now),
            resets: RateLimit::for_resets(now),
            stats: config.stats,
        };
        let shortcuts = Shortcuts::default();
        let mut ingress = Self { state, snapshot: Arc::clone(&snapshot), shortcuts };
        ingress.handle_snapshot(snapshot, now);
        Ok(ingress)
    }

    /// Decides about a packet that came from `origin`.
    ///
    /// Drops and replies are counted here; what is to be sent, delivered or handed over is counted
    /// by whoever does it, when it is done. After each packet, [`Self::poll_released`] may have
    /// others that waited for it.
    pub fn handle_packet(&mut self, origin: Origin, frame: &Frame<'_>, now: Instant) -> Verdict {
        self.handle_glanced(origin, frame, None, now)
    }

    /// The same for a packet that may have been glanced at.
    pub fn handle_glanced(
        &mut self,
        origin: Origin,
        frame: &Frame<'_>,
        glance: Option<&Glance>,
        now: Instant,
    ) -> Verdict {
        let Self { snapshot, state, shortcuts } = self;
        let aim = glance.and_then(|glance| glance.aim(shortcuts));
        let ending = state.route(snapshot, origin, frame, aim.as_ref(), now);
        state.log_ending(snapshot, frame, &ending, now);
        let ledger = state.stats.ledger(origin.side);
        match ending {
            Ok(Ending::ToAppliance(course, change)) => {
                Verdict::ToAppliance(Hop { change, ..course.hop(snapshot) })
            }
            Ok(Ending::Deliver(to)) => Verdict::Deliver(to),
            Ok(Ending::Bypass(to)) => Verdict::Bypass(to),
            Ok(Ending::HandOver(owner, from)) => Verdict::HandOver(owner, from),
            Ok(Ending::Held) => {
                ledger.flow.held.add(frame.segments());
                Verdict::Held
            }
            Ok(Ending::Reply(reply)) => {
                ledger.flow.replied.add(frame.segments());
                Verdict::Reply(reply)
            }
            Err(reason) => {
                let one = fault::on(Fault::SuperPacketDropCountsOne);
                ledger.drops.add(reason, if one { 1 } else { frame.segments() });
                if fault::on(Fault::DropCountedTwice) && state.handed_over {
                    ledger.drops.add(reason, frame.segments());
                }
                Verdict::Drop(reason)
            }
        }
    }

    /// The same for a packet that another worker has handed over. What it did for all workers is
    /// not done again.
    pub fn handle_handover(&mut self, origin: Origin, frame: &Frame<'_>, now: Instant) -> Verdict {
        self.state.handed_over = true;
        let verdict = self.handle_packet(origin, frame, now);
        self.state.handed_over = false;
        verdict
    }

    /// Takes a new view of the configuration. Flows stay where they are, unless the view says of
    /// their target that they do not.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>, now: Instant) {
        let Self { snapshot: before, state, shortcuts } = self;
        *shortcuts = Shortcuts::new(&snapshot, state.worker);
        state.sweep.begin_if(before, &snapshot, now);
        state.flows.keep_ends(snapshot.keeps_ends());
        if snapshot.keys.cookie.epoch() != before.keys.cookie.epoch() {
            state.flows.forget_cookies();
        }
        state.admission.limit(snapshot.max_new_flows_per_second, now);
        state.stats.generation.announce(snapshot.generation);
        self.snapshot = snapshot;
    }

    /// Does what is due: forgets flows that have idled out, resets such as have lost their target,
    /// gives up fragments whose first one did not come, and closes windows of flow logs.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.state.expire(&self.snapshot, now);
        self.state.sweep(&self.snapshot, now);
        self.state.give_up_fragments(&self.snapshot, now);
        self.state.close_windows(&self.snapshot, now);
    }

    /// When [`Self::handle_timeout`] should be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let State { flows, sweep, fragments, log, .. } = &self.state;
        let windows = log.as_ref().map(|log| log.due());
        let times = [flows.poll_timeout(), sweep.due(), fragments.poll_timeout(), windows];
        times.into_iter().flatten().min()
    }

    /// Tells what flow logs do not have yet, a piece at a time, since no further packet comes; says
    /// whether that is all.
    pub fn finish_logs(&mut self, now: Instant) -> bool {
        self.state.finish_windows(&self.snapshot, now)
    }

    /// Has what flow logs do not have yet, and have no room for, counted as lost;
    /// [`Self::finish_logs`] is to be called on, until that is all.
    pub fn give_up_logs(&mut self) {
        if let Some(log) = &mut self.state.log {
            log.give_up();
        }
    }

    /// A packet to be sent that answers none.
    pub fn poll_reply(&mut self) -> Option<Reply> {
        self.state.replies.pop_front()
    }

    /// A fragment that need not wait any more: it is to be handled as if it came now.
    pub fn poll_released(&mut self) -> Option<(Origin, Waiting)> {
        loop {
            let waiting = self.state.released.pop_front()?;
            let ledger = self.state.stats.ledger(waiting.from.side);
            ledger.flow.released.add(1);
            match self.snapshot.entry(waiting.from.at, waiting.epoch) {
                Some(at) => return Some((Origin { at, ..waiting.from }, waiting)),
                None if fault::on(Fault::ReconfiguredUncounted) => {}
                None => {
                    ledger.drops.add(DropReason::Reconfigured, 1);
                    self.state.note_dropped(DropReason::Reconfigured, waiting);
                }
            }
        }
    }

    /// A fragment that waited and was dropped, which no verdict tells: it is counted, and this is
    /// for those who look at what was dropped. Of many at a time there are only some.
    pub fn poll_dropped(&mut self) -> Option<(DropReason, Waiting)> {
        self.state.dropped.pop_front()
    }

    /// The flows, for those who look at them.
    pub fn flows(&self) -> &FlowTable {
        &self.state.flows
    }

    /// The same for tests that want many at once.
    #[cfg(test)]
    pub(crate) fn flows_mut(&mut self) -> &mut FlowTable {
        &mut self.state.flows
    }
}

impl State {
    #[inline]
    fn route(
        &mut self,
        view: &Snapshot,
        mut origin: Origin,
        frame: &Frame<'_>,
        aim: Option<&Aim>,
        now: Instant,
    ) -> Result<Ending, DropReason> {
        let came_from = origin;
        self.at = None;
        let (mut next, mut flow) = match aim {
            Some(Aim { endpoint, flow }) => (NextHop::Endpoint(*endpoint), Some(flow)),
            None => (view.topology.lookup(origin.at, frame.inner.dst), None),
        };
        for bypassed in 0..=MAX_BYPASSED {
            match next {
                NextHop::Endpoint(endpoint) => {
                    let at = Passage { endpoint, origin, came_from };
                    match self.balance(view, &at, frame, flow.take(), now)? {
                        Balanced::Ends(ending) => return Ok(ending),
                        Balanced::Passes => {
                            origin.at = Entry::Endpoint(endpoint);
                            // Whoever handed it over has not seen it come to the next endpoint.
                            self.handed_over = false;
                        }
                    }
                }
                NextHop::EndpointGroup(group) => {
                    let at = (group, origin, came_from);
                    match self.balance_group(view, at, frame, now)? {
                        (_, Balanced::Ends(ending)) => return Ok(ending),
                        (endpoint, Balanced::Passes) => {
                            origin.at = Entry::Endpoint(endpoint);
                            self.handed_over = false;
                        }
                    }
                }
                NextHop::Deliver(to) if !view.attachments.contains_key(&to) => {
                    return Err(DropReason::NotAttached);
                }
                NextHop::Deliver(to) if bypassed > 0 => return Ok(Ending::Bypass(to)),
                NextHop::Deliver(to) => return Ok(Ending::Deliver(to)),
                other => return Err(no_way(other)),
            }
            next = view.topology.lookup(origin.at, frame.inner.dst);
        }
        Err(DropReason::RoutingLoop)
    }

    /// What becomes of a packet at an endpoint, and counts it there; `flow` is its flow, if that is
    /// known.
    #[inline]
    fn balance(
        &mut self,
        view: &Snapshot,
        at: &Passage,
        frame: &Frame<'_>,
        flow: Option<&Sought>,
        now: Instant,
    ) -> Result<Balanced, DropReason> {
        self.at = Some(at.endpoint);
        let balanced = self.decide(view, at, frame, flow, now);
        if matches!(balanced, Ok(Balanced::Passes)) {
            self.at = None;
        }
        if let Some(counters) = view.endpoint(at.endpoint).counters.get(self.worker.0) {
            let segments = frame.segments();
            match &balanced {
                Ok(Balanced::Ends(Ending::ToAppliance(..))) => {
                    counters.inspected_packets.add(segments);
                    counters.inspected_bytes.add(frame.bytes());
                }
                Ok(Balanced::Passes) => counters.bypassed_packets.add(segments),
                Ok(Balanced::Ends(Ending::Reply(_))) => counters.answered_packets.add(segments),
                Err(_) => counters.dropped_packets.add(segments),
                // Whoever owns the flow counts it, and what waits for its first fragment is seen
                // here again. Nothing else ends at an endpoint.
                Ok(Balanced::Ends(
                    Ending::HandOver(..) | Ending::Held | Ending::Deliver(_) | Ending::Bypass(_),
                )) => {}
            }
        }
        balanced
    }

    /// What becomes of a packet at an endpoint.
    #[inline]
    fn decide(
        &mut self,
        view: &Snapshot,
        at: &Passage,
        frame: &Frame<'_>,
        flow: Option<&Sought>,
        now: Instant,
    ) -> Result<Balanced, DropReason> {
        let &Passage { endpoint, origin, .. } = at;
        let pool_id = view.endpoint(endpoint).pool;
        let pool = view.pool(pool_id);
        let found;
        let flow = match flow {
            Some(flow) => flow,
            None => match self.tuple(view, endpoint, origin, frame, now)? {
                Some(tuple) => {
                    found = self.sought(view, endpoint, tuple);
                    &found
                }
                None => return Ok(Balanced::Ends(Ending::Held)),
            },
        };
        let (owner, port) = if fault::on(Fault::OwnerByDirection) {
            view.share_of(view.keys.placement.hash(&flow.tuple.to_bytes()))
        } else {
            view.share(&flow.id.tuple)
        };
        let stays = fault::on(Fault::FragmentStaysAtReader)
            && matches!(frame.inner.fragment, Fragment::Later { .. });
        if owner != self.worker && !stays {
            return Ok(Balanced::Ends(Ending::HandOver(owner, origin)));
        }
        if frame.inner.fragment != Fragment::Whole {
            self.fragments.notice(&frame.inner);
        }

        let (placement, number) = match self.find_or_make(view, flow, port, frame, pool, now)? {
            Way::Placed(placement, number) => (placement, number),
            Way::Reset(cause) => {
                let reply = self.answer(view, at, frame, cause, 0, now)?;
                return Ok(Balanced::Ends(reply));
            }
        };
        let Inspector::Target(slot) = placement.inspector else {
            self.note_passing(view, flow, number, placement.inspector, frame, now);
            return Ok(Balanced::Passes);
        };
        let fits = of_version(fits(view.target(slot)), frame.inner.version);
        let mut change = None;
        if frame.shape.largest > u32::from(fits) {
            if !may_fragment(&frame.inner) {
                let cause = ReplyCause::PacketTooBig;
                let reply = self.answer(view, at, frame, cause, fits, now)?;
                return Ok(Balanced::Ends(reply));
            }
            change = Some(Change::Fragment(fits));
        } else if (pool.mss_clamp || fault::on(Fault::MssClampUnasked))
            && mss::needs_clamp(frame, fits)
        {
            change = Some(Change::ClampMss(fits));
        }
        // Of fragments, the return path sees no ports.
        let key = match change {
            Some(Change::Fragment(_)) => frame.inner.flow_key().portless(),
            _ if fault::on(Fault::CookieWithoutPorts) => frame.inner.flow_key().portless(),
            _ => frame.inner.flow_key(),
        };
        let cookie = self.cookie(view, flow, number, key, slot);
        self.note_passing(view, flow, number, placement.inspector, frame, now);
        let course = Course {
            pool: pool_id,
            port: placement.port,
            target: slot,
            endpoint: flow.id.endpoint,
            cookie,
            version: frame.inner.version,
        };
        Ok(Balanced::Ends(Ending::ToAppliance(course, change)))
    }

    /// How the flow of a packet with this tuple is looked for at an endpoint.
    #[inline]
    fn sought(&self, view: &Snapshot, endpoint: EndpointId, tuple: FlowKey) -> Sought {
        let at = view.endpoint(endpoint);
        let stickiness = stickiness(view.pool(at.pool).stickiness);
        let id = FlowId { endpoint: at.wire_id, tuple: tuple.sticky(stickiness) };
        Sought { id, hash: self.flows.hash(&id), tuple }
    }

    /// The cookie of a packet with this key. That of the packets by which a flow is known is made
    /// once and kept with the flow.
    #[inline]
    fn cookie(
        &mut self,
        view: &Snapshot,
        flow: &Sought,
        number: Option<FlowNumber>,
        key: FlowKey,
        slot: TargetSlot,
    ) -> u32 {
        let number = number.filter(|_| key == flow.tuple && flow.id.tuple.is_of(&key));
        if let Some(cookie) = number.and_then(|number| self.flows.cookie(number)) {
            return cookie;
        }
        let target = view.target(slot).id;
        let cookie = view.keys.cookie.stamp(flow.id.endpoint, target, &key.canonical());
        if let Some(number) = number {
            self.flows.keep_cookie(number, cookie);
        }
        cookie
    }

    /// The tuple that decides to which flow the packet belongs: its own, that of its first
    /// fragment, or that of the packet that an ICMP error is about. `None`: it waits for its first
    /// fragment.
    fn tuple(
        &mut self,
        view: &Snapshot,
        endpoint: EndpointId,
        origin: Origin,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<Option<FlowKey>, DropReason> {
        let inner = &frame.inner;
        if self.fragments.refuses(inner) && !fault::on(Fault::TooLongFragmentPasses) {
            return Err(DropReason::MalformedPacket);
        }
        let endpoint = view.endpoint(endpoint).wire_id;
        let fragment = |id| FragmentId {
            endpoint: if fault::on(Fault::FragmentWithoutEndpoint) { 0 } else { endpoint },
            src: inner.src,
            dst: inner.dst,
            // As all fragments state it: what follows the fragment header may be an extension
            // header, and only the first fragment shows what comes behind that.
            protocol: inner.flow_key().protocol(),
            id,
        };
        match inner.fragment {
            Fragment::Whole => Ok(Some(whole_tuple(inner))),
            Fragment::First { id } => {
                let flow = inner.ported_key().unwrap_or_else(|| inner.flow_key());
                if !self.handed_over {
                    let released = self.fragments.first(fragment(id), flow, now);
                    if !fault::on(Fault::HeldFragmentsLost) {
                        self.released.extend(released);
                    }
                }
                Ok(Some(flow))
            }
            Fragment::Later { .. } if fault::on(Fault::LaterFragmentByOwnKey) => {
                Ok(Some(inner.flow_key()))
            }
            Fragment::Later { id, .. } => {
                let id = fragment(id);
                if let Some(flow) = self.fragments.later(&id, now) {
                    return Ok(Some(flow));
                }
                let packet = geneve::buffer::PacketBuf::from_slice(frame.packet);
                let epoch = view.topology_epoch;
                match self.fragments.hold(id, Waiting { from: origin, epoch, packet }, now) {
                    Ok(()) => Ok(None),
                    // Another worker may have seen the first one in between.
                    Err(_) => match self.fragments.later(&id, now) {
                        Some(flow) => Ok(Some(flow)),
                        None => Err(DropReason::FragmentQueueFull),
                    },
                }
            }
        }
    }

    fn give_up_fragments(&mut self, view: &Snapshot, now: Instant) {
        for waiting in self.fragments.expire(now) {
            let ledger = self.stats.ledger(waiting.from.side);
            ledger.flow.released.add(1);
            ledger.drops.add(DropReason::FragmentWithoutFirst, 1);
            self.log_given_up(view, &waiting, now);
            self.note_dropped(DropReason::FragmentWithoutFirst, waiting);
        }
    }

    /// Remembers a fragment that has ended while it waited.
    fn note_dropped(&mut self, reason: DropReason, waiting: Waiting) {
        if self.dropped.len() < MAX_NOTED {
            self.dropped.push_back((reason, waiting));
        }
    }

    /// Answers the packet instead of forwarding it, unless an answer is not allowed or too many
    /// were sent.
    fn answer(
        &mut self,
        view: &Snapshot,
        at: &Passage,
        frame: &Frame<'_>,
        cause: ReplyCause,
        mtu: u16,
        now: Instant,
    ) -> Result<Ending, DropReason> {
        let refused = cause.refusal();
        let to = match at.came_from.at {
            from @ Entry::Endpoint(_) => match view.topology.lookup(from, frame.inner.src) {
                NextHop::Deliver(to) => Some(to),
                _ => None,
            },
            from => from.attachment(),
        };
        let to = to.filter(|to| view.attachments.contains_key(to)).ok_or(refused)?;
        let (packet, limit) = match cause {
            // One for each packet of a flow that was taken in, and then the flow is over.
            ReplyCause::TargetGone(_) => (reply::tcp_reset(frame.packet, &frame.inner), None),
            ReplyCause::PacketTooBig => {
                let addresses = view.endpoint(at.endpoint).addresses.iter().copied();
                let source = addresses
                    .into_iter()
                    .find(|address| address.is_ipv4() == frame.inner.dst.is_ipv4())
                    .unwrap_or(frame.inner.dst);
                let packet = reply::packet_too_big(frame.packet, &frame.inner, source, mtu);
                (packet, Some(&mut self.errors))
            }
            ReplyCause::UnknownTcpFlow | ReplyCause::IdleTimeout => {
                (reply::tcp_reset(frame.packet, &frame.inner), Some(&mut self.resets))
            }
        };
        let packet = packet.ok_or(refused)?;
        if limit.is_some_and(|limit| !limit.take(now)) {
            return Err(refused);
        }
        self.count_reset(view, view.endpoint(at.endpoint).wire_id, cause);
        Ok(Ending::Reply(Reply { to, packet, cause }))
    }
}

/// A packet that has come to an endpoint.
struct Passage {
    endpoint: EndpointId,
    /// How far it is.
    origin: Origin,
    /// Where it came in.
    came_from: Origin,
}

/// A [`Verdict`] in the making: small, since it goes through several hands.
enum Ending {
    ToAppliance(Course, Option<Change>),
    Deliver(Attachment),
    Bypass(Attachment),
    HandOver(WorkerId, Origin),
    Held,
    Reply(Reply),
}

/// What becomes of a packet at an endpoint.
enum Balanced {
    /// This, and nothing further.
    Ends(Ending),
    /// It goes on as if an appliance had returned it.
    Passes,
}

/// The name of a look-up's result that leads nowhere.
pub(super) fn no_way(hop: NextHop) -> DropReason {
    match hop {
        NextHop::Blackhole => DropReason::Blackhole,
        NextHop::NoSubnet => DropReason::NoSubnet,
        NextHop::Loop => DropReason::RoutingLoop,
        NextHop::NoRoute
        | NextHop::Deliver(_)
        | NextHop::Endpoint(_)
        | NextHop::EndpointGroup(_)
        | NextHop::Transit(_) => DropReason::NoRoute,
    }
}

/// The tuple that decides to which flow a packet belongs that is no fragment: its own, or that of
/// the packet that an ICMP error is about.
#[inline]
fn whole_tuple(inner: &Inner) -> FlowKey {
    match inner.transport {
        Transport::IcmpError { about, .. } if !fault::on(Fault::IcmpErrorByOwnTuple) => about,
        _ => inner.flow_key(),
    }
}
