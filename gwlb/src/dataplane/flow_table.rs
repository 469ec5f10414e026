//! The flows of one worker: who owns a flow's packets, until it has been idle for too long.
//!
//! Bounded, without locks, and with no clock of its own. A lookup judges idleness exactly; memory
//! is given back by a wheel of coarse ticks, a bounded piece of work at a time.

use std::time::{Duration, Instant};

use ahash::{AHashMap, RandomState};
use geneve::flow::CanonicalKey;
use router::EndpointId;

use super::snapshot::TargetSlot;

/// What identifies a flow: the same tuple through two endpoints is two flows, since two consumers
/// may use the same addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowId {
    /// The endpoint that the flow goes through.
    pub endpoint: EndpointId,
    /// The tuple, cut to what the stickiness looks at, the same for both directions.
    pub tuple: CanonicalKey,
}

/// Where a flow goes, for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The appliance.
    pub target: TargetSlot,
    /// The source port, as an index into the owner's slice of the pool.
    pub port: u16,
}

/// The table has as many flows as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The flow table of one worker.
#[derive(Debug)]
pub struct FlowTable {
    index: AHashMap<FlowId, u32>,
    entries: Vec<Entry>,
    /// Entries without a flow.
    free: Vec<u32>,
    limit: usize,
    wheel: Wheel,
}

#[derive(Debug)]
struct Entry {
    id: FlowId,
    placement: Placement,
    last_seen: Instant,
    idle_timeout: Duration,
}

impl Entry {
    fn deadline(&self) -> Instant {
        self.last_seen + self.idle_timeout
    }
}

impl FlowTable {
    /// A table for at most `limit` flows. `seed` keys the index against chosen collisions; it
    /// changes nothing that can be seen outside.
    pub fn new(limit: usize, seed: u64, now: Instant) -> Self {
        let limit = limit.min(u32::MAX as usize);
        Self {
            index: AHashMap::with_hasher(RandomState::with_seed(seed as usize)),
            entries: Vec::new(),
            free: Vec::new(),
            limit,
            wheel: Wheel::new(now),
        }
    }

    /// Finds a flow that is not idle for too long, and notes that it was seen.
    pub fn touch(
        &mut self,
        id: &FlowId,
        idle_timeout: Duration,
        now: Instant,
    ) -> Option<Placement> {
        let entry = &mut self.entries[*self.index.get(id)? as usize];
        if entry.deadline() <= now {
            return None;
        }
        entry.last_seen = now;
        entry.idle_timeout = idle_timeout;
        Some(entry.placement)
    }

    /// Takes a flow in, in place of an expired one of the same identity if there is one, whose
    /// placement is returned: the wheel will not come upon that one any more.
    pub fn insert(
        &mut self,
        id: FlowId,
        placement: Placement,
        idle_timeout: Duration,
        now: Instant,
    ) -> Result<Option<Placement>, Full> {
        let entry = Entry { id, placement, last_seen: now, idle_timeout };
        if let Some(&number) = self.index.get(&id) {
            // Its timer is still in the wheel.
            let expired = std::mem::replace(&mut self.entries[number as usize], entry);
            return Ok(Some(expired.placement));
        }
        let deadline = entry.deadline();
        let number = if let Some(number) = self.free.pop() {
            self.entries[number as usize] = entry;
            number
        } else if self.entries.len() < self.limit {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            return Err(Full);
        };
        self.index.insert(id, number);
        self.wheel.schedule(number, deadline);
        Ok(None)
    }

    /// Forgets flows that were idle for too long, a bounded number at a time, and returns how many.
    pub fn handle_timeout(&mut self, now: Instant) -> u64 {
        let mut expired = 0;
        for _ in 0..Wheel::BUDGET {
            let Some(number) = self.wheel.due(now) else { break };
            let entry = &self.entries[number as usize];
            if entry.deadline() > now {
                self.wheel.schedule(number, entry.deadline());
            } else {
                self.index.remove(&entry.id);
                self.free.push(number);
                expired += 1;
            }
        }
        expired
    }

    /// When [`Self::handle_timeout`] should be called next; `None` while the table is empty.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.index.is_empty()).then(|| self.wheel.next_tick())
    }

    /// How many flows are in the table, idle ones that were not swept yet included.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

/// A timing wheel of one-second ticks. Every entry of the table is in it exactly once; a timer
/// that was refreshed meanwhile is put back when it comes up, so a packet touches no timer.
#[derive(Debug)]
struct Wheel {
    slots: Vec<Vec<u32>>,
    start: Instant,
    /// The tick whose slot is being emptied.
    tick: u64,
}

impl Wheel {
    const TICK: Duration = Duration::from_secs(1);
    /// Longer waits are cut to the wheel's length and looked at again.
    const SLOTS: u64 = 512;
    /// Timers looked at in one call.
    const BUDGET: usize = 1024;

    fn new(start: Instant) -> Self {
        Self { slots: vec![Vec::new(); Self::SLOTS as usize], start, tick: 0 }
    }

    fn schedule(&mut self, number: u32, deadline: Instant) {
        // Rounded up, so that a timer is over when it comes up.
        let ticks = deadline.saturating_duration_since(self.start).as_millis() as u64
            / Self::TICK.as_millis() as u64
            + 1;
        let tick = ticks.clamp(self.tick + 1, self.tick + Self::SLOTS - 1);
        self.slots[(tick % Self::SLOTS) as usize].push(number);
    }

    /// Takes out a timer that has come up.
    fn due(&mut self, now: Instant) -> Option<u32> {
        loop {
            if self.next_tick() > now {
                return None;
            }
            if let Some(number) = self.slots[((self.tick + 1) % Self::SLOTS) as usize].pop() {
                return Some(number);
            }
            self.tick += 1;
        }
    }

    fn next_tick(&self) -> Instant {
        self.start + Self::TICK * u32::try_from(self.tick + 1).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use geneve::flow::FlowKey;
    use proptest::prelude::*;

    use super::super::testing::start;
    use super::*;

    const IDLE: Duration = Duration::from_secs(350);

    fn id(n: u16) -> FlowId {
        let src = SocketAddr::from(([10, 0, 0, 1], n));
        let tuple =
            FlowKey::new(src, SocketAddr::from(([192, 0, 2, 1], 80)), 6).unwrap().canonical();
        FlowId { endpoint: EndpointId::from_index(0), tuple }
    }

    fn placement(n: u32) -> Placement {
        Placement { target: TargetSlot(n), port: 0 }
    }

    #[test]
    fn idleness_is_exact() {
        let start = start();
        let mut table = FlowTable::new(10, 0, start);
        table.insert(id(1), placement(1), IDLE, start).unwrap();
        let just_before = start + Duration::from_nanos(349_999_999_999);
        assert_eq!(table.touch(&id(1), IDLE, just_before), Some(placement(1)));
        assert_eq!(table.touch(&id(1), IDLE, just_before + IDLE), None, "the timeout has passed");
        assert_eq!(table.touch(&id(2), IDLE, start), None);
    }

    #[test]
    fn full_is_an_answer_and_expiry_makes_room() {
        let start = start();
        let mut table = FlowTable::new(2, 0, start);
        table.insert(id(1), placement(1), IDLE, start).unwrap();
        table.insert(id(2), placement(2), IDLE * 2, start).unwrap();
        assert_eq!(table.insert(id(3), placement(3), IDLE, start), Err(Full));
        table.insert(id(1), placement(4), IDLE, start).unwrap();

        let later = start + IDLE + Duration::from_secs(2);
        assert_eq!(table.handle_timeout(later), 1);
        assert_eq!(table.len(), 1);
        table.insert(id(3), placement(3), IDLE, later).unwrap();
        assert_eq!(table.touch(&id(2), IDLE, later), Some(placement(2)));
    }

    #[test]
    fn nothing_to_wait_for_when_empty() {
        let start = start();
        let mut table = FlowTable::new(2, 0, start);
        assert_eq!(table.poll_timeout(), None);
        table.insert(id(1), placement(1), IDLE, start).unwrap();
        let mut now = start;
        while let Some(next) = table.poll_timeout() {
            assert!(next > now, "time goes on");
            now = next;
            table.handle_timeout(now);
        }
        assert!(now >= start + IDLE && now <= start + IDLE + Duration::from_secs(2));
    }

    proptest! {
        /// Against the obvious twin: a list of (id, last seen, timeout).
        #[test]
        fn behaves_like_a_list(steps in prop::collection::vec((0u16..6, 0u64..400, any::<bool>()), 1..200)) {
            let mut now = start();
            let mut table = FlowTable::new(100, 1, now);
            let mut twin: Vec<(u16, Instant, u32)> = Vec::new();
            for (step, (flow, seconds, sweep)) in steps.into_iter().enumerate() {
                now += Duration::from_secs(seconds);
                if sweep {
                    table.handle_timeout(now);
                }
                twin.retain(|&(_, seen, _)| seen + IDLE > now);
                let expected = twin.iter_mut().find(|entry| entry.0 == flow).map(|entry| {
                    entry.1 = now;
                    placement(entry.2)
                });
                prop_assert_eq!(table.touch(&id(flow), IDLE, now), expected);
                if expected.is_none() {
                    let number = step as u32;
                    let before = table.len();
                    let expired = table.insert(id(flow), placement(number), IDLE, now).unwrap();
                    prop_assert_eq!(table.len() - before, usize::from(expired.is_none()));
                    twin.push((flow, now, number));
                }
                prop_assert!(table.len() >= twin.len());
            }
        }
    }
}
