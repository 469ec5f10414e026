//! A route table: its routes, and the longest prefix among them.

use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::{Origin, Route, Target, VpcId};

/// A route table, with the local routes that each has for its VPC's address ranges.
#[derive(Clone, Debug)]
pub struct RouteTable {
    name: String,
    vpc: VpcId,
    implicit: bool,
    routes: JointPrefixMap<IpNet, (Target, Origin)>,
}

impl RouteTable {
    /// A table with the local routes of these address ranges.
    pub(crate) fn new(name: String, vpc: VpcId, implicit: bool, local: &[IpNet]) -> RouteTable {
        let local = local.iter().map(|cidr| (*cidr, (Target::Local, Origin::CreateRouteTable)));
        RouteTable { name, vpc, implicit, routes: local.collect() }
    }

    /// Adds a route, or replaces the local route of the same destination.
    pub(crate) fn insert(&mut self, destination: IpNet, target: Target) {
        self.routes.insert(destination, (target, Origin::CreateRoute));
    }

    /// Its name. An implicit table has a name with a colon, which no table of a file can have.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The VPC that it belongs to.
    pub fn vpc(&self) -> VpcId {
        self.vpc
    }

    /// Whether it is not in the file: it has only local routes.
    pub fn is_implicit(&self) -> bool {
        self.implicit
    }

    /// All its routes: IPv4 before IPv6, then by address, shorter prefixes first.
    pub fn routes(&self) -> impl Iterator<Item = Route> {
        self.routes.iter().map(|(destination, entry)| route(destination, *entry))
    }

    /// Where an address goes, by the longest prefix that has it.
    pub fn target(&self, address: IpAddr) -> Option<Target> {
        self.routes.get_lpm(&IpNet::from(address)).map(|(_, (target, _))| *target)
    }

    /// Every route that has an address, the longest prefix first.
    pub fn candidates(&self, address: IpAddr) -> Vec<Route> {
        let host = IpNet::from(address);
        let mut routes: Vec<Route> = self
            .routes
            .cover(&host)
            .map(|(destination, entry)| route(destination, *entry))
            .collect();
        routes.reverse();
        routes
    }
}

fn route(destination: IpNet, (target, origin): (Target, Origin)) -> Route {
    Route { destination, target, origin }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Prefixes and addresses with few distinct leading bits, so that they meet often.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..8, any::<u32>(), 0u32..32).prop_map(|(high, noise, shift)| {
                IpAddr::V4(Ipv4Addr::from(high << 29 | noise.unbounded_shr(shift) >> 3))
            }),
            (0u128..8, any::<u128>(), 0u32..128).prop_map(|(high, noise, shift)| {
                IpAddr::V6(Ipv6Addr::from(high << 125 | noise.unbounded_shr(shift) >> 3))
            }),
        ]
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        (address(), 0u8..=128).prop_map(|(address, length)| {
            let most = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new(address, length.min(most)).unwrap().trunc()
        })
    }

    fn target() -> impl Strategy<Value = Target> {
        prop_oneof![
            Just(Target::Local),
            Just(Target::Blackhole),
            (0u16..9)
                .prop_map(|index| Target::Endpoint(super::super::EndpointId::from_index(index))),
        ]
    }

    /// The obvious twin: look at every route.
    fn scan(routes: &[(IpNet, Target)], address: IpAddr) -> Option<(IpNet, Target)> {
        routes
            .iter()
            .filter(|(destination, _)| destination.contains(&address))
            .max_by_key(|(destination, _)| destination.prefix_len())
            .copied()
    }

    proptest! {
        #[test]
        fn the_longest_prefix_wins_as_a_linear_scan_finds_it(
            routes in prop::collection::btree_map(prefix(), target(), 0..40),
            addresses in prop::collection::vec(address(), 1..20),
        ) {
            let mut table =
                RouteTable::new("t".to_owned(), VpcId::from_index(0), false, &[]);
            for (destination, target) in &routes {
                table.insert(*destination, *target);
            }
            let routes: Vec<_> = routes.into_iter().collect();
            // Besides random addresses, the ends of every prefix and their outer neighbours.
            let ends = routes.iter().flat_map(|(net, _)| [net.network(), net.broadcast()]);
            for address in addresses.into_iter().chain(ends.flat_map(neighbours)) {
                let expected = scan(&routes, address);
                prop_assert_eq!(table.target(address), expected.map(|(_, target)| target));
                let candidates = table.candidates(address);
                prop_assert_eq!(
                    candidates.first().map(|route| (route.destination, route.target)),
                    expected
                );
                let lengths: Vec<u8> =
                    candidates.iter().map(|route| route.destination.prefix_len()).collect();
                prop_assert!(lengths.is_sorted_by(|longer, shorter| longer > shorter));
            }
        }
    }

    fn neighbours(address: IpAddr) -> [IpAddr; 3] {
        match address {
            IpAddr::V4(v4) => {
                [v4.to_bits().wrapping_sub(1), v4.to_bits(), v4.to_bits().wrapping_add(1)]
                    .map(|bits| Ipv4Addr::from_bits(bits).into())
            }
            IpAddr::V6(v6) => {
                [v6.to_bits().wrapping_sub(1), v6.to_bits(), v6.to_bits().wrapping_add(1)]
                    .map(|bits| Ipv6Addr::from_bits(bits).into())
            }
        }
    }

    #[test]
    fn families_do_not_meet() {
        let mut table = RouteTable::new("t".to_owned(), VpcId::from_index(0), false, &[]);
        table.insert("0.0.0.0/0".parse().unwrap(), Target::Blackhole);
        assert_eq!(table.target("10.0.0.1".parse().unwrap()), Some(Target::Blackhole));
        assert_eq!(table.target("::ffff:10.0.0.1".parse().unwrap()), None);
    }

    #[test]
    fn a_route_for_a_whole_range_replaces_the_local_route() {
        let cidr: IpNet = "10.0.0.0/16".parse().unwrap();
        let mut table = RouteTable::new("t".to_owned(), VpcId::from_index(0), false, &[cidr]);
        assert_eq!(table.target("10.0.1.1".parse().unwrap()), Some(Target::Local));
        table.insert(cidr, Target::Blackhole);
        assert_eq!(table.target("10.0.1.1".parse().unwrap()), Some(Target::Blackhole));
        assert_eq!(table.routes().count(), 1);
    }
}
