//! Sets of addresses: ranges to count with, prefixes to speak of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// More prefixes than this are not read by anybody at night.
const MOST_SAID: usize = 6;

/// The families of addresses, which never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub fn address(self, bits: u128) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
            Family::V6 => Ipv6Addr::from_bits(bits).into(),
        }
    }

    /// The highest address.
    pub fn last(self) -> u128 {
        match self {
            Family::V4 => u32::MAX.into(),
            Family::V6 => u128::MAX,
        }
    }
}

/// An address as a number of its family.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The first and the last address of a prefix.
pub(crate) fn ends(net: &IpNet) -> (u128, u128) {
    (bits(net.network()), bits(net.broadcast()))
}

/// Addresses of one family: ranges with both ends in them, in order, none beside another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    /// The union of ranges in any order.
    pub fn new(ranges: impl IntoIterator<Item = (u128, u128)>) -> Ranges {
        let mut sorted: Vec<_> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::new();
        for (first, last) in sorted {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Ranges(merged)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u128, u128)> {
        self.0.iter().copied()
    }

    pub fn contains(&self, bits: u128) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= bits);
        behind.checked_sub(1).is_some_and(|at| bits <= self.0[at].1)
    }

    /// The fewest prefixes that have these addresses and no others.
    pub fn prefixes(&self, family: Family) -> Vec<IpNet> {
        let mut prefixes = Vec::new();
        for (first, last) in self.iter() {
            match (family.address(first), family.address(last)) {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    prefixes.extend(Ipv4Subnets::new(first, last, 0).map(IpNet::V4));
                }
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    prefixes.extend(Ipv6Subnets::new(first, last, 0).map(IpNet::V6));
                }
                _ => {}
            }
        }
        prefixes
    }

    /// The smallest prefix that has them all, and what it has besides.
    fn cover(&self, family: Family) -> Option<(IpNet, Ranges)> {
        let (first, last) = (self.0.first()?.0, self.0.last()?.1);
        let width = match family {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        let common = (first ^ last).leading_zeros() - (128 - width);
        let cover = IpNet::new(family.address(first), common as u8).ok()?.trunc();
        let (from, to) = ends(&cover);
        let starts = std::iter::once(Some(from)).chain(self.0.iter().map(|it| it.1.checked_add(1)));
        let stops = self.0.iter().map(|it| it.0.checked_sub(1)).chain([Some(to)]);
        let holes = starts.zip(stops).filter_map(|(start, stop)| start.zip(stop));
        Some((cover, Ranges::new(holes.filter(|(start, stop)| start <= stop))))
    }
}

/// Where the stretches of a family begin that prefixes cut it into: none has an end within one.
pub(crate) fn starts(family: Family, borders: &[IpNet]) -> Vec<u128> {
    let mut starts = vec![0];
    for (first, last) in borders.iter().filter(|net| Family::of(net.addr()) == family).map(ends) {
        starts.push(first);
        if last < family.last() {
            starts.push(last + 1);
        }
    }
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// Prefixes of both families merged: the fewest that have the same addresses.
pub(crate) fn merged(prefixes: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for prefix in prefixes {
        if prefix.addr().is_ipv4() { &mut v4 } else { &mut v6 }.push(ends(&prefix));
    }
    let mut all = Ranges::new(v4).prefixes(Family::V4);
    all.extend(Ranges::new(v6).prefixes(Family::V6));
    all
}

/// Prefixes for a reader: a list, or a large prefix and its exceptions where that is shorter.
pub(crate) fn say(prefixes: &[IpNet]) -> String {
    let mut said = Vec::new();
    for family in Family::BOTH {
        let of_family = prefixes.iter().filter(|net| Family::of(net.addr()) == family);
        let ranges = Ranges::new(of_family.map(ends));
        let plain = ranges.prefixes(family);
        match ranges.cover(family).map(|(cover, holes)| (cover, holes.prefixes(family))) {
            Some((cover, holes)) if holes.len() + 1 < plain.len() => {
                said.push(format!("{cover} except {}", list(&holes)));
            }
            _ if plain.is_empty() => {}
            _ => said.push(list(&plain)),
        }
    }
    // After exceptions, a comma alone would read as one more of them.
    said.join(", and ")
}

fn list(prefixes: &[IpNet]) -> String {
    let shown: Vec<String> = prefixes.iter().take(MOST_SAID).map(IpNet::to_string).collect();
    match prefixes.len().saturating_sub(MOST_SAID) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hole_is_said_as_an_exception() {
        let whole = Ranges::new([(0, 0x09ff_ffff), (0x0a01_0000, u128::from(u32::MAX))]);
        assert_eq!(say(&whole.prefixes(Family::V4)), "0.0.0.0/0 except 10.0.0.0/16");
        let two: Vec<IpNet> = ["10.0.2.0/24", "10.0.3.0/24", "fd00::/64"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        assert_eq!(say(&two), "10.0.2.0/23, and fd00::/64");
        assert_eq!(say(&[]), "");
    }

    #[test]
    fn prefixes_cut_their_own_family() {
        let borders: Vec<IpNet> = ["10.0.0.0/24", "10.0.0.0/8", "255.0.0.0/8", "::1/128"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let v4 = [0, 0x0a00_0000, 0x0a00_0100, 0x0b00_0000, 0xff00_0000];
        assert_eq!(starts(Family::V4, &borders), v4);
        assert_eq!(starts(Family::V6, &borders), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn prefixes_have_the_same_addresses(
            ranges in prop::collection::vec((0u128..300, 0u128..40), 0..8),
        ) {
            let ranges: Vec<_> = ranges.iter().map(|(from, more)| (*from, from + more)).collect();
            let set = Ranges::new(ranges.iter().copied());
            let prefixes = set.prefixes(Family::V4);
            for bits in 0..400 {
                let expected = ranges.iter().any(|(first, last)| (first..=last).contains(&&bits));
                prop_assert_eq!(set.contains(bits), expected);
                let address = Family::V4.address(bits);
                prop_assert_eq!(prefixes.iter().any(|net| net.contains(&address)), expected);
                if let Some((cover, holes)) = set.cover(Family::V4) {
                    let said = cover.contains(&address) && !holes.contains(bits);
                    prop_assert_eq!(said, expected);
                }
            }
        }
    }
}
