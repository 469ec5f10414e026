//! Gathers replies that leave by the same way, so that one call sends them: what a gateway sent one
//! by one, or what came in several receive buffers, goes back in batches.
//!
//! It knows what may go out together, and keeps the order of whatever has one route. It sends
//! nothing itself, and nothing waits in it beyond what one worker received at a time.

use std::io::IoSlice;
use std::ops::Range;

use netio::Slot;
use netio::udp::{Datagram, MAX_GSO_BYTES, MAX_GSO_SEGMENTS};

use crate::route::Route;
use crate::session::{Content, Replies};
use crate::stats::Count;

/// Replies that wait to be sent.
pub(super) struct Outbox {
    /// By the source port, which is what routes differ in.
    lanes: [Lane; LANES],
}

/// What one call sends: datagrams of `segment_size` bytes, of which the last may be shorter. Each
/// of the pieces has whole datagrams.
pub(super) struct Parcel<'a> {
    pub(super) route: &'a Route,
    pub(super) pieces: &'a [IoSlice<'a>],
    pub(super) segment_size: usize,
    /// The inner packets, one in each datagram.
    pub(super) count: Count,
}

/// Enough for two workers' ports of a gateway of ours, which has eight for each worker.
const LANES: usize = 16;

/// So many datagrams that each came by itself are sent together.
const MAX_PIECES: usize = MAX_GSO_SEGMENTS;

/// Replies of one route that may go out together.
#[derive(Default)]
struct Lane {
    route: Option<Route>,
    pieces: Vec<Piece>,
    segment_size: usize,
    bytes: usize,
    count: Count,
    /// Whether the last datagram is shorter than the others, so that none may follow.
    complete: bool,
}

/// A stretch of datagrams.
enum Piece {
    Received { slot: usize, range: Range<usize> },
    Written(Vec<u8>),
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { lanes: std::array::from_fn(|_| Lane::default()) }
    }

    /// Takes what a session made of the datagrams in `slots[slot]`. What cannot go out together with
    /// what waits already has that sent first.
    pub(super) fn take(
        &mut self,
        slots: &[Slot<Datagram>],
        slot: usize,
        replies: &mut Replies,
        mut send: impl FnMut(&Parcel<'_>),
    ) {
        for reply in replies.drain() {
            let lane = &mut self.lanes[usize::from(reply.route.source.port()) % LANES];
            let Count { packets, .. } = reply.count;
            let (piece, bytes, segment_size) = match reply.content {
                Content::Unchanged { range, segment_size } => {
                    let bytes = range.len();
                    (Piece::Received { slot, range }, bytes, segment_size)
                }
                Content::Written(datagram) => {
                    let bytes = datagram.len();
                    (Piece::Written(datagram), bytes, bytes)
                }
            };
            // A single one is as long as it is, whatever those are that it came with.
            let segment_size = segment_size.min(bytes).max(1);
            if !lane.has_room(&reply.route, packets, bytes, segment_size) {
                lane.send(slots, &mut send);
                lane.route = Some(reply.route);
                lane.segment_size = segment_size;
            }
            lane.pieces.push(piece);
            lane.bytes += bytes;
            lane.count += reply.count;
            lane.complete = !bytes.is_multiple_of(lane.segment_size);
        }
    }

    /// Has everything sent that waits.
    pub(super) fn flush(&mut self, slots: &[Slot<Datagram>], mut send: impl FnMut(&Parcel<'_>)) {
        for lane in &mut self.lanes {
            lane.send(slots, &mut send);
        }
    }
}

impl Lane {
    fn has_room(&self, route: &Route, packets: u64, bytes: usize, segment_size: usize) -> bool {
        let equal = segment_size == self.segment_size;
        let last = packets == 1 && segment_size < self.segment_size;
        (equal || last)
            && !self.complete
            && !self.pieces.is_empty()
            && self.pieces.len() < MAX_PIECES
            && self.count.packets + packets <= MAX_GSO_SEGMENTS as u64
            && self.bytes + bytes <= MAX_GSO_BYTES
            && self.route.as_ref() == Some(route)
    }

    fn send(&mut self, slots: &[Slot<Datagram>], send: &mut impl FnMut(&Parcel<'_>)) {
        let Some(route) = &self.route else { return };
        let (segment_size, count) = (self.segment_size, self.count);
        let mut send =
            |pieces: &[IoSlice<'_>]| send(&Parcel { route, pieces, segment_size, count });
        match self.pieces.as_slice() {
            [] => return,
            [single] => send(&[IoSlice::new(single.bytes(slots))]),
            several => {
                let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
                for (room, piece) in pieces.iter_mut().zip(several) {
                    *room = IoSlice::new(piece.bytes(slots));
                }
                send(&pieces[..several.len()]);
            }
        }
        self.pieces.clear();
        (self.bytes, self.count, self.complete) = (0, Count::default(), false);
    }
}

impl Piece {
    fn bytes<'a>(&'a self, slots: &'a [Slot<Datagram>]) -> &'a [u8] {
        match self {
            Self::Received { slot, range } => slots
                .get(*slot)
                .and_then(|slot| slot.packet.bytes().get(range.clone()))
                .unwrap_or_default(),
            Self::Written(datagram) => datagram,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(port: u16) -> Route {
        Route {
            source: ([192, 0, 2, 11], port).into(),
            destination: ([192, 0, 2, 1], 6081).into(),
            tos: 0,
        }
    }

    /// What a parcel had: its route, the datagrams, the packets that it counts.
    #[derive(Debug, PartialEq, Eq)]
    struct Sent {
        route: Route,
        datagrams: Vec<Vec<u8>>,
        count: u64,
    }

    /// Checks what the kernel asks of a batch, and takes it apart.
    fn sent(parcel: &Parcel<'_>) -> Sent {
        let chunks = parcel.pieces.iter().flat_map(|piece| piece.chunks(parcel.segment_size));
        let datagrams: Vec<_> = chunks.map(<[u8]>::to_vec).collect();
        let bytes: usize = datagrams.iter().map(Vec::len).sum();
        assert!(datagrams.len() <= MAX_GSO_SEGMENTS && bytes <= MAX_GSO_BYTES);
        let (last, others) = datagrams.split_last().unwrap();
        assert!(others.iter().all(|datagram| datagram.len() == parcel.segment_size));
        assert!(last.len() <= parcel.segment_size);
        assert_eq!(datagrams.len() as u64, parcel.count.packets);
        assert_eq!(bytes as u64, parcel.count.bytes);
        Sent { route: *parcel.route, datagrams, count: parcel.count.packets }
    }

    /// What was received in one buffer, all of it to be sent by this route.
    #[derive(Clone, Debug)]
    struct Arrived {
        route: Route,
        datagrams: Vec<Vec<u8>>,
        /// Whether the appliance wrote them anew.
        written: bool,
    }

    fn one(port: u16, byte: u8, len: usize) -> Arrived {
        Arrived { route: route(port), datagrams: vec![vec![byte; len]], written: false }
    }

    fn pass(arrived: &[Arrived]) -> Vec<Sent> {
        let slot = |arrived: &Arrived| {
            let mut slot = Slot::with_capacity(0);
            slot.packet = geneve::buffer::PacketBuf::from_slice(&arrived.datagrams.concat());
            slot
        };
        let slots: Vec<Slot<Datagram>> = arrived.iter().map(slot).collect();
        let (mut outbox, mut replies, mut all) = (Outbox::new(), Replies::new(), Vec::new());
        for (number, Arrived { route, datagrams, written }) in arrived.iter().enumerate() {
            let step = datagrams[0].len();
            let mut start = 0;
            for datagram in datagrams {
                let end = start + datagram.len();
                if *written {
                    let count = Count { packets: 1, bytes: datagram.len() as u64 };
                    replies.push_written(*route, datagram.clone(), count);
                } else {
                    replies.push_unchanged(route, start..end, step, datagram.len());
                }
                start = end;
            }
            outbox.take(&slots, number, &mut replies, |parcel| all.push(sent(parcel)));
        }
        outbox.flush(&slots, |parcel| all.push(sent(parcel)));
        outbox.flush(&slots, |_| panic!("everything was sent"));
        all
    }

    #[test]
    fn what_came_one_by_one_goes_together_by_route() {
        let arrived: Vec<_> = (0..6).map(|n| one(61_000 + n % 2, n as u8, 100)).collect();
        let all = pass(&arrived);
        let numbers: Vec<Vec<u8>> =
            all.iter().map(|sent| sent.datagrams.iter().map(|it| it[0]).collect()).collect();
        assert_eq!(numbers, [[0, 2, 4], [1, 3, 5]]);
        assert_eq!(all.iter().map(|sent| sent.count).collect::<Vec<_>>(), [3, 3]);
    }

    #[test]
    fn a_shorter_one_is_the_last_and_a_longer_one_begins_anew() {
        let lengths = |all: &[Sent]| {
            let of = |sent: &Sent| sent.datagrams.iter().map(Vec::len).collect::<Vec<_>>();
            all.iter().map(of).collect::<Vec<_>>()
        };
        let all = pass(&[100, 100, 60, 100, 120, 120].map(|len| one(61_000, 0, len)));
        assert_eq!(lengths(&all), [vec![100, 100, 60], vec![100], vec![120, 120]]);
        // A run that ends with a shorter one takes no more either.
        let mut run = one(61_000, 0, 100);
        run.datagrams.push(vec![0; 99]);
        let all = pass(&[run.clone(), run]);
        assert_eq!(lengths(&all), [[100, 99], [100, 99]]);
    }

    #[test]
    fn other_congestion_marks_and_ports_with_the_same_lane_go_apart_and_in_order() {
        let mut marked = one(61_000, 1, 100);
        marked.route.tos = 3;
        let neighbour = one(61_000 + LANES as u16, 3, 100);
        let all = pass(&[one(61_000, 0, 100), marked, one(61_000, 2, 100), neighbour]);
        let firsts: Vec<_> = all.iter().map(|sent| sent.datagrams[0][0]).collect();
        assert_eq!(firsts, [0, 1, 2, 3]);
    }

    fn arrived() -> impl Strategy<Value = Vec<Arrived>> {
        let step = prop_oneof![Just(100_usize), Just(104), Just(1468), Just(20_000)];
        let one = (0..20_u16, 0..2_u8, step, 1..50_usize, 0..3_usize, any::<bool>());
        let one = one.prop_map(|(port, tos, step, count, shorter, written)| {
            let count = count.min(65_000 / step);
            let mut datagrams = vec![vec![0; step]; count];
            datagrams[count - 1].truncate(step - shorter);
            Arrived { route: Route { tos, ..route(61_000 + port) }, datagrams, written }
        });
        prop::collection::vec(one, 1..20)
    }

    proptest! {
        /// Whatever arrives leaves once, in the order of its route, in batches that the kernel
        /// takes.
        #[test]
        fn nothing_is_lost_or_overtaken(mut arrived in arrived()) {
            let mut expected = std::collections::HashMap::<Route, Vec<Vec<u8>>>::new();
            let all = arrived.iter_mut().flat_map(|arrived| {
                arrived.datagrams.iter_mut().map(|datagram| (arrived.route, datagram))
            });
            for (number, (route, datagram)) in all.enumerate() {
                datagram[..8].copy_from_slice(&number.to_le_bytes());
                expected.entry(route).or_default().push(datagram.clone());
            }
            let mut found = std::collections::HashMap::<Route, Vec<Vec<u8>>>::new();
            for sent in pass(&arrived) {
                found.entry(sent.route).or_default().extend(sent.datagrams);
            }
            prop_assert_eq!(found, expected);
        }
    }
}
