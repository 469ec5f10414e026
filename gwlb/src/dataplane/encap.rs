//! From a packet and its Geneve header to what a UDP socket sends, without copying payload.
//!
//! A super-packet becomes one datagram for each of its segments, in as few sends as fit; each send
//! is a list of pieces, headers from here and payload from where the packet lies.

use std::io::IoSlice;

use netio::offload::{OffloadError, Segmenter};
use netio::udp::{MAX_GSO_BYTES, MAX_GSO_SEGMENTS};

use super::frame::Frame;
use super::verdict::GeneveHeader;

/// Datagrams for one send: all but the last have the same size.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The size of each datagram but the last, which may be shorter.
    pub segment_size: u16,
    /// Two pieces for each datagram: headers, then payload.
    pub pieces: &'a [IoSlice<'a>],
}

impl<'a> Batch<'a> {
    /// How many datagrams.
    pub fn segments(&self) -> usize {
        self.pieces.len() / 2
    }

    /// The datagrams one by one, for a kernel that refuses them together.
    pub fn singly(&self) -> impl Iterator<Item = Batch<'a>> {
        self.pieces.chunks(2).map(|pieces| Batch {
            segment_size: pieces.iter().map(|piece| piece.len()).sum::<usize>() as u16,
            pieces,
        })
    }
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
        let segmenter = Segmenter::new(frame.packet, &frame.inner, frame.offload)?;
        let geneve = header.as_bytes();
        // One stride for each segment: the Geneve header, then the inner headers.
        let stride = geneve.len() + segmenter.header_len();
        let count = segmenter.count();
        if self.headers.len() < stride * count {
            self.headers.resize(stride * count, 0);
        }

        let mut lengths = [(0usize, (0usize, 0usize)); MAX_GSO_SEGMENTS];
        let largest = geneve.len() + segmenter.segment_len();
        let per_send = balanced(count, (MAX_GSO_BYTES / largest.max(1)).min(MAX_GSO_SEGMENTS));
        let mut next = 0;
        while next < count {
            let batch = per_send.min(count - next);
            for (i, room) in self.headers.chunks_mut(stride).take(batch).enumerate() {
                let (front, rest) = room.split_at_mut(geneve.len());
                front.copy_from_slice(geneve);
                let segment = segmenter.segment(next + i, rest);
                lengths[i] = (
                    geneve.len() + segment.header_len,
                    (segment.payload.start, segment.payload.end),
                );
            }
            let mut pieces =
                std::array::from_fn::<_, { 2 * MAX_GSO_SEGMENTS }, _>(|_| IoSlice::new(&[]));
            for (i, room) in self.headers.chunks(stride).take(batch).enumerate() {
                let (header_len, (start, end)) = lengths[i];
                pieces[2 * i] = IoSlice::new(&room[..header_len]);
                pieces[2 * i + 1] = IoSlice::new(&frame.packet[start..end]);
            }
            let segment_size = (pieces[0].len() + pieces[1].len()) as u16;
            send(&Batch { segment_size, pieces: &pieces[..2 * batch] });
            next += batch;
        }
        Ok(())
    }
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
