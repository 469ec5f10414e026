//! The flows of one worker: who owns a flow's packets, until it has ended or idled out.
//!
//! Bounded, without locks, and with no clock of its own. A lookup judges idleness exactly; memory
//! is given back by a wheel of coarse ticks, a bounded piece of work at a time. What a flow's
//! timers and fate are is for [`super::ingress`] to say.

use std::time::{Duration, Instant};

use ahash::{AHashMap, RandomState};
use geneve::flow::CanonicalKey;

use super::snapshot::TargetSlot;
use super::tcp_state::TcpState;
use crate::fault::{self, Fault};

/// What identifies a flow: the same tuple through two endpoints is two flows, since two consumers
/// may use the same addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowId {
    /// The endpoint that the flow goes through, by its id on the wire: that stays the same when
    /// the configuration changes.
    pub endpoint: u64,
    /// The tuple, cut to what the stickiness looks at, the same for both directions.
    pub tuple: CanonicalKey,
}

/// Where a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Who inspects it.
    pub inspector: Inspector,
    /// The source port, as an index into the owner's slice of the pool.
    pub port: u16,
}

/// Who inspects a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspector {
    /// An appliance.
    Target(TargetSlot),
    /// Nobody: the configuration has it bypass the appliances.
    Bypass,
}

/// A flow in the table.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// What identifies it.
    pub id: FlowId,
    /// Where it goes.
    pub placement: Placement,
    /// How far its connection is, if it is one TCP connection that is followed.
    pub tcp: Option<TcpState>,
    /// When its last packet was seen.
    pub last_seen: Instant,
    /// How long it is remembered without a packet.
    pub idle_timeout: Duration,
}

impl Flow {
    /// When it has idled out; the table may still hold it for a while.
    pub fn deadline(&self) -> Instant {
        self.last_seen + self.idle_timeout
    }
}

/// A flow's number in the table, good until the flow is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowNumber(u32);

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
    /// By number, what resets at both ends need; empty as long as nobody wants such.
    ends: Vec<Ends>,
    keeps_ends: bool,
}

#[derive(Debug)]
struct Entry {
    flow: Flow,
    /// The tick of the wheel at which it is looked at next. What the wheel brings up at any other
    /// tick was put there before the deadline moved closer, and means nothing.
    armed: u64,
    live: bool,
}

/// What either end of a TCP connection said last; the first is the end that the canonical tuple
/// names first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends(pub [Option<LastWord>; 2]);

/// What an end of a TCP connection said last, as far as a reset for it must fit to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastWord {
    /// The last acknowledgement number that was seen.
    Ack(u32),
    /// It has acknowledged nothing yet; the sequence number of its SYN.
    Syn(u32),
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
            ends: Vec::new(),
            keeps_ends: false,
        }
    }

    /// Finds a flow that has not idled out.
    pub fn find(&self, id: &FlowId, now: Instant) -> Option<FlowNumber> {
        let number = *self.index.get(id)?;
        let deadline = self.entries[number as usize].flow.deadline();
        let stale =
            fault::on(Fault::StaleFlowUsed) || fault::on(Fault::ExpiryOffByOne) && deadline == now;
        (deadline > now || stale).then_some(FlowNumber(number))
    }

    /// The flow with this number.
    pub fn get(&self, number: FlowNumber) -> &Flow {
        &self.entries[number.0 as usize].flow
    }

    /// Notes that a packet of the flow was seen, how far its connection is now, and how long it is
    /// remembered from here on.
    pub fn touch(
        &mut self,
        number: FlowNumber,
        tcp: Option<TcpState>,
        idle_timeout: Duration,
        now: Instant,
    ) {
        let entry = &mut self.entries[number.0 as usize];
        let shorter = idle_timeout < entry.flow.idle_timeout;
        entry.flow.last_seen = now;
        entry.flow.tcp = tcp;
        entry.flow.idle_timeout = idle_timeout;
        // A packet touches no timer, unless it would come up too late. Each such one comes up
        // sooner than the one before, so nobody can fill the wheel with them.
        if shorter && self.wheel.tick_of(entry.flow.deadline()) < entry.armed {
            entry.armed = self.wheel.schedule(number.0, entry.flow.deadline());
        }
    }

    /// Sends a flow elsewhere from now on.
    pub fn place(&mut self, number: FlowNumber, placement: Placement) {
        self.entries[number.0 as usize].flow.placement = placement;
    }

    /// Takes a flow in, in place of an expired one of the same identity if there is one, which is
    /// returned: the wheel will not come upon that one any more.
    pub fn insert(&mut self, flow: Flow) -> Result<(FlowNumber, Option<Flow>), Full> {
        if let Some(&number) = self.index.get(&flow.id) {
            let number = FlowNumber(number);
            return Ok((number, Some(self.replace(number, flow))));
        }
        let mut evicted = None;
        let number = match self.free.last() {
            Some(&number) => number,
            None if self.entries.len() < self.limit => self.entries.len() as u32,
            None if fault::on(Fault::FullTableEvicts) => {
                evicted = Some(self.remove(FlowNumber(0)));
                0
            }
            None => return Err(Full),
        };
        let armed = self.wheel.schedule(number, flow.deadline());
        let entry = Entry { flow, armed, live: true };
        if self.free.pop().is_some() {
            self.entries[number as usize] = entry;
        } else {
            self.entries.push(entry);
        }
        self.index.insert(flow.id, number);
        self.forget_ends(FlowNumber(number));
        Ok((FlowNumber(number), evicted))
    }

    /// Puts a flow in the place of one with the same identity.
    pub fn replace(&mut self, number: FlowNumber, flow: Flow) -> Flow {
        let entry = &mut self.entries[number.0 as usize];
        // Its timer comes up before or at its time, and that is soon enough for the new one, unless
        // that has less time left: so whoever begins a flow again and again fills no wheel.
        if self.wheel.tick_of(flow.deadline()) < entry.armed {
            entry.armed = self.wheel.schedule(number.0, flow.deadline());
        }
        let before = std::mem::replace(&mut entry.flow, flow);
        if !fault::on(Fault::OldWordsKept) {
            self.forget_ends(number);
        }
        before
    }

    /// Forgets a flow.
    pub fn remove(&mut self, number: FlowNumber) -> Flow {
        let entry = &mut self.entries[number.0 as usize];
        entry.live = false;
        self.index.remove(&entry.flow.id);
        self.free.push(number.0);
        entry.flow
    }

    /// Forgets flows that have idled out, a bounded number at a time, and tells each, with what was
    /// kept of its ends.
    pub fn handle_timeout(&mut self, now: Instant, mut expired: impl FnMut(Flow, Ends)) {
        for _ in 0..Wheel::BUDGET {
            let Some((number, tick)) = self.wheel.due(now) else { break };
            let entry = &mut self.entries[number as usize];
            if !entry.live || entry.armed != tick {
                continue;
            }
            if entry.flow.deadline() > now {
                if fault::on(Fault::TimerNotRearmed) {
                    continue;
                }
                entry.armed = self.wheel.schedule(number, entry.flow.deadline());
            } else {
                let ends = self.ends(FlowNumber(number));
                expired(self.remove(FlowNumber(number)), ends);
            }
        }
    }

    /// When [`Self::handle_timeout`] should be called next; `None` while the table is empty.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.index.is_empty()).then(|| self.wheel.next_tick())
    }

    /// The flows whose numbers lie in a range; for going through all of them piece by piece.
    pub fn in_range(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = FlowNumber> {
        let end = range.end.min(self.entries.len());
        let start = range.start.min(end);
        let live = self.entries[start..end].iter().enumerate().filter(|(_, entry)| entry.live);
        live.map(move |(offset, _)| FlowNumber((start + offset) as u32))
    }

    /// One more than the largest number in use.
    pub fn numbers(&self) -> usize {
        self.entries.len()
    }

    /// Has the last words of ends kept from now on, or not any more.
    pub fn keep_ends(&mut self, keep: bool) {
        self.keeps_ends = keep;
        if !keep {
            self.ends = Vec::new();
        }
    }

    /// Whether [`Self::note_end`] is of any use.
    pub fn keeps_ends(&self) -> bool {
        self.keeps_ends
    }

    /// Notes what an end of the flow said last.
    pub fn note_end(&mut self, number: FlowNumber, end: usize, word: LastWord) {
        let number = number.0 as usize;
        if self.ends.len() <= number {
            self.ends.resize(self.entries.len(), Ends::default());
        }
        self.ends[number].0[end] = Some(word);
    }

    /// What was kept of a flow's ends.
    pub fn ends(&self, number: FlowNumber) -> Ends {
        self.ends.get(number.0 as usize).copied().unwrap_or_default()
    }

    /// What was kept of a flow's ends has done its service.
    pub fn forget_ends(&mut self, number: FlowNumber) {
        if let Some(ends) = self.ends.get_mut(number.0 as usize) {
            *ends = Ends::default();
        }
    }

    /// How many flows are in the table, idle ones that were not swept yet included.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// How many timers there are, lapsed ones included.
    #[cfg(test)]
    pub(super) fn timers(&self) -> usize {
        self.wheel.slots.iter().map(Vec::len).sum()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

/// A timing wheel of one-second ticks. A timer that was refreshed meanwhile is put back when it
/// comes up; one that would come up too late is put in a second time, and the first one lapses.
#[derive(Debug)]
struct Wheel {
    slots: Vec<Vec<(u32, u64)>>,
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

    /// Puts a timer in, and says at which tick it comes up.
    fn schedule(&mut self, number: u32, deadline: Instant) -> u64 {
        let tick = self.tick_of(deadline);
        self.slots[(tick % Self::SLOTS) as usize].push((number, tick));
        tick
    }

    /// The tick at which a deadline is looked at.
    fn tick_of(&self, deadline: Instant) -> u64 {
        // Rounded up, so that a timer is over when it comes up.
        let ticks = deadline.saturating_duration_since(self.start).as_millis() as u64
            / Self::TICK.as_millis() as u64
            + 1;
        ticks.clamp(self.tick + 1, self.tick + Self::SLOTS - 1)
    }

    /// Takes out a timer that has come up.
    fn due(&mut self, now: Instant) -> Option<(u32, u64)> {
        loop {
            if self.next_tick() > now {
                return None;
            }
            if let Some(timer) = self.slots[((self.tick + 1) % Self::SLOTS) as usize].pop() {
                return Some(timer);
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
        FlowId { endpoint: 7, tuple }
    }

    fn placement(n: u32) -> Placement {
        Placement { inspector: Inspector::Target(TargetSlot(n)), port: 0 }
    }

    fn flow(n: u16, target: u32, idle_timeout: Duration, now: Instant) -> Flow {
        Flow { id: id(n), placement: placement(target), tcp: None, last_seen: now, idle_timeout }
    }

    fn expire(table: &mut FlowTable, now: Instant) -> Vec<FlowId> {
        let mut expired = Vec::new();
        table.handle_timeout(now, |flow, _| expired.push(flow.id));
        expired
    }

    /// Where a flow goes, if it is there; and it was seen.
    fn seen(table: &mut FlowTable, n: u16, timeout: Duration, now: Instant) -> Option<Placement> {
        let number = table.find(&id(n), now)?;
        table.touch(number, None, timeout, now);
        Some(table.get(number).placement)
    }

    #[test]
    fn idleness_is_exact() {
        let start = start();
        let mut table = FlowTable::new(10, 0, start);
        table.insert(flow(1, 1, IDLE, start)).unwrap();
        let just_before = start + Duration::from_nanos(349_999_999_999);
        assert_eq!(seen(&mut table, 1, IDLE, just_before), Some(placement(1)));
        assert_eq!(seen(&mut table, 1, IDLE, just_before + IDLE), None, "the timeout has passed");
        assert_eq!(seen(&mut table, 2, IDLE, start), None);
    }

    #[test]
    fn full_is_an_answer_and_expiry_makes_room() {
        let start = start();
        let mut table = FlowTable::new(2, 0, start);
        table.insert(flow(1, 1, IDLE, start)).unwrap();
        table.insert(flow(2, 2, IDLE * 2, start)).unwrap();
        assert_eq!(table.insert(flow(3, 3, IDLE, start)).unwrap_err(), Full);
        table.insert(flow(1, 4, IDLE, start)).unwrap();

        let later = start + IDLE + Duration::from_secs(2);
        assert_eq!(expire(&mut table, later), [id(1)]);
        assert_eq!(table.len(), 1);
        table.insert(flow(3, 3, IDLE, later)).unwrap();
        assert_eq!(seen(&mut table, 2, IDLE, later), Some(placement(2)));
    }

    #[test]
    fn a_shorter_time_is_kept_to() {
        let start = start();
        let mut table = FlowTable::new(2, 0, start);
        let (number, _) = table.insert(flow(1, 1, IDLE, start)).unwrap();
        table.touch(number, Some(TcpState::CLOSED), Duration::from_secs(10), start);
        assert_eq!(expire(&mut table, start + Duration::from_secs(9)), []);
        assert_eq!(expire(&mut table, start + Duration::from_secs(12)), [id(1)]);
        // The timer that lapsed does not hit whoever has the number now.
        let now = start + Duration::from_secs(100);
        table.insert(flow(2, 2, IDLE, now)).unwrap();
        assert_eq!(expire(&mut table, start + IDLE + Duration::from_secs(2)), []);
        assert_eq!(expire(&mut table, now + IDLE + Duration::from_secs(2)), [id(2)]);
        assert!(table.is_empty());
    }

    #[test]
    fn whoever_comes_after_is_forgotten_at_its_own_time() {
        let start = start();
        let mut table = FlowTable::new(1, 0, start);
        table.insert(flow(1, 1, IDLE, start)).unwrap();
        let (_, before) = table.insert(flow(1, 2, Duration::from_secs(10), start)).unwrap();
        assert_eq!(before.unwrap().placement, placement(1));
        assert_eq!(expire(&mut table, start + Duration::from_secs(9)), []);
        assert_eq!(expire(&mut table, start + Duration::from_secs(12)), [id(1)]);
    }

    #[test]
    fn ends_are_kept_where_they_are_wanted_and_not_passed_on() {
        let start = start();
        let mut table = FlowTable::new(2, 0, start);
        let (number, _) = table.insert(flow(1, 1, IDLE, start)).unwrap();
        table.keep_ends(true);
        assert_eq!(table.ends(number), Ends::default());
        table.note_end(number, 1, LastWord::Ack(77));
        assert_eq!(table.ends(number), Ends([None, Some(LastWord::Ack(77))]));
        table.remove(number);
        let (number, _) = table.insert(flow(2, 1, IDLE, start)).unwrap();
        assert_eq!(table.ends(number), Ends::default(), "of another flow");
        table.note_end(number, 0, LastWord::Syn(1));
        table.keep_ends(false);
        assert_eq!(table.ends(number), Ends::default());
    }

    #[test]
    fn all_flows_are_found_piece_by_piece() {
        let start = start();
        let mut table = FlowTable::new(10, 0, start);
        for n in 0..5 {
            table.insert(flow(n, 1, IDLE, start)).unwrap();
        }
        let third = table.find(&id(2), start).unwrap();
        table.remove(third);
        let pieces = [0..2, 2..4, 4..900];
        let found = pieces.into_iter().flat_map(|piece| table.in_range(piece));
        let found: Vec<_> = found.map(|number| table.get(number).id).collect();
        assert_eq!(found, [id(0), id(1), id(3), id(4)]);
    }

    #[test]
    fn nothing_to_wait_for_when_empty() {
        let start = start();
        let mut table = FlowTable::new(2, 0, start);
        assert_eq!(table.poll_timeout(), None);
        table.insert(flow(1, 1, IDLE, start)).unwrap();
        let mut now = start;
        while let Some(next) = table.poll_timeout() {
            assert!(next > now, "time goes on");
            now = next;
            expire(&mut table, now);
        }
        assert!(now >= start + IDLE && now <= start + IDLE + Duration::from_secs(2));
    }

    /// Every timeout up to two turns of the wheel, begun at and beside the turn of a tick, early and
    /// when the wheel has turned: the flow is found to the last nanosecond, and is out of the table
    /// at most one tick later, by calls that come when they are asked for and not sooner.
    #[test]
    fn every_timeout_is_kept_to() {
        let origin = start();
        let nanos = Duration::from_nanos;
        for turned in [0, 511, 512, 513, 100_000] {
            for beside in [nanos(0), nanos(1), nanos(999_999), nanos(1_000_000), nanos(999_999_999)]
            {
                for seconds in (0..=6).chain(506..=518).chain([350, 1_022, 1_023, 1_024, 1_025]) {
                    for timeout in [nanos(0), nanos(1), nanos(500_000_000)] {
                        let timeout = Duration::from_secs(seconds) + timeout;
                        let mut table = FlowTable::new(2, 0, origin);
                        let begun = origin + Duration::from_secs(turned) + beside;
                        // The wheel has come so far; nothing was in it.
                        table.handle_timeout(begun, |_, _| unreachable!());
                        table.insert(flow(1, 1, timeout, begun)).unwrap();
                        let deadline = begun + timeout;
                        let found = |at| table.find(&id(1), at).is_some();
                        assert!(!found(deadline) && found(begun) == (timeout > Duration::ZERO));
                        let before = deadline.checked_sub(nanos(1)).unwrap();
                        assert!(timeout.is_zero() || found(before));
                        let mut now = begun;
                        while let Some(next) = table.poll_timeout() {
                            assert!(next > now, "time goes on");
                            now = next;
                            table.handle_timeout(now, |flow, _| assert!(flow.deadline() <= now));
                        }
                        assert!(now >= deadline, "{turned} {beside:?} {timeout:?}");
                        assert!(
                            now <= deadline + Wheel::TICK,
                            "{turned} {beside:?} {timeout:?}: {:?} late",
                            now - deadline
                        );
                    }
                }
            }
        }
    }

    proptest! {
        /// Against the obvious twin: a list of (id, last seen, timeout).
        #[test]
        fn behaves_like_a_list(
            steps in prop::collection::vec((0u16..6, 0u64..400, 1u64..700, any::<bool>()), 1..200),
        ) {
            let mut now = start();
            let mut table = FlowTable::new(100, 1, now);
            let mut twin: Vec<(u16, Instant, u32, Duration)> = Vec::new();
            for (step, (n, seconds, timeout, sweep)) in steps.into_iter().enumerate() {
                now += Duration::from_secs(seconds);
                let timeout = Duration::from_secs(timeout);
                twin.retain(|&(_, seen, _, timeout)| seen + timeout > now);
                if sweep {
                    table.handle_timeout(now, |flow, _| {
                        assert!(flow.deadline() <= now, "not yet");
                    });
                }
                let expected = twin.iter_mut().find(|entry| entry.0 == n).map(|entry| {
                    (entry.1, entry.3) = (now, timeout);
                    placement(entry.2)
                });
                prop_assert_eq!(seen(&mut table, n, timeout, now), expected);
                if expected.is_none() {
                    let number = step as u32;
                    let before = table.len();
                    let (_, expired) = table.insert(flow(n, number, timeout, now)).unwrap();
                    prop_assert_eq!(table.len() - before, usize::from(expired.is_none()));
                    twin.push((n, now, number, timeout));
                }
                prop_assert!(table.len() >= twin.len());
            }
        }
    }
}
