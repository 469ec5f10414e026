//! Which flow a fragment belongs to: the first one of its packet says it, and later ones that come
//! before it wait. One for all workers.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use geneve::buffer::HEADROOM;
use geneve::{Fragment, Inner, IpVersion, Transport, protocol};
use gwlb::dataplane::fragments::HostileTotals;
use gwlb::dataplane::verdict::Origin;

use super::tuple::Tuple;
use super::view::View;

/// What the fragments of one packet have in common: the endpoint that they go through, addresses,
/// the protocol that they state, and the identification.
pub(super) type PacketId = (u64, IpAddr, IpAddr, u8, u32);

/// A fragment that waits for its first one.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub id: PacketId,
    pub since: Duration,
    pub from: Origin,
    /// What `from` is to be understood by.
    pub view: Arc<View>,
    pub packet: Vec<u8>,
}

/// The packets under way in pieces.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    /// The flow of a packet, since when it is known, and as which one it became so.
    known: BTreeMap<PacketId, (Tuple, Duration, u64)>,
    /// The same in the order in which they became known.
    order: BTreeMap<u64, PacketId>,
    number: u64,
    waiting: VecDeque<Waiting>,
    pub hostile: HostileTotals,
}

/// "up to 256 wait, for up to a second"
const HOLD: Duration = Duration::from_secs(1);
const MOST_WAITING: usize = 256;
/// Of one packet: more than the 45 pieces of the longest on an Ethernet.
const MOST_OF_ONE: usize = 64;
/// Bytes of memory that wait, headroom included.
const MOST_BYTES: usize = 512 * 1024;
/// Packets of which the first fragment is known; the oldest give way.
const MOST_KNOWN: usize = 4096;
/// For as long as Linux waits for the rest of a packet.
const KNOWN_FOR: Duration = Duration::from_secs(30);

/// The identity of the packet that a fragment is a piece of.
pub(super) fn packet_id(endpoint: u64, inner: &Inner, id: u32) -> PacketId {
    (endpoint, inner.src, inner.dst, inner.flow_key().protocol(), id)
}

/// Whether the packet would be longer than IP can say (RFC 791 section 3.1, RFC 8200 section 4.5).
pub(super) fn reaches_too_far(inner: &Inner) -> bool {
    let Fragment::Later { offset, .. } = inner.fragment else { return false };
    let end = usize::from(offset) * 8 + inner.total_len;
    end > match inner.version {
        IpVersion::V4 => 65_535,
        IpVersion::V6 => 65_535 + 40 + 8,
    }
}

impl Fragments {
    /// The first fragment of a packet is there. Returns those that waited for it.
    pub(super) fn first(&mut self, id: PacketId, flow: Tuple, now: Duration) -> Vec<Waiting> {
        if let Some((before, since, number)) = self.known.remove(&id) {
            self.order.remove(&number);
            if before != flow && now < since + KNOWN_FOR {
                self.hostile.reused += 1;
            }
        }
        self.number += 1;
        self.known.insert(id, (flow, now, self.number));
        self.order.insert(self.number, id);
        while let Some((&number, oldest)) = self.order.first_key_value() {
            let fresh = now < self.known[oldest].1 + KNOWN_FOR;
            if fresh && self.order.len() <= MOST_KNOWN {
                break;
            }
            self.hostile.evicted += u64::from(fresh);
            self.known.remove(oldest);
            self.order.remove(&number);
        }
        let (ready, rest) = self.waiting.drain(..).partition(|waiting| waiting.id == id);
        self.waiting = rest;
        ready.into()
    }

    /// The flow of a packet whose first fragment was seen.
    pub(super) fn later(&self, id: &PacketId, now: Duration) -> Option<Tuple> {
        let (flow, since, _) = self.known.get(id)?;
        (now < *since + KNOWN_FOR).then_some(*flow)
    }

    /// Keeps a fragment, if there is room for it.
    pub(super) fn hold(&mut self, fragment: Waiting) -> bool {
        let memory = |packet: &[u8]| HEADROOM + packet.len();
        let of_packet = self.waiting.iter().filter(|waiting| waiting.id == fragment.id).count();
        let bytes: usize = self.waiting.iter().map(|waiting| memory(&waiting.packet)).sum();
        let room = self.waiting.len() < MOST_WAITING
            && of_packet < MOST_OF_ONE
            && bytes + memory(&fragment.packet) <= MOST_BYTES;
        if room {
            self.waiting.push_back(fragment);
        } else {
            self.hostile.no_room += 1;
        }
        room
    }

    /// Those that have waited for too long.
    pub(super) fn give_up(&mut self, now: Duration) -> Vec<Waiting> {
        let mut over = Vec::new();
        while self.waiting.front().is_some_and(|waiting| waiting.since + HOLD <= now) {
            over.extend(self.waiting.pop_front());
        }
        over
    }

    /// When the next one has waited for too long.
    pub(super) fn due(&self) -> Option<Duration> {
        self.waiting.front().map(|waiting| waiting.since + HOLD)
    }

    /// Notes what looks like an attack and may go on (RFC 1858, RFC 3128).
    pub(super) fn notice(&mut self, inner: &Inner) {
        if inner.protocol != protocol::TCP {
            return;
        }
        match inner.fragment {
            Fragment::Later { offset: 1, .. } => self.hostile.tcp_offset_one += 1,
            Fragment::First { .. } if !matches!(inner.transport, Transport::Tcp { .. }) => {
                self.hostile.tcp_tiny_first += 1;
            }
            _ => {}
        }
    }
}
