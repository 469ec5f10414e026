//! The flows of one worker: bounded, with idle expiry, the least recently used making room.
//!
//! All flows have one idle time, so the order of use is the order of expiry: a list threaded
//! through the slots gives both, and one touch costs one look-up and a few writes. The table
//! knows nothing of packets and reads no clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ahash::RandomState;
use geneve::flow::CanonicalKey;

/// What tells flows apart: consumers behind different endpoints may use the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowId {
    pub(crate) endpoint: u64,
    pub(crate) key: CanonicalKey,
}

/// The place of a flow in the table; good until the next call that may remove one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowIndex(u32);

/// How a flow was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    Known,
    New,
    /// Made anew: the one with this identity was idle for too long.
    NewByExpiry,
    /// Made, and the least recently used flow had to go for it.
    NewByEviction,
}

const NONE: u32 = u32::MAX;

pub(crate) struct FlowTable<F> {
    index: HashMap<FlowId, u32, RandomState>,
    slots: Vec<Slot<F>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    limit: usize,
    idle_timeout: Duration,
}

struct Slot<F> {
    id: FlowId,
    last_used: Instant,
    newer: u32,
    older: u32,
    value: Option<F>,
}

impl<F> FlowTable<F> {
    /// A table of at most `limit` flows (at least one), which live until they were unused for
    /// `idle_timeout`.
    pub(crate) fn new(limit: usize, idle_timeout: Duration) -> Self {
        Self {
            index: HashMap::with_hasher(RandomState::new()),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            limit: limit.clamp(1, NONE as usize),
            idle_timeout,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Finds the flow and marks it as used now, or makes it.
    pub(crate) fn touch(
        &mut self,
        id: FlowId,
        now: Instant,
        make: impl FnOnce() -> F,
    ) -> (FlowIndex, Touched) {
        if let Some(&at) = self.index.get(&id) {
            let slot = &mut self.slots[at as usize];
            let mut touched = Touched::Known;
            if slot.last_used + self.idle_timeout <= now {
                // `expire` works in portions and may not have come to this one yet.
                slot.value = Some(make());
                touched = Touched::NewByExpiry;
            }
            slot.last_used = now;
            if self.newest != at {
                self.unlink(at);
                self.link_newest(at);
            }
            return (FlowIndex(at), touched);
        }
        let mut touched = Touched::New;
        if self.index.len() >= self.limit {
            self.remove_oldest();
            touched = Touched::NewByEviction;
        }
        let slot = Slot { id, last_used: now, newer: NONE, older: NONE, value: Some(make()) };
        let at = if let Some(at) = self.free.pop() {
            self.slots[at as usize] = slot;
            at
        } else {
            self.slots.push(slot);
            // `limit` keeps the number of slots below `NONE`.
            (self.slots.len() - 1) as u32
        };
        self.index.insert(id, at);
        self.link_newest(at);
        (FlowIndex(at), touched)
    }

    /// Looks a flow up without marking it as used.
    pub(crate) fn find(&self, id: &FlowId) -> Option<FlowIndex> {
        self.index.get(id).map(|&at| FlowIndex(at))
    }

    pub(crate) fn get_mut(&mut self, at: FlowIndex) -> Option<&mut F> {
        self.slots.get_mut(at.0 as usize)?.value.as_mut()
    }

    /// Removes at most `at_most` flows that were idle for too long, and says how many.
    pub(crate) fn expire(&mut self, now: Instant, at_most: usize) -> usize {
        let mut expired = 0;
        while expired < at_most && self.next_expiry().is_some_and(|due| due <= now) {
            self.remove_oldest();
            expired += 1;
        }
        expired
    }

    /// When the next flow expires if nothing happens until then.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.slots.get(self.oldest as usize).map(|slot| slot.last_used + self.idle_timeout)
    }

    fn remove_oldest(&mut self) {
        let at = self.oldest;
        if at == NONE {
            return;
        }
        self.unlink(at);
        let slot = &mut self.slots[at as usize];
        slot.value = None;
        self.index.remove(&slot.id);
        self.free.push(at);
    }

    fn unlink(&mut self, at: u32) {
        let Slot { newer, older, .. } = self.slots[at as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
    }

    fn link_newest(&mut self, at: u32) {
        let second = self.newest;
        let slot = &mut self.slots[at as usize];
        (slot.newer, slot.older) = (NONE, second);
        match second {
            NONE => self.oldest = at,
            second => self.slots[second as usize].newer = at,
        }
        self.newest = at;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use geneve::flow::FlowKey;
    use proptest::prelude::*;

    use super::*;

    fn id(n: u16) -> FlowId {
        let to = |last, port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), port);
        let key = FlowKey::new(to(1, 1000 + n), to(2, 80), 6).unwrap().canonical();
        FlowId { endpoint: 1, key }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Touch(u16),
        Wait(u64),
        Expire,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0u16..12).prop_map(Step::Touch),
            1 => (0u64..8).prop_map(Step::Wait),
            1 => Just(Step::Expire),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// The table behaves like a plain list that is kept in order of use.
        #[test]
        fn behaves_like_a_list_in_order_of_use(steps in steps(), limit in 1usize..8) {
            const IDLE: Duration = Duration::from_secs(10);
            let mut table = FlowTable::new(limit, IDLE);
            let mut model: Vec<(u16, Instant, usize)> = Vec::new();
            #[expect(clippy::disallowed_methods, reason = "only a starting point for virtual time")]
            let mut now = Instant::now();
            for (serial, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Expire => {
                        let before = model.len();
                        model.retain(|(_, used, _)| *used + IDLE > now);
                        prop_assert_eq!(table.expire(now, usize::MAX), before - model.len());
                    }
                    Step::Touch(n) => {
                        let (at, touched) = table.touch(id(n), now, || serial);
                        let expected = match model.iter().position(|(m, ..)| *m == n) {
                            Some(position) => {
                                let (_, used, made) = model.remove(position);
                                let stale = used + IDLE <= now;
                                model.push((n, now, if stale { serial } else { made }));
                                if stale { Touched::NewByExpiry } else { Touched::Known }
                            }
                            None if model.len() == limit => {
                                model.remove(0);
                                model.push((n, now, serial));
                                Touched::NewByEviction
                            }
                            None => {
                                model.push((n, now, serial));
                                Touched::New
                            }
                        };
                        prop_assert_eq!(touched, expected);
                        prop_assert_eq!(table.get_mut(at).copied(), model.last().map(|m| m.2));
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert!(table.slots.len() <= limit);
                prop_assert_eq!(table.next_expiry(), model.first().map(|m| m.1 + IDLE));
                for n in 0..12 {
                    let known = model.iter().any(|(m, ..)| *m == n);
                    prop_assert_eq!(table.find(&id(n)).is_some(), known);
                }
            }
        }
    }

    #[test]
    fn expiry_works_in_portions() {
        #[expect(clippy::disallowed_methods, reason = "only a starting point for virtual time")]
        let start = Instant::now();
        let mut table = FlowTable::new(100, Duration::from_secs(1));
        for n in 0..10 {
            table.touch(id(n), start, || ());
        }
        let later = start + Duration::from_secs(1);
        assert_eq!(table.expire(later, 4), 4);
        assert_eq!(table.expire(later, 100), 6);
        assert_eq!(table.len(), 0);
        assert_eq!(table.next_expiry(), None);
    }
}
