//! The short way for what nearly all packets are: ordinary ones of flows that are settled.
//!
//! A flow is settled when it has a target that keeps it, a cookie, and a connection that only goes
//! on. What has to be known of the configuration for its next packet is put together once for each
//! view. Everything else takes the long way, which decides the same for these ([`Ingress::shortcut`]
//! never says what [`Ingress::handle_packet`] would not).

#[cfg(test)]
mod tests;

use std::num::NonZero;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::utils::CachePadded;
use geneve::flow::Stickiness;
use geneve::inner::{IpVersion, Plain, TcpFlags};
use netio::mem::prefetch;
use netio::offload::Offload;
use router::{EndpointId, Lookups, NextHop, Routes};

use super::{Aim, IPV6_MIN_MTU, Ingress, Sought};
use crate::config::TrafficMode;
use crate::dataplane::flow_table::record::Seen;
use crate::dataplane::flow_table::{FlowHash, FlowId, FlowNumber, FlowTable, Further, Idle, Turn};
use crate::dataplane::frame::{Frame, Shape};
use crate::dataplane::keys::{PlacementKey, Stamper};
use crate::dataplane::select::TargetId;
use crate::dataplane::snapshot::{EndpointView, Fate, PoolId, Snapshot, TargetSlot, TargetView};
use crate::dataplane::stats::{EndpointCounters, TargetCounters};
use crate::dataplane::tcp_state::TcpState;
use crate::dataplane::verdict::{Course, Origin, WorkerId};
use crate::fault::{self, Fault};

/// An ordinary packet at an endpoint, and what can be told of its flow without having it at hand.
///
/// Good for the packet it was made from, as long as the [`Ingress`] takes no other view of the
/// configuration.
#[derive(Debug, Clone, Copy)]
pub struct Glance {
    pub(super) plain: Plain,
    pub(super) hash: FlowHash,
    /// What the packet stands for.
    pub shape: Shape,
    /// The flow's number in the table, most probably.
    guess: FlowNumber,
    pub(super) endpoint: EndpointId,
    /// The hash of its tuple by which a flow is placed, if the table seems not to know it.
    placing: Option<NonZero<u64>>,
}

impl Glance {
    /// Bytes of the packet by its IP header.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.plain.total_len()
    }

    /// What is noted of it in the record of its flow, which is told from others by all of its tuple.
    #[inline]
    pub(super) fn seen(&self) -> Seen {
        let plain = &self.plain;
        Seen {
            end: usize::from(plain.is_downward()),
            segments: self.shape.segments,
            bytes: self.bytes(),
            flags: plain.flags(),
        }
    }

    /// Bytes of all packets that it stands for, each with its headers.
    #[inline]
    fn bytes(&self) -> u64 {
        self.shape.bytes(self.plain.total_len(), self.plain.header_len())
    }

    /// The hash by which the flow is placed, where all of the tuple makes it.
    #[inline]
    pub(super) fn placing(&self, key: &PlacementKey) -> u64 {
        match self.placing {
            Some(hash) => hash.get(),
            None => self.place(key),
        }
    }

    #[cold]
    #[inline(never)]
    fn place(&self, key: &PlacementKey) -> u64 {
        key.hash_flow(self.plain.canonical())
    }

    /// A closer look at the packet, which is the one that was glanced at.
    #[inline]
    pub fn frame<'a>(&self, packet: &'a [u8], offload: &'a Offload) -> Frame<'a> {
        let inner = self.plain.inner(packet);
        Frame { packet: &packet[..inner.total_len], offload, inner, shape: self.shape }
    }

    /// How the flow is looked for on the long way.
    pub(super) fn aim(&self, shortcuts: &Shortcuts) -> Option<Aim> {
        let at = shortcuts.at(self.endpoint)?;
        let flow = Sought { id: at.id(&self.plain), hash: self.hash, tuple: self.plain.flow_key() };
        Some(Aim { endpoint: self.endpoint, flow })
    }
}

/// Where packets come in that are glanced at.
#[derive(Debug)]
pub struct Entrance<'a> {
    ingress: &'a Ingress,
    routes: Routes<'a>,
}

/// When a batch of packets came, as the [short ways](Ingress::shortcut) want it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    now: Instant,
    turn: Turn,
}

impl Moment {
    /// The time.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The same, as the flow table has it.
    pub(super) const fn turn(&self) -> Turn {
        self.turn
    }
}

/// How many packets ahead one is fetched: as long as a few glances take, memory does.
const AHEAD: usize = 8;

impl Entrance<'_> {
    /// Glances at each packet of a batch, in place of what `glances` had. Those that come next are
    /// fetched meanwhile: whoever has put them there may have left them in no cache near.
    #[inline]
    pub fn glance_all<'p>(
        &self,
        packets: impl ExactSizeIterator<Item = (&'p [u8], &'p Offload)> + Clone,
        glances: &mut Vec<Option<Glance>>,
    ) {
        let mut ahead = packets.clone();
        let mut fetch = || {
            if let Some(first) = ahead.next().and_then(|(packet, _)| packet.first()) {
                prefetch(first);
            }
        };
        (0..AHEAD).for_each(|_| fetch());
        let mut lookups = self.routes.lookups();
        glances.resize(packets.len(), None);
        let mut places = glances.iter_mut();
        for (packet, offload) in packets {
            let Some(glance) = places.next() else { break };
            fetch();
            self.glance(packet, offload, &mut lookups, glance);
        }
        // Nothing of an earlier batch is left, however few there were.
        places.for_each(|glance| *glance = None);
    }

    /// Looks at a packet that has just come, and has that part of the index fetched which knows its
    /// flow. `None`: it is not ordinary, or does not go to an endpoint.
    ///
    /// Each version has its own way all through, and what is found is written once, where it stays.
    #[inline]
    fn glance(
        &self,
        packet: &[u8],
        offload: &Offload,
        lookups: &mut Lookups<'_>,
        glance: &mut Option<Glance>,
    ) {
        let aimed = match (packet.first(), packet.first_chunk()) {
            (Some(0x45), Some(start)) => Plain::read_v4(start, packet.len())
                .and_then(|plain| self.aim(plain, IpVersion::V4, offload, lookups, glance)),
            (Some(0x60..=0x6f), _) => Plain::read_v6(packet)
                .and_then(|plain| self.aim(plain, IpVersion::V6, offload, lookups, glance)),
            _ => self.aim_short(packet, offload, lookups, glance),
        };
        if aimed.is_none() {
            *glance = None;
        }
    }

    /// The same for what may be a very short packet of UDP.
    #[inline(never)]
    fn aim_short(
        &self,
        packet: &[u8],
        offload: &Offload,
        lookups: &mut Lookups<'_>,
        glance: &mut Option<Glance>,
    ) -> Option<()> {
        let plain = Plain::read(packet)?;
        self.aim(plain, plain.version(), offload, lookups, glance)
    }

    #[expect(clippy::inline_always, reason = "it has to know which version the packet has")]
    #[inline(always)]
    fn aim(
        &self,
        plain: Plain,
        version: IpVersion,
        offload: &Offload,
        lookups: &mut Lookups<'_>,
        glance: &mut Option<Glance>,
    ) -> Option<()> {
        let Ingress { state, shortcuts, .. } = self.ingress;
        let NextHop::Endpoint(endpoint) = lookups.lookup(plain.dst()) else { return None };
        let at = shortcuts.at(endpoint)?;
        let shape = Shape::of_plain(&plain, offload);
        let hash = state.flows.hash_of(plain.canonical(), version, at.wire_id);
        let guess = FlowNumber::NOBODY;
        let glance = glance.insert(Glance { plain, hash, shape, guess, endpoint, placing: None });
        if at.stickiness != Stickiness::FiveTuple {
            at.aim_again(&state.flows, glance);
        }
        state.flows.prefetch_index(glance.hash);
        Some(())
    }
}

/// What settled flows need of a view.
#[derive(Debug, Default)]
pub(super) struct Shortcuts {
    /// By [`EndpointId`].
    endpoints: Vec<AtEndpoint>,
    /// By [`TargetSlot`](crate::dataplane::snapshot::TargetSlot).
    targets: Vec<ToTarget>,
}

/// What flows need of a target that they go to.
#[derive(Debug)]
pub(super) struct ToTarget {
    /// The largest inner packet, of IPv4 and of IPv6.
    pub fits: [u16; 2],
    pub id: TargetId,
    /// By worker.
    pub counters: Arc<[TargetCounters]>,
}

/// What they need of an endpoint.
#[derive(Debug)]
pub(super) struct AtEndpoint {
    pub wire_id: u64,
    /// How long a flow is remembered without a packet: a connection that is established, one that
    /// opens, and what is of another protocol.
    tcp_idle: Idle,
    pub half_open_idle: Idle,
    pub other_idle: Idle,
    stickiness: Stickiness,
    /// Whether packets may go the short ways here. What resets at both ends need is noted on the long
    /// way alone.
    pub open: bool,
    /// Whether what a SYN offers may have to be lowered.
    pub clamps: bool,
    /// Whether all targets keep their flows.
    all_stay: bool,
    /// The largest packet that goes to any target, of IPv4 and of IPv6.
    fits_all: [u16; 2],
    pub pool: PoolId,
    /// What makes the cookies of flows that begin.
    pub stamper: Stamper,
    /// The worker's own.
    pub counters: Arc<CachePadded<EndpointCounters>>,
}

impl AtEndpoint {
    /// What identifies the flow of a packet.
    #[inline]
    fn id(&self, plain: &Plain) -> FlowId {
        let tuple = match self.stickiness {
            Stickiness::FiveTuple => *plain.canonical(),
            other => plain.flow_key().sticky(other),
        };
        FlowId { endpoint: self.wire_id, tuple }
    }

    /// Has a packet's flow looked for by what makes one here, where that is not the whole tuple.
    #[cold]
    #[inline(never)]
    fn aim_again(&self, flows: &FlowTable, glance: &mut Glance) {
        glance.hash = flows.hash(&self.id(&glance.plain));
    }

    /// Counts a packet that goes to a target.
    #[inline]
    pub fn count(&self, glance: &Glance) {
        self.counters.inspected_packets.add(glance.shape.segments.into());
        self.counters.inspected_bytes.add(glance.bytes());
    }
}

/// With any of these, a packet does more than go on.
const NOT_PLAIN: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0);

impl Shortcuts {
    pub fn new(view: &Snapshot, worker: WorkerId) -> Self {
        let pools = view.pools.iter();
        let all_stay: Vec<_> =
            pools.map(|pool| pool.fates.iter().all(|fate| *fate == Fate::Stay)).collect();
        let to = |target: &TargetView| ToTarget {
            fits: fits(target),
            id: target.id,
            counters: Arc::clone(&target.counters),
        };
        let targets: Vec<_> = view.targets.iter().map(to).collect();
        let least = |version: usize| targets.iter().map(|it| it.fits[version]).min().unwrap_or(0);
        let fits_all = [0, 1].map(least);
        let keeps_ends = view.keeps_ends();
        let at = |&EndpointView { wire_id, pool, ref counters, .. }: &EndpointView| {
            let it = view.pool(pool);
            AtEndpoint {
                wire_id,
                tcp_idle: TcpState::ESTABLISHED.idle_timeout(&it.timers).into(),
                half_open_idle: TcpState::HALF_OPEN.idle_timeout(&it.timers).into(),
                other_idle: it.timers.other_idle.into(),
                stickiness: stickiness(it.stickiness),
                open: it.traffic_mode != TrafficMode::Bypass
                    && it.stickiness == Stickiness::FiveTuple
                    && !keeps_ends,
                clamps: it.mss_clamp,
                all_stay: all_stay[usize::from(pool.0)],
                fits_all,
                pool,
                stamper: view.keys.cookie.stamper(wire_id),
                counters: counters.of(worker.0),
            }
        };
        Self { endpoints: view.endpoints.iter().map(at).collect(), targets }
    }

    #[inline]
    pub fn at(&self, endpoint: EndpointId) -> Option<&AtEndpoint> {
        self.endpoints.get(endpoint.index())
    }

    #[inline]
    pub fn to(&self, target: TargetSlot) -> Option<&ToTarget> {
        self.targets.get(target.0 as usize)
    }
}

/// What makes two packets the same flow, where the configuration says this.
#[inline]
pub(super) fn stickiness(configured: Stickiness) -> Stickiness {
    if fault::on(Fault::StickinessIgnored) { Stickiness::FiveTuple } else { configured }
}

/// The largest inner packet that goes to a target, of IPv4 and of IPv6.
pub(in crate::dataplane) fn fits(target: &TargetView) -> [u16; 2] {
    let mtu = target.inner_mtu();
    // Every link has to carry as much of IPv6 (RFC 8200 section 5), and hosts believe no router that
    // says less; where it does not fit, the outer packet is fragmented.
    [mtu, mtu.max(IPV6_MIN_MTU)]
}

/// The part of such a pair that counts for a version.
#[inline]
pub(super) fn of_version<T>([v4, v6]: [T; 2], version: IpVersion) -> T {
    match version {
        IpVersion::V4 => v4,
        IpVersion::V6 => v6,
    }
}

impl Ingress {
    /// Where packets come in from this origin, for [glancing](Entrance::glance_all) at a batch of them.
    #[inline]
    pub fn entrance(&self, origin: Origin) -> Entrance<'_> {
        Entrance { ingress: self, routes: self.snapshot.topology.routes(origin.at) }
    }

    /// The moment at which packets came.
    pub fn moment(&mut self, now: Instant) -> Moment {
        Moment { now, turn: self.state.flows.at_turn(now) }
    }

    /// Has the flow itself fetched. The index should have come meanwhile.
    ///
    /// If the table seems not to know it, the hash is worked out by which it is placed should it begin:
    /// those of several packets, one after the other, take hardly longer than that of one.
    #[inline]
    pub fn prefetch(&self, glance: &mut Glance) {
        glance.guess = self.state.flows.prefetch(glance.hash);
        if glance.guess == FlowNumber::NOBODY {
            let key = &self.snapshot.keys.placement;
            glance.placing = NonZero::new(key.hash_flow(glance.plain.canonical()));
        }
    }

    /// The way of an ordinary packet whose flow is [settled](Self::settled) or [begins](Self::begun), for
    /// those who need not keep the two apart. `None`, and nothing has happened: the packet is for
    /// [`handle_glanced`](Self::handle_glanced).
    #[inline]
    pub fn shortcut(&mut self, glance: &Glance, at: &Moment) -> Option<Course> {
        match self.settled(glance, at) {
            None => self.begun(glance, at),
            found => found,
        }
    }

    /// The shortest way: of an ordinary packet whose flow is settled. `None`, and nothing has happened.
    #[inline]
    pub fn settled(&mut self, glance: &Glance, moment: &Moment) -> Option<Course> {
        let Self { snapshot, state, shortcuts } = self;
        let at = shortcuts.at(glance.endpoint)?;
        // Faults of the long way are to be seen there.
        if !at.open
            || fault::on_besides(&Fault::OF_SHORT_WAYS)
            || glance.plain.flags().intersects(NOT_PLAIN) && !fault::on(Fault::SettledDespiteFlags)
        {
            return None;
        }
        let plain = &glance.plain;
        let version = plain.version();
        let (tcp, idle) = if plain.is_tcp() {
            (Some(TcpState::ESTABLISHED), at.tcp_idle.nanos)
        } else {
            (None, at.other_idle.nanos)
        };
        let (tuple, endpoint) = (plain.canonical(), at.wire_id);
        let further = Further { tuple, version, endpoint, tcp, idle };
        let number = glance.guess;
        let found = state.flows.pass(number, &further, moment.turn, |target| {
            if at.all_stay && glance.shape.largest <= u32::from(of_version(at.fits_all, version)) {
                return true;
            }
            let fits = shortcuts.to(target).map_or(0, |it| of_version(it.fits, version));
            let stays = at.all_stay || snapshot.pool(at.pool).fate(target) == Fate::Stay;
            (glance.shape.largest <= u32::from(fits) || fault::on(Fault::SettledDespiteLength))
                && (stays || fault::on(Fault::SettledDespiteFate))
        })?;
        if state.flows.keeps_records() {
            state.flows.note(number, &glance.seen(), moment.now);
        }
        at.count(glance);
        Some(Course {
            pool: at.pool,
            port: found.port,
            target: found.target,
            endpoint: at.wire_id,
            cookie: found.cookie,
            version,
        })
    }
}
