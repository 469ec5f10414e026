//! Packets that came by a device with offload and leave by one without: what the kernel would do is
//! done here. Only what passes by the appliances goes this way; what they return was cut before.

use std::io::IoSlice;

use geneve::Inner;
use netio::Device;
use netio::offload::{MAX_HEADERS, Offload, Segmenter};

/// Sends what a packet stands for, one by one and with whole checksums. Returns how many were sent.
pub(super) fn send(
    device: &mut impl Device<Meta = Offload>,
    packet: &[u8],
    offload: &Offload,
) -> u64 {
    let segmenter = Inner::parse(packet).ok();
    let segmenter = segmenter.and_then(|inner| Segmenter::new(packet, &inner, offload).ok());
    let Some(segmenter) = segmenter else { return 0 };
    let mut headers = [0; MAX_HEADERS];
    let mut sent = 0;
    for index in 0..segmenter.count() {
        let segment = segmenter.segment(index, &mut headers);
        let pieces = [&headers[..segment.header_len], &packet[segment.payload]].map(IoSlice::new);
        sent += u64::from(device.send(&Offload::NONE, &pieces).is_ok());
    }
    sent
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use geneve::checksum::{Integrity, Sum, verify};
    use netio::memory;
    use netio::offload::{PartialChecksum, Segmentation};

    use super::*;

    const TCP: u8 = 6;
    const CHECKSUM: PartialChecksum = PartialChecksum { start: 20, offset: 16 };

    /// A TCP packet of which only the pseudo-header is summed.
    fn unfinished(payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ipv4([203, 0, 113, 7], [10, 0, 1, 11], 64);
        let mut packet = Vec::new();
        builder.tcp(1000, 80, 1, 1024).ack(7).psh().write(&mut packet, payload).unwrap();
        let inner = Inner::parse(&packet).unwrap();
        let sum = Sum::pseudo_header(inner.src, inner.dst, TCP, packet.len() as u32 - 20);
        packet[36..38].copy_from_slice(&(!sum.finish()).to_be_bytes());
        packet
    }

    /// What comes out of a device that takes so many packets, and how many are said to be sent.
    fn through(room: usize, packet: &[u8], segment: Segmentation) -> (Vec<Vec<u8>>, u64) {
        let (mut device, mut other) = memory::pair(room);
        let offload = Offload { segment, checksum: Some(CHECKSUM), hdr_len: 40 };
        let sent = send(&mut device, packet, &offload);
        let mut packets = Vec::new();
        while let Some(slot) = other.take() {
            assert_eq!(slot.meta, Offload::NONE);
            packets.push(slot.packet.bytes().to_vec());
        }
        (packets, sent)
    }

    #[test]
    fn every_segment_is_a_whole_packet() {
        let payload: Vec<u8> = (0..=250).cycle().take(2500).collect();
        let cut = Segmentation::Tcp { size: 1000, ecn: false };
        for (packet, segment, count) in
            [(unfinished(&payload), cut, 3), (unfinished(&payload[..500]), Segmentation::None, 1)]
        {
            let (packets, sent) = through(8, &packet, segment);
            assert_eq!((packets.len() as u64, sent), (count, count));
            for packet in &packets {
                assert_eq!(verify(&Inner::parse(packet).unwrap(), packet), Integrity::Valid);
            }
            let together: Vec<u8> = packets.iter().flat_map(|it| it[40..].to_vec()).collect();
            assert_eq!(together, packet[40..]);
        }
    }

    #[test]
    fn what_the_device_refuses_is_not_said_to_be_sent() {
        let packet = unfinished(&[7; 2500]);
        let cut = Segmentation::Tcp { size: 1000, ecn: false };
        let (packets, sent) = through(2, &packet, cut);
        assert_eq!((packets.len(), sent), (2, 2));
        // A device may say anything of a packet.
        assert_eq!(through(8, &packet, Segmentation::Udp { size: 1000 }), (Vec::new(), 0));
        assert_eq!(through(8, &packet[..10], cut), (Vec::new(), 0));
    }
}
