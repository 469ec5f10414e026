//! What an operation does to a network, and when a cloud refuses it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::kind::{Kind, Named, Place, Resource, remove, rename};
use super::network::{Network, destination};
use super::operation::Operation;
use crate::config::{
    AddressMapping, LearnedRoute, Route, RouteTable, RouterFile, Subnet, TransitGatewayAttachment,
    TransitGatewayRouteTable, TransitRoute,
};
use crate::rules::Rule;
use crate::source::{Located, Problem};
use crate::topology::{Leftover, TableId};

impl Operation {
    /// Makes the change.
    ///
    /// # Errors
    /// Why not, with the rule of the network's cloud that it would break: what the state before
    /// forbids (semantics 1c, 2c: deletion orders; 2d: entries of gateway tables), or what would be
    /// wrong with the state afterwards. The network is then as it was.
    pub fn apply(&self, network: &mut Network) -> Result<(), Problem> {
        *network = self.applied_to(network)?;
        Ok(())
    }

    /// The network after the change.
    pub(super) fn applied_to(&self, network: &Network) -> Result<Network, Problem> {
        let mut file = network.file().clone();
        Change { file: &mut file, network }.make(self)?;
        Network::changed(file, |leftover| self.leaves(leftover, network))
    }

    /// Whether a cloud lets a route be that could not be made (any more). It looks at the
    /// destinations of those routes that the operation is about.
    fn leaves(&self, leftover: &Leftover, network: &Network) -> bool {
        let is_table = |table: &String| *table == leftover.table;
        let is_route = |table: &String, route: &Route| {
            is_table(table) && destination(route).parse() == Ok(leftover.destination)
        };
        match self {
            Operation::Delete { .. }
            | Operation::DisassociateSubnetCidr { .. }
            | Operation::DisassociateVpcCidr { .. }
            | Operation::Rename { .. } => true,
            Operation::CreateRoute { route_table, route }
            | Operation::ReplaceRoute { route_table, to: route, .. }
                if is_route(route_table, route) =>
            {
                false
            }
            Operation::AssociateRouteTable { route_table, .. }
            | Operation::ReplaceRouteTableAssociation { to: route_table, .. }
                if is_table(route_table) =>
            {
                false
            }
            _ => network.has_leftover(&leftover.table, leftover.destination),
        }
    }
}

impl Operation {
    /// Whether nothing is left of this to do once another has been done: what belongs to a thing ends
    /// with it.
    pub(super) fn ends_with(&self, other: &Operation) -> bool {
        let Operation::Delete { resource: gone } = other else { return false };
        let is = |kind: Kind, name: &String| gone.kind == kind && gone.name == *name;
        match self {
            Operation::DisassociateRouteTable { user, route_table } => {
                user == gone || is(Kind::RouteTable, route_table)
            }
            Operation::DisableTransitGatewayRouteTablePropagation { route_table, .. }
            | Operation::DeleteTransitGatewayRoute { route_table, .. } => {
                is(Kind::TransitGatewayRouteTable, route_table)
            }
            _ => false,
        }
    }

    /// Whether it would keep another from being possible: an address that stands for one in a subnet
    /// holds the subnet, and belongs to one that comes in its place.
    pub(super) fn holds_up(&self, other: &Operation, network: &Network) -> bool {
        match (self, other) {
            (
                Operation::AssociateAddress { gateway, private, .. },
                Operation::Delete { resource },
            ) if resource.kind == Kind::Subnet => holder(network.file(), gateway, private)
                .is_some_and(|subnet| subnet.name() == resource.name),
            _ => false,
        }
    }

    /// Whether no packet of a network can tell that it has been done: what nobody uses is made, or
    /// changed, or deleted.
    pub(super) fn goes_unnoticed(&self, network: &Network) -> bool {
        match self {
            Operation::Create(resource) => !matches!(
                resource.place().kind,
                Kind::Vpc
                    | Kind::Subnet
                    | Kind::NatGateway
                    | Kind::NetworkInterface
                    | Kind::TransitGatewayAttachment
            ),
            Operation::Delete { resource } => {
                matches!(resource.kind, Kind::RouteTable | Kind::Endpoint | Kind::EndpointGroup)
            }
            Operation::CreateRoute { route_table, .. }
            | Operation::ReplaceRoute { route_table, .. }
            | Operation::DeleteRoute { route_table, .. }
            | Operation::EnableRoutePropagation { route_table, .. }
            | Operation::DisableRoutePropagation { route_table, .. } => {
                let topology = network.topology();
                let table = topology.table_by_name(route_table);
                let mut subnets = topology.subnets().map(|(_, it)| it.table);
                let mut gateways = topology.gateways().map(|(_, it)| it.table);
                let mut edges = topology.edges().map(|(_, it)| it.table);
                let is = |used: TableId| Some(used) == table;
                !subnets.any(is) && !gateways.any(is) && !edges.any(is)
            }
            _ => false,
        }
    }
}

/// A change in the making.
struct Change<'n> {
    file: &'n mut RouterFile,
    network: &'n Network,
}

type Made = Result<(), Problem>;

impl Change<'_> {
    fn make(&mut self, operation: &Operation) -> Made {
        match operation {
            Operation::Create(resource) => {
                resource.add_to(self.file);
                Ok(())
            }
            Operation::Delete { resource } => self.delete(resource),
            Operation::Rename { resource, to } => self.rename(resource, to),
            Operation::AssociateVpcCidr { vpc, cidr } => {
                insert(&mut form(&mut self.file.vpcs, Kind::Vpc, vpc)?.cidrs, cidr)
            }
            Operation::DisassociateVpcCidr { vpc, cidr } => {
                take(&mut form(&mut self.file.vpcs, Kind::Vpc, vpc)?.cidrs, cidr)
            }
            Operation::AssociateSubnetCidr { subnet, cidr } => {
                insert(&mut self.subnet(subnet, cidr)?.cidrs, cidr)
            }
            Operation::DisassociateSubnetCidr { subnet, cidr } => {
                take(&mut self.subnet(subnet, cidr)?.cidrs, cidr)
            }
            Operation::AssociateRouteTable { user, route_table } => {
                self.associate(user, None, Some(route_table))
            }
            Operation::ReplaceRouteTableAssociation { user, from, to } => {
                self.associate(user, Some(from), Some(to))
            }
            Operation::DisassociateRouteTable { user, route_table } => {
                self.associate(user, Some(route_table), None)
            }
            Operation::CreateRoute { route_table, route } => {
                self.route(route_table, None, Some(route))
            }
            Operation::ReplaceRoute { route_table, from, to } => {
                self.through_local(route_table, from, to)?;
                self.route(route_table, Some(from), Some(to))
            }
            Operation::DeleteRoute { route_table, route } => {
                self.route(route_table, Some(route), None)
            }
            Operation::EnableRoutePropagation { route_table, gateway } => {
                insert(&mut self.table(route_table)?.propagating, gateway)
            }
            Operation::DisableRoutePropagation { route_table, gateway } => {
                take(&mut self.table(route_table)?.propagating, gateway)
            }
            Operation::LearnRoute { gateway, destination, learned } => {
                let route = LearnedRoute {
                    destination: Located::nowhere(destination.clone()),
                    learned: Some(Located::nowhere(*learned)),
                };
                let list = &mut self.file.virtual_private_gateways;
                insert(&mut form(list, Kind::VirtualPrivateGateway, gateway)?.routes, &route)
            }
            Operation::ForgetRoute { gateway, destination, learned } => {
                let route = LearnedRoute {
                    destination: Located::nowhere(destination.clone()),
                    learned: Some(Located::nowhere(*learned)),
                };
                let list = &mut self.file.virtual_private_gateways;
                take(&mut form(list, Kind::VirtualPrivateGateway, gateway)?.routes, &route)
            }
            Operation::AssociateAddress { gateway, public, private } => {
                let list = &mut self.file.internet_gateways;
                let addresses = &mut form(list, Kind::InternetGateway, gateway)?.addresses;
                addresses.retain(|it| it.public.get() != public || it.private.get() == private);
                insert(addresses, &mapping(public, private))
            }
            Operation::DisassociateAddress { gateway, public, private } => {
                let list = &mut self.file.internet_gateways;
                let addresses = &mut form(list, Kind::InternetGateway, gateway)?.addresses;
                take(addresses, &mapping(public, private))
            }
            Operation::ModifyPrefixList { prefix_list, add, remove } => {
                let list = &mut self.file.prefix_lists;
                let entries = &mut form(list, Kind::PrefixList, prefix_list)?.entries;
                add.iter().try_for_each(|range| insert(entries, range))?;
                remove.iter().try_for_each(|range| take(entries, range))
            }
            Operation::ModifyEndpoint { endpoint, subnet, service, wire_id } => {
                self.modify_endpoint(endpoint, [subnet, service, wire_id].map(Option::as_ref))
            }
            Operation::ModifyTransitGatewayAttachment {
                attachment,
                add_subnets,
                remove_subnets,
                appliance_mode,
            } => {
                let form = self.attachment(attachment)?;
                add_subnets.iter().try_for_each(|subnet| insert(&mut form.subnets, subnet))?;
                remove_subnets.iter().try_for_each(|subnet| take(&mut form.subnets, subnet))?;
                form.appliance_mode = *appliance_mode;
                Ok(())
            }
            Operation::ReplaceTransitGatewayRouteTableAssociation { attachment, from, to } => {
                let form = self.attachment(attachment)?;
                is_still(form.route_table.get() == from, || format!("uses no table {from}"))?;
                form.route_table = Located::nowhere(to.clone());
                Ok(())
            }
            Operation::EnableTransitGatewayRouteTablePropagation { route_table, attachment } => {
                insert(&mut self.transit_table(route_table)?.propagations, attachment)
            }
            Operation::DisableTransitGatewayRouteTablePropagation { route_table, attachment } => {
                take(&mut self.transit_table(route_table)?.propagations, attachment)
            }
            Operation::CreateTransitGatewayRoute { route_table, route } => {
                self.transit_route(route_table, None, Some(route))
            }
            Operation::ReplaceTransitGatewayRoute { route_table, from, to } => {
                self.transit_route(route_table, Some(from), Some(to))
            }
            Operation::DeleteTransitGatewayRoute { route_table, route } => {
                self.transit_route(route_table, Some(route), None)
            }
        }
    }

    fn delete(&mut self, place: &Place) -> Made {
        match place.kind {
            Kind::Endpoint => self.endpoint_is_unused(&place.name)?,
            Kind::RouteTable => self.table_is_unused(&place.name)?,
            Kind::Subnet => self.subnet_is_unused(&place.name)?,
            _ => {}
        }
        is_still(remove(self.file, place), || format!("there is no {}", place.noun()))
    }

    /// "GWLBE cannot be deleted while any route points to it" (semantics 1c).
    fn endpoint_is_unused(&self, name: &str) -> Made {
        let leads_here = |route: &&Located<Route>| {
            route.endpoint.as_ref().is_some_and(|endpoint| endpoint.get() == name)
        };
        let tables = self.file.route_tables.iter();
        let mut users = tables.filter_map(|table| {
            let route = table.routes.iter().find(leads_here)?;
            Some(format!("route {} of route table {}", destination(route.get()), table.name.get()))
        });
        self.unused(Rule::EndpointInUse, users.next(), "leads to it", &format!("endpoint {name}"))
    }

    /// "main cannot be deleted …; custom table deletable only without associations" (semantics 1d).
    fn table_is_unused(&self, name: &str) -> Made {
        let is_main = self.file.route_tables.iter().any(|table| {
            table.name() == name && table.main.as_ref().is_some_and(|flag| *flag.get())
        });
        let main = is_main.then(|| "its VPC".to_owned());
        let user = main.or_else(|| users(self.file, name).into_iter().next().map(|it| it.noun()));
        self.unused(Rule::TableInUse, user, "uses it", &format!("route table {name}"))
    }

    fn subnet_is_unused(&self, name: &str) -> Made {
        let mut within = Vec::new();
        let file = &*self.file;
        let is = |subnet: &Located<String>| subnet.get() == name;
        let mut note = |kind, name: &Located<String>| within.push(Place::new(kind, name.get()));
        for it in file.endpoints.iter().filter(|it| is(&it.subnet)) {
            note(Kind::Endpoint, &it.name);
        }
        for it in file.nat_gateways.iter().filter(|it| is(&it.subnet)) {
            note(Kind::NatGateway, &it.name);
        }
        for it in file.network_interfaces.iter().filter(|it| is(&it.subnet)) {
            note(Kind::NetworkInterface, &it.name);
        }
        for it in file.transit_gateway_attachments.iter().filter(|it| it.subnets.iter().any(is)) {
            note(Kind::TransitGatewayAttachment, &it.name);
        }
        let user = within.first().map(Place::noun);
        self.unused(Rule::SubnetInUse, user, "is in it", &format!("subnet {name}"))
    }

    fn unused(&self, rule: Rule, user: Option<String>, how: &str, what: &str) -> Made {
        match user {
            Some(user) if rule.is_in(self.network.rules()) => {
                let message = format!("{what} is not deleted while {user} {how}");
                Err(Problem::new(message).rule(rule, self.network.rules()))
            }
            _ => Ok(()),
        }
    }

    fn rename(&mut self, place: &Place, to: &str) -> Made {
        let there = Resource::all(self.file).iter().any(|it| it.place() == *place);
        is_still(there, || format!("there is no {}", place.noun()))?;
        let taken = Place::new(place.kind, to);
        // Were the name taken, references would change their meaning before anybody notices.
        let free = Resource::all(self.file).iter().all(|it| it.place() != taken);
        is_still(free, || format!("{} is there already", taken.noun()))?;
        rename(self.file, place, to);
        Ok(())
    }

    /// What a table is for, from one to another.
    fn associate(&mut self, user: &Place, from: Option<&String>, to: Option<&String>) -> Made {
        let current = match user.kind {
            Kind::Vpc => return self.main(&user.name, from, to),
            Kind::Subnet => &mut form(&mut self.file.subnets, user.kind, &user.name)?.route_table,
            Kind::InternetGateway => {
                &mut form(&mut self.file.internet_gateways, user.kind, &user.name)?.route_table
            }
            Kind::VirtualPrivateGateway => {
                let list = &mut self.file.virtual_private_gateways;
                &mut form(list, user.kind, &user.name)?.route_table
            }
            _ => return Err(Problem::new(format!("no route table is for {}", user.noun()))),
        };
        let as_before = current.as_ref().map(Located::get) == from;
        is_still(as_before, || format!("{} has another route table", user.noun()))?;
        *current = to.cloned().map(Located::nowhere);
        Ok(())
    }

    fn main(&mut self, vpc: &str, from: Option<&String>, to: Option<&String>) -> Made {
        let tables = &mut self.file.route_tables;
        let is_main = |it: &Located<RouteTable>| it.vpc.get() == vpc && it.main.is_some();
        let current = tables.iter().find(|it| is_main(it)).map(|it| it.name.get());
        is_still(current == from, || format!("VPC {vpc} has another main table"))?;
        for (name, flag) in [(from, None), (to, Some(Located::nowhere(true)))] {
            if let Some(name) = name {
                form(tables, Kind::RouteTable, name)?.main = flag;
            }
        }
        Ok(())
    }

    /// "Changing from one ENI/instance to another requires going through Local first" (semantics
    /// 2d).
    fn through_local(&self, table: &str, from: &Route, to: &Route) -> Made {
        let rule = Rule::InterfaceThroughLocal;
        let between = from.interface.is_some() && to.interface.is_some();
        let is_edge = users(self.file, table).iter().any(|user| user.kind != Kind::Subnet);
        if between && is_edge && rule.is_in(self.network.rules()) {
            let message = format!(
                "the entry {} of gateway table {table} goes from one network interface to another \
                 by way of local",
                destination(from)
            );
            return Err(Problem::new(message).rule(rule, self.network.rules()));
        }
        Ok(())
    }

    fn route(&mut self, table: &str, from: Option<&Route>, to: Option<&Route>) -> Made {
        let routes = &mut self.table(table)?.routes;
        if let Some(from) = from {
            take(routes, from)?;
        }
        to.map_or(Ok(()), |to| insert(routes, to))
    }

    fn transit_route(
        &mut self,
        table: &str,
        from: Option<&TransitRoute>,
        to: Option<&TransitRoute>,
    ) -> Made {
        let routes = &mut self.transit_table(table)?.routes;
        if let Some(from) = from {
            take(routes, from)?;
        }
        to.map_or(Ok(()), |to| insert(routes, to))
    }

    /// "exactly one subnet, immutable" (semantics 1c); "zones cannot be added to it" (2c).
    fn modify_endpoint(&mut self, name: &str, to: [Option<&String>; 3]) -> Made {
        let rules = self.network.rules();
        let form = form(&mut self.file.endpoints, Kind::Endpoint, name)?;
        let [subnet, service, wire_id] = to;
        let other =
            |to: Option<&String>, now: &Located<String>| to.is_some_and(|to| to != now.get());
        let rule = Rule::EndpointImmutable;
        if (other(subnet, &form.subnet) || other(service, &form.service)) && rule.is_in(rules) {
            let message = format!("endpoint {name} keeps its subnet and its service");
            return Err(Problem::new(message)
                .help("make a new endpoint, move the routes, delete the old one")
                .rule(rule, rules));
        }
        let nowhere = |text: &String| Located::nowhere(text.clone());
        if other(subnet, &form.subnet) {
            form.address = None;
        }
        form.subnet = subnet.map_or(form.subnet.clone(), nowhere);
        form.service = service.map_or(form.service.clone(), nowhere);
        form.wire_id = wire_id.map(nowhere).or(form.wire_id.take());
        Ok(())
    }

    /// A subnet to which a range comes, or from which it goes.
    fn subnet(&mut self, name: &str, cidr: &str) -> Result<&mut Subnet, Problem> {
        let for_life = || format!("subnet {name} keeps its IPv4 range");
        is_still(is_ipv6(cidr), for_life)?;
        form(&mut self.file.subnets, Kind::Subnet, name)
    }

    fn table(&mut self, name: &str) -> Result<&mut RouteTable, Problem> {
        form(&mut self.file.route_tables, Kind::RouteTable, name)
    }

    fn transit_table(&mut self, name: &str) -> Result<&mut TransitGatewayRouteTable, Problem> {
        let list = &mut self.file.transit_gateway_route_tables;
        form(list, Kind::TransitGatewayRouteTable, name)
    }

    fn attachment(&mut self, name: &str) -> Result<&mut TransitGatewayAttachment, Problem> {
        let list = &mut self.file.transit_gateway_attachments;
        form(list, Kind::TransitGatewayAttachment, name)
    }
}

/// Who names a table: subnets and gateways.
pub(super) fn users(file: &RouterFile, table: &str) -> Vec<Place> {
    let names = |text: &Option<Located<String>>| text.as_ref().is_some_and(|it| it.get() == table);
    let subnets = file.subnets.iter().filter(|it| names(&it.route_table));
    let internet = file.internet_gateways.iter().filter(|it| names(&it.route_table));
    let private = file.virtual_private_gateways.iter().filter(|it| names(&it.route_table));
    subnets
        .map(|it| Place::new(Kind::Subnet, it.name()))
        .chain(internet.map(|it| Place::new(Kind::InternetGateway, it.name())))
        .chain(private.map(|it| Place::new(Kind::VirtualPrivateGateway, it.name())))
        .collect()
}

/// The subnet of a gateway's VPC whose range an address is in.
pub(super) fn holder<'f>(file: &'f RouterFile, gateway: &str, address: &str) -> Option<&'f Subnet> {
    let vpc = &file.internet_gateways.iter().find(|it| it.name() == gateway)?.vpc;
    let address: IpAddr = address.parse().ok()?;
    let holds =
        |cidr: &Located<String>| cidr.parse::<IpNet>().is_ok_and(|range| range.contains(&address));
    let mut subnets = file.subnets.iter().map(Located::get).filter(|it| it.vpc == *vpc);
    subnets.find(|it| it.cidrs.iter().any(holds))
}

fn form<'a, T: Named>(
    list: &'a mut [Located<T>],
    kind: Kind,
    name: &str,
) -> Result<&'a mut T, Problem> {
    list.iter_mut()
        .map(Located::get_mut)
        .find(|it| it.name() == name)
        .ok_or_else(|| Problem::new(format!("there is no {}", Place::new(kind, name).noun())))
}

fn insert<T: Clone + PartialEq>(list: &mut Vec<Located<T>>, value: &T) -> Made {
    is_still(list.iter().all(|it| it.get() != value), || "it is there already".to_owned())?;
    list.push(Located::nowhere(value.clone()));
    Ok(())
}

fn take<T: PartialEq>(list: &mut Vec<Located<T>>, value: &T) -> Made {
    let before = list.len();
    list.retain(|it| it.get() != value);
    is_still(list.len() < before, || "it is not there".to_owned())
}

fn is_still(so: bool, otherwise: impl FnOnce() -> String) -> Made {
    if so { Ok(()) } else { Err(Problem::new(otherwise())) }
}

/// Whether a range, as it is displayed, is one of IPv6.
pub(super) fn is_ipv6(cidr: &str) -> bool {
    cidr.contains(':')
}

fn mapping(public: &str, private: &str) -> AddressMapping {
    let [public, private] = [public, private].map(|text| Located::nowhere(text.to_owned()));
    AddressMapping { public, private }
}
