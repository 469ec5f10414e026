//! How the threads of a gateway meet: what is published to the workers, what they hand to each
//! other, and how each is woken for it.
//!
//! Nothing here knows what is published or handed over. The order of the steps is what matters, and
//! is checked in every order in which threads can run (the tests `loom_*`, under the feature
//! `loom`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::queue::SegQueue;
use netio::poll::Waker;

use super::inquiry::{Asked, INQUIRIES};
use super::rig::Parts;
use crate::dataplane::stats::{Flow, WorkerStats};
use crate::sync::{ArcSwap, ArrayQueue, AtomicBool, Cache};

/// What is published, `P`, and the inboxes of the workers, through which they hand packets, `H`, to
/// each other.
#[derive(Debug)]
pub(super) struct Exchange<P, H> {
    pub published: ArcSwap<P>,
    pub inboxes: Vec<Inbox<H>>,
    draining: AtomicBool,
}

impl<P, H> Exchange<P, H> {
    pub fn new(published: P, inboxes: Vec<Inbox<H>>) -> Self {
        Self {
            published: ArcSwap::from_pointee(published),
            inboxes,
            draining: AtomicBool::new(false),
        }
    }

    /// Publishes to all workers; each takes it up before its next batch.
    pub fn publish(&self, published: P) {
        self.published.store(Arc::new(published));
        self.wake_all();
    }

    /// Tells the workers to take in nothing more and to end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Whether the workers are to end. A worker asks before each wait, and after its last
    /// [`look`](Lookout::look): so it sees what it was woken for.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// What the worker with this number looks at between batches.
    pub fn lookout(&self, worker: usize) -> Lookout<'_, P, H> {
        Lookout { inbox: &self.inboxes[worker], published: Cache::new(&self.published) }
    }

    fn wake_all(&self) {
        for inbox in &self.inboxes {
            // A worker that cannot be woken finds out at its next packet.
            let _ = inbox.waker.wake();
        }
    }
}

/// The oldest generation of a snapshot that a worker still holds.
pub(super) fn acknowledged(workers: &[Arc<WorkerStats>]) -> u64 {
    workers.iter().map(|stats| stats.generation.get()).min().unwrap_or(u64::MAX)
}

/// Where other workers put packets of flows that a worker owns, the control plane new devices and
/// sockets, and whoever wants to know something what they ask.
#[derive(Debug)]
pub(super) struct Inbox<H> {
    packets: ArrayQueue<H>,
    pub parts: SegQueue<Parts>,
    asked: Questions,
    pub waker: Waker,
}

/// What was asked and not taken up yet.
struct Questions(crossbeam::queue::ArrayQueue<Asked>);

impl std::fmt::Debug for Questions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Questions").field(&self.0.len()).finish()
    }
}

/// The inbox takes no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<H> Inbox<H> {
    /// An inbox for so many packets at a time.
    pub fn new(capacity: usize) -> io::Result<Self> {
        let packets = ArrayQueue::new(capacity);
        let asked = Questions(crossbeam::queue::ArrayQueue::new(INQUIRIES));
        Ok(Self { packets, parts: SegQueue::new(), asked, waker: Waker::new()? })
    }

    /// Asks the worker whose inbox it is something, and wakes it.
    ///
    /// # Errors
    /// [`Full`]: so many ask already that it has to be asked again later.
    pub fn ask(&self, question: Asked) -> Result<(), Full> {
        self.asked.0.push(question).map_err(|_| Full)?;
        // As with all who wake: a worker that cannot be woken finds out at its next packet.
        let _ = self.waker.wake();
        Ok(())
    }

    /// The next question.
    pub fn asked(&self) -> Option<Asked> {
        self.asked.0.pop()
    }

    /// Hands a packet of so many segments to the worker whose inbox it is, and wakes it; `ledger`
    /// is the giver's. What is not taken is the giver's to count.
    ///
    /// # Errors
    /// [`Full`]: it is handed over to nobody.
    pub fn give(&self, packet: H, ledger: &Flow, segments: u64) -> Result<(), Full> {
        if self.packets.is_full() {
            return Err(Full);
        }
        // Counted before it is pushed, since the owner may take it, and count that, at once.
        ledger.handed_over.add(segments);
        if self.packets.push(packet).is_err() {
            ledger.taken_over.add(segments);
            return Err(Full);
        }
        // As with all who wake: a worker that cannot be woken finds out at its next packet.
        let _ = self.waker.wake();
        Ok(())
    }

    /// The next packet, which is the taker's to count as taken over.
    pub fn take(&self) -> Option<H> {
        self.packets.pop()
    }
}

/// What a worker looks at between batches.
#[derive(Debug)]
pub(super) struct Lookout<'a, P, H> {
    inbox: &'a Inbox<H>,
    published: Cache<'a, P>,
}

impl<P, H> Lookout<'_, P, H> {
    /// What is published now. `woken`: the wait before has reported the waker of the worker's inbox.
    /// The inbox is to be emptied after this, and [`Exchange::is_draining`] asked before the next
    /// wait.
    pub fn look(&mut self, woken: bool) -> &Arc<P> {
        if woken {
            // Taken back before looking at anything: whoever puts something there from here on
            // wakes anew, and what was there before is seen now. The other way round, what comes
            // between the look and this would have its wake-up taken away, and wait for the next.
            let _ = self.inbox.waker.drain();
        }
        self.published.load()
    }
}

#[cfg(all(test, feature = "loom"))]
mod models;
