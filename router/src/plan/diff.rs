//! The operations between two networks, in the order in which they are tried: what is new first,
//! then what packets notice, then what nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::holder;
use super::kind::{Kind, Named, Place, Resource};
use super::network::destination;
use super::operation::Operation;
use super::rank::Ranks;
use crate::config::{
    AddressMapping, Route, RouteTable, RouterFile, TransitGatewayRouteTable, TransitRoute,
};
use crate::rules::Rule;
use crate::source::Located;

/// The operations, without any of which the second network is not reached. Nothing that is in both
/// may be one that has to be made anew.
pub(super) fn difference(old: &RouterFile, new: &RouterFile) -> Vec<Operation> {
    let ranks = Ranks::new(old, new);
    let before = by_place(old);
    let after = by_place(new);
    let mut operations = Vec::new();
    for (place, resource) in &after {
        if let Some(before) = before.get(place) {
            change(before, resource, &mut operations);
        } else {
            let bare = bare(resource);
            change(&bare, resource, &mut operations);
            operations.push(Operation::Create(Box::new(bare)));
        }
    }
    for (place, resource) in before.iter().filter(|(place, _)| !after.contains_key(place)) {
        leave(resource, &after, &mut operations);
        operations.push(Operation::Delete { resource: place.clone() });
    }
    associate_anew(old, new, &mut operations);
    let vpcs: BTreeSet<&str> = old.vpcs.iter().chain(&new.vpcs).map(|it| it.name()).collect();
    for vpc in vpcs {
        let place = Place::new(Kind::Vpc, vpc);
        associate(&place, main(old, vpc), main(new, vpc), &mut operations);
    }
    if Rule::InterfaceThroughLocal.is_in(new.rules()) {
        operations = operations.into_iter().flat_map(|it| through_local(it, &ranks)).collect();
    }
    operations.sort_by_cached_key(|operation| ranks.rank(operation));
    operations
}

fn by_place(file: &RouterFile) -> BTreeMap<Place, Resource> {
    Resource::all(file).into_iter().map(|it| (it.place(), it)).collect()
}

/// Addresses that stay as they are, but for ones in another subnet than before.
fn associate_anew(old: &RouterFile, new: &RouterFile, operations: &mut Vec<Operation>) {
    for gateway in &new.internet_gateways {
        let there = old.internet_gateways.iter().find(|it| it.name() == gateway.name());
        let stay = |it: &&Located<AddressMapping>| {
            let subnet = |file| holder(file, gateway.name(), it.private.get()).map(Named::name);
            there.is_some_and(|there| there.addresses.contains(it)) && subnet(old) != subnet(new)
        };
        for mapping in gateway.addresses.iter().filter(stay) {
            let gateway = gateway.name().to_owned();
            let (public, private) = (mapping.public.get().clone(), mapping.private.get().clone());
            operations.extend([
                Operation::DisassociateAddress {
                    gateway: gateway.clone(),
                    public: public.clone(),
                    private: private.clone(),
                },
                Operation::AssociateAddress { gateway, public, private },
            ]);
        }
    }
}

fn main<'a>(file: &'a RouterFile, vpc: &str) -> Option<&'a Located<String>> {
    let is = |table: &&Located<RouteTable>| table.vpc.get() == vpc && table.main.is_some();
    file.route_tables.iter().find(is).map(|table| &table.name)
}

/// What goes before a thing that goes: things that go with it and need each other are taken apart.
fn leave(resource: &Resource, after: &BTreeMap<Place, Resource>, operations: &mut Vec<Operation>) {
    let table = match resource {
        Resource::Subnet(it) => it.route_table.as_ref(),
        Resource::InternetGateway(it) => it.route_table.as_ref(),
        Resource::VirtualPrivateGateway(it) => it.route_table.as_ref(),
        Resource::TransitGatewayRouteTable(it) => {
            let bare = TransitGatewayRouteTable {
                propagations: Vec::new(),
                routes: Vec::new(),
                ..it.clone()
            };
            return transit_table(it, &bare, operations);
        }
        _ => None,
    };
    let goes = |table: &&Located<String>| {
        !after.contains_key(&Place::new(Kind::RouteTable, table.get().as_str()))
    };
    associate(&resource.place(), table.filter(goes), None, operations);
}

/// As it is created: what is set afterwards is left out.
fn bare(resource: &Resource) -> Resource {
    let mut bare = resource.clone();
    match &mut bare {
        Resource::Subnet(it) => it.route_table = None,
        Resource::InternetGateway(it) => {
            it.route_table = None;
            it.addresses = Vec::new();
        }
        Resource::VirtualPrivateGateway(it) => {
            it.route_table = None;
            it.routes = Vec::new();
        }
        Resource::RouteTable(it) => {
            it.main = None;
            it.propagating = Vec::new();
            it.routes = Vec::new();
        }
        Resource::TransitGatewayRouteTable(it) => {
            it.propagations = Vec::new();
            it.routes = Vec::new();
        }
        _ => {}
    }
    bare
}

fn change(before: &Resource, after: &Resource, operations: &mut Vec<Operation>) {
    let place = after.place();
    match (before, after) {
        (Resource::Vpc(a), Resource::Vpc(b)) => {
            let vpc = place.name;
            for cidr in missing(&b.cidrs, &a.cidrs) {
                operations.push(Operation::AssociateVpcCidr { vpc: vpc.clone(), cidr });
            }
            for cidr in missing(&a.cidrs, &b.cidrs) {
                operations.push(Operation::DisassociateVpcCidr { vpc: vpc.clone(), cidr });
            }
        }
        (Resource::Subnet(a), Resource::Subnet(b)) => {
            for cidr in missing(&b.cidrs, &a.cidrs) {
                let subnet = place.name.clone();
                operations.push(Operation::AssociateSubnetCidr { subnet, cidr });
            }
            for cidr in missing(&a.cidrs, &b.cidrs) {
                let subnet = place.name.clone();
                operations.push(Operation::DisassociateSubnetCidr { subnet, cidr });
            }
            associate(&place, a.route_table.as_ref(), b.route_table.as_ref(), operations);
        }
        (Resource::InternetGateway(a), Resource::InternetGateway(b)) => {
            associate(&place, a.route_table.as_ref(), b.route_table.as_ref(), operations);
            let gateway = place.name;
            for it in missing(&b.addresses, &a.addresses) {
                let (public, private) = (it.public.into_inner(), it.private.into_inner());
                let gateway = gateway.clone();
                operations.push(Operation::AssociateAddress { gateway, public, private });
            }
            for it in missing(&a.addresses, &b.addresses) {
                // One that stands for another private address is moved there in one step.
                if b.addresses.iter().all(|other| other.public != it.public) {
                    let (public, private) = (it.public.into_inner(), it.private.into_inner());
                    let gateway = gateway.clone();
                    operations.push(Operation::DisassociateAddress { gateway, public, private });
                }
            }
        }
        (Resource::VirtualPrivateGateway(a), Resource::VirtualPrivateGateway(b)) => {
            associate(&place, a.route_table.as_ref(), b.route_table.as_ref(), operations);
            let gateway = place.name;
            for it in missing(&b.routes, &a.routes) {
                let Some(learned) = it.learned else { continue };
                operations.push(Operation::LearnRoute {
                    gateway: gateway.clone(),
                    destination: it.destination.into_inner(),
                    learned: learned.into_inner(),
                });
            }
            for it in missing(&a.routes, &b.routes) {
                let Some(learned) = it.learned else { continue };
                operations.push(Operation::ForgetRoute {
                    gateway: gateway.clone(),
                    destination: it.destination.into_inner(),
                    learned: learned.into_inner(),
                });
            }
        }
        (Resource::PrefixList(a), Resource::PrefixList(b)) if a != b => {
            let add = missing(&b.entries, &a.entries);
            let remove = missing(&a.entries, &b.entries);
            let prefix_list = place.name;
            operations.push(Operation::ModifyPrefixList { prefix_list, add, remove });
        }
        (Resource::Endpoint(a), Resource::Endpoint(b)) if a.wire_id != b.wire_id => {
            let wire_id = b.wire_id.as_ref().map(|it| it.get().clone());
            let (endpoint, subnet, service) = (place.name, None, None);
            operations.push(Operation::ModifyEndpoint { endpoint, subnet, service, wire_id });
        }
        (Resource::TransitGatewayAttachment(a), Resource::TransitGatewayAttachment(b)) => {
            let attachment = place.name;
            if a.route_table != b.route_table {
                operations.push(Operation::ReplaceTransitGatewayRouteTableAssociation {
                    attachment: attachment.clone(),
                    from: a.route_table.get().clone(),
                    to: b.route_table.get().clone(),
                });
            }
            if (&a.subnets, a.appliance_mode) != (&b.subnets, b.appliance_mode) {
                operations.push(Operation::ModifyTransitGatewayAttachment {
                    attachment,
                    add_subnets: missing(&b.subnets, &a.subnets),
                    remove_subnets: missing(&a.subnets, &b.subnets),
                    appliance_mode: b.appliance_mode,
                });
            }
        }
        (Resource::TransitGatewayRouteTable(a), Resource::TransitGatewayRouteTable(b)) => {
            transit_table(a, b, operations);
        }
        (Resource::RouteTable(a), Resource::RouteTable(b)) => route_table(a, b, operations),
        _ => {}
    }
}

fn route_table(a: &RouteTable, b: &RouteTable, operations: &mut Vec<Operation>) {
    let route_table = || b.name.get().clone();
    for gateway in missing(&b.propagating, &a.propagating) {
        operations.push(Operation::EnableRoutePropagation { route_table: route_table(), gateway });
    }
    for gateway in missing(&a.propagating, &b.propagating) {
        operations.push(Operation::DisableRoutePropagation { route_table: route_table(), gateway });
    }
    let key = |route: &Route| (route.destination.is_some(), destination(route).to_owned());
    let before: BTreeMap<_, &Route> = a.routes.iter().map(|it| (key(it), it.get())).collect();
    let after: BTreeMap<_, &Route> = b.routes.iter().map(|it| (key(it), it.get())).collect();
    for (key, to) in &after {
        let (route_table, to) = (route_table(), Box::new((*to).clone()));
        operations.extend(match before.get(key) {
            None => Some(Operation::CreateRoute { route_table, route: to }),
            Some(from) if **from != *to => {
                let from = Box::new((*from).clone());
                Some(Operation::ReplaceRoute { route_table, from, to })
            }
            Some(_) => None,
        });
    }
    for (_, route) in before.into_iter().filter(|(key, _)| !after.contains_key(key)) {
        let route = Box::new(route.clone());
        operations.push(Operation::DeleteRoute { route_table: route_table(), route });
    }
}

fn transit_table(
    a: &TransitGatewayRouteTable,
    b: &TransitGatewayRouteTable,
    operations: &mut Vec<Operation>,
) {
    let route_table = || b.name.get().clone();
    for attachment in missing(&b.propagations, &a.propagations) {
        let route_table = route_table();
        operations
            .push(Operation::EnableTransitGatewayRouteTablePropagation { route_table, attachment });
    }
    for attachment in missing(&a.propagations, &b.propagations) {
        let route_table = route_table();
        operations.push(Operation::DisableTransitGatewayRouteTablePropagation {
            route_table,
            attachment,
        });
    }
    let there = |routes: &[Located<TransitRoute>], destination: &Located<String>| {
        routes.iter().find(|it| it.destination == *destination).map(|it| it.get().clone())
    };
    for to in &b.routes {
        let (route_table, to) = (route_table(), to.get().clone());
        operations.extend(match there(&a.routes, &to.destination) {
            None => Some(Operation::CreateTransitGatewayRoute { route_table, route: to }),
            Some(from) if from != to => {
                Some(Operation::ReplaceTransitGatewayRoute { route_table, from, to })
            }
            Some(_) => None,
        });
    }
    for route in a.routes.iter().filter(|it| there(&b.routes, &it.destination).is_none()) {
        let (route_table, route) = (route_table(), route.get().clone());
        operations.push(Operation::DeleteTransitGatewayRoute { route_table, route });
    }
}

fn associate(
    user: &Place,
    from: Option<&Located<String>>,
    to: Option<&Located<String>>,
    operations: &mut Vec<Operation>,
) {
    let user = user.clone();
    let text = |text: &Located<String>| text.get().clone();
    operations.extend(match (from.map(text), to.map(text)) {
        (None, Some(route_table)) => Some(Operation::AssociateRouteTable { user, route_table }),
        (Some(route_table), None) => Some(Operation::DisassociateRouteTable { user, route_table }),
        (Some(from), Some(to)) if from != to => {
            Some(Operation::ReplaceRouteTableAssociation { user, from, to })
        }
        _ => None,
    });
}

/// What the first list has and the second has not.
fn missing<T: Clone + PartialEq>(of: &[Located<T>], from: &[Located<T>]) -> Vec<T> {
    of.iter().filter(|it| !from.contains(it)).map(|it| it.get().clone()).collect()
}

/// The same change in two steps, for when the one step cannot be taken: each needs the other's half.
pub(super) fn split(operation: &Operation) -> Option<[Operation; 2]> {
    Some(match operation.clone() {
        Operation::ReplaceRoute { route_table, from, to } => [
            Operation::DeleteRoute { route_table: route_table.clone(), route: from },
            Operation::CreateRoute { route_table, route: to },
        ],
        Operation::ReplaceTransitGatewayRoute { route_table, from, to } => [
            Operation::DeleteTransitGatewayRoute { route_table: route_table.clone(), route: from },
            Operation::CreateTransitGatewayRoute { route_table, route: to },
        ],
        Operation::ReplaceRouteTableAssociation { user, from, to } => [
            Operation::DisassociateRouteTable { user: user.clone(), route_table: from },
            Operation::AssociateRouteTable { user, route_table: to },
        ],
        Operation::ModifyTransitGatewayAttachment {
            attachment,
            add_subnets,
            remove_subnets,
            appliance_mode,
        } if !add_subnets.is_empty() && !remove_subnets.is_empty() => {
            let modify = |add_subnets, remove_subnets| Operation::ModifyTransitGatewayAttachment {
                attachment: attachment.clone(),
                add_subnets,
                remove_subnets,
                appliance_mode,
            };
            [modify(Vec::new(), remove_subnets), modify(add_subnets, Vec::new())]
        }
        _ => return None,
    })
}

/// "Changing from one ENI/instance to another requires going through Local first" (semantics 2d):
/// for such an entry of a gateway table, two steps in place of the one.
fn through_local(operation: Operation, ranks: &Ranks) -> Vec<Operation> {
    match operation {
        Operation::ReplaceRoute { route_table, from, to }
            if from.interface.is_some()
                && to.interface.is_some()
                && ranks.is_edge(&route_table) =>
        {
            let local = Some(Located::nowhere(true));
            let local = Box::new(Route { interface: None, local, ..(*from).clone() });
            vec![
                Operation::ReplaceRoute {
                    route_table: route_table.clone(),
                    from,
                    to: local.clone(),
                },
                Operation::ReplaceRoute { route_table, from: local, to },
            ]
        }
        other => vec![other],
    }
}
