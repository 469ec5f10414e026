//! What becomes of a packet at an endpoint: whose flow it is, and where that goes. Only thought
//! about here; what was decided is noted in [`super::plane`].

use std::time::Duration;

use geneve::{Fragment, Inner, IpVersion, Stickiness};
use gwlb::config::{AfterBypass, TrafficMode, UnknownFlow};
use gwlb::dataplane::snapshot::{Fate, NoCandidate, Pool, PoolId, ResetCause, TargetSlot};
use gwlb::dataplane::verdict::{DropReason, ReplyCause};

use super::flow::{Flow, FlowId, Segment, Tcp, Who, is_error, is_opening, is_reset, is_tcp};
use super::seen::Seen;
use super::tuple::Tuple;
use super::view::View;

/// All that a packet's way at an endpoint depends on.
pub(super) struct Case<'a> {
    pub view: &'a View,
    pub pool_id: PoolId,
    pub id: FlowId,
    /// The tuple that decides to which flow the packet belongs, in its direction.
    pub tuple: Tuple,
    pub seen: &'a Seen,
    pub now: Duration,
    /// The flow, if it is one that has not idled out.
    pub found: Option<&'a Flow>,
    /// Until when the worker takes on flows in their middle, since it has not taken some in.
    pub overloaded: Option<Duration>,
    /// Whether its flow comes from another member of a group, which is not good for it any more.
    pub moved: bool,
}

/// What is to be done with a packet, as far as its flow is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// It is one of a flow that is there, and goes to one of these.
    Follows {
        /// Whether these are a choice, and not who has the flow already.
        chosen: bool,
        among: Vec<Who>,
        /// Whether the flow moves there.
        moves: bool,
        /// Whether the packet prolongs the flow.
        touches: bool,
    },
    /// It begins a flow, or would, and goes to one of these.
    Begins {
        chosen: bool,
        among: Vec<Who>,
        /// Whether the flow is to be remembered.
        tracked: bool,
        /// Whether it is taken on in its middle.
        adopted: bool,
        /// Whether an older one of the same addresses and ports is over by this.
        again: bool,
    },
    /// Its flow is reset, since its target is gone.
    Resets(ResetCause),
    /// Nobody knows its flow, and its sender is told so.
    Unknown(ReplyCause),
    /// It is dropped.
    Refuses(DropReason),
}

impl Plan {
    /// Where it may go; nowhere, if it does not go on.
    pub(super) fn among(&self) -> &[Who] {
        match self {
            Plan::Follows { among, .. } | Plan::Begins { among, .. } => among,
            Plan::Resets(_) | Plan::Unknown(_) | Plan::Refuses(_) => &[],
        }
    }

    /// Whether where it goes is a choice.
    pub(super) fn is_choice(&self) -> bool {
        matches!(self, Plan::Follows { chosen: true, .. } | Plan::Begins { chosen: true, .. })
    }
}

impl Case<'_> {
    pub(super) fn pool(&self) -> &Pool {
        self.view.pool(self.pool_id)
    }

    fn inner(&self) -> &Inner {
        &self.seen.inner
    }

    /// What of the packet a connection depends on, if flows are connections.
    pub(super) fn segment(&self) -> Option<Segment> {
        let connections = self.pool().stickiness == Stickiness::FiveTuple;
        Segment::of(self.inner(), &self.tuple).filter(|_| connections)
    }

    /// How long a flow in this state is remembered without a packet like this one.
    pub(super) fn patience(&self, tcp: Option<Tcp>) -> Duration {
        let timers = &self.pool().timers;
        match tcp {
            Some(tcp) => tcp.patience(timers),
            None if is_tcp(self.inner()) => timers.tcp_idle,
            None => timers.other_idle,
        }
    }

    /// What is to be done, if the flow that was found is with `who`.
    pub(super) fn plan(&self, who: Option<&Who>) -> Plan {
        match self.found.zip(who) {
            Some((flow, who)) => self.follow(flow, who).unwrap_or_else(|| self.begin(Some(who))),
            None => self.begin(None),
        }
    }

    /// Nothing, if the flow is over and the packet begins another.
    fn follow(&self, flow: &Flow, who: &Who) -> Option<Plan> {
        let pool = self.pool();
        let opening = self.segment().is_some_and(Segment::opens);
        // "A SYN on addresses and ports whose connection is over begins a new flow"
        if opening && flow.is_closed() {
            return None;
        }
        // An ICMP error is about a flow and none of its packets.
        let touches = !is_error(self.inner());
        let goes =
            |who: Who| Plan::Follows { chosen: false, among: vec![who], moves: false, touches };
        if pool.traffic_mode == TrafficMode::Bypass {
            return Some(goes(Who::Nobody));
        }
        let moves = || match self.choices() {
            Ok(among) => Plan::Follows { chosen: true, among, moves: touches, touches },
            Err(reason) => Plan::Refuses(reason),
        };
        let Who::One(slot) = who else {
            let again = pool.after_bypass == AfterBypass::Inspect && !pool.candidates.is_empty();
            return Some(if again { moves() } else { goes(Who::Nobody) });
        };
        match View::fate(pool, *slot) {
            Fate::Rebalance => Some(moves()),
            // "TCP: each end is reset at its next packet; the rest stays"
            Fate::Reset(_) if flow.tcp.is_some() && is_tcp(self.inner()) && opening => None,
            Fate::Reset(cause) if flow.tcp.is_some() && is_tcp(self.inner()) => {
                Some(if self.inner().fragment == Fragment::Whole {
                    Plan::Resets(cause)
                } else {
                    Plan::Refuses(DropReason::TargetGone)
                })
            }
            Fate::Stay | Fate::Reset(_) => Some(goes(who.clone())),
        }
    }

    fn begin(&self, before: Option<&Who>) -> Plan {
        let (pool, inner) = (self.pool(), self.inner());
        let bypass = pool.traffic_mode == TrafficMode::Bypass;
        let mut adopted = false;
        if is_tcp(inner) && !is_error(inner) && !is_opening(inner) && !bypass {
            // "for one idle timeout after a start it is adopted"
            let after_start = pool.adopt_after_start && self.now < pool.timers.tcp_idle;
            let overloaded = self.overloaded.is_some_and(|until| self.now < until);
            adopted =
                self.moved || after_start || overloaded || pool.unknown_flow == UnknownFlow::Adopt;
            if !adopted {
                return match pool.unknown_flow {
                    _ if is_reset(inner) => Plan::Refuses(DropReason::UnknownTcpFlow),
                    _ if pool.reset_idle => Plan::Unknown(ReplyCause::IdleTimeout),
                    UnknownFlow::Reset => Plan::Unknown(ReplyCause::UnknownTcpFlow),
                    _ => Plan::Refuses(DropReason::UnknownTcpFlow),
                };
            }
        }
        let (chosen, among) = match before.filter(|who| self.keeps(who)) {
            _ if bypass => (false, vec![Who::Nobody]),
            Some(who) => (false, vec![who.clone()]),
            None => match self.choices() {
                Ok(among) => (true, among),
                Err(reason) => return Plan::Refuses(reason),
            },
        };
        // The last word of a flow, and a word about one, are nothing to remember it for.
        let tracked = !is_reset(inner) && !is_error(inner);
        Plan::Begins { chosen, among, tracked, adopted, again: self.found.is_some() }
    }

    /// "after a reset, which can be forged, at the same target if that still gets new flows"
    fn keeps(&self, before: &Who) -> bool {
        let Who::One(slot) = before else { return false };
        let pool = self.pool();
        let reset = self.found.and_then(|flow| flow.tcp).is_some_and(|tcp| tcp.reset);
        let candidate = pool.candidates.iter().any(|it| it.target == *slot && it.weight > 0);
        reset && candidate && View::fate(pool, *slot) == Fate::Stay
    }

    /// Who may get a flow that has nobody.
    fn choices(&self) -> Result<Vec<Who>, DropReason> {
        let pool = self.pool();
        let with_weight = pool.candidates.iter().filter(|it| it.weight > 0);
        let among: Vec<_> = with_weight.map(|it| Who::One(it.target)).collect();
        match pool.none {
            _ if !among.is_empty() => Ok(among),
            NoCandidate::Bypass => Ok(vec![Who::Nobody]),
            NoCandidate::Drop => Err(DropReason::NoTarget),
        }
    }

    /// What is done to the packet on the way to a target: it goes as it is, is clamped, is cut; or
    /// not at all, and so many bytes would have fit.
    pub(super) fn change(&self, slot: TargetSlot) -> Change {
        let inner = self.inner();
        let fits = self.view.fits(slot, inner.version);
        if self.seen.largest > usize::from(fits) {
            let may_be_cut = inner.version == IpVersion::V4
                && !inner.dont_fragment
                && !super::fragments::reaches_too_far(inner);
            if may_be_cut { Change::Cut(fits) } else { Change::TooBig(fits) }
        } else if self.pool().mss_clamp && super::wire::wants_clamp(&self.seen.bytes, inner, fits) {
            Change::Clamp(fits)
        } else {
            Change::None
        }
    }
}

/// What is done to a packet before it is sent to an appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Clamp(u16),
    Cut(u16),
    TooBig(u16),
}
