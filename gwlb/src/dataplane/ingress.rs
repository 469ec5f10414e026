//! The way out: a packet from a TUN device, or one on its way to a further endpoint, is routed,
//! its flow found or made, and the hop to the appliance written.
//!
//! Each worker has one [`Ingress`]; it owns the flows whose hash says so and hands the packets of
//! others over. It reads no clock and sends nothing: what it decides on its own account, such as
//! resets of flows that lose their target, is taken out with [`Ingress::poll_reply`].

mod admission;
mod flows;
mod reset;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use geneve::dialect::Tags;
use geneve::flow::{FlowKey, KEY_LEN, Stickiness};
use geneve::header::ProtocolType;
use geneve::inner::{Fragment, Inner, IpVersion, Transport};
use router::{Attachment, EndpointId, Entry, NextHop};

use super::flow_table::{FlowId, FlowTable, Inspector, Placement};
use super::fragmentation::may_fragment;
use super::fragments::{FragmentId, FragmentTable, Waiting};
use super::frame::Frame;
use super::mss;
use super::reply::{self, RateLimit};
use super::snapshot::{PoolId, Snapshot};
use super::stats::WorkerStats;
use super::verdict::{
    Change, DropReason, GeneveHeader, Hop, Origin, Reply, ReplyCause, Verdict, WorkerId,
};
use crate::fault::{self, Fault};
use admission::Admission;
use flows::Way;
use reset::Sweep;

/// The half of the data plane that owns flows; one per worker.
#[derive(Debug)]
pub struct Ingress {
    worker: WorkerId,
    snapshot: Arc<Snapshot>,
    flows: FlowTable,
    admission: Admission,
    fragments: Arc<FragmentTable>,
    /// Fragments whose first one has come, to be handled by whoever has this.
    released: VecDeque<Waiting>,
    /// Goes through the table after targets whose flows are reset at both ends.
    sweep: Sweep,
    /// Whether the packet in hand was handed over.
    handed_over: bool,
    /// Packets that answer no packet.
    replies: VecDeque<Reply>,
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
    /// Keys the flow table's index.
    pub seed: u64,
    /// Shared by all workers.
    pub fragments: Arc<FragmentTable>,
    /// The worker's counters.
    pub stats: Arc<WorkerStats>,
}

/// The smallest MTU of IPv6 (RFC 8200 section 5).
const IPV6_MIN_MTU: u16 = 1280;

/// How many endpoints a packet may bypass in a row. Routes do not lead in circles; this is for a
/// topology that nobody would draw.
const MAX_BYPASSED: usize = 8;

impl Ingress {
    /// A worker's ingress, without flows.
    pub fn new(config: IngressConfig, snapshot: Arc<Snapshot>, now: Instant) -> Self {
        let mut ingress = Self {
            worker: config.worker,
            flows: FlowTable::new(config.max_flows, config.seed, now),
            admission: Admission::new(now),
            fragments: config.fragments,
            released: VecDeque::new(),
            sweep: Sweep::default(),
            handed_over: false,
            replies: VecDeque::new(),
            errors: RateLimit::new(now),
            resets: RateLimit::for_resets(now),
            stats: config.stats,
            snapshot: Arc::clone(&snapshot),
        };
        ingress.handle_snapshot(snapshot, now);
        ingress
    }

    /// Decides about a packet that came from `origin`.
    ///
    /// Drops and replies are counted here; what is to be sent, delivered or handed over is counted
    /// by whoever does it, when it is done. After each packet, [`Self::poll_released`] may have
    /// others that waited for it.
    pub fn handle_packet(&mut self, origin: Origin, frame: &Frame<'_>, now: Instant) -> Verdict {
        let verdict = self.route(origin, frame, now).unwrap_or_else(Verdict::Drop);
        let ledger = self.stats.ledger(origin.side);
        match &verdict {
            Verdict::Drop(reason) => {
                let one = fault::on(Fault::SuperPacketDropCountsOne);
                ledger.drops.add(*reason, if one { 1 } else { frame.segments() });
                if fault::on(Fault::DropCountedTwice) && self.handed_over {
                    ledger.drops.add(*reason, frame.segments());
                }
            }
            Verdict::Reply(_) => ledger.flow.replied.add(frame.segments()),
            Verdict::Held => ledger.flow.held.add(frame.segments()),
            Verdict::ToAppliance(_)
            | Verdict::Deliver(_)
            | Verdict::Bypass(_)
            | Verdict::HandOver(..) => {}
        }
        verdict
    }

    /// The same for a packet that another worker has handed over. What it did for all workers is
    /// not done again.
    pub fn handle_handover(&mut self, origin: Origin, frame: &Frame<'_>, now: Instant) -> Verdict {
        self.handed_over = true;
        let verdict = self.handle_packet(origin, frame, now);
        self.handed_over = false;
        verdict
    }

    /// Takes a new view of the configuration. Flows stay where they are, unless the view says of
    /// their target that they do not.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>, now: Instant) {
        self.sweep.begin_if(&self.snapshot, &snapshot, now);
        self.flows.keep_ends(snapshot.pools.iter().any(|pool| pool.reset_both_ends));
        self.admission.limit(snapshot.max_new_flows_per_second, now);
        self.stats.generation.announce(snapshot.generation);
        self.snapshot = snapshot;
    }

    /// Does what is due: forgets flows that have idled out, resets such as have lost their target,
    /// and gives up fragments whose first one did not come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
        self.sweep(now);
        self.give_up_fragments(now);
    }

    /// When [`Self::handle_timeout`] should be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let times = [self.flows.poll_timeout(), self.sweep.due(), self.fragments.poll_timeout()];
        times.into_iter().flatten().min()
    }

    /// A packet to be sent that answers none.
    pub fn poll_reply(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    /// A fragment that need not wait any more: it is to be handled as if it came now.
    pub fn poll_released(&mut self) -> Option<(Origin, Waiting)> {
        loop {
            let waiting = self.released.pop_front()?;
            let ledger = self.stats.ledger(waiting.from.side);
            ledger.flow.released.add(1);
            match self.snapshot.entry(waiting.from.at, waiting.epoch) {
                Some(at) => return Some((Origin { at, ..waiting.from }, waiting)),
                None if fault::on(Fault::ReconfiguredUncounted) => {}
                None => ledger.drops.add(DropReason::Reconfigured, 1),
            }
        }
    }

    fn route(
        &mut self,
        mut origin: Origin,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let came_from = origin;
        for bypassed in 0..=MAX_BYPASSED {
            match self.snapshot.topology.lookup(origin.at, frame.inner.dst) {
                NextHop::Endpoint(endpoint) => {
                    match self.balance(endpoint, origin, came_from, frame, now)? {
                        Balanced::Ends(verdict) => return Ok(verdict),
                        Balanced::Passes => {
                            origin.at = Entry::Endpoint(endpoint);
                            // Whoever handed it over has not seen it come to the next endpoint.
                            self.handed_over = false;
                        }
                    }
                }
                NextHop::Deliver(to) if !self.snapshot.attachments.contains_key(&to) => {
                    return Err(DropReason::NotAttached);
                }
                NextHop::Deliver(to) if bypassed > 0 => return Ok(Verdict::Bypass(to)),
                NextHop::Deliver(to) => return Ok(Verdict::Deliver(to)),
                other => return Err(no_way(other)),
            }
        }
        Err(DropReason::RoutingLoop)
    }

    /// What becomes of a packet at an endpoint.
    fn balance(
        &mut self,
        endpoint: EndpointId,
        origin: Origin,
        came_from: Origin,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<Balanced, DropReason> {
        let snapshot = Arc::clone(&self.snapshot);
        let view = snapshot.endpoint(endpoint);
        let pool = snapshot.pool(view.pool);
        let Some(tuple) = self.tuple(view.wire_id, origin, frame, now)? else {
            return Ok(Balanced::Ends(Verdict::Held));
        };
        let stickiness = if fault::on(Fault::StickinessIgnored) {
            Stickiness::FiveTuple
        } else {
            pool.stickiness
        };
        let id = FlowId { endpoint: view.wire_id, tuple: tuple.sticky(stickiness) };
        let lot = if fault::on(Fault::OwnerByDirection) {
            snapshot.keys.ownership.hash(&tuple.to_bytes())
        } else {
            snapshot.keys.ownership.hash(&flow_bytes(&id))
        };
        let owner = WorkerId((lot % u64::from(snapshot.workers)) as u16);
        let stays = fault::on(Fault::FragmentStaysAtReader)
            && matches!(frame.inner.fragment, Fragment::Later { .. });
        if owner != self.worker && !stays {
            return Ok(Balanced::Ends(Verdict::HandOver(owner, origin)));
        }
        self.fragments.notice(&frame.inner);
        let port = (lot / u64::from(snapshot.workers) % u64::from(snapshot.source_ports)) as u16;

        let placement = match self.find_or_make(id, port, &tuple, frame, pool, now)? {
            Way::Placed(placement) => placement,
            Way::Reset(cause) => {
                let reply = self.answer(came_from, frame, endpoint, cause, 0, now)?;
                return Ok(Balanced::Ends(reply));
            }
        };
        let Inspector::Target(slot) = placement.inspector else { return Ok(Balanced::Passes) };
        let fits = match frame.inner.version {
            IpVersion::V4 => snapshot.target(slot).inner_mtu(),
            // Every link has to carry as much of IPv6 (RFC 8200 section 5), and hosts believe no
            // router that says less; where it does not fit, the outer packet is fragmented.
            IpVersion::V6 => snapshot.target(slot).inner_mtu().max(IPV6_MIN_MTU),
        };
        let mut change = None;
        if frame.shape.largest > u32::from(fits) {
            if !may_fragment(&frame.inner) {
                let cause = ReplyCause::PacketTooBig;
                let reply = self.answer(came_from, frame, endpoint, cause, fits, now)?;
                return Ok(Balanced::Ends(reply));
            }
            change = Some(Change::Fragment(fits));
        } else if (pool.mss_clamp || fault::on(Fault::MssClampUnasked))
            && mss::needs_clamp(frame, fits)
        {
            change = Some(Change::ClampMss(fits));
        }
        let hop = hop(&snapshot, view.pool, &id, placement, slot, &frame.inner, change);
        Ok(Balanced::Ends(Verdict::ToAppliance(hop)))
    }

    /// The tuple that decides to which flow the packet belongs: its own, that of its first
    /// fragment, or that of the packet that an ICMP error is about. `None`: it waits for its first
    /// fragment.
    fn tuple(
        &mut self,
        endpoint: u64,
        origin: Origin,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<Option<FlowKey>, DropReason> {
        let inner = &frame.inner;
        if self.fragments.refuses(inner) && !fault::on(Fault::TooLongFragmentPasses) {
            return Err(DropReason::MalformedPacket);
        }
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
            Fragment::Whole => Ok(Some(match inner.transport {
                Transport::IcmpError { about, .. } if !fault::on(Fault::IcmpErrorByOwnTuple) => {
                    about
                }
                _ => inner.flow_key(),
            })),
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
                let epoch = self.snapshot.topology_epoch;
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

    fn give_up_fragments(&mut self, now: Instant) {
        for waiting in self.fragments.expire(now) {
            let ledger = self.stats.ledger(waiting.from.side);
            ledger.flow.released.add(1);
            ledger.drops.add(DropReason::FragmentWithoutFirst, 1);
        }
    }

    /// Answers the packet instead of forwarding it, unless an answer is not allowed or too many
    /// were sent.
    fn answer(
        &mut self,
        came_from: Origin,
        frame: &Frame<'_>,
        endpoint: EndpointId,
        cause: ReplyCause,
        mtu: u16,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let refused = match cause {
            ReplyCause::PacketTooBig => DropReason::ExceedsMtu,
            ReplyCause::UnknownTcpFlow | ReplyCause::IdleTimeout => DropReason::UnknownTcpFlow,
            ReplyCause::TargetGone(_) => DropReason::TargetGone,
        };
        let to = match came_from.at {
            Entry::InternetGateway(id) => Some(Attachment::InternetGateway(id)),
            Entry::Subnet(id) => Some(Attachment::Subnet(id)),
            at @ Entry::Endpoint(_) => match self.snapshot.topology.lookup(at, frame.inner.src) {
                NextHop::Deliver(to) => Some(to),
                _ => None,
            },
        };
        let to = to.filter(|to| self.snapshot.attachments.contains_key(to)).ok_or(refused)?;
        let (packet, limit) = match cause {
            // One for each packet of a flow that was taken in, and then the flow is over.
            ReplyCause::TargetGone(_) => (reply::tcp_reset(frame.packet, &frame.inner), None),
            ReplyCause::PacketTooBig => {
                let addresses = self.snapshot.endpoint(endpoint).addresses.iter().copied();
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
        self.count_reset(cause, 1);
        Ok(Verdict::Reply(Reply { to, packet, cause }))
    }
}

/// What becomes of a packet at an endpoint.
enum Balanced {
    /// This, and nothing further.
    Ends(Verdict),
    /// It goes on as if an appliance had returned it.
    Passes,
}

/// The name of a look-up's result that leads nowhere.
pub(super) fn no_way(hop: NextHop) -> DropReason {
    match hop {
        NextHop::Blackhole => DropReason::Blackhole,
        NextHop::NoSubnet => DropReason::NoSubnet,
        NextHop::Loop => DropReason::RoutingLoop,
        NextHop::NoRoute | NextHop::Deliver(_) | NextHop::Endpoint(_) => DropReason::NoRoute,
    }
}

/// The flow as bytes, the same on every gateway.
fn flow_bytes(flow: &FlowId) -> [u8; 8 + KEY_LEN] {
    let mut bytes = [0; 8 + KEY_LEN];
    bytes[..8].copy_from_slice(&flow.endpoint.to_be_bytes());
    bytes[8..].copy_from_slice(&flow.tuple.to_bytes());
    bytes
}

/// Writes the Geneve header for a packet's way to the target of its flow.
fn hop(
    snapshot: &Snapshot,
    pool: PoolId,
    flow: &FlowId,
    placement: Placement,
    slot: super::snapshot::TargetSlot,
    inner: &Inner,
    change: Option<Change>,
) -> Hop {
    let target = snapshot.target(slot);
    // Of fragments, the return path sees no ports.
    let key = match change {
        Some(Change::Fragment(_)) => inner.flow_key().portless(),
        _ if fault::on(Fault::CookieWithoutPorts) => inner.flow_key().portless(),
        _ => inner.flow_key(),
    };
    let cookie = snapshot.keys.cookie.stamp(flow.endpoint, target.id, &key.canonical());
    let tags = Tags { endpoint: flow.endpoint, attachment: 0, cookie };
    let protocol = match inner.version {
        IpVersion::V4 => ProtocolType::IPV4,
        IpVersion::V6 => ProtocolType::IPV6,
    };
    Hop {
        pool,
        port: placement.port,
        target: slot,
        address: target.address,
        header: GeneveHeader::write(target.dialect, &tags, protocol),
        change,
    }
}
