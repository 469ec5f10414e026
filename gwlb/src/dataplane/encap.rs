//! From a packet and its Geneve header to what a UDP socket sends, without copying payload.
//!
//! A super-packet becomes one datagram for each of its segments, in as few sends as fit; each send
//! is a list of pieces, headers from here and payload from where the packet lies. So does a packet
//! that is to be fragmented.

use std::io::IoSlice;

use netio::offload::{Offload, OffloadError, Segment, Segmenter};
use netio::udp::{MAX_GSO_BYTES, MAX_GSO_SEGMENTS};

use super::fragmentation::{Fragmenter, may_fragment};
use super::frame::Frame;
use super::verdict::GeneveHeader;

/// Time to live, or hop limit, of outer packets: what AWS's gateways send with (the capture
/// `mercury-aws_geneve.pcap` of the corpus).
pub const HOP_LIMIT: u8 = 255;

/// Datagrams for one send: all but the last have the same size.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The size of each datagram but the last, which may be shorter.
    pub segment_size: u16,
    /// How many datagrams.
    pub segments: usize,
    /// Their bytes: one piece for all, or two for each (headers, payload).
    pub pieces: &'a [IoSlice<'a>],
}

impl Batch<'_> {
    /// How many bytes, Geneve headers included.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.segments == 0
    }

    /// Gives out the datagrams one by one, for a kernel that refuses them together.
    pub fn singly(&self, mut send: impl FnMut(&Batch<'_>)) {
        let mut single = |pieces: &[IoSlice<'_>]| {
            let segment_size = pieces.iter().map(|piece| piece.len()).sum::<usize>() as u16;
            send(&Batch { segment_size, segments: 1, pieces });
        };
        match self.pieces {
            [all] => all
                .chunks(usize::from(self.segment_size).max(1))
                .for_each(|datagram| single(&[IoSlice::new(datagram)])),
            pairs => pairs.chunks(2).for_each(single),
        }
    }
}

/// Puts `header` in front of a packet with which nothing is left to be done, and gives both to `send`.
#[inline]
pub fn encapsulate_whole(header: &GeneveHeader, packet: &[u8], send: impl FnOnce(&Batch<'_>)) {
    let geneve = header.as_bytes();
    let pieces = [IoSlice::new(geneve), IoSlice::new(packet)];
    let segment_size = (geneve.len() + packet.len()) as u16;
    send(&Batch { segment_size, segments: 1, pieces: &pieces });
}

/// Room for headers, kept from packet to packet.
#[derive(Debug, Default)]
pub struct Encapsulator {
    headers: Vec<u8>,
}

impl Encapsulator {
    /// Puts `header` in front of a packet, or in front of each of its segments, and gives the
    /// batches to `send` in order. Partial checksums are completed.
    pub fn encapsulate(
        &mut self,
        header: &GeneveHeader,
        frame: &Frame<'_>,
        mut send: impl FnMut(&Batch<'_>),
    ) -> Result<(), OffloadError> {
        if *frame.offload == Offload::NONE {
            encapsulate_whole(header, frame.packet, send);
            return Ok(());
        }
        let segmenter = Segmenter::new(frame.packet, &frame.inner, frame.offload)?;
        let geneve = header.as_bytes();
        // One stride for each segment: the Geneve header, then the inner headers.
        let stride = geneve.len() + segmenter.header_len();
        let count = segmenter.count();
        if self.headers.len() < stride * count {
            self.headers.resize(stride * count, 0);
        }

        if count == 1 {
            // Most packets; room for many would take longer to make than all the rest.
            let (front, rest) = self.headers.split_at_mut(geneve.len());
            front.copy_from_slice(geneve);
            let part = Part::behind(geneve, &segmenter.segment(0, rest));
            let headers = IoSlice::new(&self.headers[..part.header_len]);
            let pieces = [headers, IoSlice::new(&frame.packet[part.start..part.end])];
            send(&Batch { segment_size: part.len() as u16, segments: 1, pieces: &pieces });
            return Ok(());
        }

        let mut parts = [Part::default(); MAX_GSO_SEGMENTS];
        let largest = geneve.len() + segmenter.segment_len();
        let per_send = balanced(count, (MAX_GSO_BYTES / largest.max(1)).min(MAX_GSO_SEGMENTS));
        let mut next = 0;
        while next < count {
            let batch = per_send.min(count - next);
            for (i, room) in self.headers.chunks_mut(stride).take(batch).enumerate() {
                let (front, rest) = room.split_at_mut(geneve.len());
                front.copy_from_slice(geneve);
                parts[i] = Part::behind(geneve, &segmenter.segment(next + i, rest));
            }
            give_out(&self.headers, stride, &parts[..batch], frame.packet, &mut send);
            next += batch;
        }
        Ok(())
    }

    /// As [`encapsulate`](Self::encapsulate), with each packet or segment that is longer than `mtu`
    /// cut into fragments that are not. `mtu` is that of inner packets, in bytes; below
    /// [`MIN_MTU`](super::fragmentation::MIN_MTU) counts as that. What [may not be
    /// cut](may_fragment) goes out as it is, for the caller has decided about that.
    ///
    /// All pieces get the same `header`, so it is to be made for the flow without ports: later
    /// fragments show none. Returns how many pieces there were beyond the packet's segments, which
    /// the gateway has made.
    pub fn encapsulate_fragmented(
        &mut self,
        header: &GeneveHeader,
        frame: &Frame<'_>,
        mtu: u16,
        mut send: impl FnMut(&Batch<'_>),
    ) -> Result<u64, OffloadError> {
        if !may_fragment(&frame.inner) {
            return self.encapsulate(header, frame, send).map(|()| 0);
        }
        let mut fragmenter = Fragmenter::new(frame, mtu)?;
        let geneve = header.as_bytes();
        let stride = geneve.len() + fragmenter.header_len();
        // The last place is for the piece that does not fit into the batch any more.
        let mut parts = [Part::default(); MAX_GSO_SEGMENTS + 1];
        if self.headers.len() < stride * parts.len() {
            self.headers.resize(stride * parts.len(), 0);
        }
        let (mut waiting, mut bytes, mut total) = (0, 0, 0);
        loop {
            let room = &mut self.headers[stride * waiting..][..stride];
            let (front, rest) = room.split_at_mut(geneve.len());
            front.copy_from_slice(geneve);
            let Some(piece) = fragmenter.next(rest) else { break };
            let part = Part::behind(geneve, &piece);
            let (first, last) = (parts[0].len(), parts[waiting.saturating_sub(1)].len());
            let joins = waiting < MAX_GSO_SEGMENTS
                && bytes + part.len() <= MAX_GSO_BYTES
                && part.len() <= first
                && last == first;
            if waiting > 0 && !joins {
                give_out(&self.headers, stride, &parts[..waiting], frame.packet, &mut send);
                self.headers.copy_within(stride * waiting..stride * (waiting + 1), 0);
                (waiting, bytes) = (0, 0);
            }
            parts[waiting] = part;
            waiting += 1;
            bytes += part.len();
            total += 1;
        }
        give_out(&self.headers, stride, &parts[..waiting], frame.packet, &mut send);
        Ok(total - frame.segments())
    }
}

/// A datagram: so many bytes of headers, and these of the packet.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    header_len: usize,
    start: usize,
    end: usize,
}

impl Part {
    fn behind(geneve: &[u8], segment: &Segment) -> Self {
        let Segment { header_len, payload } = segment;
        Self { header_len: geneve.len() + header_len, start: payload.start, end: payload.end }
    }

    fn len(&self) -> usize {
        self.header_len + self.end - self.start
    }
}

/// Gives out datagrams as one batch. The headers of each stand in a stride of their own.
fn give_out(
    headers: &[u8],
    stride: usize,
    parts: &[Part],
    packet: &[u8],
    send: &mut impl FnMut(&Batch<'_>),
) {
    let mut pieces = std::array::from_fn::<_, { 2 * MAX_GSO_SEGMENTS }, _>(|_| IoSlice::new(&[]));
    for (i, (room, part)) in headers.chunks(stride).zip(parts).enumerate() {
        pieces[2 * i] = IoSlice::new(&room[..part.header_len]);
        pieces[2 * i + 1] = IoSlice::new(&packet[part.start..part.end]);
    }
    let segment_size = parts.first().map_or(0, Part::len) as u16;
    send(&Batch { segment_size, segments: parts.len(), pieces: &pieces[..2 * parts.len()] });
}

/// How many segments go into each send, so that the sends are as few as `most` allows and about
/// equally large: a full TSO packet of 45 segments goes out as 23 and 22, not as 42 and 3.
fn balanced(count: usize, most: usize) -> usize {
    let most = most.max(1);
    count.div_ceil(count.div_ceil(most).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_are_few_and_balanced() {
        for (count, most, expected) in
            [(1, 42, 1), (42, 42, 42), (45, 42, 23), (85, 42, 29), (3, 1, 1), (5, 0, 1)]
        {
            assert_eq!(balanced(count, most), expected, "{count} segments, {most} at most");
        }
    }
}
