//! Small packets that go out together: so few bytes cost less to copy than a system call.
//!
//! A send has one socket and one destination, which is what a *lane* stands for; packets of all
//! flows in a lane may mix, since each has its own header. Flows that interleave are in several
//! lanes, so several fill at the same time. Nothing is waited for: the caller flushes at the end of
//! every batch.

use std::io::IoSlice;

use netio::offload::{Offload, OffloadError, Segmenter};
use netio::udp::MAX_GSO_SEGMENTS;

use super::encap::{Batch, encapsulate_whole};
use super::frame::Frame;
use super::snapshot::TargetSlot;
use super::verdict::GeneveHeader;

/// What packets must have in common to leave by one send.
pub trait Lane: Copy + PartialEq {
    /// A number that few other lanes have, for finding this one.
    fn digest(&self) -> usize;
}

/// The digest of lanes that differ in target and source port.
#[inline]
pub fn digest(target: TargetSlot, port: u16) -> usize {
    target.0 as usize * 8 + usize::from(port)
}

/// Gathers small packets by lane. Packets of one lane leave in the order in which they came.
#[derive(Debug)]
pub struct Gatherer<L> {
    /// The first `used` have packets, or had some since all were given out.
    lanes: Vec<(L, Gathered)>,
    used: usize,
    /// By the digest of a lane: where it was last.
    last: [u8; DIGESTS],
}

/// Digests that are told apart.
const DIGESTS: usize = 64;

impl<L> Default for Gatherer<L> {
    fn default() -> Self {
        Self { lanes: Vec::new(), used: 0, last: [0; DIGESTS] }
    }
}

impl<L: Lane> Gatherer<L> {
    /// Packets up to this size are gathered, in bytes: ACKs with all their options, and the small
    /// datagrams of voice, games and DNS.
    pub const SMALL: usize = SMALL;
    /// How many lanes fill at the same time: two appliances' worth of eight source ports.
    pub const LANES: usize = 16;

    /// Whether a packet is one to gather.
    #[inline]
    pub fn takes(frame: &Frame<'_>) -> bool {
        frame.shape.segments == 1 && frame.packet.len() <= SMALL
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
        send: impl FnMut(L, &Batch<'_>),
    ) -> Result<(), OffloadError> {
        let gathered = self.room_for(lane, header.as_bytes().len() + frame.packet.len(), send);
        if *frame.offload == Offload::NONE {
            gathered.put(header, frame.packet);
            return Ok(());
        }
        gathered.complete(header, frame)
    }

    /// Has a packet leave with which nothing is left to be done: with others, if it is small, or
    /// else at once, behind what came before it.
    #[inline]
    pub fn send_whole(
        &mut self,
        lane: L,
        header: &GeneveHeader,
        packet: &[u8],
        mut send: impl FnMut(L, &Batch<'_>),
    ) {
        if packet.len() <= SMALL {
            self.gather(lane, header, packet, send);
        } else {
            self.flush_lane(lane, &mut send);
            encapsulate_whole(header, packet, |batch| send(lane, batch));
        }
    }

    // Apart, so that either way is short where it is taken.
    #[inline(never)]
    fn gather(
        &mut self,
        lane: L,
        header: &GeneveHeader,
        packet: &[u8],
        send: impl FnMut(L, &Batch<'_>),
    ) {
        let len = header.as_bytes().len() + packet.len();
        self.room_for(lane, len, send).put(header, packet);
    }

    /// Gives out what waits in one lane, for a packet that goes the same way and must not overtake.
    #[inline]
    pub fn flush_lane(&mut self, lane: L, send: impl FnMut(L, &Batch<'_>)) {
        // Where packets are large, nothing waits.
        if self.used > 0 {
            self.flush_used(lane, send);
        }
    }

    #[inline(never)]
    fn flush_used(&mut self, lane: L, mut send: impl FnMut(L, &Batch<'_>)) {
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

    /// The packets of a lane, to which a datagram of so many bytes can be added.
    #[inline]
    fn room_for(
        &mut self,
        lane: L,
        len: usize,
        mut send: impl FnMut(L, &Batch<'_>),
    ) -> &mut Gathered {
        let at = if let Some(at) = self.position(lane) {
            if !self.lanes[at].1.fits(len) {
                self.lanes[at].1.flush(|batch| send(lane, batch));
            }
            at
        } else {
            if self.used == Self::LANES {
                self.flush(send);
            }
            self.open(lane)
        };
        &mut self.lanes[at].1
    }

    #[inline]
    fn position(&self, lane: L) -> Option<usize> {
        let used = &self.lanes[..self.used];
        let last = usize::from(self.last[lane.digest() % DIGESTS]);
        match used.get(last) {
            Some((other, _)) if *other == lane => Some(last),
            _ => used.iter().position(|(other, _)| *other == lane),
        }
    }

    fn open(&mut self, lane: L) -> usize {
        let at = self.used;
        self.used += 1;
        self.last[lane.digest() % DIGESTS] = at as u8;
        match self.lanes.get_mut(at) {
            Some((name, _)) => *name = lane,
            None => self.lanes.push((lane, Gathered::default())),
        }
        at
    }
}

/// The largest packet that is gathered, in bytes.
const SMALL: usize = 256;
/// Room for as many as the kernel takes, and for the bytes that come after a short header.
const ROOM: usize = (MAX_GSO_SEGMENTS + 1) * (GeneveHeader::MAX + SMALL);

/// Packets that wait to go out by one send.
#[derive(Debug)]
struct Gathered {
    bytes: Box<[u8]>,
    len: usize,
    segment_size: usize,
    segments: usize,
}

impl Default for Gathered {
    fn default() -> Self {
        Self { bytes: vec![0; ROOM].into(), len: 0, segment_size: 0, segments: 0 }
    }
}

impl Gathered {
    /// Whether a datagram of so many bytes can join those that wait: none of a batch may be longer
    /// than the first, and only the last may be shorter.
    #[inline]
    fn fits(&self, len: usize) -> bool {
        self.segments == 0
            || (self.len == self.segments * self.segment_size
                && len <= self.segment_size
                && self.segments < MAX_GSO_SEGMENTS)
    }

    /// Takes a copy of a packet that [`fits`](Self::fits).
    #[inline]
    fn put(&mut self, header: &GeneveHeader, packet: &[u8]) {
        let room = &mut self.bytes[self.len..][..GeneveHeader::MAX + packet.len()];
        // As long as the longest: a copy of a constant length is a few moves.
        room[..GeneveHeader::MAX].copy_from_slice(header.padded());
        let start = header.as_bytes().len();
        room[start..start + packet.len()].copy_from_slice(packet);
        self.added(start + packet.len());
    }

    /// Takes a copy of a packet, with its checksum completed.
    fn complete(&mut self, header: &GeneveHeader, frame: &Frame<'_>) -> Result<(), OffloadError> {
        let segmenter = Segmenter::new(frame.packet, &frame.inner, frame.offload)?;
        let geneve = header.as_bytes();
        let (front, rest) = self.bytes[self.len..].split_at_mut(geneve.len());
        front.copy_from_slice(geneve);
        let (headers, rest) = rest.split_at_mut(segmenter.header_len());
        let segment = segmenter.segment(0, headers);
        let payload = &frame.packet[segment.payload];
        rest[..payload.len()].copy_from_slice(payload);
        self.added(geneve.len() + segmenter.header_len() + payload.len());
        Ok(())
    }

    #[inline]
    fn added(&mut self, len: usize) {
        self.len += len;
        self.segments += 1;
        if self.segments == 1 {
            self.segment_size = len;
        }
    }

    /// Gives out what waits, if anything does, and forgets it.
    #[inline]
    fn flush(&mut self, send: impl FnOnce(&Batch<'_>)) {
        if self.segments > 0 {
            let segment_size = self.segment_size as u16;
            let pieces = [IoSlice::new(&self.bytes[..self.len])];
            send(&Batch { segment_size, segments: self.segments, pieces: &pieces });
            self.len = 0;
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

    impl Lane for u8 {
        /// Some lanes share theirs.
        fn digest(&self) -> usize {
            usize::from(*self / 2)
        }
    }

    fn header(cookie: u32) -> GeneveHeader {
        let tags = Tags { endpoint: 1, attachment: 0, cookie };
        GeneveHeader::stamped(&Dialect::AWS.template(ProtocolType::IPV4), &tags)
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
