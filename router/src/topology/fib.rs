//! Routes as the fast path wants them: the addresses cut into ranges that go the same way.
//!
//! It is made from the answers of [`RouteTable`](super::RouteTable), which stays the truth, and says
//! nothing that those would not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::NextHop;

/// Where every address goes: a forwarding information base.
#[derive(Clone, Debug)]
pub(super) struct Fib {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// Where look-ups were answered last, of IPv4 and of IPv6. What is remembered of other routes than
/// those that are asked is of no use, and does no harm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Near {
    v4: usize,
    v6: usize,
}

/// Ranges of addresses, each from its start to the next one's. The first begins at 0.
#[derive(Clone, Debug)]
struct Ranges<A> {
    starts: Box<[A]>,
    hops: Box<[NextHop]>,
}

impl Fib {
    /// The answers of `next_hop`, which may change only at the borders of `prefixes`.
    pub fn new(
        prefixes: impl IntoIterator<Item = IpNet>,
        next_hop: impl Fn(IpAddr) -> NextHop,
    ) -> Fib {
        let (mut v4, mut v6) = (vec![0], vec![0]);
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => {
                    v4.push(net.network().to_bits());
                    v4.extend(net.broadcast().to_bits().checked_add(1));
                }
                IpNet::V6(net) => {
                    v6.push(net.network().to_bits());
                    v6.extend(net.broadcast().to_bits().checked_add(1));
                }
            }
        }
        Fib {
            v4: Ranges::new(v4, |bits| next_hop(Ipv4Addr::from_bits(bits).into())),
            v6: Ranges::new(v6, |bits| next_hop(Ipv6Addr::from_bits(bits).into())),
        }
    }

    /// Where an address goes, which is `near` the one before in most cases.
    #[inline]
    pub fn next_hop(&self, address: IpAddr, near: &mut Near) -> NextHop {
        match address {
            IpAddr::V4(address) => self.v4.at(address.to_bits(), &mut near.v4),
            IpAddr::V6(address) => self.v6.at(address.to_bits(), &mut near.v6),
        }
    }
}

impl<A: Copy + Ord> Ranges<A> {
    fn new(mut borders: Vec<A>, next_hop: impl Fn(A) -> NextHop) -> Ranges<A> {
        borders.sort_unstable();
        borders.dedup();
        let mut ranges: Vec<_> =
            borders.into_iter().map(|start| (start, next_hop(start))).collect();
        ranges.dedup_by_key(|(_, hop)| *hop);
        let (starts, hops): (Vec<_>, Vec<_>) = ranges.into_iter().unzip();
        Ranges { starts: starts.into(), hops: hops.into() }
    }

    #[inline]
    fn at(&self, address: A, near: &mut usize) -> NextHop {
        let begun = |range| self.starts.get(range).is_some_and(|start| *start <= address);
        if !begun(*near) || begun(*near + 1) {
            // The first start is the lowest address there is, so at least one is not above.
            let behind = self.starts.partition_point(|start| *start <= address);
            *near = behind.saturating_sub(1);
        }
        self.hops.get(*near).copied().unwrap_or(NextHop::NoRoute)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::EndpointId;

    fn prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u32>(), 0u8..=32).prop_map(|(bits, len)| {
            IpNet::new(Ipv4Addr::from_bits(bits & 0xe000_00ff).into(), len)
        });
        let v6 = (any::<u128>(), 0u8..=128)
            .prop_map(|(bits, len)| IpNet::new(Ipv6Addr::from_bits(bits & 7 << 125).into(), len));
        prop_oneof![v4, v6].prop_map(|net| net.unwrap().trunc())
    }

    proptest! {
        /// At and beside every border, and anywhere.
        #[test]
        fn says_what_it_was_made_from(
            prefixes in prop::collection::vec(prefix(), 0..20),
            anywhere: (u32, u128),
            elsewhere in (0usize..50, 0usize..50),
        ) {
            let next_hop = |address: IpAddr| {
                let longest = prefixes
                    .iter()
                    .enumerate()
                    .filter(|(_, prefix)| prefix.contains(&address))
                    .max_by_key(|(_, prefix)| prefix.prefix_len());
                longest.map_or(NextHop::NoRoute, |(index, _)| {
                    NextHop::Endpoint(EndpointId::from_index(index as u16 % 3))
                })
            };
            let fib = Fib::new(prefixes.iter().copied(), next_hop);
            let mut addresses: Vec<IpAddr> =
                vec![Ipv4Addr::from_bits(anywhere.0).into(), Ipv6Addr::from_bits(anywhere.1).into()];
            for prefix in &prefixes {
                for border in [prefix.network(), prefix.broadcast()] {
                    addresses.extend::<[IpAddr; 2]>(match border {
                        IpAddr::V4(it) => [u32::wrapping_sub, u32::wrapping_add]
                            .map(|beside| Ipv4Addr::from_bits(beside(it.to_bits(), 1)).into()),
                        IpAddr::V6(it) => [u128::wrapping_sub, u128::wrapping_add]
                            .map(|beside| Ipv6Addr::from_bits(beside(it.to_bits(), 1)).into()),
                    });
                    addresses.push(border);
                }
            }
            // Wherever the one before was, or what was asked then.
            let mut near = Near { v4: elsewhere.0, v6: elsewhere.1 };
            for address in addresses {
                prop_assert_eq!(fib.next_hop(address, &mut near), next_hop(address), "{}", address);
                let fresh = &mut Near::default();
                prop_assert_eq!(fib.next_hop(address, fresh), next_hop(address), "{}", address);
            }
        }
    }
}
