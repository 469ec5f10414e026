//! The routes of the file: one destination and one target each.

use std::ops::Range;

use super::super::ids::Id;
use super::super::{EndpointId, GatewayId, Target, VpcId};
use super::cidr::parse_cidr;
use super::{Draft, names};
use crate::config::Route;
use crate::source::{Located, Problem};

/// What a route can have besides its destination.
const TARGETS: &str = "endpoint = \"NAME\", internet_gateway = \"NAME\", blackhole = true, \
                       local = true";

impl Draft<'_> {
    /// Adds the routes to their tables. A route whose target is not known becomes a blackhole, so
    /// that the search for loops ends there.
    pub(super) fn add_routes(&mut self) {
        let file = self.file;
        for (index, table) in file.route_tables.iter().enumerate() {
            for route in &table.routes {
                let written = self.written_target(route);
                let vpc = self.tables[index].vpc();
                let target = written.as_ref().and_then(|written| self.target(vpc, written));
                let text = &route.destination;
                let Some(destination) = self.accept(parse_cidr(text)) else { continue };
                if let Some(first) = self.route_places[index].get(&destination) {
                    let name = table.name.get();
                    let problem = text
                        .problem(format!("route table \"{name}\" has two routes for {destination}"))
                        .label("routed again here")
                        .and(first.clone(), "first routed here")
                        .help("a table has one route for each destination: remove one");
                    self.problems.push(problem);
                    continue;
                }
                self.route_places[index].insert(destination, text.span());
                if let (Some(written), Some(target)) = (&written, target) {
                    let problem =
                        self.broken_rule(index, text, destination, target, written.span());
                    self.problems.extend(problem);
                }
                self.tables[index].insert(destination, target.unwrap_or(Target::Blackhole));
            }
        }
    }

    /// The one target that is written, or none, with a problem.
    fn written_target<'f>(&mut self, route: &'f Route) -> Option<Written<'f>> {
        let mut targets = Written::all(route);
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
                let problem = route
                    .destination
                    .problem("this route leads nowhere")
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
            Written::Interface(name) => self.not_carried(name, "network interfaces"),
            Written::EndpointGroup(name) => self.not_carried(name, "endpoint groups"),
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

    fn not_carried(&mut self, name: &Located<String>, what: &str) -> Option<Target> {
        let problem = name
            .problem(format!("this version does not carry routes to {what}"))
            .label("the key is reserved for a later version")
            .help(format!("a route can have: {TARGETS}"));
        self.problems.push(problem);
        None
    }
}

/// A target as it stands in the file.
enum Written<'f> {
    Endpoint(&'f Located<String>),
    InternetGateway(&'f Located<String>),
    Interface(&'f Located<String>),
    EndpointGroup(&'f Located<String>),
    Blackhole(&'f Located<bool>),
    Local(&'f Located<bool>),
}

impl<'f> Written<'f> {
    /// All that a route has, in the order of the form.
    fn all(route: &'f Route) -> Vec<Written<'f>> {
        [
            route.endpoint.as_ref().map(Written::Endpoint),
            route.internet_gateway.as_ref().map(Written::InternetGateway),
            route.interface.as_ref().map(Written::Interface),
            route.endpoint_group.as_ref().map(Written::EndpointGroup),
            route.blackhole.as_ref().map(Written::Blackhole),
            route.local.as_ref().map(Written::Local),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn key(&self) -> &'static str {
        match self {
            Written::Endpoint(_) => "endpoint",
            Written::InternetGateway(_) => "internet_gateway",
            Written::Interface(_) => "interface",
            Written::EndpointGroup(_) => "endpoint_group",
            Written::Blackhole(_) => "blackhole",
            Written::Local(_) => "local",
        }
    }

    fn span(&self) -> Range<usize> {
        match self {
            Written::Endpoint(text)
            | Written::InternetGateway(text)
            | Written::Interface(text)
            | Written::EndpointGroup(text) => text.span(),
            Written::Blackhole(flag) | Written::Local(flag) => flag.span(),
        }
    }

    /// `blackhole = false` or `local = false`.
    fn is_no(&self) -> bool {
        matches!(self, Written::Blackhole(flag) | Written::Local(flag) if !***flag)
    }
}
