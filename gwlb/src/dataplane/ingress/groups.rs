//! Packets for a group of endpoints: one of its members gets them.
//!
//! A flow belongs to the member that has it, as long as that is living; only one that nobody has is
//! spread over those that are chosen now. All members agree in what makes a flow (the configuration
//! is held to that), so a worker that owns a flow at one of them owns it at each.
//!
//! Routes to single endpoints do not come here, nor do the short ways: with several places to look
//! a flow up at, there would be nothing short about it.

#[cfg(test)]
mod tests;

use std::time::Instant;

use geneve::inner::Transport;
use router::{EndpointId, Entry, GroupId};

use super::{Balanced, Ending, Passage, Sought, State};
use crate::dataplane::flow_table::{FlowId, FlowNumber, FlowTable};
use crate::dataplane::frame::Frame;
use crate::dataplane::select::{Candidates, choose};
use crate::dataplane::snapshot::{GroupView, Snapshot};
use crate::dataplane::tcp_state::opens;
use crate::dataplane::verdict::{DropReason, Origin};
use crate::fault::{self, Fault};

/// Who gets a packet.
struct Member {
    endpoint: EndpointId,
    flow: Sought,
    /// What a member has of it that is not living any more, or of a connection that is over, and
    /// whether that is to be taken on.
    before: Option<(FlowNumber, bool)>,
}

impl State {
    /// What becomes of a packet at a group, and at which of its members.
    // Out of the way of packets for single endpoints.
    #[inline(never)]
    pub(super) fn balance_group(
        &mut self,
        view: &Snapshot,
        (group, origin, came_from): (GroupId, Origin, Origin),
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<(EndpointId, Balanced), DropReason> {
        let group = view.group(group);
        // Fragments of one packet are together, whoever gets it.
        let Some(&first) = group.members.first() else { return Err(DropReason::NoTarget) };
        if let Entry::Endpoint(from) = origin.at
            && group.members.contains(&from)
        {
            return Err(DropReason::RoutingLoop);
        }
        let Some(tuple) = self.tuple(view, first, origin, frame, now)? else {
            return Ok((first, Balanced::Ends(Ending::Held)));
        };
        let flow = self.sought(view, first, tuple);
        let (owner, _) = view.share(&flow.id.tuple);
        let member = if owner == self.worker {
            self.member(view, group, flow, frame, now).ok_or(DropReason::NoTarget)?
        } else {
            // The owner knows who has it.
            Member { endpoint: first, flow, before: None }
        };
        let at = Passage { endpoint: member.endpoint, origin, came_from };
        self.moved = member.before.is_some_and(|(_, taken_on)| taken_on);
        let balanced = self.balance(view, &at, frame, Some(&member.flow), now);
        let moved = std::mem::take(&mut self.moved);
        if let Some((before, _)) = member.before
            && self.flows.find(&member.flow.id, member.flow.hash, now).is_some()
        {
            self.leave(view, before, moved);
        }
        Ok((member.endpoint, balanced?))
    }

    /// Who has the packet's flow, or gets it. `flow` is as it is looked for at any member.
    fn member(
        &mut self,
        view: &Snapshot,
        group: &GroupView,
        flow: Sought,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Option<Member> {
        let chosen = spread(view, &flow, &group.chosen)?;
        let at = |flows: &FlowTable, endpoint: EndpointId| {
            let id = FlowId { endpoint: view.endpoint(endpoint).wire_id, ..flow.id };
            Sought { id, hash: flows.hash(&id), ..flow }
        };
        let here = at(&self.flows, chosen);
        let mut before = None;
        if self.flows.find(&here.id, here.hash, now).is_none() {
            for &endpoint in group.members.iter().filter(|other| **other != chosen) {
                let there = at(&self.flows, endpoint);
                let Some(number) = self.flows.find(&there.id, there.hash, now) else { continue };
                let over = self.is_over(number, frame) || fault::on(Fault::GroupForgetsFlows);
                if !over && group.living.contains(&endpoint) {
                    return Some(Member { endpoint, flow: there, before: None });
                }
                before = Some((number, !over && group.leaving.contains(&endpoint)));
            }
        }
        Some(Member { endpoint: chosen, flow: here, before })
    }

    /// Whether a packet begins a connection anew that was closed, so that nobody needs to have it any
    /// more. One that was reset may go on: anybody can forge a reset.
    fn is_over(&self, number: FlowNumber, frame: &Frame<'_>) -> bool {
        let tcp = self.flows.tcp(number);
        tcp.is_some_and(|tcp| tcp.is_closed() && !tcp.is_reset())
            && matches!(frame.inner.transport, Transport::Tcp { flags, .. } if opens(flags))
    }

    /// A flow has begun at another member, so that this one has nothing of it any more: once it is
    /// chosen again, it would take the flow back.
    fn leave(&mut self, view: &Snapshot, before: FlowNumber, moved: bool) {
        let gone = self.flows.remove(before);
        self.stats.flows.reopened.add(1);
        self.stats.flows.rebalanced.add(moved.into());
        self.end(view, &gone);
    }
}

/// Who gets a flow that nobody has.
fn spread(view: &Snapshot, flow: &Sought, chosen: &Candidates<EndpointId>) -> Option<EndpointId> {
    if let [only] = &**chosen {
        return Some(only.target);
    }
    let found = choose(&view.keys.placement, &flow.id.tuple, chosen)?;
    if fault::on(Fault::GroupByDirection) && flow.id.tuple.directed() != flow.tuple {
        return chosen.iter().map(|it| it.target).find(|other| *other != found);
    }
    Some(found)
}
