//! What hosts do with fragments (RFC 791 section 3.2, RFC 8200 section 4.5).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use etherparse::{IpNumber, Ipv4Header, Ipv6Header};
use geneve::checksum;
use geneve::{Fragment, Inner, IpVersion};

/// As long as Linux waits for the rest (`net.ipv4.ipfrag_time`).
const PATIENCE: Duration = Duration::from_secs(30);

/// Fragments that wait for others.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    waiting: BTreeMap<Id, Pieces>,
}

/// VPC, source, destination, protocol, identification.
type Id = (u8, IpAddr, IpAddr, u8, u32);

#[derive(Debug)]
struct Pieces {
    begun: Duration,
    /// By where they begin, in bytes.
    parts: BTreeMap<usize, Vec<u8>>,
    /// How long the whole is, when that is known.
    len: Option<usize>,
}

impl Reassembly {
    /// Takes a packet; gives a whole one, if there is one.
    pub fn take(&mut self, vpc: u8, packet: Vec<u8>, now: Duration) -> Option<Vec<u8>> {
        let inner = Inner::parse(&packet).ok()?;
        let (id, offset) = match inner.fragment {
            Fragment::Whole => return Some(packet),
            _ if inner.version == IpVersion::V4
                && checksum::of(&packet[..inner.header_len]) != 0 =>
            {
                return None;
            }
            Fragment::First { id } => (id, 0),
            Fragment::Later { id, offset } => (id, usize::from(offset) * 8),
        };
        let protocol = inner.flow_key().protocol();
        let key = (vpc, inner.src, inner.dst, protocol, id);
        let pieces = self.waiting.entry(key).or_insert(Pieces {
            begun: now,
            parts: BTreeMap::new(),
            len: None,
        });
        if pieces.begun + PATIENCE < now {
            *pieces = Pieces { begun: now, parts: BTreeMap::new(), len: None };
        }
        let part = packet[inner.header_len..inner.total_len].to_vec();
        if !more_follow(&packet, &inner) {
            pieces.len = Some(offset + part.len());
        }
        pieces.parts.insert(offset, part);
        let mut whole = Vec::new();
        for (&at, part) in &pieces.parts {
            if at != whole.len() {
                return None;
            }
            whole.extend_from_slice(part);
        }
        if pieces.len != Some(whole.len()) {
            return None;
        }
        self.waiting.remove(&key);
        joined(&packet, &inner, protocol, &whole)
    }
}

fn more_follow(packet: &[u8], inner: &Inner) -> bool {
    match inner.version {
        IpVersion::V4 => packet[6] & 0x20 != 0,
        IpVersion::V6 => packet[inner.header_len - 5] & 1 != 0,
    }
}

/// The packet with these headers and this payload. Nobody here sends fragments with other
/// extension headers.
fn joined(packet: &[u8], inner: &Inner, protocol: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let head = match inner.version {
        IpVersion::V4 => {
            let (mut ip, _) = Ipv4Header::from_slice(packet).ok()?;
            ip.more_fragments = false;
            ip.fragment_offset = etherparse::IpFragOffset::ZERO;
            ip.set_payload_len(payload.len()).ok()?;
            ip.header_checksum = ip.calc_header_checksum();
            ip.to_bytes().to_vec()
        }
        IpVersion::V6 => {
            let (mut ip, _) = Ipv6Header::from_slice(packet).ok()?;
            ip.next_header = IpNumber(protocol);
            ip.set_payload_length(payload.len()).ok()?;
            ip.to_bytes().to_vec()
        }
    };
    Some([&head, payload].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::{Ip, fragments};

    #[test]
    fn what_was_cut_is_whole_again_in_any_order() {
        for (src, dst) in [("192.0.2.1", "10.0.0.2"), ("2001:db8::1", "fd00::2")] {
            let packet = Ip::new(src, dst).may_fragment().identification(9).udp((1, 2), &[7; 300]);
            let mut reassembly = Reassembly::default();
            let pieces = fragments(&packet, 9, 64);
            let last = pieces.len() - 1;
            for (number, piece) in pieces.into_iter().rev().enumerate() {
                let whole = reassembly.take(0, piece, Duration::ZERO);
                let expected = (number == last).then(|| packet.clone());
                assert_eq!(whole, expected, "{number}");
            }
        }
    }
}
