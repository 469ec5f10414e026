//! The hosts at both ends: they talk over TCP, UDP, ICMP and other protocols, try again when
//! nothing comes, and know of every byte what it must be.
//!
//! They know nothing of gateways. What they find wrong is wrong end to end.

mod conversation;
mod reassembly;
mod tcp;

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::net::IpAddr;
use std::time::Duration;

use etherparse::TcpHeaderSlice;
use geneve::checksum::{Integrity, verify};
use geneve::{FlowKey, IcmpErrorKind, Inner, TcpFlags, Transport, protocol};
use siphasher::sip::SipHasher13;

use super::configuration::Pair;
use super::plan::{Kind, Talk};
use crate::gateway::Packet;
use crate::packets::{Ip, Problem, Tcp, fragments, super_packet};
use reassembly::Reassembly;
use tcp::{Arrived, End, Segment, State};

/// Why a conversation need not end well that comes after another on the same addresses and ports.
const USED: &str = "its addresses and ports had been used";
/// How often a question is asked that nobody answers.
const TRIES: u32 = 6;

/// All hosts.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    pub talks: BTreeMap<u32, Conversation>,
    by_address: BTreeMap<Key, u32>,
    reassembly: Reassembly,
}

/// VPC, who began and the other one as packets call them, their ports, protocol.
type Key = (u8, IpAddr, IpAddr, (u16, u16), u8);

/// Two hosts that talk.
#[derive(Debug)]
pub(super) struct Conversation {
    number: u32,
    talk: Talk,
    pub vpc: u8,
    pub inspected: bool,
    /// Of who began, and of the other one.
    pub sides: [Place; 2],
    state: Progress,
    round: u32,
    complained: bool,
    /// Identifies packets that are cut. Each conversation has its own numbers, so that its packets
    /// are the same whoever else talks.
    cut: u16,
    /// By side, the largest packet that it takes for small enough.
    paths: [usize; 2],
    /// What was done to it by others, if anything.
    pub harm: Option<&'static str>,
    /// Packets of it that were lost on the way.
    pub losses: u32,
    /// Whether packets of it went past the appliances.
    pub bypassed: bool,
    /// By endpoint, the appliance that its packets were sent to last, and when.
    pub targets: BTreeMap<u64, (IpAddr, Duration)>,
    pub end: Option<Ending>,
}

/// Where a host is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub device: &'static str,
    pub own: IpAddr,
    /// How it calls the other one.
    pub peer: IpAddr,
    pub port: u16,
}

#[derive(Debug)]
enum Progress {
    Tcp(Box<[End; 2]>),
    /// How often the present question was asked, and the number of the timer that is set.
    Asking {
        tries: u32,
        timer: u64,
    },
}

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    Done,
    Reset,
    GaveUp,
}

/// What comes of something that hosts did.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    /// Who sends what: the conversation and the side.
    pub sent: Vec<(u32, usize, Packet)>,
    /// Which conversation, side and timer, and after what time.
    pub timers: Vec<(Duration, Timer)>,
    /// What is wrong, end to end.
    pub wrong: Option<(&'static str, String)>,
    /// Something came that firewalls let nobody through to.
    pub denied: Option<u32>,
    /// Conversations that are over.
    pub ended: Vec<u32>,
}

/// A timer of a host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timer {
    pub talk: u32,
    pub side: usize,
    kind: TimerKind,
}

#[derive(Debug, Clone, Copy)]
enum TimerKind {
    /// Something is said again, if this is still the latest timer.
    Again(u64),
    Next,
}

/// The byte that must be at a place of a stream or message.
fn byte(talk: u32, side: usize, at: u64) -> u8 {
    let mixed = u64::from(talk) * 37 + side as u64 * 101 + at * 31 + (at >> 8) * 7;
    mixed as u8
}

/// What a message says: who sends which, and bytes that nobody else sends.
fn message(talk: u32, side: usize, number: u32, len: usize) -> Vec<u8> {
    let mut message = vec![0; 8];
    message.extend([b'M', side as u8]);
    message.extend_from_slice(&talk.to_be_bytes());
    message.extend_from_slice(&number.to_be_bytes());
    let body = (message.len()..len).map(|at| byte(talk, side, at as u64 + u64::from(number)));
    message.extend(body);
    let sum = sum(&message[8..]);
    message[..8].copy_from_slice(&sum.to_be_bytes());
    message
}

/// What a message begins with, since not every protocol has a checksum.
fn sum(body: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(3, 4);
    hasher.write(body);
    hasher.finish()
}

const MESSAGE_HEAD: usize = 18;

impl Hosts {
    /// Two hosts begin to talk.
    pub fn begin(&mut self, number: u32, talk: &Talk, pair: &Pair, seed: u64, deeds: &mut Deeds) {
        let address = |text: &str, add: u8| plus(text.parse().expect("an address"), add);
        let near_own = address(pair.near.1, talk.host);
        let far_own = address(pair.far.1, 0);
        let alias = pair.alias.map_or(far_own, |alias| address(alias, 0));
        let near = |port| Place { device: pair.near.0, own: near_own, peer: alias, port };
        let far = |port| Place { device: pair.far.0, own: far_own, peer: near_own, port };
        let (port, service) = match talk.kind {
            Kind::Tcp | Kind::Udp => (talk.port, talk.service),
            Kind::Ping => (talk.port, talk.port),
            Kind::Other(_) => (0, 0),
        };
        let sides =
            if talk.outward { [far(port), near(service)] } else { [near(port), far(service)] };
        let state = match talk.kind {
            Kind::Tcp => {
                let first = |side: u64| {
                    (seed ^ u64::from(number) << 7).wrapping_mul(0x9e37_79b9 + side) as u32
                };
                let end = |side| End::new(first(side), talk.segment, talk.offload);
                Progress::Tcp(Box::new([end(1), end(2)]))
            }
            _ => Progress::Asking { tries: 0, timer: 0 },
        };
        let mut conversation = Conversation {
            number,
            talk: talk.clone(),
            vpc: pair.vpc,
            inspected: pair.inspected,
            sides,
            state,
            round: 0,
            complained: false,
            cut: (number as u16).wrapping_mul(1093),
            paths: [talk.segment + 60; 2],
            harm: None,
            losses: 0,
            bypassed: false,
            targets: BTreeMap::new(),
            end: None,
        };
        let protocol = conversation.protocol();
        // Who translates addresses sees it from both sides by another one.
        for (own, peer) in [(sides[0].own, sides[0].peer), (sides[1].peer, sides[1].own)] {
            let key = (pair.vpc, own, peer, (port, service), protocol);
            let reversed = (pair.vpc, peer, own, (service, port), protocol);
            // Who talked the other way round without ports would be the same flow.
            let before = [self.by_address.insert(key, number), self.by_address.remove(&reversed)];
            for before in before.into_iter().flatten().filter(|before| *before != number) {
                if let Some(before) = self.talks.get_mut(&before) {
                    before.harm.get_or_insert("its addresses and ports were used again");
                    // What is left of the one before is taken for the new one's.
                    conversation.harm = Some(USED);
                }
            }
        }
        self.talks.insert(number, conversation);
        self.next(number, deeds);
    }

    /// The conversation that a packet belongs to, and the side that it is meant for.
    pub fn find(&self, vpc: u8, inner: &Inner) -> Option<(u32, usize)> {
        let key = match inner.transport {
            Transport::IcmpError { about, .. } => about.reversed(),
            _ => inner.ported_key().unwrap_or_else(|| inner.flow_key()),
        };
        let protocol = key.protocol();
        if matches!(protocol, protocol::ICMP | protocol::ICMPV6) {
            // The identifier is in the packet, which is not at hand.
            return None;
        }
        let found = |key: FlowKey| {
            let ports = (key.src_port(), key.dst_port());
            let key = (vpc, key.src(), key.dst(), ports, protocol);
            self.by_address.get(&key).copied()
        };
        let there = found(key).map(|number| (number, 1));
        there.or_else(|| found(key.reversed()).map(|number| (number, 0)))
    }

    /// The same, of a packet at hand.
    pub fn find_packet(&self, vpc: u8, packet: &[u8]) -> Option<(u32, usize)> {
        let inner = Inner::parse(packet).ok()?;
        if matches!(inner.protocol, protocol::ICMP | protocol::ICMPV6)
            && !matches!(inner.transport, Transport::IcmpError { .. })
        {
            let id = packet.get(inner.header_len + 4..inner.header_len + 6)?;
            let id = u16::from_be_bytes([id[0], id[1]]);
            let request = matches!(packet[inner.header_len], 8 | 128);
            let (from, to, side) =
                if request { (inner.src, inner.dst, 1) } else { (inner.dst, inner.src, 0) };
            let number = self.by_address.get(&(vpc, from, to, (id, id), inner.protocol))?;
            return Some((*number, side));
        }
        self.find(vpc, &inner)
    }

    /// A packet has come to a device.
    pub fn receive(
        &mut self,
        (vpc, device): (u8, &str),
        packet: Vec<u8>,
        now: Duration,
        deeds: &mut Deeds,
    ) {
        let Some(packet) = self.reassembly.take(vpc, packet, now) else { return };
        let Ok(inner) = Inner::parse(&packet) else { return };
        if verify(&inner, &packet) == Integrity::Invalid {
            return;
        }
        let Some((number, side)) = self.find_packet(vpc, &packet) else { return };
        let Some(conversation) = self.talks.get_mut(&number) else { return };
        if let Transport::IcmpError { kind, .. } = inner.transport {
            self.complaint(number, side, kind, deeds);
            return;
        }
        let place = conversation.sides[side];
        if (place.own, place.peer) != (inner.dst, inner.src) {
            // Addresses and ports that were used the other way round before, or were changed.
            return;
        }
        let ports = (conversation.sides[1 - side].port, place.port);
        if matches!(inner.transport, Transport::Tcp { .. } | Transport::Udp { .. })
            && inner.ports() != Some(ports)
        {
            // Of an earlier conversation with another service.
            return;
        }
        if place.device != device {
            let text = format!("{} is not behind {device}: {}", place.own, conversation.describe());
            deeds.wrong = Some(("Transparency", text));
            return;
        }
        match inner.transport {
            Transport::Tcp { flags, header_len, .. } => {
                let start = inner.header_len;
                let data = &packet[start + header_len..inner.total_len];
                let word = |at: usize| {
                    let bytes = packet[start + at..start + at + 4].try_into();
                    u32::from_be_bytes(bytes.expect("four bytes"))
                };
                let syn = flags.contains(TcpFlags::SYN);
                let mss = if syn { mss_of(&packet[start..]) } else { None };
                let (sequence, acknowledgement) = (word(4), word(8));
                let arrived = Arrived { flags, sequence, acknowledgement, mss, data };
                self.segment(number, side, arrived, deeds);
            }
            Transport::Udp { .. } => {
                self.message(number, side, &packet[inner.header_len + 8..inner.total_len], deeds);
            }
            _ if matches!(inner.protocol, protocol::ICMP | protocol::ICMPV6) => {
                self.ping(number, side, &packet[inner.header_len..inner.total_len], deeds);
            }
            _ => self.message(number, side, &packet[inner.header_len..inner.total_len], deeds),
        }
    }

    /// A timer has run out.
    pub fn time_out(&mut self, timer: Timer, deeds: &mut Deeds) {
        let Timer { talk: number, side, kind } = timer;
        let Some(conversation) = self.talks.get_mut(&number) else { return };
        match (kind, &mut conversation.state) {
            (TimerKind::Next, _) => self.next(number, deeds),
            (TimerKind::Again(again), Progress::Tcp(ends)) if ends[side].timer == again => {
                let mut out = Vec::new();
                ends[side].time_out(&mut out);
                self.send_segments(number, side, &out, deeds);
                self.set_timer(number, side, deeds);
                self.look_for_end(number, deeds);
            }
            (TimerKind::Again(again), Progress::Asking { tries, timer }) if *timer == again => {
                *tries += 1;
                if *tries < TRIES {
                    self.ask(number, deeds);
                } else {
                    conversation.end(Ending::GaveUp, deeds);
                }
            }
            _ => {}
        }
    }

    /// The next round begins.
    fn next(&mut self, number: u32, deeds: &mut Deeds) {
        let Some(conversation) = self.talks.get_mut(&number) else { return };
        let request = conversation.talk.sizes[0] as u64;
        match &mut conversation.state {
            Progress::Tcp(ends) => {
                let mut out = Vec::new();
                ends[0].goal = u64::from(conversation.round + 1) * request;
                if ends[0].state == State::Closed {
                    ends[0].open(&mut out);
                } else {
                    ends[0].pump(&mut out);
                }
                self.send_segments(number, 0, &out, deeds);
                self.set_timer(number, 0, deeds);
            }
            Progress::Asking { tries, .. } => {
                *tries = 0;
                self.ask(number, deeds);
            }
        }
    }

    fn segment(&mut self, number: u32, side: usize, arrived: Arrived<'_>, deeds: &mut Deeds) {
        let Some(conversation) = self.talks.get_mut(&number) else { return };
        let [request, response] = conversation.talk.sizes.map(|size| size as u64);
        let (rounds, denied) = (conversation.talk.rounds, conversation.is_denied());
        let Progress::Tcp(ends) = &mut conversation.state else { return };
        if side == 1 && denied && !arrived.flags.contains(TcpFlags::RST) {
            deeds.denied = Some(number);
        }
        let mut out = Vec::new();
        let timer = ends[side].timer;
        if let Some((at, bytes)) = ends[side].take(arrived, &mut out) {
            let wrong = (at..).zip(bytes).find(|&(at, &it)| it != byte(number, 1 - side, at));
            // Between the same hosts of one VPC nobody can tell what is left of the one before.
            if let Some((at, found)) = wrong.filter(|_| conversation.harm != Some(USED)) {
                let expected = byte(number, 1 - side, at);
                let text = format!(
                    "byte {at} that side {side} got is {found:#04x} and not {expected:#04x}: {}",
                    conversation.describe()
                );
                deeds.wrong = Some(("Transparency", text));
                return;
            }
        }
        let Progress::Tcp(ends) = &mut conversation.state else { return };
        let received = ends[side].received;
        let mut pause = None;
        if side == 1 {
            ends[1].goal = received / request * response;
            ends[1].closing = ends[1].peer_closed;
            ends[1].pump(&mut out);
        } else if conversation.round < rounds
            && received >= u64::from(conversation.round + 1) * response
        {
            conversation.round += 1;
            if conversation.round < rounds {
                pause = Some(conversation.talk.pause);
            } else if conversation.talk.abort {
                ends[0].abort(&mut out);
            } else {
                ends[0].closing = true;
                ends[0].pump(&mut out);
            }
        }
        if let Some(pause) = pause {
            let timer = Timer { talk: number, side: 0, kind: TimerKind::Next };
            deeds.timers.push((pause, timer));
        }
        let changed = ends[side].timer != timer;
        self.send_segments(number, side, &out, deeds);
        if changed {
            self.set_timer(number, side, deeds);
        }
        self.look_for_end(number, deeds);
    }

    fn look_for_end(&mut self, number: u32, deeds: &mut Deeds) {
        let Some(conversation) = self.talks.get_mut(&number) else { return };
        let Progress::Tcp(ends) = &conversation.state else { return };
        let all = conversation.round == conversation.talk.rounds;
        let ending = match (ends[0].state, ends[1].state) {
            (State::Aborted, _) => Some(Ending::Done),
            _ if ends[0].is_done() && all => Some(Ending::Done),
            (State::Reset, _) | (_, State::Reset) => Some(Ending::Reset),
            (State::GaveUp, _) | (_, State::GaveUp) => Some(Ending::GaveUp),
            _ => None,
        };
        if let Some(ending) = ending {
            conversation.end(ending, deeds);
        }
    }

    fn send_segments(&mut self, number: u32, side: usize, out: &[Segment], deeds: &mut Deeds) {
        let Some(conversation) = self.talks.get_mut(&number) else { return };
        let ports = conversation.ports(side);
        for segment in out {
            // Whoever cuts it on the way must not mix it up with another.
            conversation.cut = conversation.cut.wrapping_add(8);
            let ip = conversation.ip(side).identification(conversation.cut);
            let &Segment { flags, sequence, acknowledgement, offset, len, mss, cut } = segment;
            let data: Vec<u8> = (offset..offset + len).map(|at| byte(number, side, at)).collect();
            let packet = ip.tcp(ports, Tcp { flags, sequence, acknowledgement, mss }, &data);
            let packet = match cut {
                Some(cut) => super_packet(&packet, cut),
                None => Packet::plain(packet),
            };
            deeds.sent.push((number, side, packet));
        }
    }

    fn set_timer(&self, number: u32, side: usize, deeds: &mut Deeds) {
        let Some(Conversation { state: Progress::Tcp(ends), .. }) = self.talks.get(&number) else {
            return;
        };
        if let Some(wait) = ends[side].waits_for() {
            let kind = TimerKind::Again(ends[side].timer);
            deeds.timers.push((wait, Timer { talk: number, side, kind }));
        }
    }

    fn ask(&mut self, number: u32, deeds: &mut Deeds) {
        let Some(conversation) = self.talks.get_mut(&number) else { return };
        let Progress::Asking { tries, timer } = &mut conversation.state else { return };
        *timer += 1;
        let kind = TimerKind::Again(*timer);
        let wait = Duration::from_secs(2 << *tries);
        deeds.timers.push((wait, Timer { talk: number, side: 0, kind }));
        let round = conversation.round;
        self.say(number, 0, round, deeds);
    }

    /// One side says its message of a round.
    fn say(&mut self, number: u32, side: usize, round: u32, deeds: &mut Deeds) {
        let Some(conversation) = self.talks.get_mut(&number) else { return };
        let len = conversation.talk.sizes[side].max(MESSAGE_HEAD);
        let text = message(number, side, round, len);
        let ip = conversation.ip(side);
        let packet = match conversation.talk.kind {
            Kind::Ping if side == 0 => ip.echo_request(conversation.talk.port, round as u16),
            Kind::Ping => ip.echo_reply(conversation.talk.port, round as u16),
            Kind::Other(protocol) => ip.protocol(protocol, &text),
            Kind::Udp | Kind::Tcp => ip.udp(conversation.ports(side), &text),
        };
        let path = conversation.paths[side];
        if packet.len() > path {
            let most = (path - 60) / 8 * 8;
            conversation.cut = conversation.cut.wrapping_add(1);
            for fragment in fragments(&packet, conversation.cut, most) {
                deeds.sent.push((number, side, Packet::plain(fragment)));
            }
        } else {
            deeds.sent.push((number, side, Packet::plain(packet)));
        }
    }

    fn message(&mut self, number: u32, side: usize, text: &[u8], deeds: &mut Deeds) {
        let Some(conversation) = self.talks.get_mut(&number) else { return };
        let Some(head) = text.get(..MESSAGE_HEAD) else { return };
        if head[..8] != sum(&text[8..]).to_be_bytes() {
            return;
        }
        let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let (talk, round) = (word(10), word(14));
        // An earlier conversation of the same hosts may still have something to say.
        if talk != number {
            return;
        }
        let len = conversation.talk.sizes[1 - side].max(MESSAGE_HEAD);
        if text != message(number, 1 - side, round, len) {
            let text = format!("a message was changed on the way: {}", conversation.describe());
            deeds.wrong = Some(("Transparency", text));
            return;
        }
        if side == 1 {
            if conversation.is_denied() {
                deeds.denied = Some(number);
            }
            self.complain_once(number, side, deeds);
            self.say(number, 1, round, deeds);
        } else {
            self.answered(number, round, deeds);
        }
    }

    fn ping(&mut self, number: u32, side: usize, message: &[u8], deeds: &mut Deeds) {
        // Cut on its way, it may say of no round that it is of.
        let Some(&[high, low]) = message.get(6..8) else { return };
        let round = u32::from(u16::from_be_bytes([high, low]));
        if side == 1 {
            self.say(number, 1, round, deeds);
        } else {
            self.answered(number, round, deeds);
        }
    }

    fn answered(&mut self, number: u32, round: u32, deeds: &mut Deeds) {
        let Some(conversation) = self.talks.get_mut(&number) else { return };
        let Progress::Asking { timer, .. } = &mut conversation.state else { return };
        if round != conversation.round || conversation.end.is_some() {
            return;
        }
        *timer += 1;
        conversation.round += 1;
        if conversation.round < conversation.talk.rounds {
            let timer = Timer { talk: number, side: 0, kind: TimerKind::Next };
            deeds.timers.push((conversation.talk.pause, timer));
        } else {
            conversation.end(Ending::Done, deeds);
        }
    }

    /// A host tells by ICMP that something took too long; nothing depends on it.
    fn complain_once(&mut self, number: u32, side: usize, deeds: &mut Deeds) {
        let Some(conversation) = self.talks.get_mut(&number) else { return };
        if !conversation.talk.errors || std::mem::replace(&mut conversation.complained, true) {
            return;
        }
        let round = conversation.round;
        let conversation = &self.talks[&number];
        let text = message(number, 1 - side, round, MESSAGE_HEAD);
        // The packet as it was when it arrived here.
        let Place { own, peer, .. } = conversation.sides[side];
        let got = Ip::between(peer, own);
        let about = match conversation.talk.kind {
            Kind::Udp => got.udp(conversation.ports(1 - side), &text),
            Kind::Other(protocol) => got.protocol(protocol, &text),
            Kind::Tcp | Kind::Ping => return,
        };
        let error = conversation.ip(side).icmp_error(Problem::TimeExceeded, &about, 64);
        deeds.sent.push((number, side, Packet::plain(error)));
    }

    /// An ICMP error about a packet that this side has sent.
    fn complaint(&mut self, number: u32, side: usize, kind: IcmpErrorKind, deeds: &mut Deeds) {
        let Some(conversation) = self.talks.get_mut(&number) else { return };
        let IcmpErrorKind::TooBig { mtu } = kind else { return };
        let head = if conversation.sides[side].own.is_ipv4() { 40 } else { 60 };
        let path = (mtu as usize).clamp(400, conversation.paths[side]);
        conversation.paths[side] = path;
        if let Progress::Tcp(ends) = &mut conversation.state {
            let mut out = Vec::new();
            ends[side].shrink((path - head) as u64, &mut out);
            self.send_segments(number, side, &out, deeds);
            self.set_timer(number, side, deeds);
        }
    }
}

fn mss_of(header: &[u8]) -> Option<u16> {
    let header = TcpHeaderSlice::from_slice(header).ok()?;
    header.options_iterator().find_map(|option| match option {
        Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
        _ => None,
    })
}

/// The address that is so many further on.
pub(super) fn plus(address: IpAddr, add: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => (u32::from(v4) + u32::from(add)).to_be_bytes().into(),
        IpAddr::V6(v6) => (u128::from(v6) + u128::from(add)).to_be_bytes().into(),
    }
}
