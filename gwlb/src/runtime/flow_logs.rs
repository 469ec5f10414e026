//! Flow logs: what workers tell of their flows becomes lines, on a thread of its own.
//!
//! Between the workers and this thread is a bounded queue, and nobody waits for it: what does not fit
//! is lost and counted. A file that cannot be written is told of once, its lines are counted, and
//! nothing else suffers.

mod line;
mod output;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use geneve::flow::FlowKey;

use super::clock;
use super::error::StartError;
use super::shared::Shared;
use crate::config::{FlowLogSettings, LogResource, TrafficType};
use crate::dataplane::flow_log::{FlowLogTap, Inspected, LogEntry, LoggedTraffic};
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::stats::Counter;
use crate::dataplane::verdict::DropReason;
use line::{Line, WallClock, Written};
use output::Output;

/// How often the thread looks for something to write.
const LOOK: Duration = Duration::from_millis(50);
/// So many entries are taken before what was written goes out.
const BATCH: usize = 4096;
/// How long the end of a gateway waits for the last lines.
const GRACE: Duration = Duration::from_secs(1);
/// Flows that a log with longer windows than the workers' puts together; others are written window
/// by window, which the interval, being a maximum, allows.
const MERGED: usize = 1 << 16;
/// For so many further windows, what is told of an endpoint that is there no more belongs to the logs
/// that it belonged to: one is open then, and workers do not take up a view at once.
const KEPT: u8 = 3;

/// What a log has done.
#[derive(Debug, Default)]
pub(super) struct LogCounters {
    /// Lines that were written.
    pub lines: Counter,
    /// Lines that could not be written.
    pub lines_lost: Counter,
}

/// The thread that writes the logs, running.
#[derive(Debug)]
pub(super) struct FlowLogWriter {
    stop: Arc<AtomicBool>,
    done: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

impl FlowLogWriter {
    /// Starts it, to write what the workers tell there.
    pub fn start(tap: FlowLogTap, shared: Arc<Shared>) -> Result<Self, StartError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, done) = mpsc::channel();
        let stopped = Arc::clone(&stop);
        let run = move || {
            let settings = shared.settings.load_full();
            let mut logs = Logs::new(&settings.flow_logs, shared.stats.len(), tap.start);
            loop {
                // Asked before the queue is emptied, so that nothing stays in it.
                let last = stopped.load(Ordering::Acquire);
                let view = Arc::clone(&shared.exchange.published.load_full().snapshot);
                let clock = WallClock::new(clock::now(), clock::wall_clock());
                logs.look(&view);
                let mut taken = 0;
                while taken < BATCH
                    && let Some(entry) = tap.take()
                {
                    logs.handle(&entry, &view, clock, &shared.flow_logs);
                    taken += 1;
                }
                if last && taken < BATCH {
                    let all = shared.stats.iter().map(|stats| &stats.flow_log);
                    let missed = all.map(|it| it.lost.get() + it.strays_lost.get()).sum();
                    logs.finish(missed, &view, clock, &shared.flow_logs);
                }
                logs.flush(clock.now(), &shared.flow_logs);
                match taken {
                    _ if last && taken < BATCH => break,
                    BATCH => {}
                    _ => std::thread::park_timeout(LOOK),
                }
            }
            let _ = tell.send(());
        };
        let thread = std::thread::Builder::new().name("flow-logs".to_owned()).spawn(run);
        Ok(Self { stop, done, thread: thread.map_err(StartError::Thread)? })
    }

    /// Ends it when all is written, or soon: a reader of stdout who does not read would keep the
    /// gateway from ending.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let _ = self.done.recv_timeout(GRACE);
    }
}

/// All logs; without I/O but for their outputs.
#[derive(Debug)]
struct Logs {
    all: Vec<Log>,
    /// By worker, up to when it has told of all.
    told: Vec<Instant>,
    /// What workers have lost since the last window was over for all of them.
    lost: u64,
    /// All that they have told to be lost.
    told_lost: u64,
    /// Of which view it is known which endpoints each log is for.
    generation: Option<u64>,
}

impl Logs {
    fn new(settings: &[FlowLogSettings], workers: usize, start: Instant) -> Self {
        let shortest = settings.iter().map(|log| log.interval).min().unwrap_or_default();
        let log = |settings: &FlowLogSettings| Log::new(settings.clone(), shortest, start);
        let logs = settings.iter().map(log).collect();
        Self { all: logs, told: vec![start; workers], lost: 0, told_lost: 0, generation: None }
    }

    /// Takes up a view, if it is another one: which endpoints each log is for.
    fn look(&mut self, view: &Snapshot) {
        if self.generation.replace(view.generation) != Some(view.generation) {
            self.all.iter_mut().for_each(|log| log.look(view));
        }
    }

    fn handle(
        &mut self,
        entry: &LogEntry,
        view: &Snapshot,
        clock: WallClock,
        counters: &[LogCounters],
    ) {
        match entry {
            LogEntry::Traffic(traffic) => {
                for (log, counters) in self.all.iter_mut().zip(counters) {
                    log.take(traffic, view, clock, counters);
                }
            }
            LogEntry::Closed { worker, end, lost } => {
                self.lost += lost;
                self.told_lost += lost;
                let before = self.told.iter().min().copied();
                if let Some(told) = self.told.get_mut(usize::from(worker.0)) {
                    *told = *end;
                }
                let now = self.told.iter().min().copied();
                if let Some(end) = now.filter(|_| now > before) {
                    let lost = std::mem::take(&mut self.lost);
                    for (log, counters) in self.all.iter_mut().zip(counters) {
                        log.lost += lost;
                        if end.saturating_duration_since(log.start) >= log.settings.interval {
                            log.close(end, view, clock, counters);
                        }
                    }
                }
            }
        }
    }

    /// Writes what was put together so far; `lost` is all that workers have ever lost, which there
    /// may have been no room to tell.
    fn finish(&mut self, lost: u64, view: &Snapshot, clock: WallClock, counters: &[LogCounters]) {
        let lost = self.lost + lost.saturating_sub(self.told_lost);
        for (log, counters) in self.all.iter_mut().zip(counters) {
            log.lost += lost;
            log.finish(view, clock, counters);
        }
    }

    fn flush(&mut self, now: Instant, counters: &[LogCounters]) {
        for (log, counters) in self.all.iter_mut().zip(counters) {
            log.output.flush(now, counters);
        }
    }
}

type MergeKey = (Option<u64>, FlowKey, Option<Inspected>, Option<u32>, Option<DropReason>);

/// One log.
#[derive(Debug)]
struct Log {
    settings: FlowLogSettings,
    /// Since when its window is open.
    start: Instant,
    /// When that before it was opened.
    before: Instant,
    /// The endpoints that it is for, and of such as are there no more for how many windows.
    covered: HashMap<u64, u8>,
    /// When there was something at an endpoint, first and last, from the beginning of the window on.
    /// A worker may be ahead of the slowest, so that it may belong to the next window.
    seen: HashMap<u64, (Instant, Instant)>,
    /// What was lost in it.
    lost: u64,
    /// Lines that could not be written up to the last window, and since when some are missing.
    lines_lost: u64,
    missing: Option<Instant>,
    /// What is put together; nothing in a log whose windows are those of the workers.
    merged: HashMap<MergeKey, LoggedTraffic>,
    merges: bool,
    output: Output,
    /// The line in the making.
    text: String,
}

impl Log {
    fn new(settings: FlowLogSettings, shortest: Duration, start: Instant) -> Self {
        Self {
            output: Output::new(settings.name.as_str(), &settings.destination),
            merges: settings.interval > shortest,
            start,
            before: start,
            covered: HashMap::new(),
            seen: HashMap::new(),
            lost: 0,
            lines_lost: 0,
            missing: None,
            merged: HashMap::new(),
            text: String::new(),
            settings,
        }
    }

    fn take(
        &mut self,
        traffic: &LoggedTraffic,
        view: &Snapshot,
        clock: WallClock,
        counters: &LogCounters,
    ) {
        let wanted = match self.settings.traffic_type {
            TrafficType::All => true,
            TrafficType::Accept => traffic.rejected.is_none(),
            TrafficType::Reject => traffic.rejected.is_some(),
        };
        if !wanted || !self.covers(traffic.endpoint) {
            return;
        }
        if let Some(endpoint) = traffic.endpoint {
            let seen = self.seen.entry(endpoint).or_insert((traffic.first, traffic.last));
            *seen = (seen.0.min(traffic.first), seen.1.max(traffic.last));
        }
        let LoggedTraffic { endpoint, key, inspector, cookie, rejected, .. } = *traffic;
        let id = (endpoint, key, inspector, cookie, rejected);
        if let Some(sum) = self.merged.get_mut(&id) {
            sum.packets += traffic.packets;
            sum.bytes += traffic.bytes;
            sum.first = sum.first.min(traffic.first);
            sum.last = sum.last.max(traffic.last);
            sum.flags = sum.flags | traffic.flags;
        } else if self.merges && self.merged.len() < MERGED {
            self.merged.insert(id, *traffic);
        } else {
            self.write(&Written::Traffic(*traffic), view, clock, counters);
        }
    }

    /// The window is over.
    fn close(&mut self, end: Instant, view: &Snapshot, clock: WallClock, counters: &LogCounters) {
        self.write_merged(view, clock, counters);
        if !self.write_skipped(end, view, clock, counters) {
            let start = self.start;
            for endpoint in self.endpoints(view) {
                if self.seen.get(&endpoint).is_none_or(|(first, _)| *first >= end) {
                    self.write(&Written::Nothing { endpoint, start, end }, view, clock, counters);
                }
            }
        }
        self.seen.retain(|_, (first, last)| {
            *first = (*first).max(end);
            *last >= end
        });
        self.covered.retain(|endpoint, windows| {
            if !view.wire_ids.contains_key(endpoint) {
                *windows -= 1;
            }
            *windows > 0
        });
        (self.before, self.start) = (self.start, end);
    }

    /// No further entry comes. The window is over before its time, so that nobody is told to have
    /// had nothing in it.
    fn finish(&mut self, view: &Snapshot, clock: WallClock, counters: &LogCounters) {
        self.write_merged(view, clock, counters);
        self.write_skipped(clock.now(), view, clock, counters);
    }

    /// If anything may be missing up to the end of the window, says so at each endpoint: whose it is
    /// nobody knows.
    fn write_skipped(
        &mut self,
        end: Instant,
        view: &Snapshot,
        clock: WallClock,
        counters: &LogCounters,
    ) -> bool {
        let lines_lost = counters.lines_lost.get();
        if lines_lost > self.lines_lost {
            // Some of them may be of the window before: those are written when it is over.
            self.missing.get_or_insert(self.before);
        } else {
            // What was said of it has been written.
            self.missing = None;
        }
        self.lines_lost = lines_lost;
        let lost = std::mem::take(&mut self.lost) > 0;
        let Some(start) = self.missing.or(lost.then_some(self.start)) else { return false };
        for endpoint in self.endpoints(view) {
            self.write(&Written::Skipped { endpoint, start, end }, view, clock, counters);
        }
        true
    }

    /// The endpoints of the view that the log is for.
    fn endpoints(&self, view: &Snapshot) -> Vec<u64> {
        let all = view.endpoints.iter().map(|endpoint| endpoint.wire_id);
        all.filter(|endpoint| self.covers(Some(*endpoint))).collect()
    }

    fn write_merged(&mut self, view: &Snapshot, clock: WallClock, counters: &LogCounters) {
        for (_, traffic) in std::mem::take(&mut self.merged) {
            self.write(&Written::Traffic(traffic), view, clock, counters);
        }
    }

    fn write(&mut self, what: &Written, view: &Snapshot, clock: WallClock, counters: &LogCounters) {
        self.text.clear();
        Line { what, view, clock }.write(&self.settings.format, &mut self.text);
        self.output.line(&self.text, clock.now(), counters);
    }

    /// Whether what goes through the endpoint is for this log.
    fn covers(&self, endpoint: Option<u64>) -> bool {
        match &self.settings.resource {
            LogResource::All => true,
            _ => endpoint.is_some_and(|endpoint| self.covered.contains_key(&endpoint)),
        }
    }

    /// Takes up which endpoints the log is for.
    fn look(&mut self, view: &Snapshot) {
        for (&wire_id, &id) in &view.wire_ids {
            let covered = match &self.settings.resource {
                LogResource::All => return,
                LogResource::Endpoint(name) => view.topology.endpoint(id).name == *name,
                LogResource::LoadBalancer(name) => {
                    view.pool(view.endpoint(id).pool).load_balancer == *name
                }
            };
            if covered {
                self.covered.insert(wire_id, KEPT);
            } else {
                self.covered.remove(&wire_id);
            }
        }
    }
}
