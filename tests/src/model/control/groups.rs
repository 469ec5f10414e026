//! Groups of endpoints, as far as it can be seen from outside what they have to be: whose flows
//! stay, who may get new ones, and when that may change. The states between are for the tests of
//! `router::failover`.

use std::time::Duration;

use gwlb::config::{Failover, TrafficMode};
use gwlb::dataplane::snapshot::{GroupView, Snapshot};
use router::failover::State;
use router::{EndpointGroup, EndpointId, GroupMode};

use super::super::{Clause, Wrong, hold};
use super::Control;

/// What was known of a group at the last view.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Of each member, since when it has been good for flows without a break; nothing: it is not, or
    /// nobody has known yet.
    good_since: Vec<Option<Duration>>,
    /// Whether anything has ever been known of each.
    known: Vec<bool>,
    active: Option<EndpointId>,
    /// Whether somebody has switched it, or it is configured otherwise, since the last view.
    switched: bool,
    /// The member that somebody has switched to.
    manual: Option<EndpointId>,
    state: Option<State>,
}

impl Control {
    /// Somebody has switched a group. Returns whether that may be.
    pub(in super::super) fn switch_group(
        &mut self,
        group: &str,
        to: Option<&str>,
        now: Duration,
    ) -> bool {
        self.now = now;
        let topology = &self.settings.topology;
        let Some(id) = topology.endpoint_group_by_name(group) else { return false };
        let of = topology.endpoint_group(id);
        let member = to.and_then(|to| topology.endpoint_by_name(to));
        let place = of.members.iter().position(|(it, _)| Some(*it) == member);
        let Some(known) = self.groups.get_mut(group) else { return false };
        let good = place.is_some_and(|at| {
            known.known.iter().all(|known| *known)
                && known.good_since[at].is_some()
                && !of.disabled.contains(&of.members[at].0)
        });
        let may = of.mode == GroupMode::ActiveStandby && (to.is_none() || good);
        if may {
            known.switched = true;
            known.manual = member;
        }
        may
    }

    /// Another configuration is in force: groups may be other ones under the same names.
    pub(super) fn reload_groups(&mut self) {
        for group in self.groups.values_mut() {
            group.switched = true;
        }
    }

    /// A group has told that it is otherwise.
    pub(super) fn group_event(
        &mut self,
        name: &str,
        from: State,
        to: State,
        active: Option<&str>,
    ) -> Result<(), Wrong> {
        let is = |right: bool, what: &str| {
            hold(right, Clause::Documented, || format!("{name}, from {from} to {to}: {what}"))
        };
        let known = self.groups.entry(name.to_owned()).or_default();
        is(known.state.is_none_or(|state| state == from), "it was otherwise before")?;
        known.state = (to != State::Deleting).then_some(to);
        let topology = &self.settings.topology;
        let Some(id) = topology.endpoint_group_by_name(name) else {
            self.groups.remove(name);
            return is(to == State::Deleting, "it is not there any more");
        };
        let members = &topology.endpoint_group(id).members;
        let is_member = |active: &str| {
            members.iter().any(|(member, _)| topology.endpoint(*member).name == active)
        };
        is(active.is_none_or(is_member), "new flows go to who is no member")
    }

    /// Holds that a view says of groups what it should.
    pub(super) fn hold_groups(&mut self, snapshot: &Snapshot) -> Result<(), Wrong> {
        let settings = std::sync::Arc::clone(&self.settings);
        for ((_, group), view) in settings.topology.endpoint_groups().zip(&snapshot.groups) {
            let good: Vec<Option<bool>> =
                group.members.iter().map(|(member, _)| self.is_good(*member)).collect();
            self.hold_group(group, &good, view)?;
        }
        let count = settings.topology.endpoint_groups().len();
        hold(snapshot.groups.len() == count, Clause::Documented, || {
            format!("there are {} groups in the view", snapshot.groups.len())
        })
    }

    fn hold_group(
        &mut self,
        group: &EndpointGroup,
        good: &[Option<bool>],
        view: &GroupView,
    ) -> Result<(), Wrong> {
        let members: Vec<EndpointId> = group.members.iter().map(|(member, _)| *member).collect();
        let now = self.now;
        let known = self.groups.entry(group.name.clone()).or_default();
        known.good_since.resize(members.len(), None);
        known.known.resize(members.len(), false);
        for (at, good) in good.iter().enumerate() {
            known.known[at] |= good.is_some();
            let since = known.good_since[at].unwrap_or(now);
            known.good_since[at] = (*good == Some(true)).then_some(since);
        }
        let is_good = |known: &Group, at: usize| {
            known.good_since[at].is_some() && !group.disabled.contains(&members[at])
        };
        let living: Vec<_> =
            (0..members.len()).filter(|at| known.good_since[*at].is_some()).collect();
        let living: Vec<_> = living.into_iter().map(|at| members[at]).collect();
        let right = (&view.members, &view.living) == (&members, &living);
        hold(right, Clause::Stability, || {
            format!("{}: {living:?} of {members:?} live: {view:?}", group.name)
        })?;
        let enabled = (0..members.len()).filter(|at| !group.disabled.contains(&members[*at]));
        let pending = enabled.clone().any(|at| !known.known[at]);
        let chosen: Vec<_> = view.chosen.iter().map(|it| (it.target, it.weight)).collect();
        let place = |member: EndpointId| members.iter().position(|it| *it == member);
        let of_all = !chosen.is_empty() && chosen.iter().all(|(it, _)| place(*it).is_some());
        hold(of_all, Clause::NoUninspectedPath, || format!("{}: {view:?}", group.name))?;
        let any_good = (0..members.len()).any(|at| is_good(known, at));
        let only_good =
            chosen.iter().all(|(it, _)| place(*it).is_some_and(|at| is_good(known, at)));
        hold(pending || !any_good || only_good, Clause::Documented, || {
            format!("{}: new flows go to zones that cannot take them: {view:?}", group.name)
        })?;
        if group.mode == GroupMode::ActiveStandby {
            let [(active, _)] = chosen[..] else {
                return hold(false, Clause::Documented, || format!("{}: {view:?}", group.name));
            };
            let before = known.active.replace(active).filter(|before| *before != active);
            let switched = std::mem::take(&mut known.switched);
            let at = place(active).unwrap_or_default();
            let first = group.members.iter().max_by_key(|(_, weight)| *weight).map(|(it, _)| *it);
            let preferred = known.manual.or(first) == Some(active);
            let lost = before.and_then(place).is_some_and(|at| !is_good(known, at));
            let returned = preferred
                && group
                    .return_after
                    .zip(known.good_since[at])
                    .is_some_and(|(after, since)| now >= since + after);
            hold(before.is_none() || lost || switched || returned, Clause::Stability, || {
                format!("{}: new flows go to {active:?} for no reason", group.name)
            })?;
        } else if !pending && any_good {
            let weighty = |weight: u8| weight > 0;
            let all = group.members.iter().enumerate();
            let all: Vec<_> =
                all.filter(|(at, _)| is_good(known, *at)).map(|(_, it)| *it).collect();
            let some = all.iter().any(|(_, weight)| weighty(*weight));
            let should: Vec<_> = all
                .into_iter()
                .filter(|(_, weight)| weighty(*weight) || !some)
                .map(|(member, weight)| (member, u16::from(weight.max(1))))
                .collect();
            hold(chosen == should, Clause::Documented, || {
                format!("{}: new flows go to {chosen:?}, not to {should:?}", group.name)
            })?;
        }
        let leaves = members.iter().filter(|it| !living.contains(it)).filter(|it| self.moves(**it));
        let leaves: Vec<_> = leaves.copied().collect();
        hold(view.leaving == leaves, Clause::Stability, || {
            format!("{}: the flows of {leaves:?} move: {view:?}", group.name)
        })
    }

    /// Whether an endpoint's node can take flows. Nothing: nobody has known yet.
    fn is_good(&self, endpoint: EndpointId) -> Option<bool> {
        let binding = self.settings.bindings[endpoint.index()];
        let balancer = &self.settings.load_balancers[binding.load_balancer];
        let name = (balancer.name.to_string(), balancer.nodes[binding.node].zone.clone());
        let (choice, mode) = self.view.as_ref()?.nodes.get(&self.pool(&name)?)?;
        if *mode == TrafficMode::Bypass { Some(true) } else { choice.hopeful }
    }

    /// Whether the flows of a zone that fails are taken on elsewhere.
    fn moves(&self, endpoint: EndpointId) -> bool {
        let binding = self.settings.bindings[endpoint.index()];
        let balancer = &self.settings.load_balancers[binding.load_balancer];
        let group = &self.settings.target_groups[balancer.target_group];
        group.target_failover.on_unhealthy == Failover::Rebalance
    }
}
