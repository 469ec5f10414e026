//! A route table: its routes, and the longest prefix among them.

use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::{Learned, Origin, PrefixListId, Route, RouteState, Target, VpcId};

/// A route table, with the local routes that each has for its VPC's address ranges.
#[derive(Clone, Debug)]
pub struct RouteTable {
    name: String,
    vpc: VpcId,
    implicit: bool,
    routes: JointPrefixMap<IpNet, Held>,
    /// Those that another route for the same addresses has priority over.
    filtered: Vec<(IpNet, Held)>,
}

/// What a table holds for a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) target: Target,
    pub(crate) origin: Origin,
    pub(crate) list: Option<PrefixListId>,
    pub(crate) learned: Option<Learned>,
}

impl Held {
    /// A route that is written with a destination.
    pub(crate) fn written(target: Target) -> Held {
        Held { target, origin: Origin::CreateRoute, list: None, learned: None }
    }

    /// Of routes for the same addresses, the lowest wins: "longest prefix, static, prefix list,
    /// propagated (Direct Connect, static VPN, VPN by BGP)" (semantics 1d).
    fn rank(&self) -> (u8, Option<Learned>) {
        match (self.origin, self.list) {
            (Origin::CreateRouteTable | Origin::CreateRoute, None) => (0, None),
            (Origin::CreateRouteTable | Origin::CreateRoute, Some(_)) => (1, None),
            (Origin::EnableVgwRoutePropagation, _) => (2, self.learned),
        }
    }
}

impl RouteTable {
    /// A table with the local routes of these address ranges.
    pub(crate) fn new(name: String, vpc: VpcId, implicit: bool, local: &[IpNet]) -> RouteTable {
        let local = local.iter().map(|cidr| {
            let origin = Origin::CreateRouteTable;
            (*cidr, Held { origin, ..Held::written(Target::Local) })
        });
        RouteTable { name, vpc, implicit, routes: local.collect(), filtered: Vec::new() }
    }

    /// Adds a route. One that is written replaces the local route of the same destination; of
    /// others the one with priority is used, and of equal ones the one that came first.
    pub(crate) fn insert(&mut self, destination: IpNet, held: Held) {
        match self.routes.get_mut(&destination) {
            None => drop(self.routes.insert(destination, held)),
            Some(there) if there.origin == Origin::CreateRouteTable && held.rank().0 == 0 => {
                *there = held;
            }
            Some(there) if held.rank() < there.rank() => {
                self.filtered.push((destination, std::mem::replace(there, held)));
            }
            Some(_) => self.filtered.push((destination, held)),
        }
    }

    /// Adds a route that no packet takes.
    pub(crate) fn insert_filtered(&mut self, destination: IpNet, held: Held) {
        self.filtered.push((destination, held));
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

    /// The routes that packets take: IPv4 before IPv6, then by address, shorter prefixes first.
    pub fn routes(&self) -> impl Iterator<Item = Route> {
        self.routes.iter().map(|(destination, held)| route(destination, held))
    }

    /// The routes that no packet takes, since others for the same addresses have priority.
    pub fn filtered(&self) -> impl Iterator<Item = Route> {
        let filtered = |(destination, held): &(IpNet, Held)| Route {
            state: RouteState::Filtered,
            ..route(*destination, held)
        };
        self.filtered.iter().map(filtered)
    }

    /// Where an address goes, by the longest prefix that has it.
    pub fn target(&self, address: IpAddr) -> Option<Target> {
        self.routes.get_lpm(&IpNet::from(address)).map(|(_, held)| held.target)
    }

    /// Every route that has an address: the one that decides, and then the others, the longest prefix
    /// first, of equal ones the one with priority.
    pub fn candidates(&self, address: IpAddr) -> Vec<Route> {
        let host = IpNet::from(address);
        let cover = self.routes.cover(&host).map(|(destination, held)| route(destination, held));
        let filtered = self.filtered().filter(|route| route.destination.contains(&address));
        let mut routes: Vec<Route> = cover.chain(filtered).collect();
        let rank = |route: &Route| {
            let Route { target, origin, list, learned, .. } = *route;
            Held { target, origin, list, learned }.rank()
        };
        let decides = self.routes.get_lpm(&host).map(|(destination, _)| destination);
        // Stable: of equal ones, the one that is used stands before those that are not.
        routes.sort_by_key(|route| {
            let used = route.state != RouteState::Filtered && Some(route.destination) == decides;
            (!used, std::cmp::Reverse(route.destination.prefix_len()), rank(route))
        });
        routes
    }
}

fn route(destination: IpNet, held: &Held) -> Route {
    let Held { target, origin, list, learned } = *held;
    let state =
        if target == Target::Blackhole { RouteState::Blackhole } else { RouteState::Active };
    Route { destination, target, origin, list, learned, state }
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
                table.insert(*destination, Held::written(*target));
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
        table.insert("0.0.0.0/0".parse().unwrap(), Held::written(Target::Blackhole));
        assert_eq!(table.target("10.0.0.1".parse().unwrap()), Some(Target::Blackhole));
        assert_eq!(table.target("::ffff:10.0.0.1".parse().unwrap()), None);
    }

    #[test]
    fn a_route_for_a_whole_range_replaces_the_local_route() {
        let cidr: IpNet = "10.0.0.0/16".parse().unwrap();
        let mut table = RouteTable::new("t".to_owned(), VpcId::from_index(0), false, &[cidr]);
        assert_eq!(table.target("10.0.1.1".parse().unwrap()), Some(Target::Local));
        table.insert(cidr, Held::written(Target::Blackhole));
        assert_eq!(table.target("10.0.1.1".parse().unwrap()), Some(Target::Blackhole));
        assert_eq!(table.routes().count(), 1);
    }

    #[test]
    fn of_equal_prefixes_static_wins_then_a_prefix_list_then_what_was_propagated() {
        let net: IpNet = "192.168.0.0/16".parse().unwrap();
        let endpoint = |index| Target::Endpoint(super::super::EndpointId::from_index(index));
        let propagated = |index, learned| Held {
            origin: Origin::EnableVgwRoutePropagation,
            learned: Some(learned),
            ..Held::written(endpoint(index))
        };
        // From the one that wins to the one that loses to all others.
        let ranked = [
            Held::written(endpoint(0)),
            Held { list: Some(PrefixListId::from_index(0)), ..Held::written(endpoint(1)) },
            propagated(2, Learned::DirectConnect),
            propagated(3, Learned::VpnStatic),
            propagated(4, Learned::VpnBgp),
        ];
        for first in 0..ranked.len() {
            let mut table = RouteTable::new("t".to_owned(), VpcId::from_index(0), false, &[]);
            let mut order = ranked;
            order.rotate_left(first);
            for held in order {
                table.insert(net, held);
            }
            let found: Vec<_> = table.candidates("192.168.1.1".parse().unwrap());
            assert_eq!(
                found.iter().map(|route| route.target).collect::<Vec<_>>(),
                ranked.iter().map(|held| held.target).collect::<Vec<_>>()
            );
            assert_eq!(found[0].state, RouteState::Active);
            assert!(found[1..].iter().all(|route| route.state == RouteState::Filtered));
            assert_eq!(table.target("192.168.1.1".parse().unwrap()), Some(endpoint(0)));
        }
    }

    #[test]
    fn a_longer_prefix_beats_any_priority() {
        let mut table = RouteTable::new("t".to_owned(), VpcId::from_index(0), false, &[]);
        table.insert("192.168.0.0/16".parse().unwrap(), Held::written(Target::Local));
        let learned = Held {
            origin: Origin::EnableVgwRoutePropagation,
            learned: Some(Learned::VpnBgp),
            ..Held::written(Target::Blackhole)
        };
        table.insert("192.168.1.0/24".parse().unwrap(), learned);
        assert_eq!(table.target("192.168.1.1".parse().unwrap()), Some(Target::Blackhole));
        assert_eq!(table.target("192.168.2.1".parse().unwrap()), Some(Target::Local));
    }
}
