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

/// Ranges of addresses, each from its start to the next one's. The first begins at 0.
#[derive(Clone, Debug)]
struct Ranges<A> {
    /// The start and the hop of each side by side: who has found the one has the other.
    ranges: Box<[(A, NextHop)]>,
    slots: Slots<A>,
}

/// Where to look: the addresses from the second start on, in slots of equal size. A search begins
/// among the few starts of one slot rather than among all.
#[derive(Clone, Debug)]
struct Slots<A> {
    base: A,
    /// An address' slot is its distance from the base without these bits.
    shift: u32,
    /// For each slot, how many starts are in those before it; and all of them, behind the last one.
    below: Box<[u32]>,
}

/// What the search does with addresses of either family.
trait Bits: Copy + Ord {
    const BITS: u32;
    const ZERO: Self;

    fn distance(self, base: Self) -> Self;

    fn leading_zeros(self) -> u32;

    /// Without the last bits, as far as it is counted.
    fn shifted(self, shift: u32) -> usize;
}

macro_rules! bits {
    ($type:ty) => {
        impl Bits for $type {
            const BITS: u32 = <$type>::BITS;
            const ZERO: $type = 0;

            fn distance(self, base: $type) -> $type {
                self.wrapping_sub(base)
            }

            fn leading_zeros(self) -> u32 {
                self.leading_zeros()
            }

            fn shifted(self, shift: u32) -> usize {
                usize::try_from(self.checked_shr(shift).unwrap_or(0)).unwrap_or(usize::MAX)
            }
        }
    };
}

bits!(u32);
bits!(u128);

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

    /// Where an address goes.
    #[inline]
    pub fn next_hop(&self, address: IpAddr) -> NextHop {
        match address {
            IpAddr::V4(address) => self.v4.at(address.to_bits()),
            IpAddr::V6(address) => self.v6.at(address.to_bits()),
        }
    }
}

impl<A: Bits> Ranges<A> {
    fn new(mut borders: Vec<A>, next_hop: impl Fn(A) -> NextHop) -> Ranges<A> {
        borders.sort_unstable();
        borders.dedup();
        let mut ranges: Vec<_> =
            borders.into_iter().map(|start| (start, next_hop(start))).collect();
        ranges.dedup_by_key(|(_, hop)| *hop);
        Ranges { slots: Slots::new(&ranges), ranges: ranges.into() }
    }

    #[inline]
    fn at(&self, address: A) -> NextHop {
        let (from, to) = self.slots.of(address);
        let slot = self.ranges.get(from..to).unwrap_or_default();
        // The first start is the lowest address there is, so at least one is not above.
        let behind = from + slot.partition_point(|(start, _)| *start <= address);
        self.ranges.get(behind.wrapping_sub(1)).map_or(NextHop::NoRoute, |(_, hop)| *hop)
    }
}

impl<A: Bits> Slots<A> {
    /// The most slots, as bits of their number: 64 KiB for a table.
    const MOST: u32 = 14;

    fn new<T>(ranges: &[(A, T)]) -> Slots<A> {
        // All below the second start is in the first range, which is searched without slots.
        let (Some((base, _)), Some((last, _))) = (ranges.get(1), ranges.last()) else {
            return Slots { base: A::ZERO, shift: A::BITS, below: [0, ranges.len() as u32].into() };
        };
        let (base, span) = (*base, last.distance(*base));
        // Two slots for each start, so that most of them have one start or none.
        let bits = (ranges.len().ilog2() + 2).min(Self::MOST);
        let shift = (A::BITS - span.leading_zeros()).saturating_sub(bits);
        let slots = span.shifted(shift) + 1;
        let mut below = Vec::with_capacity(slots + 1);
        let mut count = 0;
        for slot in 0..slots {
            let before =
                |(start, _): &&(A, T)| *start < base || start.distance(base).shifted(shift) < slot;
            count += ranges[count..].iter().take_while(before).count();
            below.push(count as u32);
        }
        below.push(ranges.len() as u32);
        Slots { base, shift, below: below.into() }
    }

    /// The ranges that start in the slot of an address: it is in one of them or in the one before.
    #[inline]
    fn of(&self, address: A) -> (usize, usize) {
        if address < self.base {
            return (0, 1);
        }
        let slot = address.distance(self.base).shifted(self.shift).min(self.below.len() - 2);
        (self.below[slot] as usize, self.below[slot + 1] as usize)
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
            for address in addresses {
                prop_assert_eq!(fib.next_hop(address), next_hop(address), "{}", address);
            }
        }
    }
}
