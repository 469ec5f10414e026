//! What the threads of a gateway share: the published snapshot, the counters, and the inboxes
//! through which packets reach the owners of their flows.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use geneve::buffer::PacketBuf;
use netio::link::Links;
use netio::offload::Offload;
use netio::poll::Waker;
use router::Entry;

use super::clock;
use crate::config::Settings;
use crate::dataplane::frame::Frame;
use crate::dataplane::ingress::ledger;
use crate::dataplane::snapshot::{Snapshot, TargetSlot};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::DropReason;

/// Packets that wait for another worker.
pub(super) const INBOX: usize = 1024;

/// What the threads of a gateway share.
#[derive(Debug)]
pub(super) struct Shared {
    pub settings: Arc<Settings>,
    pub snapshot: ArcSwap<Snapshot>,
    pub stats: Vec<Arc<WorkerStats>>,
    pub inboxes: Vec<Inbox>,
    /// Targets to which a packet turned out to be too long: their path is to be measured again.
    pub too_long: ArrayQueue<TargetSlot>,
    /// By attachment, in the order of the settings: whom to ask for the device's counters.
    pub links: Vec<Links>,
    pub started: Instant,
    draining: AtomicBool,
}

/// Where other workers put packets of flows that a worker owns.
#[derive(Debug)]
pub(super) struct Inbox {
    pub packets: ArrayQueue<Handover>,
    pub waker: Waker,
}

/// A packet on its way to the owner of its flow.
#[derive(Debug)]
pub(super) struct Handover {
    pub from: Entry,
    pub packet: PacketBuf,
    pub offload: Offload,
}

impl Inbox {
    pub fn new() -> io::Result<Self> {
        Ok(Self { packets: ArrayQueue::new(INBOX), waker: Waker::new()? })
    }
}

impl Shared {
    pub fn new(
        settings: Arc<Settings>,
        snapshot: Arc<Snapshot>,
        stats: Vec<Arc<WorkerStats>>,
        inboxes: Vec<Inbox>,
        links: Vec<Links>,
    ) -> Self {
        let too_long = ArrayQueue::new(snapshot.targets.len().max(1));
        Self {
            settings,
            snapshot: ArcSwap::new(snapshot),
            stats,
            inboxes,
            too_long,
            links,
            started: clock::now(),
            draining: AtomicBool::new(false),
        }
    }

    /// Publishes a new view to all workers; each takes it up before its next batch.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.store(snapshot);
        self.wake_all();
    }

    /// Tells the workers to take in nothing more and to end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake_all();
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Drops by name what is left for workers that have ended; there is no other writer then.
    pub fn empty_inboxes(&self) {
        for (inbox, stats) in self.inboxes.iter().zip(&self.stats) {
            while let Some(Handover { from, packet, offload }) = inbox.packets.pop() {
                // It was valid where it was handed over.
                let segments = Frame::parse(packet.bytes(), &offload).map_or(1, |f| f.segments());
                let ledger = ledger(stats, from);
                ledger.flow.taken_over.add(segments);
                ledger.drops.add(DropReason::GatewayStopping, segments);
            }
        }
    }

    fn wake_all(&self) {
        for inbox in &self.inboxes {
            // A worker that cannot be woken finds out at its next packet.
            let _ = inbox.waker.wake();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use router::source::Source;

    use super::*;
    use crate::control::Control;
    use crate::dataplane::keys::Secret;

    #[test]
    fn what_is_left_at_the_end_has_a_name() {
        let stats = vec![Arc::new(WorkerStats::default())];
        let shared = Shared { stats, inboxes: vec![Inbox::new().unwrap()], ..idle() };
        let from = Entry::Endpoint(router::EndpointId::from_index(0));
        let packet = PacketBuf::from_slice(b"whatever it was");
        shared.stats[0].udp.flow.handed_over.add(1);
        shared.stats[0].udp.flow.received.add(1);
        let handover = Handover { from, packet, offload: Offload::NONE };
        shared.inboxes[0].packets.push(handover).unwrap();
        shared.empty_inboxes();
        let totals = crate::dataplane::stats::Totals::of([&*shared.stats[0]]);
        assert_eq!(totals.udp.drops["gateway_stopping"], 1);
        assert_eq!(totals.udp.queued(), 0);
        assert_eq!(totals.udp.balance(), (1, 1));
    }

    /// What a gateway without workers shares.
    pub(in crate::runtime) fn idle() -> Shared {
        let text = include_str!("../../examples/two-zones.toml");
        let source = Source::new("two-zones.toml", text);
        let settings = Arc::new(crate::config::parse(&source).unwrap());
        let secret = Secret::from_bytes([3; Secret::LEN]);
        let control = Control::new(Arc::clone(&settings), secret, 1, Duration::ZERO, clock::now());
        let snapshot = control.snapshot();
        Shared::new(settings, snapshot, Vec::new(), Vec::new(), Vec::new())
    }
}
