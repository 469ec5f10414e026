//! Route tables: what uses them, and where their routes lead.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::gather::{name_of, unique};
use super::input::{Input, Place};
use super::network::{Network, Table};
use super::note::Notes;
use super::shapes::{self, Route, Shape, State};
use super::targets::{NO_TARGETS, TARGETS};

/// A route on its way into a table of the form.
pub(super) struct Row {
    pub(super) destination: Destination,
    pub(super) target: Target,
    pub(super) comment: Option<String>,
    /// It is no more than a comment.
    pub(super) off: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Destination {
    Range(IpNet),
    PrefixList(String),
}

/// Where a route leads, by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Local,
    Blackhole,
    Endpoint(String),
    InternetGateway(String),
    EgressOnly(String),
    PrivateGateway(String),
    NatGateway(String),
    Interface(String),
    TransitGateway(String),
    Opaque(String),
}

impl Network {
    /// All tables: the gateways and the attachments to transit gateways have to be there.
    pub(super) fn read_tables(&mut self, input: &mut Input<'_>, notes: &mut Notes) {
        let placed = unique::<shapes::RouteTable>(input, notes);
        let mut mains: BTreeMap<String, String> = BTreeMap::new();
        for (id, placed) in placed {
            let table = placed.value;
            if !self.has_vpc(&table.vpc_id, &id, shapes::RouteTable::NOUN, notes) {
                continue;
            }
            let mut read = Table {
                tag: name_of(&table.tags),
                vpc: table.vpc_id.clone(),
                main: false,
                propagating: BTreeSet::new(),
                rows: Vec::new(),
            };
            for association in &table.associations {
                if !State::is_associated(association.association_state.as_ref()) {
                    let association = association.route_table_association_id.as_deref();
                    let what = "associations of route tables left out, for they are not in the \
                                state \"associated\"";
                    notes.add(what, format!("{} of {id}", association.unwrap_or("one")));
                    continue;
                }
                if association.main {
                    read.main = true;
                    if let Some(other) = mains.insert(table.vpc_id.clone(), id.clone()) {
                        let message = format!("VPC {} has two main tables", table.vpc_id);
                        input.problem_at(&placed.place, message, |problem| {
                            problem.label(format!("{other} is the main table, too")).help(AGAIN)
                        });
                    }
                }
                self.associate(&id, &table.vpc_id, association, &placed.place, input, notes);
            }
            for vgw in &table.propagating_vgws {
                if self.private_gateway(&vgw.gateway_id, &table.vpc_id, notes) {
                    read.propagating.insert(vgw.gateway_id.clone());
                } else {
                    let what = "propagation left out, for the virtual private gateway is not \
                                attached to the VPC";
                    notes.add(what, format!("{} to {id}", vgw.gateway_id));
                }
            }
            for (index, route) in table.routes.iter().enumerate() {
                let Some(destination) = destination(route) else {
                    let path = format!("{}.Routes[{index}]", placed.place.path());
                    input.problem_at(
                        &placed.place,
                        format!("{path} has not one destination"),
                        |p| p.label(format!("a route of {id}")),
                    );
                    continue;
                };
                let row = self.row(&id, &mut read, destination, route, notes);
                read.rows.extend(row);
            }
            order(&id, &mut read.rows, notes);
            self.tables.insert(id, read);
        }
        for vpc in
            self.vpcs.keys().filter(|vpc| input.has("RouteTables") && !mains.contains_key(*vpc))
        {
            let what = "VPCs whose main route table is not in the output of `aws ec2 \
                        describe-route-tables`: it is taken to have nothing but local routes";
            notes.add(what, vpc);
        }
    }

    /// A subnet or a gateway that uses a table.
    fn associate(
        &mut self,
        table: &str,
        vpc: &str,
        association: &shapes::Association,
        place: &Place,
        input: &mut Input<'_>,
        notes: &mut Notes,
    ) {
        let (id, slot) = match (&association.subnet_id, &association.gateway_id) {
            (Some(id), _) => (id, self.subnets.get_mut(id).map(|subnet| &mut subnet.table)),
            (None, Some(id)) => {
                let gateway = if id.starts_with("vgw-") {
                    self.private_gateway(id, vpc, notes);
                    self.private_gateways.get_mut(id)
                } else {
                    self.internet_gateway(id, vpc, notes);
                    self.internet_gateways.get_mut(id)
                };
                let gateway = gateway.filter(|gateway| gateway.vpc == vpc);
                (id, gateway.map(|gateway| &mut gateway.table))
            }
            (None, None) if association.main => return,
            (None, None) => {
                let what = "associations of route tables left out, for it is not known with what";
                notes.add(what, table);
                return;
            }
        };
        match slot {
            Some(slot @ None) => *slot = Some(table.to_owned()),
            Some(Some(other)) => {
                let other = other.clone();
                input.problem_at(place, format!("{id} uses two route tables"), |problem| {
                    problem.label(format!("{other} is its table, too")).help(AGAIN)
                });
            }
            None => {
                let what = "users of route tables left out, for the output of `aws ec2 \
                            describe-subnets`, `describe-internet-gateways` or \
                            `describe-vpn-gateways` does not have them";
                notes.add(what, format!("{id} of {table}"));
            }
        }
    }

    /// What becomes of a route; nothing, if the form implies it.
    fn row(
        &mut self,
        id: &str,
        table: &mut Table,
        destination: Destination,
        route: &Route,
        notes: &mut Notes,
    ) -> Option<Row> {
        let about = || format!("{} of {id}", destination.text());
        let target = self.written_target(route);
        for member in route.others.keys() {
            let is_target = target.as_ref().is_some_and(|(of_target, ..)| of_target == member);
            let is_known = TARGETS.iter().any(|(known, _)| known == member);
            if !is_target && !is_known && !NO_TARGETS.contains(&member.as_str()) {
                let what = "members of a route that this version does not know, and leaves out";
                notes.add(what, format!("{member} of {}", about()));
            }
        }
        let Some((member, kind, to)) = target else {
            notes.add("routes without a target are blackholes", about());
            let comment = Some("there is no target in the input".to_owned());
            return Some(Row { destination, target: Target::Blackhole, comment, off: false });
        };
        let mut comment = None;
        match route.state.as_deref() {
            Some("active") | None => {}
            Some("blackhole") => {
                let comment =
                    Some(format!("led to {} {to}, which is gone", kind.replace('_', " ")));
                return Some(Row { destination, target: Target::Blackhole, comment, off: false });
            }
            Some(state) => {
                notes.add(format!("routes in the state {state} are comments"), about());
                let comment = Some(format!("{state}, to {} {to}", kind.replace('_', " ")));
                let target = Target::Opaque(to);
                return Some(Row { destination, target, comment, off: true });
            }
        }
        match (route.origin.as_deref(), &destination) {
            (Some("EnableVgwRoutePropagation"), Destination::Range(range))
                if self.private_gateway(&to, &table.vpc, notes) =>
            {
                table.propagating.insert(to.clone());
                if let Some(gateway) = self.private_gateways.get_mut(&to) {
                    gateway.learned.insert(*range);
                }
                return None;
            }
            (Some("CreateRouteTable" | "CreateRoute") | None, _) => {}
            (Some(origin), _) => {
                notes.add(
                    format!("routes of the origin {origin} are written as if they were static"),
                    about(),
                );
                comment = Some(format!("origin {origin}"));
            }
        }
        if to == "local" {
            return self.local_row(id, &table.vpc, destination, notes);
        }
        let target = match self.off(&to) {
            Some(state) => {
                comment = Some(format!("led to {to}, which is in the state {state}"));
                Target::Blackhole
            }
            None => self.target(&table.vpc, &member, &kind, &to, &destination, notes),
        };
        if let Destination::PrefixList(list) = &destination {
            let known = self.prefix_lists.get(list).is_some_and(|list| list.entries.is_some());
            if !known {
                notes.add(NO_ENTRIES, format!("{list} in {id}"));
                let comment = Some("the ranges of the prefix list are not known".to_owned());
                return Some(Row { destination, target, comment, off: true });
            }
        }
        Some(Row { destination, target, comment, off: false })
    }

    /// A VPC's own ranges are local in every table.
    fn local_row(
        &self,
        id: &str,
        vpc: &str,
        destination: Destination,
        notes: &mut Notes,
    ) -> Option<Row> {
        let Destination::Range(range) = &destination else { return None };
        let cidrs = &self.vpcs.get(vpc)?.cidrs;
        if cidrs.contains(range) {
            return None;
        }
        let comment = None;
        let within = cidrs.iter().any(|cidr| cidr.contains(range));
        if within {
            return Some(Row { destination, target: Target::Local, comment, off: false });
        }
        let what =
            "local routes left out, for their range is not one that is associated with the VPC";
        notes.add(what, format!("{range} of {id}"));
        None
    }
}

const AGAIN: &str = "outputs of different times do not fit together: get all of them again";

const NO_ENTRIES: &str = "routes for prefix lists are comments, for nobody says their ranges: give \
                          `aws ec2 get-managed-prefix-list-entries --prefix-list-id ...` in a file \
                          that has the id in its name";

/// By destination, each once: those of longer prefixes first to be seen are last to be met, so
/// the order is that of the addresses.
fn order(id: &str, rows: &mut Vec<Row>, notes: &mut Notes) {
    // Stable, and what is static comes before what something advertises.
    rows.sort_by(|a, b| {
        let key = |row: &Row| (row.off, row.comment.is_some());
        a.destination.cmp(&b.destination).then(key(a).cmp(&key(b)))
    });
    let mut met = BTreeSet::new();
    for row in rows {
        if !row.off && !met.insert(row.destination.clone()) {
            let what = "routes are comments, for their table has another one of higher \
                        priority for the same destination";
            notes.add(what, format!("{} of {id}", row.destination.text()));
            row.off = true;
        }
    }
}

fn destination(route: &Route) -> Option<Destination> {
    let range = route.destination_cidr_block.or(route.destination_ipv6_cidr_block);
    match (range, &route.destination_prefix_list_id) {
        (Some(range), None) => Some(Destination::Range(range.trunc())),
        (None, Some(list)) => Some(Destination::PrefixList(list.clone())),
        _ => None,
    }
}

impl Destination {
    pub(super) fn text(&self) -> String {
        match self {
            Destination::Range(range) => range.to_string(),
            Destination::PrefixList(list) => list.clone(),
        }
    }

    pub(super) fn is_ipv6(&self) -> bool {
        matches!(self, Destination::Range(IpNet::V6(_)))
    }
}
