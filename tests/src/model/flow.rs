//! A flow, how far its connection is, and when it is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use geneve::{Fragment, Inner, TcpFlags, Transport, protocol};
use gwlb::config::FlowTimers;
use gwlb::dataplane::snapshot::TargetSlot;
use gwlb::dataplane::verdict::WorkerId;

use super::tuple::{self, Tuple};

/// What makes packets one flow: the endpoint's id on the wire, and the tuple that the stickiness
/// looks at.
pub(super) type FlowId = (u64, tuple::Flow);

/// Who inspects a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    /// Nobody: it goes past all.
    Nobody,
    /// This target.
    One(TargetSlot),
    /// One of these. Which one could not be seen yet, since nothing of the flow was sent.
    OneOf(Vec<TargetSlot>),
}

impl Who {
    /// Each that it can be, alone.
    pub(super) fn each(&self) -> Vec<Who> {
        match self {
            Who::OneOf(slots) => slots.iter().map(|slot| Who::One(*slot)).collect(),
            known => vec![known.clone()],
        }
    }

    /// One of these.
    pub(super) fn any_of(mut all: Vec<Who>) -> Who {
        all.dedup();
        if all.len() == 1 {
            return all.remove(0);
        }
        let slots = all.into_iter().flat_map(|who| match who {
            Who::Nobody => vec![],
            Who::One(slot) => vec![slot],
            Who::OneOf(slots) => slots,
        });
        Who::OneOf(slots.collect::<BTreeSet<_>>().into_iter().collect())
    }
}

/// What an end said last, as a reset for it has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// It waits for this byte.
    Acknowledges(u32),
    /// It has sent a SYN with this number, and acknowledged nothing.
    Opens(u32),
}

/// How far a TCP connection is, by what was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tcp {
    /// Something else than the first SYN was seen.
    pub answered: bool,
    /// Which ends have finished.
    pub finished: [bool; 2],
    /// One has reset it, and nobody has gone on since.
    pub reset: bool,
}

impl Tcp {
    /// A connection that is over.
    pub(super) const CLOSED: Tcp = Tcp { answered: true, finished: [true; 2], reset: false };

    /// A connection of which this is the first packet.
    pub(super) fn begun_by(segment: Segment) -> Tcp {
        let mut tcp = Tcp::default();
        if !segment.opens() {
            tcp.see(Segment { data: false, ..segment });
            tcp.answered = true;
        }
        tcp
    }

    /// A further packet is seen.
    pub(super) fn see(&mut self, segment: Segment) {
        if segment.flags.contains(TcpFlags::RST) {
            self.reset = true;
        } else if !segment.opens() {
            self.answered = true;
            self.finished[segment.end] |= segment.flags.contains(TcpFlags::FIN);
            if segment.data {
                // Whoever goes on has not believed the reset.
                self.reset = false;
            }
        }
    }

    /// "closed by both ends, or reset"
    pub(super) fn is_closed(self) -> bool {
        self.reset || self.finished == [true; 2]
    }

    /// How long it is remembered without a packet.
    pub(super) fn patience(self, timers: &FlowTimers) -> Duration {
        if self.is_closed() {
            timers.tcp_closed
        } else if self.finished != [false; 2] {
            timers.tcp_half_closed
        } else if self.answered {
            timers.tcp_idle
        } else {
            timers.tcp_half_open
        }
    }
}

/// What of a TCP packet its connection depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub flags: TcpFlags,
    /// Who sent it: 0 is the end that the tuple without direction names first.
    pub end: usize,
    /// Whether it has payload.
    pub data: bool,
}

impl Segment {
    /// Whether a packet is one of a connection that this tuple names.
    pub(super) fn of(inner: &Inner, tuple: &Tuple) -> Option<Segment> {
        let Transport::Tcp { flags, header_len, .. } = inner.transport else { return None };
        let end = tuple.end();
        let data = inner.total_len > inner.header_len + header_len;
        Some(Segment { flags, end, data })
    }

    /// Whether it opens a connection.
    pub(super) fn opens(self) -> bool {
        opens(self.flags)
    }
}

/// A SYN that answers nothing and resets nothing.
fn opens(flags: TcpFlags) -> bool {
    flags.contains(TcpFlags::SYN)
        && !flags.contains(TcpFlags::ACK)
        && !flags.contains(TcpFlags::RST)
}

/// Whether it can be seen that a packet opens a connection.
pub(super) fn is_opening(inner: &Inner) -> bool {
    matches!(inner.transport, Transport::Tcp { flags, .. } if opens(flags))
}

/// Whether a packet resets a connection.
pub(super) fn is_reset(inner: &Inner) -> bool {
    matches!(inner.transport, Transport::Tcp { flags, .. } if flags.contains(TcpFlags::RST))
}

/// Whether a packet is TCP, be it a fragment that shows nothing of it.
pub(super) fn is_tcp(inner: &Inner) -> bool {
    inner.protocol == protocol::TCP || inner.flow_key().protocol() == protocol::TCP
}

/// Whether a packet is an ICMP error about another.
pub(super) fn is_error(inner: &Inner) -> bool {
    matches!(inner.transport, Transport::IcmpError { .. })
}

/// What the sender of a whole TCP packet said of its connection's numbers.
pub(super) fn word(packet: &[u8], inner: &Inner) -> Option<Word> {
    let Transport::Tcp { flags, .. } = inner.transport else { return None };
    if inner.fragment != Fragment::Whole {
        return None;
    }
    let number = |at: usize| {
        let bytes = &packet[inner.header_len + at..][..4];
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    };
    if flags.contains(TcpFlags::ACK) {
        Some(Word::Acknowledges(number(8)))
    } else {
        opens(flags).then(|| Word::Opens(number(4)))
    }
}

/// A flow that a worker remembers.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    pub worker: WorkerId,
    pub who: Who,
    /// How far its connection is, if it is one and it was seen.
    pub tcp: Option<Tcp>,
    /// When its last packet was seen, and how long it is remembered without a further one.
    pub last: Duration,
    pub patience: Duration,
    /// What its ends said last, if anybody wants to reset them.
    pub words: [Option<Word>; 2],
    /// The direction of its first packet.
    pub begun: Tuple,
    /// At which whole second its worker looks whether it has idled out.
    pub looked_at: u64,
}

impl Flow {
    pub(super) fn deadline(&self) -> Duration {
        self.last + self.patience
    }

    /// "An idle timeout after the last packet" it is no flow any more, whoever still remembers it.
    pub(super) fn is_alive(&self, now: Duration) -> bool {
        now < self.deadline()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.tcp.is_some_and(Tcp::is_closed)
    }
}

/// All flows of a gateway.
///
/// What has idled out is not found any more, and forgotten when its worker comes to look: once in
/// a second, at flows whose time may have come. It looks 511 seconds ahead at most.
#[derive(Debug, Default)]
pub(super) struct Flows {
    all: BTreeMap<FlowId, Flow>,
    agenda: BTreeSet<(WorkerId, u64, FlowId)>,
    /// How many each worker remembers.
    counts: BTreeMap<WorkerId, usize>,
    /// The last second in which each worker has looked.
    looked: BTreeMap<WorkerId, u64>,
}

/// How many seconds a worker looks ahead.
const AHEAD: u64 = 511;

impl Flows {
    /// The flow, be it idle.
    pub(super) fn get(&self, id: &FlowId) -> Option<&Flow> {
        self.all.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &FlowId) -> Option<&mut Flow> {
        self.all.get_mut(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&FlowId, &Flow)> {
        self.all.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many flows a worker remembers, idle ones included.
    pub(super) fn count(&self, worker: WorkerId) -> usize {
        self.counts.get(&worker).copied().unwrap_or_default()
    }

    /// Remembers a flow, or another one under the same name.
    pub(super) fn put(&mut self, id: FlowId, mut flow: Flow) {
        let second = self.look_at(&flow, None);
        flow.looked_at = second;
        if let Some(before) = self.all.get(&id) {
            // It was to be looked at anyway; earlier does no harm.
            self.agenda.remove(&(before.worker, before.looked_at, id));
            flow.looked_at = second.min(before.looked_at);
        } else {
            *self.counts.entry(flow.worker).or_default() += 1;
        }
        self.agenda.insert((flow.worker, flow.looked_at, id));
        self.all.insert(id, flow);
    }

    /// A packet of the flow was seen.
    pub(super) fn touch(&mut self, id: &FlowId, patience: Duration, now: Duration) {
        let Some(flow) = self.all.get_mut(id) else { return };
        let shorter = patience < flow.patience;
        (flow.last, flow.patience) = (now, patience);
        if !shorter {
            return;
        }
        let flow = flow.clone();
        let second = self.look_at(&flow, None);
        if second < flow.looked_at {
            self.agenda.remove(&(flow.worker, flow.looked_at, *id));
            self.agenda.insert((flow.worker, second, *id));
            if let Some(flow) = self.all.get_mut(id) {
                flow.looked_at = second;
            }
        }
    }

    /// A flow is forgotten before its time.
    pub(super) fn forget(&mut self, id: &FlowId) -> Option<Flow> {
        let flow = self.all.remove(id)?;
        self.agenda.remove(&(flow.worker, flow.looked_at, *id));
        *self.counts.entry(flow.worker).or_default() -= 1;
        Some(flow)
    }

    /// A worker looks at the flows whose time may have come. Returns those that it forgets.
    pub(super) fn look(&mut self, worker: WorkerId, now: Duration) -> Vec<(FlowId, Flow)> {
        let mut gone = Vec::new();
        loop {
            let zero = (worker, 0, smallest());
            let Some(&entry) = self.agenda.range(zero..).next() else { break };
            let (owner, second, id) = entry;
            if owner != worker || second > now.as_secs() {
                break;
            }
            self.agenda.remove(&entry);
            let flow = self.all[&id].clone();
            if flow.is_alive(now) {
                let next = self.look_at(&flow, Some(second - 1));
                self.agenda.insert((worker, next, id));
                if let Some(flow) = self.all.get_mut(&id) {
                    flow.looked_at = next;
                }
            } else {
                self.all.remove(&id);
                *self.counts.entry(worker).or_default() -= 1;
                gone.push((id, flow));
            }
        }
        let looked = self.looked.entry(worker).or_default();
        *looked = (*looked).max(now.as_secs());
        gone
    }

    /// The first second in which a worker is to look.
    pub(super) fn due(&self) -> Option<Duration> {
        let of_workers = self.counts.keys().filter_map(|worker| {
            let next = self.agenda.range((*worker, 0, smallest())..).next();
            next.filter(|(owner, ..)| owner == worker).map(|(_, second, _)| *second)
        });
        of_workers.min().map(Duration::from_secs)
    }

    /// The second in which a flow is to be looked at: the first one when its time is over.
    fn look_at(&self, flow: &Flow, looked: Option<u64>) -> u64 {
        let of_worker = || self.looked.get(&flow.worker).copied().unwrap_or_default();
        let looked = looked.unwrap_or_else(of_worker);
        (flow.deadline().as_secs() + 1).clamp(looked + 1, looked + AHEAD)
    }
}

/// Nothing is less.
fn smallest() -> FlowId {
    (0, tuple::Flow::least())
}
