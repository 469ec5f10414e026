//! Groups of endpoints: which zone's endpoint gets new flows. How a group fails over is for
//! [`router::failover`] to say; here it is told what is known of each zone, and workers are told what
//! it decides.

use std::sync::Arc;
use std::time::Instant;

use router::failover::{self, Failover, Health, State};
use router::{GroupId, GroupMode};
use serde::Serialize;
use utoipa::ToSchema;

use super::event::Event;
use super::{CommandError, Control, Item};
use crate::config::{self, Settings};
use crate::dataplane::select::{Candidate, TargetId};
use crate::dataplane::snapshot::GroupView;

/// A group of endpoints, running.
#[derive(Debug)]
pub(super) struct Run {
    failover: Failover,
    /// The endpoints as they are known on the wire, in the order of the group.
    members: Vec<u64>,
    /// The active member, as workers were told.
    told: Option<usize>,
    /// The view that told them so, as long as not every worker has it.
    moves: Option<u64>,
}

/// A group of endpoints in different zones.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EndpointGroupStatus {
    /// Its name.
    pub name: String,
    /// How new flows are spread over its members: `active_standby` or `weighted`.
    #[schema(value_type = String, example = "active_standby")]
    pub mode: &'static str,
    /// How it is, as Alibaba Cloud spells it: `Pending`, `Available`, `Switching`, `Switched`,
    /// `Recovering`, `Abnormal`, `Unavailable` or `Deleting`.
    #[schema(value_type = String, example = "Available")]
    pub state: State,
    /// The endpoint that gets all new flows, if one does.
    pub active: Option<String>,
    /// The endpoint that somebody has switched to, as long as that is not taken back.
    pub switched_to: Option<String>,
    /// When new flows go back to the endpoint that is preferred, if they are about to.
    pub returns_in_seconds: Option<f64>,
    /// Its endpoints.
    pub members: Vec<GroupMemberStatus>,
}

/// An endpoint in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct GroupMemberStatus {
    /// The endpoint.
    pub endpoint: String,
    /// Its zone.
    pub zone: String,
    /// 100 (active) and 0 (standby), or its share.
    pub weight: u8,
    /// Whether it may get new flows.
    pub enabled: bool,
    /// Whether a target can take its flows: `Normal` or `Abnormal`. Absent: not known yet.
    #[schema(value_type = Option<String>, example = "Normal")]
    pub health: Option<Health>,
    /// Whether it gets new flows now.
    pub gets_new_flows: bool,
}

impl Control {
    /// Every group of endpoints, in the order of the file.
    pub fn endpoint_groups(&self) -> Vec<EndpointGroupStatus> {
        let topology = &self.settings.topology;
        let groups = topology.endpoint_groups().zip(&self.endpoint_groups);
        groups.map(|((id, _), run)| self.endpoint_group(id, run)).collect()
    }

    fn endpoint_group(&self, id: GroupId, run: &Run) -> EndpointGroupStatus {
        let topology = &self.settings.topology;
        let group = topology.endpoint_group(id);
        let chosen = run.failover.chosen();
        let name = |member: usize| topology.endpoint(group.members[member].0).name.clone();
        let members = group.members.iter().enumerate().map(|(at, &(endpoint, weight))| {
            let endpoint = topology.endpoint(endpoint);
            GroupMemberStatus {
                endpoint: endpoint.name.clone(),
                zone: endpoint.zone.clone(),
                weight,
                enabled: run.failover.is_enabled(at),
                health: run.failover.health(at),
                gets_new_flows: chosen.iter().any(|(chosen, _)| *chosen == at),
            }
        });
        let returns = run.failover.poll_timeout();
        EndpointGroupStatus {
            name: group.name.clone(),
            mode: match group.mode {
                GroupMode::ActiveStandby => "active_standby",
                GroupMode::Weighted => "weighted",
            },
            state: run.failover.state(),
            active: run.failover.active().map(name),
            switched_to: run.failover.manual().map(name),
            returns_in_seconds: returns
                .map(|at| at.saturating_duration_since(self.now).as_secs_f64()),
            members: members.collect(),
        }
    }

    /// Has a group of endpoints give new flows to this endpoint, until that is taken back (`None`).
    ///
    /// # Errors
    /// [`CommandError::UnknownEndpointGroup`], [`CommandError::NotAMember`], and
    /// [`CommandError::NotSwitched`] if the endpoint cannot take them.
    pub fn switch_endpoint_group(
        &mut self,
        group: &str,
        to: Option<&str>,
        now: Instant,
    ) -> Result<(), CommandError> {
        self.see(now);
        let topology = &self.settings.topology;
        let id = topology
            .endpoint_group_by_name(group)
            .ok_or_else(|| CommandError::unknown_endpoint_group(group, &self.settings))?;
        let members = &topology.endpoint_group(id).members;
        let names: Vec<_> =
            members.iter().map(|(member, _)| topology.endpoint(*member).name.clone()).collect();
        let member = to.map(|to| {
            let found = names.iter().position(|name| name == to);
            found.ok_or_else(|| CommandError::not_a_member(group, to, names))
        });
        let member = member.transpose()?;
        let run = &mut self.endpoint_groups[id.index()];
        run.failover.switch(member, self.now).map_err(|why| CommandError::NotSwitched {
            group: group.to_owned(),
            endpoint: to.map(str::to_owned),
            why,
        })?;
        self.note_group(id.index());
        self.settle();
        Ok(())
    }

    /// The groups of a configuration that takes the place of another one: such as have the same
    /// members go on, with a switch that somebody has made.
    pub(super) fn take_endpoint_groups(&mut self, before: &Settings) {
        let settings = Arc::clone(&self.settings);
        let mut runs: Vec<Option<Run>> =
            std::mem::take(&mut self.endpoint_groups).into_iter().map(Some).collect();
        for index in 0..runs.len() {
            self.agenda.set(Item::Group(index), None);
        }
        for (_, group) in settings.topology.endpoint_groups() {
            let new = Run::of(&settings, group);
            let old = before.topology.endpoint_group_by_name(&group.name);
            let old = old.and_then(|old| runs.get_mut(old.index())?.take());
            self.endpoint_groups.push(match old {
                Some(mut run) if run.members == new.members => {
                    run.failover.configure(failover::Config::of(group), self.now);
                    run
                }
                _ => new,
            });
        }
        for (run, (_, group)) in runs.into_iter().zip(before.topology.endpoint_groups()) {
            let Some(mut run) = run else { continue };
            run.failover.delete();
            self.tell_changes(&mut run, before, group);
        }
        for index in 0..self.endpoint_groups.len() {
            self.note_group(index);
        }
    }

    /// A group may return to the endpoint that it prefers.
    pub(super) fn return_group(&mut self, index: usize) {
        if let Some(run) = self.endpoint_groups.get_mut(index) {
            run.failover.handle_timeout(self.now);
            self.note_group(index);
        }
    }

    /// Every worker has the views up to this one.
    pub(super) fn confirm_groups(&mut self, generation: u64) {
        for index in 0..self.endpoint_groups.len() {
            let run = &mut self.endpoint_groups[index];
            if run.moves.is_some_and(|moves| moves <= generation) {
                run.moves = None;
                run.failover.confirm();
                self.note_group(index);
            }
        }
    }

    /// What is known of the zones at the moment of a view, by pool.
    pub(super) fn report_to_groups(&mut self, health: &[Option<Health>]) {
        let settings = Arc::clone(&self.settings);
        let next = self.next_generation();
        for (id, group) in settings.topology.endpoint_groups() {
            let run = &mut self.endpoint_groups[id.index()];
            let known = group.members.iter().enumerate().filter_map(|(at, (member, _))| {
                let binding = settings.binding(*member);
                let place = Some((binding.load_balancer, binding.node));
                let pool = self.nodes.iter().position(|node| node.place == place)?;
                // Of an endpoint that was good for flows, or not, it is not asked any more whether
                // that is for sure.
                let unsure = run.failover.health(at).map(|_| Health::Abnormal);
                Some((at, health[pool].or(unsure)?))
            });
            let known: Vec<_> = known.collect();
            run.failover.report(known, self.now);
            let active = run.failover.active();
            if active != run.told {
                run.told = active;
                run.moves = Some(next);
            }
            self.note_group(id.index());
        }
    }

    /// What workers are to know of a group.
    pub(super) fn group_view(&self, id: GroupId) -> GroupView {
        let settings = &self.settings;
        let members = &settings.topology.endpoint_group(id).members;
        let run = &self.endpoint_groups[id.index()];
        let chosen = run.failover.chosen().into_iter().map(|(at, weight)| Candidate {
            target: members[at].0,
            id: TargetId::of_endpoint(run.members[at]),
            weight: weight.into(),
        });
        let (living, gone): (Vec<_>, Vec<_>) =
            (0..members.len()).partition(|at| run.failover.is_living(*at));
        let endpoints = |of: Vec<usize>| of.into_iter().map(|at| members[at].0);
        let moves = |endpoint: &router::EndpointId| {
            let balancer = &settings.load_balancers[settings.binding(*endpoint).load_balancer];
            let group = &settings.target_groups[balancer.target_group];
            group.target_failover.on_unhealthy == config::Failover::Rebalance
        };
        GroupView {
            members: members.iter().map(|(member, _)| *member).collect(),
            chosen: chosen.collect::<Vec<_>>().into(),
            living: endpoints(living).collect(),
            leaving: endpoints(gone).filter(moves).collect(),
        }
    }

    /// Something has happened with a group: tells what, and has workers know.
    fn note_group(&mut self, index: usize) {
        let settings = Arc::clone(&self.settings);
        let Some((_, group)) = settings.topology.endpoint_groups().nth(index) else { return };
        let Some(run) = self.endpoint_groups.get_mut(index) else { return };
        self.agenda.set(Item::Group(index), run.failover.poll_timeout());
        self.dirty |= run.failover.active() != run.told;
        let changes: Vec<_> = std::iter::from_fn(|| run.failover.poll_change()).collect();
        self.tell_of_group(&settings, group, &changes);
    }

    fn tell_changes(&mut self, run: &mut Run, settings: &Settings, group: &router::EndpointGroup) {
        let changes: Vec<_> = std::iter::from_fn(|| run.failover.poll_change()).collect();
        self.tell_of_group(settings, group, &changes);
    }

    fn tell_of_group(
        &mut self,
        settings: &Settings,
        group: &router::EndpointGroup,
        changes: &[failover::Change],
    ) {
        for change in changes {
            let name =
                |member: usize| settings.topology.endpoint(group.members[member].0).name.clone();
            self.event(Event::EndpointGroup {
                endpoint_group: group.name.clone(),
                from: change.from,
                to: change.to,
                active: change.active.map(name),
                cause: change.cause,
            });
        }
    }
}

impl Run {
    /// A group, at its beginning.
    pub(super) fn of(settings: &Settings, group: &router::EndpointGroup) -> Self {
        let failover = Failover::new(failover::Config::of(group));
        let wire_id = |(endpoint, _): &(router::EndpointId, u8)| {
            settings.topology.endpoint(*endpoint).wire_id
        };
        Self {
            told: failover.active(),
            failover,
            members: group.members.iter().map(wire_id).collect(),
            moves: None,
        }
    }
}
