//! The packet that probes the way through an appliance: how it is written, and how it is told from
//! all others when it comes back.

use std::net::{IpAddr, SocketAddr};

use geneve::checksum::{self, Sum};
use geneve::dialect::{Dialect, Tags};
use geneve::flow::FlowKey;
use geneve::header::ProtocolType;
use geneve::inner::protocol;

use crate::control::health::CheckId;
use crate::dataplane::keys::Keys;
use crate::dataplane::select::TargetId;
use crate::dataplane::snapshot::TunnelFlow;

/// Both ports of a probe. From the dynamic range (RFC 6335 §6), so that no service listens there
/// and no rule of an appliance for a known port applies by chance; above Linux's own ephemeral
/// ports (up to 60999), so that no socket of the probed addresses has it; always the same, so that
/// an appliance can be told to let it pass. Not Geneve's own: appliances look for tunnels there.
pub const PORT: u16 = 61_081;

/// What a probe says behind its UDP header: the mark, check, sequence number, length of the packet
/// and of what is behind this header; then zeros.
const PAYLOAD: usize = 8 + 8 + 4 + 2 + 2;
const UDP: usize = 8;
const TTL: u8 = 64;

/// A probe that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recognised {
    /// Whose it is.
    pub check: CheckId,
    /// Which of its probes.
    pub sequence: u32,
    /// The length of the inner packet in bytes.
    pub size: u16,
}

/// Who sends a probe to whom, and behind which header.
#[derive(Debug, Clone, Copy)]
pub(in crate::control) struct Way {
    /// The addresses and ports inside; both addresses are of one family.
    pub flow: TunnelFlow,
    /// The wire id of the endpoint that it seems to come through.
    pub endpoint: u64,
    pub target: TargetId,
    pub dialect: &'static Dialect,
}

/// Whether the payload of a returned inner UDP packet is that of a probe which a gateway with our
/// secret has sent, whole and unchanged.
pub fn recognise(keys: &Keys, payload: &[u8]) -> Option<Recognised> {
    let (mark, rest) = payload.split_first_chunk::<8>()?;
    let (check, rest) = rest.split_first_chunk::<8>()?;
    let (sequence, rest) = rest.split_first_chunk::<4>()?;
    let (size, rest) = rest.split_first_chunk::<2>()?;
    let (len, padding) = rest.split_first_chunk::<2>()?;
    let recognised = Recognised {
        check: CheckId::new(u64::from_be_bytes(*check)),
        sequence: u32::from_be_bytes(*sequence),
        size: u16::from_be_bytes(*size),
    };
    let whole = payload.len() == usize::from(u16::from_be_bytes(*len));
    let genuine = *mark == mark_of(keys, &recognised, *len);
    (whole && genuine && padding.iter().all(|&byte| byte == 0)).then_some(recognised)
}

/// The keyed hash that nobody without the secret can make.
fn mark_of(keys: &Keys, probe: &Recognised, len: [u8; 2]) -> [u8; 8] {
    let mut bytes = [0; 8 + 4 + 2 + 2];
    bytes[..8].copy_from_slice(&probe.check.get().to_be_bytes());
    bytes[8..12].copy_from_slice(&probe.sequence.to_be_bytes());
    bytes[12..14].copy_from_slice(&probe.size.to_be_bytes());
    bytes[14..].copy_from_slice(&len);
    keys.probe.hash(&bytes).to_be_bytes()
}

/// The length of the smallest inner packet that can be a probe, in bytes.
pub(in crate::control) fn smallest(flow: &TunnelFlow) -> u16 {
    (ip_len(flow) + UDP + PAYLOAD) as u16
}

fn ip_len(flow: &TunnelFlow) -> usize {
    if flow.source.is_ipv4() { 20 } else { 40 }
}

/// The UDP payload of a probe whose inner packet has `size` bytes: Geneve header, inner packet.
/// What no probe can be as small as is made as small as one can be.
pub(in crate::control) fn write(
    keys: &Keys,
    way: &Way,
    check: CheckId,
    sequence: u32,
    size: u16,
) -> Vec<u8> {
    let Way { flow, endpoint, target, dialect } = *way;
    let size = size.max(smallest(&flow));
    let probe = Recognised { check, sequence, size };
    let ends = [flow.source, flow.destination].map(|ip| SocketAddr::new(ip, flow.port));
    // The caller has one family; if it had not, no appliance would take the packet.
    let cookie = FlowKey::new(ends[0], ends[1], protocol::UDP)
        .map_or(0, |key| keys.cookie.stamp(endpoint, target, &key.canonical()));
    let tags = Tags { endpoint, attachment: 0, cookie };
    let ethertype = if flow.source.is_ipv4() { ProtocolType::IPV4 } else { ProtocolType::IPV6 };

    let mut packet = vec![0; dialect.header_len()];
    // The room is what the dialect asks for.
    let _ = dialect.write(&tags, ethertype, &mut packet);
    let udp_len = usize::from(size) - ip_len(&flow);
    packet.extend(ip_header(&flow, size));
    let mut udp = Vec::with_capacity(udp_len);
    udp.extend(flow.port.to_be_bytes());
    udp.extend(flow.port.to_be_bytes());
    udp.extend((udp_len as u16).to_be_bytes());
    udp.extend([0, 0]);
    let len = ((udp_len - UDP) as u16).to_be_bytes();
    udp.extend(mark_of(keys, &probe, len));
    udp.extend(check.get().to_be_bytes());
    udp.extend(sequence.to_be_bytes());
    udp.extend(size.to_be_bytes());
    udp.extend(len);
    udp.resize(udp_len, 0);
    let mut sum = Sum::pseudo_header(flow.source, flow.destination, protocol::UDP, udp_len as u32);
    sum.add(&udp);
    udp[6..8].copy_from_slice(&sum.finish_udp().to_be_bytes());
    packet.extend(udp);
    packet
}

/// The inner IP header. IPv4 has "don't fragment" set: a piece that comes back proves nothing.
fn ip_header(flow: &TunnelFlow, size: u16) -> Vec<u8> {
    let mut header = vec![0; ip_len(flow)];
    let addresses = match (flow.source, flow.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            [source.octets(), destination.octets()].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            [source.octets(), destination.octets()].concat()
        }
        _ => return header,
    };
    let start = header.len() - addresses.len();
    header[start..].copy_from_slice(&addresses);
    if flow.source.is_ipv4() {
        header[0] = 0x45;
        header[2..4].copy_from_slice(&size.to_be_bytes());
        header[6] = 0x40;
        header[8] = TTL;
        header[9] = protocol::UDP;
        let checksum = checksum::of(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        header[0] = 0x60;
        header[4..6].copy_from_slice(&(size - 40).to_be_bytes());
        header[6] = protocol::UDP;
        header[7] = TTL;
    }
    header
}

#[cfg(test)]
mod tests {
    use geneve::checksum::Integrity;
    use geneve::header::Header;
    use geneve::inner::Inner;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::dataplane::keys::Secret;

    fn keys(secret: u8) -> Keys {
        Keys::derive(&Secret::from_bytes([secret; Secret::LEN]), 5)
    }

    fn way(v6: bool) -> Way {
        let [source, destination] = if v6 {
            ["fd00::4", "fd00::5"].map(|ip| ip.parse().unwrap())
        } else {
            ["10.0.101.4", "10.0.101.5"].map(|ip| ip.parse().unwrap())
        };
        let target = TargetId::new("fw", SocketAddr::from(([192, 0, 2, 11], 6081)));
        let flow = TunnelFlow { source, destination, port: PORT };
        Way { flow, endpoint: 7, target, dialect: &Dialect::AWS }
    }

    #[rstest]
    #[case::v4(false, 0, 52)]
    #[case::v4_large(false, 1432, 1432)]
    #[case::v6(true, 0, 72)]
    #[case::v6_large(true, 1280, 1280)]
    fn a_probe_is_a_sound_packet_of_its_size(
        #[case] v6: bool,
        #[case] size: u16,
        #[case] expected: usize,
    ) {
        let way = way(v6);
        let packet = write(&keys(1), &way, CheckId::new(9), 77, size);
        let (header, inner) = Header::parse(&packet).unwrap();
        let parsed = Inner::parse(inner).unwrap();
        assert_eq!((parsed.total_len, inner.len()), (expected, expected));
        assert_eq!(geneve::checksum::verify(&parsed, inner), Integrity::Valid);
        assert_eq!((parsed.src, parsed.dst), (way.flow.source, way.flow.destination));
        assert_eq!(parsed.ports(), Some((PORT, PORT)));
        let tags = Dialect::AWS.read(&header).unwrap();
        assert_eq!(tags.endpoint, 7);
        let flow = parsed.flow_key().canonical();
        assert!(keys(1).cookie.verify(tags.cookie, 7, way.target, &flow));

        let payload = &inner[parsed.header_len + UDP..];
        let expected = Recognised { check: CheckId::new(9), sequence: 77, size: expected as u16 };
        assert_eq!(recognise(&keys(1), payload), Some(expected));
        assert_eq!(recognise(&keys(2), payload), None, "made with another secret");
    }

    #[test]
    fn the_mark_does_not_change_with_the_calendar() {
        let before = write(&keys(1), &way(false), CheckId::new(9), 77, 0);
        let payload = &before[40 + 28..];
        let after = Keys::derive(&Secret::from_bytes([1; Secret::LEN]), 6);
        assert!(recognise(&after, payload).is_some());
    }

    proptest! {
        #[test]
        fn what_is_changed_or_cut_is_not_recognised(size in 52u16..300, at: usize, bit in 0u8..8) {
            let packet = write(&keys(1), &way(false), CheckId::new(9), 77, size);
            let mut payload = packet[40 + 28..].to_vec();
            let at = at % payload.len();
            prop_assert_eq!(recognise(&keys(1), &payload[..at]), None);
            payload[at] ^= 1 << bit;
            prop_assert_eq!(recognise(&keys(1), &payload), None);
        }

        #[test]
        fn noise_is_not_recognised(payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(recognise(&keys(1), &payload), None);
        }
    }
}
