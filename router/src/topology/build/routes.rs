//! The routes of the file: one destination and one target each.

use std::ops::Range;

use ipnet::IpNet;

use super::super::ids::Id;
use super::super::table::Held;
use super::super::{
    EdgeId, EdgeKind, EndpointId, GatewayId, GroupId, InterfaceId, InterfaceKind, Origin,
    PrefixListId, Target, VpcId,
};
use super::cidr::parse_cidr;
use super::{Draft, names};
use crate::config::{Route, Written};
use crate::rules::RuleSet;
use crate::source::{Located, Problem};

/// What a route can have besides its destination.
const TARGETS: &str = "endpoint, endpoint_group, internet_gateway, virtual_private_gateway, \
                       egress_only_internet_gateway, nat_gateway, interface, transit_gateway or \
                       opaque = \"NAME\", blackhole = true, local = true";

impl Draft<'_> {
    /// Adds the routes to their tables. A route whose target is not known becomes a blackhole, so
    /// that the search for loops ends there.
    pub(super) fn add_routes(&mut self) {
        let file = self.file;
        for (index, table) in file.route_tables.iter().enumerate() {
            for route in &table.routes {
                self.add_route(index, table.name.get(), route);
            }
            for reference in &table.propagating {
                self.propagate(index, reference);
            }
        }
    }

    fn add_route(&mut self, index: usize, name: &str, route: &Located<Route>) {
        let written = self.written_target(route);
        let vpc = self.tables[index].vpc();
        let target = written.as_ref().and_then(|written| self.target(vpc, written));
        let held = |list| Held { list, ..Held::written(target.unwrap_or(Target::Blackhole)) };
        match (&route.destination, &route.prefix_list) {
            (Some(text), None) => {
                let Some(destination) = self.accept(parse_cidr(text)) else { return };
                if let Some(first) = self.route_places[index].get(&destination) {
                    let problem = text
                        .problem(format!("route table \"{name}\" has two routes for {destination}"))
                        .label("routed again here")
                        .and(first.clone(), "first routed here")
                        .help("a table has one route for each destination: remove one");
                    self.problems.push(problem);
                    return;
                }
                self.route_places[index].insert(destination, text.span());
                if let (Some(written), Some(target)) = (&written, target) {
                    let wrong = self.wrong_family(destination, target, written.span());
                    let problem = wrong.or_else(|| {
                        self.broken_rule(index, text, destination, target, written.span())
                    });
                    if let Some(problem) = problem {
                        self.refuse(name, destination, problem);
                    }
                }
                self.tables[index].insert(destination, held(None));
            }
            (None, Some(reference)) => {
                let known = &self.names.prefix_lists;
                let id: PrefixListId =
                    names::resolve(names::PREFIX_LIST, known, reference, &mut self.problems);
                let Some(list) = self.prefix_lists.get(id.index()) else { return };
                let entries = list.entries.clone();
                if let Some(first) = self.listed.get(&(index, id)) {
                    let problem = reference
                        .problem(format!("route table \"{name}\" has two routes for this list"))
                        .label("routed again here")
                        .and(first.clone(), "first routed here")
                        .help("a table has one route for each prefix list: remove one");
                    self.problems.push(problem);
                    return;
                }
                self.listed.insert((index, id), reference.span());
                if let (Some(written), Some(target)) = (&written, target) {
                    // One problem is enough for a list.
                    let of_list = self.broken_list_rule(index, reference, target, written.span());
                    let problem = of_list.or_else(|| {
                        entries.iter().find_map(|range| {
                            let place = written.span();
                            self.wrong_family(*range, target, place.clone()).or_else(|| {
                                self.broken_rule(index, reference, *range, target, place)
                            })
                        })
                    });
                    self.problems.extend(problem);
                }
                for destination in entries {
                    self.other_places[index].entry(destination).or_insert(reference.span());
                    self.tables[index].insert(destination, held(Some(id)));
                }
            }
            (None, None) => self.problems.push(
                Problem::at(route.span(), "this route is for nothing")
                    .label("a target without a destination")
                    .help("add destination = \"0.0.0.0/0\", or prefix_list = \"NAME\""),
            ),
            (Some(text), Some(reference)) => self.problems.push(
                text.problem("this route has a destination and a prefix list")
                    .label("one")
                    .and(reference.span(), "the other")
                    .help("a route is for one of them: write two routes"),
            ),
        }
    }

    /// What a virtual private gateway has learned comes into a table.
    fn propagate(&mut self, index: usize, reference: &Located<String>) {
        let known = &self.names.virtual_private_gateways;
        let kind = names::VIRTUAL_PRIVATE_GATEWAY;
        let id: EdgeId = names::resolve(kind, known, reference, &mut self.problems);
        let Some(edge) = self.edges.get(id.index()) else { return };
        let problem = self.foreign(self.tables[index].vpc(), edge.vpc, |own, other| {
            reference
                .problem(format!(
                    "virtual private gateway \"{}\" is of another VPC",
                    reference.get()
                ))
                .label(format!("it is attached to VPC \"{other}\""))
                .help(format!("into a table of VPC \"{own}\" come only its own routes"))
        });
        self.problems.extend(problem);
        for (destination, learned) in self.edges[id.index()].learned.clone() {
            self.other_places[index].entry(destination).or_insert(reference.span());
            let held = Held {
                target: Target::Edge(id),
                origin: Origin::EnableVgwRoutePropagation,
                list: None,
                learned: Some(learned),
            };
            // "If propagated routes overlap with the local route, the local route is most preferred even
            // if the propagated routes are more specific" (AWS Site-to-Site VPN, Route priority).
            let vpc = self.tables[index].vpc();
            let within = vpc.is_resolved()
                && self.vpcs[vpc.index()].cidrs.iter().any(|cidr| cidr.contains(&destination));
            if within && self.rules == RuleSet::Aws {
                self.tables[index].insert_filtered(destination, held);
            } else {
                self.tables[index].insert(destination, held);
            }
        }
    }

    /// A route for the family that its target does not carry: NAT gateways carry IPv4, egress-only
    /// internet gateways IPv6 (semantics 1d).
    fn wrong_family(
        &self,
        destination: IpNet,
        target: Target,
        place: Range<usize>,
    ) -> Option<Problem> {
        let v4 = destination.addr().is_ipv4();
        let (target, family) = match target {
            Target::Interface(id)
                if !v4
                    && self.interfaces.get(id.index())?.kind != InterfaceKind::NetworkInterface =>
            {
                ("a NAT gateway", "IPv4")
            }
            Target::Edge(id)
                if v4
                    && self.edges.get(id.index())?.kind == EdgeKind::EgressOnlyInternetGateway =>
            {
                ("an egress-only internet gateway", "IPv6")
            }
            _ => return None,
        };
        Some(
            Problem::at(place, format!("{target} carries {family} alone"))
                .label(format!("not what is for {destination}")),
        )
    }

    /// The one target that is written, or none, with a problem.
    fn written_target<'f>(&mut self, route: &'f Located<Route>) -> Option<Written<'f>> {
        let mut targets = route.written();
        let said_no = targets.iter().find(|written| written.is_no());
        if let Some(written) = said_no {
            let key = written.key();
            let problem = Problem::at(written.span(), format!("`{key} = false` is no target"))
                .label("says nothing")
                .help(format!("leave it out, or write `{key} = true`"));
            self.problems.push(problem);
            return None;
        }
        match targets.as_slice() {
            [] => {
                let place = route.destination.as_ref().or(route.prefix_list.as_ref());
                let problem = Problem::at(
                    place.map_or(route.span(), Located::span),
                    "this route leads nowhere",
                )
                .label("a destination without a target")
                .help(format!("add one of: {TARGETS}"));
                self.problems.push(problem);
                None
            }
            [_] => targets.pop(),
            [first, rest @ ..] => {
                let keys: Vec<&str> = targets.iter().map(Written::key).collect();
                let message = format!("this route has {} targets: {}", keys.len(), keys.join(", "));
                let problem = Problem::at(first.span(), message)
                    .label("one")
                    .help("a route has exactly one target: keep one of them");
                let problem = rest
                    .iter()
                    .fold(problem, |problem, written| problem.and(written.span(), "another"));
                self.problems.push(problem);
                None
            }
        }
    }

    fn target(&mut self, vpc: VpcId, written: &Written<'_>) -> Option<Target> {
        match written {
            Written::Endpoint(name) => self.endpoint(vpc, name),
            Written::InternetGateway(name) => self.internet_gateway(vpc, name),
            Written::Blackhole(_) => Some(Target::Blackhole),
            Written::Local(_) => Some(Target::Local),
            Written::EndpointGroup(name) => self.endpoint_group(vpc, name),
            Written::Interface(name) => {
                let known = &self.names.network_interfaces;
                let id = names::resolve(names::INTERFACE, known, name, &mut self.problems);
                self.interface(vpc, id, name)
            }
            Written::NatGateway(name) => {
                let known = &self.names.nat_gateways;
                let id = names::resolve(names::NAT_GATEWAY, known, name, &mut self.problems);
                self.interface(vpc, id, name)
            }
            Written::VirtualPrivateGateway(name) => {
                let known = &self.names.virtual_private_gateways;
                let kind = names::VIRTUAL_PRIVATE_GATEWAY;
                let id = names::resolve(kind, known, name, &mut self.problems);
                self.edge_target(vpc, id, name)
            }
            Written::EgressOnly(name) => {
                let known = &self.names.egress_only_internet_gateways;
                let id = names::resolve(names::EGRESS_ONLY, known, name, &mut self.problems);
                self.edge_target(vpc, id, name)
            }
            Written::Opaque(name) => {
                let known = &self.names.opaques;
                let id = names::resolve(names::OPAQUE, known, name, &mut self.problems);
                self.edge_target(vpc, id, name)
            }
            Written::TransitGateway(name) => self.transit_target(vpc, name).map(Target::Transit),
        }
    }

    fn endpoint(&mut self, vpc: VpcId, name: &Located<String>) -> Option<Target> {
        let id: EndpointId =
            names::resolve(names::ENDPOINT, &self.names.endpoints, name, &mut self.problems);
        let subnet = self.endpoints.get(id.index())?.subnet;
        if subnet.is_resolved() {
            let problem = self.foreign(vpc, self.subnets[subnet.index()].vpc, |own, other| {
                name.problem(format!("endpoint \"{}\" is in another VPC", name.get()))
                    .label(format!("it is in VPC \"{other}\""))
                    .help(format!("a table of VPC \"{own}\" leads only to endpoints in it"))
            });
            self.problems.extend(problem);
        }
        Some(Target::Endpoint(id))
    }

    fn internet_gateway(&mut self, vpc: VpcId, name: &Located<String>) -> Option<Target> {
        let id: GatewayId =
            names::resolve(names::GATEWAY, &self.names.gateways, name, &mut self.problems);
        let other = self.gateways.get(id.index())?.vpc;
        let problem = self.foreign(vpc, other, |own, other| {
            name.problem(format!("internet gateway \"{}\" is of another VPC", name.get()))
                .label(format!("it is attached to VPC \"{other}\""))
                .help(format!("a table of VPC \"{own}\" leads only to its own internet gateway"))
        });
        self.problems.extend(problem);
        Some(Target::InternetGateway(id))
    }

    fn endpoint_group(&mut self, vpc: VpcId, name: &Located<String>) -> Option<Target> {
        let known = &self.names.groups;
        let id: GroupId = names::resolve(names::GROUP, known, name, &mut self.problems);
        let (first, _) = *self.groups.get(id.index())?.members.first()?;
        let subnet = self.endpoints.get(first.index())?.subnet;
        let other = self.subnets.get(subnet.index())?.vpc;
        self.problems.extend(self.foreign_target(vpc, other, name));
        Some(Target::EndpointGroup(id))
    }

    fn interface(&mut self, vpc: VpcId, id: InterfaceId, name: &Located<String>) -> Option<Target> {
        let subnet = self.interfaces.get(id.index())?.subnet;
        if let Some(subnet) = self.subnets.get(subnet.index()) {
            self.problems.extend(self.foreign_target(vpc, subnet.vpc, name));
        }
        Some(Target::Interface(id))
    }

    fn edge_target(&mut self, vpc: VpcId, id: EdgeId, name: &Located<String>) -> Option<Target> {
        let other = self.edges.get(id.index())?.vpc;
        self.problems.extend(self.foreign_target(vpc, other, name));
        Some(Target::Edge(id))
    }

    fn foreign_target(&self, vpc: VpcId, other: VpcId, name: &Located<String>) -> Option<Problem> {
        self.foreign(vpc, other, |own, other| {
            name.problem(format!("\"{}\" is in another VPC", name.get()))
                .label(format!("it is in VPC \"{other}\""))
                .help(format!("a table of VPC \"{own}\" leads only to what is in it"))
        })
    }
}
