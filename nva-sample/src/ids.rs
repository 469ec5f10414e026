//! An intrusion detection system: it looks for byte patterns in TCP streams and UDP payloads, and
//! tells, or blocks the flow.
//!
//! TCP is searched in order, across segments ([`stream`] says how, and within which limits). What
//! it does not do: reassemble IP fragments (each is searched by itself), look into encrypted or
//! compressed payloads, or outwit somebody who knows how receivers differ in what they accept.
//! Packets with a wrong checksum pass unsearched, since no receiver takes them.

pub mod alert;
pub mod file;
pub mod patterns;
pub mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use appliance_sdk::{Action, Appliance, Direction, Packet};
use geneve::checksum::{self, Integrity};
use geneve::flow::FlowKey;
use geneve::inner::{Fragment, TcpFlags, Transport};

use self::alert::{Alert, AlertSink};
use self::patterns::PatternSet;
use self::stream::{Room, Stream};
use crate::clock::WallClock;

/// One worker's IDS.
pub struct Ids {
    shared: Arc<Shared>,
    alerts: AlertSink,
    room: Room,
}

/// What all workers have.
#[derive(Debug)]
pub struct Shared {
    /// What is looked for.
    pub patterns: PatternSet,
    /// How many bytes of each direction of a TCP stream are searched; the rest passes.
    pub depth: Option<u64>,
    /// What is counted.
    pub counts: Counts,
    /// The time of day.
    pub clock: WallClock,
}

/// What an IDS counts besides what it finds.
#[derive(Debug, Default)]
pub struct Counts {
    /// Flows blocked.
    pub blocked: AtomicU64,
    /// Times that missing bytes of a stream were not waited for any longer.
    pub stream_gaps: AtomicU64,
    /// Packets not searched for their wrong checksum.
    pub bad_checksums: AtomicU64,
}

/// What is remembered of a flow.
#[derive(Debug, Default)]
pub struct IdsFlow {
    /// By direction: from the initiator, from the responder.
    streams: [Stream; 2],
    /// What the initiator's latest SYN says that the first byte behind it will be.
    offered: Option<u32>,
    /// Numbers of the patterns that were told already.
    told: Vec<usize>,
    blocked: bool,
}

/// How much memory each worker spends on segments that came early: what 256 flows with windows of
/// 64 KiB may take.
const EARLY_BYTES: usize = 16 << 20;

impl Ids {
    /// An IDS that gives its alerts to a sink.
    pub fn new(shared: Arc<Shared>, alerts: AlertSink) -> Self {
        Self { shared, alerts, room: Room::new(EARLY_BYTES) }
    }

    /// Searches a packet and returns the numbers of the patterns found.
    fn search(&self, packet: &Packet<'_>, flow: &mut IdsFlow) -> Vec<usize> {
        let mut numbers = Vec::new();
        let mut found = |number| {
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        };
        let inner = packet.inner();
        let patterns = &self.shared.patterns;
        match (inner.fragment, &inner.transport) {
            (Fragment::Whole, Transport::Tcp { flags, .. }) => {
                let segment = Segment::read(packet, *flags);
                let Some(segment) = segment else { return numbers };
                flow.note(packet.direction(), &segment);
                let Some(stream) = flow.stream(packet.direction()) else { return numbers };
                if self.shared.depth.is_none_or(|depth| stream.searched < depth) {
                    let gaps = stream.gaps;
                    let (sequence, payload) = (segment.payload_sequence(), packet.payload());
                    stream.segment(sequence, payload, patterns, &self.room, &mut found);
                    self.shared.counts.stream_gaps.fetch_add(stream.gaps - gaps, Ordering::Relaxed);
                }
            }
            (Fragment::Whole, Transport::Udp { .. })
            | (Fragment::First { .. } | Fragment::Later { .. }, _) => {
                patterns.scan_alone(packet.payload(), &mut found);
            }
            _ => {}
        }
        numbers
    }

    fn tell(&self, packet: &Packet<'_>, flow: &IdsFlow, number: usize) {
        let Some(pattern) = self.shared.patterns.patterns().get(number) else { return };
        self.shared.patterns.count(number);
        let direction = usize::from(packet.direction() == Direction::FromResponder);
        let key = packet.flow_key();
        let (source, destination) = ends(&key);
        self.alerts.tell(Alert {
            time_us: self.shared.clock.at(packet.received_at()).as_micros() as u64,
            pattern: pattern.name.clone(),
            blocked: pattern.block,
            protocol: key.protocol(),
            source,
            destination,
            stream_bytes: flow.streams.get(direction).map_or(0, |stream| stream.searched),
            endpoint: format!("{:#018x}", packet.tags().endpoint),
            cookie: format!("{:#010x}", packet.tags().cookie),
        });
    }

    /// Whether nothing more of the flow will be searched.
    fn is_done(&self, flow: &IdsFlow) -> bool {
        self.shared.depth.is_some_and(|depth| flow.streams.iter().all(|s| s.searched >= depth))
    }
}

impl Appliance for Ids {
    type Flow = IdsFlow;

    fn packet(&mut self, packet: &mut Packet<'_>, flow: &mut IdsFlow) -> Action {
        if flow.blocked {
            // A SYN does not help it: the flow stays blocked until it is forgotten.
            return Action::DropFlow;
        }
        if checksum::verify(packet.inner(), packet.bytes()) == Integrity::Invalid {
            self.shared.counts.bad_checksums.fetch_add(1, Ordering::Relaxed);
            return Action::Forward;
        }
        for number in self.search(packet, flow) {
            if !flow.told.contains(&number) {
                flow.told.push(number);
                self.tell(packet, flow, number);
            }
            let patterns = self.shared.patterns.patterns();
            flow.blocked |= patterns.get(number).is_some_and(|pattern| pattern.block);
        }
        if flow.blocked {
            self.shared.counts.blocked.fetch_add(1, Ordering::Relaxed);
            return Action::DropFlow;
        }
        if self.is_done(flow) { Action::ForwardFlow } else { Action::Forward }
    }
}

/// The numbers of a TCP segment.
struct Segment {
    sequence: u32,
    acknowledged: u32,
    flags: TcpFlags,
}

impl Segment {
    fn read(packet: &Packet<'_>, flags: TcpFlags) -> Option<Self> {
        let header = packet.bytes().get(packet.inner().header_len..)?;
        let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
        Some(Self { sequence: number(4)?, acknowledged: number(8)?, flags })
    }

    /// The number of the first byte of payload: a SYN takes a number, too.
    fn payload_sequence(&self) -> u32 {
        self.sequence.wrapping_add(u32::from(self.flags.contains(TcpFlags::SYN)))
    }
}

impl IdsFlow {
    /// Takes note of the beginning of a connection.
    ///
    /// A SYN alone does not begin a new one on ports where one is open: anybody could make the IDS
    /// forget the half of a pattern that way. The other end has to agree.
    fn note(&mut self, direction: Direction, segment: &Segment) {
        if !segment.flags.contains(TcpFlags::SYN) {
            return;
        }
        let first = segment.payload_sequence();
        if !segment.flags.contains(TcpFlags::ACK) {
            self.offered = Some(first);
            if let Some(stream) = self.stream(direction).filter(|stream| stream.is_untouched()) {
                stream.begin(first);
            }
        } else if self.offered == Some(segment.acknowledged) {
            self.offered = None;
            if let Some(stream) = self.stream(direction) {
                stream.begin(first);
            }
            let other = match direction {
                Direction::FromInitiator => Direction::FromResponder,
                Direction::FromResponder => Direction::FromInitiator,
            };
            if let Some(stream) =
                self.stream(other).filter(|stream| !stream.expects(segment.acknowledged))
            {
                stream.begin(segment.acknowledged);
            }
            self.told.clear();
        }
    }

    fn stream(&mut self, direction: Direction) -> Option<&mut Stream> {
        self.streams.get_mut(usize::from(direction == Direction::FromResponder))
    }
}

/// A flow's ends as text, with ports if it has them.
fn ends(key: &FlowKey) -> (String, String) {
    if key.src_port() == 0 && key.dst_port() == 0 {
        return (key.src().to_string(), key.dst().to_string());
    }
    let end = |address, port| SocketAddr::new(address, port).to_string();
    (end(key.src(), key.src_port()), end(key.dst(), key.dst_port()))
}

#[cfg(test)]
mod tests;
