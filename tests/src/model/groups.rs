//! Groups of endpoints: which member a packet belongs to.
//!
//! "A flow stays with the member that has it, as long as that is living; a flow that nobody has goes
//! to a member that is chosen now, the same for both directions."

use std::sync::Arc;
use std::time::Duration;

use gwlb::dataplane::verdict::{DropReason, Origin};
use router::{EndpointId, GroupId};

use super::Wrong;
use super::flow::{Flow, FlowId, is_opening};
use super::guess::guess;
use super::plane::{Judged, Plane, Stage};
use super::seen::Seen;
use super::tuple;
use super::verdict::Expected;
use super::view::{Set, View};

impl Plane {
    /// What becomes of a packet at a group, and at which of its members.
    pub(super) fn balance_group(
        &mut self,
        it: &Judged<'_>,
        seen: &Seen,
        view: &Arc<View>,
        (group, origin): (GroupId, Origin),
        now: Duration,
    ) -> Result<(EndpointId, Stage), Wrong> {
        let group = &view.snapshot.groups[group.index()];
        let first = group.members[0];
        let wire_id = |member: EndpointId| view.endpoint(member).wire_id;
        let tuple = match self.tuple(it, seen, view, (wire_id(first), origin), now) {
            Ok(Some(tuple)) => tuple,
            Ok(None) => return Ok((first, Stage::Ends(Expected::Held))),
            Err(reason) => return Ok((first, Stage::Ends(Expected::Drop(reason)))),
        };
        // Members agree in what makes a flow, so any of them will do to say whose it is.
        let flow = tuple.sticky(view.pool(view.endpoint(first).pool).stickiness);
        let owner = self.owner((wire_id(first), flow), it, origin)?;
        if owner != it.worker {
            return Ok((first, Stage::Ends(Expected::HandOver(owner, origin))));
        }
        let chosen: Vec<EndpointId> = group.chosen.iter().map(|it| it.target).collect();
        let Some(chosen) = spread(view, &flow, &chosen, group) else {
            return Ok((first, Stage::Ends(Expected::Drop(DropReason::NoTarget))));
        };
        let has = |member: EndpointId| -> Option<(FlowId, &Flow)> {
            let id = (wire_id(member), flow);
            self.flows.get(&id).filter(|flow| flow.is_alive(now)).map(|flow| (id, flow))
        };
        let others = group.members.iter().filter(|it| **it != chosen && has(chosen).is_none());
        let others: Vec<_> = others.filter_map(|it| Some((*it, has(*it)?))).collect();
        let goes_on = |flow: &Flow| {
            let reset = flow.tcp.is_some_and(|tcp| tcp.reset);
            !(is_opening(&seen.inner) && flow.is_closed() && !reset)
        };
        let keeper =
            others.iter().find(|(it, (_, flow))| group.living.contains(it) && goes_on(flow));
        if let Some(&(member, _)) = keeper {
            let at = (member, origin);
            let stage = self.balance_tuple(it, seen, view, at, (tuple, false), now)?;
            return Ok((member, stage));
        }
        let before = others
            .last()
            .map(|(it, (id, flow))| (*id, goes_on(flow) && group.leaving.contains(it)));
        let moved = before.is_some_and(|(_, moved)| moved);
        let stage = self.balance_tuple(it, seen, view, (chosen, origin), (tuple, moved), now)?;
        let begun = self.flows.get(&(wire_id(chosen), flow)).is_some_and(|it| it.is_alive(now));
        if let (Some((id, moved)), true) = (before, begun)
            && let Some(flow) = self.flows.forget(&id)
        {
            let generation = self.generation(it.worker);
            self.books.loses(&flow.who, generation);
            self.books.flows.reopened += 1;
            self.books.flows.rebalanced += u64::from(moved);
        }
        Ok((chosen, stage))
    }
}

/// The member that a flow goes to which nobody has. Where that is too close to tell, it is the first.
fn spread(
    view: &View,
    flow: &tuple::Flow,
    chosen: &[EndpointId],
    group: &gwlb::dataplane::snapshot::GroupView,
) -> Option<EndpointId> {
    let [only] = chosen else {
        let mut set: Set = group.chosen.iter().map(|it| (it.id.get(), it.weight)).collect();
        set.sort_unstable();
        let best = guess(view, flow, &set);
        let found = group.chosen.iter().find(|it| Some(it.id.get()) == best);
        return found.map(|it| it.target).or(chosen.first().copied());
    };
    Some(*only)
}
