//! Captures: copies of packets at named points, for those who want to see them.
//!
//! A capture that is asked for is published to the workers. Each takes it up before its next batch
//! and from then on puts copies of what is meant into chunks of memory that were made beforehand
//! (`tap`); who writes the capture takes the full chunks and gives back empty ones (`pump`). A
//! worker waits for nobody: what finds no room is counted as lost, and the packet goes its way. Nor
//! does it look at packets for more than a part of its time (`budget`), and who writes has what time
//! nobody else wants.
//!
//! While nobody captures, a worker looks once for each batch whether anybody does.

mod budget;
mod file;
mod flows_seen;
mod pump;
mod tap;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam::atomic::AtomicCell;
use crossbeam::queue::ArrayQueue;

use super::shared::Shared;
use crate::dataplane::filter::{FlowFilter, FlowMatcher};
use crate::dataplane::stats::Counter;
pub(super) use budget::Budget;
pub(super) use pump::start;
use tap::Chunk;
pub(super) use tap::{Seen, Taps};

/// Captures at a time; each takes some memory in each worker.
pub(super) const CAPTURES: usize = 4;
/// Chunks of all workers together, and the least and the most that one has.
const CHUNKS: usize = 64;
const CHUNKS_OF_ONE: (usize, usize) = (4, 16);

/// Where packets are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    In,
    ToAppliance,
    FromAppliance,
    Out,
    Drop,
}

impl Point {
    /// All, in the order of a packet's way.
    pub const ALL: [Self; 5] =
        [Self::In, Self::ToAppliance, Self::FromAppliance, Self::Out, Self::Drop];

    /// As requests and captures name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::ToAppliance => "to-appliance",
            Self::FromAppliance => "from-appliance",
            Self::Out => "out",
            Self::Drop => "drop",
        }
    }

    /// What is seen there.
    const fn description(self) -> &'static str {
        match self {
            Self::In => "packets as they come from the device of an attachment",
            Self::ToAppliance => "datagrams sent to appliances; outer headers rebuilt",
            Self::FromAppliance => "datagrams received from appliances; outer headers rebuilt",
            Self::Out => "packets as they are written to the device of an attachment",
            Self::Drop => "packets that were dropped; the reason is in the comment",
        }
    }

    /// The point of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|point| point.name() == name)
    }
}

/// Some of the points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Points(u8);

impl Points {
    /// Whether a point is among them.
    pub const fn has(self, point: Point) -> bool {
        self.0 & 1 << point as u8 != 0
    }

    /// These and those.
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Each of them.
    pub fn each(self) -> impl Iterator<Item = Point> {
        Point::ALL.into_iter().filter(move |point| self.has(*point))
    }
}

impl FromIterator<Point> for Points {
    fn from_iter<T: IntoIterator<Item = Point>>(points: T) -> Self {
        Self(points.into_iter().fold(0, |all, point| all | 1 << point as u8))
    }
}

/// What is to be captured.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub points: Points,
    /// Of which flows.
    pub filter: FlowFilter,
    /// The same as the configuration numbers it.
    pub matcher: FlowMatcher,
    /// The most bytes of each packet, outer headers included.
    pub snaplen: usize,
    /// It ends with so many packets,
    pub max_packets: u64,
    /// with so many bytes of the file,
    pub max_bytes: u64,
    /// or after this time.
    pub duration: Duration,
}

impl Wanted {
    /// Where workers have to look: where a filter asks for an endpoint or a target, packets at other
    /// points are known by their flow, of which datagrams to appliances tell.
    fn tapped(&self) -> Points {
        let sent = Points::from_iter([Point::ToAppliance]);
        if self.needs_way() { self.points.and(sent) } else { self.points }
    }

    /// Whether only flows by a certain endpoint or target are meant.
    fn needs_way(&self) -> bool {
        self.filter.endpoint.is_some() || self.filter.target.is_some()
    }
}

/// A capture that is on.
pub(super) struct Capture {
    wanted: Wanted,
    tapped: Points,
    /// One moment by both clocks.
    begun: (Instant, Duration),
    /// By worker.
    lanes: Vec<Lane>,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

/// Between one worker and who writes the capture.
struct Lane {
    full: ArrayQueue<Box<Chunk>>,
    /// Chunks with nothing in them. Who writes may lose its CPU at any time, and for long, so there is
    /// nothing here that a worker would wait for: each place is emptied and filled at one stroke.
    free: Vec<AtomicCell<Option<Box<Chunk>>>>,
    /// Whether the worker has something in hand that is not full yet.
    holds: AtomicBool,
    /// Whether it is to give that away.
    asked: AtomicBool,
    /// Whether the worker looks.
    open: AtomicBool,
    /// By point: packets that were meant, and those of them that found no room.
    meant: [Counter; Point::ALL.len()],
    lost: [Counter; Point::ALL.len()],
    /// By point: packets that nobody looked at, since captures had had their share of the time.
    passed_by: [Counter; Point::ALL.len()],
}

impl Lane {
    fn new(chunks: usize) -> Self {
        let free = (0..chunks).map(|_| AtomicCell::new(Some(Box::new(Chunk::new())))).collect();
        Self {
            full: ArrayQueue::new(chunks),
            free,
            holds: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            open: AtomicBool::new(false),
            meant: Default::default(),
            lost: Default::default(),
            passed_by: Default::default(),
        }
    }
}

impl Lane {
    /// An empty chunk, if there is one.
    fn take_free(&self) -> Option<Box<Chunk>> {
        const { assert!(AtomicCell::<Option<Box<Chunk>>>::is_lock_free()) };
        self.free.iter().find_map(AtomicCell::take)
    }

    /// Gives a chunk back that was taken.
    fn give_back(&self, chunk: Box<Chunk>) {
        let mut chunk = Some(chunk);
        for place in &self.free {
            // Nobody else fills places, so a chunk that was in this one goes into another.
            chunk = place.swap(chunk);
            if chunk.is_none() {
                return;
            }
        }
    }
}

impl Capture {
    fn new(wanted: Wanted, workers: usize, begun: (Instant, Duration)) -> Self {
        let (least, most) = CHUNKS_OF_ONE;
        let chunks = (CHUNKS / workers.max(1)).clamp(least, most);
        let lanes = (0..workers).map(|_| Lane::new(chunks)).collect();
        Self { tapped: wanted.tapped(), wanted, begun, lanes }
    }

    fn counts(&self, point: Point) -> Counts {
        let sum = |of: fn(&Lane) -> &[Counter; Point::ALL.len()]| {
            self.lanes.iter().map(|lane| of(lane)[point as usize].get()).sum()
        };
        Counts {
            meant: sum(|lane| &lane.meant),
            lost: sum(|lane| &lane.lost),
            passed_by: sum(|lane| &lane.passed_by),
        }
    }
}

/// Packets at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Looked at, and meant.
    meant: u64,
    /// Of these, those that found no room.
    lost: u64,
    /// Not looked at, so that nobody knows whether they were meant.
    passed_by: u64,
}

/// What workers look at: the captures that are on.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Counts up with every change.
    pub number: u64,
    on: Vec<Arc<Capture>>,
}

/// The captures of a gateway.
#[derive(Debug, Default)]
pub(super) struct Captures {
    plan: Arc<ArcSwap<Plan>>,
}

/// There are as many captures as there may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Captures {
    /// What each worker looks at.
    pub fn plan(&self) -> Arc<ArcSwap<Plan>> {
        Arc::clone(&self.plan)
    }

    /// How many are on.
    fn on(&self) -> usize {
        self.plan.load().on.len()
    }

    /// Nobody waits for whoever else changes it.
    fn change(
        &self,
        change: impl Fn(&mut Vec<Arc<Capture>>) -> Result<(), TooMany>,
    ) -> Result<(), TooMany> {
        let mut done = Ok(());
        self.plan.rcu(|before| {
            let mut on = before.on.clone();
            done = change(&mut on);
            Plan { number: before.number + 1, on }
        });
        done
    }
}

/// A capture that somebody has begun; it is over when this goes.
#[derive(Debug)]
pub(super) struct Begun {
    shared: Arc<Shared>,
    capture: Arc<Capture>,
}

impl Begun {
    /// Begins a capture. Each worker sees what comes from its next batch on; `now` is one moment by
    /// both clocks.
    ///
    /// # Errors
    /// [`TooMany`] are on.
    pub fn new(
        shared: Arc<Shared>,
        wanted: Wanted,
        now: (Instant, Duration),
    ) -> Result<Self, TooMany> {
        let capture = Arc::new(Capture::new(wanted, shared.stats.len(), now));
        shared.captures.change(|on| {
            if on.len() >= CAPTURES {
                return Err(TooMany);
            }
            on.push(Arc::clone(&capture));
            Ok(())
        })?;
        Ok(Self { shared, capture })
    }

    /// Has the worker of a lane look, though no packet may come.
    fn wake(&self, worker: usize) {
        if let Some(inbox) = self.shared.exchange.inboxes.get(worker) {
            // One that cannot be woken looks at its next packet.
            let _ = inbox.waker.wake();
        }
    }

    /// Whether workers look that have not given away all that they saw.
    fn is_open(&self) -> bool {
        self.capture.lanes.iter().any(|lane| lane.open.load(Ordering::Acquire))
    }

    /// Tells the workers to look no more.
    pub fn end(&self) {
        let ended = self.shared.captures.change(|on| {
            on.retain(|capture| !Arc::ptr_eq(capture, &self.capture));
            Ok(())
        });
        debug_assert!(ended.is_ok(), "one less is never too many");
        (0..self.capture.lanes.len()).for_each(|worker| self.wake(worker));
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.end();
    }
}
