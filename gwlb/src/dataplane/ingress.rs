//! The way out: a packet from a TUN device, or one on its way to a further endpoint, is routed,
//! its flow found or made, and the hop to the appliance written.
//!
//! Each worker has one [`Ingress`]; it owns the flows whose hash says so and hands the packets of
//! others over. It reads no clock and sends nothing.

use std::sync::Arc;
use std::time::Instant;

use geneve::dialect::Tags;
use geneve::flow::{FlowKey, KEY_LEN};
use geneve::header::ProtocolType;
use geneve::inner::{Fragment, Inner, IpVersion, TcpFlags, Transport, protocol};
use router::{Attachment, EndpointId, Entry, NextHop};

use super::flow_table::{FlowId, FlowTable, Placement};
use super::fragments::{FragmentId, FragmentTable};
use super::frame::Frame;
use super::reply::{self, RateLimit};
use super::select::choose;
use super::snapshot::{Pool, Snapshot};
use super::stats::{Ledger, WorkerStats};
use super::verdict::{DropReason, GeneveHeader, Hop, Reply, ReplyCause, Verdict, WorkerId};
use crate::config::UnknownFlow;

/// The half of the data plane that owns flows; one per worker.
#[derive(Debug)]
pub struct Ingress {
    worker: WorkerId,
    snapshot: Arc<Snapshot>,
    flows: FlowTable,
    fragments: Arc<FragmentTable>,
    replies: RateLimit,
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

/// Which ledger a packet is counted in: that of the side where it entered.
pub fn ledger(stats: &WorkerStats, from: Entry) -> &Ledger {
    match from {
        Entry::Endpoint(_) => &stats.udp,
        Entry::InternetGateway(_) | Entry::Subnet(_) => &stats.tun,
    }
}

impl Ingress {
    /// A worker's ingress, without flows.
    pub fn new(config: IngressConfig, snapshot: Arc<Snapshot>, now: Instant) -> Self {
        Self {
            worker: config.worker,
            snapshot,
            flows: FlowTable::new(config.max_flows, config.seed, now),
            fragments: config.fragments,
            replies: RateLimit::new(now),
            stats: config.stats,
        }
    }

    /// Decides about a packet that entered at `from`.
    ///
    /// Drops and replies are counted here; what is to be sent, delivered or handed over is counted
    /// by whoever does it, when it is done.
    pub fn handle_packet(&mut self, from: Entry, frame: &Frame<'_>, now: Instant) -> Verdict {
        let verdict = self.route(from, frame, now).unwrap_or_else(Verdict::Drop);
        let ledger = ledger(&self.stats, from);
        match &verdict {
            Verdict::Drop(reason) => ledger.drops.add(*reason, frame.segments()),
            Verdict::Reply(_) => ledger.flow.replied.add(frame.segments()),
            Verdict::ToAppliance(_) | Verdict::Deliver(_) | Verdict::HandOver(_) => {}
        }
        verdict
    }

    /// Takes a new view of the configuration. Flows stay where they are.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// Forgets idle flows.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.stats.flows.expired.add(self.flows.handle_timeout(now));
    }

    /// When [`Self::handle_timeout`] should be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.flows.poll_timeout()
    }

    fn route(
        &mut self,
        from: Entry,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        match self.snapshot.topology.lookup(from, frame.inner.dst) {
            NextHop::Endpoint(endpoint) => self.balance(endpoint, from, frame, now),
            NextHop::Deliver(to) if self.snapshot.attachments.contains_key(&to) => {
                Ok(Verdict::Deliver(to))
            }
            NextHop::Deliver(_) => Err(DropReason::NotAttached),
            other => Err(no_way(other)),
        }
    }

    fn balance(
        &mut self,
        endpoint: EndpointId,
        from: Entry,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let snapshot = Arc::clone(&self.snapshot);
        let pool = snapshot.pool(snapshot.endpoint(endpoint).pool);
        let tuple = self.tuple(endpoint, &frame.inner, now)?;
        let flow = FlowId { endpoint, tuple: tuple.sticky(pool.stickiness) };
        let lot = snapshot.keys.ownership.hash(&flow_bytes(&snapshot, &flow));
        let owner = WorkerId((lot % u64::from(snapshot.workers)) as u16);
        if owner != self.worker {
            return Ok(Verdict::HandOver(owner));
        }
        let port = (lot / u64::from(snapshot.workers) % u64::from(snapshot.source_ports)) as u16;

        let idle_timeout = if tuple.protocol() == protocol::TCP {
            pool.timers.tcp_idle
        } else {
            pool.timers.other_idle
        };
        let placement = match self.flows.touch(&flow, idle_timeout, now) {
            Some(placement) => placement,
            None => match self.place(frame, &flow, port, pool)? {
                Place::Flow(placement) => {
                    let expired = self
                        .flows
                        .insert(flow, placement, idle_timeout, now)
                        .map_err(|_| DropReason::FlowTableFull)?;
                    self.stats.flows.created.add(1);
                    self.stats.flows.expired.add(u64::from(expired.is_some()));
                    let target = snapshot.target(placement.target);
                    target.counters[usize::from(self.worker.0)].new_flows.add(1);
                    placement
                }
                Place::Once(placement) => placement,
                Place::Reset => {
                    return self.reply(from, frame, endpoint, ReplyCause::UnknownTcpFlow, 0, now);
                }
            },
        };

        let target = snapshot.target(placement.target);
        let fits = target.inner_mtu();
        if frame.shape.largest > u32::from(fits) {
            return if frame.inner.dont_fragment || frame.inner.version == IpVersion::V6 {
                self.reply(from, frame, endpoint, ReplyCause::PacketTooBig, fits, now)
            } else {
                Err(DropReason::ExceedsMtu)
            };
        }
        Ok(Verdict::ToAppliance(hop(&snapshot, endpoint, placement, &frame.inner)))
    }

    /// The tuple that decides to which flow the packet belongs: its own, that of its first
    /// fragment, or that of the packet that an ICMP error is about.
    fn tuple(
        &self,
        endpoint: EndpointId,
        inner: &Inner,
        now: Instant,
    ) -> Result<FlowKey, DropReason> {
        let fragment = |id| FragmentId {
            endpoint: self.snapshot.endpoint(endpoint).wire_id,
            src: inner.src,
            dst: inner.dst,
            // As all fragments state it: what follows the fragment header may be an extension
            // header, and only the first fragment shows what comes behind that.
            protocol: inner.flow_key().protocol(),
            id,
        };
        match inner.fragment {
            Fragment::Whole => Ok(match inner.transport {
                Transport::IcmpError { about, .. } => about,
                _ => inner.flow_key(),
            }),
            Fragment::First { id } => {
                let flow = inner.ported_key().unwrap_or_else(|| inner.flow_key());
                // Nothing waits for it yet: nothing is held.
                let _ = self.fragments.first(fragment(id), flow, now);
                Ok(flow)
            }
            Fragment::Later { id, .. } => {
                self.fragments.later(&fragment(id), now).ok_or(DropReason::FragmentWithoutFirst)
            }
        }
    }

    /// Where a packet goes whose flow is not in the table.
    fn place(
        &self,
        frame: &Frame<'_>,
        flow: &FlowId,
        port: u16,
        pool: &Pool,
    ) -> Result<Place, DropReason> {
        let choose = |flow: &FlowId| {
            let target = choose(&self.snapshot.keys.placement, &flow.tuple, &pool.candidates)
                .ok_or(DropReason::NoTarget)?;
            Ok::<_, DropReason>(Placement { target, port })
        };
        match frame.inner.transport {
            // An error about a flow that nobody knows begins none: it goes where errors between
            // these two hosts go.
            Transport::IcmpError { .. } => {
                let tuple = frame.inner.flow_key().sticky(pool.stickiness);
                choose(&FlowId { tuple, ..*flow }).map(Place::Once)
            }
            Transport::Tcp { flags, .. } if !flags.contains(TcpFlags::SYN) => {
                match pool.unknown_flow {
                    UnknownFlow::Adopt => choose(flow).map(Place::Flow),
                    UnknownFlow::Reset if !flags.contains(TcpFlags::RST) => Ok(Place::Reset),
                    UnknownFlow::Reset | UnknownFlow::Drop => Err(DropReason::UnknownTcpFlow),
                }
            }
            _ => choose(flow).map(Place::Flow),
        }
    }

    /// Answers the packet instead of forwarding it, unless an answer is not allowed or too many
    /// were sent.
    fn reply(
        &mut self,
        from: Entry,
        frame: &Frame<'_>,
        endpoint: EndpointId,
        cause: ReplyCause,
        mtu: u16,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let refused = match cause {
            ReplyCause::PacketTooBig => DropReason::ExceedsMtu,
            ReplyCause::UnknownTcpFlow => DropReason::UnknownTcpFlow,
        };
        let to = match from {
            Entry::InternetGateway(id) => Some(Attachment::InternetGateway(id)),
            Entry::Subnet(id) => Some(Attachment::Subnet(id)),
            Entry::Endpoint(_) => match self.snapshot.topology.lookup(from, frame.inner.src) {
                NextHop::Deliver(to) => Some(to),
                _ => None,
            },
        };
        let to = to.filter(|to| self.snapshot.attachments.contains_key(to)).ok_or(refused)?;
        let source = self.snapshot.endpoint(endpoint).addresses.iter().copied();
        let packet = match cause {
            ReplyCause::PacketTooBig => {
                let source = source
                    .into_iter()
                    .find(|address| address.is_ipv4() == frame.inner.dst.is_ipv4())
                    .unwrap_or(frame.inner.dst);
                reply::packet_too_big(frame.packet, &frame.inner, source, mtu)
            }
            ReplyCause::UnknownTcpFlow => reply::tcp_reset(frame.packet, &frame.inner),
        };
        let packet = packet.ok_or(refused)?;
        if !self.replies.take(now) {
            return Err(refused);
        }
        Ok(Verdict::Reply(Reply { to, packet, cause }))
    }
}

/// What [`Ingress::place`] says.
enum Place {
    /// A new flow.
    Flow(Placement),
    /// This one packet, without a flow.
    Once(Placement),
    /// Nowhere: its sender is to be told.
    Reset,
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

/// The flow as bytes, with the endpoint by its wire id: the same on every gateway.
fn flow_bytes(snapshot: &Snapshot, flow: &FlowId) -> [u8; 8 + KEY_LEN] {
    let mut bytes = [0; 8 + KEY_LEN];
    bytes[..8].copy_from_slice(&snapshot.endpoint(flow.endpoint).wire_id.to_be_bytes());
    bytes[8..].copy_from_slice(&flow.tuple.to_bytes());
    bytes
}

/// Writes the Geneve header for a packet's way to the target of its flow.
fn hop(snapshot: &Snapshot, endpoint: EndpointId, placement: Placement, inner: &Inner) -> Hop {
    let view = snapshot.endpoint(endpoint);
    let target = snapshot.target(placement.target);
    let cookie = snapshot.keys.cookie.stamp(view.wire_id, target.id, &inner.flow_key().canonical());
    let tags = Tags { endpoint: view.wire_id, attachment: 0, cookie };
    let protocol = match inner.version {
        IpVersion::V4 => ProtocolType::IPV4,
        IpVersion::V6 => ProtocolType::IPV6,
    };
    Hop {
        pool: view.pool,
        port: placement.port,
        target: placement.target,
        address: target.address,
        header: GeneveHeader::write(target.dialect, &tags, protocol),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netio::offload::{Offload, PartialChecksum, Segmentation};

    use super::super::testing::{CLIENT, Plane, SERVER, ack, syn, udp};
    use super::*;

    #[test]
    fn both_directions_go_to_one_appliance_by_one_port_with_one_cookie() {
        let mut plane = Plane::new("drop");
        let (igw, app) = (plane.igw, plane.app);
        let mut targets = std::collections::BTreeSet::new();
        for port in 1..=100 {
            let there = plane.hop(igw, &syn(CLIENT, SERVER, (port, 80)));
            let back = plane.hop(app, &ack(SERVER, CLIENT, (80, port), b"hello"));
            assert_eq!(there, back);
            targets.insert(there.target);
        }
        assert_eq!(targets.len(), 2, "both appliances have flows");
        assert_eq!(plane.totals().flows.created, 100, "as many as the table takes");
        let one_more = plane.send(igw, &syn(CLIENT, SERVER, (101, 80)));
        assert!(matches!(one_more, Verdict::Drop(DropReason::FlowTableFull)), "{one_more:?}");
    }

    #[test]
    fn routes_lead_elsewhere_too() {
        let mut plane = Plane::new("drop");
        let (igw, app) = (plane.igw, plane.app);
        for (from, to, expected) in [
            (app, [198, 51, 100, 1], DropReason::Blackhole),
            (app, [10, 0, 77, 1], DropReason::NoSubnet),
            (igw, [192, 0, 2, 200], DropReason::NoRoute),
        ] {
            match plane.send(from, &udp(CLIENT, to, (1, 2), b"")) {
                Verdict::Drop(reason) => assert_eq!(reason, expected),
                other => panic!("{other:?}"),
            }
        }
        let local = plane.send(app, &udp(SERVER, [10, 0, 1, 12], (1, 2), b""));
        assert!(matches!(local, Verdict::Deliver(Attachment::Subnet(_))), "{local:?}");
    }

    #[test]
    fn a_segment_of_an_unknown_flow_is_dropped_reset_or_adopted() {
        let segment = ack(CLIENT, SERVER, (1000, 80), b"late");
        for setting in ["drop", "reset", "adopt"] {
            let mut plane = Plane::new(setting);
            let verdict = plane.send(plane.igw, &segment);
            match setting {
                "drop" => assert!(matches!(verdict, Verdict::Drop(DropReason::UnknownTcpFlow))),
                "reset" => assert!(matches!(verdict, Verdict::Reply(_))),
                _ => assert!(matches!(verdict, Verdict::ToAppliance(_))),
            }
        }
    }

    #[test]
    fn an_idle_flow_is_forgotten() {
        let mut plane = Plane::new("drop");
        let igw = plane.igw;
        plane.hop(igw, &syn(CLIENT, SERVER, (1000, 80)));
        plane.now += Duration::from_secs(349);
        plane.hop(igw, &ack(CLIENT, SERVER, (1000, 80), b"in time"));
        plane.now += Duration::from_secs(350);
        let late = plane.send(igw, &ack(CLIENT, SERVER, (1000, 80), b"late"));
        assert!(matches!(late, Verdict::Drop(DropReason::UnknownTcpFlow)), "{late:?}");
        plane.now += Duration::from_secs(2);
        plane.ingress.handle_timeout(plane.now);
        assert_eq!(plane.totals().flows.expired, 1);
    }

    #[test]
    fn every_flow_has_one_owner() {
        let mut planes: Vec<_> =
            (0..3).map(|worker| Plane::of_worker("drop", WorkerId(worker), 3)).collect();
        for port in 1..50 {
            let packet = udp(CLIENT, SERVER, (port, 53), b"who");
            let verdicts: Vec<_> =
                planes.iter_mut().map(|plane| plane.send(plane.igw, &packet)).collect();
            let owners: Vec<_> = verdicts
                .iter()
                .enumerate()
                .filter(|(_, verdict)| matches!(verdict, Verdict::ToAppliance(_)))
                .map(|(worker, _)| worker as u16)
                .collect();
            assert_eq!(owners.len(), 1);
            for verdict in &verdicts {
                if let Verdict::HandOver(owner) = verdict {
                    assert_eq!(owner.0, owners[0]);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_answered_or_dropped() {
        let mut plane = Plane::new("drop");
        let igw = plane.igw;
        let too_long = vec![0; 1433 - 28];
        let mut packet = udp(CLIENT, SERVER, (1, 2), &too_long);
        assert_eq!(packet.len(), 1433, "one more than an underlay of 1500 bytes carries");
        let verdict = plane.send(igw, &packet);
        let Verdict::Reply(reply) = verdict else { panic!("{verdict:?}") };
        let answer = Inner::parse(reply.packet.bytes()).unwrap();
        assert!(matches!(answer.transport, Transport::IcmpError { .. }), "{answer:?}");
        assert_eq!(answer.dst, std::net::IpAddr::from(CLIENT));

        packet[6] &= !0x40;
        let verdict = plane.send(igw, &packet);
        assert!(matches!(verdict, Verdict::Drop(DropReason::ExceedsMtu)), "{verdict:?}");
        plane.hop(igw, &udp(CLIENT, SERVER, (1, 2), &too_long[1..]));
    }

    #[test]
    fn a_super_packet_is_measured_and_counted_by_its_segments() {
        let mut plane = Plane::new("adopt");
        let segment = Segmentation::Tcp { size: 1392, ecn: false };
        let checksum = Some(PartialChecksum { start: 20, offset: 16 });
        let offload = Offload { segment, checksum, hdr_len: 40 };
        let packet = ack(CLIENT, SERVER, (1, 80), &vec![0; 1392 * 10 + 1]);
        let frame = Frame::parse(&packet, &offload).unwrap();
        assert_eq!(frame.segments(), 11);
        let verdict = plane.ingress.handle_packet(plane.igw, &frame, plane.now);
        assert!(matches!(verdict, Verdict::ToAppliance(_)), "1432 bytes fit: {verdict:?}");

        let segment = Segmentation::Tcp { size: 1393, ecn: false };
        let offload = Offload { segment, ..offload };
        let frame = Frame::parse(&packet, &offload).unwrap();
        let verdict = plane.ingress.handle_packet(plane.igw, &frame, plane.now);
        assert!(matches!(verdict, Verdict::Reply(_)), "1433 bytes do not: {verdict:?}");
        assert_eq!(plane.totals().tun.flow.replied, 10);
    }

    #[test]
    fn later_fragments_follow_the_first_and_strangers_are_dropped() {
        let mut plane = Plane::new("drop");
        let igw = plane.igw;
        let whole = plane.hop(igw, &udp(CLIENT, SERVER, (1000, 53), &[0; 64]));
        let fragment = |more: bool, offset: u8, id: u8| {
            let mut packet = udp(CLIENT, SERVER, (1000, 53), &[0; 64]);
            packet[5] = id;
            packet[6] = if more { 0x20 } else { 0 };
            packet[7] = offset;
            packet
        };
        let first = plane.hop(igw, &fragment(true, 0, 7));
        let later = plane.hop(igw, &fragment(false, 9, 7));
        assert_eq!((whole.target, whole.port), (first.target, first.port));
        assert_eq!(first, later, "fragments share a cookie, which needs no ports");
        let stranger = plane.send(igw, &fragment(false, 9, 8));
        assert!(matches!(stranger, Verdict::Drop(DropReason::FragmentWithoutFirst)));
    }

    #[test]
    fn options_behind_the_fragment_header_do_not_part_fragments() {
        let mut plane = Plane::new("drop");
        let igw = plane.igw;
        let fragment = |offset_and_more: u8, payload: &[u8]| {
            let mut packet = vec![0x60, 0, 0, 0, 0, 8 + payload.len() as u8, 44, 64];
            packet.extend("2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
            packet.extend("fd00:10:0:1::11".parse::<std::net::Ipv6Addr>().unwrap().octets());
            // Destination options follow, in the part that is cut up.
            packet.extend([60, 0, 0, offset_and_more, 0, 0, 0, 7]);
            packet.extend(payload);
            packet
        };
        let options = [protocol::UDP, 0, 1, 4, 0, 0, 0, 0];
        let start_of_udp = [3, 232, 0, 53, 0, 40, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let first = plane.hop(igw, &fragment(1, &[&options[..], &start_of_udp].concat()));
        let later = plane.hop(igw, &fragment(24, &[9; 24]));
        assert_eq!(first, later);
    }

    #[test]
    fn an_icmp_error_goes_where_the_flow_goes_that_it_is_about() {
        let mut plane = Plane::new("drop");
        let (igw, app) = (plane.igw, plane.app);
        for port in 1000..1020 {
            let packet = udp(CLIENT, SERVER, (port, 53), b"question");
            let flow = plane.hop(igw, &packet);
            let inner = Inner::parse(&packet).unwrap();
            let error = reply::packet_too_big(&packet, &inner, SERVER.into(), 1000).unwrap();
            let about = plane.hop(app, error.bytes());
            assert_eq!((flow.target, flow.port), (about.target, about.port));
        }
        let created = plane.totals().flows.created;
        let packet = udp(CLIENT, SERVER, (1, 53), b"never seen");
        let inner = Inner::parse(&packet).unwrap();
        let error = reply::packet_too_big(&packet, &inner, SERVER.into(), 1000).unwrap();
        plane.hop(app, error.bytes());
        assert_eq!(plane.totals().flows.created, created, "an error begins no flow");
    }
}
