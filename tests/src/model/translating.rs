//! Addresses at an internet gateway: one to one, and "it happens at the attachment, before anything
//! else looks at an address".

use std::net::IpAddr;
use std::ops::Range;

use geneve::checksum::{Integrity, verify};
use geneve::{Inner, Transport, protocol};
use router::AddressMapping;

/// Which way a packet passes the internet gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A public destination becomes private, and of a packet that an ICMP error quotes the source.
    In,
    /// A private source becomes public, and of a packet that an ICMP error quotes the destination.
    Out,
}

impl Way {
    /// Whether a packet became another as these addresses ask for, and nothing else of it has changed
    /// but checksums: right ones are right afterwards.
    pub(super) fn is_translated(
        self,
        before: &[u8],
        after: &[u8],
        addresses: &[AddressMapping],
    ) -> bool {
        // What is behind the end that its header names is no part of a packet.
        let end = Inner::parse(before).map(|inner| inner.total_len);
        let before = end.ok().and_then(|end| before.get(..end)).unwrap_or(before);
        if addresses.is_empty() || before.first().is_none_or(|first| first >> 4 != 4) {
            return before == after;
        }
        let (Ok(was), Ok(is)) = (Inner::parse(before), Inner::parse(after)) else { return false };
        let becomes = |address| self.becomes(address, addresses).unwrap_or(address);
        let ends = match self {
            Way::In => (was.src, becomes(was.dst)),
            Way::Out => (becomes(was.src), was.dst),
        };
        if before.len() != after.len() || (is.src, is.dst) != ends {
            return false;
        }
        if before == after {
            return (was.src, was.dst) == ends && !self.concerns_quote(&was, before, addresses);
        }
        let valid = |inner: &Inner, packet: &[u8]| verify(inner, packet) == Integrity::Valid;
        if valid(&was, before) && !valid(&is, after) {
            return false;
        }
        let may_change = self.may_change(&was, before);
        let stays = |at: &usize| !may_change.iter().any(|range| range.contains(at));
        (0..before.len()).filter(stays).all(|at| before[at] == after[at])
    }

    fn becomes(self, address: IpAddr, addresses: &[AddressMapping]) -> Option<IpAddr> {
        let found = addresses.iter().find(|it| match self {
            Way::In => it.public == address,
            Way::Out => it.private == address,
        })?;
        Some(match self {
            Way::In => found.private,
            Way::Out => found.public,
        })
    }

    /// Whether an ICMP error quotes a packet with an address that becomes another.
    fn concerns_quote(self, inner: &Inner, packet: &[u8], addresses: &[AddressMapping]) -> bool {
        let Transport::IcmpError { about, .. } = inner.transport else { return false };
        let quoted = packet.get(inner.header_len + 8 + 16..).is_some_and(|rest| rest.len() >= 4);
        let address = match self {
            Way::In => about.src(),
            Way::Out => about.dst(),
        };
        quoted && self.becomes(address, addresses).is_some()
    }

    /// The bytes that may differ afterwards: an address and the checksums over it.
    fn may_change(self, inner: &Inner, packet: &[u8]) -> Vec<Range<usize>> {
        let (address, quoted) = match self {
            Way::In => (16..20, 12..16),
            Way::Out => (12..16, 16..20),
        };
        let upper = inner.header_len;
        let two = |at: usize| at..at + 2;
        let mut ranges = vec![two(10), address];
        match inner.protocol {
            protocol::TCP => ranges.push(two(upper + 16)),
            protocol::UDP => ranges.push(two(upper + 6)),
            protocol::ICMP => {
                let quote = upper + 8;
                let header = packet.get(quote).map_or(0, |first| usize::from(first & 0xf) * 4);
                ranges.extend([two(upper + 2), two(quote + 10)]);
                ranges.push(quote + quoted.start..quote + quoted.end);
                ranges.extend([two(quote + header + 6), two(quote + header + 16)]);
            }
            _ => {}
        }
        ranges
    }
}
