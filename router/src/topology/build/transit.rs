//! Transit gateways: their attachments, one subnet for each zone, and their own tables.

use std::collections::HashMap;
use std::ops::Range;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::super::ids::Id;
use super::super::transit::{TransitAttachment, TransitGateway, TransitTable, TransitTarget};
use super::super::{
    Origin, SubnetId, TransitAttachmentId, TransitGatewayId, TransitTableId, VpcId,
};
use super::cidr::parse_cidr;
use super::{Draft, names};
use crate::config::{TransitGatewayAttachment, TransitRoute};
use crate::source::{Located, Problem};

impl Draft<'_> {
    /// Gateways, tables without their routes, attachments, and then the routes.
    pub(super) fn add_transit(&mut self) {
        let file = self.file;
        self.transit_gateways = file
            .transit_gateways
            .iter()
            .map(|gateway| TransitGateway { name: gateway.name.get().clone() })
            .collect();
        for table in &file.transit_gateway_route_tables {
            let gateway = self.transit_gateway(&table.transit_gateway);
            let name = table.name.get().clone();
            self.transit_tables.push(TransitTable { name, gateway, routes: JointPrefixMap::new() });
        }
        let mut first_of: HashMap<(TransitGatewayId, VpcId), Range<usize>> = HashMap::new();
        for attachment in &file.transit_gateway_attachments {
            let made = self.attachment(attachment);
            if made.gateway.is_resolved() && made.vpc.is_resolved() {
                let key = (made.gateway, made.vpc);
                if let Some(first) = first_of.get(&key) {
                    self.problems.push(
                        attachment
                            .vpc
                            .problem(format!(
                                "VPC \"{}\" is attached twice to transit gateway \"{}\"",
                                attachment.vpc.get(),
                                attachment.transit_gateway.get()
                            ))
                            .label("again here")
                            .and(first.clone(), "first here")
                            .help("a VPC has one attachment, with a subnet for each zone"),
                    );
                }
                first_of.entry(key).or_insert(attachment.vpc.span());
            }
            self.transit_attachments.push(made);
        }
        for index in 0..file.transit_gateway_route_tables.len() {
            self.add_transit_routes(index);
        }
    }

    /// The attachment of a table's VPC to a transit gateway that a route leads to.
    pub(super) fn transit_target(
        &mut self,
        vpc: VpcId,
        reference: &Located<String>,
    ) -> Option<TransitAttachmentId> {
        let gateway = self.transit_gateway(reference);
        if !gateway.is_resolved() || !vpc.is_resolved() {
            return None;
        }
        let of_vpc = |it: &TransitAttachment| it.gateway == gateway && it.vpc == vpc;
        let found = self.transit_attachments.iter().position(of_vpc);
        if found.is_none() && self.transit_attachments.iter().all(|it| it.vpc.is_resolved()) {
            let name = &self.vpcs[vpc.index()].name;
            self.problems.push(
                reference
                    .problem(format!(
                        "VPC \"{name}\" is not attached to transit gateway \"{}\"",
                        reference.get()
                    ))
                    .label("there is no way from the VPC to it")
                    .help("add a [[transit_gateway_attachment]] with this VPC"),
            );
        }
        found.map(TransitAttachmentId::from_position)
    }

    fn transit_gateway(&mut self, reference: &Located<String>) -> TransitGatewayId {
        let known = &self.names.transit_gateways;
        names::resolve(names::TRANSIT_GATEWAY, known, reference, &mut self.problems)
    }

    fn attachment(&mut self, form: &TransitGatewayAttachment) -> TransitAttachment {
        let gateway = self.transit_gateway(&form.transit_gateway);
        let vpc: VpcId =
            names::resolve(names::VPC, &self.names.vpcs, &form.vpc, &mut self.problems);
        let known = &self.names.transit_tables;
        let table: TransitTableId =
            names::resolve(names::TRANSIT_TABLE, known, &form.route_table, &mut self.problems);
        if table.is_resolved() && gateway.is_resolved() {
            let other = self.transit_tables[table.index()].gateway;
            if other.is_resolved() && other != gateway {
                self.problems.push(
                    form.route_table
                        .problem("an attachment uses a table of another transit gateway")
                        .label(format!(
                            "this table belongs to \"{}\"",
                            self.transit_gateways[other.index()].name
                        ))
                        .help(format!("use a table of \"{}\"", form.transit_gateway.get())),
                );
            }
        }
        let mut subnets: Vec<(SubnetId, &Located<String>)> = Vec::new();
        for reference in &form.subnets {
            let id = self.subnet_for(reference);
            if !id.is_resolved() {
                continue;
            }
            let subnet = &self.subnets[id.index()];
            let foreign = self.foreign(vpc, subnet.vpc, |own, other| {
                reference
                    .problem(format!("subnet \"{}\" is in another VPC", reference.get()))
                    .label(format!("it is in VPC \"{other}\""))
                    .help(format!("the attachment is of VPC \"{own}\""))
            });
            let same_zone =
                subnets.iter().find(|(other, _)| self.subnets[other.index()].zone == subnet.zone);
            let twice = same_zone.map(|(_, first)| {
                reference
                    .problem(format!("an attachment has one subnet in zone \"{}\"", subnet.zone))
                    .label("a second one")
                    .and(first.span(), "the first one")
            });
            self.problems.extend(foreign.into_iter().chain(twice));
            subnets.push((id, reference));
        }
        if form.subnets.is_empty() {
            self.problems.push(
                form.name
                    .problem(format!("attachment \"{}\" is in no subnet", form.name.get()))
                    .label("its `subnets` is empty")
                    .help("name one subnet for each zone"),
            );
        }
        subnets.sort_by(|(a, _), (b, _)| {
            self.subnets[a.index()].zone.cmp(&self.subnets[b.index()].zone)
        });
        TransitAttachment {
            name: form.name.get().clone(),
            gateway,
            vpc,
            subnets: subnets.into_iter().map(|(id, _)| id).collect(),
            table,
            appliance_mode: form.appliance_mode,
        }
    }

    /// What is propagated, and over it what is static (semantics 1d).
    fn add_transit_routes(&mut self, index: usize) {
        let file = self.file;
        let form = &file.transit_gateway_route_tables[index];
        let gateway = self.transit_tables[index].gateway;
        let mut routes: JointPrefixMap<IpNet, (TransitTarget, Origin)> = JointPrefixMap::new();
        for reference in &form.propagations {
            let Some(id) = self.transit_attachment(gateway, reference) else { continue };
            let vpc = self.transit_attachments[id.index()].vpc;
            let Some(vpc) = self.vpcs.get(vpc.index()) else { continue };
            for cidr in &vpc.cidrs {
                let held = (TransitTarget::Attachment(id), Origin::EnableVgwRoutePropagation);
                // Of VPCs with equal ranges, the first that is named is reached.
                if !routes.contains_key(cidr) {
                    routes.insert(*cidr, held);
                }
            }
        }
        let mut places: HashMap<IpNet, Range<usize>> = HashMap::new();
        for route in &form.routes {
            let target = self.transit_route_target(gateway, route);
            let Some(destination) = self.accept(parse_cidr(&route.destination)) else { continue };
            if let Some(first) = places.get(&destination) {
                self.problems.push(
                    route
                        .destination
                        .problem(format!(
                            "table \"{}\" has two routes for {destination}",
                            form.name.get()
                        ))
                        .label("routed again here")
                        .and(first.clone(), "first routed here")
                        .help("a table has one route for each destination: remove one"),
                );
                continue;
            }
            places.insert(destination, route.destination.span());
            let target = target.unwrap_or(TransitTarget::Blackhole);
            routes.insert(destination, (target, Origin::CreateRoute));
        }
        self.transit_tables[index].routes = routes;
    }

    fn transit_route_target(
        &mut self,
        gateway: TransitGatewayId,
        route: &TransitRoute,
    ) -> Option<TransitTarget> {
        let blackhole = route.blackhole.as_ref().filter(|flag| ***flag);
        match (&route.attachment, blackhole) {
            (Some(reference), None) => {
                self.transit_attachment(gateway, reference).map(TransitTarget::Attachment)
            }
            (None, Some(_)) => Some(TransitTarget::Blackhole),
            (None, None) => {
                self.problems.push(
                    route
                        .destination
                        .problem("this route leads nowhere")
                        .label("a destination without a target")
                        .help("add one of: attachment = \"NAME\", blackhole = true"),
                );
                None
            }
            (Some(reference), Some(flag)) => {
                self.problems.push(
                    reference
                        .problem("this route has 2 targets: attachment, blackhole")
                        .label("one")
                        .and(flag.span(), "another")
                        .help("a route has exactly one target: keep one of them"),
                );
                None
            }
        }
    }

    fn transit_attachment(
        &mut self,
        gateway: TransitGatewayId,
        reference: &Located<String>,
    ) -> Option<TransitAttachmentId> {
        let known = &self.names.transit_attachments;
        let id: TransitAttachmentId =
            names::resolve(names::TRANSIT_ATTACHMENT, known, reference, &mut self.problems);
        let other = self.transit_attachments.get(id.index())?.gateway;
        if gateway.is_resolved() && other.is_resolved() && gateway != other {
            self.problems.push(
                Problem::at(
                    reference.span(),
                    format!("attachment \"{}\" is at another transit gateway", reference.get()),
                )
                .label(format!("it is at \"{}\"", self.transit_gateways[other.index()].name)),
            );
        }
        Some(id)
    }
}
