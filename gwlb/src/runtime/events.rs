//! What has happened, kept for a while and told to whoever listens.
//!
//! Events have numbers without gaps, which go on where no earlier run of the gateway has been: they
//! begin with the time of the start in microseconds. So who comes back after a restart, with a number
//! of the run before, is known to have seen nothing of this one. They stay in a ring of bounded size, from which each reader takes
//! them at its own pace. Nobody who publishes waits for a reader: one that is too slow is told how
//! many it has missed. What a packet does is no event; that packets come faster than they may is
//! ([`floods`]).

mod event;
pub(super) mod floods;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock;

pub(super) use event::{Event, FloodLimit, GatewayEvent, Happening};

/// How many events are kept. They are about 300 bytes each.
pub(super) const KEPT: usize = 1024;

/// How many a reader takes at a time, which bounds what one holds that does not read on.
const BATCH: usize = 64;

/// The events of a gateway.
#[derive(Debug)]
pub(super) struct Events {
    ring: Mutex<Ring>,
    /// The number of the latest.
    latest: watch::Sender<u64>,
}

/// The last events, the oldest first.
#[derive(Debug)]
struct Ring {
    kept: VecDeque<Arc<Event>>,
    /// The number before the first one of this run.
    start: u64,
    /// The number of the latest; `start` if there was none.
    latest: u64,
}

impl Default for Events {
    fn default() -> Self {
        // An earlier run would have to have had an event in every microsecond to come so far. As a
        // number of JSON it is exact, too: it has less than 53 bits.
        let start = clock::wall_clock().as_micros();
        Self::after_number(u64::try_from(start).unwrap_or_default())
    }
}

impl Events {
    /// Those of a run whose first one comes after this number.
    fn after_number(start: u64) -> Self {
        let ring = Ring { kept: VecDeque::new(), start, latest: start };
        Self { ring: Mutex::new(ring), latest: watch::Sender::new(start) }
    }

    /// Tells everybody who listens that something has happened, and logs it.
    pub fn publish(&self, what: impl Into<Happening>) {
        let mut event = Event::now(0, what.into());
        // Numbered and put in their place in one step: they are in the order of their numbers.
        let event = {
            let mut ring = self.ring.lock();
            ring.latest += 1;
            event.id = ring.latest;
            if ring.kept.len() == KEPT {
                ring.kept.pop_front();
            }
            let event = Arc::new(event);
            ring.kept.push_back(Arc::clone(&event));
            event
        };
        let latest = event.id;
        // Two who publish at a time may come here in either order.
        self.latest.send_if_modified(|known| {
            let newer = latest > *known;
            *known = latest.max(*known);
            newer
        });
        // Last: who listens here has not to wait for who takes the log.
        event.log();
    }

    /// What there is after the event of this number, or all that there is. Whose number is of another
    /// run gets all, and is told what of this run is not kept any more.
    pub fn after(&self, id: Option<u64>) -> Vec<Arc<Event>> {
        let (seen, mut events) = {
            let ring = self.ring.lock();
            let seen = id.map(|id| ring.seen(id));
            (seen, ring.after(seen.unwrap_or(ring.start), KEPT))
        };
        if let Some(missed) = Event::missed(seen, events.first()) {
            events.insert(0, Arc::new(missed));
        }
        events
    }

    /// Reads on behind the event of this number, or from the oldest one that there is; with a number
    /// of another run, from the first one of this run.
    pub fn reader(self: &Arc<Self>, id: Option<u64>) -> Reader {
        let latest = self.latest.subscribe();
        // Who has seen nothing begins with the oldest that there is now, and misses what goes then.
        let ring = self.ring.lock();
        let seen = id.map_or(ring.before(), |id| ring.seen(id));
        drop(ring);
        Reader { events: Arc::clone(self), seen, batch: VecDeque::new(), latest }
    }
}

impl Ring {
    /// How far somebody has come who names the event of this number. If it is none of this run, it is
    /// of another one, and nothing of this run was seen.
    fn seen(&self, id: u64) -> u64 {
        if (self.start..=self.latest).contains(&id) { id } else { self.start }
    }

    /// The number before the oldest that is kept.
    fn before(&self) -> u64 {
        self.latest - self.kept.len() as u64
    }

    fn after(&self, seen: u64, most: usize) -> Vec<Arc<Event>> {
        let skipped = seen.saturating_sub(self.before());
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        self.kept.iter().skip(skipped).take(most).cloned().collect()
    }
}

/// Reads events one after the other.
#[derive(Debug)]
pub(super) struct Reader {
    events: Arc<Events>,
    /// The number of the last one that was taken out of the ring.
    seen: u64,
    batch: VecDeque<Arc<Event>>,
    latest: watch::Receiver<u64>,
}

impl Reader {
    /// The next event, as soon as there is one, or nothing when `ended` is over and no event is left.
    pub async fn next(&mut self, ended: impl Future<Output = ()>) -> Option<Arc<Event>> {
        tokio::pin!(ended);
        loop {
            if let Some(event) = self.batch.pop_front() {
                return Some(event);
            }
            self.batch = self.events.ring.lock().after(self.seen, BATCH).into();
            if let Some(first) = self.batch.front() {
                let missed = Event::missed(Some(self.seen), Some(first));
                self.seen = self.batch.back().map_or(self.seen, |last| last.id);
                if let Some(missed) = missed {
                    return Some(Arc::new(missed));
                }
                continue;
            }
            tokio::select! {
                // What was told before the end comes before the end.
                biased;
                // An event that was published since the look into the ring counts as a change.
                changed = self.latest.changed() => if changed.is_err() { return None },
                () = &mut ended => return None,
            }
        }
    }
}
