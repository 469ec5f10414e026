//! The flow of a packet: found, moved, reset, or made.

use std::time::{Duration, Instant};

use geneve::flow::{FlowKey, Stickiness};
use geneve::inner::{Fragment, TcpFlags, Transport, protocol};

use super::{Sought, State};
use crate::config::{AfterBypass, TrafficMode, UnknownFlow};
use crate::dataplane::flow_table::record::{Gone, Placed};
use crate::dataplane::flow_table::{
    Flow, FlowHash, FlowId, FlowNumber, Inspector, LastWord, Placement,
};
use crate::dataplane::frame::{Frame, TcpNumbers};
use crate::dataplane::select::choose;
use crate::dataplane::snapshot::{Fate, NoCandidate, Pool, Snapshot, TargetSlot};
use crate::dataplane::stats::TargetCounters;
use crate::dataplane::tcp_state::{TcpState, opens};
use crate::dataplane::verdict::{DropReason, ReplyCause};
use crate::fault::{self, Fault};

/// Where a packet goes.
pub(super) enum Way {
    /// To an appliance, or past all of them; with the flow's number, if it is in the table.
    Placed(Placement, Option<FlowNumber>),
    /// Nowhere: its sender is to be told.
    Reset(ReplyCause),
}

/// What of a TCP packet a flow's state depends on.
#[derive(Clone, Copy)]
struct Segment {
    flags: TcpFlags,
    /// Who sent it: 0 for the end that the canonical tuple names first.
    end: usize,
    data: bool,
}

impl State {
    /// Finds the packet's flow, or makes it; says where the packet goes.
    #[inline]
    pub(super) fn find_or_make(
        &mut self,
        view: &Snapshot,
        flow: &Sought,
        port: u8,
        frame: &Frame<'_>,
        pool: &Pool,
        now: Instant,
    ) -> Result<Way, DropReason> {
        let mut everybodys = *flow;
        let flow = if fault::on(Fault::FlowWithoutEndpoint) {
            everybodys.id.endpoint = 0;
            everybodys.hash = self.flows.hash(&everybodys.id);
            &everybodys
        } else {
            flow
        };
        let segment = segment(frame, flow, pool);
        let found = self.flows.find(&flow.id, flow.hash, now);
        if let Some(number) = found
            && let Some(way) = self.follow(view, number, segment, frame, pool, now)?
        {
            return Ok(way);
        }
        let begun = self.begin(view, flow, port, segment, found, frame, pool, now);
        if !matches!(begun, Ok(Way::Placed(..)))
            && begins(&frame.inner.transport)
            && let Some(counters) = view.endpoint_counters(flow.id.endpoint, self.worker)
        {
            counters.refused_flows.add(frame.segments());
            counters.refused_tcp_flows.add(if is_tcp(frame) { frame.segments() } else { 0 });
        }
        begun
    }

    /// Where a packet of a flow in the table goes; `None` if the flow is no more, and the packet
    /// begins a new one.
    #[inline]
    fn follow(
        &mut self,
        view: &Snapshot,
        number: FlowNumber,
        segment: Option<Segment>,
        frame: &Frame<'_>,
        pool: &Pool,
        now: Instant,
    ) -> Result<Option<Way>, DropReason> {
        let (before, tcp) = (self.flows.placement(number), self.flows.tcp(number));
        let mut placement = before;
        let opening = segment.is_some_and(|segment| opens(segment.flags));
        if opening && tcp.is_some_and(TcpState::is_closed) {
            return Ok(None);
        }
        match placement.inspector {
            _ if pool.traffic_mode == TrafficMode::Bypass => {
                // The flow stays where it is, for when the switch is turned back.
                if !matches!(frame.inner.transport, Transport::IcmpError { .. }) {
                    self.note(number, segment, frame, pool, now);
                }
                let inspector = Inspector::Bypass;
                let passing = Placement { inspector, ..placement };
                return Ok(Some(Way::Placed(passing, Some(number))));
            }
            Inspector::Target(target) => match pool.fate(target) {
                Fate::Stay
                    if fault::on(Fault::RebalanceMovesAll)
                        && pool.fates.contains(&Fate::Rebalance) =>
                {
                    placement.inspector = Self::choose(view, &self.flows.id(number), pool)?;
                }
                Fate::Stay => {}
                Fate::Rebalance => {
                    placement.inspector = Self::choose(view, &self.flows.id(number), pool)?;
                }
                // Of what is no TCP connection there is nothing to reset: it stays.
                Fate::Reset(_) if tcp.is_none() || !is_tcp(frame) => {}
                Fate::Reset(_) if opening => return Ok(None),
                // A fragment cannot be answered, and its packet is not to be inspected by halves.
                Fate::Reset(_) if !matches!(frame.inner.fragment, Fragment::Whole) => {
                    return Err(DropReason::TargetGone);
                }
                Fate::Reset(cause) => {
                    if !tcp.is_some_and(TcpState::is_closed) {
                        self.stats.flows.reset.add(1);
                    }
                    // Kept for as long as a closed one: the other end is answered, too, and an end
                    // that does not believe the reset asks back (RFC 5961 section 3.2).
                    let closed = Some(TcpState::CLOSED);
                    self.flows.touch(number, closed, pool.timers.tcp_closed, now);
                    return Ok(Some(Way::Reset(ReplyCause::TargetGone(cause))));
                }
            },
            Inspector::Bypass => {
                if pool.after_bypass == AfterBypass::Inspect
                    && !pool.candidates.is_empty()
                    && !fault::on(Fault::BypassKept)
                {
                    placement.inspector = Self::choose(view, &self.flows.id(number), pool)?;
                }
            }
        }
        if matches!(frame.inner.transport, Transport::IcmpError { .. })
            && !fault::on(Fault::IcmpErrorProlongs)
        {
            // It is about the flow and none of its packets: it prolongs and moves nothing.
            return Ok(Some(Way::Placed(placement, Some(number))));
        }
        if placement != before {
            self.stats.flows.rebalanced.add(1);
            self.count_lost(view, before.inspector);
            self.count_new(view, placement.inspector);
            self.log_window(view, number);
            self.flows.place(number, placement);
            self.flows.note_placed(number, Placed::Rebalanced, now);
        }
        self.note(number, segment, frame, pool, now);
        Ok(Some(Way::Placed(placement, Some(number))))
    }

    /// Notes a packet of a flow.
    fn note(
        &mut self,
        number: FlowNumber,
        segment: Option<Segment>,
        frame: &Frame<'_>,
        pool: &Pool,
        now: Instant,
    ) {
        let known = self.flows.tcp(number);
        let tcp = match (known, segment) {
            (Some(state), Some(segment)) => {
                Some(state.after(segment.flags, segment.end, segment.data))
            }
            (known, _) => known,
        };
        let mut idle_timeout = idle_timeout(tcp, frame, pool);
        if pool.stickiness == Stickiness::TwoTuple {
            // One flow of all protocols: the ping beside a connection does not shorten its life.
            idle_timeout = self.flows.longest_idle(number, idle_timeout);
        }
        self.flows.touch(number, tcp, idle_timeout, now);
        self.note_end(number, segment, frame);
    }

    /// Keeps what a reset of this end would have to fit to, if such may be sent.
    fn note_end(&mut self, number: FlowNumber, segment: Option<Segment>, frame: &Frame<'_>) {
        if !self.flows.keeps_ends() {
            return;
        }
        let numbers = TcpNumbers::of(frame.packet, &frame.inner);
        let Some((Segment { flags, end, .. }, numbers)) = segment.zip(numbers) else { return };
        if let Some(ack) = numbers.ack {
            self.flows.note_end(number, end, LastWord::Ack(ack));
        } else if opens(flags) {
            self.flows.note_end(number, end, LastWord::Syn(numbers.seq));
        }
    }

    /// Where a packet goes whose flow is not in the table, which it may be from now on.
    #[expect(clippy::too_many_arguments, reason = "all that it depends on")]
    fn begin(
        &mut self,
        view: &Snapshot,
        sought: &Sought,
        port: u8,
        segment: Option<Segment>,
        before: Option<FlowNumber>,
        frame: &Frame<'_>,
        pool: &Pool,
        now: Instant,
    ) -> Result<Way, DropReason> {
        let id = sought.id;
        let bypass = pool.traffic_mode == TrafficMode::Bypass;
        let reset = matches!(frame.inner.transport, Transport::Tcp { flags, .. }
            if flags.contains(TcpFlags::RST));
        let mut adopted = false;
        match frame.inner.transport {
            transport if is_tcp(frame) && !opening(&transport) && !bypass => {
                let lost = self.moved || self.admission.adopts(id.endpoint, pool, now);
                match pool.unknown_flow {
                    _ if lost => adopted = true,
                    UnknownFlow::Adopt => adopted = true,
                    _ if reset => return Err(DropReason::UnknownTcpFlow),
                    _ if pool.reset_idle => return Ok(Way::Reset(ReplyCause::IdleTimeout)),
                    UnknownFlow::Reset => return Ok(Way::Reset(ReplyCause::UnknownTcpFlow)),
                    UnknownFlow::Drop => return Err(DropReason::UnknownTcpFlow),
                }
            }
            _ => {}
        }
        let inspector = match before.and_then(|before| self.kept(before, pool)) {
            _ if bypass => Inspector::Bypass,
            Some(kept) => kept,
            None => Self::choose(view, &id, pool)?,
        };
        let placement = Placement { inspector, port };
        let mut number = None;
        if begins(&frame.inner.transport) {
            let tcp = segment.map(|segment| TcpState::begin(segment.flags, segment.end));
            let idle_timeout = idle_timeout(tcp, frame, pool);
            let flow = Flow { id, placement, tcp, deadline: now + idle_timeout };
            let placed = match before {
                Some(_) => Placed::Reopened,
                None if self.moved => Placed::Moved,
                None if adopted => Placed::Adopted,
                None => Placed::New,
            };
            number = if let Some(before) = before {
                self.reopen(view, before, flow, idle_timeout);
                Some(before)
            } else {
                let packet = (frame.segments(), is_tcp(frame));
                self.remember(view, sought.hash, flow, idle_timeout, packet, pool, now)
            };
            if let Some(number) = number {
                self.stats.flows.adopted.add(u64::from(adopted && before.is_none()));
                self.note_end(number, segment, frame);
                let initiator = (!adopted).then(|| end_of(&id, &sought.tuple));
                self.flows.begin_record(number, placed, initiator, now);
            }
        }
        Ok(Way::Placed(placement, number))
    }

    /// The target that a connection keeps which begins again: if it was reset and the target still
    /// gets new flows. A reset can be forged, and nobody is to move flows with one.
    fn kept(&self, before: FlowNumber, pool: &Pool) -> Option<Inspector> {
        let flow = self.flows.get(before);
        let Inspector::Target(target) = flow.placement.inspector else { return None };
        let reset = flow.tcp.is_some_and(TcpState::is_reset);
        let candidate = pool.candidates.iter().any(|it| it.target == target && it.weight > 0);
        (reset && candidate && pool.fate(target) == Fate::Stay).then_some(flow.placement.inspector)
    }

    /// Begins a connection anew where an older one of the same addresses and ports was.
    fn reopen(&mut self, view: &Snapshot, before: FlowNumber, flow: Flow, idle_timeout: Duration) {
        let old = self.flows.replace(before, flow, idle_timeout);
        self.stats.flows.reopened.add(1);
        self.end(view, &old);
        self.count_entered(view, &flow);
    }

    /// Takes a flow into the table, if there is room and it is not too many at once. A flow that is
    /// not taken in goes where it would go, packet by packet.
    #[expect(clippy::too_many_arguments, reason = "all that it depends on")]
    fn remember(
        &mut self,
        view: &Snapshot,
        hash: FlowHash,
        flow: Flow,
        idle_timeout: Duration,
        packet: (u64, bool),
        pool: &Pool,
        now: Instant,
    ) -> Option<FlowNumber> {
        let admitted = self.admission.take(now);
        let inserted =
            if admitted { self.flows.insert(flow, idle_timeout, hash).ok() } else { None };
        let Some((number, expired)) = inserted else {
            self.pass_untracked(&flow.id, packet, admitted, pool, now);
            return None;
        };
        if let Some(expired) = expired {
            self.stats.flows.expired.add(1);
            self.end(view, &expired);
        }
        self.count_entered(view, &flow);
        Some(number)
    }

    /// Counts a packet, so many segments of it, whose flow is not taken in: the table is full, or
    /// takes no more in that second.
    #[inline(never)]
    pub(super) fn pass_untracked(
        &mut self,
        id: &FlowId,
        (segments, is_tcp): (u64, bool),
        full: bool,
        pool: &Pool,
        now: Instant,
    ) {
        self.stats.flows.untracked.add(segments);
        let limit = if full { &self.stats.flows.table_full } else { &self.stats.flows.too_fast };
        limit.add(segments);
        if is_tcp {
            self.admission.overflow(id.endpoint, pool.timers.tcp_idle, now);
        }
    }

    /// Who inspects a flow that has nobody, or nobody any more.
    fn choose(view: &Snapshot, id: &FlowId, pool: &Pool) -> Result<Inspector, DropReason> {
        match choose(&view.keys.placement, &id.tuple, &pool.candidates) {
            Some(target) => Ok(Inspector::Target(target)),
            None => match pool.none {
                NoCandidate::Bypass => Ok(Inspector::Bypass),
                NoCandidate::Drop => Err(DropReason::NoTarget),
            },
        }
    }

    /// A flow is no more: it was taken from the table, or replaced.
    pub(super) fn end(&mut self, view: &Snapshot, gone: &Gone) {
        self.count_ended(view, &gone.flow);
        if let Some(life) = gone.life {
            self.stats.flow_life.record(life);
        }
        self.log_gone(view, gone);
    }

    /// A flow is in the table no more.
    fn count_ended(&self, view: &Snapshot, flow: &Flow) {
        if let Some(counters) = view.endpoint_counters(flow.id.endpoint, self.worker) {
            counters.ended_flows.add(1);
        }
        self.count_lost(view, flow.placement.inspector);
    }

    /// A flow is in the table.
    fn count_entered(&self, view: &Snapshot, flow: &Flow) {
        if let Some(counters) = view.endpoint_counters(flow.id.endpoint, self.worker) {
            counters.new_flows.add(1);
        }
        self.stats.flows.created.add(1);
        self.count_new(view, flow.placement.inspector);
    }

    fn count_lost(&self, view: &Snapshot, inspector: Inspector) {
        if let Inspector::Target(target) = inspector {
            self.counters(view, target).ended_flows.add(1);
        }
    }

    #[inline]
    fn count_new(&self, view: &Snapshot, inspector: Inspector) {
        if let Inspector::Target(target) = inspector {
            self.counters(view, target).new_flows.add(1);
        }
    }

    fn counters<'v>(&self, view: &'v Snapshot, target: TargetSlot) -> &'v TargetCounters {
        &view.target(target).counters[usize::from(self.worker.0)]
    }
}

/// Which end of a flow a packet with this tuple comes from: 0 for the one that the flow's tuple names
/// first.
pub(super) fn end_of(id: &FlowId, tuple: &FlowKey) -> usize {
    let first = id.tuple.directed();
    // Where the stickiness looks at no ports, addresses tell the ends apart.
    let ported = (first.src_port(), first.dst_port()) != (0, 0);
    let same = first.src() == tuple.src() && (!ported || first.src_port() == tuple.src_port());
    usize::from(!same)
}

/// Whether a packet begins a flow if there is none that it belongs to.
const fn begins(transport: &Transport) -> bool {
    match transport {
        // An error about a flow that nobody knows begins none: it goes where the flow would, if that
        // were to begin now.
        Transport::IcmpError { .. } => false,
        // The last word of a flow is nothing to remember it for.
        Transport::Tcp { flags, .. } => !flags.contains(TcpFlags::RST),
        _ => true,
    }
}

/// What of the packet its flow's state depends on, if the flow is one TCP connection.
fn segment(frame: &Frame<'_>, flow: &Sought, pool: &Pool) -> Option<Segment> {
    let Transport::Tcp { flags, header_len, .. } = frame.inner.transport else { return None };
    if pool.stickiness != Stickiness::FiveTuple {
        return None;
    }
    Some(Segment {
        flags,
        end: usize::from(flow.id.tuple.directed() != flow.tuple),
        data: frame.inner.total_len > frame.inner.header_len + header_len,
    })
}

/// Whether the packet is TCP, be it a fragment that shows nothing of it.
fn is_tcp(frame: &Frame<'_>) -> bool {
    frame.inner.flow_key().protocol() == protocol::TCP || frame.inner.protocol == protocol::TCP
}

/// Whether it can be seen that a packet opens a connection.
fn opening(transport: &Transport) -> bool {
    matches!(transport, Transport::Tcp { flags, .. } if opens(*flags))
}

/// How long a flow is remembered without a packet.
fn idle_timeout(tcp: Option<TcpState>, frame: &Frame<'_>, pool: &Pool) -> Duration {
    match tcp {
        Some(state) => state.idle_timeout(&pool.timers),
        None if is_tcp(frame) => pool.timers.tcp_idle,
        None => pool.timers.other_idle,
    }
}
