//! What is asked of one conversation: what it is, how far it is, and what its packets look like.

use std::time::Duration;

use geneve::protocol;

use super::super::configuration::{DENIED, Policy};
use super::super::plan::{Kind, Talk};
use super::tcp::{End, State};
use super::{Conversation, Deeds, Ending, Place, Progress};
use crate::packets::Ip;

impl Conversation {
    /// Whether firewalls let nobody through.
    pub fn is_denied(&self) -> bool {
        self.talk.service == DENIED && matches!(self.talk.kind, Kind::Tcp | Kind::Udp)
    }

    /// Whether an end has begun to close it, or has not opened it yet: gateways forget it sooner
    /// then.
    pub fn is_closing(&self) -> bool {
        match &self.state {
            Progress::Tcp(ends) => {
                ends.iter().any(|end| end.closing || end.peer_closed || end.state != State::Open)
            }
            Progress::Asking { .. } => false,
        }
    }

    /// Whether its flow is that of others, too.
    pub fn is_shared(&self, policy: &Policy) -> bool {
        policy.stickiness != "5-tuple" || matches!(self.talk.kind, Kind::Ping | Kind::Other(_))
    }

    /// Whether it has packets that come in pieces, which firewalls may drop when they come in
    /// another order.
    pub fn is_fragmented(&self) -> bool {
        let Talk { kind, may_fragment, segment, sizes, .. } = &self.talk;
        let tcp = *kind == Kind::Tcp;
        let large = |side: usize| {
            let most = if tcp { sizes[side].min(*segment) } else { sizes[side] };
            // No path here takes less than that.
            let path = self.paths[side].min(if *may_fragment { 1200 } else { usize::MAX });
            most + 60 > path
        };
        (*may_fragment || !tcp) && (large(0) || large(1))
    }

    /// The longest time in which nobody says anything.
    pub fn pause(&self) -> Duration {
        if self.talk.rounds > 1 { self.talk.pause } else { Duration::ZERO }
    }

    /// It is over, if it is not already.
    pub(super) fn end(&mut self, ending: Ending, deeds: &mut Deeds) {
        if self.end.is_none() {
            self.end = Some(ending);
            deeds.ended.push(self.number);
        }
    }

    /// In a line.
    pub fn describe(&self) -> String {
        let [one, other] = &self.sides;
        let state = match &self.state {
            Progress::Tcp(ends) => format!("{:?} and {:?}", ends[0].state, ends[1].state),
            Progress::Asking { tries, .. } => format!("{tries} tries"),
        };
        format!(
            "event {}: {:?} from {} port {} to {} port {}, round {} of {}, {state}, {} lost",
            self.number,
            self.talk.kind,
            one.own,
            one.port,
            one.peer,
            other.port,
            self.round,
            self.talk.rounds,
            self.losses,
        )
    }

    /// The states of both ends, if it is TCP.
    pub fn tcp_states(&self) -> Option<[&'static str; 2]> {
        let Progress::Tcp(ends) = &self.state else { return None };
        let name = |end: &End| match end.state {
            State::Closed => "closed",
            State::SynSent => "syn_sent",
            State::SynReceived => "syn_received",
            State::Open if end.is_done() => "time_wait",
            State::Open if end.peer_closed => "close_wait",
            State::Open if end.fin_acknowledged => "fin_wait_2",
            State::Open if end.closing => "fin_wait_1",
            State::Open => "established",
            State::Reset => "reset",
            State::Aborted => "aborted",
            State::GaveUp => "gave_up",
        };
        Some([name(&ends[0]), name(&ends[1])])
    }

    pub(super) fn protocol(&self) -> u8 {
        match (self.talk.kind, self.sides[0].own.is_ipv4()) {
            (Kind::Tcp, _) => protocol::TCP,
            (Kind::Udp, _) => protocol::UDP,
            (Kind::Ping, true) => protocol::ICMP,
            (Kind::Ping, false) => protocol::ICMPV6,
            (Kind::Other(number), _) => number,
        }
    }

    pub(super) fn ip(&self, side: usize) -> Ip {
        let Place { own, peer, .. } = self.sides[side];
        let ip = Ip::between(own, peer);
        if self.talk.may_fragment { ip.may_fragment() } else { ip }
    }

    pub(super) fn ports(&self, side: usize) -> (u16, u16) {
        (self.sides[side].port, self.sides[1 - side].port)
    }
}
