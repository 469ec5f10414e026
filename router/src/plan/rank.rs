//! In which order the operations of a difference are tried: what is new first, then what packets
//! notice, then what nobody needs any more.

use std::collections::BTreeSet;

use super::apply::users;
use super::kind::{Kind, Named, Place};
use super::network::destination;
use super::operation::Operation;
use crate::config::{Route, RouteTable, RouterFile};
use crate::source::Located;

/// In which order operations are tried. The search leaves it only where it has to.
pub(super) struct Ranks {
    /// The tables that are made.
    made: BTreeSet<String>,
    /// The subnets that are made.
    subnets: BTreeSet<String>,
    /// The subnets that go.
    gone: BTreeSet<String>,
    /// The ranges of the subnets that go.
    leaving: BTreeSet<String>,
    /// The gateway tables of both networks.
    edge: BTreeSet<String>,
    /// The gateway tables that have entries for these ranges afterwards.
    handed_over: BTreeSet<String>,
    /// The tables of both networks that lead to be inspected.
    inspected: BTreeSet<String>,
}

/// When packets notice: what is inserted before what is taken out, and "endpoint and its table, then
/// the way back, then the way in" for the one, the reverse for the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Create,
    Fill,
    Learn,
    InsertBack,
    InsertIn,
    RemoveIn,
    RemoveBack,
    Clear,
    Delete,
    /// Entries of gateway tables for the ranges of subnets that go: for those that come there.
    InsertAnew,
    Last,
}

impl Ranks {
    pub fn new(old: &RouterFile, new: &RouterFile) -> Ranks {
        let files = [old, new];
        let tables = || files.into_iter().flat_map(|file| &file.route_tables);
        let is_edge = |name: &str| {
            let users = files.into_iter().flat_map(|file| users(file, name));
            users.into_iter().any(|user| user.kind != Kind::Subnet)
        };
        let names = |of: &RouterFile| -> BTreeSet<String> {
            let tables = of.route_tables.iter().map(|it| it.name().to_owned());
            let transit = of.transit_gateway_route_tables.iter().map(|it| it.name().to_owned());
            tables.chain(transit).collect()
        };
        let subnets = |of: &RouterFile| -> BTreeSet<String> {
            of.subnets.iter().map(|it| it.name().to_owned()).collect()
        };
        let leads_there = |it: &&Located<RouteTable>| it.routes.iter().any(|it| inspects(it.get()));
        let gone: BTreeSet<String> = subnets(old).difference(&subnets(new)).cloned().collect();
        let goes = old.subnets.iter().filter(|it| gone.contains(it.name()));
        let leaving: BTreeSet<String> =
            goes.flat_map(|it| &it.cidrs).map(|cidr| cidr.get().clone()).collect();
        let is_for_them = |it: &&Located<RouteTable>| {
            it.routes.iter().any(|it| leaving.contains(destination(it)))
        };
        let for_them = new.route_tables.iter().filter(is_for_them).map(|it| it.name().to_owned());
        Ranks {
            handed_over: for_them.filter(|it| is_edge(it)).collect(),
            leaving,
            made: names(new).difference(&names(old)).cloned().collect(),
            subnets: subnets(new).difference(&subnets(old)).cloned().collect(),
            gone,
            edge: tables().map(|it| it.name().to_owned()).filter(|it| is_edge(it)).collect(),
            inspected: tables().filter(leads_there).map(|it| it.name().to_owned()).collect(),
        }
    }

    /// Whether a table is a gateway table in either network.
    pub fn is_edge(&self, table: &str) -> bool {
        self.edge.contains(table)
    }

    /// The phase, and within it a number: longer prefixes are routed before shorter ones and cleared
    /// after them, so that nothing falls to a shorter one in between; things are made before what
    /// needs them and deleted after it.
    pub fn rank(&self, operation: &Operation) -> (Phase, i32) {
        let phase = |table: &str, before: bool, after: bool| match (
            before && !after,
            self.edge.contains(table),
        ) {
            _ if self.made.contains(table) => Phase::Fill,
            (false, false) => Phase::InsertBack,
            (false, true) => Phase::InsertIn,
            (true, true) => Phase::RemoveIn,
            (true, false) => Phase::RemoveBack,
        };
        let association = |user: &Place, from: Option<&String>, to: Option<&String>| {
            let inspects =
                |table: Option<&String>| table.is_some_and(|it| self.inspected.contains(it));
            let gateway = !matches!(user.kind, Kind::Subnet | Kind::Vpc);
            match (inspects(from) && !inspects(to), gateway) {
                (false, false) => Phase::InsertBack,
                (false, true) => Phase::InsertIn,
                (true, true) => Phase::RemoveIn,
                (true, false) => Phase::RemoveBack,
            }
        };
        match operation {
            Operation::AssociateVpcCidr { .. } => (Phase::Create, 0),
            Operation::Create(resource) => (Phase::Create, resource.place().kind as i32),
            Operation::AssociateSubnetCidr { .. } => (Phase::Create, 1 + Kind::Subnet as i32),
            Operation::DisassociateSubnetCidr { .. } => (Phase::Delete, -(Kind::Subnet as i32)),
            Operation::Delete { resource } => (Phase::Delete, -(resource.kind as i32)),
            Operation::DisassociateVpcCidr { .. } => (Phase::Delete, 0),
            Operation::CreateRoute { route_table, route }
            | Operation::ReplaceRoute { route_table, to: route, .. }
                if self.edge.contains(route_table)
                    && !self.made.contains(route_table)
                    && self.leaving.contains(destination(route)) =>
            {
                (Phase::InsertAnew, -length(destination(route)))
            }
            Operation::AssociateRouteTable { user, route_table }
            | Operation::ReplaceRouteTableAssociation { user, to: route_table, .. }
                if user.kind != Kind::Subnet && self.handed_over.contains(route_table) =>
            {
                (Phase::InsertAnew, 0)
            }
            Operation::CreateRoute { route_table, route } => {
                (phase(route_table, false, inspects(route)), -length(destination(route)))
            }
            Operation::ReplaceRoute { route_table, from, to } => {
                (phase(route_table, inspects(from), inspects(to)), -length(destination(to)))
            }
            Operation::DeleteRoute { route_table, route } if inspects(route) => {
                (phase(route_table, true, false), length(destination(route)))
            }
            Operation::DeleteRoute { route, .. } => (Phase::Clear, length(destination(route))),
            Operation::AssociateRouteTable { user, .. }
                if user.kind == Kind::Subnet && self.subnets.contains(&user.name) =>
            {
                // With its routes in it.
                (Phase::Fill, 1)
            }
            Operation::AssociateRouteTable { user, route_table } => {
                (association(user, None, Some(route_table)), 0)
            }
            Operation::ReplaceRouteTableAssociation { user, from, to } => {
                (association(user, Some(from), Some(to)), 0)
            }
            Operation::DisassociateRouteTable { user, .. }
                if user.kind == Kind::Subnet && self.gone.contains(&user.name) =>
            {
                (Phase::Delete, i32::MIN)
            }
            Operation::DisassociateRouteTable { user, route_table } => {
                (association(user, Some(route_table), None), 0)
            }
            Operation::CreateTransitGatewayRoute { route_table, .. }
            | Operation::ReplaceTransitGatewayRoute { route_table, .. }
            | Operation::EnableTransitGatewayRouteTablePropagation { route_table, .. }
            | Operation::EnableRoutePropagation { route_table, .. }
                if self.made.contains(route_table) =>
            {
                (Phase::Fill, 0)
            }
            Operation::LearnRoute { .. }
            | Operation::AssociateAddress { .. }
            | Operation::ModifyPrefixList { .. }
            | Operation::EnableRoutePropagation { .. }
            | Operation::EnableTransitGatewayRouteTablePropagation { .. } => (Phase::Learn, 0),
            Operation::CreateTransitGatewayRoute { route, .. } => {
                (Phase::InsertBack, -length(&route.destination))
            }
            Operation::ReplaceTransitGatewayRoute { to, .. } => {
                (Phase::InsertBack, -length(&to.destination))
            }
            Operation::ReplaceTransitGatewayRouteTableAssociation { .. }
            | Operation::ModifyTransitGatewayAttachment { .. } => (Phase::InsertBack, 0),
            Operation::DeleteTransitGatewayRoute { route, .. } => {
                (Phase::Clear, length(&route.destination))
            }
            Operation::ForgetRoute { .. }
            | Operation::DisassociateAddress { .. }
            | Operation::DisableRoutePropagation { .. }
            | Operation::DisableTransitGatewayRouteTablePropagation { .. } => (Phase::Clear, 0),
            Operation::ModifyEndpoint { .. } | Operation::Rename { .. } => (Phase::Last, 0),
        }
    }
}

fn inspects(route: &Route) -> bool {
    route.endpoint.is_some() || route.endpoint_group.is_some()
}

/// The prefix length; of a prefix list none.
fn length(destination: &str) -> i32 {
    destination.split_once('/').and_then(|(_, length)| length.parse().ok()).unwrap_or(0)
}
