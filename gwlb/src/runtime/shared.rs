//! What the threads of a gateway share: the published snapshot, the counters, and the inboxes
//! through which packets reach the owners of their flows.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use geneve::buffer::PacketBuf;
use netio::link::Links;
use netio::offload::Offload;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::capture::Captures;
use super::clock;
use super::drops::{DropHistory, DropRecord};
use super::events::Events;
use super::exchange::{self, Exchange, Full};
use super::flow_logs::LogCounters;
use super::inquiry::Asked;
use super::rig::Rig;
use super::witness::{Dropped, Whereabouts};
use crate::config::Settings;
use crate::control::Recognised;
use crate::dataplane::fragments::FragmentTable;
use crate::dataplane::frame::Frame;
use crate::dataplane::snapshot::{Snapshot, TargetSlot};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::{DropReason, Origin, WorkerId};

/// Packets that wait for another worker.
pub(super) const INBOX: usize = 1024;

/// What the threads of a gateway share.
#[derive(Debug)]
pub(super) struct Shared {
    pub settings: ArcSwap<Settings>,
    /// What is published to the workers, and their inboxes.
    pub exchange: Exchange<Published, Handover>,
    pub stats: Vec<Arc<WorkerStats>>,
    /// Examples of what each worker dropped.
    pub drops: Vec<Arc<DropRecord>>,
    /// The captures that are on.
    pub captures: Captures,
    /// How many packets were dropped, second by second.
    pub drop_history: Mutex<DropHistory>,
    pub fragments: Arc<FragmentTable>,
    /// What workers tell the control plane.
    pub notices: Notices,
    /// What has happened, for whoever listens.
    pub events: Arc<Events>,
    /// By port number: whom to ask for the device's counters.
    pub links: Mutex<Vec<PortLinks>>,
    /// What each flow log has done, in the order of the configuration.
    pub flow_logs: Box<[LogCounters]>,
    pub started: Instant,
}

/// What is published to the workers: a view, and what its places are in terms of devices and
/// sockets.
#[derive(Debug)]
pub(super) struct Published {
    pub snapshot: Arc<Snapshot>,
    pub rig: Arc<Rig>,
}

/// A device's name, and whom to ask about it.
#[derive(Debug)]
pub(super) struct PortLinks {
    pub tun: String,
    pub netns: Option<String>,
    pub links: Links,
}

/// What workers tell the control plane. A full queue loses nothing that would not be told again.
#[derive(Debug)]
pub(super) struct Notices {
    /// Targets to which a packet turned out to be too long: their path is to be measured again.
    pub too_long: ArrayQueue<TargetSlot>,
    /// Targets of which the underlay said that they cannot be reached.
    pub suspects: ArrayQueue<TargetSlot>,
    /// Probes that came back, through which target, and when.
    pub probes: ArrayQueue<(TargetSlot, Recognised, Instant)>,
    wake: Notify,
}

/// How many notices of a kind may wait.
const NOTICES: usize = 1024;

impl Notices {
    fn new() -> Self {
        Self {
            too_long: ArrayQueue::new(NOTICES),
            suspects: ArrayQueue::new(NOTICES),
            probes: ArrayQueue::new(NOTICES),
            wake: Notify::new(),
        }
    }

    /// Tells a target to look at.
    pub fn suspect(&self, target: TargetSlot) {
        if self.suspects.push(target).is_ok() {
            self.wake.notify_one();
        }
    }

    /// Tells of a probe that has come back through a target, now.
    pub fn probe(&self, by: TargetSlot, probe: Recognised, now: Instant) {
        if self.probes.push((by, probe, now)).is_ok() {
            self.wake.notify_one();
        }
    }

    /// Tells that a worker holds the latest view.
    pub fn acknowledge(&self) {
        self.wake.notify_one();
    }

    /// Until there is anything to hear.
    pub async fn wait(&self) {
        self.wake.notified().await;
    }
}

/// The inbox of a worker.
pub(super) type Inbox = exchange::Inbox<Handover>;

/// A packet on its way to the owner of its flow.
#[derive(Debug)]
pub(super) struct Handover {
    pub from: Origin,
    /// The epoch of the topology in which `from` is numbered.
    pub epoch: u32,
    pub packet: PacketBuf,
    pub offload: Offload,
}

impl Shared {
    pub fn new(
        settings: Arc<Settings>,
        published: Published,
        stats: Vec<Arc<WorkerStats>>,
        inboxes: Vec<Inbox>,
    ) -> Self {
        let drops = stats.iter().map(|stats| Arc::new(DropRecord::new(Arc::clone(stats))));
        let started = clock::now();
        let flow_logs = settings.flow_logs.iter().map(|_| LogCounters::default()).collect();
        Self {
            flow_logs,
            settings: ArcSwap::new(settings),
            exchange: Exchange::new(published, inboxes),
            drops: drops.collect(),
            captures: Captures::default(),
            drop_history: Mutex::new(DropHistory::new(started)),
            stats,
            fragments: Arc::default(),
            notices: Notices::new(),
            events: Arc::default(),
            links: Mutex::default(),
            started,
        }
    }

    /// Publishes a new view to all workers; each takes it up before its next batch.
    pub fn publish(&self, published: Published) {
        self.exchange.publish(published);
    }

    /// The oldest generation of a snapshot that a worker still holds.
    pub fn acknowledged(&self) -> u64 {
        exchange::acknowledged(&self.stats)
    }

    /// Asks a worker something.
    ///
    /// # Errors
    /// [`Full`]: too many ask already.
    pub fn inquire(&self, worker: WorkerId, question: Asked) -> Result<(), Full> {
        self.exchange.inboxes.get(usize::from(worker.0)).ok_or(Full)?.ask(question)
    }

    /// Tells the workers to take in nothing more and to end.
    pub fn drain(&self) {
        self.exchange.drain();
    }

    pub fn is_draining(&self) -> bool {
        self.exchange.is_draining()
    }

    /// Drops by name what is left for workers that have ended; there is no other writer then.
    pub fn empty_inboxes(&self) {
        let published = self.exchange.published.load_full();
        let view = &published.snapshot;
        let keep = |worker: usize, reason, from, packet: &[u8], segments| {
            let dropped = Dropped {
                reason,
                segments,
                whereabouts: Whereabouts::At(from),
                pieces: &[IoSlice::new(packet)],
                offload: &Offload::NONE,
            };
            self.drops[worker].keep(WorkerId(worker as u16), view, &dropped);
        };
        for (worker, inbox) in self.exchange.inboxes.iter().enumerate() {
            let Some(stats) = self.stats.get(worker) else { continue };
            // Whoever waits for an answer hears that there is none.
            while inbox.asked().is_some() {}
            while let Some(Handover { from, epoch, packet, offload }) = inbox.take() {
                // It was valid where it was handed over.
                let segments = Frame::parse(packet.bytes(), &offload).map_or(1, |f| f.segments());
                let ledger = stats.ledger(from.side);
                ledger.flow.taken_over.add(segments);
                ledger.drops.add(DropReason::GatewayStopping, segments);
                if let Some(at) = view.entry(from.at, epoch) {
                    let from = Origin { at, ..from };
                    keep(worker, DropReason::GatewayStopping, from, packet.bytes(), segments);
                }
            }
        }
        // The fragments that wait belong to no worker; the first one's ledger takes them.
        let Some(stats) = self.stats.first() else { return };
        for waiting in self.fragments.expire(clock::now() + FragmentTable::HOLD) {
            let ledger = stats.ledger(waiting.from.side);
            ledger.flow.released.add(1);
            ledger.drops.add(DropReason::FragmentWithoutFirst, 1);
            if let Some(at) = view.entry(waiting.from.at, waiting.epoch) {
                let from = Origin { at, ..waiting.from };
                let packet = waiting.packet.bytes();
                keep(0, DropReason::FragmentWithoutFirst, from, packet, 1);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use router::Entry;
    use router::source::Source;

    use super::*;
    use crate::control::Control;
    use crate::dataplane::keys::Secret;

    #[test]
    fn what_is_left_at_the_end_has_a_name() {
        let stats = vec![Arc::new(WorkerStats::default())];
        let Shared { settings, exchange, .. } = idle();
        let snapshot = Arc::clone(&exchange.published.load_full().snapshot);
        let published = Published { snapshot, rig: Arc::default() };
        let inboxes = vec![Inbox::new(INBOX).unwrap()];
        let shared = Shared::new(settings.load_full(), published, stats, inboxes);
        let from = Entry::Endpoint(router::EndpointId::from_index(0)).into();
        let packet = PacketBuf::from_slice(b"whatever it was");
        shared.stats[0].udp.flow.received.add(1);
        let handover = Handover { from, epoch: 0, packet, offload: Offload::NONE };
        shared.exchange.inboxes[0].give(handover, &shared.stats[0].udp.flow, 1).unwrap();
        shared.empty_inboxes();
        let totals = crate::dataplane::stats::Totals::of([&*shared.stats[0]]);
        assert_eq!(totals.udp.drops["gateway_stopping"], 1);
        assert_eq!(totals.udp.queued(), 0);
        assert_eq!(totals.udp.balance(), (1, 1));
    }

    /// What a gateway without workers shares.
    pub(in crate::runtime) fn idle() -> Shared {
        idle_with_control().0
    }

    /// Both zones' endpoints of the example as one next hop.
    const GROUP: &str = r#"
[[endpoint_group]]
name = "inspection"
members = [{ endpoint = "vpce-a", weight = 100 }, { endpoint = "vpce-b", weight = 0 }]
"#;

    /// The file that it was started with.
    pub(in crate::runtime) fn file() -> String {
        include_str!("../../examples/two-zones.toml").to_owned() + GROUP
    }

    /// The same with its control plane.
    pub(in crate::runtime) fn idle_with_control() -> (Shared, Control) {
        let source = Source::new("two-zones.toml", file());
        let settings = Arc::new(crate::config::parse(&source).unwrap());
        let secret = Secret::from_bytes([3; Secret::LEN]);
        let control = Control::new(Arc::clone(&settings), secret, 1, Duration::ZERO, clock::now());
        let published = Published { snapshot: control.snapshot(), rig: Arc::default() };
        let inboxes = vec![Inbox::new(INBOX).unwrap()];
        (Shared::new(settings, published, Vec::new(), inboxes), control)
    }
}
