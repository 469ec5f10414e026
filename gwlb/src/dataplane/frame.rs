//! A packet with what one look at it tells: its parsed form, and how many segments it stands for.

use geneve::inner::{Fragment, Inner, Plain, TcpFlags, Transport};
use netio::offload::{Offload, Segmentation};

use super::verdict::DropReason;

/// A packet or super-packet that was looked at once, for all that follows.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Its bytes, as many as its IP header says.
    pub packet: &'a [u8],
    /// What its device left to be done.
    pub offload: &'a Offload,
    /// Its parsed form.
    pub inner: Inner,
    /// What it stands for.
    pub shape: Shape,
}

impl<'a> Frame<'a> {
    /// Looks at a packet.
    ///
    /// # Errors
    /// The reason to drop it if it is no valid IP packet.
    #[inline]
    pub fn parse(packet: &'a [u8], offload: &'a Offload) -> Result<Self, DropReason> {
        let inner = Inner::parse(packet).map_err(|_| DropReason::MalformedPacket)?;
        // What lies behind the packet is no part of it: it was not measured against any MTU.
        let packet = &packet[..inner.total_len];
        let shape = Shape::of(&inner, offload);
        Ok(Self { packet, offload, inner, shape })
    }

    /// How many packets it stands for.
    #[inline]
    pub fn segments(&self) -> u64 {
        self.shape.segments.into()
    }

    /// Bytes of the packets that it stands for, IP headers included.
    #[inline]
    pub fn bytes(&self) -> u64 {
        let transport = match self.inner.transport {
            Transport::Tcp { header_len, .. } => header_len,
            Transport::Udp { .. } => UDP_HEADER,
            _ => 0,
        };
        self.shape.bytes(self.inner.total_len, self.inner.header_len + transport)
    }
}

/// UDP's header (RFC 768).
const UDP_HEADER: usize = 8;

/// The shape of a packet or super-packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How many packets it stands for: 1 unless it is a super-packet.
    pub segments: u32,
    /// The largest of them, in bytes, IP header included.
    pub largest: u32,
}

impl Shape {
    /// The shape of `inner`, as the device said it is to be segmented.
    #[inline]
    pub fn of(inner: &Inner, offload: &Offload) -> Self {
        let (size, transport) = match (offload.segment, &inner.transport) {
            (Segmentation::Tcp { size, .. }, Transport::Tcp { header_len, .. }) => {
                (size, *header_len)
            }
            (Segmentation::Udp { size }, Transport::Udp { .. }) => (size, UDP_HEADER),
            _ => (0, 0),
        };
        Self::cut(inner.total_len, inner.header_len + transport, size)
    }

    /// The same for an ordinary packet.
    #[inline]
    pub fn of_plain(plain: &Plain, offload: &Offload) -> Self {
        let size = match offload.segment {
            Segmentation::Tcp { size, .. } if plain.is_tcp() => size,
            Segmentation::Udp { size } if !plain.is_tcp() => size,
            _ => 0,
        };
        Self::cut(plain.total_len(), plain.header_len(), size)
    }

    /// Bytes of all segments of a packet of so many bytes, of which so many are headers.
    #[inline]
    pub fn bytes(self, total_len: usize, headers: usize) -> u64 {
        total_len as u64 + u64::from(self.segments - 1) * headers as u64
    }

    /// Of so many bytes, of which so many are headers that each segment has; with as much payload in
    /// each as `size` says, if that is not 0.
    #[inline]
    fn cut(total_len: usize, headers: usize, size: u16) -> Self {
        let (size, payload) = (usize::from(size), total_len.saturating_sub(headers));
        if size == 0 || payload <= size {
            return Self { segments: 1, largest: total_len as u32 };
        }
        Self { segments: payload.div_ceil(size) as u32, largest: (headers + size) as u32 }
    }
}

/// What a TCP segment or super-packet says of its connection's numbers (RFC 9293 section 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpNumbers {
    /// The sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// Which byte its sender expects next; `None` without the ACK flag.
    pub ack: Option<u32>,
    /// Bytes of payload, of all segments together; neither SYN nor FIN counts.
    pub len: u32,
}

impl TcpNumbers {
    /// Reads them from the packet that `inner` was parsed from; `None` if that is no whole TCP
    /// segment: a fragment does not tell how much follows.
    #[inline]
    pub fn of(packet: &[u8], inner: &Inner) -> Option<Self> {
        let Transport::Tcp { flags, header_len, .. } = inner.transport else { return None };
        if inner.fragment != Fragment::Whole {
            return None;
        }
        // Behind the ports.
        let (_, numbers) = packet.get(inner.header_len..)?.split_first_chunk::<4>()?;
        let (seq, rest) = numbers.split_first_chunk::<4>()?;
        let ack = rest.first_chunk::<4>()?;
        let payload = inner.total_len.saturating_sub(inner.header_len + header_len);
        Some(Self {
            seq: u32::from_be_bytes(*seq),
            ack: flags.contains(TcpFlags::ACK).then(|| u32::from_be_bytes(*ack)),
            len: payload as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use geneve::arbitrary;
    use proptest::prelude::*;

    use super::super::testing::{CLIENT, SERVER, ack, syn, udp};
    use super::*;

    #[test]
    fn the_numbers_of_a_segment_are_read() {
        let of = |packet: &[u8]| TcpNumbers::of(packet, &Inner::parse(packet).unwrap());
        let segment = ack(CLIENT, SERVER, (1, 80), b"hello");
        assert_eq!(of(&segment), Some(TcpNumbers { seq: 1001, ack: Some(77), len: 5 }));
        let padded = [&segment[..], &[0; 9]].concat();
        assert_eq!(of(&padded), of(&segment), "what lies behind is no payload");
        let opening = syn(CLIENT, SERVER, (1, 80));
        assert_eq!(of(&opening), Some(TcpNumbers { seq: 1000, ack: None, len: 0 }));
        let mut fragment = segment;
        fragment[6] = 0x20;
        assert_eq!(of(&fragment), None);
        assert_eq!(of(&udp(CLIENT, SERVER, (1, 80), b"hello")), None);
    }

    proptest! {
        #[test]
        fn numbers_are_there_for_whole_tcp_only(packet in arbitrary::packet()) {
            let numbers = TcpNumbers::of(&packet.bytes, &packet.inner);
            let tcp = matches!(packet.inner.transport, Transport::Tcp { .. });
            let whole = packet.inner.fragment == Fragment::Whole;
            prop_assert_eq!(numbers.is_some(), tcp && whole);
        }
    }

    #[test]
    fn bytes_behind_a_packet_are_no_part_of_it() {
        let packet = udp(CLIENT, SERVER, (1, 2), b"hello");
        let padded = [&packet[..], &[0; 1500]].concat();
        let frame = Frame::parse(&padded, &Offload::NONE).unwrap();
        assert_eq!(frame.packet, &packet);
        assert_eq!(frame.shape, Shape { segments: 1, largest: packet.len() as u32 });
    }
}
