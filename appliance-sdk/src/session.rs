//! The sans-IO core: datagrams in, decisions and replies out.
//!
//! A [`Session`] is one worker's share of an appliance: it validates what arrives, finds the
//! flow, asks the [`Appliance`], and says as data what is to be sent. It opens no socket and reads
//! no clock; [`Runtime`](crate::Runtime) does that around it, and
//! [`FakeGateway`](crate::testing::FakeGateway) stands in for the runtime in tests.

pub(crate) mod flow_table;
mod replies;

use std::time::{Duration, Instant};

use geneve::dialect::{Dialect, DialectError, Tags};
use geneve::flow::{CanonicalKey, FlowKey};
use geneve::header::{Header, HeaderError};
use geneve::inner::{Inner, IpVersion, TcpFlags, Transport};

use self::flow_table::{FlowId, FlowIndex, FlowTable, Touched};
pub use self::replies::{Content, Replies, Reply};
use crate::appliance::{Appliance, Direction};
use crate::packet::{Context, Effects, Packet};
use crate::route::{Arrival, Route};
use crate::stats::{Count, DropReason, Stats};

/// The settings of a [`Session`].
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The option dialects to accept, told apart by the class of their options. Default: all.
    pub dialects: Vec<&'static Dialect>,
    /// How long a flow is remembered without a packet. Default: 350 s, as long as the clouds'
    /// gateways remember a TCP flow; it should not be shorter than the gateway's.
    pub flow_idle_timeout: Duration,
    /// How many flows are remembered at most; the least recently used makes room. Default:
    /// 1,048,576, which take about 250 MB when the table is full.
    pub max_flows: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            dialects: Dialect::ALL.iter().collect(),
            flow_idle_timeout: Duration::from_secs(350),
            max_flows: 1 << 20,
        }
    }
}

/// One worker's appliance with its flows and counters.
pub struct Session<A: Appliance> {
    appliance: A,
    dialects: Vec<&'static Dialect>,
    flows: FlowTable<Flow<A::Flow>>,
    effects: Effects,
    stats: Stats,
}

/// What is remembered of a flow.
struct Flow<S> {
    initiator: FlowKey,
    /// The Geneve header of the flow's latest packet. Gateways give a re-used 5-tuple a new
    /// cookie, so an older one must never be used.
    header: Vec<u8>,
    arrival: Arrival,
    from_initiator: bool,
    from_responder: bool,
    verdict: Option<Verdict>,
    state: S,
}

impl<S> Flow<S> {
    /// Notes a direction; says whether it was the second of the two.
    fn saw_second_direction(&mut self, direction: Direction) -> bool {
        let seen_both = self.from_initiator && self.from_responder;
        match direction {
            Direction::FromInitiator => self.from_initiator = true,
            Direction::FromResponder => self.from_responder = true,
        }
        !seen_both && self.from_initiator && self.from_responder
    }
}

/// A decision on the rest of a flow.
#[derive(Clone, Copy)]
struct Verdict {
    forward: bool,
    epoch: u64,
}

/// How many idle flows are forgotten per call, so that no call takes long.
const EXPIRE_AT_ONCE: usize = 256;

impl<A: Appliance> Session<A> {
    /// A session without flows.
    pub fn new(appliance: A, config: &SessionConfig) -> Self {
        Self {
            appliance,
            dialects: config.dialects.clone(),
            flows: FlowTable::new(config.max_flows, config.flow_idle_timeout),
            effects: Effects::default(),
            stats: Stats::default(),
        }
    }

    /// Takes what one receive call gave: one datagram, or with a `segment_size` other than 0 a run
    /// of datagrams of that size, of which the last may be shorter.
    ///
    /// What is to be sent is appended to `replies`, in order. Datagrams that go back as they came
    /// are named by their place in `buffer`, not copied.
    pub fn handle(
        &mut self,
        arrival: &Arrival,
        buffer: &[u8],
        segment_size: usize,
        now: Instant,
        replies: &mut Replies,
    ) {
        self.handle_timeout(now);
        let route = arrival.back();
        let epoch = self.appliance.epoch();
        let mut batch = Batch { arrival, route, now, epoch, latest: None, asked: None };
        let step = if segment_size == 0 { buffer.len() } else { segment_size }.max(1);
        let mut start = 0;
        loop {
            let end = (start + step).min(buffer.len());
            let datagram = &buffer[start..end];
            match self.datagram(&mut batch, datagram) {
                Ok(Fate::Returned { bytes }) => {
                    self.stats.returned.add(bytes);
                    replies.push_unchanged(&route, start..end, step, bytes);
                }
                Ok(Fate::Rewritten { header, packet }) => {
                    self.stats.rewritten.add(packet.len());
                    self.send_written(&route, header, &packet, replies);
                }
                Ok(Fate::Kept { bytes }) => self.stats.kept.add(bytes),
                Err(reason) => self.stats.drops.add(reason, 1),
            }
            self.send_injected(&batch, replies);
            start = end;
            if start >= buffer.len() {
                break;
            }
        }
    }

    /// Sends a packet that did not come up while another one was handled: the appliance got it
    /// elsewhere, for example back from a kernel that it had handed it to.
    ///
    /// It is sent with the latest header of its flow behind `endpoint`; if no such flow is
    /// remembered it is dropped by name.
    pub fn emit(&mut self, endpoint: u64, packet: &[u8], now: Instant, replies: &mut Replies) {
        self.handle_timeout(now);
        self.stats.generated.add(packet.len());
        let flow = Inner::parse(packet)
            .ok()
            .and_then(|inner| {
                flows_of(&inner).find_map(|key| self.flows.find(&FlowId { endpoint, key }))
            })
            .and_then(|at| self.flows.get_mut(at));
        let Some(flow) = flow else {
            self.stats.drops.add(DropReason::EmitUnknownFlow, 1);
            return;
        };
        let (route, header) = (flow.arrival.back(), flow.header.clone());
        self.send_written(&route, &header, packet, replies);
    }

    /// Forgets flows that were idle for too long. [`handle`](Self::handle) does so by itself; this
    /// is for times without traffic.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.stats.flows.expired += self.flows.expire(now, EXPIRE_AT_ONCE) as u64;
        self.stats.flows.current = self.flows.len() as u64;
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.flows.next_expiry()
    }

    /// Takes note that so many datagrams of replies could not be sent, of which `count` says how
    /// many inner packets they have together: [`Reply::count`], or the sum over those that were sent
    /// as one.
    pub fn not_sent(&mut self, count: Count, datagrams: u64, reason: DropReason) {
        let Count { packets, bytes } = count;
        let datagrams = datagrams.min(packets);
        // All datagrams of a run but the last are of one size.
        let bytes = bytes * datagrams / packets.max(1);
        self.stats.returned.take_back(Count { packets: datagrams, bytes });
        self.stats.drops.add(reason, datagrams);
    }

    /// What was counted so far. System calls and the like are counted by the runtime.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The appliance.
    pub fn appliance(&self) -> &A {
        &self.appliance
    }

    /// The appliance, to change it.
    pub fn appliance_mut(&mut self) -> &mut A {
        &mut self.appliance
    }

    /// One datagram: validate, find the flow, decide.
    fn datagram<'b>(
        &mut self,
        batch: &mut Batch<'b>,
        datagram: &'b [u8],
    ) -> Result<Fate<'b>, DropReason> {
        let envelope = self.envelope(batch.latest.as_ref(), datagram);
        // The inner packet's own length is only known once it is validated.
        let (envelope, payload) = envelope.inspect_err(|_| self.stats.received.add(0))?;
        let inner = Inner::parse(payload);
        let bytes = inner.as_ref().map_or(payload.len(), |inner| inner.total_len);
        self.stats.received.add(bytes);
        let inner = inner.map_err(|_| DropReason::InnerInvalid)?;
        if envelope.version != inner.version {
            return Err(DropReason::ProtocolType);
        }

        let key = inner.flow_key();
        let related = self.related_flow(envelope.tags.endpoint, &inner);
        let at = match related {
            Some((at, _)) => at,
            None => self.find_flow(batch, envelope, key, &inner),
        };
        let Some(flow) = self.flows.get_mut(at) else { return Err(DropReason::InnerInvalid) };
        // An error flies against the packet that it is about.
        let own = related.map_or(key, |(_, about)| about.reversed());
        let direction =
            if own == flow.initiator { Direction::FromInitiator } else { Direction::FromResponder };
        if related.is_none() && flow.saw_second_direction(direction) {
            self.stats.flows.both_directions += 1;
        }

        let verdict = flow.verdict.filter(|v| v.epoch == batch.epoch && !opens_connection(&inner));
        if let Some(verdict) = verdict {
            self.stats.decided_by_flow += 1;
            return Ok(if verdict.forward {
                Fate::Returned { bytes }
            } else {
                Fate::Kept { bytes }
            });
        }

        let context = Context {
            tags: envelope.tags,
            dialect: envelope.dialect,
            key,
            initiator: flow.initiator,
            direction,
            now: batch.now,
        };
        batch.asked = Some((envelope, key));
        let whole = payload.get(..bytes).unwrap_or(payload);
        let mut packet = Packet::new(whole, &inner, context, &mut self.effects);
        let action = self.appliance.packet(&mut packet, &mut flow.state);
        flow.verdict = action
            .is_for_flow()
            .then_some(Verdict { forward: action.forwards(), epoch: batch.epoch });
        match (action.forwards(), self.effects.replacement.take()) {
            (false, _) => Ok(Fate::Kept { bytes }),
            (true, None) => Ok(Fate::Returned { bytes }),
            (true, Some(packet)) if belongs_to(&packet, key) => {
                Ok(Fate::Rewritten { header: envelope.header, packet })
            }
            (true, Some(_)) => Err(DropReason::RewriteForeign),
        }
    }

    /// Reads the Geneve header; in a run, where it is the same again and again, only once.
    fn envelope<'b>(
        &self,
        latest: Option<&Latest<'b>>,
        datagram: &'b [u8],
    ) -> Result<(Envelope<'b>, &'b [u8]), DropReason> {
        if let Some(latest) = latest
            && let Some(payload) = datagram.strip_prefix(latest.envelope.header)
        {
            // The very same slice, which the next step knows it by.
            return Ok((latest.envelope, payload));
        }
        let (header, payload) = Header::parse(datagram).map_err(|error| header_drop(&error))?;
        if header.is_control() {
            // RFC 8926 §3.4: a control message must not be forwarded to a customer's system.
            return Err(DropReason::GeneveControl);
        }
        let version = header.protocol().ip_version().ok_or(DropReason::ProtocolType)?;
        let dialect = header
            .options()
            .find_map(|option| self.dialects.iter().find(|d| d.class() == option.class))
            .ok_or(DropReason::DialectUnknown)?;
        let tags = dialect.read(&header).map_err(|error| dialect_drop(&error))?;
        Ok((Envelope { header: header.as_bytes(), version, tags, dialect }, payload))
    }

    /// The flow that an ICMP error is about, if it is remembered, and its key as the packet flew.
    fn related_flow(&self, endpoint: u64, inner: &Inner) -> Option<(FlowIndex, FlowKey)> {
        let Transport::IcmpError { about, .. } = inner.transport else { return None };
        [about, about.portless()].into_iter().find_map(|key| {
            let at = self.flows.find(&FlowId { endpoint, key: key.canonical() })?;
            Some((at, key))
        })
    }

    /// Finds or makes the flow, and notes the latest header in it.
    fn find_flow<'b>(
        &mut self,
        batch: &mut Batch<'b>,
        envelope: Envelope<'b>,
        key: FlowKey,
        inner: &Inner,
    ) -> FlowIndex {
        if let Some(latest) = &batch.latest
            && std::ptr::eq(latest.envelope.header, envelope.header)
            && latest.key == key
        {
            return latest.flow;
        }
        let id = FlowId { endpoint: envelope.tags.endpoint, key: key.canonical() };
        let (at, touched) = self.flows.touch(id, batch.now, || Flow {
            initiator: if answers_connection(inner) { key.reversed() } else { key },
            header: Vec::new(),
            arrival: *batch.arrival,
            from_initiator: false,
            from_responder: false,
            verdict: None,
            state: A::Flow::default(),
        });
        let counts = &mut self.stats.flows;
        counts.opened += u64::from(touched != Touched::Known);
        counts.expired += u64::from(touched == Touched::NewByExpiry);
        counts.evicted += u64::from(touched == Touched::NewByEviction);
        counts.current = self.flows.len() as u64;
        if let Some(flow) = self.flows.get_mut(at) {
            if flow.header != envelope.header {
                flow.header.clear();
                flow.header.extend_from_slice(envelope.header);
            }
            flow.arrival = *batch.arrival;
        }
        batch.latest = Some(Latest { envelope, key, flow: at });
        at
    }

    fn send_injected(&mut self, batch: &Batch<'_>, replies: &mut Replies) {
        if self.effects.injected.is_empty() {
            return;
        }
        let Some((envelope, key)) = batch.asked else { return };
        for packet in std::mem::take(&mut self.effects.injected) {
            self.stats.generated.add(packet.len());
            if belongs_to(&packet, key) {
                self.send_written(&batch.route, envelope.header, &packet, replies);
            } else {
                self.stats.drops.add(DropReason::InjectForeign, 1);
            }
        }
    }

    fn send_written(&mut self, route: &Route, header: &[u8], packet: &[u8], replies: &mut Replies) {
        let count = Count { packets: 1, bytes: packet.len() as u64 };
        if header.len() + packet.len() > MAX_DATAGRAM {
            self.stats.drops.add(DropReason::ReplyTooLong, 1);
            return;
        }
        self.stats.returned += count;
        replies.push_written(*route, [header, packet].concat(), count);
    }
}

/// The most that fits into a UDP datagram over IPv4: 65,535 − 20 − 8.
const MAX_DATAGRAM: usize = 65_507;

/// What the datagrams of one receive call have in common.
struct Batch<'b> {
    arrival: &'b Arrival,
    /// The way back.
    route: Route,
    now: Instant,
    epoch: u64,
    latest: Option<Latest<'b>>,
    /// What the appliance was asked about last: header and flow for what it injects.
    asked: Option<(Envelope<'b>, FlowKey)>,
}

/// The datagram before this one: in a run, the next is most likely of the same flow.
struct Latest<'b> {
    envelope: Envelope<'b>,
    key: FlowKey,
    flow: FlowIndex,
}

/// What the Geneve header says.
#[derive(Clone, Copy)]
struct Envelope<'b> {
    header: &'b [u8],
    version: IpVersion,
    tags: Tags,
    dialect: &'static Dialect,
}

/// What becomes of a valid datagram.
enum Fate<'b> {
    Returned { bytes: usize },
    Rewritten { header: &'b [u8], packet: Vec<u8> },
    Kept { bytes: usize },
}

/// A TCP SYN without ACK.
fn opens_connection(inner: &Inner) -> bool {
    syn_and_ack(inner) == (true, false)
}

/// A TCP SYN with ACK.
fn answers_connection(inner: &Inner) -> bool {
    syn_and_ack(inner) == (true, true)
}

fn syn_and_ack(inner: &Inner) -> (bool, bool) {
    match inner.transport {
        Transport::Tcp { flags, .. } => {
            (flags.contains(TcpFlags::SYN), flags.contains(TcpFlags::ACK))
        }
        _ => (false, false),
    }
}

/// The flows that a packet may be of, likeliest first: its own, that of its fragments, which have
/// no ports, and the one that it reports an error about.
///
/// Whoever gets packets back from elsewhere, to give them to an [`Emitter`](crate::Emitter), finds
/// their flow by these.
pub fn flows_of(inner: &Inner) -> impl Iterator<Item = CanonicalKey> {
    let about = match &inner.transport {
        Transport::IcmpError { about, .. } => Some(*about),
        _ => None,
    };
    [Some(inner.flow_key()), about]
        .into_iter()
        .flatten()
        .flat_map(|key| [key.canonical(), key.portless().canonical()])
}

/// Whether a packet that the appliance made may go out under the cookie of `flow`: gateways check
/// what comes back against the flow that they made the cookie for.
fn belongs_to(packet: &[u8], flow: FlowKey) -> bool {
    Inner::parse(packet)
        .is_ok_and(|inner| flows_of(&inner).any(|candidate| candidate == flow.canonical()))
}

fn header_drop(error: &HeaderError) -> DropReason {
    match error {
        HeaderError::Truncated { .. } => DropReason::GeneveTruncated,
        HeaderError::Version(_) => DropReason::GeneveVersion,
        HeaderError::Option { .. } => DropReason::GeneveOptions,
    }
}

fn dialect_drop(error: &DialectError) -> DropReason {
    match error {
        DialectError::Missing { .. } => DropReason::OptionMissing,
        DialectError::Duplicate { .. } => DropReason::OptionDuplicate,
        DialectError::Length { .. } => DropReason::OptionLength,
        DialectError::UnknownCritical { .. } => DropReason::OptionCritical,
    }
}

#[cfg(test)]
mod tests;
