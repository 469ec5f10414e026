//! The ways that are open to a packet at an endpoint, with what each of them looks like.

use gwlb::dataplane::snapshot::TargetSlot;
use gwlb::dataplane::verdict::{DropReason, ReplyCause};
use router::{Attachment, EndpointId, Entry};

use super::flow::Who;
use super::placing::{Case, Change, Plan};
use super::plane::{Judged, Path, Plane};
use super::routes::Next;
use super::verdict::Expected;
use super::wire::{may_be_reset, may_be_told};

impl Plane {
    pub(super) fn add_paths(
        &mut self,
        it: &Judged<'_>,
        case: &Case<'_>,
        endpoint: EndpointId,
        held: Option<Who>,
        plan: Plan,
        paths: &mut Vec<Path>,
    ) {
        let expected = match &plan {
            Plan::Refuses(reason) => Expected::Drop(*reason),
            Plan::Resets(why) => {
                let why = ReplyCause::TargetGone(*why);
                self.answer_with_reset(it, case, why, DropReason::TargetGone)
            }
            Plan::Unknown(why) => {
                self.answer_with_reset(it, case, *why, DropReason::UnknownTcpFlow)
            }
            Plan::Follows { .. } | Plan::Begins { .. } => {
                for goes in plan.among() {
                    let expected = match goes {
                        Who::One(slot) => Some(self.towards(it, case, endpoint, *slot)),
                        _ => None,
                    };
                    let (held, plan) = (held.clone(), plan.clone());
                    paths.push(Path { held, plan, goes: Some(goes.clone()), expected });
                }
                return;
            }
        };
        paths.push(Path { held, plan, goes: None, expected: Some(expected) });
    }

    /// What becomes of a packet for this target.
    fn towards(
        &mut self,
        it: &Judged<'_>,
        case: &Case<'_>,
        endpoint: EndpointId,
        slot: TargetSlot,
    ) -> Expected {
        let change = case.change(slot);
        let Change::TooBig(fits) = change else {
            let (id, pool) = (case.id, case.pool_id);
            return Expected::ToAppliance { id, pool, slot, change };
        };
        let told = back_to(it, case).filter(|_| may_be_told(&case.seen.inner));
        let Some(to) = told else { return Expected::Drop(DropReason::ExceedsMtu) };
        if self.worker(it.worker).errors.has_one(case.now) {
            Expected::TooBig { to, endpoint, fits }
        } else {
            Expected::Drop(DropReason::ExceedsMtu)
        }
    }

    fn answer_with_reset(
        &mut self,
        it: &Judged<'_>,
        case: &Case<'_>,
        why: ReplyCause,
        otherwise: DropReason,
    ) -> Expected {
        let told = back_to(it, case).filter(|_| may_be_reset(&case.seen.inner));
        let Some(to) = told else { return Expected::Drop(otherwise) };
        // Of a flow that was taken in there is one reset for each packet, and then it is over.
        let limited = !matches!(why, ReplyCause::TargetGone(_));
        if limited && !self.worker(it.worker).resets.has_one(case.now) {
            return Expected::Drop(otherwise);
        }
        Expected::Reset { to, cause: why }
    }
}

/// Where an answer to a packet goes: back where that came from.
fn back_to(it: &Judged<'_>, case: &Case<'_>) -> Option<Attachment> {
    let routes = &case.view.routes;
    let to = match it.origin.at {
        at @ Entry::Endpoint(_) => match routes.next(at, case.seen.inner.src) {
            Next::Deliver(to) => to,
            _ => return None,
        },
        at => at.attachment()?,
    };
    routes.is_attached(to).then_some(to)
}
