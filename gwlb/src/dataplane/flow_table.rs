//! The flows of one worker: who owns a flow's packets, until it has ended or idled out.
//!
//! Bounded, without locks, and with no clock of its own. A flow is one cache line, found by an index
//! of another; neither moves nor grows, so nothing is waited for while the table fills. A lookup
//! judges idleness exactly; memory is given back by a wheel of coarse ticks, a bounded piece of work
//! at a time. What a flow's timers and fate are is for [`super::ingress`] to say.

mod entry;
mod index;
pub mod record;
#[cfg(test)]
mod tests;
mod wheel;

use std::hash::{BuildHasher, Hasher};
use std::io;
use std::time::{Duration, Instant};

use ahash::RandomState;
use geneve::flow::CanonicalKey;
use geneve::inner::IpVersion;
use netio::mem::{Commit, Table, prefetch};

use super::snapshot::TargetSlot;
use super::tcp_state::TcpState;
use crate::fault::{self, Fault};
use index::{Index, Spot};
use record::{Gone, Records};
use wheel::Wheel;

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

/// A flow's hash, by which a table finds it. It is quick, keyed against chosen collisions, and good
/// for the tables of one process alone: who owns a flow is decided by another one, which is the same
/// everywhere ([`Snapshot::share`](super::snapshot::Snapshot::share)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowHash(u64);

impl FlowHash {
    #[expect(clippy::inline_always, reason = "whoever calls it knows the version, mostly")]
    #[inline(always)]
    fn of(tuple: &CanonicalKey, version: IpVersion, endpoint: u64, key: &RandomState) -> Self {
        let mut hasher = key.build_hasher();
        // Two words at a time are hashed as quickly as one.
        let pair = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        let [rest, a, b, c, d] = tuple.as_words();
        hasher.write_u128(pair(*rest, *a));
        // The others of IPv4 are the same in all its keys.
        if version == IpVersion::V6 {
            hasher.write_u128(pair(*b, *c));
            hasher.write_u128(pair(*d, 0));
        }
        // What is added is no secret, and need not be: who knows nothing of the tuple's hash knows
        // nothing of the sum either. The factor spreads ids that are close to each other (Knuth's).
        Self(hasher.finish().wrapping_add(endpoint.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

/// Where a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Who inspects it.
    pub inspector: Inspector,
    /// The source port, as an index into the owner's slice of the pool, which has 64 at most.
    pub port: u8,
}

/// Who inspects a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// When it has idled out; the table may still hold it for a while.
    pub deadline: Instant,
}

/// A further packet of a flow that goes on as it was.
#[derive(Debug, Clone, Copy)]
pub struct Further<'a> {
    /// The flow's tuple.
    pub tuple: &'a CanonicalKey,
    /// The tuple's IP version.
    pub version: IpVersion,
    /// The endpoint that it goes through, as in [`FlowId`].
    pub endpoint: u64,
    /// How far its connection is, if it is one TCP connection that is followed.
    pub tcp: Option<TcpState>,
    /// For how many nanoseconds the flow is remembered after it, as [`Idle`] has them.
    pub idle: u64,
}

/// Of a flow in the table, what its next packet needs.
#[derive(Debug, Clone, Copy)]
pub struct Settled {
    /// Who inspects it.
    pub target: TargetSlot,
    /// The source port, as in [`Placement`].
    pub port: u8,
    /// The cookie of its packets.
    pub cookie: u32,
}

/// A flow's number in the table, good until the flow is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowNumber(u32);

impl FlowNumber {
    /// The number that no flow ever has.
    pub const NOBODY: Self = Self(u32::MAX);

    /// The number: flows are gone through in the order of theirs.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// That a flow is not in the table, which may [begin](FlowTable::begin) therefore.
#[derive(Debug)]
pub struct Vacancy<'a> {
    tuple: &'a CanonicalKey,
    endpoint: u64,
    hash: FlowHash,
    spot: Spot,
}

/// How long a flow is remembered without a packet, as the table counts it.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// In nanoseconds.
    pub nanos: u64,
    /// In milliseconds, rounded up, so that nothing is forgotten before its time.
    millis: u32,
}

impl From<Duration> for Idle {
    fn from(timeout: Duration) -> Self {
        // Half of all time there is at most, so that a time plus this does not overflow.
        Self { nanos: nanos(timeout).min(u64::MAX / 2), millis: milliseconds(timeout) }
    }
}

/// A time, in nanoseconds since a table was made.
#[derive(Debug, Clone, Copy)]
pub struct Turn(u64);

/// The table has as many flows as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The flow table of one worker.
#[derive(Debug)]
pub struct FlowTable {
    /// By number: 64 bytes for each flow, a cache line.
    entries: Table<entry::Words>,
    index: Index,
    /// Numbers below this one have been in use.
    used: u32,
    /// Such of them as are not.
    free: Vec<u32>,
    key: RandomState,
    start: Instant,
    /// The time that was last asked about, in both forms: a batch asks about the same all along.
    now: (Instant, u64),
    wheel: Wheel,
    timers: Table<Timer>,
    /// Flows below this number have no cookie of an earlier key.
    cookies_of_now: u32,
    /// By number, what resets at both ends need; empty as long as nobody wants such.
    ends: Vec<Ends>,
    keeps_ends: bool,
    /// By number, what went each way; there only if it is wanted.
    records: Option<Records>,
}

/// Of a flow, by number: the tick of the wheel at which it is looked at next, since what the wheel
/// brings up at any other tick was put there before the deadline moved closer, and means nothing; and
/// the longest time that any of its packets has had it remembered for, in milliseconds.
type Timer = [u32; 2];
const ARMED: usize = 0;
const LONGEST: usize = 1;

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

/// How many flows ahead a vacant place is fetched.
const AHEAD: usize = 8;

/// Flows whose cookies are forgotten in one go: a few microseconds.
const COOKIES: u32 = 1024;

impl FlowTable {
    /// A table for at most `limit` flows. `key`, the one for tables, keys the index against chosen
    /// collisions.
    ///
    /// # Errors
    /// If there is no memory for so many.
    pub fn new(limit: usize, key: RandomState, commit: Commit, now: Instant) -> io::Result<Self> {
        // Each has a number of 32 bits, and none must look like nobody.
        let limit = limit.min(u32::MAX as usize - 1);
        Ok(Self {
            entries: Table::new(limit, commit)?,
            index: Index::new(limit)?,
            used: 0,
            free: Vec::new(),
            key,
            start: now,
            now: (now, 0),
            wheel: Wheel::new(),
            timers: Table::new(limit, commit)?,
            cookies_of_now: u32::MAX,
            ends: Vec::new(),
            keeps_ends: false,
            records: None,
        })
    }

    /// The hash by which a flow is looked for.
    #[inline]
    pub fn hash(&self, id: &FlowId) -> FlowHash {
        self.hash_of(&id.tuple, id.tuple.version(), id.endpoint)
    }

    /// The same for the flow of a tuple, which has this IP version, at an endpoint.
    #[expect(clippy::inline_always, reason = "whoever calls it knows the version, mostly")]
    #[inline(always)]
    pub fn hash_of(&self, tuple: &CanonicalKey, version: IpVersion, endpoint: u64) -> FlowHash {
        debug_assert_eq!(version, tuple.version(), "{tuple}");
        FlowHash::of(tuple, version, endpoint, &self.key)
    }

    /// Has that part of the index fetched that a flow is looked for in.
    #[inline]
    pub fn prefetch_index(&self, hash: FlowHash) {
        self.index.prefetch(hash.0);
    }

    /// Has the flow itself fetched, if the index has it; that should be there by now. Its number,
    /// most probably: the one that [`pass`](Self::pass) wants. [`NOBODY`](FlowNumber::NOBODY)'s, if it
    /// is not there.
    #[inline]
    pub fn prefetch(&self, hash: FlowHash) -> FlowNumber {
        let number = self.index.guess(hash.0);
        if let Some(entry) = self.entries.get(number as usize) {
            prefetch(entry);
            if let Some(records) = &self.records {
                records.prefetch(number);
            }
        }
        FlowNumber(number)
    }

    /// The time as [`pass`](Self::pass) wants it: for a batch it need not be worked out more than once.
    #[inline]
    pub fn at_turn(&mut self, now: Instant) -> Turn {
        Turn(self.turn(now))
    }

    /// Finds a flow that has not idled out.
    #[inline]
    pub fn find(&mut self, id: &FlowId, hash: FlowHash, now: Instant) -> Option<FlowNumber> {
        let number = self.number_of(&entry::identity(id), hash)?;
        let (deadline, now) = (entry::deadline(&self.entries[number as usize]), self.turn(now));
        let stale =
            fault::on(Fault::StaleFlowUsed) || fault::on(Fault::ExpiryOffByOne) && deadline == now;
        (deadline > now || stale).then_some(FlowNumber(number))
    }

    /// The flow's number in the table, be it that it has idled out; nothing is changed by asking.
    pub fn look(&self, id: &FlowId, hash: FlowHash) -> Option<FlowNumber> {
        self.number_of(&entry::identity(id), hash).map(FlowNumber)
    }

    /// The longest time that the flow was remembered for after any of its packets, in whole
    /// milliseconds.
    pub fn longest(&self, number: FlowNumber) -> Duration {
        Duration::from_millis(self.timers[number.0 as usize][LONGEST].into())
    }

    /// How many more flows it takes.
    pub fn room(&self) -> usize {
        self.entries.len() - self.len()
    }

    /// What a further packet of a flow needs, if it is the flow with this number, and that goes to a
    /// target that is `right`, has a cookie, is remembered, and its connection is so far. It is
    /// remembered from now on. `None`: nothing of it has changed.
    #[inline]
    pub fn pass(
        &mut self,
        number: FlowNumber,
        &Further { tuple, version, endpoint, tcp, idle }: &Further<'_>,
        Turn(now): Turn,
        right: impl FnOnce(TargetSlot) -> bool,
    ) -> Option<Settled> {
        let cookies_of_now = self.cookies_of_now;
        let entry = self.entries.get_mut(number.0 as usize)?;
        // Only those that go to a target have a cookie.
        let (cookie, target) = (entry::cookie(entry), entry::target(entry));
        let (before, deadline) = (entry::deadline(entry), now + idle);
        let settled = entry::is_at(entry, (tuple, version), endpoint, tcp)
            && (before > now || fault::on(Fault::SettledStale))
            // One that is to be forgotten sooner than before needs its timer set.
            && deadline >= before
            && cookie != entry::NO_COOKIE
            && number.0 < cookies_of_now
            && right(target);
        if !settled {
            return None;
        }
        entry::set_deadline(entry, deadline);
        Some(Settled { target, port: entry::port(entry), cookie })
    }

    /// The flow with this number.
    #[inline]
    pub fn get(&self, number: FlowNumber) -> Flow {
        let entry = &self.entries[number.0 as usize];
        Flow {
            id: entry::id(entry),
            placement: entry::placement(entry),
            tcp: entry::tcp(entry),
            deadline: self.start + Duration::from_nanos(entry::deadline(entry)),
        }
    }

    /// What identifies a flow.
    #[inline]
    pub fn id(&self, number: FlowNumber) -> FlowId {
        entry::id(&self.entries[number.0 as usize])
    }

    /// Where a flow goes.
    #[inline]
    pub fn placement(&self, number: FlowNumber) -> Placement {
        entry::placement(&self.entries[number.0 as usize])
    }

    /// How far its connection is, if it is one TCP connection that is followed.
    #[inline]
    pub fn tcp(&self, number: FlowNumber) -> Option<TcpState> {
        entry::tcp(&self.entries[number.0 as usize])
    }

    /// Notes that a packet of the flow was seen, how far its connection is now, and how long it is
    /// remembered from here on.
    #[inline]
    pub fn touch(
        &mut self,
        number: FlowNumber,
        tcp: Option<TcpState>,
        idle_timeout: Duration,
        now: Instant,
    ) {
        let deadline = self.turn(now) + nanos(idle_timeout);
        let entry = &mut self.entries[number.0 as usize];
        let sooner = deadline < entry::deadline(entry);
        entry::set_deadline(entry, deadline);
        entry::set_tcp(entry, tcp);
        // A packet touches no timer, unless it would come up too late. Each such one comes up
        // sooner than the one before, so nobody can fill the wheel with them.
        if sooner {
            self.rearm(number, deadline);
        }
    }

    /// The longest time that the flow was remembered for after any of its packets, this one
    /// included; kept in whole milliseconds.
    pub fn longest_idle(&mut self, number: FlowNumber, idle_timeout: Duration) -> Duration {
        let longest = &mut self.timers[number.0 as usize][LONGEST];
        *longest = (*longest).max(milliseconds(idle_timeout));
        Duration::from_millis((*longest).into())
    }

    /// Sends a flow elsewhere from now on.
    pub fn place(&mut self, number: FlowNumber, placement: Placement) {
        entry::set_placement(&mut self.entries[number.0 as usize], placement);
    }

    /// The cookie of the flow's packets, if it was kept.
    #[inline]
    pub fn cookie(&self, number: FlowNumber) -> Option<u32> {
        let cookie = entry::cookie(&self.entries[number.0 as usize]);
        (cookie != entry::NO_COOKIE && number.0 < self.cookies_of_now).then_some(cookie)
    }

    /// Keeps the cookie of the flow's packets, until it is placed elsewhere or cookies are forgotten.
    #[inline]
    pub fn keep_cookie(&mut self, number: FlowNumber, cookie: u32) {
        debug_assert!(self.placement(number).inspector != Inspector::Bypass, "it goes to a target");
        if number.0 < self.cookies_of_now {
            entry::set_cookie(&mut self.entries[number.0 as usize], cookie);
        }
    }

    /// Forgets all cookies, since their key has changed. None is used from now on;
    /// [`Self::handle_timeout`] clears them, a piece at a time.
    pub fn forget_cookies(&mut self) {
        self.cookies_of_now = 0;
    }

    /// Takes a flow in that is not there, in place of an expired one of the same identity if there
    /// is one, which is returned: the wheel will not come upon that one any more.
    pub fn insert(
        &mut self,
        flow: Flow,
        idle_timeout: Duration,
        hash: FlowHash,
    ) -> Result<(FlowNumber, Option<Gone>), Full> {
        let identity = entry::identity(&flow.id);
        if let Some(number) = self.number_of(&identity, hash) {
            let number = FlowNumber(number);
            return Ok((number, Some(self.replace(number, flow, idle_timeout))));
        }
        let evicts = fault::on(Fault::FullTableEvicts) && self.len() == self.entries.len();
        let evicted = evicts.then(|| self.remove(FlowNumber(0)));
        let number = self.take_place().ok_or(Full)?;
        let (deadline, cookie) = (self.time(flow.deadline), entry::NO_COOKIE);
        self.entries[number as usize] =
            entry::new(&identity, flow.tcp, flow.placement, deadline, cookie);
        self.arm(number, deadline, idle_timeout.into());
        self.index.insert(hash.0, number);
        Ok((FlowNumber(number), evicted))
    }

    /// Whether the flow of a tuple at an endpoint may [begin](Self::begin): not if it is there, be it
    /// that it has idled out.
    #[inline]
    pub fn vacancy<'a>(
        &self,
        tuple: &'a CanonicalKey,
        endpoint: u64,
        hash: FlowHash,
    ) -> Option<Vacancy<'a>> {
        let spot = self.index.vacancy(hash.0, || self.holds(tuple, endpoint, hash))?;
        Some(Vacancy { tuple, endpoint, hash, spot })
    }

    /// Whether the flow of a tuple at an endpoint is there.
    #[inline(never)]
    fn holds(&self, tuple: &CanonicalKey, endpoint: u64, hash: FlowHash) -> bool {
        self.number_of(&entry::identity(&FlowId { endpoint, tuple: *tuple }), hash).is_some()
    }

    /// Takes in a flow for which there was a vacancy, and no other flow has been taken in since; with the
    /// cookie of its packets. It is remembered for so long from now on.
    #[expect(
        clippy::inline_always,
        reason = "there is one way that it is asked for, and that is short"
    )]
    #[inline(always)]
    pub fn begin(
        &mut self,
        Vacancy { tuple, endpoint, hash, spot }: Vacancy<'_>,
        placement: Placement,
        tcp: Option<TcpState>,
        cookie: u32,
        idle: Idle,
        Turn(now): Turn,
    ) -> Result<FlowNumber, Full> {
        let number = self.take_place().ok_or(Full)?;
        let deadline = now + idle.nanos;
        // As in `keep_cookie`.
        let cookie = if number < self.cookies_of_now { cookie } else { entry::NO_COOKIE };
        let identity = entry::identity(&FlowId { endpoint, tuple: *tuple });
        self.entries[number as usize] = entry::new(&identity, tcp, placement, deadline, cookie);
        self.arm(number, deadline, idle);
        self.index.insert_at(spot, hash.0, number);
        Ok(FlowNumber(number))
    }

    /// Takes the number of a place for a flow, if there is one.
    #[inline]
    fn take_place(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let number = self.used;
            self.used += u32::from((number as usize) < self.entries.len());
            (number < self.used).then_some(number)
        })
    }

    /// Sets the timer of a flow that was written to its place, where nothing is left of another flow.
    #[expect(clippy::inline_always, reason = "as with `begin`")]
    #[inline(always)]
    fn arm(&mut self, number: u32, deadline: u64, idle: Idle) {
        let armed = self.wheel.schedule(number, deadline);
        self.prefetch_vacant();
        self.timers[number as usize] = [armed, idle.millis];
        self.forget_ends(FlowNumber(number));
    }

    /// Has a vacant place fetched, which a flow is put in soon if more begin.
    #[expect(clippy::inline_always, reason = "as with `begin`")]
    #[inline(always)]
    fn prefetch_vacant(&self) {
        let next = match self.free.len().checked_sub(AHEAD) {
            Some(at) => self.free[at],
            None => self.used.saturating_add(AHEAD as u32),
        };
        if let Some(entry) = self.entries.get(next as usize) {
            prefetch(entry);
        }
        if let Some(timer) = self.timers.get(next as usize) {
            prefetch(timer);
        }
        if let Some(records) = &self.records {
            records.prefetch(next);
        }
    }

    /// Puts a flow in the place of one with the same identity.
    pub fn replace(&mut self, number: FlowNumber, flow: Flow, idle_timeout: Duration) -> Gone {
        let before = self.going(number);
        let deadline = self.time(flow.deadline);
        entry::write(&mut self.entries[number.0 as usize], &flow, deadline);
        self.timers[number.0 as usize][LONGEST] = milliseconds(idle_timeout);
        // Its timer comes up before or at its time, and that is soon enough for the new one, unless
        // that has less time left: so whoever begins a flow again and again fills no wheel.
        self.rearm(number, deadline);
        if !fault::on(Fault::OldWordsKept) {
            self.forget_ends(number);
        }
        before
    }

    /// Forgets a flow.
    pub fn remove(&mut self, number: FlowNumber) -> Gone {
        let gone = self.going(number);
        let hash = self.hash(&gone.flow.id);
        entry::vacate(&mut self.entries[number.0 as usize]);
        self.index.remove(hash.0, number.0);
        self.free.push(number.0);
        gone
    }

    /// Forgets flows that have idled out, a bounded number at a time, and tells each, with what was
    /// kept of its ends.
    pub fn handle_timeout(&mut self, now: Instant, mut expired: impl FnMut(Gone, Ends)) {
        self.clear_cookies();
        let now = self.time(now);
        for _ in 0..Wheel::BUDGET {
            let Some((number, tick)) = self.wheel.due(now) else { break };
            let entry = &self.entries[number as usize];
            if entry::is_vacant(entry) || self.timers[number as usize][ARMED] != tick {
                continue;
            }
            let deadline = entry::deadline(entry);
            if deadline > now {
                if fault::on(Fault::TimerNotRearmed) {
                    continue;
                }
                self.timers[number as usize][ARMED] = self.wheel.schedule(number, deadline);
            } else {
                let number = FlowNumber(number);
                let ends = self.ends(number);
                expired(self.remove(number), ends);
            }
        }
    }

    /// When [`Self::handle_timeout`] should be called next, which may be at once; `None` while the
    /// table is empty.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_empty() {
            None
        } else if self.cookies_of_now < self.used {
            Some(self.start)
        } else {
            Some(self.start + Duration::from_nanos(self.wheel.next_tick()))
        }
    }

    /// The flows whose numbers lie in a range; for going through all of them piece by piece.
    pub fn in_range(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = FlowNumber> {
        let end = range.end.min(self.numbers());
        let start = range.start.min(end);
        let entries = self.entries[start..end].iter().enumerate();
        let live = entries.filter(|(_, entry)| !entry::is_vacant(entry));
        live.map(move |(offset, _)| FlowNumber((start + offset) as u32))
    }

    /// One more than the largest number in use.
    pub fn numbers(&self) -> usize {
        self.used as usize
    }

    /// Has the last words of ends kept from now on, or not any more.
    pub fn keep_ends(&mut self, keep: bool) {
        self.keeps_ends = keep;
        if !keep {
            self.ends = Vec::new();
        }
    }

    /// Whether [`Self::note_end`] is of any use.
    #[inline]
    pub fn keeps_ends(&self) -> bool {
        self.keeps_ends
    }

    /// Notes what an end of the flow said last.
    pub fn note_end(&mut self, number: FlowNumber, end: usize, word: LastWord) {
        let number = number.0 as usize;
        if self.ends.len() <= number {
            self.ends.resize(self.used as usize, Ends::default());
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
        self.used as usize - self.free.len()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the flows and their index take when the table is full; timers, and what
    /// is kept for resets, come on top.
    pub fn bytes(&self) -> usize {
        self.entries.bytes() + self.index.bytes()
    }

    /// How many timers there are, lapsed ones included.
    #[cfg(test)]
    pub(super) fn timers(&self) -> usize {
        self.wheel.timers()
    }

    #[inline]
    fn number_of(&self, identity: &[u64; 6], hash: FlowHash) -> Option<u32> {
        let same = |number| {
            let entry = self.entries.get(number as usize);
            entry.is_some_and(|entry| entry::is_of(entry, identity))
        };
        self.index.find(hash.0, same)
    }

    /// Has the wheel come to the flow sooner, if it would come too late.
    fn rearm(&mut self, number: FlowNumber, deadline: u64) {
        let armed = &mut self.timers[number.0 as usize][ARMED];
        if self.wheel.tick_of(deadline) < *armed {
            *armed = self.wheel.schedule(number.0, deadline);
        }
    }

    fn clear_cookies(&mut self) {
        if self.cookies_of_now == u32::MAX {
            return;
        }
        let end = self.cookies_of_now.saturating_add(COOKIES).min(self.used);
        for entry in &mut self.entries[self.cookies_of_now.min(end) as usize..end as usize] {
            entry::set_cookie(entry, entry::NO_COOKIE);
        }
        self.cookies_of_now = if end == self.used { u32::MAX } else { end };
    }

    /// The time now, in nanoseconds since the table was made.
    #[inline]
    fn turn(&mut self, now: Instant) -> u64 {
        if self.now.0 != now {
            self.now = (now, self.time(now));
        }
        self.now.1
    }

    /// A time in nanoseconds since the table was made, which last for 584 years.
    #[inline]
    fn time(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.start))
    }
}

/// A duration in nanoseconds.
#[inline]
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Rounded up, so that nothing is forgotten before its time.
fn milliseconds(duration: Duration) -> u32 {
    let whole = duration.as_secs().saturating_mul(1000);
    let millis = whole.saturating_add(u64::from(duration.subsec_nanos().div_ceil(1_000_000)));
    u32::try_from(millis).unwrap_or(u32::MAX)
}
