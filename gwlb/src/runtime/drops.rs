//! What was dropped lately: a few examples of each reason, and how many there were when.
//!
//! Each worker keeps its own examples, so that no worker waits for another; nor does it wait for who
//! reads them, and rather keeps none. How many there were in the last minutes is told from the
//! counters, at which the admin API's thread looks once a second: no packet is counted twice for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::clock;
use super::witness::{Dropped, Whereabouts};
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::{DropReason, Side, WorkerId};

/// Examples of one reason that each worker keeps: the last ones.
pub(super) const EXAMPLES: usize = 4;
/// Bytes of each packet that are kept: all headers of all but very odd ones, outer and inner.
pub(super) const HEAD: usize = 128;
/// How far back it can be told how many were dropped, in seconds.
pub(super) const MEMORY: u64 = 600;

/// One of the packets that were dropped.
#[derive(Debug, Clone)]
pub(super) struct Example {
    /// When, since 1970: the time of the batch, or a tenth of a second later at most.
    pub time: Duration,
    pub worker: WorkerId,
    pub side: Side,
    /// Where it had come in, how far it had come, or where it was to leave: as the configuration
    /// names it. Nothing for datagrams.
    pub place: String,
    /// For a datagram, the other side: who sent it, or to whom it was to go.
    pub peer: Option<SocketAddr>,
    /// How many packets it stands for.
    pub segments: u64,
    /// Its length in bytes; a datagram's without outer IP and UDP headers.
    pub len: usize,
    /// Its first bytes; a datagram's from its Geneve header on.
    pub head: Vec<u8>,
    /// What the worker had counted for this reason on this side, this one included.
    pub counted: u64,
}

impl Example {
    /// Whether its bytes begin with a Geneve header.
    pub fn is_encapsulated(&self) -> bool {
        self.peer.is_some()
    }
}

/// The examples that one worker keeps.
#[derive(Debug)]
pub(super) struct DropRecord {
    stats: Arc<WorkerStats>,
    /// By reason, the oldest first.
    kept: Mutex<Box<[VecDeque<Example>]>>,
}

impl DropRecord {
    /// For the worker that counts in `stats`.
    pub fn new(stats: Arc<WorkerStats>) -> Self {
        let kept = DropReason::ALL.iter().map(|_| VecDeque::new()).collect();
        Self { stats, kept: Mutex::new(kept) }
    }

    /// Keeps an example in place of the oldest of its reason, unless somebody is reading.
    #[cold]
    pub fn keep(&self, worker: WorkerId, view: &Snapshot, dropped: &Dropped<'_>) {
        let Some(mut kept) = self.kept.try_lock() else { return };
        let Dropped { reason, segments, whereabouts, pieces, .. } = *dropped;
        let examples = &mut kept[reason as usize];
        // Its memory is used again.
        let oldest = if examples.len() < EXAMPLES { None } else { examples.pop_front() };
        let mut head = oldest.map(|oldest| oldest.head).unwrap_or_default();
        head.clear();
        for piece in pieces {
            head.extend(piece.iter().take(HEAD - head.len()));
        }
        let topology = &view.topology;
        let (place, peer) = match whereabouts {
            Whereabouts::At(origin) => (topology.entry_name(origin.at), None),
            Whereabouts::Leaving { to, .. } => (topology.entry_name(to.into()), None),
            Whereabouts::Gone(_) => (String::new(), None),
            Whereabouts::From { peer, .. } | Whereabouts::To { peer, .. } => {
                (String::new(), Some(peer))
            }
        };
        let side = whereabouts.side();
        examples.push_back(Example {
            time: clock::wall_clock(),
            worker,
            side,
            place,
            peer,
            segments,
            len: pieces.iter().map(|piece| piece.len()).sum(),
            head,
            counted: self.stats.ledger(side).drops.get(reason),
        });
    }

    /// Those that there are for a reason, the oldest first, each with how many the worker has
    /// dropped since for the same reason.
    pub fn examples(&self, reason: DropReason) -> Vec<(Example, u64)> {
        let kept = self.kept.lock()[reason as usize].clone();
        let since = |example: Example| {
            let counted = self.stats.ledger(example.side).drops.get(reason);
            let since = counted.saturating_sub(example.counted);
            (example, since)
        };
        kept.into_iter().map(since).collect()
    }
}

/// What had been dropped at one moment, by reason.
type Counts = [u64; DropReason::ALL.len()];

/// How many packets were dropped, second by second.
#[derive(Debug)]
pub(super) struct DropHistory {
    started: Instant,
    /// The oldest first, at most one of each second and [`MEMORY`] seconds of them.
    counts: VecDeque<(Instant, Counts)>,
}

impl DropHistory {
    /// The history of a gateway that has dropped nothing yet.
    pub fn new(started: Instant) -> Self {
        Self { started, counts: VecDeque::new() }
    }

    /// Remembers what is counted now.
    pub fn note<'a>(&mut self, workers: impl IntoIterator<Item = &'a WorkerStats>, now: Instant) {
        if self.counts.len() as u64 > MEMORY {
            self.counts.pop_front();
        }
        self.counts.push_back((now, total(workers)));
    }

    /// How many were dropped in the last `duration`, by reason; and how long that is in fact, since
    /// it was looked at once a second, and the gateway may not have run so long.
    pub fn in_the_last<'a>(
        &self,
        duration: Duration,
        workers: impl IntoIterator<Item = &'a WorkerStats>,
        now: Instant,
    ) -> (Counts, Duration) {
        let age = |at: Instant| now.saturating_duration_since(at);
        let before = self.counts.iter().rev().find(|(at, _)| age(*at) >= duration);
        let none = (self.started, [0; DropReason::ALL.len()]);
        let (at, before) = before.unwrap_or(&none);
        let total = total(workers);
        (std::array::from_fn(|reason| total[reason].saturating_sub(before[reason])), age(*at))
    }
}

/// What was dropped in all, by reason.
pub(super) fn total<'a>(workers: impl IntoIterator<Item = &'a WorkerStats>) -> Counts {
    let mut counts = [0; DropReason::ALL.len()];
    for worker in workers {
        for (count, reason) in counts.iter_mut().zip(DropReason::ALL) {
            *count += worker.tun.drops.get(*reason) + worker.udp.drops.get(*reason);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use netio::offload::Offload;
    use router::{Entry, SubnetId};

    use super::*;
    use crate::runtime::shared::tests::idle;

    fn view() -> Arc<Snapshot> {
        Arc::clone(&idle().exchange.published.load_full().snapshot)
    }

    #[test]
    fn the_last_of_each_reason_are_kept_and_what_came_after_is_counted() {
        let (view, stats) = (view(), Arc::new(WorkerStats::default()));
        let record = DropRecord::new(Arc::clone(&stats));
        let at = Entry::Subnet(SubnetId::from_index(0));
        let keep = |reason, bytes: &[u8]| {
            stats.tun.drops.add(reason, 1);
            let (front, back) = bytes.split_at(1);
            record.keep(
                WorkerId(0),
                &view,
                &Dropped {
                    reason,
                    segments: 1,
                    whereabouts: Whereabouts::At(at.into()),
                    pieces: &[IoSlice::new(front), IoSlice::new(back)],
                    offload: &Offload::NONE,
                },
            );
        };
        for number in 0..6 {
            keep(DropReason::NoRoute, &[number; 300]);
        }
        keep(DropReason::Blackhole, &[9; 3]);
        stats.tun.drops.add(DropReason::NoRoute, 10);

        let kept = record.examples(DropReason::NoRoute);
        let shown: Vec<_> = kept.iter().map(|(it, since)| (it.head[0], it.len, *since)).collect();
        assert_eq!(shown, [(2, 300, 13), (3, 300, 12), (4, 300, 11), (5, 300, 10)]);
        assert!(
            kept.iter()
                .all(|(it, _)| it.head.len() == HEAD && it.place == view.topology.entry_name(at))
        );
        let blackhole = record.examples(DropReason::Blackhole);
        assert_eq!(blackhole.iter().map(|(it, _)| &it.head[..]).collect::<Vec<_>>(), [[9; 3]]);
        assert!(record.examples(DropReason::NoTarget).is_empty());

        // Who reads holds up nobody: the packet is just no example.
        let reading = record.kept.lock();
        keep(DropReason::Blackhole, &[8; 3]);
        drop(reading);
        assert_eq!(record.examples(DropReason::Blackhole)[0].1, 1);
    }

    #[test]
    fn the_last_seconds_are_told_apart_from_what_was_before() {
        let (stats, start) = (WorkerStats::default(), clock::now());
        let mut history = DropHistory::new(start);
        let second = Duration::from_secs(1);
        for passed in 0..700 {
            history.note([&stats], start + passed * second);
            stats.udp.drops.add(DropReason::BadCookie, 2);
        }
        let now = start + 700 * second;
        let in_the_last = |seconds: u32| {
            let (counts, long) = history.in_the_last(seconds * second, [&stats], now);
            assert_eq!(counts.iter().sum::<u64>(), counts[DropReason::BadCookie as usize]);
            (counts[DropReason::BadCookie as usize], long.as_secs())
        };
        assert_eq!(in_the_last(1), (2, 1));
        assert_eq!(in_the_last(60), (120, 60));
        assert_eq!(in_the_last(600), (1200, 600));
        // Longer ago than it remembers: all that there was.
        assert_eq!(in_the_last(650), (1400, 700));
        assert_eq!(history.counts.len() as u64, MEMORY + 1);
    }
}
