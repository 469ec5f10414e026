//! The virtio-net header in front of every packet of a TUN with offload (`struct virtio_net_hdr`,
//! VIRTIO 1.2 §5.1.6), in its legacy form: 10 bytes, numbers in the byte order of the machine.

use crate::offload::{Offload, PartialChecksum, Segmentation};

/// Length of the header in bytes.
pub(crate) const HEADER: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is unfinished.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_NONE`
const GSO_NONE: u8 = 0;
/// `VIRTIO_NET_HDR_GSO_TCPV4`
const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`
const GSO_TCPV6: u8 = 4;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`: datagrams, unlike `GSO_UDP` (3), which is fragments.
const GSO_UDP_L4: u8 = 5;
/// `VIRTIO_NET_HDR_GSO_ECN`: CWR is set.
const GSO_ECN: u8 = 0x80;

/// `None` if the header asks for what was not offered to the kernel.
pub(crate) fn decode(header: [u8; HEADER]) -> Option<Offload> {
    let [flags, kind, fields @ ..] = header;
    let [h0, h1, g0, g1, s0, s1, o0, o1] = fields;
    let size = u16::from_ne_bytes([g0, g1]);
    let ecn = kind & GSO_ECN != 0;
    let segment = match kind & !GSO_ECN {
        GSO_NONE => Segmentation::None,
        GSO_TCPV4 | GSO_TCPV6 => Segmentation::Tcp { size, ecn },
        GSO_UDP_L4 => Segmentation::Udp { size },
        _ => return None,
    };
    let checksum = (flags & NEEDS_CSUM != 0).then(|| PartialChecksum {
        start: u16::from_ne_bytes([s0, s1]),
        offset: u16::from_ne_bytes([o0, o1]),
    });
    Some(Offload { segment, checksum, hdr_len: u16::from_ne_bytes([h0, h1]) })
}

/// `version` is that of the packet's IP header.
pub(crate) fn encode(offload: &Offload, version: u8) -> [u8; HEADER] {
    let tcp = if version == 6 { GSO_TCPV6 } else { GSO_TCPV4 };
    let (kind, size) = match offload.segment {
        Segmentation::None => (GSO_NONE, 0),
        Segmentation::Tcp { size, ecn: false } => (tcp, size),
        Segmentation::Tcp { size, ecn: true } => (tcp | GSO_ECN, size),
        Segmentation::Udp { size } => (GSO_UDP_L4, size),
    };
    let (flags, start, offset) = match offload.checksum {
        None => (0, 0, 0),
        Some(PartialChecksum { start, offset }) => (NEEDS_CSUM, start, offset),
    };
    let ([h0, h1], [g0, g1]) = (offload.hdr_len.to_ne_bytes(), size.to_ne_bytes());
    let ([s0, s1], [o0, o1]) = (start.to_ne_bytes(), offset.to_ne_bytes());
    [flags, kind, h0, h1, g0, g1, s0, s1, o0, o1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let partial = Some(PartialChecksum { start: 40, offset: 16 });
        let cases = [
            (Segmentation::None, None),
            (Segmentation::None, partial),
            (Segmentation::Tcp { size: 1448, ecn: false }, partial),
            (Segmentation::Tcp { size: 65_535, ecn: true }, partial),
            (Segmentation::Udp { size: 1 }, Some(PartialChecksum { start: 20, offset: 6 })),
        ];
        for (segment, checksum) in cases {
            for version in [4, 6] {
                let offload = Offload { segment, checksum, hdr_len: 72 };
                assert_eq!(decode(encode(&offload, version)), Some(offload));
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_kernel() {
        let offload = Offload {
            segment: Segmentation::Tcp { size: 0x0102, ecn: true },
            checksum: Some(PartialChecksum { start: 0x0304, offset: 0x0506 }),
            hdr_len: 0x0708,
        };
        let mut expected = [1, 0x84, 8, 7, 2, 1, 4, 3, 6, 5];
        if cfg!(target_endian = "big") {
            expected[2..].as_chunks_mut::<2>().0.iter_mut().for_each(|pair| pair.reverse());
        }
        assert_eq!(encode(&offload, 6), expected);
        expected[1] = 0x81;
        assert_eq!(encode(&offload, 4), expected);
    }

    #[test]
    fn fragmentation_offload_was_never_offered() {
        assert_eq!(decode([0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(decode([0, 2, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
