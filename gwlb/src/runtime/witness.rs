//! What a worker shows of the packets that it carries to those who look at them: captures, and
//! examples of what was dropped.
//!
//! Nobody who looks holds up a packet. While nobody captures, a batch costs a look at what is asked
//! for and a branch; a drop costs the question whether an example of its reason is due.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use geneve::header::BASE_LEN;
use geneve::{FlowKey, IpVersion, flow_of_start};
use netio::Slot;
use netio::offload::Offload;
use router::{Attachment, Entry};

use super::capture::{Budget, Plan, Point, Seen, Taps};
use super::drops::DropRecord;
use crate::dataplane::encap::Batch;
use crate::dataplane::frame::Frame;
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::verdict::{DropReason, Origin, ReturnVerdict, Returned, Side, WorkerId};

/// Between two examples of one reason that a worker keeps: so many drops cost no more than ten a
/// second.
const BETWEEN_EXAMPLES: Duration = Duration::from_millis(100);

/// Where a packet was, and what its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// It has come in here, or so far: an IP packet.
    At(Origin),
    /// It was to leave here: an IP packet.
    Leaving { to: Attachment, side: Side },
    /// It was in a place that is there no more: an IP packet.
    Gone(Side),
    /// It came from an appliance, or from whoever claims to be one: a datagram with its Geneve
    /// header.
    From { peer: SocketAddr, local: SocketAddr },
    /// It was on its way to an appliance: a datagram with its Geneve header.
    To { peer: SocketAddr, local: SocketAddr, side: Side },
}

impl Whereabouts {
    /// A datagram that came from `peer` to a port of ours.
    pub fn from_peer(peer: SocketAddr, local: IpAddr, port: u16) -> Self {
        Self::From { peer, local: SocketAddr::new(local, port) }
    }

    /// The IP version of the outer headers that belong around its bytes; `None` for what has none.
    pub fn outer(&self) -> Option<IpVersion> {
        match self {
            Self::From { peer, .. } | Self::To { peer, .. } => Some(IpVersion::of(peer.ip())),
            Self::At(_) | Self::Leaving { .. } | Self::Gone(_) => None,
        }
    }

    /// In whose ledger the packet is counted.
    pub fn side(&self) -> Side {
        match self {
            Self::At(Origin { side, .. }) | Self::Leaving { side, .. } | Self::To { side, .. } => {
                *side
            }
            Self::Gone(side) => *side,
            Self::From { .. } => Side::Udp,
        }
    }
}

/// A packet that has ended, and what there is of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropped<'a> {
    /// Why.
    pub reason: DropReason,
    /// How many packets it stands for, as they were counted.
    pub segments: u64,
    /// How far it had come.
    pub whereabouts: Whereabouts,
    /// Its bytes, piece by piece.
    pub pieces: &'a [IoSlice<'a>],
    /// What was left to be done with it.
    pub offload: &'a Offload,
}

/// The eyes of one worker.
#[derive(Debug)]
pub(super) struct Witness {
    id: WorkerId,
    /// What is asked for.
    plan: Cache<Arc<ArcSwap<Plan>>, Arc<Plan>>,
    /// The number of that which was taken up.
    taken_up: u64,
    taps: Option<Box<Taps>>,
    /// How long the taps may look.
    budget: Budget,
    /// When the present batch came.
    now: Instant,
    record: Arc<DropRecord>,
    /// By reason: no example is kept before this.
    quiet_until: [Instant; DropReason::ALL.len()],
}

impl Witness {
    /// The eyes of a worker that keeps its examples in `record`.
    pub fn new(
        id: WorkerId,
        plan: Arc<ArcSwap<Plan>>,
        record: Arc<DropRecord>,
        now: Instant,
    ) -> Self {
        let (plan, quiet_until) = (Cache::new(plan), [now; DropReason::ALL.len()]);
        let budget = Budget::new(now);
        Self { id, plan, taken_up: 0, taps: None, budget, now, record, quiet_until }
    }

    /// Before each batch: looks what is asked for.
    #[inline]
    pub fn look(&mut self, now: Instant) {
        self.now = now;
        let plan = self.plan.load();
        if plan.number != self.taken_up {
            self.taken_up = plan.number;
            let had = self.taps.take();
            if had.is_none() {
                self.budget = Budget::new(now);
            }
            self.taps = Taps::for_plan(plan, usize::from(self.id.0), had);
        }
        if self.taps.is_some() {
            self.budget.refill(now);
        }
    }

    /// After each batch.
    #[inline]
    pub fn settle(&mut self) {
        if let Some(taps) = &mut self.taps {
            taps.settle();
        }
    }

    /// Whether anybody looks at what is seen there.
    #[inline]
    pub fn looks_at(&self, point: Point) -> bool {
        self.taps.as_ref().is_some_and(|taps| taps.has(point))
    }

    /// Whether captures look at so many packets more at a point; if not, they are told how many they
    /// have missed.
    fn has_time(&mut self, point: Point, packets: usize) -> bool {
        if !self.budget.is_spent() {
            return true;
        }
        if let Some(taps) = &mut self.taps {
            taps.pass_by(point, packets as u64);
        }
        false
    }

    fn is_meant(&self, point: Point, flow: Option<&FlowKey>, shown: Option<&FlowKey>) -> bool {
        self.taps.as_ref().is_some_and(|taps| taps.mean(point, flow, shown))
    }

    /// Sees packets as they have come from a device, before anything is done with them.
    #[cold]
    pub fn came_in(&mut self, view: &Arc<Snapshot>, at: Attachment, slots: &[Slot<Offload>]) {
        if !self.has_time(Point::In, slots.len()) {
            return;
        }
        let look = self.budget.begin(Point::In, slots.len());
        let whereabouts = Whereabouts::At(Entry::from(at).into());
        for Slot { packet, meta } in slots {
            let bytes = packet.bytes();
            let head = view.translation(at).and_then(|it| it.inward_head(bytes, meta));
            let shown = flow_of_start(bytes);
            let flow = head.as_ref().map_or(shown, |head| flow_of_start(head.bytes()));
            if self.is_meant(Point::In, flow.as_ref(), shown.as_ref()) {
                let segments = Frame::parse(bytes, meta).map_or(1, |frame| frame.segments());
                let seen = self.seen(Point::In, whereabouts, segments, flow, meta);
                self.see(view, &Seen { shown, ..seen }, &[IoSlice::new(bytes)]);
            }
        }
        self.budget.end(&look);
    }

    /// Sees a packet that was written to a device: how it begins inside, and its pieces as they were
    /// written.
    #[cold]
    pub fn left(
        &mut self,
        view: &Arc<Snapshot>,
        (to, side): (Attachment, Side),
        segments: u64,
        (inside, pieces): (&[u8], &[IoSlice<'_>]),
        offload: &Offload,
    ) {
        if !self.has_time(Point::Out, 1) {
            return;
        }
        let look = self.budget.begin(Point::Out, 1);
        let whereabouts = Whereabouts::Leaving { to, side };
        let seen = self.seen(Point::Out, whereabouts, segments, flow_of_start(inside), offload);
        let shown = pieces.first().and_then(|start| flow_of_start(start));
        self.see(view, &Seen { shown, ..seen }, pieces);
        self.budget.end(&look);
    }

    /// Sees datagrams that were sent to an appliance.
    #[cold]
    pub fn sent(&mut self, view: &Arc<Snapshot>, to: Whereabouts, batch: &Batch<'_>) {
        if !self.has_time(Point::ToAppliance, batch.segments) {
            return;
        }
        let look = self.budget.begin(Point::ToAppliance, batch.segments);
        // In several pieces there are the segments of one packet.
        let one = inner_flow(batch.pieces).filter(|_| batch.pieces.len() > 1);
        if one.is_none_or(|flow| self.is_meant(Point::ToAppliance, Some(&flow), None)) {
            batch.singly(|datagram| {
                let flow = one.or_else(|| inner_flow(datagram.pieces));
                let seen = self.seen(Point::ToAppliance, to, 1, flow, &Offload::NONE);
                self.see(view, &seen, datagram.pieces);
            });
        }
        self.budget.end(&look);
    }

    /// Sees a datagram that came from an appliance, and what was made of it.
    #[cold]
    pub fn came_back(
        &mut self,
        view: &Arc<Snapshot>,
        from: Whereabouts,
        datagram: &[u8],
        verdict: &ReturnVerdict,
    ) {
        if !self.has_time(Point::FromAppliance, 1) {
            return;
        }
        let look = self.budget.begin(Point::FromAppliance, 1);
        let pieces = [IoSlice::new(datagram)];
        let flow = match verdict {
            ReturnVerdict::Accept(Returned { plain: Some(plain), .. }) => Some(plain.flow_key()),
            _ => inner_flow(&pieces),
        };
        let seen = self.seen(Point::FromAppliance, from, 1, flow, &Offload::NONE);
        self.see(view, &seen, &pieces);
        self.budget.end(&look);
    }

    #[cold]
    fn ended(&mut self, view: &Arc<Snapshot>, dropped: &Dropped<'_>) {
        if !self.has_time(Point::Drop, 1) {
            return;
        }
        let look = self.budget.begin(Point::Drop, 1);
        let Dropped { reason, segments, whereabouts, pieces, offload } = *dropped;
        let flow = match whereabouts.outer() {
            Some(_) => inner_flow(pieces),
            None => pieces.first().and_then(|start| flow_of_start(start)),
        };
        let seen = self.seen(Point::Drop, whereabouts, segments, flow, offload);
        self.see(view, &Seen { reason: Some(reason), ..seen }, pieces);
        self.budget.end(&look);
    }

    fn seen(
        &self,
        point: Point,
        whereabouts: Whereabouts,
        segments: u64,
        flow: Option<FlowKey>,
        offload: &Offload,
    ) -> Seen {
        Seen {
            point,
            now: self.now,
            whereabouts,
            segments,
            flow,
            shown: None,
            reason: None,
            unfinished: offload.checksum.is_some(),
        }
    }

    fn see(&mut self, view: &Arc<Snapshot>, seen: &Seen, pieces: &[IoSlice<'_>]) {
        if let Some(taps) = &mut self.taps {
            taps.see(view, seen, pieces);
        }
    }

    /// Whoever drops a packet, in this worker, tells it here, once it is counted.
    #[inline]
    pub fn dropped(&mut self, view: &Arc<Snapshot>, dropped: &Dropped<'_>) {
        let quiet_until = &mut self.quiet_until[dropped.reason as usize];
        if *quiet_until <= self.now {
            *quiet_until = self.now + BETWEEN_EXAMPLES;
            self.record.keep(self.id, view, dropped);
        }
        if self.looks_at(Point::Drop) {
            self.ended(view, dropped);
        }
    }
}

/// The flow inside of a datagram, whose Geneve header may be a piece by itself.
fn inner_flow(pieces: &[IoSlice<'_>]) -> Option<FlowKey> {
    let (first, others) = pieces.split_first()?;
    // RFC 8926 section 3.4: the length of the options, in words, is in the low six bits.
    let len = BASE_LEN + usize::from(first.first()? & 0x3f) * 4;
    match first.get(len..)? {
        [] => flow_of_start(others.first()?),
        inner => flow_of_start(inner),
    }
}
