//! Address ranges and addresses, as people write them, and what is wrong with them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::source::{Located, Problem};
use crate::space::bits;

/// Reads a range such as `10.0.0.0/16`.
pub(super) fn parse_cidr(text: &Located<String>) -> Result<IpNet, Problem> {
    let Some((address, length)) = text.split_once('/') else {
        return Err(match text.parse::<IpAddr>() {
            Ok(address) => text
                .problem(format!("{address} is an address, not a range of addresses"))
                .label("the prefix length is missing")
                .help(format!("the range of this one address is {}", IpNet::from(address))),
            Err(_) => not_a_range(text, "not a range of addresses"),
        });
    };
    let address: IpAddr =
        address.parse().map_err(|_| not_a_range(text, "not an IP address before the slash"))?;
    let (family, most) = if address.is_ipv4() { ("IPv4", 32) } else { ("IPv6", 128) };
    let length = length
        .parse()
        .ok()
        // The digits alone: `u8` also reads "+8".
        .filter(|_| length.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|length| IpNet::new(address, length).ok());
    let Some(range) = length else {
        return Err(text
            .problem(format!("\"{}\" has no valid prefix length", text.get()))
            .label(format!("an {family} prefix has 0 to {most} bits")));
    };
    if range != range.trunc() {
        return Err(text
            .problem(format!("{range} has bits set behind its prefix"))
            .label("this is an address within a range")
            .help(format!(
                "the range is {}; the one address is {}",
                range.trunc(),
                IpNet::from(address)
            )));
    }
    Ok(range)
}

/// Reads an address.
pub(super) fn parse_address(text: &Located<String>) -> Result<IpAddr, Problem> {
    text.parse().map_err(|_| {
        let problem = text.problem(format!("\"{}\" is not an IP address", text.get()));
        match text.parse::<IpNet>() {
            Ok(net) => problem
                .label("a range, where one address is expected")
                .help(format!("without the prefix length it is {}", net.addr())),
            Err(_) => problem.label("not an IP address"),
        }
    })
}

/// The first four addresses of a subnet's range and the last are the cloud's own (semantics 1d;
/// interfaces: `[[endpoint]]`): network, router, resolver, one for later, broadcast.
pub(super) fn is_reserved(range: &IpNet, address: IpAddr) -> bool {
    const FIRST: u128 = 4;
    address == range.broadcast() || bits(address) - bits(range.network()) < FIRST
}

/// The next higher address, if the family has one.
pub(super) fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

/// Pairs of ranges that overlap: of two ranges that do, one always contains the other. Each range
/// is told at most once as the smaller one.
pub(super) fn overlaps<T: Copy>(mut ranges: Vec<(IpNet, T)>) -> Vec<((IpNet, T), (IpNet, T))> {
    // Sorted, whatever a range contains follows it directly. The sort is stable.
    ranges.sort_by_key(|(range, _)| *range);
    let mut pairs = Vec::new();
    let mut cover: Option<(IpNet, T)> = None;
    for range in ranges {
        match cover {
            Some(cover) if cover.0.contains(&range.0) => pairs.push((cover, range)),
            _ => cover = Some(range),
        }
    }
    pairs
}

fn not_a_range(text: &Located<String>, label: &str) -> Problem {
    text.problem(format!("\"{}\" is not a range of addresses", text.get()))
        .label(label)
        .help("write one like 10.0.0.0/16 or fd00:10::/48")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(text: &str) -> Located<String> {
        Located::new(text.to_owned(), 0..text.len())
    }

    #[test]
    fn ranges_are_networks() {
        for good in ["0.0.0.0/0", "10.0.0.0/16", "10.0.0.1/32", "::/0", "fd00:10::/48"] {
            assert_eq!(parse_cidr(&located(good)).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0/16",
            "a/8",
            "10.0.0.1/24",
            "fd00::1/64",
            "::/129",
            "10.0.0.0/16 ",
            "010.0.0.0/8",
        ] {
            parse_cidr(&located(bad)).unwrap_err();
        }
    }

    #[test]
    fn five_addresses_of_a_range_are_reserved() {
        let range = "10.0.101.0/28".parse().unwrap();
        let free: Vec<u8> =
            (0..16).filter(|last| !is_reserved(&range, [10, 0, 101, *last].into())).collect();
        assert_eq!(free, (4..15).collect::<Vec<u8>>());
        let range = "fd00::/64".parse().unwrap();
        assert!(is_reserved(&range, "fd00::3".parse().unwrap()));
        assert!(!is_reserved(&range, "fd00::4".parse().unwrap()));
    }

    #[test]
    fn overlaps_are_told_once_for_each_smaller_range() {
        let ranges =
            ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "11.0.0.0/8", "10.2.0.0/16", "::/0"];
        let numbered =
            ranges.iter().enumerate().map(|(i, range)| (range.parse().unwrap(), i)).collect();
        let found: Vec<_> =
            overlaps(numbered).into_iter().map(|(a, b)| (ranges[a.1], ranges[b.1])).collect();
        assert_eq!(
            found,
            [
                ("10.0.0.0/8", "10.1.0.0/16"),
                ("10.0.0.0/8", "10.1.1.0/24"),
                ("10.0.0.0/8", "10.2.0.0/16"),
            ]
        );
    }
}
