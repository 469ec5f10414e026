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
    v4: Ranges<u32, NextHop>,
    /// By the first 64 bits, which is as far as nearly all prefixes go; half the memory is read.
    /// `None` where that is not enough.
    v6: Ranges<u64, Option<NextHop>>,
    /// By all bits.
    long: Ranges<u128, NextHop>,
}

/// The same for one address of many: it looks first where the one before was found.
#[derive(Clone, Debug)]
pub(super) struct Near<'a> {
    fib: &'a Fib,
    v4: Span<u32, NextHop>,
    v6: Span<u64, Option<NextHop>>,
}

/// Addresses in a row that go the same way; none if the last is before the first.
#[derive(Clone, Copy, Debug)]
struct Span<A, H> {
    first: A,
    last: A,
    hop: H,
}

/// Ranges of addresses, each from its start to the next one's. The first begins at 0.
#[derive(Clone, Debug)]
struct Ranges<A, H> {
    /// The start and the hop of each side by side: who has found the one has the other.
    ranges: Box<[(A, H)]>,
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
    /// Empty where there are too few or too many to count so: then all are searched.
    below: Box<[u16]>,
}

/// What the search does with addresses of either family.
trait Bits: Copy + Ord {
    const BITS: u32;
    const ZERO: Self;
    const MAX: Self;

    fn distance(self, base: Self) -> Self;

    /// The one before, of which there is none before zero.
    fn before(self) -> Self;

    fn leading_zeros(self) -> u32;

    /// Without the last bits, as far as it is counted.
    fn shifted(self, shift: u32) -> usize;
}

macro_rules! bits {
    ($($type:ty),*) => {
        $(impl Bits for $type {
            const BITS: u32 = <$type>::BITS;
            const ZERO: $type = 0;
            const MAX: $type = <$type>::MAX;

            #[inline]
            fn distance(self, base: $type) -> $type {
                self.wrapping_sub(base)
            }

            #[inline]
            fn before(self) -> $type {
                self.wrapping_sub(1)
            }

            #[inline]
            fn leading_zeros(self) -> u32 {
                self.leading_zeros()
            }

            #[inline]
            fn shifted(self, shift: u32) -> usize {
                usize::try_from(self.wrapping_shr(shift)).unwrap_or(usize::MAX)
            }
        })*
    };
}

bits!(u32, u64, u128);

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
        let long = Ranges::new(v6, |bits| next_hop(Ipv6Addr::from_bits(bits).into()));
        Fib {
            v4: Ranges::new(v4, |bits| next_hop(Ipv4Addr::from_bits(bits).into())),
            v6: Ranges::of_high_halves(&long),
            long,
        }
    }

    /// Where an address goes.
    #[inline]
    pub fn next_hop(&self, address: IpAddr) -> NextHop {
        let found = match address {
            IpAddr::V4(address) => self.v4.at(address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                self.v6.at((bits >> 64) as u64).flatten().or_else(|| self.long.at(bits))
            }
        };
        found.unwrap_or(NextHop::NoRoute)
    }

    /// For looking up many addresses.
    pub fn near(&self) -> Near<'_> {
        let nothing = NextHop::NoRoute;
        let (v4, v6) = (Span::nowhere(nothing), Span::nowhere(Some(nothing)));
        Near { fib: self, v4, v6 }
    }
}

impl Near<'_> {
    /// Where an address goes.
    #[expect(clippy::inline_always, reason = "whoever calls it knows the version, mostly")]
    #[inline(always)]
    pub fn next_hop(&mut self, address: IpAddr) -> NextHop {
        match address {
            IpAddr::V4(address) => self.v4.hop(address.to_bits(), &self.fib.v4),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                let found = self.v6.hop((bits >> 64) as u64, &self.fib.v6);
                found.or_else(|| self.fib.long.at(bits)).unwrap_or(NextHop::NoRoute)
            }
        }
    }
}

impl<A: Bits, H: Copy + PartialEq> Span<A, H> {
    const fn nowhere(hop: H) -> Self {
        Span { first: A::MAX, last: A::ZERO, hop }
    }

    /// The hop of an address, after which this is the span that it is in.
    #[inline]
    fn hop(&mut self, address: A, all: &Ranges<A, H>) -> H {
        // Every address is in a span.
        if !(self.first <= address && address <= self.last)
            && let Some(found) = all.span(address)
        {
            *self = found;
        }
        self.hop
    }
}

impl<A: Bits, H: Copy + PartialEq> Ranges<A, H> {
    fn new(mut borders: Vec<A>, hop: impl Fn(A) -> H) -> Ranges<A, H> {
        borders.sort_unstable();
        borders.dedup();
        let mut ranges: Vec<_> = borders.into_iter().map(|start| (start, hop(start))).collect();
        ranges.dedup_by_key(|(_, hop)| *hop);
        Ranges { slots: Slots::new(&ranges), ranges: ranges.into() }
    }

    #[inline]
    fn at(&self, address: A) -> Option<H> {
        self.ranges.get(self.number(address)).map(|(_, hop)| *hop)
    }

    /// The range that an address is in. Not in the way of those that are in the one before.
    #[inline(never)]
    fn span(&self, address: A) -> Option<Span<A, H>> {
        let number = self.number(address);
        let &(first, hop) = self.ranges.get(number)?;
        let next = self.ranges.get(number + 1);
        Some(Span { first, last: next.map_or(A::MAX, |(start, _)| start.before()), hop })
    }

    #[inline]
    fn number(&self, address: A) -> usize {
        let (from, to) = self.slots.of(address, self.ranges.len());
        let slot = self.ranges.get(from..to).unwrap_or_default();
        // The first start is the lowest address there is, so at least one is not above.
        (from + slot.partition_point(|(start, _)| *start <= address)).saturating_sub(1)
    }
}

impl Ranges<u64, Option<NextHop>> {
    /// The answers for all addresses with the same first half, where they are the same.
    fn of_high_halves(long: &Ranges<u128, NextHop>) -> Self {
        let high = |bits: u128| (bits >> 64) as u64;
        let mut borders = Vec::new();
        for (start, _) in &long.ranges {
            borders.push(high(*start));
            // Where a range starts within a half, the next half is a new matter.
            borders.extend(high(*start).checked_add(1));
        }
        Ranges::new(borders, |half| {
            let first = u128::from(half) << 64;
            let last = first | u128::from(u64::MAX);
            let starts = |to: u128| long.ranges.partition_point(|(start, _)| *start <= to);
            if starts(first) == starts(last) { long.at(first) } else { None }
        })
    }
}

impl<A: Bits> Slots<A> {
    /// The most slots, as bits of their number: 32 KiB for a table.
    const MOST: u32 = 14;

    fn new<H>(ranges: &[(A, H)]) -> Slots<A> {
        // All below the second start is in the first range, which needs no slot.
        let (Some((base, _)), Some((last, _))) = (ranges.get(1), ranges.last()) else {
            return Slots { base: A::ZERO, shift: 0, below: Box::default() };
        };
        let (base, span) = (*base, last.distance(*base));
        // Two to four slots for each start, so that most of them have one start or none.
        let bits = (ranges.len().ilog2() + 2).min(Self::MOST);
        let shift = (A::BITS - span.leading_zeros()).saturating_sub(bits);
        let slots = span.shifted(shift) + 1;
        let mut before = 0;
        let below = (0..=slots).map(|slot| {
            let is_before =
                |(start, _): &&(A, H)| *start < base || start.distance(base).shifted(shift) < slot;
            before += ranges[before..].iter().take_while(is_before).count();
            u16::try_from(before).ok()
        });
        let below: Option<Vec<u16>> = below.collect();
        Slots { base, shift, below: below.unwrap_or_default().into() }
    }

    /// The ranges that start in the slot of an address: it is in one of them or in the one before.
    #[inline]
    fn of(&self, address: A, all: usize) -> (usize, usize) {
        let Some(last) = self.below.len().checked_sub(2) else { return (0, all) };
        if address < self.base {
            return (0, 1);
        }
        let slot = address.distance(self.base).shifted(self.shift).min(last);
        (usize::from(self.below[slot]), usize::from(self.below[slot + 1]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::EndpointId;

    /// Few addresses, so that they meet: some differ in the first bits, some around the middle, some
    /// in the last.
    const NOISE: u128 = 7 << 125 | 3 << 63 | 3;

    fn prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u32>(), 0u8..=32).prop_map(|(bits, len)| {
            IpNet::new(Ipv4Addr::from_bits(bits & 0xe000_00ff).into(), len)
        });
        let v6 = (any::<u128>(), 0u8..=128)
            .prop_map(|(bits, len)| IpNet::new(Ipv6Addr::from_bits(bits & NOISE).into(), len));
        prop_oneof![v4, v6].prop_map(|net| net.unwrap().trunc())
    }

    proptest! {
        /// At and beside every border, and anywhere.
        #[test]
        fn says_what_it_was_made_from(
            prefixes in prop::collection::vec(prefix(), 0..20),
            anywhere: (u32, u128),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..50),
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
            let shuffled = order.iter().map(|at| *at.get(&addresses));
            // Whatever was asked before, be it twice.
            let mut near = fib.near();
            for address in addresses.iter().copied().chain(shuffled) {
                prop_assert_eq!(near.next_hop(address), next_hop(address), "{}", address);
                prop_assert_eq!(fib.next_hop(address), next_hop(address), "{}", address);
                prop_assert_eq!(near.next_hop(address), next_hop(address), "{}", address);
            }
        }
    }

    #[test]
    fn more_ranges_than_are_counted_in_slots_are_found_too() {
        let net = |n: u32| IpNet::new(Ipv4Addr::from_bits(n << 8).into(), 28).unwrap();
        let prefixes: Vec<IpNet> = (1..=40_000).map(net).collect();
        let next_hop = |address: IpAddr| {
            let IpAddr::V4(address) = address else { return NextHop::NoRoute };
            let (n, within) = (address.to_bits() >> 8, address.to_bits() & 0xf0 == 0);
            if (1..=40_000).contains(&n) && within { NextHop::Blackhole } else { NextHop::NoSubnet }
        };
        let fib = Fib::new(prefixes.iter().copied(), next_hop);
        assert!(fib.v4.slots.below.is_empty() && fib.v4.ranges.len() > 80_000);
        for n in [1, 2, 20_000, 40_000] {
            for last in [0, 15, 16, 255] {
                let address = Ipv4Addr::from_bits(n << 8 | last).into();
                assert_eq!(fib.next_hop(address), next_hop(address), "{address}");
                assert_eq!(fib.near().next_hop(address), next_hop(address), "{address}");
            }
        }
    }
}
