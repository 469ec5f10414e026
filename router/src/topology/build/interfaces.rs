//! Network interfaces and NAT gateways: their subnets and addresses.

use std::net::IpAddr;

use super::super::ids::Id;
use super::super::{AddressMapping, Interface, InterfaceKind, SubnetId};
use super::{Draft, names};
use crate::source::Located;

pub(super) const INTERFACE: &str = "network interface";
const NAT_GATEWAY: &str = "NAT gateway";

impl Draft<'_> {
    /// All interfaces, with the addresses that are written. The others come with those of
    /// endpoints, when it is known what is taken.
    pub(super) fn add_interfaces(&mut self) {
        let file = self.file;
        for interface in &file.network_interfaces {
            let subnet = self.subnet_for(&interface.subnet);
            let mut addresses: Vec<IpAddr> = Vec::new();
            for text in &interface.addresses {
                let Some(address) = self.address(INTERFACE, subnet, text) else { continue };
                if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                    self.problems.push(
                        text.problem("a network interface has one address of each family")
                            .label("one too many")
                            .help("what else its machine has needs no route of its own"),
                    );
                }
                addresses.push(address);
            }
            addresses.sort_unstable();
            self.add_interface(&interface.name, InterfaceKind::NetworkInterface, subnet, addresses);
        }
        for gateway in &file.nat_gateways {
            let subnet = self.subnet_for(&gateway.subnet);
            let address =
                gateway.address.as_ref().and_then(|text| self.address(NAT_GATEWAY, subnet, text));
            if let (Some(text), Some(IpAddr::V6(_))) = (&gateway.address, address) {
                // semantics 1d: "NatGateway (IPv4)"
                self.problems.push(
                    text.problem("a NAT gateway translates to an IPv4 address")
                        .label("an IPv6 address")
                        .help("IPv6 goes out through an egress-only internet gateway"),
                );
            }
            let vpc = self.subnets.get(subnet.index()).map(|subnet| subnet.vpc);
            let public = gateway.public_address.as_ref().zip(vpc);
            let public = public.and_then(|(text, vpc)| self.public_address(vpc, text));
            let kind = InterfaceKind::NatGateway { public: public.map(IpAddr::V4) };
            self.add_interface(&gateway.name, kind, subnet, address.into_iter().collect());
        }
    }

    /// Gives addresses to those that have none, and tells the internet gateways of the public
    /// addresses that stand for NAT gateways.
    pub(super) fn finish_interfaces(&mut self) {
        let file = self.file;
        let interfaces =
            file.network_interfaces.iter().map(|it| (INTERFACE, &it.name, &it.subnet, true));
        let nat_gateways =
            file.nat_gateways.iter().map(|it| (NAT_GATEWAY, &it.name, &it.subnet, false));
        for (index, (noun, name, place, with_ipv6)) in interfaces.chain(nat_gateways).enumerate() {
            let Interface { subnet, ref mut addresses, .. } = self.interfaces[index];
            let mut addresses = std::mem::take(addresses);
            self.fill_addresses((noun, name), subnet, place, &mut addresses, with_ipv6);
            if noun == NAT_GATEWAY && addresses.is_empty() && self.is_without_ipv4(subnet) {
                self.problems.push(
                    place
                        .problem(format!("NAT gateway \"{}\" has no IPv4 address", name.get()))
                        .label("a subnet without IPv4")
                        .help("put it into a subnet that has a range of IPv4 addresses"),
                );
            }
            self.interfaces[index].addresses = addresses;
        }
        for index in 0..self.interfaces.len() {
            let Interface { kind, subnet, ref addresses, .. } = self.interfaces[index];
            let InterfaceKind::NatGateway { public: Some(public) } = kind else { continue };
            let (Some(private), Some(subnet)) =
                (addresses.first().copied(), self.subnets.get(subnet.index()))
            else {
                continue;
            };
            let vpc = subnet.vpc;
            for gateway in self.gateways.iter_mut().filter(|gateway| gateway.vpc == vpc) {
                gateway.addresses.push(AddressMapping { public, private });
            }
        }
        for (index, interface) in self.interfaces.iter().enumerate() {
            let vpc = self.subnets.get(interface.subnet.index()).map(|subnet| subnet.vpc);
            let Some(of_vpc) = vpc.and_then(|vpc| self.interface_of.get_mut(vpc.index())) else {
                continue;
            };
            let id = Id::from_position(index);
            of_vpc.extend(interface.addresses.iter().map(|address| (*address, id)));
        }
    }

    /// The subnet that something is in.
    pub(super) fn subnet_for(&mut self, reference: &Located<String>) -> SubnetId {
        names::resolve(names::SUBNET, &self.names.subnets, reference, &mut self.problems)
    }

    fn add_interface(
        &mut self,
        name: &Located<String>,
        kind: InterfaceKind,
        subnet: SubnetId,
        addresses: Vec<IpAddr>,
    ) {
        let zone = self.subnets.get(subnet.index()).map_or(String::new(), |it| it.zone.clone());
        self.interfaces.push(Interface { name: name.get().clone(), kind, subnet, zone, addresses });
    }

    /// Whether a subnet has IPv6 alone.
    fn is_without_ipv4(&self, subnet: SubnetId) -> bool {
        subnet.is_resolved() && {
            let subnet = &self.subnets[subnet.index()];
            !subnet.cidrs.is_empty() && subnet.cidrs.iter().all(|cidr| cidr.addr().is_ipv6())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Topology;
    use crate::config;
    use crate::source::Source;

    fn problems(tables: &str) -> Vec<String> {
        let text = format!(
            r#"
            vpc = [{{ name = "app", cidrs = ["10.0.0.0/16"] }}]
            subnet = [{{ name = "fw", vpc = "app", zone = "a", cidrs = ["10.0.1.0/24"] }}]
            [[internet_gateway]]
            name = "igw"
            vpc = "app"
            addresses = [{{ public = "198.51.100.1", private = "10.0.1.4" }}]
            {tables}"#
        );
        let source = Source::new("t.toml", text);
        let built = config::parse(&source).and_then(|file| Topology::build(&file, &source));
        let told = |problem: &crate::source::Problem| problem.message().to_owned();
        built.err().map_or(Vec::new(), |problems| problems.iter().map(told).collect())
    }

    /// semantics 1d: an interface that a gateway table leads to must "have a public IP".
    #[test]
    fn a_machine_with_a_public_address_has_an_interface() {
        assert_eq!(problems(""), Vec::<String>::new());
        let interface = r#"
            [[network_interface]]
            name = "fw"
            subnet = "fw"
            addresses = ["10.0.1.4"]"#;
        assert_eq!(problems(interface), Vec::<String>::new());
        let second =
            interface.replace("\"fw\"\n            subnet", "\"fw-2\"\n            subnet");
        let taken = ["the address 10.0.1.4 is taken"];
        assert_eq!(problems(&format!("{interface}{second}")), taken);
        let endpoint = r#"
            [[endpoint]]
            name = "vpce"
            subnet = "fw"
            service = "inspection"
            address = "10.0.1.4""#;
        assert_eq!(problems(endpoint), taken);
        assert_eq!(problems(&endpoint.replace("address = \"10.0.1.4\"", "")), Vec::<String>::new());
    }
}
