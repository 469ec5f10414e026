//! Transit gateways: their tables, and the VPCs that are attached to them.
//!
//! A VPC's routes lead to a transit gateway only if all is known that decides what becomes of them
//! there. Otherwise it is opaque to them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::gather::{name_of, owned, unique};
use super::input::Input;
use super::network::Network;
use super::note::Notes;
use super::shapes;

/// Everything about transit gateways by its id.
#[derive(Default)]
pub(super) struct Transit {
    pub(super) gateways: BTreeMap<String, Option<String>>,
    pub(super) tables: BTreeMap<String, TransitTable>,
    pub(super) attachments: BTreeMap<String, Attachment>,
}

pub(super) struct TransitTable {
    pub(super) tag: Option<String>,
    pub(super) gateway: String,
    pub(super) propagations: BTreeSet<String>,
    pub(super) rows: BTreeMap<IpNet, TransitRow>,
}

pub(super) struct TransitRow {
    /// None: a blackhole.
    pub(super) attachment: Option<String>,
    pub(super) comment: Option<String>,
}

/// A VPC at a transit gateway.
pub(super) struct Attachment {
    pub(super) tag: Option<String>,
    pub(super) gateway: String,
    pub(super) vpc: String,
    pub(super) subnets: Vec<String>,
    pub(super) table: String,
    pub(super) appliance_mode: bool,
}

/// What it takes to follow a packet through a transit gateway.
pub(super) const OPAQUE: &str = "opaque transit gateways: to follow packets through them takes the output of `aws ec2 \
     describe-transit-gateway-attachments`, `describe-transit-gateway-vpc-attachments`, \
     `describe-transit-gateway-route-tables`, and for each of these tables \
     `search-transit-gateway-routes --filters Name=state,Values=active,blackhole`";

impl Network {
    /// Transit gateways. The VPCs and the subnets have to be there.
    pub(super) fn read_transit(&mut self, input: &mut Input<'_>, notes: &mut Notes) {
        let mut gateways = BTreeMap::new();
        for (id, placed) in unique::<shapes::TransitGateway>(input, notes) {
            gateways.insert(id, name_of(&placed.value.tags));
        }
        let tables = unique::<shapes::TransitRouteTable>(input, notes);
        let ids: Vec<String> = tables.keys().cloned().collect();
        let command = "aws ec2 search-transit-gateway-routes";
        let mut routes = owned::<shapes::TransitRoute>(
            input,
            "Routes",
            "tgw-rtb-",
            &ids,
            command,
            "TransitGatewayRouteTableId",
        );
        for (id, placed) in tables {
            let table = placed.value;
            // Without its routes, it would drop everything, and nothing could be said of it.
            if routes.contains_key(&id) {
                self.transit.tables.insert(
                    id,
                    TransitTable {
                        tag: name_of(&table.tags),
                        gateway: table.transit_gateway_id,
                        propagations: BTreeSet::new(),
                        rows: BTreeMap::new(),
                    },
                );
            } else {
                let what = format!(
                    "transit gateway route tables left out, for their routes are not given: \
                     `{command} --transit-gateway-route-table-id ...`, in a file that has the id in \
                     its name"
                );
                notes.add(what, id);
            }
        }
        self.read_attachments(input, notes);
        let tables: Vec<String> = self.transit.tables.keys().cloned().collect();
        for table in tables {
            let routes = routes.remove(&table).unwrap_or_default();
            self.add_transit_routes(&table, &routes, notes);
        }
        for table in routes.into_keys() {
            let what = "routes of transit gateway route tables left out, for the output of `aws ec2 \
                        describe-transit-gateway-route-tables` does not have them";
            notes.add(what, table);
        }
        let used = self.transit.attachments.values().map(|attachment| &attachment.gateway);
        let used = used.chain(self.transit.tables.values().map(|table| &table.gateway));
        for gateway in used {
            gateways.entry(gateway.clone()).or_insert(None);
        }
        self.transit.gateways = gateways;
    }

    /// Two commands tell of them: one the table, the other the subnets.
    fn read_attachments(&mut self, input: &mut Input<'_>, notes: &mut Notes) {
        let tables = unique::<shapes::TransitAttachment>(input, notes);
        for (id, placed) in &tables {
            let attachment = &placed.value;
            if attachment.resource_type != "vpc" && is_there(attachment.state.as_deref()) {
                let resource = attachment.resource_id.as_deref().unwrap_or("something");
                let what = "attachments of transit gateways that are not of a VPC: what they send \
                            is not followed, and routes to them are blackholes";
                notes.add(what, format!("{id} ({} {resource})", attachment.resource_type));
            }
        }
        let vpcs = unique::<shapes::TransitVpcAttachment>(input, notes);
        let untold = tables.iter().filter(|(id, placed)| {
            placed.value.resource_type == "vpc"
                && is_there(placed.value.state.as_deref())
                && !vpcs.contains_key(*id)
        });
        for (id, placed) in untold {
            let resource = placed.value.resource_id.as_deref().unwrap_or_default();
            if self.vpcs.contains_key(resource) {
                let what = "attachments left out, for the output of `aws ec2 \
                            describe-transit-gateway-vpc-attachments` does not have them";
                notes.add(what, id);
            }
        }
        for (id, placed) in vpcs {
            let attachment = placed.value;
            if !is_there(attachment.state.as_deref())
                || !self.has_vpc(&attachment.vpc_id, &id, "transit gateway attachment", notes)
            {
                continue;
            }
            let unknown =
                attachment.subnet_ids.iter().find(|subnet| !self.subnets.contains_key(*subnet));
            if unknown.is_some() || attachment.subnet_ids.is_empty() {
                let what = "attachments left out, for their subnets are not in the output of `aws \
                            ec2 describe-subnets`";
                notes.add(what, id);
                continue;
            }
            let told = tables.get(&id).map(|placed| &placed.value);
            let Some(table) = told.and_then(|told| {
                let association = told.association.as_ref()?;
                let state = association.state.as_deref();
                let there = matches!(state, None | Some("associated"));
                association.transit_gateway_route_table_id.as_ref().filter(|_| there)
            }) else {
                let what = "attachments left out, for they have no transit gateway route table in \
                            the output of `aws ec2 describe-transit-gateway-attachments`";
                notes.add(what, id);
                continue;
            };
            let of = self.transit.tables.get(table).map(|table| &table.gateway);
            if of != Some(&attachment.transit_gateway_id) {
                let what = "attachments left out, for the transit gateway route table that they \
                            use is not known whole";
                notes.add(what, format!("{id} of {table}"));
                continue;
            }
            let mode = attachment.options.and_then(|options| options.appliance_mode_support);
            let tags = name_of(&attachment.tags).or(told.and_then(|told| name_of(&told.tags)));
            self.transit.attachments.insert(
                id,
                Attachment {
                    tag: tags,
                    gateway: attachment.transit_gateway_id,
                    vpc: attachment.vpc_id,
                    subnets: attachment.subnet_ids,
                    table: table.clone(),
                    appliance_mode: mode.as_deref() == Some("enable"),
                },
            );
        }
    }

    fn add_transit_routes(&mut self, id: &str, routes: &[shapes::TransitRoute], notes: &mut Notes) {
        let Transit { tables, attachments, .. } = &mut self.transit;
        let Some(table) = tables.get_mut(id) else { return };
        for route in routes {
            let destination = route.destination_cidr_block.trunc();
            let about = || format!("{destination} of {id}");
            let state = route.state.as_deref().unwrap_or("active");
            if !matches!(state, "active" | "blackhole") {
                notes.add(format!("transit gateway routes in the state {state} left out"), about());
                continue;
            }
            let is_known = |to: &&shapes::TransitRouteAttachment| {
                attachments
                    .get(&to.transit_gateway_attachment_id)
                    .is_some_and(|attachment| attachment.gateway == table.gateway)
            };
            let all = &route.transit_gateway_attachments;
            let known = all.iter().find(is_known).filter(|_| state == "active");
            let propagated = route.r#type.as_deref() == Some("propagated");
            let row = match (known, all.first()) {
                (Some(known), _) if propagated => {
                    table.propagations.insert(known.transit_gateway_attachment_id.clone());
                    continue;
                }
                (Some(known), _) => TransitRow {
                    attachment: Some(known.transit_gateway_attachment_id.clone()),
                    comment: None,
                },
                (None, first) => {
                    let comment = first.map(|first| {
                        let kind = first.resource_type.as_deref().unwrap_or("unknown");
                        let resource = first.resource_id.as_deref().unwrap_or("something");
                        let verb = if state == "active" { "leads" } else { "led" };
                        let id = &first.transit_gateway_attachment_id;
                        format!("{verb} to {kind} {resource}, {id}")
                    });
                    if state == "active" {
                        let what = "transit gateway routes that are blackholes here, for they lead \
                                    to what is not followed";
                        notes.add(what, about());
                    }
                    TransitRow { attachment: None, comment }
                }
            };
            // A static route wins over one that was propagated.
            if propagated {
                table.rows.entry(destination).or_insert(row);
            } else {
                table.rows.insert(destination, row);
            }
        }
    }
}

impl Transit {
    /// Whether routes of this VPC can lead to the transit gateway.
    pub(super) fn is_attached(&self, gateway: &str, vpc: &str) -> bool {
        let here = |attachment: &Attachment| attachment.gateway == gateway && attachment.vpc == vpc;
        self.attachments.values().any(here)
    }
}

fn is_there(state: Option<&str>) -> bool {
    let gone = ["deleting", "deleted", "failed", "failing", "rejected", "rejecting"];
    state.is_none_or(|state| !gone.contains(&state))
}
