//! What a worker has of the captures that are on: it copies what is meant, and never waits.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use geneve::FlowKey;
use geneve::outer::UDP_LEN;

use super::{Capture, Lane, Plan, Point, Points};
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::verdict::DropReason;
use crate::runtime::witness::Whereabouts;

/// Bytes of packets in a chunk: more than the longest packet has.
const CHUNK_BYTES: usize = 128 * 1024;
/// Packets in a chunk.
const CHUNK_PACKETS: usize = 1024;

/// A packet that is seen, but for its bytes.
#[derive(Debug, Clone, Copy)]
pub(in crate::runtime) struct Seen {
    pub point: Point,
    /// When its batch came.
    pub now: Instant,
    pub whereabouts: Whereabouts,
    /// How many packets it stands for.
    pub segments: u64,
    /// The flow as it is inside, between translations of addresses.
    pub flow: Option<FlowKey>,
    /// The flow as the packet shows it, where that is another.
    pub shown: Option<FlowKey>,
    /// Why it was dropped.
    pub reason: Option<DropReason>,
    /// Whether its checksum is left to be completed.
    pub unfinished: bool,
}

/// A packet that was copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub seen: Seen,
    /// Since 1970.
    pub time: Duration,
    /// Its length; that of a datagram without outer IP and UDP headers.
    pub len: usize,
    /// Of these, how many bytes there are.
    pub captured: usize,
}

/// Copies of packets, in memory that was made beforehand.
#[derive(Debug)]
pub(super) struct Chunk {
    /// What the numbers in the records mean.
    pub view: Option<Arc<Snapshot>>,
    pub records: Vec<Record>,
    /// Theirs, one behind the other.
    pub bytes: Vec<u8>,
}

impl Chunk {
    pub fn new() -> Self {
        let (records, bytes) = (Vec::with_capacity(CHUNK_PACKETS), Vec::with_capacity(CHUNK_BYTES));
        Self { view: None, records, bytes }
    }

    /// Makes it as new.
    pub fn clear(&mut self) {
        self.view = None;
        self.records.clear();
        self.bytes.clear();
    }

    fn has_room(&self, view: &Arc<Snapshot>, bytes: usize) -> bool {
        self.records.len() < CHUNK_PACKETS
            && self.bytes.len() + bytes <= CHUNK_BYTES
            && self.view.as_ref().is_none_or(|own| Arc::ptr_eq(own, view))
    }
}

/// The taps of one worker: never empty.
#[derive(Debug)]
pub(in crate::runtime) struct Taps {
    taps: Vec<Tap>,
    points: Points,
}

impl Taps {
    /// The taps of a worker for the captures of a plan; of those that it `had`, what is still on is
    /// kept. `None` if there is nothing to look at.
    pub fn for_plan(plan: &Plan, worker: usize, had: Option<Box<Self>>) -> Option<Box<Self>> {
        let mut had = had.map(|had| had.taps).unwrap_or_default();
        let taps = plan.on.iter().filter_map(|capture| {
            let known = had.iter().position(|tap| Arc::ptr_eq(&tap.capture, capture));
            match known {
                Some(known) => Some(had.swap_remove(known)),
                None => Tap::new(capture, worker),
            }
        });
        let taps: Vec<_> = taps.collect();
        let points = taps.iter().fold(Points::default(), |all, tap| all.and(tap.capture.tapped));
        (!taps.is_empty()).then(|| Box::new(Self { taps, points }))
    }

    /// Whether anybody looks there.
    #[inline]
    pub fn has(&self, point: Point) -> bool {
        self.points.has(point)
    }

    /// Whether any of them may mean a packet, by its flow inside and that which it shows.
    #[inline]
    pub fn mean(&self, point: Point, flow: Option<&FlowKey>, shown: Option<&FlowKey>) -> bool {
        self.taps.iter().any(|tap| tap.means(point, flow, shown))
    }

    /// So many packets pass at a point that nobody looks at.
    pub fn pass_by(&mut self, point: Point, packets: u64) {
        for tap in &mut self.taps {
            if tap.capture.wanted.points.has(point) {
                tap.lane().passed_by[point as usize].add(packets);
            }
        }
    }

    /// Copies a packet for those who mean it.
    pub fn see(&mut self, view: &Arc<Snapshot>, seen: &Seen, pieces: &[IoSlice<'_>]) {
        for tap in &mut self.taps {
            tap.see(view, seen, pieces);
        }
    }

    /// After each batch: gives away what was asked for.
    #[inline]
    pub fn settle(&mut self) {
        for tap in &mut self.taps {
            tap.settle();
        }
    }
}

#[derive(Debug)]
struct Tap {
    capture: Arc<Capture>,
    worker: usize,
    chunk: Box<Chunk>,
    /// Whether all flows are meant, so far as the tuple tells.
    all: bool,
}

impl Tap {
    fn new(capture: &Arc<Capture>, worker: usize) -> Option<Self> {
        let lane = capture.lanes.get(worker)?;
        let chunk = lane.take_free()?;
        lane.open.store(true, Ordering::Release);
        let all = capture.wanted.means_all();
        Some(Self { capture: Arc::clone(capture), worker, chunk, all })
    }

    fn lane(&self) -> &Lane {
        &self.capture.lanes[self.worker]
    }

    #[inline]
    fn means(&self, point: Point, flow: Option<&FlowKey>, shown: Option<&FlowKey>) -> bool {
        let Capture { wanted, tapped, .. } = &*self.capture;
        if !tapped.has(point) {
            return false;
        }
        // What has no flow is meant where all are.
        if self.all {
            return true;
        }
        let meant = |flow: &FlowKey| wanted.matcher.matches_tuple(&flow.canonical());
        flow.into_iter().chain(shown).any(meant)
    }

    fn see(&mut self, view: &Arc<Snapshot>, seen: &Seen, pieces: &[IoSlice<'_>]) {
        if !self.means(seen.point, seen.flow.as_ref(), seen.shown.as_ref()) {
            return;
        }
        let Capture { wanted, begun, .. } = &*self.capture;
        let len = pieces.iter().map(|piece| piece.len()).sum();
        let captured = wanted.kept(&seen.whereabouts).min(len);
        let time = begun.1 + seen.now.saturating_duration_since(begun.0);
        // What is seen only for what it tells of its flow is no part of the capture.
        let counts = wanted.points.has(seen.point);
        let lane = &self.capture.lanes[self.worker];
        if counts {
            lane.meant[seen.point as usize].add(1);
        }
        if !self.chunk.has_room(view, captured) && !Self::renew(lane, &mut self.chunk) {
            if counts {
                lane.lost[seen.point as usize].add(1);
            }
            return;
        }
        let chunk = &mut self.chunk;
        chunk.view.get_or_insert_with(|| Arc::clone(view));
        chunk.records.push(Record { seen: *seen, time, len, captured });
        let mut left = captured;
        for piece in pieces {
            let taken = piece.len().min(left);
            chunk.bytes.extend_from_slice(&piece[..taken]);
            left -= taken;
        }
        if chunk.records.len() == 1 {
            lane.holds.store(true, Ordering::Release);
        }
    }

    fn settle(&mut self) {
        let lane = &self.capture.lanes[self.worker];
        if !lane.asked.load(Ordering::Relaxed) {
            return;
        }
        lane.asked.store(false, Ordering::Relaxed);
        if !self.chunk.records.is_empty() {
            Self::renew(lane, &mut self.chunk);
        }
    }

    /// Gives away a chunk for an empty one, if there is one.
    fn renew(lane: &Lane, chunk: &mut Box<Chunk>) -> bool {
        let Some(empty) = lane.take_free() else { return false };
        let full = std::mem::replace(chunk, empty);
        lane.holds.store(false, Ordering::Release);
        // There is room for all that there are.
        lane.full.push(full).is_ok()
    }
}

/// The rest is given away.
impl Drop for Tap {
    fn drop(&mut self) {
        let nothing = Chunk { view: None, records: Vec::new(), bytes: Vec::new() };
        let rest = std::mem::replace(&mut self.chunk, Box::new(nothing));
        let lane = self.lane();
        if !rest.records.is_empty() {
            let _ = lane.full.push(rest);
        }
        lane.open.store(false, Ordering::Release);
    }
}

impl super::Wanted {
    /// Whether all flows are meant, so far as the tuple tells.
    fn means_all(&self) -> bool {
        let filter = &self.filter;
        filter.address.is_none()
            && filter.port.is_none()
            && filter.protocol.is_none()
            && filter.tuple.is_none()
    }

    /// How many bytes of a packet are kept, so that there are not more than asked for with the
    /// outer headers.
    fn kept(&self, whereabouts: &Whereabouts) -> usize {
        let outer = whereabouts.outer().map_or(0, |outer| outer.header_len() + UDP_LEN);
        self.snaplen.saturating_sub(outer)
    }
}
