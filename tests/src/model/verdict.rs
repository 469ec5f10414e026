//! What has to become of a packet, and whether a verdict is that.

use gwlb::dataplane::snapshot::{PoolId, TargetSlot};
use gwlb::dataplane::verdict::{Change as Changed, DropReason, Hop, Origin, ReplyCause, WorkerId};
use router::{Attachment, EndpointId};

use super::books::briefly;
use super::flow::{Flow, FlowId};
use super::placing::{Case, Change};
use super::plane::{Judged, Plane};
use super::seen::Seen;
use super::tuple::Tuple;
use super::view::View;
use super::wire::{Numbers, hold_reset, hold_too_big};
use super::{Clause, Wrong, hold, wrong};
use crate::gateway::journal::Judgement;

/// What has to become of a packet.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    ToAppliance { id: FlowId, pool: PoolId, slot: TargetSlot, change: Change },
    Deliver(Attachment),
    Bypass(Attachment),
    HandOver(WorkerId, Origin),
    Held,
    TooBig { to: Attachment, endpoint: EndpointId, fits: u16 },
    Reset { to: Attachment, cause: ReplyCause },
    Drop(DropReason),
}

impl Plane {
    /// Whether a verdict is what is expected, as far as it can be told without doing it.
    pub(super) fn is_alike(&self, it: &Judged<'_>, expected: &Expected, case: &Case<'_>) -> bool {
        match (expected, it.verdict) {
            (Expected::ToAppliance { slot, change, .. }, Judgement::ToAppliance(hop)) => {
                hop.target == *slot && *change == changed(hop)
            }
            (Expected::TooBig { to, endpoint, fits }, Judgement::Reply { .. }) => self
                .hold_answer(
                    it,
                    case.seen,
                    case.view,
                    &Expected::TooBig { to: *to, endpoint: *endpoint, fits: *fits },
                )
                .is_ok(),
            (Expected::Reset { to, cause }, Judgement::Reply { to: went, cause: why, .. }) => {
                (to, cause) == (went, why)
            }
            (Expected::Drop(reason), Judgement::Drop(dropped)) => reason == dropped,
            _ => false,
        }
    }

    /// Holds that an answer is the one that is expected.
    fn hold_answer(
        &self,
        it: &Judged<'_>,
        seen: &Seen,
        view: &View,
        expected: &Expected,
    ) -> Result<(), Wrong> {
        let Judgement::Reply { to: went, packet, cause: why } = it.verdict else {
            return self.differs(it, expected);
        };
        let inner = &seen.inner;
        match expected {
            Expected::TooBig { to, endpoint, fits } => {
                let right = (to, &ReplyCause::PacketTooBig) == (went, why);
                hold(right, Clause::Conservation, || format!("{expected:?} is expected"))?;
                let addresses = &view.endpoint(*endpoint).addresses;
                let mut of_family =
                    addresses.iter().filter(|it| it.is_ipv4() == inner.dst.is_ipv4());
                let from = of_family.next().copied().unwrap_or(inner.dst);
                hold_too_big(packet, &seen.bytes, inner, from, *fits)
            }
            Expected::Reset { to, cause } => {
                hold((to, cause) == (went, why), Clause::Conservation, || {
                    format!("{expected:?} is expected")
                })?;
                let (src, dst) = inner.ports().unwrap_or_default();
                let numbers = Numbers::answering(&seen.bytes, inner);
                hold_reset(packet, (inner.dst, dst), (inner.src, src), numbers)
            }
            _ => self.differs(it, expected),
        }
    }

    /// Holds that the verdict is the one that is expected.
    pub(super) fn hold_alike(
        &self,
        it: &Judged<'_>,
        seen: &Seen,
        view: &View,
        expected: &Expected,
    ) -> Result<(), Wrong> {
        let alike = match (expected, it.verdict) {
            (Expected::ToAppliance { slot, change, .. }, Judgement::ToAppliance(hop)) => {
                hop.target == *slot && *change == changed(hop)
            }
            (Expected::Deliver(to), Judgement::Deliver(went))
            | (Expected::Bypass(to), Judgement::Bypass(went)) => to == went,
            (Expected::HandOver(to, from), Judgement::HandOver(went, origin)) => {
                (to, from) == (went, origin)
            }
            (Expected::Held, Judgement::Held) => true,
            (Expected::Drop(reason), Judgement::Drop(dropped)) => reason == dropped,
            (Expected::TooBig { .. } | Expected::Reset { .. }, _) => {
                return self.hold_answer(it, seen, view, expected);
            }
            _ => false,
        };
        if alike { Ok(()) } else { self.differs(it, expected) }
    }

    /// The gateway has judged otherwise: which clause is that against?
    fn differs(&self, it: &Judged<'_>, expected: &Expected) -> Result<(), Wrong> {
        let clause = match (expected, it.verdict) {
            (_, Judgement::Bypass(_) | Judgement::Deliver(_)) => Clause::NoUninspectedPath,
            (Expected::ToAppliance { .. }, Judgement::ToAppliance(_)) => self.moved_against(it),
            (Expected::HandOver(..), _) | (_, Judgement::HandOver(..)) => Clause::Symmetry,
            (Expected::Drop(DropReason::FragmentQueueFull), _) => Clause::Bounded,
            _ => Clause::Conservation,
        };
        wrong(clause, || {
            format!("{expected:?} is expected, and the verdict is {}", briefly(it.verdict))
        })
    }

    /// A packet goes to another target than expected: the first direction of its flow, whole, tells
    /// that the flow has moved; anything else, that it does not stay with its flow.
    fn moved_against(&self, it: &Judged<'_>) -> Clause {
        let Some(seen) = Seen::of(it.packet, it.offload) else { return Clause::Stability };
        let own = Tuple::of(&seen.inner);
        let same_way = |flow: &Flow| flow.begun == own;
        let begun_so = self.flows.iter().any(|(_, flow)| same_way(flow));
        if begun_so { Clause::Stability } else { Clause::Symmetry }
    }
}

fn changed(hop: &Hop) -> Change {
    match hop.change {
        None => Change::None,
        Some(Changed::Fragment(mtu)) => Change::Cut(mtu),
        Some(Changed::ClampMss(mtu)) => Change::Clamp(mtu),
    }
}
