//! Groups of endpoints: members of one service, each in a zone of its own.

use std::time::Duration;

use super::super::ids::Id;
use super::super::{EndpointGroup, EndpointId, GroupMode};
use super::{Draft, names};
use crate::config;
use crate::rules::{Rule, RuleSet};
use crate::source::{Located, Problem};

/// A zone whose health checks pass again has shown so for a while already; a minute more, and one
/// that comes and goes takes nobody with it.
const RETURN_AFTER_SECONDS: u32 = 60;
/// A day.
const MAX_RETURN_AFTER_SECONDS: u32 = 86_400;

impl Draft<'_> {
    /// All groups.
    pub(super) fn add_groups(&mut self) {
        let file = self.file;
        for group in &file.endpoint_groups {
            let mode = group.mode.as_deref().copied().unwrap_or_default();
            let members = self.members(group);
            self.check_weights(group, mode);
            let disabled = self.disabled(group);
            let return_after = self.return_after(group, mode);
            let name = group.name.get().clone();
            self.groups.push(EndpointGroup { name, mode, members, disabled, return_after });
        }
    }

    fn members(&mut self, group: &config::EndpointGroup) -> Vec<(EndpointId, u8)> {
        let mut members: Vec<(EndpointId, &config::GroupMember)> = Vec::new();
        for member in &group.members {
            let reference = &member.endpoint;
            let known = &self.names.endpoints;
            let id: EndpointId =
                names::resolve(names::ENDPOINT, known, reference, &mut self.problems);
            let Some(endpoint) = self.endpoints.get(id.index()) else { continue };
            let mut problems = Vec::new();
            for (other, first) in &members {
                let other = &self.endpoints[other.index()];
                let first = first.endpoint.span();
                let vpcs = [endpoint, other]
                    .map(|it| self.subnets.get(it.subnet.index()).map(|subnet| subnet.vpc));
                // A difference to the first member is told once.
                if other.zone == endpoint.zone {
                    problems.push(
                        reference
                            .problem(format!(
                                "two members of group \"{}\" are in zone \"{}\"",
                                group.name.get(),
                                endpoint.zone
                            ))
                            .label("a second one")
                            .and(first, "the first one")
                            .help("a group is there for when a zone fails: take endpoints of different zones"),
                    );
                    break;
                }
                if other.service != endpoint.service {
                    problems.push(
                        reference
                            .problem(format!(
                                "the members of group \"{}\" connect to different services",
                                group.name.get()
                            ))
                            .label(format!("to \"{}\"", endpoint.service))
                            .and(first, format!("to \"{}\"", other.service)),
                    );
                    break;
                }
                if vpcs[0] != vpcs[1] && vpcs.iter().all(|vpc| vpc.is_some_and(Id::is_resolved)) {
                    problems.push(
                        reference
                            .problem(format!(
                                "the members of group \"{}\" are in different VPCs",
                                group.name.get()
                            ))
                            .label("in another VPC")
                            .and(first, "than this one"),
                    );
                    break;
                }
            }
            self.problems.extend(problems);
            members.push((id, member));
        }
        if group.members.len() < 2 {
            self.problems.push(
                group
                    .name
                    .problem(format!("group \"{}\" has fewer than two members", group.name.get()))
                    .label("nothing to fail over to")
                    .help("a route can lead to a single endpoint without a group"),
            );
        }
        members.into_iter().map(|(id, member)| (id, *member.weight.get())).collect()
    }

    /// Such members as get nothing new, which cannot be all.
    fn disabled(&mut self, group: &config::EndpointGroup) -> Vec<EndpointId> {
        let off = |member: &&Located<config::GroupMember>| {
            member.enabled.as_ref().is_some_and(|enabled| !*enabled.get())
        };
        let disabled: Vec<_> = group.members.iter().filter(off).collect();
        if !disabled.is_empty() && disabled.len() == group.members.len() {
            let name = group.name.get();
            self.problems.push(
                group
                    .name
                    .problem(format!("no member of group \"{name}\" is enabled"))
                    .label("nothing would get its packets")
                    .help("leave at least one of them enabled"),
            );
        }
        let known = &self.names.endpoints;
        disabled.iter().filter_map(|it| known.get(it.endpoint.get()).copied()).collect()
    }

    /// When packets go back to the active member.
    fn return_after(&mut self, group: &config::EndpointGroup, mode: GroupMode) -> Option<Duration> {
        let (asked, after) = (&group.automatic_return, &group.return_after_seconds);
        let automatic = asked.as_ref().is_none_or(|asked| *asked.get());
        if mode == GroupMode::Weighted {
            let spans = [asked.as_ref().map(Located::span), after.as_ref().map(Located::span)];
            for (key, span) in ["automatic_return", "return_after_seconds"].iter().zip(spans) {
                let Some(span) = span else { continue };
                self.problems.push(
                    Problem::at(span, format!("`{key}` is about a standby"))
                        .label("of no use here: a weighted group has none")
                        .help("leave it out: a member gets its share again once it is healthy"),
                );
            }
            return None;
        }
        if let (Some(asked), Some(after)) = (asked, after)
            && !automatic
        {
            self.problems.push(
                after
                    .problem("`return_after_seconds` of a group that does not return by itself")
                    .label("of no use here")
                    .and(asked.span(), "this turns it off")
                    .help("leave one of the two out"),
            );
        }
        let seconds = after.as_ref().map_or(RETURN_AFTER_SECONDS, |after| *after.get());
        if let Some(after) = after
            && seconds > MAX_RETURN_AFTER_SECONDS
        {
            self.problems.push(
                after
                    .problem(format!("{seconds} seconds are more than a day"))
                    .label(format!("0 to {MAX_RETURN_AFTER_SECONDS}"))
                    .help("automatic_return = false leaves it to somebody to switch it back"),
            );
        }
        automatic.then(|| Duration::from_secs(seconds.into()))
    }

    fn check_weights(&mut self, group: &config::EndpointGroup, mode: GroupMode) {
        let weights: Vec<&Located<u8>> = group.members.iter().map(|it| &it.weight).collect();
        for weight in weights.iter().filter(|weight| *weight.get() > 100) {
            self.problems.push(
                weight
                    .problem(format!("{} is more than the highest weight", weight.get()))
                    .label("a weight is 0 to 100"),
            );
        }
        let mut sorted: Vec<u8> = weights.iter().map(|weight| *weight.get()).collect();
        sorted.sort_unstable();
        let name = group.name.get();
        if mode == GroupMode::ActiveStandby && sorted.len() >= 2 && sorted != [0, 100] {
            self.problems.push(
                group
                    .name
                    .problem(format!("group \"{name}\" is not one active and one standby"))
                    .label("two members, of weight 100 (active) and 0 (standby)")
                    .help("for other weights, or more members, write mode = \"weighted\"")
                    .rule(Rule::GroupMembers, RuleSet::Alibaba),
            );
        } else if mode == GroupMode::Weighted && Rule::GroupMembers.is_in(self.rules) {
            let place = group.mode.as_ref().map_or(group.name.span(), Located::span);
            self.problems.push(
                Problem::at(place, format!("group \"{name}\" is weighted"))
                    .label("no mode that the cloud has")
                    .help("leave it out, or hold the tables to other rules in [routing]")
                    .rule(Rule::GroupMembers, self.rules),
            );
        } else if mode == GroupMode::Weighted
            && !sorted.is_empty()
            && sorted.iter().all(|it| *it == 0)
        {
            self.problems.push(
                group
                    .name
                    .problem(format!("no member of group \"{name}\" has a weight"))
                    .label("all are 0, so nothing would be inspected")
                    .help("give at least one of them a weight above 0"),
            );
        }
    }
}
