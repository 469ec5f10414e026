//! The way itself: packets go through copies of the data plane, and what these decide is written down
//! with all that it depends on.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use geneve::dialect::Dialect;
use geneve::flow::CanonicalKey;
use geneve::header::Header;
use geneve::inner::{Fragment, Inner};
use netio::offload::{MAX_HEADERS, Offload, Segmentation, Segmenter};
use router::{Attachment, EndpointId, Entry, GroupId, NextHop};

use super::{
    CandidateScore, Explanation, Given, KnownFlow, Question, Sent, Step, Surroundings, Unexplained,
    describe, listing, own_tuples,
};
use crate::config::TrafficMode;
use crate::dataplane::encap::{Batch, Encapsulator};
use crate::dataplane::flow_table::{FlowId, Inspector};
use crate::dataplane::fragments::{FragmentId, FragmentTable};
use crate::dataplane::frame::Frame;
use crate::dataplane::ingress::Excerpt;
use crate::dataplane::mss;
use crate::dataplane::select::{Candidate, choose, scores};
use crate::dataplane::snapshot::{Fate, NoCandidate, Snapshot, TargetSlot};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::tcp_state::TcpState;
use crate::dataplane::translate::Head;
use crate::dataplane::verdict::{
    Change, DropReason, Hop, Origin, Reply, ReplyCause, ReturnVerdict, Verdict, Way, WorkerId,
};
use crate::dataplane::{Ingress, Return};

/// So many pieces of a packet are followed: a packet of 64 KiB in fragments for an Ethernet, out and
/// back.
const MAX_PIECES: usize = 128;
/// UDP's header (RFC 768).
const UDP_HEADER: usize = 8;
/// As many endpoints as the data plane passes by in a row.
const MAX_BYPASSED: usize = 8;

/// Where a piece of the packet is.
enum Stage {
    /// It comes to a table.
    Judged { origin: Origin, packet: Vec<u8>, offload: Offload, by: WorkerId, handed_over: bool },
    /// It comes back from an appliance.
    Returned { from: SocketAddr, to: IpAddr, datagram: Vec<u8>, by: WorkerId, supposed: bool },
}

/// What leaves by a device.
struct Outward {
    at: String,
    device: Option<String>,
    packets: Vec<Vec<u8>>,
}

pub(super) struct Walk<'a> {
    view: Arc<Snapshot>,
    workers: BTreeMap<WorkerId, Ingress>,
    /// When flows began that are there already, as their owners have it in records.
    began: Vec<(WorkerId, FlowId, Instant)>,
    returns: Return,
    fragments: Arc<FragmentTable>,
    around: &'a dyn Surroundings,
    now: Instant,
    reader: WorkerId,
    stages: VecDeque<Stage>,
    steps: Vec<Step>,
    /// How each piece ended, and whether it arrived.
    ends: Vec<(bool, String)>,
}

impl<'a> Walk<'a> {
    /// Makes the copies.
    pub fn new(
        question: &Question,
        excerpts: Vec<Excerpt>,
        fragments: FragmentTable,
        around: &'a dyn Surroundings,
        now: Instant,
    ) -> Result<Self, Unexplained> {
        let held = excerpts.iter().map(Excerpt::view);
        let view = held.clone().next().ok_or(Unexplained::Changed)?;
        if held.clone().any(|view| view.generation != question.generation) {
            return Err(Unexplained::Changed);
        }
        let (view, fragments) = (Arc::new(view.uncounted()), Arc::new(fragments));
        let (mut workers, mut began) = (BTreeMap::new(), Vec::new());
        for excerpt in excerpts {
            let worker = excerpt.worker();
            began.extend(excerpt.began().iter().map(|(id, at)| (worker, *id, *at)));
            let ingress = excerpt.ingress(Arc::clone(&view), Arc::clone(&fragments), now);
            workers.insert(worker, ingress.map_err(|_| Unexplained::Memory)?);
        }
        Ok(Self {
            returns: Return::new(
                question.reader,
                Arc::clone(&view),
                Arc::new(WorkerStats::default()),
            ),
            view,
            workers,
            began,
            fragments,
            around,
            now,
            reader: question.reader,
            stages: VecDeque::new(),
            steps: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// Follows the packet until nothing of it is under way.
    pub fn finish(mut self, given: &Given) -> Result<Explanation, Unexplained> {
        match given {
            Given::Entering { at, packet, offload } => self.enter(*at, packet, *offload),
            Given::Returning { from, to, datagram } => {
                let (datagram, by) = (datagram.clone(), self.reader);
                let (from, to, supposed) = (*from, *to, false);
                self.stages.push_back(Stage::Returned { from, to, datagram, by, supposed });
            }
        }
        for _ in 0..MAX_PIECES {
            match self.stages.pop_front() {
                Some(Stage::Judged { origin, packet, offload, by, handed_over }) => {
                    self.judge(origin, (&packet, &offload), by, handed_over)?;
                }
                Some(Stage::Returned { from, to, datagram, by, supposed }) => {
                    self.take_back(from, to, &datagram, by, supposed);
                }
                None => break,
            }
        }
        if !self.stages.is_empty() {
            self.steps.push(Step::More { pieces: self.stages.len() });
        }
        let failed = self.ends.iter().find(|(arrived, _)| !arrived);
        let delivered = failed.is_none();
        let end = failed.or(self.ends.first()).map(|(_, end)| end.clone()).unwrap_or_default();
        Ok(Explanation { delivered, end, steps: self.steps })
    }

    fn end(&mut self, arrived: bool, end: impl Into<String>) {
        self.ends.push((arrived, end.into()));
    }

    fn dropped(&mut self, reason: DropReason, packets: u64) {
        self.steps.push(Step::dropped(reason, packets));
        self.end(false, format!("dropped: {reason}"));
    }

    fn enter(&mut self, at: Entry, packet: &[u8], offload: Offload) {
        let name = self.view.topology.entry_name(at);
        let place = at.attachment();
        let segment_size = match offload.segment {
            Segmentation::None => None,
            Segmentation::Tcp { size, .. } | Segmentation::Udp { size } => Some(size),
        };
        self.steps.push(Step::Enters {
            at: name.clone(),
            device: place.and_then(|at| self.around.device(at)),
            packet: describe(packet),
            length: packet.len(),
            packets: Frame::parse(packet, &offload).map_or(1, |frame| frame.segments()),
            segment_size,
        });
        let mut bytes = packet.to_vec();
        if let Some(translation) = place.and_then(|at| self.view.translation(at)) {
            translation.inward(&mut bytes, &offload);
            self.steps.extend(translated(&name, packet, &bytes));
        }
        let (origin, by) = (Origin::from(at), self.reader);
        let (packet, handed_over) = (bytes, false);
        self.stages.push_back(Stage::Judged { origin, packet, offload, by, handed_over });
    }

    fn judge(
        &mut self,
        origin: Origin,
        (packet, offload): (&[u8], &Offload),
        by: WorkerId,
        handed_over: bool,
    ) -> Result<(), Unexplained> {
        let frame = match Frame::parse(packet, offload) {
            Ok(frame) => frame,
            Err(reason) => {
                self.dropped(reason, 1);
                return Ok(());
            }
        };
        let before = self.flows_ahead(origin.at, &frame.inner);
        let now = self.now;
        let ingress = self.workers.get_mut(&by).ok_or(Unexplained::Changed)?;
        let (untracked, full) = ingress.untracked();
        let verdict = if handed_over {
            ingress.handle_handover(origin, &frame, now)
        } else {
            ingress.handle_packet(origin, &frame, now)
        };
        let unremembered = match ingress.untracked() {
            (after, _) if after == untracked => None,
            (_, after) if after > full => Some("table_full"),
            _ => Some("new_flow_limit"),
        };
        let released: Vec<_> = std::iter::from_fn(|| ingress.poll_released()).collect();
        let lost: Vec<_> = std::iter::from_fn(|| ingress.poll_dropped()).collect();
        let stops = match &verdict {
            Verdict::ToAppliance(hop) => self.endpoint_in(hop.header.as_bytes(), hop.target),
            Verdict::HandOver(_, from) => match from.at {
                Entry::Endpoint(endpoint) if from.at != origin.at => Some(endpoint),
                _ => None,
            },
            _ => None,
        };
        if !matches!(&verdict, Verdict::HandOver(_, from) if from.at == origin.at) {
            self.tell_way(origin.at, &frame.inner, by, &before, (&verdict, stops, unremembered));
        }
        match verdict {
            Verdict::ToAppliance(hop) => self.send(&frame, &hop, by),
            Verdict::Deliver(to) => self.leave(to, &frame, false),
            Verdict::Bypass(to) => self.leave(to, &frame, true),
            Verdict::HandOver(owner, from) => {
                self.steps.push(Step::HandedOver { to: owner.0 });
                let (packet, offload) = (frame.packet.to_vec(), *offload);
                let (origin, by, handed_over) = (from, owner, true);
                let stage = Stage::Judged { origin, packet, offload, by, handed_over };
                self.stages.push_front(stage);
            }
            Verdict::Held => {
                self.steps.push(Step::Held);
                self.end(false, "it waits for its first fragment");
            }
            Verdict::Reply(reply) => self.reply(&reply),
            Verdict::Drop(reason) => self.dropped(reason, frame.segments()),
        }
        for (origin, waiting) in released {
            let packet = waiting.packet.bytes().to_vec();
            self.steps.push(Step::Released { packet: describe(&packet) });
            let (offload, handed_over) = (Offload::NONE, false);
            self.stages.push_back(Stage::Judged { origin, packet, offload, by, handed_over });
        }
        for (reason, waiting) in lost {
            self.steps.push(Step::Released { packet: describe(waiting.packet.bytes()) });
            self.dropped(reason, 1);
        }
        Ok(())
    }

    /// What the workers know of the flow at each endpoint that the packet may come to.
    fn flows_ahead(&self, at: Entry, inner: &Inner) -> Vec<(EndpointId, Option<KnownFlow>)> {
        let endpoints = super::ahead(&self.view, at, inner.dst);
        endpoints.into_iter().map(|endpoint| (endpoint, self.known(endpoint, inner))).collect()
    }

    /// What the packet's flow is known by at an endpoint.
    fn flow_id(&self, endpoint: EndpointId, inner: &Inner) -> FlowId {
        let at = self.view.endpoint(endpoint);
        let tuple = match inner.fragment {
            Fragment::Later { id, .. } => {
                let id = FragmentId {
                    endpoint: at.wire_id,
                    src: inner.src,
                    dst: inner.dst,
                    protocol: inner.flow_key().protocol(),
                    id,
                };
                self.fragments.later(&id, self.now)
            }
            _ => own_tuples(inner).next(),
        };
        let tuple = tuple.unwrap_or_else(|| inner.flow_key());
        FlowId { endpoint: at.wire_id, tuple: tuple.sticky(self.view.pool(at.pool).stickiness) }
    }

    fn owner(&self, id: &FlowId) -> WorkerId {
        self.view.share(&id.tuple).0
    }

    fn known(&self, endpoint: EndpointId, inner: &Inner) -> Option<KnownFlow> {
        let id = self.flow_id(endpoint, inner);
        let flows = self.workers.get(&self.owner(&id))?.flows();
        let flow = flows.get(flows.look(&id, flows.hash(&id))?);
        let left = flow.deadline.saturating_duration_since(self.now);
        let target = match flow.placement.inspector {
            Inspector::Target(slot) => Some(slot),
            Inspector::Bypass => None,
        };
        let pool = self.view.pool(self.view.endpoint(endpoint).pool);
        let fate = match target.map(|slot| pool.fate(slot)) {
            None | Some(Fate::Stay) => "stay",
            Some(Fate::Rebalance) => "rebalance",
            Some(Fate::Reset(_)) => "reset",
        };
        (!left.is_zero()).then(|| KnownFlow {
            target: target.map(|slot| self.view.target(slot).address),
            bypassed: target.is_none() || pool.traffic_mode == TrafficMode::Bypass,
            state: flow.tcp.map_or("untracked", TcpState::name).to_owned(),
            idle_seconds_left: left.as_secs_f64(),
            fate: fate.to_owned(),
        })
    }

    /// How many seconds ago a flow began, if there is a record of it.
    fn age(&self, id: &FlowId) -> Option<f64> {
        let owner = self.owner(id);
        let mut records = self.began.iter();
        let (.., began) = records.find(|(worker, known, _)| (*worker, known) == (owner, id))?;
        Some(self.now.saturating_duration_since(*began).as_secs_f64())
    }

    /// The look-ups and the endpoints of one judgement, which ended so; at this endpoint, if it did at
    /// one for sure; and why a flow that began is not remembered.
    fn tell_way(
        &mut self,
        from: Entry,
        inner: &Inner,
        by: WorkerId,
        before: &[(EndpointId, Option<KnownFlow>)],
        (verdict, stops, unremembered): (&Verdict, Option<EndpointId>, Option<&str>),
    ) {
        let mut at = from;
        for _ in 0..=MAX_BYPASSED {
            let next = self.routed(at, inner.dst);
            let (endpoint, group) = match next {
                NextHop::Endpoint(endpoint) => (endpoint, None),
                NextHop::EndpointGroup(group) => match self.member(group, stops, inner) {
                    Some(endpoint) => (endpoint, Some(group)),
                    None => return,
                },
                _ => return,
            };
            self.steps.push(self.endpoint_step(endpoint, group));
            if matches!(verdict, Verdict::HandOver(..) | Verdict::Held) && stops == Some(endpoint) {
                return;
            }
            let known = before.iter().find(|(known, _)| *known == endpoint);
            let known = known.and_then(|(_, flow)| flow.clone());
            let step = self.flow_step(endpoint, inner, by, (known, unremembered));
            self.steps.push(step);
            if stops == Some(endpoint) || !self.passes(endpoint, inner, verdict, stops) {
                return;
            }
            at = Entry::Endpoint(endpoint);
        }
    }

    /// The member of a group that a packet came to, as far as can be told.
    fn member(
        &self,
        group: GroupId,
        stops: Option<EndpointId>,
        inner: &Inner,
    ) -> Option<EndpointId> {
        let view = self.view.group(group);
        let has = |endpoint: &&EndpointId| self.known(**endpoint, inner).is_some();
        let tuple = self.flow_id(*view.members.first()?, inner).tuple;
        stops
            .filter(|endpoint| view.members.contains(endpoint))
            .or_else(|| view.members.iter().find(has).copied())
            .or_else(|| choose(&self.view.keys.placement, &tuple, &view.chosen))
    }

    /// Whether the packet has gone on from an endpoint without an appliance.
    fn passes(
        &self,
        endpoint: EndpointId,
        inner: &Inner,
        verdict: &Verdict,
        stops: Option<EndpointId>,
    ) -> bool {
        let pool = self.view.pool(self.view.endpoint(endpoint).pool);
        match verdict {
            Verdict::Bypass(_) => true,
            _ if stops.is_some() => true,
            _ => {
                pool.traffic_mode == TrafficMode::Bypass
                    || self.known(endpoint, inner).is_some_and(|flow| flow.target.is_none())
                    || pool.candidates.is_empty() && pool.none == NoCandidate::Bypass
            }
        }
    }

    fn routed(&mut self, at: Entry, destination: IpAddr) -> NextHop {
        let found = self.view.topology.explain(at, destination);
        self.steps.push(Step::Routed {
            at: found.at,
            table: found.table,
            destination,
            route: found.route.map(|route| route.destination.to_string()),
            next: found.next,
            reason: found.reason,
        });
        found.next_hop
    }

    fn endpoint_step(&self, id: EndpointId, group: Option<GroupId>) -> Step {
        let topology = &self.view.topology;
        let endpoint = topology.endpoint(id);
        let pool = self.view.pool(self.view.endpoint(id).pool);
        let mode = match pool.traffic_mode {
            TrafficMode::LoadBalance => "load_balance",
            TrafficMode::Bypass => "bypass",
        };
        Step::Endpoint {
            endpoint: endpoint.name.clone(),
            group: group.map(|group| topology.endpoint_group(group).name.clone()),
            zone: endpoint.zone.clone(),
            service: endpoint.service.clone(),
            load_balancer: pool.load_balancer.clone(),
            node: pool.address,
            stickiness: pool.stickiness.name().to_owned(),
            traffic_mode: mode.to_owned(),
        }
    }

    fn flow_step(
        &mut self,
        endpoint: EndpointId,
        inner: &Inner,
        by: WorkerId,
        (known, unremembered): (Option<KnownFlow>, Option<&str>),
    ) -> Step {
        let id = self.flow_id(endpoint, inner);
        let becomes = self.known(endpoint, inner);
        let nowhere = known.is_none() && becomes.is_none();
        if known.is_none() {
            // Of the flow that begins here, the record of one before says nothing.
            self.began.retain(|(_, began, _)| *began != id);
        }
        Step::Flow {
            tuple: id.tuple.to_string(),
            worker: by.0,
            age_seconds: known.as_ref().and_then(|_| self.age(&id)),
            known,
            becomes,
            unremembered: unremembered.filter(|_| nowhere).map(str::to_owned),
            candidates: self.candidates(endpoint, &id.tuple),
        }
    }

    fn candidates(&self, endpoint: EndpointId, tuple: &CanonicalKey) -> Vec<CandidateScore> {
        let pool = self.view.pool(self.view.endpoint(endpoint).pool);
        let key = &self.view.keys.placement;
        let chosen = choose(key, tuple, &pool.candidates);
        let of = |it: &Candidate<TargetSlot>, score| CandidateScore {
            target: self.view.target(it.target).address,
            weight: it.weight,
            score,
            chosen: chosen == Some(it.target),
        };
        let scores = scores(key, tuple, &pool.candidates);
        let some = scores.iter().map(|score| of(&score.candidate, Some(score.value())));
        let never = pool.candidates.iter().filter(|it| it.weight == 0).map(|it| of(it, None));
        some.chain(never).collect()
    }

    /// As the runtime has a packet leave for an appliance.
    fn send(&mut self, frame: &Frame<'_>, hop: &Hop, by: WorkerId) {
        let mut datagrams = Vec::new();
        let mut keep = |batch: &Batch<'_>| {
            batch.singly(|single| {
                datagrams
                    .push(single.pieces.iter().flat_map(|it| it.to_vec()).collect::<Vec<u8>>());
            });
        };
        let mut encapsulator = Encapsulator::default();
        let (change, sent) = match hop.change {
            None => (None, encapsulator.encapsulate(&hop.header, frame, &mut keep)),
            Some(Change::ClampMss(mtu)) => {
                let mut packet = frame.packet.to_vec();
                mss::clamp(&mut packet, &frame.inner, frame.offload, mtu);
                let frame = Frame { packet: &packet, ..*frame };
                (Some("mss_clamped"), encapsulator.encapsulate(&hop.header, &frame, &mut keep))
            }
            Some(Change::Fragment(mtu)) => {
                let sent = encapsulator.encapsulate_fragmented(&hop.header, frame, mtu, &mut keep);
                (Some("fragmented"), sent.map(|_| ()))
            }
        };
        if sent.is_err() {
            return self.dropped(DropReason::MalformedPacket, frame.segments());
        }
        let target = self.view.target(hop.target);
        let source = self.view.pool(hop.pool).address;
        let source_port = self.around.source_port(by, hop.port);
        let listed = datagrams.iter().map(|datagram| {
            let mut headers = listing::outer(source, source_port, hop.address, datagram);
            headers.extend(listing::geneve(datagram, Some(target.dialect)));
            let inner = datagram.get(hop.header.as_bytes().len()..).unwrap_or_default();
            Sent {
                bytes: listing::hex(datagram),
                length: listing::outer_len(hop.address.ip(), datagram),
                headers,
                packet: describe(inner),
            }
        });
        let version = usize::from(frame.inner.dst.is_ipv6());
        let step = Step::Encapsulated {
            target: hop.address,
            source,
            source_port,
            path_mtu: target.path_mtu,
            fits: crate::dataplane::ingress::largest(target)[version],
            change: change.map(str::to_owned),
            datagrams: listed.collect(),
        };
        self.steps.push(step);
        for datagram in datagrams {
            let (from, to, supposed) = (hop.address, source, true);
            self.stages.push_back(Stage::Returned { from, to, datagram, by, supposed });
        }
    }

    fn take_back(
        &mut self,
        from: SocketAddr,
        to: IpAddr,
        datagram: &[u8],
        by: WorkerId,
        supposed: bool,
    ) {
        let dialect = self.view.sources.get(&from.ip()).and_then(|slots| slots.first());
        let dialect = dialect.map(|slot| self.view.target(*slot).dialect);
        let header = if supposed { Vec::new() } else { listing::geneve(datagram, dialect) };
        self.steps.push(Step::Returned { from, to, supposed, header });
        let returned = match self.returns.handle_datagram(from, to, datagram) {
            ReturnVerdict::Accept(returned) => returned,
            ReturnVerdict::Drop(reason) => {
                self.tell_dead_end(datagram, from, reason);
                return self.dropped(reason, 1);
            }
        };
        let packet = &datagram[returned.range.clone()];
        let endpoint = self.endpoint_in(datagram, returned.target);
        self.steps.push(Step::Accepted {
            target: self.view.target(returned.target).address,
            endpoint: endpoint.map(|id| self.view.topology.endpoint(id).name.clone()),
            packet: describe(packet),
        });
        match returned.way {
            Way::Probe => {
                let payload = Inner::parse(packet).ok();
                let payload = payload.and_then(|inner| packet.get(inner.header_len + UDP_HEADER..));
                let keys = &self.view.keys;
                let own = self.around.is_own_probe(keys, payload.unwrap_or_default());
                self.steps.push(Step::Probe { own });
                let ends = if own { "a probe that is back" } else { "taken for a probe; not ours" };
                self.end(own, ends);
            }
            Way::Deliver(at) => {
                if let (Some(endpoint), Ok(inner)) = (endpoint, Inner::parse(packet)) {
                    self.routed(Entry::Endpoint(endpoint), inner.dst);
                }
                match Frame::parse(packet, &Offload::NONE) {
                    Ok(frame) => self.leave(at, &frame, false),
                    Err(reason) => self.dropped(reason, 1),
                }
            }
            Way::Onward(endpoint) => {
                let (origin, packet) = (Origin::from(Entry::Endpoint(endpoint)), packet.to_vec());
                let (offload, handed_over) = (Offload::NONE, false);
                self.stages.push_front(Stage::Judged { origin, packet, offload, by, handed_over });
            }
        }
    }

    /// Of what is genuine and leads nowhere, where it was looked up.
    fn tell_dead_end(&mut self, datagram: &[u8], from: SocketAddr, reason: DropReason) {
        use DropReason::{Blackhole, NoRoute, NoSubnet, NotAttached, RoutingLoop};
        let target = self.view.sources.get(&from.ip()).and_then(|slots| slots.first().copied());
        if let Some(target) = target
            && matches!(reason, Blackhole | NoRoute | NoSubnet | NotAttached | RoutingLoop)
            && let Some(endpoint) = self.endpoint_in(datagram, target)
            && let Ok((_, packet)) = Header::parse(datagram)
            && let Ok(inner) = Inner::parse(packet)
        {
            self.routed(Entry::Endpoint(endpoint), inner.dst);
        }
    }

    /// The endpoint that a Geneve header names, as this target's dialect has it.
    fn endpoint_in(&self, datagram: &[u8], target: TargetSlot) -> Option<EndpointId> {
        let dialect: &Dialect = self.view.target(target).dialect;
        let (header, _) = Header::parse(datagram).ok()?;
        let tags = dialect.read(&header).ok()?;
        self.view.wire_ids.get(&tags.endpoint).copied()
    }

    /// As the runtime writes a packet to a device, with what the kernel cuts it into.
    fn outward(
        &mut self,
        to: Attachment,
        packet: &[u8],
        offload: &Offload,
    ) -> Result<Outward, DropReason> {
        let name = self.view.topology.entry_name(to.into());
        let translation = self.view.translation(to);
        let head = translation.and_then(|it| it.outward_head(packet, offload));
        let bytes = Head::before(head.as_ref(), packet).concat();
        self.steps.extend(translated(&name, packet, &bytes));
        let device = self.around.device(to);
        if *offload == Offload::NONE {
            return Ok(Outward { at: name, device, packets: vec![bytes] });
        }
        // What a device does not take, it refuses.
        let inner = Inner::parse(&bytes).map_err(|_| DropReason::DeliveryFailed)?;
        let segmenter = Segmenter::new(&bytes, &inner, offload);
        let segmenter = segmenter.map_err(|_| DropReason::DeliveryFailed)?;
        let mut headers = [0; MAX_HEADERS];
        let mut segment = |index| {
            let segment = segmenter.segment(index, &mut headers);
            [&headers[..segment.header_len], &bytes[segment.payload]].concat()
        };
        let packets = (0..segmenter.count()).map(&mut segment).collect();
        Ok(Outward { at: name, device, packets })
    }

    fn leave(&mut self, to: Attachment, frame: &Frame<'_>, uninspected: bool) {
        let Outward { at, device, packets } = match self.outward(to, frame.packet, frame.offload) {
            Ok(left) => left,
            Err(reason) => return self.dropped(reason, frame.segments()),
        };
        let past = if uninspected { ", uninspected" } else { "" };
        self.end(true, format!("delivered to {at}{past}"));
        for bytes in packets {
            let (at, device) = (at.clone(), device.clone());
            let (packet, bytes) = (describe(&bytes), listing::hex(&bytes));
            self.steps.push(Step::Leaves { at, device, uninspected, packet, bytes });
        }
    }

    fn reply(&mut self, reply: &Reply) {
        let Outward { at, device, packets } =
            match self.outward(reply.to, reply.packet.bytes(), &Offload::NONE) {
                Ok(left) => left,
                Err(reason) => return self.dropped(reason, 1),
            };
        let bytes = packets.concat();
        let cause = match reply.cause {
            ReplyCause::PacketTooBig => "packet_too_big",
            ReplyCause::UnknownTcpFlow => "unknown_tcp_flow",
            ReplyCause::IdleTimeout => "idle_timeout",
            ReplyCause::TargetGone(_) => "target_gone",
        };
        self.end(false, format!("answered: {cause}"));
        let (packet, bytes) = (describe(&bytes), listing::hex(&bytes));
        self.steps.push(Step::Replied { cause: cause.to_owned(), at, device, packet, bytes });
    }
}

/// Which addresses a translation has changed.
fn translated(at: &str, before: &[u8], after: &[u8]) -> Vec<Step> {
    let (Ok(old), Ok(new)) = (Inner::parse(before), Inner::parse(after)) else {
        return Vec::new();
    };
    let quoted = |inner: &Inner| match inner.transport {
        geneve::inner::Transport::IcmpError { about, .. } => Some((about.src(), about.dst())),
        _ => None,
    };
    let mut changes = vec![("source", old.src, new.src), ("destination", old.dst, new.dst)];
    if let (Some(old), Some(new)) = (quoted(&old), quoted(&new)) {
        changes.extend([("quoted", old.0, new.0), ("quoted", old.1, new.1)]);
    }
    changes.retain(|(_, old, new)| old != new);
    let step = |(address, from, to): (&str, IpAddr, IpAddr)| Step::Translated {
        at: at.to_owned(),
        address: address.to_owned(),
        from,
        to,
    };
    changes.into_iter().map(step).collect()
}
