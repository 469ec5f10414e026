//! Groups of endpoints: members of one service, each in a zone of its own.

use super::super::ids::Id;
use super::super::{EndpointGroup, EndpointId, GroupMode};
use super::{Draft, names};
use crate::config;
use crate::rules::{Rule, RuleSet};
use crate::source::Located;

impl Draft<'_> {
    /// All groups.
    pub(super) fn add_groups(&mut self) {
        let file = self.file;
        for group in &file.endpoint_groups {
            let mode = group.mode.as_deref().copied().unwrap_or_default();
            let members = self.members(group);
            self.check_weights(group, mode);
            self.groups.push(EndpointGroup { name: group.name.get().clone(), mode, members });
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
                crate::source::Problem::at(place, format!("group \"{name}\" is weighted"))
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
