//! Which flow a later fragment belongs to: only the first fragment of a packet carries ports.
//!
//! One small table for all workers, since a later fragment may be read by another worker than the
//! first. A later fragment that comes before its first can wait here for it. Everything is bounded,
//! in number, bytes and time, and only fragments ever touch the lock. The table does not reassemble
//! and judges little: what is hostile is counted, and looking into it is the appliance's work.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use geneve::buffer::PacketBuf;
use geneve::flow::FlowKey;
use geneve::inner::{Fragment, Inner, IpVersion, Transport, protocol};
use parking_lot::Mutex;
use serde::Serialize;

use super::verdict::Origin;

/// What the fragments of one packet have in common (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FragmentId {
    /// The wire id of the endpoint that the packet goes through.
    pub endpoint: u64,
    /// The sender.
    pub src: IpAddr,
    /// The receiver.
    pub dst: IpAddr,
    /// The protocol inside.
    pub protocol: u8,
    /// The identification field.
    pub id: u32,
}

/// A later fragment that waits for the first.
#[derive(Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How far it is on its way, and which ledger it is counted in.
    pub from: Origin,
    /// The epoch of the topology in which `from` is numbered.
    pub epoch: u32,
    /// The fragment.
    pub packet: PacketBuf,
}

impl Waiting {
    fn copy(&self) -> Self {
        let Self { from, epoch, packet } = self;
        Self { from: *from, epoch: *epoch, packet: PacketBuf::from_slice(packet.bytes()) }
    }
}

/// The packets of which the first fragment was seen a short while ago, and the fragments that
/// came before theirs.
#[derive(Debug)]
pub struct FragmentTable {
    limit: usize,
    state: Mutex<State>,
    /// How many wait; written under the lock, read without it.
    waiting: AtomicUsize,
    hostile: HostileCounters,
}

#[derive(Debug, Default)]
struct State {
    known: AHashMap<FragmentId, Known>,
    /// The known ones by age.
    ages: BTreeMap<Age, FragmentId>,
    held: BTreeMap<Age, (FragmentId, Waiting)>,
    /// Which of `held` wait for the same first fragment, in the order in which they came.
    queues: AHashMap<FragmentId, Vec<Age>>,
    /// Memory of the packets in `held`, in bytes.
    bytes: usize,
    /// In an [excerpt](FragmentTable::excerpt): how many others wait in the table that it is of.
    others: usize,
    /// Counts up, so that what came at the same moment keeps its order.
    number: u64,
}

/// When something came.
type Age = (Instant, u64);

#[derive(Debug)]
struct Known {
    flow: FlowKey,
    age: Age,
}

impl Known {
    fn is_fresh(&self, now: Instant) -> bool {
        self.age.0 + FragmentTable::TIMEOUT > now
    }
}

impl FragmentTable {
    /// Packets under way at the same time; the oldest give way.
    pub const LIMIT: usize = 4096;
    /// How long later fragments may take: as long as Linux waits for them
    /// (`net.ipv4.ipfrag_time`, 30 s).
    pub const TIMEOUT: Duration = Duration::from_secs(30);
    /// How long a later fragment waits for its first. Fragments overtake one another by
    /// milliseconds, on parallel links and in the queues of a host; who waits longer waits for what
    /// was lost, and takes the room of others.
    pub const HOLD: Duration = Duration::from_secs(1);
    /// The most fragments that wait.
    pub const HELD_PACKETS: usize = 256;
    /// The most memory that waiting fragments take, in bytes, headroom included.
    pub const HELD_BYTES: usize = 512 * 1024;
    /// The most fragments that wait for one and the same first: more than the 45 of the longest
    /// packet on an Ethernet.
    pub const HELD_PER_PACKET: usize = 64;
    /// Known ones that are forgotten in one call because their time is over. More than come in with
    /// one call, so the table empties, and few, so that no packet pays for a flood before it.
    const SWEEP: usize = 4;

    /// A table for at most `limit` packets of which the first fragment is known.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            state: Mutex::default(),
            waiting: AtomicUsize::new(0),
            hostile: HostileCounters::default(),
        }
    }

    /// Notes to which flow the fragments of a packet belong, and gives back those that waited for
    /// it, in the order in which they came. They are the caller's to send on, behind the first.
    #[must_use = "what waited is nowhere else"]
    pub fn first(&self, id: FragmentId, flow: FlowKey, now: Instant) -> Vec<Waiting> {
        let mut state = self.state.lock();
        for _ in 0..Self::SWEEP {
            match state.ages.first_key_value() {
                Some(((seen, _), _)) if *seen + Self::TIMEOUT <= now => state.forget_oldest(),
                _ => break,
            }
        }
        let age = state.age(now);
        let before = state.known.insert(id, Known { flow, age });
        state.ages.insert(age, id);
        if let Some(before) = before {
            state.ages.remove(&before.age);
            // The younger packet wins: a sender with much to fragment has used up all 65,536
            // identifications within seconds, and means what it says last.
            if before.flow != flow && before.is_fresh(now) {
                self.hostile.reused.add();
            }
        }
        if state.known.len() > self.limit {
            // It is still fresh, or else it would have been swept.
            state.forget_oldest();
            self.hostile.evicted.add();
        }
        let queue = state.queues.remove(&id).unwrap_or_default();
        let ready = queue.into_iter().filter_map(|age| state.release(age)).collect();
        self.waiting.store(state.held.len(), Ordering::Relaxed);
        ready
    }

    /// The flow of a packet whose first fragment was seen.
    pub fn later(&self, id: &FragmentId, now: Instant) -> Option<FlowKey> {
        self.state.lock().flow(id, now)
    }

    /// Keeps a later fragment until its first comes ([`first`](Self::first)) or its time is over
    /// ([`expire`](Self::expire)).
    ///
    /// # Errors
    /// The fragment, if there is no room for it; or if another worker saw the first just now: then
    /// [`later`](Self::later), asked again, knows the flow.
    pub fn hold(&self, id: FragmentId, waiting: Waiting, now: Instant) -> Result<(), Waiting> {
        let mut state = self.state.lock();
        if state.flow(&id, now).is_some() {
            return Err(waiting);
        }
        let bytes = memory(&waiting);
        let queued = state.queues.get(&id).map_or(0, Vec::len);
        if state.held.len() + state.others >= Self::HELD_PACKETS
            || queued >= Self::HELD_PER_PACKET
            || state.bytes + bytes > Self::HELD_BYTES
        {
            self.hostile.no_room.add();
            return Err(waiting);
        }
        let age = state.age(now);
        state.bytes += bytes;
        state.held.insert(age, (id, waiting));
        state.queues.entry(id).or_default().push(age);
        self.waiting.store(state.held.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Gives back the fragments that waited for too long, oldest first: nothing says to which flow
    /// they belong. Without the lock where nothing waits.
    #[must_use = "the ledger of each has to count it"]
    pub fn expire(&self, now: Instant) -> Vec<Waiting> {
        if self.waiting() == 0 {
            return Vec::new();
        }
        let mut state = self.state.lock();
        let mut over = Vec::new();
        while let Some((&age, &(id, _))) = state.held.first_key_value()
            && age.0 + Self::HOLD <= now
        {
            over.extend(state.release(age));
            if let Some(queue) = state.queues.get_mut(&id) {
                queue.retain(|other| *other != age);
                if queue.is_empty() {
                    state.queues.remove(&id);
                }
            }
        }
        self.waiting.store(state.held.len(), Ordering::Relaxed);
        over
    }

    /// A table of its own that decides about fragments of these packets as this one would now.
    #[must_use]
    pub fn excerpt(&self, ids: &[FragmentId]) -> Self {
        let excerpt = Self::new(self.limit);
        {
            let (from, mut to) = (self.state.lock(), excerpt.state.lock());
            to.number = from.number;
            for id in ids {
                if let Some(&Known { flow, age }) = from.known.get(id) {
                    to.known.insert(*id, Known { flow, age });
                    to.ages.insert(age, *id);
                }
                for age in from.queues.get(id).into_iter().flatten() {
                    let Some((_, waiting)) = from.held.get(age) else { continue };
                    if to.held.insert(*age, (*id, waiting.copy())).is_none() {
                        to.queues.entry(*id).or_default().push(*age);
                    }
                }
            }
            to.bytes = from.bytes;
            to.others = from.held.len() - to.held.len();
            excerpt.waiting.store(to.held.len(), Ordering::Relaxed);
        }
        excerpt
    }

    /// When [`expire`](Self::expire) should be called next; `None`, without the lock, where nothing
    /// waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.waiting() == 0 {
            return None;
        }
        let state = self.state.lock();
        state.held.first_key_value().map(|(age, _)| age.0 + Self::HOLD)
    }

    /// How many fragments wait for their first now; read without the lock.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether a packet is a fragment that no packet can have: it reaches past 65,535 bytes. Such a
    /// one is malformed and must be dropped (RFC 8200 section 4.5), and is counted here, so ask
    /// where it enters, before anything else is decided. Without the lock.
    pub fn refuses(&self, inner: &Inner) -> bool {
        let refused = reaches_too_far(inner);
        if refused {
            self.hostile.too_long.add();
        }
        refused
    }

    /// Counts what of a fragment looks like an attack but may go on. To be called once for each
    /// fragment, by the owner of its flow. Without the lock.
    pub fn notice(&self, inner: &Inner) {
        if inner.protocol != protocol::TCP {
            return;
        }
        match (inner.fragment, inner.transport) {
            // RFC 1858 section 3.2.2: with 8 bytes of TCP in the first fragment, the flags are in
            // the second, and a filter that looks at the first alone never sees them.
            (Fragment::Later { offset: 1, .. }, _) => self.hostile.tcp_offset_one.add(),
            // RFC 3128 section 3 has this one refused as well, by the length of the first.
            (Fragment::First { .. }, Transport::PortsOnly { .. } | Transport::None) => {
                self.hostile.tcp_tiny_first.add();
            }
            _ => {}
        }
    }

    /// What was noticed since the start; read without the lock.
    pub fn hostile(&self) -> HostileTotals {
        self.hostile.totals()
    }
}

impl Default for FragmentTable {
    fn default() -> Self {
        Self::new(Self::LIMIT)
    }
}

impl State {
    fn age(&mut self, now: Instant) -> Age {
        self.number += 1;
        (now, self.number)
    }

    fn flow(&self, id: &FragmentId, now: Instant) -> Option<FlowKey> {
        self.known.get(id).filter(|known| known.is_fresh(now)).map(|known| known.flow)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.ages.pop_first() {
            self.known.remove(&id);
        }
    }

    /// Takes out one that waits; its queue is the caller's to put right.
    fn release(&mut self, age: Age) -> Option<Waiting> {
        let (_, waiting) = self.held.remove(&age)?;
        self.bytes -= memory(&waiting);
        Some(waiting)
    }
}

/// Bytes of memory that a waiting fragment takes: its whole buffer, however short the packet is.
fn memory(waiting: &Waiting) -> usize {
    waiting.packet.headroom() + waiting.packet.capacity()
}

/// Whether the packet that a fragment is part of would be longer than IP can say. Bytes of options
/// that only the first fragment has are not known here, so a packet that is too long by those alone
/// passes.
pub(super) fn reaches_too_far(inner: &Inner) -> bool {
    let Fragment::Later { offset, .. } = inner.fragment else { return false };
    let end = inner.total_len + 8 * usize::from(offset);
    let limit = usize::from(u16::MAX);
    match inner.version {
        // RFC 791 section 3.1: the total length, header included, has 16 bits.
        IpVersion::V4 => end > limit,
        // RFC 8200 section 4.5: the payload length has, which counts neither the IPv6 header nor
        // the fragment header.
        IpVersion::V6 => end > limit + IpVersion::V6.header_len() + 8,
    }
}

/// Makes the counters of what is hostile, which any worker may add to, and their totals.
macro_rules! hostile {
    ($($(#[doc = $doc:literal])+ $field:ident,)+) => {
        #[derive(Debug, Default)]
        struct HostileCounters {
            $($field: SharedCounter,)+
        }

        impl HostileCounters {
            fn totals(&self) -> HostileTotals {
                HostileTotals { $($field: self.$field.get(),)+ }
            }
        }

        /// What fragments did that honest senders hardly do, over all workers since the start.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
        pub struct HostileTotals {
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        impl HostileTotals {
            /// Name, help text and value of each, for listings.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), concat!($($doc),+).trim_ascii(), self.$field)),+].into_iter()
            }
        }
    };
}

hostile! {
    /// First fragments whose identification was in use for another flow within 30 s.
    reused,
    /// TCP fragments at offset 8, which hide the flags from filters (RFC 1858).
    tcp_offset_one,
    /// First fragments of TCP that end within the header (RFC 3128).
    tcp_tiny_first,
    /// Fragments that reach past 65,535 bytes; they were dropped as malformed.
    too_long,
    /// Packets forgotten within 30 s because fragments of too many were under way.
    evicted,
    /// Later fragments that came before the first and found no room to wait for it.
    no_room,
}

/// A counter that several workers add to. Only what is rare is counted so.
#[derive(Debug, Default)]
struct SharedCounter(AtomicU64);

impl SharedCounter {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
