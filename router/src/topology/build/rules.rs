//! The clouds' rules about which destination may lead to which target, in gateway tables and in
//! subnets' tables (semantics 1d).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::ids::Id;
use super::super::{Target, VpcId};
use super::Draft;
use super::space::list;
use crate::source::{Located, Problem};

/// Where AWS's own services are, such as time and instance metadata.
const RESERVED: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 168, 0), 22)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32)),
];

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
        if let Some(problem) = reserved(text, destination) {
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

    /// "destinations only the entire VPC CIDR or the entire CIDR of a subnet"; "routes only to
    /// local, ENI, GWLBE".
    fn broken_edge_rule(
        &self,
        vpc: VpcId,
        text: &Located<String>,
        destination: IpNet,
        place: Place,
        target: Target,
        target_place: &Range<usize>,
    ) -> Option<Problem> {
        if !matches!(target, Target::Local | Target::Endpoint(_)) {
            return Some(
                Problem::at(
                    target_place.clone(),
                    "a gateway table leads only to endpoints and to local",
                )
                .label("not a target for packets from the internet")
                .help("write endpoint = \"NAME\" or local = true"),
            );
        }
        (!place.is_entire()).then(|| {
            text.problem(format!("{destination} is not a destination for a gateway table"))
                .label(self.where_it_is(vpc, destination, place))
                .help(format!(
                    "its destinations are a whole range of the VPC ({}) or of one of its subnets{}",
                    list(&self.vpcs[vpc.index()].cidrs),
                    self.nearest_subnet(vpc, destination),
                ))
        })
    }

    /// "more specific than local: destination must equal the whole CIDR of a subnet of the VPC and
    /// target must be NAT gw, ENI or GWLBE". A blackhole is ours: it loses packets, but it does
    /// not lead them anywhere.
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
        match (place, target) {
            (Place::Outside, Target::Local) => Some(
                Problem::at(target_place, format!("{destination} is not local to VPC \"{name}\""))
                    .label("local leads to the VPC's own subnets")
                    .help(format!("VPC \"{name}\" has {}", list(&self.vpcs[vpc.index()].cidrs))),
            ),
            (Place::Part, _) => Some(
                text.problem(format!("{destination} is only a part of VPC \"{name}\""))
                    .label(self.where_it_is(vpc, destination, place))
                    .help(format!(
                        "a route within the VPC is for a whole range of it or of one of its \
                         subnets{}",
                        self.nearest_subnet(vpc, destination)
                    )),
            ),
            (Place::Vpc | Place::Subnet, Target::InternetGateway(_)) => Some(
                Problem::at(
                    target_place,
                    format!("the internet is not the way to addresses of VPC \"{name}\""),
                )
                .label(format!("{destination} is the VPC's own"))
                .help("a route within the VPC leads to an endpoint, to local or to a blackhole"),
            ),
            (Place::Outside | Place::Vpc | Place::Subnet, _) => None,
        }
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
}

/// "forbidden destinations: exact/subset of 169.254.168.0/22 and `fd00:ec2::/32`" (semantics 1d).
fn reserved(text: &Located<String>, destination: IpNet) -> Option<Problem> {
    let range = RESERVED.iter().find(|range| range.contains(&destination))?;
    Some(
        text.problem(format!("no route can be for {destination}"))
            .label(format!("within {range}, where the cloud's own services are"))
            .help("leave it out; a route for a larger range that contains it is allowed"),
    )
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
