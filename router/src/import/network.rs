//! The network that the documents describe: what is there, what uses which table, and what is left
//! out because something it needs is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::gather::{name_of, unique, unique_of};
use super::input::{Input, Placed};
use super::note::Notes;
use super::routes::Row;
use super::shapes::{self, Shape, State};
use super::transit::Transit;

/// Everything by its id.
#[derive(Default)]
pub(super) struct Network {
    pub(super) vpcs: BTreeMap<String, Vpc>,
    pub(super) subnets: BTreeMap<String, Subnet>,
    pub(super) internet_gateways: BTreeMap<String, Gateway>,
    pub(super) egress_only: BTreeMap<String, Gateway>,
    pub(super) private_gateways: BTreeMap<String, Gateway>,
    pub(super) nat_gateways: BTreeMap<String, NatGateway>,
    /// All public addresses of NAT gateways, which are not those of machines.
    pub(super) addresses_of_nat: BTreeSet<Ipv4Addr>,
    pub(super) interfaces: BTreeMap<String, Interface>,
    /// The interfaces that routes lead to.
    pub(super) led_to: BTreeSet<String>,
    pub(super) endpoints: BTreeMap<String, Endpoint>,
    pub(super) other_endpoints: BTreeMap<String, OtherEndpoint>,
    pub(super) prefix_lists: BTreeMap<String, PrefixList>,
    pub(super) tables: BTreeMap<String, Table>,
    pub(super) transit: Transit,
    /// What else routes lead to, by the VPC and the id.
    pub(super) opaques: BTreeMap<(String, String), Opaque>,
}

pub(super) struct Vpc {
    pub(super) tag: Option<String>,
    pub(super) cidrs: Vec<IpNet>,
}

pub(super) struct Subnet {
    pub(super) tag: Option<String>,
    pub(super) vpc: String,
    pub(super) zone: String,
    pub(super) zone_id: Option<String>,
    pub(super) cidrs: Vec<IpNet>,
    /// The table that it is associated with. None: the main one.
    pub(super) table: Option<String>,
}

/// An internet gateway, one for egress only, or a virtual private gateway.
pub(super) struct Gateway {
    pub(super) tag: Option<String>,
    pub(super) vpc: String,
    /// The gateway (edge) table.
    pub(super) table: Option<String>,
    /// What it propagates.
    pub(super) learned: BTreeSet<IpNet>,
    /// The private address that each public one stands for.
    pub(super) addresses: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

pub(super) struct NatGateway {
    pub(super) tag: Option<String>,
    pub(super) subnet: String,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) public_address: Option<Ipv4Addr>,
}

pub(super) struct Interface {
    pub(super) tag: Option<String>,
    pub(super) subnet: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) drops_what_is_not_its_own: bool,
}

/// A Gateway Load Balancer endpoint.
pub(super) struct Endpoint {
    pub(super) tag: Option<String>,
    pub(super) subnet: String,
    pub(super) service: String,
    pub(super) address: Option<IpAddr>,
    /// Its state, where it is not the usual one.
    pub(super) unusual: Option<String>,
    /// Its state, if it carries no packets in it.
    pub(super) off: Option<String>,
}

/// An endpoint of another type, or one that no packet can go to.
pub(super) struct OtherEndpoint {
    pub(super) tag: Option<String>,
    pub(super) vpc: String,
    pub(super) kind: &'static str,
    pub(super) service: String,
    /// Why, where it is a Gateway Load Balancer endpoint nevertheless.
    pub(super) why: Option<String>,
    /// Its state, if it is one and carries no packets in it.
    pub(super) off: Option<String>,
}

pub(super) struct PrefixList {
    pub(super) tag: Option<String>,
    /// None: nobody says.
    pub(super) entries: Option<BTreeSet<IpNet>>,
}

pub(super) struct Table {
    pub(super) tag: Option<String>,
    pub(super) vpc: String,
    pub(super) main: bool,
    pub(super) propagating: BTreeSet<String>,
    pub(super) rows: Vec<Row>,
}

pub(super) struct Opaque {
    pub(super) tag: Option<String>,
    pub(super) kind: String,
    pub(super) comment: Option<String>,
}

/// Why something is left out.
const NO_VPC: &str =
    "left out, for their VPC is not in the output of `aws ec2 describe-vpcs` that was given";

impl Network {
    /// Everything but the routes and what uses the tables.
    pub(super) fn read(input: &mut Input<'_>, notes: &mut Notes) -> Network {
        let mut network = Network::default();
        network.read_vpcs(input, notes);
        network.read_subnets(input, notes);
        network.read_gateways(input, notes);
        network.read_nat_gateways(input, notes);
        network.read_interfaces(input, notes);
        network.read_endpoints(input, notes);
        network.read_prefix_lists(input, notes);
        network
    }

    fn read_vpcs(&mut self, input: &mut Input<'_>, notes: &mut Notes) {
        for (id, placed) in unique::<shapes::Vpc>(input, notes) {
            let vpc = placed.value;
            let ipv4 = vpc.cidr_block_association_set.iter();
            let mut cidrs: Vec<IpNet> = ipv4
                .filter(|range| State::is_associated(range.cidr_block_state.as_ref()))
                .map(|range| range.cidr_block.trunc())
                .collect();
            if vpc.cidr_block_association_set.is_empty() {
                cidrs.extend(vpc.cidr_block.map(|range| range.trunc()));
            }
            cidrs.extend(associated(&vpc.ipv6_cidr_block_association_set));
            if cidrs.is_empty() {
                input.problem_at(&placed.place, format!("VPC {id} has no addresses"), |problem| {
                    problem.label("none of its ranges is in the state \"associated\"")
                });
            }
            self.vpcs.insert(id, Vpc { tag: name_of(&vpc.tags), cidrs: distinct(cidrs) });
        }
    }

    fn read_subnets(&mut self, input: &mut Input<'_>, notes: &mut Notes) {
        let mut placed = input.resources::<shapes::Subnet>(notes);
        name_zones_by_id(&mut placed, notes);
        for (id, placed) in unique_of(placed, input) {
            let subnet = placed.value;
            if !self.has_vpc(&subnet.vpc_id, &id, shapes::Subnet::NOUN, notes) {
                continue;
            }
            let ipv4 = subnet.cidr_block.map(|range| range.trunc()).into_iter();
            let ipv6 = associated(&subnet.ipv6_cidr_block_association_set);
            let cidrs = distinct(ipv4.chain(ipv6).collect());
            if cidrs.is_empty() {
                input.problem_at(
                    &placed.place,
                    format!("subnet {id} has no addresses"),
                    |problem| {
                        problem.label(
                            "it has no CidrBlock, and no IPv6 range in the state \"associated\"",
                        )
                    },
                );
            }
            self.subnets.insert(
                id,
                Subnet {
                    tag: name_of(&subnet.tags),
                    vpc: subnet.vpc_id,
                    zone: subnet.availability_zone,
                    zone_id: subnet.availability_zone_id,
                    cidrs,
                    table: None,
                },
            );
        }
    }

    /// Whether the VPC is there. If not, what is in it is left out, and that is told.
    pub(super) fn has_vpc(&self, vpc: &str, id: &str, noun: &str, notes: &mut Notes) -> bool {
        let there = self.vpcs.contains_key(vpc);
        if !there {
            notes.add(format!("{noun}s {NO_VPC}"), format!("{id} of {vpc}"));
        }
        there
    }
}

fn associated(ranges: &[shapes::Ipv6Range]) -> impl Iterator<Item = IpNet> {
    ranges
        .iter()
        .filter(|range| State::is_associated(range.ipv6_cidr_block_state.as_ref()))
        .map(|range| range.ipv6_cidr_block.trunc())
}

/// Each once, in their order.
fn distinct(ranges: Vec<IpNet>) -> Vec<IpNet> {
    let mut met = BTreeSet::new();
    ranges.into_iter().filter(|range| met.insert(*range)).collect()
}

/// What an account calls "a" may be another's "b": where the names contradict each other, the ids,
/// which are everybody's, stand in their place.
fn name_zones_by_id(subnets: &mut [Placed<shapes::Subnet>], notes: &mut Notes) {
    let mut by_name: BTreeMap<&str, &str> = BTreeMap::new();
    let mut by_id: BTreeMap<&str, &str> = BTreeMap::new();
    let pairs = subnets.iter().filter_map(|placed| {
        let subnet = &placed.value;
        Some((subnet.availability_zone.as_str(), subnet.availability_zone_id.as_deref()?))
    });
    let mut contradict = false;
    for (name, id) in pairs {
        contradict |= *by_name.entry(name).or_insert(id) != id;
        contradict |= *by_id.entry(id).or_insert(name) != name;
    }
    if !contradict {
        return;
    }
    notes.say(
        "zones are named by their ids, for the accounts of the input do not mean the same zone by \
         the same name",
    );
    for placed in subnets {
        if let Some(id) = &placed.value.availability_zone_id {
            placed.value.availability_zone.clone_from(id);
        }
    }
}
