//! What flow logs are made of: what went each way of each flow in each window, and what went nowhere.
//!
//! A worker closes the windows of its flows piece by piece, and puts what it finds in a queue that
//! somebody else empties. A queue that is full keeps no packet waiting: windows are closed later then,
//! and what ends meanwhile is lost, and counted. It knows neither names nor lines; those are
//! [`crate::runtime`]'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use crossbeam::queue::ArrayQueue;
use geneve::flow::FlowKey;
use geneve::inner::TcpFlags;

use super::flow_table::record::Window;
use super::flow_table::{FlowTable, Inspector};
use super::snapshot::Snapshot;
use super::stats::FlowLogCounters;
use super::verdict::{DropReason, WorkerId};

/// How many entries may wait for who writes them: some megabytes.
pub const QUEUE: usize = 1 << 15;

/// Where a worker's part of the flow logs goes.
#[derive(Debug, Clone)]
pub struct FlowLogTap {
    /// Who empties this writes the logs. All workers have the same.
    pub queue: Arc<ArrayQueue<LogEntry>>,
    /// How long windows are: as long as in the log with the shortest.
    pub window: Duration,
    /// When the first window begins, the same for all workers.
    pub start: Instant,
}

impl FlowLogTap {
    /// One with an empty queue for [`QUEUE`] entries.
    pub fn new(window: Duration, start: Instant) -> Self {
        Self { queue: Arc::new(ArrayQueue::new(QUEUE)), window, start }
    }

    /// The next entry, for who writes the logs.
    pub fn take(&self) -> Option<LogEntry> {
        self.queue.pop()
    }
}

/// What workers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEntry {
    /// What went one way of a flow in a window.
    Traffic(LoggedTraffic),
    /// A worker has told of all its flows up to this time, but for what was lost.
    Closed {
        /// Which worker.
        worker: WorkerId,
        /// The end of the window.
        end: Instant,
        /// How much was lost since the last of these: records, and packets that came into none.
        lost: u64,
    },
}

/// Who inspected packets. By the address and not by the slot: entries wait, and meanwhile another
/// target may have got the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inspected {
    /// The target at this address.
    Target(SocketAddr),
    /// Nobody: they went past all appliances.
    Bypass,
}

impl Inspected {
    /// The inspector of packets that go, or have just gone, where this view has it.
    pub fn by(inspector: Inspector, view: &Snapshot) -> Self {
        match inspector {
            Inspector::Target(slot) => Self::Target(view.target(slot).address),
            Inspector::Bypass => Self::Bypass,
        }
    }
}

/// What went one way of a flow in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggedTraffic {
    /// The endpoint by its id on the wire; packets that a route dropped have come to none.
    pub endpoint: Option<u64>,
    /// Addresses, ports and protocol in the direction of the packets, as far as the stickiness of
    /// the load balancer looks at them.
    pub key: FlowKey,
    /// Who inspected the packets; of rejected ones nobody did.
    pub inspector: Option<Inspected>,
    /// The flow's cookie, where it is known.
    pub cookie: Option<u32>,
    /// Packets, in segments.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the first of them came.
    pub first: Instant,
    /// When the last of them came.
    pub last: Instant,
    /// TCP flags that were seen.
    pub flags: TcpFlags,
    /// Why they were rejected, if they were.
    pub rejected: Option<DropReason>,
}

/// A packet that is of no flow in the table, or was rejected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stray {
    pub endpoint: Option<u64>,
    pub key: FlowKey,
    pub inspector: Option<Inspected>,
    pub rejected: Option<DropReason>,
    pub segments: u64,
    pub bytes: u64,
    pub flags: TcpFlags,
}

/// Strays of different kinds that a worker keeps apart in one window.
const STRAYS: usize = 4096;
/// Flows whose windows are closed in one call: some ten microseconds.
const PIECE: usize = 256;
/// How long a worker waits for a queue that is more than half full.
const PAUSE: Duration = Duration::from_millis(2);

type StrayId = (Option<u64>, FlowKey, Option<Inspected>, Option<DropReason>);

/// A worker's part of the flow logs.
#[derive(Debug)]
pub(super) struct FlowLog {
    worker: WorkerId,
    tap: FlowLogTap,
    /// The end of the window that is open.
    end: Instant,
    /// How far the last window is closed: the next flow, and when to go on.
    closing: Option<(usize, Instant)>,
    /// By what tells strays apart, where they are in `strays`.
    known: AHashMap<StrayId, u32>,
    /// Those of the open window; never more than there is room for.
    strays: Vec<LoggedTraffic>,
    /// Those of the one that is being closed.
    closed: Vec<LoggedTraffic>,
    /// What was lost since it was told last: records, and packets that came into none.
    lost: u64,
    /// Whether the last window is being closed.
    finished: bool,
    /// Whether nobody waits for room in the queue any more.
    given_up: bool,
}

impl FlowLog {
    pub fn new(tap: FlowLogTap, worker: WorkerId) -> Self {
        let end = tap.start + tap.window;
        Self {
            worker,
            tap,
            end,
            closing: None,
            known: AHashMap::with_capacity(STRAYS),
            strays: Vec::with_capacity(STRAYS),
            closed: Vec::with_capacity(STRAYS),
            lost: 0,
            finished: false,
            given_up: false,
        }
    }

    /// When [`close`](Self::close) should be called next.
    pub fn due(&self) -> Instant {
        self.closing.map_or(self.end, |(_, due)| due)
    }

    /// Closes the next windows, if any are over.
    pub fn close(
        &mut self,
        view: &Snapshot,
        flows: &mut FlowTable,
        counters: &FlowLogCounters,
        now: Instant,
    ) {
        if now < self.due() && !self.given_up {
            return;
        }
        let (next, _) = *self.closing.get_or_insert_with(|| {
            std::mem::swap(&mut self.strays, &mut self.closed);
            self.known.clear();
            (0, now)
        });
        if self.tap.queue.len() > self.tap.queue.capacity() / 2 && !self.given_up {
            self.closing = Some((next, now + PAUSE));
            return;
        }
        if let Some(rest) = self.closed.len().checked_sub(PIECE) {
            self.put_strays(rest, counters);
            return;
        }
        self.put_strays(0, counters);
        let end = (next + PIECE).min(flows.numbers());
        for number in next..end {
            let Some(number) = flows.in_range(number..number + 1).next() else { continue };
            let Some(window) = flows.close_window(number) else { continue };
            if window != [None; 2] {
                let (flow, cookie) = (flows.get(number), flows.cookie(number));
                let about = (flow.id.endpoint, flow.id.tuple.directed());
                let inspected = Inspected::by(flow.placement.inspector, view);
                self.put(about, inspected, cookie, &window, flows, counters);
            }
        }
        if end < flows.numbers() {
            self.closing = Some((end, now));
            return;
        }
        let closed = LogEntry::Closed { worker: self.worker, end: self.end, lost: self.lost };
        if self.tap.queue.push(closed).is_err() && !self.given_up {
            // Nobody may miss that a window is over.
            self.closing = Some((end, now + PAUSE));
            return;
        }
        self.lost = 0;
        self.closing = None;
        while self.end <= now {
            self.end += self.tap.window;
        }
    }

    /// Closes the open window for good, a piece at a time; says whether all is told.
    pub fn finish(
        &mut self,
        view: &Snapshot,
        flows: &mut FlowTable,
        counters: &FlowLogCounters,
        now: Instant,
    ) -> bool {
        if self.closing.is_none() {
            if self.finished {
                return true;
            }
            self.finished = true;
            self.end = self.end.min(now);
        }
        self.close(view, flows, counters, now);
        self.finished && self.closing.is_none()
    }

    /// From now on, what the queue has no room for is lost and not kept for later.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    /// Tells what went each way of a flow since its last window was closed.
    pub fn put(
        &mut self,
        (endpoint, tuple): (u64, FlowKey),
        inspector: Inspected,
        cookie: Option<u32>,
        window: &Window,
        flows: &FlowTable,
        counters: &FlowLogCounters,
    ) {
        for (traffic, key) in window.iter().zip([tuple, tuple.reversed()]) {
            let Some(traffic) = traffic else { continue };
            let (inspector, cookie) =
                if traffic.bypassed { (Inspected::Bypass, None) } else { (inspector, cookie) };
            let traffic = LoggedTraffic {
                endpoint: Some(endpoint),
                key,
                inspector: Some(inspector),
                cookie,
                packets: traffic.packets,
                bytes: traffic.bytes,
                first: flows.at(traffic.first),
                last: flows.at(traffic.last),
                flags: traffic.flags,
                rejected: None,
            };
            self.push(traffic, counters);
        }
    }

    /// Notes a packet that is of no flow in the table, or was rejected.
    pub fn stray(&mut self, stray: &Stray, counters: &FlowLogCounters, now: Instant) {
        let Stray { endpoint, key, inspector, rejected, segments, bytes, flags } = *stray;
        let id = (endpoint, key, inspector, rejected);
        if let Some(known) = self.known.get(&id).and_then(|at| self.strays.get_mut(*at as usize)) {
            known.packets += segments;
            known.bytes += bytes;
            known.last = now;
            known.flags = known.flags | flags;
            return;
        }
        if self.strays.len() == STRAYS {
            self.lost += segments;
            counters.strays_lost.add(segments);
            return;
        }
        self.known.insert(id, self.strays.len() as u32);
        self.strays.push(LoggedTraffic {
            endpoint,
            key,
            inspector,
            cookie: None,
            packets: segments,
            bytes,
            first: now,
            last: now,
            flags,
            rejected,
        });
    }

    fn put_strays(&mut self, rest: usize, counters: &FlowLogCounters) {
        while self.closed.len() > rest
            && let Some(stray) = self.closed.pop()
        {
            self.push(stray, counters);
        }
    }

    fn push(&mut self, traffic: LoggedTraffic, counters: &FlowLogCounters) {
        if self.tap.queue.push(LogEntry::Traffic(traffic)).is_ok() {
            counters.records.add(1);
        } else {
            self.lost += 1;
            counters.lost.add(1);
        }
    }
}
