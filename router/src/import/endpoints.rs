//! VPC endpoints, and the prefix lists that those of gateways are reached by.

use ipnet::IpNet;

use super::gather::{name_of, owned, unique};
use super::input::Input;
use super::network::{Endpoint, Network, OtherEndpoint, PrefixList};
use super::note::Notes;
use super::shapes::{self, Shape};

/// What a Gateway Load Balancer endpoint is called where it is opaque.
const INSPECTS: &str = "gateway_load_balancer_endpoint";

/// The states of endpoints that carry no packets. Most are still there, and so is their subnet, which
/// the tables would have to lead around.
const OFF: [&str; 7] =
    ["pendingAcceptance", "pending", "rejected", "failed", "expired", "deleting", "deleted"];

impl Network {
    /// The state of an endpoint that carries no packets.
    pub(super) fn off(&self, endpoint: &str) -> Option<&str> {
        let known = self.endpoints.get(endpoint).map(|it| &it.off);
        known.or(self.other_endpoints.get(endpoint).map(|it| &it.off))?.as_deref()
    }

    pub(super) fn read_endpoints(&mut self, input: &mut Input<'_>, notes: &mut Notes) {
        for (id, placed) in unique::<shapes::VpcEndpoint>(input, notes) {
            let endpoint = placed.value;
            if !self.has_vpc(&endpoint.vpc_id, &id, shapes::VpcEndpoint::NOUN, notes) {
                continue;
            }
            let kind = match endpoint.vpc_endpoint_type.as_deref() {
                Some("GatewayLoadBalancer") => INSPECTS,
                Some("Gateway") | None => "gateway_endpoint",
                Some("Interface") => "interface_endpoint",
                Some(_) => "vpc_endpoint",
            };
            let tag = name_of(&endpoint.tags);
            let state = endpoint.state.as_deref().filter(|_| kind == INSPECTS).unwrap_or_default();
            let is_off = OFF.iter().any(|off| off.eq_ignore_ascii_case(state));
            let off = is_off.then(|| state.to_owned());
            if is_off {
                let what = "Gateway Load Balancer endpoints that carry no packets in their state: \
                            routes to them are blackholes";
                notes.add(what, format!("{id} ({state})"));
            }
            let place =
                if kind == INSPECTS { self.place(&endpoint).map_err(Some) } else { Err(None) };
            let subnet = match place {
                Ok(subnet) => subnet,
                Err(why) => {
                    if let (Some(why), None) = (&why, &off) {
                        let what = "Gateway Load Balancer endpoints that are opaque if anything \
                                    leads to them";
                        notes.add(what, format!("{id} ({why})"));
                    }
                    let (vpc, service) = (endpoint.vpc_id, endpoint.service_name);
                    let other = OtherEndpoint { tag, vpc, kind, service, why, off };
                    self.other_endpoints.insert(id, other);
                    continue;
                }
            };
            let unusual = endpoint.state.filter(|state| !state.eq_ignore_ascii_case("available"));
            if let (Some(state), None) = (&unusual, &off) {
                let what = "endpoints that carry packets only in the state available";
                notes.add(what, format!("{id} ({state})"));
            }
            let interface = endpoint.network_interface_ids.first();
            let interface = interface.and_then(|id| self.interfaces.get(id));
            let address = interface.and_then(|interface| interface.addresses.first().copied());
            let service = endpoint.service_name;
            self.endpoints.insert(id, Endpoint { tag, subnet, service, address, unusual, off });
        }
    }

    /// The one subnet of an endpoint that inspects, or why it cannot.
    fn place(&self, endpoint: &shapes::VpcEndpoint) -> Result<String, String> {
        let state = endpoint.state.as_deref().unwrap_or_default();
        if ["deleting", "deleted"].iter().any(|gone| gone.eq_ignore_ascii_case(state)) {
            return Err(format!("it is in the state {state}"));
        }
        match endpoint.subnet_ids.as_slice() {
            [subnet] if self.subnets.contains_key(subnet) => Ok(subnet.clone()),
            [subnet] => Err(format!("its subnet {subnet} is not known")),
            subnets => Err(format!("it has {} subnets", subnets.len())),
        }
    }

    /// Two commands list them, each with a part of what there is to know.
    pub(super) fn read_prefix_lists(&mut self, input: &mut Input<'_>, notes: &mut Notes) {
        for placed in input.resources::<shapes::PrefixList>(notes) {
            let list = placed.value;
            let known = self
                .prefix_lists
                .entry(list.prefix_list_id)
                .or_insert(PrefixList { tag: None, entries: None });
            known.tag = known.tag.take().or(name_of(&list.tags)).or(list.prefix_list_name);
            if !list.cidrs.is_empty() {
                let entries = known.entries.get_or_insert_default();
                entries.extend(list.cidrs.iter().map(IpNet::trunc));
            }
        }
        let ids: Vec<String> = self.prefix_lists.keys().cloned().collect();
        for (list, entries) in owned::<shapes::PrefixListEntry>(
            input,
            "Entries",
            "pl-",
            &ids,
            "aws ec2 get-managed-prefix-list-entries",
            "PrefixListId",
        ) {
            let known =
                self.prefix_lists.entry(list).or_insert(PrefixList { tag: None, entries: None });
            let known = known.entries.get_or_insert_default();
            known.extend(entries.iter().map(|entry| entry.cidr.trunc()));
        }
    }
}
