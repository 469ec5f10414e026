//! What a gateway may do, as far as that follows from its configuration, from what was asked of it
//! and from the events that it tells.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use geneve::flow::{CanonicalKey, FlowKey};
use geneve::{Fragment, Header, Inner, TcpFlags, Transport, protocol};
use gwlb::config::TrafficMode;
use gwlb::control::event::{DrainEnd, FailoverAction};
use gwlb::control::{Event, TargetState};
use gwlb::dataplane::select::TargetId;
use gwlb::dataplane::snapshot::{NoCandidate, Pool};
use gwlb::dataplane::stats::{LedgerTotals, TargetCounters, TargetTotals, Totals};
use gwlb_tests::gateway::{Delivered, Gateway, Sent};

use super::policy::{Loss, Policy};

/// What the model knows.
pub(crate) struct Model {
    policy: Policy,
    mode: TrafficMode,
    flows: BTreeMap<(u64, CanonicalKey), Flow>,
    /// Where fragments of a packet went.
    fragments: BTreeMap<(IpAddr, IpAddr, u32), FlowKey>,
    /// The targets that a zone's node finds unhealthy.
    unhealthy: BTreeSet<(IpAddr, String)>,
    /// And those that it finds healthy.
    healthy: BTreeSet<(IpAddr, String)>,
    /// Targets that were deregistered, and whose delay is over.
    over: BTreeSet<IpAddr>,
    /// The last time that the flows of a target had a cause to leave it, by the node's zone.
    cause: BTreeMap<(IpAddr, String), Duration>,
    /// What a zone's node last said that becomes of the flows of a target.
    losing: BTreeMap<(IpAddr, String), FailoverAction>,
    /// Who has which slot.
    slots: Vec<(TargetId, Arc<[TargetCounters]>)>,
    /// Counters of those who had a slot before: nothing is counted there any more.
    gone: Vec<(Arc<[TargetCounters]>, TargetTotals)>,
    before: Totals,
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "what was seen of a connection, each by itself")]
struct Flow {
    /// Who inspects it; nobody, if it goes past all.
    target: Option<IpAddr>,
    last: Duration,
    answered: bool,
    finished: [bool; 2],
    reset: bool,
    tcp: bool,
    /// Whether it may have been reset, so that it is over: nobody has seen that here.
    maybe_over: bool,
}

/// How long a connection may be silent that is over.
const CLOSED: Duration = Duration::from_secs(30);

impl Flow {
    fn is_closed(&self) -> bool {
        self.reset || self.finished == [true; 2]
    }

    /// How long it may be silent (the defaults of the configuration's reference).
    fn patience(&self) -> Duration {
        Duration::from_secs(match self {
            flow if !flow.tcp => 120,
            // It may have begun anew since, with whatever came then.
            flow if flow.maybe_over => 350,
            flow if flow.is_closed() => return CLOSED,
            flow if flow.finished != [false; 2] => 120,
            flow if !flow.answered => 60,
            _ => 350,
        })
    }
}

impl Model {
    pub(crate) fn new(policy: &Policy) -> Model {
        Model {
            policy: policy.clone(),
            mode: TrafficMode::LoadBalance,
            flows: BTreeMap::new(),
            fragments: BTreeMap::new(),
            unhealthy: BTreeSet::new(),
            healthy: BTreeSet::new(),
            over: BTreeSet::new(),
            cause: BTreeMap::new(),
            losing: BTreeMap::new(),
            slots: Vec::new(),
            gone: Vec::new(),
            before: Totals::default(),
        }
    }

    pub(crate) fn note_mode(&mut self, mode: TrafficMode) {
        self.mode = mode;
    }

    /// A packet is about to enter: of fragments, the first one says what the others belong to,
    /// whatever becomes of it.
    pub(crate) fn note_entering(&mut self, packet: &[u8]) {
        self.tuple(&Inner::parse(packet).unwrap());
    }

    pub(crate) fn note_events(&mut self, events: &[(Duration, Event)]) {
        for (_, event) in events {
            match event {
                Event::Registered { target, .. } => {
                    self.over.remove(&target.ip());
                    self.unhealthy.retain(|(it, _)| *it != target.ip());
                    self.healthy.retain(|(it, _)| *it != target.ip());
                }
                Event::TargetState { target, zone, to, .. } => {
                    let key = (target.ip(), zone.clone());
                    self.unhealthy.remove(&key);
                    self.healthy.remove(&key);
                    match to.state {
                        TargetState::Unhealthy => self.unhealthy.insert(key),
                        TargetState::Healthy => self.healthy.insert(key),
                        _ => false,
                    };
                }
                Event::DrainEnded { target, cause, .. } => {
                    if *cause == DrainEnd::Registered {
                        self.over.remove(&target.ip());
                    } else {
                        self.over.insert(target.ip());
                    }
                }
                Event::Failover { target, zone, action, .. } => {
                    self.losing.insert((target.ip(), zone.clone()), *action);
                    let resets = *action != FailoverAction::Rebalance;
                    if resets {
                        let flows = self.flows.values_mut();
                        for flow in flows.filter(|flow| flow.target == Some(target.ip())) {
                            flow.maybe_over |= flow.tcp;
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Notes which targets flows may leave now, and who has which slot.
    pub(crate) fn note_view(&mut self, gateway: &Gateway) {
        let now = gateway.elapsed();
        if self.policy.on_unhealthy != Loss::Stay {
            for key in &self.unhealthy {
                self.cause.insert(key.clone(), now);
            }
        }
        if self.policy.on_deregistration != Loss::Stay {
            for &target in &self.over {
                for zone in ["az1", "az2"] {
                    self.cause.insert((target, zone.to_owned()), now);
                }
            }
        }
        for (slot, view) in gateway.snapshot().targets.iter().enumerate() {
            let is = (view.id, Arc::clone(&view.counters));
            let Some(was) = self.slots.get_mut(slot) else {
                self.slots.push(is);
                continue;
            };
            if !Arc::ptr_eq(&was.1, &is.1) {
                let (_, counters) = std::mem::replace(was, is);
                let totals = totals(&counters);
                assert_eq!(totals.active_flows(), 0, "slot {slot} had flows when it was re-used");
                self.gone.push((counters, totals));
            }
        }
        for (counters, before) in &self.gone {
            assert_eq!(totals(counters), *before, "somebody counts for a target that is gone");
        }
    }

    /// Judges what came of the last event. Returns whether packets went past the appliances.
    pub(crate) fn judge(
        &mut self,
        gateway: &Gateway,
        sent: &[Sent],
        delivered: &[Delivered],
        entered: bool,
    ) -> bool {
        let after = gateway.totals();
        for ledger in [&after.tun, &after.udp] {
            let (came, went) = ledger.balance();
            assert_eq!(came, went, "{ledger:?}");
        }
        let with_targets: u64 =
            gateway.target_totals().values().map(TargetTotals::active_flows).sum();
        let bypassed = |totals: &Totals| totals.tun.flow.bypassed + totals.udp.flow.bypassed;
        assert!(with_targets <= after.flows.active());
        if bypassed(&after) == 0 {
            assert_eq!(with_targets, after.flows.active(), "flows of targets and in tables");
        }
        for sent in sent {
            self.judge_sent(gateway, sent);
        }
        let past = bypassed(&after) - bypassed(&self.before);
        if entered {
            self.judge_delivered(gateway, delivered, past, &after.tun);
        }
        self.before = after;
        past > 0
    }

    fn judge_sent(&mut self, gateway: &Gateway, sent: &Sent) {
        let snapshot = gateway.snapshot();
        let (header, packet) = Header::parse(&sent.bytes).unwrap();
        let tags = snapshot.target(sent.target).dialect.read(&header).unwrap();
        let endpoint = snapshot.wire_ids[&tags.endpoint];
        let pool = snapshot.pool(snapshot.endpoint(endpoint).pool);
        let inner = Inner::parse(packet).unwrap();
        let target = sent.to.ip();
        let Some(tuple) = self.tuple(&inner) else {
            panic!("a later fragment before its first: {inner:?}");
        };
        assert_eq!(self.mode, TrafficMode::LoadBalance, "{tuple} is inspected in bypass");

        let id = (tags.endpoint, tuple.canonical());
        let candidates = || pool.candidates.iter().map(|it| snapshot.target(it.target).address);
        let candidate = candidates().any(|it| it == sent.to);
        let of_zone = |target: IpAddr| (target, pool.zone.clone());
        let dead = self.unhealthy.contains(&of_zone(target));
        let better = candidates().any(|it| self.healthy.contains(&of_zone(it.ip())));
        let known = self.flows.get(&id).filter(|flow| sent.time < flow.last + flow.patience());
        let begins = known.is_none_or(|flow| flow.is_closed() && opens(&inner));
        if let Some(flow) = known
            && flow.maybe_over
        {
            assert!(candidate || flow.target == Some(target), "{tuple} goes to {target}");
            return self.note(id, &tuple, &inner, Some(target), &pool.zone, sent.time);
        }
        match known {
            Some(flow) if !begins => match flow.target {
                Some(before) if before == target => self.assert_may_stay(pool, target, candidate),
                Some(before) => {
                    assert!(candidate, "{tuple} moves to {target}, which is no candidate");
                    let cause = self.cause.get(&(before, pool.zone.clone()));
                    assert!(
                        cause.is_some_and(|&cause| cause >= flow.last),
                        "{tuple} moves from {before} to {target} without a cause"
                    );
                }
                None => assert!(
                    candidate && self.policy.inspect_after_bypass,
                    "{tuple} went past the appliances, now to {target}"
                ),
            },
            _ => {
                assert!(candidate, "{tuple} begins with {target}, which is no candidate");
                assert!(!(dead && better), "{tuple} begins with {target}, which is unhealthy");
            }
        }
        self.note(id, &tuple, &inner, Some(target), &pool.zone, sent.time);
    }

    /// With `rebalance`, a flow stays with an unhealthy target only if nobody is better.
    fn assert_may_stay(&self, pool: &Pool, target: IpAddr, candidate: bool) {
        let dead = self.unhealthy.contains(&(target, pool.zone.clone()));
        let must_leave = dead && self.policy.on_unhealthy == Loss::Rebalance
            || self.over.contains(&target)
                && self.policy.on_deregistration == Loss::Rebalance
                && !(dead && self.policy.on_unhealthy == Loss::Reset);
        assert!(!must_leave || candidate, "a flow stays with {target}");
    }

    /// What left through a device when packets had entered by another: answers, and what bypass
    /// lets past.
    fn judge_delivered(
        &mut self,
        gateway: &Gateway,
        delivered: &[Delivered],
        past: u64,
        after: &LedgerTotals,
    ) {
        let flow = |totals: &LedgerTotals| totals.flow.delivered + totals.flow.bypassed;
        let answers = delivered.len() as u64 - past;
        assert_eq!(flow(after) - flow(&self.before.tun), delivered.len() as u64);
        let made = after.flow.generated - self.before.tun.flow.generated;
        assert!(answers <= made, "{answers} packets left uninspected, {made} were made");
        if past == 0 {
            return;
        }
        let snapshot = gateway.snapshot();
        for packet in delivered {
            let inner = Inner::parse(&packet.packet).unwrap();
            let Some(tuple) = self.tuple(&inner) else { panic!("a later fragment: {inner:?}") };
            let host = [inner.src, inner.dst].contains(&IpAddr::from([10, 0, 2, 11]));
            let endpoint = if host { 0xbb } else { 0x0123_4567_89ab_cdef };
            let view = snapshot.endpoint(snapshot.wire_ids[&endpoint]);
            let pool = snapshot.pool(view.pool);
            let id = (endpoint, tuple.canonical());
            let known =
                self.flows.get(&id).filter(|flow| packet.time < flow.last + flow.patience());
            let was_past = known.is_some_and(|flow| flow.target.is_none());
            let keeps =
                was_past && (pool.candidates.is_empty() || !self.policy.inspect_after_bypass);
            let maybe_over = known.is_some_and(|flow| flow.maybe_over);
            let none = self.policy.when_none_healthy == "bypass"
                && pool.candidates.is_empty()
                && pool.none == NoCandidate::Bypass;
            assert!(
                self.mode == TrafficMode::Bypass || none || keeps || maybe_over,
                "{tuple} passes uninspected, and nothing says so"
            );
            // By the switch a flow passes that has a target, and keeps it.
            let known = known.filter(|flow| !(flow.is_closed() && opens(&inner)));
            let target = known.and_then(|flow| flow.target);
            let target = target.filter(|_| self.mode == TrafficMode::Bypass);
            self.note(id, &tuple, &inner, target, &pool.zone, packet.time);
        }
    }

    /// The tuple of the flow that a packet belongs to.
    fn tuple(&mut self, inner: &Inner) -> Option<FlowKey> {
        match (inner.fragment, inner.transport) {
            (_, Transport::IcmpError { about, .. }) => Some(about),
            (Fragment::First { id }, _) => {
                let flow = inner.ported_key().unwrap();
                self.fragments.insert((inner.src, inner.dst, id), flow);
                Some(flow)
            }
            (Fragment::Later { id, .. }, _) => {
                self.fragments.get(&(inner.src, inner.dst, id)).copied()
            }
            _ => Some(inner.flow_key()),
        }
    }

    fn note(
        &mut self,
        id: (u64, CanonicalKey),
        tuple: &FlowKey,
        inner: &Inner,
        target: Option<IpAddr>,
        zone: &str,
        now: Duration,
    ) {
        if let Transport::IcmpError { .. } = inner.transport {
            return;
        }
        let known = self.flows.get(&id).filter(|flow| now < flow.last + flow.patience());
        // Where flows are reset that lose their target, a SYN is answered by a new flow instead. A
        // target can be gone for two causes, of which only one resets: what the node said counts.
        let resetting = |before: IpAddr| {
            let action = self.losing.get(&(before, zone.to_owned()));
            action.is_some_and(|&action| action != FailoverAction::Rebalance)
        };
        let known = known.filter(|flow| {
            let lost = flow.target != target && flow.target.is_some_and(resetting);
            !((flow.is_closed() || lost) && opens(inner))
        });
        let resets = matches!(inner.transport, Transport::Tcp { flags, .. }
            if flags.contains(TcpFlags::RST));
        if known.is_none() && resets {
            // The last word of a flow begins none.
            return;
        }
        let mut flow = known.cloned().unwrap_or(Flow {
            target,
            last: now,
            answered: false,
            finished: [false; 2],
            reset: false,
            maybe_over: false,
            tcp: tuple.protocol() == protocol::TCP,
        });
        (flow.target, flow.last) = (target, now);
        if let Transport::Tcp { flags, header_len, .. } = inner.transport {
            let end = usize::from(tuple.canonical().directed() != *tuple);
            let data = inner.total_len > inner.header_len + header_len;
            if resets {
                flow.reset = true;
            } else if !opens(inner) {
                flow.answered = true;
                flow.reset &= !data;
                flow.finished[end] |= flags.contains(TcpFlags::FIN);
            }
        }
        self.flows.insert(id, flow);
    }
}

fn totals(counters: &[TargetCounters]) -> TargetTotals {
    let mut totals = TargetTotals::default();
    for counters in counters {
        totals.add(counters);
    }
    totals
}

fn opens(inner: &Inner) -> bool {
    let Transport::Tcp { flags, .. } = inner.transport else { return false };
    flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK)
}
