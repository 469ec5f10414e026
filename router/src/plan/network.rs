//! A network as data: the forms of a configuration file, without places in a text, in an order that
//! does not depend on how the file was written, and with everything filled in that the file leaves
//! to the router. Two networks are equal if their forms are.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::addresses;
use super::kind::{Kind, Named};
use crate::config::{GroupMode, Learned, Route, RouterFile, Routing, TransitRoute};
use crate::rules::RuleSet;
use crate::source::{Located, Problem, Problems, Source};
use crate::topology::{Circles, Leftover, Topology};

/// A network that is valid under its rules. Circles of endpoints are kept: whoever explains
/// networks as they are has to meet them.
#[derive(Clone, Debug)]
pub struct Network {
    file: RouterFile,
    topology: Arc<Topology>,
    /// Routes that are there, and could not be made: what is between two files can have some.
    leftovers: Vec<Leftover>,
}

impl PartialEq for Network {
    fn eq(&self, other: &Network) -> bool {
        self.file == other.file
    }
}

impl Network {
    /// The network of a file.
    ///
    /// Where a file's order decides between equals, as between VPCs with equal ranges at one
    /// transit gateway table, their names decide here. Intents are no part of a network.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn new(file: &RouterFile, source: &Source) -> Result<Network, Problems> {
        let topology = Topology::build_with(file, source, Circles::Kept)?;
        Network::of(filled(file, &topology), source)
    }

    /// The network of a file that is to follow this one: where the file leaves an address open,
    /// what is there keeps the one that it has, and what is added gets one that nobody has.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn followed_by(&self, file: &RouterFile, source: &Source) -> Result<Network, Problems> {
        let topology = Topology::build_with(file, source, Circles::Kept)?;
        let kept = addresses::kept(&self.file, file);
        // Whoever goes keeps its address as long as it is there. That this cannot be is no mistake
        // of the file: it may have written an address that somebody has who goes.
        let mut crowded = kept.clone();
        crowded.network_interfaces.extend(addresses::leaving(&self.file, file));
        let forms = [(&crowded, &kept), (&kept, &kept)].into_iter().find_map(|(tried, form)| {
            let topology = Topology::build_with(tried, source, Circles::Kept).ok()?;
            Some(filled_from(form, tried, &topology))
        });
        Network::of(forms.unwrap_or_else(|| filled(file, &topology)), source)
    }

    fn of(mut file: RouterFile, source: &Source) -> Result<Network, Problems> {
        canonical_texts(&mut file);
        order(&mut file);
        let topology = Topology::build_with(&file, source, Circles::Kept)?;
        Ok(Network { file, topology: Arc::new(topology), leftovers: Vec::new() })
    }

    /// The network of changed forms, each written as in a network, if there can be one. It may have
    /// those leftovers that are accepted.
    pub(super) fn changed(
        mut file: RouterFile,
        accepts: impl Fn(&Leftover) -> bool,
    ) -> Result<Network, Problem> {
        order(&mut file);
        match Topology::build_between(&file, &Source::new("", "")) {
            Ok((topology, leftovers)) => match leftovers.iter().find(|it| !accepts(it)) {
                Some(refused) => Err(without_places(&refused.problem)),
                None => Ok(Network { file, topology: Arc::new(topology), leftovers }),
            },
            Err(problems) => {
                let cited = problems.iter().find(|problem| problem.broken_rule().is_some());
                let first = cited.or_else(|| problems.iter().next());
                Err(first.map_or_else(|| Problem::new(""), without_places))
            }
        }
    }

    /// Whether this route is a leftover.
    pub(super) fn has_leftover(&self, table: &str, destination: IpNet) -> bool {
        self.leftovers.iter().any(|it| it.table == table && it.destination == destination)
    }

    /// Its forms.
    pub fn file(&self) -> &RouterFile {
        &self.file
    }

    /// Where its packets go.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Whose rules it is held to.
    pub fn rules(&self) -> RuleSet {
        self.file.rules()
    }
}

/// The problem and its rule: places in a text that is none help nobody.
fn without_places(problem: &Problem) -> Problem {
    let bare = Problem::new(problem.message());
    match problem.broken_rule() {
        Some((rule, of)) => bare.rule(rule, of),
        None => bare,
    }
}

/// The form, with what its topology has found.
fn filled(file: &RouterFile, topology: &Topology) -> RouterFile {
    filled_from(file, file, topology)
}

/// A form with what the topology of another has found, which begins with the same endpoints,
/// interfaces and NAT gateways.
fn filled_from(file: &RouterFile, built: &RouterFile, topology: &Topology) -> RouterFile {
    let mut file = file.clone();
    file.routing = Routing { rules: Some(Located::nowhere(file.rules())) };
    file.intents = Vec::new();
    for (form, (_, found)) in file.endpoints.iter_mut().zip(topology.endpoints()) {
        let form = form.get_mut();
        form.wire_id = Some(Located::nowhere(format!("{:#018x}", found.wire_id)));
        let first = || found.addresses.first().map(text);
        form.address = form.address.take().or_else(first);
    }
    let nat_gateways = topology.interfaces().skip(built.network_interfaces.len());
    for (form, (_, found)) in file.nat_gateways.iter_mut().zip(nat_gateways) {
        form.get_mut().address = found.addresses.first().map(text);
    }
    for (form, (_, found)) in file.network_interfaces.iter_mut().zip(topology.interfaces()) {
        form.get_mut().addresses = found.addresses.iter().map(text).collect();
    }
    file
}

fn text(value: &impl ToString) -> Located<String> {
    Located::nowhere(value.to_string())
}

/// The order that does not depend on the file, with the defaults written out.
fn order(file: &mut RouterFile) {
    by_name(&mut file.vpcs);
    by_name(&mut file.subnets);
    by_name(&mut file.internet_gateways);
    by_name(&mut file.virtual_private_gateways);
    by_name(&mut file.egress_only_internet_gateways);
    by_name(&mut file.nat_gateways);
    by_name(&mut file.network_interfaces);
    by_name(&mut file.transit_gateways);
    by_name(&mut file.transit_gateway_attachments);
    by_name(&mut file.transit_gateway_route_tables);
    by_name(&mut file.prefix_lists);
    by_name(&mut file.opaques);
    by_name(&mut file.route_tables);
    by_name(&mut file.endpoints);
    by_name(&mut file.endpoint_groups);
    for subnet in &mut file.subnets {
        texts(&mut subnet.get_mut().cidrs);
    }
    for vpc in &mut file.vpcs {
        texts(&mut vpc.get_mut().cidrs);
    }
    for gateway in &mut file.internet_gateways {
        gateway.get_mut().addresses.sort_by(|a, b| a.public.get().cmp(b.public.get()));
    }
    for gateway in &mut file.virtual_private_gateways {
        let routes = &mut gateway.get_mut().routes;
        for route in routes.iter_mut() {
            route.get_mut().learned.get_or_insert(Located::nowhere(Learned::VpnBgp));
        }
        routes.sort_by_key(|route| {
            (route.destination.get().clone(), route.learned.as_deref().copied())
        });
        routes.dedup();
    }
    for list in &mut file.prefix_lists {
        texts(&mut list.get_mut().entries);
    }
    for attachment in &mut file.transit_gateway_attachments {
        texts(&mut attachment.get_mut().subnets);
    }
    for table in &mut file.transit_gateway_route_tables {
        let table = table.get_mut();
        texts(&mut table.propagations);
        table.routes.sort_by_cached_key(|route| range(&route.destination));
    }
    for group in &mut file.endpoint_groups {
        let group = group.get_mut();
        group.mode.get_or_insert(Located::nowhere(GroupMode::default()));
        group.members.sort_by(|a, b| a.endpoint.get().cmp(b.endpoint.get()));
    }
    for table in &mut file.route_tables {
        let table = table.get_mut();
        texts(&mut table.propagating);
        table.main = table.main.take().filter(|flag| *flag.get());
        table.routes.sort_by_cached_key(|route| {
            (route.destination.as_ref().map(range), route.prefix_list.as_deref().cloned())
        });
    }
}

fn by_name<T: Named>(list: &mut [Located<T>]) {
    list.sort_by(|a, b| a.name().cmp(b.name()));
}

fn texts(list: &mut Vec<Located<String>>) {
    list.sort_by(|a, b| a.get().cmp(b.get()));
    list.dedup();
}

fn range(text: &Located<String>) -> (Option<IpNet>, String) {
    (text.parse().ok(), text.get().clone())
}

/// Ranges and addresses, each written as it is displayed. What is none stays, for others to tell.
fn canonical_texts(file: &mut RouterFile) {
    fn canonical<T: FromStr + Display>(text: &mut Located<String>) {
        if let Ok(value) = text.parse::<T>() {
            *text.get_mut() = value.to_string();
        }
    }
    let ranges = canonical::<IpNet>;
    let addresses = canonical::<std::net::IpAddr>;
    file.vpcs.iter_mut().for_each(|it| it.get_mut().cidrs.iter_mut().for_each(ranges));
    file.subnets.iter_mut().for_each(|it| it.get_mut().cidrs.iter_mut().for_each(ranges));
    file.prefix_lists.iter_mut().for_each(|it| it.get_mut().entries.iter_mut().for_each(ranges));
    for gateway in &mut file.internet_gateways {
        for mapping in &mut gateway.get_mut().addresses {
            let mapping = mapping.get_mut();
            [&mut mapping.public, &mut mapping.private].into_iter().for_each(addresses);
        }
    }
    for gateway in &mut file.virtual_private_gateways {
        let routes = gateway.get_mut().routes.iter_mut();
        routes.for_each(|route| ranges(&mut route.get_mut().destination));
    }
    for gateway in &mut file.nat_gateways {
        let gateway = gateway.get_mut();
        gateway.address.iter_mut().chain(&mut gateway.public_address).for_each(addresses);
    }
    let interfaces = file.network_interfaces.iter_mut();
    interfaces.for_each(|it| it.get_mut().addresses.iter_mut().for_each(addresses));
    file.endpoints.iter_mut().for_each(|it| it.get_mut().address.iter_mut().for_each(addresses));
    for table in &mut file.route_tables {
        let routes = table.get_mut().routes.iter_mut();
        routes.for_each(|route| route.get_mut().destination.iter_mut().for_each(ranges));
    }
    for table in &mut file.transit_gateway_route_tables {
        let routes = table.get_mut().routes.iter_mut();
        routes.for_each(|route| ranges(&mut route.get_mut().destination));
    }
}

/// What a route is for, which names it in its table: a range, or a prefix list.
pub(super) fn destination(route: &Route) -> &str {
    let text = route.destination.as_ref().or(route.prefix_list.as_ref());
    text.map_or("", |text| text.get())
}

/// Where a route leads, as places are written.
pub(super) fn target(route: &Route) -> String {
    route.written().first().map_or(String::new(), crate::config::Written::text)
}

/// Where a transit gateway's route leads.
pub(super) fn transit_target(route: &TransitRoute) -> String {
    route.attachment.as_ref().map_or("blackhole".to_owned(), |attachment| {
        format!("{}:{}", Kind::TransitGatewayAttachment.key(), attachment.get())
    })
}
