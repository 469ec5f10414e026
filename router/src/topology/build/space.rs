//! The address space: the ranges of VPCs, and those of subnets within them.

use ipnet::IpNet;

use super::super::ids::Id;
use super::super::{Subnet, SubnetId, TableId, Vpc, VpcId};
use super::cidr::{overlaps, parse_cidr};
use super::{Draft, names};
use crate::source::{Located, Problem};

/// A range of the file: whose it is, and where it stands.
type Place<'f> = (usize, &'f Located<String>);

impl Draft<'_> {
    /// VPCs may overlap each other: each is an address space of its own. Their own ranges may not.
    pub(super) fn add_vpcs(&mut self) {
        let file = self.file;
        for (index, vpc) in file.vpcs.iter().enumerate() {
            let ranges = self.ranges(index, &vpc.cidrs, &vpc.name, "VPC");
            self.whole[index] = ranges.len() == vpc.cidrs.len();
            for pair in overlaps(ranges.clone()) {
                self.problems.push(overlap(pair, |_| format!("VPC \"{}\"", vpc.name.get())));
            }
            self.vpcs.push(Vpc {
                name: vpc.name.get().clone(),
                cidrs: ranges.into_iter().map(|(range, _)| range).collect(),
                main_table: TableId::UNRESOLVED,
            });
        }
    }

    /// Subnets lie within their VPC and do not overlap there. Their tables come later.
    pub(super) fn add_subnets(&mut self) {
        let file = self.file;
        let mut by_vpc: Vec<Vec<(IpNet, Place<'_>)>> = vec![Vec::new(); file.vpcs.len()];
        for (index, subnet) in file.subnets.iter().enumerate() {
            let vpc: VpcId =
                names::resolve(names::VPC, &self.names.vpcs, &subnet.vpc, &mut self.problems);
            let ranges = self.ranges(index, &subnet.cidrs, &subnet.name, "subnet");
            if vpc.is_resolved() {
                for (range, (_, text)) in &ranges {
                    self.check_within(vpc, *range, text);
                }
                by_vpc[vpc.index()].extend(&ranges);
                self.whole[vpc.index()] &= ranges.len() == subnet.cidrs.len();
            } else {
                // It may belong to any of them.
                self.whole.fill(false);
            }
            if subnet.zone.trim().is_empty() {
                self.problems.push(
                    subnet
                        .zone
                        .problem(format!("subnet \"{}\" is in no zone", subnet.name.get()))
                        .label("the zone has no name")
                        .help("any name will do, such as \"az1\""),
                );
            }
            self.subnets.push(Subnet {
                name: subnet.name.get().clone(),
                vpc,
                zone: subnet.zone.get().clone(),
                cidrs: ranges.into_iter().map(|(range, _)| range).collect(),
                table: TableId::UNRESOLVED,
            });
        }
        for (vpc, ranges) in by_vpc.into_iter().enumerate() {
            for (range, (subnet, _)) in &ranges {
                self.subnet_of[vpc].insert(*range, SubnetId::from_position(*subnet));
            }
            for pair in overlaps(ranges) {
                let name =
                    |subnet: usize| format!("subnet \"{}\"", file.subnets[subnet].name.get());
                self.problems.push(overlap(pair, name));
            }
        }
    }

    /// The ranges that can be read; problems for the others, and for none at all.
    fn ranges<'f>(
        &mut self,
        owner: usize,
        cidrs: &'f [Located<String>],
        name: &Located<String>,
        noun: &str,
    ) -> Vec<(IpNet, Place<'f>)> {
        if cidrs.is_empty() {
            self.problems.push(
                name.problem(format!("{noun} \"{}\" has no addresses", name.get()))
                    .label("its `cidrs` is empty")
                    .help("write at least one range, such as cidrs = [\"10.0.0.0/16\"]"),
            );
        }
        let read = |text| self.accept(parse_cidr(text)).map(|range| (range, (owner, text)));
        cidrs.iter().filter_map(read).collect()
    }

    fn check_within(&mut self, vpc: VpcId, range: IpNet, text: &Located<String>) {
        let owner = &self.vpcs[vpc.index()];
        let within = owner.cidrs.iter().any(|cidr| cidr.contains(&range));
        if within || !self.whole[vpc.index()] {
            return;
        }
        let larger = owner.cidrs.iter().find(|cidr| range.contains(*cidr));
        let message = match larger {
            Some(cidr) => {
                format!("{range} is larger than {cidr}, the range of VPC \"{}\"", owner.name)
            }
            None => format!("{range} is outside of VPC \"{}\"", owner.name),
        };
        self.problems.push(
            text.problem(message).label("a subnet lies within one range of its VPC").help(format!(
                "VPC \"{}\" has {}",
                owner.name,
                list(&owner.cidrs)
            )),
        );
    }
}

/// Ranges, for a reader.
pub(super) fn list(ranges: &[IpNet]) -> String {
    ranges.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ")
}

fn overlap(
    (a, b): ((IpNet, Place<'_>), (IpNet, Place<'_>)),
    owner: impl Fn(usize) -> String,
) -> Problem {
    // The later one of the file is the one that does not fit.
    let (first, second) = if a.1.1.span().start <= b.1.1.span().start { (a, b) } else { (b, a) };
    let (first_owner, second_owner) = (owner(first.1.0), owner(second.1.0));
    let message = if first_owner == second_owner {
        format!("two ranges of {second_owner} overlap")
    } else {
        format!("{second_owner} overlaps {first_owner}")
    };
    let label = match (first.0 == second.0, second.0.contains(&first.0)) {
        (true, _) => "the same range again".to_owned(),
        (false, true) => format!("this contains {}", first.0),
        (false, false) => format!("this is within {}", first.0),
    };
    second.1.1.problem(message).label(label).and(first.1.1.span(), "the other range")
}
