//! The network as a configuration file: VPC by VPC, then what lies between them.

use std::collections::{BTreeMap, BTreeSet};

use super::names;
use super::network::{Network, Table};
use super::note::{Note, Notes};
use super::routes::{Destination, Row, Target};
use super::toml_text::{Line, Member, Text};
use crate::rules::RuleSet;

/// The names of everything, by kind and id.
struct Names {
    vpcs: BTreeMap<String, String>,
    subnets: BTreeMap<String, String>,
    internet_gateways: BTreeMap<String, String>,
    private_gateways: BTreeMap<String, String>,
    egress_only: BTreeMap<String, String>,
    nat_gateways: BTreeMap<String, String>,
    interfaces: BTreeMap<String, String>,
    tables: BTreeMap<String, String>,
    endpoints: BTreeMap<String, String>,
    prefix_lists: BTreeMap<String, String>,
    transit_gateways: BTreeMap<String, String>,
    transit_tables: BTreeMap<String, String>,
    attachments: BTreeMap<String, String>,
    /// By the VPC and the id.
    opaques: BTreeMap<(String, String), String>,
}

impl Network {
    /// The tables of the file. `from` is what it was made from.
    pub(super) fn write(
        &self,
        rules: RuleSet,
        from: &[String],
        mut notes: Notes,
    ) -> (String, Vec<Note>) {
        let writer = Writer { network: self, names: self.names(&mut notes) };
        let notes = notes.into_list();
        let mut text = Text::default();
        text.paragraph("", &format!("Imported by `router import` from {}.", from.join(", ")));
        text.paragraph(
            "",
            "A name is the Name tag, where it can be one and is alone in having it, or else the id, \
             which stands beside each table.",
        );
        if !notes.is_empty() {
            text.comment("");
            text.comment("What to know about it:");
            for note in &notes {
                text.paragraph("- ", &note.to_string());
            }
        }
        writer.write(&mut text, rules);
        (text.into_string(), notes)
    }

    fn names(&self, notes: &mut Notes) -> Names {
        macro_rules! names {
            ($kind:literal, $things:expr) => {
                names::choose(
                    $kind,
                    $things.iter().map(|(id, thing)| (id.as_str(), thing.tag.as_deref())),
                    notes,
                )
            };
        }
        let used = self.interfaces.iter().filter(|(id, _)| self.led_to.contains(*id));
        let interfaces = names::choose(
            "network interface",
            used.map(|(id, interface)| (id.as_str(), interface.tag.as_deref())),
            notes,
        );
        let vpcs = names!("VPC", self.vpcs);
        Names {
            subnets: names!("subnet", self.subnets),
            internet_gateways: names!("internet gateway", self.internet_gateways),
            private_gateways: names!("virtual private gateway", self.private_gateways),
            egress_only: names!("egress-only internet gateway", self.egress_only),
            nat_gateways: names!("NAT gateway", self.nat_gateways),
            interfaces,
            tables: names!("route table", self.tables),
            endpoints: names!("endpoint", self.endpoints),
            prefix_lists: names!("prefix list", self.prefix_lists),
            transit_gateways: names::choose(
                "transit gateway",
                self.transit.gateways.iter().map(|(id, tag)| (id.as_str(), tag.as_deref())),
                notes,
            ),
            transit_tables: names!("transit gateway route table", self.transit.tables),
            attachments: names!("transit gateway attachment", self.transit.attachments),
            opaques: self.names_of_opaques(&vpcs, notes),
            vpcs,
        }
    }

    /// What several VPCs lead to is opaque in each of them by itself.
    fn names_of_opaques(
        &self,
        vpcs: &BTreeMap<String, String>,
        notes: &mut Notes,
    ) -> BTreeMap<(String, String), String> {
        let mut leading: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, id) in self.opaques.keys() {
            *leading.entry(id).or_default() += 1;
        }
        let mut own_ids: BTreeMap<String, &(String, String)> = BTreeMap::new();
        for key in self.opaques.keys() {
            let (vpc, id) = key;
            let mut own_id = match leading.get(id.as_str()) {
                Some(1) => id.clone(),
                _ => format!("{id}.{}", name_in(vpcs, vpc)),
            };
            // An id with a dot in it may look like another one's with its VPC.
            while own_ids.contains_key(&own_id) {
                own_id.push('+');
            }
            own_ids.insert(own_id, key);
        }
        let things =
            own_ids.iter().map(|(id, key)| (id.as_str(), self.opaques[*key].tag.as_deref()));
        let names = names::choose("VPC endpoint", things, notes);
        own_ids.into_iter().map(|(id, key)| (key.clone(), names[&id].clone())).collect()
    }
}

struct Writer<'n> {
    network: &'n Network,
    names: Names,
}

impl Writer<'_> {
    fn write(&self, text: &mut Text, rules: RuleSet) {
        text.gap();
        text.comment("Whose rules `router check` holds the tables to.");
        text.section("routing");
        text.key("rules", &rules.to_string());
        for (id, name) in by_name(&self.names.vpcs) {
            self.write_vpc(text, id, name);
            self.write_subnets(text, id);
            self.write_gateways(text, id);
            self.write_interfaces(text, id);
            self.write_tables(text, id);
            self.write_endpoints(text, id);
            self.write_opaques(text, id);
        }
        self.write_transit(text);
        self.write_prefix_lists(text);
    }

    fn write_vpc(&self, text: &mut Text, id: &str, name: &str) {
        let vpc = &self.network.vpcs[id];
        header(text, "vpc", id, name, vpc.tag.as_deref(), &[]);
        text.list("cidrs", &vpc.cidrs);
    }

    fn write_subnets(&self, text: &mut Text, vpc: &str) {
        let wanted = |id: &str| self.network.subnets[id].vpc == vpc;
        for (id, name) in by_name_where(&self.names.subnets, wanted) {
            let subnet = &self.network.subnets[id];
            let zone_id = subnet.zone_id.as_deref().filter(|zone| *zone != subnet.zone);
            let zone_id = zone_id.map(|zone| format!("zone {zone}")).unwrap_or_default();
            header(text, "subnet", id, name, subnet.tag.as_deref(), &[&zone_id]);
            self.vpc(text, vpc);
            text.key("zone", &subnet.zone);
            text.list("cidrs", &subnet.cidrs);
            self.table(text, subnet.table.as_deref());
        }
    }

    fn write_gateways(&self, text: &mut Text, vpc: &str) {
        let wanted = |id: &str| self.network.internet_gateways[id].vpc == vpc;
        for (id, name) in by_name_where(&self.names.internet_gateways, wanted) {
            let gateway = &self.network.internet_gateways[id];
            header(text, "internet_gateway", id, name, gateway.tag.as_deref(), &[]);
            self.vpc(text, vpc);
            self.table(text, gateway.table.as_deref());
            let addresses = gateway.addresses.iter().map(|(public, private)| {
                let address = |address: &std::net::Ipv4Addr| Member::Text(address.to_string());
                Line::plain(vec![("public", address(public)), ("private", address(private))])
            });
            text.lines("addresses", &addresses.collect::<Vec<_>>());
        }
        let wanted = |id: &str| self.network.egress_only[id].vpc == vpc;
        for (id, name) in by_name_where(&self.names.egress_only, wanted) {
            let gateway = &self.network.egress_only[id];
            header(text, "egress_only_internet_gateway", id, name, gateway.tag.as_deref(), &[]);
            self.vpc(text, vpc);
        }
        let wanted = |id: &str| self.network.private_gateways[id].vpc == vpc;
        for (id, name) in by_name_where(&self.names.private_gateways, wanted) {
            let gateway = &self.network.private_gateways[id];
            header(text, "virtual_private_gateway", id, name, gateway.tag.as_deref(), &[]);
            self.vpc(text, vpc);
            self.table(text, gateway.table.as_deref());
            let learned = gateway
                .learned
                .iter()
                .map(|range| Line::plain(vec![("destination", Member::Text(range.to_string()))]));
            text.lines("routes", &learned.collect::<Vec<_>>());
        }
    }

    fn write_interfaces(&self, text: &mut Text, vpc: &str) {
        let in_vpc = |subnet: &str| self.network.subnets[subnet].vpc == vpc;
        let wanted = |id: &str| in_vpc(&self.network.nat_gateways[id].subnet);
        for (id, name) in by_name_where(&self.names.nat_gateways, wanted) {
            let nat = &self.network.nat_gateways[id];
            header(text, "nat_gateway", id, name, nat.tag.as_deref(), &[]);
            text.key("subnet", name_in(&self.names.subnets, &nat.subnet));
            if let Some(address) = nat.address {
                text.key("address", &address.to_string());
            }
            if let Some(address) = nat.public_address {
                text.key("public_address", &address.to_string());
            }
        }
        let wanted = |id: &str| in_vpc(&self.network.interfaces[id].subnet);
        for (id, name) in by_name_where(&self.names.interfaces, wanted) {
            let interface = &self.network.interfaces[id];
            let check =
                if interface.drops_what_is_not_its_own { "SourceDestCheck is on" } else { "" };
            header(text, "network_interface", id, name, interface.tag.as_deref(), &[check]);
            text.key("subnet", name_in(&self.names.subnets, &interface.subnet));
            text.list("addresses", &interface.addresses);
        }
    }

    fn write_tables(&self, text: &mut Text, vpc: &str) {
        let wanted = |id: &str| self.network.tables[id].vpc == vpc;
        for (id, name) in by_name_where(&self.names.tables, wanted) {
            let table = &self.network.tables[id];
            header(text, "route_table", id, name, table.tag.as_deref(), &[]);
            self.vpc(text, vpc);
            if table.main {
                text.flag("main");
            }
            let propagating = table.propagating.iter();
            text.list(
                "propagating",
                propagating.map(|id| name_in(&self.names.private_gateways, id)),
            );
            let lines = table.rows.iter().map(|row| self.row(table, row));
            text.lines("routes", &lines.collect::<Vec<_>>());
        }
    }

    fn row(&self, table: &Table, row: &Row) -> Line {
        let destination = match &row.destination {
            Destination::Range(range) => ("destination", Member::Text(range.to_string())),
            Destination::PrefixList(id) => {
                ("prefix_list", Member::Text(name_in(&self.names.prefix_lists, id).to_owned()))
            }
        };
        let names = &self.names;
        let to = |key, names, id| (key, Member::Text(name_in(names, id).to_owned()));
        let target = match &row.target {
            Target::Local => ("local", Member::True),
            Target::Blackhole => ("blackhole", Member::True),
            Target::Endpoint(id) => to("endpoint", &names.endpoints, id),
            Target::InternetGateway(id) => to("internet_gateway", &names.internet_gateways, id),
            Target::EgressOnly(id) => to("egress_only_internet_gateway", &names.egress_only, id),
            Target::PrivateGateway(id) => {
                to("virtual_private_gateway", &names.private_gateways, id)
            }
            Target::NatGateway(id) => to("nat_gateway", &names.nat_gateways, id),
            Target::Interface(id) => to("interface", &names.interfaces, id),
            Target::TransitGateway(id) => to("transit_gateway", &names.transit_gateways, id),
            Target::Opaque(id) => ("opaque", Member::Text(self.opaque(&table.vpc, id).to_owned())),
        };
        Line { members: vec![destination, target], comment: row.comment.clone(), off: row.off }
    }

    fn write_endpoints(&self, text: &mut Text, vpc: &str) {
        let wanted = |id: &str| self.network.subnets[&self.network.endpoints[id].subnet].vpc == vpc;
        for (id, name) in by_name_where(&self.names.endpoints, wanted) {
            let endpoint = &self.network.endpoints[id];
            let state = endpoint.unusual.as_deref().unwrap_or_default();
            header(text, "endpoint", id, name, endpoint.tag.as_deref(), &[state]);
            text.key("subnet", name_in(&self.names.subnets, &endpoint.subnet));
            text.key("service", &endpoint.service);
            if let Some(address) = endpoint.address {
                text.key("address", &address.to_string());
            }
        }
    }

    /// And the endpoints that no route leads to, as comments.
    fn write_opaques(&self, text: &mut Text, vpc: &str) {
        let from = (vpc.to_owned(), String::new());
        let opaques = self.network.opaques.range(from..).take_while(|((of, _), _)| of == vpc);
        for ((_, id), opaque) in opaques {
            let named = self.opaque(vpc, id);
            let comment = opaque.comment.as_deref().unwrap_or_default();
            header(text, "opaque", id, named, opaque.tag.as_deref(), &[comment]);
            text.key("kind", &opaque.kind);
            self.vpc(text, vpc);
        }
        let led_to = |id: &str| self.network.opaques.contains_key(&(vpc.to_owned(), id.to_owned()));
        let mut others = self
            .network
            .other_endpoints
            .iter()
            .filter(|(id, other)| other.vpc == vpc && !led_to(id))
            .peekable();
        if others.peek().is_some() {
            text.gap();
            text.comment("Endpoints that no route leads to:");
        }
        for (id, other) in others {
            let tag = other.tag.as_deref().map(|tag| format!(" {tag:?}")).unwrap_or_default();
            let why = other.why.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
            let kind = other.kind.replace('_', " ");
            text.comment(&format!("- {id}{tag}: {kind} to {}{why}", other.service));
        }
    }

    fn write_transit(&self, text: &mut Text) {
        let transit = &self.network.transit;
        for (id, name) in by_name(&self.names.transit_gateways) {
            header(text, "transit_gateway", id, name, transit.gateways[id].as_deref(), &[]);
        }
        for (id, name) in by_name(&self.names.attachments) {
            let attachment = &transit.attachments[id];
            header(text, "transit_gateway_attachment", id, name, attachment.tag.as_deref(), &[]);
            text.key("transit_gateway", name_in(&self.names.transit_gateways, &attachment.gateway));
            self.vpc(text, &attachment.vpc);
            let subnets = attachment.subnets.iter();
            text.list("subnets", subnets.map(|id| name_in(&self.names.subnets, id)));
            text.key("route_table", name_in(&self.names.transit_tables, &attachment.table));
            if attachment.appliance_mode {
                text.flag("appliance_mode");
            }
        }
        for (id, name) in by_name(&self.names.transit_tables) {
            let table = &transit.tables[id];
            header(text, "transit_gateway_route_table", id, name, table.tag.as_deref(), &[]);
            text.key("transit_gateway", name_in(&self.names.transit_gateways, &table.gateway));
            let propagations = table.propagations.iter();
            text.list("propagations", propagations.map(|id| name_in(&self.names.attachments, id)));
            let lines = table.rows.iter().map(|(range, row)| {
                let target = match &row.attachment {
                    Some(id) => {
                        let name = name_in(&self.names.attachments, id);
                        ("attachment", Member::Text(name.to_owned()))
                    }
                    None => ("blackhole", Member::True),
                };
                Line {
                    members: vec![("destination", Member::Text(range.to_string())), target],
                    comment: row.comment.clone(),
                    off: false,
                }
            });
            text.lines("routes", &lines.collect::<Vec<_>>());
        }
    }

    /// Those that routes are for: a region has many that nobody uses.
    fn write_prefix_lists(&self, text: &mut Text) {
        let rows = self.network.tables.values().flat_map(|table| &table.rows);
        let used: BTreeSet<&str> = rows
            .filter(|row| !row.off)
            .filter_map(|row| match &row.destination {
                Destination::PrefixList(id) => Some(id.as_str()),
                Destination::Range(_) => None,
            })
            .collect();
        for (id, name) in by_name(&self.names.prefix_lists) {
            let list = &self.network.prefix_lists[id];
            let Some(entries) = list.entries.as_ref().filter(|_| used.contains(id)) else {
                continue;
            };
            header(text, "prefix_list", id, name, list.tag.as_deref(), &[]);
            text.every("entries", entries);
        }
    }

    fn opaque<'s>(&'s self, vpc: &str, id: &'s str) -> &'s str {
        self.names.opaques.get(&(vpc.to_owned(), id.to_owned())).map_or(id, String::as_str)
    }

    fn vpc(&self, text: &mut Text, vpc: &str) {
        text.key("vpc", name_in(&self.names.vpcs, vpc));
    }

    fn table(&self, text: &mut Text, table: Option<&str>) {
        if let Some(table) = table {
            text.key("route_table", name_in(&self.names.tables, table));
        }
    }
}

/// The header and the name, with the id beside it and the tag that is not the name.
fn header(text: &mut Text, key: &str, id: &str, name: &str, tag: Option<&str>, beside: &[&str]) {
    let id = if id == name { "" } else { id };
    let tag = tag.filter(|tag| *tag != name && !tag.is_empty());
    let tag = tag.map(|tag| format!("named {tag:?}")).unwrap_or_default();
    let all: Vec<&str> = [id, &tag].into_iter().chain(beside.iter().copied()).collect();
    text.table(key, &all);
    text.key("name", name);
}

/// In the order of the names, which is that of a reader.
fn by_name(names: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    by_name_where(names, |_| true)
}

/// The same for some of them.
fn by_name_where(
    names: &BTreeMap<String, String>,
    wanted: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (&str, &str)> {
    let ids = names.iter().filter(|(id, _)| wanted(id));
    let mut sorted: Vec<(&str, &str)> =
        ids.map(|(id, name)| (id.as_str(), name.as_str())).collect();
    sorted.sort_unstable_by_key(|(_, name)| *name);
    sorted.into_iter()
}

/// The name of something; its id, if it has none.
fn name_in<'n>(names: &'n BTreeMap<String, String>, id: &'n str) -> &'n str {
    names.get(id).map_or(id, String::as_str)
}
