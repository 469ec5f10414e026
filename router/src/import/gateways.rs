//! Gateways, NAT gateways and network interfaces, with their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::gather::{name_of, unique};
use super::input::Input;
use super::network::{Gateway, Interface, NatGateway, Network, Subnet};
use super::note::Notes;
use super::shapes::{self, Shape, Tag, VpcAttachment};

impl Network {
    pub(super) fn read_gateways(&mut self, input: &mut Input<'_>, notes: &mut Notes) {
        for (id, placed) in unique::<shapes::InternetGateway>(input, notes) {
            let gateway = placed.value;
            let noun = shapes::InternetGateway::NOUN;
            let gateway = self.gateway(&id, noun, &gateway.tags, &gateway.attachments, notes);
            self.internet_gateways.extend(gateway.map(|gateway| (id, gateway)));
        }
        for (id, placed) in unique::<shapes::EgressOnlyInternetGateway>(input, notes) {
            let gateway = placed.value;
            let noun = shapes::EgressOnlyInternetGateway::NOUN;
            let gateway = self.gateway(&id, noun, &gateway.tags, &gateway.attachments, notes);
            self.egress_only.extend(gateway.map(|gateway| (id, gateway)));
        }
        for (id, placed) in unique::<shapes::VpnGateway>(input, notes) {
            let gateway = placed.value;
            let noun = shapes::VpnGateway::NOUN;
            let gateway = self.gateway(&id, noun, &gateway.tags, &gateway.vpc_attachments, notes);
            self.private_gateways.extend(gateway.map(|gateway| (id, gateway)));
        }
    }

    fn gateway(
        &self,
        id: &str,
        noun: &str,
        tags: &[Tag],
        attachments: &[VpcAttachment],
        notes: &mut Notes,
    ) -> Option<Gateway> {
        let Some(vpc) = VpcAttachment::vpc(attachments) else {
            notes.add(format!("{noun}s left out, for they are attached to no VPC"), id);
            return None;
        };
        self.has_vpc(vpc, id, noun, notes).then(|| Gateway::new(name_of(tags), vpc))
    }

    /// Interfaces come before what uses their addresses.
    pub(super) fn read_interfaces(&mut self, input: &mut Input<'_>, notes: &mut Notes) {
        for (id, placed) in unique::<shapes::NetworkInterface>(input, notes) {
            let interface = placed.value;
            let Some((subnet, vpc)) = interface.subnet_id.and_then(|id| {
                let vpc = self.subnets.get(&id)?.vpc.clone();
                Some((id, vpc))
            }) else {
                continue;
            };
            // A NAT gateway tells its own.
            if interface.interface_type.as_deref() != Some("nat_gateway") {
                for address in &interface.private_ip_addresses {
                    let association = address.association.as_ref();
                    if let Some(public) = association.and_then(|told| told.public_ip) {
                        self.map_address(public, address.private_ip_address, &vpc, notes);
                    }
                }
            }
            let ipv4 = interface.private_ip_address.map(IpAddr::V4);
            let ipv6 = interface.ipv6_addresses.first().map(|address| address.ipv6_address.into());
            self.interfaces.insert(
                id,
                Interface {
                    tag: name_of(&interface.tag_set),
                    subnet,
                    addresses: ipv4.into_iter().chain(ipv6).collect(),
                    drops_what_is_not_its_own: interface.source_dest_check == Some(true),
                },
            );
        }
        for (public, placed) in unique::<shapes::Address>(input, notes) {
            let address = placed.value;
            let (Ok(public), Some(IpAddr::V4(private))) =
                (public.parse(), address.private_ip_address)
            else {
                continue;
            };
            let interface = address.network_interface_id.unwrap_or_default();
            let is_told =
                self.interfaces.contains_key(&interface) || self.addresses_of_nat.contains(&public);
            if !is_told {
                self.place_address(public, private, notes);
            }
        }
    }

    /// An elastic address of which only the private address is known: it is of the VPC that has a
    /// subnet for it, if only one has.
    fn place_address(&mut self, public: Ipv4Addr, private: Ipv4Addr, notes: &mut Notes) {
        let about = format!("{public} = {private}");
        let holds =
            |subnet: &&Subnet| subnet.cidrs.iter().any(|cidr| cidr.contains(&IpAddr::V4(private)));
        let owners = self.subnets.values().filter(holds).map(|subnet| subnet.vpc.clone());
        let owners: Vec<String> = owners.collect::<BTreeSet<String>>().into_iter().collect();
        if let [vpc] = owners.as_slice() {
            let what = "elastic addresses whose VPC is known only by their private address; `aws \
                        ec2 describe-network-interfaces` tells for certain";
            notes.add(what, about);
            self.map_address(public, private, vpc, notes);
        } else {
            let what = "elastic addresses left out, for it is not known which subnet has the \
                        private one: `aws ec2 describe-network-interfaces` and `describe-subnets` \
                        tell";
            notes.add(what, about);
        }
    }

    /// Has the VPC's internet gateway translate an address.
    fn map_address(&mut self, public: Ipv4Addr, private: Ipv4Addr, vpc: &str, notes: &mut Notes) {
        let gateway = self.internet_gateways.values_mut().find(|gateway| gateway.vpc == vpc);
        let Some(gateway) = gateway else {
            let what = "public addresses left out, for their VPC has no internet gateway";
            notes.add(what, format!("{public} = {private}"));
            return;
        };
        if gateway.addresses.values().all(|taken| *taken != private) {
            gateway.addresses.entry(public).or_insert(private);
        }
    }

    pub(super) fn read_nat_gateways(&mut self, input: &mut Input<'_>, notes: &mut Notes) {
        for (id, placed) in unique::<shapes::NatGateway>(input, notes) {
            let nat = placed.value;
            if matches!(nat.state.as_deref(), Some("deleted" | "failed")) {
                continue;
            }
            if !self.has_vpc(&nat.vpc_id, &id, shapes::NatGateway::NOUN, notes) {
                continue;
            }
            let Some(subnet) = nat.subnet_id.filter(|id| self.subnets.contains_key(id)) else {
                let what = "NAT gateways that are opaque, for they are in no subnet (regional \
                            ones), or it is not in the output of `aws ec2 describe-subnets`";
                notes.add(what, id);
                continue;
            };
            let is_primary = |address: &&shapes::NatAddress| address.is_primary != Some(false);
            let address = nat.nat_gateway_addresses.iter().find(is_primary);
            let public_address = address.and_then(|address| address.public_ip);
            let all = nat.nat_gateway_addresses.iter();
            self.addresses_of_nat.extend(all.filter_map(|address| address.public_ip));
            self.nat_gateways.insert(
                id,
                NatGateway {
                    tag: name_of(&nat.tags),
                    subnet,
                    address: address.and_then(|address| address.private_ip),
                    public_address,
                },
            );
        }
    }
}

impl Gateway {
    pub(super) fn new(tag: Option<String>, vpc: &str) -> Gateway {
        Gateway {
            tag,
            vpc: vpc.to_owned(),
            table: None,
            learned: BTreeSet::new(),
            addresses: BTreeMap::new(),
        }
    }
}
