//! Gateway Load Balancer endpoints: their subnets, their ids on the wire, their addresses.

use std::collections::HashMap;
use std::ops::Range;

use super::super::{Endpoint, SubnetId};
use super::{Draft, names};
use crate::config;
use crate::source::{Located, Problem};

const OWNER: &str = "endpoint";

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
            let address =
                endpoint.address.as_ref().and_then(|text| self.address(OWNER, subnet, text));
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
            let Endpoint { subnet, ref mut addresses, .. } = self.endpoints[index];
            let mut addresses = std::mem::take(addresses);
            let place = &endpoint.subnet;
            self.fill_addresses((OWNER, &endpoint.name), subnet, place, &mut addresses, true);
            self.endpoints[index].addresses = addresses;
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
}
