//! The addresses of endpoints and interfaces in their subnets: those that are written, and the first
//! free ones for the others.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::ids::Id;
use super::super::{Subnet, SubnetId};
use super::Draft;
use super::cidr::{is_reserved, parse_address, successor};
use super::interfaces::INTERFACE;
use super::space::list;
use crate::source::Located;

impl Draft<'_> {
    /// An address that is written, if its owner, such as an endpoint, can have it.
    pub(super) fn address(
        &mut self,
        owner: &str,
        subnet: SubnetId,
        text: &Located<String>,
    ) -> Option<IpAddr> {
        let address = self.accept(parse_address(text))?;
        if !subnet.is_resolved() {
            return Some(address);
        }
        let Subnet { name, vpc, cidrs, .. } = &self.subnets[subnet.index()];
        let vpc = *vpc;
        let Some(range) = cidrs.iter().find(|cidr| cidr.contains(&address)) else {
            // It may be in a range that was not understood.
            if cidrs.len() == self.file.subnets[subnet.index()].cidrs.len() {
                let problem = text
                    .problem(format!("{address} is outside of subnet \"{name}\""))
                    .label(format!(
                        "the address of {} {owner} is in its own subnet",
                        article(owner)
                    ))
                    .help(format!("subnet \"{name}\" has {}", list(cidrs)));
                self.problems.push(problem);
            }
            return Some(address);
        };
        if is_reserved(range, address) {
            let problem = text
                .problem(format!("{address} is reserved in subnet \"{name}\""))
                .label(format!("no {owner} can have this address"))
                .help(format!("the first four addresses of {range} and the last are reserved"));
            self.problems.push(problem);
        } else if vpc.is_resolved() {
            let label = format!("{} {owner} has an address for itself", article(owner));
            self.take(vpc, address, text, &label, owner == INTERFACE);
        }
        Some(address)
    }

    /// Gives the owner of a name the first free address of each family that its subnet has and it has
    /// not.
    pub(super) fn fill_addresses(
        &mut self,
        (owner, name): (&str, &Located<String>),
        subnet: SubnetId,
        subnet_place: &Located<String>,
        addresses: &mut Vec<IpAddr>,
        with_ipv6: bool,
    ) {
        if !subnet.is_resolved() {
            return;
        }
        let families = [("IPv4", true), ("IPv6", false)];
        for (family, is_ipv4) in families.into_iter().take(1 + usize::from(with_ipv6)) {
            let Subnet { name: subnet_name, vpc, cidrs, .. } = &self.subnets[subnet.index()];
            let vpc = *vpc;
            let has = |address: &IpAddr| address.is_ipv4() == is_ipv4;
            let mut ranges = cidrs.iter().filter(|cidr| has(&cidr.addr())).peekable();
            if addresses.iter().any(has) || ranges.peek().is_none() {
                continue;
            }
            let is_free = |address: &IpAddr| {
                let key = (vpc, *address);
                !self.taken.contains_key(&key) && !self.mapped.contains_key(&key)
            };
            let free = ranges.flat_map(usable).find(is_free);
            if let Some(address) = free {
                self.taken.insert((vpc, address), name.span());
                addresses.push(address);
                // IPv4 first, whichever was written.
                addresses.sort_unstable();
            } else {
                let problem = subnet_place
                    .problem(format!("subnet \"{subnet_name}\" has no free {family} address"))
                    .label(format!("for {owner} \"{}\"", name.get()))
                    .help("the first four addresses of each range and the last are reserved");
                self.problems.push(problem);
            }
        }
    }
}

/// As in "an endpoint".
fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// The addresses of a range that are not reserved, in order.
fn usable(range: &IpNet) -> impl Iterator<Item = IpAddr> {
    let range = *range;
    std::iter::successors(Some(range.network()), |address| successor(*address))
        .skip(4)
        .take_while(move |address| range.contains(address) && !is_reserved(&range, *address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ranges_have_no_usable_address() {
        let count = |range: &str| usable(&range.parse().unwrap()).take(20).count();
        assert_eq!(count("10.0.0.0/28"), 11);
        assert_eq!(count("10.0.0.0/29"), 3);
        for range in ["10.0.0.0/30", "10.0.0.0/31", "10.0.0.0/32", "255.255.255.255/32"] {
            assert_eq!(count(range), 0, "{range}");
        }
    }
}
