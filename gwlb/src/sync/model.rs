//! The stand-ins. They promise no more order than the real ones do, or else a model would find
//! right what only the model makes right: no lock orders anything here.

use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64};
use loom::sync::atomic::{AtomicUsize, Ordering, fence};

/// A value behind a lock that the model does not see: it is never contended, since one thread of a
/// model runs at a time and none is interrupted while it holds it.
#[derive(Debug)]
struct Unseen<T>(Mutex<T>);

impl<T> Unseen<T> {
    fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// As `arc_swap::ArcSwap`: a pointer that is stored with `Release` and loaded with `Acquire`.
#[derive(Debug)]
pub(crate) struct ArcSwap<T> {
    /// Which of the values below is the latest.
    latest: AtomicUsize,
    values: Unseen<Vec<Arc<T>>>,
}

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        let values = Unseen(Mutex::new(vec![Arc::new(value)]));
        Self { latest: AtomicUsize::new(0), values }
    }

    /// One thread alone stores.
    pub(crate) fn store(&self, value: Arc<T>) {
        let at = self.values.with(|values| {
            values.push(value);
            values.len() - 1
        });
        self.latest.store(at, Ordering::Release);
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        self.at(self.latest.load(Ordering::Acquire))
    }

    fn at(&self, at: usize) -> Arc<T> {
        self.values.with(|values| Arc::clone(&values[at]))
    }
}

/// As `arc_swap::Cache`: a `Relaxed` look tells whether there is anything to load.
#[derive(Debug)]
pub(crate) struct Cache<'a, T> {
    source: &'a ArcSwap<T>,
    at: usize,
    value: Arc<T>,
}

impl<'a, T> Cache<'a, T> {
    pub(crate) fn new(source: &'a ArcSwap<T>) -> Self {
        let at = source.latest.load(Ordering::Acquire);
        Self { source, at, value: source.at(at) }
    }

    pub(crate) fn load(&mut self) -> &Arc<T> {
        if self.source.latest.load(Ordering::Relaxed) != self.at {
            self.at = self.source.latest.load(Ordering::Acquire);
            self.value = self.source.at(self.at);
        }
        &self.value
    }
}

/// As `crossbeam::queue::ArrayQueue`, which is Vyukov's bounded queue: the stamps of the slots
/// order what they hold, head and tail order nothing.
#[derive(Debug)]
pub(crate) struct ArrayQueue<T> {
    head: AtomicUsize,
    tail: AtomicUsize,
    slots: Box<[Slot<T>]>,
}

#[derive(Debug)]
struct Slot<T> {
    /// Twice the lap, and one more when the slot is full.
    stamp: AtomicUsize,
    value: Unseen<Option<T>>,
}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let slot = |_| Slot { stamp: AtomicUsize::new(0), value: Unseen(Mutex::new(None)) };
        let slots = (0..capacity).map(slot).collect();
        Self { head: AtomicUsize::new(0), tail: AtomicUsize::new(0), slots }
    }

    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let mut tail = self.tail.load(Ordering::Relaxed);
        loop {
            let (slot, lap) = self.slot(tail);
            let stamp = slot.stamp.load(Ordering::Acquire);
            if stamp == 2 * lap {
                match take_turn(&self.tail, tail) {
                    Ok(()) => {
                        slot.value.with(|place| *place = Some(value));
                        slot.stamp.store(2 * lap + 1, Ordering::Release);
                        return Ok(());
                    }
                    Err(now) => tail = now,
                }
            } else {
                // A lap behind: full, unless somebody takes from it right now.
                fence(Ordering::SeqCst);
                if self.head.load(Ordering::Relaxed) + self.slots.len() == tail {
                    return Err(value);
                }
                loom::thread::yield_now();
                tail = self.tail.load(Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn pop(&self) -> Option<T> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let (slot, lap) = self.slot(head);
            let stamp = slot.stamp.load(Ordering::Acquire);
            if stamp == 2 * lap + 1 {
                match take_turn(&self.head, head) {
                    Ok(()) => {
                        let value = slot.value.with(Option::take);
                        slot.stamp.store(2 * (lap + 1), Ordering::Release);
                        return value;
                    }
                    Err(now) => head = now,
                }
            } else {
                // Empty, unless somebody puts something there right now.
                fence(Ordering::SeqCst);
                if self.tail.load(Ordering::Relaxed) == head {
                    return None;
                }
                loom::thread::yield_now();
                head = self.head.load(Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        let tail = self.tail.load(Ordering::SeqCst);
        let head = self.head.load(Ordering::SeqCst);
        head + self.slots.len() == tail
    }

    fn slot(&self, turn: usize) -> (&Slot<T>, usize) {
        (&self.slots[turn % self.slots.len()], turn / self.slots.len())
    }
}

fn take_turn(turns: &AtomicUsize, turn: usize) -> Result<(), usize> {
    turns.compare_exchange(turn, turn + 1, Ordering::SeqCst, Ordering::Relaxed).map(|_| ())
}
