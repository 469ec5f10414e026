//! The clouds' rules about which destination may lead to which target, in gateway tables and in
//! subnets' tables (semantics 1d and 2d). Each problem cites its rule.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::ids::Id;
use super::super::{InterfaceKind, Target, VpcId};
use super::Draft;
use super::space::list;
use crate::rules::{Rule, RuleSet};
use crate::source::{Located, Problem};

/// Where AWS's own services are, such as time and instance metadata.
const RESERVED_BY_AWS: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 168, 0), 22)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32)),
];

/// Where Alibaba Cloud's own services are.
const RESERVED_BY_ALIBABA: [IpNet; 1] =
    [IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10))];

impl Draft<'_> {
    /// The rule that a route breaks, if its table's VPC is understood well enough to tell.
    pub(super) fn broken_rule(
        &self,
        table: usize,
        text: &Located<String>,
        destination: IpNet,
        target: Target,
        target_place: Range<usize>,
    ) -> Option<Problem> {
        if let Some(problem) = self.reserved(text, destination) {
            return Some(problem);
        }
        let vpc = self.tables[table].vpc();
        if !vpc.is_resolved() || !self.whole[vpc.index()] {
            return None;
        }
        let place = self.place(vpc, destination);
        match &self.edge[table] {
            Some(gateway) => self
                .broken_edge_rule(vpc, text, destination, place, target, &target_place)
                .map(|problem| problem.and(gateway.clone(), "this makes it a gateway table")),
            None => self.broken_subnet_rule(vpc, text, destination, place, target, target_place),
        }
    }

    /// The rule that a route for a prefix list breaks.
    pub(super) fn broken_list_rule(
        &self,
        table: usize,
        list: &Located<String>,
        target: Target,
        target_place: Range<usize>,
    ) -> Option<Problem> {
        if let Some(gateway) = &self.edge[table]
            && Rule::EdgePrefixList.is_in(self.rules)
        {
            return Some(
                list.problem("a gateway table has no routes for prefix lists")
                    .label("a prefix list")
                    .and(gateway.clone(), "this makes it a gateway table")
                    .help("write a route for each subnet that is meant")
                    .rule(Rule::EdgePrefixList, self.rules),
            );
        }
        let inspected = matches!(target, Target::Endpoint(_) | Target::EndpointGroup(_));
        (inspected && Rule::PrefixListEndpoint.is_in(self.rules)).then(|| {
            list.problem("a route for a prefix list does not lead to an endpoint")
                .label("a prefix list")
                .and(target_place, "an endpoint")
                .help("write a route for each range of the list")
                .rule(Rule::PrefixListEndpoint, self.rules)
        })
    }

    fn broken_edge_rule(
        &self,
        vpc: VpcId,
        text: &Located<String>,
        destination: IpNet,
        place: Place,
        target: Target,
        target_place: &Range<usize>,
    ) -> Option<Problem> {
        let allowed = match target {
            Target::Local | Target::Endpoint(_) | Target::EndpointGroup(_) => true,
            Target::Interface(id) => self
                .interfaces
                .get(id.index())
                .is_none_or(|it| it.kind == InterfaceKind::NetworkInterface),
            _ => false,
        };
        if !allowed && Rule::EdgeTarget.is_in(self.rules) {
            return Some(
                Problem::at(
                    target_place.clone(),
                    "a gateway table leads only to endpoints, to interfaces and to local",
                )
                .label("not a target for packets that come in")
                .help("write endpoint = \"NAME\", interface = \"NAME\" or local = true")
                .rule(Rule::EdgeTarget, self.rules),
            );
        }
        if Rule::EdgeSystemEntry.is_in(self.rules) && place != Place::Subnet {
            return Some(
                text.problem(format!("{destination} is no entry of a gateway table"))
                    .label(self.where_it_is(vpc, destination, place))
                    .help(format!(
                        "it has one entry for each range of a subnet of the VPC{}",
                        self.nearest_subnet(vpc, destination),
                    ))
                    .rule(Rule::EdgeSystemEntry, self.rules),
            );
        }
        (!place.is_entire() && Rule::EdgeDestination.is_in(self.rules)).then(|| {
            text.problem(format!("{destination} is not a destination for a gateway table"))
                .label(self.where_it_is(vpc, destination, place))
                .help(format!(
                    "its destinations are a whole range of the VPC ({}) or of one of its subnets{}",
                    list(&self.vpcs[vpc.index()].cidrs),
                    self.nearest_subnet(vpc, destination),
                ))
                .rule(Rule::EdgeDestination, self.rules)
        })
    }

    /// A blackhole is ours: it loses packets, but it does not lead them anywhere.
    fn broken_subnet_rule(
        &self,
        vpc: VpcId,
        text: &Located<String>,
        destination: IpNet,
        place: Place,
        target: Target,
        target_place: Range<usize>,
    ) -> Option<Problem> {
        let name = &self.vpcs[vpc.index()].name;
        if place == Place::Outside && target == Target::Local {
            // Whatever the rules: local is where the VPC's own addresses are.
            return Some(
                Problem::at(target_place, format!("{destination} is not local to VPC \"{name}\""))
                    .label("local leads to the VPC's own subnets")
                    .help(format!("VPC \"{name}\" has {}", list(&self.vpcs[vpc.index()].cidrs))),
            );
        }
        if place == Place::Part && Rule::LocalDestination.is_in(self.rules) {
            return Some(
                text.problem(format!("{destination} is only a part of VPC \"{name}\""))
                    .label(self.where_it_is(vpc, destination, place))
                    .help(format!(
                        "a route within the VPC is for a whole range of it or of one of its \
                         subnets{}",
                        self.nearest_subnet(vpc, destination)
                    ))
                    .rule(Rule::LocalDestination, self.rules),
            );
        }
        let within_subnet = self.subnet_of[vpc.index()].get_lpm(&destination).is_some();
        if place == Place::Part && within_subnet && Rule::WithinSubnet.is_in(self.rules) {
            return Some(
                text.problem(format!("{destination} is only a part of a subnet"))
                    .label(self.where_it_is(vpc, destination, place))
                    .help(format!(
                        "a route is for a whole subnet, or for more{}",
                        self.nearest_subnet(vpc, destination)
                    ))
                    .rule(Rule::WithinSubnet, self.rules),
            );
        }
        let leads_out =
            matches!(target, Target::InternetGateway(_) | Target::Edge(_) | Target::Transit(_));
        if place.is_entire() && leads_out && Rule::LocalTarget.is_in(self.rules) {
            return Some(
                Problem::at(
                    target_place,
                    format!("the way out is not the way to addresses of VPC \"{name}\""),
                )
                .label(format!("{destination} is the VPC's own"))
                .help(
                    "a route within the VPC leads to an endpoint, an interface, a NAT gateway, to \
                     local or to a blackhole",
                )
                .rule(Rule::LocalTarget, self.rules),
            );
        }
        None
    }

    fn place(&self, vpc: VpcId, destination: IpNet) -> Place {
        let cidrs = &self.vpcs[vpc.index()].cidrs;
        if cidrs.contains(&destination) {
            Place::Vpc
        } else if self.subnet_of[vpc.index()].contains_key(&destination) {
            Place::Subnet
        } else if cidrs.iter().any(|cidr| cidr.contains(&destination)) {
            Place::Part
        } else {
            Place::Outside
        }
    }

    fn where_it_is(&self, vpc: VpcId, destination: IpNet, place: Place) -> String {
        let subnet = self.subnet_of[vpc.index()].get_lpm(&destination);
        match (place, subnet) {
            (Place::Outside, _) => {
                let name = &self.vpcs[vpc.index()].name;
                format!("reaches outside of VPC \"{name}\"")
            }
            (_, Some((range, id))) => {
                format!("a part of {range}, subnet \"{}\"", self.subnets[id.index()].name)
            }
            (_, None) => "neither the whole VPC nor a whole subnet".to_owned(),
        }
    }

    /// ", such as …": the subnet that was probably meant.
    fn nearest_subnet(&self, vpc: VpcId, destination: IpNet) -> String {
        let subnets = &self.subnet_of[vpc.index()];
        let around = subnets.get_lpm(&destination).map(|(range, id)| (range, *id));
        let within = || subnets.children(&destination).next().map(|(range, id)| (range, *id));
        around.or_else(within).map_or(String::new(), |(range, id)| {
            format!(", such as {range} of subnet \"{}\"", self.subnets[id.index()].name)
        })
    }

    /// "forbidden destinations: exact/subset of 169.254.168.0/22 and `fd00:ec2::/32`" (semantics
    /// 1d); "not 100.64.0.0/10 or subset" (semantics 2d).
    fn reserved(&self, text: &Located<String>, destination: IpNet) -> Option<Problem> {
        let ranges: &[IpNet] = match self.rules {
            RuleSet::Aws => &RESERVED_BY_AWS,
            RuleSet::Alibaba => &RESERVED_BY_ALIBABA,
            RuleSet::Linux => &[],
        };
        let range = ranges.iter().find(|range| range.contains(&destination))?;
        Some(
            text.problem(format!("no route can be for {destination}"))
                .label(format!("within {range}, where the cloud's own services are"))
                .help("leave it out; a route for a larger range that contains it is allowed")
                .rule(Rule::ReservedDestination, self.rules),
        )
    }
}

/// What a destination is to a VPC.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// One of its ranges, whole.
    Vpc,
    /// A range of one of its subnets, whole.
    Subnet,
    /// Within it, but neither.
    Part,
    /// Not within one of its ranges.
    Outside,
}

impl Place {
    fn is_entire(self) -> bool {
        matches!(self, Place::Vpc | Place::Subnet)
    }
}
