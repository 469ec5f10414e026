//! Gateway Load Balancer endpoints: their subnets, their ids on the wire, their addresses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::super::ids::Id;
use super::super::{Endpoint, Subnet, SubnetId};
use super::cidr::{is_reserved, parse_address, successor};
use super::space::list;
use super::{Draft, names};
use crate::config;
use crate::source::{Located, Problem};

/// The wire id of an endpoint that has none in its configuration: FNV-1a with 64 bits over the
/// bytes of its name.
///
/// It has no key and no version, so that every gateway and every release gives an endpoint the
/// same id; two names with one id are refused when a topology is built.
///
/// ```
/// assert_eq!(router::derived_wire_id("foobar"), 0x8594_4171_f739_67e8);
/// ```
pub fn derived_wire_id(name: &str) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    name.bytes().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

impl Draft<'_> {
    /// All endpoints. Addresses that are written come first; the others get what is left.
    pub(super) fn add_endpoints(&mut self) {
        let file = self.file;
        let mut wire_ids: HashMap<u64, &config::Endpoint> = HashMap::new();
        for endpoint in &file.endpoints {
            let subnet: SubnetId = names::resolve(
                names::SUBNET,
                &self.names.subnets,
                &endpoint.subnet,
                &mut self.problems,
            );
            if endpoint.service.trim().is_empty() {
                self.problems.push(
                    endpoint
                        .service
                        .problem(format!("endpoint \"{}\" has no service", endpoint.name.get()))
                        .label("the name of the endpoint service is empty"),
                );
            }
            let wire_id = self.wire_id(endpoint, &mut wire_ids);
            let address = endpoint.address.as_ref().and_then(|text| self.address(subnet, text));
            self.endpoints.push(Endpoint {
                name: endpoint.name.get().clone(),
                subnet,
                zone: self
                    .subnets
                    .get(subnet.index())
                    .map_or(String::new(), |subnet| subnet.zone.clone()),
                service: endpoint.service.get().clone(),
                wire_id,
                addresses: address.into_iter().collect(),
            });
        }
        for (index, endpoint) in file.endpoints.iter().enumerate() {
            self.fill_addresses(index, endpoint);
        }
    }

    fn wire_id<'f>(
        &mut self,
        endpoint: &'f config::Endpoint,
        others: &mut HashMap<u64, &'f config::Endpoint>,
    ) -> u64 {
        let id = match &endpoint.wire_id {
            Some(text) => self.accept(parse_wire_id(text)),
            None => Some(derived_wire_id(&endpoint.name)),
        };
        let Some(id) = id else { return 0 };
        match others.get(&id) {
            // One name twice is told as that.
            Some(other) if other.name == endpoint.name => {}
            Some(other) => self.problems.push(
                Problem::at(
                    wire_id_place(endpoint),
                    format!(
                        "endpoints \"{}\" and \"{}\" have the same wire id",
                        other.name.get(),
                        endpoint.name.get()
                    ),
                )
                .label(format!("{id:#018x}{}", derived_note(endpoint)))
                .and(wire_id_place(other), format!("{id:#018x}{}", derived_note(other)))
                .help("appliances tell endpoints apart by it: give each a wire_id of its own"),
            ),
            None => drop(others.insert(id, endpoint)),
        }
        id
    }

    /// An address that is written, if the endpoint can have it.
    fn address(&mut self, subnet: SubnetId, text: &Located<String>) -> Option<IpAddr> {
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
                    .label("an endpoint's address is in its own subnet")
                    .help(format!("subnet \"{name}\" has {}", list(cidrs)));
                self.problems.push(problem);
            }
            return Some(address);
        };
        if is_reserved(range, address) {
            let problem = text
                .problem(format!("{address} is reserved in subnet \"{name}\""))
                .label("no endpoint can have this address")
                .help(format!("the first four addresses of {range} and the last are reserved"));
            self.problems.push(problem);
        } else if vpc.is_resolved() {
            self.take(vpc, address, text, "an endpoint has an address for itself");
        }
        Some(address)
    }

    /// Gives an endpoint the first free address of each family that its subnet has and it has not.
    fn fill_addresses(&mut self, index: usize, endpoint: &config::Endpoint) {
        let subnet = self.endpoints[index].subnet;
        if !subnet.is_resolved() {
            return;
        }
        for (family, is_ipv4) in [("IPv4", true), ("IPv6", false)] {
            let Subnet { name, vpc, cidrs, .. } = &self.subnets[subnet.index()];
            let vpc = *vpc;
            let has = |address: &IpAddr| address.is_ipv4() == is_ipv4;
            let mut ranges = cidrs.iter().filter(|cidr| has(&cidr.addr())).peekable();
            if self.endpoints[index].addresses.iter().any(has) || ranges.peek().is_none() {
                continue;
            }
            let free =
                ranges.flat_map(usable).find(|address| !self.taken.contains_key(&(vpc, *address)));
            if let Some(address) = free {
                self.taken.insert((vpc, address), endpoint.name.span());
                self.endpoints[index].addresses.push(address);
                // IPv4 first, whichever was written.
                self.endpoints[index].addresses.sort_unstable();
            } else {
                let problem = endpoint
                    .subnet
                    .problem(format!("subnet \"{name}\" has no free {family} address"))
                    .label(format!("for endpoint \"{}\"", endpoint.name.get()))
                    .help("the first four addresses of each range and the last are reserved");
                self.problems.push(problem);
            }
        }
    }
}

/// The addresses of a range that are not reserved, in order.
fn usable(range: &IpNet) -> impl Iterator<Item = IpAddr> {
    let range = *range;
    std::iter::successors(Some(range.network()), |address| successor(*address))
        .skip(4)
        .take_while(move |address| range.contains(address) && !is_reserved(&range, *address))
}

fn parse_wire_id(text: &Located<String>) -> Result<u64, Problem> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text.as_str(), 10),
    };
    // The digits alone: `from_str_radix` also reads "+1".
    let digits = Some(digits).filter(|digits| digits.chars().all(|c| c.is_digit(radix)));
    digits.and_then(|digits| u64::from_str_radix(digits, radix).ok()).ok_or_else(|| {
        text.problem(format!("\"{}\" is not a number of 64 bits", text.get()))
            .label("not a wire id")
            .help("write it like \"0x0123456789abcdef\"; without it, the name decides")
    })
}

fn wire_id_place(endpoint: &config::Endpoint) -> Range<usize> {
    endpoint.wire_id.as_ref().map_or(endpoint.name.span(), Located::span)
}

fn derived_note(endpoint: &config::Endpoint) -> &'static str {
    if endpoint.wire_id.is_some() { "" } else { ", derived from the name" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_are_fnv_1a() {
        // The test vectors of the FNV authors.
        for (name, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            assert_eq!(derived_wire_id(name), hash, "{name}");
        }
    }

    #[test]
    fn wire_ids_are_hexadecimal_or_decimal() {
        let parse = |text: &str| parse_wire_id(&Located::new(text.to_owned(), 0..text.len())).ok();
        assert_eq!(parse("0x0123456789abcdef"), Some(0x0123_4567_89ab_cdef));
        assert_eq!(parse("0XFFFFFFFFFFFFFFFF"), Some(u64::MAX));
        assert_eq!(parse("42"), Some(42));
        for bad in ["", "0x", "0x10000000000000000", "-1", "+1", "0x+1", "abc", "1_000"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

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
