//! Small packets that go out together: so few bytes cost less to copy than a system call.
//!
//! A send has one socket and one destination, which is what a *lane* stands for; packets of all
//! flows in a lane may mix, since each has its own header. Flows that interleave are in several
//! lanes, so several fill at the same time. Nothing is waited for: the caller flushes at the end of
//! every batch.

use std::io::IoSlice;

use netio::offload::{Offload, OffloadError, Segmenter};
use netio::udp::MAX_GSO_SEGMENTS;

use super::encap::Batch;
use super::frame::Frame;
use super::verdict::GeneveHeader;

/// Gathers small packets by lane. Packets of one lane leave in the order in which they came.
#[derive(Debug)]
pub struct Gatherer<L> {
    /// The first `used` have packets.
    lanes: Vec<(L, Gathered)>,
    used: usize,
}

impl<L> Default for Gatherer<L> {
    fn default() -> Self {
        Self { lanes: Vec::new(), used: 0 }
    }
}

impl<L: Copy + PartialEq> Gatherer<L> {
    /// Packets up to this size are gathered, in bytes: ACKs with all their options, and the small
    /// datagrams of voice, games and DNS.
    pub const SMALL: usize = 256;
    /// How many lanes fill at the same time: two appliances' worth of eight source ports.
    pub const LANES: usize = 16;

    /// Whether a packet is one to gather.
    #[inline]
    pub fn takes(frame: &Frame<'_>) -> bool {
        frame.shape.segments == 1 && frame.packet.len() <= Self::SMALL
    }

    /// Takes a copy of a packet, with its checksum completed, and gives to `send` what has to leave
    /// before it can join.
    ///
    /// # Errors
    /// [`OffloadError`] if the packet is not what its offload says; nothing is taken, then.
    #[inline]
    pub fn push(
        &mut self,
        lane: L,
        header: &GeneveHeader,
        frame: &Frame<'_>,
        mut send: impl FnMut(L, &Batch<'_>),
    ) -> Result<(), OffloadError> {
        let at = if let Some(at) = self.position(lane) {
            if !self.lanes[at].1.fits(header, frame) {
                self.lanes[at].1.flush(|batch| send(lane, batch));
            }
            at
        } else {
            if self.used == Self::LANES {
                self.flush(send);
            }
            self.open(lane)
        };
        self.lanes[at].1.push(header, frame)
    }

    /// Gives out what waits in one lane, for a packet that goes the same way and must not overtake.
    pub fn flush_lane(&mut self, lane: L, mut send: impl FnMut(L, &Batch<'_>)) {
        if let Some(at) = self.position(lane) {
            self.lanes[at].1.flush(|batch| send(lane, batch));
        }
    }

    /// Gives out all that waits.
    #[inline]
    pub fn flush(&mut self, mut send: impl FnMut(L, &Batch<'_>)) {
        for (lane, gathered) in &mut self.lanes[..self.used] {
            gathered.flush(|batch| send(*lane, batch));
        }
        self.used = 0;
    }

    #[inline]
    fn position(&self, lane: L) -> Option<usize> {
        self.lanes[..self.used].iter().position(|(other, _)| *other == lane)
    }

    fn open(&mut self, lane: L) -> usize {
        let at = self.used;
        self.used += 1;
        match self.lanes.get_mut(at) {
            Some((name, _)) => *name = lane,
            None => self.lanes.push((lane, Gathered::default())),
        }
        at
    }
}

/// Packets that wait to go out by one send.
#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    segment_size: usize,
    segments: usize,
}

impl Gathered {
    /// Whether a packet behind this header can join those that wait: none of a batch may be longer
    /// than the first, and only the last may be shorter.
    #[inline]
    fn fits(&self, header: &GeneveHeader, frame: &Frame<'_>) -> bool {
        self.segments == 0
            || (self.bytes.len() == self.segments * self.segment_size
                && header.as_bytes().len() + frame.packet.len() <= self.segment_size
                && self.segments < MAX_GSO_SEGMENTS)
    }

    /// Takes a copy of a packet that [`fits`](Self::fits), with its checksum completed.
    #[inline]
    fn push(&mut self, header: &GeneveHeader, frame: &Frame<'_>) -> Result<(), OffloadError> {
        let start = self.bytes.len();
        if *frame.offload == Offload::NONE {
            self.bytes.extend_from_slice(header.as_bytes());
            self.bytes.extend_from_slice(frame.packet);
        } else {
            let segmenter = Segmenter::new(frame.packet, &frame.inner, frame.offload)?;
            self.bytes.extend_from_slice(header.as_bytes());
            let headers = self.bytes.len();
            self.bytes.resize(headers + segmenter.header_len(), 0);
            let segment = segmenter.segment(0, &mut self.bytes[headers..]);
            self.bytes.extend_from_slice(&frame.packet[segment.payload]);
        }
        self.segments += 1;
        if self.segments == 1 {
            self.segment_size = self.bytes.len() - start;
        }
        Ok(())
    }

    /// Gives out what waits, if anything does, and forgets it.
    #[inline]
    fn flush(&mut self, send: impl FnOnce(&Batch<'_>)) {
        if self.segments > 0 {
            let segment_size = self.segment_size as u16;
            let pieces = [IoSlice::new(&self.bytes)];
            send(&Batch { segment_size, segments: self.segments, pieces: &pieces });
            self.bytes.clear();
            self.segments = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use geneve::dialect::{Dialect, Tags};
    use geneve::header::ProtocolType;
    use proptest::prelude::*;

    use super::super::testing::udp;
    use super::*;

    fn header(cookie: u32) -> GeneveHeader {
        let tags = Tags { endpoint: 1, attachment: 0, cookie };
        GeneveHeader::stamp(&Dialect::AWS.template(ProtocolType::IPV4), &tags)
    }

    fn packet(payload: usize) -> Vec<u8> {
        udp([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), &vec![7; payload])
    }

    /// The datagrams of each lane, in the order in which they were sent, and by how many sends.
    #[derive(Default)]
    struct Wire(BTreeMap<u8, (Vec<Vec<u8>>, usize)>);

    impl Wire {
        fn take(&mut self, lane: u8, batch: &Batch<'_>) {
            let (datagrams, sends) = self.0.entry(lane).or_default();
            *sends += 1;
            assert!(batch.segments <= MAX_GSO_SEGMENTS);
            let before = datagrams.len();
            batch.singly(|single| datagrams.push(single.pieces[0].to_vec()));
            assert_eq!(datagrams.len() - before, batch.segments);
        }
    }

    #[test]
    fn lanes_that_interleave_each_go_out_together() {
        let (mut gatherer, mut wire) = (Gatherer::default(), Wire::default());
        let bytes = packet(8);
        let frame = Frame::parse(&bytes, &Offload::NONE).unwrap();
        for turn in 0..30 {
            for lane in 0..16 {
                gatherer.push(lane, &header(turn), &frame, |_, _| panic!("too soon")).unwrap();
            }
        }
        gatherer.flush(|lane, batch| wire.take(lane, batch));
        assert_eq!(wire.0.len(), 16);
        assert!(wire.0.values().all(|(datagrams, sends)| (datagrams.len(), *sends) == (30, 1)));
        gatherer.flush(|_, _| panic!("it was given out"));
    }

    #[test]
    fn what_must_not_be_overtaken_leaves_and_others_wait() {
        let (mut gatherer, mut wire) = (Gatherer::default(), Wire::default());
        let bytes = packet(8);
        let frame = Frame::parse(&bytes, &Offload::NONE).unwrap();
        for lane in [1, 2] {
            gatherer.push(lane, &header(1), &frame, |_, _| panic!("too soon")).unwrap();
        }
        gatherer.flush_lane(1, |lane, batch| wire.take(lane, batch));
        gatherer.flush_lane(3, |_, _| panic!("there is nothing"));
        assert_eq!(wire.0.keys().collect::<Vec<_>>(), [&1]);
        gatherer.flush(|lane, batch| wire.take(lane, batch));
        assert_eq!(wire.0.values().map(|(datagrams, _)| datagrams.len()).sum::<usize>(), 2);
    }

    proptest! {
        /// Whatever comes, each lane gets what was put into it, in order, behind its own header.
        #[test]
        fn nothing_is_lost_or_overtakes(
            packets in prop::collection::vec((0u8..40, 0usize..40, any::<bool>()), 1..300),
        ) {
            let (mut gatherer, mut wire) = (Gatherer::default(), Wire::default());
            let mut expected: BTreeMap<u8, Vec<Vec<u8>>> = BTreeMap::new();
            for (cookie, (lane, payload, flush)) in packets.into_iter().enumerate() {
                let (bytes, header) = (packet(payload), header(cookie as u32));
                let frame = Frame::parse(&bytes, &Offload::NONE).unwrap();
                prop_assert!(Gatherer::<u8>::takes(&frame));
                let send = |lane, batch: &Batch<'_>| wire.take(lane, batch);
                gatherer.push(lane, &header, &frame, send).unwrap();
                expected.entry(lane).or_default().push([header.as_bytes(), &bytes].concat());
                if flush {
                    gatherer.flush_lane(lane, |lane, batch| wire.take(lane, batch));
                }
            }
            gatherer.flush(|lane, batch| wire.take(lane, batch));
            let sent: BTreeMap<_, _> =
                wire.0.into_iter().map(|(lane, (datagrams, _))| (lane, datagrams)).collect();
            prop_assert_eq!(sent, expected);
        }
    }
}
