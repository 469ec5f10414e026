//! Where routes lead: to what is known, or to what is opaque.

use std::collections::BTreeMap;

use super::network::{Gateway, Network, Opaque};
use super::note::Notes;
use super::routes::{Destination, Target};
use super::shapes::Route;

/// The members of a route that say something of it besides its target.
pub(super) const NO_TARGETS: [&str; 2] = ["InstanceOwnerId", "IpAddress"];

/// The targets that the API names, each with what it is. A machine stands behind its interface,
/// which comes first.
pub(super) const TARGETS: [(&str, &str); 12] = [
    ("NetworkInterfaceId", "network_interface"),
    ("GatewayId", "gateway"),
    ("VpcEndpointId", "vpc_endpoint"),
    ("NatGatewayId", "nat_gateway"),
    ("EgressOnlyInternetGatewayId", "egress_only_internet_gateway"),
    ("TransitGatewayId", "transit_gateway"),
    ("VpcPeeringConnectionId", "vpc_peering_connection"),
    ("LocalGatewayId", "local_gateway"),
    ("CarrierGatewayId", "carrier_gateway"),
    ("CoreNetworkArn", "core_network"),
    ("OdbNetworkArn", "odb_network"),
    ("InstanceId", "instance"),
];

impl Network {
    /// The member that says where a route leads, what it is, and the id.
    pub(super) fn written_target(&self, route: &Route) -> Option<(String, String, String)> {
        let text = |member: &str| route.others.get(member)?.as_str().map(str::to_owned);
        let known = TARGETS
            .iter()
            .find_map(|(member, kind)| Some(((*member).to_owned(), *kind, text(member)?)));
        if let Some((member, kind, id)) = known {
            let kind = if kind == "gateway" { self.kind_of_gateway(&id) } else { kind };
            return Some((member, kind.to_owned(), id));
        }
        // A kind of target that is newer than this version.
        route.others.iter().find_map(|(member, value)| {
            let id = value.as_str().filter(|_| !NO_TARGETS.contains(&member.as_str()))?;
            Some((member.clone(), kind_of_member(member), id.to_owned()))
        })
    }

    /// `GatewayId` may be many things.
    fn kind_of_gateway(&self, id: &str) -> &'static str {
        match id.split('-').next() {
            Some("igw") => "internet_gateway",
            Some("vgw") => "virtual_private_gateway",
            Some("vpce") => self.other_endpoints.get(id).map_or("vpc_endpoint", |other| other.kind),
            Some("cagw") => "carrier_gateway",
            Some("lgw") => "local_gateway",
            _ => "gateway",
        }
    }

    pub(super) fn target(
        &mut self,
        vpc: &str,
        member: &str,
        kind: &str,
        to: &str,
        destination: &Destination,
        notes: &mut Notes,
    ) -> Target {
        let id = to.to_owned();
        let in_vpc = |network: &Network, subnet: &str| {
            network.subnets.get(subnet).is_some_and(|subnet| subnet.vpc == vpc)
        };
        let missing = match kind {
            "internet_gateway" if self.internet_gateway(to, vpc, notes) => {
                return Target::InternetGateway(id);
            }
            "virtual_private_gateway" if self.private_gateway(to, vpc, notes) => {
                return Target::PrivateGateway(id);
            }
            "egress_only_internet_gateway" if self.egress_only(to, vpc, notes) => {
                return Target::EgressOnly(id);
            }
            "vpc_endpoint" => match self.endpoints.get(to) {
                Some(endpoint) if in_vpc(self, &endpoint.subnet) => return Target::Endpoint(id),
                _ => Some("describe-vpc-endpoints"),
            },
            "nat_gateway" => match self.nat_gateways.get(to) {
                // Those of IPv6 lead to it to be translated to IPv4, which the form does not have.
                Some(_) if destination.is_ipv6() => {
                    notes.add(NAT64, format!("{} to {to}", destination.text()));
                    None
                }
                Some(nat) if in_vpc(self, &nat.subnet) => return Target::NatGateway(id),
                _ => Some("describe-nat-gateways"),
            },
            "network_interface" => match self.interfaces.get(to) {
                Some(interface) if in_vpc(self, &interface.subnet) => {
                    if interface.drops_what_is_not_its_own {
                        let what = "routes lead to network interfaces that drop what is not their \
                                    own: SourceDestCheck is on";
                        notes.add(what, to);
                    }
                    self.led_to.insert(id.clone());
                    return Target::Interface(id);
                }
                _ => Some("describe-network-interfaces"),
            },
            "transit_gateway" => {
                if self.transit.is_attached(to, vpc) {
                    return Target::TransitGateway(id);
                }
                notes.add(super::transit::OPAQUE, to);
                None
            }
            _ => None,
        };
        if let Some(command) = missing {
            let what = format!(
                "opaque, known by id alone, for the output of `aws ec2 {command}` is not given or \
                 does not have it in the VPC and in use"
            );
            notes.add(what, to);
        } else if !matches!(kind, "transit_gateway" | "nat_gateway") {
            notes.add(format!("opaque: {}s", kind.replace('_', " ")), to);
        }
        self.opaque(vpc, member, kind, to);
        Target::Opaque(id)
    }

    fn opaque(&mut self, vpc: &str, member: &str, kind: &str, id: &str) {
        let endpoint = self.other_endpoints.get(id);
        let (tag, comment) = match endpoint {
            Some(endpoint) => (endpoint.tag.clone(), Some(endpoint.service.clone())),
            None if TARGETS.iter().any(|(known, _)| *known == member) => (None, None),
            None => (None, Some(format!("{member} of a route"))),
        };
        self.opaques.entry((vpc.to_owned(), id.to_owned())).or_insert(Opaque {
            tag,
            kind: kind.to_owned(),
            comment,
        });
    }

    /// Whether this is the VPC's. A gateway that the input does not have is known well enough by
    /// what uses it: it is attached to that VPC, or the route would be a blackhole.
    pub(super) fn internet_gateway(&mut self, id: &str, vpc: &str, notes: &mut Notes) -> bool {
        id.starts_with("igw-")
            && attached(&mut self.internet_gateways, id, vpc, "describe-internet-gateways", notes)
    }

    pub(super) fn private_gateway(&mut self, id: &str, vpc: &str, notes: &mut Notes) -> bool {
        id.starts_with("vgw-")
            && attached(&mut self.private_gateways, id, vpc, "describe-vpn-gateways", notes)
    }

    fn egress_only(&mut self, id: &str, vpc: &str, notes: &mut Notes) -> bool {
        let command = "describe-egress-only-internet-gateways";
        attached(&mut self.egress_only, id, vpc, command, notes)
    }
}

const NAT64: &str = "routes that lead IPv6 to a NAT gateway to be translated: the gateway is opaque \
                     for them";

fn attached(
    gateways: &mut BTreeMap<String, Gateway>,
    id: &str,
    vpc: &str,
    command: &str,
    notes: &mut Notes,
) -> bool {
    if let Some(gateway) = gateways.get(id) {
        return gateway.vpc == vpc;
    }
    let what = format!(
        "known only from route tables, for the output of `aws ec2 {command}` does not have it"
    );
    notes.add(what, id);
    gateways.insert(id.to_owned(), Gateway::new(None, vpc));
    true
}

/// `QuantumLinkId` → `quantum_link`.
fn kind_of_member(member: &str) -> String {
    let stem = member.strip_suffix("Id").or(member.strip_suffix("Arn")).unwrap_or(member);
    let mut kind = String::new();
    for c in stem.chars() {
        if c.is_ascii_uppercase() && !kind.is_empty() {
            kind.push('_');
        }
        kind.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    if kind.is_empty() { "unknown".to_owned() } else { kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_from_the_names_of_members() {
        for (member, kind) in [
            ("QuantumLinkId", "quantum_link"),
            ("OdbNetworkArn", "odb_network"),
            ("Somewhere", "somewhere"),
            ("Id", "unknown"),
        ] {
            assert_eq!(kind_of_member(member), kind);
        }
    }
}
